"""An engine that runs ahead of another one, by the time for which that one waits for late messages."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from fusion.arrival.restamping import moved
from fusion.early.short_order import Lateness, ShortOrder
from fusion.engine import Engine
from fusion.goods.journal import cart
from fusion.results import Receipt, Result
from fusion.snapshots import copied

# A receipt is foreseen this long after the last exit where nothing of its visit is open: enough for a person who turns
# round in the door. At 0.1 to 0.7 s, none of some two hundred simulated visits differed from its final receipt.
CLEAR_NS = 300_000_000
# And this long where a load near its people is not decided: a load that leaves a plate settles within 0.75 s of it.
OPEN_NS = 900_000_000
# Transfers are kept this long after they were made.
FORGOTTEN_NS = 60_000_000_000
# A sensor that was heard within this time before the exit is expected to come past it.
HEARD_NS = 5_000_000_000


@dataclass(frozen=True, slots=True)
class Foreseen:
    """A receipt as it looks now, and whether a load near its visit's people is not decided yet."""

    receipt: Receipt
    loads: bool


class Forerunner(Engine):
    """A copy of an engine that takes observations as they come, and foresees the receipts of visits that have ended.

    Once it has missed an observation that the other one still uses, it is stale, and to be replaced by a new copy
    before what it foresees is used.

    Attributes:
        foreseen: by visit, the newest view of the receipts that are due.
    """

    _reorder: ShortOrder
    _known: Container[str]
    foreseen: dict[str, Foreseen]
    _forgotten_ns: int

    @classmethod
    def of(cls, engine: Engine, known: Container[str], lateness: Lateness) -> Forerunner:
        """Copy an engine, and run ahead to the newest of the observations that it holds.

        Args:
            engine: not changed.
            known: visits whose receipts need not be foreseen.
            lateness: how late messages usually are; updated from now on.
        """
        ahead = cls.__new__(cls)
        vars(ahead).update(vars(copied(engine)))
        ahead._reorder = ShortOrder.of(ahead._reorder, lateness)
        ahead._known, ahead.foreseen = known, {}
        ahead._forgotten_ns = ahead._now_ns
        for ordered in ahead._reorder.ready():
            ahead._take(ordered, [])
        return ahead

    @property
    def stale(self) -> bool:
        """Whether it missed an observation that the other engine uses."""
        return self._reorder.n_missed > 0

    def lags(self, receipt: Receipt) -> bool:
        """Whether a sensor that was heard during a visit's last seconds has not come past its last exit."""
        return self._reorder.lags(receipt.exit_ns, receipt.exit_ns - HEARD_NS)

    def _finish_visits(self, until_ns: int, results: list[Result]) -> None:
        """Bill visits when the other engine will, and foresee the receipts of those that it will bill soon."""
        self._forget()
        n_before = len(results)
        super()._finish_visits(until_ns, results)
        for result in results[n_before:]:
            if isinstance(result, Receipt) and result.visit not in self._known:
                self._foresee(result, loads=False)
        for visit in self._visits.unfinished():
            if visit.exit_ns is None or not visit.finished or visit.id in self._known:
                continue
            waited_ns = self._now_ns - visit.exit_ns
            if waited_ns >= CLEAR_NS:
                loads = self._must_wait(visit)
                if not loads or waited_ns >= OPEN_NS:
                    self._foresee(self._billing.foresee(visit, visit.exit_ns, self._now_ns), loads)

    def _forget(self) -> None:
        """Drop the transfers of visits that have ended now and then: the other engine has them."""
        if self._now_ns - self._forgotten_ns < FORGOTTEN_NS:
            return
        self._forgotten_ns, journal = self._now_ns, self._billing.journal
        inside = {cart(visit.id) for visit in self._visits.unfinished()}
        journal.forget(journal.n_recorded, self._now_ns - self._offset_ns - FORGOTTEN_NS, inside)

    def _foresee(self, receipt: Receipt, loads: bool) -> None:
        self.foreseen[receipt.visit] = Foreseen(moved(receipt, -self._offset_ns), loads)
