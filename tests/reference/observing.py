"""Twin of `Attributor.observe`, in Python and NumPy: slow, and written for reading.

It works on the state of an attributor and leaves it as `observe` does, so that both can be compared event by event.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.goods import attribution as stage
from fusion.goods import hypotheses as joint
from fusion.goods.attribution import Attributor
from fusion.goods.beliefs import EventBelief, EventCandidate
from fusion.goods.candidates import LOG_BROUGHT
from fusion.goods.decided import DecidedEvent, DecidedEvents
from fusion.goods.hypotheses import CandidateTable, Cluster, Kind, OpenEvent, Part
from fusion.goods.learnt import HANDS
from fusion.goods.loads import ShelfEvent
from fusion.goods.planogram import PLACE_GAIN_SD, Planogram
from fusion.people.arms import ArmHistory
from reference import attribution, goods


def observe(attributor: Attributor, event: ShelfEvent, history: ArmHistory) -> EventBelief:
    """See `Attributor.observe`."""
    a, planogram = attributor, attributor.planogram
    opened = OpenEvent(a._n_events, event, a._names[event.main_plate], a._hands.reach_of(event))
    a._n_events += 1
    a._decided.forget_recent(event.contact_ns, joint.LEAN_UNDONE_S)
    actors = a._hands.actors(event, history).scaled(float(planogram.learnt.factor[HANDS]))
    held_near = _held_near(a, actors.near)
    if a._staff.isdisjoint(actors.near) and not a._unexplained.is_shift(opened):
        _weigh_factors(a, opened, held_near)
    planogram.timing.add(event)
    finder = goods.CandidateFinder(planogram, a._hands, a._candidates._sightings)
    proposal = finder.propose(event, actors, history, held_near, a._carts.of, a._staff)
    table = proposal.table
    tied = _tied(a, opened, table)
    a._make_room(tied)
    cluster = _merged(tied)
    undo = Undoing(planogram).ratios(cluster, a._decided, opened, table, proposal.log_weight)
    new = (proposal.log_candidate, _log_not_held(a, table), _certainly_held(a, table), *undo)
    _extend(cluster, opened, table, new)
    a._clusters = [c for c in a._clusters if all(c is not other for other in tied)] + [cluster]
    a._unexplained.add(opened, actors)
    a._missed.add(actors)
    a._unobserved.note_moved(event, actors)
    belief = belief_of(cluster, len(cluster.events) - 1, planogram.gtins)
    if sum(candidate.probability for candidate in belief.candidates if candidate.person is None) > stage.UNCLAIMED:
        reached = a._unobserved.note_unclaimed(event, history)
        planogram.note_elsewhere(event.plates, reached, a._product[belief.candidates[0].gtin])
    whole, single = _parts(cluster)
    for candidate in belief.candidates:
        product = a._product[candidate.gtin]
        of_part = whole[-1 if candidate.person is None else candidate.person, product, candidate.quantity]
        goods.move(planogram, event.main_plate, product, candidate.quantity * min(of_part, 1.0))
    if single >= stage.KNOWN_WEIGHT:
        _learn_gain(a, event, belief)
    _decide(a, cluster, opened, belief)
    assert len(a._decided.events) + sum(len(cluster.events) for cluster in a._clusters) <= stage.OPEN_EVENTS_MAX
    return belief


def _weigh_factors(a: Attributor, opened: OpenEvent, held: NDArray[np.float64] | None) -> None:
    factors, event = a.planogram.factors, opened.event
    earlier = [decided.event for decided in a._decided.recent]
    earlier += [other for cluster in a._clusters for other in cluster.events]
    undone = max((other.event_id for other in earlier if may_undo(other, opened)), default=None)
    before = factors.suspect
    if undone is None:
        added = goods.weigh_factors(factors, a.planogram, event.plates, event.delta_g, event.noise_g2, held)
        a._factor_evidence[opened.event_id] = stage._FactorEvidence(event.main_plate, added, before)
    elif undone in a._factor_evidence:
        evidence = a._factor_evidence.pop(undone)
        factors.retract(evidence.plate, evidence.added)
        for plate in sorted((before | {evidence.plate}) - factors.suspect - evidence.suspect):
            a._unobserved.clear(plate)


def _parts(cluster: Cluster) -> tuple[dict[tuple[int, int, int], float], float]:
    """Of the newest event: probability of each person, product and pieces, and that goods moved in one part."""
    whole: defaultdict[tuple[int, int, int], float] = defaultdict(float)
    single, table = 0.0, cluster.table
    for row in np.flatnonzero(cluster.event_of == len(cluster.events) - 1).tolist():
        parts, p = np.flatnonzero(table.quantity[row]).tolist(), float(cluster.probability[row])
        for part in parts:
            whole[int(table.owner[row, part]), int(table.product[row, part]), int(table.quantity[row, part])] += p
        single += p if len(parts) == 1 else 0.0
    return whole, single


def _learn_gain(a: Attributor, event: ShelfEvent, belief: EventBelief) -> None:
    known: defaultdict[tuple[int, int], float] = defaultdict(float)
    for candidate in belief.candidates:
        known[a._product[candidate.gtin], candidate.quantity] += candidate.probability
    product, quantity = max(known, key=lambda moved: known[moved])
    weight_g = a.planogram.weight_g
    best_g = abs(quantity) * weight_g[product]
    other_g2 = sum(p * (abs(n) * weight_g[other] - best_g) ** 2 for (other, n), p in known.items())
    noise_g2 = event.noise_g2 + float(other_g2)
    load = event.plates, event.delta_g, noise_g2
    goods.follow_gain(a.planogram.learnt, *load, product, quantity, event.contact_ns)


def expected_of(cluster: Cluster) -> tuple[dict[Kind, float], set[int]]:
    """Pieces that were taken, by cart and product, put-backs not subtracted; and who may have acted."""
    table, expected, people = cluster.table, {}, set()
    for row, part in np.argwhere((cluster.probability[:, None] > 1e-4) & (table.owner >= 0) & (table.quantity != 0)):
        p = float(cluster.probability[row])
        if p > joint.NEGLIGIBLE:
            people.add(int(table.owner[row, part]))
        if table.quantity[row, part] < 0:
            kind = Kind(int(table.cart[row, part]), int(table.product[row, part]))
            expected[kind] = expected.get(kind, 0.0) - int(table.quantity[row, part]) * p
    return expected, people


def _expected_pieces(a: Attributor, carts: set[int] | None) -> NDArray[np.float64]:
    pieces = np.zeros(len(a.planogram.gtins))
    for cart, products in a._decided.held.items():
        for product, quantity in products.items():
            if carts is None or cart in carts:
                pieces[product] += max(quantity, 0)
    for cluster in a._clusters:
        table, likely = cluster.table, cluster.probability[:, None] > joint.NEGLIGIBLE
        acting = set(table.cart[likely & (table.owner >= 0) & (table.quantity != 0)].tolist())
        if carts is not None and not carts & acting:
            continue
        for (cart, product), expected in expected_of(cluster)[0].items():
            if carts is None or cart in carts:
                pieces[product] += expected
    return pieces


def _held_near(a: Attributor, near: Sequence[int]) -> NDArray[np.float64] | None:
    if any(person in a._staff for person in near):
        return None
    return _expected_pieces(a, {a._carts.of(person) for person in near})


def _certainly_held(a: Attributor, table: CandidateTable) -> NDArray[np.int32]:
    held = np.zeros((len(table), 2), np.int32)
    for row, part in np.argwhere((table.cart >= 0) & (table.quantity > 0)).tolist():
        held[row, part] = a._decided.held_by(int(table.cart[row, part]), int(table.product[row, part]))
    return held


def _log_not_held(a: Attributor, table: CandidateTable) -> NDArray[np.float64]:
    cost = np.zeros((len(table), 2))
    anyone = _expected_pieces(a, None)
    for row, part in np.argwhere(table.quantity > 0).tolist():
        if int(table.owner[row, part]) not in a._staff:
            known = anyone[table.product[row, part]] > 0.3
            cost[row, part] = stage.LOG_HANDED_OVER if known else LOG_BROUGHT
    return cost


def _tied(a: Attributor, opened: OpenEvent, table: CandidateTable) -> list[Cluster]:
    acts = (table.owner >= 0) & (table.quantity != 0)
    people = set(table.owner[acts].tolist())
    puts = acts & (table.quantity > 0)
    put = {Kind(*pair) for pair in zip(table.cart[puts].tolist(), table.product[puts].tolist())}
    tied = []
    for cluster in a._clusters:
        expected, acting = expected_of(cluster)
        apart_ns = [abs(other.event.contact_ns - opened.event.contact_ns) for other in cluster.events]
        if (
            any(may_undo(earlier, opened) for earlier in cluster.events)
            or (min(apart_ns) < joint.BUSY_S * 1e9 and people & acting)
            or any(expected.get(kind, 0.0) > joint.NEGLIGIBLE for kind in put)
        ):
            tied.append(cluster)
    return tied


def _merged(clusters: Sequence[Cluster]) -> Cluster:
    clusters = [cluster for cluster in clusters if cluster.events]
    merged = clusters[0] if clusters else Cluster.empty()
    for cluster in clusters[1:]:
        pairs = goods.compared(attribution.merge(merged.log_weight, cluster.log_weight))
        kept = _best(pairs)
        rows_a, rows_b = np.divmod(kept, len(cluster.log_weight))
        below = cluster.choices[rows_b] + len(merged.table)
        merged = _cluster(
            merged.events + cluster.events,
            np.append(merged.event_of, cluster.event_of + len(merged.events)),
            np.concatenate([merged.table.columns, cluster.table.columns], axis=1),
            np.concatenate([merged.choices[rows_a], below], axis=1),
            joint.normalised(pairs.ravel()[kept]),
            np.append(merged.probability, cluster.probability),
        )
    return merged


def _best(pairs: NDArray[np.float64]) -> NDArray[np.int64]:
    order = attribution.best(pairs)
    ranked = pairs.ravel()[order]
    return order[ranked >= ranked[0] - joint.LOG_SPREAD]


def _extend(cluster: Cluster, opened: OpenEvent, new: CandidateTable, weighed: Sequence[NDArray[np.float64]]) -> None:
    first, columns = len(cluster.table), np.concatenate([cluster.table.columns, new.columns], axis=1)
    events = [*cluster.events, opened]
    event_ns = np.array([event.event.contact_ns for event in events])
    pairs = attribution.extend(
        cluster.choices, cluster.log_weight, *columns, first, event_ns, *weighed, joint.BUSY_S, joint.LOG_BUSY
    )
    pairs = goods.compared(pairs)
    kept = _best(pairs)
    rows, picks = np.divmod(kept, len(new))
    choices = np.concatenate([cluster.choices[rows], (first + picks)[:, None]], axis=1).astype(np.int32)
    event_of = np.append(cluster.event_of, np.full(len(new), len(events) - 1))
    _set(cluster, events, event_of, columns, choices, joint.normalised(pairs.ravel()[kept]))


def belief_of(cluster: Cluster, index: int, gtins: Sequence[str]) -> EventBelief:
    """See `Cluster.belief`."""
    summed: defaultdict[tuple[int, int, int], float] = defaultdict(float)
    table, opened = cluster.table, cluster.events[index]
    rows = np.flatnonzero(cluster.event_of == index)
    for row in rows[cluster.probability[rows] > 0.0].tolist():
        parts = [part for part in range(2) if table.quantity[row, part]]
        for part in parts:
            key = int(table.owner[row, part]), int(table.product[row, part]), int(table.quantity[row, part])
            summed[key] += float(cluster.probability[row]) / len(parts)
    candidates = tuple(
        EventCandidate(None if owner < 0 else owner, gtins[product], quantity, min(p, 1.0))
        for (owner, product, quantity), p in sorted(summed.items(), key=lambda item: (-item[1], item[0]))
        if p > 1e-6
    )
    best = int(rows[np.argmax(cluster.probability[rows])])
    both = tuple(
        EventCandidate(None if owner < 0 else owner, gtins[product], quantity, float(cluster.probability[best]))
        for owner, _, product, quantity in table.columns[:, best].T.tolist()
    )
    both = both if table.quantity[best].all() else ()
    return EventBelief(
        opened.event_id, opened.event.contact_ns, opened.plate, opened.total_g, candidates, both
    )


def _decide(a: Attributor, cluster: Cluster, newest: OpenEvent, belief: EventBelief) -> None:
    for index in range(len(cluster.events) - 1, -1, -1):
        of_event = np.flatnonzero(cluster.event_of == index)
        if cluster.probability[of_event].max() > a._decided_from:
            fixed = belief if cluster.events[index] is newest else belief_of(cluster, index, a.planogram.gtins)
            row = int(of_event[np.argmax(cluster.probability[of_event])])
            a._decided.add(DecidedEvent.of(cluster, index, row, fixed))
            if len(cluster.events) == 1:
                a._clusters = [other for other in a._clusters if other is not cluster]
                return
            _condition(cluster, index, row)


def _condition(cluster: Cluster, index: int, row: int) -> None:
    kept = cluster.choices[:, index] == row
    keep = cluster.event_of != index
    choices = (np.cumsum(keep) - 1)[np.delete(cluster.choices[kept], index, axis=1)]
    log_weight = joint.normalised(cluster.log_weight[kept])
    event_of = cluster.event_of[keep]
    events = [event for at, event in enumerate(cluster.events) if at != index]
    columns = np.ascontiguousarray(cluster.table.columns[:, keep])
    _set(cluster, events, event_of - (event_of > index), columns, choices, log_weight)


def _cluster(
    events: list[OpenEvent], event_of: NDArray[np.int64], columns: NDArray[np.int32], choices: NDArray[np.int64],
    log_weight: NDArray[np.float64], probability: NDArray[np.float64],
) -> Cluster:
    records = np.concatenate([np.empty(0, joint.EVENT), *(event.record for event in events)])
    ints = [np.ascontiguousarray(array, np.int32) for array in (event_of, columns, choices)]
    return Cluster(events, (records, *ints, log_weight, probability))


def _set(
    cluster: Cluster, events: list[OpenEvent], event_of: NDArray[np.int64], columns: NDArray[np.int32],
    choices: NDArray[np.int64], log_weight: NDArray[np.float64],
) -> None:
    probability = attribution.marginals(choices, log_weight, columns.shape[1])
    changed = _cluster(events, event_of, columns, choices, log_weight, probability)
    cluster.events[:] = events
    cluster.arrays = changed.arrays
    cluster._acting = None


def _rows_by_kind(table: CandidateTable) -> dict[Kind, list[int]]:
    """Rows of the candidates of one part, by cart and product."""
    rows: dict[Kind, list[int]] = {}
    for row in np.flatnonzero((table.quantity[:, 0] != 0) & (table.quantity[:, 1] == 0)).tolist():
        rows.setdefault(Kind(int(table.cart[row, 0]), int(table.product[row, 0])), []).append(row)
    return rows


class UndoRatios(NamedTuple):
    """How much likelier new candidates are as the undoing of earlier events.

    Attributes:
        log_pair: (n_old, n_new) log ratio beside an older open candidate; NaN where the new one does not undo it;
            infinite where the older one has already undone the event that the new one would undo. Without rows where
            there is no such pair.
        settled_ratio: (n_new,) sum of the ratios to events that are settled.
        n_settled: (n_new,) int32 number of those events.
    """

    log_pair: NDArray[np.float64]
    settled_ratio: NDArray[np.float64]
    n_settled: NDArray[np.int32]


class RowRatio(NamedTuple):
    """A new candidate (a row of its table) and the log ratio of it as the undoing of an earlier event."""

    row: int
    log_ratio: float


class _Pair(NamedTuple):
    """An open candidate, a new candidate and the log ratio of the new one as the undoing of the other."""

    old: int
    new: int
    log_ratio: float


class _Remainder(NamedTuple):
    """The grams that remain of two loads if one undoes the other, and their standard deviation from noise."""

    left_g: float
    sd_g: float


class _New(NamedTuple):
    """The new event with its candidates: rows by cart and product, and the log likelihood of the weight of each."""

    opened: OpenEvent
    table: CandidateTable
    rows: Mapping[Kind, list[int]]
    log_weight: NDArray[np.float64]


def may_undo(earlier: OpenEvent, later: OpenEvent) -> bool:
    """Whether a load takes back an earlier one on the same plates."""
    return _remainder(earlier, later) is not None


class Undoing:
    """Finds earlier events that a new load may undo."""

    def __init__(self, planogram: Planogram) -> None:
        self._planogram = planogram

    def ratios(
        self,
        cluster: Cluster,
        decided: DecidedEvents,
        opened: OpenEvent,
        table: CandidateTable,
        log_weight: NDArray[np.float64],
    ) -> UndoRatios:
        """Compare a new event to the open events of its cluster, and to decided events.

        Args:
            cluster: without the new event.
            decided: events that are settled.
            opened: the new event.
            table: its candidates; the last one moved nothing.
            log_weight: (n_new,) log likelihood of the weight alone, given each candidate.
        """
        new = _New(opened, table, _rows_by_kind(table), log_weight)
        n_new = len(table)
        settled_ratio, n_settled = np.zeros(n_new), np.zeros(n_new, np.int32)
        if opened.total_g > 0:
            put = sorted(kind for kind in new.rows if kind.cart >= 0)
            earlier = [event for kind in put for event in decided.takes.get(kind, ())]
        else:
            earlier = list(decided.recent)
            # A lean is undone once.
            undoings = [at for at, event in enumerate(earlier) if not event.parts and _alike(event.event, opened)]
            earlier = earlier[undoings[-1] + 1 :] if undoings else earlier
        for event in earlier:
            for row, log_ratio in self._log_undone(event.event, event.parts, new):
                settled_ratio[row] += math.exp(log_ratio)
                n_settled[row] += 1
        pairs = self._open_pairs(cluster, new)
        log_pair = np.full((len(cluster.table) if pairs else 0, n_new), np.nan)
        for pair in pairs:
            log_pair[pair.old, pair.new] = pair.log_ratio
        return UndoRatios(log_pair, settled_ratio, n_settled)

    def _open_pairs(self, cluster: Cluster, new: _New) -> list[_Pair]:
        pairs: list[_Pair] = []
        opened = new.opened
        for index, other in enumerate(cluster.events):
            same_way = other.total_g * opened.total_g > 0
            if same_way and (opened.total_g > 0 or not _alike(other, opened)):
                continue
            for row in np.flatnonzero((cluster.event_of == index) & (cluster.probability > 1e-6)).tolist():
                parts = cluster.table.parts(row)
                if not same_way:
                    undone = self._log_undone(other, parts, new)
                    pairs += [_Pair(row, found.row, found.log_ratio) for found in undone]
                elif not parts:
                    pairs.append(_Pair(row, len(new.table) - 1, math.inf))
        return pairs

    def _log_undone(self, earlier: OpenEvent, parts: Sequence[Part], new: _New) -> list[RowRatio]:
        """The new candidates that undo an earlier event, given that it moved these parts."""
        if not parts:
            return self._log_lean_undone(earlier, new)
        cart, product, quantity = parts[0]
        rows = new.rows.get(Kind(cart, product))
        if rows is None or len(parts) > 1 or cart < 0 or (quantity > 0 and not may_undo(earlier, new.opened)):
            return []
        if quantity < 0:
            log_is, log_other = joint.LOG_SAME_PUT, joint.LOG_OTHER_PUT
            most, least = -quantity, 1
        else:
            log_is, log_other = joint.LOG_SAME_TAKEN, joint.LOG_OTHER_TAKEN
            most = least = -quantity
        found = []
        for row in rows:
            pieces = int(new.table.quantity[row, 0])
            if least <= pieces <= most:
                log_same = self._log_same_load(earlier, new.opened, product, abs(pieces), abs(quantity))
                log_ratio = float(np.logaddexp(log_other, log_is + log_same - float(new.log_weight[row])))
                found.append(RowRatio(row, log_ratio))
        return found

    def _log_lean_undone(self, earlier: OpenEvent, new: _New) -> list[RowRatio]:
        """The candidate that nothing moved, as the end of a lean: only goods leave a plate first and come again."""
        left = _remainder(earlier, new.opened) if earlier.total_g > 0 else None
        if left is None:
            return []
        log_same = -0.5 * (left.left_g / left.sd_g) ** 2 - math.log(left.sd_g * math.sqrt(2.0 * math.pi))
        return [RowRatio(len(new.table) - 1, max(log_same + joint.LOG_UNDONE - float(new.log_weight[-1]), 0.0))]

    def _log_same_load(self, earlier: OpenEvent, later: OpenEvent, product: int, pieces: int, of: int) -> float:
        """Log density of the later load if it is these pieces of so many that were the earlier one.

        What they weighed then is a measurement of what such goods weigh on the later plates; both are normal.
        """
        share_by: defaultdict[int, float] = defaultdict(float)
        gain, place_var = [], 0.0
        for opened, sign in ((earlier, -1.0), (later, 1.0)):
            share = opened.event.share
            gain.append(float(share @ self._planogram.gain[opened.event.plates]))
            place_var += PLACE_GAIN_SD**2 * float(share @ share)
            for plate, of_plate in zip(opened.event.plates.tolist(), share.tolist()):
                share_by[plate] += sign * of_plate
        # The part of a plate's gain that both loads have in common cancels.
        gain_var = sum(share * share * float(self._planogram.gain_var[plate]) for plate, share in share_by.items())
        part, piece_g2 = pieces / of, float(self._planogram.weight_sd_g[product]) ** 2
        then_g = abs(earlier.total_g) * part * gain[1] / gain[0]
        then_g2 = part * part * earlier.noise_g2 + pieces * (1.0 - part) * piece_g2
        then_g2 += then_g**2 * (gain_var + place_var)
        share, plates = later.event.share, later.event.plates
        goods_g = pieces * float(self._planogram.weight_g[product]) * gain[1]
        goods_g2 = pieces * piece_g2 + goods_g**2 * float(
            share**2 @ (self._planogram.gain_var[plates] + PLACE_GAIN_SD**2)
        )
        known_g2 = 1.0 / (1.0 / then_g2 + 1.0 / goods_g2)
        expected_g = known_g2 * (then_g / then_g2 + goods_g / goods_g2)
        var_g2 = known_g2 + later.noise_g2 + joint.SAME_PIECE_SD_G**2
        off_g = abs(later.total_g) - expected_g
        return -0.5 * (off_g * off_g / var_g2 + math.log(2.0 * math.pi * var_g2))


def _follows(earlier: OpenEvent, later: OpenEvent) -> bool:
    """Whether a load came or went soon after an earlier one, on one of its plates."""
    gap_s = (later.event.contact_ns - earlier.event.contact_ns) * 1e-9
    return 0.0 < gap_s < joint.LEAN_UNDONE_S and earlier.reach == later.reach and bool(earlier.plates & later.plates)


def _remainder(earlier: OpenEvent, later: OpenEvent) -> _Remainder | None:
    """What remains of two loads, where the later one takes back the earlier one on the same plates."""
    if earlier.total_g * later.total_g > 0 or not _follows(earlier, later):
        return None
    left_g = earlier.total_g + later.total_g
    sd_g = math.sqrt(earlier.noise_g2 + later.noise_g2) + 2.0 + 0.02 * abs(later.total_g)
    return _Remainder(left_g, sd_g) if abs(left_g) < joint.SAME_LOAD_MAX_SDS * sd_g else None


def _alike(earlier: OpenEvent, later: OpenEvent) -> bool:
    """Whether both loads may have undone the same lean."""
    same_way = earlier.total_g * later.total_g > 0
    return same_way and _follows(earlier, later) and earlier.total_g / later.total_g < joint.ALIKE_RATIO
