"""`fusion init`: a store to start from; and the example stores by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.commands.main import main
from fusion.errors import ConfigError
from fusion.example_stores.catalogue import names, store_folder
from fusion.setup.check import check
from fusion.setup.plan_checks import plan_findings
from fusion.setup.rough_store import RoughShop
from fusion.store.models import Store


def test_init_writes_a_store_that_passes_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "Corner Shop"
    assert main(["init", str(folder)]) == 0
    assert f"fusion run --store {folder}" in capsys.readouterr().out
    assert main(["check", str(folder)]) == 0
    store = Store.load(folder)
    assert (store.id, store.name) == ("corner-shop", "Corner Shop")
    assert len(store.cameras) == 5 and len(store.plates) == 16 and len(store.products) == 8
    for name in ("store.toml", "cameras.toml"):
        assert (folder / name).read_text(encoding="utf-8").count("\n# ") >= 2, "comments"
    for name in ("plates.csv", "products.csv", "planogram.csv"):
        assert name in (folder / "README.md").read_text(encoding="utf-8")


def test_a_new_store_can_be_simulated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "shop")]) == 0
    options = ["--minutes", "1", "--shoppers", "2", "--out", str(tmp_path / "out")]
    assert main(["run", "--store", str(tmp_path / "shop"), *options]) == 0
    out = capsys.readouterr().out
    assert "shop: 5 cameras, 16 plates, 8 products; 1.0 minutes simulated (seed 1)" in out
    assert out.count("  right") == 2 and "WRONG" not in out
    assert (tmp_path / "out" / "receipts.jsonl").read_text().count("\n") == 2


def test_an_example_store_runs_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--store", "biu", "--minutes", "1.5", "--shoppers", "2"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Biu, Nanjing: ") and "gate: 2 let in" in out and "both books agree" in out
    assert (tmp_path / "out" / "report.html").exists()


def test_init_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    (tmp_path / "file").write_text("keep me too")
    for path, message in ((tmp_path / "mine", "is not empty"), (tmp_path / "file", "is a file")):
        assert main(["init", str(path)]) == 2
        assert message in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    assert (tmp_path / "file").read_text() == "keep me too"
    assert main(["init", str(tmp_path / "file" / "below")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_example_stores_have_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(names()) == 9
    for name in names():
        assert Store.load(store_folder(name)).id == name
    assert main(["privacy", "amazon_go"]) == 0
    assert "Go, 7th Avenue" in capsys.readouterr().out
    # A folder of one's own comes first.
    (tmp_path / "biu").mkdir()
    assert store_folder("biu") == Path("biu")
    assert store_folder("nowhere") == Path("nowhere")
    assert main(["check", "amzon_go"]) == 2
    assert "did you mean 'amazon_go'?" in capsys.readouterr().err


@settings(max_examples=60, deadline=None)
@given(
    st.floats(2.0, 30.0),
    st.floats(2.0, 30.0),
    st.integers(0, 12),
    st.integers(0, 12),
    st.integers(1, 8),
    st.integers(1, 10),
)
def test_a_rough_store_of_any_size_is_sound(
    tmp_path_factory: pytest.TempPathFactory,
    width: float,
    depth: float,
    cameras: int,
    shelves: int,
    boards: int,
    plates: int,
) -> None:
    shop = RoughShop(round(width, 2), round(depth, 2), cameras, shelves, boards, plates)
    try:
        made = shop.store("shop", "Shop", "EUR", "Europe/Berlin")
    except ConfigError as error:
        assert "--shelves" in str(error)
        return
    folder = tmp_path_factory.getbasetemp() / "rough"
    made.save(folder)
    assert Store.load(folder) == made
    assert len(made.plates) == shelves * boards * plates and len(made.cameras) == cameras
    assert not list(plan_findings(made))
    boxes = made.obstacle.boxes
    for one in made.plates:
        at = (one.x, one.y)
        assert any(all(box[i] - 1e-3 <= at[i] <= box[i + 2] + 1e-3 for i in (0, 1)) for box in boxes)
    # Shelves stand beside each other, not in each other.
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert a[2] <= b[0] + 1e-3 or b[2] <= a[0] + 1e-3 or a[3] <= b[1] + 1e-3 or b[3] <= a[1] + 1e-3


def test_init_writes_a_store_of_a_shops_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "Corner Shop"
    sizes = "--size 6 5 --cameras 5 --shelves 5 --boards 3 --plates 2 --currency CHF --timezone Europe/Zurich"
    assert main(["init", str(folder), *sizes.split()]) == 0
    assert "6 x 5 m, 5 cameras, 30 plates, and no goods yet" in capsys.readouterr().out
    store = Store.load(folder)
    assert (store.id, store.name) == ("corner-shop", "Corner Shop")
    assert (store.currency, store.timezone) == ("CHF", "Europe/Zurich")
    assert not [f for f in check(folder) if f.severity == "error"]
    assert "# Assumed" in (folder / "cameras.toml").read_text() and "# The floor" in (folder / "store.toml").read_text()
    for options, fault in (
        (["--shelves", "40"], "--shelves 40: want at most 11"),
        (["--size", "600", "500"], "want 2 to 100 metres"),
        (["--size", "nan", "5"], "want 2 to 100 metres"),
        (["--cameras", "-1"], "--cameras -1: want 0 to 64"),
        (["--currency", "EURO"], "--currency: want an ISO 4217 code such as EUR, got 'EURO'"),
        (["--timezone", "Berlin"], "--timezone: want an IANA time zone"),
    ):
        assert main(["init", str(tmp_path / "other"), *options]) == 2
        assert fault in capsys.readouterr().err and not (tmp_path / "other").exists()
    assert main(["init", str(tmp_path / "odd\nname"), "--cameras", "2"]) == 0
    assert Store.load(tmp_path / "odd\nname").name == "oddname"
    assert main(["init", str(folder), "--cameras", "2"]) == 2
    assert "is not empty" in capsys.readouterr().err
