"""A store's day in figures, beside yesterday and the same day of the week before, and as CSV for spreadsheets."""

from __future__ import annotations

import csv
import datetime
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from fusion.money.history import CHARGED_BACK, DONE, LOSSES, PROVIDER, WRITTEN_OFF
from fusion.money.ledger import Ledger
from fusion.show.console.receipts import Days, Row
from fusion.store.models import Store

SOLD_MAX = 60
# A cell that begins so is a formula to a spreadsheet (OWASP, CSV injection); an apostrophe before it makes it text.
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")


def figures(rows: Iterable[Row]) -> dict[str, Any]:
    """Figures of a day's visits; amounts in minor units, of what is charged unless they name something else."""
    rows = list(rows)
    final = [row for row in rows if row["status"] != "review"]
    sales = sum(row["total"] for row in final)
    baskets = [row for row in final if row["total"]]
    went_to_review = sum(row["status"] == "review" or row["reason"] is not None for row in rows)
    return {
        "sales": sales,
        "visits": len(rows),
        "basket": round(sales / len(baskets)) if baskets else 0,
        "reviewed": went_to_review,
        "waiting": sum(row["status"] == "review" for row in rows),
        "waiting_amount": sum(row["total"] for row in rows if row["status"] == "review"),
        "waived": sum(row["first"] for row in rows if row["decision"] == "waive"),
        "lowered": sum(
            max(row["first"] - row["total"], 0) for row in rows if row["decision"] == "correct"
        ),
        "owed": sum(row["total"] for row in final if row["paid"] in ("owed", "declined", "in question")),
    }  # fmt: skip


def sold(rows: Iterable[Row]) -> list[list[Any]]:
    """What was sold: [gtin, pieces, amount before offers], the largest amount first."""
    pieces: Counter[str] = Counter()
    amounts: Counter[str] = Counter()
    for row in rows:
        if row["status"] != "review":
            for gtin, quantity, price, _ in row["lines"]:
                pieces[gtin] += quantity
                amounts[gtin] += quantity * price
    return [[gtin, pieces[gtin], amount] for gtin, amount in sorted(amounts.items(), key=lambda item: -item[1])]


def lost(ledger: Ledger, days: Days, day: datetime.date) -> dict[str, int]:
    """What was lost on a day, whichever day's visits it concerns: refunded, written off, charged back; minor units."""
    found = Counter[str]()
    for entry in ledger.entries_between(*days.bounds_ns(day)):
        if entry.kind == DONE["refund"]:
            found["refunded"] -= entry.moved(PROVIDER)
        elif entry.kind == WRITTEN_OFF:
            found["written_off"] += entry.moved(LOSSES)
        elif entry.kind == CHARGED_BACK:
            found["charged_back"] -= entry.moved(PROVIDER)
    return {name: found[name] for name in ("refunded", "written_off", "charged_back")}


def day_row(ledger: Ledger, days: Days, day: datetime.date) -> dict[str, Any]:
    """A day as the page shows it, beside the day before and the same day of the week before.

    Raises:
        LedgerError: the books cannot be read.
    """
    rows = days.rows(day)
    others = {"yesterday": 1, "week": 7}
    return {
        "day": day.isoformat(),
        "figures": figures(rows) | lost(ledger, days, day),
        **{name: figures(days.rows(day - datetime.timedelta(days=back))) for name, back in others.items()},
        "sold": sold(rows)[:SOLD_MAX],
    }


def receipts_csv(store: Store, days: Days, rows: Iterable[Row]) -> str:
    """Visits as a spreadsheet reads them, one a line."""
    head = "time,visit,account,status,total,currency,offers,pieces,first_total,decision,decided_by,decided_at"
    table = [
        [
            days.local(row["ms"]).isoformat(), row["visit"], row["account"] or "", row["status"],
            _amount(store, row["total"]), store.currency, _amount(store, row["discounts"]), row["pieces"],
            _amount(store, row["first"]), row["decision"] or "", row["by"] or "",
            "" if row["decided_ms"] is None else days.local(row["decided_ms"]).isoformat(), row["paid"],
            row["reason"] or "",
        ]
        for row in rows
    ]  # fmt: skip
    return _csv([*head.split(","), "payment", "reason"], table)


def sold_csv(store: Store, rows: Iterable[Row]) -> str:
    """What was sold, one product a line."""
    names = {product.gtin: product.name for product in store.products}
    table = [
        [gtin, names.get(gtin, ""), pieces, _amount(store, amount), store.currency]
        for gtin, pieces, amount in sold(rows)
    ]
    return _csv(["gtin", "product", "pieces", "amount_before_offers", "currency"], table)


class _Number(str):
    """A cell that holds a number, which may begin with a minus."""


def _amount(store: Store, minor: int) -> _Number:
    """An amount with a point, such as 2.49, without the currency."""
    places = store.currency_exponent
    sign, digits = "-" if minor < 0 else "", str(abs(minor)).rjust(places + 1, "0")
    return _Number(sign + (f"{digits[:-places]}.{digits[-places:]}" if places else digits))


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV (RFC 4180), with the mark by which spreadsheets know UTF-8."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(head)
    writer.writerows([_cell(cell) for cell in row] for row in rows)
    return "\ufeff" + text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, _Number) and value.startswith(FORMULAS):
        return "'" + value
    return value


__all__ = ["day_row", "figures", "receipts_csv", "sold", "sold_csv"]
