"""When and where the goods of each visit were taken or put back: what a shopper sees beside a line of their receipt.

The books hold what a visit costs and no movements; evidence is kept for doubtful visits alone. This file has the age
limit of receipts, names visits and no customers, and decides nothing.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from fusion.errors import LedgerError
from fusion.money.sqlite import open_sqlite
from fusion.results import Picked, PutBack

FILE = "moments.sqlite"
# A visit of more movements is a shelf being filled.
OF_A_VISIT_MAX = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS moment (
  visit TEXT NOT NULL, t_ns INTEGER NOT NULL, plate TEXT NOT NULL, gtin TEXT NOT NULL, pieces INTEGER NOT NULL,
  PRIMARY KEY (visit, t_ns, plate, gtin, pieces)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS moment_by_time ON moment (t_ns);
"""


class Moment(NamedTuple):
    """Pieces that were taken at an instant (`pieces` above zero) or put back (below)."""

    t_ns: int
    plate: str
    gtin: str
    pieces: int


class Moments:
    """The moments of a store's visits. One process writes, others read; from several threads."""

    def __init__(self, path: Path) -> None:
        """Open the file, or begin it. Raises LedgerError where it cannot be used."""
        self.path = path
        self._connection = open_sqlite(path, "moments of visits", _SCHEMA)
        # The engine waits for it, and what a power cut takes can be missed.
        self._connection.execute("PRAGMA synchronous = OFF")
        self._lock = threading.Lock()

    def add(self, moved: Picked | PutBack) -> None:
        """Keep a movement of a known visit; once more changes nothing."""
        if moved.visit is None:
            return
        pieces = moved.quantity if isinstance(moved, Picked) else -moved.quantity
        row = (moved.visit, moved.t_ns, moved.plate, moved.gtin, pieces)
        self._run("INSERT OR IGNORE INTO moment VALUES (?, ?, ?, ?, ?)", row)

    def of(self, visit: str) -> list[Moment]:
        """What a visit's people took and put back, oldest first."""
        statement = "SELECT t_ns, plate, gtin, pieces FROM moment WHERE visit = ? ORDER BY t_ns LIMIT ?"
        return [Moment(*row) for row in self._run(statement, (visit, OF_A_VISIT_MAX))]

    def drop_before(self, t_ns: int, *, dry_run: bool = False) -> int:
        """Remove what is older than an instant. Returns how many movements."""
        if dry_run:
            return int(self._run("SELECT count(*) FROM moment WHERE t_ns < ?", (t_ns,))[0][0])
        self._run("DELETE FROM moment WHERE t_ns < ?", (t_ns,))
        return int(self._run("SELECT changes()", ())[0][0])

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _run(self, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: moments cannot be read or written: {error}") from error


def kept_of(moments: list[Moment]) -> dict[str, list[Moment]]:
    """By product, when and where the pieces that a visit still has were taken, oldest first.

    What is put back is the newest piece of that product, of the same plate if one came from there.
    """
    kept: dict[str, list[Moment]] = {}
    for moment in moments:
        held = kept.setdefault(moment.gtin, [])
        if moment.pieces > 0:
            held.extend([moment._replace(pieces=1)] * moment.pieces)
            continue
        for _ in range(min(-moment.pieces, len(held))):
            same = [i for i, each in enumerate(held) if each.plate == moment.plate]
            del held[same[-1] if same else -1]
    return {gtin: held for gtin, held in kept.items() if held}


def drop_moments(folder: Path, before_ns: int, *, dry_run: bool = False) -> int:
    """Remove the moments of a store's folder that are older than an instant; 0 where it keeps none."""
    if not (folder / FILE).exists():
        return 0
    with closing(Moments(folder / FILE)) as moments:
        return moments.drop_before(before_ns, dry_run=dry_run)


__all__ = ["FILE", "Moment", "Moments", "drop_moments", "kept_of"]
