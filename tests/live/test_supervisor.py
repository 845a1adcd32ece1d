"""Processes under a supervisor, end to end: kills, hangs, memory, changed folders, a broker. Waits are for events."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from broker import MOSQUITTO, Mosquitto
from live.stepping import Day

from bench.endurance import serve as bench
from fusion.errors import ConfigError, FusionError
from fusion.files.recordings import Recording
from fusion.live.clock import ManualClock
from fusion.live.config import ServeConfig
from fusion.live.publisher import Publisher
from fusion.live.supervisor import Limits, Supervisor
from fusion.live.worker import LOCK_WAIT_S, StoreThread, store_lock
from fusion.money.retailers import Chain
from fusion.observations import Frame, GateScan, ShelfReading
from fusion.store.models import Store

ROOT = Path(__file__).resolve().parents[2]
# Generous: a machine may be busy with other work.
LIMIT_S = 120.0


def ask(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def wait_until(holds: Any) -> None:
    assert bench.until(holds, LIMIT_S)


# ---- one process -----------------------------------------------------------------------------------------------------


def test_a_store_is_served_once(tmp_path: Path) -> None:
    clock, stopping = ManualClock(), threading.Event()
    with store_lock(tmp_path / "lock", stopping, clock) as first:
        assert first
        with pytest.raises(FusionError, match="another process serves this store"), store_lock(
            tmp_path / "lock", stopping, clock
        ):
            pass
        assert clock.now_s == pytest.approx(LOCK_WAIT_S, abs=0.1)
        stopping.set()
        with store_lock(tmp_path / "lock", stopping, clock) as second:
            assert not second
    with store_lock(tmp_path / "lock", threading.Event(), clock) as again:
        assert again


def test_a_threads_failure_is_in_its_status(day: Day, tmp_path: Path) -> None:
    thread = StoreThread(ServeConfig(day.store, tmp_path, tmp_path, "python:live.stepping:failing", {}, 0.0))
    assert not thread.status()["ready"]
    thread.start()
    thread.join(LIMIT_S)
    assert thread.ended and thread.failure == thread.status()["failure"] == "the broker is gone" and not thread.over
    assert (tmp_path / "snapshot").exists()


def test_a_thread_stops_after_a_last_snapshot(recording: Path, day: Day, tmp_path: Path) -> None:
    options = {"recording": str(recording), "speed": 4.0}
    source = "python:live.stepping:patient"
    thread = StoreThread(ServeConfig(day.store, tmp_path, tmp_path, source, options, time.monotonic()))
    thread.start()
    wait_until(lambda: thread.ended or thread.status().get("newest_ns"))
    thread.stop()
    thread.join(LIMIT_S)
    assert thread.ended and not thread.failure and not thread.over and not thread.restart
    status = thread.status()
    assert status["snapshot_ns"] == status["newest_ns"] > 0


# ---- many processes --------------------------------------------------------------------------------------------------


def test_a_store_killed_again_and_again_bills_the_same(recording: Path, tmp_path: Path) -> None:
    found = bench.kills(
        tmp_path, recording, 3, speed=12.0, kept_s=1e5, seed=2, snapshot_every_s=2.0, limit_s=4 * LIMIT_S,
        source="python:live.stepping:patient",
    )  # fmt: skip
    assert found["kills"] == 3 and found["ended"] and found["gaps"] == 0
    assert found["as without kills"] == found["customers"] == found["visits"] > 0
    assert found["twice"] == found["open"] == found["books that do not add up"] == 0


def test_a_chain_is_watched_changed_and_stopped(recording: Path, tmp_path: Path) -> None:
    """One long scenario, since every process takes a second to start: sick stores are parked, the others unaffected."""
    live = f"recording:{recording}"
    path = bench.make_chain(
        tmp_path, recording,
        {"good": (live, {}), "sick": ("python:json:dumps", {}), "other": (live, {})},
        deaths_max=2, pause_max_s=0.1, deaths_within_s=3600.0,
    )  # fmt: skip
    messages: list[str] = []
    with bench.supervised(path, messages.append) as supervisor:
        stores = lambda: supervisor.health()["stores"]  # noqa: E731
        wait_until(lambda: stores()["good"].get("newest_ns") and stores()["sick"]["state"] == "parked")
        status, text = ask(supervisor.port, "/healthz")
        assert status == 503 and json.loads(text)["stores"]["sick"]["state"] == "parked"
        assert [line for line in messages if line.startswith("sick: parked: 2 deaths")]
        assert stores()["good"]["restarts"] == stores()["other"]["restarts"] == 0
        wait_until(lambda: ask(supervisor.port, "/metrics")[1].count('fusion_store_up{store="good"} 1.0'))
        assert 'fusion_store_parked{store="sick"} 1.0' in ask(supervisor.port, "/metrics")[1]
        assert ask(supervisor.port, "/elsewhere")[0] == 404

        # A faulty folder is refused and named; the store continues with the previous content.
        products = tmp_path / "good" / "products.csv"
        right = products.read_text()
        products.write_text(right.replace(",19.0", ",0.19").replace(",7.0", ",0.07"))
        supervisor.reload()
        wait_until(lambda: "products.csv" in stores()["good"]["configuration_refused"])
        pid = supervisor.pids()["good"]
        # A correct one is adopted in place.
        products.write_text(right)
        store = Store.load(tmp_path / "good")
        first = store.cameras[0]
        moved = first.model_copy(update={"translation": tuple(value + 0.02 for value in first.translation)})
        store.model_copy(update={"cameras": (moved, *store.cameras[1:])}).save(tmp_path / "good")
        supervisor.reload()
        wait_until(lambda: any("continues with the changed" in line for line in stores()["good"]["messages"]))
        assert stores()["good"]["configuration_refused"] == "" and supervisor.pids()["good"] == pid
    assert {entry["state"] for name, entry in stores().items() if name != "sick"} == {"stopped"}
    assert all((tmp_path / "serve" / name / "snapshot").exists() for name in ("good", "other"))


def test_processes_that_hang_or_take_too_much_memory_are_ended(recording: Path, tmp_path: Path) -> None:
    live = f"recording:{recording}"
    path = bench.make_chain(
        tmp_path, recording,
        {"good": (live, {}), "hung": (live, {}), "slow": ("python:bench.endurance.serve:hungry", {}),
         "quick": ("python:bench.endurance.serve:hungry", {"at_once": True})},
        deaths_max=2, deaths_within_s=3600.0, pause_max_s=0.1, memory_max_mb=300,
    )  # fmt: skip
    messages: list[str] = []
    # A busy machine may take a process away from its core for a second or two, but hardly for twelve.
    with bench.supervised(path, messages.append, Limits(hang_s=12.0, look_s=0.3)) as supervisor:
        stores = lambda: supervisor.health()["stores"]  # noqa: E731
        wait_until(lambda: stores()["hung"]["state"] == "live")
        os.kill(supervisor.pids()["hung"], signal.SIGSTOP)
        wait_until(lambda: stores()["slow"]["state"] == stores()["quick"]["state"] == "parked")
        wait_until(lambda: stores()["hung"]["restarts"] == 1 and stores()["hung"]["state"] == "live")
        assert stores()["good"]["state"] == "live" and stores()["good"]["restarts"] == 0
    assert any("hung: died: did not report for 12 s" in line for line in messages)
    assert "MiB of memory, want at most 300" in stores()["slow"]["why"]
    assert "MemoryError" in stores()["quick"]["why"]


def test_stores_of_one_process_are_served_separately_after_it_died(recording: Path, tmp_path: Path) -> None:
    live = f"recording:{recording}"
    path = bench.make_chain(tmp_path, recording, {"a": (live, {}), "b": (live, {})}, stores_per_process=2)
    with bench.supervised(path) as supervisor:
        stores = lambda: supervisor.health()["stores"]  # noqa: E731
        well = lambda: all(one["state"] == "live" and one.get("newest_ns") for one in stores().values())  # noqa: E731
        wait_until(well)
        first = supervisor.pids()
        assert first["a"] == first["b"]
        os.kill(first["a"], signal.SIGKILL)
        wait_until(lambda: {one["restarts"] for one in stores().values()} == {1} and well())
        assert len(set(supervisor.pids().values()) - {first["a"]}) == 2


def test_the_command_ends_on_a_signal(recording: Path, tmp_path: Path) -> None:
    path = bench.make_chain(tmp_path, recording, {"a": (f"recording:{recording}", {})})
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "fusion", "serve", str(path)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: (tmp_path / "serve" / "a" / "snapshot").exists())
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
    finally:
        process.kill()
        assert process.stderr is not None
        assert "ended" in process.stderr.read()


# ---- the chain's file ------------------------------------------------------------------------------------------------


def test_a_faulty_source_is_refused_before_anything_starts(recording: Path, tmp_path: Path) -> None:
    path = bench.make_chain(tmp_path, recording, {"a": ("recording:x", {"sped": 1}), "b": ("carrier pigeon", {})})
    with pytest.raises(ConfigError) as error, Supervisor(path):
        pass
    assert "sped: unknown key" in str(error.value) and "want mqtt://HOST" in str(error.value)


def test_only_stores_of_the_chain_are_served(recording: Path, tmp_path: Path) -> None:
    path = bench.make_chain(tmp_path, recording, {"a": ("simulation", {})})
    assert Chain.load(path).serving is not None
    path.write_text(path.read_text().replace('store = "a"', 'store = "b"'))
    with pytest.raises(ConfigError, match=r"serve\.store\[0\]: want a store of a retailer, got 'b'"):
        Chain.load(path)
    shutil.rmtree(tmp_path / "a")


def test_stores_load_as_they_were_written(recording: Path, tmp_path: Path) -> None:
    bench.make_chain(tmp_path, recording, {"a": ("simulation", {})})
    assert Store.load(tmp_path / "a").cameras == Recording(recording).store.cameras


# ---- behind a broker -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto on this machine")
def test_a_store_behind_a_broker_that_is_killed_bills_as_a_replay_does(
    recording: Path, day: Day, broker: Mosquitto, tmp_path: Path
) -> None:
    store, name = day.store, day.store.id
    path = bench.make_chain(
        tmp_path, recording, {name: (f"mqtt://{broker.address}", {})}, pause_max_s=0.1, snapshot_every_s=2.0
    )
    names = {Frame: "cameras", ShelfReading: "scales", GateScan: "gates"}
    messages: list[str] = []
    with bench.supervised(path, messages.append) as supervisor:
        publishers = {kind: Publisher(broker.address, name, publisher, kept_s=1e4) for kind, publisher in names.items()}
        health = lambda: supervisor.health()["stores"][name]  # noqa: E731
        chunks = [list(chunk) for _, chunk in groupby(day.observations, lambda one: one.t_ns // 500_000_000)]
        for i, chunk in enumerate(chunks):
            for kind, together in groupby(chunk, type):
                publishers[kind].publish(*together)
            # No publisher's data overtake those of another by seconds, nor the engine, which would drop them.
            assert all(publisher.flush(LIMIT_S) for publisher in publishers.values())
            wait_until(lambda: health().get("newest_ns", 0) > chunk[0].t_ns - 3 * 10**9)  # noqa: B023
            if i == len(chunks) // 2:
                os.kill(supervisor.pids()[name], signal.SIGKILL)
        folder = tmp_path / "serve" / name
        wait_until(lambda: len(bench.booked(folder, store).n_receipts) == len(day.receipts))
        assert health()["restarts"] == 1 and not health()["lost_s"] and not health()["dropped"]
        for publisher in publishers.values():
            publisher.close()
    compared = bench.compared(bench.booked(folder, store), day.receipts)
    assert compared["as without kills"] == compared["customers"] == 3, messages
    assert compared["twice"] == compared["open"] == compared["books that do not add up"] == 0
