"""What a shop's receipts are worth when its sensors break: every fault of the simulator's library, on five small shops.

    OMP_NUM_THREADS=1 python -m bench faults                        all faults: about two minutes
    OMP_NUM_THREADS=1 python -m bench faults --fault kilograms      those whose name contains this
    OMP_NUM_THREADS=1 python -m bench faults --out docs/figures

Each shop is simulated once, and what its sensors reported is broken in one way at a time: half of the picks (or
put-backs) are struck where a fault strikes around events, seeded.

Columns, shares of all shoppers who checked in:

- right: settled, and exactly what the visit took. review: a person looks first. wrong: settled, and not what was taken,
  although the receipt was not wrong without the fault. none: no receipt, not even one without an account.
- named: runs in which a warning names a broken sensor or its kind, that is not there without the fault.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import fusion
from fusion.engine import Engine
from fusion.errors import FusionError
from fusion.observations import Observation
from fusion.results import Receipt, ReceiptStatus, Warning
from fusion.simulation import Scenario, demo_store
from fusion.simulation.faults import FAULTS, Fault, Part, Run
from fusion.store.models import Store

CLEAN = "clean"
# Between the seeds of a shop's repeats.
REPEAT_SEED = 100
# Words of a warning's kind by which it names a part of the store.
_WORDS = {
    Part.SCALES: ("plate", "scale", "weight"),
    Part.CAMERAS: ("camera", "frame", "detection", "keypoint", "people"),
    Part.CLOCKS: ("clock", "time", "late", "ahead", "hour"),
    Part.GATES: ("gate", "scan", "credential"),
}

# ---- shops -----------------------------------------------------------------------------------------------------------


def _part_of(name: str, n_cameras: int, n_plates: int) -> Store:
    """A part of an example store, so that it is simulated in half a second."""
    store = Store.load(Path(fusion.__file__).parent / "example_stores" / name)
    plates = store.plates[:n_plates]
    names = {plate.plate for plate in plates}
    planogram = tuple(facing for facing in store.planogram if facing.plate in names)
    sold = {facing.gtin for facing in planogram}
    products = tuple(product for product in store.products if product.gtin in sold)
    stride = max(1, len(store.cameras) // n_cameras)
    update = {"cameras": store.cameras[::stride][:n_cameras], "plates": plates}
    return store.model_copy(update={**update, "planogram": planogram, "products": products})


@dataclass(frozen=True)
class Shop:
    """A small shop and a minute in it."""

    store: Callable[[], Store]
    seed: int
    scenario: dict[str, float] = field(default_factory=dict)

    def run(self, repeat: int = 0) -> Run:
        """What its sensors reported; each repeat is another minute of the same shop."""
        usual = {"minutes": 1.0, "shoppers": 3, "frame_rate_hz": 8.0, "put_back_probability": 0.3}
        return Run.of(self.store(), Scenario(seed=self.seed + REPEAT_SEED * repeat, **{**usual, **self.scenario}))  # type: ignore[arg-type]


_STRADDLING = {"straddle_probability": 0.9, "put_back_probability": 1.0, "wrong_place_probability": 0.0}
SHOPS = {
    "demo": Shop(lambda: demo_store(5, 24, 12), 33),
    "narrow plates": Shop(lambda: demo_store(5, 36, 16, plate_width_m=0.1), 14, _STRADDLING),
    "unmanned_box": Shop(lambda: _part_of("unmanned_box", 6, 24), 26),
    "just_walk_out_stadium": Shop(lambda: _part_of("just_walk_out_stadium", 6, 24), 7),
    "rewe_pilot": Shop(lambda: _part_of("rewe_pilot", 6, 24), 39),
}

# ---- outcomes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What an engine made of a run.

    Attributes:
        visits: of each account that visited, "right", "review", "wrong" or "none".
        violations: what must never be, in words.
        warnings: (kind, subject) of each.
        details: of visits that are wrong or without a receipt, in words.
        refused: observations that the engine refused, by what it said.
    """

    visits: dict[str, str]
    violations: tuple[str, ...]
    warnings: frozenset[tuple[str, str]]
    details: tuple[str, ...]
    refused: dict[str, int]

    def count(self, outcome: str) -> int:
        """Visits with an outcome."""
        return sum(value == outcome for value in self.visits.values())

    def settled_wrong_beyond(self, clean: Outcome) -> list[str]:
        """Accounts whose receipt is settled wrong, and was not without the fault."""
        return [a for a, value in self.visits.items() if value == "wrong" and clean.visits.get(a) != "wrong"]

    def names(self, fault: Fault, sensors: Iterable[str], clean: Outcome) -> list[str]:
        """The warnings that name one of the sensors or the fault's part, beyond those of the clean run."""
        known, words = set(sensors), _WORDS[fault.part]
        # A clock's fault is known by its sensor's silence too, and a scale's by the time of its messages.
        words = (*words, *_WORDS[Part.CLOCKS]) if fault.part is not Part.GATES else words
        new = self.warnings - clean.warnings
        named = [
            f"{kind}: {subject}" for kind, subject in sorted(new)
            if subject in known or any(word in kind or word in subject for word in words)
        ]  # fmt: skip
        return named + [f"refused: {text}" for text in self.refused]


def answered(store: Store, observations: Iterable[Observation]) -> tuple[Engine, list[Any], Counter[str]]:
    """An engine's answers to a run. What it refuses is dropped and counted, as a live store's intake does."""
    engine = Engine(store)
    results: list[Any] = []
    refused: Counter[str] = Counter()
    for observation in observations:
        try:
            results += engine.feed(observation)
        except FusionError as error:
            refused[str(error)[:80]] += 1
    results += engine.close()
    return engine, results, refused


def outcome_of(run: Run, observations: Iterable[Observation]) -> Outcome:
    """What an engine makes of observations of a run, compared with the truth."""
    try:
        engine, results, refused = answered(run.store, observations)
    except Exception as error:
        # Whatever ends the process is a violation, and the other cells are measured.
        accounts = [visit.account for visit in run.truth.visits if visit.account]
        text = f"the engine ended: {type(error).__name__}: {error}"
        return Outcome(dict.fromkeys(accounts, "none"), (text,), frozenset(), (), {})
    return judged(run, engine, results, refused)


def judged(run: Run, engine: Engine, results: Sequence[Any], refused: Counter[str]) -> Outcome:
    """An engine's answers to observations of a run, compared with the truth."""
    receipts = [result for result in results if isinstance(result, Receipt)]
    truth = {visit.account: +Counter(visit.items) for visit in run.truth.visits if visit.account}
    visits, details, violations = {}, [], []
    unbound = sum(receipt.account is None for receipt in receipts)
    for account, items in truth.items():
        own = [receipt for receipt in receipts if receipt.account == account]
        billed: Counter[str] = Counter()
        for receipt in own:
            billed.update({line.gtin: line.quantity for line in receipt.lines})
        if sum(receipt.status is ReceiptStatus.SETTLED for receipt in own) > 1:
            violations.append(f"{account} is charged twice")
        if not own:
            # A shopper whose scan was not bound has a receipt without an account.
            visits[account] = "review" if unbound > 0 else "none"
            unbound -= 1
        elif any(receipt.status is ReceiptStatus.REVIEW for receipt in own):
            visits[account] = "review"
        else:
            visits[account] = "right" if billed == items else "wrong"
        if visits[account] in ("wrong", "none"):
            details.append(f"{account}: billed {dict(billed)}, took {dict(items)}")
    for receipt in receipts:
        if receipt.status is ReceiptStatus.SETTLED and receipt.account is None:
            violations.append("a receipt without an account is settled")
        if receipt.status is ReceiptStatus.SETTLED and receipt.lines and receipt.account not in truth:
            violations.append(f"{receipt.account} is charged and was not there")
    if any(engine.journal.totals().values()):
        violations.append("goods are not conserved")
    warnings = frozenset((str(r.kind), r.subject) for r in results if isinstance(r, Warning))
    return Outcome(visits, tuple(violations), warnings, tuple(details), dict(refused))


@cache
def run_of(shop: str, repeat: int = 0) -> Run:
    """A shop's run, simulated once."""
    return SHOPS[shop].run(repeat)


@cache
def clean_of(shop: str, repeat: int = 0) -> Outcome:
    """What an engine makes of a shop's run without a fault."""
    run = run_of(shop, repeat)
    return outcome_of(run, run.observations)


@dataclass(frozen=True)
class Cell:
    """One fault in one shop. wrong: accounts that are settled wrong by it; named: the warnings that name it."""

    fault: str
    shop: str
    outcome: Outcome
    wrong: list[str]
    named: list[str]


def cell(fault: Fault, shop: str, repeat: int = 0) -> Cell:
    """Break a shop's run by a fault."""
    run, clean = run_of(shop, repeat), clean_of(shop, repeat)
    broken = fault.apply(run, seed=SHOPS[shop].seed + REPEAT_SEED * repeat)
    outcome = outcome_of(run, broken.observations)
    wrong = outcome.settled_wrong_beyond(clean)
    return Cell(fault.name, shop, outcome, wrong, outcome.names(fault, broken.sensors, clean))


def faults_in(cell: Cell, fault: Fault) -> Iterator[str]:
    """What must not be in a cell, in words; nothing where all is well."""
    yield from (f"settled wrong: {detail}" for detail in cell.outcome.details if detail.split(":")[0] in cell.wrong)
    yield from (f"no receipt: {account}" for account, value in cell.outcome.visits.items() if value == "none")
    yield from cell.outcome.violations
    if fault.warned and not cell.named:
        yield "no warning names it"


# ---- table -----------------------------------------------------------------------------------------------------------


def row_of(
    name: str, part: str, what: str, outcomes: Sequence[Outcome], named: int | None, wrong: int
) -> dict[str, Any]:
    """A row of the table, ready for JSON."""
    visits = sum(len(outcome.visits) for outcome in outcomes)
    counts = {key: sum(outcome.count(key) for outcome in outcomes) for key in ("right", "review", "none")}
    return {"fault": name, "part": part, "what": what, "visits": visits, **counts, "wrong": wrong, "named": named}


def measure(chosen: Sequence[Fault], repeats: int = 1, failing: bool = False) -> list[dict[str, Any]]:
    """All rows, the clean one first. failing: print what must not be, cell by cell."""
    runs = [(shop, repeat) for shop in SHOPS for repeat in range(repeats)]
    clean = [clean_of(*run) for run in runs]
    rows = [row_of(CLEAN, "", "nothing is broken", clean, None, sum(o.count("wrong") for o in clean))]
    for fault in chosen:
        cells = [cell(fault, *run) for run in runs]
        if failing:
            for one in cells:
                for text in faults_in(one, fault):
                    print(f"{fault.part}: {fault.name} | {one.shop} | {text}", flush=True)
        named = sum(bool(one.named) for one in cells)
        wrong = sum(len(one.wrong) for one in cells)
        rows.append(row_of(fault.name, fault.part, fault.what, [one.outcome for one in cells], named, wrong))
        rows[-1]["runs"] = len(runs)
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """One line per fault, by the part of the store."""
    head = "| fault | what happens | right % | review % | wrong % | none % | named |"
    lines = [head, "|---|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        shares = [f"{100 * row[key] / max(row['visits'], 1):.0f}" for key in ("right", "review", "wrong", "none")]
        named = "-" if row["named"] is None else f"{row['named']} of {row['runs']}"
        lines.append(f"| {row['fault']} | {row['what']} | " + " | ".join([*shares, named]) + " |")
    return "\n".join(lines)


def page(measured: dict[str, Any]) -> str:
    """The published page: the table, and the explanation of its columns."""
    rows = measured["rows"]
    parts = [f"# Receipts under broken sensors\n\nMade by `{measured['command']}`."]
    parts.append(f"Shoppers: {rows[0]['visits']} in {len(SHOPS)} shops.\n\n{markdown(rows[:1])}")
    for part in Part:
        parts.append(f"## {part.capitalize()}\n\n{markdown([row for row in rows if row['part'] == part])}")
    return "\n\n".join([*parts, (__doc__ or "").partition("seeded.\n\n")[2].strip()]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark of faults from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", nargs="+", default=[""], help="only faults whose name or part contains one of these")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each shop")
    parser.add_argument("--failing", action="store_true", help="also list what must not be, cell by cell")
    parser.add_argument("--out", type=Path, help="folder for the table and its figures as JSON")
    args = parser.parse_args(arguments)
    chosen = [f for f in FAULTS.values() if any(word in f.name or word in f.part for word in args.fault)]
    started_s = time.perf_counter()
    rows = measure(chosen, args.repeats, args.failing)
    print(markdown(rows))
    if args.out:
        measured = {"command": f"python -m bench faults --repeats {args.repeats} --out {args.out}", "rows": rows}
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "faults.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
        (args.out / "faults.md").write_text(page(measured), encoding="utf-8")
    print(f"\n{len(chosen)} faults in {time.perf_counter() - started_s:.0f} s", file=sys.stderr)
