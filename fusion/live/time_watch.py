"""Data time against the machine's: do the sensors of a live store show the time that it is?

Data time stays the engine's only clock. The comparison is for people, who see a wrong clock in a warning rather than on
a receipt.
"""

from __future__ import annotations

from enum import StrEnum

from fusion.live.clock import Clock
from fusion.results import Warning, WarningKind

# Sensors, network and engine together may take a few seconds; a larger difference is a clock, or a delay that needs
# attention, once it has lasted for OFF_FOR_S.
OFF_MAX_S, OFF_FOR_S = 5.0, 10.0
# Without new data for this long, data time stands still and is not compared.
FRESH_S = 1.0


class TimeState(StrEnum):
    """How data time compares with the machine's."""

    UNKNOWN = "unknown"  # no data yet, or none any more
    IN_TIME = "in time"
    BEHIND = "behind"  # what waited for this process is being worked off
    OFF = "off"  # sensors and machine disagree
    REPLAYED = "replayed"  # a recording or a simulation has its own time


class TimeWatch:
    """Compares the newest data time with the machine's clock.

    Attributes:
        off_s: data time minus machine time when data last came; None before the first.
        state: what that means.
    """

    def __init__(self, store_id: str, clock: Clock) -> None:
        self.off_s: float | None = None
        self.state = TimeState.UNKNOWN
        self._store_id, self._clock = store_id, clock
        self._newest_ns = 0
        self._came_s = self._fine_s = clock.monotonic_s()

    @property
    def fault(self) -> str:
        """In words, where sensors and machine disagree; else ""."""
        if self.state is not TimeState.OFF or self.off_s is None:
            return ""
        return f"time {abs(self.off_s):.0f} s {'ahead of' if self.off_s > 0 else 'behind'} this machine"

    def observe(self, newest_ns: int, *, live: bool, behind: bool) -> Warning | None:
        """Compare.

        Args:
            newest_ns: newest data time.
            live: whether the source's times are meant to be those of now.
            behind: whether it still gives what waited for this process.

        Returns:
            A warning where the state has changed between in time and off.
        """
        now_s = self._clock.monotonic_s()
        if not newest_ns or newest_ns == self._newest_ns:
            if now_s - self._came_s > FRESH_S and self.state is not TimeState.OFF:
                self.state = TimeState.UNKNOWN
                self._fine_s = now_s
            return None
        self._newest_ns, self._came_s = newest_ns, now_s
        self.off_s = off_s = (newest_ns - self._clock.wall_ns()) * 1e-9
        was_off = self.state is TimeState.OFF
        if not live or (behind and off_s < OFF_MAX_S):
            self.state, self._fine_s = TimeState.REPLAYED if not live else TimeState.BEHIND, now_s
        elif abs(off_s) <= OFF_MAX_S:
            self.state, self._fine_s = TimeState.IN_TIME, now_s
            if was_off:
                return Warning(newest_ns, WarningKind.MACHINE_TIME_AGREES, self._store_id)
        elif now_s - self._fine_s >= OFF_FOR_S and not was_off:
            self.state = TimeState.OFF
            seconds = round(off_s, 1)
            return Warning(newest_ns, WarningKind.MACHINE_TIME_DIFFERS, self._store_id, seconds=seconds)
        elif not was_off:
            self.state = TimeState.BEHIND if off_s < 0 else TimeState.IN_TIME
        return None
