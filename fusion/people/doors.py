"""Doors of cabinets: whose opening it is, from the credentials shown and the contact at the door.

People reach through a cabinet's door and do not walk, so it needs no camera: whatever moves behind it while it is open
is the account's that was shown. An opening stands for its person under a track id of its own, and is a member of the
account's visit from the door's opening to its closing. Where door and credentials do not agree, the visit is doubted.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from fusion.observations import LATEST_NS, DoorState, GateScan
from fusion.people.open_visits import OPENING_TRACK, OpenVisits, Visit
from fusion.people.scans import SCAN_VALID_S
from fusion.results import PersonEntered, PersonLeft, Reason, ReasonKind, WarningKind
from fusion.results import Warning as StoreWarning
from fusion.store.models import Store

# A contact that closes and opens again within this time has bounced; shorter than a receipt waits.
BOUNCE_NS = 500_000_000
# A door that opens before its credential comes in waits this long for it: clocks and networks differ.
SCAN_WAIT_NS = 1_000_000_000
# Loads are dated to some tenths of a second, and doors by another clock.
DOOR_SLACK_NS = 1_000_000_000
# From then on a customer may have left and others may reach in.
LEFT_OPEN_NS = 180_000_000_000
# A load is known this long after it moved, at the latest; until then a scan whose door stayed closed is kept.
SCAN_KEPT_NS = round(SCAN_VALID_S * 1e9) + 15_000_000_000
OPENINGS_MAX = 256
# More credentials at a closed door than a person may try.
SCANS_MAX = 16

Passed = PersonEntered | PersonLeft | StoreWarning


@dataclass(slots=True, eq=False)
class Opening:
    """One opening of a door.

    Attributes:
        track_id: stands for whoever reached in.
        gate: id of the gate.
        opened_ns: when; closed_ns: when it was closed, None while it is open.
        entered: whether it has a visit, or is the staff's.
        left_open: whether it was reported as open for too long.
    """

    track_id: int
    gate: str
    opened_ns: int
    closed_ns: int | None = None
    entered: bool = False
    left_open: bool = False


class Openings:
    """When the doors of cabinets were open; the newest OPENINGS_MAX openings."""

    def __init__(self, store: Store) -> None:
        self._opened: deque[Opening] = deque(maxlen=OPENINGS_MAX)
        self._n_opened = 0
        self.adopt(store)

    def adopt(self, store: Store) -> None:
        """Start, or continue with a store of the same layout; see `Engine.adopt`."""
        index = {plate.plate: i for i, plate in enumerate(store.plates)}
        self._gate_of = {index[plate]: gate for gate, plates in store.behind_doors.items() for plate in plates}

    def add(self, gate: str, t_ns: int) -> Opening:
        """Note that a door was opened."""
        opening = Opening(OPENING_TRACK + self._n_opened, gate, t_ns)
        self._n_opened += 1
        self._opened.append(opening)
        return opening

    def gate_before(self, plate: int) -> str | None:
        """The gate before a plate (index into store.plates), if there is one with a door."""
        return self._gate_of.get(plate)

    def during(self, plate: int, since_ns: int, until_ns: int) -> list[Opening]:
        """Openings of a plate's door at any time in a span, as far as clocks agree; oldest first."""
        gate = self._gate_of.get(plate)
        since_ns, until_ns = since_ns - DOOR_SLACK_NS, until_ns + DOOR_SLACK_NS
        return [
            opening for opening in self._opened
            if opening.gate == gate and opening.opened_ns <= until_ns
            and (opening.closed_ns is None or opening.closed_ns >= since_ns)
        ]  # fmt: skip

    def reached(self, people: Collection[int], plate: int, since_ns: int) -> bool:
        """Whether the door before a plate has been open for one of these people (track ids) since an instant."""
        return any(opening.track_id in people for opening in self.during(plate, since_ns, LATEST_NS))


@dataclass(slots=True, eq=False)
class _Door:
    """One door: its opening, if it is open, and credentials shown since it was last opened, oldest first.

    loads: whether a load moved behind it since the first of these.
    """

    gate: str
    opening: Opening | None = None
    scans: list[GateScan] = field(default_factory=list)
    loads: bool = False


class Doors:
    """Follows the doors of all cabinets, and opens and ends their visits.

    Attributes:
        openings: when they were open.
    """

    def __init__(self, store: Store, visits: OpenVisits, ignored: Counter[str]) -> None:
        """Start with closed doors.

        Args:
            store: its gates of kind `cabinet`.
            visits: the register of all visits, which is written here.
            ignored: counts what could not be used, by reason.
        """
        self.openings = Openings(store)
        self._visits, self._ignored = visits, ignored
        self._doors = {gate: _Door(gate) for gate in store.behind_doors}

    def adopt(self, store: Store) -> None:
        """Continue with a store of the same layout; see `Engine.adopt`."""
        self.openings.adopt(store)
        self._doors = {gate: self._doors.get(gate) or _Door(gate) for gate in store.behind_doors}

    @property
    def scans_waiting(self) -> int:
        """Number of credentials whose door has not been opened yet."""
        return sum(len(door.scans) for door in self._doors.values())

    # ---- input -------------------------------------------------------------------------------------------------------

    def scan(self, scan: GateScan) -> Iterator[Passed]:
        """Take a credential that its gate accepts."""
        door = self._doors[scan.gate]
        opening = door.opening
        if opening is None or opening.closed_ns is not None:
            self._keep(door, scan)
        elif not opening.entered:
            yield self._enter(opening, scan)
        elif self._is_of(opening, scan):
            self._ignored["gate: the same credential while the door is open"] += 1
        else:
            # Whose the goods are from here on is not known.
            self._doubt(opening, ReasonKind.DOOR_SHARED)
            self._keep(door, scan)

    def state(self, state: DoorState) -> Iterator[Passed]:
        """Take the state of a door."""
        door = self._doors.get(state.gate)
        if door is None:
            self._ignored["gate: door of no cabinet"] += 1
            return
        opening = door.opening
        is_shut = opening is None or opening.closed_ns is not None
        if state.is_open == (not is_shut) and not (state.is_open and door.scans):
            self._ignored["gate: door in the same state"] += 1
        elif not state.is_open:
            if opening is not None:
                opening.closed_ns = max(state.t_ns, opening.opened_ns)
        elif opening is None:
            yield from self._open(door, state.t_ns)
        elif door.scans:
            # Another account was shown meanwhile: it was closed in between.
            missed = opening.closed_ns is None
            if missed:
                opening.closed_ns = max(door.scans[0].t_ns, opening.opened_ns)
                self._doubt(opening, ReasonKind.DOOR_UNSURE)
            yield from self._close(door, opening)
            yield from self._open(door, state.t_ns)
            if missed and door.opening is not None:
                self._doubt(door.opening, ReasonKind.DOOR_UNSURE)
        else:
            opening.closed_ns = None

    def step(self, now_ns: int) -> Iterator[Passed]:
        """Pass to an instant: doors that stay closed end their visits, and what waits for too long is given up."""
        for door in self._doors.values():
            opening = door.opening
            if opening is not None:
                if not opening.entered and now_ns - opening.opened_ns > SCAN_WAIT_NS:
                    yield from self._enter_unidentified(opening)
                if opening.closed_ns is not None and now_ns - opening.closed_ns >= BOUNCE_NS:
                    yield from self._close(door, opening)
                elif now_ns - opening.opened_ns > LEFT_OPEN_NS and not opening.left_open:
                    opening.left_open = True
                    self._doubt(opening, ReasonKind.DOOR_LEFT_OPEN)
                    seconds = round((now_ns - opening.opened_ns) * 1e-9, 1)
                    yield StoreWarning(now_ns, WarningKind.DOOR_LEFT_OPEN, door.gate, seconds=seconds)
            if door.scans:
                yield from self._expire(door, now_ns)

    def end(self, now_ns: int) -> Iterator[Passed]:
        """The streams have ended: doors that were closed stay so, and credentials that wait are given up."""
        for door in self._doors.values():
            opening = door.opening
            if opening is not None and not opening.entered:
                yield from self._enter_unidentified(opening)
            if opening is not None and opening.closed_ns is not None:
                yield from self._close(door, opening)
            yield from self._expire(door, now_ns, after_ns=-1)

    def loaded(self, plate: int, t_ns: int) -> list[StoreWarning]:
        """Note that a load moved on a plate (an index); a warning where its door was closed."""
        gate = self.openings.gate_before(plate)
        if gate is None or self.openings.during(plate, t_ns, t_ns):
            return []
        door = self._doors[gate]
        door.loads |= any(scan.t_ns <= t_ns for scan in door.scans)
        return [StoreWarning(t_ns, WarningKind.LOAD_BEHIND_DOOR, gate)]

    # ---- openings and visits -----------------------------------------------------------------------------------------

    def _keep(self, door: _Door, scan: GateScan) -> None:
        door.scans = [other for other in door.scans if other.account != scan.account]
        if len(door.scans) >= SCANS_MAX:
            self._ignored["gate: more open scans than people can come in by"] += 1
            return
        door.scans.append(scan)

    def _open(self, door: _Door, t_ns: int) -> Iterator[Passed]:
        opening = door.opening = self.openings.add(door.gate, t_ns)
        scans = [scan for scan in door.scans if t_ns - scan.t_ns <= SCAN_VALID_S * 1e9]
        door.scans, door.loads = [], False
        if scans:
            yield self._enter(opening, scans[-1])
            if len(scans) > 1:
                self._doubt(opening, ReasonKind.DOOR_SHARED)

    def _enter(self, opening: Opening, scan: GateScan) -> PersonEntered:
        opening.entered = True
        t_ns, track, gate = opening.opened_ns, opening.track_id, opening.gate
        if scan.credential_type == "staff":
            self._visits.assign(track, None)
            return PersonEntered(t_ns, track, gate, None, None, staff=True)
        visit = self._visits.of_account(scan.account)
        if visit is None:
            visit = self._visits.open(scan.account, t_ns, seen_entering=True)
        self._visits.assign(track, visit)
        return PersonEntered(t_ns, track, gate, visit.account, visit.id)

    def _enter_unidentified(self, opening: Opening) -> Iterator[Passed]:
        opening.entered = True
        visit = self._visits.open(None, opening.opened_ns, seen_entering=True)
        self._visits.assign(opening.track_id, visit)
        yield PersonEntered(opening.opened_ns, opening.track_id, opening.gate, None, visit.id)
        yield StoreWarning(opening.opened_ns, WarningKind.NO_CREDENTIAL, visit.id, gate=opening.gate)

    def _close(self, door: _Door, opening: Opening) -> Iterator[Passed]:
        door.opening = None
        if not opening.entered:
            yield from self._enter_unidentified(opening)
        t_ns, visit = opening.closed_ns or opening.opened_ns, self._visit(opening)
        if visit is not None:
            visit.left(opening.track_id, t_ns)
        account, visit_id = (visit.account, visit.id) if visit else (None, None)
        yield PersonLeft(t_ns, opening.track_id, opening.gate, account, visit_id)

    def _expire(self, door: _Door, now_ns: int, after_ns: int = SCAN_KEPT_NS) -> Iterator[Passed]:
        """Give up credentials whose door stayed closed; where a load moved meanwhile, the door may not have."""
        expired = [scan for scan in door.scans if now_ns - scan.t_ns > after_ns]
        door.scans = door.scans[len(expired) :]
        for scan in expired:
            self._ignored["gate: scan without anybody coming in"] += 1
            if not door.loads or scan.credential_type == "staff":
                continue
            visit = self._visits.new(scan.account, scan.t_ns, seen_entering=False)
            visit.exit_ns = now_ns
            visit.doubts.append(Reason(ReasonKind.SCAN_UNBOUND, gate=door.gate))
            self._visits.add(visit)
            yield StoreWarning(now_ns, WarningKind.SCAN_UNBOUND, door.gate, count=0)

    def _visit(self, opening: Opening) -> Visit | None:
        return self._visits.of_track.get(opening.track_id)

    def _is_of(self, opening: Opening, scan: GateScan) -> bool:
        """Whether a credential is of the person whose opening it is."""
        visit = self._visit(opening)
        if visit is None:
            return scan.credential_type == "staff"
        return scan.credential_type != "staff" and visit.account == scan.account

    def _doubt(self, opening: Opening, kind: ReasonKind) -> None:
        visit, reason = self._visit(opening), Reason(kind, gate=opening.gate)
        if visit is not None and reason not in visit.doubts:
            visit.doubts.append(reason)
