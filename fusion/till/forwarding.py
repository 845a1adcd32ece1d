"""Books on a server, and the books in the store that they follow: what is posted while the server is away waits here.

The engine's thread and the gates write visits, receipts and customers into a file in the store. An errand posts them
again in the books on the server, in the same order and under the same keys, so that what was posted before an outage or
a restart is posted once. The customers' links in the file are forgotten a day later; those of the books stay as long as
the store's policy says.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fusion.errors import EntryError, IdempotencyConflict, LedgerError
from fusion.files.results import reason_of
from fusion.money.checkpoint import Head
from fusion.money.disputes import KINDS as SHOPPERS
from fusion.money.entries import Entry, EntryRow
from fusion.money.ledger import Ledger, unbookable
from fusion.money.payments import Checkout
from fusion.money.sales import Sale
from fusion.money.visits import OPENED, Standing
from fusion.results import Reason, ReasonKind, Receipt, ReceiptStatus
from fusion.sentences import reason_text
from fusion.store.models import Store
from fusion.till.positions import keep_position, read_position

FRONT_FILE, POSITION_FILE = "front.sqlite", "forwarded.json"
ROWS_AT_ONCE = 200
# Links to customers are kept in the file for this long after they were forwarded.
LINKS_KEPT_NS = 86_400 * 10**9


class Forwarding:
    """Posts in the books on a server what the books in the store hold."""

    def __init__(
        self, front: Ledger, open_books: Callable[[], Ledger], folder: Path, report: Callable[[str], object]
    ) -> None:
        """Prepare; the server is not asked yet.

        Args:
            front: the books in the store.
            open_books: opens the books on the server. Raises LedgerError while they are away.
            folder: holds how far they were forwarded.
            report: takes messages for the operator.
        """
        self._front, self._open_books, self._report = front, open_books, report
        self._path = folder / POSITION_FILE
        self._books: Ledger | None = None
        self._seq = read_position(self._path, front.head().seq)
        self._forgotten_ns = 0
        self._n_at_close: int | None = None

    @property
    def books(self) -> Ledger:
        """The books on the server. Raises LedgerError where they have not been reached yet; never waits."""
        if self._books is None:
            raise LedgerError("the books on the server have not been reached yet")
        return self._books

    @property
    def n_waiting(self) -> int:
        """Entries that are not in the books on the server yet; once closed, how many there were then."""
        # A store's last status is asked for after its thread has closed all books.
        return self._front.head().seq - self._seq if self._n_at_close is None else self._n_at_close

    def work(self, checkout: Callable[[], Checkout | None], now_ns: int) -> str:
        """Forward what waits; the work of an errand.

        Args:
            checkout: of the books on the server, once they are open; None without a payment provider.
            now_ns: the present.
        """
        if self._books is None:
            self._books = self._open_books()
        while rows := self._front.rows_after(self._seq, ROWS_AT_ONCE)[0]:
            for row in rows:
                try:
                    self._forward(row, checkout())
                except IdempotencyConflict as error:
                    self._report(f"books: {error}; what they hold stands")
            self._seq = rows[-1].seq
            keep_position(self._path, self._seq)
        if now_ns - self._forgotten_ns > LINKS_KEPT_NS // 24:
            self._forgotten_ns = now_ns
            oldest_ns = min((visit.enter_ns for visit in self._front.open_visits()), default=now_ns)
            self._front.unlink_before(min(oldest_ns, now_ns - LINKS_KEPT_NS))
        return ""

    def adopt(self, store: Store) -> None:
        """Use the products and VAT rates of a changed store."""
        if self._books is not None:
            self._books.adopt(store)

    def hold(self, pseudonym: str) -> None:
        """Keep the customer behind a pseudonym in the books on the server, before a provider is asked about them."""
        holder = self._front.holder(pseudonym)
        if holder is not None and self.books.holder(pseudonym) is None:
            self.books.hold(holder)

    def close(self) -> None:
        """Close the books on the server; before those in the store."""
        self._n_at_close = self.n_waiting
        if self._books is not None:
            self._books.close()

    def _forward(self, row: EntryRow, checkout: Checkout | None) -> None:
        standing = self._front.standing(row.visit)
        account = standing.account if standing is not None else None
        if account is not None:
            self.hold(account)
        target = self.books if checkout is None else checkout
        if row.kind == OPENED:
            target.open_visit(row.visit, account, row.t_ns)
        elif row.kind.startswith("receipt "):
            receipt, discounts = _receipt_of(row, account)
            post = self.books.post_receipt if checkout is None else checkout.posted
            try:
                post(receipt, discounts)
            except EntryError as error:
                self._report(f"visit {row.visit}: {error}; goes to review")
                post(unbookable(receipt, error))
        elif row.kind in SHOPPERS:
            request = json.loads(row.details)["request"]
            self.books.record(row.visit, row.key.removeprefix(f"{row.visit}/"), row.kind, row.t_ns, request)


def _receipt_of(row: EntryRow, account: str | None) -> tuple[Receipt, tuple[Any, ...]]:
    """The receipt that an entry records, and its discounts."""
    request = json.loads(row.details)["request"]
    sale = Sale.stored(request)
    reasons = tuple(map(reason_of, request.get("reasons", ())))
    if request["reason"] is not None and reason_text(reasons) != request["reason"]:
        # Reasons that are kept as text alone.
        reasons = (*reasons, Reason(ReasonKind.NOTE, detail=request["reason"]))
    receipt = Receipt(
        row.visit, account, request["enter"], request["exit"], row.t_ns, ReceiptStatus(request["status"]), reasons,
        request["currency"], request["total"], sale.lines,
    )  # fmt: skip
    return receipt, sale.discounts


class RemoteDecisions:
    """The decisions of reviewers in books on a server, as far as an errand has read them; see `Teaching`.

    The engine's thread asks, from memory; the errand reads.
    """

    def __init__(self, forwarding: Forwarding) -> None:
        self._forwarding = forwarding
        self._lock = threading.Lock()
        self._from: int | None = None
        self._read_to = 0
        self._entries: list[Entry] = []
        self._standings: dict[str, Standing | None] = {}

    def head(self) -> Head:
        """The newest entry of the books that was read."""
        return Head(self._read_to, "")

    def decisions_after(self, seq: int) -> list[Entry]:
        """Decisions with a number above `seq` that were read, oldest first; the others come with a later call."""
        with self._lock:
            if self._from is None:
                self._from = seq
            self._entries = [entry for entry in self._entries if entry.seq > seq]
            self._standings = {entry.visit: self._standings.get(entry.visit) for entry in self._entries}
            return list(self._entries)

    def standing(self, visit: str) -> Standing | None:
        """How a visit stood when its decision was read."""
        return self._standings.get(visit)

    def look(self) -> None:
        """Read what is new; for an errand. Raises LedgerError."""
        books, since = self._forwarding.books, self._from
        if since is None:
            return
        entries = books.decisions_after(max(since, self._read_to))
        standings = {entry.visit: books.standing(entry.visit) for entry in entries}
        with self._lock:
            self._entries += entries
            self._standings |= standings
            self._read_to = max([self._read_to, *(entry.seq for entry in entries)])
