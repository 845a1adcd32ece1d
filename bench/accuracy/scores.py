"""Scores receipts against the truth: counts, amounts, calibration, violations."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.accuracy.risk import Weighed, binned_error
from bench.accuracy.shelves import ShelfScore
from bench.accuracy.truth import TrueEvent, TrueVisit
from fusion.engine import LATENESS_MAX_S
from fusion.results import ReasonKind, Receipt, ShelfEventExplained
from fusion.store.models import Store

# Reasons for review that come from tracking people, not from attributing goods.
VISIT_DOUBTS = {
    ReasonKind.LOST_AMONG_OTHERS, ReasonKind.LOST_INSIDE, ReasonKind.SCANNED_PERSON_LOST, ReasonKind.UNSCANNED_BESIDE,
    ReasonKind.NO_CREDENTIAL,
}  # fmt: skip
RECEIPT_MATCH_S = 10.0
EVENT_MATCH_S, EVENT_MATCH_M = 1.5, 0.45
# A load that leaves a plate settles within this time; it is the last evidence of a receipt.
SETTLES_S = 0.75


@dataclass
class Asked:
    """Visits where each receipt in review is asked one question; `+` adds them.

    asked: questions; none_of_these: those of which no alternative was true.
    """

    settled: int = 0
    settled_right: int = 0
    review: int = 0
    asked: int = 0
    none_of_these: int = 0

    def __add__(self, other: Asked) -> Asked:
        return Asked(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass
class Score:
    """Counts of one or several runs; `+` adds them.

    weighed: of every visit with a receipt; persons, products: (probability, right) of the best answer about an event.
    """

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
    shelves: ShelfScore = field(default_factory=ShelfScore)
    weighed: list[Weighed] = field(default_factory=list)
    persons: list[tuple[float, bool]] = field(default_factory=list)
    products: list[tuple[float, bool]] = field(default_factory=list)
    asked: Asked = field(default_factory=Asked)

    def __add__(self, other: Score) -> Score:
        return Score(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def lines_of(receipt: Receipt) -> Counter[str]:
    """Quantity of each GTIN on a receipt."""
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
    """Score receipts against the true visits. last_event_ns: time of each account's last true event, where known."""
    score = Score()
    by_account: defaultdict[str | None, list[Receipt]] = defaultdict(list)
    for receipt in receipts:
        by_account[receipt.account].append(receipt)
    for visit in visits:
        if visit.account is None:
            continue
        own = by_account.pop(visit.account, [])
        true = Counter(visit.items)
        billed = sum((lines_of(receipt) for receipt in own), Counter[str]())
        right = billed == true
        score.visits += 1
        score.any_right += bool(own) and right
        for receipt in own:
            score.lines += [(line.confidence, billed[line.gtin] == true[line.gtin]) for line in receipt.lines]
        if not own:
            score.missing += 1
            continue
        probability = math.prod(receipt.probability or 0.0 for receipt in own)
        score.weighed.append(Weighed(probability, right, all(receipt.is_only_unlikely for receipt in own)))
        issued_ns = max(receipt.issued_ns for receipt in own)
        evidence_ns = max(visit.exit_ns, (last_event_ns or {}).get(visit.account, 0) + round(SETTLES_S * 1e9))
        score.delay_s.append((issued_ns - visit.exit_ns) / 1e9)
        score.late_s.append((issued_ns - evidence_ns) / 1e9 - LATENESS_MAX_S)
        if any(receipt.status != "settled" for receipt in own):
            score.review += 1
            continue
        score.settled += 1
        score.settled_right += right
        score.value += sum(price[gtin] * n for gtin, n in true.items())
        score.over += sum(price[gtin] * n for gtin, n in (billed - true).items())
        score.under += sum(price[gtin] * n for gtin, n in (true - billed).items())
    unidentified = by_account.pop(None, [])
    score.violations["settled without a credential"] += sum(receipt.status == "settled" for receipt in unidentified)
    for unexpected in by_account.values():
        for receipt in unexpected:
            if receipt.status == "settled" and receipt.lines:
                score.violations["settled for an account that was not there"] += 1
                score.over += receipt.total
    unscanned = [visit for visit in visits if visit.account is None]
    for receipt in unidentified:
        visit = _visit_of(receipt, unscanned)
        true = Counter(visit.items) if visit else Counter()
        score.lines += [(line.confidence, true[line.gtin] == line.quantity) for line in receipt.lines]
    if unscanned and not unidentified:
        score.violations["unscanned people without any receipt"] += 1
    score.violations += Counter()
    return score


def _visit_of(receipt: Receipt, visits: Sequence[TrueVisit]) -> TrueVisit | None:
    """The visit of a receipt without an account: the one that ended at the receipt's exit time."""
    ends = [(abs(visit.exit_ns - receipt.exit_ns), i) for i, visit in enumerate(visits)]
    return visits[min(ends)[1]] if ends and min(ends)[0] < RECEIPT_MATCH_S * 1e9 else None


def matched_events(
    store: Store, true: Sequence[TrueEvent], reported: Sequence[ShelfEventExplained]
) -> list[tuple[TrueEvent | None, ShelfEventExplained | None]]:
    """Pairs of true and reported events, None where an event has no partner.

    The assignment minimises the sum of seconds and metres between the two; only events of the same sign are paired.
    """
    from scipy.optimize import linear_sum_assignment

    at = {plate.plate: np.array([plate.x, plate.y, plate.z]) for plate in store.plates}
    if not true or not reported:
        return [(event, None) for event in true] + [(None, event) for event in reported]
    apart_s = np.abs(np.array([e.t_ns for e in true])[:, None] - np.array([e.t_ns for e in reported])[None]) * 1e-9
    true_m, reported_m = np.array([at[e.plate] for e in true]), np.array([at[e.plate] for e in reported])
    apart_m = np.linalg.norm(true_m[:, None] - reported_m[None], axis=2)
    opposite = np.sign([e.quantity for e in true])[:, None] != np.sign([e.delta_g for e in reported])[None]
    cost = apart_s + apart_m
    cost[(apart_s > EVENT_MATCH_S) | (apart_m > EVENT_MATCH_M) | opposite] = 1e6
    rows, columns = linear_sum_assignment(cost)
    kept = cost[rows, columns] < 1e3
    pairs: list[tuple[TrueEvent | None, ShelfEventExplained | None]] = [
        (true[i], reported[j]) for i, j in zip(rows[kept].tolist(), columns[kept].tolist())
    ]
    matched_true, matched_reported = set(rows[kept].tolist()), set(columns[kept].tolist())
    pairs += [(event, None) for i, event in enumerate(true) if i not in matched_true]
    pairs += [(None, event) for j, event in enumerate(reported) if j not in matched_reported]
    return pairs


def wrongly_billed(
    pairs: Iterable[tuple[TrueEvent | None, ShelfEventExplained | None]],
    visits: Sequence[TrueVisit],
    receipts: Sequence[Receipt],
) -> int:
    """Number of goods taken by unscanned people or staff that are on another visitor's settled bill in excess."""
    true = {visit.account: Counter(visit.items) for visit in visits}
    settled = {receipt.account: lines_of(receipt) for receipt in receipts if receipt.status == "settled"}
    count = 0
    for event, answer in pairs:
        if event is None or answer is None or event.account is not None or event.quantity > 0 or not answer.candidates:
            continue
        best = answer.candidates[0]
        bill = settled.get(best.account)
        if best.account is not None and bill is not None:
            count += bill[best.gtin] > true.get(best.account, Counter())[best.gtin]
    return count


def calibration_error(lines: Sequence[tuple[float, bool]], n_bins: int = 10) -> float:
    """Expected calibration error of (confidence, right) lines; NaN without lines. See `risk.binned_error`."""
    if not lines:
        return math.nan
    confidence, right = np.array([c for c, _ in lines]), np.array([r for _, r in lines], float)
    return float(binned_error(confidence, [right], n_bins)[0])


def calibration_interval(runs: Sequence[Score], n_draws: int = 500) -> tuple[float, float]:
    """The 2.5 and 97.5 % quantiles of the calibration error in a bootstrap over runs."""
    random = np.random.default_rng(0)
    draws = []
    for _ in range(n_draws):
        chosen = random.integers(len(runs), size=len(runs))
        draws.append(calibration_error([line for i in chosen.tolist() for line in runs[i].lines]))
    low, high = np.nanpercentile(draws, [2.5, 97.5]) if runs else (math.nan, math.nan)
    return float(low), float(high)


@dataclass
class Outcome:
    """Scores of one run: the engine, the plain method, the ablations; causes of doubt and error where asked for."""

    case: str
    seed: int
    ours: Score
    plain: Score
    ablated: dict[str, Score]
    causes: list[Any]


def sum_of(scores: Iterable[Score]) -> Score:
    """The sum of scores."""
    total = Score()
    for score in scores:
        total = total + score
    return total
