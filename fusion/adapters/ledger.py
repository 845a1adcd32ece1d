"""The retailer's ledger: what every visit costs, in books that are only added to.

Double entry in SQLite. Every entry carries a SHA-256 over its own canonical bytes and over its predecessor's hash, so a
row that is changed, removed, inserted or swapped afterwards is found and named by `Ledger.verify`; a tail that was cut
off is found by comparing with a `Head` kept elsewhere. Amounts are integer minor units; debits are positive, credits
negative.

Every entry has a key derived from the event that caused it. Saying the same thing twice is harmless, so whoever is not
sure whether a posting arrived says it again; saying something else under the same key is an `IdempotencyConflict`.

Whose visit it was stands in one table of its own, outside the chain: deleting those rows leaves valid books behind.
Nothing else that is stored here may name an account.
"""

from __future__ import annotations

import hashlib
import json
import operator
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from fusion.config import Store
from fusion.errors import IdempotencyConflict, LedgerError
from fusion.results import Receipt, ReceiptLine

FORMAT_VERSION = 1
# Largest amount of one line or receipt, in minor units. SQLite's sums are int64: nine million entries of this size fit.
AMOUNT_MAX = 10**12
# Longest visit id, account or name; longest reason or note.
NAME_MAX = 255
NOTE_MAX = 2000
# How long to wait for another process that is writing.
BUSY_MAX_S = 10.0
# VAT rates are exact to a ten-thousandth of a percent.
_RATE_SCALE = 10_000

Decided = Literal["accept", "correct", "waive"]

_SCHEMA = """
CREATE TABLE book (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  format_version INTEGER NOT NULL,
  store TEXT NOT NULL,
  currency TEXT NOT NULL
) STRICT;
CREATE TABLE entry (
  seq INTEGER PRIMARY KEY,
  t_ns INTEGER NOT NULL,
  kind TEXT NOT NULL,
  visit TEXT NOT NULL,
  key TEXT NOT NULL UNIQUE,
  details TEXT NOT NULL,
  hash BLOB NOT NULL
) STRICT;
CREATE INDEX entry_of_visit ON entry (visit, seq);
CREATE TABLE posting (
  entry INTEGER NOT NULL REFERENCES entry (seq),
  line INTEGER NOT NULL,
  account TEXT NOT NULL,
  currency TEXT NOT NULL,
  amount INTEGER NOT NULL,
  PRIMARY KEY (entry, line)
) STRICT, WITHOUT ROWID;
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
CREATE TRIGGER posting_insert BEFORE INSERT ON posting
  WHEN NEW.entry <> (SELECT max(seq) FROM entry)
    OR EXISTS (SELECT 1 FROM posting WHERE entry = NEW.entry AND line = NEW.line)
  BEGIN SELECT RAISE(ABORT, 'books are only added to'); END;
"""
_LINK_SCHEMA = """
CREATE TABLE link (
  visit TEXT PRIMARY KEY,
  account TEXT NOT NULL,
  enter_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX link_of_account ON link (account);
"""
_TRIGGERS = frozenset(line.split()[2] for line in _SCHEMA.splitlines() if line.startswith("CREATE TRIGGER"))


@dataclass(frozen=True, slots=True)
class Posting:
    """One leg of an entry: an amount on an account, debits positive, credits negative."""

    account: str
    currency: str
    amount: int


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry's number and hash. Kept outside the ledger, it shows later whether a tail was cut off."""

    seq: int
    sha256: str


@dataclass(frozen=True, slots=True)
class OpenVisit:
    """Somebody who came in and has no receipt yet. `account` is None without a credential or once unlinked."""

    visit: str
    account: str | None
    enter_ns: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How a visit stands in the books.

    Attributes:
        status: "open" (no receipt yet), "settled", "review" (waits for a decision), or "decided".
        reason: why the receipt went to review, if it did.
        total: what the lines below cost. Money has moved for it unless the status is "open" or "review".
        revision: number of decisions taken so far; the next one is revision + 1.
    """

    visit: str
    account: str | None
    status: str
    reason: str | None
    currency: str
    total: int
    lines: tuple[ReceiptLine, ...]
    revision: int


def vat_included(gross: int, rate_percent: float) -> int:
    """VAT contained in a gross amount, in minor units.

    Extracted once per rate from the sum of a receipt's lines of that rate, not per line, and rounded to the nearest
    minor unit, halves up (away from zero; gross >= 0). Net is gross minus VAT, so the two always add up again.
    """
    rate = _rate(rate_percent)
    base = 100 * _RATE_SCALE + rate
    return (2 * gross * rate + base) // (2 * base)


def _rate(percent: float) -> int:
    return round(percent * _RATE_SCALE)


@cache
def _rate_text(rate: int) -> str:
    whole, part = divmod(rate, _RATE_SCALE)
    return f"{whole}.{part:04d}".rstrip("0").rstrip(".") + "%"


def canonical_bytes(
    seq: int, t_ns: int, kind: str, visit: str, key: str, details: str, postings: Sequence[Posting]
) -> bytes:
    """The bytes of an entry that its hash covers: JSON without spaces, ASCII only, integers and text only."""
    legs = [[posting.account, posting.currency, posting.amount] for posting in postings]
    return _canonical([seq, t_ns, kind, visit, key, details, legs]).encode("ascii")


def chained_hash(previous: bytes, entry: bytes) -> bytes:
    """SHA-256 over the predecessor's hash (32 bytes) and an entry's canonical bytes."""
    return hashlib.sha256(previous + entry).digest()


def genesis_hash(store: str, currency: str) -> bytes:
    """What the first entry is chained to: the identity of the books."""
    return hashlib.sha256(_canonical(["fusion ledger", FORMAT_VERSION, store, currency]).encode("ascii")).digest()


# Made once: json.dumps would make one for every entry.
_ENCODER = json.JSONEncoder(ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _canonical(value: Any) -> str:
    return _ENCODER.encode(value)


def charge_postings(gross_by_rate: Mapping[int, int], currency: str) -> tuple[Posting, ...]:
    """Postings of a sale: receivable against revenue and VAT payable, per rate in ten-thousandths of a percent."""
    postings = []
    total = sum(gross_by_rate.values())
    if total:
        postings.append(Posting("receivable", currency, total))
    for rate, gross in sorted(gross_by_rate.items()):
        vat = vat_included(gross, rate / _RATE_SCALE)
        if gross - vat:
            postings.append(Posting(f"revenue {_rate_text(rate)}", currency, vat - gross))
        if vat:
            postings.append(Posting(f"vat {_rate_text(rate)}", currency, -vat))
    return tuple(postings)


def _text(name: str, value: object, longest: int = NAME_MAX, shortest: int = 1) -> str:
    if not isinstance(value, str) or not shortest <= len(value) <= longest:
        raise LedgerError(f"{name}: want {shortest} to {longest} characters, got {_shown(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise LedgerError(f"{name}: want Unicode text, got half a surrogate pair") from None
    return value


def _shown(value: object) -> str:
    return f"{len(value)}" if isinstance(value, str) else type(value).__name__


def _integer(name: str, value: object, low: int, high: int) -> int:
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise LedgerError(f"{name}: want an integer, got {type(value).__name__}") from None
    if not low <= number <= high:
        raise LedgerError(f"{name}: want {low} to {high}, got {number}")
    return number


def _instant(name: str, value: object) -> int:
    return _integer(name, value, -(2**63), 2**63 - 1)


class Ledger:
    """One store's books in one SQLite file; several threads and processes may use the same file.

    What a method has returned from is on disk (WAL, synchronous FULL) and survives the end of the process and of the
    machine's power. Times come from the data; the ledger reads no clock. `store` supplies currency and VAT rates.
    """

    def __init__(self, connection: sqlite3.Connection, store: Store) -> None:
        """Use `Ledger.open`."""
        self._connection = connection
        self._lock = threading.RLock()
        self._batched = False
        self._store = store
        self._rates = {product.gtin: _rate(product.vat_rate) for product in store.products}
        self._genesis = genesis_hash(store.id, store.currency)

    @classmethod
    def open(cls, where: str | os.PathLike[str], store: Store) -> Ledger:
        """Open the books of a store, or begin them where there are none.

        Args:
            where: path of a file, or its URL: sqlite:///relative/path or sqlite:////absolute/path.
            store: whose books they are.

        Raises:
            LedgerError: the file cannot be used, or holds the books of another store, currency or format.
        """
        path = _path(where)
        try:
            # The file says who bought what until it is unlinked: nobody but its owner reads it.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600))
            connection = sqlite3.connect(path, timeout=BUSY_MAX_S, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise LedgerError(f"{path}: want a file to keep the ledger in, got: {error}") from error
        try:
            ledger = cls(connection, store)
            ledger._prepare(path)
        except sqlite3.Error as error:
            connection.close()
            raise LedgerError(f"{path}: want a ledger, got: {error}") from error
        except BaseException:
            connection.close()
            raise
        return ledger

    def _prepare(self, path: Path) -> None:
        run = self._connection.execute
        run("PRAGMA secure_delete = ON")
        mode = run("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise LedgerError(f"{path}: want a local file system with shared memory (WAL), got journal mode {mode}")
        run("PRAGMA synchronous = FULL")
        run("PRAGMA recursive_triggers = ON")
        run("PRAGMA trusted_schema = OFF")
        with self._transaction():
            if run("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
                # executescript would commit first and let a second process begin the books too.
                for statement in _statements(_SCHEMA + _LINK_SCHEMA):
                    run(statement)
                identity = (FORMAT_VERSION, self._store.id, self._store.currency)
                run("INSERT INTO book (id, format_version, store, currency) VALUES (1, ?, ?, ?)", identity)
        found = run("SELECT format_version, store, currency FROM book WHERE id = 1").fetchone()
        if found is None or found[0] != FORMAT_VERSION:
            raise LedgerError(f"{path}: want a ledger of format {FORMAT_VERSION}, got {found and found[0]}")
        if found[1:] != (self._store.id, self._store.currency):
            wanted = f"{self._store.id!r} in {self._store.currency}"
            raise LedgerError(f"{path}: want the books of {wanted}, got {found[1]!r} in {found[2]}")

    # ---- posting -----------------------------------------------------------------------------------------------------

    def open_visit(self, visit: str, account: str | None, enter_ns: int) -> bool:
        """Note that a visit began, before anything is charged. Returns False where it was noted before.

        Companions who come in later on the same account belong to the visit: calling again with a later time is
        harmless.

        Raises:
            IdempotencyConflict: the visit began later than this, or belongs to another account.
        """
        _text("visit", visit)
        if account is not None:
            _text("account", account)
        enter_ns = _instant("enter_ns", enter_ns)
        with self._transaction():
            recorded = self._recorded(f"{visit}/opened")
            if recorded is not None:
                linked = self._account(visit)
                if enter_ns < recorded[0] or (linked is not None and account != linked):
                    raise IdempotencyConflict(f"visit {visit!r}: opened before with other contents")
                return False
            self._append(enter_ns, "visit opened", visit, f"{visit}/opened", {"request": {"enter": enter_ns}}, ())
            if account is not None:
                self._link(visit, account, enter_ns)
        return True

    def post_receipt(self, receipt: Receipt) -> bool:
        """Record a finished visit: a settled one is charged, one for review waits without money moving.

        Returns False where the same receipt was recorded before.

        Raises:
            IdempotencyConflict: the visit has a different receipt, or belongs to another account.
            LedgerError: the receipt does not add up, or names a product, currency or status that the store lacks.
        """
        if receipt.status not in ("settled", "review"):
            raise LedgerError(f"status: want settled or review, got {receipt.status!r}")
        if receipt.currency != self._store.currency:
            raise LedgerError(f"currency: want {self._store.currency}, got {receipt.currency!r}")
        visit = _text("visit", receipt.visit)
        if receipt.account is not None:
            _text("account", receipt.account)
        lines = self._lines(receipt.lines)
        total = _total(lines)
        if total != receipt.total:
            raise LedgerError(f"total: want the sum of the lines, {total}, got {receipt.total}")
        issued_ns = _instant("issued_ns", receipt.issued_ns)
        exit_ns = _instant("exit_ns", receipt.exit_ns)
        enter_ns = None if receipt.enter_ns is None else _instant("enter_ns", receipt.enter_ns)
        request = {
            "enter": enter_ns,
            "exit": exit_ns,
            "status": receipt.status,
            "reason": None if receipt.reason is None else _text("reason", receipt.reason, NOTE_MAX, 0),
            "currency": receipt.currency,
            "total": total,
            "lines": lines,
        }
        with self._transaction():
            linked = self._account(visit)
            if linked is not None and receipt.account != linked:
                raise IdempotencyConflict(f"visit {visit!r}: belongs to another account")
            if self._is_repeated(f"{visit}/receipt", issued_ns, request):
                return False
            rates = self._rates_of(lines, {})
            postings: tuple[Posting, ...] = ()
            if receipt.status == "settled":
                postings = charge_postings(_gross_by_rate(lines, rates), receipt.currency)
            opened = self._recorded(f"{visit}/opened") is not None
            details = {"request": request, "vat": rates}
            self._append(issued_ns, f"receipt {receipt.status}", visit, f"{visit}/receipt", details, postings)
            # A visit that was opened with this account and has no link any more was unlinked on purpose.
            if receipt.account is not None and not opened:
                self._link(visit, receipt.account, exit_ns if enter_ns is None else enter_ns)
        return True

    def decide(
        self,
        visit: str,
        decision: Decided,
        *,
        by: str,
        t_ns: int,
        revision: int = 1,
        lines: Sequence[ReceiptLine] | None = None,
        note: str = "",
    ) -> bool:
        """A person decides what a visit costs: what it was charged so far is reversed, what is right is posted.

        Args:
            decision: "accept" the receipt as it stands (reviewed visits only), "correct" it to `lines`, or "waive" it.
            by: who decided; kept for good.
            t_ns: when.
            revision: 1 for the first decision about this visit, then 2, and so on: `Standing.revision + 1` as the
                person saw it. Of two people who decide at the same time, the second gets the conflict.

        Returns False where exactly this decision was recorded before.

        Raises:
            IdempotencyConflict: this revision was decided differently, by somebody else or at another time.
            LedgerError: the visit has no receipt, the revision skips one, or the decision makes no sense.
        """
        _text("visit", visit)
        if decision not in ("accept", "correct", "waive"):
            raise LedgerError(f"decision: want accept, correct or waive, got {decision!r}")
        if (lines is not None) != (decision == "correct"):
            raise LedgerError(f"lines: want them with correct and only then, got {decision}")
        t_ns = _instant("t_ns", t_ns)
        revision = _integer("revision", revision, 1, 10**6)
        asked = None if lines is None else self._lines(lines)
        request = {
            "decision": decision,
            "by": _text("by", by),
            "revision": revision,
            "lines": asked,
            "note": _text("note", note, NOTE_MAX, 0),
        }
        key = f"{visit}/decision {revision}"
        with self._transaction():
            if self._is_repeated(key, t_ns, request):
                return False
            recorded = self._recorded(f"{visit}/receipt")
            if recorded is None:
                raise LedgerError(f"visit {visit!r}: want a receipt to decide about, got none")
            receipt = recorded[1]
            if revision > 1 and self._recorded(f"{visit}/decision {revision - 1}") is None:
                raise LedgerError(f"visit {visit!r}: want decision {revision - 1} before {revision}, got none")
            if decision == "accept" and (revision > 1 or receipt["request"]["status"] != "review"):
                raise LedgerError(f"visit {visit!r}: want a receipt in review to accept, got one that was settled")
            right = {"accept": receipt["request"]["lines"], "correct": asked, "waive": []}[decision]
            assert right is not None
            rates = self._rates_of(right, receipt["vat"])
            charge = charge_postings(_gross_by_rate(right, rates), self._store.currency)
            details = {"request": request, "vat": rates}
            self._append(t_ns, f"decision {decision}", visit, key, details, (*self._reversal(visit), *charge))
        return True

    def review_open_visits(self, t_ns: int, reason: str) -> list[str]:
        """After a restart: give every visit that is still open an empty receipt for review, and name them.

        For visits whose people the new process cannot follow any more; a decision then says what they cost.
        """
        visits = self.open_visits()
        with self.batch():
            for one in visits:
                receipt = Receipt(
                    one.visit, one.account, one.enter_ns, t_ns, t_ns, "review", reason, self._store.currency, 0, ()
                )
                self.post_receipt(receipt)
        return [one.visit for one in visits]

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make everything inside durable together, or none of it where an exception leaves the block.

        Much faster than one by one; nothing inside is on disk before the block has ended.
        """
        with self._transaction():
            outermost, self._batched = not self._batched, True
            try:
                yield
            finally:
                self._batched = not outermost

    # ---- reading -----------------------------------------------------------------------------------------------------

    def open_visits(self) -> list[OpenVisit]:
        """Visits that began and have no receipt yet, oldest first."""
        rows = self._query(
            "SELECT o.visit, l.account, o.t_ns FROM entry o LEFT JOIN link l ON l.visit = o.visit "
            "WHERE o.kind = 'visit opened' AND NOT EXISTS (SELECT 1 FROM entry r WHERE r.key = o.visit || '/receipt') "
            "ORDER BY o.t_ns, o.seq"
        )
        return [OpenVisit(*row) for row in rows]

    def reviews(self) -> list[Standing]:
        """Visits that wait for a decision, oldest first."""
        rows = self._query(
            "SELECT r.visit FROM entry r WHERE r.kind = 'receipt review' "
            "AND NOT EXISTS (SELECT 1 FROM entry d WHERE d.key = r.visit || '/decision 1') ORDER BY r.seq"
        )
        found = [self.standing(visit) for (visit,) in rows]
        return [one for one in found if one is not None]

    def standing(self, visit: str) -> Standing | None:
        """How a visit stands after its newest entry; None for a visit that the books do not know."""
        _text("visit", visit)
        rows = self._query("SELECT kind, details FROM entry WHERE visit = ? ORDER BY seq", (visit,))
        if not rows:
            return None
        status, reason, lines, revision = "open", None, [], 0
        for kind, text in rows:
            request = json.loads(text)["request"]
            if kind.startswith("receipt "):
                status, reason, lines = request["status"], request["reason"], request["lines"]
            elif kind.startswith("decision "):
                status, revision = "decided", request["revision"]
                lines = lines if kind == "decision accept" else request["lines"] or []
        linked = self._query("SELECT account FROM link WHERE visit = ?", (visit,))
        account = linked[0][0] if linked else None
        priced = tuple(ReceiptLine(gtin, quantity, price, ppm / 1e6) for gtin, quantity, price, ppm in lines)
        return Standing(visit, account, status, reason, self._store.currency, _total(lines), priced, revision)

    def postings(self, visit: str) -> list[Posting]:
        """All postings of a visit, oldest first."""
        rows = self._query(
            "SELECT p.account, p.currency, p.amount FROM entry e JOIN posting p ON p.entry = e.seq "
            "WHERE e.visit = ? ORDER BY p.entry, p.line",
            (_text("visit", visit),),
        )
        return [Posting(*row) for row in rows]

    def balances(self) -> dict[str, dict[str, int]]:
        """Balance of every account by currency, debits positive; those of one currency sum to zero."""
        found: dict[str, dict[str, int]] = {}
        rows = self._query(
            "SELECT currency, account, sum(amount) FROM posting GROUP BY currency, account ORDER BY currency, account"
        )
        for currency, account, amount in rows:
            found.setdefault(currency, {})[account] = amount
        return found

    def head(self) -> Head:
        """The newest entry; of books without entries number 0 and the hash that the first one will build on."""
        with self._lock:
            seq, digest = self._newest()
        return Head(seq, digest.hex())

    def verify(self, kept: Head | None = None) -> str | None:
        """Check the whole chain. None where it holds, otherwise what is wrong with the first bad row.

        Args:
            kept: a head that was noted earlier, outside this file; without it a tail that was cut off goes unnoticed.
        """
        with self._transaction("DEFERRED"):  # one snapshot, whatever other processes append meanwhile
            return self._fault(kept)

    def _fault(self, kept: Head | None) -> str | None:
        run = self._connection.execute
        present = {row[0] for row in run("SELECT name FROM sqlite_schema WHERE type = 'trigger'")}
        if present != _TRIGGERS:
            return f"schema: want the triggers {sorted(_TRIGGERS)}, got {sorted(present)}"
        book = run("SELECT id, format_version, store, currency FROM book").fetchall()
        if book != [(1, FORMAT_VERSION, self._store.id, self._store.currency)]:
            return "book: identity of the books was changed"
        legs = _grouped(run("SELECT entry, account, currency, amount FROM posting ORDER BY entry, line"))
        pending = next(legs, None)
        expected, digest = 1, self._genesis
        rows = run("SELECT seq, t_ns, kind, visit, key, details, hash FROM entry ORDER BY seq")
        for seq, t_ns, kind, visit, key, details, stored in rows:
            if seq != expected:
                return f"entry {expected}: missing, the next one is {seq}"
            if pending is not None and pending[0] < seq:
                return f"posting of entry {pending[0]}: there is no such entry"
            postings: list[Posting] = []
            if pending is not None and pending[0] == seq:
                postings, pending = pending[1], next(legs, None)
            digest = chained_hash(digest, canonical_bytes(seq, t_ns, kind, visit, key, details, postings))
            if digest != stored:
                return f"entry {seq}: its contents or its place in the chain were changed"
            sums: dict[str, int] = {}
            for posting in postings:
                sums[posting.currency] = sums.get(posting.currency, 0) + posting.amount
            if any(sums.values()):
                return f"entry {seq}: postings do not balance: {sums}"
            if kept is not None and kept.seq == seq and kept.sha256 != digest.hex():
                return f"entry {seq}: differs from the head that was kept"
            expected += 1
        if pending is not None:
            return f"posting of entry {pending[0]}: there is no such entry"
        if kept is not None and kept.seq >= expected:
            return f"entry {expected}: missing, the head that was kept is {kept.seq}"
        return None

    # ---- privacy -----------------------------------------------------------------------------------------------------

    def unlink_before(self, t_ns: int) -> int:
        """Forget whose the visits were that began before an instant. Returns how many were forgotten.

        Afterwards neither the database nor its write-ahead log holds those accounts. The books stay valid.

        Raises:
            LedgerError: another process reads an old state and keeps the log alive; call again.
        """
        return self._unlink("SELECT * FROM link WHERE enter_ns >= ? ORDER BY visit", _instant("t_ns", t_ns))

    def unlink_account(self, account: str) -> int:
        """Forget one account at once, as its owner may ask. Returns the number of visits; raises as above."""
        return self._unlink("SELECT * FROM link WHERE account <> ? ORDER BY visit", _text("account", account))

    def _unlink(self, kept: str, value: int | str) -> int:
        """Forget every link but those that a query keeps."""
        with self._lock:
            if self._batched:
                raise LedgerError("want unlinking outside a batch, got it inside")
            run = self._connection.execute
            with self._transaction():
                n_before = run("SELECT count(*) FROM link").fetchone()[0]
                # Deleting rows is not enough, not even with secure_delete: when SQLite moves rows between pages, the
                # place where they lay before keeps its bytes. A dropped table's pages, though, are zeroed whole.
                rows = run(kept, (value,)).fetchall()
                if len(rows) < n_before:
                    run("DROP TABLE link")
                    for statement in _statements(_LINK_SCHEMA):
                        run(statement)
                    self._connection.executemany("INSERT INTO link (visit, account, enter_ns) VALUES (?, ?, ?)", rows)
            try:
                # The log still holds the pages as they were.
                busy = run("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            except sqlite3.Error as error:
                raise LedgerError(f"want the log emptied after unlinking, got: {error}") from error
        if busy:
            raise LedgerError("want the log emptied after unlinking, got a reader that holds it; call again")
        return n_before - len(rows)

    # ---- inside ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, mode: Literal["IMMEDIATE", "DEFERRED"] = "IMMEDIATE") -> Iterator[None]:
        """All or nothing. Checks come before writes, so a refusal inside a batch leaves the batch as it was."""
        with self._lock:
            if self._batched:
                if not self._connection.in_transaction:
                    raise LedgerError("want a batch in progress, got one that failed before")
                try:
                    yield
                except sqlite3.Error as error:
                    # Whoever catches this inside the block must not commit half an entry when it ends.
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise LedgerError(f"want a ledger that can be written, got: {error}") from error
                return
            try:
                self._connection.execute("BEGIN IMMEDIATE" if mode == "IMMEDIATE" else "BEGIN DEFERRED")
                try:
                    yield
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise LedgerError(f"want a ledger that can be written, got: {error}") from error

    def _query(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._connection.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise LedgerError(f"want a ledger that can be read, got: {error}") from error

    def _newest(self) -> tuple[int, bytes]:
        row = self._connection.execute("SELECT seq, hash FROM entry ORDER BY seq DESC LIMIT 1").fetchone()
        return row if row is not None else (0, self._genesis)

    def _append(
        self, t_ns: int, kind: str, visit: str, key: str, details: Mapping[str, Any], postings: Sequence[Posting]
    ) -> None:
        seq, digest = self._newest()
        text = _canonical(details)
        digest = chained_hash(digest, canonical_bytes(seq + 1, t_ns, kind, visit, key, text, postings))
        self._connection.execute(
            "INSERT INTO entry (seq, t_ns, kind, visit, key, details, hash) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (seq + 1, t_ns, kind, visit, key, text, digest),
        )
        self._connection.executemany(
            "INSERT INTO posting (entry, line, account, currency, amount) VALUES (?, ?, ?, ?, ?)",
            [(seq + 1, line, leg.account, leg.currency, leg.amount) for line, leg in enumerate(postings)],
        )

    def _recorded(self, key: str) -> tuple[int, dict[str, Any]] | None:
        row = self._connection.execute("SELECT t_ns, details FROM entry WHERE key = ?", (key,)).fetchone()
        return None if row is None else (row[0], json.loads(row[1]))

    def _is_repeated(self, key: str, t_ns: int, request: Mapping[str, Any]) -> bool:
        """Whether a key was posted with these contents. VAT rates may have changed since, what was asked may not."""
        recorded = self._recorded(key)
        if recorded is None:
            return False
        if recorded[0] != t_ns or _canonical(recorded[1]["request"]) != _canonical(request):
            raise IdempotencyConflict(f"{key!r}: recorded before with other contents")
        return True

    def _reversal(self, visit: str) -> list[Posting]:
        """Postings that undo whatever the visit was charged so far."""
        rows = self._connection.execute(
            "SELECT p.account, p.currency, sum(p.amount) FROM entry e JOIN posting p ON p.entry = e.seq "
            "WHERE e.visit = ? GROUP BY p.account, p.currency HAVING sum(p.amount) <> 0 ORDER BY p.account",
            (visit,),
        )
        return [Posting(account, currency, -amount) for account, currency, amount in rows]

    def _account(self, visit: str) -> str | None:
        row = self._connection.execute("SELECT account FROM link WHERE visit = ?", (visit,)).fetchone()
        return None if row is None else row[0]

    def _link(self, visit: str, account: str, enter_ns: int) -> None:
        values = (visit, account, enter_ns)
        self._connection.execute("INSERT INTO link (visit, account, enter_ns) VALUES (?, ?, ?)", values)

    def _lines(self, lines: Sequence[ReceiptLine]) -> list[list[Any]]:
        """Lines as they are stored: gtin, quantity, unit price, confidence in millionths."""
        checked = []
        for line in lines:
            gtin = _text("gtin", line.gtin)
            quantity = _integer("quantity", line.quantity, 1, AMOUNT_MAX)
            price = _integer("unit_price", line.unit_price, 0, AMOUNT_MAX)
            if not 0.0 <= line.confidence <= 1.0:
                raise LedgerError(f"confidence: want 0 to 1, got {line.confidence}")
            checked.append([gtin, quantity, price, round(line.confidence * 1e6)])
        if _total(checked) > AMOUNT_MAX:
            raise LedgerError(f"total: want at most {AMOUNT_MAX}, got {_total(checked)}")
        return checked

    def _rates_of(self, lines: Sequence[Sequence[Any]], known: Mapping[str, int]) -> dict[str, int]:
        """VAT rate of every product on the lines, in ten-thousandths of a percent; known ones were fixed before."""
        rates = {}
        for gtin, *_ in lines:
            rate = known.get(gtin, self._rates.get(gtin))
            if rate is None:
                raise LedgerError(f"gtin: want a product of {self._store.id!r}, got {gtin!r}")
            rates[gtin] = rate
        return rates

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _path(where: str | os.PathLike[str]) -> Path:
    text = os.fspath(where)
    if "://" not in text:
        return Path(text)
    url = urlsplit(text)
    if url.scheme != "sqlite" or url.netloc or not url.path.strip("/"):
        # The URL may hold a password, so only its scheme is repeated.
        raise LedgerError(f"want a path or sqlite:///path, got a URL of scheme {url.scheme!r}")
    # As SQLAlchemy has it: three slashes are a relative path, four an absolute one.
    return Path(unquote(url.path[1:]))


def _statements(script: str) -> Iterator[str]:
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def _total(lines: Sequence[Sequence[Any]]) -> int:
    return sum(quantity * price for _, quantity, price, _ in lines)


def _gross_by_rate(lines: Sequence[Sequence[Any]], rates: Mapping[str, int]) -> dict[int, int]:
    gross: dict[int, int] = {}
    for gtin, quantity, price, _ in lines:
        gross[rates[gtin]] = gross.get(rates[gtin], 0) + quantity * price
    return gross


def _grouped(rows: Iterator[tuple[int, str, str, int]] | sqlite3.Cursor) -> Iterator[tuple[int, list[Posting]]]:
    """Postings of one entry after another; they come ordered by entry."""
    current: tuple[int, list[Posting]] | None = None
    for entry, *leg in rows:
        if current is None or current[0] != entry:
            if current is not None:
                yield current
            current = (entry, [])
        current[1].append(Posting(*leg))
    if current is not None:
        yield current
