"""Plateaus in disturbances: the best box against a slow search, and the constants that documents promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from fusion.goods.excursions import EVERY, LIGHTEST_G, _best_box


def slow_box(off_g: NDArray[np.float64], n_min: int) -> float:
    """Greatest gain of a box over the level alone, by the sums of squared errors themselves."""
    best = 0.0
    for first in range(0, len(off_g), EVERY):
        for last in range(first + EVERY, len(off_g) + 1, EVERY):
            inside = off_g[first:last]
            if len(inside) >= n_min:
                best = max(best, float((inside**2).sum() - ((inside - inside.mean()) ** 2).sum()))
    return best


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    height_g=st.one_of(st.floats(50, 900), st.floats(-900, -50)),
    first=st.integers(2, 20),
    length=st.integers(14, 30),
)
def test_the_best_box_is_that_of_least_squares(seed: int, height_g: float, first: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    off_g = rng.normal(0.0, 3.0, first + length + 20)
    off_g[first : first + length] += height_g
    found = _best_box(off_g, 12)
    assert found is not None
    start, stop, high_g = found
    assert abs(start - first) <= 2 and abs(stop - (first + length)) <= 2
    assert high_g == pytest.approx(off_g[start:stop].mean()) and abs(high_g - height_g) < 0.2 * abs(height_g)
    assert_allclose(high_g**2 * (stop - start), slow_box(off_g, 12), rtol=1e-9)


@pytest.mark.parametrize("height_g", [0.0, 0.4 * LIGHTEST_G])
def test_a_quiet_plate_has_no_box(height_g: float) -> None:
    off_g = np.zeros(60)
    off_g[20:40] = height_g
    assert _best_box(off_g, 12) is None


def test_what_is_still_there_at_the_end_is_no_box() -> None:
    off_g = np.zeros(60)
    off_g[30:] = 300.0
    assert _best_box(off_g, 12) is None
