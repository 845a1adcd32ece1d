"""The engine: observations in, typed results out. It keeps the order of time and wires the stages together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from fusion.arrival.form import ObservationForm
from fusion.arrival.restamping import all_moved, moved
from fusion.errors import FusionError, OrderError, in_short
from fusion.goods.attribution import Attributor
from fusion.goods.billing import Billing
from fusion.goods.inside import Inside
from fusion.goods.journal import Journal
from fusion.goods.planogram import Planogram
from fusion.goods.scales import ShelfMonitor
from fusion.goods.sensors import Health
from fusion.observations import DoorState, Frame, GateEvent, GateScan, ItemSighting, Observation, ShelfReading
from fusion.order import SET_SPAN_NS, ClocksSetBack, Reorder
from fusion.people.arms import ArmHistory
from fusion.people.doors import Passed
from fusion.people.open_visits import Visit
from fusion.people.roll_call import RollCall
from fusion.people.stills import Stills
from fusion.people.tracker import Tracker
from fusion.people.visits import Visits
from fusion.results import (
    Evidence,
    PersonEntered,
    PersonLeft,
    Reason,
    ReasonKind,
    Receipt,
    Result,
    ShelfCount,
    Warning,
    WarningKind,
)
from fusion.stopwatch import StepTimes
from fusion.store.models import Store

# A live message may arrive this much after its time; a recording can be replayed with its streams delayed.
LATENESS_MAX_S = 2.0
# A receipt waits this long after the last exit: a load that leaves a plate settles within 0.75 s of it.
SETTLE_NS = 900_000_000
# Where nothing comes for longer, visits that are open then go to review: either people were out of sight and plates
# unheard, or all clocks were set forward. Messages that are merely late cause no such pause.
PAUSE_MAX_NS = 3_000_000_000
# About the time from one observation to the next where all clocks are set back: people go on from where they were.
TURN_NS = 10_000_000
# What a fault in one set of frames, or in one visit's bookkeeping, may be: reported, and survived.
FAULTS: tuple[type[Exception], ...] = (FusionError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError)
# Later than any data time.
_ALWAYS_NS = 2**63 - 1


class Engine:
    """The fusion engine of one store.

    Feed it observations in any order within two seconds; it answers with typed results in time order: People,
    PersonEntered, Picked, PutBack, PersonLeft, ShelfEventExplained, Receipt, Evidence, Warning.

        engine = Engine(Store.load("store"))
        for observation in source:              # Frame, ShelfReading, GateScan, DoorState, ItemSighting
            for result in engine.feed(observation):
                print(result)
        for result in engine.close(): ...

    Engines share nothing. One engine belongs to one thread at a time. Its memory is bounded.

    Attributes:
        store: as loaded.
        planogram: what lies where as believed now, and the gain of every plate.
        step_times: durations of the engine's steps, where a stopwatch was given.
    """

    def __init__(
        self,
        store: Store,
        stopwatch_ns: Callable[[], int] | None = None,
        tap: Callable[[Observation], object] | None = None,
    ) -> None:
        """Make an engine, with every kernel compiled and called once.

        Args:
            store: the store folder's contents.
            stopwatch_ns: a clock such as time.perf_counter_ns with which to time the steps; it has no other influence.
            tap: called with every observation that the engine uses, in time order, after late, repeated and far too
                early ones were dropped. A recording of these, replayed, gives the same results.
        """
        self._derive(store)
        self.step_times = StepTimes()
        self._stopwatch_ns = stopwatch_ns
        self._tap = tap
        self._reorder = Reorder(LATENESS_MAX_S, sensors=self._cameras | self._plates)
        self._tracker = Tracker.of_store(store)
        self._stills, self._roll_call = Stills(), RollCall(store, self._tracker.site)
        self._history = ArmHistory(store.layout)
        self.planogram = Planogram(store)
        self._monitor = ShelfMonitor(store, self.planogram)
        self._visits = Visits(store)
        self._attributor = Attributor(store, self.planogram, openings=self._visits.openings)
        self._billing = Billing(store, self._visits, self._attributor, self._monitor, self._history)
        # The open set of frames, and the messages of shelves and gates that go with it.
        self._frames: dict[str, Frame] = {}
        self._readings: list[ShelfReading] = []
        self._scans: list[GateEvent] = []
        self._sightings: list[ItemSighting] = []
        self._window_ns: int | None = None
        # The stages' time never runs backwards: data time plus all that the clocks of all sensors were set back by.
        self._now_ns = self._offset_ns = 0
        # Time up to which everything has arrived: the same live and in a replay, whatever the order of arrival.
        self._complete_ns, self._closed, self._closing = 0, False, False
        self._ignored: Counter[str] = Counter()

    def _derive(self, store: Store) -> None:
        self.store = store
        self._cameras = {camera.name for camera in store.cameras}
        self._plates = {plate.plate for plate in store.plates}
        self._form = ObservationForm(store)
        self._unit_g = store.weight_unit_g

    def adopt(
        self, store: Store, stopwatch_ns: Callable[[], int] | None, tap: Callable[[Observation], object] | None
    ) -> None:
        """Continue in this process, with a store of the same layout; see `snapshots.resume`.

        Every stage takes its settings from the store in one method, `_derive`, in a new engine as in an adopted one.
        What a stage has seen and learnt stays, except for what the change invalidates.
        """
        self._stopwatch_ns, self._tap = stopwatch_ns, tap
        self._derive(store)
        for stage in (self.planogram, self._tracker, self._monitor, self._attributor, self._visits, self._billing):
            stage.adopt(store)
        self._roll_call.adopt(store, self._tracker.site)

    def __getstate__(self) -> dict[str, Any]:
        # Functions belong to the process; `adopt` sets new ones.
        return {**vars(self), "_stopwatch_ns": None, "_tap": None}

    # ---- observations in, results out --------------------------------------------------------------------------------

    def feed(self, observation: Observation) -> list[Result]:
        """Take one observation; returns what has become known by it, often nothing.

        Raises:
            TimeError: a time that is not an integer of UTC nanoseconds.
            ShapeError: arrays that do not fit the store's layout, or do not hold floats.
            TypeError: not an observation.
            OrderError: the engine was closed.
        """
        if self._closed:
            raise OrderError("want an open engine, got one that was closed")
        self._reorder.push(self._form.checked(observation))
        results: list[Result] = []
        for ordered in self._reorder.ready():
            self._take(ordered, results)
        if self._reorder.clocks.warned:
            results += all_moved(self._reorder.warnings(), self._offset_ns)
        return all_moved(results, -self._offset_ns) if self._offset_ns else results

    def close(self) -> list[Result]:
        """Process what is held back, at the end of the streams. Visits whose people are still inside stay open."""
        if self._closed:
            return []
        results: list[Result] = []
        self._closing = True
        self._complete_ns = self.newest_ns + self._offset_ns
        for ordered in self._reorder.flush():
            self._take(ordered, results)
        self._step(results)
        results += self._roll_call.finish(self._now_ns)
        for event in self._monitor.finish():
            results += self._billing.observe(event)
        results += self._visits.end(self._now_ns)
        self._finish_visits(_ALWAYS_NS, results)
        results += self._billing.finish()
        results += all_moved(self._reorder.warnings(), self._offset_ns)
        self._closed = True
        return all_moved(results, -self._offset_ns)

    def decide(self, receipt: Receipt, items: dict[str, int], t_ns: int) -> Receipt:
        """Settle a receipt as a reviewer decided, and return it settled. See `goods.billing.Billing.decide`."""
        return self._billing.decide(receipt, items, t_ns)

    def learn(self, visit: str, items: dict[str, int] | None, t_ns: int, identity: bool | None = None) -> int:
        """Learn from a reviewer's or a shopper's decision, goods stay as booked; see `goods.labels.Labels.learn`."""
        return self._billing.labels.learn(visit, items, t_ns, identity)

    # ---- what can be asked -------------------------------------------------------------------------------------------

    @property
    def journal(self) -> Journal:
        """Every transfer of goods between shelves and carts so far."""
        return self._billing.journal

    def evidence(self, visit: str) -> Evidence | None:
        """What a visit's receipt rests on; None before it is written, and for all but the newest 64 receipts."""
        evidence = self._billing.evidence(visit)
        return evidence and moved(evidence, -self._offset_ns)

    def health(self) -> Health:
        """State of cameras and plates now."""
        health = Health(
            self._now_ns, self._tracker.health.report(), self._monitor.report(), frozenset(self._roll_call.unheard),
            tuple(self._roll_call.unknown), dict(self._roll_call.faults), self._tracker.repositioning.corrections,
        )  # fmt: skip
        return moved(health, -self._offset_ns)

    def shelf_state(self) -> list[ShelfCount]:
        """What lies where as believed now, by plate and product: every facing, and whatever else lies on a plate."""
        return self._billing.shelf_state()

    def rename_customers(self, renamed: Callable[[str], str]) -> None:
        """Give customers of visits that are over other names, one each, since theirs are erased; results stay."""
        self._billing.rename_customers(renamed)

    def account_of(self, track_id: int) -> str | None:
        """Account of a person's visit as known now; None for staff, unidentified people and people long gone."""
        return self._visits.account_of(track_id)

    @property
    def inside(self) -> Inside:
        """Who is inside now, on which visit, and what they seem to hold."""
        return Inside(self._visits, self._billing, self._now_ns, self._offset_ns)

    @property
    def open_visits(self) -> list[str]:
        """Visits that have no receipt yet, oldest first."""
        return [visit.id for visit in self._visits.unfinished()]

    @property
    def scans_waiting(self) -> int:
        """Scans whose person has not come in yet."""
        return self._visits.scans_waiting

    @property
    def newest_ns(self) -> int:
        """Newest data time that came in and is believed; 0 before the first. Goes back where all clocks do."""
        return self._reorder.newest_ns or 0

    @property
    def set_back_ns(self) -> int:
        """By how much the clocks of all sensors were set back so far, in sum."""
        return self._offset_ns

    @property
    def ignored(self) -> Counter[str]:
        """Everything that came in and was not used, by reason."""
        parts = (
            self._ignored, self._reorder.ignored, self._stills.ignored, self._tracker.ignored, self._monitor.ignored,
            self._attributor.ignored, self._visits.ignored, self._billing.ignored,
        )  # fmt: skip
        return sum(parts, Counter())

    # ---- order and sets ----------------------------------------------------------------------------------------------

    # Long: one call for each message, since it runs for hundreds a second.
    def _take(self, observation: Observation | ClocksSetBack, results: list[Result]) -> None:  # noqa: C901, PLR0912
        """An observation in its place in time: it joins the open set of frames, or closes it and starts the next."""
        t_ns = observation.t_ns + self._offset_ns
        if not 0 <= t_ns - self._now_ns <= PAUSE_MAX_NS:
            self._note_jump(observation, results)
            if isinstance(observation, ClocksSetBack):
                return
        assert not isinstance(observation, ClocksSetBack)
        if self._tap is not None:
            self._tap(observation)
        if self._offset_ns:
            observation = moved(observation, self._offset_ns)
            t_ns = observation.t_ns
        if not self._closing:
            self._complete_ns = t_ns + self._reorder.lateness_ns
        if self._window_ns is not None:
            again = isinstance(observation, Frame) and observation.camera in self._frames
            if again or t_ns - self._window_ns > SET_SPAN_NS:
                self._step(results)
        if self._window_ns is None:
            self._window_ns = t_ns
        self._now_ns = t_ns
        match observation:
            case Frame() if observation.camera in self._cameras:
                self._frames[observation.camera] = observation
            case Frame():
                self._ignored["detections: camera without calibration"] += 1
                self._roll_call.unknown_camera(observation.camera)
            case ShelfReading():
                if observation.plate in self._plates:
                    # After the tap, whose recordings keep the store's unit.
                    self._readings.append(observation if self._unit_g == 1.0 else observation.in_grams(self._unit_g))
                else:
                    self._ignored["weights: unknown plate"] += 1
                    self._roll_call.unknown_plate(observation.plate)
            case GateScan() | DoorState():
                self._scans.append(observation)
            case ItemSighting():
                self._sightings.append(observation)

    def _note_jump(self, observation: Observation | ClocksSetBack, results: list[Result]) -> None:
        """Time goes back, or on after a pause in which nothing came: doubt the visits that this touches."""
        if isinstance(observation, ClocksSetBack):
            self._step(results)
            jump_ns = self._now_ns - self._offset_ns - observation.t_ns
            self._offset_ns += jump_ns + TURN_NS
            self._billing.offset_ns = self._offset_ns
            # What is not handed out yet is dated by the new offset as well.
            results[:] = all_moved(results, jump_ns + TURN_NS)
            reason, warning = ReasonKind.CLOCKS_SET_BACK, WarningKind.CLOCKS_SET_BACK
        elif self._now_ns:
            jump_ns = observation.t_ns + self._offset_ns - self._now_ns
            reason, warning = ReasonKind.TIME_MISSING, WarningKind.TIME_MISSING
        else:
            return  # The first observation.
        seconds = round(jump_ns * 1e-9, 1)
        # Set back by less than messages may be late, none is lost; by more, the first that is not lost is as late.
        loses = jump_ns > self._reorder.lateness_ns - SET_SPAN_NS
        touched = loses and self._visits.doubt(Reason(reason, seconds=seconds), self._now_ns)
        if touched or warning is WarningKind.CLOCKS_SET_BACK:
            results.append(Warning(self._now_ns, warning, self.store.id, seconds=seconds))

    def _step(self, results: list[Result]) -> None:
        """One engine step: a set of frames and the messages of shelves and gates that go with it."""
        if self._window_ns is None:
            return
        started_ns = self._stopwatch_ns() if self._stopwatch_ns else 0
        try:
            self._work(results, self._now_ns)
        except FAULTS as error:
            # The next set is another chance; whoever is inside now may have lost something by this one.
            self._visits.doubt(Reason(ReasonKind.STEP_FAILED, detail=in_short(error)), self._now_ns)
            results.append(Warning(self._now_ns, WarningKind.STEP_FAILED, self.store.id, detail=in_short(error)))
        for waiting in (self._frames, self._readings, self._scans, self._sightings):
            waiting.clear()
        self._window_ns = None
        if self._stopwatch_ns:
            self.step_times.add(self._stopwatch_ns() - started_ns)

    def _work(self, results: list[Result], now_ns: int) -> None:
        """Give the set to all stages, in their order."""
        results += self._roll_call.step(self._frames, self._readings, now_ns)
        if self._roll_call.contradicted or self._tracker.disagreeing:
            self._visits.doubt(Reason(ReasonKind.CAMERAS_DISAGREE), now_ns)
        for event_at_gate in self._scans:
            self._pass(self._visits.at_gate(event_at_gate), results)
        frames = self._stills.without(self._frames.values(), now_ns)
        if frames:
            self._follow_people(frames, results)
        else:
            self._pass(self._visits.idle(now_ns), results)
        results += self._stills.warnings()
        for sighting in self._sightings:
            self._billing.sight(sighting)
        for event in self._monitor.step(self._readings, now_ns):
            results += self._billing.observe(event)
        for undone in self._monitor.undone():
            self._attributor.note_undone(undone, self._history)
        results += self._monitor.warnings()
        self._attributor.watch(self._monitor.blind, self._history, now_ns)
        self._finish_visits(now_ns - SETTLE_NS, results)

    def _follow_people(self, frames: list[Frame], results: list[Result]) -> None:
        """Track everybody through a set of frames and through the gates."""
        people = self._tracker.step(frames)
        self._roll_call.follow(self._tracker.site)
        self._history.append(people)
        results += self._tracker.warnings()
        self._pass(self._visits.step(people, self._tracker.vouched), results)
        results.append(people)

    def _pass(self, passed_gates: list[Passed], results: list[Result]) -> None:
        """Take note of who came in and who went out."""
        for passed in passed_gates:
            if isinstance(passed, PersonEntered):
                if passed.staff:
                    self._attributor.set_staff(passed.track_id)
                elif passed.visit is not None:
                    self._attributor.join(passed.track_id, passed.visit)
            elif isinstance(passed, PersonLeft) and self._visits.is_staff(passed.track_id):
                self._billing.staff_left(passed.t_ns, passed.track_id)
            results.append(passed)

    def _finish_visits(self, until_ns: int, results: list[Result]) -> None:
        """Bill the visits whose people had all left by an instant and that wait for no load."""
        results += self._billing.settle_staff(until_ns)
        done = self._visits.finished(until_ns, self._must_wait)
        for i, visit in enumerate(done):
            if self._roll_call.unproved and visit.is_followed:
                visit.doubts.append(Reason(ReasonKind.CAMERAS_DISAGREE))
            others = [*done[i + 1 :], *self._visits.unfinished()]
            issued_ns = max(self._complete_ns, self._now_ns)
            exit_ns = visit.exit_ns or self._now_ns
            try:
                results += self._billing.bill(visit, others, exit_ns, issued_ns)
            except FAULTS as error:
                results += self._billing.give_up(visit, exit_ns, issued_ns, in_short(error))

    def _must_wait(self, visit: Visit) -> bool:
        return not self._closing and self._billing.must_wait(visit, self._now_ns)
