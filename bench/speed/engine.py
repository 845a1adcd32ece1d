"""The whole engine step on simulated stores: p50, p99 and worst, not only throughput.

    python -m bench engine                       three sizes of store
    python -m bench engine --cameras 28 --people 16 --minutes 2

A step processes one set of frames of all cameras and what shelves and gates reported with it: order in time, people,
visits, shelf events, attribution. Simulating the data is not counted. Receipts are checked against the truth before a
figure is printed, so that a fast but wrong engine does not look good.
"""

from __future__ import annotations

import argparse
import json
import time

from fusion.engine import Engine
from fusion.results import People, Receipt
from fusion.simulation import Scenario, Simulation, demo_store

SIZES = ((8, 80, 8), (12, 80, 8), (28, 200, 16))


def measure(n_cameras: int, n_plates: int, n_people: int, minutes: float, seed: int) -> dict[str, float | int]:
    """Figures of one simulated store. AssertionError if a settled receipt is wrong."""
    store = demo_store(n_cameras=n_cameras, n_plates=n_plates)
    simulation = Simulation(store, Scenario(seed=seed, minutes=minutes, shoppers=n_people, picks_per_person=6.0))
    observations = list(simulation.observations())
    engine = Engine(store, stopwatch_ns=time.perf_counter_ns)
    receipts = []
    n_present = 0
    n_sets = 0
    cpu_s = time.process_time()
    for observation in observations:
        for result in engine.feed(observation):
            if isinstance(result, People):
                n_sets += 1
                n_present += len(result.track_id)
            elif isinstance(result, Receipt):
                receipts.append(result)
    receipts += [result for result in engine.close() if isinstance(result, Receipt)]
    cpu_s = time.process_time() - cpu_s
    truth = {visit.account: {g: n for g, n in visit.items.items() if n} for visit in simulation.truth.visits}
    for receipt in receipts:
        if receipt.status == "settled":
            assert {line.gtin: line.quantity for line in receipt.lines} == truth[receipt.account], receipt
    return {
        "cameras": n_cameras,
        "plates": n_plates,
        "shoppers": n_people,
        "present": round(n_present / max(n_sets, 1), 1),
        "sets": n_sets,
        "sets_per_cpu_s": round(n_sets / cpu_s),
        **{f"step_us_{name}": value for name, value in engine.step_times.summary_us().items()},
        "settled": sum(receipt.status == "settled" for receipt in receipts),
        "review": sum(receipt.status == "review" for receipt in receipts),
    }


def main() -> None:
    """Run one size of store, or the three default sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int)
    parser.add_argument("--plates", type=int, default=80)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    sizes = [(args.cameras, args.plates, args.people)] if args.cameras else SIZES
    for n_cameras, n_plates, n_people in sizes:
        print(json.dumps(measure(n_cameras, n_plates, n_people, args.minutes, args.seed)), flush=True)
