"""Where the ledger's rows live: one SQLite file, or one schema of a PostgreSQL database.

Both keep the same tables, refuse the same changes and give the same answers; the ledger's SQL is written once, with `?`
for values. A write transaction has the books to itself, and what it has committed survives the machine's power.

Whose visit was whose stands in a vault, not in the books. SQLite books hold it in the same file, so both change in one
transaction. PostgreSQL keeps what it was told in its log and in backups longer than anybody can promise to forget it,
so the vault of such books is a SQLite file of its own that stays in the store.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sqlite3
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from fusion.errors import LedgerError, extra

FORMAT_VERSION = 1
# How long to wait for another process that is writing.
BUSY_MAX_S = 10.0

Row = tuple[Any, ...]

_TABLES = """
CREATE TABLE book (
  id {integer} PRIMARY KEY CHECK (id = 1),
  format_version {integer} NOT NULL,
  store TEXT NOT NULL,
  currency TEXT NOT NULL
) {strict};
CREATE TABLE entry (
  seq {integer} PRIMARY KEY,
  t_ns {integer} NOT NULL,
  kind TEXT NOT NULL,
  visit TEXT NOT NULL,
  key TEXT NOT NULL UNIQUE,
  details TEXT NOT NULL,
  hash {bytes} NOT NULL
) {strict};
CREATE INDEX entry_of_visit ON entry (visit, seq);
CREATE INDEX entry_of_kind ON entry (kind, seq);
CREATE TABLE posting (
  entry {integer} NOT NULL REFERENCES entry (seq) DEFERRABLE INITIALLY DEFERRED,
  line {integer} NOT NULL,
  account TEXT NOT NULL,
  currency TEXT NOT NULL,
  amount {integer} NOT NULL,
  PRIMARY KEY (entry, line)
) {strict_without_rowid};
"""
_SQLITE_SCHEMA = (
    _TABLES.format(integer="INTEGER", bytes="BLOB", strict="STRICT", strict_without_rowid="STRICT, WITHOUT ROWID")
    + """
CREATE TRIGGER book_update BEFORE UPDATE ON book BEGIN SELECT RAISE(ABORT, 'books are only added to'); END;
CREATE TRIGGER book_delete BEFORE DELETE ON book BEGIN SELECT RAISE(ABORT, 'books are only added to'); END;
CREATE TRIGGER entry_update BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'books are only added to'); END;
CREATE TRIGGER entry_delete BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'books are only added to'); END;
CREATE TRIGGER posting_update BEFORE UPDATE ON posting BEGIN SELECT RAISE(ABORT, 'books are only added to'); END;
CREATE TRIGGER posting_delete BEFORE DELETE ON posting BEGIN SELECT RAISE(ABORT, 'books are only added to'); END;
-- INSERT OR REPLACE deletes without asking the triggers above, so an insert may only go to the end.
CREATE TRIGGER entry_insert BEFORE INSERT ON entry
  WHEN NEW.seq <= (SELECT coalesce(max(seq), 0) FROM entry) OR EXISTS (SELECT 1 FROM entry WHERE key = NEW.key)
  BEGIN SELECT RAISE(ABORT, 'books are only added to'); END;
-- Postings come just before their entry, and none after it.
CREATE TRIGGER posting_insert BEFORE INSERT ON posting
  WHEN NEW.entry <= (SELECT coalesce(max(seq), 0) FROM entry)
    OR EXISTS (SELECT 1 FROM posting WHERE entry = NEW.entry AND line = NEW.line)
  BEGIN SELECT RAISE(ABORT, 'books are only added to'); END;
"""
)
_POSTGRES_SCHEMA = (
    *_TABLES.format(integer="BIGINT", bytes="BYTEA", strict="", strict_without_rowid="").strip().split(";\n"),
    """CREATE FUNCTION only_added() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN RAISE EXCEPTION 'books are only added to'; END $$""",
    # As in SQLite: an entry goes to the end, its postings just before it.
    """CREATE FUNCTION entry_at_the_end() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
       $$ BEGIN
         IF NEW.seq <= (SELECT coalesce(max(seq), 0) FROM entry) THEN
           RAISE EXCEPTION 'books are only added to';
         END IF;
         RETURN NEW;
       END $$""",
    """CREATE FUNCTION posting_at_the_end() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
       $$ BEGIN
         IF NEW.entry <= (SELECT coalesce(max(seq), 0) FROM entry) THEN
           RAISE EXCEPTION 'books are only added to';
         END IF;
         RETURN NEW;
       END $$""",
    *(
        f"CREATE TRIGGER {table}_{event} BEFORE {event.upper()} ON {table} "
        f"FOR EACH {'STATEMENT' if event == 'truncate' else 'ROW'} EXECUTE FUNCTION only_added()"
        for table in ("book", "entry", "posting")
        for event in ("update", "delete", "truncate")
    ),
    "CREATE TRIGGER entry_insert BEFORE INSERT ON entry FOR EACH ROW EXECUTE FUNCTION entry_at_the_end()",
    "CREATE TRIGGER posting_insert BEFORE INSERT ON posting FOR EACH ROW EXECUTE FUNCTION posting_at_the_end()",
)
_COLUMNS = {
    "book": "id, format_version, store, currency",
    "entry": "seq, t_ns, kind, visit, key, details, hash",
    "posting": "entry, line, account, currency, amount",
}
_ADD = {
    table: f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' for _ in columns.split(','))})"
    for table, columns in _COLUMNS.items()
}
# From so many rows on PostgreSQL takes them faster as a stream than one by one.
COPIED_FROM = 32
_VAULT_SCHEMA = """
CREATE TABLE IF NOT EXISTS link (
  visit TEXT PRIMARY KEY,
  account TEXT NOT NULL,
  enter_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS link_of_account ON link (account);
CREATE TABLE IF NOT EXISTS holder (
  pseudonym TEXT PRIMARY KEY,
  account TEXT NOT NULL,
  token TEXT,
  email TEXT,
  since_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS holder_of_account ON holder (account);
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who is behind a pseudonym, for as long as the vault keeps it.

    Attributes:
        account: the retailer's name for the customer.
        token: what the payment provider calls their means of payment; never a card number.
        email: where receipts go, if the customer gave it.
        since_ns: when the pseudonym was given.
    """

    pseudonym: str
    account: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    email: str | None = field(default=None, repr=False)
    since_ns: int = 0


class Vault:
    """Whose visit was whose, outside the chain and made to be forgotten.

    Its writes belong to the books' transaction: in one file they commit together, in a file of its own just before the
    books do, so that at worst a link to nothing is left behind.
    """

    def __init__(self, connection: sqlite3.Connection, apart: bool, give_up_books: Callable[[], None]) -> None:
        self._connection, self._apart, self._give_up_books = connection, apart, give_up_books

    def account(self, visit: str) -> str | None:
        row = self._run("SELECT account FROM link WHERE visit = ?", (visit,)).fetchone()
        return None if row is None else row[0]

    def link(self, visit: str, account: str, enter_ns: int) -> None:
        # It may stand there already, where the books' own commit failed after the vault's.
        statement = "INSERT OR IGNORE INTO link (visit, account, enter_ns) VALUES (?, ?, ?)"
        self._write(statement, (visit, account, enter_ns))

    def hold(self, holder: Holder) -> None:
        row = (holder.pseudonym, holder.account, holder.token, holder.email, holder.since_ns)
        self._write("INSERT INTO holder (pseudonym, account, token, email, since_ns) VALUES (?, ?, ?, ?, ?)", row)

    def holder(self, pseudonym: str) -> Holder | None:
        statement = "SELECT pseudonym, account, token, email, since_ns FROM holder WHERE pseudonym = ?"
        row = self._run(statement, (pseudonym,)).fetchone()
        return None if row is None else Holder(*row)

    def pseudonyms(self, account: str) -> list[str]:
        """Pseudonyms that an account went by, newest first."""
        rows = self._run("SELECT pseudonym FROM holder WHERE account = ? ORDER BY since_ns DESC", (account,))
        return [row[0] for row in rows]

    def forget_before(self, t_ns: int) -> int:
        """Forget visits and pseudonyms from before an instant; returns the number of visits."""
        return self._keep(
            ("SELECT * FROM link WHERE enter_ns >= ? ORDER BY visit", t_ns),
            ("SELECT * FROM holder WHERE since_ns >= ? ORDER BY pseudonym", t_ns),
        )

    def forget_account(self, account: str) -> int:
        """Forget an account under its own name and all its pseudonyms; returns the number of visits."""
        return self._keep(
            (
                "SELECT * FROM link WHERE account <> ?1 "
                "AND account NOT IN (SELECT pseudonym FROM holder WHERE account = ?1) ORDER BY visit",
                account,
            ),
            ("SELECT * FROM holder WHERE account <> ? ORDER BY pseudonym", account),
        )

    def _keep(self, links: tuple[str, Any], holders: tuple[str, Any]) -> int:
        """Forget every row but those that two queries give."""
        kept_links = self._run(links[0], (links[1],)).fetchall()
        kept_holders = self._run(holders[0], (holders[1],)).fetchall()
        n_links, n_holders = (
            self._run(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("link", "holder")
        )
        if (n_links, n_holders) != (len(kept_links), len(kept_holders)):
            # Deleting rows is not enough, not even with secure_delete: when SQLite moves rows between pages, the place
            # where they lay before keeps its bytes. A dropped table's pages, though, are zeroed whole.
            for table in ("link", "holder"):
                self._write(f"DROP TABLE {table}")
            for statement in _statements(_VAULT_SCHEMA):
                self._write(statement)
            for row in kept_links:
                self._write("INSERT INTO link VALUES (?, ?, ?)", row)
            for row in kept_holders:
                self._write("INSERT INTO holder VALUES (?, ?, ?, ?, ?)", row)
        return int(n_links) - len(kept_links)

    def empty_log(self) -> None:
        """Empty the write-ahead log, which still holds the pages as they were before forgetting.

        Raises:
            LedgerError: somebody reads an old state and keeps the log alive.
        """
        if self._run("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise LedgerError("want the log emptied after unlinking, got a reader that holds it; call again")

    def commit(self) -> None:
        if self._apart and self._connection.in_transaction:
            self._run("COMMIT")

    def give_up(self) -> None:
        if self._apart and self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _write(self, statement: str, values: Sequence[Any] = ()) -> None:
        if self._apart and not self._connection.in_transaction:
            self._run("BEGIN IMMEDIATE")
        self._run(statement, values)

    def _run(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, values)
        except sqlite3.Error as error:
            # Nobody can commit an entry whose link is missing.
            self._give_up_books()
            raise LedgerError(f"want a vault that works, got: {error}") from error

    def close(self) -> None:
        self._connection.close()


class Books(Protocol):
    """The rows of one store's books. Used by one thread at a time; the ledger sees to that."""

    where: str  # what to call the books in messages: never a password
    vault: Vault

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open that can still be committed."""
        ...

    def transaction(self, write: bool = True) -> AbstractContextManager[None]:
        """All or nothing, durable when the block has been left; for reading, one state of everything.

        Raises:
            LedgerError: it could not be begun or committed. After a lost connection it may have been committed: whoever
                says the same again under the same keys finds out.
        """
        ...

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Rows of one statement. One that fails rolls the transaction back: nobody can commit half an entry."""
        ...

    def add(self, entries: Sequence[Row], postings: Sequence[Row]) -> None:
        """Add entries and all their postings, in the order of the tables' columns."""
        ...

    def each(self, statement: str) -> Iterator[Row]:
        """Rows of one statement as they come, inside a transaction; for whole tables."""
        ...

    def begin(self, identity: tuple[int, str, str]) -> None:
        """Make the tables of new books and note whose they are; does nothing to books that are there."""
        ...

    def schema_fault(self) -> str | None:
        """What is wrong with the triggers that refuse changes."""
        ...

    def close(self) -> None: ...


def open_books(where: str | os.PathLike[str], store: str, vault: str | os.PathLike[str] | None) -> Books:
    """The rows at a path, sqlite:///path or postgresql://...; see `Ledger.open`."""
    text = os.fspath(where)
    if text.startswith(("postgresql://", "postgres://")):
        if vault is None:
            raise LedgerError("want a file for the vault beside books in PostgreSQL (vault=path), got none")
        return PostgresBooks(text, store, Path(vault))
    if vault is not None:
        raise LedgerError("want no file for the vault beside books in SQLite, which hold it themselves, got one")
    return SQLiteBooks(_path(text))


def _path(text: str) -> Path:
    if "://" not in text:
        return Path(text)
    url = urlsplit(text)
    if url.scheme != "sqlite" or url.netloc or not url.path.strip("/"):
        # The URL may hold a password, so only its scheme is repeated.
        raise LedgerError(
            f"want a path, sqlite:///path or postgresql://server/database, got a URL of scheme {url.scheme!r}"
        )
    # As SQLAlchemy has it: three slashes are a relative path, four an absolute one.
    return Path(unquote(url.path[1:]))


def _statements(script: str) -> Iterator[str]:
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def opened_sqlite(path: Path, what: str, schema: str = "") -> sqlite3.Connection:
    """A private SQLite file in write-ahead mode, every commit on disk, with what a schema wants IF NOT EXISTS."""
    try:
        # The file says who bought what until it is unlinked: nobody but its owner reads it.
        handle = os.open(path, os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600)
        is_file = stat.S_ISREG(os.fstat(handle).st_mode)
        os.close(handle)
        if not is_file:
            raise LedgerError(f"{path}: want a file to keep {what} in, got something else")
        connection = sqlite3.connect(path, timeout=BUSY_MAX_S, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(f"{path}: want a file to keep {what} in, got: {error}") from error
    try:
        run = connection.execute
        run("PRAGMA secure_delete = ON")
        mode = run("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise LedgerError(f"{path}: want a local file system with shared memory (WAL), got journal mode {mode}")
        run("PRAGMA synchronous = FULL")
        run("PRAGMA recursive_triggers = ON")
        run("PRAGMA trusted_schema = OFF")
        for statement in _statements(schema):
            run(statement)
    except sqlite3.Error as error:
        connection.close()
        raise LedgerError(f"{path}: want {what}, got: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


class SQLiteBooks:
    """One file; several threads and processes may use it."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self.connection = opened_sqlite(path, "a ledger")
        self.vault = Vault(self.connection, apart=False, give_up_books=self._give_up)

    @property
    def in_transaction(self) -> bool:
        return self.connection.in_transaction

    @contextmanager
    def transaction(self, write: bool = True) -> Iterator[None]:
        try:
            self.connection.execute("BEGIN IMMEDIATE" if write else "BEGIN DEFERRED")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                self._give_up()
                raise
        except sqlite3.Error as error:
            raise LedgerError(f"want a ledger that can be {'written' if write else 'read'}, got: {error}") from error

    def _give_up(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def _failed(self, error: sqlite3.Error) -> LedgerError:
        self._give_up()
        return LedgerError(f"want a ledger that works, got: {error}")

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        try:
            return self.connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def add(self, entries: Sequence[Row], postings: Sequence[Row]) -> None:
        try:
            self.connection.executemany(_ADD["posting"], postings)
            self.connection.executemany(_ADD["entry"], entries)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def each(self, statement: str) -> Iterator[Row]:
        try:
            yield from self.connection.execute(statement)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def begin(self, identity: tuple[int, str, str]) -> None:
        with self.transaction():
            if self.run("SELECT count(*) FROM sqlite_schema") == [(0,)]:
                # executescript would commit first and let a second process begin the books too.
                for statement in _statements(_SQLITE_SCHEMA + _VAULT_SCHEMA):
                    self.run(statement)
                self.run(_ADD["book"], (1, *identity))

    def schema_fault(self) -> str | None:
        wanted = {line.split()[2] for line in _SQLITE_SCHEMA.splitlines() if line.startswith("CREATE TRIGGER")}
        present = {row[0] for row in self.run("SELECT name FROM sqlite_schema WHERE type = 'trigger'")}
        return _triggers_fault(wanted, present)

    def close(self) -> None:
        self.connection.close()


class PostgresBooks:
    """One schema of a database, named after the store; any number of clients may use it. Extra `postgres`.

    A connection that was lost is made anew by the next transaction.
    """

    connection: Any

    def __init__(self, url: str, store: str, vault: Path) -> None:
        with extra("postgres"):
            import psycopg

        self._psycopg = psycopg
        parts = urlsplit(url)
        self.where = f"postgresql://{parts.hostname or ''}{parts.path}"
        self._url = url
        self.schema = schema_of(store)
        self._connect()
        try:
            file = opened_sqlite(vault, "a vault", _VAULT_SCHEMA)
            self.vault = Vault(file, apart=True, give_up_books=self._give_up)
        except BaseException:
            self.connection.close()
            raise

    def _connect(self) -> None:
        literal = self._psycopg.sql.Literal
        try:
            self.connection = self._psycopg.connect(self._url, autocommit=True, connect_timeout=round(BUSY_MAX_S))
            run = self.connection.execute
            run("SELECT set_config('search_path', %s, false)", (self.schema,))
            run(self._psycopg.sql.SQL("SET lock_timeout = {}").format(literal(f"{BUSY_MAX_S:.0f}s")))
            # A commit that has returned is on the server's disk, whatever its default says.
            run("SET synchronous_commit = on")
            run("SET client_min_messages = warning")
        except self._psycopg.Error as error:
            told = first_line(error)
            raise LedgerError(f"{self.where}: want a database to keep a ledger in, got: {told}") from error

    @property
    def in_transaction(self) -> bool:
        status = self._psycopg.pq.TransactionStatus
        return not self.connection.closed and self.connection.info.transaction_status == status.INTRANS

    @contextmanager
    def transaction(self, write: bool = True) -> Iterator[None]:
        try:
            self._begin(write)
            try:
                if write:
                    # One writer at a time, while others read. Before the tables exist there is nothing else to lock.
                    self.connection.execute("SELECT pg_advisory_xact_lock(%s)", (_lock_number(self.schema),))
                yield
                if not self.in_transaction:
                    raise LedgerError("want a transaction to commit, got one that was rolled back")
                self.vault.commit()
                self.connection.execute("COMMIT")
            except BaseException:
                self._give_up()
                raise
        except self._psycopg.Error as error:
            told = f"want a ledger that can be {'written' if write else 'read'}, got: {first_line(error)}"
            raise LedgerError(told) from error

    def _begin(self, write: bool) -> None:
        if self.connection.closed:
            self._connect()
        start = "BEGIN" if write else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        try:
            self.connection.execute(start)
        except self._psycopg.OperationalError:
            # The connection was lost while nobody used it; nothing was asked for yet, so asking again is safe.
            self.connection.close()
            self._connect()
            self.connection.execute(start)

    def _give_up(self) -> None:
        self.vault.give_up()
        if not self.connection.closed:
            try:
                self.connection.execute("ROLLBACK")
            except self._psycopg.Error:
                self.connection.close()

    @contextmanager
    def _working(self) -> Iterator[None]:
        try:
            yield
        except self._psycopg.Error as error:
            self._give_up()
            raise LedgerError(f"want a ledger that works, got: {first_line(error)}") from error

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        with self._working():
            cursor = self.connection.execute(_placed(statement), [escaped(value) for value in values])
            return [] if cursor.description is None else [tuple(map(unescaped, row)) for row in cursor]

    def add(self, entries: Sequence[Row], postings: Sequence[Row]) -> None:
        with self._working(), self.connection.cursor() as cursor:
            for table, rows in (("posting", postings), ("entry", entries)):
                written = [[escaped(value) for value in row] for row in rows]
                if len(rows) < COPIED_FROM:
                    cursor.executemany(_placed(_ADD[table]), written)
                else:
                    with cursor.copy(f"COPY {table} ({_COLUMNS[table]}) FROM STDIN") as copy:
                        for row in written:
                            copy.write_row(row)

    def each(self, statement: str) -> Iterator[Row]:
        with self._working(), self.connection.cursor(name=f"each_{secrets.token_hex(4)}") as cursor:
            cursor.itersize = 5000
            for row in cursor.execute(_placed(statement)):
                yield tuple(map(unescaped, row))

    def begin(self, identity: tuple[int, str, str]) -> None:
        sql = self._psycopg.sql
        with self.transaction(), self._working():
            if self.connection.execute("SELECT to_regnamespace(%s)", (self.schema,)).fetchone()[0] is None:
                self.connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.schema)))
            if self.connection.execute("SELECT to_regclass('book')").fetchone()[0] is None:
                for statement in _POSTGRES_SCHEMA:
                    self.connection.execute(statement)
                self.run(_ADD["book"], (1, *identity))

    def schema_fault(self) -> str | None:
        wanted = {words[2] for words in map(str.split, _POSTGRES_SCHEMA) if words[:2] == ["CREATE", "TRIGGER"]}
        rows = self.run(
            "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled = 'O' "
            "AND tgrelid IN (to_regclass('book'), to_regclass('entry'), to_regclass('posting'))"
        )
        return _triggers_fault(wanted, {row[0] for row in rows})

    def close(self) -> None:
        self.connection.close()
        self.vault.close()


def _triggers_fault(wanted: set[str], present: set[str]) -> str | None:
    return None if present == wanted else f"schema: want the triggers {sorted(wanted)}, got {sorted(present)}"


@cache
def _placed(statement: str) -> str:
    """The ledger's SQL holds no `?` and no `%` but for values."""
    return statement.replace("?", "%s")


def schema_of(store: str) -> str:
    """Name of the schema that holds a store's books."""
    if re.fullmatch(r"[a-z0-9_]{1,40}", store):
        return f"books_{store}"
    return f"books_{hashlib.sha256(store.encode()).hexdigest()[:32]}"


def _lock_number(schema: str) -> int:
    return int.from_bytes(hashlib.sha256(schema.encode()).digest()[:8], "big", signed=True)


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def escaped(value: Any) -> Any:
    """PostgreSQL's text cannot hold NUL, which SQLite's can."""
    return value.replace("\x01", "\x01\x01").replace("\x00", "\x010") if isinstance(value, str) else value


def unescaped(value: Any) -> Any:
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, str) and "\x01" in value:
        return re.sub("\x01(.)", lambda found: "\x00" if found[1] == "0" else found[1], value)
    return value
