"""What stands around the engine of a run: the door before it, and the books behind it."""

from __future__ import annotations

from collections.abc import Iterable

from fusion.engine import Engine
from fusion.errors import EntryError
from fusion.money.ledger import Ledger, unbookable
from fusion.observations import Observation
from fusion.results import Receipt, Result
from fusion.runner.truth import TrueVisit
from fusion.show.console.feed import LiveFeed
from fusion.store.models import Store


class Front:
    """The plainest front: observations pass unchanged, and receipts are booked at list prices.

    Attributes:
        store: the store.
        ledger: its books.
    """

    def __init__(self, store: Store, ledger: Ledger) -> None:
        """Stand around the engine of a store with these books."""
        self.store, self.ledger = store, ledger

    def observations(self, observations: Iterable[Observation]) -> Iterable[Observation]:
        """The observations that the engine gets, made from those that the sensors reported."""
        return observations

    def handle(self, result: Result, engine: Engine) -> Result:
        """Act on a result; returns it as it is reported from here on, a receipt at the prices that it was booked at."""
        try:
            self.ledger.add(result)
        except EntryError as error:
            if not isinstance(result, Receipt):
                raise
            result = unbookable(result, error)
            self.ledger.add(result)
        return result

    def show(self, feed: LiveFeed) -> None:
        """Send what happened at gates and in zones since the last call."""

    def true_visits(self, visits: list[TrueVisit]) -> list[TrueVisit]:
        """The visits that really happened, under the names that the receipts have."""
        return visits

    def close(self, t_ns: int) -> list[str]:
        """Finish the day after the last result; returns the lines that report it."""
        del t_ns
        return []
