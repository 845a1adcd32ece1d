"""The one place that wires the stages together: observations in, typed results out."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fusion.errors import JournalError, OrderError, ShapeError
from fusion.goods.attribution import Attributor, CartBelief, EventBelief, EventCandidate
from fusion.goods.carts import ShelfBooks, Sighted, Sightings, moved
from fusion.goods.evidence import EvidenceRecorder
from fusion.goods.journal import OUTSIDE, UNKNOWN, Account, Journal, Transfer
from fusion.goods.loads import ShelfEvent
from fusion.goods.planogram import Planogram
from fusion.goods.plates import PlateState
from fusion.goods.scales import ShelfMonitor
from fusion.observations import Frame, GateScan, ItemSighting, Observation, ShelfReading
from fusion.order import Reorder
from fusion.people.arms import ArmHistory
from fusion.people.health import CameraState
from fusion.people.tracks import Tracker
from fusion.people.visits import Visit, Visits
from fusion.results import (
    Candidate,
    Evidence,
    PersonEntered,
    PersonLeft,
    Picked,
    PutBack,
    Reason,
    ReasonKind,
    Receipt,
    ReceiptLine,
    ReceiptStatus,
    Result,
    ShelfCount,
    ShelfEventExplained,
    Taken,
)
from fusion.store.models import Store

# A live message may arrive this much after its time; a recording can be replayed with its streams delayed.
LATENESS_MAX_S = 2.0
# Frames of different cameras make one set while they lie within this span; the contract asks for an output each 100 ms.
SET_SPAN_NS = 100_000_000
# A receipt waits this long after the last exit: a load that leaves a plate settles within 0.75 s of it.
SETTLE_S = 0.9
# It waits longer only for a load that is not decided yet and began while one of its people was within this distance of
# the plate. Hands may rest on a shelf for ten seconds before that counts as a load.
UNDECIDED_NEAR_M = 1.5
UNDECIDED_MAX_S = 12.0
# Evidence of so many receipts is kept for who asks; a bundle tells of so many events, those least clear first, and of
# everything that concerns the visit with at least this probability.
BUNDLES_MAX = 64
BUNDLE_EVENTS_MAX = 64
CONCERNS_MIN = 0.01
# Visits remembered after their receipt: events that others may have caused are explained later.
BILLED_MAX = 4096


def _floats(name: str, array: object, shape: tuple[int, ...]) -> np.ndarray:
    """The array as C-contiguous float32, itself where it is that already; -1 in a shape stands for any length."""
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        got = f"{array.dtype} array" if isinstance(array, np.ndarray) else type(array).__name__
        raise ShapeError(f"{name}: want an array of floats, got {got}")
    if array.ndim != len(shape) or any(want not in (-1, have) for want, have in zip(shape, array.shape)):
        wanted = ", ".join("n" if want == -1 else str(want) for want in shape)
        raise ShapeError(f"{name}: want ({wanted}{',' if len(shape) == 1 else ''}), got {array.shape}")
    return np.ascontiguousarray(array, np.float32)


@dataclass(frozen=True, slots=True)
class Health:
    """How the sensors of a store are at an instant, each in the order of the store."""

    t_ns: int
    cameras: tuple[CameraState, ...]
    plates: tuple[PlateState, ...]


class StepTimes:
    """Durations of steps in a histogram of fixed size: bins 1 % wide from 100 ns to about 70 s, and the maximum."""

    def __init__(self) -> None:
        self._counts = np.zeros(2048, np.int64)
        self.max_ns = 0
        self.total_ns = 0

    def add(self, duration_ns: int) -> None:
        place = int(math.log(max(duration_ns, 100) / 100.0) * 100.0)
        self._counts[min(place, 2047)] += 1
        self.max_ns = max(self.max_ns, duration_ns)
        self.total_ns += duration_ns

    def copy(self) -> StepTimes:
        """The times up to now, to compare with later."""
        return self.since(StepTimes())

    def since(self, earlier: StepTimes) -> StepTimes:
        """What was added after an earlier copy. Its maximum is that of all time, or of its highest bin if smaller."""
        times = StepTimes()
        times._counts = self._counts - earlier._counts
        times.total_ns = self.total_ns - earlier.total_ns
        used = np.flatnonzero(times._counts)
        if len(used):
            times.max_ns = min(self.max_ns, round(100.0 * math.exp((used[-1] + 1) / 100.0)))
        return times

    def percentile_us(self, percent: float) -> float:
        """Middle of the bin in which a percentile lies, microseconds; 0 where nothing was added."""
        n = int(self._counts.sum())
        if n == 0:
            return 0.0
        place = int(np.searchsorted(np.cumsum(self._counts), math.ceil(n * percent / 100.0)))
        return min(0.1 * math.exp((place + 0.5) / 100.0), self.max_ns / 1e3)

    def summary_us(self) -> dict[str, float]:
        p50, p99 = self.percentile_us(50), self.percentile_us(99)
        return {"p50": round(p50, 1), "p99": round(p99, 1), "max": round(self.max_ns / 1e3, 1)}


class Engine:
    """The fusion engine of one store.

    Feed it what sensors tell, in any order within two seconds; it answers with typed results in order of time:
    People, PersonEntered, Picked, PutBack, PersonLeft, ShelfEventExplained, Receipt, Evidence, Warning.

        engine = Engine(Store.load("store"))
        for observation in source:              # Frame, ShelfReading, GateScan, ItemSighting
            for result in engine.feed(observation):
                print(result)
        for result in engine.close(): ...

    Nothing is shared between engines. One engine belongs to one thread at a time. Memory is bounded.

    Attributes:
        store: as loaded.
        journal: every transfer of goods between shelves and carts so far.
        planogram: what lies where as believed now, and what every plate shows of a gram.
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
            tap: told every observation that is used, in order of time, when what came late, twice or from far ahead
                has been dropped. A recording of these, replayed, gives the same results.
        """
        self._derive(store)
        self.journal = Journal()
        self.step_times = StepTimes()
        self._stopwatch_ns = stopwatch_ns
        self._tap = tap
        self._reorder = Reorder(LATENESS_MAX_S)
        self._tracker = Tracker(store)
        self._history = ArmHistory(store.layout)
        self.planogram = Planogram(store)
        self._monitor = ShelfMonitor(store, self.planogram)
        self._attributor = Attributor(store, self.planogram)
        self._visits = Visits(store)
        self._frames: dict[str, Frame] = {}
        self._readings: list[ShelfReading] = []
        self._scans: list[GateScan] = []
        self._window_ns: int | None = None
        self._now_ns = 0
        # Data time by which all up to now has come in; a live run and its replay agree on it, whatever came when.
        self._heard_ns = 0
        self._closed = self._closing = False
        self._ignored: Counter[str] = Counter()
        self._recorder = EvidenceRecorder(store)
        self._sightings = Sightings(store)
        self._seen: list[ItemSighting] = []
        self._books = ShelfBooks(store)
        self._bundles: OrderedDict[str, Evidence] = OrderedDict()
        self._billed: OrderedDict[str, None] = OrderedDict()
        self._staff_left: list[tuple[int, int]] = []  # (time, track), whose events are to be settled
        # By open visit: pieces it got from (negative: gave to) people of other visits, how sure that is, what is not.
        self._given: dict[str, Counter[str]] = {}
        self._returned: dict[str, Counter[str]] = {}  # Of these, what the visit put back.
        self._given_sure: dict[str, float] = {}
        self._doubts: dict[str, list[Reason]] = {}

    def _derive(self, store: Store) -> None:
        self.store = store
        self._products = {product.gtin: product for product in store.products}
        self._cameras = {camera.name for camera in store.cameras}
        self._plates = {plate.plate for plate in store.plates}
        self._keypoints_shape = (store.layout.n_joints, 3)
        self._plate_m = np.array([(plate.x, plate.y) for plate in store.plates]).reshape(-1, 2)

    def adopt(
        self, store: Store, stopwatch_ns: Callable[[], int] | None, tap: Callable[[Observation], object] | None
    ) -> None:
        """Go on in this process, with a store of the same layout; see `snapshot.resume`.

        Every stage has one `_derive`, which makes all that follows from the store, for a new engine as for this one;
        what it has seen and learnt stays, but for what the change makes void.
        """
        self._stopwatch_ns, self._tap = stopwatch_ns, tap
        self._derive(store)
        self.planogram.adopt(store)
        for stage in (self._tracker, self._monitor, self._attributor, self._visits, self._sightings, self._books):
            stage.adopt(store)

    def __getstate__(self) -> dict[str, Any]:
        # Functions belong to the process; `adopt` gives others.
        return {**vars(self), "_stopwatch_ns": None, "_tap": None}

    # ---- what comes in -----------------------------------------------------------------------------------------------

    def feed(self, observation: Observation) -> list[Result]:
        """Take in one observation; returns what has become known by it, often nothing.

        Raises:
            ShapeError: arrays that do not fit the store's layout, or hold no floats.
            TypeError: no observation.
            OrderError: the engine was closed.
        """
        if self._closed:
            raise OrderError("want an open engine, got one that was closed")
        self._reorder.push(self._check(observation))
        results: list[Result] = []
        for ordered in self._reorder.ready():
            self._take(ordered, results)
        return results

    def close(self) -> list[Result]:
        """The streams have ended: work off what is held back. Visits whose people are still inside stay open."""
        if self._closed:
            return []
        results: list[Result] = []
        self._closing = True
        self._heard_ns = self._reorder.newest_ns or 0
        for ordered in self._reorder.flush():
            self._take(ordered, results)
        self._step(results)
        for event in self._monitor.finish():
            self._observe(event, results)
        results += self._visits.end(self._now_ns)
        self._finish_visits(2**63 - 1, results)
        results += [self._explained(belief) for belief in self._attributor.finish()]
        self._closed = True
        return results

    def decide(self, receipt: Receipt, items: dict[str, int], t_ns: int) -> Receipt:
        """A reviewer has looked at a receipt: the journal is corrected by reversal, the receipt settled.

        Args:
            receipt: as issued by this engine.
            items: what the visit really took, pieces by GTIN.
            t_ns: when the reviewer decided.

        Raises:
            JournalError: a product that the store does not sell, or fewer than one piece of it.
        """
        for gtin, quantity in items.items():
            if gtin not in self._products or quantity < 1:
                raise JournalError(f"items: want pieces of products of this store, got {quantity} of {gtin!r}")
        self.journal.correct(("cart", receipt.visit), items, t_ns, f"{receipt.visit}/review/{t_ns}")
        lines = tuple(
            ReceiptLine(gtin, quantity, self._products[gtin].price, 1.0) for gtin, quantity in sorted(items.items())
        )
        total = sum(line.quantity * line.unit_price for line in lines)
        return replace(
            receipt, issued_ns=t_ns, status=ReceiptStatus.SETTLED, reasons=(), total=total, lines=lines
        )

    def evidence(self, visit: str) -> Evidence | None:
        """What a visit's receipt rests on; None before it is written, and for all but the newest receipts."""
        return self._bundles.get(visit)

    def health(self) -> Health:
        """How cameras and plates are now."""
        return Health(self._now_ns, self._tracker.health.report(), self._monitor.report())

    def shelf_state(self) -> list[ShelfCount]:
        """What lies where as believed now, by plate and product: every facing, and whatever else lies somewhere."""
        return self._books.counts(self.journal, self._attributor.beliefs())

    def account_of(self, track_id: int) -> str | None:
        """Account of a person's visit as known now; None for staff, for unknown people and for somebody long gone."""
        return self._visits.account_of(track_id)

    @property
    def open_visits(self) -> list[str]:
        """Visits that have no receipt yet, oldest first."""
        return [visit.id for visit in self._visits.unfinished()]

    @property
    def scans_waiting(self) -> int:
        """Scans that nobody has come in with yet."""
        return self._visits.scans_waiting

    @property
    def newest_ns(self) -> int:
        """Newest data time that came in; 0 before the first."""
        return self._reorder.newest_ns or 0

    @property
    def ignored(self) -> Counter[str]:
        """Everything that came in and was not used, by reason."""
        parts = (
            self._ignored,
            self._reorder.ignored,
            self._tracker.ignored,
            self._monitor.ignored,
            self._attributor.ignored,
            self._visits.ignored,
        )
        return sum(parts, Counter())

    # ---- order and sets ----------------------------------------------------------------------------------------------

    def _check(self, observation: Observation) -> Observation:
        """The observation with float32 arrays of the right shape. Raises ShapeError; TypeError for other things."""
        if isinstance(observation, Frame):
            keypoints = _floats("keypoints", observation.keypoints, (-1, *self._keypoints_shape))
            appearance = observation.appearance
            dim = self.store.appearance_dim
            if dim:
                appearance = _floats("appearance", appearance, (len(keypoints), dim))
            if keypoints is not observation.keypoints or appearance is not observation.appearance:
                return Frame(observation.t_ns, observation.camera, keypoints, appearance)
        elif isinstance(observation, ShelfReading):
            samples = _floats("samples", observation.samples, (-1,))
            if samples is not observation.samples:
                return ShelfReading(observation.t_ns, observation.plate, samples)
        elif not isinstance(observation, GateScan | ItemSighting):
            kind = type(observation).__name__
            raise TypeError(f"want a Frame, ShelfReading, GateScan or ItemSighting, got {kind}")
        return observation

    def _take(self, observation: Observation, results: list[Result]) -> None:
        """An observation in its place in time: it joins the open set of frames, or closes it and starts the next."""
        t_ns = observation.t_ns
        if self._tap is not None:
            self._tap(observation)
        if not self._closing:
            self._heard_ns = t_ns + self._reorder.lateness_ns
        if self._window_ns is not None:
            again = isinstance(observation, Frame) and observation.camera in self._frames
            if again or t_ns - self._window_ns > SET_SPAN_NS:
                self._step(results)
        if self._window_ns is None:
            self._window_ns = t_ns
        self._now_ns = t_ns
        match observation:
            case Frame():
                if observation.camera in self._cameras:
                    self._frames[observation.camera] = observation
                else:
                    self._ignored["detections: camera without calibration"] += 1
            case ShelfReading():
                if observation.plate in self._plates:
                    self._readings.append(observation)
                else:
                    self._ignored["weights: unknown plate"] += 1
            case GateScan():
                self._scans.append(observation)
            case ItemSighting(kind="seen", plate=str(plate)) as seen:
                if not self._attributor.sight(seen.t_ns, plate, seen.gtin, seen.probability):
                    self._ignored["items: unknown plate or product"] += 1
            case ItemSighting(zone=str(), quantity=int(quantity)) as seen if quantity >= 1:
                if self._sightings.knows(seen):
                    self._seen.append(seen)
                else:
                    self._ignored["items: unknown zone, product or kind"] += 1
            case ItemSighting():
                self._ignored["items: evidence not used"] += 1

    def _step(self, results: list[Result]) -> None:
        """One engine step: a set of frames and what came from shelves and gates beside it."""
        if self._window_ns is None:
            return
        started_ns = self._stopwatch_ns() if self._stopwatch_ns else 0
        now_ns = self._now_ns
        for scan in self._scans:
            results += self._visits.scan(scan)
        if self._frames:
            people = self._tracker.step(list(self._frames.values()))
            self._history.append(people)
            results += self._tracker.warnings()
            for passed in self._visits.step(people):
                if isinstance(passed, PersonEntered):
                    if passed.staff:
                        self._attributor.set_staff(passed.track_id)
                    elif passed.visit is not None:
                        self._attributor.join(passed.track_id, passed.visit)
                elif isinstance(passed, PersonLeft) and self._visits.is_staff(passed.track_id):
                    self._staff_left.append((passed.t_ns, passed.track_id))
                results.append(passed)
            results.append(people)
        for seen in self._seen:
            self._bind(seen)
        for event in self._monitor.step(self._readings, now_ns):
            self._observe(event, results)
        results += self._monitor.warnings()
        self._attributor.watch(self._monitor.unheard, self._history, now_ns)
        self._finish_visits(now_ns - round(SETTLE_S * 1e9), results)
        self._frames.clear()
        self._readings.clear()
        self._scans.clear()
        self._seen.clear()
        self._window_ns = None
        if self._stopwatch_ns:
            self.step_times.add(self._stopwatch_ns() - started_ns)

    # ---- goods -------------------------------------------------------------------------------------------------------

    def _observe(self, event: ShelfEvent, results: list[Result]) -> None:
        belief = self._attributor.observe(event, self._history)
        self._recorder.record(event, belief, self._monitor, self._history)
        if not belief.candidates or belief.candidates[0].probability < belief.nothing:
            return
        best = self._candidate(belief.candidates[0])
        kind = Picked if best.quantity < 0 else PutBack
        quantity = abs(best.quantity)
        results.append(kind(belief.t_ns, belief.plate, best.gtin, quantity, best.account, best.visit, best.probability))

    def _bind(self, seen: ItemSighting) -> None:
        """Whose goods a reader or a camera at a zone has seen: anybody's who was there."""
        near = (self._visits.visit_of(track) for track in self._sightings.near(seen, self._history))
        visits = frozenset(visit for visit in near if visit is not None and visit not in self._billed)
        if visits:
            self._sightings.add(seen, visits)
        else:
            self._ignored["items: nobody with an open visit in the zone"] += 1

    def _whose(self, person: int | None) -> tuple[str | None, str | None]:
        """Account and visit of a track."""
        return (None, None) if person is None else (self._visits.account_of(person), self._visits.visit_of(person))

    def _candidate(self, candidate: EventCandidate) -> Candidate:
        account, visit = self._whose(candidate.person)
        return Candidate(account, candidate.gtin, candidate.quantity, candidate.probability, visit)

    def _explained(self, belief: EventBelief) -> ShelfEventExplained:
        """What is final about an event; the goods move in the journal."""
        candidates = tuple(self._candidate(candidate) for candidate in belief.candidates)
        self._books.settled(belief)
        self._recorder.forget(belief.event_id)
        for part, one in enumerate(moved(belief)):
            _, visit = self._whose(one.person)
            staff = one.person is not None and self._visits.is_staff(one.person)
            # What a visit took is on its receipt already where that is written: the books had it from the unknown.
            holder = ("cart", visit) if visit and visit not in self._billed else OUTSIDE if staff else UNKNOWN
            key = f"{self.store.id}/{belief.plate}/{belief.t_ns}/{belief.event_id}" + (f"/{part}" if part else "")
            self._move(key, belief.t_ns, ("shelf", belief.plate), holder, one.gtin, -one.quantity)
        return ShelfEventExplained(belief.t_ns, belief.plate, belief.delta_g, candidates)

    def _move(self, key: str, t_ns: int, giver: Account, taker: Account, gtin: str, quantity: int) -> None:
        """Record that goods moved; a negative quantity moves them the other way."""
        if quantity < 0:
            giver, taker, quantity = taker, giver, -quantity
        self.journal.append(Transfer(key, t_ns, debit=taker, credit=giver, gtin=gtin, quantity=quantity))

    # ---- receipts ----------------------------------------------------------------------------------------------------

    def _finish_visits(self, until_ns: int, results: list[Result]) -> None:
        left = [track for t_ns, track in self._staff_left if t_ns <= until_ns]
        if left:
            self._staff_left = [one for one in self._staff_left if one[0] > until_ns]
            results += [self._explained(event) for event in self._attributor.settle(left)]
        done = self._visits.finished(until_ns, self._waits)
        for i, visit in enumerate(done):
            self._bill(visit, [*done[i + 1 :], *self._visits.unfinished()], results)

    def _waits(self, visit: Visit) -> bool:
        """Whether something may still be told of the shelves that is this visit's."""
        since_exit_s = (self._now_ns - (visit.exit_ns or 0)) * 1e-9
        if self._closing or since_exit_s > UNDECIDED_MAX_S:
            return False
        return any(
            self._history.was_near(visit.members, self._plate_m[plate], UNDECIDED_NEAR_M, since_ns)
            for plate, since_ns in self._monitor.undecided()
        )

    def _bill(self, visit: Visit, others: Sequence[Visit], results: list[Result]) -> None:
        """Write a visit's receipt. others: visits without one."""
        seen = self._sightings.of(visit.id)
        self._weigh_sightings(seen, [visit, *others])
        still_open = self._attributor.beliefs()
        self._hand_over(visit, others, seen, still_open)
        self._take_back(visit)
        belief = self._attributor.cart(visit.members, self._given.pop(visit.id, None))
        concerns = _concerning(visit, still_open)
        bundle_events = [self._recorder.tell(event, self._whose) for event in concerns[:BUNDLE_EVENTS_MAX]]
        explained = [self._explained(event) for event in self._attributor.settle(visit.members)]
        receipt = self._receipt(visit, belief)
        told = sorted((event for event in bundle_events if event), key=lambda e: (e.contact_ns, e.event_id))
        evidence = Evidence(
            t_ns=receipt.exit_ns,
            visit=visit.id,
            account=visit.account,
            status=receipt.status,
            reasons=receipt.reasons,
            lines=receipt.lines,
            events=tuple(told),
            sightings=tuple(one.told() for one in seen),
            n_left_out=len(concerns) - len(told),
        )
        self._bundles[visit.id] = evidence
        self._billed[visit.id] = None
        for kept, limit in ((self._bundles, BUNDLES_MAX), (self._billed, BILLED_MAX)):
            if len(kept) > limit:
                kept.popitem(last=False)
        self._sightings.forget({other.id for other in others})
        results += explained
        results.append(receipt)
        if receipt.status == ReceiptStatus.REVIEW:
            results.append(evidence)

    def _receipt(self, visit: Visit, belief: CartBelief) -> Receipt:
        # The cart is the balance of its account. Where the best joint explanation is not the sum of each event's own
        # best, or goods went from hand to hand, the journal says so by a transfer of its own.
        cart: Account = ("cart", visit.id)
        settled = self.journal.balance(cart)
        exit_ns = visit.exit_ns or self._now_ns
        for gtin in sorted(settled.keys() | belief.items.keys()):
            difference = belief.items.get(gtin, 0) - settled.get(gtin, 0)
            if difference:
                self._move(f"{visit.id}/joint/{gtin}", exit_ns, UNKNOWN, cart, gtin, difference)
        given_sure = self._given_sure.pop(visit.id, 1.0)
        lines = tuple(
            ReceiptLine(gtin, quantity, self._products[gtin].price, belief.confidence.get(gtin, given_sure))
            for gtin, quantity in sorted(self.journal.balance(cart).items())
        )
        right = belief.probability * visit.identity * given_sure
        reasons = list(visit.doubts)
        if visit.account is None:
            reasons.insert(0, Reason(ReasonKind.NO_CREDENTIAL))
        doubts = self._doubts.pop(visit.id, [])
        if right < 1.0 - self.store.review.receipt_error_max:
            reasons += [*doubts, *belief.reasons] or [Reason(ReasonKind.CART_UNCERTAIN, probability=right)]
        return Receipt(
            visit=visit.id,
            account=visit.account,
            enter_ns=visit.enter_ns,
            exit_ns=exit_ns,
            issued_ns=max(self._heard_ns, self._now_ns),
            status=ReceiptStatus.REVIEW if reasons else ReceiptStatus.SETTLED,
            reasons=tuple(dict.fromkeys(reasons)),
            currency=self.store.currency,
            total=sum(line.quantity * line.unit_price for line in lines),
            lines=lines,
            taken=self._taken(cart),
        )

    def _taken(self, cart: Account) -> tuple[Taken, ...]:
        moments = self.journal.moments(cart)
        pieces = Counter((t_ns, gtin) for gtin, times in moments.items() for t_ns in times)
        return tuple(Taken(t_ns, gtin, n) for (t_ns, gtin), n in sorted(pieces.items()))

    # ---- from hand to hand -------------------------------------------------------------------------------------------

    def _weigh_sightings(self, seen: Sequence[Sighted], still_open: Sequence[Visit]) -> None:
        """What was seen at a zone revises who took what, once."""
        members = {visit.id: visit.members for visit in still_open}
        for one in seen:
            if not one.weighed:
                one.weighed = True
                people = {person for visit in one.visits for person in members.get(visit, ())}
                self._attributor.revise(people, one.gtin, self._sightings.log_likelihood(one))

    def _held(self, visit: Visit) -> CartBelief:
        return self._attributor.cart(visit.members, self._given.get(visit.id))

    def _give(self, giver: str, taker: str, gtin: str, quantity: int, sure: float) -> None:
        for visit, pieces in ((giver, -quantity), (taker, quantity)):
            self._given.setdefault(visit, Counter())[gtin] += pieces
            self._given_sure[visit] = self._given_sure.get(visit, 1.0) * sure

    def _doubtful(self, visit: str, sure: float, reason: Reason) -> None:
        self._given_sure[visit] = self._given_sure.get(visit, 1.0) * sure
        self._doubts.setdefault(visit, []).append(reason)

    def _hand_over(
        self, visit: Visit, others: Sequence[Visit], seen: Sequence[Sighted], beliefs: Sequence[EventBelief]
    ) -> None:
        """Goods that went from this visit to another or the other way, as far as something shows it.

        Who put back what they never took had it from somebody: where only one visit holds such a piece, theirs is off
        the bill. What is read on people who do not hold it is, where the carrier pays, the piece of the only other
        visit that does.
        """
        # By each event's own best, more came back than was taken: cheap to see, and carts are asked for only then.
        back: Counter[tuple[str | None, str]] = Counter()
        for event in beliefs:
            for one in moved(event):
                back[self._whose(one.person)[1], one.gtin] += one.quantity
        suspects = {name for (name, _), pieces in back.items() if pieces > 0}
        everybody = [visit, *others]
        for taker in everybody:
            short = self._held(taker).short if taker.id in suspects else {}
            for gtin, pieces in short.items():
                stock = {one.id: self._held(one).items.get(gtin, 0) for one in everybody if one is not taker}
                holders = [holder for holder, n in stock.items() if n]
                if taker is not visit and visit.id not in holders:
                    continue
                if len(holders) == 1:
                    handed = min(pieces, stock[holders[0]])
                    sure = self._held(taker).confidence.get(gtin, 1.0)
                    self._give(holders[0], taker.id, gtin, handed, sure)
                    self._returned.setdefault(taker.id, Counter())[gtin] += handed
                else:
                    for holder in holders:
                        self._doubtful(holder, 0.5, Reason(ReasonKind.HAND_OVER_AMBIGUOUS, gtin=gtin))
        for sighted in seen:
            self._claim(visit, others, sighted)

    def _take_back(self, visit: Visit) -> None:
        """Later evidence may have it that this visit did not put back what it seemed to have been given for that: then
        nobody gave it anything, and nobody is billed for it in another's place."""
        returned = self._returned.pop(visit.id, None)
        if not returned:
            return
        short = self._attributor.cart(visit.members).short
        for gtin, pieces in returned.items():
            if pieces > short.get(gtin, 0):
                self._given[visit.id][gtin] -= pieces - short.get(gtin, 0)
                self._doubtful(visit.id, 0.5, Reason(ReasonKind.RETURN_UNCLEAR, gtin=gtin))

    def _claim(self, visit: Visit, others: Sequence[Visit], seen: Sighted) -> None:
        """Whether the people in a zone hold what was seen on them; if not, who gave it to them."""
        there = [one for one in (visit, *others) if one.id in seen.visits]
        if len(there) < len(seen.visits):
            return  # The first of them to be billed has settled this.
        missing = seen.quantity - sum(self._held(one).items.get(seen.gtin, 0) for one in there)
        if missing <= 0:
            return
        holders = [
            one for one in others if one.id not in seen.visits and self._held(one).items.get(seen.gtin, 0) >= missing
        ]
        if holders and self.store.carts.hand_over == "picker":
            return
        if len(holders) == 1 and len(there) == 1:
            self._give(holders[0].id, visit.id, seen.gtin, missing, seen.probability)
            return
        reason = Reason(
            ReasonKind.SIGHTING_AMBIGUOUS if holders else ReasonKind.SIGHTING_NOT_HELD,
            gtin=seen.gtin,
            quantity=seen.quantity,
            probability=seen.probability,
            zone=seen.zone,
            source=seen.source,
            sighting=seen.kind,
        )
        for one in there:
            self._doubtful(one.id, 1.0 - seen.probability, reason)


def _concerning(visit: Visit, beliefs: Sequence[EventBelief]) -> list[EventBelief]:
    """The events that may be a visit's, least clear first."""
    found = []
    for event in beliefs:
        mine = sum(one.probability for one in event.candidates if one.person in visit.members)
        if mine >= CONCERNS_MIN:
            found.append((max(event.candidates[0].probability, event.nothing), event.event_id, event))
    return [event for _, _, event in sorted(found, key=lambda item: item[:2])]
