"""Two runs side by side: what was set differently, and whose bill came out differently."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browsing import LOOKS, complaints, findings, in_browser, set_look

from fusion.commands.main import main
from fusion.errors import ConfigError
from fusion.files.results import ResultsWriter
from fusion.results import Receipt, ReceiptLine, ReceiptStatus, RunEnd, RunSummary
from fusion.show.comparison import Results, page, pairs, settings
from fusion.simulation import demo_store
from fusion.store.models import Store

T_NS, S_NS = 1_772_528_646_000_000_000, 10**9
HOSTILE = "<script>alert(1)</script>"


def receipt(store: Store, account: str, start_s: int, quantity: int) -> Receipt:
    product = store.products[0]
    lines = (ReceiptLine(product.gtin, quantity, product.price, 0.9),)
    times = (T_NS + start_s * S_NS, T_NS + (start_s + 60) * S_NS, T_NS + (start_s + 63) * S_NS)
    return Receipt(
        f"visit-{account}", account, *times, ReceiptStatus.SETTLED, (), store.currency, quantity * product.price, lines
    )


def written(folder: Path, store: Store, receipts: list[Receipt]) -> Results:
    writer = ResultsWriter(folder, store, lambda track: None)
    for one in receipts:
        writer.add(one)
    writer.add(RunEnd(RunSummary("0.1.0", store.id, frames=7), ()))
    writer.close()
    return Results.load(folder)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Results, Results]:
    store = demo_store(n_cameras=3, n_plates=4, n_products=3)
    camera = store.cameras[1]
    x, y, z = camera.translation
    moved = camera.model_copy(update={"translation": (x + 0.25, y, z)})
    other = store.model_copy(
        update={
            "review": store.review.model_copy(update={"receipt_error_max": 0.01}),
            "cameras": (store.cameras[0], moved, store.cameras[2]),
        }
    )
    same, changed = receipt(store, HOSTILE, 0, 1), receipt(store, "bea", 10, 2)
    review = receipt(store, "cleo", 20, 1)
    # One account comes twice: its visits are told apart by their times.
    first, again = receipt(store, "dora", 30, 1), receipt(store, "dora", 300, 3)
    a = written(tmp_path / "a", store, [same, changed, review, first, again])
    later = replace(changed, exit_ns=changed.exit_ns + S_NS, lines=receipt(store, "bea", 10, 1).lines, total=1)
    b = written(tmp_path / "b", other, [same, later, replace(review, status=ReceiptStatus.REVIEW), again])
    return a, b


def test_thresholds_and_calibrations_that_differ_are_found(runs: tuple[Results, Results]) -> None:
    threshold, camera = settings(*runs)
    assert threshold == ("settings.review.receipt_error_max", "0.05", "0.01")
    assert camera.name == f"camera {demo_store(3).cameras[1].name}"
    assert camera.b is not None and "250.0 mm away, turned by 0.000 degrees" in camera.b
    assert settings(runs[0], runs[0]) == []


def test_visits_whose_bill_differs_come_first(runs: tuple[Results, Results]) -> None:
    found = pairs(*runs)
    rows = [(pair.rank, (pair.a or pair.b or {})["account"], pair.b is None) for pair in found]
    assert rows == [
        (0, "bea", False), (0, "dora", True), (1, "cleo", False), (3, HOSTILE, False), (3, "dora", False)
    ]  # fmt: skip
    assert [pair.rank for pair in pairs(runs[0], runs[0])] == [3] * 5


def test_the_page_is_safe_and_the_command_says_how_many_differ(
    runs: tuple[Results, Results], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = page(*runs)
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text
    assert "2 bills differ, 1 only in their status" in text and "receipt_<wbr>error_<wbr>max" in text
    out = tmp_path / "compare.html"
    assert main(["report", str(runs[0].folder), "--against", str(runs[1].folder), "--out", str(out)]) == 1
    assert "2 bills differ" in capsys.readouterr().out and out.read_text(encoding="utf-8") == text
    assert main(["report", str(runs[0].folder), "--against", str(runs[0].folder), "--out", str(out)]) == 0


@in_browser
def test_the_page_can_be_used_by_everyone(driver: Any, runs: tuple[Results, Results], tmp_path: Path) -> None:
    (tmp_path / "compare.html").write_text(page(*runs), encoding="utf-8")
    driver.get((tmp_path / "compare.html").as_uri())
    for width, dark in LOOKS:
        set_look(driver, width, dark)
        assert findings(driver) == []
        assert driver.execute_script("return document.documentElement.scrollWidth - innerWidth") <= 0
    assert complaints(driver) == []


def test_a_folder_that_no_run_wrote_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="want a folder that `fusion run --out` has written"):
        Results.load(tmp_path)
    (tmp_path / "setup.json").write_text("{}")
    (tmp_path / "receipts.jsonl").write_text(json.dumps({}) + "\n[1]\n")
    with pytest.raises(ConfigError, match=r"receipts.jsonl: row 2: want a JSON object, got \[1\]"):
        Results.load(tmp_path)
