"""The gate admits people who may come in, repeats no credential, and fails to the safe side."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from gates.readers import SECOND_NS, STORE, T_NS, request
from hypothesis import given
from hypothesis import strategies as st

from fusion.gates.cards import looks_like_card_number
from fusion.gates.keeper import KEPT_S, QUESTIONS_MAX, TOKEN_MAX, GateKeeper
from fusion.gates.verifiers import (
    GateRequest,
    NotYetPublic,
    OpenDoor,
    Refused,
    StaffList,
    Verified,
    VerifiedAccounts,
    Verifier,
)

# Test numbers that card brands publish, of 12 to 19 digits.
CARDS = ["4111111111111111", "5555555555554444", "378282246310005", "30569309025904", "4222222222222"]


class Table(Verifier):
    """Verifies tokens that stand in a table."""

    def __init__(self, **accounts: str) -> None:
        self.accounts = accounts

    def verify(self, request: GateRequest) -> Verified | Refused:
        account = self.accounts.get(request.token)
        return Refused("unknown code") if account is None else Verified(account, "Welcome back")


class Broken(Verifier):
    def verify(self, request: GateRequest) -> Verified | Refused:
        raise OSError(f"could not look up {request.token}")


def keeper(**verifiers: object) -> GateKeeper:
    known = {"qr": Table(good="alice"), "staff": StaffList({"badge-1"}), "open": OpenDoor()}
    # Whether a verifier answers in time is no question here, so no gate gives up on a busy machine.
    return GateKeeper(STORE, {**known, **verifiers}, deadline_s=60.0)  # type: ignore[dict-item]


def test_a_good_code_opens_and_reaches_the_engine() -> None:
    decision = keeper().scan(GateRequest(T_NS, "in", "qr", "good"))
    assert decision.open and decision.display == "Welcome back"
    assert decision.scan is not None
    assert (decision.scan.t_ns, decision.scan.gate) == (T_NS, "in")
    assert (decision.scan.credential_type, decision.scan.account) == ("qr", "alice")


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (GateRequest(T_NS, "in", "qr", "bad"), "unknown code"),
        (GateRequest(T_NS, "back door", "qr", "good"), "unknown gate"),
        (GateRequest(T_NS, "out", "open"), "no way in"),
        (GateRequest(T_NS, "in", "open"), "open not accepted here"),
        (GateRequest(T_NS, "door", "qr", "good"), "qr not accepted here"),
        (GateRequest(T_NS, "in", "staff", "badge-2"), "not on the staff list"),
        (GateRequest(T_NS, "in", "account", "alice"), "no verifier for account"),
        (GateRequest(T_NS, "in", "telepathy", "alice"), "unknown kind of credential"),
        (GateRequest(T_NS, "in", "qr", ""), "no token"),
        (GateRequest(T_NS, "in", "qr", "x" * 100_000), "token too long"),
        (GateRequest(1_772_528_646, "in", "qr", "good"), "time is not in nanoseconds"),
    ],
)
def test_a_bad_request_is_refused_with_its_reason(request_: GateRequest, reason: str) -> None:
    gates = keeper()
    decision = gates.scan(request_)
    assert (decision.open, decision.reason, decision.scan) == (False, reason, None)
    assert gates.counts == {reason: 1}


def test_staff_open_and_verified_accounts_come_in() -> None:
    gates = keeper(account=VerifiedAccounts())
    staff = gates.scan(GateRequest(T_NS, "in", "staff", "badge-1"))
    assert staff.open and staff.scan is not None and staff.scan.account == "badge-1"
    door = gates.scan(GateRequest(T_NS, "door", "open"))
    assert door.open and door.scan is not None and door.scan.account == ""
    account = gates.scan(GateRequest(T_NS, "in", "account", "bob"))
    assert account.open and account.scan is not None and account.scan.account == "bob"


def test_a_dead_verifier_closes_the_way_in_and_leaves_the_way_out() -> None:
    gates = keeper(qr=Broken())
    refused = gates.scan(GateRequest(T_NS, "in", "qr", "secret-token"))
    assert not refused.open and refused.scan is None
    assert "secret" not in repr(refused)
    assert gates.scan(GateRequest(T_NS, "in", "staff", "badge-1")).open
    for gate in ("in", "out", "door", "no such gate"):
        assert gates.scan(GateRequest(T_NS, gate, "qr", "secret-token", leaving=True)).open


@pytest.mark.parametrize("answer", [None, Verified(""), Verified("x" * 256), Verified("4111 1111 1111 1111"), "alice"])
def test_a_verifier_that_answers_nonsense_keeps_the_gate_closed(answer: object) -> None:
    class Odd(Verifier):
        def verify(self, request: GateRequest) -> Any:
            return answer

    assert not keeper(qr=Odd()).scan(GateRequest(T_NS, "in", "qr", "good")).open


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("kind", ["qr", "card", "face", "staff", "open", "account"])
def test_card_numbers_are_refused_and_never_repeated(card: str, kind: str) -> None:
    ways = [
        card,
        " ".join(card[i : i + 4] for i in range(0, len(card), 4)),
        "-".join(card[i : i + 4] for i in range(0, len(card), 4)),
        "\u2013".join(card[i : i + 4] for i in range(0, len(card), 4)),
        "\u00a0".join(card),
        "\u200b".join(card),
        f"PAN={card};exp=1226",
        f"{card} 12 26",
        f"01 {card}",
        "".join(chr(0xFF10 + int(digit)) for digit in card),
        "".join(chr(0x0660 + int(digit)) for digit in card),
    ]
    gates = keeper(account=VerifiedAccounts(), face=VerifiedAccounts(), card=VerifiedAccounts())
    for token in ways:
        request = GateRequest(T_NS, "in", kind, token)
        decision = gates.scan(request)
        assert not decision.open and decision.reason == "looks like a card number"
        assert card[:6] not in repr(decision) + repr(request) + repr(gates.counts)


@given(st.text(alphabet=st.characters(exclude_categories=["Nd"]), max_size=300))
def test_text_without_digits_is_no_card_number(text: str) -> None:
    assert not looks_like_card_number(text) or any(c.isdigit() for c in text)


@given(st.text(max_size=200), st.sampled_from(["qr", "staff", "open", "account", "card", "\0"]), st.text(max_size=20))
def test_nothing_that_a_reader_sends_raises(token: str, kind: str, gate: str) -> None:
    assert not keeper().scan(GateRequest(T_NS, gate, kind, token + "?")).open


@contextmanager
def calls() -> Iterator[list[int]]:
    """Counts the calls of Python and C functions inside the block: work that does not depend on the machine."""
    n_calls = [0]

    def count(frame: Any, event: str, argument: Any) -> None:
        n_calls[0] += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield n_calls
    finally:
        sys.setprofile(before)


def test_the_slowest_token_takes_a_bounded_amount_of_work() -> None:
    """About 100 ns a call: 2 ms of the 50 that a gate has."""
    gates = keeper()
    rng = random.Random(4)
    # The slowest input is a long run of short groups of digits.
    tokens = [" ".join(str(rng.randrange(10)) for _ in range(TOKEN_MAX // 2)) for _ in range(20)]
    for token in tokens:
        with calls() as n_calls:
            gates.scan(request(token))
        assert n_calls[0] < 20_000
    with calls() as n_calls:
        assert gates.scan(request("1" * 100_000)).reason == "token too long"
    assert n_calls[0] < 50, "a token that is too long is not examined at all"


def test_verifiers_of_unknown_kinds_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="telepathy"):
        keeper(telepathy=OpenDoor())


def test_a_pilot_opens_to_everybody_at_its_instant() -> None:
    pilot = NotYetPublic(Table(good="alice", other="bob"), {"alice"}, T_NS + SECOND_NS)
    gates = keeper(qr=pilot)
    assert gates.scan(request("good")).open
    assert gates.scan(request("other")).reason == "not open to the public yet"
    assert gates.scan(request("other", t_ns=T_NS + SECOND_NS)).open


# ---- the deadline ----------------------------------------------------------------------------------------------------


class Patience:
    """How gates wait for answers in these tests: not at all, or until the answer is there. No clock is involved.

    Attributes:
        is_over: whether gates give up at once.
        waiting: acquired once for each gate that begins to wait.
        answered: the events that gates waited for.
    """

    def __init__(self, is_over: bool) -> None:
        self.is_over = is_over
        self.waiting = threading.Semaphore(0)
        self.answered: list[threading.Event] = []

    def __call__(self, answered: threading.Event, deadline_s: float) -> bool:
        self.answered.append(answered)
        self.waiting.release()
        return answered.is_set() if self.is_over else answered.wait(60)


class Slow(Verifier):
    """Answers once it may."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.asked = threading.Semaphore(0)
        self.n_asked = 0

    def verify(self, request: GateRequest) -> Verified | Refused:
        self.n_asked += 1
        self.asked.release()
        self.may_answer.wait(60)
        return Verified("alice")


def test_a_verifier_that_hangs_never_holds_a_gate_and_its_answer_is_not_lost() -> None:
    slow, patience = Slow(), Patience(is_over=True)
    keeper = GateKeeper(STORE, {"qr": slow, "staff": StaffList({"badge"})}, wait=patience)
    assert keeper.scan(request("code")).reason == "verifier too slow"
    assert slow.asked.acquire(timeout=60)
    assert keeper.scan(request("code")).reason == "verifier too slow"
    assert slow.n_asked == 1, "the same question is not asked twice"
    for i in range(2 * QUESTIONS_MAX):
        assert not keeper.scan(request(f"other {i}")).open
    for _ in range(QUESTIONS_MAX - 1):
        assert slow.asked.acquire(timeout=60)
    assert slow.n_asked == QUESTIONS_MAX and keeper.counts["verifiers do not answer"] == QUESTIONS_MAX + 1
    assert keeper.scan(request("badge", "staff")).open and keeper.scan(request("", leaving=True)).open
    slow.may_answer.set()
    for answered in patience.answered:
        assert answered.wait(60)
    assert keeper.scan(request("code")).open
    assert slow.n_asked == QUESTIONS_MAX, "the answer that came late was kept"
    patience.is_over = False
    assert keeper.scan(request("new", t_ns=T_NS + round((KEPT_S + 1) * 1e9))).open and keeper.n_questions == 0


def test_a_sealed_door_opens_when_paid_and_whenever_no_answer_comes() -> None:
    class Payment(Verifier):
        """Answers as set; hangs without an answer."""

        def __init__(self) -> None:
            self.answer: Verified | Refused | Exception | None = None
            self.may_end = threading.Event()

        def verify(self, request: GateRequest) -> Verified | Refused:
            if isinstance(self.answer, Exception):
                raise self.answer
            if self.answer is None:
                self.may_end.wait(60)
            return self.answer or Verified("", "Paid")

    door, patience = Payment(), Patience(is_over=True)
    keeper = GateKeeper(STORE, {}, way_out=door, wait=patience)

    def leave(visit: str) -> tuple[bool, str]:
        decision = keeper.scan(GateRequest(T_NS, "out", "open", visit, leaving=True))
        assert decision.scan is None
        return decision.open, decision.reason

    assert leave("v1") == (True, "way out, unchecked: no answer")
    door.may_end.set()
    patience.is_over = False
    door.answer = Refused("not paid")
    assert leave("v2") == (False, "not paid")
    door.answer = Verified("", "Paid")
    assert leave("v2") == (True, "way out")
    door.answer = OSError("v3 and its secrets")
    assert leave("v3") == (True, "way out, unchecked: OSError")


def test_an_answer_serves_one_of_two_gates() -> None:
    slow, patience = Slow(), Patience(is_over=False)
    keeper = GateKeeper(STORE, {"qr": slow}, wait=patience)
    decisions: list[bool] = []
    threads = [threading.Thread(target=lambda: decisions.append(keeper.scan(request("code")).open)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert patience.waiting.acquire(timeout=60)
    slow.may_answer.set()
    for thread in threads:
        thread.join()
    assert sorted(decisions) == [False, True] and slow.n_asked == 1


def test_a_gate_gives_up_at_its_deadline() -> None:
    slow = Slow()
    keeper = GateKeeper(STORE, {"qr": slow}, deadline_s=0.0)
    assert keeper.scan(request("code")).reason == "verifier too slow"
    slow.may_answer.set()
