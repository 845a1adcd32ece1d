"""Excursions: a plate left its level for a while, by what a piece of goods weighs, and came back to it.

Mostly that is one hand, which lifts a piece and sets it down again, or leans. It may also be two people, where one
takes a piece and the other puts one: then nothing remains to be weighed, and only the plateau between shows it. The
samples of a disturbance are compared with a plateau between two instants,

    max over i < j of  (sum of samples i .. j - 1 about the level)^2 / (j - i),

the gain of the least-squares fit of a box over the level alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fusion.goods.loads import LoadFinder
from fusion.goods.plates import PlateChange, Plates

# A plateau is longer than the ringing of a plate, and shorter than the samples that are kept.
PLATEAU_MIN_S = 0.2
# Samples before the disturbance that show the level.
BEFORE_NS = 250_000_000
# A plateau lies within this share of its height, and these grams, for half of its time; the hand shakes it. Medians
# over PLATEAU_MIN_S judge that: a shelf rings at some five hertz, with a quarter of a heavy piece's weight, and a scale
# may send single samples that are kilograms off.
FLAT_SHARE, FLAT_G = 0.08, 4.0
# Lighter ones are lost in the shaking of hands.
LIGHTEST_G = 20.0
# A plate is back on its level up to this share of the plateau.
BACK_SHARE = 0.1
# Instants are looked for at every second sample, which is as exact as ringing leaves them.
EVERY = 2
# What a plateau's rise is taken for: a single step.
RISE_NS = 50_000_000


class Excursions:
    """Finds plateaus in disturbances that left a plate as it was."""

    def __init__(self, plates: Plates, finder: LoadFinder) -> None:
        self._plates, self._finder = plates, finder

    def found(self, changes: list[PlateChange]) -> list[list[PlateChange]]:
        """The two steps of every plateau of plates that have just come to rest.

        changes: what these plates have changed by, where they did.
        """
        settled = {change.plate: change for change in changes}
        found = []
        for plate, since_ns in self._plates.rested():
            steps = self._plateau(plate, since_ns, settled.get(plate))
            if steps and self._finder.is_usual(steps[:1]) and self._finder.is_usual(steps[1:]):
                found.append(steps)
        return found

    def _plateau(self, plate: int, since_ns: int, change: PlateChange | None) -> list[PlateChange]:
        t_ns, grams = self._plates.trace(plate)
        inside = int(t_ns.searchsorted(since_ns - BEFORE_NS))
        n_min = int(PLATEAU_MIN_S / self._plates.period_s)
        if len(t_ns) - inside < 2 * n_min:
            return []
        before_g = self._plates.level_g(plate) if change is None else change.before_g
        off_g = grams[inside:].astype(np.float64) - before_g
        back_g = 0.0 if change is None else change.delta_g
        # No mean is higher than the highest sample, up to rounding: a load that came or went is no excursion.
        if abs(back_g) > 1.001 * BACK_SHARE * np.abs(off_g).max():
            return []
        box = _best_box(off_g, n_min)
        if box is None:
            return []
        first, last, high_g = box
        between = off_g[first:last]
        middle_g = np.median(np.lib.stride_tricks.sliding_window_view(between, n_min), axis=1)
        flat = np.median(np.abs(middle_g - high_g)) < FLAT_SHARE * abs(high_g) + FLAT_G
        if abs(high_g) < LIGHTEST_G or not flat or abs(back_g) > BACK_SHARE * abs(high_g):
            return []
        at_ns = t_ns[inside:]
        var_g2 = 1.0 + float(between.var()) * 6.0 / len(between)
        began_ns, settled_ns = int(at_ns[first]), int(at_ns[last])
        # A message was lost meanwhile, and the plateau was there when the plate was heard again: it may have begun at
        # any time since the plate left its level.
        unheard = first == 0 and began_ns > since_ns
        if unheard:
            began_ns, settled_ns = (since_ns + began_ns) // 2, began_ns
        come = PlateChange(
            plate, since_ns, began_ns, settled_ns, unheard, RISE_NS, True, high_g, var_g2, before_g
        )
        gone = PlateChange(
            plate, int(at_ns[first]), int(at_ns[last]), int(at_ns[-1]), False, RISE_NS, True, -high_g, var_g2,
            before_g + high_g,
        )  # fmt: skip
        return [come, gone]


def _best_box(off_g: NDArray[np.float64], n_min: int) -> tuple[int, int, float] | None:
    """First sample, sample after the last, and mean of the plateau that fits best; None where none is high enough."""
    total = np.zeros(len(off_g) + 1)
    np.cumsum(off_g, out=total[1:])
    total = total[::EVERY]
    # A quick look first: hands touch plates all the time.
    short = n_min // EVERY
    if np.abs(total[short:] - total[:-short]).max(initial=0.0) < LIGHTEST_G * short * EVERY:
        return None
    count = EVERY * (np.arange(len(total))[None] - np.arange(len(total))[:, None])
    sums = total[None] - total[:, None]
    gain = np.where(count >= n_min, sums**2 / np.maximum(count, 1), 0.0)
    first, last = np.unravel_index(int(np.argmax(gain)), gain.shape)
    if gain[first, last] <= 0.0 or last * EVERY >= len(off_g):
        return None
    return int(first) * EVERY, int(last) * EVERY, float(sums[first, last] / count[first, last])
