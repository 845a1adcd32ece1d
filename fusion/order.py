"""Observations of all sensors in time order, whatever order they arrive in."""

from __future__ import annotations

import bisect
import itertools
import operator
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fusion.arrival.sensor_clocks import DISTRUST_NS, STEADY_NS, STRAYS_MIN, Agreement, SensorClock, SensorClocks
from fusion.observations import DoorState, Frame, GateScan, ItemSighting, Observation, ShelfReading
from fusion.results import Warning

# Observations of a single sensor that prove its clock when the streams begin. Where the last jump before a silence has
# no more than one witness, as among rare scans, a single observation ends the silence.
_WITNESSES = 8
# A camera or plate sends at least this often.
_PERIOD_NS = 1_000_000_000
# Bounds what is held until it turns out which time is right: some seconds of the largest store.
_RUN_MAX = 16_384
# Frames of different cameras make one set while they lie within this span; the contract asks for an output each 100 ms.
SET_SPAN_NS = 100_000_000
_STREAM_NAMES = {
    Frame: "detections", ShelfReading: "weights", GateScan: "gate", DoorState: "gate", ItemSighting: "items"
}  # fmt: skip
# Simultaneous observations come out in this order of kinds.
_GATE_RANK, _FRAME_RANK, _READING_RANK, _ITEM_RANK = range(4)


# An observation that waits for its turn: its time, the rank of its kind, its sensor, the number of its arrival, itself.
# Tuples compare in the order of release; a class of tuples would take four times as long to make.
_Held = tuple[int, int, str, int, Observation]
_GONE: Any = ()
_turn_of = operator.itemgetter(0, 1, 2, 3)


@dataclass(frozen=True, slots=True)
class ClocksSetBack:
    """Stands among the released observations where time goes back: from here on all clocks show an earlier time.

    Attributes:
        t_ns: time of the first observation that follows.
    """

    t_ns: int


class _Waiting:
    """Observations that wait for their turn, in order of release.

    Nearly all come last or nearly last, so that a sorted list takes one in a comparison, and gives up the oldest
    without any; a heap would compare each a dozen times on its way out.
    """

    def __init__(self) -> None:
        # The first n_gone places are of those that were released; they are removed together.
        self._held: list[_Held] = []
        self._n_gone = 0

    def __len__(self) -> int:
        return len(self._held) - self._n_gone

    def __iter__(self) -> Iterator[_Held]:
        return itertools.islice(self._held, self._n_gone, None)

    def add(self, held: _Held) -> None:
        """Take one in its place."""
        # Observations themselves have no order: equal ones that are held at one arrival stay as they came.
        if self._held and held[:4] < self._held[-1][:4]:
            bisect.insort(self._held, held, self._n_gone, key=_turn_of)
        else:
            self._held.append(held)

    def before(self, until_ns: int) -> list[_Held]:
        """Remove and return those of before an instant."""
        held, first = self._held, self._n_gone
        if first == len(held) or held[first][0] >= until_ns:
            return []
        # Mostly one or two.
        last = first + 1
        while last < len(held) and held[last][0] < until_ns:
            last += 1
        found = held[first:last]
        if 2 * last > len(held):
            del held[:last]
            self._n_gone = 0
        else:
            held[first:last] = [_GONE] * (last - first)
            self._n_gone = last
        return found

    def holds(self, t_ns: int, rank: int, sensor: str) -> bool:
        """Whether an observation of this time and sensor waits."""
        at = bisect.bisect_left(self._held, (t_ns, rank, sensor), self._n_gone)
        return at < len(self._held) and self._held[at][:3] == (t_ns, rank, sensor)


class Reorder:
    """Brings observations of all sensors into order of time.

    An observation is held until no older one can arrive: a message may come up to `lateness_max_s` after its time.
    Observations that come later, that repeat an earlier one or that lie impossibly far ahead are counted and dropped.
    Ties are broken by the sensor's name, so the output does not depend on the order of arrival.

    No sensor moves time alone. Time is as far as the second newest of all sensors; a lone one moves it once the others
    have had no message for as long as a message may take. A message that lies further ahead than that allows waits in
    an unbroken run of such messages, together with messages that come too late. A message that is in time ends the
    run, and what it contradicts is dropped. Where instead nearly all sensors turn out to agree on another
    time (`SensorClocks`), it is believed: time passed while no sensor sent, or all clocks were set. Where they
    were set back, `ClocksSetBack` is released before the first observation of the new time.

    The very first observations are judged before any of them is released: two sensors that agree start the clock.

    Attributes:
        lateness_ns, jump_ns: how late a message may come; how much a time may lie ahead beyond that.
        newest_ns: newest time that was believed; None before the first.
        ignored: dropped observations by reason.
        clocks: of the sensors.
    """

    def __init__(
        self, lateness_max_s: float, jump_max_s: float = 2.0, sensors: Iterable[str] | None = None
    ) -> None:
        """Start without a time. sensors: names of those that decide about the time; None for all cameras and plates."""
        self.lateness_ns = round(lateness_max_s * 1e9)
        self.jump_ns = round(jump_max_s * 1e9)
        self.newest_ns: int | None = None
        self.ignored: Counter[str] = Counter()
        self.clocks = SensorClocks(self.lateness_ns, sensors)
        self._waiting = _Waiting()
        self._n_arrived = 0
        self._camera_clocks, self._plate_clocks = self.clocks.cameras, self.clocks.plates
        # No older observation can come than `lateness` before this; later than `_limit_ns` is too far ahead. The second
        # newest sensor may be as late as a message may come, and the newest is in time nevertheless.
        self._frontier_ns = self._limit_ns = 0
        self._reach_ns = max(self.lateness_ns + _PERIOD_NS, self.jump_ns)
        # The sensor with the newest time; that time when a message of another sensor last was in time, and how many it
        # has sent since.
        self._leader: SensorClock | None = None
        self._lead_ns = self._alone_since_ns = self._n_alone = 0
        # Everything before this instant has been released.
        self._released_ns = 0
        self._last_key: tuple[int, int, str] | None = None
        # What was held when time went back, in order, and what stands at that place.
        self._turned: list[Observation | ClocksSetBack] = []
        # Times of the last observations that were accepted: the witnesses of the present clock.
        self._witnesses: deque[int] = deque(maxlen=_WITNESSES)
        # The unbroken run of observations that are not in time; at the start, the first observations.
        self._run: list[Observation] = []
        self._n_dropped = 0

    def __len__(self) -> int:
        """Observations that are held."""
        return len(self._waiting) + len(self._run) + len(self._turned)

    @property
    def n_doubted(self) -> int:
        """Observations that lie far from the others in time and are not believed yet."""
        return len(self._run)

    def push(self, observation: Observation) -> None:
        """Accept an observation, in any order."""
        self._n_arrived += 1
        t_ns = observation.t_ns
        if isinstance(observation, ShelfReading):
            clock = self._plate_clocks.get(observation.plate)
        else:
            clock = self._camera_clocks.get(observation.camera) if isinstance(observation, Frame) else None
        if clock is not None:
            has_stepped = (t_ns < clock.last_ns or clock.step) and self._steps(clock, observation)
            clock.last_ns, clock.last = t_ns, self._n_arrived
            if has_stepped and self._step_back(observation):
                return
        if self.newest_ns is None:
            self._run.append(observation)
            self._start()
        elif self._released_ns <= t_ns <= self._limit_ns and self._hold(observation):
            if self._run:
                self._end_run(t_ns)
        else:
            self._stray(observation)

    def ready(self) -> list[Observation | ClocksSetBack]:
        """The observations that no older one can precede any more, oldest first."""
        if self.newest_ns is None:
            return []
        until_ns = self._frontier_ns - self.lateness_ns
        # Most messages do not move the frontier.
        return self._release(until_ns) if until_ns > self._released_ns or self._turned else []

    def flush(self) -> list[Observation | ClocksSetBack]:
        """Release everything that is held, oldest first, at the end of the streams."""
        if self.newest_ns is None and self._run:
            self._believe_first(sorted(observation.t_ns for observation in self._run)[len(self._run) // 2])
        n_ahead = sum(observation.t_ns > self._limit_ns for observation in self._run)
        # While every clock was right so far, no later observation can contradict these.
        if not self._n_dropped or n_ahead >= self._n_wanted():
            self._trust_run()
        for observation in self._run:
            self._drop(observation)
        self._run = []
        return self._release(self.newest_ns + 1) if self.newest_ns is not None else []

    # ---- observations in time ----------------------------------------------------------------------------------------

    def _hold(self, observation: Observation) -> bool:
        """Hold an observation that is in time, and see where that brings the frontier.

        Returns False, without holding it, where its sensor is known for another time and is ahead again.
        """
        t_ns = observation.t_ns
        # Nearly all are of the first two kinds, and testing for the types in this order is fastest.
        if isinstance(observation, ShelfReading):
            rank, sensor = _READING_RANK, observation.plate
            clock = self._plate_clocks.get(sensor) or self.clocks.of(observation)
        elif isinstance(observation, Frame):
            rank, sensor = _FRAME_RANK, observation.camera
            clock = self._camera_clocks.get(sensor) or self.clocks.of(observation)
        else:
            (rank, sensor), clock = _identity(observation), None
        if clock is not None and clock.reported:
            if t_ns > self._frontier_ns + DISTRUST_NS:
                return False
            self.clocks.come_back(clock, t_ns)
        self._waiting.add((t_ns, rank, sensor, self._n_arrived, observation))
        self._witnesses.append(t_ns)
        if self.newest_ns is None or t_ns > self.newest_ns:
            self.newest_ns = t_ns
        if clock is not None:
            clock.in_time, clock.n_strays = self._n_arrived, 0
            if t_ns >= clock.mark_due_ns:
                clock.mark(observation)
            if not clock.reported:
                self._advance(clock, t_ns)
        elif self._leader is None and t_ns > self._frontier_ns:
            # Without any camera or plate, time is what the other sensors say.
            self._set_frontier(t_ns)
        return True

    def _advance(self, clock: SensorClock, t_ns: int) -> None:
        """Bring the frontier to the second newest time, or to the newest of a sensor that has long been alone."""
        lead_ns = self._lead_ns
        if clock is self._leader:
            self._n_alone += 1
            if t_ns > lead_ns:
                self._lead_ns = t_ns
                if t_ns - self._alone_since_ns >= self.lateness_ns and self._n_alone >= STRAYS_MIN:
                    self._set_frontier(t_ns)
            return
        if t_ns > lead_ns:
            # A new leader: the frontier is where the last one is, and at the start where this one is.
            self._leader, self._lead_ns = clock, t_ns
            t_ns = lead_ns or t_ns
        if t_ns > self._frontier_ns:
            self._set_frontier(t_ns)
        self._alone_since_ns, self._n_alone = self._lead_ns, 0

    def _set_frontier(self, t_ns: int) -> None:
        self._frontier_ns = t_ns
        self._limit_ns = t_ns + self._reach_ns

    # ---- observations that are not -----------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start the clock once two of the first sensors agree, or one of them has shown its time often enough."""
        pivot_ns = self._agreeing_ns()
        if pivot_ns is None and len(self._run) >= _WITNESSES and self._single_proven():
            pivot_ns = sorted(observation.t_ns for observation in self._run)[len(self._run) // 2]
        if pivot_ns is not None:
            self._believe_first(pivot_ns)

    def _single_proven(self) -> bool:
        """Whether the first observations are of several sensors, or span the time by which others may be late."""
        if len(self._run) >= _RUN_MAX or len({_identity(observation) for observation in self._run}) > 1:
            return True
        times = [observation.t_ns for observation in self._run]
        return max(times) - min(times) >= max(self.lateness_ns, 10**9)

    def _agreeing_ns(self) -> int | None:
        """The latest time on which the last observation of the run and another sensor agree; None where none does."""
        *earlier, last = self._run
        sensor = _identity(last)
        times = [o.t_ns for o in earlier if _identity(o) != sensor and abs(o.t_ns - last.t_ns) <= self.jump_ns]
        return max(*times, last.t_ns) if times else None

    def _believe_first(self, pivot_ns: int) -> None:
        """Start the clock from the first observations; those further ahead than a jump are doubted from here on."""
        run, self._run = self._run, []
        for observation in run:
            if observation.t_ns <= pivot_ns + self.jump_ns:
                self._hold(observation)
            else:
                self._run.append(observation)

    def _stray(self, observation: Observation) -> None:
        """Add to the run; believe it where nearly all sensors agree on its time."""
        run = self._run
        if len(run) >= _RUN_MAX:
            self._drop(run.pop(0))
        run.append(observation)
        t_ns = observation.t_ns
        if t_ns > self._limit_ns and self._n_wanted() <= 1:
            # Observations are rare, and this one ends a silence.
            self._trust_run()
            self._set_frontier(t_ns)
            return
        clock = self.clocks.of(observation)
        if clock is not None and clock.stray(observation, self._n_arrived):
            agreement = self.clocks.judge(clock, self._n_arrived, self._frontier_ns)
            if agreement is not None:
                self._turn(agreement)

    def _steps(self, clock: SensorClock, observation: Observation) -> bool:
        """Whether a sensor's clock has just turned out to be set back by less than makes its messages late."""
        t_ns = observation.t_ns
        if not clock.step_back(t_ns, self._n_arrived, self.lateness_ns + STEADY_NS):
            return False
        if self.newest_ns is None or not self._released_ns <= t_ns <= self._limit_ns:
            return False
        # What is sent again after an outage is held already.
        rank, sensor = _identity(observation)
        if self._waiting.holds(t_ns, rank, sensor):
            clock.step = 0
            return False
        clock.n_stepped += 1
        return True

    def _step_back(self, last: Observation) -> bool:
        """Where nearly all clocks were set back by a little, continue from their time; last: what has just come.

        What came before the step is held together with what came after it, and their times overlap: each sensor's step
        says which is which.
        """
        clocks = self.clocks.stepped(self._n_arrived)
        if not clocks:
            return False
        first = min(clock.step for clock in clocks)
        after = {(last.t_ns, *_identity(last)): last}
        before = []
        for held in self._waiting:
            clock = self.clocks.of(held[4])
            if held[3] >= (clock.step if clock is not None and clock.step >= first else first):
                after[held[:3]] = held[4]
            else:
                before.append(held)
        believed = [after[key] for key in sorted(after)]
        if believed[0].t_ns >= max((held[0] for held in before), default=0):
            return False  # Time does not go back by it.
        self._waiting = _Waiting()
        for held in before:
            self._waiting.add(held)
        run, self._run = self._run, []
        for observation in run:
            self._drop(observation)
        self._set_back(believed[0].t_ns)
        for clock in self.clocks:
            if clock.last >= first:
                clock.follow(self._n_arrived)
        by_time = sorted(clocks, key=lambda clock: clock.last_ns)
        self._lead(by_time[-1], [clock.last_ns for clock in by_time])
        for observation in believed:
            if not self._hold(observation):
                self._drop(observation)
        return True

    def _n_wanted(self) -> int:
        """How many witnesses the present clock has since a jump before the frontier."""
        return sum(t_ns > self._frontier_ns - self.jump_ns for t_ns in self._witnesses)

    def _turn(self, agreement: Agreement) -> None:
        """Continue from the time that nearly all sensors agree on."""
        is_earlier = agreement.since_ns < self._released_ns
        # Where nothing but time has passed, whatever came meanwhile is believed.
        first_ns = agreement.since_ns - self.lateness_ns if is_earlier else self._released_ns
        last_ns = agreement.until_ns + self.jump_ns
        run, self._run = self._run, []
        believed = sorted((o for o in run if first_ns <= o.t_ns <= last_ns), key=lambda o: o.t_ns)
        for observation in run:
            if not first_ns <= observation.t_ns <= last_ns:
                self._drop(observation)
        if is_earlier:
            self._set_back(believed[0].t_ns)
        for clock in agreement.clocks:
            clock.follow(self._n_arrived)
        by_time = sorted(agreement.clocks, key=lambda clock: clock.stray_ns)
        self._lead(by_time[-1], [clock.stray_ns for clock in by_time])
        for observation in believed:
            if not self._hold(observation):
                self._drop(observation)

    def _set_back(self, t_ns: int) -> None:
        """Release all that is held; time continues from t_ns."""
        released = self._release((self.newest_ns or 0) + 1)
        self._turned = [*released, ClocksSetBack(t_ns)]
        self._released_ns, self._last_key, self.newest_ns = t_ns, None, None
        self._witnesses.clear()

    def _lead(self, leader: SensorClock, times_ns: Sequence[int]) -> None:
        """Let the frontier be where sensors that agree are; times_ns: of each, ascending, the leader's last."""
        self._leader, self._lead_ns = leader, times_ns[-1]
        # A lone sensor has shown for long enough that it is alone.
        self._alone_since_ns = self._lead_ns - (self.lateness_ns if len(times_ns) == 1 else 0)
        self._n_alone = STRAYS_MIN if len(times_ns) == 1 else 0
        self._set_frontier(times_ns[-2:][0])

    def _end_run(self, t_ns: int) -> None:
        """A message of time t_ns is in time: drop what comes too late, and what lies further ahead than it may.

        Whatever is right arrives after its time, and at most the lateness after it. So a message that lies further
        than that ahead of one that arrives later is wrong.
        """
        run, self._run = sorted(self._run, key=lambda observation: observation.t_ns), []
        for observation in run:
            if self._released_ns <= observation.t_ns <= self._limit_ns and self._hold(observation):
                continue
            if self._limit_ns < observation.t_ns <= t_ns + self.lateness_ns:
                self._run.append(observation)
            else:
                self._drop(observation)

    def _trust_run(self) -> None:
        """Believe everything in the run that does not come too late."""
        run, self._run = sorted(self._run, key=lambda observation: observation.t_ns), []
        for observation in run:
            if observation.t_ns < self._released_ns or not self._hold(observation):
                self._drop(observation)

    def _drop(self, observation: Observation) -> None:
        stream, off_ns = _STREAM_NAMES[type(observation)], observation.t_ns - self._frontier_ns
        if off_ns > 0:
            self._n_dropped += 1
            reason = f"{stream}: time far ahead of every other sensor"
        else:
            reason = f"{stream}: more than {self.lateness_ns / 1e9:g} s late"
        self.ignored[reason] += 1
        # Late frames and weights are daily life; a scan that is late leaves a person without one.
        if off_ns > 0 or isinstance(observation, GateScan | DoorState | ItemSighting):
            self.clocks.warn_of(observation, off_ns, self._frontier_ns, self.ignored[reason])

    # ---- release -----------------------------------------------------------------------------------------------------

    def _release(self, until_ns: int) -> list[Observation | ClocksSetBack]:
        released, self._turned = self._turned, []
        for held in self._waiting.before(until_ns):
            observation, key = held[4], held[:3]
            if key == self._last_key and held[1] != _ITEM_RANK:
                self.ignored[f"{_STREAM_NAMES[type(observation)]}: repeated"] += 1
                continue
            self._last_key = key
            released.append(observation)
        self._released_ns = max(self._released_ns, until_ns)
        return released

    def warnings(self) -> list[Warning]:
        """Sensors whose time turned out to differ since the last call, and those that are in time again."""
        return self.clocks.warnings()


def _identity(observation: Observation) -> tuple[int, str]:
    """Rank of the kind among simultaneous observations, and the sensor that made it."""
    if isinstance(observation, ShelfReading):
        return _READING_RANK, observation.plate
    if isinstance(observation, Frame):
        return _FRAME_RANK, observation.camera
    match observation:
        case GateScan():
            return _GATE_RANK, f"{observation.gate}\0{observation.account}"
        case DoorState():
            return _GATE_RANK, f"{observation.gate}\0\0{observation.is_open}"
        case ItemSighting(source=source, kind=kind, gtin=gtin, quantity=quantity):
            # An antenna reads many items at one instant, so the item and its label are part of the identity.
            item = observation.code or gtin
            place = f"{observation.zone}\0{observation.plate}\0{observation.probability}"
            return _ITEM_RANK, f"{source}\0{kind}\0{item}\0{quantity}\0{place}"
