"""People located by several cameras at common instants: matched by rays that meet, then triangulated and adjusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from fusion.people.geometry import Rig, Status, triangulate
from fusion.setup.adjustment import Adjusted, adjust
from fusion.setup.epipolar import homogeneous
from fusion.setup.lenses import LensPrior
from fusion.setup.reprojection import FloatArray, IntArray, PointObservations, Poses
from fusion.setup.tracklets import JOINTS_MIN
from fusion.setup.views import Views

# Rays that meet where a body would look smaller or larger than by these factors are of two people.
_SIZE_MIN, _SIZE_MAX = 0.5, 2.0
# For triangulation all lenses have this focal length, and joints this standard deviation: some centimetres at some
# metres.
_FOCAL_PX, _SD_PX = 1000.0, 6.0
# Two cameras do not determine their lenses and their poses well.
_LENSES_FROM = 3


@dataclass(frozen=True)
class Bodies:
    """Bodies located at instants; a person at two instants is two of them.

    Attributes:
        of_row: (n_rows,) body of each row of `Views`, -1 for none.
        instant: (n_bodies,) index.
        points_m: (n_bodies, K, 3) joints in the cameras' own frame, NaN where they were not located.
        observations: the detections that located them; `observations.point` is an index into `points`.
        points: (n_points,) flat index body * K + joint of each located joint.
    """

    of_row: IntArray
    instant: IntArray
    points_m: FloatArray
    observations: PointObservations
    points: IntArray


@dataclass(frozen=True)
class AdjustedBodies:
    """Cameras and bodies after a bundle adjustment.

    Attributes:
        adjusted: the estimate; its cameras are the placed ones, in order.
        bodies: with their adjusted joints; `observations.view` is an index into the placed cameras.
        views: all detections, normalised with the lenses as they were corrected.
        lens_prior: of the placed cameras, None where no lens was adjusted.
    """

    adjusted: Adjusted
    bodies: Bodies
    views: Views
    lens_prior: LensPrior | None


def locate_bodies(views: Views, poses: Poses, placed: IntArray, limit_m: float) -> Bodies:
    """Match the detections of every instant, and triangulate the joints.

    Args:
        views: all detections.
        poses: of all cameras.
        placed: (n_placed,) ascending indices of the cameras with a pose.
        limit_m: mean distance within which the rays of one body's joints meet.
    """
    of_row = _matched(views, poses, placed, limit_m)
    rows = np.flatnonzero(of_row >= 0)
    k = views.tracklet.shape[1]
    n_bodies = int(of_row.max()) + 1 if len(rows) else 0
    instant = np.zeros(n_bodies, np.int64)
    instant[of_row[rows]] = views.instant[rows]
    seen = np.full((len(placed), n_bodies, k, 2), np.nan)
    place = np.searchsorted(placed, views.view[rows])
    seen[place, of_row[rows]] = views.at(rows, poses.offset_s[views.view[rows]])
    lens = np.repeat(np.diag([_FOCAL_PX, _FOCAL_PX, 1.0])[None], len(placed), axis=0)
    rig = Rig(
        tuple(map(str, placed)), poses.camera_from_world()[placed], lens, np.zeros((len(placed), 5)), lens[:, :2, 2]
    )
    points_px = np.ascontiguousarray(_FOCAL_PX * seen.reshape(len(placed), -1, 2))
    located = triangulate(rig, points_px, sd_px=_SD_PX)
    usable = located.agreeing & (located.status == Status.OK)
    point, at_place = np.nonzero(usable.T)
    row_of = np.full((len(placed), n_bodies), -1)
    row_of[place, of_row[rows]] = rows
    body, joint = np.divmod(point, k)
    row = row_of[at_place, body]
    points, index = np.unique(point, return_inverse=True)
    view = views.view[row]
    observations = PointObservations(view, index, joint, views.tracklet[row, joint], views.lenses.focal_px[view])
    return Bodies(of_row, instant, located.points_m.reshape(n_bodies, k, 3), observations, points)


def adjust_with_bodies(
    views: Views, poses: Poses, placed: IntArray, limit_m: float, n_steps: int
) -> AdjustedBodies:
    """Locate the bodies, then adjust the placed cameras and the bodies together; arguments as for `locate_bodies`.

    Lenses that are to be found are adjusted where enough cameras are placed.
    """
    bodies = locate_bodies(views, poses, placed, limit_m)
    k = views.tracklet.shape[1]
    observations = bodies.observations.of_views(placed)
    prior = views.lenses.prior(placed, views.alike) if len(placed) >= _LENSES_FROM else None
    lens = None if prior is None else np.zeros_like(prior.expected)
    start = Poses(poses.rotation[placed], poses.centre_m[placed], poses.offset_s[placed], lens)
    adjusted = adjust(observations, start, bodies.points_m.reshape(-1, 3)[bodies.points], k, n_steps, prior)
    corrected = views.through(views.lenses.corrected(placed, adjusted.poses.lens))
    points_m = np.full_like(bodies.points_m, np.nan)
    points_m.reshape(-1, 3)[bodies.points] = adjusted.points_m
    bodies = Bodies(bodies.of_row, bodies.instant, points_m, observations, bodies.points)
    return AdjustedBodies(adjusted, bodies, corrected, prior)


def _matched(views: Views, poses: Poses, placed: IntArray, limit_m: float) -> IntArray:
    """(n_rows,) body of each detection, -1 for none: average linkage of the distances between rays, instant by instant.

    Two detections of one camera are never one body.
    """
    out = np.full(len(views.view), -1)
    n_bodies = 0
    for instant_rows in views.row[placed].transpose(1, 0, 2):
        rows = instant_rows[instant_rows >= 0]
        if len(rows) < 2:
            continue
        label = fcluster(linkage(_ray_distances_m(views, poses, rows, limit_m), "average"), limit_m, "distance") - 1
        number = np.full(label.max() + 1, -1)
        several = np.flatnonzero(np.bincount(label) > 1)
        number[several] = n_bodies + np.arange(len(several))
        n_bodies += len(several)
        out[rows] = number[label]
    return out


def _ray_distances_m(views: Views, poses: Poses, rows: IntArray, limit_m: float) -> FloatArray:
    """Mean distance between the rays of the joints of each pair of rows, in the order of `numpy.triu_indices`."""
    view = views.view[rows]
    ray = homogeneous(views.at(rows, poses.offset_s[view])) @ poses.rotation[view]  # (n, K, 3)
    a, b = np.triu_indices(len(rows), 1)
    base = poses.centre_m[view[b]] - poses.centre_m[view[a]]
    d_a, d_b = ray[a], ray[b]
    aa, bb, ab = (d_a**2).sum(-1), (d_b**2).sum(-1), (d_a * d_b).sum(-1)
    at, bt = (d_a * base[:, None]).sum(-1), (d_b * base[:, None]).sum(-1)
    det = np.maximum(aa * bb - ab * ab, 1e-9)
    z_a, z_b = (bb * at - ab * bt) / det, (ab * at - aa * bt) / det
    off = np.linalg.norm(base[:, None] + z_b[..., None] * d_b - z_a[..., None] * d_a, axis=-1)
    size_a, size_b = z_a * views.scale[rows[a], None], z_b * views.scale[rows[b], None]
    fits = (np.minimum(size_a, size_b) > _SIZE_MIN) & (np.maximum(size_a, size_b) < _SIZE_MAX)
    off = np.where(np.isfinite(off), np.where(fits, np.minimum(off, 4 * limit_m), 4 * limit_m), np.nan)
    n_shared = np.isfinite(off).sum(axis=1)
    apart = np.where(n_shared >= JOINTS_MIN, np.nansum(off, axis=1) / np.maximum(n_shared, 1), 1.5 * limit_m)
    apart[view[a] == view[b]] = 1e3
    return apart
