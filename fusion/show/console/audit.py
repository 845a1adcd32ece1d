"""Who did what in the consoles: a file of lines that are chained by hash, private, and bounded in age and size.

audit.jsonl beside users.json; several consoles may write to one file. A line holds an instant, a user, an action, a
store, what it was about and the network the user came from; no password, token or card, and no customer's name. Every
line carries a SHA-256 over the one before and its own contents, so a line that was changed, removed or inserted is
found; that the newest lines were removed is seen only by who kept a later hash. Old lines are dropped from the front,
which the new first line states.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusion.errors import FusionError, bounded_text
from fusion.files.atomic import replace_file
from fusion.files.private import one_writer, open_private
from fusion.money.entries import canonical_json, chained_hash

# Half a year: longer than a disputed payment takes, and no record of a person's work for good.
KEPT_DAYS = 183
# Some 100 000 lines, of a quarter of a kilobyte each; a stranger who knocks without end fills no disk.
KEPT_BYTES = 32 << 20
DAY_NS = 86_400 * 10**9
TEXT_MAX = 200
DROPPED = "older lines dropped"
_GENESIS = bytes(32)


@dataclass(frozen=True, slots=True)
class Action:
    """One line: when (UTC nanoseconds), who, what, in which store, about what, from where."""

    t_ns: int
    by: str
    did: str
    store: str = ""
    about: str = ""
    network: str = ""

    def row(self) -> dict[str, Any]:
        """The line's contents, texts without control characters and bounded."""
        names = ("by", "did", "store", "about", "network")
        return {"t_ns": self.t_ns, **{name: bounded_text(getattr(self, name), TEXT_MAX) for name in names}}


class Audit:
    """The file of one or several consoles."""

    def __init__(self, path: str | Path, *, kept_days: int = KEPT_DAYS, kept_bytes: int = KEPT_BYTES) -> None:
        """Use a file, which is made with the first line."""
        self.path = Path(path)
        self._kept_ns, self._kept_bytes = kept_days * DAY_NS, kept_bytes
        self._dropped_ns = 0

    def add(self, action: Action) -> None:
        """Add a line, durably. Once a day, and beyond the size, drop what is old.

        Raises:
            FusionError: it cannot be written.
        """
        try:
            with one_writer(self.path):
                if action.t_ns - self._dropped_ns >= DAY_NS or self._size() > self._kept_bytes:
                    self._dropped_ns = action.t_ns
                    self._drop_old(action.t_ns)
                line = _line(self._newest(), action.row())
                with open_private(self.path, "ab") as file:
                    if not self._is_whole():
                        file.write(b"\n")  # a line that a crash cut short stays as it is, and is named by `verify`
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise FusionError(f"{self.path}: the audit log cannot be written: {error}") from None

    def lines(self) -> Iterator[dict[str, Any]]:
        """All lines that can be read, oldest first."""
        for line in self._lines():
            row = _parsed(line)
            if row is not None:
                yield row

    def verify(self) -> str | None:
        """Check the chain. None where it holds, otherwise which line is wrong."""
        digest = _GENESIS
        for number, line in enumerate(self._lines(), 1):
            row = _parsed(line)
            if row is None:
                return f"{self.path}:{number}: cannot be read"
            if number == 1 and row.get("did") == DROPPED:
                digest = bytes.fromhex(row["hash"])  # of the last line that was dropped
                continue
            held = row.pop("hash", "")
            digest = _digest(digest, row)
            if held != digest.hex():
                return f"{self.path}:{number}: its contents or its place were changed"
        return None

    def _lines(self) -> Iterator[bytes]:
        try:
            with open(self.path, "rb") as file:
                yield from file
        except FileNotFoundError:
            return
        except OSError as error:
            raise FusionError(f"{self.path}: the audit log cannot be read: {error}") from None

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _is_whole(self) -> bool:
        if not self._size():
            return True
        with open(self.path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _newest(self) -> bytes:
        """Hash of the newest line that can be read, from the end of the file."""
        size = self._size()
        if not size:
            return _GENESIS
        with open(self.path, "rb") as file:
            file.seek(max(size - (1 << 16), 0))
            for line in reversed(file.read().splitlines()):
                row = _parsed(line)
                if row is not None:
                    return bytes.fromhex(row["hash"])
        return _GENESIS

    def _drop_old(self, now_ns: int) -> None:
        """Drop the lines that are past their age, and the oldest beyond half of the size."""
        lines = list(self._lines())
        rows = [_parsed(line) for line in lines]
        first, n_bytes = 0, sum(map(len, lines))
        too_large = n_bytes > self._kept_bytes
        while first < len(lines):
            row = rows[first]
            is_old = row is not None and (row["t_ns"] < now_ns - self._kept_ns or row["did"] == DROPPED)
            if not is_old and not (too_large and n_bytes > self._kept_bytes // 2):
                break
            n_bytes -= len(lines[first])
            first += 1
        if first == 0 or (first == 1 and (row := rows[0]) is not None and row["did"] == DROPPED):
            return
        # The first line that is kept chains to the last one dropped; the new first line states that hash.
        previous = next((bytes.fromhex(row["hash"]) for row in reversed(rows[:first]) if row is not None), _GENESIS)
        head = {**Action(now_ns, "", DROPPED).row(), "hash": previous.hex()}
        replace_file(self.path, _written(head) + b"".join(lines[first:]), private=True)


def _written(row: dict[str, Any]) -> bytes:
    return (canonical_json(row) + "\n").encode("ascii")


def _digest(previous: bytes, row: dict[str, Any]) -> bytes:
    return chained_hash(previous, canonical_json(row).encode("ascii"))


def _line(previous: bytes, row: dict[str, Any]) -> bytes:
    return _written({**row, "hash": _digest(previous, row).hex()})


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line's contents; None where it is none of ours."""
    try:
        row = json.loads(line)
        is_ours = isinstance(row["t_ns"], int) and isinstance(row["did"], str) and len(bytes.fromhex(row["hash"])) == 32
    except (ValueError, KeyError, TypeError):
        return None
    return row if is_ours else None


__all__ = ["DROPPED", "KEPT_BYTES", "KEPT_DAYS", "Action", "Audit"]
