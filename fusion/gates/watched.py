"""Files of other programs that a running store reads again whenever they change, and on SIGHUP.

One that names who may come in holds nothing while it cannot be read: what is revoked is revoked at once. Any other
keeps its last good version. Both are reported.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from fusion.errors import ConfigError, FusionError

Content = TypeVar("Content")
# What shows that a file was changed: who it is, how long, and when it was written (nanoseconds).
_Stamp = tuple[int, int, int, int, int]


def stamp_of(status: os.stat_result) -> _Stamp:
    """What differs between two states of a file, as far as the file system says it."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class WatchedFile(Generic[Content]):
    """What a file holds now.

    Attributes:
        path: the file.
        fault: why it cannot be read, and what that means; "" where it can.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[str], Content],
        nothing: Content,
        report: Callable[[WatchedFile[Content]], object] = lambda file: None,
        *,
        keeps: bool = False,
        check: Callable[[Path], object] = lambda path: None,
    ) -> None:
        """Read a file.

        Args:
            path: the file.
            read: makes the content from its text; raises FusionError or ValueError.
            nothing: the content while the file cannot be read.
            keeps: whether the last good content stays in use, instead of `nothing`.
            check: called with the path before it is read; raises as `read`.
            report: called when what keeps the file from being read has changed; in the thread that noticed.

        Raises:
            FusionError: it cannot be read.
        """
        self.path, self.fault = path, ""
        self._read, self._nothing, self._report, self._check = read, nothing, report, check
        self._keeps = keeps
        self._lock = threading.Lock()
        self._stamp: _Stamp | None = None
        self._content = nothing
        if error := self._fill():
            raise error

    def report_to(self, report: Callable[[WatchedFile[Content]], object]) -> None:
        """Call this from now on when what keeps the file from being read has changed."""
        self._report = report

    def content(self) -> Content:
        """What the file says now."""
        try:
            stamp = stamp_of(os.stat(self.path))
        except OSError:
            stamp = None
        # Without a stamp the file is gone: read once, to learn why, and then only when it is back.
        if stamp != self._stamp:
            self.reread()
        return self._content

    def reread(self) -> None:
        """Read the file now, whether or not it seems to have changed."""
        before = self.fault
        self._fill()
        if self.fault != before:
            self._report(self)

    def _fill(self) -> FusionError | None:
        """Read the file; what is wrong with it, as an error."""
        with self._lock:
            error: FusionError
            try:
                self._stamp = stamp_of(os.stat(self.path))
                self._check(self.path)
                with open(self.path, encoding="utf-8-sig", newline="") as file:
                    # Taken before reading: what is written in the meantime is read next time.
                    self._stamp = stamp_of(os.fstat(file.fileno()))
                    self._content, self.fault = self._read(file.read()), ""
                return None
            except OSError as cause:
                self._stamp = None
                error = FusionError(f"{self.path} cannot be read ({cause.strerror})")
            except UnicodeDecodeError:
                error = FusionError(f"{self.path} is not UTF-8 text")
            except FusionError as cause:
                error = cause
            except ValueError as cause:
                error = FusionError(str(cause))
            fault = error.faults[0] if isinstance(error, ConfigError) else str(error)
            if self._keeps:
                self.fault = f"{fault}; its last good version stays in use"
            else:
                self._content, self.fault = self._nothing, f"{fault}, so it admits no person until it can be read"
        return error
