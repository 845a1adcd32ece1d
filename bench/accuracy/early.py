"""Early receipts: how long after the exit they come, and how many differ from the final ones.

    python -m bench early [--case calm,busy] [--seeds 1] [--cache FOLDER] [--dev]

Each recording is run four times, as its messages would arrive: in order; each up to 80 ms after its time, as over a
network; and with 1 or 10 % of them up to two seconds late. The final receipts must be the same in each. Seconds are
data time from the last exit to the newest message that had come when a receipt was given. CPU is the whole, with the
engine that runs ahead, over the engine's alone on the same messages.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.accuracy.scenarios import CASES, recorded, run_of
from fusion.early.ahead import Ahead
from fusion.engine import Engine
from fusion.files.recordings import Recording
from fusion.observations import Observation
from fusion.results import EarlyReceipt, Receipt, Result, ShelfEventExplained
from fusion.store.models import Store

# Seconds by which a message is delayed, drawn from a generator. A little less than two, since the newest message itself
# may be delayed as well.
ARRIVALS: dict[str, Callable[[random.Random], float]] = {
    "in order": lambda _draw: 0.0,
    "up to 80 ms": lambda draw: draw.uniform(0.0, 0.08),
    "1 % late": lambda draw: draw.uniform(0.0, 1.9) if draw.random() < 0.01 else 0.0,
    "10 % late": lambda draw: draw.uniform(0.0, 1.9) if draw.random() < 0.1 else 0.0,
}


class Counted(NamedTuple):
    """Early receipts of one recording and one kind of arrival.

    Attributes:
        n_visits: final receipts, without those that the end of the data closed.
        early_s, final_s: from the exit to the receipt.
        stated: probability of a correction, of each early receipt.
        corrected, withdrawn, replaced: early receipts, and engines that ran ahead.
        cpu: times the engine's alone.
    """

    n_visits: int
    early_s: list[float]
    final_s: list[float]
    stated: list[float]
    corrected: int
    withdrawn: int
    replaced: int
    cpu: float


def arriving(observations: Sequence[Observation], arrival: str, seed: int = 1) -> list[Observation]:
    """Observations in the order in which they arrive."""
    draw, delay = random.Random(seed), ARRIVALS[arrival]
    arrive_ns = [observation.t_ns + round(delay(draw) * 1e9) for observation in observations]
    return [observations[i] for i in sorted(range(len(observations)), key=lambda i: (arrive_ns[i], i))]


def final(results: Sequence[Result]) -> list[str]:
    """What must not depend on the order of arrival."""
    return [repr(result) for result in results if isinstance(result, Receipt | ShelfEventExplained)]


def alone(store: Store, observations: Sequence[Observation]) -> tuple[list[str], float]:
    """Final results of an engine alone, and the seconds that it takes."""
    engine = Engine(store)
    started_s = time.thread_time()
    results = [result for observation in observations for result in engine.feed(observation)] + engine.close()
    return final(results), time.thread_time() - started_s


def counted(store: Store, observations: Sequence[Observation], wanted: list[str]) -> Counted:
    """Run an engine alone, and one with another one ahead of it; their final results must be those wanted."""
    results_alone, alone_s = alone(store, observations)
    ahead = Ahead(Engine(store))
    started_s = time.thread_time()
    results = [result for observation in observations for result in ahead.feed(observation)]
    n_open = len(results)
    results += ahead.close()
    ahead_s = time.thread_time() - started_s
    assert final(results) == results_alone == wanted, "the order of arrival changed the final results"
    early = [result for result in results if isinstance(result, EarlyReceipt)]
    # What the end of the data closes at once says nothing about the time that a receipt takes.
    receipts = [result for result in results[:n_open] if isinstance(result, Receipt)]
    return Counted(
        len(receipts),
        [(one.receipt.issued_ns - one.receipt.exit_ns) * 1e-9 for one in early],
        [(receipt.issued_ns - receipt.exit_ns) * 1e-9 for receipt in receipts],
        [one.correction_probability for one in early],
        ahead.n_corrected, ahead.n_withdrawn, ahead.n_replaced, ahead_s / alone_s,
    )  # fmt: skip


def row(title: str, arrival: str, runs: Sequence[Counted]) -> str:
    """A line of the table."""
    early, final_s = ([s for run in runs for s in getattr(run, name)] for name in ("early_s", "final_s"))
    stated = [p for run in runs for p in run.stated]
    p50, p99 = np.percentile(early, [50, 99]) if early else (np.nan, np.nan)
    final50, final99 = np.percentile(final_s, [50, 99]) if final_s else (np.nan, np.nan)
    n_corrected = sum(run.corrected + run.withdrawn for run in runs)
    return (
        f"| {title} | {arrival} | {sum(run.n_visits for run in runs)} | {len(early)} | {p50:.2f} / {p99:.2f} "
        f"| {final50:.2f} / {final99:.2f} | {n_corrected} | {sum(stated):.1f} | {sum(run.replaced for run in runs)} "
        f"| {np.mean([run.cpu for run in runs]):.2f} |"
    )


def _recordings(args: argparse.Namespace) -> Iterator[tuple[str, list[Recording]]]:
    if args.dev:
        data = Path(os.environ.get("FUSION_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
        yield "independent generator", [Recording(path) for path in sorted((data / "dev").glob("*"))]
    for case in CASES:
        if case.name in args.case.split(","):
            runs = [run_of(case, seed, args.quick) for seed in range(1, args.seeds + 1)]
            yield case.title, [Recording(recorded(run, args.cache)) for run in runs]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="calm,busy", help="rows of the accuracy benchmark, by name (calm,busy)")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each row")
    parser.add_argument("--quick", action="store_true", help="a quarter of the visits")
    parser.add_argument("--cache", type=Path, default=Path("early"), help="keep the recordings here (early)")
    parser.add_argument("--dev", action="store_true", help="also the recordings of another generator in FUSION_DATA")
    args = parser.parse_args(arguments)
    print(
        "| shop | arrival | visits | early | early, s p50 / p99 | final, s | corrected | stated | replaced | CPU |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    for title, recordings in _recordings(args):
        runs: dict[str, list[Counted]] = {arrival: [] for arrival in ARRIVALS}
        for recording in recordings:
            observations = list(recording.observations())
            wanted, _ = alone(recording.store, observations)
            for arrival, so_far in runs.items():
                so_far.append(counted(recording.store, arriving(observations, arrival), wanted))
                print(title, arrival, so_far[-1]._replace(stated=[]), file=sys.stderr, flush=True)
        for arrival, measured in runs.items():
            print(row(title, arrival, measured), flush=True)
    return 0
