"""A disk that is full for a while, and books that are in use: a store waits in place, and nothing of it is lost."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import sqlite3
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live.stepping import Day, SteppedStore, quiet_config

from fusion.errors import LedgerError
from fusion.files.atomic import replace_file
from fusion.files.growing import append_whole
from fusion.gates.verifiers import GateRequest
from fusion.live.clock import ManualClock
from fusion.live.outbox import Outbox
from fusion.live.scan_log import write_private
from fusion.live.supervisor import is_well
from fusion.money.sqlite import SQLiteDatabase
from fusion.observations import GateScan
from fusion.store.models import Store

FULL = OSError(errno.ENOSPC, "No space left on device")
# Of a disk in memory; books, outbox and snapshots of the day take a tenth of it.
DISK_MB = 12


class Waiting(ManualClock):
    """A clock that calls a function whenever somebody waits for an event."""

    def __init__(self) -> None:
        super().__init__(epoch_ns=10**18)
        self.on_wait: Callable[[], object] = lambda: None

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self.on_wait()
        return super().wait(event, timeout_s)


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=700", "tmpfs", str(folder)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def kept(folder: Path, store: Store) -> dict[str, Any]:
    """What a day has left: books with their chain, receipts, evidence, and what goes to the chain."""
    with contextlib.closing(sqlite3.connect(folder / f"{store.id}.sqlite")) as books:
        tables = ("entry", "posting")
        rows = {table: books.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables}
    with Outbox(folder / "outbox.sqlite", store) as outbox:
        rows |= {stream: outbox.rows_after(stream, 0, 10**6) for stream in ("goods", "health")}
    files = [folder / "evidence.jsonl", *sorted(path for path in (folder / "receipts").rglob("*") if path.is_file())]
    return rows | {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Shop:
    """A store until its first customer has left, whose surroundings fail again and again.

    Attributes:
        fails: whether they fail now.
        injected: whether snapshots fail with them.
        n_waits: how often it had to wait in place.
        causes: what it waited for.
    """

    def __init__(self, day: Day, folder: Path, fail: Callable[[bool], object] | None = None) -> None:
        self.clock, self.n_waits, self.causes = Waiting(), 0, set[str]()
        self.injected, self._n_tries = False, 0
        until_ns = min(receipt.issued_ns for receipt in day.receipts.values()) + 2 * 10**9
        self.fails, self._left = False, deque(one for one in day.observations if one.t_ns < until_ns)
        self.failing = fail or (lambda fails: None)
        self.stepped = SteppedStore(quiet_config(day.store, folder, snapshot_every_s=2.0), self.clock, self._write)
        self.loop = self.stepped.loop
        self.clock.on_wait = self._waited

    def _write(self, path: Path, content: bytes) -> None:
        if self.fails and self.injected:
            raise FULL
        write_private(path, content)

    def fail(self, fails: bool) -> None:
        self.fails, self._n_tries = fails, 0
        self.failing(fails)

    def _waited(self) -> None:
        """In the middle of a write that failed: the world continues."""
        status = self.stepped.status()
        if not self.loop.patience.in_place:
            return
        self.n_waits += 1
        self.causes |= {cause for cause, _ in status["waits"].values()}
        health = {"state": "live", "configuration_refused": "", **status}
        assert not is_well(health) and is_well({**health, "waits": {}})
        assert all(since_ns <= self.clock.wall_ns() for _, since_ns in status["waits"].values())
        for _ in range(20):
            if self._left:
                self.loop.pump.accept(self._left.popleft())
        request = GateRequest(self.loop.engine.newest_ns, "exit", "open", asks="leave")
        assert self.loop.books.till.decide(request).open, "who needs nothing but memory is answered"
        self._n_tries += 1
        if self._n_tries == 4:
            self.fail(False)

    def run(self, every: int) -> None:
        """To the end; everything fails after each so many observations, until it was waited for some times."""
        n = 0
        while self._left:
            self.loop.pump.accept(self._left.popleft())
            n += 1
            if n % every == 0:
                self.fail(True)
            if n % 16 == 0:
                self.loop.step()
        while len(self.loop.intake):
            self.loop.step()
        self.fail(True)
        self.stepped.end()


@pytest.fixture(scope="module")
def undisturbed(day: Day, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    Shop(day, folder).run(10**9)
    return kept(folder, day.store)


def checked(shop: Shop, folder: Path, store: Store, undisturbed: dict[str, Any], cause: str) -> None:
    assert shop.n_waits > 10 and shop.causes == {cause}
    assert kept(folder, store) == undisturbed
    status = shop.stepped.status()
    assert not status["dropped"] and not status["lost_s"] and not status["waits"]
    lines = shop.stepped.messages
    assert any(f": waits, {cause}" in line for line in lines) and any(": continues after " in line for line in lines)


@pytest.mark.attack(26)
def test_a_disk_that_is_full_for_a_while_changes_nothing(
    day: Day, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    with disk(tmp_path / "disk") as folder:
        def fill(fails: bool) -> None:
            filler = folder / "filler"
            if not fails:
                filler.unlink(missing_ok=True)
                return
            with contextlib.suppress(OSError), open(filler, "ab", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 16))

        shop = Shop(day, folder / "store", fill)
        shop.run(200)
        checked(shop, folder / "store", day.store, undisturbed, "the disk is full")


@pytest.mark.attack(26)
def test_writes_that_find_no_room_are_tried_again(
    day: Day, undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above where no disk can be mounted: every function that writes a file fails."""
    shop = Shop(day, tmp_path / "store")

    def failing(write: Callable[..., Any], error: Exception) -> Callable[..., Any]:
        def written(*arguments: Any, **options: Any) -> Any:
            if shop.fails:
                raise error
            return write(*arguments, **options)

        return written

    no_page = sqlite3.OperationalError("database or disk is full")
    no_page.sqlite_errorcode = sqlite3.SQLITE_FULL
    monkeypatch.setattr(SQLiteDatabase, "add", failing(SQLiteDatabase.add, no_page))
    monkeypatch.setattr(Outbox, "_append", failing(Outbox._append, no_page))
    for name in ("fusion.files.growing.append_whole", "fusion.live.scan_log.append_whole"):
        monkeypatch.setattr(name, failing(append_whole, FULL))
    monkeypatch.setattr("fusion.live.gaps.replace_file", failing(replace_file, FULL))
    monkeypatch.setattr("fusion.money.receipts.replace_file", failing(replace_file, FULL))
    shop.injected = True
    shop.run(200)
    checked(shop, tmp_path / "store", day.store, undisturbed, "the disk is full")


@pytest.mark.attack(26)
def test_books_that_another_process_keeps_in_use_are_waited_for(
    day: Day, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "store"
    other: list[sqlite3.Connection] = []

    def fail(fails: bool) -> None:
        for connection in other:
            connection.close()
        other.clear()
        if fails:
            other.append(sqlite3.connect(folder / f"{day.store.id}.sqlite", isolation_level=None))
            other[0].execute("BEGIN IMMEDIATE")

    shop = Shop(day, folder, fail)
    shop.loop.books.ledger.database.connection.execute("PRAGMA busy_timeout = 0")
    shop.run(200)
    checked(shop, folder, day.store, undisturbed, "the books are in use")


@pytest.mark.attack(26)
def test_a_store_that_is_stopped_while_its_disk_is_full_ends_with_the_cause(day: Day, tmp_path: Path) -> None:
    """No snapshot covers what the books lack: the next process gives the engine everything since the one before."""
    shop = Shop(day, tmp_path / "store", lambda fails: None)
    shop.injected = True
    first = next(i for i, one in enumerate(day.observations) if isinstance(one, GateScan))
    shop.stepped.give(day.observations[: first - 50])
    before = shop.loop.checkpoint.saved_ns
    assert before
    shop.fail(True)
    shop.loop.patience._stopping.set()
    with pytest.raises((OSError, LedgerError)):
        shop.loop.save(wait=True)
    assert shop.loop.checkpoint.saved_ns == before
    assert (tmp_path / "store" / "snapshot").exists()
