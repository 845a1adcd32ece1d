"""A store's cameras find their own places and clocks from the detections of a few people who walk through it.

    found = calibrate(recording.store, recording.observations(), Known(distances=(("cam01", "cam09", 6.42),)))
    found.save("calibration")

Intrinsics are kept as they are given; where a camera is said to be is ignored. `structure` places the cameras by one
another; here feet tell the floor and up, a known length tells the scale, and known places or the floor's outline tell
where in the store that is.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from fusion.errors import ConfigError, FusionError, ShapeError
from fusion.files.atomic import replace_file
from fusion.files.cameras import load_calibration
from fusion.observations import Frame, Observation
from fusion.setup import structure
from fusion.setup.adjustment import covariance
from fusion.setup.tracklets import Film
from fusion.store.folder import cameras_toml
from fusion.store.layouts import Layout
from fusion.store.models import Camera, Store
from fusion.store.rotations import rotation_matrix, rotation_vector
from fusion.store.shapes import inside_polygon
from fusion.store.values import validation_faults

# Of a longer recording this much is used: more people walk past again, and memory stays bounded.
USED_S = 900.0
# The ankle's height over the lengths of thigh and shank (Drillis and Contini 1966: 0.039 over 0.245 + 0.246 of the
# stature); people and detectors differ by about FLOOR_SD_M.
ANKLE_SHARE, FLOOR_SD_M = 0.039 / 0.491, 0.02
# Usual bodies tell a length this well where nothing else does: stature's spread over a few people.
BODY_SCALE_SD = 0.04
# Feet on the floor are within this of a plane, metres; so many must be seen.
FOOT_SD_M, FEET_MIN = 0.02, 50
# A camera is badly tied where its deviation is above these, or this often the others' median.
CENTRE_SD_MAX_M, ROTATION_SD_MAX, OVER_OTHERS = 0.03, math.radians(0.3), 4.0
# A camera shares at least so many sightings with each of so many others.
SHARED_MIN, PARTNERS_MIN = structure.AGREED_MIN, 2
# Detectors err anew after so long; what they say within it counts once.
CLUSTER_S, CLUSTERS_MIN = 4.0, 8
# Known places and lengths that disagree with what was found by more than this are told.
MISFIT_MAX = 0.02
# The floor's outline is compared on a grid of this, metres; a larger floor has larger cells, at most so many.
OUTLINE_CELL_M, OUTLINE_CELLS_MAX = 0.1, 40_000
# Where more of the people than this walked beside the floor, known places are not in the store's frame.
OFF_FLOOR_MAX = 0.5


@dataclass(frozen=True)
class Known:
    """What is known beforehand; at least one of them tells the scale.

    Attributes:
        distances: (camera, camera, metres between their centres).
        height_m: stature of the people who walk, their mean where they are several.
        places: where cameras are, in the store's frame, by name: x, y and, where it is known, z, metres. Two or more
            tell scale, direction and place.
        outline: use the store's floor polygon and obstacles for direction and place (decimetres), and, where nothing
            else tells it, the size of usual people for the scale (some percent).
    """

    distances: tuple[tuple[str, str, float], ...] = ()
    height_m: float | None = None
    places: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    outline: bool = True


@dataclass(frozen=True)
class CameraTie:
    """How well one camera is tied to the others.

    Attributes:
        name: as in the store.
        placed: whether it has a place; else `fault` says why not.
        centre_sd_m, rotation_sd_rad: deviation of its centre and of its direction against all cameras together.
        offset_s, offset_sd_s: its clock minus the cameras' mean, seconds.
        people: sightings of people that it shares with others; partners: cameras that share many of them.
        misfit_m: median error of its joints, metres at the body.
        fault: why it is badly tied, None where it is well.
    """

    name: str
    placed: bool
    centre_sd_m: float = math.nan
    rotation_sd_rad: float = math.nan
    offset_s: float = math.nan
    offset_sd_s: float = math.nan
    people: int = 0
    partners: int = 0
    misfit_m: float = math.nan
    fault: str | None = None


@dataclass(frozen=True)
class SelfCalibration:
    """What came out.

    Attributes:
        cameras: the placed ones, in the order of their names, in the store's frame as far as it is known.
        ties: all of them.
        scale_from, scale_sd: what told the scale, and its relative deviation.
        frame_from: what told direction and place on the floor.
        floor_sd_m: deviation of the floor's height.
        warnings: what to look at; empty where all is well.
    """

    cameras: tuple[Camera, ...]
    ties: tuple[CameraTie, ...]
    scale_from: str
    scale_sd: float
    frame_from: str
    floor_sd_m: float
    warnings: tuple[str, ...]

    @property
    def offsets_s(self) -> dict[str, float]:
        """Each placed camera's clock minus the mean of them, seconds."""
        return {tie.name: tie.offset_s for tie in self.ties if tie.placed}

    def save(self, folder: str | Path) -> None:
        """Write cameras.toml of the file contract and calibration.json with all else."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"# Scale from {self.scale_from}; place from {self.frame_from}."]
        for tie in self.ties:
            said = f"centre +- {100 * tie.centre_sd_m:.1f} cm, {math.degrees(tie.rotation_sd_rad):.2f} degrees, "
            said += f"clock {1e3 * tie.offset_s:+.1f} +- {1e3 * tie.offset_sd_s:.1f} ms"
            lines.append(f"# {json.dumps(tie.name)}: {said if tie.placed else 'not placed'}")
        lines += [f"# {warning}" for warning in self.warnings]
        text = "\n".join(line.replace("\n", " ") for line in lines) + "\n\n" + cameras_toml(self.cameras)
        replace_file(folder / "cameras.toml", text)
        report = {key: value for key, value in asdict(self).items() if key != "cameras"}
        replace_file(folder / "calibration.json", json.dumps(_plain(report), indent=1) + "\n")

    def text(self) -> str:
        """A table for people."""
        rows = ["camera     centre sd  rotation sd  clock offset       seen with  misfit"]
        for tie in self.ties:
            if not tie.placed:
                rows.append(f"{tie.name:10} not placed")
                continue
            rows.append(
                f"{tie.name:10} {100 * tie.centre_sd_m:6.2f} cm {math.degrees(tie.rotation_sd_rad):8.3f} deg "
                f"{1e3 * tie.offset_s:+8.1f} +- {1e3 * tie.offset_sd_s:3.1f} ms "
                f"{tie.partners:8d} {100 * tie.misfit_m:6.1f} cm"
            )
        rows.append(f"scale from {self.scale_from} (+- {100 * self.scale_sd:.1f} %), place from {self.frame_from}")
        return "\n".join([*rows, *(f"! {warning}" for warning in self.warnings)])


def _plain(value: Any) -> Any:
    """For JSON: what is not known is null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load_intrinsics(path: str | Path) -> tuple[Camera, ...]:
    """Cameras of which only name, size, matrix and distortions count: cameras.toml without poses, or any format that
    `load_calibration` reads. Raises ConfigError with every fault."""
    path = Path(path)
    if path.suffix != ".toml":
        return load_calibration(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: want TOML, got: {error}") from None
    cameras: list[Camera] = []
    faults: list[str] = []
    for key, table in tables.items():
        if key == "metadata":
            continue
        nowhere = {"rotation": (0.0, 0.0, 0.0), "translation": (0.0, 0.0, 0.0)}
        try:
            cameras.append(Camera.model_validate({**nowhere, **table} if isinstance(table, dict) else table))
        except ValidationError as error:
            faults += validation_faults(error, f"{path}: [{key}] ")
    names = [camera.name for camera in cameras]
    faults += [f"{path}: name: want each once, got {name!r} twice" for name in set(names) if names.count(name) > 1]
    if faults:
        raise ConfigError(faults)
    return tuple(sorted(cameras, key=lambda camera: camera.name))


def calibrate(
    store: Store,
    observations: Iterable[Observation],
    known: Known,
    cameras: Sequence[Camera] | None = None,
) -> SelfCalibration:
    """Estimate every camera's pose and clock offset.

    Args:
        store: its keypoint layout, floor and obstacles are used, and the intrinsics of its cameras.
        observations: of which the frames count, in order of time; the first USED_S of them.
        known: what tells scale and place.
        cameras: intrinsics in place of the store's.

    Returns:
        Cameras in the store's frame with what is known of their errors. A camera that cannot be placed is left out of
        `cameras` and has its reason in `ties`.

    Raises:
        ConfigError: `known` is not enough or names cameras that are not there, or the floor has no free place.
        ShapeError: a frame's keypoints are not of the store's layout.
        FusionError: too little was seen, with what was wanted and what came.
    """
    cameras = tuple(store.cameras if cameras is None else cameras)
    _check(store, cameras, known)
    films, span_s = _films(store, cameras, observations)
    names = [camera.name for camera in cameras]
    focal_px = np.array([0.5 * (camera.matrix[0][0] + camera.matrix[1][1]) for camera in cameras])
    found = structure.solve(films, names, focal_px, span_s)
    for name in _named(known):
        if name not in np.array(names)[found.placed]:
            raise FusionError(f"camera {name!r}: want it placed, since its place is known, got {found.faults[name]}")
    frame = _StoreFrame.of(store, known, [names[view] for view in found.placed], found)
    rotation = found.poses.rotation @ frame.rotation.T
    centre_m = frame.scale * found.poses.centre_m @ frame.rotation.T + frame.shift_m
    placed = []
    for view, r, c in zip(found.placed, rotation, centre_m):
        pose = {"rotation": tuple(rotation_vector(r).tolist()), "translation": tuple((-r @ c).tolist())}
        placed.append(Camera.model_validate({**cameras[view].model_dump(), **pose}))
    ties = _ties(names, found, frame.scale, span_s)
    warnings = list(frame.warnings)
    warnings += [f"camera {tie.name}: {tie.fault}" for tie in ties if tie.fault]
    placed.sort(key=lambda camera: camera.name)
    return SelfCalibration(
        tuple(placed), ties, frame.scale_from, frame.scale_sd, frame.frame_from, frame.floor_sd_m, tuple(warnings)
    )


def _named(known: Known) -> list[str]:
    """Cameras about which something is known; some may come twice."""
    return [name for a, b, _ in known.distances for name in (a, b)] + list(known.places)


def _check(store: Store, cameras: Sequence[Camera], known: Known) -> None:
    """Raises ConfigError with every fault of what is given."""
    faults = []
    if store.keypoints == "box2":
        faults.append("store.toml: keypoints: want joints (coco17 or body25), got box2: a box has no points of a body")
    if len(cameras) < 2:
        faults.append(f"cameras: want at least 2 with intrinsics, got {len(cameras)}")
    have = {camera.name for camera in cameras}
    if len(have) < len(cameras):
        faults.append(f"cameras: want each once, got {', '.join(camera.name for camera in cameras)}")
    strangers = [name for name in dict.fromkeys(_named(known)) if name not in have]
    faults += [f"known camera: want one of {', '.join(sorted(have))}, got {name!r}" for name in strangers]
    for a, b, metres in known.distances:
        if a == b or not 0.0 < metres < 1000.0:
            faults.append(f"distance: want metres between two cameras, got {metres} between {a!r} and {b!r}")
    if known.height_m is not None and not 0.8 < known.height_m < 2.3:
        faults.append(f"height: want a stature in metres, got {known.height_m}")
    for name, place in known.places.items():
        if len(place) not in (2, 3) or not all(math.isfinite(v) and abs(v) < 1000.0 for v in place):
            faults.append(f"place of {name!r}: want x, y and maybe z in metres, got {place}")
    if not known.distances and known.height_m is None and len(known.places) < 2 and not known.outline:
        faults.append("scale: want a distance between two cameras, a stature, or the places of two cameras, got none")
    if faults:
        raise ConfigError(faults)


def _films(
    store: Store, cameras: Sequence[Camera], observations: Iterable[Observation]
) -> tuple[list[Film], float]:
    """Each camera's detections, and the seconds from the first to the last that is used."""
    wanted = (store.layout.n_joints, 3)
    frames: dict[str, list[Frame]] = {camera.name: [] for camera in cameras}
    first = last = None
    for observation in observations:
        if not isinstance(observation, Frame) or observation.camera not in frames:
            continue
        if observation.keypoints.shape[1:] != wanted:
            came = observation.keypoints.shape
            raise ShapeError(f"frame of {observation.camera!r}: keypoints: want (n_people, *{wanted}), got {came}")
        first = observation.t_ns if first is None else first
        if observation.t_ns - first > USED_S * 1e9:
            break
        own = frames[observation.camera]
        # Twice the same time tells nothing of a path.
        if not own or observation.t_ns > own[-1].t_ns:
            own.append(observation)
            last = observation.t_ns
    if first is None or last is None:
        raise FusionError("frames: want detections of people who walk about, got none of the store's cameras")
    films = [Film(camera, frames[camera.name], first, store.layout) for camera in cameras]
    return films, (last - first) * 1e-9


def _ties(names: Sequence[str], found: structure.Found, scale: float, span_s: float) -> tuple[CameraTie, ...]:
    """How well each of all cameras is tied; scale: metres for one unit of the cameras' own frame."""
    sights, adjusted = found.people.sights, found.adjusted
    n_joints = found.people.points_m.shape[1]
    person = found.people.points // n_joints
    seconds = found.instants_s[found.people.instant[person]]
    length_s = min(CLUSTER_S, max(span_s / CLUSTERS_MIN, 1e-3))
    period = np.unique((seconds / length_s).astype(int), return_inverse=True)[1]
    cov = covariance(sights, adjusted, (period, found.people.points % n_joints))
    variance = np.diagonal(cov, axis1=1, axis2=2)
    centre_sd_m = scale * np.sqrt(variance[:, 3:6].sum(axis=1))
    rotation_sd = np.sqrt(variance[:, :3].sum(axis=1))
    offset_sd_s = np.sqrt(variance[:, 6])
    offset_s = found.poses.offset_s - found.poses.offset_s.mean()
    together = np.zeros((len(found.placed), found.people.points_m.shape[0]), bool)
    good = adjusted.weight > 0.2
    together[sights.view[good], person[sights.point[good]]] = True
    shared = (together[:, None] & together[None]).sum(axis=2)
    partners = (shared >= SHARED_MIN).sum(axis=1) - (np.diag(shared) >= SHARED_MIN)
    ties = []
    for view, name in enumerate(names):
        if view not in found.placed:
            ties.append(CameraTie(name, False, fault=f"not placed: {found.faults[name]}"))
            continue
        at = int(np.searchsorted(found.placed, view))
        fault = None
        if len(found.placed) > 2 and partners[at] < PARTNERS_MIN:
            fault = f"badly tied: shares {SHARED_MIN} sightings with {partners[at]} cameras, want {PARTNERS_MIN}"
        elif centre_sd_m[at] > max(CENTRE_SD_MAX_M, OVER_OTHERS * np.median(centre_sd_m)):
            fault = f"badly tied: its centre is known to {100 * centre_sd_m[at]:.0f} cm"
        elif rotation_sd[at] > max(ROTATION_SD_MAX, OVER_OTHERS * np.median(rotation_sd)):
            fault = f"badly tied: its direction is known to {math.degrees(rotation_sd[at]):.1f} degrees"
        misfit_m = scale * float(np.median(adjusted.error_m[sights.view == at]))
        ties.append(
            CameraTie(
                name, True, float(centre_sd_m[at]), float(rotation_sd[at]), float(offset_s[at]), float(offset_sd_s[at]),
                int(together[at].sum()), int(partners[at]), misfit_m, fault,
            )
        )  # fmt: skip
    return tuple(ties)


# ---- the store's frame -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _StoreFrame:
    """From the cameras' own frame to the store's: x_store = scale * rotation @ x + shift_m."""

    rotation: np.ndarray
    scale: float
    shift_m: np.ndarray
    scale_from: str
    scale_sd: float
    frame_from: str
    floor_sd_m: float
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, store: Store, known: Known, names: Sequence[str], found: structure.Found) -> _StoreFrame:
        """From what is known; names are those of the placed cameras, in the order of found.poses."""
        warnings: list[str] = []
        upright, ankle = _floor(found.people.points_m, store.layout)
        centre = found.poses.centre_m @ upright.T
        points = found.people.points_m @ upright.T
        at = {name: centre[i] for i, name in enumerate(names)}
        scale, scale_from, scale_sd = _scale(store.layout, known, at, points, ankle, warnings)
        centre, points, ankle_m = scale * centre, scale * points, scale * ankle
        floor_sd_m, lift_m = FLOOR_SD_M, -ankle_m
        heights = [place[2] - scale * at[name][2] for name, place in known.places.items() if len(place) == 3]
        if heights:
            lift_m, floor_sd_m = float(np.mean(heights)), max(float(np.std(heights)), 0.005)
            if abs(lift_m + ankle_m) > 3 * FLOOR_SD_M:
                off = f"{100 * abs(lift_m + ankle_m):.0f} cm from where feet stand"
                warnings.append(f"floor: the heights of known places put it {off}")
        walked = _walked(points, store.layout)
        if known.places:
            turn, shift = _by_places(known, names, centre, warnings)
            frame_from = f"the places of {len(known.places)} cameras"
            if len(known.places) == 1:
                frame_from += ", direction free"
                warnings.append("place: one known camera tells no direction; want the places of two")
            _told_off_floor(store, walked, turn, shift, warnings)
        elif known.outline:
            turn, shift, frame_from = _by_outline(store, walked, centre, warnings)
        else:
            turn, shift, frame_from = 0.0, -centre[:, :2].mean(axis=0), "the cameras' middle"
        c, s = math.cos(turn), math.sin(turn)
        about = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        shift_m = np.array([*shift, lift_m])
        return cls(about @ upright, scale, shift_m, scale_from, scale_sd, frame_from, floor_sd_m, tuple(warnings))


def _floor(points: np.ndarray, layout: Layout) -> tuple[np.ndarray, float]:
    """(3, 3) rotation that turns up to z, and the floor's z after it, from the lower foot of everybody."""
    ankles = layout.indices("l_ankle", "r_ankle")
    tops = layout.indices("l_shoulder", "r_shoulder")
    feet, top = points[:, ankles], points[:, tops].mean(axis=1)
    whole = np.isfinite(feet[:, :, 0]).all(axis=1) & np.isfinite(top[:, 0])
    if whole.sum() < FEET_MIN:
        raise FusionError(f"floor: want both feet and shoulders of people at {FEET_MIN} instants, got {whole.sum()}")
    feet, top = feet[whole], top[whole]
    body = top - feet.mean(axis=1)
    up = np.median(body / np.linalg.norm(body, axis=1, keepdims=True), axis=0)
    up /= np.linalg.norm(up)
    spread = FOOT_SD_M
    for step in range(20):
        # The lower foot stands, the other may swing.
        height = feet @ up
        lower = feet[np.arange(len(feet)), height.argmin(axis=1)]
        level = lower @ up
        off = level - np.median(level)
        # Feet above the others' are on tiptoe or wrong; few are below.
        weight = 1.0 / (1.0 + (off / (2.0 * spread)) ** 2) if step else np.ones(len(off))
        middle = (weight[:, None] * lower).sum(axis=0) / weight.sum()
        centred = (lower - middle) * np.sqrt(weight)[:, None]
        values, vectors = np.linalg.eigh(centred.T @ centred)
        if values[1] < 4.0 * values[0] and step > 3:
            raise FusionError("floor: want people who walk over an area, got feet along a line")
        normal = vectors[:, 0] * np.sign(vectors[:, 0] @ up)
        if np.abs(normal - up).max() < 1e-9:
            break
        up = normal
    across = np.cross([0.0, 0.0, 1.0], up)
    sine, cosine = float(np.linalg.norm(across)), float(up[2])
    axis = across / sine if sine > 1e-12 else np.array([1.0, 0.0, 0.0])
    upright = rotation_matrix(-axis * math.atan2(sine, cosine))
    standing = float(np.median(lower @ up))
    legs = []
    for side in "lr":
        hip, knee, ankle = (points[:, layout.index(f"{side}_{joint}")] for joint in ("hip", "knee", "ankle"))
        legs.append(np.linalg.norm(hip - knee, axis=1) + np.linalg.norm(knee - ankle, axis=1))
    leg = np.concatenate(legs)
    leg = leg[np.isfinite(leg)]
    if len(leg) < FEET_MIN:
        raise FusionError(f"floor: want legs from hip to ankle, {FEET_MIN} times, got {len(leg)}")
    return upright, standing - ANKLE_SHARE * float(np.median(leg))


def _scale(
    layout: Layout, known: Known, at: Mapping[str, np.ndarray], points: np.ndarray, floor: float, warnings: list[str]
) -> tuple[float, str, float]:
    """Metres for one unit of the cameras' frame, what told it, and its relative deviation."""
    if known.distances:
        told = np.array([metres for _, _, metres in known.distances])
        seen = np.array([np.linalg.norm(at[a] - at[b]) for a, b, _ in known.distances])
        scale = float(told @ seen / (seen @ seen))
        off = np.abs(scale * seen / told - 1.0)
        for (a, b, metres), share, own in zip(known.distances, off, scale * seen):
            if share > MISFIT_MAX:
                warnings.append(f"distance of {a} and {b}: want {metres:.3f} m, got {own:.3f} m with the others' scale")
        # A tape measure to the middle of a lens.
        return scale, f"{len(told)} known distance(s)", max(0.01 / float(np.linalg.norm(told)), float(off.max()))
    if len(known.places) >= 2:
        told = np.array([place[:2] for place in known.places.values()])
        seen = np.array([at[name][:2] for name in known.places])
        told, seen = told - told.mean(axis=0), seen - seen.mean(axis=0)
        spread = float(np.sqrt((told**2).sum()))
        if spread < 0.5:
            raise ConfigError(f"places: want cameras apart from each other, got {spread:.2f} m")
        return spread / float(np.sqrt((seen**2).sum())), f"the places of {len(told)} cameras", 0.02 / spread
    if known.height_m is not None:
        # Eyes, ears and shoulders of whoever stands upright, over their share of the stature.
        joints = layout.indices("l_eye", "r_eye", "l_ear", "r_ear", "l_shoulder", "r_shoulder")
        height = (points[:, joints, 2] - floor) / (layout.heights_m[list(joints), 0] / 1.70)
        return known.height_m / float(np.nanquantile(height, 0.6)), "a known stature", 0.02
    a, b = layout.limbs.T
    length = np.linalg.norm(points[:, a] - points[:, b], axis=-1)
    used = (layout.limb_lengths_m[:, 0] > 0.2) & np.isfinite(length).any(axis=0)
    scale = float(np.median(layout.limb_lengths_m[used, 0] / np.nanmedian(length[:, used], axis=0)))
    warnings.append(f"scale: of usual bodies, right to {100 * BODY_SCALE_SD:.0f} %, a distance or a stature tells more")
    return scale, "the size of usual people", BODY_SCALE_SD


def _walked(points: np.ndarray, layout: Layout) -> np.ndarray:
    """(n, 2) where people stood."""
    middle = points[:, layout.indices("l_hip", "r_hip"), :2].mean(axis=1)
    return middle[np.isfinite(middle).all(axis=1)]


def _told_off_floor(
    store: Store, walked: np.ndarray, turn: float, shift: np.ndarray, warnings: list[str]
) -> None:
    """Tell where known places put people beside the store's floor."""
    c, s = math.cos(turn), math.sin(turn)
    some = walked[:: max(1, len(walked) // 200)] @ np.array([[c, s], [-s, c]]) + shift
    if not len(some):
        return
    off = 1.0 - np.mean([inside_polygon(store.floor, x, y, 0.3) for x, y in some.tolist()])
    if off > OFF_FLOOR_MAX:
        warnings.append(f"place: the known places have {100 * off:.0f} % of the people walk beside the store's floor")


def _by_places(
    known: Known, names: Sequence[str], centre: np.ndarray, warnings: list[str]
) -> tuple[float, np.ndarray]:
    """Turn and shift on the floor that bring cameras to their known places."""
    told = np.array([place[:2] for place in known.places.values()])
    seen = np.array([centre[names.index(name), :2] for name in known.places])
    a, b = seen - seen.mean(axis=0), told - told.mean(axis=0)
    turn = math.atan2(float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()), float((a * b).sum()))
    r = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    shift = told.mean(axis=0) - r @ seen.mean(axis=0)
    off = np.linalg.norm(seen @ r.T + shift - told, axis=1)
    for name, metres in zip(known.places, off):
        if metres > 0.05:
            warnings.append(f"place of {name}: {100 * metres:.0f} cm from where it was found")
    return turn, shift


def _by_outline(
    store: Store, walked: np.ndarray, centre: np.ndarray, warnings: list[str]
) -> tuple[float, np.ndarray, str]:
    """Turn and shift for which people walked on the free floor and nearly all of it, and cameras hang above it."""
    from scipy.ndimage import distance_transform_edt
    from scipy.optimize import minimize

    margin = 2.0
    low, high = np.min(store.floor, axis=0) - margin, np.max(store.floor, axis=0) + margin
    cell = max(OUTLINE_CELL_M, math.sqrt(float(np.prod(high - low)) / OUTLINE_CELLS_MAX))
    xs, ys = (np.arange(low[axis], high[axis], cell) for axis in (0, 1))
    floor = np.array([[inside_polygon(store.floor, x, y) for y in ys] for x in xs])
    free = floor.copy()
    for x0, y0, x1, y1, _ in store.obstacle.boxes:
        free &= ~((xs[:, None] > x0) & (xs[:, None] < x1) & (ys > y0) & (ys < y1))
    if not free.any():
        raise ConfigError("store.toml: floor: want a place where no obstacle stands, got none")
    off_free, off_floor = cell * distance_transform_edt(~free), cell * distance_transform_edt(~floor)
    targets = np.argwhere(free)[:: max(1, int(free.sum()) // 200)] * cell + low
    some = walked[:: max(1, len(walked) // 200)]

    def look(field_m: np.ndarray, places: np.ndarray) -> np.ndarray:
        index = np.rint((places - low) / cell).astype(int)
        beyond = np.abs(index - np.clip(index, 0, np.array(field_m.shape) - 1)).sum(axis=1) * cell
        index = np.clip(index, 0, np.array(field_m.shape) - 1)
        return field_m[index[:, 0], index[:, 1]] + beyond

    def cost(pose: np.ndarray) -> float:
        c, s = math.cos(pose[0]), math.sin(pose[0])
        r = np.array([[c, -s], [s, c]])
        people, cameras = some @ r.T + pose[1:], centre[:, :2] @ r.T + pose[1:]
        empty = np.sqrt(((targets[:, None] - people[None]) ** 2).sum(axis=2)).min(axis=1)
        return float(
            (look(off_free, people) ** 2).mean() + 0.2 * (empty**2).mean()
            + (np.maximum(look(off_floor, cameras) - 0.3, 0.0) ** 2).mean()
        )  # fmt: skip

    tried = []
    for turn in np.arange(0.0, 2 * math.pi, math.radians(30.0)):
        c, s = math.cos(turn), math.sin(turn)
        start = targets.mean(axis=0) - np.array([[c, -s], [s, c]]) @ some.mean(axis=0)
        simplex = np.array([turn, *start]) + np.array([[0, 0, 0], [0.3, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
        answer = minimize(cost, simplex[0], method="Nelder-Mead", options={"initial_simplex": simplex, "maxfev": 150})
        tried.append((float(answer.fun), float(answer.x[0]), answer.x[1:]))
    tried.sort(key=lambda entry: entry[0])
    best = tried[0]
    rivals = [entry for entry in tried if math.cos(entry[1] - best[1]) < math.cos(math.radians(20.0))]
    warnings.append("place: from the floor's outline, right to some decimetres; the places of two cameras are better")
    if rivals and rivals[0][0] < 1.3 * best[0] + 1e-3:
        turned = math.degrees((rivals[0][1] - best[1]) % (2 * math.pi))
        warnings.append(f"place: the outline fits as well turned by {turned:.0f} degrees; give places of cameras")
    return best[1], best[2], "the floor's outline"
