"""NumPy twins of the kernels of camera health."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Comparison(NamedTuple):
    """One detection minus one prediction: weight, difference (2,), rate (2,), place in the image (2,), depth."""

    weight: float
    off: np.ndarray
    rate: np.ndarray
    image: np.ndarray
    depth_m: float


def compare(camera, dt_s, velocity_scale, x, y, var, seen, mean, cov, body_var):
    """Compare one detection with one prediction."""
    velocity = velocity_scale * mean[3:]
    q = camera[:, :3] @ (mean[:3] + dt_s * velocity) + camera[:, 3:]
    depth = np.maximum(q[2], 0.05)
    image = q[:2] / depth
    weight = seen / (var * depth**2 + body_var + (cov[0] + cov[2] + cov[5]) / 3)
    off = (np.stack([x, y]) - image) * depth
    turned = camera[:, :3] @ velocity
    rate = -(turned[:2] - image * turned[2])
    share = weight / weight.sum()
    return Comparison(weight.sum(), off @ share, rate @ share, image @ share, depth @ share)


def leave_one_out(camera_from_world, compared, trust, view_var, freedom, prior_precision):
    """For each view of one person, its difference to the solution of the other views, and the variance of that.

    compared: {view: compare(...)}; trust (n_views,), relative. Weights come from two robust steps over all views, as in
    the kernel.
    """
    rows, off, noise = {}, {}, {}
    for view, found in compared.items():
        camera = camera_from_world[view]
        rows[view] = camera[:2, :3] - found.image[:, None] * camera[2, :3]
        off[view], noise[view] = found.off, view_var + 1 / found.weight
    most = max(trust[view] for view in rows)
    weights = {view: trust[view] / most / noise[view] for view in rows}

    def solve(views):
        normal = np.eye(3) * prior_precision + sum(weights[v] * rows[v].T @ rows[v] for v in views)
        return np.linalg.solve(normal, sum(weights[v] * rows[v].T @ off[v] for v in views)), np.linalg.inv(normal)

    for _ in range(2):
        place, _ = solve(rows)
        for view in rows:
            left = off[view] - rows[view] @ place
            tail = (freedom + 2) / (freedom + left @ left / noise[view])
            weights[view] = trust[view] / most * tail / noise[view]
    out = {}
    for view in rows:
        place, cov = solve([other for other in rows if other != view])
        out[view] = off[view] - rows[view] @ place, noise[view] + 0.5 * np.trace(rows[view] @ cov @ rows[view].T)
    return out


def usual_m(squares_m2_s, weight_s, trusted, prior_m, prior_s):
    """Root mean square difference of the median camera among the trusted ones; the lower of two."""
    if not trusted.any():
        return prior_m
    squares = (squares_m2_s + prior_s * prior_m**2) / (weight_s + prior_s)
    return np.sqrt(np.quantile(squares[trusted], 0.5, method="lower"))


def faults_of(evidence, weights, prior):
    """Most probable faults (7,) of one camera, and the root mean square that they explain beyond a late clock alone.

    evidence (n,) records as the kernel's.
    """
    jacobian, off = [], []
    for e in evidence:
        u, v = e["image_x"], e["image_y"]
        point = e["depth_m"] * np.array([u, v, 1.0])
        # Column i: how the point moves when the camera turns about axis i.
        turn = np.stack([np.cross(axis, point) for axis in np.eye(3)], axis=1)
        to_image = np.array([[1, 0, -u], [0, 1, -v]])
        jacobian.append(np.column_stack([to_image @ turn, to_image, [e["rate_x"], e["rate_y"]]]))
        off.append([e["off_x"], e["off_y"]])
    jacobian, off = np.array(jacobian), np.array(off)
    normal = np.einsum("n,nai,naj->ij", weights, jacobian, jacobian) + np.diag(prior)
    rhs = np.einsum("n,nai,na->i", weights, jacobian, off)
    faults = np.linalg.solve(normal, rhs)
    explained = rhs @ faults - rhs[6] ** 2 / normal[6, 6]
    return faults, np.sqrt(max(explained, 0.0) / weights.sum())
