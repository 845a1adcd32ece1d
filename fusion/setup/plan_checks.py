"""Checks of a store's floor plan: gates, zones and obstacles."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fusion.setup.findings import Finding
from fusion.store.models import Gate, Store
from fusion.store.shapes import edge_distance_m, inside_polygon

# Points this far to either side of a gate's middle show on which side the floor lies.
_BESIDE_GATE_M = 0.3
# Corners of zones are measured less well than the floor's own.
_ZONE_MARGIN_M = 0.05


def plan_findings(store: Store) -> Iterator[Finding]:
    """What is wrong with gates, zones and obstacles."""
    yield from _zone_findings(store)
    for gate in store.gate:
        yield from _gate_findings(store, gate)
    if store.gate:
        for directions, verb in ((("in", "both"), "comes in"), (("out", "both"), "leaves")):
            if not any(gate.direction in directions for gate in store.gate):
                yield Finding("warning", "one-way", "store.toml", f"want a gate through which one {verb}, got none")
    for number, (x0, y0, x1, y1, _) in enumerate(store.obstacle.boxes, 1):
        middle = (x0 + x1) / 2, (y0 + y1) / 2
        if not inside_polygon(store.floor, *middle, margin_m=max(x1 - x0, y1 - y0)):
            message = f"want it on the floor, got its middle at ({middle[0]:.2f}, {middle[1]:.2f})"
            yield Finding("warning", "obstacle-off-floor", f"obstacle {number}", message)


def _zone_findings(store: Store) -> Iterator[Finding]:
    for zone in store.zone:
        outside = [corner for corner in zone.polygon if not inside_polygon(store.floor, *corner, _ZONE_MARGIN_M)]
        if outside:
            message = (
                f"want corners on the floor, got {len(outside)} of {len(zone.polygon)} outside, such as {outside[0]}"
            )
            yield Finding("warning", "zone-off-floor", f"zone {zone.id}", message)
    if store.payment.mode == "zone" and all(zone.kind != "payment" for zone in store.zone):
        message = 'payment.mode = "zone": want a payment zone, got none'
        yield Finding("error", "no-payment-zone", "store.toml", message)


def _gate_findings(store: Store, gate: Gate) -> Iterator[Finding]:
    """The store lies to the left of a gate's line, so floor is expected there."""
    (ax, ay), (bx, by) = gate.line
    length_m = math.dist(*gate.line)
    left = (ay - by) / length_m, (bx - ax) / length_m
    x, y = (ax + bx) / 2, (ay + by) / 2
    floor_left, floor_right = (
        inside_polygon(store.floor, x + side_m * left[0], y + side_m * left[1])
        for side_m in (_BESIDE_GATE_M, -_BESIDE_GATE_M)
    )
    if floor_right and not floor_left:
        message = "want the store to the left of line[0] -> line[1], got it to the right: swap the two ends"
        yield Finding("error", "gate-reversed", f"gate {gate.id}", message)
    elif not floor_left:
        message = f"want it at the floor, got it {edge_distance_m(store.floor, x, y):.1f} m off"
        yield Finding("error", "gate-off-floor", f"gate {gate.id}", message)
