"""What a store has taught its engine: gains of plates, weights of products, and how far probabilities can be trusted.

Three things are learnt, from loads whose goods are certain and from what reviewers and shoppers decide (`labels.py`):

- *Gains* follow every certain load at once, by a Kalman filter with a random walk (Bar-Shalom, Li, Kirubarajan,
  Estimation with Applications to Tracking and Navigation, 2001, section 5.2), since the next load needs them.
- *Weights* of deliveries are estimated together with the gains of their plates (`weighings.py`).
- *Calibration*: log odds of hands and of identities are multiplied by one factor each (`trust.py`).

Every change of a weight or a factor is a version: what, when, why, on how much evidence, and the numbers before and
after, to the last bit. It is bounded, in total and in each step, and needs several customers: all loads of one customer
count as one, so no customer moves a number alone. A decision that is taken back leaves no trace.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import goods as kernel
from fusion.goods.trust import CUSTOMERS_MIN, FACTOR_MAX, FACTOR_MIN, FACTOR_STEP_MAX, Fit, Trust
from fusion.goods.weighings import (
    DAY_NS,
    GAIN_DRIFT_SD_PER_DAY,
    GAIN_VAR,
    PLACE_GAIN_SD,
    Estimate,
    KnownLoad,
    Weighings,
)
from fusion.results import Lesson, LessonCause, LessonKind
from fusion.store.gtin import OwnGtins
from fusion.store.models import Store

# A weight may leave its label by this much, and move by this much in one version. Beyond, the label is wrong, and the
# store's folder is to be corrected.
WEIGHT_OFF_MAX, WEIGHT_STEP_MAX = 0.05, 0.015
# Customers who must have moved loads of a delivery before its weight changes, and loads between two estimates.
SOURCES_MIN, FRESH_LOADS = 3, 4
# Smaller changes are not published. Estimates are shrunk towards the label already, so their deviation is no measure.
WEIGHT_CHANGE_MIN, FACTOR_CHANGE_MIN = 0.0025, 0.02
# A gain may leave 1 by this much.
GAIN_OFF_MAX = 0.15
# Loads further off than this many standard deviations were something else, or lean on something. This many in a row
# that agree among each other show another plate, or one that was adjusted.
REFUSED_SDS, REFUSED_IN_A_ROW = 3.0, 3
VERSIONS_MAX = 256
# Calibration factors, by place in `factor`.
HANDS, IDENTITY = 0, 1
_FACTOR_KINDS = (LessonKind.HANDS, LessonKind.IDENTITY)
# The constants of gains in the order of the kernel's enum.
_GAIN_MODEL = np.array([PLACE_GAIN_SD, REFUSED_SDS, GAIN_OFF_MAX, GAIN_VAR, DAY_NS], np.float64)


class Change(NamedTuple):
    """One number that a version changed: which array, its place there, before and after."""

    array: str
    at: int
    before: float
    after: float


class Version(NamedTuple):
    """A published change: what it states, and all numbers that it changed."""

    lesson: Lesson
    changes: tuple[Change, ...]


class _Refused(NamedTuple):
    """Loads on a plate, in a row, that its gain does not explain and that agree among each other."""

    since_ns: int
    n: int
    gain: float


class Learnt:
    """Owns the numbers by which loads are identified. Arrays are changed in place and keep their identity.

    Attributes:
        weight_g, weight_sd_g: (n_products,) float64 of one piece.
        gain, gain_var: (n_plates,) float64 grams that a plate reports per gram of load, and the variance of that
            estimate.
        label_g: (n_products,) float64 of one piece, by the store.
        planned: (n_plates, n_products) bool, as in the store's planogram.
        gain_drift_var: by which the variance of a gain grows in a day.
        factor: (2,) float64 by which log odds of hands and of identities are multiplied.
        versions: what was published, oldest first; the newest VERSIONS_MAX.
        latest: newest lesson about each product, plate or factor.
        decisions_read: number of the newest entry of the books whose decision was learnt, for whoever reads them.
    """

    def __init__(self, store: Store) -> None:
        n_products, n_plates = len(store.products), len(store.plates)
        self.weight_g: NDArray[np.float64] = np.zeros(n_products)
        self.weight_sd_g: NDArray[np.float64] = np.zeros(n_products)
        self.gain: NDArray[np.float64] = np.ones(n_plates)
        self.gain_var: NDArray[np.float64] = np.full(n_plates, GAIN_VAR)
        self.factor: NDArray[np.float64] = np.ones(2)
        self.versions: deque[Version] = deque(maxlen=VERSIONS_MAX)
        self.latest: dict[tuple[LessonKind, str], Lesson] = {}
        self.decisions_read = 0
        self.label_g: NDArray[np.float64] = np.zeros(n_products)
        self._derive(store)
        self.weight_g[:] = self.label_g
        self._n_versions = 0
        self._weighings = Weighings(n_products)
        self._trust = (Trust(), Trust())
        self._fresh: Counter[int] = Counter()  # Loads since a product was estimated.
        self.gain_drift_var = GAIN_DRIFT_SD_PER_DAY**2
        self._gain_ns: NDArray[np.int64] = np.zeros(n_plates, np.int64)
        self._refused: dict[int, _Refused] = {}  # By plate.

    def _derive(self, store: Store) -> None:
        self._store_id = store.id
        self._gtins = [product.gtin for product in store.products]
        self._plates = [plate.plate for plate in store.plates]
        self.label_g[:] = [product.weight_g for product in store.products]
        # Weights are declared on the label and weighed by the shop; a deviation below half a gram is not credible.
        self.weight_sd_g[:] = [max(product.weight_sd_g, 0.5) for product in store.products]
        plate_at = {name: i for i, name in enumerate(self._plates)}
        product_at = {gtin: i for i, gtin in enumerate(self._gtins)}
        self.planned = np.zeros((len(self._plates), len(self._gtins)), bool)
        for facing in store.planogram:
            self.planned[plate_at[facing.plate], product_at[facing.gtin]] = True

    def adopt(self, store: Store) -> None:
        """Continue with a store of the same layout; see `Engine.adopt`. What was learnt from another label is void."""
        before_g = self.label_g.copy()
        self._derive(store)
        changed: NDArray[np.bool_] = np.not_equal(self.label_g, before_g)
        self.weight_g[changed] = self.label_g[changed]
        for product in np.flatnonzero(changed).tolist():
            self._weighings.forget_product(product)
            self.latest.pop((LessonKind.WEIGHT, self._gtins[product]), None)
        # The gains of these plates were learnt from goods whose declared weight was wrong.
        misled = (self.planned & changed).any(axis=1)
        self.gain[misled], self.gain_var[misled] = 1.0, GAIN_VAR

    @property
    def version(self) -> int:
        """Number of the newest version; 0 before the first."""
        return self._n_versions

    @property
    def known_gains(self) -> NDArray[np.bool_]:
        """(n_plates,) plates of whose gain loads have taught anything."""
        known: NDArray[np.bool_] = np.not_equal(self.gain_var, GAIN_VAR) | np.not_equal(self.gain, 1.0)
        return known

    # ---- gains -------------------------------------------------------------------------------------------------------

    def follow_gain(
        self,
        plates: NDArray[np.int64],
        delta_g: NDArray[np.float64],
        noise_g2: float,
        product: int,
        quantity: int,
        t_ns: int = 0,
    ) -> None:
        """Learn the plates' gains from a load whose product and quantity are certain.

        A Kalman filter whose state g (the gains) walks at random, with one scalar measurement z = share' g + noise,
        where z is the measured load over the true one:  P += Q dt,  K = P share / S,  g += K (z - share' g),
        P := (1 - K share') P,  of which only the diagonal is kept.

        Args:
            plates: (n,) that bore the load.
            delta_g: (n,) grams on each.
            noise_g2: variance of the sum of delta_g from noise.
            product: index into store.products.
            quantity: signed pieces.
            t_ns: when.
        """
        learnt, shown, innovation_var = kernel.follow_gain(
            plates, delta_g, noise_g2, product, quantity, t_ns, self.weight_g, self.weight_sd_g, self.gain,
            self.gain_var, self._gain_ns, self.gain_drift_var, _GAIN_MODEL,
        )  # fmt: skip
        if learnt and self._refused:
            for plate in plates.tolist():
                self._refused.pop(plate, None)
        elif not learnt and len(plates) == 1:
            self._refuse(int(plates[0]), shown, innovation_var, t_ns)

    def _refuse(self, plate: int, shown: float, var: float, t_ns: int) -> None:
        """Note a load that was something else, or that shows another gain; its plate is doubted once several agree."""
        if abs(shown - 1.0) > GAIN_OFF_MAX:
            # No plate reads so wrong: this was something else, and those before it are not in a row.
            self._refused.pop(plate, None)
            return
        known = self._refused.get(plate)
        if known is None or (shown - known.gain) ** 2 > 2.0 * REFUSED_SDS**2 * var:
            self._refused[plate] = _Refused(t_ns, 1, shown)
            return
        n = known.n + 1
        self._refused[plate] = known = _Refused(known.since_ns, n, known.gain + (shown - known.gain) / n)
        if n < REFUSED_IN_A_ROW:
            return
        del self._refused[plate]
        self._weighings.forget_plate(plate, known.since_ns - 1)
        changes = [self._change("gain", plate, known.gain), self._change("gain_var", plate, GAIN_VAR)]
        sd = GAIN_VAR**0.5
        self._publish(t_ns, LessonKind.GAIN, self._plates[plate], 1.0, sd, LessonCause.EXCHANGED, changes, (n, 0, 0))

    # ---- weights -----------------------------------------------------------------------------------------------------

    def add_load(self, load: KnownLoad) -> None:
        """Take a load whose goods are known; the weight of its product is estimated again when there are enough."""
        product = load.product
        piece_sd_g = float(self.weight_sd_g[product])
        if not self._weighings.add(load, float(self.label_g[product]), piece_sd_g, self.version):
            return
        self._fresh[product] += 1
        if load.visit or self._fresh[product] >= FRESH_LOADS:
            cause = LessonCause.ANSWERS if load.visit else LessonCause.LOADS
            self._learn_weight(product, load.t_ns, cause)

    def note_delivery(self, product: int, t_ns: int) -> None:
        """Note that staff filled the shelf with a product: what lies there now may weigh something else."""
        self._weighings.deliver(product, t_ns)

    def _learn_weight(self, product: int, t_ns: int, cause: LessonCause) -> None:
        """Estimate a product's weight and its plates' gains, and publish what has changed enough."""
        self._fresh[product] = 0
        plates = self.planned[:, product]
        beside = np.flatnonzero(self.planned[plates].any(axis=0))
        log_weight = np.log(self.weight_g / self.label_g)
        found = self._weighings.estimate(product, beside[beside != product], log_weight)
        if found is None or found.n_sources < SOURCES_MIN:
            return
        before = float(log_weight[product])
        wanted = min(max(found.log_ratio, -WEIGHT_OFF_MAX), WEIGHT_OFF_MAX)
        step = min(max(wanted - before, -WEIGHT_STEP_MAX), WEIGHT_STEP_MAX)
        if abs(step) < WEIGHT_CHANGE_MIN:
            return
        self._publish_weight(product, before + step, found, t_ns, cause)

    def _publish_weight(self, product: int, log_ratio: float, found: Estimate, t_ns: int, cause: LessonCause) -> None:
        label_g = float(self.label_g[product])
        changes = [self._change("weight_g", product, label_g * float(np.exp(log_ratio)))]
        # The sum of both is what the loads show: a weight that moved less than was found leaves more to the gains.
        gains = np.exp(found.log_gain + found.cov / found.sd**2 * (log_ratio - found.log_ratio))
        gains = np.clip(gains, 1.0 - GAIN_OFF_MAX, 1.0 + GAIN_OFF_MAX)
        for plate, gain, var in zip(found.plates.tolist(), gains.tolist(), found.log_gain_var.tolist()):
            changes += [self._change("gain", plate, gain), self._change("gain_var", plate, min(var, GAIN_VAR))]
        counts = found.n_loads, found.n_answers, found.n_sources
        gtin, sd_g = self._gtins[product], label_g * found.sd
        self._publish(t_ns, LessonKind.WEIGHT, gtin, label_g, sd_g, cause, changes, counts)

    # ---- calibration -------------------------------------------------------------------------------------------------

    def add_truth(self, which: int, log_odds: float, true: bool, source: str, visit: str, t_ns: int) -> None:
        """Take a label about the log odds that hands (HANDS) or an identity (IDENTITY) gave, without their factor."""
        self._trust[which].add(log_odds, true, source, visit)
        self._learn_factor(which, t_ns, LessonCause.ANSWERS)

    def _learn_factor(self, which: int, t_ns: int, cause: LessonCause) -> None:
        fit = self._trust[which].fit()
        if fit.n_sources < CUSTOMERS_MIN:
            return
        before = float(self.factor[which])
        step = min(max(fit.factor - before, -FACTOR_STEP_MAX), FACTOR_STEP_MAX)
        if abs(step) >= FACTOR_CHANGE_MIN:
            after = min(max(before + step, FACTOR_MIN), FACTOR_MAX)
            self._publish_factor(which, after, fit, t_ns, cause)

    def _publish_factor(self, which: int, factor: float, fit: Fit, t_ns: int, cause: LessonCause) -> None:
        changes, counts = [self._change("factor", which, factor)], (0, fit.n_labels, fit.n_sources)
        self._publish(t_ns, _FACTOR_KINDS[which], "", 1.0, fit.sd, cause, changes, counts)

    # ---- versions ----------------------------------------------------------------------------------------------------

    def _change(self, array: str, at: int, after: float) -> Change:
        return Change(array, at, float(getattr(self, array)[at]), after)

    def _publish(
        self,
        t_ns: int,
        kind: LessonKind,
        subject: str,
        label: float,
        sd: float,
        cause: LessonCause,
        changes: list[Change],
        counts: tuple[int, int, int],
    ) -> None:
        """Apply changes as a version; the first of them is what it is about. counts: loads, answers and customers."""
        for change in changes:
            getattr(self, change.array)[change.at] = change.after
        self._n_versions += 1
        first = changes[0]
        lesson = Lesson(self._n_versions, t_ns, kind, subject, first.before, first.after, sd, label, cause, *counts)
        self.versions.append(Version(lesson, tuple(changes)))
        self.latest[kind, subject] = lesson

    def back_to(self, version: int, t_ns: int) -> None:
        """Undo every version after this one, by versions of their own, and forget the loads and labels since.

        Weights and factors are what they were, to the last bit; so are gains that no load has moved since. Others keep
        what loads have taught since.

        Raises:
            ValueError: it is newer than the newest, or the versions after it are no longer kept.
        """
        oldest = self.versions[0].lesson.version if self.versions else self.version + 1
        if not oldest - 1 <= version <= self.version:
            raise ValueError(f"version: want {oldest - 1} to {self.version}, got {version}")
        self._weighings.forget_since(version)
        for trust in self._trust:
            trust.forget_all()
        self._undo([known for known in self.versions if known.lesson.version > version], t_ns, LessonCause.RESTORED)

    def take_back(self, visit: str, t_ns: int) -> None:
        """Forget what decisions about a visit have taught: they were reversed."""
        for which, trust in enumerate(self._trust):
            if trust.forget_visit(visit):
                self._learn_factor(which, t_ns, LessonCause.TAKEN_BACK)
        self._relearn(self._weighings.forget_visit(visit), t_ns)

    def forget_customer(self, source: str, t_ns: int) -> None:
        """Forget what the loads and answers of one customer have taught."""
        for which, trust in enumerate(self._trust):
            if trust.forget_source(source):
                self._learn_factor(which, t_ns, LessonCause.TAKEN_BACK)
        self._relearn(self._weighings.forget_source(source), t_ns)

    def rename_customers(self, renamed: Callable[[str], str]) -> None:
        """Give customers other names; what they have taught stays."""
        for trust in self._trust:
            trust.rename_sources(renamed)

    def _relearn(self, since: dict[int, int], t_ns: int) -> None:
        """Undo the weights that were published after some versions (by product), and learn them from what is left."""
        for product, version in since.items():
            about = LessonKind.WEIGHT, self._gtins[product]
            made = [known for known in self.versions if (known.lesson.kind, known.lesson.subject) == about]
            self._undo([known for known in made if known.lesson.version > version], t_ns, LessonCause.TAKEN_BACK)
            # The numbers that hold now rest on none of the loads that came since then.
            self._weighings.restart(product, version, self.version)
            self._learn_weight(product, t_ns, LessonCause.TAKEN_BACK)

    def _undo(self, versions: list[Version], t_ns: int, cause: LessonCause) -> None:
        """Bring all numbers that some versions (oldest first) changed to where they were, as versions of their own."""
        cells: dict[tuple[str, int], list[Change]] = {}
        lesson_of: dict[tuple[str, int], Lesson] = {}
        for known in versions:
            for change in known.changes:
                cells.setdefault((change.array, change.at), []).append(change)
                lesson_of[change.array, change.at] = known.lesson
        about: dict[tuple[LessonKind, str], list[Change]] = {}
        lessons: dict[tuple[LessonKind, str], Lesson] = {}
        for cell, made in cells.items():
            lesson = lesson_of[cell]
            back = self._before(made)
            if back is not None:
                about.setdefault((lesson.kind, lesson.subject), []).append(self._change(*cell, back))
                lessons[lesson.kind, lesson.subject] = lesson
        for key, changes in about.items():
            lesson = lessons[key]
            counts = lesson.n_loads, lesson.n_answers, lesson.n_customers
            changes.sort(key=lambda change: change.array == "gain_var" or lesson.kind is not LessonKind.GAIN)
            changes.sort(key=lambda change: change.array not in ("weight_g", "factor"))
            self._publish(t_ns, *key, lesson.label, lesson.sd, cause, changes, counts)

    def _before(self, made: list[Change]) -> float | None:
        """What a number was before some changes of it; None for a variance that loads have moved since.

        A gain that loads have moved since keeps their part of the way.
        """
        now = float(getattr(self, made[0].array)[made[0].at])
        untouched = now == made[-1].after and all(b.before == a.after for a, b in zip(made, made[1:]))
        if untouched or made[0].array not in ("gain", "gain_var"):
            return made[0].before
        if made[0].array == "gain_var":
            return None
        for change in made:
            now *= change.before / change.after
        return min(max(now, 1.0 - GAIN_OFF_MAX), 1.0 + GAIN_OFF_MAX)

    # ---- rows for a file ---------------------------------------------------------------------------------------------

    def row(self) -> dict[str, Any]:
        """Everything that a new engine starts with, as JSON takes it."""
        return {
            "format": 1,
            "store": self._store_id,
            "version": self.version,
            "weights_g": {
                gtin: [float(self.label_g[i]), float(self.weight_g[i])]
                for i, gtin in enumerate(self._gtins)
                if self.weight_g[i] != self.label_g[i]
            },
            "gains": {
                plate: [float(self.gain[i]), float(self.gain_var[i])]
                for i, plate in enumerate(self._plates)
                if self.known_gains[i]
            },
            "factors": self.factor.tolist(),
            "lessons": [lesson.row() for lesson in sorted(self.latest.values(), key=lambda lesson: lesson.version)],
        }

    def restore(self, row: dict[str, Any]) -> None:
        """Start with what `row` returned, within the bounds; products whose label has changed start from it.

        Raises:
            ValueError: not such a row, or of another store.
        """
        try:
            if row["format"] != 1 or row["store"] != self._store_id:
                raise ValueError("want what this store has learnt")
            lessons = [Lesson.of_row(each) for each in row["lessons"]]
            own_gtins = OwnGtins(self._gtins)
            for gtin, (label_g, weight_g) in row["weights_g"].items():
                own = own_gtins.of(gtin)
                if own is not None and self.label_g[product := self._gtins.index(own)] == label_g:
                    least_g, most_g = label_g * np.exp([-WEIGHT_OFF_MAX, WEIGHT_OFF_MAX])
                    self.weight_g[product] = min(max(float(weight_g), least_g), most_g)
            for plate, (gain, var) in row["gains"].items():
                if plate in self._plates:
                    at = self._plates.index(plate)
                    self.gain[at] = min(max(float(gain), 1.0 - GAIN_OFF_MAX), 1.0 + GAIN_OFF_MAX)
                    self.gain_var[at] = min(max(float(var), 0.0), GAIN_VAR)
            self.factor[:] = np.clip(row["factors"], FACTOR_MIN, FACTOR_MAX)
            self._n_versions = int(row["version"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"want what this store has learnt, got {type(error).__name__}: {error}") from None
        self.latest = {(lesson.kind, lesson.subject): lesson for lesson in lessons}

