"""The retailer's ledger: what every visit costs, in books that are only added to.

Double entry in SQLite or PostgreSQL. Every entry carries a SHA-256 over its own canonical bytes and over its
predecessor's hash, so a row that is changed, removed, inserted or swapped afterwards is found and named by
`Ledger.verify`; a tail that was cut off is found by comparing with a `Head` or a signed checkpoint kept elsewhere.
Amounts are integer minor units; debits are positive, credits negative.

Every entry has a key derived from the event that caused it. Saying the same thing twice is harmless, so whoever is not
sure whether a posting arrived says it again; saying something else under the same key is an `IdempotencyConflict`.

Whose visit it was stands in a vault of its own, outside the chain: emptying it leaves valid books behind. Nothing else
that is stored here may name an account.
"""

from __future__ import annotations

import hashlib
import json
import operator
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, Protocol

from fusion.errors import IdempotencyConflict, LedgerError
from fusion.files.results import reason_of, reason_row
from fusion.money.databases import FORMAT_VERSION, Books, Holder, Row, open_books
from fusion.results import Reason, ReasonKind, Receipt, ReceiptLine, ReceiptStatus
from fusion.sentences import reason_text
from fusion.store.models import Store

# Largest amount of one line or receipt, in minor units. SQLite's sums are int64: nine million entries of this size fit.
AMOUNT_MAX = 10**12
# Longest visit id, account or name; longest reason or note.
NAME_MAX = 255
NOTE_MAX = 2000
# Reasons of one receipt that are kept by kind and fields; the text tells of all of them.
REASONS_MAX = 32
# So many entries of a batch are added at once.
FLUSHED_FROM = 1000
# Goes before what a checkpoint's signature covers, so that no other signed text passes for one.
_CHECKPOINT = b"fusion checkpoint 1\n"
# VAT rates are exact to a ten-thousandth of a percent.
_RATE_SCALE = 10_000

Decided = Literal["accept", "correct", "waive"]
# Kinds of entries that say what a visit costs. A correction reverses these and no others: what was paid stays paid.
_CHARGING = ("receipt settled", "receipt review", "decision accept", "decision correct", "decision waive")
# First words of the keys that these and the opening of a visit have; others may not use them.
_OWN_KEYS = ("opened", "receipt", "decision")


class Posting(NamedTuple):
    """One leg of an entry: an amount on an account, debits positive, credits negative."""

    account: str
    currency: str
    amount: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What the books say happened. `request` is what was asked for, by the caller's own names."""

    seq: int
    t_ns: int
    kind: str
    visit: str
    key: str
    request: Mapping[str, Any]
    postings: tuple[Posting, ...]


@dataclass(frozen=True, slots=True)
class Discount:
    """What an offer takes off the price of one product on a receipt, in minor units."""

    offer: str
    gtin: str
    amount: int


class Signs(Protocol):
    """A private key, such as cryptography's Ed25519PrivateKey."""

    def sign(self, data: bytes, /) -> bytes: ...


class Proves(Protocol):
    """A public key; raises where the signature is not its own."""

    def verify(self, signature: bytes, data: bytes, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry's number and hash. Kept outside the ledger, it shows later whether a tail was cut off."""

    seq: int
    sha256: str

    @classmethod
    def from_checkpoint(cls, text: str, key: Proves, store: Store) -> Head:
        """Head that `Ledger.checkpoint` signed.

        Raises:
            LedgerError: the text is damaged, signed by another key, or about another store's books.
        """
        try:
            said = json.loads(text)
            signed = {name: said[name] for name in ("seq", "sha256", "t_ns", "store", "currency")}
            key.verify(bytes.fromhex(said["signature"]), _CHECKPOINT + _canonical(signed).encode("ascii"))
            seq, sha256 = _integer("seq", signed["seq"], 0, 2**63 - 1), str(signed["sha256"])
        except Exception as error:  # whatever a key raises where the signature is not its own
            raise LedgerError(f"checkpoint: want one signed by this key, got: {type(error).__name__}") from None
        if (signed["store"], signed["currency"]) != (store.id, store.currency):
            got = f"{signed['store']!r} in {signed['currency']}"
            raise LedgerError(f"checkpoint: want the books of {store.id!r} in {store.currency}, got those of {got}")
        return cls(seq, sha256)


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
        reason: why the receipt went to review, in words; None if it did not.
        reasons: the same by kind and fields, notes left out, at most REASONS_MAX of them.
        total: what the lines below cost. Money has moved for it unless the status is "open" or "review".
        revision: number of decisions taken so far; the next one is revision + 1.
        discounts: what offers took off the lines' prices.
    """

    visit: str
    account: str | None
    status: str
    reason: str | None
    currency: str
    total: int
    lines: tuple[ReceiptLine, ...]
    revision: int
    discounts: tuple[Discount, ...] = ()
    reasons: tuple[Reason, ...] = ()


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
    return _canonical([seq, t_ns, kind, visit, key, details, postings]).encode("ascii")


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


def sales_by_rate(postings: Iterable[Posting]) -> dict[str, tuple[int, int]]:
    """What `charge_postings` made, read back: (net, VAT) by VAT rate as text, less what was reversed."""
    sales: dict[str, list[int]] = {}
    for posting in postings:
        kind, _, rate = posting.account.partition(" ")
        if kind in ("revenue", "vat"):
            sales.setdefault(rate, [0, 0])[kind == "vat"] -= posting.amount
    return {rate: (net, vat) for rate, (net, vat) in sorted(sales.items())}


def _text(name: str, value: object, longest: int = NAME_MAX, shortest: int = 1) -> str:
    if not isinstance(value, str) or not shortest <= len(value) <= longest:
        raise LedgerError(f"{name}: want {shortest} to {longest} characters, got {_shown(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise LedgerError(f"{name}: want Unicode text, got half a surrogate pair") from None
    return value


def _reason(receipt: Receipt) -> str | None:
    """A receipt's reasons in words, cut where they are longer than an entry may hold."""
    text = reason_text(receipt.reasons)
    if text is not None and len(text) > NOTE_MAX:
        text = text[: NOTE_MAX - 1] + "…"
    return None if text is None else _text("reason", text, NOTE_MAX, 0)


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
    """One store's books; several threads and processes may use the same ones.

    What a method has returned from is on disk and survives the end of the process and of the machine's power. Times
    come from the data; the ledger reads no clock. `store` supplies currency and VAT rates.
    """

    def __init__(self, books: Books, store: Store) -> None:
        """Use `Ledger.open`."""
        self._books = books
        self._lock = threading.RLock()
        self._batched = False
        # While a batch holds the books nobody else adds to them: the newest entry, and what is to be added.
        self._head: tuple[int, bytes] | None = None
        self._due: dict[str, Row] = {}  # entries by key
        self._postings_due: list[Row] = []
        self.follow(store)
        self._genesis = genesis_hash(store.id, store.currency)

    def follow(self, store: Store) -> None:
        """Go on with a changed store folder: its products and VAT rates. Id and currency are those of before."""
        self._store = store
        self._rates = {product.gtin: _rate(product.vat_rate) for product in store.products}

    @classmethod
    def open(
        cls, where: str | os.PathLike[str], store: Store, vault: str | os.PathLike[str] | None = None
    ) -> Ledger:
        """Open the books of a store, or begin them where there are none.

        Args:
            where: path of a file, or a URL: sqlite:///relative/path, sqlite:////absolute/path, or
                postgresql://user@server/database (extra `postgres`), where each store has a schema of its own.
            store: whose books they are.
            vault: file that keeps whose visits they are, for books in PostgreSQL; those in SQLite hold it themselves.

        Raises:
            LedgerError: the books cannot be used, or are those of another store, currency or format.
        """
        books = open_books(where, store.id, vault)
        try:
            books.begin((FORMAT_VERSION, store.id, store.currency))
            rows = books.run("SELECT format_version, store, currency FROM book WHERE id = 1")
            if not rows or rows[0][0] != FORMAT_VERSION:
                got = rows[0][0] if rows else None
                raise LedgerError(f"{books.where}: want a ledger of format {FORMAT_VERSION}, got {got}")
            _, found, currency = rows[0]
            if (found, currency) != (store.id, store.currency):
                wanted = f"{store.id!r} in {store.currency}"
                raise LedgerError(f"{books.where}: want the books of {wanted}, got {found!r} in {currency}")
        except BaseException:
            books.close()
            raise
        return cls(books, store)

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
            recorded = self._recorded(f"{visit}/opened").get(f"{visit}/opened")
            if recorded is not None:
                linked = self._account(visit)
                if enter_ns < recorded[0] or (linked is not None and account != linked):
                    raise IdempotencyConflict(f"visit {visit!r}: opened before with other contents")
                return False
            self._append(enter_ns, "visit opened", visit, f"{visit}/opened", {"request": {"enter": enter_ns}}, ())
            if account is not None:
                self._books.vault.link(visit, account, enter_ns)
        return True

    def post_receipt(self, receipt: Receipt, discounts: Sequence[Discount] = ()) -> bool:
        """Record a finished visit: a settled one is charged, one for review waits without money moving.

        `discounts` are what offers take off the lines; `receipt.total` is what remains. Returns False where the same
        receipt was recorded before.

        Raises:
            IdempotencyConflict: the visit has a different receipt, or belongs to another account.
            LedgerError: the receipt does not add up, or names a product, currency or status that the store lacks.
        """
        if receipt.status not in tuple(ReceiptStatus):
            raise LedgerError(f"status: want settled or review, got {receipt.status!r}")
        if receipt.currency != self._store.currency:
            raise LedgerError(f"currency: want {self._store.currency}, got {receipt.currency!r}")
        visit = _text("visit", receipt.visit)
        if receipt.account is not None:
            _text("account", receipt.account)
        lines = self._lines(receipt.lines)
        less = self._discounts(discounts, lines)
        total = _total(lines, less)
        if total != receipt.total:
            raise LedgerError(f"total: want the sum of the lines less discounts, {total}, got {receipt.total}")
        issued_ns = _instant("issued_ns", receipt.issued_ns)
        exit_ns = _instant("exit_ns", receipt.exit_ns)
        enter_ns = None if receipt.enter_ns is None else _instant("enter_ns", receipt.enter_ns)
        request = {
            "enter": enter_ns,
            "exit": exit_ns,
            "status": str(receipt.status),
            "reason": _reason(receipt),
            "currency": receipt.currency,
            "total": total,
            "lines": lines,
        }
        # A note has no fields: its words are in `reason`.
        kinds = [reason_row(reason) for reason in receipt.reasons if reason.kind != ReasonKind.NOTE]
        if kinds:
            request["reasons"] = kinds[:REASONS_MAX]
        if less:
            request["discounts"] = less
        with self._transaction():
            linked = self._account(visit)
            if linked is not None and receipt.account != linked:
                raise IdempotencyConflict(f"visit {visit!r}: belongs to another account")
            known = self._recorded(f"{visit}/receipt", f"{visit}/opened")
            if self._is_repeated(f"{visit}/receipt", known.get(f"{visit}/receipt"), issued_ns, request):
                return False
            rates = self._rates_of(lines, {})
            postings: tuple[Posting, ...] = ()
            if receipt.status == ReceiptStatus.SETTLED:
                postings = charge_postings(_gross_by_rate(lines, less, rates), receipt.currency)
            details = {"request": request, "vat": rates}
            self._append(issued_ns, f"receipt {receipt.status}", visit, f"{visit}/receipt", details, postings)
            # A visit that was opened with this account and has no link any more was unlinked on purpose.
            if receipt.account is not None and f"{visit}/opened" not in known:
                self._books.vault.link(visit, receipt.account, exit_ns if enter_ns is None else enter_ns)
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
        discounts: Sequence[Discount] = (),
        note: str = "",
    ) -> bool:
        """A person decides what a visit costs: what it was charged so far is reversed, what is right is posted.

        Args:
            decision: "accept" the receipt as it stands (reviewed visits only), "correct" it to `lines` less
                `discounts`, or "waive" it.
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
        if (lines is not None) != (decision == "correct") or (discounts and lines is None):
            raise LedgerError(f"lines: want them with correct and only then, got {decision}")
        t_ns = _instant("t_ns", t_ns)
        revision = _integer("revision", revision, 1, 10**6)
        asked = None if lines is None else self._lines(lines)
        less = self._discounts(discounts, asked or [])
        request = {
            "decision": decision,
            "by": _text("by", by),
            "revision": revision,
            "lines": asked,
            "note": _text("note", note, NOTE_MAX, 0),
        }
        if less:
            request["discounts"] = less
        key = f"{visit}/decision {revision}"
        with self._transaction():
            before = f"{visit}/decision {revision - 1}"
            known = self._recorded(key, f"{visit}/receipt", before)
            if self._is_repeated(key, known.get(key), t_ns, request):
                return False
            recorded = known.get(f"{visit}/receipt")
            if recorded is None:
                raise LedgerError(f"visit {visit!r}: want a receipt to decide about, got none")
            receipt = recorded[1]
            if revision > 1 and before not in known:
                raise LedgerError(f"visit {visit!r}: want decision {revision - 1} before {revision}, got none")
            if decision == "accept" and (revision > 1 or receipt["request"]["status"] != "review"):
                raise LedgerError(f"visit {visit!r}: want a receipt in review to accept, got one that was settled")
            right = {"accept": receipt["request"]["lines"], "correct": asked, "waive": []}[decision]
            assert right is not None
            if decision == "accept":
                less = receipt["request"].get("discounts", [])
            rates = self._rates_of(right, receipt["vat"])
            charge = charge_postings(_gross_by_rate(right, less, rates), self._store.currency)
            details = {"request": request, "vat": rates}
            self._append(t_ns, f"decision {decision}", visit, key, details, (*self._reversal(visit), *charge))
        return True

    def review_open_visits(self, t_ns: int, reason: Reason) -> list[str]:
        """After a restart: give every visit that is still open an empty receipt for review, and name them.

        For visits whose people the new process cannot follow any more; a decision then says what they cost.
        """
        visits = self.open_visits()
        with self.batch():
            for one in visits:
                receipt = Receipt(
                    one.visit, one.account, one.enter_ns, t_ns, t_ns, ReceiptStatus.REVIEW, (reason,),
                    self._store.currency, 0, (),
                )  # fmt: skip
                self.post_receipt(receipt)
        return [one.visit for one in visits]

    def record(
        self,
        visit: str,
        name: str,
        kind: str,
        t_ns: int,
        request: Mapping[str, Any],
        postings: Sequence[Posting] = (),
    ) -> bool:
        """Add an entry of another kind, such as what a payment provider answered. False where it was there before.

        Args:
            visit: what it is about: a visit, or anything else that has entries of its own.
            name: what makes the entry's key together with `visit`; not beginning with a word of the ledger's own keys.
            kind: a short phrase to count and filter by.
            request: what was asked or answered; integers and text only. Must not name an account.
            postings: money that moved; sums to zero in every currency.

        Raises:
            IdempotencyConflict: recorded before under this name with another time, kind, request or postings.
            LedgerError: the postings do not balance, or a value has no place in the books.
        """
        key = f"{_text('visit', visit)}/{_text('name', name)}"
        if name.split(maxsplit=1)[:1] and name.split(maxsplit=1)[0].split("/")[0] in _OWN_KEYS:
            raise LedgerError(f"name: want one that does not begin like the ledger's own, got {name!r}")
        if _text("kind", kind) in (*_CHARGING, "visit opened"):
            raise LedgerError(f"kind: want another than the ledger's own, got {kind!r}")
        t_ns = _instant("t_ns", t_ns)
        sums: dict[str, int] = {}
        for leg in postings:
            _text("account", leg.account)
            _integer("amount", leg.amount, -AMOUNT_MAX, AMOUNT_MAX)
            sums[_text("currency", leg.currency)] = sums.get(leg.currency, 0) + leg.amount
        if any(sums.values()):
            raise LedgerError(f"postings: want ones that balance, got {sums}")
        try:
            _canonical(request)
        except (TypeError, ValueError) as error:
            raise LedgerError(f"request: want integers and text, got: {error}") from None
        with self._transaction():
            if not self._recorded(key):
                self._append(t_ns, kind, visit, key, {"request": dict(request)}, postings)
                return True
            self._flush()
            rows = self._books.run("SELECT seq, t_ns, kind, details FROM entry WHERE key = ?", (key,))
            seq, *found, details = rows[0]
            same = found == [t_ns, kind] and _canonical(json.loads(details)["request"]) == _canonical(request)
            if not same or self._postings_of(seq) != tuple(postings):
                raise IdempotencyConflict(f"{key!r}: recorded before with other contents")
            return False

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make everything inside durable together, or none of it where an exception leaves the block.

        Much faster than one by one; nothing inside is on disk before the block has ended.
        """
        with self._transaction():
            outermost, self._batched = not self._batched, True
            try:
                yield
                self._flush()
            finally:
                if outermost:
                    self._batched, self._head = False, None
                    self._due, self._postings_due = {}, []

    # ---- reading -----------------------------------------------------------------------------------------------------

    def open_visits(self) -> list[OpenVisit]:
        """Visits that began and have no receipt yet, oldest first."""
        with self._transaction(write=False):
            rows = self._books.run(
                "SELECT o.visit, o.t_ns FROM entry o WHERE o.kind = 'visit opened' "
                "AND NOT EXISTS (SELECT 1 FROM entry r WHERE r.key = o.visit || '/receipt') ORDER BY o.t_ns, o.seq"
            )
            return [OpenVisit(visit, self._account(visit), t_ns) for visit, t_ns in rows]

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
        with self._transaction(write=False):
            rows = self._books.run("SELECT kind, details FROM entry WHERE visit = ? ORDER BY seq", (visit,))
            account = self._account(visit)
        status, reason, lines, less, revision = None, None, [], [], 0
        reasons: tuple[Reason, ...] = ()
        for kind, text in rows:
            request = json.loads(text)["request"]
            if kind == "visit opened":
                status = "open"
            elif kind in ("receipt settled", "receipt review"):
                status, reason = request["status"], request["reason"]
                reasons = tuple(map(reason_of, request.get("reasons", [])))
                lines, less = request["lines"], request.get("discounts", [])
            elif kind in _CHARGING:
                status, revision = "decided", request["revision"]
                if kind != "decision accept":
                    lines, less = request["lines"] or [], request.get("discounts", [])
        if status is None:
            return None
        priced = tuple(ReceiptLine(gtin, quantity, price, ppm / 1e6) for gtin, quantity, price, ppm in lines)
        total, offers = _total(lines, less), tuple(Discount(*one) for one in less)
        return Standing(visit, account, status, reason, self._store.currency, total, priced, revision, offers, reasons)

    def postings(self, visit: str) -> list[Posting]:
        """All postings of a visit, oldest first."""
        rows = self._query(
            "SELECT p.account, p.currency, p.amount FROM entry e JOIN posting p ON p.entry = e.seq "
            "WHERE e.visit = ? ORDER BY p.entry, p.line",
            (_text("visit", visit),),
        )
        return [Posting(*row) for row in rows]

    def entries(self, visit: str) -> list[Entry]:
        """All entries about a visit, oldest first."""
        return self._entries("visit = ?", (_text("visit", visit),))

    def entries_between(self, t0_ns: int, t1_ns: int) -> list[Entry]:
        """All entries of an interval of data time, in the order in which they were made."""
        return self._entries("t_ns >= ? AND t_ns < ?", (_instant("t0_ns", t0_ns), _instant("t1_ns", t1_ns)))

    def recorded(self, visit: str, name: str) -> Entry | None:
        """The entry that `record` made under this name."""
        found = self._entries("e.key = ?", (f"{_text('visit', visit)}/{_text('name', name)}",))
        return found[0] if found else None

    def rows_after(self, seq: int, limit: int) -> tuple[list[Row], list[Row]]:
        """The next entries after a number as the books hold them, for a copy that is kept elsewhere.

        Returns:
            At most `limit` entries (seq, t_ns, kind, visit, key, details, hash) in their order, and their postings
            (entry, line, account, currency, amount). Nobody who writes waits for this.
        """
        with self._transaction(write=False):
            entries = self._books.run(
                "SELECT seq, t_ns, kind, visit, key, details, hash FROM entry WHERE seq > ? ORDER BY seq LIMIT ?",
                (_integer("seq", seq, -1, 2**63 - 1), _integer("limit", limit, 1, 10**6)),
            )
            if not entries:
                return [], []
            postings = self._books.run(
                "SELECT entry, line, account, currency, amount FROM posting WHERE entry BETWEEN ? AND ? "
                "ORDER BY entry, line",
                (entries[0][0], entries[-1][0]),
            )
        return entries, postings

    def unanswered(self, kind: str) -> list[Entry]:
        """Entries of a kind that have none with "/answer" after their name, in the order in which they were made."""
        return self._entries(
            "kind = ? AND NOT EXISTS (SELECT 1 FROM entry a WHERE a.key = e.key || '/answer')", (_text("kind", kind),)
        )

    def balances_of(self, account: str) -> dict[str, int]:
        """What an account holds for each visit, where that is not zero; in the order of the visits' first entries."""
        rows = self._query(
            "SELECT min(e.seq), e.visit, CAST(sum(p.amount) AS BIGINT) FROM entry e JOIN posting p ON p.entry = e.seq "
            "WHERE p.account = ? GROUP BY e.visit HAVING sum(p.amount) <> 0",
            (_text("account", account),),
        )
        return {visit: amount for _, visit, amount in sorted(rows)}

    def _entries(self, condition: str, values: Sequence[Any]) -> list[Entry]:
        with self._transaction(write=False):
            rows = self._books.run(
                f"SELECT seq, t_ns, kind, visit, key, details FROM entry e WHERE {condition} ORDER BY seq", values
            )
            legs: dict[int, list[Posting]] = {}
            for entry, *leg in self._books.run(
                "SELECT p.entry, p.account, p.currency, p.amount FROM posting p JOIN entry e ON e.seq = p.entry "
                f"WHERE {condition} ORDER BY p.entry, p.line",
                values,
            ):
                legs.setdefault(entry, []).append(Posting(*leg))
        return [
            Entry(seq, t_ns, kind, visit, key, json.loads(details)["request"], tuple(legs.get(seq, ())))
            for seq, t_ns, kind, visit, key, details in rows
        ]

    def _postings_of(self, entry: int) -> tuple[Posting, ...]:
        rows = self._books.run("SELECT account, currency, amount FROM posting WHERE entry = ? ORDER BY line", (entry,))
        return tuple(Posting(*row) for row in rows)

    def balances(self, before_ns: int | None = None) -> dict[str, dict[str, int]]:
        """Balance of every account by currency, debits positive; those of one currency sum to zero.

        `before_ns`: of the entries from before an instant of data time.
        """
        found: dict[str, dict[str, int]] = {}
        columns = "p.currency, p.account, CAST(sum(p.amount) AS BIGINT)"
        if before_ns is None:
            rows = self._query(f"SELECT {columns} FROM posting p GROUP BY p.currency, p.account")
        else:
            rows = self._query(
                f"SELECT {columns} FROM posting p JOIN entry e ON e.seq = p.entry WHERE e.t_ns < ? "
                "GROUP BY p.currency, p.account",
                (_instant("before_ns", before_ns),),
            )
        for currency, account, amount in sorted(rows):
            found.setdefault(currency, {})[account] = amount
        return found

    def head(self) -> Head:
        """The newest entry; of books without entries number 0 and the hash that the first one will build on."""
        with self._transaction(write=False):
            seq, digest = self._newest()
        return Head(seq, digest.hex())

    def checkpoint(self, key: Signs, t_ns: int) -> str:
        """A signed note of the newest entry, one line of JSON to keep outside; read by `Head.from_checkpoint`."""
        head = self.head()
        said = {
            "seq": head.seq,
            "sha256": head.sha256,
            "t_ns": _instant("t_ns", t_ns),
            "store": self._store.id,
            "currency": self._store.currency,
        }
        signature = key.sign(_CHECKPOINT + _canonical(said).encode("ascii"))
        return _canonical({**said, "signature": signature.hex()})

    def verify(self, kept: Head | None = None) -> str | None:
        """Check the whole chain. None where it holds, otherwise what is wrong with the first bad row.

        Args:
            kept: a head that was noted earlier, outside this file; without it a tail that was cut off goes unnoticed.
        """
        with self._transaction(write=False):  # one snapshot, whatever other processes append meanwhile
            return self._fault(kept)

    def _fault(self, kept: Head | None) -> str | None:
        books = self._books
        fault = books.schema_fault()
        if fault is not None:
            return fault
        book = books.run("SELECT id, format_version, store, currency FROM book")
        if book != [(1, FORMAT_VERSION, self._store.id, self._store.currency)]:
            return "book: identity of the books was changed"
        legs = _grouped(books.each("SELECT entry, account, currency, amount FROM posting ORDER BY entry, line"))
        pending = next(legs, None)
        expected, digest = 1, self._genesis
        rows = books.each("SELECT seq, t_ns, kind, visit, key, details, hash FROM entry ORDER BY seq")
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
        t_ns = _instant("t_ns", t_ns)
        return self._forget(lambda: self._books.vault.forget_before(t_ns))

    def unlink_account(self, account: str) -> int:
        """Forget one account and its pseudonyms at once, as its owner may ask. Returns the number of visits; raises as
        above.
        """
        _text("account", account)
        return self._forget(lambda: self._books.vault.forget_account(account))

    def _forget(self, forget: Callable[[], int]) -> int:
        with self._lock:
            if self._batched:
                raise LedgerError("want unlinking outside a batch, got it inside")
            with self._transaction():
                n_visits = forget()
            self._books.vault.empty_log()
        return n_visits

    def hold(self, holder: Holder) -> None:
        """Keep who is behind a pseudonym until it is unlinked.

        Raises:
            LedgerError: the pseudonym is taken.
        """
        for name in ("pseudonym", "account", "token", "email"):
            if (value := getattr(holder, name)) is not None:
                _text(name, value, NOTE_MAX if name == "token" else NAME_MAX)
        _instant("since_ns", holder.since_ns)
        with self._transaction():
            self._books.vault.hold(holder)

    def holder(self, pseudonym: str) -> Holder | None:
        """Who is behind a pseudonym; None for nobody, or somebody who was forgotten."""
        with self._lock:
            return self._books.vault.holder(_text("pseudonym", pseudonym))

    def pseudonyms(self, account: str) -> list[str]:
        """Pseudonyms that an account went by and that are not forgotten yet, newest first."""
        with self._lock:
            return self._books.vault.pseudonyms(_text("account", account))

    # ---- inside ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, write: bool = True) -> Iterator[None]:
        """All or nothing. Checks come before writes, so a refusal inside a batch leaves the batch as it was."""
        with self._lock:
            if self._batched:
                if not self._books.in_transaction:
                    raise LedgerError("want a batch in progress, got one that failed before")
                if not write:
                    self._flush()
                yield
                return
            with self._books.transaction(write):
                yield

    def _query(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        with self._transaction(write=False):
            return self._books.run(statement, values)

    def _newest(self) -> tuple[int, bytes]:
        if self._head is not None:
            return self._head
        rows = self._books.run("SELECT seq, hash FROM entry ORDER BY seq DESC LIMIT 1")
        return (rows[0][0], rows[0][1]) if rows else (0, self._genesis)

    def _append(
        self, t_ns: int, kind: str, visit: str, key: str, details: Mapping[str, Any], postings: Sequence[Posting]
    ) -> None:
        seq, digest = self._newest()
        text = _canonical(details)
        digest = chained_hash(digest, canonical_bytes(seq + 1, t_ns, kind, visit, key, text, postings))
        self._due[key] = (seq + 1, t_ns, kind, visit, key, text, digest)
        self._postings_due += [(seq + 1, line, *leg) for line, leg in enumerate(postings)]
        if self._batched:
            self._head = seq + 1, digest
        if not self._batched or len(self._due) >= FLUSHED_FROM:
            self._flush()

    def _flush(self) -> None:
        """Add what is due."""
        if self._due:
            # After a rollback rows would go in one by one, each for itself.
            if not self._books.in_transaction:
                raise LedgerError("want a batch in progress, got one that failed before")
            entries, postings = list(self._due.values()), self._postings_due
            self._due, self._postings_due = {}, []
            self._books.add(entries, postings)

    def _recorded(self, *keys: str) -> dict[str, tuple[int, dict[str, Any]]]:
        """Time and details of entries, by key, as far as they are there."""
        places = ", ".join("?" * len(keys))
        rows = self._books.run(f"SELECT key, t_ns, details FROM entry WHERE key IN ({places})", keys)
        rows += [(key, row[1], row[5]) for key in keys if (row := self._due.get(key)) is not None]
        return {key: (t_ns, json.loads(details)) for key, t_ns, details in rows}

    def _is_repeated(
        self, key: str, recorded: tuple[int, dict[str, Any]] | None, t_ns: int, request: Mapping[str, Any]
    ) -> bool:
        """Whether a key was posted with these contents. VAT rates may have changed since, what was asked may not."""
        if recorded is None:
            return False
        if recorded[0] != t_ns or _canonical(recorded[1]["request"]) != _canonical(request):
            raise IdempotencyConflict(f"{key!r}: recorded before with other contents")
        return True

    def _reversal(self, visit: str) -> list[Posting]:
        """Postings that undo whatever the visit was charged so far; what was paid for it stays."""
        self._flush()
        kinds = ", ".join(f"'{kind}'" for kind in _CHARGING)
        rows = self._books.run(
            "SELECT p.account, p.currency, CAST(sum(p.amount) AS BIGINT) "
            "FROM entry e JOIN posting p ON p.entry = e.seq "
            f"WHERE e.visit = ? AND e.kind IN ({kinds}) GROUP BY p.account, p.currency",
            (visit,),
        )
        return [Posting(account, currency, -amount) for account, currency, amount in sorted(rows) if amount]

    def _account(self, visit: str) -> str | None:
        return self._books.vault.account(visit)

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
        if _total(checked, ()) > AMOUNT_MAX:
            raise LedgerError(f"total: want at most {AMOUNT_MAX}, got {_total(checked, ())}")
        return checked

    def _discounts(self, discounts: Sequence[Discount], lines: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """Discounts as they are stored: offer, gtin, amount. None takes more off a product than it costs."""
        left: dict[str, int] = {}
        for gtin, quantity, price, _ in lines:
            left[gtin] = left.get(gtin, 0) + quantity * price
        checked: list[list[Any]] = []
        for one in discounts:
            most = left.get(_text("gtin", one.gtin), 0)
            checked.append([_text("offer", one.offer), one.gtin, _integer("discount", one.amount, 1, most)])
            left[one.gtin] = most - one.amount
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
            self._books.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _total(lines: Sequence[Sequence[Any]], discounts: Sequence[Sequence[Any]]) -> int:
    return sum(quantity * price for _, quantity, price, _ in lines) - sum(amount for *_, amount in discounts)


def _gross_by_rate(
    lines: Sequence[Sequence[Any]], discounts: Sequence[Sequence[Any]], rates: Mapping[str, int]
) -> dict[int, int]:
    gross: dict[int, int] = {}
    for gtin, quantity, price, _ in lines:
        gross[rates[gtin]] = gross.get(rates[gtin], 0) + quantity * price
    for _, gtin, amount in discounts:
        gross[rates[gtin]] -= amount
    return gross


def _grouped(rows: Iterator[Row]) -> Iterator[tuple[int, list[Posting]]]:
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
