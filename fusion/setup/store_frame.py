"""From the cameras' own frame to the store's: feet give the floor, known lengths the scale, known places the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from fusion.errors import ConfigError, FusionError
from fusion.setup.outline import FloorPose, place_by_outline
from fusion.setup.reprojection import FloatArray
from fusion.setup.self_calibration import Known
from fusion.setup.structure import Structure
from fusion.store.layouts import Layout
from fusion.store.models import Store
from fusion.store.rotations import rotation_matrix
from fusion.store.shapes import inside_polygon

# The ankle's height over the lengths of thigh and shank (Drillis and Contini 1966: 0.039 over 0.245 + 0.246 of the
# stature); people and detectors differ by about FLOOR_SD_M.
ANKLE_SHARE, FLOOR_SD_M = 0.039 / 0.491, 0.02
# Usual bodies give a length to this relative standard deviation: that of the stature over a few people.
BODY_SCALE_SD = 0.04
_USUAL = f"scale: from usual bodies, right to {100 * BODY_SCALE_SD:.0f} %; a distance or a stature determines it better"
# Feet on the floor are within this of a plane, metres; at least this many must be seen.
FOOT_SD_M, FEET_MIN = 0.02, 50
# Known lengths that differ from the found ones by more than this share, and known places by more than this, metres, are
# reported.
LENGTH_OFF_MAX, PLACE_OFF_MAX_M = 0.02, 0.05
# If more than this share of the people walk outside the floor, known places are not in the store's frame.
OFF_FLOOR_MAX = 0.5
# Triples of cameras that are tried.
_TRIPLES_MAX = 1500


class Floor(NamedTuple):
    """The rotation (3, 3) that turns up to z, and the floor's z after it."""

    upright: FloatArray
    z: float


class Scale(NamedTuple):
    """Metres for one unit of the cameras' frame, what determined it, and its relative standard deviation."""

    metres: float
    source: str
    sd: float


@dataclass(frozen=True)
class StoreFrame:
    """The similarity x_store = scale * rotation @ x + shift_m.

    Attributes:
        rotation, shift_m: (3, 3) and (3,).
        scale: metres for one unit, with its source and standard deviation.
        source: what determined direction and place.
        floor_sd_m: standard deviation of the floor's height.
        warnings: what to look at.
    """

    rotation: FloatArray
    shift_m: FloatArray
    scale: Scale
    source: str
    floor_sd_m: float
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, store: Store, known: Known, names: Sequence[str], structure: Structure) -> StoreFrame:
        """Find the frame from what is known; names are those of the placed cameras, in the order of the poses."""
        warnings: list[str] = []
        is_box = store.layout.name == "box2"
        upright, floor_z = Floor(np.eye(3), 0.0) if is_box else find_floor(structure.bodies.points_m, store.layout)
        centre = structure.poses.centre_m @ upright.T
        points = structure.bodies.points_m @ upright.T
        centre_of = {name: centre[i] for i, name in enumerate(names)}
        scale = find_scale(store.layout, known, centre_of, points, floor_z, warnings)
        lift_m, floor_sd_m = _lift(known, centre_of, scale.metres, floor_z, warnings)
        centre_m, points_m = scale.metres * centre, scale.metres * points
        walked_m = _walked_m(points_m, store.layout)
        if known.places:
            pose = _place_by_cameras(known, names, centre_m, warnings)
            source = f"the places of {len(known.places)} cameras"
            if len(known.places) == 1:
                source += ", direction free"
                warnings.append("place: one known camera does not determine the direction; give the places of two")
            warn_off_floor(store, walked_m, pose, warnings)
        elif known.outline:
            pose = place_by_outline(store, walked_m, centre_m, warnings)
            source = "the floor's outline"
        else:
            pose, source = FloorPose(0.0, -centre_m[:, :2].mean(axis=0)), "the cameras' middle"
        c, s = math.cos(pose.turn), math.sin(pose.turn)
        about_z = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        shift_m = np.array([*pose.shift_m, lift_m])
        return cls(about_z @ upright, shift_m, scale, source, floor_sd_m, tuple(warnings))


def steady_cameras(found_m: FloatArray, present_m: FloatArray) -> FloatArray:
    """(n,) bool: cameras whose present centres (n, 3) fit the found ones, whatever frame those are in.

    Of the similarities through three cameras, the one with the least median residual counts (Rousseeuw, Least Median of
    Squares Regression, 1984).
    """
    n = len(found_m)
    triples = list(combinations(range(n), 3))
    best_m = np.zeros(n)
    least = math.inf
    for triple in triples[:: max(1, len(triples) // _TRIPLES_MAX)]:
        off_m = _off_by_similarity(found_m, present_m, list(triple))
        if float(np.median(off_m)) < least:
            least, best_m = float(np.median(off_m)), off_m
    return np.asarray(best_m < max(PLACE_OFF_MAX_M, 3.0 * min(least, PLACE_OFF_MAX_M)))


def _off_by_similarity(found_m: FloatArray, present_m: FloatArray, used: list[int]) -> FloatArray:
    """(n,) distances after the similarity that fits the used ones best (Umeyama 1991)."""
    a, b = found_m[used], present_m[used]
    a_middle, b_middle = a.mean(axis=0), b.mean(axis=0)
    u, values, vt = np.linalg.svd((b - b_middle).T @ (a - a_middle))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    scale = (values * sign).sum() / max(float(((a - a_middle) ** 2).sum()), 1e-12)
    return np.asarray(
        np.linalg.norm(scale * (found_m - a_middle) @ ((u * sign) @ vt).T + b_middle - present_m, axis=1)
    )


# ---- the floor -------------------------------------------------------------------------------------------------------


def find_floor(points: FloatArray, layout: Layout) -> Floor:
    """The floor under the lower foot of everybody.

    Args:
        points: (n, K, 3) joints in the cameras' frame, NaN where unknown.
        layout: of the joints.

    Raises:
        FusionError: too few feet, shoulders or legs were seen, or feet along a line only.
    """
    feet, body = _whole_bodies(points, layout)
    up = np.median(body / np.linalg.norm(body, axis=1, keepdims=True), axis=0)
    up /= np.linalg.norm(up)
    for number in range(20):
        # The lower foot stands, the other may swing.
        height = feet @ up
        lower = feet[np.arange(len(feet)), height.argmin(axis=1)]
        level = lower @ up
        off = level - np.median(level)
        # Feet above the others' are on tiptoe or wrong; few are below.
        weight = 1.0 / (1.0 + (off / (2.0 * FOOT_SD_M)) ** 2) if number else np.ones(len(off))
        middle = (weight[:, None] * lower).sum(axis=0) / weight.sum()
        centred = (lower - middle) * np.sqrt(weight)[:, None]
        values, vectors = np.linalg.eigh(centred.T @ centred)
        if values[1] < 4.0 * values[0] and number > 3:
            raise FusionError("floor: want people who walk over an area, got feet along a line")
        normal = vectors[:, 0] * np.sign(vectors[:, 0] @ up)
        if np.abs(normal - up).max() < 1e-9:
            break
        up = normal
    standing = float(np.median(lower @ up))
    return Floor(_rotation_to_z(up), standing - ANKLE_SHARE * _leg_length(points, layout))


def _whole_bodies(points: FloatArray, layout: Layout) -> tuple[FloatArray, FloatArray]:
    """Both ankles (n, 2, 3), and the vector from between them to between the shoulders (n, 3), where all are known."""
    feet = points[:, layout.indices("l_ankle", "r_ankle")]
    top = points[:, layout.indices("l_shoulder", "r_shoulder")].mean(axis=1)
    whole = np.isfinite(feet[:, :, 0]).all(axis=1) & np.isfinite(top[:, 0])
    if whole.sum() < FEET_MIN:
        raise FusionError(f"floor: want both feet and shoulders of people at {FEET_MIN} instants, got {whole.sum()}")
    return feet[whole], top[whole] - feet[whole].mean(axis=1)


def _rotation_to_z(up: FloatArray) -> FloatArray:
    """(3, 3) shortest rotation of a unit vector to (0, 0, 1)."""
    across = np.cross([0.0, 0.0, 1.0], up)
    sine, cosine = float(np.linalg.norm(across)), float(up[2])
    axis = across / sine if sine > 1e-12 else np.array([1.0, 0.0, 0.0])
    return rotation_matrix(-axis * math.atan2(sine, cosine))


def _leg_length(points: FloatArray, layout: Layout) -> float:
    """Median length from hip over knee to ankle."""
    legs = []
    for side in "lr":
        hip, knee, ankle = (points[:, layout.index(f"{side}_{joint}")] for joint in ("hip", "knee", "ankle"))
        legs.append(np.linalg.norm(hip - knee, axis=1) + np.linalg.norm(knee - ankle, axis=1))
    lengths = np.concatenate(legs)
    lengths = lengths[np.isfinite(lengths)]
    if len(lengths) < FEET_MIN:
        raise FusionError(f"floor: want legs from hip to ankle, {FEET_MIN} times, got {len(lengths)}")
    return float(np.median(lengths))


def _lift(
    known: Known, centre_of: Mapping[str, FloatArray], scale: float, floor_z: float, warnings: list[str]
) -> tuple[float, float]:
    """What to add to z, metres, so that the floor is at 0, and its standard deviation: from heights, else from feet."""
    feet_lift_m = -scale * floor_z
    heights_m = [place[2] - scale * centre_of[name][2] for name, place in known.places.items() if len(place) == 3]
    if not heights_m:
        return feet_lift_m, FLOOR_SD_M
    lift_m = float(np.mean(heights_m))
    if abs(lift_m - feet_lift_m) > 3 * FLOOR_SD_M:
        off_cm = 100 * abs(lift_m - feet_lift_m)
        warnings.append(f"floor: the heights of known places put it {off_cm:.0f} cm from where feet stand")
    return lift_m, max(float(np.std(heights_m)), 0.005)


# ---- scale -----------------------------------------------------------------------------------------------------------


def find_scale(
    layout: Layout,
    known: Known,
    centre_of: Mapping[str, FloatArray],
    points: FloatArray,
    floor_z: float,
    warnings: list[str],
) -> Scale:
    """The scale from distances, else from places, else from a stature, else from the size of usual people.

    Args:
        layout: of the joints.
        known: what is known beforehand.
        centre_of: by name, a camera's centre (3,), upright.
        points: (n, K, 3) joints, upright.
        floor_z: of the floor, in the same frame.
        warnings: gets what to look at.

    Raises:
        ConfigError: known places lie too close to each other.
    """
    if known.distances:
        return _scale_by_distances(known, centre_of, warnings)
    if len(known.places) >= 2:
        given = np.array([place[:2] for place in known.places.values()])
        found = np.array([centre_of[name][:2] for name in known.places])
        given, found = given - given.mean(axis=0), found - found.mean(axis=0)
        spread_m = float(np.sqrt((given**2).sum()))
        if spread_m < 0.5:
            raise ConfigError(f"places: want cameras apart from each other, got {spread_m:.2f} m")
        metres = spread_m / float(np.sqrt((found**2).sum()))
        return Scale(metres, f"the places of {len(given)} cameras", 0.02 / spread_m)
    if known.height_m is not None:
        # Eyes, ears and shoulders of people who stand upright, over their share of the stature.
        joints = layout.indices("l_eye", "r_eye", "l_ear", "r_ear", "l_shoulder", "r_shoulder", "box_top")
        height = (points[:, joints, 2] - floor_z) / (layout.heights_m[list(joints), 0] / 1.70)
        return Scale(known.height_m / float(np.nanquantile(height, 0.6)), "a known stature", 0.02)
    if not len(layout.limbs):
        stature = float(np.nanmedian(points[:, layout.index("box_top"), 2] - floor_z))
        metres = float(layout.heights_m[layout.index("box_top"), 0]) / stature
        warnings.append(_USUAL)
        return Scale(metres, "the stature of usual people", BODY_SCALE_SD)
    a, b = layout.limbs.T
    length = np.linalg.norm(points[:, a] - points[:, b], axis=-1)
    used = (layout.limb_lengths_m[:, 0] > 0.2) & np.isfinite(length).any(axis=0)
    metres = float(np.median(layout.limb_lengths_m[used, 0] / np.nanmedian(length[:, used], axis=0)))
    warnings.append(_USUAL)
    return Scale(metres, "the size of usual people", BODY_SCALE_SD)


def _scale_by_distances(known: Known, centre_of: Mapping[str, FloatArray], warnings: list[str]) -> Scale:
    """Least squares over the known distances."""
    given_m = np.array([metres for _, _, metres in known.distances])
    found = np.array([np.linalg.norm(centre_of[a] - centre_of[b]) for a, b, _ in known.distances])
    scale = float(given_m @ found / (found @ found))
    off = np.abs(scale * found / given_m - 1.0)
    for (a, b, metres), share, found_m in zip(known.distances, off, scale * found):
        if share > LENGTH_OFF_MAX:
            warnings.append(f"distance of {a} and {b}: want {metres:.3f} m, got {found_m:.3f} m with the others' scale")
    # A tape measure reaches the middle of a lens to about a centimetre.
    sd = max(0.01 / float(np.linalg.norm(given_m)), float(off.max()))
    return Scale(scale, f"{len(given_m)} known distance(s)", sd)


# ---- direction and place ---------------------------------------------------------------------------------------------


def _walked_m(points_m: FloatArray, layout: Layout) -> FloatArray:
    """(n, 2) where people stood."""
    middle = points_m[:, layout.indices("l_hip", "r_hip", "box_bottom"), :2].mean(axis=1)
    return np.asarray(middle[np.isfinite(middle).all(axis=1)])


def warn_off_floor(store: Store, walked_m: FloatArray, pose: FloorPose, warnings: list[str]) -> None:
    """Warn where known places put most of the people (n, 2) beside the store's floor."""
    sample_m = pose.applied(walked_m[:: max(1, len(walked_m) // 200)])
    if not len(sample_m):
        return
    off = 1.0 - np.mean([inside_polygon(store.floor, x, y, 0.3) for x, y in sample_m.tolist()])
    if off > OFF_FLOOR_MAX:
        warnings.append(f"place: the known places have {100 * off:.0f} % of the people walk beside the store's floor")


def _place_by_cameras(known: Known, names: Sequence[str], centre_m: FloatArray, warnings: list[str]) -> FloorPose:
    """The pose that brings cameras to their known places best.

    Source: Umeyama, Least-Squares Estimation of Transformation Parameters (1991), in two dimensions without scale.
    """
    given_m = np.array([place[:2] for place in known.places.values()])
    found_m = np.array([centre_m[names.index(name), :2] for name in known.places])
    a, b = found_m - found_m.mean(axis=0), given_m - given_m.mean(axis=0)
    turn = math.atan2(float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()), float((a * b).sum()))
    r = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    shift_m = given_m.mean(axis=0) - r @ found_m.mean(axis=0)
    off_m = np.linalg.norm(found_m @ r.T + shift_m - given_m, axis=1)
    for name, metres in zip(known.places, off_m):
        if metres > PLACE_OFF_MAX_M:
            warnings.append(f"place of {name}: {100 * metres:.0f} cm from where it was found")
    return FloorPose(turn, shift_m)
