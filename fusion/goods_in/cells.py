"""Cells of spreadsheets as values of a store's tables: GTINs, names, amounts with units. Each with what was changed.

A cell that can be read in two ways is refused by a ValueError `want ..., got ...`; none is guessed.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, NamedTuple

from fusion.goods_in.headings import UNITS, unit_of
from fusion.store import iso4217
from fusion.store.gs1 import Codes
from fusion.store.gtin import LENGTHS, gtin_fault
from fusion.store.tables import SCIENTIFIC
from fusion.store.values import unprintable

CURRENCY_SIGNS = {"€": "EUR", "£": "GBP", "$": "USD", "¥": "JPY", "Fr.": "CHF", "zł": "PLN", "Kč": "CZK"}
# A workbook keeps amounts as binary floats; sums of them are off by less than this.
FLOAT_NOISE = Decimal("1e-6")


class Read(NamedTuple):
    """A value as the table has it, and what was changed to get it; "" for nothing."""

    value: str
    change: str = ""


def read_gtin(cell: Any, codes: Codes) -> Read:
    """A GTIN with the zeros that spreadsheets take off. Raises ValueError."""
    if isinstance(cell, float):
        if not cell.is_integer() or abs(cell) >= 2**53:
            raise ValueError(f"want a GTIN of 8, 12, 13 or 14 digits, got {cell!r}")
        cell = int(cell)
    text = str(cell)
    bare = re.sub(r"[\s\u00a0'’-]", "", re.sub(r'^="?([^"]*)"?$', r"\1", text))
    bare = re.sub(r"^(\d{7,14})[.,]0+$", r"\1", bare)
    if SCIENTIFIC.fullmatch(bare):
        mantissa, _, exponent = bare.lower().replace(",", ".").partition("e")
        digits, places = mantissa.replace(".", ""), len(mantissa.partition(".")[2])
        if places != int(exponent):
            raise ValueError(
                f"want all digits of a GTIN, got {text!r}: a spreadsheet has shortened the number, and its digits are"
                " lost; make the column text in the source, and export it again"
            )
        bare = digits
    if bare.isascii() and bare.isdecimal() and 7 <= len(bare) <= 14:
        longer = bare.zfill(next(length for length in LENGTHS if length >= len(bare)))
        fault = gtin_fault(longer)
        if fault and longer != bare:
            raise ValueError(f"{fault.partition(', got')[0]}, got {text!r}, with zeros in front {longer!r}")
        if fault:
            raise ValueError(fault)
        change = "" if longer == text else ("zeros put in front" if longer != bare else "spaces and signs taken out")
        return Read(longer, change)
    if len(bare) < 15 or not re.match(r"\(?01|https?:|\]", bare):
        raise ValueError(f"want a GTIN of 8, 12, 13 or 14 digits, got {text!r}")
    item = codes.read(text)
    return Read(item.gtin, "GTIN out of a GS1 code")


def read_name(cell: Any) -> Read:
    """A name on one line, without control characters and marks of direction. Raises ValueError."""
    text = str(cell)
    hidden = unprintable(text)
    # What stood between two words still has to part them.
    parted = "".join((" " if c.isspace() else "") if c in hidden else c for c in text)
    cleaned = " ".join(parted.split(" ")).strip()
    if not cleaned:
        raise ValueError(f"want a name, got {text!r}")
    return Read(cleaned, "control characters and marks of direction taken out" if hidden else "")


class Parted(NamedTuple):
    """A cell's number and the unit or currency beside it; "" where there is none."""

    value: Any
    unit: str


def parted(cell: Any) -> Parted:
    """Part `0,5 kg`, `EUR 2.99` or `19 %` into number and unit."""
    if not isinstance(cell, str):
        return Parted(cell, "")
    match = re.fullmatch(r"([^\d+.,\u2212-]*)\s*([\d+.,'’ \u00a0\u202f\u2212-]*?)\s*([^\d.,'’]*\.?)", cell.strip())
    if not match or (match[1].strip() and match[3].strip()):
        return Parted(cell, "")
    return Parted(match[2].strip(), (match[1] or match[3]).strip())


def in_grams_and_metres(value: Decimal, unit: str, kind: str) -> Decimal:
    """A weight, length or angle in the contract's unit; exact but for angles."""
    return value * Decimal(UNITS[kind][unit])


def stated_unit(unit: str, kind: str) -> str:
    """The unit beside a number. Raises ValueError: not one of this kind."""
    found = unit_of(unit, kind)
    if unit and not found:
        raise ValueError(f"want a number in {', '.join(UNITS[kind])}, got {unit!r} beside it")
    return found


def price_unit(unit: str, currency: str) -> str:
    """Whether a sign beside a price means major or minor units; "" without one. Raises ValueError: another currency."""
    code = CURRENCY_SIGNS.get(unit, unit.upper())
    if code in iso4217.CURRENCIES and code != currency and not (unit == "$" and currency.endswith("D")):
        raise ValueError(f"want a price in {currency}, got {unit!r} beside it")
    return "major" if code in iso4217.CURRENCIES else stated_unit(unit, "price")


def heading_currency_fault(heading: str, currency: str) -> str:
    """What is wrong with the currency that a heading states; "" where it states none, or the store's."""
    for word in re.split(r"[\s()\[\]/]+", heading):
        if word in CURRENCY_SIGNS or word in iso4217.CURRENCIES:
            try:
                price_unit(word, currency)
            except ValueError as error:
                return str(error)
    return ""


def minor_units(value: Decimal, unit: str, currency: str, is_float: bool) -> int:
    """A price in minor units. Raises ValueError: a fraction of one, or below zero."""
    exact = value.scaleb(iso4217.decimal_places(currency)) if unit == "major" else value
    whole = exact.to_integral_value()
    if whole != exact and not (is_float and abs(whole - exact) < FLOAT_NOISE):
        raise ValueError(f"want a price in whole minor units of {currency}, got {value}")
    if whole < 0:
        raise ValueError(f"want a price of at least 0, got {value}")
    return int(whole)


def plain(value: Decimal) -> str:
    """A number as the tables have it: a decimal point, no exponent, no zeros behind."""
    text = f"{value:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"
