"""Observations of all sensors in time order, whatever order they arrive in."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from typing import NamedTuple

from fusion.observations import Frame, GateScan, ItemSighting, Observation, ShelfReading

# Observations that prove a clock. A store in use sends hundreds a second. Eight in a row that are all wrong, without a
# right one among them, do not come from a faulty clock, and after a silent night they arrive in a fraction of a second.
_WITNESSES = 8
# Bounds the run of a single fast sensor.
_RUN_MAX = 1024
# Frames of different cameras make one set while they lie within this span; the contract asks for an output each 100 ms.
SET_SPAN_NS = 100_000_000
_STREAM_NAMES = {Frame: "detections", ShelfReading: "weights", GateScan: "gate", ItemSighting: "items"}
# Simultaneous observations come out in this order of kinds.
_GATE_RANK, _FRAME_RANK, _READING_RANK, _ITEM_RANK = range(4)


class _Held(NamedTuple):
    """An observation that waits for its turn; tuples compare in the order of release."""

    t_ns: int
    rank: int
    sensor: str
    arrival: int
    observation: Observation


class Reorder:
    """Brings observations of all sensors into order of time.

    An observation is held until no older one can arrive: a message may come up to `lateness_max_s` after its time.
    Observations that come later, that repeat an earlier one or that lie impossibly far ahead are counted and dropped.
    Ties are broken by the sensor's name, so the output does not depend on the order of arrival.

    A time more than `jump_max_s` ahead comes from a faulty clock, unless time really passed while no sensor sent. In
    the second case everything that arrives is ahead. An unbroken run of such observations is therefore believed once it
    has as many witnesses as the last `jump_max_s` before it, at most eight. The run of a single sensor must also span
    the time by which the other sensors may be late. The very first observations are judged in the same way before any
    of them is released: two sensors that agree start the clock.

    Attributes:
        lateness_ns, jump_ns: the limits above.
        newest_ns: newest time that was believed; None before the first.
        ignored: dropped observations by reason.
    """

    def __init__(self, lateness_max_s: float, jump_max_s: float = 2.0) -> None:
        self.lateness_ns = round(lateness_max_s * 1e9)
        self.jump_ns = round(jump_max_s * 1e9)
        self.newest_ns: int | None = None
        self.ignored: Counter[str] = Counter()
        self._heap: list[_Held] = []
        self._n_arrived = 0
        # Everything before this instant has been released.
        self._released_ns = 0
        self._last_key: tuple[int, int, str] | None = None
        # Times of the last observations that were accepted: the witnesses of the present clock.
        self._witnesses: deque[int] = deque(maxlen=_WITNESSES)
        # The unbroken run of observations from far ahead; at the start, the first observations.
        self._run: list[Observation] = []
        self._n_dropped = 0

    def __len__(self) -> int:
        """Observations that are held."""
        return len(self._heap) + len(self._run)

    @property
    def n_doubted(self) -> int:
        """Observations that lie far ahead of the others and are not believed yet."""
        return len(self._run)

    def push(self, observation: Observation) -> None:
        """Accept an observation, in any order."""
        t_ns = observation.t_ns
        newest = self.newest_ns
        if newest is None or t_ns > newest + self.jump_ns:
            self._run.append(observation)
            while self._run and self._run_believed(ended=False):
                self._believe_run()
            return
        if t_ns < self._released_ns:
            self.ignored[f"{_STREAM_NAMES[type(observation)]}: more than {self.lateness_ns / 1e9:g} s late"] += 1
            return
        self._hold(observation)
        if self._run:
            self._end_run()

    def ready(self) -> list[Observation]:
        """The observations that no older one can precede any more, oldest first."""
        return self._release(self.newest_ns - self.lateness_ns) if self.newest_ns is not None else []

    def flush(self) -> list[Observation]:
        """Release everything that is held, oldest first, at the end of the streams."""
        while self._run and self._run_believed(ended=True):
            self._believe_run()
        self._end_run()
        return self._release(self.newest_ns + 1) if self.newest_ns is not None else []

    def _hold(self, observation: Observation) -> None:
        rank, sensor = _identity(observation)
        self._n_arrived += 1
        heapq.heappush(self._heap, _Held(observation.t_ns, rank, sensor, self._n_arrived, observation))
        self._witnesses.append(observation.t_ns)
        if self.newest_ns is None or observation.t_ns > self.newest_ns:
            self.newest_ns = observation.t_ns

    def _run_believed(self, ended: bool) -> bool:
        run = self._run
        if self.newest_ns is None:
            wanted = _WITNESSES
            # Two sensors that agree are enough to start with. One alone is not: it may be the faulty one.
            if self._agreeing_ns() is not None:
                return True
        else:
            wanted = sum(t_ns > self.newest_ns - self.jump_ns for t_ns in self._witnesses)
        if ended and not self._n_dropped:
            return True  # Every clock was right so far, and no later observation can contradict this one.
        if ended or len(run) >= _RUN_MAX:
            return self.newest_ns is None or len(run) >= wanted
        if len(run) < max(wanted, 1):
            return False
        # The other sensors may be silent only because their messages are late.
        span_ns = max(observation.t_ns for observation in run) - min(observation.t_ns for observation in run)
        single_sensor = len({_identity(observation) for observation in run}) == 1
        return wanted <= 1 or not single_sensor or span_ns >= max(self.lateness_ns, 10**9)

    def _agreeing_ns(self) -> int | None:
        """The latest time on which the last observation of the run and another sensor agree; None where none does."""
        *earlier, last = self._run
        sensor = _identity(last)
        times = [o.t_ns for o in earlier if _identity(o) != sensor and abs(o.t_ns - last.t_ns) <= self.jump_ns]
        return max(*times, last.t_ns) if times else None

    def _believe_run(self) -> None:
        """Continue from the run. Where its times differ widely, the median decides."""
        pivot_ns = self._agreeing_ns() if self.newest_ns is None else None
        if pivot_ns is None:
            pivot_ns = sorted(observation.t_ns for observation in self._run)[len(self._run) // 2]
        run, self._run = self._run, []
        for observation in run:
            if observation.t_ns <= pivot_ns + self.jump_ns:
                self._hold(observation)
            else:
                self._run.append(observation)

    def _end_run(self) -> None:
        """Other sensors continue with the old time, so whatever is far ahead even of them was wrong."""
        run, self._run = sorted(self._run, key=lambda observation: observation.t_ns), []
        for observation in run:
            if self.newest_ns is not None and observation.t_ns <= self.newest_ns + self.jump_ns:
                self._hold(observation)
            else:
                self._n_dropped += 1
                self.ignored[f"{_STREAM_NAMES[type(observation)]}: time far ahead of every other sensor"] += 1

    def _release(self, until_ns: int) -> list[Observation]:
        heap = self._heap
        released: list[Observation] = []
        while heap and heap[0].t_ns < until_ns:
            t_ns, rank, sensor, _, observation = heapq.heappop(heap)
            key = (t_ns, rank, sensor)
            if key == self._last_key and rank != _ITEM_RANK:
                self.ignored[f"{_STREAM_NAMES[type(observation)]}: repeated"] += 1
                continue
            self._last_key = key
            released.append(observation)
        self._released_ns = max(self._released_ns, until_ns)
        return released


def _identity(observation: Observation) -> tuple[int, str]:
    """Rank of the kind among simultaneous observations, and the sensor that made it."""
    # Nearly all are of the first two kinds, and testing for the types in this order is fastest.
    if isinstance(observation, ShelfReading):
        return _READING_RANK, observation.plate
    if isinstance(observation, Frame):
        return _FRAME_RANK, observation.camera
    match observation:
        case GateScan():
            return _GATE_RANK, f"{observation.gate}\0{observation.account}"
        case ItemSighting(source=source, kind=kind, gtin=gtin, quantity=quantity):
            # An antenna reads many items at one instant, so the item is part of the identity.
            place = f"{observation.zone}\0{observation.plate}\0{observation.probability}"
            return _ITEM_RANK, f"{source}\0{kind}\0{gtin}\0{quantity}\0{place}"
