"""One thread for each camera: it connects, decodes, keeps the newest picture and connects again. Nothing queues up."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from fusion.detect.health import CameraHealth, Delays, Rate, RateWatch
from fusion.detect.pictures import scale_to_calibration
from fusion.detect.settings import Source
from fusion.detect.sources import LiveVideo, Shot, Unreachable, next_due_ns
from fusion.errors import in_short, terminal_text
from fusion.live.clock import Clock
from fusion.observations import time_fault

# Pauses between attempts to connect double from one to the other; each is shortened at random by up to half.
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.5, 10.0
# After a connection that lasted this long, the next pause is short again.
HELD_S = 5.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A camera's newest picture.

    Attributes:
        shot: the picture and its time.
        since_s: when it was put there, by the machine's monotonic clock.
    """

    shot: Shot
    since_s: float


class CameraReader:
    """Reads one live camera in a thread of its own, and holds its newest picture until it is taken."""

    def __init__(
        self,
        source: Source,
        fps_max: float,
        delays: Delays,
        ready: threading.Event,
        report: Callable[[str], None],
        clock: Clock,
    ) -> None:
        """Prepare to read; `start` begins.

        Args:
            source: the camera.
            fps_max: pictures a second that are kept; others are decoded and forgotten.
            delays: measured for all cameras.
            ready: set when a picture is there.
            report: called with a sentence about what changed; from this reader's thread.
            clock: of the machine.
        """
        self.source, self.name = source, source.camera.name
        self._fps_max, self._delays, self._ready, self._report, self._clock = fps_max, delays, ready, report, clock
        self._lock = threading.Lock()
        self._health = CameraHealth(self.name, source.shown)
        self._waiting: Waiting | None = None
        self._used, self._rate = Rate(), RateWatch()
        self._due_ns: int | None = None
        self._newest_ns = 0
        self._clock_wrong = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"camera {self.name}", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; `join` waits for it."""
        self._closing.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread, which FFmpeg may hold for some seconds."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def waiting_since_s(self) -> float | None:
        """Since when a picture has waited; None where there is none."""
        waiting = self._waiting
        return None if waiting is None else waiting.since_s

    def take(self) -> Shot | None:
        """The newest picture, once."""
        with self._lock:
            waiting, self._waiting = self._waiting, None
        return None if waiting is None else waiting.shot

    def used(self, t_ns: int, n_people: int) -> None:
        """Note that a picture was searched for people and its result published."""
        with self._lock:
            self._used.add(t_ns)
            delay_s = (self._clock.wall_ns() - t_ns) / 1e9
            n_used, n_found = self._health.n_used + 1, self._health.n_people + n_people
            self._health = replace(self._health, delay_s=delay_s, n_used=n_used, n_people=n_found)

    def health(self) -> CameraHealth:
        """How the camera is doing now."""
        with self._lock:
            now_ns = max(self._newest_ns, self._clock.wall_ns())
            usual = round(self._rate.usual, 2)
            online = self._health.state == "online"
            fps = round(self._rate.rate.at(now_ns), 2) if online else 0.0
            fps_used = round(self._used.at(self._newest_ns), 2) if online else 0.0
            return replace(self._health, fps=fps, fps_usual=usual, fps_used=fps_used)

    # ---- in the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause_s = BACKOFF_MIN_S
        while not self._closing.is_set():
            opened_s = self._clock.monotonic_s()
            try:
                self._read()
            except Unreachable as error:
                reason = str(error)
            except Exception as error:  # A fault of the decoder must not end the camera.
                reason = terminal_text(in_short(error)).replace(self.source.address, self.source.shown)
            else:
                return
            if self._closing.is_set():
                return
            if self._clock.monotonic_s() - opened_s > HELD_S:
                pause_s = BACKOFF_MIN_S
            self._set(state="away", error=reason)
            self._report(f"{self.name}: away: {reason}; tries again")
            self._clock.wait(self._closing, pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, BACKOFF_MAX_S)

    def _read(self) -> None:
        """One connection; returns when this reader is asked to stop."""
        video = LiveVideo(self.source, self._clock, self._delay_s)
        before = self._health
        self._rate.reset()
        size: tuple[int, int] | None = None
        for shot in video.shots():
            if self._closing.is_set():
                return
            if size != (shot.frame.width, shot.frame.height):  # At first, and where a camera is set to another size.
                self._check_size(shot)
                size = shot.frame.width, shot.frame.height
                again = before.n_reconnects + (before.size is not None)
                self._set(state="online", error=None, size=size, n_reconnects=again)
                self._report(f"{self.name}: online: {self.source.shown}, {size[0]} x {size[1]}")
            self._note(video, before)
            self._offer(shot)

    def _delay_s(self) -> float:
        stated = self.source.delay_s
        return self._delays.usual_s() if stated is None else stated

    def _note(self, video: LiveVideo, before: CameraHealth) -> None:
        """Counts and clock of the connection, and what changed about the clock."""
        clock = video.clock
        error_s = None if clock.offset_ns is None else round(clock.offset_ns / 1e9, 3)
        believed = clock.clock == "camera" and clock.delay_ns is not None
        self._delays.measure(self.name, max(0.0, clock.delay_ns / 1e9) if believed and clock.delay_ns else None)
        self._set(
            clock=clock.clock,
            clock_error_s=error_s,
            n_received=before.n_received + video.n_received,
            n_damaged=before.n_damaged + video.n_damaged,
            n_passed_over=before.n_passed_over + video.n_passed_over,
            n_undated=before.n_undated + video.n_undated,
        )
        wrong = error_s is not None
        if wrong != self._clock_wrong:
            self._clock_wrong = wrong
            if error_s is not None:
                side = "ahead" if error_s > 0 else "behind"
                text = f"its clock is {abs(error_s):.1f} s {side}; pictures are dated by their arrival"
            else:
                text = "its clock is right again"
            self._report(f"{self.name}: {text}")

    def _check_size(self, shot: Shot) -> None:
        got, (width, height) = (shot.frame.width, shot.frame.height), self.source.camera.size
        if scale_to_calibration(got, (width, height)) is None:
            raise Unreachable(
                f"{self.source.shown}: want pictures in the shape of {width} x {height}, as in cameras.toml,"
                f" got {got[0]} x {got[1]}"
            )

    def _offer(self, shot: Shot) -> None:
        """Keep a picture in place of the one that waits, as often as `fps_max` allows."""
        if time_fault(shot.t_ns) or shot.t_ns <= self._newest_ns:
            self._set(n_disordered=self._health.n_disordered + 1)
            return
        self._newest_ns = shot.t_ns
        changed = self._rate.add(shot.t_ns)
        if changed is not None:
            rate = self._rate.rate.at(shot.t_ns)
            text = f"sends {rate:.1f} pictures a second"
            text += f", usually {self._rate.usual:.1f}" if changed else " again, as usual"
            self._report(f"{self.name}: {text}")
        if self._due_ns is not None and shot.t_ns < self._due_ns:
            self._set(n_thinned=self._health.n_thinned + 1)
            return
        self._due_ns = next_due_ns(self._due_ns, shot.t_ns, self._fps_max)
        with self._lock:
            if self._waiting is not None:
                self._health = replace(self._health, n_dropped=self._health.n_dropped + 1)
            since_s = self._clock.monotonic_s() if self._waiting is None else self._waiting.since_s
            self._waiting = Waiting(shot, since_s)
        self._ready.set()

    def _set(self, **fields: object) -> None:
        with self._lock:
            self._health = replace(self._health, **fields)  # type: ignore[arg-type]
