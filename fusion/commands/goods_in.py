"""`fusion import` and `fusion worksheet`: goods and plates of a store out of spreadsheets and a phone."""

from __future__ import annotations

import argparse
from decimal import Decimal, InvalidOperation
from pathlib import Path

from fusion.commands.parser import Command, add_path


def _declare_import(parser: argparse.ArgumentParser) -> None:
    from fusion.goods_in.headings import UNITS
    from fusion.goods_in.spreadsheets import SEPARATORS

    add_path(parser, "file", type=Path, help="CSV or XLSX: a catalogue, a planogram, plates, or a filled worksheet")
    add_path(parser, "store", type=Path, help="store folder whose tables are written")
    parser.add_argument("--dry-run", action="store_true", help="show everything and write nothing")
    parser.add_argument("--replace", action="store_true", help="overwrite tables that are there already")
    parser.add_argument(
        "--column", action="append", default=[], metavar="FIELD=HEADING",
        help="which heading a column of the store's tables has in the file; may be repeated; FIELD= leaves it out",
    )  # fmt: skip
    parser.add_argument("--decimal", choices=("point", "comma"), help="whether 1.234 is 1.234 or 1234")
    parser.add_argument("--price", choices=tuple(UNITS["price"]), help="whether 299 is 299.00 (major) or 2.99 (minor)")
    for kind in ("weight", "length", "angle"):
        parser.add_argument(f"--{kind}-unit", choices=tuple(UNITS[kind]), help=f"of {kind}s without a unit")
    parser.add_argument("--weight-spread", metavar="PERCENT", help="standard deviation of a piece's weight")
    parser.add_argument("--vat", metavar="PERCENT", help="VAT rate of all goods")
    parser.add_argument("--encoding", help="of a CSV file, such as cp1252")
    parser.add_argument("--separator", choices=tuple(SEPARATORS), help="of a CSV file's columns")
    parser.add_argument("--sheet", help="of a workbook with several")


def _import(arguments: argparse.Namespace) -> int:
    from fusion.goods_in.conversion import Choices
    from fusion.goods_in.importing import Import, columns_chosen

    units = {kind: getattr(arguments, f"{kind}_unit") for kind in ("weight", "length", "angle")}
    units["price"] = arguments.price
    choices = Choices(
        columns_chosen(arguments.column),
        arguments.decimal,
        {kind: unit for kind, unit in units.items() if unit},
        _percent("--weight-spread", arguments.weight_spread),
        _percent("--vat", arguments.vat),
    )
    read = Import.read(
        arguments.file, arguments.store, choices, encoding=arguments.encoding, separator=arguments.separator,
        sheet=arguments.sheet,
    )  # fmt: skip
    print(read.text() or f"{arguments.file.name}: nothing had to be changed")
    if arguments.dry_run:
        print(f"would be written: {', '.join(f'{table}.csv' for table in read.made.tables)}")
        return 0
    for line in read.write(replace=arguments.replace):
        print(f"written: {line}")
    return 0


def _percent(option: str, text: str | None) -> Decimal | None:
    from fusion.errors import ConfigError

    if text is None:
        return None
    try:
        value = Decimal(text.removesuffix("%"))
    except InvalidOperation:
        value = Decimal(-1)
    if not value.is_finite() or not 0 <= value <= 100:
        raise ConfigError(f"{option} {text}: want a percentage from 0 to 100 such as 19")
    return value


IMPORT = Command(
    "import",
    "Make goods, planogram and plates of a store out of a spreadsheet; shows every change, and guesses nothing.",
    ("catalogue.csv STORE --dry-run", "assortment.xlsx STORE --price major --replace"),
    {0: "the tables were written, or would be", 2: "a fault, or something that has to be decided; nothing was written"},
    _declare_import,
    _import,
)


def _declare_worksheet(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "store", help="store folder, or name of an example store")
    add_path(parser, "--out", type=Path, default=Path("worksheet.html"), help="page to write (worksheet.html)")


def _worksheet(arguments: argparse.Namespace) -> int:
    from fusion.example_stores.catalogue import store_folder
    from fusion.files.atomic import replace_file
    from fusion.show.worksheet import worksheet
    from fusion.store.models import Store

    store = Store.load(store_folder(arguments.store))
    replace_file(arguments.out, worksheet(store))
    print(f"{arguments.out}: {len(store.plates)} plates, {len(store.products)} products; open it on a phone")
    print(f"then: fusion import {store.id}-plates.csv {arguments.store} --replace")
    return 0


WORKSHEET = Command(
    "worksheet",
    "Write one page for a phone: place, weigh and name each plate; its file goes back in by `fusion import`.",
    ("STORE", "STORE --out shelf-a.html"),
    {0: "the page was written"},
    _declare_worksheet,
    _worksheet,
)
