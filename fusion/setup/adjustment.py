"""Bundle adjustment: camera poses, clock offsets and world points together, robustly, with their covariance.

Levenberg and Marquardt's method on Cauchy's cost, reweighted in every step; derivatives are exact, and points are
eliminated (see `normal_equations`). The measurement model is in `reprojection`.

Source: Triggs et al., Bundle Adjustment - A Modern Synthesis (2000), sections 4, 6 and 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusion.setup.lenses import LensPrior
from fusion.setup.normal_equations import Incidence, NormalEquations
from fusion.setup.reprojection import (
    DEPTH_MIN_M,
    N_UNKNOWNS,
    SD_MIN_M,
    FloatArray,
    IntArray,
    PointObservations,
    Poses,
    cauchy_cost,
    joint_sd_m,
    linearise,
    observation_sd,
    residuals,
)

# Dampings that are tried in one step, and the relative gain below which steps end. Lenses are determined by little of
# the cost: with 250 000 observations they are then within half a standard deviation of the minimum.
_DAMPINGS_MAX, _GAIN_MIN, _GAIN_MIN_OF_LENSES = 6, 1e-5, 1e-6
# Standard deviation of the clock's offset that a camera among known points has beforehand, seconds.
_OFFSET_PRIOR_SD_S = 0.1


@dataclass(frozen=True)
class Adjusted:
    """The estimate of a bundle adjustment.

    Attributes:
        poses: of the cameras, in the frame and scale of the start.
        points_m: (n_points, 3) in the same frame.
        weight: (n,) of each observation, 1 where it fits, near 0 where it is wrong.
        residual_m: (n,) of each observation, at the body.
        joint_sd_m: (n_joints,) standard deviation of detected joints at the body.
    """

    poses: Poses
    points_m: FloatArray
    weight: FloatArray
    residual_m: FloatArray
    joint_sd_m: FloatArray


def adjust(
    observations: PointObservations,
    poses: Poses,
    points_m: FloatArray,
    n_joints: int,
    n_steps: int,
    lens_prior: LensPrior | None = None,
) -> Adjusted:
    """Find the poses, clock offsets, lenses and points that fit the observations best.

    The standard deviations of joints are learned from the residuals. Frame, scale and common clock stay where the start
    has them, up to rounding.

    Args:
        observations: every point has at least two.
        poses: the start, about in metres.
        points_m: (n_points, 3) the start, world frame.
        n_joints: joints of a body.
        n_steps: steps at most.
        lens_prior: what is known of the corrections of the lenses, where `poses` have such.
    """
    damping, gain_min = 1e-4, _GAIN_MIN if lens_prior is None else _GAIN_MIN_OF_LENSES
    found = residuals(observations, poses, points_m)
    for number in range(n_steps):
        sd = observation_sd(observations, found, joint_sd_m(observations, found, n_joints))
        cost = cauchy_cost(found, sd)
        prior = None if lens_prior is None else lens_prior.at(poses)
        total = cost.total + (0.0 if prior is None else prior.cost)
        linear = linearise(observations, poses, points_m, np.sqrt(cost.weight) / sd)
        gain = 0.0
        for _ in range(_DAMPINGS_MAX):
            step = NormalEquations(observations, linear, len(poses.centre_m), len(points_m), damping, prior).step()
            new_poses, new_points_m = poses.moved(step.views), points_m + step.points_m
            new_found = residuals(observations, new_poses, new_points_m)
            new_total = cauchy_cost(new_found, sd).total
            new_total += 0.0 if lens_prior is None else lens_prior.at(new_poses).cost
            if new_total < total:
                gain, damping = total - new_total, max(damping / 5.0, 1e-9)
                poses, points_m, found = new_poses, new_points_m, new_found
                break
            damping *= 8.0
        if gain < gain_min * total and number > 2:
            break
    sd_m = joint_sd_m(observations, found, n_joints)
    weight = cauchy_cost(found, observation_sd(observations, found, sd_m)).weight
    residual_m = np.linalg.norm(found.normalised, axis=1) * found.depth_m()
    return Adjusted(poses, points_m, weight, residual_m, sd_m)


def covariance(
    observations: PointObservations,
    adjusted: Adjusted,
    clusters: Sequence[IntArray],
    lens_prior: LensPrior | None = None,
    alike: float = 1.0,
) -> FloatArray:
    """Covariance of each camera's rotation, centre, clock offset and lens, in the frame that fits all cameras best.

    The inverse of the normal equations counts every observation as independent and would promise too much: a detector's
    errors are correlated in consecutive pictures, and it always puts a joint a little off its place. So the scatter of
    the clusters' summed gradients ("sandwich" H^-1 S H^-1) is computed as well, and the larger variance is reported.

    Args:
        observations: as they were adjusted.
        adjusted: the estimate.
        clusters: ways to cluster the points, each (n_points,) with equal numbers for points whose errors are
            correlated: those of the same seconds, those of the same joint.
        lens_prior: as in the adjustment.
        alike: how many observations count as one, if what is known of lenses has entered the adjustment as often.

    Returns:
        (n_views, u, u) for the u unknowns of a camera; 0 for those that were known.

    Source: White, A Heteroskedasticity-Consistent Covariance Matrix Estimator (1980), by clusters.
    """
    poses, points_m = adjusted.poses, adjusted.points_m
    n_views = len(poses.centre_m)
    found = residuals(observations, poses, points_m)
    root_weight = np.sqrt(adjusted.weight) / observation_sd(observations, found, adjusted.joint_sd_m)
    linear = linearise(observations, poses, points_m, root_weight)
    prior = None if lens_prior is None else lens_prior.at(poses)
    normal = NormalEquations(observations, linear, n_views, len(points_m), 0.0, prior)
    noise = float(((found.normalised * root_weight[:, None]) ** 2).sum() / max(adjusted.weight.sum(), 1.0)) / 2.0
    return camera_covariance(normal, observations, free_directions(poses), clusters, alike * max(noise, 1.0))


def camera_covariance(
    normal: NormalEquations,
    observations: Incidence,
    gauge: FloatArray,
    clusters: Sequence[IntArray],
    noise: float,
) -> FloatArray:
    """(n_views, u, u) covariance of each camera; see `covariance`.

    Args:
        normal: the undamped normal equations at the estimate.
        observations: as they were adjusted.
        gauge: (u n_views, n_free) steps that change no residual.
        clusters: as for `covariance`.
        noise: by which the inverse of the normal equations is enlarged: the mean square of the residuals in standard
            deviations, times how many of them count as one.
    """
    n_views = int(len(normal.free) / normal.score.shape[1])
    u = normal.score.shape[1]
    free = gauge[normal.free]
    kept = np.linalg.svd(free)[0][:, free.shape[1] :]
    matrix = normal.matrix[np.ix_(normal.free, normal.free)]
    inverse = np.zeros_like(normal.matrix)
    inverse[np.ix_(normal.free, normal.free)] = (
        kept @ np.linalg.pinv(kept.T @ matrix @ kept, rcond=1e-12, hermitian=True) @ kept.T
    )
    scattered = np.zeros(len(inverse))
    for cluster in clusters:
        n = int(cluster.max()) + 1
        scores = np.zeros((n, n_views, u))
        np.add.at(scores, (cluster[observations.point], observations.view), normal.score)
        spread = inverse @ scores.reshape(n, -1).T
        scattered = np.maximum(scattered, (spread**2).sum(axis=1) * n / max(n - 1, 1))
    out = np.empty((n_views, u, u))
    for view in range(n_views):
        block = slice(view * u, (view + 1) * u)
        counted = inverse[block, block] * noise
        growth = np.sqrt(np.maximum(scattered[block] / np.maximum(np.diag(counted), 1e-30), 1.0))
        out[view] = counted * growth[:, None] * growth[None, :]
    return out


def free_directions(poses: Poses) -> FloatArray:
    """(u n_views, 8) steps that change no residual, the gauge freedoms: shift, turn, scale, and all clocks alike."""
    n = len(poses.centre_m)
    out = np.zeros((n, poses.n_unknowns, 8))
    from_middle_m = poses.centre_m - poses.centre_m.mean(axis=0)
    for axis in range(3):
        out[:, 3 + axis, axis] = 1.0
        turn = np.eye(3)[axis]
        out[:, 3:6, 3 + axis] = np.cross(turn, from_middle_m)
        # x_cam = R (X - C): turning the world by w turns the camera by -R w.
        out[:, :3, 3 + axis] = -poses.rotation @ turn
    out[:, 3:6, 6] = from_middle_m
    out[:, 6, 7] = 1.0
    return out.reshape(-1, 8)


def locate_camera(observations: PointObservations, poses: Poses, points_m: FloatArray, n_steps: int = 8) -> Poses:
    """Find the pose and clock offset of one camera from known points.

    Args:
        observations: of one camera; `view` is 0 throughout.
        poses: the start, of that camera alone.
        points_m: (n_points, 3) world frame.
        n_steps: Gauss-Newton steps.

    Returns:
        The pose; the start where too few of the points lie before the camera.
    """
    for _ in range(n_steps):
        found = residuals(observations, poses, points_m)
        depth_m = found.point_camera_m[:, 2]
        ahead = depth_m > DEPTH_MIN_M
        if ahead.sum() < N_UNKNOWNS:
            return poses
        off_m = np.abs(found.normalised[ahead]).mean(axis=1) * depth_m[ahead]
        sd = max(1.25 * float(np.median(off_m)), SD_MIN_M) / found.depth_m()
        weight = cauchy_cost(found, sd).weight
        linear = linearise(observations, poses, points_m, np.sqrt(weight) / sd)
        rows, right = linear.by_view.reshape(-1, N_UNKNOWNS), linear.residual.ravel()
        # A clock that little movement determines stays near the others'.
        normal = rows.T @ rows + np.diag([0.0, 0, 0, 0, 0, 0, _OFFSET_PRIOR_SD_S**-2])
        step = np.linalg.solve(normal + 1e-9 * np.trace(normal) * np.eye(N_UNKNOWNS), -rows.T @ right)
        poses = poses.moved(step[None])
    return poses
