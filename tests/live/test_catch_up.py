"""The hold after an outage: who is waited for, how long, and in what order observations then continue."""

from __future__ import annotations

from typing import Any

import pytest
from live.streams import frame

from fusion.live.catch_up import CatchUp
from fusion.live.clock import ManualClock
from fusion.live.connection import Timing
from fusion.live.messages import Status
from fusion.results import WarningKind

TIMING = Timing(settle_s=3.0, catch_up_max_s=15.0, wills_s=5.0)


class Source:
    """A hold with its clock, and what it warned of."""

    def __init__(self, held_max: int = 1000) -> None:
        self.clock = ManualClock()
        self.warnings: list[tuple[WarningKind, str]] = []
        self.hold = CatchUp(self._warn, held_max, timing=TIMING, clock=self.clock)

    def _warn(self, kind: WarningKind, subject: str, **_: Any) -> None:
        self.warnings.append((kind, subject))

    def connected(self, session: str) -> None:
        """A connection whose broker has returned everything that it had gathered."""
        self.hold.connect(session)
        self.hold.gathered = True

    def status(self, name: str, state: str, engine: str | None = None, *, retained: bool = False) -> None:
        self.hold.update(name, Status(v=1, state=state, engine=engine), retained=retained)  # type: ignore[arg-type]


def test_the_first_connection_waits_for_publishers_that_were_there_before() -> None:
    source = Source()
    assert not source.hold.caught_up and not source.hold.complete()
    source.hold.connect("s1")
    source.status("cameras", "online", "of an earlier engine", retained=True)
    source.hold.gathered = True
    assert not source.hold.complete()
    source.status("cameras", "resending")
    assert not source.hold.complete()
    source.status("cameras", "online", "s1")
    assert source.hold.complete()


def test_held_observations_are_released_in_order_of_time() -> None:
    source = Source()
    assert source.hold.hold([frame(3), frame(1)]) == [] == source.hold.hold([frame(2)])
    source.connected("s1")
    assert source.hold.complete()
    assert [observation.t_ns for observation in source.hold.release()] == [1, 2, 3]
    assert source.hold.caught_up and len(source.hold.hold([frame(4)])) == 1


def test_after_an_outage_known_publishers_are_awaited_and_others_have_time_to_settle() -> None:
    source = Source()
    source.connected("s1")
    source.status("cameras", "online", "s1")
    source.hold.update("simple", Status(v=1, state="online"), retained=False)  # Never sends again.
    source.hold.release()
    source.hold.disconnect()
    assert not source.hold.caught_up and source.hold.hold([frame(1)]) == []
    source.connected("s2")
    source.clock.advance(2.9)
    assert not source.hold.complete()
    source.clock.advance(0.2)
    assert not source.hold.complete(), "cameras have not sent again"
    source.status("cameras", "online", "s1", retained=True)
    assert not source.hold.complete(), "a status from before the outage"
    source.status("cameras", "online", "s2")
    assert source.hold.complete()


def test_a_publisher_that_does_not_return_is_silent() -> None:
    source = Source()
    source.connected("s1")
    source.status("cameras", "online", "s1")
    source.hold.release()
    source.hold.disconnect()
    source.connected("s2")
    source.clock.advance(15.1)
    assert source.hold.complete() and source.hold.states == {"cameras": "silent"}
    assert source.warnings == [(WarningKind.PUBLISHER_SILENT, "cameras")]
    source.hold.release()
    source.status("cameras", "online", "s2")
    assert source.warnings[-1] == (WarningKind.PUBLISHER_BACK, "cameras")


@pytest.mark.parametrize(("before_s", "awaited"), [(4.9, True), (5.1, False)])
def test_publishers_lost_just_before_the_broker_are_awaited(before_s: float, awaited: bool) -> None:
    """A broker that shuts down publishes the last wills first."""
    source = Source()
    source.connected("s1")
    source.status("cameras", "online", "s1")
    source.hold.release()
    source.status("cameras", "lost")
    source.clock.advance(before_s)
    source.hold.disconnect()
    source.connected("s2")
    source.clock.advance(3.1)
    assert source.hold.complete() is not awaited


def test_a_publisher_that_stops_or_is_lost_is_no_longer_awaited() -> None:
    for state in ("stopped", "lost"):
        source = Source()
        source.hold.connect("s1")
        source.status("cameras", "online", "old", retained=True)
        source.hold.gathered = True
        assert not source.hold.complete()
        source.status("cameras", state)
        assert source.hold.complete()


def test_a_hold_has_a_limit() -> None:
    source = Source(held_max=3)
    source.hold.hold([frame(1), frame(2)])
    assert not source.hold.complete()
    source.hold.hold([frame(3)])
    assert source.hold.complete()


def test_a_deleted_status_forgets_the_publisher() -> None:
    source = Source()
    source.hold.connect("s1")
    source.status("cameras", "online", "old", retained=True)
    source.hold.gathered = True
    source.hold.forget("cameras")
    assert source.hold.complete() and source.hold.n_publishers == 0
