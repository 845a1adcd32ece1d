"""What is kept about customers beside the books, by account, until they ask to be forgotten.

Purchase profiles are kept of customers who asked for suggestions alone. Of customers who answered questions about their
bills one number is kept, which says whether they answer to their own advantage; see `fusion.till.reliability`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fusion.errors import FusionError
from fusion.money.sqlite import open_sqlite
from fusion.results import ReceiptLine

# A row with an empty GTIN is the account's consent.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS purchase (
  account TEXT, gtin TEXT, n INTEGER NOT NULL, PRIMARY KEY (account, gtin)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answering (
  account TEXT PRIMARY KEY, ratio REAL NOT NULL, highest REAL NOT NULL, seq INTEGER NOT NULL, t_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""


class Answering(NamedTuple):
    """How a customer has answered so far.

    Attributes:
        ratio: likelihood ratio of their answers, to their own advantage against honest.
        highest: the highest that it ever was.
        seq: number of the newest entry of the books that it rests on.
        t_ns: when it changed.
    """

    ratio: float = 1.0
    highest: float = 1.0
    seq: int = 0
    t_ns: int = 0


class Profiles:
    """How often each consenting account bought each product, and how customers answer; a SQLite file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open or create the file. Raises LedgerError if it cannot be used."""
        self._connection = open_sqlite(Path(path), "purchase profiles", _SCHEMA)

    def consent(self, account: str) -> None:
        """Begin a profile, on its owner's request."""
        self._connection.execute("INSERT OR IGNORE INTO purchase VALUES (?, '', 0)", (account,))

    def __contains__(self, account: str) -> bool:
        found = self._connection.execute("SELECT 1 FROM purchase WHERE account = ? AND gtin = ''", (account,))
        return found.fetchone() is not None

    def accounts(self) -> list[str]:
        """Everybody who has a profile."""
        return [account for (account,) in self._connection.execute("SELECT DISTINCT account FROM purchase")]

    def add(self, account: str, lines: Sequence[ReceiptLine]) -> bool:
        """Count what was bought. Without consent it returns False and keeps nothing."""
        if account not in self:
            return False
        self._connection.executemany(
            "INSERT INTO purchase VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
            [(account, line.gtin, line.quantity) for line in lines],
        )
        return True

    def replace(self, account: str, lines: Sequence[ReceiptLine]) -> bool:
        """Count all that was bought once more, in the place of what was counted. Without consent it keeps nothing."""
        if account not in self:
            return False
        counts: Counter[str] = Counter()
        for line in lines:
            counts[line.gtin] += line.quantity
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        try:
            run("DELETE FROM purchase WHERE account = ? AND gtin <> ''", (account,))
            rows = [(account, gtin, n) for gtin, n in sorted(counts.items())]
            self._connection.executemany("INSERT INTO purchase VALUES (?, ?, ?)", rows)
            run("COMMIT")
        except BaseException:
            run("ROLLBACK")
            raise
        return True

    def bought(self, account: str) -> list[tuple[str, int]]:
        """The products of a profile with their number of pieces, most first."""
        statement = "SELECT gtin, n FROM purchase WHERE account = ? AND gtin <> '' ORDER BY n DESC, gtin"
        return [(gtin, n) for gtin, n in self._connection.execute(statement, (account,))]

    def suggest(self, account: str, n: int = 3) -> list[str]:
        """GTINs of the products that the account buys most, most often first."""
        rows = self._connection.execute(
            "SELECT gtin FROM purchase WHERE account = ? AND gtin <> '' ORDER BY n DESC, gtin LIMIT ?", (account, n)
        )
        return [gtin for (gtin,) in rows]

    def answering(self, account: str) -> Answering:
        """How a customer has answered so far."""
        statement = "SELECT ratio, highest, seq, t_ns FROM answering WHERE account = ?"
        row = self._connection.execute(statement, (account,)).fetchone()
        return Answering() if row is None else Answering(*row)

    def keep_answering(self, account: str, answering: Answering) -> None:
        """Keep how a customer has answered, in the place of what was kept."""
        self._connection.execute("INSERT OR REPLACE INTO answering VALUES (?, ?, ?, ?, ?)", (account, *answering))

    def drop_answering(self, before_ns: int) -> None:
        """Forget how customers answered who have not answered since an instant."""
        self._connection.execute("DELETE FROM answering WHERE t_ns < ?", (before_ns,))

    def erase(self, account: str) -> bool:
        """Delete all that is kept about a customer, also on disk. False if there was nothing.

        Raises:
            FusionError: another process reads an old state and keeps the log in use; call again.
        """
        run = self._connection.execute
        existed = account in self or self.answering(account).seq > 0
        run("DELETE FROM purchase WHERE account = ?", (account,))
        run("DELETE FROM answering WHERE account = ?", (account,))
        run("VACUUM")
        if run("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise FusionError(
                "the profile is deleted, but the write-ahead log of the profiles still holds it while another process "
                "reads it; call again once that reader has finished"
            )
        return existed

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
