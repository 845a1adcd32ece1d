"""How far a payment has come, read from entries alone, and the step that follows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from money.books import T_NS

from fusion.money.entries import Entry, Posting
from fusion.money.history import Capture, History, Hold, Request
from fusion.money.providers.provider import Step

AUTHORISE = Request("authorise", 500)


def entry(kind: str, moved: dict[str, int] | None = None, t_ns: int = T_NS, **request: Any) -> Entry:
    legs = tuple(Posting(account, "EUR", amount) for account, amount in (moved or {}).items())
    return Entry(1, t_ns, kind, "v1", "key", request, legs)


def asked(step: Request, t_ns: int = T_NS) -> Entry:
    return entry("payment asked", t_ns=t_ns, **step.request())


def answered(
    kind: str, reference: str = "", reason: str = "", moved: dict[str, int] | None = None, **more: str
) -> Entry:
    return entry(kind, moved, reference=reference, reason=reason, **more)


def authorised(amount: int = 500, wanted: int = 500, reference: str = "auth-1", t_ns: int = T_NS) -> list[Entry]:
    return [
        asked(Request("authorise", wanted), t_ns),
        answered("authorised", reference, moved={"authorised": amount, "authorised, contra": -amount}),
    ]


def captured(amount: int, wanted: int, of: str = "1", reference: str = "capt-2") -> list[Entry]:
    moved = {"provider": amount, "receivable": -amount, "authorised": -amount, "authorised, contra": amount}
    return [asked(Request("capture", wanted, of, "auth-1")), answered("captured", reference, moved=moved)]


def refunded(amount: int, wanted: int, of: str = "2") -> list[Entry]:
    moved = {"receivable": amount, "provider": -amount}
    return [asked(Request("refund", wanted, of, "capt-2")), answered("refunded", "refu-3", moved=moved)]


PAID = [*authorised(), *captured(500, 500)]


# ---- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "fields"),
    [
        (Request("authorise", 500), {"step": "authorise", "amount": 500}),
        (Request("capture", 5, "1", "a"), {"step": "capture", "amount": 5, "of": "1", "reference": "a"}),
        (Request("refund", 5, "2", "c"), {"step": "refund", "amount": 5, "of": "2", "reference": "c"}),
        (Request("release", of="1", reference="a"), {"step": "release", "of": "1", "reference": "a"}),
    ],
)
def test_a_step_is_kept_with_what_it_concerns_and_comes_back(step: Request, fields: dict[str, Any]) -> None:
    assert step.request() == fields and Request.stored(fields) == step


def test_older_books_hold_the_providers_reference_alone() -> None:
    assert Request.stored({"step": "capture", "amount": 5, "of": "auth-1"}) == Request("capture", 5, "auth-1", "auth-1")


# ---- what entries tell -----------------------------------------------------------------------------------------------


def test_nothing_has_happened_before_the_first_entry() -> None:
    history = History.of([])
    assert history == History(
        n_steps=0, n_retries=0, n_write_offs=0, pending=None, asked_ns=0, question="", holds={}, captures={},
        declined=None, may_authorise=True, may_capture=True, may_refund=True, n_void=0, balances=Counter(),
    )  # fmt: skip
    assert history.largest == ("", Hold("", 0, 0))
    assert (history.owed, history.paid, history.authorised, history.written_off) == (0, 0, 0, 0)


def test_a_step_is_pending_until_its_answer_comes() -> None:
    first = asked(AUTHORISE, T_NS + 7)
    history = History.of([first])
    assert (history.n_steps, history.pending, history.asked_ns, history.question) == (1, AUTHORISE, T_NS + 7, "")
    doubted = History.of([first, entry("payment in question", reason="two answers")])
    assert (doubted.pending, doubted.question) == (AUTHORISE, "two answers")
    for then in (answered("payment declined", reason="no funds"), authorised()[1]):
        settled = History.of([first, entry("payment in question", reason="two answers"), then])
        assert (settled.pending, settled.question) == (None, "")
    # A later step begins without the question of the one before.
    assert History.of([first, entry("payment in question", reason="two answers"), first]).question == ""
    # An answer without a step is none.
    assert History.of([authorised()[1]]).holds == {}


def test_an_authorisation_is_held_since_it_was_asked_for() -> None:
    history = History.of(authorised(t_ns=T_NS + 7))
    assert history.holds == {"1": Hold("auth-1", 500, T_NS + 7)} and history.declined is None
    assert history.may_authorise and history.authorised == 500
    assert history.largest == ("1", Hold("auth-1", 500, T_NS + 7))
    in_part = History.of(authorised(499))
    assert in_part.holds["1"].amount == 499 and (in_part.declined, in_part.may_authorise) == ("approved in part", False)
    # An authorisation after one that was declined: the refusal is over.
    again = History.of([asked(AUTHORISE), answered("payment declined", reason="no funds"), *authorised()])
    assert again.declined is None and list(again.holds) == ["2"]
    assert History.of([*authorised(300, 300), *authorised(400, 400), *authorised(350, 350)]).largest[0] == "2"


def test_a_declined_authorisation_has_its_reason_and_is_not_repeated() -> None:
    for reason, kept in (("no funds", "no funds"), ("", "declined")):
        history = History.of([asked(AUTHORISE), answered("payment declined", reason=reason)])
        assert (history.declined, history.may_authorise, history.may_capture) == (kept, False, True)
        assert history.holds == {} and history.may_refund


def test_a_capture_takes_from_its_authorisation() -> None:
    history = History.of(PAID)
    assert history.holds == {} and history.captures == {"2": Capture("capt-2", 500)}
    assert (history.paid, history.authorised, history.declined) == (500, 0, None)
    smaller = History.of([*authorised(t_ns=T_NS + 7), *captured(200, 200)])
    assert smaller.holds == {"1": Hold("auth-1", 300, T_NS + 7)} and smaller.captures["2"].left == 200
    assert smaller.may_capture and smaller.declined is None
    in_part = History.of([*authorised(), *captured(199, 200)])
    assert (in_part.declined, in_part.may_authorise, in_part.may_capture) == ("taken in part", False, False)
    # Without a reference this program can never refund it.
    nameless = History.of([*authorised(), *captured(500, 500, reference="")])
    assert nameless.captures == {"2": Capture("", 500, is_final=True)}


def test_a_declined_capture_voids_its_authorisation_and_the_second_ends_them() -> None:
    refused = [asked(Request("capture", 500, "1", "auth-1")), answered("payment declined", reason="expired")]
    first = [*authorised(), *refused]
    history = History.of(first)
    assert history.holds == {} and (history.declined, history.n_void) == ("expired", 1)
    assert history.may_capture and history.may_authorise
    second = History.of([*first, *authorised(), asked(Request("capture", 500, "3", "auth-1")), refused[1]])
    assert (second.n_void, second.may_capture, second.may_authorise) == (2, False, False) and second.holds == {}
    assert second.declined == "expired"


@pytest.mark.parametrize("kind", ["released", "payment declined"])
def test_after_a_release_nothing_is_held_whatever_its_answer(kind: str) -> None:
    history = History.of([*authorised(), asked(Request("release", of="1", reference="auth-1")), answered(kind)])
    assert history.holds == {} and history.declined is None


def test_a_refund_leaves_the_remainder_of_a_capture() -> None:
    history = History.of([*PAID, *refunded(200, 200)])
    assert history.captures == {"2": Capture("capt-2", 300)} and history.declined is None
    assert (history.paid, history.may_refund) == (300, True)
    in_part = History.of([*PAID, *refunded(199, 200)])
    assert in_part.captures == {"2": Capture("capt-2", 301, is_final=True)} and in_part.declined == "refunded in part"
    refused = [asked(Request("refund", 200, "2", "capt-2")), answered("payment declined", reason="closed account")]
    final = History.of([*PAID, *refused])
    assert final.captures == {"2": Capture("capt-2", 500, is_final=True)} and final.declined == "closed account"
    assert final.may_authorise and final.may_capture


def test_what_a_person_found_not_carried_out_waits_for_a_person() -> None:
    missing = answered("payment not carried out", reason="not carried out")
    silent = History.of([asked(AUTHORISE), missing])
    assert (silent.declined, silent.may_authorise, silent.may_refund, silent.pending) == (None, True, True, None)
    found = History.of([asked(AUTHORISE), answered("payment not carried out", by="eve")])
    assert found.declined == "not carried out"
    assert (found.may_authorise, found.may_capture, found.may_refund) == (False, False, False)


def test_an_authorisation_moves_from_the_gate_to_the_visit() -> None:
    taken = History.of([entry("authorisation taken over", reference="a", amount=500, since=T_NS - 9, hold="gate 1")])
    assert taken.holds == {"gate 1": Hold("a", 500, T_NS - 9)}
    older = History.of([entry("authorisation taken over", t_ns=T_NS + 3, reference="a", amount=500)])
    assert older.holds == {"a": Hold("a", 500, T_NS + 3)}
    at_the_gate = [*authorised(400, wanted=500), *authorised(reference="auth-2")]
    given = History.of([*at_the_gate, entry("authorisation handed over", hold="1", reference="auth-1", amount=400)])
    assert list(given.holds) == ["2"] and given.declined is None
    by_reference = History.of([*at_the_gate, entry("authorisation handed over", reference="auth-2", amount=500)])
    assert list(by_reference.holds) == ["1"]
    # The visit that begins on a part of what was asked for is not refused because of the part.
    part = [*authorised(400), entry("authorisation handed over", hold="1", reference="auth-1")]
    assert History.of(part).declined is None and not History.of(part).may_authorise


def test_a_chargeback_takes_a_capture_back_and_stops_the_payment() -> None:
    taken_back = entry("charged back", {"provider": -500, "receivable": 500}, capture="2", event="e")
    history = History.of([*PAID, taken_back])
    assert history.captures == {"2": Capture("capt-2", 0)} and history.paid == 0
    assert (history.declined, history.may_authorise, history.may_capture) == ("charged back", False, False)
    returned = entry("chargeback returned", {"provider": 500, "receivable": -500}, capture="2", event="f")
    again = History.of([*PAID, taken_back, returned])
    assert again.captures == {"2": Capture("capt-2", 500)}
    alone = History.of([*PAID, returned])
    assert alone.captures["2"].left == 1000 and alone.declined is None and alone.may_capture


@pytest.mark.parametrize(
    ("kind", "n"), [("payment to be tried again", 1), ("decision correct", 0), ("decision waive", 0)]
)
def test_a_retry_or_a_decision_allows_every_step_again(kind: str, n: int) -> None:
    refused = [asked(Request("capture", 500, "1", "auth-1")), answered("payment declined", reason="expired")]
    history = History.of([*PAID, entry("charged back", capture="2", event="e"), entry(kind)])
    assert history.declined is None and history.n_retries == n and history.n_void == 0
    assert history.may_authorise and history.may_capture and history.may_refund
    after = History.of([*authorised(), *refused, entry(kind)])
    assert after.n_void == 0 and after.declined is None
    person = History.of([asked(AUTHORISE), answered("payment not carried out", by="eve"), entry(kind)])
    assert person.may_refund


def test_what_was_written_off_is_counted_with_what_was_taken_back() -> None:
    off = entry("written off", {"written off": 300, "receivable": -300})
    back = entry("write-off reversed", {"written off": -100, "receivable": 100})
    history = History.of([entry("receipt settled", {"receivable": 300, "sales": -300}), off, back])
    assert (history.n_write_offs, history.written_off, history.owed) == (2, 200, 100)


def test_entries_of_other_kinds_move_balances_alone() -> None:
    opened = History.of([entry("visit opened"), entry("receipt settled", {"receivable": 300}), entry("decisions")])
    assert replace(opened, balances=Counter()) == History() and opened.owed == 300
    # Nothing was refused, so nothing has to be allowed again.
    refused = [asked(AUTHORISE), answered("payment declined", reason="no funds"), entry("receipt decision")]
    assert History.of(refused).declined == "no funds"


@pytest.mark.parametrize("step", ["capture", "release"])
def test_a_step_of_older_books_finds_the_authorisation_by_its_reference(step: Step) -> None:
    older = entry("payment asked", step=step, amount=500, of="auth-1")
    assert History.of([*authorised(), older]).pending == Request(step, 500, "1", "auth-1")
    unknown = entry("payment asked", step=step, amount=500, of="auth-9")
    assert History.of([*authorised(), unknown]).pending == Request(step, 500, "auth-9", "auth-9")


def test_a_refund_of_older_books_finds_its_capture() -> None:
    older = entry("payment asked", step="refund", amount=5, of="capt-2")
    assert History.of([*PAID, older]).pending == Request("refund", 5, "2", "capt-2")


# ---- the next step ---------------------------------------------------------------------------------------------------


def following(
    owed: int = 0, holds: dict[str, Hold] | None = None, captures: dict[str, Capture] | None = None, *,
    is_final: bool = True, has_means: bool = True, kept_since_ns: int = 0, **state: Any,
) -> Request | None:  # fmt: skip
    history = History(
        holds=holds or {}, captures=captures or {}, balances=Counter({"receivable": owed}), **state
    )
    return history.next_step(is_final=is_final, has_means=has_means, kept_since_ns=kept_since_ns)


SMALL, LARGE = Hold("auth-1", 300, T_NS), Hold("auth-2", 700, T_NS + 1)


def test_nothing_is_asked_while_an_answer_is_missing_or_nothing_is_left_to_do() -> None:
    assert following(500, {"1": SMALL}, pending=AUTHORISE) is None
    assert following() is None
    # Before the price stands, what is held stays held.
    assert following(500, {"1": LARGE}, is_final=False) is None
    assert following(500, has_means=False) is None


def test_what_the_provider_has_dropped_is_released_first_whatever_the_price() -> None:
    for is_final in (True, False):
        dropped = following(500, {"1": SMALL, "2": LARGE}, is_final=is_final, kept_since_ns=T_NS + 1)
        assert dropped == Request("release", of="1", reference="auth-1")
    assert following(700, {"2": LARGE}, kept_since_ns=T_NS + 1) == Request("capture", 700, "2", "auth-2")


@pytest.mark.parametrize(
    ("owed", "has_means", "state", "wanted"),
    [
        (700, True, {}, Request("capture", 700, "2", "auth-2")),
        (1, True, {}, Request("capture", 1, "2", "auth-2")),
        # Too small: a larger one, or what it allows where a larger one cannot be had.
        (701, True, {}, Request("authorise", 701)),
        (701, False, {}, Request("capture", 700, "2", "auth-2")),
        (701, True, {"may_authorise": False}, Request("capture", 700, "2", "auth-2")),
        (701, True, {"may_capture": False}, Request("authorise", 701)),
        (300, True, {"may_capture": False}, Request("authorise", 300)),
        # Neither: then nothing has to stay held.
        (300, False, {"may_capture": False}, Request("release", of="1", reference="auth-1")),
        (0, True, {}, Request("release", of="1", reference="auth-1")),
        (-1, True, {}, Request("release", of="1", reference="auth-1")),
    ],
)
def test_what_is_owed_is_captured_from_the_largest_authorisation(
    owed: int, has_means: bool, state: dict[str, bool], wanted: Request
) -> None:
    assert following(owed, {"1": SMALL, "2": LARGE}, has_means=has_means, **state) == wanted


def test_without_an_authorisation_one_of_everything_is_asked_for() -> None:
    assert following(500) == Request("authorise", 500)
    assert following(500, may_authorise=False) is None
    empty = replace(SMALL, amount=0)
    assert following(500, {"1": empty}, has_means=False) == Request("release", of="1", reference="auth-1")


def test_too_much_is_refunded_from_the_newest_capture_that_can_be() -> None:
    first, second = Capture("capt-1", 400), Capture("capt-2", 300)
    both = {"2": first, "4": second}
    assert following(-200, {}, both) == Request("refund", 200, "4", "capt-2")
    assert following(-350, {}, both) == Request("refund", 300, "4", "capt-2")
    assert following(-1, {}, both) == Request("refund", 1, "4", "capt-2")
    for spent in (replace(second, is_final=True), replace(second, left=0)):
        assert following(-200, {}, {"2": first, "4": spent}) == Request("refund", 200, "2", "capt-1")
    assert following(-200, {}, {"2": replace(first, is_final=True)}) is None
    assert following(-200, {"1": SMALL}, both, may_refund=False) == Request("release", of="1", reference="auth-1")
    assert following(0, {}, both) is None
    assert following(-1, {}, {"4": replace(second, left=1)}) == Request("refund", 1, "4", "capt-2")
