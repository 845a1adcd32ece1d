"""One store from door to receipt: a source through an engine, into result files, report, books, consoles and words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack

from fusion.errors import RecordingError
from fusion.files.results import ResultsWriter
from fusion.money.ledger import Ledger
from fusion.observations import Observation
from fusion.results import Receipt, Result, Warning
from fusion.run import Run, Sink
from fusion.runner import narration
from fusion.runner.folders import claim
from fusion.runner.front import Front
from fusion.runner.output import Output
from fusion.runner.settings import RunSettings
from fusion.runner.sources import Source, open_source, paced
from fusion.runner.storefront import Storefront
from fusion.runner.views import open_views, viewed
from fusion.show.console.feed import LiveFeed
from fusion.show.report import Report
from fusion.store.models import Store

DAMAGED, INTERRUPTED, PIPE_CLOSED = 2, 130, 141


def run_store(settings: RunSettings) -> int:
    """Run a store and print what happens; results are kept in `settings.out`.

    Returns:
        The exit code: 0; 2 where the recording is damaged, 130 after Ctrl-C, 141 where the reader of stdout is gone. In
        all of these the results so far are kept.

    Raises:
        FusionError: the store, recording, books or another file cannot be used.
    """
    if settings.live is not None:
        from fusion.runner.live_run import run_live

        return run_live(settings, settings.live)
    source = open_source(settings)
    store = source.store
    print(narration.opening_line(store, source.origin), flush=True)
    claim(settings.out)
    with ExitStack() as stack:
        ledger = stack.enter_context(_open_ledger(settings, store))
        return StoreRun(settings, source, ledger).run()


def _open_ledger(settings: RunSettings, store: Store) -> Ledger:
    """The books of a simulation or a replay, which begins new ones: it has claimed the folder."""
    for old in settings.out.glob("ledger.sqlite*"):
        old.unlink()
    return Ledger.open(settings.ledger or settings.out / "ledger.sqlite", store, vault=settings.vault)


class StoreRun:
    """The parts of one run, wired together."""

    def __init__(self, settings: RunSettings, source: Source, ledger: Ledger) -> None:
        """Build the front, the engine and the sinks. Raises FusionError where one of them cannot be built."""
        self._settings, self._source, self._store, self._ledger = settings, source, source.store, ledger
        self._receipts: list[Receipt] = []
        self._views = open_views(settings, source.store)
        self._front = self._make_front()
        observations: Iterable[Observation] = source.observations
        if settings.realtime:
            observations = paced(observations, settings.speed, settings.lead_s)
        observations = self._front.observations(observations)
        if self._views:
            observations = viewed(observations, self._views)
        span = source.span
        self._output = Output(round((span.end_ns - span.start_ns) / 1e9) if span is not None else None)
        self._run = Run(self._store, _until_closed(observations, self._output), early=bool(settings.early))
        self._report = Report(self._store, self._store.name, self._run.engine)
        # What is kept of the run, and what shows it while it runs.
        self._kept: list[Sink] = [
            ResultsWriter(settings.out, self._store, self._run.engine.account_of), self._report
        ]  # fmt: skip
        self._shown: list[Sink] = []
        self._feed: LiveFeed | None = None
        if settings.console:
            self._feed = LiveFeed(self._store, self._run.engine, settings.out / "live.sock")
            self._shown.append(self._feed)
        self._shown += self._views

    def run(self) -> int:
        """Run to the end of the source, or until something ends it; then print the summary."""
        exit_code = self._follow()
        self._finish()
        if self._output.closed:
            exit_code = PIPE_CLOSED
        return exit_code

    def _make_front(self) -> Front:
        settings, source = self._settings, self._source
        if source.example is not None and source.simulation is not None and settings.store is not None:
            return Storefront(
                self._store, self._ledger, source.example, source.simulation.scenario, out=settings.out,
                folder=settings.store, smtp=settings.smtp,
            )  # fmt: skip
        return Front(self._store, self._ledger)

    def _start_ns(self) -> int:
        return self._source.span.start_ns if self._source.span is not None else self._run.first_ns

    def _follow(self) -> int:
        """Take the engine's results as they come; the exit code."""
        try:
            for result in self._run.results():
                self._keep(result)
                self._output.advance((self._run.newest_ns - self._start_ns()) // 1_000_000_000)
        except KeyboardInterrupt:
            self._output.line("interrupted: the results so far are kept")
            return INTERRUPTED
        except RecordingError as error:
            self._output.error(f"fusion run: {error}; the results so far are kept")
            return DAMAGED
        return 0

    def _keep(self, result: Result) -> None:
        """Book a result, then give it to every sink."""
        result = self._front.handle(result, self._run.engine)
        # A warning from before the first data has no time yet.
        if not isinstance(result, Warning) or result.t_ns:
            for sink in self._kept:
                sink.add(result)
        for sink in self._shown:
            sink.add(result)
        if self._feed is not None:
            self._front.show(self._feed)
        if isinstance(result, Receipt):
            self._receipts.append(result)
        line = narration.describe(self._store, result, self._start_ns())
        if line is not None:
            self._output.line(line)

    def _finish(self) -> None:
        """Close the engine and all sinks, and print the summary."""
        for result in self._run.finish():
            self._keep(result)
        self._output.close()
        front_lines = self._front.close(self._run.newest_ns)
        end = self._run.end(self._source.recording)
        summary, shelves = end.summary, end.shelves
        for sink in [*self._kept, *self._shown]:
            sink.add(end)
            sink.close()
        visits = self._source.true_visits()
        if visits is not None:
            visits = self._front.true_visits(visits)
        rows = [visit.row() for visit in visits] if visits is not None else None
        self._report.write(self._settings.out / "report.html", summary, truth=rows, shelves=shelves)
        self._report.write_svg(self._settings.out / "floor.svg")
        lines = [
            "",
            *narration.receipt_table(self._store, self._receipts, visits),
            *narration.delay_lines(self._receipts),
            narration.shelf_line(shelves),
            *front_lines,
            narration.ledger_line(self._store, self._ledger, self._receipts),
            *narration.engine_lines(self._store, summary),
            *self._where_lines(),
        ]
        for line in lines:
            self._output.line(line)

    def _where_lines(self) -> list[str]:
        """What was damaged, and where the results are."""
        recording, settings = self._source.recording, self._settings
        lines = [f"damaged: {message}" for message in recording.damaged] if recording is not None else []
        lines.append(f"results, report.html, floor.svg and ledger.sqlite are in {settings.out}")
        if settings.view is not None:
            lines.append(f"look at the run in three dimensions: rerun {settings.view}")
        if settings.mcap is not None:
            lines.append(f"look at the run in Foxglove: {settings.mcap}")
        return lines


def _until_closed(observations: Iterable[Observation], output: Output) -> Iterator[Observation]:
    """The observations, until the reader of stdout is gone."""
    for observation in observations:
        if output.closed:
            return
        yield observation
