"""Counts of the shelves: what lies where by the planogram and the journal, and how certain each count is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from fusion.goods.beliefs import EventBelief, EventCandidate
from fusion.goods.journal import Journal
from fusion.results import ShelfCount, ShelfStatus
from fusion.store.models import Store


class _Place(NamedTuple):
    """A product on a plate."""

    plate: str
    gtin: str


class ShelfCounts:
    """How certain the counts of the shelves are; the journal holds the counts themselves."""

    def __init__(self, store: Store) -> None:
        self.adopt(store)
        self._log_certainty: dict[_Place, float] = {}

    def adopt(self, store: Store) -> None:
        """Start, or continue with a changed store of the same layout; see `Engine.adopt`."""
        self._planned = {_Place(facing.plate, facing.gtin): facing.stock for facing in store.planogram}

    def settle(self, belief: EventBelief) -> None:
        """Take in an event that has become final; what was uncertain about it stays uncertain in the counts."""
        _subtract_doubt(self._log_certainty, belief)

    def counts(self, journal: Journal, open_beliefs: Iterable[EventBelief]) -> list[ShelfCount]:
        """Every planned facing and whatever else lies or is missing on a plate, by plate and product.

        Args:
            journal: what settled events moved.
            open_beliefs: events that are not in the journal yet; their most probable moves count.
        """
        pieces = dict(self._planned)
        for account in journal.accounts():
            if account.kind == "shelf":
                for gtin, quantity in journal.balance(account).items():
                    place = _Place(account.name, gtin)
                    pieces[place] = pieces.get(place, 0) + quantity
        log_certainty = dict(self._log_certainty)
        for belief in open_beliefs:
            _subtract_doubt(log_certainty, belief)
            for move in moved(belief):
                place = _Place(belief.plate, move.gtin)
                pieces[place] = pieces.get(place, 0) + move.quantity
        rows = []
        for place, count in sorted(pieces.items()):
            planned = place in self._planned
            if not planned and count == 0:
                continue
            if count < 0:
                status = ShelfStatus.OVERDRAWN
            elif not planned:
                status = ShelfStatus.MISPLACED
            else:
                status = ShelfStatus.OK if count else ShelfStatus.EMPTY
            confidence = math.exp(log_certainty.get(place, 0.0)) if count >= 0 else 0.0
            rows.append(ShelfCount(*place, max(count, 0), max(-count, 0), planned, status, confidence))
        return rows


def moved(belief: EventBelief) -> tuple[EventCandidate, ...]:
    """What an event most probably moved: nothing, one product, or two that shared the load."""
    best = belief.candidates[:1]
    if belief.parts and belief.parts[0].probability >= max(belief.nothing, best[0].probability):
        return belief.parts
    return best if best and best[0].probability >= belief.nothing else ()


def _subtract_doubt(log_certainty: dict[_Place, float], belief: EventBelief) -> None:
    """Multiply the certainty of counts by the probability that the event moved what it most probably moved there."""
    best = moved(belief)
    quantities: Counter[str] = Counter()
    for move in best:
        quantities[move.gtin] += move.quantity
    right: dict[str, float] = {}
    for candidate in belief.candidates:
        gtin = candidate.gtin
        if gtin not in quantities:
            right[gtin] = right.get(gtin, 1.0) - candidate.probability
        elif len(best) == 2:
            right[gtin] = best[0].probability
        elif candidate.quantity == quantities[gtin]:
            right[gtin] = right.get(gtin, 0.0) + candidate.probability
    for gtin, probability in right.items():
        if probability < 1.0 - 1e-6:
            place = _Place(belief.plate, gtin)
            log_certainty[place] = log_certainty.get(place, 0.0) + math.log(max(probability, 1e-9))
