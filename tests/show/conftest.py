"""A store, its users and a served console for the tests of the console."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fusion.store.models import Store


@pytest.fixture(scope="session")
def store() -> Store:
    from fusion.simulation import demo_store

    return demo_store(n_cameras=6, n_plates=24)


@pytest.fixture(scope="session")
def users_file(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Path:
    """anna and ben may see the store, eve another one."""
    from show.consoles import PASSWORD

    from fusion.show.console.users import Users

    path = tmp_path_factory.mktemp("users") / "users.json"
    users = Users(path)
    users.add("anna", PASSWORD, store.id)
    users.add("ben", PASSWORD, store.id)
    users.add("eve", PASSWORD, "another-store")
    return path


@pytest.fixture
def served(tmp_path: Path, store: Store, users_file: Path) -> Iterator[Any]:
    """A console with two visits in review, one of them with hostile names."""
    from show.consoles import HOSTILE, review, serving

    from fusion.money.ledger import Ledger

    with Ledger.open(tmp_path / "ledger.sqlite", store) as ledger:
        ledger.post_receipt(review(store, "visit-1"))
        ledger.post_receipt(review(store, "visit/2 ä", HOSTILE, HOSTILE))
        with serving(store, ledger, users_file, evidence=tmp_path / "evidence.jsonl") as served:
            yield served


@pytest.fixture(scope="session")
def ended_run(store: Store) -> Any:
    """A minute with three shoppers."""
    from show.consoles import EndedRun

    from fusion.run import Run
    from fusion.simulation import Scenario, Simulation

    run = Run(store, Simulation(store, Scenario(seed=11, minutes=1.0, shoppers=3)).observations())
    results = [*run.results(), *run.finish()]
    return EndedRun(run.engine, results, run.summary())
