"""After an outage of the broker: hold what arrives until every publisher has caught up, then pass it on in order.

Publishers that reconnect one after the other each send again what they kept. Without waiting for all of them, the data
of the first would make those of the last too late to be used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from fusion.live.clock import SYSTEM_CLOCK, Clock
from fusion.live.connection import TIMING, Timing
from fusion.live.messages import Status
from fusion.observations import Observation
from fusion.results import WarningKind


class Warn(Protocol):
    """Takes a warning's kind, subject and the fields that apply to the kind."""

    def __call__(self, kind: WarningKind, subject: str, **fields: Any) -> object:
        """Take a warning."""
        ...



@dataclass
class _Publisher:
    """A publisher as the engine knows it.

    Attributes:
        state: as of its status, or "silent" where it did not return after an outage.
        answers: whether it reports the session of the engine to which it has sent again; others are not awaited.
        awaited: whether it has yet to do so for the current session.
        lost_s: when its connection broke; None unless it is lost.
    """

    state: str
    answers: bool = False
    awaited: bool = False
    lost_s: float | None = None


class CatchUp:
    """Holds observations from the loss of a connection until all publishers have sent again what they kept.

    A new connection has a session, which the engine publishes. The broker returns that message after everything that it
    had gathered for the engine, and each publisher reports the session once it has sent again. The hold ends when both
    have happened, after `settle_s` at least and `catch_up_max_s` at most. It starts closed: nothing is passed on before
    the first connection.

    Attributes:
        connected: whether there is a connection.
        ever_connected: whether there has ever been one.
        session: of the current connection.
        gathered: whether everything that the broker had gathered has arrived.
    """

    def __init__(
        self, warn: Warn, held_max: int, *, timing: Timing = TIMING, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """Start to hold.

        Args:
            warn: takes warnings about publishers.
            held_max: observations that are held at most; with more, the hold ends.
            timing: how long to wait.
            clock: measures that.
        """
        self.connected = self.ever_connected = self.gathered = False
        self.session = ""
        self._warn, self._held_max, self._timing, self._clock = warn, held_max, timing, clock
        self._publishers: dict[str, _Publisher] = {}
        self._held: list[Observation] | None = []
        self._connected_s = self._hold_min_s = 0.0
        self._outage = False

    @property
    def caught_up(self) -> bool:
        """Whether observations are passed on at once."""
        return self._held is None

    @property
    def outage(self) -> bool:
        """Whether a connection was lost or refused since the last one was established."""
        return self._outage

    @property
    def states(self) -> dict[str, str]:
        """State of every publisher by name."""
        return {name: publisher.state for name, publisher in list(self._publishers.items())}

    def connect(self, session: str) -> None:
        """Note that a connection has been established."""
        self._hold_min_s = self._timing.settle_s if self._outage else 0.0
        self._connected_s = self._clock.monotonic_s()
        self.gathered, self.connected, self._outage, self.ever_connected = False, True, False, True
        self.session = session

    def disconnect(self) -> None:
        """Hold from now on, since the connection was lost or an attempt failed.

        The hold must begin here, since the next connection delivers what the broker has gathered before it is known to
        be established.
        """
        self.connected, self.gathered, self._outage = False, False, True
        if self._held is None:
            self._held = []
        since_s = self._clock.monotonic_s() - self._timing.wills_s
        for publisher in self._publishers.values():
            there = publisher.state in ("online", "resending")
            lost_with_broker = publisher.lost_s is not None and publisher.lost_s > since_s
            if publisher.answers and (there or lost_with_broker):
                publisher.awaited = True

    def hold(self, observations: list[Observation]) -> list[Observation]:
        """Hold observations; returns those to pass on now."""
        if self._held is None:
            return observations
        self._held += observations
        return []

    def complete(self) -> bool:
        """Whether a hold should end now. Publishers that have not returned in time are reported as silent."""
        if self._held is None:
            return False
        if len(self._held) >= self._held_max:
            return True
        if not self.connected:
            return False
        held_s = self._clock.monotonic_s() - self._connected_s
        awaited = sorted(name for name, publisher in self._publishers.items() if publisher.awaited)
        if held_s > self._timing.catch_up_max_s:
            for name in awaited:
                self._publishers[name].state = "silent"
                self._warn(WarningKind.PUBLISHER_SILENT, name, seconds=self._timing.catch_up_max_s)
            return True
        return self.gathered and not awaited and held_s >= self._hold_min_s

    def release(self) -> list[Observation]:
        """End the hold. Returns what was held, in time order."""
        held, self._held = self._held or [], None
        for publisher in self._publishers.values():
            publisher.awaited = False
        return sorted(held, key=lambda observation: observation.t_ns)

    # ---- publishers --------------------------------------------------------------------------------------------------

    def knows(self, name: str) -> bool:
        """Whether a publisher's status has arrived before."""
        return name in self._publishers

    @property
    def n_publishers(self) -> int:
        """How many publishers are known."""
        return len(self._publishers)

    def forget(self, name: str) -> None:
        """Forget a publisher whose retained status was deleted."""
        self._publishers.pop(name, None)

    def update(self, name: str, status: Status, *, retained: bool) -> None:
        """Take a publisher's status; `retained` where it was published before this connection."""
        known = self._publishers.get(name)
        before = known.state if known is not None else None
        publisher = known or _Publisher(status.state)
        present = status.state in ("online", "resending")
        if present and "engine" in status.model_fields_set:
            publisher.answers = True
        answered = status.engine == self.session
        if publisher.awaited and (retained or not self.gathered) and not answered:
            return  # From before the outage.
        self._publishers[name] = publisher
        publisher.state = status.state
        publisher.lost_s = self._clock.monotonic_s() if status.state == "lost" else None
        if not present or answered:
            publisher.awaited = False
        elif retained and self._held is not None and publisher.answers:
            # It was connected before this connection, and reports once it has sent its messages again.
            publisher.awaited = True
        self._report(name, before, status)

    def _report(self, name: str, before: str | None, status: Status) -> None:
        """Warn of what has changed."""
        if status.state == "lost" and before != "lost":
            self._warn(WarningKind.PUBLISHER_LOST, name)
        elif before in ("lost", "silent") and status.state in ("online", "resending"):
            self._warn(WarningKind.PUBLISHER_BACK, name)
        elif status.state == "stopped" and before not in (None, "stopped"):
            self._warn(WarningKind.PUBLISHER_STOPPED, name)
        if status.dropped and status.state == "online":
            self._warn(WarningKind.PUBLISHER_DROPPED, name, total=status.dropped)
