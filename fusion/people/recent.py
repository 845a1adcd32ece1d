"""What happened at the gates lately, for as long as it may concern a scan that is open or was bound."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from fusion.people.scans import SCAN_VALID_S, AwayFrom, OpenScan, pair_density
from fusion.people.walkers import Walker

if TYPE_CHECKING:
    from fusion.people.open_visits import Visit

# An unidentified person may have made a scan that another has, where their density is at least this share of theirs.
RIVAL_MIN = 0.1
# Nothing older than this concerns a scan that is still open, or one that comes late.
REMEMBERED_S = SCAN_VALID_S + 1.0


class _Bound(NamedTuple):
    """A scan without an owner at the gate, the visit that it opened, and the density of that pair."""

    scan: OpenScan
    visit: Visit
    density: float


class _Unidentified(NamedTuple):
    """When a person without a credential came in, and their visit."""

    t_ns: int
    visit: str


class Recent:
    """Scans that were bound without an owner at the gate, who came in without a credential, and accounts that left."""

    def __init__(self) -> None:
        self._bound: deque[_Bound] = deque()
        self._unidentified: deque[_Unidentified] = deque()
        self._ended_ns: dict[str, int] = {}

    def bind(self, scan: OpenScan, walker: Walker, visit: Visit, away_m: AwayFrom) -> None:
        """Note that a newcomer came in with a scan; one whose owner stood at the gate is no other's."""
        if scan.track_id is None:
            self._bound.append(_Bound(scan, visit, pair_density(scan, walker, away_m)))

    def came_in(self, t_ns: int, visit: str) -> None:
        """Note that a person without a credential came in."""
        self._unidentified.append(_Unidentified(t_ns, visit))

    def end(self, account: str, exit_ns: int) -> None:
        """Note that the visit of an account has ended."""
        # Removed first, so that the oldest entry stays at the front.
        self._ended_ns[account] = max(exit_ns, self._ended_ns.pop(account, 0))

    def ended_since(self, account: str, since_ns: int) -> bool:
        """Whether a visit of an account has ended since an instant."""
        return self._ended_ns.get(account, 0) >= since_ns

    def unidentified(self, since_ns: int, until_ns: int) -> list[str]:
        """Visits of people who came in without a credential in a span of time."""
        return [each.visit for each in self._unidentified if since_ns <= each.t_ns <= until_ns]

    def first_unidentified_ns(self, since_ns: int, until_ns: int) -> int | None:
        """When the first of these people came in; None where none did."""
        return next((each.t_ns for each in self._unidentified if since_ns <= each.t_ns <= until_ns), None)

    def may_have_scanned(self, walker: Walker, away_m: AwayFrom) -> list[Visit]:
        """Visits that were opened by a scan which an unidentified person may have made."""
        densities = [(pair_density(bound.scan, walker, away_m), bound) for bound in self._bound]
        return [bound.visit for density, bound in densities if density > 0.0 and density >= RIVAL_MIN * bound.density]

    def forget(self, now_ns: int) -> None:
        """Drop what concerns no scan any more."""
        oldest_ns = now_ns - round(REMEMBERED_S * 1e9)
        while self._bound and self._bound[0].scan.scan.t_ns < oldest_ns:
            self._bound.popleft()
        while self._unidentified and self._unidentified[0].t_ns < oldest_ns:
            self._unidentified.popleft()
        while self._ended_ns and self._ended_ns[next(iter(self._ended_ns))] < oldest_ns:
            del self._ended_ns[next(iter(self._ended_ns))]
