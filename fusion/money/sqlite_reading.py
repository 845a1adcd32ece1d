"""Books in SQLite opened to be read: nothing is written, not even beside them, and an incomplete copy is recognised.

While books are in use they have a write-ahead log, `FILE-wal`, which holds the newest entries; whoever closes them
last leaves a file without one (`fusion.money.sqlite`). So a file that is marked for a log and has none is a copy that
was made without it.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import struct
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fusion.errors import LedgerError

# https://www.sqlite.org/fileformat.html, section 1.3: the head of a file of SQLite, and what of it is read here.
_HEAD_BYTES = 100
MAGIC = b"SQLite format 3\0"
_LOGGED = b"\x02\x02"  # bytes 18 and 19: versions of writing and reading with a write-ahead log
# https://www.sqlite.org/walformat.html, section 2.3: whoever uses the log holds a shared lock on this byte of -shm.
_IN_USE_BYTE = 128
_FLOCK = "hhqqi4x"  # struct flock of Linux on 64 bits: type, whence, start, length, process

Stamp = tuple[tuple[int, int] | None, ...]


class Connection(sqlite3.Connection):
    """A connection on which damage of every kind is an error of SQLite's."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """See `sqlite3.Connection`, which lets names of columns that are no text pass as another error."""
        try:
            return super().execute(sql, parameters)
        except UnicodeDecodeError as error:
            raise sqlite3.DatabaseError(f"a name of a table or column is damaged: {error}") from None


def read_sqlite(path: Path, content: str, *, open_here: bool) -> tuple[sqlite3.Connection, Stamp | None]:
    """A connection that can only read, also a read-only copy.

    Args:
        path: the file.
        content: what it holds, for messages.
        open_here: whether this process has it open for writing.

    Returns:
        The connection, and a stamp of the files (see `stamp`) where they are read without a lock: a writer may begin
        meanwhile. None where readers and writers know of each other.

    Raises:
        LedgerError: there is no such file, it is not whole, or it cannot be read.
    """
    path = path.absolute()
    try:
        found = path.stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise LedgerError(f"{path}: the books do not exist; `fusion run` and `fusion serve` create them") from None
        raise LedgerError(f"{path}: cannot be read as {content}: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise LedgerError(f"{path}: want a regular file that holds {content}, got something else")
    if not open_here:
        # Closing a file takes this process's locks on it away, so this is for files that it does not use.
        options, seen = _options(path, content)
    else:
        options, seen = "mode=ro", None
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?{options}", uri=True, isolation_level=None, check_same_thread=False,
            factory=Connection,
        )  # fmt: skip
        if "unix-none" in options:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # The index of the log stays in memory.
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: cannot be read as {content}: {error}") from error
    return connection, seen


def stamp(path: Path) -> Stamp:
    """Size and time of change of the file and its log; differs after a change."""
    stamps: list[tuple[int, int] | None] = []
    for part in (path, _beside(path, "-wal")):
        try:
            found = part.stat()
            stamps.append((found.st_size, found.st_mtime_ns))
        except FileNotFoundError:
            stamps.append(None)
    return tuple(stamps)


def _options(path: Path, content: str) -> tuple[str, Stamp | None]:
    """How to open a file that this process does not use; see `read_sqlite`."""
    log, index = _beside(path, "-wal"), _beside(path, "-shm")
    seen = stamp(path)
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise LedgerError(f"{path}: cannot be read as {content}: {error.strerror}") from error
    if not head:
        raise LedgerError(f"{path}: want {content}, got an empty file")
    if len(head) < _HEAD_BYTES or not head.startswith(MAGIC):
        raise LedgerError(f"{path}: want {content}, got another kind of file")
    if index.exists() and _in_use(index):
        return "mode=ro", None
    _check_size(path, head)
    if head[18:20] != _LOGGED:
        journal = _beside(path, "-journal")
        if journal.exists() and journal.stat().st_size:
            raise LedgerError(f"{path}: a crash left {journal.name}; start the store once, which completes it")
        return "mode=ro&immutable=1", seen
    if not log.exists():
        raise LedgerError(
            f"{path}: this copy is incomplete: it was made while {content} were in use, and {log.name} with the newest "
            "rows is not beside it; make copies with `fusion backup`"
        )
    return ("mode=ro&vfs=unix-none" if os.name == "posix" else "mode=ro"), seen


def _check_size(path: Path, head: bytes) -> None:
    """Raise LedgerError where a file is shorter than its head states."""
    page_bytes = 65536 if head[16:18] == b"\0\1" else int.from_bytes(head[16:18], "big")
    changes, n_pages, valid_for = (int.from_bytes(head[at : at + 4], "big") for at in (24, 28, 92))
    n_bytes = path.stat().st_size
    if changes == valid_for and n_bytes < n_pages * page_bytes:
        raise LedgerError(f"{path}: this copy is incomplete: want {n_pages * page_bytes} bytes, got {n_bytes}")


def _in_use(index: Path) -> bool:
    """Whether another process uses a log, by its index in shared memory."""
    if not sys.platform.startswith("linux") or struct.calcsize("P") != 8:
        return True
    import fcntl

    with open(index, "rb") as file:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _IN_USE_BYTE, 1, 0)
        answer: int = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))[0]
    return answer != fcntl.F_UNLCK


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
