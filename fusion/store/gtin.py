"""GTINs: the numbers of products. A store spells each in its own way; they are compared as numbers of 14 digits.

A GTIN of 8, 12 or 13 digits is the same number with zeros in front (GS1 General Specifications, section 3.3.2): a
reader that decodes an RFID tag reports 14 digits of what products.csv lists with 13.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator

LENGTHS = (8, 12, 13, 14)


def check_digit(body: str) -> str:
    """GS1 check digit of a GTIN's other digits. Source: GS1 General Specifications, section 7.9."""
    weighted = sum(int(digit) * (3 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(body)))
    return str(-weighted % 10)


def gtin_fault(text: str) -> str:
    """What is wrong with a text as a GTIN, as `want ..., got ...`; "" where it is one."""
    if not (text.isascii() and text.isdecimal() and len(text) in LENGTHS):
        return f"want a GTIN of 8, 12, 13 or 14 digits, got {text!r}"
    wanted = check_digit(text[:-1])
    return "" if wanted == text[-1] else f"want check digit {wanted}, got {text!r}"


def gtin_14(text: str) -> str:
    """The number that a GTIN stands for, in 14 digits. Other text is returned unchanged and equals no GTIN."""
    digits = text.isascii() and text.isdecimal() and len(text) in LENGTHS
    return text.zfill(14) if digits else text


class OwnGtins:
    """How a store spells its products' GTINs: `of` gives the store's own spelling of any spelling."""

    def __init__(self, gtins: Iterable[str]) -> None:
        """Note the spellings. Of two spellings of one number the first is the store's."""
        self._own: dict[str, str] = {}
        for gtin in gtins:
            self._own.setdefault(gtin_14(gtin), gtin)

    def of(self, gtin: str) -> str | None:
        """The store's own spelling of a GTIN; None for a product that the store does not have."""
        return self._own.get(gtin_14(gtin))

    def __len__(self) -> int:
        return len(self._own)

    def __contains__(self, gtin: object) -> bool:
        return isinstance(gtin, str) and gtin_14(gtin) in self._own


def _gtin(value: str) -> str:
    fault = gtin_fault(value)
    if fault:
        raise ValueError(fault)
    return value


Gtin = Annotated[str, AfterValidator(_gtin)]
