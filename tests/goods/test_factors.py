"""Plates that read a wrong multiple of what lies on them: ounces, half of the cells, reversed polarity."""

from __future__ import annotations

import numpy as np
import pytest
from goods.shop import STORE, T0, at_shelf, event, plate_hand, shop
from numpy.testing import assert_allclose
from reference.goods import move

from fusion.goods.attribution import Attributor
from fusion.goods.factors import FACTORS, Exchange, Fault, ScaleFactors
from fusion.goods.planogram import Planogram
from fusion.goods.unobserved import BlindPlates
from fusion.results import ReasonKind

WEIGHTS_G = [product.weight_g for product in STORE.products]


def loaded(planogram: Planogram, plate: int, grams: float, noise_g: float = 0.3) -> None:
    planogram.factors.observe(planogram, np.array([plate]), np.array([grams]), noise_g**2)


@pytest.mark.parametrize("factor", [1 / 28.349523, 0.5, 2.0, -1.0])
def test_a_wrong_multiple_is_found_by_a_few_loads(factor: float) -> None:
    planogram = Planogram(STORE)
    for plate in range(8):
        planogram.factors.set_noise(np.where(np.arange(8) == 3, 0.4 * abs(factor), 0.4))
        loaded(planogram, plate, -WEIGHTS_G[plate])
    for _ in range(8):
        loaded(planogram, 3, -WEIGHTS_G[3] * factor, 0.3 * abs(factor))
    found = planogram.factors.faults(0)
    assert [fault.plate for fault in found] == [3]
    assert_allclose(found[0].factor, factor)
    assert planogram.factors.suspect == {3}
    assert planogram.factors.faults(0) == []


@pytest.mark.parametrize("factor", [1 / 28.349523, 0.5, -1.0])
def test_a_whole_store_of_a_wrong_multiple_is_one_fault(factor: float) -> None:
    planogram = Planogram(STORE)
    planogram.factors.set_noise(np.full(8, 0.4 * abs(factor)))
    for plate in range(3):
        loaded(planogram, plate, -WEIGHTS_G[plate] * factor, 0.3 * abs(factor))
    assert planogram.factors.faults(0) == [Fault(-1, factor)]
    assert planogram.factors.suspect == set(range(8))


def test_a_suspicion_that_nothing_clears_is_reported() -> None:
    """It sends carts to review, so the plate has to be named, although it is not proved."""
    planogram, since_ns = Planogram(STORE), 5 * 10**9
    loaded(planogram, 3, -0.5 * WEIGHTS_G[3])
    assert planogram.factors.suspect == {3}
    assert planogram.factors.faults(since_ns) == []
    assert planogram.factors.faults(since_ns + 9 * 10**9) == []
    assert planogram.factors.faults(since_ns + 10 * 10**9) == [Fault(3, 0.5)]
    assert planogram.factors.faults(since_ns + 30 * 10**9) == []


def test_a_piece_at_the_wrong_place_is_no_sign_of_a_reversed_plate() -> None:
    """As the first load of a plate whose own goods weigh the same: a take with the wrong sign, or a put-back."""
    store = shop(10, rows=2)
    weight_g = store.products[6].weight_g
    assert abs(store.products[16].weight_g - weight_g) < 0.02 * weight_g
    planogram = Planogram(store)
    planogram.factors.set_noise(np.full(20, 0.4))
    move(planogram, 6, 6, -1)
    loaded(planogram, 6, -weight_g)
    loaded(planogram, 16, weight_g)
    assert planogram.factors.suspect == frozenset()


def test_a_hand_that_leans_is_no_evidence_once_it_has_let_go() -> None:
    """A load that twice one of the goods would explain comes and goes; reaches into the plate are doubts between."""
    attributor = Attributor(STORE, Planogram(STORE))
    factors, history = attributor.planogram.factors, at_shelf({7: plate_hand(3)})
    before = factors._of_loads.copy()
    attributor.observe(event(5.0, {3: 2.0 * WEIGHTS_G[3]}), history)
    assert factors.suspect == {3}
    attributor.watch(BlindPlates(suspect=factors.suspect), history, T0 + 10 * 10**9)
    assert ReasonKind.PLATE_UNFIT in [reason.kind for reason in attributor.cart([7]).reasons]
    attributor.observe(event(12.0, {3: -2.0 * WEIGHTS_G[3]}), history)
    assert factors.suspect == frozenset() and (factors._of_loads <= before).all()
    attributor.watch(BlindPlates(suspect=factors.suspect), history, T0 + 13 * 10**9)
    assert attributor.cart([7]).reasons == ()


def test_a_pull_that_lets_go_is_no_evidence_either_whatever_came_between() -> None:
    attributor = Attributor(STORE, Planogram(STORE))
    factors, history = attributor.planogram.factors, at_shelf({7: plate_hand(3)})
    attributor.observe(event(5.0, {3: -0.5 * WEIGHTS_G[3]}), history)
    assert factors.suspect == {3}
    attributor.observe(event(6.0, {5: -WEIGHTS_G[5]}), history)
    attributor.observe(event(7.0, {3: 0.5 * WEIGHTS_G[3]}), history)
    assert factors.suspect == frozenset()


def test_a_put_back_of_what_a_person_near_holds_is_no_reversed_plate() -> None:
    """Their product weighs what the plate's goods do; that of the plate is not known to be away."""
    store = shop(10, rows=2)
    weight_g = store.products[6].weight_g
    for holds, suspect in ((True, frozenset()), (False, {16})):
        planogram = Planogram(store)
        planogram.factors.set_noise(np.full(20, 0.4))
        for other in range(10):
            move(planogram, other, other, -1)  # Others hold a piece of everything.
        held = np.zeros(20)
        held[6] = float(holds)
        plates, delta_g = np.array([16]), np.array([weight_g])
        planogram.factors.observe(planogram, plates, delta_g, 0.09, held)
        assert planogram.factors.suspect == suspect


def test_goods_that_weigh_right_raise_no_suspicion() -> None:
    """Takes of one and two pieces, put-backs of what was taken, an odd load, restocking by staff."""
    planogram = Planogram(STORE)
    rng = np.random.default_rng(0)
    for _ in range(60):
        plate = int(rng.integers(8))
        pieces = 2 if rng.random() < 0.15 else 1
        if planogram.away[plate] > pieces and rng.random() < 0.3:
            pieces = -pieces
        move(planogram, plate, plate, -pieces)
        loaded(planogram, plate, -pieces * WEIGHTS_G[plate] * (1.0 + 0.02 * rng.normal()))
        assert planogram.factors.suspect == frozenset()
    attributor = Attributor(STORE, planogram)
    attributor.set_staff(7)
    for second in range(6):
        attributor.observe(event(5.0 + 4.0 * second, {3: WEIGHTS_G[3]}), at_shelf({7: plate_hand(3)}))
    loaded(planogram, 5, -5133.0)
    assert planogram.factors.suspect == frozenset() and planogram.factors.faults(0) == []


def test_what_a_put_back_shifts_on_the_next_plate_is_no_evidence() -> None:
    """Goods that are put back against others lift a part of them off: a load of few grams beside the put-back."""
    for shifted_g, suspect in ((0.0, {2}), (26.0, frozenset())):
        planogram = Planogram(STORE)
        attributor = Attributor(STORE, planogram)
        history = at_shelf({7: plate_hand(1)})
        attributor.observe(event(5.0, {1: -538.0}), history)
        attributor.observe(event(12.0, {1: 538.0 + shifted_g}), history)
        attributor.observe(event(12.2, {2: -31.0 if not shifted_g else -26.0}), history)
        assert planogram.factors.suspect == suspect


def test_one_good_load_clears_a_quiet_plate() -> None:
    planogram = Planogram(STORE)
    planogram.factors.set_noise(np.where(np.arange(8) == 2, 0.012, 0.4))
    assert planogram.factors.suspect == {2}
    loaded(planogram, 2, -WEIGHTS_G[2])
    assert planogram.factors.suspect == frozenset()


def test_small_changes_that_fit_a_larger_unit_count() -> None:
    """In ounces, a piece of 245 g is a change of 8.6: too small for a load, and too far for creep."""
    factors, planogram = ScaleFactors(8), Planogram(STORE)
    before = factors._of_loads.copy()
    for _ in range(3):
        factors.observe_small(planogram, 3, -245.0 / 28.349523, 0.01, -6.0)
    gained = (factors._of_loads - before)[3]
    assert gained.argmax() == FACTORS.index(1 / 28.349523) and gained.max() > 6.0
    assert factors.suspect == {3}
    rng = np.random.default_rng(0)
    for _ in range(30):  # Creep, of any size.
        factors.observe_small(planogram, 5, float(rng.choice([-1, 1]) * rng.uniform(3.0, 9.0)), 0.5, -3.0)
    assert factors.suspect == {3}


def test_a_load_where_no_hand_is_makes_the_reach_elsewhere_a_doubt_and_twice_an_exchange() -> None:
    """Plates 2 and 7 have exchanged cables: hands are at 2, loads of its goods show on 7."""
    wide = shop(width_m=0.5)
    attributor = Attributor(wide, Planogram(wide))
    plate = wide.plates[2]
    history = at_shelf({7: (plate.x, plate.y - 0.1, plate.z + 0.1), 8: (8.0, 8.0, 1.0)})
    factors = attributor.planogram.factors
    for at_s in (5.0, 25.0):
        assert factors.exchanges() == []
        attributor.observe(event(at_s, {7: -WEIGHTS_G[2]}), history)
        reasons = {(reason.kind, reason.plate) for reason in attributor.cart([7]).reasons}
        assert (ReasonKind.LOAD_ELSEWHERE, plate.plate) in reasons
    assert attributor.cart([8]).reasons == ()
    assert factors.exchanges() == [Exchange(2, 7)] and factors.exchanges() == []
    assert factors.suspect == {2, 7}
