"""A provider in this process, for tests and examples, with the faults that real ones have."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from fusion.money.providers.provider import Answer, CannotLookUp, PaymentError, Step, Terms, UnknownOutcome

# "repeat": the answer carries the reference of an earlier operation. "partial": half of the amount is approved.
# "invalid": the request is rejected, as for a card that was detached.
Fault = Literal["decline", "lost before", "lost after", "repeat", "partial", "invalid"]


class SeededFaults:
    """Random faults, the same ones for the same seed and order of calls."""

    def __init__(
        self,
        seed: int,
        decline: float = 0.0,
        lost_before: float = 0.0,
        lost_after: float = 0.0,
        repeat: float = 0.0,
        partial: float = 0.0,
        invalid: float = 0.0,
    ) -> None:
        """Draw faults with given probabilities, whose sum is at most 1.

        Args:
            seed: of the random numbers.
            decline: share of authorisations that are declined.
            lost_before: share of requests that never arrive.
            lost_after: share of requests that are carried out and whose answer never arrives.
            repeat: share of answers with the reference of an earlier operation.
            partial: share of requests of which half is approved.
            invalid: share of requests that are rejected.
        """
        self._random = random.Random(seed)
        self._shares: tuple[tuple[Fault, float], ...] = (
            ("lost before", lost_before),
            ("lost after", lost_after),
            ("decline", decline),
            ("repeat", repeat),
            ("partial", partial),
            ("invalid", invalid),
        )

    def __call__(self, step: Step, key: str) -> Fault | None:
        """The fault of the next request, if any."""
        draw = self._random.random()
        for fault, share in self._shares:
            draw -= share
            if draw < 0.0:
                return None if fault == "decline" and step != "authorise" else fault
        return None


@dataclass
class _Operation:
    """A request that was carried out.

    Attributes:
        step: what it was.
        authorisation: reference of the authorisation that it concerns, which may be its own.
        left: of an authorisation what is reserved, of a capture what can be refunded.
        since_ns: when it was carried out.
    """

    step: Step
    authorisation: str
    left: int
    since_ns: int


class InProcessProvider:
    """A provider for tests and examples. It keeps its own accounts, so that both sides can be compared.

    Attributes:
        looks_up: whether it states what became of a request.
        terms: what it promises about time.
        taken: captured less refunded, by authorisation.
        n_captures: number of captures, by authorisation.
    """

    def __init__(
        self,
        faults: Callable[[Step, str], Fault | None] = lambda step, key: None,
        *,
        looks_up: bool = True,
        terms: Terms | None = None,
        clock_ns: Callable[[], int] = lambda: 0,
    ) -> None:
        """Begin without accounts.

        Args:
            faults: what goes wrong with a request.
            looks_up: whether it states what became of a request.
            terms: what it promises about time.
            clock_ns: the present instant; keys and authorisations last as long as the terms promise, and no longer.
        """
        self._faults: Callable[[Step, str], Fault | None] = faults
        self.looks_up, self.terms = looks_up, terms or Terms()
        self._clock_ns, self._lock = clock_ns, threading.Lock()
        self._by_key: dict[str, tuple[tuple[Any, ...], Answer]] = {}
        self._used_ns: dict[str, int] = {}
        self._log: dict[str, list[tuple[Step, Answer]]] = {}
        self._operations: dict[str, _Operation] = {}
        self._first: dict[Step, str] = {}
        self.taken: dict[str, int] = {}
        self.n_captures: dict[str, int] = {}

    def recovered(self) -> None:
        """Inject no more faults from now on."""
        self._faults = lambda step, key: None

    def forget_keys(self) -> None:
        """Forget all idempotency keys before their time: a request that is repeated is carried out again."""
        with self._lock:
            self._by_key.clear()

    @property
    def total(self) -> int:
        """Everything captured and not refunded."""
        return sum(self.taken.values())

    @property
    def held(self) -> int:
        """Everything authorised and neither captured nor released."""
        return sum(one.left for one in self._operations.values() if one.step == "authorise" and not self._is_void(one))

    def authorise(self, key: str, token: str, amount: int, currency: str) -> Answer:
        """Reserve an amount; see `Provider`."""
        return self._once("authorise", key, (token, currency), amount, "")

    def capture(self, key: str, authorisation: str, amount: int) -> Answer:
        """Take an amount of an authorisation; see `Provider`."""
        return self._once("capture", key, (), amount, authorisation)

    def release(self, key: str, authorisation: str) -> Answer:
        """Void what is left of an authorisation; see `Provider`."""
        return self._once("release", key, (), 0, authorisation)

    def refund(self, key: str, capture: str, amount: int) -> Answer:
        """Return an amount of a capture; see `Provider`."""
        return self._once("refund", key, (), amount, capture)

    def carried_out(self, step: Step, key: str) -> list[Answer]:
        """Every operation under a key, however old: what a person finds in the provider's account."""
        with self._lock:
            return [answer for known, answer in self._log.get(key, ()) if known == step and answer.approved]

    def covered(self, prefix: str) -> int:
        """What is authorised or captured, and not refunded, under the keys that begin like this."""
        with self._lock:
            names = {answer.reference for key, found in self._log.items() if key.startswith(prefix)
                     for step, answer in found if step == "authorise" and answer.approved}  # fmt: skip
            return sum(self._operations[name].left + self.taken.get(name, 0) for name in names)

    def look_up(self, step: Step, key: str, of: str) -> Answer | None:
        """What became of a request; see `Provider`."""
        if not self.looks_up:
            raise CannotLookUp("the provider does not look up requests")
        approved = self.carried_out(step, key)
        if len(approved) > 1:
            raise CannotLookUp(f"the provider carried out {len(approved)} operations under this key")
        with self._lock:
            declined = [answer for known, answer in self._log.get(key, ()) if known == step]
        return next(iter(approved or declined), None)

    def _once(self, step: Step, key: str, contents: tuple[Any, ...], amount: int, of: str) -> Answer:
        """Carry a request out the first time its key is seen, and repeat the answer afterwards."""
        request = (step, *contents, amount, of)
        with self._lock:
            fault = self._faults(step, key)
            if fault == "lost before":
                raise UnknownOutcome("no answer")
            used_ns = self._used_ns.get(key, self._clock_ns())
            if self._clock_ns() - used_ns >= self.terms.keys_kept_s * 1e9:
                self._by_key.pop(key, None)
            if fault == "invalid" and key not in self._by_key:
                raise PaymentError("no such means of payment")
            if key not in self._by_key:
                answer = self._carried_out(step, amount, of, fault)
                self._log.setdefault(key, []).append((step, answer))
                if answer.approved:
                    first = self._first.setdefault(step, answer.reference)
                    if fault == "repeat":
                        answer = Answer(True, first, amount=answer.amount)
                self._by_key[key], self._used_ns[key] = (request, answer), self._clock_ns()
            known, answer = self._by_key[key]
            if known != request:
                raise PaymentError(f"{key!r}: the idempotency key was used before for another request")
            if fault == "lost after":
                raise UnknownOutcome("no answer")
            return answer

    def _carried_out(self, step: Step, amount: int, of: str, fault: Fault | None) -> Answer:
        if step != "release" and amount <= 0:
            raise PaymentError(f"amount: want more than 0, got {amount}")
        part = amount // 2 if fault == "partial" and step != "release" and amount > 1 else None
        moved = amount if part is None else part
        if reason := self._refusal(step, moved, of, fault):
            return Answer(False, reason=reason)
        reference = f"{step[:4]}-{len(self._operations) + 1}"
        concerned, name = self._operations.get(of), reference
        if concerned is not None:
            concerned.left = 0 if step == "release" else concerned.left - moved
            name = concerned.authorisation
        left = moved if step in ("authorise", "capture") else 0
        self._operations[reference] = _Operation(step, name, left, self._clock_ns())
        if step == "capture":
            self.taken[name] = self.taken.get(name, 0) + moved
            self.n_captures[name] = self.n_captures.get(name, 0) + 1
        elif step == "refund":
            self.taken[name] -= moved
        return Answer(True, reference, amount=part)

    def _refusal(self, step: Step, moved: int, of: str, fault: Fault | None) -> str:
        """Why a request is declined; empty where it is not."""
        if step == "authorise":
            return "insufficient funds" if fault == "decline" else ""
        if step == "release":
            return ""
        concerned = self._operations.get(of)
        if concerned is not None and self._is_void(concerned):
            return "the authorisation has expired"
        wanted: Step = "capture" if step == "refund" else "authorise"
        if concerned is None or concerned.step != wanted or moved > concerned.left:
            return "more than was captured" if step == "refund" else "more than was authorised"
        return ""

    def _is_void(self, operation: _Operation) -> bool:
        age_s = (self._clock_ns() - operation.since_ns) / 1e9
        return operation.step == "authorise" and age_s >= self.terms.holds_kept_s
