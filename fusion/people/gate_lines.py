"""Where people are in relation to the gates' lines, and when they cross them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import gates as kernel
from fusion.store.models import Store

# A person stands on one side of a gate's line once they are this far beyond it: twice the usual error of a position.
LINE_MARGIN_M = 0.12
# People pass beside the drawn line too: gates are drawn between posts, shoulders are wider than a position.
LINE_OVERHANG_M = 0.4
# Sides are followed within this distance of the line; a person farther away has to come back first. A person first seen
# just inside, this near to an entry, came in through it: cameras often do not see the outside.
GATE_REACH_M = 1.5

Place = tuple[float, float]


class GatePosition(NamedTuple):
    """A place in relation to every gate."""

    distance_m: list[float]  # signed distance to each line, positive on the store's side
    beside: list[bool]  # whether the place lies beside the drawn segment
    in_reach: bool  # of any gate


@dataclass
class Passage:
    """A person within reach of one gate.

    Attributes:
        t_ns, distance_m: newest instant, and signed distance to the line then.
        side: 1 on the store's side, -1 outside, 0 before either was certain.
        crossed_ns: when they last crossed the line, interpolated.
    """

    t_ns: int
    distance_m: float
    side: int = 0
    crossed_ns: int | None = None

    def move(self, t_ns: int, distance_m: float) -> None:
        """Follow the person to a new instant."""
        if (self.distance_m < 0) != (distance_m < 0):
            share = self.distance_m / (self.distance_m - distance_m)
            self.crossed_ns = self.t_ns + round(share * (t_ns - self.t_ns))
        self.t_ns, self.distance_m = t_ns, distance_m

    def change_of_side(self) -> int:
        """The new side where the person has changed it with certainty since the last call, else 0."""
        if abs(self.distance_m) < LINE_MARGIN_M:
            return 0
        before, self.side = self.side, 1 if self.distance_m > 0 else -1
        return 0 if before in (0, self.side) else self.side


class GateLines:
    """The gates of a store as lines on the floor, without the doors of cabinets; immutable.

    Attributes:
        ids: of the gates, whose indices other modules use.
        inward, outward: whether people may come in or go out through each gate.
        is_open: whether each gate lets people in without a credential.
    """

    def __init__(self, store: Store) -> None:
        gates = [gate for gate in store.gate if gate.kind == "line"]
        lines = np.array([gate.line for gate in gates], float).reshape(-1, 2, 2)
        along = lines[:, 1] - lines[:, 0]
        length_m = np.linalg.norm(along, axis=1)
        along = along / length_m[:, None]
        self._middles_m = lines.mean(axis=1)
        # A place within reach of the line is no farther from its middle than the corner of that reach.
        self._reach_sq = (length_m / 2 + LINE_OVERHANG_M) ** 2 + GATE_REACH_M**2
        self._lines: list[list[float]] = np.column_stack([lines[:, 0], along, length_m]).tolist()
        self._centres: list[Place] = [(x, y) for x, y in (lines[:, 0] + 0.5 * length_m[:, None] * along).tolist()]
        self.ids = [gate.id for gate in gates]
        self.inward = [gate.direction in ("in", "both") for gate in gates]
        self.outward = [gate.direction in ("out", "both") for gate in gates]
        self.is_open = [gate.credentials == ("open",) for gate in gates]

    def __len__(self) -> int:
        return len(self.ids)

    def moved(self, before: GateLines) -> list[int]:
        """Gates whose lines have moved from where another store with the same gates has them."""
        return [gate for gate, (old, new) in enumerate(zip(before._lines, self._lines)) if old != new]

    def centre_m(self, gate: int) -> Place:
        """The middle of a gate's line."""
        return self._centres[gate]

    def near(self, places_m: NDArray[np.float64]) -> list[bool]:
        """Which places (n, 2) may be within reach of a gate: near enough to its middle. Usually few are."""
        return kernel.near(places_m, self._middles_m, self._reach_sq)

    def position(self, place: Place) -> GatePosition:
        """A place in relation to every gate. Plain numbers: a few people and gates are not worth a NumPy call each."""
        x, y = place
        distance_m, beside, in_reach = [], [], False
        for start_x, start_y, along_x, along_y, length in self._lines:
            right, up = x - start_x, y - start_y
            along = right * along_x + up * along_y
            d = up * along_x - right * along_y
            is_beside = -LINE_OVERHANG_M < along < length + LINE_OVERHANG_M
            in_reach = in_reach or (is_beside and -GATE_REACH_M < d < GATE_REACH_M)
            distance_m.append(d)
            beside.append(is_beside)
        return GatePosition(distance_m, beside, in_reach)

    def in_reach(self, position: GatePosition, gate: int) -> bool:
        """Whether a position is within reach of one gate."""
        return position.beside[gate] and abs(position.distance_m[gate]) < GATE_REACH_M

    def away_m(self, gate: int, place: Place) -> float:
        """Distance from a place to the nearest point of a gate's line."""
        start_x, start_y, along_x, along_y, length = self._lines[gate]
        right, up = place[0] - start_x, place[1] - start_y
        along = min(max(right * along_x + up * along_y, 0.0), length)
        return math.hypot(right - along * along_x, up - along * along_y)

    def is_past(self, gate: int, place: Place) -> bool:
        """Whether a place is on the store's side of a gate's line, produced to both sides."""
        return self.position(place).distance_m[gate] > LINE_MARGIN_M

    def exit_near(self, place: Place, within_m: float) -> int | None:
        """The nearest gate to go out through within a distance of its line, or None."""
        distance_m, beside, _ = self.position(place)
        exits = [gate for gate in range(len(self)) if self.outward[gate] and beside[gate]]
        near = [gate for gate in exits if abs(distance_m[gate]) < within_m]
        return min(near, key=lambda gate: abs(distance_m[gate])) if near else None

    def entries_behind(self, position: GatePosition) -> list[int]:
        """Entries that have a position just inside their line."""
        return [
            gate
            for gate in range(len(self))
            if self.inward[gate] and position.beside[gate] and -LINE_MARGIN_M < position.distance_m[gate] < GATE_REACH_M
        ]
