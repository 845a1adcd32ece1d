"""How probable it is that an early receipt is corrected: a beta distribution for each set of things outstanding."""

from __future__ import annotations

from collections import Counter

from fusion.results import Outstanding

LOADS, MESSAGES = Outstanding.LOADS, Outstanding.MESSAGES
# Corrections and receipts that count as seen before the first, by what is outstanding. `python -m bench early --dev`
# counts none of 62 receipts with every message in time, and none of 124 with 1 or 10 % of them late; of eleven with an
# open load, one was corrected. The prior weighs less than that, so that a store's own receipts soon say more.
PRIOR: dict[tuple[Outstanding, ...], tuple[float, float]] = {
    (): (0.1, 50.0),
    (LOADS,): (1.0, 12.0),
    (MESSAGES,): (0.5, 50.0),
    (LOADS, MESSAGES): (1.0, 12.0),
}


class Odds:
    """Counts early receipts and their corrections in one run."""

    def __init__(self) -> None:
        self._n: Counter[tuple[Outstanding, ...]] = Counter()
        self._n_corrected: Counter[tuple[Outstanding, ...]] = Counter()

    def probability(self, outstanding: tuple[Outstanding, ...]) -> float:
        """Mean of the beta distribution: (prior corrections + corrections) / (prior receipts + receipts)."""
        corrected, n = PRIOR[outstanding]
        return (corrected + self._n_corrected[outstanding]) / (n + self._n[outstanding])

    def learn(self, outstanding: tuple[Outstanding, ...], corrected: bool) -> None:
        """Take note of what became of an early receipt."""
        self._n[outstanding] += 1
        self._n_corrected[outstanding] += corrected
