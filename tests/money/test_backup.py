"""Backups: whole or refused, whatever is killed when; restored all at once, and what is newer is named."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Place
from money.books import STORE, T_NS, TWO, balances, receipt

from fusion.commands.main import main
from fusion.errors import LedgerError
from fusion.files.atomic import replace_file
from fusion.files.private import locked
from fusion.money.backup import MANIFEST, Backup, back_up, check, newer_entries, restore
from fusion.money.ledger import Ledger


def served(folder: Path, n_visits: int = 5) -> Path:
    """A store's folder as `serve` leaves it."""
    folder.mkdir()
    with Ledger.open(folder / "shop.sqlite", STORE) as ledger:
        for i in range(n_visits):
            ledger.open_visit(f"v{i}", "alice", T_NS)
            ledger.post_receipt(receipt(f"v{i}", *TWO))
        ledger.open_visit("inside", "bob", T_NS)
    snapshot(folder, b"state 1")
    (folder / "receipts").mkdir()
    (folder / "receipts" / "r.json").write_text("{}")
    (folder / "evidence.jsonl").write_text('{"visit": "v0"}\n')
    (folder / "lock").touch()
    (folder / "app.pem").write_text("key")
    return folder


def snapshot(folder: Path, state: bytes) -> None:
    """As a store replaces it: log, snapshot, name of the log, each in one step."""
    head = {"after": hashlib.sha256(state).hexdigest(), "streams": {}}
    replace_file(folder / "scans.new", json.dumps(head) + "\n", durable=False)
    replace_file(folder / "snapshot", state, durable=False)
    (folder / "scans.new").replace(folder / "scans.jsonl")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def killed_at(step: int, work: Callable[[Callable[[str], None]], object]) -> bool:
    """Run in a process that is killed at its n-th step; whether it came that far."""
    child = os.fork()
    if child == 0:
        n_steps = 0

        def count(name: str) -> None:
            nonlocal n_steps
            n_steps += 1
            if n_steps == step:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            work(count)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_backup_holds_everything_but_keys_and_comes_back_the_same(tmp_path: Path) -> None:
    folder, backup, again = served(tmp_path / "shop"), tmp_path / "backup #1?", tmp_path / "again"
    made = back_up(folder, backup, T_NS)
    assert sorted(made.files) == ["evidence.jsonl", "receipts/r.json", "scans.jsonl", "shop.sqlite", "snapshot"]
    assert list(made.books) == ["shop.sqlite"]
    assert sorted(made.keys) == ["app.pem", "store.key"] and not (backup / "store.key").exists()
    assert {path.stat().st_mode & 0o077 for path in (backup, *backup.rglob("*"))} == {0}
    with pytest.raises(LedgerError, match="is not empty"):
        back_up(folder, backup, T_NS)
    assert restore(backup, again, key_file=folder / "store.key") == made
    left_out = {"app.pem": b"key", "lock": b""}  # shop.sqlite differs in SQLite's counter of changes
    assert contents(again).keys() | left_out.keys() == contents(folder).keys()
    assert all(contents(folder)[name] == data for name, data in contents(again).items() if name != "shop.sqlite")
    with Ledger.open(again / "shop.sqlite", STORE) as ledger:
        assert balances(ledger)["receivable"] == 5 * 697 and ledger.open_visits()[0].account == "bob"


def test_a_backup_of_a_running_store_holds_one_state_with_all_that_was_acknowledged_before(tmp_path: Path) -> None:
    folder, n_posted, ending = served(tmp_path / "shop"), 0, threading.Event()
    ledger = Ledger.open(folder / "shop.sqlite", STORE)

    def post() -> None:
        nonlocal n_posted
        while not ending.is_set():
            ledger.post_receipt(receipt(f"w{n_posted}", *TWO))
            n_posted += 1
            snapshot(folder, f"state {n_posted}".encode())

    poster = threading.Thread(target=post)
    poster.start()
    try:
        for i in range(5):
            before = n_posted
            back_up(folder, tmp_path / f"backup {i}", T_NS)
            copy = contents(tmp_path / f"backup {i}")
            named = json.loads(copy["scans.jsonl"])["after"]
            assert named == hashlib.sha256(copy["snapshot"]).hexdigest(), "a snapshot with the scans of another"
            with Ledger.open(tmp_path / f"backup {i}" / "shop.sqlite", STORE, read_only=True) as held:
                assert held.verify() is None
                n_held = sum(held.standing(f"w{j}") is not None for j in range(before + 50))
                assert n_held >= before, "the books are as new as what was acknowledged"
                assert n_held >= int(copy["snapshot"].split()[1]) - 1, "and as the snapshot"
    finally:
        ending.set()
        poster.join()
        ledger.close()


def test_a_backup_that_is_killed_at_any_step_is_refused(tmp_path: Path) -> None:
    folder = served(tmp_path / "shop")
    step = 1
    while killed_at(step, lambda count, name=f"backup {step}": back_up(folder, tmp_path / name, T_NS, step=count)):  # type: ignore[misc]
        with pytest.raises(LedgerError, match="not finished"):
            restore(tmp_path / f"backup {step}", tmp_path / "again", key_file=folder / "store.key")
        assert not (tmp_path / "again").exists()
        step += 1
    assert step > 5
    restore(tmp_path / f"backup {step}", tmp_path / "again", key_file=folder / "store.key")


def test_a_restore_that_is_killed_at_any_step_leaves_nothing_a_store_could_start_on(tmp_path: Path) -> None:
    folder, backup, again = served(tmp_path / "shop"), tmp_path / "backup", tmp_path / "again"
    back_up(folder, backup, T_NS)
    step = 1
    while killed_at(step, lambda count: restore(backup, again, key_file=folder / "store.key", step=count)):
        assert not again.exists()
        step += 1
    assert step > 10 and (again / "shop.sqlite").exists()
    with Ledger.open(again / "shop.sqlite", STORE) as ledger:
        assert ledger.verify() is None


@pytest.mark.parametrize("name", ["shop.sqlite", "evidence.jsonl", "snapshot", MANIFEST])
def test_a_backup_that_was_changed_is_refused(tmp_path: Path, name: str) -> None:
    folder, backup = served(tmp_path / "shop"), tmp_path / "backup"
    back_up(folder, backup, T_NS)
    data = bytearray((backup / name).read_bytes())
    at = data.index(b'"files"') + 12 if name == MANIFEST else len(data) // 2
    data[at] ^= 1
    (backup / name).write_bytes(data)
    with pytest.raises(LedgerError):
        restore(backup, tmp_path / "again", key_file=folder / "store.key")
    assert not (tmp_path / "again").exists() and list(check(backup, None))


def test_a_manifest_made_anew_by_another_is_refused(tmp_path: Path) -> None:
    folder, backup = served(tmp_path / "shop"), tmp_path / "backup"
    made = back_up(folder, backup, T_NS)
    (backup / "evidence.jsonl").write_text("")
    files = {**made.files, "evidence.jsonl": (hashlib.sha256(b"").hexdigest(), 0)}
    forged = Backup(made.made_ns, files, made.books, made.keys).text(bytes(32))
    (backup / MANIFEST).write_text(forged)
    with pytest.raises(LedgerError, match="was changed, or sealed with another store's key"):
        restore(backup, tmp_path / "again", key_file=folder / "store.key")
    (backup / MANIFEST).write_text(forged.replace('"evidence.jsonl"', '"../evidence.jsonl"'))
    with pytest.raises(LedgerError, match="outside the backup"):
        restore(backup, tmp_path / "again")


def test_a_folder_in_use_or_not_empty_is_left_alone(tmp_path: Path) -> None:
    folder, backup = served(tmp_path / "shop"), tmp_path / "backup"
    back_up(folder, backup, T_NS)
    before = contents(folder)
    with locked(folder / "lock"), pytest.raises(LedgerError, match="a running store uses it"):
        restore(backup, folder)
    with pytest.raises(LedgerError, match="is not empty; move it away and keep it"):
        restore(backup, folder)
    assert contents(folder) == before
    with pytest.raises(LedgerError, match="lies inside the folder"):
        back_up(folder, folder / "backup", T_NS)
    with pytest.raises(LedgerError, match="does not exist"):
        back_up(tmp_path / "none", tmp_path / "other", T_NS)


def test_what_is_newer_than_the_backup_and_what_was_under_way_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, backup, again = served(tmp_path / "shop"), tmp_path / "backup", tmp_path / "again"
    assert main(["backup", str(folder), str(backup)]) == 0
    out = capsys.readouterr().out
    assert "books of shop up to entry 11" in out and "keep these keys elsewhere" in out and "store.key" in out
    with Ledger.open(folder / "shop.sqlite", STORE) as ledger:
        ledger.post_receipt(receipt("inside", *TWO, account="bob"))
        ledger.open_visit("later", None, T_NS)
    folder.rename(tmp_path / "lost")
    arguments = ["--key", str(tmp_path / "lost" / "store.key"), "--lost", str(tmp_path / "lost")]
    assert main(["restore", str(backup), str(again), *arguments]) == 0
    out = capsys.readouterr().out
    assert "1 visits were open" in out and "newer than the backup: visit inside: receipt settled" in out
    assert "2 visits have entries that are newer" in out and "compare the provider's payments" in out
    with Ledger.open(again / "shop.sqlite", STORE) as ledger:
        ledger.open_visit("another", None, T_NS)
        head = ledger.head()
    with pytest.raises(LedgerError, match="are not the books"):
        newer_entries(tmp_path / "lost" / "shop.sqlite", ("shop", "EUR", head.seq, head.sha256))


def test_books_in_postgresql_are_backed_up_as_a_file_and_come_back_row_by_row(
    new_place: Callable[[], Place], tmp_path: Path
) -> None:
    place, empty = new_place(), new_place()
    if place.database is None or empty.database is None:
        pytest.skip("books in a file are copied as they are")
    with place.open(STORE) as ledger:
        ledger.post_receipt(receipt("v\x00\x01", *TWO))
        ledger.open_visit("v2", "bob", T_NS)
        head = ledger.head()
        made = back_up(place.folder, tmp_path / "backup", T_NS, url=place.database, store=STORE.id)
    assert made.books["postgresql-books.sqlite"] == ("shop", "EUR", head.seq, head.sha256)
    again, key = tmp_path / "again", place.folder / "store.key"
    with pytest.raises(LedgerError, match="want a PostgreSQL URL"):
        restore(tmp_path / "backup", again, key_file=key)
    for _ in range(2):  # The second time as after an interruption, when the rows are there already.
        restore(tmp_path / "backup", again, key_file=key, url=empty.database)
        with Ledger.open(empty.database, STORE, vault=again / "vault.sqlite") as ledger:
            assert ledger.verify(head) is None and ledger.head() == head
            assert [visit.account for visit in ledger.open_visits()] == ["bob"]
        again.rename(tmp_path / "first") if again.exists() and not (tmp_path / "first").exists() else None
    with empty.open(STORE) as other:
        other.post_receipt(receipt("v9", *TWO, account=None))
    with pytest.raises(LedgerError, match="left as they are"):
        restore(tmp_path / "backup", tmp_path / "third", key_file=key, url=empty.database)
    assert not (tmp_path / "third").exists()


def test_books_on_a_server_that_were_begun_and_hold_nothing_take_a_backup(
    new_place: Callable[[], Place], tmp_path: Path
) -> None:
    place, begun = new_place(), new_place()
    if place.database is None or begun.database is None:
        pytest.skip("books in a file are copied as they are")
    with place.open(STORE) as ledger, begun.open(STORE):
        ledger.post_receipt(receipt("v1", *TWO))
        head = ledger.head()
        back_up(place.folder, tmp_path / "backup", T_NS, url=place.database, store=STORE.id)
    restore(tmp_path / "backup", tmp_path / "again", key_file=place.folder / "store.key", url=begun.database)
    with Ledger.open(begun.database, STORE, vault=tmp_path / "again" / "vault.sqlite") as ledger:
        assert ledger.verify(head) is None and balances(ledger)["receivable"] == 697
