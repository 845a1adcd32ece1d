"""The three streams that a store ships to the chain: rows that are numbered, chained by hash and only added to."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from fusion.chain.schema import COLUMNS, TABLE_OF_STREAM
from fusion.errors import LedgerError, extra
from fusion.live import outbox
from fusion.live.outbox import Outbox
from fusion.money.entries import Posting, canonical_bytes, chained_hash, genesis_hash
from fusion.money.ledger import Ledger
from fusion.money.schema import Row
from fusion.store.models import Store

# Rows of a batch: some 2 MB of entries, a tenth of a second.
BATCH = 5000
# A server that refuses the login, now or later. PostgreSQL gives its reason as text only, so a server whose messages
# are not in English is asked again and again.
REFUSED = re.compile(
    'password authentication failed|no password supplied|no pg_hba.conf entry|is not permitted to log in|'
    '(database|role|user) "[^"]*" does not exist|permission denied for database|no such (database|user)'
)


class ConnectionLost(LedgerError):
    """The server cannot be reached or went away, or another process holds the store's file for a while.

    The request may have taken effect: ask for the mark.
    """


@dataclass(frozen=True, slots=True)
class Record:
    """A row of a stream as the store holds it: first its number, last its hash; an entry's postings beside it."""

    row: Row
    postings: tuple[Posting, ...] = ()

    @property
    def seq(self) -> int:
        """The row's number in its stream, from 1."""
        return int(self.row[0])

    @property
    def hash(self) -> bytes:
        """SHA-256 over the previous row's hash and this row."""
        return bytes(self.row[-1])


@dataclass(frozen=True, slots=True)
class Mark:
    """Number and hash of a stream's newest row; 0 and the genesis hash where there is none."""

    seq: int
    hash: bytes


class Source(Protocol):
    """One stream of a store, readable from any number on."""

    stream: str
    genesis: bytes

    def newest(self) -> int:
        """Number of the newest row, 0 where there is none."""
        ...

    def after(self, seq: int, limit: int) -> list[Record]:
        """At most `limit` rows after a number, in their order."""
        ...


class LedgerSource:
    """The entries of a store's ledger with their postings."""

    stream = "ledger"

    def __init__(self, ledger: Ledger, store: Store) -> None:
        self._ledger = ledger
        self.genesis = genesis_hash(store.id, store.currency)

    def newest(self) -> int:
        """Number of the newest entry, 0 where there is none."""
        with _reading(self.stream):
            return self._ledger.head().seq

    def after(self, seq: int, limit: int) -> list[Record]:
        """At most `limit` entries after a number, in their order."""
        with _reading(self.stream):
            return records(*self._ledger.rows_after(seq, limit))


class OutboxSource:
    """One of the two streams of a store's outbox."""

    def __init__(self, box: Outbox, stream: str) -> None:
        self._box, self.stream = box, stream
        self.genesis = outbox.genesis(box.store, stream)

    def newest(self) -> int:
        """Number of the newest row, 0 where there is none."""
        with _reading(self.stream):
            return self._box.newest(self.stream)

    def after(self, seq: int, limit: int) -> list[Record]:
        """At most `limit` rows after a number, in their order."""
        with _reading(self.stream):
            return [Record(row) for row in self._box.rows_after(self.stream, seq, limit)]


def sources_of(store: Store, ledger: Ledger, box: Outbox | None = None) -> tuple[Source, ...]:
    """Every stream that a store ships: its ledger, and those of its outbox where it has one."""
    books: tuple[Source, ...] = (LedgerSource(ledger, store),)
    return books if box is None else (*books, *(OutboxSource(box, stream) for stream in outbox.STREAMS))


@contextmanager
def _reading(stream: str) -> Iterator[None]:
    """Name the stream in errors, and tell passing ones from lasting ones.

    A ledger on a server of the store's own may be out of reach, and another process may hold a file for a while.
    """
    try:
        yield
    except LedgerError as error:
        kind = ConnectionLost if _passes(error.__cause__) else LedgerError
        raise kind(f"{stream}: {error}") from error


def _passes(cause: BaseException | None) -> bool:
    """Whether a failure may end by itself."""
    if isinstance(cause, sqlite3.Error):
        # The low byte is the kind of error; the other bytes refine it.
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    with extra("postgres"):
        import psycopg

    return isinstance(cause, (psycopg.OperationalError, psycopg.InterfaceError)) and not REFUSED.search(str(cause))


def records(entries: Sequence[Row], postings: Iterable[Row]) -> list[Record]:
    """Entries of a ledger with their postings; both in order of the entries' numbers."""
    legs = {entry: tuple(Posting(*leg[2:]) for leg in rows) for entry, rows in groupby(postings, lambda row: row[0])}
    return [Record(row, legs.get(row[0], ())) for row in entries]


def digest(stream: str, previous: bytes, record: Record) -> bytes:
    """The hash that a row must have after one whose hash is `previous`."""
    row = record.row
    if stream == "ledger":
        seq, t_ns, kind, visit, key, details, _ = row
        return chained_hash(previous, canonical_bytes(seq, t_ns, kind, visit, key, details, record.postings))
    return outbox.chained(previous, row[:-1])


def difference(stream: str, have: Record, got: Record) -> str:
    """How two rows under the same number differ, in words."""
    names = (*COLUMNS[TABLE_OF_STREAM[stream]].split(", "), "postings")
    pairs = zip(names, (*have.row, have.postings), (*got.row, got.postings))
    return "; ".join(f"{name}: have {_brief(a)}, got {_brief(b)}" for name, a, b in pairs if a != b)


def _brief(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()[:16]
    if isinstance(value, tuple):
        value = [tuple(posting) for posting in value]
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
