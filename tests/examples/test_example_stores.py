"""The example stores from door to receipt: bills are right or wait, books balance, and no name is left anywhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Place
from examples.test_run_store import run
from money.mailboxes import serving

from fusion.commands.main import main
from fusion.example_stores.catalogue import FOLDER
from fusion.money.ledger import Ledger
from fusion.money.retailers import Chain
from fusion.simulation import Scenario
from fusion.simulation.kinds import visitors_of
from fusion.store.models import Store

STORES = Path(__file__).resolve().parents[2] / "examples" / "stores"
FOLDERS = sorted(path.name for path in STORES.iterdir() if (path / "store.toml").exists())
PRINTED = {
    "amazon_go": "4 let in",
    "just_walk_out": "platform fee",
    "just_walk_out_stadium": "held for visits in review",
    "amazon_fresh": "Amazon Retail, Fresh, Queen Street",
    "welife": "4 baskets shown and confirmed in the payment zone",
    "biu": "4 let in",
    "unmanned_box": "4 baskets shown and confirmed at the door, which then opened",
    "rewe_pilot": "1 refused (not open to the public yet)",
    "cabinet": "4 let in",
}


def rows_of(out: str) -> list[str]:
    """The table of receipts beside the truth."""
    table = out[out.index("\naccount ") :].splitlines()[3:]
    return table[: next(i for i, line in enumerate(table) if line.startswith("from the exit"))]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_store_runs_from_door_to_receipt(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in the README, for half of the time and customers where they are many; test_run_store.py starts processes."""
    few = ("--minutes", "2.5", "--shoppers", "4")
    code = main(["run", "--store", str(STORES / folder), *few, "--out", str(tmp_path)])
    out, err = capsys.readouterr()
    assert code == 0, err
    rows = rows_of(out)
    assert len(rows) >= 3 and all("settled" in row or "review" in row for row in rows)
    assert not [row for row in rows if "settled" in row and "right" not in row]
    assert "both books agree" in out and "all accounts sum to 0; its chain holds" in out and " 0.00 " in out
    assert PRINTED[folder] in out
    store = Store.load(STORES / folder)
    with Ledger.open(tmp_path / "ledger.sqlite", store) as ledger:
        balances = ledger.balances()
        assert set(balances) <= {store.currency} and sum(balances[store.currency].values()) == 0
        assert balances[store.currency].get("receivable", 0) == 0 and balances[store.currency]["provider"] > 0
        settled = [json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "receipts").glob("*.json")]
        assert sum(receipt["total"] for receipt in settled) == balances[store.currency]["provider"]
        assert ledger.unlink_before(2**62) > 0
    # Engine, results, receipts and, once unlinked, the books know customers by pseudonym alone.
    scenario = Scenario(seed=1, minutes=8.0, shoppers=8)
    named = re.compile(rb"acc-[a-z2-9]{7}")
    shown = [visitor.account for visitor in visitors_of(store, scenario) if visitor.account and not visitor.is_staff]
    assert shown and all(named.fullmatch(account.encode()) for account in shown)
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix != ".parquet":
            assert not named.search(path.read_bytes()), path


def test_receipts_are_mailed_and_books_kept_in_postgres(place: Place, tmp_path: Path) -> None:
    if place.database is None:
        pytest.skip("the others run on SQLite")
    with serving() as (inbox, controller):
        code, out, err = run(
            "run_store.py", "--store", STORES / "just_walk_out", "--out", tmp_path, "--minutes", 2, "--shoppers", 4,
            "--ledger", place.database, "--vault", place.folder / "vault.sqlite",
            "--smtp", f"127.0.0.1:{controller.port}",
        )  # fmt: skip
    assert code == 0, err
    assert "both books agree" in out and "all accounts sum to 0; its chain holds" in out
    sent = int(re.search(r"mail: (\d+) receipts sent, 0 wait", out)[1])  # type: ignore[index]
    assert sent == len(inbox.mails) > 0
    assert all(to[0].endswith("@mail.example") and "Terminal News" in mail for to, mail in inbox.mails)


def test_the_store_folders_are_those_that_their_maker_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(STORES.parent / "make_stores.py"), str(tmp_path)], check=True)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.*")}
    shipped = {path.relative_to(FOLDER): path.read_bytes() for path in FOLDER.rglob("*.*")}
    assert {path: data for path, data in shipped.items() if path.suffix not in (".py", ".pyc")} == made
    chain = Chain.load(STORES / "chain.toml")
    assert sorted(store.id for stores in chain.stores.values() for store in stores) == FOLDERS


def test_faults_of_an_example_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Store.load(STORES / "biu").save(tmp_path / "biu")
    (tmp_path / "biu" / "example.toml").write_text('credential = "coin"\nstart = "noon"\ntypo = 1\n')
    command = ["run", "--store", str(tmp_path / "biu"), "--out", str(tmp_path / "out")]
    code = main(command)
    err = capsys.readouterr().err
    assert code == 2 and "credential" in err and "typo: unknown key" in err and "Traceback" not in err
    (tmp_path / "biu" / "example.toml").write_text('credential = "face"\nstart = "noon"\n')
    code = main(command)
    err = capsys.readouterr().err
    assert code == 2 and "noon" in err and "Traceback" not in err
