"""Checks of a store's cameras: where they hang, their lenses, and whether they look at the floor."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fusion.setup.coverage import STATURE_M, Sight
from fusion.setup.findings import Finding
from fusion.simulation.optics import Lens
from fusion.store.lenses import TANGENT_MAX, distort, ray_limits
from fusion.store.models import Camera, Store
from fusion.store.shapes import edge_distance_m, inside_polygon, points_inside

# A camera hangs on a wall or a ceiling of the store. Farther from the floor than this, or than the floor is long, its
# translation is in another unit, or it belongs to another store.
OUTSIDE_MAX_M = 10.0
# Two cameras do not hang in one place.
APART_MIN_M = 0.02
# Points a side of the grid on which a camera's aim is judged, and their height.
_GRID_POINTS, _GRID_HEIGHT_M = 40, 1.0


def camera_findings(store: Store) -> Iterator[Finding]:
    """What is wrong with each camera, whatever the others see."""
    if not store.cameras:
        yield Finding("note", "no-cameras", "cameras.toml", "no cameras, so no shelf event is attributed to a person")
        return
    sight = Sight(store)
    for number, (camera, lens) in enumerate(zip(store.cameras, sight.lenses)):
        yield from _place_findings(store, camera, lens)
        for other, other_lens in zip(store.cameras[:number], sight.lenses):
            apart_m = float(np.linalg.norm(other_lens.centre_m - lens.centre_m))
            if apart_m < APART_MIN_M and np.allclose(other_lens.rotation, lens.rotation):
                message = f"want a place and a direction of its own, got those of {other.name}"
                yield Finding("error", "camera-twice", f"camera {camera.name}", message)
        yield from _lens_findings(camera, lens)
    yield from _aim_findings(store, sight)


def _place_findings(store: Store, camera: Camera, lens: Lens) -> Iterator[Finding]:
    corners = np.array(store.floor)
    limit_m = max(OUTSIDE_MAX_M, float(np.linalg.norm(corners.max(axis=0) - corners.min(axis=0))))
    x, y, z = lens.centre_m.tolist()
    place = f"({x:.2f}, {y:.2f}, {z:.2f})"
    off_m = 0.0 if inside_polygon(store.floor, x, y) else edge_distance_m(store.floor, x, y)
    subject = f"camera {camera.name}"
    if z <= 0.0:
        yield Finding("error", "camera-below-floor", subject, f"want it above the floor, got it at {place}")
    elif math.hypot(off_m, z) > limit_m:
        message = f"want it within {limit_m:.0f} m of the floor, got it at {place} (another unit, or the camera's pose "
        message += "in the world where the world's pose in the camera is due?)"
        yield Finding("error", "camera-far-off", subject, message)


def _lens_findings(camera: Camera, lens: Lens) -> Iterator[Finding]:
    subject = f"camera {camera.name}"
    (fx, _, cx), (_, fy, cy), _ = camera.matrix
    width, height = camera.size
    if not (0 < cx < width and 0 < cy < height):
        message = f"want the principal point inside the {width} x {height} picture, got ({cx:g}, {cy:g})"
        yield Finding("warning", "camera-off-centre", subject, message)
    if not 0.8 < fx / fy < 1.25:
        message = f"want nearly square pixels, got focal lengths of {fx:g} and {fy:g}"
        yield Finding("warning", "camera-aspect", subject, message)
    if camera.fisheye:
        # The picture of a fisheye may be a circle inside the image; its corners are black.
        return
    # Beyond the radius where the distortion polynomial folds back, pixels have no ray.
    limit = min(float(ray_limits(lens.row)[0]), TANGENT_MAX) * (1 - 1e-9)
    around = np.linspace(0.0, 2 * np.pi, 24, endpoint=False)
    shown_px = distort(lens.row, limit * np.stack([np.cos(around), np.sin(around)], axis=-1)[None])[0]
    folds_at = float(np.hypot((shown_px[:, 0] - cx) / fx, (shown_px[:, 1] - cy) / fy).max())
    corner = max(math.hypot((x - cx) / fx, (y - cy) / fy) for x in (0, width - 1) for y in (0, height - 1))
    if folds_at < corner:
        message = f"want distortions that hold to the picture's corners {corner * fx:.0f} px off, got ones that fold "
        message += f"back {folds_at * fx:.0f} px from its middle: calibrate with points near the edges"
        yield Finding("warning", "lens-folds", subject, message)


def _aim_findings(store: Store, sight: Sight) -> Iterator[Finding]:
    """Cameras that have nothing of the floor in the picture, or see none of it past the obstacles."""
    grid_m = _floor_grid_m(store)
    in_picture = Sight(store.model_copy(update={"obstacle": type(store.obstacle)()})).sees(grid_m)
    in_sight = sight.sees(grid_m)
    for view, (camera, lens) in enumerate(zip(store.cameras, sight.lenses)):
        if lens.centre_m[2] <= 0.0:
            continue
        if not in_picture[view].any():
            message = _looks_away(lens, grid_m, float(sight.range_m[view]))
            yield Finding("error", "camera-looks-away", f"camera {camera.name}", message)
        elif not in_sight[view].any():
            message = "want an open view of some of the floor, got all of it hidden by obstacles"
            yield Finding("error", "camera-blocked", f"camera {camera.name}", message)


def _floor_grid_m(store: Store) -> NDArray[np.float64]:
    """(n, 3) points over the floor."""
    corners = np.array(store.floor)
    low, high = corners.min(axis=0), corners.max(axis=0)
    axes = (np.linspace(low[axis], high[axis], _GRID_POINTS) for axis in (0, 1))
    x, y = np.meshgrid(*axes, indexing="ij")
    on_floor = points_inside(store.floor, x, y)
    return np.column_stack([x[on_floor], y[on_floor], np.full(int(on_floor.sum()), _GRID_HEIGHT_M)])


def _looks_away(lens: Lens, grid_m: NDArray[np.float64], range_m: float) -> str:
    down_deg = math.degrees(math.asin(-min(1.0, max(-1.0, float(lens.rotation[2][2])))))
    nearest_m = float(np.linalg.norm(grid_m - lens.centre_m, axis=1).min()) if len(grid_m) else 0.0
    message = f"want some of the floor in the picture, got none: it looks {abs(down_deg):.0f} degrees "
    message += "down" if down_deg >= 0 else "up"
    if nearest_m > range_m:
        message += f", and people of {STATURE_M:g} m are large enough for a detector only within {range_m:.0f} m"
    return message
