"""One track, as the gates see it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from fusion.people.gate_lines import Passage, Place

if TYPE_CHECKING:
    from fusion.people.open_visits import Visit


# A track that went this far from where it was first seen follows no thing: coats and chairs stay where they are.
WALKED_M = 1.0


class Entry(NamedTuple):
    """A gate that a person crossed on the way in, and when."""

    crossed_ns: int
    gate: int


class LastSeen(NamedTuple):
    """When and where a person was last seen."""

    seen_ns: int
    place: Place


@dataclass(slots=True)
class Walker:
    """One track.

    Attributes:
        first_ns, first_m: when and where the track was first reported.
        seen_ns, last_m: when a camera last saw the person, and their newest place.
        passages: by gate, for the gates in reach.
        inside: whether the person is in the store.
        identity: probability that the track followed one person throughout.
        visit: that the person belongs to; None for staff, and before they came in.
        waiting: the entry that they crossed without a scan of their own.
        entries: entries where they were first seen just inside the line; None until needed.
        walked: whether a person without a visit went WALKED_M from where they were first seen.
        moved_goods: whether a shelf event was most probably theirs.
    """

    track_id: int
    first_ns: int
    first_m: Place
    last_m: Place
    seen_ns: int
    passages: dict[int, Passage] = field(default_factory=dict)
    inside: bool = False
    identity: float = 1.0
    visit: Visit | None = None
    waiting: Entry | None = None
    entries: list[int] | None = None
    walked: bool = False
    moved_goods: bool = False

    @property
    def lives(self) -> bool:
        """Whether the track has done what coats and chairs do not: walked up to now, or moved goods."""
        return self.walked or self.moved_goods or math.dist(self.first_m, self.last_m) > WALKED_M

    def check_life(self) -> bool:
        """The same; a walk is remembered."""
        self.walked = self.walked or math.dist(self.first_m, self.last_m) > WALKED_M
        return self.walked or self.moved_goods

    def lower_identity(self, identity: float) -> None:
        """Note that the track follows one person with this probability, which is lower than before."""
        self.identity = identity
        if self.visit:
            self.visit.identity = min(self.visit.identity, identity)

    @property
    def last_seen(self) -> LastSeen:
        """When and where the person was last seen."""
        return LastSeen(self.seen_ns, self.last_m)

    @property
    def is_outside(self) -> bool:
        """Whether the person may still make a scan: neither inside nor past an entry."""
        return not self.inside and self.waiting is None
