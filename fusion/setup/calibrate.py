"""A store's cameras find their own places and clocks from the detections of a few people who walk through it.

    calibration = calibrate(recording.store, recording.observations(), Known(distances=(("cam01", "cam09", 6.42),)))
    calibration.save("calibration")

Extrinsics are ignored. Intrinsics stay as they are given, except for the lenses that are to be found: of these the
picture's size is enough. `upright` gives a rough focal length, and the adjustment the rest. `structure` places the
cameras relative to each other; then `store_frame` finds up and the floor from feet, the scale from a known length, and
direction and place in the store from known places or the floor's outline.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fusion.errors import ConfigError, FusionError, ShapeError
from fusion.observations import Frame, Observation
from fusion.people.geometry import Rig
from fusion.setup.advice import walk_advice
from fusion.setup.box_structure import solve_box_structure
from fusion.setup.camera_ties import camera_ties
from fusion.setup.lenses import Lenses, rough_camera
from fusion.setup.reprojection import FloatArray
from fusion.setup.self_calibration import Known, SelfCalibration
from fusion.setup.store_frame import StoreFrame, steady_cameras
from fusion.setup.structure import Structure, solve_structure
from fusion.setup.tracklets import LinkedDetections
from fusion.setup.upright import UprightView, find_alike_focal_lengths, find_upright_view, upright_people
from fusion.store.models import Camera, Store
from fusion.store.rotations import rotation_vector

# Only this much of a longer recording is used: later walks add little, and memory stays bounded.
USED_S = 900.0


class _Frames(NamedTuple):
    """The frames of each camera by its name, the first instant, and the seconds from there to the last."""

    of_camera: dict[str, list[Frame]]
    first_ns: int
    span_s: float


def calibrate(
    store: Store,
    observations: Iterable[Observation],
    known: Known,
    cameras: Sequence[Camera] | None = None,
    lenses: Collection[str] = (),
) -> SelfCalibration:
    """Estimate every camera's pose and clock offset, and the lenses of some.

    Args:
        store: its keypoint layout, floor and obstacles are used, and the intrinsics of its cameras.
        observations: in time order; frames are used, the first USED_S of them.
        known: what determines scale and place.
        cameras: intrinsics in place of the store's.
        lenses: names of the cameras of which focal length, principal point and radial distortion are to be found; of
            their intrinsics only the picture's size is used.

    Returns:
        Cameras in the store's frame, with standard deviations. A camera that cannot be placed is left out of `cameras`
        and has its reason in `ties`.

    Raises:
        ConfigError: `known` is not enough or names cameras that do not exist, or the floor has no free place.
        ShapeError: a frame's keypoints are not of the store's layout.
        FusionError: too little was seen; the message says what was wanted and what came.
    """
    cameras = tuple(store.cameras if cameras is None else cameras)
    _check(store, cameras, known, lenses)
    frames, first_ns, span_s = _frames(store, cameras, observations)
    given = cameras
    names = [camera.name for camera in cameras]
    found = [camera.name in lenses for camera in cameras]
    uprights = _uprights(store, cameras, frames, found)
    cameras = tuple(
        rough_camera(camera.name, camera.size, None if upright is None else upright.focal_px) if free else camera
        for camera, free, upright in zip(cameras, found, uprights)
    )
    detections = [LinkedDetections(camera, frames[camera.name], first_ns, store.layout) for camera in cameras]
    present = Lenses.of(cameras, found)
    if store.keypoints == "box2":
        structure = solve_box_structure(detections, uprights, names, present, span_s)
    else:
        structure = solve_structure(detections, names, present, span_s)
    placed_names = [names[view] for view in structure.placed]
    if known.present:
        known = _with_present_places(known, [given[view] for view in structure.placed], structure)
    _check_known_are_placed(known, placed_names, structure)
    frame = StoreFrame.of(store, known, placed_names, structure)
    rotation = structure.poses.rotation @ frame.rotation.T
    centre_m = frame.scale.metres * structure.poses.centre_m @ frame.rotation.T + frame.shift_m
    placed = []
    for view, r, c in zip(structure.placed, rotation, centre_m):
        pose = {"rotation": tuple(rotation_vector(r).tolist()), "translation": tuple((-r @ c).tolist())}
        placed.append(Camera.model_validate({**structure.lenses.cameras[view].model_dump(), **pose}))
    if known.present:
        placed += [camera for view, camera in enumerate(given) if view not in structure.placed]
    ties = camera_ties(names, structure, frame.scale.metres)
    faults = [f"camera {tie.name}: {tie.fault}" for tie in ties if tie.fault]
    points_m = frame.scale.metres * structure.bodies.points_m @ frame.rotation.T + frame.shift_m
    advice = walk_advice(store, placed, ties, _middles(points_m))
    return SelfCalibration(
        cameras=tuple(sorted(placed, key=lambda camera: camera.name)),
        ties=ties,
        scale_from=frame.scale.source,
        scale_sd=frame.scale.sd,
        frame_from=frame.source,
        floor_sd_m=frame.floor_sd_m,
        warnings=(*frame.warnings, *faults, *advice),
    )


def _check(store: Store, cameras: Sequence[Camera], known: Known, lenses: Collection[str]) -> None:
    """Raises ConfigError with every fault of the arguments."""
    faults = []
    if len(cameras) < 2:
        faults.append(f"cameras: want at least 2 with intrinsics, got {len(cameras)}")
    names = {camera.name for camera in cameras}
    if len(names) < len(cameras):
        faults.append(f"cameras: want each once, got {', '.join(camera.name for camera in cameras)}")
    strangers = [name for name in dict.fromkeys(known.names()) if name not in names]
    faults += [f"known camera: want one of {', '.join(sorted(names))}, got {name!r}" for name in strangers]
    strangers = sorted(set(lenses) - names)
    faults += [f"lens to be found: want one of {', '.join(sorted(names))}, got {name!r}" for name in strangers]
    for a, b, metres in known.distances:
        if a == b or not 0.0 < metres < 1000.0:
            faults.append(f"distance: want metres between two cameras, got {metres} between {a!r} and {b!r}")
    if known.height_m is not None and not 0.8 < known.height_m < 2.3:
        faults.append(f"height: want a stature in metres, got {known.height_m}")
    for name, place in known.places.items():
        if len(place) not in (2, 3) or not all(math.isfinite(v) and abs(v) < 1000.0 for v in place):
            faults.append(f"place of {name!r}: want x, y and maybe z in metres, got {place}")
    if known.present and len({camera.translation for camera in cameras}) < len(cameras):
        faults.append("present poses: want cameras at places of their own, got some at one place")
    determined = known.distances or known.height_m is not None or len(known.places) >= 2
    if not determined and not known.outline and not known.present:
        faults.append("scale: want a distance between two cameras, a stature, or the places of two cameras, got none")
    if faults:
        raise ConfigError(faults)


def _middles(points_m: FloatArray) -> FloatArray:
    """(n, 2) places on the floor of bodies (n, K, 3), NaN where no joint was located."""
    known = np.asarray(np.isfinite(points_m[..., :2]).all(axis=2))
    total = np.where(known[..., None], points_m[..., :2], 0.0).sum(axis=1)
    n = np.asarray(known.sum(axis=1))[:, None]
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def _frames(store: Store, cameras: Sequence[Camera], observations: Iterable[Observation]) -> _Frames:
    wanted = (store.layout.n_joints, 3)
    frames: dict[str, list[Frame]] = {camera.name: [] for camera in cameras}
    first_ns = last_ns = None
    for observation in observations:
        if not isinstance(observation, Frame) or observation.camera not in frames:
            continue
        shape = observation.keypoints.shape
        if shape[1:] != wanted:
            raise ShapeError(f"frame of {observation.camera!r}: keypoints: want (n_people, *{wanted}), got {shape}")
        first_ns = observation.t_ns if first_ns is None else first_ns
        if observation.t_ns - first_ns > USED_S * 1e9:
            break
        of_camera = frames[observation.camera]
        # A second frame of the same time adds nothing to a tracklet.
        if not of_camera or observation.t_ns > of_camera[-1].t_ns:
            of_camera.append(observation)
            last_ns = observation.t_ns
    if first_ns is None or last_ns is None:
        raise FusionError("frames: want detections of people who walk about, got none of the store's cameras")
    return _Frames(frames, first_ns, (last_ns - first_ns) * 1e-9)


def _check_known_are_placed(known: Known, placed: Sequence[str], structure: Structure) -> None:
    """Raises FusionError where something is known of a camera that has no place."""
    for name in known.names():
        if name not in placed:
            fault = structure.faults[name]
            raise FusionError(f"camera {name!r}: want it placed, since its place is known, got {fault}")


def _with_present_places(known: Known, given: Sequence[Camera], structure: Structure) -> Known:
    """What is known, with the present places of the placed cameras that were not moved against each other."""
    present_m = Rig.from_cameras(given).centres_m
    steady = steady_cameras(structure.poses.centre_m, present_m)
    places = {camera.name: tuple(place) for camera, place, ok in zip(given, present_m.tolist(), steady) if ok}
    return replace(known, places={**places, **known.places}, distances=known.distances)


def _uprights(
    store: Store, cameras: Sequence[Camera], frames: dict[str, list[Frame]], found: Sequence[bool]
) -> list[UprightView | None]:
    """What upright people show of each camera; None where it is not needed, or too few are there."""
    layout, is_box = store.layout, store.keypoints == "box2"
    if not is_box and not any(found):
        return [None] * len(cameras)
    people = [upright_people(frames[camera.name], layout, camera.size) for camera in cameras]
    focal_px: list[float | None] = [None if free else _focal_px(camera) for camera, free in zip(cameras, found)]
    if is_box:
        # A box shows where a person ends, not how they stand: one camera's boxes leave its focal length open.
        for size in {camera.size for camera, free in zip(cameras, found) if free}:
            same = [view for view, camera in enumerate(cameras) if found[view] and camera.size == size]
            alike = find_alike_focal_lengths([people[view] for view in same], layout, size)
            for view, focal in zip(same, alike):
                focal_px[view] = focal
    return [
        find_upright_view(own, layout, camera.size, focal, not free) if free or is_box else None
        for own, camera, focal, free in zip(people, cameras, focal_px, found)
    ]


def _focal_px(camera: Camera) -> float:
    return 0.5 * (camera.matrix[0][0] + camera.matrix[1][1])
