"""A minute of a small store, for everything that serves it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from broker import Mosquitto
from live.stepping import Day

from bench.endurance import serve as bench
from fusion.files.recordings import Recording
from fusion.simulation import Scenario, Simulation, demo_store


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of data in which three shoppers buy something."""
    folder = tmp_path_factory.mktemp("serve") / "recording"
    scenario = Scenario(seed=11, minutes=1.0, shoppers=3, dead_plates=1)
    Simulation(demo_store(n_cameras=4, n_plates=16), scenario).write(folder)
    return folder


@pytest.fixture(scope="session")
def day(recording: Path) -> Day:
    """The recording's store, its observations, and the receipts of a run without interruption."""
    opened = Recording(recording)
    return Day(opened.store, list(opened.observations()), bench.uninterrupted(recording, opened.store))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "broker")
    yield broker
    broker.stop()
