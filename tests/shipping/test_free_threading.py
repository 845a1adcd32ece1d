"""Engines in threads of their own: the same results as one after the other, with and without the GIL."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fusion import Engine, _kernels
from fusion.live.supervisor import STORES_WITHOUT_GIL, stores_per_process
from fusion.money.retailers import Serving
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


def test_stores_share_a_process_where_threads_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_gil, expected in ((True, 1), (False, STORES_WITHOUT_GIL)):
        monkeypatch.setattr(sys, "_is_gil_enabled", lambda has_gil=has_gil: has_gil, raising=False)
        assert stores_per_process(Serving()) == expected
        assert stores_per_process(Serving(stores_per_process=3)) == 3


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this interpreter has a GIL")
def test_importing_the_extensions_keeps_the_gil_off() -> None:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    names = [path.name.removesuffix(suffix) for path in Path(_kernels.__file__).parent.glob(f"*{suffix}")]
    assert {"attribution", "state", "triangulation"} <= set(names)
    imports = "\n".join(f"import fusion._kernels.{name}" for name in sorted(names))
    program = f"{imports}\nimport sys; print(sys._is_gil_enabled())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
