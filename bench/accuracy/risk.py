"""What a receipt's probability promises: risk over coverage, and whether stated probabilities are honest.

Every threshold of the receipt's probability settles a share of the visits (coverage), of which a share is wrong (risk);
all thresholds together are the risk-coverage curve of selective prediction (El-Yaniv and Wiener, JMLR 11, 2010). A
receipt that has a reason which no probability weighs, such as a person lost from sight, is settled at no threshold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.accuracy.truth import TrueEvent
from fusion.results import ShelfEventExplained

THRESHOLDS = (0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.92, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)
# Probabilities may be off by this much, as an expected calibration error.
ERROR_MAX = 0.02
_DRAWS = 400


class Weighed(NamedTuple):
    """A visit's receipt: its probability, whether it is right, and whether nothing else keeps it from being settled."""

    probability: float
    right: bool
    settles: bool


def risk_table(receipts: Sequence[Weighed], n_visits: int) -> list[list[float]]:
    """[threshold, settled, wrong among them, mean stated probability] for THRESHOLDS; n_visits: missing ones too."""
    rows: list[list[float]] = []
    for threshold in THRESHOLDS if n_visits else ():
        settled = [one for one in receipts if one.settles and one.probability >= threshold]
        stated = float(np.mean([one.probability for one in settled])) if settled else 0.0
        rows.append([threshold, len(settled), sum(not one.right for one in settled), round(stated, 5)])
    return rows


def risk_curve(receipts: Sequence[Weighed], n_visits: int) -> list[list[float]]:
    """[coverage, risk, threshold] for every threshold that settles another number of receipts, strictest first."""
    curve: list[list[float]] = []
    wrong, ranked = 0, sorted((one for one in receipts if one.settles), key=lambda one: -one.probability)
    for n, one in enumerate(ranked, 1):
        wrong += not one.right
        if n == len(ranked) or ranked[n].probability < one.probability:
            curve.append([round(n / n_visits, 5), round(wrong / n, 5), round(one.probability, 6)])
    return curve


class Answered(NamedTuple):
    """The best answers about a shelf event, and whether they are right: who (or that nothing moved), and what."""

    person: tuple[float, bool]
    product: tuple[float, bool]


def answered(pairs: Iterable[tuple[TrueEvent | None, ShelfEventExplained | None]]) -> list[Answered]:
    """What was answered about every reported event. pairs: of true and reported events."""
    return [_answered(true, event) for true, event in pairs if event is not None]


def _answered(true: TrueEvent | None, event: ShelfEventExplained) -> Answered:
    person: defaultdict[Any, float] = defaultdict(float)
    product: defaultdict[Any, float] = defaultdict(float)
    for candidate in event.candidates:
        person[candidate.account,] += candidate.probability
        product[candidate.gtin, candidate.quantity] += candidate.probability
    nothing = max(0.0, 1.0 - sum(person.values()))
    person[()] += nothing
    product[()] += nothing
    who, what = max(person, key=lambda key: person[key]), max(product, key=lambda key: product[key])
    return Answered(
        (min(person[who], 1.0), who == (() if true is None else (true.account,))),
        (min(product[what], 1.0), what == (() if true is None else (true.gtin, true.quantity))),
    )


class Honesty(NamedTuple):
    """Expected calibration error of some probabilities.

    Attributes:
        n: how many.
        error: mean distance of the stated probability from the share that is right, over ten bins.
        bias: mean probability minus the share that is right; positive: too sure.
        chance: the error that honest probabilities exceed by chance in one of twenty samples of this size.
    """

    n: int
    error: float
    bias: float
    chance: float


def binned_error(
    p: NDArray[np.float64], hits: Sequence[NDArray[np.float64]] | NDArray[np.float64], n_bins: int = 10
) -> NDArray[np.float64]:
    """(n,) expected calibration error of probabilities (k,) against each of n rows of answers, 1 where right (n, k).

    The distance of the mean probability from the share right, over bins of equal width, weighted by their number.
    Source: Guo et al., On Calibration of Modern Neural Networks (2017).
    """
    bins = np.clip((p * n_bins).astype(int), 0, n_bins - 1)
    off = np.stack([np.bincount(bins, p - hit, n_bins) for hit in hits])
    error: NDArray[np.float64] = np.abs(off).sum(axis=1) / len(p)
    return error


def honesty(stated: Sequence[tuple[float, bool]]) -> Honesty | None:
    """Whether probabilities are honest; None without any."""
    if not stated:
        return None
    p, right = np.array([p for p, _ in stated]), np.array([hit for _, hit in stated], float)
    # Samples of honest answers with the same probabilities.
    drawn = np.random.default_rng(0).random((_DRAWS, len(p))) < p
    error = binned_error(p, [right, *drawn])
    values = float(error[0]), float((p - right).mean()), float(np.quantile(error[1:], 0.95))
    return Honesty(len(p), *(round(value, 5) for value in values))


def risk_lines(rows: Sequence[Sequence[float]], n_visits: int, share: Any) -> list[str]:
    """The table of thresholds in Markdown. share: formats k of n."""
    lines = [
        "| threshold | settled % | wrong among them % | wrong as stated % |",
        "|---|---|---|---|",
    ]
    for threshold, settled, wrong, stated in rows:
        doubted = f"{100.0 * (1.0 - stated):.2f}" if settled else "-"
        lines.append(
            f"| {threshold:g} | {share(int(settled), n_visits)} | {share(int(wrong), int(settled))} | {doubted} |"
        )
    return lines


def honesty_cell(fields: Sequence[float] | None) -> str:
    """An expected calibration error as a cell of a table, with what is wrong where it is above ERROR_MAX."""
    if fields is None:
        return "-"
    found = Honesty(int(fields[0]), *fields[1:])
    if found.error <= ERROR_MAX:
        return f"{found.error:.3f} ✓"
    if found.error <= found.chance:
        return f"{found.error:.3f} (chance: up to {found.chance:.3f})"
    return f"{found.error:.3f} ✗ too {'sure' if found.bias > 0 else 'unsure'} by {abs(found.bias):.3f}"
