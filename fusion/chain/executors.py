"""The two places where tasks run: processes of this machine, and a Ray cluster.

An executor carries tasks to processes and reports whether each process survived; it decides nothing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Protocol

from fusion.chain.tasks import Answer, attempt, installation
from fusion.errors import FusionError, extra

# A Ray cluster without a machine that could run a task is given up after this long: one that grows and shrinks with its
# load takes minutes.
NO_NODE_MAX_S = 300.0
# Items and answers are paths and counts; the least that Ray accepts is 75 MiB.
OBJECT_STORE_BYTES = 80 * 2**20


class NoPlace(FusionError):
    """No task can run any more. Names the place, what was wanted and for how long."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A task ended: its index, and its answer, None where its process died."""

    index: int
    answer: Answer | None


class Executor(Protocol):
    """Carries tasks to processes.

    Attributes:
        workers: tasks that may run at once.
    """

    workers: int

    def start(self, index: int, packed: bytes) -> None:
        """Begin a task, see `attempt`; called for no more tasks at once than there are workers."""

    def next(self, timeout_s: float) -> Ended | None:
        """Wait for a task to end; None where none has.

        Raises:
            NoPlace: there has been no place to run a task for long.
        """

    def alive(self) -> str:
        """The workers that are available, in words."""

    def close(self) -> None:
        """End the workers."""


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---- processes of this machine ---------------------------------------------------------------------------------------


class Processes:
    """Local processes, each in a pool of its own: where one dies, its task is known, and no other task is lost.

    They are spawned, not forked: a fork of a process with threads may inherit a lock that nothing will ever release.
    """

    def __init__(self, workers: int | None, n_items: int) -> None:
        self.workers = min(workers or n_cores(), n_items)
        self._idle: list[ProcessPoolExecutor] = []
        self._running: dict[Future[Answer], tuple[int, ProcessPoolExecutor]] = {}

    def start(self, index: int, packed: bytes) -> None:
        """Begin a task in an idle process, or in a new one."""
        pool = self._idle.pop() if self._idle else _pool()
        # A pool spawns its process with the first task.
        with _one_thread():
            try:
                future = pool.submit(attempt, packed, installation())
            except BrokenProcessPool:  # the process died while it was idle
                pool.shutdown()
                pool = _pool()
                future = pool.submit(attempt, packed, installation())
        self._running[future] = index, pool

    def next(self, timeout_s: float) -> Ended | None:
        """Wait for a task to end; None where none has."""
        done = wait(self._running, timeout_s, FIRST_COMPLETED).done
        if not done:
            return None
        future = next(iter(done))
        index, pool = self._running.pop(future)
        error = future.exception()
        if isinstance(error, BrokenProcessPool):
            pool.shutdown()
            return Ended(index, None)
        self._idle.append(pool)
        if error is not None:  # raised outside `attempt`: the answer cannot be pickled
            return Ended(index, Answer(None, f"{type(error).__name__}: {error}", ""))
        return Ended(index, future.result())

    def alive(self) -> str:
        """The number of processes. A process that dies at its task is noticed at once."""
        return f"{len(self._running)} processes at work"

    def close(self) -> None:
        """End the processes, each after the task that it has."""
        for pool in [*self._idle, *(pool for _, pool in self._running.values())]:
            pool.shutdown(cancel_futures=True)


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin_worker)


def _begin_worker() -> None:
    """In a worker: end with the process that it works for."""
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that are spawned meanwhile have one thread for numerics, unless this one's environment sets another.

    The variable must be there from the first: before a worker runs anything of this package it imports the caller's
    main module, and numpy with it, which reads the variable only once.
    """
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


# ---- a Ray cluster ---------------------------------------------------------------------------------------------------


class RayCluster:
    """Workers of a Ray cluster. A connection that this process already has is used, and left as it was."""

    def __init__(
        self,
        workers: int | None,
        address: str,
        no_node_max_s: float = NO_NODE_MAX_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect.

        Args:
            workers: tasks at once; as many as the cluster has cores by default.
            address: see `connect`.
            no_node_max_s: give up when no node could run a task for this long.
            clock_s: the clock that measures this.

        Raises:
            FusionError: Ray is not installed, nothing answers at the address, or the cluster has no core.
        """
        self._running: dict[Any, int] = {}
        self._address = address
        self._no_node_max_s, self._clock_s = no_node_max_s, clock_s
        self._no_node_since_s: float | None = None
        loaded: Any = sys.modules.get("ray")
        self._is_own = loaded is None or not loaded.is_initialized()
        ray = self._ray = connect(workers, address) if self._is_own else loaded
        n_cores = int(ray.cluster_resources().get("CPU", 0))
        if n_cores < 1:
            self.close()
            raise FusionError(f"{address}: want a Ray cluster with a core for a task, got none")
        self.workers = workers or n_cores
        # A spawned process finds modules where this one does; a Ray worker on this machine is given the same paths.
        self._paths = tuple(sys.path) if address == "local" else ()
        # Retries are counted by the caller, as for processes.
        self._attempt: Any = ray.remote(num_cpus=1, max_retries=0)(attempt)

    def start(self, index: int, packed: bytes) -> None:
        """Begin a task on a node with a free core."""
        self._running[self._attempt.remote(packed, installation(), self._paths)] = index

    def next(self, timeout_s: float) -> Ended | None:
        """Wait for a task to end; None where none has. Raises NoPlace."""
        done = self._ray.wait(list(self._running), num_returns=1, timeout=timeout_s)[0]
        now_s = self._clock_s()
        if done or self._n_nodes():
            self._no_node_since_s = None
        elif self._no_node_since_s is None:
            self._no_node_since_s = now_s
        elif now_s - self._no_node_since_s > self._no_node_max_s:
            waited = f"got none for {self._no_node_max_s / 60:g} minutes"
            raise NoPlace(f"{self._address}: want a Ray node with a core for a task, {waited}")
        if not done:
            return None
        ended = done[0]
        index = self._running.pop(ended)
        try:
            return Ended(index, self._ray.get(ended))
        except self._ray.exceptions.RayTaskError as error:  # raised outside `attempt`, as for processes
            return Ended(index, Answer(None, f"{type(error.cause).__name__}: {error.cause}", ""))
        except self._ray.exceptions.RayError:
            return Ended(index, None)

    def _n_nodes(self) -> int:
        """Nodes that can run a task, busy or not."""
        return sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in self._ray.nodes())

    def alive(self) -> str:
        """The number of nodes."""
        return f"{self._n_nodes()} nodes of the Ray cluster"

    def close(self) -> None:
        """Cancel what is running, and leave a cluster that this object connected to."""
        for task in self._running:
            self._ray.cancel(task, force=True)
        if self._is_own:
            self._ray.shutdown()


def connect(workers: int | None, address: str) -> Any:
    """Connect this process to a Ray cluster, so that several `map_tasks` share it.

    Args:
        workers: tasks at once of a cluster that is started; None for as many as this process may use cores.
        address: "local" for a cluster on this machine alone, without dashboard and with a small object store; Ray
            listens on every interface, so clients need a token: RAY_AUTH_TOKEN's, else one made for this cluster, else
            (where the program has imported Ray before) Ray's own. Otherwise the address of a running cluster; Ray's own
            variables hold the token.

    Returns:
        The package Ray, whose `shutdown` ends the connection.

    Raises:
        FusionError: Ray is not installed, or nothing answers at the address.
    """
    # Read when Ray is imported: by default it reports its use to its makers, and measures itself.
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
                address="local",
                num_cpus=workers or n_cores(),
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                **quiet,
            )
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise FusionError(f"{address}: no Ray cluster answers: {type(error).__name__}: {error}") from None
    return ray
