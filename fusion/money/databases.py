"""Where the rows of the books live: one SQLite file, or one schema of a PostgreSQL database.

Both keep the same tables, refuse the same changes and give the same answers. A write transaction has the books to
itself, and what it has committed survives a power failure.

The vault records which customer a visit belonged to; the books do not. SQLite books hold the vault in the same file,
so both change in one transaction. PostgreSQL keeps its statements in logs and backups for longer than anybody can
promise to forget them, so the vault of such books is a separate SQLite file that stays in the store.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from fusion.errors import LedgerError
from fusion.money.entries import EntryRow, PostingRow
from fusion.money.postgres import PostgresDatabase
from fusion.money.schema import Row
from fusion.money.sqlite import SQLiteDatabase
from fusion.money.vault import Vault


class Database(Protocol):
    """The rows of one store's books. Used by one thread at a time; `Books` holds a lock."""

    where: str  # names the books in messages; never contains a password
    vault: Vault
    read_only: bool

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open that can still be committed."""
        ...

    def transaction(self, write: bool = True) -> AbstractContextManager[None]:
        """All or nothing, durable when the block has been left; for reading, one state of everything.

        Raises:
            LedgerError: it could not be begun or committed. After a lost connection it may have been committed: post
                again under the same keys to find out.
        """
        ...

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Rows of one statement. A failure rolls the transaction back, so that no half entry can be committed."""
        ...

    def add(self, entries: Sequence[EntryRow], postings: Sequence[PostingRow]) -> None:
        """Add entries and all their postings."""
        ...

    def each(self, statement: str) -> Iterator[Row]:
        """Rows of one statement as they come, inside a transaction; for whole tables."""
        ...

    def create(self, identity: tuple[int, str, str]) -> None:
        """Create the tables of new books for (format version, store, currency); existing books are left alone."""
        ...

    @property
    def moved(self) -> bool:
        """Whether what was read without a lock was changed meanwhile, so that it must be read again."""
        ...

    def exists(self) -> bool:
        """Whether there are tables of books."""
        ...

    def schema_fault(self) -> str | None:
        """How tables and triggers differ from those that the books create."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


def open_database(
    where: str | os.PathLike[str],
    store: str,
    vault: str | os.PathLike[str] | None,
    *,
    create: bool = True,
    read_only: bool = False,
) -> Database:
    """The rows at a path, sqlite:///path or postgresql://...; see `Ledger.open`."""
    text = os.fspath(where)
    if text.startswith(("postgresql://", "postgres://")):
        if vault is None:
            raise LedgerError("books in PostgreSQL need a file for the vault; pass --vault FILE (Python: vault=path)")
        return PostgresDatabase(text, store, Path(vault), create=create, read_only=read_only)
    if vault is not None:
        raise LedgerError("books in SQLite want no file for the vault, since they hold it themselves, got one")
    return SQLiteDatabase(books_path(text), create=create, read_only=read_only)


def books_folder(where: str | os.PathLike[str], vault: str | os.PathLike[str] | None) -> Path:
    """The folder of the store's side of its books: that of the vault, for books on a server, else of their file.

    Raises:
        LedgerError: a URL that needs a vault, without one.
    """
    return Path(vault).parent if vault else books_path(os.fspath(where)).parent


def books_path(text: str) -> Path:
    """The file of books at a path or sqlite:///path. Raises LedgerError for another kind of URL."""
    if "://" not in text:
        return Path(text)
    url = urlsplit(text)
    if url.scheme != "sqlite" or url.netloc or not url.path.strip("/"):
        # The URL may hold a password, so only its scheme is repeated.
        raise LedgerError(
            "books: want a path, sqlite:///path or postgresql://server/database?sslmode=verify-full, got a URL of "
            f"scheme {url.scheme!r}"
        )
    # As SQLAlchemy has it: three slashes are a relative path, four an absolute one.
    return Path(unquote(url.path[1:]))
