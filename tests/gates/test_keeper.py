"""The gate admits people who may come in, repeats no credential, and fails to the safe side."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from gates.readers import PATIENT, SECOND_NS, STORE, T_NS, request
from hypothesis import given
from hypothesis import strategies as st

from fusion.gates.keeper import TOKEN_MAX, GateKeeper, GateLimits
from fusion.gates.questions import KEPT_S, PER_GATE_MAX, SHOWN_MAX_S, THREADS_PER_GATE
from fusion.gates.verifiers import (
    AskWorld,
    GateRequest,
    NotYetPublic,
    OpenDoor,
    Refused,
    StaffList,
    Verified,
    VerifiedAccounts,
    Verifier,
)
from fusion.store.card_numbers import looks_like_card_number

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
    return GateKeeper(STORE, {**known, **verifiers}, now_ns=lambda: T_NS, limits=PATIENT)  # type: ignore[dict-item]


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
    assert staff.open and staff.scan is not None and staff.scan.account.startswith("staff-")
    assert "badge" not in staff.scan.account, "who reads a recording must not be able to come in on what it says"
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
        assert gates.scan(GateRequest(T_NS, gate, "qr", "secret-token", asks="leave")).open


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


def test_an_account_of_many_digits_is_no_card_number() -> None:
    # A real system's account: its first 16 digits are a valid number of an issuer, all 19 are not.
    assert not looks_like_card_number("3594178763236981970")
    assert looks_like_card_number("3594178763236981")
    # Joined with an expiry, month first or year first, or with more digits than any number has.
    assert all(map(looks_like_card_number, ("3782822463100051226", "3782822463100052612", "41111111111111111226123")))


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
    now_ns = T_NS
    gates = GateKeeper(STORE, {"qr": pilot}, now_ns=lambda: now_ns, limits=PATIENT)
    assert gates.scan(request("good")).open
    assert gates.scan(request("other", t_ns=T_NS + SECOND_NS)).reason == "not open to the public yet"
    now_ns += SECOND_NS
    assert gates.scan(request("other")).open


# ---- deadlines -------------------------------------------------------------------------------------------------------


class Patience:
    """How gates wait for answers in these tests: not at all, or until the answer is there. No clock is involved.

    Attributes:
        is_over: whether gates give up at once.
        waiting: acquired once for each gate that begins to wait.
        now_s: what the gates' clock of seconds shows.
    """

    def __init__(self, *, is_over: bool) -> None:
        self.is_over = is_over
        self.waiting = threading.Semaphore(0)
        self.now_s = 0.0
        self._waited: list[threading.Event] = []

    def __call__(self, done: threading.Event, deadline_s: float) -> bool:
        self._waited.append(done)
        self.waiting.release()
        return done.is_set() if self.is_over else done.wait(60)

    def until_done(self) -> None:
        """Wait for the thread of the question that a gate has waited for last."""
        assert self._waited[-1].wait(60)


class Slow(Verifier):
    """Answers from memory once it may."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.asked = threading.Semaphore(0)
        self.n_verified = self.n_asked = 0

    def verify(self, request: GateRequest) -> Verified | Refused | AskWorld:
        self.n_verified += 1
        return self.answer(request)

    def answer(self, request: GateRequest) -> Verified:
        self.n_asked += 1
        self.asked.release()
        self.may_answer.wait(60)
        return Verified(f"of {request.token}")


class Distant(Slow):
    """Asks a provider, which answers once it may."""

    instant = True

    def verify(self, request: GateRequest) -> Verified | Refused | AskWorld:
        self.n_verified += 1
        return AskWorld(lambda: self.answer(request))


def gates_of(patience: Patience, **verifiers: Verifier) -> GateKeeper:
    return GateKeeper(STORE, verifiers, now_ns=lambda: T_NS, wait=patience, monotonic_s=lambda: patience.now_s)


@pytest.mark.parametrize("kind", [Slow, Distant])
def test_a_late_answer_is_asked_for_once_and_collected_when_the_gate_asks_again(kind: type[Slow]) -> None:
    slow, patience = kind(), Patience(is_over=True)
    gates = gates_of(patience, qr=slow, staff=StaffList({"badge"}))
    for _ in range(4):
        decision = gates.scan(request("code"))
        assert not decision.open and decision.again_s == GateLimits().again_s
        assert decision.display == "One moment please"
        assert gates.scan(request("badge", "staff")).open, "who is known at once does not wait for others"
    assert slow.asked.acquire(timeout=60) and (slow.n_verified, slow.n_asked) == (1, 1)
    slow.may_answer.set()
    patience.until_done()
    decision = gates.scan(request("code"))
    assert decision.open and decision.scan is not None and decision.scan.account == "of code"
    assert (slow.n_verified, slow.n_asked, gates.n_questions) == (1, 1, 0)


@pytest.mark.parametrize("kind", [Slow, Distant])
def test_who_gets_no_answer_in_time_is_sent_to_the_staff(kind: type[Slow]) -> None:
    slow, patience = kind(), Patience(is_over=True)
    gates = gates_of(patience, qr=slow)
    assert gates.scan(request("code")).again_s is not None
    patience.now_s += GateLimits().deadline_world_s
    decision = gates.scan(request("code"))
    assert (decision.reason, decision.again_s, gates.n_questions) == ("no answer in time", None, 0)
    slow.may_answer.set()


@pytest.mark.parametrize("kind", [Slow, Distant])
def test_questions_are_bounded_by_gate_and_abandoned_ones_make_room(kind: type[Slow]) -> None:
    slow, patience = kind(), Patience(is_over=True)
    both = STORE.gate[0].model_copy(update={"id": "other entry"})
    store = STORE.model_copy(update={"gate": (*STORE.gate, both)})
    gates = GateKeeper(store, {"qr": slow}, wait=patience, monotonic_s=lambda: patience.now_s)
    for i in range(PER_GATE_MAX):
        assert gates.scan(request(f"code {i}")).again_s is not None
    for _ in range(THREADS_PER_GATE):
        assert slow.asked.acquire(timeout=60)
    assert slow.n_asked == THREADS_PER_GATE
    assert gates.scan(request("one more")).again_s is None and gates.n_questions == PER_GATE_MAX
    assert gates.scan(request("elsewhere", gate="other entry")).again_s is not None
    assert slow.asked.acquire(timeout=60), "another gate has threads of its own"
    patience.now_s += SHOWN_MAX_S + 0.1
    assert gates.scan(request("later")).again_s is not None
    assert slow.asked.acquire(timeout=60), "the threads of abandoned questions do not count"
    slow.may_answer.set()
    patience.until_done()
    patience.now_s += KEPT_S
    assert gates.scan(request("later")).open
    gates.scan(request("next"))
    assert gates.n_questions == 1, "answers that were not collected are forgotten"


def test_a_provider_that_gives_no_answer_is_asked_again_with_the_next_request() -> None:
    answers = iter([None, None, Verified("alice")])

    class Unsure(Distant):
        def verify(self, request: GateRequest) -> Verified | Refused | AskWorld:
            self.n_verified += 1
            return AskWorld(lambda: next(answers))

    unsure = Unsure()
    gates = gates_of(Patience(is_over=False), qr=unsure)
    assert [gates.scan(request("code")).open for _ in range(3)] == [False, False, True]
    assert unsure.n_verified == 1, "what memory has verified, such as a code that is good once, is not verified again"


def test_an_answer_serves_one_of_two_gates() -> None:
    slow, patience = Slow(), Patience(is_over=False)
    gates = gates_of(patience, qr=slow)
    decisions: list[bool] = []
    threads = [threading.Thread(target=lambda: decisions.append(gates.scan(request("code")).open)) for _ in range(2)]
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
    gates = GateKeeper(STORE, {"qr": slow}, limits=GateLimits(deadline_s=0.0))
    assert gates.scan(request("code")).reason == "verifier too slow"
    slow.may_answer.set()


# ---- guesses ---------------------------------------------------------------------------------------------------------


def test_after_some_unknown_badges_the_reader_pauses_longer_and_longer() -> None:
    patience, warnings = Patience(is_over=False), []
    limits = GateLimits(guesses_max=3, guess_pause_s=1.0, guess_pause_max_s=8.0)
    gates = GateKeeper(
        STORE, {"staff": StaffList({"badge"}), "qr": Table(good="alice")}, limits=limits, warn=warnings.append,
        now_ns=lambda: T_NS, monotonic_s=lambda: patience.now_s, wait=patience,
    )  # fmt: skip
    pauses = []
    for i in range(9):
        assert gates.scan(request(f"guess {i}", "staff")).reason == "not on the staff list"
        began_s = patience.now_s
        while gates.scan(request("badge", "staff")).reason == "too many unknown credentials":
            patience.now_s += 0.5
        pauses.append(patience.now_s - began_s)
        assert gates.scan(request("good")).open, "other kinds of credentials are not affected"
    assert pauses[:6] == [0, 0, 0, 1, 2, 4] and all(4 < pause <= 8 for pause in pauses[6:])
    assert [(w.kind, w.subject, w.credential, w.total) for w in warnings] == [
        ("credentials guessed", "in", "staff", n) for n in range(4, 10)
    ]
    patience.now_s += 3600.0
    gates.scan(request("guess", "staff"))
    assert gates.scan(request("badge", "staff")).open, "an hour later a wrong badge costs nothing"
