"""Cameras placed by marks: points whose places in the store are known, such as corners of plates, doors, floor tiles.

A marks file is a CSV: `camera,u_px,v_px,point`. `point` is `x y z` in metres, or a plate and a corner of its surface
as a person sees it who stands before the shelf: `g1s1p01 front_left`, `front_right`, `back_left`, `back_right`. Four
marks that do not lie on one line place a camera with a known lens, six that are not all on one plane find its focal
length and k1 too (perspective-n-point; Hartley and Zisserman, Multiple View Geometry (2004), chapter 7).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

from fusion.errors import ConfigError
from fusion.people.geometry import Rig
from fusion.setup.lenses import FOCAL_SD, RADIAL_SD
from fusion.setup.reprojection import FloatArray
from fusion.setup.self_calibration import CameraTie, SelfCalibration
from fusion.store.models import Camera, Plate, Store
from fusion.store.rotations import rotation_matrix, rotation_vector
from fusion.store.tables import read_table
from fusion.store.values import Finite, StrictModel

MARKS_MIN, MARKS_FOR_LENS_MIN = 4, 6
# A person clicks a mark to this standard deviation, pixels; what is this many of them off loses weight.
_CLICK_PX, _WILD = 1.5, 3.0
# A camera is badly placed where its centre or direction is known to less than this, or its marks are off by more.
_CENTRE_SD_MAX_M, _ROTATION_SD_MAX, _OFF_MAX_PX = 0.05, math.radians(0.5), 6.0
# Where cameras are looked for: directions around the marks, distances and heights in metres.
_AROUND, _DISTANCES_M, _HEIGHTS_M = 8, (2.0, 5.0), (2.3,)
# Steps of the search from everywhere, how many of its results are refined, and steps of that.
_ROUGH_STEPS, _REFINED, _STEPS = 12, 4, 60
# Another place that fits within this factor of the residual, and is this far away, is as likely.
_AS_LIKELY, _ELSEWHERE_M = 1.5, 0.3
_CORNERS = {"front_left": (-0.5, -0.5), "front_right": (0.5, -0.5), "back_left": (-0.5, 0.5), "back_right": (0.5, 0.5)}


class _MarkRow(StrictModel):
    """A row of the file."""

    camera: str
    u_px: Finite
    v_px: Finite
    point: str


class Marks(NamedTuple):
    """Marks of one camera: picture points (n, 2) in pixels, and places (n, 3) in metres, store frame."""

    points_px: FloatArray
    places_m: FloatArray


def load_marks(path: str | Path, store: Store, cameras: Collection[str]) -> dict[str, Marks]:
    """Read a marks file.

    Args:
        path: the CSV file.
        store: for its plates.
        cameras: names that marks may have.

    Raises:
        ConfigError: with every fault.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: want a CSV file of marks, got: {error.strerror}") from None
    faults: list[str] = []
    table = read_table(data, str(path), _MarkRow, lambda raw: f"camera {raw.get('camera')!r}: ", faults)
    plates = {plate.plate: plate for plate in store.plates}
    found: dict[str, list[tuple[float, ...]]] = {}
    for row in table.rows:
        mark = row.value
        place = _place_m(mark.point, plates)
        if mark.camera not in cameras:
            faults.append(f"{path}:{row.line}: camera: want one of {', '.join(sorted(cameras))}, got {mark.camera!r}")
        elif place is None:
            want = "x y z in metres, or a plate and one of " + ", ".join(_CORNERS)
            faults.append(f"{path}:{row.line}: point: want {want}, got {mark.point!r}")
        else:
            found.setdefault(mark.camera, []).append((mark.u_px, mark.v_px, *place))
    if faults:
        raise ConfigError(faults)
    arrays = {name: np.array(rows) for name, rows in found.items()}
    return {name: Marks(rows[:, :2], rows[:, 2:]) for name, rows in arrays.items()}


def _place_m(text: str, plates: Mapping[str, Plate]) -> tuple[float, float, float] | None:
    """A mark's place in metres; None where the text names none."""
    words = text.split()
    if len(words) == 2 and words[0] in plates and words[1] in _CORNERS:
        plate, (across, back) = plates[words[0]], _CORNERS[words[1]]
        x, y = across * plate.width, back * plate.depth
        c, s = math.cos(plate.yaw), math.sin(plate.yaw)
        return plate.x + c * x - s * y, plate.y + s * x + c * y, plate.z
    try:
        x, y, z = (float(word) for word in words)
    except ValueError:
        return None
    return (x, y, z) if all(math.isfinite(v) and abs(v) < 1000.0 for v in (x, y, z)) else None


def calibrate_by_marks(
    cameras: Sequence[Camera], marks: Mapping[str, Marks], lenses: Collection[str] = ()
) -> SelfCalibration:
    """Place cameras by marks alone.

    Args:
        cameras: with their lenses; poses that are about right help where marks fit two places.
        marks: by name; see `load_marks`.
        lenses: names of the cameras of which focal length and k1 are to be found.

    Returns:
        The cameras that could be placed; the others are left out, with the reason.
    """
    placed, ties = [], []
    for camera in cameras:
        camera_found, tie = _located(camera, marks.get(camera.name), camera.name in lenses)
        ties.append(tie)
        if camera_found is not None:
            placed.append(camera_found)
    n = sum(len(own.points_px) for own in marks.values())
    return SelfCalibration(
        cameras=tuple(sorted(placed, key=lambda camera: camera.name)),
        ties=tuple(ties),
        scale_from=f"{n} marks",
        scale_sd=0.0,
        frame_from=f"{n} marks",
        floor_sd_m=0.0,
        warnings=tuple(f"camera {tie.name}: {tie.fault}" for tie in ties if tie.fault),
    )


def with_marked(
    marked: SelfCalibration, walk: Callable[[Mapping[str, tuple[float, ...]]], SelfCalibration]
) -> SelfCalibration:
    """A calibration from a walk, in the frame of cameras that marks place well, with those that only marks place.

    Args:
        marked: from marks; it may have placed no camera.
        walk: the calibration from places of cameras.
    """
    sure = {tie.name for tie in marked.ties if tie.placed and tie.fault is None}
    centres_m = {c.name: -rotation_matrix(c.rotation).T @ np.array(c.translation) for c in marked.cameras}
    found = walk({name: tuple(centres_m[name].tolist()) for name in sorted(sure)})
    tied = {tie.name: tie for tie in marked.ties if tie.placed}
    left = [tie.name for tie in found.ties if not tie.placed and tie.name in tied]
    cameras = [*found.cameras, *(camera for camera in marked.cameras if camera.name in left)]
    return replace(
        found,
        cameras=tuple(sorted(cameras, key=lambda camera: camera.name)),
        ties=tuple(tied[tie.name] if tie.name in left else tie for tie in found.ties),
        warnings=(*found.warnings, *(f"camera {name}: placed by marks alone" for name in left)),
    )


def _located(camera: Camera, marks: Marks | None, free: bool) -> tuple[Camera | None, CameraTie]:
    """One camera, None where its marks do not place it, and how well they do."""
    least = MARKS_FOR_LENS_MIN if free else MARKS_MIN
    n = 0 if marks is None else len(marks.points_px)
    if marks is None or n < least:
        return None, CameraTie(camera.name, False, fault=f"not placed: want {least} marks, got {n}")
    spread = np.linalg.svd(marks.places_m - marks.places_m.mean(axis=0), compute_uv=False)
    if spread[1] < 0.05 * spread[0] or spread[0] < 0.1:
        return None, CameraTie(camera.name, False, fault="not placed: its marks lie on a line; add one beside it")
    if free and spread[2] < 0.03 * spread[0]:
        flat = "not placed: its marks lie on a plane, which does not show its focal length; add marks at other heights"
        return None, CameraTie(camera.name, False, fault=flat)
    tried = sorted((_solved(camera, marks, start, free, _ROUGH_STEPS) for start in _starts(camera, marks)), key=_cost)
    solutions = sorted(
        (_solved(camera, marks, rough.unknowns, free, _STEPS) for rough in tried[:_REFINED]), key=_cost
    )  # fmt: skip
    best = solutions[0]
    jacobian = best.jacobian[: 2 * n]
    off_px = float(np.sqrt((best.off_px**2).sum(axis=1).mean()))
    prior = np.zeros(len(best.unknowns))
    prior[6:] = [FOCAL_SD**-2.0, RADIAL_SD[0] ** -2.0][: len(prior) - 6]
    spare = max(2 * n - len(prior), 1)
    noise = max(float((best.off_px**2).sum()) / spare / _CLICK_PX**2, 1.0)
    cov = noise * np.linalg.pinv(jacobian.T @ jacobian + np.diag(prior), hermitian=True)
    variance = np.diag(cov)
    centre_sd_m, rotation_sd = math.sqrt(variance[3:6].sum()), math.sqrt(variance[:3].sum())
    fault: str | None = None
    others = [
        s for s in solutions
        if s.cost < _AS_LIKELY * best.cost + n and np.linalg.norm(s.unknowns[3:6] - best.unknowns[3:6]) > _ELSEWHERE_M
    ]  # fmt: skip
    if off_px > _OFF_MAX_PX:
        fault = f"its marks are off by {off_px:.0f} px: is one of them named wrongly, or the lens another one?"
    elif others:
        fault = "its marks fit two places; add marks far from the others"
    elif centre_sd_m > _CENTRE_SD_MAX_M or rotation_sd > _ROTATION_SD_MAX:
        fault = f"badly placed: its centre is known to {100 * centre_sd_m:.0f} cm; add marks far from the others"
    found = best.camera(camera)
    depth_m = float(np.median(np.linalg.norm(marks.places_m - best.unknowns[3:6], axis=1)))
    focal_px = found.matrix[0][0]
    tie = CameraTie(
        camera.name,
        placed=True,
        centre_sd_m=centre_sd_m,
        rotation_sd_rad=rotation_sd,
        residual_m=off_px * depth_m / focal_px,
        focal_px=focal_px if free else None,
        focal_sd_px=math.sqrt(variance[6]) * focal_px if free else None,
        fault=fault,
    )
    return found, tie


class _Solution(NamedTuple):
    """A pose that fits marks: unknowns (rotation vector, centre, and with a lens log focal factor, k1)."""

    cost: float
    unknowns: FloatArray
    jacobian: FloatArray
    off_px: FloatArray

    def camera(self, camera: Camera) -> Camera:
        """The camera at this pose."""
        return _camera(camera, self.unknowns)


def _camera(camera: Camera, unknowns: FloatArray) -> Camera:
    r = rotation_matrix(unknowns[:3])
    update: dict[str, object] = {
        "rotation": tuple(float(v) for v in rotation_vector(r)),
        "translation": tuple((-r @ unknowns[3:6]).tolist()),
    }
    if len(unknowns) > 6:
        (fx, _, cx), (_, fy, cy), bottom = camera.matrix
        factor = math.exp(float(np.clip(unknowns[6], -2.0, 2.0)))
        update["matrix"] = ((fx * factor, 0.0, cx), (0.0, fy * factor, cy), bottom)
        update["distortions"] = (float(unknowns[7]), 0.0, 0.0, 0.0, 0.0)
    return Camera.model_validate({**camera.model_dump(), **update})


def _moved(rig: Rig, unknowns: FloatArray) -> Rig:
    """The same as `_camera`, as arrays."""
    r = rotation_matrix(unknowns[:3])
    extrinsics = np.concatenate([r, (-r @ unknowns[3:6])[:, None]], axis=1)[None]
    if len(unknowns) == 6:
        return replace(rig, camera_from_world=extrinsics)
    intrinsics = rig.image_from_camera.copy()
    intrinsics[0, [0, 1], [0, 1]] *= math.exp(float(np.clip(unknowns[6], -2.0, 2.0)))
    distortions = np.array([[unknowns[7], 0.0, 0.0, 0.0, 0.0]])
    return replace(rig, camera_from_world=extrinsics, image_from_camera=intrinsics, distortions=distortions)


def _starts(camera: Camera, marks: Marks) -> list[FloatArray]:
    """The pose that the camera has, and poses all around that look at the marks."""
    middle = marks.places_m.mean(axis=0)
    r = rotation_matrix(camera.rotation)
    starts = [np.concatenate([camera.rotation, -r.T @ np.array(camera.translation)])]
    for turn in np.linspace(0.0, 2.0 * math.pi, _AROUND, endpoint=False):
        for distance_m in _DISTANCES_M:
            for height_m in _HEIGHTS_M:
                centre = middle + distance_m * np.array([math.cos(turn), math.sin(turn), 0.0])
                centre[2] = height_m
                ahead = (middle - centre) / np.linalg.norm(middle - centre)
                right = np.cross(ahead, [0.0, 0.0, 1.0])
                right /= max(float(np.linalg.norm(right)), 1e-9)
                rotation = np.stack([right, np.cross(ahead, right), ahead])
                starts.append(np.concatenate([rotation_vector(rotation), centre]))
    return starts


def _cost(solution: _Solution) -> float:
    return solution.cost


def _solved(camera: Camera, marks: Marks, start: FloatArray, free: bool, n_steps: int) -> _Solution:
    """Robust least squares from a start (6,) or, with a lens, (8,)."""
    unknowns = np.concatenate([start, [0.0, 0.0]]) if free and len(start) == 6 else start
    middle_px = np.array(camera.size) / 2.0

    rig = Rig.from_cameras([camera])

    def off_px(unknowns: FloatArray) -> FloatArray:
        shown = _moved(rig, unknowns).project(marks.places_m)[0]
        # A mark behind the camera is as far off as the other side of the picture.
        return np.where(np.isfinite(shown), np.clip(shown, -1e5, 1e5), 4.0 * middle_px) - marks.points_px

    def losses(unknowns: FloatArray) -> FloatArray:
        prior = unknowns[6:] / [FOCAL_SD, RADIAL_SD[0]][: len(unknowns) - 6]
        return np.concatenate([off_px(unknowns).ravel() / _CLICK_PX, prior])

    found = least_squares(losses, unknowns, loss="soft_l1", f_scale=_WILD, max_nfev=n_steps)
    return _Solution(float(found.cost), found.x, found.jac, off_px(found.x))
