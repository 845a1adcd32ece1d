"""Changes of single plates to loads: neighbouring changes are joined where one load explains them best.

A row of n neighbouring changes can be cut into loads in 2^(n - 1) ways. The best cut is found by dynamic programming
from left to right, as in segmented regression (Bellman and Roth, JASA 64, 1969): with s(i, j) the log density of the
changes i .. j - 1 as one load, or as none,

    best(j) = max over i < j of  best(i) + s(i, j).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import goods as kernel
from fusion.goods.planogram import Identifications, Planogram, Rows
from fusion.goods.plates import PlateChange, PlateSamples
from fusion.goods.weighings import GAIN_SD

# Probability density, per gram, of a load that no known product explains.
UNKNOWN_PER_G = 1e-7
# Two neighbouring changes further apart than this are two loads, however well one load would explain them.
JOIN_MAX_S = 0.4
# Changes of plates up to this many places apart in a row may be of one load.
LOAD_REACH = 2
# A load whose plates are as before after a later load is undone: to this many standard deviations, these grams that
# every handling of a shelf leaves, and this share of the load.
UNDONE_SDS, UNDONE_SLACK_G, UNDONE_SHARE = 4.0, 4.0, 0.04
# Spread of the contact times of the plates that share one load: a piece tips over an edge within a tenth of a second.
SAME_LOAD_SD_S = 0.06
# A load that is put down or lifted in one grip rises from a quarter to three quarters within this time.
STEP_S = 0.15
# The edge of a step of this size is hard to see in the shaking of the hand that makes it.
SHAKE_G = 22.0
# Density per second of two loads of different people or hands that happen to be neighbours within JOIN_MAX_S.
COINCIDENCE_PER_S = 0.1
# Shares of loads that rest on one, two, three, four plates (235 labelled events: 117, 105, 11, 2).
SPREAD_PRIOR = (0.5, 0.44, 0.05, 0.01)
# A plate that bears this share of a load dates how long the load took to come or go.
RISE_SHARE = 0.75
# A load below this share of the lightest product is not one. Neither is one where more than AGAINST_SHARE of it moves
# the other way: goods that lean on each other push a neighbour up by a little.
LIGHTEST_SHARE, AGAINST_SHARE = 0.45, 0.1
# Cross-talk: a neighbour of a heavy step moves by up to 1.6 % of it, either way. Every shelf creeps a little.
CROSS_TALK_SHARE = 0.015
CREEP_G, CREEP_FAR = 2.0, 5.0
# The constants above in the order of the kernel's enum.
MODEL = np.array([
    math.log(COINCIDENCE_PER_S), SAME_LOAD_SD_S, STEP_S, SHAKE_G, *(math.log(share) for share in SPREAD_PRIOR),
    AGAINST_SHARE, LIGHTEST_SHARE, math.log(UNKNOWN_PER_G), CROSS_TALK_SHARE, CREEP_G, CREEP_FAR, UNDONE_SLACK_G,
])  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class ShelfEvent:
    """A load that came or went.

    Attributes:
        plates: (n,) int64 indices into store.plates, touching plates of one row, from left to right.
        onset_ns: when the plates began to move.
        contact_ns: when the load left or met the plates.
        settled_ns: end of the samples from which the change was measured.
        delta_g: (n,) float64 change per plate, negative where goods were taken.
        cov_g2: (n, n) float64 covariance of delta_g from noise alone; the uncertain gains of the plates come on top.
        silent: the plates were silent when it happened, so any time from onset to settled is possible.
        rise_s: from a quarter of the change to three quarters, on the plate that bears nearly all of it. NaN where no
            plate does, or in a silence. Two loads one after the other take longer than one.
        total_g, noise_g2: change of all plates together, and its variance from noise.
        share: (n,) float64 share of the load that each plate bears.
        main_plate: the plate that bears most of the load.
    """

    plates: NDArray[np.int64]
    onset_ns: int
    contact_ns: int
    settled_ns: int
    delta_g: NDArray[np.float64]
    cov_g2: NDArray[np.float64]
    silent: bool = False
    rise_s: float = math.nan

    # Computed once, since every stage asks for them.
    total_g: float = field(init=False, repr=False)
    noise_g2: float = field(init=False, repr=False)
    share: NDArray[np.float64] = field(init=False, repr=False)
    main_plate: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        size = np.abs(self.delta_g)
        if len(size) == 1:  # Most loads rest on one plate.
            object.__setattr__(self, "total_g", float(self.delta_g[0]))
            object.__setattr__(self, "noise_g2", float(self.cov_g2[0, 0]))
            object.__setattr__(self, "share", size / size)
            object.__setattr__(self, "main_plate", int(self.plates[0]))
            return
        object.__setattr__(self, "total_g", float(self.delta_g.sum()))
        object.__setattr__(self, "noise_g2", float(self.cov_g2.sum()))
        object.__setattr__(self, "share", size / float(size.sum()))
        object.__setattr__(self, "main_plate", int(self.plates[np.argmax(size)]))

    def undoes(self, other: ShelfEvent) -> bool:
        """Whether this load and another leave the plates that they share as they were."""
        if self.total_g * other.total_g >= 0.0 or set(self.plates.tolist()).isdisjoint(other.plates.tolist()):
            return False
        slack_g = UNDONE_SLACK_G + UNDONE_SDS * math.sqrt(self.noise_g2 + other.noise_g2)
        return abs(self.total_g + other.total_g) < slack_g + UNDONE_SHARE * abs(self.total_g)

    @classmethod
    def of(cls, load: list[PlateChange]) -> ShelfEvent:
        """The event of the changes that make one load, from left to right."""
        if len(load) == 1:  # Most of them.
            change = load[0]
            return cls(
                np.array([change.plate]), change.onset_ns, change.contact_ns, change.settled_ns,
                np.array([change.delta_g]), np.array([[change.var_g2]]), change.silent,
                math.nan if change.silent or change.rise_ns < 0 else change.rise_ns * 1e-9,
            )  # fmt: skip
        deltas = np.array([change.delta_g for change in load])
        # The plates that were not silent know when it was.
        heard = [change for change in load if not change.silent] or load
        heaviest = max(load, key=lambda change: abs(change.delta_g))
        contact_ns = heard[0].contact_ns
        if len(heard) > 1:
            # By how well each plate dates it: a second hand may press on one of them while it moves, and the edge of a
            # small change is lost in the shaking.
            weight = np.array([kernel.contact_sd_s(change, MODEL) ** -2.0 for change in heard])
            since_origin_ns = np.array([change.contact_ns - contact_ns for change in heard])
            contact_ns += int(weight @ since_origin_ns / weight.sum())
        is_known = not heaviest.silent and heaviest.rise_ns >= 0
        dated = is_known and abs(heaviest.delta_g) > RISE_SHARE * sum(abs(change.delta_g) for change in load)
        return cls(
            _plates(load),
            min(change.onset_ns for change in heard),
            contact_ns,
            max(change.settled_ns for change in heard),
            deltas,
            np.diag([change.var_g2 for change in load]),
            all(change.silent for change in load),
            heaviest.rise_ns * 1e-9 if dated else math.nan,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """Neighbouring changes, cut into loads.

    Attributes:
        log_density: of the changes, cut like this.
        loads: the changes of each load, in time order.
        nothing: changes that are no load: creep, or cross-talk of the others.
    """

    log_density: float = 0.0
    loads: list[list[PlateChange]] = field(default_factory=list)
    nothing: list[PlateChange] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """A stretch of a row of changes, as loads or as nothing, and the log density of that."""

    log_density: float
    loads: list[list[PlateChange]]


class LoadFinder:
    """Cuts rows of changes into loads by what the goods of a planogram weigh."""

    def __init__(self, planogram: Planogram) -> None:
        self._planogram = planogram
        # Answers of this step: each is asked for in several ways.
        self._found: dict[tuple[bytes, bytes, float], Identifications] = {}

    @property
    def rows(self) -> Rows:
        """Which plates stand side by side."""
        return self._planogram.rows

    def forget(self) -> None:
        """Forget what loads may be: goods may have moved since."""
        self._found.clear()

    def _identified(self, load: list[PlateChange]) -> Identifications:
        deltas_g = np.array([change.delta_g for change in load])
        return self._identify(_plates(load), deltas_g, sum(change.var_g2 for change in load))

    def _identify(self, plates: NDArray[np.int64], delta_g: NDArray[np.float64], noise_g2: float) -> Identifications:
        """What a load may be, the most probable; kept until `forget`, since it is asked in several ways."""
        key = plates.tobytes(), delta_g.tobytes(), noise_g2
        found = self._found.get(key)
        if found is None:
            limit = kernel.LOAD_IDENTIFIED_MAX
            found = self._found[key] = self._planogram.identify(plates, delta_g, noise_g2, limit)
        return found

    # ---- which changes belong together -------------------------------------------------------------------------------

    def groups(self, changes: list[PlateChange]) -> list[list[PlateChange]]:
        """Changes, grouped where they are neighbours in place and time."""
        groups: list[list[PlateChange]] = []
        for change in changes:
            joined = [group for group in groups if any(self._linked(change, member) for member in group)]
            merged = [change, *(member for group in joined for member in group)]
            groups = [group for group in groups if all(group is not absorbed for absorbed in joined)]
            groups.append(merged)
        return groups

    def _linked(self, a: PlateChange, b: PlateChange) -> bool:
        if b.plate not in self._planogram.rows.near(a.plate, LOAD_REACH):
            return False
        overlap = a.onset_ns <= b.settled_ns and b.onset_ns <= a.settled_ns
        apart_s = abs(a.contact_ns - b.contact_ns) * 1e-9
        unsure_s = 2.5 * math.hypot(kernel.contact_sd_s(a, MODEL), kernel.contact_sd_s(b, MODEL))
        return (overlap and (a.silent or b.silent or apart_s < unsure_s)) or apart_s < JOIN_MAX_S

    def parts(self, group: list[PlateChange]) -> list[list[PlateChange]]:
        """Cut a group of changes in time until every plate changes at most once in each part.

        A change in a silence belongs to the part whose changes it explains best, or is a part of its own.
        """
        group = _without_cross_talk(group)
        silent = [change for change in group if change.silent]
        parts = in_order([change for change in group if not change.silent])
        if len(parts) < 2 or len({change.plate for change in silent}) < len(silent):
            return in_order(group)
        for change in silent:
            near = [part for part in parts if all(change.plate != member.plate for member in part)]
            gains = [self._log_joined(part, change) for part in near]
            best = max(range(len(near)), key=lambda i: gains[i], default=None)
            if best is not None and gains[best] > self.partition([change]).log_density:
                near[best].append(change)
            else:
                parts.append([change])
        return parts

    def _log_joined(self, part: list[PlateChange], change: PlateChange) -> float:
        """How much likelier a part is together with another change."""
        return self.partition([*part, change]).log_density - self.partition(part).log_density

    def partition(self, group: list[PlateChange]) -> Partition:
        """Cut neighbouring changes into the loads that explain them best.

        Every cut is scored. Each piece of it is either one load (its weight, its place, how its plates agree in time)
        or nothing (creep, or cross-talk of the others).
        """
        if not group:
            return Partition()
        group = sorted(group, key=lambda change: int(self._planogram.rows.place[change.plate]))
        best = self._cut(group, sharing=False)
        # Two pieces that share a plate are rare and expensive to look for, so only groups that are odd otherwise are
        # searched for them.
        if len(group) > 1 and not all(self.is_plain(load) for load in best.loads):
            best = self._cut(group, sharing=True)
        in_order = sorted(best.loads, key=lambda load: min(change.contact_ns for change in load))
        return Partition(best.log_density, in_order, best.nothing)

    def _cut(self, group: list[PlateChange], sharing: bool) -> Partition:
        """The best cut of a row of changes, from left to right. sharing: two loads may share one plate."""
        rows = self._planogram.rows
        n = len(group)
        heaviest_g = max(abs(change.delta_g) for change in group)
        best_score = [0.0] + [-math.inf] * n
        best_loads: list[list[list[PlateChange]]] = [[] for _ in range(n + 1)]
        best_start = [0] * (n + 1)
        for stop in range(1, n + 1):
            # A load rests on at most four plates; a longer search would only find worse cuts.
            for start in range(stop - 1, max(stop - 5, -1), -1):
                part = group[start:stop]
                if any(rows.place[b.plate] - rows.place[a.plate] > 1 for a, b in pairwise(part)):
                    break
                pieces = [_Piece(self.log_load(part), [part])]
                if stop - start == 1:
                    pieces.append(_Piece(log_nothing(part[0].delta_g, part[0].var_g2, heaviest_g), []))
                elif sharing:
                    pieces.append(self._shared_plate(part))
                for piece in pieces:
                    score = best_score[start] + piece.log_density
                    if score > best_score[stop]:
                        best_score[stop], best_start[stop], best_loads[stop] = score, start, piece.loads
        loads: list[list[PlateChange]] = []
        nothing = []
        stop = n
        while stop > 0:
            loads += best_loads[stop]
            if not best_loads[stop]:
                nothing.append(group[best_start[stop]])
            stop = best_start[stop]
        return Partition(best_score[n], loads, nothing)

    def is_plain(self, load: list[PlateChange]) -> bool:
        """Whether a load is one piece of what lies there."""
        found = self._identified(load)
        return bool(len(found.product) and abs(found.quantity[0]) == 1 and found.log_place[0] > math.log(0.1))

    def is_usual(self, load: list[PlateChange], pieces_max: int = 1) -> bool:
        """Whether a load is one piece of what lies there, or so many, and weighs what that does."""
        found = self._identified(load)
        if not len(found.product) or abs(found.quantity[0]) > pieces_max or found.log_place[0] < math.log(0.1):
            return False
        expected_g = abs(int(found.quantity[0])) * float(self._planogram.weight_g[found.product[0]])
        off_g = abs(abs(sum(change.delta_g for change in load)) - expected_g)
        noise_g2 = sum(change.var_g2 for change in load)
        return bool(off_g < 2.0 * (math.sqrt(noise_g2) + GAIN_SD * expected_g))

    def usual_g(self, plate: int, pieces_max: int) -> list[float]:
        """What a plate shows for up to so many pieces of each product that lies or belongs there."""
        planogram = self._planogram
        there = planogram.planned[plate] | (planogram.stock[plate] > 0.5)
        weight_g = np.unique(planogram.weight_g[there]) * planogram.gain[plate]
        return [pieces * grams for grams in weight_g.tolist() for pieces in range(1, pieces_max + 1)]

    def _shared_plate(self, load: list[PlateChange]) -> _Piece:
        """The best two pieces of goods that share one of the plates; of density zero where none do."""
        planogram = self._planogram
        deltas = [change.delta_g for change in load]
        sign = math.copysign(1.0, sum(deltas))
        best = _Piece(-math.inf, [])
        if any(delta * sign < 0 for delta in deltas):
            return best
        near = (planogram.stock[_plates(load)] > 0.5).any(axis=0) | planogram.planned[_plates(load)].any(axis=0)
        for at, change in enumerate(load):
            left_g = sum(abs(delta) for delta in deltas[:at])
            for product in np.flatnonzero(near).tolist():
                weight_g = float(planogram.weight_g[product])
                part_g = weight_g - left_g
                if not 0.05 * abs(change.delta_g) < part_g < 0.95 * abs(change.delta_g):
                    continue
                before = load[at - 1] if at else change
                after = load[at + 1] if at + 1 < len(load) else change
                first = change.but(delta_g=sign * part_g, contact_ns=before.contact_ns, shaky=False)
                second = first.but(delta_g=change.delta_g - sign * part_g, contact_ns=after.contact_ns)
                second.before_g = change.before_g + sign * part_g
                left, right = [*load[:at], first], [second, *load[at + 1 :]]
                # How the shared plate divides between them is not measured, so only the sum counts as evidence.
                sd_g = math.hypot(planogram.weight_sd_g[product], GAIN_SD * weight_g)
                score = self.log_load(left) + self.log_load(right)
                score += math.log(sd_g * math.sqrt(2 * math.pi)) - math.log(len(load) * abs(change.delta_g))
                if score > best.log_density:
                    best = _Piece(score, [left, right])
        return best

    def log_load(self, part: list[PlateChange]) -> float:
        """Log density of the changes, from left to right, as one load on these plates."""
        return kernel.log_load(self._planogram.arrays, self._planogram.lightest_g, MODEL, part)

    def divide(
        self, samples: PlateSamples, hands: NDArray[np.float64], steps: list[PlateChange]
    ) -> tuple[float, list[tuple[tuple[int, ...], float, list[PlateChange]]]]:
        """Divide steps, in the order of their contacts, into the loads and hands that explain them best.

        Args:
            samples: of all plates.
            hands: the model of hands.
            steps: of neighbouring plates.

        Returns:
            The log density of the steps, divided like this. Then of each block the indices of its steps, its log
            density, and its load, a change for each plate from left to right; empty where it is a hand.
        """
        return kernel.divide(self._planogram.arrays, self._planogram.lightest_g, samples, MODEL, hands, steps)

    def weigh_block(
        self, samples: PlateSamples, hands: NDArray[np.float64], steps: list[PlateChange], block: tuple[int, ...]
    ) -> tuple[float, list[PlateChange]]:
        """Log density and load of some of the steps (indices, in the order of their contacts); see `divide`."""
        arrays, lightest_g = self._planogram.arrays, self._planogram.lightest_g
        return kernel.weigh_block(arrays, lightest_g, samples, MODEL, hands, steps, block)

    def parts_beside(self, shared: PlateChange, beside: PlateChange) -> list[float]:
        """The grams of a change that would make the change beside it one piece of what lies there."""
        planogram, plates = self._planogram, [shared.plate, beside.plate]
        near = (planogram.stock[plates] > 0.5).any(axis=0) | planogram.planned[plates].any(axis=0)
        weight_g, beside_g = np.unique(planogram.weight_g[near]), abs(beside.delta_g)
        # Where both changes are two pieces, these are off by the same factor.
        factor = (beside_g + abs(shared.delta_g)) / (weight_g[:, None] + weight_g[None])
        two = np.argwhere(np.abs(factor - 1.0) < 3.0 * GAIN_SD)
        parts_g = np.concatenate([
            weight_g * planogram.gain[beside.plate] - beside_g,
            factor[two[:, 0], two[:, 1]] * weight_g[two[:, 0]] - beside_g,
        ])  # fmt: skip
        share = parts_g / abs(shared.delta_g)
        same = beside.delta_g * shared.delta_g > 0.0
        found: list[float] = (math.copysign(1.0, beside.delta_g) * parts_g[(share > 0.05) & (share < 0.95)]).tolist()
        return found if same else []

    def weigh_small(self, change: PlateChange, heaviest_g: float) -> None:
        """Weigh a change that is no load against the hypotheses that its plate reads too little."""
        log_creep = log_nothing(change.delta_g, change.var_g2, heaviest_g)
        factors = self._planogram.factors
        factors.observe_small(self._planogram, change.plate, change.delta_g, change.var_g2, log_creep)

    # ---- what a load may be ------------------------------------------------------------------------------------------

    def is_planned(self, event: ShelfEvent) -> bool:
        """Whether a load that came is pieces of a product that belongs there: restocking, or a put-back."""
        planogram = self._planogram
        found = self._identify(event.plates, event.delta_g, event.noise_g2)
        if not len(found.product) or found.log_place[0] < math.log(0.05):
            return False
        expected_g = abs(int(found.quantity[0])) * planogram.weight_g[found.product[0]]
        return bool(abs(abs(event.total_g) - expected_g) < 3.0 * GAIN_SD * expected_g)

    def is_explained(self, event: ShelfEvent, pieces_max: int = 1000) -> bool:
        """Whether some product suits a load well: one that lies there, or one that was taken and not put back."""
        planogram = self._planogram
        found = self._identify(event.plates, event.delta_g, event.noise_g2)
        load_g = abs(event.total_g)
        for product, quantity, place in zip(found.product.tolist(), found.quantity.tolist(), found.log_place.tolist()):
            if abs(quantity) > pieces_max:
                continue
            expected_g = abs(quantity) * planogram.weight_g[product]
            sd_g = math.sqrt(event.noise_g2 + quantity**2 * planogram.weight_sd_g[product] ** 2)
            if abs(load_g - expected_g) > 3.0 * sd_g + 2.0 * GAIN_SD * expected_g:
                continue
            if quantity < 0 and place > math.log(0.05):
                return True
            if quantity > 0 and planogram.away[product] > 0.8 * quantity:
                return True
        return False


def _without_cross_talk(group: list[PlateChange]) -> list[PlateChange]:
    """A group in which the cross-talk of several loads in one silence is one change, as the loads are."""
    heaviest = max(group, key=lambda change: abs(change.delta_g))
    if not heaviest.silent:
        return group
    by_plate: dict[int, list[PlateChange]] = {}
    for change in group:
        by_plate.setdefault(change.plate, []).append(change)
    merged = []
    for changes in by_plate.values():
        first = changes[0]
        delta_g = sum(change.delta_g for change in changes)
        within = all(heaviest.onset_ns <= change.contact_ns <= heaviest.settled_ns for change in changes)
        if len(changes) > 1 and within and abs(delta_g) < 2.0 * CROSS_TALK_SHARE * abs(heaviest.delta_g):
            last = changes[-1]
            var_g2 = sum(change.var_g2 for change in changes)
            merged.append(first.but(delta_g=delta_g, var_g2=var_g2, settled_ns=last.settled_ns, shaky=last.shaky))
        else:
            merged += changes
    return merged


def in_order(group: list[PlateChange]) -> list[list[PlateChange]]:
    """Cut a group of changes in time until every plate changes at most once in each part."""
    plates = [change.plate for change in group]
    if len(set(plates)) == len(plates):
        return [group] if group else []
    group = sorted(group, key=lambda change: change.contact_ns)
    twice = {plate for plate, count in Counter(plates).items() if count > 1}
    # The widest pause between the first two changes of a plate that moved twice.
    first = next(i for i, change in enumerate(group) if change.plate in twice)
    second = next(i for i in range(first + 1, len(group)) if group[i].plate == group[first].plate)
    cut = max(range(first + 1, second + 1), key=lambda i: group[i].contact_ns - group[i - 1].contact_ns)
    return [*in_order(group[:cut]), *in_order(group[cut:])]


def log_nothing(delta_g: float, var_g2: float, heaviest_g: float) -> float:
    """Log density of a plate's change as creep, or as cross-talk of a heavier step beside it.

    Cross-talk and noise end where they end; only creep has a tail, and does not go further than CREEP_FAR scales (294
    plates of a real shop, half a minute: 19 g at most, one in a thousand 6.6 g). A change that fits no product is
    reported as such, and not forgotten.
    """
    return kernel.log_nothing(delta_g, var_g2, heaviest_g, MODEL)


def _plates(part: list[PlateChange]) -> NDArray[np.int64]:
    return np.array([change.plate for change in part], np.int64)
