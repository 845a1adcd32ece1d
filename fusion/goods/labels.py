"""Labels: what decisions about carts say about single loads, and loads that need no decision.

A reviewer, or a shopper who was asked "A or B?", states what a visit took. Which load was what follows from the sum
over all ways in which the visit's loads can add up to the decided cart c:

    P(event i was o | c)  ∝  sum over o_1 .. o_n with o_i = o and o_1 + .. + o_n = c  of  P(o_1) .. P(o_n),

computed by a forward and a backward pass over the events, with the carts so far as states (Rabiner, Proceedings of the
IEEE 77, 1989). A cart to which no such sum leads says nothing: the shelves missed something, or the decision is wrong.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from fusion.goods.beliefs import EventBelief
from fusion.goods.counts import moved
from fusion.goods.learnt import HANDS, IDENTITY
from fusion.goods.loads import ShelfEvent
from fusion.goods.pieces import Pieces, signed_pieces
from fusion.goods.planogram import Planogram
from fusion.goods.trust import log_odds_of
from fusion.goods.weighings import KnownLoad

# Goods that moved with this probability are known without a decision, and with one.
CERTAIN_GOODS, LABEL_MIN = 0.99, 0.95
# A decision states whose load it was, where it makes that as certain as this.
PERSON_CERTAIN = 0.99
# Visits whose decision is awaited; the events of each, and the carts that they may add up to.
VISITS_MAX, EVENTS_MAX, CARTS_MAX = 256, 24, 128
# What an event did to a cart with less than this probability is left out.
OUTCOME_MIN = 1e-3
STAFF = "staff"


@dataclass(frozen=True, slots=True, eq=False)
class _Claim:
    """An event that may be a visit's.

    Attributes:
        name: of the event.
        event: as measured.
        outcomes: probability of the pieces that it brought into the visit's cart (negative: took out of it).
        moved: probability that any goods moved.
        known: whether its goods were certain without a decision.
    """

    name: str
    event: ShelfEvent
    outcomes: Mapping[Pieces, float]
    moved: float
    known: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Billed:
    """A visit that a decision may be about: its account, its claims and the probability of its identity."""

    account: str | None
    claims: tuple[_Claim, ...]
    identity: float


class Labels:
    """Turns final events and decisions into loads whose goods are known. Bounded: the oldest visit makes room."""

    def __init__(self, planogram: Planogram) -> None:
        self._learnt = planogram.learnt
        self._product = {gtin: i for i, gtin in enumerate(planogram.gtins)}
        self._visits: OrderedDict[str, _Billed] = OrderedDict()

    def rename_customers(self, renamed: Callable[[str], str]) -> None:
        """Give customers other names, since theirs are erased; what they have taught, or will, stays the same."""
        for visit, billed in self._visits.items():
            if billed.account is not None and (name := renamed(billed.account)) != billed.account:
                self._visits[visit] = replace(billed, account=name)
        self._learnt.rename_customers(renamed)

    # ---- without a decision ------------------------------------------------------------------------------------------

    def settle(self, name: str, event: ShelfEvent, belief: EventBelief, source: str | None) -> None:
        """Take an event that has become final, of whoever it was.

        Args:
            name: of the event.
            event: as measured.
            belief: what it was.
            source: customer who moved it, or STAFF; None where it may be anyone.
        """
        moves = moved(belief)
        if source == STAFF:
            for move in moves:
                if move.quantity > 0:
                    self._learnt.note_delivery(self._product[move.gtin], belief.t_ns)
        known = self._known(belief)
        if known is not None and source is not None:
            self._add(name, event, *known, source, "")

    def _known(self, belief: EventBelief) -> tuple[int, int] | None:
        """Product and pieces of an event whose goods are certain, whoever moved them."""
        if belief.parts or belief.nothing > 1.0 - CERTAIN_GOODS:
            return None
        goods: Counter[tuple[str, int]] = Counter()
        for candidate in belief.candidates:
            goods[candidate.gtin, candidate.quantity] += candidate.probability  # type: ignore[assignment]
        (gtin, quantity), probability = max(goods.items(), key=lambda item: item[1])
        return (self._product[gtin], abs(quantity)) if probability >= CERTAIN_GOODS else None

    def _add(
        self, name: str, event: ShelfEvent, product: int, quantity: int, source: str, visit: str
    ) -> None:
        plates, share = tuple(event.plates.tolist()), tuple(event.share.tolist())
        self._learnt.add_load(
            KnownLoad(
                event.contact_ns, name, plates, share, abs(event.total_g), event.noise_g2, product, quantity, source,
                visit,
            )
        )  # fmt: skip

    # ---- decisions ---------------------------------------------------------------------------------------------------

    def remember(
        self,
        visit: str,
        account: str | None,
        members: Collection[int],
        identity: float,
        events: Sequence[tuple[str, ShelfEvent, EventBelief]],
    ) -> None:
        """Keep what a decision about a visit will be compared to.

        Args:
            visit: its id.
            account: its account.
            members: its track ids.
            identity: probability that its people are who they seem.
            events: name, measurement and belief of the events that may be the visit's.
        """
        claims = []
        for name, event, belief in sorted(events, key=lambda each: (each[1].contact_ns, each[0]))[:EVENTS_MAX]:
            outcomes = self._outcomes(belief, members)
            claims.append(_Claim(name, event, outcomes, 1.0 - belief.nothing, self._known(belief) is not None))
        self._visits[visit] = _Billed(account, tuple(claims), identity)
        if len(self._visits) > VISITS_MAX:
            self._visits.popitem(last=False)

    def _outcomes(self, belief: EventBelief, members: Collection[int]) -> dict[Pieces, float]:
        """Probability of what an event did to the cart of these people."""
        outcomes: defaultdict[Pieces, float] = defaultdict(float)
        two = {(part.person, part.gtin, part.quantity) for part in belief.parts}
        if two:
            pieces: Counter[int] = Counter()
            for part in belief.parts:
                if part.person in members:
                    pieces[self._product[part.gtin]] -= part.quantity
            outcomes[signed_pieces(pieces.items())] += belief.parts[0].probability
        for candidate in belief.candidates:
            # A candidate with two parts is stated as two, with half of its probability each.
            in_two = (candidate.person, candidate.gtin, candidate.quantity) in two
            p = candidate.probability - (0.5 * belief.parts[0].probability if in_two else 0.0)
            ours = candidate.person in members
            key = ((self._product[candidate.gtin], -candidate.quantity),) if ours else ()
            outcomes[key] += max(p, 0.0)
        outcomes[()] += belief.nothing
        return {pieces: p for pieces, p in outcomes.items() if p > OUTCOME_MIN}

    def decide(self, visit: str, items: Mapping[str, int], t_ns: int, identity: bool | None = None) -> int:
        """Learn from what a visit took by a decision; an earlier decision about it is taken back.

        Args:
            visit: its id.
            items: pieces by GTIN.
            t_ns: when it was decided.
            identity: whether its people were who they seemed; None where nothing says so.

        Returns:
            How many loads the decision names that were not certain before.
        """
        self._learnt.take_back(visit, t_ns)
        billed = self._visits.get(visit)
        if billed is None or not items.keys() <= self._product.keys():
            return 0
        source = billed.account or ""  # All visits without an account count as one customer.
        if identity is not None:
            log_odds = log_odds_of(billed.identity)
            self._learnt.add_truth(IDENTITY, log_odds, identity, source, visit, t_ns)
        cart = signed_pieces((self._product[gtin], n) for gtin, n in items.items())
        n_named = 0
        for claim, after in zip(billed.claims, explained([claim.outcomes for claim in billed.claims], cart)):
            ours = sum(p for pieces, p in claim.outcomes.items() if pieces)
            ours_after = sum(p for pieces, p in after.items() if pieces)
            certain = not 1.0 - PERSON_CERTAIN < ours_after < PERSON_CERTAIN
            if certain and claim.moved > CERTAIN_GOODS and 0.0 < ours < 1.0:
                stated = log_odds_of(ours / claim.moved) / float(self._learnt.factor[HANDS])
                self._learnt.add_truth(HANDS, stated, ours_after > 0.5, source, visit, t_ns)
            pieces, p = max(after.items(), key=lambda item: item[1])
            if len(pieces) == 1 and p >= LABEL_MIN and not claim.known:
                product, quantity = pieces[0]
                self._add(claim.name, claim.event, product, abs(quantity), source, visit)
                n_named += 1
        return n_named

    def learn(self, visit: str, items: Mapping[str, int] | None, t_ns: int, identity: bool | None = None) -> int:
        """`decide`; without items, what decisions about the visit have taught is taken back."""
        if items is not None:
            return self.decide(visit, items, t_ns, identity)
        self._learnt.take_back(visit, t_ns)
        return 0


def explained(outcomes: Sequence[Mapping[Pieces, float]], cart: Pieces) -> list[dict[Pieces, float]]:
    """Probability of each event's outcomes, given the cart that all of them add up to; empty where none do.

    Args:
        outcomes: of every event, the prior probability of what it did to the cart.
        cart: what the cart holds in the end.
    """
    forward: list[dict[Pieces, float]] = [{(): 1.0}]
    for of_event in outcomes:
        reached: defaultdict[Pieces, float] = defaultdict(float)
        for state, p in forward[-1].items():
            for pieces, q in of_event.items():
                reached[signed_pieces((*state, *pieces))] += p * q
        best = sorted(reached.items(), key=lambda item: (-item[1], item[0]))
        forward.append(dict(best[:CARTS_MAX]))
    if cart not in forward[-1]:
        return []
    backward: Mapping[Pieces, float] = {cart: 1.0}
    found: list[dict[Pieces, float]] = []
    for of_event, states in zip(reversed(outcomes), reversed(forward[:-1])):
        after: defaultdict[Pieces, float] = defaultdict(float)
        before: defaultdict[Pieces, float] = defaultdict(float)
        for state, p in states.items():
            for pieces, q in of_event.items():
                later = backward.get(signed_pieces((*state, *pieces)), 0.0)
                if later > 0.0:
                    after[pieces] += p * q * later
                    before[state] += q * later
        total = sum(after.values())
        found.append({pieces: p / total for pieces, p in after.items()})
        backward = before
    return found[::-1]
