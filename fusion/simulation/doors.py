"""Coming in and leaving: the queue, the scan, the gate's line, the payment zone, the antenna at the exit."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from fusion.simulation.body import CHANNEL
from fusion.simulation.events import Scan, TagRead
from fusion.simulation.floor import Passage
from fusion.simulation.person import Person
from fusion.simulation.reaching import reach_out
from fusion.simulation.shop import Shop
from fusion.simulation.walking import head_for, look_around, walk
from fusion.store.shapes import inside_polygon


def come_in(shop: Shop, person: Person, gate: Passage) -> Iterator[None]:
    """Queue before an entry, scan unless a tailgater, walk through."""
    random = person.random
    queue = shop.queues[gate.gate.id]
    while True:
        place = queue.index(person)
        spot = gate.at(-0.75 - 0.65 * place, person.lane)
        head_for(person, spot)
        person.face = math.atan2(gate.inward[1], gate.inward[0])
        if place == 0 and (person.role == "tailgater" or math.dist(spot, person.position) < 0.2):
            break
        yield
    if person.role != "tailgater" and _asks_for_scan(gate) and person.account is not None:
        pause_s = float(random.uniform(0.5, 1.3))
        _scan(shop, person, gate, shop.now_s + 0.7 * pause_s)
        person.pose[CHANNEL["head_pitch"]] = 0.5
        reader = gate.at(-0.25) + 0.35 * np.array([gate.inward[1], -gate.inward[0]])
        yield from reach_out(shop, person, reader, 1.0, pause_s)
        person.pose[CHANNEL["head_pitch"]] = 0.0
    else:
        person.account = person.account if person.role == "staff" else None
    person.face = None
    inside = gate.at(0.6, person.lane)
    for _ in range(150):
        head_for(person, inside, brake=False)
        if math.dist(inside, person.position) < 0.35:
            break
        if float((person.position - gate.middle) @ gate.inward) > 0.25 and person in queue:
            queue.remove(person)
        yield
    if person in queue:
        queue.remove(person)
    if person.entered_s is None:
        person.entered_s = shop.now_s


def leave(shop: Shop, person: Person, antenna: np.random.Generator) -> Iterator[None]:
    """Pay where there is a zone for it, walk to the exit and through it, out of sight."""
    person.standing, person.going_for = None, -1
    if person.has_visit and person.role != "tailgater":
        yield from _pay(shop, person)
    if person.exit is None:
        yield from walk(shop, person, shop.floor.edge_point(person.random), within_m=0.4, patience_s=30.0)
        return
    gate = person.exit
    start = shop.floor.nearest_open(gate.at(0.5, person.lane))
    for _ in range(20):
        if (yield from walk(shop, person, start, within_m=0.35, patience_s=5.0)):
            break
    person.confined, person.leaving = False, True
    _read_tags(shop, person, gate, antenna)
    if _asks_for_scan(gate) and person.account is not None:
        _scan(shop, person, gate, shop.now_s)
    for away in (-0.5, -1.9):
        for _ in range(100):
            head_for(person, gate.at(away, person.lane), brake=False)
            if float((person.position - gate.at(away)) @ gate.inward) < 0.15:
                break
            yield


def _pay(shop: Shop, person: Person) -> Iterator[None]:
    """Walk to a payment zone and look at the phone."""
    zones = [zone.polygon for zone in shop.store.zone if zone.kind == "payment"]
    if not zones:
        return
    polygon = zones[int(person.random.integers(len(zones)))]
    corners = np.array(polygon)
    for _ in range(20):
        spot = person.random.uniform(corners.min(axis=0), corners.max(axis=0))
        if inside_polygon(polygon, *spot) and shop.floor.is_open(spot):
            if shop.time_for(person, errand_s=3.0):
                yield from walk(shop, person, spot, within_m=0.3, patience_s=4.0)
                yield from look_around(shop, person, float(person.random.uniform(1.0, 3.0)), down=True)
            return


def _asks_for_scan(gate: Passage) -> bool:
    return tuple(gate.gate.credentials) != ("open",)


def _scan(shop: Shop, person: Person, gate: Passage, t_s: float) -> None:
    assert person.account is not None
    kind = "staff" if person.role == "staff" else "account"
    shop.log.scans.add(t_s, Scan(t_s, gate.gate.id, kind, person.account))


def _read_tags(shop: Shop, person: Person, gate: Passage, antenna: np.random.Generator) -> None:
    share = shop.scenario.exit_read_probability
    for held in person.basket if share else ():
        if antenna.random() < share:
            shop.log.reads.add(shop.now_s, TagRead(shop.now_s, gate.gate.id, held.piece.gtin))
