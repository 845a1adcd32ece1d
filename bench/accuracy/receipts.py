"""Who took what: receipts of simulated visits against the truth, with a plain method for comparison.

    OMP_NUM_THREADS=1 python -m bench accuracy                       all rows, at least 200 visits each
    OMP_NUM_THREADS=1 python -m bench accuracy --quick               all rows, one short run each: a minute
    python -m bench accuracy --cache build/visits --jobs 2 --ablations --out docs/figures
    python -m bench accuracy --cache build/visits --cluster local    on a Ray of its own, or on a cluster by its address
    python -m bench accuracy --case busy --seeds 3 --explain causes.md

Every run is simulated with faults, written as a recording of the file contract, and replayed. `--cache` keeps the
recordings under a hash of the scenario, the store and the simulator's source, so that a changed engine is measured in
a fraction of the time. `--explain` lists why receipts went to review and why settled receipts were wrong. `python -m
bench recordings` scores recorded visits, and visits of another generator, in the same way.

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
- p50, p99: seconds of data time from the last exit to the receipt. `late` is the 99th percentile of the time after
  the last of its evidence could arrive: a load settles within 0.75 s, and messages may be two seconds late.
- attribution: CPU time of attributing one event, microseconds, 99th percentile.
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
import csv
import hashlib
import heapq
import json
import math
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import fusion
from bench.intervals import share_interval
from fusion.chain.batch import map_tasks
from fusion.engine import LATENESS_MAX_S, Engine
from fusion.errors import FusionError
from fusion.files.recordings import Recording
from fusion.goods import attribution, held, loads
from fusion.goods.planogram import PLACE_GAIN_SD, Rows
from fusion.observations import Frame, ItemSighting, Observation, ShelfReading
from fusion.results import People, PersonEntered, ReasonKind, Receipt, ShelfEventExplained
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.simulation.goods import ShelfMap, Stock
from fusion.simulation.scales import Scales
from fusion.store.models import Facing, Store

# ---- what is simulated -----------------------------------------------------------------------------------------------

# What is never as the engine's model has it, in every row.
_ODD = {
    "place_gain_sd": 0.01,
    "creep_share": 0.004,
    "hum_g": 0.6,
    "batch_weight_sd": 0.006,
    "odd_reach_probability": 0.12,
    "calibration_error_px": 1.5,
}
# Wrists missed a third of the time, more noise, and more that is simply wrong.
_POOR = {
    "keypoint_noise": 1.5,
    "joint_miss_probability": 0.08,
    "person_miss_probability": 0.08,
    "outlier_probability": 0.015,
    "swap_probability": 0.015,
    "ghosts_per_frame": 0.1,
}


@dataclass(frozen=True)
class Case:
    """One row of the table. `wanted`: what must be shown, least share right and greatest share sent to review.

    Runs alternate between shops with plates of 0.2 m and of 0.1 m, on which half of all goods rest on two; what
    `variants` say replaces the scenario's knobs in turn.
    """

    name: str
    title: str
    wanted: tuple[float, float]
    scenario: dict[str, float]
    shop: dict[str, float] = field(default_factory=dict)
    variants: tuple[dict[str, float], ...] = ({},)
    n_visits: int = 200

    @property
    def n_seeds(self) -> int:
        return math.ceil(self.n_visits / self.scenario["shoppers"])


CASES = (
    Case(
        "calm",
        "calm, 1-3 people",
        (0.999, 0.01),
        # Nobody is sent to where somebody else is about to reach; it happens by chance only.
        {"shoppers": 20, "minutes": 7.0, "neighbour_probability": 0.0},
    ),
    Case(
        "busy",
        "busy, 6-8 people, neighbouring picks within 0.5 s",
        (0.997, 0.05),
        {"shoppers": 30, "minutes": 4.3, "neighbour_probability": 0.6},
    ),
    Case(
        "crowd",
        "crowd, 12-15 people in 48 m2",
        (0.995, 0.10),
        {"shoppers": 40, "minutes": 3.6, "neighbour_probability": 0.3},
    ),
    Case(
        "putback",
        "put-backs, right and wrong place",
        (0.997, 0.05),
        {
            "shoppers": 20,
            "minutes": 5.0,
            "picks_per_person": 5.0,
            "put_back_probability": 0.5,
            "wrong_place_probability": 0.43,
            "misplaced_pieces": 20,
            "count_error_probability": 0.1,
        },
    ),
    Case(
        "look-alike",
        "look-alike weights side by side",
        (0.997, 0.10),
        {"shoppers": 20, "minutes": 5.0},
        shop={"look_alike_share": 0.6},
    ),
    Case(
        "companions",
        "companions, hand-over",
        (0.995, 0.10),
        {"shoppers": 14, "companions": 12, "minutes": 5.0, "hand_over_probability": 0.4},
    ),
    Case(
        "occluded",
        "occluded, 1-3 of 8 cameras out",
        (0.995, 0.20),
        {
            **_POOR,
            "shoppers": 20,
            "minutes": 4.0,
            "neighbour_probability": 0.3,
            "outage_share": 0.8,
        },
        shop={"n_cameras": 8},
        variants=({"cameras_out": 1}, {"cameras_out": 2}, {"cameras_out": 3}),
    ),
    Case(
        "flaky",
        "flaky plates, clock offset",
        (0.995, 0.20),
        {
            "shoppers": 20,
            "minutes": 5.0,
            "dead_plates": 2,
            "drifting_plates": 6,
            "gap_probability": 0.03,
            "message_jitter_s": 0.006,
            "clock_offset_max_s": 0.09,
            "plate_noise": 1.5,
            "shocks_per_minute": 2.0,
            "frame_drop_probability": 0.03,
        },
    ),
    Case(
        "restocking",
        "restocking, tailgating, child",
        (0.997, 0.10),
        {"shoppers": 20, "staff": 2, "tailgaters": 3, "children": 4, "minutes": 5.0},
    ),
)


@dataclass(frozen=True)
class Take:
    """One run to be simulated: a shop, a scenario, and so what happens in it."""

    case: str
    seed: int
    scenario: Scenario
    shop: dict[str, Any]

    def store(self) -> Store:
        return demo_store(**self.shop)

    def key(self) -> str:
        """Names the recording: changes with everything that it is made of."""
        made_of = json.dumps([asdict(self.scenario), self.shop, _simulator()], sort_keys=True)
        return f"{self.case}-{self.seed}-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"


def _simulator() -> str:
    """Hash of the simulator's source."""
    digest = hashlib.sha256()
    for path in sorted((Path(fusion.__file__).parent / "simulation").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def take(case: Case, seed: int, quick: bool = False) -> Take:
    """The run of a case at a seed. Quick: a fifth of the visits, at the same density."""
    knobs = {**_ODD, **case.scenario, **case.variants[seed % len(case.variants)]}
    narrow = seed % 2 == 0
    if narrow:
        knobs["straddle_probability"] = 0.5
    if quick:
        for count in ("shoppers", "companions", "children", "tailgaters", "misplaced_pieces"):
            if knobs.get(count):
                knobs[count] = max(1, round(knobs[count] / 4))
        knobs["minutes"] = max(1.2, knobs["minutes"] / 4)
    plates = {"n_plates": 240, "n_products": 40, "plate_width_m": 0.1} if narrow else {"n_plates": 160}
    shop = {"n_cameras": 12, "look_alike_share": 0.1, "seed": seed, **plates, **case.shop}
    return Take(case.name, seed, Scenario(seed=seed, **knobs), shop)  # type: ignore[arg-type]


def recorded(one: Take, folder: Path) -> Path:
    """The run's recording under a folder, made where it is not there yet."""
    path = folder / one.key()
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            # A recording appears whole or not at all, so that a run that was cut short leaves none.
            made = Path(unfinished) / "recording"
            Simulation(one.store(), one.scenario).write(made)
            made.rename(path)
    return path


# ---- truth -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrueVisit:
    account: str | None
    enter_ns: int
    exit_ns: int
    items: dict[str, int]


@dataclass(frozen=True)
class TrueEvent:
    """account: None for somebody unscanned or of the staff."""

    t_ns: int
    plate: str
    gtin: str
    quantity: int
    account: str | None


def true_visits(recording: Path) -> list[TrueVisit]:
    with open(recording / "truth" / "visits.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [TrueVisit(row["account"], row["enter"], row["exit"], row["items"]) for row in rows]


def true_events(recording: Path) -> list[TrueEvent]:
    with open(recording / "truth" / "events.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        TrueEvent(
            int(row["time"]),
            row["plate"],
            row["gtin"],
            int(row["quantity"]),
            None if not row["account"] or row["account"].startswith("staff-") else row["account"],
        )
        for row in rows
    ]


def people_at_once(recording: Path, store: Store) -> float:
    """Mean number of people inside, as the people there meet it."""
    table = pq.read_table(recording / "truth" / "people.parquet", columns=["time", "x", "y"])
    x, y = table["x"].to_numpy(), table["y"].to_numpy()
    # A box about the floor is near enough, and much faster than a polygon.
    low, high = np.min(store.floor, axis=0), np.max(store.floor, axis=0)
    inside = (x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1])
    _, counts = np.unique(table["time"].to_numpy()[inside], return_counts=True)
    return float((counts**2).sum() / max(counts.sum(), 1))


# ---- replay ----------------------------------------------------------------------------------------------------------


@dataclass
class Answers:
    """What an engine said about a recording, and what the plain method needs to know."""

    receipts: list[Receipt] = field(default_factory=list)
    events: list[ShelfEventExplained] = field(default_factory=list)
    account_of: dict[int, str | None] = field(default_factory=dict)
    people: list[People] = field(default_factory=list)
    readings: list[ShelfReading] = field(default_factory=list)
    attribution_us: list[float] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def replayed(store: Store, observations: Iterable[Observation], keep: bool = False) -> Answers:
    """Run an engine. keep: also what the plain method needs."""
    answers = Answers()
    engine = Engine(store)
    observe = engine._attributor.observe

    def timed(*args: Any) -> Any:
        started_ns = time.thread_time_ns()
        belief = observe(*args)
        answers.attribution_us.append((time.thread_time_ns() - started_ns) / 1e3)
        return belief

    engine._attributor.observe = timed  # type: ignore[method-assign]
    for result in _fed(engine, observations, answers, keep):
        match result:
            case Receipt():
                answers.receipts.append(result)
            case ShelfEventExplained():
                answers.events.append(result)
            case PersonEntered():
                answers.account_of[result.track_id] = result.account
            case People() if keep:
                answers.people.append(result)
    answers.ignored = engine.ignored
    return answers


def _fed(engine: Engine, observations: Iterable[Observation], answers: Answers, keep: bool) -> Iterator[Any]:
    for observation in observations:
        if keep and isinstance(observation, ShelfReading):
            answers.readings.append(observation)
        yield from engine.feed(observation)
    yield from engine.close()


# ---- the plain method ------------------------------------------------------------------------------------------------

PLAIN_WINDOW, PLAIN_RUN = 60, 30
PLAIN_SD_G, PLAIN_CHANGE_G = 20.0, 10.0
PLAIN_REACH_M = 1.5


def plain_receipts(store: Store, answers: Answers) -> list[Receipt]:
    """The engine's receipts with the plain method's lines in them."""
    wanted = [i for i, joint in enumerate(store.layout.joints) if joint in ("nose", "l_wrist", "r_wrist")]
    told_ns = np.array([people.t_ns for people in answers.people], np.int64)
    products = {product.gtin: product for product in store.products}
    carts: defaultdict[str | None, Counter[str]] = defaultdict(Counter)
    centre_m = {plate.plate: np.array([plate.x, plate.y, plate.z]) for plate in store.plates}
    planned: defaultdict[str, set[str]] = defaultdict(set)
    for facing in store.planogram:
        planned[facing.plate].add(facing.gtin)

    def nearest_account(plate: str, t_ns: int) -> tuple[bool, str | None]:
        if not len(told_ns):
            return False, None
        people = answers.people[int(np.argmin(np.abs(told_ns - t_ns)))]
        if not len(people.track_id):
            return False, None
        points = people.joints_m[:, wanted] - centre_m[plate]
        apart = np.nan_to_num(np.sqrt((points**2).sum(axis=2)), nan=np.inf).min(axis=1)
        best = int(np.argmin(apart))
        return bool(apart[best] < PLAIN_REACH_M), answers.account_of.get(int(people.track_id[best]))

    for t_ns, plates, total_g in sorted(plain_events(store, answers.readings), key=lambda event: event[0]):
        somebody, account = nearest_account(plates[0], t_ns)
        if not somebody:
            continue
        cart = carts[account]
        choice = [gtin for plate in plates for gtin in planned[plate]] if total_g < 0 else [g for g in cart if cart[g]]
        if not choice:
            continue

        def pieces(gtin: str, total_g: float = total_g) -> int:
            return max(1, round(abs(total_g) / products[gtin].weight_g))

        def off_g(gtin: str, total_g: float = total_g) -> float:
            return abs(abs(total_g) - pieces(gtin) * products[gtin].weight_g)

        gtin = min(sorted(set(choice)), key=off_g)
        units = abs(total_g) / products[gtin].weight_g
        if total_g < 0 and units >= 0.4:
            cart[gtin] += pieces(gtin)
        elif total_g > 0 and units >= 0.75:
            cart[gtin] -= min(cart[gtin], pieces(gtin))
    out = []
    for receipt in answers.receipts:
        lines = tuple(
            fusion.results.ReceiptLine(gtin, n, products[gtin].price, 1.0)
            for gtin, n in sorted((+carts[receipt.account]).items())
        )
        # The visit's own doubts stay; what the goods were is never in doubt.
        doubt = receipt.account is None or any(reason.kind in VISIT_DOUBTS for reason in receipt.reasons)
        out.append(replace(receipt, lines=lines, status="review" if doubt else "settled"))
    return out


def plain_events(store: Store, readings: Sequence[ShelfReading]) -> list[tuple[int, list[str], float]]:
    """(time of the greatest deviation, plates with the largest change first, grams) of every event of the plain method.

    Source: the winner of the AutoCheckout competition (CPS-IoT Week 2020), in outline.
    """
    if not readings:
        return []
    rows = Rows(store)
    index = {plate.plate: i for i, plate in enumerate(store.plates)}
    start_ns = min(reading.t_ns for reading in readings)
    end_ns = max(reading.t_ns for reading in readings)
    n = int((end_ns - start_ns) * 1e-9 * store.weight_rate_hz) + 64
    grams = np.full((len(index), n), np.nan, np.float32)
    for reading in readings:
        at = round((reading.t_ns - start_ns) * 1e-9 * store.weight_rate_hz)
        grams[index[reading.plate], at : at + len(reading.samples)] = reading.samples[: n - at]
    _carry_forward(grams)
    lightest_g = min(product.weight_g for product in store.products)
    found = []
    for members in rows.members:
        shelf = grams[members].astype(np.float64)
        total = shelf.sum(axis=0)
        sums = np.cumsum(np.insert(total, 0, 0.0))
        squares = np.cumsum(np.insert((total - total.mean()) ** 2, 0, 0.0))
        mean = (sums[PLAIN_WINDOW:] - sums[:-PLAIN_WINDOW]) / PLAIN_WINDOW - total.mean()
        sd = np.sqrt(np.maximum((squares[PLAIN_WINDOW:] - squares[:-PLAIN_WINDOW]) / PLAIN_WINDOW - mean**2, 0.0))
        edges = np.flatnonzero(np.diff(np.concatenate([[0], (sd > PLAIN_SD_G).astype(np.int8), [0]])))
        for first, last in zip(edges[::2].tolist(), edges[1::2].tolist()):
            # The window's end met the disturbance at `first`, its beginning left it at `last`.
            before = shelf[:, max(first - 15, 0) : first + 45].mean(axis=1)
            after = shelf[:, last + 15 : last + 60].mean(axis=1) if last + 20 < n else shelf[:, -5:].mean(axis=1)
            change = after - before
            if last - first < PLAIN_RUN or abs(change.sum()) < PLAIN_CHANGE_G:
                continue
            peak = first + int(np.argmax(sd[first:last])) + PLAIN_WINDOW // 2
            t_ns = start_ns + int(peak / store.weight_rate_hz * 1e9)
            part = np.abs(change) > max(lightest_g / 3.0, PLAIN_CHANGE_G)
            for sign in (-1.0, 1.0):
                takes_part = part & (np.sign(change) == sign)
                cuts = np.flatnonzero(np.diff(np.concatenate([[0], takes_part.astype(np.int8), [0]])))
                for a, b in zip(cuts[::2].tolist(), cuts[1::2].tolist()):
                    order = a + np.argsort(-np.abs(change[a:b]))
                    names = [store.plates[members[i]].plate for i in order.tolist()]
                    found.append((t_ns, names, float(change[a:b].sum())))
    return found


def _carry_forward(grams: np.ndarray) -> None:
    """Fill what was not told with what was told before it, or first after it."""
    for row in grams:
        known = np.flatnonzero(~np.isnan(row))
        if len(known):
            last = np.maximum(np.searchsorted(known, np.arange(len(row)), side="right") - 1, 0)
            row[:] = row[known[last]]
        else:
            row[:] = 0.0


# ---- scoring ---------------------------------------------------------------------------------------------------------

# What the following of people, not of goods, has to say against settling a receipt.
VISIT_DOUBTS = {
    ReasonKind.LOST_AMONG_OTHERS, ReasonKind.LOST_INSIDE, ReasonKind.SCANNED_PERSON_LOST, ReasonKind.UNSCANNED_BESIDE,
    ReasonKind.NO_CREDENTIAL,
}  # fmt: skip
RECEIPT_MATCH_S = 10.0
EVENT_MATCH_S, EVENT_MATCH_M = 1.5, 0.45
# The last of a receipt's evidence: a load that leaves a plate settles within this time.
SETTLES_S = 0.75


@dataclass
class Score:
    """Counts of one or several runs; `+` adds them up."""

    visits: int = 0
    settled: int = 0
    settled_right: int = 0
    review: int = 0
    missing: int = 0
    any_right: int = 0
    value: int = 0
    over: int = 0
    under: int = 0
    violations: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    lines: list[tuple[float, bool]] = field(default_factory=list)
    delay_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    attribution_us: list[float] = field(default_factory=list)
    at_once: list[float] = field(default_factory=list)

    def __add__(self, other: Score) -> Score:
        return Score(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def lines_of(receipt: Receipt) -> Counter[str]:
    items: Counter[str] = Counter()
    for line in receipt.lines:
        items[line.gtin] += line.quantity
    return items


def score_receipts(
    visits: Sequence[TrueVisit],
    receipts: Sequence[Receipt],
    price: dict[str, int],
    last_event_ns: dict[str, int] | None = None,
) -> Score:
    """Receipts against the visits that there were; last_event_ns: of each account, where its events are known."""
    score = Score()
    by_account: defaultdict[str | None, list[Receipt]] = defaultdict(list)
    for receipt in receipts:
        by_account[receipt.account].append(receipt)
    for visit in visits:
        if visit.account is None:
            continue
        mine = by_account.pop(visit.account, [])
        true = Counter(visit.items)
        got = sum((lines_of(receipt) for receipt in mine), Counter[str]())
        right = got == true
        score.visits += 1
        score.any_right += bool(mine) and right
        for receipt in mine:
            score.lines += [(line.confidence, got[line.gtin] == true[line.gtin]) for line in receipt.lines]
        if not mine:
            score.missing += 1
            continue
        issued_ns = max(receipt.issued_ns for receipt in mine)
        evidence_ns = max(visit.exit_ns, (last_event_ns or {}).get(visit.account, 0) + round(SETTLES_S * 1e9))
        score.delay_s.append((issued_ns - visit.exit_ns) / 1e9)
        score.late_s.append((issued_ns - evidence_ns) / 1e9 - LATENESS_MAX_S)
        if any(receipt.status != "settled" for receipt in mine):
            score.review += 1
            continue
        score.settled += 1
        score.settled_right += right
        score.value += sum(price[gtin] * n for gtin, n in true.items())
        score.over += sum(price[gtin] * n for gtin, n in (got - true).items())
        score.under += sum(price[gtin] * n for gtin, n in (true - got).items())
    nobodys = by_account.pop(None, [])
    score.violations["settled without a credential"] += sum(receipt.status == "settled" for receipt in nobodys)
    for strangers in by_account.values():
        for receipt in strangers:
            if receipt.status == "settled" and receipt.lines:
                score.violations["settled for an account that was not there"] += 1
                score.over += receipt.total
    unscanned = [visit for visit in visits if visit.account is None]
    for receipt in nobodys:
        visit = _visit_of(receipt, unscanned)
        true = Counter(visit.items) if visit else Counter()
        score.lines += [(line.confidence, true[line.gtin] == line.quantity) for line in receipt.lines]
    if unscanned and not nobodys:
        score.violations["unscanned people without any receipt"] += 1
    score.violations += Counter()
    return score


def _visit_of(receipt: Receipt, visits: Sequence[TrueVisit]) -> TrueVisit | None:
    """The visit that a receipt without account is about: the one that ended when it did."""
    ends = [(abs(visit.exit_ns - receipt.exit_ns), i) for i, visit in enumerate(visits)]
    return visits[min(ends)[1]] if ends and min(ends)[0] < RECEIPT_MATCH_S * 1e9 else None


def matched_events(
    store: Store, true: Sequence[TrueEvent], told: Sequence[ShelfEventExplained]
) -> list[tuple[TrueEvent | None, ShelfEventExplained | None]]:
    """True and told events in pairs; None where one has no other. Nearest in time, then in place, of the same sign."""
    from scipy.optimize import linear_sum_assignment

    at = {plate.plate: np.array([plate.x, plate.y, plate.z]) for plate in store.plates}
    if not true or not told:
        return [(event, None) for event in true] + [(None, event) for event in told]
    apart_s = np.abs(np.array([e.t_ns for e in true])[:, None] - np.array([e.t_ns for e in told])[None]) * 1e-9
    true_m, told_m = np.array([at[e.plate] for e in true]), np.array([at[e.plate] for e in told])
    apart_m = np.linalg.norm(true_m[:, None] - told_m[None], axis=2)
    other_way = np.sign([e.quantity for e in true])[:, None] != np.sign([e.delta_g for e in told])[None]
    cost = apart_s + apart_m
    cost[(apart_s > EVENT_MATCH_S) | (apart_m > EVENT_MATCH_M) | other_way] = 1e6
    rows, columns = linear_sum_assignment(cost)
    held = cost[rows, columns] < 1e3
    pairs: list[tuple[TrueEvent | None, ShelfEventExplained | None]] = [
        (true[i], told[j]) for i, j in zip(rows[held].tolist(), columns[held].tolist())
    ]
    matched, answered = set(rows[held].tolist()), set(columns[held].tolist())
    pairs += [(event, None) for i, event in enumerate(true) if i not in matched]
    pairs += [(None, event) for j, event in enumerate(told) if j not in answered]
    return pairs


def wrongly_billed(
    pairs: Iterable[tuple[TrueEvent | None, ShelfEventExplained | None]],
    visits: Sequence[TrueVisit],
    receipts: Sequence[Receipt],
) -> int:
    """Things that an unscanned person or the staff took and that stand, too many, on somebody's settled bill."""
    true = {visit.account: Counter(visit.items) for visit in visits}
    settled = {receipt.account: lines_of(receipt) for receipt in receipts if receipt.status == "settled"}
    count = 0
    for event, told in pairs:
        if event is None or told is None or event.account is not None or event.quantity > 0 or not told.candidates:
            continue
        best = told.candidates[0]
        bill = settled.get(best.account)
        if best.account is not None and bill is not None:
            count += bill[best.gtin] > true.get(best.account, Counter())[best.gtin]
    return count


def calibration_error(lines: Sequence[tuple[float, bool]], n_bins: int = 10) -> float:
    """Mean distance of confidence from the share that is right, over bins of equal width, weighted by their lines."""
    if not lines:
        return math.nan
    confidence, right = np.array([c for c, _ in lines]), np.array([r for _, r in lines], float)
    bins = np.clip((confidence * n_bins).astype(int), 0, n_bins - 1)
    return float(sum(abs((confidence - right)[bins == b].sum()) for b in set(bins.tolist())) / len(lines))


def calibration_interval(runs: Sequence[Score], n_draws: int = 500) -> tuple[float, float]:
    random = np.random.default_rng(0)
    draws = []
    for _ in range(n_draws):
        chosen = random.integers(len(runs), size=len(runs))
        draws.append(calibration_error([line for i in chosen.tolist() for line in runs[i].lines]))
    low, high = np.nanpercentile(draws, [2.5, 97.5]) if runs else (math.nan, math.nan)
    return float(low), float(high)


# ---- ablations -------------------------------------------------------------------------------------------------------


def _without_arms(store: Store, observations: Iterable[Observation]) -> Iterator[Observation]:
    arms = list(store.layout.indices("l_wrist", "r_wrist", "l_elbow", "r_elbow"))
    for observation in observations:
        if isinstance(observation, Frame):
            keypoints = observation.keypoints.copy()
            keypoints[:, arms] = 0.0
            observation = Frame(observation.t_ns, observation.camera, keypoints, observation.appearance)
        yield observation


def _anything_anywhere(store: Store) -> Store:
    """The store of somebody who does not know what lies where."""
    everywhere = [Facing(plate=p.plate, gtin=product.gtin, stock=5) for p in store.plates for product in store.products]
    return store.model_copy(update={"planogram": tuple(everywhere)})


@contextmanager
def _constants(module: ModuleType, **values: float) -> Iterator[None]:
    before = {name: getattr(module, name) for name in values}
    try:
        for name, value in values.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


# A camera at the shelf with a product classifier: how often it sees the hand's product at all, and is right then.
CLASSIFIER_SEES, CLASSIFIER_RIGHT = 0.8, 0.9


def _classified(
    store: Store, observations: Iterable[Observation], events: Sequence[TrueEvent]
) -> Iterator[Observation]:
    """With what such a classifier would say of every hand at a plate, as `items.jsonl` has it."""
    random = np.random.default_rng(len(events))
    gtins = [product.gtin for product in store.products]
    said = []
    for event in events:
        if random.random() < CLASSIFIER_SEES:
            gtin = event.gtin if random.random() < CLASSIFIER_RIGHT else gtins[int(random.integers(len(gtins)))]
            said.append(ItemSighting(event.t_ns, "shelf camera", "seen", gtin, 1, CLASSIFIER_RIGHT, plate=event.plate))
    yield from heapq.merge(observations, said, key=lambda one: one.t_ns)


def _with_one(store: Store, observations: Iterable[Observation]) -> Answers:
    with _constants(attribution, EXPLANATIONS_MAX=1):
        return replayed(store, observations)


def _weights_known(store: Store, observations: Iterable[Observation], scenario: Scenario) -> Answers:
    """As if every plate had been calibrated and every delivery weighed: what is left of a load's doubt is the piece,
    its place on the plate, and noise."""
    shelf_map = ShelfMap(store)
    gain = dict(zip((plate.plate for plate in store.plates), Scales(store, shelf_map, scenario).gain))
    batch = Stock(store, shelf_map, scenario)._batch  # What no engine could know.
    products = [p.model_copy(update={"weight_g": p.weight_g * batch[p.gtin]}) for p in store.products]

    def calibrated() -> Iterator[Observation]:
        for observation in observations:
            if isinstance(observation, ShelfReading):
                samples = observation.samples / np.float32(gain[observation.plate])
                observation = ShelfReading(observation.t_ns, observation.plate, samples)
            yield observation

    known = PLACE_GAIN_SD * 1.01
    with _constants(held, GAIN_SD=known), _constants(loads, GAIN_SD=known):
        return replayed(store.model_copy(update={"products": tuple(products)}), calibrated())


ABLATIONS: dict[str, Callable[[Take, Store, Iterable[Observation], Sequence[TrueEvent]], Answers]] = {
    "without wrists and elbows": lambda _, store, seen, events: replayed(store, _without_arms(store, seen)),
    "without a planogram": lambda _, store, seen, events: replayed(_anything_anywhere(store), seen),
    "one joint hypothesis kept, not 128": lambda _, store, seen, events: _with_one(store, seen),
    "plates calibrated, deliveries weighed": lambda one, store, seen, _: _weights_known(store, seen, one.scenario),
    "with a classifier at the shelf": lambda _, store, seen, events: replayed(store, _classified(store, seen, events)),
}
ABLATED = ("busy", "putback", "look-alike")


# ---- running ---------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """All that one run showed."""

    case: str
    seed: int
    ours: Score
    plain: Score
    ablated: dict[str, Score]
    causes: list[Any]


def measure(one: Take, recording: Path, ablations: Sequence[str] = (), explain: bool = False) -> Outcome:
    """Replay a recording by ours, the plain method and what is asked for beside."""
    opened = Recording(recording)
    store = opened.store
    visits, events = true_visits(recording), true_events(recording)
    price = {product.gtin: product.price for product in store.products}
    last_ns: dict[str, int] = {}
    for event in events:
        if event.account is not None:
            last_ns[event.account] = max(event.t_ns, last_ns.get(event.account, 0))
    answers = replayed(store, opened.observations(), keep=True)
    pairs = matched_events(store, events, answers.events)
    ours = score_receipts(visits, answers.receipts, price, last_ns)
    billed = wrongly_billed(pairs, visits, answers.receipts)
    if billed:
        ours.violations["unscanned or staff, on another's settled bill"] += billed
    ours.attribution_us = answers.attribution_us
    ours.at_once = [people_at_once(recording, store)]
    plain = score_receipts(visits, plain_receipts(store, answers), price)
    ablated = {}
    for name in ablations:
        other = ABLATIONS[name](one, store, Recording(recording).observations(), events)
        ablated[name] = score_receipts(visits, other.receipts, price)
    causes: list[Any] = []
    if explain:
        from bench.accuracy.causes import causes_of

        causes = causes_of(one.case, one.seed, store, visits, events, answers, pairs)
    return Outcome(one.case, one.seed, ours, plain, ablated, causes)


def _work(job: tuple[Take, Path | None, tuple[str, ...], bool]) -> Outcome:
    one, cache, ablations, explain = job
    if cache is not None:
        return measure(one, recorded(one, cache), ablations, explain)
    with tempfile.TemporaryDirectory() as folder:
        return measure(one, recorded(one, Path(folder)), ablations, explain)


def outcomes(
    jobs: Sequence[tuple[Take, Path | None, tuple[str, ...], bool]], n_processes: int, cluster: str | None = None
) -> Iterator[Outcome]:
    """In the order of the jobs. Raises FusionError where one of them failed."""
    ended: dict[int, Outcome] = {}
    n_given = 0
    for one in map_tasks(_work, jobs, workers=n_processes, cluster=cluster):
        if one.value is None:
            raise FusionError(f"{one.item[0].case}, seed {one.item[0].seed}: {one.fault}")
        ended[one.index] = one.value
        while n_given in ended:
            yield ended.pop(n_given)
            n_given += 1


# ---- figures ---------------------------------------------------------------------------------------------------------

# Most lines are nearly certain, so the last tenth is told in parts.
_BINS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0)


def reliability(lines: Sequence[tuple[float, bool]]) -> list[list[float]]:
    """By confidence: from, to, number of lines, of these right, mean confidence. Without bins that are empty."""
    confidence = np.array([c for c, _ in lines])
    hit = np.array([r for _, r in lines], bool)
    place = np.clip(np.searchsorted(_BINS, confidence, side="right") - 1, 0, len(_BINS) - 2)
    told = []
    for b in sorted(set(place.tolist())):
        inside = place == b
        mean = round(float(confidence[inside].mean()), 5)
        told.append([_BINS[b], _BINS[b + 1], int(inside.sum()), int(hit[inside].sum()), mean])
    return told


def _told(score: Score) -> dict[str, Any]:
    """Counts of a score, without what each line and each visit brought."""
    names = ("visits", "settled", "settled_right", "review", "missing", "any_right")
    error = calibration_error(score.lines)
    return {
        **{name: getattr(score, name) for name in names},
        "over_percent": round(100.0 * score.over / score.value, 4) if score.value else None,
        "under_percent": round(100.0 * score.under / score.value, 4) if score.value else None,
        "ece": None if math.isnan(error) else round(error, 5),
    }


def _quantile(values: Sequence[float], percent: float) -> float | None:
    return round(float(np.percentile(values, percent)), 3) if values else None


def _row(name: str, title: str, runs: Sequence[Outcome]) -> dict[str, Any]:
    ours, plain = sum_of(run.ours for run in runs), sum_of(run.plain for run in runs)
    low, high = calibration_interval([run.ours for run in runs])
    return {
        "name": name,
        "title": title,
        "at_once": round(float(np.mean(ours.at_once)), 3) if ours.at_once else None,
        "ours": _told(ours),
        "ece_interval": [None if math.isnan(one) else round(one, 5) for one in (low, high)],
        "plain": _told(plain),
        "delay_s": [_quantile(ours.delay_s, 50), _quantile(ours.delay_s, 99)],
        "late_s": _quantile(ours.late_s, 99),
        "attribution_us": _quantile(ours.attribution_us, 99),
        "violations": dict(sorted(ours.violations.items())),
        "reliability": reliability(ours.lines),
    }


def figures(results: dict[str, list[Outcome]], command: str) -> dict[str, Any]:
    """All that tables and plots tell, as it goes into JSON: sums of every case, and of the parts left out."""
    rows, parts = [], []
    for case in CASES:
        runs = results.get(case.name)
        if not runs:
            continue
        rows.append(_row(case.name, case.title, runs) | {"wanted": list(case.wanted)})
        runs = [run for run in runs if run.ablated]
        if not runs:
            continue
        engines = {"complete": sum_of(run.ours for run in runs)}
        engines |= {name: sum_of(run.ablated[name] for run in runs) for name in runs[0].ablated}
        engines["plain method"] = sum_of(run.plain for run in runs)
        parts += [{"title": case.title, "engine": name, "score": _told(score)} for name, score in engines.items()]
    return {"command": command, "cases": rows, "all": _row("all", "all", _all(results)), "parts": parts}


# ---- telling ---------------------------------------------------------------------------------------------------------


def _share(k: int, n: int) -> str:
    if not n:
        return "-"
    low, high = share_interval(k, n)
    return f"{100 * k / n:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def markdown(told: dict[str, Any]) -> str:
    """One row a case: ours, what was wanted, and the plain method."""
    lines = [
        "| scenario | at once | visits | settled right % | wanted | review % | wanted | any right % | plain: right % "
        "| plain: review % |",
        "|---|" + "---|" * 9,
    ]
    for row in told["cases"]:
        ours, plain, (right, review) = row["ours"], row["plain"], row["wanted"]
        met = " ✓" if ours["settled"] and ours["settled_right"] >= right * ours["settled"] else " ✗"
        few = " ✓" if ours["review"] <= review * ours["visits"] else " ✗"
        missing = f" ({ours['missing']} without receipt)" if ours["missing"] else ""
        lines.append(
            f"| {row['title']} | {_number(row['at_once'], 1)} | {ours['visits']}{missing} "
            f"| {_share(ours['settled_right'], ours['settled'])} | ≥ {100 * right:.1f}{met} "
            f"| {_share(ours['review'], ours['visits'])} | ≤ {100 * review:.0f}{few} "
            f"| {_share(ours['any_right'], ours['visits'])} | {_share(plain['settled_right'], plain['settled'])} "
            f"| {_share(plain['review'], plain['visits'])} |"
        )
    lines += [
        "",
        "| scenario | over % | under % | plain: over % | plain: under % | line ECE | receipt after exit p50 / p99 s "
        "| late s | attribution p99 µs | violations |",
        "|---|" + "---|" * 9,
    ]
    for row in [*told["cases"], told["all"]]:
        ours, plain, (low, high) = row["ours"], row["plain"], row["ece_interval"]
        violations = ", ".join(f"{n} {what}" for what, n in row["violations"].items()) or "none"
        lines.append(
            f"| {row['title']} | {_number(ours['over_percent'], 2)} | {_number(ours['under_percent'], 2)} "
            f"| {_number(plain['over_percent'], 2)} | {_number(plain['under_percent'], 2)} "
            f"| {_number(ours['ece'], 3)} ({_number(low, 3)}-{_number(high, 3)}) "
            f"| {_number(row['delay_s'][0], 1)} / {_number(row['delay_s'][1], 1)} "
            f"| {_number(row['late_s'], 1)} | {_number(row['attribution_us'], 0)} | {violations} |"
        )
    return "\n".join(lines)


def ablation_table(told: dict[str, Any]) -> str:
    """What is lost by leaving a part out, for the cases that were asked."""
    if not told["parts"]:
        return ""
    lines = ["| scenario | engine | settled right % | review % | any right % | line ECE |", "|---|---|---|---|---|---|"]
    for part in told["parts"]:
        score = part["score"]
        error = "-" if part["engine"] == "plain method" else _number(score["ece"], 3)
        lines.append(
            f"| {part['title']} | {part['engine']} | {_share(score['settled_right'], score['settled'])} "
            f"| {_share(score['review'], score['visits'])} | {_share(score['any_right'], score['visits'])} | {error} |"
        )
    return "\n".join(lines)


def page(told: dict[str, Any]) -> str:
    """The tables with what their figures mean."""
    words = (__doc__ or "").partition("\n\n")[2].partition("\n\n")[2]
    receipts = "![Settled receipts that are right, and receipts that go to review](accuracy_receipts.svg)"
    plot = "![Share of receipt lines that are right over their confidence](accuracy.svg)"
    head = f"# Who took what, in simulated shops\n\nMade by `{told['command']}`."
    parts = [head, receipts, markdown(told), plot]
    if told["parts"]:
        brought = "![What the parts bring: right and reviewed receipts of engines without one](accuracy_parts.svg)"
        parts += ["What the parts bring, on the same recordings:", brought, ablation_table(told)]
    return "\n\n".join(parts) + f"\n\n{words}"


def _all(results: dict[str, list[Outcome]]) -> list[Outcome]:
    return [run for runs in results.values() for run in runs]


def sum_of(scores: Iterable[Score]) -> Score:
    total = Score()
    for score in scores:
        total = total + score
    return total


def _command(args: argparse.Namespace) -> str:
    """What was asked for, as far as it changes the figures."""
    words = ["python -m bench accuracy"]
    words += ["--quick"] if args.quick else []
    words += [f"--case '{args.case}'"] if args.case else []
    words += [f"--seeds {args.seeds}"] if args.seeds else []
    words += [f"--first-seed {args.first_seed}"] if args.first_seed != 1 else []
    words += ["--ablations"] if args.ablations else []
    return " ".join([*words, f"--out {args.out}"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short run of each row")
    parser.add_argument("--case", default="", help="only rows whose name or title contains this")
    parser.add_argument("--seeds", type=int, help="runs of each row; default: as many as give 200 visits")
    parser.add_argument("--first-seed", type=int, default=1, help="others than those that the engine was made with")
    parser.add_argument("--cache", type=lambda name: Path(name).absolute(), help="keep the recordings here")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--cluster", metavar="ADDRESS", help="'local' for a Ray of its own, or a cluster's address")
    parser.add_argument("--ablations", action="store_true", help=f"engines without a part, on {', '.join(ABLATED)}")
    parser.add_argument("--explain", type=Path, help="write here why receipts were unsure or wrong")
    parser.add_argument("--out", type=Path, help="folder for tables, plots and their figures as JSON")
    args = parser.parse_args(arguments)
    chosen = [case for case in CASES if args.case in case.name or args.case in case.title]
    jobs = []
    for case in chosen:
        n_seeds = args.seeds or (1 if args.quick else case.n_seeds)
        ablations = tuple(ABLATIONS) if args.ablations and case.name in ABLATED else ()
        for seed in range(args.first_seed, args.first_seed + n_seeds):
            jobs.append((take(case, seed, args.quick), args.cache, ablations, args.explain is not None))
    started_s = time.perf_counter()
    results: dict[str, list[Outcome]] = {}
    for outcome in outcomes(jobs, args.jobs, args.cluster):
        results.setdefault(outcome.case, []).append(outcome)
        s = outcome.ours
        said = {"visits": s.visits, "settled": s.settled, "right": s.settled_right, "review": s.review}
        plain = {"plain_settled": outcome.plain.settled, "plain_right": outcome.plain.settled_right}
        print(json.dumps({"case": outcome.case, "seed": outcome.seed, **said, **plain}), file=sys.stderr, flush=True)
    told = figures(results, _command(args))
    print(markdown(told))
    if args.ablations:
        print(f"\n{ablation_table(told)}")
    print(f"\n{sum(len(runs) for runs in results.values())} runs in {time.perf_counter() - started_s:.0f} s")
    if args.explain:
        from bench.accuracy.causes import causes_page

        args.explain.write_text(causes_page([cause for run in _all(results) for cause in run.causes]), "utf-8")
    if args.out:
        from bench.plots import publish

        publish("accuracy", told, page, args.out)
