"""The gate keeper: a person shows a credential, the gate opens or says why not.

A reader sends what it read as a `GateRequest`; `GateKeeper.scan` answers with a `Decision`, whose `scan`, if any, is
the observation that the engine binds to the person who crosses the gate's line next. A verifier per kind of credential
decides what a credential proves. When a verifier fails, the way in stays closed and the way out opens.

Text that looks like a card number is refused before any verifier sees it, and neither a decision, nor a counter, nor an
exception repeats any part of a credential.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from fusion.gates.cards import looks_like_card_number
from fusion.gates.verifiers import GateRequest, Refused, Verified, Verifier
from fusion.observations import EARLIEST_NS, GateScan
from fusion.store.models import Gate, Store

# A signed code of some two hundred characters is usual; ten times that is not a credential.
TOKEN_MAX = 2000
ACCOUNT_MAX = 255
# People take a gate that needs longer than this for a broken one.
DEADLINE_S = 0.05
# How long an answer that came too late waits for its credential to be shown again; in data time.
KEPT_S = 30.0
# Verifiers that are asked at once; more means that they hang, and threads are not free.
QUESTIONS_MAX = 32

KINDS = ("qr", "card", "face", "staff", "open", "account")


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate does.

    Attributes:
        open: whether it opens.
        reason: one short phrase from a fixed set or from the verifier, fit for counting.
        display: text for the gate's screen.
        scan: observation for the engine; None where no person comes in.
    """

    open: bool
    reason: str
    display: str
    scan: GateScan | None = None


_TOO_SLOW = Refused("verifier too slow", "One moment please, then try again")
_BUSY = Refused("verifiers do not answer")


@dataclass(frozen=True)
class _Question:
    """A verifier that is being asked, in a thread of its own."""

    asked_ns: int
    answered: threading.Event = field(default_factory=threading.Event)
    answers: list[Verified | Refused | Exception] = field(default_factory=list)


class GateKeeper:
    """Decides at all gates of one store, each time within a deadline. May be called from several threads.

    A verifier that takes longer continues in the background, while the gate asks for a moment's patience; its answer
    serves the next time the same credential is shown. The keeper itself stores nothing but counts.

    Attributes:
        counts: decisions so far, by reason.
    """

    def __init__(
        self,
        store: Store,
        verifiers: Mapping[str, Verifier],
        *,
        way_out: Verifier | None = None,
        deadline_s: float = DEADLINE_S,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        """Guard the gates of a store.

        Args:
            store: names the gates, and the credentials that each of them accepts.
            verifiers: by credential type. A type without a verifier is refused, whatever the store says.
            way_out: for doors that open only after payment: decides about each request to leave. Without it the way out
                is always open, and it opens too when this verifier fails or takes too long.
            deadline_s: how long a verifier may take, on the machine's clock.
            wait: waits for an event for at most a number of seconds and returns whether it is set.
        """
        unknown = sorted(set(verifiers) - set(KINDS))
        if unknown:
            raise ValueError(f"verifiers: want kinds of {', '.join(KINDS)}, got {', '.join(unknown)}")
        self._gates: dict[str, Gate] = {gate.id: gate for gate in store.gate}
        self._verifiers = dict(verifiers)
        self._way_out, self._deadline_s, self._wait = way_out, deadline_s, wait
        self._lock = threading.Lock()
        self._questions: dict[tuple[str, bytes], _Question] = {}
        self.counts: Counter[str] = Counter()

    @property
    def n_questions(self) -> int:
        """Verifiers that are being asked, and late answers that have not been collected yet."""
        return len(self._questions)

    def scan(self, request: GateRequest) -> Decision:
        """Decide about one request. Never raises: whatever fails, the way in closes and the way out opens."""
        if request.leaving:
            decision = self._exit(request)
        else:
            try:
                decision = self._entry(request)
            except Exception as error:
                # Its message may repeat the credential, its type does not.
                decision = Decision(False, f"verifier failed: {type(error).__name__}", "Please ask the staff")
        with self._lock:
            self.counts[decision.reason] += 1
        return decision

    def _exit(self, request: GateRequest) -> Decision:
        answer: Verified | Refused = Verified("", "Goodbye")
        try:
            if self._way_out is not None:
                answer = self._answer(self._way_out, request)
        except Exception as error:
            return Decision(True, f"way out, unchecked: {type(error).__name__}", "Goodbye")
        if answer in (_TOO_SLOW, _BUSY):
            # A machine that does not answer must not lock people in.
            return Decision(True, "way out, unchecked: no answer", "Goodbye")
        if isinstance(answer, Refused):
            return Decision(False, answer.reason, answer.display)
        return Decision(True, "way out", answer.greeting)

    def _entry(self, request: GateRequest) -> Decision:
        refused = next(self._objections(request), None)
        if refused is None:
            answer = self._answer(self._verifiers[request.credential_type], request)
            if isinstance(answer, Verified):
                is_anonymous = request.credential_type == "open"
                is_usable = answer.account == "" if is_anonymous else 1 <= len(answer.account) <= ACCOUNT_MAX
                if is_usable and not looks_like_card_number(answer.account):
                    scan = GateScan(request.t_ns, request.gate, request.credential_type, answer.account)
                    return Decision(True, "welcome", answer.greeting, scan)
                answer = Refused("verifier gave no usable account")
            refused = answer
        return Decision(False, refused.reason, refused.display)

    def _objections(self, request: GateRequest) -> Iterator[Refused]:
        """Why a request is refused before a verifier sees it; the first objection counts, so the rest may not hold."""
        # The length comes first, since every later check takes longer for a longer token.
        if len(request.token) > TOKEN_MAX:
            yield Refused("token too long", "Please try again")
        if looks_like_card_number(request.token):
            yield Refused("looks like a card number", "Card numbers are not accepted here")
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

    def _answer(self, verifier: Verifier, request: GateRequest) -> Verified | Refused:
        """The verifier's answer, if it comes in time."""
        if verifier.instant:
            return verifier.verify(request)
        key = request.credential_type, hashlib.sha256(request.token.encode("utf-8", "replace")).digest()
        with self._lock:
            question = self._questions.get(key)
            if question is None:
                self._forget_before(request.t_ns - round(KEPT_S * 1e9))
                if len(self._questions) >= QUESTIONS_MAX:
                    return _BUSY
                question = self._questions[key] = _Question(request.t_ns)
                threading.Thread(target=_ask, args=(verifier, request, question), daemon=True).start()
        if not self._wait(question.answered, self._deadline_s):
            return _TOO_SLOW
        with self._lock:
            # Of two gates that waited for the same answer, one takes it; a code is good once.
            if self._questions.pop(key, None) is not question:
                return Refused("answer was taken at another gate", "Please try again")
        (answer,) = question.answers
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _forget_before(self, t_ns: int) -> None:
        """Drop old answers that were not collected. Questions without an answer stay, as their threads do."""
        for key, question in list(self._questions.items()):
            if question.asked_ns < t_ns and question.answered.is_set():
                del self._questions[key]


def _ask(verifier: Verifier, request: GateRequest, question: _Question) -> None:
    try:
        question.answers.append(verifier.verify(request))
    except Exception as error:
        question.answers.append(error)
    finally:
        question.answered.set()
