"""Baskets of people who stand where baskets are paid: at a door that opens once it is paid, or in a payment zone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fusion.engine import Engine
from fusion.gates.verifiers import GateRequest, Refused, Verified, Verifier
from fusion.goods.inside import Inside
from fusion.money.prices import PriceBook
from fusion.results import People, ReceiptLine, Warning, WarningKind
from fusion.store.models import Gate, Store
from fusion.store.shapes import inside_polygon
from fusion.till.authorisations import Authorisations

# A person who stands this near to the middle of a door, inside, is at it.
DOOR_REACH_M = 1.2
# From here on a person's basket is followed, so that it has been unchanged for a while when they arrive.
APPROACH_M = 4.0
# A look that is older than this, in data time, shows no person: the engine is behind or its cameras are away.
LOOK_MAX_S = 4.0
# A track below this probability of existence is a reflection or a coat, not a person at the door.
EXISTS_MIN = 0.5
# What a person holds is worked out this often while they stand where baskets are paid, data time.
LOOK_EVERY_S = 0.25
# A basket must be unchanged for this long before a door opens: a load settles within 0.75 s of a hand's leaving it.
STEADY_S = 1.0
# A terminal asks again after this long while the provider is asked.
AGAIN_S = 0.5
# One alarm about a door is enough for this long, data time.
ALARM_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class Basket:
    """What a visit seems to hold, at its prices.

    Attributes:
        visit: whose.
        lines: the goods, with unit prices.
        total: minor units, after offers.
        since_ns: since when it is like that, data time.
        account: pseudonym of its customer, where they have one.
    """

    visit: str
    lines: tuple[ReceiptLine, ...]
    total: int
    since_ns: int = 0
    account: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _Standing:
    """A person who stands at a place. `basket` is None for staff and for unidentified people."""

    track: int
    staff: bool
    basket: Basket | None


@dataclass(frozen=True, slots=True)
class _Look:
    """Who stood where at an instant: by gate, and by zone."""

    t_ns: int
    doors: Mapping[str, tuple[_Standing, ...]]
    zones: Mapping[str, tuple[Basket, ...]]


class Baskets:
    """Who stands at the doors and in the payment zones of a store, and what they hold.

    `look` belongs to the engine's thread; whatever else reads does so from other threads, and sees one whole look.
    """

    def __init__(self, store: Store, member: Callable[[str | None], bool]) -> None:
        """Follow a store. member: whether members' prices hold for the visit of an account."""
        self._member = member
        self._look = _Look(0, {}, {})
        # By visit: its basket, and when it was looked into last.
        self._baskets: dict[str, Basket] = {}
        self._looked_ns: dict[str, int] = {}
        self.adopt(store)

    def adopt(self, store: Store) -> None:
        """Use the gates, zones and prices of a changed store."""
        self._store, self._prices = store, PriceBook(store)
        self._doors = [gate for gate in store.gate if gate.direction != "in"] if store.payment.mode == "door" else []
        self._zones = [zone for zone in store.zone if zone.kind == "payment"] if store.payment.mode == "zone" else []
        self._baskets.clear()
        self._looked_ns.clear()

    @property
    def t_ns(self) -> int:
        """Instant of the newest look; 0 before the first."""
        return self._look.t_ns

    def at_door(self, gate: str) -> tuple[_Standing, ...]:
        """Who stands at a door."""
        return self._look.doors.get(gate, ())

    def at_doors(self) -> Mapping[str, tuple[_Standing, ...]]:
        """Who stands at each door that opens after payment."""
        return self._look.doors

    def in_zones(self) -> Mapping[str, tuple[Basket, ...]]:
        """The baskets in each payment zone."""
        return self._look.zones

    def look(self, people: People, engine: Engine) -> None:
        """Take note of where everybody is."""
        if not self._doors and not self._zones:
            return
        doors: dict[str, list[_Standing]] = {gate.id: [] for gate in self._doors}
        zones: dict[str, list[Basket]] = {zone.id: [] for zone in self._zones}
        inside = engine.inside
        for i, track in enumerate(people.track_id.tolist()):
            x, y = people.position_m[i].tolist()
            visit = inside.visit_of(track)
            for gate in self._doors:
                if _near(gate, x, y, APPROACH_M):
                    self._basket(visit, inside, people.t_ns)
                if _near(gate, x, y, DOOR_REACH_M) and (visit is not None or _is_person(people, i)):
                    basket = self._basket(visit, inside, people.t_ns)
                    doors[gate.id].append(_Standing(track, inside.is_staff(track), basket))
            for zone in self._zones:
                if visit is not None and inside_polygon(zone.polygon, x, y):
                    basket = self._basket(visit, inside, people.t_ns)
                    if basket is not None and basket not in zones[zone.id]:
                        zones[zone.id].append(basket)
        self._look = _Look(
            people.t_ns,
            {gate: tuple(standing) for gate, standing in doors.items()},
            {zone: tuple(baskets) for zone, baskets in zones.items()},
        )

    def _basket(self, visit: str | None, inside: Inside, t_ns: int) -> Basket | None:
        if visit is None:
            return None
        known = self._baskets.get(visit)
        if known is not None and t_ns - self._looked_ns[visit] < LOOK_EVERY_S * 1e9:
            return known
        self._looked_ns[visit] = t_ns
        foreseen = inside.foreseen(visit)
        if foreseen is None:
            return known
        priced = self._prices.priced(foreseen, member=self._member(foreseen.account)).receipt
        if known is None or (known.lines, known.total) != (priced.lines, priced.total):
            self._baskets[visit] = Basket(visit, priced.lines, priced.total, t_ns, foreseen.account)
        return self._baskets[visit]

    def forget(self, visit: str) -> None:
        """A visit has its receipt."""
        self._baskets.pop(visit, None)
        self._looked_ns.pop(visit, None)


def _near(gate: Gate, x: float, y: float, within_m: float) -> bool:
    """Whether a place is near a gate's door, inside; the store lies to the left of the gate's line."""
    (x0, y0), (x1, y1) = gate.line
    inside = (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0.0
    return inside and float(np.hypot((x0 + x1) / 2 - x, (y0 + y1) / 2 - y)) < within_m


def _is_person(people: People, i: int) -> bool:
    """Whether an unidentified track is a person for certain enough to keep a door closed."""
    exists = not len(people.existence) or float(people.existence[i]) >= EXISTS_MIN
    return exists and bool(people.confirmed[i])


class PayingDoor(Verifier):
    """Decides about requests to leave through a door that opens once the baskets at it are paid.

    It answers from memory; the door asks again until the answer is final. Who cannot be identified stays, with an
    alarm: the door's emergency release is separate and needs no answer.

    Attributes:
        opened_for: visits that were let out after having paid.
    """

    instant = True

    def __init__(
        self,
        baskets: Baskets,
        authorisations: Authorisations,
        warn: Callable[[Warning], object],
        needs_person: Callable[[Basket], bool] = lambda basket: False,
    ) -> None:
        """Decide about the people at the doors of a store.

        Args:
            baskets: who stands there, and what they hold.
            authorisations: what is paid.
            warn: takes the alarms.
            needs_person: whether staff have to let a basket out: it holds goods that a person must look at.
        """
        self._baskets, self._authorisations, self._warn = baskets, authorisations, warn
        self._needs_person = needs_person
        self._alarmed_ns: dict[str, int] = {}
        self.opened_for: set[str] = set()

    def verify(self, request: GateRequest) -> Verified | Refused:
        """Open where everybody at the door has paid; otherwise begin to authorise what is missing."""
        standing = self._baskets.at_door(request.gate)
        # The gate's clock is the machine's. Where sensors are ahead of it, an old look must not pass for a new one.
        if not standing or abs(request.t_ns - self._baskets.t_ns) > LOOK_MAX_S * 1e9:
            return _moment("no person seen at the door")
        if any(one.basket is None and not one.staff for one in standing):
            self._alarm(request, "an unidentified person wants to leave through a door that opens after payment")
            return Refused("unidentified person at the door", "Please ask the staff")
        baskets = [one.basket for one in standing if one.basket is not None]
        if any(map(self._needs_person, baskets)):
            self._alarm(request, "goods that a person has to look at; staff open it")
            return Refused("a person has to look at the goods", "Please ask the staff")
        if any(self._baskets.t_ns - basket.since_ns < STEADY_S * 1e9 for basket in baskets):
            return _moment("goods are being weighed")
        outcomes = {
            basket.visit: self._authorisations.ask(basket.visit, basket.total, request.t_ns) for basket in baskets
        }
        if "declined" in outcomes.values():
            return Refused("not paid", "Please pay first, or put it back")
        if any(outcome != "covered" for outcome in outcomes.values()):
            return _moment("payment is being asked for")
        self.opened_for.update(basket.visit for basket in baskets)
        return Verified("", "Paid. Goodbye" if any(basket.total for basket in baskets) else "Goodbye")

    def _alarm(self, request: GateRequest, detail: str) -> None:
        if request.t_ns - self._alarmed_ns.get(request.gate, 0) >= ALARM_EVERY_S * 1e9:
            self._alarmed_ns[request.gate] = request.t_ns
            self._warn(Warning(request.t_ns, WarningKind.DOOR_KEPT_CLOSED, request.gate, detail=detail))


def _moment(reason: str) -> Refused:
    """The answer is not there yet; the door asks again."""
    return Refused(reason, "One moment please", again=True)


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The answer to a customer who confirms a basket in a payment zone.

    Attributes:
        confirmed: whether the amount is authorised.
        reason: fit for counting.
        display: for the terminal's screen.
        again_s: after this time the terminal is to ask again; None: the answer is final.
    """

    confirmed: bool
    reason: str
    display: str
    again_s: float | None = None


def confirmed(
    baskets: Sequence[Basket], authorisations: Authorisations, visit: str, total: int, t_ns: int
) -> Confirmation:
    """Answer the confirmation of a basket in a payment zone. Never waits: the terminal asks again.

    Args:
        baskets: of everybody in the zone where the customer stands.
        authorisations: what is authorised.
        visit: whose basket.
        total: the amount that was shown to them.
        t_ns: data time.
    """
    shown = next((basket for basket in baskets if basket.visit == visit), None)
    if shown is None:
        return Confirmation(False, "not in the payment zone", "Please step into the payment zone")
    if shown.total != total:
        return Confirmation(False, "the basket has changed", "Your basket has changed, please look again")
    match authorisations.ask(visit, total, t_ns):
        case "covered":
            return Confirmation(True, "confirmed", "Thank you")
        case "declined":
            return Confirmation(False, "not paid", "Your means of payment was declined")
        case _:
            return Confirmation(False, "payment is being asked for", "One moment please", AGAIN_S)
