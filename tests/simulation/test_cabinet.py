"""The simulated cabinet: a door, hands behind it, and a truth that its own loads add up to."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from fusion.example_stores.catalogue import store_folder
from fusion.observations import DoorState, GateScan, ShelfReading
from fusion.simulation import Scenario, demo_store
from fusion.simulation.cabinet import CabinetSimulation
from fusion.simulation.kinds import simulation_of, visitors_of
from fusion.store.models import Store

STORE = Store.load(store_folder("cabinet"))
SCENARIO = Scenario(
    seed=3, minutes=6.0, shoppers=10, children=2, staff=1, put_back_probability=0.5, wrong_place_probability=0.5,
    straddle_probability=0.0,
)  # fmt: skip


def test_openings_follow_each_other_and_the_truth_is_what_moved() -> None:
    simulation = CabinetSimulation(STORE, SCENARIO)
    observations = list(simulation.observations())
    assert [one.t_ns for one in observations] == sorted(one.t_ns for one in observations)
    doors = [one for one in observations if isinstance(one, DoorState)]
    scans = [one for one in observations if isinstance(one, GateScan)]
    assert [door.is_open for door in doors] == [True, False] * (len(doors) // 2)
    assert len(scans) * 2 == len(doors) and len(scans) >= 10
    taken: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for event in simulation.truth.events:
        taken[event.account][event.gtin] -= event.quantity
    assert len(simulation.truth.visits) == 10
    for visit in simulation.truth.visits:
        assert visit.account is not None
        assert Counter(visit.items) == +taken[visit.account]
        inside = [event.t_ns for event in simulation.truth.events if event.account == visit.account]
        assert all(visit.enter_ns <= t_ns <= visit.exit_ns for t_ns in inside)


def test_plates_report_ten_samples_a_second_and_two_runs_are_the_same() -> None:
    first, second = (list(CabinetSimulation(STORE, SCENARIO).observations()) for _ in range(2))
    weights = [one for one in first if isinstance(one, ShelfReading) and one.plate == "s1p1"]
    gaps_s = {round((b.t_ns - a.t_ns) * 1e-9, 1) for a, b in zip(weights, weights[1:])}
    assert gaps_s == {0.5} and {len(one.samples) for one in weights} == {5}
    assert [str(one) for one in first] == [str(one) for one in second]


def test_who_comes_is_known_before() -> None:
    visitors = visitors_of(STORE, SCENARIO)
    assert sum(not visitor.is_staff for visitor in visitors) == 10
    assert [visitor.arrival_s for visitor in visitors] == sorted(visitor.arrival_s for visitor in visitors)
    assert isinstance(simulation_of(STORE, SCENARIO), CabinetSimulation)
    with pytest.raises(ValueError, match="want a store with gates of kind cabinet alone and without cameras"):
        CabinetSimulation(demo_store(), SCENARIO)
