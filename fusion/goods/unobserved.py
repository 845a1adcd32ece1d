"""Hands over plates that could not show what they did: silent, unsettled, too noisy, or no weights. Carts are doubtful.

A plate that reports again shows what was done in the meantime, unless it contradicts itself: its change of weight fits
no goods, or may be the rest of a load of which its neighbour showed a part.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from fusion.goods.hands import Actors, Hands
from fusion.goods.hypotheses import Part
from fusion.goods.loads import ShelfEvent
from fusion.goods.planogram import Planogram
from fusion.people.arms import ArmHistory
from fusion.results import ReasonKind

# A hand in the space above such a plate may have taken something, unless it did something at about that time that a
# plate as near as this reported.
EXPLAINED_WITHIN_S, EXPLAINED_WITHIN_M = 1.5, 0.35
# A plate is reported a few seconds after it fell silent; hands are then looked up this far back.
BEFORE_REPORT_NS = 7_000_000_000
# That a plate's readings are no weights is found later; then hands are looked up as far back as they are kept.
BEFORE_UNFIT_NS = 30_000_000_000
# A hand that was over a plate this long before its restart may have been part of it.
BEFORE_RESTART_NS = 1_000_000_000
# What was done in a silence shows afterwards, but not whose hands it was, once these are forgotten.
SILENCE_MAX_NS = 25_000_000_000
WATCH_EVERY_NS = 500_000_000
# A plate that reports again has settled after this long, or is known to move.
SHOWS_AFTER_NS = 2_500_000_000
REACHES_MAX = 1024
# A hand is over the plate that it moves for this long before and after.
AT_CONTACT_NS = 350_000_000
# Hands are located to a few centimetres, worse where a shelf hides them.
UNSURE_M = 0.03
# A hand stays over a plate for this long after it took something there.
LINGERS_S = 0.75
# Probability from which on a person may have moved a load.
MAY_HAVE_MOVED = 0.05
# A load on a plate that was heard may go on upon a plate this many places beside it.
SPLIT_REACH = 1
# What was done meanwhile shows later, once such a plate has settled again.
SHOWN_LATER = (ReasonKind.PLATE_NOT_REPORTING, ReasonKind.PLATE_UNSETTLED)


class BlindPlates(NamedTuple):
    """Plates (indices into store.plates) whose weights are not known at present.

    Attributes:
        unheard: plates that do not report.
        unfit: plates whose readings cannot be right: of another unit, rate or time.
        suspect: plates whose loads may be a wrong multiple of what goods weigh.
        restarted: since when plates have weighed from another zero, of those that just began to.
        unsettled: since when plates have not been at rest, of those that have moved for long.
        noisy: plates that tremble so much that they hide goods as light as those there.
    """

    unheard: Collection[int] = ()
    unfit: Collection[int] = ()
    suspect: Collection[int] = ()
    restarted: Mapping[int, int] = MappingProxyType({})
    unsettled: Mapping[int, int] = MappingProxyType({})
    noisy: Collection[int] = ()

    def since_ns(self, plate: int, now_ns: int) -> int:
        """Since when what hands did over such a plate is not known, when it is first asked for."""
        if plate in self.restarted:
            return self.restarted[plate] - BEFORE_RESTART_NS
        if plate in self.unfit or plate in self.suspect or plate in self.noisy:
            return now_ns - BEFORE_UNFIT_NS
        return self.unsettled.get(plate, now_ns - BEFORE_REPORT_NS)

    def kind(self, plate: int) -> ReasonKind:
        """Why it is not known."""
        if plate in self.unfit or plate in self.restarted or self.is_only_suspect(plate):
            return ReasonKind.PLATE_UNFIT
        if plate in self.unheard:
            return ReasonKind.PLATE_NOT_REPORTING
        return ReasonKind.PLATE_NOISY if plate in self.noisy else ReasonKind.PLATE_UNSETTLED

    def is_only_suspect(self, plate: int) -> bool:
        """Whether nothing but the plate's loads says that its weights are not known."""
        return plate in self.suspect and not any(plate in known for known in (self.unheard, self.unfit, self.restarted))


class Reach(NamedTuple):
    """A hand in the space above a plate that may not have shown what it did.

    Attributes:
        t_ns, plate, person: when, where (an index into store.plates), and whose (a track id).
        kind: why it may not.
        since_ns: since when the plate may not.
        shown_ns: when the plate had settled, so that what was done shows in its weight; 0 before.
        suspected: the plate's loads alone say so, and later loads may explain them.
    """

    t_ns: int
    plate: int
    person: int
    kind: ReasonKind
    since_ns: int
    shown_ns: int = 0
    suspected: bool = False

    @property
    def shown(self) -> bool:
        """Whether the plate has settled since."""
        return self.shown_ns > 0


class _Watch(NamedTuple):
    """Since when a plate has been blind, up to when hands over it were looked up, and why it is blind."""

    since_ns: int
    until_ns: int
    kind: ReasonKind


class Explained(NamedTuple):
    """A shelf event and what it most probably was."""

    event: ShelfEvent
    parts: tuple[Part, ...]


class UnobservedReaches:
    """Who reached into plates that could not show it."""

    def __init__(self, hands: Hands, planogram: Planogram) -> None:
        self._hands, self._planogram = hands, planogram
        self._watched: dict[int, _Watch] = {}  # By blind plate.
        self._unsettled: dict[int, int] = {}  # As of the last call of `watch`.
        self._reaches: deque[Reach] = deque(maxlen=REACHES_MAX)

    def watch(self, blind: BlindPlates, history: ArmHistory, now_ns: int) -> None:
        """Note whose hands were over plates whose weights are not known."""
        if not any(blind) and not self._watched:
            return
        self._unsettled = dict(blind.unsettled)
        plates = set().union(*blind)
        # What was done shows a moment after a plate reports again, and at once where it has come to rest.
        recovered = {
            plate for plate, watch in self._watched.items()
            if plate not in plates
            and (watch.kind is ReasonKind.PLATE_UNSETTLED or now_ns - watch.until_ns >= SHOWS_AFTER_NS)
        }  # fmt: skip
        if recovered:
            self._watched = {plate: watch for plate, watch in self._watched.items() if plate not in recovered}
            forgotten_ns = now_ns - SILENCE_MAX_NS
            reaches = [
                reach._replace(shown_ns=now_ns)
                if reach.kind in SHOWN_LATER and reach.plate in recovered and reach.t_ns >= forgotten_ns
                else reach
                for reach in self._reaches
            ]
            self._reaches = deque(reaches, maxlen=REACHES_MAX)
        for plate in sorted(plates):
            kind, watch = blind.kind(plate), self._watched.get(plate)
            # What a plate could not show for another reason that is found later does not show when it settles.
            if watch is None or kind not in (watch.kind, *SHOWN_LATER):
                since_ns = blind.since_ns(plate, now_ns)
                watch = _Watch(since_ns, since_ns, kind)
            if now_ns - watch.until_ns < WATCH_EVERY_NS:
                continue
            self._watched[plate] = _Watch(watch.since_ns, now_ns, watch.kind)
            suspected = blind.is_only_suspect(plate)
            for hand in self._hands.over(plate, history, watch.until_ns + 1, now_ns, UNSURE_M):
                self._reaches.append(Reach(hand.t_ns, plate, hand.track, kind, watch.since_ns, suspected=suspected))

    def clear(self, plate: int) -> None:
        """Drop the reaches into a plate whose loads were suspected, and have been explained."""
        self._keep(lambda reach: reach.plate != plate or not reach.suspected)

    def note_moved(self, event: ShelfEvent, actors: Actors) -> None:
        """Note who may have moved a load on a plate that is not at rest, so that what it weighs is not known."""
        at = event.main_plate
        since_ns = self._unsettled.get(at)
        if since_ns is None or since_ns > event.contact_ns:
            return
        for person, log_p in zip(actors.near, actors.log_probability[:-1].tolist()):
            if log_p > math.log(MAY_HAVE_MOVED):
                self._reaches.append(Reach(event.contact_ns, at, person, ReasonKind.PLATE_UNSETTLED, since_ns))

    def note_unclaimed(self, event: ShelfEvent, history: ArmHistory) -> list[int]:
        """Note whose hands were over other plates while a load moved that no hand explains; returns those plates."""
        reached = []
        first_ns, last_ns = event.contact_ns - AT_CONTACT_NS, event.contact_ns + AT_CONTACT_NS
        rows = history.between(first_ns, last_ns)
        for plate in self._hands.within_reach(history, rows):
            if self._hands.apart_m(event.main_plate, plate) >= EXPLAINED_WITHIN_M:
                for hand in self._hands.over(plate, history, first_ns, last_ns):
                    self._reaches.append(Reach(hand.t_ns, plate, hand.track, ReasonKind.LOAD_ELSEWHERE, hand.t_ns))
                    reached.append(plate)
        return reached

    def unexplained(
        self,
        people: Callable[[int], bool],
        carts: set[int],
        events: Sequence[Explained],
        undecided: Mapping[int, int] = MappingProxyType({}),
    ) -> list[Reach]:
        """The first reach of people into each plate for which no other plate reported a reason.

        Args:
            people: whether a person (a track id) is one of those asked about.
            carts: their carts.
            events: all events that are not settled.
            undecided: since when plates have had loads that are not reported yet. What was done before that shows.
        """
        if not self._reaches:
            return []
        events = _standing(events)
        # What an unfit plate reports explains nothing.
        unfit = {reach.plate for reach in self._reaches if reach.kind is ReasonKind.PLATE_UNFIT}
        fit = [explained for explained in events if unfit.isdisjoint(explained.event.plates.tolist())]
        # What other plates showed stands.
        open_plates = {plate for event, parts in events if event.silent or not parts for plate in event.plates.tolist()}
        found: dict[int, Reach] = {}
        for reach in self._reaches:
            if undecided.get(reach.plate, reach.shown_ns) < reach.shown_ns:
                reach = reach._replace(shown_ns=0)  # noqa: PLW2901 as long as what showed is undecided
            if reach.shown and reach.plate not in open_plates:
                continue
            if people(reach.person) and reach.plate not in found:
                near = [event for event, parts in fit if self._is_theirs(event, parts, reach, carts)]
                parts = [event for event in near if self._may_be_a_part(event, reach.plate)]
                known = len(parts) < len(near) or (reach.shown and not _is_unexplained(reach, events))
                if not known or (reach.shown and parts and _is_silent_load(reach, events)):
                    found[reach.plate] = reach
        return list(found.values())

    def may_yet_show(
        self, people: Callable[[int], bool], carts: set[int], explained: Callable[[], Sequence[Explained]], now_ns: int
    ) -> bool:
        """Whether a plate that is silent, or not at rest, may still show what people did there.

        explained: all events that are not settled; people and carts: as for `unexplained`.
        """
        waiting = any(_may_show(reach, now_ns) and people(reach.person) for reach in self._reaches)
        return waiting and any(_may_show(reach, now_ns) for reach in self.unexplained(people, carts, explained()))

    def forget(self, people: Callable[[int], bool]) -> None:
        """Drop the reaches of some people."""
        self._keep(lambda reach: not people(reach.person))

    def _is_theirs(self, event: ShelfEvent, parts: Sequence[Part], reach: Reach, carts: set[int]) -> bool:
        """Whether people moved the goods of an event at about the time and place of a reach."""
        within_s = EXPLAINED_WITHIN_S
        if reach.kind in SHOWN_LATER and not reach.shown and reach.plate in event.plates:
            # The plate itself has shown no more than what was done before.
            if event.contact_ns >= reach.since_ns:
                return False
            within_s = LINGERS_S
        return (
            abs(event.contact_ns - reach.t_ns) < within_s * 1e9
            and any(part.cart in carts for part in parts)
            and self._hands.apart_m(int(event.plates[0]), reach.plate) < EXPLAINED_WITHIN_M
        )

    def _may_be_a_part(self, event: ShelfEvent, plate: int) -> bool:
        """Whether the load of an event may have gone on upon a plate beside its own."""
        plates = event.plates.tolist()
        return plate not in plates and not set(plates).isdisjoint(self._planogram.rows.near(plate, SPLIT_REACH))

    def _keep(self, wanted: Callable[[Reach], bool]) -> None:
        self._reaches = deque((reach for reach in self._reaches if wanted(reach)), maxlen=REACHES_MAX)


def _standing(events: Sequence[Explained]) -> list[Explained]:
    """Events without leans: loads of nothing that other loads of nothing undid."""
    leans = [event for event, parts in events if not parts]
    return [
        Explained(event, parts)
        for event, parts in events
        if parts or event.silent or not any(event.undoes(other) for other in leans)
    ]


def _may_show(reach: Reach, now_ns: int) -> bool:
    return reach.kind in SHOWN_LATER and not reach.shown and reach.t_ns >= now_ns - SILENCE_MAX_NS


def _covers(event: ShelfEvent, reach: Reach) -> bool:
    """Whether a plate's load may have moved when a hand was there."""
    return reach.plate in event.plates and event.onset_ns <= reach.t_ns <= event.settled_ns


def _is_unexplained(reach: Reach, events: Sequence[Explained]) -> bool:
    """Whether what a plate showed once it had settled fits no goods."""
    return any(not parts and not event.silent and _covers(event, reach) for event, parts in events)


def _is_silent_load(reach: Reach, events: Sequence[Explained]) -> bool:
    """Whether a load moved while the plate was silent, which then may be the rest of a load beside it."""
    return any(event.silent and _covers(event, reach) for event, _ in events)
