"""Whether a plate's loads are a wrong multiple of what goods weigh: ounces for grams, a half, reversed cells.

Every load weighs the hypotheses that the plate, or all plates, read f times the true weight. With s(x) the density of a
load of x grams among the goods there, the log odds of f against 1 grow by log s(x / f) - log |f| - log s(x), and by the
noise: a scale in ounces trembles 28 times less than a scale in grams. The tests are sequential (Wald, 1945).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import goods as kernel

if TYPE_CHECKING:
    from fusion.goods.planogram import Planogram

# Readings per gram: kilogram, pound, ounce, half of the cells unplugged or a wrong gain, twice, reversed polarity.
FACTORS = (1.0 / 1000.0, 1.0 / 453.59237, 1.0 / 28.349523, 0.5, 2.0, -1.0)
# Prior log odds of each, of one plate and of a whole store.
LOG_PRIOR = math.log(1e-3)
# No single load decides, and no number of good loads excludes a later fault.
LOG_LOAD_MAX, LOG_ODDS_MIN = 8.0, -14.0
# What one plate can add to the store's: too little to suspect all plates for the fault of one.
LOG_GIVEN_MAX = 4.0
# Plates from this probability on are no witnesses; from PROVED on, they are reported. Carts go to review because of the
# others too, so these are reported once nothing has cleared them for SUSPECT_S.
SUSPECT, PROVED, SUSPECT_S = 0.1, 0.5, 10.0
# Noise of scales, log-normal: 0.35 g (294 plates of a real shop: half between 0.2 and 0.6 g), others by a factor of
# three, and plates of one store by a factor of two. Student's t of this many degrees of freedom, for the odd scale.
USUAL_NOISE_G, LOG_NOISE_SD, LOG_NOISE_SD_STORE, NOISE_DF = 0.35, 1.1, 0.8, 8.0
# Shares of loads that are taken and put back, and of put-backs at the right place and anywhere else (43 % of those in a
# real shop's labelled visits, which were made to be difficult).
TAKEN, RIGHT_PLACE, ELSEWHERE = 0.85, 0.5, 0.3
# A put-back of what is not known to be in any cart, and a load of no goods, as a density per gram.
NOT_AWAY, UNKNOWN_PER_G = 1e-3, 1e-7
# Of what is put at a wrong place, how often it comes from a cart that is not near, against one that is.
FROM_AFAR = 0.02
# Share of the small changes of a plate in a larger unit that are goods; the others creep.
SMALL_GOODS = 0.3
# Loads of one plate's goods on another, at a moment when a hand was over the first and none over the other.
EXCHANGED_LOADS = 2
# A plate that bears this share of a load is judged by it.
MAIN_SHARE = 0.9
# The constants above in the order of the kernel's enum. The last keeps the logarithm of no prior at all finite.
_FACTORS = np.array(FACTORS)
MODEL = np.array([
    LOG_PRIOR, LOG_LOAD_MAX, LOG_ODDS_MIN, LOG_GIVEN_MAX, math.log(SUSPECT / (1.0 - SUSPECT)), MAIN_SHARE,
    TAKEN, RIGHT_PLACE, ELSEWHERE, NOT_AWAY, UNKNOWN_PER_G, FROM_AFAR, 1e-12,
])  # fmt: skip


class Fault(NamedTuple):
    """A plate (an index into store.plates; -1: all plates) that reads `factor` times the true weight."""

    plate: int
    factor: float


class Exchange(NamedTuple):
    """Two plates (indices into store.plates) that show each other's loads."""

    plate: int
    other: int


class ScaleFactors:
    """Log odds of every factor, for every plate and for the whole store.

    Attributes:
        suspect: plates whose loads are no evidence at present.
        due: whether there was evidence since `faults` was last called.
    """

    def __init__(self, n_plates: int) -> None:
        self.suspect: frozenset[int] = frozenset()
        self.due = False
        self._all_suspect = False
        # From loads; the last row is the whole store's.
        self._of_loads = np.zeros((n_plates + 1, len(FACTORS)))
        self._of_noise = np.zeros((n_plates + 1, len(FACTORS)))
        # What each plate has added to the store's, since a single plate is no proof for all.
        self._given = np.zeros((n_plates, len(FACTORS)))
        self._suspect_since_ns: dict[Fault, int] = {}
        self._reported: set[Fault] = set()
        self._moved_elsewhere: Counter[Exchange] = Counter()
        self._exchanged: frozenset[int] = frozenset()
        self._exchanges: list[Exchange] = []

    def set_noise(self, noise_g: NDArray[np.float64]) -> None:
        """Take the plates' noise (n_plates,) as it was measured last; NaN where it was not."""
        log_noise, log_unit = np.log(noise_g), np.log(np.abs(FACTORS))
        known = np.isfinite(log_noise)
        if not known.any():
            return
        usual = float(np.median(log_noise[known]))
        of_store = _log_t((usual - math.log(USUAL_NOISE_G)) / LOG_NOISE_SD)
        self._of_noise[-1] = _log_t((usual - log_unit - math.log(USUAL_NOISE_G)) / LOG_NOISE_SD) - of_store
        far = (log_noise[known, None] - usual) / LOG_NOISE_SD_STORE
        shifted = far - log_unit / LOG_NOISE_SD_STORE
        self._of_noise[:-1][known] = np.minimum(_log_t(shifted) - _log_t(far), LOG_LOAD_MAX)
        self._judge()

    def observe(
        self,
        planogram: Planogram,
        plates: NDArray[np.int64],
        delta_g: NDArray[np.float64],
        noise_g2: float,
        held: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:
        """Take a load; returns what it added to the evidence, for `retract`.

        Args:
            planogram: what lies where, before the load.
            plates: (n,) that it was on.
            delta_g: (n,) grams on each.
            noise_g2: variance of their sum.
            held: (n_products,) pieces that the carts of those near are expected to hold; None where it is not known.
        """
        added = np.empty((3, len(FACTORS)))
        found = kernel.weigh_factors(
            planogram.arrays, plates, delta_g, noise_g2, held, _FACTORS, self._of_loads, self._of_noise, self._given,
            MODEL, added,
        )  # fmt: skip
        main = int(plates[0]) if len(plates) == 1 else int(plates[np.argmax(np.abs(delta_g))])
        self.due = True
        if bool(found & kernel.STORE_SUSPECT) != self._all_suspect or (
            bool(found & kernel.PLATE_SUSPECT) != (main in self.suspect)
        ):
            self._judge()
        return added

    def retract(self, plate: int, added: NDArray[np.float64]) -> None:
        """Take back what a load on a plate added in favour of factors: a hand rested there, and has let go."""
        of_plate, of_store, given = np.maximum(added, 0.0)
        for row, ratio in ((plate, of_plate), (-1, of_store)):
            self._of_loads[row] = np.maximum(self._of_loads[row] - ratio, self._least(row))
        self._given[plate] = np.maximum(self._given[plate] - given, 0.0)
        self._judge()

    def observe_small(self, planogram: Planogram, plate: int, delta_g: float, var_g2: float, log_creep: float) -> None:
        """Take a change that is too small for a load; log_creep: its log density as creep."""
        plates, delta = np.array([plate]), np.array([delta_g])
        log_odds = np.maximum(self._log_odds(plate), self._log_odds(-1))
        changed = False
        for at, factor in enumerate(FACTORS):
            load_g = abs(delta_g / factor)
            if abs(factor) >= 1.0 or load_g < 0.9 * planogram.lightest_g or log_odds[at] < LOG_ODDS_MIN + 1.0:
                continue
            goods = kernel.log_goods(planogram.arrays, plates, delta / factor, var_g2 / factor**2, MODEL)
            goods -= math.log(abs(factor))
            mixed = np.logaddexp(math.log(SMALL_GOODS) + goods, math.log(1.0 - SMALL_GOODS) + log_creep)
            self._add(plate, at, float(mixed) - log_creep, True)
            changed = True
        if changed:
            self._judge()

    def observe_exchange(self, plate: int, other: int) -> None:
        """Take a load of another plate's goods on a plate, while a hand was over the other and none over this one."""
        pair = Exchange(min(plate, other), max(plate, other))
        self._moved_elsewhere[pair] += 1
        if self._moved_elsewhere[pair] == EXCHANGED_LOADS:
            self._exchanged |= set(pair)
            self._exchanges.append(pair)
            self._judge()

    def exchanges(self) -> list[Exchange]:
        """Pairs of plates that have been proved to show each other's loads since the last call."""
        drained, self._exchanges = self._exchanges, []
        return drained

    def faults(self, now_ns: int, unfit: Collection[int] = ()) -> list[Fault]:
        """Plates, or all of them, that turned out to read a wrong multiple since the last call, or seem to for long.

        unfit: plates that were reported for another cause.
        """
        found = []
        self.due = False
        suspect = sorted(self.suspect.difference(unfit))
        before_ns, self._suspect_since_ns = self._suspect_since_ns, {}
        for plate in (-1, *suspect) if suspect else ():
            log_odds = self._log_odds(plate)
            at = int(np.argmax(log_odds))
            fault, probability = Fault(plate, FACTORS[at]), _probability(float(log_odds[at]))
            if probability < SUSPECT:
                continue
            since_ns = self._suspect_since_ns[fault] = before_ns.get(fault, now_ns)
            if probability < PROVED and now_ns - since_ns < SUSPECT_S * 1e9:
                continue
            if fault not in self._reported:
                self._reported.add(fault)
                found.append(fault)
            if plate < 0:
                break
        return found

    def _log_odds(self, plate: int) -> NDArray[np.float64]:
        """(n_factors,) of a plate; -1: of the whole store."""
        log_odds: NDArray[np.float64] = LOG_PRIOR + self._of_noise[plate] + self._of_loads[plate]
        return log_odds

    def _least(self, row: int) -> NDArray[np.float64]:
        """(n_factors,) evidence from loads with which the log odds of a row are the least."""
        least: NDArray[np.float64] = LOG_ODDS_MIN - LOG_PRIOR - self._of_noise[row]
        return least

    def _add(self, plate: int, at: int, log_ratio: float, alone: bool) -> None:
        """Add a load's evidence to the store's and, where the load was on one plate alone, to the plate's."""
        log_ratio = min(max(log_ratio, -LOG_LOAD_MAX), LOG_LOAD_MAX)
        given = min(max(self._given[plate, at] + log_ratio, 0.0), LOG_GIVEN_MAX)
        for_store = min(log_ratio, given - self._given[plate, at]) if log_ratio > 0.0 else log_ratio
        self._given[plate, at] = given
        for row, ratio in ((plate, log_ratio if alone else 0.0), (-1, for_store)):
            self._of_loads[row, at] = max(self._of_loads[row, at] + ratio, self._least(row)[at])

    def _judge(self) -> None:
        log_odds = LOG_PRIOR + self._of_noise + self._of_loads
        likely = log_odds.max(axis=1) > math.log(SUSPECT / (1.0 - SUSPECT))
        n_plates = len(likely) - 1
        self._all_suspect = bool(likely[-1])
        suspect = range(n_plates) if likely[-1] else np.flatnonzero(likely[:-1]).tolist()
        self.suspect = self._exchanged.union(suspect)
        self.due = True


def _probability(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(log_odds, -700.0)))


def _log_t(far: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Log density of Student's t with NOISE_DF degrees of freedom, up to a constant."""
    return np.asarray(-0.5 * (NOISE_DF + 1.0) * np.log1p(np.square(far) / NOISE_DF))
