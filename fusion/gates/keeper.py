"""The gate keeper: a person shows a credential, the gate opens or says why not.

A reader sends what it read as a `GateRequest`; `GateKeeper.scan` answers with a `Decision`, whose `scan`, if any, is
the observation that the engine binds to the person who crosses the gate's line next. A verifier per kind of credential
decides what a credential proves. When a verifier fails, the way in stays closed.

Safety and payment are two things. The way out of a shop opens at once, whatever else is the case. A door that opens
after payment has a verifier of its own (`way_out`) and stays shut until that says so; its release opens it at once and
raises an alarm.

Memory has 50 ms. What only the world knows has a longer deadline: the gate says "one moment" and asks again with the
same credential (`Decision.again_s`) until the answer is there.

Text that looks like a card number is refused before any verifier sees it, and neither a decision, nor a counter, nor an
exception repeats any part of a credential.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fusion.gates.guesses import Guesses
from fusion.gates.questions import Key, Question, Questions
from fusion.gates.verifiers import AskWorld, GateRequest, Refused, Verified, Verifier, token_digest
from fusion.observations import EARLIEST_NS, GateScan
from fusion.results import Warning, WarningKind
from fusion.store.card_numbers import looks_like_card_number
from fusion.store.models import Gate, Store

# A signed code of some two hundred characters is usual; ten times that is not a credential.
TOKEN_MAX = 2000
ACCOUNT_MAX = 255
# An answer about what a person at a door carries is used for this long.
FRESH_S = 1.0

KINDS = ("qr", "card", "face", "staff", "open", "account")


@dataclass(frozen=True, slots=True)
class GateLimits:
    """Deadlines, and limits on guessing.

    Attributes:
        deadline_s: for what memory knows; people take a gate that needs longer than 50 ms for a broken one.
        deadline_world_s: for what a provider must be asked; longer than providers take to answer or to give up.
        again_s: after this time a gate asks again for an answer that was not there yet.
        guesses_max: unknown credentials of one kind that a gate looks at before it pauses.
        guess_pause_s, guess_pause_max_s: the first pause, and the longest.
    """

    deadline_s: float = 0.05
    deadline_world_s: float = 30.0
    again_s: float = 0.25
    guesses_max: int = 5
    guess_pause_s: float = 1.0
    guess_pause_max_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate does.

    Attributes:
        open: whether it opens.
        reason: one short phrase from a fixed set or from the verifier, fit for counting.
        display: text for the gate's screen.
        scan: observation for the engine; None where no person comes in.
        again_s: the answer is not there yet; the gate is to ask again after this time, with the same credential. None:
            the decision is final.
        released: whether a person pressed the release, so that goods may have left unpaid.
    """

    open: bool
    reason: str
    display: str
    scan: GateScan | None = None
    again_s: float | None = None
    released: bool = False


_Answer = Verified | Refused | AskWorld
# First part of the key of a question at a door that people leave by.
_LEAVE = "leave"
_TAKEN = Refused("answer was taken at another gate", "Please try again")


class GateKeeper:
    """Decides at all gates of one store, each time within a deadline. May be called from several threads.

    A question that takes longer continues in the background, while the gate asks for a moment's patience. The keeper
    itself stores nothing but counts.

    Attributes:
        counts: decisions so far, by reason.
    """

    def __init__(
        self,
        store: Store,
        verifiers: Mapping[str, Verifier],
        *,
        way_out: Verifier | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        limits: GateLimits = GateLimits(),
        warn: Callable[[Warning], object] = lambda warning: None,
        monotonic_s: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        """Guard the gates of a store.

        Args:
            store: names the gates, and the credentials that each of them accepts.
            verifiers: by credential type. A type without a verifier is refused, whatever the store says.
            way_out: for doors that open only after payment: decides about each request to leave. Without it the way out
                is always open, except in a store whose policy is payment at the door, where it stays shut.
            now_ns: the gates' clock, UTC nanoseconds: verifiers judge by it, never by the time that a request names.
                Where data are simulated, their newest time.
            limits: deadlines, and limits on guessing.
            warn: takes warnings about guesses and released doors; called in whatever thread calls `scan`.
            monotonic_s: seconds since an arbitrary instant, for deadlines and pauses.
            wait: waits for an event for at most a number of seconds and returns whether it is set.
        """
        unknown = sorted(set(verifiers) - set(KINDS))
        if unknown:
            raise ValueError(f"verifiers: want kinds of {', '.join(KINDS)}, got {', '.join(unknown)}")
        self._verifiers = dict(verifiers)
        self._way_out, self._now_ns, self._limits, self._warn = way_out, now_ns, limits, warn
        self._monotonic_s, self._wait = monotonic_s, wait
        self._guesses = Guesses(limits.guesses_max, limits.guess_pause_s, limits.guess_pause_max_s, monotonic_s)
        # Memory and the world have threads of their own, so that a provider that hangs delays no code.
        self._memory: Questions[_Answer] = Questions(monotonic_s)
        self._world: Questions[Verified | Refused] = Questions(monotonic_s)
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.adopt(store)

    @property
    def n_questions(self) -> int:
        """Questions under way, and late answers that have not been collected yet."""
        return len(self._memory) + len(self._world)

    def adopt(self, store: Store) -> None:
        """Guard the gates of a changed store from now on; questions under way continue."""
        self._gates: dict[str, Gate] = {gate.id: gate for gate in store.gate}
        self._pays_at_door = store.payment.mode == "door"

    def scan(self, request: GateRequest) -> Decision:
        """Decide about one request. Never raises: whatever fails, the way in stays closed."""
        try:
            decision = self._way_out_of(request) if request.leaving else self._way_in(request)
        except Exception as error:
            # Its message may repeat the credential, its type does not.
            decision = Decision(False, f"verifier failed: {type(error).__name__}", "Please ask the staff")
        with self._lock:
            self.counts[decision.reason] += 1
        return decision

    # ---- the way out -------------------------------------------------------------------------------------------------

    def _way_out_of(self, request: GateRequest) -> Decision:
        if request.asks == "release":
            self._report(Warning(self._now_ns(), WarningKind.DOOR_RELEASED, request.gate))
            return Decision(True, "emergency release", "Door released", released=True)
        if self._way_out is None:
            if self._pays_at_door:
                return Decision(False, "no payment at this door", "Please ask the staff")
            return Decision(True, "way out", "Goodbye")
        is_staff = request.credential_type == "staff" and "staff" in self._verifiers
        verifier = self._verifiers["staff"] if is_staff else self._way_out
        refused = next(self._token_objections(request), None)
        answer = self._checked(verifier, request, (_LEAVE, request.gate)) if refused is None else refused
        if isinstance(answer, Verified):
            return Decision(True, "opened by staff" if is_staff else "way out", answer.greeting)
        return self._closed(answer)

    # ---- the way in --------------------------------------------------------------------------------------------------

    def _way_in(self, request: GateRequest) -> Decision:
        answer: Verified | Refused | None = next(self._objections(request), None)
        if answer is None:
            answer = self._checked(self._verifiers[request.credential_type], request, ("enter",))
        if not isinstance(answer, Verified):
            return self._closed(answer)
        is_anonymous = request.credential_type == "open"
        is_usable = answer.account == "" if is_anonymous else 1 <= len(answer.account) <= ACCOUNT_MAX
        if not is_usable or looks_like_card_number(answer.account):
            return self._closed(Refused("verifier gave no usable account"))
        # The engine compares the scan with what cameras saw, so it keeps the reader's time.
        scan = GateScan(request.t_ns, request.gate, request.credential_type, answer.account)
        return Decision(True, "welcome", answer.greeting, scan)

    def _token_objections(self, request: GateRequest) -> Iterator[Refused]:
        # The length comes first, since every later check takes longer for a longer token.
        if len(request.token) > TOKEN_MAX:
            yield Refused("token too long", "Please try again")
        if looks_like_card_number(request.token):
            yield Refused("looks like a card number", "Card numbers are not accepted here")

    def _objections(self, request: GateRequest) -> Iterator[Refused]:
        """Why a request is refused before a verifier sees it; the first objection counts, so the rest may not hold."""
        yield from self._token_objections(request)
        gate, kind = self._gates.get(request.gate), request.credential_type
        if gate is None:
            yield Refused("unknown gate")
            return
        if gate.direction == "out":
            yield Refused("no way in", "Please use the entrance")
        if kind not in KINDS:
            yield Refused("unknown kind of credential")
        # An account that was verified elsewhere is accepted at every gate and not listed in the store folder.
        if kind not in ("account", *gate.credentials):
            yield Refused(f"{kind} not accepted here", "Not accepted at this gate")
        if request.t_ns < EARLIEST_NS:
            yield Refused("time is not in nanoseconds")
        if not request.token and kind != "open":
            yield Refused("no token", "Please try again")
        if kind not in self._verifiers:
            yield Refused(f"no verifier for {kind}")

    # ---- answers -----------------------------------------------------------------------------------------------------

    def _closed(self, answer: Refused) -> Decision:
        again_s = self._limits.again_s if answer.again else None
        return Decision(False, answer.reason, answer.display, again_s=again_s)

    def _checked(self, verifier: Verifier, request: GateRequest, asker: Key) -> Verified | Refused:
        """A verifier's answer, unless the reader pauses after too many guesses. asker: who may collect the answer."""
        gate, kind = request.gate, request.credential_type
        if self._guesses.pause_s(gate, kind) > 0.0:
            return Refused("too many unknown credentials", "Please wait a moment, then try again")
        answer = self._answer(verifier, request, asker)
        if isinstance(answer, Refused) and answer.guess:
            total = self._guesses.missed(gate, kind)
            if total:
                self._report(Warning(self._now_ns(), WarningKind.GUESSES, gate, credential=kind, total=total))
        return answer

    def _answer(self, verifier: Verifier, request: GateRequest, asker: Key) -> Verified | Refused:
        """What memory knows, then what the world knows, both within the deadline of this scan."""
        stamped = replace(request, t_ns=self._now_ns())
        until_s = self._monotonic_s() + self._limits.deadline_s
        key = (*asker, request.credential_type, token_digest(request.token).hex())
        question = self._world.again(key)
        if question is not None:
            # Memory has answered already, and what it verified, such as a code, may be good only once.
            return self._from_world(key, question, until_s)
        answer = verifier.verify(stamped) if verifier.instant else self._from_memory(verifier, key, stamped, until_s)
        if not isinstance(answer, AskWorld):
            return answer
        key = (*key, answer.about) if answer.about else key
        question = self._world.ask(key, request.gate, answer.ask)
        if question is None:
            return Refused("too many wait for the provider", "One moment please, then try again")
        return self._from_world(key, question, until_s)

    def _from_memory(self, verifier: Verifier, key: Key, request: GateRequest, until_s: float) -> _Answer:
        for _ in range(2):
            question = self._memory.ask(key, request.gate, lambda: verifier.verify(request))
            if question is None:
                return Refused("verifiers do not answer")
            if not self._has_answer(question, until_s):
                return self._late(self._memory, key, question, _moment("verifier too slow"))
            # Of two gates that waited for the same answer, one takes it; a code is good once.
            if not self._memory.take(key, question):
                return _TAKEN
            answer = question.result()
            # What a person carries changes while a door waits for them, so an old answer does not open it.
            is_old = request.leaving and self._memory.age_s(question) > FRESH_S
            if not (is_old and isinstance(answer, Verified)):
                return Refused("verifier gave no usable account") if answer is None else answer
        return _moment("verifier too slow")

    def _from_world(
        self, key: Key, question: Question[Verified | Refused], until_s: float
    ) -> Verified | Refused:
        if not self._has_answer(question, until_s):
            return self._late(self._world, key, question, _moment("waits for the provider"))
        if not self._world.take(key, question):
            return _TAKEN
        answer = question.result()
        return Refused("verifier gave no usable account") if answer is None else answer

    def _has_answer(self, question: Question[Any], until_s: float) -> bool:
        return self._wait(question.done, max(until_s - self._monotonic_s(), 0.0)) and question.has_answer

    def _late(self, questions: Questions[Any], key: Key, question: Question[Any], moment: Refused) -> Refused:
        """What a gate answers while an answer is missing: to wait, until the longer deadline has passed."""
        if questions.age_s(question) < self._limits.deadline_world_s:
            return moment
        questions.take(key, question)
        # Who stands outside goes away. Who stands at a door that opens after payment cannot, so it asks again.
        return Refused("no answer in time", again=key[0] == _LEAVE)

    def _report(self, warning: Warning) -> None:
        try:
            self._warn(warning)
        except Exception as error:
            # A door must open even where its alarm cannot be written; the count shows it.
            with self._lock:
                self.counts[f"warning failed: {type(error).__name__}"] += 1


def _moment(reason: str) -> Refused:
    """The answer is not there yet."""
    return Refused(reason, "One moment please", again=True)
