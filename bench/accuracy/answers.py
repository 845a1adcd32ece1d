"""Questions put to shoppers: bills that honest ones settle, and how soon those who answer to their advantage are found.

    OMP_NUM_THREADS=1 python -m bench answers --cache build/visits             a table
    OMP_NUM_THREADS=1 python -m bench answers --cache build/visits --out docs/figures

The doubts are the receipts in review of the simulated shops of `bench accuracy` with look-alike weights and with
put-backs: bills, questions and probabilities are the engine's, the true answers the simulator's. Half a year of a store
is then played with its own till: every week each customer has a visit whose bill is drawn from the doubts. An honest
customer looks into their bag and errs in one of fifty; a taker always gives the cheapest answer. What no answer
settles, a person decides before the next visit, rightly. The links between visits and customers are forgotten after
30 days, as in a store with the default policy. A taker who was marked is replaced by a new one.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bench import plots
from bench.accuracy.replays import replayed
from bench.accuracy.scenarios import CASES, recorded, run_of
from bench.accuracy.scores import matched_events
from bench.accuracy.shopper import Shopper
from bench.accuracy.truth import TrueVisit, true_events, true_visits
from bench.intervals import share_interval
from fusion.files.recordings import Recording
from fusion.files.results import evidence_row
from fusion.money.disputes import NONE_OF_THESE
from fusion.money.ledger import Ledger
from fusion.money.profiles import Profiles
from fusion.results import Question, Receipt, ReceiptLine
from fusion.simulation import demo_store
from fusion.store.models import Product, Store
from fusion.till.answer_settings import AnswerSettings
from fusion.till.answers import Answers, ShopperQuestion, question_id

Row = dict[str, Any]
DOUBTFUL = ("look-alike", "putback")
MISTAKES, TAKERS, CUSTOMERS, WEEKS = 0.02, 0.03, 100, 26
SEEDS, YEARS = 6, (1, 2, 3)
T0_NS, WEEK_NS, SECOND_NS = 1_772_524_800 * 10**9, 7 * 86_400 * 10**9, 10**9
FOUND_WITHIN = 5


# ---- doubts ----------------------------------------------------------------------------------------------------------


class Doubt(NamedTuple):
    """A receipt in review of the simulated shops, and the truth about it.

    Attributes:
        case: of the run.
        receipt: as the engine gave it; its products have the names of the store that holds all doubts.
        bundle: the part of its evidence that questions are made from.
        truths: by question, the index of the true alternative; NONE_OF_THESE where none is true.
        items: what the visit took, pieces by GTIN.
    """

    case: str
    receipt: Receipt
    bundle: dict[str, Any]
    truths: dict[str, int]
    items: dict[str, int]


class Doubts(NamedTuple):
    """The doubts of some runs, and the products that they are about."""

    found: tuple[Doubt, ...]
    products: tuple[Product, ...]


def doubts_of(case: str, seed: int, cache: Path) -> Doubts:
    """The receipts in review of a run, of people who checked in."""
    run = run_of(next(each for each in CASES if each.name == case), seed)
    path = recorded(run, cache)
    opened = Recording(path)
    store = opened.store
    visits = {visit.account: visit for visit in true_visits(path) if visit.account is not None}
    answers = replayed(store, opened.observations(), kept=path)
    shopper = Shopper(store, matched_events(store, true_events(path), answers.events))
    # Shops of several seeds use the same numbers for different products.
    number = DOUBTFUL.index(case) * 1000 + seed
    name = {each.gtin: _gtin(number * 1000 + i) for i, each in enumerate(store.products)}
    products = tuple(each.model_copy(update={"gtin": name[each.gtin]}) for each in store.products)
    found = []
    for receipt in answers.receipts:
        visit = visits.get(receipt.account)
        evidence = answers.evidence.get(receipt.visit)
        if visit is None or receipt.status != "review" or evidence is None:
            continue
        truths = {}
        for question in evidence.questions:
            key = question_id(question.plate, question.t_ns, question.event_id)
            truths[key] = _truth(shopper, visit, question)
        row = evidence_row(evidence)
        bundle = {key: _renamed(row[key], name) for key in ("reason_codes", "questions")}
        lines = tuple(_line(line, name) for line in receipt.lines)
        named = Receipt(
            receipt.visit, receipt.account, receipt.enter_ns, receipt.exit_ns, receipt.issued_ns, receipt.status,
            receipt.reasons, receipt.currency, receipt.total, lines, (), receipt.probability,
        )  # fmt: skip
        items = {name[gtin]: n for gtin, n in visit.items.items() if n}
        found.append(Doubt(case, named, bundle, truths, items))
    return Doubts(tuple(found), products)


def _truth(shopper: Shopper, visit: TrueVisit, question: Question) -> int:
    """The answer of an honest shopper.

    A page shows of which products the choices leave different pieces on the bill. They choose what is in their bag; of
    several such choices, or where there is none, what they remember of that moment at that shelf.
    """
    bills = [{each.gtin: each.quantity for each in one.lines} for one in question.alternatives]
    gtins = {gtin for bill in bills for gtin in bill}
    differ = [gtin for gtin in gtins if len({bill.get(gtin, 0) for bill in bills}) > 1]
    fits = [all(bill.get(gtin, 0) == visit.items.get(gtin, 0) for gtin in differ) for bill in bills]
    remembered = shopper.answer(visit, question)
    number = NONE_OF_THESE if remembered is None else question.alternatives.index(remembered)
    return fits.index(True) if True in fits and not (number >= 0 and fits[number]) else number


def _gtin(number: int) -> str:
    """A GTIN-13 for a shop's own use, with its check digit."""
    digits = f"2{number:011d}"
    total = sum(int(digit) * (3 if i % 2 else 1) for i, digit in enumerate(digits))
    return f"{digits}{-total % 10}"


def _line(line: ReceiptLine, name: Mapping[str, str]) -> ReceiptLine:
    return ReceiptLine(name[line.gtin], line.quantity, line.unit_price, line.confidence)


def _renamed(value: Any, name: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: name[each] if key == "gtin" else _renamed(each, name) for key, each in value.items()}
    return [_renamed(each, name) for each in value] if isinstance(value, list) else value


# ---- a store's year --------------------------------------------------------------------------------------------------


@dataclass
class Customer:
    """One customer.

    Attributes:
        name: the account.
        is_taker: whether they always give the cheapest answer.
        n_asked: visits in which they were asked anything.
        n_lied: those in which that was not the truth.
        believed: lies that settled a bill.
        lost: what these took off, minor units.
        found_at: visits in which they were asked before they were marked; None while they are not.
        found_lies: visits in which they lied before that.
    """

    name: str
    is_taker: bool
    n_asked: int = 0
    n_lied: int = 0
    believed: int = 0
    lost: int = 0
    found_at: int | None = None
    found_lies: int | None = None


@dataclass
class Year:
    """A store's books and till, its customers, and what is counted.

    Attributes:
        counts: of honest customers by case: reviews, asked, settled and wrong ones; revenue, lost, over: minor units.
        customers: all that there ever were.
    """

    doubts: Doubts
    ledger: Ledger
    profiles: Profiles
    store: Store
    random: random.Random
    settings: AnswerSettings
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    customers: list[Customer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._bundles: dict[str, dict[str, Any]] = {}
        self._answers = Answers(
            self.store, self.ledger, self._bundles.get, self.settings, profiles=self.profiles, draw=self.random.random
        )  # fmt: skip
        self._price = {product.gtin: product.price for product in self.store.products}

    def run(self, n_customers: int, n_weeks: int, takers: float) -> None:
        """Let some weeks pass, with a share of takers among the customers."""
        n_takers = round(takers * n_customers)
        present = [self._new(is_taker=i < n_takers) for i in range(n_customers)]
        for week in range(n_weeks):
            self.ledger.unlink_before(T0_NS + week * WEEK_NS - 30 * 86_400 * SECOND_NS)
            for i, customer in enumerate(present):
                self._visit(customer, f"{week}-{i}", T0_NS + week * WEEK_NS + i * 600 * SECOND_NS)
                if customer.is_taker and customer.found_at is not None:
                    present[i] = self._new(is_taker=True)

    def _new(self, is_taker: bool) -> Customer:
        self.customers.append(Customer(f"c{len(self.customers)}", is_taker))
        return self.customers[-1]

    def _visit(self, customer: Customer, visit: str, now_ns: int) -> None:
        doubt = self.random.choice(self.doubts.found)
        receipt = Receipt(
            visit, customer.name, now_ns, now_ns + 60 * SECOND_NS, now_ns + 63 * SECOND_NS, doubt.receipt.status,
            doubt.receipt.reasons, self.store.currency, doubt.receipt.total, doubt.receipt.lines,
        )  # fmt: skip
        self.ledger.post_receipt(receipt)
        self._bundles = {visit: doubt.bundle}
        self._answers._bundle = self._bundles.get
        t_ns, lied = now_ns + 90 * SECOND_NS, False
        status, questions = "review", self._answers.questions(visit)
        for question in questions:
            stated = self._stated(customer, question, doubt.truths[question.id])
            lied |= customer.is_taker and stated != doubt.truths[question.id]
            status = self._answers.answer(visit, question.id, stated, t_ns).status
            if status == "settled":
                break
        standing = self.ledger.standing(visit)
        assert standing is not None
        billed: Counter[str] = Counter()
        for line in standing.lines:
            billed[line.gtin] += line.quantity
        right = billed == Counter(doubt.items)
        true = sum(self._price[gtin] * n for gtin, n in doubt.items.items())
        if status == "review":
            lines = [ReceiptLine(gtin, n, self._price[gtin], 1.0) for gtin, n in sorted(doubt.items.items())]
            self.ledger.decide(visit, "correct", by="eve", t_ns=t_ns + 3600 * SECOND_NS, lines=lines)
        off = true - standing.total if status == "settled" and not right else 0
        customer.n_asked += bool(questions)
        customer.n_lied += lied
        customer.believed += lied and status == "settled"
        customer.lost += off if lied else 0
        if customer.found_at is None and self._answers.heard(visit).marked:
            customer.found_at, customer.found_lies = customer.n_asked, customer.n_lied
        if not customer.is_taker:
            counts = self.counts.setdefault(doubt.case, Counter())
            counts.update(
                reviews=1, asked=bool(questions), settled=status == "settled", revenue=true,
                wrong=status == "settled" and not right, lost=max(off, 0), over=max(-off, 0),
            )  # fmt: skip

    def _stated(self, customer: Customer, question: ShopperQuestion, truth: int) -> int:
        if customer.is_taker:
            return question.choices[0].number
        others = [choice.number for choice in question.choices if choice.number != truth]
        return self.random.choice(others) if self.random.random() < MISTAKES else truth


def played(doubts: Doubts, seed: int, takers: float, settings: AnswerSettings, n_customers: int, n_weeks: int) -> Row:
    """Play some weeks of a store; returns what was counted, as JSON takes it."""
    store = demo_store(n_cameras=1, n_plates=24).model_copy(update={"products": doubts.products, "planogram": ()})
    with tempfile.TemporaryDirectory() as folder, Ledger.open(Path(folder) / "books.sqlite", store) as ledger:
        profiles = Profiles(Path(folder) / "profiles.sqlite")
        shop = Year(doubts, ledger, profiles, store, random.Random(seed), settings)
        shop.run(n_customers, n_weeks, takers)
        fault = ledger.verify()
        assert fault is None, fault
        habits = shop._answers._history.habits()
    honest = [each for each in shop.customers if not each.is_taker]
    return {
        "takers": takers, "seed": seed, "cases": {case: dict(counts) for case, counts in shop.counts.items()},
        "honest": len(honest), "marked": sum(each.found_at is not None for each in honest),
        "taker_rows": [
            [each.n_asked, each.n_lied, each.believed, each.lost, each.found_at, each.found_lies]
            for each in shop.customers if each.is_taker
        ],
        "learnt": [round(habits.takers, 4), round(habits.mistakes, 4)],
    }  # fmt: skip


# ---- figures ---------------------------------------------------------------------------------------------------------


class Job(NamedTuple):
    """A run to take doubts from."""

    case: str
    seed: int
    cache: Path


class Play(NamedTuple):
    """Weeks of a store to play."""

    doubts: Doubts
    seed: int
    takers: float
    n_customers: int
    n_weeks: int


def _doubts_of(job: Job) -> Doubts:
    return doubts_of(*job)


def _played(play: Play) -> Row:
    return played(play.doubts, play.seed, play.takers, AnswerSettings(), play.n_customers, play.n_weeks)


def measure(jobs: Sequence[Job], seeds: Sequence[int], n_customers: int, n_weeks: int, n_processes: int) -> Row:
    """Take doubts from simulated shops, and play a store with them."""
    with ProcessPoolExecutor(n_processes) as pool:
        parts = list(pool.map(_doubts_of, jobs))
        doubts = Doubts(
            tuple(doubt for part in parts for doubt in part.found),
            tuple(product for part in parts for product in part.products),
        )
        plays = [Play(doubts, seed, TAKERS, n_customers, n_weeks) for seed in seeds]
        rows = list(pool.map(_played, plays))
    return {
        "rows": rows, "doubts": dict(Counter(doubt.case for doubt in doubts.found)),
        "customers": n_customers, "weeks": n_weeks,
    }  # fmt: skip


def _share(n: int, of: int) -> str:
    low, high = share_interval(n, of)
    return f"{100 * n / max(of, 1):.1f} ({100 * low:.1f}-{100 * high:.1f})"


def _honest_rows(figures: Row) -> Iterator[str]:
    title = {case.name: case.title for case in CASES}
    for name in DOUBTFUL:
        total = sum((Counter(row["cases"].get(name, {})) for row in figures["rows"]), Counter[str]())
        reached = "≥ 50 ✓" if 2 * total["settled"] >= total["reviews"] else "≥ 50 ✗"
        cells = (
            title[name], total["reviews"], _share(total["asked"], total["reviews"]),
            _share(total["settled"], total["reviews"]), reached,
            _share(total["wrong"], total["settled"]), f"{100 * total['lost'] / max(total['revenue'], 1):.2f}",
            f"{100 * total['over'] / max(total['revenue'], 1):.2f}",
        )  # fmt: skip
        yield f"| {' | '.join(map(str, cells))} |"


def _summary(figures: Row) -> Iterator[str]:
    rows = figures["rows"]
    takers = [taker for row in rows for taker in row["taker_rows"]]
    # A taker of the last weeks who was asked less often than that is not counted.
    judged = [taker for taker in takers if taker[4] is not None or taker[0] >= FOUND_WITHIN]
    found = [taker[4] for taker in takers if taker[4] is not None]
    soon = sum(at <= FOUND_WITHIN for at in found)
    lies, believed, lost = (sum(taker[i] for taker in takers) for i in (1, 2, 3))
    revenue = sum(counts["revenue"] for row in rows for counts in row["cases"].values())
    asked = sum(counts["asked"] for row in rows for counts in row["cases"].values())
    honest, marked = sum(row["honest"] for row in rows), sum(row["marked"] for row in rows)
    within = _share(soon, len(judged))
    yield f"- takers: {len(takers)}, found within {FOUND_WITHIN} visits in which they were asked: {within} %"
    yield f"- visits until they were found: {', '.join(f'{at}: {n}' for at, n in sorted(Counter(found).items()))}"
    yield (
        f"- their lies: {lies}, of which settled a bill: {believed}; lost by that: {lost / max(len(takers), 1):.0f} "
        f"minor units for each taker, {100 * lost / max(revenue, 1):.3f} % of the honest customers' revenue"
    )
    yield (
        f"- honest customers: {honest}, ever marked in {figures['weeks']} doubtful visits each: "
        f"{_share(marked, honest)} %, {1000 * marked / max(asked, 1):.2f} of a thousand visits in which they were asked"
    )
    learnt = ", ".join(f"{100 * share:.1f} and {100 * wrong:.1f}" for share, wrong in (row["learnt"] for row in rows))
    real = f"{100 * TAKERS:g} and {100 * MISTAKES:g}"
    yield f"- learnt at the end: share of takers and of mistakes, %: {learnt} (played: {real})"


def page(figures: Row) -> str:
    """The page of docs/figures."""
    explanation = (__doc__ or "").partition("\n\n")[2].partition("\n\n")[2]
    table = "\n".join(_honest_rows(figures))
    summary = "\n".join(_summary(figures))
    n = sum(figures["doubts"].values())
    return f"""# Questions put to shoppers

Made by `python -m bench answers --out docs/figures`: {n} doubts, {len(figures["rows"])} stores of
{figures["customers"]} customers over {figures["weeks"]} weeks. Brackets hold 95 % confidence intervals (Clopper and
Pearson 1934); the same doubts are drawn again and again, so that they are too narrow for other doubts.

| doubts of honest customers | reviews | asked % | settled by answers % | target | wrong of these % | lost % | over % |
|---|---|---|---|---|---|---|---|
{table}

{summary}

{explanation}
Lost and over are what bills that an answer settled wrongly charge less and more than the goods that were taken, as
a share of the revenue of all these visits. Bills are wrong where the honest answer was a mistake, or where another part
of the bill is wrong which no question was about.

![Visits until takers are found, and what becomes of honest customers' reviews](answers.svg)
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write figures where a folder is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"runs of each case to take doubts from ({SEEDS})")
    parser.add_argument("--years", type=int, nargs="+", default=list(YEARS), help="seeds of the stores that are played")
    parser.add_argument("--customers", type=int, default=CUSTOMERS)
    parser.add_argument("--weeks", type=int, default=WEEKS)
    parser.add_argument("--cache", type=Path, default=Path("build/visits"), help="keep the recordings here")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, help="write answers.json, answers.md and answers.svg there")
    args = parser.parse_args(arguments)
    jobs = [Job(case, seed, args.cache) for case in DOUBTFUL for seed in range(1, args.seeds + 1)]
    figures = measure(jobs, args.years, args.customers, args.weeks, args.jobs)
    print("\n".join([*_honest_rows(figures), *_summary(figures)]))
    if args.out is not None:
        plots.publish("answers", figures, page, args.out)
