"""A GTIN with zeros in front is the same product wherever one comes in, and leaves as the store spells it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from goods.bills import EXIT, PAY
from goods.shop import GTINS, STORE, T0

from fusion.errors import ConfigError
from fusion.goods.sightings import Sightings
from fusion.money.prices import PriceBook
from fusion.observations import ItemSighting
from fusion.runner.truth import recorded_visits
from fusion.setup.check import check
from fusion.show.console.pictures import Pictures
from fusion.show.log_lines import LogLines
from fusion.store.models import Store
from fusion.store.prices import Price, Prices

LONG = GTINS[0].zfill(14)
_FIELD = Path(os.environ.get("FUSION_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "field"


def test_a_reader_may_report_more_zeros_than_the_store_has() -> None:
    sightings = Sightings(STORE.model_copy(update={"zone": (PAY,), "gate": (EXIT,)}))
    read = ItemSighting(T0, "antenna", "read", LONG, 1, 0.9, zone="pay")
    assert sightings.knows(read) and sightings.as_spelt(read).gtin == GTINS[0]
    assert sightings.as_spelt(sightings.as_spelt(read)) == sightings.as_spelt(read)
    assert f"1 x {STORE.products[0].name} at pay" in LogLines(STORE).of_observation(read).text


def test_a_price_is_that_of_the_number() -> None:
    cheaper = STORE.model_copy(update={"prices": Prices(price=(Price(gtin=GTINS[1], price=7),))})
    book = PriceBook(cheaper)
    assert book.unit_price(LONG, T0) == STORE.products[0].price == book.unit_price(GTINS[0], T0)
    assert book.unit_price(GTINS[1].zfill(14), T0) == 7


def test_a_picture_may_be_named_in_any_spelling(tmp_path: Path) -> None:
    (tmp_path / f"{LONG}.png").write_bytes(b"picture")
    pictures = Pictures(tmp_path, GTINS)
    assert pictures.gtins == [GTINS[0]] and pictures.of(GTINS[0]) is not None


def test_a_truth_is_read_in_the_stores_spelling(tmp_path: Path) -> None:
    (tmp_path / "truth").mkdir()
    visit = {"account": "ann", "enter": T0, "exit": T0 + 1, "items": {LONG: 1, GTINS[0]: 1, GTINS[1]: 1}}
    (tmp_path / "truth" / "visits.jsonl").write_text(json.dumps(visit) + "\n")
    (read,) = recorded_visits(tmp_path, STORE.own_gtins) or ()
    assert read.items == {GTINS[0]: 2, GTINS[1]: 1}


def test_a_decoded_tag_of_the_field_is_the_stores_product(tmp_path: Path) -> None:
    case = _FIELD / "12-gtin-padded"
    if not case.exists():
        pytest.skip("no field cases beside the repository")
    shutil.copytree(case / "recording", tmp_path / "recording")
    (read,) = (tmp_path / "recording" / "items.jsonl").read_text().splitlines()
    assert json.loads(read)["gtin"] == "00200000000028"
    assert not [finding for finding in check(tmp_path / "recording") if finding.subject.startswith("items.jsonl")]
    with pytest.raises(ConfigError) as caught:
        Store.load(case / "store_twice")
    assert caught.value.faults == (
        "store_twice/products.csv: gtin: want each once, got '2900000000001' and '02900000000001', one number 2 times"
        " (row 2, row 18)",
    )


@pytest.mark.parametrize(
    ("case", "fault"),
    [
        ("cp1252", "cp1252/products.csv:2: want UTF-8, got byte 0xf6 at offset 61, 'ö' in Windows-1252"),
        ("semicolon", "semicolon/products.csv:1: want columns separated by commas, got semicolons (';')"),
        ("excel_sci", "excel_sci/products.csv:2: gtin: want a GTIN of 8, 12, 13 or 14 digits, got '2.90000E+12'"),
    ],
)
def test_one_fault_of_the_field_is_reported_once(case: str, fault: str) -> None:
    folder = _FIELD / "16-one-fault-told-many-times" / case
    if not folder.exists():
        pytest.skip("no field cases beside the repository")
    with pytest.raises(ConfigError) as caught:
        Store.load(folder)
    (found,) = caught.value.faults
    assert found.startswith(fault)


def test_names_of_the_field_that_break_a_receipt_are_refused(tmp_path: Path) -> None:
    case = _FIELD / "19-names-with-control-characters" / "products.csv"
    if not case.exists():
        pytest.skip("no field cases beside the repository")
    STORE.save(tmp_path)
    shutil.copyfile(case, tmp_path / "products.csv")
    (tmp_path / "planogram.csv").write_text("plate,gtin,stock\n")
    with pytest.raises(ConfigError) as caught:
        Store.load(tmp_path)
    assert ["(U+000A)" in caught.value.faults[0], "(U+202E)" in caught.value.faults[1]] == [True, True]
    assert len(caught.value.faults) == 2
