"""What survives when a store's process is killed: one class that saves it and restores it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from fusion.engine import Engine
from fusion.errors import SnapshotError
from fusion.files.secrets import derived, store_key
from fusion.live.clock import SYSTEM_CLOCK, Clock
from fusion.live.config import FIRST_SNAPSHOT_S
from fusion.live.gaps import Gaps, StreamPosition
from fusion.live.patience import Patience
from fusion.live.scan_log import ScanLog, WriteFile, write_private
from fusion.observations import Observation
from fusion.results import ReasonKind
from fusion.snapshots import FILE_MAX_BYTES, Frozen, freeze, newest_ns, resume
from fusion.store.models import Store

Tap = Callable[[Observation], object]
# A snapshot that could not be written is tried again after this long.
AGAIN_S = 1.0
# What waits for the disk then, for messages.
SNAPSHOT = "snapshot"


@dataclass(frozen=True)
class Restored:
    """The engine to continue with, and what is known of the time before.

    Attributes:
        engine: of the newest snapshot, or a new one.
        since_ns: data time up to which observations were processed; 0 where nothing is known.
        lost: why visits that are open in the books cannot be continued; None if the engine resumes from a snapshot.
        doubts_unreadable: whether doubts of earlier processes are lost, so that every open visit is doubtful.
        past_unknown: whether people may be inside, or scans may wait, that the engine cannot know of.
        messages: for the operator.
    """

    engine: Engine
    since_ns: int
    lost: ReasonKind | None = None
    doubts_unreadable: bool = False
    past_unknown: bool = True
    messages: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Saved:
    """A snapshot that is on disk.

    Attributes:
        newest_ns: newest data time of its engine.
        n_transfers: transfers that its engine's journal had recorded.
    """

    newest_ns: int
    n_transfers: int


@dataclass(frozen=True)
class _Saving:
    """A snapshot on its way to the disk."""

    n_bytes: Future[int]
    saved: Saved
    started_ns: int


class Checkpoint:
    """An engine's snapshot, the scans since, how far each stream had come, and the doubts, in a store's folder.

    Invariant: whenever the process is killed, its folder holds a whole snapshot, the log that names it, and every doubt
    that was raised. Together with what sensors and broker send again, the next process can bill every visit as if the
    kill had not happened, or knows that it cannot and sends the visit to review.

    A snapshot is frozen in the engine's thread and written in another. It carries an HMAC under a key that is made with
    the folder and that only its owner can read: one that something else wrote is not used. Results must be in the books
    before the snapshot that covers them is started: replaying from an older snapshot then posts them a second time, and
    the books ignore duplicates.

    Attributes:
        patience: waits for a full disk.
        gaps: data lost on the way to the engine, and the receipts that this affects.
        scans: scans and sightings since the newest snapshot.
        saved_ns: newest data time of the newest snapshot on disk.
        duration_s, stall_s: from freezing the newest snapshot until it was on disk, and how long its engine waited.
        n_bytes: its size.
    """

    def __init__(
        self,
        folder: Path,
        writer: Executor,
        *,
        every_s: float = 5.0,
        first_s: float = FIRST_SNAPSHOT_S,
        clock: Clock = SYSTEM_CLOCK,
        write_file: WriteFile = write_private,
        patience: Patience | None = None,
    ) -> None:
        """Open the checkpoint of a store's folder; reads nothing yet.

        Args:
            folder: holds snapshot, store.key, scans.jsonl and doubts.json.
            writer: writes snapshots, one at a time.
            every_s: data time between snapshots.
            first_s: data time until the first one; the interval doubles from there up to `every_s`.
            clock: measures how long a snapshot takes.
            write_file: replaces a file atomically.
            patience: waits for a full disk; None: not at all.
        """
        self.patience = patience or Patience(clock, threading.Event(), lambda message: None)
        self._path = folder / "snapshot"
        self._key = derived(store_key(folder), "snapshot")
        self._writer, self._clock = writer, clock
        self._every_ns = round(every_s * 1e9)
        self._interval_ns = min(round(first_s * 1e9), self._every_ns)
        self._saving: _Saving | None = None
        self.gaps = Gaps(folder / "doubts.json", lambda write: self.patience.keep("doubts", write))
        self.scans = ScanLog(folder, write_file, lambda write: self.patience.keep("scans", write))
        # A snapshot that could not be written is tried again from this instant of the clock on.
        self._again_s = float("-inf")
        self.saved_ns = self.n_bytes = 0
        self.duration_s = self.stall_s = 0.0

    def restore(self, store: Store, tap: Tap | None = None) -> Restored:
        """Resume from the newest snapshot, or start a new engine where there is none that fits the store.

        `tap` is called with every observation that the engine uses; see `Engine`.
        """
        messages: list[str] = []
        unreadable = False
        try:
            self.gaps.read()
        except ValueError:
            unreadable = True
            messages.append("doubts.json cannot be read; open visits go to review")
        stopwatch_ns = self._clock.stopwatch_ns
        if not self._path.exists():
            engine = Engine(store, stopwatch_ns, tap)
            return Restored(engine, 0, ReasonKind.STATE_LOST, unreadable, messages=messages)
        data = b""
        try:
            if self._path.stat().st_size > FILE_MAX_BYTES:
                raise SnapshotError(f"snapshot: want a file of at most {FILE_MAX_BYTES} bytes, got a larger one")
            data = self._path.read_bytes()
            engine = resume(data, store, stopwatch_ns, tap, key=self._key)
        except SnapshotError as error:
            messages.append(f"starts with a new engine, open visits go to review: {error}")
            changed = "layout" in str(error)
            lost = ReasonKind.LAYOUT_CHANGED if changed else ReasonKind.SNAPSHOT_UNUSABLE
            self.scans.read(data)
            self._log_after(data, 0, {})
            self.saved_ns = _newest_or_zero(data, self._key)
            return Restored(Engine(store, stopwatch_ns, tap), self.saved_ns, lost, unreadable, messages=messages)
        positions = self.scans.read(data)
        if positions is None:
            messages.append("scans.jsonl does not match the snapshot; scans since then are lost")
        if self.scans.unreadable:
            messages.append(f"scans.jsonl: {self.scans.unreadable} lines cannot be read and are left out")
        self.gaps.resume(positions or {}, engine.newest_ns)
        n_waiting = len(self.scans.waiting)
        self._log_after(data, engine.newest_ns, self.gaps.positions())
        messages.append(
            f"resumes from a snapshot with {len(engine.open_visits)} open visits and {n_waiting} scans and sightings "
            "since"
        )
        self.saved_ns = engine.newest_ns
        # Nothing is known of the time before the first data, nor where streams stood if their log is lost.
        past_unknown = positions is None or not engine.newest_ns
        return Restored(engine, engine.newest_ns, None, unreadable, past_unknown, messages)

    def _log_after(self, data: bytes, newest: int, positions: Mapping[str, StreamPosition]) -> None:
        """Log what arrives from now on behind the snapshot that is on disk, until the next one replaces it."""
        self.scans.prepare(newest)
        self.scans.commit(data, positions)

    def due(self, newest: int) -> bool:
        """Whether data have come far enough for another snapshot, and none is being written. newest: 0 before any."""
        if not newest or self._saving is not None or self._clock.monotonic_s() < self._again_s:
            return False
        return abs(newest - self.saved_ns) >= self._interval_ns

    def set_back(self, back_ns: int) -> None:
        """All clocks were set back: the doubts and the streams' positions are dated by their new time from now on."""
        self.gaps.set_back(back_ns)

    def start(self, engine: Engine, oldest_enter_ns: int) -> None:
        """Freeze a snapshot and write it in the background; `finished` reports when it is on disk.

        Args:
            engine: the engine, between two steps.
            oldest_enter_ns: when the oldest open visit began; earlier gaps are forgotten.
        """
        assert self._saving is None, "one snapshot at a time"
        started_ns = self._clock.stopwatch_ns()
        self.gaps.prune(oldest_enter_ns)
        frozen, positions = freeze(engine), self.gaps.positions()
        self.scans.prepare(engine.newest_ns)
        self.stall_s = (self._clock.stopwatch_ns() - started_ns) * 1e-9
        if engine.newest_ns != self.saved_ns:
            self._interval_ns = min(2 * self._interval_ns, self._every_ns)
        n_bytes = self._writer.submit(self._write, frozen, positions)
        self._saving = _Saving(n_bytes, Saved(engine.newest_ns, engine.journal.n_recorded), started_ns)

    def _write(self, frozen: Frozen, positions: Mapping[str, StreamPosition]) -> int:
        data = frozen.packed(self._key)
        self.scans.commit(data, positions)
        return len(data)

    def finished(self, *, wait: bool = False) -> Saved | None:
        """Return the snapshot that has reached the disk since the last call, if any.

        Where the disk was full, none has; the next one is due after a pause, and the store continues meanwhile.

        Args:
            wait: until the one that is being written is on disk.

        Raises:
            OSError: it could not be written, and the disk was not full, or the caller waits for it.
        """
        saving = self._saving
        if saving is None or not (wait or saving.n_bytes.done()):
            return None
        try:
            self.n_bytes = saving.n_bytes.result()
        except OSError as error:
            self._saving = None
            self.scans.abandon()
            if wait or not self.patience.failed(SNAPSHOT, error):
                raise
            self._again_s = self._clock.monotonic_s() + AGAIN_S
            return None
        self._saving = None
        self.patience.done(SNAPSHOT)
        self.duration_s = (self._clock.stopwatch_ns() - saving.started_ns) * 1e-9
        self.saved_ns = saving.saved.newest_ns
        return saving.saved

    def join(self) -> None:
        """Wait until the snapshot that is being written is on disk, or could not be written."""
        if self._saving is not None:
            wait_for([self._saving.n_bytes])

    def discard(self) -> None:
        """Remove the snapshot, once the data have ended and everything is in the books."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files, after a snapshot that is still being written."""
        self.join()
        self.scans.close()


def change_snapshot(folder: Path, store: Store, change: Callable[[Engine], object]) -> bool:
    """Change the engine in the snapshot of a store that does not run, as if it had been started and stopped.

    Args:
        folder: of the store; no process may use it.
        store: the store.
        change: changes what is in memory.

    Returns:
        Whether there was a snapshot that a start would resume from; any other is left as it is.
    """
    if not (folder / "snapshot").exists():
        return False
    with ThreadPoolExecutor(1, "snapshot") as writer, closing(Checkpoint(folder, writer)) as checkpoint:
        restored = checkpoint.restore(store)
        if restored.lost is not None:
            return False
        change(restored.engine)
        checkpoint.start(restored.engine, 0)
        checkpoint.finished(wait=True)
    return True


def _newest_or_zero(data: bytes, key: bytes) -> int:
    try:
        return newest_ns(data, key)
    except SnapshotError:
        return 0
