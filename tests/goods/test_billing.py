"""Billing: who pays for what goes from hand to hand, what sightings change, what a reviewer decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from goods.bills import EXIT_NS, Scene, bought, kinds
from goods.shop import GTINS, STORE, T0, event

from fusion.errors import JournalError
from fusion.goods.beliefs import EventBelief, EventCandidate
from fusion.goods.billing import BILLED_MAX, BUNDLES_MAX, SILENT_MAX_S, UNDECIDED_MAX_S
from fusion.goods.counts import moved
from fusion.goods.journal import OUTSIDE, UNKNOWN, cart
from fusion.goods.unobserved import BlindPlates
from fusion.observations import ItemSighting
from fusion.people.open_visits import Visit
from fusion.results import Picked, PutBack, Reason, ReasonKind, ReceiptStatus, ShelfEventExplained
from fusion.sentences import reason_text
from fusion.store.models import CartPolicy

# ---- receipts --------------------------------------------------------------------------------------------------------


def test_what_was_taken_is_on_the_receipt() -> None:
    scene = Scene({7: 3}, {"ann": [7]})
    scene.moves(5.0, 3, 3, -2)
    receipt = scene.bill("ann")["ann"]
    (line,) = receipt.lines
    assert (line.gtin, line.quantity, line.unit_price) == (GTINS[3], 2, STORE.products[3].price)
    assert receipt.total == 2 * STORE.products[3].price and receipt.status == ReceiptStatus.SETTLED
    assert (receipt.enter_ns, receipt.exit_ns, receipt.account) == (T0, EXIT_NS, "ann")
    assert [(taken.gtin, taken.quantity) for taken in receipt.taken] == [(GTINS[3], 2)]
    assert scene.evidence() == [] and scene.billing.evidence("ann") is not None
    assert [type(result) for result in scene.results][:1] == [Picked]


def test_a_receipt_can_be_foreseen_without_writing_it() -> None:
    scene = Scene({7: 3, 8: 3}, {"ann": [7, 9], "bob": [8]})
    scene.moves(5.0, 3, 3, -1)
    scene.visits["ann"].doubts.append(Reason(ReasonKind.LOST_INSIDE))
    n_transfers = len(scene.billing.journal)
    foreseen = [scene.billing.foresee(scene.visits["ann"], EXIT_NS, EXIT_NS) for _ in range(2)]
    assert len(scene.billing.journal) == n_transfers and scene.billing.evidence("ann") is None
    receipt = scene.bill("ann")["ann"]
    assert foreseen[0] == foreseen[1] == replace(receipt, issued_ns=EXIT_NS, taken=())
    assert len(receipt.reasons) == 2 and receipt.status == ReceiptStatus.REVIEW


def test_a_visit_without_goods_gets_an_empty_receipt() -> None:
    receipt = Scene({7: 3}, {"ann": [7]}).bill("ann")["ann"]
    assert (receipt.lines, receipt.total, receipt.status) == ((), 0, ReceiptStatus.SETTLED)


def test_without_a_credential_a_receipt_goes_to_review() -> None:
    scene = Scene({7: 3}, {"ann": [7]})
    scene.visits["ann"].account = None
    receipt = scene.bill("ann")["ann"]
    assert receipt.status == ReceiptStatus.REVIEW and receipt.reasons == (Reason(ReasonKind.NO_CREDENTIAL),)


def test_doubts_of_a_visit_come_before_doubts_of_its_goods() -> None:
    scene = Scene({7: 3, 8: 3}, {"ann": [7], "bob": [8]})
    scene.visits["ann"].doubts.append(Reason(ReasonKind.LOST_INSIDE))
    scene.moves(5.0, 3, 3, -1)
    receipt = scene.bill("ann")["ann"]
    first, second = receipt.reasons
    assert first.kind == ReasonKind.LOST_INSIDE
    assert (second.kind, second.plate) == (ReasonKind.PERSON_UNCERTAIN, STORE.plates[3].plate)
    assert second.probability is not None and second.probability < 0.6
    assert second.delta_g == pytest.approx(-STORE.products[3].weight_g)


def test_a_put_back_takes_off_the_receipt() -> None:
    scene = Scene({7: 3}, {"ann": [7]})
    scene.moves(5.0, 3, 3, -2)
    scene.moves(20.0, 3, 3, +1)
    assert bought(scene.bill("ann")["ann"]) == {GTINS[3]: 1}
    assert [type(result) for result in scene.results[:2]] == [Picked, PutBack]


def test_a_receipt_waits_for_a_load_near_its_people_and_not_for_ever() -> None:
    scene = Scene({7: 3}, {"ann": [7]})
    far = Visit("far", "far", T0, {99}, exit_ns=EXIT_NS)
    scene.monitor.undecided = lambda: [(3, EXIT_NS - 10**9)]  # type: ignore[method-assign]
    assert scene.billing.must_wait(scene.visits["ann"], EXIT_NS + 10**9)
    assert not scene.billing.must_wait(far, EXIT_NS + 10**9)
    assert not scene.billing.must_wait(scene.visits["ann"], EXIT_NS + int((UNDECIDED_MAX_S + 0.1) * 1e9))


def test_a_receipt_waits_for_a_silent_plate_into_which_its_people_reached_and_not_for_ever() -> None:
    scene = Scene({7: 3}, {"ann": [7], "bob": [8]})
    ann, bob = scene.visits["ann"], scene.visits["bob"]
    left_ns = T0 + int(59.9e9)
    ann.exit_ns = bob.exit_ns = left_ns
    scene.attributor.watch(BlindPlates(unheard={3}), scene.history, left_ns)
    second = 10**9
    assert scene.billing.must_wait(ann, left_ns + 2 * second)
    assert not scene.billing.must_wait(bob, left_ns + 2 * second)
    assert not scene.billing.must_wait(ann, left_ns + int((SILENT_MAX_S + 0.1) * second))
    # It reports again, and shows a moment later what was done.
    scene.attributor.watch(BlindPlates(), scene.history, left_ns + 2 * second)
    assert scene.billing.must_wait(ann, left_ns + 2 * second)
    scene.attributor.watch(BlindPlates(), scene.history, left_ns + 3 * second)
    assert not scene.billing.must_wait(ann, left_ns + 4 * second)


@pytest.mark.parametrize("decided", [True, False])
def test_a_silent_plate_has_shown_nothing_while_a_load_on_it_is_undecided(decided: bool) -> None:
    scene = Scene({7: 3}, {"ann": [7]})
    left_ns = T0 + int(59.9e9)
    scene.attributor.watch(BlindPlates(unheard={3}), scene.history, left_ns)
    scene.attributor.watch(BlindPlates(), scene.history, left_ns + 3 * 10**9)
    scene.monitor.undecided = lambda: [] if decided else [(3, left_ns)]  # type: ignore[method-assign]
    assert kinds(scene.bill("ann")["ann"]) == (set() if decided else {ReasonKind.PLATE_NOT_REPORTING})


def test_a_plate_that_cannot_show_it_later_is_not_waited_for() -> None:
    scene = Scene({7: 3}, {"ann": [7]})
    ann = scene.visits["ann"]
    ann.exit_ns = left_ns = T0 + int(59.9e9)
    scene.attributor.watch(BlindPlates(unfit={3}), scene.history, left_ns)
    assert not scene.billing.must_wait(ann, left_ns + 10**9)
    assert kinds(scene.bill("ann")["ann"]) == {ReasonKind.PLATE_UNFIT}


def test_evidence_is_kept_of_the_newest_receipts() -> None:
    names = [f"v{i}" for i in range(BUNDLES_MAX + 3)]
    scene = Scene({7: 3}, {name: [100 + i] for i, name in enumerate(names)})
    scene.bill(*names)
    kept = [name for name in names if scene.billing.evidence(name) is not None]
    assert kept == names[3:] and len(names) < BILLED_MAX


# ---- from hand to hand -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [("ann", "bob"), ("bob", "ann")])
@pytest.mark.parametrize("policy", ["picker", "carrier"])
def test_what_another_visit_puts_back_is_off_the_pickers_bill(order: tuple[str, str], policy: str) -> None:
    scene = Scene({7: 3, 8: 6}, {"ann": [7], "bob": [8]}, carts=CartPolicy(hand_over=policy))
    scene.moves(5.0, 3, 3, -1)
    scene.moves(20.0, 6, 3, +1)
    receipts = scene.bill(*order)
    assert bought(receipts["ann"]) == bought(receipts["bob"]) == {}
    counts = scene.shelf_state()
    assert counts["r0p3", GTINS[3]].pieces == 5
    assert counts["r0p6", GTINS[3]].pieces == 1 and counts["r0p6", GTINS[3]].status == "ok"


@pytest.mark.parametrize("order", [("ann", "bob"), ("bob", "ann")])
def test_what_somebody_without_a_credential_puts_on_a_shelf_may_be_no_customers(order: tuple[str, str]) -> None:
    """An employee who forgot their badge refills the shelf: what Ann holds stays on her bill, in doubt."""
    scene = Scene({7: 3, 8: 6}, {"ann": [7], "bob": [8]})
    scene.visits["bob"].account = None
    scene.moves(5.0, 3, 3, -1)
    scene.moves(20.0, 6, 3, +1)
    receipts = scene.bill(*order)
    assert bought(receipts["ann"]) == {GTINS[3]: 1} and receipts["ann"].status == ReceiptStatus.REVIEW
    assert ReasonKind.HAND_OVER_AMBIGUOUS in kinds(receipts["ann"])


def test_inside_a_visit_it_does_not_matter_whose_hands() -> None:
    scene = Scene({7: 3, 8: 6}, {"family": [7, 8]})
    scene.moves(5.0, 3, 3, -2)
    scene.moves(20.0, 6, 3, +1)
    receipt = scene.bill("family")["family"]
    assert bought(receipt) == {GTINS[3]: 1}


def test_a_put_back_that_several_may_have_handed_over_is_for_a_person_to_decide() -> None:
    scene = Scene({7: 3, 8: 6, 9: 3}, {"ann": [7], "bob": [8], "cat": [9]})
    # Ann and Cat hold one each, whoever took which.
    scene.moves(5.0, 3, 3, -1)
    scene.moves(10.0, 3, 3, -1)
    scene.moves(20.0, 6, 3, +1)
    receipts = scene.bill("bob", "ann", "cat")
    assert [receipts[name].status for name in ("ann", "bob", "cat")] == ["review"] * 3
    assert ReasonKind.HAND_OVER_AMBIGUOUS in kinds(receipts["ann"])
    assert ReasonKind.HAND_OVER_AMBIGUOUS in kinds(receipts["cat"])
    assert ReasonKind.RETURNED_MORE_THAN_TAKEN in kinds(receipts["bob"])


@pytest.mark.parametrize(("policy", "payer"), [("picker", "ann"), ("carrier", "bob")])
def test_who_pays_for_what_another_carries_out(policy: str, payer: str) -> None:
    """Ann took it, the antenna reads it on Bob: the store's policy decides."""
    scene = Scene({8: 6, 7: 3}, {"bob": [8], "ann": [7]}, carts=CartPolicy(hand_over=policy))
    scene.moves(5.0, 3, 3, -1)
    scene.reads_on("bob", 3, 0.99)
    receipts = scene.bill("bob", "ann")
    assert {name: bought(receipt) for name, receipt in receipts.items()} == {
        name: {GTINS[3]: 1} if name == payer else {} for name in ("ann", "bob")
    }
    assert {receipt.status for receipt in receipts.values()} == {"settled"}


def test_a_hand_over_moves_a_piece_to_another_bill() -> None:
    scene = Scene({7: 3, 8: 6}, {"ann": [7], "bob": [8]})
    scene.moves(5.0, 3, 3, -2)
    scene.billing.hand_over("ann", "bob", GTINS[3], 1, 0.99)
    receipts = scene.bill("ann", "bob")
    assert bought(receipts["ann"]) == bought(receipts["bob"]) == {GTINS[3]: 1}
    assert receipts["bob"].lines[0].confidence == pytest.approx(0.99)
    assert {receipt.status for receipt in receipts.values()} == {"settled"}


def test_what_seemed_handed_over_and_was_not_is_billed_to_nobody_else() -> None:
    scene = Scene({7: 3, 8: 6}, {"ann": [7], "bob": [8]})
    scene.moves(5.0, 3, 3, -1)
    scene.billing.hand_over("ann", "bob", GTINS[3], 1, 1.0, returned=True)
    receipt = scene.bill("bob")["bob"]
    assert bought(receipt) == {} and receipt.status == "review"
    assert ReasonKind.RETURN_UNCLEAR in kinds(receipt)


# ---- sightings -------------------------------------------------------------------------------------------------------


def test_a_read_revises_how_many() -> None:
    """A load that two joint hypotheses share is decided by what the antenna reads."""

    def shared_load() -> Scene:
        scene = Scene({7: 3, 8: 3}, {"ann": [7], "bob": [8]})
        scene.moves(5.0, 3, 3, -1)
        assert scene.attributor.cart([7]).probability < 0.6, "hands at the same place: the person is uncertain"
        return scene

    scene = shared_load()
    scene.reads_on("ann", 3, 0.98)
    assert bought(scene.bill("ann")["ann"]) == {GTINS[3]: 1}
    scene = shared_load()
    scene.reads_on("ann", 3, 0.99)
    receipts = scene.bill("ann", "bob")
    assert bought(receipts["ann"]) == {GTINS[3]: 1} and receipts["ann"].lines[0].confidence > 0.9
    assert bought(receipts["bob"]) == {}


def test_what_is_read_on_people_and_held_by_nobody_goes_to_review() -> None:
    scene = Scene({7: 3}, {"ann": [7]})
    scene.moves(5.0, 3, 3, -1)
    scene.sees(30.0, 5)
    receipt = scene.bill("ann")["ann"]
    assert receipt.status == "review" and bought(receipt) == {GTINS[3]: 1}
    text = reason_text(receipt.reasons)
    assert text is not None and f"antenna read 1 x {GTINS[5]} at 'pay', which no visit there holds" in text
    (bundle,) = scene.evidence()
    (seen,) = bundle.sightings
    assert (seen.gtin, seen.quantity, seen.zone) == (GTINS[5], 1, "pay")


def test_an_uncertain_source_sends_nobody_to_review() -> None:
    scene = Scene({7: 3}, {"ann": [7]})
    scene.moves(5.0, 3, 3, -1)
    scene.sees(30.0, 5, probability=0.02)
    assert scene.bill("ann")["ann"].status == "settled"


def test_reads_that_agree_change_nothing() -> None:
    scene = Scene({7: 3}, {"ann": [7]})
    scene.moves(5.0, 3, 3, -1)
    scene.sees(30.0, 3)
    receipt = scene.bill("ann")["ann"]
    assert receipt.status == "settled" and bought(receipt) == {GTINS[3]: 1}


def test_an_antenna_counts_tags_and_a_camera_the_same_pieces_again() -> None:
    scene = Scene({7: 3}, {"ann": [7]})
    for _ in range(3):
        scene.sees(30.0, 3)
        scene.sees(30.0, 4, kind="seen")
    assert {(kept.kind, kept.quantity) for kept in scene.billing.sightings.of("ann")} == {("read", 3), ("seen", 1)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"zone": "nowhere"}, "items: unknown zone, product or kind"),
        ({"gtin": "4006381333931"}, "items: unknown zone, product or kind"),
        ({"zone": None}, "items: evidence not used"),
        ({"quantity": 0}, "items: evidence not used"),
        ({"kind": "seen", "zone": None, "plate": "nowhere"}, "items: unknown plate or product"),
        ({"t_ns": T0 + 10**12}, "items: no open visit in the zone"),
    ],
)
def test_sightings_that_cannot_be_used_are_counted(change: dict[str, object], reason: str) -> None:
    scene = Scene({7: 3}, {"ann": [7]})
    good = ItemSighting(T0 + 10**9, "antenna", "read", GTINS[3], 1, 0.9, zone="pay")
    scene.billing.sight(replace(good, **change))  # type: ignore[arg-type]
    assert scene.billing.ignored == {reason: 1} and len(scene.billing.sightings) == 0
    scene.billing.sight(good)
    assert len(scene.billing.sightings) == 1


def test_a_billed_visit_is_sighted_no_more() -> None:
    scene = Scene({7: 3}, {"ann": [7]})
    scene.bill("ann")
    scene.billing.sight(ItemSighting(T0 + 10**9, "antenna", "read", GTINS[3], 1, 0.9, zone="pay"))
    assert scene.billing.ignored == {"items: no open visit in the zone": 1}


# ---- events that become final ----------------------------------------------------------------------------------------


def test_records_of_settled_events_are_forgotten() -> None:
    scene = Scene({7: 3, 8: 6, 9: 4}, {"ann": [7], "bob": [8]}, staff=(9,))
    for k, (plate, product) in enumerate(((3, 3), (6, 6), (4, 4), (3, 3))):
        scene.moves(5.0 + 8.0 * k, plate, product, -1)
    assert len(scene.billing.recorder) == 4
    scene.bill("ann", "bob")
    scene.billing.staff_left(EXIT_NS, 9)
    scene.billing.settle_staff(EXIT_NS)
    scene.billing.finish()
    assert len(scene.billing.recorder) == 0


def test_staff_have_no_cart_and_their_events_settle_when_they_leave() -> None:
    scene = Scene({7: 3}, {}, staff=(7,))
    scene.moves(5.0, 3, 3, +2)
    scene.billing.staff_left(T0 + 10**10, 7)
    assert scene.billing.settle_staff(T0) == []
    (explained,) = scene.billing.settle_staff(T0 + 2 * 10**10)
    assert isinstance(explained, ShelfEventExplained) and explained.candidates[0].visit is None
    assert scene.billing.journal.balance(OUTSIDE) == {GTINS[3]: -2}
    assert scene.shelf_state()["r0p3", GTINS[3]].pieces == 8
    assert scene.billing.settle_staff(T0 + 2 * 10**10) == []


def test_goods_of_a_billed_visit_come_from_the_unknown() -> None:
    scene = Scene({7: 3}, {"ann": [7]})
    receipt = scene.bill("ann")["ann"]
    late = EventBelief(0, EXIT_NS, "r0p3", -308.0, (EventCandidate(7, GTINS[3], -1, 0.9),))
    scene.billing.settle(late)
    journal = scene.billing.journal
    assert journal.balance(UNKNOWN) == {GTINS[3]: 1} and journal.balance(cart("ann")) == {} == bought(receipt)


def test_both_parts_of_a_shared_load_leave_the_shelf() -> None:
    parts = EventCandidate(7, GTINS[3], -1, 0.6), EventCandidate(8, GTINS[4], -1, 0.6)
    halves = tuple(part._replace(probability=0.3) for part in parts)
    belief = EventBelief(0, T0, "r0p3", -616.0, (*halves, EventCandidate(7, GTINS[5], -1, 0.2)), parts)
    assert moved(belief) == parts
    scene = Scene({7: 3, 8: 3}, {"ann": [7], "bob": [8]})
    scene.billing.settle(belief)
    assert scene.billing.journal.balance(cart("bob")) == {GTINS[4]: 1}
    assert set(scene.billing.journal.totals().values()) <= {0}


def test_states_of_facings() -> None:
    scene = Scene({7: 3}, {"ann": [7]})
    state = {place: row.status for place, row in scene.shelf_state().items()}
    assert state.pop(("r0p6", GTINS[3])) == "empty" and set(state.values()) == {"ok"}
    for k in range(6):
        scene.moves(3.0 + 5.0 * k, 3, 3, -1)
    before = scene.shelf_state()["r0p3", GTINS[3]]
    assert (before.pieces, before.status) == (0, "empty"), "open events count as they look now"
    scene.moves(40.0, 3, 3, -1)
    scene.bill("ann")
    over = scene.shelf_state()["r0p3", GTINS[3]]
    assert (over.pieces, over.overdrawn, over.status, over.confidence) == (0, 1, "overdrawn", 0.0)


# ---- what a reviewer decides -----------------------------------------------------------------------------------------


def test_decisions_of_a_reviewer_leave_other_carts_alone() -> None:
    scene = Scene({7: 3, 8: 6}, {"ann": [7], "bob": [8]})
    scene.moves(5.0, 3, 3, -1)
    scene.moves(10.0, 6, 6, -1)
    scene.moves(20.0, 6, 3, +1)
    receipts = scene.bill("bob", "ann")
    decide: Callable[..., object] = scene.billing.decide
    journal, t_ns = scene.billing.journal, T0 + 10**12
    for items in ({GTINS[3]: 2, GTINS[5]: 1}, {}, {GTINS[6]: 1}):
        decided = scene.billing.decide(receipts["bob"], items, t_ns)
        assert (decided.status, decided.reasons) == (ReceiptStatus.SETTLED, ())
        assert journal.balance(cart("bob")) == items == bought(decided)
        assert journal.balance(cart("ann")) == bought(receipts["ann"])
        assert set(journal.totals().values()) <= {0}
        written = len(journal)
        assert decide(receipts["bob"], items, t_ns) == decided and len(journal) == written
        t_ns += 1


@pytest.mark.parametrize("items", [{"4006381333931": 1}, {GTINS[3]: 0}, {GTINS[3]: -1}])
def test_a_decision_names_products_of_the_store(items: dict[str, int]) -> None:
    scene = Scene({7: 3}, {"ann": [7]})
    scene.moves(5.0, 3, 3, -1)
    receipt = scene.bill("ann")["ann"]
    with pytest.raises(JournalError, match="items"):
        scene.billing.decide(receipt, items, T0 + 10**12)
    assert scene.billing.journal.balance(cart("ann")) == bought(receipt)


def test_an_event_where_most_probably_nothing_moved_is_no_result() -> None:
    scene = Scene({7: 3}, {"ann": [7]})
    assert scene.billing.observe(event(5.0, {3: -1.0})) == []
