"""Polygons on the floor: area, inside, distance to the edge, edges that cross.

A polygon is a sequence of (x, y) corners in metres, without repeating the first corner at the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Corners = Sequence[tuple[float, float]]
_Coordinate = TypeVar("_Coordinate", float, "NDArray[np.float64]")


def signed_area_m2(polygon: Corners) -> float:
    """Area of a simple polygon, positive where its corners run counter-clockwise (shoelace formula)."""
    corners = [*polygon, polygon[0]]
    return 0.5 * sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(corners, corners[1:]))


def crosses_itself(polygon: Corners) -> bool:
    """Whether two edges of a polygon that share no corner cross each other."""

    def turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    n = len(polygon)
    edges = [(polygon[i], polygon[(i + 1) % n]) for i in range(n)]
    for i in range(n):
        for j in range(i + 2, n - (i == 0)):
            (a, b), (c, d) = edges[i], edges[j]
            if turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0:
                return True
    return False


def inside_polygon(polygon: Corners, x: float, y: float, margin_m: float = 0.0) -> bool:
    """Whether a point lies in a polygon, or within margin_m of its edge."""
    return bool(_crosses_odd(polygon, x, y)) or edge_distance_m(polygon, x, y) <= margin_m


def points_inside(polygon: Corners, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of many points, of any shape, lie in a polygon; a point exactly on an edge may count either way."""
    return _crosses_odd(polygon, x, y)  # type: ignore[return-value] # an array of floats gives one of booleans


def _crosses_odd(polygon: Corners, x: _Coordinate, y: _Coordinate) -> bool | NDArray[np.bool_]:
    """Even-odd rule: a ray to the right from a point inside crosses the edges an odd number of times.

    Source: Shimrat, Algorithm 112, CACM 5 (1962), with Hacker's correction. Works alike on numbers and on arrays.
    """
    odd: bool | NDArray[np.bool_] = False
    x0, y0 = polygon[-1]
    for x1, y1 in polygon:
        if y0 != y1:
            odd ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
        x0, y0 = x1, y1
    return odd


def edge_distance_m(polygon: Corners, x: float, y: float) -> float:
    """Distance of a point to the nearest edge of a polygon; with two corners, to the line segment between them."""
    nearest = math.inf
    for (x0, y0), (x1, y1) in zip(polygon, [*polygon[1:], polygon[0]]):
        dx, dy = x1 - x0, y1 - y0
        along = ((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-18)
        along = min(max(along, 0.0), 1.0)
        nearest = min(nearest, math.hypot(x - x0 - along * dx, y - y0 - along * dy))
    return nearest
