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


def place_by_height(camera, x, y, seen, heights_m, stature_sd):
    """Place (2,) and covariance (2, 2) of a detection; None where no joint's ray meets its height."""
    eye = -camera[:, :3].T @ camera[:, 3]
    weights, places, along = [], [], []
    for j in np.flatnonzero(seen):
        ray = camera[:, :3].T @ [x[j], y[j], 1.0]
        depth = (heights_m[j, 0] - eye[2]) / ray[2] if abs(ray[2]) >= 1e-3 else 0.0
        if depth < 0.2:
            continue
        slope = ray[:2] / ray[2]
        weights.append(1.0 / (heights_m[j, 1] ** 2 * (slope @ slope) + 0.04))
        places.append(eye[:2] + depth * ray[:2])
        along.append(slope * heights_m[j, 0] * stature_sd)
    if not weights:
        return None
    total = np.sum(weights)
    shift = np.average(along, axis=0, weights=weights)
    cov = np.outer(shift, shift) + (0.15**2 + 1.0 / total) * np.eye(2)
    return np.average(places, axis=0, weights=weights), cov


def _score_of_joint(rays, spread, height_m, model):
    """Score and cost of two rays (eye, direction), None where they are parallel, and their meeting point or None."""
    (eye_a, ray_a), (eye_b, ray_b) = rays
    normal = np.cross(ray_a, ray_b)
    if normal @ normal < 0.0027 * (ray_a @ ray_a) * (ray_b @ ray_b):
        return None, None
    # eye_a + s ray_a + g normal = eye_b + t ray_b
    s, t, g = np.linalg.solve(np.stack([ray_a, -ray_b, normal], axis=1), eye_b - eye_a)
    if min(s, t) < 0.2:
        return (model.joint_gain - model.joint_loss, 16.0), None
    point = 0.5 * (eye_a + s * ray_a + eye_b + t * ray_b)
    z_sq = g**2 * (normal @ normal) / spread(s, t)
    odd = (point[2] - height_m[0]) / (2.0 * height_m[1] + 0.1)
    loss = model.joint_loss * z_sq / (z_sq + model.joint_scale) + 0.5 * odd**2
    return (model.joint_gain - min(loss, model.joint_loss), min(z_sq + 0.5 * odd**2, 16.0)), point


def _are_apart(eyes, rays, seen):
    """Whether the middle rays of two detections pass half a metre and 0.8 times both bodies' extents apart, or at the
    height of no body."""
    middles = [r[s].mean(axis=0) for r, s in zip(rays, seen)]
    radii = [np.linalg.norm(r[s] - m, axis=1).max() for r, s, m in zip(rays, seen, middles)]
    normal = np.cross(*middles)
    if normal @ normal < 0.03 * (middles[0] @ middles[0]) * (middles[1] @ middles[1]):
        return False
    s, t, g = np.linalg.solve(np.stack([middles[0], -middles[1], normal], axis=1), eyes[1] - eyes[0])
    height = 0.5 * (eyes[0] + s * middles[0] + eyes[1] + t * middles[1])[2]
    if min(s, t) < -2.0 or not -0.9 <= height <= 2.7:
        return True
    return abs(g) * np.linalg.norm(normal) > 0.5 + 0.8 * (abs(s) * radii[0] + abs(t) * radii[1])


def pair_scores(free, detections, cameras, body_var, heights_m, model):
    """Scores (n, n), -inf within a camera; mean costs, NaN where most common joints do not compare; numbers of joints
    that compare; and centres (n, n, 3), of which only x and y count where no rays meet."""
    n = len(free)
    cost, count = np.full((n, n), np.nan), np.zeros((n, n), int)
    out, centre = np.full((n, n), -np.inf), np.full((n, n, 3), np.nan)
    d = detections
    for a in range(n):
        for b in range(n):
            i, k = free[a], free[b]
            u, v = d.view_of[i], d.view_of[k]
            if u == v:
                continue
            moved = model.speed_m_s * (d.dt_s[u] - d.dt_s[v])
            eyes = [-cameras[w][:, :3].T @ cameras[w][:, 3] for w in (u, v)]
            out[a, b], points, costs = 0.0, [], []
            common = np.flatnonzero((d.seen[i] > 0) & (d.seen[k] > 0))
            for j in common:
                rays = [cameras[w][:, :3].T @ [d.x[e, j], d.y[e, j], 1.0] for w, e in ((u, i), (v, k))]

                def spread(s, t, j=j, i=i, k=k, moved=moved):
                    return s * s * d.var[i, j] + t * t * d.var[k, j] + 2.0 * body_var[j] + moved**2

                values, point = _score_of_joint(list(zip(eyes, rays)), spread, heights_m[j], model)
                if values is None:
                    continue
                out[a, b] += values[0]
                costs.append(values[1])
                points += [point] if point is not None else []
            count[a, b] = len(costs)
            if costs and 2 * len(costs) >= len(common):
                cost[a, b] = np.mean(costs)
            first, second = (
                place_by_height(cameras[w], d.x[e], d.y[e], d.seen[e], heights_m, model.stature_sd)
                for w, e in ((u, i), (v, k))
            )
            if first and second:
                apart, cov = second[0] - first[0], first[1] + second[1]
                d_sq = apart @ np.linalg.solve(cov, apart)
                out[a, b] += model.place_gain - 0.5 * np.log(np.linalg.det(cov))
                out[a, b] -= model.place_loss * d_sq / (d_sq + model.place_scale)
                weights = [np.linalg.inv(place[1]) for place in (first, second)]
                mean = np.linalg.solve(sum(weights), weights[0] @ first[0] + weights[1] @ second[0])
                centre[a, b] = [*mean, 0.0]
            if points:
                centre[a, b] = np.mean(points, axis=0)
            seen = [d.seen[e] > 0 for e in (i, k)]
            rays = [
                np.column_stack([d.x[e], d.y[e], np.ones(len(d.x[e]))]) @ cameras[w][:, :3] for w, e in ((u, i), (v, k))
            ]
            if all(s.any() for s in seen) and _are_apart(eyes, rays, seen):
                out[a, b] = min(s.sum() for s in seen) * (model.joint_gain - model.joint_loss)
                centre[a, b] = np.nan
    return out, centre, cost, count


def clusters(score, pair_min):
    """Greedy agglomeration by plain search: a set of frozensets, the ones alone included."""
    found = [[a] for a in range(len(score))]
    while True:
        best, who = 0.0, None
        for i, first in enumerate(found):
            for k, second in enumerate(found[:i]):
                total = score[np.ix_(first, second)].sum()
                n_pairs = len(first) * len(second)
                gain = total - pair_min if n_pairs == 1 else 2 * min(len(first), len(second)) * total / n_pairs
                if gain > best:
                    best, who = gain, (i, k)
        if who is None:
            return {frozenset(cluster) for cluster in found}
        i, k = who
        found[k] += found.pop(i)


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
