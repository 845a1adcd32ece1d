"""Replays of many recordings: the bytes of one process, wherever they run and whichever workers die."""

from __future__ import annotations

import functools
import json
import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest
import tasks
from hypothesis import given
from hypothesis import strategies as st

from fusion.chain.replays import LOCK, Job, jobs_of, put_in_place, replay_job, replay_many
from fusion.commands.main import main
from fusion.errors import ConfigError, FusionError, RecordingError
from fusion.run import replay
from fusion.simulation import Scenario, Simulation, demo_store


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of three shops, one of them longer."""
    folder = tmp_path_factory.mktemp("many")
    paths = []
    for seed in range(3):
        path = folder / f"shop{seed}" / "monday"
        store = demo_store(n_cameras=4, n_plates=24)
        Simulation(store, Scenario(seed=seed, minutes=1.3 if seed == 2 else 1.0, shoppers=2)).write(path)
        paths.append(path)
    return paths


@pytest.fixture(scope="module")
def alone(recordings: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Their results by one process, one recording after the other."""
    out = tmp_path_factory.mktemp("alone")
    for path in recordings:
        replay(path, out / path.parent.name / path.name)
    results = tasks.results(out)
    assert results["shop2/monday/receipts.jsonl"] and results["shop2/monday/events.jsonl"]
    return results


def test_results_are_those_of_one_process_though_a_worker_is_killed(where, recordings, alone, tmp_path):
    mark = recordings[2].with_name("monday.kill")
    mark.touch()
    outcomes = list(replay_many(recordings, tmp_path, workers=2, cluster=where, task=tasks.replay_killed_once))
    assert mark.with_suffix(".killed").exists()
    mark.with_suffix(".killed").unlink()
    ends = sorted((outcome.index, outcome.tries, outcome.fault) for outcome in outcomes)
    assert ends == [(0, 1, None), (1, 1, None), (2, 2, None)]
    assert tasks.results(tmp_path) == alone
    for outcome in outcomes:
        lines = (outcome.item.out / "receipts.jsonl").read_text().splitlines()
        assert outcome.value.receipts == len(lines)
        assert outcome.value.review == sum(json.loads(line)["status"] == "review" for line in lines)
        run = json.loads((outcome.item.out / "run.json").read_text())
        assert {**vars(outcome.value.summary), "wall_s": 0.0} == {**run, "wall_s": 0.0}


def test_a_job_is_named_by_its_recording(recordings):
    assert str(Job(recordings[0], Path("out"))) == str(recordings[0])


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_continues_past_recordings_that_fail(recordings, alone, tmp_path, capsys):
    damaged = tmp_path / "in" / "shop9" / "monday"
    shutil.copytree(recordings[0], damaged)
    file = damaged / "weights.parquet"
    file.write_bytes(file.read_bytes()[:-2000])
    good = tmp_path / "in" / "shop2" / "monday"
    shutil.copytree(recordings[2], good)
    missing = tmp_path / "in" / "shop8" / "monday"
    out = tmp_path / "out"
    code = main(["replay", *map(str, (damaged, missing, good)), "--out", str(out), "--workers", "2"])
    assert code == 1
    lines = capsys.readouterr().out.splitlines()
    failed = [line.split(" | ")[:2] for line in lines[2:4]]
    assert failed == [["| shop9/monday", "failed"], ["| shop8/monday", "failed"]]
    assert lines[4].startswith("| shop2/monday | ")
    faults = "\n".join(lines[6:])
    assert "shop9/monday: " in faults and "weights.parquet" in faults
    assert f"shop8/monday: {missing} does not exist; pass the folder of a recording" in faults
    assert tasks.results(out / "shop2") == {
        name.partition("/")[2]: data for name, data in alone.items() if name.startswith("shop2/")
    }
    # No unfinished results are left.
    assert not list(out.rglob(".*"))


def test_the_command_on_a_cluster_prints_nothing_but_the_table(recordings, ray_cluster, tmp_path, capfd, monkeypatch):
    mark = recordings[0].with_name("monday.kill")
    mark.touch()
    many = functools.partial(replay_many, task=tasks.replay_killed_once)
    monkeypatch.setattr("fusion.chain.replays.replay_many", many)
    assert main(["replay", str(recordings[0]), "--out", str(tmp_path), "--cluster", ray_cluster]) == 0
    mark.with_suffix(".killed").unlink()
    lines = capfd.readouterr().out.splitlines()
    assert [line[:2] for line in lines] == ["| ", "|-", "| "] and lines[2].endswith(" | 2 |")
    assert (tmp_path / "monday" / "run.json").exists()


def test_the_command_names_what_it_refuses(tmp_path, capsys):
    assert main(["replay", "a", "a", "--out", str(tmp_path)]) == 2
    assert "want every recording once, got it again" in capsys.readouterr().err


# ---- after a failure -----------------------------------------------------------------------------------------------


def _copy(recording: Path, folder: Path) -> Path:
    shutil.copytree(recording, folder)
    return folder


def _break_store(recording: Path) -> None:
    (recording / "store" / "store.toml").write_text("[")


def _cut_off(recording: Path) -> None:
    file = recording / "detections.parquet"
    file.write_bytes(file.read_bytes()[:-2000])


def _damage_half_way(recording: Path) -> None:
    """Overwrite a part of the middle row group: the footer can still be read."""
    import pyarrow.parquet as pq

    file = recording / "detections.parquet"
    rows = pq.read_table(file)
    pq.write_table(rows, file, row_group_size=len(rows) // 20, write_page_checksum=True)
    groups = pq.ParquetFile(file).metadata
    start = groups.row_group(groups.num_row_groups // 2).column(2).data_page_offset
    data = bytearray(file.read_bytes())
    data[start : start + 100] = bytes(100)
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [_break_store, _cut_off])
def test_a_recording_that_fails_keeps_no_earlier_run(recordings, tmp_path, damage):
    bad, good = _copy(recordings[0], tmp_path / "in" / "bad"), _copy(recordings[1], tmp_path / "in" / "good")
    out = tmp_path / "out"
    assert main(["replay", str(bad), str(good), "--out", str(out), "--workers", "1"]) == 0
    damage(bad)
    assert main(["replay", str(bad), str(good), "--out", str(out), "--workers", "1"]) == 1
    assert [path.parent.name for path in out.rglob("run.json")] == ["good"]
    assert not list(out.rglob("partial.json"))


def test_a_recording_whose_worker_always_dies_keeps_no_earlier_run(tmp_path):
    (tmp_path / "in" / "monday").mkdir(parents=True)
    (tmp_path / "out" / "monday").mkdir(parents=True)
    run = tmp_path / "out" / "monday" / "run.json"
    run.write_text("{}")
    recordings = [tmp_path / "in" / "monday"]
    (outcome,) = replay_many(recordings, tmp_path / "out", workers=1, tries=1, task=tasks.die)
    assert outcome.fault.startswith("its worker died") and not run.exists()


def test_a_recording_damaged_half_way_has_partial_results_and_no_run(recordings, tmp_path, capsys):
    bad, out = _copy(recordings[0], tmp_path / "in" / "bad"), tmp_path / "out"
    assert main(["replay", str(bad), "--out", str(out), "--workers", "1"]) == 0
    whole = json.loads((out / "bad" / "run.json").read_text())
    figures = ["frames", "messages", "wall_s", "engine_cpu_s", "step_us", "ignored", "set_back_s", "time_off_s"]
    assert list(whole) == ["version", "store", *figures]
    _damage_half_way(bad)
    capsys.readouterr()
    assert main(["replay", str(bad), "--out", str(out), "--workers", "1"]) == 1
    part = json.loads((out / "bad" / "partial.json").read_text())
    assert part["frames"] < whole["frames"]
    assert "detections.parquet" in part["fault"] and part["fault"] in capsys.readouterr().out
    assert {path.name for path in (out / "bad").iterdir()} == {
        "partial.json", "receipts.jsonl", "events.jsonl", "evidence.jsonl", "shelves.jsonl", "tracks.parquet",
        "setup.json",
    }  # fmt: skip
    # Repaired, its results are complete, and no file mentions the damage.
    shutil.rmtree(bad)
    _copy(recordings[0], bad)
    assert main(["replay", str(bad), "--out", str(out), "--workers", "1"]) == 0
    assert json.loads((out / "bad" / "run.json").read_text())["frames"] == whole["frames"]
    assert not (out / "bad" / "partial.json").exists()


def test_a_single_replay_of_a_damaged_recording_names_the_fault_in_its_run(recordings, tmp_path):
    bad = _copy(recordings[0], tmp_path / "bad")
    _damage_half_way(bad)
    with pytest.raises(RecordingError) as damaged:
        replay(bad, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["fault"] == str(damaged.value)


def test_earlier_results_stay_where_nothing_is_begun(recordings, tmp_path, monkeypatch):
    def refuse(*args: object) -> None:
        raise FusionError("nowhere:1: no Ray cluster answers")

    monkeypatch.setattr("fusion.chain.batch.RayCluster", refuse)
    run = tmp_path / "monday" / "run.json"
    run.parent.mkdir()
    run.write_text("{}")
    assert main(["replay", str(recordings[0]), "--out", str(tmp_path), "--cluster", "nowhere:1"]) == 2
    assert run.read_text() == "{}"


def test_an_earlier_run_that_cannot_be_removed_is_named(recordings, tmp_path, capsys):
    run = tmp_path / "monday" / "run.json"
    run.mkdir(parents=True)
    assert main(["replay", str(recordings[0]), "--out", str(tmp_path)]) == 2
    assert f"{run}: this file of an earlier run cannot be removed: " in capsys.readouterr().err


def test_a_worker_that_was_taken_for_dead_removes_no_finished_run(recordings, tmp_path):
    job = Job(recordings[0], tmp_path / "out")
    replay_job(job)
    finished = {path.name: path.read_bytes() for path in job.out.iterdir()}
    # It ends after another try has: with its folder, and when that is gone.
    replay_job(job)
    assert {path.name: path.read_bytes() for path in job.out.iterdir()} == finished
    with pytest.raises(FileNotFoundError):
        put_in_place(tmp_path / "gone", job.out)
    assert {path.name: path.read_bytes() for path in job.out.iterdir()} == finished


def test_two_replays_into_one_folder_are_refused(recordings, tmp_path, capsys):
    out = tmp_path / "out"
    with closing(replay_many(recordings[:2], out, workers=1)) as first:
        assert next(first).fault is None
        assert main(["replay", str(recordings[2]), "--out", str(out), "--workers", "1"]) == 2
        error = capsys.readouterr().err
        assert f"{out}: another replay works in this folder: " in error
        assert f":{os.getpid()}; choose another --out" in error
        assert not list(out.rglob("shop2"))
        # The refused replay has not removed the lock.
        with pytest.raises(FusionError):
            next(replay_many(recordings[2:], out, workers=1))
        assert next(first).fault is None
    assert sorted(path.name for path in out.iterdir()) == ["shop0", "shop1"]


def test_a_lock_whose_holder_was_killed_is_free(recordings, tmp_path):
    (tmp_path / LOCK).write_text("elsewhere:1\n")
    (outcome,) = replay_many(recordings[:1], tmp_path, workers=1)
    assert outcome.fault is None
    assert [path.name for path in tmp_path.iterdir()] == ["monday"]


def test_a_file_where_results_belong_is_named(recordings, tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert main(["replay", str(recordings[0]), "--out", str(tmp_path / "out")]) == 2
    assert f"{tmp_path / 'out'}" in capsys.readouterr().err


# ---- where results belong --------------------------------------------------------------------------------------------


def test_results_are_below_the_deepest_common_folder():
    assert jobs_of(["/r/a/1", "/r/b/1", "/r/b/2"], "/o") == [
        Job(Path("/r/a/1"), Path("/o/a/1")), Job(Path("/r/b/1"), Path("/o/b/1")), Job(Path("/r/b/2"), Path("/o/b/2")),
    ]  # fmt: skip
    assert jobs_of(["/r/a"], "/o") == [Job(Path("/r/a"), Path("/o/a"))]


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), min_size=1, max_size=6))
def test_results_never_share_a_folder(names):
    try:
        jobs = jobs_of([f"/r/{name}" for name in names], "/out")
    except ConfigError:
        inside = any(f"{a}/".startswith(f"{b}/") for i, a in enumerate(names) for b in names[:i] + names[i + 1 :])
        assert inside
        return
    outs = [job.out for job in jobs]
    assert len(set(outs)) == len(outs)
    assert not any(a in b.parents for a in outs for b in outs)


@pytest.mark.parametrize(
    ("recordings", "out", "fault"),
    [
        (["/r/a", "/r/a/b"], "/o", "/r/a/b: want no recording in another, got it in /r/a"),
        (["/r/a", "/r/b"], "/r", "/r/a: want results outside of recordings, got them in /r/a"),
        (["/r/a"], "/r/a/out", "/r/a/out/a: want results outside of recordings, got them in /r/a"),
    ],
)
def test_results_are_not_written_into_recordings(recordings, out, fault):
    with pytest.raises(ConfigError) as refused:
        jobs_of(recordings, out)
    assert fault in refused.value.faults


def test_results_of_an_earlier_run_are_replaced_and_a_file_in_the_way_is_a_fault(recordings, tmp_path):
    old = tmp_path / "shop0" / "monday"
    old.mkdir(parents=True)
    (old / "receipts.jsonl").write_text("old\n")
    (tmp_path / "shop1").mkdir()
    (tmp_path / "shop1" / "monday").write_text("in the way")
    replaced, refused = sorted(replay_many(recordings[:2], tmp_path, workers=1), key=lambda outcome: outcome.index)
    assert replaced.fault is None
    assert "old" not in (old / "receipts.jsonl").read_text()
    assert refused.value is None and refused.fault.startswith("FileExistsError")
