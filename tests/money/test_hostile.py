"""Random courses of visits with a provider that declines, loses, repeats, forgets and approves in part.

Whatever it answers: no capture is asked for that the postings do not leave to pay, all accounts sum to zero, both books
agree once a person has looked, and every visit ends paid, waiting for a person, or closed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from conftest import Place
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from money.books import BREAD, COLA, T_NS
from money.checkouts import ENTER, Shop, priced

from fusion.money.payments import Checkout
from fusion.money.providers import Answer, InProcessProvider
from fusion.results import ReceiptLine

HOUR_NS = 3600 * 10**9
VISITS = ("v0", "v1")
FAULTS = (None, None, "decline", "lost before", "lost after", "repeat", "partial", "invalid")
OPERATIONS = st.one_of(
    st.tuples(st.sampled_from(["admit", "open", "collect", "settle"]), st.sampled_from(VISITS)),
    st.tuples(st.just("receipt"), st.sampled_from(VISITS), st.sampled_from(["settled", "review"]), st.integers(0, 60)),
    st.tuples(st.just("decide"), st.sampled_from(VISITS), st.integers(0, 60)),
    st.tuples(st.just("recover"), st.sampled_from([0, 1, 13, 30, 200])),
)


class Watched(InProcessProvider):
    """Keeps keys and authorisations no longer than it promises, and checks every capture against the books."""

    def __init__(self, faults: list[Any], looks_up: bool) -> None:
        super().__init__(
            lambda step, key: faults.pop() if faults else None, looks_up=looks_up, clock_ns=lambda: self.now_ns
        )
        self.now_ns, self.shop, self.faulty = T_NS, None, ""

    def capture(self, key: str, authorisation: str, amount: int) -> Answer:
        assert self.shop is not None
        visit = key.split("/")[1]
        left = sum(leg.amount for leg in self.shop.ledger.postings(visit) if leg.account == "receivable")
        if amount > left and not self.carried_out("capture", key):
            self.faulty = f"{key}: {amount} asked for, {left} due"
        return super().capture(key, authorisation, amount)


def lines_of(n: int) -> tuple[ReceiptLine, ...]:
    return (ReceiptLine(COLA, 1, 10 * n, 0.9), ReceiptLine(BREAD, 1, n, 0.9)) if n else ()


def take(shop: Shop, provider: Watched, operation: tuple[Any, ...]) -> None:
    """One call of a client or a person."""
    now_ns, (name, *rest) = provider.now_ns, operation
    if name == "recover":
        provider.now_ns += rest[0] * HOUR_NS + 1
        shop.checkout.recover(provider.now_ns)
        return
    visit = rest[0]
    pseudonym, standing = f"p of {visit}", shop.ledger.standing(visit)
    if name == "admit" and standing is None:
        shop.hold(pseudonym)
        shop.checkout.admit(pseudonym, now_ns)
    elif name == "open" and standing is None:
        shop.checkout.open_visit(visit, pseudonym, now_ns)
    elif name == "receipt" and (standing is None or standing.status == "open"):
        shop.hold(pseudonym)
        shop.checkout.receipt(priced(*lines_of(rest[2]), status=rest[1], visit=visit, account=pseudonym))
    elif name == "decide" and standing is not None and standing.status != "open":
        lines, revision = lines_of(rest[1]), standing.revision + 1
        kind = "correct" if lines else "waive"
        shop.checkout.decide(
            visit, kind, by="eve", t_ns=now_ns, revision=revision, lines=lines or None  # type: ignore[arg-type]
        )  # fmt: skip
    elif name in ("collect", "settle") and standing is not None:
        getattr(shop.checkout, name)(visit, now_ns)


def person_looks(shop: Shop, provider: Watched, visit: str) -> None:
    """A person reads the provider's account about a step in question, and enters what they find."""
    asked = [entry for entry in shop.ledger.entries(visit) if entry.kind == "payment asked"]
    step, key = asked[-1].request["step"], f"{shop.store.id}/{visit}/{len(asked)}"
    found = provider.carried_out(step, key)
    assert len(found) <= 1, "it was never asked again once its key was forgotten"
    reference, amount = (found[0].reference, found[0].amount) if found else ("", None)
    given = shop.ledger.recorded(f"reference {step} {reference}", "given")
    if given is not None:
        # The provider gave this one to another step while the answer to its own was lost.
        found, reference = [] if step == "authorise" else found, ""
    shop.checkout.resolve(
        visit, carried_out=bool(found), by="eve", t_ns=provider.now_ns, amount=amount, reference=reference
    )


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    operations=st.lists(OPERATIONS, min_size=3, max_size=14),
    faults=st.lists(st.sampled_from(FAULTS), max_size=12),
    looks_up=st.booleans(),
)
def test_nothing_is_taken_beyond_what_is_due_and_every_visit_ends(
    operations: list[tuple[Any, ...]], faults: list[Any], looks_up: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        provider, leaves_holds = Watched(faults, looks_up), not {"invalid", "repeat"}.isdisjoint(faults)
        shop = Shop(Place(Path(folder)), ENTER, provider)
        provider.shop = shop
        # As in a live store: a receipt may come long after its goods.
        shop.checkout = Checkout(shop.ledger, provider, ENTER, clock_ns=lambda: provider.now_ns)
        # Durability is not examined here, so all steps share one commit.
        with shop.ledger.batch():
            for operation in operations:
                take(shop, provider, operation)
            provider.recovered()
            for hours in (1, 13, 30):
                provider.now_ns += hours * HOUR_NS
                shop.checkout.recover(provider.now_ns)
            for _ in range(5):
                waiting = [one.visit for one in shop.checkout.outstanding() if one.status == "person"]
                for subject in waiting:
                    person_looks(shop, provider, subject)
                provider.now_ns += HOUR_NS
                shop.checkout.recover(provider.now_ns)
            for visit in VISITS:
                state = shop.checkout.state(visit)
                assert state.status in ("open", "review", "paid", "unpaid", "owing"), state
                if state.status in ("unpaid", "owing"):
                    closed = shop.checkout.close(visit, by="eve", t_ns=provider.now_ns)
                    assert closed.status in ("paid", "closed"), closed
        assert not provider.faulty and shop.ledger.verify() is None
        balances = shop.ledger.balances().get("EUR", {})
        assert sum(balances.values()) == 0
        assert balances.get("provider", 0) == provider.total
        assert balances.get("receivable", 0) == 0
        # A release that is rejected, or that goes to another's authorisation, leaves one behind until it expires.
        assert leaves_holds or balances.get("authorised", 0) == provider.held
        shop.ledger.close()
