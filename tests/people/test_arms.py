"""Arm history: rows in time order, hands beyond wrists, a capacity that holds, and smoothed wrists and elbows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from people.rooms import store
from reference import arms as reference

from fusion.people import arms
from fusion.people.arms import HAND_BEYOND_WRIST_M, ArmHistory
from fusion.people.geometry import Rig
from fusion.people.workspace import JOINT_SD_MAX_M, VELOCITY_DECAY_S, Workspace
from fusion.results import People
from fusion.store.layouts import LAYOUTS

COCO = LAYOUTS["coco17"]
S = 1_000_000_000


def people(t_s: float, places: dict[int, tuple[float, float]]) -> People:
    """People with all joints above their places; left arms point along x: wrist at 0.6 m, elbow at 0.3 m."""
    n = len(places)
    position = np.array(list(places.values()), float).reshape(n, 2)
    joints = np.repeat(np.column_stack([position, np.ones(n)])[:, None], COCO.n_joints, axis=1)
    joints[:, COCO.index("l_wrist"), 0] += 0.6
    joints[:, COCO.index("l_elbow"), 0] += 0.3
    joints[:, COCO.index("r_wrist")] = np.nan
    return People(
        t_ns=round(t_s * S), track_id=np.array(list(places), np.int64), confirmed=np.ones(n, bool),
        position_m=position, position_sd_m=np.full(n, 0.05), joints_m=joints,
        joints_sd_m=np.full((n, COCO.n_joints), 0.02), seen_ns=np.full(n, round(t_s * S)), identity=np.ones(n),
    )  # fmt: skip


def test_rows_between_two_instants_include_both():
    history = ArmHistory(COCO)
    for t_s in (1.0, 2.0, 3.0):
        history.append(people(t_s, {7: (0, 0), 8: (1, 1)}))
    rows = history.between(round(2.0 * S), round(3.0 * S))
    assert_array_equal(history.t_ns[rows], np.array([2, 2, 3, 3]) * S)
    assert_array_equal(history.track[rows], [7, 8, 7, 8])


def test_the_rows_of_an_instant_match_a_twin():
    random, history = np.random.default_rng(3), ArmHistory(COCO, capacity=8)
    sides = [COCO.indices(*(f"{side}_{joint}" for joint in ("wrist", "elbow", "shoulder"))) for side in ("l", "r")]
    for n in (3, 0, 4):
        first, now = history.between(0, 100 * S).stop, people(2.0, dict.fromkeys(range(40, 40 + n), (0.0, 0.0)))
        now = replace(
            now, confirmed=random.random(n) < 0.5, position_m=random.normal(size=(n, 2)),
            joints_m=random.normal(size=(n, COCO.n_joints, 3)), joints_sd_m=random.normal(size=(n, COCO.n_joints)),
        )  # fmt: skip
        history.append(now)
        rows = slice(first, first + n)
        assert history.between(0, 100 * S).stop == first + n
        for column, expected in (
            (history.t_ns, np.full(n, now.t_ns)), (history.track, now.track_id), (history.confirmed, now.confirmed),
            (history.position_m, now.position_m), (history.arms_m, now.joints_m[:, sides]),
            (history.sd_m, now.joints_sd_m[:, sides]),
        ):  # fmt: skip
            assert_array_equal(column[rows], expected)


def test_hands_lie_beyond_the_wrists_along_the_forearms():
    history = ArmHistory(COCO)
    history.append(people(1.0, {7: (0, 0)}))
    hands = history.hands_m(slice(0, 1))
    assert_allclose(hands[0, 0], [0.6 + HAND_BEYOND_WRIST_M, 0.0, 1.0])
    assert np.isnan(hands[0, 1]).all()


def test_a_person_was_near_a_place_since_an_instant():
    history = ArmHistory(COCO)
    history.append(people(1.0, {7: (0, 0), 8: (5, 5)}))
    history.append(people(10.0, {7: (5, 0)}))
    here = np.array([0.0, 0.2])
    assert history.was_near([7], here, 0.5, since_ns=round(1.5 * S))
    assert not history.was_near([8], here, 0.5, since_ns=0)
    assert not history.was_near([7], here, 0.5, since_ns=round(5.0 * S))


@pytest.mark.parametrize("capacity", [8, 9])
def test_a_full_table_drops_its_oldest_half(capacity):
    history = ArmHistory(COCO, span_s=1000.0, capacity=capacity)
    for t_s in range(20):
        history.append(people(float(t_s), {7: (t_s, 0)}))
        kept = history.t_ns[history.between(0, 100 * S)]
        assert kept[-1] == t_s * S and len(kept) <= capacity
        assert_array_equal(np.diff(kept), S)


def test_boxes_keep_places_without_arms():
    box = LAYOUTS["box2"]
    history = ArmHistory(box)
    n = 1
    history.append(
        People(
            t_ns=S, track_id=np.array([3]), confirmed=np.ones(n, bool), position_m=np.zeros((n, 2)),
            position_sd_m=np.full(n, 0.05), joints_m=np.zeros((n, 2, 3)), joints_sd_m=np.full((n, 2), 0.1),
            seen_ns=np.array([S]), identity=np.ones(n),
        )
    )  # fmt: skip
    assert np.isnan(history.arms_m[0]).all() and history.track[0] == 3


MODEL = {
    "decay_s": arms.DECAY_S, "speed_var": arms.SPEED_VAR_M2_S2, "corrected_share": arms.CORRECTED_SHARE,
    "corrected_min": arms.CORRECTED_MIN, "lasting_share": arms.LASTING_SHARE, "lasting_max": arms.LASTING_MAX,
    "sd_max_m": arms.SD_MAX_M,
}  # fmt: skip


def filtered(rng: np.random.Generator, n: int, unseen: float, sd_m: float) -> tuple[np.ndarray, ...]:
    """A joint that moves as the model says, measured with sd_m except for a share, and a Kalman filter's answers.

    Returns t_s (n,), true places (n, 3), filtered places (n, 3) and deviations (n,).
    """
    t_s = np.cumsum(rng.uniform(0.05, 0.08, n))
    state, mean, cov = np.zeros((2, 3)), np.zeros((2, 3)), np.diag([sd_m**2, arms.SPEED_VAR_M2_S2])
    state[1] = rng.normal(0, math.sqrt(arms.SPEED_VAR_M2_S2), 3)
    mean[0] = rng.normal(0, sd_m, 3)
    true_m, places_m, deviations_m = [state[0]], [mean[0]], [sd_m]
    for dt in np.diff(t_s):
        kept = math.exp(-dt / arms.DECAY_S)
        step = np.array([[1.0, arms.DECAY_S * (1.0 - kept)], [0.0, kept]])
        noise = arms.WRIST_ACCELERATION * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
        state = step @ state + np.linalg.cholesky(noise) @ rng.normal(size=(2, 3))
        mean, cov = step @ mean, step @ cov @ step.T + noise
        if rng.random() >= unseen:
            gain = cov[:, 0] / (cov[0, 0] + sd_m**2)
            mean = mean + np.outer(gain, state[0] + rng.normal(0, sd_m, 3) - mean[0])
            cov = cov - np.outer(gain, cov[0])
        true_m, places_m = [*true_m, state[0]], [*places_m, mean[0]]
        deviations_m.append(math.sqrt(cov[0, 0]))
    return t_s, np.array(true_m), np.array(places_m), np.array(deviations_m)


def of_wrist(t_s: np.ndarray, places_m: np.ndarray, sd_m: np.ndarray, track: int = 7) -> ArmHistory:
    """A person at the origin whose left wrist takes these places."""
    history = ArmHistory(COCO)
    for t, place, sd in zip(t_s, places_m, sd_m):
        person = people(t, {track: (0, 0)})
        person.joints_m[0, COCO.index("l_wrist")] = place
        person.joints_sd_m[0, COCO.index("l_wrist")] = sd
        history.append(person)
    return history


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 0.8), st.floats(0.01, 0.1), st.integers(0, 5))
def test_the_smoother_agrees_with_its_twin(seed, unseen, sd_m, n_unknown):
    rng = np.random.default_rng(seed)
    t_s, _, places_m, sds_m = filtered(rng, 30, unseen, sd_m)
    unknown = rng.choice(30, n_unknown, replace=False)
    places_m[unknown], sds_m[unknown] = np.nan, np.nan
    history = of_wrist(t_s, places_m, sds_m)
    rows = slice(9, 20)
    smoothed = history.smoothed(rows, np.zeros(2), 1.0)
    over = history.between(
        history.t_ns[rows.start] - arms.SMOOTHED_OVER_NS, history.t_ns[rows.stop - 1] + arms.SMOOTHED_OVER_NS
    )
    wanted = np.zeros(over.stop - over.start, bool)
    wanted[rows.start - over.start : rows.stop - over.start] = True
    seconds = (history.t_ns[over] - history.t_ns[over.start]) * 1e-9
    twin_m, twin_sd_m = reference.smooth_joint(
        seconds, places_m[over], sds_m[over], arms.WRIST_ACCELERATION, wanted, MODEL
    )
    assert_allclose(smoothed.arms_m[:, 0, 0], twin_m[wanted], atol=1e-9)
    assert_allclose(smoothed.sd_m[:, 0, 0], twin_sd_m[wanted], atol=1e-9)
    assert_array_equal(smoothed.arms_m[:, 0, 2], history.arms_m[rows, 0, 2])
    assert np.isnan(smoothed.arms_m[:, 1, 0]).all()


def test_smoothing_uses_what_was_seen_afterwards_and_reports_honest_deviations():
    rng = np.random.default_rng(1)
    before, after, nees = [], [], []
    for _ in range(60):
        t_s, true_m, places_m, sds_m = filtered(rng, 40, 0.4, 0.03)
        rows = slice(15, 26)
        smoothed = of_wrist(t_s, places_m, sds_m).smoothed(rows, np.zeros(2), 1.0)
        before.append(np.linalg.norm(places_m[rows] - true_m[rows], axis=1))
        after.append(np.linalg.norm(smoothed.arms_m[:, 0, 0] - true_m[rows], axis=1))
        nees.append((after[-1] / smoothed.sd_m[:, 0, 0]) ** 2 / 3)
    assert np.mean(after) < 0.75 * np.mean(before)
    # Errors of this filter do not last, so the deviations are a little wide.
    assert 0.5 < np.mean(nees) < 1.0


def test_a_gap_is_filled_from_both_sides_and_its_deviation_grows_with_its_length():
    t_s = np.arange(0, 4, 0.07)
    places_m = np.column_stack([0.5 * t_s, np.zeros_like(t_s), np.ones_like(t_s)])
    sds_m = np.full(len(t_s), 0.02)
    middle = []
    for n in (3, 7):
        gap = slice(28 - n // 2, 28 + n // 2 + 1)
        holed_m, holed_sd_m = places_m.copy(), sds_m.copy()
        holed_m[gap], holed_sd_m[gap] = np.nan, np.nan
        smoothed = of_wrist(t_s, holed_m, holed_sd_m).smoothed(slice(24, 33), np.zeros(2), 1.0)
        assert_allclose(smoothed.arms_m[:, 0, 0], places_m[24:33], atol=0.03)
        middle.append(smoothed.sd_m[4, 0, 0])
    assert 0.02 < middle[0] < middle[1] < 0.15


def test_arms_of_people_elsewhere_and_without_arms_are_as_recorded():
    t_s, _, places_m, sds_m = filtered(np.random.default_rng(2), 20, 0.2, 0.03)
    history = of_wrist(t_s, places_m, sds_m)
    far = history.smoothed(slice(5, 12), np.array([2.0, 0.0]), 1.0)
    assert_array_equal(far.arms_m, history.arms_m[5:12])
    assert_array_equal(far.sd_m, history.sd_m[5:12])
    assert not len(history.smoothed(slice(3, 3), np.zeros(2), 1.0).sd_m)
    assert len(ArmHistory(LAYOUTS["box2"]).smoothed(slice(0, 0), np.zeros(2), 1.0).arms_m) == 0


def test_the_motion_is_what_the_tracker_assumes():
    workspace = Workspace(Rig.from_cameras(store(n_views=2).cameras), COCO, 0, 1)
    for joint, acceleration in (("wrist", arms.WRIST_ACCELERATION), ("elbow", arms.ELBOW_ACCELERATION)):
        assert workspace.acceleration[COCO.index(f"l_{joint}")] == acceleration
    assert arms.DECAY_S == VELOCITY_DECAY_S and arms.SD_MAX_M == JOINT_SD_MAX_M
