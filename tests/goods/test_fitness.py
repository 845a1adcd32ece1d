"""Plates whose readings cannot be weights: in another unit, or at another rate."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from goods.shop import GTINS, STORE, T0, Scales, at_shelf, event, plate_hand
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from reference import scales as reference

from fusion import Engine
from fusion.files.recordings import Recording
from fusion.goods.attribution import Attributor
from fusion.goods.fitness import Messages, message_noise_g, sample_rates_hz
from fusion.goods.planogram import Planogram
from fusion.goods.plates import EACH_MAX, plate_warnings
from fusion.goods.scales import ShelfMonitor
from fusion.goods.unobserved import BlindPlates
from fusion.observations import Observation, ShelfReading
from fusion.results import ReasonKind, Receipt, ReceiptStatus, Warning, WarningKind
from fusion.simulation import Scenario, Simulation, demo_store

NAMES = [plate.plate for plate in STORE.plates]


def watched(readings: list[ShelfReading]) -> tuple[ShelfMonitor, list[Warning]]:
    """A monitor after these messages, a tick of 0.1 s at a time, and its warnings."""
    monitor = ShelfMonitor(STORE, Planogram(STORE))
    warnings: list[Warning] = []
    at = 0
    for now_ns in range(readings[0].t_ns, readings[-1].t_ns + 200_000_000, 100_000_000):
        first = at
        while at < len(readings) and readings[at].t_ns <= now_ns:
            at += 1
        monitor.step(readings[first:at], now_ns)
        warnings += monitor.warnings()
    return monitor, warnings


def scaled(readings: list[ShelfReading], factor: float, plates: set[str]) -> list[ShelfReading]:
    return [
        replace(one, samples=(one.samples * np.float32(factor)).astype(np.float32)) if one.plate in plates else one
        for one in readings
    ]


def at_rate(seconds: float, rate_hz: float, samples: int, plates: list[str]) -> list[ShelfReading]:
    """Messages of plates that sample at another rate than the store's."""
    rng = np.random.default_rng(1)
    readings = [
        ShelfReading(T0 + int(first / rate_hz * 1e9), plate, rng.normal(5e3, 0.4, samples).astype(np.float32))
        for plate in plates for first in range(0, int(seconds * rate_hz), samples)
    ]  # fmt: skip
    return sorted(readings, key=lambda reading: reading.t_ns)


@pytest.mark.parametrize("factor", [0.001, 1 / 453.59237])
def test_a_plate_in_a_larger_unit_is_unfit(factor: float) -> None:
    readings = Scales(STORE, 12.0).readings()
    monitor, warnings = watched(scaled(readings, factor, {NAMES[2]}))
    assert [(warning.kind, warning.subject) for warning in warnings] == [(WarningKind.PLATE_UNIT, NAMES[2])]
    assert warnings[0].t_ns < T0 + 6 * 10**9
    assert list(monitor.blind.unfit) == [2]
    assert monitor.alive_since(T0)


def test_a_store_in_kilograms_is_one_warning_a_cause_and_has_no_plate_alive() -> None:
    store_readings = Scales(STORE, 8.0).readings()
    monitor, warnings = watched(scaled(store_readings, 0.001, set(NAMES)))
    assert len(warnings) == len(NAMES)  # Few enough to name each.
    assert not monitor.alive_since(T0)


def test_plates_in_grams_are_fit() -> None:
    """Coarse, calm, shaken and constant ones."""
    for noise_g, quantum_g in ((0.05, 0.0), (0.3, 0.241), (0.1, 1.0), (0.0, 0.0)):
        scales = Scales(STORE, 40.0, noise_g)
        scales.step(20.0, {NAMES[1]: -538.0})
        scales.shock(25.0, 26.5, 40.0)
        if quantum_g:
            scales.grams = np.round(scales.grams / quantum_g) * quantum_g
        monitor, warnings = watched(scales.readings())
        assert list(monitor.blind.unfit) == []
        assert {warning.kind for warning in warnings} <= {
            WarningKind.PLATE_STUCK, WarningKind.PLATE_NOISY, WarningKind.PLATE_RECOVERED,
        }  # fmt: skip


@pytest.mark.parametrize(("rate_hz", "samples"), [(10.0, 12), (10.0, 2), (10.0, 1), (30.0, 12), (80.0, 12)])
def test_a_plate_at_another_rate_is_unfit(rate_hz: float, samples: int) -> None:
    others = [reading for reading in Scales(STORE, 12.0).readings() if reading.plate != NAMES[4]]
    readings = sorted([*others, *at_rate(12.0, rate_hz, samples, [NAMES[4]])], key=lambda reading: reading.t_ns)
    monitor, warnings = watched(readings)
    found = [warning for warning in warnings if warning.kind is WarningKind.PLATE_RATE]
    assert [warning.subject for warning in found] == [NAMES[4]]
    assert_allclose(found[0].rate_hz, rate_hz, rtol=0.02)
    assert list(monitor.blind.unfit) == [4]


def test_messages_that_are_stamped_when_they_arrive_show_their_rate() -> None:
    """Times that err by half of a message's length, as those of a busy broker or of a small board do."""
    readings = Scales(STORE, 60.0).readings(jitter_ms=60.0)
    monitor, warnings = watched(readings)
    assert list(monitor.blind.unfit) == []
    assert [warning for warning in warnings if warning.kind is WarningKind.PLATE_RATE] == []


def test_lost_repeated_and_jittering_messages_are_no_other_rate() -> None:
    rng = np.random.default_rng(3)
    readings = Scales(STORE, 32.0).readings(jitter_ms=20.0)
    lossy = [reading for reading in readings if rng.random() > 0.3]
    lossy += [reading for reading in lossy if rng.random() < 0.1]
    lossy.sort(key=lambda reading: reading.t_ns)
    monitor, warnings = watched(lossy)
    assert list(monitor.blind.unfit) == []
    assert [warning for warning in warnings if warning.kind is WarningKind.PLATE_RATE] == []


def test_a_plate_whose_unit_is_put_right_is_fit_again() -> None:
    scales = Scales(STORE, 90.0)
    readings = scales.readings()
    half_ns = T0 + 20 * 10**9
    before = scaled([one for one in readings if one.t_ns < half_ns], 0.001, {NAMES[2]})
    monitor, warnings = watched(before + [one for one in readings if one.t_ns >= half_ns])
    kinds = [warning.kind for warning in warnings if warning.subject == NAMES[2]]
    assert kinds[0] is WarningKind.PLATE_UNIT and kinds[-1] is WarningKind.PLATE_FIT_AGAIN
    assert list(monitor.blind.unfit) == []


def test_many_plates_of_one_cause_are_one_warning() -> None:
    names = [f"p{n}" for n in range(24)]
    (warning,) = plate_warnings(T0, WarningKind.PLATE_UNIT, names)
    assert (warning.subject, warning.count, warning.detail) == ("24 plates", 24, ", ".join(names[:EACH_MAX]))
    each = plate_warnings(T0, WarningKind.PLATE_UNIT, names[:EACH_MAX])
    assert [warning.subject for warning in each] == names[:EACH_MAX]


def test_a_reach_into_an_unfit_plate_stays_a_doubt() -> None:
    """What an unfit plate, or nobody, reports explains nothing, and that it is right now does not show what was."""
    attributor = Attributor(STORE, Planogram(STORE))
    history = at_shelf({7: plate_hand(3), 8: plate_hand(6)}, 10.0)
    attributor.watch(BlindPlates(unfit=[3]), history, T0 + 9 * 10**9)
    attributor.observe(event(5.0, {3: -246.0}), history)
    reasons = attributor.cart([7]).reasons
    assert [(reason.kind, reason.plate) for reason in reasons] == [(ReasonKind.PLATE_UNFIT, NAMES[3])]
    assert attributor.cart([7]).items == {GTINS[3]: 1}
    attributor.watch(BlindPlates(), history, T0 + 10 * 10**9)
    assert attributor.cart([7]).probability <= 0.5
    assert attributor.cart([8]).reasons == ()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(0, 9), st.floats(-1e5, 1e5), st.booleans())
def test_noise_of_messages_is_their_standard_deviation(
    lengths: list[int], seed: int, level: float, broken: bool
) -> None:
    rng = np.random.default_rng(seed)
    grams = (level + rng.normal(0.0, 0.7, sum(lengths))).astype(np.float32)
    if broken:
        grams[rng.integers(len(grams))] = np.nan
    start = np.append(0, np.cumsum(lengths)).astype(np.uint32)
    assert_allclose(message_noise_g(start, grams), reference.message_noise_g(start, grams), rtol=1e-6, atol=1e-9)
    assert (message_noise_g(start, np.full_like(grams, level)) == 0.0).all()


@given(rate_hz=st.floats(5.0, 200.0), samples=st.integers(1, 20), lost=st.integers(0, 5))
def test_rates_count_samples(rate_hz: float, samples: int, lost: int) -> None:
    first = np.delete(np.arange(16), np.arange(5, 5 + lost))
    t_ns = T0 + (first * samples / rate_hz * 1e9).astype(np.int64)
    n = len(first)
    messages = Messages(np.ones(n, np.int64), t_ns, np.full(n, samples), np.ones(n))
    rates_hz = sample_rates_hz(messages, 3, 4.0 * rate_hz)
    assert np.isnan(rates_hz[[0, 2]]).all()
    assert_allclose(rates_hz[1], rate_hz, rtol=1e-6)


@pytest.mark.parametrize("unit", ["kg", "lb", "oz"])
def test_a_store_that_states_its_unit_bills_as_one_in_grams(unit: str) -> None:
    store = demo_store(n_cameras=4, n_plates=12)
    stated = store.model_copy(update={"weight_unit": unit})
    scenario = Scenario(seed=33, minutes=0.8, shoppers=3)
    tapped: list[Observation] = []
    answers = []
    for shop in (store, stated):
        engine = Engine(shop, tap=tapped.append if shop is stated else None)
        observations = list(Simulation(shop, scenario).observations())
        results = [result for one in observations for result in engine.feed(one)] + engine.close()
        answers.append([(r.account, r.status, r.total) for r in results if isinstance(r, Receipt)])
        assert not [result for result in results if isinstance(result, Warning) and "plate" in result.kind]
    assert answers[0] == answers[1] and any(total for _, _, total in answers[0])
    # A recording of what the engine used is in the store's unit again.
    raw = {(o.t_ns, o.plate): o.samples for o in observations if isinstance(o, ShelfReading)}
    assert all((o.samples == raw[o.t_ns, o.plate]).all() for o in tapped if isinstance(o, ShelfReading))


def test_a_field_recording_in_kilograms_is_billed_once_the_store_says_so(data: Path) -> None:
    recording = Recording(data / "field" / "03-plates-in-kg" / "recording")
    engine = Engine(recording.store.model_copy(update={"weight_unit": "kg"}))
    results = [result for one in recording.observations() for result in engine.feed(one)] + engine.close()
    receipts = [result for result in results if isinstance(result, Receipt)]
    truth = [json.loads(line) for line in (recording.folder / "truth" / "visits.jsonl").read_text().splitlines()]
    assert {r.account: {line.gtin: line.quantity for line in r.lines} for r in receipts} == {
        visit["account"]: visit["items"] for visit in truth
    }
    assert all(receipt.status is ReceiptStatus.SETTLED for receipt in receipts)


@pytest.mark.parametrize(("folder", "settled"), [("03-plates-in-kg", []), ("04-one-plate-in-kg", ["acc-vjbt7wi"])])
def test_field_recordings_in_kilograms_bill_nothing(data: Path, folder: str, settled: list[str]) -> None:
    """All plates, and one plate that one of two shoppers takes from."""
    recording = Recording(data / "field" / folder / "recording")
    engine = Engine(recording.store)
    results = [result for one in recording.observations() for result in engine.feed(one)] + engine.close()
    receipts = [result for result in results if isinstance(result, Receipt)]
    assert len(receipts) == 2
    assert [receipt.account for receipt in receipts if receipt.status == ReceiptStatus.SETTLED] == settled
    found = [result for result in results if isinstance(result, Warning)]
    assert [warning.kind for warning in found] == [WarningKind.PLATE_UNIT]
    assert found[0].subject in ("12 plates", "g3s3p01")
