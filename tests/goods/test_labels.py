"""What a decision about a cart says about its loads."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product as every
from typing import Any

import pytest
from goods.bills import EXIT_NS, Scene
from goods.shop import GTINS, STORE
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.goods.labels import VISITS_MAX, explained
from fusion.results import LessonKind, ReceiptStatus

PIECES = st.sampled_from([(), ((0, 1),), ((0, 2),), ((1, 1),), ((1, -1),), ((0, 1), (1, 1))])
OUTCOMES = st.dictionaries(PIECES, st.floats(0.01, 1.0), min_size=1, max_size=4)


def added(outcomes: tuple[Any, ...]) -> tuple[Any, ...]:
    counts: Counter[int] = Counter()
    for pieces in outcomes:
        for gtin, n in pieces:
            counts[gtin] += n
    return tuple(sorted((gtin, n) for gtin, n in counts.items() if n))


@settings(deadline=None, max_examples=60)
@given(st.lists(OUTCOMES, min_size=1, max_size=4), st.data())
def test_two_passes_are_the_sum_over_all_ways(events: list[dict[Any, float]], data: st.DataObject) -> None:
    ways = {way: math.prod(of[o] for of, o in zip(events, way)) for way in every(*events)}
    cart = data.draw(st.sampled_from(sorted({added(way) for way in ways})))
    fits = {way: p for way, p in ways.items() if added(way) == cart}
    found = explained(events, cart)
    for i, after in enumerate(found):
        expected: Counter[Any] = Counter()
        for way, p in fits.items():
            expected[way[i]] += p / sum(fits.values())  # type: ignore[assignment]
        assert after == pytest.approx(dict(expected))


def test_a_cart_that_the_loads_cannot_add_up_to_says_nothing() -> None:
    assert explained([{((0, 1),): 0.6, (): 0.4}], ((1, 1),)) == []


def look_alikes() -> Scene:
    """Product 4 weighs 1 g more than product 3, and lies on the plate beside it."""
    products = list(STORE.products)
    products[4] = products[4].model_copy(update={"weight_g": products[3].weight_g + 1.0})
    scene = Scene({1: 3}, {"ann": [1]}, products=tuple(products))
    half = 0.5 * products[3].weight_g
    from goods.shop import event

    scene.results += scene.billing.observe(event(10.0, {3: -half, 4: -half}))
    return scene


def test_a_decision_names_a_load_that_was_open() -> None:
    scene = look_alikes()
    receipt = scene.bill("ann")["ann"]
    assert receipt.status is ReceiptStatus.REVIEW
    labels = scene.billing.labels
    for gtin in (GTINS[3], GTINS[4]):
        assert labels.learn("ann", {gtin: 1}, EXIT_NS) == 1
    assert labels.learn("ann", {GTINS[0]: 1}, EXIT_NS) == 0, "no load can be that"
    assert labels.learn("ann", {"other": 1}, EXIT_NS) == 0
    assert labels.learn("nobody", {}, EXIT_NS) == 0
    assert labels.learn("ann", None, EXIT_NS) == 0


def test_what_was_certain_needs_no_decision() -> None:
    scene = Scene({1: 3}, {"ann": [1]})
    scene.moves(10.0, 3, 3, -1)
    receipt = scene.bill("ann")["ann"]
    assert receipt.status is ReceiptStatus.SETTLED
    scene.billing.decide(receipt, {GTINS[3]: 1}, EXIT_NS)
    assert scene.attributor.planogram.learnt.version == 0
    assert not scene.attributor.planogram.learnt.latest.get((LessonKind.WEIGHT, GTINS[3]))


def test_the_person_is_a_label_for_hands() -> None:
    """Eight customers, each beside one who took nothing: the decision says whose hand it was."""
    scene = Scene({1: 3, 2: 3}, {"ann": [1], "bob": [2]})
    scene.moves(10.0, 3, 3, -1)
    scene.bill("ann", "bob")
    learnt = scene.attributor.planogram.learnt
    scene.billing.labels.learn("ann", {GTINS[3]: 1}, EXIT_NS)
    scene.billing.labels.learn("bob", {}, EXIT_NS)
    assert (learnt.factor == 1.0).all(), "two customers are too few"


def test_loads_of_a_bounded_number_of_visits_are_kept() -> None:
    scene = Scene({1: 3, 2: 3}, {"ann": [1], "bob": [2]})
    scene.moves(10.0, 3, 3, -1)
    labels = scene.billing.labels
    (belief,) = scene.attributor.beliefs()
    claim = "event", scene.billing.recorder.event(belief.event_id), belief
    for number in range(VISITS_MAX + 20):
        labels.remember(f"v{number}", "ann", {1}, 1.0, [claim])
    assert len(labels._visits) == VISITS_MAX
    assert next(iter(labels._visits)) == "v20", "the oldest make room"
