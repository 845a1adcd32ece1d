"""NumPy twins of the kernels of existence."""

from __future__ import annotations

import numpy as np

NO_VIEW, N_BANDS = -1, 3


def bodies(states, shape):
    """Places (n, 2) and heights (n,) of tracks whose joints are all known."""
    mean = states.mean[states.rows]
    return mean[:, :2].mean(axis=2), mean[:, 2].max(axis=1) + shape.crown_m


def eyes(cameras):
    """(n_views, 3) centres of cameras."""
    rotation, shift = cameras.camera_from_world[:, :, :3], cameras.camera_from_world[:, :, 3]
    return -np.einsum("vji,vj->vi", rotation, shift)


def in_picture(point, view, cameras, margin=1.0):
    u, v, depth = cameras.camera_from_world[view] @ np.append(point, 1.0)
    if depth < 0.2:
        return False
    fx, fy, cx, cy = cameras.pinholes[view]
    x, y = margin * fx * u / depth + cx, margin * fy * v / depth + cy
    return bool(0 <= x <= cameras.size_px[view, 0] and 0 <= y <= cameras.size_px[view, 1])


def blocked(point, eye, boxes):
    for x0, y0, x1, y1, height in boxes:
        with np.errstate(divide="ignore"):
            ends = (np.array([[x0, y0, 0.0], [x1, y1, height]]) - point) / (eye - point)
        if max(ends.min(axis=0).max(), 0.0) < min(ends.max(axis=0).min(), 1.0):
            return True
    return False


def circumstances(states, cameras, live, shape):
    """(n, n_views) of all tracks, without scratch and in the plainest order."""
    places, tops = bodies(states, shape)
    out = np.full((len(places), len(live)), NO_VIEW, np.int8)
    for view in np.flatnonzero(live):
        eye = eyes(cameras)[view]
        for k, (place, top) in enumerate(zip(places, tops)):
            low, middle, face = (np.append(place, share * top) for share in (shape.low, 0.6, 0.9))
            if not all(in_picture(p, view, cameras) and not blocked(p, eye, cameras.boxes) for p in (middle, face)):
                continue
            away = np.hypot(*(eye[:2] - place))
            along = (places - place) @ (eye[:2] - place) / away
            aside = np.abs((places - place) @ np.array([eye[1] - place[1], place[0] - eye[0]])) / away
            on_line = (-shape.behind_m < along) & (along < away) & (aside < shape.beside_m)
            on_line &= middle[2] + along / away * (eye[2] - middle[2]) < tops
            on_line[k] = False
            hides = on_line & (along > 0) & (aside < shape.half_width_m)
            hides &= np.hypot(*(places - place).T) > shape.touching_m
            if hides.any():
                continue
            clear = all(in_picture(p, view, cameras, shape.margin) for p in (low, face))
            clear &= not on_line.any() and not blocked(low, eye, cameras.boxes)
            out[k, view] = (away >= shape.near_m) + int(away >= shape.far_m) + (0 if clear else N_BANDS)
    return out


def weigh(states, found, seen, cameras, shape, model, miss_rates, pace, shown, weighed_m):
    """Updated log likelihood ratios of all tracks, and the log odds of person against ghost that follow."""
    places, tops = bodies(states, shape)
    middle, n_found = np.column_stack([places, 0.6 * tops]), found.sum(axis=1)
    share, kept = pace
    shown, pattern = shown.astype(float), np.zeros(len(places))
    bound = np.array([model.person_max, model.flicker_max])
    moved = np.maximum(np.linalg.norm(places - weighed_m, axis=1) - model.wander_m, 0.0)
    shown = np.where(shown < 0.0, shown * np.exp(-moved / model.hidden_within_m)[:, None, None], shown)
    for k, view in np.ndindex(found.shape):
        apart = np.hypot(*(places - places[k]).T)
        beside = ((n_found > max(n_found[k], 1)) & (apart < model.reach_m)).any()
        stray = model.stray_beside if beside else model.stray
        if found[k, view] or seen[k, view] >= 0:
            miss = miss_rates[view, seen[k, view] if seen[k, view] >= 0 else N_BANDS]
            line, others = middle[k] - eyes(cameras)[view], middle - eyes(cameras)[view]
            along = others @ line / (line @ line)
            near = np.linalg.norm(others - along[:, None] * line, axis=1) < shape.beside_m
            near &= (along > 0) & ~found[:, view] & (n_found >= 2) & (np.arange(len(places)) != k)
            rate = model.explained if near.any() else stray
            gain = np.log(np.array([1 - miss, 0.5]) / rate)
            loss = np.log(np.array([miss, 0.5]) / (1 - stray))
            step = gain if found[k, view] else loss
            known = np.isfinite(shown[k, view, 0])
            shown[k, view] = np.clip(shown[k, view] + share * step if known else step, -bound, bound)
        else:
            shown[k, view] *= kept
        if np.isfinite(shown[k, view, 0]):
            person, flicker = np.exp(shown[k, view])
            there = (1 - 2 * model.blocked) * person + model.blocked * (flicker + 1)
            pattern[k] += np.log(there / (model.shows * (person + flicker) / 2 + 1 - model.shows))
        if view == found.shape[1] - 1 and states.confirmed[states.rows[k]]:
            n_missed = ((seen[k] >= 0) & ~found[k]).sum()
            if n_missed < max(2, n_found[k]):
                pattern[k] = max(pattern[k], model.held_back_odds)
    return shown, pattern
