"""How far stated log odds can be trusted, from labels: one factor by which they are multiplied.

With stated log odds x and truth y (true 1, false 0), the factor f maximises

    sum of log p(y | x, f) + log p(f),   p(1 | x, f) = 1 / (1 + exp(-f x)),   f normal about 1,

by Newton's method (Platt, Advances in Large Margin Classifiers, 1999, without an offset: log odds of 0 stay even).
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

# Labels that are kept; all labels about one customer count as one. Fewer customers than CUSTOMERS_MIN change nothing.
LABELS_MAX, CUSTOMERS_MIN = 256, 8
# The factor before any label, how far it may go, and how far in one step.
FACTOR_SD, FACTOR_MIN, FACTOR_MAX, FACTOR_STEP_MAX = 0.15, 0.6, 1.4, 0.05
# Log odds beyond are no better known.
LOG_ODDS_MAX = 6.0
ROUNDS = 12


class _Label(NamedTuple):
    log_odds: float
    true: bool
    source: str
    visit: str


class Fit(NamedTuple):
    """The factor that suits the labels, its standard deviation, and how many labels and customers it rests on."""

    factor: float
    sd: float
    n_labels: int
    n_sources: int


class Trust:
    """The latest labels of one kind of probability."""

    def __init__(self) -> None:
        self._labels: deque[_Label] = deque(maxlen=LABELS_MAX)

    def add(self, log_odds: float, true: bool, source: str, visit: str) -> None:
        """Take a label: stated log odds, and whether it was so."""
        bounded = min(max(log_odds, -LOG_ODDS_MAX), LOG_ODDS_MAX)
        self._labels.append(_Label(bounded, true, source, visit))

    def forget_visit(self, visit: str) -> bool:
        """Drop the labels of a visit; whether there were any."""
        return self._keep([label for label in self._labels if label.visit != visit])

    def forget_source(self, source: str) -> bool:
        """Drop the labels of a customer; whether there were any."""
        return self._keep([label for label in self._labels if label.source != source])

    def rename_sources(self, renamed: Callable[[str], str]) -> None:
        """Give customers other names; labels of one stay those of one."""
        self._keep([label._replace(source=renamed(label.source)) for label in self._labels])

    def forget_all(self) -> None:
        """Drop all labels."""
        self._labels.clear()

    def _keep(self, kept: list[_Label]) -> bool:
        dropped = len(kept) < len(self._labels)
        self._labels = deque(kept, maxlen=LABELS_MAX)
        return dropped

    def fit(self) -> Fit:
        """The factor that suits the labels; the same for the same labels in any order."""
        of_source = Counter(label.source for label in self._labels)
        factor, curvature = 1.0, 1.0 / FACTOR_SD**2
        labels = sorted(self._labels)
        for _ in range(ROUNDS):
            slope, curvature = (1.0 - factor) / FACTOR_SD**2, 1.0 / FACTOR_SD**2
            for x, true, source, _ in labels:
                p = 1.0 / (1.0 + math.exp(-factor * x))
                slope += (true - p) * x / of_source[source]
                curvature += p * (1.0 - p) * x * x / of_source[source]
            factor = min(max(factor + slope / curvature, FACTOR_MIN), FACTOR_MAX)
        return Fit(factor, curvature**-0.5, len(labels), len(of_source))


def log_odds_of(probability: float) -> float:
    """Log odds of a probability, bounded."""
    return math.log(max(probability, 1e-9) / max(1.0 - probability, 1e-9))


def scaled(probability: float, factor: float) -> float:
    """A probability whose log odds are multiplied by a factor; itself where the factor is 1."""
    if factor == 1.0 or not 0.0 < probability < 1.0:
        return probability
    return 1.0 / (1.0 + math.exp(-factor * log_odds_of(probability)))
