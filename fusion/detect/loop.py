"""The loops: live cameras, of which the newest pictures are looked at, and files, of which all are."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from fusion.detect.frames import Framer
from fusion.detect.health import CameraHealth, Delays
from fusion.detect.readers import CameraReader
from fusion.detect.settings import DELAY_S, Source
from fusion.detect.sources import Shot, file_shots
from fusion.errors import FusionError, in_short, terminal_text
from fusion.live.clock import SYSTEM_CLOCK, Clock
from fusion.observations import Frame
from fusion.store.models import Camera

# Pictures of one run of the model, where it takes any number: more only makes the first of them wait.
BATCH_MAX = 8
# A thread that FFmpeg holds ends with the process.
_JOIN_MAX_S = 1.0
# A model that fails for this many pictures in turn will not recover.
_FAILURES_MAX = 20


class Sink(Protocol):
    """Takes frames."""

    def take(self, observation: Frame) -> None:
        """Take a frame."""
        ...


class LiveDetection:
    """Watches live cameras until it is stopped.

    Each camera's newest picture waits in its reader; the loop takes those that wait, the longest waiting first, as many
    as one run of the model takes. What is not taken in time gives way to a newer picture, so that a slow machine sees
    fewer pictures and none of them late.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        framer: Framer,
        sink: Sink,
        *,
        fps_max: float,
        report: Callable[[str], None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Prepare; `run` begins. report: called with sentences about what changed, from several threads."""
        self._framer, self._sink, self._report, self._clock = framer, sink, report, clock
        self._ready, self._closing = threading.Event(), threading.Event()
        delays = Delays(DELAY_S)
        self._readers = [CameraReader(source, fps_max, delays, self._ready, report, clock) for source in sources]
        self._n_failed = 0

    def health(self) -> list[CameraHealth]:
        """How each camera is doing now."""
        return [reader.health() for reader in self._readers]

    def stop(self) -> None:
        """End the loop after the pictures at hand; from any thread, and from a signal's handler."""
        self._closing.set()
        self._ready.set()

    def run(self) -> None:
        """Watch until stopped. Raises FusionError where the model fails again and again."""
        for reader in self._readers:
            reader.start()
        try:
            while not self._closing.is_set():
                self._clock.wait(self._ready, 0.5)
                self._ready.clear()
                while not self._closing.is_set() and (batch := self._batch()):
                    self._look(batch)
        finally:
            for reader in self._readers:
                reader.stop()
            for reader in self._readers:
                reader.join(_JOIN_MAX_S)

    def _batch(self) -> list[tuple[CameraReader, Shot]]:
        waiting = [(since_s, reader) for reader in self._readers if (since_s := reader.waiting_since_s()) is not None]
        waiting.sort(key=lambda pair: pair[0])
        taken = [(reader, reader.take()) for _, reader in waiting[: self._framer.model.batch or BATCH_MAX]]
        return [(reader, shot) for reader, shot in taken if shot is not None]

    def _look(self, batch: list[tuple[CameraReader, Shot]]) -> None:
        try:
            frames = self._framer.frames([(reader.source.camera, shot) for reader, shot in batch])
        except Exception as error:  # One picture on which a model fails must not end a store's eyes.
            self._n_failed += 1
            self._report(f"the model fails: {terminal_text(in_short(error))}")
            if self._n_failed >= _FAILURES_MAX:
                raise FusionError(f"the model failed {self._n_failed} times in turn: {in_short(error)}") from None
            return
        self._n_failed = 0
        for (reader, _), frame in zip(batch, frames):
            self._sink.take(frame)
            reader.used(frame.t_ns, len(frame.keypoints))


def detect_files(
    sources: Sequence[Source], framer: Framer, sink: Sink, *, fps_max: float, progress: Callable[[Frame], None]
) -> None:
    """Look at all pictures of video files, in order of time over all of them.

    Args:
        sources: the files.
        framer: finds people.
        sink: takes the frames.
        fps_max: pictures a second of each file; others are passed over.
        progress: called with each frame.

    Raises:
        ConfigError: a file is no video, or states no time.
        FusionError: a file is damaged.
    """
    streams = [_shots_of(source, fps_max) for source in sources]
    merged = heapq.merge(*streams, key=lambda pair: pair[1].t_ns)
    n = framer.model.batch or BATCH_MAX
    batch: list[tuple[Camera, Shot]] = []

    def finish() -> None:
        for frame in framer.frames(batch):
            sink.take(frame)
            progress(frame)
        batch.clear()

    for pair in merged:
        batch.append(pair)
        if len(batch) == n:
            finish()
    if batch:
        finish()


def _shots_of(source: Source, fps_max: float) -> Iterator[tuple[Camera, Shot]]:
    for shot in file_shots(source, fps_max):
        yield source.camera, shot
