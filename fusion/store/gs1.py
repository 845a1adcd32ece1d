"""GS1 codes: what a barcode, a 2D code or a tag states about one trade item, from element strings or a Digital Link.

Sources: GS1 General Specifications, sections 3 (application identifiers) and 7.8 (element strings), and the GS1 Digital
Link standard, URI syntax. Codes of a store's own (weight or price inside an EAN-13 that starts with 2) follow no
worldwide rule, so that each store states its patterns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import AfterValidator

from fusion.store import iso4217
from fusion.store.gtin import check_digit, gtin_14, gtin_fault

# No symbol holds more: a GS1 DataMatrix has at most 2335 characters.
CODE_MAX = 2335
SEPARATOR = "\x1d"  # FNC1 as readers transmit it
_SYMBOLOGY = re.compile(r"\](C1|d2|Q3|e0|J1|E0|E4)")
_BRACKETED = re.compile(r"\((\d{2,4})\)((?:(?!\(\d{2,4}\)).)*)", re.S)
_TEXT = re.compile(r"[!-\"%-?A-Z_a-z]+")  # GS1 AI encodable character set 82
# Digits of an identifier by its first two (7.8.2); everything else is not a GS1 identifier.
_AI_DIGITS = {
    **{f"{i:02d}": 2 for i in (*range(5), *range(10, 23), 30, 37, *range(90, 100))},
    **dict.fromkeys(("23", "24", "25", "40", "41", "42", "71"), 3),
    **dict.fromkeys(("31", "32", "33", "34", "35", "36", "39", "43", "70", "72", "80", "81", "82"), 4),
}
# Length of value after identifiers that no separator has to end (7.8.4, predefined lengths).
_FIXED = {"00": 18, "01": 14, "02": 14, "03": 14, "04": 16, "20": 2, "41": 13} | {
    **dict.fromkeys((f"{i}" for i in range(11, 20)), 6),
    **dict.fromkeys((f"{i}" for i in range(31, 37)), 6),
}
_GRAMS = {"310": Decimal(1000), "320": Decimal("453.59237")}  # net weight in kilograms, in pounds


@dataclass(frozen=True, slots=True)
class Amount:
    """A price as a code states it.

    Attributes:
        digits: the amount without its decimal point.
        places: decimal places among them; None: the amount is in minor units already.
        currency: ISO 4217 number of the currency; None: the store's.
    """

    digits: int
    places: int | None = None
    currency: str | None = None

    def minor(self, currency: str) -> int:
        """Minor units of the store's currency. Raises ValueError: another currency, or a fraction of a minor unit."""
        numeric = iso4217.NUMERIC[currency]
        if self.currency not in (None, numeric):
            raise ValueError(f"want a price in {currency} ({numeric}), got currency {self.currency}")
        if self.places is None:
            return self.digits
        scale = Decimal(self.digits).scaleb(iso4217.decimal_places(currency) - self.places)
        whole, rest = divmod(scale, 1)
        if rest:
            raise ValueError(f"want whole minor units of {currency}, got {self.digits} with {self.places} places")
        return int(whole)


@dataclass(frozen=True, slots=True)
class TradeItem:
    """What a code states about a piece.

    Attributes:
        gtin: digits as in the code; 14 of them, but for a plain EAN or UPC.
        batch, serial, variant: AIs 10, 21, 22.
        best_before, use_by: AIs 15 and 17 as YYMMDD; day 00 is the last of the month.
        weight_g: net weight, exact.
        price: what this piece costs.
    """

    gtin: str
    batch: str | None = None
    serial: str | None = None
    variant: str | None = None
    best_before: str | None = None
    use_by: str | None = None
    weight_g: Decimal | None = None
    price: Amount | None = None


def read_code(text: str) -> TradeItem:
    """What a code states: a plain GTIN, an element string (with FNC1 or brackets), or an uncompressed Digital Link.

    Raises:
        ValueError: `want ..., got ...`: not such a code, or one that names no trade item.
    """
    text = text.strip()
    if not 8 <= len(text) <= CODE_MAX:
        raise ValueError(f"want a code of 8 to {CODE_MAX} characters, got {len(text)}")
    if re.match(r"https?://", text, re.I):
        return _trade_item(_link_elements(text))
    symbology = _SYMBOLOGY.match(text)
    text = text[3:] if symbology else text
    if text.isascii() and text.isdecimal() and len(text) <= 14:
        fault = gtin_fault(text)
        if fault:
            raise ValueError(fault)
        return TradeItem(text)
    if text.startswith("("):
        return _trade_item(_bracketed_elements(text))
    return _trade_item(_elements(text.lstrip(SEPARATOR)))


def _elements(text: str) -> dict[str, str]:
    """Element strings one after another; those of variable length end at FNC1."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        length = _AI_DIGITS.get(text[at : at + 2], 0)
        ai = text[at : at + length]
        if not length or len(ai) < length or not (ai.isascii() and ai.isdecimal()):
            raise ValueError(f"want a GS1 application identifier at character {at + 1}, got {text[at : at + 4]!r}")
        at += length
        fixed = _FIXED.get(ai[:2])
        end = text.find(SEPARATOR, at)
        end = len(text) if end < 0 else end
        if fixed is not None:
            end = min(end, at + fixed)
        _add(found, ai, text[at:end])
        at = end + (text[end : end + 1] == SEPARATOR)
    return found


def _bracketed_elements(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    for match in _BRACKETED.finditer(text):
        if match.start() != at or _AI_DIGITS.get(match[1][:2]) != len(match[1]):
            break
        _add(found, match[1], match[2])
        at = match.end()
    if at < len(text):
        raise ValueError(f"want (identifier)value at character {at + 1}, got {text[at : at + 6]!r}")
    return found


def _link_elements(text: str) -> dict[str, str]:
    """The elements of a Digital Link: .../01/GTIN, then qualifiers in the path, attributes in the query."""
    try:
        link = urlsplit(text)
    except ValueError:
        raise ValueError(f"want a GS1 Digital Link, got {text[:60]!r}") from None
    parts = [unquote(part) for part in link.path.split("/")]
    starts = [i for i, part in enumerate(parts) if part == "01" and i + 1 < len(parts)]
    if not starts:
        raise ValueError(f"want a GS1 Digital Link with /01/ and a GTIN, got {text[:60]!r}")
    rest = parts[starts[-1] :]
    rest = rest[:-1] if rest[-1] == "" else rest
    if len(rest) % 2:
        raise ValueError(f"want identifier and value in turn in the link's path, got {'/'.join(rest)[:60]!r}")
    found: dict[str, str] = {}
    for ai, value in zip(rest[::2], rest[1::2]):
        if ai not in ("01", "22", "10", "21"):
            raise ValueError(f"want identifiers 22, 10 and 21 after the GTIN in the link's path, got {ai[:10]!r}")
        _add(found, ai, value.zfill(14) if ai == "01" else value)
    for key, value in parse_qsl(link.query):
        # Other keys are the web site's own.
        if key.isascii() and key.isdecimal() and _AI_DIGITS.get(key[:2]) == len(key):
            _add(found, key, value)
    return found


def _add(found: dict[str, str], ai: str, value: str) -> None:
    fixed = _FIXED.get(ai[:2])
    if fixed is not None and not (value.isascii() and value.isdecimal() and len(value) == fixed):
        raise ValueError(f"want {fixed} digits after ({ai}), got {value[:30]!r}")
    if not _TEXT.fullmatch(value) or len(value) > 90:
        raise ValueError(f"want 1 to 90 characters that GS1 allows after ({ai}), got {value[:30]!r}")
    if found.setdefault(ai, value) != value:
        raise ValueError(f"want ({ai}) once, got {found[ai][:30]!r} and {value[:30]!r}")


def _trade_item(elements: Mapping[str, str]) -> TradeItem:
    if "01" not in elements:
        raise ValueError(f"want a trade item, (01), got {', '.join(f'({ai})' for ai in elements) or 'nothing'}")
    fault = gtin_fault(elements["01"])
    if fault:
        raise ValueError(fault)
    for ai in ("10", "21", "22"):
        if len(elements.get(ai, "")) > 20:
            raise ValueError(f"want at most 20 characters after ({ai}), got {len(elements[ai])}")
    for ai in ("15", "17"):
        if ai in elements and not re.fullmatch(r"\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])", elements[ai]):
            raise ValueError(f"want a date YYMMDD after ({ai}), got {elements[ai]!r}")
    return TradeItem(
        elements["01"], elements.get("10"), elements.get("21"), elements.get("22"), elements.get("15"),
        elements.get("17"), _weight_g(elements), _price(elements),
    )  # fmt: skip


def _weight_g(elements: Mapping[str, str]) -> Decimal | None:
    weights = {
        Decimal(value).scaleb(-int(ai[3])) * _GRAMS[ai[:3]]
        for ai, value in elements.items()
        if ai[:3] in _GRAMS and len(ai) == 4
    }
    if len(weights) > 1 and max(weights) - min(weights) > 1:
        raise ValueError(f"want one net weight, got {' g and '.join(map(str, sorted(weights)))} g")
    return next(iter(weights), None)


def _price(elements: Mapping[str, str]) -> Amount | None:
    """(392n) amount payable in the store's currency; (393n) with its currency in front."""
    found: list[Amount] = []
    for ai, value in elements.items():
        with_currency = ai[:3] == "393"
        if ai[:3] not in ("392", "393"):
            continue
        if not re.fullmatch(r"\d{4,18}" if with_currency else r"\d{1,15}", value):
            raise ValueError(f"want an amount in digits after ({ai}), got {value[:30]!r}")
        currency, digits = (value[:3], value[3:]) if with_currency else (None, value)
        found.append(Amount(int(digits), int(ai[3]), currency))
    if len(found) > 1:
        raise ValueError("want one price in a code, got several")
    return found[0] if found else None


# ---- codes of the store's own ----------------------------------------------------------------------------------------


def _pattern(value: str) -> str:
    if not re.fullmatch(r"(02|2\d?)I{3,6}X?(W{4,6}|P{4,6})C", value) or len(value) != 13:
        raise ValueError(
            "want 13 places such as 28IIIIIWWWWWC: digits that begin with 2 or 02, I for the item, X for a digit of no"
            f" meaning here, W for grams or P for minor units, C for the check digit; got {value!r}"
        )
    return value


InStorePattern = Annotated[str, AfterValidator(_pattern)]


class Codes:
    """Reads codes as one store means them: GS1 codes, and EAN-13 with the weight or price of a piece inside."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        """Note the store's patterns, such as 28IIIIIWWWWWC."""
        self._patterns = [(pattern, re.compile(_expression(pattern))) for pattern in patterns]

    def read(self, text: str) -> TradeItem:
        """What a code states. The item of a code of the store's own is its number with zeros for weight or price.

        Raises:
            ValueError: as `read_code`.
        """
        item = read_code(text)
        if item.weight_g is not None or item.price is not None:
            return item
        for pattern, expression in self._patterns:
            match = expression.fullmatch(gtin_14(item.gtin))
            if match:
                value = int(match["value"])
                body = match["item"] + "0" * (12 - len(match["item"]))
                gtin = body + check_digit(body)
                if "W" in pattern:
                    return TradeItem(gtin, weight_g=Decimal(value))
                return TradeItem(gtin, price=Amount(value))
        return item


def _expression(pattern: str) -> str:
    digits = pattern.index("I")
    n_item, n_value = pattern.count("I"), pattern.count("W") + pattern.count("P")
    return rf"0(?P<item>{pattern[:digits]}\d{{{n_item}}})\d{{{pattern.count('X')}}}(?P<value>\d{{{n_value}}})\d"
