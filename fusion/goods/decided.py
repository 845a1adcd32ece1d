"""Events that are nearly certain, kept until the carts that they concern are closed, and what those carts hold."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.goods.beliefs import EventBelief
from fusion.goods.hypotheses import CandidateTable, Cluster, Kind, OpenEvent, Part, is_alike


class _Doubts(NamedTuple):
    """See the attributes of `DecidedEvent`."""

    of_cart: dict[int, float]
    of_line: dict[Kind, float]


@dataclass(slots=True, eq=False)
class DecidedEvent:
    """An event that was fixed to its most probable candidate.

    Attributes:
        event: the event.
        belief: as it looked when it was fixed.
        parts: what was moved.
        doubt: probability by cart that the event did something else to it.
        line_doubt: the same by cart and product, of this product's quantity.
    """

    event: OpenEvent
    belief: EventBelief
    parts: tuple[Part, ...]
    _candidates: CandidateTable
    _probability: NDArray[np.float64]  # Of the candidates.
    _doubts: _Doubts | None = None  # Once they are asked for.

    @classmethod
    def of(cls, cluster: Cluster, index: int, row: int, belief: EventBelief) -> DecidedEvent:
        """An event of a cluster, fixed to a row of its table."""
        rows = cluster.rows_of(index)
        candidates = CandidateTable(cluster.table.columns[:, rows].copy())
        chances = cluster.probability[rows].copy()
        return cls(cluster.events[index], belief, cluster.table.parts(row), candidates, chances)

    @property
    def doubt(self) -> dict[int, float]:
        """See above."""
        return self._found().of_cart

    @property
    def line_doubt(self) -> dict[Kind, float]:
        """See above."""
        return self._found().of_line

    def _found(self) -> _Doubts:
        if self._doubts is None:
            self._doubts = _Doubts(*_doubts(self._candidates, self._probability, self.parts))
        return self._doubts

    def join(self, old: int, cart: int) -> None:
        """Replace a cart by the one that it became part of."""
        self._found()
        self.parts = tuple(part._replace(cart=cart) if part.cart == old else part for part in self.parts)
        if old in self.doubt:
            self.doubt[cart] = self.doubt.get(cart, 0.0) + self.doubt.pop(old)
        for kind in [kind for kind in self.line_doubt if kind.cart == old]:
            joined = kind._replace(cart=cart)
            self.line_doubt[joined] = self.line_doubt.get(joined, 0.0) + self.line_doubt.pop(kind)


@dataclass(slots=True, eq=False)
class DecidedEvents:
    """All decided events of open carts.

    Attributes:
        events: oldest first.
        recent: events that a lean may still undo, in the order in which they were decided.
        held: certain pieces by cart, and by product.
        takes: certain takes of one part, by cart and product; a piece that is put back weighs the same as it did then.
    """

    events: list[DecidedEvent] = field(default_factory=list)
    recent: deque[DecidedEvent] = field(default_factory=deque)
    held: dict[int, Counter[int]] = field(default_factory=dict)
    takes: defaultdict[Kind, list[DecidedEvent]] = field(default_factory=lambda: defaultdict(list))

    def add(self, decided: DecidedEvent) -> None:
        """Record an event that has just been decided."""
        self.events.append(decided)
        if len(decided.parts) == 1 and decided.parts[0].quantity < 0:
            part = decided.parts[0]
            self.takes[Kind(part.cart, part.product)].append(decided)
        self.recent.append(decided)
        for part in decided.parts:
            if part.cart >= 0:
                self.held.setdefault(part.cart, Counter())[part.product] -= part.quantity

    def held_by(self, cart: int, product: int) -> int:
        """Certain pieces of a product in a cart."""
        pieces = self.held.get(cart)
        return 0 if pieces is None else pieces[product]

    def forget_recent(self, now_ns: int, span_s: float) -> None:
        """Drop recent events that are older than a span."""
        while self.recent and now_ns - self.recent[0].event.event.contact_ns > span_s * 1e9:
            self.recent.popleft()

    def undoable(self, opened: OpenEvent, put: Sequence[Kind]) -> list[DecidedEvent]:
        """Events that a new one may undo: takes of what may have been put back, or leans and put-backs.

        put: by cart and product, where goods came.
        """
        if opened.total_g > 0:
            return [event for kind in put for event in self.takes.get(kind, ())]
        found: list[DecidedEvent] = []
        for event in self.recent:
            if event.event.total_g > 0:
                found.append(event)
            elif not event.parts and is_alike(event.event, opened):
                found.clear()  # A lean is undone once.
        return found

    def pieces(self, carts: set[int], product: int) -> int:
        """Pieces of a product that these carts took, put-backs subtracted."""
        return -sum(
            part.quantity
            for decided in self.events
            for part in decided.parts
            if part.product == product and part.cart in carts
        )

    def join(self, old: int, cart: int) -> None:
        """Replace a cart by the one that it became part of."""
        for decided in self.events:
            decided.join(old, cart)
        for product, pieces in self.held.pop(old, Counter()).items():
            self.held.setdefault(cart, Counter())[product] += pieces
        for kind in [kind for kind in self.takes if kind.cart == old]:
            self.takes[kind._replace(cart=cart)] += self.takes.pop(kind)

    def settle(self, gone: set[int]) -> list[EventBelief]:
        """Remove, and return, the events that concern no other carts than these."""
        over = [all(part.cart in gone or part.cart < 0 for part in decided.parts) for decided in self.events]
        released = [decided.belief for decided, is_over in zip(self.events, over) if is_over]
        self.events = [decided for decided, is_over in zip(self.events, over) if not is_over]
        return released

    def forget_carts(self, leaving: set[int]) -> None:
        """Drop what these carts hold."""
        for cart in leaving:
            self.held.pop(cart, None)
        for kind in [kind for kind in self.takes if kind.cart in leaving]:
            del self.takes[kind]

    def finish(self) -> list[EventBelief]:
        """Remove everything; returns the beliefs of all events."""
        released = [decided.belief for decided in self.events]
        self.events = []
        self.recent.clear()
        self.held.clear()
        self.takes.clear()
        return released


def _doubts(
    table: CandidateTable, probability: NDArray[np.float64], chosen: Sequence[Part]
) -> tuple[dict[int, float], dict[Kind, float]]:
    """Probability, by cart and by cart and product, that an event did something else to it than what was chosen."""
    pieces = {Kind(part.cart, part.product): part.quantity for part in chosen if part.cart >= 0}
    doubt: defaultdict[int, float] = defaultdict(float)
    line_doubt: defaultdict[Kind, float] = defaultdict(float)
    for row in np.flatnonzero(probability > 0.0).tolist():
        other = {Kind(part.cart, part.product): part.quantity for part in table.parts(row) if part.cart >= 0}
        different = {kind for kind in pieces.keys() | other.keys() if pieces.get(kind) != other.get(kind)}
        p = float(probability[row])
        for kind in different:
            line_doubt[kind] += p
        for cart in {kind.cart for kind in different}:
            doubt[cart] += p
    return dict(doubt), dict(line_doubt)
