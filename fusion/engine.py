"""The one place that wires the stages together: observations in, typed results out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from fusion.attribution import ArmHistory, Attributor, EventBelief, EventCandidate
from fusion.config import Store
from fusion.errors import JournalError, OrderError, ShapeError
from fusion.journal import OUTSIDE, UNKNOWN, Account, Journal, Transfer
from fusion.observations import Frame, GateScan, ItemSighting, Observation, Reorder, ShelfReading
from fusion.results import (
    Candidate,
    PersonEntered,
    Picked,
    PutBack,
    Receipt,
    ReceiptLine,
    Result,
    ShelfEventExplained,
)
from fusion.shelves import ShelfEvent, ShelfMonitor
from fusion.tracks import Tracker
from fusion.visits import Visit, Visits

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


def _floats(name: str, array: object, shape: tuple[int, ...]) -> np.ndarray:
    """The array as C-contiguous float32, itself where it is that already; -1 in a shape stands for any length."""
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        got = f"{array.dtype} array" if isinstance(array, np.ndarray) else type(array).__name__
        raise ShapeError(f"{name}: want an array of floats, got {got}")
    if array.ndim != len(shape) or any(want not in (-1, have) for want, have in zip(shape, array.shape)):
        wanted = ", ".join("n" if want == -1 else str(want) for want in shape)
        raise ShapeError(f"{name}: want ({wanted}{',' if len(shape) == 1 else ''}), got {array.shape}")
    return np.ascontiguousarray(array, np.float32)


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
    People, PersonEntered, Picked, PutBack, PersonLeft, ShelfEventExplained, Receipt, Warning.

        engine = Engine(Store.load("store"))
        for observation in source:              # Frame, ShelfReading, GateScan, ItemSighting
            for result in engine.feed(observation):
                print(result)
        for result in engine.close(): ...

    Nothing is shared between engines. One engine belongs to one thread at a time. Memory is bounded.

    Attributes:
        store: as loaded.
        journal: every transfer of goods between shelves and carts so far.
    """

    def __init__(self, store: Store, stopwatch_ns: Callable[[], int] | None = None) -> None:
        """Make an engine, with every kernel compiled and called once.

        Args:
            store: the store folder's contents.
            stopwatch_ns: a clock such as time.perf_counter_ns with which to time the steps; it has no other influence.
        """
        self.store = store
        self.journal = Journal()
        self.step_times = StepTimes()
        self._stopwatch_ns = stopwatch_ns
        self._reorder = Reorder(LATENESS_MAX_S)
        self._tracker = Tracker(store)
        self._history = ArmHistory(store.layout)
        self._monitor = ShelfMonitor(store)
        self._attributor = Attributor(store)
        self._visits = Visits(store)
        self._products = {product.gtin: product for product in store.products}
        self._cameras = {camera.name for camera in store.cameras}
        self._plates = {plate.plate for plate in store.plates}
        self._keypoints_shape = (store.layout.n_joints, 3)
        self._frames: dict[str, Frame] = {}
        self._readings: list[ShelfReading] = []
        self._scans: list[GateScan] = []
        self._window_ns: int | None = None
        self._now_ns = 0
        self._closed = self._closing = False
        self._plate_m = np.array([(plate.x, plate.y) for plate in store.plates]).reshape(-1, 2)
        self._ignored: Counter[str] = Counter()

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
        return replace(receipt, issued_ns=t_ns, status="settled", reason=None, total=total, lines=lines)

    def account_of(self, track_id: int) -> str | None:
        """Account of a person's visit as known now; None for staff, for unknown people and for somebody long gone."""
        return self._visits.account_of(track_id)

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
            for moved in self._visits.step(people):
                if isinstance(moved, PersonEntered):
                    if moved.staff:
                        self._attributor.set_staff(moved.track_id)
                    elif moved.visit is not None:
                        self._attributor.join(moved.track_id, moved.visit)
                results.append(moved)
            results.append(people)
        for event in self._monitor.step(self._readings, now_ns):
            self._observe(event, results)
        results += self._monitor.warnings()
        self._attributor.watch(self._monitor.unheard, self._history, now_ns)
        self._finish_visits(now_ns - round(SETTLE_S * 1e9), results)
        self._frames.clear()
        self._readings.clear()
        self._scans.clear()
        self._window_ns = None
        if self._stopwatch_ns:
            self.step_times.add(self._stopwatch_ns() - started_ns)

    # ---- goods -------------------------------------------------------------------------------------------------------

    def _observe(self, event: ShelfEvent, results: list[Result]) -> None:
        belief = self._attributor.observe(event, self._history)
        if not belief.candidates or belief.candidates[0].probability < belief.nothing:
            return
        best = self._candidate(belief.candidates[0])
        kind = Picked if best.quantity < 0 else PutBack
        quantity = abs(best.quantity)
        results.append(kind(belief.t_ns, belief.plate, best.gtin, quantity, best.account, best.visit, best.probability))

    def _candidate(self, candidate: EventCandidate) -> Candidate:
        person = candidate.person
        account = self._visits.account_of(person) if person is not None else None
        visit = self._visits.visit_of(person) if person is not None else None
        return Candidate(account, candidate.gtin, candidate.quantity, candidate.probability, visit)

    def _explained(self, belief: EventBelief) -> ShelfEventExplained:
        """What is final about an event; the goods move in the journal."""
        candidates = tuple(self._candidate(candidate) for candidate in belief.candidates)
        if candidates and candidates[0].probability >= belief.nothing:
            best = candidates[0]
            key = f"{self.store.id}/{belief.plate}/{belief.t_ns}/{belief.event_id}"
            person = belief.candidates[0].person
            nobody = OUTSIDE if person is not None and self._visits.is_staff(person) else UNKNOWN
            holder = ("cart", best.visit) if best.visit else nobody
            self._move(key, belief.t_ns, ("shelf", belief.plate), holder, best.gtin, -best.quantity)
        return ShelfEventExplained(belief.t_ns, belief.plate, belief.delta_g, candidates)

    def _move(self, key: str, t_ns: int, giver: Account, taker: Account, gtin: str, quantity: int) -> None:
        """Record that goods moved; a negative quantity moves them the other way."""
        if quantity < 0:
            giver, taker, quantity = taker, giver, -quantity
        self.journal.append(Transfer(key, t_ns, debit=taker, credit=giver, gtin=gtin, quantity=quantity))

    # ---- receipts ----------------------------------------------------------------------------------------------------

    def _finish_visits(self, until_ns: int, results: list[Result]) -> None:
        for visit in self._visits.finished(until_ns, self._waits):
            receipt, explained = self._receipt(visit)
            results += explained
            results.append(receipt)

    def _waits(self, visit: Visit) -> bool:
        """Whether something may still be told of the shelves that is this visit's."""
        since_exit_s = (self._now_ns - (visit.exit_ns or 0)) * 1e-9
        if self._closing or since_exit_s > UNDECIDED_MAX_S:
            return False
        return any(
            self._history.was_near(visit.members, self._plate_m[plate], UNDECIDED_NEAR_M, since_ns)
            for plate, since_ns in self._monitor.undecided()
        )

    def _receipt(self, visit: Visit) -> tuple[Receipt, Iterable[ShelfEventExplained]]:
        belief = self._attributor.cart(visit.members)
        explained = [self._explained(event) for event in self._attributor.settle(visit.members)]
        # The cart is the balance of its account. Where the best joint explanation is not the sum of each event's own
        # best, the journal says so by a transfer of its own.
        cart: Account = ("cart", visit.id)
        settled = self.journal.balance(cart)
        exit_ns = visit.exit_ns or self._now_ns
        for gtin in sorted(settled.keys() | belief.items.keys()):
            difference = belief.items.get(gtin, 0) - settled.get(gtin, 0)
            if difference:
                self._move(f"{visit.id}/joint/{gtin}", exit_ns, UNKNOWN, cart, gtin, difference)
        lines = tuple(
            ReceiptLine(gtin, quantity, self._products[gtin].price, belief.confidence[gtin])
            for gtin, quantity in sorted(self.journal.balance(cart).items())
        )
        right = belief.probability * visit.identity
        reasons = list(visit.doubts)
        if visit.account is None:
            reasons.insert(0, "no credential")
        if right < 1.0 - self.store.review.receipt_error_max:
            reasons += list(belief.reasons) or ["not sure enough who took what"]
        receipt = Receipt(
            visit=visit.id,
            account=visit.account,
            enter_ns=visit.enter_ns,
            exit_ns=exit_ns,
            issued_ns=max(self._reorder.newest_ns or 0, self._now_ns),
            status="review" if reasons else "settled",
            reason="; ".join(dict.fromkeys(reasons)) or None,
            currency=self.store.currency,
            total=sum(line.quantity * line.unit_price for line in lines),
            lines=lines,
        )
        return receipt, explained
