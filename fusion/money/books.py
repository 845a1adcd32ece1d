"""The book of entries: only ever added to, chained by hash, read by visit, kind, time or account.

Every entry carries a SHA-256 over its own canonical bytes and its predecessor's hash, so `Books.verify` finds and names
a row that was changed, removed, inserted or moved. A removed tail is found by comparing with a `Head` or a signed
checkpoint that is kept elsewhere.
"""

from __future__ import annotations

import json
import operator
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple, Self

from fusion.errors import IdempotencyConflict, LedgerError
from fusion.money.checkpoint import Head, SigningKey
from fusion.money.databases import Database
from fusion.money.entries import (
    FORMAT_VERSION,
    Entry,
    EntryRow,
    Posting,
    PostingRow,
    canonical_bytes,
    canonical_json,
    chained_hash,
    checked_instant,
    checked_integer,
    checked_text,
    genesis_hash,
    unbalanced,
)
from fusion.money.schema import Row
from fusion.store.models import Store

# A batch is written to the database whenever it holds this many entries.
FLUSHED_FROM = 1000
# What entries about the vault are about, in the place of a visit.
VAULT = "vault"


class Recorded(NamedTuple):
    """Time and details of an entry that the books hold."""

    t_ns: int
    details: dict[str, Any]


class _Link(NamedTuple):
    """The newest link of the chain: an entry's number and hash."""

    seq: int
    digest: bytes


class _Postings(NamedTuple):
    """The postings of the entry with a number."""

    entry: int
    postings: list[Posting]


@dataclass
class _Batch:
    """Entries of a batch that are not in the database yet; until the batch ends no other process adds any.

    Attributes:
        newest: the newest link, once the batch has added one.
        entries: by key.
        postings: of these entries.
    """

    newest: _Link | None = None
    entries: dict[str, EntryRow] = field(default_factory=dict)
    postings: list[PostingRow] = field(default_factory=list)


class Books:
    """One store's entries; several threads and processes may use the same books.

    When a method has returned, its entries are on disk and survive a crash of the process and a power failure. Times
    come from the data; no clock is read.

    Attributes:
        database: holds the rows.
    """

    def __init__(self, database: Database, store: Store, *, create: bool = True) -> None:
        """Use the books in a database, or begin them there.

        Args:
            database: holds the rows.
            store: whose books they are.
            create: begin them where there are none.

        Raises:
            LedgerError: they cannot be used, or are those of another store, currency or format; or there are none.
        """
        self.database = database
        self._store = store
        self._lock = threading.RLock()
        self._batch: _Batch | None = None
        self._genesis = genesis_hash(store.id, store.currency)
        self._identity = (FORMAT_VERSION, store.id, store.currency)
        if create and not database.read_only:
            database.create(self._identity)
        elif not database.exists():
            raise LedgerError(f"{database.where}: holds no books; `fusion run` and `fusion serve` begin them")
        rows = database.run("SELECT format_version, store, currency FROM book WHERE id = 1")
        version, *found = rows[0] if rows else (None, None, None)
        if version != FORMAT_VERSION:
            raise LedgerError(f"{database.where}: want a ledger of format {FORMAT_VERSION}, got {version}")
        if found != [store.id, store.currency]:
            wanted = f"{store.id!r} in {store.currency}"
            raise LedgerError(f"{database.where}: want the books of {wanted}, got {found[0]!r} in {found[1]}")
        if not database.read_only and not database.vault.is_sealed:
            self._seal_vault()

    def _seal_vault(self) -> None:
        """Seal the rows of a vault that an older version made, and note it among the entries, once and for good."""
        key = f"{VAULT}/sealed"
        with self._transaction():
            if self._find(key):
                raise LedgerError(
                    f"{self.database.where}: the seals of the vault were removed after they had been made; restore a "
                    "backup, or find out who could write to it"
                )
            newest = self.database.run("SELECT t_ns FROM entry ORDER BY seq DESC LIMIT 1")
            n_rows = self.database.vault.seal_all(self._began_with)
            if any(n_rows.values()):
                self._append(newest[0][0] if newest else 0, "vault sealed", VAULT, key, {"request": n_rows}, ())

    def _began_with(self, visit: str) -> bytes:
        """Hash of the entry that began a visit; empty where there is none."""
        rows = self.database.run(
            "SELECT hash FROM entry WHERE key IN (?, ?) ORDER BY seq LIMIT 1", (f"{visit}/opened", f"{visit}/receipt")
        )
        return bytes(rows[0][0]) if rows else b""

    # ---- adding ------------------------------------------------------------------------------------------------------

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make everything inside durable together, or none of it where an exception leaves the block.

        Much faster than one by one; nothing inside is on disk before the block has ended.
        """
        with self._transaction():
            is_outermost = self._batch is None
            self._batch = self._batch or _Batch()
            try:
                yield
                self._flush()
            finally:
                if is_outermost:
                    self._batch = None

    @contextmanager
    def _transaction(self, write: bool = True) -> Iterator[None]:
        """All or nothing. Checks come before writes, so a refusal inside a batch leaves the batch as it was."""
        with self._lock:
            if self._batch is not None:
                self._check_batch()
                if not write:
                    self._flush()
                yield
                return
            with self.database.transaction(write):
                yield

    def _check_batch(self) -> None:
        # After a rollback rows would be written one by one, each in a transaction of its own.
        if not self.database.in_transaction:
            raise LedgerError("the batch failed before and was rolled back; leave it and post its entries again")

    def _append(
        self, t_ns: int, kind: str, visit: str, key: str, details: Mapping[str, Any], postings: Sequence[Posting]
    ) -> bytes:
        """Add an entry, inside a transaction; returns its hash."""
        newest = self._newest()
        seq, text = newest.seq + 1, canonical_json(details)
        digest = chained_hash(newest.digest, canonical_bytes(seq, t_ns, kind, visit, key, text, postings))
        entry = EntryRow(seq, t_ns, kind, visit, key, text, digest)
        legs = [PostingRow(seq, line, *leg) for line, leg in enumerate(postings)]
        batch = self._batch
        if batch is None:
            self.database.add([entry], legs)
            return digest
        batch.newest = _Link(seq, digest)
        batch.entries[key] = entry
        batch.postings += legs
        if len(batch.entries) >= FLUSHED_FROM:
            self._flush()
        return digest

    def _flush(self) -> None:
        """Write the entries of a batch that are not in the database yet."""
        batch = self._batch
        if batch is not None and batch.entries:
            self._check_batch()
            entries, postings = list(batch.entries.values()), batch.postings
            batch.entries, batch.postings = {}, []
            self.database.add(entries, postings)

    def _newest(self) -> _Link:
        if self._batch is not None and self._batch.newest is not None:
            return self._batch.newest
        rows = self.database.run("SELECT seq, hash FROM entry ORDER BY seq DESC LIMIT 1")
        return _Link(*rows[0]) if rows else _Link(0, self._genesis)

    def _find(self, *keys: str) -> dict[str, Recorded]:
        """The entries that exist under these keys."""
        places = ", ".join("?" * len(keys))
        rows = self.database.run(f"SELECT key, t_ns, details FROM entry WHERE key IN ({places})", keys)
        found = {key: Recorded(t_ns, json.loads(details)) for key, t_ns, details in rows}
        if self._batch is not None:
            for key in keys:
                if (row := self._batch.entries.get(key)) is not None:
                    found[key] = Recorded(row.t_ns, json.loads(row.details))
        return found

    @staticmethod
    def _is_repeated(key: str, recorded: Recorded | None, t_ns: int, request: Mapping[str, Any]) -> bool:
        """Whether the same request was recorded under this key before. VAT rates, which may change, are not compared.

        Raises:
            IdempotencyConflict: another request was recorded.
        """
        if recorded is None:
            return False
        if recorded.t_ns != t_ns or canonical_json(recorded.details["request"]) != canonical_json(request):
            raise IdempotencyConflict(f"{key!r}: recorded before with other contents")
        return True

    # ---- reading -----------------------------------------------------------------------------------------------------

    def entries(self, visit: str) -> list[Entry]:
        """All entries about a visit, oldest first."""
        return self._entries("e.visit = ?", (checked_text("visit", visit),))

    def entries_between(self, t0_ns: int, t1_ns: int) -> list[Entry]:
        """All entries of an interval of data time, in the order in which they were made."""
        return self._entries(
            "e.t_ns >= ? AND e.t_ns < ?", (checked_instant("t0_ns", t0_ns), checked_instant("t1_ns", t1_ns))
        )

    def visits_between(self, kinds: Sequence[str], t0_ns: int, t1_ns: int) -> list[str]:
        """Visits with an entry of these kinds in an interval of data time, in the order of those entries."""
        rows = self._query(
            f"SELECT visit FROM entry WHERE kind IN ({', '.join('?' * len(kinds))}) AND t_ns >= ? AND t_ns < ? "
            "ORDER BY t_ns, seq",
            (*kinds, checked_instant("t0_ns", t0_ns), checked_instant("t1_ns", t1_ns)),
        )
        return [visit for (visit,) in rows]

    def recorded(self, visit: str, name: str) -> Entry | None:
        """The entry that was recorded about a visit under a name."""
        found = self._entries("e.key = ?", (f"{checked_text('visit', visit)}/{checked_text('name', name)}",))
        return found[0] if found else None

    def entries_of(self, *kinds: str, after: int = 0, since_ns: int = -(2**63)) -> list[Entry]:
        """All entries of some kinds with a number above `after`, from an instant of data time on, oldest first."""
        places = ", ".join("?" * len(kinds))
        after, since_ns = checked_integer("after", after, 0, 2**63 - 1), checked_instant("since_ns", since_ns)
        names = [checked_text("kind", kind) for kind in kinds]
        return self._entries(f"e.kind IN ({places}) AND e.seq > ? AND e.t_ns >= ?", (*names, after, since_ns))

    def not_followed(self, kind: str, by: Sequence[str]) -> list[str]:
        """Visits with an entry of a kind that none of the kinds `by` has followed, the oldest entry first."""
        places = ", ".join("?" * len(by))
        rows = self._query(
            "SELECT min(e.seq), e.visit FROM entry e WHERE e.kind = ? AND NOT EXISTS (SELECT 1 FROM entry a "
            f"WHERE a.visit = e.visit AND a.seq > e.seq AND a.kind IN ({places})) GROUP BY e.visit",
            (checked_text("kind", kind), *by),
        )
        return [visit for _, visit in sorted(rows)]

    def unanswered(self, kind: str) -> list[Entry]:
        """Entries of a kind that lack an answer (an entry of the same name plus "/answer"), oldest first."""
        return self._entries(
            "e.kind = ? AND NOT EXISTS (SELECT 1 FROM entry a WHERE a.key = e.key || '/answer')",
            (checked_text("kind", kind),),
        )

    def has_kind(self, kind: str) -> bool:
        """Whether there is any entry of a kind."""
        return bool(self._query("SELECT 1 FROM entry WHERE kind = ? LIMIT 1", (checked_text("kind", kind),)))

    def rows_after(self, seq: int, limit: int) -> tuple[list[EntryRow], list[PostingRow]]:
        """The next entries after a number as the database holds them, for a copy that is kept elsewhere.

        Returns:
            At most `limit` entries in order, and their postings. Writers do not wait for this.
        """
        with self._transaction(write=False):
            rows = self.database.run(
                "SELECT seq, t_ns, kind, visit, key, details, hash FROM entry WHERE seq > ? ORDER BY seq LIMIT ?",
                (checked_integer("seq", seq, -1, 2**63 - 1), checked_integer("limit", limit, 1, 10**6)),
            )
            entries = [EntryRow(*row) for row in rows]
            if not entries:
                return [], []
            postings = self.database.run(
                "SELECT entry, line, account, currency, amount FROM posting WHERE entry BETWEEN ? AND ? "
                "ORDER BY entry, line",
                (entries[0].seq, entries[-1].seq),
            )
        return entries, [PostingRow(*row) for row in postings]

    def postings(self, visit: str) -> list[Posting]:
        """All postings of a visit, oldest first."""
        rows = self._query(
            "SELECT p.account, p.currency, p.amount FROM entry e JOIN posting p ON p.entry = e.seq "
            "WHERE e.visit = ? ORDER BY p.entry, p.line",
            (checked_text("visit", visit),),
        )
        return [Posting(*row) for row in rows]

    def balances(self, before_ns: int | None = None) -> dict[str, dict[str, int]]:
        """Balance of every account by currency, debits positive; those of one currency sum to zero.

        `before_ns` leaves out the entries from that instant of data time on.
        """
        columns = "p.currency, p.account, CAST(sum(p.amount) AS BIGINT)"
        if before_ns is None:
            rows = self._query(f"SELECT {columns} FROM posting p GROUP BY p.currency, p.account")
        else:
            rows = self._query(
                f"SELECT {columns} FROM posting p JOIN entry e ON e.seq = p.entry WHERE e.t_ns < ? "
                "GROUP BY p.currency, p.account",
                (checked_instant("before_ns", before_ns),),
            )
        balances: dict[str, dict[str, int]] = {}
        for currency, account, amount in sorted(rows):
            balances.setdefault(currency, {})[account] = amount
        return balances

    def balances_of(self, account: str) -> dict[str, int]:
        """An account's balance by visit, where it is not zero; in the order of the visits' first entries."""
        rows = self._query(
            "SELECT min(e.seq), e.visit, CAST(sum(p.amount) AS BIGINT) FROM entry e JOIN posting p ON p.entry = e.seq "
            "WHERE p.account = ? GROUP BY e.visit HAVING sum(p.amount) <> 0",
            (checked_text("account", account),),
        )
        return {visit: amount for _, visit, amount in sorted(rows)}

    def _query(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        with self._transaction(write=False):
            return self.database.run(statement, values)

    def _entries(self, condition: str, values: Sequence[Any]) -> list[Entry]:
        with self._transaction(write=False):
            return self._select(condition, values)

    def _select(self, condition: str, values: Sequence[Any]) -> list[Entry]:
        """Entries that meet a condition, inside a transaction."""
        rows = self.database.run(
            f"SELECT seq, t_ns, kind, visit, key, details FROM entry e WHERE {condition} ORDER BY seq", values
        )
        legs: dict[int, list[Posting]] = {}
        # A second query is as fast as a join, which would repeat the details for every posting.
        for entry, *leg in self.database.run(
            "SELECT p.entry, p.account, p.currency, p.amount FROM posting p JOIN entry e ON e.seq = p.entry "
            f"WHERE {condition} ORDER BY p.entry, p.line",
            values,
        ):
            legs.setdefault(entry, []).append(Posting(*leg))
        return [
            Entry(seq, t_ns, kind, visit, key, json.loads(details)["request"], tuple(legs.get(seq, ())))
            for seq, t_ns, kind, visit, key, details in rows
        ]

    # ---- the chain ---------------------------------------------------------------------------------------------------

    def head(self) -> Head:
        """The newest entry; of empty books number 0 and the hash that the first entry will build on."""
        with self._transaction(write=False):
            newest = self._newest()
        return Head(newest.seq, newest.digest.hex())

    def checkpoint(self, key: SigningKey, t_ns: int) -> str:
        """A signed note of the newest entry, one line of JSON to keep outside; read by `Head.from_checkpoint`."""
        return self.head().checkpoint(key, t_ns, self._store, self.database.vault.key_id or "")

    def holds(self, head: Head) -> bool:
        """Whether the books hold the entry of a head that was noted earlier; reads one row."""
        if head.seq == 0:
            return head.sha256 == self._genesis.hex()
        rows = self._query("SELECT hash FROM entry WHERE seq = ?", (head.seq,))
        return bool(rows) and bytes(rows[0][0]).hex() == head.sha256

    def verify(self, kept: Head | None = None) -> str | None:
        """Check the whole chain. None where it holds, otherwise what is wrong with the first bad row.

        `kept` is a head that was noted earlier, outside these books; without it a removed tail goes unnoticed.
        """
        with self._transaction(write=False):  # one snapshot, whatever other processes append at the same time
            return next(self._faults(kept), None)

    def _faults(self, kept: Head | None) -> Iterator[str]:
        """Faults in the order of the rows; the checks after the first one may find consequences of it."""
        database = self.database
        if (fault := database.schema_fault()) is not None:
            yield fault
        if database.run("SELECT id, format_version, store, currency FROM book") != [(1, *self._identity)]:
            yield "book: identity of the books was changed"
        rows = database.each("SELECT entry, account, currency, amount FROM posting ORDER BY entry, line")
        groups = (
            _Postings(entry, [Posting(*leg) for _, *leg in group])
            for entry, group in groupby(rows, operator.itemgetter(0))
        )
        pending = next(groups, None)
        expected, digest = 1, self._genesis
        began: dict[str, bytes] = {}  # by visit: hash of the entry that began it, as `_began_with`
        for fields in database.each("SELECT seq, t_ns, kind, visit, key, details, hash FROM entry ORDER BY seq"):
            row = EntryRow(*fields)
            if row.seq != expected:
                yield f"entry {expected}: missing, the next one is {row.seq}"
            if pending is not None and pending.entry < row.seq:
                yield f"posting of entry {pending.entry}: there is no such entry"
            postings: list[Posting] = []
            if pending is not None and pending.entry == row.seq:
                postings, pending = pending.postings, next(groups, None)
            digest = chained_hash(digest, canonical_bytes(*row[:-1], postings))
            if digest != row.hash:
                yield f"entry {row.seq}: its contents or its place in the chain were changed"
            if sums := unbalanced(postings):
                yield f"entry {row.seq}: postings do not balance: {sums}"
            if kept is not None and kept.seq == row.seq and kept.sha256 != digest.hex():
                yield f"entry {row.seq}: differs from the head that was kept"
            if row.key in (f"{row.visit}/opened", f"{row.visit}/receipt"):
                began.setdefault(row.visit, row.hash)
            expected += 1
        if pending is not None:
            yield f"posting of entry {pending.entry}: there is no such entry"
        if kept is not None and kept.seq >= expected:
            yield f"entry {expected}: missing, the head that was kept is {kept.seq}"
        yield from database.vault.faults(lambda visit: began.get(visit, b""))

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
