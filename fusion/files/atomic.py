"""Atomic replacement of a file: after a crash at any instant it holds the old content or the new, never a part."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def replace_file(
    path: str | os.PathLike[str], content: bytes | str, *, private: bool = False, durable: bool = True
) -> None:
    """Replace a file's content in one step, or create the file.

    The content is written to `<name>.new` in the same folder, flushed to disk and renamed over the file; then the
    folder is flushed, so that the rename survives a loss of power (fsync(2), rename(2)). One writer at a time: two that
    replace the same file share the temporary name.

    Args:
        path: the file; its folder must exist.
        content: bytes, or text that is written as UTF-8 with its line ends unchanged.
        private: only the owner may read or write the new file (mode 0600).
        durable: flush to disk before and after the rename. Without it a loss of power may leave an empty file, but a
            crash of the process alone does not; that is enough for what can be made again.

    Raises:
        OSError: the content cannot be written; the old file is unchanged.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".new")
    data = content.encode("utf-8") if isinstance(content, str) else content
    # A temporary file that a crash left behind may carry other permissions, so it is not reused.
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(temporary, flags, 0o600 if private else 0o666), "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)  # On a full disk the space is needed.
        if isinstance(error, OSError) and error.filename is None:
            error.filename = os.fspath(path)  # A write that fails names no file.
        raise
    if durable:
        flush_folder(path.parent)


def make_file(path: Path, content: bytes = b"") -> None:
    """Make a file that only its owner may use, unless there is one, perhaps of another process that was first.

    The name appears with all of the content, which is on disk then, once the handle is closed.

    Raises:
        OSError: it cannot be made.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()


def flush_folder(folder: Path) -> None:
    """Flush a folder to disk, so that the files that appeared in it survive a loss of power."""
    if os.name == "nt":  # Windows opens no folders; NTFS writes renames to its own log.
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
