"""A spreadsheet as the tables of a store folder that it holds, with every change; or every fault, and nothing.

A file may hold several tables at once: rows of a worksheet are plates and what lies on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from pydantic import ValidationError

from fusion.errors import ConfigError
from fusion.goods_in.cells import (
    Parted,
    Read,
    heading_currency_fault,
    in_grams_and_metres,
    minor_units,
    parted,
    plain,
    price_unit,
    read_gtin,
    read_name,
    stated_unit,
)
from fusion.goods_in.headings import KINDS, UNITS, Column, found_columns, is_pieces
from fusion.goods_in.numbers import NumberCell, decimal_mark, number
from fusion.goods_in.spreadsheets import Spreadsheet
from fusion.store import iso4217
from fusion.store.gs1 import Codes
from fusion.store.gtin import gtin_14
from fusion.store.models import Facing, Plate, Product
from fusion.store.values import StrictModel, validation_faults

TABLES: dict[str, type[StrictModel]] = {"products": Product, "plates": Plate, "planogram": Facing}
# Columns by which a table is recognised; the others can be missing, or be given by an option.
_MARKS = {"products": {"gtin", "name", "price"}, "plates": {"plate", "x", "y"}, "planogram": {"plate", "gtin", "stock"}}
_KEYS = {"products": ("gtin",), "plates": ("plate",), "planogram": ("plate", "gtin")}
_OPTIONS = {"weight": "--weight-unit", "length": "--length-unit", "angle": "--angle-unit"}
FAULTS_MAX = 40


@dataclass(frozen=True)
class Choices:
    """What the user decided where a file leaves it open; None: not decided.

    Attributes:
        columns: heading by field.
        decimal: "point" or "comma".
        units: by kind: weight, length, angle, price.
        weight_spread: standard deviation of a piece's weight in percent of it, where no column states it.
        vat: VAT rate of all goods in percent, where no column states it.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    decimal: str | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    weight_spread: Decimal | None = None
    vat: Decimal | None = None


class Change(NamedTuple):
    """A cell that was changed: what about it, its row, and its text before and after."""

    kind: str
    line: int
    before: str
    after: str


@dataclass
class Converted:
    """Tables by name, as rows of text; what was changed; and the headings that mean nothing here."""

    tables: dict[str, list[list[str]]]
    changes: list[Change]
    columns: dict[str, Column]
    left_out: list[str]


def converted(name: str, sheet: Spreadsheet, currency: str, codes: Codes, choices: Choices) -> Converted:
    """The tables that a spreadsheet holds.

    Args:
        name: the file, for messages.
        sheet: its rows.
        currency: the store's.
        codes: reads GS1 codes and the store's own.
        choices: where the file leaves something open.

    Raises:
        ConfigError: every fault of the file, or what has to be decided.
    """
    columns, left_out = found_columns(name, sheet.header, choices.columns)
    tables = [table for table, marks in _MARKS.items() if marks <= columns.keys()]
    if not tables:
        known = ", ".join(f"{column.heading!r} is {f}" for f, column in columns.items()) or "none is known"
        wanted = "; ".join(f"{table}: {', '.join(TABLES[table].model_fields)}" for table in TABLES)
        raise ConfigError(
            f"{name}:1: want headings of a table ({wanted}), got {', '.join(map(repr, sheet.header))} ({known}); pass"
            " --column FIELD=HEADING for those that have other names"
        )
    return _Conversion(name, sheet, currency, codes, choices, columns, tables).run(left_out)


class _Conversion:
    """One file on its way. Faults are collected, so that a person sees them all at once."""

    def __init__(
        self,
        name: str,
        sheet: Spreadsheet,
        currency: str,
        codes: Codes,
        choices: Choices,
        columns: dict[str, Column],
        tables: list[str],
    ) -> None:
        self._name, self._sheet, self._currency, self._codes = name, sheet, currency, codes
        self._choices, self._columns, self._tables = choices, columns, tables
        self._faults: list[str] = []
        self._changes: list[Change] = []

    def run(self, left_out: list[str]) -> Converted:
        """Read column by column, then put the tables together."""
        fields = [f for table in self._tables for f in TABLES[table].model_fields]
        self._require(fields)
        rows: list[dict[str, str]] = [{} for _ in self._sheet.rows]
        for f, read in (("gtin", self._gtin), ("name", read_name), ("plate", _read_plate)):
            if f in fields and f in self._columns:
                self._read(f, read, rows)
        self._read_numbers([f for f in dict.fromkeys(fields) if f in self._columns and f not in _TEXTS], rows)
        self._stop()
        tables = {table: self._table(table, rows) for table in self._tables}
        self._stop()
        return Converted(tables, sorted(self._changes, key=lambda each: each.line), self._columns, left_out)

    def _stop(self) -> None:
        if self._faults:
            more = len(self._faults) - FAULTS_MAX
            raise ConfigError(self._faults[:FAULTS_MAX] + ([f"and {more} more faults"] if more > 0 else []))

    def _require(self, fields: list[str]) -> None:
        """Refuse a file whose columns are not enough, and name what decides."""
        advice = {
            "vat_rate": "pass --vat with the rate of all goods in percent",
            "weight_sd_g": "pass --weight-spread with the spread of a piece's weight in percent (packages: about 1)",
            "weight_g": "the scales need the weight of a piece with its package: add a column",
        }
        given = {"vat_rate": self._choices.vat, "weight_sd_g": self._choices.weight_spread}
        for f in dict.fromkeys(fields):
            if f not in self._columns and given.get(f) is None:
                self._faults.append(
                    f"{self._name}:1: no heading means {f}; {advice.get(f, f'pass --column {f}=HEADING')}"
                )
        self._stop()

    # ---- cells -------------------------------------------------------------------------------------------------------

    def _gtin(self, cell: Any) -> Read:
        return read_gtin(cell, self._codes)

    def _is_empty_place(self, cells: list[Any]) -> bool:
        """Whether a row is a plate on which nothing lies."""
        places = [self._columns[f].at for f in ("gtin", "stock", "name") if f in self._columns]
        return "plates" in self._tables and all(cells[at] == "" for at in places)

    def _read(self, f: str, read: Callable[[Any], Read], rows: list[dict[str, str]]) -> None:
        column = self._columns[f]
        for (line, cells), row in zip(self._sheet.rows, rows):
            if f != "plate" and self._is_empty_place(cells):
                continue
            cell = cells[column.at]
            try:
                value, change = read(cell)
            except ValueError as error:
                self._faults.append(f"{self._name}:{line}: {column.heading}: {error}")
                continue
            row[f] = value
            if change:
                self._changes.append(Change(f"{f}: {change}", line, str(cell), value))

    def _read_numbers(self, fields: list[str], rows: list[dict[str, str]]) -> None:
        """Numbers of all columns together, since a file has one decimal mark."""
        cells: dict[str, list[tuple[int, Parted, Any, dict[str, str]]]] = {f: [] for f in fields}
        numbers = []
        for f in fields:
            column = self._columns[f]
            for (line, row_cells), row in zip(self._sheet.rows, rows):
                if f in _ABOUT_GOODS and self._is_empty_place(row_cells):
                    continue
                cell = parted(row_cells[column.at])
                cells[f].append((line, cell, row_cells[column.at], row))
                numbers.append(NumberCell(line, column.heading, cell.value))
        decimal = decimal_mark(self._name, numbers, self._choices.decimal)
        for f in fields:
            unit = self._column_unit(f, [(line, cell, number(cell.value, decimal)) for line, cell, _, _ in cells[f]])
            fractions = f == "vat_rate" and _are_fractions(
                [Decimal(1) if c.unit == "%" else number(c.value, decimal) for _, c, _, _ in cells[f]]
            )
            for line, cell, before, row in cells[f]:
                value = number(cell.value, decimal) or Decimal(0)
                try:
                    row[f] = self._number(f, value * 100 if fractions else value, cell, unit)
                except ValueError as error:
                    self._faults.append(f"{self._name}:{line}: {self._columns[f].heading}: {error}")
                    continue
                # 2.0 and 2 are the same, unless the file has decimal commas.
                as_table = decimal == "point" or not isinstance(before, str)
                if str(before) != row[f] and not (as_table and number(before, "point") == Decimal(row[f])):
                    self._changes.append(Change(f"{f}: {self._how(f, unit, fractions)}", line, str(before), row[f]))

    def _how(self, f: str, unit: str, fractions: bool) -> str:
        if f == "price":
            return f"{self._currency} to minor units" if unit == "major" else "minor units"
        if fractions:
            return "fraction to percent"
        target = {"weight": "g", "length": "m", "angle": "rad"}.get(KINDS.get(f, ""), "")
        return f"{unit} to {target}" if unit and unit != target else "written with a decimal point, without unit"

    def _number(self, f: str, value: Decimal, cell: Parted, unit: str) -> str:
        kind = KINDS.get(f, "")
        if f == "price":
            found = price_unit(cell.unit, self._currency) or unit
            return str(minor_units(value, found, self._currency, isinstance(cell.value, float)))
        if f == "stock":
            if not is_pieces(cell.unit):
                raise ValueError(f"want whole pieces, got {cell.unit!r} beside a number")
            if value != value.to_integral_value() or value < 0:
                raise ValueError(f"want whole pieces, got {plain(value)}")
            return plain(value)
        if f == "vat_rate":
            if cell.unit not in ("", "%"):
                raise ValueError(f"want a rate in percent, got {cell.unit!r} beside it")
            return plain(value)
        return plain(in_grams_and_metres(value, stated_unit(cell.unit, kind) or unit, kind))

    def _column_unit(self, f: str, cells: list[tuple[int, Parted, Decimal | None]]) -> str:
        """The unit of the cells that state none; refuses where that is open."""
        kind, column = KINDS.get(f, ""), self._columns[f]
        bare = [(line, cell, value) for line, cell, value in cells if not cell.unit]
        chosen = column.unit or self._choices.units.get(kind, "")
        if kind == "price":
            fault = heading_currency_fault(column.heading, self._currency)
            if fault:
                self._faults.append(f"{self._name}:1: {column.heading}: {fault}")
            chosen = chosen or self._unit_of_prices([(cell.value, value) for _, cell, value in bare])
        if chosen or not kind or not bare or all(not value for _, _, value in bare):
            return chosen or next(iter(UNITS.get(kind, {"": ""})))
        line, cell, _ = bare[0]
        if kind == "price":
            self._faults.append(
                f"{self._name}:{line}: {column.heading}: {cell.value!r} is a price in {self._currency} or in minor"
                " units; pass --price major or --price minor"
            )
        else:
            self._faults.append(
                f"{self._name}:{line}: {column.heading}: {cell.value!r} has no unit; pass {_OPTIONS[kind]} with one of"
                f" {', '.join(UNITS[kind])}"
            )
        return next(iter(UNITS[kind]))

    def _unit_of_prices(self, prices: list[tuple[Any, Decimal | None]]) -> str:
        """The unit that prices show by how they are written; "" where that is open."""
        if any(value is not None and value != value.to_integral_value() for _, value in prices):
            return "major"
        places = {_places(text, value) for text, value in prices} - {0}
        if iso4217.decimal_places(self._currency) in places:
            return "major"  # 3.00: no minor unit is written with places.
        under_own_names = all(self._columns[f].heading == f for f in Product.model_fields if f in self._columns)
        # The headings are those of products.csv, where prices are minor units. But 299.0 is what programs make of 299
        # where another cell of the column is empty, and of 299.00.
        return "minor" if under_own_names and not places else ""

    # ---- tables ------------------------------------------------------------------------------------------------------

    def _table(self, table: str, rows: list[dict[str, str]]) -> list[list[str]]:
        """The rows of one table, each key once."""
        model, fields = TABLES[table], list(TABLES[table].model_fields)
        kept: dict[tuple[str, ...], tuple[int, list[str]]] = {}
        for (line, cells), row in zip(self._sheet.rows, rows):
            if table != "plates" and self._is_empty_place(cells):
                continue
            values = dict(row)
            if table == "products":
                self._complete(values)
            try:
                model.model_validate({f: values[f] for f in fields})
            except ValidationError as error:
                self._faults += validation_faults(error, f"{self._name}:{line}: ")
                continue
            key = tuple(gtin_14(values[f]) if f == "gtin" else values[f] for f in _KEYS[table])
            made = [values[f] for f in fields]
            line_before, earlier = kept.setdefault(key, (line, made))
            if line_before == line:
                continue
            if _spelt_alike(earlier, fields) != _spelt_alike(made, fields):
                self._faults.append(
                    f"{self._name}:{line}: want each {' and '.join(_KEYS[table])} once in {table}, got"
                    f" {' '.join(key)!r} as in row {line_before} with other values"
                )
            elif len(self._tables) == 1:
                self._changes.append(Change("row that is there twice left out", line, " ".join(key), ""))
        return [values for _, values in kept.values()]

    def _complete(self, values: dict[str, str]) -> None:
        if "vat_rate" not in values and self._choices.vat is not None:
            values["vat_rate"] = plain(self._choices.vat)
        if "weight_sd_g" not in values and self._choices.weight_spread is not None:
            spread = Decimal(values["weight_g"]) * self._choices.weight_spread / 100
            values["weight_sd_g"] = plain(round(spread, 2))


_TEXTS = ("gtin", "name", "plate")
_ABOUT_GOODS = ("stock", "price", "vat_rate", "weight_g", "weight_sd_g")


def _spelt_alike(values: list[str], fields: list[str]) -> list[str]:
    """A row with its GTIN in 14 digits: zeros in front make no other product."""
    return [gtin_14(value) if f == "gtin" else value for f, value in zip(fields, values)]


def _places(text: Any, value: Decimal | None) -> int:
    """Decimal places that a cell of text is written with; a workbook's numbers have none of their own."""
    exponent = value.as_tuple().exponent if value is not None and isinstance(text, str) else 0
    return -exponent if isinstance(exponent, int) else 0


def _are_fractions(rates: list[Decimal | None]) -> bool:
    """Whether rates are written as 0.19: no rate of VAT is below one percent, but for 0."""
    above = [rate for rate in rates if rate]
    return bool(above) and all(0 < rate < 1 for rate in above)


def _read_plate(cell: Any) -> Read:
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return read_name(cell)
