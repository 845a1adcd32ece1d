"""Files of lines that a running store adds to, while other lines are taken out of them or changed."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import IO

from fusion.files.atomic import flush_folder
from fusion.files.private import open_private

# What stands in the place of a line.
Change = Callable[[bytes], bytes]


def append_whole(file: FileIO, data: bytes) -> None:
    """Add bytes to a file that was opened for appending, without a buffer and by one writer: all of them, or none.

    Raises:
        OSError: the disk is full, or fails; the file is as it was, so that the caller may try again.
    """
    end = file.seek(0, os.SEEK_END)
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError:
        file.truncate(end)  # Needs no room on the disk.
        raise


class GrowingLines:
    """A file of lines, open for appending; from any thread."""

    def __init__(self, path: Path) -> None:
        """Open a file, or begin it. Raises OSError, ConfigError as `open_private`."""
        self._path, self._lock = path, threading.Lock()
        self._file: FileIO = open_private(path, "ab", buffering=0)
        self._end_torn_line()

    def add(self, line: str) -> None:
        """Add a line, given without its end; it is in the file when this returns. Raises OSError, as `append_whole`."""
        with self._lock:
            append_whole(self._file, (line + "\n").encode())

    def change(self, changed: Change, *, dry_run: bool = False) -> int:
        """As `change_lines`; lines are added meanwhile."""
        return change_lines(self._path, changed, dry_run=dry_run, lock=self._lock, replaced=self._reopen)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    def _reopen(self) -> None:
        before, self._file = self._file, open_private(self._path, "ab", buffering=0)
        before.close()

    def _end_torn_line(self) -> None:
        """Complete a line that a kill cut short: it is lost, the next line is not."""
        with open(self._path, "rb") as content:
            content.seek(max(content.seek(0, os.SEEK_END) - 1, 0))
            if content.read() not in (b"", b"\n"):
                append_whole(self._file, b"\n")


def change_lines(
    path: Path,
    changed: Change,
    *,
    dry_run: bool = False,
    lock: contextlib.AbstractContextManager[object] | None = None,
    replaced: Callable[[], object] = lambda: None,
) -> int:
    """Change or drop lines of a file: after a crash at any instant it holds all its old lines, or all the new ones.

    Args:
        path: the file; where it is missing, nothing is done.
        changed: gives for a whole line, with its end, what stands in its place; b"" drops it.
        dry_run: write nothing.
        lock: held by whoever adds a line. It is taken only once the kept lines have been copied, so that no writer
            waits for a long file.
        replaced: called under the lock when the file is another one.

    Returns:
        The number of lines that were changed or dropped, or would be.

    Raises:
        OSError: the file cannot be read or replaced; it is as it was.
    """
    new = path.with_name(path.name + ".new")
    if not dry_run:
        new.unlink(missing_ok=True)  # Left by a crash, and past its time too.
    if not path.is_file() or path.is_symlink():
        return 0
    n_changed, end = 0, 0
    # Spans of bytes that stay, and the lines between them that are others now.
    content: list[tuple[int, int] | bytes] = []
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break  # Still being written, or torn.
            start, end = end, end + len(line)
            if (put := changed(line)) != line:
                n_changed += 1
                if put:
                    content.append(put)
            elif content and isinstance(last := content[-1], tuple) and last[1] == start:
                content[-1] = (last[0], end)
            else:
                content.append((start, end))
    if dry_run or not n_changed:
        return n_changed
    try:
        with open(path, "rb") as old, open_private(new, "wb") as copy:
            for part in content:
                if isinstance(part, bytes):
                    copy.write(part)
                else:
                    _copy(old, copy, *part)
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
    return n_changed


def dropping(unwanted: Callable[[bytes], bool]) -> Change:
    """Drops the lines that are unwanted."""
    return lambda line: b"" if unwanted(line) else line


def _copy(old: IO[bytes], new: IO[bytes], start: int, stop: int) -> None:
    old.seek(start)
    while start < stop and (data := old.read(min(stop - start, 1 << 20))):
        new.write(data)
        start += len(data)
