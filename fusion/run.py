"""A run: a source of observations through an engine, measured, its results kept in files."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import fusion
from fusion.engine import Engine
from fusion.errors import FusionError
from fusion.files.recordings import Recording
from fusion.files.results import ResultsWriter
from fusion.observations import Frame, Observation, ShelfReading
from fusion.results import Result, RunSummary
from fusion.store.models import Store


class Counts(Protocol):
    """A source that counts what of it could not be used, by reason: a `Recording`, a live input."""

    @property
    def ignored(self) -> Counter[str]: ...


class Run:
    """Drives an engine with observations and counts what that costs.

    Iterate `results()` to the end, or stop early; `finish()` closes the engine, so that what is held back comes out,
    and `summary()` tells about what was run.

    Attributes:
        engine: the engine that is run.
        first_ns, newest_ns: time that came in first, and the newest; 0 before the first.
    """

    def __init__(
        self,
        store: Store,
        observations: Iterable[Observation],
        tap: Callable[[Observation], object] | None = None,
    ) -> None:
        """Make a run. `tap` is told every observation that the engine uses, in order of time; see `Engine`."""
        self.engine = Engine(store, stopwatch_ns=time.perf_counter_ns, tap=tap)
        self.first_ns = self.newest_ns = 0
        self._observations = observations
        self._summary = RunSummary(version=fusion.__version__, store=store.id)
        self._started_s = time.perf_counter()

    def results(self) -> Iterator[Result]:
        """Everything the engine answers, in order. Errors of the source pass through; what came before them stands."""
        feed, summary, cpu_s = self.engine.feed, self._summary, time.thread_time
        for observation in self._observations:
            if isinstance(observation, Frame):
                summary.frames += 1
            elif isinstance(observation, ShelfReading):
                summary.messages += 1
            self.first_ns = self.first_ns or observation.t_ns
            self.newest_ns = max(self.newest_ns, observation.t_ns)
            before_s = cpu_s()
            results = feed(observation)
            summary.engine_cpu_s += cpu_s() - before_s
            yield from results

    def finish(self) -> list[Result]:
        """Close the engine and return what it held back."""
        before_s = time.thread_time()
        results = self.engine.close()
        self._summary.engine_cpu_s += time.thread_time() - before_s
        return results

    def summary(self, source: Counts | None = None) -> RunSummary:
        """The figures of run.json, with what a source could not use."""
        summary = self._summary
        summary.wall_s = time.perf_counter() - self._started_s
        summary.step_us = self.engine.step_times.summary_us()
        ignored = self.engine.ignored + (source.ignored if source is not None else Counter())
        summary.ignored = dict(sorted(ignored.items()))
        return summary


def replay(recording: Recording | str | Path, out: str | Path) -> RunSummary:
    """Run a recording through a new engine and write the contract's results.

    Args:
        recording: a recording, or its folder.
        out: folder for receipts.jsonl, events.jsonl, tracks.parquet and run.json, with evidence.jsonl and shelves.jsonl
            beside them; made where needed.

    Raises:
        ConfigError: the recording cannot be used, with every fault.
        RecordingError: a file is damaged; the results up to there are written, and why it ended is `fault` in run.json.
    """
    if not isinstance(recording, Recording):
        recording = Recording(recording)
    run = Run(recording.store, recording.observations())
    writer = ResultsWriter(out, recording.store)
    fault = None
    try:
        for result in run.results():
            writer.write(result, run.engine.account_of)
    except BaseException as error:  # whatever ends it early, run.json must not look finished
        fault = str(error) if isinstance(error, FusionError) else f"{type(error).__name__}: {error}"
        raise
    finally:
        for result in run.finish():
            writer.write(result, run.engine.account_of)
        writer.close(run.summary(recording), run.engine.shelf_state(), fault)
    return run.summary(recording)
