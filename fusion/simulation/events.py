"""What happens in the simulated shop, in time order: loads, hands at plates, scans, goods that move, visits."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Generic, TypeVar

# No arm is raised faster than this, so loads and handlings are registered at least this long before they take effect. A
# weight message that begins now must know what happens until its last sample.
REGISTERED_AHEAD_S = 0.4


@dataclass(frozen=True, slots=True)
class Load:
    """Mass that is lifted from plates or put on them at one instant: (plate, change in grams) pairs."""

    t_s: float
    plates: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Handling:
    """A hand at a plate shakes it and its shelf from start to end; `press_g` is the force of a push or a lean."""

    start_s: float
    end_s: float
    plate: int
    press_g: float


@dataclass(frozen=True, slots=True)
class Scan:
    """A credential that a gate reads."""

    t_s: float
    gate: str
    kind: str
    account: str


@dataclass(frozen=True, slots=True)
class Movement:
    """A row of truth/events.csv: quantity is negative for a take, account is None for a person without a scan."""

    t_s: float
    plate: int
    gtin: str
    quantity: int
    account: str | None


@dataclass(frozen=True, slots=True)
class TagRead:
    """The antenna at an exit reads the tag of one piece."""

    t_s: float
    gate: str
    gtin: str


@dataclass(frozen=True, slots=True)
class Visit:
    """A visit that is over: pieces by GTIN in the baskets of its people."""

    account: str | None
    enter_s: float
    exit_s: float
    items: dict[str, int]


_Event = TypeVar("_Event")


class Timeline(Generic[_Event]):
    """Events that may be added out of order and are drained in time order; at one time in order of adding."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Event]] = []
        self._n_added = 0

    def add(self, t_s: float, event: _Event) -> None:
        """Add an event that happens at a time."""
        self._n_added += 1
        heapq.heappush(self._heap, (t_s, self._n_added, event))

    def drain(self, before_s: float) -> list[_Event]:
        """Remove and return the events before a time, oldest first."""
        drained = []
        while self._heap and self._heap[0][0] < before_s:
            drained.append(heapq.heappop(self._heap)[2])
        return drained


@dataclass
class Log:
    """Everything that happens in a run, to be drained by its reader."""

    loads: Timeline[Load] = field(default_factory=Timeline)
    handlings: Timeline[Handling] = field(default_factory=Timeline)
    scans: Timeline[Scan] = field(default_factory=Timeline)
    movements: Timeline[Movement] = field(default_factory=Timeline)
    reads: Timeline[TagRead] = field(default_factory=Timeline)
    visits: list[Visit] = field(default_factory=list)
