"""What readers and cameras at a zone tell of carts, and what the shelves hold by the books."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from fusion.goods.attribution import EventBelief, EventCandidate
from fusion.goods.journal import Journal
from fusion.observations import ItemSighting
from fusion.people.arms import ArmHistory
from fusion.results import ShelfCount, ShelfStatus, SightingEvidence
from fusion.store.models import Store
from fusion.store.shapes import edge_distance_m, inside_polygon

# Whoever was in a zone within this time of a sighting may carry what was seen; positions err by a step.
SIGHTING_SPAN_NS = 500_000_000
ZONE_MARGIN_M, GATE_REACH_M = 0.3, 1.5
# No source is surer, or less sure, than that.
SIGHTING_FLOOR = 0.01
SIGHTINGS_MAX = 1024
# Share of pieces that are seen on somebody who did not take them: handed over by somebody of another visit. Without it
# a sighting on the carrier would make a taker of them, however clearly another hand was at the plate.
HANDED_OVER = 0.02
# Pieces of a product in a cart beyond this number count alike.
PIECES_MAX = 32


@dataclass(slots=True, eq=False)
class Sighted:
    """What one source told of one product while the same visits' people were in a zone.

    Attributes:
        visits: whose people were there.
        quantity: pieces: an antenna tells of each tag once, so they add up; a camera sees the same pieces again.
        weighed: whether the open explanations have been weighed by it.
    """

    newest_ns: int
    source: str
    kind: str
    zone: str
    gtin: str
    visits: frozenset[str]
    quantity: int
    probability: float
    weighed: bool = False

    def told(self) -> SightingEvidence:
        return SightingEvidence(
            self.newest_ns, self.source, self.kind, self.zone, self.gtin, self.quantity, self.probability
        )


class Sightings:
    """Sightings at zones and gates, bound to the visits whose people stood there."""

    def __init__(self, store: Store) -> None:
        self.adopt(store)
        self._kept: deque[Sighted] = deque(maxlen=SIGHTINGS_MAX)

    def adopt(self, store: Store) -> None:
        """Begin or go on with a store of the same layout; see `Engine.adopt`."""
        self._zones = {zone.id: zone.polygon for zone in store.zone}
        self._gates = {gate.id: gate.line for gate in store.gate}
        self._gtins = {product.gtin for product in store.products}
        self._miss = {"read": store.items.read_miss_rate, "seen": store.items.seen_miss_rate}

    def knows(self, seen: ItemSighting) -> bool:
        """Whether zone and product are the store's, kind and probability what they should be: files are checked when
        they are read, live sources are not."""
        sane = seen.kind in self._miss and 0.0 <= seen.probability <= 1.0
        return sane and (seen.zone in self._zones or seen.zone in self._gates) and seen.gtin in self._gtins

    def near(self, seen: ItemSighting, history: ArmHistory) -> list[int]:
        """Tracks of those who were in the zone, or within reach of the gate."""
        rows = history.between(seen.t_ns - SIGHTING_SPAN_NS, seen.t_ns + SIGHTING_SPAN_NS)
        people = zip(history.track[rows].tolist(), history.position_m[rows].tolist())
        return sorted({track for track, (x, y) in people if self._holds(seen.zone or "", x, y)})

    def _holds(self, zone: str, x: float, y: float) -> bool:
        if zone in self._zones:
            return inside_polygon(self._zones[zone], x, y, ZONE_MARGIN_M)
        return edge_distance_m(self._gates[zone], x, y) < GATE_REACH_M

    def add(self, seen: ItemSighting, visits: frozenset[str]) -> None:
        probability = min(max(seen.probability, SIGHTING_FLOOR), 1.0 - SIGHTING_FLOOR)
        for one in self._kept:
            same = one.source == seen.source and one.kind == seen.kind and one.gtin == seen.gtin
            if same and one.zone == seen.zone and one.visits == visits and not one.weighed:
                more = one.quantity + seen.quantity if seen.kind == "read" else max(one.quantity, seen.quantity)
                one.quantity = min(more, PIECES_MAX)
                # All of it is right only where the least sure part is.
                one.probability = min(one.probability, probability) if seen.kind == "read" else probability
                one.newest_ns = seen.t_ns
                return
        quantity = min(seen.quantity, PIECES_MAX)
        zone = seen.zone or ""
        self._kept.append(Sighted(seen.t_ns, seen.source, seen.kind, zone, seen.gtin, visits, quantity, probability))

    def of(self, visit: str) -> list[Sighted]:
        return [one for one in self._kept if visit in one.visits]

    def forget(self, open_visits: Collection[str]) -> None:
        """Sightings of visits that are all closed tell nothing more."""
        self._kept = deque((one for one in self._kept if not one.visits.isdisjoint(open_visits)), SIGHTINGS_MAX)

    def log_likelihood(self, one: Sighted) -> np.ndarray:
        """(PIECES_MAX + 1,) of so many pieces seen, by pieces carried.

        True with the source's own probability, each piece then seen unless missed, and pieces beyond those taken were
        handed over; otherwise it tells nothing.
        """
        miss, n = self._miss[one.kind], one.quantity
        out = np.empty(PIECES_MAX + 1)
        for pieces in range(PIECES_MAX + 1):
            told = (1.0 - miss) ** n
            told *= math.comb(pieces, n) * miss ** (pieces - n) if pieces >= n else HANDED_OVER ** (n - pieces)
            out[pieces] = math.log(one.probability * told + (1.0 - one.probability) / (PIECES_MAX + 1))
        return out


class ShelfBooks:
    """How sure the counts of the shelves are, beside the journal that holds the counts themselves."""

    def __init__(self, store: Store) -> None:
        self.adopt(store)
        self._log_sure: dict[tuple[str, str], float] = {}

    def adopt(self, store: Store) -> None:
        """Begin or go on with a store of the same layout; see `Engine.adopt`."""
        self._start = {(facing.plate, facing.gtin): facing.stock for facing in store.planogram}

    def settled(self, belief: EventBelief) -> None:
        """An event's final word: what was uncertain about it stays so in the counts."""
        _doubt(self._log_sure, belief)

    def counts(self, journal: Journal, still_open: Iterable[EventBelief]) -> list[ShelfCount]:
        """Every planned facing and whatever else lies or is missing somewhere, by plate and product."""
        books = dict(self._start)
        for account in journal.accounts():
            if account[0] == "shelf":
                for gtin, quantity in journal.balance(account).items():
                    books[account[1], gtin] = books.get((account[1], gtin), 0) + quantity
        log_sure = dict(self._log_sure)
        for belief in still_open:
            _doubt(log_sure, belief)
            for one in moved(belief):
                books[belief.plate, one.gtin] = books.get((belief.plate, one.gtin), 0) + one.quantity
        rows = []
        for (plate, gtin), count in sorted(books.items()):
            planned = (plate, gtin) in self._start
            if not planned and count == 0:
                continue
            if count < 0:
                status = ShelfStatus.OVERDRAWN
            elif not planned:
                status = ShelfStatus.MISPLACED
            else:
                status = ShelfStatus.OK if count else ShelfStatus.EMPTY
            sure = math.exp(log_sure.get((plate, gtin), 0.0)) if count >= 0 else 0.0
            rows.append(ShelfCount(plate, gtin, max(count, 0), max(-count, 0), planned, status, sure))
        return rows


def moved(belief: EventBelief) -> tuple[EventCandidate, ...]:
    """What an event most probably moved: nothing, one thing, or two that shared the load."""
    best = belief.candidates[:1]
    if belief.parts and belief.parts[0].probability >= max(belief.nothing, best[0].probability):
        return belief.parts
    return best if best and best[0].probability >= belief.nothing else ()


def _doubt(log_sure: dict[tuple[str, str], float], belief: EventBelief) -> None:
    """Take into account that an event may have been another product, another number or nothing."""
    believed: Counter[str] = Counter()
    best = moved(belief)
    for one in best:
        believed[one.gtin] += one.quantity
    right: dict[str, float] = {}
    for one in belief.candidates:
        if one.gtin not in believed:
            right[one.gtin] = right.get(one.gtin, 1.0) - one.probability
        elif len(best) == 2:
            right[one.gtin] = best[0].probability
        elif one.quantity == believed[one.gtin]:
            right[one.gtin] = right.get(one.gtin, 0.0) + one.probability
    for gtin, p in right.items():
        if p < 1.0 - 1e-6:
            key = belief.plate, gtin
            log_sure[key] = log_sure.get(key, 0.0) + math.log(max(p, 1e-9))
