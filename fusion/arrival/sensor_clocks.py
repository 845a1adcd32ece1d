"""Which sensors agree on the time, judged from the times that they send and from nothing else."""

from __future__ import annotations

import itertools
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from fusion.observations import DoorState, Frame, GateScan, ItemSighting, Observation, ShelfReading
from fusion.results import Warning, WarningKind, is_tenfold

# A sensor's other time counts once this many messages in a row carried it and it has passed for STEADY_NS: a single
# forged or torn message is neither.
STRAYS_MIN = 3
STEADY_NS = 1_500_000_000
# A sensor whose other time the others do not share is reported after this long.
REPORT_NS = 2_500_000_000
# Two messages in a row of a steady clock are at most this far apart.
STRIDE_MAX_NS = 10_000_000_000
# Nearly all: this share of the sensors that are heard must agree on another time before it is believed.
AGREEING_MIN = 2 / 3
# Without any sensor in time for this long, the time that most of them agree on is believed, however few they are.
DEADLOCK_NS = 5_000_000_000
# A sensor that was reported counts as in time again after this long without a message that was not.
BACK_NS = 5_000_000_000
# How far a sensor that was reported may be ahead of the others for its messages to be used.
DISTRUST_NS = 1_000_000_000
# What a publisher sends again after an outage is known by its content, of which one message a second is remembered for
# longer than publishers keep theirs.
MARK_EVERY_NS = 1_000_000_000
MARKS = 20
# A message this much before the one that came before it from its sensor begins a step back, where others follow it in
# order: messages that were overtaken on the way do not.
STEP_MIN_NS = 150_000_000
# Messages in time, since its step, after which a sensor has stepped back, and the share of the step that they must have
# made up for. By how much the steps of all, and the times before them, may differ: a step is shorter than what the
# clock was set back by, by the time from one message to the next.
STEPPED_MIN, STEPPED_SHARE, STEPS_ALIKE_NS = 4, 0.6, 600_000_000
# So few sensors could step at once by chance, where each message takes its own time on the way.
CLOCKS_STEPPED_MIN = 3
# A step is forgotten once this many messages a sensor have come since.
STEP_MESSAGES_MAX = 40
# Sensors that sent within this time before a step have a say in whether it is everybody's.
ALIVE_NS = 5_000_000_000
# More sensors than any store has; the clocks of others are not judged.
CLOCKS_MAX = 8192


class Mark(NamedTuple):
    """A message that was used: its time and a checksum of its contents."""

    t_ns: int
    checksum: int


@dataclass(slots=True, eq=False)
class SensorClock:
    """What is known of one sensor's clock.

    Attributes:
        name: of the camera or plate.
        in_time: number of its last arrival that was in time; 0 before the first.
        since_ns, stray_ns, n_strays: first and newest time, and the number, of the unbroken run of its messages that
            were not in time and that follow one another as those of a steady clock do.
        lap, next_lap, lap_ns: numbers of its arrivals once or twice STEADY_NS ago, as far as the run goes back, and
            since then; time of the latter.
        resent: the run repeats what was used before.
        reported: whether a warning about its time was given that still holds. Until then it has no say in the time, and
            its messages are used only within DISTRUST_NS of the others.
        mark_due_ns, marks: see MARK_EVERY_NS.
        last_ns, last: time and number of its newest arrival, in time or not.
        step: number of the arrival with which its time last went back, 0 where it did not or has gone on before it was
            sure; step_ns: by how much; before_ns: from which time; n_stepped: new messages in time since then.
    """

    name: str
    in_time: int = 0
    since_ns: int = 0
    stray_ns: int = 0
    n_strays: int = 0
    lap: int = 0
    next_lap: int = 0
    lap_ns: int = 0
    resent: bool = False
    reported: bool = False
    mark_due_ns: int = 0
    marks: deque[Mark] = field(default_factory=lambda: deque(maxlen=MARKS))
    last_ns: int = 0
    last: int = 0
    step: int = 0
    step_ns: int = 0
    before_ns: int = 0
    n_stepped: int = 0

    @property
    def shown_ns(self) -> int:
        """About the newest time that it showed."""
        return self.stray_ns if self.n_strays else self.mark_due_ns - MARK_EVERY_NS

    @property
    def steady(self) -> bool:
        """Whether it has kept another time than the others for long enough to be believed that it means it."""
        return self.n_strays >= STRAYS_MIN and self.stray_ns - self.since_ns >= STEADY_NS and not self.resent

    def mark(self, observation: Observation) -> None:
        """Remember a message that is used."""
        self.marks.append(Mark(observation.t_ns, _checksum(observation)))
        self.mark_due_ns = observation.t_ns + MARK_EVERY_NS

    def stray(self, observation: Observation, number: int) -> bool:
        """Count a message that is not in time; returns whether the run is steady."""
        t_ns = observation.t_ns
        ahead_ns = t_ns - self.stray_ns
        if self.n_strays and -STRIDE_MAX_NS < ahead_ns <= 0:
            return False  # Overtaken on the way by a younger one, or repeated.
        if not self.n_strays or not 0 < ahead_ns <= STRIDE_MAX_NS:
            self.since_ns = self.lap_ns = t_ns
            self.lap = self.next_lap = number
            self.n_strays, self.resent = 0, False
        self.stray_ns = t_ns
        self.n_strays += 1
        if any(mark.t_ns == t_ns and mark.checksum == _checksum(observation) for mark in self.marks):
            self.resent = True
        if t_ns - self.lap_ns >= STEADY_NS:
            self.lap_ns, self.lap, self.next_lap = t_ns, self.next_lap, number
        return self.steady

    @property
    def has_stepped(self) -> bool:
        """Whether its messages follow a step back in order for long enough that they were not merely overtaken."""
        if self.n_stepped < STEPPED_MIN:
            return False
        gone_ns = self.last_ns - (self.before_ns - self.step_ns)
        return gone_ns >= STEPPED_SHARE * self.step_ns

    def step_back(self, t_ns: int, number: int, back_max_ns: int) -> bool:
        """See an arrival that is older than the one before it, or that follows a step; whether it belongs to a step.

        Args:
            t_ns: time of the arrival.
            number: of the arrival.
            back_max_ns: steps by more are judged from the messages that are not in time any more.
        """
        back_ns = self.last_ns - t_ns
        if STEP_MIN_NS < back_ns <= back_max_ns:
            self.step, self.step_ns, self.before_ns, self.n_stepped = number, back_ns, self.last_ns, 0
        elif back_ns > back_max_ns:
            self.step = 0
        elif t_ns > self.before_ns >= self.last_ns and (not self.has_stepped or 2 * -back_ns > self.step_ns):
            self.step = 0  # Those before were overtaken on the way: a clock reaches the old time in small strides.
        return self.step > 0 and (back_ns < 0 or self.step == number)

    def follow(self, number: int) -> None:
        """Its other time is everybody's time now."""
        self.in_time, self.n_strays, self.mark_due_ns, self.step = number, 0, 0, 0
        self.reported = False
        self.marks.clear()


class Agreement(NamedTuple):
    """Another time that nearly all sensors agree on: their clocks, and the span of the unbroken run that shows it."""

    clocks: list[SensorClock]
    since_ns: int
    until_ns: int


class SensorClocks:
    """The clocks of a store's sensors: which of them agree, and which go their own way.

    Every camera and every plate has one vote, however fast it sends. Gates and readers report events and have none.

    Attributes:
        cameras, plates: clocks by name.

    Args:
        lateness_ns: messages of sensors that agree arrive within this of each other.
        sensors: names of the sensors that vote; None for all that come.
    """

    def __init__(self, lateness_ns: int, sensors: Iterable[str] | None = None) -> None:
        self._lateness_ns = lateness_ns
        self._sensors = None if sensors is None else frozenset(sensors)
        self.cameras: dict[str, SensorClock] = {}
        self.plates: dict[str, SensorClock] = {}
        self._judged = 0
        self._warnings: list[Warning] = []

    def __len__(self) -> int:
        return len(self.cameras) + len(self.plates)

    @property
    def warned(self) -> bool:
        """Whether there is a warning that was not taken yet."""
        return bool(self._warnings)

    def __iter__(self) -> Iterator[SensorClock]:
        yield from self.cameras.values()
        yield from self.plates.values()

    def of(self, observation: Observation) -> SensorClock | None:
        """The clock that an observation shows; None for sensors without a vote."""
        if isinstance(observation, ShelfReading):
            name, clocks = observation.plate, self.plates
        elif isinstance(observation, Frame):
            name, clocks = observation.camera, self.cameras
        else:
            return None
        clock = clocks.get(name)
        if clock is None:
            known = self._sensors is None or name in self._sensors
            if not known or len(self) >= CLOCKS_MAX:
                return None
            clocks[name] = clock = SensorClock(name)
        return clock

    def judge(self, clock: SensorClock, number: int, frontier_ns: int) -> Agreement | None:
        """The other time that nearly all sensors agree on, where there is one.

        Sensors whose other time the others do not share are reported.

        Args:
            clock: one that has become steady.
            number: of the last arrival.
            frontier_ns: the time that has been believed so far.
        """
        # Once for each message of each sensor is enough.
        if number - self._judged < len(self):
            return None
        # Every sensor that is heard has sent since then.
        self._judged, lap = number, clock.lap
        steady = [other for other in self if other.steady]
        n_in_time = sum(other.in_time > lap and not other.steady for other in self)
        agreeing = self._largest(steady)
        lasted_ns = max(other.stray_ns - other.since_ns for other in agreeing)
        # A lone sensor may only be early: the messages of the others may take as long as they are allowed to.
        enough = len(agreeing) > 1 or lasted_ns >= self._lateness_ns
        enough = enough and len(agreeing) >= AGREEING_MIN * (len(steady) + n_in_time)
        if enough or (not n_in_time and lasted_ns >= DEADLOCK_NS):
            until_ns = max(other.stray_ns for other in agreeing)
            # Those that kept the old time would bring it back.
            self._report([other for other in self if other.in_time > lap and not other.n_strays], until_ns)
            return Agreement(agreeing, min(other.since_ns for other in agreeing), until_ns)
        if n_in_time:
            # Until then the others may still turn out to have the same time.
            self._report([o for o in steady if o.stray_ns - o.since_ns >= REPORT_NS], frontier_ns)
        return None

    def stepped(self, number: int) -> list[SensorClock]:
        """The clocks that were set back together by less than makes messages late, where nearly all were.

        number: of the last arrival.
        """
        oldest = max(number - STEP_MESSAGES_MAX * len(self), 0)
        # For every message that was overtaken, all clocks are looked at.
        clocks = itertools.chain(self.cameras.values(), self.plates.values())
        steps = [clock for clock in clocks if clock.step > oldest and clock.has_stepped]
        if len(steps) < CLOCKS_STEPPED_MIN:
            return []
        usual_ns = sorted(clock.step_ns for clock in steps)[len(steps) // 2]
        usual_before_ns = sorted(clock.before_ns for clock in steps)[len(steps) // 2]
        alike = [
            clock for clock in steps
            if abs(clock.step_ns - usual_ns) <= STEPS_ALIKE_NS
            and abs(clock.before_ns - usual_before_ns) <= STEPS_ALIKE_NS
        ]  # fmt: skip
        if len(alike) < CLOCKS_STEPPED_MIN:
            return []
        alive_ns = min(clock.before_ns for clock in alike) - ALIVE_NS
        n_alive = sum(clock.last_ns >= alive_ns for clock in self)
        return alike if len(alike) >= AGREEING_MIN * n_alive else []

    def come_back(self, clock: SensorClock, t_ns: int) -> None:
        """Take note that a sensor which was reported is in time again."""
        if clock.n_strays:
            clock.since_ns, clock.n_strays = t_ns, 0
        elif t_ns - clock.since_ns >= BACK_NS:
            clock.reported = False
            self._warnings.append(Warning(t_ns, WarningKind.SENSOR_IN_TIME, clock.name))

    def warn_of(self, observation: Observation, off_ns: int, frontier_ns: int, total: int) -> None:
        """Report a message that is not used for its time, the first one of its kind and at every tenfold number."""
        clock = self.of(observation)
        if not is_tenfold(total) or (clock is not None and clock.reported):
            return
        match observation:
            case (
                GateScan(gate=name) | DoorState(gate=name) | ItemSighting(source=name) | Frame(camera=name)
                | ShelfReading(plate=name)
            ):  # fmt: skip
                kind, seconds = WarningKind.MESSAGE_OUT_OF_TIME, round(off_ns * 1e-9, 1)
                self._warnings.append(Warning(frontier_ns, kind, name, seconds=seconds, total=total))

    def warnings(self) -> list[Warning]:
        """Sensors whose time turned out to differ since the last call, and those that are in time again."""
        warnings, self._warnings = self._warnings, []
        return warnings

    def _largest(self, steady: list[SensorClock]) -> list[SensorClock]:
        """The most clocks whose newest times lie within the lateness of each other; the latest of several such groups.

        A sensor that was overtaken on the way is still among them, since messages of one time may be that much apart.
        """
        ordered = sorted(steady, key=lambda clock: clock.stray_ns)
        best, first = (0, 0), 0
        for last, clock in enumerate(ordered):
            while clock.stray_ns - ordered[first].stray_ns > self._lateness_ns:
                first += 1
            if last + 1 - first >= best[1] - best[0]:
                best = first, last + 1
        return ordered[best[0] : best[1]]

    def _report(self, others: list[SensorClock], frontier_ns: int) -> None:
        """Report sensors whose time differs, those that differ in the same direction together."""
        new = [clock for clock in others if not clock.reported]
        for kind, ahead in ((WarningKind.SENSOR_AHEAD, True), (WarningKind.SENSOR_BEHIND, False)):
            found = [clock for clock in new if (clock.shown_ns > frontier_ns) == ahead]
            if found:
                off_s = max(abs(clock.shown_ns - frontier_ns) for clock in found) * 1e-9
                first = min(clock.name for clock in found)
                self._warnings.append(Warning(frontier_ns, kind, first, seconds=round(off_s, 1), count=len(found)))
        for clock in new:
            clock.reported = True


def _checksum(observation: Observation) -> int:
    if isinstance(observation, Frame):
        return zlib.crc32(observation.keypoints.tobytes())
    return zlib.crc32(observation.samples.tobytes()) if isinstance(observation, ShelfReading) else 0
