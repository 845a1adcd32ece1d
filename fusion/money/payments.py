"""Money from the customer: authorised, captured once, the rest released; refunds and corrections by reversal.

A payment provider is a small protocol. Every step of a visit's payment is written into the ledger before the provider
is asked ("payment asked"), and its answer after that. The key of a step follows from the visit and the number of the
step alone, and a provider gives the same answer to the same key, so a crash at any point, or an answer that never
came, leads to the same question again and never to a second charge.

Money that is authorised is a promise, not a payment: it stands on a pair of memorandum accounts until it is captured or
released. What a visit owes stands on `receivable`, what the provider owes the store on `provider`.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from fusion.errors import FusionError, IdempotencyConflict
from fusion.money.ledger import Decided, Discount, Entry, Ledger, Posting, Standing
from fusion.results import Reason, ReasonKind, Receipt, ReceiptLine
from fusion.store.models import Store

# Steps of one visit's payment in one go; far more than any honest course takes.
STEPS_MAX = 50
# An authorisation at the gate is given back when nobody came in on it: four times as long as a scan is good for.
UNUSED_S = 120.0
ANSWER_MAX_BYTES = 100_000

Step = Literal["authorise", "capture", "release", "refund"]
_DONE = {"authorise": "authorised", "capture": "captured", "release": "released", "refund": "refunded"}


class PaymentError(FusionError):
    """The provider does not understand what it was asked; asking again would not help. No money moved."""


class UnknownOutcome(FusionError):
    """No answer came: the provider may have done what it was asked, or not. The same key asks safely again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider says. `reference` is its name for what it did, `reason` why it declined."""

    approved: bool
    reference: str = ""
    reason: str = ""


class Provider(Protocol):
    """Moves money. The same key with the same contents gives the same answer, however often it is asked.

    Amounts are integer minor units. Every method may raise UnknownOutcome, or PaymentError.
    """

    def authorise(self, key: str, token: str, amount: int, currency: str) -> Answer:
        """Promise up to an amount from whoever the token stands for."""
        ...

    def capture(self, key: str, authorisation: str, amount: int) -> Answer:
        """Take an amount, at most what was authorised; the rest stays promised until it is released."""
        ...

    def release(self, key: str, authorisation: str) -> Answer:
        """Give up what is left of a promise."""
        ...

    def refund(self, key: str, capture: str, amount: int) -> Answer:
        """Give back an amount, at most what was captured."""
        ...


@dataclass(frozen=True, slots=True)
class Payment:
    """How far a visit's payment is.

    Attributes:
        status: "open" (nothing to pay yet), "review" (waits for a person), "pending" (a provider's answer is missing;
            `Checkout.settle` asks again), "paid", "unpaid" (declined, or no means of payment known), or "owing" (a
            refund was declined; a person has to give the money back another way).
        due: what the visit costs, minor units; None while open or in review.
        paid: captured less refunded.
        authorised: promised and neither captured nor released.
        reason: why the last step was declined.
    """

    visit: str
    status: str
    due: int | None
    paid: int
    authorised: int
    reason: str = ""


@dataclass
class _Course:
    """What the ledger says about one subject's payment so far.

    Attributes:
        n_steps: steps asked for; the number of the last one.
        pending: what the last one asked, while its answer is missing.
        asked_ns: when that was.
        holds: by the provider's reference, what is promised and left.
        captures: by reference, captured less refunded.
        final: captures that the provider refuses to refund.
        declined: reason, if something was declined since the price was last set or a person asked to try again.
    """

    n_steps: int = 0
    n_retries: int = 0
    pending: dict[str, Any] | None = None
    asked_ns: int = 0
    holds: dict[str, int] = field(default_factory=dict)
    captures: dict[str, int] = field(default_factory=dict)
    final: set[str] = field(default_factory=set)
    declined: str | None = None

    @property
    def paid(self) -> int:
        return sum(self.captures.values())

    @property
    def authorised(self) -> int:
        return sum(self.holds.values())

    def covers(self, amount: int) -> bool:
        """Whether one promise is enough for an amount."""
        return max(self.holds.values(), default=0) >= amount

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> _Course:
        course = cls()
        for entry in entries:
            said = entry.request
            if entry.kind == "payment asked":
                course.n_steps += 1
                course.pending, course.asked_ns = dict(said), entry.t_ns
            elif entry.kind == "authorisation taken over":
                course.holds[said["reference"]] = said["amount"]
            elif entry.kind == "authorisation handed over":
                del course.holds[said["reference"]]
            elif entry.kind == "payment to be tried again":
                course.n_retries += 1
                course.declined = None
            elif entry.kind.startswith("decision "):
                course.declined = None
            elif entry.kind == "payment declined" or entry.kind in _DONE.values():
                course._answered(said)
        return course

    def _answered(self, said: Any) -> None:
        asked, self.pending = self.pending, None
        assert asked is not None
        step: Step = asked["step"]
        of: str = asked.get("of", "")
        amount: int = asked.get("amount", 0)
        if not said["approved"]:
            self.declined = said["reason"] or "declined"
            if step == "refund":
                self.final.add(of)
            elif step in ("capture", "release"):
                self.holds.pop(of)  # the promise is void
        elif step == "authorise":
            self.holds[said["reference"]] = amount
            self.declined = None
        elif step == "capture":
            self.captures[said["reference"]] = amount
            self.holds[of] -= amount
            if not self.holds[of]:
                del self.holds[of]
        elif step == "release":
            del self.holds[of]
        else:
            self.captures[of] -= amount


class Checkout:
    """Takes the money for one store's visits. Several threads and processes may do so for the same books.

    How a store takes money stands in its `[payment]`: on leaving, after an authorisation at the entry, in a payment
    zone, or before the way out opens. All but the first authorise before the goods leave; money itself moves once the
    bill is final.
    """

    def __init__(self, ledger: Ledger, provider: Provider, store: Store) -> None:
        self._ledger, self._provider, self._store = ledger, provider, store

    # ---- from the door to the bill -----------------------------------------------------------------------------------

    def admit(self, pseudonym: str, t_ns: int) -> Payment:
        """Authorise `payment.authorise` before somebody comes in; without such a policy nothing is asked.

        The means of payment is the one that the ledger's vault holds for the pseudonym. Saying it again is harmless.

        Returns a payment that is "open" where they may come in, else "unpaid" or "pending".
        """
        amount = self._store.payment.authorise if self._store.payment.mode == "enter" else 0
        if not amount:
            return Payment(pseudonym, "open", None, 0, 0)
        course = self._course(pseudonym)
        if course.n_steps == 0 or (course.declined is not None and course.pending is None):
            course = self._ask(pseudonym, course, {"step": "authorise", "amount": amount}, t_ns)
        elif course.pending is not None:
            course = self._ask(pseudonym, course, course.pending, t_ns)
        state = self.state(pseudonym)
        return replace(state, status="unpaid") if state.status == "open" and course.declined is not None else state

    def open_visit(self, visit: str, pseudonym: str | None, enter_ns: int) -> bool:
        """Note that a visit began, as `Ledger.open_visit`, and let it have what was authorised at the gate."""
        with self._ledger.batch():
            is_new = self._ledger.open_visit(visit, pseudonym, enter_ns)
            holds = {} if pseudonym is None else self._course(pseudonym).holds
            for reference, amount in holds.items():
                moved, name = {"reference": reference, "amount": amount}, f"authorisation {reference}"
                for subject, kind, sign in ((pseudonym, "handed", -1), (visit, "taken", 1)):
                    kind = f"authorisation {kind} over"
                    self._ledger.record(subject or "", name, kind, enter_ns, moved, self._promise(sign * amount))
        return is_new

    def confirm(self, visit: str, amount: int, t_ns: int) -> bool:
        """The customer confirms a basket, in the payment zone or at the door: authorise its price.

        Returns whether they may leave. What was declined or had no answer is asked again by confirming again.
        """
        course = self._course(visit)
        if course.pending is not None:
            course = self._ask(visit, course, course.pending, t_ns)
        if course.pending is None and not course.covers(amount):
            course = self._retried(visit, course, t_ns)
            # One promise for everything, so that it is captured at once; a smaller one is released after that.
            course = self._ask(visit, course, {"step": "authorise", "amount": amount}, t_ns)
        return course.covers(amount)

    def receipt(self, receipt: Receipt, discounts: Sequence[Discount] = ()) -> Payment:
        """Post a receipt, as `Ledger.post_receipt`, and settle it; one in review leaves the money where it is."""
        self._ledger.post_receipt(receipt, discounts)
        return self.settle(receipt.visit, receipt.issued_ns)

    def decide(
        self,
        visit: str,
        decision: Decided,
        *,
        by: str,
        t_ns: int,
        revision: int = 1,
        lines: Sequence[ReceiptLine] | None = None,
        discounts: Sequence[Discount] = (),
        note: str = "",
    ) -> Payment:
        """Post a person's decision, as `Ledger.decide`, and settle what it changes."""
        self._ledger.decide(
            visit, decision, by=by, t_ns=t_ns, revision=revision, lines=lines, discounts=discounts, note=note
        )
        return self.settle(visit, t_ns)

    # ---- settling ----------------------------------------------------------------------------------------------------

    def settle(self, visit: str, t_ns: int) -> Payment:
        """Do whatever is left to do for a visit: capture what is due, refund what is too much, release the rest.

        What was declined is not tried again before the price changes; see `collect`.

        Raises:
            LedgerError: the books cannot be written. Settling later goes on where this stopped.
            PaymentError: the provider does not understand; nothing is known to have moved.
        """
        for _ in range(STEPS_MAX):
            course = self._course(visit)
            request = course.pending or self._next(course, self._ledger.standing(visit))
            if request is None or self._ask(visit, course, request, t_ns).pending is not None:
                break
        return self.state(visit)

    def collect(self, visit: str, t_ns: int) -> Payment:
        """Try again what was declined, because a person says so."""
        self._retried(visit, self._course(visit), t_ns)
        return self.settle(visit, t_ns)

    def recover(self, t_ns: int, *, restarted: bool = False) -> list[Payment]:
        """Finish what a crash, a lost connection or a provider without answer left behind.

        Asks again every question without an answer, settles whatever has a price and is not paid, and gives back
        authorisations that nobody came in on.

        Args:
            restarted: the engine that followed the open visits is gone, so they go to review too.
        """
        if restarted:
            self._ledger.review_open_visits(t_ns, Reason(ReasonKind.RESTARTED))
        subjects = dict.fromkeys(
            [
                *(entry.visit for entry in self._ledger.unanswered("payment asked")),
                *self._ledger.balances_of("receivable"),
                *self._ledger.balances_of("authorised"),
            ]
        )
        states = []
        for subject in subjects:
            try:
                if self._ledger.standing(subject) is not None:
                    self.settle(subject, t_ns)
                else:
                    self._give_back(subject, t_ns)
            except PaymentError as error:
                # The others go on; this one is a fault of the program or of the provider and says so.
                states.append(replace(self.state(subject), reason=str(error)))
            else:
                states.append(self.state(subject))
        return states

    def _give_back(self, pseudonym: str, t_ns: int) -> None:
        """Finish what was asked for at the gate, and release it once it is clear that nobody came in on it."""
        course = self._course(pseudonym)
        if course.pending is not None:
            course = self._ask(pseudonym, course, course.pending, t_ns)
        if t_ns - course.asked_ns >= UNUSED_S * 1e9:
            for reference in list(course.holds):
                if course.pending is None:
                    course = self._ask(pseudonym, course, {"step": "release", "of": reference}, t_ns)

    def state(self, visit: str) -> Payment:
        """How far a visit's payment is, asking nobody."""
        course, standing = self._course(visit), self._ledger.standing(visit)
        due = None if standing is None or standing.status in ("open", "review") else standing.total
        if course.pending is not None:
            status = "pending"
        elif due is None:
            status = "open" if standing is None else standing.status
        elif course.paid > due:
            status = "owing"
        else:
            status = "paid" if course.paid == due else "unpaid"
        return Payment(visit, status, due, course.paid, course.authorised, course.declined or "")

    def _next(self, course: _Course, standing: Standing | None) -> dict[str, Any] | None:
        """What to ask next; None where nothing is left to ask."""
        if standing is None or standing.status in ("open", "review"):
            return None
        owed = standing.total - course.paid
        if owed < 0:
            for reference, left in reversed(course.captures.items()):
                if left and reference not in course.final:
                    return {"step": "refund", "of": reference, "amount": min(left, -owed)}
        if owed > 0:
            largest = max(course.holds, key=lambda reference: course.holds[reference], default=None)
            if largest is not None and (course.holds[largest] >= owed or course.declined is not None):
                # Of a promise that is too small, and none to be had for the rest, better this much than nothing.
                return {"step": "capture", "of": largest, "amount": min(course.holds[largest], owed)}
            if course.declined is None and self._token(standing.visit) is not None:
                # One promise for everything, so that it is captured at once; the smaller one is released after that.
                return {"step": "authorise", "amount": owed}
        for reference in course.holds:
            return {"step": "release", "of": reference}
        return None

    def _course(self, subject: str) -> _Course:
        return _Course.of(self._ledger.entries(subject))

    def _token(self, subject: str) -> str | None:
        """Means of payment of a visit's customer, or of a pseudonym itself."""
        standing = self._ledger.standing(subject)
        pseudonym = subject if standing is None else standing.account
        holder = None if pseudonym is None else self._ledger.holder(pseudonym)
        return None if holder is None else holder.token

    def _retried(self, visit: str, course: _Course, t_ns: int) -> _Course:
        if course.declined is not None:
            self._ledger.record(visit, f"retry {course.n_retries + 1}", "payment to be tried again", t_ns, {})
        return self._course(visit)

    def _ask(self, subject: str, course: _Course, request: dict[str, Any], t_ns: int) -> _Course:
        """Take one step, or take it again: note it, ask the provider, note the answer. Returns the course after it."""
        try:
            if course.pending is None:
                number, asked_ns = course.n_steps + 1, t_ns
                self._ledger.record(subject, f"payment {number}", "payment asked", asked_ns, request)
            else:
                number, asked_ns = course.n_steps, course.asked_ns
            answer = self._asked(f"{self._store.id}/{subject}/{number}", subject, request)
        except (UnknownOutcome, IdempotencyConflict):
            # Of a conflict: another process takes a step at another time; what it did is in the books.
            return self._course(subject)
        kind = _DONE[request["step"]] if answer.approved else "payment declined"
        said = {"approved": answer.approved, "reference": answer.reference, "reason": answer.reason}
        postings = self._postings(course, request, answer.approved)
        # The answer counts from when it was asked for: two processes that both asked say the same.
        self._ledger.record(subject, f"payment {number}/answer", kind, asked_ns, said, postings)
        return self._course(subject)

    def _asked(self, key: str, subject: str, request: dict[str, Any]) -> Answer:
        match request["step"]:
            case "authorise":
                token = self._token(subject)
                if token is None:
                    # Forgotten meanwhile. Whatever was promised runs out at the provider by itself.
                    return Answer(False, reason="means of payment is not known")
                return self._provider.authorise(key, token, request["amount"], self._store.currency)
            case "capture":
                return self._provider.capture(key, request["of"], request["amount"])
            case "refund":
                return self._provider.refund(key, request["of"], request["amount"])
            case _:
                return self._provider.release(key, request["of"])

    def _postings(self, course: _Course, request: dict[str, Any], approved: bool) -> tuple[Posting, ...]:
        step, amount, currency = request["step"], request.get("amount", 0), self._store.currency
        if step == "authorise":
            return self._promise(amount if approved else 0)
        if step == "capture" and approved:
            paid = (Posting("provider", currency, amount), Posting("receivable", currency, -amount))
            return (*paid, *self._promise(-amount))
        if step == "refund":
            back = (Posting("receivable", currency, amount), Posting("provider", currency, -amount))
            return back if approved else ()
        return self._promise(-course.holds[request["of"]])

    def _promise(self, amount: int) -> tuple[Posting, ...]:
        currency = self._store.currency
        legs = (Posting("authorised", currency, amount), Posting("authorised, contra", currency, -amount))
        return legs if amount else ()


# ---- providers -------------------------------------------------------------------------------------------------------

Fault = Literal["decline", "lost before", "lost after"]


class SeededFaults:
    """Faults by chance, the same ones for the same seed and order of calls.

    Args:
        decline: share of authorisations that are declined.
        lost_before: share of calls that never arrive.
        lost_after: share of calls that do their work and whose answer never arrives.
    """

    def __init__(self, seed: int, decline: float = 0.0, lost_before: float = 0.0, lost_after: float = 0.0) -> None:
        self._random = random.Random(seed)
        self._decline, self._lost = decline, (lost_before, lost_after)

    def __call__(self, step: Step, key: str) -> Fault | None:
        chance = self._random.random()
        before, after = self._lost
        if chance < before:
            return "lost before"
        if chance < before + after:
            return "lost after"
        return "decline" if step == "authorise" and chance < before + after + self._decline else None


class InProcessProvider:
    """A provider for tests and examples: keeps its own book, so that both sides can be compared.

    Attributes:
        taken: by authorisation, captured so far less refunded.
        n_captures: by authorisation, how often money was taken.
    """

    def __init__(self, faults: Callable[[Step, str], Fault | None] = lambda step, key: None) -> None:
        self._faults: Callable[[Step, str], Fault | None] = faults
        self._lock = threading.Lock()
        self._answers: dict[str, tuple[tuple[Any, ...], Answer]] = {}
        self._left: dict[str, int] = {}
        self._refundable: dict[str, int] = {}
        self._captured_from: dict[str, str] = {}
        self.taken: dict[str, int] = {}
        self.n_captures: dict[str, int] = {}

    def recovered(self) -> None:
        """From now on nothing goes wrong any more."""
        self._faults = lambda step, key: None

    @property
    def total(self) -> int:
        """Everything taken and not refunded."""
        return sum(self.taken.values())

    @property
    def held(self) -> int:
        """Everything promised and neither taken nor released."""
        return sum(self._left.values())

    def authorise(self, key: str, token: str, amount: int, currency: str) -> Answer:
        return self._once("authorise", key, (token, amount, currency))

    def capture(self, key: str, authorisation: str, amount: int) -> Answer:
        return self._once("capture", key, (authorisation, amount))

    def release(self, key: str, authorisation: str) -> Answer:
        return self._once("release", key, (authorisation,))

    def refund(self, key: str, capture: str, amount: int) -> Answer:
        return self._once("refund", key, (capture, amount))

    def _once(self, step: Step, key: str, request: tuple[Any, ...]) -> Answer:
        with self._lock:
            fault = self._faults(step, key)
            if fault == "lost before":
                raise UnknownOutcome("no answer")
            known = self._answers.get(key)
            if known is None:
                answer = self._declined("insufficient funds") if fault == "decline" else self._do(step, key, request)
                known = self._answers[key] = (step, *request), answer
            if known[0] != (step, *request):
                raise PaymentError(f"{key!r}: asked before with other contents")
            if fault == "lost after":
                raise UnknownOutcome("no answer")
            return known[1]

    def _do(self, step: Step, key: str, request: tuple[Any, ...]) -> Answer:
        reference = f"{step[:4]}-{len(self._answers) + 1}"
        if step == "authorise":
            if request[1] <= 0:
                raise PaymentError(f"amount: want more than 0, got {request[1]}")
            self._left[reference] = request[1]
            return Answer(True, reference)
        if step == "refund":
            capture, amount = request
            if not 0 < amount <= self._refundable.get(capture, 0):
                return self._declined("more than was captured")
            self._refundable[capture] -= amount
            self.taken[self._captured_from[capture]] -= amount
            return Answer(True, reference)
        authorisation = request[0]
        left = self._left.get(authorisation, 0)
        if step == "release":
            self._left.pop(authorisation, None)
            return Answer(True, reference)
        if not 0 < request[1] <= left:
            return self._declined("more than was authorised")
        self._left[authorisation] = left - request[1]
        self._refundable[reference] = request[1]
        self._captured_from[reference] = authorisation
        self.taken[authorisation] = self.taken.get(authorisation, 0) + request[1]
        self.n_captures[authorisation] = self.n_captures.get(authorisation, 0) + 1
        return Answer(True, reference)

    @staticmethod
    def _declined(reason: str) -> Answer:
        return Answer(False, reason=reason)


class HttpProvider:
    """A provider behind HTTP: POST /authorise, /capture, /release, /refund with a JSON body.

    The key travels as `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header), the secret as bearer token. 200
    carries `{"approved": true, "reference": ...}` or `{"approved": false, "reason": ...}`; 402 is a decline, too. Other
    4xx are a PaymentError. No answer in time, a broken connection, 409 (still under way), 429, 5xx and answers that
    make no sense are an UnknownOutcome, after a few tries with the same key.
    """

    def __init__(self, url: str, secret: str, *, timeout_s: float = 10.0, tries: int = 3) -> None:
        """Make a provider; connects only when asked.

        Raises:
            ValueError: the URL is not http or https, or plain http to another machine.
        """
        parts = urlsplit(url)
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if not parts.hostname or parts.scheme not in ("http", "https") or (parts.scheme == "http" and not local):
            raise ValueError("url: want https://..., or http:// on this machine")
        self._https, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._path = parts.path.rstrip("/")
        self._secret, self._timeout_s, self._tries = secret, timeout_s, tries

    def authorise(self, key: str, token: str, amount: int, currency: str) -> Answer:
        return self._post("authorise", key, {"token": token, "amount": amount, "currency": currency})

    def capture(self, key: str, authorisation: str, amount: int) -> Answer:
        return self._post("capture", key, {"authorisation": authorisation, "amount": amount})

    def release(self, key: str, authorisation: str) -> Answer:
        return self._post("release", key, {"authorisation": authorisation})

    def refund(self, key: str, capture: str, amount: int) -> Answer:
        return self._post("refund", key, {"capture": capture, "amount": amount})

    def _post(self, step: Step, key: str, body: dict[str, Any]) -> Answer:
        problem = "no try"
        for _ in range(self._tries):
            try:
                status, text = self._exchange(step, key, body)
            except (OSError, http.client.HTTPException) as error:
                problem = type(error).__name__
                continue
            if status in (200, 402):
                answer = _answer(text)
                if answer is not None and (status == 200 or not answer.approved):
                    return answer
                problem = f"{status} without a valid answer"
            elif status in (409, 429) or status >= 500:
                problem = f"status {status}"
            else:
                raise PaymentError(f"{step}: want 200 or 402 from the provider, got {status}")
        raise UnknownOutcome(f"{step}: {problem}")

    def _exchange(self, step: Step, key: str, body: dict[str, Any]) -> tuple[int, bytes]:
        kind = http.client.HTTPSConnection if self._https else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout_s)
        try:
            headers = {
                "Content-Type": "application/json",
                "Authorization": f"Bearer {self._secret}",
                # As a structured field (RFC 8941): a string in quotes, ASCII only.
                "Idempotency-Key": json.dumps(key),
            }
            connection.request("POST", f"{self._path}/{step}", json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.read(ANSWER_MAX_BYTES)
        finally:
            connection.close()


def _answer(text: bytes) -> Answer | None:
    try:
        said = json.loads(text)
        approved, reference, reason = said["approved"], said.get("reference", ""), said.get("reason", "")
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    good = isinstance(approved, bool) and isinstance(reference, str) and isinstance(reason, str)
    return Answer(approved, reference[:255], reason[:255]) if good and (reference or not approved) else None
