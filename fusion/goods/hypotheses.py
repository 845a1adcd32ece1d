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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import goods as kernel
from fusion.goods.beliefs import EventBelief, EventCandidate
from fusion.goods.loads import ShelfEvent
from fusion.goods.pieces import Pieces, likeliest, signed_pieces, weights_of
from fusion.goods.planogram import Planogram

HYPOTHESES_MAX: int = kernel.HYPOTHESES_MAX  # No more than there, since its heaps are on the stack.
EVENTS_PER_CLUSTER_MAX = 24
# Hypotheses less probable than the best by a factor of exp(18) are dropped.
LOG_SPREAD = 18.0
# Below this probability a candidate neither ties events together nor keeps one open.
NEGLIGIBLE = 1e-3
# Two events of one person within this time need two hands. Of simulated pairs of events at two plates less than 0.6 m
# apart, 13 in 471 were one person's, and 6 in 339 of those at least 0.2 s apart.
BUSY_S, LOG_BUSY = 0.8, math.log(0.02)


# A hand that leans, or a bag that rests on a shelf, is gone within this time.
LEAN_UNDONE_S, LOG_UNDONE = 30.0, math.log(300.0)
# The later load is the same as the earlier one up to this many deviations; two leans are alike within this factor.
SAME_LOAD_MAX_SDS, ALIKE_RATIO = 4.0, 2.0
# A piece that is put back is a piece that was taken. A piece that is taken where a piece was just put back is the same
# piece in half of the cases. Some loads are measured badly, or rest on something else.
LOG_SAME_PUT, LOG_OTHER_PUT = math.log(0.9), math.log(0.1)
LOG_SAME_TAKEN, LOG_OTHER_TAKEN = math.log(0.5), math.log(0.5)
SAME_PIECE_SD_G = 1.5
# The constants above in the order of the kernel's enum.
MODEL = np.array([
    BUSY_S, LOG_BUSY, LOG_SPREAD, LEAN_UNDONE_S, LOG_UNDONE, SAME_LOAD_MAX_SDS, ALIKE_RATIO,
    LOG_SAME_PUT, LOG_OTHER_PUT, LOG_SAME_TAKEN, LOG_OTHER_TAKEN, SAME_PIECE_SD_G,
])  # fmt: skip

# Behind a door, all hands are those of one person and of whoever helps them, so that there are more than two.
MODEL_BEHIND_DOOR = MODEL.copy()
MODEL_BEHIND_DOOR[0] = 0.0

# What the kernel reads of a shelf event. Loads rest on at most four plates; beyond PLATES_MAX, they are left out.
EVENT = np.dtype([
    ("event_id", np.int64), ("contact_ns", np.int64), ("total_g", np.float64), ("noise_g2", np.float64),
    ("reach", np.int64), ("n_plates", np.int64), ("plate", np.int64, kernel.PLATES_MAX),
    ("share", np.float64, kernel.PLATES_MAX),
])  # fmt: skip


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
        reach: behind a door, the opening through which hands could be at the plates; 0 in the open.
        total_g, noise_g2: sum over the plates, and its variance from noise.
        plates: the plates that bear the load.
        record: (1,) EVENT.
    """

    event_id: int
    event: ShelfEvent
    plate: str
    reach: int = 0
    total_g: float = field(init=False)
    noise_g2: float = field(init=False)
    plates: frozenset[int] = field(init=False)
    record: NDArray[np.void] = field(init=False)

    def __post_init__(self) -> None:
        event = self.event
        self.total_g, self.noise_g2 = event.total_g, event.noise_g2
        plates = event.plates.tolist()
        self.plates = frozenset(plates)
        self.record = np.zeros(1, EVENT)
        kernel.note_event(self.event_id, event.contact_ns, event.total_g, event.noise_g2, self.reach, event.plates,
                          event.share, self.record)  # fmt: skip


@dataclass(slots=True, eq=False)
class CandidateTable:
    """Candidates: a load has up to two parts, moved by one person or by two at the same time.

    Attributes:
        columns: (4, n, 2) int32: the four below.
        owner: (n, 2) track id of the hand; -1 unknown.
        cart: who pays, see `Attributor.join`; -1 unknown.
        product: index into store.products.
        quantity: signed pieces; 0: no such part; 0 in both parts: nothing moved.
    """

    columns: NDArray[np.int32]

    @classmethod
    def empty(cls) -> CandidateTable:
        """A table without candidates."""
        return cls(np.zeros((4, 0, 2), np.int32))

    @property
    def owner(self) -> NDArray[np.int32]:
        """See above; all four are views."""
        owner: NDArray[np.int32] = self.columns[0]
        return owner

    @property
    def cart(self) -> NDArray[np.int32]:
        """See above."""
        cart: NDArray[np.int32] = self.columns[1]
        return cart

    @property
    def product(self) -> NDArray[np.int32]:
        """See above."""
        product: NDArray[np.int32] = self.columns[2]
        return product

    @property
    def quantity(self) -> NDArray[np.int32]:
        """See above."""
        quantity: NDArray[np.int32] = self.columns[3]
        return quantity

    def __len__(self) -> int:
        return int(self.columns.shape[1])

    def parts(self, row: int) -> tuple[Part, ...]:
        """What a candidate moved; empty where it moved nothing."""
        return tuple([Part(*part) for part in self.columns[1:, row].T.tolist() if part[2]])


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


class Marginal(NamedTuple):
    """What an event of a cluster may have been.

    Attributes:
        event: its index in the cluster.
        row: of its most probable candidate.
        goods: (n, 3) int32 person, product and signed pieces, most probable first.
        probability: (n,) of each, where two parts of a load share theirs; what is left is that nothing moved.
        of_part: (n,) of each, where both parts of a load have all of it.
    """

    event: int
    row: int
    goods: NDArray[np.int32]
    probability: NDArray[np.float64]
    of_part: NDArray[np.float64]

    @property
    def single(self) -> float:
        """Probability that goods moved in one part."""
        return float(2.0 * self.probability.sum() - self.of_part.sum())


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


class _Acting(NamedTuple):
    """See the attributes of `Cluster`."""

    expected: dict[Kind, float]
    people: set[int]
    carts: set[int]


def _room(n_events: int, n_candidates: int, n_hypotheses: int) -> tuple[NDArray[Any], ...]:
    """Arrays for a cluster, as in `Cluster.arrays`."""
    return (
        np.empty(n_events, EVENT), np.empty(n_candidates, np.int32), np.empty((4, n_candidates, 2), np.int32),
        np.empty((n_hypotheses, n_events), np.int32), np.empty(n_hypotheses), np.empty(n_candidates),
    )  # fmt: skip


_NO_EVENTS = _room(0, 0, 1)
_NO_EVENTS[4][:] = 0.0


@dataclass(slots=True, eq=False)
class Cluster:
    """Events that constrain each other, and their best joint hypotheses.

    Attributes:
        events: in the order of the columns of choices.
        arrays: the six below, as the kernel unpacks them.
        records: (n_events,) EVENT, of the events.
        event_of: (n_candidates,) int32 index into events that a candidate belongs to, in ascending order.
        table: the candidates of all events.
        choices: (n, n_events) int32 hypotheses, best first: the row of the table that each event's entry picks.
        log_weight: (n,) float64 log probability of each, normalised.
        probability: (n_candidates,) float64 marginal of every candidate.
        expected: pieces that were taken, by cart and product, put-backs not subtracted.
        people, carts: who may have acted, and who would pay.
    """

    events: list[OpenEvent]
    arrays: tuple[NDArray[Any], ...]
    _acting: _Acting | None = None  # What follows from the hypotheses, once it is asked for.

    @classmethod
    def empty(cls) -> Cluster:
        """No events: one hypothesis, which is certain."""
        return cls([], _NO_EVENTS)

    @classmethod
    def of(
        cls,
        events: Sequence[OpenEvent],
        event_of: NDArray[np.int32],
        columns: NDArray[np.int32],
        choices: NDArray[np.int32],
        log_weight: NDArray[np.float64],
    ) -> Cluster:
        """A cluster of these events (at least one), candidates and hypotheses; columns: of the table."""
        records = np.concatenate([opened.record for opened in events])
        ints = (np.ascontiguousarray(array, np.int32) for array in (event_of, columns, choices))
        made = cls(list(events), (records, *ints, log_weight, np.empty(len(event_of))))
        made.refresh()
        return made

    @property
    def records(self) -> NDArray[np.void]:
        """See above."""
        return self.arrays[0]

    @property
    def event_of(self) -> NDArray[np.int32]:
        """See above."""
        return self.arrays[1]

    @property
    def table(self) -> CandidateTable:
        """See above; a view."""
        return CandidateTable(self.arrays[2])

    @property
    def choices(self) -> NDArray[np.int32]:
        """See above."""
        return self.arrays[3]

    @property
    def log_weight(self) -> NDArray[np.float64]:
        """See above."""
        return self.arrays[4]

    @property
    def probability(self) -> NDArray[np.float64]:
        """See above."""
        return self.arrays[5]

    def refresh(self) -> None:
        """Recompute what follows from the hypotheses; to be called after every change of them."""
        kernel.marginals(self.choices, self.log_weight, self.probability)
        self._acting = None

    def _replace(self, arrays: tuple[NDArray[Any], ...], n_hypotheses: int) -> None:
        """Take the kernel's answer, of which the first rows of the hypotheses are filled."""
        records, event_of, columns, choices, log_weight, probability = arrays
        self.arrays = records, event_of, columns, choices[:n_hypotheses], log_weight[:n_hypotheses], probability
        self._acting = None

    def _found(self) -> _Acting:
        if self._acting is None:
            n = 2 * len(self.table)
            kinds, acting, pieces = np.empty((n, 2), np.int32), np.empty((n, 2), np.int32), np.empty(n)
            n_kinds, n_acting = kernel.sum_expected(
                self.table.columns, self.probability, NEGLIGIBLE, kinds, pieces, acting
            )
            expected = {Kind(*kind): p for kind, p in zip(kinds[:n_kinds].tolist(), pieces[:n_kinds].tolist())}
            people, carts = acting[:n_acting].T.tolist() if n_acting else ((), ())
            self._acting = _Acting(expected, set(people), set(carts))
        return self._acting

    @property
    def expected(self) -> dict[Kind, float]:
        """See above."""
        return self._found().expected

    @property
    def people(self) -> set[int]:
        """See above."""
        return self._found().people

    @property
    def carts(self) -> set[int]:
        """See above."""
        return self._found().carts

    # ---- answers -----------------------------------------------------------------------------------------------------

    def rows_of(self, index: int) -> slice:
        """Rows of the table that are candidates of an event (an index into events)."""
        first = int(self.event_of.searchsorted(index))
        return slice(first, int(self.event_of.searchsorted(index, "right")))

    def best_row(self, index: int) -> int:
        """The row of an event's most probable candidate."""
        rows = self.rows_of(index)
        return int(rows.start + self.probability[rows].argmax())

    def marginal(self, index: int) -> Marginal:
        """What an event (an index into events) may have been, whatever the others were."""
        columns, n = self.table.columns, 2 * len(self.event_of)
        goods, probability, of_part = np.empty((n, 3), np.int32), np.empty(n), np.empty(n)
        n, row = kernel.describe(self.event_of, columns, self.probability, index, goods, probability, of_part)
        return Marginal(index, row, goods[:n], probability[:n], of_part[:n])

    def belief(self, index: int, gtins: Sequence[str]) -> EventBelief:
        """An event as it looks now. gtins: by product."""
        return self.belief_of(self.marginal(index), gtins)

    def belief_of(self, marginal: Marginal, gtins: Sequence[str]) -> EventBelief:
        """The same, of an event that has been summed up."""
        opened, row = self.events[marginal.event], marginal.row
        candidates = tuple([
            EventCandidate(None if owner < 0 else owner, gtins[product], quantity, p if p < 1.0 else 1.0)
            for (owner, product, quantity), p in zip(marginal.goods.tolist(), marginal.probability.tolist())
        ])  # fmt: skip
        columns, parts = self.arrays[2], tuple[EventCandidate, ...]()
        # Two parts, each with the whole probability.
        if columns[3, row, 1]:
            p = float(self.probability[row])
            parts = tuple([
                EventCandidate(None if owner < 0 else owner, gtins[product], quantity, p)
                for owner, _, product, quantity in columns[:, row].T.tolist()
            ])  # fmt: skip
        contact_ns = opened.event.contact_ns
        return EventBelief(opened.event_id, contact_ns, opened.plate, opened.total_g, candidates, parts)

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
        records, event_of, columns, choices, _, probability = self.arrays
        self.arrays = records, event_of, columns, np.ascontiguousarray(choices[order]), log_weight[order], probability
        self.refresh()

    def condition(self, index: int, row: int) -> None:
        """Fix an event to a candidate (a row of the table), and take the event out."""
        if len(self.events) == 1:
            self.events.clear()
            return
        self._drop(index, row)

    def drop_event(self, index: int) -> None:
        """Sum an event out: hypotheses that differ only in it become one."""
        self._drop(index, -1)

    def _drop(self, index: int, row: int) -> None:
        rows = self.rows_of(index)
        n_left = len(self.event_of) - (rows.stop - rows.start)
        out = _room(len(self.events) - 1, n_left, len(self.log_weight))
        self._replace(out, kernel.drop_event(self.arrays, index, row, out))
        self.events.pop(index)


@dataclass(slots=True, eq=False)
class Extension:
    """A new event for a cluster: everything that the kernel weighs its candidates by.

    Attributes:
        opened: the event.
        n: number of its candidates; the last one moved nothing.
        candidates: (4, n or more, 2) int32 table that begins with them.
        log_candidate: (n,) log prior times likelihood of each.
        log_weight: (n,) log likelihood of the weight alone.
        held: (n, 2) pieces that the cart of a part certainly holds.
        log_not_held: (n, 2) log cost of a put-back of goods that its cart does not hold. Both None where nothing is put
            back.
        earlier: records of settled events that it may undo.
        earlier_parts: (len(earlier), 4) int32: cart, product and quantity of their first part, and how many they have.
    """

    opened: OpenEvent
    n: int
    candidates: NDArray[np.int32]
    log_candidate: NDArray[np.float64]
    log_weight: NDArray[np.float64]
    held: NDArray[np.int32] | None = None
    log_not_held: NDArray[np.float64] | None = None
    earlier: list[NDArray[np.void]] = field(default_factory=list)
    earlier_parts: NDArray[np.int32] | None = None


class HypothesisKernel:
    """Merges and extends clusters, with room for the k best hypotheses. planogram: the engine's."""

    def __init__(self, planogram: Planogram) -> None:
        self._planogram = planogram
        self._key = np.zeros(HYPOTHESES_MAX)
        self._pick = np.zeros(HYPOTHESES_MAX, np.int32)
        self._log_pair = np.zeros(0)

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
            n_candidates = len(merged.event_of) + len(cluster.event_of)
            out = _room(len(merged.events) + len(cluster.events), n_candidates, kept)
            kernel.join(merged.arrays, cluster.arrays, kept, self._key, self._pick, out)
            merged = Cluster(merged.events + cluster.events, out)
        return merged

    def extend(self, cluster: Cluster, new: Extension) -> None:
        """Add an event to a cluster."""
        n_old = len(cluster.event_of)
        if len(self._log_pair) < n_old * new.n:
            self._log_pair = np.zeros(n_old * new.n)
        out = _room(len(cluster.events) + 1, n_old + new.n, HYPOTHESES_MAX)
        kept = kernel.extend(
            self._planogram.arrays, cluster.arrays, new.opened.record, new.candidates, new.n, new.log_candidate,
            new.log_weight, new.held, new.log_not_held, new.earlier, new.earlier_parts,
            MODEL_BEHIND_DOOR if new.opened.reach else MODEL, self._log_pair, out,
        )  # fmt: skip
        cluster.events.append(new.opened)
        cluster._replace(out, kept)


def is_alike(earlier: OpenEvent, later: OpenEvent) -> bool:
    """Whether both loads may have undone the same lean."""
    gap_s = (later.event.contact_ns - earlier.event.contact_ns) * 1e-9
    follows = 0.0 < gap_s < LEAN_UNDONE_S and earlier.reach == later.reach
    if earlier.total_g * later.total_g <= 0 or not follows or not earlier.plates & later.plates:
        return False
    return earlier.total_g / later.total_g < ALIKE_RATIO


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
