"""Loads that undo an earlier load: hands that leave the shelf again, and pieces that come back or are taken again.

A piece that a person puts back is a piece that they took, and a lean ends with the weight that it began with. The two
loads then differ only by noise and by the gains of the plates, while two different pieces also differ by the deviations
of their weights and labels. The ratio of both densities is evidence beyond the weight of the new load alone:

    log ratio = log p(later | earlier, the same) - log p(later | its product).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.goods.decided import DecidedEvents
from fusion.goods.hypotheses import CandidateTable, Cluster, Kind, OpenEvent, Part
from fusion.goods.planogram import Planogram
from fusion.goods.weighings import PLACE_GAIN_SD

# A hand that leans, or a bag that rests on a shelf, is gone within this time.
LEAN_UNDONE_S, LOG_UNDONE = 30.0, math.log(300.0)
# The later load is the same as the earlier one up to this many deviations; two leans are alike within this factor.
SAME_LOAD_MAX_SDS, ALIKE_RATIO = 4.0, 2.0
# A piece that is put back is a piece that was taken. A piece that is taken where a piece was just put back is the same
# piece in half of the cases. Some loads are measured badly, or rest on something else.
LOG_SAME_PUT, LOG_OTHER_PUT = math.log(0.9), math.log(0.1)
LOG_SAME_TAKEN, LOG_OTHER_TAKEN = math.log(0.5), math.log(0.5)
SAME_PIECE_SD_G = 1.5


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
        new = _New(opened, table, table.rows_by_kind(), log_weight)
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
            log_is, log_other = LOG_SAME_PUT, LOG_OTHER_PUT
            most, least = -quantity, 1
        else:
            log_is, log_other = LOG_SAME_TAKEN, LOG_OTHER_TAKEN
            most = least = -quantity
        found = []
        for row in rows:
            pieces = int(new.table.quantity[row, 0])
            if least <= pieces <= most:
                part = abs(pieces) / abs(quantity)
                piece_g2 = abs(pieces) * (1.0 - part) * float(self._planogram.weight_sd_g[product]) ** 2
                log_same = self._log_same_load(earlier, new.opened, part, piece_g2)
                log_ratio = float(np.logaddexp(log_other, log_is + log_same - float(new.log_weight[row])))
                found.append(RowRatio(row, log_ratio))
        return found

    def _log_lean_undone(self, earlier: OpenEvent, new: _New) -> list[RowRatio]:
        """The candidate that nothing moved, as the end of a lean: only goods leave a plate first and come again."""
        left = _remainder(earlier, new.opened) if earlier.total_g > 0 else None
        if left is None:
            return []
        log_same = -0.5 * (left.left_g / left.sd_g) ** 2 - math.log(left.sd_g * math.sqrt(2.0 * math.pi))
        return [RowRatio(len(new.table) - 1, max(log_same + LOG_UNDONE - float(new.log_weight[-1]), 0.0))]

    def _log_same_load(self, earlier: OpenEvent, later: OpenEvent, part: float, piece_g2: float) -> float:
        """Log density of the later load if it is this part of the earlier one; piece_g2: variance of the part."""
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
        expected_g = abs(earlier.total_g) * part * gain[1] / gain[0]
        var_g2 = part * part * earlier.noise_g2 + later.noise_g2 + SAME_PIECE_SD_G**2 + piece_g2
        var_g2 += expected_g**2 * (gain_var + place_var)
        off_g = abs(later.total_g) - expected_g
        return -0.5 * (off_g * off_g / var_g2 + math.log(2.0 * math.pi * var_g2))


def _follows(earlier: OpenEvent, later: OpenEvent) -> bool:
    """Whether a load came or went soon after an earlier one, on one of its plates."""
    gap_s = (later.event.contact_ns - earlier.event.contact_ns) * 1e-9
    return 0.0 < gap_s < LEAN_UNDONE_S and bool(earlier.plates & later.plates)


def _remainder(earlier: OpenEvent, later: OpenEvent) -> _Remainder | None:
    """What remains of two loads, where the later one takes back the earlier one on the same plates."""
    if earlier.total_g * later.total_g > 0 or not _follows(earlier, later):
        return None
    left_g = earlier.total_g + later.total_g
    sd_g = math.sqrt(earlier.noise_g2 + later.noise_g2) + 2.0 + 0.02 * abs(later.total_g)
    return _Remainder(left_g, sd_g) if abs(left_g) < SAME_LOAD_MAX_SDS * sd_g else None


def _alike(earlier: OpenEvent, later: OpenEvent) -> bool:
    """Whether both loads may have undone the same lean."""
    same_way = earlier.total_g * later.total_g > 0
    return same_way and _follows(earlier, later) and earlier.total_g / later.total_g < ALIKE_RATIO
