"""Baskets that are paid before the goods leave: which are authorised, and the questions for those that are not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fusion.errors import FusionError
from fusion.money.payments import Checkout

# A basket that was declined, or whose question was not answered, is asked about again after this long; doubled each
# time. People at a door wait, but a provider that is asked every second answers none.
AGAIN_MIN_S, AGAIN_MAX_S = 2.0, 60.0

Outcome = Literal["covered", "asked", "declined", "unanswered"]


@dataclass
class _Question:
    """The newest question about a visit's basket.

    Attributes:
        amount: minor units.
        outcome: how it stands.
        again_s: instant of the clock from which it may be asked again.
        n_tries: how often it was asked in a row.
    """

    amount: int
    outcome: Outcome = "asked"
    again_s: float = 0.0
    n_tries: int = 1


class Authorisations:
    """What each visit has authorised so far. Answers from memory; questions are asked in the background.

    Attributes:
        covered: by visit the largest amount that is authorised, minor units.
    """

    def __init__(
        self,
        checkout: Callable[[], Checkout],
        *,
        start: Callable[[Callable[[], None]], object],
        monotonic_s: Callable[[], float],
        report: Callable[[str], object],
    ) -> None:
        """Ask through a checkout.

        Args:
            checkout: gives that of the store. Raises LedgerError while its books are away.
            start: runs a question: in another thread, or at once in a simulation.
            monotonic_s: seconds of the machine's clock, for pauses.
            report: takes messages for the operator.
        """
        self._checkout, self._start, self._monotonic_s, self._report = checkout, start, monotonic_s, report
        self._lock = threading.Lock()
        self._questions: dict[str, _Question] = {}
        self.covered: dict[str, int] = {}

    def covers(self, visit: str, amount: int) -> bool:
        """Whether an amount is authorised for a visit; nothing is to be paid for an empty basket."""
        return amount <= self.covered.get(visit, 0)

    def ask(self, visit: str, amount: int, t_ns: int) -> Outcome:
        """How the authorisation of a basket stands; begins it where nothing was asked yet. Never waits.

        Args:
            visit: whose basket.
            amount: minor units.
            t_ns: data time.
        """
        if self.covers(visit, amount):
            return "covered"
        with self._lock:
            question = self._questions.get(visit)
            if question is not None and question.outcome == "asked":
                return "asked"
            if question is not None and question.amount == amount and self._monotonic_s() < question.again_s:
                return question.outcome
            n_tries = question.n_tries + 1 if question is not None and question.amount == amount else 1
            self._questions[visit] = question = _Question(amount, n_tries=n_tries)
        self._start(lambda: self._answer(visit, question, t_ns))
        return "covered" if self.covers(visit, amount) else question.outcome

    def _answer(self, visit: str, question: _Question, t_ns: int) -> None:
        outcome: Outcome = "unanswered"
        try:
            covered = self._checkout().confirm(visit, question.amount, t_ns)
            outcome = "covered" if covered else "declined" if self._declined(visit) else "unanswered"
        except FusionError as error:
            self._report(f"visit {visit}: its basket could not be authorised: {error}")
        with self._lock:
            question.outcome = outcome
            pause_s = min(AGAIN_MIN_S * 2 ** min(question.n_tries - 1, 30), AGAIN_MAX_S)
            question.again_s = self._monotonic_s() + pause_s
            if outcome == "covered":
                self.covered[visit] = max(self.covered.get(visit, 0), question.amount)

    def _declined(self, visit: str) -> bool:
        return self._checkout().state(visit).status not in ("pending", "person")

    def forget(self, visit: str) -> None:
        """A visit has its receipt: what is left of its authorisation is the receipt's to settle."""
        with self._lock:
            self._questions.pop(visit, None)
            self.covered.pop(visit, None)
