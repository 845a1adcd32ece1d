"""Replays of many recordings: where each one's results belong, and how they appear whole or not at all.

A recording is not cut to be replayed in pieces side by side. An engine never starts from nothing: it numbers people and
events consecutively, and has learned clock offsets, noise and plates' levels, so that a piece replayed by a new engine
gives other bytes even where it begins in an empty store (`python -m bench batch --cuts` counts them). There are usually
many recordings, enough to share out; the longest start first.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import glob
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fusion.chain.batch import TRIES, Outcome, check_counts, executor_for, run_tasks
from fusion.chain.executors import Executor
from fusion.errors import ConfigError, FusionError, RecordingError

if TYPE_CHECKING:
    from fusion.results import RunSummary

# Name of the lock file in the folder for results while a replay works there.
LOCK = ".replay.lock"
# The first file marks results as complete; the second replaces it where a recording is damaged half-way.
RUN, PARTIAL = "run.json", "partial.json"


@dataclass(frozen=True)
class Job:
    """A recording to be replayed, and the folder for its results."""

    recording: Path
    out: Path

    def __str__(self) -> str:
        return str(self.recording)

    @property
    def unfinished_prefix(self) -> str:
        """How the names of this job's unfinished folders begin, beside `out`."""
        return f".{self.out.name}.unfinished-"


@dataclass(frozen=True)
class Replayed:
    """A replay in short. `summary` is that of its run.json."""

    summary: RunSummary
    receipts: int
    review: int


def jobs_of(recordings: Sequence[str | Path], out: str | Path) -> list[Job]:
    """Where each recording's results belong: its path below the deepest folder that holds them all, under `out`.

    Raises:
        ConfigError: a recording is given twice or contains another, or results would be written into a recording.
    """
    paths = [Path(os.path.abspath(recording)) for recording in recordings]
    # Not the common path itself, which for a single recording is the recording.
    common = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    faults = []
    for i, path in enumerate(paths):
        if path in paths[:i]:
            faults.append(f"{path}: want every recording once, got it again")
        within = [other for other in paths if other in path.parents]
        faults += [f"{path}: want no recording in another, got it in {other}" for other in within]
    folder = Path(os.path.abspath(out))
    jobs = [Job(path, folder / path.relative_to(common)) for path in paths]
    for job in jobs:
        within = [path for path in paths if path == job.out or path in job.out.parents]
        faults += [f"{job.out}: want results outside of recordings, got them in {path}" for path in within]
    if faults:
        raise ConfigError(faults)
    return jobs


def replay_job(job: Job) -> Replayed:
    """The task: what `fusion.replay` does, its files put in place when all are complete. Several workers may try.

    A run.json that is in place belongs to another try that completed: it and the files beside it stay.

    Raises:
        FusionError: as for `fusion.replay`. The results of a damaged recording up to the damage are put in place, with
            partial.json.
    """
    from fusion.run import replay

    job.out.parent.mkdir(parents=True, exist_ok=True)
    # A folder for each try: a worker that is taken for dead may still write.
    unfinished = Path(tempfile.mkdtemp(prefix=job.unfinished_prefix, dir=job.out.parent))
    try:
        try:
            summary = replay(job.recording, unfinished)
        except RecordingError:
            run = unfinished / RUN
            if run.exists():
                run.rename(unfinished / PARTIAL)
                put_in_place(unfinished, job.out)
            raise
        receipts, review = _count_receipts(unfinished / "receipts.jsonl")
        put_in_place(unfinished, job.out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Replayed(summary, receipts, review)


def put_in_place(unfinished: Path, out: Path) -> None:
    """Move the files; run.json last, so that where it exists the others do too. No worker ever removes one."""
    paths = sorted(unfinished.iterdir(), key=lambda path: path.name in (RUN, PARTIAL))
    out.mkdir(exist_ok=True)
    if not (out / RUN).exists():
        for path in paths:
            path.replace(out / path.name)


def _remove_earlier(jobs: Sequence[Job]) -> None:
    """Remove the files that mark results of an earlier run as complete, before any task is begun.

    A reader who looks while this run is under way, or after a recording has failed, must not take earlier results for
    those of this run.
    """
    for job in jobs:
        for name in (RUN, PARTIAL):
            try:
                (job.out / name).unlink()
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:
                path = job.out / name
                raise FusionError(f"{path}: this file of an earlier run cannot be removed: {error.strerror}") from None


def _count_receipts(path: Path) -> tuple[int, int]:
    """All receipts, and those in review."""
    import json

    with open(path, encoding="utf-8") as file:
        statuses = [json.loads(line)["status"] for line in file]
    return len(statuses), statuses.count("review")


def replay_many(
    recordings: Sequence[str | Path],
    out: str | Path,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    tries: int = TRIES,
    task: Callable[[Job], Replayed] = replay_job,
) -> Generator[Outcome[Job, Replayed], None, None]:
    """Replay recordings in other processes; outcomes come as they end, the longest recordings start first.

    Every recording's results are those of `fusion.replay`, in a folder under `out`: see `jobs_of`. They appear when
    they are complete, run.json last; those of an earlier run are removed when work begins. A recording that fails, or
    whose worker died `tries` times, has none, and does not affect the others. One that is damaged half-way has its
    results up to the damage, and instead of run.json partial.json, the same with `fault`.

    Args:
        recordings: folders.
        out: folder for the results; one replay at a time works in it.
        workers: as for `map_tasks`.
        cluster: as for `map_tasks`.
        tries: as for `map_tasks`.
        task: what is done for each job.

    Returns:
        Outcomes; `index` is the place in `recordings`.

    Raises:
        ConfigError: as for `map_tasks` and `jobs_of`.
        FusionError: as for `map_tasks`, or another replay works in `out`.
    """
    check_counts(workers, tries)
    jobs = jobs_of(recordings, out)
    connect = functools.partial(executor_for, workers, cluster, len(jobs))
    return _replayed(jobs, Path(os.path.abspath(out)), connect, tries, task)


def _replayed(
    jobs: Sequence[Job], out: Path, connect: Callable[[], Executor], tries: int, task: Callable[[Job], Replayed]
) -> Generator[Outcome[Job, Replayed], None, None]:
    if not jobs:
        return
    order = sorted(range(len(jobs)), key=lambda i: (-_n_bytes(jobs[i].recording), i))
    ordered = [jobs[i] for i in order]
    outcomes = run_tasks(task, ordered, connect, tries, prepare=functools.partial(_remove_earlier, jobs))
    with _locked(out), contextlib.closing(outcomes):
        for outcome in outcomes:
            # Folders of workers that died. They are renamed first, at once: a worker that lives after all then finds
            # either all its files or none.
            job = outcome.item
            for left in job.out.parent.glob(f"{glob.escape(job.unfinished_prefix)}*"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(left.rename(left.with_name(f"{left.name}~")), ignore_errors=True)
            yield replace(outcome, index=order[outcome.index])


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder for one replay: two would remove each other's unfinished results, so the second is refused.

    The lock ends with the process that holds it, whatever becomes of its file.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 held until the end
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder deletes the file at its end: the file that was opened may be no longer in the folder.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    break
            file.close()
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise FusionError(f"{folder}: another replay works in this folder: {holder}; choose another --out") from None
    except OSError as error:
        raise FusionError(f"{path}: the folder cannot be locked: {error.strerror}") from None
    try:
        file.truncate(0)
        file.write(f"{socket.gethostname()}:{os.getpid()}\n")
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _n_bytes(recording: Path) -> int:
    """Size of its files; 0 where there are none."""
    return sum(path.stat().st_size for path in recording.rglob("*") if path.is_file())


def table(outcomes: Sequence[Outcome[Job, Replayed]], out: str | Path) -> str:
    """Outcomes as a Markdown table in the order of the recordings, then the faults."""
    rows = ["| results | frames | messages | receipts | review | engine CPU s | tries |", "|---|" + 6 * "---|"]
    faults = []
    folder = os.path.abspath(out)
    for outcome in sorted(outcomes, key=lambda outcome: outcome.index):
        name = os.path.relpath(outcome.item.out, folder)
        replayed = outcome.value
        if replayed is None:
            rows.append(f"| {name} | failed | | | | | {outcome.tries} |")
            faults.append(f"{name}: {outcome.fault}")
            continue
        run = replayed.summary
        rows.append(
            f"| {name} | {run.frames} | {run.messages} | {replayed.receipts} | {replayed.review} "
            f"| {run.engine_cpu_s:.2f} | {outcome.tries} |"
        )
    return "\n".join([*rows, *([""] if faults else []), *faults])
