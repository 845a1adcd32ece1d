"""A run: a source of observations through an engine, measured, its results given to sinks such as files or a report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import fusion
from fusion.early.ahead import Ahead
from fusion.engine import Engine
from fusion.errors import FusionError
from fusion.files.recordings import Recording
from fusion.files.results import ResultsWriter
from fusion.observations import Frame, Observation, ShelfReading
from fusion.results import Result, RunEnd, RunSummary
from fusion.store.models import Store


class Counts(Protocol):
    """A source that counts its unusable rows or messages by reason: a `Recording`, a live input."""

    @property
    def ignored(self) -> Counter[str]:
        """Unused rows or messages by reason."""


class Sink(Protocol):
    """Takes everything that a run answers: result files, a report, a console's feed, a 3D view, a ledger.

    `add` gets every result in order, then one `RunEnd`. A sink uses what concerns it and ignores the rest, so that new
    results do not break it; a `match` statement without a default does that. `close` comes last, also after an error.
    """

    def add(self, result: Result | RunEnd, /) -> object:
        """Take one result. What it returns is ignored."""

    def close(self) -> None:
        """Write what is held back and release everything. Nothing is added afterwards."""


class Run:
    """Drives an engine with observations and counts what that costs.

    `drive(sinks)` runs to the end. For a loop of your own, iterate `results()`, then call `finish()`, which closes the
    engine and returns what it held back, and `end()`.

    Attributes:
        engine: the engine that is run.
        first_ns: first data time that came in; 0 before it.
    """

    def __init__(
        self,
        store: Store,
        observations: Iterable[Observation],
        tap: Callable[[Observation], object] | None = None,
        *,
        early: bool = False,
    ) -> None:
        """Make a run.

        Args:
            store: the store folder's contents.
            observations: what the sensors report.
            tap: called with every observation that the engine uses, in time order; see `Engine`.
            early: whether there are early receipts among the results; see `Ahead`.
        """
        self.engine = Engine(store, stopwatch_ns=time.perf_counter_ns, tap=tap)
        self._driven = Ahead(self.engine) if early else self.engine
        self.first_ns = 0
        self._observations = observations
        self._summary = RunSummary(version=fusion.__version__, store=store.id)
        self._started_s = time.perf_counter()

    @property
    def newest_ns(self) -> int:
        """Newest data time that came in and is believed; 0 before the first."""
        return self.engine.newest_ns

    def results(self) -> Iterator[Result]:
        """Everything that the engine answers, in order. Errors of the source pass through; earlier results stand."""
        feed, summary, cpu_s = self._driven.feed, self._summary, time.thread_time
        for observation in self._observations:
            if isinstance(observation, Frame):
                summary.frames += 1
            elif isinstance(observation, ShelfReading):
                summary.messages += 1
            self.first_ns = self.first_ns or observation.t_ns
            before_s = cpu_s()
            results = feed(observation)
            summary.engine_cpu_s += cpu_s() - before_s
            yield from results

    def finish(self) -> list[Result]:
        """Close the engine and return what it held back."""
        before_s = time.thread_time()
        results = self._driven.close()
        self._summary.engine_cpu_s += time.thread_time() - before_s
        return results

    def summary(self, source: Counts | None = None) -> RunSummary:
        """The figures of run.json, with what a source could not use."""
        summary = self._summary
        summary.wall_s = time.perf_counter() - self._started_s
        summary.step_us = self.engine.step_times.summary_us()
        summary.set_back_s = round(self.engine.set_back_ns * 1e-9, 3)
        ignored = self.engine.ignored + (source.ignored if source is not None else Counter())
        summary.ignored = dict(sorted(ignored.items()))
        return summary

    def end(self, source: Counts | None = None, fault: str | None = None) -> RunEnd:
        """What every sink gets last. fault: why the run ended before its source did."""
        return RunEnd(self.summary(source), tuple(self.engine.shelf_state()), fault)

    def drive(self, sinks: Iterable[Sink], source: Counts | None = None) -> RunSummary:
        """Run to the end of the observations and give everything to the sinks.

        Where an error ends the run early, the sinks still get what the engine held back, a `RunEnd` with the fault, and
        are closed; then the error is raised.

        Args:
            sinks: each gets every result.
            source: counts the observations that could not be used.
        """
        sinks = list(sinks)
        fault = None
        with ExitStack() as stack:
            for sink in reversed(sinks):
                stack.callback(sink.close)
            try:
                for result in self.results():
                    for sink in sinks:
                        sink.add(result)
            except BaseException as error:  # Whatever ends it early, run.json must not look finished.
                fault = str(error) if isinstance(error, FusionError) else f"{type(error).__name__}: {error}"
                raise
            finally:
                held_back = self.finish()
                for last in (*held_back, self.end(source, fault)):
                    for sink in sinks:
                        sink.add(last)
        return self.summary(source)


def replay(recording: Recording | str | Path, out: str | Path, *, early: bool = False) -> RunSummary:
    """Run a recording through a new engine and write the contract's results.

    Args:
        recording: a recording, or its folder.
        out: folder for receipts.jsonl, events.jsonl, tracks.parquet and run.json, with evidence.jsonl and shelves.jsonl
            beside them; made where needed.
        early: whether to write early.jsonl as well; see `Ahead`.

    Raises:
        ConfigError: the recording cannot be used, with every fault.
        RecordingError: a file is damaged; the results up to there are written, and why it ended is `fault` in run.json.
    """
    if not isinstance(recording, Recording):
        recording = Recording(recording)
    run = Run(recording.store, recording.observations(), early=early)
    return run.drive([ResultsWriter(out, recording.store, run.engine.account_of)], recording)
