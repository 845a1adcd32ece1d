"""Loads behind one door, in the order in which they happened.

Behind a door all hands are those of one person, so that what they put back is what they took before. A plate that still
moves shows late what was taken from it; a load that moved later is kept back until then, or else it would be weighed
against a cart that seems to hold nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fusion.goods.loads import ShelfEvent
from fusion.store.models import Store

# A load is kept back for at most this long after it has settled: less than a receipt waits for its loads.
KEPT_MAX_NS = 10_000_000_000


class DoorOrder:
    """Keeps loads back until those that moved earlier behind the same door are known."""

    def __init__(self, store: Store) -> None:
        self._kept: list[ShelfEvent] = []
        self.adopt(store)

    def adopt(self, store: Store) -> None:
        """Start, or continue with a store of the same layout; see `Engine.adopt`."""
        index = {plate.plate: i for i, plate in enumerate(store.plates)}
        self._gate_of = {index[plate]: gate for gate, plates in store.behind_doors.items() for plate in plates}

    def __bool__(self) -> bool:
        """Whether any plate lies behind a door."""
        return bool(self._gate_of)

    @property
    def kept(self) -> list[tuple[int, int]]:
        """(plate, contact in nanoseconds) of what every load that is kept back moved."""
        return [(plate, event.contact_ns) for event in self._kept for plate in event.plates.tolist()]

    def ready(
        self, events: Sequence[ShelfEvent], undecided: Iterable[tuple[int, int]], now_ns: int
    ) -> list[ShelfEvent]:
        """Take loads; returns those that need not wait, of each door in the order of their contacts.

        Args:
            events: new ones, also of plates in the open, which are never kept back.
            undecided: (plate, since when in nanoseconds) of everything that may still become a load.
            now_ns: data time.
        """
        self._kept = sorted([*self._kept, *events], key=lambda event: (event.contact_ns, event.plates[0]))
        first_ns: dict[str, int] = {}
        for plate, since_ns in undecided:
            gate = self._gate_of.get(plate)
            if gate is not None:
                first_ns[gate] = min(since_ns, first_ns.get(gate, since_ns))
        # One that has waited for the longest time lets those before it pass too.
        overdue_ns: dict[str, int] = {}
        for event in self._kept:
            if (gate := self._gate_of.get(event.main_plate)) is not None and now_ns - event.settled_ns > KEPT_MAX_NS:
                overdue_ns[gate] = event.contact_ns
        ready: list[ShelfEvent] = []
        kept: list[ShelfEvent] = []
        for event in self._kept:
            gate = self._gate_of.get(event.main_plate)
            waits = gate is not None and first_ns.get(gate, event.contact_ns) < event.contact_ns
            (kept if waits and event.contact_ns > overdue_ns.get(gate or "", -1) else ready).append(event)
        self._kept = kept
        return ready
