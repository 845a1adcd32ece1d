"""A shopper's visit between the gates: pieces are taken, some are put back, some handed to a companion."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fusion.simulation.person import Held, Meeting, Person
from fusion.simulation.reaching import hand_over, take_hold, touch
from fusion.simulation.shop import Shop
from fusion.simulation.walking import go_to_shelf, look_around, pause, walk


class _Doubt(NamedTuple):
    """A piece that will be put back, and when."""

    due_s: float
    held: Held


def go_shopping(shop: Shop, person: Person) -> Iterator[None]:
    """Take as many pieces as the person has planned, as long as there is time."""
    random, scenario = person.random, shop.scenario
    picks = person.picks
    if picks == 0:
        yield from _stroll(shop, person)
        return
    to_return: list[_Doubt] = []
    tries = 0
    while (picks > 0 or to_return) and shop.time_for(person) and tries < 4 * person.picks + 8:
        tries += 1
        due = [doubt for doubt in to_return if doubt.due_s <= shop.now_s or picks == 0]
        if due:
            to_return.remove(due[0])
            if due[0].held in person.basket:
                yield from _put_back(shop, person, due[0].held)
            continue
        taken: list[Held] = []
        yield from _take(shop, person, taken)
        if not taken:
            yield from look_around(shop, person, 0.5)
            continue
        picks -= 1
        if random.random() < scenario.put_back_probability:
            # People hold pieces that they doubt for some five seconds (median of the labelled recordings).
            to_return.append(_Doubt(shop.now_s + float(random.lognormal(math.log(5.0), 0.9)), taken[0]))
        elif len(person.group) > 1 and random.random() < scenario.hand_over_probability:
            yield from hand_over(shop, person, taken)


def _stroll(shop: Shop, person: Person) -> Iterator[None]:
    """Walk about, look and take nothing."""
    for _ in range(int(person.random.integers(1, 4))):
        if shop.time_for(person):
            yield from walk(shop, person, shop.floor.random_point(person.random), within_m=0.4)
            yield from look_around(shop, person, float(person.random.uniform(0.5, 3.0)))


def _take(shop: Shop, person: Person, taken: list[Held]) -> Iterator[None]:
    """Go to a shelf and take pieces of one product; they are added to `taken` and to the basket."""
    random, scenario = person.random, shop.scenario
    plate = _choose_plate(shop, person)
    if plate < 0 or not (yield from go_to_shelf(shop, person, plate)):
        return
    if person.meeting is not None:
        yield from _wait_for_the_other(person, person.meeting)
    else:
        yield from look_around(shop, person, float(random.gamma(1.5, 0.6)))
    if random.random() < scenario.touch_probability:
        yield from touch(shop, person, plate)
    goods = shop.stock.goods_on(plate)
    if not goods:
        return
    gtin = goods[int(random.integers(len(goods)))]
    grips = 1
    while random.random() < scenario.second_grip_probability and grips < 3:
        grips += 1
    for _ in range(grips):
        # Two bottles of a litre and a half do not fit into one hand.
        light = shop.stock.products[gtin].weight_g < 600.0
        n = 2 if light and random.random() < scenario.two_piece_probability else 1
        lying = shop.stock.take(plate, gtin, n, random)
        if not lying:
            break
        yield from take_hold(shop, person, plate, lying, -1)
        held = [Held(resting.piece, plate) for resting in lying]
        person.basket += held
        taken += held
    person.standing = None


def _wait_for_the_other(person: Person, meeting: Meeting) -> Iterator[None]:
    """Wait, for up to six seconds, until both people of a meeting are at the shelf."""
    person.meeting = None
    meeting.ready += 1
    for _ in range(60):
        if meeting.ready >= meeting.expected:
            break
        yield
    yield from pause(float(person.random.uniform(0.0, 0.5)))


def _choose_plate(shop: Shop, person: Person) -> int:
    """A plate with goods that can be reached, rather near than far, or beside one that another person heads for."""
    random, shelves = person.random, shop.shelves
    full = [
        plate for plate, stands in enumerate(shop.floor.stands) if len(stands) and any(shop.stock.on[plate].values())
    ]
    if not full:
        return -1
    centres_m = shelves.centres_m[full]
    others = [
        other
        for other in shop.present
        if other is not person and other.going_for >= 0 and other.meeting is None and other.role != "staff"
    ]
    if others and random.random() < shop.scenario.neighbour_probability:
        other = others[int(random.integers(len(others)))]
        gap_m = np.linalg.norm(centres_m - shelves.centres_m[other.going_for], axis=1)
        same_side = shelves.backs[full] @ shelves.backs[other.going_for] > 0.9
        near = [full[i] for i in np.flatnonzero((gap_m < 0.7) & same_side)]
        if near:
            person.meeting = other.meeting = Meeting()
            return near[int(random.integers(len(near)))]
    distance_m = np.linalg.norm(centres_m[:, :2] - person.position, axis=1)
    # The lowest and highest shelves are used half as often (labelled recordings, by shelf level).
    awkward = (centres_m[:, 2] < 0.45) | (centres_m[:, 2] > person.stature_m)
    weight = (np.exp(-distance_m / 2.5) + 0.1) * np.where(awkward, 0.5, 1.0)
    return full[int(random.choice(len(full), p=weight / weight.sum()))]


def _put_back(shop: Shop, person: Person, held: Held) -> Iterator[None]:
    """Bring a piece back to its plate, or to a wrong one."""
    random, shelves, stock = person.random, shop.shelves, shop.stock
    plate = held.origin
    if random.random() < shop.scenario.wrong_place_probability:
        gap_m = np.linalg.norm(shelves.centres_m - shelves.centres_m[held.origin], axis=1)
        home = stock.home[held.piece.gtin]
        away = [i for i in np.argsort(gap_m).tolist() if i not in home and len(shop.floor.stands[i])]
        near = away[:6] if random.random() < 0.5 else away
        if near:
            plate = near[int(random.integers(len(near)))]
    room_g = shop.store.plates[plate].capacity_g - stock.load_g(plate)
    if room_g < 2.0 * held.piece.weight_g or not (yield from go_to_shelf(shop, person, plate)):
        return
    yield from look_around(shop, person, float(random.gamma(1.5, 0.3)))
    person.basket.remove(held)
    yield from take_hold(shop, person, plate, [stock.lay(held.piece, plate)], +1)
    person.standing = None
