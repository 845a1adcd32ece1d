"""Bodies keep the lengths of their limbs, and hands get where they should."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fusion.simulation.body import FOREARM, JOINT, SHANK, THIGH, UPPER_ARM, joints_m, posture


def test_limbs_keep_their_lengths():
    random = np.random.default_rng(1)
    state = np.zeros((500, 19))
    state[:, :2] = random.uniform(0, 5, (500, 2))
    state[:, 4:7] = np.column_stack([random.uniform(-4, 4, (500, 2)), random.uniform(0, 0.2, 500)])
    state[:, 7:9] = random.uniform(0, [0.25, 1.1], (500, 2))
    state[:, 9:12] = random.uniform([-0.4, 0, 0], [0.4, 1, 1], (500, 3))
    state[:, 12:15] = random.uniform([0, 0, 0.2], [5, 5, 1.9], (500, 3))
    stature_m = random.uniform(1.1, 1.95, 500)
    points = joints_m(state, stature_m)
    for bone, length in ((("shoulder", "elbow"), UPPER_ARM), (("elbow", "wrist"), FOREARM), (("hip", "knee"), THIGH)):
        for side in "lr":
            got = np.linalg.norm(points[:, JOINT[f"{side}_{bone[0]}"]] - points[:, JOINT[f"{side}_{bone[1]}"]], axis=1)
            assert_allclose(got, length * stature_m, rtol=1e-3)
    shank = np.linalg.norm(points[:, JOINT["l_knee"]] - points[:, JOINT["l_ankle"]], axis=1)
    assert np.median(np.abs(shank - SHANK * stature_m)) < 0.02


@pytest.mark.parametrize("height_m", [0.4, 0.8, 1.2, 1.6])
def test_posture_brings_the_hand_to_the_plate(height_m):
    crouch, lean = posture(1.7, 0.55, height_m, 0.1)
    state = np.zeros((1, 19))
    state[0, 7:9] = crouch, lean
    state[0, 11] = 1.0
    state[0, 12:15] = 0.55, -0.1, height_m
    wrist = joints_m(state, np.array([1.7]))[0, JOINT["r_wrist"]]
    assert np.linalg.norm(wrist - state[0, 12:15]) < 0.2, "a hand's length away, or a little more"
