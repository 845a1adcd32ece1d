"""Each request that the adapter for Stripe sends, and what it makes of each answer; no server takes part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import pytest

from fusion.money.providers import Answer, CannotLookUp, PaymentError, StripeProvider, Terms, UnknownOutcome
from fusion.money.providers.exchange import Response
from fusion.money.providers.provider import Step

DIGEST = hashlib.sha256(b"s/v/1").hexdigest()
READ_HEADERS = {
    "Authorization": "Bearer sk_1",
    "Stripe-Version": "2024-06-20",
    "Content-Type": "application/x-www-form-urlencoded",
}
HEADERS = {**READ_HEADERS, "Idempotency-Key": DIGEST}


class Line:
    """Stands for the exchange: notes each request and gives the next answer, a status and a JSON value."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str, dict[str, str], list[tuple[str, str]]]] = []

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: str = "") -> Response:
        fields = parse_qsl(body, keep_blank_values=True, strict_parsing=bool(body))
        self.requests.append((method, path, dict(headers), fields))
        status, value = self.answers.pop(0)
        return Response(status, json.dumps(value).encode())


def stripe(*answers: tuple[int, Any]) -> tuple[StripeProvider, Line]:
    line = Line(*answers)
    return StripeProvider(line, "sk_1"), line  # type: ignore[arg-type]


def asked(step: str, *answers: tuple[int, Any]) -> Answer:
    """The answer to a step under the key s/v/1."""
    provider, _ = stripe(*answers)
    calls = {
        "authorise": lambda: provider.authorise("s/v/1", "pm_1", 100, "EUR"),
        "capture": lambda: provider.capture("s/v/1", "pi_1", 60),
        "release": lambda: provider.release("s/v/1", "pi_1"),
        "refund": lambda: provider.refund("s/v/1", "ch_1", 60),
    }
    return calls[step]()


def looked_up(step: Step, *answers: tuple[int, Any]) -> Answer | None:
    provider, _ = stripe(*answers)
    return provider.look_up(step, "s/v/1", "pi_1")


def held(**fields: Any) -> dict[str, Any]:
    return {"id": "pi_1", "status": "requires_capture", "amount": 100, "amount_capturable": 80, **fields}


def taken(**fields: Any) -> dict[str, Any]:
    return {**held(status="succeeded", amount_received=60, latest_charge="ch_1"), **fields}


def error(**fields: Any) -> dict[str, Any]:
    return {"error": fields}


# ---- requests --------------------------------------------------------------------------------------------------------


def test_an_authorisation_is_an_intent_that_is_confirmed_at_once_and_captured_later() -> None:
    for token, customer in (("pm_1", []), ("cus_1:pm_1", [("customer", "cus_1")])):
        provider, line = stripe((200, held()))
        assert provider.authorise("s/v/1", token, 100, "EUR") == Answer(True, "pi_1", amount=80)
        assert line.requests == [
            (
                "POST",
                "/v1/payment_intents",
                HEADERS,
                [
                    ("amount", "100"),
                    ("currency", "eur"),
                    ("payment_method", "pm_1"),
                    ("payment_method_types[]", "card"),
                    ("capture_method", "manual"),
                    ("confirm", "true"),
                    ("off_session", "true"),
                    ("metadata[fusion_key]", DIGEST),
                    *customer,
                ],
            )
        ]


def test_captures_releases_and_refunds_name_what_they_concern() -> None:
    refund = {"id": "re_1", "status": "succeeded", "amount": 60}
    provider, line = stripe((200, taken()), (200, held(status="canceled")), (200, refund))
    assert provider.capture("s/v/1", "pi/../1", 60) == Answer(True, "ch_1", amount=60)
    assert provider.release("s/v/1", "pi?1") == Answer(True)
    assert provider.refund("s/v/1", "ch_1", 60) == Answer(True, "re_1", amount=60)
    assert line.requests == [
        (
            "POST",
            "/v1/payment_intents/pi%2F..%2F1/capture",
            HEADERS,
            [("amount_to_capture", "60"), ("metadata[fusion_capture]", DIGEST)],
        ),
        ("POST", "/v1/payment_intents/pi%3F1/cancel", HEADERS, []),
        ("POST", "/v1/refunds", HEADERS, [("charge", "ch_1"), ("amount", "60"), ("metadata[fusion_key]", DIGEST)]),
    ]


def test_look_ups_read_the_objects_themselves() -> None:
    provider, line = stripe((200, {"data": []}), (200, {"data": []}), (200, held()), (200, held()))
    for step in ("authorise", "refund", "release", "capture"):
        assert provider.look_up(step, "s/v/1", "x/1") is None
    paths = [
        f"/v1/payment_intents/search?query=metadata%5B%27fusion_key%27%5D%3A%27{DIGEST}%27",
        "/v1/refunds?charge=x%2F1&limit=100",
        "/v1/payment_intents/x%2F1",
        "/v1/payment_intents/x%2F1",
    ]
    assert line.requests == [("GET", path, READ_HEADERS, []) for path in paths]


def test_terms_are_those_of_stripe_unless_the_account_has_others() -> None:
    assert stripe()[0].terms == Terms(86_400.0, 604_800.0)
    assert StripeProvider(Line(), "sk_1", Terms(1.0, 2.0)).terms == Terms(1.0, 2.0)  # type: ignore[arg-type]


# ---- answers ---------------------------------------------------------------------------------------------------------

ANSWERS: list[tuple[str, Any, Answer | str]] = [
    ("authorise", held(), Answer(True, "pi_1", amount=80)),
    # Captured meanwhile: what was authorised, whatever can still be captured.
    ("authorise", held(status="succeeded", amount_capturable=0), Answer(True, "pi_1", amount=100)),
    ("authorise", held(status="requires_payment_method"), Answer(False, reason="requires_payment_method")),
    ("authorise", held(status="requires_action"), Answer(False, reason="requires_action")),
    ("authorise", held(status="requires_confirmation"), Answer(False, reason="requires_confirmation")),
    ("authorise", held(status="canceled"), Answer(False, reason="canceled")),
    ("authorise", held(status="processing"), "the PaymentIntent is processing"),
    ("authorise", held(status=None), "the PaymentIntent is "),
    ("authorise", held(status="a" * 60), f"the PaymentIntent is {'a' * 60}"),
    ("authorise", held(status="a" * 61), "the PaymentIntent is "),
    ("authorise", held(status="cus_1: secret"), "the PaymentIntent is "),
    ("authorise", held(amount_capturable="80"), "the answer holds no amount"),
    ("authorise", held(amount_capturable=True), "the answer holds no amount"),
    ("authorise", held(amount_capturable=None), "the answer holds no amount"),
    ("authorise", held(id=1), "authorise: the answer holds no object"),
    ("authorise", [], "authorise: the answer holds no object"),
    ("capture", taken(), Answer(True, "ch_1", amount=60)),
    ("capture", taken(latest_charge={"id": "ch_2"}), Answer(True, "ch_2", amount=60)),
    ("capture", taken(latest_charge=None), Answer(True, "pi_1", amount=60)),
    ("capture", held(status="succeeded", latest_charge="ch_1"), "the answer holds no amount"),
    ("capture", held(status="processing"), "capture: the answer holds no captured amount"),
    ("release", held(status="canceled"), Answer(True)),
    ("release", taken(), Answer(True)),
    ("release", held(), "release: the PaymentIntent is requires_capture"),
    ("refund", {"id": "re_1", "status": "succeeded", "amount": 60}, Answer(True, "re_1", amount=60)),
    ("refund", {"id": "re_1", "status": "failed", "failure_reason": "expired_or_canceled_card"},
     Answer(False, reason="expired_or_canceled_card")),
    ("refund", {"id": "re_1", "status": "failed"}, Answer(False, reason="failed")),
    ("refund", {"id": "re_1", "status": "canceled"}, Answer(False, reason="canceled")),
    ("refund", {"id": "re_1", "status": "pending", "amount": 60}, "the refund is pending"),
    ("refund", {"id": "re_1", "status": "succeeded"}, "the answer holds no amount"),
]  # fmt: skip


@pytest.mark.parametrize(("step", "value", "wanted"), ANSWERS)
def test_an_object_is_an_answer_or_no_answer_yet(step: str, value: Any, wanted: Answer | str) -> None:
    if isinstance(wanted, Answer):
        assert asked(step, (200, value)) == wanted
        return
    with pytest.raises(UnknownOutcome) as raised:
        asked(step, (200, value))
    assert str(raised.value) == wanted


STATE = {"type": "invalid_request_error", "code": "payment_intent_unexpected_state"}
REFUSALS: list[tuple[str, int, Any, Answer | Exception]] = [
    ("authorise", 402, error(type="card_error", code="card_declined", decline_code="insufficient_funds"),
     Answer(False, reason="card_declined: insufficient_funds")),
    ("authorise", 402, error(type="card_error", code="expired_card"), Answer(False, reason="expired_card")),
    ("authorise", 402, error(type="card_error", decline_code="fraudulent"), Answer(False, reason="fraudulent")),
    # A decline by its status alone, or by its type alone, with texts that are no codes left out.
    ("authorise", 402, {}, Answer(False, reason="")),
    ("authorise", 402, {"error": "declined"}, Answer(False, reason="")),
    ("refund", 400, error(type="card_error", code="No card pm_1"), Answer(False, reason="")),
    ("authorise", 400, error(type="idempotency_error"),
     UnknownOutcome("authorise: Stripe knows the key for another request")),
    ("authorise", 400, error(type="invalid_request_error", code="amount_too_small"),
     PaymentError("status 400: invalid_request_error: amount_too_small")),
    ("authorise", 404, {}, PaymentError("status 404: : ")),
    ("release", 400, error(**STATE, payment_intent={"status": "canceled"}), Answer(True)),
    ("release", 400, error(**STATE, payment_intent={"status": "succeeded"}), Answer(True)),
    ("release", 400, error(**STATE, payment_intent={"status": "processing"}),
     PaymentError("status 400: invalid_request_error: payment_intent_unexpected_state")),
    ("release", 400, error(code="other", payment_intent={"status": "canceled"}), PaymentError("status 400: : other")),
    ("capture", 400, error(**STATE, payment_intent={"status": "canceled"}),
     Answer(False, reason="the authorisation was canceled or has expired")),
    ("capture", 400, error(code="other", payment_intent={"status": "canceled"}), PaymentError("status 400: : other")),
    ("authorise", 400, error(**STATE, payment_intent={"status": "canceled"}),
     PaymentError("status 400: invalid_request_error: payment_intent_unexpected_state")),
    ("refund", 400, error(**STATE, payment_intent={"status": "canceled"}),
     PaymentError("status 400: invalid_request_error: payment_intent_unexpected_state")),
]  # fmt: skip


@pytest.mark.parametrize(("step", "status", "value", "wanted"), REFUSALS)
def test_an_error_is_a_decline_a_rejection_or_no_answer(
    step: str, status: int, value: Any, wanted: Answer | Exception
) -> None:
    if isinstance(wanted, Answer):
        assert asked(step, (status, value)) == wanted
        return
    with pytest.raises(type(wanted)) as raised:
        asked(step, (status, value))
    assert str(raised.value) == str(wanted)


def test_a_capture_of_what_was_captured_before_is_looked_up() -> None:
    refused = (400, error(**STATE, payment_intent={"id": "pi_7", "status": "succeeded"}))
    provider, line = stripe(refused, (200, taken(metadata={"fusion_capture": DIGEST})))
    assert provider.capture("s/v/1", "pi_1", 60) == Answer(True, "ch_1", amount=60)
    assert [request[:2] for request in line.requests] == [
        ("POST", "/v1/payment_intents/pi_1/capture"),
        ("GET", "/v1/payment_intents/pi_7"),
    ]
    # Another step of the same visit took it: this one is rejected.
    with pytest.raises(PaymentError, match="payment_intent_unexpected_state"):
        asked("capture", refused, (200, taken(metadata={"fusion_capture": "another"})))


FOUND: list[tuple[Step, int, Any, Answer | Exception | None]] = [
    ("authorise", 200, {"data": [held()]}, Answer(True, "pi_1", amount=80)),
    ("authorise", 200, {"data": [held(), held()]}, CannotLookUp("Stripe carried out 2 operations under this key")),
    ("authorise", 200, {"data": [held()], "has_more": True}, CannotLookUp("Stripe has more objects than one page")),
    ("authorise", 200, {"data": {}}, UnknownOutcome("look-up: the answer holds no list")),
    ("authorise", 200, {"data": ["pi_1"]}, UnknownOutcome("the PaymentIntent is ")),
    ("authorise", 200, {}, UnknownOutcome("look-up: status 200 without a valid answer")),
    ("authorise", 400, {"data": []}, UnknownOutcome("look-up: status 400 without a valid answer")),
    ("authorise", 404, {"data": []}, CannotLookUp("Stripe does not know the object; is it of another account?")),
    ("refund", 200, {"data": [
        {"id": "re_0", "status": "succeeded", "amount": 1},
        {"id": "re_1", "status": "succeeded", "amount": 2, "metadata": {"fusion_key": "another"}},
        {"id": "re_2", "status": "succeeded", "amount": 3, "metadata": {"fusion_key": DIGEST}},
    ]}, Answer(True, "re_2", amount=3)),
    ("refund", 200, {"data": [{"id": "re_1", "metadata": {"fusion_key": "another"}}]}, None),
    ("refund", 200, {"data": 2 * [{"id": "re_1", "metadata": {"fusion_key": DIGEST}}]},
     CannotLookUp("Stripe carried out 2 operations under this key")),
    ("release", 200, held(status="canceled"), Answer(True)),
    ("release", 200, taken(), Answer(True)),
    ("release", 200, held(), None),
    ("capture", 200, taken(metadata={"fusion_capture": DIGEST}), Answer(True, "ch_1", amount=60)),
    ("capture", 200, taken(metadata={"fusion_key": DIGEST}), None),
    ("capture", 200, held(status="canceled"), Answer(False, reason="canceled")),
    ("capture", 200, held(), None),
]  # fmt: skip


@pytest.mark.parametrize(("step", "status", "value", "wanted"), FOUND)
def test_what_a_look_up_finds(step: Step, status: int, value: Any, wanted: Answer | Exception | None) -> None:
    if not isinstance(wanted, Exception):
        assert looked_up(step, (status, value)) == wanted
        return
    with pytest.raises(type(wanted)) as raised:
        looked_up(step, (status, value))
    assert str(raised.value) == str(wanted)
