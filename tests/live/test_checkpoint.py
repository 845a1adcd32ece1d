"""What survives a kill at any instant: scans and sightings, on both sides of a snapshot that is being written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from live.stepping import Day, InlineExecutor

from fusion import snapshots
from fusion.engine import Engine
from fusion.files.atomic import replace_file
from fusion.live.checkpoint import Checkpoint
from fusion.live.clock import ManualClock
from fusion.live.gaps import StreamPosition
from fusion.live.scan_log import ScanLog
from fusion.observations import GateScan, ItemSighting
from fusion.results import ReasonKind

T_NS = 1_767_258_000_000_000_000
POSITIONS = {"detections: c": StreamPosition(4, 1, True)}


class KilledError(Exception):
    """The process dies here."""


class DyingDisk:
    """Replaces files, until a kill just after or just before it has written one of some name."""

    def __init__(self, name: str, *, before: bool) -> None:
        self._name, self._before = name, before

    def __call__(self, path: Path, content: bytes) -> None:
        if path.name == self._name and self._before:
            raise KilledError
        replace_file(path, content)
        if path.name == self._name:
            raise KilledError


def started(log: ScanLog, snapshot: bytes) -> ScanLog:
    """A log that follows a snapshot."""
    log.prepare(0)
    log.commit(snapshot, {})
    return log


def test_scans_and_sightings_are_kept_until_a_snapshot_holds_them(tmp_path: Path) -> None:
    sighting = ItemSighting(T_NS + 2, "reader", "read", "96385074", 1, 0.9, zone="z")
    scans = [GateScan(T_NS + i, "door", "open", f"a{i}") for i in (0, 1)]
    first = ScanLog(tmp_path)
    first.prepare(0)
    first.commit(b"one", POSITIONS)
    for event in (*scans, sighting):
        first.add(event)
    second = ScanLog(tmp_path)
    assert second.read(b"another") is None and second.read(b"one") == POSITIONS
    assert list(second.waiting) == [*scans, sighting]
    started(second, b"one")
    third = ScanLog(tmp_path)
    third.read(b"one")
    assert list(third.waiting) == [*scans, sighting] and third.holds(sighting)
    assert third.next_waiting() == scans[0]
    third.prepare(T_NS + 1)
    third.commit(b"two", {})
    third.add(scans[0])
    *lines, last = (tmp_path / "scans.jsonl").read_text().splitlines()
    lines += ['{"gate": true, "since": true, "line": {"time": "noon"}}', last]
    (tmp_path / "scans.jsonl").write_text("\n".join(lines) + "\n")
    fourth = ScanLog(tmp_path)
    fourth.read(b"two")
    assert list(fourth.waiting) == [scans[0], scans[1], sighting] and fourth.unreadable == 1


def test_scans_survive_two_kills_around_a_snapshot(tmp_path: Path) -> None:
    """Killed when the snapshot was on disk and its log still had another name; then while the log was read."""
    scan, promised = GateScan(T_NS, "door", "open", "a0"), GateScan(T_NS + 1, "door", "open", "a1")
    started(ScanLog(tmp_path), b"one").close()
    dying = ScanLog(tmp_path, DyingDisk("snapshot", before=False))
    dying.read(b"one")
    dying.prepare(T_NS)
    dying.add(scan)
    dying.promise(promised)  # Its gate is about to open, and the engine has not been given it.
    with pytest.raises(KilledError):
        dying.commit(b"two", {"a": StreamPosition(1, 2, False)})
    second = ScanLog(tmp_path, DyingDisk("scans.new", before=True))
    assert second.read(b"two") == {"a": (1, 2, False)}
    second.prepare(T_NS)
    with pytest.raises(KilledError):
        second.commit(b"two", {})
    third = ScanLog(tmp_path)
    assert third.read(b"two") == {"a": (1, 2, False)} and list(third.waiting) == [scan, promised]
    started(third, b"two")
    third.next_waiting()
    third.next_waiting()
    third.prepare(T_NS + 2)
    third.commit(b"three", {})
    fourth = ScanLog(tmp_path)
    fourth.read(b"three")
    assert not fourth.waiting


def test_a_promise_that_is_fulfilled_is_logged_once(tmp_path: Path) -> None:
    promised = GateScan(T_NS + 1, "door", "open", "a1")
    log = started(ScanLog(tmp_path), b"one")
    log.promise(promised)
    log.add(promised)
    found = ScanLog(tmp_path)
    found.read(b"one")
    assert list(found.waiting) == [promised]
    log.prepare(T_NS + 2)
    log.commit(b"two", {})
    after = ScanLog(tmp_path)
    after.read(b"two")
    assert not after.waiting


def test_scans_that_arrive_while_a_snapshot_is_written_belong_to_both_logs(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    scans = [GateScan(T_NS + i, "door", "open", f"a{i}") for i in range(4)]

    def slow_disk(path: Path, content: bytes) -> None:
        slow = path.name == "snapshot" and content == b"two"
        if slow:
            log.add(scans[2])  # The engine's thread continues.
            shutil.copytree(folder, tmp_path / "killed before")
        replace_file(path, content)
        if slow:
            shutil.copytree(folder, tmp_path / "killed after")

    log = started(ScanLog(folder, slow_disk), b"one")
    log.add(scans[0])
    log.prepare(T_NS)
    log.add(scans[1])
    log.commit(b"two", {})
    log.add(scans[3])
    for name, snapshot, since in (
        ("killed before", b"one", scans[:3]), ("killed after", b"two", scans[1:3]), ("store", b"two", scans[1:]),
    ):  # fmt: skip
        found = ScanLog(tmp_path / name)
        found.read(snapshot)
        assert list(found.waiting) == since


def test_intervals_between_snapshots_double_up_to_the_configured_one(day: Day, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, InlineExecutor(), every_s=5.0, first_s=0.5, clock=ManualClock())
    engine, saved_s = Engine(day.store), []
    start_ns = day.observations[0].t_ns
    checkpoint.saved_ns = start_ns
    for observation in day.observations:
        engine.feed(observation)
        if checkpoint.due(engine.newest_ns):
            checkpoint.start(engine, engine.newest_ns)
            assert not checkpoint.due(engine.newest_ns + 10**12)  # One at a time.
            saved = checkpoint.finished()
            assert saved is not None and checkpoint.finished() is None
            saved_s.append((saved.newest_ns - start_ns) * 1e-9)
        if observation.t_ns > start_ns + 25 * 10**9:
            break
    steps_s = [later - earlier for earlier, later in zip([0.0, *saved_s], saved_s)]
    assert steps_s[:6] == pytest.approx([0.5, 1.0, 2.0, 4.0, 5.0, 5.0], abs=0.2)
    checkpoint.close()


def test_only_a_snapshot_under_the_folders_own_key_is_used(tmp_path: Path, day: Day) -> None:
    """What another process puts there, however valid, does not decide who is inside; and only the owner reads any."""

    def opened(folder: Path) -> Checkpoint:
        return Checkpoint(folder, InlineExecutor(), clock=ManualClock())  # type: ignore[arg-type]

    own, other = tmp_path / "own", tmp_path / "other"
    engine = Engine(day.store)
    for observation in day.observations[:400]:
        engine.feed(observation)
    for folder in (own, other):
        folder.mkdir()
        checkpoint = opened(folder)
        checkpoint.start(engine, 0)
        checkpoint.finished(wait=True)
        checkpoint.close()
        for name in ("snapshot", "store.key", "scans.jsonl"):
            assert (folder / name).stat().st_mode & 0o077 == 0, name
    restored = opened(own).restore(day.store)
    assert restored.lost is None and restored.engine.newest_ns == engine.newest_ns > 0
    for forged in ((other / "snapshot").read_bytes(), snapshots.snapshot(engine)):
        (own / "snapshot").write_bytes(forged)
        restored = opened(own).restore(day.store)
        assert restored.lost is ReasonKind.SNAPSHOT_UNUSABLE and restored.since_ns == restored.engine.newest_ns == 0
        assert "another key" in restored.messages[-1]


def test_a_file_that_is_too_large_for_a_snapshot_is_not_read(tmp_path: Path, day: Day) -> None:
    checkpoint = Checkpoint(tmp_path, InlineExecutor(), clock=ManualClock())  # type: ignore[arg-type]
    with open(tmp_path / "snapshot", "wb") as file:
        file.truncate(snapshots.FILE_MAX_BYTES + 1)  # Nothing of it is on disk.
    restored = checkpoint.restore(day.store)
    assert restored.lost is ReasonKind.SNAPSHOT_UNUSABLE and "at most" in restored.messages[-1]
