"""People as followed, kept: the stages after the tracker give the same results as a whole replay."""

from pathlib import Path

import numpy as np
import pytest

from bench.accuracy.followed import Follower, followed, results_of
from fusion.engine import Engine
from fusion.results import Evidence, People, Warning
from fusion.simulation import Scenario, Simulation, demo_store


@pytest.fixture(scope="module")
def run():
    store = demo_store(n_plates=40, n_cameras=6, seed=3)
    scenario = Scenario(seed=3, shoppers=4, minutes=1.2, companions=1)
    return store, list(Simulation(store, scenario).observations())


def _told(results):
    for result in results:
        if isinstance(result, People):
            yield result.t_ns, result.track_id.tobytes(), result.position_m.tobytes()
        elif not isinstance(result, Warning | Evidence):
            yield repr(result)


def test_kept_people_give_the_same_results(run, tmp_path: Path):
    store, observations = run
    engine = Engine(store)
    whole = [result for observation in observations for result in engine.feed(observation)] + engine.close()
    first = followed(store, observations, tmp_path / "kept")
    again = followed(store, iter(()), tmp_path / "kept")
    assert len(first) == len(again) > 500
    for steps in (first, again):
        assert list(_told(results_of(Follower(store), steps))) == list(_told(whole))


def test_what_is_kept_holds_the_goods_that_moved(run, tmp_path: Path):
    store, observations = run
    steps = followed(store, observations, tmp_path / "kept")
    assert sum(len(step.readings) for step in steps) > 1000
    assert np.all(np.diff([step.now_ns for step in steps]) >= 0)
