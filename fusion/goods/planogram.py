"""What lies where, what it weighs, and the gain of each plate: kept up to date in this one place.

An engine has exactly one `Planogram`. Attribution writes it: it moves stock and learns the plates' gains from the loads
that it has explained. The scales read it: they join and split changes of weight by what the goods there weigh.

A load is identified by Bayes' rule over product and quantity,

    P(product, n | load, place)  ∝  p(load | product, n) P(product | place) P(n),

where the load of n pieces is normal with mean n w g and variance noise² + n s² + (n w g)² var(g). Here w and s are the
weight of a piece and its standard deviation, g is the gain of the plates, and noise is that of the measurement.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import goods as kernel
from fusion.goods.factors import ScaleFactors
from fusion.goods.learnt import Learnt
from fusion.goods.timing import HandTiming
from fusion.goods.weighings import PLACE_GAIN_SD
from fusion.store.models import Store

# Distance from the middle of a load of one piece to the middle of the plate where the piece belongs, in plate widths:
# uniform up to nearly half a width, since half of all pieces rest on two or three plates, and seldom more.
OFF_CENTRE_WIDTHS, OFF_CENTRE_SD_WIDTHS = 0.45, 0.15
# Prior of the product of a load: one that is known to lie on these plates, one of a dozen from nearby in the row, one
# of a hundred from anywhere. One piece in forty was misplaced before anyone watched.
PLANNED_PRIOR, ROW_PRIOR, STORE_PRIOR = 1.0, 2e-3, 1e-4
# How far to trust a count of zero: shelves are filled unseen and inventories are sometimes wrong. Something did leave
# the plate, and the product planned there is still far more likely than goods from elsewhere.
COUNT_WRONG = 0.2
# Shares of grips with one, two and three pieces; each further piece halves the share.
QUANTITY_PRIOR = (0.86, 0.10, 0.03)
QUANTITY_DECAY = 0.5
# A third of all pieces rest on two plates, with anything from none to half of the weight on the second plate. A part of
# a few grams, or a part within the shaking of a hand, does not show there.
HIDDEN_PROBABILITY, HIDDEN_SHARE_MIN, HIDDEN_MAX_G = 0.15, 0.04, 15.0
# Pairs of products with a lower density per gram than this are not considered.
MIXTURE_LOG_MIN = math.log(1e-4)
# One load in fifty is measured with three times the deviation that the figures give: it leans on a neighbour, or the
# weight on its label is out of date.
TAIL_SHARE, TAIL_SD_RATIO = 0.02, 3.0
# Identifications less likely than the best by more than a factor of exp(16) are dropped.
LOG_SPREAD = 16.0
# The constants above in the order of the kernel's enum.
MODEL = np.array([
    PLACE_GAIN_SD, OFF_CENTRE_WIDTHS, OFF_CENTRE_SD_WIDTHS, PLANNED_PRIOR, ROW_PRIOR, STORE_PRIOR, COUNT_WRONG,
    *np.log(QUANTITY_PRIOR), math.log(QUANTITY_DECAY),
    HIDDEN_PROBABILITY, HIDDEN_SHARE_MIN, HIDDEN_MAX_G, MIXTURE_LOG_MIN, TAIL_SHARE, TAIL_SD_RATIO, LOG_SPREAD,
])  # fmt: skip
# Rows of one shelf unit: gaps between them along it, how far apart their middles are across it, and their directions.
UNIT_GAP_M, UNIT_DEPTH_M, UNIT_COS_MIN = 0.1, 0.35, 0.99


class Identifications(NamedTuple):
    """What a load may be: parallel (n,) arrays, most probable first.

    Attributes:
        product: int64 index into store.products.
        quantity: int64 signed pieces, negative where taken.
        log_likelihood: float64 log density, per gram, of the measured sum given product and quantity.
        log_place: float64 log prior of the product at the place of the load.
        log_quantity: float64 log prior of this number of pieces at once.
    """

    product: NDArray[np.int64]
    quantity: NDArray[np.int64]
    log_likelihood: NDArray[np.float64]
    log_place: NDArray[np.float64]
    log_quantity: NDArray[np.float64]

    @property
    def log_posterior(self) -> NDArray[np.float64]:
        """(n,) log probability of each, up to a constant that is common to all."""
        return self.log_likelihood + self.log_place + self.log_quantity


class Rows:
    """Plates that stand side by side: same height, same direction, touching edges. Found from geometry alone.

    Attributes:
        row: (n_plates,) int64 number of the row.
        place: (n_plates,) int64 position in the row, from left to right as the shopper sees the plate's x axis.
        along_m: (n_plates,) float64 coordinate of the plate's middle along its own x axis.
        width_m: (n_plates,) float64.
        members: plates of each row, from left to right.
        member, member_start: the same in one array (n_plates,), and where each row begins in it (n_rows + 1,).
        unit: (n_plates,) int64 number of the shelf unit: rows above each other, or end to end.
    """

    def __init__(self, store: Store) -> None:
        n = len(store.plates)
        centre = np.array([(p.x, p.y, p.z) for p in store.plates]).reshape(n, 3)
        yaw = np.array([p.yaw for p in store.plates])
        self.width_m: NDArray[np.float64] = np.array([p.width for p in store.plates])
        cos, sin = np.cos(yaw), np.sin(yaw)
        self.along_m: NDArray[np.float64] = cos * centre[:, 0] + sin * centre[:, 1]
        across = -sin * centre[:, 0] + cos * centre[:, 1]
        self.row: NDArray[np.int64] = np.full(n, -1, np.int64)
        self.place: NDArray[np.int64] = np.zeros(n, np.int64)
        self.members: list[list[int]] = []
        # Sorting by quantised yaw first puts neighbours next to each other, so that a store of a thousand plates does
        # not need a million comparisons.
        order = np.lexsort((self.along_m, across.round(2), centre[:, 2].round(2), np.round(cos, 2), np.round(sin, 2)))
        for plate in order.tolist():
            for members in reversed(self.members):
                last = members[-1]
                gap = self.along_m[plate] - self.along_m[last] - 0.5 * (self.width_m[plate] + self.width_m[last])
                same_line = abs(centre[plate, 2] - centre[last, 2]) < 0.03 and abs(across[plate] - across[last]) < 0.1
                same_way = abs(cos[plate] - cos[last]) < 0.02 and abs(sin[plate] - sin[last]) < 0.02
                if same_line and same_way and abs(gap) < 0.02:
                    members.append(plate)
                    break
            else:
                self.members.append([plate])
        for row, members in enumerate(self.members):
            self.row[members] = row
            self.place[members] = np.arange(len(members))
        self.unit: NDArray[np.int64] = self._units(cos, sin, across)[self.row]
        self.member: NDArray[np.int64] = np.array([plate for members in self.members for plate in members], np.int64)
        starts = np.cumsum([0, *(len(members) for members in self.members)])
        self.member_start: NDArray[np.int64] = starts.astype(np.int64)

    def _units(
        self, cos: NDArray[np.float64], sin: NDArray[np.float64], across: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """(n_rows,) number of the shelf unit of each row."""
        first = np.array([members[0] for members in self.members], np.int64)
        last = np.array([members[-1] for members in self.members], np.int64)
        left_m, right_m = self.along_m[first] - 0.5 * self.width_m[first], self.along_m[last] + 0.5 * self.width_m[last]
        unit = np.full(len(first), -1, np.int64)
        for row in range(len(first)):
            if unit[row] >= 0:
                continue
            unit[row], found = unit.max() + 1, [row]
            while found:
                at = found.pop()
                joined = (unit < 0) & (left_m < right_m[at] + UNIT_GAP_M) & (right_m > left_m[at] - UNIT_GAP_M)
                joined &= np.abs(across[first] - across[first[at]]) < UNIT_DEPTH_M
                joined &= cos[first] * cos[first[at]] + sin[first] * sin[first[at]] > UNIT_COS_MIN
                unit[joined] = unit[row]
                found += np.flatnonzero(joined).tolist()
        return unit

    def near(self, plate: int, reach: int) -> list[int]:
        """The plate and those of its row up to `reach` places to each side, from left to right."""
        place = int(self.place[plate])
        return self.members[self.row[plate]][max(place - reach, 0) : place + reach + 1]


class Planogram:
    """What lies where: the plan at the start, then what was taken and put back.

    Attributes:
        rows: which plates stand side by side.
        gtins: (n_products,) in the order of store.products.
        learnt: weights of products and gains of plates, as learnt so far.
        weight_g, weight_sd_g: (n_products,) float64 of one piece; the arrays of `learnt`.
        stock: (n_plates, n_products) float64 expected pieces; fractions where it is not certain.
        planned: (n_plates, n_products) bool, as in the store's planogram; the array of `learnt`.
        away: (n_products,) float64 expected pieces that were taken and not put back.
        gain, gain_var: (n_plates,) float64 grams that a plate reports per gram of load, and the variance of that
            estimate; the arrays of `learnt`.
        factors: whether plates read a wrong multiple of what lies on them.
        timing: whether loads come and go while hands are at their plates.
        arrays: all that a kernel reads and writes, in the order in which `identification.pxi` unpacks them.
        lightest_g: weight of the lightest piece; 0 where the store has no products.
        lightest_near_g: (n_plates,) of the lightest piece that belongs on a plate or beside it; infinite without any.
    """

    def __init__(self, store: Store) -> None:
        self.learnt = Learnt(store)
        self.weight_g, self.weight_sd_g = self.learnt.weight_g, self.learnt.weight_sd_g
        self.gain, self.gain_var = self.learnt.gain, self.learnt.gain_var
        self._derive(store)
        self.stock: NDArray[np.float64] = self._filled.copy()
        self.away: NDArray[np.float64] = np.zeros(len(store.products))
        self.factors = ScaleFactors(len(store.plates))
        self.timing = HandTiming(self.rows.unit)
        self._gather()

    def _gather(self) -> None:
        rows = self.rows
        self.arrays: tuple[NDArray[Any], ...] = (
            self.weight_g, self.weight_sd_g, self.stock, self.planned, self.away, self.gain, self.gain_var,
            rows.along_m, rows.width_m, rows.row, rows.member, rows.member_start, MODEL, self._scratch,
            rows.place,
        )  # fmt: skip

    def _derive(self, store: Store) -> None:
        self.rows = Rows(store)
        self.gtins = tuple(product.gtin for product in store.products)
        label_g, self.planned = self.learnt.label_g, self.learnt.planned
        self.lightest_g = float(label_g.min()) if len(label_g) else 0.0
        plate_index = {plate.plate: i for i, plate in enumerate(store.plates)}
        product_index = {gtin: i for i, gtin in enumerate(self.gtins)}
        self._filled = np.zeros((len(store.plates), len(store.products)))  # Stock at the start.
        for facing in store.planogram:
            self._filled[plate_index[facing.plate], product_index[facing.gtin]] += facing.stock
        lightest_g = np.where(self.planned, label_g, np.inf).min(axis=1, initial=np.inf)
        self._scratch = np.zeros((5, len(store.products)))
        near = [self.rows.near(plate, 1) for plate in range(len(store.plates))]
        self.lightest_near_g: NDArray[np.float64] = np.array([lightest_g[plates].min() for plates in near])

    def adopt(self, store: Store) -> None:
        """Continue with a store of the same layout; see `Engine.adopt`."""
        filled = self._filled
        self.learnt.adopt(store)
        self._derive(store)
        # As if the shelves had been filled like this at the start; what was taken and put back since still holds.
        self.stock = np.maximum(self.stock + (self._filled - filled), 0.0)
        self._gather()

    def identify(
        self,
        plates: NDArray[np.int64],
        delta_g: NDArray[np.float64],
        noise_g2: float,
        limit: int = 12,
        log_prior: NDArray[np.float64] | None = None,
    ) -> Identifications:
        """Products and quantities that suit the weight and the place of a load.

        Args:
            plates: (n,) touching plates of one row.
            delta_g: (n,) grams on each of them, negative where goods were taken.
            noise_g2: variance of the sum from noise.
            limit: at most this many are returned, and no more than IDENTIFIED_MAX of the kernel.
            log_prior: (n_products,) replaces the planogram's own prior of the place.
        """
        if not len(self.weight_g):
            empty = np.zeros(0)
            return Identifications(empty.astype(np.int64), empty.astype(np.int64), empty, empty, empty)
        limit = min(limit, kernel.IDENTIFIED_MAX)
        goods, weights = np.empty((2, limit), np.int64), np.empty((3, limit))
        n = kernel.identify(self.arrays, plates, delta_g, noise_g2, log_prior, goods, weights)
        return Identifications(goods[0, :n], goods[1, :n], weights[0, :n], weights[1, :n], weights[2, :n])

    def log_place(self, plates: NDArray[np.int64], delta_g: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n_products,) log prior of the product of a load with its middle there; arguments as in `identify`."""
        log_prior = np.empty(len(self.gtins))
        kernel.log_place(self.arrays, plates, delta_g, log_prior)
        return log_prior

    def note_elsewhere(self, plates: NDArray[np.int64], reached: list[int], product: int) -> None:
        """Note that a product moved on plates (n,) where no hand was, while hands were over others (reached)."""
        if not self.planned[plates, product].any():
            for other in dict.fromkeys(reached):
                if self.planned[other, product]:
                    self.factors.observe_exchange(int(plates[0]), other)

    def move_all(self, plate: int, goods: NDArray[np.int32], probability: NDArray[np.float64]) -> None:
        """Record what a load may have been; goods (n, 3): person, product and signed pieces; probability (n,)."""
        kernel.move_all(goods, probability, self.stock[plate], self.away)
