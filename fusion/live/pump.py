"""The thread between a source and an intake."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from fusion.errors import FusionError
from fusion.live.clock import Clock
from fusion.live.intake import BATCH_MAX, Intake, Refusals, fault_of
from fusion.live.sources import Source

# Characters of a failure that are kept; a longer text is cut.
FAILURE_MAX = 500
# After a restart the engine has as long to catch up as no process was there, at most this long: brokers keep minutes.
BACKLOG_MAX_S = 600.0


class Pump:
    """Moves observations from a source into an intake, and waits for the engine while the source is behind.

    Attributes:
        source: where observations come from.
        failure: why the source failed; "" unless it did.
        error: the error of that.
        catching_up: whether it still works off what waited for this process.
    """

    def __init__(
        self,
        source: Source,
        intake: Intake,
        refusals: Refusals,
        stopping: threading.Event,
        newest_ns: Callable[[], int],
        clock: Clock,
    ) -> None:
        """Connect a source to an intake.

        Args:
            source: where observations come from.
            intake: where they go; it is ended when the source ends.
            refusals: counts observations that no engine can use.
            stopping: ends `run`.
            newest_ns: gives the newest data time, for warnings.
            clock: bounds how long the source may be behind.
        """
        self.failure = ""
        self.error: Exception | None = None
        self.source = source
        self._intake, self._refusals = intake, refusals
        self._stopping, self._newest_ns, self._clock = stopping, newest_ns, clock
        self._started_s, self._held_s = clock.monotonic_s(), 0.0
        self.catching_up, self._holds = True, False

    def run(self) -> None:
        """Move observations until the source ends or fails, or `stopping` is set."""
        self._started_s = self._clock.monotonic_s()
        newest_ns = self._newest_ns()
        if self.source.live and newest_ns:
            # What the broker has kept since the last process takes a while, besides what follows any start.
            self._held_s = min(max((self._clock.wall_ns() - newest_ns) * 1e-9, 0.0), BACKLOG_MAX_S)
        self.source.hold(True)
        try:
            for observation in self.source:
                self.accept(observation)
                if self._stopping.is_set():
                    break
        except FusionError as error:
            self.failure, self.error = str(error)[:FAILURE_MAX], error
        except Exception as error:  # a user's source may raise anything
            self.failure, self.error = f"its source: {type(error).__name__}: {error}"[:FAILURE_MAX], error
        finally:
            self._intake.end()

    def accept(self, observation: Any) -> None:
        """Put one object from the source into the intake, or refuse it."""
        fault = fault_of(observation)
        if fault:
            self._refusals.add("source", fault, self._newest_ns())
            return
        # Catching up ends once the engine, too, has processed everything that waited for it.
        if self.catching_up and not self._holds:
            caught_up = not self.source.behind and len(self._intake) < 2 * BATCH_MAX
            in_time = self._clock.monotonic_s() - self._started_s < self.source.catch_up_max_s + self._held_s
            if caught_up or not in_time:
                self.catching_up = False
                self.source.hold(False)
        self._intake.put(observation, wait=self.catching_up)

    def hold(self, held: bool) -> None:
        """Hold everything while the engine waits in place, then let it catch up; from the engine's thread."""
        now_s = self._clock.monotonic_s()
        if held and not self._holds:
            self._started_s, self._holds, self.catching_up = now_s, True, True
            self._intake.hold(True)
            self.source.hold(True)
        elif self._holds and not held:
            # What has gathered in that time may take as long to be worked off, besides what follows any start.
            self._started_s, self._held_s = now_s, now_s - self._started_s
            self._holds, self.catching_up = False, True
            self._intake.hold(False)
