"""Scans that no person has come in with yet, and which person may have made each of them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from fusion.observations import GateScan
from fusion.people.gate_lines import Place
from fusion.people.walkers import LastSeen, Walker

# A scan is valid for a person who crosses this much later, or a moment earlier (clocks of gates and cameras differ).
SCAN_VALID_S = 30.0
SCAN_LATE_S = 0.5
# A person who scans stands within an arm's length and a step of the gate's middle; one farther than SCAN_AWAY_M away
# does not.
SCAN_REACH_M = 1.2
SCAN_AWAY_M = 2.0
# A person who scanned and was lost from sight at the gate is found again within this time, where cameras missed them
# for a moment, and within this distance.
REAPPEARS_S = 1.0
REAPPEARS_M = 0.8


@dataclass
class OpenScan:
    """A scan that no person has come in with yet.

    Attributes:
        scan, gate: the scan, and the index of its gate.
        track_id: the track that stood nearest to the gate when it was scanned; None where none was seen there.
        beside: other tracks that stood there and may have scanned as well.
        away: tracks seen too far away to have scanned.
        lost: the nearest track's last sight, once it is out of sight without having come in.
    """

    scan: GateScan
    gate: int
    track_id: int | None
    beside: frozenset[int]
    away: frozenset[int]
    lost: LastSeen | None = None


class OpenScans:
    """Open scans in time order. `walkers` in the calls are all current ones, by track."""

    def __init__(self) -> None:
        self._scans: deque[OpenScan] = deque()

    def __len__(self) -> int:
        return len(self._scans)

    def add(self, scan: GateScan, gate: int, centre_m: Place, walkers: Mapping[int, Walker]) -> None:
        """Keep a scan with the people who may have made it: those at the gate who are outside and have not scanned."""
        claimed = {open_scan.track_id for open_scan in self._scans}
        outside = [
            (math.dist(walker.last_m, centre_m), walker.track_id) for walker in walkers.values() if walker.is_outside
        ]
        at_gate = [track for away_m, track in sorted(outside) if away_m < SCAN_REACH_M]
        free = [track for track in at_gate if track not in claimed]
        nearest = free[0] if free else None
        away = frozenset(track for away_m, track in outside if away_m > SCAN_AWAY_M)
        self._scans.append(OpenScan(scan, gate, nearest, frozenset(at_gate) - {nearest}, away))

    def take(self, walker: Walker, gate: int, crossed_ns: int, walkers: Mapping[int, Walker]) -> OpenScan | None:
        """Remove and return a person's scan: made while they stood at the gate, else the oldest unowned one.

        A scan of a person who still stands outside is not given to another, nor to one who was elsewhere at the time.
        """
        at_gate = [s for s in self._scans if s.gate == gate and s.scan.t_ns <= crossed_ns + SCAN_LATE_S * 1e9]
        own = [s for s in at_gate if s.track_id == walker.track_id or reappears_as(walker, s, walkers)]
        unowned = [s for s in at_gate if s.track_id is None or s.track_id not in walkers]
        for open_scan in own or [s for s in unowned if walker.track_id not in s.away]:
            self._scans.remove(open_scan)
            return open_scan
        return None

    def lose(self, walker: Walker) -> None:
        """Remember where a scan's owner was last seen before their track ended."""
        for open_scan in self._scans:
            if open_scan.track_id == walker.track_id:
                open_scan.lost = walker.last_seen

    def expire(self, now_ns: int) -> int:
        """Drop the scans that are no longer valid; returns how many."""
        count = 0
        while self._scans and now_ns - self._scans[0].scan.t_ns > SCAN_VALID_S * 1e9:
            self._scans.popleft()
            count += 1
        return count


def reappears_as(walker: Walker, open_scan: OpenScan, walkers: Mapping[int, Walker]) -> bool:
    """Whether a person is the owner of a scan, lost from sight for a moment and found under another track."""
    lost = open_scan.lost
    owner = walkers.get(open_scan.track_id) if open_scan.track_id is not None else None
    if owner is not None and owner.is_outside:
        lost = owner.last_seen
    if lost is None:
        return False
    gap_s = (walker.first_ns - lost.seen_ns) / 1e9
    return 0.0 < gap_s < REAPPEARS_S and math.dist(lost.place, walker.first_m) < REAPPEARS_M
