"""Looks at a few people of some cameras, in NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def tally(
    keypoints: np.ndarray, size_px: np.ndarray, beyond_share: float, fraction_max: float
) -> tuple[tuple[int, int, int], np.ndarray]:
    """People with a joint, those of them in fractions and those beyond the picture; and the share used (2,)."""
    is_joint = (keypoints[:, :, 2] > 0) & np.isfinite(keypoints).all(axis=2)
    is_person = is_joint.any(axis=1)
    points_px = np.where(is_joint[:, :, None], keypoints[:, :, :2], np.float32(0.0))
    is_fraction = is_person & (np.abs(points_px).max(axis=(1, 2), initial=0.0) < fraction_max)
    with np.errstate(over="ignore"):
        middle = points_px.sum(axis=1) / np.maximum(is_joint.sum(axis=1), 1)[:, None] / size_px
    is_beyond = ((middle < -beyond_share) | (middle > 1.0 + beyond_share)).any(axis=1)
    used = points_px.max(axis=(0, 1), initial=0.0) / size_px
    return (int(is_person.sum()), int(is_fraction.sum()), int(is_beyond.sum())), used


def gather(frames: Sequence[np.ndarray], limits: Sequence[int], turn: int) -> tuple[np.ndarray, list[int]]:
    """At most some people of each frame, in turns; joints that are not finite are zero."""
    parts = [
        np.roll(frame, -turn, axis=0)[:limit] if len(frame) > limit else frame for frame, limit in zip(frames, limits)
    ]
    people = np.concatenate(parts).astype(np.float64)
    people[~np.isfinite(people).all(axis=2)] = 0.0
    return people, [len(part) for part in parts]


def spread(
    normalised: np.ndarray, people: np.ndarray, var: np.ndarray, score_min: float, n_padded: int
) -> tuple[np.ndarray, ...]:
    """x, y, var, seen (n, n_padded) float32; var (n,) of each person."""
    n, n_joints = people.shape[:2]
    x, y, seen = np.zeros((3, n, n_padded), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        x[:, :n_joints], y[:, :n_joints] = normalised[:, :, 0], normalised[:, :, 1]
        held = np.isfinite(x + y)
    seen[:, :n_joints] = people[:, :, 2] >= score_min
    seen[~held] = 0.0
    x[seen == 0.0] = y[seen == 0.0] = 0.0
    return x, y, np.repeat(var[:, None], n_padded, axis=1).astype(np.float32), seen
