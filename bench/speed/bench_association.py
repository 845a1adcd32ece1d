"""Association kernels beside their NumPy twins and SciPy, and the whole tracker over cameras and people.

    OMP_NUM_THREADS=1 python -m bench association --benchmark-group-by=group

Answers are asserted equal before anything is timed.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_allclose
from people.rooms import Room, store
from reference import association as reference
from scipy.optimize import linear_sum_assignment

from fusion._kernels import triangulation
from fusion.people.tracker import Tracker
from fusion.people.workspace import JOINT_COST_CAP, JOINTS_MIN, MATCH_GATE, PREDICTION_SD_MAX_M, Workspace

SCENES = [(12, 8), (28, 16)]


def walkers(n: int) -> list:
    """People on separate circles, so that they neither collide nor leave the room."""
    spots = [(-2.4 + 1.6 * (k % 4), -2.4 + 1.6 * (k // 4)) for k in range(n)]
    return [
        lambda t, x=x, y=y, k=k: (x + 0.4 * np.cos(t + k), y + 0.4 * np.sin(t + k), t + k)
        for k, (x, y) in enumerate(spots)
    ]


@cache
def recorded(n_views: int, n_people: int) -> list:
    """Sets of frames, simulated once for all benchmarks: that takes far longer than what they measure."""
    room = Room(Tracker.of_store(store(n_views=n_views)), "coco17", walkers(n_people))
    return [room.frames(k) for k in range(60)]


def scene(n_views: int, n_people: int) -> tuple[Tracker, list]:
    tracker = Tracker.of_store(store(n_views=n_views))
    sets = recorded(n_views, n_people)
    for frames in sets[:20]:
        tracker.step(frames)
    return tracker, sets[20:]


def bound(shape: tuple[int, int]) -> tuple[Workspace, np.ndarray, tuple]:
    """A workspace with a set's detections, the rows of its tracks, and the twin's arguments for the same data."""
    tracker, sets = scene(*shape)
    ws, rows = tracker._workspace, tracker.tracks.live
    packed = tracker._associator.pack(sets[0])
    keys = ws.keys[ws.keys >= 0]
    detections = [np.ascontiguousarray(array[:, keys]) for array in packed.detections[4:]]
    args = (
        ws.camera_from_world, ws.dt_s, ws.start, *detections, ws.mean[:, :, keys].copy(), ws.cov[:, :, keys].copy(),
        rows, ws.body_var[keys], JOINT_COST_CAP, float(JOINTS_MIN), PREDICTION_SD_MAX_M**2,
    )  # fmt: skip
    return ws, rows, args


@pytest.mark.parametrize("implementation", ["kernel", "numpy twin"])
@pytest.mark.parametrize("shape", SCENES, ids=str)
def test_costs(shape, implementation, benchmark):
    ws, rows, args = bound(shape)
    out = np.full((len(rows), ws.start[-1]), triangulation.NEVER)
    ws.kernels.costs(rows, MATCH_GATE, out)
    # The kernel does not write costs above the gate; single precision.
    assert_allclose(np.minimum(out, MATCH_GATE), np.minimum(reference.costs(*args), MATCH_GATE), atol=2e-3)
    benchmark.group = f"costs, {shape[0]} cameras, {shape[1]} people"
    if implementation == "kernel":
        benchmark(ws.kernels.costs, rows, MATCH_GATE, out)
    else:
        benchmark(reference.costs, *args)


@pytest.mark.parametrize("implementation", ["kernel", "numpy twin and scipy"])
@pytest.mark.parametrize("shape", SCENES, ids=str)
def test_matching(shape, implementation, benchmark):
    ws, rows, args = bound(shape)

    def plain() -> np.ndarray:
        cost = np.minimum(reference.costs(*args), MATCH_GATE)
        chosen = np.full((len(rows), shape[0]), -1)
        for view in range(shape[0]):
            first, stop = ws.start[view], ws.start[view + 1]
            people, detections = linear_sum_assignment(cost[:, first:stop])
            kept = cost[people, first + detections] < MATCH_GATE
            chosen[people[kept], view] = first + detections[kept]
        return chosen

    ws.kernels.match(rows)
    np.testing.assert_array_equal(ws.detection_of[: len(rows)], plain())
    benchmark.group = f"matching, {shape[0]} cameras, {shape[1]} people"
    if implementation == "kernel":
        benchmark(ws.kernels.match, rows)
    else:
        benchmark(plain)


@pytest.mark.parametrize("shape", SCENES, ids=str)
def test_tracker_step(shape, benchmark):
    tracker, sets = scene(*shape)
    assert len(tracker.step(sets[0]).track_id) == shape[1]
    later = iter(sets[1:])
    benchmark.group = f"one set of frames, {shape[0]} cameras, {shape[1]} people"
    benchmark.pedantic(lambda frames: tracker.step(frames), setup=lambda: ((next(later),), {}), rounds=len(sets) - 1)
