"""Visits: scans bound to the people who cross a gate's line, groups, exits, people lost inside.

A visit is everybody admitted under one account, from the first entry to the last exit. Positions come from the tracks,
credentials from the gates; both are noisy and may come in either order, so a person who crosses without an obvious
scan waits a moment for one before they count as a person without a credential.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from fusion.errors import cut_text
from fusion.observations import DoorState, GateEvent, GateScan
from fusion.people.doors import Doors, Openings, Passed
from fusion.people.gate_lines import LINE_MARGIN_M, GateLines, GatePosition, Passage
from fusion.people.open_visits import OpenVisits, Visit
from fusion.people.recent import Recent
from fusion.people.scans import (
    CLAIM_CERTAIN,
    SCAN_LATE_S,
    SCAN_REACH_M,
    SCAN_VALID_S,
    WALK_MAX_M_S,
    Claim,
    OpenScan,
    OpenScans,
    reappears_as,
)
from fusion.people.walkers import Entry, LastSeen, Walker
from fusion.results import NAME_MAX, People, PersonEntered, PersonLeft, Reason, ReasonKind, WarningKind
from fusion.results import Warning as StoreWarning
from fusion.store.models import Store
from fusion.store.shapes import inside_polygon

# A person who crossed without a scan has no credential after this time: all scans up to then have come in.
SCAN_WAIT_S = 1.0
# A person who vanishes this near to an exit has left: cameras often do not see the outside.
VANISHED_NEAR_M = 1.0
# A person unseen for this long has left if they were at an exit, and is lost elsewhere; a lost person is given up after
# LOST_S.
VANISHED_S = 3.0
LOST_S = 120.0
# A person seen within this time is in view: several frames of every camera.
IN_VIEW_S = 0.5
# A track must be this old before it starts a visit without a credential; ghosts do not live as long.
UNKNOWN_AGE_S = 2.0
# A track that appears where a person vanished is that person if they could have walked there at a brisk pace.
RELINK_SLACK_M = 0.8
# Identity probability of a visit when its only missing member was found by that rule.
RELINKED_IDENTITY = 0.97
# A lost person is found again, as one of everybody who appears, after about this time.
REFOUND_AFTER_S = 20.0
# Whoever is inside may do anything unseen while all cameras are silent for longer than this.
BLIND_MAX_S = 3.0
# A person who is about to come in when time jumps may scan or cross while nothing is heard; a visit that begins within
# this time is doubted, or while a scan from before is valid.
JUMP_DOUBT_S = 5.0
# Gates that the store does not have and that are warned of, once each.
UNKNOWN_GATES_MAX = 64

class Visits:
    """Follows everybody through the gates.

    Attributes:
        ignored: scans that could not be used, by reason.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._gates = {gate.id: gate for gate in store.gate}
        self._lines = GateLines(store)
        self._walkers: dict[int, Walker] = {}
        self._scans = OpenScans()
        self._open = OpenVisits(store.id)
        self._recent = Recent()
        # The newest frames; None before the first.
        self._seen_ns: int | None = None
        self._unknown_gates: set[str] = set()
        self.ignored: Counter[str] = Counter()
        self._doors = Doors(store, self._open, self.ignored)

    def adopt(self, store: Store) -> None:
        """Continue with a store of the same layout; see `Engine.adopt`. A line that moves was not crossed by that."""
        before = self._lines
        self._store, self._lines = store, GateLines(store)
        self._gates = {gate.id: gate for gate in store.gate}
        self._doors.adopt(store)
        moved = self._lines.moved(before)
        for walker in self._walkers.values() if moved else ():
            walker.entries = None
            for gate in moved:
                walker.passages.pop(gate, None)

    # ---- queries -----------------------------------------------------------------------------------------------------

    @property
    def openings(self) -> Openings:
        """When the doors of cabinets were open."""
        return self._doors.openings

    def account_of(self, track_id: int) -> str | None:
        """Account of a person's visit; None for staff, for unknown people and for people long gone."""
        visit = self._open.of_track.get(track_id)
        return visit.account if visit else None

    def visit_of(self, track_id: int) -> str | None:
        """Id of a person's visit; None for staff, for people without one and for people long gone."""
        visit = self._open.of_track.get(track_id)
        return visit.id if visit else None

    def is_staff(self, track_id: int) -> bool:
        """Whether a person came in with a staff credential."""
        return self._open.of_track.get(track_id, self) is None

    def moved_goods(self, track_id: int) -> None:
        """Note that a shelf event was most probably a track's: whatever else speaks against it, it has hands."""
        if track_id in self._walkers:
            self._walkers[track_id].moved_goods = True

    @property
    def scans_waiting(self) -> int:
        """Number of scans that no person has come in with yet."""
        return len(self._scans) + self._doors.scans_waiting

    @property
    def n_followed(self) -> int:
        """Number of tracks that the gates follow."""
        return len(self._walkers)

    def finished(self, until_ns: int, must_wait: Callable[[Visit], bool] = lambda visit: False) -> list[Visit]:
        """Visits whose people have all left by an instant and that need not wait; each is handed out once."""
        done = [visit for visit in self._open.finished(until_ns) if not must_wait(visit)]
        for visit in done:
            self._close(visit)
        return done

    def unfinished(self) -> list[Visit]:
        """Visits that are still open."""
        return list(self._open)

    def doubt(self, reason: Reason, now_ns: int) -> bool:
        """Doubt every open visit, and those that begin soon; returns whether one is open or a scan waits."""
        waits_s = SCAN_VALID_S if self.scans_waiting else JUMP_DOUBT_S
        self._open.doubt(reason, now_ns + round(waits_s * 1e9))
        return bool(len(self._open) or self.scans_waiting)

    # ---- input -------------------------------------------------------------------------------------------------------

    def at_gate(self, event: GateEvent) -> list[Passed]:
        """Take in a credential, or the state of a door. They come in time order, before people of a later instant."""
        if isinstance(event, DoorState):
            return list(self._doors.state(event))
        return list(self._scan(event))

    def loaded(self, plate: int, t_ns: int) -> list[StoreWarning]:
        """Note that a load moved on a plate (an index); a warning where it lies behind a door that was closed."""
        return self._doors.loaded(plate, t_ns)

    def _scan(self, scan: GateScan) -> Iterable[Passed]:
        gate_of_store = self._gates.get(scan.gate)
        if gate_of_store is None:
            self.ignored["gate: unknown gate"] += 1
            if scan.gate in self._unknown_gates or len(self._unknown_gates) >= UNKNOWN_GATES_MAX:
                return []
            self._unknown_gates.add(scan.gate)
            return [StoreWarning(scan.t_ns, WarningKind.UNKNOWN_GATE, scan.gate)]
        is_cabinet = gate_of_store.kind == "cabinet"
        gate = -1 if is_cabinet else self._lines.ids.index(scan.gate)
        if not is_cabinet and not self._lines.inward[gate]:
            # No credential is needed to leave; a scan on the way out adds nothing to the crossing.
            self.ignored["gate: scan on the way out"] += 1
            return []
        accepted = ("account", *gate_of_store.credentials)
        if scan.credential_type not in accepted or not _is_account(scan):
            self.ignored["gate: credential not accepted there"] += 1
            kind = WarningKind.CREDENTIAL_REFUSED
            return [StoreWarning(scan.t_ns, kind, scan.gate, credential=scan.credential_type)]
        if is_cabinet:
            return self._doors.scan(scan)
        if scan.credential_type != "open":
            added = self._scans.add(scan, gate, self._lines.centre_m(gate), self._walkers)
            if added is None:
                self.ignored["gate: more open scans than people can come in by"] += 1
            elif added.track_id is None and not added.repeated:
                _doubt_shifted(scan, self._recent, self._open)
        return []

    def step(self, people: People, vouched: Callable[[int], bool] = lambda track_id: True) -> list[Passed]:
        """Follow everybody to a new instant. Returns who came in and who went out.

        vouched: whether cameras agree on a track; asked of people inside who were not seen coming in.
        """
        now_ns = people.t_ns
        self._doubt_blind_span(now_ns)
        self._seen_ns = now_ns
        results: list[Passed] = []
        near, walkers, visits = self._lines.near(people.position_m), self._walkers, self._open.of_track
        # What happens at one instant only ever ends a search.
        has_gates, is_searching = len(self._lines) > 0, self._is_searching()
        tracks, confirmed = people.track_id.tolist(), people.confirmed.tolist()
        columns = people.position_m.tolist(), people.seen_ns.tolist(), people.identity.tolist()
        for row, (track, (x, y), seen_ns, identity) in enumerate(zip(tracks, *columns)):
            place, walker = (x, y), walkers.get(track)
            if walker is None:
                walkers[track] = walker = Walker(track, now_ns, place, place, seen_ns)
            walker.last_m, walker.seen_ns = place, seen_ns
            if identity < walker.identity:
                walker.lower_identity(identity)
            # Most people are inside and far from every gate, and there is nothing more to do.
            if (
                near[row] or walker.passages
                or ((has_gates and not walker.inside)
                and (is_searching or track in visits or walker.visit or walker.lives))
            ):  # fmt: skip
                results += self._at_doors(walker, now_ns, near[row], confirmed[row], vouched)
        results += self._vanished(tracks, now_ns)
        results += self._resolve_waiting(now_ns)
        results += self._expire(now_ns)
        results += self._doors.step(now_ns)
        return results

    def _at_doors(
        self, walker: Walker, now_ns: int, is_near: bool, is_confirmed: bool, vouched: Callable[[int], bool]
    ) -> Iterator[Passed]:
        """Follow a person who may be within reach of a gate, or who is not inside."""
        position = self._lines.position(walker.last_m) if is_near else None
        if position is not None and position.in_reach:
            yield from self._at_gates(walker, now_ns, position)
        else:
            position = None
            walker.passages.clear()
        if is_confirmed and walker.is_outside:
            yield from self._found_inside(walker, now_ns, position, vouched)

    def idle(self, now_ns: int) -> list[Passed]:
        """Pass to an instant at which no camera delivered anything."""
        results: list[Passed] = [*self._expire(now_ns), *self._doors.step(now_ns)]
        if self._seen_ns is not None and now_ns - self._seen_ns > BLIND_MAX_S * 1e9:
            results += self._vanished((), now_ns)
        return results

    def end(self, now_ns: int) -> list[Passed]:
        """End the visits with the streams: people on their way out have left, lost people are given up."""
        results: list[Passed] = []
        self._doubt_blind_span(now_ns)
        for walker in list(self._walkers.values()):
            if walker.waiting:
                crossed_ns, gate = walker.waiting
                results += self._enter(walker, crossed_ns, gate, self._take_scan(walker, gate, crossed_ns))
        # People who were not in view at the end will not be seen again.
        in_view = {t for t, w in self._walkers.items() if now_ns - w.seen_ns < IN_VIEW_S * 1e9}
        results += self._vanished(in_view, now_ns, after_s=IN_VIEW_S)
        for visit in list(self._open):
            for track in list(visit.lost):
                results += self._give_up(visit, track, now_ns)
        results += self._expire(now_ns, after_s=-1.0)
        results += self._doors.end(now_ns)
        return results

    # ---- crossing ----------------------------------------------------------------------------------------------------

    def _at_gates(self, walker: Walker, now_ns: int, position: GatePosition) -> Iterator[Passed]:
        """Follow a person within reach of a gate across its line."""
        for gate, distance_m in enumerate(position.distance_m):
            if not self._lines.in_reach(position, gate):
                walker.passages.pop(gate, None)
                continue
            passage = walker.passages.get(gate)
            if passage is None:
                walker.passages[gate] = passage = Passage(now_ns, distance_m)
            else:
                passage.move(now_ns, distance_m)
            side = passage.change_of_side()
            if side == 0:
                continue
            crossed_ns = now_ns if passage.crossed_ns is None else passage.crossed_ns
            if side == 1 and self._lines.inward[gate] and walker.is_outside:
                yield from self._cross_in(walker, crossed_ns, gate)
            elif side == -1 and walker.waiting:
                # They turned back before a scan was found, so they never came in.
                walker.waiting = None
            elif side == -1 and walker.inside:
                yield self._leave(walker, crossed_ns, gate)

    def _cross_in(self, walker: Walker, crossed_ns: int, gate: int) -> list[Passed]:
        scan = self._take_scan(walker, gate, crossed_ns)
        if scan is not None or self._lines.is_open[gate]:
            return list(self._enter(walker, crossed_ns, gate, scan))
        walker.waiting = Entry(crossed_ns, gate)
        return []

    def _take_scan(self, walker: Walker, gate: int, crossed_ns: int) -> OpenScan | None:
        return self._scans.take(walker, gate, crossed_ns, self._walkers)

    def _resolve_waiting(self, now_ns: int) -> Iterator[Passed]:
        for walker in self._walkers.values():
            if walker.waiting is None:
                continue
            crossed_ns, gate = walker.waiting
            scan = self._take_scan(walker, gate, crossed_ns)
            if scan is not None or now_ns - crossed_ns > SCAN_WAIT_S * 1e9:
                yield from self._enter(walker, crossed_ns, gate, scan)

    def _enter(
        self, walker: Walker, t_ns: int, gate: int | None, scan: OpenScan | None, probability: float = 1.0
    ) -> Iterator[Passed]:
        """A person is in: under the account of their scan, as staff, or without a credential.

        `probability` is that of the scan being theirs.
        """
        walker.waiting = None
        walker.inside = True
        gate_id = self._lines.ids[gate] if gate is not None else None
        if scan is not None and scan.scan.credential_type == "staff":
            self._assign(walker, None)
            yield PersonEntered(t_ns, walker.track_id, gate_id, None, None, staff=True)
            return
        account = scan.scan.account if scan else None
        visit = self._open.of_account(account)
        if visit is None:
            visit = self._open.open(account, t_ns, seen_entering=gate_id is not None)
        visit.identity = min(visit.identity, walker.identity)
        self._assign(walker, visit)
        yield PersonEntered(t_ns, walker.track_id, gate_id, account, visit.id)
        if scan is not None:
            self._doubt_scan(walker, visit, scan, gate_id)
            visit.identity = min(visit.identity, probability)
            if probability < CLAIM_CERTAIN:
                visit.doubts.append(Reason(ReasonKind.SCAN_UNCERTAIN, gate=gate_id, probability=probability))
            self._recent.bind(scan, walker, visit, self._lines.away_m)
        if account is None:
            self._recent.came_in(t_ns, visit.id)
            for other in self._open:
                if walker.track_id in other.beside:
                    other.doubts.append(Reason(ReasonKind.UNSCANNED_BESIDE))
            for other in self._recent.may_have_scanned(walker, self._lines.away_m):
                other.doubts.append(Reason(ReasonKind.UNSCANNED_BESIDE))
                other.unidentified.append(visit.id)
            yield StoreWarning(t_ns, WarningKind.NO_CREDENTIAL, visit.id, gate=gate_id)

    def _doubt_scan(self, walker: Walker, visit: Visit, scan: OpenScan, gate_id: str | None) -> None:
        """Note on a visit why the scan of a member may have been another person's."""
        if scan.lost is not None and not reappears_as(walker, scan, self._walkers):
            visit.doubts.append(Reason(ReasonKind.SCANNED_PERSON_LOST, gate=gate_id))
        unowned = scan.track_id is None and not scan.repeated
        if scan.overtaken or (unowned and _unscanned_before(scan.scan, self._recent) is not None):
            visit.doubts.append(Reason(ReasonKind.SCANS_SHIFTED, gate=gate_id))
        visit.beside |= scan.beside
        beside = (w.visit for w in self._walkers.values() if w.track_id in scan.beside)
        if any(other is not None and other.account is None for other in beside):
            visit.doubts.append(Reason(ReasonKind.UNSCANNED_BESIDE))

    def _leave(self, walker: Walker, t_ns: int, gate: int) -> PersonLeft:
        walker.inside = False
        visit = walker.visit
        if visit is not None:
            visit.left(walker.track_id, t_ns)
        account, visit_id = (visit.account, visit.id) if visit else (None, None)
        return PersonLeft(t_ns, walker.track_id, self._lines.ids[gate], account, visit_id)

    # ---- groups ------------------------------------------------------------------------------------------------------

    def _assign(self, walker: Walker, visit: Visit | None) -> None:
        """A person belongs to a visit, or to the staff (None)."""
        walker.visit = visit
        self._open.assign(walker.track_id, visit)

    def _close(self, visit: Visit) -> None:
        self._open.close(visit)
        if visit.account is not None:
            self._recent.end(visit.account, visit.exit_ns or 0)

    # ---- people who were not seen coming in --------------------------------------------------------------------------

    def _found_inside(
        self, walker: Walker, now_ns: int, position: GatePosition | None, vouched: Callable[[int], bool]
    ) -> Iterator[Passed]:
        """A confirmed person who counts as outside; position is set where they are within reach of a gate."""
        known = walker.track_id in self._open.of_track
        if position is not None and walker.entries is not None and not known:
            past_a_line = any(position.distance_m[gate] > LINE_MARGIN_M for gate in walker.entries)
            if not past_a_line:
                return
        if known or walker.visit is not None:
            yield from self._came_back(walker, now_ns)
        elif len(self._lines) and (walker.lives or self._is_searching()):
            yield from self._appeared(walker, now_ns, vouched)

    def _is_searching(self) -> bool:
        """Whether a visit may be found for people who have not shown that they live: a scan, or a lost member."""
        return len(self._scans) > 0 or any(visit.lost for visit in self._open)

    def _appeared(self, walker: Walker, now_ns: int, vouched: Callable[[int], bool]) -> Iterator[Passed]:
        """A person inside who was seen at no gate: they came in unseen, or were lost under another track."""
        if not inside_polygon(self._store.floor, *walker.last_m):
            return
        lives = walker.check_life() or len(self._scans) > 0
        first, last = self._lines.position(walker.first_m), self._lines.position(walker.last_m)
        walker.entries = entries = self._lines.entries_behind(first)
        if last.in_reach:
            # Still at a gate: first seen just behind an entry's line, or they will cross one.
            gate = next((g for g in entries if last.distance_m[g] > LINE_MARGIN_M), None)
            if gate is not None and lives:
                yield from self._cross_in(walker, walker.first_ns, gate)
            return
        all_entries = [g for g in range(len(self._lines)) if self._lines.inward[g]]
        if all_entries and (entries or not inside_polygon(self._store.floor, *walker.first_m)):
            # Seen outside and now inside: the crossing itself was not seen.
            if lives:
                gate = min(entries or all_entries, key=lambda g: abs(first.distance_m[g]))
                yield from self._cross_in(walker, now_ns, gate)
            return
        own = self._scans.owned(walker, self._lines)
        if own is not None:
            yield from self._enter(walker, now_ns, own.gate, own)
            return
        young = now_ns - walker.first_ns < UNKNOWN_AGE_S * 1e9
        if not walker.moved_goods and (young or not vouched(walker.track_id)):
            return
        reachable = _lost_within_reach(walker, self._open)
        claim = self._claim(walker, reachable, now_ns)
        if claim is not None:
            yield from self._enter(walker, walker.first_ns, claim.scan.gate, claim.scan, claim.probability)
            return
        if len(reachable) == 1:
            yield self._found_again(walker, *reachable[0], now_ns)
            return
        if not walker.check_life():
            return
        for visit, _ in reachable:
            visit.doubts.append(Reason(ReasonKind.LOST_AMONG_OTHERS))
        yield from self._enter(walker, walker.first_ns, None, None)

    def _claim(self, walker: Walker, reachable: list[tuple[Visit, int]], now_ns: int) -> Claim | None:
        """The scan of a person who was first located inside, past every line; None where none is likely theirs."""
        if not len(self._scans):
            return None
        rivals = [w for w in self._walkers.values() if w is not walker and w.is_outside and w.visit is None]
        refound = 0.0
        for visit, track in reachable:
            lost_ns, _ = visit.lost[track]
            gap_s = (walker.first_ns - lost_ns) / 1e9
            radius_m = RELINK_SLACK_M + WALK_MAX_M_S * gap_s
            refound += math.exp(-gap_s / REFOUND_AFTER_S) / REFOUND_AFTER_S / (math.pi * radius_m**2)
        return self._scans.claim(walker, rivals, self._walkers, now_ns, self._lines.away_m, refound)

    def _found_again(self, walker: Walker, visit: Visit, track: int, now_ns: int) -> PersonEntered:
        """The only person missing is found where they can be; the doubt that remains lowers the visit's identity."""
        if _may_have_scanned(visit.lost.pop(track), self._open, self._walkers):
            visit.doubts.append(Reason(ReasonKind.LOST_AMONG_OTHERS))
        visit.identity = min(visit.identity, RELINKED_IDENTITY)
        walker.inside = True
        self._assign(walker, visit)
        return PersonEntered(now_ns, walker.track_id, None, visit.account, visit.id)

    def _came_back(self, walker: Walker, now_ns: int) -> Iterator[Passed]:
        """A person who was lost, or seemed to have left, under the same track as before."""
        track, visit = walker.track_id, self._open.of_track.get(walker.track_id)
        if visit is not None and track in visit.lost:
            del visit.lost[track]
        elif self._lines.position(walker.last_m).in_reach or not inside_polygon(self._store.floor, *walker.last_m):
            return
        elif visit is not None and visit.id not in self._open:
            # The bill was written when they seemed to have left, so it lacks whatever they take from now on.
            yield from self._enter(walker, now_ns, None, None)
            return
        walker.inside = True
        self._assign(walker, visit)

    # ---- scans that nothing came of ----------------------------------------------------------------------------------

    def _expire(self, now_ns: int, after_s: float = SCAN_VALID_S) -> Iterator[StoreWarning]:
        """Give up the scans that have waited for too long; each opens a visit in review unless its person turned back.

        Money may be held for that account, and who came in unseen shops on it.
        """
        for scan in self._scans.expire(now_ns, after_s):
            self.ignored["gate: scan without anybody coming in"] += 1
            account, since_ns = scan.scan.account, scan.scan.t_ns - round(SCAN_LATE_S * 1e9)
            # A scan that was repeated, or one for a companion who did not come.
            is_known = self._open.of_account(account) is not None or self._recent.ended_since(account, since_ns)
            if scan.scan.credential_type == "staff" or is_known:
                continue
            unidentified = self._recent.unidentified(since_ns, now_ns)
            if not unidentified and self._turned_back(scan):
                continue
            gate = self._lines.ids[scan.gate]
            visit = self._open.new(account, scan.scan.t_ns, seen_entering=False)
            visit.exit_ns = now_ns
            visit.doubts.append(Reason(ReasonKind.SCAN_UNBOUND, gate=gate))
            visit.unidentified += unidentified
            self._open.add(visit)
            yield StoreWarning(now_ns, WarningKind.SCAN_UNBOUND, gate, count=len(unidentified))
        self._recent.forget(now_ns)

    def _turned_back(self, scan: OpenScan) -> bool:
        """Whether cameras saw the person who scanned stay outside, or walk away from the gate."""
        owner = self._walkers.get(scan.track_id) if scan.track_id is not None else None
        if owner is not None and not self._lines.is_past(scan.gate, owner.last_m):
            return owner.is_outside
        if scan.lost is None:
            return False
        away_m = self._lines.away_m(scan.gate, scan.lost.place)
        return away_m > SCAN_REACH_M and not self._lines.is_past(scan.gate, scan.lost.place)

    # ---- people out of sight -----------------------------------------------------------------------------------------

    def _vanished(self, present: Collection[int], now_ns: int, after_s: float = VANISHED_S) -> Iterator[Passed]:
        """People unseen for after_s have left, are lost, or are forgotten; present: tracks of this instant."""
        last_ns = now_ns - round(after_s * 1e9)
        unseen = [(track, walker) for track, walker in self._walkers.items() if walker.seen_ns <= last_ns]
        for track, walker in unseen:
            if walker.inside:
                gate = self._lines.exit_near(walker.last_m, VANISHED_NEAR_M)
                if gate is not None:
                    yield self._leave(walker, walker.seen_ns, gate)
                elif track not in present:
                    walker.inside = False
                    if walker.visit is not None:
                        walker.visit.inside.discard(track)
                        walker.visit.lost.setdefault(track, walker.last_seen)
            if track not in present and (walker.visit is None or walker.visit.id not in self._open):
                del self._walkers[track]
                self._scans.lose(walker)
        for visit in self._open:
            for track, (lost_ns, _) in list(visit.lost.items()) if visit.lost else ():
                if now_ns - lost_ns > LOST_S * 1e9:
                    yield from self._give_up(visit, track, now_ns)

    def _doubt_blind_span(self, now_ns: int) -> None:
        """Doubt the visits whose people were inside while all cameras were silent, up to now."""
        if self._seen_ns is None or now_ns - self._seen_ns <= BLIND_MAX_S * 1e9:
            return
        reason = Reason(ReasonKind.CAMERAS_SILENT, seconds=(now_ns - self._seen_ns) / 1e9)
        for visit in self._open:
            if visit.is_followed and (visit.exit_ns is None or visit.exit_ns >= self._seen_ns - VANISHED_S * 1e9):
                visit.doubts.append(reason)

    def _give_up(self, visit: Visit, track: int, now_ns: int) -> Iterator[StoreWarning]:
        """A lost person will not be found again."""
        visit.left(track, visit.lost[track].seen_ns)
        visit.doubts.append(Reason(ReasonKind.LOST_INSIDE))
        yield StoreWarning(now_ns, WarningKind.PERSON_LOST, visit.id)


def _lost_within_reach(walker: Walker, visits: Iterable[Visit]) -> list[tuple[Visit, int]]:
    """Visits and tracks of lost people who could have walked to where a track appeared."""
    return [
        (visit, track) for visit in visits for track, last_seen in visit.lost.items() if _may_be(last_seen, walker)
    ]


def _may_be(lost: LastSeen, walker: Walker) -> bool:
    """Whether a person who was lost could have walked to where a track appeared."""
    lost_ns, place = lost
    gap_s = (walker.first_ns - lost_ns) / 1e9
    return gap_s >= 0 and math.dist(place, walker.first_m) < RELINK_SLACK_M + WALK_MAX_M_S * gap_s


def _may_have_scanned(lost: LastSeen, visits: Iterable[Visit], walkers: Mapping[int, Walker]) -> bool:
    """Whether a lost person may be one whose scan is uncertain; then who seems to be them may have made that scan."""
    uncertain = [v for v in visits if any(doubt.kind is ReasonKind.SCAN_UNCERTAIN for doubt in v.doubts)]
    members = (walkers.get(track) for visit in uncertain for track in visit.members)
    return any(walker is not None and _may_be(lost, walker) for walker in members)


def _doubt_shifted(scan: GateScan, recent: Recent, visits: Iterable[Visit]) -> None:
    """Doubt who came in since a person without a scan, when there is a scan without a person at the gate.

    Where a gate's clock is late, each person has the scan of the one before, and the last scan has no person.
    """
    first_ns = _unscanned_before(scan, recent)
    if first_ns is None:
        return
    for visit in visits:
        if visit.account is not None and visit.enter_ns is not None and visit.enter_ns >= first_ns:
            visit.doubts.append(Reason(ReasonKind.SCANS_SHIFTED, gate=scan.gate))


def _unscanned_before(scan: GateScan, recent: Recent) -> int | None:
    """When the first person without a scan came in, in the time before a scan for which it could be theirs."""
    since_ns = scan.t_ns - round(SCAN_VALID_S * 1e9)
    return recent.first_unidentified_ns(since_ns, scan.t_ns)


def _is_account(scan: GateScan) -> bool:
    """Whether a scan names an account that the books can hold; staff and open doors have none."""
    account: object = scan.account
    if scan.credential_type in ("staff", "open"):
        return True
    return isinstance(account, str) and 1 <= len(account) <= NAME_MAX and cut_text(account, NAME_MAX) == account
