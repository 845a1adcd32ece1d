"""Stripe: PaymentIntents that are captured later (`capture_method=manual`), API version 2024-06-20.

An authorisation is a PaymentIntent that is confirmed at once, its reference the id `pi_...`; a capture's reference is
its charge `ch_...`, a refund's `re_...`. Stripe keeps idempotency keys for 24 hours, and then only the objects
themselves answer: each carries a digest of our key in its metadata, under which `look_up` finds it.

Source: docs.stripe.com/api (errors, idempotent_requests, payment_intents, refunds), docs.stripe.com/error-low-level.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from fusion.money.providers.exchange import Exchange, Response
from fusion.money.providers.provider import Answer, CannotLookUp, PaymentError, Step, Terms, UnknownOutcome

URL = "https://api.stripe.com"
API_VERSION = "2024-06-20"
# Refunds of one charge that a look-up reads: the largest page.
_PAGE_MAX = 100
# States of a PaymentIntent of which nothing is reserved any more. The part that a capture leaves is released by Stripe.
_NOTHING_HELD = ("succeeded", "canceled")


class StripeProvider:
    """Takes payments through Stripe.

    A means of payment is `pm_...`, or `cus_...:pm_...` for one that is saved for a customer. Reasons hold Stripe's
    codes alone, since its messages may name the means of payment.
    """

    def __init__(self, exchange: Exchange, secret: str, terms: Terms | None = None) -> None:
        """Describe the account.

        Args:
            exchange: sends the requests.
            secret: API key, `sk_...` or `rk_...`.
            terms: keys are kept for 24 hours, authorisations for 7 days unless the account has longer ones.
        """
        self._exchange, self._secret = exchange, secret
        self.terms = terms or Terms()

    def authorise(self, key: str, token: str, amount: int, currency: str) -> Answer:
        """Reserve an amount; see `Provider`."""
        customer, _, method = token.rpartition(":")
        fields = {
            "amount": amount,
            "currency": currency.lower(),
            "payment_method": method,
            "payment_method_types[]": "card",
            "capture_method": "manual",
            "confirm": "true",
            "off_session": "true",
            "metadata[fusion_key]": _digest(key),
            **({"customer": customer} if customer else {}),
        }
        intent = self._changed("authorise", key, "/v1/payment_intents", fields)
        return intent if isinstance(intent, Answer) else _authorised(intent)

    def capture(self, key: str, authorisation: str, amount: int) -> Answer:
        """Take an amount; see `Provider`. Stripe releases the remainder at once."""
        path = f"/v1/payment_intents/{_segment(authorisation)}/capture"
        fields = {"amount_to_capture": amount, "metadata[fusion_capture]": _digest(key)}
        intent = self._changed("capture", key, path, fields)
        if isinstance(intent, Answer):
            return intent
        captured = _captured(intent)
        if captured is None:
            raise UnknownOutcome("capture: the answer holds no captured amount")
        return captured

    def release(self, key: str, authorisation: str) -> Answer:
        """Void what is left of an authorisation; see `Provider`."""
        path = f"/v1/payment_intents/{_segment(authorisation)}/cancel"
        intent = self._changed("release", key, path, {})
        if isinstance(intent, Answer) or intent.get("status") in _NOTHING_HELD:
            return intent if isinstance(intent, Answer) else Answer(True)
        raise UnknownOutcome(f"release: the PaymentIntent is {_word(intent.get('status'))}")

    def refund(self, key: str, capture: str, amount: int) -> Answer:
        """Return an amount; see `Provider`."""
        fields = {"charge": capture, "amount": amount, "metadata[fusion_key]": _digest(key)}
        refund = self._changed("refund", key, "/v1/refunds", fields)
        return refund if isinstance(refund, Answer) else _refunded(refund)

    def look_up(self, step: Step, key: str, of: str) -> Answer | None:
        """What became of a request, from the objects themselves; see `Provider`."""
        if step == "authorise":
            # The search is up to a minute behind; until then the key of a request protects it.
            intents = self._listed("/v1/payment_intents/search", {"query": f"metadata['fusion_key']:'{_digest(key)}'"})
            return _authorised(_only(intents)) if intents else None
        if step == "refund":
            refunds = self._listed("/v1/refunds", {"charge": of, "limit": _PAGE_MAX})
            wanted = [one for one in refunds if _metadata(one).get("fusion_key") == _digest(key)]
            return _refunded(_only(wanted)) if wanted else None
        intent = self._read(f"/v1/payment_intents/{_segment(of)}", {})
        if step == "release":
            return Answer(True) if intent.get("status") in _NOTHING_HELD else None
        if (captured := _captured(intent)) is not None:
            # A PaymentIntent is captured once; another step of ours may have done it.
            return captured if _metadata(intent).get("fusion_capture") == _digest(key) else None
        return Answer(False, reason="canceled") if intent.get("status") == "canceled" else None

    # ---- requests ----------------------------------------------------------------------------------------------------

    def _changed(self, step: Step, key: str, path: str, fields: Mapping[str, Any]) -> Answer | dict[str, Any]:
        """The object that a request made or changed, or the answer that Stripe declined it.

        Raises:
            PaymentError: Stripe rejects the request as invalid.
            UnknownOutcome: it is not known what became of it.
        """
        headers = {**self._headers(), "Idempotency-Key": _digest(key)}
        response = self._exchange.ask("POST", path, headers, urlencode(fields))
        body = response.json()
        if response.status == 200:
            if not isinstance(body.get("id"), str):
                raise UnknownOutcome(f"{step}: the answer holds no object")
            return body
        error = _object(body.get("error"))
        kind, code = _word(error.get("type")), _word(error.get("code"))
        state = _word(_object(error.get("payment_intent")).get("status"))
        if kind == "idempotency_error":
            # The key was used with other parameters: it is not known what became of that request.
            raise UnknownOutcome(f"{step}: Stripe knows the key for another request")
        if response.status == 402 or kind == "card_error":
            return Answer(False, reason=": ".join(filter(None, (code, _word(error.get("decline_code"))))))
        if code == "payment_intent_unexpected_state" and step == "release" and state in _NOTHING_HELD:
            return Answer(True)
        if code == "payment_intent_unexpected_state" and step == "capture":
            if state == "canceled":
                return Answer(False, reason="the authorisation was canceled or has expired")
            # Captured already, perhaps by a request whose answer was lost: the look-up states by which step.
            found = self.look_up("capture", key, str(_object(error.get("payment_intent")).get("id")))
            if found is not None:
                return found
        raise PaymentError(f"status {response.status}: {kind}: {code}")

    def _read(self, path: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        query = f"?{urlencode(fields)}" if fields else ""
        response: Response = self._exchange.ask("GET", path + query, self._headers())
        if response.status == 404:
            raise CannotLookUp("Stripe does not know the object; is it of another account?")
        body = response.json()
        if response.status != 200 or not body:
            raise UnknownOutcome(f"look-up: status {response.status} without a valid answer")
        return body

    def _listed(self, path: str, fields: Mapping[str, Any]) -> list[dict[str, Any]]:
        body = self._read(path, fields)
        if not isinstance(body.get("data"), list):
            raise UnknownOutcome("look-up: the answer holds no list")
        if body.get("has_more"):
            raise CannotLookUp("Stripe has more objects than one page")
        return [_object(one) for one in body["data"]]

    def _headers(self) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self._secret}",
            "Stripe-Version": API_VERSION,
            "Content-Type": "application/x-www-form-urlencoded",
        }


def _authorised(intent: dict[str, Any]) -> Answer:
    """The answer that a PaymentIntent gives about its authorisation."""
    status, reference = intent.get("status"), str(intent.get("id"))
    if status in ("requires_capture", "succeeded"):
        held = intent.get("amount_capturable" if status == "requires_capture" else "amount")
        return Answer(True, reference, amount=_amount(held))
    if status in ("requires_payment_method", "requires_action", "requires_confirmation", "canceled"):
        return Answer(False, reason=_word(status))
    raise UnknownOutcome(f"the PaymentIntent is {_word(status)}")


def _captured(intent: dict[str, Any]) -> Answer | None:
    """The answer that a PaymentIntent gives about its capture; None where it has none."""
    if intent.get("status") != "succeeded":
        return None
    charge = intent.get("latest_charge")
    reference = charge if isinstance(charge, str) else str(_object(charge).get("id") or intent.get("id"))
    return Answer(True, reference, amount=_amount(intent.get("amount_received")))


def _refunded(refund: dict[str, Any]) -> Answer:
    status = refund.get("status")
    if status == "succeeded":
        return Answer(True, str(refund.get("id")), amount=_amount(refund.get("amount")))
    if status in ("failed", "canceled"):
        return Answer(False, reason=_word(refund.get("failure_reason") or status))
    raise UnknownOutcome(f"the refund is {_word(status)}")


def _only(found: list[dict[str, Any]]) -> dict[str, Any]:
    if len(found) > 1:
        raise CannotLookUp(f"Stripe carried out {len(found)} operations under this key")
    return found[0]


def _amount(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise UnknownOutcome("the answer holds no amount")


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    return _object(value.get("metadata"))


def _word(value: object) -> str:
    """A code of Stripe's, such as insufficient_funds; empty for anything else."""
    is_code = isinstance(value, str) and len(value) <= 60 and value.replace("_", "").isalnum()
    return str(value) if is_code else ""


def _segment(reference: str) -> str:
    """A reference as one segment of a path."""
    return quote(reference, safe="")


def _digest(key: str) -> str:
    """Our key as Stripe takes it: at most 255 characters, and nothing that its search language knows."""
    return hashlib.sha256(key.encode()).hexdigest()
