"""`fusion run --mqtt`: one live store in this process, with its results in words and files beside its books.

It is one store of `fusion serve`: what it is given, books, pays for and keeps over a restart is the same. In addition
it prints what happens, keeps the results of the file contract, and may record the observations that the engine uses.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import fusion
from fusion.engine import Engine
from fusion.errors import FusionError
from fusion.files.private import LOCK_FILE
from fusion.files.recordings import RecordingWriter
from fusion.files.results import ResultsWriter
from fusion.gates.settings import GateSettings
from fusion.live.clock import SYSTEM_CLOCK
from fusion.live.config import ServeConfig
from fusion.live.loop import Control, Onlookers, StoreLoop
from fusion.live.worker import store_lock
from fusion.observations import Observation
from fusion.results import Receipt, Result, RunEnd, RunSummary, Warning
from fusion.run import Sink
from fusion.runner import narration
from fusion.runner.folders import claim
from fusion.runner.output import Output
from fusion.runner.settings import LiveSettings, RunSettings
from fusion.runner.views import open_views
from fusion.show.report import Report
from fusion.store.models import Store
from fusion.till.honoured import require_honoured
from fusion.till.settings import TillFile, TillSettings

# A recording is written in files of this length: a crash costs at most the file that was open.
SEGMENT_S = 60.0


def run_live(settings: RunSettings, live: LiveSettings) -> int:
    """Run a live store until SIGINT or SIGTERM; a second signal ends it at once. Returns the exit code, 0.

    Raises:
        FusionError: the store, its till, its books or its broker cannot be used.
    """
    if settings.store is None:
        raise FusionError("a live store needs its store folder; pass --store")
    store = Store.load(settings.store)
    config = serve_config(store, settings, live)
    require_honoured(store, config.till, config.source)
    print(narration.opening_line(store, f"live from {live.broker}"), flush=True)
    claim(settings.out, live=True)
    control = Control()
    with store_lock(settings.out / LOCK_FILE, control.stopping, SYSTEM_CLOCK):
        LiveRun(store, config, settings, live, control).run()
    return 0


def serve_config(store: Store, settings: RunSettings, live: LiveSettings) -> ServeConfig:
    """The settings of the command line as those of a store that is served. Raises ConfigError."""
    till = TillFile.load(settings.till) if settings.till is not None else _till_of(live)
    ledger = settings.ledger
    if ledger is None and till.settings.books.where is None:
        ledger = str(settings.out / "ledger.sqlite")
    vault = str(settings.vault) if settings.vault is not None else None
    till = TillFile(till.settings, till.base, till.name, ledger, vault)
    options = {"password_file": live.password_file, "ca": live.authorities}
    source = live.broker if "://" in live.broker else f"mqtt://{live.broker}"
    return ServeConfig(
        store, settings.out, Path(), source, {name: str(path) for name, path in options.items() if path is not None},
        time.monotonic(), early=settings.early, till=till,
    )  # fmt: skip


def _till_of(live: LiveSettings) -> TillFile:
    """A till that takes no payments, as a command line describes it."""
    return TillFile(TillSettings(gates=GateSettings(code_key=live.code_key, staff_list=live.staff_list)))


class LiveRun:
    """One live store, with everything that follows its loop."""

    def __init__(
        self, store: Store, config: ServeConfig, settings: RunSettings, live: LiveSettings, control: Control
    ) -> None:
        """Begin the recording and the views. Raises FusionError where one cannot be used."""
        self._store, self._config, self._settings, self._control = store, config, settings, control
        self._writer = self._recording_writer(live.record) if live.record is not None else None
        self._views = open_views(settings, store)
        self._output = Output(None)
        self._receipts: list[Receipt] = []
        self._first_ns = 0
        self._loop: StoreLoop | None = None
        self._sinks: list[Sink] = []
        self._report: Report | None = None

    def run(self) -> None:
        """Run until a signal, or until the broker refuses the store; then print the summary."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        started_s = time.monotonic()
        onlookers = Onlookers(self._observe, self._show)
        with StoreLoop.opened(self._config, self._control, onlookers=onlookers) as loop:
            self._loop = loop
            self._begin(loop)
            messages = threading.Thread(target=self._say, args=(loop,), name="messages", daemon=True)
            messages.start()
            try:
                loop.run()
            finally:
                self._control.stopping.set()
                messages.join()
                self._finish(loop, time.monotonic() - started_s)

    def _stop(self, number: int, _frame: object) -> None:
        self._control.stopping.set()
        if self._loop is not None:
            self._loop.stop_waiting()
        signal.signal(number, signal.default_int_handler)

    def _recording_writer(self, folder: Path) -> RecordingWriter:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FusionError(f"{folder} is not a new or empty folder; pass another one, since a run is one recording")
        return RecordingWriter(folder, self._store, segment_s=SEGMENT_S)

    def _begin(self, loop: StoreLoop) -> None:
        def account_of(track: int) -> str | None:
            return loop.engine.account_of(track)  # The loop's engine may be replaced.

        self._report = Report(self._store, self._store.name, loop.engine)
        self._sinks = [ResultsWriter(self._settings.out, self._store, account_of, live=True), self._report]
        self._sinks += self._views

    def _observe(self, observation: Observation) -> None:
        """Keep an observation that the engine uses. A full disk ends the recording, not the run."""
        self._first_ns = self._first_ns or observation.t_ns
        for view in self._views:
            view.observe(observation)
        if self._writer is not None:
            try:
                self._writer.write(observation)
            except OSError as error:
                self._end_recording(error)

    def _show(self, result: Result, _engine: Engine) -> None:
        """Give a result that is in the books to every sink, and put it into words."""
        assert self._loop is not None
        # A warning from before the first data has no time yet.
        if not isinstance(result, Warning) or result.t_ns:
            for sink in self._sinks:
                self._loop.patience.keep("results", partial(sink.add, result))
        if isinstance(result, Receipt):
            self._receipts.append(result)
        line = narration.describe(self._store, result, self._first_ns)
        if line is not None:
            self._output.line(line)
        if self._output.closed:
            self._control.stopping.set()

    def _say(self, loop: StoreLoop) -> None:
        """Print the messages of the loop as they come."""
        while not self._control.stopping.wait(0.5):
            for message in loop.take_messages():
                self._output.error(f"fusion run: {message}")

    # ---- the end -----------------------------------------------------------------------------------------------------

    def _finish(self, loop: StoreLoop, wall_s: float) -> None:
        for message in loop.take_messages():
            self._output.error(f"fusion run: {message}")
        self._output.close()
        try:
            if self._writer is not None:
                self._writer.close()
        except OSError as error:
            self._end_recording(error)
        end = RunEnd(_summary(self._store, loop, wall_s), tuple(loop.engine.shelf_state()))
        for sink in self._sinks:
            sink.add(end)
            sink.close()
        if self._report is not None:
            self._report.write(self._settings.out / "report.html", end.summary, shelves=end.shelves)
            self._report.write_svg(self._settings.out / "floor.svg")
        for line in self._lines(loop, end):
            self._output.line(line)

    def _lines(self, loop: StoreLoop, end: RunEnd) -> Sequence[str]:
        return [
            "",
            *narration.receipt_table(self._store, self._receipts, None),
            *narration.delay_lines(self._receipts),
            narration.shelf_line(end.shelves),
            narration.ledger_line(self._store, loop.books.ledger, self._receipts),
            *narration.engine_lines(self._store, end.summary),
            f"results, report.html, floor.svg and the books are in {self._settings.out}",
        ]

    def _end_recording(self, error: OSError) -> None:
        self._writer = None
        print(f"fusion run: the recording has ended, but the run continues: {error}", file=sys.stderr)


def _summary(store: Store, loop: StoreLoop, wall_s: float) -> RunSummary:
    """The figures of run.json."""
    status = loop.status()
    return RunSummary(
        version=fusion.__version__, store=store.id, frames=status["counts"].get("frames", 0),
        messages=status["counts"].get("messages", 0), wall_s=wall_s, engine_cpu_s=status["busy_s"],
        step_us=status["step_us"], ignored=dict(sorted((loop.engine.ignored + loop.not_used).items())),
        set_back_s=round(status["set_back_s"], 3), time_off_s=status["time_off_s"],
    )  # fmt: skip
