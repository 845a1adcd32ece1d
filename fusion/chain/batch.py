"""Work over many recordings: a task for each, on this machine's processes or on a Ray cluster.

`map_tasks` is the verb: a function, its items, and where to run. What a task does and what is made of its end is the
same wherever it runs; the two executors only carry it to a process and tell whether that process lived. An actor call
or a task of Ray costs about a millisecond, so a task is a whole recording, seconds or minutes of work, never a frame.

A recording is not cut to be replayed in pieces side by side. What an engine knows is never "nothing": it numbers people
and events through, and has learned clock offsets, noise and plates' levels, so that a piece which starts afresh gives
other bytes even where it starts in an empty store (`python -m bench batch --cuts` counts them). Recordings are many, so
that there is enough to share out; the longest start first.

Nothing of a task depends on where, when or beside what it runs, so that results are the same bytes everywhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import glob
import hashlib
import importlib.metadata
import multiprocessing
import os
import pickle
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import fusion
from fusion.errors import ConfigError, FusionError, RecordingError, extra

if TYPE_CHECKING:
    from fusion.results import RunSummary

T = TypeVar("T")
R = TypeVar("R")

# A task whose worker died is begun so often in all. What kills its worker each time (memory, a crash in native code)
# would go on for ever; a machine that went away does not come three times.
TRIES = 3
# So often those who carry tasks look about while none ends.
LOOK_S = 5.0
# A task that is under way for longer is named on stderr, again after as long: it may hang, or wait for a core.
SLOW_S = 600.0
# A Ray cluster without a machine that could run a task is waited for so long: one that grows and shrinks takes minutes.
NOWHERE_S = 300.0
# Items and answers are paths and counts; the least that Ray accepts is 75 MiB.
OBJECT_STORE_BYTES = 80 * 2**20
# In the folder for results, while a replay works there.
LOCK = ".replay.lock"
# What says of results that they are whole; and what is there in its place where a recording is damaged half-way.
RUN, PARTIAL = "run.json", "partial.json"


@dataclass(frozen=True)
class Outcome(Generic[T, R]):
    """What became of one item.

    Attributes:
        index: the item's place among those given.
        value: what the function returned; None where it did not.
        fault: why there is no value; None where there is one.
        tries: how often it was begun; more than 1 where a worker died.
        worker: host and process that did it last, `host:pid`; empty where it died.
    """

    index: int
    item: T
    value: R | None
    fault: str | None
    tries: int
    worker: str


@dataclass(frozen=True)
class _Told:
    """What a worker says at the end of a task."""

    value: Any
    fault: str | None
    worker: str


@functools.cache
def _code() -> dict[str, str]:
    """What makes the bytes of results, by name: the files of this package, compiled ones too, and the versions of what
    it computes and writes with."""
    digest = hashlib.sha256()
    folder = Path(fusion.__file__).parent
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".so")):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(data)}\n".encode() + data)
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "scipy", "numba", "pyarrow")}
    return {"fusion": f"{fusion.__version__} with files {digest.hexdigest()[:12]}", **versions}


def _attempt(packed: bytes, code: dict[str, str], paths: Sequence[str] = ()) -> _Told:
    """The task, the same in every worker. What the function raises is a fault of this item and no other's.

    packed: function and item, unpacked here, so that one which cannot be is a fault too, not the end of the worker.
    code: `_code()` of who gave the task; another one may give other bytes.
    """
    worker = f"{socket.gethostname()}:{os.getpid()}"
    if code != (got := _code()):
        other = "; ".join(
            f"want {name} {want}, got {got.get(name)}" for name, want in code.items() if want != got.get(name)
        )
        return _Told(None, f"{worker}: another installation than where the tasks come from: {other}", worker)
    sys.path += [path for path in paths if path not in sys.path]
    try:
        function, item = pickle.loads(packed)
        return _Told(function(item), None, worker)
    except FusionError as error:
        return _Told(None, str(error), worker)
    except Exception as error:  # a task that fails must not end the others
        return _Told(None, f"{type(error).__name__}: {error}", worker)


class _Nowhere(FusionError):
    """No task will be done any more. Says where, what was wanted and for how long."""


class _Executor(Protocol):
    """Carries tasks to processes.

    Attributes:
        workers: tasks that may be under way at once.
    """

    workers: int

    def start(self, index: int, packed: bytes) -> None:
        """Begin a task, as for `_attempt`; called for no more of them than there are workers."""

    def next(self, timeout_s: float) -> tuple[int, _Told | None] | None:
        """Wait for a task to end: its index and what it said, None where its process died; None where none has ended.

        Raises:
            _Nowhere: there has long been no place where one could be done.
        """

    def alive(self) -> str:
        """How much there is to work with."""

    def close(self) -> None: ...


def map_tasks(
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    workers: int | None = None,
    cluster: str | None = None,
    tries: int = TRIES,
) -> Generator[Outcome[T, R], None, None]:
    """Apply a function to every item, in other processes; outcomes come as tasks end.

    Items are begun in the order given. A task whose worker died is begun again, behind the others; a task that raised
    is not, since it would again. Either way the others go on. What is long under way is named on stderr (`SLOW_S`);
    where a Ray cluster has no node with a core for `NOWHERE_S`, what is left ends with that fault. Leaving the iterator
    early ends the workers, those of this machine after the tasks they have.

    Args:
        function: of a module that workers can import (not of an interactive session), called with one item. It may be
            called again for an item, so what it writes must appear whole or be replaced.
        items: picklable, as is what the function returns.
        workers: tasks at once; as many as this process may use cores, or as the cluster has.
        cluster: None for processes of this machine; "local" for a Ray of our own on it; else the address of a Ray
            cluster, on all of whose machines the same build of this package is installed, with the same numpy, scipy,
            numba and pyarrow, and the items' files are found under one path.
        tries: how often a task is begun whose worker dies.

    Raises:
        FusionError: Ray is not installed, or nothing answers at the address.
        ConfigError: workers or tries are not at least 1.
    """
    _check(workers, tries)
    return _mapped(function, items, workers, cluster, tries)


def _check(workers: int | None, tries: int) -> None:
    for name, number in (("workers", workers), ("tries", tries)):
        if number is not None and number < 1:
            raise ConfigError(f"{name}: want at least 1, got {number}")


def _mapped(
    function: Callable[[T], R],
    items: Sequence[T],
    workers: int | None,
    cluster: str | None,
    tries: int,
    first: Callable[[], object] = lambda: None,
) -> Generator[Outcome[T, R], None, None]:
    """first: called once it is known that there is a place to work, before anything is begun."""
    if not items:
        return
    executor: _Executor = _Processes(workers, len(items)) if cluster is None else _Ray(workers, cluster)
    waiting, begun = deque(range(len(items))), [0] * len(items)
    since_s: dict[int, float] = {}  # of what is under way
    looked_s = time.monotonic()

    def begin() -> None:
        while waiting and len(since_s) < executor.workers:
            index = waiting.popleft()
            begun[index] += 1
            since_s[index] = time.monotonic()
            executor.start(index, pickle.dumps((function, items[index])))

    try:
        first()
        begin()
        while since_s:
            try:
                ended = executor.next(LOOK_S)
            except _Nowhere as error:
                for index in [*since_s, *waiting]:
                    yield Outcome(index, items[index], None, str(error), begun[index], "")
                return
            now_s = time.monotonic()
            slow = [
                f"{items[i]} ({(now_s - at_s) / 60:.0f} min)" for i, at_s in since_s.items() if now_s - at_s > SLOW_S
            ]
            if slow and now_s - looked_s > SLOW_S:
                looked_s = now_s
                said = f"under way for more than {SLOW_S / 60:g} minutes: {', '.join(slow)}; alive: {executor.alive()}"
                print(f"fusion: {said}", file=sys.stderr, flush=True)
            if ended is None:
                continue
            index, told = ended
            del since_s[index]
            if told is None and begun[index] < tries:
                waiting.append(index)
            begin()  # before anybody looks at what has ended
            if told is None and begun[index] >= tries:
                died = f"its worker died {begun[index]} times of {tries}: killed, out of memory, or a crash"
                told = _Told(None, died, "")
            if told is not None:
                yield Outcome(index, items[index], told.value, told.fault, begun[index], told.worker)
    finally:
        executor.close()


# ---- processes of this machine ---------------------------------------------------------------------------------------


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin_worker() -> None:
    """In a worker: an end with the process that it works for."""
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that are spawned within have one thread for numerics, unless this one's environment says otherwise. It
    has to be theirs from the first: before they run anything of ours they import the caller's main module, and numpy
    with it, which asks only once."""
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


class _Processes:
    """Local processes, each a pool of its own: where one dies, it is plain whose task it had, and no other's is lost.

    They are spawned, not forked: a fork of a process with threads may inherit a lock that nobody will open.
    """

    def __init__(self, workers: int | None, n_items: int) -> None:
        self.workers = min(workers or _cores(), n_items)
        self._idle: list[ProcessPoolExecutor] = []
        self._under_way: dict[Future[_Told], tuple[int, ProcessPoolExecutor]] = {}

    def start(self, index: int, packed: bytes) -> None:
        pool = self._idle.pop() if self._idle else self._pool()
        # A pool spawns its process when it is first given something.
        with _one_thread():
            try:
                future = pool.submit(_attempt, packed, _code())
            except BrokenProcessPool:  # it died while it had nothing to do
                pool.shutdown()
                pool = self._pool()
                future = pool.submit(_attempt, packed, _code())
        self._under_way[future] = index, pool

    def _pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin_worker)

    def next(self, timeout_s: float) -> tuple[int, _Told | None] | None:
        done = wait(self._under_way, timeout_s, FIRST_COMPLETED).done
        if not done:
            return None
        future = next(iter(done))
        index, pool = self._under_way.pop(future)
        error = future.exception()
        if isinstance(error, BrokenProcessPool):
            pool.shutdown()
            return index, None
        self._idle.append(pool)
        # An error that passed `_attempt` is one of carrying: an answer that cannot be pickled.
        return index, future.result() if error is None else _Told(None, f"{type(error).__name__}: {error}", "")

    def alive(self) -> str:
        # One that dies at its task is found at once.
        return f"{len(self._under_way)} processes at work"

    def close(self) -> None:
        for pool in [*self._idle, *(pool for _, pool in self._under_way.values())]:
            pool.shutdown(cancel_futures=True)


# ---- a Ray cluster ---------------------------------------------------------------------------------------------------


class _Ray:
    """Workers of a Ray cluster. One that this process is already connected to is used, and left as it was."""

    def __init__(self, workers: int | None, address: str) -> None:
        self._under_way: dict[Any, int] = {}
        self._address = address
        self._nowhere_s: float | None = None  # since when there has been no node for a task
        loaded: Any = sys.modules.get("ray")
        self._ours = loaded is None or not loaded.is_initialized()
        ray = self._ray = connect(workers, address) if self._ours else loaded
        n_cores = int(ray.cluster_resources().get("CPU", 0))
        if n_cores < 1:
            self.close()
            raise FusionError(f"{address}: want a Ray cluster with a core for a task, got none")
        self.workers = workers or n_cores
        # A spawned process finds modules where this one does; so shall a worker on this machine.
        self._paths = tuple(sys.path) if address == "local" else ()
        # We count tries ourselves, as for processes.
        self._attempt: Any = ray.remote(num_cpus=1, max_retries=0)(_attempt)

    def start(self, index: int, packed: bytes) -> None:
        self._under_way[self._attempt.remote(packed, _code(), self._paths)] = index

    def next(self, timeout_s: float) -> tuple[int, _Told | None] | None:
        done = self._ray.wait(list(self._under_way), num_returns=1, timeout=timeout_s)[0]
        now_s = time.monotonic()
        if done or self._n_nodes():
            self._nowhere_s = None
        elif self._nowhere_s is None:
            self._nowhere_s = now_s
        elif now_s - self._nowhere_s > NOWHERE_S:
            waited = f"got none for {NOWHERE_S / 60:g} minutes"
            raise _Nowhere(f"{self._address}: want a Ray node with a core for a task, {waited}")
        if not done:
            return None
        ended = done[0]
        index = self._under_way.pop(ended)
        try:
            return index, self._ray.get(ended)
        except self._ray.exceptions.RayTaskError as error:  # of carrying, as for processes
            return index, _Told(None, f"{type(error.cause).__name__}: {error.cause}", "")
        except self._ray.exceptions.RayError:
            return index, None

    def _n_nodes(self) -> int:
        """Nodes that can do a task, busy or not."""
        return sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in self._ray.nodes())

    def alive(self) -> str:
        return f"{self._n_nodes()} nodes of the Ray cluster"

    def close(self) -> None:
        for task in self._under_way:
            self._ray.cancel(task, force=True)
        if self._ours:
            self._ray.shutdown()


def connect(workers: int | None, address: str) -> Any:
    """Connect this process to a Ray cluster, so that several `map_tasks` share it; returns Ray, which can shut it down.

    Args:
        workers: tasks at once of a cluster that is started; None for as many as this process may use cores.
        address: "local" for one of our own on this machine, without dashboard and with a small store of objects; Ray
            listens on every interface, so that who speaks to it needs a token: RAY_AUTH_TOKEN's, else one made for
            this cluster, else (where the program has imported Ray before) Ray's own. Else the address of one that is
            there; Ray's own variables say with what token.

    Raises:
        FusionError: Ray is not installed, or nothing answers at the address.
    """
    # Read when Ray is imported: it would tell its makers about its use, and measure itself.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_enable_metrics_collection", "0")
    if address == "local" and not os.environ.get("RAY_AUTH_TOKEN") and "ray" not in sys.modules:
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    with extra("ray"):
        import ray
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address == "local":
            # Ray itself gives tasks of one core one thread (OMP_NUM_THREADS).
            ray.init(
                address="local", num_cpus=workers or _cores(), object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False, **quiet,
            )  # fmt: skip
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise FusionError(f"{address}: want a Ray cluster, got {type(error).__name__}: {error}") from None
    return ray


# ---- replay ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A recording to be replayed, and the folder for its results."""

    recording: Path
    out: Path

    def __str__(self) -> str:
        return str(self.recording)


@dataclass(frozen=True)
class Replayed:
    """A replay in short. `summary` is that of its run.json."""

    summary: RunSummary
    receipts: int
    review: int


def jobs_of(recordings: Sequence[str | Path], out: str | Path) -> list[Job]:
    """Where each recording's results belong: its path below the deepest folder that holds them all, under `out`.

    Raises:
        ConfigError: a recording is given twice or holds another, or results would come to lie in a recording.
    """
    paths = [Path(os.path.abspath(recording)) for recording in recordings]
    # Not the common path itself: of one recording that is the recording.
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
    """The task: what `fusion.replay` does, its files in place when all are whole. One worker or many may have tried.

    A run.json that is in place counts as that of another try, which was whole: it and what it speaks of stay.

    Raises: as `fusion.replay`; of a damaged recording the results up to there are in place, with partial.json.
    """
    from fusion.run import replay

    job.out.parent.mkdir(parents=True, exist_ok=True)
    # A folder of its own for every try: a worker that is taken for dead may still write.
    unfinished = Path(tempfile.mkdtemp(prefix=_prefix(job), dir=job.out.parent))
    try:
        try:
            summary = replay(job.recording, unfinished)
        except RecordingError:
            run = unfinished / RUN
            if run.exists():
                run.rename(unfinished / PARTIAL)
                _put_in_place(unfinished, job.out)
            raise
        receipts, review = _count_receipts(unfinished / "receipts.jsonl")
        _put_in_place(unfinished, job.out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Replayed(summary, receipts, review)


def _prefix(job: Job) -> str:
    return f".{job.out.name}.unfinished-"


def _put_in_place(unfinished: Path, out: Path) -> None:
    """run.json comes last: where it is there, so is all it speaks of. No worker ever takes one away."""
    paths = sorted(unfinished.iterdir(), key=lambda path: path.name in (RUN, PARTIAL))
    out.mkdir(exist_ok=True)
    if not (out / RUN).exists():
        for path in paths:
            path.replace(out / path.name)


def _take_away_earlier(jobs: Sequence[Job]) -> None:
    """What says that results are whole, before any of this run is begun: who reads them while it is under way, or after
    a recording has failed, must not take an earlier run's for this one's."""
    for job in jobs:
        for name in (RUN, PARTIAL):
            try:
                (job.out / name).unlink()
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:
                raise FusionError(f"{job.out / name}: want to replace an earlier run's, got {error.strerror}") from None


def _count_receipts(path: Path) -> tuple[int, int]:
    """All, and those to be reviewed."""
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
) -> Generator[Outcome[Job, Replayed], None, None]:
    """Replay recordings in other processes; outcomes come as they end, the longest recordings start first.

    Every recording's results are what `fusion.replay` writes, in a folder under `out`: see `jobs_of`. They appear when
    they are whole, run.json last; an earlier run's go away when work begins. A recording that fails, or whose worker
    died `tries` times, has none, and leaves those of the others alone. One that is damaged half-way has its results up
    to there, and instead of run.json partial.json, the same with `fault`.

    Args and errors: as `map_tasks` and `jobs_of`, and FusionError where another replay works in `out`; `index` of an
    outcome is its place in `recordings`.
    """
    _check(workers, tries)
    return _replayed(jobs_of(recordings, out), Path(os.path.abspath(out)), workers, cluster, tries)


def _replayed(
    jobs: Sequence[Job], out: Path, workers: int | None, cluster: str | None, tries: int
) -> Generator[Outcome[Job, Replayed], None, None]:
    if not jobs:
        return
    order = sorted(range(len(jobs)), key=lambda i: (-_bytes_of(jobs[i].recording), i))
    first = functools.partial(_take_away_earlier, jobs)
    mapped = _mapped(replay_job, [jobs[i] for i in order], workers, cluster, tries, first)
    with _alone_in(out), contextlib.closing(mapped):
        for one in mapped:
            # What workers that died had begun. Its name goes first, at once: one that lives after all then finds
            # either all its files or none.
            for left in one.item.out.parent.glob(f"{glob.escape(_prefix(one.item))}*"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(left.rename(left.with_name(f"{left.name}~")), ignore_errors=True)
            yield Outcome(order[one.index], one.item, one.value, one.fault, one.tries, one.worker)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two replays into one folder would take away each other's unfinished results: the second is refused.

    The lock ends with the process that holds it, whatever becomes of its file.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 held until the end
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who held it before takes the file away in the end: what we have opened may be no file in this folder.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    break
            file.close()
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise FusionError(f"{folder}: want it for one replay at a time, got another at work in it: {holder}") from None
    except OSError as error:
        raise FusionError(f"{path}: want a folder to work in alone, got {error.strerror}") from None
    try:
        file.truncate(0)
        file.write(f"{socket.gethostname()}:{os.getpid()}\n")
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _bytes_of(recording: Path) -> int:
    """Of its files; 0 where there is none."""
    return sum(path.stat().st_size for path in recording.rglob("*") if path.is_file())


def table(outcomes: Sequence[Outcome[Job, Replayed]], out: str | Path) -> str:
    """Outcomes as a Markdown table in the order of the recordings, then the faults."""
    rows = ["| results | frames | messages | receipts | review | engine CPU s | tries |", "|---|" + 6 * "---|"]
    faults = []
    folder = os.path.abspath(out)
    for one in sorted(outcomes, key=lambda one: one.index):
        name = os.path.relpath(one.item.out, folder)
        if one.value is None:
            rows.append(f"| {name} | failed | | | | | {one.tries} |")
            faults.append(f"{name}: {one.fault}")
            continue
        run = one.value.summary
        rows.append(
            f"| {name} | {run.frames} | {run.messages} | {one.value.receipts} | {one.value.review} "
            f"| {run.engine_cpu_s:.2f} | {one.tries} |"
        )
    return "\n".join([*rows, *([""] if faults else []), *faults])
