"""The fewest cameras and plates with which a store keeps its limits, by coverage and by simulated receipts.

Cameras are taken away one after another (greedy backward elimination), each time the one whose loss costs the least
sight of the floor and of the hands before plates. Plates are joined in pairs of neighbours, each time all of them: one
plate of twice the width bears what two did. Every such store is then simulated with the same customers, in turns of one
run each, so that all have as many when the time is over.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from fusion.engine import Engine
from fusion.errors import ConfigError
from fusion.results import Receipt, ReceiptStatus
from fusion.setup.coverage import HEIGHT_M, Coverage, Sight, hands_m
from fusion.simulation import Scenario
from fusion.simulation.kinds import simulation_of
from fusion.store.models import Facing, Plate, Store

# Worth of a further camera that sees a place: each sees it alone or well in a third of the cases that are left.
SEEN_SHARE = 0.65
# Seeing the hands before a plate is worth as much as seeing this many places of the floor that are seen once.
HANDS_WEIGHT = 2.0
# Of one simulated run.
RUN_MINUTES, RUN_SHOPPERS = 3.0, 8
# Neighbouring plates are joined up to this width; one gap between them is narrower than MERGED_GAP_M.
WIDTH_MAX_M, MERGED_GAP_M = 0.85, 0.03


class Removal(NamedTuple):
    """A camera that is taken away, and what is left to be seen.

    Attributes:
        camera: its name.
        floor, hands: mean number of cameras that see a place of the floor, and the hands before a plate, afterwards.
    """

    camera: str
    floor: float
    hands: float


@dataclass
class Variant:
    """A store with fewer cameras or plates, and the receipts of its simulated customers.

    Attributes:
        store: as it would be built.
        lost: the camera that it lacks and the variant before it has; "" for the store as it is, and of plates.
        visits, wrong, review: simulated visits of all runs; settled ones that are wrong, and those in review.
    """

    store: Store
    lost: str = ""
    visits: int = 0
    wrong: int = 0
    review: int = 0

    @property
    def settled(self) -> int:
        """Receipts that no person looks at."""
        return self.visits - self.review

    def keeps(self, wrong: float, review: float) -> bool:
        """Whether the shares that were seen are at most these."""
        return self.visits > 0 and self.wrong <= wrong * self.settled and self.review <= review * self.visits

    def fails(self, wrong: float, review: float) -> bool:
        """Whether one of the shares is above its limit for certain: at 95 %, by the exact interval."""
        return interval(self.wrong, self.settled)[0] > wrong or interval(self.review, self.visits)[0] > review


def interval(k: int, n: int) -> tuple[float, float]:
    """Exact 95 % confidence interval of a share, k of n; all of [0, 1] of none (Clopper and Pearson 1934)."""
    if not n:
        return 0.0, 1.0
    exact = binomtest(k, n).proportion_ci(0.95, method="exact")
    return float(exact.low), float(exact.high)


def removals(store: Store) -> list[Removal]:
    """The cameras of a store in the order in which they can be spared, without the last one, since one must stay."""
    coverage = Coverage.of(store)
    at = np.argwhere(coverage.counts >= 0)
    floor_m = np.column_stack([coverage.corner_m + (at + 0.5) * coverage.cell_m, np.full(len(at), HEIGHT_M)])
    sight = Sight(store)
    floor, hands = sight.sees(floor_m), sight.sees(hands_m(store.plates))
    left = list(range(len(store.cameras)))
    found = []
    while len(left) > 1:
        worth = [_worth(floor, hands, [view for view in left if view != gone]) for gone in left]
        gone = left.pop(int(np.argmax(worth)))
        seen = [float(views[left].sum(axis=0).mean()) if views.shape[1] else 0.0 for views in (floor, hands)]
        found.append(Removal(store.cameras[gone].name, *seen))
    return found


def _worth(floor: NDArray[np.bool_], hands: NDArray[np.bool_], views: list[int]) -> float:
    """What cameras see: of every place, 1 - (1 - SEEN_SHARE)^n for n cameras that see it."""
    worth = 0.0
    for seen, weight in ((floor, 1.0), (hands, HANDS_WEIGHT)):
        if seen.shape[1]:
            worth += weight * float((1.0 - (1.0 - SEEN_SHARE) ** seen[views].sum(axis=0)).mean())
    return worth


def with_fewer_plates(store: Store) -> Store | None:
    """The store with its plates joined in pairs of neighbours; None where no two stand side by side."""
    left, joined = list(store.plates), list[Plate]()
    name_of: dict[str, str] = {}
    while left:
        plate = left.pop(0)
        beside = next((other for other in left if _is_beside(plate, other)), None)
        name_of[plate.plate] = plate.plate
        if beside is not None:
            left.remove(beside)
            name_of[beside.plate] = plate.plate
            middle = {"x": 0.5 * (plate.x + beside.x), "y": 0.5 * (plate.y + beside.y)}
            capacity_g = plate.capacity_g + beside.capacity_g
            plate = plate.model_copy(
                update={**middle, "width": plate.width + beside.width, "capacity_g": capacity_g}
            )
        joined.append(plate)
    if len(joined) == len(store.plates):
        return None
    stock: Counter[tuple[str, str]] = Counter()
    for facing in store.planogram:
        stock[name_of[facing.plate], facing.gtin] += facing.stock
    planogram = tuple(Facing(plate=plate, gtin=gtin, stock=n) for (plate, gtin), n in stock.items())
    gates = tuple(
        gate.model_copy(update={"plates": tuple(dict.fromkeys(name_of[plate] for plate in gate.plates))})
        for gate in store.gate
    )
    return store.model_copy(update={"plates": tuple(joined), "planogram": planogram, "gate": gates})


def _is_beside(plate: Plate, other: Plate) -> bool:
    """Whether another plate is the next of the same size in a row, and both may be one."""
    along = (other.x - plate.x) * np.cos(plate.yaw) + (other.y - plate.y) * np.sin(plate.yaw)
    across = (other.y - plate.y) * np.cos(plate.yaw) - (other.x - plate.x) * np.sin(plate.yaw)
    return bool(
        abs(plate.z - other.z) < MERGED_GAP_M and abs(across) < MERGED_GAP_M and abs(plate.yaw - other.yaw) < 0.02
        and 0.0 < along < 0.5 * (plate.width + other.width) + MERGED_GAP_M
        and plate.width + other.width <= WIDTH_MAX_M
    )  # fmt: skip


def variants(store: Store) -> list[Variant]:
    """The store as it is, then with ever fewer cameras, then with fewer plates and all cameras.

    Raises:
        ConfigError: the store has no plates or no products, so that nothing can be sold.
    """
    if not store.plates or not store.products:
        raise ConfigError("want a store with plates and products, since receipts are simulated")
    found = [Variant(store)]
    for removal in removals(store) if len(store.cameras) > 1 else ():
        cameras = tuple(camera for camera in found[-1].store.cameras if camera.name != removal.camera)
        found.append(Variant(store.model_copy(update={"cameras": cameras}), removal.camera))
    fewer = with_fewer_plates(store)
    while fewer is not None:
        found.append(Variant(fewer))
        fewer = with_fewer_plates(fewer)
    return found


def measure(
    found: list[Variant], wrong: float, review: float, seed: int, minutes: float,
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda turns: turns,
    clock_s: Callable[[], float] = time.monotonic,
) -> int:  # fmt: skip
    """Simulate customers in every variant, a run each in turn, until the time is over; returns the number of turns.

    A variant that fails for certain has no further runs, and neither has one with fewer cameras than one that fails.

    Args:
        found: of `variants`, whose counts are filled in.
        wrong: limit of the share of settled receipts that are wrong.
        review: limit of the share of receipts in review.
        seed: of the first turn.
        minutes: after which no further run begins; the first turn is always finished.
        progress: shows the turns.
        clock_s: the time.
    """
    ends_s, turns = clock_s() + 60.0 * minutes, 0
    def goes_on() -> bool:
        return turns == 0 or clock_s() < ends_s

    for turn in progress(_turns(goes_on)):
        for at, variant in enumerate(found):
            hopeless = any(
                other.fails(wrong, review) and len(other.store.plates) == len(variant.store.plates)
                and len(other.store.cameras) >= len(variant.store.cameras)
                for other in found[: at + 1]
            )  # fmt: skip
            if turn and (hopeless or clock_s() >= ends_s):
                continue
            _run(variant, seed + turn)
        turns += 1
    return turns


def _turns(more: Callable[[], bool]) -> Iterator[int]:
    turn = 0
    while more():
        yield turn
        turn += 1


def _run(variant: Variant, seed: int) -> None:
    scenario = Scenario(seed=seed, minutes=RUN_MINUTES, shoppers=RUN_SHOPPERS)
    simulation, engine = simulation_of(variant.store, scenario), Engine(variant.store)
    receipts: dict[str | None, list[Receipt]] = {}
    for results in (*map(engine.feed, simulation.observations()), engine.close()):
        for result in results:
            if isinstance(result, Receipt):
                receipts.setdefault(result.account, []).append(result)
    for visit in simulation.truth.visits:
        if visit.account is None:
            continue
        mine = receipts.get(visit.account, [])
        billed: Counter[str] = Counter()
        for receipt in mine:
            billed.update({line.gtin: line.quantity for line in receipt.lines})
        is_settled = bool(mine) and all(receipt.status is ReceiptStatus.SETTLED for receipt in mine)
        variant.visits += 1
        variant.review += not is_settled
        variant.wrong += is_settled and billed != Counter(visit.items)


def fewest(found: list[Variant], wrong: float, review: float, *, plates: bool) -> Variant | None:
    """The last of the variants with fewer and fewer cameras (or plates) up to which all keep their limits."""
    chosen = None
    for variant in found:
        is_whole = len(variant.store.plates) == len(found[0].store.plates)
        if is_whole == plates and variant is not found[0]:
            continue
        if not variant.keeps(wrong, review):
            break
        chosen = variant
    return chosen


def table(found: list[Variant], wrong: float, review: float) -> list[str]:
    """A row for each variant: what it lacks, its receipts with exact 95 % intervals, whether it keeps its limits."""
    rows = [("cameras", "plates", "without", "visits", "wrong %", "review %", "limits")]
    for variant in found:
        fails, keeps = variant.fails(wrong, review), variant.keeps(wrong, review)
        verdict = "broken" if fails else "not kept here" if not keeps else "kept here"
        if keeps and interval(variant.wrong, variant.settled)[1] <= wrong and (
            interval(variant.review, variant.visits)[1] <= review
        ):  # fmt: skip
            verdict = "kept"
        rows.append((
            str(len(variant.store.cameras)), str(len(variant.store.plates)), variant.lost or "-", str(variant.visits),
            _percent(variant.wrong, variant.settled), _percent(variant.review, variant.visits), verdict,
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def _percent(k: int, n: int) -> str:
    low, high = interval(k, n)
    return f"{100.0 * k / n:.1f} ({100.0 * low:.1f}-{100.0 * high:.1f})" if n else "-"
