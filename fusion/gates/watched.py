"""Files that name who may come in, read again whenever they change, so that what is revoked is revoked at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from fusion.errors import FusionError

Content = TypeVar("Content")
# What shows that a file was changed: who it is, how long, and when it was written (nanoseconds).
_Stamp = tuple[int, int, int, int, int]


def stamp_of(status: os.stat_result) -> _Stamp:
    """What differs between two states of a file, as far as the file system says it."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class WatchedFile(Generic[Content]):
    """What a file holds now. One that has become unreadable holds nothing: what it held before admits no person.

    Attributes:
        path: the file.
        fault: why it cannot be read; "" where it can.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[str], Content],
        nothing: Content,
        report: Callable[[WatchedFile[Content]], object] = lambda file: None,
    ) -> None:
        """Read a file.

        Args:
            path: the file.
            read: makes the content from its text; raises FusionError or ValueError.
            nothing: the content while the file cannot be read.
            report: called when what keeps the file from being read has changed; in the thread that noticed.

        Raises:
            FusionError: it cannot be read.
        """
        self.path, self.fault = path, ""
        self._read, self._nothing, self._report = read, nothing, report
        self._lock = threading.Lock()
        self._stamp: _Stamp | None = None
        self._content = nothing
        self._fill()
        if self.fault:
            raise FusionError(self.fault)

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

    def _fill(self) -> None:
        with self._lock:
            try:
                with open(self.path, encoding="utf-8") as file:
                    # Taken before reading: what is written in the meantime is read next time.
                    self._stamp = stamp_of(os.fstat(file.fileno()))
                    self._content, self.fault = self._read(file.read()), ""
                return
            except OSError as error:
                self._stamp = None
                fault = f"{self.path} cannot be read ({error.strerror})"
            except UnicodeDecodeError:
                fault = f"{self.path} is not UTF-8 text"
            except (FusionError, ValueError) as error:
                fault = str(error)
            self._content, self.fault = self._nothing, fault
