"""The visitors of a run, and the numbers by which its page refers to them."""

from __future__ import annotations

from dataclasses import dataclass

from fusion.results import PersonEntered, PersonLeft

# Index of an unidentified visitor.
UNIDENTIFIED = -1


@dataclass
class Visitor:
    """One visit, or one member of staff, who has none."""

    visit: str | None
    account: str | None
    staff: bool = False
    enter_ns: int | None = None
    exit_ns: int | None = None


class Visitors:
    """Visitors in the order in which they were first seen; an index into `rows` names each.

    Attributes:
        rows: one for each visitor; only added to.
    """

    def __init__(self) -> None:
        self.rows: list[Visitor] = []
        self._by_visit: dict[str, int] = {}
        self._by_account: dict[str, int] = {}
        self._by_track: dict[int, int] = {}

    def enter(self, entered: PersonEntered) -> None:
        """Note who a track is; further members of a group share the row of their visit."""
        index = self._by_visit.get(entered.visit) if entered.visit is not None else None
        if index is None:
            # A staff credential opens the gate, so it must not appear on a page that is passed around.
            account = None if entered.staff else entered.account
            index = self._add(Visitor(entered.visit, account, entered.staff, entered.t_ns))
        self._by_track[entered.track_id] = index

    def leave(self, left: PersonLeft) -> None:
        """Note the exit of a track; a visit ends with its last member."""
        index = self._by_track.get(left.track_id)
        if index is not None:
            visitor = self.rows[index]
            visitor.exit_ns = max(visitor.exit_ns or left.t_ns, left.t_ns)

    def of_track(self, track_id: int) -> int | None:
        """Index of the visitor that a track follows; None before they entered."""
        return self._by_track.get(track_id)

    def index_of(self, visit: str | None, account: str | None) -> int:
        """Index of the visitor that a result names, added where new; `UNIDENTIFIED` where it names none."""
        if visit is not None and visit in self._by_visit:
            return self._by_visit[visit]
        if visit is None and account is not None and account in self._by_account:
            return self._by_account[account]
        return UNIDENTIFIED if visit is None and account is None else self._add(Visitor(visit, account))

    def _add(self, visitor: Visitor) -> int:
        self.rows.append(visitor)
        index = len(self.rows) - 1
        if visitor.visit is not None:
            self._by_visit[visitor.visit] = index
        if visitor.account is not None:
            self._by_account[visitor.account] = index
        return index
