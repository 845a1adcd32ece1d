"""What several test modules need: the public recordings, and a small simulated store."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of the public recordings; tests that need them are skipped where it is absent."""
    folder = Path(os.environ.get("FUSION_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no public recordings at {folder}; set FUSION_DATA")
    return folder


@pytest.fixture(scope="session")
def small_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated minute of two shoppers in a shop of six cameras and 24 plates, with truth."""
    from fusion.simulation import Scenario, Simulation, demo_store

    folder = tmp_path_factory.mktemp("recordings") / "small"
    store = demo_store(n_cameras=6, n_plates=24)
    Simulation(store, Scenario(seed=11, minutes=1.0, shoppers=2)).write(folder)
    return folder
