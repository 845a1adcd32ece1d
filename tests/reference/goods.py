"""NumPy twin of the goods' kernels: what a load may be, its candidates, wrong multiples."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.goods import candidates as constants
from fusion.goods import factors as multiples
from fusion.goods import planogram as places
from fusion.goods import weighings
from fusion.goods.factors import ScaleFactors
from fusion.goods.hands import Actors, HandRatio
from fusion.goods.hypotheses import CandidateTable
from fusion.goods.learnt import GAIN_OFF_MAX, REFUSED_SDS, Learnt
from fusion.goods.loads import ShelfEvent
from fusion.goods.planogram import Identifications, Planogram
from fusion.people.arms import ArmHistory

CANDIDATES_MAX = 48


class Mixture(NamedTuple):
    """Two pieces of different products that weigh a load together, and the log density per gram of that weight."""

    first: int
    second: int
    log_likelihood: float


class Gain(NamedTuple):
    """Gain of a load that rests on several plates (grams reported per gram of load), and its variance."""

    mean: float
    variance: float


def identify(
    planogram: Planogram,
    plates: NDArray[np.int64],
    delta_g: NDArray[np.float64],
    noise_g2: float,
    limit: int = 12,
    log_prior: NDArray[np.float64] | None = None,
) -> Identifications:
    """As `Planogram.identify`."""
    total = float(delta_g.sum())
    load = abs(total)
    n_products = len(planogram.weight_g)
    if not n_products:
        empty = np.zeros(0)
        return Identifications(empty.astype(np.int64), empty.astype(np.int64), empty, empty, empty)
    nearest = np.maximum(np.rint(load / planogram.weight_g), 1.0)
    pieces = np.stack([np.maximum(nearest - 1.0, 1.0), nearest, nearest + 1.0])
    share = np.abs(delta_g) / max(np.abs(delta_g).sum(), 1e-9)
    gain = _gain(planogram, plates, share)
    expected = pieces * planogram.weight_g * gain.mean
    variance = noise_g2 + pieces * planogram.weight_sd_g**2 + expected**2 * gain.variance
    log_likelihood = _log_density(load - expected, variance)
    # One piece, a small part of which rests on a neighbouring plate and does not show there.
    missing_g = expected - load
    partly = (pieces == 1.0) & (missing_g > places.HIDDEN_SHARE_MIN * expected) & (missing_g < places.HIDDEN_MAX_G)
    hidden = np.where(partly, places.HIDDEN_PROBABILITY / (0.5 * expected), 0.0)
    log_likelihood = np.log(np.exp(log_likelihood) + hidden)
    log_likelihood[0, nearest == 1.0] = -np.inf  # A duplicate of the row below it.
    if log_prior is None:
        log_prior = log_prior_of_place(planogram, plates, delta_g)
    log_place = np.broadcast_to(log_prior, pieces.shape)
    table = np.log(places.QUANTITY_PRIOR)
    extra = np.maximum(pieces - len(places.QUANTITY_PRIOR), 0.0)
    log_quantity = table[np.minimum(pieces, len(places.QUANTITY_PRIOR)).astype(np.int64) - 1]
    log_quantity = log_quantity + extra * math.log(places.QUANTITY_DECAY)
    score = (log_likelihood + log_place + log_quantity).ravel()
    best = np.argsort(-score, kind="stable")[:limit]
    best = best[score[best] > score[best[0]] - places.LOG_SPREAD]
    sign = -1 if total < 0 else 1
    return Identifications(
        best % n_products,
        sign * pieces.ravel()[best].astype(np.int64),
        log_likelihood.ravel()[best],
        log_place.ravel()[best],
        log_quantity.ravel()[best],
    )


def _gain(planogram: Planogram, plates: NDArray[np.int64], share: NDArray[np.float64]) -> Gain:
    """The gain of plates for a load of which each bears a share; plates, share (n,)."""
    mean = float(share @ planogram.gain[plates])
    return Gain(mean, float(share**2 @ (planogram.gain_var[plates] + places.PLACE_GAIN_SD**2)))


def mixtures(
    planogram: Planogram, plates: NDArray[np.int64], delta_g: NDArray[np.float64], noise_g2: float
) -> list[Mixture]:
    """Pairs of different products that lie on these plates and weigh the load together; arguments as `identify`."""
    share = np.abs(delta_g) / max(float(np.abs(delta_g).sum()), 1e-9)
    present = planogram.planned[plates] | (planogram.stock[plates] > 0.5)
    products = np.flatnonzero(present.any(axis=0))
    if len(products) < 2:
        return []
    a, b = np.triu_indices(len(products), 1)
    a, b = products[a], products[b]
    gain = _gain(planogram, plates, share)
    expected = (planogram.weight_g[a] + planogram.weight_g[b]) * gain.mean
    variance = noise_g2 + planogram.weight_sd_g[a] ** 2 + planogram.weight_sd_g[b] ** 2
    variance = variance + expected**2 * gain.variance
    log_likelihood = _log_density(abs(float(delta_g.sum())) - expected, variance)
    found = np.flatnonzero(log_likelihood > places.MIXTURE_LOG_MIN)
    return [Mixture(int(a[i]), int(b[i]), float(log_likelihood[i])) for i in found.tolist()]


def log_prior_of_place(
    planogram: Planogram, plates: NDArray[np.int64], delta_g: NDArray[np.float64], taken: bool | None = None
) -> NDArray[np.float64]:
    """(n_products,) log prior of the product of a load with its middle there; arguments as in `identify`.

    taken: whether it left; None: as the load as a whole did.
    """
    rows = planogram.rows
    share = np.abs(delta_g) / max(float(np.abs(delta_g).sum()), 1e-9)
    taken = float(delta_g.sum()) < 0 if taken is None else taken
    middle_m = float(share @ rows.along_m[plates])
    members = np.array(rows.members[rows.row[plates[0]]])
    offset = np.abs(rows.along_m[members] - middle_m) / rows.width_m[members]
    near = members[offset < 2.0]
    beyond = np.maximum(offset[offset < 2.0] - places.OFF_CENTRE_WIDTHS, 0.0)
    closeness = np.exp(-0.5 * (beyond / places.OFF_CENTRE_SD_WIDTHS) ** 2)
    # A take needs a piece to be there, as far as counts can be trusted. A put-back goes where the product belongs,
    # even if the place is empty.
    planned_there = planogram.planned[near] * (places.COUNT_WRONG if taken else 1.0)
    present = np.maximum(np.minimum(planogram.stock[near], 1.0), planned_there)
    planned = closeness @ present
    in_row = (planogram.planned[members] | (planogram.stock[members] > 0.5)).any(axis=0)
    planned = places.PLANNED_PRIOR * planned
    log_prior: NDArray[np.float64] = np.log(planned + places.ROW_PRIOR * in_row + places.STORE_PRIOR)
    return log_prior


def _log_density(error_g: NDArray[np.float64], variance_g2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log density, per gram, of the error of a measured load: normal, with a wider normal tail."""
    distance_sq = error_g**2 / variance_g2
    density = (1.0 - places.TAIL_SHARE) * np.exp(-0.5 * distance_sq)
    density = density + places.TAIL_SHARE / places.TAIL_SD_RATIO * np.exp(-0.5 * distance_sq / places.TAIL_SD_RATIO**2)
    log_density: NDArray[np.float64] = np.log(density / np.sqrt(2.0 * np.pi * variance_g2) + 1e-300)
    return log_density


class _Seen(NamedTuple):
    """Log likelihood of what classifiers saw, given each product (n_products,), and given anything else."""

    of_product: NDArray[np.float64]
    of_nothing: float


class _Split(NamedTuple):
    """A load as two parts; the second moved before the plates had settled after the first.

    Attributes:
        products, quantities: of the parts.
        log_prior: log prior times likelihood, without the people.
        log_likelihood: of the weight alone.
        log_one, log_two: log priors that one person, or two, move two such parts in one load.
    """

    products: tuple[int, int]
    quantities: tuple[int, int]
    log_prior: float
    log_likelihood: float
    log_one: float = constants.LOG_BOTH_HANDS
    log_two: float = constants.LOG_SAME_TIME


class _Shared(NamedTuple):
    """A candidate with two parts."""

    owners: tuple[int, int]
    products: tuple[int, int]
    quantities: tuple[int, int]
    log_candidate: float
    log_weight: float


@dataclass(frozen=True, slots=True)
class _Rise:
    """Density of the time that a load took to come or go, given what moved it.

    Attributes:
        of_nothing: a hand that leans, which comes and goes about as fast as a piece.
        of_one: one piece in one grip.
        of_many: several pieces in one grip.
        of_both_hands: two grips of one person.
        of_two: grips of two people.
    """

    of_nothing: float
    of_one: float
    of_many: float
    of_both_hands: float
    of_two: float

    @classmethod
    def of(cls, event: ShelfEvent) -> _Rise:
        """The densities of an event; without influence where its rise is unknown."""
        if math.isnan(event.rise_s):
            return cls(1.0, 1.0, 1.0, 1.0, 1.0)
        rise_s = max(event.rise_s, 0.0)
        tail = min(constants.RISE_TAIL + constants.RISE_TAIL_G / float(np.abs(event.delta_g).sum()), 0.5)
        peak = math.exp(-0.5 * ((rise_s - constants.RISE_S) / constants.RISE_SD_S) ** 2)
        one = (1.0 - tail - constants.RISE_HELD) * peak / (constants.RISE_SD_S * math.sqrt(2.0 * math.pi))
        one += tail * math.exp(-rise_s / constants.RISE_TAIL_S) / constants.RISE_TAIL_S
        one += constants.RISE_HELD * math.exp(-rise_s / constants.RISE_HELD_S) / constants.RISE_HELD_S
        two = math.exp(-rise_s / constants.APART_S) / constants.APART_S
        of_nothing = constants.LEANS_LIKE_GRIP * one + (1.0 - constants.LEANS_LIKE_GRIP) * two
        many = (1.0 - constants.REGRIP) * one + constants.REGRIP * two
        return cls(of_nothing, one, many, (1.0 - constants.BOTH_AT_ONCE) * two + constants.BOTH_AT_ONCE * one, two)


class Proposal(NamedTuple):
    """The candidates of an event, best first; the last one is that nothing moved."""

    table: CandidateTable
    log_candidate: NDArray[np.float64]
    log_weight: NDArray[np.float64]


class CandidateFinder:
    """Finds the candidates of shelf events, given what was sighted."""

    def __init__(self, planogram: Planogram, hands: Any, sightings: Any = ()) -> None:
        self._planogram, self._hands, self._sightings = planogram, hands, sightings

    def propose(
        self,
        event: ShelfEvent,
        actors: Actors,
        history: ArmHistory,
        held: NDArray[np.float64] | None,
        cart_of: Callable[[int], int],
        staff: Collection[int] = (),
    ) -> Proposal:
        """As the engine's own."""
        if event.total_g < 0:
            found = self._taken(event)
            log_place = found.log_place
        else:
            found, log_place = self._put(event, held)
        seen = self._seen(event)
        log_place = log_place + seen.of_product[found.product]
        log_stocked = self._log_stocked(event, found) + seen.of_product[found.product]
        splits = self._splits(event, found, log_place, seen) if event.total_g < 0 else []
        asks = bool(splits)
        if held is not None:
            splits += self._exchanges(event, found, log_place, held, seen)
        if len(actors.owner) > 2:
            splits += self._by_turns(event, found, log_place, held, seen)
            if event.total_g > 0.0:
                splits += self._both_put(event, found, log_place, held, seen)
        shared = self._shared(event, actors, splits, history, asks or len(actors.owner) > 2)
        log_goods = np.stack([
            log_stocked if person in staff else log_place + found.log_quantity for person in actors.owner.tolist()
        ])  # fmt: skip
        return self._table(event, actors, found, log_goods, self._log_nothing(event) + seen.of_nothing, shared, cart_of)

    # ---- products and quantities -------------------------------------------------------------------------------------

    def _belongs(self, event: ShelfEvent) -> NDArray[np.float64]:
        """(n_products,) whether each belongs where most of the load rested, from 0 to 1."""
        least, most = constants.MAIN_SHARE
        share: NDArray[np.float64] = event.share @ self._planogram.planned[event.plates]
        return np.clip((share - least) / (most - least), 0.0, 1.0)

    def _log_taken(self, event: ShelfEvent) -> NDArray[np.float64]:
        """(n_products,) log prior of each as what left, by where most of the load rested."""
        log_place = log_prior_of_place(self._planogram, event.plates, event.delta_g, taken=True)
        belongs = self._belongs(event)
        log_taken: NDArray[np.float64]
        log_taken = log_place + np.log(constants.ODD_TAKEN + (1.0 - constants.ODD_TAKEN) * belongs)
        return log_taken

    def _taken(self, event: ShelfEvent) -> Identifications:
        """What may have left."""
        log_prior = self._log_taken(event)
        return identify(self._planogram, event.plates, event.delta_g, event.noise_g2, log_prior=log_prior)

    def _log_put(self, event: ShelfEvent) -> NDArray[np.float64]:
        """(n_products,) log prior of each as what was put back here."""
        place = np.exp(log_prior_of_place(self._planogram, event.plates, event.delta_g, taken=False))
        log_put: NDArray[np.float64]
        log_put = np.log(constants.PLACED_RIGHT * np.minimum(place, 1.0) + constants.PLACED_ELSEWHERE)
        return log_put

    def _log_stocked(self, event: ShelfEvent, found: Identifications) -> NDArray[np.float64]:
        """Log prior of each identification as what an employee put here, or took."""
        if event.total_g < 0:
            return log_prior_of_place(self._planogram, event.plates, event.delta_g)[found.product] + found.log_quantity
        return self._log_filled(self._belongs(event)[found.product], found.log_quantity)

    @staticmethod
    def _log_filled(belongs: NDArray[np.float64], log_quantity: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log prior of pieces as what an employee put here, by how far they belong here."""
        right = constants.STOCKED_RIGHT * belongs * constants.STOCKED_PIECES
        log_filled: NDArray[np.float64] = np.log(right + constants.STOCKED_ELSEWHERE * np.exp(log_quantity))
        return log_filled

    def _put(
        self, event: ShelfEvent, held: NDArray[np.float64] | None
    ) -> tuple[Identifications, NDArray[np.float64]]:
        """What may have come, and the log prior of each with its place."""
        planogram, log_put = self._planogram, self._log_put(event)
        # Products that no cart near holds must not crowd out the products that one does hold.
        log_held = np.zeros(len(log_put)) if held is None else np.where(held > 1e-4, 0.0, constants.LOG_BROUGHT)
        found = identify(planogram, event.plates, event.delta_g, event.noise_g2, log_prior=log_put + log_held)
        return found, log_put[found.product]

    def _seen(self, event: ShelfEvent) -> _Seen:
        """What classifiers saw at the plates about the time of an event.

        They are right as often as they claim; otherwise they name any other product. A hand that moves nothing looks to
        them like a hand with another product.
        """
        of_product, of_nothing = np.zeros(len(self._planogram.gtins)), 0.0
        others = max(len(of_product) - 1, 1)
        for sighting in self._sightings:
            if sighting.plate in event.plates and abs(sighting.t_ns - event.contact_ns) < constants.SEEN_WITHIN_S * 1e9:
                p = min(max(sighting.probability, constants.SIGHTING_FLOOR), 1.0 - constants.SIGHTING_FLOOR)
                log_wrong = math.log((1.0 - p) / others)
                of_product += log_wrong
                of_product[sighting.product] += math.log(p) - log_wrong
                of_nothing += log_wrong
        return _Seen(of_product, of_nothing)

    @staticmethod
    def _log_nothing(event: ShelfEvent) -> float:
        log_nothing = constants.LOG_NOTHING_WENT if event.total_g < 0 else constants.LOG_NOTHING_CAME
        return log_nothing - abs(event.total_g) / constants.NOTHING_SCALE_G

    # ---- loads of two parts ------------------------------------------------------------------------------------------

    def _splits(
        self, event: ShelfEvent, found: Identifications, log_place: NDArray[np.float64], seen: _Seen
    ) -> list[_Split]:
        """Ways in which a load may be two parts: pieces of one product, or one piece each of two."""
        if not len(found.product):
            return []
        log_one, log_two = math.log(places.QUANTITY_PRIOR[0]), math.log(places.QUANTITY_PRIOR[1])
        splits = []
        for i in range(len(found.product)):
            pieces, product = -int(found.quantity[i]), int(found.product[i])
            log_likelihood = float(found.log_likelihood[i])
            for first in range(1, pieces) if pieces <= constants.SHARED_PIECES_MAX else ():
                log_grips = sum(log_one if n == 1 else log_two for n in (first, pieces - first))
                log_prior = float(found.log_likelihood[i] + log_place[i]) + log_grips
                splits.append(_Split((product, product), (-first, first - pieces), log_prior, log_likelihood))
        for x, y, log_likelihood in mixtures(self._planogram, event.plates, event.delta_g, event.noise_g2):
            log_seen = max(float(seen.of_product[x]), float(seen.of_product[y]))
            log_prior = log_likelihood + 2.0 * log_one + log_seen
            splits.append(_Split((x, y), (-1, -1), log_prior, log_likelihood))
            splits.append(_Split((y, x), (-1, -1), log_prior, log_likelihood))
        # No hand evidence can outweigh a weight that is this much less likely than the best single identification.
        least = float((found.log_likelihood + log_place + found.log_quantity).max()) - constants.LOG_SHARED_SPREAD
        return [split for split in splits if split.log_prior > least]

    def _exchanges(
        self, event: ShelfEvent, found: Identifications, log_place: NDArray[np.float64], held: NDArray[np.float64],
        seen: _Seen,
    ) -> list[_Split]:
        """Ways in which a load may be goods that were taken and others that were put back, or two that were put."""
        planogram, both = self._planogram, constants.LOG_SAME_TIME + constants.LOG_TWO_WAYS
        log_taken, log_put = self._log_taken(event), self._log_put(event)
        log_one, log_two = math.log(places.QUANTITY_PRIOR[0]), math.log(places.QUANTITY_PRIOR[1])
        log_stay = 0.0 if self._hands.is_behind_door(event.main_plate) else constants.LOG_IN_THE_OPEN
        there = (planogram.planned[event.plates] | (planogram.stock[event.plates] > 0.5)).any(axis=0)
        kinds: list[tuple[int, int, int, int, float, float]] = []
        for put in np.flatnonzero(held > 1e-4).tolist():
            for other in range(len(held)):
                if other > put and held[other] > 1e-4 and event.total_g > 0.0:
                    log_prior = 2.0 * log_one + max(float(log_put[put]), float(log_put[other]))
                    kinds.append((put, 1, other, 1, log_prior, constants.LOG_TWO_PUT + log_stay))
                for taken, pieces in ((1, 1), (1, 2), (2, 1), (2, 2)) if other != put and there[other] else ():
                    if pieces == 1 or held[put] >= pieces - 0.5:
                        log_grips = sum(log_one if n == 1 else log_two for n in (taken, pieces))
                        log_prior = float(log_taken[other]) + log_grips
                        kinds.append((other, -taken, put, pieces, log_prior, constants.LOG_EXCHANGE + log_stay))
        log_single = found.log_likelihood + log_place + found.log_quantity
        least = float(log_single.max()) if len(found.product) else -math.inf
        splits = []
        for a, n_a, b, n_b, log_kind, log_of_one in kinds:
            log_likelihood = self._log_weighs(event, (a, b), (n_a, n_b))
            log_prior = log_likelihood + log_kind + max(float(seen.of_product[a]), float(seen.of_product[b]))
            if log_prior + log_of_one > least - constants.LOG_SHARED_SPREAD:
                splits.append(_Split((a, b), (n_a, n_b), log_prior, log_likelihood, log_of_one, both))
                splits.append(_Split((b, a), (n_b, n_a), log_prior, log_likelihood, log_of_one, both))
        return splits

    def _by_turns(
        self, event: ShelfEvent, found: Identifications, log_place: NDArray[np.float64],
        held: NDArray[np.float64] | None, seen: _Seen,
    ) -> list[_Split]:
        """Ways in which a load may be pieces of one product that one person put here and another took."""
        planogram, both = self._planogram, constants.LOG_SAME_TIME + constants.LOG_TWO_WAYS
        log_taken, log_put, belongs = self._log_taken(event), self._log_put(event), self._belongs(event)
        log_grip = np.log(places.QUANTITY_PRIOR)
        there = (planogram.planned[event.plates] | (planogram.stock[event.plates] > 0.5)).any(axis=0)
        least = float((found.log_likelihood + log_place + found.log_quantity).max(initial=-math.inf))
        splits = []
        for product in np.flatnonzero(there).tolist():
            for pieces, taken in ((1, 2), (2, 1), (3, 1), (3, 2)):
                if held is None:
                    log_came = float(self._log_filled(belongs[product], log_grip[pieces - 1]))
                elif held[product] > 1e-4 and (pieces == 1 or held[product] >= pieces - 0.5):
                    log_came = float(log_put[product]) + log_grip[pieces - 1]
                else:
                    continue
                log_likelihood = self._log_weighs(event, (product, product), (-taken, pieces))
                log_prior = log_likelihood + float(log_taken[product]) + log_grip[taken - 1] + log_came
                log_prior += float(seen.of_product[product])
                if log_prior + both > least - constants.LOG_SHARED_SPREAD:
                    for parts in ((-taken, pieces), (pieces, -taken)):
                        splits.append(_Split((product, product), parts, log_prior, log_likelihood, -math.inf, both))
        return splits

    def _both_put(
        self, event: ShelfEvent, found: Identifications, log_place: NDArray[np.float64],
        held: NDArray[np.float64] | None, seen: _Seen,
    ) -> list[_Split]:
        """Ways in which a load may be pieces of one product that two people put here, the one after the other."""
        both = constants.LOG_SAME_TIME + constants.LOG_TWO_WAYS
        log_put, belongs = self._log_put(event), self._belongs(event)
        log_grip = np.log(places.QUANTITY_PRIOR)
        least = float((found.log_likelihood + log_place + found.log_quantity).max(initial=-math.inf))
        splits = []
        for product in range(len(log_put)):
            for pieces, other in ((1, 1), (2, 1), (2, 2)):
                if held is None:
                    log_came = float(self._log_filled(belongs[product], log_grip[pieces - 1]))
                elif held[product] >= pieces + other - 0.5:
                    log_came = float(log_put[product]) + log_grip[pieces - 1]
                else:
                    continue
                log_likelihood = self._log_weighs(event, (product, product), (pieces, other))
                log_prior = log_likelihood + log_grip[other - 1] + log_came + float(seen.of_product[product])
                if log_prior + both > least - constants.LOG_SHARED_SPREAD:
                    for parts in sorted({(pieces, other), (other, pieces)}, reverse=True):
                        splits.append(_Split((product, product), parts, log_prior, log_likelihood, -math.inf, both))
        return splits

    def _log_weighs(self, event: ShelfEvent, products: tuple[int, int], quantities: tuple[int, int]) -> float:
        """Log density of a load as signed pieces of two products, each of them lying at a place of its own."""
        planogram, share, pieces = self._planogram, event.share, np.array(quantities)
        gain = _gain(planogram, event.plates, share)
        of_each_g = pieces * planogram.weight_g[[*products]]
        of_plates = float(share**2 @ planogram.gain_var[event.plates])
        of_places = places.PLACE_GAIN_SD**2 * float(share @ share)
        variance = event.noise_g2 + float(np.abs(pieces) @ planogram.weight_sd_g[[*products]] ** 2)
        variance += of_each_g.sum() ** 2 * of_plates + float(of_each_g @ of_each_g) * gain.mean**2 * of_places
        error_g = event.total_g - float(of_each_g.sum()) * gain.mean
        return float(_log_density(np.array([error_g]), np.array([variance]))[0])

    def _shared(
        self, event: ShelfEvent, actors: Actors, splits: list[_Split], history: ArmHistory, asks: bool
    ) -> list[_Shared]:
        """Candidates with two parts, moved by two people or by both hands of one before the plates came to rest.

        asks: whether the second hand may be another person's.
        """
        if not splits:
            return []
        firsts = [row for row in range(len(actors.owner) - 1) if actors.log_ratio[row] > constants.LOG_SHARING_RATIO]
        firsts = firsts[:constants.SHARED_PEOPLE_MAX]
        if not firsts:
            return []
        rise = _Rise.of(event)
        seconds: list[HandRatio] = [
            hand
            for hand in (self._hands.second_ratios(event, history) if asks else ())
            if hand.log_ratio > constants.LOG_SECOND_RATIO
        ]
        seconds = sorted(seconds, key=lambda hand: (-hand.log_ratio, hand.track))[:constants.SHARED_PEOPLE_MAX]
        log_probability = actors.log_probability
        shared = []
        for products, quantities, log_prior, log_likelihood, log_one, log_two in splits:
            for i in firsts:
                person, log_first = int(actors.owner[i]), float(log_probability[i]) + log_prior
                # Two grips of one product are that many pieces in any case; of two products, one order is enough.
                if products[0] < products[1]:
                    log_both = log_first + log_one + math.log(rise.of_both_hands)
                    shared.append(_Shared((person, person), products, quantities, log_both, log_likelihood))
                for other, log_ratio in seconds:
                    if other != person:
                        log_both = log_first + log_two + log_ratio + math.log(rise.of_two)
                        shared.append(_Shared((person, other), products, quantities, log_both, log_likelihood))
        return shared

    # ---- people with products ----------------------------------------------------------------------------------------

    @staticmethod
    def _table(
        event: ShelfEvent,
        actors: Actors,
        found: Identifications,
        log_goods: NDArray[np.float64],
        log_nothing: float,
        shared: list[_Shared],
        cart_of: Callable[[int], int],
    ) -> Proposal:
        """Every actor with every identification, the shared loads, and that nothing moved.

        log_goods: (n_actors, n_found) log prior of place and quantity of each.
        """
        taken = event.total_g < 0
        rise = _Rise.of(event)
        log_rise = np.where(np.abs(found.quantity) > 1, math.log(rise.of_many), math.log(rise.of_one))
        log_goods = found.log_likelihood + log_goods + log_rise
        n_goods, n_actors = len(found.product), len(actors.owner)
        owner = np.zeros((n_goods * n_actors, 2), np.int32)
        product, quantity = owner.copy(), owner.copy()
        owner[:, 0] = np.repeat(actors.owner, n_goods)
        owner[:, 1] = -1
        product[:, 0] = np.tile(found.product, n_actors)
        quantity[:, 0] = np.tile(found.quantity, n_actors)
        log_by_actor = actors.log_probability[:, None] + log_goods
        if not taken:
            log_by_actor[-1] += constants.LOG_UNSEEN_PUT
        log_candidate = log_by_actor.ravel()
        log_weight = np.tile(found.log_likelihood, n_actors)
        if shared:
            owner = np.concatenate([owner, np.array([load.owners for load in shared], np.int32)])
            product = np.concatenate([product, np.array([load.products for load in shared], np.int32)])
            quantity = np.concatenate([quantity, np.array([load.quantities for load in shared], np.int32)])
            log_candidate = np.append(log_candidate, [load.log_candidate for load in shared])
            log_weight = np.append(log_weight, [load.log_weight for load in shared])
        log_candidate = compared(log_candidate)
        order = np.argsort(-log_candidate, kind="stable")[:CANDIDATES_MAX]
        if len(order):
            spread = constants.LOG_CANDIDATE_SPREAD if taken else constants.LOG_PUT_SPREAD
            order = order[log_candidate[order] > log_candidate[order[0]] - spread]
        unknown, none = np.array([[-1, -1]], np.int32), np.zeros((1, 2), np.int32)
        owner = np.concatenate([owner[order], unknown])
        cart = np.array([cart_of(person) for person in owner.ravel().tolist()], np.int32).reshape(-1, 2)
        below = np.concatenate([product[order], none]), np.concatenate([quantity[order], none])
        table = CandidateTable(np.stack([owner, cart, *below]))
        log_nothing += math.log(rise.of_nothing)
        return Proposal(table, np.append(log_candidate[order], log_nothing), np.append(log_weight[order], log_nothing))


def compared(log_weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log weights to 2^-32, so that equal ones are equal in whatever order their terms were summed."""
    return np.round(log_weight * 2.0**32) * 2.0**-32


def weigh_factors(
    factors: ScaleFactors,
    planogram: Planogram,
    plates: NDArray[np.int64],
    delta_g: NDArray[np.float64],
    noise_g2: float,
    held: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """See `ScaleFactors.observe`."""
    size = np.abs(delta_g)
    main = int(plates[np.argmax(size)])
    alone = bool(size.max() > multiples.MAIN_SHARE * size.sum())
    honest = _log_reading(planogram, plates, delta_g, noise_g2, held)
    log_odds = np.maximum(factors._log_odds(main), factors._log_odds(-1))
    before = _evidence(factors, main)
    for at, factor in enumerate(multiples.FACTORS):
        # A factor that is excluded need not be weighed against a load that is explained.
        if honest > 0.5 * math.log(multiples.UNKNOWN_PER_G) and log_odds[at] < multiples.LOG_ODDS_MIN + 1.0:
            continue
        turned = _log_reading(planogram, plates, delta_g / factor, noise_g2 / factor**2, held)
        turned -= math.log(abs(factor))
        factors._add(main, at, turned - honest, alone)
    factors._judge()
    return _evidence(factors, main) - before


def _evidence(factors: ScaleFactors, plate: int) -> NDArray[np.float64]:
    """(3, n_factors) copy: from loads, for a plate and for the store, and what the plate has given to the store."""
    return np.stack([factors._of_loads[plate], factors._of_loads[-1], factors._given[plate]])


def _log_reading(
    planogram: Planogram,
    plates: NDArray[np.int64],
    delta_g: NDArray[np.float64],
    noise_g2: float,
    held: NDArray[np.float64] | None = None,
) -> float:
    """Log density, per gram, of a load at this place; arguments as in `ScaleFactors.observe`."""
    if delta_g.sum() < 0.0:
        found = identify(planogram, plates, delta_g, noise_g2)
        log_way = math.log(multiples.TAKEN)
    else:
        place = np.minimum(np.exp(log_prior_of_place(planogram, plates, delta_g)), 1.0)
        away = np.where(planogram.away > 0.5, 1.0, 0.0)
        pieces = multiples.FROM_AFAR * away + np.minimum(held, 1.0) if held is not None else away
        known = np.maximum(np.minimum(pieces, 1.0), np.where(away > 0.5, 1.0, multiples.NOT_AWAY))
        elsewhere = multiples.ELSEWHERE * pieces / max(pieces.sum(), 1.0)
        log_prior = np.log(multiples.RIGHT_PLACE * place * known + elsewhere + 1e-12)
        found = identify(planogram, plates, delta_g, noise_g2, log_prior=log_prior)
        log_way = math.log(1.0 - multiples.TAKEN)
    goods = float(np.logaddexp.reduce(found.log_posterior)) if len(found.product) else -math.inf
    return float(np.logaddexp(log_way + goods, math.log(multiples.UNKNOWN_PER_G)))


def follow_gain(
    learnt: Learnt,
    plates: NDArray[np.int64],
    delta_g: NDArray[np.float64],
    noise_g2: float,
    product: int,
    quantity: int,
    t_ns: int,
) -> None:
    """As `Learnt.follow_gain`: a Kalman filter whose matrices are small enough to be written out."""
    true_g = abs(quantity) * learnt.weight_g[product]
    share = np.abs(delta_g) / np.abs(delta_g).sum()
    since_ns = learnt._gain_ns[plates]
    drifted = learnt.gain_var[plates] + learnt.gain_drift_var * (t_ns - since_ns) / weighings.DAY_NS
    drifted = np.minimum(drifted, np.maximum(learnt.gain_var[plates], weighings.GAIN_VAR))
    var = np.where((since_ns > 0) & (since_ns < t_ns), drifted, learnt.gain_var[plates])
    innovation = abs(delta_g.sum()) / true_g - share @ learnt.gain[plates]
    innovation_var = share**2 @ (var + places.PLACE_GAIN_SD**2)
    innovation_var += (noise_g2 + abs(quantity) * learnt.weight_sd_g[product] ** 2) / true_g**2
    if innovation**2 > REFUSED_SDS**2 * innovation_var:
        if len(plates) == 1:
            learnt._refuse(int(plates[0]), float(abs(delta_g.sum()) / true_g), float(innovation_var), t_ns)
        return
    kalman_gain = share * var / innovation_var
    changed = learnt.gain[plates] + kalman_gain * innovation
    learnt.gain[plates] = np.clip(changed, 1.0 - GAIN_OFF_MAX, 1.0 + GAIN_OFF_MAX)
    learnt.gain_var[plates] = var * (1.0 - kalman_gain * share)
    learnt._gain_ns[plates] = t_ns
    for plate in plates.tolist():
        learnt._refused.pop(plate, None)


def move(planogram: Planogram, plate: int, product: int, pieces: float) -> None:
    """Expected pieces that came onto a plate (negative: left it). Stock never falls below zero."""
    planogram.stock[plate, product] = max(planogram.stock[plate, product] + pieces, 0.0)
    planogram.away[product] = max(planogram.away[product] - pieces, 0.0)
