"""Association kernels against their twins and SciPy, grouping on synthetic people, and what packing refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from reference import association as reference
from scipy.optimize import linear_sum_assignment

from fusion._kernels import association as kernels
from fusion._kernels import triangulation
from fusion.association import DETECTIONS_PER_FRAME_MAX, Associator
from fusion.errors import ShapeError
from fusion.geometry import Rig
from fusion.layouts import LAYOUTS
from fusion.observations import Frame

SEEDS = st.integers(0, 2**31)
COCO = LAYOUTS["coco17"]
T0 = 1_700_000_000_000_000_000


def room(n_views: int = 4, seed: int = 0) -> Rig:
    """Cameras in a circle of 5 m around the room's middle, 2.5 m up."""
    rng = np.random.default_rng(seed)
    world = np.empty((n_views, 3, 4))
    for view in range(n_views):
        angle = 2 * np.pi * view / n_views + rng.uniform(0, 0.3)
        eye = np.array([5 * np.cos(angle), 5 * np.sin(angle), 2.5])
        forward = np.array([0, 0, 0.9]) - eye
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        world[view] = np.column_stack([rotation, -rotation @ eye])
    lens = np.tile([[700.0, 0, 640], [0, 700, 360], [0, 0, 1]], (n_views, 1, 1))
    names = tuple(f"c{v}" for v in range(n_views))
    return Rig(names, world, lens, np.zeros((n_views, 5)), np.tile([1280.0, 720.0], (n_views, 1)))


def standing(rng: np.random.Generator, x: float, y: float, stature: float = 1.0) -> np.ndarray:
    """(17, 3) joints of somebody who stands at a place."""
    side = np.array([0.1 if j.startswith("l_") else -0.1 if j.startswith("r_") else 0.0 for j in COCO.joints])
    turn = rng.uniform(0, 2 * np.pi)
    wide = side[:, None] * [np.cos(turn), np.sin(turn)] * 1.5
    return np.column_stack([wide + np.array([x, y]), stature * COCO.heights_m[:, 0]])


def seen(rng: np.random.Generator, rig: Rig, people: list[np.ndarray], sd_px: float = 2.0) -> list[Frame]:
    frames = []
    for view, name in enumerate(rig.names):
        rows = []
        for joints in people:
            pixels = rig.project(joints)[view] + rng.normal(0, sd_px, (len(joints), 2))
            rows.append(np.column_stack([pixels, np.full(len(joints), 0.9)]))
        frames.append(Frame(T0, name, np.array(rows, np.float32).reshape(-1, 17, 3)))
    return frames


@given(SEEDS, st.integers(1, 6), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_assignment_matches_scipy(seed, n_tracks, n_detections):
    rng = np.random.default_rng(seed)
    cost = rng.uniform(0, 14, (n_tracks, n_detections))
    start = np.array([0, n_detections], np.int64)
    track_of = np.full(n_detections, 99, np.int64)
    detection_of = np.full((n_tracks, 1), 99, np.int64)
    kernels.assign(start, cost, 10.0, 0.0, track_of, detection_of)
    clipped = np.minimum(cost, 10.0)
    rows, columns = linear_sum_assignment(clipped)
    got = sum(cost[t, d] for t, d in enumerate(detection_of[:, 0]) if d >= 0)
    kept = [(t, d) for t, d in zip(rows, columns) if cost[t, d] < 10]
    n_got = (detection_of >= 0).sum()
    expected = sum(cost[t, d] for t, d in kept) - 10 * len(kept)
    assert_allclose(got - 10 * n_got, expected)
    for track, d in enumerate(detection_of[:, 0]):
        assert d < 0 or track_of[d] == track


def test_a_person_seen_twice_in_one_view_is_set_aside():
    cost = np.array([[1.0, 2.0, 20.0]])
    track_of, detection_of = np.empty(3, np.int64), np.empty((1, 1), np.int64)
    kernels.assign(np.array([0, 3]), cost, 10.0, 6.0, track_of, detection_of)
    assert track_of.tolist() == [0, -2, -1]


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_costs_match_reference(seed):
    rng = np.random.default_rng(seed)
    rig = room(3)
    n_padded, counts = 8, rng.integers(0, 4, 3)
    start = np.concatenate([[0], np.cumsum(counts)])
    n = int(start[-1])
    x, y = rng.uniform(-0.4, 0.4, (2, n, n_padded))
    var, on = rng.uniform(1e-5, 1e-4, (n, n_padded)), (rng.uniform(size=(n, n_padded)) < 0.7).astype(float)
    mean = rng.uniform(-1, 1, (4, 6, n_padded))
    root = rng.normal(0, 0.2, (4, n_padded, 6, 6))
    cov = np.ascontiguousarray((root @ root.transpose(0, 1, 3, 2))[..., *np.tril_indices(6)].transpose(0, 2, 1))
    rows, body = np.array([2, 0, 3]), rng.uniform(1e-4, 1e-2, n_padded)
    dt_s = -rng.uniform(0, 0.1, 3)
    args = (rig.camera_from_world, dt_s, start, x, y, var, on, mean, cov, rows, body, 16.0, 3.0, 0.06)
    out = np.full((3, n), np.nan)
    triangulation.costs(*args, kernels.NEVER, out)
    # Pairs that are apart are not looked at: they cost the cap or more.
    assert_allclose(np.minimum(out, 16.0), np.minimum(reference.costs(*args), 16.0), rtol=1e-9)


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_noise_matches_reference(seed):
    rng = np.random.default_rng(seed)
    rig = room(3, seed)
    packed = Associator(rig, COCO).pack(seen(rng, rig, [standing(rng, x, x) for x in (-1.0, 0.5)]))
    n_padded = packed.x.shape[1]
    mean = np.zeros((2, 6, n_padded))
    mean[:, :3, :17] = np.stack([standing(rng, x, x).T for x in (-1.0, 0.5)])
    mean[:, 3:] = rng.normal(0, 1, (2, 3, n_padded))
    root = rng.normal(0, 0.1, (2, n_padded, 6, 6))
    cov = np.ascontiguousarray((root @ root.swapaxes(-1, -2))[..., *np.tril_indices(6)].swapaxes(1, 2))
    dt_s, rows = -rng.uniform(0, 0.1, 3), np.array([1, 0])
    detection_of = np.array([[1, 3, -1], [0, -1, -1]])
    body, acceleration = rng.uniform(1e-4, 1e-2, n_padded), rng.uniform(0, 20, n_padded)
    seen_ones = packed.seen * (rng.uniform(size=packed.seen.shape) < 0.8)
    given_ = rig.camera_from_world, dt_s, packed.x, packed.y, packed.var, seen_ones, mean, cov, rows, detection_of
    total, count = np.zeros(n_padded), np.zeros(n_padded)
    kernels.noise(*given_, body, acceleration, 4.0, total, count)
    expected = reference.noise(*given_, body, acceleration, 4.0)
    assert_allclose(total, expected[0], rtol=1e-9)
    assert_allclose(count, expected[1])


@given(SEEDS, st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_grouping_finds_the_people_whatever_the_order_of_detections(seed, n_people):
    rng = np.random.default_rng(seed)
    rig = room(5)
    spots = rng.permutation([(-1.2, -1.2), (1.2, -1.1), (1.1, 1.3), (-1.3, 1.0), (0, 0)])[:n_people]
    frames = seen(rng, rig, [standing(rng, x, y) for x, y in spots])
    shuffled, truth = [], []
    for frame in frames:
        order = rng.permutation(n_people)
        shuffled.append(Frame(frame.t_ns, frame.camera, frame.keypoints[order]))
        truth.extend(order)
    associator = Associator(rig, COCO)
    packed = associator.pack(shuffled)
    members, places, single = associator.group(packed, np.arange(5 * n_people))
    assert len(members) == n_people and len(single) == 0
    for group, place in zip(members, places):
        people = {truth[d] for d in group}
        assert len(people) == 1 and len(group) == 5
        assert np.hypot(*(place[:2] - spots[people.pop()])) < 0.1


def test_somebody_whom_one_camera_sees_is_placed_with_an_honest_deviation():
    rng = np.random.default_rng(1)
    rig, normalised = room(1), []
    for _ in range(300):
        x, y = rng.uniform(-1.5, 1.5, 2)
        associator = Associator(rig, COCO)
        packed = associator.pack(seen(rng, rig, [standing(rng, x, y, rng.normal(1.0, 0.06))]))
        place = associator.stand(packed, 0)
        cov = np.array([[place[2], place[3]], [place[3], place[4]]])
        error = place[:2] - [x, y]
        normalised.append(error @ np.linalg.inv(cov) @ error)
    # Two dimensions: 2 on average were the claim exact; it must not be bold.
    assert 0.2 < np.mean(normalised) < 2.4


def test_who_looks_at_a_place_agrees_with_sampled_lines_of_sight():
    rng = np.random.default_rng(2)
    rig = room(6)
    boxes = np.array([[0.5, -2.0, 1.0, 2.0, 1.8], [-2.0, 0.5, 0.0, 0.9, 1.2]])
    places, heights = rng.uniform(-3, 3, (60, 2)), np.array([1.0, 1.5])
    live = np.array([True, True, True, False, True, True])
    out = np.empty((60, 6), bool)
    kernels.looking(places, heights, rig.camera_from_world, rig.lenses, rig.size_px, live, boxes, out)
    assert (out == reference.looking(places, heights, rig, live, boxes)).mean() > 0.99


def test_whose_place_cameras_speak_against_agrees_with_sampled_lines_of_sight():
    rng = np.random.default_rng(4)
    rig = room(5)
    boxes = np.array([[0.5, -2.0, 1.0, 2.0, 1.8], [-2.0, 0.5, 0.0, 0.9, 1.2]])
    live = np.array([True, True, True, False, True])
    outs, expected = [], []
    for _ in range(20):
        n = 8
        places, tops = rng.uniform(-2.5, 2.5, (n, 2)), rng.uniform(0.9, 1.9, n)
        mean, cov = np.zeros((n, 6, 8)), np.zeros((n, 21, 8))
        mean[:, 2, :2] = np.column_stack([tops - 0.12, tops - 0.5])
        # A joint of which nothing is known says nothing of how tall somebody is; nor does somebody without any.
        mean[:, 2, 1], cov[:, 5, 1] = 5.0, 1.0
        cov[0, 5, 0], tops[0] = 1.0, 1.7
        detection_of = np.where(rng.random((n, 5)) < 0.35, 0, -1)
        detection_of[:, ~live] = -1
        out = np.empty(n, bool)
        kernels.contradicted(
            mean, cov, np.arange(n), 2, places, detection_of, rig.camera_from_world, rig.lenses, rig.size_px, live,
            boxes, 0.3, 1.7, 0.12, out,
        )  # fmt: skip
        outs.append(out)
        expected.append(reference.contradicted(tops, places, detection_of >= 0, rig, live, boxes, 0.3))
    assert 0.2 < np.mean(expected) < 0.8
    assert (np.array(outs) == np.array(expected)).mean() > 0.98


def test_packing_counts_what_it_cannot_use():
    rng = np.random.default_rng(3)
    rig = room(2)
    associator = Associator(rig, COCO)
    good = seen(rng, rig, [standing(rng, 0, 0)])
    broken = good[0].keypoints.copy()
    broken[0, 3, 0] = np.nan
    broken[0, 4, 2] = np.inf
    broken[0, 5, 1] = 1e30
    crowd = np.repeat(good[1].keypoints, DETECTIONS_PER_FRAME_MAX + 2, axis=0)
    frames = [Frame(T0, "c0", broken), Frame(T0, "c1", crowd), Frame(T0, "elsewhere", broken)]
    packed = associator.pack(frames)
    assert packed is not None and len(packed.view_of) == 1 + DETECTIONS_PER_FRAME_MAX
    assert packed.seen[0].sum() == 14
    assert associator.ignored == {
        "keypoints: not finite or far outside the picture": 3,
        "detections: camera without calibration": 1,
        "detections: more people than a frame may hold": 2,
    }


def test_packing_says_what_shape_it_wants():
    associator = Associator(room(2), COCO)
    with pytest.raises(ShapeError, match=r"keypoints of c0: want \(n, 17, 3\), got \(1, 25, 3\)"):
        associator.pack([Frame(T0, "c0", np.zeros((1, 25, 3), np.float32))])
