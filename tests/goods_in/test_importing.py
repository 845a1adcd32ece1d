"""Spreadsheets as people have them: read exactly, with an account of every change, or refused with what decides."""

from __future__ import annotations

import csv
import errno
import io
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store.shops import bare_shop

from fusion.commands.main import main
from fusion.errors import ConfigError
from fusion.goods_in import spreadsheets
from fusion.goods_in.conversion import Choices
from fusion.goods_in.importing import Import
from fusion.goods_in.spreadsheets import read_spreadsheet
from fusion.store.models import Product, Store

_FIELD = Path(os.environ.get("FUSION_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "field"
GERMAN = (
    "EAN;Artikel;Gewicht (kg);Streuung (g);Preis;MwSt\r\n"
    "4006381333931;Müsli;0,524;4,2;2,99 €;7 %\r\n"
    "96385074;Kölsch 0,5 l;0,92;5;1,19 €;19 %\r\n"
)
WANTED = (
    "gtin,name,weight_g,weight_sd_g,price,vat_rate\n4006381333931,Müsli,524,4.2,299,7\n"
    '96385074,"Kölsch 0,5 l",920,5,119,19\n'
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    bare_shop().save(folder)
    for name in ("products", "planogram", "plates"):
        (folder / f"{name}.csv").unlink()
    return folder


def imported(store: Path, content: str | bytes, *options: str, name: str = "goods.csv") -> int:
    path = store.parent / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return main(["import", str(path), str(store), *options])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "cp850", "mac_roman", "utf-16", "utf-16-le"])
def test_a_german_catalogue_in_any_usual_encoding(store: Path, encoding: str) -> None:
    assert imported(store, GERMAN.replace("€", "EUR").encode(encoding)) == 0
    assert (store / "products.csv").read_text() == WANTED


def test_every_change_is_shown_and_counted(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert imported(store, GERMAN.encode("cp1252"), "--dry-run") == 0
    out = capsys.readouterr().out
    assert not (store / "products.csv").exists() and "would be written: products.csv" in out
    for line in (
        "goods.csv: encoding Windows-1252",
        "goods.csv: separator semicolon",
        "'EAN' is gtin",
        "weight_g: kg to g (2): row 2 '0,524' to '524', row 3 '0,92' to '920'",
        "price: EUR to minor units (2): row 2 '2,99 €' to '299'",
        "vat_rate: written with a decimal point, without unit (2)",
    ):
        assert line in out


def test_nothing_is_overwritten_without_being_asked(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (store / "products.csv").write_text("gtin,name,weight_g,weight_sd_g,price,vat_rate\n")  # nothing to lose
    assert imported(store, GERMAN) == 0 and imported(store, GERMAN) == 0
    assert imported(store, GERMAN.replace("2,99", "3,99")) == 2
    assert "Pass --replace to overwrite" in capsys.readouterr().err and (store / "products.csv").read_text() == WANTED
    assert imported(store, GERMAN.replace("2,99", "3,99"), "--replace") == 0
    assert ",399,7" in (store / "products.csv").read_text()


HEAD = "gtin,name,weight (g),spread (g),price (EUR),vat\n".replace("spread", "weight spread")


@pytest.mark.parametrize(
    ("content", "option"),
    [
        (HEAD.replace(" (EUR)", "") + "96385074,Tea,50,1,299,7\n", "--price major or --price minor"),
        (HEAD.replace("weight (g)", "weight") + "96385074,Tea,50,1,2.99,7\n", "--weight-unit"),
        (HEAD + '96385074,Tea,"1,234",1,2,7\n', "'1,234' is 1234 or 1.234; pass --decimal point or --decimal comma"),
        (HEAD.replace(",vat", "") + "96385074,Tea,50,1,2.99\n", "--vat"),
        (HEAD.replace(",weight spread (g)", "") + "96385074,Tea,50,2.99,7\n", "--weight-spread"),
        (HEAD.replace("name", "what") + "96385074,Tea,50,1,2.99,7\n", "--column FIELD=HEADING"),
        (HEAD.replace("name", "name,article") + "96385074,Tea,Tee,50,1,2.99,7\n", "--column 'name=article'"),
        ((HEAD + "96385074,T\u00e4,50,1,2.99,7\n").encode("cp1252"), "--encoding cp1252 ('96385074,Tä"),
        ("gtin;name,price\n1;2,3\n", "--separator"),
    ],
)
def test_where_two_readings_are_possible_the_option_is_named(
    store: Path, capsys: pytest.CaptureFixture[str], content: str | bytes, option: str
) -> None:
    assert imported(store, content) == 2
    assert option in capsys.readouterr().err and not (store / "products.csv").exists()


@pytest.mark.parametrize(
    ("content", "options", "row"),
    [
        (HEAD.replace(" (EUR)", "") + "96385074,Tea,50,1,299,7\n", ["--price", "minor"], "50,1,299,7"),
        (HEAD.replace(" (EUR)", "") + "96385074,Tea,50,1,299,7\n", ["--price", "major"], "50,1,29900,7"),
        (HEAD.replace("weight (g)", "weight") + "96385074,Tea,50,1,2.99,7\n", ["--weight-unit", "kg"], "50000,1,299"),
        (HEAD + '96385074,Tea,"1,234",1,2,7\n', ["--decimal", "point"], "1234,1,200,7"),
        (HEAD + '96385074,Tea,"1,234",1,2,7\n', ["--decimal", "comma"], "1.234,1,200,7"),
        (HEAD.replace(",vat", "") + "96385074,Tea,50,1,2.99\n", ["--vat", "7%"], "50,1,299,7"),
        (HEAD.replace(",weight spread (g)", "") + "96385074,Tea,50,2.99,7\n", ["--weight-spread", "1.5"], "50,0.75,"),
        (HEAD.replace("name", "what") + "96385074,Tea,50,1,2.99,7\n", ["--column", "name=what"], "50,1,299,7"),
        (HEAD + "96385074,Tea,50,1,2.99,0.07\n", [], "50,1,299,7"),
        (HEAD + "96385074,Tea,1'050.5,1,2.99,0\n", [], "1050.5,1,299,0"),
    ],
)
def test_what_the_user_decides_holds(store: Path, content: str, options: list[str], row: str) -> None:
    assert imported(store, content, *options) == 0
    assert row in (store / "products.csv").read_text()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (HEAD + "4.01E+12,Tea,50,1,2.99,7\n", "goods.csv:2: gtin: want all digits of a GTIN, got '4.01E+12'"),
        (HEAD + "96385075,Tea,50,1,2.99,7\n", "goods.csv:2: gtin: want check digit 4, got '96385075'"),
        (HEAD + "4011,Banana,50,1,2.99,7\n", "want a GTIN of 8, 12, 13 or 14 digits, got '4011'"),
        (HEAD + "123456789,Tea,50,1,2.99,7\n", "got '123456789', with zeros in front '000123456789'"),
        (HEAD + "96385074,Tea,50,1,2.9955,7\n", "want a price in whole minor units of EUR, got 2.9955"),
        (HEAD + "96385074,Tea,50,1,$2.99,7\n", "want a price in EUR, got '$' beside it"),
        (HEAD.replace("EUR", "USD") + "96385074,Tea,50,1,2.99,7\n", "price (USD): want a price in EUR, got 'USD'"),
        (HEAD + '96385074,Tea,"1,5",1,2.99,7\n', "want decimal points or decimal commas, got both: '2.99' in row 2"),
        (HEAD + "96385074,Tea,50 ml,1,2.99,7\n", "want a number in g, kg, mg, lb, oz, got 'ml' beside it"),
        (HEAD + "96385074,Tea,,1,2.99,7\n", "goods.csv:2: weight (g): want a number, got ''"),
        (HEAD + "96385074,\u202e,50,1,2.99,7\n", "goods.csv:2: name: want a name"),
        (HEAD + "96385074,Tea,50,1,2.99,7\n00000096385074,Te,50,1,2.99,7\n", "got '00000096385074' as in row 2"),
        (HEAD + "96385074,Tea,0.05,1,2.99,7\n", "goods.csv:2: weight_g: want grams, at least 1 (kilograms?)"),
        ("gtin,name,price/kg,weight\n96385074,Tea,1,1\n", "want headings of a table"),
        ("", "goods.csv: want a row of headings and rows below it, got an empty file"),
        (HEAD + "96385074,Tea\n1,2,3,4,5,6,7\n1,2,3,4,5,6,7\n", "goods.csv:1: want headings and rows of as many cells"),
        (b"\xd0\xcf\x11\xe0 old", "save it as .xlsx"),
        (b"PK\x03\x04 torn", "got a damaged file"),
        (b"a,b\0c\n", "got binary data"),
    ],
)
def test_what_is_wrong_is_refused_with_row_and_column(
    store: Path, capsys: pytest.CaptureFixture[str], content: str | bytes, fault: str
) -> None:
    assert imported(store, content) == 2
    assert fault in capsys.readouterr().err and not (store / "products.csv").exists()


CONTRACT = "gtin,name,weight_g,weight_sd_g,price,vat_rate\n"


@pytest.mark.parametrize(
    ("prices", "options", "wanted"),
    [
        (("300", "500"), [], ("300", "500")),
        (("3.00", "5.00"), [], ("300", "500")),
        (("3.00", "5"), [], ("300", "500")),
        (("299.0", "500.0"), [], None),
        (("299.0", "500.0"), ["--price", "minor"], ("299", "500")),
        (("3.0", "5.0"), ["--price", "major"], ("300", "500")),
    ],
)
def test_prices_with_decimal_places_are_no_minor_units_under_the_contracts_own_headings(
    store: Path, capsys: pytest.CaptureFixture[str], prices: tuple[str, str], options: list[str],
    wanted: tuple[str, str] | None,
) -> None:  # fmt: skip
    rows = f"4006381333931,Pen,10,1,{prices[0]},19\n96385074,Tea,50,1,{prices[1]},7\n"
    if wanted is None:
        assert imported(store, CONTRACT + rows, *options) == 2
        assert "--price major or --price minor" in capsys.readouterr().err and not (store / "products.csv").exists()
    else:
        assert imported(store, CONTRACT + rows, *options) == 0
        assert [str(product.price) for product in _products(store)] == list(wanted)


def _products(store: Path) -> list[Product]:
    with open(store / "products.csv", newline="", encoding="utf-8") as file:
        return [Product.model_validate(row) for row in csv.DictReader(file)]


def test_a_product_whose_gtin_is_there_twice_with_other_zeros_is_one(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "4006381333931,Pen,10,1,300,19\n04006381333931,Pen,10,1,300,19\n"
    assert imported(store, CONTRACT + rows) == 0
    assert [product.gtin for product in _products(store)] == ["4006381333931"]
    assert "row that is there twice left out (1): row 3" in capsys.readouterr().out


def test_a_stock_is_of_pieces_alone(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert imported(store, "plate,gtin,stock\na1,96385074,3 pcs\na2,96385074,12 Stück\n") == 0
    assert (store / "planogram.csv").read_text() == "plate,gtin,stock\na1,96385074,3\na2,96385074,12\n"
    for unit in ("kg", "cartons", "%", "€"):
        assert imported(store, f"plate,gtin,stock\na1,96385074,3 {unit}\n", "--replace") == 2
        assert f"stock: want whole pieces, got {unit!r} beside a number" in capsys.readouterr().err


@pytest.mark.parametrize("percent", ["nan", "-1", "101", "inf", "x", "1e999999999999999999999"])
def test_percentages_are_from_0_to_100(store: Path, capsys: pytest.CaptureFixture[str], percent: str) -> None:
    for option in ("--vat", "--weight-spread"):
        assert imported(store, HEAD + "96385074,Tea,50,1,2.99,7\n", f"{option}={percent}") == 2
        assert "want a percentage from 0 to 100" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_what_has_no_end_is_no_spreadsheet(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(pipe := store.parent / "pipe.csv")
    for path in (pipe, store, Path("/dev/zero")):
        assert main(["import", str(path), str(store)]) == 2
        assert f"{path}: want a regular file, got " in capsys.readouterr().err


def test_gtins_lose_no_digit(store: Path) -> None:
    rows = ["'4006381333931", '"=""00012348"""', "40063-8133 3931.0", "4.006381333931E+12", "https://x.example/01/04006381333931"]
    for text in rows:
        (store / "products.csv").unlink(missing_ok=True)
        if "12348" in text:
            assert imported(store, HEAD + text.replace("00012348", "0096385074") + ",Tea,50,1,2.99,7\n") == 0
            assert "\n000096385074,Tea" in (store / "products.csv").read_text()
        else:
            assert imported(store, HEAD + text + ",Tea,50,1,2.99,7\n") == 0, text
            assert "4006381333931,Tea" in (store / "products.csv").read_text()
    (store / "products.csv").unlink()
    assert imported(store, HEAD + "36000291452,Towel,50,1,2.99,7\n") == 0
    assert "\n036000291452,Towel" in (store / "products.csv").read_text()


def test_names_are_cleaned_and_it_is_shown(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert imported(store, HEAD + '96385074,"Cheese\n\u202ebox",50,1,2.99,7\n') == 0
    assert "96385074,Cheese box,50" in (store / "products.csv").read_text()
    assert "name: control characters and marks of direction taken out (1): row 3" in capsys.readouterr().out


def test_a_workbook_is_read_as_its_numbers_are(store: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    for row in (
        ["EAN", "Bezeichnung", "Gewicht kg", "VK brutto", "MwSt-Satz"],
        [4006381333931, "Müsli", 0.524, 2.99, 0.07],
        ["0096385074", "Kölsch", 0.92, 0.1 + 0.2, 0.19],
    ):
        sheet.append(row)
    content = io.BytesIO()
    book.save(content)
    assert imported(store, content.getvalue(), "--weight-spread", "1", name="goods.xlsx") == 0
    assert (store / "products.csv").read_text() == (
        "gtin,name,weight_g,weight_sd_g,price,vat_rate\n4006381333931,Müsli,524,5.24,299,7\n"
        "000096385074,Kölsch,920,9.2,30,19\n"
    )
    old = book.create_sheet("old")
    old.append(["EAN"])
    old.append([96385074.0])
    book.save(content := io.BytesIO())
    with pytest.raises(ConfigError, match="'Sheet', 'old' all hold rows; pass --sheet"):
        (store.parent / "two.xlsx").write_bytes(content.getvalue())
        read_spreadsheet(store.parent / "two.xlsx")
    assert read_spreadsheet(store.parent / "two.xlsx", sheet="old").rows == [(2, [96385074])]


def test_empty_rows_are_no_rows_and_none_behind_them_is_lost(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreadsheets, "ROWS_MAX", 4)
    monkeypatch.setattr(spreadsheets, "SHEET_ROWS_MAX", 40)
    openpyxl = pytest.importorskip("openpyxl")
    for n_rows, last, fault in ((3, 40, ""), (4, 40, "want at most 4 rows of 200 columns, got 5"), (3, 41, "damaged")):
        book = openpyxl.Workbook()
        book.active.append(["plate", "gtin", "stock"])
        lines = [["plate,gtin,stock"], *[[",,"], []] * 20]
        for line in [*range(3, 2 + n_rows), last]:
            for column, value in enumerate((f"a{line}", 96385074, 1), 1):
                book.active.cell(line, column, value)
            lines.append([f"a{line},96385074,1"])
        book.save(store.parent / "far.xlsx")
        (store.parent / "far.csv").write_text("\n".join("".join(line) for line in lines))
        for name in ("far.xlsx", "far.csv") if fault != "damaged" else ("far.xlsx",):
            if fault:
                with pytest.raises(ConfigError, match=fault):
                    read_spreadsheet(store.parent / name)
            else:
                rows = read_spreadsheet(store.parent / name).rows
                assert [cells[0] for _, cells in rows] == ["a3", "a4", "a40"]


def test_one_sheet_may_hold_plates_and_what_lies_on_them(store: Path) -> None:
    head = "Waage;x (cm);y (cm);Höhe (cm);Breite (cm);Tiefe (cm);Drehung (°);Traglast (kg);EAN;Stück\n"
    plate = "a1;100;250;90;30;40;0;20"
    rows = f"{plate};96385074;5\n{plate};4006381333931;2\na2;150;250;90;30;40;90;20;;\n"
    assert imported(store, head + rows) == 0
    assert (store / "planogram.csv").read_text() == "plate,gtin,stock\na1,96385074,5\na1,4006381333931,2\n"
    first, second, third = (store / "plates.csv").read_text().splitlines()
    assert (first, second) == ("plate,x,y,z,width,depth,yaw,capacity_g", "a1,1,2.5,0.9,0.3,0.4,0,20000")
    assert third.startswith("a2,1.5,2.5,0.9,0.3,0.4,1.5707963")
    assert imported(store, head + rows.replace(f"{plate};400", f"{plate.replace('100', '110')};400"), "--replace") == 2


def test_field_cases_are_imported_or_refused_once(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    field = _FIELD / "16-one-fault-told-many-times"
    if not field.exists():
        pytest.skip("no field cases beside the repository")
    for case in ("cp1252", "semicolon"):
        folder = store.parent / case
        shutil.copytree(field / case, folder)
        assert main(["import", str(folder / "products.csv"), str(folder), "--replace"]) == 0
        assert Store.load(folder).products[0].gtin == "2900000000001"
    assert Store.load(store.parent / "cp1252").products[0].name == "Kölsch Müsli"
    capsys.readouterr()
    assert main(["import", str(field / "excel_sci" / "products.csv"), str(store)]) == 2
    assert capsys.readouterr().err.count("its digits are") == 16


_ODD = ["96385074", "1.234", "1,5", "2,99 €", "kg", "9E+99999", "-1", "٣", "1e400", "inf", "NaN", "9" * 400]
_CELLS = st.one_of(st.text(max_size=12), st.sampled_from(_ODD))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(_CELLS, min_size=6, max_size=6), min_size=1, max_size=3))
def test_any_cells_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    bare_shop().save(folder)
    (folder / "products.csv").unlink()
    with open(folder / "in.csv", "w", newline="", encoding="utf-8", errors="replace") as file:
        csv.writer(file).writerows([["gtin", "name", "weight (g)", "sd (g)", "price", "vat"], *rows])
    try:
        Import.read(folder / "in.csv", folder, Choices()).write(replace=True)
    except ConfigError:
        assert not (folder / "products.csv").exists()
    else:
        assert Store.load(folder).products


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_table_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    for head in (b"", b"PK\x03\x04", b"\xff\xfe"):
        path.write_bytes(head + data)
        try:
            assert read_spreadsheet(path).header
        except ConfigError as error:
            assert str(error)


def test_a_full_disk_changes_no_table_and_is_named(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(store, GERMAN) == 0

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert imported(store, GERMAN.replace("2,99", "3,99"), "--replace") == 2
    assert f"cannot use {store / 'products.csv'}: no space left on device" in capsys.readouterr().err
    assert (store / "products.csv").read_text() == WANTED and not list(store.glob("*.new"))


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ('in_store_codes = ["20PPPPPVVVVVC"]', r"shop/store.toml: in_store_codes\[0\]: want 13 places"),
        ('in_store_codes = ["28((((("]', r"shop/store.toml: in_store_codes\[0\]: want 13 places"),
        ('in_store_codes = "28IIIIIWWWWWC"', r"shop/store.toml: in_store_codes: "),
        ("currency = [1]", r"shop/store.toml: currency: want an ISO 4217 code such as EUR, got \[1\]"),
    ],
)
def test_what_an_import_takes_from_a_store_is_checked(store: Path, line: str, wanted: str) -> None:
    text = (store / "store.toml").read_text()
    key = line.partition(" ")[0]
    kept = [one for one in text.splitlines() if not one.startswith(f"{key} ")]
    (store / "store.toml").write_text("\n".join([line, *kept]))
    (store.parent / "goods.csv").write_text(GERMAN)
    with pytest.raises(ConfigError, match=wanted):
        Import.read(store.parent / "goods.csv", store, Choices())
