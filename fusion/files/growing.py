"""Files of lines that a running store adds to, while lines that are past their time are taken out of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, TextIO

from fusion.files.atomic import flush_folder
from fusion.files.private import open_private


class GrowingLines:
    """A file of lines, open for appending; from any thread."""

    def __init__(self, path: Path) -> None:
        """Open a file, or begin it. Raises OSError, ConfigError as `open_private`."""
        self._path, self._lock = path, threading.Lock()
        self._file: TextIO = open_private(path, "a")
        self._end_torn_line()

    def add(self, line: str) -> None:
        """Add a line, given without its end; it is in the file when this returns."""
        with self._lock:
            self._file.write(line + "\n")
            self._file.flush()

    def drop(self, unwanted: Callable[[bytes], bool], *, dry_run: bool = False) -> int:
        """As `drop_lines`; lines are added meanwhile."""
        return drop_lines(self._path, unwanted, dry_run=dry_run, lock=self._lock, replaced=self._reopen)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    def _reopen(self) -> None:
        before, self._file = self._file, open_private(self._path, "a")
        before.close()

    def _end_torn_line(self) -> None:
        """Complete a line that a kill cut short: it is lost, the next line is not."""
        with open(self._path, "rb") as content:
            content.seek(max(content.seek(0, os.SEEK_END) - 1, 0))
            if content.read() not in (b"", b"\n"):
                self._file.write("\n")


def drop_lines(
    path: Path,
    unwanted: Callable[[bytes], bool],
    *,
    dry_run: bool = False,
    lock: contextlib.AbstractContextManager[object] | None = None,
    replaced: Callable[[], object] = lambda: None,
) -> int:
    """Take lines out of a file: after a crash at any instant it holds all its old lines, or all that are kept.

    Args:
        path: the file; where it is missing, nothing is done.
        unwanted: says of a whole line whether it is dropped.
        dry_run: write nothing.
        lock: held by whoever adds a line. It is taken only once the kept lines have been copied, so that no writer
            waits for a long file.
        replaced: called under the lock when the file is another one.

    Returns:
        The number of lines that were dropped, or would be.

    Raises:
        OSError: the file cannot be read or replaced; it is as it was.
    """
    new = path.with_name(path.name + ".new")
    if not dry_run:
        new.unlink(missing_ok=True)  # Left by a crash, and past its time too.
    if not path.is_file() or path.is_symlink():
        return 0
    n_dropped, end = 0, 0
    kept: list[tuple[int, int]] = []  # Spans of bytes.
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break  # Still being written, or torn.
            start, end = end, end + len(line)
            if unwanted(line):
                n_dropped += 1
            elif kept and kept[-1][1] == start:
                kept[-1] = (kept[-1][0], end)
            else:
                kept.append((start, end))
    if dry_run or not n_dropped:
        return n_dropped
    try:
        with open(path, "rb") as old, open_private(new, "wb") as copy:
            for start, stop in kept:
                _copy(old, copy, start, stop)
            copy.flush()
            os.fsync(copy.fileno())
            with lock or contextlib.nullcontext():
                old.seek(end)
                shutil.copyfileobj(old, copy)
                copy.flush()
                os.fsync(copy.fileno())
                os.replace(new, path)
                replaced()
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)
    return n_dropped


def _copy(old: IO[bytes], new: IO[bytes], start: int, stop: int) -> None:
    old.seek(start)
    while start < stop and (data := old.read(min(stop - start, 1 << 20))):
        new.write(data)
        start += len(data)
