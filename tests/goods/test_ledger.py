"""The row's ledger: hands leave nothing, loads add up to what the levels say, and what is two is two."""

from __future__ import annotations

import numpy as np
import pytest
from goods import shop
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from reference import ledger as reference

from fusion._kernels.scales import PlateTables
from fusion.goods.ledger import log_press, model
from fusion.goods.loads import LoadFinder, ShelfEvent, log_nothing
from fusion.goods.planogram import Planogram
from fusion.goods.plates import PlateChange, PlateSamples
from fusion.goods.scales import ShelfMonitor

STORE, T0 = shop.STORE, shop.T0


def found(scales: shop.Scales) -> list[ShelfEvent]:
    return shop.events(ShelfMonitor(STORE, Planogram(STORE)), scales.readings())


def seconds(event: ShelfEvent) -> float:
    return (event.contact_ns - T0) * 1e-9


def shake(scales: shop.Scales, plate: int, from_s: float, to_s: float, sd_g: float = 10.0) -> None:
    shaken = (scales.t > from_s) & (scales.t < to_s)
    scales.grams[plate, shaken] += scales.rng.normal(0, sd_g, shaken.sum())


# ---- the kernels and their twin --------------------------------------------------------------------------------------


def spell(rng: np.random.Generator, planogram: Planogram) -> tuple[PlateSamples, list[PlateChange]]:
    """Some seconds of four neighbouring plates, calm and shaken by turns, and steps on them: goods, hands, creep."""
    n_plates, n_steps = len(STORE.plates), int(rng.integers(1, 9))
    tables = PlateTables.empty(n_plates)
    tables.times[:, 2], tables.times[:, 5] = T0, rng.integers(20, 2000, n_plates)
    tables.reals[:, 1] = rng.uniform(0.1, 1.0, n_plates)
    tables.ring[:] = rng.normal(0.0, 0.5, tables.ring.shape) * rng.choice([1.0, 6.0], (n_plates, 1))
    contacts_ns = T0 - np.sort(rng.integers(0, 8 * 10**9, n_steps))[::-1]
    steps = []
    for contact_ns in contacts_ns.tolist():
        goods_g = float(rng.choice(planogram.weight_g)) * float(rng.choice([-1.0, 1.0])) * rng.uniform(0.2, 1.0)
        grams = float(rng.choice([goods_g, goods_g, rng.normal(0.0, 30.0), rng.normal(0.0, 2.0), -200.0, 200.0]))
        settled_ns = contact_ns + int(rng.integers(2 * 10**8, 10**9))
        steps.append(
            PlateChange(
                int(rng.integers(2, 6)), contact_ns - int(rng.integers(0, 4 * 10**8)), contact_ns, settled_ns,
                bool(rng.random() < 0.1), int(rng.integers(0, 5 * 10**8)), False, grams, float(rng.uniform(0.1, 20.0)),
                float(rng.normal(0.0, 500.0)),
            )
        )  # fmt: skip
    return PlateSamples(tables.reals, tables.times, tables.ring, 1e9 / STORE.weight_rate_hz), steps


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_steps_are_divided_as_by_the_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    planogram = Planogram(STORE)
    samples, steps = spell(rng, planogram)
    finder, twin = LoadFinder(planogram), reference.Division(planogram, samples, steps)
    score, blocks = finder.divide(samples, model(6), steps)
    # Hands on two plates score the same as one block or two, so that the best division is one of several.
    assert_allclose(score, twin.divide(), rtol=1e-10)
    assert_allclose(score, twin.score([ids for ids, _, _ in blocks]), rtol=1e-10)
    assert sorted(i for ids, _, _ in blocks for i in ids) == list(range(len(steps)))
    some = tuple(np.flatnonzero(rng.random(len(steps)) < 0.5).tolist()) or (0,)
    for ids, log_density, load in (*blocks, (some, *finder.weigh_block(samples, model(6), steps, some))):
        wanted = twin.block(ids)
        assert_allclose(log_density, wanted[0], rtol=1e-10)
        for change, of_twin in zip(load, wanted[1], strict=True):
            for field in PlateChange.__slots__:
                assert_allclose(getattr(change, field), getattr(of_twin, field), rtol=1e-12)


def test_no_steps_are_no_blocks() -> None:
    samples, _ = spell(np.random.default_rng(0), Planogram(STORE))
    assert LoadFinder(Planogram(STORE)).divide(samples, model(6), []) == (0.0, [])


@pytest.mark.parametrize("grams", [-700.0, -30.0, 0.5, 3.0, 40.0, 699.0, 900.0])
def test_hands_and_creep_are_weighed_as_by_the_twin(grams: float) -> None:
    assert_allclose(log_press(grams), reference.log_press(grams), rtol=1e-13)
    for heaviest_g in (0.0, 800.0):
        assert_allclose(log_nothing(grams, 2.0, heaviest_g), reference.log_nothing(grams, 2.0, heaviest_g), rtol=1e-13)


# ---- what becomes an event -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lean_s", [1.5, 4.0, 7.0])
def test_a_lean_that_weighs_like_goods_is_no_event(lean_s: float) -> None:
    scales = shop.Scales(STORE, 24.0)
    scales.hand(5.0, 5.0 + lean_s, {"r0p3": 245.0})
    shake(scales, 3, 5.0, 5.0 + lean_s)
    assert found(scales) == []


@pytest.mark.parametrize("apart_s", [3.0, 5.0])
def test_goods_put_down_and_taken_again_are_two_events(apart_s: float) -> None:
    """The plate rests in between: no hand is on it."""
    scales = shop.Scales(STORE, 24.0)
    for at_s, sign in ((5.0, 1.0), (5.0 + apart_s, -1.0)):
        scales.step(at_s, {"r0p3": sign * 245.0})
        shake(scales, 3, at_s - 0.3, at_s + 0.3)
    events = found(scales)
    assert_allclose([event.total_g for event in events], [245.0, -245.0], atol=4.0)
    assert_allclose([seconds(event) for event in events], [5.0, 5.0 + apart_s], atol=0.15)


@pytest.mark.parametrize("apart_s", [0.35, 0.6])
@pytest.mark.parametrize("seed", range(2))
def test_two_loads_before_the_plate_has_settled_are_two_events(apart_s: float, seed: int) -> None:
    scales = shop.Scales(STORE, 16.0, seed=seed)
    scales.step(5.0, {"r0p1": -538.0})
    scales.step(5.0 + apart_s, {"r0p1": -538.0})
    events = found(scales)
    assert_allclose([event.total_g for event in events], [-538.0] * 2, atol=30.0)
    assert abs(sum(event.total_g for event in events) + 1076.0) < 4.0
    assert_allclose([seconds(event) for event in events], [5.0, 5.0 + apart_s], atol=0.15)


def test_of_two_loads_in_one_step_the_first_has_the_part_on_the_next_plate() -> None:
    """The samples say how the step divides, even where another division would suit single pieces."""
    scales = shop.Scales(STORE, 16.0)
    scales.step(5.0, {"r0p1": -950.0, "r0p2": -126.0})
    scales.step(5.42, {"r0p1": -1076.0})
    events = found(scales)
    assert_allclose([event.total_g for event in events], [-1076.0] * 2, atol=40.0)
    assert_allclose([seconds(event) for event in events], [5.0, 5.42], atol=0.1)


def test_a_row_that_does_not_rest_for_long_keeps_its_loads_apart() -> None:
    scales = shop.Scales(STORE, 24.0)
    scales.step(5.0, {"r0p1": -400.0, "r0p2": -138.0, "r0p0": -5.0})
    for i in range(1, 5):
        scales.step(5.0 + i, {"r0p1": -538.0, "r0p2": -6.0, "r0p0": -5.0})
        shake(scales, 1, 4.6 + i, 5.3 + i, 6.0)
    events = found(scales)
    assert [event.plates.tolist() for event in events][:2] == [[1, 2], [1]]
    assert_allclose([event.total_g for event in events], [-538.0] * 5, atol=20.0)


def test_loads_between_two_rests_are_as_certain_as_their_sum() -> None:
    """Of one load alone on its plate, the shaking of the hand leaves no doubt once the plate rests."""
    scales = shop.Scales(STORE, 16.0)
    scales.step(5.0, {"r0p4": -371.0})
    shake(scales, 4, 4.5, 6.5, 12.0)
    (event,) = found(scales)
    assert abs(event.total_g + 371.0) < 3.0 and event.noise_g2 < 2.0


@pytest.mark.parametrize("seed", range(3))
def test_a_piece_taken_and_one_put_a_second_later_are_two_events(seed: int) -> None:
    """The plate is as before, and shows the plateau between; no hand lifts a shelf by as much."""
    scales = shop.Scales(STORE, 16.0, seed=seed)
    scales.step(5.0, {"r0p1": -538.0})
    scales.step(5.9, {"r0p1": 538.0})
    shake(scales, 1, 4.7, 6.3, 8.0)
    events = found(scales)
    assert_allclose([event.total_g for event in events], [-538.0, 538.0], atol=20.0)
    assert_allclose([seconds(event) for event in events], [5.0, 5.9], atol=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_goods_taken_and_others_put_back_before_the_plate_rests_are_two_events(seed: int) -> None:
    """Their difference alone would be another product's."""
    scales = shop.Scales(STORE, 16.0, seed=seed)
    scales.step(5.0, {"r0p1": -538.0})
    scales.step(5.5, {"r0p1": 700.0})
    scales.hand(4.6, 6.2, {"r0p1": 20.0})
    shake(scales, 1, 4.6, 6.2, 12.0)
    events = found(scales)
    assert_allclose([event.total_g for event in events], [-538.0, 700.0], atol=30.0)
    assert_allclose(sum(event.total_g for event in events), 162.0, atol=2.0)


@pytest.mark.parametrize("press_g", [-150.0, -60.0, 60.0, 150.0])
def test_a_hand_that_presses_or_lifts_while_it_takes_is_no_exchange(press_g: float) -> None:
    scales = shop.Scales(STORE, 16.0)
    scales.hand(4.4, 5.0, {"r0p1": press_g})
    scales.step(5.0, {"r0p1": -538.0})
    shake(scales, 1, 4.4, 5.4, 8.0)
    (event,) = found(scales)
    assert abs(event.total_g + 538.0) < 4.0


def test_a_hand_that_weighs_like_a_piece_may_have_been_two_loads() -> None:
    scales = shop.Scales(STORE, 16.0)
    scales.hand(5.0, 6.4, {"r0p3": 245.0})
    shake(scales, 3, 5.0, 6.4)
    monitor = ShelfMonitor(STORE, Planogram(STORE))
    assert shop.events(monitor, scales.readings()) == []
    (undone,) = monitor.undone()
    assert_allclose([undone.first.total_g, undone.second.total_g], [245.0, -245.0], atol=10.0)
    assert undone.log_odds < 0.0 and monitor.undone() == []


def test_two_loads_that_cancel_are_seen_through_the_ringing_of_the_shelf() -> None:
    """A piece of more than a kilogram sets a shelf ringing by a quarter of its weight, at 5.5 Hz, until it is gone."""
    scales = shop.Scales(STORE, 16.0)
    scales.hand(5.0, 5.9, {"r0p3": 245.0})
    for at_s, swing_g in ((5.0, 110.0), (5.9, -110.0)):
        since_s = scales.t - at_s
        ringing = swing_g * np.cos(2.0 * np.pi * 5.5 * since_s) * np.exp(-since_s / 0.6)
        scales.grams[3] += np.where(since_s > 0.0, ringing, 0.0)
    monitor = ShelfMonitor(STORE, Planogram(STORE))
    assert shop.events(monitor, scales.readings()) == []
    (undone,) = monitor.undone()
    assert_allclose([undone.first.total_g, undone.second.total_g], [245.0, -245.0], atol=15.0)
    contacts_s = [seconds(undone.first), seconds(undone.second)]
    assert_allclose(contacts_s, [5.0, 5.9], atol=0.15)


@pytest.mark.parametrize("lost_s", [0.2, 0.4])
def test_two_loads_that_cancel_are_seen_though_a_message_was_lost_when_the_first_moved(lost_s: float) -> None:
    scales = shop.Scales(STORE, 16.0)
    scales.hand(5.1, 6.1, {"r0p3": 245.0})
    shake(scales, 3, 5.0, 6.1, 20.0)
    heard = [
        reading for reading in scales.readings()
        if reading.plate != "r0p3" or not 5.0 <= (reading.t_ns - T0) * 1e-9 < 5.0 + lost_s
    ]  # fmt: skip
    monitor = ShelfMonitor(STORE, Planogram(STORE))
    assert shop.events(monitor, heard) == []
    (undone,) = monitor.undone()
    assert_allclose([undone.first.total_g, undone.second.total_g], [245.0, -245.0], atol=15.0)
    # The first moved at any time of the silence, the second when the plate showed it.
    assert undone.first.silent and not undone.second.silent
    assert undone.first.onset_ns <= T0 + 5.1e9 <= undone.first.settled_ns < T0 + (5.3 + lost_s) * 1e9
    assert abs(seconds(undone.second) - 6.1) < 0.15


def test_a_hand_that_weighs_like_nothing_there_was_no_two_loads() -> None:
    scales = shop.Scales(STORE, 16.0)
    scales.hand(5.0, 6.4, {"r0p3": 370.0})
    shake(scales, 3, 5.0, 6.4)
    monitor = ShelfMonitor(STORE, Planogram(STORE))
    assert shop.events(monitor, scales.readings()) == [] == monitor.undone()


@pytest.mark.parametrize("press_g", [-20.0, 25.0, 60.0])
def test_two_loads_that_cancel_are_seen_though_a_hand_pressed_the_plate_between_them(press_g: float) -> None:
    scales = shop.Scales(STORE, 16.0)
    scales.hand(5.0, 6.2, {"r0p3": 245.0 + press_g})
    shake(scales, 3, 5.0, 6.2)
    monitor = ShelfMonitor(STORE, Planogram(STORE))
    assert shop.events(monitor, scales.readings()) == []
    (undone,) = monitor.undone()
    assert_allclose([undone.first.total_g, undone.second.total_g], [245.0, -245.0], atol=3.0)
    assert -12.0 < undone.log_odds < -5.0
    assert_allclose([seconds(undone.first), seconds(undone.second)], [5.0, 6.2], atol=0.15)


@pytest.mark.parametrize("pieces", [1, 2])
def test_on_either_of_two_plates_that_one_hand_seems_to_have_touched_two_loads_may_cancel(pieces: int) -> None:
    scales = shop.Scales(STORE, 16.0)
    for first_s, last_s, plate, grams in ((5.0, 6.0, 3, 245.0), (5.9, 7.1, 5, -90.0)):
        scales.hand(first_s, last_s, {f"r0p{plate}": pieces * grams})
        shake(scales, plate, first_s, last_s, 2.0)
    monitor = ShelfMonitor(STORE, Planogram(STORE))
    assert shop.events(monitor, scales.readings()) == []
    undone = {int(one.first.main_plate): one for one in monitor.undone()}
    assert set(undone) == {3, 5}
    for plate, grams, first_s, last_s in ((3, 245.0, 5.0, 6.0), (5, -90.0, 5.9, 7.1)):
        one = undone[plate]
        assert_allclose([one.first.total_g, one.second.total_g], [pieces * grams, -pieces * grams], atol=3.0)
        assert_allclose([seconds(one.first), seconds(one.second)], [first_s, last_s], atol=0.15)


@pytest.mark.parametrize("plate", [0, 2, 5, 7])
def test_a_load_of_two_steps_may_have_been_two_loads(plate: int) -> None:
    """One takes a piece, and another puts two there a second later: one more on the plate, or one each way."""
    grams = STORE.products[plate].weight_g
    scales = shop.Scales(STORE, 16.0)
    scales.step(5.0, {f"r0p{plate}": -grams})
    scales.step(5.95, {f"r0p{plate}": 2 * grams})
    monitor = ShelfMonitor(STORE, Planogram(STORE))
    (event,) = shop.events(monitor, scales.readings())
    assert event.total_g == pytest.approx(grams, abs=3.0)
    (two,) = monitor.undone()
    assert_allclose([two.first.total_g, two.second.total_g], [-grams, 2 * grams], atol=3.0)
    assert_allclose([seconds(two.first), seconds(two.second)], [5.0, 5.95], atol=0.1)
    assert abs(two.log_odds) < 3.0


def test_two_grips_of_one_product_may_have_been_two_loads() -> None:
    """Whose they were is for the hands to say: of one person, it is the same."""
    scales = shop.Scales(STORE, 16.0)
    scales.step(5.0, {"r0p3": -245.0})
    scales.step(5.8, {"r0p3": -245.0})
    monitor = ShelfMonitor(STORE, Planogram(STORE))
    events = shop.events(monitor, scales.readings())
    loads = [event.total_g for event in events] if len(events) == 2 else [
        load.total_g for two in monitor.undone() for load in (two.first, two.second)
    ]  # fmt: skip
    assert_allclose(loads, [-245.0, -245.0], atol=3.0)


def test_what_a_hand_pulls_when_goods_are_weighed_is_added_when_it_lets_go() -> None:
    scales = shop.Scales(STORE, 16.0)
    scales.step(5.0, {"r0p4": -371.0})
    scales.hand(4.6, 5.8, {"r0p4": -22.0})
    shake(scales, 4, 4.6, 5.8, 6.0)
    (event,) = found(scales)
    assert abs(event.total_g + 371.0) < 4.0


def test_a_light_part_on_the_next_plate_is_part_of_the_load() -> None:
    scales = shop.Scales(STORE, 16.0)
    scales.step(5.0, {"r0p5": -74.0, "r0p6": -16.0})
    shake(scales, 5, 4.7, 5.3)
    (event,) = found(scales)
    assert event.plates.tolist() == [5, 6] and abs(event.total_g + 90.0) < 4.0


@pytest.mark.parametrize("seed", range(3))
def test_a_light_part_counts_though_the_rest_alone_would_fit_better(seed: int) -> None:
    """Places on a plate differ by some per cent; neither creep nor cross-talk moves the next plate by as much."""
    scales = shop.Scales(STORE, 16.0, seed=seed)
    scales.step(5.0, {"r0p3": -238.0, "r0p4": -18.0})
    shake(scales, 3, 4.7, 5.3, 6.0)
    shake(scales, 4, 4.7, 5.3, 3.0)
    (event,) = found(scales)
    assert event.plates.tolist() == [3, 4] and abs(event.total_g + 256.0) < 4.0


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_events_add_up_to_what_the_levels_have_changed_by(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scales = shop.Scales(STORE, 34.0, seed=seed)
    total_g, at_s = 0.0, 4.0
    for _ in range(4):
        product = int(rng.integers(len(STORE.products)))
        weight_g = STORE.products[product].weight_g
        press_g = float(rng.normal(0.0, 25.0))
        scales.hand(at_s - 0.4, at_s + 0.4, {f"r0p{product}": press_g})
        shake(scales, product, at_s - 0.4, at_s + 0.4)
        scales.step(at_s, {f"r0p{product}": -weight_g})
        total_g -= weight_g
        at_s += float(rng.uniform(1.5, 4.0))
    assert abs(sum(event.total_g for event in found(scales)) - total_g) < 12.0


def test_people_lean_with_more_than_they_lift() -> None:
    assert log_press(400.0) > log_press(-400.0) + 3.0
    grams = np.linspace(-1500.0, 1500.0, 6001)
    assert abs(sum(np.exp(log_press(g)) for g in grams) * 0.5 - 1.0) < 0.02
