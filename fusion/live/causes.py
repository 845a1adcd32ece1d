"""Why a store's process ended: a fault of its own, or one of its surroundings that passes without anybody's help.

A full disk, a database or a broker that is away concern every store alike, and no restart mends them. A store waits for
them with pauses, as long as they last; only deaths of other causes count towards parking it.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

# A disk with less free than this is full: SQLite's log and a snapshot need about as much for one step.
DISK_FREE_MIN_BYTES = 1 << 20

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_AWAY = {
    errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.ETIMEDOUT, errno.EHOSTUNREACH,
    errno.ENETUNREACH, errno.ENETDOWN,
}  # fmt: skip
_OF_THE_MACHINE = {errno.EROFS: "the disk is read-only", errno.EIO: "the disk fails", errno.ENFILE: "too many files"}


def common_cause(error: BaseException) -> str:
    """What an error says about the surroundings, from the chain of errors that led to it; "" for any other fault."""
    seen: BaseException | None = error
    while seen is not None:
        if cause := _cause(seen):
            return cause
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return ""


def _cause(error: BaseException) -> str:
    if isinstance(error, OSError):
        if error.errno in _DISK_FULL:
            return "the disk is full"
        if error.errno in _AWAY or isinstance(error, TimeoutError):
            return "a server is away"
        return _OF_THE_MACHINE.get(error.errno or 0, "")
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # The low byte is the primary code.
        if code == sqlite3.SQLITE_FULL:
            return "the disk is full"
        return {sqlite3.SQLITE_IOERR: "the disk fails", sqlite3.SQLITE_BUSY: "the books are in use"}.get(code, "")
    # By name, since the package is optional: the server cannot be reached, ends, or starts.
    kind = type(error)
    is_away = kind.__module__.split(".")[0] == "psycopg" and any(
        base.__name__ == "OperationalError" for base in kind.__mro__
    )
    return "the database is away" if is_away else ""


def disk_is_full(folder: Path) -> bool:
    """Whether the disk of a folder has no room for another step; it may kill a process without a word."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < DISK_FREE_MIN_BYTES


__all__ = ["common_cause", "disk_is_full"]
