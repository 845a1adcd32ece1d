"""Visits as pages list them, read from the books: the days of a store, and the search in them.

A day holds the visits whose receipts were issued on it by the store's clock, as they stand now: a bill that is decided
later counts on the day of its visit. Days that were asked for are kept and brought up to date by the entries that the
books have gained, so that an open page costs a look at the newest entry.
"""

from __future__ import annotations

import datetime
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import Field

from fusion.errors import FusionError
from fusion.money.disputes import disputes_of, undecided_disputes
from fusion.money.entries import Entry
from fusion.money.history import History
from fusion.money.ledger import Ledger
from fusion.money.moments import Moments
from fusion.money.visits import DECISIONS, OPENED
from fusion.store.models import Store
from fusion.store.values import StrictModel

# Days that are kept: this week, the same days of the week before, and some that were looked at.
DAYS_KEPT = 24
# One search reads at most this many days and finds at most this many visits; the page states that there are more.
SEARCHED_MAX, FOUND_MAX = 31, 400
ROWS_AT_ONCE = 500
_RECEIPTS = ("receipt settled", "receipt review")
_NS_PER_MS = 1_000_000

Row = dict[str, Any]


class Search(StrictModel):
    """What a page looks for; everything that is given must hold.

    Attributes:
        since, until: days by the store's clock, both included; today where they are missing.
        low, high: of the amount, minor units.
        product: GTIN of goods that the bill has, or had.
        text: part of a visit's or an account's name.
        status: settled, review, decided; or disputed.
    """

    since: datetime.date | None = None
    until: datetime.date | None = None
    low: int | None = Field(default=None, ge=0)
    high: int | None = Field(default=None, ge=0)
    product: str = Field(default="", max_length=64)
    text: str = Field(default="", max_length=120)
    status: str = Field(default="", max_length=20)

    def finds(self, row: Row) -> bool:
        """Whether a visit is one of them."""
        if self.low is not None and row["total"] < self.low:
            return False
        if self.high is not None and row["total"] > self.high:
            return False
        if self.product and self.product not in {gtin for gtin, *_ in row["lines"] + row["billed"]}:
            return False
        if self.text and self.text.lower() not in f"{row['visit']} {row['account'] or ''}".lower():
            return False
        if self.status == "disputed":
            return bool(row["disputed"])
        return not self.status or row["status"] == self.status


class Days:
    """The days of one store's books. Several threads may ask at once."""

    def __init__(self, store: Store, ledger: Ledger) -> None:
        """Prepare. store: supplies the time zone. ledger: its books."""
        self._ledger, self._zone = ledger, ZoneInfo(store.timezone)
        # By day: its visits by name, in the order of their receipts.
        self._days: OrderedDict[datetime.date, dict[str, Row]] = OrderedDict()
        self._seq = 0
        self._lock = threading.Lock()

    def date_of(self, t_ns: int) -> datetime.date:
        """The day of an instant on the store's clock."""
        return self.local(t_ns // _NS_PER_MS).date()

    def local(self, ms: int) -> datetime.datetime:
        """An instant, milliseconds since 1970, on the store's clock, to the second."""
        return datetime.datetime.fromtimestamp(ms // 1000, self._zone)

    def bounds_ns(self, day: datetime.date) -> tuple[int, int]:
        """First instant of a day, and of the next one."""

        def begins_ns(date: datetime.date) -> int:
            return int(datetime.datetime.combine(date, datetime.time(), self._zone).timestamp()) * 10**9

        return begins_ns(day), begins_ns(day + datetime.timedelta(days=1))

    def rows(self, day: datetime.date) -> list[Row]:
        """The visits of a day, oldest receipt first; see `visit_row`. Do not change them.

        Raises:
            LedgerError: the books cannot be read.
        """
        with self._lock:
            self._follow()
            if day not in self._days:
                self._days[day] = self._read(day)
                while len(self._days) > DAYS_KEPT:
                    self._days.popitem(last=False)
            self._days.move_to_end(day)
            return list(self._days[day].values())

    def search(self, search: Search, today: datetime.date) -> tuple[list[Row], bool]:
        """Visits that a search finds, newest first, and whether there are more.

        Raises:
            FusionError: the days make no sense.
            LedgerError: the books cannot be read.
        """
        until = search.until or search.since or today
        since = search.since or until
        n_days = (until - since).days + 1
        if not 1 <= n_days <= SEARCHED_MAX:
            raise FusionError(f"days: want 1 to {SEARCHED_MAX} of them, got {since} to {until}")
        found: list[Row] = []
        for back in range(n_days):
            for row in reversed(self.rows(until - datetime.timedelta(days=back))):
                if search.finds(row):
                    if len(found) == FOUND_MAX:
                        return found, True
                    found.append(row)
        return found, False

    def _read(self, day: datetime.date) -> dict[str, Row]:
        receipts = self._ledger.visits_between(_RECEIPTS, *self.bounds_ns(day))
        rows = (self._row(visit) for visit in receipts)
        return {row["visit"]: row for row in rows if row is not None}

    def _row(self, visit: str) -> Row | None:
        entries = self._ledger.entries(visit)
        standing = self._ledger.standing(visit, entries)
        return None if standing is None else visit_row(entries, standing.account)

    def _follow(self) -> None:
        """Bring the days that are kept up to date."""
        if not self._days:
            self._seq = self._ledger.head().seq
            return
        while entries := self._ledger.rows_after(self._seq, ROWS_AT_ONCE)[0]:
            for visit in dict.fromkeys(entry.visit for entry in entries):
                row = self._row(visit)
                kept = None if row is None else self._days.get(self.date_of(row["ms"] * _NS_PER_MS))
                if row is not None and kept is not None:
                    kept[visit] = row
            self._seq = entries[-1].seq


def visit_row(entries: Sequence[Entry], account: str | None) -> Row | None:
    """A visit as lists show it; None where it has no receipt yet.

    "ms" is when the receipt was issued; "lines" [[gtin, quantity, unit_price, confidence], ...] are those that stand,
    "billed" those of the receipt; "total" and "first" what they cost; "by", "decided_ms" and "decision" the newest
    decision; "paid" how its payment stands.
    """
    receipt = next((entry for entry in entries if entry.kind in _RECEIPTS), None)
    if receipt is None:
        return None
    lines, discounts = receipt.request["lines"], receipt.request.get("discounts", ())
    first = _total(lines, discounts)
    decided = None
    for entry in entries:
        if entry.kind in DECISIONS:
            decided = entry
            if entry.kind != "decision accept":
                lines, discounts = entry.request["lines"] or [], entry.request.get("discounts", ())
    status = "decided" if decided is not None else receipt.request["status"]
    total = _total(lines, discounts)
    return {
        "visit": receipt.visit,
        "account": account,
        "ms": receipt.t_ns // _NS_PER_MS,
        "status": status,
        "reason": receipt.request["reason"],
        "total": total,
        "first": first,
        "discounts": sum(amount for _, _, amount in discounts),
        "pieces": sum(quantity for _, quantity, *_ in lines),
        "lines": [[gtin, n, price, ppm / 1e6] for gtin, n, price, ppm in lines],
        "billed": [[gtin, n, price, ppm / 1e6] for gtin, n, price, ppm in receipt.request["lines"]],
        "revision": 0 if decided is None else decided.request["revision"],
        "by": None if decided is None else decided.request["by"],
        "decision": None if decided is None else decided.kind.removeprefix("decision "),
        "decided_ms": None if decided is None else decided.t_ns // _NS_PER_MS,
        "paid": payment_state(entries, is_final=status != "review"),
        "disputed": [[one.gtin, one.quantity, str(one.reason)] for one in undecided_disputes(entries)],
    }


def payment_state(entries: Iterable[Entry], *, is_final: bool) -> str:
    """How a visit's payment stands in one word, for lists."""
    history = History.of(entries)
    if history.question:
        return "in question"
    if history.pending is not None:
        return "asked"
    if not is_final:
        return "authorised" if history.authorised else "not yet"
    if history.owed > 0:
        return "declined" if history.declined else "owed"
    if history.owed < 0:
        return "to refund"
    if history.written_off > 0:
        return "written off"
    return "paid" if history.paid else "nothing to pay"


def payment_rows(entries: Iterable[Entry]) -> list[list[Any]]:
    """What happened to a visit's payment, oldest first: [ms, kind, amount moved at the provider, what it was about]."""
    rows: list[list[Any]] = []
    skipped = (OPENED, *_RECEIPTS, *DECISIONS)
    for entry in entries:
        if entry.kind in skipped or entry.kind.startswith(("proposal ", "shopper ")):
            continue
        moved = entry.moved("provider") or entry.moved("authorised") or entry.moved("written off")
        step = entry.request.get("step", "")
        detail = entry.request.get("reason") or step
        rows.append([entry.t_ns // _NS_PER_MS, entry.kind, moved, detail if isinstance(detail, str) else ""])
    return rows


def dispute_rows(entries: Iterable[Entry]) -> list[list[Any]]:
    """What a shopper disputed, oldest first: [ms, gtin, quantity, reason]."""
    return [[one.t_ns // _NS_PER_MS, one.gtin, one.quantity, str(one.reason)] for one in disputes_of(entries)]


def moment_rows(path: Path | None, visit: str) -> list[list[Any]]:
    """When and where a visit's goods were taken (negative) or put back: [ms, gtin, pieces, plate].

    Raises:
        LedgerError: the file cannot be read.
    """
    if path is None or not path.exists():
        return []
    with closing(Moments(path)) as moments:
        return [[one.t_ns // _NS_PER_MS, one.gtin, -one.pieces, one.plate] for one in moments.of(visit)]


def _total(lines: Iterable[Sequence[Any]], discounts: Iterable[Sequence[Any]]) -> int:
    gross = sum(quantity * price for _, quantity, price, _ in lines)
    return int(gross - sum(amount for _, _, amount in discounts))


def listed(row: Mapping[str, Any]) -> Row:
    """A visit without the lines, as lists are sent."""
    return {key: value for key, value in row.items() if key not in ("lines", "billed")}


__all__ = [
    "Days", "Search", "dispute_rows", "listed", "moment_rows", "payment_rows", "payment_state", "visit_row",
]  # fmt: skip
