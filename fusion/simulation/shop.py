"""The shop as the people in it find it: floor, shelves, stock, who is there, the time, and the log of what happens."""

from __future__ import annotations

from fusion.simulation.events import Log
from fusion.simulation.floor import FloorPlan
from fusion.simulation.goods import ShelfMap, Stock
from fusion.simulation.person import Person
from fusion.simulation.scenario import Scenario
from fusion.store.models import Store


class Shop:
    """The shop at the present tick.

    Attributes:
        shelves, stock, floor: which plates there are, what lies on them, where people can walk.
        present: the people in sight, in order of arrival.
        queues: the people who wait before each entry, by the gate's id, the first in front.
        now_s: the time of the present tick.
        log: what has happened and what is about to.
    """

    def __init__(self, store: Store, scenario: Scenario) -> None:
        self.store, self.scenario = store, scenario
        self.shelves = ShelfMap(store)
        self.stock = Stock(store, self.shelves, scenario)
        self.floor = FloorPlan(store)
        self.present: list[Person] = []
        self.queues: dict[str, list[Person]] = {}
        self.now_s = 0.0
        self.log = Log()

    def time_for(self, person: Person, errand_s: float = 14.0) -> bool:
        """Whether a person has time for another errand before they have to leave."""
        goal = person.exit.at(0.5) if person.exit is not None else person.position
        walk_s = self.floor.walk_m(person.position, goal) / (0.6 * person.pace_mps)
        queue_s = 0.8 * len(self.present)
        return self.now_s + errand_s + walk_s + queue_s + 12.0 < person.deadline_s

    def is_free(self, person: Person) -> bool:
        """Whether a person is present and no other person holds them up."""
        return person in self.present and person.frozen_until_s <= self.now_s
