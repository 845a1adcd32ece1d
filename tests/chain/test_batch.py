"""Tasks on processes and on a Ray cluster: every item once, whatever happens to the workers."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import closing
from pathlib import Path

import pytest
import tasks

import fusion
from fusion.chain import executors
from fusion.chain.batch import map_tasks, run_tasks
from fusion.chain.executors import Ended, Processes, RayCluster
from fusion.chain.tasks import Answer, installation
from fusion.errors import ConfigError

ROOT = Path(fusion.__file__).parents[1]


def test_a_task_that_always_kills_its_worker_is_named_and_the_others_continue(where):
    many = map_tasks(tasks.die_at_three, range(6), workers=2, cluster=where, tries=2)
    outcomes = {outcome.index: outcome for outcome in many}
    died = outcomes.pop(3)
    assert (died.value, died.tries, died.worker) == (None, 2, "")
    assert died.fault == "its worker died 2 times of 2: killed, out of memory, or a crash"
    # The others are not affected: they ran in other processes, or later.
    assert {i: (outcome.value, outcome.fault, outcome.tries) for i, outcome in outcomes.items()} == {
        i: (i, None, 1) for i in (0, 1, 2, 4, 5)
    }


def test_a_task_that_raises_is_not_begun_again(where):
    outcomes = {outcome.index: outcome for outcome in map_tasks(tasks.refuse_odd, range(4), workers=2, cluster=where)}
    assert [(outcomes[i].value, outcomes[i].fault, outcomes[i].tries) for i in range(4)] == [
        (0, None, 1), (None, "want an even number, got 1", 1), (2, None, 1), (None, "ValueError: odd: 3", 1),
    ]  # fmt: skip


def test_an_answer_that_cannot_be_pickled_is_a_fault_of_its_own(where):
    outcomes = {outcome.index: outcome for outcome in map_tasks(tasks.lock, range(2), workers=1, cluster=where)}
    assert (outcomes[0].value, outcomes[0].fault, outcomes[1].value) == (0, None, None)
    assert "cannot pickle '_thread.lock' object" in str(outcomes[1].fault)


def test_workers_work_side_by_side(where, tmp_path):
    meetings = [tasks.Meeting(tmp_path, member, 2) for member in range(2)]
    outcomes = list(map_tasks(tasks.meet, meetings, workers=2, cluster=where))
    assert [outcome.fault for outcome in outcomes] == [None, None]
    pids = {outcome.value for outcome in outcomes}
    assert len(pids) == 2 and os.getpid() not in pids


def test_a_worker_killed_between_tasks_costs_nothing():
    outcomes = []
    with closing(map_tasks(tasks.pid, range(3), workers=1)) as mapped:
        for outcome in mapped:
            outcomes.append(outcome)
            if outcome.index == 0:
                os.kill(outcome.value, signal.SIGKILL)
    assert sorted(outcome.index for outcome in outcomes) == [0, 1, 2]
    assert all(outcome.fault is None and outcome.tries <= 2 for outcome in outcomes)
    assert len({outcome.value for outcome in outcomes}) == 2


def test_workers_end_with_their_parent(tmp_path):
    program = (
        "import os, sys, tasks\nfrom fusion.chain.batch import map_tasks\n"
        "if __name__ == '__main__':\n"
        "    for outcome in map_tasks(tasks.pid_then_sleep, [0.0, 600.0], workers=1):\n"
        "        print(outcome.value, flush=True)\n"
    )
    path = tmp_path / "program.py"
    path.write_text(program)
    paths = os.pathsep.join([str(Path(tasks.__file__).parent), str(ROOT)])
    with subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    deadline_s = time.monotonic() + 60.0
    while time.monotonic() < deadline_s and _lives(worker):
        time.sleep(0.05)
    assert not _lives(worker)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_have_one_thread_before_the_main_module_is_imported(tmp_path):
    """A main module that imports numpy does so in every worker, before the worker runs anything of this package."""
    program = (
        "import os\nfound = os.environ.get('OMP_NUM_THREADS')\nfrom fusion.chain.batch import map_tasks\n"
        "def threads(item):\n    return found\n"
        "if __name__ == '__main__':\n"
        "    print(next(map_tasks(threads, [0], workers=1)).value, os.environ.get('OMP_NUM_THREADS'))\n"
    )
    path = tmp_path / "program.py"
    path.write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("OMP_NUM_THREADS", None)
    for threads, printed in ((None, "1 None\n"), ("2", "2 2\n")):
        given = environment if threads is None else {**environment, "OMP_NUM_THREADS": threads}
        assert subprocess.check_output([sys.executable, str(path)], text=True, env=given, timeout=60) == printed


def test_a_worker_with_another_installation_refuses(where, monkeypatch):
    here = installation()
    monkeypatch.setattr(executors, "installation", lambda: {**here, "fusion": "0.1.0 with files 0", "numba": "0.1"})
    (outcome,) = map_tasks(tasks.square, [3], workers=1, cluster=where)
    assert outcome.value is None and outcome.worker
    assert outcome.fault == (
        f"{outcome.worker}: the worker has another installation: "
        f"want fusion 0.1.0 with files 0, got {here['fusion']}; want numba 0.1, got {here['numba']}"
    )


def test_another_line_of_code_is_another_installation(tmp_path):
    shutil.copytree(ROOT / "fusion", tmp_path / "fusion", ignore=shutil.ignore_patterns("__pycache__"))
    ask = [sys.executable, "-c", "from fusion.chain.tasks import installation; print(installation())"]
    assert subprocess.check_output(ask, text=True, cwd=tmp_path) == f"{installation()}\n"
    with open(tmp_path / "fusion" / "errors.py", "a") as file:
        file.write("#\n")
    assert subprocess.check_output(ask, text=True, cwd=tmp_path) != f"{installation()}\n"


class Stub:
    """An executor without processes: each task takes some looks, and each look a second of the test's clock."""

    workers = 2

    def __init__(self, looks: dict[int, int]) -> None:
        self.now_s = 0.0
        self._looks, self._running = looks, deque[int]()

    def start(self, index: int, packed: bytes) -> None:
        self._running.append(index)

    def next(self, timeout_s: float) -> Ended | None:
        self.now_s += timeout_s
        for index in list(self._running):
            self._looks[index] -= 1
            if self._looks[index] <= 0:
                self._running.remove(index)
                return Ended(index, Answer(index, None, "here:1"))
        return None

    def alive(self) -> str:
        return f"{len(self._running)} stubs"

    def close(self) -> None:
        assert not self._running


def test_slow_tasks_are_named_again_and_again(capsys):
    stub = Stub({0: 2, 1: 60, 2: 1})
    outcomes = run_tasks(
        tasks.square, ["a", "b", "c"], lambda: stub, slow_s=20.0, look_s=1.0, clock_s=lambda: stub.now_s
    )
    assert sorted(outcome.value for outcome in outcomes) == [0, 1, 2]
    assert capsys.readouterr().err.splitlines() == [
        "fusion: running for more than 0.333333 minutes: b (0 min); alive: 1 stubs",
        "fusion: running for more than 0.333333 minutes: b (1 min); alive: 1 stubs",
    ]


def test_what_is_alive_is_named(ray_cluster, tmp_path):
    for executor, alive in (
        (Processes(1, 1), "0 processes at work"),
        (RayCluster(1, ray_cluster), "1 nodes of the Ray cluster"),
    ):
        with closing(executor):
            assert executor.alive() == alive


def test_a_cluster_without_nodes_is_given_up(ray_cluster, monkeypatch, tmp_path):
    import ray

    def connect() -> RayCluster:
        return RayCluster(2, ray_cluster, no_node_max_s=90.0, clock_s=lambda: next(seconds))

    seconds = iter(range(0, 1000, 10))
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": False, "Resources": {}}, {"Alive": True, "Resources": {}}])
    # Tasks that wait for a third member, which never starts.
    meetings = [tasks.Meeting(tmp_path, member, 3) for member in range(3)]
    outcomes = list(run_tasks(tasks.meet, meetings, connect, look_s=0.01))
    assert [(outcome.index, outcome.value, outcome.tries) for outcome in outcomes] == [
        (0, None, 1), (1, None, 1), (2, None, 0),
    ]  # fmt: skip
    assert {outcome.fault for outcome in outcomes} == {
        "local: want a Ray node with a core for a task, got none for 1.5 minutes"
    }


@pytest.mark.parametrize(("name", "value"), [("workers", 0), ("workers", -1), ("tries", 0)])
def test_less_than_one_is_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name}: want at least 1, got {value}"):
        map_tasks(tasks.square, [1], **{name: value})


def test_without_items_nothing_is_started():
    assert list(map_tasks(tasks.square, [], cluster="nowhere:1")) == []


def test_an_address_where_nothing_answers_is_named():
    if importlib.util.find_spec("ray") is None:
        pytest.skip("no Ray: pip install 'storefusion[ray]'")
    program = "from fusion.chain.executors import connect; connect(1, 'nonsense')"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.stderr.splitlines()[-1].startswith("fusion.errors.FusionError: nonsense: no Ray cluster answers: ")


def test_a_local_cluster_answers_to_its_token_alone(ray_cluster):
    """A client that reaches a Ray cluster can have it run anything."""
    import ray

    address = ray.get_runtime_context().gcs_address
    joins = f"from fusion.chain.batch import map_tasks; print(next(map_tasks(abs, [-3], cluster={address!r})).value)"
    asks = f"from ray._raylet import GcsClient; GcsClient(address={address!r})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert environment["RAY_AUTH_MODE"] == "token"
    stranger = {**environment, "RAY_AUTH_TOKEN": "0" * 64}
    with (
        subprocess.Popen([sys.executable, "-c", joins], env=environment, stdout=subprocess.PIPE, text=True) as joined,
        subprocess.Popen([sys.executable, "-c", asks], env=stranger, stderr=subprocess.PIPE, text=True) as refused,
    ):
        assert joined.communicate(timeout=60)[0] == "3\n"
        assert "InvalidAuthToken" in refused.communicate(timeout=60)[1]
