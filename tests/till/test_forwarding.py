"""Books on a server: what a store reports about them at its end."""

from __future__ import annotations

from pathlib import Path

from money.books import STORE, T_NS, TWO, receipt

from fusion.gates.keeper import Decision
from fusion.gates.verifiers import GateRequest, VerifiedAccounts
from fusion.money.ledger import Ledger
from fusion.money.payments import Checkout
from fusion.money.prices import PricedReceipt
from fusion.money.providers import InProcessProvider
from fusion.store.models import Gate
from fusion.till.customers import Customer, NoCustomers
from fusion.till.forwarding import Forwarding
from fusion.till.till import DEBTOR, Around, Parts, Till

GATE = Gate(id="entry", direction="in", line=((0.0, 0.0), (1.0, 0.0)), credentials=("card",))
S = 10**9


class Known(NoCustomers):
    """Everybody has a means of payment."""

    def of(self, account: str) -> Customer:
        return Customer(account, f"token of {account}")


def test_a_store_that_has_closed_its_books_still_reports_what_waits(tmp_path: Path) -> None:
    front = Ledger.open(tmp_path / "front.sqlite", STORE)
    forwarding = Forwarding(front, lambda: Ledger.open(tmp_path / "server.sqlite", STORE), tmp_path, print)
    front.open_visit("v1", None, 1)
    n_waiting = forwarding.n_waiting
    forwarding.close()
    front.close()
    assert forwarding.n_waiting == n_waiting > 0


def test_who_owes_in_books_on_a_server_stays_outside_until_they_have_paid(tmp_path: Path) -> None:
    now_ns, pays, store = [T_NS + 10 * S], [False], STORE.model_copy(update={"gate": (GATE,)})
    provider = InProcessProvider(lambda step, key: None if pays[0] else "decline")
    around = Around(tmp_path, lambda: now_ns[0], lambda: now_ns[0] / S, threads=False)
    parts = Parts(provider, Known(), verifiers=lambda pseudonyms: {"account": pseudonyms.behind(VerifiedAccounts())})
    with Ledger.open(tmp_path / "front.sqlite", store) as front:
        forwarding = Forwarding(front, lambda: Ledger.open(tmp_path / "server.sqlite", store), tmp_path, print)
        till = Till(store, front, parts, around, forwarding=forwarding)

        def asked(account: str) -> Decision:
            now_ns[0] += 20 * S
            till.do_errands()
            return till.decide(GateRequest(now_ns[0], GATE.id, "account", account))

        assert asked("tok_alice").open, "no one owes yet"
        (visitor,) = front.pseudonyms("tok_alice")
        front.open_visit("v1", visitor, T_NS)
        till.post(PricedReceipt(receipt("v1", *TWO, account=visitor), ()))
        refused = asked("tok_alice")
        assert not refused.open and refused.display == DEBTOR
        assert asked("tok_bob").open
        pays[0] = True
        assert Checkout(forwarding.books, provider, store).collect("v1", now_ns[0]).status == "paid"
        assert asked("tok_alice").open
        forwarding.close()
