"""Cameras, triangulation and the joint filter against their NumPy twins, and their invariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from reference import geometry as reference

from fusion.errors import ShapeError
from fusion.people.geometry import Rig, Status, triangulate, triangulate_linear
from fusion.people.workspace import (
    DEGREES_OF_FREEDOM,
    JOINT_SD_MAX_M,
    LIMB_SD_M,
    NOISE_EVERY,
    NOISE_SHARE,
    OWN_SD_M,
    VELOCITY_DECAY_S,
    Workspace,
)
from fusion.store.layouts import LAYOUTS
from fusion.store.models import Camera
from fusion.store.rotations import rotation_matrix

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


@given(SEEDS, st.integers(2, 9), st.integers(1, 70), st.booleans())
@settings(max_examples=60, deadline=None)
def test_linear_triangulation_matches_svd(seed, n_views, n_points, distorted):
    rng = np.random.default_rng(seed)
    rig = looking_at(rng, n_views, distortion=float(distorted))
    pixels = rig.project(points_in(rng, n_points)) + rng.normal(0, 2.0, (n_views, n_points, 2))
    found = triangulate_linear(rig, pixels, distorted=distorted)
    expected = reference.triangulate(rig.camera_from_world, rig.normalise(pixels).transpose(0, 2, 1))
    assert (found.status == Status.OK).all()
    assert_allclose(found.points_m, expected, atol=1e-6)


def test_linear_triangulation_of_exact_points():
    rng = np.random.default_rng(3)
    rig = looking_at(rng, 4)
    truth = points_in(rng, 19)
    assert_allclose(triangulate_linear(rig, rig.project(truth)).points_m, truth, atol=1e-9)


@pytest.mark.parametrize("locate", [triangulate, triangulate_linear])
def test_no_points_and_no_views_are_no_error(locate):
    rig = looking_at(np.random.default_rng(0), 3)
    assert locate(rig, np.empty((3, 0, 2))).points_m.shape == (0, 3)
    nothing = Rig((), *(np.empty((0, *shape)) for shape in ((3, 4), (3, 3), (5,), (2,))))
    found = locate(nothing, np.empty((0, 2, 2)))
    assert np.isnan(found.points_m).all()
    assert (found.status == Status.UNDERCONSTRAINED).all()


@given(SEEDS, st.integers(5, 8), st.integers(1, 70), st.booleans())
@settings(max_examples=30, deadline=None)
def test_robust_triangulation_matches_its_twin(seed, n_views, n_points, distorted):
    rng = np.random.default_rng(seed)
    rig = looking_at(rng, n_views, distortion=float(distorted))
    pixels = rig.project(points_in(rng, n_points)) + rng.normal(0, 2.0, (n_views, n_points, 2))
    # One view unseen and one wrong at most: with fewer true ones the steps end before they have decided.
    unseen, wrong = rng.integers(n_views, size=(2, n_points))
    pixels[unseen, range(n_points)] = np.nan
    pixels[wrong, range(n_points)] += rng.choice([0.0, 200.0], n_points)[:, None]
    pixels[1:, 0] = np.nan
    found = triangulate(rig, pixels, distorted=distorted)
    points_m, cov_m2, agreeing, status = reference.locate(rig, pixels, distorted)
    assert_array_equal(found.status, status)
    assert_array_equal(found.agreeing, agreeing)
    assert_allclose(found.points_m, points_m, atol=1e-5)
    assert_allclose(found.cov_m2, cov_m2, rtol=1e-3, atol=1e-12)


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


def test_covariance_is_honest():
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
    rotation, shift = rotation_matrix(rng.normal(0, 1, 3)), rng.normal(0, 1, 3)
    moved = rig.camera_from_world.copy()
    moved[:, :, :3] = rig.camera_from_world[:, :, :3] @ rotation.T
    moved[:, :, 3] -= moved[:, :, :3] @ shift
    other = Rig(rig.names, moved, rig.image_from_camera, rig.distortions, rig.size_px)
    here, there = triangulate(rig, pixels).points_m, triangulate(other, pixels).points_m
    assert_allclose(there, here @ rotation.T + shift, atol=1e-5)


def test_triangulate_names_the_shape_that_it_wants():
    rig = looking_at(np.random.default_rng(0), 3)
    for wrong in (np.zeros((2, 4, 2)), np.zeros((3, 4)), np.zeros((3, 4, 2), np.float32)):
        for locate in (triangulate, triangulate_linear):
            with pytest.raises(ShapeError, match=r"want float64 \(3, n_points, 2\), got"):
                locate(rig, wrong)


def packed(cov: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(cov[:, *np.tril_indices(6)].T)


def random_states(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    mean = np.concatenate([points_in(rng, n), rng.normal(0, 0.5, (n, 3))], axis=1)
    root = rng.normal(0, 1, (n, 6, 6)) * np.array([0.1, 0.1, 0.1, 0.5, 0.5, 0.5])[:, None]
    return mean, root @ root.transpose(0, 2, 1) + 1e-4 * np.eye(6)


def workspace(rig: Rig, means: np.ndarray, covs: np.ndarray, layout: str = "coco17") -> Workspace:
    """People's joints (n_people, K, 6) and (n_people, K, 6, 6) in the rows of a workspace."""
    ws = Workspace(rig, LAYOUTS[layout], 0, len(means))
    k = means.shape[1]
    ws.mean[:, :, :k] = means.transpose(0, 2, 1)
    ws.cov[:, :, :k] = covs[:, :, *np.tril_indices(6)].transpose(0, 2, 1)
    return ws


def states(rng: np.random.Generator, n_people: int) -> tuple[np.ndarray, np.ndarray]:
    mean, cov = random_states(rng, 17 * n_people)
    return mean.reshape(n_people, 17, 6), cov.reshape(n_people, 17, 6, 6)


@given(SEEDS, st.floats(0.001, 2.0))
@settings(max_examples=30, deadline=None)
def test_predict_matches_reference(seed, dt_s):
    rng = np.random.default_rng(seed)
    means, covs = states(rng, 2)
    ws = workspace(looking_at(rng, 1), means, covs)
    ws.acceleration[:] = rng.uniform(0, 20, ws.n_padded)
    ws.kernels.predict(np.array([1]), dt_s)
    for j in range(17):
        expected_mean, expected_cov = reference.predict(
            means[1, j], covs[1, j], dt_s, VELOCITY_DECAY_S, ws.acceleration[j]
        )
        assert_allclose(ws.mean[1, :, j], expected_mean, rtol=1e-9, atol=1e-12)
        assert_allclose(ws.cov[1, :, j], expected_cov[np.tril_indices(6)], rtol=1e-9, atol=1e-12)
    assert_array_equal(ws.mean[0, :, :17], means[0].T)


def measured(seed: int, n_people: int, n_views: int, late: bool = True, sd: float = 0.02) -> tuple[Workspace, dict]:
    """A workspace whose people a detection is to measure in each view, some joints unseen; and the same, plain."""
    rng = np.random.default_rng(seed)
    rig = looking_at(rng, n_views)
    means, covs = states(rng, n_people)
    ws = workspace(rig, means, covs)
    n = n_people * n_views
    ws.dt_s[:] = -rng.uniform(0, 0.1, n_views) * late
    true_m = means[..., :3].reshape(-1, 3)
    z = rig.normalise(rig.project(true_m)).reshape(n_views, n_people, 17, 2)
    z += rng.normal(0, sd, z.shape)
    z[rng.uniform(size=z.shape[:3]) < 0.3] = np.nan
    var = rng.uniform(1e-5, 1e-4, z.shape[:3])
    for array, value in ((ws.x, z[..., 0]), (ws.y, z[..., 1]), (ws.var, var), (ws.seen, ~np.isnan(z[..., 0]))):
        array[:n, :17] = np.nan_to_num(value.astype(float)).reshape(n, 17)
    # The values as they are kept, in single precision.
    z = np.where(np.isnan(z), z, np.stack([ws.x, ws.y], axis=-1)[:n, :17].reshape(z.shape).astype(float))
    var = ws.var[:n, :17].reshape(var.shape).astype(float)
    for array in (ws.axis_precision, ws.height_precision):
        array[:17] = rng.uniform(5, 50, 17)
    ws.body_var[:17], ws.acceleration[:17] = rng.uniform(1e-4, 1e-2, 17), rng.uniform(0, 20, 17)
    ws.floor_precision[:17], ws.noise[:17] = rng.choice([0.0, 400.0], 17), rng.uniform(0.5, 2.0, 17)
    ws.heights_m[:] = rng.uniform(0, 2, ws.heights_m.shape)
    # A detection d of view v is person d - v n_people.
    detection_of = np.arange(n).reshape(n_views, n_people).T.copy()
    return ws, {"means": means, "covs": covs, "z": z, "var": var, "detection_of": detection_of}


def twin(ws: Workspace, plain: dict, person: int, j: int, share: float, n_steps: int, n_plain: int) -> tuple:
    """The twin's answer for one joint of a person in a workspace that has not been measured yet."""
    means, covs = plain["means"][person], plain["covs"][person]
    stray = ws.axis_precision[:17]
    weight = 1 / (covs[:, 0, 0] + covs[:, 1, 1] + 2 / stray)
    axis = weight @ means[:, :2] / weight.sum()
    axis_var = weight @ (covs[:, 0, 0] + covs[:, 1, 1]) / 2 / weight.sum()
    near = share * stray[j] / (1 + stray[j] * axis_var)
    return reference.update(
        means[j], covs[j], ws.camera_from_world, ws.dt_s, plain["z"][:, person, j],
        plain["var"][:, person, j] * ws.noise[j], ws.body_var[j] * ws.noise[j], ws.acceleration[j],
        ws.floor_precision[j], np.array([*axis, ws.heights_m[person, j]]),
        np.array([near, near, share * ws.height_precision[j]]), DEGREES_OF_FREEDOM, n_steps, n_plain,
    )  # fmt: skip


# One person's joints go side by side; of several, the joint that whole groups leave over goes with the others' own.
@given(SEEDS, st.sampled_from([1, 3, 11]), st.integers(1, 6), st.integers(0, 2))
@settings(max_examples=40, deadline=None)
def test_update_matches_reference(seed, n_people, n_views, n_plain):
    ws, plain = measured(seed, n_people, n_views)
    rows, detection_of = np.arange(n_people), plain["detection_of"]
    expected = [[twin(ws, plain, i, j, 0.2, 3, n_plain) for j in range(17)] for i in range(n_people)]
    ws.limb_lengths_m[:] = 0.3
    ws.kernels = bound_without_limbs(ws)
    ws.kernels.measure(rows, detection_of, 0.2, 0.1, 3, n_plain, 0, np.empty((0, 0)), np.empty((0, 0)))
    total, count = np.zeros(17), np.zeros(17)
    for i in range(n_people):
        for j in range(17):
            mean, cov, noisy, n_noisy = expected[i][j]
            assert_allclose(ws.mean[i, :, j], mean, rtol=1e-6, atol=1e-8)
            assert_allclose(ws.cov[i, :, j], cov[np.tril_indices(6)], rtol=1e-6, atol=1e-8)
            if i % NOISE_EVERY == 0 and n_views >= 2:
                total[j] += noisy
                count[j] += n_noisy
    if n_plain == 0:
        assert_allclose(ws.noise_total[:17], NOISE_SHARE * ws.noise[:17] * total, rtol=1e-6, atol=1e-9)
        assert_allclose(ws.noise_count[:17], count)


def bound_without_limbs(ws: Workspace) -> object:
    ws.limbs = np.zeros((0, 2), np.int64)
    return ws.bound()


@given(SEEDS, st.integers(2, 6))
@settings(max_examples=20, deadline=None)
def test_residuals_count_the_joints_seen(seed, n_views):
    ws, plain = measured(seed, 1, n_views)
    sums, counts = np.full((2, 1, n_views), np.nan)
    ws.kernels.measure(np.zeros(1, np.int64), plain["detection_of"], 0.2, 0.1, 7, 2, -1, sums, counts)
    assert_allclose(counts[0], ws.seen[:n_views].sum(axis=1))
    assert (sums >= 0).all() and (sums <= 25 * counts).all()


@given(SEEDS, st.integers(3, 6))
@settings(max_examples=20, deadline=None)
def test_update_agrees_with_gauss_newton_in_the_image(seed, n_views):
    ws, plain = measured(seed, 1, n_views, late=False, sd=0.004)
    ws.floor_precision[:] = 0.0
    ws.kernels = bound_without_limbs(ws)
    ws.kernels.measure(
        np.zeros(1, np.int64), plain["detection_of"], 0.0, 0.1, 12, 0, -1, np.empty((0, 0)), np.empty((0, 0))
    )
    for j in range(17):
        mean, cov = reference.update_six(
            plain["means"][0, j], plain["covs"][0, j], ws.camera_from_world, plain["z"][:, 0, j],
            plain["var"][:, 0, j] * ws.noise[j], ws.body_var[j] * ws.noise[j], DEGREES_OF_FREEDOM, 30,
        )  # fmt: skip
        # Depths, by which pixels become metres, are those of the prediction: a few percent off.
        off = np.abs(ws.mean[0, :, j] - mean) / np.sqrt(np.diag(cov))
        assert off.max() < 0.5
        sd = np.sqrt(ws.cov[0, [0, 2, 5], j])
        assert_allclose(sd, np.sqrt(np.diag(cov)[:3]), rtol=0.3)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_limbs_match_reference(seed):
    rng = np.random.default_rng(seed)
    n_people = int(rng.integers(1, 12))
    means, covs = states(rng, n_people)
    ws = workspace(looking_at(rng, 1), means, covs)
    ws.limb_lengths_m[:] = rng.uniform(0.1, 0.6, ws.limb_lengths_m.shape)
    lengths = ws.limb_lengths_m.copy()
    # Detections that show nothing leave joints as predicted, and limbs are held all the same.
    ws.seen[:] = 0.0
    ws.kernels.measure(
        np.arange(n_people), np.zeros((n_people, 1), np.int64), 0.0, 0.0, 1, 0, -1, np.empty((0, 0)), np.empty((0, 0))
    )
    for i in range(n_people):
        expected, expected_cov = list(means[i]), list(covs[i])
        for (a, b), length in zip(ws.limbs, lengths[i]):
            (expected[a], expected[b]), (expected_cov[a], expected_cov[b]) = reference.hold_limb(
                [expected[a], expected[b]], [expected_cov[a], expected_cov[b]], length, LIMB_SD_M, OWN_SD_M**2
            )
        assert_allclose(ws.mean[i, :, :17].T, expected, rtol=1e-7, atol=1e-8)
        assert_allclose(ws.cov[i, :, :17].T, np.array(expected_cov)[:, *np.tril_indices(6)], rtol=1e-5, atol=1e-8)
    assert_array_equal(ws.limb_lengths_m, lengths)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_reported_deviation_is_the_mean_over_directions(seed):
    rng = np.random.default_rng(seed)
    means, covs = states(rng, 1)
    ws = workspace(looking_at(rng, 1), means, covs * 0.3)
    covs = covs * 0.3
    joints, sd = np.empty((1, 17, 3)), np.empty((1, 17))
    place, place_sd = np.empty((1, 2)), np.empty(1)
    ws.kernels.describe(np.zeros(1, np.int64), joints, sd, place, place_sd)
    worst = np.sqrt(np.linalg.eigvalsh(covs[0, :, :3, :3])[:, -1])
    known = worst <= JOINT_SD_MAX_M
    assert_allclose(sd[0, known], np.sqrt(np.trace(covs[0, :, :3, :3], axis1=1, axis2=2) / 3)[known], rtol=1e-9)
    assert_allclose(joints[0, known], means[0, known, :3])
    assert_array_equal(np.isnan(sd[0]), ~known)
    assert (place[0] >= means[0, :, :2].min(axis=0)).all() and (place[0] <= means[0, :, :2].max(axis=0)).all()


def test_a_workspace_names_the_array_that_it_wants():
    ws = Workspace(looking_at(np.random.default_rng(0), 2), LAYOUTS["coco17"], 0, 4)
    ws.mean = ws.mean.astype(np.float32)
    with pytest.raises(ValueError, match="mean: want a C-contiguous array of float64, got float32"):
        ws.bound()
    del ws.mean
    with pytest.raises(ValueError, match="want an array 'mean', got none"):
        ws.bound()
