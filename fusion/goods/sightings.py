"""Sightings of goods in carts: what antennas and cameras at a zone or a gate report about the people there."""

from __future__ import annotations

import contextlib
import math
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fusion.observations import ItemSighting
from fusion.people.arms import ArmHistory
from fusion.results import PieceLabel, SightingEvidence
from fusion.store.gs1 import Codes
from fusion.store.gtin import gtin_14
from fusion.store.models import Store
from fusion.store.shapes import edge_distance_m, inside_polygon

# Everybody who was in a zone within this time of a sighting may carry the goods; positions are off by up to one step.
SIGHTING_SPAN_NS = 500_000_000
ZONE_MARGIN_M, GATE_REACH_M = 0.3, 1.5
# Probabilities of a sighting are kept this far from 0 and 1, since no source is more certain.
SIGHTING_FLOOR = 0.01
SIGHTINGS_MAX = 1024
# Share of pieces that are seen on a person who did not take them, since a person of another visit handed them over.
# Without it a sighting would make the carrier the taker, however clearly another hand was at the plate.
HANDED_OVER = 0.02
# Further pieces of one product in a cart do not change the likelihood.
PIECES_MAX = 32


@dataclass(slots=True, eq=False)
class CartSighting:
    """What one source reported about one product while the same visits' people were in a zone.

    Attributes:
        visits: ids of the visits whose people were there.
        quantity: pieces. An antenna reports each tag once, so its reads add up; a camera sees the same pieces again.
        codes: what was read, where that may state a piece's weight or price; one for each piece.
        weighed: whether the open joint hypotheses have been weighed by it.
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
    codes: list[str] = field(default_factory=list)

    def evidence(self) -> SightingEvidence:
        """The sighting for a reviewer."""
        return SightingEvidence(
            self.newest_ns, self.source, self.kind, self.zone, self.gtin, self.quantity, self.probability
        )


class Sightings:
    """The latest sightings, each bound to the visits whose people were there. Bounded: the oldest make room."""

    def __init__(self, store: Store) -> None:
        self.adopt(store)
        self._kept: deque[CartSighting] = deque(maxlen=SIGHTINGS_MAX)

    def __len__(self) -> int:
        return len(self._kept)

    def adopt(self, store: Store) -> None:
        """Start, or continue with a changed store of the same layout; see `Engine.adopt`."""
        self._zones = {zone.id: zone.polygon for zone in store.zone}
        self._gates = {gate.id: gate.line for gate in store.gate}
        # A plain dictionary, since a snapshot of the engine holds it.
        self._own_gtins = {gtin_14(product.gtin): product.gtin for product in store.products}
        self._patterns, self._currency = list(store.in_store_codes), store.currency
        self._miss = {"read": store.items.read_miss_rate, "seen": store.items.seen_miss_rate}

    def as_spelt(self, sighting: ItemSighting) -> ItemSighting:
        """A sighting with its GTIN as the store spells it; readers spell GTINs with more zeros or fewer."""
        gtin = sighting.gtin
        if sighting.code is not None:
            # What cannot be read is known by the GTIN that came with it.
            with contextlib.suppress(ValueError):
                gtin = Codes(self._patterns).read(sighting.code).gtin
        own = self._own_gtins.get(gtin_14(gtin))
        return sighting if own is None or own == sighting.gtin else replace(sighting, gtin=own)

    def knows(self, sighting: ItemSighting) -> bool:
        """Whether zone and product belong to the store and kind and probability are valid.

        Files are checked when they are read; live sources are not.
        """
        valid = sighting.kind in self._miss and 0.0 <= sighting.probability <= 1.0
        known = sighting.zone in self._zones or sighting.zone in self._gates
        return valid and known and gtin_14(sighting.gtin) in self._own_gtins

    def near(self, sighting: ItemSighting, history: ArmHistory) -> list[int]:
        """Tracks of the people who were in the zone, or within reach of the gate."""
        rows = history.between(sighting.t_ns - SIGHTING_SPAN_NS, sighting.t_ns + SIGHTING_SPAN_NS)
        people = zip(history.track[rows].tolist(), history.position_m[rows].tolist())
        return sorted({track for track, (x, y) in people if self._holds(sighting.zone or "", x, y)})

    def add(self, sighting: ItemSighting, visits: frozenset[str]) -> None:
        """Keep a sighting on these visits, together with earlier ones of the same source, product and people."""
        probability = min(max(sighting.probability, SIGHTING_FLOOR), 1.0 - SIGHTING_FLOOR)
        read = sighting.kind == "read"
        for kept in self._kept:
            same = kept.source == sighting.source and kept.kind == sighting.kind and kept.gtin == sighting.gtin
            if same and kept.zone == sighting.zone and kept.visits == visits and not kept.weighed:
                n = kept.quantity + sighting.quantity if read else max(kept.quantity, sighting.quantity)
                kept.quantity = min(n, PIECES_MAX)
                # All reads together are right only if the least certain one is.
                kept.probability = min(kept.probability, probability) if read else probability
                kept.newest_ns = sighting.t_ns
                break
        else:
            kept = CartSighting(
                sighting.t_ns, sighting.source, sighting.kind, sighting.zone or "", sighting.gtin, visits,
                min(sighting.quantity, PIECES_MAX), probability,
            )  # fmt: skip
            self._kept.append(kept)
        # A camera may see the same label again; a reader reads each once, and may report equal ones together.
        if sighting.code is not None and (read or sighting.code not in kept.codes):
            room = max(PIECES_MAX - len(kept.codes), 0)
            kept.codes.extend([sighting.code] * min(sighting.quantity, room))

    def labels(self, visit: str) -> tuple[PieceLabel, ...]:
        """What labels of pieces state that were read on this visit's people alone.

        Several readers read the same pieces: of each code as many count as one reader read in one place.
        """
        read: dict[tuple[str, str], Counter[str]] = {}
        for kept in self._kept:
            if kept.codes and kept.visits == {visit}:
                read.setdefault((kept.source, kept.zone), Counter()).update(kept.codes)
        most: Counter[str] = Counter()
        for codes in read.values():
            most |= codes
        labels = (self._label(code) for code in sorted(most.elements()))
        return tuple(label for label in labels if label is not None)

    def _label(self, code: str) -> PieceLabel | None:
        try:
            item = Codes(self._patterns).read(code)
        except ValueError:
            return None
        gtin = self._own_gtins.get(gtin_14(item.gtin))
        if gtin is None or (item.price is None and item.weight_g is None):
            return None
        price = None
        if item.price is not None:
            # In another currency, or a fraction of a cent: then the label states no price here.
            with contextlib.suppress(ValueError):
                price = item.price.minor(self._currency)
        return PieceLabel(gtin, price, None if item.weight_g is None else float(item.weight_g))

    def of(self, visit: str) -> list[CartSighting]:
        """Sightings while people of this visit were there, oldest first."""
        return [kept for kept in self._kept if visit in kept.visits]

    def forget(self, open_visits: Collection[str]) -> None:
        """Drop the sightings of visits that are all closed."""
        self._kept = deque((kept for kept in self._kept if not kept.visits.isdisjoint(open_visits)), SIGHTINGS_MAX)

    def log_likelihood(self, sighting: CartSighting) -> NDArray[np.float64]:
        """(PIECES_MAX + 1,): log probability of seeing n pieces, by the number k of pieces that were taken.

        With probability p the sighting is right. Then each taken piece is seen unless it is missed (rate m), and pieces
        beyond those taken were handed over (rate h). Otherwise the sighting is uninformative:

            P(n | k) = p (1 - m)^n [C(k, n) m^(k - n) if k >= n else h^(n - k)] + (1 - p) / (PIECES_MAX + 1)
        """
        miss, n = self._miss[sighting.kind], sighting.quantity
        out = np.empty(PIECES_MAX + 1)
        for pieces in range(PIECES_MAX + 1):
            right = (1.0 - miss) ** n
            right *= math.comb(pieces, n) * miss ** (pieces - n) if pieces >= n else HANDED_OVER ** (n - pieces)
            out[pieces] = math.log(sighting.probability * right + (1.0 - sighting.probability) / (PIECES_MAX + 1))
        return out

    def _holds(self, zone: str, x: float, y: float) -> bool:
        if zone in self._zones:
            return inside_polygon(self._zones[zone], x, y, ZONE_MARGIN_M)
        return edge_distance_m(self._gates[zone], x, y) < GATE_REACH_M
