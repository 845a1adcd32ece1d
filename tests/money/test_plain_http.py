"""Each request that the adapter for plain JSON sends, and what it makes of each answer; no server takes part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from fusion.money.providers import Answer, CannotLookUp, HttpProvider, PaymentError, Terms, UnknownOutcome
from fusion.money.providers.exchange import Response

HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer s3cret"}


class Line:
    """Stands for the exchange: notes each request and gives one answer."""

    def __init__(self, status: int = 200, value: Any = None) -> None:
        self.response = Response(status, b"{" if value is None else json.dumps(value).encode())
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: str = "") -> Response:
        self.requests.append((method, path, dict(headers), json.loads(body)))
        return self.response


def http(status: int = 200, value: Any = None) -> tuple[HttpProvider, Line]:
    line = Line(status, value)
    return HttpProvider(line, "s3cret"), line  # type: ignore[arg-type]


APPROVED = {"approved": True, "reference": "r-1"}


def test_each_step_is_a_post_with_its_key_as_a_quoted_string() -> None:
    provider, line = http(200, APPROVED)
    answers = [
        provider.authorise('ä"k', "tok", 100, "EUR"),
        provider.capture("k2", "a-1", 60),
        provider.release("k3", "a-1"),
        provider.refund("k4", "c-1", 5),
    ]
    assert answers == 4 * [Answer(True, "r-1")]

    def keyed(key: str) -> dict[str, str]:
        return {**HEADERS, "Idempotency-Key": key}

    assert line.requests == [
        ("POST", "/authorise", keyed('"\\u00e4\\"k"'), {"token": "tok", "amount": 100, "currency": "EUR"}),
        ("POST", "/capture", keyed('"k2"'), {"authorisation": "a-1", "amount": 60}),
        ("POST", "/release", keyed('"k3"'), {"authorisation": "a-1"}),
        ("POST", "/refund", keyed('"k4"'), {"capture": "c-1", "amount": 5}),
    ]
    assert provider.terms == Terms() and HttpProvider(line, "s", Terms(1.0, 2.0)).terms == Terms(1.0, 2.0)  # type: ignore[arg-type]


NO_ANSWER = "refund: status {} without a valid answer"


@pytest.mark.parametrize(
    ("status", "value", "wanted"),
    [
        (200, {**APPROVED, "amount": 4, "reason": "in part"}, Answer(True, "r-1", "in part", 4)),
        (201, APPROVED, Answer(True, "r-1")),
        (200, {"approved": False}, Answer(False)),
        (402, {"approved": False, "reason": "no funds", "reference": "d-1"}, Answer(False, "d-1", "no funds")),
        (402, APPROVED, UnknownOutcome(NO_ANSWER.format(402))),
        (200, {"approved": True}, UnknownOutcome(NO_ANSWER.format(200))),
        (200, {"approved": True, "reference": ""}, UnknownOutcome(NO_ANSWER.format(200))),
        (200, {"approved": 1, "reference": "r"}, UnknownOutcome(NO_ANSWER.format(200))),
        (200, {"approved": None}, UnknownOutcome(NO_ANSWER.format(200))),
        (200, {**APPROVED, "reference": 5}, UnknownOutcome(NO_ANSWER.format(200))),
        (200, {**APPROVED, "reason": None}, UnknownOutcome(NO_ANSWER.format(200))),
        (200, {**APPROVED, "amount": "4"}, UnknownOutcome(NO_ANSWER.format(200))),
        (200, {**APPROVED, "amount": 4.0}, UnknownOutcome(NO_ANSWER.format(200))),
        (200, {**APPROVED, "amount": True}, UnknownOutcome(NO_ANSWER.format(200))),
        (200, {**APPROVED, "amount": None}, Answer(True, "r-1")),
        (200, None, UnknownOutcome(NO_ANSWER.format(200))),
        (400, APPROVED, PaymentError("the provider rejects the request with status 400")),
        (422, {}, PaymentError("the provider rejects the request with status 422")),
    ],
)
def test_what_each_answer_is_worth(status: int, value: Any, wanted: Answer | Exception) -> None:
    provider, _ = http(status, value)
    if isinstance(wanted, Answer):
        assert provider.refund("k", "c-1", 5) == wanted
        return
    with pytest.raises(type(wanted)) as raised:
        provider.refund("k", "c-1", 5)
    assert str(raised.value) == str(wanted)


NOT_FOUND = "look_up: status {} without a valid answer"


@pytest.mark.parametrize(
    ("status", "value", "wanted"),
    [
        (200, {"found": True, **APPROVED, "amount": 4}, Answer(True, "r-1", amount=4)),
        (200, {"found": True, "approved": False, "reason": "no"}, Answer(False, reason="no")),
        (200, {"found": False}, None),
        (200, {"found": False, **APPROVED}, None),
        (200, {"found": True}, UnknownOutcome(NOT_FOUND.format(200))),
        (200, {"found": 0}, UnknownOutcome(NOT_FOUND.format(200))),
        (201, {"found": False}, UnknownOutcome(NOT_FOUND.format(201))),
        (201, {"found": True, **APPROVED}, UnknownOutcome(NOT_FOUND.format(201))),
        (400, {"found": False}, UnknownOutcome(NOT_FOUND.format(400))),
        (404, {"found": False}, CannotLookUp("the provider does not look up requests")),
        (405, {"found": False}, CannotLookUp("the provider does not look up requests")),
    ],
)
def test_what_a_look_up_finds(status: int, value: Any, wanted: Answer | Exception | None) -> None:
    provider, line = http(status, value)
    if isinstance(wanted, Exception):
        with pytest.raises(type(wanted)) as raised:
            provider.look_up("capture", "k", "a-1")
        assert str(raised.value) == str(wanted)
    else:
        assert provider.look_up("capture", "k", "a-1") == wanted
    assert line.requests == [("POST", "/look_up", HEADERS, {"step": "capture", "key": "k", "of": "a-1"})]
