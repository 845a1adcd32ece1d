"""What moved: weights of all plates to shelf events, each a load with its plates, its time window and its grams.

A kernel follows every plate through quiet, disturbed and settled, and reports changes of single plates. Changes of
neighbouring plates are joined where one load explains them, and dropped where vibration, cross-talk or a hand does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fusion.errors import OrderError
from fusion.goods.door_order import DoorOrder
from fusion.goods.excursions import Excursions
from fusion.goods.fitness import PlateFitness
from fusion.goods.ledger import RowLedger, UndoneLoad
from fusion.goods.loads import JOIN_MAX_S, LOAD_REACH, LoadFinder, ShelfEvent
from fusion.goods.planogram import Planogram
from fusion.goods.plates import PlateChange, Plates, PlateState, plate_warnings
from fusion.goods.restarts import Restarts
from fusion.goods.timing import Lag
from fusion.goods.unobserved import BlindPlates
from fusion.observations import ShelfReading
from fusion.results import Warning as StoreWarning
from fusion.results import WarningKind
from fusion.store.models import Store

# How long the changes of some plates wait for neighbours that still shake.
NEIGHBOUR_WAIT_S = 1.2
# How long they wait for neighbours that have been silent for at most SILENT_MAX_S: a part of the load may lie there.
SILENT_WAIT_S, SILENT_MAX_S = 8.0, 10.0
EVENTS_PENDING_MAX = 256
# The greater part of a piece that rests on two plates is at least half of it. Where that does not show, a hand may have
# moved a piece, and nothing shows.
HIDDEN_SHARE = 0.5


class ShelfMonitor:
    """Follows every plate of a store and yields shelf events.

    Attributes:
        planogram: what lies where; read here, written by attribution.
    """

    def __init__(self, store: Store, planogram: Planogram) -> None:
        self.planogram = planogram
        self._names = [plate.plate for plate in store.plates]
        self._plates = Plates(store)
        self._fitness = PlateFitness(store)
        self._finder = LoadFinder(planogram)
        self._ledger = RowLedger(self._plates, self._finder)
        self._excursions = Excursions(self._plates, self._finder)
        self._restarts = Restarts(self._plates, self._finder)
        self._order = DoorOrder(store)
        self._pending: list[PlateChange] = []
        self._noisy: frozenset[int] = frozenset()
        self._ignored: Counter[str] = Counter()
        self._now_ns = 0

    def adopt(self, store: Store) -> None:
        """Continue with a store of the same layout; see `Engine.adopt`. The planogram is adopted by its owner."""
        self._plates.adopt(store)
        self._fitness.adopt(store)
        self._order.adopt(store)

    def step(self, readings: Sequence[ShelfReading], now_ns: int) -> list[ShelfEvent]:
        """Take messages; returns the events that are certain not to grow any more.

        Args:
            readings: all messages up to now_ns that were not given yet, in time order.
            now_ns: data time.

        Raises:
            OrderError: now_ns runs backwards.
        """
        if now_ns < self._now_ns:
            raise OrderError(f"now_ns: want at least {self._now_ns}, got {now_ns}")
        self._now_ns = now_ns
        packed = self._plates.pack(readings) if readings else None
        if packed is not None:
            changes = self._plates.feed(packed)
            room = EVENTS_PENDING_MAX - len(self._pending)
            if len(changes) > room:
                self._ignored["shelf changes: table full"] += len(changes) - room
            self._pending += changes[:room]
            for steps in self._excursions.found(changes):
                self._ledger.add(steps)
        if self._plates.check(now_ns):
            hidden_g = self._plates.detectable_g > HIDDEN_SHARE * self.planogram.lightest_near_g
            self._noisy = frozenset(np.flatnonzero(hidden_g).tolist()) if hidden_g.any() else frozenset()
            # What seems wrong for long is reported without further loads.
            self.planogram.factors.due |= bool(self.planogram.factors.suspect)
            for plate, since_ns in self._plates.lost():
                self._restarts.note(plate, since_ns, now_ns)
        if self._fitness.feed(packed, now_ns):
            self.planogram.factors.set_noise(self._fitness.noise_g)
        events = self._ready(now_ns) if self._pending or len(self._ledger) else []
        self._finder.forget()
        if self._order and (events or self._order.kept):
            events = self._order.ready(events, self._moving(), now_ns)
        return events

    def finish(self) -> list[ShelfEvent]:
        """The events that still waited for something."""
        events = self._ready(self._now_ns + int(60e9))
        self._finder.forget()
        return self._order.ready(events, (), self._now_ns)

    def undone(self) -> list[UndoneLoad]:
        """Loads since the last call that left nothing, so that they were a hand, or two people's."""
        return self._ledger.undone()

    def warnings(self) -> list[StoreWarning]:
        """Faults of plates found since the last call, and recoveries."""
        found = self._plates.warnings() + self._fitness.warnings()
        found += [warning for lag in self.planogram.timing.found() for warning in self._lag_warnings(lag)]
        if not self.planogram.factors.due:
            return found
        factors = [
            StoreWarning(
                self._now_ns, WarningKind.PLATE_FACTOR, self._names[fault.plate] if fault.plate >= 0 else "all plates",
                factor=fault.factor,
            )
            for fault in self.planogram.factors.faults(self._now_ns, self._fitness.unfit)
        ]  # fmt: skip
        exchanged = [
            StoreWarning(
                self._now_ns, WarningKind.PLATE_EXCHANGED, self._names[pair.plate], detail=self._names[pair.other]
            )
            for pair in self.planogram.factors.exchanges()
        ]
        return [*found, *factors, *exchanged]

    def _lag_warnings(self, lag: Lag) -> list[StoreWarning]:
        kind = WarningKind.PLATE_LAGS if lag.seconds else WarningKind.PLATE_FIT_AGAIN
        names = [self._names[plate] for plate in lag.plates]
        return plate_warnings(self._now_ns, kind, names, seconds=lag.seconds or None)

    @property
    def ignored(self) -> Counter[str]:
        """Messages and changes that were not used, by reason."""
        return self._plates.ignored + self._ignored

    @property
    def blind(self) -> BlindPlates:
        """Plates whose weights are not known at present; noisy plates still show heavy goods."""
        suspect, restarted = self.planogram.factors.suspect, self._restarts.unknown(self._now_ns)
        return BlindPlates(
            self._plates.unheard, self._unfit, suspect, restarted, self._plates.unsettled(), self._noisy
        )

    @property
    def _unfit(self) -> set[int]:
        return self._fitness.unfit.keys() | self.planogram.timing.plates

    def alive_since(self, t_ns: int) -> bool:
        """Whether any plate has reported weights since an instant; also True in a store without plates."""
        unfit = self._unfit | self.planogram.factors.suspect
        return not self.planogram.rows.members or self._plates.heard_since(t_ns, unfit)

    def report(self) -> tuple[PlateState, ...]:
        """The state of every plate, in the order of the store."""
        return self._plates.report()

    def undecided(self) -> list[tuple[int, int]]:
        """(plate, since when) of everything that may still become an event."""
        return self._moving() + self._order.kept

    def _moving(self) -> list[tuple[int, int]]:
        """The same without the events that are kept back."""
        found = self._plates.disturbed() + self._plates.overdue(self._now_ns)
        found += [(change.plate, change.contact_ns) for change in self._pending]
        found += self._ledger.undecided()
        # A noisy plate is as slow as others to show what was done.
        unheard = self._plates.unheard
        return [(plate, since_ns) for plate, since_ns in found if plate not in unheard]

    def trace(self, plate: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Times (n,) and grams (n,) of the newest samples of a plate, for a reviewer to look at; copies."""
        return self._plates.trace(plate)

    def _ready(self, now_ns: int) -> list[ShelfEvent]:
        """The events of all changes that need not wait any longer."""
        groups = self._finder.groups(self._pending)
        for group in sorted(groups, key=lambda group: max(change.settled_ns for change in group)):
            waited_s = (now_ns - max(change.settled_ns for change in group)) * 1e-9
            if waited_s < NEIGHBOUR_WAIT_S and self._neighbours_move(group):
                continue
            if waited_s < SILENT_WAIT_S and self._neighbours_are_silent(group, now_ns):
                continue
            members = {id(change) for change in group}
            self._pending = [change for change in self._pending if id(change) not in members]
            for part in self._finder.parts(group):
                loads = self._restarts.sifted(part, self._now_ns)
                self._rebase(part, loads)
                if loads:
                    self._ledger.add(loads)
        events = self._ledger.ready(now_ns, {change.plate for change in self._pending})
        return sorted(events, key=lambda event: (event.contact_ns, event.plates[0]))

    def _rebase(self, part: list[PlateChange], loads: list[PlateChange]) -> None:
        """Note what is no load: plates that were restarted."""
        moved_g = {change.plate: change.delta_g for change in loads}
        for change in part:
            shift_g = change.delta_g - moved_g.get(change.plate, 0.0)
            if shift_g:
                self._ledger.rebase(change.plate, shift_g)

    def _neighbours_move(self, group: list[PlateChange]) -> bool:
        """Whether a plate beside the group is still disturbed by what may be the same load."""
        return any(
            # In a silence, it came or went at any time.
            self._plates.moved_before(
                neighbour, (change.settled_ns if change.silent else change.contact_ns) + JOIN_MAX_S * 1e9
            )
            for change in group
            for neighbour in self.planogram.rows.near(change.plate, LOAD_REACH)
        )

    def _neighbours_are_silent(self, group: list[PlateChange], now_ns: int) -> bool:
        """Whether a plate beside the group was silent when the load came or went, and has not settled since."""
        for change in group:
            # In a silence, it came or went at any time.
            first_ns, last_ns = change.contact_ns, change.contact_ns
            if change.silent:
                first_ns, last_ns = change.onset_ns, change.settled_ns
            for neighbour in self.planogram.rows.near(change.plate, LOAD_REACH):
                since_ns = self._plates.silent_since(neighbour, now_ns)
                if since_ns is not None and first_ns - SILENT_MAX_S * 1e9 < since_ns < last_ns + JOIN_MAX_S * 1e9:
                    return True
        return False
