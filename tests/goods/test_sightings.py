"""Sightings of goods in carts: bound to the people who were there, bounded, weighed by misses and false reads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from goods.bills import EXIT, PAY
from goods.shop import GTINS, STORE, T0, at_shelf, plate_hand

from fusion.goods.sightings import HANDED_OVER, PIECES_MAX, SIGHTINGS_MAX, Sightings
from fusion.observations import ItemSighting
from fusion.store.models import ItemsPolicy


def test_sightings_are_bounded_and_belong_to_the_people_there() -> None:
    sightings = Sightings(STORE.model_copy(update={"zone": (PAY,), "gate": (EXIT,)}))
    history = at_shelf({7: plate_hand(3)}, seconds=2.0)

    def seen(zone: str, gtin: str = GTINS[0], t_ns: int = T0) -> ItemSighting:
        return ItemSighting(t_ns, "antenna", "read", gtin, 1, 0.9, zone=zone)

    assert sightings.knows(seen("pay")) and sightings.knows(seen("exit"))
    for wrong in ({"kind": "smelt"}, {"probability": float("nan")}, {"probability": 1.5}, {"zone": None}):
        assert not sightings.knows(replace(seen("pay"), **wrong))
    assert not sightings.knows(seen("nowhere")) and not sightings.knows(seen("pay", "4006381333931"))
    assert sightings.near(seen("pay"), history) == [7] and sightings.near(seen("exit"), history) == []
    assert sightings.near(seen("pay", t_ns=T0 + 10**10), history) == []
    for k in range(SIGHTINGS_MAX + 10):
        sightings.add(seen("pay"), frozenset({f"visit {k}"}))
    assert len(sightings.of("visit 5")) == 0 and len(sightings.of(f"visit {SIGHTINGS_MAX}")) == 1
    sightings.forget({f"visit {SIGHTINGS_MAX}"})
    assert len(sightings) == 1


def test_likelihood_of_sightings_knows_misses_and_false_reads() -> None:
    sightings = Sightings(STORE.model_copy(update={"items": ItemsPolicy(read_miss_rate=0.1)}))
    sightings.add(ItemSighting(T0, "antenna", "read", GTINS[0], 2, 0.9, zone="pay"), frozenset({"ann"}))
    (kept,) = sightings.of("ann")
    likelihood = np.exp(sightings.log_likelihood(kept))
    uninformative = 0.1 / (PIECES_MAX + 1)
    assert likelihood[:2] == pytest.approx(
        [0.9 * 0.81 * HANDED_OVER**2 + uninformative, 0.9 * 0.81 * HANDED_OVER + uninformative]
    )
    assert likelihood[2] == pytest.approx(0.9 * 0.81 + uninformative)
    assert likelihood[3] == pytest.approx(0.9 * 3 * 0.81 * 0.1 + uninformative)
