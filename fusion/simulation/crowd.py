"""The people of a run, tick by tick: who appears, what each does next, how they move, when a visit is over.

Everyone follows a script, a generator that is resumed once a tick; then the movement of all is computed together, so
that people walk around one another and around the shelves. Nothing here knows of cameras or scales.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fusion.simulation import body
from fusion.simulation.arrivals import invite
from fusion.simulation.doors import come_in, leave
from fusion.simulation.events import Visit
from fusion.simulation.motion import move_people
from fusion.simulation.person import Person
from fusion.simulation.scenario import Scenario
from fusion.simulation.shop import Shop
from fusion.simulation.shopping import go_shopping
from fusion.simulation.staff import work
from fusion.simulation.ticks import TICK_S, States, Tick
from fusion.store.models import Store


class Crowd:
    """The people of a run, advanced tick by tick.

    Attributes:
        shop: the shop that they are in; its log holds what has happened, to be drained by the reader.
        people: all who will ever come, by number.
        ticks: recent ticks, oldest first; `forget` drops old ones.
    """

    def __init__(self, store: Store, scenario: Scenario) -> None:
        self.shop = Shop(store, scenario)
        self.people = invite(scenario, self.shop.floor)
        self.ticks: deque[Tick] = deque()
        self._waiting = deque(sorted(self.people, key=lambda person: (person.arrival_s, person.number)))
        self._n_ticks = 0
        self._antenna = scenario.random("exit antenna")

    @property
    def now_s(self) -> float:
        """The time of the newest tick."""
        return (self._n_ticks - 1) * TICK_S

    @property
    def empty(self) -> bool:
        """Whether everyone has come and gone."""
        return not self._waiting and not self.shop.present

    def advance(self, until_s: float) -> None:
        """Run until the newest tick is not older than until_s."""
        while self.now_s < until_s:
            self._step()

    def forget(self, before_s: float) -> None:
        """Drop ticks that are not needed for times from before_s on."""
        while len(self.ticks) > 1 and self.ticks[1].t_s < before_s:
            self.ticks.popleft()

    def joints_m(self, states: States) -> NDArray[np.float64]:
        """(n_times, n_people, joints, 3) world metres of all `body.JOINTS`."""
        stature_m = np.array([self.people[number].stature_m for number in states.numbers.tolist()])
        n_times, n_people, n_channels = states.states.shape
        flat = body.joints_m(states.states.reshape(-1, n_channels), np.tile(stature_m, n_times))
        return flat.reshape(n_times, n_people, len(body.JOINTS), 3)

    def _step(self) -> None:
        self._n_ticks += 1
        shop = self.shop
        shop.now_s = self.now_s
        self._let_appear()
        gone = []
        for person in shop.present:
            person.desired = np.zeros(2)
            if person.frozen_until_s > shop.now_s:
                continue
            try:
                next(person.script)
            except StopIteration:
                gone.append(person)
        for person in gone:
            shop.present.remove(person)
            self._close(person)
        move_people(shop)
        numbers = np.array([person.number for person in shop.present], np.int64)
        states = np.array([person.pose for person in shop.present]).reshape(-1, len(body.CHANNELS))
        self.ticks.append(Tick(shop.now_s, numbers, states))

    def _let_appear(self) -> None:
        """Let those come into sight who are due, one after another while their place is free."""
        shop = self.shop
        while self._waiting and self._waiting[0].arrival_s <= shop.now_s:
            person = self._waiting[0]
            spot = self._spot_to_appear(person)
            if any(math.dist(spot, other.position) < 0.6 for other in shop.present):
                break
            self._waiting.popleft()
            person.position = spot
            if person.entry is not None:
                person.yaw = math.atan2(person.entry.inward[1], person.entry.inward[0])
                shop.queues.setdefault(person.entry.gate.id, []).append(person)
            person.script = self._script(person)
            shop.present.append(person)

    def _spot_to_appear(self, person: Person) -> NDArray[np.float64]:
        if person.entry is None:
            return self.shop.floor.edge_point(person.random)
        queue = self.shop.queues.get(person.entry.gate.id, ())
        return person.entry.at(-max(2.0, 0.9 + 0.65 * len(queue)), person.lane)

    def _script(self, person: Person) -> Iterator[None]:
        if person.entry is not None:
            yield from come_in(self.shop, person, person.entry)
        person.confined = True
        if person.role == "staff":
            yield from work(self.shop, person)
        else:
            yield from go_shopping(self.shop, person)
        yield from leave(self.shop, person, self._antenna)

    def _close(self, person: Person) -> None:
        """A person is out of sight; with the last of a group the visit is over."""
        shop = self.shop
        person.gone = True
        if person.entry is not None and person in shop.queues.get(person.entry.gate.id, ()):
            shop.queues[person.entry.gate.id].remove(person)
        if person.left_s is None:
            person.left_s = shop.now_s
        if person.entered_s is None:
            person.entered_s = person.arrival_s
        if not shop.store.gate or not person.has_visit:
            return
        members = person.group or [person]
        if not all(member.gone for member in members):
            return
        items = Counter(held.piece.gtin for member in members for held in member.basket)
        enter_s = min(member.entered_s for member in members if member.entered_s is not None)
        exit_s = max(member.left_s for member in members if member.left_s is not None)
        shop.log.visits.append(Visit(person.account, enter_s, exit_s, dict(sorted(items.items()))))
