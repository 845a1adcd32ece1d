"""One store from its observations to its books, step by step: receipts, gaps, restarts, changes."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
import time
from pathlib import Path

import pytest
from live.stepping import Day, SteppedStore, ended, killed, quiet_config, recorded_config

from bench.endurance import serve as bench
from fusion.engine import Engine
from fusion.files.secrets import derived, store_key
from fusion.live.clock import ManualClock
from fusion.live.loop import StoreLoop
from fusion.live.outbox import Outbox
from fusion.money.ledger import Ledger
from fusion.observations import Frame, GateScan, Observation
from fusion.results import Warning
from fusion.sentences import DETAIL_SHOWN_MAX
from fusion.snapshots import newest_ns
from fusion.store.models import Store

S = 10**9


def scans_in(observations: list[Observation]) -> list[int]:
    return [i for i, observation in enumerate(observations) if isinstance(observation, GateScan)]


def saved_ns(folder: Path) -> int:
    """Newest data time of the snapshot in a folder."""
    return newest_ns((folder / "snapshot").read_bytes(), derived(store_key(folder, create=False), "snapshot"))


def since_snapshot(folder: Path, observations: list[Observation]) -> list[Observation]:
    """What sensors and broker send again after a restart from a folder."""
    since_ns = saved_ns(folder)
    return [observation for observation in observations if observation.t_ns >= since_ns]


def goods_of(folder: Path, store: Store) -> tuple[list[tuple[object, ...]], int]:
    """The transfers in a store's outbox, without numbers and hashes, and how many warnings it holds."""
    with Outbox(folder / "outbox.sqlite", store) as outbox:
        return [row[1:-1] for row in outbox.rows_after("goods", 0, 10**6)], outbox.newest("health")


def shopper_inside(loop: StoreLoop) -> bool:
    return bool(loop.engine.open_visits) and loop.status()["counts"].get("entered", 0) > 0


def stopped_halfway(recording: Path, folder: Path) -> int:
    """Stop a store while a shopper is inside. Returns the newest data time."""
    stepped = SteppedStore(recorded_config(recording, folder))
    stepped.follow_source(shopper_inside)
    assert stepped.loop.engine.open_visits
    stepped.stop()
    return stepped.loop.engine.newest_ns


def served_to_its_end(recording: Path, folder: Path) -> SteppedStore:
    stepped = SteppedStore(recorded_config(recording, folder))
    stepped.follow_source()
    stepped.end()
    return stepped


# ---- receipts and goods ----------------------------------------------------------------------------------------------


def test_a_store_has_the_receipts_of_a_replay(recording: Path, day: Day, tmp_path: Path) -> None:
    stepped = served_to_its_end(recording, tmp_path)
    status = stepped.status()
    assert status["over"] and not status["dropped"] and not (tmp_path / "snapshot").exists()
    books = bench.booked(tmp_path, day.store)
    assert len(day.receipts) == 3 and all(receipt.total for receipt in day.receipts.values())
    assert {visit: (row.status, row.total) for visit, row in books.visits.items()} == {
        visit: (receipt.status, receipt.total) for visit, receipt in day.receipts.items()
    }
    assert books.fault is None and books.balance == 0


def test_goods_and_warnings_reach_the_outbox_once(recording: Path, day: Day, tmp_path: Path) -> None:
    engine = Engine(day.store)
    results = [result for observation in day.observations for result in engine.feed(observation)] + engine.close()
    truth = [
        (move.t_ns, move.idempotency_key, str(move.debit), str(move.credit), move.gtin, move.quantity)
        for move in engine.journal
    ]
    n_warnings = sum(isinstance(result, Warning) for result in results)
    assert len(truth) > 3 and n_warnings
    # Stopped with a shopper inside, everything sent again; then started from that snapshot again, as after a kill.
    stopped_halfway(recording, tmp_path)
    snapshot, goods = (tmp_path / "snapshot").read_bytes(), goods_of(tmp_path, day.store)[0]
    assert goods == truth[: len(goods)] != truth
    # The engine forgets what the outbox holds, as after weeks.
    config = dataclasses.replace(recorded_config(recording, tmp_path), goods_remembered_s=3.0)
    messages = []
    for _ in range(2):
        (tmp_path / "snapshot").write_bytes(snapshot)
        stepped = SteppedStore(config)
        stepped.follow_source()
        stepped.end()
        journal = stepped.loop.engine.journal
        assert len(journal) < len(truth) == journal.n_recorded
        assert not stepped.status()["lost_s"] and goods_of(tmp_path, day.store) == (truth, n_warnings)
        messages += stepped.messages
    assert not [message for message in messages if "outbox" in message]


# ---- lost data, changes and damage -----------------------------------------------------------------------------------


def test_after_a_gap_receipts_of_people_inside_go_to_review(recording: Path, day: Day, tmp_path: Path) -> None:
    stopped_ns = stopped_halfway(recording, tmp_path)
    with Ledger.open(tmp_path / f"{day.store.id}.sqlite", day.store) as ledger:
        inside = [visit.visit for visit in ledger.open_visits()]
    # The store starts again twelve seconds later, and nothing of the time in between is sent again.
    missed_s = (stopped_ns - day.observations[0].t_ns) * 1e-9 + 12.0
    config = recorded_config(recording, tmp_path, speed=10.0, kept_s=0.0)
    stepped = SteppedStore(config, ManualClock(missed_s / 10.0))
    stepped.follow_source()
    stepped.end()
    assert stepped.status()["lost_s"] == pytest.approx(12.0, abs=0.5)
    books = bench.booked(tmp_path, day.store)
    assert inside
    for visit in inside:
        booked = books.visits[visit]
        assert booked.status == "review" and booked.reason is not None
        assert "were lost during this visit" in booked.reason or "data ended" in booked.reason
    assert all(visit.status in ("settled", "review") for visit in books.visits.values())


def test_with_another_layout_open_visits_are_in_review(recording: Path, day: Day, tmp_path: Path) -> None:
    stopped_halfway(recording, tmp_path)
    facing = day.store.planogram[0]
    moved = facing.model_copy(update={"plate": day.store.plates[-1].plate})
    other = day.store.model_copy(update={"planogram": (*day.store.planogram[1:], moved)})
    stepped = SteppedStore(dataclasses.replace(recorded_config(recording, tmp_path), store=other))
    stepped.follow_source()
    stepped.end()
    books = bench.booked(tmp_path, other)
    reasons = [visit.reason or "" for visit in books.visits.values()]
    assert any("were changed during this visit" in reason for reason in reasons)
    assert all(visit.status in ("settled", "review") for visit in books.visits.values())


def test_a_damaged_snapshot_costs_no_visit(recording: Path, day: Day, tmp_path: Path) -> None:
    stopped_halfway(recording, tmp_path)
    data = bytearray((tmp_path / "snapshot").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "snapshot").write_bytes(data)
    stepped = served_to_its_end(recording, tmp_path)
    assert any("damaged" in message for message in stepped.messages)
    books = bench.booked(tmp_path, day.store)
    assert books.visits and all(visit.status in ("settled", "review") for visit in books.visits.values())
    assert max(books.n_receipts.values()) == 1


def test_nonsense_from_a_source_is_counted_and_costs_the_store_nothing(
    recording: Path, day: Day, tmp_path: Path
) -> None:
    config = dataclasses.replace(
        recorded_config(recording, tmp_path), source="python:bench.endurance.serve:garbage",
        options={"recording": str(recording), "most": 4, "speed": 1.0, "kept_s": 1e5},
        anchor_s=time.monotonic() - 120.0,
    )  # fmt: skip
    stepped = SteppedStore(config)
    stepped.follow_source()
    stepped.end()
    status = stepped.status()
    assert status["over"] and sum(status["not_used"].values()) > 100
    books = bench.booked(tmp_path, day.store)
    assert books.fault is None and all(visit.status in ("settled", "review") for visit in books.visits.values())


def test_a_changed_store_is_adopted_at_once_where_its_layout_is_the_same(day: Day, tmp_path: Path) -> None:
    half = len(day.observations) // 2
    stepped = SteppedStore(quiet_config(day.store, tmp_path))
    stepped.give(day.observations[:half])
    camera = day.store.cameras[0]
    moved = camera.model_copy(update={"translation": tuple(value + 0.02 for value in camera.translation)})
    changed = day.store.model_copy(update={"cameras": (moved, *day.store.cameras[1:])})
    n_open = len(stepped.loop.engine.open_visits)
    stepped.change(changed)
    stepped.give(day.observations[half : half + 1])
    assert stepped.loop.store == changed and len(stepped.loop.engine.open_visits) == n_open > 0
    stepped.give(day.observations[half + 1 :])
    stepped.end()
    assert "continues with the changed configuration" in stepped.messages
    assert len(bench.booked(tmp_path, changed).visits) == 3


@pytest.mark.parametrize("wait_s", [5.0, 1e6])
def test_another_layout_waits_for_an_empty_store_or_for_its_limit(wait_s: float, day: Day, tmp_path: Path) -> None:
    first = scans_in(day.observations)[0]
    inside_ns = day.observations[first].t_ns + 8 * S
    inside = next(i for i, observation in enumerate(day.observations) if observation.t_ns > inside_ns)
    stepped = SteppedStore(quiet_config(day.store, tmp_path, layout_wait_s=wait_s))
    stepped.give(day.observations[:inside])
    assert stepped.loop.engine.open_visits
    stepped.change(day.store.model_copy(update={"planogram": day.store.planogram[1:]}))
    restarted_s = None
    for i in range(inside, len(day.observations), 64):
        stepped.give(day.observations[i : i + 64])
        if stepped.loop.restart:
            restarted_s = (stepped.loop.engine.newest_ns - day.observations[inside].t_ns) * 1e-9
            break
    n_open = len(stepped.loop.engine.open_visits)
    stepped.stop()
    if wait_s == 5.0:
        assert restarted_s == pytest.approx(5.0, abs=0.5) and n_open
    else:
        assert not n_open
    assert f"restarts with another layout, {n_open} open visits" in stepped.messages


# ---- kills, as the files on disk show them ---------------------------------------------------------------------------


def test_scans_outlive_any_number_of_kills(day: Day, tmp_path: Path) -> None:
    """A gate reports a scan once: what one process was not given yet is there for the next."""
    store, observations = day.store, day.observations
    first = scans_in(observations)[0]
    killed(store, tmp_path / "1", observations[: first - 100], tmp_path / "2")
    since_ns = saved_ns(tmp_path / "2")
    sent_again = since_snapshot(tmp_path / "2", observations)
    scan = scans_in(sent_again)[0]
    # This one is killed before its first snapshot.
    killed(
        store, tmp_path / "2", sent_again[: scan + 10], tmp_path / "3", first_snapshot_s=1e6, snapshot_every_s=1e6
    )
    killed(store, tmp_path / "3", [], tmp_path / "4")
    SteppedStore(quiet_config(store, tmp_path / "4")).stop()
    assert saved_ns(tmp_path / "4") == since_ns
    stepped, books = ended(store, tmp_path / "4", [row for i, row in enumerate(sent_again) if i != scan])
    assert bench.compared(books, day.receipts)["as without kills"] == 3 and not stepped.status()["lost_s"]


def test_kills_at_many_instants_change_no_receipt(day: Day, tmp_path: Path) -> None:
    """Every few seconds of data a kill, and the next process is sent again what has arrived since its snapshot."""
    store, observations = day.store, day.observations
    folder, arrived = tmp_path / "0", 0
    for n, fraction in enumerate((0.13, 0.29, 0.31, 0.48, 0.66, 0.67, 0.9), 1):
        again = since_snapshot(folder, observations[:arrived]) if folder.exists() else []
        new = observations[arrived : round(fraction * len(observations))]
        # Gates and readers send nothing again.
        sensed = [row for row in again if not isinstance(row, GateScan)]
        killed(store, folder, [*sensed, *new], tmp_path / str(n))
        folder, arrived = tmp_path / str(n), arrived + len(new)
    again = [row for row in since_snapshot(folder, observations[:arrived]) if not isinstance(row, GateScan)]
    stepped, books = ended(store, folder, [*again, *observations[arrived:]])
    compared = bench.compared(books, day.receipts)
    assert compared["as without kills"] == compared["visits"] == 3 and not stepped.status()["lost_s"]
    assert compared["twice"] == compared["open"] == compared["books that do not add up"] == 0


def test_a_snapshot_that_cannot_be_written_is_an_error(day: Day, tmp_path: Path) -> None:
    half = len(day.observations) // 2
    killed(day.store, tmp_path / "1", day.observations[:half], tmp_path / "2")
    again = since_snapshot(tmp_path / "2", day.observations)
    full = False

    def disk(path: Path, content: bytes) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_bytes(content)

    stepped = SteppedStore(quiet_config(day.store, tmp_path / "2"), write_file=disk)
    stepped.give(again[:10])
    full = True
    with pytest.raises(OSError, match="No space left on device"):
        stepped.stop()
    stepped.kill(tmp_path / "3")
    _, books = ended(day.store, tmp_path / "3", again)
    assert bench.compared(books, day.receipts)["as without kills"] == 3


def test_a_source_that_fails_ends_nothing(day: Day, tmp_path: Path) -> None:
    half = len(day.observations) // 2
    config = dataclasses.replace(quiet_config(day.store, tmp_path), source="python:live.stepping:failing")
    stepped = SteppedStore(config)
    stepped.give(day.observations[:half])
    stepped.loop.pump.run()
    stepped.end()
    assert stepped.loop.pump.failure == "the broker is gone" and not stepped.loop.over
    with Ledger.open(tmp_path / f"{day.store.id}.sqlite", day.store) as ledger:
        assert len(ledger.open_visits()) == 3
    _, books = ended(day.store, tmp_path, day.observations[half:])
    assert bench.compared(books, day.receipts)["as without kills"] == 3


@pytest.mark.parametrize("first", ["stale", "far ahead"])
def test_a_gap_is_seen_although_a_wrong_clock_reports_first(first: str, day: Day, tmp_path: Path) -> None:
    store, observations = day.store, day.observations
    start_ns = observations[0].t_ns
    before = [row for row in observations if row.t_ns < start_ns + 18 * S]
    after = [row for row in observations if row.t_ns >= start_ns + (26 if first == "stale" else 18) * S]
    frame = next(row for row in after if isinstance(row, Frame))
    error_ns = -8 * S if first == "stale" else 3600 * S
    killed(store, tmp_path / "1", before, tmp_path / "2")
    # Whatever arrived since the snapshot is sent again before new data.
    again = [row for row in since_snapshot(tmp_path / "2", before) if not isinstance(row, GateScan)]
    odd = dataclasses.replace(frame, t_ns=frame.t_ns + error_ns)
    stepped, books = ended(store, tmp_path / "2", [odd, *(again if first == "far ahead" else []), *after])
    compared = bench.compared(books, day.receipts)
    if first == "far ahead":
        assert stepped.status()["lost_s"] == 0.0 and compared["as without kills"] == 3
    else:
        assert stepped.status()["lost_s"] > 7.0
        assert compared["review"] == compared["visits"] and compared["settled differently"] == 0


# ---- what the books and the doubts of earlier processes hold ---------------------------------------------------------


def begun(day: Day, tmp_path: Path) -> Path:
    """Folder of a store that has started and was killed before any data."""
    killed(day.store, tmp_path / "empty", [], tmp_path / "begun")
    return tmp_path / "begun"


def test_a_visit_that_had_another_account_goes_to_review_under_that_account(day: Day, tmp_path: Path) -> None:
    wrong, right, without = day.receipts
    name = f"{day.store.id}.sqlite"
    folder = begun(day, tmp_path)
    shutil.copy(folder / "store.key", tmp_path)  # the vault's seals hold under the store's key only
    with Ledger.open(tmp_path / name, day.store) as ledger:
        ledger.open_visit(wrong, "another account", day.receipts[wrong].enter_ns or 0)
        ledger.open_visit(without, None, day.receipts[without].enter_ns or 0)
    shutil.copy(tmp_path / name, folder)
    for suffix in ("-wal", "-shm"):
        (folder / f"{name}{suffix}").unlink(missing_ok=True)
    _, books = ended(day.store, folder, day.observations)
    visits = books.visits
    assert visits[wrong].status == "review" and visits[wrong].account == "another account"
    assert all("another account's" in (visits[visit].reason or "") for visit in (wrong, without))
    assert visits[without].status == "review" and visits[right].status == "settled"


def test_neighbours_of_a_visit_that_was_billed_differently_go_to_review(day: Day, tmp_path: Path) -> None:
    first = next(iter(day.receipts.values()))
    less = dataclasses.replace(first, lines=(), total=0, taken=())
    folder = begun(day, tmp_path)
    with Ledger.open(folder / f"{day.store.id}.sqlite", day.store) as ledger:
        ledger.open_visit(first.visit, first.account, first.enter_ns or 0)
        ledger.post_receipt(less)
    stepped, books = ended(day.store, folder, day.observations)
    assert stepped.status()["counts"]["billed before"] == 1 and books.visits.pop(first.visit).total == 0
    assert [visit.status for visit in books.visits.values()] == ["review", "review"]


def test_a_long_doubt_is_cut_and_stops_nothing(day: Day, tmp_path: Path) -> None:
    folder = begun(day, tmp_path)
    doubts = {"gaps": [], "visits": {visit: {"kind": "note", "detail": "because " * 1000} for visit in day.receipts}}
    (folder / "doubts.json").write_text(json.dumps(doubts))
    _, books = ended(day.store, folder, day.observations)
    texts = {(visit.status, len(visit.reason or "")) for visit in books.visits.values()}
    assert texts == {("review", DETAIL_SHOWN_MAX)}


def test_a_torn_line_of_evidence_spoils_no_other(day: Day, tmp_path: Path) -> None:
    folder = begun(day, tmp_path)
    (folder / "evidence.jsonl").write_text('{"visit": "of befo')
    doubts = {"gaps": [], "visits": {visit: {"kind": "note", "detail": "it is doubted"} for visit in day.receipts}}
    (folder / "doubts.json").write_text(json.dumps(doubts))
    stepped, _ = ended(day.store, folder, day.observations)
    assert stepped.loop.books.till.evidence is not None, "age limits reach the evidence of a running store"
    torn, *whole = (folder / "evidence.jsonl").read_text().splitlines()
    assert torn == '{"visit": "of befo'
    rows = {row["visit"]: row for row in map(json.loads, whole)}
    assert rows.keys() == day.receipts.keys() and all(row["status"] == "review" for row in rows.values())
    assert all(row["reasons"][-1] == "it is doubted" and row["events"] for row in rows.values())


@pytest.mark.parametrize("text", ['{"gaps": [], "vis', "[]", '{"gaps": [[1]], "visits": {}}'])
def test_doubts_that_cannot_be_read_are_doubts(text: str, day: Day, tmp_path: Path) -> None:
    half = len(day.observations) // 2
    killed(day.store, tmp_path / "1", day.observations[:half], tmp_path / "2")
    (tmp_path / "2" / "doubts.json").write_text(text)
    _, books = ended(day.store, tmp_path / "2", since_snapshot(tmp_path / "2", day.observations))
    assert {visit.status for visit in books.visits.values()} == {"review"} and len(books.visits) == 3


def test_an_engine_continues_after_hours_of_silence_with_a_shopper_inside(day: Day) -> None:
    """Sensors that resume long after a person was last seen: found by a source that sent nonsense."""
    engine, observations = Engine(day.store), day.observations
    for observation in observations:
        engine.feed(observation)
        if engine.open_visits and observation.t_ns > observations[0].t_ns + 20 * S:
            break
    assert engine.open_visits
    later_ns = observations[-1].t_ns - observations[0].t_ns + 5 * 3600 * S
    for observation in observations:
        engine.feed(dataclasses.replace(observation, t_ns=observation.t_ns + later_ns))
    assert engine.newest_ns >= observations[0].t_ns + later_ns
    engine.close()


# ---- clocks ----------------------------------------------------------------------------------------------------------


def set_back(observations: list[Observation]) -> list[Observation]:
    return [dataclasses.replace(observation, t_ns=observation.t_ns - 3600 * S + 7) for observation in observations]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_store_follows_clocks_that_are_set_back(day: Day, tmp_path: Path, restarted: bool) -> None:
    """While it runs, and between two lives: nobody is left without a receipt, snapshots and gaps follow."""
    scans = scans_in(day.observations)
    half = scans[1] + 2000
    first, second = day.observations[:half], set_back(day.observations[half:])
    folder = tmp_path / "a"
    if restarted:
        killed(day.store, tmp_path / "before", first, folder)
        second = second[20:]
        first = []
    stepped = SteppedStore(quiet_config(day.store, folder))
    stepped.give([*first, *second])
    status = stepped.status()
    # Between two lives, what came after the last snapshot is lost, and looks like a smaller step.
    assert status["set_back_s"] == pytest.approx(3600.0, abs=6.0)
    assert abs(status["newest_ns"] - second[-1].t_ns) < S
    assert abs(status["snapshot_ns"] - second[-1].t_ns) < 10 * S, "snapshots are written on"
    stepped.end()
    visits = bench.booked(folder, day.store).visits
    assert {row.status for row in visits.values()} <= {"settled", "review"}
    totals = {receipt.account: receipt.total for receipt in day.receipts.values()}
    assert {row.account for row in visits.values()} >= set(totals)
    assert restarted or len(visits) == len(totals)
    assert all(row.total == totals[row.account] for row in visits.values() if row.status == "settled")
    assert any(row.status == "review" for row in visits.values())
