"""Two views of the same points: epipolar geometry in normalised coordinates.

With x_2 = R x_1 + t for a point in both cameras' frames, and E = [t]x R, corresponding image points satisfy
x_2^T E x_1 = 0.

Source: Hartley and Zisserman, Multiple View Geometry (2004), chapters 9 and 11.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class Depths(NamedTuple):
    """Depths (n, K) before both cameras, in lengths of the translation, and the median angle between the rays."""

    first: FloatArray
    second: FloatArray
    angle: float


def homogeneous(points: FloatArray) -> FloatArray:
    """(..., 3): points (..., 2) with a third coordinate of 1."""
    return np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1)


def sampson_distance(essential: FloatArray, first: FloatArray, second: FloatArray) -> FloatArray:
    """Signed Sampson distance of correspondences from epipolar geometries.

    x_2^T E x_1 / sqrt((E x_1)_1^2 + (E x_1)_2^2 + (E^T x_2)_1^2 + (E^T x_2)_2^2), the geometric error to first order.

    Args:
        essential: (h, 3, 3).
        first: (n, K, 3) homogeneous points in the first picture.
        second: (n, K, 3) the same points in the second.

    Returns:
        (h, n, K).

    Source: Hartley and Zisserman (2004), equation 11.9.
    """
    # Coordinates first: a reduction over three numbers costs more than all the rest.
    x, y, _ = np.moveaxis(second, -1, 0)
    h, shape = len(essential), first.shape[:-1]
    a, b, c = (essential @ first.reshape(-1, 3).T).reshape(h, 3, *shape).swapaxes(0, 1)
    d, e = (essential.transpose(0, 2, 1)[:, :2] @ second.reshape(-1, 3).T).reshape(h, 2, *shape).swapaxes(0, 1)
    return np.asarray((a * x + b * y + c) / np.sqrt(a * a + b * b + d * d + e * e))


def eight_point(first: FloatArray, second: FloatArray, weight: FloatArray) -> FloatArray:
    """Essential matrices of weighted sets of correspondences, by the normalised eight-point algorithm.

    Args:
        first: (h, n, 3) homogeneous points in the first picture.
        second: (h, n, 3) the same points in the second; pairs with a NaN are left out.
        weight: (h, n), or broadcastable to it.

    Returns:
        (h, 3, 3), with two equal singular values.

    Source: Hartley, In Defense of the Eight-Point Algorithm (1997).
    """
    good = np.isfinite(first[..., 0] + second[..., 0])
    first, second = np.where(good[..., None], first, 0.0), np.where(good[..., None], second, 0.0)
    weight = np.where(good, weight, 0.0)
    into_first, into_second = _normalising(first, weight), _normalising(second, weight)
    a, b = first @ into_first.transpose(0, 2, 1), second @ into_second.transpose(0, 2, 1)
    rows = (b[..., :, None] * a[..., None, :]).reshape(*a.shape[:2], 9) * weight[..., None]
    _, vectors = np.linalg.eigh(rows.transpose(0, 2, 1) @ rows)
    fundamental = into_second.transpose(0, 2, 1) @ vectors[:, :, 0].reshape(-1, 3, 3) @ into_first
    u, _, vt = np.linalg.svd(fundamental)
    return np.asarray(u * np.array([1.0, 1.0, 0.0]) @ vt)


def _normalising(points: FloatArray, weight: FloatArray) -> FloatArray:
    """(h, 3, 3) transforms that bring weighted points (h, n, 3) to mean 0 and spread 1."""
    total = np.maximum(weight.sum(axis=1), 1e-12)[:, None]
    middle = (weight[..., None] * points[..., :2]).sum(axis=1) / total
    spread = np.sqrt((weight[..., None] * (points[..., :2] - middle[:, None]) ** 2).sum(axis=(1, 2)) / total[:, 0])
    transform = np.zeros((len(points), 3, 3))
    transform[:, 0, 0] = transform[:, 1, 1] = 1.0 / np.maximum(spread, 1e-9)
    transform[:, :2, 2] = -middle * transform[:, :1, 0]
    transform[:, 2, 2] = 1.0
    return transform


def depths(rotation: FloatArray, direction: FloatArray, first: FloatArray, second: FloatArray) -> Depths:
    """Where the rays of homogeneous points (n, K, 3) pass each other closest.

    For a pose x_2 = rotation @ x_1 + direction: least squares of z_2 second = z_1 rotation @ first + direction in
    both depths.
    """
    turned = first @ rotation.T
    aa, bb, ab = (turned**2).sum(-1), (second**2).sum(-1), (turned * second).sum(-1)
    at, bt = turned @ direction, second @ direction
    det = np.maximum(aa * bb - ab * ab, 1e-12)
    z_first, z_second = (ab * bt - bb * at) / det, (aa * bt - ab * at) / det
    angle = np.arccos(np.clip(ab / np.sqrt(aa * bb), -1.0, 1.0))
    return Depths(z_first, z_second, float(np.nanmedian(angle)))
