"""The goods on the shelves: every piece with its own weight, resting on one plate or on two."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.simulation.scenario import Scenario
from fusion.store.models import Store


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a product."""

    gtin: str
    weight_g: float


@dataclass(frozen=True, slots=True)
class Resting:
    """A piece on a plate: `share` of it, at least half, bears on that plate, the rest on `neighbour` (-1: none)."""

    piece: Piece
    plate: int
    neighbour: int = -1
    share: float = 1.0

    def loads(self) -> list[tuple[int, float]]:
        """Grams on each plate that bears it."""
        weight_g = self.piece.weight_g
        if self.neighbour < 0:
            return [(self.plate, weight_g)]
        return [(self.plate, self.share * weight_g), (self.neighbour, (1.0 - self.share) * weight_g)]


class Stocked(NamedTuple):
    """A facing of the planogram by its plate's number: how many pieces should lie there."""

    plate: int
    gtin: str
    stock: int


class Lying(NamedTuple):
    """A product that lies on a plate."""

    plate: int
    gtin: str


class ShelfMap:
    """Which plates touch, which stand on one shelf, which hang in one gondola.

    Attributes:
        centres_m: (n_plates, 3). width_m, depth_m: (n_plates,).
        across, backs: (n_plates, 2) unit vectors along a plate's width, and towards the back of the shelf.
        beside: for each plate those that touch it sideways.
        shelf, gondola: (n_plates,) small integers. level: (n_plates,) 0 for the lowest shelf of a gondola.
    """

    def __init__(self, store: Store) -> None:
        plates = store.plates
        n = len(plates)
        self.centres_m = np.array([(p.x, p.y, p.z) for p in plates]).reshape(n, 3)
        yaw = np.array([p.yaw for p in plates])
        self.across = np.stack([np.cos(yaw), np.sin(yaw)], -1)
        self.backs = np.stack([-np.sin(yaw), np.cos(yaw)], -1)
        self.width_m = np.array([p.width for p in plates])
        self.depth_m = np.array([p.depth for p in plates])
        gap = self.centres_m[None, :, :2] - self.centres_m[:, None, :2]
        sideways = np.abs(np.einsum("ijk,ik->ij", gap, self.across))
        deep = np.abs(np.einsum("ijk,ik->ij", gap, self.backs))
        rise = np.abs(self.centres_m[None, :, 2] - self.centres_m[:, None, 2])
        parallel = np.einsum("ik,jk->ij", self.across, self.across) > 0.95
        reach = 0.5 * (self.width_m[None] + self.width_m[:, None])
        touching = parallel & (deep < 0.15) & (sideways < reach + 0.03)
        beside = touching & (rise < 0.03) & (sideways > 0.5 * reach)
        self.beside = [np.flatnonzero(row).tolist() for row in beside]
        self.shelf = _parts(touching & (rise < 0.03))
        self.gondola = _parts(touching)
        self.level = np.zeros(n, np.int64)
        for gondola in range(int(self.gondola.max(initial=-1)) + 1):
            members = np.flatnonzero(self.gondola == gondola)
            heights = np.unique(np.round(self.centres_m[members, 2] / 0.12))
            self.level[members] = np.searchsorted(heights, np.round(self.centres_m[members, 2] / 0.12))


def _parts(joined: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Connected parts of a symmetric relation, numbered by their first member."""
    part = np.full(len(joined), -1, np.int64)
    count = 0
    for first in range(len(joined)):
        if part[first] >= 0:
            continue
        part[first] = count
        waiting = [first]
        while waiting:
            for other in np.flatnonzero(joined[waiting.pop()]).tolist():
                if part[other] < 0:
                    part[other] = count
                    waiting.append(other)
        count += 1
    return part


class Stock:
    """The pieces on every plate, by product. Only pieces that lie there can be taken.

    Attributes:
        products: by GTIN.
        on: for each plate the pieces that lie on it, by GTIN.
        home: plates of each product's facings, by GTIN. facings: in the order of the planogram.
    """

    def __init__(self, store: Store, shelves: ShelfMap, scenario: Scenario) -> None:
        self._shelves = shelves
        self._random = scenario.random("pieces")
        self._straddle_probability = scenario.straddle_probability
        self.products = {product.gtin: product for product in store.products}
        batches = scenario.random("batches")
        batch_sd = scenario.batch_weight_sd
        self._batch = {gtin: 1.0 + batch_sd * float(batches.standard_normal()) for gtin in self.products}
        self.on: list[dict[str, list[Resting]]] = [defaultdict(list) for _ in store.plates]
        self.home: dict[str, list[int]] = defaultdict(list)
        self.facings: list[Stocked] = []
        counts = scenario.random("counts")
        plate_of = {plate.plate: i for i, plate in enumerate(store.plates)}
        for facing in store.planogram:
            plate = plate_of[facing.plate]
            self.home[facing.gtin].append(plate)
            self.facings.append(Stocked(plate, facing.gtin, facing.stock))
            for _ in range(self._true_count(facing.stock, counts, scenario)):
                self.lay(self.new_piece(facing.gtin), plate)
        strays = scenario.random("strays")
        for _ in range(scenario.misplaced_pieces if self.products and self.on else 0):
            gtin = sorted(self.products)[int(strays.integers(len(self.products)))]
            self.lay(self.new_piece(gtin), int(strays.integers(len(self.on))))

    def _true_count(self, stock: int, random: np.random.Generator, scenario: Scenario) -> int:
        """How many pieces lie where the planogram has `stock`: some were filled or sold without a record."""
        if not scenario.count_error_probability or random.random() >= scenario.count_error_probability:
            return stock
        return max(0, stock + int(random.choice([-3, -2, -1, 1, 2, 3])))

    def new_piece(self, gtin: str) -> Piece:
        """A piece as it comes from the supplier, of the delivery's weight and within 3 sd of it."""
        product = self.products[gtin]
        spread = float(np.clip(self._random.standard_normal(), -3.0, 3.0)) * product.weight_sd_g
        weight_g = product.weight_g * self._batch[gtin] + spread
        return Piece(gtin, max(0.5 * product.weight_g, weight_g))

    def lay(self, piece: Piece, plate: int) -> Resting:
        """Put a piece on a plate; it may come to rest partly on one beside it."""
        beside = self._shelves.beside[plate]
        if beside and self._random.random() < self._straddle_probability:
            neighbour = beside[int(self._random.integers(len(beside)))]
            resting = Resting(piece, plate, neighbour, float(self._random.uniform(0.55, 0.95)))
        else:
            resting = Resting(piece, plate)
        self.on[plate][piece.gtin].append(resting)
        return resting

    def take(self, plate: int, gtin: str, n: int, random: np.random.Generator) -> list[Resting]:
        """Remove up to n pieces of a product from a plate."""
        lying = self.on[plate][gtin]
        return [lying.pop(int(random.integers(len(lying)))) for _ in range(min(n, len(lying)))]

    def count(self, plate: int, gtin: str) -> int:
        """Pieces of a product on a plate."""
        return len(self.on[plate].get(gtin, ()))

    def goods_on(self, plate: int) -> list[str]:
        """One entry for every piece on a plate, sorted by product."""
        return [gtin for gtin in sorted(self.on[plate]) for _ in self.on[plate][gtin]]

    def misplaced(self) -> list[Lying]:
        """Products on plates where the planogram does not have them."""
        return [
            Lying(plate, gtin)
            for plate, goods in enumerate(self.on)
            for gtin in sorted(goods)
            if goods[gtin] and plate not in self.home[gtin]
        ]

    def load_g(self, plate: int) -> float:
        """Mass of the pieces that count as lying on a plate."""
        return math.fsum(resting.piece.weight_g for goods in self.on[plate].values() for resting in goods)
