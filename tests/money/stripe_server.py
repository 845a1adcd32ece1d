"""Stripe on this machine, as its documentation describes it (API version 2024-06-20): PaymentIntents and refunds.

Source: docs.stripe.com/api: errors, idempotent_requests, payment_intents, refunds; docs.stripe.com/error-low-level.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from money.servers import Handler, LocalServer

SECRET = "sk_test_of_this_server"


class StripeError(Exception):
    """An error as Stripe's API reports it."""

    def __init__(self, status: int, kind: str, code: str = "", **fields: Any) -> None:
        self.status, self.body = status, {"error": {"type": kind, "code": code or None, "message": "...", **fields}}


class StripeServer(LocalServer):
    """An account at Stripe.

    Attributes:
        intents, refunds: the account's objects by id.
        methods: saved cards and the customers they are attached to; None for one that is attached to none.
        faults: of the next requests that change something: "429", "500", "drop before", "drop after", "busy", ...
        n_executed: requests that changed something.
    """

    def __init__(self) -> None:
        self.intents: dict[str, dict[str, Any]] = {}
        self.refunds: dict[str, dict[str, Any]] = {}
        self.methods: dict[str, str | None] = {"pm_card_visa": None, "pm_saved": "cus_1"}
        self.faults: list[str] = []
        self.n_executed = 0
        self.keys: dict[str, tuple[tuple[str, str], int, bytes]] = {}
        outer = self

        class StripeHandler(Handler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                assert self.headers["Content-Type"] == "application/x-www-form-urlencoded"
                outer.post(self, body)

            def do_GET(self) -> None:
                outer.answer(self, lambda: outer.read(self.path))

        super().__init__(StripeHandler)

    def forget_keys(self) -> None:
        """A day has passed."""
        self.keys.clear()

    def post(self, handler: Any, text: str) -> None:
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "drop before":
            handler.close_connection = True
            return
        key, parameters = handler.headers["Idempotency-Key"], (handler.path, text)
        if fault == "429":
            return self.fail(handler, StripeError(429, "invalid_request_error", "rate_limit"))
        if fault == "busy":
            return self.fail(handler, StripeError(409, "idempotency_error", "idempotency_key_in_use"))
        if key in self.keys:
            known, status, body = self.keys[key]
            if known != parameters:
                return self.fail(handler, StripeError(400, "idempotency_error"))
        else:
            failed = 500, b'{"error": {"type": "api_error"}}'
            status, body = failed if fault == "500" else self.carried_out(handler, text)
            # Stripe repeats a failure, a 500 included, under the same key.
            self.keys[key] = parameters, status, body
        if fault == "drop after":
            handler.close_connection = True
            return None
        return handler.respond(status, body)

    def carried_out(self, handler: Any, text: str) -> tuple[int, bytes]:
        try:
            self.check(handler)
            value = self.changed(urlsplit(handler.path).path.split("/")[2:], dict(parse_qsl(text)))
            self.n_executed += 1
            return 200, json.dumps(value).encode()
        except StripeError as error:
            return error.status, json.dumps(error.body).encode()

    def answer(self, handler: Any, make: Any) -> None:
        try:
            self.check(handler)
            handler.respond(200, json.dumps(make()).encode())
        except StripeError as error:
            self.fail(handler, error)

    def fail(self, handler: Any, error: StripeError) -> None:
        handler.respond(error.status, json.dumps(error.body).encode())

    def check(self, handler: Any) -> None:
        if handler.headers["Authorization"] != f"Bearer {SECRET}":
            raise StripeError(401, "invalid_request_error")
        assert handler.headers["Stripe-Version"] == "2024-06-20"

    def changed(self, path: list[str], fields: dict[str, str]) -> dict[str, Any]:
        match path:
            case ["payment_intents"]:
                return self.created(fields)
            case ["payment_intents", intent, "capture"]:
                return self.captured(self.intent(intent), fields)
            case ["payment_intents", intent, "cancel"]:
                return self.canceled(self.intent(intent))
            case ["refunds"]:
                return self.refunded(fields)
        raise StripeError(404, "invalid_request_error", "resource_missing")

    def intent(self, name: str) -> dict[str, Any]:
        if name not in self.intents:
            raise StripeError(404, "invalid_request_error", "resource_missing", param="intent")
        return self.intents[name]

    def created(self, fields: dict[str, str]) -> dict[str, Any]:
        method, customer = fields["payment_method"], fields.get("customer")
        assert fields["capture_method"] == "manual" and fields["confirm"] == fields["off_session"] == "true"
        if method not in self.methods or self.methods[method] != customer:
            message = f"No such PaymentMethod: '{method}'"
            raise StripeError(404, "invalid_request_error", "resource_missing", param="payment_method", message=message)
        intent = {
            "id": f"pi_{len(self.intents) + 1}", "object": "payment_intent", "amount": int(fields["amount"]),
            "amount_capturable": int(fields["amount"]), "amount_received": 0, "currency": fields["currency"],
            "status": "requires_capture", "latest_charge": None, "metadata": metadata(fields),
        }  # fmt: skip
        self.intents[intent["id"]] = intent
        if intent["amount"] > 100_000:
            intent |= {"status": "requires_payment_method", "amount_capturable": 0}
            raise StripeError(
                402, "card_error", "card_declined", decline_code="insufficient_funds", payment_intent=intent
            )
        return intent

    def captured(self, intent: dict[str, Any], fields: dict[str, str]) -> dict[str, Any]:
        amount = int(fields["amount_to_capture"])
        if intent["status"] != "requires_capture":
            code = "payment_intent_unexpected_state"
            raise StripeError(400, "invalid_request_error", code, payment_intent=dict(intent))
        if amount > intent["amount_capturable"]:
            raise StripeError(400, "invalid_request_error", "amount_too_large")
        intent["metadata"] |= metadata(fields)
        charge = "ch" + intent["id"][2:]
        intent |= {"status": "succeeded", "amount_capturable": 0, "amount_received": amount, "latest_charge": charge}
        return intent

    def canceled(self, intent: dict[str, Any]) -> dict[str, Any]:
        if intent["status"] != "requires_capture":
            code = "payment_intent_unexpected_state"
            raise StripeError(400, "invalid_request_error", code, payment_intent=dict(intent))
        intent |= {"status": "canceled", "amount_capturable": 0}
        return intent

    def refunded(self, fields: dict[str, str]) -> dict[str, Any]:
        charge, amount = fields["charge"], int(fields["amount"])
        intent = self.intent("pi" + charge[2:])
        if amount > intent["amount_received"] - self.returned(charge):
            raise StripeError(400, "invalid_request_error", "charge_already_refunded")
        refund = {
            "id": f"re_{len(self.refunds) + 1}", "object": "refund", "amount": amount, "charge": charge,
            "status": "succeeded", "metadata": metadata(fields),
        }  # fmt: skip
        self.refunds[refund["id"]] = refund
        return refund

    def returned(self, charge: str) -> int:
        return sum(refund["amount"] for refund in self.refunds.values() if refund["charge"] == charge)

    def read(self, path: str) -> dict[str, Any]:
        parts = urlsplit(path)
        fields = dict(parse_qsl(parts.query))
        if parts.path == "/v1/payment_intents/search":
            name, value = fields["query"].removeprefix("metadata['").removesuffix("'").split("']:'")
            found = [intent for intent in self.intents.values() if intent["metadata"].get(name) == value]
            return {"object": "search_result", "data": found, "has_more": False}
        if parts.path == "/v1/refunds":
            found = [refund for refund in self.refunds.values() if refund["charge"] == fields["charge"]]
            return {"object": "list", "data": found, "has_more": False}
        return self.intent(parts.path.rsplit("/", 1)[1])

    @property
    def total(self) -> int:
        """Everything captured and not refunded."""
        taken = sum(intent["amount_received"] for intent in self.intents.values())
        return taken - sum(refund["amount"] for refund in self.refunds.values())

    @property
    def held(self) -> int:
        """Everything authorised and neither captured nor released."""
        return sum(intent["amount_capturable"] for intent in self.intents.values())


def metadata(fields: dict[str, str]) -> dict[str, str]:
    return {key[9:-1]: value for key, value in fields.items() if key.startswith("metadata[")}
