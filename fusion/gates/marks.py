"""Numbers that only grow, kept apart from what they protect: how far codes were pruned, how often a gallery changed."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from fusion.money.sqlite import open_sqlite

MARK_SCHEMA = """
CREATE TABLE IF NOT EXISTS mark (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""
RAISE_MARK = """
INSERT INTO mark (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)
"""


class Marks:
    """Numbers by name, across threads, processes and restarts; a SQLite file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open or create the file.

        Raises:
            LedgerError: it cannot be used.
        """
        self._connection = open_sqlite(Path(path), "marks", MARK_SCHEMA)
        self._lock = threading.Lock()

    def value(self, name: str) -> int:
        """A number; 0 before it was raised."""
        with self._lock:
            row = self._connection.execute("SELECT value FROM mark WHERE name = ?", (name,)).fetchone()
        return 0 if row is None else int(row[0])

    def raise_to(self, name: str, value: int) -> None:
        """Make a number at least this large, durably."""
        with self._lock:
            self._connection.execute(RAISE_MARK, (name, value))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
