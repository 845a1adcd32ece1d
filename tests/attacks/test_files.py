"""What an attacker or a careless operator does to a store's files, each refused, survived or reported."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from money.books import DAY_NS, STORE, T_NS, TWO, make_store, receipt

from fusion.commands.main import main
from fusion.errors import ConfigError, LedgerError
from fusion.files.private import locked
from fusion.files.recordings import Recording
from fusion.files.streams import GROUP_VALUES_MAX
from fusion.live.clock import ManualClock
from fusion.live.config import ServeConfig
from fusion.live.worker import StoreThread
from fusion.money.checkpoint import Head
from fusion.money.entries import EntryRow, Posting, canonical_bytes, chained_hash, genesis_hash
from fusion.money.ledger import Ledger
from fusion.money.profiles import Profiles
from fusion.money.vault import Holder
from fusion.money.verifying import verify_books
from fusion.observations import GateScan
from fusion.people.scans import AT_GATE_MAX
from fusion.people.visits import Visits
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.till.opening import opened
from fusion.till.settings import TillFile
from fusion.till.till import Around, Till


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with a store, and its books with three paid visits of customers."""
    STORE.save(tmp_path / "store")
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as ledger:
        visit(ledger, 0, 3)
    return tmp_path


def visit(ledger: Ledger, first: int, last: int) -> None:
    for i in range(first, last):
        ledger.hold(Holder(f"p{i}", f"customer {i}", f"tok_{i}", None, T_NS))
        ledger.open_visit(f"v{i}", f"p{i}", T_NS)
        ledger.post_receipt(receipt(f"v{i}", *TWO, account=f"p{i}"))


def verified(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    """Exit code and output of `fusion verify`."""
    capsys.readouterr()
    code = main(["verify", str(folder / "store"), str(folder / "ledger.sqlite"), *options])
    output = capsys.readouterr()
    return code, output.out + output.err


def snapshot_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---- 17: copies and forgeries ----------------------------------------------------------------------------------------


@pytest.fixture
def running(shop: Path) -> Iterator[Ledger]:
    with Ledger.open(shop / "ledger.sqlite", STORE) as ledger:
        visit(ledger, 3, 6)
        yield ledger


@pytest.mark.attack(17)
def test_a_copy_of_running_books_without_their_log_is_called_incomplete(
    shop: Path, running: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copytree(shop / "store", copy / "store")
    shutil.copy(shop / "ledger.sqlite", copy)
    before = snapshot_of(copy)
    code, output = verified(copy, capsys)
    assert code == 2 and "this copy is incomplete" in output and "ledger.sqlite-wal" in output
    shutil.copy(shop / "ledger.sqlite-wal", copy)
    shutil.copy(shop / "store.key", copy)
    before = snapshot_of(copy)
    code, output = verified(copy, capsys)
    assert (code, output.split(",")[0]) == (0, "12 entries")
    assert snapshot_of(copy) == before


@pytest.mark.attack(17)
def test_a_copy_that_was_cut_off_is_called_incomplete(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (shop / "ledger.sqlite").read_bytes()
    (shop / "ledger.sqlite").write_bytes(whole[:-4096])
    code, output = verified(shop, capsys)
    assert code == 2 and f"want {len(whole)} bytes, got {len(whole) - 4096}" in output


@pytest.mark.attack(17)
def test_verify_writes_nothing_and_reads_read_only_copies(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot_of(shop)
    for path in (shop / "ledger.sqlite", shop):
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        code, output = verified(shop, capsys)
        assert code == 0 and output.startswith("6 entries, the chain holds")
        reader = Ledger.open(shop / "ledger.sqlite", STORE, read_only=True)
        with reader, pytest.raises(LedgerError, match=r"readonly|read-only|attempt to write"):
            reader.open_visit("v9", None, T_NS)
    finally:
        shop.chmod(0o700)
    assert snapshot_of(shop) == before


@pytest.mark.attack(17)
def test_running_books_are_verified_without_disturbing_them(
    shop: Path, running: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output = verified(shop, capsys)
    assert code == 0 and output.startswith("12 entries")
    visit(running, 6, 7)
    assert running.verify() is None and running.head().seq == 14


@pytest.mark.attack(17)
@pytest.mark.parametrize("books", [b"", b"SQLite format 3\0", b"receipts\n" * 50], ids=["empty", "torn", "text"])
def test_what_is_no_book_is_not_called_whole(shop: Path, books: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "ledger.sqlite").write_bytes(books)
    before = snapshot_of(shop)
    assert verified(shop, capsys)[0] == 2 and snapshot_of(shop) == before


def forge(path: Path, *, last_seq: int, double: bool = False) -> None:
    """Cut the tail, double an amount if asked, and compute the whole chain again."""
    connection = sqlite3.connect(path, isolation_level=None)
    triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    for table, column in (("posting", "entry"), ("entry", "seq")):
        connection.execute(f"DELETE FROM {table} WHERE {column} > ?", (last_seq,))
    if double:
        connection.execute("UPDATE posting SET amount = 2 * amount WHERE entry = 2")
    digest = genesis_hash(STORE.id, STORE.currency)
    for row in map(EntryRow._make, connection.execute("SELECT * FROM entry ORDER BY seq").fetchall()):
        legs = connection.execute(
            "SELECT account, currency, amount FROM posting WHERE entry = ? ORDER BY line", (row.seq,)
        ).fetchall()
        digest = chained_hash(digest, canonical_bytes(*row[:-1], list(map(Posting._make, legs))))
        connection.execute("UPDATE entry SET hash = ? WHERE seq = ?", (digest, row.seq))
    for _, text in triggers:
        connection.execute(text)
    connection.close()


def tampered(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


@pytest.mark.attack(17)
def test_triggers_replaced_by_empty_ones_of_the_same_names_are_found(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tampered(
        shop / "ledger.sqlite",
        "DROP TRIGGER entry_update",
        "CREATE TRIGGER entry_update BEFORE UPDATE ON entry BEGIN SELECT 1; END",
    )
    code, output = verified(shop, capsys)
    assert code == 1 and output.startswith("schema: trigger entry_update: want it as the books create it")


@pytest.mark.attack(17)
def test_a_cut_tail_with_the_chain_computed_again_is_found_by_the_checkpoint_beside_the_books(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cryptography")
    with Ledger.open(shop / "ledger.sqlite", STORE) as ledger:
        ledger.post_receipt(receipt("unknown visitor", *TWO, account=None))
    assert main(["checkpoint", str(shop / "store"), str(shop / "ledger.sqlite")]) == 0
    code, output = verified(shop, capsys)
    assert code == 0 and "compared with the checkpoint of entry 7" in output
    forge(shop / "ledger.sqlite", last_seq=6)
    code, output = verified(shop, capsys)
    assert code == 1 and output.startswith("entry 7: missing, the head that was kept is 7")
    # Nor does the next checkpoint cover the loss up.
    kept = (shop / "shop.checkpoint").read_bytes()
    assert main(["checkpoint", str(shop / "store"), str(shop / "ledger.sqlite")]) == 2
    assert "entries were lost or rewritten" in capsys.readouterr().err
    assert (shop / "shop.checkpoint").read_bytes() == kept


@pytest.mark.attack(17)
def test_an_amount_changed_with_the_chain_computed_again_is_found_by_the_seals_of_the_vault(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forge(shop / "ledger.sqlite", last_seq=6, double=True)
    code, output = verified(shop, capsys)
    assert code == 1 and "the link of visit 'v1' belongs to another entry" in output


@pytest.mark.attack(17)
@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE holder SET token = 'tok_2' WHERE pseudonym = 'p1'", "the customer behind 'p1' was changed"),
        ("UPDATE holder SET email = 'mallory@example.org' WHERE pseudonym = 'p1'", "the customer behind 'p1'"),
        ("UPDATE link SET account = 'p2' WHERE visit = 'v1'", "the link of visit 'v1' was changed"),
        (
            "UPDATE link SET (account, enter_ns, entry, seal) = "
            "(SELECT account, enter_ns, entry, seal FROM link WHERE visit = 'v2') WHERE visit = 'v1'",
            "the link of visit 'v1' was changed",
        ),
    ],
    ids=["token", "mail", "account", "another row"],
)
def test_a_customer_swapped_for_another_is_found_and_charged_nothing(
    shop: Path, statement: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tampered(shop / "ledger.sqlite", statement)
    code, output = verified(shop, capsys)
    assert code == 1 and output.startswith("vault: ") and named in output
    with Ledger.open(shop / "ledger.sqlite", STORE) as ledger:
        assert ledger.customer("v1") is None, "a swapped means of payment must not be used"
        assert ledger.customer("v2") is not None


UNSEALED = (
    "CREATE TABLE old (visit TEXT PRIMARY KEY, account TEXT NOT NULL, enter_ns INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "INSERT INTO old SELECT visit, account, enter_ns FROM link",
    "DROP TABLE link",
    "ALTER TABLE old RENAME TO link",
    "CREATE TABLE old (pseudonym TEXT PRIMARY KEY, account TEXT NOT NULL, token TEXT, email TEXT, "
    "since_ns INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "INSERT INTO old SELECT pseudonym, account, token, email, since_ns FROM holder",
    "DROP TABLE holder",
    "ALTER TABLE old RENAME TO holder",
)


@pytest.mark.attack(17)
def test_a_vault_of_an_older_version_is_sealed_once_and_never_again(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tampered(shop / "ledger.sqlite", *UNSEALED)
    code, output = verified(shop, capsys)
    assert code == 1 and "vault: its rows are not sealed" in output
    with Ledger.open(shop / "ledger.sqlite", STORE) as ledger:
        assert ledger.verify() is None
        noted = ledger.recorded("vault", "sealed")
        assert noted is not None and noted.request == {"links": 3, "holders": 3}
        customer = ledger.customer("v1")
        assert customer is not None and customer.token == "tok_1"
    tampered(shop / "ledger.sqlite", *UNSEALED, "UPDATE holder SET token = 'tok_2' WHERE pseudonym = 'p1'")
    with pytest.raises(Exception, match="seals of the vault were removed after they had been made"):
        Ledger.open(shop / "ledger.sqlite", STORE)


@pytest.mark.attack(17)
def test_seals_removed_since_a_checkpoint_are_found_though_the_store_sealed_the_vault_again(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cryptography")
    assert main(["checkpoint", str(shop / "store"), str(shop / "ledger.sqlite")]) == 0
    tampered(shop / "ledger.sqlite", *UNSEALED, "UPDATE holder SET token = 'tok_2' WHERE pseudonym = 'p1'")
    Ledger.open(shop / "ledger.sqlite", STORE).close()
    code, output = verified(shop, capsys)
    assert code == 1 and "the vault was sealed a second time" in output


@pytest.mark.attack(17)
def test_another_key_in_the_place_of_the_stores_seals_nothing(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "store.key").unlink()
    with pytest.raises(Exception, match="cannot be used without the key that seals it"):
        Ledger.open(shop / "ledger.sqlite", STORE)
    code, output = verified(shop, capsys)
    assert code == 0 and "seals were not checked" in output
    (shop / "store.key").write_text("ab" * 32 + "\n")
    (shop / "store.key").chmod(0o600)
    code, output = verified(shop, capsys)
    assert code == 1 and "sealed with another store's key" in output
    with pytest.raises(LedgerError, match="put back the one that lay beside it"):
        Ledger.open(shop / "ledger.sqlite", STORE)


def test_a_checkpoint_of_another_key_is_refused_and_kept(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    forged = Head(6, "00" * 32).checkpoint(ed25519.Ed25519PrivateKey.generate(), T_NS, STORE)
    (shop / "shop.checkpoint").write_text(forged)
    assert verified(shop, capsys)[0] == 2
    assert main(["checkpoint", str(shop / "store"), str(shop / "ledger.sqlite")]) == 2
    assert "want it signed by this key" in capsys.readouterr().err
    assert (shop / "shop.checkpoint").read_text() == forged


# ---- 18: statements --------------------------------------------------------------------------------------------------


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    for name in ("kiosk", "stand"):
        make_store(name).save(tmp_path / name)
    (tmp_path / "chain.toml").write_text(
        'format_version = 1\n[[retailer]]\nid = "n"\nname = "N"\nbrand = "N"\nfee_monthly = 100\n'
        'stores = ["kiosk", "stand"]\n'
    )
    (tmp_path / "books").mkdir()
    return tmp_path


@pytest.mark.attack(18)
@pytest.mark.parametrize("options", [["--dry-run"], []], ids=["dry run", "posting"])
def test_a_statement_in_the_wrong_folder_makes_no_books(
    chain: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["statement", str(chain / "chain.toml"), str(chain / "books"), "2026-03", *options]) == 2
    assert "kiosk.sqlite: the books do not exist" in capsys.readouterr().err
    assert list((chain / "books").iterdir()) == []


@pytest.mark.attack(18)
def test_a_statement_posts_no_fee_where_one_of_the_books_is_empty_or_missing(
    chain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    books = chain / "books"
    with Ledger.open(books / "kiosk.sqlite", make_store("kiosk")) as ledger:
        ledger.post_receipt(receipt("v", *TWO, account=None))
    arguments = ["statement", str(chain / "chain.toml"), str(books), "2026-03"]
    assert main(arguments) == 2 and "stand.sqlite: the books do not exist" in capsys.readouterr().err
    Ledger.open(books / "stand.sqlite", make_store("stand")).close()
    assert main(arguments) == 2 and "stand.sqlite: holds no entry" in capsys.readouterr().err
    with Ledger.open(books / "kiosk.sqlite", make_store("kiosk")) as ledger:
        assert ledger.head().seq == 1, "nothing was posted for the others either"


@pytest.mark.attack(18)
def test_a_dry_run_leaves_the_books_byte_for_byte(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    books = chain / "books"
    for name in ("kiosk", "stand"):
        with Ledger.open(books / f"{name}.sqlite", make_store(name)) as ledger:
            ledger.post_receipt(receipt("v", *TWO, account=None))
    before = snapshot_of(books)
    assert main(["statement", str(chain / "chain.toml"), str(books), "2026-03", "--dry-run"]) == 0
    assert capsys.readouterr().out.count("2026-03:") == 2 and snapshot_of(books) == before


# ---- 16: who may read and lock ---------------------------------------------------------------------------------------


@pytest.mark.attack(16)
def test_whatever_a_served_store_writes_is_its_owners_alone(tmp_path: Path) -> None:
    """Also what an older version, or an operator with another umask, had left open to others."""
    store = demo_store(n_cameras=4, n_plates=4)
    folder = tmp_path / "serve" / store.id
    folder.mkdir(parents=True)
    (folder / "evidence.jsonl").write_text("{}\n")
    (folder / "evidence.jsonl").chmod(0o644)
    folder.chmod(0o755)
    options = {"seed": 1, "minutes": 0.6, "shoppers": 1}
    config = ServeConfig(store, folder, tmp_path, "simulation", options, anchor_s=0.0)
    thread = StoreThread(config, ManualClock())
    before = os.umask(0)
    try:
        thread.run()
    finally:
        os.umask(before)
    loose = [path.name for path in (folder, *folder.rglob("*")) if path.stat().st_mode & 0o077]
    assert loose == [] and {"lock", "store.key", "evidence.jsonl"} <= {path.name for path in folder.iterdir()}
    assert any("open to other users" in line for line in thread.status()["messages"])


@pytest.mark.attack(16)
def test_a_recording_and_what_commands_write_about_people_is_their_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        scenario = Scenario(seed=1, minutes=0.6, shoppers=1)
        Simulation(demo_store(n_cameras=4, n_plates=4), scenario).write(tmp_path / "recording")
        assert main(["run", str(tmp_path / "recording"), "--out", str(tmp_path / "out")]) == 0
    finally:
        os.umask(before)
    written = [tmp_path / "out", *(tmp_path / "out").rglob("*"), *(tmp_path / "recording").glob("*.*l*")]
    assert [path.name for path in written if path.stat().st_mode & 0o077] == [] and len(written) > 8


# ---- 20: files that cost more than they weigh ------------------------------------------------------------------------


@pytest.mark.attack(20)
def test_a_pipe_in_the_place_of_scans_is_refused_at_once(small_recording: Path, tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    shutil.copytree(small_recording, folder)
    (folder / "gate.jsonl").unlink()
    os.mkfifo(folder / "gate.jsonl")
    with pytest.raises(ConfigError, match=r"gate\.jsonl: want a regular file"):
        Recording(folder)


@pytest.mark.attack(20)
def test_one_row_of_a_hundred_million_samples_is_refused_before_it_is_decoded(
    small_recording: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "recording"
    shutil.copytree(small_recording, folder)
    n = GROUP_VALUES_MAX + 1
    samples = pa.ListArray.from_arrays(pa.array([0, n], pa.int32()), pa.array(np.zeros(n, np.float32)))
    table = pa.table({"time": pa.array([T_NS], pa.int64()), "plate": pa.array(["a"]), "samples": samples})
    pq.write_table(table, folder / "weights.parquet", compression="zstd")
    assert (folder / "weights.parquet").stat().st_size < 20_000
    pool = pa.total_allocated_bytes()
    with pytest.raises(ConfigError, match="want row groups of at most 67108864 values in a column, got 67108865"):
        Recording(folder)
    assert pa.total_allocated_bytes() == pool


@pytest.mark.attack(20)
def test_millions_of_small_readings_are_read_a_few_thousand_at_a_time(small_recording: Path, tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    shutil.copytree(small_recording, folder)
    n = 300_000
    samples = pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32)), pa.array(np.zeros(n, np.float32)))
    table = pa.table({"time": pa.array(np.full(n, T_NS)), "plate": pa.array(["a"] * n), "samples": samples})
    pq.write_table(table, folder / "weights.parquet", compression="zstd")
    assert (folder / "weights.parquet").stat().st_size < 200_000
    batches = [batch.num_rows for batch in Recording(folder).tables("weights")]
    assert sum(batches) == n and max(batches) <= 4096


@pytest.mark.attack(20)
def test_a_flood_of_scans_at_a_gate_is_counted_and_costs_no_more_with_each() -> None:
    store = demo_store(n_cameras=4, n_plates=4)
    gate = next(gate.id for gate in store.gate if gate.direction != "out")
    visits = Visits(store)
    open_scans = visits._scans
    for i in range(20_000):
        visits.at_gate(GateScan(T_NS + i * 250_000, gate, "account", f"account {i}"))
    assert len(open_scans) == AT_GATE_MAX
    assert visits.ignored["gate: more open scans than people can come in by"] == 20_000 - AT_GATE_MAX


# ---- what a running store does by itself -----------------------------------------------------------------------------


@pytest.mark.attack(17)
@pytest.mark.attack(19)
def test_a_running_store_signs_checkpoints_and_forgets_by_itself(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "till.toml").write_text('format_version = 1\n[checkpoints]\ncopies_to = ["elsewhere"]\n')
    lines: list[str] = []
    now_ns = T_NS + 1

    def running() -> AbstractContextManager[Till]:
        around = Around(tmp_path, lambda: now_ns, lambda: 0.0, report=lines.append, threads=False)
        return opened(TillFile.load(tmp_path / "till.toml"), STORE, around)

    with running() as till:
        till.front.open_visit("v1", "alice", T_NS)
        till.do_errands()
        assert [visit.account for visit in till.front.open_visits()] == ["alice"]
    for folder in (tmp_path, tmp_path / "elsewhere"):
        assert (folder / "shop.checkpoint").exists() and (folder / "shop.checkpoint.pub").exists()
    now_ns = T_NS + (STORE.privacy.unlink_after_days + 1) * DAY_NS
    with running() as till:
        till.do_errands()
        assert [visit.account for visit in till.front.open_visits()] == [None]
    found = verify_books(tmp_path / "shop.sqlite", STORE)
    assert found.fault is None and "compared with the checkpoint of entry 1" in found.notes[0]
    # Books that lost their end stop the checkpoints, with a line for the operator, and the store opens.
    (tmp_path / "shop.sqlite").unlink()
    with running() as till:
        till.do_errands()
    assert any("entries were lost or rewritten" in line for line in lines)


@pytest.mark.attack(19)
def test_forgetting_an_account_reaches_every_file_of_the_store(
    shop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop / "recording").mkdir()
    gate = {"time": T_NS, "gate": "g", "kind": "scan", "credential": {"type": "account", "account": "customer 1"}}
    for name, rows in {
        "evidence.jsonl": [{"account": "p1", "events": [{"wrists": [{"account": "p1"}]}]}, {"account": "p2"}],
        "receipts.jsonl": [{"visit": "v1", "account": "p1"}],
        "scans.jsonl": [{"after": "x"}, {"gate": True, "line": gate}],
        "recording/gate.jsonl": [gate, {**gate, "credential": {"type": "qr", "token": "p1"}}],
    }.items():
        (shop / name).write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"torn')
    tracks = pa.table({"time": [1, 2, 3], "account": ["p1", "p2", None]})
    for name in ("tracks.parquet", "tracks.1.parquet"):
        pq.write_table(tracks, shop / name)
    # What kills left: a copy of a file that was being replaced, and tracks without their end.
    (shop / "evidence.jsonl.new").write_text('{"account": "p1"}\n')
    (shop / "tracks.2.parquet").write_bytes(b"PAR1")
    profiles = Profiles(shop / "profiles.sqlite")
    profiles.consent("customer 1")
    profiles.close()
    with locked(shop / "lock"):
        monkeypatch.setattr("fusion.commands.forgetting.STORE_MAX_S", 0.0)
        assert main(["forget", str(shop / "store"), str(shop / "ledger.sqlite"), "--account", "customer 1"]) == 1
    assert main(["forget", str(shop / "store"), str(shop / "ledger.sqlite"), "--account", "customer 1"]) == 0
    out = capsys.readouterr().out
    assert "1 visits erased" in out and "recording/gate.jsonl (2)" in out
    left = b"".join(path.read_bytes() for path in shop.rglob("*") if path.is_file())
    assert b"customer 1" not in left and b'"p1"' not in left and b"customer 2" in left
    for name in ("tracks.parquet", "tracks.1.parquet"):
        assert pq.read_table(shop / name)["account"].to_pylist() == [None, "p2", None]
    assert "tracks.2.parquet: a kill left it unreadable" in out
    assert (shop / "evidence.jsonl").read_text().endswith('{"account": "p2"}\n{"torn')
    with Ledger.open(shop / "ledger.sqlite", STORE) as ledger:
        assert ledger.verify() is None and ledger.customer("v2") is not None
