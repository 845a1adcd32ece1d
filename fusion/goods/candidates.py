"""Candidates of a new shelf event: every person near, with every product and quantity that suits weight and place.

A candidate's log prior times likelihood is the sum of independent terms: the person by their hands, the weight given
product and quantity, the product at this place, the number of pieces, how long the load took to come or go, and what
classifiers saw in the hand.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.goods.hands import Actors, HandRatio, Hands
from fusion.goods.hypotheses import CandidateTable
from fusion.goods.loads import ShelfEvent
from fusion.goods.planogram import QUANTITY_PRIOR, Identifications, Planogram
from fusion.people.arms import ArmHistory

CANDIDATES_MAX = 48
# Candidates less likely than the best by exp(14) are dropped, put-backs by exp(28), since the best candidate of a
# put-back may turn out not to be held.
LOG_CANDIDATE_SPREAD, LOG_PUT_SPREAD = 14.0, 28.0
# Two parts are considered only where they weigh the load no worse than the best single identification by exp(9).
LOG_SHARED_SPREAD = 9.0
SHARED_PEOPLE_MAX, SHARED_PIECES_MAX = 3, 3

# ---- priors of what happens ------------------------------------------------------------------------------------------

# Nothing moved, though a load settled: a lean, a bag set down, a thing that is in no product list. Density per gram. A
# load that comes is often such a thing, a load that goes is seldom one. The density falls with the load.
LOG_NOTHING_CAME, LOG_NOTHING_WENT, NOTHING_SCALE_G = math.log(1e-3 / 400.0), math.log(1e-4 / 400.0), 2000.0
# A put-back goes where the product belongs or, 43 % of them in an adversarial set, to any other place. The first have
# two plates to choose from, the others twenty within reach.
PLACED_RIGHT, PLACED_ELSEWHERE = 0.3, 0.02
# People who take from a plate take one of the dozen pieces that belong there rather than the odd one left on it: the
# odd one is as rare as it was in 5900 simulated takes. A piece lies on the plate that bears more than half of it;
# shares are measured to a tenth or so.
ODD_TAKEN, MAIN_SHARE = 0.08, (0.35, 0.65)
# A put-back of what no cart nearby holds is considered only if nothing else fits.
LOG_BROUGHT = math.log(1e-4)
# A put-back by a person in no camera's view: there are few of them, and they hold little.
LOG_UNSEEN_PUT = math.log(0.05)
# A second person takes something in the second that a load takes to settle: people at a shelf take something every six
# seconds. And one person has a hand for each of two things.
LOG_SAME_TIME, LOG_BOTH_HANDS = math.log(0.15), math.log(0.003)
# How long a load takes to come or go (between a quarter and three quarters of it): one grip 0.05 s, with a tail where
# the load is light against a hand's shaking; two grips, the time between them. Fitted to 345 simulated grips.
RISE_S, RISE_SD_S, RISE_TAIL_S, RISE_TAIL, RISE_TAIL_G = 0.05, 0.025, 0.2, 0.05, 20.0
APART_S = 0.6
# Shares of grips that count as one person's single grip but are two: one hand after the other, or both at once.
REGRIP, BOTH_AT_ONCE = 0.2, 0.5
# Leans come and go about as fast as a grip (medians 0.06 and 0.05 s of 127 and 2650 simulated ones), with more tail.
LEANS_LIKE_GRIP = 0.7
# Only hands that are likelier at the plate than elsewhere share a load; a second hand may have been seen badly at the
# instant of its step, which costs it its ratio.
LOG_SHARING_RATIO, LOG_SECOND_RATIO = 0.0, -2.0

# ---- what classifiers see --------------------------------------------------------------------------------------------

# A sighting of a hand at a plate concerns the load that moves there within this time. No classifier is trusted beyond
# the floor.
SEEN_WITHIN_S, SIGHTING_FLOOR = 2.0, 0.01
SIGHTINGS_MAX = 256


class Proposal(NamedTuple):
    """The candidates of an event, best first; the last one is that nothing moved.

    Attributes:
        table: what each of them moved.
        log_candidate: (n,) log prior times likelihood.
        log_weight: (n,) log likelihood of the weight alone.
    """

    table: CandidateTable
    log_candidate: NDArray[np.float64]
    log_weight: NDArray[np.float64]


class _Sighting(NamedTuple):
    t_ns: int
    plate: int
    product: int
    probability: float


class _Seen(NamedTuple):
    """Log likelihood of what classifiers saw, given each product (n_products,), and given anything else."""

    of_product: NDArray[np.float64]
    of_nothing: float


class _Split(NamedTuple):
    """A load as two parts; the second left before the plates had settled after the first.

    Attributes:
        products, quantities: of the parts.
        log_prior: log prior times likelihood, without the people.
        log_likelihood: of the weight alone.
    """

    products: tuple[int, int]
    quantities: tuple[int, int]
    log_prior: float
    log_likelihood: float


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
        tail = min(RISE_TAIL + RISE_TAIL_G / float(np.abs(event.delta_g).sum()), 0.5)
        peak = math.exp(-0.5 * ((rise_s - RISE_S) / RISE_SD_S) ** 2)
        one = (1.0 - tail) * peak / (RISE_SD_S * math.sqrt(2.0 * math.pi))
        one += tail * math.exp(-rise_s / RISE_TAIL_S) / RISE_TAIL_S
        two = math.exp(-rise_s / APART_S) / APART_S
        of_nothing = LEANS_LIKE_GRIP * one + (1.0 - LEANS_LIKE_GRIP) * two
        many = (1.0 - REGRIP) * one + REGRIP * two
        return cls(of_nothing, one, many, (1.0 - BOTH_AT_ONCE) * two + BOTH_AT_ONCE * one, two)


class CandidateFinder:
    """Finds the candidates of shelf events."""

    def __init__(self, planogram: Planogram, hands: Hands) -> None:
        self._planogram, self._hands = planogram, hands
        self._sightings: deque[_Sighting] = deque(maxlen=SIGHTINGS_MAX)

    def sight(self, t_ns: int, plate: int, product: int, probability: float) -> None:
        """Record that a classifier saw a product (index) in a hand at a plate (index)."""
        self._sightings.append(_Sighting(t_ns, plate, product, probability))

    def propose(
        self,
        event: ShelfEvent,
        actors: Actors,
        history: ArmHistory,
        held: NDArray[np.float64] | None,
        cart_of: Callable[[int], int],
    ) -> Proposal:
        """The candidates of an event.

        Args:
            event: as measured.
            actors: the people who may have done it.
            history: to look up hands at other instants than the contact.
            held: (n_products,) pieces that the carts of the actors are expected to hold, since a put-back is likely one
                of them; None where anything may come, from staff, and for takes.
            cart_of: the cart of a track id.
        """
        if event.total_g < 0:
            found = self._taken(event)
            log_place = found.log_place
        else:
            found, log_place = self._put(event, held)
        seen = self._seen(event)
        log_place = log_place + seen.of_product[found.product]
        shared = self._shared(event, actors, found, log_place, seen, history) if event.total_g < 0 else []
        return self._table(event, actors, found, log_place, self._log_nothing(event) + seen.of_nothing, shared, cart_of)

    # ---- products and quantities -------------------------------------------------------------------------------------

    def _taken(self, event: ShelfEvent) -> Identifications:
        """What may have left, by where most of the load rested."""
        planogram = self._planogram
        log_place = planogram.log_place(event.plates, event.delta_g)
        belongs = event.share @ planogram.planned[event.plates]
        belongs = np.clip((belongs - MAIN_SHARE[0]) / (MAIN_SHARE[1] - MAIN_SHARE[0]), 0.0, 1.0)
        log_prior = log_place + np.log(ODD_TAKEN + (1.0 - ODD_TAKEN) * belongs)
        return planogram.identify(event.plates, event.delta_g, event.noise_g2, log_prior=log_prior)

    def _put(
        self, event: ShelfEvent, held: NDArray[np.float64] | None
    ) -> tuple[Identifications, NDArray[np.float64]]:
        """What may have come, and the log prior of each with its place."""
        planogram = self._planogram
        place = np.exp(planogram.log_place(event.plates, event.delta_g))
        log_put = np.log(PLACED_RIGHT * np.minimum(place, 1.0) + PLACED_ELSEWHERE)
        # Products that no cart near holds must not crowd out the products that one does hold.
        log_held = np.zeros(len(log_put)) if held is None else np.where(held > 1e-4, 0.0, LOG_BROUGHT)
        found = planogram.identify(event.plates, event.delta_g, event.noise_g2, log_prior=log_put + log_held)
        return found, log_put[found.product]

    def _seen(self, event: ShelfEvent) -> _Seen:
        """What classifiers saw at the plates about the time of an event.

        They are right as often as they claim; otherwise they name any other product. A hand that moves nothing looks to
        them like a hand with another product.
        """
        of_product, of_nothing = np.zeros(len(self._planogram.gtins)), 0.0
        others = max(len(of_product) - 1, 1)
        for sighting in self._sightings:
            if sighting.plate in event.plates and abs(sighting.t_ns - event.contact_ns) < SEEN_WITHIN_S * 1e9:
                p = min(max(sighting.probability, SIGHTING_FLOOR), 1.0 - SIGHTING_FLOOR)
                log_wrong = math.log((1.0 - p) / others)
                of_product += log_wrong
                of_product[sighting.product] += math.log(p) - log_wrong
                of_nothing += log_wrong
        return _Seen(of_product, of_nothing)

    @staticmethod
    def _log_nothing(event: ShelfEvent) -> float:
        return (LOG_NOTHING_WENT if event.total_g < 0 else LOG_NOTHING_CAME) - abs(event.total_g) / NOTHING_SCALE_G

    # ---- loads of two parts ------------------------------------------------------------------------------------------

    def _splits(
        self, event: ShelfEvent, found: Identifications, log_place: NDArray[np.float64], seen: _Seen
    ) -> list[_Split]:
        """Ways in which a load may be two parts: pieces of one product, or one piece each of two."""
        if not len(found.product):
            return []
        log_one, log_two = math.log(QUANTITY_PRIOR[0]), math.log(QUANTITY_PRIOR[1])
        splits = []
        for i in range(len(found.product)):
            pieces, product = -int(found.quantity[i]), int(found.product[i])
            log_likelihood = float(found.log_likelihood[i])
            for first in range(1, pieces) if pieces <= SHARED_PIECES_MAX else ():
                log_grips = sum(log_one if n == 1 else log_two for n in (first, pieces - first))
                log_prior = float(found.log_likelihood[i] + log_place[i]) + log_grips
                splits.append(_Split((product, product), (-first, first - pieces), log_prior, log_likelihood))
        for x, y, log_likelihood in self._planogram.mixtures(event.plates, event.delta_g, event.noise_g2):
            log_seen = max(float(seen.of_product[x]), float(seen.of_product[y]))
            log_prior = log_likelihood + 2.0 * log_one + log_seen
            splits.append(_Split((x, y), (-1, -1), log_prior, log_likelihood))
            splits.append(_Split((y, x), (-1, -1), log_prior, log_likelihood))
        # No hand evidence can outweigh a weight that is this much less likely than the best single identification.
        least = float((found.log_likelihood + log_place + found.log_quantity).max()) - LOG_SHARED_SPREAD
        return [split for split in splits if split.log_prior > least]

    def _shared(
        self,
        event: ShelfEvent,
        actors: Actors,
        found: Identifications,
        log_place: NDArray[np.float64],
        seen: _Seen,
        history: ArmHistory,
    ) -> list[_Shared]:
        """Candidates with two parts, taken by two people or by both hands of one before the plates came to rest."""
        splits = self._splits(event, found, log_place, seen)
        if not splits:
            return []
        firsts = [row for row in range(len(actors.owner) - 1) if actors.log_ratio[row] > LOG_SHARING_RATIO]
        firsts = firsts[:SHARED_PEOPLE_MAX]
        if not firsts:
            return []
        rise = _Rise.of(event)
        # The second hand is judged at its own step: a hand that comes for the next piece while the plates still move
        # would turn one grip of two pieces into two people.
        seconds: list[HandRatio] = [
            hand for hand in self._hands.second_ratios(event, history) if hand.log_ratio > LOG_SECOND_RATIO
        ]
        seconds = sorted(seconds, key=lambda hand: (-hand.log_ratio, hand.track))[:SHARED_PEOPLE_MAX]
        log_probability = actors.log_probability
        shared = []
        for products, quantities, log_prior, log_likelihood in splits:
            for i in firsts:
                person, log_first = int(actors.owner[i]), float(log_probability[i]) + log_prior
                # Two grips of one product are that many pieces in any case; of two products, one order is enough.
                if products[0] < products[1]:
                    log_both = log_first + LOG_BOTH_HANDS + math.log(rise.of_both_hands)
                    shared.append(_Shared((person, person), products, quantities, log_both, log_likelihood))
                for other, log_ratio in seconds:
                    if other != person:
                        log_both = log_first + LOG_SAME_TIME + log_ratio + math.log(rise.of_two)
                        shared.append(_Shared((person, other), products, quantities, log_both, log_likelihood))
        return shared

    # ---- people with products ----------------------------------------------------------------------------------------

    @staticmethod
    def _table(
        event: ShelfEvent,
        actors: Actors,
        found: Identifications,
        log_place: NDArray[np.float64],
        log_nothing: float,
        shared: list[_Shared],
        cart_of: Callable[[int], int],
    ) -> Proposal:
        """Every actor with every identification, the shared loads, and that nothing moved."""
        taken = event.total_g < 0
        rise = _Rise.of(event)
        log_rise = np.where(np.abs(found.quantity) > 1, math.log(rise.of_many), math.log(rise.of_one))
        log_goods = found.log_likelihood + log_place + found.log_quantity + log_rise
        n_goods, n_actors = len(log_goods), len(actors.owner)
        owner = np.zeros((n_goods * n_actors, 2), np.int32)
        product, quantity = owner.copy(), owner.copy()
        owner[:, 0] = np.repeat(actors.owner, n_goods)
        owner[:, 1] = -1
        product[:, 0] = np.tile(found.product, n_actors)
        quantity[:, 0] = np.tile(found.quantity, n_actors)
        log_by_actor = actors.log_probability[:, None] + log_goods
        if not taken:
            log_by_actor[-1] += LOG_UNSEEN_PUT
        log_candidate = log_by_actor.ravel()
        log_weight = np.tile(found.log_likelihood, n_actors)
        if shared:
            owner = np.concatenate([owner, np.array([load.owners for load in shared], np.int32)])
            product = np.concatenate([product, np.array([load.products for load in shared], np.int32)])
            quantity = np.concatenate([quantity, np.array([load.quantities for load in shared], np.int32)])
            log_candidate = np.append(log_candidate, [load.log_candidate for load in shared])
            log_weight = np.append(log_weight, [load.log_weight for load in shared])
        order = np.argsort(-log_candidate, kind="stable")[:CANDIDATES_MAX]
        if len(order):
            spread = LOG_CANDIDATE_SPREAD if taken else LOG_PUT_SPREAD
            order = order[log_candidate[order] > log_candidate[order[0]] - spread]
        unknown, none = np.array([[-1, -1]], np.int32), np.zeros((1, 2), np.int32)
        owner = np.concatenate([owner[order], unknown])
        cart = np.array([cart_of(person) for person in owner.ravel().tolist()], np.int32).reshape(-1, 2)
        table = CandidateTable(
            owner, cart, np.concatenate([product[order], none]), np.concatenate([quantity[order], none])
        )
        log_nothing += math.log(rise.of_nothing)
        return Proposal(table, np.append(log_candidate[order], log_nothing), np.append(log_weight[order], log_nothing))
