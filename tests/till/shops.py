"""A store that takes payments, driven by calls: its shoppers show their cards at its gates."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from live.stepping import SteppedStore, quiet_config

from fusion.gates.keeper import Decision
from fusion.gates.verifiers import GateRequest
from fusion.live.clock import ManualClock
from fusion.money.providers import InProcessProvider
from fusion.observations import GateScan, Observation
from fusion.store.models import PaymentPolicy, Store
from fusion.till.settings import TillFile, TillSettings

S = 10**9
TEST_TILL = TillFile(TillSettings.model_validate({"payment": {"provider": "test"}}))


def paying(store: Store, mode: str, **policy: Any) -> Store:
    """The store with a payment policy, and with cards at its entries."""
    gates = tuple(
        gate.model_copy(update={"credentials": ("card",)}) if gate.direction != "out" else gate for gate in store.gate
    )
    payment = PaymentPolicy.model_validate({"mode": mode, **policy})
    return store.model_copy(update={"payment": payment, "gate": gates})


class Bank(InProcessProvider):
    """A provider that knows its cards, and can be away.

    Attributes:
        cards: tokens that exist; None: all do.
        away: whether no answer comes.
        asked: how often it was asked to authorise.
    """

    def __init__(self, cards: set[str] | None = None) -> None:
        super().__init__(self._fault)
        self.cards, self.away, self.asked = cards, False, 0
        self._known = True

    def authorise(self, key: str, token: str, amount: int, currency: str) -> Any:
        self.asked += 1
        self._known = self.cards is None or token in self.cards
        return super().authorise(key, token, amount, currency)

    def _fault(self, step: str, key: str) -> Any:
        if self.away:
            return "lost before"
        return "decline" if step == "authorise" and not self._known else None


def decided(stepped: SteppedStore, request: GateRequest) -> Decision:
    """The gate's decision, asked again for as long as the gate asks for a moment's patience."""
    decision = stepped.loop.books.till.decide(request)
    for _ in range(200):
        if decision.open or not decision.display.startswith("One moment"):
            return decision
        decision = stepped.loop.books.till.decide(request)
    return decision


def shop(stepped: SteppedStore, observations: Iterable[Observation]) -> list[Decision]:
    """Let observations arrive, with every scan decided by the store's gates. Returns the decisions."""
    decisions, arriving = [], []
    for observation in observations:
        if not isinstance(observation, GateScan):
            arriving.append(observation)
            continue
        stepped.give(arriving)
        arriving = []
        request = GateRequest(observation.t_ns, observation.gate, "card", f"tok_{observation.account}")
        decision = decided(stepped, request)
        decisions.append(decision)
        if decision.scan is not None:
            stepped.give([decision.scan])
    stepped.give(arriving)
    return decisions


def opened(store: Store, folder: Path, clock: ManualClock | None = None, till: TillFile = TEST_TILL) -> SteppedStore:
    """The store's loop, with the provider that `Bank` patches in."""
    return SteppedStore(quiet_config(store, folder, till=till), clock)


__all__ = ["TEST_TILL", "Bank", "S", "decided", "opened", "paying", "shop"]
