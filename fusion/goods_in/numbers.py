"""Numbers as spreadsheets write them: decimal commas or points, thousands in groups of three."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from fusion.errors import ConfigError

_GROUPS = " '’\u00a0\u202f"
_CONVENTIONS = {
    "point": (re.compile(rf"[+-]?(\d+|\d{{1,3}}([,{_GROUPS}]\d{{3}})+)(\.\d+)?|[+-]?\.\d+"), ".", f",{_GROUPS}"),
    "comma": (re.compile(rf"[+-]?(\d+|\d{{1,3}}([.{_GROUPS}]\d{{3}})+)(,\d+)?|[+-]?,\d+"), ",", f".{_GROUPS}"),
}
# Longer numbers are no amounts of anything here.
_LENGTH_MAX = 30


class NumberCell(NamedTuple):
    """A number of a spreadsheet: its row, its heading, and its text without unit; a workbook has numbers as such."""

    line: int
    heading: str
    value: Any


def number(value: Any, decimal: str) -> Decimal | None:
    """The number that a cell holds by a convention, point or comma; None where it holds none."""
    if isinstance(value, int | float):
        # repr is the shortest text that is this float: 2.99 and not 2.9900000000000002.
        exact = Decimal(repr(value))
        return exact if exact.is_finite() else None
    pattern, mark, groups = _CONVENTIONS[decimal]
    text = value.replace("\u2212", "-")
    if len(text) > _LENGTH_MAX or not pattern.fullmatch(text):
        return None
    return Decimal(text.translate(str.maketrans("", "", groups)).replace(mark, "."))


def decimal_mark(name: str, cells: Sequence[NumberCell], chosen: str | None) -> str:
    """Which convention a file's numbers follow: point or comma.

    Raises:
        ConfigError: a cell that is no number; numbers of both conventions; or both are possible and differ.
    """
    readings = {mark: [number(cell.value, mark) for cell in cells] for mark in _CONVENTIONS}
    faults = [
        f"{name}:{cell.line}: {cell.heading}: want a number, got {cell.value!r}"
        for cell, values in zip(cells, zip(*readings.values()))
        if all(value is None for value in values)
    ]
    if faults:
        raise ConfigError(faults[:20])
    possible = [mark for mark, values in readings.items() if None not in values and chosen in (None, mark)]
    if not possible:
        wrong = {mark: cells[values.index(None)] for mark, values in readings.items() if None in values}
        if chosen is not None:
            cell = wrong[chosen]
            raise ConfigError(f"{name}:{cell.line}: {cell.heading}: want a decimal {chosen}, got {cell.value!r}")
        one, other = wrong["comma"], wrong["point"]
        raise ConfigError(
            f"{name}: want decimal points or decimal commas, got both: {one.value!r} in row {one.line} ({one.heading}),"
            f" {other.value!r} in row {other.line} ({other.heading})"
        )
    differ = [cell for cell, values in zip(cells, zip(*readings.values())) if values[0] != values[1]]
    if len(possible) > 1 and differ:
        cell = differ[0]
        raise ConfigError(
            f"{name}:{cell.line}: {cell.heading}: {cell.value!r} is {number(cell.value, 'point'):f} or"
            f" {number(cell.value, 'comma'):f}; pass --decimal point or --decimal comma"
        )
    return possible[0]
