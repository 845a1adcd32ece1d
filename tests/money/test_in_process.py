"""The provider of tests and examples: its accounts, its terms, and each fault that it can have."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from money.books import T_NS

from fusion.money.providers import (
    Answer,
    CannotLookUp,
    InProcessProvider,
    PaymentError,
    SeededFaults,
    Terms,
    UnknownOutcome,
)
from fusion.money.providers.in_process import Fault
from fusion.money.providers.provider import Step

S_NS = 10**9


def provider(*faults: Fault | None, looks_up: bool = True) -> InProcessProvider:
    """A provider whose requests have these faults, one after another, and then none."""
    left = iter(faults)
    return InProcessProvider(lambda step, key: next(left, None), looks_up=looks_up)


def test_money_is_reserved_taken_and_returned() -> None:
    pay = provider()
    assert pay.authorise("k1", "tok", 100, "EUR") == Answer(True, "auth-1") and (pay.held, pay.total) == (100, 0)
    assert pay.capture("k2", "auth-1", 60) == Answer(True, "capt-2") and (pay.held, pay.total) == (40, 60)
    assert pay.capture("k3", "auth-1", 40) == Answer(True, "capt-3") and (pay.held, pay.total) == (0, 100)
    assert (pay.taken, pay.n_captures) == ({"auth-1": 100}, {"auth-1": 2})
    assert pay.refund("k4", "capt-2", 60) == Answer(True, "refu-4") and pay.taken == {"auth-1": 40}
    assert pay.authorise("k5", "tok", 7, "EUR") == Answer(True, "auth-5") and pay.held == 7
    assert pay.release("k6", "auth-5") == Answer(True, "rele-6") and (pay.held, pay.total) == (0, 40)
    # Releasing what is unknown or empty moves nothing, and is carried out.
    assert pay.release("k7", "auth-5").approved and pay.release("k8", "none").approved and pay.total == 40
    assert pay.capture("k9", "none", 1) == Answer(False, reason="more than was authorised")


@pytest.mark.parametrize(
    ("request_it", "reason"),
    [
        (lambda pay: pay.capture("k", "auth-1", 101), "more than was authorised"),
        (lambda pay: pay.capture("k", "capt-2", 1), "more than was authorised"),
        (lambda pay: pay.capture("k", "none", 1), "more than was authorised"),
        (lambda pay: pay.refund("k", "capt-2", 51), "more than was captured"),
        (lambda pay: pay.refund("k", "auth-1", 1), "more than was captured"),
        (lambda pay: pay.refund("k", "none", 1), "more than was captured"),
    ],
)
def test_more_than_is_there_is_declined_and_moves_nothing(
    request_it: Callable[[InProcessProvider], Answer], reason: str
) -> None:
    pay = provider()
    pay.authorise("k1", "tok", 150, "EUR")
    pay.capture("k2", "auth-1", 50)
    assert request_it(pay) == Answer(False, reason=reason) and (pay.held, pay.total) == (100, 50)
    # All of it is not more than is there.
    assert pay.capture("k3", "auth-1", 100).approved and pay.refund("k4", "capt-2", 50).approved


def test_amounts_are_above_nothing() -> None:
    pay = provider()
    for amount in (0, -1):
        for ask in (pay.capture, pay.refund):
            with pytest.raises(PaymentError, match=f"^amount: want more than 0, got {amount}$"):
                ask(f"{ask.__name__} {amount}", "x", amount)
        with pytest.raises(PaymentError, match=f"^amount: want more than 0, got {amount}$"):
            pay.authorise(f"{amount}", "tok", amount, "EUR")
    assert pay.authorise("1", "tok", 1, "EUR").approved


def test_a_key_stands_for_one_request() -> None:
    pay = provider()
    first = pay.authorise("k", "tok", 100, "EUR")
    assert pay.authorise("k", "tok", 100, "EUR") == first and pay.held == 100
    for other in (("tok", 101, "EUR"), ("tok2", 100, "EUR"), ("tok", 100, "USD")):
        with pytest.raises(PaymentError, match=r"^'k': the idempotency key was used before for another request$"):
            pay.authorise("k", *other)
    with pytest.raises(PaymentError, match="used before"):
        pay.capture("k", "auth-1", 100)
    pay.capture("k2", "auth-1", 1)
    with pytest.raises(PaymentError, match="used before"):
        pay.capture("k2", "auth-2", 1)
    declined = provider("decline")
    assert declined.authorise("k", "tok", 1, "EUR") == Answer(False, reason="insufficient funds")
    assert declined.authorise("k", "tok", 1, "EUR") == Answer(False, reason="insufficient funds"), "also a decline"
    pay.forget_keys()
    assert pay.authorise("k", "tok", 100, "EUR").reference == "auth-3" and pay.held == 199


def test_a_key_lives_from_its_first_request_and_an_authorisation_too() -> None:
    now_ns = [T_NS]
    pay = InProcessProvider(terms=Terms(keys_kept_s=60.0, holds_kept_s=100.0), clock_ns=lambda: now_ns[0])
    pay.authorise("k", "tok", 5, "EUR")
    pay.capture("c", "auth-1", 2)
    now_ns[0] += 100 * S_NS - 1
    assert pay.held == 3 and pay.capture("c2", "auth-1", 1).approved
    now_ns[0] += 1
    assert pay.held == 0
    assert pay.capture("c3", "auth-1", 1) == Answer(False, reason="the authorisation has expired")
    # What was taken stays, and can be returned at any time.
    assert pay.refund("r", "capt-2", 2).approved and pay.total == 1


# ---- faults ----------------------------------------------------------------------------------------------------------


def test_a_request_that_never_arrives_is_carried_out_when_it_is_repeated() -> None:
    pay = provider("lost before")
    with pytest.raises(UnknownOutcome, match=r"^no answer$"):
        pay.authorise("k", "tok", 5, "EUR")
    assert pay.held == 0 and pay.authorise("k", "tok", 5, "EUR").approved and pay.held == 5


def test_an_answer_that_never_arrives_comes_when_it_is_asked_for_again() -> None:
    pay = provider("lost after", "lost after")
    for _ in range(2):
        with pytest.raises(UnknownOutcome, match=r"^no answer$"):
            pay.authorise("k", "tok", 5, "EUR")
    assert pay.held == 5 and pay.authorise("k", "tok", 5, "EUR") == Answer(True, "auth-1") and pay.held == 5


def test_a_rejected_request_is_not_carried_out_and_one_that_was_is_not_rejected() -> None:
    pay = provider("invalid", None, "invalid")
    with pytest.raises(PaymentError, match=r"^no such means of payment$"):
        pay.authorise("k", "tok", 5, "EUR")
    assert pay.held == 0 and pay.look_up("authorise", "k", "") is None
    assert pay.authorise("k", "tok", 5, "EUR") == pay.authorise("k", "tok", 5, "EUR") == Answer(True, "auth-1")


def test_half_of_an_amount_may_be_approved() -> None:
    pay = provider("partial", "partial", "partial", None, "partial", "partial")
    assert pay.authorise("k1", "tok", 101, "EUR") == Answer(True, "auth-1", amount=50) and pay.held == 50
    assert pay.authorise("k2", "tok", 1, "EUR") == Answer(True, "auth-2"), "of one cent there is no half"
    assert pay.authorise("k3", "tok", 2, "EUR") == Answer(True, "auth-3", amount=1)
    assert pay.release("k4", "auth-3") == Answer(True, "rele-4")
    assert pay.capture("k5", "auth-1", 50) == Answer(True, "capt-5", amount=25) and pay.taken == {"auth-1": 25}
    assert pay.release("k6", "auth-1") == Answer(True, "rele-6"), "a release has no amount"
    assert pay.held == 1


def test_an_answer_may_repeat_the_reference_of_an_earlier_one() -> None:
    pay = provider(None, "repeat", None, "repeat", "repeat")
    assert [pay.authorise(f"k{i}", "tok", 5, "EUR").reference for i in range(2)] == ["auth-1", "auth-1"]
    assert pay.held == 10 and pay.authorise("k1", "tok", 5, "EUR").reference == "auth-1"
    # The first of each step.
    assert pay.capture("c", "auth-1", 5).reference == "capt-3"
    assert pay.capture("c2", "auth-1", 5) == Answer(False, reason="more than was authorised")
    assert pay.look_up("authorise", "k1", "") == Answer(True, "auth-2"), "its own accounts know better"


def test_a_decline_is_of_authorisations_alone() -> None:
    pay = provider(None, "decline", "decline")
    pay.authorise("k", "tok", 5, "EUR")
    assert pay.capture("c", "auth-1", 5).approved
    assert pay.authorise("k2", "tok", 5, "EUR") == Answer(False, reason="insufficient funds") and pay.held == 0


def test_after_the_recovery_nothing_goes_wrong_any_more() -> None:
    pay = InProcessProvider(lambda step, key: "lost before")
    with pytest.raises(UnknownOutcome):
        pay.release("k", "x")
    pay.recovered()
    assert pay.release("k", "x").approved


def test_seeded_faults_are_drawn_by_their_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[Fault] = ["lost before", "lost after", "decline", "repeat", "partial", "invalid"]
    # Shares are powers of two, so that the sums of this twin are exact.
    drawn = SeededFaults(
        3, lost_before=0.125, lost_after=0.0625, decline=0.25, repeat=0.125, partial=0.0625, invalid=0.125
    )
    shares, twin = [0.125, 0.0625, 0.25, 0.125, 0.0625, 0.125], random.Random(3)
    steps: tuple[Step, ...] = ("authorise", "capture", "release", "refund")
    found = set()
    for i in range(400):
        step, draw, wanted = steps[i % 4], twin.random(), None
        for name, share, before in zip(names, shares, [sum(shares[:n]) for n in range(6)]):
            if before <= draw < before + share:
                wanted = name
        fault = drawn(step, f"k{i}")
        assert fault == (None if wanted == "decline" and step != "authorise" else wanted)
        found.add(fault)
    assert found == {*names, None}
    with monkeypatch.context() as drawing:
        # A draw on a bound belongs to the share above it.
        drawing.setattr("random.Random", lambda seed: SimpleNamespace(random=lambda: 0.125))
        assert SeededFaults(3, lost_before=0.125, lost_after=0.125)("release", "k") == "lost after"
    none = SeededFaults(3)
    assert {none("authorise", "k") for _ in range(50)} == {None}


# ---- what its accounts show ------------------------------------------------------------------------------------------


def test_a_look_up_finds_what_was_carried_out_else_what_was_declined() -> None:
    pay = provider("decline", None, "repeat")
    assert pay.look_up("authorise", "k1", "") is None
    pay.authorise("k1", "tok", 5, "EUR")
    assert pay.look_up("authorise", "k1", "") == Answer(False, reason="insufficient funds")
    assert pay.look_up("capture", "k1", "") is None and pay.look_up("authorise", "k2", "") is None
    pay.forget_keys()
    pay.authorise("k1", "tok", 5, "EUR")
    assert pay.look_up("authorise", "k1", "") == Answer(True, "auth-1")
    assert pay.carried_out("authorise", "k1") == [Answer(True, "auth-1")] and pay.carried_out("capture", "k1") == []
    pay.forget_keys()
    pay.authorise("k1", "tok", 5, "EUR")
    with pytest.raises(CannotLookUp, match=r"^the provider carried out 2 operations under this key$"):
        pay.look_up("authorise", "k1", "")
    assert len(pay.carried_out("authorise", "k1")) == 2
    with pytest.raises(CannotLookUp, match=r"^the provider does not look up requests$"):
        provider(looks_up=False).look_up("authorise", "k1", "")


def test_what_is_covered_counts_by_the_beginning_of_the_keys() -> None:
    pay = provider(None, None, "decline")
    assert pay.covered("shop/v1/") == 0
    pay.authorise("shop/v1/1", "tok", 100, "EUR")
    pay.authorise("shop/v10/1", "tok", 7, "EUR")
    pay.authorise("shop/v1/2", "tok", 9, "EUR")
    assert pay.covered("shop/v1/") == 100
    pay.capture("shop/v1/3", "auth-1", 60)
    assert pay.covered("shop/v1/") == 100, "taken instead of reserved"
    pay.refund("shop/v1/4", "capt-3", 10)
    assert pay.covered("shop/v1/") == 90 and pay.covered("shop/") == 97
    pay.release("shop/v1/5", "auth-1")
    assert pay.covered("shop/v1/") == 50
