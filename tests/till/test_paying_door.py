"""A door that opens after payment, beside a provider that needs up to half a minute to answer: no wall clock."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from fusion.gates.keeper import GateKeeper
from fusion.gates.verifiers import GateRequest
from fusion.money.ledger import Ledger
from fusion.money.payments import Checkout
from fusion.money.providers import InProcessProvider, UnknownOutcome
from fusion.money.providers.exchange import DEADLINE_S
from fusion.money.vault import Holder
from fusion.results import Warning, WarningKind
from fusion.store.models import Gate, PaymentPolicy, Store
from fusion.till.authorisations import Authorisations
from fusion.till.baskets import Basket, PayingDoor, _Standing

S = 10**9
T_NS = 1_772_528_646 * S
STORE = Store(
    format_version=1, id="door", name="Door", currency="EUR", timezone="Europe/Berlin", keypoints="coco17",
    floor=((0.0, 0.0), (4.0, 0.0), (4.0, 3.0), (0.0, 3.0)), payment=PaymentPolicy(mode="door"),
    gate=(Gate(id="out", line=((1.0, 0.0), (2.0, 0.0)), direction="out", credentials=("open",)),),
)  # fmt: skip
# The customer asks twice a second, puts more into the basket half-way, and stays for three minutes.
STEP_S, MORE_AT_S, END_S = 0.5, 90.0, 180.0
FIRST, SECOND = 500, 900


class World:
    """A door, one person at it, and a provider, at an instant that moves by hand.

    Attributes:
        now_s: the instant.
        book: the provider's accounts.
    """

    def __init__(self, folder: Path, delay_s: float, fault: str) -> None:
        self.now_s, self._delay_s, self._fault = 0.0, delay_s, fault
        self._due: list[tuple[float, Any]] = []
        self.book = _Slow(self)
        self.basket = Basket("v1", (), FIRST, T_NS - 10 * S, "p-one")
        self.warnings: list[Warning] = []
        self.ledger = Ledger.open(folder / "books.sqlite", STORE)
        self.ledger.hold(Holder("p-one", "one", "tok_one", None, T_NS))
        self.ledger.open_visit("v1", "p-one", T_NS)
        checkout = Checkout(self.ledger, self.book, STORE, lambda: self.now_ns)
        authorisations = Authorisations(
            lambda: checkout, start=self._start, monotonic_s=lambda: self.now_s, report=lambda message: None
        )
        door = PayingDoor(self, authorisations, self.warnings.append)  # type: ignore[arg-type]
        self.keeper = GateKeeper(
            STORE, {}, way_out=door, now_ns=lambda: self.now_ns, warn=self.warnings.append,
            monotonic_s=lambda: self.now_s,
        )  # fmt: skip

    @property
    def now_ns(self) -> int:
        return T_NS + round(self.now_s * S)

    # What `PayingDoor` asks of `Baskets`.

    @property
    def t_ns(self) -> int:
        return self.now_ns

    def at_door(self, gate: str) -> tuple[_Standing, ...]:
        return (_Standing(1, False, self.basket),)

    # The provider's time.

    def _start(self, question: Any) -> None:
        self.later(min(self._delay_s, DEADLINE_S), question)

    def later(self, after_s: float, event: Any) -> None:
        if after_s:
            self._due.append((self.now_s + after_s, event))
        else:
            event()

    def advance(self, by_s: float) -> None:
        until_s = self.now_s + by_s
        while due := sorted((one for one in self._due if one[0] <= until_s), key=lambda one: one[0])[:1]:
            self._due.remove(due[0])
            self.now_s = due[0][0]
            due[0][1]()
        self.now_s = until_s

    def ask(self, asks: str = "leave") -> bool:
        return self.keeper.scan(GateRequest(self.now_ns, "out", "open", asks=asks)).open  # type: ignore[arg-type]


class _Slow(InProcessProvider):
    """Answers late, or, past the deadline, not at all, and carries out what it was asked nevertheless."""

    def __init__(self, world: World) -> None:
        self._world, self.n_asked = world, 0
        super().__init__(lambda step, key: self._fault_now(step), clock_ns=lambda: world.now_ns)

    def _fault_now(self, step: str) -> Any:
        fault = self._world._fault
        if step != "authorise" or fault == "none":
            return None
        # What is lost is lost twice; a declined card stays declined.
        return fault if fault in ("decline", "repeat") or self.n_asked <= 2 else None

    def authorise(self, key: str, token: str, amount: int, currency: str) -> Any:
        self.n_asked += 1
        late_s = self._world._delay_s - DEADLINE_S
        if late_s > 0.0:
            self._world.later(late_s, lambda: self._unheard(key, token, amount, currency))
            raise UnknownOutcome("no answer within the deadline")
        return super().authorise(key, token, amount, currency)

    def _unheard(self, *arguments: Any) -> None:
        with contextlib.suppress(UnknownOutcome):
            super().authorise(*arguments)


@pytest.mark.attack(1)
@pytest.mark.parametrize("fault", ["none", "decline", "lost before", "lost after", "repeat"])
@pytest.mark.parametrize("delay_s", [0.0, 0.05, 1.0, 5.0, 15.0, 29.9, 30.0, 31.0])
def test_a_door_never_opens_unpaid_however_late_the_provider_answers(
    delay_s: float, fault: str, tmp_path: Path
) -> None:
    world = World(tmp_path, delay_s, fault)
    opened: dict[int, float] = {}
    while world.now_s < END_S:
        if world.now_s == MORE_AT_S:
            world.basket = Basket("v1", (), SECOND, world.now_ns, "p-one")
        if world.ask():
            assert world.book.held >= world.basket.total, f"open at {world.now_s} s, {world.book.held} are held"
            opened.setdefault(world.basket.total, world.now_s)
        world.advance(STEP_S)
    if fault == "decline":
        assert not opened
    else:
        # What was lost, or answered with a reference that was given before, is looked up or asked again.
        assert set(opened) == {FIRST, SECOND}
        assert opened[FIRST] >= delay_s and opened[SECOND] >= MORE_AT_S + delay_s
    assert not world.warnings
    assert world.ask("release"), "the release asks for no payment"
    assert [one.kind for one in world.warnings] == [WarningKind.DOOR_RELEASED]
    world.ledger.close()
