"""Engines in threads of their own: the same results as one after the other, with and without the GIL."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor

import pytest

from fusion import Engine
from fusion.simulation import Scenario, Simulation, demo_store


def results_of(seed: int) -> list[str]:
    """Everything that an engine reports of a small simulated shop, but for people's places."""
    store = demo_store(n_cameras=4, n_plates=12)
    engine = Engine(store)
    found = []
    for observation in Simulation(store, Scenario(seed=seed, minutes=0.6, shoppers=1)).observations():
        found += engine.feed(observation)
    return [repr(result) for result in found + engine.close() if type(result).__name__ != "People"]


def test_engines_in_threads_do_not_share_state() -> None:
    seeds = range(4)
    expected = [results_of(seed) for seed in seeds]
    with ThreadPoolExecutor(len(seeds)) as threads:
        assert list(threads.map(results_of, seeds)) == expected


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this interpreter has a GIL")
def test_importing_the_extensions_keeps_the_gil_off() -> None:
    program = "import fusion._kernels.attribution, fusion._kernels.triangulation, sys; print(sys._is_gil_enabled())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
