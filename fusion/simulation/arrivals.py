"""Who comes to the shop and when: shoppers spread over the run, companions and tailgaters behind them, staff."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusion.simulation.floor import FloorPlan
from fusion.simulation.person import Person, Role
from fusion.simulation.scenario import GATE_HEADWAY_S, TAIL_S, Scenario


@dataclass(frozen=True)
class _Arrival:
    """A person's arrival; `family` is the number of the shopper they belong to or follow, -1 for none."""

    role: Role
    family: int
    wanted_s: float


def invite(scenario: Scenario, floor: FloorPlan) -> list[Person]:
    """Everyone who will ever come in a run, by number and in order of arrival."""
    plan = scenario.random("plan")
    arrivals = _arrivals(scenario, plan)
    letters = list("abcdefghijkmnpqrstuvwxyz23456789")
    tokens = ["".join(plan.choice(letters, 7)) for _ in range(scenario.shoppers + scenario.staff)]
    people: list[Person] = []
    groups: dict[int, list[Person]] = {}
    entry_of: dict[int, int] = {}
    n_staff, free_s = 0, 0.0
    for number, arrival in enumerate(arrivals):
        role, family = arrival.role, arrival.family
        arrival_s = max(arrival.wanted_s, free_s)
        free_s = arrival_s + GATE_HEADWAY_S * 0.8
        account: str | None = None
        if role == "staff":
            account = f"staff-{tokens[scenario.shoppers + n_staff]}"
            n_staff += 1
        elif role != "tailgater" and family >= 0:
            account = f"acc-{tokens[family]}"
        person = _person(number, role, account, arrival_s, scenario)
        if account is not None and role != "staff":
            person.group = groups.setdefault(family, person.group)
            person.group.append(person)
        if floor.entries:
            gate = entry_of.setdefault(family, int(plan.integers(len(floor.entries)))) if family >= 0 else 0
            person.entry = floor.entries[gate]
        if floor.exits:
            person.exit = floor.exits[int(plan.integers(len(floor.exits)))]
        if not floor.passages:
            person.account = None  # Without gates there are people and goods but no visits.
        people.append(person)
    return people


def _arrivals(scenario: Scenario, plan: np.random.Generator) -> list[_Arrival]:
    visit_s = 32.0 + 10.0 * scenario.picks_per_person
    last_s = max(0.12 * scenario.duration_s, scenario.duration_s - visit_s - TAIL_S)
    slots = (np.arange(scenario.shoppers) + plan.uniform(0.0, 0.6, scenario.shoppers)) / max(scenario.shoppers, 1)
    counts: tuple[tuple[Role, int], ...] = (
        ("companion", scenario.companions),
        ("child", scenario.children),
        ("tailgater", scenario.tailgaters),
    )
    followers = [
        (role, int(plan.integers(scenario.shoppers)) if scenario.shoppers else -1)
        for role, n in counts
        for _ in range(n)
    ]
    arrivals: list[_Arrival] = []
    for family, slot in enumerate(slots.tolist()):
        at_s = 1.5 + slot * (last_s - 1.5)
        arrivals.append(_Arrival("shopper", family, at_s))
        # Families come in together; tailgaters slip in right behind one of them.
        behind = [role for role, followed in followers if followed == family]
        arrivals += [_Arrival(role, family, at_s + 0.01 * (place + 1)) for place, role in enumerate(behind)]
    alone = [role for role, followed in followers if followed < 0]
    arrivals += [_Arrival(role, -1, float(plan.uniform(1.5, last_s))) for role in alone]
    staff_until_s = 0.5 * scenario.duration_s
    arrivals += [_Arrival("staff", -1, float(plan.uniform(1.0, staff_until_s))) for _ in range(scenario.staff)]
    return sorted(arrivals, key=lambda arrival: arrival.wanted_s)


def _person(number: int, role: Role, account: str | None, arrival_s: float, scenario: Scenario) -> Person:
    """A person with their own stature, pace and habits; every role makes the same draws."""
    random = scenario.random("person", str(number))
    child_m, adult_m = random.uniform(1.0, 1.3), float(np.clip(random.normal(1.70, 0.1), 1.45, 2.0))
    mean = scenario.picks_per_person * {"child": 0.3, "companion": 0.6}.get(role, 1.0)
    empty_handed = random.random() < scenario.empty_handed_probability
    picks = 0 if empty_handed else 1 + int(random.poisson(max(mean - 1.0, 0.0)))
    if role == "child" and random.random() < 0.5:
        picks = 0
    return Person(
        number=number,
        role=role,
        account=account,
        arrival_s=arrival_s,
        deadline_s=scenario.duration_s - TAIL_S,
        stature_m=float(child_m if role == "child" else adult_m),
        pace_mps=float(np.clip(random.normal(1.15, 0.15), 0.8, 1.5)),
        hand="r" if random.random() < 0.85 else "l",
        random=random,
        group=[],
        picks=picks,
        lane=float(random.uniform(-0.35, 0.35)),
    )
