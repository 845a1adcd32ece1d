"""What a payment zone's terminal sends, and what it is answered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from money.books import COLA, STORE

from fusion.live.messages import Refused
from fusion.live.zone_terminal import ZoneTerminals, baskets_payload
from fusion.results import ReceiptLine
from fusion.store.models import Zone
from fusion.till.baskets import Basket, Confirmation

T_NS = 1_800_000_000 * 10**9
SHOP = STORE.model_copy(
    update={"zone": (Zone(id="pay", kind="payment", polygon=((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))),)}
)
ASKED = {"v": 1, "run": 1, "seq": 7, "time": T_NS, "visit": "v1", "total": 498}


def answered(fields: dict[str, Any], zone: str = "pay", confirm: Any = None) -> dict[str, Any]:
    answer = ZoneTerminals(SHOP, confirm).answer(zone, json.dumps(fields).encode())
    assert answer.zone == zone
    fields = json.loads(answer.payload)
    assert isinstance(fields, dict)
    return fields


def test_a_confirmation_is_answered_under_its_number() -> None:
    asked: list[tuple[object, ...]] = []

    def confirm(*arguments: object) -> Confirmation:
        asked.append(arguments)
        return Confirmation(False, "payment is being asked for", "One moment please", 0.5)

    answer = answered(ASKED, confirm=confirm)
    assert asked == [("pay", "v1", 498, T_NS)]
    assert (answer["request"], answer["visit"], answer["confirmed"], answer["again_s"]) == (7, "v1", False, 0.5)
    assert answered(ASKED)["reason"] == "no payment here"


@pytest.mark.parametrize(
    ("fields", "zone", "reason"),
    [
        ({**ASKED, "total": -1}, "pay", "malformed"),
        ({**ASKED, "total": 4.98}, "pay", "malformed"),
        ({**ASKED, "extra": 1}, "pay", "malformed"),
        ({**ASKED, "v": 2}, "pay", "malformed"),
        (ASKED, "queue", "unknown zone"),
        ({**ASKED, "visit": "x" * 20_000}, "pay", "too long"),
    ],
)
def test_what_cannot_be_used_is_refused(fields: dict[str, Any], zone: str, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        answered(fields, zone)
    assert refused.value.reason == reason


def test_baskets_are_shown_in_words_and_minor_units() -> None:
    basket = Basket("v1", (ReceiptLine(COLA, 2, 249, 1.0),), 498)
    shown = json.loads(baskets_payload(SHOP, (basket,), T_NS))
    name = next(product.name for product in SHOP.products if product.gtin == COLA)
    assert (shown["time"], shown["currency"]) == (T_NS, "EUR")
    assert shown["baskets"] == [
        {"visit": "v1", "total": 498, "lines": [{"name": name, "quantity": 2, "unit_price": 249}]}
    ]
