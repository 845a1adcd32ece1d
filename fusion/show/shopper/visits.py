"""What the shopper's pages show of visits: baskets, receipts, questions; read from the books."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from fusion.errors import FusionError
from fusion.gates.shopper_sessions import ShopperSession
from fusion.money.disputes import disputes_of
from fusion.money.entries import Entry
from fusion.money.history import History
from fusion.money.ledger import Ledger
from fusion.money.moments import Moment, Moments, kept_of
from fusion.money.prices import PriceBook
from fusion.money.receipts import ReceiptDocument
from fusion.money.visits import DECISIONS, OPENED, Standing
from fusion.results import Receipt, ReceiptLine, ReceiptStatus, Taken
from fusion.store.models import Store
from fusion.till.answers import Answers, ShopperQuestion
from fusion.till.customers import Customers

# Visits of an account that a page lists; the books hold all of them.
LISTED_MAX = 200
NS_PER_MS = 1_000_000


class Visits:
    """The visits of a store, as the shoppers see them whose they are. From any thread."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        moments: Moments,
        customers: Customers,
        answers: Answers,
        seller: str | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Read the books of a store.

        Args:
            store: the store.
            ledger: its books.
            moments: when and where goods were taken.
            customers: whether members' prices hold.
            answers: the questions that may be asked.
            seller: brand on receipts.
            now_ns: the machine's clock.
        """
        self._store, self._ledger, self._moments = store, ledger, moments
        self._customers, self._answers, self._seller, self._now_ns = customers, answers, seller, now_ns
        self._prices = PriceBook(store)
        self._names = {product.gtin: product.name for product in store.products}

    # ---- whose ---------------------------------------------------------------------------------------------------

    def account(self, visit: str) -> str | None:
        """The account of a visit; None for a guest, and once it is unlinked."""
        holder = self._ledger.customer(visit)
        return None if holder is None else holder.account

    def holder_account(self, pseudonym: str) -> str | None:
        """The account behind a pseudonym; None where the vault knows none."""
        holder = self._ledger.holder(pseudonym)
        return None if holder is None else holder.account

    def is_of(self, session: ShopperSession, visit: Any) -> bool:
        """Whether a session may see a visit; False for what is no visit at all."""
        if not isinstance(visit, str) or not 1 <= len(visit) <= 255:
            return False
        if session.kind == "visit":
            return visit == session.subject
        return session.kind == "account" and self.account(visit) == session.subject

    def of(self, session: ShopperSession) -> list[str]:
        """The visits that a session may see, newest first."""
        if session.kind == "visit":
            return [session.subject]
        return self._ledger.visits(session.subject)[:LISTED_MAX] if session.kind == "account" else []

    def is_guest(self, visit: str) -> bool:
        """Whether a visit's customer has no account that the retailer knows, so that they get a code at the door.

        They came through an open door, or showed a card, whose token is all that is known of them.
        """
        holder = self._ledger.customer(visit)
        if holder is None:
            return True
        return holder.account == holder.token and self._customers.of(holder.account) is None

    # ---- what is shown -------------------------------------------------------------------------------------------

    def basket(self, visit: str, goods: Sequence[tuple[str, int]]) -> dict[str, Any]:
        """What a visit seems to hold now, at its prices; `goods` are pieces by GTIN."""
        kept = kept_of(self._moments.of(visit))
        taken = tuple(Taken(each.t_ns, gtin, 1) for gtin, _ in goods for each in kept.get(gtin, ()))
        lines = tuple(ReceiptLine(gtin, n, 0, 1.0) for gtin, n in goods if gtin in self._names)
        now_ns = self._now_ns()
        account = self.account(visit)
        customer = self._customers.of(account) if account is not None else None
        bill = Receipt(
            visit, None, None, now_ns, now_ns, ReceiptStatus.SETTLED, (), self._store.currency, 0, lines, taken
        )  # fmt: skip
        priced = self._prices.priced(bill, member=customer is not None and customer.member)
        return {
            "visit": visit,
            "lines": self._lines(priced.receipt.lines, kept),
            "discounts": [[each.offer, self._name(each.gtin), each.amount] for each in priced.discounts],
            "total": priced.receipt.total,
        }

    def row(self, visit: str) -> dict[str, Any] | None:
        """A visit as the list shows it; None where it is not in the books."""
        entries = self._ledger.entries(visit)
        standing = self._ledger.standing(visit, entries)
        return None if standing is None else _head(standing, entries)

    def receipt(self, visit: str) -> dict[str, Any] | None:
        """A visit with its lines, when and where each was taken, payment, disputes and questions."""
        entries = self._ledger.entries(visit)
        standing = self._ledger.standing(visit, entries)
        if standing is None:
            return None
        document = ReceiptDocument.of(self._ledger, self._store, visit, self._seller) if standing.is_final else None
        history = History.of(entries)
        decided_seq = max((entry.seq for entry in entries if entry.kind in DECISIONS), default=-1)
        disputed = {
            each.gtin: {"quantity": each.quantity, "reason": str(each.reason), "open": each.seq > decided_seq}
            for each in disputes_of(entries)
        }
        questions: Sequence[ShopperQuestion] = ()
        with suppress(FusionError):  # evidence that is being written; the receipt is shown without a question
            questions = self._answers.questions(visit)
        return {
            **_head(standing, entries),
            "seller": self._seller or self._store.name,
            "lines": self._lines(standing.lines, kept_of(self._moments.of(visit))),
            "discounts": [[each.offer, self._name(each.gtin), each.amount] for each in standing.discounts],
            "taxes": [[tax.rate, tax.net, tax.vat] for tax in document.taxes] if document is not None else [],
            "paid": history.paid,
            "owed": history.owed if standing.is_final else 0,
            "disputed": disputed,
            "questions": [self._question(each) for each in questions],
            "mail": self._has_address(visit),
        }

    def document(self, visit: str) -> ReceiptDocument | None:
        """The receipt of a visit as it stands; None while it has none that is final."""
        return ReceiptDocument.of(self._ledger, self._store, visit, self._seller)

    def _has_address(self, visit: str) -> bool:
        holder = self._ledger.customer(visit)
        return holder is not None and holder.email is not None

    def _name(self, gtin: str) -> str:
        return self._names.get(gtin, gtin)

    def _lines(self, lines: Sequence[ReceiptLine], kept: Mapping[str, list[Moment]]) -> list[dict[str, Any]]:
        left = {gtin: list(moments) for gtin, moments in kept.items()}
        rows = []
        for line in lines:
            held = left.get(line.gtin, [])
            moments, left[line.gtin] = held[: line.quantity], held[line.quantity :]
            rows.append(
                {
                    "gtin": line.gtin, "name": self._name(line.gtin), "quantity": line.quantity,
                    "price": line.unit_price, "amount": line.quantity * line.unit_price,
                    "taken": [[each.t_ns // NS_PER_MS, each.plate] for each in moments],
                }
            )  # fmt: skip
        return rows

    def _question(self, asked: ShopperQuestion) -> dict[str, Any]:
        return {
            "id": asked.id, "kind": str(asked.kind), "ms": asked.t_ns // NS_PER_MS, "plate": asked.plate,
            "nearby": list(asked.nearby), "answered": asked.answered,
            "choices": [
                {
                    "number": choice.number, "total": choice.total, "dearer": choice.dearer,
                    "moved": [[self._name(goods.gtin), goods.quantity] for goods in choice.moved],
                    "holds": [[self._name(gtin), choice.pieces(gtin)] for gtin in asked.differs],
                }
                for choice in asked.choices
            ],
        }  # fmt: skip


def _head(standing: Standing, entries: Sequence[Entry]) -> dict[str, Any]:
    """What a list shows of a visit. It was when its people left, once they have."""
    t_ns = entries[0].t_ns
    for entry in entries:
        if entry.kind.startswith("receipt ") and entry.request.get("exit"):
            t_ns = entry.request["exit"]
        elif entry.kind == OPENED:
            t_ns = entry.t_ns
    return {
        "visit": standing.visit,
        "ms": t_ns // NS_PER_MS,
        "status": standing.status,
        "total": standing.total,
        "pieces": sum(line.quantity for line in standing.lines),
        "revision": standing.revision,
    }
