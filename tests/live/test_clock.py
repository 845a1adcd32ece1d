"""Clocks: a wait on the manual one moves it, and returns at once."""

from __future__ import annotations

import queue
import threading

from fusion.live.clock import SYSTEM_CLOCK, ManualClock


def test_a_wait_for_what_has_not_happened_takes_its_whole_time() -> None:
    clock, event, items = ManualClock(5.0), threading.Event(), queue.SimpleQueue[int]()
    assert not clock.wait(event, 2.0) and clock.monotonic_s() == 7.0
    assert clock.next_item(items, 1.5) is None and clock.monotonic_s() == 8.5
    clock.wait_notified(threading.Condition(), 0.5)
    assert clock.stopwatch_ns() == 9 * 10**9


def test_a_wait_for_what_has_happened_takes_none() -> None:
    event, items = threading.Event(), queue.SimpleQueue[int]()
    event.set()
    for clock in (ManualClock(5.0), SYSTEM_CLOCK):
        items.put(3)
        assert clock.wait(event, 1e9) and clock.next_item(items, 1e9) == 3
    assert ManualClock(5.0).monotonic_s() == 5.0


def test_the_clock_never_goes_back() -> None:
    clock = ManualClock()
    clock.advance(-1.0)
    assert clock.monotonic_s() == 0.0
    assert SYSTEM_CLOCK.monotonic_s() <= SYSTEM_CLOCK.monotonic_s()
