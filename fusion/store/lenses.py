"""The lens: where in the picture a ray appears. The only place where the equations of lenses are written forwards.

Coordinates of a ray are normalised: x / z and y / z of a point in the camera's frame. Two models, both OpenCV's:

- Brown's, for ordinary lenses. With r^2 = x^2 + y^2

      g = (1 + k1 r^2 + k2 r^4 + k3 r^6) / (1 + k4 r^2 + k5 r^4 + k6 r^6)
      x' = x g + 2 p1 x y + p2 (r^2 + 2 x^2) + s1 r^2 + s2 r^4
      y' = y g + p1 (r^2 + 2 y^2) + 2 p2 x y + s3 r^2 + s4 r^4

  The coefficients are k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4; those at the end may be left out, four, five or eight stay.
- Fisheye (Kannala and Brandt 2006, "equidistant" in Kalibr and ROS). With theta = atan(r),

      (x', y') = (x, y) theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8) / r

A pixel is u = fx x' + cx, v = fy y' + cy. A polynomial bends a ray outwards only up to some angle; beyond it the
picture would fold back, and neither a ray nor a pixel there has a meaning: both become NaN. `native/triangulation.hpp`
has the way back, from pixels to rays, and reads what `lens_rows` lays out.

Source: OpenCV, modules calib3d and fisheye, "Detailed Description"; Kannala and Brandt, A Generic Camera Model and
Calibration Method for Conventional, Wide-Angle, and Fish-Eye Lenses (2006).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

N_COEFFICIENTS = 12
# How many coefficients a camera of a store may have: a fisheye, and another lens.
FISHEYE_COUNT, DISTORTION_COUNTS = 4, (5, 8, 12)
# fx, fy, cx, cy; the coefficients; the kind; the squares of the largest usable radii, of a ray and in the picture.
N_INTRINSICS = 4 + N_COEFFICIENTS + 3
KIND, _RAY_LIMIT_SQ, _PICTURE_LIMIT_SQ = 4 + N_COEFFICIENTS, 5 + N_COEFFICIENTS, 6 + N_COEFFICIENTS

# A ray 84 degrees off the axis. Farther out, normalised coordinates grow without bound and a pixel means nothing.
TANGENT_MAX = 10.0

# Directions in which a lens that is not symmetric about its axis is searched for its fold, and radii of one direction.
_DIRECTIONS, _RADII = 24, 400


class LensKind(IntEnum):
    """How a lens bends, from the cheapest to the dearest; the native kernels branch on it once a camera."""

    STRAIGHT = 0
    FIVE_COEFFICIENTS = 1
    FULL = 2
    FISHEYE = 3


def lens_rows(image_from_camera: FloatArray, distortions: FloatArray, fisheye: NDArray[np.bool_]) -> FloatArray:
    """Lenses as the kernels read them.

    Args:
        image_from_camera: (n, 3, 3) intrinsics K, pixels.
        distortions: (n, at most 12) coefficients in the module's order; those that are missing are zero.
        fisheye: (n,) which lenses are fisheyes, with k1 to k4 in front.

    Returns:
        (n, N_INTRINSICS): fx, fy, cx, cy; twelve coefficients; LensKind; the squares of the largest usable radius of a
        ray and in the picture, both normalised, infinite for a lens that never folds back.
    """
    k = image_from_camera
    rows = np.zeros((len(k), N_INTRINSICS))
    rows[:, :4] = np.stack([k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]], axis=1)
    rows[:, 4 : 4 + distortions.shape[1]] = distortions
    for row, is_fisheye in zip(rows, fisheye):
        coefficients = row[4 : 4 + N_COEFFICIENTS]
        kind = LensKind.FISHEYE if is_fisheye else _kind_of(coefficients)
        limit = _ray_limit(kind, coefficients)
        row[KIND], row[_RAY_LIMIT_SQ] = kind, limit * limit
        row[_PICTURE_LIMIT_SQ] = _picture_limit(kind, coefficients, limit) ** 2
    return rows


def ray_limits(rows: FloatArray) -> FloatArray:
    """(n,) the largest radius of a ray, normalised, that each lens maps one to one; infinite where it never folds."""
    limits: FloatArray = np.sqrt(rows[:, _RAY_LIMIT_SQ])
    return limits


def distort(rows: FloatArray, rays: FloatArray) -> FloatArray:
    """Pixels of the raw picture in which rays appear.

    Args:
        rows: (n, N_INTRINSICS), see `lens_rows`.
        rays: (n, n_points, 2) normalised coordinates.

    Returns:
        (n, n_points, 2) pixels; NaN where a lens shows no such ray.
    """
    out = np.empty(rays.shape)
    for row, ray, pixels in zip(rows, rays, out):
        x, y = ray[..., 0], ray[..., 1]
        with np.errstate(all="ignore"):
            bent_x, bent_y = _bend(LensKind(int(row[KIND])), row[4 : 4 + N_COEFFICIENTS], x, y)
            lost = ~(x * x + y * y <= row[_RAY_LIMIT_SQ])
        pixels[..., 0] = np.where(lost, np.nan, bent_x * row[0] + row[2])
        pixels[..., 1] = np.where(lost, np.nan, bent_y * row[1] + row[3])
    return out


def _bend(kind: LensKind, c: FloatArray, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Where rays meet the picture, normalised."""
    r2 = x * x + y * y
    if kind == LensKind.STRAIGHT:
        return x, y
    if kind == LensKind.FISHEYE:
        r = np.sqrt(r2)
        theta = np.arctan(r)
        t2 = theta * theta
        bent = theta * (1 + t2 * (c[0] + t2 * (c[1] + t2 * (c[2] + t2 * c[3]))))
        scale = np.where(r > 0, bent / np.where(r > 0, r, 1.0), 1.0)
        return x * scale, y * scale
    k1, k2, p1, p2, k3 = c[:5]
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    bent_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    bent_y = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    if kind == LensKind.FULL:
        k4, k5, k6, s1, s2, s3, s4 = c[5:]
        share = 1 / (1 + r2 * (k4 + r2 * (k5 + r2 * k6))) - 1
        bent_x = bent_x + x * radial * share + r2 * (s1 + r2 * s2)
        bent_y = bent_y + y * radial * share + r2 * (s3 + r2 * s4)
    return bent_x, bent_y


# ---- where a lens folds back -----------------------------------------------------------------------------------------


def _kind_of(c: FloatArray) -> LensKind:
    if c[5:].any():
        return LensKind.FULL
    return LensKind.FIVE_COEFFICIENTS if c.any() else LensKind.STRAIGHT


def _ray_limit(kind: LensKind, c: FloatArray) -> float:
    """Largest radius of a ray up to which a lens is one to one; infinite for a Brown lens that never folds."""
    if kind == LensKind.STRAIGHT:
        return np.inf
    if kind == LensKind.FISHEYE:
        # d theta' / d theta as a polynomial of theta^2.
        theta = np.sqrt(_first_positive_root([1.0, 3 * c[0], 5 * c[1], 7 * c[2], 9 * c[3]]))
        return float(min(np.tan(min(theta, np.pi / 2 - 1e-9)), TANGENT_MAX))
    # With u = r^2 and g = n / d, the slope of r g(u) is (n d + 2 u (n' d - n d')) / d^2.
    n, d = np.polynomial.Polynomial([1.0, c[0], c[1], c[4]]), np.polynomial.Polynomial([1.0, *c[5:8]])
    slope = n * d + np.polynomial.Polynomial([0.0, 2.0]) * (n.deriv() * d - n * d.deriv())
    limit = float(np.sqrt(min(_first_positive_root(slope.coef), _first_positive_root(d.coef))))
    if not c[[2, 3, 8, 9, 10, 11]].any():
        return limit
    return min(limit, _fold_by_direction(kind, c, min(limit, TANGENT_MAX)))


def _first_positive_root(coefficients: ArrayLike) -> float:
    """Smallest positive real root of a polynomial, its constant first and positive; infinity where it has none."""
    polynomial = np.asarray(coefficients, np.float64)
    # A term this small does not show within any radius of use, and would overflow below.
    polynomial = np.trim_zeros(np.where(np.abs(polynomial) < 1e-15, 0.0, polynomial), "b")
    roots = np.polynomial.polynomial.polyroots(polynomial) if len(polynomial) > 1 else np.empty(0)
    real = roots.real[(np.abs(roots.imag) < 1e-9 * (1 + np.abs(roots))) & (roots.real > 0)]
    return float(real.min()) if len(real) else np.inf


def _fold_by_direction(kind: LensKind, c: FloatArray, reach: float) -> float:
    """Smallest radius up to `reach` at which a lens without symmetry folds, over all directions; infinite where none.

    The Jacobian's determinant by central differences, on a grid of directions and radii.
    """
    angle = np.linspace(0.0, 2 * np.pi, _DIRECTIONS, endpoint=False)[:, None]
    radius = np.linspace(0.0, reach, _RADII + 1)[None, 1:]
    x, y, h = radius * np.cos(angle), radius * np.sin(angle), 1e-6
    with np.errstate(all="ignore"):
        (xr, yr), (xl, yl) = _bend(kind, c, x + h, y), _bend(kind, c, x - h, y)
        (xd, yd), (xu, yu) = _bend(kind, c, x, y + h), _bend(kind, c, x, y - h)
        determinant = (xr - xl) * (yd - yu) - (yr - yl) * (xd - xu)
    # The last radius stands beside the symmetric part's own fold, which is known exactly.
    folds = np.flatnonzero((~(determinant > 0)[:, :-1]).any(axis=0))
    return float(radius[0, max(folds[0] - 1, 0)]) if len(folds) else np.inf


def _picture_limit(kind: LensKind, c: FloatArray, limit: float) -> float:
    """A radius in the picture beyond which no ray up to `limit` appears."""
    if not np.isfinite(limit):
        return np.inf
    angle = np.linspace(0.0, 2 * np.pi, _DIRECTIONS, endpoint=False)
    with np.errstate(all="ignore"):
        x, y = _bend(kind, c, limit * np.cos(angle), limit * np.sin(angle))
    largest = float(np.hypot(x, y).max())
    # Directions in between reach a little farther where the lens is not symmetric.
    return largest * 1.02 if np.isfinite(largest) else np.inf
