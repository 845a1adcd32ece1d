"""Tasks for the tests of `fusion.chain`: other processes import them from here."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from fusion.chain.replays import Job, Replayed, replay_job
from fusion.errors import ConfigError
from fusion.files.results import ResultsWriter


def square(n: int) -> int:
    return n * n


def refuse_odd(n: int) -> int:
    if n % 4 == 1:
        raise ConfigError(f"want an even number, got {n}")
    if n % 4 == 3:
        raise ValueError(f"odd: {n}")
    return n


def lock(n: int) -> object:
    """An answer that cannot be pickled."""
    return threading.Lock() if n else n


def die_at_three(n: int) -> int:
    if n == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def die(item: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def pid(item: object) -> int:
    return os.getpid()


def pid_then_sleep(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@dataclass(frozen=True)
class Meeting:
    """One member of a meeting, which begins when all have arrived in its folder."""

    folder: Path
    member: int
    n_members: int


def meet(meeting: Meeting) -> int:
    """Wait until all members are there at once."""
    (meeting.folder / str(meeting.member)).touch()
    while len(list(meeting.folder.iterdir())) < meeting.n_members:
        time.sleep(0.01)
    return os.getpid()


def replay_killed_once(job: Job) -> Replayed:
    """`replay_job`, killed half-way the first time that a marked job is begun."""
    mark = job.recording.with_name(f"{job.recording.name}.kill")
    try:
        mark.rename(mark.with_suffix(".killed"))
    except FileNotFoundError:
        return replay_job(job)
    add, n_written = ResultsWriter.add, 0

    def add_and_die(self: ResultsWriter, *args: object) -> None:
        nonlocal n_written
        add(self, *args)  # type: ignore[arg-type]
        n_written += 1
        if n_written == 400:
            os.kill(os.getpid(), signal.SIGKILL)

    ResultsWriter.add = add_and_die  # type: ignore[method-assign, assignment]
    return replay_job(job)


def results(folder: Path) -> dict[str, bytes]:
    """Every file in a folder of results by its path; of run.json everything but the times."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.name == "run.json":
                run = json.loads(data)
                for timed in ("wall_s", "engine_cpu_s", "step_us"):
                    del run[timed]
                data = json.dumps(run).encode()
            files[str(path.relative_to(folder))] = data
    return files
