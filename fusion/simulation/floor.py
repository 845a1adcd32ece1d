"""Where people can walk: a grid over the floor, shortest paths through it, places to stand at a shelf, gates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.store.models import Gate, Plate, Store
from fusion.store.shapes import points_inside

CELL_M = 0.1
# Half the width of a person with elbows in, and the distance that people like to keep from a shelf in passing.
BODY_RADIUS_M = 0.2
COMFORT_M = 0.45
APRON_M = 2.2  # people come into sight this far outside a gate


class Crossing(NamedTuple):
    """Where on a way (0 to 1) a gate's line is crossed, and whether into the store."""

    share: float
    inward: bool


@dataclass(frozen=True)
class Passage:
    """A gate as people walk through it.

    Attributes:
        middle: (2,) of its line. inward: (2,) unit vector into the store.
    """

    gate: Gate
    middle: NDArray[np.float64]
    inward: NDArray[np.float64]
    half_width_m: float

    @classmethod
    def of(cls, gate: Gate) -> Passage:
        """The passage through a gate's line."""
        start, end = np.array(gate.line)
        along = (end - start) / np.linalg.norm(end - start)
        return cls(gate, (start + end) / 2, np.array([-along[1], along[0]]), float(np.linalg.norm(end - start)) / 2)

    def at(self, distance_m: float, lane: float = 0.0) -> NDArray[np.float64]:
        """The point at a distance inside (negative: outside) the gate; lane -1 to 1 runs over its width."""
        along = np.array([self.inward[1], -self.inward[0]])
        point: NDArray[np.float64] = self.middle + distance_m * self.inward + lane * self.half_width_m * along
        return point

    def crossing(self, old: NDArray[np.float64], new: NDArray[np.float64]) -> Crossing | None:
        """Whether and where the way from old to new crosses the gate's line."""
        before, after = float((old - self.middle) @ self.inward), float((new - self.middle) @ self.inward)
        if (before > 0) == (after > 0):
            return None
        share = before / (before - after)
        along = np.array([self.inward[1], -self.inward[0]])
        if abs(float((old + share * (new - old) - self.middle) @ along)) > self.half_width_m:
            return None
        return Crossing(share, after > 0)


class FloorPlan:
    """The walkable floor of a store.

    Attributes:
        entries, exits, passages: ways in, ways out, and all of them; empty where the store has no gates.
        centres: (nx, ny, 2) middles of the grid's cells. clearance_m: (nx, ny) distance to the next shelf or barrier.
        passable: (nx, ny) where a body fits at all, doors and the aprons before them included.
        shopping: (nx, ny) where shoppers walk: not through a gate, which would be leaving.
        stands: for each plate the places (n, 2) from which a person can reach it, best first.
    """

    def __init__(self, store: Store) -> None:
        self.entries = [Passage.of(gate) for gate in store.gate if gate.direction in ("in", "both")]
        self.exits = [Passage.of(gate) for gate in store.gate if gate.direction in ("out", "both")]
        self.passages = [Passage.of(gate) for gate in store.gate]
        corners = np.array(store.floor)
        self._corners = corners
        self.origin = corners.min(axis=0) - APRON_M - 0.5
        self.shape = tuple(np.ceil((corners.max(axis=0) + APRON_M + 0.5 - self.origin) / CELL_M).astype(int))
        xs = self.origin[0] + (np.arange(self.shape[0]) + 0.5) * CELL_M
        ys = self.origin[1] + (np.arange(self.shape[1]) + 0.5) * CELL_M
        self.centres = np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1)
        floor = points_inside(store.floor, self.centres[..., 0], self.centres[..., 1])
        aprons = np.zeros(self.shape, bool)
        doors = np.zeros(self.shape, bool)
        for passage in self.passages:
            offset = self.centres - passage.middle
            across = offset @ np.array([passage.inward[1], -passage.inward[0]])
            depth = offset @ passage.inward
            aprons |= (np.abs(across) <= passage.half_width_m) & (depth <= 0.1) & (depth >= -APRON_M - 0.3)
            doors |= (np.abs(across) <= passage.half_width_m) & (np.abs(depth) <= 0.3)
        solid = self._solid(store)
        self.clearance_m = _distance(~solid)
        edge_m = _distance(floor | aprons)
        self.passable = (self.clearance_m > BODY_RADIUS_M) & (edge_m > 0.1)
        self.shopping = _main_part(self.passable & floor & ~doors & (edge_m > BODY_RADIUS_M))
        self.stands = [self._stands(plate) for plate in store.plates]
        self._from_goal = lru_cache(maxsize=256)(self._paths_to)

    def _solid(self, store: Store) -> NDArray[np.bool_]:
        solid = np.zeros(self.shape, bool)
        x, y = self.centres[..., 0], self.centres[..., 1]
        for x0, y0, x1, y1, _ in store.obstacle.boxes:
            solid |= (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
        # A store may leave its shelves out of the obstacles, but people cannot walk through a plate.
        for plate in store.plates:
            dx, dy = x - plate.x, y - plate.y
            cos, sin = math.cos(plate.yaw), math.sin(plate.yaw)
            across, deep = dx * cos + dy * sin, -dx * sin + dy * cos
            solid |= (np.abs(across) <= plate.width / 2 + 0.02) & (np.abs(deep) <= plate.depth / 2 + 0.02)
        return solid

    def _stands(self, plate: Plate) -> NDArray[np.float64]:
        x, y, yaw, depth = plate.x, plate.y, plate.yaw, plate.depth
        across, back = np.array([math.cos(yaw), math.sin(yaw)]), np.array([-math.sin(yaw), math.cos(yaw)])
        places = [
            np.array([x, y]) + side * across - (depth / 2 + away) * back
            for away in (0.34, 0.4, 0.48, 0.56, 0.65)
            for side in (0.0, 0.12, -0.12, 0.25, -0.25, 0.38, -0.38)
        ]
        return np.array([p for p in places if self.is_open(p)]).reshape(-1, 2)

    def cell(self, point: NDArray[np.float64]) -> tuple[int, int]:
        """The grid's cell that a point (2,) lies in, or the nearest one."""
        i = int((point[0] - self.origin[0]) / CELL_M)
        j = int((point[1] - self.origin[1]) / CELL_M)
        return min(max(i, 0), self.shape[0] - 1), min(max(j, 0), self.shape[1] - 1)

    def is_open(self, point: NDArray[np.float64]) -> bool:
        """Whether shoppers may stand at a point (2,)."""
        return bool(self.shopping[self.cell(point)])

    @cached_property
    def open_points(self) -> NDArray[np.float64]:
        """(n, 2) middles of all cells where shoppers may stand."""
        points: NDArray[np.float64] = self.centres[self.shopping]
        return points

    @cached_property
    def _roomy(self) -> NDArray[np.int64]:
        """Indices of open_points with room around them."""
        roomy = np.flatnonzero(self.clearance_m[self.shopping] > COMFORT_M)
        return roomy if len(roomy) else np.arange(len(self.open_points))

    def random_point(self, random: np.random.Generator) -> NDArray[np.float64]:
        """A point (2,) with room around it."""
        point: NDArray[np.float64] = self.open_points[self._roomy[random.integers(len(self._roomy))]]
        return point

    def edge_point(self, random: np.random.Generator) -> NDArray[np.float64]:
        """A point (2,) at the floor's edge, where people appear and vanish in a store without gates."""
        points, corners = self.open_points, self._corners
        rim = np.minimum(points - corners.min(axis=0), corners.max(axis=0) - points).min(axis=1)
        near = np.flatnonzero(rim <= rim.min() + 0.4)
        point: NDArray[np.float64] = points[near[int(random.integers(len(near)))]].copy()
        return point

    def nearest_open(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        """The nearest point (2,) where shoppers may stand."""
        points = self.open_points
        nearest: NDArray[np.float64] = points[int(np.argmin(((points - point) ** 2).sum(axis=1)))]
        return nearest

    @cached_property
    def _graph(self) -> _Graph:
        """Sparse graph over the shopping cells; edges are longer near shelves, so that paths keep off them."""
        from scipy.sparse import csr_matrix

        node = np.full(self.shape, -1)
        node[self.shopping] = np.arange(int(self.shopping.sum()))
        weight = 1.0 + 1.5 * np.clip(1.0 - self.clearance_m / COMFORT_M, 0.0, 1.0)
        rows, columns, lengths = [], [], []
        for di, dj in ((1, 0), (0, 1), (1, 1), (1, -1)):
            i0, i1 = slice(0, self.shape[0] - di), slice(di, self.shape[0])
            j0 = slice(max(0, -dj), self.shape[1] - max(0, dj))
            j1 = slice(max(0, dj), self.shape[1] + min(0, dj))
            a, b = node[i0, j0].ravel(), node[i1, j1].ravel()
            cost = (0.5 * CELL_M * math.hypot(di, dj) * (weight[i0, j0] + weight[i1, j1])).ravel()
            both = (a >= 0) & (b >= 0)
            rows.append(a[both])
            columns.append(b[both])
            lengths.append(cost[both])
        n = int(self.shopping.sum())
        entries = (np.concatenate(lengths), (np.concatenate(rows), np.concatenate(columns)))
        return _Graph(csr_matrix(entries, shape=(n, n)), node)

    def _paths_to(self, goal: int) -> _Paths:
        from scipy.sparse.csgraph import dijkstra

        edges = self._graph.edges
        return _Paths(*dijkstra(edges, directed=False, indices=goal, return_predecessors=True))

    def path(self, start: NDArray[np.float64], goal: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 2) corners of a path from start to goal, without start, with goal."""
        node = self._graph.node
        at = int(node[self.cell(self.nearest_open(start))])
        previous = self._from_goal(int(node[self.cell(self.nearest_open(goal))])).previous
        cells = [at]
        while previous[at] >= 0:
            at = int(previous[at])
            cells.append(at)
        points = np.concatenate([self.open_points[cells][1:-1], np.asarray(goal)[None]])
        # Pull the string tight: from each corner go straight to the farthest point in sight.
        corners, here, first = [], np.asarray(start), 0
        while first < len(points):
            last = len(points) - 1
            while last > first and not self._in_sight(here, points[last]):
                last = (first + last) // 2
            corners.append(points[last])
            here, first = points[last], last + 1
        return np.array(corners)

    def _in_sight(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
        n = max(2, math.ceil(math.hypot(*(b - a)) / (0.5 * CELL_M)))
        line = a + np.linspace(0.0, 1.0, n)[1:-1, None] * (b - a)
        cells = ((line - self.origin) / CELL_M).astype(int)
        i, j = cells[:, 0], cells[:, 1]
        # A path may begin or end close to a shelf, where people stand to reach; in between it keeps some distance.
        return bool(self.shopping[i, j].all() and (self.clearance_m[i, j][3:-3] > BODY_RADIUS_M + 0.05).all())

    def walk_m(self, start: NDArray[np.float64], goal: NDArray[np.float64]) -> float:
        """Length of the path, a little more where it leads along shelves."""
        node = self._graph.node
        lengths = self._from_goal(int(node[self.cell(self.nearest_open(goal))])).lengths_m
        return float(lengths[int(node[self.cell(self.nearest_open(start))])])


class _Graph(NamedTuple):
    """Edges between neighbouring cells, and the node of each cell of the grid (-1: none)."""

    edges: Any
    node: NDArray[np.int64]


class _Paths(NamedTuple):
    """Shortest paths from every node to one: their lengths, and the next node on each."""

    lengths_m: NDArray[np.float64]
    previous: NDArray[np.int32]


def _main_part(free: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected part: pockets that cannot be walked to are dropped."""
    from scipy.ndimage import label

    parts, n_parts = label(free)
    if n_parts == 0:
        raise ValueError("floor: want room for a person to stand, found none between the obstacles")
    sizes = np.bincount(parts.ravel())[1:]
    return np.asarray(parts == 1 + int(np.argmax(sizes)))


def _distance(free: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Metres from each free cell to the nearest that is not free; 0 there."""
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(np.pad(free, 1)))[1:-1, 1:-1] * CELL_M
