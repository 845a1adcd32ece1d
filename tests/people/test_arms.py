"""Arm history: rows in time order, hands beyond wrists, and a capacity that holds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fusion.people.arms import HAND_BEYOND_WRIST_M, ArmHistory
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
