"""A shelf, people before it and their visits, with everything that bills them but without cameras and gates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from goods.shop import GTINS, STORE, T0, at_shelf, event, plate_hand

from fusion import ItemSighting, ShelfReading
from fusion.goods.attribution import Attributor
from fusion.goods.billing import Billing
from fusion.goods.journal import cart
from fusion.goods.planogram import Planogram
from fusion.goods.scales import ShelfMonitor
from fusion.people.open_visits import Visit
from fusion.results import Evidence, ReasonKind, Receipt, ShelfCount, Warning
from fusion.store.models import Facing, Gate, Zone

EXIT = Gate(id="exit", direction="out", line=((9.0, 9.0), (10.0, 9.0)), credentials=("open",))
# All of the floor before the shelf, so that every person of a scene is in it.
PAY = Zone(id="pay", kind="payment", polygon=((0.0, 0.0), (4.0, 0.0), (4.0, 2.0), (0.0, 2.0)))
# Product 3 belongs on plate 6 as well, where none is left: what is put there is put back.
PLANOGRAM = (*STORE.planogram, Facing(plate="r0p6", gtin=GTINS[3], stock=0))
EXIT_NS, ISSUED_NS = T0 + 60 * 10**9, T0 + 61 * 10**9


@dataclass
class Members:
    """Whose visit a track belongs to, stated by the test."""

    visits: dict[int, Visit] = field(default_factory=dict)
    staff: set[int] = field(default_factory=set)

    def account_of(self, track_id: int) -> str | None:
        return self.visits[track_id].account if track_id in self.visits else None

    def visit_of(self, track_id: int) -> str | None:
        return self.visits[track_id].id if track_id in self.visits else None

    def moved_goods(self, track_id: int) -> None:
        pass

    def loaded(self, plate: int, t_ns: int) -> list[Warning]:
        return []

    def is_staff(self, track_id: int) -> bool:
        return track_id in self.staff


class Scene:
    """People who stand before a shelf, each with one hand at a plate, and the billing of their visits."""

    def __init__(
        self,
        hands: dict[int, int],
        visits: dict[str, list[int]],
        staff: tuple[int, ...] = (),
        **settings: Any,
    ) -> None:
        self.store = STORE.model_copy(update={"gate": (EXIT,), "zone": (PAY,), "planogram": PLANOGRAM, **settings})
        self.members = Members(staff=set(staff))
        planogram = Planogram(self.store)
        self.monitor, self.attributor = ShelfMonitor(self.store, planogram), Attributor(self.store, planogram)
        self.history = at_shelf({track: plate_hand(plate) for track, plate in hands.items()})
        # The scales work up to the end; the tests state what moved on them.
        alive = ShelfReading(EXIT_NS, STORE.plates[0].plate, np.zeros(12, np.float32))
        self.monitor.step([alive], EXIT_NS)
        self.billing = Billing(self.store, self.members, self.attributor, self.monitor, self.history)
        self.visits: dict[str, Visit] = {}
        for name, tracks in visits.items():
            self.visits[name] = visit = Visit(name, name, T0, set(tracks), exit_ns=EXIT_NS)
            for track in tracks:
                self.members.visits[track] = visit
                self.attributor.join(track, name)
        for track in staff:
            self.attributor.set_staff(track)
        self.results: list[Any] = []

    def moves(self, at_s: float, plate: int, product: int, pieces: int) -> None:
        grams = pieces * STORE.products[product].weight_g
        self.results += self.billing.observe(event(at_s, {plate: grams}))

    def sees(
        self, at_s: float, product: int, quantity: int = 1, probability: float = 0.98, kind: str = "read"
    ) -> None:
        t_ns = T0 + int(at_s * 1e9)
        self.billing.sight(ItemSighting(t_ns, "antenna", kind, GTINS[product], quantity, probability, zone="pay"))
        assert not self.billing.ignored

    def reads_on(self, visit: str, product: int, probability: float) -> None:
        """A sighting that is bound to one visit, wherever its people stand."""
        sighting = ItemSighting(T0, "antenna", "read", GTINS[product], 1, probability, zone="pay")
        self.billing.sightings.add(sighting, frozenset({visit}))

    def bill(self, *names: str) -> dict[str, Receipt]:
        """Receipts of these visits, written in this order while the others are inside."""
        journal = self.billing.journal
        for name in names:
            visit = self.visits.pop(name)
            self.results += self.billing.bill(visit, list(self.visits.values()), EXIT_NS, ISSUED_NS)
        assert set(journal.totals().values()) <= {0}
        receipts = {result.visit: result for result in self.results if isinstance(result, Receipt)}
        for receipt in receipts.values():
            assert journal.balance(cart(receipt.visit)) == bought(receipt)
        return receipts

    def evidence(self) -> list[Evidence]:
        return [result for result in self.results if isinstance(result, Evidence)]

    def shelf_state(self) -> dict[tuple[str, str], ShelfCount]:
        return {(row.plate, row.gtin): row for row in self.billing.shelf_state()}


def kinds(receipt: Receipt) -> set[ReasonKind]:
    return {reason.kind for reason in receipt.reasons}


def bought(receipt: Receipt) -> dict[str, int]:
    return {line.gtin: line.quantity for line in receipt.lines}
