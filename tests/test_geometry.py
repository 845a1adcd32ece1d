"""Cameras, triangulation and the joint filter against their NumPy twins, and their invariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from reference import geometry as reference

from fusion._kernels import triangulation
from fusion.config import Camera
from fusion.errors import ShapeError
from fusion.geometry import Rig, Status, rotation_from_rodrigues, triangulate

SEEDS = st.integers(0, 2**31)


def looking_at(rng: np.random.Generator, n_views: int, distortion: float = 0.0) -> Rig:
    """Cameras on a circle of 4 to 6 m, 2 to 3 m up, that look at the middle of the room."""
    world, lens, bend = np.empty((n_views, 3, 4)), np.empty((n_views, 3, 3)), np.empty((n_views, 5))
    for view in range(n_views):
        angle = 2 * np.pi * (view + rng.uniform(0, 0.8)) / n_views
        radius = rng.uniform(4, 6)
        eye = np.array([radius * np.cos(angle), radius * np.sin(angle), rng.uniform(2, 3)])
        forward = np.array([0, 0, 1.0]) - eye
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        world[view] = np.column_stack([rotation, -rotation @ eye])
        focal = rng.uniform(600, 1000)
        lens[view] = [[focal, 0, 640], [0, focal * 1.01, 360], [0, 0, 1]]
        bend[view] = distortion * rng.uniform(-1, 1, 5) * [0.3, 0.1, 0.01, 0.01, 0.03]
    names = tuple(f"c{view}" for view in range(n_views))
    return Rig(names, world, lens, bend, np.tile([1280.0, 720.0], (n_views, 1)))


def points_in(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.uniform([-1.5, -1.5, 0], [1.5, 1.5, 2], (n, 3))


def test_rotation_turns_about_its_axis():
    assert_allclose(rotation_from_rodrigues([0, 0, np.pi / 2]) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    assert_allclose(rotation_from_rodrigues([0, 0, 0]), np.eye(3))


def test_rig_of_store_cameras_has_its_centres():
    camera = Camera(
        name="a", size=(1280, 720), matrix=((700, 0, 640), (0, 700, 360), (0, 0, 1)), distortions=(0, 0, 0, 0, 0),
        rotation=(0.1, -0.4, 0.2), translation=(0.5, 1.0, 3.0),
    )  # fmt: skip
    rig = Rig.from_cameras([camera])
    seen = rig.camera_from_world[0, :, :3] @ rig.centres_m[0] + rig.camera_from_world[0, :, 3]
    assert_allclose(seen, 0, atol=1e-12)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_undistort_inverts_the_lens(seed):
    rng = np.random.default_rng(seed)
    rig = looking_at(rng, 3, distortion=1.0)
    points = points_in(rng, 9)
    straight = Rig(rig.names, rig.camera_from_world, rig.image_from_camera, np.zeros((3, 5)), rig.size_px)
    assert_allclose(rig.undistort(rig.project(points)), straight.project(points), atol=1e-6)


def test_undistort_keeps_unseen_unseen():
    rig = looking_at(np.random.default_rng(0), 2, distortion=1.0)
    points_px = np.full((2, 4, 2), np.nan)
    assert np.isnan(rig.undistort(points_px)).all()


@given(SEEDS, st.integers(2, 9), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_linear_triangulation_matches_svd(seed, n_views, n_points):
    rng = np.random.default_rng(seed)
    rig = looking_at(rng, n_views)
    pixels = rig.project(points_in(rng, n_points)) + rng.normal(0, 2.0, (n_views, n_points, 2))
    points = np.ascontiguousarray(rig.normalise(pixels).transpose(0, 2, 1))
    points_m, status = np.full((n_points, 3), np.nan), np.full(n_points, 99, np.int8)
    triangulation.triangulate(rig.camera_from_world, points, points_m, status)
    expected = reference.triangulate(rig.camera_from_world, points)
    assert (status == Status.OK).all()
    assert_allclose(points_m, expected, atol=1e-6)


def test_linear_triangulation_of_exact_points():
    rng = np.random.default_rng(3)
    rig = looking_at(rng, 4)
    truth = points_in(rng, 19)
    points = np.ascontiguousarray(rig.normalise(rig.project(truth)).transpose(0, 2, 1))
    points_m, status = np.empty((19, 3)), np.empty(19, np.int8)
    triangulation.triangulate(rig.camera_from_world, points, points_m, status)
    assert_allclose(points_m, truth, atol=1e-9)


def test_one_view_is_underconstrained_and_views_may_differ_between_points():
    rng = np.random.default_rng(4)
    rig = looking_at(rng, 4)
    truth = points_in(rng, 3)
    pixels = rig.project(truth)
    pixels[1:, 0] = np.nan
    pixels[:2, 1] = np.nan
    found = triangulate(rig, pixels)
    assert found.status.tolist() == [Status.UNDERCONSTRAINED, Status.OK, Status.OK]
    assert np.isnan(found.points_m[0]).all()
    assert_allclose(found.points_m[1:], truth[1:], atol=1e-6)


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_triangulate_outvotes_a_wrong_view(seed):
    rng = np.random.default_rng(seed)
    rig = looking_at(rng, 6)
    truth = points_in(rng, 17)
    pixels = rig.project(truth) + rng.normal(0, 1.0, (6, 17, 2))
    wrong = rng.integers(6, size=17)
    pixels[wrong, range(17)] += 100 * rng.choice([-1, 1], (17, 2))
    found = triangulate(rig, pixels)
    assert (found.status == Status.OK).all()
    assert np.linalg.norm(found.points_m - truth, axis=1).max() < 0.05
    assert not found.agreeing[wrong, range(17)].any()


def test_claimed_covariance_is_honest():
    rng = np.random.default_rng(5)
    rig = looking_at(rng, 5)
    truth = points_in(rng, 800)
    found = triangulate(rig, rig.project(truth) + rng.normal(0, 3.0, (5, 800, 2)), sd_px=3.0)
    error = found.points_m - truth
    normalised = np.einsum("ni,nij,nj->n", error, np.linalg.inv(found.cov_m2), error)
    assert 2.4 < normalised.mean() < 3.4


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_moving_the_world_moves_the_points(seed):
    rng = np.random.default_rng(seed)
    rig = looking_at(rng, 4)
    pixels = rig.project(points_in(rng, 8)) + rng.normal(0, 1.0, (4, 8, 2))
    rotation, shift = rotation_from_rodrigues(rng.normal(0, 1, 3)), rng.normal(0, 1, 3)
    moved = rig.camera_from_world.copy()
    moved[:, :, :3] = rig.camera_from_world[:, :, :3] @ rotation.T
    moved[:, :, 3] -= moved[:, :, :3] @ shift
    other = Rig(rig.names, moved, rig.image_from_camera, rig.distortions, rig.size_px)
    here, there = triangulate(rig, pixels).points_m, triangulate(other, pixels).points_m
    assert_allclose(there, here @ rotation.T + shift, atol=1e-5)


def test_triangulate_says_what_shape_it_wants():
    rig = looking_at(np.random.default_rng(0), 3)
    for wrong in (np.zeros((2, 4, 2)), np.zeros((3, 4)), np.zeros((3, 4, 2), np.float32)):
        with pytest.raises(ShapeError, match=r"want float64 \(3, n_points, 2\), got"):
            triangulate(rig, wrong)


def packed(cov: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(cov[:, *np.tril_indices(6)].T)


def random_states(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    mean = np.concatenate([points_in(rng, n), rng.normal(0, 0.5, (n, 3))], axis=1)
    root = rng.normal(0, 1, (n, 6, 6)) * np.array([0.1, 0.1, 0.1, 0.5, 0.5, 0.5])[:, None]
    return mean, root @ root.transpose(0, 2, 1) + 1e-4 * np.eye(6)


@given(SEEDS, st.floats(0.001, 2.0))
@settings(max_examples=30, deadline=None)
def test_predict_matches_reference(seed, dt_s):
    rng = np.random.default_rng(seed)
    means, covs = random_states(rng, 8)
    acceleration = rng.uniform(0, 20, 8)
    mean, cov = np.ascontiguousarray(means.T)[None].copy(), packed(covs)[None].copy()
    triangulation.predict(mean, cov, np.zeros(1, np.int64), dt_s, 1.0, acceleration)
    for j in range(8):
        expected_mean, expected_cov = reference.predict(means[j], covs[j], dt_s, 1.0, acceleration[j])
        assert_allclose(mean[0, :, j], expected_mean, rtol=1e-9, atol=1e-12)
        assert_allclose(cov[0, :, j], expected_cov[np.tril_indices(6)], rtol=1e-9, atol=1e-12)


@given(SEEDS, st.integers(1, 6), st.integers(0, 2))
@settings(max_examples=40, deadline=None)
def test_update_matches_reference(seed, n_views, n_plain):
    rng = np.random.default_rng(seed)
    rig = looking_at(rng, n_views)
    means, covs = random_states(rng, 8)
    dt_s = -rng.uniform(0, 0.1, n_views)
    z = np.stack([rig.normalise(rig.project(means[:, :3]))[v] for v in range(n_views)])
    z += rng.normal(0, 0.02, z.shape)
    z[rng.uniform(size=z.shape[:2]) < 0.3] = np.nan
    seen = (~np.isnan(z[..., 0])).astype(float)
    var = rng.uniform(1e-5, 1e-4, (n_views, 8))
    body, floor = rng.uniform(1e-4, 1e-2, 8), rng.choice([0.0, 400.0], 8)
    stray, rise, heights = rng.uniform(5, 50, 8), rng.uniform(5, 50, 8), rng.uniform(0, 2, (1, 8))
    axis_weight = 1 / (covs[:, 0, 0] + covs[:, 1, 1] + 2 / stray)
    axis = axis_weight @ means[:, :2] / axis_weight.sum()
    axis_var = axis_weight @ (covs[:, 0, 0] + covs[:, 1, 1]) / 2 / axis_weight.sum()
    near = stray / (1 + stray * axis_var)
    acceleration = rng.uniform(0, 20, 8)
    anchors = np.column_stack([np.tile(axis, (8, 1)), heights[0]]), 0.2 * np.column_stack([near, near, rise])
    mean, cov = np.ascontiguousarray(means.T)[None].copy(), packed(covs)[None].copy()
    filled = np.nan_to_num(z)
    sums, counts, support = np.full((1, n_views), np.nan), np.full((1, n_views), np.nan), np.full((1, 8), np.nan)
    triangulation.update(
        rig.camera_from_world, dt_s, np.ascontiguousarray(filled[..., 0]), np.ascontiguousarray(filled[..., 1]), var,
        seen, np.zeros(1, np.int64), np.arange(n_views)[None], body, acceleration, floor, stray, rise, heights, 0.2,
        0.1, 4.0, 3, n_plain, mean, cov, sums, counts, support,
    )  # fmt: skip
    for j in range(8):
        expected_mean, expected_cov = reference.update(
            means[j], covs[j], rig.camera_from_world, dt_s, z[:, j], var[:, j],
            body[j], acceleration[j], floor[j], anchors[0][j], anchors[1][j], 4.0, 3, n_plain,
        )  # fmt: skip
        assert_allclose(mean[0, :, j], expected_mean, rtol=1e-6, atol=1e-8)
        assert_allclose(cov[0, :, j], expected_cov[np.tril_indices(6)], rtol=1e-6, atol=1e-9)
    assert_allclose(counts[0], seen.sum(axis=1))
    assert np.isfinite(support).all()


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_limbs_match_reference(seed):
    rng = np.random.default_rng(seed)
    means, covs = random_states(rng, 8)
    mean, cov = np.ascontiguousarray(means.T)[None].copy(), packed(covs)[None].copy()
    lengths = rng.uniform(0.2, 0.6, (1, 2))
    limbs = np.array([[0, 3], [3, 5]])
    triangulation.hold_limbs(
        mean, cov, np.zeros(1, np.int64), limbs, lengths.copy(), np.zeros((1, 8)), 0.04, 0.0025, 0.1
    )
    expected_means, expected_covs = list(means), list(covs)
    for (a, b), length in zip(limbs, lengths[0]):
        (expected_means[a], expected_means[b]), (expected_covs[a], expected_covs[b]) = reference.hold_limb(
            [expected_means[a], expected_means[b]], [expected_covs[a], expected_covs[b]], length, 0.04, 0.0025
        )
    assert_allclose(mean[0].T, expected_means, rtol=1e-9, atol=1e-9)
    assert_allclose(cov[0].T, np.array(expected_covs)[:, *np.tril_indices(6)], rtol=1e-7, atol=1e-9)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_told_deviation_is_the_mean_over_directions(seed):
    rng = np.random.default_rng(seed)
    means, covs = random_states(rng, 8)
    joints, sd = np.empty((1, 5, 3)), np.empty((1, 5))
    place, place_sd = np.empty((1, 2)), np.empty(1)
    triangulation.describe(
        np.ascontiguousarray(means.T)[None], packed(covs)[None], np.zeros(1, np.int64), np.ones(5), 1e3, joints, sd,
        place, place_sd,
    )  # fmt: skip
    assert_allclose(sd[0], np.sqrt(np.trace(covs[:5, :3, :3], axis1=1, axis2=2) / 3), rtol=1e-9)
    assert_allclose(joints[0], means[:5, :3])
    worst = np.sqrt(np.linalg.eigvalsh(covs[:5, :3, :3])[:, -1])
    limit_m = 1.001 * np.median(worst)
    triangulation.describe(
        np.ascontiguousarray(means.T)[None], packed(covs)[None], np.zeros(1, np.int64), np.ones(5), limit_m,
        joints, sd, place, place_sd,
    )  # fmt: skip
    assert_array_equal(np.isnan(sd[0]), worst > limit_m)
    assert (place[0] >= means[:5, :2].min(axis=0)).all() and (place[0] <= means[:5, :2].max(axis=0)).all()
