"""What a store sends to its chain besides its books: transfers of goods, and warnings of its sensors.

One SQLite file in the store, append-only. The store's process writes into it and the shipper reads it, so that neither
waits for the other. Rows are numbered from 1 in each of the two streams and chained by SHA-256 like the ledger's
entries. A row that the file holds already is ignored, so a store that resumes from a snapshot may add again what it
added before it was killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from fusion.errors import IdempotencyConflict, LedgerError
from fusion.goods.journal import Transfer
from fusion.money.schema import Row
from fusion.money.sqlite import open_sqlite
from fusion.results import Result, RunEnd, Warning
from fusion.sentences import sentence
from fusion.store.models import Store

FORMAT_VERSION = 1

STREAMS = ("goods", "health")
COLUMNS = {
    "goods": "seq, t_ns, key, debit, credit, gtin, quantity, hash",
    "health": "seq, t_ns, kind, subject, message, hash",
}
# Columns that together identify a row.
_KEYS = {"goods": ("key",), "health": ("t_ns", "kind", "subject", "message")}

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
  id INTEGER PRIMARY KEY CHECK (id = 1), format_version INTEGER NOT NULL, store TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS goods (
  seq INTEGER PRIMARY KEY, t_ns INTEGER NOT NULL, key TEXT NOT NULL UNIQUE, debit TEXT NOT NULL, credit TEXT NOT NULL,
  gtin TEXT NOT NULL, quantity INTEGER NOT NULL, hash BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS health (
  seq INTEGER PRIMARY KEY, t_ns INTEGER NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, message TEXT NOT NULL,
  hash BLOB NOT NULL, UNIQUE (t_ns, kind, subject, message)
) STRICT;
""" + "".join(
    f"CREATE TRIGGER IF NOT EXISTS {table}_{event} BEFORE {event.upper()} ON {table} "
    "BEGIN SELECT RAISE(ABORT, 'an outbox is only added to'); END;\n"
    for table in ("outbox", *STREAMS)
    for event in ("update", "delete")
)


def genesis(store: str, stream: str) -> bytes:
    """Hash that the first row of a stream is chained to."""
    return hashlib.sha256(_row_bytes(["fusion outbox", FORMAT_VERSION, store, stream])).digest()


def chained(previous: bytes, row: Sequence[object]) -> bytes:
    """SHA-256 of the preceding row's hash and a row without its own hash."""
    return hashlib.sha256(previous + _row_bytes(row)).digest()


# json.dumps would make an encoder for every row.
_ENCODER = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))


def _row_bytes(row: Sequence[object]) -> bytes:
    return _ENCODER.encode(row).encode("ascii")


class Outbox:
    """One store's rows for the chain; several threads and processes may use the same file.

    When a method returns, its rows are on disk. They hold no account and no pseudonym: a cart is named by its visit.

    Attributes:
        where: path of the file, for messages.
        store: id of the store.
    """

    def __init__(self, path: str | os.PathLike[str], store: Store) -> None:
        """Open a store's outbox, or create it.

        Raises:
            LedgerError: the file cannot be used, or belongs to another store.
        """
        self.where = os.fspath(path)
        self.store = store.id
        self._lock = threading.RLock()
        self._connection = open_sqlite(Path(path), "an outbox", _SCHEMA)
        try:
            self._connection.execute("INSERT OR IGNORE INTO outbox VALUES (1, ?, ?)", (FORMAT_VERSION, store.id))
            found = self._connection.execute("SELECT format_version, store FROM outbox").fetchall()
        except sqlite3.Error as error:
            self.close()
            raise LedgerError(f"{self.where}: want an outbox, got: {error}") from error
        if found != [(FORMAT_VERSION, store.id)]:
            self.close()
            raise LedgerError(f"{self.where}: want the outbox of {store.id!r}, format {FORMAT_VERSION}, got {found}")

    def add(self, result: Result | RunEnd) -> None:
        """Keep a result if it is a warning; the others do not concern the chain. A sink of `fusion.run`."""
        if isinstance(result, Warning):
            self.keep(results=[result])

    def keep(self, transfers: Iterable[Transfer] = (), results: Iterable[Result] = ()) -> int:
        """Keep transfers of a journal, and the warnings among results; all of them or none.

        Returns:
            How many were new.

        Raises:
            IdempotencyConflict: the file holds a transfer's key with different contents.
            LedgerError: the file cannot be written.
        """
        goods = [
            (move.t_ns, move.idempotency_key, str(move.debit), str(move.credit), move.gtin, move.quantity)
            for move in transfers
        ]
        warnings = [
            (result.t_ns, result.kind.value, result.subject, sentence(result))
            for result in results
            if isinstance(result, Warning)
        ]
        if not goods and not warnings:
            return 0
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    n_new = self._append("goods", goods) + self._append("health", warnings)
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            except (sqlite3.Error, UnicodeEncodeError, OverflowError) as error:
                raise LedgerError(f"{self.where}: want an outbox that can be written, got: {error}") from error
        return n_new

    def _append(self, stream: str, rows: Sequence[Row]) -> int:
        run = self._connection.execute
        last = run(f"SELECT seq, hash FROM {stream} ORDER BY seq DESC LIMIT 1").fetchone()
        seq, digest = last or (0, genesis(self.store, stream))
        columns = COLUMNS[stream].split(", ")
        content = columns[1:-1]
        same_key = " AND ".join(f"{name} = ?" for name in _KEYS[stream])
        places = ", ".join("?" * len(columns))
        n_new = 0
        for row in rows:
            key = [value for name, value in zip(content, row) if name in _KEYS[stream]]
            recorded = run(f"SELECT {', '.join(content)} FROM {stream} WHERE {same_key}", key).fetchone()
            if recorded is not None:
                if recorded != row:
                    raise IdempotencyConflict(f"{self.where}: have {recorded}, got {row}")
                continue
            seq += 1
            digest = chained(digest, [seq, *row])
            run(f"INSERT INTO {stream} VALUES ({places})", (seq, *row, digest))
            n_new += 1
        return n_new

    def newest(self, stream: str) -> int:
        """Number of the newest row of a stream; 0 if there is none."""
        return int(self._read(f"SELECT coalesce(max(seq), 0) FROM {stream}", ())[0][0])

    def rows_after(self, stream: str, seq: int, limit: int) -> list[Row]:
        """At most `limit` rows of a stream after a number, with the columns of COLUMNS."""
        return self._read(f"SELECT {COLUMNS[stream]} FROM {stream} WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit))

    def _read(self, statement: str, values: Sequence[int]) -> list[Row]:
        with self._lock:
            try:
                return self._connection.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise LedgerError(f"{self.where}: want an outbox that can be read, got: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
