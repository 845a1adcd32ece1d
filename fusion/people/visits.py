"""Who belongs to which visit: scans bound to the people who cross a gate's line, groups, exits, people lost inside.

A visit is everybody admitted under one account, from the first entry to the last exit. Positions come from the tracks,
credentials from the gates; both are noisy and may come in either order, so a person who crosses without an obvious
scan waits a moment for one before counting as somebody without a credential.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from fusion.observations import GateScan
from fusion.results import People, PersonEntered, PersonLeft, Reason, ReasonKind, Warning, WarningKind
from fusion.store.models import Store
from fusion.store.shapes import inside_polygon

# A person stands on one side of a gate's line once they are this far beyond it: twice the usual error of a position.
LINE_MARGIN_M = 0.12
# People pass beside the drawn line too: gates are drawn between posts, shoulders are wider than a position.
LINE_OVERHANG_M = 0.4
# Sides are followed within this distance of the line; farther away the person has to come back first. Who is first seen
# just inside, this near to an entry, came in through it: cameras often do not look outside.
GATE_REACH_M = 1.5
# A scan is good for somebody who crosses this much later, or a moment earlier (clocks of gates and cameras differ).
SCAN_VALID_S = 30.0
SCAN_LATE_S = 0.5
# Who crosses without a scan is somebody without a credential after this time: all scans up to then have come in.
SCAN_WAIT_S = 1.0
# Who scans stands within an arm's length and a step of the gate's middle; who is farther away than twice that does not.
SCAN_REACH_M = 1.2
SCAN_AWAY_M = 2.0
# Whoever scanned and was lost from sight at the gate is found again within this time, if the cameras blinked.
BLINK_S = 1.0
# Who vanishes this near to an exit has left: cameras often do not look outside.
VANISHED_NEAR_M = 1.0
# How long a vanished person may be away before being seen as gone, at an exit and anywhere else.
VANISHED_S = 3.0
# Who was seen within this time is in view: several frames of every camera.
IN_VIEW_S = 0.5
LOST_S = 120.0
# A person must have been followed this long before a visit without credential is made of them; ghosts live shorter.
UNKNOWN_AGE_S = 2.0
# Somebody who appears where another vanished is the same person if a brisk walk could bring them there.
WALK_MAX_MPS = 2.0
RELINK_SLACK_M = 0.8
# People whose visit is remembered after they left; far more than can be inside at once.
REMEMBERED_MAX = 4096


@dataclass
class Walker:
    """One track, as the gates see it."""

    track_id: int
    first_ns: int
    first_m: tuple[float, float]
    last_m: tuple[float, float]
    seen_ns: int
    sides: dict[int, int] = field(default_factory=dict)
    distance_m: dict[int, tuple[int, float]] = field(default_factory=dict)
    crossed_ns: dict[int, int] = field(default_factory=dict)
    inside: bool = False
    identity: float = 1.0
    visit: Visit | None = None
    # Crossed an entry without a scan of their own, at this instant and gate.
    waiting: tuple[int, int] | None = None
    # Entries just behind whose line they were first seen; None until that matters.
    came_in: list[int] | None = None


@dataclass
class Visit:
    """Everybody admitted under one account.

    Attributes:
        members: tracks that belong to the visit, those who have left included.
        inside: those of them who have not left.
        identity: probability that every member's track followed one person throughout.
    """

    id: str
    account: str | None
    enter_ns: int | None
    members: set[int] = field(default_factory=set)
    inside: set[int] = field(default_factory=set)
    lost: dict[int, tuple[int, tuple[float, float]]] = field(default_factory=dict)
    exit_ns: int | None = None
    identity: float = 1.0
    doubts: list[Reason] = field(default_factory=list)
    # Who stood at the gate when a member scanned: if they come in without a scan, it may have been theirs.
    beside: set[int] = field(default_factory=set)

    @property
    def finished(self) -> bool:
        return self.exit_ns is not None and not self.inside and not self.lost


@dataclass
class _OpenScan:
    """A scan that nobody has come in with yet.

    Attributes:
        track_id: who stood nearest to the gate when it was scanned; None where nobody was seen there.
        beside: who else stood there and may have scanned as well.
        away: who was seen too far away to have scanned.
        lost: when and where the nearest was last seen, once they are out of sight without having come in.
    """

    scan: GateScan
    gate: int
    track_id: int | None
    beside: frozenset[int]
    away: frozenset[int]
    lost: tuple[int, tuple[float, float]] | None = None


class Visits:
    """Follows everybody through the gates.

    Attributes:
        ignored: scans that could not be used, by reason.
    """

    def __init__(self, store: Store) -> None:
        self._derive(store)
        self._walkers: dict[int, Walker] = {}
        self._scans: deque[_OpenScan] = deque()
        self._open: dict[str, Visit] = {}
        self._by_account: dict[str, Visit] = {}
        self._n_visits = 0
        # Whom a track belonged to, beyond its end: what people did is explained for good only after they have left.
        self._whose: dict[int, Visit | None] = {}
        self.ignored: Counter[str] = Counter()

    def _derive(self, store: Store) -> None:
        self._store = store
        self._gates = store.gate
        lines = np.array([gate.line for gate in store.gate], float).reshape(-1, 2, 2)
        along = lines[:, 1] - lines[:, 0]
        self._length_m = np.linalg.norm(along, axis=1)
        self._along = along / self._length_m[:, None]
        self._start_m = lines[:, 0]
        self._middles_m = lines.mean(axis=1)
        # Whoever is within reach of the line is no farther from its middle than the corner of that reach.
        self._reach_sq = (self._length_m / 2 + LINE_OVERHANG_M) ** 2 + GATE_REACH_M**2
        self._lines = np.column_stack([self._start_m, self._along, self._length_m]).tolist()
        self._in = [gate.direction in ("in", "both") for gate in store.gate]
        self._out = [gate.direction in ("out", "both") for gate in store.gate]
        self._gate_index = {gate.id: g for g, gate in enumerate(store.gate)}

    def adopt(self, store: Store) -> None:
        """Go on with a store of the same layout; see `Engine.adopt`. A line that moves has not been crossed by that."""
        before = self._lines
        self._derive(store)
        moved = [gate for gate, (old, new) in enumerate(zip(before, self._lines)) if old != new]
        for walker in self._walkers.values() if moved else ():
            walker.came_in = None
            for gate in moved:
                walker.sides.pop(gate, None)
                walker.distance_m.pop(gate, None)
                walker.crossed_ns.pop(gate, None)

    # ---- what others ask ---------------------------------------------------------------------------------------------

    def account_of(self, track_id: int) -> str | None:
        """Account of a person's visit; None for staff, for unknown people and for somebody long gone."""
        visit = self._whose.get(track_id)
        return visit.account if visit else None

    @property
    def scans_waiting(self) -> int:
        """Scans that nobody has come in with yet."""
        return len(self._scans)

    def visit_of(self, track_id: int) -> str | None:
        """Id of a person's visit; None for staff, for people without one and for somebody long gone."""
        visit = self._whose.get(track_id)
        return visit.id if visit else None

    def is_staff(self, track_id: int) -> bool:
        return track_id in self._whose and self._whose[track_id] is None

    def finished(self, until_ns: int, waits: Callable[[Visit], bool] = lambda visit: False) -> list[Visit]:
        """Visits whose people have all left by an instant and that wait for nothing; each is handed out once."""
        left = [v for v in self._open.values() if v.finished and v.exit_ns is not None and v.exit_ns <= until_ns]
        done = [visit for visit in left if not waits(visit)]
        for visit in done:
            self._close(visit)
        return done

    def unfinished(self) -> list[Visit]:
        """Visits that are still open."""
        return list(self._open.values())

    # ---- what comes in -----------------------------------------------------------------------------------------------

    def scan(self, scan: GateScan) -> list[Warning]:
        """Somebody showed a credential. Scans come in order of time, before the people of a later instant."""
        gate = self._gate_index.get(scan.gate)
        if gate is None:
            self.ignored["gate: unknown gate"] += 1
            return [Warning(scan.t_ns, WarningKind.UNKNOWN_GATE, scan.gate)]
        if not self._in[gate]:
            # Nothing is needed to leave; a scan on the way out tells nothing that crossing does not.
            self.ignored["gate: scan on the way out"] += 1
            return []
        if scan.credential_type != "account" and scan.credential_type not in self._gates[gate].credentials:
            self.ignored["gate: credential not accepted there"] += 1
            kind = WarningKind.CREDENTIAL_REFUSED
            return [Warning(scan.t_ns, kind, scan.gate, credential=scan.credential_type)]
        if scan.credential_type != "open":
            self._scans.append(self._open_scan(scan, gate))
        return []

    def step(self, people: People) -> list[PersonEntered | PersonLeft | Warning]:
        """Everybody at a new instant. Returns who came in and who went out."""
        now_ns = people.t_ns
        results: list[PersonEntered | PersonLeft | Warning] = []
        tracks = people.track_id.tolist()
        seen = people.seen_ns.tolist()
        places = list(map(tuple, people.position_m.tolist()))
        confirmed = people.confirmed.tolist()
        identity = people.identity.tolist()
        near, walkers = self._near_a_gate(people.position_m), self._walkers
        for row, track in enumerate(tracks):
            place, walker = places[row], walkers.get(track)
            if walker is None:
                walkers[track] = walker = Walker(track, now_ns, place, place, seen[row])
            walker.last_m = place
            walker.seen_ns = seen[row]
            if identity[row] < walker.identity:
                walker.identity = identity[row]
                if walker.visit:
                    walker.visit.identity = min(walker.visit.identity, identity[row])
            at_gate = False
            if near[row]:
                distance, beside, at_gate = self._gates_from(place)
            if at_gate:
                results += self._at_gates(walker, now_ns, distance, beside)
            elif walker.sides:
                walker.sides.clear()
                walker.distance_m.clear()
            if not walker.inside and confirmed[row] and walker.waiting is None:
                waits = at_gate and walker.came_in is not None and track not in self._whose
                if waits and not any(distance[gate] > LINE_MARGIN_M for gate in walker.came_in or ()):
                    continue  # Crossing will tell.
                known = walker.visit is not None or track in self._whose
                results += self._came_back(walker, now_ns) if known else self._appeared(walker, now_ns)
        results += self._vanished(set(tracks), now_ns)
        results += self._resolve_waiting(now_ns)
        while self._scans and now_ns - self._scans[0].scan.t_ns > SCAN_VALID_S * 1e9:
            self._scans.popleft()
            self.ignored["gate: scan without anybody coming in"] += 1
        return results

    def end(self, now_ns: int) -> list[PersonEntered | PersonLeft | Warning]:
        """The streams have ended: whoever was on the way out has left, whoever was lost is reported."""
        results: list[PersonEntered | PersonLeft | Warning] = []
        for walker in list(self._walkers.values()):
            if walker.waiting:
                crossed_ns, gate = walker.waiting
                results += self._enter(walker, crossed_ns, gate, self._take_scan(walker, gate, crossed_ns))
        # Nobody will be seen again: who was not in view at the end is as gone as they will ever be.
        in_view = {t for t, w in self._walkers.items() if now_ns - w.seen_ns < IN_VIEW_S * 1e9}
        results += self._vanished(in_view, now_ns, after_s=IN_VIEW_S)
        for visit in list(self._open.values()):
            for track in list(visit.lost):
                results += self._give_up(visit, track, now_ns)
        return results

    # ---- crossing ----------------------------------------------------------------------------------------------------

    def _near_a_gate(self, places_m: np.ndarray) -> list[bool]:
        """Of everybody, who may be within reach of a gate: near enough to its middle. Mostly hardly anybody is."""
        apart_sq = ((places_m[:, None] - self._middles_m) ** 2).sum(axis=2)
        near: list[bool] = (apart_sq < self._reach_sq).any(axis=1).tolist()
        return near

    def _gates_from(self, place: tuple[float, float]) -> tuple[list[float], list[bool], bool]:
        """Signed distance to each gate's line (positive: store side), whether beside its segment, and whether within
        reach of any. Plain numbers: a few people and gates are not worth a NumPy call each.
        """
        x, y = place
        distance, beside, in_reach = [], [], False
        for start_x, start_y, along_x, along_y, length in self._lines:
            right, up = x - start_x, y - start_y
            along = right * along_x + up * along_y
            d = up * along_x - right * along_y
            is_beside = -LINE_OVERHANG_M < along < length + LINE_OVERHANG_M
            in_reach = in_reach or (is_beside and -GATE_REACH_M < d < GATE_REACH_M)
            distance.append(d)
            beside.append(is_beside)
        return distance, beside, in_reach

    def _at_gates(
        self, walker: Walker, now_ns: int, distance: list[float], beside: list[bool]
    ) -> Iterator[PersonEntered | PersonLeft | Warning]:
        for gate in range(len(self._gates)):
            d = distance[gate]
            if not beside[gate] or abs(d) >= GATE_REACH_M:
                walker.sides.pop(gate, None)
                walker.distance_m.pop(gate, None)
                continue
            before = walker.distance_m.get(gate)
            walker.distance_m[gate] = now_ns, d
            if before and (before[1] < 0) != (d < 0):
                share = before[1] / (before[1] - d)
                walker.crossed_ns[gate] = before[0] + round(share * (now_ns - before[0]))
            if abs(d) < LINE_MARGIN_M:
                continue
            side = 1 if d > 0 else -1
            side_before = walker.sides.get(gate)
            walker.sides[gate] = side
            if side_before is None or side_before == side:
                continue
            crossed_ns = walker.crossed_ns.get(gate, now_ns)
            if side == 1 and self._in[gate] and not walker.inside and walker.waiting is None:
                yield from self._cross_in(walker, crossed_ns, gate)
            elif side == -1 and walker.waiting:
                # Turned back before a scan was found: was never in.
                walker.waiting = None
            elif side == -1 and walker.inside:
                yield from self._leave(walker, crossed_ns, gate)

    def _cross_in(self, walker: Walker, crossed_ns: int, gate: int) -> list[PersonEntered | PersonLeft | Warning]:
        scan = self._take_scan(walker, gate, crossed_ns)
        if scan is not None or self._gates[gate].credentials == ("open",):
            return list(self._enter(walker, crossed_ns, gate, scan))
        walker.waiting = crossed_ns, gate
        return []

    def _open_scan(self, scan: GateScan, gate: int) -> _OpenScan:
        """A scan with who may have made it: somebody at the gate who has not come in yet and has not scanned."""
        middle = self._start_m[gate] + 0.5 * self._length_m[gate] * self._along[gate]
        claimed = {open_scan.track_id for open_scan in self._scans}
        apart = [
            (math.dist(walker.last_m, middle), walker.track_id)
            for walker in self._walkers.values()
            if not walker.inside and walker.waiting is None
        ]
        at_gate = [track for away_m, track in sorted(apart) if away_m < SCAN_REACH_M]
        free = [track for track in at_gate if track not in claimed]
        nearest = free[0] if free else None
        away = frozenset(track for away_m, track in apart if away_m > SCAN_AWAY_M)
        return _OpenScan(scan, gate, nearest, frozenset(at_gate) - {nearest}, away)

    def _take_scan(self, walker: Walker, gate: int, crossed_ns: int) -> _OpenScan | None:
        """The scan that this person made: the one during which they stood at the gate, else the oldest of nobody's.

        Nobody gets the scan of somebody who still stands outside, nor one that was made while they were elsewhere.
        """
        at_gate = [s for s in self._scans if s.gate == gate and s.scan.t_ns <= crossed_ns + SCAN_LATE_S * 1e9]
        mine = [s for s in at_gate if s.track_id == walker.track_id or self._goes_on(walker, s)]
        nobodys = [s for s in at_gate if s.track_id is None or s.track_id not in self._walkers]
        for open_scan in mine or [s for s in nobodys if walker.track_id not in s.away]:
            self._scans.remove(open_scan)
            return open_scan
        return None

    def _resolve_waiting(self, now_ns: int) -> Iterator[PersonEntered | PersonLeft | Warning]:
        for walker in self._walkers.values():
            if walker.waiting is None:
                continue
            crossed_ns, gate = walker.waiting
            scan = self._take_scan(walker, gate, crossed_ns)
            if scan is not None or now_ns - crossed_ns > SCAN_WAIT_S * 1e9:
                yield from self._enter(walker, crossed_ns, gate, scan)

    def _enter(
        self, walker: Walker, t_ns: int, gate: int | None, scan: _OpenScan | None
    ) -> Iterator[PersonEntered | PersonLeft | Warning]:
        walker.waiting = None
        walker.inside = True
        gate_id = self._gates[gate].id if gate is not None else None
        if scan is not None and scan.scan.credential_type == "staff":
            self._belongs(walker, None)
            yield PersonEntered(t_ns, walker.track_id, gate_id, None, None, staff=True)
            return
        account = scan.scan.account if scan else None
        visit = self._by_account.get(account) if account is not None else None
        if visit is None:
            self._n_visits += 1
            visit = Visit(f"{self._store.id}-{t_ns // 1_000_000}-{self._n_visits}", account, t_ns if gate_id else None)
            self._open[visit.id] = visit
            if account is not None:
                self._by_account[account] = visit
        visit.identity = min(visit.identity, walker.identity)
        self._belongs(walker, visit)
        yield PersonEntered(t_ns, walker.track_id, gate_id, account, visit.id)
        if scan is not None:
            if scan.lost is not None and not self._goes_on(walker, scan):
                visit.doubts.append(Reason(ReasonKind.SCANNED_PERSON_LOST, gate=gate_id))
            visit.beside |= scan.beside
            unscanned = [w for w in self._walkers.values() if w.track_id in scan.beside and w.visit]
            if any(w.visit is not None and w.visit.account is None for w in unscanned):
                visit.doubts.append(Reason(ReasonKind.UNSCANNED_BESIDE))
        if account is None:
            for other in self._open.values():
                if walker.track_id in other.beside:
                    other.doubts.append(Reason(ReasonKind.UNSCANNED_BESIDE))
            yield Warning(t_ns, WarningKind.NO_CREDENTIAL, visit.id, gate=gate_id)

    def _goes_on(self, walker: Walker, open_scan: _OpenScan) -> bool:
        """Whether somebody is the one who scanned, lost from sight for a moment and found under another track."""
        lost = open_scan.lost
        owner = self._walkers.get(open_scan.track_id) if open_scan.track_id is not None else None
        if owner is not None and not owner.inside and owner.waiting is None:
            lost = owner.seen_ns, owner.last_m
        if lost is None:
            return False
        gap_s = (walker.first_ns - lost[0]) / 1e9
        return 0.0 < gap_s < BLINK_S and math.dist(lost[1], walker.first_m) < RELINK_SLACK_M

    def _belongs(self, walker: Walker, visit: Visit | None) -> None:
        """This person is of a visit, or of the staff (None)."""
        walker.visit = visit
        if visit is not None:
            visit.members.add(walker.track_id)
            visit.inside.add(walker.track_id)
        self._whose[walker.track_id] = visit
        if len(self._whose) > REMEMBERED_MAX:
            del self._whose[next(iter(self._whose))]

    def _leave(self, walker: Walker, t_ns: int, gate: int) -> Iterator[PersonLeft]:
        walker.inside = False
        visit = walker.visit
        gate_id = self._gates[gate].id
        if visit is not None:
            visit.inside.discard(walker.track_id)
            visit.lost.pop(walker.track_id, None)
            visit.exit_ns = max(visit.exit_ns or t_ns, t_ns)
        yield PersonLeft(t_ns, walker.track_id, gate_id, visit.account if visit else None, visit.id if visit else None)

    # ---- appearing and vanishing -------------------------------------------------------------------------------------

    def _appeared(self, walker: Walker, now_ns: int) -> Iterator[PersonEntered | PersonLeft | Warning]:
        """Somebody inside whom no gate has seen: came in unseen, or was lost before under another track."""
        if not self._gates or not inside_polygon(self._store.floor, *walker.last_m):
            return
        first, beside, _ = self._gates_from(walker.first_m)
        last, _, at_gate = self._gates_from(walker.last_m)
        entries = [g for g in range(len(self._gates)) if self._in[g]]
        came_in = [g for g in entries if beside[g] and -LINE_MARGIN_M < first[g] < GATE_REACH_M]
        walker.came_in = came_in
        if at_gate:
            # Still at a gate: first seen just behind an entry's line, or crossing will tell.
            gate = next((g for g in came_in if last[g] > LINE_MARGIN_M), None)
            if gate is not None:
                yield from self._cross_in(walker, walker.first_ns, gate)
            return
        if entries and (came_in or not inside_polygon(self._store.floor, *walker.first_m)):
            # Seen outside and now inside: the crossing itself was not seen.
            gate = min(came_in or entries, key=lambda g: abs(first[g]))
            yield from self._cross_in(walker, now_ns, gate)
            return
        if now_ns - walker.first_ns < UNKNOWN_AGE_S * 1e9:
            return
        reachable = []
        for visit in self._open.values():
            for track, (lost_ns, place) in visit.lost.items():
                away = math.dist(place, walker.first_m)
                if (
                    lost_ns <= walker.first_ns
                    and away < RELINK_SLACK_M + WALK_MAX_MPS * (walker.first_ns - lost_ns) / 1e9
                ):
                    reachable.append((visit, track))
        if len(reachable) == 1:
            visit, track = reachable[0]
            del visit.lost[track]
            # The only one missing is found where they can be; the doubt that remains belongs on the receipt.
            visit.identity = min(visit.identity, 0.97)
            walker.inside = True
            self._belongs(walker, visit)
            yield PersonEntered(now_ns, walker.track_id, None, visit.account, visit.id)
            return
        for visit, _ in reachable:
            visit.doubts.append(Reason(ReasonKind.LOST_AMONG_OTHERS))
        yield from self._enter(walker, walker.first_ns, None, None)

    def _came_back(self, walker: Walker, now_ns: int) -> Iterator[PersonEntered | PersonLeft | Warning]:
        """Somebody who was lost, or seemed to have left, under the same track as before."""
        track, visit = walker.track_id, self._whose.get(walker.track_id)
        if visit is not None and track in visit.lost:
            del visit.lost[track]
        elif self._at_a_gate(walker) or not inside_polygon(self._store.floor, *walker.last_m):
            return
        elif visit is not None and visit.id not in self._open:
            # The bill was written when they seemed to have left; whatever they take now is not on it.
            yield from self._enter(walker, now_ns, None, None)
            return
        walker.inside = True
        self._belongs(walker, visit)

    def _at_a_gate(self, walker: Walker) -> bool:
        return self._gates_from(walker.last_m)[2]

    def _vanished(
        self, present: set[int], now_ns: int, after_s: float = VANISHED_S
    ) -> Iterator[PersonEntered | PersonLeft | Warning]:
        for track, walker in list(self._walkers.items()):
            if now_ns - walker.seen_ns < after_s * 1e9:
                continue
            if walker.inside:
                gate = self._exit_near(walker.last_m)
                if gate is not None:
                    yield from self._leave(walker, walker.seen_ns, gate)
                elif track not in present:
                    walker.inside = False
                    if walker.visit is not None:
                        walker.visit.inside.discard(track)
                        walker.visit.lost.setdefault(track, (walker.seen_ns, walker.last_m))
            if track not in present and (walker.visit is None or walker.visit.id not in self._open):
                del self._walkers[track]
                for open_scan in self._scans:
                    if open_scan.track_id == track:
                        open_scan.lost = walker.seen_ns, walker.last_m
        for visit in list(self._open.values()):
            for track, (lost_ns, _) in list(visit.lost.items()):
                if now_ns - lost_ns > LOST_S * 1e9:
                    yield from self._give_up(visit, track, now_ns)

    def _give_up(self, visit: Visit, track: int, now_ns: int) -> Iterator[Warning]:
        lost_ns, _ = visit.lost.pop(track)
        visit.exit_ns = max(visit.exit_ns or lost_ns, lost_ns)
        visit.doubts.append(Reason(ReasonKind.LOST_INSIDE))
        yield Warning(now_ns, WarningKind.PERSON_LOST, visit.id)

    def _exit_near(self, place: tuple[float, float]) -> int | None:
        distance, beside, _ = self._gates_from(place)
        gates = range(len(self._gates))
        near = [g for g in gates if self._out[g] and beside[g] and abs(distance[g]) < VANISHED_NEAR_M]
        return min(near, key=lambda g: abs(distance[g])) if near else None

    def _close(self, visit: Visit) -> None:
        del self._open[visit.id]
        if visit.account is not None and self._by_account.get(visit.account) is visit:
            del self._by_account[visit.account]
