"""Loads behind a door come in the order in which they happened, and none of them waits for long."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fusion.example_stores.catalogue import store_folder
from fusion.goods.door_order import KEPT_MAX_NS, DoorOrder
from fusion.goods.loads import ShelfEvent
from fusion.store.models import Store

STORE = Store.load(store_folder("cabinet"))
S = 10**9


def load(plate: int, contact_ns: int) -> ShelfEvent:
    at = contact_ns - S // 5, contact_ns, contact_ns + S
    return ShelfEvent(np.array([plate]), *at, np.array([-100.0]), np.array([[1.0]]))


def test_a_load_waits_for_a_plate_that_moved_before_it() -> None:
    order, later = DoorOrder(STORE), load(1, 20 * S)
    assert order.ready([later], [(0, 18 * S)], 22 * S) == []
    assert order.kept == [(1, 20 * S)]
    earlier = load(0, 18 * S)
    assert order.ready([earlier], [], 23 * S) == [earlier, later]
    assert order.kept == []


def test_a_plate_that_moves_later_keeps_nothing_back() -> None:
    order, event = DoorOrder(STORE), load(1, 20 * S)
    assert order.ready([event], [(0, 21 * S)], 22 * S) == [event]


def test_a_plate_that_never_rests_keeps_nothing_back_for_long() -> None:
    order, first, second = DoorOrder(STORE), load(1, 20 * S), load(2, 21 * S)
    moving = [(0, 10 * S)]
    assert order.ready([first, second], moving, 22 * S) == []
    assert order.ready([], moving, 21 * S + KEPT_MAX_NS) == []
    assert order.ready([], moving, 21 * S + KEPT_MAX_NS + 1) == [first]
    assert order.ready([], moving, 40 * S) == [second]


def test_in_the_open_nothing_is_kept_back() -> None:
    order = DoorOrder(STORE.model_copy(update={"gate": ()}))
    event = load(1, 20 * S)
    assert not order and order.ready([event], [(0, 18 * S)], 22 * S) == [event]


@given(
    steps=st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 11), st.integers(0, 60)), max_size=4),
            st.lists(st.tuples(st.integers(0, 11), st.integers(0, 60)), max_size=3),
        ),
        max_size=12,
    )
)
def test_every_load_comes_once_and_in_order_at_each_step(
    steps: list[tuple[list[tuple[int, int]], list[tuple[int, int]]]],
) -> None:
    order, given_, came, now_ns = DoorOrder(STORE), 0, 0, 0
    for loads, moving in steps:
        now_ns += 2 * S
        given_ += len(loads)
        ready = order.ready([load(plate, t * S) for plate, t in loads], [(p, t * S) for p, t in moving], now_ns)
        assert [event.contact_ns for event in ready] == sorted(event.contact_ns for event in ready)
        came += len(ready)
        assert came + len(order.kept) == given_
    came += len(order.ready([], [], now_ns))
    assert came == given_ and order.kept == []
