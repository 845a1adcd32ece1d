"""Crashes, full disks and lost connections: nothing acknowledged is lost, no visit is charged in part or twice."""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Place
from money.books import STORE, T_NS, TWO, balances, receipt, stored_bytes

from fusion.errors import LedgerError
from fusion.money.ledger import Ledger
from fusion.money.postgres import PostgresDatabase
from fusion.money.sqlite import SQLiteDatabase


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    with place.open(STORE) as opened:
        yield opened


N_KILLS = 60


def post_visits(place: Place, first: int, acknowledge: int) -> None:
    """Post visit after visit, and write to a pipe what the ledger has acknowledged."""
    with place.open(STORE) as ledger:
        for i in range(first, 10**6):
            ledger.open_visit(f"v{i}", "alice", T_NS)
            os.write(acknowledge, f"opened {i}\n".encode())
            ledger.post_receipt(receipt(f"v{i}", *TWO))
            os.write(acknowledge, f"posted {i}\n".encode())


def test_kill_loses_nothing_that_was_acknowledged_and_doubles_nothing(place: Place) -> None:
    rng = random.Random(20)
    opened = posted = -1
    for attempt in range(N_KILLS):
        reading, writing = os.pipe()
        # A client that does not know whether its last postings arrived posts them again.
        first = max(0, posted - 2)
        client = os.fork()
        if client == 0:
            try:
                post_visits(place, first, writing)
            finally:
                os._exit(1)
        os.close(writing)
        timer = threading.Timer(rng.uniform(0.0, 0.03), os.kill, (client, signal.SIGKILL))
        # Some are killed while they open the books. For the others the clock runs once they have begun to post, since a
        # busy machine takes its time before that.
        while_opening = attempt % 5 == 0
        if while_opening:
            timer.start()
        with os.fdopen(reading) as acknowledged:
            for n_lines, line in enumerate(acknowledged):
                if n_lines == 4 and not while_opening:
                    timer.start()
                word, number = line.split()
                if word == "opened":
                    opened = max(opened, int(number))
                else:
                    posted = max(posted, int(number))
        timer.join()
        _, status = os.waitpid(client, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, "the client ended on its own"
    with place.open(STORE) as ledger:
        n_charged = balances(ledger).get("receivable", 0) // 697
        charged = [i for i in range(posted + 3) if ledger.postings(f"v{i}")]
        assert charged[: posted + 1] == list(range(posted + 1)), "lost"
        assert n_charged == len(charged), "doubled"
        assert n_charged - (posted + 1) in (0, 1)  # one may have been written without the answer arriving
        known = {one.visit for one in ledger.open_visits()} | {f"v{i}" for i in charged}
        assert {f"v{i}" for i in range(opened + 1)} <= known
        assert posted > 10


def test_a_full_disk_or_a_lock_is_an_error_and_no_partial_charge(tmp_path: Path) -> None:
    database = SQLiteDatabase(tmp_path / "ledger.sqlite", busy_max_s=0.01)
    ledger = Ledger(database, STORE)
    ledger.post_receipt(receipt("v0", *TWO))
    (pages,) = database.connection.execute("PRAGMA page_count").fetchone()
    database.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LedgerError, match="full"):
        for i in range(1, 1000):
            ledger.post_receipt(receipt(f"v{i}", *TWO))
    database.connection.execute("PRAGMA max_page_count = 1000000")
    charged = balances(ledger)["receivable"]
    assert charged == 697 * i
    ledger.post_receipt(receipt(f"v{i}", *TWO))
    assert balances(ledger)["receivable"] == charged + 697
    other = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="locked"):
        ledger.post_receipt(receipt("late", *TWO))
    other.execute("ROLLBACK")
    assert ledger.post_receipt(receipt("late", *TWO))


def test_a_file_that_may_not_grow_is_an_error_and_no_partial_charge(tmp_path: Path) -> None:
    """As when a quota is used up or the disk fails under a write: the kernel refuses it."""
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path, STORE) as ledger:
        ledger.post_receipt(receipt("v", *TWO))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
            ledger = Ledger.open(path, STORE)
            for i in range(10**6):
                try:
                    ledger.post_receipt(receipt(f"v{i}", *TWO))
                except LedgerError as error:
                    os.write(writing, f"{i} {error}".encode())
                    break
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as report:
        n_posted, error = report.read().split(" ", 1)
    os.waitpid(child, 0)
    assert "disk" in error
    with Ledger.open(path, STORE) as ledger:
        assert int(n_posted) > 10 and balances(ledger)["receivable"] == (int(n_posted) + 1) * 697
        assert ledger.post_receipt(receipt(f"v{n_posted}", *TWO))


# ---- databases elsewhere ---------------------------------------------------------------------------------------------


@pytest.fixture
def remote(place: Place) -> Place:
    if place.database is None:
        pytest.skip("has no connection to lose")
    return place


def cut(place: Place) -> None:
    """End every other connection to the database, as a restart of the server does."""
    with place.stranger(STORE) as stranger:
        stranger.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_a_lost_connection_is_an_error_at_most_and_no_partial_charge(ledger: Ledger, remote: Place) -> None:
    ledger.post_receipt(receipt("v0", *TWO))
    cut(remote)
    # No transaction was open, so a new connection is enough.
    assert ledger.post_receipt(receipt("v1", *TWO))
    with pytest.raises(LedgerError), ledger.batch():
        ledger.open_visit("v2", "alice-long-name", T_NS)
        ledger.post_receipt(receipt("v2", *TWO, account="alice-long-name"))
        cut(remote)
        ledger.post_receipt(receipt("v3", *TWO))
    assert balances(ledger)["receivable"] == 2 * 697
    assert b"alice-long-name" not in stored_bytes(remote.folder)
    cut(remote)
    assert ledger.head().seq == 2
    cut(remote)
    assert ledger.post_receipt(receipt("v2", *TWO)) and ledger.post_receipt(receipt("v3", *TWO))
    assert balances(ledger)["receivable"] == 4 * 697


def test_books_that_another_client_holds_are_an_error(remote: Place) -> None:
    other = remote.open(STORE)
    ledger = Ledger(PostgresDatabase(remote.database or "", STORE.id, remote.folder / "v", busy_max_s=0.02), STORE)
    with other.batch():
        other.post_receipt(receipt("v0", *TWO))
        with pytest.raises(LedgerError, match="lock timeout"):
            ledger.post_receipt(receipt("v1", *TWO))
    assert ledger.post_receipt(receipt("v1", *TWO))
    assert balances(other)["receivable"] == 2 * 697
    ledger.close()
    other.close()


def test_an_unreachable_database_is_named_without_its_password(tmp_path: Path, remote: Place) -> None:
    with pytest.raises(LedgerError, match="vault"):
        Ledger.open(remote.database or "", STORE)
    with pytest.raises(LedgerError, match="want no file for the vault"):
        Ledger.open(tmp_path / "ledger.sqlite", STORE, vault=tmp_path / "vault.sqlite")
    with pytest.raises(LedgerError, match=r"postgresql://127\.0\.0\.1/books") as raised:
        Ledger.open("postgresql://scott:tiger@127.0.0.1:1/books", STORE, vault=tmp_path / "vault.sqlite")
    assert "tiger" not in str(raised.value)
