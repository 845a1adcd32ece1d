"""Joint hypotheses: what all open shelf events were, together. A multiple-hypothesis tracker of goods.

A joint hypothesis h assigns one candidate to every open event e_1 .. e_k: a person, a product and a quantity, two of
these, or nothing. As in hypothesis-oriented tracking (Reid, IEEE Trans. Automatic Control 24, 1979), hypotheses grow by
one event at a time:

    P(h, c | e_1 .. e_k)  ∝  P(h | e_1 .. e_(k-1))  p(e_k | c) P(c)  P(c | h),

where p(e_k | c) P(c) weighs a candidate of the new event by weight, place and hands, and P(c | h) by what happened
before: only what a cart holds can come back, no hand is in two places at once, and a load that undoes an earlier one
weighs the same. The probability of a candidate is its marginal, the sum of P(h) over the hypotheses that pick it.

- *Clusters* (Reid, section V). Events that do not constrain each other are independent, so every set of events that do
  is a cluster with hypotheses of its own. Clusters merge when a new event ties them; the hypotheses of the merged
  cluster are the pairs of both, P(a, b) = P(a) P(b). So the cost of an event does not grow with the number of people.
- *k best* (Cox and Hingorani, IEEE Trans. PAMI 18, 1996). Only the HYPOTHESES_MAX most probable hypotheses are kept.
  Where several measurements compete for several tracks, they have to be found by ranked assignment (Murty, Operations
  Research 16, 1968). Here one event is added at a time, and any of its candidates may extend any hypothesis. So it is
  exact to weigh all pairs and to keep the k greatest in a heap, in O(n_hypotheses n_candidates log k).
- *Pruning*. Hypotheses less probable than the best by exp(LOG_SPREAD) are dropped. An event whose best candidate is
  nearly certain is fixed: the cluster is conditioned on it, and it leaves the cluster.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import attribution as kernel
from fusion.goods.beliefs import EventBelief, EventCandidate
from fusion.goods.loads import ShelfEvent
from fusion.goods.pieces import Pieces, likeliest, signed_pieces, weights_of

HYPOTHESES_MAX = 128
EVENTS_PER_CLUSTER_MAX = 24
# Hypotheses less probable than the best by a factor of exp(18) are dropped.
LOG_SPREAD = 18.0
# Below this probability a candidate neither ties events together nor keeps one open.
NEGLIGIBLE = 1e-3
# Two events of one person within this time need two hands. Of simulated pairs of events at two plates less than 0.6 m
# apart, 13 in 471 were one person's, and 6 in 339 of those at least 0.2 s apart.
BUSY_S, LOG_BUSY = 0.8, math.log(0.02)


class Part(NamedTuple):
    """A part of a load: pieces that came onto a shelf (negative: left it), and the cart concerned; -1: unknown."""

    cart: int
    product: int
    quantity: int


class Kind(NamedTuple):
    """A cart and a product."""

    cart: int
    product: int


@dataclass(slots=True, eq=False)
class OpenEvent:
    """A shelf event that is not settled.

    Attributes:
        event_id: in order of observation.
        event: as measured.
        plate: name of the plate that bears most of the load.
        total_g, noise_g2: sum over the plates, and its variance from noise.
        plates: the plates that bear the load.
    """

    event_id: int
    event: ShelfEvent
    plate: str
    total_g: float = field(init=False)
    noise_g2: float = field(init=False)
    plates: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        self.total_g = self.event.total_g
        self.noise_g2 = self.event.noise_g2
        self.plates = frozenset(self.event.plates.tolist())


@dataclass(slots=True, eq=False)
class CandidateTable:
    """Candidates, (n, 2) int32 each: a load has up to two parts, moved by one person or by two at the same time.

    Attributes:
        owner: track id of the hand; -1 unknown.
        cart: who pays, see `Attributor.join`; -1 unknown.
        product: index into store.products.
        quantity: signed pieces; 0: no such part; 0 in both parts: nothing moved.
    """

    owner: NDArray[np.int32]
    cart: NDArray[np.int32]
    product: NDArray[np.int32]
    quantity: NDArray[np.int32]

    @classmethod
    def empty(cls) -> CandidateTable:
        """A table without candidates."""
        return cls(*(np.zeros((0, 2), np.int32) for _ in range(4)))

    def __len__(self) -> int:
        return len(self.owner)

    def take(self, rows: NDArray[np.bool_]) -> CandidateTable:
        """The candidates of some rows."""
        return CandidateTable(self.owner[rows], self.cart[rows], self.product[rows], self.quantity[rows])

    def plus(self, other: CandidateTable) -> CandidateTable:
        """This table, with another one below it."""
        above = (self.owner, self.cart, self.product, self.quantity)
        below = (other.owner, other.cart, other.product, other.quantity)
        return CandidateTable(*(np.concatenate(pair) for pair in zip(above, below)))

    def parts(self, row: int) -> tuple[Part, ...]:
        """What a candidate moved; empty where it moved nothing."""
        columns = self.cart[row].tolist(), self.product[row].tolist(), self.quantity[row].tolist()
        return tuple(Part(*part) for part in zip(*columns) if part[2])

    def rows_by_kind(self) -> dict[Kind, list[int]]:
        """Rows of the candidates of one part, by cart and product."""
        rows: dict[Kind, list[int]] = {}
        one_part = np.flatnonzero((self.quantity[:, 0] != 0) & (self.quantity[:, 1] == 0))
        carts, products = self.cart[one_part, 0].tolist(), self.product[one_part, 0].tolist()
        for row, cart, product in zip(one_part.tolist(), carts, products):
            rows.setdefault(Kind(cart, product), []).append(row)
        return rows


class Contribution(NamedTuple):
    """What a cluster most probably adds to a cart.

    Attributes:
        pieces: by product.
        line_right: probability by product that its quantity is right, of all products that may be concerned.
        right: probability that all of it is right.
    """

    pieces: dict[int, int]
    line_right: dict[int, float]
    right: float


class LeastClear(NamedTuple):
    """The least certain event of a cluster that concerns a cart.

    Attributes:
        event: the event.
        probability: of its best candidate.
        person_unclear: whether the person is less certain than the goods.
    """

    event: OpenEvent
    probability: float
    person_unclear: bool


@dataclass(slots=True, eq=False)
class Cluster:
    """Events that constrain each other, and their best joint hypotheses.

    Attributes:
        events: in the order of the columns of choices.
        event_of: (n_candidates,) int32 index into events that a candidate belongs to.
        table: the candidates of all events.
        choices: (n, n_events) int32 hypotheses, best first: the row of the table that each event's entry picks.
        log_weight: (n,) float64 log probability of each, normalised.

        What follows from these is kept by `refresh`:
        probability: (n_candidates,) float64 marginal of every candidate.
        expected: pieces that were taken, by cart and product, put-backs not subtracted.
        people, carts: who may have acted, and who would pay.
    """

    events: list[OpenEvent]
    event_of: NDArray[np.int32]
    table: CandidateTable
    choices: NDArray[np.int32]
    log_weight: NDArray[np.float64]
    probability: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    expected: dict[Kind, float] = field(default_factory=dict)
    people: set[int] = field(default_factory=set)
    carts: set[int] = field(default_factory=set)

    @classmethod
    def empty(cls) -> Cluster:
        """No events: one hypothesis, which is certain."""
        return cls([], np.zeros(0, np.int32), CandidateTable.empty(), np.zeros((1, 0), np.int32), np.zeros(1))

    def refresh(self) -> None:
        """Recompute what follows from the hypotheses; to be called after every change of them."""
        table = self.table
        self.probability = np.empty(len(table))
        kernel.marginals(self.choices, self.log_weight, self.probability)
        self.expected, self.people, self.carts = {}, set(), set()
        rows, parts = np.nonzero((self.probability[:, None] > 1e-4) & (table.owner >= 0) & (table.quantity != 0))
        columns = (
            table.owner[rows, parts], table.cart[rows, parts], table.product[rows, parts], table.quantity[rows, parts],
            self.probability[rows],
        )  # fmt: skip
        for owner, cart, product, quantity, p in zip(*(column.tolist() for column in columns)):
            if p > NEGLIGIBLE:
                self.people.add(owner)
                self.carts.add(cart)
            if quantity < 0:
                kind = Kind(cart, product)
                self.expected[kind] = self.expected.get(kind, 0.0) - quantity * p

    # ---- answers -----------------------------------------------------------------------------------------------------

    def rows_of(self, index: int) -> NDArray[np.int64]:
        """Rows of the table that are candidates of an event (an index into events)."""
        return np.flatnonzero(self.event_of == index)

    def best_row(self, index: int) -> int:
        """The row of an event's most probable candidate."""
        rows = self.rows_of(index)
        return int(rows[np.argmax(self.probability[rows])])

    def belief(self, index: int, gtins: Sequence[str]) -> EventBelief:
        """An event as it looks now. gtins: by product."""
        summed: defaultdict[tuple[int, int, int], float] = defaultdict(float)
        table, opened = self.table, self.events[index]
        for row in np.flatnonzero((self.event_of == index) & (self.probability > 0.0)).tolist():
            parts = [part for part in range(2) if table.quantity[row, part]]
            for part in parts:
                key = int(table.owner[row, part]), int(table.product[row, part]), int(table.quantity[row, part])
                summed[key] += float(self.probability[row]) / len(parts)
        candidates = tuple(
            EventCandidate(None if owner < 0 else owner, gtins[product], quantity, min(p, 1.0))
            for (owner, product, quantity), p in sorted(summed.items(), key=lambda item: (-item[1], item[0]))
            if p > 1e-6
        )
        return EventBelief(
            opened.event_id,
            opened.event.contact_ns,
            opened.plate,
            opened.total_g,
            candidates,
            self._two_parts(index, gtins),
        )

    def _two_parts(self, index: int, gtins: Sequence[str]) -> tuple[EventCandidate, ...]:
        """The parts of an event's most probable candidate, where there are two."""
        table, row = self.table, self.best_row(index)
        if not table.quantity[row].all():
            return ()
        p = float(self.probability[row])
        columns = table.owner[row].tolist(), table.product[row].tolist(), table.quantity[row].tolist()
        return tuple(
            EventCandidate(None if owner < 0 else owner, gtins[product], quantity, p)
            for owner, product, quantity in zip(*columns)
        )

    def parts_of(self, carts: set[int]) -> NDArray[np.bool_]:
        """(n_candidates, 2) parts that concern these carts."""
        concerns: NDArray[np.bool_] = np.isin(self.table.cart, list(carts)) & (self.table.quantity != 0)
        return concerns

    def moves(self, concerns: NDArray[np.bool_]) -> dict[int, Pieces]:
        """By row of the table, the pieces that its concerned parts put on a shelf; rows without any are left out."""
        product, quantity = self.table.product.tolist(), self.table.quantity.tolist()
        return {
            row: signed_pieces((product[row][part], quantity[row][part]) for part in range(2) if concerns[row, part])
            for row in np.flatnonzero(concerns.any(axis=1)).tolist()
        }

    def carted(self, moves: Mapping[int, Pieces]) -> list[Pieces]:
        """What each joint hypothesis adds to a cart. moves: as of `moves`."""
        return [
            signed_pieces((product, -n) for row in chosen for product, n in moves.get(row, ()))
            for chosen in self.choices.tolist()
        ]

    def contribution(self, concerns: NDArray[np.bool_]) -> Contribution:
        """What the cluster most probably adds to a cart. concerns: as for `parts_of`."""
        outcomes = weights_of(self.carted(self.moves(concerns)), np.exp(self.log_weight).tolist())
        best = likeliest(outcomes)
        chosen = dict(best)
        products = {item for key in outcomes for item, _ in key}
        line_right = {
            item: sum(p for key, p in outcomes.items() if dict(key).get(item, 0) == chosen.get(item, 0))
            for item in products
        }
        return Contribution(chosen, line_right, outcomes[best])

    def least_clear(self, concerns: NDArray[np.bool_]) -> LeastClear | None:
        """The least certain event that concerns a cart; None where none does. concerns: as for `parts_of`."""
        table, probability = self.table, self.probability
        worst: LeastClear | None = None
        for index, opened in enumerate(self.events):
            of_event = self.event_of == index
            if not (of_event[:, None] & concerns).any():
                continue
            top = float(probability[of_event].max())
            if worst is None or top < worst.probability:
                person = _largest(table.cart[of_event], probability[of_event])
                goods = np.stack([table.product, table.quantity], axis=1)[of_event]
                worst = LeastClear(opened, top, person < _largest(goods, probability[of_event]))
        return worst

    # ---- changes -----------------------------------------------------------------------------------------------------

    def weigh(self, log_likelihood: NDArray[np.float64]) -> None:
        """Multiply the hypotheses by a likelihood (n,), given as its logarithm."""
        log_weight = normalised(self.log_weight + log_likelihood)
        order = np.argsort(-log_weight, kind="stable")
        self.choices = np.ascontiguousarray(self.choices[order])
        self.log_weight = log_weight[order]
        self.refresh()

    def condition(self, index: int, row: int) -> None:
        """Fix an event to a candidate (a row of the table), and take the event out."""
        if len(self.events) == 1:
            self.events.clear()
            return
        kept = self.choices[:, index] == row
        self.choices = self.choices[kept]
        self.log_weight = normalised(self.log_weight[kept])
        self.drop_event(index)
        self.refresh()

    def drop_event(self, index: int) -> None:
        """Sum an event out: hypotheses that differ only in it become one. `refresh` is left to the caller."""
        self.events.pop(index)
        keep = self.event_of != index
        renumbered = np.cumsum(keep, dtype=np.int32) - 1
        choices = np.delete(self.choices, index, axis=1)
        merged: dict[tuple[int, ...], float] = {}
        for row, log_weight in zip(renumbered[choices].tolist(), self.log_weight.tolist()):
            key = tuple(row)
            merged[key] = float(np.logaddexp(merged[key], log_weight)) if key in merged else log_weight
        ranked = sorted(merged.items(), key=lambda item: (-item[1], item[0]))
        self.choices = np.array([row for row, _ in ranked], np.int32).reshape(len(ranked), len(self.events))
        self.log_weight = np.array([log_weight for _, log_weight in ranked])
        event_of = self.event_of[keep]
        self.event_of = (event_of - (event_of > index)).astype(np.int32)
        self.table = self.table.take(keep)


@dataclass(slots=True, eq=False)
class Extension:
    """A new event for a cluster: everything that the kernel weighs its candidates by.

    Attributes:
        opened: the event.
        table: its candidates; the last one moved nothing.
        log_candidate: (n_new,) log prior times likelihood of each.
        held: (n_new, 2) pieces that the cart of a part certainly holds.
        log_not_held: (n_new, 2) log cost of a put-back of goods that its cart does not hold.
        log_pair: (n_old, n_new) log ratio of a new candidate as the undoing of an old one, see `kernel.extend`.
        settled_ratio, n_settled: (n_new,) the same of events that are settled: sum, and number.
    """

    opened: OpenEvent
    table: CandidateTable
    log_candidate: NDArray[np.float64]
    held: NDArray[np.int32]
    log_not_held: NDArray[np.float64]
    log_pair: NDArray[np.float64]
    settled_ratio: NDArray[np.float64]
    n_settled: NDArray[np.int32]


class HypothesisKernel:
    """Merges and extends clusters, with room for the k best hypotheses."""

    def __init__(self) -> None:
        self._key = np.empty(HYPOTHESES_MAX)
        self._pick = np.empty(HYPOTHESES_MAX, np.int32)

    def merged(self, clusters: Sequence[Cluster]) -> Cluster:
        """One cluster in place of several that were independent so far; an empty one where there are no events."""
        merged = Cluster.empty()
        for cluster in clusters:
            if not cluster.events:
                continue
            if not merged.events:
                merged = cluster
                continue
            kept = kernel.merge(merged.log_weight, cluster.log_weight, self._key, self._pick, LOG_SPREAD)
            rows_a, rows_b = np.divmod(self._pick[:kept], len(cluster.log_weight))
            below = cluster.choices[rows_b] + np.int32(len(merged.table))
            merged = Cluster(
                merged.events + cluster.events,
                np.append(merged.event_of, cluster.event_of + np.int32(len(merged.events))),
                merged.table.plus(cluster.table),
                np.concatenate([merged.choices[rows_a], below], axis=1).astype(np.int32),
                normalised(self._key[:kept]),
                np.append(merged.probability, cluster.probability),
            )
        return merged

    def extend(self, cluster: Cluster, new: Extension, origin_ns: int) -> None:
        """Add an event to a cluster. origin_ns: contact times are measured from here, to be exact as float64."""
        n_new, first = len(new.table), len(cluster.table)
        cluster.events.append(new.opened)
        cluster.event_of = np.append(cluster.event_of, np.full(n_new, len(cluster.events) - 1, np.int32))
        cluster.table = cluster.table.plus(new.table)
        event_s = np.array([(opened.event.contact_ns - origin_ns) * 1e-9 for opened in cluster.events])
        table = cluster.table
        kept = kernel.extend(
            cluster.choices, cluster.log_weight, table.owner, table.cart, table.product, table.quantity, first,
            event_s, new.log_candidate, new.log_not_held, new.held, new.log_pair, new.settled_ratio, new.n_settled,
            BUSY_S, LOG_BUSY, self._key, self._pick, LOG_SPREAD,
        )  # fmt: skip
        rows, picks = np.divmod(self._pick[:kept], n_new)
        cluster.choices = np.concatenate([cluster.choices[rows], (first + picks)[:, None]], axis=1).astype(np.int32)
        cluster.log_weight = normalised(self._key[:kept])
        cluster.refresh()


def normalised(log_weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log weights (n,), shifted so that their probabilities sum to one."""
    top = log_weight.max()
    shifted: NDArray[np.float64] = log_weight - (top + math.log(float(np.exp(log_weight - top).sum())))
    return shifted


def _largest(label: NDArray[np.int32], probability: NDArray[np.float64]) -> float:
    """Probability of the most probable label; label (n, ...)."""
    summed: defaultdict[bytes, float] = defaultdict(float)
    for row, p in zip(label, probability.tolist()):
        summed[row.tobytes()] += p
    return max(summed.values())
