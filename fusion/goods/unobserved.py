"""Hands over plates that report nothing, or no weights: what they did is not known, so their carts are doubtful."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from fusion.goods.hands import Hands
from fusion.goods.hypotheses import Part
from fusion.goods.loads import ShelfEvent
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
REACHES_MAX = 1024
# A hand is over the plate that it moves for this long before and after.
AT_CONTACT_NS = 350_000_000
NOT_REPORTING = ReasonKind.PLATE_NOT_REPORTING


class BlindPlates(NamedTuple):
    """Plates (indices into store.plates) whose weights are not known at present.

    Attributes:
        unheard: plates that do not report.
        unfit: plates whose readings cannot be right: of another unit, rate or time.
        suspect: plates whose loads may be a wrong multiple of what goods weigh.
        restarted: since when plates have weighed from another zero, of those that just began to.
    """

    unheard: Collection[int] = ()
    unfit: Collection[int] = ()
    suspect: Collection[int] = ()
    restarted: Mapping[int, int] = MappingProxyType({})


class Reach(NamedTuple):
    """A hand in the space above a plate that may not have shown what it did.

    Attributes:
        t_ns, plate, person: when and where it was, and the hand's track id.
        kind: why the plate may not have shown it.
        suspected: the plate's loads alone say so, and later loads may explain them.
    """

    t_ns: int
    plate: int
    person: int
    kind: ReasonKind
    suspected: bool = False


class Explained(NamedTuple):
    """A shelf event and what it most probably was."""

    event: ShelfEvent
    parts: tuple[Part, ...]


class UnobservedReaches:
    """Who reached into plates that do not report, or report no weights."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._watched_ns: dict[int, int] = {}  # By plate that does not report: up to when hands were looked up.
        self._reaches: deque[Reach] = deque(maxlen=REACHES_MAX)

    def __len__(self) -> int:
        return len(self._reaches)

    def watch(self, blind: BlindPlates, history: ArmHistory, now_ns: int) -> None:
        """Note whose hands were over plates whose weights are not known."""
        unheard, unfit, suspect, restarted = blind
        plates = {*unheard, *unfit, *suspect, *restarted}
        if not plates and not self._watched_ns:
            return
        # Plates that report again show what was done in the meantime.
        recovered = {plate for plate in self._watched_ns if plate not in plates}
        if recovered:
            self._watched_ns = {plate: t_ns for plate, t_ns in self._watched_ns.items() if plate not in recovered}
            forgotten_ns = now_ns - SILENCE_MAX_NS
            self._keep(
                lambda reach: reach.kind is not NOT_REPORTING
                or reach.plate not in recovered
                or reach.t_ns < forgotten_ns
            )
        for plate in sorted(plates):
            before_ns = BEFORE_UNFIT_NS if plate in unfit or plate in suspect else BEFORE_REPORT_NS
            if plate in restarted:
                before_ns = now_ns - restarted[plate] + BEFORE_RESTART_NS
            since_ns = self._watched_ns.get(plate, now_ns - before_ns)
            if now_ns - since_ns < WATCH_EVERY_NS:
                continue
            self._watched_ns[plate] = now_ns
            for hand in self._hands.over(plate, history, history.between(since_ns + 1, now_ns)):
                untrue = plate in unfit or plate in restarted
                suspected = plate in suspect and not untrue and plate not in unheard
                kind = ReasonKind.PLATE_UNFIT if untrue or suspected else NOT_REPORTING
                self._reaches.append(Reach(hand.t_ns, plate, hand.track, kind, suspected))

    def clear(self, plate: int) -> None:
        """Drop the reaches into a plate whose loads were suspected, and have been explained."""
        self._keep(lambda reach: reach.plate != plate or not reach.suspected)

    def note_unclaimed(self, event: ShelfEvent, history: ArmHistory) -> list[int]:
        """Note whose hands were over other plates while a load moved that no hand explains; returns those plates."""
        reached = []
        rows = history.between(event.contact_ns - AT_CONTACT_NS, event.contact_ns + AT_CONTACT_NS)
        for plate in self._hands.within_reach(history, rows):
            if self._hands.apart_m(event.main_plate, plate) >= EXPLAINED_WITHIN_M:
                for hand in self._hands.over(plate, history, rows):
                    self._reaches.append(Reach(hand.t_ns, plate, hand.track, ReasonKind.LOAD_ELSEWHERE))
                    reached.append(plate)
        return reached

    def unexplained(self, people: Callable[[int], bool], carts: set[int], events: Sequence[Explained]) -> list[Reach]:
        """The first reach of people into each plate for which no other plate reported a reason.

        Args:
            people: whether a person (a track id) is one of those asked about.
            carts: their carts.
            events: all events that are not settled.
        """
        # What an unfit plate reports explains nothing.
        unfit = {reach.plate for reach in self._reaches if reach.kind is ReasonKind.PLATE_UNFIT}
        fit = [explained for explained in events if unfit.isdisjoint(explained.event.plates.tolist())]
        found: dict[int, Reach] = {}
        for reach in self._reaches:
            if people(reach.person) and reach.plate not in found and not self._explains(reach, carts, fit):
                found[reach.plate] = reach
        return list(found.values())

    def forget(self, people: Callable[[int], bool]) -> None:
        """Drop the reaches of some people."""
        self._keep(lambda reach: not people(reach.person))

    def _explains(self, reach: Reach, carts: set[int], events: Sequence[Explained]) -> bool:
        return any(
            abs(event.contact_ns - reach.t_ns) < EXPLAINED_WITHIN_S * 1e9
            and any(part.cart in carts for part in parts)
            and self._hands.apart_m(int(event.plates[0]), reach.plate) < EXPLAINED_WITHIN_M
            for event, parts in events
        )

    def _keep(self, wanted: Callable[[Reach], bool]) -> None:
        self._reaches = deque((reach for reach in self._reaches if wanted(reach)), maxlen=REACHES_MAX)
