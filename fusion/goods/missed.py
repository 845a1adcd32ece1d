"""What the shelves may have missed: the chance that a person moved goods and no plate reported it.

Shelves miss few loads, most of them beside another person's: two loads at once on touching plates are read as one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from fusion.goods.hands import Actors

# Share of loads that no plate reports and nothing else on the receipt makes doubtful: those of one person alone, and
# those of a person whose hand may have been at another's load: 2 of 340 settled receipts of `python -m bench accuracy`
# lacked such a load, both beside another person's; with 0.0005 and 0.004 receipts were too unsure by 0.007 on average.
MISSED_ALONE, MISSED_BESIDE = 0.0001, 0.0004
# From this probability on a hand was at a load.
AT_LOAD_MIN = 0.05
PEOPLE_MAX = 4096


class MissedLoads:
    """By person, the log probability that no plate missed a load of theirs; at most PEOPLE_MAX people."""

    def __init__(self) -> None:
        self._log_none: dict[int, float] = {}

    def add(self, actors: Actors) -> None:
        """Note whose hands were at a load."""
        for person, moved in actors.likely(AT_LOAD_MIN):
            log_none = moved * math.log1p(-MISSED_ALONE) + (1.0 - moved) * math.log1p(-MISSED_BESIDE)
            self._log_none[person] = self._log_none.get(person, 0.0) + log_none
            if len(self._log_none) > PEOPLE_MAX:
                del self._log_none[next(iter(self._log_none))]

    def log_none(self, people: Callable[[int], bool]) -> float:
        """Log probability that nothing of some people (by track id) was missed."""
        return sum(log_none for person, log_none in self._log_none.items() if people(person))

    def forget(self, people: Callable[[int], bool]) -> None:
        """Drop some people."""
        self._log_none = {person: log_none for person, log_none in self._log_none.items() if not people(person)}
