"""What the shelves may have missed counts in a cart's probability: little alone, more beside another person's load."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fusion.goods import missed
from fusion.goods.hands import Actors
from fusion.goods.missed import MISSED_ALONE, MISSED_BESIDE, MissedLoads


def actors(**moved: float) -> Actors:
    """People (t1, t2, ...) by the probability that each moved the load."""
    owner = np.array([*(int(name[1:]) for name in moved), -1])
    p = np.array([*moved.values(), max(1e-9, 1.0 - sum(moved.values()))])
    return Actors(owner, np.log(p), 0.0)


def test_own_loads_and_loads_of_others_at_ones_hand():
    loads = MissedLoads()
    loads.add(actors(t7=1.0, t8=0.001))
    loads.add(actors(t7=0.25, t8=0.75))
    alone, beside = math.log1p(-MISSED_ALONE), math.log1p(-MISSED_BESIDE)
    assert loads.log_none(lambda person: person == 7) == pytest.approx(1.25 * alone + 0.75 * beside)
    # A person whose hand was not at the first load has nothing to do with it.
    assert loads.log_none(lambda person: person == 8) == pytest.approx(0.75 * alone + 0.25 * beside)
    loads.forget(lambda person: person == 7)
    assert loads.log_none(lambda person: person == 7) == 0.0 > loads.log_none(lambda person: True)


def test_a_load_beside_anothers_is_missed_more_often():
    assert 0.0 < MISSED_ALONE < MISSED_BESIDE < 0.05


def test_the_oldest_people_are_forgotten(monkeypatch):
    monkeypatch.setattr(missed, "PEOPLE_MAX", 2)
    loads = MissedLoads()
    for track in (1, 2, 3):
        loads.add(actors(**{f"t{track}": 1.0}))
    assert loads.log_none(lambda person: person == 1) == 0.0
    assert loads.log_none(lambda person: True) == pytest.approx(2 * math.log1p(-MISSED_ALONE))


def test_loads_that_cancel_count_where_two_peoples_hands_were_there():
    here, there = actors(t7=0.98, t8=0.01), actors(t7=0.01, t8=0.98)

    def doubt(first, second, log_odds, cart_of=lambda person: person):
        loads = MissedLoads()
        loads.add_undone(first, second, log_odds, cart_of)
        return [-math.expm1(loads.log_none(lambda person, who=who: person == who)) for who in (7, 8)]

    # One person's hand, whatever it did, leaves nothing; nor does a family's.
    assert max(doubt(here, here, -2.0)) < 0.01
    assert max(doubt(here, there, 0.0, lambda _: 3)) < 0.05
    assert min(doubt(here, there, -2.0)) > 0.5
    assert doubt(here, there, -12.0) < doubt(here, there, -4.0) < doubt(here, there, 0.0)
