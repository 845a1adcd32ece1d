"""Attacks on staying alive: full disks, servers that are away, kills in a row. Waits are for events."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from live.stepping import Day, SteppedStore, ended, killed, quiet_config
from live.test_loop import saved_ns, scans_in, since_snapshot

from bench.endurance import serve as bench
from fusion.errors import LedgerError
from fusion.live.causes import common_cause
from fusion.live.supervisor import Limits, is_well
from fusion.live.time_watch import TimeState

# Generous: a machine may be busy with other work.
LIMIT_S = 120.0
S = 10**9


def wait_until(holds: Callable[[], object]) -> None:
    assert bench.until(holds, LIMIT_S)


def raised_from(cause: BaseException) -> BaseException:
    try:
        raise LedgerError("books: cannot be written") from cause
    except LedgerError as error:
        return error


@pytest.mark.attack(26)
def test_causes_that_concern_every_store_are_known(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "books.sqlite")
    connection.execute("CREATE TABLE t (x)")
    connection.execute("PRAGMA max_page_count = 3")
    with pytest.raises(sqlite3.OperationalError) as full:
        connection.execute("INSERT INTO t VALUES (zeroblob(1000000))")
    connection.close()
    assert common_cause(raised_from(full.value)) == "the disk is full"
    assert common_cause(OSError(errno.ENOSPC, "No space left on device")) == "the disk is full"
    assert common_cause(raised_from(ConnectionRefusedError(errno.ECONNREFUSED, "refused"))) == "a server is away"
    assert common_cause(raised_from(ValueError("a fault of the store's own"))) == ""
    assert common_cause(LedgerError("books: of another store")) == common_cause(MemoryError()) == ""
    psycopg = pytest.importorskip("psycopg")
    assert common_cause(raised_from(psycopg.errors.AdminShutdown("it ends"))) == "the database is away"
    assert common_cause(raised_from(psycopg.errors.UndefinedTable("no such table"))) == ""


@pytest.mark.attack(26)
def test_a_full_disk_parks_nothing_and_a_parked_store_is_tried_again(recording: Path, tmp_path: Path) -> None:
    """One scenario, since every process takes a second to start: both stores come back by themselves."""
    patient = {"recording": str(recording), "speed": 4.0, "kept_s": 1e5}
    disk, own = tmp_path / "room on the disk", tmp_path / "mended"
    path = bench.make_chain(
        tmp_path, recording,
        {"full": ("python:live.stepping:stopped", {**patient, "error": errno.ENOSPC, "mended": str(disk)}),
         "sick": ("python:live.stepping:stopped", {**patient, "error": errno.EINVAL, "mended": str(own)})},
        deaths_max=2, deaths_within_s=3600.0, pause_max_s=0.1,
    )  # fmt: skip
    messages: list[str] = []
    limits = Limits(common_min_s=0.1, parked_min_s=0.1, parked_max_s=0.1)
    with bench.supervised(path, messages.append, limits) as supervisor:
        stores = lambda: supervisor.health()["stores"]  # noqa: E731
        said = lambda text: sum(line.startswith(text) for line in messages)  # noqa: E731
        wait_until(lambda: said("full: waits: the disk is full") >= 3 and said("sick: parked") >= 2)
        assert not supervisor.health()["well"] and not said("full: parked")
        disk.touch()
        own.touch()
        wait_until(lambda: all(stores()[name].get("newest_ns") for name in ("full", "sick")))
        wait_until(lambda: {store["state"] for store in stores().values()} <= {"live", "ended"})


@pytest.mark.attack(26)
def test_the_supervisor_outlives_its_stores(recording: Path, tmp_path: Path) -> None:
    path = bench.make_chain(tmp_path, recording, {"sick": ("python:json:dumps", {})}, deaths_max=1)
    with bench.supervised(path, limits=Limits(parked_min_s=0.2)) as supervisor:
        wait_until(lambda: supervisor.health()["stores"]["sick"]["state"] == "parked")
        wait_until(lambda: supervisor.health()["stores"]["sick"]["state"] != "parked")
        wait_until(lambda: supervisor.health()["stores"]["sick"]["state"] == "parked")


@pytest.mark.attack(26)
def test_kills_neither_pause_nor_park_a_store_that_comes_further(recording: Path, tmp_path: Path) -> None:
    options = {"recording": str(recording), "speed": 2.0, "kept_s": 1e5}
    path = bench.make_chain(
        tmp_path, recording, {"a": ("python:live.stepping:patient", options)}, deaths_max=2, deaths_within_s=3600.0,
        snapshot_every_s=2.0,
    )  # fmt: skip
    messages: list[str] = []
    with bench.supervised(path, messages.append) as supervisor:
        store = lambda: supervisor.health()["stores"]["a"]  # noqa: E731
        reached_ns = 0
        for n in range(3):
            wait_until(lambda: store()["state"] == "live" and store().get("newest_ns", 0) > reached_ns)  # noqa: B023
            reached_ns = store()["newest_ns"]
            os.kill(supervisor.pids()["a"], signal.SIGKILL)
            wait_until(lambda: store()["restarts"] == n + 1)  # noqa: B023
    assert [line for line in messages if "died" in line or "parked" in line] == ["a: died: signal 9; starts again"] * 3


@pytest.mark.attack(26)
def test_a_customer_whose_way_in_is_lost_is_in_review(day: Day, tmp_path: Path) -> None:
    """The gate was opened for them, and the data of the next seconds are gone with the process."""
    store, observations = day.store, day.observations
    first = scans_in(observations)[0]
    killed(store, tmp_path / "1", observations[: first - 100], tmp_path / "2")
    assert saved_ns(tmp_path / "2")
    sent_again = since_snapshot(tmp_path / "2", observations)
    scan = sent_again[scans_in(sent_again)[0]]
    stepped = SteppedStore(quiet_config(store, tmp_path / "2"))
    stepped.loop.checkpoint.scans.promise(scan)
    stepped.kill(tmp_path / "3")
    later = [row for row in sent_again if row.t_ns > scan.t_ns + 10 * S]
    stepped, books = ended(store, tmp_path / "3", later)
    booked = books.visits[f"unseen {scan.gate} {scan.t_ns}"]
    assert (booked.status, booked.account, booked.total) == ("review", scan.account, 0)
    assert any("came in unseen" in line for line in stepped.messages)
    # The books hold it: a further process that finds the scan again changes nothing.
    again = SteppedStore(quiet_config(store, tmp_path / "3"))
    assert not again.loop.books.review_unseen(scan)
    again.stop()


@pytest.mark.attack(27)
def test_a_store_at_the_wrong_time_is_not_well() -> None:
    """Its sensors and its machine disagree on the time, so its receipts are dated wrongly, or it follows one sensor."""
    health = {"state": "live", "configuration_refused": "", "time_state": TimeState.IN_TIME}
    assert is_well(health) and is_well({**health, "state": "ended", "time_state": TimeState.OFF})
    assert not is_well({**health, "time_state": TimeState.OFF})
    assert not is_well({**health, "state": "parked"}) and not is_well({**health, "configuration_refused": "gates"})
