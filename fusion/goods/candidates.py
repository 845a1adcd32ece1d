"""Candidates of a new shelf event: every person near, with every product and quantity that suits weight and place.

A candidate's log prior times likelihood is the sum of independent terms: the person by their hands, the weight given
product and quantity, the product at this place, the number of pieces, how long the load took to come or go, and what
classifiers saw in the hand.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Set
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import goods as kernel
from fusion.goods.hands import Actors, HandRatio, Hands
from fusion.goods.hypotheses import CandidateTable, Kind
from fusion.goods.loads import ShelfEvent
from fusion.goods.planogram import Planogram
from fusion.people.arms import ArmHistory

# Candidates less likely than the best by exp(14) are dropped, put-backs by exp(28), since the best candidate of a
# put-back may turn out not to be held.
LOG_CANDIDATE_SPREAD, LOG_PUT_SPREAD = 14.0, 28.0
# Two parts are considered only where they weigh the load no worse than the best single identification by exp(9).
LOG_SHARED_SPREAD = 9.0
# Of more pieces, all are one person's, which is too sure where two take by turns; the kernel has room for this many.
SHARED_PEOPLE_MAX, SHARED_PIECES_MAX = 3, 5

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
# Employees fill shelves with what belongs there, in any number of pieces at a time, and seldom lay a piece aside. What
# they take is as often an odd piece that they tidy away as one that belongs there.
STOCKED_RIGHT, STOCKED_ELSEWHERE, STOCKED_PIECES = 0.95, 0.001, 0.25
# A put-back of what no cart nearby holds is considered only if nothing else fits.
LOG_BROUGHT = math.log(1e-4)
# A put-back by a person in no camera's view: there are few of them, and they hold little.
LOG_UNSEEN_PUT = math.log(0.05)
# A second person takes something in the second that a load takes to settle: people at a shelf take something every six
# seconds. And one person has a hand for each of two things.
LOG_SAME_TIME, LOG_BOTH_HANDS = math.log(0.15), math.log(0.003)
# Goods are taken and others are put back in one load that shows no level between, or two are put back: of 2219 loads at
# simulated cabinets 6 and 2 were such ones of one person. In the open people walk from shelf to shelf, and none of 620
# was. Of two people at the same shelf, one puts something back in a fifth of the cases.
LOG_EXCHANGE, LOG_TWO_PUT, LOG_IN_THE_OPEN = math.log(0.003), math.log(0.001), math.log(0.15)
LOG_TWO_WAYS = math.log(0.2)
# How long a load takes to come or go (between a quarter and three quarters of it): one grip 0.05 s, with a tail where
# the load is light against a hand's shaking; two grips, the time between them. Fitted to 345 simulated grips.
RISE_S, RISE_SD_S, RISE_TAIL_S, RISE_TAIL, RISE_TAIL_G = 0.05, 0.025, 0.2, 0.05, 20.0
# Goods that are held on their plate while a person thinks or reads come and go by parts: of 1553 grips of one piece at
# simulated cabinets 28 took longer than 1.2 s.
RISE_HELD_S, RISE_HELD = 1.5, 0.03
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


def _model(log_hands_stay: float) -> NDArray[np.float64]:
    """The constants above in the order of the kernel's enum; log_hands_stay: of an exchange, against behind a door."""
    return np.array([
        LOG_CANDIDATE_SPREAD, LOG_PUT_SPREAD, LOG_SHARED_SPREAD, SHARED_PEOPLE_MAX, SHARED_PIECES_MAX,
        LOG_NOTHING_CAME, LOG_NOTHING_WENT, NOTHING_SCALE_G, PLACED_RIGHT, PLACED_ELSEWHERE,
        ODD_TAKEN, *MAIN_SHARE, LOG_BROUGHT, LOG_UNSEEN_PUT, LOG_SAME_TIME, LOG_BOTH_HANDS,
        RISE_S, RISE_SD_S, RISE_TAIL_S, RISE_TAIL, RISE_TAIL_G, RISE_HELD_S, RISE_HELD,
        APART_S, REGRIP, BOTH_AT_ONCE, LEANS_LIKE_GRIP,
        LOG_SHARING_RATIO, LOG_EXCHANGE + log_hands_stay, LOG_TWO_PUT + log_hands_stay, LOG_TWO_WAYS,
        STOCKED_RIGHT, STOCKED_ELSEWHERE, STOCKED_PIECES,
    ])  # fmt: skip


MODEL, MODEL_BEHIND_DOOR = _model(LOG_IN_THE_OPEN), _model(0.0)


class Proposal(NamedTuple):
    """The candidates of an event, best first; the last one is that nothing moved.

    Attributes:
        n: how many.
        columns: (4, n or more, 2) int32 as of `CandidateTable`; these and the others are valid until the next proposal.
        log_candidate: (n or more,) log prior times likelihood.
        log_weight: (n or more,) log likelihood of the weight alone.
        taken: whether goods left.
    """

    n: int
    columns: NDArray[np.int32]
    log_candidate: NDArray[np.float64]
    log_weight: NDArray[np.float64]
    taken: bool

    @property
    def table(self) -> CandidateTable:
        """A copy of the candidates."""
        return CandidateTable(np.ascontiguousarray(self.columns[:, : self.n]))

    @property
    def people(self) -> set[int]:
        """Track ids of those who may have acted."""
        return set(self.columns[0, : self.n].ravel().tolist()) - {-1}

    @property
    def put_back(self) -> list[Kind]:
        """The carts and products of what people in view may have put back, in order."""
        owner, cart, product, quantity = self.columns[:, : self.n]
        put = (owner >= 0) & (quantity > 0)
        if self.taken and not put.any():
            return []
        return [Kind(*kind) for kind in sorted(set(zip(cart[put].tolist(), product[put].tolist())))]


class _Sighting(NamedTuple):
    t_ns: int
    plate: int
    product: int
    probability: float


class _Seen(NamedTuple):
    """Log likelihood of what classifiers saw, given each product (n_products,; None: nothing), and given none."""

    of_product: NDArray[np.float64] | None
    of_nothing: float


class CandidateFinder:
    """Finds the candidates of shelf events."""

    def __init__(self, planogram: Planogram, hands: Hands) -> None:
        self._planogram, self._hands = planogram, hands
        # Room for the kernel's answers.
        self._table = np.zeros((4, kernel.CANDIDATES_MAX + 1, 2), np.int32)
        self._log_candidate, self._log_weight = np.zeros((2, kernel.CANDIDATES_MAX + 1))
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
        staff: Set[int] = frozenset(),
    ) -> Proposal:
        """The candidates of an event.

        Args:
            event: as measured.
            actors: the people who may have done it.
            history: to look up hands at other instants than the contact.
            held: (n_products,) pieces that the carts of the actors are expected to hold, since a put-back is likely one
                of them; None where anything may come, from staff.
            cart_of: the cart of a track id.
            staff: track ids of employees.
        """
        seen = self._seen(event)
        owner = actors.owner.tolist()
        model = MODEL_BEHIND_DOOR if self._hands.is_behind_door(event.main_plate) else MODEL
        employed = np.array([person in staff for person in owner]) if staff and not staff.isdisjoint(owner) else None
        carts = np.array([cart_of(person) for person in owner], np.int64)

        def proposed(
            seconds: NDArray[np.int64] | None = None,
            second_carts: NDArray[np.int64] | None = None,
            log_ratio: NDArray[np.float64] | None = None,
        ) -> int:
            return kernel.propose(
                self._planogram.arrays, event.plates, event.delta_g, event.noise_g2, event.rise_s,
                held, seen.of_product, seen.of_nothing, actors.owner, carts, actors.log_ratio, employed,
                actors.log_total, seconds, second_carts, log_ratio, model, self._table, self._log_candidate,
                self._log_weight,
            )  # fmt: skip

        n = proposed()
        if n == kernel.ASKS_FOR_SECONDS:
            # The second hand is judged at its own step: a hand that comes for the next piece while the plates still
            # move would turn one grip of two pieces into two people.
            seconds: list[HandRatio] = [
                hand for hand in self._hands.second_ratios(event, history) if hand.log_ratio > LOG_SECOND_RATIO
            ]
            seconds = sorted(seconds, key=lambda hand: (-hand.log_ratio, hand.track))[:SHARED_PEOPLE_MAX]
            tracks = np.array([hand.track for hand in seconds], np.int64)
            second_carts = np.array([cart_of(hand.track) for hand in seconds], np.int64)
            ratios = np.array([hand.log_ratio for hand in seconds])
            n = proposed(tracks, second_carts, ratios)
        return Proposal(n, self._table, self._log_candidate, self._log_weight, event.total_g < 0)

    def _seen(self, event: ShelfEvent) -> _Seen:
        """What classifiers saw at the plates about the time of an event.

        They are right as often as they claim; otherwise they name any other product. A hand that moves nothing looks to
        them like a hand with another product.
        """
        near = [
            sighting for sighting in self._sightings
            if sighting.plate in event.plates and abs(sighting.t_ns - event.contact_ns) < SEEN_WITHIN_S * 1e9
        ]  # fmt: skip
        if not near:
            return _Seen(None, 0.0)
        of_product, of_nothing = np.zeros(len(self._planogram.gtins)), 0.0
        others = max(len(of_product) - 1, 1)
        for sighting in near:
            p = min(max(sighting.probability, SIGHTING_FLOOR), 1.0 - SIGHTING_FLOOR)
            log_wrong = math.log((1.0 - p) / others)
            of_product += log_wrong
            of_product[sighting.product] += math.log(p) - log_wrong
            of_nothing += log_wrong
        return _Seen(of_product, of_nothing)
