"""What happens in the shop adds up: people come, take, put back, hand over and leave."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from simulation.runs import SHORT, in_baskets, run, taken_from_shelves

from fusion.observations import GateScan
from fusion.simulation import Scenario, Simulation, demo_store


@pytest.mark.parametrize("seed", [1, 2])
def test_goods_add_up_in_a_busy_shop(store, seed):
    simulation, _ = run(
        store.model_copy(update={"cameras": ()}),
        seed=seed,
        minutes=1.6,
        shoppers=4,
        companions=2,
        children=1,
        tailgaters=1,
        staff=1,
        put_back_probability=0.5,
        wrong_place_probability=0.6,
        hand_over_probability=0.5,
        two_piece_probability=0.4,
        neighbour_probability=0.5,
    )
    truth = simulation.truth
    shoppers = {visit.account or "" for visit in truth.visits}
    staff = {event.account for event in truth.events} - shoppers
    assert all(token.startswith("staff-") for token in staff)
    taken = Counter({key: n for key, n in taken_from_shelves(truth).items() if key[0] not in staff})
    assert taken == in_baskets(truth)
    stock = Counter({(f.plate, f.gtin): f.stock for f in store.planogram})
    for event in truth.events:
        stock[event.plate, event.gtin] += event.quantity
        assert stock[event.plate, event.gtin] >= 0, event
    accounts = Counter(visit.account for visit in truth.visits)
    assert len(accounts) == 5 and set(accounts.values()) == {1}, "four shoppers and a tailgater"
    assert any(event.quantity > 0 and event.account in shoppers for event in truth.events)


def test_all_shoppers_scan_shop_and_leave_in_time(store, short):
    simulation, observations = short
    end_ns = SHORT.start_ns + round(SHORT.duration_s * 1e9)
    scans = {o.account: o.t_ns for o in observations if isinstance(o, GateScan)}
    assert len(simulation.truth.visits) == SHORT.shoppers == len(scans)
    for visit in simulation.truth.visits:
        assert scans[visit.account] < visit.enter_ns < visit.exit_ns <= end_ns
        inside = [e.t_ns for e in simulation.truth.events if e.account == visit.account]
        assert all(visit.enter_ns < t_ns < visit.exit_ns for t_ns in inside)
    assert sum(sum(visit.items.values()) for visit in simulation.truth.visits) > 0


def test_five_minutes_of_eight_shoppers_end_with_eight_visits():
    simulation = Simulation(demo_store(n_cameras=0, n_plates=24), Scenario(seed=3))
    for _ in simulation.observations():
        pass
    assert len(simulation.truth.visits) == 8
    assert max(v.exit_ns for v in simulation.truth.visits) <= simulation.scenario.start_ns + 300 * 10**9


def test_people_keep_off_shelves_and_each_other(store):
    simulation, _ = run(store.model_copy(update={"cameras": ()}), shoppers=6, minutes=1.5, neighbour_probability=0.6)
    for people in simulation.truth.people:
        x, y = people.position_m.T
        for x0, y0, x1, y1, _ in store.obstacle.boxes:
            assert not np.any((x > x0) & (x < x1) & (y > y0) & (y < y1))
        gaps = np.linalg.norm(people.position_m[:, None] - people.position_m[None], axis=-1)
        assert np.all(gaps[np.triu_indices(len(gaps), 1)] > 0.2)


def test_hands_are_at_the_plate_when_goods_move(store, short):
    simulation, _ = short
    centres = {plate.plate: np.array([plate.x, plate.y, plate.z]) for plate in store.plates}
    wrists = list(store.layout.indices("l_wrist", "r_wrist"))
    gaps = []
    for event in simulation.truth.events:
        people = min(simulation.truth.people, key=lambda people: abs(people.t_ns - event.t_ns))
        row = people.account.index(event.account)
        gaps.append(np.linalg.norm(people.joints_m[row, wrists] - centres[event.plate], axis=1).min())
    assert len(gaps) > 4
    assert np.median(gaps) < 0.3
    assert max(gaps) < 0.6


def test_a_thing_handed_over_stays_in_the_familys_basket(store):
    bare = store.model_copy(update={"cameras": ()})
    simulation, observations = run(bare, shoppers=1, companions=2, hand_over_probability=1.0, minutes=1.2)
    assert len(simulation.truth.visits) == 1
    assert len([o for o in observations if isinstance(o, GateScan)]) == 3, "every member of the family scans"
    assert taken_from_shelves(simulation.truth) == in_baskets(simulation.truth)


def test_people_without_a_scan_have_a_visit_without_an_account(store):
    simulation, observations = run(store.model_copy(update={"cameras": ()}), tailgaters=1, staff=1, children=1)
    kinds = Counter(o.credential_type for o in observations if isinstance(o, GateScan))
    assert kinds == {"account": SHORT.shoppers + 1, "staff": 1}
    assert [visit.account for visit in simulation.truth.visits].count(None) == 1
    heights = defaultdict(list)
    for people in simulation.truth.people:
        for person, joints in zip(people.person.tolist(), people.joints_m):
            heights[person].append(joints[0, 2])
    assert min(np.median(h) for h in heights.values()) < 1.25, "a child is short"
