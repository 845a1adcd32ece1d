"""Books in one schema of a PostgreSQL database, named after the store; any number of clients. Extra `postgres`."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from fusion.errors import LedgerError, extra
from fusion.money.entries import EntryRow, PostingRow
from fusion.money.schema import (
    COLUMNS,
    INSERT,
    POSTGRES_SCHEMA,
    Definition,
    Row,
    definitions_fault,
    postgres_definitions,
)
from fusion.money.server_urls import checked_server
from fusion.money.sqlite import BUSY_MAX_S, open_sqlite
from fusion.money.sqlite_reading import read_sqlite
from fusion.money.vault import VAULT_SCHEMA, Vault

# From this many rows on PostgreSQL takes them faster as a stream (COPY) than one by one.
COPIED_FROM = 32


class PostgresDatabase:
    """One schema of a database, and a vault in a SQLite file. The next transaction restores a lost connection.

    Attributes:
        connection: to the server.
        schema: name of the schema.
    """

    def __init__(
        self,
        url: str,
        store: str,
        vault: Path,
        *,
        create: bool = True,
        read_only: bool = False,
        busy_max_s: float = BUSY_MAX_S,
    ) -> None:
        with extra("postgres"):
            import psycopg

        self._psycopg = psycopg
        self.where = checked_server(url)
        self._url, self._busy_max_s, self.read_only = url, busy_max_s, read_only
        self.schema = schema_of(store)
        self.connection: Any = self._connected()
        try:
            if read_only:
                file, _ = read_sqlite(vault, "the vault of the books", open_here=True)
            else:
                file = open_sqlite(vault, "a vault", VAULT_SCHEMA, create=create, busy_max_s=busy_max_s)
            self.vault = Vault(
                file, vault.parent, self._roll_back, separate=True, read_only=read_only
            )  # fmt: skip
        except BaseException:
            self.connection.close()
            raise

    def _connected(self) -> Any:
        sql = self._psycopg.sql
        try:
            connection = self._psycopg.connect(self._url, autocommit=True, connect_timeout=round(BUSY_MAX_S))
            run = connection.execute
            run("SELECT set_config('search_path', %s, false)", (self.schema,))
            run(sql.SQL("SET lock_timeout = {}").format(sql.Literal(f"{round(1e3 * self._busy_max_s)}ms")))
            # A commit that has returned is on the server's disk, whatever its default says.
            run("SET synchronous_commit = on")
            run("SET client_min_messages = warning")
            if self.read_only:
                run("SET default_transaction_read_only = on")
        except self._psycopg.Error as error:
            raise LedgerError(f"{self.where}: cannot be opened as a ledger: {first_line(error)}") from error
        return connection

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open that can still be committed."""
        status = self._psycopg.pq.TransactionStatus
        return not self.connection.closed and self.connection.info.transaction_status == status.INTRANS

    @contextmanager
    def transaction(self, write: bool = True) -> Iterator[None]:
        """All or nothing; see `Database.transaction`."""
        try:
            self._begin(write)
            try:
                if write and not self.read_only:
                    # One writer at a time, while others read. Before the tables exist there is nothing else to lock.
                    self.connection.execute("SELECT pg_advisory_xact_lock(%s)", (_lock_number(self.schema),))
                yield
                if not self.in_transaction:
                    raise LedgerError(f"{self.where}: the transaction was rolled back before its end; post again")
                self.vault.commit()
                self.connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        except self._psycopg.Error as error:
            verb = "written" if write else "read"
            raise LedgerError(f"{self.where}: cannot be {verb}: {first_line(error)}") from error

    def _begin(self, write: bool) -> None:
        if self.connection.closed:
            self.connection = self._connected()
        start = "BEGIN" if write else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        try:
            self.connection.execute(start)
        except self._psycopg.OperationalError:
            # The idle connection was lost; no statement was sent on it, so sending this one again is safe.
            self.connection.close()
            self.connection = self._connected()
            self.connection.execute(start)

    def _roll_back(self) -> None:
        self.vault.roll_back()
        if not self.connection.closed:
            try:
                self.connection.execute("ROLLBACK")
            except self._psycopg.Error:
                self.connection.close()

    @contextmanager
    def _rolling_back(self) -> Iterator[None]:
        try:
            yield
        except self._psycopg.Error as error:
            self._roll_back()
            line = first_line(error)
            raise LedgerError(f"{self.where}: the transaction failed and was rolled back: {line}") from error

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Rows of one statement; a failure rolls back."""
        with self._rolling_back():
            cursor = self.connection.execute(_placed(statement), [escaped(value) for value in values])
            return [] if cursor.description is None else [tuple(map(unescaped, row)) for row in cursor]

    def add(self, entries: Sequence[EntryRow], postings: Sequence[PostingRow]) -> None:
        """Add entries and all their postings."""
        with self._rolling_back(), self.connection.cursor() as cursor:
            tables: tuple[tuple[str, Sequence[Row]], ...] = (("posting", postings), ("entry", entries))
            for table, rows in tables:
                written = [[escaped(value) for value in row] for row in rows]
                if len(rows) < COPIED_FROM:
                    cursor.executemany(_placed(INSERT[table]), written)
                else:
                    with cursor.copy(f"COPY {table} ({COLUMNS[table]}) FROM STDIN") as copy:
                        for row in written:
                            copy.write_row(row)

    def each(self, statement: str) -> Iterator[Row]:
        """Rows of one statement as they come, through a server-side cursor."""
        with self._rolling_back(), self.connection.cursor(name=f"each_{secrets.token_hex(4)}") as cursor:
            cursor.itersize = 5000
            for row in cursor.execute(_placed(statement)):
                yield tuple(map(unescaped, row))

    @property
    def moved(self) -> bool:
        """Never: a transaction sees one state of everything."""
        return False

    def exists(self) -> bool:
        """Whether there are tables of books."""
        with self._rolling_back():
            return self.connection.execute("SELECT to_regclass('book')").fetchone()[0] is not None

    def create(self, identity: tuple[int, str, str]) -> None:
        """Create the schema and tables of new books; existing books are left alone."""
        sql = self._psycopg.sql
        with self.transaction(), self._rolling_back():
            if self.connection.execute("SELECT to_regnamespace(%s)", (self.schema,)).fetchone()[0] is None:
                self.connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.schema)))
            if self.connection.execute("SELECT to_regclass('book')").fetchone()[0] is None:
                for statement in POSTGRES_SCHEMA:
                    self.connection.execute(statement)
                self.run(INSERT["book"], (1, *identity))

    def schema_fault(self) -> str | None:
        """How the triggers and their functions differ from those that the books create."""
        rows = self.run(
            "SELECT 'trigger', tgname::text, pg_get_triggerdef(oid, true) FROM pg_trigger "
            "WHERE NOT tgisinternal AND tgenabled IN ('O', 'A') "
            "AND tgrelid IN (to_regclass('book'), to_regclass('entry'), to_regclass('posting')) "
            "UNION ALL SELECT 'function', p.proname::text, "
            "l.lanname || p.prosrc || coalesce(p.proconfig::text, '') || CASE WHEN p.prosecdef THEN 'owner' ELSE '' END"
            " FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang "
            "WHERE p.pronamespace = current_schema()::regnamespace"
        )
        held = {Definition(kind, name): text for kind, name, text in rows}
        return definitions_fault(postgres_definitions(self.schema), held)

    def close(self) -> None:
        """Close the connection and the vault."""
        self.connection.close()
        self.vault.connection.close()


class RemoteRows:
    """The rows of one store's books as they are in PostgreSQL, in one transaction, for backups."""

    def __init__(self, url: str, store: str, *, write: bool = False) -> None:
        """Connect. With `write`, books are begun where there are none."""
        with extra("postgres"):
            import psycopg

        self.where, self._write = checked_server(url), write
        self._psycopg, self.schema = psycopg, schema_of(store)
        try:
            self._connection: Any = psycopg.connect(url, autocommit=True, connect_timeout=round(BUSY_MAX_S))
        except psycopg.Error as error:
            raise LedgerError(f"{self.where}: cannot be opened as a ledger: {first_line(error)}") from error

    def __enter__(self) -> RemoteRows:
        run, sql = self._connection.execute, self._psycopg.sql
        with self._named():
            run("SELECT set_config('search_path', %s, false)", (self.schema,))
            run("SET synchronous_commit = on")
            run("BEGIN" if self._write else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            if run("SELECT to_regclass('book')").fetchone()[0] is None:
                if not self._write:
                    raise LedgerError(f"{self.where}: holds no books in the schema {self.schema}")
                run(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(self.schema)))
                for statement in POSTGRES_SCHEMA:
                    run(statement)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._named():
            if not self._connection.closed:
                self._connection.execute("COMMIT" if kind is None else "ROLLBACK")
                self._connection.close()

    @property
    def begun(self) -> bool:
        """Whether the books have their identity already."""
        with self._named():
            return bool(self._connection.execute("SELECT 1 FROM book").fetchone())

    def newest(self) -> tuple[int, str]:
        """Number and hash of the newest entry; 0 where there is none."""
        with self._named():
            row = self._connection.execute("SELECT seq, hash FROM entry ORDER BY seq DESC LIMIT 1").fetchone()
        return (0, "") if row is None else (row[0], bytes(row[1]).hex())

    def of(self, table: str) -> Iterator[Row]:
        """All rows of a table in order, as the books know them."""
        with self._named(), self._connection.cursor(name=f"each_{secrets.token_hex(4)}") as cursor:
            cursor.itersize = 5000
            for row in cursor.execute(f"SELECT {COLUMNS[table]} FROM {table} ORDER BY 1, 2"):
                yield tuple(map(unescaped, row))

    def put(self, table: str, rows: Iterable[Row]) -> None:
        """Add rows of a table. Postings come before entries, as the triggers want it."""
        statement = f"COPY {table} ({COLUMNS[table]}) FROM STDIN"
        with self._named(), self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row([escaped(value) for value in row])

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except self._psycopg.Error as error:
            raise LedgerError(f"{self.where}: {first_line(error)}") from error


@cache
def _placed(statement: str) -> str:
    """The statement with psycopg's placeholders; the books' SQL has no other `?` and no `%`."""
    return statement.replace("?", "%s")


def schema_of(store: str) -> str:
    """Name of the schema that holds a store's books."""
    if re.fullmatch(r"[a-z0-9_]{1,40}", store):
        return f"books_{store}"
    return f"books_{hashlib.sha256(store.encode()).hexdigest()[:32]}"


def _lock_number(schema: str) -> int:
    return int.from_bytes(hashlib.sha256(schema.encode()).digest()[:8], "big", signed=True)


def first_line(error: Exception) -> str:
    """Type and first line of a database's error; the following lines may repeat values."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def escaped(value: Any) -> Any:
    """A value as PostgreSQL can hold it: its text has no NUL, which SQLite's can have."""
    return value.replace("\x01", "\x01\x01").replace("\x00", "\x010") if isinstance(value, str) else value


def unescaped(value: Any) -> Any:
    """The value that `escaped` was given; a memoryview comes back as bytes."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, str) and "\x01" in value:
        return re.sub("\x01(.)", lambda found: "\x00" if found[1] == "0" else found[1], value)
    return value
