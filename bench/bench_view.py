"""What a Rerun recording costs beside an engine: CPU time of a run without and with `fusion.view.View`.

    python bench/bench_view.py [CAMERAS PEOPLE [MINUTES]]

Observations are made beforehand, so that the run is the engine and its results alone. Each is run in turn several
times; medians are told. Needs the extra `view`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from fusion.config import Store
from fusion.observations import Observation
from fusion.run import Run
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.view import View

REPEATS = 5


def watched(observations: list[Observation], view: View) -> Iterator[Observation]:
    for observation in observations:
        view.observe(observation)
        yield observation


def run(store: Store, observations: list[Observation], path: Path | None) -> tuple[float, float]:
    """CPU seconds of the engine, and of everything."""
    started_s = time.process_time()
    if path is None:
        one = Run(store, observations)
        n_results = sum(1 for _ in one.results()) + len(one.finish())
        assert n_results
    else:
        with View(path, store) as view:
            one = Run(store, watched(observations, view))
            for result in one.results():
                view.add(result)
            for result in one.finish():
                view.add(result)
    return one.summary().engine_cpu_s, time.process_time() - started_s


def main() -> None:
    given = sys.argv[1:]
    n_cameras, n_people = (int(given[0]), int(given[1])) if len(given) > 1 else (12, 8)
    minutes = float(given[2]) if len(given) > 2 else 3.0
    store = demo_store(n_cameras=n_cameras)
    scenario = Scenario(seed=1, minutes=minutes, shoppers=n_people)
    observations = list(Simulation(store, scenario).observations())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.rrd"
        run(store, observations, path)
        plain, viewed = [], []
        for _ in range(REPEATS):
            plain.append(run(store, observations, None))
            viewed.append(run(store, observations, path))
        size = path.stat().st_size
    engine = median(one[0] for one in plain), median(one[0] for one in viewed)
    whole = median(one[1] for one in plain), median(one[1] for one in viewed)
    print(f"{n_cameras} cameras, {n_people} shoppers, {len(store.plates)} plates, {minutes:g} minutes")
    for what, (before, after) in (("engine", engine), ("everything", whole)):
        print(f"CPU of {what}: {before:.3f} s without, {after:.3f} s with the view: {after / before - 1:+.1%}")
    print(f"{size / 1e6:.1f} MB, {size / 1e6 / minutes:.1f} MB a minute")


if __name__ == "__main__":
    main()
