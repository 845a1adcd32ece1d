"""A short run for many tests, and what they compare between runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fusion.observations import Observation, ShelfReading
from fusion.simulation import Scenario, Simulation, Truth
from fusion.store.models import Store

SHORT = Scenario(seed=7, minutes=1.2, shoppers=3, picks_per_person=3.0)


def run(store: Store, **knobs: float) -> tuple[Simulation, list[Observation]]:
    """The short run with other knobs, and everything that is observed in it."""
    simulation = Simulation(store, replace(SHORT, **knobs))
    return simulation, list(simulation.observations())


def same(one: Observation, other: Observation) -> bool:
    """Whether two observations are equal, arrays included."""
    return type(one) is type(other) and all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in type(one).__slots__
        if getattr(one, name) is not None
    )


def taken_from_shelves(truth: Truth) -> Counter[tuple[str, str]]:
    """Pieces taken less those put back, by account and GTIN."""
    taken: Counter[tuple[str, str]] = Counter()
    for event in truth.events:
        taken[event.account, event.gtin] -= event.quantity
    return +taken


def in_baskets(truth: Truth) -> Counter[tuple[str, str]]:
    """Pieces in the baskets of all visits, by account and GTIN."""
    held: Counter[tuple[str, str]] = Counter()
    for visit in truth.visits:
        for gtin, n in visit.items.items():
            held[visit.account or "", gtin] += n
    return held


def trace(
    observations: list[Observation], plate: str, rate_hz: float
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Times in seconds from the run's start, and grams, of one plate."""
    readings = [o for o in observations if isinstance(o, ShelfReading) and o.plate == plate]
    times = [(o.t_ns - SHORT.start_ns) / 1e9 + np.arange(len(o.samples)) / rate_hz for o in readings]
    return np.concatenate(times), np.concatenate([o.samples for o in readings])
