"""Incremental structure from motion: from the best pair on, one camera after another is placed by located bodies.

Source: Hartley and Zisserman, Multiple View Geometry (2004), chapter 18; Schönberger and Frahm, Structure-from-Motion
Revisited (2016), for the order of growth and adjustment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fusion.setup.adjustment import locate_camera
from fusion.setup.bodies import Bodies, adjust_with_bodies, locate_bodies
from fusion.setup.epipolar import depths, homogeneous
from fusion.setup.lenses import Lenses
from fusion.setup.pair_pose import AGREED_MIN, AGREED_SHARE, ROUGH_M, ROUGH_OVER_MEDIAN, Pair, agreement
from fusion.setup.reprojection import FloatArray, IntArray, PointObservations, Poses
from fusion.setup.views import Views

# Groups of cameras that may be tried before the largest is taken.
STARTS_MAX = 3
# Everything is adjusted once the cameras have grown by this factor, and after each of the first few.
_ADJUST_AT_GROWTH, _ADJUST_ALWAYS_BELOW = 1.35, 6
# Largest number of camera pairs from which a new camera is placed.
_PAIRS_TRIED = 6
# Least agreement at which a detection can be of a located body.
_SAME_MIN = 0.3


class PlacedCameras(NamedTuple):
    """Poses and lenses of all cameras, and the ascending indices of those that are placed."""

    poses: Poses
    placed: IntArray
    lenses: Lenses


class _Link(NamedTuple):
    """A pair of a new camera with a placed one."""

    placed: int
    pair: Pair


class _Fit(NamedTuple):
    """A pose, and how well the bodies agree with it."""

    pose: Poses
    agreed: float


def place_cameras(views: Views, pairs: Sequence[Pair]) -> PlacedCameras:
    """Place as many cameras as possible: of the groups that are connected by pairs, the largest."""
    largest = _Growth(views, pairs).run()
    left = list(pairs)
    for _ in range(STARTS_MAX - 1):
        # A pair of cameras that got no place may belong to another room, or this start was a wrong one.
        taken = set(largest.placed.tolist())
        left = [pair for pair in left if not {pair.first, pair.second} & taken]
        unplaced = {view for pair in left for view in (pair.first, pair.second)}
        if len(unplaced) <= len(largest.placed):
            break
        other = _Growth(views, left).run()
        if len(other.placed) > len(largest.placed):
            left, largest = list(pairs), other
    return largest


def with_poses(poses: Poses, placed: IntArray, found: Poses) -> Poses:
    """Poses of all cameras, with those of the cameras `placed` (n,) replaced by the n poses `found`."""
    rotation, centre, offset = poses.rotation.copy(), poses.centre_m.copy(), poses.offset_s.copy()
    rotation[placed], centre[placed], offset[placed] = found.rotation, found.centre_m, found.offset_s
    return Poses(rotation, centre, offset)


def rough_limit_m(pairs: Sequence[Pair]) -> float:
    """Distance within which views of one body agree before cameras are adjusted, by how well pairs of cameras agree."""
    off_m = [pair.off_m for pair in sorted(pairs, key=lambda pair: -pair.worth)[: max(3, len(pairs) // 2)]]
    return max(ROUGH_M, ROUGH_OVER_MEDIAN * float(np.median(off_m)))


class _Growth:
    """One group of cameras as it grows."""

    def __init__(self, views: Views, pairs: Sequence[Pair]) -> None:
        self._views, self._pairs = views, pairs
        self._rough_m = rough_limit_m(pairs)
        n = len(views.row)
        self._poses = Poses(np.repeat(np.eye(3)[None], n, axis=0), np.zeros((n, 3)), np.zeros(n))
        self._placed: list[int] = []

    def run(self) -> PlacedCameras:
        """Grow until no camera can be added."""
        self._begin(max(self._pairs, key=lambda pair: pair.worth))
        bodies, n_adjusted = self._adjust(12), 2
        while True:
            refused: set[int] = set()
            while (view := self._next(refused)) is not None and not self._add(view, bodies):
                refused.add(view)
            if view is None:
                break
            n_placed = len(self._placed)
            if n_placed >= _ADJUST_AT_GROWTH * n_adjusted or n_placed < _ADJUST_ALWAYS_BELOW:
                bodies, n_adjusted = self._adjust(8), n_placed
            else:
                bodies = locate_bodies(self._views, self._poses, self._in_order(), self._rough_m)
        self._adjust(8)
        return PlacedCameras(self._poses, self._in_order(), self._views.lenses)

    def _in_order(self) -> IntArray:
        return np.array(sorted(self._placed))

    def _begin(self, pair: Pair) -> None:
        """Place the cameras of a pair, as far apart as makes bodies about as large as they are."""
        rotation, direction, offset_s = pair.pose
        first = homogeneous(self._views.at(pair.rows[:, 0], 0.0))
        second = homogeneous(self._views.at(pair.rows[:, 1], offset_s))
        z_first = depths(rotation, direction, first, second).first
        length_m = float(np.nanmedian(1.0 / (z_first * self._views.scale[pair.rows[:, 0], None])))
        found = Poses(
            np.stack([np.eye(3), rotation]),
            np.stack([np.zeros(3), -rotation.T @ direction * length_m]),
            np.array([0.0, offset_s]),
        )
        self._placed = [pair.first, pair.second]
        self._poses = with_poses(self._poses, np.array(self._placed), found)

    def _adjust(self, n_steps: int) -> Bodies:
        """Adjust all placed cameras and the bodies together; returns the bodies."""
        placed = self._in_order()
        found = adjust_with_bodies(self._views, self._poses, placed, self._rough_m, n_steps)
        self._views = found.views
        self._poses = with_poses(self._poses, placed, found.adjusted.poses)
        return found.bodies

    def _links(self, view: int) -> list[_Link]:
        """Pairs of a camera with placed ones."""
        ends = [(a, p) for p in self._pairs for a, b in ((p.first, p.second), (p.second, p.first)) if b == view]
        return [_Link(known, pair) for known, pair in ends if known in self._placed]

    def _next(self, refused: set[int]) -> int | None:
        """The unplaced camera with the best pairs; None where none is left."""
        worth = {
            view: sum(link.pair.worth for link in links)
            for view in range(len(self._views.row))
            if view not in refused and view not in self._placed and (links := self._links(view))
        }
        return max(worth, key=lambda view: worth[view], default=None)

    def _add(self, view: int, bodies: Bodies) -> bool:
        """Place a camera; False where its detections do not fit the bodies that the others located."""
        best: _Fit | None = None
        for link in sorted(self._links(view), key=lambda link: -link.pair.worth)[:_PAIRS_TRIED]:
            start = self._guess(link, bodies)
            if start is None:
                continue
            fit = self._settle(view, start, bodies)
            if fit.agreed > (best.agreed if best is not None else 0.0):
                best = fit
        n_seen = (self._views.row[view] >= 0).sum(axis=1)
        n_possible = np.minimum(n_seen, np.bincount(bodies.instant, minlength=len(n_seen))).sum()
        if best is None or best.agreed < max(AGREED_MIN, AGREED_SHARE * n_possible):
            return False
        self._placed.append(view)
        self._poses = with_poses(self._poses, np.array([view]), best.pose)
        return True

    def _guess(self, link: _Link, bodies: Bodies) -> Poses | None:
        """A pose from a pair, with the length that puts its people where the bodies are."""
        known, pair = link
        forwards = pair.first == known
        rotation = pair.pose.rotation if forwards else pair.pose.rotation.T
        direction = pair.pose.direction if forwards else -pair.pose.rotation.T @ pair.pose.direction
        offset_s = self._poses.offset_s[known] + (pair.pose.offset_s if forwards else -pair.pose.offset_s)
        new_rows, known_rows = pair.rows[:, 1 if forwards else 0], pair.rows[:, 0 if forwards else 1]
        body = bodies.of_row[known_rows]
        new_rows, body = new_rows[body >= 0], body[body >= 0]
        if not len(new_rows):
            return None
        world = bodies.points_m[body] - self._poses.centre_m[known]
        turned = world @ (rotation @ self._poses.rotation[known]).T
        seen = homogeneous(self._views.at(new_rows, offset_s))
        # seen x (turned + length * direction) = 0
        a, b = np.cross(seen, direction), np.cross(seen, turned)
        size, length = (a**2).sum(-1).ravel(), (-(a * b).sum(-1) / (a**2).sum(-1)).ravel()
        good = np.isfinite(length)
        if good.sum() < AGREED_MIN:
            return None
        # The weighted median of the lengths that the joints give.
        order = np.argsort(length[good])
        total = np.cumsum(size[good][order])
        length_m = float(length[good][order][np.searchsorted(total, 0.5 * total[-1])])
        if length_m <= 0.0:
            return None
        camera_from_world = rotation @ self._poses.rotation[known]
        centre_m = self._poses.centre_m[known] - camera_from_world.T @ direction * length_m
        return Poses(camera_from_world[None], centre_m[None], np.array([offset_s]))

    def _settle(self, view: int, pose: Poses, bodies: Bodies) -> _Fit:
        """Match and adjust one camera to the located bodies in turn, with ever smaller limits."""
        rows = np.flatnonzero(self._views.view == view)
        at_instant = [np.flatnonzero(bodies.instant == k) for k in range(self._views.row.shape[1])]
        row = np.concatenate([np.repeat(r, len(at_instant[self._views.instant[r]])) for r in rows])
        body = np.concatenate([at_instant[self._views.instant[r]] for r in rows])
        agreed = 0.0
        for limit_m in (3.0 * self._rough_m, 1.5 * self._rough_m, self._rough_m):
            if not len(row):
                return _Fit(pose, 0.0)
            fits = agreement(self._off_m(pose, row, body, bodies), limit_m)
            order = np.argsort(-fits, kind="stable")
            order = order[fits[order] > _SAME_MIN]
            first_of_row = np.unique(row[order], return_index=True)[1]
            first_of_body = np.unique(body[order], return_index=True)[1]
            same = order[np.intersect1d(first_of_row, first_of_body)]
            agreed = float(fits[same].sum())
            if len(same) < AGREED_MIN:
                return _Fit(pose, 0.0)
            pose = self._located(view, pose, row[same], body[same], bodies)
        return _Fit(pose, agreed)

    def _off_m(self, pose: Poses, row: IntArray, body: IntArray, bodies: Bodies) -> FloatArray:
        """(n, K) distance of detected joints from those of bodies, at the bodies."""
        at = (bodies.points_m[body] - pose.centre_m[0]) @ pose.rotation[0].T
        seen = self._views.at(row, pose.offset_s[0])
        z = np.where(at[..., 2] > 0.1, at[..., 2], np.nan)
        return np.asarray(np.linalg.norm(at[..., :2] / z[..., None] - seen, axis=-1) * z)

    def _located(self, view: int, pose: Poses, row: IntArray, body: IntArray, bodies: Bodies) -> Poses:
        """The pose of a camera from matched detections and bodies."""
        tracklet = self._views.tracklet[row]
        match, joint = np.nonzero(np.isfinite(tracklet[:, :, 0, 0]) & np.isfinite(bodies.points_m[body, :, 0]))
        n = len(match)
        observations = PointObservations(
            np.zeros(n, int), np.arange(n), joint, tracklet[match, joint], np.full(n, self._views.lenses.focal_px[view])
        )
        return locate_camera(observations, pose, bodies.points_m[body][match, joint])
