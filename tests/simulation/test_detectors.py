"""Detectors as real ones: mistakes that last, cameras that differ, things that are taken for people."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from simulation.runs import SHORT, run, same

from fusion.observations import Frame
from fusion.simulation import REAL_DETECTOR, Scenario, Simulation, demo_store
from fusion.simulation.spells import Spells

EXACT = {
    "keypoint_noise": 0.0,
    "outlier_probability": 0.0,
    "swap_probability": 0.0,
    "ghosts_per_frame": 0.0,
    "joint_miss_probability": 0.0,
    "person_miss_probability": 0.0,
    "frame_drop_probability": 0.0,
}


def frames_of(observations):
    return [observation for observation in observations if isinstance(observation, Frame)]


@pytest.fixture(scope="module")
def crowd():
    """A busy minute before three cameras, with every mistake of real detectors and with none."""
    store = demo_store(n_cameras=3, n_plates=16).model_copy(update={"weight_rate_hz": 1.0})
    scenario = Scenario(seed=3, minutes=1.1, shoppers=4)
    return {
        name: frames_of(Simulation(store, other).observations())
        for name, other in (("real", scenario.with_real_detectors()), ("exact", replace(scenario, **EXACT)))
    }


def test_people_do_not_depend_on_their_detectors(store):
    plain, _ = run(store, minutes=0.7, shoppers=2)
    real, _ = run(store, minutes=0.7, shoppers=2, **REAL_DETECTOR)
    assert real.truth.visits == plain.truth.visits and real.truth.events == plain.truth.events


def test_a_run_is_repeated_by_its_seed(store):
    knobs = {"minutes": 0.7, "shoppers": 2, **REAL_DETECTOR}
    first, second = run(store, **knobs)[1], run(store, **knobs)[1]
    assert all(same(a, b) for a, b in zip(first, second, strict=True))


def test_spells_last_and_take_their_share():
    spells = Spells(SHORT, "misses", "cam1", 2.0)
    times_s = np.arange(0.0, 4000.0, 0.1)
    frame, row = np.arange(len(times_s)), np.zeros(len(times_s), np.int64)
    drawn = spells.at(times_s, np.array([4]), frame, row)
    again = Spells(SHORT, "misses", "cam1", 2.0)
    # What is asked for in pieces, and out of order, is the same.
    backwards = again.at(times_s, np.array([4]), frame[::-1], row)
    assert np.array_equal(backwards[::-1], drawn)
    for p in (0.3, 0.6):
        missed = drawn < p
        assert missed.mean() == pytest.approx(p, abs=0.04)
        lengths_s = 0.1 * np.diff(np.flatnonzero(np.diff(missed)))[::2]
        assert lengths_s.min() > 1.95
    other = spells.at(times_s, np.array([5]), frame, row)
    assert abs(np.corrcoef(other, drawn)[0, 1]) < 0.1


@pytest.fixture(scope="module")
def wide():
    """Eight cameras with a view of nearly everything."""
    return demo_store(n_cameras=8, n_plates=16).model_copy(update={"weight_rate_hz": 1.0})


def found_of(store, **knobs):
    """Of every frame in which an exact detector sees the one shopper, whether this one does; by camera."""
    _, exact = run(store, **{**EXACT, "shoppers": 1, "minutes": 1.0})
    _, observed = run(store, **{**EXACT, "shoppers": 1, "minutes": 1.0, **knobs})
    found = {}
    for a, b in zip(frames_of(exact), frames_of(observed), strict=True):
        if len(a.keypoints) == 1:
            found.setdefault(a.camera, []).append(len(b.keypoints) == 1)
    return {camera: np.array(seen) for camera, seen in found.items() if len(seen) > 300}


def test_a_camera_misses_a_person_for_a_stretch(wide):
    single = found_of(wide, person_miss_probability=0.4)
    lasting = found_of(wide, person_miss_probability=0.4, miss_spell_s=2.0)
    assert np.mean(np.concatenate(list(single.values()))) == pytest.approx(0.6, abs=0.06)
    assert np.mean(np.concatenate(list(lasting.values()))) == pytest.approx(0.6, abs=0.2)
    changes = {name: [np.diff(seen).mean() for seen in each.values()] for name, each in (("a", single), ("l", lasting))}
    # Where little of a person is in the picture, they are missed now and then whatever the spell.
    assert np.median(changes["a"]) > 0.4 and np.median(changes["l"]) < 0.2
    assert len({tuple(seen[:100]) for seen in lasting.values()}) > 1, "cameras miss independently"


def test_cameras_differ(wide):
    shares = [seen.mean() for seen in found_of(wide, person_miss_probability=0.2, camera_spread=1.5).values()]
    assert max(shares) - min(shares) > 0.1


def test_far_people_are_missed_more(wide):
    near = np.mean(np.concatenate(list(found_of(wide, person_miss_probability=0.2).values())))
    far = np.mean(np.concatenate(list(found_of(wide, person_miss_probability=0.2, miss_by_distance=3.0).values())))
    assert abs(near - far) > 0.03


def test_left_and_right_of_a_whole_person_are_exchanged(store):
    knobs = {**EXACT, "shoppers": 1, "minutes": 0.8}
    exact, mirrored = (frames_of(run(store, **knobs, mirror_probability=p)[1]) for p in (0.0, 1.0))
    left, right = (np.array(store.layout.indices(*(f"{s}_{j}" for j in ("shoulder", "hip", "knee")))) for s in "lr")
    compared = 0
    for a, b in zip(exact, mirrored, strict=True):
        if len(a.keypoints) == 1 == len(b.keypoints):
            assert np.array_equal(a.keypoints[0, left], b.keypoints[0, right])
            assert np.array_equal(a.keypoints[0, 0], b.keypoints[0, 0])
            compared += 1
    assert compared > 300


def test_scores_are_spread_as_measured(crowd):
    scores = np.concatenate([frame.keypoints[..., 2].ravel() for frame in crowd["real"]])
    quartiles = np.percentile(scores[scores > 0], [25, 50, 75])
    assert quartiles == pytest.approx([0.29, 0.61, 0.76], abs=0.12)
    exact = np.concatenate([frame.keypoints[..., 2].ravel() for frame in crowd["exact"]])
    assert np.percentile(exact[exact > 0], 25) > 0.7


def test_a_false_person_stays_at_one_place(store):
    """A thing is a person for eighty frames on end, at the same pixels; then it is none."""
    _, observations = run(store, **{**EXACT, "shoppers": 1, "false_people": 3, "minutes": 1.0})
    _, without = run(store, **{**EXACT, "shoppers": 1, "minutes": 1.0})
    extra = [
        (a.camera, detection)
        for a, b in zip(frames_of(observations), frames_of(without), strict=True)
        for detection in a.keypoints
        if not any(np.array_equal(detection, person) for person in b.keypoints)
    ]
    assert len(extra) > 80
    places = Counter()
    for camera, detection in extra:
        seen = detection[:, 2] > 0
        assert seen.sum() >= 4 and (detection[seen, 2] <= 0.6).all()
        places[camera, *np.round(np.median(detection[seen, :2], axis=0) / 60.0).tolist()] += 1
    assert len(places) < len(extra) / 20, "few places, each for long"
    assert len(extra) < 0.8 * 3 * len(frames_of(observations)), "not all the time"


@pytest.mark.parametrize(
    "knob, value", [("score_median", 1.0), ("score_median", 0.0), ("false_people", -1), ("camera_spread", math.nan)]
)
def test_nonsense_is_refused(knob, value):
    with pytest.raises(ValueError, match=knob):
        Scenario(**{knob: value})
