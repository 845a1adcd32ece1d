"""When a picture of a stream was taken: by the camera's clock where that can be right, else by its arrival.

RTCP sender reports (RFC 3550, section 6.4.1) relate a stream's own time to the camera's clock; USB cameras give the
machine's. Such a clock is believed while pictures arrive neither before they were taken nor later than an engine waits
for them. Otherwise, or without a report, a picture was taken when it arrived less the delay. Pictures arrive in bursts,
so arrival is the stream's own time plus the least difference between both within half a minute, which a late picture
does not move.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

Clock = Literal["camera", "arrival", "file"]

# A camera's clock may be wrong by a tenth of a second; `Reorder` takes an observation up to two seconds after its time.
AHEAD_MAX_NS, BEHIND_MAX_NS = 100_000_000, 2_000_000_000
# Oscillators drift by some 50 millionths, 1.5 ms in half a minute.
WINDOW_NS, _BUCKET_NS = 30_000_000_000, 1_000_000_000
# The stream's own time has begun again where it departs from that of arrival by more.
_RESTART_NS = 5_000_000_000
# Own time that gains or loses more than a fiftieth, beyond the jitter of arrival, cannot be a clock's drift.
_PACE_AFTER_NS, _PACE_TOLERANCE, _PACE_JITTER_NS = 5_000_000_000, 0.02, 300_000_000


class StreamClock:
    """Relates one stream's own time to UTC. Starts afresh with every connection.

    Attributes:
        settled: whether pictures arrive as they are taken. What FFmpeg gathered while it opened a stream comes all at
            once afterwards, and the time of that is no arrival.
        clock: by which the latest picture was dated.
        offset_ns: from the time of arrival to the camera's clock, as far as it is wrong for certain: positive where the
            clock is ahead. None while there is none or it can be right.
        delay_ns: least time between a picture's time by the camera's clock and its arrival; None without that clock.
    """

    def __init__(self) -> None:
        self.settled = False
        self.clock: Clock = "arrival"
        self.offset_ns: int | None = None
        self.delay_ns: int | None = None
        # The least of arrival minus the stream's own time in each second.
        self._least: deque[tuple[int, int]] = deque()
        self._camera_ns: int | None = None
        self._before: tuple[int, int] | None = None

    def packet(self, own_ns: int, arrival_ns: int, camera_ns: int | None) -> None:
        """Take the times of a coded picture.

        Args:
            own_ns: in the stream's own time, whose origin is arbitrary.
            arrival_ns: by this machine's clock, UTC.
            camera_ns: by the camera's clock, UTC; None where it has not been reported.
        """
        if self._before is not None and not self.settled:
            arrived_ns, taken_ns = arrival_ns - self._before[0], own_ns - self._before[1]
            self.settled = 0 < taken_ns <= 2 * arrived_ns
        self._before = arrival_ns, own_ns
        difference = arrival_ns - own_ns
        if self._least and abs(difference - self._least[-1][1]) > _RESTART_NS:
            self._least.clear()
        bucket = arrival_ns // _BUCKET_NS
        if self._least and self._least[-1][0] == bucket:
            self._least[-1] = bucket, min(self._least[-1][1], difference)
        else:
            self._least.append((bucket, difference))
            while self._least[0][0] < bucket - WINDOW_NS // _BUCKET_NS:
                self._least.popleft()
        self._camera_ns = None if camera_ns is None else camera_ns - own_ns
        self.delay_ns = None if self._camera_ns is None else self._arrival_ns - self._camera_ns
        right = self.delay_ns is not None and -AHEAD_MAX_NS <= self.delay_ns <= BEHIND_MAX_NS
        self.clock = "camera" if right else "arrival"
        self.offset_ns = None if right or self.delay_ns is None else -self.delay_ns

    @property
    def off_pace(self) -> bool:
        """Whether the stream's own time runs at another pace than the machine's, as wrong clock rates make it."""
        if not self._least:
            return False
        (first, before_ns), (last, after_ns) = self._least[0], self._least[-1]
        span_ns = (last - first) * _BUCKET_NS
        return span_ns >= _PACE_AFTER_NS and abs(after_ns - before_ns) > _PACE_TOLERANCE * span_ns + _PACE_JITTER_NS

    @property
    def _arrival_ns(self) -> int:
        return min(least for _, least in self._least)

    def taken_ns(self, own_ns: int, delay_ns: int) -> int:
        """UTC nanoseconds at which a picture was taken.

        Args:
            own_ns: the picture's time in the stream's own time.
            delay_ns: from the exposure to the arrival, where no clock of the camera is believed.
        """
        if self.clock == "camera" and self._camera_ns is not None:
            return own_ns + self._camera_ns
        if self.off_pace and self._before is not None:
            return self._before[0] - delay_ns
        return own_ns + self._arrival_ns - delay_ns

    def lag_ns(self, own_ns: int, now_ns: int) -> int:
        """How much later than usual a picture is at an instant: what has queued up before it."""
        return now_ns - own_ns - self._arrival_ns
