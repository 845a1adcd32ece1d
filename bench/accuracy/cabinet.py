"""A cabinet without cameras: receipts of simulated openings against the truth.

    python -m bench cabinet                          2000 openings in ten cabinets, some minutes of one core
    python -m bench cabinet --openings 200 --runs 1
    python -m bench cabinet --explain build/cabinet.md --out docs/figures

Every run is the example store `cabinet`, a door before twelve plates of ten samples a second, in another state: other
gains, offsets, noise, deliveries. Customers take, hold, put back on the right tray and on wrong ones, press and lean;
a fifth has a child beside them, whose hand reaches in and out; the door slams; an employee refills. Shares of what they
do are those of the labelled recordings of a real shop, of which 24 in a hundred loads are put-backs and 43 in a hundred
of these go to a wrong place. Plates are as bad as those of that shop, and its load cells' errors come on top.

- right: settled, and exactly the goods that the visit took. wrong: settled with other goods. review: a person looks.
- right in review: share of the receipts in review that hold exactly those goods.

Brackets hold the exact 95 % confidence interval (Clopper and Pearson 1934).
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

import fusion
from bench.intervals import percent
from fusion.example_stores.catalogue import store_folder
from fusion.results import Receipt
from fusion.sentences import reason_text
from fusion.simulation import Scenario
from fusion.simulation.cabinet import CabinetSimulation
from fusion.store.models import Store

# The settings of every run; children: a fifth of the openings.
SCENARIO: dict[str, Any] = {
    "picks_per_person": 2.0,
    "put_back_probability": 0.24,
    "wrong_place_probability": 0.43,
    "touch_probability": 0.3,
    "odd_reach_probability": 0.12,
    "straddle_probability": 0.0,
    "staff": 1,
    "place_gain_sd": 0.01,
    "creep_share": 0.004,
    "hum_g": 0.6,
    "batch_weight_sd": 0.006,
    "drift_g_per_min": 0.1,
}
# What is asked of the table: at least this share right, and none wrong.
WANTED_RIGHT = 0.995


@dataclass
class Tally:
    """Receipts by outcome, and reasons of those in review."""

    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    details: list[str] = field(default_factory=list)
    wall_s: float = 0.0
    data_s: float = 0.0


def run(store: Store, seed: int, openings: int, tally: Tally) -> None:
    """Simulate a cabinet, replay it and count its receipts."""
    children = openings // 5
    scenario = Scenario(seed=seed, shoppers=openings, children=children, minutes=0.6 * openings + 1.0, **SCENARIO)
    simulation, engine = CabinetSimulation(store, scenario), fusion.Engine(store)
    receipts: dict[str | None, list[Receipt]] = {}
    started_s = time.perf_counter()
    for observation in simulation.observations():
        for result in engine.feed(observation):
            if isinstance(result, Receipt):
                receipts.setdefault(result.account, []).append(result)
    for result in engine.close():
        if isinstance(result, Receipt):
            receipts.setdefault(result.account, []).append(result)
    tally.wall_s += time.perf_counter() - started_s
    tally.data_s += (engine.newest_ns - scenario.start_ns) * 1e-9
    for visit in simulation.truth.visits:
        mine = receipts.get(visit.account, [])
        billed: Counter[str] = Counter()
        for receipt in mine:
            for line in receipt.lines:
                billed[line.gtin] += line.quantity
        is_right = billed == Counter(visit.items)
        is_settled = bool(mine) and all(receipt.status == "settled" for receipt in mine)
        outcome = ("right" if is_right else "wrong") if is_settled else "review"
        tally.outcomes[outcome] += 1
        tally.outcomes["right in review"] += not is_settled and is_right
        reasons = [reason for receipt in mine for reason in receipt.reasons]
        tally.reasons.update({reason.kind.value for reason in reasons})
        if outcome != "right":
            tally.details.append(f"{outcome}: seed {seed}, {visit.account}: {reason_text(reasons) or 'no reason'}")


def table(tally: Tally, runs: int) -> list[str]:
    """The figures in Markdown."""
    n, right = sum(tally.outcomes[k] for k in ("right", "wrong", "review")), tally.outcomes["right"]
    wrong, review = tally.outcomes["wrong"], tally.outcomes["review"]
    verdict = "reached" if right >= math.ceil(WANTED_RIGHT * n) and not wrong else "missed"
    return [
        "# A cabinet without cameras",
        "",
        f"Made by `python -m bench cabinet --openings {n} --runs {runs} --out docs/figures`.",
        "",
        "| openings | right % | wrong % | review % | right in review % |",
        "|---|---|---|---|---|",
        f"| {n} | {percent(right, n)} | {percent(wrong, n)} | {percent(review, n)}"
        f" | {percent(tally.outcomes['right in review'], review)} |",
        "",
        f"Wanted: at least {100 * WANTED_RIGHT:g} % right and none wrong: {verdict}.",
        "",
        "| reason for a review | receipts |",
        "|---|---|",
        *(f"| `{kind}` | {count} |" for kind, count in tally.reasons.most_common()),
    ]


def main() -> None:
    """Run the openings and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openings", type=int, default=2000, help="in all runs together (2000)")
    parser.add_argument("--runs", type=int, default=10, help="cabinets, each with its own seed (10)")
    parser.add_argument("--seed", type=int, default=1, help="of the first run (1)")
    parser.add_argument("--explain", type=Path, help="file for every receipt that is not settled and right")
    parser.add_argument("--out", type=Path, help="folder for cabinet.md")
    args = parser.parse_args()
    if not 1 <= args.runs <= args.openings:
        parser.error(f"runs: want 1 to {args.openings} (the number of openings), got {args.runs}")
    store, tally = Store.load(store_folder("cabinet")), Tally()
    for seed in tqdm(range(args.seed, args.seed + args.runs), unit="cabinet"):
        run(store, seed, args.openings // args.runs, tally)
    lines = table(tally, args.runs)
    print("\n".join(lines))
    print(f"\n{tally.data_s / 3600:.1f} hours of data in {tally.wall_s:.0f} s, simulation included")
    if args.explain is not None:
        args.explain.write_text("\n".join(tally.details) + "\n", encoding="utf-8")
    if args.out is not None:
        (args.out / "cabinet.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
