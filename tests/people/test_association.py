"""Association kernels against their twins and SciPy, grouping of synthetic people, and frames that are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from people.rooms import T0, looking_inwards
from reference import association as reference
from scipy.optimize import linear_sum_assignment

from fusion._kernels import association as kernels
from fusion._kernels import triangulation
from fusion._kernels.records import CameraGeometry
from fusion.errors import ShapeError
from fusion.observations import Frame
from fusion.people.association import PAIR, PAIR_MIN, Associator, compared
from fusion.people.geometry import Rig
from fusion.people.workspace import (
    DETECTIONS_PER_FRAME_MAX,
    DUPLICATE_GATE,
    JOINT_COST_CAP,
    JOINTS_MIN,
    KEYS,
    MATCH_GATE,
    PREDICTION_SD_MAX_M,
    Workspace,
    key_joints,
)
from fusion.store.layouts import LAYOUTS

SEEDS = st.integers(0, 2**31)
COCO = LAYOUTS["coco17"]


def room(n_views: int = 4, seed: int = 0) -> Rig:
    """Cameras in a circle of 5 m around the room's middle, 2.5 m up."""
    rng = np.random.default_rng(seed)
    world = np.empty((n_views, 3, 4))
    for view in range(n_views):
        angle = 2 * np.pi * view / n_views + rng.uniform(0, 0.3)
        eye = np.array([5 * np.cos(angle), 5 * np.sin(angle), 2.5])
        rotation = looking_inwards(eye)
        world[view] = np.column_stack([rotation, -rotation @ eye])
    lens = np.tile([[700.0, 0, 640], [0, 700, 360], [0, 0, 1]], (n_views, 1, 1))
    names = tuple(f"c{v}" for v in range(n_views))
    return Rig(names, world, lens, np.zeros((n_views, 5)), np.tile([1280.0, 720.0], (n_views, 1)))


def standing(rng: np.random.Generator, x: float, y: float, stature: float = 1.0) -> np.ndarray:
    """(17, 3) joints of a person who stands at a place."""
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


def crowd(seed: int, n_views: int = 3) -> tuple[Workspace, np.ndarray]:
    """A workspace with people so close together that detections are disputed, some seen twice, and strangers; rows."""
    rng = np.random.default_rng(seed)
    rig = room(n_views, seed)
    n_people = int(rng.integers(1, 9))
    people = [standing(rng, *rng.uniform(-0.8, 0.8, 2)) for _ in range(n_people)]
    frames = []
    for frame in seen(rng, rig, [*people, standing(rng, *rng.uniform(-2, 2, 2))], sd_px=8.0):
        keep = rng.integers(len(frame.keypoints), size=rng.integers(0, 2 + len(frame.keypoints)))
        keypoints = frame.keypoints[keep] + rng.normal(0, 4, (len(keep), 17, 3)) * [1, 1, 0]
        keypoints[rng.uniform(size=keypoints.shape[:2]) < 0.2, 2] = 0.0
        frames.append(Frame(T0, frame.camera, keypoints.astype(np.float32)))
    ws = Workspace(rig, COCO, 0, n_people + 2)
    associator = Associator(rig, COCO, ws)
    assert associator.pack(frames) is not None
    ws.dt_s[:] = -rng.uniform(0, 0.1, n_views)
    rows = rng.permutation(n_people + 2)[:n_people]
    ws.mean[rows, :3, :17] = np.stack([joints.T + rng.normal(0, 0.05, (3, 17)) for joints in people])
    ws.mean[rows, 3:, :17] = rng.normal(0, 0.5, (n_people, 3, 17))
    root = rng.normal(0, 0.1, (n_people, ws.n_padded, 6, 6))
    ws.cov[rows] = (root @ root.swapaxes(-1, -2))[..., *np.tril_indices(6)].swapaxes(1, 2)
    return ws, rows


def dense_costs(ws: Workspace, rows: np.ndarray) -> np.ndarray:
    cost = np.full((len(rows), ws.start[-1]), triangulation.NEVER)
    ws.kernels.costs(rows, MATCH_GATE, cost)
    return cost


@given(SEEDS)
@settings(max_examples=80, deadline=None)
def test_costs_match_reference(seed):
    ws, rows = crowd(seed)
    n, keys = int(ws.start[-1]), ws.keys[ws.keys >= 0]
    detections = [np.ascontiguousarray(array[:n, keys]) for array in (ws.x, ws.y, ws.var, ws.seen)]
    expected = reference.costs(
        ws.camera_from_world, ws.dt_s, ws.start, *detections, ws.mean[:, :, keys], ws.cov[:, :, keys], rows,
        ws.body_var[keys], JOINT_COST_CAP, float(JOINTS_MIN), PREDICTION_SD_MAX_M**2,
    )  # fmt: skip
    cost = dense_costs(ws, rows)
    # Single precision; costs above the gate are not written.
    written = cost < triangulation.NEVER
    assert_allclose(cost[written], expected[written], atol=2e-3)
    assert (expected[~written] > MATCH_GATE - 2e-3).all()


@given(SEEDS)
@settings(max_examples=80, deadline=None)
def test_assignment_matches_scipy(seed):
    ws, rows = crowd(seed)
    cost = dense_costs(ws, rows)
    ws.kernels.match(rows)
    for view in range(3):
        first, stop = ws.start[view], ws.start[view + 1]
        chosen = ws.detection_of[: len(rows), view]
        clipped = np.minimum(cost[:, first:stop], MATCH_GATE)
        best = clipped[linear_sum_assignment(clipped)].sum() + MATCH_GATE * (len(rows) - min(clipped.shape))
        got = sum(cost[t, d] if d >= 0 else MATCH_GATE for t, d in enumerate(chosen))
        assert_allclose(got, best)
        taken = chosen[chosen >= 0]
        assert len(set(taken)) == len(taken) and ((taken >= first) & (taken < stop)).all()
        for d in range(first, stop):
            if d in taken:
                assert chosen[ws.track_of[d]] == d
            else:
                # It fits a track with a better detection in this view: the same person seen twice.
                twice = (cost[chosen >= 0, d] < DUPLICATE_GATE).any()
                assert ws.track_of[d] == (-2 if twice else -1)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_matching_compares_sixteen_joints_at_most_and_both_sides_alike(layout):
    keys = [layout.joints[j] for j in key_joints(layout) if j >= 0]
    assert len(set(keys)) == len(keys) <= KEYS and len(key_joints(layout)) == KEYS
    assert {j.replace("l_", "r_", 1) for j in keys if j.startswith("l_")} == {j for j in keys if j.startswith("r_")}
    assert len(keys) == min(KEYS, layout.n_joints) or layout.n_joints - len(keys) <= 2


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
    associator = Associator(rig, COCO, Workspace(rig, COCO, 0, 1))
    packed = associator.pack(shuffled)
    groups = associator.group(packed, np.arange(5 * n_people))
    assert len(groups.members) == n_people and len(groups.single) == 0
    for group, place in zip(groups.members, groups.places_m):
        people = {truth[d] for d in group}
        assert len(people) == 1 and len(group) == 5
        assert np.hypot(*(place[:2] - spots[people.pop()])) < 0.1


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_scores_of_pairs_and_their_clusters_match_reference(seed):
    ws, _ = crowd(seed)
    n = int(ws.start[-1])
    rng = np.random.default_rng(seed)
    # Some detections see half of a body only.
    halves = rng.random(n) < 0.3
    ws.seen[:n][halves, int(rng.integers(4, 12)) :] = 0.0
    free = rng.permutation(n)[: rng.integers(0, n + 1)]
    associator = Associator(room(3, seed), COCO, ws)
    args = free, ws.detections(n), ws.camera_from_world, ws.body_var, associator.heights_m
    lower = np.tril_indices(len(free), -1)
    score, centre = np.full((len(free),) * 2, np.nan), np.full((len(lower[0]), 3), 7.0, np.float32)
    triangulation.pair_scores(free, *compared(args[1]), *args[2:], PAIR, score, centre)
    expected, places, mean, n_joints = reference.pair_scores(*args, PAIR)
    between = np.isfinite(expected) & np.tri(len(free), dtype=bool)
    # Single precision.
    assert_allclose(score[between], expected[between], rtol=1e-4, atol=1e-2)
    assert (score[~np.isfinite(expected) & np.tri(len(free), dtype=bool)] < -1e6).all()
    assert_allclose(centre[between[lower]], places[lower][between[lower]], atol=1e-3)
    cost = np.full((len(free) // 2, len(free)), np.nan)
    triangulation.pair_costs(free, *compared(args[1]), *args[2:], PAIR, 4.0, cost)
    expected = np.where((n_joints >= 4) & ~np.isnan(mean), mean, triangulation.NEVER)[: len(cost)]
    assert_allclose(cost, expected, rtol=1e-4, atol=1e-2)
    group_of, middles = np.empty(len(free), np.int64), np.empty((len(free), 3))
    n_groups = kernels.group(score, centre, PAIR_MIN, group_of, middles)
    score = np.tril(score) + np.tril(score, -1).T
    groups = {frozenset(np.flatnonzero(group_of == k).tolist()) for k in range(n_groups)}
    assert groups == {c for c in reference.clusters(score, PAIR_MIN) if len(c) > 1}
    best = [
        max(score[a, b] for a in members for b in members) for members in sorted(groups, key=lambda g: group_of[min(g)])
    ]
    assert best == sorted(best, reverse=True) and np.isfinite(middles[:n_groups, :2]).all()


def test_halves_of_a_body_without_a_common_joint_are_one_person_where_their_places_agree():
    rng = np.random.default_rng(4)
    rig = room(2)
    spots = [(-1.2, -0.8), (1.1, 0.9)]
    upper, lower = seen(rng, rig, [standing(rng, *spot) for spot in spots])
    above = COCO.heights_m[:, 0] > 1.2
    upper.keypoints[:, ~above, 2] = lower.keypoints[:, above, 2] = 0.0
    associator = Associator(rig, COCO, Workspace(rig, COCO, 0, 1))
    packed = associator.pack([upper, lower])
    groups = associator.group(packed, np.arange(4))
    assert sorted(members.tolist() for members in groups.members) == [[0, 2], [1, 3]]
    assert all(np.hypot(*(place[:2] - spots[members[0]])) < 0.4 for members, place in zip(*groups[:2]))


def test_a_detection_goes_to_the_partner_that_it_fits_best_not_to_the_group_that_formed_first():
    # 0, 1 and 2, 3 are two people; 2 would do for a third view of the first.
    score = np.full((4, 4), -1e9)
    for (a, b), value in {(0, 1): 30.0, (2, 3): 20.0, (0, 2): 4.0, (1, 2): 5.0, (0, 3): -30.0, (1, 3): -30.0}.items():
        score[a, b] = score[b, a] = value
    group_of, places = np.empty(4, np.int64), np.empty((4, 3))
    assert kernels.group(score, np.zeros((6, 3), np.float32), PAIR_MIN, group_of, places) == 2
    assert group_of.tolist() == [0, 0, 1, 1]


def test_a_person_whom_one_camera_sees_is_placed_with_an_honest_covariance():
    rng = np.random.default_rng(1)
    rig, normalised = room(1), []
    for _ in range(300):
        x, y = rng.uniform(-1.5, 1.5, 2)
        associator = Associator(rig, COCO, Workspace(rig, COCO, 0, 1))
        packed = associator.pack(seen(rng, rig, [standing(rng, x, y, rng.normal(1.0, 0.06))]))
        place = associator.place_by_height(packed, 0)
        cov = np.array([[place.xx_m2, place.yx_m2], [place.yx_m2, place.yy_m2]])
        error = np.array([place.x_m - x, place.y_m - y])
        normalised.append(error @ np.linalg.inv(cov) @ error)
    # Two dimensions: 2 on average if the covariance is exact; it must not be too small.
    assert 0.2 < np.mean(normalised) < 2.4


def geometry(rig: Rig, boxes: np.ndarray) -> CameraGeometry:
    return CameraGeometry(rig.camera_from_world, rig.pinholes, rig.size_px, boxes)


def test_cameras_that_see_a_place_agree_with_sampled_lines_of_sight():
    rng = np.random.default_rng(2)
    rig = room(6)
    boxes = np.array([[0.5, -2.0, 1.0, 2.0, 1.8], [-2.0, 0.5, 0.0, 0.9, 1.2]])
    places, heights = rng.uniform(-3, 3, (60, 2)), np.array([1.0, 1.5])
    live = np.array([True, True, True, False, True, True])
    out = np.empty((60, 6), bool)
    kernels.line_of_sight(places, heights, tuple(geometry(rig, boxes)), live, out)
    assert (out == reference.line_of_sight(places, heights, rig, live, boxes)).mean() > 0.99


def test_packing_counts_unusable_keypoints_and_detections():
    rng = np.random.default_rng(3)
    rig = room(2)
    associator = Associator(rig, COCO, Workspace(rig, COCO, 0, 1))
    good = seen(rng, rig, [standing(rng, 0, 0)])
    broken = good[0].keypoints.copy()
    broken[0, 3, 0] = np.nan
    broken[0, 4, 2] = np.inf
    broken[0, 5, 1] = 1e30
    crowd = np.repeat(good[1].keypoints, DETECTIONS_PER_FRAME_MAX + 2, axis=0)
    frames = [Frame(T0, "c0", broken), Frame(T0, "c1", crowd), Frame(T0, "elsewhere", broken)]
    packed = associator.pack(frames)
    assert packed is not None and len(packed.detections.view_of) == 1 + DETECTIONS_PER_FRAME_MAX
    assert packed.detections.seen[0].sum() == 14
    assert associator.ignored == {
        "keypoints: not finite or far outside the picture": 3,
        "detections: camera without calibration": 1,
        "detections: more people than a frame may hold": 2,
    }


def test_packing_names_the_shape_that_it_wants():
    associator = Associator(room(2), COCO, Workspace(room(2), COCO, 0, 1))
    with pytest.raises(ShapeError, match=r"keypoints of c0: want \(n, 17, 3\), got \(1, 25, 3\)"):
        associator.pack([Frame(T0, "c0", np.zeros((1, 25, 3), np.float32))])
