"""The order of observations for an engine that does not wait for the odd late message."""

from __future__ import annotations

from fusion.observations import Frame, Observation, ShelfReading
from fusion.order import ClocksSetBack, Reorder

# How long an observation may wait for older ones. The shortest covers cameras and plates that are in step but for a
# network's jitter; the longest still leaves time for a receipt within about a second of the exit.
HOLDS_NS = (100_000_000, 200_000_000, 400_000_000, 800_000_000)
# The shortest of these is used with which at most this share of frames, and of readings, comes too late: one camera of
# a dozen that is always late is waited for, and the odd late message is not.
TOO_LATE_MAX = 1 / 16
# Lateness is judged by this many messages and as many before them: some seconds of a store.
JUDGED_N = 1000


class Lateness:
    """How late messages usually are, behind the second newest sensor.

    Attributes:
        hold_ns: how long an observation waits for older ones at present.
        missed_ns: data time when one came too late for that last; 0 before the first.
    """

    def __init__(self) -> None:
        self.hold_ns, self.missed_ns = HOLDS_NS[0], 0
        # By kind: how many messages came, and how many of them were later than each hold.
        self._late, self._late_before = _no_counts(), _no_counts()
        self._n_judged = 0

    def judge(self, observation: Observation, late_ns: int) -> None:
        """Count a message."""
        counts = self._late.get(type(observation))
        if counts is None:
            return
        counts[0] += 1
        for i, hold_ns in enumerate(HOLDS_NS, 1):
            if late_ns <= hold_ns:
                break
            counts[i] += 1
        self._n_judged += 1
        if self._n_judged % JUDGED_N == 0:
            enough = [hold_ns for i, hold_ns in enumerate(HOLDS_NS, 1) if self._is_enough(i)]
            self.hold_ns = min(enough, default=HOLDS_NS[-1])
            self._late_before, self._late = self._late, _no_counts()

    def _is_enough(self, hold: int) -> bool:
        recent = ([a + b for a, b in zip(self._late[kind], self._late_before[kind])] for kind in self._late)
        return all(counts[hold] <= TOO_LATE_MAX * counts[0] for counts in recent)


def _no_counts() -> dict[type[Observation], list[int]]:
    return {Frame: [0] * (1 + len(HOLDS_NS)), ShelfReading: [0] * (1 + len(HOLDS_NS))}


class ShortOrder(Reorder):
    """Releases an observation as soon as most sensors have come past it; later ones are missed, and counted.

    Which times are believed is judged as by the order that it continues.

    Attributes:
        n_missed: observations that came after younger ones had been released, which the other order still uses.
        lateness: how late messages usually are.
    """

    n_missed: int
    lateness: Lateness

    @classmethod
    def of(cls, order: Reorder, lateness: Lateness) -> ShortOrder:
        """Continue an order, which must not be used any more."""
        short = cls.__new__(cls)
        vars(short).update(vars(order))
        short.n_missed, short.lateness = 0, lateness
        return short

    def push(self, observation: Observation) -> None:
        """Accept an observation, in any order."""
        if self.newest_ns is not None:
            t_ns = observation.t_ns
            late_ns = self._frontier_ns - t_ns
            if late_ns <= self.lateness_ns:
                self.lateness.judge(observation, late_ns)
                if t_ns < self._released_ns:
                    self._miss(observation)
                    return
        super().push(observation)

    def _miss(self, observation: Observation) -> None:
        self.n_missed += 1
        self.lateness.missed_ns = self._frontier_ns
        clock = self.clocks.of(observation)
        if clock is not None:
            clock.last_ns = max(clock.last_ns, observation.t_ns)

    def ready(self) -> list[Observation | ClocksSetBack]:
        """The observations that few older ones can precede, oldest first."""
        return [] if self.newest_ns is None else self._release(self._frontier_ns - self.lateness.hold_ns)

    def lags(self, t_ns: int, heard_ns: int) -> bool:
        """Whether a camera or plate that was heard after `heard_ns` has sent nothing of t_ns or later."""
        return any(heard_ns < clock.last_ns < t_ns for clock in self.clocks)
