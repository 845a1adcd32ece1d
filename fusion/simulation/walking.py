"""Walking to a place: along the shortest path, around others, to a free place at a shelf."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterator

import numpy as np
from numpy.typing import NDArray

from fusion.simulation.body import CHANNEL
from fusion.simulation.person import Person
from fusion.simulation.shop import Shop
from fusion.simulation.ticks import TICK_S


def walk(
    shop: Shop, person: Person, goal: NDArray[np.float64], within_m: float, patience_s: float = 6.0
) -> Generator[None, None, bool]:
    """Walk to a point around everything in the way; False if others block the way for longer than patience_s."""
    path = deque(shop.floor.path(person.position, goal))
    waited_s, planned_s = 0.0, shop.now_s
    person.blocked_s = 0.0
    while True:
        while len(path) > 1 and math.dist(path[0], person.position) < 0.3:
            path.popleft()
        gap = math.dist(path[-1], person.position)
        if gap < within_m and len(path) == 1:
            person.desired = np.zeros(2)
            return True
        if person.blocked_s > 0.0:
            waited_s += TICK_S
            if waited_s > patience_s:
                return gap < 0.3
            if person.blocked_s > 1.0 and shop.now_s - planned_s > 1.0:
                path, planned_s = deque(shop.floor.path(person.position, goal)), shop.now_s
        head_for(person, path[0], brake=len(path) == 1)
        yield


def go_to_shelf(shop: Shop, person: Person, plate: int) -> Generator[None, None, bool]:
    """Walk to where a plate can be reached; False if there is no free place or the way is blocked."""
    person.standing = None
    spot = _claim(shop, person, plate)
    if spot is None:
        _cancel_meeting(person)
        return False
    person.standing, person.going_for = spot, plate
    arrived = yield from walk(shop, person, spot, within_m=0.08, patience_s=5.0)
    person.going_for = -1
    if not arrived:
        person.standing = None
        _cancel_meeting(person)
    return arrived


def head_for(person: Person, point: NDArray[np.float64], brake: bool = True) -> None:
    """Want to walk straight to a point, slowing down before it if `brake`."""
    offset = point - person.position
    distance = math.hypot(*offset)
    speed = min(person.pace_mps, 2.0 * distance) if brake else person.pace_mps
    person.desired = offset * (speed / distance) if distance > 0.02 else np.zeros(2)


def face(person: Person, point: NDArray[np.float64]) -> None:
    """Turn to a point while standing."""
    person.face = math.atan2(*(point - person.position)[::-1])


def pause(seconds: float) -> Iterator[None]:
    """Do nothing for a while."""
    for _ in range(round(seconds / TICK_S)):
        yield


def look_around(shop: Shop, person: Person, seconds: float, down: bool = False) -> Iterator[None]:
    """Stand and look about, at the nearest shelf if the person stands at one, or down at their hands."""
    if person.standing is not None and person.going_for < 0:
        centres_m = shop.shelves.centres_m[:, :2]
        face(person, centres_m[int(np.argmin(((centres_m - person.position) ** 2).sum(axis=1)))])
    person.pose[CHANNEL["head_pitch"]] = 0.5 if down else float(person.random.uniform(-0.2, 0.5))
    person.pose[CHANNEL["head_yaw"]] = float(person.random.uniform(-0.5, 0.5))
    yield from pause(seconds)
    person.pose[CHANNEL["head_pitch"]] = person.pose[CHANNEL["head_yaw"]] = 0.0
    person.face = None


def _claim(shop: Shop, person: Person, plate: int) -> NDArray[np.float64] | None:
    """A free place at a shelf, the better ones first; None while others stand there."""
    stands = shop.floor.stands[plate]
    taken = [other.standing for other in shop.present if other is not person and other.standing is not None]
    taken += [other.position for other in shop.present if other is not person and other.anchored]
    spots: list[NDArray[np.float64]] = list(stands)
    free = [spot for spot in spots if all(math.dist(spot, place) >= 0.45 for place in taken)]
    if not free:
        return None
    odd = shop.scenario.odd_reach_probability
    if odd and person.random.random() < odd:
        # From any place: beside the plate, at arm's length, past the person in front of it.
        return free[int(person.random.integers(len(free)))]
    # Not everyone stands right in front: the first few places are all good.
    return free[min(int(person.random.geometric(0.45)) - 1, len(free) - 1)]


def _cancel_meeting(person: Person) -> None:
    if person.meeting is not None:
        person.meeting.expected = 1
        person.meeting = None
