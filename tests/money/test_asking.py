"""One step of a payment at a time: what is asked, what an answer is worth, and what becomes of one that is missing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from money.books import COLA, STORE, T_NS, TWO, balances, receipt

from fusion.errors import IdempotencyConflict
from fusion.money.asking import Asked, Asking, memorandum, reference_subject
from fusion.money.entries import Entry, Posting
from fusion.money.history import History, Request
from fusion.money.ledger import Ledger
from fusion.money.providers import Answer, CannotLookUp, PaymentError, Terms, UnknownOutcome
from fusion.money.vault import Holder
from fusion.results import ReceiptLine

S_NS = 10**9
LOST = UnknownOutcome("no answer")
Reply = Answer | Exception | None


class Script:
    """A provider that notes what it is asked and gives the next of its replies."""

    def __init__(self, *replies: Reply, terms: Terms | None = None) -> None:
        self.terms = terms or Terms()
        self.replies = list(replies)
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., Answer | None]:
        def called(*values: Any) -> Answer | None:
            self.calls.append((name, *values))
            reply = self.replies.pop(0)
            if isinstance(reply, Exception):
                raise reply
            return reply

        return called


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as opened:
        opened.hold(Holder("p1", "alice", "tok", None, T_NS))
        opened.post_receipt(receipt("v1", *TWO, account="p1"))  # 697
        yield opened


class Steps:
    """Takes steps of the visit v1, and shows what the books have about them."""

    def __init__(self, ledger: Ledger, *replies: Reply, terms: Terms | None = None) -> None:
        self.ledger, self.script = ledger, Script(*replies, terms=terms)
        self.asking = Asking(ledger, self.script, STORE)  # type: ignore[arg-type]

    @property
    def history(self) -> History:
        return History.of(self.ledger.entries("v1"))

    def take(self, step: Request, after_s: float = 0.0) -> str:
        """Take a step; or where one is pending, find out about it some seconds after it was asked."""
        history = self.history
        now_ns = (T_NS if history.pending is None else history.asked_ns) + round(after_s * S_NS)
        return self.asking.take("v1", history, history.pending or step, now_ns)

    def entry(self, name: str) -> Entry:
        found = self.ledger.recorded("v1", name)
        assert found is not None, name
        return found


AUTHORISE, RELEASE = Request("authorise", 697), Request("release", of="1", reference="auth-1")
CAPTURE, REFUND = Request("capture", 697, "1", "auth-1"), Request("refund", 200, "2", "capt-2")
GIVEN, TAKEN = Answer(True, "auth-1"), Answer(True, "capt-2")


def paid(ledger: Ledger, *replies: Reply, terms: Terms | None = None) -> Steps:
    """A visit that was paid, of which the store then owes 498."""
    steps = Steps(ledger, GIVEN, TAKEN, *replies, terms=terms)
    assert (steps.take(AUTHORISE), steps.take(CAPTURE)) == ("", "")
    ledger.decide("v1", "correct", by="eve", t_ns=T_NS, lines=[ReceiptLine(COLA, 1, 199, 1.0)])
    steps.script.calls.clear()
    return steps


def postings(*legs: tuple[str, int]) -> tuple[Posting, ...]:
    return tuple(Posting(account, "EUR", amount) for account, amount in legs)


# ---- what is asked and kept ------------------------------------------------------------------------------------------


def test_each_step_is_asked_under_its_own_key(ledger: Ledger) -> None:
    steps = Steps(ledger, GIVEN, TAKEN)
    assert (steps.take(AUTHORISE), steps.take(CAPTURE)) == ("", "")
    assert steps.script.calls == [
        ("authorise", "shop/v1/1", "tok", 697, "EUR"), ("capture", "shop/v1/2", "auth-1", 697),
    ]  # fmt: skip
    assert steps.entry("payment 1").request == {"step": "authorise", "amount": 697}
    assert steps.entry("payment 2").request == {"step": "capture", "amount": 697, "of": "1", "reference": "auth-1"}


def test_what_a_person_found_is_kept_with_who_it_was(ledger: Ledger) -> None:
    steps = Steps(ledger, LOST)
    assert steps.take(AUTHORISE) == "no answer"
    steps.asking.book(Asked("v1", 1, AUTHORISE, T_NS), steps.history, GIVEN, by="eve", note="seen in the account")
    assert steps.entry("payment 1/answer").request == {
        "approved": True, "reference": "auth-1", "reason": "", "by": "eve", "note": "seen in the account",
    }  # fmt: skip
    assert list(steps.history.holds) == ["1"]


@pytest.mark.parametrize("amount", [None, 600])
def test_an_answer_is_booked_at_the_time_of_its_request_with_what_it_moved(ledger: Ledger, amount: int | None) -> None:
    steps = Steps(ledger, Answer(True, "auth-1", amount=amount))
    assert steps.take(AUTHORISE, 5.0) == ""
    moved = amount or 697
    asked, answer = steps.entry("payment 1"), steps.entry("payment 1/answer")
    assert (asked.kind, asked.t_ns, asked.postings) == ("payment asked", T_NS + 5 * S_NS, ())
    assert (answer.kind, answer.t_ns) == ("authorised", T_NS + 5 * S_NS)
    assert answer.request == {"approved": True, "reference": "auth-1", "reason": ""}
    assert answer.postings == postings(("authorised", moved), ("authorised, contra", -moved))
    given = ledger.recorded("reference authorise auth-1", "given")
    assert given is not None and given.kind == "provider's reference" and given.t_ns == T_NS + 5 * S_NS
    assert given.request == {"visit": "v1", "step": 1}


def test_a_capture_moves_what_was_taken_and_a_refund_what_was_returned(ledger: Ledger) -> None:
    steps = paid(ledger, Answer(True, "refu-3", amount=150))
    assert steps.entry("payment 2/answer").postings == postings(
        ("provider", 697), ("receivable", -697), ("authorised", -697), ("authorised, contra", 697)
    )
    assert steps.take(REFUND) == "" and steps.script.calls == [("refund", "shop/v1/3", "capt-2", 200)]
    assert steps.entry("payment 3").request == {"step": "refund", "amount": 200, "of": "2", "reference": "capt-2"}
    assert steps.entry("payment 3/answer").postings == postings(("receivable", 150), ("provider", -150))
    assert balances(ledger)["provider"] == 547


def test_a_release_and_a_declined_capture_empty_what_is_left_of_the_authorisation(ledger: Ledger) -> None:
    wanted = postings(("authorised", -697), ("authorised, contra", 697))
    declined_capture, released_at_last = Answer(False, reason="expired"), Answer(True, "rele-4")
    steps = Steps(ledger, GIVEN, declined_capture, Answer(True, "auth-3"), released_at_last)
    for step in (AUTHORISE, CAPTURE, AUTHORISE, Request("release", of="3", reference="auth-3")):
        assert steps.take(step) == ""
    declined, released = steps.entry("payment 2/answer"), steps.entry("payment 4/answer")
    assert (declined.kind, declined.postings, declined.request["reason"]) == ("payment declined", wanted, "expired")
    assert (released.kind, released.postings) == ("released", wanted)
    assert steps.script.calls[-1] == ("release", "shop/v1/4", "auth-3") and "authorised" not in balances(ledger)
    # Whatever a release answers, it is no reference that could be given twice.
    assert ledger.recorded("reference release rele-4", "given") is None


def test_what_is_declined_or_rejected_moves_nothing_and_keeps_its_reason(ledger: Ledger) -> None:
    steps = paid(ledger, Answer(False, "re-9", "account closed"))
    assert steps.take(REFUND) == ""
    refused = steps.entry("payment 3/answer")
    assert (refused.kind, refused.postings) == ("payment declined", ())
    assert refused.request == {"approved": False, "reference": "", "reason": "account closed"}
    assert ledger.recorded("reference refund re-9", "given") is None
    ledger.post_receipt(receipt("v2", *TWO, account="p1"))
    rejecting = Asking(ledger, Script(PaymentError("no such card tok")), STORE)  # type: ignore[arg-type]
    assert rejecting.take("v2", History(), AUTHORISE, T_NS) == ""
    rejected = ledger.recorded("v2", "payment 1/answer")
    assert rejected is not None and (rejected.kind, rejected.postings) == ("payment declined", ())
    assert rejected.request["reason"] == "no such card (token)"


def test_without_a_means_of_payment_the_provider_is_not_asked(ledger: Ledger) -> None:
    ledger.post_receipt(receipt("v2", *TWO, account=None))
    script = Script()
    assert Asking(ledger, script, STORE).take("v2", History(), AUTHORISE, T_NS) == ""  # type: ignore[arg-type]
    declined = ledger.recorded("v2", "payment 1/answer")
    assert declined is not None and script.calls == []
    assert declined.request == {"approved": False, "reference": "", "reason": "means of payment is not known"}


# ---- what an answer is worth -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "objection"),
    [
        (Answer(True, "a", amount=1), ""),
        (Answer(True, "x" * 200, amount=697), ""),
        (Answer(False), ""),
        (Answer(False, "", "no", 10**6), ""),
        (Answer(True, "a", amount=0), "the answer states 0, want 1 to 697"),
        (Answer(True, "a", amount=698), "the answer states 698, want 1 to 697"),
        (Answer(True, "a", amount=-1), "the answer states -1, want 1 to 697"),
        (Answer(True, ""), "the answer has no usable reference"),
        (Answer(True, "x" * 201), "the answer has no usable reference"),
        (Answer(True, "a b"), "the answer has no usable reference"),
        (Answer(True, "a\n"), "the answer has no usable reference"),
        (Answer(True, "é"), "the answer has no usable reference"),
        (Answer(True, "4111111111111111"), "the answer has no usable reference"),
    ],
)
def test_an_answer_that_cannot_be_true_is_named(ledger: Ledger, answer: Answer, objection: str) -> None:
    steps = Steps(ledger)
    assert steps.asking.objection(Asked("v1", 1, AUTHORISE, T_NS), answer) == objection
    # Nothing depends on what a release answers.
    assert steps.asking.objection(Asked("v1", 1, RELEASE, T_NS), answer) == ""


def test_a_reference_belongs_to_one_step(ledger: Ledger) -> None:
    steps = Steps(ledger, GIVEN)
    assert steps.take(AUTHORISE) == ""
    repeated = "the answer repeats a reference that was given before: auth-1"
    for asked, objection in (
        (Asked("v1", 1, AUTHORISE, T_NS), ""),
        (Asked("v1", 2, AUTHORISE, T_NS), repeated),
        (Asked("v2", 1, AUTHORISE, T_NS), repeated),
        # A capture may have the name of its authorisation.
        (Asked("v1", 2, CAPTURE, T_NS), ""),
    ):
        assert steps.asking.objection(asked, GIVEN) == objection
    assert reference_subject("capture", "x") == "reference capture x"


BAD = Answer(True, "auth-1", amount=698)
OBJECTION = "the answer states 698, want 1 to 697"


def test_an_answer_that_cannot_be_true_is_looked_up_at_once(ledger: Ledger) -> None:
    steps = Steps(ledger, BAD, GIVEN)
    assert steps.take(AUTHORISE) == "" and list(steps.history.holds) == ["1"]
    assert steps.script.calls[1] == ("look_up", "authorise", "shop/v1/1", "")


@pytest.mark.parametrize("found", [None, BAD, CannotLookUp("no")])
def test_a_person_has_to_look_where_the_look_up_does_not_help(ledger: Ledger, found: Reply) -> None:
    steps = Steps(ledger, BAD, found)
    assert steps.take(AUTHORISE) == OBJECTION
    question = steps.entry("payment 1/question")
    assert (question.kind, question.request, question.t_ns) == ("payment in question", {"reason": OBJECTION}, T_NS)
    assert steps.history.pending == AUTHORISE and steps.history.question == OBJECTION


def test_a_fault_of_the_adapter_is_no_answer(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    steps = Steps(ledger, ZeroDivisionError("by tok"))
    with caplog.at_level(logging.WARNING):
        assert steps.take(AUTHORISE) == "the adapter failed: ZeroDivisionError"
    assert "the payment provider's adapter failed: ZeroDivisionError: by tok" in caplog.text
    assert steps.history.pending == AUTHORISE


# ---- an answer that is missing ---------------------------------------------------------------------------------------

TERMS = Terms(keys_kept_s=4000.0, holds_kept_s=10_000.0)


def pending(ledger: Ledger, step: Request, *replies: Reply, terms: Terms = TERMS) -> Steps:
    """A visit one of whose steps was asked and lost its answer."""
    if step.step == "refund":
        steps = paid(ledger, LOST, *replies, terms=terms)
    elif step.step == "authorise":
        steps = Steps(ledger, LOST, *replies, terms=terms)
    else:
        steps = Steps(ledger, GIVEN, LOST, *replies, terms=terms)
        assert steps.take(AUTHORISE) == ""
    assert steps.take(step) == "no answer" and steps.history.pending == step
    steps.script.calls.clear()
    return steps


def calls(steps: Steps) -> list[str]:
    return [name for name, *_ in steps.script.calls]


def test_what_the_provider_finds_is_the_answer(ledger: Ledger) -> None:
    steps = pending(ledger, CAPTURE, TAKEN)
    assert steps.take(CAPTURE, 9_999_999.0) == "" and steps.history.captures["2"].left == 697
    assert steps.script.calls == [("look_up", "capture", "shop/v1/2", "auth-1")]


def test_what_it_does_not_find_is_sent_again_under_the_same_key(ledger: Ledger) -> None:
    steps = pending(ledger, CAPTURE, None, TAKEN)
    assert steps.take(CAPTURE, 1999.9) == ""
    assert steps.script.calls[1] == ("capture", "shop/v1/2", "auth-1", 697)
    assert steps.entry("payment 2/answer").kind == "captured"


def test_a_request_whose_key_may_be_forgotten_is_not_sent_again(ledger: Ledger) -> None:
    """Half of the time for which keys are kept is over, and ten minutes after it was sent no request arrives."""
    steps = pending(ledger, CAPTURE, None)
    assert steps.take(CAPTURE, 2000.0) == "" and calls(steps) == ["look_up"]
    answer = steps.entry("payment 2/answer")
    assert (answer.kind, answer.postings) == ("payment not carried out", ())
    assert answer.request == {"approved": False, "reference": "", "reason": "not carried out"}
    # Not carried out: the next step is asked for as ever.
    assert steps.history.pending is None and steps.history.may_capture and list(steps.history.holds) == ["1"]


def test_a_request_may_still_arrive_for_ten_minutes(ledger: Ledger) -> None:
    steps = pending(ledger, CAPTURE, None, None, terms=Terms(100.0, 10_000.0))
    late = "no answer came while the provider kept the key of the request"
    assert steps.take(CAPTURE, 599.9) == late and steps.history.pending == CAPTURE
    assert steps.history.question == "", "no person is asked while it can be found out"
    assert steps.take(CAPTURE, 600.0) == "" and steps.history.pending is None
    assert calls(steps) == ["look_up", "look_up"]


def test_a_clock_that_went_back_makes_no_request_young(ledger: Ledger) -> None:
    steps = pending(ledger, CAPTURE, None)
    assert steps.take(CAPTURE, -2000.0) == "" and steps.entry("payment 2/answer").kind == "payment not carried out"


@pytest.mark.parametrize(("after_s", "is_sent"), [(1999.9, True), (2000.0, False)])
def test_a_provider_that_looks_nothing_up_is_asked_again_while_it_knows_the_key(
    ledger: Ledger, after_s: float, is_sent: bool
) -> None:
    steps = pending(ledger, CAPTURE, CannotLookUp("no"), TAKEN)
    problem = steps.take(CAPTURE, after_s)
    assert calls(steps) == (["look_up", "capture"] if is_sent else ["look_up"])
    if is_sent:
        assert problem == "" and steps.history.pending is None
    else:
        assert problem == "no answer came while the provider kept the key of the request"
        assert steps.history.question == problem


@pytest.mark.parametrize("step", [CAPTURE, REFUND])
def test_a_decline_after_a_lost_answer_is_in_doubt(ledger: Ledger, step: Request) -> None:
    """The first request may have been carried out, and the second be declined for that reason."""
    steps = pending(ledger, step, CannotLookUp("no"), Answer(False, reason="already\ndone"))
    assert steps.take(step, 1.0) == "declined after an answer was lost: already done"
    assert steps.history.pending == step


def test_an_authorisation_that_is_declined_after_a_lost_answer_is_declined(ledger: Ledger) -> None:
    steps = pending(ledger, AUTHORISE, CannotLookUp("no"), Answer(False, reason="no funds"))
    assert steps.take(AUTHORISE, 1.0) == "" and steps.history.declined == "no funds"


def test_a_decline_that_can_be_looked_up_is_one(ledger: Ledger) -> None:
    steps = pending(ledger, CAPTURE, None, Answer(False, reason="expired"))
    assert steps.take(CAPTURE, 1.0) == "" and steps.history.declined == "expired"


def test_what_a_person_was_asked_is_not_sent_again(ledger: Ledger) -> None:
    steps = Steps(ledger, BAD, None, None, GIVEN)
    assert steps.take(AUTHORISE) == OBJECTION
    assert steps.take(AUTHORISE, 5.0) == OBJECTION and calls(steps) == ["authorise", "look_up", "look_up"]
    # The provider finds it after all.
    assert steps.take(AUTHORISE, 6.0) == "" and list(steps.history.holds) == ["1"]


def test_what_is_found_is_judged_as_any_answer(ledger: Ledger) -> None:
    steps = pending(ledger, AUTHORISE, BAD)
    assert steps.take(AUTHORISE, 5.0) == OBJECTION and steps.history.question == OBJECTION


@pytest.mark.parametrize(("after_s", "is_over"), [(9999.9, False), (10_000.0, True)])
def test_an_authorisation_that_has_expired_was_never_needed(ledger: Ledger, after_s: float, is_over: bool) -> None:
    steps = pending(ledger, AUTHORISE, GIVEN)
    assert steps.take(AUTHORISE, after_s) == ""
    assert calls(steps) == ([] if is_over else ["look_up"])
    assert steps.entry("payment 1/answer").kind == ("payment not carried out" if is_over else "authorised")


@pytest.mark.parametrize(("after_s", "is_over"), [(9999.9, False), (10_000.0, True)])
def test_a_release_is_sent_again_until_the_authorisation_has_expired(
    ledger: Ledger, after_s: float, is_over: bool
) -> None:
    steps = pending(ledger, RELEASE, Answer(True))
    assert steps.take(RELEASE, after_s) == "" and calls(steps) == ([] if is_over else ["release"])
    answer = steps.entry("payment 2/answer")
    assert answer.request["reason"] == ("the authorisation has expired" if is_over else "")
    assert steps.history.holds == {} and "authorised" not in balances(ledger)


@pytest.mark.parametrize(("price", "is_sent"), [(697, True), (696, False)])
def test_a_capture_of_more_than_is_owed_by_now_is_not_sent_again(ledger: Ledger, price: int, is_sent: bool) -> None:
    steps = pending(ledger, CAPTURE, None, TAKEN)
    ledger.decide("v1", "correct", by="eve", t_ns=T_NS, lines=[ReceiptLine(COLA, 1, price, 1.0)])
    problem = steps.take(CAPTURE, 1.0)
    assert problem == ("" if is_sent else "the price changed before an answer came")
    assert calls(steps) == (["look_up", "capture"] if is_sent else ["look_up"])


@pytest.mark.parametrize(("price", "is_sent"), [(497, True), (498, False)])
def test_a_refund_of_more_than_the_store_owes_by_now_is_not_sent_again(
    ledger: Ledger, price: int, is_sent: bool
) -> None:
    steps = pending(ledger, REFUND, None, Answer(True, "refu-3"))
    lines = [ReceiptLine(COLA, 1, price, 1.0)]
    ledger.decide("v1", "correct", by="eve", t_ns=T_NS, revision=2, lines=lines)
    assert steps.take(REFUND, 1.0) == ("" if is_sent else "the price changed before an answer came")
    assert calls(steps) == (["look_up", "refund"] if is_sent else ["look_up"])


def test_of_two_processes_one_asks_and_the_other_waits(ledger: Ledger) -> None:
    steps = Steps(ledger, LOST, GIVEN)
    before = steps.history
    assert steps.take(AUTHORISE) == "no answer"
    waiting = steps.asking.take("v1", before, AUTHORISE, T_NS + 1)
    assert waiting == "another process waits for the answer" and calls(steps) == ["authorise"]
    steps.script.replies.insert(0, None)
    assert steps.take(AUTHORISE) == ""
    assert steps.asking.take("v1", before, AUTHORISE, T_NS + 1) == "" and len(steps.history.holds) == 1


def test_another_answer_than_the_one_that_is_booked_is_a_conflict(ledger: Ledger) -> None:
    steps = Steps(ledger, GIVEN)
    before = steps.history
    assert steps.take(AUTHORISE) == ""
    asked = Asked("v1", 1, AUTHORISE, T_NS)
    steps.asking.book(asked, before, GIVEN)
    with pytest.raises(IdempotencyConflict):
        steps.asking.book(asked, before, Answer(False, reason="no funds"))
    assert len(ledger.entries("v1")) == 3


# ---- texts and means of payment --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("no such card tok", "no such card (token)"),
        ("a\tb\n  c\x00d​e\u202ef", "a b c d e f"),
        ("card 4111 1111 1111 1111 refused", None),
        ("x" * 300, "x" * 255),
        ("", ""),
    ],
)
def test_a_reason_is_one_short_line_without_the_means_of_payment(
    ledger: Ledger, reason: str, kept: str | None
) -> None:
    steps = Steps(ledger, Answer(False, reason=reason))
    assert steps.take(AUTHORISE) == ""
    found = steps.entry("payment 1/answer").request["reason"]
    assert found == kept if kept is not None else "4111" not in found and found.endswith(" refused")


def test_both_parts_of_a_saved_card_are_left_out(ledger: Ledger) -> None:
    ledger.hold(Holder("p2", "bob", "cus_1:pm_2", None, T_NS))
    ledger.post_receipt(receipt("v2", *TWO, account="p2"))
    refusing = Asking(ledger, Script(Answer(False, reason="pm_2 of cus_1: no")), STORE)  # type: ignore[arg-type]
    assert refusing.take("v2", History(), AUTHORISE, T_NS) == ""
    declined = ledger.recorded("v2", "payment 1/answer")
    assert declined is not None and declined.request["reason"] == "(token) of (token): no"


def test_the_newest_means_that_was_shown_when_the_step_was_asked_for(ledger: Ledger) -> None:
    asking = Steps(ledger).asking
    for name, token, after_s in (("p2", "newer", 10), ("p3", None, 20), ("p4", "newest", 30)):
        ledger.hold(Holder(name, "alice", token, None, T_NS + after_s * S_NS))
    wanted = {0: "tok", 9: "tok", 10: "newer", 29: "newer", 30: "newest", 99: "newest"}
    assert {after_s: asking.token("v1", T_NS + after_s * S_NS) for after_s in wanted} == wanted
    # Of a customer at the gate, who has no visit yet, as well.
    assert asking.token("p3", T_NS + 15 * S_NS) == "newer"
    # Before the first of them was shown: the one that the visit began with.
    assert (asking.token("v1", T_NS - 1), asking.token("p3", T_NS - 1)) == ("tok", None)
    assert asking.token("unknown", T_NS) is None


def test_a_memorandum_balances_and_an_empty_one_has_no_legs() -> None:
    assert memorandum(5, "EUR") == postings(("authorised", 5), ("authorised, contra", -5))
    assert memorandum(-5, "EUR") == postings(("authorised", -5), ("authorised, contra", 5))
    assert memorandum(0, "EUR") == ()
