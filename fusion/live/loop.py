"""One store, from the observations that arrive to its books, one step at a time."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from fusion.early.ahead import Ahead
from fusion.engine import LATENESS_MAX_S, Engine
from fusion.errors import FusionError, ShapeError, TimeError
from fusion.live.bookkeeper import Bookkeeper
from fusion.live.checkpoint import SNAPSHOT, Checkpoint, Restored, Saved
from fusion.live.clock import SYSTEM_CLOCK, Clock
from fusion.live.config import ServeConfig
from fusion.live.gaps import AWAITED_S
from fusion.live.intake import (
    PER_CAMERA_MAX,
    PER_PLATE_MAX,
    QUEUE_MAX,
    Intake,
    Refusals,
    WarningQueue,
    stream_of,
)
from fusion.live.patience import Patience
from fusion.live.pump import Pump
from fusion.live.scan_log import WriteFile, write_private
from fusion.live.sources import Source, SourceContext, open_source
from fusion.live.teaching import Teaching
from fusion.live.time_watch import TimeWatch
from fusion.observations import DoorState, Frame, GateScan, ItemSighting, Observation
from fusion.results import People, PersonEntered, Picked, PutBack, ReasonKind, Receipt, Result, Warning, WarningKind
from fusion.sentences import sentence
from fusion.show.console.feed import LiveFeed
from fusion.snapshots import layout_digest, resume, snapshot
from fusion.store.models import Store
from fusion.till.till import Around

# A scan at most this old when data resume is still given to the engine. The person of an older one crossed the gate
# while no camera was heard, and the next person at the gate would be given that scan.
SCAN_LOST_S = 1.0
# No publisher keeps messages for longer to send them again. Data that are older still, after a restart, come from
# clocks that were set back.
RESENT_MAX_S = 600.0
# Without data for this long, the age of what is kept is judged by the machine's clock.
DATED_S = 3600.0
# A step waits this long for observations.
STEP_WAIT_S = 0.2
MESSAGES_MAX = 200
FAULT_MAX = 300
# Warnings that the operator of the process sees as well.
_REPORTED = (WarningKind.OVERLOAD, WarningKind.OVERLOAD_OVER, WarningKind.REFUSED)


class Control:
    """What other threads ask of a store's loop.

    Attributes:
        stopping: set once the loop is to end after a last snapshot.
        rereads: set once files of other programs are to be read again.
    """

    def __init__(self) -> None:
        self.stopping, self.rereads = threading.Event(), threading.Event()
        self._store: Store | None = None
        self._lock = threading.Lock()

    def change(self, store: Store) -> None:
        """Ask the loop to adopt a changed store; a later change replaces one that it has not adopted yet."""
        with self._lock:
            self._store = store

    def take_change(self) -> Store | None:
        """Return the changed store, once."""
        with self._lock:
            store, self._store = self._store, None
        return store


@dataclass(frozen=True)
class _Change:
    """A changed store that waits to be adopted, and the data time at which it arrived."""

    store: Store
    since_ns: int


@dataclass(frozen=True)
class Onlookers:
    """What follows a store's loop besides its books and consoles.

    Attributes:
        tap: called with every observation that the engine uses, in time order; see `Engine`.
        show: called with every result once it is in the books, and with the engine. A receipt that the books held
            before a restart is left out.
    """

    tap: Callable[[Observation], object] | None = None
    show: Callable[[Result, Engine], object] | None = None


class _Present:
    """The present of a store's till: the machine's where the source is live, otherwise that of the data."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self.live, self._clock = False, clock
        self._newest_ns, self._moved_s = 0, 0.0
        self.engine: Callable[[], Engine] = lambda: engine

    def now_ns(self) -> int:
        """UTC nanoseconds; 0 before the first data."""
        return self._clock.wall_ns() if self.live else self.engine().newest_ns

    def dated_ns(self) -> int:
        """The present as visits are dated: sensors whose clocks are set back must not make their visits old at once.

        That of the data while they come, the machine's once they have not come for an hour.
        """
        newest_ns, now_s = self.engine().newest_ns, self._clock.monotonic_s()
        if newest_ns != self._newest_ns:
            self._newest_ns, self._moved_s = newest_ns, now_s
        has_data = newest_ns and now_s - self._moved_s < DATED_S
        return newest_ns if has_data else self.now_ns()


class StoreLoop:
    """Gives observations to the engine, its results to the books, and saves checkpoints in between.

        with StoreLoop.opened(config, control) as loop:
            loop.run()

    All methods belong to one thread, except `status` and `stop_waiting`. Without threads, call `pump.accept` and `step`
    in turn, then `finish`.

    Attributes:
        store: the store as it is configured now.
        engine: its engine; another object after a change of the store.
        intake: what waits for the engine.
        pump: moves observations from the source into the intake.
        books: the store's books.
        time_watch: compares data time with the machine's.
        checkpoint: what the next process would resume from.
        over: whether the source has ended and everything is in the books.
        restart: whether the process is to start again, for another layout of the store.
        beat: grows with every step, and while the loop waits in place.
        patience: waits where something cannot be written.
    """

    def __init__(
        self,
        config: ServeConfig,
        control: Control,
        *,
        checkpoint: Checkpoint,
        restored: Restored,
        books: Bookkeeper,
        source: Source,
        refusals: Refusals,
        feed: LiveFeed,
        messages: deque[str],
        clock: Clock,
        teaching: Teaching,
        onlookers: Onlookers,
    ) -> None:
        """See `opened`."""
        self.patience = checkpoint.patience
        self.patience.follow(self._hold)
        self.store, self.engine = config.store, restored.engine
        self.checkpoint, self.books, self._teaching = checkpoint, books, teaching
        self.over = self.restart = False
        self.beat = 0
        n_expected = PER_CAMERA_MAX * len(self.store.cameras) + PER_PLATE_MAX * len(self.store.plates)
        self.intake = Intake(max(QUEUE_MAX, n_expected), clock=clock)
        self.pump = Pump(source, self.intake, refusals, control.stopping, lambda: self.engine.newest_ns, clock)
        self._config, self._control, self._clock = config, control, clock
        self._source, self._refusals, self._feed, self._messages = source, refusals, feed, messages
        self._onlookers = onlookers
        # An engine must not repeat the work of an earlier one, nor take for another time what publishers send again.
        newest_ns = restored.engine.newest_ns
        self._floor_ns = newest_ns - round(LATENESS_MAX_S * 1e9) if newest_ns else restored.since_ns
        self._resent_ns = self._floor_ns - round(RESENT_MAX_S * 1e9) if newest_ns else 0
        self._past_unknown = restored.past_unknown
        self._change: _Change | None = None
        self._counts: Counter[str] = Counter()
        self._streams = {f"detections: {camera.name}" for camera in self.store.cameras}
        self._streams |= {f"weights: {plate.plate}" for plate in self.store.plates}
        self._started_s = clock.monotonic_s()
        early = source.live if config.early is None else config.early
        self._ahead = Ahead(self.engine, books.doubted) if early else None
        # What the engine has taken, and the one ahead of it has not.
        self._taken: Observation | None = None
        self.time_watch = TimeWatch(self.store.id, clock)
        self._set_back_ns = self.engine.set_back_ns
        self._n_events_dropped = self._n_messages_dropped = 0
        # By stream: time of the first observation that the engine does not believe yet.
        self._ahead_ns: dict[str, int] = {}

    @classmethod
    @contextlib.contextmanager
    def opened(
        cls,
        config: ServeConfig,
        control: Control,
        *,
        clock: Clock = SYSTEM_CLOCK,
        writer: Executor | None = None,
        write_file: WriteFile = write_private,
        threads: bool = True,
        onlookers: Onlookers | None = None,
    ) -> Iterator[StoreLoop]:
        """Restore a store from its folder, open its books and its source, until the block ends.

        Args:
            config: how the store is served. Its folder must be this process's alone, see `store_lock`.
            control: how other threads stop the loop, or change its store.
            clock: paces and measures.
            writer: writes snapshots; None for a thread of its own.
            write_file: replaces a file atomically.
            threads: whether the till's errands have threads of their own; otherwise each step does what is due.
            onlookers: what follows the loop besides its books and consoles.

        Raises:
            FusionError: till or source cannot be opened.
        """
        messages: deque[str] = deque(maxlen=MESSAGES_MAX)
        refusals = Refusals(WarningQueue())
        patience = Patience(clock, control.stopping, messages.append)
        with contextlib.ExitStack() as stack:
            if writer is None:
                writer = stack.enter_context(ThreadPoolExecutor(1, f"snapshot {config.store.id}"))
            checkpoint = Checkpoint(
                config.folder, writer, every_s=config.snapshot_every_s, first_s=config.first_snapshot_s, clock=clock,
                write_file=write_file, patience=patience,
            )  # fmt: skip
            stack.callback(checkpoint.close)
            onlookers = onlookers or Onlookers()
            restored = checkpoint.restore(config.store, onlookers.tap)
            present = _Present(restored.engine, clock)
            around = Around(
                config.folder, present.now_ns, clock.monotonic_s, clock.wait, present.dated_ns, messages.append,
                refusals.warnings.put, threads=threads,
            )  # fmt: skip
            books = stack.enter_context(Bookkeeper.opened(config, checkpoint.gaps, around, patience))
            teaching = Teaching(config.folder, books.till.decisions, messages.append)
            if restored.lost is not None:
                teaching.begin(restored.engine)
            _settle_past(restored, books, messages)
            context = SourceContext(books.till, refusals.warnings.put, checkpoint.scans.promise, clock)
            source = open_source(config, restored.since_ns, context)
            present.live = source.live
            stack.callback(source.stop)
            feed = stack.enter_context(LiveFeed(config.store, restored.engine, config.folder / "live.sock"))
            loop = cls(
                config, control, checkpoint=checkpoint, restored=restored, books=books, source=source,
                refusals=refusals, feed=feed, messages=messages, clock=clock, teaching=teaching,
                onlookers=onlookers,
            )  # fmt: skip
            present.engine = lambda: loop.engine
            if not restored.since_ns:
                loop.save(wait=True)
            stack.callback(loop.stop_waiting)
            yield loop

    def run(self) -> None:
        """Serve until the source ends or the control says stop. Raises FusionError if the source failed."""
        pump = threading.Thread(target=self.pump.run, name=f"source {self.store.id}", daemon=True)
        pump.start()
        while not self._control.stopping.is_set() and self.step():
            pass
        self.finish()
        if self.pump.failure:
            raise FusionError(self.pump.failure) from self.pump.error

    def step(self) -> bool:
        """Work off a batch of observations. Returns False once the source has ended and nothing is left."""
        batch = self.intake.take(STEP_WAIT_S)
        self.beat += 1
        behind = self.pump.catching_up or self._source.behind
        off = self.time_watch.observe(self.engine.newest_ns, live=self._source.live, behind=behind)
        if off is not None:
            self._handle(off)
            self._feed.time_fault = self.time_watch.fault
        if self._floor_ns and not behind and self._clock.monotonic_s() - self._started_s > AWAITED_S:
            self._floor_ns = 0  # Whatever is older now is dated by clocks that were set back.
        for warning in (*self._refusals.warnings.take(), *self.intake.warnings(self.engine.newest_ns)):
            self._handle(warning)
        if not batch and self.intake.ended:
            return False
        for observation in batch:
            if not self._resent_ns <= observation.t_ns < self._floor_ns:
                self._give(observation)
        self._doubt_drops()
        self.books.review_missing(self.engine)
        if self.books.till.take_releases():
            self.books.doubt_span(self.engine.newest_ns, self.engine.newest_ns, ReasonKind.DOOR_RELEASED)
        for answer in self.books.till.take_answers():
            self._feed.show_answer(answer)
        self.books.till.do_errands()
        self._forget_erased()
        if self._control.rereads.is_set():
            self._control.rereads.clear()
            self._messages.extend(self.books.till.reread())
        self.checkpoint.gaps.advance(self.engine.newest_ns, self.engine.scans_waiting > 0)
        self._follow_change()
        self._ship_saved()
        if self.checkpoint.due(self.engine.newest_ns):
            self.save()
        return True

    def finish(self) -> None:
        """Conclude the data if the source has ended by itself; otherwise save a last checkpoint."""
        if self._control.stopping.is_set() or self.pump.failure:
            self.save(wait=True)
        else:
            self._conclude()
        self.books.till.do_errands()

    def _hold(self, held: bool) -> None:
        """The surroundings keep the loop from writing: it waits in place, and what arrives waits for it."""
        self.beat += 1
        self.pump.hold(held)
        wait = next(iter(self.patience.waits.values()), None)
        self._feed.wait("" if wait is None else f"the store waits: {wait.cause}")

    def stop_waiting(self) -> None:
        """End the source and the wait for observations, so that `run` sees at once that it is to stop; any thread."""
        self.intake.end()
        self._source.stop()

    def _conclude(self) -> None:
        """The data have ended: bill what is left, and put what cannot be billed into review."""
        scans = self.checkpoint.scans
        while scans.waiting:
            self._handle_all(self._feed_engine(scans.next_waiting()))
        self._report(self.checkpoint.gaps.end(self.engine.newest_ns, dict(self.intake.dropped)))
        self._handle_all(self.engine.close())
        if self._ahead is not None:
            self._handle_all(self._ahead.end())
        self.books.review_missing(self.engine, ended=True)
        self._report("its source has ended; open visits are in review")
        self.books.end(self.engine.newest_ns)
        self.books.ship_goods(self.engine)
        self._ship_saved(wait=True)
        self.checkpoint.discard()
        self.over = True

    # ---- observations and results ------------------------------------------------------------------------------------

    def _give(self, observation: Observation) -> None:
        """Give an observation to the engine, then the scans from before the start that are now due."""
        scans = self.checkpoint.scans
        if isinstance(observation, GateScan | DoorState | ItemSighting):
            if not scans.holds(observation):
                scans.add(observation)
                self._handle_all(self._feed_engine(observation))
            return
        before_ns = self.engine.newest_ns
        results = self._feed_engine(observation)
        newest_ns = self.engine.newest_ns
        if self.engine.set_back_ns != self._set_back_ns:
            self._follow_clocks()
        # A gap must be known before its consequences are billed. Observations that the engine discards reveal none: one
        # from a clock that is far ahead, which the engine does not believe, or one that is too late.
        stream = stream_of(observation)
        if stream in self._streams:
            if observation.t_ns > newest_ns:
                self._ahead_ns.setdefault(stream, observation.t_ns)
            elif observation.t_ns >= before_ns - LATENESS_MAX_S * 1e9:
                gaps, n_dropped = self.checkpoint.gaps, self.intake.dropped[stream]
                # After a pause, the first of a stream is believed together with a later one.
                first_ns = self._ahead_ns.pop(stream, None)
                if first_ns is not None and first_ns <= newest_ns:
                    self._report(gaps.observe(stream, first_ns, n_dropped))
                self._report(gaps.observe(stream, observation.t_ns, n_dropped))
        if self._past_unknown and newest_ns:
            self._past_unknown = False
            self.books.doubt_span(newest_ns, newest_ns, ReasonKind.STATE_LOST)
        self._handle_all(results)
        self._give_waiting(before_ns)

    def _follow_clocks(self) -> None:
        """All clocks were set back: from here on, the past is dated by the time that they show now."""
        back_ns = self.engine.set_back_ns - self._set_back_ns
        self._set_back_ns = self.engine.set_back_ns
        self.checkpoint.set_back(back_ns)
        self.books.review_missing(self.engine, ended=True)
        if self._change is not None:
            self._change = _Change(self._change.store, self._change.since_ns - back_ns)

    def _give_waiting(self, before_ns: int) -> None:
        """Give the engine the waiting scans that are now due; `before_ns` was its newest time before that."""
        scans, newest_ns = self.checkpoint.scans, self.engine.newest_ns
        resumed_late = newest_ns - before_ns > 1e9
        while scans.waiting and scans.waiting[0].t_ns <= newest_ns:
            event = scans.next_waiting()
            if isinstance(event, GateScan) and resumed_late and event.t_ns < newest_ns - SCAN_LOST_S * 1e9:
                self._counts["scans left out after a gap"] += 1
                self._report(f"a scan at {event.gate} is left out: its frames are lost")
                if self.books.review_unseen(event):
                    self._handle(Warning(newest_ns, WarningKind.SCAN_UNBOUND, event.gate, count=0))
                continue
            self._handle_all(self._feed_engine(event))

    def _feed_engine(self, observation: Observation) -> list[Result]:
        self._counts["frames" if isinstance(observation, Frame) else "messages"] += 1
        try:
            results = self.engine.feed(observation)
            self._taken = observation
            return results
        except (ShapeError, TimeError, TypeError) as error:
            # One sensor's fault concerns that sensor alone: count and report it, and continue with the others.
            self._refusals.add(stream_of(observation), str(error)[:FAULT_MAX], self.engine.newest_ns)
            return []

    def _handle_all(self, results: Iterable[Result]) -> None:
        for result in results:
            self._handle(result)
        # Early receipts come after what the engine answered, so that gaps are known before them as well.
        if self._ahead is not None and self._taken is not None:
            taken, self._taken = self._taken, None
            for early in self._ahead.look(taken):
                self._handle(early)

    def _handle(self, result: Result) -> None:
        """Bring one result into the books, then show it to the consoles."""
        is_new = True
        match result:
            case PersonEntered(visit=str()):
                self._counts["entered"] += 1
                self.books.enter(result)
            case PutBack():
                self.books.till.moved(result, self._keep_moment)
            case Picked():
                self.books.till.moved(result, self._keep_moment)
                alert = self.patience.keep("books", partial(self.books.till.restrictions.alert, result))
                if alert is not None:
                    self._handle(alert)
            case People():
                zones = self.patience.keep("books", partial(self.books.till.look, result, self.engine))
                for zone, baskets in zones.items():
                    self._source.show(zone, baskets, result.t_ns)
                for place, baskets in self.books.till.take_shown().items():
                    self._feed.show_baskets(place, baskets, result.t_ns)
            case Receipt():
                billed = self.books.bill(result, self.engine.evidence(result.visit), self.engine.newest_ns)
                result, is_new = billed.receipt, billed.is_new
                correction = self._ahead.compare(billed.at_list) if self._ahead is not None else None
                if correction is not None:
                    self._handle(correction)
            case Warning():
                self._counts["warnings"] += 1
                self.books.warn(result, self.engine)
                if result.kind in _REPORTED:
                    self._report(f"{result.kind}: {result.subject}: {sentence(result)}")
        self._feed.add(result)
        if is_new and self._onlookers.show is not None:
            self._onlookers.show(result, self.engine)

    def _keep_moment(self, write: Callable[[], object]) -> None:
        self.patience.keep("moments", write)

    def _doubt_drops(self) -> None:
        """Doubt the present where scans, or messages that were never read, were dropped."""
        newest_ns = self.engine.newest_ns
        if self.intake.events_dropped > self._n_events_dropped:
            self._n_events_dropped = self.intake.events_dropped
            self.books.doubt_span(newest_ns, newest_ns, ReasonKind.SCANS_DROPPED)
        n_dropped = self._source.n_dropped
        if n_dropped > self._n_messages_dropped:
            self._n_messages_dropped = n_dropped
            self.books.doubt_span(newest_ns, newest_ns, ReasonKind.MESSAGES_DROPPED)

    def _forget_erased(self) -> None:
        """Rename in memory and snapshot whoever was erased; for everybody else nothing changes."""
        names = self.books.till.take_erased()
        if names is not None:
            self.engine.rename_customers(names.renamed)
            if self._ahead is not None:
                self._ahead.follow(self.engine)
            self.save(wait=True)

    def _report(self, message: str) -> None:
        if message:
            self._messages.append(message)

    # ---- checkpoints and changes -------------------------------------------------------------------------------------

    def save(self, *, wait: bool = False) -> None:
        """Start a checkpoint, once an earlier one was written, or could not be; `wait` until this one is on disk."""
        self._ship_saved(wait=True)
        version = self.engine.planogram.learnt.version
        self.patience.keep("learnt", lambda: self._teaching.step(self.engine, write=wait))
        if self._ahead is not None and self.engine.planogram.learnt.version != version:
            self._ahead.follow(self.engine)
        if wait:
            self.patience.keep(SNAPSHOT, self._save)
        else:
            self._start_saving()

    def _start_saving(self) -> None:
        self.checkpoint.start(self.engine, self.books.oldest_enter_ns(self.engine.newest_ns))

    def _save(self) -> None:
        self._start_saving()
        self._ship(self.checkpoint.finished(wait=True))

    def _ship_saved(self, *, wait: bool = False) -> None:
        """Ship the goods that a new snapshot on disk holds: no later process can attribute them differently."""
        if wait:
            self.checkpoint.join()
        self._ship(self.checkpoint.finished())

    def _ship(self, saved: Saved | None) -> None:
        if saved is not None:
            self.books.ship_goods(self.engine, saved.n_transfers)
            self.books.forget_goods(self.engine)

    def _follow_change(self) -> None:
        """Adopt a changed store at once where its layout is the same, otherwise by a restart once it is empty."""
        store = self._control.take_change()
        if store is not None:
            self._change = _Change(store, self.engine.newest_ns)
        change = self._change
        if change is None:
            return
        if layout_digest(change.store) == layout_digest(self.store):
            self._change = None
            if change.store.payment == self.store.payment:
                self._adopt(change.store)
            else:
                # Gates and doors are wired for a policy when a process starts; it resumes from its last snapshot.
                self._report("restarts with another payment policy")
                self.restart = True
                self._control.stopping.set()
            return
        n_open = len(self.engine.open_visits)
        waited_s = (self.engine.newest_ns - change.since_ns) * 1e-9
        if n_open and waited_s < self._config.layout_wait_s:
            return
        # The source must know the new sensors as well, so the process restarts and finds a snapshot of another layout.
        self._change = None
        self._report(f"restarts with another layout, {n_open} open visits")
        self.restart = True
        self._control.stopping.set()

    def _adopt(self, store: Store) -> None:
        self.store = store
        self.books.adopt(store)
        # Resuming from a snapshot replaces every reference that the engine holds to parts of the old store.
        self.engine = resume(snapshot(self.engine), store, self._clock.stopwatch_ns, self._onlookers.tap)
        self.books.note_cameras(self.engine)
        self._feed.follow(self.engine)
        if self._ahead is not None:
            self._ahead.follow(self.engine)
        self.save(wait=True)
        self._report("continues with the changed configuration")

    # ---- status ------------------------------------------------------------------------------------------------------

    @property
    def not_used(self) -> Counter[str]:
        """What came from the source and could not be used, by reason."""
        return Counter(dict(self._source.ignored)) + Counter(dict(self._refusals.counts))

    def take_messages(self) -> list[str]:
        """Remove and return the messages for the operator; from any thread."""
        messages = []
        while self._messages:
            messages.append(self._messages.popleft())
        return messages

    def status(self) -> dict[str, Any]:
        """State as plain data, for the supervisor; removes the messages that it returns. From any thread."""
        messages = self.take_messages()
        # Copies first, since other threads keep counting.
        counts = dict(self._counts)
        if self.books.n_billed_before:
            counts["billed before"] = self.books.n_billed_before
        not_used = self.not_used
        step_times = self.engine.step_times
        return {
            "beat": self.beat, "over": self.over, "messages": messages, "newest_ns": self.engine.newest_ns,
            "time_off_s": self.time_watch.off_s, "time_state": self.time_watch.state,
            "set_back_s": self.engine.set_back_ns * 1e-9,
            "queue": len(self.intake), "queue_longest": self.intake.longest, "dropped": dict(self.intake.dropped),
            "lag_s": self.intake.lag_s, "lost_s": self.checkpoint.gaps.lost_s, "receipts": dict(self.books.receipts),
            "counts": counts, "change_waits": self._change is not None,
            "snapshot_ns": self.checkpoint.saved_ns, "snapshot_s": self.checkpoint.duration_s,
            "snapshot_bytes": self.checkpoint.n_bytes, "snapshot_stall_s": self.checkpoint.stall_s,
            "step_us": step_times.summary_us(), "busy_s": step_times.total_ns * 1e-9, "not_used": dict(not_used),
            "till": self.books.till.status(),
            "waits": {what: tuple(wait) for what, wait in self.patience.waits.items()},
        }  # fmt: skip


def _settle_past(restored: Restored, books: Bookkeeper, messages: deque[str]) -> None:
    """Decide what becomes of the visits that are open in the books when a process starts."""
    messages.extend(restored.messages)
    if restored.doubts_unreadable:
        books.doubt_open_visits(ReasonKind.DOUBTS_UNREADABLE)
    if restored.lost is not None:
        books.review_open_visits(restored.engine.newest_ns, restored.lost)
    else:
        books.expect(restored.engine)
    books.ship_goods(restored.engine)
