"""A cabinet: a door, trays that weigh, and one customer after another who reaches in.

Each opening is a visit: a credential, the door, hands that take, put back (also on a wrong tray), lean and touch, a
child's hand beside them, and the door again, which shakes everything. Between customers an employee refills. The plates
are of the cheap kind, one converter of ten samples a second each, and are otherwise as bad as those of a shop.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.observations import DoorState, GateScan, Observation
from fusion.simulation.events import Handling, Load, Log, Movement, Scan, Visit
from fusion.simulation.goods import Piece, Resting, ShelfMap, Stock
from fusion.simulation.run import Simulation
from fusion.simulation.scales import Scales
from fusion.simulation.scenario import TAIL_S, Scenario
from fusion.simulation.truth import EventTruth, VisitTruth
from fusion.store.models import Store

CHUNK_S = 8.0
# Samples that a controller collects before it sends them.
SAMPLES = 5
# A converter of ten samples a second weighs all the time, and reports the mean since the sample before.
SUBSAMPLES = 6
FIRST_OPENING_S = 6.0
# A tray is refilled once it has this few pieces of a product that belongs there.
REFILL_BELOW = 2
# Openings that begin within this time are planned.
_AHEAD_S = 60.0


class CabinetScales(Scales):
    """Plates whose converters average over the time between two samples."""

    def _signal(self, times_s: NDArray[np.float64], plates: NDArray[np.int64]) -> NDArray[np.float64]:
        back_s = np.arange(SUBSAMPLES - 1, -1, -1) / (SUBSAMPLES * self.rate_hz)
        fine = super()._signal((times_s[:, None] - back_s).ravel(), plates)
        averaged: NDArray[np.float64] = fine.reshape(len(times_s), SUBSAMPLES, -1).mean(axis=1)
        return averaged


class _Door(NamedTuple):
    """A door moves: when, and whether it is open then."""

    t_s: float
    gate: str
    is_open: bool


class _Held(NamedTuple):
    """A piece in a customer's hands, and where it came from."""

    piece: Piece
    origin: int


@dataclass
class _Basket:
    """What a customer has taken so far, and what they will put back when."""

    held: list[_Held] = field(default_factory=list)
    doubted: list[tuple[float, _Held]] = field(default_factory=list)

    def pieces(self) -> dict[str, int]:
        return dict(Counter(one.piece.gtin for one in self.held))


class CabinetSimulation(Simulation):
    """One run of customers at a store whose gates are doors of cabinets. `shoppers` of the scenario are openings.

    They come one after another to the first door, in as many minutes as that takes. `children` of them bring a child
    whose hand reaches in beside theirs; with `staff`, an employee refills trays between two of them.
    """

    def __init__(self, store: Store, scenario: Scenario) -> None:
        """Prepare a run.

        Raises:
            ValueError: a store with other gates than doors, or with cameras: people are not simulated here.
        """
        if not store.behind_doors or len(store.behind_doors) != len(store.gate) or store.cameras:
            raise ValueError("want a store with gates of kind cabinet alone and without cameras")
        super().__init__(store, scenario)

    def _chunks(self) -> Iterator[tuple[int | None, list[Observation]]]:
        s = self.scenario
        day = _Day(self.store, s)
        scales = CabinetScales(self.store, day.shelves, s, SAMPLES)
        start_s = 0.0
        while True:
            stop_s = start_s + CHUNK_S
            day.plan(stop_s + _AHEAD_S)
            known_s = stop_s + 1.0
            for t_s, duration_s, strength in day.shakes(known_s):
                scales.shake(t_s, duration_s, strength, day.shaking)
            scales.add(day.log.loads.drain(known_s), day.log.handlings.drain(known_s))
            observations: list[Observation] = list(scales.readings(stop_s, s.start_ns))
            for scan in day.log.scans.drain(stop_s):
                observations.append(GateScan(self._ns(scan.t_s), scan.gate, scan.kind, scan.account))
            for door in day.doors_before(stop_s):
                observations.append(DoorState(self._ns(door.t_s), door.gate, door.is_open))
            self._keep(day, stop_s)
            start_s = stop_s
            yield self._ns(stop_s - 1.0), observations
            if day.ends_s is not None and start_s > max(day.ends_s + 2.0 * TAIL_S, s.duration_s):
                break
        yield None, []

    def _keep(self, day: _Day, until_s: float) -> None:
        names = [plate.plate for plate in self.store.plates]
        for move in day.log.movements.drain(until_s):
            t_ns = self._ns(move.t_s)
            self.truth.events.append(EventTruth(t_ns, names[move.plate], move.gtin, move.quantity, move.account or ""))
        over = [visit for visit in day.log.visits if visit.exit_s < until_s]
        day.log.visits = [visit for visit in day.log.visits if visit.exit_s >= until_s]
        for visit in over:
            times = self._ns(visit.enter_s), self._ns(visit.exit_s)
            self.truth.visits.append(VisitTruth(visit.account, *times, visit.items))


class _Day:
    """What happens at the cabinet, planned an opening at a time.

    Attributes:
        shelves: the plates.
        log: what happens, to be drained.
        shaking: random numbers of shocks.
        ends_s: when the last customer has left; None before that is known.
    """

    def __init__(self, store: Store, scenario: Scenario) -> None:
        self.shelves = ShelfMap(store)
        self.log = Log()
        self.shaking = scenario.random("door shocks")
        self.ends_s: float | None = None
        self._store, self._scenario = store, scenario
        self._stock = Stock(store, self.shelves, scenario)
        self._random = scenario.random("openings")
        self._gate = next(iter(store.behind_doors))
        behind = store.behind_doors[self._gate]
        self._plates = [i for i, plate in enumerate(store.plates) if plate.plate in behind]
        self._doors: list[_Door] = []
        self._shakes: list[tuple[float, float, float]] = []
        self._accounts = accounts(scenario)
        self._next_s = FIRST_OPENING_S
        self._n_opened = 0

    # ---- what has been planned ---------------------------------------------------------------------------------------

    def doors_before(self, until_s: float) -> list[_Door]:
        """Remove and return the movements of doors before a time."""
        due = [door for door in self._doors if door.t_s < until_s]
        self._doors = [door for door in self._doors if door.t_s >= until_s]
        return due

    def shakes(self, until_s: float) -> list[tuple[float, float, float]]:
        """Remove and return the shocks before a time: when, for how long and how strong."""
        due = [shake for shake in self._shakes if shake[0] < until_s]
        self._shakes = [shake for shake in self._shakes if shake[0] >= until_s]
        return due

    def plan(self, until_s: float) -> None:
        """Plan all openings that begin before a time."""
        while self.ends_s is None and self._next_s < until_s:
            if self._n_opened == len(self._accounts):
                self.ends_s = self._next_s
                return
            if self._scenario.staff and self._low():
                self._refill()
            account = self._accounts[self._n_opened]
            self._opening(account, with_child=self._n_opened < self._scenario.children)
            self._n_opened += 1

    # ---- one opening -------------------------------------------------------------------------------------------------

    def _open(self, kind: str, account: str) -> float:
        """A credential is shown and the door opens; when hands can reach in."""
        random = self._random
        scan_s = self._next_s
        open_s = scan_s + float(random.uniform(0.6, 3.0))
        self.log.scans.add(scan_s, Scan(scan_s, self._gate, kind, account))
        self._doors.append(_Door(open_s, self._gate, True))
        self._shakes.append((open_s - 0.1, float(random.uniform(0.3, 0.6)), 0.4))
        return open_s

    def _close(self, last_s: float) -> float:
        """The door falls shut after the last hand has left; when."""
        random = self._random
        close_s = last_s + float(random.uniform(0.4, 3.0))
        self._doors.append(_Door(close_s, self._gate, False))
        self._shakes.append((close_s - 0.05, float(random.uniform(0.4, 1.0)), float(random.uniform(0.5, 1.5))))
        self._next_s = close_s + float(random.uniform(2.0, 15.0))
        return close_s

    def _opening(self, account: str, with_child: bool) -> None:
        random, scenario = self._random, self._scenario
        open_s = self._open("account", account)
        now_s = open_s + float(random.uniform(0.5, 2.5))
        basket = _Basket()
        picks = 0 if random.random() < scenario.empty_handed_probability else 1 + int(
            random.poisson(max(scenario.picks_per_person - 1.0, 0.0))
        )
        while picks or basket.doubted:
            due = [doubt for doubt in basket.doubted if doubt[0] <= now_s or not picks]
            if due:
                basket.doubted.remove(due[0])
                now_s = self._put_back(now_s, account, basket, due[0][1])
            else:
                picks -= 1
                now_s = self._pick(now_s, account, basket)
            now_s += float(random.gamma(1.5, 0.7))
        if with_child:
            now_s = max(now_s, self._child(open_s + 0.5, now_s, account))
        close_s = self._close(now_s)
        self.log.visits.append(Visit(account, open_s, close_s, basket.pieces()))

    def _pick(self, now_s: float, account: str, basket: _Basket) -> float:
        """Touch a tray or not, then take pieces of one product, perhaps with both hands; when that is over."""
        random, scenario = self._random, self._scenario
        plate = self._full_plate()
        if plate < 0:
            return now_s
        if random.random() < scenario.touch_probability:
            now_s = self._touch(now_s, plate) + float(random.uniform(0.0, 0.4))
        end_s = self._take(now_s, plate, account, basket)
        if random.random() < 0.08:
            # The other hand at the same time.
            other = self._full_plate()
            if other >= 0 and other != plate:
                end_s = max(end_s, self._take(now_s + float(random.uniform(0.0, 0.5)), other, account, basket))
        elif random.random() < scenario.second_grip_probability:
            end_s = self._take(end_s + float(random.uniform(0.3, 0.8)), plate, account, basket)
        return end_s

    def _take(self, now_s: float, plate: int, account: str, basket: _Basket) -> float:
        random, scenario = self._random, self._scenario
        goods = self._stock.goods_on(plate)
        if not goods:
            return now_s
        gtin = goods[int(random.integers(len(goods)))]
        light = self._stock.products[gtin].weight_g < 600.0
        n = 2 if light and random.random() < scenario.two_piece_probability else 1
        lying = self._stock.take(plate, gtin, n, random)
        held = [_Held(resting.piece, plate) for resting in lying]
        end_s = self._grip(now_s, plate, lying, -1, account)
        basket.held += held
        if held and random.random() < scenario.put_back_probability:
            basket.doubted.append((end_s + float(random.lognormal(math.log(5.0), 0.9)), held[0]))
        return end_s

    def _put_back(self, now_s: float, account: str, basket: _Basket, held: _Held) -> float:
        random, plate = self._random, held.origin
        if random.random() < self._scenario.wrong_place_probability:
            plate = self._plates[int(random.integers(len(self._plates)))]
        basket.held.remove(held)
        return self._grip(now_s, plate, [self._stock.lay(held.piece, plate)], 1, account)

    def _grip(self, now_s: float, plate: int, lying: list[Resting], sign: int, account: str) -> float:
        """A hand at a plate, and what comes or goes meanwhile; when it has left."""
        random = self._random
        hold_s = float(np.clip(random.lognormal(math.log(0.45), 0.45), 0.2, 2.5))
        share = float(random.uniform(0.45, 0.85) if sign < 0 else random.uniform(0.15, 0.5))
        if random.random() < self._scenario.odd_reach_probability:
            # Held on its tray while the customer thinks or reads.
            hold_s, share = float(random.uniform(2.0, 6.0)), 0.9 if sign < 0 else 0.1
        contact_s = now_s + share * hold_s
        loads: defaultdict[int, float] = defaultdict(float)
        for resting in lying:
            for bearing, grams in resting.loads():
                loads[bearing] += sign * grams
        self._handle(now_s, now_s + hold_s + 0.1, plate, float(random.normal(0.0, 25.0)))
        self.log.loads.add(contact_s, Load(contact_s, tuple(sorted(loads.items()))))
        gtin = lying[0].piece.gtin
        self.log.movements.add(contact_s, Movement(contact_s, plate, gtin, sign * len(lying), account))
        return now_s + hold_s

    def _touch(self, now_s: float, plate: int) -> float:
        """Press a tray, or lean on it."""
        random = self._random
        lean = random.random() < 0.2
        hold_s = float(random.uniform(2.0, 8.0)) if lean else float(random.uniform(0.3, 1.2))
        self._handle(now_s, now_s + hold_s, plate, float(random.uniform(50.0, 600.0) if lean else random.normal(0, 60)))
        return now_s + hold_s

    def _child(self, from_s: float, until_s: float, account: str) -> float:
        """A small hand reaches in and out beside the other: light touches, now and then a piece that it drops again."""
        random, now_s = self._random, from_s
        heights_m = self.shelves.centres_m[self._plates, 2]
        low = [plate for plate, z_m in zip(self._plates, heights_m) if z_m <= np.median(heights_m)]
        for _ in range(int(random.integers(1, 6))):
            now_s = float(random.uniform(from_s, max(until_s, from_s + 1.0)))
            plate = low[int(random.integers(len(low)))]
            goods = self._stock.goods_on(plate)
            if goods and random.random() < 0.15:
                (lying,) = self._stock.take(plate, goods[0], 1, random)
                end_s = self._grip(now_s, plate, [lying], -1, account) + float(random.uniform(0.5, 3.0))
                end_s = self._grip(end_s, plate, [self._stock.lay(lying.piece, plate)], 1, account)
            else:
                end_s = now_s + float(random.uniform(0.1, 0.6))
                self._handle(now_s, end_s, plate, abs(float(random.normal(0.0, 30.0))))
            until_s = max(until_s, end_s)
        return until_s

    def _handle(self, start_s: float, end_s: float, plate: int, press_g: float) -> None:
        self.log.handlings.add(start_s, Handling(start_s, end_s, plate, press_g))

    def _full_plate(self) -> int:
        full = [plate for plate in self._plates if any(self._stock.on[plate].values())]
        return full[int(self._random.integers(len(full)))] if full else -1

    # ---- staff -------------------------------------------------------------------------------------------------------

    def _low(self) -> bool:
        """Whether a tray has hardly any pieces of a product that belongs there."""
        return any(self._stock.count(plate, gtin) < REFILL_BELOW for plate, gtin, _ in self._stock.facings)

    def _refill(self) -> None:
        """An employee fills the trays up, two pieces at a time, and tidies away what lies on a wrong one."""
        random, stock = self._random, self._stock
        now_s = self._open("staff", "staff-1") + 1.0
        for plate, gtin in stock.misplaced():
            for resting in stock.take(plate, gtin, stock.count(plate, gtin), random):
                now_s = self._grip(now_s, plate, [resting], -1, "staff-1") + float(random.uniform(0.5, 1.5))
        for plate, gtin, wanted in stock.facings:
            missing = wanted - stock.count(plate, gtin)
            while missing > 0 and stock.count(plate, gtin) < max(wanted // 2 + 1, REFILL_BELOW):
                pieces = [stock.lay(stock.new_piece(gtin), plate) for _ in range(min(missing, 2))]
                now_s = self._grip(now_s, plate, pieces, 1, "staff-1") + float(random.uniform(0.4, 1.2))
                missing -= len(pieces)
        self._close(now_s)


def arrivals(store: Store, scenario: Scenario) -> list[tuple[str, bool, float]]:
    """Who shows a credential in a run: account, whether they are staff, and when, seconds after the start."""
    day = _Day(store, scenario)
    day.plan(math.inf)
    return [(scan.account, scan.kind == "staff", scan.t_s) for scan in day.log.scans.drain(math.inf)]


def accounts(scenario: Scenario) -> list[str]:
    """The accounts of a run's customers, in the order in which they come."""
    random, letters = scenario.random("accounts"), list("abcdefghijkmnpqrstuvwxyz23456789")
    names: dict[str, None] = {}
    while len(names) < scenario.shoppers:
        names["acc-" + "".join(random.choice(letters, 7))] = None
    return list(names)
