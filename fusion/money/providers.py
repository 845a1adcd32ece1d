"""Payment providers: the protocol that `Checkout` speaks, a provider behind HTTP, and one in process with faults."""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from fusion.errors import FusionError

ANSWER_MAX_BYTES = 100_000
# Longest reference or reason that is taken from an answer, characters.
FIELD_MAX = 255

Step = Literal["authorise", "capture", "release", "refund"]


class PaymentError(FusionError):
    """The provider rejects a request as invalid; repeating it would not help. No money moved."""


class UnknownOutcome(FusionError):
    """No answer came: the provider may have carried the request out, or not. Repeating it under its key is safe."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider's answer. `reference` is the provider's name for the operation, `reason` why it was declined."""

    approved: bool
    reference: str = ""
    reason: str = ""


class Provider(Protocol):
    """Moves money. The same idempotency key with the same contents gets the same answer, however often it is sent.

    Amounts are integer minor units. Every method may raise UnknownOutcome or PaymentError.
    """

    def authorise(self, key: str, token: str, amount: int, currency: str) -> Answer:
        """Reserve an amount on the means of payment that the token stands for."""
        ...

    def capture(self, key: str, authorisation: str, amount: int) -> Answer:
        """Take an amount, at most what was authorised; the remainder stays reserved until it is released."""
        ...

    def release(self, key: str, authorisation: str) -> Answer:
        """Void what is left of an authorisation."""
        ...

    def refund(self, key: str, capture: str, amount: int) -> Answer:
        """Return an amount, at most what was captured."""
        ...


# ---- in process ------------------------------------------------------------------------------------------------------

Fault = Literal["decline", "lost before", "lost after"]


class SeededFaults:
    """Random faults, the same ones for the same seed and order of calls."""

    def __init__(self, seed: int, decline: float = 0.0, lost_before: float = 0.0, lost_after: float = 0.0) -> None:
        """Draw faults with given probabilities.

        Args:
            seed: of the random numbers.
            decline: share of authorisations that are declined.
            lost_before: share of requests that never arrive.
            lost_after: share of requests that are carried out and whose answer never arrives.
        """
        self._random = random.Random(seed)
        self._decline, self._lost_before, self._lost = decline, lost_before, lost_before + lost_after

    def __call__(self, step: Step, key: str) -> Fault | None:
        """The fault of the next request, if any."""
        draw = self._random.random()
        if draw < self._lost_before:
            return "lost before"
        if draw < self._lost:
            return "lost after"
        return "decline" if step == "authorise" and draw < self._lost + self._decline else None


class InProcessProvider:
    """A provider for tests and examples. It keeps its own accounts, so that both sides can be compared.

    Attributes:
        taken: captured less refunded, by authorisation.
        n_captures: number of captures, by authorisation.
    """

    def __init__(self, faults: Callable[[Step, str], Fault | None] = lambda step, key: None) -> None:
        self._faults: Callable[[Step, str], Fault | None] = faults
        self._lock = threading.Lock()
        self._answers: dict[str, tuple[tuple[Any, ...], Answer]] = {}
        self._left: dict[str, int] = {}
        self._captures: dict[str, _Capture] = {}
        self.taken: dict[str, int] = {}
        self.n_captures: dict[str, int] = {}

    def recovered(self) -> None:
        """Inject no more faults from now on."""
        self._faults = lambda step, key: None

    @property
    def total(self) -> int:
        """Everything captured and not refunded."""
        return sum(self.taken.values())

    @property
    def held(self) -> int:
        """Everything authorised and neither captured nor released."""
        return sum(self._left.values())

    def authorise(self, key: str, token: str, amount: int, currency: str) -> Answer:
        """Reserve an amount; see `Provider`."""
        request = (token, amount, currency)
        return self._once("authorise", key, request, lambda reference: self._reserve(reference, amount))

    def capture(self, key: str, authorisation: str, amount: int) -> Answer:
        """Take an amount of an authorisation; see `Provider`."""
        request = (authorisation, amount)
        return self._once("capture", key, request, lambda reference: self._take(reference, authorisation, amount))

    def release(self, key: str, authorisation: str) -> Answer:
        """Void what is left of an authorisation; see `Provider`."""

        def void(reference: str) -> Answer:
            self._left.pop(authorisation, None)
            return Answer(True, reference)

        return self._once("release", key, (authorisation,), void)

    def refund(self, key: str, capture: str, amount: int) -> Answer:
        """Return an amount of a capture; see `Provider`."""
        return self._once("refund", key, (capture, amount), lambda reference: self._return(reference, capture, amount))

    def _once(self, step: Step, key: str, request: tuple[Any, ...], carry_out: Callable[[str], Answer]) -> Answer:
        """Carry a request out the first time its key is seen, and repeat the answer afterwards."""
        with self._lock:
            fault = self._faults(step, key)
            if fault == "lost before":
                raise UnknownOutcome("no answer")
            if key not in self._answers:
                answer = Answer(False, reason="insufficient funds")
                if fault != "decline":
                    answer = carry_out(f"{step[:4]}-{len(self._answers) + 1}")
                self._answers[key] = (step, *request), answer
            known, answer = self._answers[key]
            if known != (step, *request):
                raise PaymentError(f"{key!r}: the idempotency key was used before for another request")
            if fault == "lost after":
                raise UnknownOutcome("no answer")
            return answer

    def _reserve(self, reference: str, amount: int) -> Answer:
        if amount <= 0:
            raise PaymentError(f"amount: want more than 0, got {amount}")
        self._left[reference] = amount
        return Answer(True, reference)

    def _take(self, reference: str, authorisation: str, amount: int) -> Answer:
        left = self._left.get(authorisation, 0)
        if not 0 < amount <= left:
            return Answer(False, reason="more than was authorised")
        self._left[authorisation] = left - amount
        self._captures[reference] = _Capture(authorisation, amount)
        self.taken[authorisation] = self.taken.get(authorisation, 0) + amount
        self.n_captures[authorisation] = self.n_captures.get(authorisation, 0) + 1
        return Answer(True, reference)

    def _return(self, reference: str, capture: str, amount: int) -> Answer:
        captured = self._captures.get(capture)
        if captured is None or not 0 < amount <= captured.refundable:
            return Answer(False, reason="more than was captured")
        captured.refundable -= amount
        self.taken[captured.authorisation] -= amount
        return Answer(True, reference)


@dataclass
class _Capture:
    authorisation: str
    refundable: int


# ---- over HTTP -------------------------------------------------------------------------------------------------------


class HttpProvider:
    """A provider behind HTTP: POST /authorise, /capture, /release, /refund with a JSON body.

    The key travels as `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header), the secret as bearer token. 200
    carries `{"approved": true, "reference": ...}` or `{"approved": false, "reason": ...}`; 402 is a decline, too. Other
    4xx are a PaymentError. No answer in time, a broken connection, 409 (still being processed), 429, 5xx and answers
    that make no sense are an UnknownOutcome, after a few tries with the same key.
    """

    def __init__(self, url: str, secret: str, *, timeout_s: float = 10.0, tries: int = 3) -> None:
        """Describe a provider; connects only when a request is sent.

        Args:
            url: where the four paths begin.
            secret: bearer token.
            timeout_s: how long to wait for the network, each time.
            tries: how often one request is sent.

        Raises:
            ValueError: the URL is not http or https, or plain http to another machine.
        """
        parts = urlsplit(url)
        is_local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if not parts.hostname or parts.scheme not in ("http", "https") or (parts.scheme == "http" and not is_local):
            raise ValueError("url: want https://..., or http:// on this machine")
        self._is_https, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._path = parts.path.rstrip("/")
        self._secret, self._timeout_s, self._tries = secret, timeout_s, tries

    def authorise(self, key: str, token: str, amount: int, currency: str) -> Answer:
        """Reserve an amount; see `Provider`."""
        return self._post("authorise", key, {"token": token, "amount": amount, "currency": currency})

    def capture(self, key: str, authorisation: str, amount: int) -> Answer:
        """Take an amount of an authorisation; see `Provider`."""
        return self._post("capture", key, {"authorisation": authorisation, "amount": amount})

    def release(self, key: str, authorisation: str) -> Answer:
        """Void what is left of an authorisation; see `Provider`."""
        return self._post("release", key, {"authorisation": authorisation})

    def refund(self, key: str, capture: str, amount: int) -> Answer:
        """Return an amount of a capture; see `Provider`."""
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
                answer = _parsed(text)
                if answer is not None and (status == 200 or not answer.approved):
                    return answer
                problem = f"{status} without a valid answer"
            elif status in (409, 429) or status >= 500:
                problem = f"status {status}"
            else:
                raise PaymentError(f"{step}: want status 200 or 402 from the provider, got {status}")
        raise UnknownOutcome(f"{step}: no valid answer from the provider: {problem}")

    def _exchange(self, step: Step, key: str, body: dict[str, Any]) -> tuple[int, bytes]:
        kind = http.client.HTTPSConnection if self._is_https else http.client.HTTPConnection
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


def _parsed(text: bytes) -> Answer | None:
    """The answer in a response's body; None where it makes no sense."""
    try:
        body = json.loads(text)
        approved, reference, reason = body["approved"], body.get("reference", ""), body.get("reason", "")
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    is_valid = isinstance(approved, bool) and isinstance(reference, str) and isinstance(reason, str)
    if not is_valid or (approved and not reference):
        return None
    return Answer(approved, reference[:FIELD_MAX], reason[:FIELD_MAX])
