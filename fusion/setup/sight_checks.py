"""Checks of what a store's cameras see together: plates, gates and floor that too few of them see."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fusion.setup.coverage import HEIGHT_M, STATURE_M, VIEWS_MIN, Coverage, Sight, hands_m
from fusion.setup.findings import Finding, name_list
from fusion.simulation.floor import BODY_RADIUS_M, FloorPlan
from fusion.store.models import Gate, Store

# A part of the floor that is this large hides a person who stands in it.
BLIND_MIN_M2 = 0.25
# Parts of the floor that are named, each by a finding of its own.
BLIND_PARTS_MAX = 5
# Places along a gate's line at which people cross it.
GATE_PLACES = 5


def sight_findings(store: Store, coverage: Coverage) -> Iterator[Finding]:
    """Plates, gates and parts of the floor that fewer than two cameras see."""
    if not store.cameras:
        return
    sight = Sight(store)
    yield from _plate_findings(store, sight)
    for gate in store.gate:
        yield from _gate_findings(sight, gate)
    yield from _floor_findings(coverage)


def _plate_findings(store: Store, sight: Sight) -> Iterator[Finding]:
    hands = hands_m(store.plates)
    behind_back = []
    for plate, seen, hand_m, stand_m in zip(store.plates, sight.sees(hands).T, hands, _stands_m(store)):
        subject = f"plate {plate.plate}"
        if stand_m is None:
            yield Finding("warning", "plate-out-of-reach", subject, "want room to stand before it, got none")
            continue
        want = f"want {VIEWS_MIN} cameras that see a hand before it, at {hand_m[2]:.2f} m"
        views = np.flatnonzero(seen)
        if not len(views):
            yield Finding("error", "plate-unseen", subject, f"{want}; got none")
        elif len(views) < VIEWS_MIN:
            names = ", ".join(store.cameras[view].name for view in views)
            yield Finding("warning", "plate-unseen", subject, f"{want}; got {names}")
        elif sum(not _behind(sight.lenses[view].centre_m, hand_m, stand_m) for view in views) < VIEWS_MIN:
            behind_back.append(plate.plate)
    if behind_back:
        message = (
            f"at {len(behind_back)} plates fewer than {VIEWS_MIN} cameras see the hand past the shopper's own back: "
        )
        yield Finding("note", "plate-behind-back", "plates", message + name_list(behind_back))


def _gate_findings(sight: Sight, gate: Gate) -> Iterator[Finding]:
    start, end = (np.array(corner) for corner in gate.line)
    along = np.linspace(0.1, 0.9, GATE_PLACES)[:, None]
    places_m = np.column_stack([start + along * (end - start), np.full(GATE_PLACES, HEIGHT_M)])
    n_views = sight.sees(places_m).sum(axis=0)
    fewest = int(n_views.min())
    if fewest < VIEWS_MIN:
        x, y, _ = places_m[int(np.argmin(n_views))]
        message = (
            f"want {VIEWS_MIN} cameras along its line at {HEIGHT_M:g} m, got {fewest or 'none'} at ({x:.2f}, {y:.2f})"
        )
        yield Finding("warning" if fewest else "error", "gate-unseen", f"gate {gate.id}", message)


def _floor_findings(coverage: Coverage) -> Iterator[Finding]:
    parts = [part for part in coverage.blind() if part.area_m2 >= BLIND_MIN_M2]
    for part in parts[:BLIND_PARTS_MAX]:
        message = f"want {VIEWS_MIN} cameras everywhere, got fewer on {part.area_m2:.1f} m2 "
        yield Finding("warning", "floor-unseen", "floor", f"{message}around ({part.x:.2f}, {part.y:.2f})")
    if len(parts) > BLIND_PARTS_MAX:
        area_m2 = sum(part.area_m2 for part in parts[BLIND_PARTS_MAX:])
        message = f"{len(parts) - BLIND_PARTS_MAX} smaller such parts, {area_m2:.1f} m2 in all"
        yield Finding("warning", "floor-unseen", "floor", message)
    shares = ", ".join(f"{coverage.share(n):.1%} by {n} or more" for n in (1, 2, 3))
    yield Finding("note", "coverage", "floor", f"seen at {HEIGHT_M:g} m: {shares}")


def _stands_m(store: Store) -> list[NDArray[np.float64] | None]:
    """(2,) where a shopper stands before each plate; None where there is no room."""
    try:
        stands = FloorPlan(store).stands
    except ValueError:
        return [None] * len(store.plates)
    return [places[0] if len(places) else None for places in stands]


def _behind(camera_m: NDArray[np.float64], hand_m: NDArray[np.float64], stand_m: NDArray[np.float64]) -> bool:
    """Whether a shopper who stands there hides the hand: an upright body in the way of the camera's ray."""
    ray_m = hand_m - camera_m
    length_sq = float(ray_m[:2] @ ray_m[:2])
    if length_sq < 1e-9:
        return False
    along = min(1.0, max(0.0, float((stand_m - camera_m[:2]) @ ray_m[:2]) / length_sq))
    nearest_m = camera_m + along * ray_m
    return bool(np.hypot(*(nearest_m[:2] - stand_m)) < BODY_RADIUS_M and nearest_m[2] < STATURE_M)
