"""Whose it is: shelf events to people and goods, jointly over everything still open, and how sure.

The script of a multiple-hypothesis tracker; `hypotheses.py` states the equations. For every shelf event:

1. `hands.py` weighs everyone near, `candidates.py` pairs them with the products and quantities that suit the load;
2. the clusters of open events that constrain the new one are merged, and their hypotheses extended by its candidates;
3. the planogram records what moved, and learns the gains of the plates where the goods are certain;
4. an event that is nearly certain is decided: it leaves its cluster and constrains later events as a fact.

A cart is answered from the decided events and from the hypotheses of all clusters that concern it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import goods as kernel
from fusion.goods.beliefs import SHORT_RIGHT, CartBelief, EventBelief
from fusion.goods.candidates import LOG_BROUGHT, CandidateFinder, Proposal
from fusion.goods.decided import DecidedEvent, DecidedEvents
from fusion.goods.equal_prices import times_surer
from fusion.goods.hands import Actors, Hands
from fusion.goods.hypotheses import (
    EVENTS_PER_CLUSTER_MAX,
    LEAN_UNDONE_S,
    MODEL,
    NEGLIGIBLE,
    Cluster,
    Extension,
    HypothesisKernel,
    Kind,
    Marginal,
    OpenEvent,
)
from fusion.goods.learnt import HANDS
from fusion.goods.ledger import UndoneLoad
from fusion.goods.loads import ShelfEvent
from fusion.goods.missed import MissedLoads
from fusion.goods.planogram import Planogram
from fusion.goods.questions import CartQuestion, SilentDoubt, about_loads, about_silence
from fusion.goods.unexplained import UNEXPLAINED_RIGHT, Unexplained, UnexplainedLoads
from fusion.goods.unobserved import BlindPlates, Explained, UnobservedReaches
from fusion.people.arms import ArmHistory
from fusion.people.doors import Openings
from fusion.results import Reason, ReasonKind
from fusion.store.models import Store

# Prior log probability that a person puts back goods which only another visit's cart holds: they were handed over.
LOG_HANDED_OVER = math.log(2e-3)
# Goods that moved with at least this probability are certain enough to learn the gains of the plates from their load.
KNOWN_WEIGHT = 0.95
# A load that an unseen person moved with at least this probability may have been moved at another plate.
UNCLAIMED = 0.5
# Probability that a reach into a plate that does not report moved nothing; half of such reaches are touches.
UNOBSERVED_RIGHT = 0.5
# An event this certain is decided at once, so that it constrains later ones without being enumerated with them.
DECIDED = 0.9999
# Events and clusters that leave a cart this certain are no reason to review it.
CLEAR = 0.99
OPEN_EVENTS_MAX = 1024
PROBABILITY_MIN = 1e-12
# Loads whose evidence for factors may be taken back; more within a lean are not.
FACTOR_EVIDENCE_MAX = 128


class _FactorEvidence(NamedTuple):
    """What a load on a main plate added to the evidence for factors, and which plates were suspect before."""

    plate: int
    added: NDArray[np.float64]
    suspect: frozenset[int]


class Carts:
    """Which people share a cart: everyone has their own until they belong to a visit."""

    def __init__(self) -> None:
        self._cart: dict[int, int] = {}  # By track id, of people in a visit.
        self._of_visit: dict[str, int] = {}

    def of(self, person: int) -> int:
        """The cart of a track id."""
        return self._cart.get(person, person)

    def join(self, person: int, visit: str) -> tuple[int, int]:
        """Add a person to a visit; returns their previous cart and their cart from now on."""
        cart, old = self._of_visit.setdefault(visit, person), self.of(person)
        self._cart[person] = cart
        return old, cart

    def forget(self, leaving: set[int]) -> None:
        """Drop the people and visits of some carts."""
        self._cart = {person: cart for person, cart in self._cart.items() if cart not in leaving}
        self._of_visit = {visit: cart for visit, cart in self._of_visit.items() if cart not in leaving}


class Attributor:
    """Keeps the best joint hypotheses of all open shelf events, and writes the planogram.

    Attributes:
        planogram: what lies where, kept up to date with what was taken and put back.
        ignored: what had to be given up, by reason: limits that were reached.
    """

    def __init__(
        self,
        store: Store,
        planogram: Planogram,
        decided: float = DECIDED,
        events_per_cluster_max: int = EVENTS_PER_CLUSTER_MAX,
        openings: Openings | None = None,
    ) -> None:
        """Start without events.

        Args:
            store: plates and products.
            planogram: the engine's, which is written here.
            decided: probability from which an event is decided.
            events_per_cluster_max: larger clusters are cut by deciding their oldest events.
            openings: when the doors before plates were open; None: the store has none.
        """
        self.planogram = planogram
        self.ignored: Counter[str] = Counter()
        self._decided_from, self._events_per_cluster_max = decided, events_per_cluster_max
        self._product = {gtin: i for i, gtin in enumerate(planogram.gtins)}
        self._names = [plate.plate for plate in store.plates]
        self._hands = Hands(store, openings)
        self._candidates = CandidateFinder(planogram, self._hands)
        self._hypotheses = HypothesisKernel(planogram)
        self._unobserved = UnobservedReaches(self._hands, planogram)
        self._unexplained = UnexplainedLoads(planogram)
        self._missed = MissedLoads()
        self._factor_evidence: dict[int, _FactorEvidence] = {}  # By event id, of the newest.
        self._clusters: list[Cluster] = []
        self._decided = DecidedEvents()
        self._carts = Carts()
        self._gone: set[int] = set()  # Carts that were settled and still share an open event.
        self._staff: set[int] = set()
        self._n_events = 0

    def adopt(self, store: Store) -> None:
        """Continue with a store of the same layout; see `Engine.adopt`. What was explained stays as it was."""
        self._hands.adopt(store)

    @property
    def clusters(self) -> tuple[Cluster, ...]:
        """The open events and their joint hypotheses, to look at; not to be changed."""
        return tuple(self._clusters)

    def set_staff(self, person: int) -> None:
        """Mark a track id as staff, who move goods without a cart and may bring any goods."""
        self._staff.add(person)

    def join(self, person: int, visit: str) -> None:
        """Add a track id to a visit: all its people share a cart, for earlier events too."""
        old, cart = self._carts.join(person, visit)
        if old == cart:
            return
        for cluster in self._clusters:
            cluster.table.cart[cluster.table.owner == person] = cart
            cluster.refresh()
        self._decided.join(old, cart)

    # ---- observing ---------------------------------------------------------------------------------------------------

    def observe(self, event: ShelfEvent, history: ArmHistory) -> EventBelief:
        """Take a shelf event; returns what it looks like now. Later events may change that."""
        at = event.main_plate
        opened = OpenEvent(self._n_events, event, self._names[at], self._hands.reach_of(event))
        self._n_events += 1
        self._decided.forget_recent(event.contact_ns, LEAN_UNDONE_S)
        actors = self._hands.actors(event, history).scaled(float(self.planogram.learnt.factor[HANDS]))
        held_near = self._held_near(actors)
        clusters = [cluster.arrays for cluster in self._clusters]
        recent = [decided.event.record for decided in self._decided.recent]
        relations = np.empty(len(clusters), np.int32)
        undone = kernel.relate(clusters, recent, opened.record, MODEL, relations)
        # Staff may bring and move anything, as if a plate were reversed.
        if self._staff.isdisjoint(actors.near) and not self._unexplained.is_shift(opened):
            self._weigh_factors(opened, held_near, undone)
        if not self._hands.is_behind_door(at):
            self.planogram.timing.add(event)
        proposal = self._candidates.propose(event, actors, history, held_near, self._carts.of, self._staff)
        # The clusters that the new event's candidates depend on.
        kernel.tie(clusters, proposal.columns, proposal.n, NEGLIGIBLE, relations)
        tied = [self._clusters[at] for at in np.flatnonzero(relations).tolist()]
        self._make_room(tied)
        cluster = self._hypotheses.merged(tied)
        self._hypotheses.extend(cluster, self._extension(opened, proposal))
        self._replace(tied, cluster)
        self._unexplained.add(opened, actors)
        self._missed.add(actors)
        self._unobserved.note_moved(event, actors)
        marginal = cluster.marginal(len(cluster.events) - 1)
        belief = cluster.belief_of(marginal, self.planogram.gtins)
        if sum([candidate.probability for candidate in belief.candidates if candidate.person is None]) > UNCLAIMED:
            reached = self._unobserved.note_unclaimed(event, history)
            self.planogram.note_elsewhere(event.plates, reached, int(marginal.goods[0, 1]))
        self.planogram.move_all(at, marginal.goods, marginal.of_part)
        self._learn_gain(event, marginal)
        self._decide(cluster, opened, belief)
        self._limit()
        return belief

    def _extension(self, opened: OpenEvent, proposal: Proposal) -> Extension:
        """A new event with its candidates, and what is settled about them."""
        put = proposal.put_back
        earlier = self._decided.undoable(opened, put)
        parts = [(*(event.parts[0] if event.parts else (-1, 0, 0)), len(event.parts)) for event in earlier]
        new = Extension(
            opened, proposal.n, proposal.columns, proposal.log_candidate, proposal.log_weight,
            earlier=[event.event.record for event in earlier],
            earlier_parts=np.array(parts, np.int32) if parts else None,
        )  # fmt: skip
        columns = proposal.columns[:, : proposal.n]
        if (columns[3] > 0).any():
            new.held, new.log_not_held = self._certainly_held(columns, put), self._log_not_held(columns)
        return new

    def note_undone(self, undone: UndoneLoad, history: ArmHistory) -> None:
        """Note a hand that left nothing, and that may have been a piece that one person took and another put."""
        first, second = (
            self._hands.actors(event, history).scaled(float(self.planogram.learnt.factor[HANDS]))
            for event in (undone.first, undone.second)
        )
        self._missed.add_undone(first, second, undone.log_odds, self._carts.of)

    def sight(self, t_ns: int, plate: str, gtin: str, probability: float) -> bool:
        """Note a classifier's sight of a product in a hand at a plate; False where the store lacks either."""
        if plate not in self._names or gtin not in self._product:
            return False
        self._candidates.sight(t_ns, self._names.index(plate), self._product[gtin], probability)
        return True

    def watch(self, blind: BlindPlates, history: ArmHistory, now_ns: int) -> None:
        """Note whose hands were over plates whose weights are not known, and whether hands and loads agree in time."""
        self.planogram.timing.step(self._hands, history, now_ns)
        self._unobserved.watch(blind, history, now_ns)

    def revise(self, people: Collection[int], gtin: str, log_likelihood: NDArray[np.float64]) -> None:
        """Weigh the hypotheses by the number of pieces of a product that these people hold together.

        log_likelihood (n,): of what was seen, by pieces; the last entry stands for more. Decided events stay.
        """
        carts, product = {self._carts.of(person) for person in people}, self._product[gtin]

        def concerned(cluster: Cluster) -> NDArray[np.bool_]:
            parts: NDArray[np.bool_] = cluster.parts_of(carts) & (cluster.table.product == product)
            return parts

        tied = [cluster for cluster in self._clusters if concerned(cluster)[cluster.probability > 1e-6].any()]
        if not tied:
            return
        self._make_room(tied)
        cluster = self._hypotheses.merged(tied)
        self._replace(tied, cluster)
        if not cluster.events:
            return
        taken = -np.where(concerned(cluster), cluster.table.quantity, 0).sum(axis=1)
        pieces = self._decided.pieces(carts, product) + taken[cluster.choices].sum(axis=1)
        cluster.weigh(log_likelihood[np.clip(pieces, 0, len(log_likelihood) - 1)])

    def _weigh_factors(self, opened: OpenEvent, held: NDArray[np.float64] | None, undone: int) -> None:
        """Learn from a load whether its plates read a wrong multiple of what goods weigh.

        held: (n_products,) pieces that the carts of those near are expected to hold.
        undone: id of the event that it may undo; negative: none.
        """
        factors, event = self.planogram.factors, opened.event
        before = factors.suspect
        if undone < 0:
            added = factors.observe(self.planogram, event.plates, event.delta_g, event.noise_g2, held)
            self._factor_evidence[opened.event_id] = _FactorEvidence(event.main_plate, added, before)
            if len(self._factor_evidence) > FACTOR_EVIDENCE_MAX:
                self._factor_evidence.pop(next(iter(self._factor_evidence)))
        elif undone in self._factor_evidence:
            # A lean, or goods that came back: neither load says what goods weigh.
            evidence = self._factor_evidence.pop(undone)
            factors.retract(evidence.plate, evidence.added)
            # It may have been cleared by other loads since.
            for plate in sorted((before | {evidence.plate}) - factors.suspect - evidence.suspect):
                self._unobserved.clear(plate)

    def _learn_gain(self, event: ShelfEvent, marginal: Marginal) -> None:
        """Learn the gains of the plates from an event that certainly moved goods of a known weight."""
        if marginal.single < KNOWN_WEIGHT:
            return
        # Which of two look-alikes it was matters little: they weigh nearly the same.
        product, quantity, others_g2 = kernel.likeliest_goods(
            marginal.goods, marginal.probability, self.planogram.weight_g
        )
        noise_g2 = event.noise_g2 + others_g2
        self.planogram.learnt.follow_gain(
            event.plates, event.delta_g, noise_g2, product, quantity, event.contact_ns
        )

    # ---- what carts hold ---------------------------------------------------------------------------------------------

    def _held_near(self, actors: Actors) -> NDArray[np.float64] | None:
        """(n_products,) pieces that the carts of the actors are expected to hold; None where staff may bring any."""
        if any(person in self._staff for person in actors.near):
            return None
        return self._expected_pieces({self._carts.of(person) for person in actors.near})

    def _expected_pieces(self, carts: set[int] | None) -> NDArray[np.float64]:
        """(n_products,) pieces that these carts (None: all) are expected to have taken, put-backs not subtracted."""
        pieces = np.zeros(len(self.planogram.gtins))
        for cart in self._decided.held if carts is None else carts:
            for product, quantity in self._decided.held.get(cart, {}).items():
                pieces[product] += max(quantity, 0)
        of_carts = None if carts is None else np.array([*carts], np.int32)
        kernel.add_expected([cluster.arrays for cluster in self._clusters], of_carts, NEGLIGIBLE, pieces)
        return pieces

    def _certainly_held(self, columns: NDArray[np.int32], put: Sequence[Kind]) -> NDArray[np.int32]:
        """(n, 2) pieces that the cart of each part that is put back holds by decided events.

        columns: of a table; put: the carts and products that occur in it.
        """
        _, cart, product, quantity = columns
        held = np.zeros(cart.shape, np.int32)
        for kind in put:
            pieces = self._decided.held_by(*kind)
            if pieces:
                held[(cart == kind.cart) & (product == kind.product) & (quantity > 0)] = pieces
        return held

    def _log_not_held(self, columns: NDArray[np.int32]) -> NDArray[np.float64]:
        """(n, 2) log cost of a candidate that puts back a piece which its cart does not hold; columns: of a table."""
        owner, _, product, quantity = columns
        anyone = self._expected_pieces(None)
        cost = np.where(anyone[product] > 0.3, LOG_HANDED_OVER, LOG_BROUGHT)
        cost[quantity <= 0] = 0.0
        if self._staff:
            cost[np.isin(owner, list(self._staff))] = 0.0
        return cost

    # ---- clusters ----------------------------------------------------------------------------------------------------

    def _make_room(self, clusters: list[Cluster]) -> None:
        """Decide the oldest events of clusters that would be too large together."""
        n_events = 0
        for cluster in clusters:
            while n_events + len(cluster.events) >= self._events_per_cluster_max and cluster.events:
                self.ignored["attribution: joint hypotheses cut"] += 1
                self._fix(cluster, 0)
            n_events += len(cluster.events)

    def _replace(self, old: list[Cluster], new: Cluster) -> None:
        if old:
            self._clusters = [cluster for cluster in self._clusters if cluster not in old]
        if new.events:
            self._clusters.append(new)

    def _decide(self, cluster: Cluster, newest: OpenEvent, belief: EventBelief) -> None:
        """Decide the events of a cluster that are as good as certain; belief: that of the newest."""
        index = len(cluster.events)
        while True:
            index = kernel.last_certain(cluster.event_of, cluster.probability, self._decided_from, index)
            if index < 0:
                break
            self._fix(cluster, index, belief if cluster.events[index] is newest else None)
            if not cluster.events:
                self._replace([cluster], cluster)
                break

    def _fix(self, cluster: Cluster, index: int, belief: EventBelief | None = None) -> None:
        """Condition a cluster on the most probable candidate of one of its events, and take the event out."""
        marginal = cluster.marginal(index)
        row, belief = marginal.row, belief or cluster.belief_of(marginal, self.planogram.gtins)
        self._decided.add(DecidedEvent.of(cluster, index, row, belief))
        cluster.condition(index, row)

    def _limit(self) -> None:
        """Keep to the number of events that may be open."""
        n_decided = len(self._decided.events)
        if n_decided + len(self._clusters) * self._events_per_cluster_max < OPEN_EVENTS_MAX:
            return
        n_open = sum(len(cluster.events) for cluster in self._clusters) + len(self._decided.events)
        while n_open > OPEN_EVENTS_MAX:
            self.ignored["attribution: open events limit"] += 1
            if self._decided.events:
                self._decided.events.pop(0)
                n_open -= 1
                continue
            self._fix(self._clusters[0], 0)
            if not self._clusters[0].events:
                self._clusters.pop(0)

    # ---- answers -----------------------------------------------------------------------------------------------------

    def beliefs(self) -> list[EventBelief]:
        """What every event that is not settled looks like now, in order of observation."""
        found = [decided.belief for decided in self._decided.events] + self._open_beliefs()
        return sorted(found, key=lambda belief: belief.event_id)

    def _open_beliefs(self) -> list[EventBelief]:
        gtins = self.planogram.gtins
        return [cluster.belief(i, gtins) for cluster in self._clusters for i in range(len(cluster.events))]

    def cart(
        self,
        people: Collection[int],
        given: Mapping[str, int] | None = None,
        undecided: Mapping[int, int] = MappingProxyType({}),
    ) -> CartBelief:
        """The goods most probably held together by these people (track ids), from the events that are not settled.

        given: pieces by GTIN that they got from people of other carts; negative: gave to them.
        undecided: since when plates (indices into store.plates) have had loads that are not reported yet.
        """
        carts = {self._carts.of(person) for person in people}
        gtins = self.planogram.gtins
        items: Counter[int] = Counter({self._product[gtin]: n for gtin, n in (given or {}).items()})
        log_right = 0.0
        log_line: defaultdict[int, float] = defaultdict(float)
        doubts: list[tuple[float, Reason]] = []
        for decided in self._decided.events:
            for part in decided.parts:
                if part.cart in carts:
                    items[part.product] -= part.quantity
                    log_line[part.product] += 0.0
            for kind, p in decided.line_doubt.items():
                if kind.cart in carts:
                    log_line[kind.product] += math.log(max(1.0 - p, PROBABILITY_MIN))
            right = 1.0 - sum(p for cart, p in decided.doubt.items() if cart in carts)
            log_right += math.log(max(right, PROBABILITY_MIN))
            if right < CLEAR:
                plate, delta_g = decided.event.plate, decided.event.total_g
                reason = Reason(ReasonKind.EVENT_UNCERTAIN, plate=plate, delta_g=delta_g, probability=right)
                doubts.append((right, reason))
        for cluster in self._clusters:
            concerns = cluster.parts_of(carts)
            if not concerns.any():
                continue
            added = cluster.contribution(concerns)
            for product, quantity in added.pieces.items():
                items[product] += quantity
            for product, p in added.line_right.items():
                log_line[product] += math.log(max(p, PROBABILITY_MIN))
            log_right += math.log(max(added.right, PROBABILITY_MIN))
            if added.right < CLEAR:
                doubts.append((added.right, _reason(cluster, concerns, added.right)))
        short = [product for product, quantity in items.items() if quantity < 0]
        for product in short:
            reason = Reason(ReasonKind.RETURNED_MORE_THAN_TAKEN, gtin=gtins[product], quantity=-items[product])
            doubts.append((0.0, reason))
        log_right += math.log(SHORT_RIGHT) if short else 0.0
        log_right += self._missed.log_none(self._pays_for(carts))
        for doubt, reason in self._sensor_doubts(carts, undecided):
            doubts.append((doubt.right, reason))
            log_right += math.log(doubt.right)
        return CartBelief(
            {gtins[product]: quantity for product, quantity in sorted(items.items()) if quantity > 0},
            {gtins[product]: min(math.exp(log_p), 1.0) for product, log_p in sorted(log_line.items())},
            min(math.exp(log_right), 1.0),
            tuple(reason for _, reason in sorted(doubts, key=lambda doubt: (doubt[0], doubt[1].plate or ""))),
            {gtins[product]: -items[product] for product in sorted(short)},
        )

    def questions(
        self, people: Collection[int], undecided: Mapping[int, int] = MappingProxyType({})
    ) -> list[CartQuestion]:
        """What these people (track ids) could be asked about their cart, the most informative question first.

        undecided: as for `cart`.
        """
        carts = {self._carts.of(person) for person in people}
        doubts = [doubt for doubt, _ in self._sensor_doubts(carts, undecided)]
        found = [question for cluster in self._clusters for question in about_loads(cluster, carts)]
        asked = {question.event_id for question in found}
        found += [about_silence(doubt, self.planogram) for doubt in doubts if doubt.event_id not in asked]
        found = [question.clears(doubts) for question in found]
        return sorted(found, key=lambda question: (-question.gain_bits, question.t_ns, question.plate))

    def price_times_surer(self, people: Collection[int], price_class: Sequence[int]) -> float:
        """How many times more probable the price of these people's cart is than its goods; see `equal_prices`."""
        return times_surer(self._clusters, {self._carts.of(person) for person in people}, price_class)

    def _sensor_doubts(self, carts: set[int], undecided: Mapping[int, int]) -> list[tuple[SilentDoubt, Reason]]:
        """What the plates may not have shown, or showed and no goods explain."""
        doubts, explained = [], self._explained()
        for reach in self._unobserved.unexplained(self._pays_for(carts), carts, explained, undecided):
            name = self._names[reach.plate]
            doubt = SilentDoubt(reach.plate, name, reach.t_ns, UNOBSERVED_RIGHT)
            doubts.append((doubt, Reason(reach.kind, plate=name)))
        for load in self._unexplained_by(carts, explained):
            right = 1.0 - (1.0 - UNEXPLAINED_RIGHT) * load.probability
            at = self._names.index(load.plate)
            doubt = SilentDoubt(at, load.plate, load.t_ns, right, load.event_id, load.delta_g)
            doubts.append((doubt, Reason(ReasonKind.LOAD_UNEXPLAINED, plate=load.plate, delta_g=load.delta_g)))
        return doubts

    def reached_behind_door(self, people: Collection[int], plate: int, since_ns: int) -> bool:
        """Whether the door before a plate (an index) has been open for one of these track ids since an instant."""
        return self._hands.openings.reached(people, plate, since_ns)

    def may_yet_show(self, people: Collection[int], now_ns: int) -> bool:
        """Whether a silent plate into which one of these people (track ids) reached may still show what they did."""
        carts = {self._carts.of(person) for person in people}
        return self._unobserved.may_yet_show(self._pays_for(carts), carts, self._explained, now_ns)

    def unexplained_by(self, people: Collection[int]) -> frozenset[int]:
        """Ids of the events that these people (track ids) may have caused and that no goods explain."""
        carts = {self._carts.of(person) for person in people}
        return frozenset(load.event_id for load in self._unexplained_by(carts, self._explained()))

    def _unexplained_by(self, carts: set[int], explained: Sequence[Explained]) -> list[Unexplained]:
        return self._unexplained.of(self._pays_for(carts), self._nothing(), explained)

    def _explained(self) -> list[Explained]:
        """All events that are not settled, and what each most probably was."""
        events = [Explained(decided.event.event, decided.parts) for decided in self._decided.events]
        return events + [
            Explained(opened.event, cluster.table.parts(cluster.best_row(index)))
            for cluster in self._clusters
            for index, opened in enumerate(cluster.events)
        ]

    def _pays_for(self, carts: set[int]) -> Callable[[int], bool]:
        """Whether what a person (a track id) takes goes into one of these carts."""
        return lambda person: self._carts.of(person) in carts and person not in self._staff

    def _nothing(self) -> dict[int, float]:
        """Probability that no goods moved, by the id of every event that is not settled."""
        nothing = {decided.event.event_id: 0.0 if decided.parts else 1.0 for decided in self._decided.events}
        for cluster in self._clusters:
            of_nothing = ~cluster.table.quantity.any(axis=1)
            of_event = np.bincount(cluster.event_of[of_nothing], cluster.probability[of_nothing], len(cluster.events))
            nothing |= zip((opened.event_id for opened in cluster.events), of_event.tolist())
        return nothing

    # ---- closing -----------------------------------------------------------------------------------------------------

    def settle(self, people: Collection[int]) -> list[EventBelief]:
        """Note that people have left; freeze and return the events that no person who is still here may have caused."""
        leaving = {self._carts.of(person) for person in people}
        self._gone = self._gone | leaving
        released = self._decided.settle(self._gone)
        for cluster in self._clusters:
            acts = (cluster.table.cart >= 0) & (cluster.table.quantity != 0)
            by_others = (acts & ~cluster.parts_of(self._gone)).any(axis=1)
            for index in range(len(cluster.events) - 1, -1, -1):
                of_event = cluster.event_of == index
                if cluster.probability[of_event & by_others].sum() < 10 * NEGLIGIBLE:
                    released.append(cluster.belief(index, self.planogram.gtins))
                    by_others = by_others[~of_event]
                    cluster.drop_event(index)
                    cluster.refresh()
        self._clusters = [cluster for cluster in self._clusters if cluster.events]
        self._decided.forget_carts(leaving)
        self._unexplained.settle(released)
        for noted in (self._unobserved, self._unexplained, self._missed):
            noted.forget(lambda person: self._carts.of(person) in leaving)
        self._carts.forget(leaving)
        self._gone &= {cart for cluster in self._clusters for cart in cluster.carts}
        return sorted(released, key=lambda belief: belief.event_id)

    def finish(self) -> list[EventBelief]:
        """All events that are still open; nothing is open afterwards."""
        released = self._decided.finish() + self._open_beliefs()
        self._clusters = []
        return sorted(released, key=lambda belief: belief.event_id)


def _reason(cluster: Cluster, concerns: NDArray[np.bool_], right: float) -> Reason:
    """Why a cluster makes a cart uncertain: its least clear event that concerns the cart, and what about it.

    right: probability that the cluster's part of the cart is right; the reason where no single event stands out.
    """
    worst = cluster.least_clear(concerns)
    if worst is None:
        return Reason(ReasonKind.CART_UNCERTAIN, probability=right)
    kind = ReasonKind.PERSON_UNCERTAIN if worst.person_unclear else ReasonKind.GOODS_UNCERTAIN
    opened = worst.event
    return Reason(kind, plate=opened.plate, delta_g=opened.total_g, probability=worst.probability)
