"""Billing: from shelf events and finished visits to receipts, and what a reviewer decides about them.

A visit's cart is the balance of its account in the journal. Before the receipt is written, evidence beyond the visit's
own shelf events is applied in three steps: sightings at zones weigh the open joint hypotheses, goods that changed hands
between visits move from one bill to another, and later evidence against such a move takes it back.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np

from fusion.errors import JournalError
from fusion.goods.attribution import Attributor
from fusion.goods.beliefs import CartBelief, EventBelief, EventCandidate
from fusion.goods.counts import ShelfCounts, moved
from fusion.goods.equal_prices import price_classes
from fusion.goods.evidence import EvidenceRecorder, with_accounts
from fusion.goods.journal import OUTSIDE, UNKNOWN, Account, Journal, cart, shelf
from fusion.goods.labels import STAFF, Labels
from fusion.goods.learnt import IDENTITY
from fusion.goods.loads import ShelfEvent
from fusion.goods.scales import ShelfMonitor
from fusion.goods.sightings import CartSighting, Sightings
from fusion.goods.trust import scaled
from fusion.observations import ItemSighting
from fusion.people.arms import ArmHistory
from fusion.people.open_visits import Visit
from fusion.results import (
    Candidate,
    Evidence,
    Picked,
    PutBack,
    Question,
    Reason,
    ReasonKind,
    Receipt,
    ReceiptLine,
    ReceiptStatus,
    ShelfCount,
    ShelfEventExplained,
    Taken,
    WarningKind,
)
from fusion.results import Warning as StoreWarning
from fusion.store.gtin import OwnGtins
from fusion.store.models import Store

# A receipt waits for a load that is not decided yet only if the load began while one of the visit's people was within
# this distance of the plate. Hands may rest on a shelf for ten seconds before a change counts as a load.
UNDECIDED_NEAR_M = 1.5
UNDECIDED_MAX_S = 12.0
# It waits up to this long for plates that fell silent where one of its people reached: of 24 such visits of another
# generator, the plate reported again within 10 s of the exit in 11.
SILENT_MAX_S = 10.0
# Evidence of this many receipts is kept for later questions. A bundle holds at most this many events, the least clear
# ones first, of those that concern the visit with at least this probability.
BUNDLES_MAX = 64
BUNDLE_EVENTS_MAX = 64
CONCERNS_MIN = 0.01
QUESTIONS_MAX = 8
# Visits that are remembered after their receipt: events that other people may have caused settle later.
BILLED_MAX = 4096
# Weights must have come up to this time before a visit's last exit: nothing is taken in the last steps to the door.
ALIVE_NS = 2_000_000_000
# Certainty of a bill after a hand-over that may or may not concern it.
HAND_OVER_CERTAINTY = 0.5


class Membership(Protocol):
    """Whose visit a track belongs to; `fusion.people.visits.Visits` knows."""

    def moved_goods(self, track_id: int, /) -> None:
        """Note that a shelf event was most probably a track's."""

    def loaded(self, plate: int, t_ns: int, /) -> list[StoreWarning]:
        """Note that a load moved on a plate; a warning where it lies behind a door that was closed."""

    def account_of(self, track_id: int, /) -> str | None:
        """Account of a track's visit."""

    def visit_of(self, track_id: int, /) -> str | None:
        """Id of a track's visit."""

    def is_staff(self, track_id: int, /) -> bool:
        """Whether a track is a member of staff."""


@dataclass(slots=True, eq=False)
class Bill:
    """What an open visit owes beyond its own shelf events.

    Attributes:
        received: pieces by GTIN that the visit got from people of other visits; negative: handed to them.
        returned: pieces by GTIN among these that the visit put back on a shelf.
        certainty: probability that all of this is right.
        doubts: what may be wrong with it, in the order in which it was found.
    """

    received: Counter[str] = field(default_factory=Counter)
    returned: Counter[str] = field(default_factory=Counter)
    certainty: float = 1.0
    doubts: list[Reason] = field(default_factory=list)

    def doubt(self, certainty: float, reason: Reason) -> None:
        """Make the bill less certain, for a reason."""
        self.certainty *= certainty
        self.doubts.append(reason)


class _Owner(NamedTuple):
    account: str | None
    visit: str | None


class _Judgement(NamedTuple):
    """How sure a visit's goods are: the probability of all of them, and where it is too low, why and what to ask."""

    probability: float
    doubts: tuple[Reason, ...] = ()
    questions: tuple[Question, ...] = ()


class _Departure(NamedTuple):
    """A member of staff who has left, and whose events are to be settled."""

    t_ns: int
    track_id: int


class Billing:
    """Settles shelf events in the journal and writes the receipts of finished visits.

    Attributes:
        journal: every transfer of goods between shelves and carts so far.
        recorder: traces and wrist paths around the open events.
        sightings: the latest sightings of goods in carts.
        labels: what final events and decisions teach about loads.
        ignored: sightings that could not be used, by reason.
        offset_ns: what the engine's time is ahead of data time, in which the journal records; see `Engine`.
    """

    def __init__(
        self,
        store: Store,
        members: Membership,
        attributor: Attributor,
        monitor: ShelfMonitor,
        history: ArmHistory,
    ) -> None:
        """Start with empty carts.

        Args:
            store: its prices, policies and review limit.
            members: whose visit a track belongs to.
            attributor: who took what from where.
            monitor: the plates, for loads that are not decided yet and for traces.
            history: where people and their hands were.
        """
        self._derive(store)
        self.journal = Journal()
        self.offset_ns = 0
        self.ignored: Counter[str] = Counter()
        self._members = members
        self._attributor = attributor
        self._monitor = monitor
        self._history = history
        self.recorder = EvidenceRecorder(store)
        self.sightings = Sightings(store)
        self.labels = Labels(attributor.planogram)
        self._counts = ShelfCounts(store)
        self._bills: dict[str, Bill] = {}
        self._bundles: OrderedDict[str, Evidence] = OrderedDict()
        self._billed: OrderedDict[str, None] = OrderedDict()
        self._staff_left: list[_Departure] = []

    def _derive(self, store: Store) -> None:
        self._store = store
        self._price_class = price_classes(store.products)
        self._products = {product.gtin: product for product in store.products}
        self._plate_m = np.array([(plate.x, plate.y) for plate in store.plates]).reshape(-1, 2)

    def adopt(self, store: Store) -> None:
        """Continue with a changed store of the same layout; see `Engine.adopt`."""
        self._derive(store)
        self.sightings.adopt(store)
        self._counts.adopt(store)

    # ---- what is observed --------------------------------------------------------------------------------------------

    def observe(self, event: ShelfEvent) -> list[Picked | PutBack | StoreWarning]:
        """Add a shelf event; returns what most probably moved, if anything, after a warning about a closed door."""
        belief = self._attributor.observe(event, self._history)
        closed = [] if event.silent else self._members.loaded(event.main_plate, event.contact_ns)
        self.recorder.record(event, belief, self._monitor, self._history)
        if not belief.candidates or belief.candidates[0].probability < belief.nothing:
            return [*closed]
        best = self._candidate(belief.candidates[0])
        if (person := belief.candidates[0].person) is not None:
            self._members.moved_goods(person)
        kind = Picked if best.quantity < 0 else PutBack
        best_now = belief.t_ns, belief.plate, best.gtin, abs(best.quantity), best.account, best.visit, best.probability
        return [*closed, kind(*best_now)]

    def sight(self, sighting: ItemSighting) -> None:
        """Add other evidence: about the load that moves at a plate now, or about the carts in a zone."""
        sighting = self.sightings.as_spelt(sighting)
        match sighting:
            case ItemSighting(kind="seen", plate=str(plate)):
                if not self._attributor.sight(sighting.t_ns, plate, sighting.gtin, sighting.probability):
                    self.ignored["items: unknown plate or product"] += 1
            case ItemSighting(zone=str(), quantity=int(quantity)) if quantity >= 1:
                if self.sightings.knows(sighting):
                    self._sight_carts(sighting)
                else:
                    self.ignored["items: unknown zone, product or kind"] += 1
            case _:
                self.ignored["items: evidence not used"] += 1

    def _sight_carts(self, sighting: ItemSighting) -> None:
        """Bind a sighting to everybody who was there."""
        near = (self._members.visit_of(track) for track in self.sightings.near(sighting, self._history))
        visits = frozenset(visit for visit in near if visit is not None and visit not in self._billed)
        if visits:
            self.sightings.add(sighting, visits)
        else:
            self.ignored["items: no open visit in the zone"] += 1

    def hand_over(
        self, giver: str, taker: str, gtin: str, quantity: int, certainty: float, *, returned: bool = False
    ) -> None:
        """Move pieces from one open visit's bill to another's: they changed hands.

        Args:
            giver: id of the visit that had them.
            taker: id of the visit that has them.
            gtin: what changed hands.
            quantity: how many pieces.
            certainty: probability that it did.
            returned: the taker put the pieces back on a shelf, which is how the hand-over was noticed.
        """
        for visit, pieces in ((giver, -quantity), (taker, quantity)):
            bill = self._bill_of(visit)
            bill.received[gtin] += pieces
            bill.certainty *= certainty
        if returned:
            self._bill_of(taker).returned[gtin] += quantity

    # ---- what is asked -----------------------------------------------------------------------------------------------

    def evidence(self, visit: str) -> Evidence | None:
        """What a visit's receipt rests on; None before it is written, and for all but the newest receipts."""
        return self._bundles.get(visit)

    def rename_customers(self, renamed: Callable[[str], str]) -> None:
        """Give customers other names in what is kept of visits that are over."""
        self.labels.rename_customers(renamed)
        for visit, bundle in self._bundles.items():
            self._bundles[visit] = with_accounts(bundle, renamed)

    def shelf_state(self) -> list[ShelfCount]:
        """What lies where, events that are still open included as they look now."""
        return self._counts.counts(self.journal, self._attributor.beliefs())

    # ---- events that become final ------------------------------------------------------------------------------------

    def staff_left(self, t_ns: int, track_id: int) -> None:
        """Note that a member of staff has left the store."""
        self._staff_left.append(_Departure(t_ns, track_id))

    def settle_staff(self, until_ns: int) -> list[ShelfEventExplained]:
        """Settle the events of staff who had left by an instant."""
        left = [departure.track_id for departure in self._staff_left if departure.t_ns <= until_ns]
        if not left:
            return []
        self._staff_left = [departure for departure in self._staff_left if departure.t_ns > until_ns]
        return [self.settle(belief) for belief in self._attributor.settle(left)]

    def finish(self) -> list[ShelfEventExplained]:
        """Settle every event that is still open: the streams have ended."""
        return [self.settle(belief) for belief in self._attributor.finish()]

    def settle(self, belief: EventBelief) -> ShelfEventExplained:
        """Make an event final: its goods move in the journal."""
        candidates = tuple(self._candidate(candidate) for candidate in belief.candidates)
        self._counts.settle(belief)
        event = self._name(belief)
        measured = self.recorder.event(belief.event_id)
        if measured is not None:
            self.labels.settle(event, measured, belief, self._source(belief))
        self.recorder.forget(belief.event_id)
        for part, move in enumerate(moved(belief)):
            key = f"{event}/{part}" if part else event
            holder = self._holder(move.person)
            self.journal.move(key, belief.t_ns - self.offset_ns, shelf(belief.plate), holder, move.gtin, -move.quantity)
        return ShelfEventExplained(belief.t_ns, belief.plate, belief.delta_g, candidates)

    def _name(self, belief: EventBelief) -> str:
        return f"{self._store.id}/{belief.plate}/{belief.t_ns}/{belief.event_id}"

    def _source(self, belief: EventBelief) -> str | None:
        """The customer, or staff, who most probably moved a load; None where that may be anyone."""
        person = belief.candidates[0].person if belief.candidates else None
        if person is None:
            return None
        if self._members.is_staff(person):
            return STAFF
        return self._members.account_of(person) or self._members.visit_of(person)

    def _holder(self, person: int | None) -> Account:
        """The account that gave or received the goods which a track moved."""
        if person is None:
            return UNKNOWN
        visit = self._members.visit_of(person)
        # The receipt of a billed visit holds these goods already: there the journal had them from UNKNOWN.
        if visit and visit not in self._billed:
            return cart(visit)
        return OUTSIDE if self._members.is_staff(person) else UNKNOWN

    def _owner(self, person: int | None) -> _Owner:
        if person is None:
            return _Owner(None, None)
        return _Owner(self._members.account_of(person), self._members.visit_of(person))

    def _candidate(self, candidate: EventCandidate) -> Candidate:
        account, visit = self._owner(candidate.person)
        return Candidate(account, candidate.gtin, candidate.quantity, candidate.probability, visit)

    # ---- receipts ----------------------------------------------------------------------------------------------------

    def must_wait(self, visit: Visit, now_ns: int) -> bool:
        """Whether a load near one of the visit's people is not decided yet, or a plate may still show what they did."""
        waited_s = (now_ns - (visit.exit_ns or 0)) * 1e-9
        undecided = waited_s <= UNDECIDED_MAX_S and any(
            self._history.was_near(visit.members, self._plate_m[plate], UNDECIDED_NEAR_M, since_ns)
            or self._attributor.reached_behind_door(visit.members, plate, since_ns)
            for plate, since_ns in self._monitor.undecided()
        )
        return undecided or (waited_s <= SILENT_MAX_S and self._attributor.may_yet_show(visit.members, now_ns))

    def bill(
        self, visit: Visit, others: Sequence[Visit], exit_ns: int, issued_ns: int
    ) -> list[ShelfEventExplained | Receipt | Evidence]:
        """Write a finished visit's receipt.

        Args:
            visit: all of its people have left.
            others: the visits that have no receipt yet, without this one.
            exit_ns: the visit's last exit.
            issued_ns: data time at which the receipt is final.

        Returns:
            The events that became final, the receipt and, where it goes to review, its evidence.
        """
        sightings = self.sightings.of(visit.id)
        self._weigh(sightings, [visit, *others])
        open_beliefs = self._attributor.beliefs()
        self._find_hand_overs(visit, others, sightings, open_beliefs)
        self._take_back(visit)
        bill = self._bills.pop(visit.id, None) or Bill()
        undecided = self._undecided()
        belief = self._attributor.cart(visit.members, bill.received, undecided)
        concerns = _concerning(visit, open_beliefs, self._attributor.unexplained_by(visit.members))
        judged = self._judge(visit, bill, belief, undecided)
        planogram = self._attributor.planogram
        described = [self.recorder.describe(event, planogram, self._owner) for event in concerns[:BUNDLE_EVENTS_MAX]]
        measured = [(self._name(event), self.recorder.event(event.event_id), event) for event in concerns]
        claims = [(name, event, belief) for name, event, belief in measured if event is not None]
        self.labels.remember(visit.id, visit.account, visit.members, visit.identity, claims)
        explained = [self.settle(event) for event in self._attributor.settle(visit.members)]
        goods, taken = self._book_cart(visit, belief, exit_ns)
        receipt = self._receipt(visit, bill, belief, judged, exit_ns, issued_ns, goods, taken)
        events = sorted((event for event in described if event), key=lambda event: (event.contact_ns, event.event_id))
        evidence = Evidence(
            t_ns=receipt.exit_ns,
            visit=visit.id,
            account=visit.account,
            status=receipt.status,
            reasons=receipt.reasons,
            lines=receipt.lines,
            events=tuple(events),
            sightings=tuple(sighting.evidence() for sighting in sightings),
            n_left_out=len(concerns) - len(events),
            unidentified=tuple(dict.fromkeys(visit.unidentified)),
            questions=judged.questions,
        )
        self._bundles[visit.id] = evidence
        if len(self._bundles) > BUNDLES_MAX:
            self._bundles.popitem(last=False)
        self._remember_billed(visit)
        self.sightings.forget({other.id for other in others})
        return [*explained, receipt, *([evidence] if receipt.status == ReceiptStatus.REVIEW else [])]

    def foresee(self, visit: Visit, exit_ns: int, issued_ns: int) -> Receipt:
        """The receipt of a finished visit as it looks now; nothing is settled or booked, and the state stays as it is.

        It lacks what `bill` finds only once: sightings that are not weighed yet, goods that changed hands, and when
        goods were taken.
        """
        bill, undecided = self._bills.get(visit.id) or Bill(), self._undecided()
        belief = self._attributor.cart(visit.members, bill.received, undecided)
        judged = self._judge(visit, bill, belief, undecided)
        return self._receipt(visit, bill, belief, judged, exit_ns, issued_ns, belief.items)

    def _undecided(self) -> dict[int, int]:
        """By plate, since when it has a load that is not reported yet."""
        undecided: dict[int, int] = {}
        for plate, since_ns in self._monitor.undecided():
            undecided[plate] = min(since_ns, undecided.get(plate, since_ns))
        return undecided

    def give_up(
        self, visit: Visit, exit_ns: int, issued_ns: int, fault: str
    ) -> list[Receipt | StoreWarning]:
        """Write a review of what is in the journal for a finished visit whose bill could not be made.

        fault: what went wrong, in short.
        """
        self._bills.pop(visit.id, None)
        self._remember_billed(visit)
        goods = {gtin: n for gtin, n in sorted(self.journal.balance(cart(visit.id)).items()) if n > 0}
        lines = tuple(ReceiptLine(gtin, n, self._products[gtin].price, 0.5) for gtin, n in goods.items())
        reasons = (Reason(ReasonKind.BILL_FAILED, detail=fault), *dict.fromkeys(visit.doubts))
        receipt = Receipt(
            visit.id, visit.account, visit.enter_ns, exit_ns, issued_ns, ReceiptStatus.REVIEW, reasons,
            self._store.currency, _total(lines), lines,
        )  # fmt: skip
        return [receipt, StoreWarning(issued_ns, WarningKind.BILL_FAILED, visit.id, detail=fault)]

    def _remember_billed(self, visit: Visit) -> None:
        self._billed[visit.id] = None
        if len(self._billed) > BILLED_MAX:
            self._billed.popitem(last=False)

    def decide(self, receipt: Receipt, items: dict[str, int], t_ns: int) -> Receipt:
        """Correct a receipt to what a reviewer decided. Returns the settled receipt.

        Args:
            receipt: as issued by this engine.
            items: what the visit really took, pieces by GTIN.
            t_ns: when the reviewer decided.

        Raises:
            JournalError: a product that the store does not sell, or fewer than one piece of it.
        """
        items = _as_spelt(items, OwnGtins(self._products))
        self.journal.correct(cart(receipt.visit), items, t_ns, f"{receipt.visit}/review/{t_ns}")
        self.labels.decide(receipt.visit, items, t_ns)
        lines = tuple(
            ReceiptLine(gtin, quantity, self._products[gtin].price, 1.0) for gtin, quantity in sorted(items.items())
        )
        return replace(
            receipt, issued_ns=t_ns, status=ReceiptStatus.SETTLED, reasons=(), total=_total(lines), lines=lines,
            probability=1.0,
        )  # fmt: skip

    def _judge(self, visit: Visit, bill: Bill, belief: CartBelief, undecided: Mapping[int, int]) -> _Judgement:
        """How sure a visit's goods are, and where that is not enough, why, and what could be asked."""
        identity = scaled(visit.identity, float(self._attributor.planogram.learnt.factor[IDENTITY]))
        review, probability = self._store.review, belief.probability * identity * bill.certainty
        settles = probability
        if review.equal_price == "settle" and probability < 1.0 - review.receipt_error_max:
            settles *= self._attributor.price_times_surer(visit.members, self._price_class)
        if settles >= 1.0 - review.receipt_error_max:
            return _Judgement(probability)
        doubts = (*bill.doubts, *belief.reasons) or (Reason(ReasonKind.CART_UNCERTAIN, probability=probability),)
        gtins = self._attributor.planogram.gtins
        questions = self._attributor.questions(visit.members, undecided)[:QUESTIONS_MAX]
        return _Judgement(probability, doubts, tuple(one.asked(belief, probability, gtins) for one in questions))

    def _book_cart(
        self, visit: Visit, belief: CartBelief, exit_ns: int
    ) -> tuple[dict[str, int], tuple[Taken, ...]]:
        """Bring the journal to a visit's cart; returns its goods, pieces by GTIN, and when they were taken."""
        account = cart(visit.id)
        # The cart is the balance of its account. Where the best joint hypothesis is not the sum of each event's best
        # candidates, or goods went from hand to hand, a transfer of its own makes up the difference.
        booked = self.journal.balance(account)
        for gtin in sorted(booked.keys() | belief.items.keys()):
            difference = belief.items.get(gtin, 0) - booked.get(gtin, 0)
            if difference:
                key, t_ns = f"{visit.id}/joint/{gtin}", exit_ns - self.offset_ns
                self.journal.move(key, t_ns, UNKNOWN, account, gtin, difference)
        return self.journal.balance(account), self._taken(account)

    def _receipt(
        self,
        visit: Visit,
        bill: Bill,
        belief: CartBelief,
        judged: _Judgement,
        exit_ns: int,
        issued_ns: int,
        goods: Mapping[str, int],
        taken: tuple[Taken, ...] = (),
    ) -> Receipt:
        lines = tuple(
            ReceiptLine(gtin, quantity, self._products[gtin].price, belief.confidence.get(gtin, bill.certainty))
            for gtin, quantity in sorted(goods.items())
        )
        reasons = [Reason(ReasonKind.NO_CREDENTIAL)] if visit.account is None else []
        reasons += visit.doubts
        if not self._monitor.alive_since(exit_ns - ALIVE_NS):
            reasons.append(Reason(ReasonKind.NO_PLATE_ALIVE))
        reasons += judged.doubts
        return Receipt(
            visit=visit.id,
            account=visit.account,
            enter_ns=visit.enter_ns,
            exit_ns=exit_ns,
            issued_ns=issued_ns,
            status=ReceiptStatus.REVIEW if reasons else ReceiptStatus.SETTLED,
            reasons=tuple(dict.fromkeys(reasons)),
            currency=self._store.currency,
            total=_total(lines),
            lines=lines,
            taken=taken,
            probability=judged.probability,
            labels=tuple(label for label in self.sightings.labels(visit.id) if goods.get(label.gtin)),
        )

    def _taken(self, account: Account) -> tuple[Taken, ...]:
        moments = self.journal.moments(account)
        pieces = Counter((t_ns, gtin) for gtin, times in moments.items() for t_ns in times)
        return tuple(Taken(t_ns, gtin, n) for (t_ns, gtin), n in sorted(pieces.items()))

    # ---- from hand to hand -------------------------------------------------------------------------------------------

    def _weigh(self, sightings: Sequence[CartSighting], open_visits: Sequence[Visit]) -> None:
        """Weigh the joint hypotheses by every sighting, once."""
        members = {visit.id: visit.members for visit in open_visits}
        for sighting in sightings:
            if not sighting.weighed:
                sighting.weighed = True
                people = {person for visit in sighting.visits for person in members.get(visit, ())}
                self._attributor.revise(people, sighting.gtin, self.sightings.log_likelihood(sighting))

    def _bill_of(self, visit: str) -> Bill:
        return self._bills.setdefault(visit, Bill())

    def _held(self, visit: Visit) -> CartBelief:
        bill = self._bills.get(visit.id)
        return self._attributor.cart(visit.members, None if bill is None else bill.received)

    def _pieces(self, visit: Visit, gtin: str) -> int:
        return self._held(visit).items.get(gtin, 0)

    def _find_hand_overs(
        self,
        visit: Visit,
        others: Sequence[Visit],
        sightings: Sequence[CartSighting],
        open_beliefs: Sequence[EventBelief],
    ) -> None:
        """Move goods between this bill and the others where the evidence shows that they changed hands.

        A visit that put back goods which it never took got them from another visit. Where exactly one visit holds such
        a piece, the piece leaves that visit's bill; people without a credential may be employees who bring goods, so
        that the bill is in doubt then. A piece that is sighted on people who do not hold it belongs, where the carrier
        pays, to the only other visit that does.
        """
        # A visit that returned more than it took by each event's best candidate: cheap to see, and only for these
        # visits the carts are computed.
        returned: Counter[tuple[str | None, str]] = Counter()
        for belief in open_beliefs:
            for move in moved(belief):
                returned[self._owner(move.person).visit, move.gtin] += move.quantity
        suspects = {visit_id for (visit_id, _), pieces in returned.items() if pieces > 0}
        everybody = [visit, *others]
        for taker in everybody:
            short = self._held(taker).short if taker.id in suspects else {}
            for gtin, pieces in short.items():
                stock = {other.id: self._pieces(other, gtin) for other in everybody if other is not taker}
                holders = [holder for holder, n in stock.items() if n]
                if taker is not visit and visit.id not in holders:
                    continue
                if len(holders) == 1 and taker.account is not None:
                    handed = min(pieces, stock[holders[0]])
                    certainty = self._held(taker).confidence.get(gtin, 1.0)
                    self.hand_over(holders[0], taker.id, gtin, handed, certainty, returned=True)
                else:
                    reason = Reason(ReasonKind.HAND_OVER_AMBIGUOUS, gtin=gtin)
                    for holder in holders:
                        self._bill_of(holder).doubt(HAND_OVER_CERTAINTY, reason)
        for sighting in sightings:
            self._claim(visit, others, sighting)

    def _take_back(self, visit: Visit) -> None:
        """Undo a hand-over whose put-back later evidence contradicts: then the piece stays on the giver's bill."""
        bill = self._bills.get(visit.id)
        if bill is None or not bill.returned:
            return
        returned, bill.returned = bill.returned, Counter()
        short = self._attributor.cart(visit.members).short
        for gtin, pieces in returned.items():
            if pieces > short.get(gtin, 0):
                bill.received[gtin] -= pieces - short.get(gtin, 0)
                bill.doubt(HAND_OVER_CERTAINTY, Reason(ReasonKind.RETURN_UNCLEAR, gtin=gtin))

    def _claim(self, visit: Visit, others: Sequence[Visit], sighting: CartSighting) -> None:
        """Find who gave the people in a zone what was sighted on them, if they do not hold it."""
        present = [carrier for carrier in (visit, *others) if carrier.id in sighting.visits]
        if len(present) < len(sighting.visits):
            return  # The first of these visits to be billed has settled this.
        missing = sighting.quantity - sum(self._pieces(carrier, sighting.gtin) for carrier in present)
        if missing <= 0:
            return
        absent = [other for other in others if other.id not in sighting.visits]
        holders = [other for other in absent if self._pieces(other, sighting.gtin) >= missing]
        if holders and self._store.carts.hand_over == "picker":
            return
        if len(holders) == 1 and len(present) == 1:
            self.hand_over(holders[0].id, visit.id, sighting.gtin, missing, sighting.probability)
            return
        reason = Reason(
            ReasonKind.SIGHTING_AMBIGUOUS if holders else ReasonKind.SIGHTING_NOT_HELD,
            gtin=sighting.gtin,
            quantity=sighting.quantity,
            probability=sighting.probability,
            zone=sighting.zone,
            source=sighting.source,
            sighting=sighting.kind,
        )
        for carrier in present:
            self._bill_of(carrier.id).doubt(1.0 - sighting.probability, reason)


def _total(lines: Sequence[ReceiptLine]) -> int:
    return sum(line.quantity * line.unit_price for line in lines)


def _concerning(visit: Visit, beliefs: Sequence[EventBelief], unexplained: Collection[int]) -> list[EventBelief]:
    """The events that may be a visit's, least clear first. unexplained: ids of its events that no goods explain."""
    found = [
        belief
        for belief in beliefs
        if belief.event_id in unexplained
        or sum(c.probability for c in belief.candidates if c.person in visit.members) >= CONCERNS_MIN
    ]

    def clearest(belief: EventBelief) -> float:
        # A load that nothing explains has no candidates.
        return max([belief.nothing, *(candidate.probability for candidate in belief.candidates[:1])])

    return sorted(found, key=lambda belief: (clearest(belief), belief.event_id))


def _as_spelt(items: Mapping[str, int], own_gtins: OwnGtins) -> dict[str, int]:
    """Pieces by GTIN as the store spells it. Raises JournalError: another product, or fewer than one piece."""
    spelt: Counter[str] = Counter()
    for gtin, quantity in items.items():
        own = own_gtins.of(gtin)
        if own is None or quantity < 1:
            raise JournalError(f"items: want pieces of products of this store, got {quantity} of {gtin!r}")
        spelt[own] += quantity
    return dict(spelt)
