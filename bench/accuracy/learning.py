"""Two weeks of a store that drifts, with and without what it teaches its engine.

    OMP_NUM_THREADS=1 python -m bench learning                    one line a day for each way of learning
    OMP_NUM_THREADS=1 python -m bench learning --out docs/figures

No cameras: people and their hands are given, one visit at a time, and loads go straight into attribution and billing.
So only the goods are doubtful, and what learning can do for them shows alone. Every receipt that goes to review is
decided by a reviewer, who is wrong in one of fifty; the decision comes back to the engine as a label.

What changes in two weeks: gains wander, a plate is exchanged every other day, deliveries come every three days and
weigh 0.6 % more or less, and one product in ten weighs 2 % off its label from the start.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import plots
from bench.intervals import share_interval
from fusion.goods.attribution import Attributor
from fusion.goods.billing import Billing
from fusion.goods.loads import ShelfEvent
from fusion.goods.planogram import Planogram
from fusion.people.arms import ArmHistory
from fusion.people.open_visits import Visit
from fusion.results import People, Receipt, ReceiptStatus
from fusion.results import Warning as StoreWarning
from fusion.simulation import demo_store
from fusion.store.models import Store

DAYS, VISITS_A_DAY, TAKES_MEAN = 14, 60, 4.0
CUSTOMERS = 60
PUT_BACK, LAID_ACROSS, LOOK_ALIKE_SHARE = 0.12, 0.3, 0.3
# The engine's own deviations are those of its model; here: of the simulated shops of `bench accuracy`.
GAIN_SD, PLACE_GAIN_SD, CREEP_SHARE, NOISE_G, BATCH_SD = 0.03, 0.01, 0.004, 0.35, 0.006
# Gains wander by this much in a day; a plate is exchanged every other day.
GAIN_DRIFT_SD_PER_DAY, EXCHANGES_A_DAY = 0.003, 0.5
DELIVERY_DAYS, STALE_LABELS, STALE_SD = 3.0, 0.1, 0.02
REVIEWER_WRONG = 0.02
T0_NS, DAY_NS, SECOND_NS = 1_772_524_800 * 10**9, 86_400 * 10**9, 10**9

WAYS = {
    "nothing": "nothing is learnt: every gain is 1, every weight its label",
    "constant gains": "gains as constants from certain loads, as before this was built",
    "gains": "gains that wander, exchanged plates noticed",
    "all": "gains, weights of deliveries, and the decisions of reviewers",
}


# ---- the store -------------------------------------------------------------------------------------------------------


class World:
    """What plates and goods really are, day by day; the same for every way of learning."""

    def __init__(self, store: Store, seed: int) -> None:
        self.random = np.random.Generator(np.random.PCG64([seed, 17]))
        self.store = store
        random, n_plates, n_products = self.random, len(store.plates), len(store.products)
        self.gain = 1.0 + GAIN_SD * np.clip(random.standard_normal(n_plates), -3.0, 3.0)
        stale = random.random(n_products) < STALE_LABELS
        self.label_g = np.array([product.weight_g for product in store.products])
        self.sd_g = np.array([product.weight_sd_g for product in store.products])
        self.usual = 1.0 + stale * STALE_SD * random.standard_normal(n_products)
        self.batch = 1.0 + BATCH_SD * random.standard_normal(n_products)
        plate_at = {plate.plate: i for i, plate in enumerate(store.plates)}
        product_at = {product.gtin: i for i, product in enumerate(store.products)}
        self.facings = [(plate_at[f.plate], product_at[f.gtin], f.stock) for f in store.planogram]
        self.missing = [0] * len(self.facings)

    def weight_g(self) -> np.ndarray:
        """(n_products,) mean weight of the delivery that lies there."""
        return self.label_g * self.usual * self.batch

    def next_day(self) -> list[int]:
        """A night passes; returns the products of which a delivery comes."""
        random = self.random
        self.gain += GAIN_DRIFT_SD_PER_DAY * random.standard_normal(len(self.gain))
        if random.random() < EXCHANGES_A_DAY:
            self.gain[int(random.integers(len(self.gain)))] = 1.0 + GAIN_SD * float(random.standard_normal())
        came = np.flatnonzero(random.random(len(self.batch)) < 1.0 / DELIVERY_DAYS)
        self.batch[came] = 1.0 + BATCH_SD * random.standard_normal(len(came))
        return came.tolist()

    def load(self, plate: int, product: int, pieces: int, row: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Plates of a load of some pieces (negative: taken), and the grams that they show."""
        random = self.random
        true_g = sum(
            float(self.weight_g()[product] + self.sd_g[product] * np.clip(random.standard_normal(), -3.0, 3.0))
            for _ in range(abs(pieces))
        )
        true_g *= 1.0 + PLACE_GAIN_SD * float(np.clip(random.standard_normal(), -3.0, 3.0))
        true_g *= 1.0 + CREEP_SHARE * float(random.standard_normal())
        beside = [row[at] for at in (row.index(plate) - 1, row.index(plate) + 1) if 0 <= at < len(row)]
        plates, shares = [plate], [1.0]
        if beside and random.random() < LAID_ACROSS:
            share = float(random.uniform(0.55, 0.95))
            plates, shares = [plate, beside[int(random.integers(len(beside)))]], [share, 1.0 - share]
        order = np.argsort(plates)
        at, share = np.array(plates)[order], np.array(shares)[order]
        shown = math.copysign(true_g, pieces) * share * self.gain[at]
        return at, shown + NOISE_G * random.standard_normal(len(at))


@dataclass
class Members:
    """Whose visit a track belongs to."""

    visits: dict[int, Visit] = field(default_factory=dict)
    staff: set[int] = field(default_factory=set)

    def account_of(self, track_id: int) -> str | None:
        """Account of a track's visit."""
        return self.visits[track_id].account if track_id in self.visits else None

    def visit_of(self, track_id: int) -> str | None:
        """Id of a track's visit."""
        return self.visits[track_id].id if track_id in self.visits else None

    def moved_goods(self, track_id: int) -> None:
        """Nothing to note."""

    def loaded(self, plate: int, t_ns: int) -> list[StoreWarning]:
        """No warning: there are no doors."""
        return []

    def is_staff(self, track_id: int) -> bool:
        """Whether a track is a member of staff."""
        return track_id in self.staff


class Scales:
    """Plates that work and have nothing undecided; their loads come from the world."""

    def alive_since(self, _: int) -> bool:
        """Whether any plate reported since."""
        return True

    def undecided(self) -> list[tuple[int, int]]:
        """Loads that are not decided yet."""
        return []

    def trace(self, _: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples of a plate: none are kept."""
        return np.zeros(0, np.int64), np.zeros(0, np.float32)


class Shop:
    """A store's world with its attribution and billing, one visit after the other."""

    def __init__(self, store: Store, way: str, seed: int) -> None:
        self.store, self.way = store, way
        self.world = World(store, seed)
        self.planogram = Planogram(store)
        self.members = Members()
        self.attributor = Attributor(store, self.planogram)
        self.history = ArmHistory(store.layout)
        self.billing = Billing(store, self.members, self.attributor, Scales(), self.history)  # type: ignore[arg-type]
        self.now_ns = T0_NS
        self._n_people = 0
        _restrict(self.planogram.learnt, way)
        self.days: list[Counter[str]] = []
        self.errors: list[tuple[float, float]] = []

    def run(self, days: int, visits_a_day: int) -> None:
        """Let some days pass."""
        for day in range(days):
            came = self.world.next_day() if day else []
            self.now_ns = T0_NS + day * DAY_NS + 8 * 3600 * SECOND_NS
            self._fill(came)
            counts: Counter[str] = Counter()
            for _ in range(visits_a_day):
                self._visit(counts)
            self.days.append(counts)
            self.errors.append(self._errors())

    # ---- what happens ------------------------------------------------------------------------------------------------

    def _fill(self, products: Sequence[int]) -> None:
        """Staff fill the facings of a delivery, and count what lies there then."""
        if not products:
            return
        track = self._enter()
        self.members.staff.add(track)
        self.attributor.set_staff(track)
        for at, (plate, product, _) in enumerate(self.world.facings):
            if product in products and self.world.missing[at]:
                self._move(track, plate, product, 1)
                self.world.missing[at] = 0
        full = np.zeros(self.planogram.stock.shape)
        for plate, product, stock in self.world.facings:
            full[plate, product] = stock
        self.planogram.stock[:, products] = full[:, products]
        self.billing.staff_left(self.now_ns, track)
        self.billing.settle_staff(self.now_ns)

    def _visit(self, counts: Counter[str]) -> None:
        random, world = self.world.random, self.world
        track = self._enter()
        name = f"v{track}"
        account = f"customer {int(random.integers(CUSTOMERS))}"
        visit = Visit(name, account, self.now_ns, {track})
        self.members.visits[track] = visit
        self.attributor.join(track, name)
        cart: Counter[int] = Counter()
        for _ in range(1 + int(random.poisson(TAKES_MEAN - 1.0))):
            at = int(random.integers(len(world.facings)))
            plate, product, stock = world.facings[at]
            pieces = min(1 + int(random.choice(3, p=[0.86, 0.11, 0.03])), stock - world.missing[at])
            if pieces < 1:
                continue
            self._move(track, plate, product, -pieces)
            world.missing[at] += pieces
            cart[product] += pieces
            if random.random() < PUT_BACK:
                self._move(track, plate, product, 1)
                world.missing[at] -= 1
                cart[product] -= 1
        self.now_ns += 20 * SECOND_NS
        visit.exit_ns = self.now_ns
        results = self.billing.bill(visit, [], self.now_ns, self.now_ns + SECOND_NS)
        (receipt,) = [result for result in results if isinstance(result, Receipt)]
        gtins = [product.gtin for product in self.store.products]
        truth = {gtins[product]: n for product, n in sorted(cart.items()) if n}
        self._count(receipt, truth, counts)
        # Drawn for every visit, so that chance is the same for every way of learning.
        wrong, other = random.random() < REVIEWER_WRONG, gtins[int(random.integers(len(gtins)))]
        self.now_ns += 60 * SECOND_NS
        if receipt.status is ReceiptStatus.REVIEW:
            decided = dict(truth)
            if wrong and decided:
                decided[other] = decided.get(other, 0) + decided.pop(sorted(decided)[0])
            if self.way == "all":
                self.billing.labels.learn(name, decided, self.now_ns)
        del self.members.visits[track]

    @staticmethod
    def _count(receipt: Receipt, truth: dict[str, int], counts: Counter[str]) -> None:
        right = {line.gtin: line.quantity for line in receipt.lines} == truth
        counts["visits"] += 1
        counts["any_right"] += right
        if receipt.status is ReceiptStatus.SETTLED:
            counts["settled"] += 1
            counts["settled_right"] += right

    def _enter(self) -> int:
        self._n_people += 1
        self.now_ns += 20 * SECOND_NS
        return self._n_people

    def _move(self, track: int, plate: int, product: int, pieces: int) -> None:
        """One grip: the person's hand is at the plate, the load shows on it and perhaps beside it."""
        self.now_ns += 10 * SECOND_NS
        rows = self.planogram.rows
        row = rows.members[rows.row[plate]]
        plates, delta_g = self.world.load(plate, product, pieces, row)
        for i in range(-3, 4):
            self.history.append(self._person(track, plate, self.now_ns + i * SECOND_NS // 10))
        noise = np.eye(len(plates)) * NOISE_G**2
        event = ShelfEvent(plates, self.now_ns - 10**8, self.now_ns, self.now_ns + 5 * 10**8, delta_g, noise)
        self.billing.observe(event)

    def _person(self, track: int, plate: int, t_ns: int) -> People:
        layout, place = self.store.layout, self.store.plates[plate]
        cos, sin = math.cos(place.yaw), math.sin(place.yaw)
        joints = np.full((1, layout.n_joints, 3), np.nan)

        def point(along_m: float, across_m: float, z_m: float) -> tuple[float, float, float]:
            """A place before the plate, as its shopper sees it."""
            return place.x + along_m * cos - across_m * sin, place.y + along_m * sin + across_m * cos, z_m

        body = point(0.0, -0.62, 0.0)
        joints[0, layout.index("r_wrist")] = point(0.0, -0.17, place.z + 0.12)
        joints[0, layout.index("r_elbow")] = point(0.0, -0.42, place.z + 0.12)
        joints[0, layout.index("r_shoulder")] = point(0.0, -0.6, place.z + 0.3)
        sd_m = np.where(np.isnan(joints[:, :, 0]), np.nan, 0.03)
        one = np.ones(1)
        return People(
            t_ns, np.array([track]), np.ones(1, bool), np.array([body[:2]]), 0.03 * one, joints, sd_m,
            np.array([t_ns]), one,
        )  # fmt: skip

    def _errors(self) -> tuple[float, float]:
        """Root mean square errors: of a piece's weight, and of what a facing's plate shows for it; shares."""
        planogram, world = self.planogram, self.world
        weight = np.log(planogram.weight_g / world.weight_g())
        facing = [weight[product] + math.log(planogram.gain[plate] / world.gain[plate])
                  for plate, product, _ in world.facings]  # fmt: skip
        return float(np.sqrt((weight**2).mean())), float(np.sqrt(np.mean(np.square(facing))))


def _restrict(learnt: Any, way: str) -> None:
    """Leave out what a way of learning lacks."""

    def nothing(*_: Any) -> None:
        pass

    if way != "all":
        learnt.add_load = learnt.note_delivery = nothing
    if way == "constant gains":
        learnt.gain_drift_var = 0.0
        learnt._refuse = nothing
    if way == "nothing":
        learnt.follow_gain = nothing


# ---- figures ---------------------------------------------------------------------------------------------------------


_Outcome = tuple[list[Counter[str]], list[tuple[float, float]], int]


def run_one(way: str, seed: int, days: int, visits_a_day: int) -> _Outcome:
    """Counts and errors of every day of one store, and how many versions it made."""
    shop = Shop(demo_store(n_cameras=1, n_plates=160, look_alike_share=LOOK_ALIKE_SHARE, seed=seed), way, seed)
    shop.run(days, visits_a_day)
    return shop.days, shop.errors, shop.planogram.learnt.version


def measure(days: int, visits_a_day: int, seeds: Sequence[int], jobs: int = 1) -> dict[str, Any]:
    """Run every way of learning in the same stores, on some processes."""

    def run_all(runs: Sequence[tuple[str, int, int, int]]) -> list[_Outcome]:
        if jobs == 1:
            return [run_one(*run) for run in runs]
        with ProcessPoolExecutor(jobs) as pool:
            return list(pool.map(run_one, *zip(*runs)))

    figures: dict[str, Any] = {"days": days, "visits_a_day": visits_a_day, "seeds": list(seeds), "ways": []}
    for way, title in WAYS.items():
        counts, n_versions, started_s = [Counter[str]() for _ in range(days)], 0, time.perf_counter()
        weight, facing = np.zeros(days), np.zeros(days)
        for of_days, errors, version in run_all([(way, seed, days, visits_a_day) for seed in seeds]):
            n_versions += version
            for day in range(days):
                counts[day] += of_days[day]
                weight[day] += errors[day][0] ** 2 / len(seeds)
                facing[day] += errors[day][1] ** 2 / len(seeds)
        row = {
            "way": way, "title": title, "days": [dict(count) for count in counts], "versions": n_versions,
            "weight_error": np.sqrt(weight).round(5).tolist(), "facing_error": np.sqrt(facing).round(5).tolist(),
        }  # fmt: skip
        figures["ways"].append(row)
        print(f"{_line(row)} {time.perf_counter() - started_s:.0f} s", flush=True)
    return figures


def _line(row: dict[str, Any]) -> str:
    total = sum((Counter(day) for day in row["days"]), Counter())
    n, settled, right = total["visits"], total["settled"], total["settled_right"]
    share, (low, high) = right / max(settled, 1), share_interval(right, settled)
    first, last = (
        100.0 * (1.0 - sum(day["settled"] for day in part) / sum(day["visits"] for day in part))
        for part in (row["days"][:2], row["days"][-7:])
    )
    cells = (
        row["way"], n, f"{100 * share:.2f} ({100 * low:.2f}-{100 * high:.2f})", f"{100 * (1 - settled / n):.1f}",
        f"{first:.1f}", f"{last:.1f}", f"{100 * total['any_right'] / n:.1f}", f"{100 * row['weight_error'][-1]:.2f}",
        f"{100 * row['facing_error'][-1]:.2f}", row["versions"],
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


_COLUMNS = (
    "learnt", "visits", "settled right %", "review %", "review, days 1-2 %", "review, last 7 days %", "any right %",
    "weight error %", "facing error %", "versions",
)  # fmt: skip


def page(figures: dict[str, Any]) -> str:
    """The page of docs/figures."""
    rows = "\n".join(_line(row) for row in figures["ways"])
    ways = "\n".join(f"- *{row['way']}*: {row['title']}." for row in figures["ways"])
    n = len(figures["seeds"])
    head = f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|"
    return f"""# What a store teaches its engine

Made by `python -m bench learning --out docs/figures`: {n} simulated stores of 160 plates and 36 products,
{figures["days"]} days of {figures["visits_a_day"]} visits each. People are given, so only goods are in doubt. Gains
wander by 0.3 % a day, a plate is exchanged every other day, deliveries come every three days and weigh 0.6 % more or
less, one product in ten weighs 2 % off its label, and three products in ten weigh within 2 g of the one beside them.
Reviews are decided by a reviewer who is wrong in one of fifty.

{head}
{rows}

{ways}

Errors are root mean squares at the end: of a piece's weight against that of its delivery, and of what the plate of a
facing shows for one piece (weight times gain), which is what a load is compared with. Gains bring most of what there is
to gain. Weights of deliveries bring that closer to the truth and leave the share of reviews as it is, within chance:
what is open are goods side by side whose weights differ by less than a place on a plate does.

![Reviews and errors day by day](learning.svg)
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write figures where a folder is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--visits", type=int, default=VISITS_A_DAY, help="a day")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, help="write learning.json, learning.md and learning.svg there")
    args = parser.parse_args(arguments)
    figures = measure(args.days, args.visits, args.seeds, args.jobs)
    if args.out is not None:
        plots.publish("learning", figures, page, args.out)
    else:
        print(json.dumps({row["way"]: row["facing_error"] for row in figures["ways"]}))
