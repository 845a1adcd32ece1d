"""Loads that no goods explain: they are doubts of whoever was at the plate, unless they were undone."""

from __future__ import annotations

from goods.shop import GTINS, STORE, at_shelf, event, plate_hand

from fusion.goods.attribution import Attributor
from fusion.goods.beliefs import EventBelief
from fusion.goods.billing import _concerning
from fusion.goods.planogram import Planogram
from fusion.people.open_visits import Visit
from fusion.results import ReasonKind

ODD_G = 5133.0  # No few pieces of any product of the shop weigh this.


def attributor() -> Attributor:
    return Attributor(STORE, Planogram(STORE))


def kinds(attributed: Attributor, person: int) -> list[ReasonKind]:
    return [reason.kind for reason in attributed.cart([person]).reasons]


def test_a_load_that_nothing_explains_is_a_doubt_of_the_hand_that_moved_it() -> None:
    for sign in (-1.0, 1.0):
        attributed = attributor()
        belief = attributed.observe(event(5.0, {3: sign * ODD_G}), at_shelf({7: plate_hand(3), 8: plate_hand(7)}))
        assert belief.nothing > 0.9
        reason, *_ = attributed.cart([7]).reasons
        assert reason.kind is ReasonKind.LOAD_UNEXPLAINED
        assert reason.plate == STORE.plates[3].plate and reason.delta_g == sign * ODD_G
        assert attributed.cart([7]).probability < 0.6
        assert attributed.cart([8]).reasons == () and attributed.cart([8]).probability > 0.97


def test_a_load_that_is_undone_is_no_doubt() -> None:
    """A bag on a shelf: it is set down, and picked up again."""
    attributed = attributor()
    history = at_shelf({7: plate_hand(3)})
    attributed.observe(event(5.0, {3: ODD_G}), history)
    assert kinds(attributed, 7) == [ReasonKind.LOAD_UNEXPLAINED]
    attributed.observe(event(30.0, {3: -ODD_G}), history)
    assert kinds(attributed, 7) == []


def test_what_a_put_back_shifts_on_the_next_plate_is_no_doubt() -> None:
    """A piece is taken and put back against its neighbours, which then lean a part of their weight on its plate."""
    product = STORE.products[6].weight_g
    for shifted_g, seconds in ((22.0, 0.5), (60.0, 0.5), (22.0, 4.0)):
        attributed = attributor()
        history = at_shelf({7: plate_hand(6)})
        attributed.observe(event(5.0, {6: -product}), history)
        attributed.observe(event(20.0, {6: product + 22.0}), history)
        attributed.observe(event(20.0 + seconds, {7: -shifted_g}), history)
        is_part = shifted_g == 22.0 and seconds < 1.5
        assert (ReasonKind.LOAD_UNEXPLAINED in kinds(attributed, 7)) is not is_part


def test_the_rest_of_a_load_is_no_doubt() -> None:
    """Goods tip over from one plate to the next while they are lifted; or the hand that lifts pulls, and lets go."""
    product = STORE.products[3].weight_g
    cases = (
        # What is weighed first, what follows, on which plate, after how long, whether both are one load.
        (-0.88 * product, -0.12 * product, 4, 0.6, True),
        (-0.88 * product, -0.12 * product, 4, 4.0, False),
        (-0.88 * product, -0.3 * product, 4, 0.6, False),
        (-product, -0.12 * product, 4, 0.6, False),
        (-1.11 * product, 0.11 * product, 3, 0.6, True),
        (-1.11 * product, 0.11 * product, 5, 0.6, False),
        (-product, 0.11 * product, 3, 0.6, False),
        (-0.95 * product, -0.11 * product, 3, 0.6, False),
    )
    for first_g, then_g, plate, seconds, is_one in cases:
        attributed = attributor()
        history = at_shelf({7: plate_hand(3)})
        attributed.observe(event(5.0, {3: first_g}), history)
        attributed.observe(event(5.0 + seconds, {plate: then_g}), history)
        assert attributed.cart([7]).items[GTINS[3]] == 1
        assert (ReasonKind.LOAD_UNEXPLAINED in kinds(attributed, 7)) is not is_one, (first_g, then_g, plate, seconds)


def test_staff_and_absent_people_leave_no_doubt() -> None:
    attributed = attributor()
    attributed.set_staff(7)
    attributed.observe(event(5.0, {3: ODD_G}), at_shelf({7: plate_hand(3), 8: plate_hand(7)}))
    assert ReasonKind.LOAD_UNEXPLAINED not in kinds(attributed, 7) + kinds(attributed, 8)


def test_the_doubt_outlasts_the_bills_of_others_and_ends_with_its_own() -> None:
    attributed = attributor()
    both = at_shelf({7: plate_hand(3), 8: plate_hand(7)})
    attributed.observe(event(5.0, {3: ODD_G}), both)
    attributed.settle([8])
    assert kinds(attributed, 7) == [ReasonKind.LOAD_UNEXPLAINED]
    attributed.settle([7])
    assert kinds(attributed, 7) == []


def test_everybody_who_may_have_moved_it_is_in_doubt() -> None:
    attributed = attributor()
    attributed.observe(event(5.0, {3: ODD_G}), at_shelf({7: plate_hand(3), 8: plate_hand(3)}))
    assert kinds(attributed, 7) == kinds(attributed, 8) == [ReasonKind.LOAD_UNEXPLAINED]
    assert attributed.cart([7]).probability < 0.8


def test_a_belief_without_candidates_has_a_place_among_a_visits_events() -> None:
    """A load far beyond every plate leaves no candidate at all."""
    beliefs = [EventBelief(i, i, "p", -1e5, ()) for i in range(3)]
    found = _concerning(Visit("v1", "a", None), beliefs, {2, 0})
    assert [belief.event_id for belief in found] == [0, 2]
