"""Scales that report single values, some times a second, as readings of plates.

A reading has samples at the store's rate, each of them weighed. So nothing is interpolated, and nothing is repeated
while a scale is silent: the engine weighs across a gap, and a sample that was never taken would only hide one.
- A scale that sends as often as the store's `weight_rate_hz` is passed on value by value.
- One that sends a whole multiple of it is averaged: each sample is the mean of as many values, as a slower converter
  would have weighed, and stands for the middle of their time.
- One that sends less often cannot serve such a store; feeds.toml is refused, and says which rate to write into
  store.toml.

Values that bring no time are dated by counting, since scales sample evenly and networks do not deliver evenly: an
arrival is never too early, so the earliest arrivals show the scale's clock, which later ones may only steer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fusion.feeds.feed import Feed, Message
from fusion.feeds.health import Health
from fusion.feeds.values import json_of
from fusion.live.messages import JSON_MAX_BYTES, Refused
from fusion.observations import Observation, ShelfReading
from fusion.store.models import WEIGHT_UNITS_G, Store

# A message of the store holds half a second, and no more samples than is usual.
MESSAGE_S, MESSAGE_SAMPLES_MAX = 0.5, 12
# A late value steers the count by this share of a period at most: enough for a clock that is slow by as much as the
# engine allows, and for a lost value within twenty, and little for the few that a network holds back.
STEERED_MAX = 0.05
# Values that are later than this, or than so many periods, follow a gap.
GAP_S, GAP_PERIODS = 1.0, 2.5
# Counted rates differ from the nominal ones by less. The engine dates samples by counting and has the same limit.
RATE_OFF_MAX = 0.05
# A rate is measured over this many values.
MEASURED = 64
# What waits for the rest of its message is handed on after this silence.
WAIT_MAX_NS = 1_000_000_000
# What sensors report while they have no value.
_UNAVAILABLE = ("", "unknown", "unavailable", "none", "nan", "null")
# What no load cell reports, in any unit.
VALUE_MAX = 1e9


def decimation(rate_hz: float, store_rate_hz: float) -> int | None:
    """How many values make one sample; None where the store's rate is no whole part of the scale's."""
    n = max(round(rate_hz / store_rate_hz), 1)
    return n if abs(rate_hz / (n * store_rate_hz) - 1.0) <= RATE_OFF_MAX else None


class PlateStream:
    """Readings of one plate, of values that come one by one.

    Attributes:
        plate: name in plates.csv.
    """

    def __init__(self, plate: str, store: Store, health: Health, rate_hz: float | None, *, stamped: bool) -> None:
        """A stream.

        Args:
            plate: name in plates.csv.
            store: gives the rate and the unit of the readings.
            health: of the feed, which learns of another rate.
            rate_hz: values a second; None for the store's rate.
            stamped: whether values bring the time when they were weighed; else they bring that of their arrival.
        """
        self.plate = plate
        rate = rate_hz or store.weight_rate_hz
        self._n_mean = decimation(rate, store.weight_rate_hz) or 1
        self._rate_hz, self._period_ns = rate, round(1e9 / rate)
        self._gap_ns = max(round(GAP_S * 1e9), round(GAP_PERIODS * self._period_ns))
        self._n_samples = min(max(round(MESSAGE_S * store.weight_rate_hz), 1), MESSAGE_SAMPLES_MAX)
        self._unit_g, self._health, self._stamped = store.weight_unit_g, health, stamped
        self._next_ns = 0
        self._group: list[float] = []
        self._group_ns = 0
        self._samples: list[float] = []
        self._first_ns = self._arrived_ns = 0
        # Since when, how many values since, and the last one.
        self._measured: tuple[int, int, int] = 0, 0, 0

    def add(self, grams: float, t_ns: int, arrived_ns: int) -> list[ShelfReading]:
        """Take a value; returns the readings that it completes. Raises Refused where it is no value, or comes late."""
        if not math.isfinite(grams) or abs(grams) > VALUE_MAX:
            raise Refused("not a weight", f"want a weight, got {grams}")
        found = []
        dated_ns = self._dated(t_ns)
        if dated_ns is None:
            found += self.end()
            dated_ns = t_ns
        self._next_ns, self._arrived_ns = dated_ns + self._period_ns, arrived_ns
        self._measure(t_ns)
        if not self._group:
            self._group_ns = dated_ns
        self._group.append(grams / self._unit_g)
        if len(self._group) < self._n_mean:
            return found
        if not self._samples:
            # The mean stands for the middle of its values.
            self._first_ns = (self._group_ns + dated_ns) // 2
        self._samples.append(math.fsum(self._group) / len(self._group))
        self._group.clear()
        return found + (self._hand_on() if len(self._samples) >= self._n_samples else [])

    def end(self) -> list[ShelfReading]:
        """A gap: hand on what is complete; the values of a mean that is not are dropped."""
        self._group.clear()
        self._next_ns = 0
        return self._hand_on()

    def waited(self, now_ns: int) -> list[ShelfReading]:
        """Hand on what has waited for long enough for the rest of its message."""
        return self._hand_on() if now_ns - self._arrived_ns > WAIT_MAX_NS else []

    def _hand_on(self) -> list[ShelfReading]:
        if not self._samples:
            return []
        reading = ShelfReading(self._first_ns, self.plate, np.array(self._samples, np.float32))
        self._samples.clear()
        return [reading]

    def _dated(self, t_ns: int) -> int | None:
        """When a value was weighed; None where it follows a gap, or is the first. Raises Refused."""
        late_ns = t_ns - self._next_ns
        if self._next_ns == 0 or late_ns > self._gap_ns:
            return None
        if not self._stamped:
            # An earlier arrival shows that the count is ahead, and takes it back, but never so far that samples meet.
            return self._next_ns + min(max(late_ns, -self._period_ns // 2), round(STEERED_MAX * self._period_ns))
        if late_ns <= -self._period_ns:
            raise Refused("late or repeated", "want each value once, in order of time")
        return t_ns if abs(late_ns) <= self._period_ns // 2 else None

    def _measure(self, t_ns: int) -> None:
        since_ns, n, last_ns = self._measured
        if n == 0 or t_ns - last_ns > self._gap_ns:
            since_ns, n = t_ns, 0
        self._measured = since_ns, n + 1, t_ns
        if n < MEASURED:
            return
        seen_hz = n / max((t_ns - since_ns) * 1e-9, 1e-9)
        self._measured = t_ns, 1, t_ns
        if abs(seen_hz / self._rate_hz - 1.0) > RATE_OFF_MAX:
            text = f"plate {self.plate}: want {self._rate_hz:g} values a second, got {seen_hz:.2f}"
            self._health.refuse(Refused("another rate (values are used)", text))


def grams_in(unit: str) -> float:
    """Grams of a unit as people write it. Raises Refused where it is none of weight."""
    grams = WEIGHT_UNITS_G.get(unit.strip().lower())
    if grams is None:
        raise Refused("another unit", f"want one of {', '.join(WEIGHT_UNITS_G)}, got {unit[:20]!r}")
    return grams


class ScaleFeed(Feed):
    """One plate whose scale publishes its weight on an MQTT topic: ESPHome, Home Assistant, and others like them.

    A value is a number as text, or lies in a JSON object. The unit is in feeds.toml or comes from the device: Home
    Assistant's MQTT discovery (`unit_of_measurement`) or the attribute that its statestream publishes.
    """

    def __init__(
        self, name: str, plate: str, store: Store, *,
        unit_g: float | None, unit_topic: str | None, key: str | None, rate_hz: float | None,
    ) -> None:  # fmt: skip
        """A feed.

        Args:
            name: for people.
            plate: name in plates.csv.
            store: of the plate.
            unit_g: grams of a value's unit; None where a message on unit_topic names it.
            unit_topic: topic of that message, a retained one.
            key: where a JSON object has its value, with dots between the levels; None for a bare number.
            rate_hz: values a second; None for the store's rate.
        """
        super().__init__(name)
        self._unit_g, self._unit_topic = unit_g, unit_topic
        self._path = key.split(".") if key else []
        self._stream = PlateStream(plate, store, self.health, rate_hz, stamped=False)

    def observations(self, message: Message) -> Sequence[Observation]:
        """See `Feed`."""
        if len(message.payload) > JSON_MAX_BYTES:
            raise Refused("too long", f"want at most {JSON_MAX_BYTES} bytes, got {len(message.payload)}")
        text = message.payload.decode("utf-8", "replace").strip()
        if message.topic == self._unit_topic:
            self._unit_g = grams_in(_unit_of(text))
            return ()
        value = self._value(text)
        if self._unit_g is None:
            raise Refused("unit not known yet", f"want a message on {self._unit_topic}; or write unit into feeds.toml")
        return self._stream.add(value * self._unit_g, message.arrived_ns, message.arrived_ns)

    def began(self, arrived_ns: int) -> Sequence[Observation]:
        """See `Feed`."""
        return self._stream.end()

    def quiet(self, now_ns: int) -> Sequence[Observation]:
        """See `Feed`."""
        return self._stream.waited(now_ns)

    def _value(self, text: str) -> float:
        found: Any = text
        if self._path:
            found = json_of(text)
            for level in self._path:
                found = found.get(level) if isinstance(found, dict) else None
        if found is None or (isinstance(found, str) and found.strip().lower() in _UNAVAILABLE):
            raise Refused("unavailable", "the scale has no value")
        try:
            return float(found) if isinstance(found, str | int | float) and not isinstance(found, bool) else math.nan
        except (ValueError, OverflowError):
            hint = "; name its key in feeds.toml" if text.startswith("{") else ""
            raise Refused("not a number", f"want a number, got {text[:40]!r}{hint}") from None


def _unit_of(text: str) -> str:
    """The unit in a discovery message, or in the attribute of a statestream: a text in JSON, or bare."""
    if not text.startswith(("{", '"')):
        return text
    found = json_of(text)
    if isinstance(found, dict):
        found = found.get("unit_of_measurement", found.get("unit_of_meas"))
    if not isinstance(found, str):
        raise Refused("another unit", "want unit_of_measurement in the discovery message")
    return found
