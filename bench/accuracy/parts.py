"""What each part of how goods are attributed is worth: the engine without it, on the same recordings.

    python -m bench parts --cache build/visits --seeds 2
    python -m bench parts --cache build/visits --seeds 2 --jobs 2 --out docs/figures

Without a part the engine is as it was before the part was written. People are followed once (`followed.py`), so a
recording costs a replay of its goods for each row. Settled right: share of settled receipts that name exactly what
was taken; intervals are of 95 %. Tables of single scenarios: `python -m bench accuracy`.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import NamedTuple

from bench.accuracy.ablations import constants
from bench.accuracy.replays import replayed
from bench.accuracy.scenarios import CASES, Run, recorded, run_of
from bench.accuracy.scores import score_receipts
from bench.accuracy.truth import true_visits
from bench.intervals import percent
from fusion.chain.batch import map_tasks
from fusion.errors import FusionError
from fusion.files.recordings import Recording
from fusion.goods import billing, missed, weighings
from fusion.goods.hands import Hands, HandTrees
from fusion.people.arms import ArmHistory, Arms

PARTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "hands weighed by the physical model alone": lambda: constants(Hands, trees=HandTrees.none()),
    "arms as recorded, not smoothed": lambda: constants(
        ArmHistory, smoothed=lambda self, rows, _place_m, _within_m: Arms(self.arms_m[rows], self.sd_m[rows])
    ),
    "second hand of a load at any time": lambda: constants(
        Hands, second_ratios=lambda self, event, history: self.log_ratios(event, history, anytime=True)
    ),
    "shelves miss nothing": lambda: constants(missed, MISSED_ALONE=0.0, MISSED_BESIDE=0.0),
    "no waiting for silent plates": lambda: constants(billing, SILENT_MAX_S=0.0),
    "nothing learnt from certain loads": lambda: constants(weighings.Weighings, add=lambda *_: False),
}
# Names say what stands in a part's place.
ROWS: dict[str, tuple[str, ...]] = {"complete": (), **{name: (name,) for name in PARTS}, "all of these": tuple(PARTS)}


class Job(NamedTuple):
    """A run to score, whose recording is kept in `cache`."""

    run: Run
    cache: Path


def _work(job: Job) -> dict[str, Counter[str]]:
    recording = recorded(job.run, job.cache)
    store, visits = Recording(recording).store, true_visits(recording)
    price = {product.gtin: product.price for product in store.products}
    scores = {}
    for label, parts in ROWS.items():
        with ExitStack() as removed:
            for name in parts:
                removed.enter_context(PARTS[name]())
            answers = replayed(store, Recording(recording).observations(), kept=recording)
        score = score_receipts(visits, answers.receipts, price)
        scores[label] = Counter(
            visits=score.visits, settled=score.settled, right=score.settled_right, review=score.review
        )
    return scores


def table(sums: dict[str, Counter[str]]) -> str:
    """The rows as Markdown."""
    lines = ["| engine | visits | settled right % | review % |", "|---|---|---|---|"]
    for label, n in sums.items():
        right, review = percent(n["right"], n["settled"]), percent(n["review"], n["visits"])
        lines.append(f"| {label} | {n['visits']} | {right} | {review} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short runs")
    parser.add_argument("--case", default="", help="only rows whose name or title contains this")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each scenario")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument(
        "--cache", type=lambda name: Path(name).absolute(), required=True, help="keep recordings and people here"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--out", type=Path, help="folder for the page")
    args = parser.parse_args(arguments)
    chosen = [case for case in CASES if args.case in case.name or args.case in case.title]
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    jobs = [Job(run_of(case, seed, args.quick), args.cache) for case in chosen for seed in seeds]
    sums = {label: Counter[str]() for label in ROWS}
    for task in map_tasks(_work, jobs, workers=args.jobs):
        if task.value is None:
            raise FusionError(f"{task.item.run.case}, seed {task.item.run.seed}: {task.fault}")
        for label, counts in task.value.items():
            sums[label] += counts
        print(task.item.run.case, task.item.run.seed, file=sys.stderr, flush=True)
    print(table(sums))
    if args.out:
        first = f" --first-seed {args.first_seed}" if args.first_seed != 1 else ""
        command = f"python -m bench parts --cache build/visits --seeds {args.seeds}{first} --out {args.out}"
        about = (__doc__ or "").partition("\n\n")[2].partition("\n\n")[2]
        title = "# What the parts of attribution are worth"
        page = f"{title}\n\nMade by `{command}`.\n\n{table(sums)}\n\n{about}"
        (args.out / "accuracy_parts.md").write_text(page, "utf-8")


if __name__ == "__main__":
    main()
