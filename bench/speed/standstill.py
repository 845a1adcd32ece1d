"""How long an engine waits for its snapshot, and what the writing in another thread then costs its steps.

    OMP_NUM_THREADS=1 python -m bench standstill
    OMP_NUM_THREADS=1 python -m bench standstill --cameras 100

A simulated shop fills the engine. Then snapshots are taken as a live store takes them: frozen between two steps, and
packed in another thread while the engine continues. `frozen` is how long the engine waits, in the thread's CPU time and
on the clock; `copied` is what a copy in the same process takes, as for early receipts. The last two columns compare the
slowest call of `feed` with and without a snapshot on its way. The copy is asserted to continue as its engine does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile

import numpy as np

from bench.endurance.snapshots import as_bytes
from fusion.engine import Engine
from fusion.observations import Observation
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.snapshots import copied, freeze

# Cameras, plates, people inside at a time.
SHAPES = ((4, 24, 4), (12, 160, 8), (100, 520, 20))
# Of data that are used, of a run of some minutes.
USED_S, MINUTES = 40.0, 3.0
# Of the shop's beginning and of its end, by observations: filled by the first, measured during the second.
FILLED = 0.7
N_SNAPSHOTS = 9


def timed_ms(what: Callable[[], object]) -> tuple[float, float]:
    """CPU time of the thread and time on the clock that a call takes."""
    cpu_ns, clock_ns = time.thread_time_ns(), time.perf_counter_ns()
    what()
    return (time.thread_time_ns() - cpu_ns) * 1e-6, (time.perf_counter_ns() - clock_ns) * 1e-6


def slowest_ms(engine: Engine, observations: Sequence[Observation]) -> float:
    """The slowest call of `feed`, on the clock."""
    worst = 0
    for observation in observations:
        began_ns = time.perf_counter_ns()
        engine.feed(observation)
        worst = max(worst, time.perf_counter_ns() - began_ns)
    return worst * 1e-6


def row(n_cameras: int, n_plates: int, n_people: int) -> str:
    """A line of the table."""
    store = demo_store(n_cameras=n_cameras, n_plates=n_plates)
    scenario = Scenario(seed=5, minutes=MINUTES, shoppers=round(MINUTES * n_people), picks_per_person=8.0)
    until_ns = scenario.start_ns + round(USED_S * 1e9)
    observations = list(takewhile(lambda one: one.t_ns < until_ns, Simulation(store, scenario).observations()))
    engine, n_filled = Engine(store), round(FILLED * len(observations))
    for observation in observations[:n_filled]:
        engine.feed(observation)
    ahead = copied(engine)
    pieces = np.array_split(np.arange(n_filled, len(observations)), 2 * N_SNAPSHOTS)
    frozen, copies, alone, beside, size = [], [], [], [], 0
    with ThreadPoolExecutor(1) as writer:
        for k in range(N_SNAPSHOTS):
            state = freeze(engine)
            frozen.append(timed_ms(lambda: freeze(engine)))
            packed = writer.submit(state.packed)
            beside.append(slowest_ms(engine, observations[pieces[2 * k][0] : pieces[2 * k][-1] + 1]))
            size = len(packed.result())
            copies.append(timed_ms(lambda: copied(engine))[0])
            alone.append(slowest_ms(engine, observations[pieces[2 * k + 1][0] : pieces[2 * k + 1][-1] + 1]))
    for observation in observations[n_filled:]:
        ahead.feed(observation)
    assert as_bytes(ahead.close()) == as_bytes(engine.close())
    cpu_ms, clock_ms = np.median(frozen, axis=0)
    figures = (cpu_ms, clock_ms, np.max(frozen, axis=0)[1], np.median(copies), np.median(alone), np.median(beside))
    return f"| {n_cameras} | {n_plates} | {size / 1e6:.1f} | " + " | ".join(f"{ms:.1f}" for ms in figures) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, nargs="*", default=[shape[0] for shape in SHAPES])
    wanted = parser.parse_args().cameras
    print("| cameras | plates | MB | frozen ms, CPU | clock | worst | copied ms | slowest step | beside a snapshot |")
    print("|---" * 9 + "|")
    for shape in SHAPES:
        if shape[0] in wanted:
            print(row(*shape), flush=True)
