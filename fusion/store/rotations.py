"""Rotation vectors, as a camera's `rotation` in a store folder, and matrices, as R in `x_camera = R x_world + t`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def rotation_matrix(vector: ArrayLike) -> NDArray[np.float64]:
    """Matrix of a rotation vector, by Rodrigues' formula R = I + sin(a) K + (1 - cos(a)) K^2.

    Args:
        vector: (3,) axis times angle a in radians; K is the cross-product matrix of the unit axis.

    Returns:
        (3, 3) rotation; the same convention as OpenCV.

    Source: Rodrigues (1840); Hartley and Zisserman, Multiple View Geometry (2004), section A4.3.2.
    """
    axis = np.asarray(vector, np.float64)
    angle = float(np.linalg.norm(axis))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = axis / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    matrix: NDArray[np.float64] = np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross)
    return matrix


def rotation_matrices(vectors: ArrayLike) -> NDArray[np.float64]:
    """(n, 3, 3) matrices of (n, 3) rotation vectors."""
    vectors = np.asarray(vectors, np.float64).reshape(-1, 3)
    return np.array([rotation_matrix(vector) for vector in vectors]).reshape(-1, 3, 3)


def rotation_vector(matrix: ArrayLike) -> NDArray[np.float64]:
    """(3,) rotation vector of the rotation nearest to a (3, 3) matrix, exact up to half a turn."""
    u, _, vt = np.linalg.svd(np.asarray(matrix, np.float64))
    nearest = u @ vt  # Files carry six digits.
    sine_axis = 0.5 * np.array(
        [nearest[2, 1] - nearest[1, 2], nearest[0, 2] - nearest[2, 0], nearest[1, 0] - nearest[0, 1]]
    )
    sine, cosine = float(np.linalg.norm(sine_axis)), 0.5 * float(np.trace(nearest) - 1.0)
    angle = float(np.arctan2(sine, cosine))
    if cosine >= 0.0:
        return sine_axis * (angle / sine) if sine > 1e-12 else sine_axis
    # Beyond a quarter turn the antisymmetric part loses the axis; the symmetric part, cos(a) I + (1 - cos(a)) k k^T,
    # keeps it.
    outer = (0.5 * (nearest + nearest.T) - cosine * np.eye(3)) / (1.0 - cosine)
    column = outer[:, int(np.argmax(np.diag(outer)))]
    axis: NDArray[np.float64] = column / np.linalg.norm(column)
    return angle * (axis if axis @ sine_axis >= 0.0 else -axis)
