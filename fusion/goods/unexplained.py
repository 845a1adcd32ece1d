"""Loads that no goods explain: whoever may have moved one has taken or put back something that is not on their bill.

A hand that leans and goes away, or a bag that is set down and picked up again, leaves the plates as they were. A load
that stays and fits no product is not nothing: the label is wrong, a plate measured only a part of it, or the thing is
in no product list. What it was is for a person to decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from fusion.goods.beliefs import EventBelief
from fusion.goods.hands import Actors
from fusion.goods.hypotheses import OpenEvent
from fusion.goods.loads import UNDONE_SDS, UNDONE_SLACK_G
from fusion.goods.planogram import Planogram
from fusion.goods.unobserved import Explained
from fusion.goods.weighings import GAIN_SD

# Probability that a load which no goods explain has cost a cart nothing, if the cart's people moved it.
UNEXPLAINED_RIGHT = 0.5
# Probabilities below this, of having moved a load or that nothing explains it, are no doubt.
DOUBT_MIN = 0.05
# Goods that are put back against others lift a part of them off the next plate: at the same moment, and a small part.
SHIFT_MAX_NS, SHIFT_SHARE_MAX = 1_500_000_000, 0.1
# The rest of another load: together they weigh what its goods do, to this many standard deviations and up to this share
# of what that one alone is off.
REST_SDS, LET_GO_SHARE = 3.0, 0.5
LOADS_MAX = 512


class _Load(NamedTuple):
    """A load, when it moved, and the probability of everybody near (track ids) that their hand moved it."""

    opened: OpenEvent
    t_ns: int
    moved_by: Mapping[int, float]


class Unexplained(NamedTuple):
    """A load that may have been moved by some people, and that may be explained by no goods.

    Attributes:
        event_id: of the load.
        t_ns, plate, delta_g: when, where, and how much.
        probability: that they moved it and no goods explain it.
    """

    event_id: int
    t_ns: int
    plate: str
    delta_g: float
    probability: float


class UnexplainedLoads:
    """The loads since the oldest open visit, with the people who may have moved them; at most LOADS_MAX."""

    def __init__(self, planogram: Planogram) -> None:
        self._planogram = planogram
        self._loads: dict[int, _Load] = {}  # By event id, in order.
        # Probability that nothing moved, of the events that are final; others are asked for.
        self._final: dict[int, float] = {}

    def add(self, opened: OpenEvent, actors: Actors) -> None:
        """Note who may have moved a load."""
        moved_by = dict(actors.likely(DOUBT_MIN))
        if moved_by:
            self._loads[opened.event_id] = _Load(opened, opened.event.contact_ns, moved_by)
            if len(self._loads) > LOADS_MAX:
                self._drop([next(iter(self._loads))])

    def settle(self, beliefs: Iterable[EventBelief]) -> None:
        """Note events that are final."""
        for belief in beliefs:
            if belief.event_id in self._loads:
                self._final[belief.event_id] = belief.nothing
        self._drop([event_id for event_id, nothing in self._final.items() if nothing < DOUBT_MIN])

    def of(
        self, people: Callable[[int], bool], nothing: Mapping[int, float], explained: Sequence[Explained]
    ) -> list[Unexplained]:
        """The loads that some people may have moved and that no goods explain.

        Args:
            people: whether a person (a track id) is one of those asked about.
            nothing: probability that no goods moved, by the id of every event that is not final.
            explained: those events, and what each most probably was.
        """
        known = {**nothing, **self._final}
        loads = [
            (load.opened, known[event_id], load) for event_id, load in self._loads.items()
            if known.get(event_id, 0.0) > DOUBT_MIN
        ]  # fmt: skip
        found = []
        for opened, unexplained, load in loads:
            moved = sum(p for person, p in load.moved_by.items() if people(person))
            probability = moved * unexplained
            if probability > DOUBT_MIN and not (
                any(opened.event.undoes(other.event) for other, _, _ in loads)
                or self.is_shift(opened)
                or any(self._is_rest_of(opened, other) for other in explained)
            ):
                probability = min(probability, 1.0)
                t_ns = opened.event.contact_ns
                found.append(Unexplained(opened.event_id, t_ns, opened.plate, opened.total_g, probability))
        return found

    def is_shift(self, load: OpenEvent) -> bool:
        """Whether it is the rest of a take that was put back: goods pushed the weight of others from plate to plate."""
        at_ns, size_g = load.event.contact_ns, abs(load.total_g)
        larger = [
            one.opened for one in self._loads.values()
            if -SHIFT_MAX_NS <= one.t_ns - at_ns <= SHIFT_MAX_NS
            and size_g <= SHIFT_SHARE_MAX * abs(one.opened.total_g)
        ]  # fmt: skip
        return any(
            self._is_beside(load, back.plates)
            and any(one.opened.plates & back.plates and _cancel(load, back, one.opened) for one in self._loads.values())
            for back in larger
        )

    def _is_rest_of(self, load: OpenEvent, other: Explained) -> bool:
        """Whether it is a part of another load at that moment: together they weigh what that one's goods do.

        Goods that lay across two plates left or reached these one after the other; or a hand that pulled or pressed
        while the goods were weighed has let go.
        """
        event, parts = other
        if len(parts) != 1 or abs(load.event.contact_ns - event.contact_ns) > SHIFT_MAX_NS:
            return False
        (part,) = parts
        expected_g = part.quantity * float(self._planogram.weight_g[part.product])
        off_g, left_g = abs(event.total_g - expected_g), abs(event.total_g + load.total_g - expected_g)
        var_g2 = part.quantity**2 * float(self._planogram.weight_sd_g[part.product]) ** 2
        slack_g = REST_SDS * (math.sqrt(load.noise_g2 + event.noise_g2 + var_g2) + GAIN_SD * abs(expected_g))
        if left_g > min(slack_g, LET_GO_SHARE * off_g):
            return False
        plates = event.plates.tolist()
        if load.total_g * event.total_g < 0.0:
            return not load.plates.isdisjoint(plates)
        return off_g > slack_g and self._is_beside(load, plates)

    def _is_beside(self, load: OpenEvent, plates: Iterable[int]) -> bool:
        near = {at for plate in load.plates for at in self._planogram.rows.near(plate, 1)}
        return not near.isdisjoint(plates)

    def forget(self, people: Callable[[int], bool]) -> None:
        """Drop the loads that only these people may have moved."""
        self._drop([
            event_id for event_id, load in self._loads.items() if all(people(person) for person in load.moved_by)
        ])  # fmt: skip

    def _drop(self, event_ids: Iterable[int]) -> None:
        for event_id in event_ids:
            self._loads.pop(event_id, None)
            self._final.pop(event_id, None)


def _cancel(load: OpenEvent, back: OpenEvent, earlier: OpenEvent) -> bool:
    """Whether a load makes up for what a larger load and its undoing leave."""
    if back.total_g * earlier.total_g >= 0.0:
        return False
    left_g = back.total_g + earlier.total_g
    slack_g = UNDONE_SLACK_G + UNDONE_SDS * math.sqrt(load.noise_g2 + back.noise_g2 + earlier.noise_g2)
    return load.total_g * left_g < 0.0 and abs(left_g + load.total_g) < slack_g
