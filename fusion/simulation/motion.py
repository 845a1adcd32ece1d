"""One tick of everyone's movement: towards where they want to be, around each other, not through shelves."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fusion.simulation import body
from fusion.simulation.body import CHANNEL
from fusion.simulation.floor import FloorPlan
from fusion.simulation.person import Person
from fusion.simulation.shop import Shop
from fusion.simulation.ticks import TICK_S

# Between the axes of two people who pass, and of two who turn their shoulders because nothing else helps.
_BODY_GAP_M = 0.40
_SQUEEZE_GAP_M = 0.26
_ACCELERATION_MPS2 = 4.0
_TURN_RADPS = 4.0


def move_people(shop: Shop) -> None:
    """Advance the people present by one tick; their scripts have set where they want to go."""
    people = shop.present
    if not people:
        return
    place = np.array([person.position for person in people])
    wanted = np.array([person.desired for person in people])
    velocity = np.array([person.velocity for person in people])
    anchored = np.array([person.anchored for person in people])
    squeezing = np.array([person.blocked_s > 1.2 for person in people])
    if len(people) > 1:
        wanted = _give_way(place, wanted, anchored, squeezing)
    change = wanted - velocity
    size = np.hypot(change[:, 0], change[:, 1])
    velocity = velocity + change * np.minimum(1.0, _ACCELERATION_MPS2 * TICK_S / np.maximum(size, 1e-9))[:, None]
    velocity[anchored] = 0.0
    target = place + velocity * TICK_S
    if len(people) > 1:
        target = _separate(target, anchored, squeezing)
    for person, old, pushed in zip(people, place, target):
        new = _keep_off_shelves(person, old, pushed, shop.floor)
        _cross_gates(person, old, new, shop)
        person.velocity = (new - old) / TICK_S
        person.position = new
        speed_mps = math.hypot(*person.velocity)
        eager_mps = math.hypot(*person.desired)
        stuck = eager_mps > 0.3 and speed_mps < 0.3 * eager_mps
        person.blocked_s = person.blocked_s + TICK_S if stuck else max(0.0, person.blocked_s - 2 * TICK_S)
        _update_pose(person, speed_mps, shop.now_s)


def _give_way(
    place: NDArray[np.float64],
    wanted: NDArray[np.float64],
    anchored: NDArray[np.bool_],
    squeezing: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Velocities (n, 2) that slow down behind others and step around those in the way."""
    offset = place[None] - place[:, None]
    distance = np.hypot(offset[..., 0], offset[..., 1])
    np.fill_diagonal(distance, np.inf)
    speed = np.hypot(wanted[:, 0], wanted[:, 1])
    heading = wanted / np.maximum(speed, 1e-9)[:, None]
    ahead = np.einsum("ijk,ik->ij", offset, heading) / distance
    to_left = heading[:, None, 0] * offset[..., 1] - heading[:, None, 1] * offset[..., 0]
    in_way = (distance < 1.1) & (ahead > 0.5) & (np.abs(to_left) < 0.5) & (speed > 0.05)[:, None]
    room = np.where(in_way, np.clip((distance - 0.45) / 0.6, 0.0, 1.0), 1.0)
    nearest = np.argmin(np.where(in_way, distance, np.inf), axis=1)
    rows = np.arange(len(place))
    free = room.min(axis=1)
    # People who come from ahead are passed on the right, people who stand on the side where there is more room.
    side = np.where(to_left[rows, nearest] < -0.05, 1.0, -1.0)
    left = np.stack([-heading[:, 1], heading[:, 0]], -1)
    slowed: NDArray[np.float64] = wanted * np.where(squeezing, np.maximum(free, 0.5), np.maximum(free, 0.1))[:, None]
    slowed += left * (side * (1.0 - free) * 0.7 * speed)[:, None]
    near = np.clip(0.6 - distance, 0.0, 0.6)
    push = -(offset / np.maximum(distance, 1e-6)[..., None] * near[..., None]).sum(axis=1)
    slowed += np.where(squeezing, 0.5, 1.5)[:, None] * push
    slowed[anchored] = 0.0
    return slowed


def _separate(
    place: NDArray[np.float64], anchored: NDArray[np.bool_], squeezing: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Keep bodies apart: of two that overlap, an anchored one stays and the other gives way."""
    gap_m = np.where(squeezing[:, None] | squeezing[None], _SQUEEZE_GAP_M, _BODY_GAP_M)
    for _ in range(3):
        offset = place[None] - place[:, None]
        distance = np.hypot(offset[..., 0], offset[..., 1])
        np.fill_diagonal(distance, np.inf)
        overlap = np.clip(gap_m - distance, 0.0, None)
        share = np.where(anchored[None], 1.0, 0.5) * ~anchored[:, None]
        place = place - (offset / np.maximum(distance, 1e-6)[..., None] * (overlap * share)[..., None]).sum(axis=1)
    return place


def _keep_off_shelves(
    person: Person, old: NDArray[np.float64], new: NDArray[np.float64], floor: FloorPlan
) -> NDArray[np.float64]:
    allowed = floor.shopping if person.confined else floor.passable
    if allowed[floor.cell(new)]:
        return new
    for slid in (np.array([new[0], old[1]]), np.array([old[0], new[1]])):
        if allowed[floor.cell(slid)]:
            return slid
    if allowed[floor.cell(old)]:
        return old
    # Pushed to a place where people may not be: move towards the open floor.
    step = floor.nearest_open(old) - old
    back: NDArray[np.float64] = old + step * min(1.0, 0.1 / max(math.hypot(*step), 1e-9))
    return back


def _cross_gates(person: Person, old: NDArray[np.float64], new: NDArray[np.float64], shop: Shop) -> None:
    for passage in shop.floor.passages:
        crossing = passage.crossing(old, new)
        if crossing is None:
            continue
        t_s = shop.now_s - TICK_S + crossing.share * TICK_S
        if crossing.inward and person.entered_s is None:
            person.entered_s = t_s
        elif not crossing.inward and person.leaving:
            person.left_s = t_s


def _update_pose(person: Person, speed_mps: float, now_s: float) -> None:
    """Heading, gait and arms follow from the movement."""
    if person.face is not None and (person.anchored or speed_mps < 0.4):
        aim: float | None = person.face
    else:
        aim = math.atan2(person.velocity[1], person.velocity[0]) if speed_mps > 0.2 else None
    if aim is not None:
        person.yaw += float(np.clip(body.turn(aim - person.yaw), -_TURN_RADPS * TICK_S, _TURN_RADPS * TICK_S))
    pose = person.pose
    stride = 0.19 * math.sqrt(min(speed_mps / 1.2, 1.4)) if speed_mps > 0.05 else 0.0
    pose[CHANNEL["stride"]] += 0.5 * (stride - pose[CHANNEL["stride"]])
    if speed_mps > 0.05:
        step_m = 2.0 * max(pose[CHANNEL["stride"]], 0.04) * person.stature_m
        pose[CHANNEL["phase"]] += math.pi * speed_mps * TICK_S / step_m
    for side in ("l", "r"):
        holds = person.carrying_hand == side and now_s < person.carrying_until_s
        carry = pose[CHANNEL[f"carry_{side}"]]
        pose[CHANNEL[f"carry_{side}"]] = carry + float(np.clip(float(holds) - carry, -0.25, 0.25))
    pose[CHANNEL["x"]], pose[CHANNEL["y"]] = person.position
    pose[CHANNEL["vx"]], pose[CHANNEL["vy"]] = person.velocity
    pose[CHANNEL["yaw"]] = person.yaw
