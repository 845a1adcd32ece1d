"""Polygons: one point and many points give the same answer; area, distance and crossing agree with known shapes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.store.shapes import crosses_itself, edge_distance_m, inside_polygon, points_inside, signed_area_m2

L_SHAPE = ((0.0, 0.0), (4.0, 0.0), (4.0, 1.0), (1.0, 1.0), (1.0, 3.0), (0.0, 3.0))


@given(st.integers(3, 12), st.floats(0.5, 50.0), st.floats(-20, 20), st.floats(-20, 20))
def test_polygons_around_a_circle(n: int, radius: float, x: float, y: float) -> None:
    corners = [
        (x + radius * math.cos(2 * math.pi * i / n), y + radius * math.sin(2 * math.pi * i / n)) for i in range(n)
    ]
    assert signed_area_m2(corners) == pytest.approx(0.5 * n * radius**2 * math.sin(2 * math.pi / n))
    assert signed_area_m2(corners[::-1]) == pytest.approx(-signed_area_m2(corners))
    assert inside_polygon(corners, x, y)
    assert not inside_polygon(corners, x + 1.01 * radius, y)
    assert inside_polygon(corners, x + radius + 0.04, y, margin_m=0.05)


def test_points_of_a_grid_agree_with_points_one_by_one() -> None:
    x, y = np.meshgrid(np.linspace(-0.97, 5.03, 41), np.linspace(-0.97, 4.03, 37))
    one_by_one = [inside_polygon(L_SHAPE, *point) for point in zip(x.ravel().tolist(), y.ravel().tolist())]
    inside = points_inside(L_SHAPE, x, y)
    assert inside.shape == x.shape and inside.dtype == bool
    assert inside.ravel().tolist() == one_by_one
    assert 0.0 < inside.mean() < 6.0 / (6.0 * 5.0) + 0.02, "the notch of the L is outside"


def test_distance_to_an_edge_or_a_segment() -> None:
    assert edge_distance_m(L_SHAPE, 2.0, 2.0) == pytest.approx(1.0)
    assert edge_distance_m(L_SHAPE, 0.5, 0.25) == pytest.approx(0.25)
    assert edge_distance_m(((0.0, 0.0), (1.0, 0.0)), 4.0, 4.0) == pytest.approx(5.0)


def test_edges_that_cross() -> None:
    assert not crosses_itself(L_SHAPE)
    assert crosses_itself(((0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0)))
