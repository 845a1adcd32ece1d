"""Association kernels beside their NumPy twins and SciPy, and the whole tracker over cameras and people.

    OMP_NUM_THREADS=1 python -m pytest bench/bench_association.py --benchmark-group-by=group

Answers are asserted equal before anything is timed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import linear_sum_assignment

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from reference import association as reference
from test_tracks import Room, store

from fusion._kernels import association as kernels
from fusion._kernels import triangulation
from fusion.tracks import Tracker

SCENES = [(12, 8), (28, 16)]


def walkers(n: int) -> list:
    """People on circles of their own, so that they neither collide nor leave the room."""
    spots = [(-2.4 + 1.6 * (k % 4), -2.4 + 1.6 * (k // 4)) for k in range(n)]
    return [
        lambda t, x=x, y=y, k=k: (x + 0.4 * np.cos(t + k), y + 0.4 * np.sin(t + k), t + k)
        for k, (x, y) in enumerate(spots)
    ]


def scene(n_views: int, n_people: int) -> tuple[Tracker, list]:
    tracker = Tracker(store(n_views=n_views))
    room = Room(tracker, "coco17", walkers(n_people))
    sets = [room.frames(k) for k in range(60)]
    for frames in sets[:20]:
        tracker.step(frames)
    return tracker, sets[20:]


@pytest.mark.parametrize("who", ["kernel", "numpy twin"])
@pytest.mark.parametrize("shape", SCENES, ids=str)
def test_costs(shape, who, benchmark):
    tracker, sets = scene(*shape)
    a = tracker._associator
    packed = a.pack(sets[0])
    args = (
        tracker.rig.camera_from_world, packed.dt_s, packed.start, packed.x, packed.y, packed.var, packed.seen,
        tracker._mean, tracker._cov, tracker._live, a.body_var, 16.0, 4.0, 0.06,
    )  # fmt: skip
    out = np.empty((len(tracker._live), len(packed.view_of)))
    triangulation.costs(*args, kernels.NEVER, out)
    # Pairs that are apart are not looked at: they cost the cap or more.
    assert_allclose(np.minimum(out, 16.0), np.minimum(reference.costs(*args), 16.0), rtol=1e-9)
    benchmark.group = f"costs, {shape[0]} cameras, {shape[1]} people"
    if who == "kernel":
        benchmark(triangulation.costs, *args, kernels.NEVER, out)
    else:
        benchmark(reference.costs, *args)


@pytest.mark.parametrize("who", ["kernel", "scipy"])
@pytest.mark.parametrize("n", [8, 60])
def test_assignment(n, who, benchmark):
    cost = np.random.default_rng(n).uniform(0, 14, (n, n))
    start, clipped = np.array([0, n]), np.minimum(cost, 10.0)
    track_of, detection_of = np.empty(n, np.int64), np.empty((n, 1), np.int64)
    kernels.assign(start, cost, 10.0, 0.0, track_of, detection_of)
    rows, columns = linear_sum_assignment(clipped)
    got = sum(min(cost[t, d], 10.0) if d >= 0 else 10.0 for t, d in enumerate(detection_of[:, 0]))
    assert_allclose(got, clipped[rows, columns].sum())
    benchmark.group = f"assignment, {n} x {n}"
    if who == "kernel":
        benchmark(kernels.assign, start, cost, 10.0, 0.0, track_of, detection_of)
    else:
        benchmark(linear_sum_assignment, clipped)


@pytest.mark.parametrize("shape", SCENES, ids=str)
def test_tracker_step(shape, benchmark):
    tracker, sets = scene(*shape)
    assert len(tracker.step(sets[0]).track_id) == shape[1]
    rest = iter(sets[1:])
    benchmark.group = f"one set of frames, {shape[0]} cameras, {shape[1]} people"
    benchmark.pedantic(lambda frames: tracker.step(frames), setup=lambda: ((next(rest),), {}), rounds=len(sets) - 1)
