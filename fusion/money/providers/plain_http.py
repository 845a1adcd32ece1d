"""A provider behind HTTP with a plain JSON interface, for a retailer's own payment service."""

from __future__ import annotations

import json
from typing import Any

from fusion.money.providers.exchange import Exchange
from fusion.money.providers.provider import Answer, CannotLookUp, PaymentError, Step, Terms, UnknownOutcome


class HttpProvider:
    """A provider behind HTTP: POST /authorise, /capture, /release, /refund and /look_up with a JSON body.

    The key travels as `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header), the secret as bearer token. 200
    or 201 carries `{"approved": true, "reference": ..., "amount": ...}`, where the amount may be left out, or
    `{"approved": false, "reason": ...}`; 402 is a decline, too. 202, redirects, 401, 403, 408, 409 (still being
    processed), 425, 429, 5xx, answers that make no sense, and none in time are an UnknownOutcome. All other 4xx are a
    PaymentError. A reference is up to 200 printable ASCII characters that do not look like a card number.

    /look_up gets `{"step": ..., "key": ..., "of": ...}` and answers 200 with the fields above and `"found": true`, or
    with `{"found": false}` where it carried nothing out under this key, however old it is. 404 and 405 state that a
    provider has no such path.
    """

    def __init__(self, exchange: Exchange, secret: str, terms: Terms | None = None) -> None:
        """Describe a provider.

        Args:
            exchange: sends the requests.
            secret: bearer token.
            terms: what the provider promises about time.
        """
        self._exchange, self._secret = exchange, secret
        self.terms = terms or Terms()

    def authorise(self, key: str, token: str, amount: int, currency: str) -> Answer:
        """Reserve an amount; see `Provider`."""
        return self._asked("authorise", key, {"token": token, "amount": amount, "currency": currency})

    def capture(self, key: str, authorisation: str, amount: int) -> Answer:
        """Take an amount; see `Provider`."""
        return self._asked("capture", key, {"authorisation": authorisation, "amount": amount})

    def release(self, key: str, authorisation: str) -> Answer:
        """Void what is left of an authorisation; see `Provider`."""
        return self._asked("release", key, {"authorisation": authorisation})

    def refund(self, key: str, capture: str, amount: int) -> Answer:
        """Return an amount; see `Provider`."""
        return self._asked("refund", key, {"capture": capture, "amount": amount})

    def look_up(self, step: Step, key: str, of: str) -> Answer | None:
        """What became of a request; see `Provider`."""
        response = self._exchange.ask("POST", "/look_up", self._headers(), _text(step=step, key=key, of=of))
        if response.status in (404, 405):
            raise CannotLookUp("the provider does not look up requests")
        fields = response.json()
        if response.status == 200 and fields.get("found") is False:
            return None
        answer = _answer(fields)
        if response.status != 200 or answer is None:
            raise UnknownOutcome(f"look_up: status {response.status} without a valid answer")
        return answer

    def _asked(self, step: Step, key: str, body: dict[str, Any]) -> Answer:
        # The key is a structured field (RFC 8941): a string in quotes, ASCII only.
        headers = {**self._headers(), "Idempotency-Key": json.dumps(key)}
        response = self._exchange.ask("POST", f"/{step}", headers, _text(**body))
        if response.status >= 400 and response.status != 402:
            raise PaymentError(f"the provider rejects the request with status {response.status}")
        answer = _answer(response.json())
        if answer is None or (response.status == 402 and answer.approved):
            raise UnknownOutcome(f"{step}: status {response.status} without a valid answer")
        return answer

    def _headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json", "Authorization": f"Bearer {self._secret}"}


def _text(**fields: Any) -> str:
    return json.dumps(fields)


def _answer(fields: dict[str, Any]) -> Answer | None:
    """The answer in a response; None where it makes no sense."""
    approved, amount = fields.get("approved"), fields.get("amount")
    reference, reason = fields.get("reference", ""), fields.get("reason", "")
    is_amount = amount is None or (isinstance(amount, int) and not isinstance(amount, bool))
    if not isinstance(approved, bool) or (approved and not reference):
        return None
    if not (isinstance(reference, str) and isinstance(reason, str) and is_amount):
        return None
    return Answer(approved, reference, reason, amount)
