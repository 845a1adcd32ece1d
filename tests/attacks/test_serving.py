"""What passed unpaid, and what was lost, while only a simulation had a till: refused, or survived."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from examples.test_run_store import run
from live.conftest import day, recording
from live.stepping import Day
from till.shops import TEST_TILL, Bank, decided, opened, paying, shop

from bench.endurance import serve as bench
from fusion.errors import ConfigError, LedgerError
from fusion.files.results import ResultsWriter
from fusion.gates.verifiers import GateRequest
from fusion.live.clock import ManualClock
from fusion.live.supervisor import Supervisor
from fusion.money.ledger import Ledger
from fusion.money.postgres import PostgresDatabase
from fusion.observations import GateScan
from fusion.store.models import Store
from fusion.till.honoured import unmet
from fusion.till.settings import TillFile, TillSettings

__all__ = ["day", "recording"]


@pytest.fixture
def bank(monkeypatch: pytest.MonkeyPatch) -> Bank:
    bank = Bank()
    monkeypatch.setattr("fusion.till.opening.open_provider", lambda settings, base: bank)
    return bank


# ---- a policy that nothing carries out -------------------------------------------------------------------------------


@pytest.mark.attack(2)
@pytest.mark.parametrize(("mode", "policy"), [("enter", {"authorise": 5000}), ("door", {}), ("zone", {})])
def test_a_store_that_would_let_people_leave_unpaid_is_not_started(
    mode: str, policy: dict[str, int], recording: Path, day: Day, tmp_path: Path
) -> None:
    path = bench.make_chain(tmp_path, recording, {"box": (f"recording:{recording}", {})})
    paying(day.store, mode, **policy).model_copy(update={"id": "box"}).save(tmp_path / "box")
    with pytest.raises(ConfigError, match=f'store.toml: payment.mode = "{mode}" needs a payment provider; add'):
        Supervisor(path)
    assert not (tmp_path / "serve").exists(), "nothing was begun"
    store = Store.load(tmp_path / "box")
    # With a provider, gates have to ask it: no person of a recording does.
    assert any("needs a source whose gates ask" in line for line in unmet(store, TEST_TILL, f"recording:{recording}"))
    live = [line for line in unmet(store, TEST_TILL, "mqtt://broker") if mode != "zone"]
    assert not live


@pytest.mark.attack(2)
def test_a_token_that_never_existed_is_refused_at_the_entry(bank: Bank, day: Day, tmp_path: Path) -> None:
    store = paying(day.store, "enter", authorise=5000)
    bank.cards = {"tok_known"}
    stepped = opened(store, tmp_path)
    t_ns = day.observations[0].t_ns
    stranger = decided(stepped, GateRequest(t_ns, "entry", "card", "tok_never_existed"))
    assert not stranger.open and stranger.scan is None and stranger.reason == "payment declined"
    assert decided(stepped, GateRequest(t_ns, "entry", "card", "tok_known")).open
    stepped.end()


@pytest.mark.attack(2)
def test_a_paying_door_stays_closed_until_it_is_paid(bank: Bank, day: Day, tmp_path: Path) -> None:
    store, clock = paying(day.store, "door"), ManualClock()
    stepped = opened(store, tmp_path, clock)
    till, opened_ns = stepped.loop.books.till, {}
    bank.away = True
    asked = 0
    for first in range(0, len(day.observations), 50):
        shop(stepped, day.observations[first : first + 50])
        standing = till.baskets.at_door("exit")
        owing = [one.basket for one in standing if one.basket is not None and one.basket.total]
        if not owing:
            continue
        asked += 1
        clock.advance(100.0)  # Beyond every pause between two questions.
        bank.away = asked % 3 != 0  # No answer, no answer, an answer.
        decision = till.decide(GateRequest(till.baskets.t_ns, "exit", "open", asks="leave"))
        held = bank.held + bank.total
        assert not decision.open or held >= sum(basket.total for basket in owing)
        if decision.open:
            opened_ns.update({basket.visit: till.baskets.t_ns for basket in owing})
    assert asked > 3 and opened_ns
    bank.away = False
    stepped.end()


# ---- books on a server that is away ----------------------------------------------------------------------------------


@pytest.mark.attack(13)
@pytest.mark.parametrize("mode", ["leave", "enter"])
def test_a_database_that_is_away_delays_the_books_and_nothing_else(
    mode: str, bank: Bank, day: Day, postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, clock = paying(day.store, mode, **({"authorise": 5000} if mode == "enter" else {})), ManualClock()
    store = store.model_copy(update={"id": f"away_{mode}"})
    till = TillFile(TillSettings.model_validate({"payment": {"provider": "test"}, "books": {"where": postgres}}))
    away = [True]
    connected = PostgresDatabase._connected

    def connect(database: PostgresDatabase) -> object:
        if away[0]:
            raise LedgerError("connection refused")
        return connected(database)

    monkeypatch.setattr(PostgresDatabase, "_connected", connect)
    stepped = opened(store, tmp_path / "first", clock, till)
    middle = next(i for i, one in enumerate(day.observations) if isinstance(one, GateScan)) + 200
    first = shop(stepped, day.observations[:middle])
    # Where money is authorised at the entry, the books have to know first; codes and cards alone need no server.
    assert all(decision.open == (mode == "leave") for decision in first) and first
    assert "connection refused" in stepped.status()["till"]["waits_for"]["books"]
    away[0] = False
    clock.advance(100.0)
    shop(stepped, day.observations[middle : middle + 400])
    # Away again while people are inside, and over a restart.
    away[0] = True
    stepped.loop.books.till.books.database.connection.close()  # type: ignore[attr-defined]
    bank.away = True
    shop(stepped, day.observations[middle + 400 :])
    leave = GateRequest(day.observations[-1].t_ns, "exit", "open", asks="leave")
    assert stepped.loop.books.till.decide(leave).open, "neither books nor provider are asked about the way out"
    bank.away = False
    waiting = stepped.status()["till"]
    assert waiting["not_in_books_yet"] > 0 and waiting["waits_for"]
    stepped.kill(tmp_path / "second")
    stepped = opened(store, tmp_path / "second", clock, till)
    away[0] = False
    clock.advance(1000.0)
    for _ in range(3):  # Forwarded, then settled and issued.
        clock.advance(100.0)
        stepped.loop.books.till.do_errands()
    stepped.end()
    where, vault = till.books_at(store.id, tmp_path / "second")
    with Ledger.open(where, store, vault=vault) as ledger:
        assert ledger.verify() is None and not ledger.open_visits()
        billed = {one.visit for one in ledger.entries_between(0, 2**62) if one.kind.startswith("receipt ")}
        standings = [ledger.standing(visit) for visit in billed]
        found = ledger.balances()[store.currency]
        assert bank.total == found["provider"] > 0 and found.get("receivable", 0) == 0
        settled = [one for one in standings if one is not None and one.status == "settled"]
        assert sum(one.total for one in settled) == bank.total
    assert all(n == 1 for n in bank.n_captures.values())
    assert len(list((tmp_path / "second" / "receipts").glob("*.json"))) == len(settled)


# ---- books, evidence and receipts of a live shop ---------------------------------------------------------------------


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


@pytest.mark.attack(12)
def test_a_simulation_in_the_folder_of_a_live_shop_is_refused(
    bank: Bank, day: Day, small_recording: Path, tmp_path: Path
) -> None:
    shop_folder = tmp_path / "shop"
    stepped = opened(paying(day.store, "leave"), shop_folder)
    shop(stepped, day.observations)
    stepped.kill(tmp_path / "live")
    live = tmp_path / "live"
    before = digests(live)
    assert any(name.endswith(".sqlite") for name in before) and any("receipts/" in name for name in before)
    for arguments in (("--minutes", 1, "--shoppers", 2), (small_recording,)):
        code, _, err = run("run_store.py", *arguments, "--out", live)
        assert code == 2 and "live store" in err and "nothing was changed" in err
        assert digests(live) == before
    with pytest.raises(ConfigError, match="folder of a live store"):
        ResultsWriter(live, day.store, lambda track: None)
    # Books alone, of whatever made them, are not replaced either.
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(next(live.glob("demo.sqlite")), alone / "ledger.sqlite")
    before = digests(alone)
    code, _, err = run("run_store.py", "--minutes", 1, "--shoppers", 2, "--out", alone)
    assert code == 2 and "ledger.sqlite" in err and digests(alone) == before


@pytest.mark.attack(12)
def test_a_restart_adds_to_evidence_and_receipts(tmp_path: Path, day: Day) -> None:
    (tmp_path / "receipts.jsonl").write_text('{"receipt": "of yesterday"}\n')
    (tmp_path / "evidence.jsonl").write_text('{"evidence": "of yesterday"}\n')
    (tmp_path / "tracks.parquet").write_bytes(b"of yesterday")
    writer = ResultsWriter(tmp_path, day.store, lambda track: None, live=True)
    writer.add(next(iter(day.receipts.values())))
    writer.close()
    lines = (tmp_path / "receipts.jsonl").read_text().splitlines()
    assert len(lines) == 2 and "of yesterday" in lines[0]
    assert "of yesterday" in (tmp_path / "evidence.jsonl").read_text()
    assert (tmp_path / "tracks.1.parquet").read_bytes() == b"of yesterday"


@pytest.mark.attack(13)
def test_people_inside_are_billed_under_their_name_after_a_kill(bank: Bank, day: Day, tmp_path: Path) -> None:
    store = paying(day.store, "enter", authorise=5000)
    stepped = opened(store, tmp_path / "first")
    last = max(i for i, one in enumerate(day.observations) if isinstance(one, GateScan)) + 400
    shop(stepped, day.observations[:last])
    inside = stepped.loop.engine.open_visits
    assert len(inside) >= 2
    since_ns = stepped.loop.checkpoint.saved_ns
    stepped.kill(tmp_path / "second")
    stepped = opened(store, tmp_path / "second")
    # Publishers send again what is some seconds old.
    again = [one for one in day.observations[:last] if one.t_ns >= since_ns and not isinstance(one, GateScan)]
    stepped.give(again)
    shop(stepped, day.observations[last:])
    stepped.end()
    with Ledger.open(tmp_path / "second" / f"{store.id}.sqlite", store) as ledger:
        assert not ledger.open_visits() and ledger.verify() is None
        for visit in inside:
            standing = ledger.standing(visit)
            assert standing is not None and standing.account is not None
            if standing.status == "settled":
                assert standing.total == day.receipts[visit].total
        found = ledger.balances()[store.currency]
    assert found.get("provider", 0) == bank.total and found.get("receivable", 0) == 0
    assert all(n == 1 for n in bank.n_captures.values())
