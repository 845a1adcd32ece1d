"""A small shop, and the short run in it, made once."""

from __future__ import annotations

import pytest
from simulation.runs import SHORT

from fusion.observations import Observation
from fusion.simulation import Simulation, demo_store
from fusion.store.models import Store


@pytest.fixture(scope="session")
def store() -> Store:
    return demo_store(n_cameras=3, n_plates=32, n_products=16)


@pytest.fixture(scope="session")
def short(store: Store) -> tuple[Simulation, list[Observation]]:
    simulation = Simulation(store, SHORT)
    return simulation, list(simulation.observations())
