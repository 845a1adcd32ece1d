"""Books in one SQLite file: write-ahead log, every commit on disk, readable by its owner only."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fusion.errors import LedgerError
from fusion.money.entries import EntryRow, PostingRow
from fusion.money.schema import INSERT, SQLITE_SCHEMA, Row, statements, triggers_fault
from fusion.money.vault import VAULT_SCHEMA, Vault

# How long to wait for another process that is writing.
BUSY_MAX_S = 10.0


def open_sqlite(path: Path, content: str, schema: str = "", *, busy_max_s: float = BUSY_MAX_S) -> sqlite3.Connection:
    """A private SQLite file in write-ahead mode, every commit on disk.

    Args:
        path: the file; created where there is none.
        content: what it holds, for messages, such as "a ledger".
        schema: statements that create what is missing (IF NOT EXISTS).
        busy_max_s: how long to wait for another process that is writing.

    Raises:
        LedgerError: the file cannot be used.
    """
    try:
        # The file says who bought what until it is unlinked: only its owner may read it.
        handle = os.open(path, os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600)
        is_file = stat.S_ISREG(os.fstat(handle).st_mode)
        os.close(handle)
        if not is_file:
            raise LedgerError(f"{path}: want a regular file to keep {content} in, got something else")
        connection = sqlite3.connect(path, timeout=busy_max_s, isolation_level=None, check_same_thread=False)
    except FileNotFoundError as error:
        raise LedgerError(f"{path}: cannot be opened as {content}: its folder does not exist") from error
    except OSError as error:
        raise LedgerError(f"{path}: cannot be opened as {content}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: cannot be opened as {content}: {error}") from error
    try:
        run = connection.execute
        run("PRAGMA secure_delete = ON")
        mode = run("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise LedgerError(f"{path}: want a local file system with shared memory (WAL), got journal mode {mode}")
        run("PRAGMA synchronous = FULL")
        run("PRAGMA recursive_triggers = ON")
        run("PRAGMA trusted_schema = OFF")
        for statement in statements(schema):
            run(statement)
    except sqlite3.Error as error:
        connection.close()
        raise LedgerError(f"{path}: cannot be used as {content}: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


class SQLiteDatabase:
    """One file; several threads and processes may use it.

    Attributes:
        connection: to the file.
    """

    def __init__(self, path: Path, *, busy_max_s: float = BUSY_MAX_S) -> None:
        self.where = str(path)
        self.connection = open_sqlite(path, "a ledger", busy_max_s=busy_max_s)
        self.vault = Vault(self.connection, separate=False, roll_back_books=self._roll_back)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open that can still be committed."""
        return self.connection.in_transaction

    @contextmanager
    def transaction(self, write: bool = True) -> Iterator[None]:
        """All or nothing; see `Database.transaction`."""
        try:
            self.connection.execute("BEGIN IMMEDIATE" if write else "BEGIN DEFERRED")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        except sqlite3.Error as error:
            raise LedgerError(f"{self.where}: cannot be {'written' if write else 'read'}: {error}") from error

    def _roll_back(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def _failed(self, error: sqlite3.Error) -> LedgerError:
        """The error to raise for a failed statement, whose transaction is rolled back."""
        self._roll_back()
        return LedgerError(f"{self.where}: the transaction failed and was rolled back: {error}")

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Rows of one statement; a failure rolls back."""
        try:
            return self.connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def add(self, entries: Sequence[EntryRow], postings: Sequence[PostingRow]) -> None:
        """Add entries and all their postings."""
        try:
            self.connection.executemany(INSERT["posting"], postings)
            self.connection.executemany(INSERT["entry"], entries)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def each(self, statement: str) -> Iterator[Row]:
        """Rows of one statement as they come."""
        try:
            yield from self.connection.execute(statement)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def create(self, identity: tuple[int, str, str]) -> None:
        """Create the tables of new books; existing books are left alone."""
        with self.transaction():
            if self.run("SELECT count(*) FROM sqlite_schema") == [(0,)]:
                # executescript would commit first and let a second process create the books too.
                for statement in statements(SQLITE_SCHEMA + VAULT_SCHEMA):
                    self.run(statement)
                self.run(INSERT["book"], (1, *identity))

    def schema_fault(self) -> str | None:
        """What is wrong with the triggers that refuse changes."""
        present = {name for (name,) in self.run("SELECT name FROM sqlite_schema WHERE type = 'trigger'")}
        return triggers_fault(SQLITE_SCHEMA, present)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()
