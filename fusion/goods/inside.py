"""Who is inside a store, on which visit, and what they seem to hold: what may be asked while they are inside."""

from __future__ import annotations

from fusion.arrival.restamping import moved
from fusion.goods.billing import Billing
from fusion.people.visits import Visits
from fusion.results import Receipt


class Inside:
    """A view of an engine between two steps; asking changes nothing."""

    def __init__(self, visits: Visits, billing: Billing, now_ns: int, offset_ns: int) -> None:
        """See `Engine.inside`. now_ns: the stages' time; offset_ns: what it is ahead of data time."""
        self._visits, self._billing, self._now_ns, self._offset_ns = visits, billing, now_ns, offset_ns

    def visit_of(self, track_id: int) -> str | None:
        """Id of a person's visit; None for staff, unidentified people and people long gone."""
        return self._visits.visit_of(track_id)

    def is_staff(self, track_id: int) -> bool:
        """Whether a person came in with a staff credential."""
        return self._visits.is_staff(track_id)

    def foreseen(self, visit_id: str) -> Receipt | None:
        """The receipt of an open visit, at list prices, if its people left now; None for a visit that is not open.

        It lacks what only the bill finds: sightings that are not weighed yet, and goods that changed hands.
        """
        visit = next((visit for visit in self._visits.unfinished() if visit.id == visit_id), None)
        if visit is None:
            return None
        return moved(self._billing.foresee(visit, self._now_ns, self._now_ns), -self._offset_ns)
