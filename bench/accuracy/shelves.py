"""Scores of the shelves alone: loads that were missed, misread, or reported although nothing moved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bench.accuracy.truth import TrueEvent, TrueLoad
from fusion.observations import ShelfReading

if TYPE_CHECKING:
    from fusion.results import ShelfEventExplained

# A load is misread where the reported grams are off by more than this, and this share of the load.
MISREAD_G, MISREAD_SHARE = 4.0, 0.03


@dataclass
class ShelfScore:
    """Counts of loads, by way: "take" and "put"; `+` adds them.

    Attributes:
        loads: true loads on plates that work.
        missed: of these, not reported.
        misread: of those reported, with wrong grams.
        phantoms: reported loads without a true one.
    """

    loads: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    misread: Counter[str] = field(default_factory=Counter)
    phantoms: int = 0

    def __add__(self, other: ShelfScore) -> ShelfScore:
        return ShelfScore(
            self.loads + other.loads,
            self.missed + other.missed,
            self.misread + other.misread,
            self.phantoms + other.phantoms,
        )

    def figures(self) -> dict[str, int]:
        """The counts, ready for JSON."""
        counted = {"loads": self.loads, "missed": self.missed, "misread": self.misread}
        rows = {f"{way}s_{name}": counts[way] for name, counts in counted.items() for way in ("take", "put")}
        return {**rows, "phantoms": self.phantoms}


def score_shelves(
    pairs: Sequence[tuple[TrueEvent | None, ShelfEventExplained | None]],
    loads: Sequence[TrueLoad],
    readings: Sequence[ShelfReading],
) -> ShelfScore:
    """Score the reported loads.

    Args:
        pairs: true and reported events, matched.
        loads: what the plates show of each true event, at its instant; without any, grams are not scored.
        readings: all messages; plates that never move do not work, and loads on them do not count.
    """
    score = ShelfScore()
    shown = {load.t_ns: load for load in loads}
    constant = _constant_plates(readings)
    for true, reported in pairs:
        if true is None:
            score.phantoms += 1
            continue
        way = "take" if true.quantity < 0 else "put"
        load = shown.get(true.t_ns)
        if load is not None and max(load.grams, key=lambda plate: abs(load.grams[plate])) in constant:
            continue
        score.loads[way] += 1
        if reported is None:
            score.missed[way] += 1
        elif load is not None:
            works_g = sum(grams for plate, grams in load.grams.items() if plate not in constant)
            score.misread[way] += abs(reported.delta_g - works_g) > MISREAD_G + MISREAD_SHARE * abs(works_g)
    return score


def _constant_plates(readings: Sequence[ShelfReading]) -> set[str]:
    """Plates whose samples are all the same."""
    first: dict[str, float] = {}
    moves: set[str] = set()
    for reading in readings:
        if reading.plate not in moves and len(reading.samples):
            value = first.setdefault(reading.plate, float(reading.samples[0]))
            if np.any(reading.samples != np.float32(value)):
                moves.add(reading.plate)
    return first.keys() - moves
