"""Payments that a person takes further by a command."""

from __future__ import annotations

from pathlib import Path

import pytest
from money.books import STORE, T_NS, TWO, receipt

from fusion.commands.main import main
from fusion.money.ledger import Ledger


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with a store, its till, and books with a billed and an open visit."""
    STORE.save(tmp_path / "store")
    (tmp_path / "till.toml").write_text('format_version = 1\n[payment]\nprovider = "test"\n', encoding="utf-8")
    with Ledger.open(tmp_path / "books.sqlite", STORE) as ledger:
        for visit in ("v1", "v2"):
            ledger.open_visit(visit, None, T_NS)
        ledger.post_receipt(receipt("v1", *TWO))
    return tmp_path


def asked(shop: Path, command: str, visit: str, *options: str) -> int:
    where = [str(shop / name) for name in ("store", "books.sqlite")]
    return main([command, *where, visit, "--till", str(shop / "till.toml"), *options])


@pytest.mark.parametrize(
    ("command", "options"),
    [("settle", ()), ("collect", ()), ("close", ("--by", "anna")), ("resolve", ("--by", "anna", "--carried-out"))],
)
def test_a_visit_that_the_books_do_not_have_is_named(
    shop: Path, command: str, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """A receipt's file is not named after its visit; what was asked for must not look like an open visit."""
    assert asked(shop, command, "6a06625da300f306", *options) == 2
    assert "has no visit '6a06625da300f306'" in capsys.readouterr().err
    with Ledger.open(shop / "books.sqlite", STORE) as ledger:
        assert ledger.standing("6a06625da300f306") is None


def test_visits_of_the_books_are_settled(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(shop, "settle", "v2") == 0
    assert "v2: open" in capsys.readouterr().out
    asked(shop, "settle", "v1")
    assert "v1: " in capsys.readouterr().out
