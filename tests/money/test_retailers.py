"""Retailers of one installation: separate books, and every fault of their file at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Place
from money.books import TWO, at, make_store, sell

from fusion.commands.main import main
from fusion.errors import ConfigError, LedgerError
from fusion.money.ledger import Ledger
from fusion.money.retailers import Chain, open_books_of
from fusion.money.statements import FEES

CHAIN = """format_version = 1
[[retailer]]
id = "north"
name = "North Ltd"
brand = "North"
fee_share = 5.0
stores = ["kiosk", "stand"]
[[retailer]]
id = "south"
name = "South Ltd"
brand = "South"
fee_monthly = 10000
stores = ["shop"]
"""


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    for store in ("kiosk", "stand", "shop"):
        make_store(store, "USD" if store == "shop" else "EUR").save(tmp_path / store)
    (tmp_path / "chain.toml").write_text(CHAIN)
    return tmp_path / "chain.toml"


@pytest.mark.parametrize("place", ["sqlite", "postgres"], indirect=True)
def test_tenants_keep_separate_books(chain: Path, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    where = str(place.folder) if place.database is None else f"{place.database}#{place.folder}"
    loaded = Chain.load(chain)
    kiosk = loaded.stores["north"][0]
    with open_books_of(kiosk, where) as ledger:
        sell(ledger, "v1", at("2026-03-03T12:00"), *TWO)
    assert loaded.retailer_of(kiosk).brand == "North"
    for store in (loaded.stores["north"][1], loaded.stores["south"][0]):
        with open_books_of(store, where) as ledger:
            ledger.open_visit("v1", None, at("2026-03-03T12:00"))
    found = {store.id: ledger.balances() for _, store, ledger in loaded.books(where)}
    assert found["stand"] == found["shop"] == {} and sum(found["kiosk"]["EUR"].values()) == 0
    if place.database is None:
        with pytest.raises(LedgerError, match="want the books of"):
            Ledger.open(place.folder / "kiosk.sqlite", loaded.stores["south"][0])
    assert main(["statement", str(chain), where, "2026-03"]) == 0
    out = capsys.readouterr().out
    assert out.count("2026-03:") == 3 and "-100.00 USD" in out and "North Ltd, Shop, 2026-03: 1 receipts" in out
    balances = [ledger.balances() for _, _, ledger in loaded.books(where)]
    assert balances[0]["EUR"][FEES] == 30 and balances[2]["USD"][FEES] == 10000
    assert main(["statement", str(chain), where, "2026-3"]) == 2 and "want a month such as" in capsys.readouterr().err


def test_faults_of_a_chain_are_reported_together(chain: Path) -> None:
    chain.write_text(CHAIN.replace('id = "south"', 'id = "north"').replace('"stand"', '"gone"'))
    with pytest.raises(ConfigError) as raised:
        Chain.load(chain)
    assert "gone" in str(raised.value) and "'north' 2 times" in str(raised.value)
    chain.write_text(CHAIN.replace("fee_share = 5.0", "fee_share = 5.0\nfee_monthly = 1\ntypo = 2"))
    with pytest.raises(ConfigError, match="typo"):
        Chain.load(chain)
    with pytest.raises(ConfigError, match=r"none.toml does not exist; pass a chain.toml"):
        Chain.load(chain.parent / "none.toml")
    with pytest.raises(ConfigError, match=r"is a folder; pass a chain.toml"):
        Chain.load(chain.parent)
    chain.write_text("retailer = [")
    with pytest.raises(ConfigError, match=r"chain.toml is not valid TOML: .*"):
        Chain.load(chain)
    chain.write_text("floor = []")
    with pytest.raises(ConfigError, match=r"describes a store; pass a chain.toml"):
        Chain.load(chain)
