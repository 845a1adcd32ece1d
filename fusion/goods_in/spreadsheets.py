"""Spreadsheets as people export them, as rows of cells: CSV in any usual encoding and separator, or XLSX.

Nothing is guessed: where two encodings or two separators are possible, reading stops and names the option that decides.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import unicodedata
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusion.errors import ConfigError
from fusion.files.private import read_regular

# A supermarket lists some 50 000 articles in 10 MB.
BYTES_MAX, ROWS_MAX, COLUMNS_MAX = 64 << 20, 200_000, 200
# Of a sheet of Excel. What states more of them was not written by a spreadsheet, and could state any number.
SHEET_ROWS_MAX = 1 << 20
SEPARATORS = {"semicolon": ";", "comma": ",", "tab": "\t", "bar": "|"}
# In which programs export that do not write UTF-8: Windows, the till software of DOS times, the Mac of before 2001.
ENCODINGS = {"cp1252": "Windows-1252", "cp850": "DOS 850", "mac_roman": "Mac Roman"}
_LETTERS = ("Ll", "Lu")
_SIGNS = "\u00a0€£§°½¼¾²³µ®™©–—’‘“”„‚…·«»×%"


@dataclass(frozen=True)
class Spreadsheet:
    """Rows of cells.

    Attributes:
        header: the first row that is not empty.
        rows: line in the file and cells of each other row that is not empty; as long as the header. Cells are text,
            stripped; in XLSX also int, float or bool.
        notes: what had to be found out, as (what, value): encoding, separator, sheet.
    """

    header: list[str]
    rows: list[tuple[int, list[Any]]]
    notes: list[tuple[str, str]]


def read_spreadsheet(
    path: Path, *, encoding: str | None = None, separator: str | None = None, sheet: str | None = None
) -> Spreadsheet:
    """Read a CSV or XLSX file.

    Args:
        path: the file.
        encoding: of a CSV file, where the file leaves it open.
        separator: one of SEPARATORS by name.
        sheet: of a workbook with several.

    Raises:
        ConfigError: it cannot be read, or in two ways; the message names the option.
    """
    data = read_regular(path, BYTES_MAX, "a spreadsheet")
    if not data.strip():
        raise ConfigError(f"{path.name}: want a row of headings and rows below it, got an empty file")
    if data.startswith(b"PK\x03\x04"):
        return _filled(path.name, *_workbook_rows(path.name, data, sheet))
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        raise ConfigError(f"{path.name}: want XLSX or CSV, got a workbook of before 2007; save it as .xlsx")
    text, named = _text(path.name, data, encoding)
    if "\0" in text:
        raise ConfigError(f"{path.name}: want XLSX or CSV, got binary data")
    notes = [] if named == "UTF-8" else [("encoding", named)]
    rows, mark = _separated_rows(path.name, text, separator)
    notes += [] if mark == "comma" else [("separator", mark)]
    return _filled(path.name, rows, notes)


def _filled(name: str, rows: Sequence[tuple[int, list[Any]]], notes: list[tuple[str, str]]) -> Spreadsheet:
    """Rows that hold something, as long as the header."""
    kept = [(line, cells) for line, cells in rows if any(cell != "" for cell in cells)]
    if len(kept) < 2:
        raise ConfigError(f"{name}: want a row of headings and rows below it, got {len(kept)} rows")
    header = [str(cell) for cell in kept[0][1]]
    while header and not header[-1]:
        header.pop()
    if len(header) > COLUMNS_MAX or len(kept) > ROWS_MAX:
        raise ConfigError(
            f"{name}: want at most {ROWS_MAX} rows of {COLUMNS_MAX} columns, got {len(kept)} of {len(header)}"
        )
    longer = [(line, cells) for line, cells in kept[1:] if any(cell != "" for cell in cells[len(header) :])]
    if longer:
        line, cells = longer[0]
        more = f" ({len(longer)} rows are longer than the headings)" if len(longer) > 1 else ""
        raise ConfigError(f"{name}:{line}: want {len(header)} cells as in the headings, got {len(cells)}{more}")
    body = [(line, [*cells[: len(header)], *[""] * (len(header) - len(cells))]) for line, cells in kept[1:]]
    return Spreadsheet(header, body, notes)


# ---- text ------------------------------------------------------------------------------------------------------------


def _text(name: str, data: bytes, encoding: str | None) -> tuple[str, str]:
    """The text of a CSV file, and the encoding's name."""
    if encoding is not None:
        try:
            codecs.lookup(encoding)
            return data.decode(encoding).removeprefix("\ufeff"), encoding
        except LookupError:
            raise ConfigError(f"--encoding {encoding}: want an encoding such as {', '.join(ENCODINGS)}") from None
        except UnicodeDecodeError as error:
            row = data.count(b"\n", 0, error.start) + 1
            raise ConfigError(f"{name}:{row}: want {encoding}, got byte {data[error.start]:#04x}") from None
    wide = _utf_16(data)
    if wide:
        try:
            return data.decode(wide).removeprefix("\ufeff"), "UTF-16"
        except UnicodeDecodeError:
            raise ConfigError(f"{name}: want UTF-16 as its first bytes say, got a torn file") from None
    try:
        return data.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError as error:
        return _old_encoding(name, data, error.start)


def _utf_16(data: bytes) -> str:
    """UTF-16, with a byte-order mark or by the zero bytes of its Latin letters; "" where it is not."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    head = data[:2000]
    for encoding, zeros, letters in (("utf-16-le", head[1::2], head[::2]), ("utf-16-be", head[::2], head[1::2])):
        if len(head) >= 8 and zeros.count(0) > 0.8 * len(zeros) and letters.count(0) == 0:
            return encoding
    return ""


def _old_encoding(name: str, data: bytes, first: int) -> tuple[str, str]:
    """Which encoding of one byte a letter makes words of all letters; refuses where several do, differently."""
    readings = {}
    for encoding in ENCODINGS:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if _reads_well(text):
            readings[encoding] = text
    row = data.count(b"\n", 0, first) + 1
    if len(set(readings.values())) == 1:
        found, text = next(iter(readings.items()))
        return text, ENCODINGS[found]
    line = data.split(b"\n")[row - 1][:60]
    shown = [f"{encoding} ({line.decode(encoding, 'replace').strip()!r})" for encoding in readings or ENCODINGS]
    raise ConfigError(
        f"{name}:{row}: want an encoding that is certain, got byte {data[first]:#04x}; pass --encoding"
        f" {' or '.join(shown)}"
    )


def _reads_well(text: str) -> bool:
    """Whether all that is not ASCII is a letter or sign as texts about goods have them, capitals only in front."""
    if any(c > "\x7f" and c not in _SIGNS and (unicodedata.category(c) not in _LETTERS or c in "ƒªº") for c in text):
        return False
    words = {word for word in re.findall(r"[^\W\d_]+", text) if not word.isascii() and not word.isupper()}
    return not any(c > "\x7f" and c.isupper() for word in words for c in word[1:])


def _separated_rows(name: str, text: str, separator: str | None) -> tuple[list[tuple[int, list[Any]]], str]:
    """Rows of cells, and the separator's name."""
    first, _, rest = text.partition("\n")
    hint = 0
    if first.strip().lower().startswith("sep=") and len(first.strip()) == 5:
        # A line that Excel reads and never shows.
        named = {mark: key for key, mark in SEPARATORS.items()}.get(first.strip()[4])
        text, separator, hint = rest, separator or named, 1
    if separator is not None:
        return _parsed(name, text, separator, hint), separator
    fitting = {}
    for key in SEPARATORS:
        try:
            rows = _parsed(name, text, key, hint)
        except ConfigError:
            continue
        filled = [len(_trimmed(cells)) for _, cells in rows if any(cells)]
        if filled and filled[0] > 1 and max(filled) <= filled[0]:
            fitting[key] = rows
    # A comma inside names or numbers separates no columns if it is not in the headings.
    if len(fitting) == 1:
        return next(iter(fitting.values())), next(iter(fitting))
    if not fitting:
        head = text.split("\n", 1)[0][:80]
        raise ConfigError(
            f"{name}:1: want headings and rows of as many cells, separated by ; , tab or |, got {head!r}; a row with"
            f" more cells than headings, or a quote that is not closed? pass --separator {' or '.join(SEPARATORS)}"
        )
    raise ConfigError(f"{name}: columns may be separated by {' or '.join(fitting)}; pass --separator with one of them")


def _trimmed(cells: Sequence[str]) -> Sequence[str]:
    end = len(cells)
    while end and not cells[end - 1]:
        end -= 1
    return cells[:end]


def _parsed(name: str, text: str, separator: str, lines_before: int) -> list[tuple[int, list[Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=SEPARATORS[separator], strict=True)
    rows: list[tuple[int, list[Any]]] = []
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                rows.append((reader.line_num + lines_before, stripped))
            if len(rows) > ROWS_MAX:
                break
    except csv.Error as error:
        raise ConfigError(f"{name}:{reader.line_num + lines_before}: want CSV, got: {error}") from None
    return rows


# ---- workbooks -------------------------------------------------------------------------------------------------------


def _workbook_rows(
    name: str, data: bytes, sheet: str | None
) -> tuple[list[tuple[int, list[Any]]], list[tuple[str, str]]]:
    try:
        import openpyxl
    except ImportError:
        raise ConfigError(
            f"{name}: reading XLSX needs openpyxl: pip install 'storefusion[spreadsheets]', or save it as CSV"
        ) from None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # What it unpacks to is stated in it; a bomb states it too, or fails when it is read.
            if sum(part.file_size for part in archive.infolist()) > 4 * BYTES_MAX:
                raise ConfigError(f"{name}: want a workbook of at most {4 * BYTES_MAX >> 20} MiB unpacked")
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        filled = {each.title: _sheet_rows(each) for each in book.worksheets if sheet in (None, each.title)}
    except ConfigError:
        raise
    except Exception as error:  # openpyxl raises whatever its XML parser and its many parts do
        raise ConfigError(f"{name}: want a workbook (XLSX), got a damaged file: {type(error).__name__}") from None
    filled = {title: rows for title, rows in filled.items() if any(any(c != "" for c in cells) for _, cells in rows)}
    if len(filled) == 1:
        title, rows = next(iter(filled.items()))
        return rows, [("sheet", title)] if len(book.sheetnames) > 1 else []
    titles = ", ".join(map(repr, book.sheetnames))
    if sheet is not None and sheet not in book.sheetnames:
        raise ConfigError(f"--sheet {sheet!r}: want one of {titles}")
    if not filled:
        raise ConfigError(f"{name}: want a row of headings and rows below it, got an empty workbook")
    raise ConfigError(f"{name}: the sheets {', '.join(map(repr, filled))} all hold rows; pass --sheet with one of them")


def _sheet_rows(sheet: Any) -> list[tuple[int, list[Any]]]:
    rows = []
    # The sheet states its size, and may state a million empty columns.
    for line, cells in enumerate(sheet.iter_rows(values_only=True, max_col=COLUMNS_MAX + 1), 1):
        if line > SHEET_ROWS_MAX:
            raise ValueError(f"want at most {SHEET_ROWS_MAX} rows")
        filled = [_cell(value) for value in cells] if any(value is not None for value in cells) else []
        if any(cell != "" for cell in filled):
            rows.append((line, filled))
        if len(rows) > ROWS_MAX:
            break
    return rows


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value).strip()
