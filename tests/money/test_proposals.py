"""Decisions that were asked for: once, in time, within a person's caps, and never after they were withdrawn."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Place
from hypothesis import given, settings
from hypothesis import strategies as st
from money.books import BREAD, COLA, DAY_NS, STORE, T_NS, TWO, balances, receipt

from fusion.errors import EntryError, IdempotencyConflict, LedgerError, NotPermitted
from fusion.money.ledger import Ledger
from fusion.money.payments import Checkout
from fusion.money.proposals import Authority, Proposals, Wish, proposals_of
from fusion.money.providers import InProcessProvider
from fusion.money.receipts import ReceiptDocument
from fusion.money.retailers import Retailer
from fusion.money.statements import statement
from fusion.money.vault import Holder
from fusion.results import ReceiptLine

S = 10**9
ANNA, BEN = Authority("anna"), Authority("ben")
BRAND = Retailer(id="r", name="R", brand="R", fee_monthly=0, stores=("shop",))
TOTAL = sum(line.quantity * line.unit_price for line in TWO)


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    with place.open(STORE) as opened:
        opened.post_receipt(receipt("v1", *TWO, status="review"))
        opened.post_receipt(receipt("v2", *TWO))
        yield opened


def bread(visit: str = "v1", pieces: int = 1, revision: int = 1, **more: Any) -> Wish:
    return Wish(visit, "correct", revision, (ReceiptLine(BREAD, pieces, 199, 1.0),), reason="not_taken", **more)


def waive(visit: str, revision: int = 1, reason: str = "goodwill") -> Wish:
    return Wish(visit, "waive", revision, reason=reason)


def decisions(ledger: Ledger, visit: str) -> list[str]:
    return [entry.kind for entry in ledger.entries(visit) if entry.kind.startswith("decision ")]


def test_a_decision_takes_effect_after_ten_seconds_and_once(ledger: Ledger) -> None:
    proposals, others = Proposals(ledger, STORE), Proposals(ledger, STORE)
    made = proposals.ask(bread(), ANNA, T_NS)
    assert (made.state, made.before, made.after, made.due_ns) == ("counting", TOTAL, 199, T_NS + 10 * S)
    assert others.open() == [made], "all consoles show it"
    assert proposals.ask(bread(), ANNA, T_NS + S) == made, "a second Enter changes nothing"
    assert proposals.apply_due(T_NS + 10 * S - 1) == [] and decisions(ledger, "v1") == []
    assert others.apply_due(T_NS + 12 * S) == ["v1"] and proposals.apply_due(T_NS + 13 * S) == []
    assert decisions(ledger, "v1") == ["decision correct"]
    standing = ledger.standing("v1")
    assert standing is not None and (standing.status, standing.total, standing.revision) == ("decided", 199, 1)
    assert ledger.entries("v1")[-2].t_ns == made.due_ns, "dated by when it was due, whoever noticed"
    assert [each.state for each in proposals.of("v1")] == ["applied"] and proposals.open() == []
    assert balances(ledger)["receivable"] == 199 + TOTAL


def test_what_was_withdrawn_never_takes_effect(ledger: Ledger) -> None:
    proposals, others = Proposals(ledger, STORE), Proposals(ledger, STORE)
    made = proposals.ask(bread(), ANNA, T_NS)
    assert others.withdraw("v1", made.number, "anna", T_NS + 5 * S).state == "withdrawn"
    assert proposals.withdraw("v1", 1, "anna", T_NS + 6 * S).ended_by == "anna"
    assert proposals.apply_due(T_NS + 99 * S) == [] and decisions(ledger, "v1") == []
    assert ledger.reviews()[0].visit == "v1", "it waits again"
    again = proposals.ask(bread(pieces=2), BEN, T_NS + 20 * S)
    with pytest.raises(IdempotencyConflict, match="too late"):
        others.withdraw("v1", again.number, "ben", T_NS + 30 * S)
    assert others.apply_due(T_NS + 30 * S) == ["v1"]
    with pytest.raises(IdempotencyConflict, match="too late"):
        others.withdraw("v1", again.number, "ben", T_NS + 31 * S)
    with pytest.raises(LedgerError, match="no proposal 3"):
        others.withdraw("v1", 3, "ben", T_NS)


def test_of_two_who_act_the_second_is_informed(ledger: Ledger) -> None:
    proposals, others = Proposals(ledger, STORE), Proposals(ledger, STORE)
    proposals.ask(Wish("v1", "accept", 1), ANNA, T_NS)
    with pytest.raises(IdempotencyConflict, match="anna has asked"):
        others.ask(waive("v1"), BEN, T_NS)
    with pytest.raises(IdempotencyConflict, match="you have asked"):
        others.ask(waive("v1"), ANNA, T_NS)
    proposals.apply_due(T_NS + 10 * S)
    with pytest.raises(IdempotencyConflict, match="anna decided this visit in the meantime"):
        others.ask(waive("v1"), BEN, T_NS + 11 * S)


def test_above_a_cap_a_second_person_decides_too(ledger: Ledger) -> None:
    proposals = Proposals(ledger, STORE)
    small = Authority("anna", cap=TOTAL - 1)
    made = proposals.ask(Wish("v1", "accept", 1), small, T_NS)
    assert made.state == "waiting" and proposals.apply_due(T_NS + DAY_NS) == []
    with pytest.raises(NotPermitted, match="other than the one who asked"):
        proposals.second("v1", 1, small, T_NS + S)
    seconded = proposals.second("v1", 1, BEN, T_NS + 60 * S)
    assert seconded == proposals.second("v1", 1, BEN, T_NS + 61 * S)
    assert (seconded.state, seconded.seconded_by, seconded.due_ns) == ("counting", "ben", T_NS + 70 * S)
    with pytest.raises(IdempotencyConflict, match="ben has agreed"):
        proposals.second("v1", 1, Authority("eve"), T_NS + 62 * S)
    assert Proposals(ledger, STORE).apply_due(T_NS + 70 * S) == ["v1"]
    # A second person may refuse; and what one may decide alone needs none.
    with pytest.raises(LedgerError, match="needs no second person"):
        proposals.second("v2", proposals.ask(bread("v2"), ANNA, T_NS).number, BEN, T_NS)
    proposals.withdraw("v2", 1, "ben", T_NS + S)
    assert proposals.of("v2")[0].ended_by == "ben"


def test_a_day_has_a_cap_too(ledger: Ledger) -> None:
    proposals, careful = Proposals(ledger, STORE), Authority("anna", cap=TOTAL, day_cap=TOTAL + 100)
    assert proposals.ask(Wish("v1", "accept", 1), careful, T_NS).state == "counting"
    assert proposals.ask(waive("v2"), careful, T_NS + S).state == "waiting"
    # What is withdrawn does not count, nor does another day.
    proposals.withdraw("v1", 1, "anna", T_NS + 2 * S)
    proposals.withdraw("v2", 1, "anna", T_NS + 2 * S)
    assert proposals.ask(waive("v2"), careful, T_NS + 3 * S).state == "counting"
    assert proposals.ask(Wish("v1", "accept", 1), careful, T_NS + DAY_NS).state == "counting"


def test_a_reason_is_needed_where_money_changes(ledger: Ledger) -> None:
    proposals = Proposals(ledger, STORE)
    for wish, message in (
        (Wish("v1", "waive", 1), "reason: want one"),
        (Wish("v1", "waive", 1, reason="because"), "reason: want one of"),
        (Wish("v1", "waive", 1, reason="other", note=" "), "note: want the reason in words"),
        (Wish("v1", "correct", 1), "lines: want"),
        (Wish("v1", "accept", 1, lines=()), "lines: want"),
        (Wish("v1", "accept", 2), "revision: want 1"),
        (Wish("v2", "accept", 1), "want a receipt in review"),
        (Wish("v3", "accept", 1), "want a receipt to decide about"),
        (Wish("v1", "correct", 1, (ReceiptLine("0", 1, 1, 1.0),), reason="missed"), "want a product"),
    ):
        with pytest.raises(LedgerError, match=message):
            proposals.ask(wish, ANNA, T_NS)
    # The same amount for other goods: nobody pays more or less.
    swapped = (ReceiptLine(COLA, 2, 249, 1.0), ReceiptLine(COLA, 1, 199, 1.0))
    assert proposals.ask(Wish("v1", "correct", 1, swapped), ANNA, T_NS).amount == TOTAL
    noted = proposals.ask(bread("v2", note="card 4111 1111 1111 1111"), ANNA, T_NS)
    assert "4111" not in noted.note


def test_what_was_charged_needs_the_right_to_refund(ledger: Ledger) -> None:
    proposals, clerk = Proposals(ledger, STORE), Authority("anna", refunds=False)
    with pytest.raises(NotPermitted, match="right to refund"):
        proposals.ask(Wish("v2", "waive", 1, reason="returned"), clerk, T_NS)
    proposals.ask(bread("v1"), clerk, T_NS)
    proposals.apply_due(T_NS + 10 * S)
    with pytest.raises(NotPermitted, match="right to refund"):
        proposals.ask(bread("v1", 2, 2), clerk, T_NS + 11 * S)
    proposals.ask(bread("v2"), Authority("ben", cap=0), T_NS)
    with pytest.raises(NotPermitted, match="right to refund"):
        proposals.second("v2", 1, clerk, T_NS)


def test_what_another_decision_overtakes_is_void(ledger: Ledger) -> None:
    proposals = Proposals(ledger, STORE)
    proposals.ask(Wish("v1", "accept", 1), Authority("anna", cap=0), T_NS)
    ledger.decide("v1", "waive", by="ben", t_ns=T_NS + S)
    assert [each.state for each in proposals.open()] == ["void"]
    assert proposals.ask(bread(revision=2), BEN, T_NS + 2 * S).state == "counting", "it is not in the way"
    assert proposals.apply_due(T_NS + 20 * S) == ["v1"] and proposals.open() == []
    assert [each.state for each in proposals.of("v1")] == ["void", "applied"]
    proposals.ask(bread("v2"), ANNA, T_NS)
    ledger.decide("v2", "waive", by="ben", t_ns=T_NS + S)
    assert proposals.apply_due(T_NS + 20 * S) == [] and Proposals(ledger, STORE).open() == []


def test_a_product_that_has_left_the_store_since_voids_a_correction(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposals = Proposals(ledger, STORE)
    proposals.ask(bread(), ANNA, T_NS)

    def gone(*_: Any) -> Any:
        raise EntryError(f"gtin: want a product of 'shop', got '{BREAD}'")

    with monkeypatch.context() as broken:
        broken.setattr(ledger, "_rates_of", gone)
        assert proposals.apply_due(T_NS + 20 * S) == []
    (void,) = proposals.of("v1")
    assert void.state == "void" and "want a product" in void.why and proposals.open() == []
    assert proposals.ask(bread(), ANNA, T_NS + 30 * S).number == 2


def test_readers_of_receipts_and_payments_pass_proposals_by(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "books.sqlite", STORE) as ledger:
        checkout = Checkout(ledger, InProcessProvider(), STORE)
        ledger.hold(Holder("alice", "customer", "tok_1", None, T_NS))
        checkout.receipt(receipt("v1", *TWO))
        before = (
            ledger.standing("v1"), checkout.state("v1"), ledger.balances(), ledger.reviews(),
            ReceiptDocument.of(ledger, STORE, "v1"), statement(ledger, STORE, BRAND, "2026-03"),
        )  # fmt: skip
        proposals = Proposals(ledger, STORE)
        proposals.ask(bread("v1"), Authority("anna", cap=0), T_NS + S)
        proposals.second("v1", 1, BEN, T_NS + 2 * S)
        proposals.withdraw("v1", 1, "anna", T_NS + 3 * S)
        proposals.ask(bread("v1"), ANNA, T_NS + 4 * S)
        assert before == (
            ledger.standing("v1"), checkout.state("v1"), ledger.balances(), ledger.reviews(),
            ReceiptDocument.of(ledger, STORE, "v1"), statement(ledger, STORE, BRAND, "2026-03"),
        )  # fmt: skip
        assert ledger.decisions_after(0) == [] and ledger.verify() is None
        proposals.apply_due(T_NS + 20 * S)
        assert checkout.settle("v1", T_NS + 20 * S).paid == 199


# ---- random courses --------------------------------------------------------------------------------------------------


@dataclass
class Model:
    """What a visit's proposals should come to, in the simplest words."""

    revision: int = 0
    total: int = TOTAL
    final: bool = False
    by: str = ""
    after: int = 0
    amount: int = 0
    due_ns: int = 0
    needs_second: bool = False
    seconded: bool = False
    open: bool = False
    applied: int = 0
    withdrawn: int = 0

    def settle(self, now_ns: int) -> None:
        if self.open and now_ns >= self.due_ns and (self.seconded or not self.needs_second):
            self.open, self.revision, self.total, self.final = False, self.revision + 1, self.after, True
            self.applied += 1


CAP, DAY_CAP = 600, 1500
ACTIONS = st.tuples(
    st.sampled_from(("ask", "ask", "withdraw", "second", "apply", "wait", "decide")),
    st.integers(0, 1),  # through which console
    st.sampled_from(("anna", "ben")),
    st.sampled_from(("a", "b", "c")),
    st.integers(0, 12),  # pieces, or seconds
)


@settings(max_examples=30, deadline=None)
@given(course=st.lists(ACTIONS, max_size=30))
def test_random_courses_agree_with_a_simple_model(course: list[tuple[str, int, str, str, int]]) -> None:
    visits, now_ns = {name: Model() for name in "abc"}, T_NS
    alone: Counter[tuple[str, str, int]] = Counter()  # by person, visit and number: what was decided by one person
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.open(Path(folder) / "books.sqlite", STORE) as ledger,
        Ledger.open(Path(folder) / "books.sqlite", STORE) as second,
    ):
        for name in visits:
            ledger.post_receipt(receipt(name, *TWO, status="review"))
        consoles = (Proposals(ledger, STORE), Proposals(second, STORE))
        for action, which, person, visit, n in course:
            model, console, authority = visits[visit], consoles[which], Authority(person, cap=CAP, day_cap=DAY_CAP)
            number = len(console.of(visit))
            today = sum(amount for (name, *_), amount in alone.items() if name == person)
            if action == "ask":
                wish = bread(visit, n, model.revision + 1) if n else waive(visit, model.revision + 1)
                after = 199 * n
                changed = abs(after - model.total)
                if model.open:
                    same = model.by == person and model.after == after
                    if not same:
                        with pytest.raises(IdempotencyConflict):
                            console.ask(wish, authority, now_ns)
                    continue
                model.after, model.by, model.open, model.seconded = after, person, True, False
                model.amount = changed if model.final else max(changed, after)
                model.needs_second = bool(model.amount) and (model.amount > CAP or today + model.amount > DAY_CAP)
                model.due_ns = now_ns + 10 * S
                if not model.needs_second:
                    alone[person, visit, number + 1] = model.amount
                assert console.ask(wish, authority, now_ns).needs_second == model.needs_second
            elif action == "withdraw" and number:
                is_due = model.open and now_ns >= model.due_ns and (model.seconded or not model.needs_second)
                if (not model.open and model.applied and console.of(visit)[-1].state == "applied") or is_due:
                    with pytest.raises(IdempotencyConflict):
                        console.withdraw(visit, number, person, now_ns)
                elif model.open:
                    console.withdraw(visit, number, person, now_ns)
                    model.open, model.withdrawn = False, model.withdrawn + 1
                    if not model.needs_second:
                        alone[model.by, visit, number] = 0
            elif action == "second" and model.open and model.needs_second and not model.seconded:
                if person == model.by:
                    with pytest.raises(NotPermitted):
                        console.second(visit, number, authority, now_ns)
                else:
                    console.second(visit, number, authority, now_ns)
                    model.seconded, model.due_ns = True, max(model.due_ns, now_ns + 10 * S)
            elif action == "apply":
                console.apply_due(now_ns)
                for each in visits.values():
                    each.settle(now_ns)
            elif action == "wait":
                now_ns += n * S
            elif action == "decide":
                standing = ledger.standing(visit)
                assert standing is not None and standing.revision == model.revision
        for name, model in visits.items():
            standing = ledger.standing(name)
            assert standing is not None and (standing.revision, standing.total) == (model.revision, model.total)
            states = Counter(each.state for each in proposals_of(second.entries(name)))
            assert (states["applied"], states["withdrawn"]) == (model.applied, model.withdrawn)
            assert len(decisions(ledger, name)) == model.applied, "once each, and nothing that was withdrawn"
        for person in ("anna", "ben"):
            mine = [
                each
                for name in visits
                for each in consoles[0].of(name)
                if each.by == person and each.state == "applied" and not each.seconded_by
            ]
            assert all(each.amount <= CAP for each in mine) and sum(each.amount for each in mine) <= DAY_CAP
        owed = sum(model.total for model in visits.values() if model.final)
        assert balances(ledger).get("receivable", 0) == owed
