"""`fusion init`: a store to start from; and the example stores by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusion.commands.main import main
from fusion.example_stores.catalogue import names, store_folder
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
    assert len(names()) == 8
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
