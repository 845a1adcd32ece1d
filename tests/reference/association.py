"""NumPy twins of the association kernels."""

from __future__ import annotations

import numpy as np

NEVER = 1e9
_TRIANGLE = np.tril_indices(6)


def full(cov: np.ndarray) -> np.ndarray:
    """(21, n) lower triangles to (n, 6, 6)."""
    out = np.empty((cov.shape[1], 6, 6))
    out[:, _TRIANGLE[0], _TRIANGLE[1]] = cov.T
    out[:, _TRIANGLE[1], _TRIANGLE[0]] = cov.T
    return out


def costs(cameras, dt_s, start, x, y, var, seen, mean, cov, rows, body_var, cap, joints_min, var_max):
    out = np.full((len(rows), len(x)), NEVER)
    for view, camera in enumerate(cameras):
        for track, row in enumerate(rows):
            q = camera[:, :3] @ (mean[row, :3] + dt_s[view] * mean[row, 3:]) + camera[:, 3:]
            if q[2].sum() <= 0.05 * q.shape[1]:
                continue
            depth = np.maximum(q[2], 0.05)
            u, v = q[0] / depth, q[1] / depth
            position_cov = full(cov[row])[:, :3, :3]
            rows_u = camera[0, :3] - u[:, None] * camera[2, :3]
            rows_v = camera[1, :3] - v[:, None] * camera[2, :3]
            across = np.einsum("ni,nij,nj->n", rows_u, position_cov, rows_u)
            across += np.einsum("ni,nij,nj->n", rows_v, position_cov, rows_v)
            spread = (body_var + np.minimum(across / 2, var_max)) / depth**2
            for d in range(start[view], start[view + 1]):
                on = seen[d] > 0
                if on.sum() < joints_min:
                    continue
                wide = (var[d] + spread)[on]
                distance = ((x[d] - u) ** 2 + (y[d] - v) ** 2)[on] / wide
                sharp = (var[d] + body_var / depth**2)[on]
                out[track, d] = np.minimum(distance, cap).mean() + np.log(max(wide.sum() / sharp.sum(), 1.0))
    return out


def line_of_sight(places_m, heights_m, rig, live, boxes):
    """By sampling the line of sight every centimetre or so; rig without distortion."""
    out = np.zeros((len(places_m), rig.n_views), bool)
    for n, place in enumerate(places_m):
        points = np.array([[*place, h] for h in heights_m])
        pixels = rig.project(points)
        for view in range(rig.n_views):
            inside = np.all((pixels[view] >= 0) & (pixels[view] <= rig.size_px[view]))
            free = True
            for point in points:
                line = point + np.linspace(0, 1, 2000)[:, None] * (rig.centres_m[view] - point)
                for x0, y0, x1, y1, height in boxes:
                    hit = (line[:, 0] > x0) & (line[:, 0] < x1) & (line[:, 1] > y0) & (line[:, 1] < y1)
                    free &= not (hit & (line[:, 2] > 0) & (line[:, 2] < height)).any()
            out[n, view] = live[view] and inside and free
    return out
