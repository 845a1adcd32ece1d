"""Structure from people: the places and clocks of cameras, from people's joints in their pictures alone.

1. Each camera's detections are linked from picture to picture for a moment, so that joints have a place at any time
   near common instants (`tracklets`).
2. Pairs of cameras: the relative pose about which most people agree, without knowing who is who (`pair_pose`).
3. From the best pair on, one camera after another is placed by the bodies located so far, and everything is adjusted
   together (`growth`, `bodies`, `adjustment`).

Source: Hartley and Zisserman, Multiple View Geometry (2004), chapters 9 to 12 and 18; Takahashi et al., Human Pose as
Calibration Pattern (2018) for joints as correspondences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.errors import FusionError
from fusion.setup.adjustment import Adjusted, covariance
from fusion.setup.bodies import Bodies, adjust_with_bodies
from fusion.setup.growth import place_cameras, rough_limit_m, with_poses
from fusion.setup.lenses import Lenses
from fusion.setup.pair_pose import AGREED_MIN, ROUGH_M, Pair, PairSearch
from fusion.setup.reprojection import FloatArray, IntArray, Poses
from fusion.setup.tracklets import LinkedDetections
from fusion.setup.views import CORRELATED_S, Views

# Common instants: enough for a few millimetres, and far enough apart that detectors err independently.
INSTANTS_MAX, INSTANT_STEP_S = 600, 0.1
# Instants for placing one camera after another.
ROUGH_INSTANTS = 150
# Views of one body agree within this share of the rough limit once cameras are adjusted: 5 cm with good detectors.
FINE_SHARE = 0.05 / ROUGH_M
# Each camera is compared with at most this many others: those that share at least this fraction of what its best
# partner shares with it.
PARTNERS, PARTNER_SHARE = 8, 0.5
# Steps of the two final adjustments; people are matched again in between.
_FINAL_STEPS = (8, 20)
# With lenses, more of them: corrections of lenses are put into the cameras after each.
_FINAL_STEPS_WITH_LENSES = (10, 10, 10, 20)
# Fixed, so that a calibration can be repeated.
SEED = 20180622
# Clusters of seconds are at least this many.
CLUSTERS_MIN = 8


@dataclass(frozen=True)
class Structure:
    """Where cameras are, in a frame of their own, about in metres.

    Attributes:
        placed: (n,) ascending indices of the cameras that have a place; poses and observations are of these.
        poses, lenses, adjusted, bodies: the estimate; `lenses` are of all cameras.
        instants_s: (n_instants,) seconds since the first frame.
        covariance: (n, u, u) of each placed camera's rotation, centre and clock offset, and of its lens where lenses
            were found; see `adjustment.covariance`.
        faults: by name, why a camera has no place.
    """

    placed: IntArray
    poses: Poses
    lenses: Lenses
    adjusted: Adjusted
    bodies: Bodies
    instants_s: FloatArray
    covariance: FloatArray
    faults: dict[str, str]


@dataclass(frozen=True)
class _Overlap:
    """Which cameras show people at the same instants.

    Attributes:
        occupied: (n_views, n_instants) whether a camera shows anybody.
        shared: (n_views, n_views) instants at which two cameras do; 0 on the diagonal.
    """

    occupied: NDArray[np.bool_]
    shared: IntArray

    @classmethod
    def of(cls, views: Views) -> _Overlap:
        occupied = np.asarray((views.row >= 0).any(axis=2))
        shared = (occupied[:, None] & occupied[None]).sum(axis=2)
        np.fill_diagonal(shared, 0)
        return cls(occupied, shared)


def solve_structure(
    detections: Sequence[LinkedDetections], names: Sequence[str], lenses: Lenses, span_s: float
) -> Structure:
    """Place cameras that are not known to be anywhere.

    Args:
        detections: of each camera.
        names: of the cameras.
        lenses: with which the detections are normalised, and which of them are to be found.
        span_s: seconds of the recording that are used, from the start of the detections.

    Raises:
        FusionError: no two cameras can be placed.
    """
    random = np.random.default_rng(SEED)
    n = len(detections)
    rough = Views.of(detections, random_instants_s(span_s, ROUGH_INSTANTS, random), np.zeros(n), lenses)
    overlap = _Overlap.of(rough)
    pairs = _pairs(rough, overlap, random)
    if not pairs:
        raise FusionError(_too_little(names, detections, overlap))
    grown = place_cameras(rough, pairs)
    placed, offset_s = grown.placed, grown.poses.offset_s
    instants_s = random_instants_s(span_s, INSTANTS_MAX, random)
    views = Views.of(detections, instants_s, offset_s, lenses).through(grown.lenses)
    poses = Poses(grown.poses.rotation, grown.poses.centre_m, np.zeros(n))
    fine_m = FINE_SHARE * rough_limit_m(pairs)
    steps = _FINAL_STEPS_WITH_LENSES if lenses.free[placed].any() else _FINAL_STEPS
    for n_steps in steps:
        found = adjust_with_bodies(views, poses, placed, fine_m, n_steps)
        views = found.views
        poses = with_poses(poses, placed, found.adjusted.poses)
    adjusted = found.adjusted
    total_offset_s = offset_s[placed] + adjusted.poses.offset_s
    final = Poses(adjusted.poses.rotation, adjusted.poses.centre_m, total_offset_s)
    left_out = sorted(set(range(n)) - set(placed.tolist()))
    faults = {names[view]: _fault(view, names, detections, overlap, pairs) for view in left_out}
    bodies = found.bodies
    body, joint = np.divmod(bodies.points, bodies.points_m.shape[1])
    clusters = (clusters_of(instants_s, bodies.instant[body]), joint)
    # What is known of lenses has entered the adjustment as often as observations count as one.
    alike = 1.0 if found.lens_prior is None else views.alike
    cov = covariance(bodies.observations, adjusted, clusters, found.lens_prior, alike)
    return Structure(placed, final, views.lenses, adjusted, bodies, instants_s, cov, faults)


def clusters_of(instants_s: FloatArray, instant: IntArray) -> IntArray:
    """(n_points,) cluster of the seconds of each point's instant (n_points,): a detector's errors last within one."""
    span_s = float(instants_s.max())
    length_s = min(CORRELATED_S, max(span_s / CLUSTERS_MIN, 1e-3))
    return np.unique((instants_s[instant] / length_s).astype(int), return_inverse=True)[1]


def random_instants_s(span_s: float, n_max: int, random: np.random.Generator) -> FloatArray:
    """Evenly over the span, each at random in its share: none in step with a camera."""
    n = max(min(n_max, int(span_s / INSTANT_STEP_S)), 1)
    return (np.arange(n) + random.random(n)) * span_s / n


def _pairs(views: Views, overlap: _Overlap, random: np.random.Generator) -> list[Pair]:
    """Relative poses of cameras that share many instants, a few partners for each camera."""
    shared = overlap.shared
    wanted: set[tuple[int, int]] = set()
    for view in range(len(shared)):
        partners = np.flatnonzero((shared[view] >= PARTNER_SHARE * shared[view].max()) & (shared[view] >= AGREED_MIN))
        wanted |= {(min(view, int(p)), max(view, int(p))) for p in random.permutation(partners)[:PARTNERS]}
    return [pair for a, b in sorted(wanted) if (pair := PairSearch(views, a, b, random).search()) is not None]


def _fault(
    view: int, names: Sequence[str], detections: Sequence[LinkedDetections], overlap: _Overlap, pairs: Sequence[Pair]
) -> str:
    """Why a camera has no place."""
    if not len(detections[view].t_s):
        return "no frames"
    n_occupied, n_instants = overlap.occupied[view].sum(), overlap.occupied.shape[1]
    if n_occupied < AGREED_MIN:
        return f"want people at {AGREED_MIN} of {n_instants} instants, got {n_occupied}"
    shared = overlap.shared[view]
    if shared.max() < AGREED_MIN:
        partner = names[int(shared.argmax())]
        want = f"want people at {AGREED_MIN} instants together with another camera"
        return f"{want}, got {shared.max()} with {partner!r}"
    ends = [(pair.first, pair.second) for pair in pairs if view in (pair.first, pair.second)]
    fitting = sorted({names[first if second == view else second] for first, second in ends})
    if fitting:
        return f"its detections fit {', '.join(fitting)} and not the other cameras"
    return "its detections fit no other camera: wrong intrinsics, a clock far off, or too little movement?"


def _too_little(names: Sequence[str], detections: Sequence[LinkedDetections], overlap: _Overlap) -> str:
    """Why no two cameras can be placed."""
    shared = overlap.shared
    message = f"cameras: want two that see the same people at {AGREED_MIN} instants and agree about them, got none; "
    a, b = divmod(int(np.triu(shared + 1, 1).argmax()), len(shared))
    message += f"most are shared by {names[a]!r} and {names[b]!r}: {shared[a, b]} of {overlap.occupied.shape[1]}"
    silent = [name for name, camera in zip(names, detections) if not len(camera.t_s)]
    return message + (f"; without frames: {', '.join(silent)}" if silent else "")
