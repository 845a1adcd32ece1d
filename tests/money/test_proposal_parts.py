"""Decisions that were asked for, field by field: what the books keep, each state, each refusal in words, each cap."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from money.books import BREAD, COLA, STORE, T_NS, TWO, receipt

from fusion.errors import FusionError, IdempotencyConflict, LedgerError, NotPermitted
from fusion.money.entries import Entry
from fusion.money.ledger import Ledger
from fusion.money.proposals import Authority, Proposal, Proposals, Wish, amount_of, proposals_of
from fusion.money.sales import Discount, Sale
from fusion.money.visits import Standing
from fusion.results import ReceiptLine

S_NS = 10**9
ANNA, BEN = Authority("anna"), Authority("ben")
LESS = Discount("offer", COLA, 98)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Books of a visit in review, v1, and one that was charged, v2: 697 each."""
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as opened:
        opened.post_receipt(receipt("v1", *TWO, status="review"))
        opened.post_receipt(receipt("v2", *TWO))
        yield opened


@pytest.fixture
def proposals(ledger: Ledger) -> Proposals:
    return Proposals(ledger, STORE)


def accept(visit: str = "v1", revision: int = 1) -> Wish:
    return Wish(visit, "accept", revision)


def waive(visit: str = "v1", revision: int = 1, **more: Any) -> Wish:
    return Wish(visit, "waive", revision, **{"reason": "goodwill", **more})


def correct(price: int = 199, visit: str = "v1", revision: int = 1, **more: Any) -> Wish:
    fields = {"reason": "not_taken", **more}
    return Wish(visit, "correct", revision, (ReceiptLine(BREAD, 1, price, 1.0),), **fields)


@contextlib.contextmanager
def refused(kind: type[FusionError], message: str) -> Iterator[None]:
    with pytest.raises(kind) as raised:
        yield
    assert type(raised.value) is kind and str(raised.value) == message


# ---- what the books keep ---------------------------------------------------------------------------------------------


def test_what_is_asked_for_is_an_entry_with_all_of_it(ledger: Ledger, proposals: Proposals) -> None:
    lines = (ReceiptLine(COLA, 2, 249, 0.5),)
    wish = Wish("v2", "correct", 1, lines, (LESS,), "missed", "seen on the tape")
    made = proposals.ask(wish, Authority("anna", cap=100), T_NS + 5)
    entry = ledger.entries("v2")[-1]
    assert (entry.kind, entry.key, entry.t_ns, entry.postings) == ("proposal made", "v2/proposal 1", T_NS + 5, ())
    assert entry.request == {
        **Sale(lines, (LESS,)).request(), "by": "anna", "decision": "correct", "revision": 1, "reason": "missed",
        "note": "seen on the tape", "due": T_NS + 5 + 10 * S_NS, "second": 1, "before": 697, "after": 400,
        "amount": 297,
    }  # fmt: skip
    assert made == Proposal(
        visit="v2", number=1, by="anna", decision="correct", revision=1, sale=Sale(lines, (LESS,)), reason="missed",
        note="seen on the tape", made_ns=T_NS + 5, due_ns=T_NS + 5 + 10 * S_NS, needs_second=True, before=697,
        after=400, amount=297, seconded_by="", ended="", ended_by="", why="", overtaken=False,
    )  # fmt: skip
    assert (made.name, made.waits, made.state) == ("proposal 1", True, "waiting")


def test_accepting_is_for_the_bill_as_it_stands(ledger: Ledger, proposals: Proposals) -> None:
    made = proposals.ask(accept(), ANNA, T_NS)
    standing = ledger.standing("v1")
    assert standing is not None and made.sale == Sale(standing.lines, standing.discounts)
    assert (made.before, made.after, made.amount, made.needs_second) == (697, 697, 697, False)
    waived = proposals.ask(waive("v2"), ANNA, T_NS)
    assert (waived.sale, waived.before, waived.after, waived.amount) == (Sale(), 697, 0, 697)


def test_how_long_it_can_be_withdrawn_is_chosen(ledger: Ledger) -> None:
    assert Proposals(ledger, STORE, undo_s=2.5).ask(accept(), ANNA, T_NS).due_ns == T_NS + 2_500_000_000


def test_each_end_is_an_entry_of_its_own(ledger: Ledger, proposals: Proposals) -> None:
    small = Authority("anna", cap=0)
    proposals.ask(accept(), small, T_NS)
    proposals.second("v1", 1, BEN, T_NS + 3)
    seconded = ledger.recorded("v1", "proposal 1/second")
    assert seconded is not None and (seconded.kind, seconded.t_ns) == ("proposal seconded", T_NS + 3)
    assert seconded.request == {"by": "ben", "due": T_NS + 3 + 10 * S_NS}
    assert proposals.apply_due(T_NS + 3 + 10 * S_NS) == ["v1"]
    applied = ledger.recorded("v1", "proposal 1/answer")
    assert applied is not None and (applied.kind, applied.request) == ("proposal applied", {})
    assert applied.t_ns == T_NS + 3 + 10 * S_NS
    proposals.ask(waive("v2"), ANNA, T_NS)
    proposals.withdraw("v2", 1, "ben", T_NS + 4)
    withdrawn = ledger.recorded("v2", "proposal 1/answer")
    assert withdrawn is not None and (withdrawn.kind, withdrawn.t_ns) == ("proposal withdrawn", T_NS + 4)
    assert withdrawn.request == {"by": "ben"}
    proposals.ask(waive("v2"), small, T_NS + 5)
    ledger.decide("v2", "waive", by="eve", t_ns=T_NS + 6)
    assert proposals.apply_due(T_NS + 7) == []
    void = ledger.recorded("v2", "proposal 2/answer")
    assert void is not None and (void.kind, void.t_ns) == ("proposal void", T_NS + 7)
    assert void.request == {"why": "another decision has taken its place"}
    first, second = proposals.of("v2")
    assert (first.state, first.ended, first.ended_by, first.why) == ("withdrawn", "proposal withdrawn", "ben", "")
    assert (second.state, second.ended_by, second.why) == ("void", "", "another decision has taken its place")


def test_a_decision_carries_what_was_asked_for(ledger: Ledger, proposals: Proposals) -> None:
    lines = (ReceiptLine(COLA, 2, 249, 0.5),)
    proposals.ask(Wish("v1", "correct", 1, lines, (LESS,), "missed", "seen"), ANNA, T_NS)
    proposals.ask(waive("v2", note="sorry"), BEN, T_NS + 1)
    assert proposals.apply_due(T_NS + 11 * S_NS) == ["v1", "v2"]
    corrected, waived = (ledger.recorded(visit, "decision 1") for visit in ("v1", "v2"))
    assert corrected is not None and waived is not None
    assert (corrected.kind, corrected.t_ns) == ("decision correct", T_NS + 10 * S_NS)
    assert corrected.request == {
        **Sale(lines, (LESS,)).request(), "decision": "correct", "by": "anna", "revision": 1, "note": "seen",
    }  # fmt: skip
    assert (waived.request["by"], waived.request["note"], waived.request["lines"]) == ("ben", "sorry", None)


# ---- states ----------------------------------------------------------------------------------------------------------


def test_when_a_proposal_is_due() -> None:
    made = Proposal("v", 1, "anna", "accept", 1, Sale(), "", "", 0, 100, False, 0, 0, 0)
    waiting = replace(made, needs_second=True)
    assert [made.is_due(now_ns) for now_ns in (99, 100, 101)] == [False, True, True]
    for other in (
        waiting, replace(made, overtaken=True), replace(made, ended="proposal applied"),
        replace(made, ended="proposal withdrawn"), replace(made, ended="proposal void"),
    ):  # fmt: skip
        assert not other.is_due(10**9)
    assert replace(waiting, seconded_by="ben").is_due(100)
    states = [made, waiting, replace(waiting, seconded_by="ben"), replace(waiting, overtaken=True)]
    assert [each.state for each in states] == ["counting", "waiting", "counting", "void"]
    assert replace(made, overtaken=True, ended="proposal withdrawn").state == "withdrawn"


def test_proposals_are_read_from_a_visits_entries_alone(ledger: Ledger, proposals: Proposals) -> None:
    assert proposals.of("v1") == [] == proposals_of([])
    proposals.ask(correct(), ANNA, T_NS)
    ledger.decide("v1", "waive", by="eve", t_ns=T_NS)
    proposals.ask(correct(revision=2), ANNA, T_NS)
    first, second = proposals_of(ledger.entries("v1"))
    assert (first.number, first.overtaken, first.state) == (1, False, "void"), "it ended as void"
    assert (second.number, second.revision, second.overtaken) == (2, 2, False)
    ledger.decide("v1", "waive", by="eve", t_ns=T_NS, revision=2)
    assert [each.overtaken for each in proposals.of("v1")] == [False, True]
    # Another kind, though it begins alike, is none.
    stranger = Entry(9, T_NS, "proposal", "v1", "v1/x", {}, ())
    assert proposals_of([*ledger.entries("v1"), stranger]) == proposals.of("v1")


def test_amounts_that_count_against_a_cap() -> None:
    def moved(status: Any, total: int, after: int) -> int:
        return amount_of(Standing("v", None, status, None, "EUR", total, (), 0), after)

    # Charged already: the difference. In review: what it charges, or takes off.
    assert [moved("settled", 100, after) for after in (0, 40, 100, 150, 300)] == [100, 60, 0, 50, 200]
    assert [moved("decided", 100, after) for after in (0, 100)] == [100, 0]
    assert [moved("review", 100, after) for after in (0, 40, 60, 100, 150)] == [100, 60, 60, 100, 150]


def test_what_is_open_is_sorted_by_when_it_was_asked_for(ledger: Ledger, proposals: Proposals) -> None:
    others = Proposals(ledger, STORE)
    assert proposals.open() == []
    ledger.post_receipt(receipt("v0", *TWO))
    proposals.ask(waive("v2"), ANNA, T_NS + 5)
    proposals.ask(accept("v1"), ANNA, T_NS + 5)
    proposals.ask(waive("v0"), ANNA, T_NS + 6)
    for console in (proposals, others, Proposals(ledger, STORE)):
        assert [each.visit for each in console.open()] == ["v1", "v2", "v0"]
    others.withdraw("v2", 1, "anna", T_NS + 7)
    assert [each.visit for each in proposals.open()] == ["v1", "v0"]
    # A decision that came another way shows as well, though only visits with something open are read again.
    ledger.decide("v1", "waive", by="eve", t_ns=T_NS)
    assert [(each.visit, each.state) for each in proposals.open()] == [("v1", "void"), ("v0", "counting")]


def test_many_rows_at_once_are_read_to_the_last(
    ledger: Ledger, proposals: Proposals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusion.money.proposals.ROWS_AT_ONCE", 3)
    assert proposals.open() == []
    for i in range(7):
        ledger.post_receipt(receipt(f"w{i}", *TWO, account=None))
        proposals.ask(waive(f"w{i}"), ANNA, T_NS + i)
    assert [each.visit for each in proposals.open()] == [f"w{i}" for i in range(7)]


# ---- asking ----------------------------------------------------------------------------------------------------------

PRODUCT = "gtin: want a product of 'shop', got '0'"
LINES = "lines: want lines with the decision correct and no other, got "
REASONS = "not_taken, missed, other_product, other_quantity, wrong_price, returned, goodwill, test, other"


@pytest.mark.parametrize(
    ("wish", "kind", "message"),
    [
        (Wish("v1", "burn", 1), LedgerError, "decision: want accept, correct or waive, got 'burn'"),  # type: ignore[arg-type]
        (Wish("v1", "correct", 1), LedgerError, f"{LINES}correct"),
        (Wish("v1", "accept", 1, ()), LedgerError, f"{LINES}accept"),
        (Wish("v1", "waive", 1, discounts=(LESS,)), LedgerError, f"{LINES}waive"),
        (accept("v2"), LedgerError, "visit 'v2': want a receipt in review to accept, got one that was charged"),
        (accept("inside"), LedgerError, "visit 'inside': want a receipt to decide about, got none"),
        (accept("never"), LedgerError, "visit 'never': want a receipt to decide about, got none"),
        (accept(revision=2), LedgerError, "revision: want 1, got 2"),
        (waive(reason=""), LedgerError, "reason: want one, since the decision changes what the visit costs"),
        (waive(reason="because"), LedgerError, f"reason: want one of {REASONS}, got 'because'"),
        (waive(reason="other", note=" \n"), LedgerError, "note: want the reason in words, since the reason is other"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_and_leaves_nothing(
    ledger: Ledger, proposals: Proposals, wish: Wish, kind: type[FusionError], message: str
) -> None:
    ledger.open_visit("inside", None, T_NS)
    before = ledger.head()
    with refused(kind, message):
        proposals.ask(wish, ANNA, T_NS)
    assert ledger.head() == before and proposals.of("v1") == []


def test_goods_and_numbers_are_checked_too(ledger: Ledger, proposals: Proposals) -> None:
    stranger = replace(correct(), lines=(ReceiptLine("0", 1, 1, 1.0),))
    for wish, message in (
        (stranger, PRODUCT),
        (waive(revision=0), "revision: want 1 to 1000000, got 0"),
        (waive(revision=10**6 + 1), "revision: want 1 to 1000000, got 1000001"),
        (waive(note="x" * 2001), "note: want 0 to 2000 characters, got 2001"),
    ):
        with pytest.raises(LedgerError) as raised:
            proposals.ask(wish, ANNA, T_NS)
        assert str(raised.value) == message
    with pytest.raises(LedgerError, match="by: want 1 to 255 characters"):
        proposals.ask(waive(), Authority(""), T_NS)
    with pytest.raises(LedgerError, match="t_ns: want"):
        proposals.ask(waive(), ANNA, 2**63)
    assert proposals.ask(waive(note="x" * 2000), ANNA, T_NS).note == "x" * 2000


def test_a_bill_that_stays_as_it_is_needs_no_reason(proposals: Proposals) -> None:
    same = Wish("v2", "correct", 1, TWO)
    assert proposals.ask(same, ANNA, T_NS).amount == 0
    with_reason = Wish("v1", "correct", 1, TWO, reason="test")
    assert proposals.ask(with_reason, ANNA, T_NS).reason == "test"


def test_other_needs_words(proposals: Proposals) -> None:
    assert proposals.ask(waive(reason="other", note="a gift"), ANNA, T_NS).note == "a gift"


def test_the_products_are_those_of_the_store_as_it_is_now(ledger: Ledger, proposals: Proposals) -> None:
    proposals.adopt(STORE.model_copy(update={"products": STORE.products[:1]}))
    with pytest.raises(LedgerError, match=f"gtin: want a product of 'shop', got '{BREAD}'"):
        proposals.ask(correct(), ANNA, T_NS)


@pytest.mark.parametrize(
    "change",
    [
        {"by": "ben"},
        {"wish": waive()},
        {"wish": correct(198)},
        {"wish": correct(reason="missed")},
        {"wish": correct(note="more")},
        {"wish": replace(correct(), discounts=(Discount("offer", BREAD, 1),))},
        {"wish": correct(revision=2)},
        {"wish": accept()},
    ],
)
def test_only_the_same_may_be_asked_for_again_while_it_is_open(
    ledger: Ledger, proposals: Proposals, change: dict[str, Any]
) -> None:
    made = proposals.ask(correct(note="n"), ANNA, T_NS)
    assert proposals.ask(correct(note="n"), ANNA, T_NS + 5) == made
    # What the books round, such as a confidence, is the same.
    rounded = replace(correct(note="n"), lines=(ReceiptLine(BREAD, 1, 199, 1.0 - 1e-9),))
    assert proposals.ask(rounded, ANNA, T_NS + 5) == made
    by = change.get("by", "anna")
    wish = change.get("wish", correct(note="n"))
    wish = wish if wish.note or wish.decision != "correct" else replace(wish, note="n")
    whose = "you have" if by == "anna" else "anna has"
    with refused(IdempotencyConflict, f"{whose} asked for a decision about this visit: correct"):
        proposals.ask(wish, Authority(by), T_NS + 5)
    assert len(proposals.of("v1")) == 1


def test_a_revision_that_was_decided_names_who_decided_it(ledger: Ledger, proposals: Proposals) -> None:
    ledger.decide("v1", "waive", by="eve", t_ns=T_NS)
    ledger.decide("v1", "waive", by="adam", t_ns=T_NS, revision=2)
    ledger.record("v1", "seen", "shopper answered", T_NS, {"by": "nobody"})
    for revision in (1, 2):
        with refused(IdempotencyConflict, "adam decided this visit in the meantime"):
            proposals.ask(correct(revision=revision), ANNA, T_NS)
    with refused(LedgerError, "revision: want 3, got 4"):
        proposals.ask(correct(revision=4), ANNA, T_NS)
    assert proposals.ask(correct(revision=3), ANNA, T_NS).revision == 3


def test_the_right_to_refund_is_for_what_was_charged(ledger: Ledger, proposals: Proposals) -> None:
    clerk = Authority("anna", refunds=False)
    message = "the visit was charged already: this needs the right to refund"
    assert proposals.ask(waive("v1"), clerk, T_NS).state == "counting"
    with refused(NotPermitted, message):
        proposals.ask(waive("v2"), clerk, T_NS)
    proposals.ask(waive("v2"), Authority("eve", cap=0), T_NS)
    with refused(NotPermitted, message):
        proposals.second("v2", 1, clerk, T_NS)
    ledger.post_receipt(receipt("v3", *TWO, status="review"))
    proposals.ask(accept("v3"), Authority("eve", cap=0), T_NS)
    assert proposals.second("v3", 1, clerk, T_NS).state == "counting"


# ---- caps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cap", "waits"), [(None, False), (697, False), (696, True), (0, True)])
def test_a_cap_is_the_most_that_one_person_decides(proposals: Proposals, cap: int | None, waits: bool) -> None:
    assert proposals.ask(accept(), Authority("anna", cap=cap), T_NS).needs_second is waits
    # What moves nothing needs none.
    assert proposals.ask(Wish("v2", "correct", 1, TWO), Authority("anna", cap=0, day_cap=0), T_NS).waits is False


def test_a_cap_is_an_amount(proposals: Proposals) -> None:
    for cap in (-1, 10**12 + 1):
        with pytest.raises(LedgerError, match=f"^cap: want 0 to {10**12}, got {cap}$"):
            proposals.ask(accept(), Authority("anna", cap=cap), T_NS)


@pytest.mark.parametrize(("day_cap", "waits"), [(1394, False), (1393, True), (0, True)])
def test_a_days_cap_adds_up(proposals: Proposals, day_cap: int, waits: bool) -> None:
    careful = Authority("anna", day_cap=day_cap)
    first = proposals.ask(accept(), Authority("anna"), T_NS)
    assert not first.needs_second
    assert proposals.ask(waive("v2"), careful, T_NS + 1).needs_second is waits


def noon(day: int, hour: int = 12, **more: int) -> int:
    moment = datetime.datetime(2026, 3, day, hour, tzinfo=ZoneInfo("Europe/Berlin"), **more)
    return int(moment.timestamp()) * S_NS


def test_what_counts_towards_a_days_cap(ledger: Ledger, proposals: Proposals) -> None:
    """One person's own decisions of the day on the store's clock, that needed no second person and were not undone."""
    for i in range(8):
        ledger.post_receipt(receipt(f"w{i}", *TWO, account=None))

    def alone_after(day_cap: int, visit: str = "v2", t_ns: int = noon(4)) -> bool:
        made = proposals.ask(waive(visit), Authority("anna", day_cap=day_cap), t_ns)
        proposals.withdraw(visit, made.number, "anna", t_ns)
        return not made.needs_second

    def counted(t_ns: int = noon(4)) -> int:
        """What counts by now: the smallest day's cap that is enough for 697 more, less those."""
        return next(697 * n for n in range(9) if alone_after(697 * (n + 1), t_ns=t_ns))

    assert counted() == 0
    proposals.ask(waive("w0"), ANNA, noon(4, 0))  # the first instant of the day
    assert counted() == 697
    proposals.ask(waive("w1"), ANNA, noon(4, 0) - 1)  # the last one of the day before
    proposals.ask(waive("w2"), BEN, noon(4))
    proposals.ask(waive("w3"), Authority("anna", cap=0), noon(4))
    assert counted() == 697
    proposals.ask(waive("w4"), ANNA, noon(4, 23))
    assert counted() == 2 * 697
    assert counted(noon(3)) == 3 * 697, "by the entries that are in the books, whatever the time of day"
    ledger.decide("w4", "waive", by="eve", t_ns=noon(4, 23))
    assert counted() == 697, "void"
    proposals.apply_due(noon(4, 23, minute=30))
    assert counted() == 697, "what took effect counts as well"


# ---- withdrawing and agreeing ----------------------------------------------------------------------------------------


def test_until_it_is_due_it_can_be_withdrawn(ledger: Ledger, proposals: Proposals) -> None:
    made = proposals.ask(accept(), ANNA, T_NS)
    late = "too late: the decision has taken effect"
    with refused(IdempotencyConflict, late):
        proposals.withdraw("v1", 1, "anna", made.due_ns)
    withdrawn = proposals.withdraw("v1", 1, "anna", made.due_ns - 1)
    assert withdrawn.state == "withdrawn" == proposals.withdraw("v1", 1, "ben", made.due_ns).state
    assert proposals.withdraw("v1", 1, "ben", made.due_ns).ended_by == "anna"
    again = proposals.ask(accept(), ANNA, T_NS)
    proposals.apply_due(again.due_ns)
    with refused(IdempotencyConflict, late):
        proposals.withdraw("v1", 2, "anna", T_NS)
    waiting = proposals.ask(waive("v2"), Authority("anna", cap=0), T_NS)
    assert proposals.withdraw("v2", 1, "anna", waiting.due_ns + 10**15).state == "withdrawn", "it waits without end"
    for number, message in ((0, "number: want 1 to 1000000, got 0"), (3, "visit 'v1': there is no proposal 3")):
        with pytest.raises(LedgerError) as raised:
            proposals.withdraw("v1", number, "anna", T_NS)
        assert str(raised.value) == message
    with pytest.raises(LedgerError, match="by: want"):
        proposals.withdraw("v1", 1, "", T_NS)


def test_a_void_one_is_left_as_it_is(ledger: Ledger, proposals: Proposals) -> None:
    proposals.ask(accept(), ANNA, T_NS)
    ledger.decide("v1", "waive", by="eve", t_ns=T_NS)
    before = ledger.head()
    assert proposals.withdraw("v1", 1, "anna", T_NS).state == "void" and ledger.head() == before


def test_a_second_person_agrees_once_and_is_another(ledger: Ledger, proposals: Proposals) -> None:
    made = proposals.ask(accept(), Authority("anna", cap=0), T_NS)
    with refused(NotPermitted, "a decision needs a second person other than the one who asked for it"):
        proposals.second("v1", 1, ANNA, T_NS)
    seconded = proposals.second("v1", 1, BEN, T_NS - 5 * S_NS)
    assert seconded.due_ns == made.due_ns, "never earlier than the first person was promised"
    head = ledger.head()
    assert proposals.second("v1", 1, BEN, T_NS + 5) == seconded and ledger.head() == head
    with refused(IdempotencyConflict, "ben has agreed already"):
        proposals.second("v1", 1, Authority("eve"), T_NS)
    with pytest.raises(LedgerError, match="by: want"):
        proposals.second("v1", 1, Authority(""), T_NS)


def test_what_has_ended_or_needs_no_second_cannot_be_agreed_to(ledger: Ledger, proposals: Proposals) -> None:
    proposals.ask(accept(), ANNA, T_NS)
    with refused(LedgerError, "visit 'v1': this decision needs no second person"):
        proposals.second("v1", 1, BEN, T_NS)
    proposals.ask(waive("v2"), Authority("anna", cap=0), T_NS)
    proposals.withdraw("v2", 1, "anna", T_NS)
    with refused(IdempotencyConflict, "it is withdrawn"):
        proposals.second("v2", 1, BEN, T_NS)


# ---- taking effect ---------------------------------------------------------------------------------------------------


def test_what_is_due_takes_effect_and_the_others_wait(ledger: Ledger, proposals: Proposals) -> None:
    first = proposals.ask(accept(), ANNA, T_NS)
    second = proposals.ask(waive("v2"), ANNA, T_NS + S_NS)
    others = Proposals(ledger, STORE)
    assert others.open() == [first, second]
    assert proposals.apply_due(first.due_ns - 1) == []
    assert proposals.apply_due(first.due_ns) == ["v1"]
    assert others.apply_due(second.due_ns) == ["v2"] and proposals.open() == []


def test_a_product_that_the_books_refuse_voids_the_decision_with_the_reason(
    ledger: Ledger, proposals: Proposals
) -> None:
    made = proposals.ask(correct(), ANNA, T_NS)
    ledger.adopt(STORE.model_copy(update={"products": STORE.products[:1]}))
    # VAT of goods on the receipt is known; of this visit without bread it is not.
    ledger.post_receipt(receipt("v3", TWO[0], account=None))
    proposals.ask(correct(visit="v3"), ANNA, T_NS)
    assert proposals.apply_due(made.due_ns) == ["v1"]
    (void,) = proposals.of("v3")
    assert (void.state, void.why) == ("void", f"gtin: want a product of 'shop', got '{BREAD}'")
    answer = ledger.recorded("v3", "proposal 1/answer")
    assert answer is not None and answer.t_ns == made.due_ns
    assert proposals.open() == [] and ledger.standing("v3") is not None
