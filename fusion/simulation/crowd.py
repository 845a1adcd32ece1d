"""Who is in the shop and what they do: people come in, walk, reach for goods, put some back, meet, and leave.

Everybody follows a script (a generator that is resumed once a tick); movement of all is then computed together, so that
people walk around one another and around the shelves. Nothing here knows of cameras or scales.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fusion.simulation import body
from fusion.simulation.body import CHANNEL
from fusion.simulation.floor import FloorPlan, Passage
from fusion.simulation.goods import Piece, Resting, ShelfMap, Stock
from fusion.simulation.scenario import GATE_HEADWAY_S, Scenario
from fusion.store.models import Store
from fusion.store.shapes import inside_polygon

TICK_S = 0.1
# People who are late leave within this time before the run's end; the run waits for stragglers no longer than that.
TAIL_S = 4.0
OVERTIME_S = 180.0
# No arm is raised faster than this, so what a hand will do is registered at least this long before. A weight message
# that begins now needs to know what happens until its last sample.
REGISTERED_AHEAD_S = 0.4

_BODY_GAP_M = 0.40  # between the axes of two people who pass
_SQUEEZE_GAP_M = 0.26  # and of two who turn their shoulders because nothing else helps


@dataclass(frozen=True, slots=True)
class Load:
    """Mass that leaves plates or meets them at one instant."""

    t_s: float
    plates: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Handling:
    """A hand at a plate: shakes it and its shelf from start to end; `press_g` is the force of a push or a lean."""

    start_s: float
    end_s: float
    plate: int
    press_g: float


@dataclass(frozen=True, slots=True)
class Scan:
    t_s: float
    gate: str
    kind: str
    account: str


@dataclass(frozen=True, slots=True)
class Movement:
    """A row of truth/events.csv: quantity negative when taken. account: None for somebody unscanned."""

    t_s: float
    plate: int
    gtin: str
    quantity: int
    account: str | None


@dataclass(slots=True)
class Held:
    piece: Piece
    origin: int


@dataclass(slots=True)
class Meeting:
    """Two people who reach at the same shelf at the same time."""

    expected: int = 2
    ready: int = 0


@dataclass(slots=True, eq=False)
class Person:
    number: int
    role: str  # shopper, companion, child, tailgater, staff
    account: str | None
    arrival_s: float
    deadline_s: float
    stature_m: float
    pace_mps: float
    hand: str
    random: np.random.Generator
    group: list[Person]
    picks: int
    entry: Passage | None = None
    exit: Passage | None = None
    lane: float = 0.0  # beside the middle of a gate, as a share of its half width
    script: Iterator[None] = field(default_factory=lambda: iter(()))
    position: np.ndarray = field(default_factory=lambda: np.zeros(2))
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    desired: np.ndarray = field(default_factory=lambda: np.zeros(2))
    face: float | None = None
    yaw: float = 0.0
    anchored: bool = False
    confined: bool = False  # keeps clear of the gates' doors
    leaving: bool = False
    blocked_s: float = 0.0
    standing: np.ndarray | None = None  # the place claimed at a shelf
    going_for: int = -1  # plate that the person is on the way to
    meeting: Meeting | None = None
    frozen_until_s: float = -1.0
    carrying_until_s: float = -1.0
    carrying_hand: str = "r"
    basket: list[Held] = field(default_factory=list)
    pose: np.ndarray = field(default_factory=lambda: np.zeros(len(body.CHANNELS)))
    entered_s: float | None = None
    left_s: float | None = None
    gone: bool = False

    @property
    def has_visit(self) -> bool:
        return self.role != "staff"


@dataclass(frozen=True, slots=True)
class Tick:
    """Everybody at one instant: numbers (n,), states (n, channels)."""

    t_s: float
    numbers: np.ndarray
    states: np.ndarray


@dataclass(frozen=True, slots=True)
class TagRead:
    """The antenna at an exit reads the tag of one piece."""

    t_s: float
    gate: str
    gtin: str


@dataclass(frozen=True, slots=True)
class Visit:
    account: str | None
    enter_s: float
    exit_s: float
    items: dict[str, int]


class Crowd:
    """The people of a run, advanced tick by tick.

    Attributes:
        people: all who will ever come, by number.
        ticks: recent ticks, oldest first; `forget` drops old ones.
        loads, handlings, scans, movements, reads, visits: what has happened, to be drained by the reader. Loads and
            handlings are registered at least REGISTERED_AHEAD_S before they take effect.
    """

    def __init__(self, store: Store, scenario: Scenario) -> None:
        self.store, self.scenario = store, scenario
        self.shelves = ShelfMap(store)
        self.stock = Stock(store, self.shelves, scenario)
        self.floor = FloorPlan(store)
        self.people = self._invite()
        self._waiting = deque(sorted(self.people, key=lambda p: (p.arrival_s, p.number)))
        self.active: list[Person] = []
        self._queues: dict[str, list[Person]] = {}
        self._n_ticks = 0
        self.ticks: deque[Tick] = deque()
        self.loads: list[tuple[float, int, Load]] = []
        self.handlings: list[tuple[float, int, Handling]] = []
        self.scans: list[tuple[float, int, Scan]] = []
        self.movements: list[tuple[float, int, Movement]] = []
        self.reads: list[tuple[float, int, TagRead]] = []
        self._reader = scenario.random("exit antenna")
        self.visits: list[Visit] = []
        self._count = 0
        self._pay = [zone.polygon for zone in store.zone if zone.kind == "payment"]

    @property
    def now_s(self) -> float:
        return (self._n_ticks - 1) * TICK_S

    @property
    def empty(self) -> bool:
        return not self._waiting and not self.active

    # ---- who comes, and when ----------------------------------------------------------------------------------------

    def _invite(self) -> list[Person]:
        s = self.scenario
        plan = s.random("plan")
        duration_s = s.duration_s
        visit_s = 32.0 + 10.0 * s.picks_per_person
        last_s = max(0.12 * duration_s, duration_s - visit_s - TAIL_S)
        slots = (np.arange(s.shoppers) + plan.uniform(0.0, 0.6, s.shoppers)) / max(s.shoppers, 1)
        heads = [("shopper", i, 1.5 + float(at) * (last_s - 1.5)) for i, at in enumerate(slots)]
        followers = [
            (role, int(plan.integers(s.shoppers)) if s.shoppers else -1)
            for role, n in (("companion", s.companions), ("child", s.children), ("tailgater", s.tailgaters))
            for _ in range(n)
        ]
        arrivals: list[tuple[str, int, float]] = []
        for role, family, at in heads:
            arrivals.append((role, family, at))
            # Families come in together; whoever slips in does so right behind one of them.
            members = [r for r, f in followers if f == family]
            arrivals += [(r, family, at + 0.01 * (k + 1)) for k, r in enumerate(members)]
        arrivals += [(r, -1, float(plan.uniform(1.5, last_s))) for r, f in followers if f < 0]
        arrivals += [("staff", -1, float(plan.uniform(1.0, 0.5 * duration_s))) for _ in range(s.staff)]
        arrivals.sort(key=lambda arrival: arrival[2])
        letters = list("abcdefghijkmnpqrstuvwxyz23456789")
        tokens = ["".join(plan.choice(letters, 7)) for _ in range(s.shoppers + s.staff)]
        people: list[Person] = []
        groups: dict[int, list[Person]] = {}
        n_staff, free_s = 0, 0.0
        entry_of: dict[int, int] = {}
        for number, (role, family, wanted_s) in enumerate(arrivals):
            random = s.random("person", str(number))
            arrival_s = max(wanted_s, free_s)
            free_s = arrival_s + GATE_HEADWAY_S * 0.8
            account: str | None = None
            if role == "staff":
                account = f"staff-{tokens[s.shoppers + n_staff]}"
                n_staff += 1
            elif role != "tailgater" and family >= 0:
                account = f"acc-{tokens[family]}"
            stature = {"child": random.uniform(1.0, 1.3)}.get(role, float(np.clip(random.normal(1.70, 0.1), 1.45, 2.0)))
            mean = s.picks_per_person * {"child": 0.3, "companion": 0.6}.get(role, 1.0)
            picks = 0 if random.random() < s.empty_handed_probability else 1 + int(random.poisson(max(mean - 1.0, 0.0)))
            if role == "child" and random.random() < 0.5:
                picks = 0
            person = Person(
                number=number,
                role=role,
                account=account,
                arrival_s=arrival_s,
                deadline_s=duration_s - TAIL_S,
                stature_m=float(stature),
                pace_mps=float(np.clip(random.normal(1.15, 0.15), 0.8, 1.5)),
                hand="r" if random.random() < 0.85 else "l",
                random=random,
                group=[],
                picks=picks,
                lane=float(random.uniform(-0.35, 0.35)),
            )
            if account is not None and role != "staff":
                person.group = groups.setdefault(family, person.group)
                person.group.append(person)
            if self.floor.entries:
                gate = entry_of.setdefault(family, int(plan.integers(len(self.floor.entries)))) if family >= 0 else 0
                person.entry = self.floor.entries[gate]
            if self.floor.exits:
                person.exit = self.floor.exits[int(plan.integers(len(self.floor.exits)))]
            if not self.store.gate:
                person.account = None  # without gates there are people and goods but no visits
            people.append(person)
        return people

    # ---- time -------------------------------------------------------------------------------------------------------

    def advance(self, until_s: float) -> None:
        """Run until the newest tick is not older than until_s."""
        while self.now_s < until_s:
            self._step()

    def forget(self, before_s: float) -> None:
        """Drop ticks that nobody needs any more."""
        while len(self.ticks) > 1 and self.ticks[1].t_s < before_s:
            self.ticks.popleft()

    def _step(self) -> None:
        self._n_ticks += 1
        now_s = self.now_s
        while self._waiting and self._waiting[0].arrival_s <= now_s:
            person = self._waiting[0]
            spot = self._spot_to_appear(person)
            if any(math.dist(spot, other.position) < 0.6 for other in self.active):
                break
            self._waiting.popleft()
            person.position = spot
            if person.entry is not None:
                person.yaw = math.atan2(person.entry.inward[1], person.entry.inward[0])
                self._queues.setdefault(person.entry.gate.id, []).append(person)
            person.script = self._script(person)
            self.active.append(person)
        gone = []
        for person in self.active:
            person.desired = np.zeros(2)
            if person.frozen_until_s > now_s:
                continue
            try:
                next(person.script)
            except StopIteration:
                gone.append(person)
        for person in gone:
            self.active.remove(person)
            self._close(person)
        self._move()
        numbers = np.array([p.number for p in self.active], np.int64)
        states = np.array([p.pose for p in self.active]).reshape(-1, len(body.CHANNELS))
        self.ticks.append(Tick(now_s, numbers, states))

    def _spot_to_appear(self, p: Person) -> np.ndarray:
        if p.entry is not None:
            queue = self._queues.get(p.entry.gate.id, ())
            away = max(2.0, 0.9 + 0.65 * len(queue))
            return p.entry.at(-away, p.lane)
        return self._edge_point(p)

    def _edge_point(self, p: Person) -> np.ndarray:
        """Somewhere at the floor's rim, where a store without gates lets people appear and vanish."""
        points = self.floor.open_points
        corners = np.array(self.store.floor)
        rim = np.minimum(points - corners.min(axis=0), corners.max(axis=0) - points).min(axis=1)
        near = np.flatnonzero(rim <= rim.min() + 0.4)
        return points[near[int(p.random.integers(len(near)))]].copy()

    def _close(self, p: Person) -> None:
        """Somebody is out of sight; with the last of a group its visit is over."""
        p.gone = True
        if p.entry is not None and p in self._queues.get(p.entry.gate.id, ()):
            self._queues[p.entry.gate.id].remove(p)
        if p.left_s is None:
            p.left_s = self.now_s
        if p.entered_s is None:
            p.entered_s = p.arrival_s
        if not self.store.gate or not p.has_visit:
            return
        members = p.group or [p]
        if not all(member.gone for member in members):
            return
        items = Counter(held.piece.gtin for member in members for held in member.basket)
        enter_s = min(member.entered_s for member in members if member.entered_s is not None)
        exit_s = max(member.left_s for member in members if member.left_s is not None)
        self.visits.append(Visit(p.account, enter_s, exit_s, dict(sorted(items.items()))))

    def _register(self, heap: list[Any], t_s: float, what: object) -> None:
        self._count += 1
        heapq.heappush(heap, (t_s, self._count, what))

    # ---- scripts ----------------------------------------------------------------------------------------------------

    def _script(self, p: Person) -> Iterator[None]:
        if p.entry is not None:
            yield from self._come_in(p)
        p.confined = True
        if p.role == "staff":
            yield from self._work(p)
        else:
            yield from self._shop(p)
        yield from self._leave(p)

    def _come_in(self, p: Person) -> Iterator[None]:
        gate = p.entry
        assert gate is not None
        queue = self._queues[gate.gate.id]
        scanned_s = None
        while True:
            place = queue.index(p)
            spot = gate.at(-0.75 - 0.65 * place, p.lane)
            self._head_for(p, spot, p.pace_mps)
            p.face = math.atan2(gate.inward[1], gate.inward[0])
            if place == 0 and (p.role == "tailgater" or math.dist(spot, p.position) < 0.2):
                break
            yield
        if p.role != "tailgater" and tuple(gate.gate.credentials) != ("open",) and p.account is not None:
            pause_s = float(p.random.uniform(0.5, 1.3))
            scanned_s = self.now_s + 0.7 * pause_s
            kind = "staff" if p.role == "staff" else "account"
            self._register(self.scans, scanned_s, Scan(scanned_s, gate.gate.id, kind, p.account))
            p.pose[CHANNEL["head_pitch"]] = 0.5
            reader = gate.at(-0.25) + 0.35 * np.array([gate.inward[1], -gate.inward[0]])
            yield from self._reach_out(p, reader, 1.0, pause_s)
            p.pose[CHANNEL["head_pitch"]] = 0.0
        else:
            p.account = p.account if p.role == "staff" else None
        p.face = None
        inside = gate.at(0.6, p.lane)
        for _ in range(150):
            self._head_for(p, inside, p.pace_mps, brake=False)
            if math.dist(inside, p.position) < 0.35:
                break
            if float((p.position - gate.middle) @ gate.inward) > 0.25 and p in queue:
                queue.remove(p)
            yield
        if p in queue:
            queue.remove(p)
        if p.entered_s is None:
            p.entered_s = self.now_s

    def _shop(self, p: Person) -> Iterator[None]:
        s = self.scenario
        to_return: list[tuple[float, Held]] = []
        picks = p.picks
        if picks == 0:
            for _ in range(int(p.random.integers(1, 4))):
                if self._time_for(p):
                    yield from self._walk(p, self.floor.random_point(p.random), within_m=0.4)
                    yield from self._look_around(p, float(p.random.uniform(0.5, 3.0)))
            return
        tries = 0
        while (picks > 0 or to_return) and self._time_for(p) and tries < 4 * p.picks + 8:
            tries += 1
            due = [entry for entry in to_return if entry[0] <= self.now_s or picks == 0]
            if due:
                to_return.remove(due[0])
                if due[0][1] in p.basket:
                    yield from self._put_back(p, due[0][1])
                continue
            taken: list[Held] = []
            yield from self._take(p, taken)
            if not taken:
                yield from self._look_around(p, 0.5)
                continue
            picks -= 1
            if p.random.random() < s.put_back_probability:
                # People hold what they doubt for some five seconds (median of the labelled recordings).
                to_return.append((self.now_s + float(p.random.lognormal(math.log(5.0), 0.9)), taken[0]))
            elif len(p.group) > 1 and p.random.random() < s.hand_over_probability:
                yield from self._hand_over(p, taken)

    def _work(self, p: Person) -> Iterator[None]:
        """Restock what has run low, bring misplaced goods home."""
        for _ in range(int(p.random.integers(3, 7))):
            if not self._time_for(p):
                return
            strays = self.stock.misplaced()
            if strays and p.random.random() < 0.7:
                plate, gtin = strays[int(p.random.integers(len(strays)))]
                if not (yield from self._go_to_shelf(p, plate)):
                    continue
                lying = self.stock.take(plate, gtin, 1, p.random)
                if not lying:
                    continue
                yield from self._grip(p, plate, lying, -1)
                homes = [home for home in self.stock.home[gtin] if len(self.floor.stands[home])]
                home = homes[int(p.random.integers(len(homes)))] if homes else plate
                arrived = home == plate or (yield from self._go_to_shelf(p, home))
                # Whoever cannot get there takes the thing to the back room.
                if arrived:
                    yield from self._grip(p, home, [self.stock.lay(lying[0].piece, home)], +1)
                continue
            low = sorted(self.stock.facings, key=lambda f: (self.stock.count(f[0], f[1]) / max(f[2], 1), f[0], f[1]))
            low = [f for f in low if len(self.floor.stands[f[0]])][:8]
            if not low:
                return
            plate, gtin, _ = low[int(p.random.integers(len(low)))]
            if not (yield from self._go_to_shelf(p, plate)):
                continue
            for _ in range(int(p.random.integers(1, 4))):
                n = int(p.random.integers(1, 3))
                capacity_g = self.store.plates[plate].capacity_g - self.stock.load_g(plate)
                if capacity_g < 2.5 * n * self.stock.products[gtin].weight_g:
                    break
                pieces = [self.stock.lay(self.stock.new_piece(gtin), plate) for _ in range(n)]
                yield from self._grip(p, plate, pieces, +1)
            p.standing = None

    def _leave(self, p: Person) -> Iterator[None]:
        p.standing, p.going_for = None, -1
        if p.has_visit and self._pay and p.role != "tailgater":
            polygon = self._pay[int(p.random.integers(len(self._pay)))]
            corners = np.array(polygon)
            for _ in range(20):
                spot = p.random.uniform(corners.min(axis=0), corners.max(axis=0))
                if inside_polygon(polygon, *spot) and self.floor.is_open(spot):
                    if self._time_for(p, errand_s=3.0):
                        yield from self._walk(p, spot, within_m=0.3, patience_s=4.0)
                        yield from self._look_around(p, float(p.random.uniform(1.0, 3.0)), down=True)
                    break
        if p.exit is None:
            goal = self._edge_point(p)
            yield from self._walk(p, goal, within_m=0.4, patience_s=30.0)
            return
        gate = p.exit
        start = self.floor.nearest_open(gate.at(0.5, p.lane))
        for _ in range(20):
            if (yield from self._walk(p, start, within_m=0.35, patience_s=5.0)):
                break
        p.confined, p.leaving = False, True
        self._read_tags(p, gate.gate.id)
        if tuple(gate.gate.credentials) != ("open",) and p.account is not None:
            kind = "staff" if p.role == "staff" else "account"
            self._register(self.scans, self.now_s, Scan(self.now_s, gate.gate.id, kind, p.account))
        for away in (-0.5, -1.9):
            for _ in range(100):
                self._head_for(p, gate.at(away, p.lane), p.pace_mps, brake=False)
                if float((p.position - gate.at(away)) @ gate.inward) < 0.15:
                    break
                yield

    # ---- errands ----------------------------------------------------------------------------------------------------

    def _time_for(self, p: Person, errand_s: float = 14.0) -> bool:
        """Whether there is time for another errand before the person has to leave."""
        goal = p.exit.at(0.5) if p.exit is not None else p.position
        walk_s = self.floor.walk_m(p.position, goal) / (0.6 * p.pace_mps)
        queue_s = 0.8 * len(self.active)
        return self.now_s + errand_s + walk_s + queue_s + 12.0 < p.deadline_s

    def _take(self, p: Person, taken: list[Held]) -> Iterator[None]:
        s = self.scenario
        plate = self._choose_plate(p)
        if plate < 0 or not (yield from self._go_to_shelf(p, plate)):
            return
        if p.meeting is not None:
            meeting, p.meeting = p.meeting, None
            meeting.ready += 1
            waited = 0
            while meeting.ready < meeting.expected and waited < 60:
                waited += 1
                yield
            yield from self._pause(p, float(p.random.uniform(0.0, 0.5)))
        else:
            yield from self._look_around(p, float(p.random.gamma(1.5, 0.6)))
        if p.random.random() < s.touch_probability:
            yield from self._touch(p, plate)
        goods = self.stock.goods_on(plate)
        if not goods:
            return
        gtin = goods[int(p.random.integers(len(goods)))]
        grips = 1
        while p.random.random() < s.second_grip_probability and grips < 3:
            grips += 1
        for _ in range(grips):
            # Two bottles of a litre and a half do not go into one hand.
            light = self.stock.products[gtin].weight_g < 600.0
            n = 2 if light and p.random.random() < s.two_piece_probability else 1
            lying = self.stock.take(plate, gtin, n, p.random)
            if not lying:
                break
            yield from self._grip(p, plate, lying, -1)
            held = [Held(resting.piece, plate) for resting in lying]
            p.basket += held
            taken += held
        p.standing = None

    def _choose_plate(self, p: Person) -> int:
        """A plate with goods that can be reached, rather near than far; or beside where somebody else is heading."""
        full = [i for i, stands in enumerate(self.floor.stands) if len(stands) and any(self.stock.on[i].values())]
        if not full:
            return -1
        centres = self.shelves.centres_m[full]
        others = [q for q in self.active if q is not p and q.going_for >= 0 and q.meeting is None and q.role != "staff"]
        if others and p.random.random() < self.scenario.neighbour_probability:
            other = others[int(p.random.integers(len(others)))]
            gap = np.linalg.norm(centres - self.shelves.centres_m[other.going_for], axis=1)
            same_side = self.shelves.backs[full] @ self.shelves.backs[other.going_for] > 0.9
            near = [full[i] for i in np.flatnonzero((gap < 0.7) & same_side)]
            if near:
                p.meeting = other.meeting = Meeting()
                return near[int(p.random.integers(len(near)))]
        distance_m = np.linalg.norm(centres[:, :2] - p.position, axis=1)
        # The lowest and highest shelves are used half as often (labelled recordings, by shelf level).
        awkward = (centres[:, 2] < 0.45) | (centres[:, 2] > p.stature_m)
        weight = (np.exp(-distance_m / 2.5) + 0.1) * np.where(awkward, 0.5, 1.0)
        return full[int(p.random.choice(len(full), p=weight / weight.sum()))]

    def _put_back(self, p: Person, held: Held) -> Iterator[None]:
        plate = held.origin
        wrong = p.random.random() < self.scenario.wrong_place_probability
        if wrong:
            gap = np.linalg.norm(self.shelves.centres_m - self.shelves.centres_m[held.origin], axis=1)
            home = self.stock.home[held.piece.gtin]
            away = [i for i in np.argsort(gap).tolist() if i not in home and len(self.floor.stands[i])]
            near = away[:6] if p.random.random() < 0.5 else away
            if near:
                plate = near[int(p.random.integers(len(near)))]
        room_g = self.store.plates[plate].capacity_g - self.stock.load_g(plate)
        if room_g < 2.0 * held.piece.weight_g or not (yield from self._go_to_shelf(p, plate)):
            return
        yield from self._look_around(p, float(p.random.gamma(1.5, 0.3)))
        p.basket.remove(held)
        yield from self._grip(p, plate, [self.stock.lay(held.piece, plate)], +1)
        p.standing = None

    def _touch(self, p: Person, plate: int) -> Iterator[None]:
        """Press, nudge or lean on a plate nearby and take nothing."""
        near = [plate, *self.shelves.beside[plate]]
        chosen = near[int(p.random.integers(len(near)))]
        lean = p.random.random() < 0.2
        hold_s = float(p.random.uniform(2.0, 8.0)) if lean else float(p.random.uniform(0.3, 1.2))
        press_g = float(p.random.uniform(50.0, 600.0)) if lean else float(p.random.normal(0.0, 60.0))
        yield from self._reach_plate(p, chosen, hold_s, press_g)

    def _grip(self, p: Person, plate: int, lying: list[Resting], sign: int) -> Iterator[None]:
        """Reach to a plate; the pieces leave it (sign -1) or come to lie on it (+1) while the hand is there."""
        hold_s = float(np.clip(p.random.lognormal(math.log(0.45), 0.45), 0.2, 2.5))
        # Hands close on a thing before they lift it; what is put down is let go later.
        share = float(p.random.uniform(0.45, 0.85) if sign < 0 else p.random.uniform(0.15, 0.5))
        loads: defaultdict[int, float] = defaultdict(float)
        for resting in lying:
            for bearing, grams in resting.loads():
                loads[bearing] += sign * grams

        def on_contact(contact_s: float) -> None:
            self._register(self.loads, contact_s, Load(contact_s, tuple(sorted(loads.items()))))
            gtin, n = lying[0].piece.gtin, len(lying)
            self._register(self.movements, contact_s, Movement(contact_s, plate, gtin, sign * n, p.account))

        odd = self.scenario.odd_reach_probability
        usual_hand = p.hand
        if odd and p.random.random() < odd:
            if p.random.random() < 0.5:
                p.hand = "l" if p.hand == "r" else "r"
            else:
                # Held on its plate while somebody thinks or reads: the hand is there long before the load goes.
                hold_s, share = float(p.random.uniform(2.0, 6.0)), 0.9 if sign < 0 else 0.1
        if sign > 0:
            p.carrying_hand, p.carrying_until_s = p.hand, self.now_s + 3.0
        yield from self._reach_plate(p, plate, hold_s, float(p.random.normal(0.0, 25.0)), on_contact, share)
        if sign < 0:
            p.carrying_hand = p.hand
            p.carrying_until_s = self.now_s + float(p.random.uniform(1.0, 6.0))
        else:
            p.carrying_until_s = -1.0
        p.hand = usual_hand

    def _reach_plate(
        self,
        p: Person,
        plate: int,
        hold_s: float,
        press_g: float,
        on_contact: Callable[[float], None] | None = None,
        share: float = 0.5,
    ) -> Iterator[None]:
        """Turn to a plate and hold a hand to it; on_contact learns the instant, `share` into the hold."""
        shelves = self.shelves
        width, depth = shelves.width_m[plate], shelves.depth_m[plate]
        aside = float(p.random.uniform(-0.35, 0.35)) * width
        deep = -0.5 * depth + float(p.random.uniform(0.04, 0.6)) * min(depth, 0.45)
        spot = shelves.centres_m[plate, :2] + aside * shelves.across[plate] + deep * shelves.backs[plate]
        height = float(shelves.centres_m[plate, 2] + p.random.uniform(0.03, 0.14))
        p.anchored = True
        p.face = math.atan2(*(spot - p.position)[::-1])
        for _ in range(25):
            if abs(body.turn(p.face - p.yaw)) < 0.2:
                break
            yield
        raise_s = float(p.random.uniform(0.45, 0.9)) + (0.3 if height < 0.6 else 0.0)
        touch_s = self.now_s + 0.95 * raise_s
        end_s = self.now_s + raise_s + hold_s
        self._register(self.handlings, touch_s, Handling(touch_s, end_s + 0.1, plate, press_g))
        if on_contact is not None:
            on_contact(self.now_s + raise_s + share * hold_s)
        yield from self._reach_out(p, spot, height, hold_s, raise_s)
        p.anchored, p.face = False, None

    def _reach_out(
        self, p: Person, spot: np.ndarray, height_m: float, hold_s: float, raise_s: float = 0.4
    ) -> Iterator[None]:
        """Stretch the arm to a point, stay there, draw it back."""
        pose, hand = p.pose, p.hand
        sign = 1.0 if hand == "l" else -1.0
        aside = 0.7 * body.SHOULDER_HALF * p.stature_m
        distance = math.dist(spot, p.position)
        crouch, lean = body.posture(p.stature_m, distance, height_m, aside)
        lower_s = float(p.random.uniform(0.4, 0.8)) + (0.3 if crouch > 0.05 else 0.0)
        pose[[CHANNEL["tx"], CHANNEL["ty"], CHANNEL["tz"]]] = spot[0], spot[1], height_m
        start_s = self.now_s
        twist = -sign * 0.35
        while True:
            t = self.now_s - start_s
            if t <= raise_s:
                w = _ease(t / raise_s)
            elif t <= raise_s + hold_s:
                w = 1.0
            else:
                w = _ease(1.0 - (t - raise_s - hold_s) / lower_s)
            pose[CHANNEL[f"reach_{hand}"]] = w
            pose[CHANNEL["crouch"]], pose[CHANNEL["lean"]], pose[CHANNEL["twist"]] = w * crouch, w * lean, w * twist
            if t > raise_s + hold_s + lower_s:
                return
            yield

    def _hand_over(self, p: Person, things: list[Held]) -> Iterator[None]:
        """Bring things to a companion and pass them on, one hand meeting the other."""
        mates = [q for q in p.group if q is not p and q in self.active and q.confined and not q.leaving]
        if not mates:
            return
        mate = mates[int(p.random.integers(len(mates)))]
        for _ in range(120):
            gap = math.dist(mate.position, p.position)
            if gap < 0.8 or not self._time_for(p, 6.0):
                break
            waypoint = self.floor.path(p.position, self.floor.nearest_open(mate.position))[0]
            self._head_for(p, waypoint if gap > 1.2 else mate.position, p.pace_mps, brake=gap < 1.0)
            yield
        for _ in range(50):
            if not mate.anchored:
                break
            p.face = math.atan2(*(mate.position - p.position)[::-1])
            yield
        gap = math.dist(mate.position, p.position)
        p.face = None
        if gap > 0.95 or mate.anchored or mate.leaving or mate not in self.active or mate.frozen_until_s > self.now_s:
            return
        mate.frozen_until_s = self.now_s + 1.6
        was_facing = mate.face
        middle = 0.5 * (mate.position + p.position)
        p.anchored = mate.anchored = True
        p.face = math.atan2(*(middle - p.position)[::-1])
        mate.face = math.atan2(*(middle - mate.position)[::-1])
        height = 0.62 * min(p.stature_m, mate.stature_m)
        place = [CHANNEL["tx"], CHANNEL["ty"], CHANNEL["tz"]]
        for k in range(15):
            w = _ease(min(k, 14 - k) / 5.0)
            for q in (p, mate):
                q.pose[place] = middle[0], middle[1], height
                q.pose[CHANNEL[f"reach_{q.hand}"]] = w
            yield
        for q in (p, mate):
            q.pose[CHANNEL[f"reach_{q.hand}"]] = 0.0
            q.anchored = False
        p.face, mate.face = None, was_facing
        for thing in things:
            if thing in p.basket:
                p.basket.remove(thing)
                mate.basket.append(thing)
        mate.carrying_hand, mate.carrying_until_s = mate.hand, self.now_s + 3.0
        p.carrying_until_s = -1.0

    # ---- moving about -----------------------------------------------------------------------------------------------

    def _go_to_shelf(self, p: Person, plate: int) -> Generator[None, None, bool]:
        """Walk to where a plate can be reached; returns whether that worked."""
        p.standing = None
        spot = self._claim(p, plate)
        if spot is None:
            self._cancel(p)
            return False
        p.standing, p.going_for = spot, plate
        arrived = yield from self._walk(p, spot, within_m=0.08, patience_s=5.0)
        p.going_for = -1
        if not arrived:
            p.standing = None
            self._cancel(p)
        return arrived

    def _cancel(self, p: Person) -> None:
        if p.meeting is not None:
            p.meeting.expected = 1
            p.meeting = None

    def _claim(self, p: Person, plate: int) -> np.ndarray | None:
        """A free place at a shelf, the better ones first; None while others stand there."""
        stands = self.floor.stands[plate]
        taken = [q.standing for q in self.active if q is not p and q.standing is not None]
        taken += [q.position for q in self.active if q is not p and q.anchored]
        free = [s for s in stands if all(math.dist(s, other) >= 0.45 for other in taken)]
        if not free:
            return None
        odd = self.scenario.odd_reach_probability
        if odd and p.random.random() < odd:
            # From where one happens to stand: beside the plate, at arm's length, past whoever is in front of it.
            return free[int(p.random.integers(len(free)))]
        # Not everybody stands right in front: the first few places are all good.
        return free[min(int(p.random.geometric(0.45)) - 1, len(free) - 1)]

    def _walk(
        self, p: Person, goal: np.ndarray, within_m: float, patience_s: float = 6.0
    ) -> Generator[None, None, bool]:
        """Walk to a point around everything in the way; returns False when others block it for too long."""
        path = deque(self.floor.path(p.position, goal))
        waited_s, planned_s = 0.0, self.now_s
        p.blocked_s = 0.0
        while True:
            while len(path) > 1 and math.dist(path[0], p.position) < 0.3:
                path.popleft()
            gap = math.dist(path[-1], p.position)
            if gap < within_m and len(path) == 1:
                p.desired = np.zeros(2)
                return True
            if p.blocked_s > 0.0:
                waited_s += TICK_S
                if waited_s > patience_s:
                    return gap < 0.3
                if p.blocked_s > 1.0 and self.now_s - planned_s > 1.0:
                    path, planned_s = deque(self.floor.path(p.position, goal)), self.now_s
            self._head_for(p, path[0], p.pace_mps, brake=len(path) == 1)
            yield

    def _head_for(self, p: Person, point: np.ndarray, pace_mps: float, brake: bool = True) -> None:
        offset = point - p.position
        distance = math.hypot(*offset)
        speed = min(pace_mps, 2.0 * distance) if brake else pace_mps
        p.desired = offset * (speed / distance) if distance > 0.02 else np.zeros(2)

    def _pause(self, p: Person, seconds: float) -> Iterator[None]:
        for _ in range(round(seconds / TICK_S)):
            yield

    def _look_around(self, p: Person, seconds: float, down: bool = False) -> Iterator[None]:
        if p.standing is not None and p.going_for < 0:
            nearest = int(np.argmin(((self.shelves.centres_m[:, :2] - p.position) ** 2).sum(axis=1)))
            p.face = math.atan2(*(self.shelves.centres_m[nearest, :2] - p.position)[::-1])
        p.pose[CHANNEL["head_pitch"]] = 0.5 if down else float(p.random.uniform(-0.2, 0.5))
        p.pose[CHANNEL["head_yaw"]] = float(p.random.uniform(-0.5, 0.5))
        yield from self._pause(p, seconds)
        p.pose[CHANNEL["head_pitch"]] = p.pose[CHANNEL["head_yaw"]] = 0.0
        p.face = None

    def _move(self) -> None:
        """One tick of everybody's movement: towards where they want to be, around each other, not through shelves."""
        people = self.active
        if not people:
            return
        place = np.array([p.position for p in people])
        wanted = np.array([p.desired for p in people])
        velocity = np.array([p.velocity for p in people])
        fixed = np.array([p.anchored for p in people])
        squeezing = np.array([p.blocked_s > 1.2 for p in people])
        if len(people) > 1:
            wanted = _give_way(place, wanted, fixed, squeezing)
        change = wanted - velocity
        size = np.hypot(change[:, 0], change[:, 1])
        velocity = velocity + change * np.minimum(1.0, 4.0 * TICK_S / np.maximum(size, 1e-9))[:, None]
        velocity[fixed] = 0.0
        target = place + velocity * TICK_S
        if len(people) > 1:
            target = _separate(target, fixed, squeezing)
        for i, p in enumerate(people):
            new = self._keep_off_shelves(p, place[i], target[i])
            self._cross_gates(p, place[i], new)
            p.velocity = (new - place[i]) / TICK_S
            p.position = new
            speed = math.hypot(*p.velocity)
            eager = math.hypot(*p.desired)
            stuck = eager > 0.3 and speed < 0.3 * eager
            p.blocked_s = p.blocked_s + TICK_S if stuck else max(0.0, p.blocked_s - 2 * TICK_S)
            self._pose(p, speed)

    def _keep_off_shelves(self, p: Person, old: np.ndarray, new: np.ndarray) -> np.ndarray:
        allowed = self.floor.shopping if p.confined else self.floor.passable
        if allowed[self.floor.cell(new)]:
            return new
        for slid in (np.array([new[0], old[1]]), np.array([old[0], new[1]])):
            if allowed[self.floor.cell(slid)]:
                return slid
        if allowed[self.floor.cell(old)]:
            return old
        # Pushed to where nobody may be: let go towards the open floor.
        step = self.floor.nearest_open(old) - old
        return old + step * min(1.0, 0.1 / max(math.hypot(*step), 1e-9))

    def _cross_gates(self, p: Person, old: np.ndarray, new: np.ndarray) -> None:
        for passage in self.floor.passages:
            crossed = passage.crossing(old, new)
            if crossed is None:
                continue
            t_s = self.now_s - TICK_S + crossed[0] * TICK_S
            if crossed[1] > 0 and p.entered_s is None:
                p.entered_s = t_s
            elif crossed[1] < 0 and p.leaving:
                p.left_s = t_s

    def _read_tags(self, p: Person, gate: str) -> None:
        share = self.scenario.exit_read_probability
        for held in p.basket if share else ():
            if self._reader.random() < share:
                self._register(self.reads, self.now_s, TagRead(self.now_s, gate, held.piece.gtin))

    def _pose(self, p: Person, speed: float) -> None:
        """Heading, gait and arms follow from the movement."""
        if p.face is not None and (p.anchored or speed < 0.4):
            aim: float | None = p.face
        else:
            aim = math.atan2(p.velocity[1], p.velocity[0]) if speed > 0.2 else None
        if aim is not None:
            p.yaw += float(np.clip(body.turn(aim - p.yaw), -4.0 * TICK_S, 4.0 * TICK_S))
        pose = p.pose
        stride = 0.19 * math.sqrt(min(speed / 1.2, 1.4)) if speed > 0.05 else 0.0
        pose[CHANNEL["stride"]] += 0.5 * (stride - pose[CHANNEL["stride"]])
        if speed > 0.05:
            step_m = 2.0 * max(pose[CHANNEL["stride"]], 0.04) * p.stature_m
            pose[CHANNEL["phase"]] += math.pi * speed * TICK_S / step_m
        for side in ("l", "r"):
            holds = p.carrying_hand == side and self.now_s < p.carrying_until_s
            carry = pose[CHANNEL[f"carry_{side}"]]
            pose[CHANNEL[f"carry_{side}"]] = carry + float(np.clip(float(holds) - carry, -0.25, 0.25))
        pose[CHANNEL["x"]], pose[CHANNEL["y"]] = p.position
        pose[CHANNEL["vx"]], pose[CHANNEL["vy"]] = p.velocity
        pose[CHANNEL["yaw"]] = p.yaw


def _ease(share: float) -> float:
    """0 to 1 with the smooth speed of a hand (minimum jerk; Flash & Hogan 1985)."""
    s = min(max(share, 0.0), 1.0)
    return s * s * s * (10.0 - 15.0 * s + 6.0 * s * s)


def _give_way(place: np.ndarray, wanted: np.ndarray, fixed: np.ndarray, squeezing: np.ndarray) -> np.ndarray:
    """Slow down behind others and step around those in the way."""
    offset = place[None] - place[:, None]
    distance = np.hypot(offset[..., 0], offset[..., 1])
    np.fill_diagonal(distance, np.inf)
    speed = np.hypot(wanted[:, 0], wanted[:, 1])
    heading = wanted / np.maximum(speed, 1e-9)[:, None]
    ahead = np.einsum("ijk,ik->ij", offset, heading) / distance
    to_left = heading[:, None, 0] * offset[..., 1] - heading[:, None, 1] * offset[..., 0]
    in_way = (distance < 1.1) & (ahead > 0.5) & (np.abs(to_left) < 0.5) & (speed > 0.05)[:, None]
    room = np.where(in_way, np.clip((distance - 0.45) / 0.6, 0.0, 1.0), 1.0)
    nearest = np.argmin(np.where(in_way, distance, np.inf), axis=1)
    rows = np.arange(len(place))
    free = room.min(axis=1)
    # Whoever comes from ahead is passed on the right, somebody standing on the side where there is more room.
    side = np.where(to_left[rows, nearest] < -0.05, 1.0, -1.0)
    left = np.stack([-heading[:, 1], heading[:, 0]], -1)
    slowed = wanted * np.where(squeezing, np.maximum(free, 0.5), np.maximum(free, 0.1))[:, None]
    slowed += left * (side * (1.0 - free) * 0.7 * speed)[:, None]
    near = np.clip(0.6 - distance, 0.0, 0.6)
    push = -(offset / np.maximum(distance, 1e-6)[..., None] * near[..., None]).sum(axis=1)
    slowed += np.where(squeezing, 0.5, 1.5)[:, None] * push
    slowed[fixed] = 0.0
    return slowed


def _separate(place: np.ndarray, fixed: np.ndarray, squeezing: np.ndarray) -> np.ndarray:
    """Keep bodies apart. Somebody who reaches stays put and the other gives way."""
    gap_m = np.where(squeezing[:, None] | squeezing[None], _SQUEEZE_GAP_M, _BODY_GAP_M)
    for _ in range(3):
        offset = place[None] - place[:, None]
        distance = np.hypot(offset[..., 0], offset[..., 1])
        np.fill_diagonal(distance, np.inf)
        overlap = np.clip(gap_m - distance, 0.0, None)
        share = np.where(fixed[None], 1.0, 0.5) * ~fixed[:, None]
        place = place - (offset / np.maximum(distance, 1e-6)[..., None] * (overlap * share)[..., None]).sum(axis=1)
    return place
