"""Where people can walk: a grid over the floor, shortest ways through it, places to stand at a shelf, gates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from fusion.store.models import Gate, Plate, Store
from fusion.store.shapes import points_inside

CELL_M = 0.1
# Half the width of a person with elbows in, and what they like to keep from a shelf when they walk past it.
BODY_RADIUS_M = 0.2
COMFORT_M = 0.45
APRON_M = 2.2  # how far outside a gate people are seen to come from


@dataclass(frozen=True)
class Passage:
    """A gate as people use it: they scan at `outside`, cross at `middle`, stand at `inside`."""

    gate: Gate
    middle: np.ndarray
    inward: np.ndarray  # unit vector into the store
    half_width_m: float

    @classmethod
    def of(cls, gate: Gate) -> Passage:
        start, end = np.array(gate.line)
        along = (end - start) / np.linalg.norm(end - start)
        return cls(gate, (start + end) / 2, np.array([-along[1], along[0]]), float(np.linalg.norm(end - start)) / 2)

    def at(self, distance_m: float, lane: float = 0.0) -> np.ndarray:
        """The point so far inside (negative: outside) the gate; lane -1 to 1 runs over its width."""
        along = np.array([self.inward[1], -self.inward[0]])
        return self.middle + distance_m * self.inward + lane * self.half_width_m * along

    def crossing(self, old: np.ndarray, new: np.ndarray) -> tuple[float, int] | None:
        """Where on the way old -> new (0 to 1) the line is crossed, and +1 inwards or -1 outwards."""
        before, after = float((old - self.middle) @ self.inward), float((new - self.middle) @ self.inward)
        if (before > 0) == (after > 0):
            return None
        share = before / (before - after)
        along = np.array([self.inward[1], -self.inward[0]])
        if abs(float((old + share * (new - old) - self.middle) @ along)) > self.half_width_m:
            return None
        return share, 1 if after > 0 else -1


class FloorPlan:
    """The walkable floor of a store.

    Attributes:
        entries, exits: passages in and out; empty where the store has no gates.
        stands: for each plate the places (n, 2) from which a person can reach it, best first.
    """

    def __init__(self, store: Store) -> None:
        self.entries = [Passage.of(gate) for gate in store.gate if gate.direction in ("in", "both")]
        self.exits = [Passage.of(gate) for gate in store.gate if gate.direction in ("out", "both")]
        self.passages = [Passage.of(gate) for gate in store.gate]
        corners = np.array(store.floor)
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
        self.clearance_m = _distance(~solid)  # to the next shelf or barrier
        edge_m = _distance(floor | aprons)
        # Where a body fits at all, doors and aprons included.
        self.passable = (self.clearance_m > BODY_RADIUS_M) & (edge_m > 0.1)
        # Where somebody who shops walks: not through a gate, which would be leaving.
        self.shopping = self.passable & floor & ~doors & (edge_m > BODY_RADIUS_M)
        self._keep_main_part()
        self.stands = [self._stands(plate) for plate in store.plates]
        self._from_goal = lru_cache(maxsize=256)(self._ways_to)

    def _solid(self, store: Store) -> np.ndarray:
        solid = np.zeros(self.shape, bool)
        x, y = self.centres[..., 0], self.centres[..., 1]
        for x0, y0, x1, y1, _ in store.obstacle.boxes:
            solid |= (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
        # A store may leave its shelves out of the obstacles; nobody walks through a plate.
        for plate in store.plates:
            dx, dy = x - plate.x, y - plate.y
            cos, sin = math.cos(plate.yaw), math.sin(plate.yaw)
            across, deep = dx * cos + dy * sin, -dx * sin + dy * cos
            solid |= (np.abs(across) <= plate.width / 2 + 0.02) & (np.abs(deep) <= plate.depth / 2 + 0.02)
        return solid

    def _keep_main_part(self) -> None:
        """Drop pockets that cannot be walked to from the entry, or from the largest open space."""
        from scipy.ndimage import label

        parts, n_parts = label(self.shopping)
        if n_parts == 0:
            raise ValueError("floor: want room for a person to stand, found none between the obstacles")
        sizes = np.bincount(parts.ravel())[1:]
        self.shopping = parts == 1 + int(np.argmax(sizes))

    def _stands(self, plate: Plate) -> np.ndarray:
        x, y, yaw, depth = plate.x, plate.y, plate.yaw, plate.depth
        across, back = np.array([math.cos(yaw), math.sin(yaw)]), np.array([-math.sin(yaw), math.cos(yaw)])
        places = [
            np.array([x, y]) + side * across - (depth / 2 + away) * back
            for away in (0.34, 0.4, 0.48, 0.56, 0.65)
            for side in (0.0, 0.12, -0.12, 0.25, -0.25, 0.38, -0.38)
        ]
        return np.array([p for p in places if self.is_open(p)]).reshape(-1, 2)

    def cell(self, point: np.ndarray) -> tuple[int, int]:
        i = int((point[0] - self.origin[0]) / CELL_M)
        j = int((point[1] - self.origin[1]) / CELL_M)
        return min(max(i, 0), self.shape[0] - 1), min(max(j, 0), self.shape[1] - 1)

    def is_open(self, point: np.ndarray) -> bool:
        return bool(self.shopping[self.cell(point)])

    @cached_property
    def open_points(self) -> np.ndarray:
        """(n, 2) middles of all cells where people shop."""
        return self.centres[self.shopping]

    @cached_property
    def _roomy(self) -> np.ndarray:
        """Indices of open_points with room around them."""
        roomy = np.flatnonzero(self.clearance_m[self.shopping] > COMFORT_M)
        return roomy if len(roomy) else np.arange(len(self.open_points))

    def random_point(self, random: np.random.Generator) -> np.ndarray:
        """Somewhere with room around it."""
        return self.open_points[self._roomy[random.integers(len(self._roomy))]]

    def nearest_open(self, point: np.ndarray) -> np.ndarray:
        points = self.open_points
        return points[int(np.argmin(((points - point) ** 2).sum(axis=1)))]

    @cached_property
    def _graph(self) -> tuple[object, np.ndarray]:
        """Sparse graph over the shopping cells; edges are longer near shelves, so that ways keep off them."""
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
        return csr_matrix(entries, shape=(n, n)), node

    def _ways_to(self, goal: int) -> tuple[np.ndarray, np.ndarray]:
        from scipy.sparse.csgraph import dijkstra

        lengths, previous = dijkstra(self._graph[0], directed=False, indices=goal, return_predecessors=True)
        return lengths, previous

    def path(self, start: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """(n, 2) corners of a way from start to goal, without start, with goal."""
        node = self._graph[1]
        at = int(node[self.cell(self.nearest_open(start))])
        previous = self._from_goal(int(node[self.cell(self.nearest_open(goal))]))[1]
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

    def _in_sight(self, a: np.ndarray, b: np.ndarray) -> bool:
        n = max(2, math.ceil(math.hypot(*(b - a)) / (0.5 * CELL_M)))
        line = a + np.linspace(0.0, 1.0, n)[1:-1, None] * (b - a)
        cells = ((line - self.origin) / CELL_M).astype(int)
        i, j = cells[:, 0], cells[:, 1]
        # The way may begin or end close to a shelf, where somebody stood to reach; in between it keeps some distance.
        return bool(self.shopping[i, j].all() and (self.clearance_m[i, j][3:-3] > BODY_RADIUS_M + 0.05).all())

    def walk_m(self, start: np.ndarray, goal: np.ndarray) -> float:
        """Length of the way, a little more where it leads along shelves."""
        node = self._graph[1]
        lengths = self._from_goal(int(node[self.cell(self.nearest_open(goal))]))[0]
        return float(lengths[int(node[self.cell(self.nearest_open(start))])])


def _distance(free: np.ndarray) -> np.ndarray:
    """Metres from each free cell to the nearest that is not free; 0 there."""
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(np.pad(free, 1)))[1:-1, 1:-1] * CELL_M
