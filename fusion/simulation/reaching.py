"""What hands do: reach to a plate, lift or put down pieces, touch, scan, pass things on."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fusion.simulation import body
from fusion.simulation.body import CHANNEL
from fusion.simulation.events import Handling, Load, Movement
from fusion.simulation.goods import Resting
from fusion.simulation.person import Held, Person
from fusion.simulation.shop import Shop
from fusion.simulation.walking import face, head_for

_HAND_AT = [CHANNEL["tx"], CHANNEL["ty"], CHANNEL["tz"]]


@dataclass(frozen=True)
class _Contact:
    """What happens to pieces at a plate at one instant of a reach, `share` of the way through the hold."""

    lying: list[Resting]
    sign: Literal[-1, 1]  # -1: taken, +1: put down
    share: float


def take_hold(shop: Shop, person: Person, plate: int, lying: list[Resting], sign: Literal[-1, 1]) -> Iterator[None]:
    """Reach to a plate; the pieces leave it (sign -1) or come to lie on it (+1) while the hand is there."""
    random = person.random
    hold_s = float(np.clip(random.lognormal(math.log(0.45), 0.45), 0.2, 2.5))
    # A hand closes on a piece before it lifts it, and stays a moment after putting it down.
    share = float(random.uniform(0.45, 0.85) if sign < 0 else random.uniform(0.15, 0.5))
    odd = shop.scenario.odd_reach_probability
    usual_hand = person.hand
    if odd and random.random() < odd:
        if random.random() < 0.5:
            person.hand = "l" if person.hand == "r" else "r"
        else:
            # Held on its plate while the person thinks or reads: the hand is there long before the load is lifted.
            hold_s, share = float(random.uniform(2.0, 6.0)), 0.9 if sign < 0 else 0.1
    if sign > 0:
        person.carrying_hand, person.carrying_until_s = person.hand, shop.now_s + 3.0
    press_g = float(random.normal(0.0, 25.0))
    yield from reach_plate(shop, person, plate, hold_s, press_g, _Contact(lying, sign, share))
    if sign < 0:
        person.carrying_hand = person.hand
        person.carrying_until_s = shop.now_s + float(random.uniform(1.0, 6.0))
    else:
        person.carrying_until_s = -1.0
    person.hand = usual_hand


def touch(shop: Shop, person: Person, plate: int) -> Iterator[None]:
    """Press, nudge or lean on a plate nearby and take nothing."""
    random = person.random
    near = [plate, *shop.shelves.beside[plate]]
    chosen = near[int(random.integers(len(near)))]
    lean = random.random() < 0.2
    hold_s = float(random.uniform(2.0, 8.0)) if lean else float(random.uniform(0.3, 1.2))
    press_g = float(random.uniform(50.0, 600.0)) if lean else float(random.normal(0.0, 60.0))
    yield from reach_plate(shop, person, chosen, hold_s, press_g)


def reach_plate(
    shop: Shop, person: Person, plate: int, hold_s: float, press_g: float, contact: _Contact | None = None
) -> Iterator[None]:
    """Turn to a plate and hold a hand to it; what happens to pieces meanwhile is logged ahead."""
    random, shelves = person.random, shop.shelves
    width, depth = shelves.width_m[plate], shelves.depth_m[plate]
    aside = float(random.uniform(-0.35, 0.35)) * width
    deep = -0.5 * depth + float(random.uniform(0.04, 0.6)) * min(depth, 0.45)
    spot = shelves.centres_m[plate, :2] + aside * shelves.across[plate] + deep * shelves.backs[plate]
    height = float(shelves.centres_m[plate, 2] + random.uniform(0.03, 0.14))
    yield from turn_to(person, spot)
    raise_s = float(random.uniform(0.45, 0.9)) + (0.3 if height < 0.6 else 0.0)
    touch_s = shop.now_s + 0.95 * raise_s
    end_s = shop.now_s + raise_s + hold_s
    shop.log.handlings.add(touch_s, Handling(touch_s, end_s + 0.1, plate, press_g))
    if contact is not None:
        _log_contact(shop, person, plate, contact, shop.now_s + raise_s + contact.share * hold_s)
    yield from reach_out(shop, person, spot, height, hold_s, raise_s)
    person.anchored, person.face = False, None


def turn_to(person: Person, spot: NDArray[np.float64]) -> Iterator[None]:
    """Stand still and turn to a place on the floor; both hold until the person is let go."""
    person.anchored = True
    heading = math.atan2(*(spot - person.position)[::-1])
    person.face = heading
    for _ in range(25):
        if abs(body.turn(heading - person.yaw)) < 0.2:
            break
        yield


def _log_contact(shop: Shop, person: Person, plate: int, contact: _Contact, t_s: float) -> None:
    loads: defaultdict[int, float] = defaultdict(float)
    for resting in contact.lying:
        for bearing, grams in resting.loads():
            loads[bearing] += contact.sign * grams
    shop.log.loads.add(t_s, Load(t_s, tuple(sorted(loads.items()))))
    quantity = contact.sign * len(contact.lying)
    gtin = contact.lying[0].piece.gtin
    shop.log.movements.add(t_s, Movement(t_s, plate, gtin, quantity, person.account))


def reach_out(
    shop: Shop, person: Person, spot: NDArray[np.float64], height_m: float, hold_s: float, raise_s: float = 0.4
) -> Iterator[None]:
    """Stretch the arm to a point, stay there for hold_s, draw it back."""
    pose, hand = person.pose, person.hand
    sign = 1.0 if hand == "l" else -1.0
    aside = 0.7 * body.SHOULDER_HALF * person.stature_m
    distance = math.dist(spot, person.position)
    crouch, lean = body.posture(person.stature_m, distance, height_m, aside)
    lower_s = float(person.random.uniform(0.4, 0.8)) + (0.3 if crouch > 0.05 else 0.0)
    pose[_HAND_AT] = spot[0], spot[1], height_m
    start_s = shop.now_s
    twist = -sign * 0.35
    while True:
        t = shop.now_s - start_s
        if t <= raise_s:
            w = _ease(t / raise_s)
        elif t <= raise_s + hold_s:
            w = 1.0
        else:
            w = _ease(1.0 - (t - raise_s - hold_s) / lower_s)
        pose[CHANNEL[f"reach_{hand}"]] = w
        pose[CHANNEL["crouch"]], pose[CHANNEL["lean"]], pose[CHANNEL["twist"]] = w * crouch, w * lean, w * twist
        if t > raise_s + hold_s + lower_s:
            return
        yield


def hand_over(shop: Shop, person: Person, things: list[Held]) -> Iterator[None]:
    """Bring things to a companion and pass them on, one hand meeting the other."""
    mates = [
        mate
        for mate in person.group
        if mate is not person and mate in shop.present and mate.confined and not mate.leaving
    ]
    if not mates:
        return
    mate = mates[int(person.random.integers(len(mates)))]
    yield from _approach(shop, person, mate)
    gap = math.dist(mate.position, person.position)
    person.face = None
    if gap > 0.95 or mate.anchored or mate.leaving or not shop.is_free(mate):
        return
    yield from _hands_meet(shop, person, mate)
    for thing in things:
        if thing in person.basket:
            person.basket.remove(thing)
            mate.basket.append(thing)
    mate.carrying_hand, mate.carrying_until_s = mate.hand, shop.now_s + 3.0
    person.carrying_until_s = -1.0


def _approach(shop: Shop, person: Person, mate: Person) -> Iterator[None]:
    """Walk up to a companion and wait until their hands are free."""
    for _ in range(120):
        gap = math.dist(mate.position, person.position)
        if gap < 0.8 or not shop.time_for(person, 6.0):
            break
        waypoint = shop.floor.path(person.position, shop.floor.nearest_open(mate.position))[0]
        head_for(person, waypoint if gap > 1.2 else mate.position, brake=gap < 1.0)
        yield
    for _ in range(50):
        if not mate.anchored:
            break
        face(person, mate.position)
        yield


def _hands_meet(shop: Shop, person: Person, mate: Person) -> Iterator[None]:
    mate.frozen_until_s = shop.now_s + 1.6
    was_facing = mate.face
    middle = 0.5 * (mate.position + person.position)
    person.anchored = mate.anchored = True
    face(person, middle)
    face(mate, middle)
    height = 0.62 * min(person.stature_m, mate.stature_m)
    for k in range(15):
        w = _ease(min(k, 14 - k) / 5.0)
        for either in (person, mate):
            either.pose[_HAND_AT] = middle[0], middle[1], height
            either.pose[CHANNEL[f"reach_{either.hand}"]] = w
        yield
    for either in (person, mate):
        either.pose[CHANNEL[f"reach_{either.hand}"]] = 0.0
        either.anchored = False
    person.face, mate.face = None, was_facing


def _ease(share: float) -> float:
    """0 to 1 with the smooth speed of a hand (minimum jerk; Flash & Hogan 1985)."""
    s = min(max(share, 0.0), 1.0)
    return s * s * s * (10.0 - 15.0 * s + 6.0 * s * s)
