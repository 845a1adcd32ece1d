"""NumPy twins of the native kernels of geometry and tracking: written to be believed, not fast."""

from __future__ import annotations

import numpy as np

from fusion.people.geometry import POINT_SD_PX, REFINE_STEPS, Rig, Status, triangulate_linear


def triangulate(camera_from_world: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Batched SVD of the stacked homogeneous equations; points (n_views, 2, n_points), all seen."""
    x, y = points[:, 0].T[..., None], points[:, 1].T[..., None]
    p = camera_from_world
    equations = np.concatenate([x * p[:, 2] - p[:, 0], y * p[:, 2] - p[:, 1]], axis=1)
    answer = np.linalg.svd(equations)[2][:, -1]
    return answer[:, :3] / answer[:, 3:]


def locate(rig: Rig, points_px: np.ndarray, distorted: bool) -> tuple:
    """Robust triangulation: what Triangulation holds, from pixels (n_views, n_points, 2).

    The linear start is the kernel's, which has a twin of its own: where a wrong view brings it between two solutions,
    its last digits decide which of them the refinement finds.
    """
    k = rig.image_from_camera
    focal = np.stack([k[:, 0, 0], k[:, 1, 1]], axis=-1)
    z = rig.normalise(points_px) if distorted else (points_px - k[:, None, :2, 2]) / focal[:, None]
    sd = POINT_SD_PX / np.sqrt(focal.prod(axis=1))
    n_views, n_points = points_px.shape[:2]
    points_m, cov_m2 = np.full((n_points, 3), np.nan), np.full((n_points, 3, 3), np.nan)
    agreeing, status = np.zeros((n_views, n_points), bool), np.full(n_points, Status.UNDERCONSTRAINED, np.int8)
    start = triangulate_linear(rig, points_px, distorted=distorted)
    ahead = (rig.centres_m + 3.0 * rig.camera_from_world[:, 2, :3]).mean(axis=0)
    seen = np.flatnonzero(np.isfinite(z).all(axis=2).sum(axis=0) >= 2)
    begin = np.where(start.status[seen, None] == Status.OK, start.points_m[seen], ahead)
    q, cov, weight = refine(rig.camera_from_world, z[:, seen], sd, begin)
    agrees = weight > 0.1
    depth = np.einsum("vj,nj->vn", rig.camera_from_world[:, 2, :3], q) + rig.camera_from_world[:, 2, 3:]
    behind = (agrees & (depth <= 0)).any(axis=0)
    certain = np.trace(cov, axis1=1, axis2=2) < 1.0
    status[seen[certain & behind]] = Status.BEHIND_CAMERA
    found = certain & ~behind & (agrees.sum(axis=0) >= 2)
    points_m[seen[found]], cov_m2[seen[found]], status[seen[found]] = q[found], cov[found], Status.OK
    agreeing[:, seen[found]] = agrees[:, found]
    return points_m, cov_m2, agreeing, status


def refine(camera_from_world: np.ndarray, z: np.ndarray, sd: np.ndarray, q: np.ndarray) -> tuple:
    """The robust refinement, batched over points: place (n, 3), covariance, and weight (n_views, n) of each view.

    z (n_views, n, 2) normalised, NaN where unseen, sd (n_views,) of them; q (n, 3) to start from.
    """
    p, unseen = camera_from_world, ~np.isfinite(z).all(axis=2)
    widening, shrink = 64.0, 64.0 ** (-1 / (REFINE_STEPS - 2))
    for step in range(REFINE_STEPS + 1):
        c = np.einsum("vij,nj->vni", p[:, :, :3], q) + p[:, None, :, 3]
        depth = np.maximum(c[..., 2], 1e-3)
        uv = c[..., :2] / depth[..., None]
        innovation = np.where(unseen[..., None], 0.0, z - uv)
        share = 1 / (1 + (innovation**2).sum(axis=-1) / sd[:, None] ** 2 / (9 * widening**2)) ** 2
        weight = np.where(unseen, 0.0, share)
        jacobian = (p[:, None, :2, :3] - uv[..., None] * p[:, None, 2:, :3]) / depth[..., None, None]
        information = np.einsum("vn,vnki,vnkj->nij", weight / sd[:, None] ** 2, jacobian, jacobian)
        if step == REFINE_STEPS:
            return q, np.linalg.inv(information), weight
        gradient = np.einsum("vn,vnki,vnk->ni", weight / sd[:, None] ** 2, jacobian, innovation)
        q = q + np.linalg.solve(information, gradient[..., None])[..., 0]
        widening = max(widening * shrink, 1.0)
    raise AssertionError


def triangulate_normal_equations(camera_from_world: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The best NumPy form: inhomogeneous 3 x 3 normal equations, solved in one batch."""
    p = camera_from_world
    a = points[:, 0, :, None] * p[:, None, 2] - p[:, None, 0]
    b = points[:, 1, :, None] * p[:, None, 2] - p[:, None, 1]
    equations = np.concatenate([a, b]).transpose(1, 0, 2)
    left = equations[..., :3].transpose(0, 2, 1) @ equations[..., :3]
    right = -(equations[..., :3].transpose(0, 2, 1) @ equations[..., 3:])
    return np.linalg.solve(left, right)[..., 0]


def predict(mean: np.ndarray, cov: np.ndarray, dt_s: float, decay_s: float, acceleration: float) -> tuple:
    """mean (6,), cov (6, 6) of one joint after dt_s."""
    kept = np.exp(-dt_s / decay_s)
    carry = np.block([[np.eye(3), decay_s * (1 - kept) * np.eye(3)], [np.zeros((3, 3)), kept * np.eye(3)]])
    noise = acceleration * np.kron([[dt_s**3 / 3, dt_s**2 / 2], [dt_s**2 / 2, dt_s]], np.eye(3))
    return carry @ mean, carry @ cov @ carry.T + noise


def update(
    mean: np.ndarray,
    cov: np.ndarray,
    cameras: np.ndarray,
    dt_s: np.ndarray,
    z: np.ndarray,
    var: np.ndarray,
    body_var: float,
    acceleration: float,
    floor_precision: float,
    anchor_m: np.ndarray,
    anchor_precision: np.ndarray,
    degrees_of_freedom: float,
    n_steps: int,
    n_plain: int,
) -> tuple:
    """Update one joint; z (n_views, 2) normalised, NaN where unseen. Returns state, covariance, noise and its count.

    All views together measure the place at their mean instant, by least squares with Student-t weights on distances in
    metres at the body; the state now follows by its covariance with that place.
    """
    predicted, observations = mean.copy(), []

    def precision_at(place: np.ndarray, camera: np.ndarray, dt: float, v: float) -> float:
        depth = camera[2, :3] @ place + camera[2, 3]
        return 1 / (v * depth**2 + body_var + acceleration * abs(dt) ** 3 / 3) if depth > 0.05 else 0.0

    for camera, dt, seen, v in zip(cameras, dt_s, z, var):
        if not np.isnan(seen[0]):
            place = predicted[:3] + dt * predicted[3:]
            rows = camera[:2, :3] - np.outer(seen, camera[2, :3])
            off = -(rows @ place + camera[:2, 3] - seen * camera[2, 3])
            observations.append((rows, off, camera, dt, v, precision_at(place, camera, dt, v)))
    known = sum(each[-1] for each in observations)
    instant = sum(each[-1] * each[3] for each in observations) / known if known > 0 else 0.0
    look = np.hstack([np.eye(3), instant * np.eye(3)])
    before = look @ cov @ look.T
    step, after = np.zeros(3), before
    for turn in range(n_steps):
        information, rhs = np.linalg.inv(before), np.zeros(3)
        for rows, off, camera, dt, v, precision in observations:
            if n_plain > 0:
                precision = precision_at(predicted[:3] + step + dt * predicted[3:], camera, dt, v)
            weight = precision
            if turn >= n_plain:
                left = off - rows @ step
                weight = precision * (degrees_of_freedom + 2) / (degrees_of_freedom + precision * left @ left)
            information += weight * rows.T @ rows
            rhs += weight * rows.T @ off
        anchored = np.array([*anchor_precision[:2], anchor_precision[2] + floor_precision])
        information[range(3), range(3)] += anchored
        rhs += anchor_precision * (anchor_m - predicted[:3])
        rhs[2] -= floor_precision * predicted[2]
        after = np.linalg.inv(information)
        step = after @ rhs
    total = count = 0.0
    for rows, off, _, _, _, precision in observations:
        left = off - rows @ step
        distance_sq = precision * left @ left
        across = precision * np.trace(rows @ after @ rows.T)
        total += (degrees_of_freedom + 2) / (degrees_of_freedom + distance_sq) * (distance_sq + across)
        count += 2
    gain = cov @ look.T @ np.linalg.inv(before)
    return predicted + gain @ step, cov - gain @ (before - after) @ gain.T, total, count


def update_six(mean, cov, cameras, z, var, body_var, degrees_of_freedom, n_steps):
    """The same by Gauss-Newton on image positions and in all six dimensions; every view at the state's instant."""
    prior, x, look = np.linalg.inv(cov), mean.copy(), np.eye(3, 6)
    for step in range(n_steps + 1):
        information, rhs = prior.copy(), prior @ (mean - x)
        for camera, seen, v in zip(cameras, z, var):
            if np.isnan(seen[0]):
                continue
            q = camera[:, :3] @ x[:3] + camera[:, 3]
            jacobian = np.array([[1, 0, -q[0] / q[2]], [0, 1, -q[1] / q[2]]]) / q[2] @ camera[:, :3] @ look
            innovation = seen - q[:2] / q[2]
            precision = 1 / (v + body_var / q[2] ** 2)
            weight = precision * (degrees_of_freedom + 2) / (degrees_of_freedom + precision * innovation @ innovation)
            information += weight * jacobian.T @ jacobian
            rhs += weight * jacobian.T @ innovation
        if step < n_steps:
            x = x + np.linalg.solve(information, rhs)
    return x, np.linalg.inv(information)


def hold_limb(means: list, covs: list, length_m: float, sd_m: float, own_var: float) -> tuple:
    """One step of an extended Kalman filter on the 12 states of a limb's two joints; joints stay uncorrelated.

    Of the lesser of the two variances along the limb, what exceeds own_var is an error that both joints share.
    """
    mean = np.concatenate(means)
    cov = np.zeros((12, 12))
    cov[:6, :6], cov[6:, 6:] = covs
    between = mean[6:9] - mean[:3]
    distance = np.linalg.norm(between)
    row = np.concatenate([-between / distance, np.zeros(3), between / distance, np.zeros(3)])
    along = np.array([row[:6] @ covs[0] @ row[:6], row[6:] @ covs[1] @ row[6:]])
    common = max(along.min() - own_var, 0.0)
    with_row = cov @ row * np.repeat(1 - common / along, 6)
    total = (along - common).sum() + sd_m**2
    mean = mean + with_row / total * (length_m - distance)
    cov = cov - np.outer(with_row, with_row) / total
    return [mean[:6], mean[6:]], [cov[:6, :6], cov[6:, 6:]]
