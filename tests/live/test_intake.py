"""The bounded queue between a source and its engine: what is dropped, when, and how that is reported."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.live.clock import ManualClock
from fusion.live.intake import EVENTS_MAX, REFUSED_MAX, Intake, Refusals, WarningQueue, fault_of
from fusion.live.pump import Pump
from fusion.live.sources import CATCH_UP_S, Source
from fusion.observations import Frame, GateScan, ItemSighting, Observation, ShelfReading
from fusion.results import Warning, WarningKind
from fusion.sentences import sentence

T_NS = 1_767_258_000_000_000_000
KINDS = ("frame", "weight", "scan")
EMPTY = np.zeros((0, 17, 3), np.float32)


def observation(kind: str, number: int) -> Observation:
    if kind == "frame":
        return Frame(number, "cam", EMPTY)
    if kind == "weight":
        return ShelfReading(number, "p", np.zeros(1, np.float32))
    return GateScan(number, "door", "open", "a")


@given(kinds=st.lists(st.sampled_from(KINDS), max_size=120), limit=st.integers(1, 20))
@settings(max_examples=100, deadline=None)
def test_the_newest_observations_and_every_scan_stay(kinds: list[str], limit: int) -> None:
    intake = Intake(limit, clock=ManualClock())
    for number, kind in enumerate(kinds):
        intake.put(observation(kind, number))
        assert len(intake) <= limit + kinds.count("scan")
    taken: list[Observation] = []
    while batch := intake.take(0.0):
        taken += batch
    numbers = [found.t_ns for found in taken]
    assert numbers == sorted(numbers)
    stayed = {kind: [n for n in numbers if kinds[n] == kind] for kind in KINDS}
    arrived = {kind: [n for n, k in enumerate(kinds) if k == kind] for kind in KINDS}
    assert stayed["scan"] == arrived["scan"]
    # Frames give way to weights; of weights the newest stay, as many as fit.
    assert stayed["weight"] == arrived["weight"][-limit:]
    n_stayed = len(stayed["frame"]) + len(stayed["weight"])
    assert n_stayed == min(limit, len(kinds) - len(arrived["scan"])) or stayed["weight"]
    n_dropped = Counter({"detections: cam": len(arrived["frame"]) - len(stayed["frame"])})
    n_dropped["weights: p"] = len(arrived["weight"]) - len(stayed["weight"])
    assert intake.dropped == +n_dropped


def test_old_observations_are_dropped_unless_they_were_sent_again() -> None:
    clock = ManualClock()
    intake = Intake(clock=clock, frame_wait_s=0.4, weight_wait_s=0.8)
    intake.put(observation("frame", 1), wait=True)
    clock.advance(5.0)
    for number, kind in enumerate(KINDS, 2):
        intake.put(observation(kind, number))
    clock.advance(0.5)
    assert [found.t_ns for found in intake.take(0)] == [1, 3, 4]
    assert intake.dropped == {"detections: cam": 1}
    for number, kind in enumerate(KINDS, 5):
        intake.put(observation(kind, number))
    clock.advance(1.0)
    assert [found.t_ns for found in intake.take(0)] == [7]


def test_scans_have_a_limit_of_their_own() -> None:
    intake = Intake(2, clock=ManualClock())
    for number in range(EVENTS_MAX + 3):
        intake.put(observation("scan", number))
    assert len(intake) == EVENTS_MAX and intake.dropped == {"gate: door": 3} and intake.events_dropped == 3


def test_an_overload_is_reported_when_it_begins_and_when_it_is_over() -> None:
    clock = ManualClock()
    intake = Intake(1, clock=clock)
    assert intake.warnings(0) == []
    for number in range(4):
        intake.put(observation("frame", number))
    (first,) = intake.warnings(7)
    assert first == Warning(7, WarningKind.OVERLOAD, "detections: cam", count=3, total=3)
    assert "3 dropped" in sentence(first)
    intake.put(observation("frame", 9))
    assert intake.warnings(8) == []  # Not at each drop.
    clock.advance(1.5)
    (last,) = intake.warnings(9)
    assert last == Warning(9, WarningKind.OVERLOAD_OVER, "detections: cam", count=1, total=4)
    assert "4 so far, and the overload is over" in sentence(last)
    clock.advance(60.0)
    assert intake.warnings(10) == []


def test_a_long_overload_is_reported_every_ten_seconds() -> None:
    clock = ManualClock()
    intake = Intake(1, clock=clock)
    reports = []
    for number in range(125):
        clock.advance(0.25)
        intake.put(observation("frame", number))
        reports += [(number, warning.kind) for warning in intake.warnings(number)]
    assert [number for number, _ in reports] == [1, 42, 83, 124]
    assert {kind for _, kind in reports} == {WarningKind.OVERLOAD}


@pytest.mark.parametrize(
    "scan",
    [
        GateScan(T_NS, "door", "open", ""), GateScan(T_NS, "door", "open", "\ud800"),
        GateScan(T_NS, "door", "none", "a"),
        GateScan(T_NS, "door", "account", "x" * 300), ItemSighting(T_NS, "r", "read", "96385074", 1, 7.0, zone="z"),
    ],
)  # fmt: skip
def test_an_event_that_no_line_of_a_file_can_hold_is_refused(scan: Observation) -> None:
    assert fault_of(scan)
    assert not fault_of(GateScan(T_NS, "door", "account", "alice"))


def test_refusals_are_reported_at_every_tenfold_and_have_a_limit() -> None:
    warnings = WarningQueue()
    refusals = Refusals(warnings)
    for n in range(1, 201):
        refusals.add("source", "want text", n)
    assert [(warning.t_ns, warning.total) for warning in warnings.take()] == [(1, 1), (10, 10), (100, 100)]
    for n in range(2 * REFUSED_MAX):
        refusals.add(f"stream {n}", "want text", 0)
    assert len(refusals.counts) == REFUSED_MAX + 1 and refusals.counts["further streams"] == REFUSED_MAX + 1
    assert refusals.counts.total() == 200 + 2 * REFUSED_MAX


class _Backlog(Source):
    """A live source whose data waited for this process."""

    live, behind = True, True  # type: ignore[assignment]

    def __iter__(self) -> Iterator[Observation]:
        yield from ()

    def stop(self) -> None:
        pass


def test_a_backlog_may_be_worked_off_for_as_long_as_no_engine_was_there() -> None:
    away_s, newest_ns = 120.0, T_NS
    clock = ManualClock(epoch_ns=newest_ns + round(away_s * 1e9))
    pump = Pump(_Backlog(), Intake(clock=clock), Refusals(WarningQueue()), threading.Event(), lambda: newest_ns, clock)
    pump.run()
    for after_s, catches_up in ((away_s + CATCH_UP_S - 1.0, True), (2.0, False)):
        clock.advance(after_s)
        pump.accept(observation("frame", newest_ns))
        assert pump.catching_up == catches_up
