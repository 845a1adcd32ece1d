"""The library of faults: every fault changes what it says and nothing else, in the same way with one seed."""

from __future__ import annotations

import numpy as np
import pytest

from fusion.observations import Frame, GateScan, ShelfReading
from fusion.simulation import Scenario, demo_store
from fusion.simulation.faults import FAULTS, Part, Run
from fusion.simulation.faults.fault import sensor_of


def same(one, other):
    """Whether two observations are equal, NaN equal to NaN."""
    if type(one) is not type(other):
        return False
    values = [(getattr(one, name), getattr(other, name)) for name in type(one).__slots__]
    return one is other or all(
        np.array_equal(a, b, equal_nan=True) if isinstance(a, np.ndarray) else a == b for a, b in values
    )


KIND = {Part.SCALES: ShelfReading, Part.CAMERAS: Frame, Part.GATES: GateScan}


@pytest.fixture(scope="module")
def lively():
    scenario = Scenario(
        seed=17, minutes=0.9, shoppers=2, frame_rate_hz=8.0, put_back_probability=1.0, picks_per_person=6.0
    )
    return Run.of(demo_store(4, 20, 10), scenario)


def test_there_are_many_faults_of_every_part():
    assert len(FAULTS) >= 100 and {fault.part for fault in FAULTS.values()} == set(Part)
    assert len({fault.what for fault in FAULTS.values()}) > 0.9 * len(FAULTS)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_changes_its_part_only_and_is_repeatable(lively, name):
    fault = FAULTS[name]
    broken, again = fault.apply(lively, seed=3), fault.apply(lively, seed=3)
    assert broken.sensors and broken.sensors == again.sensors
    assert len(broken.observations) == len(again.observations)
    assert all(same(a, b) for a, b in zip(broken.observations[::7], again.observations[::7]))
    changed = len(broken.observations) != len(lively.observations) or any(
        not same(a, b) for a, b in zip(broken.observations, lively.observations)
    )
    assert changed, "nothing is broken"
    if fault.part in KIND:
        left = [id(o) for o in broken.observations if not isinstance(o, KIND[fault.part])]
        kept = [id(o) for o in lively.observations if not isinstance(o, KIND[fault.part])]
        assert kept == left, "another part of the store was changed"
    left_ids = {id(o) for o in broken.observations}
    untouched = [o for o in lively.observations if sensor_of(o) not in broken.sensors]
    assert all(id(o) in left_ids for o in untouched), "another sensor was changed"


def test_frames_arrive_three_seconds_late(lively):
    observations = FAULTS["frames late"].apply(lively).observations
    last_ns, late_s = 0, []
    for observation in observations:
        if isinstance(observation, ShelfReading):
            last_ns = observation.t_ns
        elif isinstance(observation, Frame) and last_ns:
            late_s.append((last_ns - observation.t_ns) / 1e9)
    assert np.median(late_s) == pytest.approx(3.0, abs=0.3)


def readings_of(observations, plate):
    return [o for o in observations if isinstance(o, ShelfReading) and o.plate == plate]


def test_a_rail_lasts_four_seconds_around_picks(lively):
    broken = FAULTS["rail of 24 bits"].apply(lively, seed=3)
    picks = [event for event in lively.truth.events if event.quantity < 0]
    for plate in broken.sensors:
        at_rail = [r.t_ns for r in readings_of(broken.observations, plate) if r.samples[0] > 80_000]
        assert any(abs(event.t_ns - np.mean(at_rail)) < 2.5e9 for event in picks)
        assert 17 <= len(at_rail) <= 20 * len(picks)


def test_a_restart_takes_what_lies_there_as_zero(lively):
    broken = FAULTS["restart over a pick"].apply(lively, seed=3)
    for plate in broken.sensors:
        readings = readings_of(broken.observations, plate)
        times_s = np.array([r.t_ns for r in readings]) / 1e9
        gap = int(np.argmax(np.diff(times_s)))
        assert np.diff(times_s)[gap] == pytest.approx(2.5, abs=0.3)
        assert np.median(readings[gap + 1].samples) == pytest.approx(0.0, abs=60.0)


def test_a_silent_plate_is_one_of_two_at_a_put_back(lively):
    broken = FAULTS["silent at put-backs"].apply(lively, seed=3)
    assert any(event.quantity > 0 for event in lively.truth.events)
    for plate in broken.sensors:
        times_s = np.array([r.t_ns for r in readings_of(broken.observations, plate)]) / 1e9
        assert 1.8 < np.diff(times_s).max() < 3.0


def test_10_hz_is_a_sixth_of_the_samples(lively):
    whole = sum(len(o.samples) for o in lively.observations if isinstance(o, ShelfReading))
    for name in ("10 Hz, short messages", "10 Hz, long messages"):
        broken = FAULTS[name].apply(lively, seed=3)
        samples = [o.samples for o in broken.observations if isinstance(o, ShelfReading)]
        assert sum(map(len, samples)) == pytest.approx(whole / 6, rel=0.05)
    assert {len(one) for one in samples} == {12}


def test_a_coat_hangs_where_it_hangs(lively):
    broken = FAULTS["a coat, two cameras"].apply(lively, seed=3)
    assert len(broken.sensors) == 2
    more = 0
    for before, after in zip(lively.observations, broken.observations, strict=True):
        if isinstance(before, Frame) and len(after.keypoints) > len(before.keypoints):
            more += 1
            assert (after.keypoints[-1, :, 2] > 0).sum() >= 4
    assert more > 60


def test_one_frame_of_each_camera_comes_from_the_next_hour(lively):
    broken = FAULTS["one frame an hour ahead"].apply(lively, seed=3)
    ahead = [a for a, b in zip(broken.observations, lively.observations) if a.t_ns != b.t_ns]
    assert len(ahead) == 4 and all(isinstance(o, Frame) for o in ahead)
