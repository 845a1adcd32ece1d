"""Who may leave through a door that opens after payment: from memory, with the questions asked beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from money.books import COLA, STORE

from fusion.gates.verifiers import GateRequest, Refused, Verified
from fusion.money.payments import Payment
from fusion.results import People, Receipt, ReceiptLine, ReceiptStatus, Warning, WarningKind
from fusion.store.models import Gate, PaymentPolicy
from fusion.till.authorisations import Authorisations
from fusion.till.baskets import Baskets, PayingDoor

S = 10**9
T_NS = 1_800_000_000 * S
DOOR = Gate(id="exit", direction="out", line=((1.0, 0.0), (2.0, 0.0)), credentials=("open",))
AT_DOOR, OUTSIDE, FAR = (1.5, 0.4), (1.5, -0.4), (1.5, 4.0)
SHOP = STORE.model_copy(update={"gate": (DOOR,), "payment": PaymentPolicy(mode="door")})


@dataclass
class Room:
    """An engine as the till sees it: visits by track, and what each seems to hold."""

    visits: dict[int, str] = field(default_factory=dict)
    staff: set[int] = field(default_factory=set)
    pieces: dict[str, int] = field(default_factory=dict)

    @property
    def inside(self) -> Any:
        return SimpleNamespace(
            visit_of=self.visits.get, is_staff=lambda track: track in self.staff, foreseen=self._foreseen
        )

    def _foreseen(self, visit: str) -> Receipt:
        n = self.pieces.get(visit, 0)
        lines = (ReceiptLine(COLA, n, 249, 1.0),) if n else ()
        return Receipt(visit, None, None, T_NS, T_NS, ReceiptStatus.SETTLED, (), "EUR", 249 * n, lines)


class Till:
    """A checkout whose answers a test gives."""

    def __init__(self) -> None:
        self.answers: list[bool | None] = []
        self.asked: list[tuple[str, int]] = []

    def confirm(self, visit: str, amount: int, t_ns: int) -> bool:
        self.asked.append((visit, amount))
        self.last = self.answers.pop(0)
        return bool(self.last)

    def state(self, visit: str) -> Payment:
        return Payment(visit, "pending" if self.last is None else "open", None, 0, 0)


@dataclass
class Scene:
    room: Room = field(default_factory=Room)
    till: Till = field(default_factory=Till)
    warnings: list[Warning] = field(default_factory=list)
    now_s: float = 0.0

    def __post_init__(self) -> None:
        self.baskets = Baskets(SHOP, lambda account: False)
        ask = Authorisations(
            lambda: self.till,  # type: ignore[arg-type, return-value]
            start=lambda question: question(),
            monotonic_s=lambda: self.now_s,
            report=print,
        )
        self.door = PayingDoor(self.baskets, ask, self.warnings.append)
        self.t_ns = T_NS

    def look(self, places: dict[int, tuple[float, float]], confirmed: bool = True) -> None:
        n = len(places)
        self.t_ns += 2 * S
        people = People(
            self.t_ns, np.array(list(places), np.int64), np.full(n, confirmed),
            np.array(list(places.values())).reshape(n, 2), np.zeros(n), np.zeros((n, 17, 3)), np.zeros((n, 17)),
            np.zeros(n), np.ones(n),
        )  # fmt: skip
        self.baskets.look(people, self.room)  # type: ignore[arg-type]

    def ask(self) -> Verified | Refused:
        return self.door.verify(GateRequest(self.t_ns, "exit", "open", asks="leave"))  # type: ignore[return-value]


def reason(answer: Verified | Refused) -> str:
    return answer.reason if isinstance(answer, Refused) else "open"


def test_a_door_opens_once_everybody_at_it_has_paid_for_what_they_hold_now() -> None:
    scene = Scene()
    scene.room.visits, scene.room.pieces = {1: "a", 2: "b"}, {"a": 1}
    scene.look({1: AT_DOOR, 2: AT_DOOR})
    assert reason(scene.ask()) == "goods are being weighed"
    scene.look({1: AT_DOOR, 2: AT_DOOR})
    scene.till.answers = [None, True]
    assert reason(scene.ask()) == "payment is being asked for"
    assert reason(scene.ask()) == "payment is being asked for" and len(scene.till.asked) == 1, "not asked at each poll"
    scene.now_s += 60.0
    assert reason(scene.ask()) == "open" and scene.till.asked == [("a", 100)] * 2
    # Another piece on the last metre is paid as well.
    scene.room.pieces["a"] = 2
    scene.look({1: AT_DOOR})
    scene.look({1: AT_DOOR})
    scene.till.answers = [False]
    assert reason(scene.ask()) == "not paid"
    scene.room.pieces["a"] = 0
    scene.look({1: AT_DOOR})
    scene.look({1: AT_DOOR})
    assert reason(scene.ask()) == "open", "it was put back"


@pytest.mark.attack(1)
@pytest.mark.parametrize("off_s", [-3600, -5, 5, 3600])
def test_a_look_whose_age_is_not_known_opens_no_door(off_s: int) -> None:
    """Cameras that are silent, and sensors that are ahead of the gate's clock."""
    scene = Scene()
    scene.room.visits = {1: "a"}
    scene.look({1: AT_DOOR})
    scene.look({1: AT_DOOR})
    assert reason(scene.ask()) == "open"
    scene.t_ns += off_s * S
    assert reason(scene.ask()) == "no person seen at the door"


def test_who_cannot_be_identified_stays_and_raises_one_alarm() -> None:
    scene = Scene()
    scene.room.visits = {1: "a"}
    for _ in range(3):
        scene.look({1: AT_DOOR, 9: AT_DOOR})
        assert reason(scene.ask()) == "unidentified person at the door"
    assert [warning.kind for warning in scene.warnings] == [WarningKind.DOOR_KEPT_CLOSED]
    assert not scene.till.asked
    # Neither a tentative track nor who passes outside, nor staff, keeps the door closed.
    scene.look({1: AT_DOOR, 9: OUTSIDE, 10: FAR})
    assert reason(scene.ask()) == "open"
    scene.look({9: AT_DOOR}, confirmed=False)
    assert reason(scene.ask()) == "no person seen at the door"
    scene.room.staff.add(9)
    scene.look({1: AT_DOOR, 9: AT_DOOR})
    assert reason(scene.ask()) == "open"


@pytest.mark.parametrize("late_s", [0.0, 10.0])
def test_a_door_that_sees_no_one_does_not_open(late_s: float) -> None:
    scene = Scene()
    scene.room.visits = {1: "a"}
    scene.look({1: AT_DOOR if late_s else FAR})
    scene.look({1: AT_DOOR if late_s else FAR})
    scene.t_ns += round(late_s * S)  # The engine is behind, or its cameras are away.
    assert reason(scene.ask()) == "no person seen at the door"
