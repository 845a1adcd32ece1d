"""Whether loads come and go while hands are at their plates, or the clocks of scales and cameras differ.

Every load is compared with the hands at its instant and at instants up to two seconds before and after. With h(t) the
likelihood that any hand moved it at t, the log odds that a plate is dated `lag` too early, against in time, grow
by log h(t + lag) - log h(t). The tests are sequential (Wald, 1945), of every plate, every shelf unit and the store.
Honest clocks differ by less than half a second; such differences cost little, since hands stay at a plate for as long.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fusion.goods.hands import Hands
    from fusion.goods.loads import ShelfEvent
    from fusion.people.arms import ArmHistory

# Seconds from a load to the hands that it is compared with; the first is the hypothesis of equal clocks.
LAGS_S = (0.0, *(sign * lag for sign in (-1.0, 1.0) for lag in (0.75, 1.0, 1.25, 1.5, 1.75, 2.0)))
# Hands are looked up this long after a load: the longest lag, and the window about it.
LOOK_AFTER_NS = round((max(LAGS_S) + 0.4) * 1e9)
# What one load can say, since a hand may be hidden and another be there by chance.
LOG_LOAD_MAX = 4.0
# From these log odds on, a lag of several plates, or of one alone, is proved, and below 0 it is over. No number of good
# loads excludes a later fault, and no number of bad ones its end.
LOG_PROVED, LOG_PROVED_ALONE, LOG_ODDS_MIN, LOG_ODDS_MAX = 10.0, 14.0, -12.0, 16.0
# Lags of about the same odds as the best: hands stay at a plate for a while, and their middle is the estimate.
LOG_ALIKE = 2.0
# What a plate can add to its shelf unit's odds, and a unit to the store's: too little to suspect the others for it.
LOG_GIVEN_MAX = 6.0
# Loads that wait for the hands after them; more at once are not compared.
WAITING_MAX = 64


class Lag(NamedTuple):
    """Plates (indices into store.plates) whose loads are dated `seconds` too early; of 0 seconds where that is over."""

    plates: tuple[int, ...]
    seconds: float


class HandTiming:
    """Log odds of every lag, for every plate, every shelf unit and the whole store.

    Attributes:
        plates: indices into store.plates of those that are proved to be dated wrongly.
    """

    def __init__(self, unit: NDArray[np.int64]) -> None:
        """Start without evidence. unit (n_plates,): number of each plate's shelf unit."""
        self.plates: frozenset[int] = frozenset()
        n_plates, n_units = len(unit), int(unit.max(initial=-1)) + 1
        # Groups of plates from single ones to the whole store; each is a part of the next that it names.
        self._members: list[tuple[int, ...]] = [(plate,) for plate in range(n_plates)]
        self._members += [tuple(np.flatnonzero(unit == number).tolist()) for number in range(n_units)]
        self._part_of: list[int | None] = (n_plates + unit).tolist()
        if n_units > 1:
            self._members.append(tuple(range(n_plates)))
            self._part_of += [n_plates + n_units] * n_units
        self._part_of.append(None)
        n_groups = len(self._members)
        self._log_odds, self._given = np.zeros((n_groups, len(LAGS_S))), np.zeros((n_groups, len(LAGS_S)))
        self._lagging: list[int] = []  # Groups of which it is proved.
        self._waiting: deque[ShelfEvent] = deque(maxlen=WAITING_MAX)
        self._found: list[Lag] = []

    def add(self, event: ShelfEvent) -> None:
        """Take a load. In a silence, its instant is not known."""
        if not event.silent:
            self._waiting.append(event)

    def step(self, hands: Hands, history: ArmHistory, now_ns: int) -> None:
        """Compare the oldest load that waits with the hands around it, once those after it are known."""
        if self._waiting and now_ns - self._waiting[0].contact_ns >= LOOK_AFTER_NS:
            event = self._waiting.popleft()
            there = [
                hands.log_of_anyone(replace(event, contact_ns=event.contact_ns + round(lag_s * 1e9)), history)
                for lag_s in LAGS_S
            ]
            self.observe(event.main_plate, np.array(there))

    def observe(self, plate: int, log_there: NDArray[np.float64]) -> None:
        """Take a load on a plate. log_there (n_lags,): log likelihood that a hand moved it, at each of LAGS_S."""
        added = np.clip(log_there - log_there[0], -LOG_LOAD_MAX, LOG_LOAD_MAX)
        group: int | None = plate
        while group is not None:
            self._log_odds[group] = np.clip(self._log_odds[group] + added, LOG_ODDS_MIN, LOG_ODDS_MAX)
            self._judge(group)
            given = np.clip(self._given[group] + added, 0.0, LOG_GIVEN_MAX)
            added = np.where(added > 0.0, given - self._given[group], added)
            self._given[group], group = given, self._part_of[group]

    def found(self) -> list[Lag]:
        """Lags that have been proved since the last call, or are over."""
        drained, self._found = self._found, []
        return drained

    def _judge(self, group: int) -> None:
        log_odds = self._log_odds[group]
        best, seconds = int(np.argmax(log_odds)), 0.0
        if group not in self._lagging:
            if log_odds[best] < (LOG_PROVED if len(self._members[group]) > 1 else LOG_PROVED_ALONE):
                return
            lags_s = np.array(LAGS_S)
            alike = (log_odds > log_odds[best] - LOG_ALIKE) & (lags_s * LAGS_S[best] > 0.0)
            seconds = float(lags_s[alike].mean())
            self._lagging.append(group)
        elif log_odds[best] <= 0.0:
            self._lagging.remove(group)
        else:
            return
        before = self.plates
        self.plates = frozenset(plate for lagging in self._lagging for plate in self._members[lagging])
        changed = sorted(self.plates ^ before)
        if changed:
            self._found.append(Lag(tuple(changed), seconds))
