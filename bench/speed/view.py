"""The cost of a Rerun recording beside an engine: CPU time of a replay without and with `fusion.show.rerun_view.View`.

    python -m bench view [CAMERAS PEOPLE [MINUTES]]

A simulated recording is replayed as `fusion.replay` does it: read from disk, run, results written. Both ways are run in
turn several times. The work is the same each time, so the figures are the least CPU times of the engine and of the
whole process, which excludes the influence of other programs. Needs the extra `view`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fusion.files.recordings import Recording
from fusion.files.results import ResultsWriter
from fusion.observations import Observation
from fusion.run import Run
from fusion.show.rerun_view import View
from fusion.simulation import Scenario, Simulation, demo_store

REPEATS = 8


def watched(observations: Iterator[Observation], view: View) -> Iterator[Observation]:
    for observation in observations:
        view.observe(observation)
        yield observation


def run(folder: Path, viewed: bool) -> tuple[float, float]:
    """CPU seconds of the engine, and of everything."""
    started_s = time.process_time()
    recording = Recording(folder / "recording")
    observations = recording.observations()
    view = View(folder / "run.rrd", recording.store) if viewed else None
    replayed = Run(recording.store, watched(observations, view) if view else observations)
    writer = ResultsWriter(folder / "out", recording.store, replayed.engine.account_of)
    summary = replayed.drive([writer, view] if view else [writer], recording)
    return summary.engine_cpu_s, time.process_time() - started_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cameras", type=int, nargs="?", default=12)
    parser.add_argument("people", type=int, nargs="?", default=8)
    parser.add_argument("minutes", type=float, nargs="?", default=3.0)
    args = parser.parse_args()
    n_cameras, n_people, minutes = args.cameras, args.people, args.minutes
    store = demo_store(n_cameras=n_cameras)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Simulation(store, Scenario(seed=1, minutes=minutes, shoppers=n_people)).write(folder / "recording")
        run(folder, True)
        plain, viewed = [], []
        for _ in range(REPEATS):
            plain.append(run(folder, False))
            viewed.append(run(folder, True))
        size = (folder / "run.rrd").stat().st_size
    print(f"{n_cameras} cameras, {n_people} shoppers, {len(store.plates)} plates, {minutes:g} minutes")
    for i, part in enumerate(("the engine", "the whole replay")):
        before, after = min(times[i] for times in plain), min(times[i] for times in viewed)
        print(f"CPU of {part}: {before:.3f} s without, {after:.3f} s with the view: {after / before - 1:+.1%}")
    print(f"{size / 1e6:.1f} MB, {size / 1e6 / minutes:.1f} MB a minute")
