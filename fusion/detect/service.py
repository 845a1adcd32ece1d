"""`fusion detect` as a process: opens models and cameras, runs the loop, reports, and ends in order."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fusion.detect.appearance import AppearanceModel
from fusion.detect.frames import Framer
from fusion.detect.health import CameraHealth
from fusion.detect.loop import LiveDetection, detect_files
from fusion.detect.models import load_model
from fusion.detect.settings import DetectSettings, Source
from fusion.errors import FusionError, terminal_text
from fusion.feeds.destination import Destination
from fusion.files.atomic import replace_file
from fusion.live.clock import SYSTEM_CLOCK, Clock
from fusion.observations import Frame
from fusion.store.models import Store

# How often the health file is replaced, and people see a line for each camera.
HEALTH_EVERY_S, LINES_EVERY_S = 1.0, 30.0


class Stop(Protocol):
    """What ends the process, such as a signal."""

    def is_set(self) -> bool:
        """Whether to end."""
        ...

    def wait(self, timeout: float) -> object:
        """Return once that is so, or after `timeout` seconds."""
        ...


class Deadline:
    """Stops after a time, or when another stop does."""

    def __init__(self, stop: Stop, after_s: float, clock: Clock = SYSTEM_CLOCK) -> None:
        """The time runs from here."""
        self._stop, self._clock, self._until_s = stop, clock, clock.monotonic_s() + after_s

    def is_set(self) -> bool:
        """See `Stop`."""
        return self._stop.is_set() or self._clock.monotonic_s() >= self._until_s

    def wait(self, timeout: float) -> object:
        """See `Stop`."""
        return self._stop.wait(min(timeout, max(0.0, self._until_s - self._clock.monotonic_s())))


@dataclass(frozen=True)
class Totals:
    """What a run did.

    Attributes:
        n_pictures: in which people were sought.
        n_people: found in them.
    """

    n_pictures: int
    n_people: int


def open_framer(settings: DetectSettings, store: Store) -> Framer:
    """Load the models. Raises ConfigError, FusionError as `load_model` and `Framer`."""
    model = load_model(settings.model, settings.detector)
    appearance = None
    if settings.appearance is not None:
        device, threads = settings.model.device, settings.model.threads
        appearance = AppearanceModel(settings.appearance, store.appearance_dim, device, threads)
    return Framer(store, model, appearance)


class Service:
    """One run over live cameras."""

    def __init__(
        self,
        sources: Sequence[Source],
        framer: Framer,
        destination: Destination,
        *,
        fps_max: float,
        show: Callable[[str], None],
        health_file: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Prepare. show: prints a line; health_file: replaced every second with JSON."""
        self._destination, self._health_file, self._clock = destination, health_file, clock
        self._framer = framer
        self._show_line, self._show_lock = show, threading.Lock()
        self.detection = LiveDetection(sources, framer, destination, fps_max=fps_max, report=self._show, clock=clock)
        self._failure: BaseException | None = None
        self._shown: Counter[str] = Counter()
        self._state = destination.state

    def run(self, stop: Stop) -> Totals:
        """Watch until stopped. Raises FusionError where the model fails for good."""
        worker = threading.Thread(target=self._work, name="detect", daemon=True)
        worker.start()
        next_lines_s = self._clock.monotonic_s() + LINES_EVERY_S
        while not stop.is_set() and worker.is_alive():
            stop.wait(HEALTH_EVERY_S)
            self._watch_destination()
            health = self.detection.health()
            self._write(health)
            if self._clock.monotonic_s() >= next_lines_s:
                next_lines_s += LINES_EVERY_S
                for camera in health:
                    self._show(camera.line())
        self.detection.stop()
        worker.join()
        health = self.detection.health()
        self._destination.close()
        self._watch_destination()
        self._write(health)
        if self._failure is not None:
            raise self._failure
        return Totals(sum(camera.n_used for camera in health), sum(camera.n_people for camera in health))

    def _work(self) -> None:
        try:
            self.detection.run()
        except BaseException as error:  # Raised again in the main thread, which ends the process.
            self._failure = error

    def _show(self, line: str) -> None:
        with self._show_lock:
            self._show_line(terminal_text(line))

    def _watch_destination(self) -> None:
        """Report what changed about the destination: its connection, and what did not get there."""
        if self._destination.state != self._state:
            self._state = self._destination.state
            self._show(f"destination: {self._state}")
        for reason, n in self._destination.lost.items():
            if n >= 10 * self._shown[reason]:  # The first, and every tenfold.
                self._shown[reason] = n
                self._show(f"destination: {n} lost: {reason}")

    def _write(self, health: Sequence[CameraHealth]) -> None:
        if self._health_file is None:
            return
        cameras = {camera.camera: camera.fields() for camera in health}
        content = {
            "destination": self._destination.state, "lost": dict(self._destination.lost),
            "rejected": dict(self._framer.rejected), "cameras": cameras,
        }  # fmt: skip
        try:
            replace_file(self._health_file, json.dumps(content, indent=1) + "\n", durable=False)
        except OSError as error:
            # A full disk must not end a store's eyes.
            if not self._shown["health"]:
                self._shown["health"] = 1
                self._show(f"cannot write {self._health_file}: {error.strerror}")


def run_files(
    sources: Sequence[Source],
    framer: Framer,
    destination: Destination,
    *,
    fps_max: float,
    stop: Stop,
    progress: Callable[[], object],
) -> Totals:
    """Look at video files until their end, or until stopped.

    Raises:
        ConfigError, FusionError: as `detect_files`; what was found up to there is delivered.
    """
    n_pictures = n_people = 0

    def count(frame: Frame) -> None:
        nonlocal n_pictures, n_people
        n_pictures, n_people = n_pictures + 1, n_people + len(frame.keypoints)
        progress()
        if stop.is_set():
            raise _Stopped

    try:
        detect_files(sources, framer, destination, fps_max=fps_max, progress=count)
    except _Stopped:
        pass
    finally:
        destination.close()
    return Totals(n_pictures, n_people)


class _Stopped(FusionError):
    """Ends a run over files from within."""
