"""Folders, files and locks that only their owner may use: whatever is kept about people, and every key.

Modes are set when a file is made, never afterwards: between the two another user could open it. What an older version
left open to others is tightened by `tighten`, which reports it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fusion.errors import ConfigError

FOLDER_MODE, FILE_MODE = 0o700, 0o600
# File in the folder of a live store; held by the one process that runs it.
LOCK_FILE = "lock"
# Rights of anybody but the owner.
OTHERS = 0o077
# Windows has no such modes: a new file inherits the folder's access list.
_HAS_MODES = os.name != "nt"
# The line of /proc/locks for a whole-file lock: number, FLOCK, ADVISORY, WRITE, process, device:inode, start, end.
_LOCKS = Path("/proc/locks")


def private_folder(path: str | os.PathLike[str]) -> Path:
    """A folder that only its owner may enter, made where it is missing, with the missing ones above it.

    A folder that is there already is left as it is; `tighten` takes other users' rights to it.
    """
    path = Path(path)
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(FOLDER_MODE, exist_ok=True)
    if not path.is_dir():
        raise ConfigError(f"{path} is a file; pass a folder")
    return path


def open_private(path: str | os.PathLike[str], mode: str = "w", buffering: int = -1) -> Any:
    """Open a file for writing that only its owner may use, text as UTF-8; takes other users' rights to an older one.

    Returns the file that `open` gives for the mode.

    Raises:
        ConfigError: something else than a regular file has this name, such as a pipe.
        OSError: it cannot be opened.
    """
    encoding = None if "b" in mode else "utf-8"
    return open(path, mode, buffering, encoding=encoding, opener=_opened)


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a file for reading that must be a regular one: a pipe, or a device, could be waited for without end.

    Raises:
        ConfigError: it is something else.
        OSError: it cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    found = os.fstat(handle).st_mode
    if not stat.S_ISREG(found):
        os.close(handle)
        got = "a folder" if stat.S_ISDIR(found) else "a pipe, a device or the like"
        raise ConfigError(f"{os.fspath(path)}: want a regular file, got {got}")
    return open(handle, "rb")


def read_regular(path: str | os.PathLike[str], bytes_max: int, wanted: str) -> bytes:
    """The content of a regular file that a person named, however large or endless it turns out to be.

    Args:
        path: the file.
        bytes_max: it may hold.
        wanted: what it should be, for the message.

    Raises:
        ConfigError: it is a folder, a pipe or a device, or longer.
        OSError: it cannot be opened or read.
    """
    with open_regular(path) as file:
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise ConfigError(f"{os.fspath(path)}: want {wanted} of at most {bytes_max >> 20} MiB, got more")
    return data


def _opened(path: str, flags: int) -> int:
    # A pipe without a reader would block the open; a truncated one is not what the caller wants either.
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0), FILE_MODE)
    try:
        found = os.fstat(handle).st_mode
        if not stat.S_ISREG(found):
            raise ConfigError(f"{path}: want a regular file, got something else")
        if _HAS_MODES and found & OTHERS:
            os.fchmod(handle, stat.S_IMODE(found) & ~OTHERS)
    except BaseException:
        os.close(handle)
        raise
    return handle


def tighten(folder: Path) -> str | None:
    """Take the rights of all users but the owner to a folder and to everything in it.

    Links are not followed, and what belongs to another user is left alone.

    Returns:
        A line for the operator where anything was open to others, else None.
    """
    if not _HAS_MODES or not folder.is_dir():
        return None
    n_tightened = 0
    for place, folders, files in os.walk(folder):
        for path in (Path(place), *(Path(place) / name for name in (*folders, *files))):
            with contextlib.suppress(FileNotFoundError):  # A running store replaces files.
                found = path.lstat()
                if stat.S_ISLNK(found.st_mode) or found.st_uid != os.geteuid() or not found.st_mode & OTHERS:
                    continue
                path.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS)
                n_tightened += 1
    if not n_tightened:
        return None
    return f"{folder}: {n_tightened} files and folders were open to other users; now only to their owner"


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """Make every new file and folder of this process its owner's alone, until the block ends."""
    before = os.umask(OTHERS)
    try:
        yield
    finally:
        os.umask(before)


def open_to_others(path: Path) -> bool:
    """Whether users other than the owner have any right to a file or folder."""
    return _HAS_MODES and bool(path.stat().st_mode & OTHERS)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Try to hold a file's lock until the block ends, without waiting; yields whether it is held.

    The file is its owner's alone, so that no other user of the machine can keep a store from starting. A lock file that
    was open to others, and is held by another user, is replaced.
    """
    file = _lock(path)
    try:
        yield file is not None
    finally:
        if file is not None:
            file.close()


@contextlib.contextmanager
def one_writer(path: Path) -> Iterator[None]:
    """Change a file while no other thread or process does so in this way; waits for the one that does.

    The lock is a private file beside it, since the file itself may be replaced. For changes that take milliseconds.

    Raises:
        OSError: the lock cannot be made.
    """
    import fcntl

    with open_private(path.with_name(path.name + ".lock"), "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def lock_holder(path: Path) -> int | None:
    """Number of the process that holds a file's lock, where the system reports it."""
    try:
        inode = path.stat().st_ino
        rows = [line.split() for line in _LOCKS.read_text(encoding="ascii").splitlines()]
    except OSError:
        return None
    held = [int(row[4]) for row in rows if len(row) > 5 and row[1] == "FLOCK" and row[5].endswith(f":{inode}")]
    return next((process for process in held if process > 0), None)


def _lock(path: Path) -> IO[bytes] | None:
    import fcntl

    for _ in range(10):  # The file may be replaced between the open and the lock, but not each time.
        was_open = path.exists() and open_to_others(path)
        file: IO[bytes] = open_private(path, "ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            if not was_open or not _is_foreign(lock_holder(path)):
                return None
            path.unlink(missing_ok=True)
            continue
        if was_open:
            # Another user may still have the old file open, and could take its lock as soon as this one ends.
            path.unlink(missing_ok=True)
            file.close()
        elif path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        else:
            file.close()
    return None


def _is_foreign(process: int | None) -> bool:
    """Whether a process is known to belong to another user."""
    try:
        return process is not None and Path(f"/proc/{process}").stat().st_uid != os.geteuid()
    except OSError:
        return False
