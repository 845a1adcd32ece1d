"""Resident memory and start of a store's process, by part; and what a store takes that shares the parts with others.

    OMP_NUM_THREADS=1 python -m bench memory

A process imports one part after the other and then serves a simulated store for half a minute of data, which it is sent
by another one. Memory is the process's private memory, in MiB; time is wall-clock time, with kernels that were compiled
before. `fusion serve` forks the processes of its stores from one that has loaded all but the last two parts
(live/warm.py), so each of its stores takes what the last table states.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).resolve().parents[2]
USED_S = 30.0
# One after the other; each is what the ones before it have not loaded.
PARTS = {
    "NumPy": "import numpy",
    "pydantic, SQLite": "import pydantic, sqlite3, ssl",
    "Numba": "import numba",
    "Numba's types, with the first kernels": "from fusion._kernels import association; association.warm_up()",
}


def private_mib() -> float:
    """Memory of this process that no other one shares."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def measured(name: str, began_s: float, before_mib: float) -> float:
    """Print what a part added; returns the memory now."""
    now_mib = private_mib()
    print(f"| {name} | {now_mib - before_mib:.1f} | {time.perf_counter() - began_s:.2f} |", flush=True)
    return now_mib


def serve_from(stream: BinaryIO) -> None:
    """In a new process: import all parts, then give an engine the observations of a stream of pickles."""
    mib = measured("interpreter", time.perf_counter(), 0.0)
    for name, program in PARTS.items():
        began_s = time.perf_counter()
        exec(program, {})
        mib = measured(name, began_s, mib)
    began_s = time.perf_counter()
    import fusion.live.worker  # noqa: F401
    from fusion.engine import Engine
    from fusion.snapshots import freeze

    mib = measured("the engine's and the process's modules", began_s, mib)
    store = pickle.load(stream)
    began_s = time.perf_counter()
    from fusion.simulation import demo_store

    Engine(demo_store(n_cameras=2, n_plates=2))
    gc.collect()
    mib = measured("all kernels, and a first engine", began_s, mib)
    began_s = time.perf_counter()
    engine = Engine(store)
    mib = measured(f"tables of {len(store.cameras)} cameras, {len(store.plates)} plates", began_s, mib)
    began_s, seconds = time.perf_counter(), 0.0
    while (observation := pickle.load(stream)) is not None:
        engine.feed(observation)
    seconds = time.perf_counter() - began_s
    gc.collect()
    measured(f"what {USED_S:.0f} s of data fill and learn", time.perf_counter() - seconds, mib)
    state_mib = len(freeze(engine).body) / 2**20
    print(f"\nall: {private_mib():.1f} MiB; state without held observations: {state_mib:.1f} MiB\n", flush=True)


def forked(pipe: Connection, store: object) -> None:
    """In a process that was forked from a warm one: an engine, and its private memory."""
    from fusion.engine import Engine

    before_mib = private_mib()
    engine = Engine(store)  # type: ignore[arg-type]
    with_engine_mib = private_mib()
    gc.collect()
    pipe.send((before_mib, with_engine_mib, private_mib()))
    del engine


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, nargs="*", default=[4, 12, 100])
    wanted = parser.parse_args().cameras
    # Not above: a process that is measured imports this module as well.
    from bench.speed.standstill import MINUTES, SHAPES
    from fusion.simulation import Scenario, Simulation, demo_store

    stores = []
    for n_cameras, n_plates, n_people in (shape for shape in SHAPES if shape[0] in wanted):
        print("| part | private MiB | s |\n|---|---|---|", flush=True)
        store = demo_store(n_cameras=n_cameras, n_plates=n_plates)
        stores.append(store)
        scenario = Scenario(seed=5, minutes=MINUTES, shoppers=round(MINUTES * n_people), picks_per_person=8.0)
        until_ns = scenario.start_ns + round(USED_S * 1e9)
        program = "import sys; from bench.speed.memory import serve_from; serve_from(sys.stdin.buffer)"
        command = [sys.executable, "-c", program]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as child:
            assert child.stdin is not None
            pickle.dump(store, child.stdin)
            for one in Simulation(store, scenario).observations():
                if one.t_ns >= until_ns:
                    break
                pickle.dump(one, child.stdin)
            pickle.dump(None, child.stdin)
            child.stdin.close()
            assert child.wait() == 0
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fusion.live.worker", "fusion.live.warm"])
    print("| a store's process, private MiB | once forked | with its engine | after a collection of garbage |")
    print("|---" * 4 + "|", flush=True)
    for store in stores:
        ours, theirs = context.Pipe()
        process = context.Process(target=forked, args=(theirs, store))
        process.start()
        print(f"| {len(store.cameras)} cameras | " + " | ".join(f"{mib:.1f}" for mib in ours.recv()) + " |", flush=True)
        process.join()
