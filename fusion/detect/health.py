"""How each camera is doing: what it delivers, how late, what was lost, and sentences about what changed."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import asdict, dataclass
from typing import Literal

from fusion.detect.timing import Clock

State = Literal["connecting", "online", "away", "refused", "ended"]

# A rate is measured over this long, and is a fault once it is below this share of the usual one for as long again.
RATE_WINDOW_NS, RATE_SHARE = 4_000_000_000, 0.7
# The usual rate forgets a higher one within some ten minutes of windows.
_USUAL_DECAY = 0.995


@dataclass(frozen=True, slots=True)
class CameraHealth:
    """One camera at one instant.

    Attributes:
        camera: its name.
        source: where its video comes from, without secrets.
        state: of its connection.
        error: why it is away or refused; None while all is well.
        size: of its pictures, pixels; None before the first.
        fps: pictures a second that it sends.
        fps_usual: the same as it usually is.
        fps_used: pictures a second in which people were sought.
        delay_s: from the exposure to the publication, the latest; None before the first.
        clock: that dates its pictures.
        clock_error_s: how far the camera's own clock is ahead, where it is wrong for certain.
        n_received: coded pictures that came.
        n_used: pictures in which people were sought.
        n_people: people in them.
        n_dropped: decoded pictures that gave way to newer ones.
        n_passed_over: pictures that were not decoded, or not used, since they came too late.
        n_damaged: coded pictures that could not be decoded.
        n_thinned: decoded pictures that came more often than they are wanted.
        n_undated: pictures without a time, such as those that came while the stream was opened.
        n_disordered: pictures that were no later than the one before.
        n_reconnects: connections after the first.
    """

    camera: str
    source: str
    state: State = "connecting"
    error: str | None = None
    size: tuple[int, int] | None = None
    fps: float = 0.0
    fps_usual: float = 0.0
    fps_used: float = 0.0
    delay_s: float | None = None
    clock: Clock = "arrival"
    clock_error_s: float | None = None
    n_received: int = 0
    n_used: int = 0
    n_people: int = 0
    n_dropped: int = 0
    n_passed_over: int = 0
    n_damaged: int = 0
    n_thinned: int = 0
    n_undated: int = 0
    n_disordered: int = 0
    n_reconnects: int = 0

    def line(self) -> str:
        """One line for people."""
        parts = [f"{self.camera}: {self.state}"]
        if self.error is not None:
            parts.append(self.error)
        if self.state == "online":
            parts.append(f"{self.fps:.1f} pictures a second, {self.fps_used:.1f} used")
            if self.delay_s is not None:
                parts.append(f"{self.delay_s:.2f} s late")
            parts.append("time by the camera's clock" if self.clock == "camera" else f"time by {self.clock}")
        lost = {"dropped": self.n_dropped, "passed over": self.n_passed_over, "damaged": self.n_damaged}
        parts += [f"{n} {what}" for what, n in lost.items() if n]
        if self.n_reconnects:
            parts.append(f"connected again {self.n_reconnects} times")
        return ", ".join(parts)

    def fields(self) -> dict[str, object]:
        """As a table for JSON."""
        return asdict(self)


class Rate:
    """Events a second over the last window of data time."""

    def __init__(self) -> None:
        self._times: deque[int] = deque()

    def add(self, t_ns: int) -> None:
        """Take an event."""
        self._times.append(t_ns)
        while self._times and self._times[0] <= t_ns - RATE_WINDOW_NS:
            self._times.popleft()

    def at(self, now_ns: int) -> float:
        """Events a second in the window before an instant; over a shorter time at the beginning."""
        inside = [t_ns for t_ns in self._times if now_ns - RATE_WINDOW_NS < t_ns <= now_ns]
        if len(inside) < 2:
            return 0.0
        # A rate of steady events, whatever part of a period lies before the first and after the last.
        span_ns = max(inside[-1] - inside[0], now_ns - inside[0] - (inside[-1] - inside[0]) // (len(inside) - 1))
        return (len(inside) - 1) * 1e9 / max(span_ns, 1)


class RateWatch:
    """Notices when a camera sends fewer pictures than it usually does, and when it does so no longer."""

    def __init__(self) -> None:
        self.rate = Rate()
        self.usual = 0.0
        self.low = False
        self._window_ends_ns: int | None = None
        self._n_low = 0

    def reset(self) -> None:
        """A new connection: what lies before it is no rate of this one."""
        self.rate, self._window_ends_ns, self._n_low = Rate(), None, 0

    def add(self, t_ns: int) -> bool | None:
        """Take a picture. Returns whether the rate has become low, or is right again; None where neither changed."""
        self.rate.add(t_ns)
        if self._window_ends_ns is None:
            self._window_ends_ns = t_ns + RATE_WINDOW_NS
            return None
        if t_ns < self._window_ends_ns:
            return None
        self._window_ends_ns = t_ns + RATE_WINDOW_NS
        rate = self.rate.at(t_ns)
        self._n_low = self._n_low + 1 if rate < RATE_SHARE * self.usual else 0
        was_low, self.low = self.low, self._n_low >= 2 or (self.low and self._n_low > 0)
        # A rate that stays low becomes the usual one.
        self.usual = max(rate, self.usual * _USUAL_DECAY)
        return self.low if self.low != was_low else None


class Delays:
    """Measured delays of the cameras whose clocks are believed, for those that have none; safe in several threads."""

    def __init__(self, assumed_s: float) -> None:
        """Start with nothing measured. assumed_s: the delay until then."""
        self._assumed_s = assumed_s
        self._measured: dict[str, float] = {}
        self._lock = threading.Lock()

    def measure(self, camera: str, delay_s: float | None) -> None:
        """Take a camera's delay; None where its clock is no longer believed."""
        with self._lock:
            if delay_s is None:
                self._measured.pop(camera, None)
            else:
                self._measured[camera] = delay_s

    def usual_s(self) -> float:
        """The median of the measured delays, or what is assumed."""
        with self._lock:
            values = sorted(self._measured.values())
        return values[len(values) // 2] if values else self._assumed_s
