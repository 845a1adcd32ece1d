"""Who took what: receipts of simulated visits against the truth, with a plain method for comparison.

    OMP_NUM_THREADS=1 python -m bench accuracy                       all rows, at least 200 visits each
    OMP_NUM_THREADS=1 python -m bench accuracy --quick               all rows, one short run each: a minute
    python -m bench accuracy --cache build/visits --jobs 2 --ablations --out docs/figures
    python -m bench accuracy --cache build/visits --cluster local    on a Ray of its own, or on a cluster by its address
    python -m bench accuracy --case busy --seeds 3 --explain causes.md

Every run is simulated with faults, written as a recording of the file contract, and replayed. `--cache` keeps the
recordings under a hash of the scenario, the store and the simulator's source, so that a changed engine is measured in
a fraction of the time, and people as they were followed, so that a changed engine of goods is measured in a tenth of
it. `--explain` lists why receipts went to review and why settled receipts were wrong. `python -m
bench public` scores recorded visits, and visits of another generator, in the same way.

The simulator varies what the engine's model does not know: labels that are off by one delivery, gains that differ
from place to place on a plate, load cells that creep, cooling machines that shake a gondola, hands that press a
product down before they lift it, reaches from the side and with the other hand, and cameras that hang slightly
tilted.

Figures are sums over all runs of a row; a run is one shop with one seed. Brackets hold the 95 % confidence interval:
exact (Clopper and Pearson 1934) for shares; for the calibration error, the 2.5 and 97.5 % quantiles of a bootstrap
over runs.

- at once: people in the shop as one of them meets them, i.e. the mean over people, not over time.
- review: share of visits whose receipt a person has to look at. Shares count visits of people who checked in.
- settled right: share of the settled receipts that hold exactly the goods that the visit took.
- any right: the same share of all receipts, whatever their status; settling everything would give it.
- over, under: the amount that settled receipts charge too much and too little, as a share of the true basket value.
- ECE: expected calibration error of the receipts' line confidences, ten bins of equal width (Guo et al. 2017).
- with one question: the same where the shopper of each receipt in review answers the most informative question about
  it, truthfully, and the receipt is settled if its probability then meets the limit.
- threshold: of a receipt's probability, from which on it is settled; wrong as stated: mean of 1 - probability over
  these receipts. receipt, person, product: expected calibration error of the receipts' probabilities, and of who moved
  each load and what it was (or that nothing moved); above 0.02 the cell says whether chance explains it, or which way
  the model is off there.
- p50, p99: seconds of data time from the last exit to the receipt. `late` is the 99th percentile of the time after
  the last of its evidence could arrive: a load settles within 0.75 s, and messages may be two seconds late.
- attribution: CPU time of attributing one event, microseconds, median and 99th percentile.
- takes, puts: true loads on plates that work; missed: not reported; misread: off by more than 4 g and 3 % of what the
  plates show; phantoms: reported loads without a true one, those that were recognised as no goods included. beside:
  loads within a second and 0.45 m of another person's.
- violations: settled receipts of unscanned people, goods of unscanned people or staff on another visitor's settled
  bill, and settled bills for an account that was not in the shop.

The plain method is of the kind that won an open competition. It gets our tracks and visits, so that only goods and
hands are compared: sum the plates of a shelf; an event is half a second with more than 20 g of deviation that leaves
more than 10 g; the product is the nearest in weight among those planned on the changed plates; the person is the one
whose wrist or head was nearest at the peak of the deviation. It settles every receipt whose visit is not itself in
doubt.

`--ablations` removes parts and adds two. One added part is knowledge: the gain of every plate and the weight of every
delivery, so that only the piece, its place on the plate and noise leave a load in doubt. The other is a camera with a
product classifier that sees eight of ten hands at a plate and is right nine times of ten, reported as in
`items.jsonl`. Scales cannot separate goods of equal weight.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.accuracy.ablations import ABLATED, ABLATIONS
from bench.accuracy.plain import plain_receipts
from bench.accuracy.replays import replayed
from bench.accuracy.risk import answered
from bench.accuracy.scenarios import CASES, Run, recorded, run_of
from bench.accuracy.scores import Outcome, matched_events, score_receipts, wrongly_billed
from bench.accuracy.shelves import score_shelves
from bench.accuracy.shopper import asked_once
from bench.accuracy.tables import ablation_table, all_runs, figures, markdown
from bench.accuracy.truth import people_at_once, true_events, true_loads, true_visits
from fusion.chain.batch import map_tasks
from fusion.errors import FusionError
from fusion.files.recordings import Recording


def measure(
    run: Run, recording: Path, ablations: Sequence[str] = (), explain: bool = False, keep: bool = False
) -> Outcome:
    """Score a recording with the engine, the plain method and the named ablations. keep: people as followed."""
    opened = Recording(recording)
    store = opened.store
    visits, events = true_visits(recording), true_events(recording)
    price = {product.gtin: product.price for product in store.products}
    last_ns: dict[str, int] = {}
    for event in events:
        if event.account is not None:
            last_ns[event.account] = max(event.t_ns, last_ns.get(event.account, 0))
    answers = replayed(store, opened.observations(), keep=True, kept=recording if keep else None)
    pairs = matched_events(store, events, answers.events)
    ours = score_receipts(visits, answers.receipts, price, last_ns)
    billed = wrongly_billed(pairs, visits, answers.receipts)
    if billed:
        ours.violations["unscanned or staff, on another's settled bill"] += billed
    ours.attribution_us = answers.attribution_us
    ours.shelves = score_shelves(store, pairs, true_loads(recording), answers.readings)
    ours.at_once = [people_at_once(recording, store)]
    ours.asked = asked_once(store, visits, pairs, answers.receipts, answers.evidence)
    answers_right = answered(pairs)
    ours.persons, ours.products = [one.person for one in answers_right], [one.product for one in answers_right]
    plain = score_receipts(visits, plain_receipts(store, answers), price)
    ablated = {}
    for name in ablations:
        answers_ablated = ABLATIONS[name](run, store, Recording(recording).observations(), events)
        ablated[name] = score_receipts(visits, answers_ablated.receipts, price)
    causes: list[Any] = []
    if explain:
        from bench.accuracy.causes import causes_of

        causes = causes_of(run.case, run.seed, store, visits, events, answers, pairs)
    return Outcome(run.case, run.seed, ours, plain, ablated, causes)


class Job(NamedTuple):
    """A run to score. cache: folder that keeps its recording; None for a temporary one."""

    run: Run
    cache: Path | None
    ablations: tuple[str, ...]
    explain: bool


def _work(job: Job) -> Outcome:
    if job.cache is not None:
        return measure(job.run, recorded(job.run, job.cache), job.ablations, job.explain, keep=True)
    with tempfile.TemporaryDirectory() as folder:
        return measure(job.run, recorded(job.run, Path(folder)), job.ablations, job.explain)


def outcomes(jobs: Sequence[Job], n_processes: int, cluster: str | None = None) -> Iterator[Outcome]:
    """Outcomes in the order of the jobs. Raises FusionError if a job failed."""
    waiting: dict[int, Outcome] = {}
    n_yielded = 0
    for task in map_tasks(_work, jobs, workers=n_processes, cluster=cluster):
        if task.value is None:
            raise FusionError(f"{task.item.run.case}, seed {task.item.run.seed}: {task.fault}")
        waiting[task.index] = task.value
        while n_yielded in waiting:
            yield waiting.pop(n_yielded)
            n_yielded += 1


def page(measured: dict[str, Any]) -> str:
    """The published page: plots, tables, and the explanation of their figures."""
    explanation = (__doc__ or "").partition("\n\n")[2].partition("\n\n")[2]
    receipts = "![Settled receipts that are right, and receipts that go to review](accuracy_receipts.svg)"
    plot = "![Share of receipt lines that are right over their confidence](accuracy.svg)"
    head = f"# Who took what, in simulated shops\n\nMade by `{measured['command']}`."
    parts = [head, receipts, markdown(measured), plot]
    if measured["all"].get("risk_curve"):
        parts.append("![Share of settled receipts that are wrong over the share settled](accuracy_risk.svg)")
    if measured["parts"]:
        ablations = "![Ablations: right and reviewed receipts with one part removed or added](accuracy_parts.svg)"
        parts += ["Ablations, on the same recordings:", ablations, ablation_table(measured)]
    return "\n\n".join(parts) + f"\n\n{explanation}"


def _command(args: argparse.Namespace) -> str:
    """The command line, without the options that do not change the figures."""
    words = ["python -m bench accuracy"]
    words += ["--quick"] if args.quick else []
    words += [f"--case '{args.case}'"] if args.case else []
    words += [f"--seeds {args.seeds}"] if args.seeds else []
    words += [f"--first-seed {args.first_seed}"] if args.first_seed != 1 else []
    words += ["--ablations"] if args.ablations else []
    return " ".join([*words, f"--out {args.out}"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the accuracy benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short run of each row")
    parser.add_argument("--case", default="", help="only rows whose name or title contains this")
    parser.add_argument("--seeds", type=int, help="runs of each row; default: enough for 200 visits")
    parser.add_argument("--first-seed", type=int, default=1, help="first seed; development used those from 1 on")
    parser.add_argument("--cache", type=lambda name: Path(name).absolute(), help="keep the recordings here")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--cluster", metavar="ADDRESS", help="'local' for a Ray of its own, or a cluster's address")
    parser.add_argument("--ablations", action="store_true", help=f"also ablated engines, on {', '.join(ABLATED)}")
    parser.add_argument("--explain", type=Path, help="write the causes of doubt and error here")
    parser.add_argument("--out", type=Path, help="folder for tables, plots and their figures as JSON")
    args = parser.parse_args(arguments)
    chosen = [case for case in CASES if args.case in case.name or args.case in case.title]
    jobs = []
    for case in chosen:
        n_seeds = args.seeds or (1 if args.quick else case.n_seeds)
        ablations = tuple(ABLATIONS) if args.ablations and case.name in ABLATED else ()
        for seed in range(args.first_seed, args.first_seed + n_seeds):
            jobs.append(Job(run_of(case, seed, args.quick), args.cache, ablations, args.explain is not None))
    started_s = time.perf_counter()
    results: dict[str, list[Outcome]] = {}
    for outcome in outcomes(jobs, args.jobs, args.cluster):
        results.setdefault(outcome.case, []).append(outcome)
        s = outcome.ours
        ours = {"visits": s.visits, "settled": s.settled, "right": s.settled_right, "review": s.review}
        plain = {"plain_settled": outcome.plain.settled, "plain_right": outcome.plain.settled_right}
        print(json.dumps({"case": outcome.case, "seed": outcome.seed, **ours, **plain}), file=sys.stderr, flush=True)
    measured = figures(results, _command(args))
    print(markdown(measured))
    if args.ablations:
        print(f"\n{ablation_table(measured)}")
    print(f"\n{sum(len(runs) for runs in results.values())} runs in {time.perf_counter() - started_s:.0f} s")
    if args.explain:
        from bench.accuracy.causes import causes_page

        args.explain.write_text(causes_page([cause for run in all_runs(results) for cause in run.causes]), "utf-8")
    if args.out:
        from bench.plots import publish

        publish("accuracy", measured, page, args.out)
