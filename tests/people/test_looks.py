"""Looks at a few people: each kernel against its twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import looks as reference

from fusion._kernels import looks

ODD = (np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0, 0.5)


def frame(random: np.random.Generator, n_people: int, n_joints: int) -> np.ndarray:
    """Keypoints some of which no camera reports."""
    keypoints = random.uniform(-300.0, 1500.0, (n_people, n_joints, 3))
    keypoints[:, :, 2] = random.uniform(-0.5, 1.0, (n_people, n_joints))
    keypoints[random.random(n_people) < 0.3, :, :2] /= 1500.0
    odd = random.random(keypoints.shape) < 0.05
    keypoints[odd] = random.choice(ODD, int(odd.sum()))
    keypoints[random.random(n_people) < 0.2, :, 2] = 0.0
    return keypoints.astype(np.float32)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 6), st.sampled_from([2, 17]))
def test_a_tally_matches_its_twin(seed: int, n_people: int, n_joints: int) -> None:
    keypoints, size_px = frame(np.random.default_rng(seed), n_people, n_joints), np.array([1280.0, 720.0])
    counts, share = reference.tally(keypoints, size_px, 0.02, 2.0)
    used = np.array([0.1, 0.0])
    assert looks.tally(keypoints, size_px, 0.02, 2.0, used) == counts
    assert (used == np.maximum(share, [0.1, 0.0])).all()


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 100), st.sampled_from([2, 17]))
def test_people_and_what_is_compared_of_them_match_their_twins(seed: int, turn: int, n_joints: int) -> None:
    random = np.random.default_rng(seed)
    frames, limits = [frame(random, n, n_joints) for n in (9, 3, 1)], [6, 8, 0]
    people, counts = looks.gather(frames, limits, turn)
    twin, twin_counts = reference.gather(frames, limits, turn)
    assert counts == twin_counts and (people == twin).all()

    views = np.repeat([2, 0, 1], counts)
    factors, lenses = random.uniform(0.5, 2.0, (3, 2)), random.normal(size=(3, 9))
    points_px, lens = np.full((len(people), n_joints, 2), np.nan), np.full((len(people), 9), np.nan)
    looks.scale(people, views, factors, lenses, points_px, lens)
    assert (points_px == people[:, :, :2] * factors[views, None]).all() and (lens == lenses[views]).all()

    normalised = points_px.copy()
    normalised[random.random(normalised.shape) < 0.05] = 1e300
    var, n_padded = random.uniform(1.0, 2.0, 3), -(-n_joints // 8) * 8
    out = np.full((4, len(people), n_padded), np.nan, np.float32)
    n_enough = looks.spread(normalised, people, views, var, 0.1, 2.0, counts[0], *out)
    expected = np.array(reference.spread(normalised, people, var[views], 0.1, n_padded))
    assert (out == expected).all()
    assert n_enough == (expected[3, : counts[0]].sum(axis=1) >= 2.0).sum()


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="float32"):
        looks.gather([np.zeros((1, 17, 3))], [1], 0)
