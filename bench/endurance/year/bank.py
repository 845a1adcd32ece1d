"""The payment provider of a simulated shop. What it moved stands in its own account, which the auditor reads."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fusion.money.providers import Answer, CannotLookUp, PaymentError, Terms, UnknownOutcome

# Share of banks that can be asked what became of a request.
LOOKING_UP = 0.7
# Shares of requests in bad hours.
LOST_BEFORE, LOST_AFTER, DECLINED, REPEATED = 0.1, 0.15, 0.02, 0.05


@dataclass(frozen=True)
class Move:
    """An operation that the bank carried out.

    Attributes:
        t_ns: when. step, key, amount: as asked.
        reference: the bank's own name for it.
        of: reference of the authorisation or capture that it concerns; "" for an authorisation.
    """

    t_ns: int
    step: str
    key: str
    amount: int
    reference: str
    of: str


class Bank:
    """A provider that is slow to forget and quick to fail.

    Attributes:
        terms: keys are kept for a day, authorisations for a week. Some banks have no look-up, and keep keys for five
            minutes.
        moves: what it carried out, in order.
        away: whether it answers nothing at all. leaving: the next request is the last that it carries out, and the
            answer is lost. bad: whether it loses, declines and repeats.
        reached: names states that the auditor wants to have been seen.
    """

    def __init__(self, rng: random.Random, now_ns: Callable[[], int], reached: Callable[[str], object]) -> None:
        self._looks_up = rng.random() < LOOKING_UP
        self.terms = Terms() if self._looks_up else Terms(keys_kept_s=300.0)
        self.moves: list[Move] = []
        self.away = self.leaving = self.bad = False
        self._rng, self._now_ns, self._reached = rng, now_ns, reached
        self._by_key: dict[str, tuple[tuple[Any, ...], Answer, int]] = {}
        self._left: dict[str, int] = {}

    def authorise(self, key: str, token: str, amount: int, currency: str) -> Answer:
        return self._asked("authorise", key, amount, "", (token, currency))

    def capture(self, key: str, authorisation: str, amount: int) -> Answer:
        return self._asked("capture", key, amount, authorisation, ())

    def release(self, key: str, authorisation: str) -> Answer:
        return self._asked("release", key, 0, authorisation, ())

    def refund(self, key: str, capture: str, amount: int) -> Answer:
        return self._asked("refund", key, amount, capture, ())

    def look_up(self, step: str, key: str, of: str) -> Answer | None:
        if self.away:
            raise UnknownOutcome("no answer")
        if not self._looks_up:
            self._reached("the provider has no look-up")
            raise CannotLookUp("no such service")
        found = self.carried_out(step, key)
        if len(found) > 1:
            raise CannotLookUp("several operations under one key")
        return found[0] if found else None

    def carried_out(self, step: str, key: str) -> list[Answer]:
        """What a person finds in the account under a key."""
        return [Answer(True, move.reference) for move in self.moves if (move.step, move.key) == (step, key)]

    def _asked(self, step: str, key: str, amount: int, of: str, more: tuple[str, ...]) -> Answer:
        request, now_ns = (step, amount, of, *more), self._now_ns()
        draw = self._rng.random() if self.bad else 1.0
        if self.away or (draw < LOST_BEFORE and not self.leaving):
            self._reached(f"{step}: no answer, nothing done")
            raise UnknownOutcome("no answer")
        known = self._by_key.get(key)
        if known is None or now_ns - known[2] >= self.terms.keys_kept_s * 1e9:
            if known is not None:
                self._reached("a key was forgotten")
            answer = self._carried_out(step, key, amount, of, declined=draw > 1.0 - DECLINED and self.bad)
            self._by_key[key] = request, answer, now_ns
        elif known[0] != request:
            raise PaymentError("the key was used for another request")
        else:
            answer = known[1]
            self._reached(f"{step}: asked again under its key")
        if draw < LOST_BEFORE + LOST_AFTER or self.leaving:
            self.away, self.leaving = self.away or self.leaving, False
            self._reached(f"{step}: done, answer lost")
            raise UnknownOutcome("no answer")
        return answer

    def _carried_out(self, step: str, key: str, amount: int, of: str, *, declined: bool) -> Answer:
        if step == "authorise" and declined:
            self._reached("declined")
            return Answer(False, reason="insufficient funds")
        if step != "authorise" and of not in self._left:
            return Answer(False, reason="no such operation")
        if step in ("capture", "refund") and amount > self._left[of]:
            return Answer(False, reason="more than there is")
        reference = f"{step[:4]}{len(self.moves) + 1}"
        self.moves.append(Move(self._now_ns(), step, key, amount, reference, of))
        if step == "authorise" or step == "capture":
            self._left[reference] = amount
        if step != "authorise":
            self._left[of] = 0 if step == "release" else self._left[of] - amount
        self._reached(step)
        return Answer(True, reference)
