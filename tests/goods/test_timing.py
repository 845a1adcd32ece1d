"""Whether loads come and go while hands are at their plates, or clocks of scales and cameras differ."""

from __future__ import annotations

import numpy as np
import pytest
from goods.shop import STORE, T0, at_shelf, event, plate_hand, shop
from numpy.typing import NDArray

from fusion.goods.hands import Hands
from fusion.goods.planogram import Planogram, Rows
from fusion.goods.scales import ShelfMonitor
from fusion.goods.timing import LAGS_S, HandTiming, Lag
from fusion.results import WarningKind
from fusion.sentences import sentence

UNITS = np.repeat(np.arange(3), 4)  # Three shelf units of four plates.
HAND, HIDDEN, NO_HAND = 4.0, 0.0, -4.0


def seen_at(lag_s: float) -> NDArray[np.float64]:
    """Log likelihoods of a load whose hand was there at one lag only."""
    return np.where(np.array(LAGS_S) == lag_s, HAND, NO_HAND)


def test_a_plate_of_another_time_is_found_by_four_loads_and_is_not_blamed_on_others() -> None:
    timing = HandTiming(UNITS)
    for _ in range(3):
        timing.observe(5, seen_at(-1.0))
    assert timing.found() == []
    for _ in range(20):
        timing.observe(5, seen_at(-1.0))
    assert timing.found() == [Lag((5,), -1.0)] and timing.plates == {5}


def test_two_plates_of_another_time_are_their_shelf_unit_and_two_units_the_store() -> None:
    timing = HandTiming(UNITS)
    for plate in (4, 6, 4, 6):
        timing.observe(plate, seen_at(1.25))
    assert timing.found() == [Lag((4, 5, 6, 7), 1.25)]
    for plate in (0, 3, 0, 3):
        timing.observe(plate, seen_at(1.25))
    others = {plate for lag in timing.found() for plate in lag.plates}
    assert timing.plates == set(range(12)) and others == {0, 1, 2, 3, 8, 9, 10, 11}


def test_what_agrees_again_is_no_longer_suspected() -> None:
    timing = HandTiming(UNITS[:4])
    for _ in range(10):
        timing.observe(1, seen_at(2.0))
    assert timing.plates
    for _ in range(10):
        timing.observe(1, seen_at(0.0))
    assert timing.plates == frozenset() and timing.found()[-1].seconds == 0.0


@pytest.mark.parametrize("seed", range(30))
def test_honest_loads_among_hands_that_come_and_go_prove_nothing(seed: int) -> None:
    """A quarter of the hands stay on, or come back, and a fifth are not seen at the load."""
    rng = np.random.default_rng(seed)
    timing = HandTiming(UNITS)
    for _ in range(200):
        there = np.where(rng.random(len(LAGS_S)) < 0.25, HAND, NO_HAND)
        there[0] = HIDDEN if rng.random() < 0.2 else HAND
        timing.observe(int(rng.integers(len(UNITS))), there)
    assert timing.plates == frozenset()


def test_loads_are_compared_with_the_hands_of_two_seconds_before_and_after() -> None:
    hands, planogram = Hands(STORE), Planogram(STORE)
    history = at_shelf({7: plate_hand(3)}, 10.0)  # There from T0 to 10 s after it.
    monitor = ShelfMonitor(STORE, planogram)
    for _ in range(4):
        planogram.timing.add(event(-1.0, {3: -245.0}))
    planogram.timing.step(hands, history, T0 + 10**9)
    assert monitor.warnings() == [], "hands up to two seconds after the load are not known yet"
    for _ in range(4):
        planogram.timing.step(hands, history, T0 + 4 * 10**9)
    (warning,) = monitor.warnings()
    assert warning.kind is WarningKind.PLATE_LAGS and warning.subject == STORE.plates[3].plate
    assert warning.seconds is not None and 1.0 <= warning.seconds <= 2.0
    assert "clocks of scales and cameras differ" in sentence(warning)
    assert list(monitor.blind.unfit) == [3]


def test_shelf_units_are_rows_above_each_other_and_end_to_end() -> None:
    assert set(Rows(shop(rows=3)).unit.tolist()) == {0}
    apart = [
        plate.model_copy(update={"x": plate.x + 3.0 * (i >= 4), "y": plate.y + 0.8 * (i >= 6)})
        for i, plate in enumerate(STORE.plates)
    ]
    rows = Rows(STORE.model_copy(update={"plates": apart}))
    assert len(set(rows.unit.tolist())) == 3
    assert all(len(set(rows.unit[rows.row == row].tolist())) == 1 for row in range(len(rows.members)))
