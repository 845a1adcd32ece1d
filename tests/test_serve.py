"""Many live stores: the bounded queue, a store's process, and the supervisor, as bench/serve.py does at length."""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broker import MOSQUITTO, Mosquitto
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.adapters.ledger import Ledger
from fusion.adapters.mqtt import Publisher
from fusion.adapters.retailers import Chain
from fusion.chain import serve as chain_serve
from fusion.chain.outbox import Outbox
from fusion.chain.worker import SCANS_MAX, Intake, Post, Served
from fusion.config import Store
from fusion.engine import Engine
from fusion.errors import ConfigError
from fusion.observations import Frame, GateScan, Observation, Recording, ShelfReading
from fusion.results import Warning

BENCH = Path(__file__).resolve().parent.parent / "bench"
sys.path.insert(0, str(BENCH))
import serve as bench  # noqa: E402

# ---- the queue -------------------------------------------------------------------------------------------------------

KINDS = ("frame", "weight", "scan")
EMPTY = np.zeros((0, 17, 3), np.float32)


def one(kind: str, number: int) -> Observation:
    if kind == "frame":
        return Frame(number, "cam", EMPTY)
    if kind == "weight":
        return ShelfReading(number, "p", np.zeros(1, np.float32))
    return GateScan(number, "door", "open", "a")


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@given(kinds=st.lists(st.sampled_from(KINDS), max_size=120), limit=st.integers(1, 20))
@settings(max_examples=100, deadline=None)
def test_what_stays_is_the_newest_and_every_scan(kinds: list[str], limit: int) -> None:
    intake = Intake(limit, clock_s=Clock())
    for number, kind in enumerate(kinds):
        intake.put(one(kind, number))
        assert len(intake) <= limit + kinds.count("scan")
    taken: list[Observation] = []
    while batch := intake.take(0.0):
        taken += batch
    numbers = [observation.t_ns for observation in taken]
    assert numbers == sorted(numbers)
    kept = {kind: [n for n in numbers if kinds[n] == kind] for kind in KINDS}
    arrived = {kind: [n for n, k in enumerate(kinds) if k == kind] for kind in KINDS}
    assert kept["scan"] == arrived["scan"]
    # Of weights the newest stay, as many as fit; frames are what gives way to them.
    assert kept["weight"] == arrived["weight"][-limit:]
    assert len(kept["frame"]) + len(kept["weight"]) == min(limit, len(kinds) - len(arrived["scan"])) or kept["weight"]
    n_dropped = Counter({"detections: cam": len(arrived["frame"]) - len(kept["frame"])})
    n_dropped["weights: p"] = len(arrived["weight"]) - len(kept["weight"])
    assert intake.dropped == +n_dropped


def test_what_waited_too_long_is_dropped_but_not_what_is_sent_again() -> None:
    clock = Clock()
    intake = Intake(clock_s=clock, frame_wait_s=0.4, weight_wait_s=0.8)
    intake.put(one("frame", 1), wait=True)
    clock.now_s += 5
    for number, kind in enumerate(KINDS, 2):
        intake.put(one(kind, number))
    clock.now_s += 0.5
    assert [observation.t_ns for observation in intake.take(0)] == [1, 3, 4]
    assert intake.dropped == {"detections: cam": 1}
    for number, kind in enumerate(KINDS, 5):
        intake.put(one(kind, number))
    clock.now_s += 1.0
    assert [observation.t_ns for observation in intake.take(0)] == [7]


def test_scans_have_a_limit_of_their_own() -> None:
    intake = Intake(2, clock_s=Clock())
    for number in range(SCANS_MAX + 3):
        intake.put(one("scan", number))
    assert len(intake) == SCANS_MAX and intake.dropped == {"gate: door": 3}


def test_an_overload_is_told_when_it_begins_and_when_it_is_over() -> None:
    clock = Clock()
    intake = Intake(1, clock_s=clock)
    assert intake.warnings(0) == []
    for number in range(4):
        intake.put(one("frame", number))
    (first,) = intake.warnings(7)
    assert (first.t_ns, first.kind, first.subject) == (7, "overload", "detections: cam")
    assert "3 dropped" in first.message
    intake.put(one("frame", 9))
    assert intake.warnings(8) == []  # Not at each.
    clock.now_s += 1.5
    (last,) = intake.warnings(9)
    assert "4 so far; the overload is over" in last.message
    clock.now_s += 60.0
    assert intake.warnings(10) == []


# ---- one store -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of data with something on every bill: served some ten times as quickly it ends soon."""
    from fusion.simulation import Scenario, Simulation, demo_store

    folder = tmp_path_factory.mktemp("serve") / "recording"
    scenario = Scenario(seed=11, minutes=1.0, shoppers=3, dead_plates=1)
    Simulation(demo_store(n_cameras=4, n_plates=16), scenario).write(folder)
    return folder


def post_of(recording: Path, folder: Path, **options: Any) -> Post:
    store = Recording(recording).store
    options = {"speed": 30.0, "kept_s": 1e5, **options}
    return Post(store, folder, folder, f"recording:{recording}", options, time.monotonic())


def served_to_its_end(post: Post) -> Served:
    served = Served(post)
    served.start()
    served.join(30.0)
    assert served.ended
    return served


def test_a_store_served_to_its_end_has_the_receipts_of_a_replay(recording: Path, tmp_path: Path) -> None:
    served = served_to_its_end(post_of(recording, tmp_path, speed=40.0))
    assert not served.failure and served.over and not served.status()["dropped"]
    store = Recording(recording).store
    books = bench.booked(tmp_path, store)
    truth = bench.uninterrupted(recording, store)
    assert len(truth) == 3 and all(receipt.total for receipt in truth.values())
    assert {visit: (one[0], one[1]) for visit, one in books["visits"].items()} == {
        visit: (receipt.status, receipt.total) for visit, receipt in truth.items()
    }
    assert books["fault"] is None and books["sum"] == 0


def goods_of(folder: Path, store: Store) -> tuple[list[tuple[object, ...]], int]:
    """The transfers that a store keeps for the chain, without numbers and hashes, and how many warnings."""
    with Outbox(folder / "outbox.sqlite", store) as box:
        return [row[1:-1] for row in box.rows_after("goods", 0, 10**6)], box.newest("health")


def test_goods_and_warnings_are_kept_for_the_chain_each_once(recording: Path, tmp_path: Path) -> None:
    store = Recording(recording).store
    engine = Engine(store)
    told = [warning for one in Recording(recording).observations() for warning in engine.feed(one)] + engine.close()
    truth = [
        (one.t_ns, one.idempotency_key, " ".join(one.debit), " ".join(one.credit), one.gtin, one.quantity)
        for one in engine.journal
    ]
    n_warnings = len([one for one in told if isinstance(one, Warning)])
    assert len(truth) > 3 and n_warnings
    # Stopped inside, with all that came sent again; then begun again from its first snapshot, as after a kill.
    stopped_halfway(recording, tmp_path)
    snapshot, kept = (tmp_path / "snapshot").read_bytes(), goods_of(tmp_path, store)
    assert kept[0] == truth[: len(kept[0])] != truth
    first = served_to_its_end(post_of(recording, tmp_path, speed=40.0))
    assert not first.failure and not first.status()["lost_s"] and goods_of(tmp_path, store) == (truth, n_warnings)
    (tmp_path / "snapshot").write_bytes(snapshot)
    second = served_to_its_end(post_of(recording, tmp_path, speed=40.0))
    assert not second.failure and goods_of(tmp_path, store) == (truth, n_warnings)
    assert not [said for said in (*first.status()["said"], *second.status()["said"]) if "outbox" in said]


def stopped_halfway(recording: Path, tmp_path: Path) -> int:
    """A store stopped while somebody is inside; returns the newest data time."""
    served = Served(post_of(recording, tmp_path, speed=8.0))
    served.start()
    engine = None

    def busy() -> bool:
        nonlocal engine
        engine = served._engine
        return engine is not None and len(engine.open_visits) > 0 and served._counts["entered"] > 0

    assert bench.until(busy, 20.0)
    served.stop()
    served.join(10.0)
    assert not served.failure and served.ended and engine is not None
    return engine.newest_ns


def test_after_a_gap_receipts_of_those_inside_go_to_review(recording: Path, tmp_path: Path) -> None:
    newest_ns = stopped_halfway(recording, tmp_path)
    store = Recording(recording).store
    with Ledger.open(tmp_path / f"{store.id}.sqlite", store) as ledger:
        inside = [visit.visit for visit in ledger.open_visits()]
    # The sensors go on twelve seconds later, and nobody has kept what they told meanwhile.
    first_ns = next(iter(Recording(recording).observations())).t_ns
    missed_s = (newest_ns - first_ns) * 1e-9 + 12.0
    post = post_of(recording, tmp_path, speed=10.0, kept_s=0.0)
    late = Post(**{**vars(post), "anchor_s": time.monotonic() - missed_s / 10.0})
    served = served_to_its_end(late)
    assert not served.failure and 10.0 < served.status()["lost_s"] < 40.0
    books = bench.booked(tmp_path, store)
    for visit in inside:
        status, _, _, _, reason = books["visits"][visit]
        assert status == "review" and ("were lost during this visit" in reason or "data ended" in reason)
    assert all(one[0] in ("settled", "review") for one in books["visits"].values())


def test_with_another_layout_open_visits_are_in_review(recording: Path, tmp_path: Path) -> None:
    stopped_halfway(recording, tmp_path)
    post = post_of(recording, tmp_path, speed=40.0)
    facing = post.store.planogram[0]
    moved = facing.model_copy(update={"plate": post.store.plates[-1].plate})
    other = post.store.model_copy(update={"planogram": (*post.store.planogram[1:], moved)})
    served = served_to_its_end(Post(**{**vars(post), "store": other}))
    assert not served.failure
    books = bench.booked(tmp_path, other)
    reasons = [one[4] or "" for one in books["visits"].values()]
    assert any("were changed during this visit" in reason for reason in reasons)
    assert all(one[0] in ("settled", "review") for one in books["visits"].values())


def test_a_damaged_snapshot_costs_no_visit(recording: Path, tmp_path: Path) -> None:
    stopped_halfway(recording, tmp_path)
    data = bytearray((tmp_path / "snapshot").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "snapshot").write_bytes(data)
    served = served_to_its_end(post_of(recording, tmp_path, speed=40.0))
    assert not served.failure and any("damaged" in said for said in served.status()["said"])
    books = bench.booked(tmp_path, served.store)
    assert books["visits"] and all(one[0] in ("settled", "review") for one in books["visits"].values())
    assert max(books["n_receipts"].values()) == 1


# ---- the supervisor --------------------------------------------------------------------------------------------------


def ask(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10.0)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_a_store_killed_again_and_again_bills_the_same(recording: Path, tmp_path: Path) -> None:
    found = bench.kills(tmp_path, recording, 3, speed=12.0, kept_s=1e5, seed=2, snapshot_every_s=2.0, limit_s=40.0)
    assert found["kills"] == 3 and found["ended"] and found["gaps"] == 0
    assert found["as without kills"] == found["customers"] == found["visits"] > 0
    assert found["twice"] == found["open"] == found["books that do not add up"] == 0


def test_a_chain_is_watched_told_of_changes_and_stopped(recording: Path, tmp_path: Path) -> None:
    """One process long, since each takes a second to begin: sick stores are parked, the others do not notice."""
    live = f"recording:{recording}"
    path = bench.make_chain(
        tmp_path, recording,
        {"good": (live, {}), "sick": ("python:json:dumps", {}), "other": (live, {})},
        deaths_max=2, pause_max_s=0.1,
    )  # fmt: skip
    said: list[str] = []
    with bench.supervised(path, said.append) as supervisor:
        stores = lambda: supervisor.health()["stores"]  # noqa: E731
        assert bench.until(lambda: stores()["good"].get("newest_ns") and stores()["sick"]["state"] == "parked", 20.0)
        status, text = ask(supervisor.port, "/healthz")
        assert status == 503 and json.loads(text)["stores"]["sick"]["state"] == "parked"
        assert [line for line in said if line.startswith("sick: parked: 2 deaths")]
        assert stores()["good"]["restarts"] == stores()["other"]["restarts"] == 0
        assert bench.until(lambda: ask(supervisor.port, "/metrics")[1].count('fusion_store_up{store="good"} 1.0'), 5.0)
        assert 'fusion_store_parked{store="sick"} 1.0' in ask(supervisor.port, "/metrics")[1]
        assert ask(supervisor.port, "/elsewhere")[0] == 404

        # A faulty folder is refused and named; the store goes on with the old one.
        products = tmp_path / "good" / "products.csv"
        right = products.read_text()
        products.write_text(right.replace(",19.0", ",0.19").replace(",7.0", ",0.07"))
        supervisor.reload()
        assert bench.until(lambda: "products.csv" in stores()["good"]["configuration_refused"], 5.0)
        pid = supervisor.pids()["good"]
        # One that is right is taken over in place.
        products.write_text(right)
        store = Store.load(tmp_path / "good")
        first = store.cameras[0]
        moved = first.model_copy(update={"translation": tuple(value + 0.02 for value in first.translation)})
        store.model_copy(update={"cameras": (moved, *store.cameras[1:])}).save(tmp_path / "good")
        supervisor.reload()
        assert bench.until(lambda: "goes on with the changed configuration" in stores()["good"]["said"], 10.0)
        assert stores()["good"]["configuration_refused"] == "" and supervisor.pids()["good"] == pid
    assert {one["state"] for name, one in stores().items() if name != "sick"} == {"stopped"}
    assert all((tmp_path / "serve" / name / "snapshot").exists() for name in ("good", "other"))


def test_what_hangs_or_takes_too_much_memory_is_ended(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain_serve, "HANG_S", 1.5)
    monkeypatch.setattr(chain_serve, "LOOK_S", 0.3)
    live = f"recording:{recording}"
    path = bench.make_chain(
        tmp_path, recording,
        {"good": (live, {}), "hung": (live, {}), "slow": ("python:serve:hungry", {}),
         "quick": ("python:serve:hungry", {"at_once": True})},
        deaths_max=2, pause_max_s=0.1, memory_max_mb=300,
    )  # fmt: skip
    said: list[str] = []
    with bench.supervised(path, said.append) as supervisor:
        stores = lambda: supervisor.health()["stores"]  # noqa: E731
        assert bench.until(lambda: stores()["hung"]["state"] == "live", 20.0)
        os.kill(supervisor.pids()["hung"], signal.SIGSTOP)
        assert bench.until(lambda: stores()["hung"]["restarts"] == 1 and stores()["hung"]["state"] == "live", 10.0)
        assert bench.until(lambda: stores()["slow"]["state"] == stores()["quick"]["state"] == "parked", 15.0)
        assert stores()["good"]["state"] == "live" and stores()["good"]["restarts"] == 0
    assert any("hung: died: said nothing for 1.5 s" in line for line in said)
    assert "MiB of memory, want at most 300" in stores()["slow"]["why"]
    assert "MemoryError" in stores()["quick"]["why"]


def test_stores_of_one_process_go_on_alone_after_it_died(recording: Path, tmp_path: Path) -> None:
    live = f"recording:{recording}"
    path = bench.make_chain(tmp_path, recording, {"a": (live, {}), "b": (live, {})}, stores_per_process=2)
    with bench.supervised(path) as supervisor:
        stores = lambda: supervisor.health()["stores"]  # noqa: E731
        well = lambda: all(one["state"] == "live" and one.get("newest_ns") for one in stores().values())  # noqa: E731
        assert bench.until(well, 20.0)
        first = supervisor.pids()
        assert first["a"] == first["b"]
        os.kill(first["a"], signal.SIGKILL)
        assert bench.until(lambda: {one["restarts"] for one in stores().values()} == {1} and well(), 10.0)
        assert len(set(supervisor.pids().values()) - {first["a"]}) == 2


def test_the_command_ends_as_told(recording: Path, tmp_path: Path) -> None:
    path = bench.make_chain(tmp_path, recording, {"a": (f"recording:{recording}", {})})
    environment = {**os.environ, "PYTHONPATH": str(BENCH.parent)}
    command = [sys.executable, "-m", "fusion", "serve", str(path)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert bench.until(lambda: (tmp_path / "serve" / "a" / "snapshot").exists(), 30.0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20.0) == 0
    finally:
        process.kill()
        assert process.stderr is not None
        assert "ended" in process.stderr.read()


@pytest.mark.parametrize(
    ("source", "options", "wanted"),
    [
        ("carrier pigeon", {}, "want mqtt://HOST"),
        ("recording:x", {"sped": 1}, "sped: unknown key"),
        ("recording:x", {"speed": 0}, "speed: want a number above 0"),
        ("simulation", {"shoppers": -1}, "shoppers: want a finite number"),
        ("simulation", {"shopers": 1}, "shopers"),
        ("mqtt://me:secret@host", {}, "want no password"),
    ],
)
def test_a_source_that_cannot_be_is_refused_before_anything_starts(
    recording: Path, tmp_path: Path, source: str, options: dict[str, Any], wanted: str
) -> None:
    path = bench.make_chain(tmp_path, recording, {"a": (source, options)})
    with pytest.raises(ConfigError, match=wanted), bench.Supervisor(path):
        pass


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


def test_an_engine_goes_on_after_hours_of_silence_with_somebody_inside(recording: Path) -> None:
    """Sensors that come back long after a person was last seen: found by a source that told nonsense."""
    observations = list(Recording(recording).observations())
    engine = Engine(Recording(recording).store)
    for observation in observations:
        engine.feed(observation)
        if engine.open_visits and observation.t_ns > observations[0].t_ns + 20e9:
            break
    assert engine.open_visits
    later_ns = observations[-1].t_ns - observations[0].t_ns + 5 * 3600 * 10**9
    for observation in observations:
        engine.feed(dataclasses.replace(observation, t_ns=observation.t_ns + later_ns))
    assert engine.newest_ns >= observations[0].t_ns + later_ns
    engine.close()


def test_nonsense_from_a_source_is_counted_and_costs_the_store_nothing(recording: Path, tmp_path: Path) -> None:
    post = post_of(recording, tmp_path, speed=40.0)
    served = served_to_its_end(Post(**{**vars(post), "source": "python:serve:garbage", "options": {
        "recording": str(recording), "speed": 40.0,
    }}))  # fmt: skip
    assert not served.failure and served.over
    assert sum(served.status()["not_used"].values()) > 100


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "broker")
    yield broker
    broker.stop()


@pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto on this machine")
def test_a_store_behind_a_broker_that_is_killed_bills_as_a_replay_does(
    recording: Path, broker: Mosquitto, tmp_path: Path
) -> None:
    store = Recording(recording).store
    path = bench.make_chain(
        tmp_path, recording, {store.id: (f"mqtt://{broker.address}", {})}, pause_max_s=0.1, snapshot_every_s=2.0
    )
    observations = list(Recording(recording).observations())
    names = {Frame: "cameras", ShelfReading: "scales", GateScan: "gates"}
    said: list[str] = []
    with bench.supervised(path, said.append) as supervisor:
        publishers = {kind: Publisher(broker.address, store.id, name, kept_s=1e4) for kind, name in names.items()}
        look = lambda: supervisor.health()["stores"][store.id]  # noqa: E731
        chunks = [list(chunk) for _, chunk in groupby(observations, lambda one: one.t_ns // 500_000_000)]
        for i, chunk in enumerate(chunks):
            for kind, together in groupby(chunk, type):
                publishers[kind].publish(*together)
            # No publisher's data overtake another's by seconds. The process dies when half has come.
            assert all(publisher.flush(20.0) for publisher in publishers.values())
            if i % 20 == 0 or i == len(chunks) - 1:
                assert bench.until(lambda: look().get("newest_ns", 0) > chunk[0].t_ns - 3 * 10**9, 30.0)  # noqa: B023
            if i == len(chunks) // 2:
                os.kill(supervisor.pids()[store.id], signal.SIGKILL)
        truth = bench.uninterrupted(recording, store)
        folder = tmp_path / "serve" / store.id
        bench.until(lambda: len(bench.booked(folder, store)["n_receipts"]) == len(truth), 20.0)
        assert look()["restarts"] == 1 and not look()["lost_s"] and not look()["dropped"]
        for publisher in publishers.values():
            publisher.close()
    told = bench.compared(bench.booked(folder, store), truth)
    assert told["as without kills"] == told["customers"] == 3, said
    assert told["twice"] == told["open"] == told["books that do not add up"] == 0
