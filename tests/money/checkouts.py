"""A shop with books, a payment provider and a checkout; for tests of payment."""

from __future__ import annotations

from typing import Any

from conftest import Place
from money.books import COLA, STORE, T_NS, TWO, balances, receipt

from fusion.money.payments import UNUSED_MAX_S, Checkout
from fusion.money.providers import InProcessProvider
from fusion.money.vault import Holder
from fusion.results import Receipt, ReceiptLine
from fusion.store.models import PaymentPolicy, Store

ENTER = STORE.model_copy(update={"payment": PaymentPolicy(mode="enter", authorise=5000)})
BIG = (ReceiptLine(COLA, 30, 249, 0.99),)
LATER_NS = T_NS + round(10 * UNUSED_MAX_S * 1e9)


class Shop:
    """Books, provider and checkout of a store; `restart` loses everything but what is durable."""

    def __init__(self, place: Place, store: Store = ENTER, provider: Any = None) -> None:
        self.place, self.store = place, store
        self.provider = provider or InProcessProvider()
        self.ledger = place.open(store)
        self.checkout = Checkout(self.ledger, self.provider, store)

    def restart(self) -> None:
        """A new process on the same books."""
        self.ledger.close()
        self.ledger = self.place.open(self.store)
        self.checkout = Checkout(self.ledger, self.provider, self.store)

    def hold(self, pseudonym: str = "p1", token: str | None = "tok") -> None:
        """Keep a customer with a means of payment behind a pseudonym."""
        if self.ledger.holder(pseudonym) is None:
            self.ledger.hold(Holder(pseudonym, f"account of {pseudonym}", token, None, T_NS))

    def agrees(self) -> dict[str, int]:
        """Balances, once no step is pending: the provider has captured and authorised the same amounts."""
        found = balances(self.ledger)
        assert found.get("provider", 0) == self.provider.total
        assert found.get("authorised", 0) == self.provider.held
        return found


def priced(*lines: ReceiptLine, status: str = "settled", visit: str = "v1", account: str | None = "p1") -> Receipt:
    """A receipt under a pseudonym."""
    return receipt(visit, *lines, status=status, account=account)


def course(shop: Shop) -> None:
    """A client's calls from entry to final decision; repeated when it does not know how far it came."""
    shop.hold()
    shop.checkout.admit("p1", T_NS)
    shop.checkout.open_visit("v1", "p1", T_NS)
    shop.checkout.receipt(priced(*BIG))
    shop.checkout.decide("v1", "correct", by="eve", t_ns=T_NS + 5, lines=TWO)
