"""The gate: somebody shows a credential, the gate opens or says why not.

A reader sends what it read as a `GateRequest`; `GateKeeper.scan` answers with a `Decision`, whose `scan`, if any, is
the observation that the engine binds to the person who crosses the gate's line next. What a credential proves is asked
of a verifier, one for each kind of credential. When a verifier fails, the way in stays closed and the way out opens.

Card numbers have no place here: terminals give payment tokens. Whatever looks like a card number is refused before any
verifier sees it, and neither a decision, nor a counter, nor an exception repeats any part of a credential.
"""

from __future__ import annotations

import hashlib
import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fusion.observations import EARLIEST_NS, GateScan
from fusion.store.models import Gate, Store

# A signed code of some two hundred characters is usual; ten times that is not a credential.
TOKEN_MAX = 2000
ACCOUNT_MAX = 255
# People take a gate that needs longer than this for a broken one.
DEADLINE_S = 0.05
# How long an answer that came too late waits for its credential to be shown again; in data time.
KEPT_S = 30.0
# Verifiers that are being asked at once; more means that they hang, and threads are not free.
QUESTIONS_MAX = 32

# Payment card numbers have 12 to 19 digits. Source: ISO/IEC 7812-1.
_CARD_DIGITS = range(12, 20)
# Digits with at most a few blanks or dashes between them, as people write card numbers.
_DIGIT_RUN = re.compile(r"\d(?:[\s\-]{0,3}\d){11,}")
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-")

KINDS = ("qr", "card", "face", "staff", "open", "account")


@dataclass(frozen=True, slots=True)
class GateRequest:
    """What a reader at a gate read.

    Attributes:
        t_ns: when, UTC nanoseconds.
        gate: id of the gate in store.toml.
        credential_type: qr, card, face, staff, open, or account where the caller has verified the account already.
        token: what was read; empty for open. Never shown by repr.
        leaving: somebody inside asks to go out. Nobody needs a credential for that.
    """

    t_ns: int
    gate: str
    credential_type: str
    token: str = field(default="", repr=False)
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Verified:
    """A credential is good: whose it is, and what the gate's screen says to them.

    `token` is what the payment provider calls their means of payment, `email` where receipts go; where known.
    """

    account: str = field(repr=False)
    greeting: str = field(default="Welcome", repr=False)
    token: str | None = field(default=None, repr=False)
    email: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """A credential is not good. `reason` is for the log, `display` for the person; neither repeats the credential."""

    reason: str
    display: str = "Please ask the staff"


class Verifier(Protocol):
    """Says whether a credential of one kind is good. May raise: the gate then stays closed for those who come in.

    May be slow, and is asked from several threads at once. One that answers from memory alone may say so by an
    attribute `instant = True`; it then works even while all others hang.
    """

    def verify(self, request: GateRequest) -> Verified | Refused: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate does.

    Attributes:
        open: whether it opens.
        reason: one short phrase from a fixed set or from the verifier, fit for counting.
        display: what the screen shows.
        scan: what the engine is told; None where nobody comes in.
    """

    open: bool
    reason: str
    display: str
    scan: GateScan | None = None


class StaffList:
    """Tokens that let staff in."""

    instant = True

    def __init__(self, tokens: Collection[str]) -> None:
        self._tokens = frozenset(tokens)

    def verify(self, request: GateRequest) -> Verified | Refused:
        if request.token not in self._tokens:
            return Refused("not on the staff list")
        return Verified(request.token, "Staff")


class NotYetPublic:
    """Lets in only some accounts until an instant, as in a pilot for employees; everybody from then on."""

    def __init__(self, verifier: Verifier, accounts: Collection[str], until_ns: int) -> None:
        self._verifier, self._accounts, self._until_ns = verifier, frozenset(accounts), until_ns

    def verify(self, request: GateRequest) -> Verified | Refused:
        answer = self._verifier.verify(request)
        early = request.t_ns < self._until_ns
        if isinstance(answer, Verified) and early and answer.account not in self._accounts:
            return Refused("not open to the public yet", "We open to everybody soon")
        return answer


class OpenDoor:
    """Lets everybody in who asks, without an account."""

    instant = True

    def verify(self, request: GateRequest) -> Verified | Refused:
        return Verified("")


class VerifiedAccounts:
    """Trusts the caller that the token is an account which was verified before, as in recordings.

    Not for a reader that customers can reach: whoever knows an account's name would come in on it.
    """

    instant = True

    def verify(self, request: GateRequest) -> Verified | Refused:
        return Verified(request.token)


def looks_like_card_number(text: str) -> bool:
    """Whether 12 to 19 digits with a valid check digit stand in a text, in whatever digits and with blanks or dashes.

    A payment card number always answers True; one in ten of other numbers of this length does, too.
    """
    plain = unicodedata.normalize("NFKC", text).translate(_DASHES)
    # Characters without width hide nothing from somebody who reads the number back.
    plain = "".join(c for c in plain if unicodedata.category(c) != "Cf")
    for run in _DIGIT_RUN.finditer(plain):
        groups = ["".join(str(unicodedata.digit(d)) for d in part) for part in re.findall(r"\d+", run[0])]
        # The number may stand between others, such as an expiry date: any neighbouring groups together.
        for first in range(len(groups)):
            digits = ""
            for group in groups[first:]:
                digits += group
                if len(digits) > _CARD_DIGITS.stop:
                    break
                if len(digits) in _CARD_DIGITS and _luhn(digits):
                    return True
    return False


def _luhn(digits: str) -> bool:
    """Luhn's check. Source: ISO/IEC 7812-1, annex B."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


_TOO_SLOW = Refused("verifier too slow", "One moment please, then try again")
_BUSY = Refused("verifiers do not answer")


@dataclass(frozen=True)
class _Question:
    """A verifier that is being asked, in a thread of its own."""

    asked_ns: int
    answered: threading.Event = field(default_factory=threading.Event)
    answers: list[Verified | Refused | Exception] = field(default_factory=list)


class GateKeeper:
    """Decides at all gates of one store, each time within a deadline. May be asked from several threads.

    A verifier that takes longer goes on by itself, while the gate asks for a moment's patience; its answer serves
    the next time the same credential is shown. Verifiers keep what they need, the keeper only counts.

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
    ) -> None:
        """Make a keeper.

        Args:
            store: whose gates, and which credentials each of them accepts.
            verifiers: by credential type. A type without a verifier is refused, whatever the store says.
            way_out: for doors that open when it is paid: says whether they may, asked for each request to leave.
                Without it the way out is always open, and it opens too when this fails or takes too long.
            deadline_s: how long a verifier may take.
        """
        unknown = sorted(set(verifiers) - set(KINDS))
        if unknown:
            raise ValueError(f"verifiers: want kinds of {', '.join(KINDS)}, got {', '.join(unknown)}")
        self._gates: dict[str, Gate] = {gate.id: gate for gate in store.gate}
        self._verifiers = dict(verifiers)
        self._way_out, self._deadline_s = way_out, deadline_s
        self._lock = threading.Lock()
        self._questions: dict[tuple[str, bytes], _Question] = {}
        self.counts: Counter[str] = Counter()

    def scan(self, request: GateRequest) -> Decision:
        """Decide about one request. Never raises: whatever goes wrong, the way in closes and the way out opens."""
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
                answer = self._asked(self._way_out, request)
        except Exception as error:
            return Decision(True, f"way out, unchecked: {type(error).__name__}", "Goodbye")
        if answer in (_TOO_SLOW, _BUSY):
            # Nobody is locked in by a machine that does not answer.
            return Decision(True, "way out, unchecked: no answer", "Goodbye")
        if isinstance(answer, Refused):
            return Decision(False, answer.reason, answer.display)
        return Decision(True, "way out", answer.greeting)

    def _asked(self, verifier: Verifier, request: GateRequest) -> Verified | Refused:
        """What a verifier says, if it says so in time."""
        if getattr(verifier, "instant", False):
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
        if not question.answered.wait(self._deadline_s):
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
        """Drop answers that nobody came back for. Questions without an answer stay, as their threads do."""
        for key, question in list(self._questions.items()):
            if question.asked_ns < t_ns and question.answered.is_set():
                del self._questions[key]

    def _entry(self, request: GateRequest) -> Decision:
        # First of all, since everything after it takes the longer the longer the token is.
        if len(request.token) > TOKEN_MAX:
            return Decision(False, "token too long", "Please try again")
        if looks_like_card_number(request.token):
            return Decision(False, "looks like a card number", "Card numbers are not accepted here")
        gate = self._gates.get(request.gate)
        if gate is None:
            return Decision(False, "unknown gate", "Please ask the staff")
        if gate.direction == "out":
            return Decision(False, "no way in", "Please use the entrance")
        if request.credential_type not in KINDS:
            return Decision(False, "unknown kind of credential", "Please ask the staff")
        # An account that was verified elsewhere is accepted at every gate and not listed in the store folder.
        if request.credential_type != "account" and request.credential_type not in gate.credentials:
            return Decision(False, f"{request.credential_type} not accepted here", "Not accepted at this gate")
        if request.t_ns < EARLIEST_NS:
            return Decision(False, "time is not in nanoseconds", "Please ask the staff")
        if not request.token and request.credential_type != "open":
            return Decision(False, "no token", "Please try again")
        verifier = self._verifiers.get(request.credential_type)
        if verifier is None:
            return Decision(False, f"no verifier for {request.credential_type}", "Please ask the staff")
        answer = self._asked(verifier, request)
        if isinstance(answer, Refused):
            return Decision(False, answer.reason, answer.display)
        anonymous = request.credential_type == "open"
        usable = answer.account == "" if anonymous else 1 <= len(answer.account) <= ACCOUNT_MAX
        if not usable or looks_like_card_number(answer.account):
            return Decision(False, "verifier gave no usable account", "Please ask the staff")
        scan = GateScan(request.t_ns, request.gate, request.credential_type, answer.account)
        return Decision(True, "welcome", answer.greeting, scan)


def _ask(verifier: Verifier, request: GateRequest, question: _Question) -> None:
    try:
        question.answers.append(verifier.verify(request))
    except Exception as error:
        question.answers.append(error)
    finally:
        question.answered.set()
