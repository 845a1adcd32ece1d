"""How much of a store its cameras see: the floor, hands before plates, gates; and a picture of it.

Lenses with their distortion, the edges of the pictures and the store's obstacles are taken into account, with the same
projection and the same boxes as in the simulation. These figures ignore that people hide one another, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.show.plan import Plan
from fusion.simulation.optics import Lens, Obstacles
from fusion.store.models import Plate, Store
from fusion.store.shapes import points_inside

# Height of a standing person's trunk, where most of the joints that matter are.
HEIGHT_M = 1.2
# A hand that takes something is this far before the plate's front edge and above its surface.
HAND_BEFORE_M, HAND_ABOVE_M = 0.05, 0.1
# The grid's cells are a hand wide; a floor that would need more than this many gets larger cells.
CELL_M, CELLS_MAX = 0.1, 40_000
# A person needs this much room between obstacles, or between them and the floor's edge.
BODY_M = 0.4
# A detector finds people who are at least this high in the picture: COCO calls objects below 32 x 32 pixels small,
# detectors fail most on those, and a standing person is about three times as high as wide.
STATURE_M, STATURE_MIN_PX = 1.7, 55.0
# A person needs two views to have a place in the world.
VIEWS_MIN = 2


class Sight:
    """All cameras of a store, and which points each of them sees.

    Attributes:
        lenses: one for each camera, in the store's order.
        range_m: (n_views,) distance up to which a standing person is large enough in each picture.
    """

    def __init__(self, store: Store) -> None:
        """Place the cameras and obstacles of a store."""
        self.store = store
        self.lenses = [Lens.of(camera) for camera in store.cameras]
        self.range_m = np.array([camera.matrix[1][1] * STATURE_M / STATURE_MIN_PX for camera in store.cameras])
        self._obstacles = Obstacles(store)

    def sees(self, points_m: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n_views, n_points): which cameras have an unobstructed view of which points (n_points, 3), world frame."""
        points_m = np.asarray(points_m, np.float64).reshape(-1, 3)
        seen = np.zeros((len(self.lenses), len(points_m)), bool)
        for view, lens in enumerate(self.lenses):
            points_px, depth_m = lens.project(points_m)
            width, height = lens.camera.size
            x, y = points_px[:, 0], points_px[:, 1]
            with np.errstate(invalid="ignore"):
                inside = (x >= -0.5) & (y >= -0.5) & (x < width - 0.5) & (y < height - 0.5)
            near = np.flatnonzero(inside & (depth_m < self.range_m[view]))
            seen[view, near] = ~self._obstacles.hide(lens.centre_m, points_m[near])
        return seen


def hands_m(plates: Sequence[Plate]) -> NDArray[np.float64]:
    """(n_plates, 3) place of a hand that takes something from the middle of each plate, world frame."""
    hands = []
    for plate in plates:
        away = plate.depth / 2 + HAND_BEFORE_M
        x, y = plate.x + math.sin(plate.yaw) * away, plate.y - math.cos(plate.yaw) * away
        hands.append((x, y, plate.z + HAND_ABOVE_M))
    return np.array(hands, np.float64).reshape(-1, 3)


class _Grid(NamedTuple):
    """Cells of a floor: (n_x, n_y) where a person can stand, and their middles x and y; lower left corner; edge."""

    walkable: NDArray[np.bool_]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    corner_m: NDArray[np.float64]
    cell_m: float


def _grid(store: Store) -> _Grid:
    from scipy.ndimage import binary_opening

    corners = np.array(store.floor)
    low, high = corners.min(axis=0), corners.max(axis=0)
    cell_m = max(CELL_M, math.sqrt(float(np.prod(high - low)) / CELLS_MAX))
    n_x, n_y = (max(1, math.ceil(size / cell_m - 1e-6)) for size in (high - low).tolist())
    xs, ys = low[0] + (np.arange(n_x) + 0.5) * cell_m, low[1] + (np.arange(n_y) + 0.5) * cell_m
    x, y = np.meshgrid(xs, ys, indexing="ij")
    walkable = points_inside(store.floor, x, y)
    for x0, y0, x1, y1, _ in store.obstacle.boxes:
        walkable &= (x < x0) | (x > x1) | (y < y0) | (y > y1)
    # A person does not fit into the gap behind a shelf.
    body = max(1, round(BODY_M / cell_m))
    return _Grid(np.asarray(binary_opening(walkable, np.ones((body, body)))), x, y, low, cell_m)


def standable(store: Store) -> tuple[NDArray[np.float64], float]:
    """(n, 2) middles of the floor's cells in which a person can stand, metres, and the cells' edge."""
    grid = _grid(store)
    return np.column_stack([grid.x[grid.walkable], grid.y[grid.walkable]]), grid.cell_m


class BlindPart(NamedTuple):
    """A connected part of the floor that too few cameras see: its area, and a place in it, in metres."""

    area_m2: float
    x: float
    y: float


@dataclass(frozen=True)
class Coverage:
    """How many cameras see each part of the floor where people can be.

    Attributes:
        store: the store with this floor.
        cell_m: edge of the grid's cells.
        corner_m: (2,) lower left corner of the grid.
        counts: (n_x, n_y) cameras that see the middle of a cell at HEIGHT_M; -1 where a person cannot stand.
        plates_views: (n_plates,) cameras that see a hand before each plate.
    """

    store: Store
    cell_m: float
    corner_m: NDArray[np.float64]
    counts: NDArray[np.int64]
    plates_views: NDArray[np.int64]

    @classmethod
    def of(cls, store: Store) -> Coverage:
        """Count the cameras of a store that see each part of its floor, and each plate."""
        walkable, x, y, corner_m, cell_m = _grid(store)
        counts = np.full(walkable.shape, -1, np.int64)
        sight = Sight(store)
        points = np.column_stack([x[walkable], y[walkable], np.full(int(walkable.sum()), HEIGHT_M)])
        counts[walkable] = sight.sees(points).sum(axis=0)
        return cls(store, cell_m, corner_m, counts, sight.sees(hands_m(store.plates)).sum(axis=0))

    def share(self, n_views: int) -> float:
        """Share of the floor that at least n_views cameras see; 0 where there is no floor to stand on."""
        floor = self.counts[self.counts >= 0]
        return float((floor >= n_views).mean()) if len(floor) else 0.0

    def blind(self, n_views: int = VIEWS_MIN) -> list[BlindPart]:
        """Connected parts of the floor that fewer than n_views cameras see, largest first."""
        from scipy.ndimage import distance_transform_edt, label

        blind = (self.counts >= 0) & (self.counts < n_views)
        parts, n_parts = label(blind, np.ones((3, 3)))
        # The place in it is the one farthest from the part's edge: the mean of a bent part may lie outside it.
        depth = np.asarray(distance_transform_edt(np.pad(blind, 1)))[1:-1, 1:-1]
        blind_parts = []
        for part in range(1, n_parts + 1):
            cells = parts == part
            i, j = np.unravel_index(int(np.argmax(np.where(cells, depth, -1.0))), cells.shape)
            x, y = self.corner_m + (np.array([i, j]) + 0.5) * self.cell_m
            blind_parts.append(BlindPart(float(cells.sum()) * self.cell_m**2, float(x), float(y)))
        return sorted(blind_parts, reverse=True)

    def write_svg(self, path: str | Path) -> None:
        """Draw the floor: how many cameras see each part of it, all names, and plates that too few see."""
        plan = Plan(self.store)
        unit, cell_cm = plan.unit_cm, 100.0 * self.cell_m
        most = len(_SHADES) - 1
        cells, marks = [], []
        for j in range(self.counts.shape[1]):
            row = np.minimum(self.counts[:, j], most)
            cuts = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), len(row)]
            for first, last in zip(cuts, cuts[1:]):
                if row[first] < 0:
                    continue
                x = 100.0 * self.corner_m[0] + first * cell_cm
                y = -100.0 * self.corner_m[1] - (j + 1) * cell_cm
                size = f'width="{(last - first) * cell_cm:.1f}" height="{cell_cm:.1f}"'
                cells.append(f'<rect class="v{row[first]}" x="{x:.1f}" y="{y:.1f}" {size}/>')
        for plate, views in zip(self.store.plates, self.plates_views.tolist()):
            if views < VIEWS_MIN:
                x, y = 100.0 * plate.x, -100.0 * plate.y
                cross = f"M{x - 6 * unit:.1f} {y - 6 * unit:.1f}l{12 * unit:.1f} {12 * unit:.1f}m0 {-12 * unit:.1f}"
                mark = f'<path class="unseen" d="{cross}l{-12 * unit:.1f} {12 * unit:.1f}"/>'
                marks.append(f"<g>{mark}<title>{views} cameras see a hand here</title></g>")
        css = _CSS + "".join(f".v{n} {{ {shade}; shape-rendering: crispEdges }}\n" for n, shade in enumerate(_SHADES))
        title = f"{self.store.name}: cameras that see each part of the floor at {HEIGHT_M:g} m"
        on_floor = _HATCH.format(fine=5 * unit, half=2.5 * unit) + "".join(cells)
        drawn = plan.names() + "".join(marks)
        page = plan.picture(title, drawn, css, on_floor, self._legend(plan), 64 * unit)
        Path(path).write_text(page, encoding="utf-8")

    def _legend(self, plan: Plan) -> str:
        unit = plan.unit_cm
        y = plan.top_cm + plan.height_cm
        x = plan.left_cm + 16 * unit
        most = len(_SHADES) - 1
        floor = self.counts[self.counts >= 0]
        parts = []
        for n in range(most + 1):
            share = float(((floor == n) if n < most else (floor >= n)).mean()) if len(floor) else 0.0
            label = f"{n}{'+' if n == most else ''}: {share:.0%}"
            box = f'width="{22 * unit:.1f}" height="{16 * unit:.1f}"'
            parts.append(
                f'<rect class="floor" x="{x:.1f}" y="{y + 8 * unit:.1f}" {box}/>'
                f'<rect class="v{n}" x="{x:.1f}" y="{y + 8 * unit:.1f}" {box}/>'
                f'<text class="legend" x="{x + 30 * unit:.1f}" y="{y + 16 * unit:.1f}">{label}</text>'
            )
            x += 110 * unit
        caption = (
            f"cameras that see a place at {HEIGHT_M:g} m: share of the floor; x: fewer than 2 see hands at the plate"
        )
        parts.append(
            f'<text class="legend" x="{plan.left_cm + 16 * unit:.1f}" y="{y + 44 * unit:.1f}">{caption}</text>'
        )
        parts.append(plan.scale_bar(plan.left_cm + plan.width_cm - 16 * unit, y + 46 * unit))
        return "".join(parts)


# One shade for each number of cameras, the last for more. Too few cameras are hatched as well as coloured, so that
# colour is not the only sign.
_SHADES = (
    "fill: url(#none)",
    "fill: url(#one)",
    "fill: var(--accent); fill-opacity: .14",
    "fill: var(--accent); fill-opacity: .26",
    "fill: var(--accent); fill-opacity: .38",
    "fill: var(--accent); fill-opacity: .5",
    "fill: var(--accent); fill-opacity: .62",
)
_HATCH = (
    '<defs><pattern id="none" width="{fine:.1f}" height="{fine:.1f}" patternUnits="userSpaceOnUse">'
    '<rect class="bad" width="{fine:.1f}" height="{fine:.1f}"/>'
    '<path class="badline" d="M0 0L{fine:.1f} {fine:.1f}M{fine:.1f} 0L0 {fine:.1f}"/></pattern>'
    '<pattern id="one" width="{fine:.1f}" height="{fine:.1f}" patternUnits="userSpaceOnUse">'
    '<rect class="poor" width="{fine:.1f}" height="{fine:.1f}"/>'
    '<path class="poorline" d="M0 {half:.1f}H{fine:.1f}"/></pattern></defs>'
)
_CSS = """
.bad { fill: var(--bad-bg); } .badline { stroke: var(--bad); stroke-width: calc(1 * var(--u)); }
.poor { fill: var(--warn-bg); } .poorline { stroke: var(--warn); stroke-width: calc(.8 * var(--u)); }
.unseen { fill: none; stroke: var(--bad); stroke-width: calc(2.2 * var(--u)); stroke-linecap: round; }
.legend { text-anchor: start; } .zone text { fill: var(--ink); }
.names.cameras text { font-weight: 650; paint-order: stroke; stroke: var(--card); stroke-width: calc(3 * var(--u)); }
.scale path { fill: none; stroke: var(--ink); stroke-width: calc(1.4 * var(--u)); }
"""
