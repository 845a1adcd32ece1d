"""Slow scales: each sample was weighed, gaps stay gaps, and the engine's own stage finds the load that was taken."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.feeds.feed import Message
from fusion.feeds.health import Health
from fusion.feeds.scales import WAIT_MAX_NS, PlateStream, ScaleFeed, decimation
from fusion.goods.plates import Plates
from fusion.live.messages import Refused
from fusion.observations import ShelfReading
from fusion.simulation import demo_store
from fusion.store.models import Store

T_NS = 1_767_258_000_000_000_000
S_NS = 1_000_000_000


def store(rate_hz: float = 10.0, unit: str = "g") -> Store:
    return demo_store(n_cameras=1, n_plates=2).model_copy(update={"weight_rate_hz": rate_hz, "weight_unit": unit})


PLATE = store().plates[0].plate


def feed(of: Store, **options: Any) -> ScaleFeed:
    settled: dict[str, Any] = {"unit_g": 1.0, "unit_topic": None, "key": None, "rate_hz": None, **options}
    return ScaleFeed("scale", PLATE, of, **settled)


def send(opened: ScaleFeed, payload: object, arrived_ns: int = T_NS, topic: str = "t") -> list[ShelfReading]:
    data = payload if isinstance(payload, bytes) else str(payload).encode()
    found = opened.observations(Message(topic, data, arrived_ns))
    return [reading for reading in found if isinstance(reading, ShelfReading)]


def readings_of(opened: ScaleFeed, grams: Sequence[float], arrivals_ns: Sequence[int]) -> list[ShelfReading]:
    found = list(itertools.chain.from_iterable(send(opened, f"{g:.2f}", t) for g, t in zip(grams, arrivals_ns)))
    return [*found, *(r for r in opened.quiet(arrivals_ns[-1] + 2 * WAIT_MAX_NS) if isinstance(r, ShelfReading))]


# ---- dating ----------------------------------------------------------------------------------------------------------


def test_values_are_passed_on_one_by_one() -> None:
    found = readings_of(feed(store()), range(20), [T_NS + i * S_NS // 10 for i in range(20)])
    assert [reading.plate for reading in found] == [PLATE] * 4
    assert np.concatenate([reading.samples for reading in found]).tolist() == list(range(20))
    assert [reading.t_ns for reading in found] == [T_NS + i * S_NS // 2 for i in range(4)]


def test_a_fast_scale_is_averaged_and_dated_in_the_middle() -> None:
    found = readings_of(feed(store(), rate_hz=80.0), range(80), [T_NS + i * S_NS // 80 for i in range(80)])
    samples = np.concatenate([reading.samples for reading in found])
    assert samples.tolist() == [8 * i + 3.5 for i in range(10)]
    assert found[0].t_ns == pytest.approx(T_NS + 3.5 * S_NS / 80, abs=10)


@settings(max_examples=50, deadline=None)
@given(delays=st.lists(st.integers(0, 300_000_000), min_size=40, max_size=40), rate=st.sampled_from([5.0, 10.0]))
def test_jitter_of_the_network_does_not_reach_the_samples(delays: list[int], rate: float) -> None:
    period_ns = round(S_NS / rate)
    sent = [T_NS + i * period_ns for i in range(40)]
    arrivals = list(itertools.accumulate((t + delay for t, delay in zip(sent, delays)), max))  # TCP keeps the order
    found = readings_of(feed(store(rate)), range(40), arrivals)
    assert np.concatenate([reading.samples for reading in found]).tolist() == list(range(40)), "no gap, none lost"
    for reading in found:
        # Never before it was sent; after it came by no more than what keeps two samples apart.
        first = int(reading.samples[0])
        assert sent[first] <= reading.t_ns <= arrivals[first] + period_ns // 2


def test_a_stall_of_the_network_is_no_gap() -> None:
    sent = [T_NS + i * S_NS // 10 for i in range(60)]
    arrivals = [max(t, T_NS + 2_900_000_000) if t >= T_NS + 2 * S_NS else t for t in sent]
    found = readings_of(feed(store()), range(60), arrivals)
    for reading in found:
        assert abs(reading.t_ns - sent[int(reading.samples[0])]) < 100_000_000


def test_a_silence_is_a_gap_and_nothing_is_made_up() -> None:
    arrivals = [T_NS + i * S_NS // 10 for i in range(13)] + [T_NS + 8 * S_NS + i * S_NS // 10 for i in range(13)]
    found = readings_of(feed(store()), range(26), arrivals)
    assert np.concatenate([reading.samples for reading in found]).tolist() == list(range(26))
    after = next(reading for reading in found if reading.samples[0] == 13)
    assert after.t_ns == T_NS + 8 * S_NS
    fast = readings_of(feed(store(), rate_hz=40.0), range(6), [T_NS + i * S_NS // 40 for i in range(6)])
    assert [reading.samples.tolist() for reading in fast] == [[1.5]], "half a mean is none"


def test_a_scale_of_another_rate_is_reported() -> None:
    opened = feed(store())
    readings_of(opened, range(200), [T_NS + i * S_NS // 7 for i in range(200)])
    assert opened.health.refused["another rate (values are used)"] >= 1
    assert "want 10 values a second, got 7.00" in opened.health.sentences[0]
    opened = feed(store())
    readings_of(opened, range(200), [T_NS + i * S_NS * 100 // 1015 for i in range(200)])
    assert not opened.health.refused


@pytest.mark.parametrize(("rate", "of", "n"), [(10, 10, 1), (10.4, 10, 1), (80, 10, 8), (5, 10, None), (15, 10, None)])
def test_only_whole_multiples_of_the_stores_rate_serve_it(rate: float, of: float, n: int | None) -> None:
    assert decimation(rate, of) == n


def test_stamped_values_keep_their_times_and_gaps() -> None:
    stream = PlateStream(PLATE, store(), Health("x"), None, stamped=True)
    found = []
    for i in [*range(7), *range(9, 16)]:
        found += stream.add(float(i), T_NS + i * S_NS // 10, T_NS)
    found += stream.end()
    assert [(reading.t_ns - T_NS) * 10 // S_NS for reading in found] == [0, 5, 9, 14]
    with pytest.raises(Refused, match="once"):
        stream = PlateStream(PLATE, store(), Health("x"), None, stamped=True)
        stream.add(1.0, T_NS, T_NS)
        stream.add(1.0, T_NS, T_NS)


# ---- the engine's stage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [10.0, 4.0])
def test_the_engine_finds_the_load_in_a_slow_scales_values(rate: float) -> None:
    of, random = store(rate), np.random.default_rng(5)
    n = int(120 * rate)
    t_s = np.arange(n) / rate
    grams = 5000.0 + random.normal(0.0, 0.3, n) - 250.0 * (t_s >= 60.0)
    touched = (t_s >= 59.0) & (t_s < 60.5)
    grams[touched] += random.normal(0.0, 40.0, touched.sum())
    arrivals = T_NS + (t_s * 1e9).astype(np.int64) + random.exponential(30e6, n).astype(np.int64)
    arrivals = np.maximum.accumulate(arrivals)
    found = readings_of(feed(of), grams.tolist(), arrivals.tolist())
    plates = Plates(of)
    changes = []
    for reading in found:
        packed = plates.pack([reading])
        assert packed is not None
        changes += plates.feed(packed)
    assert len(changes) == 1 and not plates.ignored
    assert changes[0].delta_g == pytest.approx(-250.0, abs=2.0)
    assert changes[0].contact_ns == pytest.approx(T_NS + 60 * S_NS, abs=1.5 * S_NS)


# ---- payloads --------------------------------------------------------------------------------------------------------


def test_units_come_from_the_file_or_from_the_device() -> None:
    opened = feed(store(unit="kg"), unit_g=453.59237)
    assert readings_of(opened, [2.0], [T_NS])[0].samples.tolist() == pytest.approx([0.90718474])
    for text, grams in [
        ('{"name": "Shelf", "stat_t": "~/state", "unit_of_measurement": "kg", "device_class": "weight"}', 1000.0),
        ('{"unit_of_meas": "lb"}', 453.59237), ('"oz"', 28.349523125), ("g", 1.0),
    ]:  # fmt: skip
        opened = feed(store(), unit_g=None, unit_topic="u")
        with pytest.raises(Refused, match="want a message on u"):
            send(opened, "1.0")
        assert not send(opened, text, topic="u")
        assert readings_of(opened, [2.0], [T_NS])[0].samples.tolist() == pytest.approx([2.0 * grams])
    for text in ('{"unit_of_measurement": "%"}', "{}", "[", '{"unit_of_measurement": 3}', "m"):
        with pytest.raises(Refused):
            send(feed(store(), unit_g=None, unit_topic="u"), text, topic="u")


def test_a_value_may_lie_in_an_object() -> None:
    opened = feed(store(), key="hx711.weight")
    assert not send(opened, json.dumps({"hx711": {"weight": 12.5}}))
    assert not send(opened, json.dumps({"hx711": {"weight": "13.5"}}), T_NS + S_NS // 10)
    (reading,) = opened.quiet(T_NS + 10 * S_NS)
    assert isinstance(reading, ShelfReading) and reading.samples.tolist() == [12.5, 13.5]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ("unavailable", "unavailable"), ("unknown", "unavailable"), ("nan", "unavailable"), ("", "unavailable"),
        ("12,5", "not a number"), ('{"a": 1}', "not a number"), ("inf", "not a weight"), ("1e300", "not a weight"),
        (b"\xff\xfe", "not a number"), (b"1" * 20_000, "too long"), ("1" * 400, "not a weight"),
    ],
)  # fmt: skip
def test_what_is_no_weight_is_refused_by_reason(payload: object, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        send(feed(store()), payload)
    assert refused.value.reason == reason


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=40), key=st.sampled_from([None, "a", "a.b"]), at=st.integers(0, 10**10))
def test_any_bytes_are_a_value_or_refused(data: bytes, key: str | None, at: int) -> None:
    for topic in ("t", "u"):
        try:
            send(feed(store(), key=key, unit_topic="u"), data, T_NS + at, topic)
        except Refused:
            continue
