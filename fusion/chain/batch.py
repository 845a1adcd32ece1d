"""Work over many items, such as recordings: one task for each, on this machine's processes or on a Ray cluster.

A task's function and the handling of its end are the same wherever it runs (`tasks`, `executors`). An actor call or a
task of Ray costs about a millisecond, so a task is a whole recording, seconds or minutes of work, never a frame.

Nothing about a task depends on where, when or beside what it runs, so that results are the same bytes everywhere.
"""

from __future__ import annotations

import pickle
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from fusion.chain.executors import Executor, NoPlace, Processes, RayCluster
from fusion.chain.tasks import Answer
from fusion.errors import ConfigError

T = TypeVar("T")
R = TypeVar("R")

# How often, in total, a task is started when its workers die. A task that kills its worker each time (memory, a crash
# in native code) would never end, while three machines are not lost in a row under one task.
TRIES = 3
# How often to look for slow tasks and lost nodes while no task ends.
LOOK_S = 5.0
# A task that takes longer is named on stderr, and again each time this much longer: it may hang, or wait for a core.
SLOW_S = 600.0


@dataclass(frozen=True)
class Outcome(Generic[T, R]):
    """What became of one item.

    Attributes:
        index: the item's place among those given.
        item: the item.
        value: what the function returned; None where it did not.
        fault: why there is no value; None where there is one.
        tries: how often it was begun; more than 1 where a worker died.
        worker: the host and process that did it last, `host:pid`; empty where it died.
    """

    index: int
    item: T
    value: R | None
    fault: str | None
    tries: int
    worker: str


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
    is not, since it would raise again. The others continue in either case. Slow tasks are named on stderr (`SLOW_S`);
    where a Ray cluster has no node with a core for long, the remaining items end with that fault. Leaving the iterator
    early ends the workers, those of this machine after the tasks they have.

    Args:
        function: of a module that workers can import (not of an interactive session), called with one item. It may be
            called again for an item, so its output must appear whole or be replaced.
        items: picklable, as is what the function returns.
        workers: tasks at once; as many as this process may use cores, or as the cluster has.
        cluster: None for processes of this machine; "local" for a Ray cluster on this machine alone; otherwise the
            address of a Ray cluster. All of its machines need the same build of this package, with the same numpy,
            scipy, numba and pyarrow, and the items' files under the same path.
        tries: how often to start a task whose workers die.

    Raises:
        FusionError: Ray is not installed, or nothing answers at the address.
        ConfigError: workers or tries are not at least 1.
    """
    check_counts(workers, tries)
    return run_tasks(function, items, lambda: executor_for(workers, cluster, len(items)), tries)


def check_counts(workers: int | None, tries: int) -> None:
    """Raise ConfigError where one of these numbers is less than 1."""
    for name, number in (("workers", workers), ("tries", tries)):
        if number is not None and number < 1:
            raise ConfigError(f"{name}: want at least 1, got {number}")


def executor_for(workers: int | None, cluster: str | None, n_items: int) -> Executor:
    """The executor that `map_tasks` describes."""
    return Processes(workers, n_items) if cluster is None else RayCluster(workers, cluster)


def run_tasks(
    function: Callable[[T], R],
    items: Sequence[T],
    connect: Callable[[], Executor],
    tries: int = TRIES,
    *,
    prepare: Callable[[], object] = lambda: None,
    slow_s: float = SLOW_S,
    look_s: float = LOOK_S,
    clock_s: Callable[[], float] = time.monotonic,
) -> Generator[Outcome[T, R], None, None]:
    """Apply a function to every item on an executor; see `map_tasks`.

    Args:
        function: called with one item.
        items: what to call it with.
        connect: makes the executor; not called where there are no items. It is closed at the end.
        tries: how often to start a task whose workers die.
        prepare: called once there is an executor, before the first task is begun.
        slow_s: a task that takes longer is named on stderr.
        look_s: how often slow tasks are looked for while none ends.
        clock_s: the clock that measures both.
    """
    if not items:
        return
    batch = _Batch(function, items, connect(), clock_s)
    try:
        prepare()
        batch.begin()
        while batch.began_s:
            try:
                ended = batch.executor.next(look_s)
            except NoPlace as error:
                for index in [*batch.began_s, *batch.waiting]:
                    yield Outcome(index, items[index], None, str(error), batch.tries[index], "")
                return
            batch.name_slow(slow_s)
            if ended is None:
                continue
            index, answer = ended.index, ended.answer
            if answer is None and batch.tries[index] >= tries:
                died = f"its worker died {tries} times of {tries}: killed, out of memory, or a crash"
                answer = Answer(None, died, "")
            # The next task begins before the caller handles this one's outcome.
            batch.end(index, again=answer is None)
            if answer is not None:
                yield Outcome(index, items[index], answer.value, answer.fault, batch.tries[index], answer.worker)
    finally:
        batch.executor.close()


class _Batch(Generic[T, R]):
    """The state of one `run_tasks`: which items wait, which are running and since when."""

    def __init__(
        self, function: Callable[[T], R], items: Sequence[T], executor: Executor, clock_s: Callable[[], float]
    ) -> None:
        self.executor = executor
        self.waiting = deque(range(len(items)))
        self.tries = [0] * len(items)
        self.began_s: dict[int, float] = {}
        self._function, self._items, self._clock_s = function, items, clock_s
        self._named_s = clock_s()

    def begin(self) -> None:
        """Begin as many tasks as there are idle workers."""
        while self.waiting and len(self.began_s) < self.executor.workers:
            index = self.waiting.popleft()
            self.tries[index] += 1
            self.began_s[index] = self._clock_s()
            self.executor.start(index, pickle.dumps((self._function, self._items[index])))

    def end(self, index: int, again: bool) -> None:
        """Note that a task ended, and begin the next."""
        del self.began_s[index]
        if again:
            self.waiting.append(index)
        self.begin()

    def name_slow(self, slow_s: float) -> None:
        """Name the tasks that take longer than `slow_s`, at most once in that time."""
        now_s = self._clock_s()
        slow = [
            f"{self._items[index]} ({(now_s - began_s) / 60:.0f} min)"
            for index, began_s in self.began_s.items()
            if now_s - began_s > slow_s
        ]
        if slow and now_s - self._named_s > slow_s:
            self._named_s = now_s
            text = f"running for more than {slow_s / 60:g} minutes: {', '.join(slow)}; alive: {self.executor.alive()}"
            print(f"fusion: {text}", file=sys.stderr, flush=True)
