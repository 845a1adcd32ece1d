"""Scores of the shelves alone: loads that were missed, misread, or reported although nothing moved."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bench.accuracy.truth import TrueEvent, TrueLoad
from fusion.observations import ShelfReading
from fusion.store.models import Store

if TYPE_CHECKING:
    from fusion.results import ShelfEventExplained

# A load is misread where the reported grams are off by more than this, and this share of the load.
MISREAD_G, MISREAD_SHARE = 4.0, 0.03
# A load is beside another person's within this time and distance of it.
BESIDE_S, BESIDE_M = 1.0, 0.45


@dataclass
class ShelfScore:
    """Counts of loads, by way: "take" and "put", and "beside": those beside another person's load; `+` adds them.

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
        rows |= {f"beside_{name}": counts["beside"] for name, counts in counted.items()}
        return {**rows, "phantoms": self.phantoms}


def score_shelves(
    store: Store,
    pairs: Sequence[tuple[TrueEvent | None, ShelfEventExplained | None]],
    loads: Sequence[TrueLoad],
    readings: Sequence[ShelfReading],
) -> ShelfScore:
    """Score the reported loads.

    Args:
        store: where plates are.
        pairs: true and reported events, matched.
        loads: what the plates show of each true event, at its instant; without any, grams are not scored.
        readings: all messages; plates that never move do not work, and loads on them do not count.
    """
    score, at = ShelfScore(), {plate.plate: (plate.x, plate.y, plate.z) for plate in store.plates}
    everything = [true for true, _ in pairs if true is not None]
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
        ways = [way]
        if any(
            other.account != true.account
            and abs(other.t_ns - true.t_ns) < BESIDE_S * 1e9
            and math.dist(at[other.plate], at[true.plate]) < BESIDE_M
            for other in everything
        ):
            ways.append("beside")
        score.loads.update(ways)
        if reported is None:
            score.missed.update(ways)
        elif load is not None:
            works_g = sum(grams for plate, grams in load.grams.items() if plate not in constant)
            if abs(reported.delta_g - works_g) > MISREAD_G + MISREAD_SHARE * abs(works_g):
                score.misread.update(ways)
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
