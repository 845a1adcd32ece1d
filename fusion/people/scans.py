"""Scans that no person has come in with yet, and which person may have made each of them.

A scan belongs to the person who stood at the gate and then crosses its line. Where cameras first locate a person past
the door, the scan is found by an assignment over the open scans and the newcomers: a pair has a density that falls with
the distance from the gate and with the time since the scan, and competes with newcomers who scanned nothing and with
owners that no camera has located yet.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.observations import GateScan
from fusion.people.gate_lines import GateLines, Place
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
# Cameras locate a person who scanned after this time (mean of an exponential distribution) and at this distance from
# the gate's line (standard deviation, half of a normal distribution in the plane), where they do not see the door.
LOCATED_AFTER_S, LOCATED_WITHIN_M = 5.0, 1.5
# They are then no farther away than a brisk walk takes them from where a person scans.
WALK_MAX_M_S = 2.0
# Newcomers without a scan whose entry no camera saw: one in ten minutes in a shop of 16 m2, per second and m2.
UNSCANNED_PER_S_M2 = 1e-4
# Share of owners who are never located: they turn back where no camera looks.
NEVER_LOCATED = 0.05
# A newcomer takes a scan that is theirs with at least this probability; below CERTAIN the visit is doubted.
CLAIM_MIN, CLAIM_CERTAIN = 0.4, 0.95
# Newcomers and scans that compete, nearest in time first: an assignment of these takes less than a millisecond.
COMPETING_MAX = 5

# Open scans of one gate: for SCAN_VALID_S a gate that admits a person each second, and once more as many.
AT_GATE_MAX = 64

# Distance from a place to the line of a gate.
AwayFrom = Callable[[int, Place], float]


@dataclass
class OpenScan:
    """A scan that no person has come in with yet.

    Attributes:
        scan, gate: the scan, and the index of its gate.
        track_id: the track that stood nearest to the gate when it was scanned; None where none was seen there.
        beside: other tracks that stood there and may have scanned as well.
        away: tracks seen too far away to have scanned.
        lost: the nearest track's last sight, once it is out of sight without having come in.
        repeated: the account has another open scan.
        overtaken: a person came in with another scan while the older of the two had no owner, so they may be exchanged.
    """

    scan: GateScan
    gate: int
    track_id: int | None
    beside: frozenset[int]
    away: frozenset[int]
    lost: LastSeen | None = None
    repeated: bool = False
    overtaken: bool = False


class Claim(NamedTuple):
    """A scan that a newcomer has, and the probability that it is theirs."""

    scan: OpenScan
    probability: float


class OpenScans:
    """Open scans in time order. `walkers` in the calls are all current ones, by track."""

    def __init__(self) -> None:
        self._scans: deque[OpenScan] = deque()

    def __len__(self) -> int:
        return len(self._scans)

    def add(self, scan: GateScan, gate: int, centre_m: Place, walkers: Mapping[int, Walker]) -> OpenScan | None:
        """Keep a scan with the people who may have made it: those at the gate who are outside and have not scanned.

        Returns None where more scans of the gate are open than people can come in by; the scan is not kept.
        """
        if sum(other.gate == gate for other in self._scans) >= AT_GATE_MAX:
            return None
        claimed = {other.track_id for other in self._scans}
        outside = [
            (math.dist(walker.last_m, centre_m), walker.track_id) for walker in walkers.values() if walker.is_outside
        ]
        at_gate = [track for away_m, track in sorted(outside) if away_m < SCAN_REACH_M]
        free = [track for track in at_gate if track not in claimed]
        nearest = free[0] if free else None
        away = frozenset(track for away_m, track in outside if away_m > SCAN_AWAY_M)
        repeated = any(other.scan.account == scan.account for other in self._scans)
        open_scan = OpenScan(scan, gate, nearest, frozenset(at_gate) - {nearest}, away, repeated=repeated)
        self._scans.append(open_scan)
        return open_scan

    def take(self, walker: Walker, gate: int, crossed_ns: int, walkers: Mapping[int, Walker]) -> OpenScan | None:
        """Remove and return a person's scan: made while they stood at the gate, else the oldest unowned one.

        A scan of a person who still stands outside is not given to another, nor to one who was elsewhere at the time.
        """
        at_gate = [s for s in self._scans if s.gate == gate and s.scan.t_ns <= crossed_ns + SCAN_LATE_S * 1e9]
        own = [s for s in at_gate if s.track_id == walker.track_id or reappears_as(walker, s, walkers)]
        unowned = [s for s in at_gate if s.track_id is None or s.track_id not in walkers]
        for open_scan in own or [s for s in unowned if walker.track_id not in s.away]:
            self._scans.remove(open_scan)
            for older in unowned if own else ():
                # Cameras saw no person at the gate for a scan, and then one who is early for theirs.
                if older.track_id is None and not older.repeated and older.scan.t_ns < open_scan.scan.t_ns:
                    older.overtaken = open_scan.overtaken = True
            return open_scan
        return None

    def owned(self, walker: Walker, lines: GateLines) -> OpenScan | None:
        """Remove and return the scan of a person who stood at its gate and is past its line; None where they have none.

        They passed beside the line: it is drawn narrower than the door.
        """
        for open_scan in self._scans:
            if open_scan.track_id == walker.track_id and lines.is_past(open_scan.gate, walker.last_m):
                self._scans.remove(open_scan)
                return open_scan
        return None

    def claim(
        self, walker: Walker, rivals: Sequence[Walker], walkers: Mapping[int, Walker], now_ns: int, away_m: AwayFrom,
        other_per_s_m2: float = 0.0,
    ) -> Claim | None:  # fmt: skip
        """Remove and return the scan of a newcomer who was first located inside, past every line.

        Args:
            walker: the newcomer.
            rivals: other newcomers who may have made the same scans.
            walkers: all current ones, by track.
            now_ns: the instant.
            away_m: distance from a place to a gate's line, metres.
            other_per_s_m2: density of other explanations of this newcomer, such as a lost person who is found again.
        """
        mine = [(pair_density(s, walker, away_m), s) for s in self._scans if _is_free(s, walker, walkers)]
        possible = sorted((pair for pair in mine if pair[0] > 0.0), key=lambda pair: -pair[0])[:COMPETING_MAX]
        if not possible:
            return None
        scans = [open_scan for _, open_scan in possible]
        rows = [[density for density, _ in possible]]
        for rival in rivals:
            row = [pair_density(open_scan, rival, away_m) for open_scan in scans]
            if any(row) and len(rows) < COMPETING_MAX:
                rows.append(row)
        unseen = [NEVER_LOCATED + math.exp(-max(now_ns - s.scan.t_ns, 0) / 1e9 / LOCATED_AFTER_S) for s in scans]
        unscanned = np.full(len(rows), UNSCANNED_PER_S_M2)
        unscanned[0] += other_per_s_m2
        probability = pairings(np.array(rows), unscanned, np.array(unseen))[0]
        best = int(probability.argmax())
        if probability[best] < CLAIM_MIN:
            return None
        taken = scans[best]
        self._scans.remove(taken)
        owner = walkers.get(taken.track_id) if taken.track_id is not None else None
        if owner is not None:
            taken.lost = owner.last_seen
        return Claim(taken, float(probability[best]))

    def lose(self, walker: Walker) -> None:
        """Remember where a scan's owner was last seen before their track ended."""
        for open_scan in self._scans:
            if open_scan.track_id == walker.track_id:
                open_scan.lost = walker.last_seen

    def expire(self, now_ns: int, after_s: float = SCAN_VALID_S) -> list[OpenScan]:
        """Remove and return the scans that are no longer valid."""
        expired = []
        while self._scans and now_ns - self._scans[0].scan.t_ns > after_s * 1e9:
            expired.append(self._scans.popleft())
        return expired


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


def _is_free(open_scan: OpenScan, walker: Walker, walkers: Mapping[int, Walker]) -> bool:
    """Whether a scan has no owner, or one who was lost from sight before a newcomer was located."""
    owner = walkers.get(open_scan.track_id) if open_scan.track_id is not None else None
    return owner is None or (owner.is_outside and owner.seen_ns < walker.first_ns)


def pair_density(open_scan: OpenScan, walker: Walker, away_m: AwayFrom) -> float:
    """Density, per second and square metre, of first locating a scan's owner when and where a newcomer was located.

    With t seconds from the scan and d metres from the gate's line, exp(-t / T) / T * exp(-d^2 / 2 s^2) / (pi s^2),
    where T is LOCATED_AFTER_S and s LOCATED_WITHIN_M; 0 where they cannot have walked there, or were elsewhere.
    """
    after_s = (walker.first_ns - open_scan.scan.t_ns) / 1e9
    if after_s < -SCAN_LATE_S or walker.track_id in open_scan.away:
        return 0.0
    after_s = max(after_s, 0.0)
    distance_m = away_m(open_scan.gate, walker.first_m)
    if distance_m > SCAN_REACH_M + WALK_MAX_M_S * after_s:
        return 0.0
    in_time = math.exp(-after_s / LOCATED_AFTER_S) / LOCATED_AFTER_S
    var_m2 = LOCATED_WITHIN_M**2
    return in_time * math.exp(-(distance_m**2) / (2.0 * var_m2)) / (math.pi * var_m2)


def pairings(
    density: NDArray[np.float64], unscanned: NDArray[np.float64], unseen: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Probability that each newcomer made each scan, over all assignments of newcomers to scans.

    An assignment weighs the product of its pairs' densities, of `unscanned` for every newcomer without a scan, and of
    `unseen` for every scan without a newcomer.

    Args:
        density: (n_newcomers, n_scans) of the pairs.
        unscanned: (n_newcomers,) density of newcomers who made no scan.
        unseen: (n_scans,) probability that a scan's owner has not been located yet.

    Returns:
        (n_newcomers, n_scans); the rows and columns sum to at most 1.
    """
    n_newcomers, n_scans = density.shape
    total, joint = 0.0, np.zeros((n_newcomers, n_scans))
    chosen: list[int] = []

    def extend(weight: float) -> None:
        """Weigh every assignment that begins with the scans chosen so far; -1 stands for none."""
        nonlocal total
        newcomer = len(chosen)
        if newcomer == n_newcomers:
            weight *= float(np.prod([unseen[scan] for scan in range(n_scans) if scan not in chosen]))
            total += weight
            for row, scan in enumerate(chosen):
                if scan >= 0:
                    joint[row, scan] += weight
            return
        for scan in range(-1, n_scans):
            factor = unscanned[newcomer] if scan < 0 else density[newcomer, scan]
            if factor > 0.0 and (scan < 0 or scan not in chosen):
                chosen.append(scan)
                extend(weight * float(factor))
                chosen.pop()

    extend(1.0)
    return joint / total if total > 0.0 else joint
