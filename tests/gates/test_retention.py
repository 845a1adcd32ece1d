"""Age limits: kept until its day and removed after it, except what is open, in use or not understood."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from money.books import COLA, DAY_NS, STORE, T_NS, TWO, receipt

from fusion.commands.main import main
from fusion.files.growing import GrowingLines, change_lines, dropping
from fusion.files.private import locked
from fusion.gates.data_protection import sheet
from fusion.gates.privacy import drop_old, holdings
from fusion.gates.retention import Kept, RetentionSettings
from fusion.money.ledger import Ledger
from fusion.money.moments import Moments
from fusion.money.receipts import ReceiptDocument, ReceiptStore
from fusion.results import Picked
from fusion.show.console.evidence_file import EvidenceFile
from fusion.till.opening import opened
from fusion.till.settings import TillFile
from fusion.till.till import Around

LIMITS = RetentionSettings(evidence_days=10, results_days=10, recordings_days=10, receipts_days=10)
TILL = "format_version = 1\n[retention]\n" + "".join(f"{name} = 10\n" for name in RetentionSettings.model_fields)


def lines_of(path: Path, *rows: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def times(path: Path, *t_ns: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"time": pa.array(t_ns, pa.int64()), "account": pa.array(["p"] * len(t_ns))}), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store's folder: each file holds something of T_NS and something of five days later, and what is not ours."""
    later = T_NS + 5 * DAY_NS
    place = tmp_path / "shop"
    place.mkdir()
    with Ledger.open(place / "shop.sqlite", STORE) as ledger:
        kept = ReceiptStore(place / "receipts")
        for visit, status in (("old", "settled"), ("doubtful", "review"), ("new", "settled")):
            ledger.open_visit(visit, None, T_NS)
            ledger.post_receipt(receipt(visit, *TWO, status=status))
            if document := ReceiptDocument.of(ledger, STORE, visit):
                kept.write(document)
    old, doubtful, new = (
        {"visit": visit, "account": "p", "exit": t_ns}
        for visit, t_ns in (("old", T_NS), ("doubtful", T_NS), ("new", later))
    )
    for name in ("evidence.jsonl", "receipts.jsonl"):
        lines_of(place / name, old, doubtful, {"visit": "of other books", "exit": T_NS}, new, ["what is this?"])
        with open(place / name, "a") as file:
            file.write('{"torn')
    lines_of(place / "events.jsonl", {"time": T_NS, "plate": "a"}, {"time": later, "plate": "a"})
    times(place / "tracks.parquet", T_NS, later)
    times(place / "tracks.1.parquet", T_NS)
    lines_of(place / "recording" / "gate.jsonl", {"time": T_NS}, {"time": later})
    (place / "recording" / "store").mkdir()
    (place / "recording" / "store" / "store.toml").touch()
    for i, t_ns in enumerate((T_NS, 0, T_NS, later)):
        times(place / "recording" / "detections" / f"{i:08d}.parquet", t_ns)
    (place / "recording" / "detections" / "00000001.parquet").write_bytes(b"torn by a kill")
    times(place / "others" / "detections" / "00000000.parquet", T_NS)
    (place / "receipts" / "notes.txt").write_text("of the owner")
    lines_of(place / "others.jsonl", old)
    return place


def state(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("shop.sqlite"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def drop(folder: Path, day: float, **how: bool) -> dict[str, int]:
    with Ledger.open(folder / "shop.sqlite", STORE) as books:
        return drop_old(STORE, LIMITS, Kept(folder, books, **how), T_NS + round(day * DAY_NS))


def visits(path: Path) -> list[str]:
    whole = [line for line in path.read_text().splitlines() if line != '{"torn']
    return [row["visit"] for row in map(json.loads, whole) if isinstance(row, dict)]


def test_everything_is_kept_until_its_day_and_removed_after_it(folder: Path) -> None:
    before = state(folder)
    assert drop(folder, 10) == {} and state(folder) == before
    found = drop(folder, 10.01, dry_run=True)
    assert state(folder) == before, "a dry run writes nothing"
    assert drop(folder, 10.01) == found
    assert found == {
        "evidence.jsonl": 1, "tracks.1.parquet": 1, "tracks.parquet": 1, "events.jsonl": 1, "receipts.jsonl": 1,
        "recording/detections/00000000.parquet": 1, "recording/detections/00000001.parquet": 1,
        "recording/detections/00000002.parquet": 1, "recording/gate.jsonl": 1, "receipts": found["receipts"],
    }  # fmt: skip
    for name in ("evidence.jsonl", "receipts.jsonl"):
        # Reviews that are open keep theirs, and so does what the books do not know.
        assert visits(folder / name) == ["doubtful", "of other books", "new"]
        assert (folder / name).read_text().endswith('["what is this?"]\n{"torn')
    assert not (folder / "tracks.1.parquet").exists()
    assert pq.read_table(folder / "tracks.parquet")["time"].to_pylist() == [T_NS + 5 * DAY_NS]
    assert [path.name for path in (folder / "recording" / "detections").iterdir()] == ["00000003.parquet"]
    after = state(folder)
    others = ("others.jsonl", "others/detections/00000000.parquet", "receipts/notes.txt", "recording/store/store.toml")
    assert {name: after[name] for name in others} == {name: before[name] for name in others}
    with Ledger.open(folder / "shop.sqlite", STORE) as books:
        assert books.verify() is None
        books.decide("doubtful", "waive", by="eve", t_ns=T_NS + DAY_NS)
    assert drop(folder, 10.01)["evidence.jsonl"] == 1 and visits(folder / "evidence.jsonl") == ["of other books", "new"]


def test_when_and_where_goods_were_taken_goes_with_the_receipts(folder: Path) -> None:
    moments = Moments(folder / "moments.sqlite")
    for t_ns in (T_NS, T_NS + 399 * DAY_NS):
        moments.add(Picked(t_ns, "a", COLA, 1, "p", "v1", 0.99))
    assert drop(folder, 400)["moments.sqlite"] == 1
    assert [moment.t_ns for moment in moments.of("v1")] == [T_NS + 399 * DAY_NS]
    assert "moments.sqlite" not in drop(folder, 400)
    moments.close()


def test_receipts_go_with_the_file_that_names_their_time_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_files = len(list((folder / "receipts").iterdir()))
    assert n_files == 2 * 3 + 1
    unlink, n = Path.unlink, 0

    def killed(path: Path, missing_ok: bool = False) -> None:
        nonlocal n
        n += path.parent.name == "receipts"
        if n == 3:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        drop(folder, 400)
    monkeypatch.undo()
    assert drop(folder, 400)["receipts"] == 2
    assert [path.name for path in (folder / "receipts").iterdir()] == ["notes.txt"]


def test_a_kill_at_any_instant_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "evidence.jsonl"
    path.write_bytes(b"".join(b"%d\n" % i for i in range(1000)))
    before = path.read_bytes()
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, lambda *_: (_ for _ in ()).throw(OSError("killed")))
            with pytest.raises(OSError, match="killed"):
                change_lines(path, dropping(lambda line: int(line) % 2 == 0))
        assert path.read_bytes() == before
    # What a kill left of the copy is people's data too: the next look removes it, whether or not anything is old.
    (tmp_path / "evidence.jsonl.new").write_bytes(b"1\n3")
    assert change_lines(path, dropping(lambda line: False)) == 0 and os.listdir(tmp_path) == ["evidence.jsonl"]
    assert change_lines(path, dropping(lambda line: int(line) % 2 == 0)) == 500
    assert path.read_bytes() == b"".join(b"%d\n" % i for i in range(1, 1000, 2))


def test_lines_that_are_added_meanwhile_stay_and_are_found(tmp_path: Path) -> None:
    path = tmp_path / "evidence.jsonl"
    log, reader = GrowingLines(path), EvidenceFile(path)
    for visit in ("kept", "old", "other"):
        log.add(json.dumps({"visit": visit, "filling": "x" * 300}))
    assert reader.bundle("other") is not None

    def unwanted(line: bytes) -> bool:
        if b'"old"' in line:
            log.add(json.dumps({"visit": "meanwhile"}))  # By the engine's thread.
            return True
        return False

    assert log.change(dropping(unwanted)) == 1
    log.add(json.dumps({"visit": "after", "filling": "x" * 400}))
    log.close()
    assert visits(path) == ["kept", "other", "meanwhile", "after"]
    assert reader.bundle("old") is None
    assert all(reader.bundle(visit) is not None for visit in visits(path))


def test_a_running_store_removes_by_itself_and_leaves_what_is_in_use(folder: Path) -> None:
    (folder.parent / "till.toml").write_text(TILL)
    before, lines = state(folder), list[str]()
    around = Around(folder, lambda: T_NS + 11 * DAY_NS, lambda: 0.0, report=lines.append, threads=False)
    with opened(TillFile.load(folder.parent / "till.toml"), STORE, around) as till:
        till.evidence = GrowingLines(folder / "evidence.jsonl")
        till.do_errands()
        till.evidence.close()
    assert visits(folder / "evidence.jsonl") == ["doubtful", "of other books", "new"]
    assert any(line.startswith("retention: removed 1 of evidence.jsonl") for line in lines)
    assert not (folder / "tracks.1.parquet").exists()
    for name in ("tracks.parquet", "receipts.jsonl", "events.jsonl", "recording/gate.jsonl"):
        assert (folder / name).read_bytes() == before[name]
    names = [path.name for path in (folder / "recording" / "detections").iterdir()]
    assert names == ["00000003.parquet"]


def test_the_command_lists_and_removes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    STORE.save(folder.parent / "store")
    till = folder.parent / "till.toml"
    till.write_text(TILL)
    command = ["retention", str(folder.parent / "store"), str(folder / "shop.sqlite"), "--till", str(till)]
    before, books = state(folder), (folder / "shop.sqlite").read_bytes()
    assert main([*command, "--dry-run"]) == 0
    assert "evidence.jsonl: 2 past their time, would be removed" in capsys.readouterr().out
    assert state(folder) == before and (folder / "shop.sqlite").read_bytes() == books
    with locked(folder / "lock"):
        assert main(command) == 1
    assert main(command) == 0
    assert "evidence.jsonl: 2 past their time, removed" in capsys.readouterr().out
    assert visits(folder / "evidence.jsonl") == ["doubtful", "of other books"]
    (folder / "simulated").touch()
    assert main(command) == 2 and "simulation or a replay" in capsys.readouterr().err
    till.write_text("format_version = 1\n")
    assert main(command) == 2 and "no age limit" in capsys.readouterr().err
    till.write_text("format_version = 1\n[retention]\nevidence_days = 0\nevidence_hours = 3\n")
    assert main(command) == 2
    errors = capsys.readouterr().err
    assert "retention.evidence_days" in errors and "retention.evidence_hours: unknown key" in errors


def test_the_sheet_states_the_age_limits() -> None:
    assert "| 10 days after the visit, and until it is decided; under" in sheet(STORE, retention=LIMITS)
    text = sheet(STORE)
    assert text.count("no age limit: until a person deletes it") == 5
    # What has an age limit can be dropped, and the other way round.
    assert {h.days is not None for h in holdings(STORE, LIMITS) if h.drop} == {True}
    assert not [h for h in holdings(STORE, LIMITS) if h.days is not None and h.drop is None]
