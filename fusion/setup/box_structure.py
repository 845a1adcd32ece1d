"""Structure from boxes: the places, clocks and lenses of cameras, from the boxes of people who stand and walk upright.

1. Each camera's boxes show its height, which way is up, and its focal length (`upright`), so that people have places on
   a floor of its own.
2. The floors of all cameras are joined by people at common instants (`floor_map`).
3. Boxes are matched by where they stand, and cameras and people adjusted together (`box_model`), in turn.

The frame has the floor at z = 0 and z up; its scale is that of people of usual stature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage

from fusion.errors import FusionError
from fusion.setup.adjustment import Adjusted, camera_covariance, free_directions
from fusion.setup.bodies import Bodies
from fusion.setup.box_model import (
    N_OF_BOX_CAMERA,
    SOLE_M,
    SOLE_SD_M,
    STEP_M,
    STEP_SD_M,
    BoxCameras,
    BoxObservations,
    box_residuals,
    linearise_boxes,
)
from fusion.setup.floor_map import AGREED_MIN, FloorPoints, Similarity, find_pair, join_floors
from fusion.setup.lenses import Lenses, with_lens, without_lens
from fusion.setup.normal_equations import NormalEquations, Prior
from fusion.setup.reprojection import DEPTH_MIN_M, N_OF_LENS, N_UNKNOWNS, FloatArray, IntArray, PointObservations, Poses
from fusion.setup.structure import SEED, Structure, clusters_of, random_instants_s
from fusion.setup.tracklets import LinkedDetections
from fusion.setup.upright import UprightView
from fusion.setup.views import Views

# Stature of usual people and its standard deviation, metres.
STATURE_M, STATURE_SD_M = 1.70, 0.10
# How far a head is beside the feet, metres, by its standard deviation.
LEAN_SD_M = 0.10
# A box shows a whole person where its height is within this share of what a usual stature has there.
_WHOLE = 0.13
# Boxes of one person stand within this of each other, metres, from the first match to the last; steps after each.
_LIMITS_M, _STEPS = (0.8, 0.6, 0.45, 0.35, 0.3, 0.3, 0.3), (6, 8, 8, 10, 10, 20, 20)
# Standard deviations of a box's edges at the person, metres, at least and at most, and a floor in pixels.
_SD_MIN_M, _SD_MAX_M, _SD_PX = 0.01, 0.25, 1.0
# How many more boxes than joints err alike: their edges are off by how a person stands, for as long as they stand so
# before a shelf, some 15 s.
_STANDING = 4.0
# Residuals of this many standard deviations lose half of their weight (Cauchy); clocks, beforehand, in seconds.
_HALF_WEIGHT_AT, _CLOCK_SD_S = 1.5, 0.1
_DAMPINGS_MAX, _GAIN_MIN = 6, 1e-7
# Common instants: a box has three numbers where joints have dozens.
INSTANTS_MAX = 1500
# Two boxes of one camera are of two people.
_SAME_VIEW_M = 1e3


class _Boxes(NamedTuple):
    """Boxes of all cameras around instants: rows of `Views` in pixels of pictures without distortion.

    Attributes:
        view, instant: (n_rows,). tracklet: (n_rows, 3, 3) as in `BoxObservations`.
    """

    view: IntArray
    instant: IntArray
    tracklet: FloatArray

    @classmethod
    def of(cls, views: Views, nominal: FloatArray) -> _Boxes:
        """From tracklets normalised with nominal lenses (n_views, N_OF_LENS)."""
        lens = nominal[views.view]
        px = views.tracklet[:, :, :, :] * np.exp(lens[:, 0])[:, None, None, None]
        px[:, :, 0] += lens[:, None, 1:3]
        upper, lower = px[:, 0], px[:, 1]  # (n, power, xy)
        return cls(views.view, views.instant, np.stack([upper[..., 0], upper[..., 1], lower[..., 1]], axis=-1))


class _Placed(NamedTuple):
    """Where boxes stand (n, 2), NaN where nowhere on the floor; and whether they show whole people."""

    place_m: FloatArray
    whole: NDArray[np.bool_]


class _Solution(NamedTuple):
    """Cameras, people (n, N_OF_PERSON), and the boxes' weights and standard deviations (n, 3), after an adjustment."""

    cameras: BoxCameras
    people: FloatArray
    weight: FloatArray
    sd_px: FloatArray


def solve_box_structure(
    detections: Sequence[LinkedDetections],
    uprights: Sequence[UprightView | None],
    names: Sequence[str],
    lenses: Lenses,
    span_s: float,
) -> Structure:
    """Place cameras from boxes.

    Args:
        detections: of each camera, layout box2, normalised with `lenses`.
        uprights: what upright people show of each camera; None where they show nothing.
        names: of the cameras.
        lenses: without distortion where they are to be found.
        span_s: seconds of the recording that are used.

    Raises:
        FusionError: no two cameras can be placed.
    """
    random = np.random.default_rng(SEED)
    instants_s = random_instants_s(span_s, INSTANTS_MAX, random)
    views = Views.of(detections, instants_s, np.zeros(len(detections)), lenses)
    nominal = np.zeros((len(names), N_OF_LENS))
    nominal[:, :3] = [(np.log(f), c.matrix[0][2], c.matrix[1][2]) for c, f in zip(lenses.cameras, lenses.focal_px)]
    alike = _STANDING * views.alike
    boxes = _Boxes.of(views, nominal)
    alone = _alone(uprights, nominal)
    placed, cameras, faults = _joined(boxes, alone, uprights, names, random)
    # From here on, views are indices into the placed cameras.
    rows = np.flatnonzero(np.isin(boxes.view, placed))
    own = _Boxes(np.searchsorted(placed, boxes.view[rows]), boxes.instant[rows], boxes.tracklet[rows])
    for limit_m, n_steps in zip(_LIMITS_M, _STEPS):
        prior = _prior(lenses, placed, cameras, alike)
        of_row, start = _matched(own, cameras, limit_m)
        seen = np.flatnonzero(of_row >= 0)
        seen = seen[np.argsort(of_row[seen], kind="stable")]
        observations = BoxObservations(own.view[seen], of_row[seen], own.tracklet[seen])
        solution = _adjust(observations, cameras, start, n_steps, prior)
        cameras = solution.cameras
        lenses = _with_lenses(lenses, placed, cameras)
    instant = np.zeros(len(start), np.int64)
    instant[observations.point] = own.instant[seen]
    return _structure(observations, solution, instant, placed, lenses, prior, alike, instants_s, faults)


def _alone(uprights: Sequence[UprightView | None], nominal: FloatArray) -> BoxCameras:
    """Each camera on a floor of its own, ahead of it along y."""
    rotation, centre, lens = np.repeat(np.eye(3)[None], len(nominal), 0), np.zeros((len(nominal), 3)), nominal.copy()
    for view, upright in enumerate(uprights):
        if upright is not None:
            up = upright.up
            ahead = np.array([0.0, 0.0, 1.0]) - up[2] * up
            ahead = ahead / max(float(np.linalg.norm(ahead)), 1e-6)
            rotation[view] = np.stack([np.cross(ahead, up), ahead, up], axis=1)
            centre[view, 2] = upright.height_m
            lens[view, 3] = upright.radial
    n = len(nominal)
    return BoxCameras(rotation, centre, np.zeros(n), lens, np.full(n, STEP_M), np.full(n, SOLE_M))


def _joined(
    boxes: _Boxes,
    alone: BoxCameras,
    uprights: Sequence[UprightView | None],
    names: Sequence[str],
    random: np.random.Generator,
) -> tuple[IntArray, BoxCameras, dict[str, str]]:
    """The placed cameras, them on one floor, and why the others have no place."""
    at = _place(boxes, alone)
    n = len(names)
    floors = []
    for view in range(n):
        own = np.flatnonzero((boxes.view == view) & at.whole) if uprights[view] is not None else np.zeros(0, int)
        floors.append(FloorPoints(boxes.instant[own], at.place_m[own]))
    pairs = [
        pair
        for a in range(n)
        for b in range(a + 1, n)
        if (pair := find_pair(a, b, floors[a], floors[b], random)) is not None
    ]
    ways = join_floors(pairs)
    if not ways:
        shown = ", ".join(f"{name} {len(np.unique(floor.instant))}" for name, floor in zip(names, floors))
        raise FusionError(
            f"cameras: want two that see the same people whole at {AGREED_MIN} instants and agree about them, "
            f"got none; instants with whole people: {shown}"
        )
    placed = np.array(sorted(ways))
    scale = float(np.exp(np.mean([np.log(abs(ways[view].turn)) for view in placed.tolist()])))
    cameras = _onto_one_floor(alone.of(placed), [ways[view] for view in placed.tolist()], scale)
    faults = {}
    for view in sorted(set(range(n)) - set(ways)):
        n_whole = len(np.unique(floors[view].instant))
        faults[names[view]] = (
            "its boxes fit no other camera's: a clock far off, or too little movement?"
            if n_whole >= AGREED_MIN
            else f"want boxes of whole people at {AGREED_MIN} instants, got {n_whole}"
        )
    return placed, cameras, faults


def _onto_one_floor(cameras: BoxCameras, ways: Sequence[Similarity], scale: float) -> BoxCameras:
    """Cameras on floors of their own, brought onto one of usual statures."""
    rotation, centre = cameras.rotation.copy(), cameras.centre_m.copy()
    for at, way in enumerate(ways):
        c, s = (way.turn / abs(way.turn)).real, (way.turn / abs(way.turn)).imag
        rotation[at] = rotation[at] @ np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
        centre[at] = np.array([way.shift.real, way.shift.imag, cameras.centre_m[at, 2] * abs(way.turn)]) / scale
    return replace(cameras, rotation=rotation, centre_m=centre)


def _place(boxes: _Boxes, cameras: BoxCameras) -> _Placed:
    """Where boxes stand: by their lower edge where they are as high as a person, else by their upper edge."""
    each = cameras.of(boxes.view)
    u = each.offset_s[:, None]
    seen = boxes.tracklet[:, 0] + u * (boxes.tracklet[:, 1] + u * boxes.tracklet[:, 2])
    at_upper = _solved(each, seen, edge=1, z=STATURE_M)
    at_lower = _solved(each, seen, edge=2, z=0.0)
    expected = seen + _box_off(each, seen, at_lower)
    with np.errstate(invalid="ignore"):
        whole = np.abs(expected[:, 1] - seen[:, 1]) < _WHOLE * (seen[:, 2] - seen[:, 1])
    return _Placed(np.where(whole[:, None], at_lower, at_upper), whole)


def _box_off(each: BoxCameras, seen: FloatArray, place_m: FloatArray) -> FloatArray:
    """(n, 3) expected boxes of usual people at places (n, 2), minus those seen."""
    person = np.tile([0.0, 0.0, STATURE_M, 0.0, 0.0], (len(place_m), 1))
    person[:, :2] = place_m
    tracklet = np.zeros((len(seen), 3, 3))
    tracklet[:, 0] = seen
    own = np.arange(len(seen))
    return box_residuals(BoxObservations(own, own, tracklet), each, person).px


def _solved(each: BoxCameras, seen: FloatArray, edge: int, z: float) -> FloatArray:
    """(n, 2) places whose boxes have the middle and one edge that is seen, by Newton's method from the ray at height z.

    NaN where the ray does not meet that height before the camera.
    """
    ideal = without_lens(np.stack([seen[:, 0], seen[:, edge]], axis=1), each.lens)
    ray = np.einsum("nji,nj->ni", each.rotation, np.concatenate([ideal, np.ones((len(ideal), 1))], axis=1))
    with np.errstate(all="ignore"):
        length = (z - each.centre_m[:, 2]) / ray[:, 2]
        place = each.centre_m[:, :2] + length[:, None] * ray[:, :2]
        place[~((length > 0.0) & (length < 40.0))] = np.nan
        for _ in range(3):
            off = _box_off(each, seen, place)[:, [0, edge]]
            slope = np.stack(
                [(_box_off(each, seen, place + h)[:, [0, edge]] - off) / 1e-4 for h in np.eye(2) * 1e-4], axis=2
            )
            good = np.isfinite(slope).all(axis=(1, 2)) & (np.abs(np.linalg.det(np.nan_to_num(slope))) > 1.0)
            change = np.zeros_like(place)
            change[good] = np.linalg.solve(slope[good], -off[good][:, :, None])[:, :, 0]
            place = place + np.clip(change, -1.0, 1.0)
    return np.asarray(place)


def _matched(boxes: _Boxes, cameras: BoxCameras, limit_m: float) -> tuple[IntArray, FloatArray]:
    """(n_rows,) person of each box, -1 for none, and people (n_people, N_OF_PERSON).

    By average linkage of the places of an instant's boxes.
    """
    at = _place(boxes, cameras)
    of_row = np.full(len(boxes.view), -1)
    people: list[list[float]] = []
    known = np.flatnonzero(np.isfinite(at.place_m).all(axis=1))
    known = known[np.argsort(boxes.instant[known], kind="stable")]
    for rows in np.split(known, np.flatnonzero(np.diff(boxes.instant[known])) + 1):
        if len(rows) < 2:
            continue
        i, j = np.triu_indices(len(rows), 1)
        apart = np.linalg.norm(at.place_m[rows[i]] - at.place_m[rows[j]], axis=1)
        apart = np.minimum(apart, 4.0 * limit_m)
        apart[boxes.view[rows[i]] == boxes.view[rows[j]]] = _SAME_VIEW_M
        label = fcluster(linkage(apart, "average"), limit_m, "distance") - 1
        for number in np.flatnonzero(np.bincount(label) > 1).tolist():
            same = rows[label == number]
            best = same[at.whole[same]] if at.whole[same].any() else same
            of_row[same] = len(people)
            people.append([*np.median(at.place_m[best], axis=0).tolist(), STATURE_M, 0.0, 0.0])
    if not people:
        raise FusionError("boxes: want people that two cameras see at one place, got none")
    return of_row, np.array(people)


def _prior(lenses: Lenses, placed: IntArray, cameras: BoxCameras, alike: float) -> tuple[FloatArray, FloatArray]:
    """Precision and expectation (n, N_OF_BOX_CAMERA) of the unknowns; lens, step and sole have an expectation."""
    precision = np.zeros((len(placed), N_OF_BOX_CAMERA))
    expected = np.zeros_like(precision)
    precision[:, N_UNKNOWNS - 1] = _CLOCK_SD_S**-2.0
    lens = slice(N_UNKNOWNS, N_UNKNOWNS + N_OF_LENS)
    precision[:, lens] = np.inf
    known = lenses.prior(placed, alike)
    if known is not None:
        unit = np.ones((len(placed), N_OF_LENS))
        unit[:, 1:3] = lenses.focal_px[placed][:, None]
        precision[:, lens] = known.precision / unit**2
        expected[:, lens] = cameras.lens + known.expected * unit
    precision[:, -2:], expected[:, -2:] = alike * np.array([STEP_SD_M, SOLE_SD_M]) ** -2.0, (STEP_M, SOLE_M)
    return precision, expected


def _prior_at(prior: tuple[FloatArray, FloatArray], cameras: BoxCameras) -> Prior:
    precision, expected = prior
    off = np.zeros_like(precision)
    off[:, N_UNKNOWNS - 1] = cameras.offset_s
    now = np.concatenate([cameras.lens, cameras.step_m[:, None], cameras.sole_m[:, None]], axis=1)
    off[:, N_UNKNOWNS:] = now - expected[:, N_UNKNOWNS:]
    return Prior(precision, np.where(np.isfinite(precision), off, 0.0))


def _people_prior(people: FloatArray) -> Prior:
    """Statures are usual, and heads above feet."""
    precision, off = np.zeros_like(people), np.zeros_like(people)
    precision[:, 2], off[:, 2] = STATURE_SD_M**-2.0, people[:, 2] - STATURE_M
    precision[:, 3:], off[:, 3:] = LEAN_SD_M**-2.0, people[:, 3:]
    return Prior(precision, off)


def _adjust(
    observations: BoxObservations,
    cameras: BoxCameras,
    people: FloatArray,
    n_steps: int,
    prior: tuple[FloatArray, FloatArray],
) -> _Solution:
    """Levenberg and Marquardt's method on Cauchy's cost of each edge, with people eliminated."""
    damping = 1e-4
    n_views = len(cameras.centre_m)
    found = box_residuals(observations, cameras, people)
    sd_px = _sd_px(observations, cameras, found.px, found.depth_m)
    for number in range(n_steps):
        sd_px = _sd_px(observations, cameras, found.px, found.depth_m)
        total = _cost(found.px, sd_px) + _prior_at(prior, cameras).cost + _people_prior(people).cost
        linear = linearise_boxes(observations, cameras, people, np.sqrt(_weight(found.px, sd_px)) / sd_px)
        gain = 0.0
        for _ in range(_DAMPINGS_MAX):
            step = NormalEquations(
                observations, linear, n_views, len(people), damping, _prior_at(prior, cameras), _people_prior(people)
            ).step()
            new_cameras, new_people = cameras.moved(step.views), people + step.points_m
            new = box_residuals(observations, new_cameras, new_people)
            new_total = _cost(new.px, sd_px) + _prior_at(prior, new_cameras).cost + _people_prior(new_people).cost
            if new_total < total:
                gain, damping = total - new_total, max(damping / 5.0, 1e-9)
                cameras, people, found = new_cameras, new_people, new
                break
            damping *= 8.0
        if gain < _GAIN_MIN * total and number > 2:
            break
    return _Solution(cameras, people, _weight(found.px, sd_px), sd_px)


def _sd_px(observations: BoxObservations, cameras: BoxCameras, px: FloatArray, depth_m: FloatArray) -> FloatArray:
    """(n, 3) standard deviations: 1.25 times the median of each edge's residuals at the person, in pixels there."""
    unit = np.maximum(depth_m, DEPTH_MIN_M)[:, None] / np.exp(cameras.lens[observations.view, :1])
    sd_m = np.clip(1.25 * np.median(np.abs(px * unit), axis=0), _SD_MIN_M, _SD_MAX_M)
    return np.asarray(np.hypot(sd_m / unit, _SD_PX))


def _weight(px: FloatArray, sd_px: FloatArray) -> FloatArray:
    return np.asarray(1.0 / (1.0 + (px / (_HALF_WEIGHT_AT * sd_px)) ** 2))


def _cost(px: FloatArray, sd_px: FloatArray) -> float:
    return float(_HALF_WEIGHT_AT**2 * np.log1p((px / (_HALF_WEIGHT_AT * sd_px)) ** 2).sum())


def _with_lenses(lenses: Lenses, placed: IntArray, cameras: BoxCameras) -> Lenses:
    """The lenses that were to be found, as they were adjusted."""
    out = list(lenses.cameras)
    for at, view in enumerate(placed.tolist()):
        if lenses.free[view]:
            out[view] = with_lens(out[view], cameras.lens[at])
    return replace(lenses, cameras=tuple(out))


def _structure(
    observations: BoxObservations,
    solution: _Solution,
    instant: IntArray,
    placed: IntArray,
    lenses: Lenses,
    prior: tuple[FloatArray, FloatArray],
    alike: float,
    instants_s: FloatArray,
    faults: dict[str, str],
) -> Structure:
    """The solution with its covariance; a person's points are the upper and the lower end of the box."""
    cameras, people, weight, sd_px = solution
    poses = Poses(cameras.rotation, cameras.centre_m, cameras.offset_s)
    found = box_residuals(observations, cameras, people)
    linear = linearise_boxes(observations, cameras, people, np.sqrt(weight) / sd_px)
    normal = NormalEquations(
        observations, linear, len(placed), len(people), 0.0, _prior_at(prior, cameras), _people_prior(people)
    )  # fmt: skip
    # A shift on the floor, a turn about z and a common clock change nothing.
    turns = free_directions(poses)[:, [0, 1, 5, 7]].reshape(len(placed), N_UNKNOWNS, 4)
    gauge = np.zeros((len(placed), N_OF_BOX_CAMERA, 4))
    gauge[:, :N_UNKNOWNS] = turns
    noise = float((weight * (found.px / sd_px) ** 2).sum() / max(weight.sum(), 1.0))
    cov = camera_covariance(
        normal, observations, gauge.reshape(-1, 4), (clusters_of(instants_s, instant),), alike * max(noise, 1.0)
    )  # fmt: skip
    focal = np.exp(cameras.lens[observations.view, 0])
    residual_m = np.linalg.norm(found.px, axis=1) * np.maximum(found.depth_m, DEPTH_MIN_M) / focal
    sd_m = np.median(sd_px * (np.maximum(found.depth_m, DEPTH_MIN_M) / focal)[:, None], axis=0)
    heads_m, feet_m = people[:, :3].copy(), people[:, :3] * [1.0, 1.0, 0.0]
    heads_m[:, :2] += people[:, 3:]
    n = len(observations.view)
    boxes = PointObservations(
        observations.view, observations.point, np.zeros(n, int), observations.tracklet[:, :, :2], focal
    )
    bodies = Bodies(observations.point, instant, np.stack([heads_m, feet_m], axis=1), boxes, 2 * np.arange(len(people)))
    adjusted = Adjusted(poses, heads_m, weight.mean(axis=1), residual_m, sd_m)
    return Structure(placed, poses, lenses, adjusted, bodies, instants_s, cov, faults)
