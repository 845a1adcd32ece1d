"""Visits: who belongs to each of them, and the register of all that are open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from fusion.people.walkers import LastSeen
from fusion.results import Reason

# Track ids from here on stand for openings of doors. Tracks of people count from 0, and kernels hold ids in 32 bits.
OPENING_TRACK = 1 << 30
# People whose visit is remembered after they left; far more than can be inside at once.
REMEMBERED_MAX = 4096


@dataclass
class Visit:
    """Everybody admitted under one account.

    Attributes:
        id: of the visit; account: None where no credential was shown.
        enter_ns: first entry, None where it was not seen; exit_ns: last exit, None before the first.
        members: tracks that belong to the visit, those who have left included.
        inside: those of them who have not left.
        lost: those who are out of sight inside the store, with their last sight.
        identity: probability that every member's track followed one person throughout.
        doubts: reasons that the visit's receipt may be wrong about who did something.
        beside: tracks that stood at the gate when a member scanned: if they come in without a scan, it may be theirs.
        unidentified: visits without an account whose people may be this one's, for a reviewer.
    """

    id: str
    account: str | None
    enter_ns: int | None
    members: set[int] = field(default_factory=set)
    inside: set[int] = field(default_factory=set)
    lost: dict[int, LastSeen] = field(default_factory=dict)
    exit_ns: int | None = None
    identity: float = 1.0
    doubts: list[Reason] = field(default_factory=list)
    beside: set[int] = field(default_factory=set)
    unidentified: list[str] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether all members have left or were given up."""
        return self.exit_ns is not None and not self.inside and not self.lost

    @property
    def is_followed(self) -> bool:
        """Whether cameras followed any of its people; who reaches through a door needs none."""
        return any(track < OPENING_TRACK for track in self.members)

    def admit(self, track_id: int) -> None:
        """Add a person to this visit, as one who is inside."""
        self.members.add(track_id)
        self.inside.add(track_id)

    def left(self, track_id: int, t_ns: int) -> None:
        """Note that a member left, or was given up, at an instant."""
        self.inside.discard(track_id)
        self.lost.pop(track_id, None)
        self.exit_ns = max(self.exit_ns or t_ns, t_ns)


class OpenVisits:
    """All visits without a receipt, and the visit of every person.

    Attributes:
        of_track: the visit of each track, None for staff; kept after the track's end, since actions are attributed
            after people left.
    """

    def __init__(self, store_id: str) -> None:
        self._store_id = store_id
        self._open: dict[str, Visit] = {}
        self._by_account: dict[str, Visit] = {}
        self._n_visits = 0
        self.of_track: dict[int, Visit | None] = {}
        # Visits that begin until then share a doubt about all that were open at an earlier instant.
        self._doubted_until_ns = 0
        self._doubt: Reason | None = None

    def __contains__(self, visit_id: str) -> bool:
        return visit_id in self._open

    def __iter__(self) -> Iterator[Visit]:
        return iter(self._open.values())

    def __len__(self) -> int:
        return len(self._open)

    def of_account(self, account: str | None) -> Visit | None:
        """The open visit of an account."""
        return self._by_account.get(account) if account is not None else None

    def new(self, account: str | None, t_ns: int, seen_entering: bool) -> Visit:
        """A visit that begins at an instant, or earlier where the beginning was not seen; it is not open yet."""
        self._n_visits += 1
        visit_id = f"{self._store_id}-{t_ns // 1_000_000}-{self._n_visits}"
        visit = Visit(visit_id, account, t_ns if seen_entering else None)
        if self._doubt is not None and t_ns < self._doubted_until_ns:
            visit.doubts.append(self._doubt)
        return visit

    def open(self, account: str | None, t_ns: int, seen_entering: bool) -> Visit:
        """Open a visit."""
        visit = self.new(account, t_ns, seen_entering)
        self._open[visit.id] = visit
        if account is not None:
            self._by_account[account] = visit
        return visit

    def add(self, visit: Visit) -> None:
        """Take a visit that no further people join: the next ones of its account have a visit of their own."""
        self._open[visit.id] = visit

    def assign(self, track_id: int, visit: Visit | None) -> None:
        """Note whose visit a track belongs to; None: staff."""
        if visit is not None:
            visit.admit(track_id)
        self.of_track[track_id] = visit
        if len(self.of_track) > REMEMBERED_MAX:
            del self.of_track[next(iter(self.of_track))]

    def finished(self, until_ns: int) -> list[Visit]:
        """Visits whose people have all left by an instant."""
        return [v for v in self._open.values() if v.finished and v.exit_ns is not None and v.exit_ns <= until_ns]

    def close(self, visit: Visit) -> None:
        """Drop a visit that gets its receipt."""
        del self._open[visit.id]
        if self.of_account(visit.account) is visit:
            del self._by_account[visit.account or ""]

    def doubt(self, reason: Reason, until_ns: int) -> None:
        """Doubt every open visit, and those that begin up to an instant."""
        for visit in self._open.values():
            if reason not in visit.doubts:
                visit.doubts.append(reason)
        self._doubt, self._doubted_until_ns = reason, until_ns
