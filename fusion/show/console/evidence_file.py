"""Evidence bundles by visit, read from the evidence.jsonl that the runner writes meanwhile."""

from __future__ import annotations

import json
import os
import re
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

# Number of bundles with a remembered place in the file; bytes at its start that identify the run which wrote it.
BUNDLES_MAX, START_BYTES = 10_000, 256
_VISIT_FIRST = re.compile(rb'\{"visit": ?("(?:[^"\\]|\\.)*")')


class _Place(NamedTuple):
    """Where a bundle is in the file, in bytes."""

    start: int
    length: int


class EvidenceFile:
    """Finds a visit's bundle. The bundles stay on disk; only their places are kept. Used by several threads at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[str, _Place] = {}
        self._end = 0
        self._start = b""
        self._number = 0
        self._lock = threading.Lock()

    def bundle(self, visit: str) -> dict[str, Any] | None:
        """The bundle of a visit as JSON gives it; None where there is none that can be read.

        A review can then be decided from the receipt's lines alone.
        """
        with suppress(OSError), self._lock:
            self._find_places()
            if visit in self._places:
                place = self._places[visit]
                with open(self._path, "rb") as file:
                    file.seek(place.start)
                    bundle = _parsed(file.read(place.length))
                # A new run may overwrite the file at any moment, and another visit's evidence is worse than none.
                return bundle if bundle is not None and bundle["visit"] == visit else None
        return None

    def _find_places(self) -> None:
        """Note the places of the bundles that were written since the last call.

        The visit is the first key of a line, and only that is read: parsing every bundle would keep the first reviewer
        of a long day waiting.
        """
        with open(self._path, "rb") as file:
            length = file.seek(0, 2)
            file.seek(0)
            number = os.fstat(file.fileno()).st_ino
            if number != self._number or length < self._end or file.read(len(self._start)) != self._start:
                # Another run's file, or the same one without bundles that were past their time.
                self._places, self._end, self._number = {}, 0, number
            file.seek(self._end)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # still being written
                visit = _VISIT_FIRST.match(line)
                if visit is not None:
                    with suppress(ValueError):
                        self._places[json.loads(visit[1])] = _Place(self._end, len(line))
                self._end += len(line)
            file.seek(0)
            self._start = file.read(min(self._end, START_BYTES))
        while len(self._places) > BUNDLES_MAX:
            del self._places[next(iter(self._places))]


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line of the file; None where it is no bundle. Unknown numbers become null, as pages expect."""
    try:
        bundle = json.loads(line.decode("utf-8", "replace"), parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    return bundle if isinstance(bundle, dict) and "visit" in bundle else None
