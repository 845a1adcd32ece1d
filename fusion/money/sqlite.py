"""Books in one SQLite file: write-ahead log, every commit on disk, readable by its owner only."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fusion.errors import LedgerError
from fusion.files.atomic import make_file
from fusion.files.private import OTHERS
from fusion.money.entries import EntryRow, PostingRow
from fusion.money.schema import (
    INSERT,
    SQLITE_SCHEMA,
    Definition,
    Row,
    definitions_fault,
    sqlite_definitions,
    statements,
)
from fusion.money.sqlite_reading import Connection, Stamp, read_sqlite, stamp
from fusion.money.vault import VAULT_SCHEMA, Vault

# How long to wait for another process that is writing.
BUSY_MAX_S = 10.0


# Files that this process has open for writing, by device and inode; see `_Connection`.
_open_here: Counter[tuple[int, int]] = Counter()
_open_here_lock = threading.Lock()


def open_sqlite(
    path: Path, content: str, schema: str = "", *, create: bool = True, busy_max_s: float = BUSY_MAX_S
) -> sqlite3.Connection:
    """A private SQLite file in write-ahead mode, every commit on disk.

    Args:
        path: the file.
        content: what it holds, for messages, such as "a ledger".
        schema: statements that create what is missing (IF NOT EXISTS).
        create: create the file where there is none.
        busy_max_s: how long to wait for another process that is writing.

    Raises:
        LedgerError: the file cannot be used.
    """
    try:
        _claim(path, content, create)
        connection = sqlite3.connect(
            path, timeout=busy_max_s, isolation_level=None, check_same_thread=False, factory=_Connection
        )
    except FileNotFoundError as error:
        raise LedgerError(f"{path}: cannot be opened as {content}: its folder does not exist") from error
    except OSError as error:
        raise LedgerError(f"{path}: cannot be opened as {content}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: cannot be opened as {content}: {error}") from error
    try:
        run = connection.execute
        run("PRAGMA secure_delete = ON")
        mode = _with_log(connection, busy_max_s)
        if mode != "wal":
            raise LedgerError(f"{path}: want a local file system with shared memory (WAL), got journal mode {mode}")
        run("PRAGMA synchronous = FULL")
        run("PRAGMA recursive_triggers = ON")
        run("PRAGMA trusted_schema = OFF")
        for statement in statements(schema):
            run(statement)
        found = path.stat()
        with _open_here_lock:
            connection.file = found.st_dev, found.st_ino
            _open_here[connection.file] += 1
    except sqlite3.Error as error:
        connection.close()
        raise LedgerError(f"{path}: cannot be used as {content}: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _claim(path: Path, content: str, create: bool) -> None:
    """Make the file where there is none, its owner's alone: until it is unlinked it says who bought what.

    An existing file is not opened here, since closing it would take away this process's locks on it, which SQLite
    relies upon.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        if not create:
            raise LedgerError(f"{path}: the books do not exist; `fusion run` and `fusion serve` create them") from None
        # The name appears once the handle is closed, so that no other thread has a lock to lose.
        make_file(path)
        return
    if not stat.S_ISREG(found.st_mode):
        raise LedgerError(f"{path}: want a regular file to keep {content} in, got something else")
    if found.st_mode & OTHERS and os.name != "nt" and found.st_uid == os.geteuid():
        path.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS)


def _with_log(connection: sqlite3.Connection, busy_max_s: float) -> str:
    """Begin the write-ahead log, or join it; returns the journal's mode. Two that begin it at a time try again."""
    deadline_s = time.monotonic() + busy_max_s
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                raise
            time.sleep(0.005)


class _Connection(Connection):
    """A connection of `open_sqlite`. The last one to be closed leaves a file without a log: so copies can be judged.

    Attributes:
        file: device and inode of its file, while it is open for writing.
    """

    file: tuple[int, int] | None = None

    def close(self) -> None:
        """Close the connection."""
        if self.file is not None:
            with contextlib.suppress(sqlite3.Error):
                # Refused at once where another connection uses the file; its log stays.
                self.execute("PRAGMA busy_timeout = 0")
                self.execute("PRAGMA journal_mode = DELETE")
            with _open_here_lock:
                _open_here[self.file] -= 1
            self.file = None
        super().close()


def is_open_here(path: Path) -> bool:
    """Whether this process has a file open for writing."""
    try:
        found = path.stat()
    except OSError:
        return False
    with _open_here_lock:
        return _open_here[found.st_dev, found.st_ino] > 0


class SQLiteDatabase:
    """One file; several threads and processes may use it.

    Attributes:
        connection: to the file.
    """

    def __init__(
        self, path: Path, *, create: bool = True, read_only: bool = False, busy_max_s: float = BUSY_MAX_S
    ) -> None:
        self.where, self.read_only = str(path), read_only
        self._path = path
        self._stamp: Stamp | None = None
        if read_only:
            self.connection, self._stamp = read_sqlite(path, "the books", open_here=is_open_here(path))
        else:
            self.connection = open_sqlite(path, "a ledger", create=create, busy_max_s=busy_max_s)
        try:
            self.vault = Vault(self.connection, path.parent, read_only=read_only, roll_back_books=self._roll_back)
        except BaseException:
            self.close()
            raise

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

    @property
    def moved(self) -> bool:
        """Whether the file was changed while it was read without a lock, so that what was read must be read again."""
        return self._stamp is not None and stamp(self._path.absolute()) != self._stamp

    def exists(self) -> bool:
        """Whether there are tables of books."""
        return self.run("SELECT count(*) FROM sqlite_schema WHERE name = 'book'") == [(1,)]

    def create(self, identity: tuple[int, str, str]) -> None:
        """Create the tables of new books; existing books are left alone."""
        with self.transaction():
            if self.run("SELECT count(*) FROM sqlite_schema") == [(0,)]:
                # executescript would commit first and let a second process create the books too.
                for statement in statements(SQLITE_SCHEMA + VAULT_SCHEMA):
                    self.run(statement)
                self.run(INSERT["book"], (1, *identity))

    def schema_fault(self) -> str | None:
        """How tables and triggers differ from those that the books create."""
        rows = self.run("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
        return definitions_fault(sqlite_definitions(), {Definition(kind, name): text for kind, name, text in rows})

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()
