"""The retailer's ledger: what every visit costs, in double entry.

Every entry has a key derived from the event that caused it. Posting the same event again changes nothing, so a caller
who does not know whether a posting arrived posts it again; other contents under the same key are an
`IdempotencyConflict`.

A vault outside the chain of entries records which customer a visit belonged to: emptying it leaves valid books behind.
Nothing else that is stored here may name an account.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from fusion.errors import EntryError, IdempotencyConflict, LedgerError
from fusion.files.results import reason_row
from fusion.money.books import Books
from fusion.money.databases import Database, open_database
from fusion.money.entries import (
    AMOUNT_MAX,
    NOTE_MAX,
    Entry,
    Posting,
    canonical_json,
    checked_instant,
    checked_integer,
    checked_text,
    unbalanced,
)
from fusion.money.sales import Discount, Sale, vat_rate_units
from fusion.money.vault import Holder, Named
from fusion.money.visits import CHARGING, DECISIONS, OPENED, REASONS_MAX, DecisionKind, OpenVisit, Standing
from fusion.results import (
    NAME_MAX,
    PersonEntered,
    Reason,
    ReasonKind,
    Receipt,
    ReceiptLine,
    ReceiptStatus,
    Result,
    RunEnd,
)
from fusion.sentences import reason_text
from fusion.store.card_numbers import without_card_number
from fusion.store.gtin import gtin_14
from fusion.store.models import Store

# First words of the keys of a visit's opening, receipt and decisions; `Ledger.record` may not use them.
_RESERVED = ("opened", "receipt", "decision")
# Visits that one query names; databases limit the number of its values.
_VISITS_MAX = 500


class Ledger(Books):
    """The books of one store's visits: openings, receipts, decisions, and entries of other kinds about them.

    `store` supplies the currency and the VAT rates.
    """

    def __init__(self, database: Database, store: Store, *, create: bool = True) -> None:
        """Use the ledger in a database, or begin it there; `Ledger.open` finds the database.

        Raises:
            LedgerError: the books cannot be used, or are those of another store, currency or format.
        """
        super().__init__(database, store, create=create)
        self._vat_rates = _vat_rates(store)

    @classmethod
    def open(
        cls,
        where: str | os.PathLike[str],
        store: Store,
        vault: str | os.PathLike[str] | None = None,
        *,
        create: bool = True,
        read_only: bool = False,
    ) -> Self:
        """Open the books of a store, or begin them where there are none.

        The key that seals the vault is the store's, which lies in the folder of the books or of the vault's own file.

        Args:
            where: path of a file, or a URL: sqlite:///relative/path, sqlite:////absolute/path, or
                postgresql://user@server/database?sslmode=verify-full (extra `postgres`), where each store has a schema
                of its own.
            store: the store whose books they are.
            vault: file that keeps which customer each visit belonged to, for books in PostgreSQL; those in SQLite hold
                it themselves.
            create: begin books where there are none; what reports on books, or works on existing ones, passes False.
            read_only: write nothing, and also read a read-only copy; implies that nothing is created.

        Raises:
            LedgerError: the books cannot be used, are incomplete, or are those of another store, currency or format.
        """
        database = open_database(where, store.id, vault, create=create, read_only=read_only)
        try:
            return cls(database, store, create=create)
        except BaseException:
            database.close()
            raise

    def adopt(self, store: Store) -> None:
        """Use the products and VAT rates of a changed store folder; its id and currency are unchanged."""
        self._store, self._vat_rates = store, _vat_rates(store)

    # ---- posting -----------------------------------------------------------------------------------------------------

    def add(self, result: Result | RunEnd) -> bool:
        """Post a result at list prices: a visit that begins, or a receipt; others do not concern the books.

        This makes the ledger a sink of `fusion.run`. Returns whether an entry was added.

        Raises:
            IdempotencyConflict, LedgerError: as `open_visit` and `post_receipt`.
        """
        match result:
            case PersonEntered(visit=str() as visit):
                return self.open_visit(visit, result.account, result.t_ns)
            case Receipt():
                return self.post_receipt(result)
        return False

    def open_visit(self, visit: str, account: str | None, enter_ns: int) -> bool:
        """Record that a visit began, before anything is charged. Returns False if it was recorded before.

        Companions who come in later on the same account belong to the visit: calling again with a later time changes
        nothing.

        Raises:
            IdempotencyConflict: the visit began later than this, or belongs to another account.
        """
        checked_text("visit", visit)
        if account is not None:
            checked_text("account", account)
        enter_ns = checked_instant("enter_ns", enter_ns)
        key = f"{visit}/opened"
        with self._transaction():
            recorded = self._find(key).get(key)
            if recorded is not None:
                linked = self.database.vault.account(visit)
                if enter_ns < recorded.t_ns or (linked is not None and account != linked):
                    raise IdempotencyConflict(f"visit {visit!r}: opened before with other contents")
                return False
            entry = self._append(enter_ns, OPENED, visit, key, {"request": {"enter": enter_ns}}, ())
            if account is not None:
                self.database.vault.link(visit, account, enter_ns, entry)
        return True

    def post_receipt(self, receipt: Receipt, discounts: Sequence[Discount] = ()) -> bool:
        """Record a finished visit: a settled receipt is charged, one in review waits without any money moving.

        `discounts` are what offers take off the lines; `receipt.total` is what remains. Returns False if the same
        receipt was recorded before.

        Raises:
            IdempotencyConflict: the visit has a different receipt, or belongs to another account.
            EntryError: the receipt does not add up, or names a product, currency or status that the store lacks.
        """
        if receipt.status not in tuple(ReceiptStatus):
            raise EntryError(f"status: want settled or review, got {receipt.status!r}")
        if receipt.currency != self._store.currency:
            raise EntryError(f"currency: want {self._store.currency}, got {receipt.currency!r}")
        visit, account = checked_text("visit", receipt.visit), receipt.account
        if account is not None:
            checked_text("account", account)
        sale = Sale.checked(receipt.lines, discounts)
        if sale.total != receipt.total:
            raise EntryError(f"total: want the sum of the lines less discounts, {sale.total}, got {receipt.total}")
        issued_ns = checked_instant("issued_ns", receipt.issued_ns)
        exit_ns = checked_instant("exit_ns", receipt.exit_ns)
        enter_ns = None if receipt.enter_ns is None else checked_instant("enter_ns", receipt.enter_ns)
        reason = reason_text(receipt.reasons)
        if reason is not None:
            checked_text("reason", reason, NOTE_MAX)
        request = {
            "enter": enter_ns,
            "exit": exit_ns,
            "status": str(receipt.status),
            "reason": reason,
            "currency": receipt.currency,
            "total": sale.total,
            **sale.request(),
        }
        # Kinds without fields of their own: their text is in `reason`.
        in_words = (ReasonKind.NOTE, ReasonKind.NOT_BOOKED)
        reasons = [reason_row(reason) for reason in receipt.reasons if reason.kind not in in_words]
        if reasons:
            request["reasons"] = reasons[:REASONS_MAX]
        key, opened = f"{visit}/receipt", f"{visit}/opened"
        vault = self.database.vault
        with self._transaction():
            linked = vault.account(visit)
            if linked is not None and account != linked:
                raise IdempotencyConflict(f"visit {visit!r}: belongs to another account")
            known = self._find(key, opened)
            if self._is_repeated(key, known.get(key), issued_ns, request):
                return False
            rates = self._rates_of(sale, {})
            postings = sale.charge(rates, receipt.currency) if receipt.status == ReceiptStatus.SETTLED else ()
            details = {"request": request, "vat": rates}
            entry = self._append(issued_ns, f"receipt {receipt.status}", visit, key, details, postings)
            # A visit that was opened with this account and has no link any more was unlinked on purpose.
            if account is not None and opened not in known:
                vault.link(visit, account, exit_ns if enter_ns is None else enter_ns, entry)
        return True

    def decide(
        self,
        visit: str,
        decision: DecisionKind,
        *,
        by: str,
        t_ns: int,
        revision: int = 1,
        lines: Sequence[ReceiptLine] | None = None,
        discounts: Sequence[Discount] = (),
        note: str = "",
    ) -> bool:
        """Record a person's decision about what a visit costs: reverse earlier charges and post the right ones.

        Args:
            visit: the visit, which has a receipt.
            decision: "accept" the receipt as it stands (reviewed visits only), "correct" it to `lines` less
                `discounts`, or "waive" it.
            by: who decided; kept for good.
            t_ns: when.
            revision: 1 for the first decision about this visit, then 2, and so on: `Standing.revision + 1` as the
                person saw it. Of two people who decide at the same time, the second gets the conflict.
            lines: the right goods and prices, for "correct" only.
            discounts: what offers take off these lines.
            note: the person's remark.

        Returns False if exactly this decision was recorded before.

        Raises:
            IdempotencyConflict: this revision was decided differently, by another person or at another time.
            LedgerError: the visit has no receipt, the revision skips one, or the decision makes no sense.
        """
        checked_text("visit", visit)
        if decision not in ("accept", "correct", "waive"):
            raise LedgerError(f"decision: want accept, correct or waive, got {decision!r}")
        if (lines is not None) != (decision == "correct") or (discounts and lines is None):
            raise LedgerError(f"lines: want lines with the decision correct and no other, got {decision}")
        t_ns = checked_instant("t_ns", t_ns)
        revision = checked_integer("revision", revision, 1, 10**6)
        sale = Sale.checked(lines or (), discounts)
        request = {
            **sale.request(),
            "decision": decision,
            "by": checked_text("by", by),
            "revision": revision,
            "note": without_card_number(checked_text("note", note, NOTE_MAX, 0)),
        }
        if lines is None:
            request["lines"] = None
        key, before = f"{visit}/decision {revision}", f"{visit}/decision {revision - 1}"
        with self._transaction():
            known = self._find(key, f"{visit}/receipt", before)
            if self._is_repeated(key, known.get(key), t_ns, request):
                return False
            recorded = known.get(f"{visit}/receipt")
            if recorded is None:
                raise LedgerError(f"visit {visit!r}: want a receipt to decide about, got none")
            receipt = recorded.details
            if revision > 1 and before not in known:
                raise LedgerError(f"visit {visit!r}: want decision {revision - 1} before {revision}, got none")
            if decision == "accept":
                if revision > 1 or receipt["request"]["status"] != "review":
                    raise LedgerError(f"visit {visit!r}: want a receipt in review to accept, got one that was settled")
                sale = Sale.stored(receipt["request"])
            rates = self._rates_of(sale, receipt["vat"])
            charge = sale.charge(rates, self._store.currency)
            details = {"request": request, "vat": rates}
            self._append(t_ns, f"decision {decision}", visit, key, details, (*self._reversal(visit), *charge))
        return True

    def review_open_visits(self, t_ns: int, reason: Reason) -> list[str]:
        """After a restart: give every open visit an empty receipt in review, and return their ids.

        For visits whose people the new process cannot follow; a decision then settles what they cost.
        """
        visits = self.open_visits()
        with self.batch():
            for each in visits:
                receipt = Receipt(
                    visit=each.visit,
                    account=each.account,
                    enter_ns=each.enter_ns,
                    exit_ns=t_ns,
                    issued_ns=t_ns,
                    status=ReceiptStatus.REVIEW,
                    reasons=(reason,),
                    currency=self._store.currency,
                    total=0,
                    lines=(),
                )
                self.post_receipt(receipt)
        return [each.visit for each in visits]

    def record(
        self,
        visit: str,
        name: str,
        kind: str,
        t_ns: int,
        request: Mapping[str, Any],
        postings: Sequence[Posting] = (),
    ) -> bool:
        """Add an entry of another kind, such as a payment provider's answer. False if it was recorded before.

        Args:
            visit: what it is about: a visit, or another subject that has entries of its own.
            name: makes the entry's key together with `visit`; must not begin with a word of the ledger's own keys.
            kind: a short phrase to count and filter by.
            t_ns: when it happened.
            request: its details; integers and text only. Must not name an account.
            postings: money that moved; sums to zero in every currency.

        Raises:
            IdempotencyConflict: recorded before under this name with another time, kind, request or postings.
            LedgerError: the postings do not balance, or a value does not fit into the books.
        """
        key = f"{checked_text('visit', visit)}/{checked_text('name', name)}"
        first, *_ = name.split(maxsplit=1) or [""]
        if first.split("/", maxsplit=1)[0] in _RESERVED:
            raise LedgerError(f"name: want no name that begins with {', '.join(_RESERVED)}, got {name!r}")
        if checked_text("kind", kind) in (*CHARGING, OPENED):
            raise LedgerError(f"kind: want a kind that the ledger does not use itself, got {kind!r}")
        t_ns = checked_instant("t_ns", t_ns)
        for leg in postings:
            checked_text("account", leg.account)
            checked_text("currency", leg.currency)
            checked_integer("amount", leg.amount, -AMOUNT_MAX, AMOUNT_MAX)
        if sums := unbalanced(postings):
            raise LedgerError(f"postings: want a sum of zero in every currency, got {sums}")
        try:
            canonical_json(request)
        except (TypeError, ValueError) as error:
            raise LedgerError(f"request: want integers and text, got: {error}") from None
        with self._transaction():
            if not self._find(key):
                self._append(t_ns, kind, visit, key, {"request": dict(request)}, postings)
                return True
            self._flush()
            (entry,) = self._select("e.key = ?", (key,))
            same = (entry.t_ns, entry.kind, entry.postings) == (t_ns, kind, tuple(postings))
            if not same or canonical_json(entry.request) != canonical_json(request):
                raise IdempotencyConflict(f"{key!r}: recorded before with other contents")
            return False

    # ---- visits ------------------------------------------------------------------------------------------------------

    def open_visits(self) -> list[OpenVisit]:
        """Visits that began and have no receipt yet, oldest first."""
        with self._transaction(write=False):
            rows = self.database.run(
                "SELECT o.visit, o.t_ns FROM entry o WHERE o.kind = ? "
                "AND NOT EXISTS (SELECT 1 FROM entry r WHERE r.key = o.visit || '/receipt') ORDER BY o.t_ns, o.seq",
                (OPENED,),
            )
            return [OpenVisit(visit, self.database.vault.account(visit), t_ns) for visit, t_ns in rows]

    def reviews(self) -> list[Standing]:
        """Visits that wait for a decision, oldest first."""
        rows = self._query(
            "SELECT r.visit FROM entry r WHERE r.kind = 'receipt review' "
            "AND NOT EXISTS (SELECT 1 FROM entry d WHERE d.key = r.visit || '/decision 1') ORDER BY r.seq"
        )
        standings = [self.standing(visit) for (visit,) in rows]
        return [standing for standing in standings if standing is not None]

    def decisions_after(self, seq: int) -> list[Entry]:
        """Decisions of persons with a number above `seq`, oldest first."""
        return self.entries_of(*DECISIONS, after=max(seq, 0))

    def standing(self, visit: str, entries: Sequence[Entry] | None = None) -> Standing | None:
        """How a visit stands after its newest entry; None for a visit that is not in the books.

        `entries` are those of the visit, if the caller has read them already.
        """
        checked_text("visit", visit)
        with self._transaction(write=False):
            if entries is None:
                rows = self.database.run("SELECT kind, details FROM entry WHERE visit = ? ORDER BY seq", (visit,))
                events = [(kind, json.loads(details)["request"]) for kind, details in rows]
            else:
                events = [(entry.kind, entry.request) for entry in entries]
            account = self.database.vault.account(visit)
        return Standing.of(visit, account, self._store.currency, events)

    def _reversal(self, visit: str) -> list[Posting]:
        """Postings that reverse what the visit was charged so far; its payments stay."""
        self._flush()
        places = ", ".join("?" * len(CHARGING))
        rows = self.database.run(
            "SELECT p.account, p.currency, CAST(sum(p.amount) AS BIGINT) "
            "FROM entry e JOIN posting p ON p.entry = e.seq "
            f"WHERE e.visit = ? AND e.kind IN ({places}) GROUP BY p.account, p.currency",
            (visit, *CHARGING),
        )
        return [Posting(account, currency, -amount) for account, currency, amount in sorted(rows) if amount]

    def _rates_of(self, sale: Sale, known: Mapping[str, int]) -> dict[str, int]:
        """VAT rate of every product on the lines, as `vat_rate_units`; those of `known` were fixed before."""
        rates = {}
        for line in sale.lines:
            rate = known.get(line.gtin, self._vat_rates.get(gtin_14(line.gtin)))
            if rate is None:
                raise EntryError(f"gtin: want a product of {self._store.id!r}, got {line.gtin!r}")
            rates[line.gtin] = rate
        return rates

    # ---- privacy -----------------------------------------------------------------------------------------------------

    def hold(self, holder: Holder) -> None:
        """Keep the customer behind a pseudonym until they are unlinked.

        Raises:
            LedgerError: the pseudonym is taken.
        """
        for name in ("pseudonym", "account", "token", "email"):
            if (value := getattr(holder, name)) is not None:
                checked_text(name, value, NOTE_MAX if name == "token" else NAME_MAX)
        checked_instant("since_ns", holder.since_ns)
        with self._transaction():
            self.database.vault.hold(holder)

    def holder(self, pseudonym: str) -> Holder | None:
        """The customer behind a pseudonym; None if it is unknown or was forgotten."""
        with self._lock:
            return self.database.vault.holder(checked_text("pseudonym", pseudonym))

    def customer(self, visit: str) -> Holder | None:
        """The customer of a visit; None without a credential, or once unlinked."""
        with self._lock:
            account = self.database.vault.account(checked_text("visit", visit))
            return None if account is None else self.database.vault.holder(account)

    def account_of(self, visit: str) -> str | None:
        """The retailer's name for the customer of a visit; None without a credential, or once unlinked."""
        with self._lock:
            vault = self.database.vault
            account = vault.account(checked_text("visit", visit))
            holder = None if account is None else vault.holder(account)
            return account if holder is None else holder.account

    def visits_beside(self, visit: str) -> list[str]:
        """All visits of the customer of a visit, newest first; empty without a credential, or once unlinked."""
        with self._lock:
            account = self.account_of(visit)
            return [] if account is None else self.database.vault.visits(account)

    def pseudonyms(self, account: str) -> list[str]:
        """Pseudonyms that an account went by and that are not forgotten yet, newest first."""
        with self._lock:
            return self.database.vault.pseudonyms(checked_text("account", account))

    def visits(self, account: str) -> list[str]:
        """Visits of a customer under all pseudonyms that are not forgotten yet, newest first."""
        with self._lock:
            return self.database.vault.visits(checked_text("account", account))

    def named(self) -> tuple[list[Named], list[Named]]:
        """Visits with the names they go by, and pseudonyms with the accounts behind them, as far as they are known."""
        with self._lock:
            return self.database.vault.named()

    def debts(self, account: str) -> dict[str, int]:
        """What a customer's visits owe, minor units, by visit, where they owe anything; forgotten visits are left out.

        `account` is the retailer's name for the customer, or the pseudonym of a visit.
        """
        with self._transaction(write=False):
            visits = self.database.vault.visits(checked_text("account", account))
            debts: dict[str, int] = {}
            for first in range(0, len(visits), _VISITS_MAX):
                some = visits[first : first + _VISITS_MAX]
                places = ", ".join("?" * len(some))
                rows = self.database.run(
                    "SELECT e.visit, CAST(sum(p.amount) AS BIGINT) FROM entry e JOIN posting p ON p.entry = e.seq "
                    f"WHERE e.visit IN ({places}) AND p.account = 'receivable' GROUP BY e.visit",
                    some,
                )
                debts.update({visit: amount for visit, amount in rows if amount > 0})
        return debts

    def unlink_before(self, t_ns: int) -> int:
        """Forget which customers the visits that began before an instant belonged to. Returns the number of visits.

        Afterwards neither the database nor its write-ahead log holds those accounts. The books stay valid.

        Raises:
            LedgerError: another process reads an old state and keeps the log in use; call again.
        """
        t_ns = checked_instant("t_ns", t_ns)
        return self._forget(lambda: self.database.vault.forget_before(t_ns))

    def unlink_account(self, account: str) -> int:
        """Forget one account and its pseudonyms at once, on its owner's request. Returns the number of visits.

        Raises:
            LedgerError: another process reads an old state and keeps the log in use; call again.
        """
        checked_text("account", account)
        return self._forget(lambda: self.database.vault.forget_account(account))

    def unlink_names(self, names: Container[str]) -> int:
        """Forget visits and pseudonyms that go by some names. Returns the number of visits.

        Raises:
            LedgerError: another process reads an old state and keeps the log in use; call again.
        """
        return self._forget(lambda: self.database.vault.forget_names(names))

    def _forget(self, forget: Callable[[], int]) -> int:
        with self._lock:
            if self._batch is not None:
                raise LedgerError("accounts cannot be unlinked inside a batch; end the batch first")
            with self._transaction():
                n_visits = forget()
            self.database.vault.empty_log()
        return n_visits


def unbookable(receipt: Receipt, error: EntryError) -> Receipt:
    """What to post for a visit whose receipt the books refuse: a review without goods, that says why.

    One visit's goods must not end a store's day: a person decides what the visit costs.
    """
    reasons = (Reason(ReasonKind.NOT_BOOKED, detail=str(error)), *receipt.reasons)
    return replace(receipt, status=ReceiptStatus.REVIEW, reasons=reasons, total=0, lines=(), taken=())


def _vat_rates(store: Store) -> dict[str, int]:
    return {gtin_14(product.gtin): vat_rate_units(product.vat_rate) for product in store.products}
