"""Tables of a store folder: CSV files in UTF-8, a row a model. Every fault names file, row and key.

One fault is reported once: a file or a key that cannot be read makes no faults where other files refer to it.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import ValidationError

from fusion.store.values import StrictModel, validation_faults

RowModel = TypeVar("RowModel", bound=StrictModel)
_IMPORT = "`fusion import` reads such files"
# A long number as a spreadsheet shows it; the digits that it left out are lost.
SCIENTIFIC = re.compile(r"\d([.,]\d+)?[Ee]\+?\d+")


class Row(NamedTuple, Generic[RowModel]):
    """A row of a table and its line in the file; the header is line 1."""

    line: int
    value: RowModel


@dataclass
class Table(Generic[RowModel]):
    """What is known of a table.

    Attributes:
        rows: the valid rows.
        keys: what stands in the first column, also of rows that are not valid.
        keys_known: whether `keys` is all of them; otherwise a name that is missing from it may well be in the file.
    """

    rows: list[Row[RowModel]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    keys_known: bool = False


def decoded(data: bytes, name: str, faults: list[str], advice: str = "") -> str | None:
    """The text of a file in UTF-8; None, with its fault kept, where it has another encoding."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        faults.append(f"{name}: want UTF-8, got UTF-16{advice}")
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The decoder has skipped a byte-order mark, and counts without it.
        start = error.start + (len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0)
        row, byte = data.count(b"\n", 0, start) + 1, data[start : start + 1]
        letter = byte.decode("cp1252", "replace")
        looks = f", {letter!r} in Windows-1252" if letter.isalpha() else ""
        faults.append(f"{name}:{row}: want UTF-8, got byte {byte[0]:#04x} at offset {start}{looks}{advice}")
        return None


def read_table(
    data: bytes, name: str, model: type[RowModel], subject: Callable[[dict[str, str]], str], faults: list[str]
) -> Table[RowModel]:
    """The rows of a CSV file.

    Args:
        data: the file.
        name: its name, for faults.
        model: what a row is; its fields are the columns, in any order.
        subject: names a row in its faults by what stands in it.
        faults: what is wrong is added here.
    """
    text = decoded(data, name, faults, f"; {_IMPORT}")
    if text is None:
        return Table()
    # Not splitlines: it would also split at a line separator inside a name.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns = list(model.model_fields)
    rows: list[tuple[int, list[str]]] = []
    try:
        header = next(reader, None)
        fault = _header_fault(header, columns)
        if header is None or fault:
            faults.append(f"{name}{fault}")
            return Table()
        rows += [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        faults.append(f"{name}:{reader.line_num}: want CSV, got: {error}")
        return Table()
    table: Table[RowModel] = Table(keys_known=True)
    shortened: list[tuple[int, str]] = []
    for line, cells in rows:
        if len(cells) != len(header):
            faults.append(f"{name}:{line}: want {len(header)} cells, got {len(cells)}")
            table.keys_known = False
            continue
        raw = dict(zip(header, cells))
        table.keys.append(raw[columns[0]])
        if SCIENTIFIC.fullmatch(raw.get("gtin", "")):
            shortened.append((line, raw["gtin"]))
            continue
        try:
            table.rows.append(Row(line, model.model_validate(raw)))
        except ValidationError as error:
            faults += validation_faults(error, f"{name}:{line}: {subject(raw)}")
            table.keys_known &= all(fault["loc"][:1] != (columns[0],) for fault in error.errors())
    if shortened:
        faults.append(_shortened_fault(name, shortened))
        table.keys_known = False
    return table


def _shortened_fault(name: str, shortened: Sequence[tuple[int, str]]) -> str:
    (first, text), (last, _) = shortened[0], shortened[-1]
    rows = f"row {first}" if first == last else f"{len(shortened)} rows, {first} to {last}"
    return (
        f"{name}:{first}: gtin: want a GTIN of 8, 12, 13 or 14 digits, got {text!r} ({rows}): a spreadsheet has"
        " shortened the numbers, and their digits are lost; export the column as text and run `fusion import`"
    )


def _header_fault(header: Sequence[str] | None, wanted: Sequence[str]) -> str:
    """What is wrong with a table's header, after the file's name; empty where it is right."""
    if header is None:
        return f": want a header {','.join(wanted)}, got an empty file"
    if sorted(header) == sorted(wanted):
        return ""
    for separator, plural in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(header) == 1 and len(set(header[0].split(separator)) & set(wanted)) > 1:
            return f":1: want columns separated by commas, got {plural} ({separator!r}); {_IMPORT}"
    faults = [f"missing column {column!r}" for column in wanted if column not in header]
    faults += [f"unknown column {column!r}" for column in header if column not in wanted]
    return f":1: {', '.join(faults or ['a column twice'])}; want {','.join(wanted)}"


def write_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as text, as `read_table` reads it."""
    lines = [",".join(columns), *(",".join(map(_cell, row)) for row in rows)]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    text = repr(value) if isinstance(value, float) else str(value)
    # csv.writer leaves a lone carriage return without quotes before Python 3.13, and no reader takes that.
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text
