"""Where to walk once more: which part of the floor a calibration lacks people on, by the name of what stands there.

A camera is tied to the others by people that both see. One that is badly tied lacks them in a part of its own view; one
that has no place at all looks, as likely as not, at the floor that the placed cameras see least.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fusion.setup.coverage import HEIGHT_M, Sight, standable
from fusion.setup.self_calibration import CameraTie
from fusion.store.models import Camera, Plate, Store

# Floor within this of a located person was walked on, metres.
WALKED_M = 0.6
# A part of the floor that is smaller is no place to walk along, square metres.
PART_MIN_M2 = 0.4
# What stands within this of a part of the floor names it, metres.
NEAR_M = 1.5
# Plates of one shelf: the same direction to this angle, and this near to each other along and across the shelf.
_YAW_APART, _ALONG_M, _ACROSS_M = math.radians(5.0), 0.5, 0.3


def walk_advice(
    store: Store, cameras: Sequence[Camera], ties: Sequence[CameraTie], places_m: NDArray[np.float64]
) -> tuple[str, ...]:
    """One sentence for each camera that is badly tied or has no place: where to walk; none where all are well tied.

    Args:
        store: its floor, obstacles, plates, gates and zones.
        cameras: those that have a place, in the store's frame.
        ties: of all cameras.
        places_m: (n, 2) where people were located, store frame.
    """
    wanting = [tie for tie in ties if tie.fault is not None]
    if not wanting or not cameras:
        return ()
    placed = store.model_copy(update={"cameras": tuple(cameras)})
    cells_m, cell_m = standable(placed)
    if not len(cells_m):
        return ()
    seen = Sight(placed).sees(np.column_stack([cells_m, np.full(len(cells_m), HEIGHT_M)]))
    walked = _near(cells_m, places_m, WALKED_M)
    names = [camera.name for camera in cameras]
    advice = []
    for tie in wanting:
        if tie.name in names:
            own = seen[names.index(tie.name)]
            where = own & (seen.sum(axis=0) >= 2)
        else:
            where = seen.sum(axis=0) < 2
        part = _largest(cells_m, where & ~walked, cell_m)
        if part is not None:
            advice.append(f"camera {tie.name}: walk once {place_name(store, part)}, slowly and there and back")
    return tuple(advice)


def place_name(store: Store, part_m: NDArray[np.float64]) -> str:
    """What a part of the floor (n, 2) is called: the shelf, gate or zone that it lies along, or its middle."""
    nearest: list[tuple[float, str]] = []
    for shelf in shelves(store.plates):
        fronts = np.array([_front_m(plate) for plate in shelf])
        share = float(_near(part_m, fronts, NEAR_M).mean())
        between = f"{shelf[0].plate} to {shelf[-1].plate}" if len(shelf) > 1 else shelf[0].plate
        nearest.append((share, f"along the shelf of plates {between}"))
    for gate in store.gate:
        ends = np.linspace(gate.line[0], gate.line[1], 5)
        nearest.append((float(_near(part_m, ends, NEAR_M).mean()), f"at the gate {gate.id}"))
    for zone in store.zone:
        middle = np.mean(zone.polygon, axis=0, keepdims=True)
        nearest.append((float(_near(part_m, middle, NEAR_M).mean()), f"in the zone {zone.id}"))
    best = max(nearest, default=(0.0, ""))
    if best[0] >= 0.25:
        return best[1]
    x, y = part_m.mean(axis=0).tolist()
    return f"around x = {x:.1f}, y = {y:.1f}"


def shelves(plates: Sequence[Plate]) -> list[list[Plate]]:
    """Plates in one direction, side by side or above each other, in the order of the file."""
    groups: list[list[Plate]] = []
    for plate in plates:
        joined = [group for group in groups if any(_are_beside(plate, other) for other in group)]
        groups = [group for group in groups if group not in joined]
        groups.append([*(one for group in joined for one in group), plate])
    order = {plate.plate: index for index, plate in enumerate(plates)}
    return [sorted(group, key=lambda plate: order[plate.plate]) for group in groups]


def _are_beside(a: Plate, b: Plate) -> bool:
    turn = abs(math.remainder(a.yaw - b.yaw, 2.0 * math.pi))
    if turn > _YAW_APART:
        return False
    c, s = math.cos(a.yaw), math.sin(a.yaw)
    dx, dy = b.x - a.x, b.y - a.y
    along, across = abs(c * dx + s * dy), abs(-s * dx + c * dy)
    return along <= 0.5 * (a.width + b.width) + _ALONG_M and across <= _ACROSS_M


def _front_m(plate: Plate) -> tuple[float, float]:
    """Where a person stands who takes from a plate: an arm's length before its front."""
    away = plate.depth / 2 + 0.4
    return plate.x + math.sin(plate.yaw) * away, plate.y - math.cos(plate.yaw) * away


def _near(points_m: NDArray[np.float64], others_m: NDArray[np.float64], limit_m: float) -> NDArray[np.bool_]:
    """(n,) whether points (n, 2) lie within a distance of any of others (m, 2)."""
    from scipy.spatial import cKDTree

    others_m = others_m[np.isfinite(others_m).all(axis=1)]
    if not len(others_m):
        return np.zeros(len(points_m), np.bool_)
    distance, _ = cKDTree(others_m).query(points_m, distance_upper_bound=limit_m)
    return np.asarray(np.isfinite(distance))


def _largest(cells_m: NDArray[np.float64], chosen: NDArray[np.bool_], cell_m: float) -> NDArray[np.float64] | None:
    """The largest connected part (n, 2) of some cells; None where all parts are too small."""
    from scipy.ndimage import label

    if not chosen.any():
        return None
    index = np.rint((cells_m - cells_m.min(axis=0)) / cell_m).astype(np.int64)
    grid = np.zeros(tuple((index.max(axis=0) + 1).tolist()), np.bool_)
    grid[tuple(index[chosen].T)] = True
    parts, _ = label(grid, np.ones((3, 3)))
    of_cell = parts[tuple(index.T)] * chosen
    counts = np.bincount(of_cell)
    counts[0] = 0
    largest = int(np.argmax(counts))
    return cells_m[of_cell == largest] if counts[largest] * cell_m**2 >= PART_MIN_M2 else None
