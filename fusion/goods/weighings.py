"""The latest loads of every product whose goods are known, and what they say about its weight and its plates' gains.

A plate that reads g grams per gram and a product that weighs exp(b) times its label show a load of n pieces as

    log(load / (n label)) = log g + b + error,

so one load fixes the sum of both and never the parts. Several plates under one product, several products on one plate,
their priors and time separate them: a delivery changes b on all plates of a product at once, while a plate drifts or is
exchanged alone. `Weighings.estimate` solves for one product: least squares with Huber's
weights (Annals of Mathematical Statistics 35, 1964) over its weight in each delivery and over the gains of its plates,
the weights of other products held fixed. Repeated for one product after the other, this is block coordinate descent on
the joint problem. The answer is a function of the window alone, in whatever order its loads came.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Loads that are kept of each product: about a week of a product that ten customers a day take. The error of a place is
# 1 %, so a weight is known to 0.2 % from these.
LOADS_MAX = 48
# Deliveries of a product that are kept apart; loads of older ones are left out. Plates that are solved for together.
DELIVERIES_MAX, PLATES_MAX = 4, 12
# A product's shelves are filled within half a day.
REFILL_NS = 43_200_000_000_000
# The gain of a plate differs from 1 by 3 % on real shelves (+4.0 % and -3.2 % on the two picks of a real recording).
# Most of that is a constant of the plate; the rest varies from place to place on the plate. The constant wanders with
# temperature and age: typical load cells of shelf scales specify 0.1 to 0.3 % over 10 K.
GAIN_SD, PLACE_GAIN_SD, GAIN_DRIFT_SD_PER_DAY = 0.03, 0.01, 0.002
GAIN_VAR = GAIN_SD**2 - PLACE_GAIN_SD**2  # Of the constant, before anything is known.
# What a product usually weighs against its label, and the mean weight of a delivery against that.
LABEL_SD, DELIVERY_SD = 0.006, 0.006
# Residuals beyond this many standard deviations count less, and ever less.
HUBER_SDS, HUBER_ROUNDS = 2.0, 4
DAY_NS = 86_400_000_000_000


class KnownLoad(NamedTuple):
    """A load whose goods are known.

    Attributes:
        t_ns: when it moved.
        event: name of the event, unique in the store.
        plates, share: (n,) the plates that bore it, and how much of it each.
        load_g: what they showed, positive.
        noise_g2: variance of that from noise.
        product, quantity: index into store.products, and pieces, positive.
        source: account of the customer who moved it, or another name for them.
        visit: whose decision says what it was; "" where the engine was certain.
    """

    t_ns: int
    event: str
    plates: tuple[int, ...]
    share: tuple[float, ...]
    load_g: float
    noise_g2: float
    product: int
    quantity: int
    source: str
    visit: str = ""


class Estimate(NamedTuple):
    """What the window says about one product.

    Attributes:
        log_ratio, sd: of the latest delivery's weight to the label's.
        plates: (n,) plates under it.
        log_gain, log_gain_var, cov: (n,) their gains now, with the weight at log_ratio, the variance of gain and weight
            together, and the covariance of gain and weight.
        n_loads, n_answers, n_sources: evidence about the latest delivery: all loads, those that a decision names, and
            the customers who moved them.
    """

    log_ratio: float
    sd: float
    plates: NDArray[np.int64]
    log_gain: NDArray[np.float64]
    log_gain_var: NDArray[np.float64]
    cov: NDArray[np.float64]
    n_loads: int
    n_answers: int
    n_sources: int


_ROW = np.dtype(
    [
        ("t_ns", np.int64), ("event", np.int64), ("source", np.int64), ("visit", np.int64),
        ("log_ratio", np.float64), ("var", np.float64), ("share", np.float64),
        ("plate", np.int32), ("other", np.int32), ("version", np.int64),
    ]
)  # fmt: skip
_Rows = NDArray[np.void]


class Weighings:
    """A window of known loads for every product, in flat arrays."""

    def __init__(self, n_products: int) -> None:
        self._rows = np.zeros((n_products, LOADS_MAX), _ROW)  # t_ns 0: free.
        # When the shelves were filled from another delivery, oldest first; 0 for none.
        self._delivered_ns = np.zeros((n_products, DELIVERIES_MAX), np.int64)

    def add(self, load: KnownLoad, label_g: float, piece_sd_g: float, version: int) -> bool:
        """Keep a load, in place of what was known of the same event; False where it cannot be used.

        Args:
            load: on one or two plates.
            label_g: weight of a piece by the store.
            piece_sd_g: standard deviation of single pieces.
            version: newest version of what was learnt, for `forget_since`.
        """
        if len(load.plates) > 2 or load.load_g <= 0.0:
            return False
        self.forget_events([load.event])
        true_g = load.quantity * label_g
        share = max(load.share) / sum(load.share)
        main = load.share.index(max(load.share))
        other = load.plates[1 - main] if len(load.plates) == 2 else -1
        var = (load.noise_g2 + load.quantity * piece_sd_g**2) / true_g**2
        var += PLACE_GAIN_SD**2 * (share**2 + (1.0 - share) ** 2)
        rows = self._rows[load.product]
        at = int(np.argmin(rows["t_ns"]))
        if rows["t_ns"][at] >= load.t_ns:
            return False  # Older than everything that is kept.
        visit = _number(load.visit) if load.visit else 0
        rows[at] = (
            load.t_ns, _number(load.event), _number(load.source), visit, np.log(load.load_g / true_g), var, share,
            load.plates[main], other, version,
        )  # fmt: skip
        return True

    def deliver(self, product: int, t_ns: int) -> None:
        """Note that a shelf was filled; within REFILL_NS it is the same delivery."""
        times = self._delivered_ns[product]
        if t_ns - times[-1] > REFILL_NS:
            times[:-1], times[-1] = times[1:].copy(), t_ns

    # ---- forgetting --------------------------------------------------------------------------------------------------

    def forget_events(self, events: Iterable[str]) -> dict[int, int]:
        """Drop the loads of some events; returns as `forget_visit`."""
        numbers = [_number(event) for event in events]
        return self._forget(np.isin(self._rows["event"], numbers)) if numbers else {}

    def forget_visit(self, visit: str) -> dict[int, int]:
        """Drop what decisions about a visit named; returns the products concerned, with the oldest version then."""
        return self._forget(self._rows["visit"] == _number(visit))

    def forget_source(self, source: str) -> dict[int, int]:
        """Drop the loads of a customer; returns as `forget_visit`."""
        return self._forget(self._rows["source"] == _number(source))

    def forget_since(self, version: int) -> dict[int, int]:
        """Drop the loads that came after a version; returns as `forget_visit`."""
        return self._forget(self._rows["version"] >= version)

    def restart(self, product: int, since: int, version: int) -> None:
        """Let a product's loads since a version count as loads since a later one, where none had taught anything."""
        rows = self._rows[product]
        rows["version"][rows["version"] >= since] = version

    def forget_plate(self, plate: int, until_ns: int) -> None:
        """Drop the loads on a plate up to an instant: it is another plate since."""
        on_plate = (self._rows["plate"] == plate) | (self._rows["other"] == plate)
        self._forget(on_plate & (self._rows["t_ns"] <= until_ns))

    def forget_product(self, product: int) -> None:
        """Drop the loads of a product: its label has changed."""
        self._rows[product] = np.zeros(1, _ROW)

    def _forget(self, dropped: NDArray[np.bool_]) -> dict[int, int]:
        dropped &= self._rows["t_ns"] > 0
        products = np.flatnonzero(dropped.any(axis=1)).tolist()
        found = {product: int(self._rows["version"][product][dropped[product]].min()) for product in products}
        self._rows[dropped] = np.zeros(1, _ROW)
        return found

    # ---- estimating --------------------------------------------------------------------------------------------------

    def estimate(
        self, product: int, beside: NDArray[np.int64], log_weight: NDArray[np.float64]
    ) -> Estimate | None:
        """Solve for a product's weight and its plates' gains; None where there are no loads.

        Args:
            product: index into store.products.
            beside: (k,) other products on its plates.
            log_weight: (n_products,) log ratio of the weights that hold now to the labels.
        """
        rows = self._recent(product)
        if not len(rows):
            return None
        plates = np.unique(rows["plate"])
        if len(plates) > PLATES_MAX:
            counts = np.bincount(np.searchsorted(plates, rows["plate"]))
            plates = np.sort(plates[np.argsort(-counts, kind="stable")[:PLATES_MAX]])
            rows = rows[np.isin(rows["plate"], plates)]
        deliveries, delivery = np.unique(
            np.searchsorted(self._delivered_ns[product], rows["t_ns"], side="right"), return_inverse=True
        )
        n_plates, n_deliveries = len(plates), len(deliveries)
        n_gains = n_plates * n_deliveries
        # Unknown: the gain of every plate in every delivery's time, the weight of every delivery, the usual weight.
        days = np.array([rows["t_ns"][delivery == d].mean() for d in range(n_deliveries)]) / DAY_NS
        information = _prior(n_plates, days)
        rhs = np.zeros(len(information))
        self._add_beside(information, rhs, beside, plates, days, log_weight)
        design = np.zeros((len(rows), len(information)))
        at = np.arange(len(rows))
        design[at, np.searchsorted(plates, rows["plate"]) * n_deliveries + delivery] = rows["share"]
        known_other = np.isin(rows["other"], plates)
        other = np.searchsorted(plates, rows["other"][known_other]) * n_deliveries + delivery[known_other]
        design[at[known_other], other] += 1.0 - rows["share"][known_other]
        design[at, n_gains + delivery] = 1.0
        precision = 1.0 / (rows["var"] + np.where(known_other, 0.0, ((1.0 - rows["share"]) ** 2) * GAIN_VAR))
        # All loads of one customer count as one.
        _, same, counts = np.unique(
            np.stack([rows["source"], delivery]), axis=1, return_inverse=True, return_counts=True
        )
        precision = precision / counts[same.ravel()]
        weight = np.ones(len(rows))
        for _ in range(HUBER_ROUNDS):
            weighted = design * (precision * weight)[:, None]
            cov = np.linalg.inv(information + design.T @ weighted)
            mean = cov @ (rhs + weighted.T @ rows["log_ratio"])
            off_sds = np.abs(rows["log_ratio"] - design @ mean) * np.sqrt(precision * counts[same.ravel()])
            weight = np.minimum(HUBER_SDS / np.maximum(off_sds, 1e-9), 1.0)
        last = n_gains + n_deliveries - 1
        gains = np.arange(n_plates) * n_deliveries + n_deliveries - 1
        newest = delivery == n_deliveries - 1
        return Estimate(
            float(mean[last]),
            float(np.sqrt(cov[last, last])),
            plates.astype(np.int64),
            mean[gains],
            cov[gains, gains] + 2.0 * cov[gains, last] + cov[last, last],
            cov[gains, last],
            int(newest.sum()),
            int((rows["visit"][newest] != 0).sum()),
            len(np.unique(rows["source"][newest])),
        )

    def _recent(self, product: int) -> _Rows:
        """Rows of a product's latest deliveries, in an order of their own."""
        rows = self._rows[product]
        rows = rows[(rows["t_ns"] > 0) & (rows["t_ns"] >= self._delivered_ns[product, 0])]
        ordered: _Rows = rows[np.lexsort((rows["event"], rows["t_ns"]))]
        return ordered

    def _add_beside(
        self,
        information: NDArray[np.float64],
        rhs: NDArray[np.float64],
        beside: NDArray[np.int64],
        plates: NDArray[np.int32],
        days: NDArray[np.float64],
        log_weight: NDArray[np.float64],
    ) -> None:
        """Add what loads of other products say about the gains of these plates; days: middle of every delivery."""
        if not len(beside):
            return
        rows = self._rows[beside]
        products = np.broadcast_to(beside[:, None], rows.shape)
        used = (rows["t_ns"] > 0) & np.isin(rows["plate"], plates) & (rows["share"] > 0.9)
        rows, products = rows[used], products[used]
        order = np.lexsort((rows["event"], rows["t_ns"]))
        rows, products = rows[order], products[order]
        if not len(rows):
            return
        apart = np.abs(rows["t_ns"][:, None] / DAY_NS - days)
        near = np.argmin(apart, axis=1)
        # The weight of the other product is off by the same for all of its loads on a plate.
        _, same, counts = np.unique(
            np.stack([rows["plate"], products]), axis=1, return_inverse=True, return_counts=True
        )
        precision = 1.0 / (rows["var"] + counts[same.ravel()] * DELIVERY_SD**2)
        at = np.searchsorted(plates, rows["plate"]) * len(days) + near
        np.add.at(information, (at, at), precision)
        np.add.at(rhs, at, precision * (rows["log_ratio"] - log_weight[products]))


def _prior(n_plates: int, days: NDArray[np.float64]) -> NDArray[np.float64]:
    """Information of the unknowns before any load: gains walk at random, deliveries vary about the usual weight.

    days: (n_deliveries,) middle of every delivery's loads.
    """
    n = len(days)
    information = np.zeros(((n_plates + 1) * n + 1,) * 2)
    apart_days = np.maximum(np.diff(days), 0.5)
    for first in range(0, n_plates * n, n):
        information[first, first] += 1.0 / GAIN_VAR
        for k in range(n - 1):
            _tie(information, first + k, first + k + 1, GAIN_DRIFT_SD_PER_DAY**2 * apart_days[k])
    usual = len(information) - 1
    information[usual, usual] += 1.0 / LABEL_SD**2
    for delivery in range(n_plates * n, usual):
        _tie(information, delivery, usual, DELIVERY_SD**2)
    return information


def _tie(information: NDArray[np.float64], one: int, other: int, var: float) -> None:
    """Add that two unknowns differ by this variance."""
    pair = np.array([one, other])
    information[np.ix_(pair, pair)] += np.array([[1.0, -1.0], [-1.0, 1.0]]) / var


def _number(name: str) -> int:
    """A name as a number that is the same in every process; never 0."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True) or 1
