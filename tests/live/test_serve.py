"""Many live stores: the bounded queue, a store's process, and the supervisor, as `bench serve` does at length."""

from __future__ import annotations

import dataclasses
import errno
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
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

from bench.endurance import serve as bench
from fusion.engine import Engine
from fusion.errors import ConfigError, FusionError
from fusion.files.recordings import Recording
from fusion.gates.verifiers import GateRequest
from fusion.live import supervisor as chain_serve
from fusion.live import worker
from fusion.live.gaps import Gaps
from fusion.live.mqtt import Publisher
from fusion.live.outbox import Outbox
from fusion.live.worker import SCANS_MAX, Intake, Post, Served, _Scans
from fusion.money.ledger import Ledger
from fusion.money.retailers import Chain
from fusion.observations import Frame, GateScan, ItemSighting, Observation, ShelfReading
from fusion.results import Reason, ReasonKind, Receipt, ReceiptStatus, Warning, WarningKind
from fusion.sentences import sentence
from fusion.snapshots import newest_ns
from fusion.store.models import Store

ROOT = Path(__file__).resolve().parents[2]

# ---- the queue -------------------------------------------------------------------------------------------------------

T_NS = 1_767_258_000_000_000_000
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
    assert first == Warning(7, WarningKind.OVERLOAD, "detections: cam", count=3, total=3)
    assert "3 dropped" in sentence(first)
    intake.put(one("frame", 9))
    assert intake.warnings(8) == []  # Not at each.
    clock.now_s += 1.5
    (last,) = intake.warnings(9)
    assert last == Warning(9, WarningKind.OVERLOAD_OVER, "detections: cam", count=1, total=4)
    assert "4 so far, and the overload is over" in sentence(last)
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


def test_goods_and_warnings_are_kept_for_the_chain_each_once(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "GOODS_KEPT_S", 3.0)  # The engine forgets what the outbox has, as after weeks.
    store = Recording(recording).store
    engine = Engine(store)
    told = [warning for one in Recording(recording).observations() for warning in engine.feed(one)] + engine.close()
    truth = [
        (one.t_ns, one.idempotency_key, str(one.debit), str(one.credit), one.gtin, one.quantity)
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
    assert first._engine is not None and len(first._engine.journal) < len(truth) == first._engine.journal.n_recorded
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


# ---- deaths, told by what stands on disk -----------------------------------------------------------------------------


EVERY_S = 5.0


class Listed:
    """A source that gives a list, waits for `more` if there is one, and then ends, or fails as a broker does."""

    behind = True

    def __init__(self, observations: list[Observation], more: threading.Event | None, failure: str) -> None:
        self.ignored: Counter[str] = Counter()
        self._observations, self._more, self._failure = observations, more, failure

    def __iter__(self) -> Iterator[Observation]:
        yield from self._observations
        if self._more is not None:
            self._more.wait()
        if self._failure:
            raise FusionError(self._failure)

    def stop(self) -> None:
        if self._more is not None:
            self._more.set()


@dataclasses.dataclass(frozen=True)
class ListedPost(Post):
    given: Listed | None = None

    def open(self, since_ns: int, ledger: Ledger, tell: object, keep: object) -> Any:
        return self.given


def listed(
    store: Store, folder: Path, observations: list[Observation], *, waits: bool = False, failure: str = ""
) -> Served:
    source = Listed(observations, threading.Event() if waits else None, failure)
    served = Served(ListedPost(store, folder, folder, "listed", {}, 0.0, EVERY_S, given=source))
    served.start()
    return served


def died(store: Store, folder: Path, observations: list[Observation], to: Path) -> None:
    """Give a store's process observations, and keep its folder as it stands then: as if it had been killed."""
    served = listed(store, folder, observations, waits=True)
    counts = served._counts

    def taken() -> bool:
        return served._ready and counts["frames"] + counts["messages"] >= len(observations) and served.beat > 1

    assert bench.until(lambda: served.ended or taken(), 20.0) and not served.failure
    assert bench.until(lambda beat=served.beat: served.beat > beat + 1, 5.0)  # type: ignore[misc]
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("live.sock"))
    served.stop()
    served.join(10.0)


def finished(store: Store, folder: Path, observations: list[Observation]) -> tuple[Served, dict[str, Any]]:
    served = listed(store, folder, observations)
    served.join(30.0)
    assert served.ended and not served.failure, served.failure
    return served, bench.booked(folder, store)


@pytest.fixture(scope="module")
def day(recording: Path) -> tuple[Store, list[Observation], dict[str, Any]]:
    """The recording's store, its observations, and the receipts of a run that nobody interrupts."""
    return Recording(recording).store, list(Recording(recording).observations()), bench.uninterrupted(
        recording, Recording(recording).store
    )  # fmt: skip


def scans_in(observations: list[Observation]) -> list[int]:
    return [i for i, one in enumerate(observations) if isinstance(one, GateScan)]


def test_scans_outlive_any_number_of_deaths(day: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks at the gate again: what one process was not given yet is there for the next."""
    store, observations, truth = day
    first = scans_in(observations)[0]
    died(store, tmp_path / "1", observations[: first - 100], tmp_path / "2")
    since_ns = newest_ns((tmp_path / "2" / "snapshot").read_bytes())
    sent_again = [one for one in observations if one.t_ns >= since_ns]
    scan = scans_in(sent_again)[0]
    with monkeypatch.context() as patch:
        patch.setattr(worker, "FIRST_SNAPSHOT_S", 1e6)  # This one dies before its first.
        patch.setitem(globals(), "EVERY_S", 1e6)
        died(store, tmp_path / "2", sent_again[: scan + 10], tmp_path / "3")
    died(store, tmp_path / "3", [], tmp_path / "4")
    stopped = listed(store, tmp_path / "4", [], waits=True)  # And one that is told to stop.
    assert bench.until(lambda: stopped._ready, 10.0)
    stopped.stop()
    stopped.join(10.0)
    assert newest_ns((tmp_path / "4" / "snapshot").read_bytes()) == since_ns
    served, books = finished(store, tmp_path / "4", [one for i, one in enumerate(sent_again) if i != scan])
    assert bench.compared(books, truth)["as without kills"] == 3 and not served.status()["lost_s"]


def test_scans_and_sightings_are_kept_until_a_snapshot_holds_them(tmp_path: Path) -> None:
    seen = ItemSighting(T_NS + 2, "reader", "read", "96385074", 1, 0.9, zone="z")
    scans = [GateScan(T_NS + i, "door", "open", f"a{i}") for i in (0, 1)]
    first = _Scans(tmp_path)
    first.begin(0)
    first.follow(b"one", tmp_path / "snapshot", {"detections: c": (4, 1, True)})
    for one in (*scans, seen):
        first.add(one)
    second = _Scans(tmp_path)
    assert second.read(b"another") is None and second.read(b"one") == {"detections: c": (4, 1, True)}
    assert list(second.waiting) == [*scans, seen]
    second.begin(0)
    second.follow(b"one", tmp_path / "snapshot", {})
    third = _Scans(tmp_path)
    third.read(b"one")
    assert list(third.waiting) == [*scans, seen] and third.seen_before(seen)
    assert third.next() == scans[0]
    third.begin(T_NS + 1)
    third.follow(b"two", tmp_path / "snapshot", {})
    third.add(scans[0])
    *lines, last = (tmp_path / "scans.jsonl").read_text().splitlines()
    lines += ['{"gate": true, "since": true, "line": {"time": "noon"}}', last]
    (tmp_path / "scans.jsonl").write_text("\n".join(lines) + "\n")
    fourth = _Scans(tmp_path)
    fourth.read(b"two")
    assert list(fourth.waiting) == [scans[0], scans[1], seen] and fourth.unreadable == 1


def test_scans_survive_two_deaths_around_a_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed when the snapshot was there and its scans were still under another name; then while they were read."""
    scan, promised = GateScan(T_NS, "door", "open", "a0"), GateScan(T_NS + 1, "door", "open", "a1")
    kept = _Scans(tmp_path)
    kept.begin(0)
    kept.follow(b"one", tmp_path / "snapshot", {})
    kept.begin(T_NS)
    kept.add(scan)
    kept.promise(promised)  # Its gate was told to open, and the engine has not been given it.

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker, "write", lambda data, path: (path.write_bytes(data), killed()))
        with pytest.raises(KeyboardInterrupt):
            kept.follow(b"two", tmp_path / "snapshot", {"a": (1, 2, False)})
    second = _Scans(tmp_path)
    assert second.read(b"two") == {"a": (1, 2, False)}
    with monkeypatch.context() as patch:
        patch.setattr(worker.os, "fsync", killed)
        second.begin(T_NS)
        with pytest.raises(KeyboardInterrupt):
            second.follow(b"two", tmp_path / "snapshot", {})
    third = _Scans(tmp_path)
    assert third.read(b"two") == {"a": (1, 2, False)} and list(third.waiting) == [scan, promised]
    kept.add(promised)
    kept.begin(T_NS + 2)
    kept.follow(b"three", tmp_path / "snapshot", {})
    fourth = _Scans(tmp_path)
    fourth.read(b"three")
    assert not fourth.waiting


def test_scans_that_come_while_a_snapshot_is_written_follow_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = [GateScan(T_NS + i, "door", "open", f"a{i}") for i in range(4)]
    kept = _Scans(tmp_path)
    kept.begin(0)
    kept.follow(b"one", tmp_path / "snapshot", {})
    kept.add(scans[0])
    kept.begin(T_NS)
    kept.add(scans[1])

    def slow_write(data: bytes, path: Path) -> None:
        kept.add(scans[2])  # The engine's thread goes on.
        shutil.copytree(tmp_path, tmp_path.with_name("killed before"))
        path.write_bytes(data)
        shutil.copytree(tmp_path, tmp_path.with_name("killed after"))

    monkeypatch.setattr(worker, "write", slow_write)
    kept.follow(b"two", tmp_path / "snapshot", {})
    kept.add(scans[3])
    before, after = tmp_path.with_name("killed before"), tmp_path.with_name("killed after")
    for folder, data, since in (
        (before, b"one", scans[:3]), (after, b"two", scans[1:3]), (tmp_path, b"two", scans[1:]),
    ):  # fmt: skip
        found = _Scans(folder)
        found.read(data)
        assert list(found.waiting) == since


def test_a_snapshot_that_cannot_be_written_is_told(day: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, observations, truth = day
    half = len(observations) // 2
    died(store, tmp_path / "1", observations[:half], tmp_path / "2")
    since_ns = newest_ns((tmp_path / "2" / "snapshot").read_bytes())
    again = [one for one in observations if one.t_ns >= since_ns]
    with monkeypatch.context() as patch:

        def full(data: bytes, path: Path) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        served = listed(store, tmp_path / "2", again[:10], waits=True)
        assert bench.until(lambda: served._counts["frames"] > 0, 10.0)
        patch.setattr(worker, "write", full)
        served.stop()
        served.join(10.0)
        assert "No space left on device" in served.failure
    _, books = finished(store, tmp_path / "2", again)
    assert bench.compared(books, truth)["as without kills"] == 3


def test_a_source_that_fails_ends_nothing(day: Any, tmp_path: Path) -> None:
    store, observations, truth = day
    half = len(observations) // 2
    served = listed(store, tmp_path, observations[:half], failure="the broker is gone")
    served.join(20.0)
    assert served.ended and served.failure == "the broker is gone" and not served.over
    with Ledger.open(tmp_path / f"{store.id}.sqlite", store) as ledger:
        assert len(ledger.open_visits()) == 3
    _, books = finished(store, tmp_path, observations[half:])
    assert bench.compared(books, truth)["as without kills"] == 3


@pytest.mark.parametrize("first", ["stale", "mad"])
def test_a_gap_is_seen_though_another_clock_speaks_first(first: str, day: Any, tmp_path: Path) -> None:
    store, observations, truth = day
    start_ns = observations[0].t_ns
    before = [one for one in observations if one.t_ns < start_ns + 18 * 10**9]
    after = [one for one in observations if one.t_ns >= start_ns + (26 if first == "stale" else 18) * 10**9]
    frame = next(one for one in after if isinstance(one, Frame))
    other_ns = -8 * 10**9 if first == "stale" else 3600 * 10**9
    died(store, tmp_path / "1", before, tmp_path / "2")
    # What came since the snapshot is sent again before what has not come yet.
    since_ns = newest_ns((tmp_path / "2" / "snapshot").read_bytes())
    again = [one for one in before if one.t_ns >= since_ns and not isinstance(one, GateScan)]
    odd = dataclasses.replace(frame, t_ns=frame.t_ns + other_ns)
    served, books = finished(store, tmp_path / "2", [odd, *(again if first == "mad" else []), *after])
    told = bench.compared(books, truth)
    if first == "mad":
        assert served.status()["lost_s"] == 0.0 and told["as without kills"] == 3
    else:
        assert served.status()["lost_s"] > 7.0 and told["review"] == told["visits"] and told["settled otherwise"] == 0


def test_a_visit_that_was_anothers_before_goes_to_review_under_that_account(day: Any, tmp_path: Path) -> None:
    store, observations, truth = day
    wrong, other, nobody = truth
    with Ledger.open(tmp_path / f"{store.id}.sqlite", store) as ledger:
        ledger.open_visit(wrong, "somebody else", truth[wrong].enter_ns)
        ledger.open_visit(nobody, None, truth[nobody].enter_ns)
        # A new process takes these for visits of before; this one was the same then.
        listed_before = ledger.open_visits()
    assert len(listed_before) == 2
    died(store, tmp_path / "empty", [], tmp_path / "begun")
    shutil.copy(tmp_path / f"{store.id}.sqlite", tmp_path / "begun")
    for name in ("-wal", "-shm"):
        (tmp_path / "begun" / f"{store.id}.sqlite{name}").unlink(missing_ok=True)
    _, books = finished(store, tmp_path / "begun", observations)
    visits = books["visits"]
    assert visits[wrong][0] == "review" and visits[wrong][2] == "somebody else"
    assert "another account's" in visits[wrong][4] and "another account's" in visits[nobody][4]
    assert visits[nobody][0] == "review" and visits[other][0] == "settled"


def test_who_was_beside_somebody_billed_otherwise_goes_to_review(day: Any, tmp_path: Path) -> None:
    store, observations, truth = day
    first = next(iter(truth.values()))
    less = dataclasses.replace(first, lines=(), total=0, taken=())
    died(store, tmp_path / "empty", [], tmp_path / "begun")
    with Ledger.open(tmp_path / "begun" / f"{store.id}.sqlite", store) as ledger:
        ledger.open_visit(first.visit, first.account, first.enter_ns)
        ledger.post_receipt(less)
    served, books = finished(store, tmp_path / "begun", observations)
    assert served._counts["billed before"] == 1 and books["visits"].pop(first.visit)[1] == 0
    assert [one[0] for one in books["visits"].values()] == ["review", "review"]


def test_a_long_doubt_is_cut_and_stops_nothing(day: Any, tmp_path: Path) -> None:
    store, observations, truth = day
    died(store, tmp_path / "empty", [], tmp_path / "begun")
    doubts = {"gaps": [], "visits": {visit: {"kind": "note", "detail": "because " * 1000} for visit in truth}}
    (tmp_path / "begun" / "doubts.json").write_text(json.dumps(doubts))
    _, books = finished(store, tmp_path / "begun", observations)
    assert {(one[0], len(one[4])) for one in books["visits"].values()} == {("review", 2000)}


def test_a_torn_line_of_evidence_spoils_no_other(day: Any, tmp_path: Path) -> None:
    store, observations, truth = day
    died(store, tmp_path / "empty", [], tmp_path / "begun")
    (tmp_path / "begun" / "evidence.jsonl").write_text('{"visit": "of befo')
    doubts = {"gaps": [], "visits": {visit: {"kind": "note", "detail": "it is doubted"} for visit in truth}}
    (tmp_path / "begun" / "doubts.json").write_text(json.dumps(doubts))
    finished(store, tmp_path / "begun", observations)
    torn, *whole = (tmp_path / "begun" / "evidence.jsonl").read_text().splitlines()
    assert torn == '{"visit": "of befo'
    told = {row["visit"]: row for row in map(json.loads, whole)}
    assert told.keys() == truth.keys() and all(row["status"] == "review" for row in told.values())
    assert all(row["reasons"][-1] == "it is doubted" and row["events"] for row in told.values())


@pytest.mark.parametrize("text", ['{"gaps": [], "vis', "[]", '{"gaps": [[1]], "visits": {}}'])
def test_doubts_that_cannot_be_read_are_doubts(text: str, day: Any, tmp_path: Path) -> None:
    store, observations, _ = day
    half = len(observations) // 2
    died(store, tmp_path / "1", observations[:half], tmp_path / "2")
    (tmp_path / "2" / "doubts.json").write_text(text)
    since_ns = newest_ns((tmp_path / "2" / "snapshot").read_bytes())
    again = [one for one in observations if one.t_ns >= since_ns]
    _, books = finished(store, tmp_path / "2", again)
    assert {one[0] for one in books["visits"].values()} == {"review"} and len(books["visits"]) == 3


def test_a_store_is_served_once(day: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LOCK_WAIT_S", 0.2)
    store, observations, _ = day
    one = listed(store, tmp_path, observations[:100], waits=True)
    assert bench.until(lambda: one._ready, 10.0)
    other = listed(store, tmp_path, observations)
    other.join(10.0)
    assert "another process serves this store" in other.failure and not one.ended
    one.stop()
    one.join(10.0)
    again = listed(store, tmp_path, [], waits=True)
    assert bench.until(lambda: again._ready, 10.0)
    again.stop()
    again.join(10.0)


@pytest.mark.parametrize(
    "scan",
    [
        GateScan(T_NS, "door", "open", ""), GateScan(T_NS, "door", "open", "\ud800"),
        GateScan(T_NS, "door", "none", "a"),
        GateScan(T_NS, "door", "account", "x" * 300), ItemSighting(T_NS, "r", "read", "96385074", 1, 7.0, zone="z"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused(scan: Observation) -> None:
    assert worker._fault(scan)
    assert not worker._fault(GateScan(T_NS, "door", "account", "alice"))


def test_gates_are_answered_after_a_change(day: Any, tmp_path: Path) -> None:
    """A card that is new to the store, before and after its folder changed: prices, and what the gate accepts."""
    store, _, _ = day
    gate = store.gate[0].model_copy(update={"credentials": ("card",)})
    only_cards = store.model_copy(update={"gate": (gate, *store.gate[1:])})
    post = Post(store, tmp_path, tmp_path, "mqtt://127.0.0.1:1", {}, 0.0)
    with Ledger.open(tmp_path / "books.sqlite", store) as ledger:
        kept: list[GateScan] = []
        source = worker._Broker(post, ledger, lambda warning: None, kept.append)
        ask = lambda kind, token: source._decide(GateRequest(T_NS, gate.id, kind, token))  # noqa: E731
        before = ask("card", "tok_11111111").open, ask("open", "").open
        ledger.adopt(only_cards)
        source.follow(only_cards)
        after = ask("card", "tok_22222222"), ask("open", "")
        assert after[0].open and after[0].scan is not None and not after[1].open
        assert before == tuple(kind in store.gate[0].credentials for kind in ("card", "open"))
        assert kept[-1] == after[0].scan  # Before anybody is told to open.
        assert ledger.verify() is None
        source.stop()


# ---- what is missing -------------------------------------------------------------------------------------------------


def test_only_what_was_lost_on_the_way_is_a_gap(tmp_path: Path) -> None:
    gaps = Gaps(tmp_path / "doubts.json")
    s = 10**9
    gaps.go_on({"a": (10 * s, s // 10, False), "slow": (9 * s, s, False), "gone": (3 * s, s, False)}, 10 * s)
    assert not gaps.heard("a", 9 * s, 0)  # Sent again.
    assert not gaps.heard("a", 10 * s + s // 10, 0)
    assert not gaps.heard("slow", 10 * s, 0) and not gaps.heard("gone", 30 * s, 0) and not gaps.heard("new", 30 * s, 0)
    assert not gaps.heard("a", 20 * s, 0)  # The sensor itself was silent.
    assert not gaps.heard("a", 20 * s + s // 10, 3) and not gaps.heard("a", 20 * s + 2 * s // 10, 3)
    # Counted while others stood before it in the queue.
    assert "0.5 s" in gaps.heard("a", 20 * s + 7 * s // 10, 3)
    assert not any(gaps.heard("a", tenth * s // 10, 3) for tenth in range(208, 270))
    assert not gaps.heard("a", 40 * s, 3)  # Long after that it is the sensor again.
    assert gaps.lost_s == pytest.approx(0.5)
    later = Gaps(tmp_path / "doubts.json")
    later.read()
    later.go_on(gaps.streams(), 40 * s)
    assert later.streams()["a"] == (40 * s, 120 * 10**6, True)  # Its own silence is not its pace.
    assert "5.0 s of the sensors' data were lost" in later.heard("a", 45 * s, 0)
    assert later.streams().keys() == {"a"}  # The others had been silent for long.


def test_a_stream_that_is_thinned_out_step_by_step_is_missed_all_the_same(tmp_path: Path) -> None:
    gaps, ms = Gaps(tmp_path / "doubts.json"), 10**6
    t_ms, lost_s = 0, []
    for n_dropped, step_ms in enumerate((33, 33, 100, 300, 600, 1000, 2200), -1):
        t_ms += step_ms
        gaps.heard("a", t_ms * ms, max(n_dropped, 0))
        lost_s.append(round(gaps.lost_s, 3))
    assert lost_s == [0.0, 0.0, 0.0, 0.0, 0.6, 1.0, 2.2]


def test_what_has_not_come_again_is_awaited_for_a_while(tmp_path: Path) -> None:
    s = 10**9
    gaps = Gaps(tmp_path / "doubts.json")
    gaps.go_on({"a": (10 * s, s // 10, False), "b": (10 * s, s // 10, False)}, 10 * s)
    left = Receipt("v", "a", 2 * s, 11 * s, 0, ReceiptStatus.SETTLED, (), "EUR", 0, ())
    assert not gaps.why(left)
    assert not gaps.heard("a", 10 * s + s // 10, 0)
    gaps.look(14 * s, scans_wait=False)
    assert gaps.why(left) == (Reason(ReasonKind.STREAM_NOT_RESUMED),)
    again = Gaps(tmp_path / "doubts.json")
    again.go_on(gaps.streams(), 14 * s)  # Killed once more: it is awaited still.
    assert "4.0 s of the sensors' data were lost" in again.heard("b", 14 * s, 0)
    gaps.look(30 * s, scans_wait=False)
    assert not gaps.why(left)  # Its sensor is gone, which the engine knows by itself.


def test_what_is_lost_at_the_end_is_told_at_the_end(tmp_path: Path) -> None:
    s = 10**9
    gaps = Gaps(tmp_path / "doubts.json")
    assert not gaps.ended(10 * s, {"a": 0})
    gaps.go_on({"a": (10 * s, s // 10, False)}, 10 * s)
    assert "2.0 s of the sensors' data at the end were lost" in gaps.ended(12 * s, {})
    other = Gaps(tmp_path / "other.json")
    assert not other.heard("a", 10 * s, 0)
    assert other.ended(12 * s, {"a": 3})


def test_gaps_touch_who_was_inside_and_who_may_have_anothers_scan(tmp_path: Path) -> None:
    s = 10**9
    gaps = Gaps(tmp_path / "doubts.json")
    gaps.go_on({}, 90 * s)

    def doubted(enter_s: float, exit_s: float) -> bool:
        times = int(enter_s * s), int(exit_s * s)
        return bool(gaps.why(Receipt("v", "a", *times, 0, ReceiptStatus.SETTLED, (), "EUR", 0, ())))

    gaps.add(100 * s, 103 * s, ReasonKind.DATA_LOST)
    assert doubted(10, 101) and doubted(10, 95) and not doubted(10, 89) and doubted(102, 200) and doubted(120, 200)
    gaps.look(105 * s, scans_wait=True)
    gaps.look(140 * s, scans_wait=True)  # They are taken one for another for as long as that goes on.
    assert doubted(139, 200)
    gaps.look(141 * s, scans_wait=False)
    gaps.look(150 * s, scans_wait=True)
    assert doubted(140, 200) and not doubted(142, 200)
    gaps.look(300 * s, scans_wait=False)
    gaps.forget(120 * s)
    assert doubted(120, 310)
    gaps.forget(290 * s)
    assert not doubted(120, 310)


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
        {"good": (live, {}), "hung": (live, {}), "slow": ("python:bench.endurance.serve:hungry", {}),
         "quick": ("python:bench.endurance.serve:hungry", {"at_once": True})},
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
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
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
    served = served_to_its_end(Post(**{**vars(post), "source": "python:bench.endurance.serve:garbage", "options": {
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
