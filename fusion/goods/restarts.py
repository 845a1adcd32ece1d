"""Plates that weigh from another zero: they were restarted, and tare themselves, or were mounted again.

The level jumps to zero, or by more than any load, and stays there. That is no take of all goods: what a plate bore is
not known across it. A plate that jumps back shortly afterwards is compared with the level before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from fusion.goods.loads import LoadFinder, ShelfEvent
from fusion.goods.plates import CHANGE_MIN_G, CHANGE_MIN_SD, PlateChange, Plates

# A level is zero within this, and a number of standard deviations of a sample.
ZERO_G, ZERO_SDS = 5.0, 5.0
# Shelves sway by a few grams, about zero too. What stands on a plate weighs more than this in all.
FALL_MIN_G = 50.0
# Hands take one piece or two at once. Where a plate was tared while empty, the last of them leave zero.
PIECES_MAX = 2
# As many plates that fall to zero together share a controller that was restarted.
TOGETHER_MIN = 3
# A plate comes back to the level before within this time, up to what hands may have moved meanwhile.
BACK_MAX_S, BACK_SHARE = 60.0, 0.5
# For this long after a restart is found, hands that were over the plate are looked up.
UNKNOWN_S = 1.0


class _Level(NamedTuple):
    """What a plate bore before it was restarted, less what has moved since, and when it was."""

    level_g: float
    t_ns: int


class _Unknown(NamedTuple):
    """Since when a restarted plate's load is not known, and up to when to look hands up."""

    since_ns: int
    until_ns: int


class Restarts:
    """Separates restarts of plates from loads, among their changes."""

    def __init__(self, plates: Plates, finder: LoadFinder) -> None:
        self._plates, self._finder = plates, finder
        self._before: dict[int, _Level] = {}
        self._unknown: dict[int, _Unknown] = {}
        self._left_zero: set[int] = set()  # Plates whose last change began at zero.

    def unknown(self, now_ns: int) -> Mapping[int, int]:
        """When plates (indices) were restarted, of those where this was found just now."""
        if self._unknown:
            self._unknown = {plate: found for plate, found in self._unknown.items() if found.until_ns >= now_ns}
        return {plate: found.since_ns for plate, found in self._unknown.items()}

    def note(self, plate: int, since_ns: int, now_ns: int) -> None:
        """Report a plate that has weighed from another zero since an instant."""
        self._plates.warn_restarted(plate, now_ns)
        self._unknown[plate] = _Unknown(since_ns, now_ns + int(UNKNOWN_S * 1e9))

    def sifted(self, part: list[PlateChange], now_ns: int) -> list[PlateChange]:
        """Neighbouring changes without restarts; those of plates that came back are measured from before."""
        restarted = self._restarted(part)
        kept = []
        for change in part:
            self._left_zero.discard(change.plate)
            if change.plate in restarted:
                self._before[change.plate] = _Level(change.before_g, change.onset_ns)
                self.note(change.plate, change.onset_ns, now_ns)
                continue
            if self._is_zero(change.plate, change.before_g):
                self._left_zero.add(change.plate)
            back = self._back(change)
            if back is not None:
                kept.append(back)
        return [change for change in kept if _is_change(change)]

    def _restarted(self, part: list[PlateChange]) -> set[int]:
        fallen = [
            change for change in part
            if abs(change.delta_g) > FALL_MIN_G and self._is_zero(change.plate, change.after_g)
            # What came onto an empty plate may go again: a hand that leans, a bag.
            and change.plate not in self._left_zero
        ]  # fmt: skip
        if not fallen:
            return set()
        if len(fallen) >= TOGETHER_MIN:
            return {change.plate for change in fallen}
        pieces = [load for load in self._finder.partition(part).loads if self._is_a_piece_or_two(load)]
        explained = {change.plate for load in pieces for change in load}
        return {change.plate for change in fallen} - explained

    def _is_zero(self, plate: int, level_g: float) -> bool:
        return abs(level_g) < ZERO_G + ZERO_SDS * math.sqrt(self._plates.noise_g2(plate))

    def _is_a_piece_or_two(self, load: list[PlateChange]) -> bool:
        return self._finder.is_explained(ShelfEvent.of(load), PIECES_MAX)

    def _back(self, change: PlateChange) -> PlateChange | None:
        """The change of a plate since before its restart, if it jumped back; otherwise the change itself."""
        before = self._before.get(change.plate)
        if before is None:
            return change
        net_g = change.after_g - before.level_g
        recent = change.settled_ns - before.t_ns < BACK_MAX_S * 1e9
        if not recent or abs(net_g) > BACK_SHARE * abs(change.delta_g) or self._is_a_piece_or_two([change]):
            # It still weighs from zero.
            self._before[change.plate] = before._replace(level_g=before.level_g + change.delta_g)
            return change
        del self._before[change.plate]
        middle_ns = (before.t_ns + change.contact_ns) // 2
        return replace(
            change, delta_g=net_g, before_g=before.level_g, onset_ns=before.t_ns, contact_ns=middle_ns, silent=True,
            var_g2=2.0 * change.var_g2,
        )  # fmt: skip


def _is_change(change: PlateChange) -> bool:
    return abs(change.delta_g) > max(CHANGE_MIN_G, CHANGE_MIN_SD * math.sqrt(change.var_g2))
