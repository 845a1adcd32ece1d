"""Payment zones over MQTT: baskets that a terminal shows, and customers who confirm theirs.

zones/ZONE/baskets   from the engine: what everybody in the zone holds, when it changes and each second
zones/ZONE/confirm   from the terminal: a customer confirms one basket, at the total that was shown
zones/ZONE/answer    from the engine: whether the amount is authorised; "again_s" asks the terminal to send it again
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fusion.live.messages import JSON_MAX_BYTES, VERSION, Refused, faults_of
from fusion.observations import EARLIEST_NS, LATEST_NS
from fusion.store.models import Store
from fusion.till.baskets import Basket, Confirmation

Confirm = Callable[[str, str, int, int], Confirmation]


class _Confirm(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    v: int = Field(ge=VERSION, le=VERSION)
    run: int = Field(ge=0, le=0xFFFFFFFF)
    seq: int = Field(ge=0, le=0xFFFFFFFF)
    time: int = Field(ge=EARLIEST_NS, le=LATEST_NS)
    visit: str = Field(min_length=1, max_length=255)
    total: int = Field(ge=0, le=10**12)


class Answer(NamedTuple):
    """What is sent to a zone's terminal: to which zone, and the bytes."""

    zone: str
    payload: bytes


def baskets_payload(store: Store, baskets: Sequence[Basket], t_ns: int) -> bytes:
    """Encode the baskets of everybody in a zone as JSON; amounts in minor units.

    Args:
        store: names the products and the currency.
        baskets: of the visits in the zone.
        t_ns: data time of the look.
    """
    names = {product.gtin: product.name for product in store.products}
    rows = [
        {
            "visit": basket.visit,
            "total": basket.total,
            "lines": [
                {"name": names.get(line.gtin, line.gtin), "quantity": line.quantity, "unit_price": line.unit_price}
                for line in basket.lines
            ],
        }
        for basket in baskets
    ]
    return json.dumps({"v": VERSION, "time": t_ns, "currency": store.currency, "baskets": rows}).encode()


class ZoneTerminals:
    """Answers the terminals of a store's payment zones, from memory, in the network's thread."""

    def __init__(self, store: Store, confirm: Confirm | None) -> None:
        """Answer for a store. confirm: `Till.confirm`; without it no basket is confirmed."""
        self._zones = {zone.id for zone in store.zone if zone.kind == "payment"}
        self._confirm = confirm

    def answer(self, zone: str, payload: bytes) -> Answer:
        """The answer to a confirmation. Sent again, it gets the same answer, or a later one.

        Raises:
            Refused: it cannot be used.
        """
        if len(payload) > JSON_MAX_BYTES:
            raise Refused("too long", f"want at most {JSON_MAX_BYTES} bytes, got {len(payload)}")
        try:
            asked = _Confirm.model_validate_json(payload, strict=True)
        except ValidationError as error:
            raise Refused("malformed", faults_of(error)) from None
        if zone not in self._zones:
            raise Refused("unknown zone", f"zone {zone!r} is no payment zone of store.toml")
        answer = Confirmation(False, "no payment here", "Please ask the staff")
        if self._confirm is not None:
            answer = self._confirm(zone, asked.visit, asked.total, asked.time)
        row = {
            "v": VERSION, "time": asked.time, "request": asked.seq, "visit": asked.visit,
            "confirmed": answer.confirmed, "reason": answer.reason, "display": answer.display,
            "again_s": answer.again_s,
        }  # fmt: skip
        return Answer(zone, json.dumps(row).encode())
