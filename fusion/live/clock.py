"""Clocks for whatever waits or measures. Nothing else in this wing reads the machine's time.

Data carries its own time. These clocks only pace sources, bound waits, measure how long something took, and are
compared with data time (`time_watch`). A `ManualClock` makes all of that repeatable: a wait advances it and returns at
once.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Clock(Protocol):
    """A monotonic clock and the waits that it bounds."""

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary instant; never decreases."""
        ...

    def stopwatch_ns(self) -> int:
        """Nanoseconds since an arbitrary instant, in the finest resolution at hand: for durations only."""
        ...

    def wall_ns(self) -> int:
        """UTC nanoseconds since 1970, as far as the machine knows: only to be compared with data time."""
        ...

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until an event is set, for at most `timeout_s`. Returns whether it is set."""
        ...

    def wait_notified(self, condition: threading.Condition, timeout_s: float) -> None:
        """Wait on a condition, whose lock the caller holds, for at most `timeout_s`."""
        ...

    def next_item(self, items: queue.SimpleQueue[Item], timeout_s: float) -> Item | None:
        """Take the next item of a queue; None if none arrives within `timeout_s`."""
        ...


class SystemClock:
    """The machine's clock."""

    def monotonic_s(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    def stopwatch_ns(self) -> int:
        """See `Clock`."""
        return time.perf_counter_ns()

    def wall_ns(self) -> int:
        """See `Clock`."""
        return time.time_ns()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """See `Clock`."""
        return event.wait(timeout_s)

    def wait_notified(self, condition: threading.Condition, timeout_s: float) -> None:
        """See `Clock`."""
        condition.wait(timeout_s)

    def next_item(self, items: queue.SimpleQueue[Item], timeout_s: float) -> Item | None:
        """See `Clock`."""
        try:
            return items.get(timeout=timeout_s)
        except queue.Empty:
            return None


class ManualClock:
    """A clock that moves only when it is advanced or waited on; for one thread.

    A wait for something that has not happened advances the clock by the whole timeout and returns, since in one thread
    nothing can happen meanwhile.
    """

    def __init__(self, start_s: float = 0.0, epoch_ns: int = 0) -> None:
        """Start at an instant. epoch_ns: what `wall_ns` gives at instant 0."""
        self.now_s, self.epoch_ns = start_s, epoch_ns

    def advance(self, duration_s: float) -> None:
        """Move the clock forward."""
        self.now_s += max(duration_s, 0.0)

    def monotonic_s(self) -> float:
        """See `Clock`."""
        return self.now_s

    def stopwatch_ns(self) -> int:
        """See `Clock`."""
        return round(self.now_s * 1e9)

    def wall_ns(self) -> int:
        """See `Clock`."""
        return self.epoch_ns + round(self.now_s * 1e9)

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """See `Clock`."""
        if not event.is_set():
            self.advance(timeout_s)
        return event.is_set()

    def wait_notified(self, condition: threading.Condition, timeout_s: float) -> None:
        """See `Clock`."""
        self.advance(timeout_s)

    def next_item(self, items: queue.SimpleQueue[Item], timeout_s: float) -> Item | None:
        """See `Clock`."""
        try:
            return items.get_nowait()
        except queue.Empty:
            self.advance(timeout_s)
            return None


SYSTEM_CLOCK: Clock = SystemClock()
