"""Work over many recordings: the same bytes as one process gives, wherever it runs and whoever dies meanwhile."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import tasks
from hypothesis import given
from hypothesis import strategies as st

from fusion.chain import batch as cluster
from fusion.chain.batch import Job, jobs_of, map_tasks, replay_many
from fusion.commands.main import main
from fusion.errors import ConfigError, FusionError, RecordingError
from fusion.run import replay


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of three shops, one of which sees more."""
    from fusion.simulation import Scenario, Simulation, demo_store

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
    """Their results by one process, one after the other."""
    out = tmp_path_factory.mktemp("alone")
    for path in recordings:
        replay(path, out / path.parent.name / path.name)
    found = tasks.results(out)
    assert found["shop2/monday/receipts.jsonl"] and found["shop2/monday/events.jsonl"]
    return found


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[str]:
    """One Ray for all tests of this module."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("no Ray: pip install 'storefusion[ray]'")
    ray = cluster.connect(2, "local")
    yield "local"
    ray.shutdown()


@pytest.fixture(params=["processes", "ray"])
def where(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "processes" else str(request.getfixturevalue("ray_cluster"))


def test_results_are_those_of_one_process_though_a_worker_is_killed(where, recordings, alone, tmp_path, monkeypatch):
    mark = recordings[2].with_name("monday.kill")
    mark.touch()
    monkeypatch.setattr(cluster, "replay_job", tasks.replay_killed_once)
    outcomes = list(replay_many(recordings, tmp_path, workers=2, cluster=where))
    assert mark.with_suffix(".killed").exists()
    mark.with_suffix(".killed").unlink()
    assert sorted((one.index, one.tries, one.fault) for one in outcomes) == [(0, 1, None), (1, 1, None), (2, 2, None)]
    assert tasks.results(tmp_path) == alone
    for one in outcomes:
        lines = (one.item.out / "receipts.jsonl").read_text().splitlines()
        assert one.value.receipts == len(lines)
        assert one.value.review == sum(json.loads(line)["status"] == "review" for line in lines)
        run = json.loads((one.item.out / "run.json").read_text())
        assert {**vars(one.value.summary), "wall_s": 0.0} == {**run, "wall_s": 0.0}


def test_a_task_that_always_kills_its_worker_is_named_and_the_others_go_on(where):
    outcomes = {one.index: one for one in map_tasks(tasks.die_at_three, range(6), workers=2, cluster=where, tries=2)}
    died = outcomes.pop(3)
    assert (died.value, died.tries, died.worker) == (None, 2, "")
    assert died.fault == "its worker died 2 times of 2: killed, out of memory, or a crash"
    # Nobody else pays for it: theirs were other processes, or begun after.
    assert {i: (one.value, one.fault, one.tries) for i, one in outcomes.items()} == {
        i: (i, None, 1) for i in (0, 1, 2, 4, 5)
    }


def test_a_task_that_raises_is_not_begun_again(where):
    outcomes = {one.index: one for one in map_tasks(tasks.refuse_odd, range(4), workers=2, cluster=where)}
    assert [(outcomes[i].value, outcomes[i].fault, outcomes[i].tries) for i in range(4)] == [
        (0, None, 1), (None, "want an even number, got 1", 1), (2, None, 1), (None, "ValueError: odd: 3", 1),
    ]  # fmt: skip


def test_an_answer_that_cannot_be_sent_is_a_fault_of_its_own(where):
    outcomes = {one.index: one for one in map_tasks(tasks.lock, range(2), workers=1, cluster=where)}
    assert (outcomes[0].value, outcomes[0].fault, outcomes[1].value) == (0, None, None)
    assert "cannot pickle '_thread.lock' object" in str(outcomes[1].fault)


def test_workers_work_side_by_side(where):
    pids = {one.value for one in map_tasks(tasks.pid_after, [0.5] * 4, workers=2, cluster=where)}
    assert len(pids) == 2 and os.getpid() not in pids


def test_a_worker_killed_between_tasks_costs_nothing():
    outcomes = []
    with closing(map_tasks(tasks.pid_after, [0.0] * 3, workers=1)) as mapped:
        for one in mapped:
            outcomes.append(one)
            if one.index == 0:
                os.kill(one.value, signal.SIGKILL)
    assert sorted(one.index for one in outcomes) == [0, 1, 2]
    assert all(one.fault is None and one.tries <= 2 for one in outcomes)
    assert len({one.value for one in outcomes}) == 2


def test_workers_end_with_their_parent(tmp_path):
    program = (
        "import os, sys, tasks\nfrom fusion.chain.batch import map_tasks\n"
        "if __name__ == '__main__':\n"
        "    for one in map_tasks(tasks.pid_after, [0.0, 60.0], workers=1):\n"
        "        print(one.value, flush=True)\n"
    )
    path = tmp_path / "program.py"
    path.write_text(program)
    paths = os.pathsep.join([str(Path(tasks.__file__).parent), str(Path(cluster.__file__).parents[2])])
    with subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    deadline_s = time.monotonic() + 20.0
    while time.monotonic() < deadline_s and _lives(worker):
        time.sleep(0.05)
    assert not _lives(worker)


def test_workers_have_one_thread_before_the_main_module_is_imported(tmp_path):
    """A main module that imports numpy does so in every worker, before that runs anything of ours."""
    program = (
        "import os\nfound = os.environ.get('OMP_NUM_THREADS')\nfrom fusion.chain.batch import map_tasks\n"
        "def tell(item):\n    return found\n"
        "if __name__ == '__main__':\n"
        "    print(next(map_tasks(tell, [0], workers=1)).value, os.environ.get('OMP_NUM_THREADS'))\n"
    )
    path = tmp_path / "program.py"
    path.write_text(program)
    ours = {**os.environ, "PYTHONPATH": str(Path(cluster.__file__).parents[2])}
    ours.pop("OMP_NUM_THREADS", None)
    for threads, said in ((None, "1 None\n"), ("2", "2 2\n")):
        given = ours if threads is None else {**ours, "OMP_NUM_THREADS": threads}
        assert subprocess.check_output([sys.executable, str(path)], text=True, env=given, timeout=60) == said


def test_a_worker_of_another_installation_refuses(where, monkeypatch):
    here = cluster._code()
    monkeypatch.setattr(cluster, "_code", lambda: {**here, "fusion": "0.1.0 with files 0", "numba": "0.1"})
    (one,) = map_tasks(tasks.square, [3], workers=1, cluster=where)
    assert one.value is None and one.worker
    assert one.fault == (
        f"{one.worker}: another installation than where the tasks come from: "
        f"want fusion 0.1.0 with files 0, got {here['fusion']}; want numba 0.1, got {here['numba']}"
    )


def test_another_line_of_code_is_another_installation(tmp_path):
    package = Path(cluster.__file__).parents[1]
    shutil.copytree(package, tmp_path / "fusion", ignore=shutil.ignore_patterns("__pycache__"))
    tell = [sys.executable, "-c", "from fusion.chain.batch import _code; print(_code())"]
    assert subprocess.check_output(tell, text=True, cwd=tmp_path) == f"{cluster._code()}\n"
    with open(tmp_path / "fusion" / "shelves.py", "a") as file:
        file.write("#\n")
    assert subprocess.check_output(tell, text=True, cwd=tmp_path) != f"{cluster._code()}\n"


def test_what_is_long_under_way_is_named(where, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "LOOK_S", 0.1)
    monkeypatch.setattr(cluster, "SLOW_S", 0.6)
    assert [one.fault for one in map_tasks(tasks.pid_after, [1.75], cluster=where)] == [None]
    said = capsys.readouterr().err.splitlines()
    alive = "1 processes at work" if where is None else "1 nodes of the Ray cluster"
    assert said and set(said) == {f"fusion: under way for more than 0.01 minutes: 1.75 (0 min); alive: {alive}"}


def test_what_is_long_under_way_is_named_by_its_recording(recordings):
    assert str(Job(recordings[0], Path("out"))) == str(recordings[0])


def test_a_cluster_without_nodes_is_not_waited_for_for_ever(ray_cluster, monkeypatch):
    import ray

    monkeypatch.setattr(cluster, "LOOK_S", 0.1)
    monkeypatch.setattr(cluster, "NOWHERE_S", 1.5)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": False, "Resources": {}}, {"Alive": True, "Resources": {}}])
    outcomes = list(map_tasks(tasks.pid_after, [600.0, 600.0, 601.0], workers=2, cluster=ray_cluster))
    assert [(one.index, one.value, one.tries) for one in outcomes] == [(0, None, 1), (1, None, 1), (2, None, 0)]
    assert {one.fault for one in outcomes} == {
        "local: want a Ray node with a core for a task, got none for 0.025 minutes"
    }


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("name", "value"), [("workers", 0), ("workers", -1), ("tries", 0)])
def test_less_than_one_is_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name}: want at least 1, got {value}"):
        map_tasks(tasks.square, [1], **{name: value})


def test_nothing_to_do_starts_nothing():
    assert list(map_tasks(tasks.square, [], cluster="nowhere:1")) == []


def test_an_address_where_nothing_answers_is_named():
    if importlib.util.find_spec("ray") is None:
        pytest.skip("no Ray: pip install 'storefusion[ray]'")
    hidden = "from fusion.chain.batch import connect; connect(1, 'nonsense')"
    said = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, timeout=60)
    assert said.stderr.splitlines()[-1].startswith("fusion.errors.FusionError: nonsense: want a Ray cluster, got ")


def test_our_cluster_answers_to_its_token_alone(ray_cluster):
    """Whoever reaches a Ray can have it run anything."""
    import ray

    address = ray.get_runtime_context().gcs_address
    joins = f"from fusion.chain.batch import *; print(next(map_tasks(abs, [-3], cluster={address!r})).value)"
    asks = f"from ray._raylet import GcsClient; GcsClient(address={address!r})"
    ours = {**os.environ, "PYTHONPATH": str(Path(cluster.__file__).parents[2])}
    assert ours["RAY_AUTH_MODE"] == "token"
    stranger = {**ours, "RAY_AUTH_TOKEN": "0" * 64}
    with (
        subprocess.Popen([sys.executable, "-c", joins], env=ours, stdout=subprocess.PIPE, text=True) as joined,
        subprocess.Popen([sys.executable, "-c", asks], env=stranger, stderr=subprocess.PIPE, text=True) as refused,
    ):
        assert joined.communicate(timeout=60)[0] == "3\n"
        assert "InvalidAuthToken" in refused.communicate(timeout=60)[1]


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_goes_on_past_what_cannot_be_replayed(recordings, alone, tmp_path, capsys):
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
    said = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[:2] for line in said[2:4]] == [["| shop9/monday", "failed"], ["| shop8/monday", "failed"]]
    assert said[4].startswith("| shop2/monday | ")
    faults = "\n".join(said[6:])
    assert "shop9/monday: " in faults and "weights.parquet" in faults
    assert f"shop8/monday: {missing}: want a recording's folder, got nothing" in faults
    assert tasks.results(out / "shop2") == {
        name.partition("/")[2]: data for name, data in alone.items() if name.startswith("shop2/")
    }
    # What was begun is gone.
    assert not list(out.rglob(".*"))


def test_the_command_on_a_cluster_prints_nothing_but_the_table(recordings, ray_cluster, tmp_path, capfd, monkeypatch):
    mark = recordings[0].with_name("monday.kill")
    mark.touch()
    monkeypatch.setattr(cluster, "replay_job", tasks.replay_killed_once)
    assert main(["replay", str(recordings[0]), "--out", str(tmp_path), "--cluster", ray_cluster]) == 0
    mark.with_suffix(".killed").unlink()
    said = capfd.readouterr().out.splitlines()
    assert [line[:2] for line in said] == ["| ", "|-", "| "] and said[2].endswith(" | 2 |")
    assert (tmp_path / "monday" / "run.json").exists()


def test_the_command_names_what_it_will_not_begin(tmp_path, capsys):
    assert main(["replay", "a", "a", "--out", str(tmp_path)]) == 2
    assert "want every recording once, got it again" in capsys.readouterr().err


# ---- what a failure leaves -------------------------------------------------------------------------------------------


def _copy(recording: Path, folder: Path) -> Path:
    shutil.copytree(recording, folder)
    return folder


def _break_store(recording: Path) -> None:
    (recording / "store" / "store.toml").write_text("[")


def _cut_off(recording: Path) -> None:
    file = recording / "detections.parquet"
    file.write_bytes(file.read_bytes()[:-2000])


def _damage_half_way(recording: Path) -> None:
    """Of many row groups the middle one is torn: the footer can be read."""
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
def test_a_recording_that_fails_has_no_run_of_earlier(recordings, tmp_path, damage):
    bad, good = _copy(recordings[0], tmp_path / "in" / "bad"), _copy(recordings[1], tmp_path / "in" / "good")
    out = tmp_path / "out"
    assert main(["replay", str(bad), str(good), "--out", str(out), "--workers", "1"]) == 0
    damage(bad)
    assert main(["replay", str(bad), str(good), "--out", str(out), "--workers", "1"]) == 1
    assert [path.parent.name for path in out.rglob("run.json")] == ["good"]
    assert not list(out.rglob("partial.json"))


def test_a_recording_whose_worker_always_dies_has_no_run_of_earlier(tmp_path, monkeypatch):
    (tmp_path / "in" / "monday").mkdir(parents=True)
    (tmp_path / "out" / "monday").mkdir(parents=True)
    run = tmp_path / "out" / "monday" / "run.json"
    run.write_text("{}")
    monkeypatch.setattr(cluster, "replay_job", tasks.die)
    (one,) = replay_many([tmp_path / "in" / "monday"], tmp_path / "out", workers=1, tries=1)
    assert one.fault.startswith("its worker died") and not run.exists()


def test_a_recording_that_is_damaged_half_way_says_so_and_has_no_run(recordings, tmp_path, capsys):
    bad, out = _copy(recordings[0], tmp_path / "in" / "bad"), tmp_path / "out"
    assert main(["replay", str(bad), "--out", str(out), "--workers", "1"]) == 0
    whole = json.loads((out / "bad" / "run.json").read_text())
    assert list(whole) == ["version", "store", "frames", "messages", "wall_s", "engine_cpu_s", "step_us", "ignored"]
    _damage_half_way(bad)
    capsys.readouterr()
    assert main(["replay", str(bad), "--out", str(out), "--workers", "1"]) == 1
    part = json.loads((out / "bad" / "partial.json").read_text())
    assert part["frames"] < whole["frames"]
    assert "detections.parquet" in part["fault"] and part["fault"] in capsys.readouterr().out
    assert {path.name for path in (out / "bad").iterdir()} == {
        "partial.json", "receipts.jsonl", "events.jsonl", "evidence.jsonl", "shelves.jsonl", "tracks.parquet",
    }  # fmt: skip
    # Mended, it is whole again, and nothing speaks of the damage.
    shutil.rmtree(bad)
    _copy(recordings[0], bad)
    assert main(["replay", str(bad), "--out", str(out), "--workers", "1"]) == 0
    assert json.loads((out / "bad" / "run.json").read_text())["frames"] == whole["frames"]
    assert not (out / "bad" / "partial.json").exists()


def test_a_single_replay_of_a_damaged_recording_says_so_in_its_run(recordings, tmp_path):
    bad = _copy(recordings[0], tmp_path / "bad")
    _damage_half_way(bad)
    with pytest.raises(RecordingError) as damaged:
        replay(bad, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["fault"] == str(damaged.value)


def test_results_of_earlier_stay_where_nothing_is_begun(recordings, tmp_path, monkeypatch):
    def refuse(*args: object) -> None:
        raise FusionError("nowhere:1: want a Ray cluster, got nothing")

    monkeypatch.setattr(cluster, "_Ray", refuse)
    run = tmp_path / "monday" / "run.json"
    run.parent.mkdir()
    run.write_text("{}")
    assert main(["replay", str(recordings[0]), "--out", str(tmp_path), "--cluster", "nowhere:1"]) == 2
    assert run.read_text() == "{}"


def test_an_earlier_run_that_cannot_be_taken_away_is_named(recordings, tmp_path, capsys):
    run = tmp_path / "monday" / "run.json"
    run.mkdir(parents=True)
    assert main(["replay", str(recordings[0]), "--out", str(tmp_path)]) == 2
    assert f"{run}: want to replace an earlier run's, got " in capsys.readouterr().err


def test_a_worker_that_was_taken_for_dead_takes_no_finished_run_away(recordings, tmp_path):
    job = Job(recordings[0], tmp_path / "out")
    cluster.replay_job(job)
    finished = {path.name: path.read_bytes() for path in job.out.iterdir()}
    # It comes to its end after another try has: with its folder, and when that is gone.
    cluster.replay_job(job)
    assert {path.name: path.read_bytes() for path in job.out.iterdir()} == finished
    with pytest.raises(FileNotFoundError):
        cluster._put_in_place(tmp_path / "gone", job.out)
    assert {path.name: path.read_bytes() for path in job.out.iterdir()} == finished


def test_two_replays_into_one_folder_are_refused(recordings, tmp_path, capsys):
    out = tmp_path / "out"
    with closing(replay_many(recordings[:2], out, workers=1)) as first:
        assert next(first).fault is None
        assert main(["replay", str(recordings[2]), "--out", str(out), "--workers", "1"]) == 2
        said = capsys.readouterr().err
        assert f"{out}: want it for one replay at a time, got another at work in it: " in said
        assert said.rstrip().endswith(f":{os.getpid()}")
        assert not list(out.rglob("shop2"))
        # The refused one has not taken the lock away.
        with pytest.raises(FusionError):
            next(replay_many(recordings[2:], out, workers=1))
        assert next(first).fault is None
    assert sorted(path.name for path in out.iterdir()) == ["shop0", "shop1"]


def test_a_lock_whose_holder_was_killed_is_free(recordings, tmp_path):
    (tmp_path / cluster.LOCK).write_text("elsewhere:1\n")
    (one,) = replay_many(recordings[:1], tmp_path, workers=1)
    assert one.fault is None
    assert [path.name for path in tmp_path.iterdir()] == ["monday"]


def test_a_file_where_results_belong_is_named(recordings, tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert main(["replay", str(recordings[0]), "--out", str(tmp_path / "out")]) == 2
    assert f"{tmp_path / 'out'}" in capsys.readouterr().err


# ---- where results belong --------------------------------------------------------------------------------------------


def test_results_lie_below_the_deepest_common_folder():
    assert jobs_of(["/r/a/1", "/r/b/1", "/r/b/2"], "/o") == [
        Job(Path("/r/a/1"), Path("/o/a/1")), Job(Path("/r/b/1"), Path("/o/b/1")), Job(Path("/r/b/2"), Path("/o/b/2")),
    ]  # fmt: skip
    assert jobs_of(["/r/a"], "/o") == [Job(Path("/r/a"), Path("/o/a"))]


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), min_size=1, max_size=6))
def test_results_never_meet(names):
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
    ("recordings", "out", "said"),
    [
        (["/r/a", "/r/a/b"], "/o", "/r/a/b: want no recording in another, got it in /r/a"),
        (["/r/a", "/r/b"], "/r", "/r/a: want results outside of recordings, got them in /r/a"),
        (["/r/a"], "/r/a/out", "/r/a/out/a: want results outside of recordings, got them in /r/a"),
    ],
)
def test_results_do_not_lie_in_recordings(recordings, out, said):
    with pytest.raises(ConfigError) as refused:
        jobs_of(recordings, out)
    assert said in refused.value.faults


def test_results_of_an_earlier_run_are_replaced_and_a_file_in_the_way_is_a_fault(recordings, tmp_path):
    old = tmp_path / "shop0" / "monday"
    old.mkdir(parents=True)
    (old / "receipts.jsonl").write_text("old\n")
    (tmp_path / "shop1").mkdir()
    (tmp_path / "shop1" / "monday").write_text("in the way")
    replaced, refused = sorted(replay_many(recordings[:2], tmp_path, workers=1), key=lambda one: one.index)
    assert replaced.fault is None
    assert "old" not in (old / "receipts.jsonl").read_text()
    assert refused.value is None and refused.fault.startswith("FileExistsError")
