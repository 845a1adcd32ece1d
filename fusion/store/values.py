"""The values that a store folder consists of, each with its check: lengths, angles, names, currencies, shapes.

A value that fails its check raises a ValueError of the form `want ..., got ...`, and `validation_faults` lists all of
them. The checks look for wrong units above all: millimetres for metres, kilograms for grams, degrees for radians.
"""

from __future__ import annotations

import datetime
import math
import re
import unicodedata
from collections.abc import Iterator
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fusion.store.card_numbers import without_card_number
from fusion.store.iso4217 import CURRENCIES
from fusion.store.shapes import crosses_itself, signed_area_m2


class StrictModel(BaseModel):
    """A model that refuses unknown keys and cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


def require(holds: bool, want: str, got: object) -> None:
    """Raise ValueError with what was wanted and what came, unless the condition holds."""
    if not holds:
        raise ValueError(f"want {want}, got {got!r}")


def validation_faults(error: ValidationError, prefix: str) -> Iterator[str]:
    """What pydantic found wrong, one line per fault: `key: want ..., got ...`."""
    for fault in error.errors():
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]).lstrip(".")
        match fault["type"]:
            case "extra_forbidden":
                message = "unknown key"
            case "missing":
                message = "missing"
            case "value_error":
                message = str(fault["ctx"]["error"])
            case _:
                message = f"{fault['msg'][0].lower()}{fault['msg'][1:]}, got {fault['input']!r}"
        yield f"{prefix}{key}: {message}" if key else f"{prefix}{message}"


# ---- numbers ---------------------------------------------------------------------------------------------------------


def _finite(value: float) -> float:
    require(math.isfinite(value), "a finite number", value)
    return value


def _metres(value: float) -> float:
    # No store, and no camera's distance to it, is a kilometre long; a file in millimetres almost always is.
    require(abs(value) < 1000.0, "metres", value)
    return value


def _radians(value: float) -> float:
    require(abs(value) <= 2 * math.pi + 1e-9, "radians within one turn (degrees?)", value)
    return value


def _piece_weight(value: float) -> float:
    require(value >= 1.0, "grams, at least 1 (kilograms?)", value)
    return value


def _capacity(value: float) -> float:
    require(value >= 100.0, "grams, at least 100 (kilograms?)", value)
    return value


def _vat_percent(value: float) -> float:
    require(0.0 <= value <= 100.0, "a percentage from 0 to 100", value)
    require(value == 0.0 or value >= 1.0, "a percentage such as 19 (a fraction?)", value)
    return value


def _minor_units(value: Any) -> Any:
    if isinstance(value, str) and not value.strip().isdecimal():
        raise ValueError(f"want an integer of minor units such as 249, got {value!r}")
    return value


Finite = Annotated[float, AfterValidator(_finite)]
Metres = Annotated[Finite, AfterValidator(_metres)]
PositiveMetres = Annotated[Metres, Field(gt=0)]
Radians = Annotated[Finite, AfterValidator(_radians)]
PieceGrams = Annotated[Finite, AfterValidator(_piece_weight)]
CapacityGrams = Annotated[Finite, AfterValidator(_capacity)]
VatPercent = Annotated[Finite, AfterValidator(_vat_percent)]
MinorUnits = Annotated[int, BeforeValidator(_minor_units), Field(ge=0)]


# ---- texts -----------------------------------------------------------------------------------------------------------


# What makes a text look like another one: marks that turn the direction of what follows (UAX 9) would show a price
# reversed, a line break would split a row of a receipt.
_BIDI = "\u061c\u200e\u200f" + "".join(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
_BREAKS = "\u2028\u2029"


def unprintable(text: str) -> str:
    """The characters of a text that no name may hold: control characters, line breaks, marks of direction."""
    return "".join(c for c in text if c in _BIDI or c in _BREAKS or unicodedata.category(c) in ("Cc", "Cs"))


def _printable(value: str) -> str:
    wrong = unprintable(value)
    names = ", ".join(f"U+{ord(c):04X}" for c in dict.fromkeys(wrong))
    wanted = f"a name without control characters and marks of direction ({names})"
    require(not wrong, wanted, without_card_number(value))
    return value


def _currency(value: str) -> str:
    require(value in CURRENCIES, "an ISO 4217 code such as EUR", value)
    return value


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ValueError, OSError, KeyError):
        raise ValueError(f"want an IANA time zone such as Europe/Berlin, got {value!r}") from None
    return value


def _date(value: str) -> str:
    try:
        require(datetime.date.fromisoformat(value).isoformat() == value, "a date such as 2026-01-31", value)
    except ValueError:
        raise ValueError(f"want a date such as 2026-01-31, got {value!r}") from None
    return value


def _time(value: str) -> str:
    require(re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d|24:00", value) is not None, "a time such as 14:30", value)
    return value


Name = Annotated[str, AfterValidator(_printable)]
Identifier = Annotated[Name, Field(min_length=1, max_length=255)]
Currency = Annotated[str, AfterValidator(_currency)]
TimeZone = Annotated[str, AfterValidator(_timezone)]
Date = Annotated[str, AfterValidator(_date)]
TimeOfDay = Annotated[str, AfterValidator(_time)]


# ---- shapes ----------------------------------------------------------------------------------------------------------


def _polygon(value: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    require(len(value) >= 3, "at least 3 corners", len(value))
    area = signed_area_m2(value)
    require(abs(area) > 1e-6 and not crosses_itself(value), "a polygon that encloses an area once", value)
    if area < 0:
        raise ValueError("want corners counter-clockwise, got them clockwise")
    return value


def _segment(value: tuple[tuple[float, float], tuple[float, float]]) -> tuple[tuple[float, float], tuple[float, float]]:
    require(math.dist(*value) > 0.05, "a line at least 0.05 m long", value)
    return value


Point2 = tuple[Metres, Metres]
Polygon = Annotated[tuple[Point2, ...], AfterValidator(_polygon)]
Segment = Annotated[tuple[Point2, Point2], AfterValidator(_segment)]
