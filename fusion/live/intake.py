"""The bounded queue between a source's thread and an engine's, and what the first reports to the second."""

from __future__ import annotations

import json
import threading
from collections import Counter, deque
from typing import Any, NamedTuple

from fusion.files.lines import line_of, parse_gate_line, parse_item_line
from fusion.live.clock import SYSTEM_CLOCK, Clock
from fusion.observations import (
    DoorState,
    Frame,
    GateEvent,
    GateScan,
    ItemSighting,
    Observation,
    ShelfReading,
    time_fault,
)
from fusion.results import NAME_MAX, Warning, WarningKind, is_tenfold

# Frames and weights that wait at most: this many, and in large stores this many for each camera and plate. That is
# several seconds of data, so that writing a snapshot never drops any.
QUEUE_MAX, PER_CAMERA_MAX, PER_PLATE_MAX = 4096, 64, 16
# Scans and sightings that wait at most.
EVENTS_MAX = 4096
# A frame or weight that has waited this long under overload is dropped: the engine is kept close to the present.
FRAME_WAIT_S, WEIGHT_WAIT_S = 0.6, 0.9
BATCH_MAX = 64
# A continuing overload is reported this often; it is over once nothing was dropped for this long.
OVERLOAD_REPORT_S, OVERLOAD_END_S = 10.0, 1.0
# Streams whose refusals are counted separately.
REFUSED_MAX = 1000
WARNINGS_MAX = 4096

# Kinds of observations in the order in which they are dropped for each other.
_FRAME, _WEIGHT, _EVENT = range(3)


class _Waiting(NamedTuple):
    """An observation in the queue: its place in the order of arrival, and when it arrived."""

    number: int
    since_s: float
    observation: Observation


class Intake:
    """A queue of fixed length between a source's thread and an engine's.

    `put` does not wait for the engine unless asked to. An observation that does not fit displaces the oldest frame;
    where there is none, the oldest weight; never a scan or a sighting, which are few. Whatever has waited too long is
    dropped as well, so that the engine is at the present as soon as an overload ends.

    Attributes:
        limit: frames and weights that wait at most.
        dropped: observations dropped so far, by stream: `detections: CAMERA`, `weights: PLATE`, `gate: GATE`.
        events_dropped: scans and sightings among them.
        longest: the most observations that ever waited.
        lag_s: how long the observation taken last had waited; 0 for those that a source sent again.
        ended: whether nothing more will arrive.
    """

    def __init__(
        self,
        limit: int = QUEUE_MAX,
        *,
        frame_wait_s: float = FRAME_WAIT_S,
        weight_wait_s: float = WEIGHT_WAIT_S,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.limit, self._clock = limit, clock
        self._wait_max_s = frame_wait_s, weight_wait_s, float("inf")
        self._queues: tuple[deque[_Waiting], ...] = (deque(), deque(), deque())
        self._n_arrived = self.events_dropped = 0
        self._condition = threading.Condition()
        self.dropped: Counter[str] = Counter()
        self.longest = 0
        self.lag_s = 0.0
        self.ended = False
        self._held = False
        self._reported: Counter[str] = Counter()
        self._last_drop_s = self._last_report_s = -1e9
        self._overloaded = False

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    def put(self, observation: Observation, *, wait: bool = False) -> None:
        """Add an observation.

        Args:
            observation: the observation.
            wait: wait for room, and never drop it for its age: for what a source sends again after a restart.
        """
        kind = _kind_of(observation)
        frames, weights, events = self._queues
        with self._condition:
            wait = wait or self._held
            if kind == _EVENT:
                if len(events) >= EVENTS_MAX:
                    self.events_dropped += 1
                    self._drop(observation)
                    return
            elif wait:
                while len(frames) + len(weights) >= self.limit and not self.ended:
                    self._clock.wait_notified(self._condition, 0.1)
            if kind != _EVENT and len(frames) + len(weights) >= self.limit:
                if not frames and kind == _FRAME:
                    self._drop(observation)
                    return
                self._drop((frames or weights).popleft().observation)
            self._n_arrived += 1
            since_s = float("inf") if wait else self._clock.monotonic_s()
            self._queues[kind].append(_Waiting(self._n_arrived, since_s, observation))
            n_waiting = len(self)
            self.longest = max(self.longest, n_waiting)
            if n_waiting == 1:
                self._condition.notify_all()

    def take(self, timeout_s: float) -> list[Observation]:
        """Take what has arrived, oldest first, at most BATCH_MAX; empty if nothing arrives in time, or ever will."""
        with self._condition:
            if not len(self) and not self.ended:
                self._clock.wait_notified(self._condition, timeout_s)
            now_s = self._clock.monotonic_s()
            self.lag_s = 0.0
            oldest_s = [now_s - wait_s for wait_s in self._wait_max_s]
            taken: list[Observation] = []
            while len(taken) < BATCH_MAX:
                heads = [(queue[0].number, kind) for kind, queue in enumerate(self._queues) if queue]
                if not heads:
                    break
                _, kind = min(heads)
                _, since_s, observation = self._queues[kind].popleft()
                if since_s < oldest_s[kind]:
                    self._drop(observation)
                else:
                    self.lag_s = max(now_s - since_s, 0.0)
                    taken.append(observation)
            self._condition.notify_all()
            return taken

    def hold(self, held: bool) -> None:
        """Hold what waits and what arrives, whatever its age, until the engine takes observations again."""
        with self._condition:
            self._held = held
            if held:
                for queue in self._queues:
                    waiting = [entry._replace(since_s=float("inf")) for entry in queue]
                    queue.clear()
                    queue.extend(waiting)

    def end(self) -> None:
        """Declare that nothing more will arrive."""
        with self._condition:
            self.ended = True
            self._condition.notify_all()

    def warnings(self, t_ns: int) -> list[Warning]:
        """Report drops by stream: when an overload begins, every ten seconds, and when it is over."""
        with self._condition:
            now_s = self._clock.monotonic_s()
            new = self.dropped - self._reported
            over = self._overloaded and now_s - self._last_drop_s > OVERLOAD_END_S
            due = not self._overloaded or now_s - self._last_report_s > OVERLOAD_REPORT_S
            if not (over or (new and due)):
                return []
            self._overloaded, self._last_report_s = not over, now_s
            self._reported = self.dropped.copy()
            kind = WarningKind.OVERLOAD_OVER if over else WarningKind.OVERLOAD
            warnings = [
                Warning(t_ns, kind, stream, count=n, total=self.dropped[stream]) for stream, n in sorted(new.items())
            ]
            return warnings or [Warning(t_ns, kind, "all", count=0, total=self.dropped.total())]

    def _drop(self, observation: Observation) -> None:
        self.dropped[stream_of(observation)] += 1
        self._last_drop_s = self._clock.monotonic_s()


class WarningQueue:
    """Warnings from other threads that wait for the engine's; bounded, what does not fit is left out."""

    def __init__(self) -> None:
        self._warnings: list[Warning] = []
        self._lock = threading.Lock()

    def put(self, warning: Warning) -> None:
        """Add a warning; from any thread."""
        with self._lock:
            if len(self._warnings) < WARNINGS_MAX:
                self._warnings.append(warning)

    def take(self) -> list[Warning]:
        """Remove and return all that wait, oldest first."""
        with self._lock:
            warnings, self._warnings = self._warnings, []
        return warnings


class Refusals:
    """Observations that no engine can use, counted by stream, with a warning at each tenfold count.

    Attributes:
        counts: by stream; the source itself is the stream `source`.
        warnings: where they go, together with those of the source itself.
    """

    def __init__(self, warnings: WarningQueue) -> None:
        self.counts: Counter[str] = Counter()
        self.warnings = warnings

    def add(self, stream: str, fault: str, t_ns: int) -> None:
        """Count a refused observation; from the source's thread and the engine's."""
        if len(self.counts) >= REFUSED_MAX and stream not in self.counts:
            stream = "further streams"
        self.counts[stream] += 1
        n = self.counts[stream]
        if is_tenfold(n):
            self.warnings.put(Warning(t_ns, WarningKind.REFUSED, stream, total=n, detail=fault))


def fault_of(observation: Any) -> str:
    """What is wrong with an object that a source gave, as far as the engine relies on it; "" where nothing is."""
    if not isinstance(observation, Frame | ShelfReading | GateScan | DoorState | ItemSighting):
        return f"want a Frame, ShelfReading, GateScan, DoorState or ItemSighting, got {type(observation).__name__}"
    t_ns = observation.t_ns
    if not isinstance(t_ns, int):
        return f"want an integer of UTC nanoseconds, got {type(t_ns).__name__} {str(t_ns)[:40]}"
    fault = time_fault(t_ns)
    if fault:
        return fault
    match observation:
        case Frame(camera=str()) | ShelfReading(plate=str()):
            return ""
        case GateScan(account=account) if isinstance(account, str) and not 1 <= len(account) <= NAME_MAX:
            return f"want an account of 1 to {NAME_MAX} characters, got {len(account)}"
        case GateScan() | DoorState() | ItemSighting():
            at_gate = not isinstance(observation, ItemSighting)
            try:
                same = parse_event(at_gate, json.dumps(line_of(observation))) == observation
            except (ValueError, TypeError) as error:
                return f"want a line of gate.jsonl or items.jsonl, got: {' '.join(str(error).split())[:200]}"
            return "" if same else "want what a line of gate.jsonl or items.jsonl can hold"
    return "want names of sensors as text"


def parse_event(gate: bool, line: str) -> GateEvent | ItemSighting:
    """Read a line of gate.jsonl or of items.jsonl. Raises ValueError."""
    return parse_gate_line(line) if gate else parse_item_line(line)


def stream_of(observation: Observation) -> str:
    """Name of the stream that an observation belongs to, such as `detections: cam01`."""
    match observation:
        case Frame():
            return f"detections: {observation.camera}"
        case ShelfReading():
            return f"weights: {observation.plate}"
        case GateScan() | DoorState():
            return f"gate: {observation.gate}"
        case _:
            return f"items: {observation.source}"


def _kind_of(observation: Observation) -> int:
    if isinstance(observation, Frame):
        return _FRAME
    return _WEIGHT if isinstance(observation, ShelfReading) else _EVENT
