"""Bundle adjustment: camera poses, clock offsets and world points together, robustly, with their covariance.

Points belong to one person at one instant each. Every camera tells where it saw a point as a short path in time, so its
clock's offset is a parameter like any other. Points are eliminated (Schur complement), which leaves seven unknowns for
each camera; derivatives are exact.

Source: Triggs et al., Bundle Adjustment - A Modern Synthesis (2000), sections 6 and 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusion.store.rotations import rotation_matrices

# Unknowns of a camera: rotation vector, centre in metres, clock offset in seconds.
N_UNKNOWNS = 7
# A point that nothing holds has no say; this many points are eliminated at a time.
_POINTS_AT_A_TIME = 4096
# Residuals of so many deviations lose half of their weight (Cauchy).
_HALF_AT = 2.0
# Deviation of a keypoint in the picture beyond that at the body, pixels.
_SD_PX = 0.7
# A keypoint's deviation at the body lies within this, metres.
_SD_MIN_M, _SD_MAX_M = 0.002, 0.08
# Nothing nearer to a camera than this is a body, metres.
_DEPTH_MIN_M = 0.1


@dataclass(frozen=True)
class Poses:
    """Where cameras are.

    Attributes:
        rotation: (n_views, 3, 3) camera from world.
        centre_m: (n_views, 3) world.
        offset_s: (n_views,) a camera's clock minus the common one.
    """

    rotation: np.ndarray
    centre_m: np.ndarray
    offset_s: np.ndarray

    def camera_from_world(self) -> np.ndarray:
        """(n_views, 3, 4) extrinsics."""
        return np.concatenate([self.rotation, -self.rotation @ self.centre_m[:, :, None]], axis=2)

    def moved(self, step: np.ndarray) -> Poses:
        """After a step (n_views, 7)."""
        rotation = rotation_matrices(step[:, :3]) @ self.rotation
        return Poses(rotation, self.centre_m + step[:, 3:6], self.offset_s + step[:, 6])


@dataclass(frozen=True)
class Sights:
    """Observations, sorted by point; a camera sees a point once.

    Attributes:
        view, point, joint: (n,) indices.
        path: (n, 3, 2) normalised image coordinates as a polynomial of the camera's time since the point's instant.
        focal_px: (n,).
    """

    view: np.ndarray
    point: np.ndarray
    joint: np.ndarray
    path: np.ndarray
    focal_px: np.ndarray


@dataclass(frozen=True)
class Adjusted:
    """What came out.

    Attributes:
        poses, points_m: the estimate, in whatever frame and scale the start was.
        weight: (n,) of each observation, 1 where it fits, near 0 where it is wrong.
        error_m: (n,) its residual at the body.
        joint_sd_m: (n_joints,) deviation of detected joints at the body.
    """

    poses: Poses
    points_m: np.ndarray
    weight: np.ndarray
    error_m: np.ndarray
    joint_sd_m: np.ndarray


def crosses(vectors: np.ndarray) -> np.ndarray:
    """(..., 3, 3) matrices of the cross products with each vector."""
    out = np.zeros((*vectors.shape, 3))
    x, y, z = np.moveaxis(vectors, -1, 0)
    out[..., 0, 1], out[..., 0, 2], out[..., 1, 2] = -z, y, -x
    out[..., 1, 0], out[..., 2, 0], out[..., 2, 1] = z, -y, x
    return out


@dataclass
class _Linear:
    """Residuals in deviations and their derivatives; weights are in both."""

    residual: np.ndarray  # (n, 2)
    by_view: np.ndarray  # (n, 2, 7)
    by_point: np.ndarray  # (n, 2, 3)


def _residuals(sights: Sights, poses: Poses, points_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) normalised residuals, and (n, 3) the points before their cameras."""
    at = np.einsum("nij,nj->ni", poses.rotation[sights.view], points_m[sights.point] - poses.centre_m[sights.view])
    u = poses.offset_s[sights.view][:, None]
    seen = sights.path[:, 0] + u * (sights.path[:, 1] + u * sights.path[:, 2])
    depth = np.maximum(at[:, 2:], _DEPTH_MIN_M)
    return at[:, :2] / depth - seen, at


def _linear(sights: Sights, poses: Poses, points_m: np.ndarray, root: np.ndarray) -> _Linear:
    """Around a state; root (n,) is the square root of each observation's weight over its deviation."""
    residual, at = _residuals(sights, poses, points_m)
    inverse = 1.0 / np.maximum(at[:, 2], _DEPTH_MIN_M)
    project = np.zeros((len(at), 2, 3))
    project[:, 0, 0] = project[:, 1, 1] = inverse
    project[:, :, 2] = -at[:, :2] * inverse[:, None] ** 2
    project *= root[:, None, None]
    by_view = np.empty((len(at), 2, N_UNKNOWNS))
    by_view[:, :, :3] = -project @ crosses(at)
    by_point = project @ poses.rotation[sights.view]
    by_view[:, :, 3:6] = -by_point
    u = poses.offset_s[sights.view][:, None]
    by_view[:, :, 6] = -(sights.path[:, 1] + 2.0 * u * sights.path[:, 2]) * root[:, None]
    return _Linear(residual * root[:, None], by_view, by_point)


class _Normal:
    """The normal equations, with points eliminated."""

    def __init__(self, sights: Sights, linear: _Linear, n_views: int, n_points: int, damping: float) -> None:
        self.sights, self.linear, self.n_views = sights, linear, n_views
        starts = np.searchsorted(sights.point, np.arange(n_points))
        a, b, r = linear.by_view, linear.by_point, linear.residual
        v = np.add.reduceat(np.einsum("nia,nib->nab", b, b), starts)
        self.point_gradient = np.add.reduceat(np.einsum("nia,ni->na", b, r), starts)
        v[:, range(3), range(3)] *= 1.0 + damping
        v[:, range(3), range(3)] += 1e-6
        self.inverse = np.linalg.inv(v)
        lower = np.linalg.cholesky(self.inverse)  # inverse = lower @ lower.T
        mixed = np.einsum("nia,nib->nab", a, b)
        half = mixed @ lower[sights.point]  # (n, 7, 3)
        self.mixed = mixed
        n = n_views * N_UNKNOWNS
        self.matrix = np.zeros((n, n))
        gradient = np.einsum("nia,ni->na", a, r)
        lowered = np.einsum("nab,na->nb", lower, self.point_gradient)
        # What each observation says of its camera, once its point is gone.
        self.score = gradient - np.einsum("nab,nb->na", half, lowered[sights.point])
        self.gradient = _sum_by(self.score, sights.view, n_views)
        for view in range(n_views):
            rows = a[sights.view == view].reshape(-1, N_UNKNOWNS)
            own = slice(view * N_UNKNOWNS, (view + 1) * N_UNKNOWNS)
            self.matrix[own, own] = rows.T @ rows
        diagonal = np.arange(n)
        self.matrix[diagonal, diagonal] *= 1.0 + damping
        for first in range(0, n_points, _POINTS_AT_A_TIME):
            last = min(first + _POINTS_AT_A_TIME, n_points)
            some = slice(*np.searchsorted(sights.point, [first, last]))
            dense = np.zeros((last - first, 3, n_views, N_UNKNOWNS))
            dense[sights.point[some] - first, :, sights.view[some]] = half[some].transpose(0, 2, 1)
            rows = dense.reshape(-1, n)
            self.matrix -= rows.T @ rows

    def step(self) -> tuple[np.ndarray, np.ndarray]:
        """(n_views, 7) and (n_points, 3): what to add."""
        # The frame, its scale and the common clock are free: a trace of a prior keeps the matrix regular.
        n = len(self.matrix)
        ridge = np.eye(n) * 1e-9 * np.trace(self.matrix) / n
        views = np.linalg.solve(self.matrix + ridge, -self.gradient.ravel()).reshape(self.n_views, N_UNKNOWNS)
        back = np.einsum("nab,na->nb", self.mixed, views[self.sights.view])
        back = _sum_by(back, self.sights.point, len(self.inverse))
        return views, np.einsum("nab,nb->na", self.inverse, -self.point_gradient - back)


def _sum_by(values: np.ndarray, index: np.ndarray, n: int) -> np.ndarray:
    """(n, m): rows of values (rows, m) added up by index."""
    return np.stack([np.bincount(index, values[:, i], n) for i in range(values.shape[1])], axis=1)


def adjust(sights: Sights, poses: Poses, points_m: np.ndarray, n_joints: int, steps: int) -> Adjusted:
    """Find the poses, offsets and points that explain the observations best.

    Args:
        sights: observations; every point has at least two.
        poses, points_m: start, about metric; points (n_points, 3) in the world frame.
        steps: at most so many.

    Deviations of joints are learned from the residuals. Frame, scale and common clock stay where the start has them,
    up to rounding.
    """
    damping, joint_sd_m = 1e-4, np.full(n_joints, 0.03)
    residual, at = _residuals(sights, poses, points_m)
    for step in range(steps):
        joint_sd_m = _joint_sd_m(sights, residual, at, n_joints)
        sd = _sd(sights, at, joint_sd_m)
        cost, weight = _cost(residual, sd, at)
        linear = _linear(sights, poses, points_m, np.sqrt(weight) / sd)
        gained = 0.0
        for _ in range(6):
            views, points = _Normal(sights, linear, len(poses.centre_m), len(points_m), damping).step()
            new_poses, new_points_m = poses.moved(views), points_m + points
            new_residual, new_at = _residuals(sights, new_poses, new_points_m)
            new_cost, _ = _cost(new_residual, sd, new_at)
            if new_cost < cost:
                gained, damping = cost - new_cost, max(damping / 5.0, 1e-9)
                poses, points_m, residual, at = new_poses, new_points_m, new_residual, new_at
                break
            damping *= 8.0
        if gained < 1e-5 * cost and step > 2:
            break
    joint_sd_m = _joint_sd_m(sights, residual, at, n_joints)
    _, weight = _cost(residual, _sd(sights, at, joint_sd_m), at)
    error_m = np.linalg.norm(residual, axis=1) * np.maximum(at[:, 2], _DEPTH_MIN_M)
    return Adjusted(poses, points_m, weight, error_m, joint_sd_m)


def _joint_sd_m(sights: Sights, residual: np.ndarray, at: np.ndarray, n_joints: int) -> np.ndarray:
    """(n_joints,) deviation of detected joints at the body, from medians of residuals; rare joints have everybody's."""
    off_m = np.abs(residual).mean(axis=1) * np.maximum(at[:, 2], _DEPTH_MIN_M)
    sd = np.full(n_joints, 1.25 * float(np.median(off_m)))
    for joint in range(n_joints):
        own = off_m[sights.joint == joint]
        if len(own) > 30:
            sd[joint] = 1.25 * float(np.median(own))
    return np.clip(sd, _SD_MIN_M, _SD_MAX_M)


def _sd(sights: Sights, at: np.ndarray, joint_sd_m: np.ndarray) -> np.ndarray:
    """(n,) deviation of each observation, normalised coordinates."""
    return np.hypot(joint_sd_m[sights.joint] / np.maximum(at[:, 2], _DEPTH_MIN_M), _SD_PX / sights.focal_px)


def _cost(residual: np.ndarray, sd: np.ndarray, at: np.ndarray) -> tuple[float, np.ndarray]:
    """Cauchy's cost, and the weights of its quadratic neighbour; what lies behind a camera counts as far off."""
    squared = (residual**2).sum(axis=1) / (sd * _HALF_AT) ** 2
    squared = np.where(at[:, 2] < _DEPTH_MIN_M, 1e4, squared)
    weight = np.where(at[:, 2] < _DEPTH_MIN_M, 0.0, 1.0 / (1.0 + squared))
    return float(np.log1p(squared).sum() * _HALF_AT**2), weight


def covariance(sights: Sights, adjusted: Adjusted, clusters: Sequence[np.ndarray]) -> np.ndarray:
    """(n_views, 7, 7) covariance of each camera's rotation, centre and offset, in the frame that fits all cameras best.

    Detectors err alike in pictures that follow one another, and put a joint always a little beside its place, so that
    counting observations would promise too much: the scatter of what clusters of them say is counted as well, and the
    largest is told.

    Args:
        clusters: ways to cluster, each (n_points,) int, alike for points that err alike: those of the same seconds,
            those of the same joint.

    Source: White, A Heteroskedasticity-Consistent Covariance Matrix Estimator (1980), by clusters.
    """
    poses, points_m = adjusted.poses, adjusted.points_m
    residual, at = _residuals(sights, poses, points_m)
    root = np.sqrt(adjusted.weight) / _sd(sights, at, adjusted.joint_sd_m)
    normal = _Normal(sights, _linear(sights, poses, points_m, root), len(poses.centre_m), len(points_m), 0.0)
    n_views = len(poses.centre_m)
    freedom = _freedom(poses)
    kept = np.linalg.svd(freedom)[0][:, freedom.shape[1] :]
    inverse = kept @ np.linalg.pinv(kept.T @ normal.matrix @ kept, rcond=1e-12, hermitian=True) @ kept.T
    scattered = np.zeros(len(inverse))
    for cluster in clusters:
        n = int(cluster.max()) + 1
        scores = np.zeros((n, n_views, N_UNKNOWNS))
        np.add.at(scores, (cluster[sights.point], sights.view), normal.score)
        spread = inverse @ scores.reshape(n, -1).T
        scattered = np.maximum(scattered, (spread**2).sum(axis=1) * n / max(n - 1, 1))
    noise = float(((residual * root[:, None]) ** 2).sum() / max(adjusted.weight.sum(), 1.0)) / 2.0
    out = np.empty((n_views, N_UNKNOWNS, N_UNKNOWNS))
    for view in range(n_views):
        own = slice(view * N_UNKNOWNS, (view + 1) * N_UNKNOWNS)
        counted = inverse[own, own] * max(noise, 1.0)
        grow = np.sqrt(np.maximum(scattered[own] / np.maximum(np.diag(counted), 1e-30), 1.0))
        out[view] = counted * grow[:, None] * grow[None, :]
    return out


def _freedom(poses: Poses) -> np.ndarray:
    """(7 n_views, 8) steps that change nothing: shift, turn, scale, and all clocks alike."""
    n = len(poses.centre_m)
    out = np.zeros((n, N_UNKNOWNS, 8))
    middle_m = poses.centre_m - poses.centre_m.mean(axis=0)
    for axis in range(3):
        out[:, 3 + axis, axis] = 1.0
        turn = np.eye(3)[axis]
        out[:, 3:6, 3 + axis] = np.cross(turn, middle_m)
        # x_cam = R (X - C): turning the world by w turns the camera by -R w.
        out[:, :3, 3 + axis] = -poses.rotation @ turn
    out[:, 3:6, 6] = middle_m
    out[:, 6, 7] = 1.0
    return out.reshape(-1, 8)


def locate(sights: Sights, poses: Poses, points_m: np.ndarray, steps: int = 8) -> Poses:
    """Find the pose and offset of one camera from known points (n_points, 3); sights.view is 0 throughout.

    Returns the start, poses, where too few of the points lie before the camera.
    """
    for _ in range(steps):
        residual, at = _residuals(sights, poses, points_m)
        ahead = at[:, 2] > _DEPTH_MIN_M
        if ahead.sum() < N_UNKNOWNS:
            return poses
        off_m = np.abs(residual[ahead]).mean(axis=1) * at[ahead, 2]
        sd = max(1.25 * float(np.median(off_m)), _SD_MIN_M) / np.maximum(at[:, 2], _DEPTH_MIN_M)
        _, weight = _cost(residual, sd, at)
        linear = _linear(sights, poses, points_m, np.sqrt(weight) / sd)
        rows, right = linear.by_view.reshape(-1, N_UNKNOWNS), linear.residual.ravel()
        # A clock that little movement tells of stays near the others'.
        normal = rows.T @ rows + np.diag([0.0, 0, 0, 0, 0, 0, 0.1**-2])
        step = np.linalg.solve(normal + 1e-9 * np.trace(normal) * np.eye(N_UNKNOWNS), -rows.T @ right)
        poses = poses.moved(step[None])
    return poses
