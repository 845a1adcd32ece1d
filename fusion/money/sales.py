"""A sale: priced lines less discounts, the VAT in them, and the postings that charge for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from fusion.errors import EntryError
from fusion.money.entries import AMOUNT_MAX, Posting, checked_integer, checked_text
from fusion.results import ReceiptLine

# VAT rates are exact to a ten-thousandth of a percent.
_RATE_SCALE = 10_000
# Confidences are stored in millionths, since canonical bytes hold no floats.
_CONFIDENCE_SCALE = 1e6


@dataclass(frozen=True, slots=True)
class Discount:
    """What an offer takes off the price of one product on a receipt, in minor units."""

    offer: str
    gtin: str
    amount: int


@dataclass(frozen=True, slots=True)
class Sale:
    """Goods at their prices, less discounts.

    `Sale.checked` makes one from a caller's values, `Sale.stored` one from an entry of the books.
    """

    lines: tuple[ReceiptLine, ...] = ()
    discounts: tuple[Discount, ...] = ()

    @classmethod
    def checked(cls, lines: Sequence[ReceiptLine], discounts: Sequence[Discount]) -> Sale:
        """A sale that the books can hold.

        Raises:
            EntryError: a value is out of range, or discounts take more off a product than it costs.
        """
        checked = []
        for line in lines:
            gtin = checked_text("gtin", line.gtin)
            quantity = checked_integer("quantity", line.quantity, 1, AMOUNT_MAX)
            price = checked_integer("unit_price", line.unit_price, 0, AMOUNT_MAX)
            if not 0.0 <= line.confidence <= 1.0:
                raise EntryError(f"confidence: want 0 to 1, got {line.confidence}")
            checked.append(ReceiptLine(gtin, quantity, price, line.confidence))
        gross = cls(tuple(checked))
        if gross.total > AMOUNT_MAX:
            raise EntryError(f"total: want at most {AMOUNT_MAX}, got {gross.total}")
        left = gross._by_product()
        taken_off = []
        for discount in discounts:
            offer, gtin = checked_text("offer", discount.offer), checked_text("gtin", discount.gtin)
            amount = checked_integer("discount", discount.amount, 1, left.get(gtin, 0))
            left[gtin] -= amount
            taken_off.append(Discount(offer, gtin, amount))
        return cls(gross.lines, tuple(taken_off))

    @classmethod
    def stored(cls, request: Mapping[str, Any]) -> Sale:
        """The sale that an entry's request holds."""
        lines = (
            ReceiptLine(gtin, quantity, price, millionths / _CONFIDENCE_SCALE)
            for gtin, quantity, price, millionths in request["lines"] or ()
        )
        return cls(tuple(lines), tuple(Discount(*row) for row in request.get("discounts", ())))

    def request(self) -> dict[str, Any]:
        """The sale as an entry's request holds it: rows of integers and text; no discounts, no such key."""
        rows: dict[str, Any] = {
            "lines": [
                [line.gtin, line.quantity, line.unit_price, round(line.confidence * _CONFIDENCE_SCALE)]
                for line in self.lines
            ]
        }
        if self.discounts:
            rows["discounts"] = [[each.offer, each.gtin, each.amount] for each in self.discounts]
        return rows

    @property
    def total(self) -> int:
        """What remains to pay, VAT included, minor units."""
        gross = sum(line.quantity * line.unit_price for line in self.lines)
        return gross - sum(discount.amount for discount in self.discounts)

    def charge(self, rates: Mapping[str, int], currency: str) -> tuple[Posting, ...]:
        """Postings that charge for the sale; `rates` as `vat_rate_units` by GTIN."""
        gross: dict[int, int] = {}
        for gtin, amount in self._by_product().items():
            gross[rates[gtin]] = gross.get(rates[gtin], 0) + amount
        return charge_postings(gross, currency)

    def _by_product(self) -> dict[str, int]:
        amounts: dict[str, int] = {}
        for line in self.lines:
            amounts[line.gtin] = amounts.get(line.gtin, 0) + line.quantity * line.unit_price
        for discount in self.discounts:
            amounts[discount.gtin] -= discount.amount
        return amounts


def vat_included(gross: int, rate_percent: float) -> int:
    """VAT contained in a gross amount, in minor units.

    VAT is extracted once per rate from the sum of a receipt's lines at that rate, not per line:
    gross * rate / (100 % + rate), rounded to the nearest minor unit, halves up (away from zero, since gross >= 0).
    Net is gross minus VAT, so the two always add up again.
    """
    rate = vat_rate_units(rate_percent)
    base = 100 * _RATE_SCALE + rate
    return (2 * gross * rate + base) // (2 * base)


def vat_rate_units(percent: float) -> int:
    """A VAT rate in ten-thousandths of a percent, as the books hold it."""
    return round(percent * _RATE_SCALE)


@cache
def _rate_text(rate: int) -> str:
    whole, part = divmod(rate, _RATE_SCALE)
    return f"{whole}.{part:04d}".rstrip("0").rstrip(".") + "%"


def charge_postings(gross_by_rate: Mapping[int, int], currency: str) -> tuple[Posting, ...]:
    """Postings of a sale: debit receivable, credit revenue and VAT payable, by rate in ten-thousandths of a percent."""
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
    """Sales that `charge_postings` posted: (net, VAT) by VAT rate as text, less what was reversed."""
    sales: dict[str, list[int]] = {}
    for posting in postings:
        kind, _, rate = posting.account.partition(" ")
        if kind in ("revenue", "vat"):
            sales.setdefault(rate, [0, 0])[kind == "vat"] -= posting.amount
    return {rate: (net, vat) for rate, (net, vat) in sorted(sales.items())}
