"""Every knob changes what is observed, and nonsense is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import zip_longest

import pytest
from simulation.runs import same

from fusion.simulation import Scenario, Simulation, demo_store

PEOPLE_KNOBS = [
    ("companions", 3),
    ("children", 1),
    ("tailgaters", 1),
    ("staff", 1),
    ("picks_per_person", 6.0),
    ("empty_handed_probability", 1.0),
    ("put_back_probability", 1.0),
    ("two_piece_probability", 1.0),
    ("second_grip_probability", 1.0),
    ("touch_probability", 1.0),
    ("straddle_probability", 1.0),
    ("hand_over_probability", 1.0),
    ("neighbour_probability", 1.0),
    ("odd_reach_probability", 1.0),
    ("batch_weight_sd", 0.02),
    ("misplaced_pieces", 60),
    ("count_error_probability", 1.0),
]


SENSOR_KNOBS = [
    ("frame_rate_hz", 10.0),
    ("frame_jitter_s", 0.006),
    ("frame_drop_probability", 0.3),
    ("cameras_out", 2),
    ("clock_offset_max_s", 0.1),
    ("keypoint_noise", 3.0),
    ("outlier_probability", 0.1),
    ("swap_probability", 0.5),
    ("joint_miss_probability", 0.3),
    ("person_miss_probability", 0.3),
    ("ghosts_per_frame", 0.5),
    ("plate_noise", 4.0),
    ("shocks_per_minute", 30.0),
    ("drift_g_per_min", 5.0),
    ("drifting_plates", 5),
    ("dead_plates", 3),
    ("gap_probability", 0.2),
    ("message_jitter_s", 0.02),
    ("calibration_error_px", 3.0),
    ("camera_spread", 2.0),
    ("wrist_noise", 3.0),
    ("guess_probability", 0.9),
    ("mirror_probability", 0.5),
    ("score_spread", 1.4),
    ("false_people", 3),
    ("hum_g", 2.0),
]


@pytest.fixture(scope="module")
def lively():
    """A busy shop without cameras."""
    bare = demo_store(n_cameras=0, n_plates=24, n_products=10)
    scenario = Scenario(seed=2, minutes=2.0, shoppers=4, companions=2)
    return bare, scenario, list(Simulation(bare, scenario).observations())


@pytest.fixture(scope="module")
def calm():
    """One shopper before two cameras."""
    small = demo_store(n_cameras=2, n_plates=12, n_products=6)
    scenario = Scenario(seed=2, minutes=0.6, shoppers=1, frame_rate_hz=6.0)
    return small, scenario, list(Simulation(small, scenario).observations())


def changes(base, knob, value):
    store, scenario, expected = base
    changed = Simulation(store, replace(scenario, **{knob: value})).observations()
    return any(not same(a, b) for a, b in zip_longest(changed, expected))


@pytest.mark.parametrize("knob, value", PEOPLE_KNOBS)
def test_knobs_of_people_change_what_is_observed(lively, knob, value):
    assert changes(lively, knob, value)


@pytest.mark.parametrize("knob, value", SENSOR_KNOBS)
def test_knobs_of_sensors_change_what_is_observed(calm, knob, value):
    assert changes(calm, knob, value)


@pytest.mark.parametrize(
    "knobs, message",
    [
        ({"shoppers": -1}, "shoppers"),
        ({"gap_probability": 1.5}, "gap_probability"),
        ({"minutes": math.nan}, "minutes"),
        ({"minutes": 0.5, "shoppers": 20}, "at least"),
        ({"frame_rate_hz": 0.0}, "frame_rate_hz"),
        ({"clock_offset_max_s": 0.5}, "clock_offset_max_s"),
    ],
)
def test_a_scenario_refuses_nonsense(knobs, message):
    with pytest.raises(ValueError, match=message):
        Scenario(**knobs)
