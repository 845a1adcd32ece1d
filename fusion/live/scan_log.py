"""Scans, doors and sightings since the newest snapshot, in a file, since gates and readers report them only once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from io import FileIO
from pathlib import Path

from fusion.files.atomic import replace_file
from fusion.files.growing import append_whole
from fusion.files.lines import line_of
from fusion.files.private import open_private
from fusion.live.gaps import StreamPosition
from fusion.live.intake import EVENTS_MAX, parse_event
from fusion.observations import GateEvent, GateScan, ItemSighting, Observation

# Sightings are recognised for as long as sensors may send them again.
RECOGNISED_S = 15.0
# A scan whose gate was opened reaches the engine within this long.
PROMISED_S = 60.0

Event = GateEvent | ItemSighting
Write = Callable[[], object]
# Replaces a file's content atomically.
WriteFile = Callable[[Path, bytes], None]
# Accounts and paths of people are in these files, so only their owner can read them.
write_private: WriteFile = partial(replace_file, private=True)


class _Log:
    """A file of lines, and the lines that are not in it yet because the disk was full."""

    def __init__(self, path: Path) -> None:
        self._file: FileIO = open_private(path, "ab", buffering=0)
        self._left: deque[bytes] = deque()

    def add(self, line: bytes) -> None:
        self._left.append(line)

    def flush(self) -> None:
        """Write what is left. Raises OSError; what was not written is still left then."""
        while self._left:
            append_whole(self._file, self._left[0])
            self._left.popleft()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.flush()
        self._file.close()


class ScanLog:
    """What an engine must still be given after it resumes from a snapshot, and how far each stream had come by then.

    The first line of a log names its snapshot by SHA-256; each further line is a scan or a sighting that this snapshot
    does not hold, or one that it does hold and that a reader may send again.

    Invariant: at every instant, `scans.jsonl` or `scans.new` names the snapshot in the folder and holds every scan and
    sighting that arrived after it. While a new snapshot is on its way to the disk, events are therefore appended to the
    log of the old one and to that of the new.

    Attributes:
        waiting: events that the engine has not been given yet, oldest first.
        unreadable: lines that were left out, torn by a loss of power.
    """

    def __init__(
        self,
        folder: Path,
        write_file: WriteFile = write_private,
        keep: Callable[[Write], object] = lambda write: write(),
    ) -> None:
        """Use a store's folder.

        write_file: replaces a file; keep: calls a write of the engine's thread, again where the disk was full.
        """
        self._keep = keep
        self._path = folder / "scans.jsonl"
        self._snapshot_path = folder / "snapshot"
        self._write_file = write_file
        self._file: _Log | None = None
        # While a snapshot is being written: the lines of its log until that file exists, then the file.
        self._next_lines: list[bytes] | None = None
        self._next_file: _Log | None = None
        self._lock = threading.Lock()
        self._given: deque[Event] = deque(maxlen=EVENTS_MAX)
        self.waiting: deque[Event] = deque()
        self._promised: list[GateScan] = []
        self.unreadable = 0

    def read(self, snapshot: bytes) -> dict[str, StreamPosition] | None:
        """Read the events since a snapshot. Returns how far each stream had come; None if no log names the snapshot."""
        digest = hashlib.sha256(snapshot).hexdigest()
        for path in (self._path.with_suffix(".new"), self._path):
            lines = path.read_bytes().splitlines() if path.exists() else []
            try:
                head = json.loads(lines[0])
                if head["after"] != digest:
                    continue
                positions = {
                    str(name): StreamPosition(int(newest_ns), int(step_ns), bool(awaited))
                    for name, (newest_ns, step_ns, awaited) in head["streams"].items()
                }
            except (IndexError, ValueError, KeyError, TypeError, AttributeError):
                continue
            for line in lines[1:]:
                self._read_event(line)
            self.waiting = deque(sorted(self.waiting, key=lambda event: event.t_ns))
            if path != self._path:
                os.replace(path, self._path)
            return positions
        return None

    def _read_event(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            event = parse_event(row["gate"], json.dumps(row["line"]))
            since = bool(row["since"])
        except (ValueError, KeyError, TypeError):
            self.unreadable += 1
            return
        (self.waiting if since else self._given).append(event)

    def holds(self, observation: Observation) -> bool:
        """Whether this is a sighting that arrived before."""
        return isinstance(observation, ItemSighting) and (observation in self._given or observation in self.waiting)

    def promise(self, scan: GateScan) -> None:
        """Log a scan whose gate is about to open, before the engine is given it; from the thread that answers gates.

        Where the disk is full, the gate opens nevertheless, and the line is written once there is room.
        """
        with self._lock:
            self._promised.append(scan)
            self._append(_line(scan, since=True))
            with contextlib.suppress(OSError):
                self._flush()

    def add(self, event: Event) -> None:
        """Log an event that has arrived, just before the engine is given it."""
        self._given.append(event)
        with self._lock:
            if isinstance(event, GateScan) and event in self._promised:
                self._promised.remove(event)
            else:
                self._append(_line(event, since=True))
        self._keep(self._flushed)

    def next_waiting(self) -> Event:
        """Remove the oldest event that waits and return it for the engine; it is logged already."""
        event = self.waiting.popleft()
        self._given.append(event)
        return event

    def prepare(self, newest_ns: int) -> None:
        """Begin the log of a snapshot that has just been frozen, with the events that its engine has not been given."""
        while self._given and self._given[0].t_ns < newest_ns - RECOGNISED_S * 1e9:
            self._given.popleft()
        with self._lock:
            # A promise may never be fulfilled, if the gate could not be reached.
            self._promised = [scan for scan in self._promised if scan.t_ns > newest_ns - PROMISED_S * 1e9]
            self._next_lines = [_line(event, since=False) for event in self._given]
            self._next_lines += [_line(event, since=True) for event in (*self.waiting, *self._promised)]

    def commit(self, snapshot: bytes, positions: Mapping[str, StreamPosition]) -> None:
        """Write the snapshot that was prepared for, and its log; may run in another thread than the other methods."""
        new = self._path.with_suffix(".new")
        head = {"after": hashlib.sha256(snapshot).hexdigest(), "streams": positions}
        with self._lock:
            assert self._next_lines is not None, "prepare comes first"
            lines, self._next_lines = self._next_lines, []
        # A log must be whole before it can be taken for the one that matches.
        self._write_file(new, json.dumps(head).encode() + b"\n" + b"".join(lines))
        with self._lock:
            file = _Log(new)  # stays open for the events to come
            for line in self._next_lines:
                file.add(line)
            # Until the snapshot is on disk, events belong to both logs.
            self._next_lines, self._next_file = None, file
            file.flush()
        self._write_file(self._snapshot_path, snapshot)
        with self._lock:
            os.replace(new, self._path)
            if self._file is not None:
                self._file.close()
            self._file, self._next_file = file, None

    def close(self) -> None:
        """Close the files."""
        for file in (self._file, self._next_file):
            if file is not None:
                file.close()

    def abandon(self) -> None:
        """The snapshot that was prepared for could not be written: the one before it and its log still hold."""
        with self._lock:
            if self._next_file is not None:
                self._next_file.close()
            self._next_lines = self._next_file = None

    def _append(self, line: bytes) -> None:
        if self._next_lines is not None:
            self._next_lines.append(line)
        for file in (self._file, self._next_file):
            if file is not None:
                file.add(line)

    def _flushed(self) -> None:
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        for file in (self._file, self._next_file):
            if file is not None:
                file.flush()


def _line(event: Event, *, since: bool) -> bytes:
    row = {"gate": not isinstance(event, ItemSighting), "since": since, "line": line_of(event)}
    return json.dumps(row).encode() + b"\n"
