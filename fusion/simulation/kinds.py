"""Which simulation fits a store, and who comes in it."""

from __future__ import annotations

from typing import NamedTuple

from fusion.simulation.cabinet import CabinetSimulation, arrivals
from fusion.simulation.crowd import Crowd
from fusion.simulation.run import Simulation
from fusion.simulation.scenario import Scenario
from fusion.store.models import Store


class Visitor(NamedTuple):
    """A person who comes.

    Attributes:
        account: that they show; None without a credential.
        is_staff: whether they work there.
        arrival_s: when they come, seconds after the start.
    """

    account: str | None
    is_staff: bool
    arrival_s: float


def simulation_of(store: Store, scenario: Scenario) -> Simulation:
    """The simulation of a store: of people who walk, or of hands that reach into a cabinet.

    Raises:
        ValueError: a store with a cabinet and other gates or cameras, which is not simulated.
    """
    return CabinetSimulation(store, scenario) if store.behind_doors else Simulation(store, scenario)


def visitors_of(store: Store, scenario: Scenario) -> list[Visitor]:
    """Everyone who comes in a run, in the order in which they do."""
    if store.behind_doors:
        return [Visitor(account, is_staff, t_s) for account, is_staff, t_s in arrivals(store, scenario)]
    people = Crowd(store, scenario).people
    return [Visitor(person.account, person.role == "staff", person.arrival_s) for person in people]
