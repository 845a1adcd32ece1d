"""Signed pieces by product, in the form in which outcomes are compared and summed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

# Sorted by product, none of them zero.
Pieces = tuple[tuple[int, int], ...]


def signed_pieces(parts: Iterable[tuple[int, int]]) -> Pieces:
    """The sum of pieces by product."""
    summed: Counter[int] = Counter()
    for product, n in parts:
        summed[product] += n
    return tuple(sorted((product, n) for product, n in summed.items() if n))


def weights_of(outcomes: Sequence[Pieces], weight: Sequence[float]) -> dict[Pieces, float]:
    """The weight of every outcome, summed; both sequences are parallel."""
    summed: defaultdict[Pieces, float] = defaultdict(float)
    for outcome, w in zip(outcomes, weight):
        summed[outcome] += w
    return summed


def likeliest(weights: Mapping[Pieces, float]) -> Pieces:
    """The outcome of greatest weight, of several the last in order."""
    return max(weights, key=lambda outcome: (weights[outcome], outcome))
