"""Direction and place from the floor's outline: people walk on the free floor and nearly all of it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from fusion.store.models import Store
from fusion.store.shapes import points_inside

FloatArray = NDArray[np.float64]

# The floor is compared on a grid of cells of this size, metres; a larger floor has larger cells, at most this many.
CELL_M, CELLS_MAX = 0.1, 40_000
# Beyond the floor the grid continues for this far, metres.
_MARGIN_M = 2.0
# Places of people, and of the floor, that are compared.
_SAMPLE = 200
# Cameras hang at most this far outside of the floor's edge, metres.
_WALL_M = 0.3
# Poses with directions that differ by less than this count as one answer.
_SAME_TURN = math.radians(20.0)


class FloorPose(NamedTuple):
    """A turn about z in radians, then a shift (2,) in metres."""

    turn: float
    shift_m: FloatArray

    def applied(self, places_m: FloatArray) -> FloatArray:
        """Places (n, 2) after turn and shift."""
        c, s = math.cos(self.turn), math.sin(self.turn)
        return np.asarray(places_m @ np.array([[c, s], [-s, c]]) + self.shift_m)


class _Fit(NamedTuple):
    """A pose and its cost, square metres."""

    cost_m2: float
    pose: FloorPose


class FloorGrid:
    """The floor as a grid of distances.

    Attributes:
        n_cells: how many cells it has.
        targets_m: (n, 2) places of the free floor, evenly spread.
    """

    def __init__(self, store: Store) -> None:
        """Raises ConfigError where obstacles leave no free place."""
        from scipy.ndimage import distance_transform_edt

        low, high = np.min(store.floor, axis=0) - _MARGIN_M, np.max(store.floor, axis=0) + _MARGIN_M
        cell_m = max(CELL_M, math.sqrt(float(np.prod(high - low)) / CELLS_MAX))
        xs, ys = (np.arange(low[axis], high[axis], cell_m) for axis in (0, 1))
        floor = points_inside(store.floor, *np.meshgrid(xs, ys, indexing="ij"))
        free = floor.copy()
        for x0, y0, x1, y1, _ in store.obstacle.boxes:
            free &= ~((xs[:, None] > x0) & (xs[:, None] < x1) & (ys > y0) & (ys < y1))
        if not free.any():
            raise ConfigError("store.toml: floor: want a place where no obstacle stands, got none")
        self.n_cells = free.size
        self.targets_m = np.argwhere(free)[:: max(1, int(free.sum()) // _SAMPLE)] * cell_m + low
        self._low_m, self._cell_m = low, cell_m
        self._off_free_m = cell_m * distance_transform_edt(~free)
        self._off_floor_m = cell_m * distance_transform_edt(~floor)

    def off_free_m(self, places_m: FloatArray) -> FloatArray:
        """(n,) distance of places (n, 2) from the free floor."""
        return self._look_up(self._off_free_m, places_m)

    def off_floor_m(self, places_m: FloatArray) -> FloatArray:
        """(n,) distance of places (n, 2) from the floor."""
        return self._look_up(self._off_floor_m, places_m)

    def _look_up(self, field_m: FloatArray, places_m: FloatArray) -> FloatArray:
        index = np.rint((places_m - self._low_m) / self._cell_m).astype(int)
        inside = np.clip(index, 0, np.array(field_m.shape) - 1)
        beyond_m = np.abs(index - inside).sum(axis=1) * self._cell_m
        return np.asarray(field_m[inside[:, 0], inside[:, 1]] + beyond_m)


def place_by_outline(store: Store, walked_m: FloatArray, centre_m: FloatArray, warnings: list[str]) -> FloorPose:
    """The pose for which people walked on the free floor and nearly all of it, and cameras hang above it.

    Nelder and Mead's simplex method from twelve directions.

    Args:
        store: with its floor and obstacles.
        walked_m: (n, 2) where people stood.
        centre_m: (n_views, 2 or 3) camera centres.
        warnings: gets how far the answer can be trusted, and whether another turn fits as well.

    Raises:
        ConfigError: obstacles leave no free place.
    """
    from scipy.optimize import minimize

    grid = FloorGrid(store)
    sample_m = walked_m[:: max(1, len(walked_m) // _SAMPLE)]

    def cost_m2(parameters: FloatArray) -> float:
        pose = FloorPose(float(parameters[0]), parameters[1:])
        people_m, cameras_m = pose.applied(sample_m), pose.applied(centre_m[:, :2])
        unvisited_m = np.sqrt(((grid.targets_m[:, None] - people_m[None]) ** 2).sum(axis=2)).min(axis=1)
        return float(
            (grid.off_free_m(people_m) ** 2).mean() + 0.2 * (unvisited_m**2).mean()
            + (np.maximum(grid.off_floor_m(cameras_m) - _WALL_M, 0.0) ** 2).mean()
        )  # fmt: skip

    fits: list[_Fit] = []
    for turn in np.arange(0.0, 2 * math.pi, math.radians(30.0)):
        c, s = math.cos(turn), math.sin(turn)
        start = grid.targets_m.mean(axis=0) - np.array([[c, -s], [s, c]]) @ sample_m.mean(axis=0)
        simplex = np.array([turn, *start]) + np.array([[0, 0, 0], [0.3, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
        options = {"initial_simplex": simplex, "maxfev": 150}
        answer = minimize(cost_m2, simplex[0], method="Nelder-Mead", options=options)
        fits.append(_Fit(float(answer.fun), FloorPose(float(answer.x[0]), answer.x[1:])))
    fits.sort(key=lambda fit: fit.cost_m2)
    best = fits[0]
    rivals = [fit for fit in fits if math.cos(fit.pose.turn - best.pose.turn) < math.cos(_SAME_TURN)]
    warnings.append("place: from the floor's outline, right to some decimetres; the places of two cameras are better")
    if rivals and rivals[0].cost_m2 < 1.3 * best.cost_m2 + 1e-3:
        turned = math.degrees((rivals[0].pose.turn - best.pose.turn) % (2 * math.pi))
        warnings.append(f"place: the outline fits as well turned by {turned:.0f} degrees; give places of cameras")
    return best.pose
