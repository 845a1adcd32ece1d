"""What the shelves may have missed: the chance that a person moved goods and no plate reported it.

Shelves miss few loads, most of them beside another person's: two loads at once on touching plates are read as one. And
a piece that one person takes and another one puts leaves no weight behind, like a hand that leans on a plate; the
hands that were there at the two instants decide.
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
# Loads of two people that cancel are noted from this probability on, and never believed more than this.
UNDONE_MIN, UNDONE_CERTAIN = 1e-5, 0.99


class MissedLoads:
    """By person, the log probability that no plate missed a load of theirs; at most PEOPLE_MAX people."""

    def __init__(self) -> None:
        self._log_none: dict[int, float] = {}

    def add(self, actors: Actors) -> None:
        """Note whose hands were at a load."""
        for person, moved in actors.likely(AT_LOAD_MIN):
            self._note(person, moved * math.log1p(-MISSED_ALONE) + (1.0 - moved) * math.log1p(-MISSED_BESIDE))

    def add_undone(self, first: Actors, second: Actors, log_odds: float, cart_of: Callable[[int], int]) -> None:
        """Note whose hands were at the two instants of a hand that may have been two loads that cancel.

        One hand is one person's, and so may two loads be; that changes nothing. With odds o of two loads, and
        probability s that the carts of both instants are the same, the loads are of two carts with the odds
        o (1 - s) / ((1 + o) s).

        Args:
            first: who may have been there at the first instant.
            second: the same of the second instant.
            log_odds: of two loads, by the plates alone.
            cart_of: the cart of a person in view.
        """
        shares = [_by_cart(actors, cart_of) for actors in (first, second)]
        same = sum(p * shares[1].get(cart, 0.0) for cart, p in shares[0].items())
        odds = math.exp(min(log_odds, 50.0))
        two = odds * (1.0 - same) / (odds * (1.0 - same) + (1.0 + odds) * same)
        for person in {*first.near, *second.near}:
            one, other = (share.get(cart_of(person), 0.0) for share in shares)
            concerned = min(1.0, (one * (1.0 - other) + other * (1.0 - one)) / max(1.0 - same, 1e-9))
            if two * concerned > UNDONE_MIN:
                self._note(person, math.log1p(-min(two * concerned, UNDONE_CERTAIN)))

    def _note(self, person: int, log_none: float) -> None:
        self._log_none[person] = self._log_none.get(person, 0.0) + log_none
        if len(self._log_none) > PEOPLE_MAX:
            del self._log_none[next(iter(self._log_none))]

    def log_none(self, people: Callable[[int], bool]) -> float:
        """Log probability that nothing of some people (by track id) was missed."""
        return sum(log_none for person, log_none in self._log_none.items() if people(person))

    def forget(self, people: Callable[[int], bool]) -> None:
        """Drop some people."""
        self._log_none = {person: log_none for person, log_none in self._log_none.items() if not people(person)}


def _by_cart(actors: Actors, cart_of: Callable[[int], int]) -> dict[int, float]:
    """Probability that a person of each cart did it; -1, a person unseen."""
    share: dict[int, float] = {}
    for person, log_p in zip(actors.owner.tolist(), actors.log_probability.tolist()):
        cart = cart_of(person) if person >= 0 else -1
        share[cart] = share.get(cart, 0.0) + math.exp(min(log_p, 0.0))
    return share
