"""One camera's detections as tracklets: short tracks in the picture that place joints at any instant near by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.observations import Frame
from fusion.people.geometry import Rig
from fusion.store.layouts import Layout
from fusion.store.models import Camera

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# A tracklet spans this time to either side of its instant, or the neighbouring pictures of slow cameras.
TRACKLET_S = 0.14
# People in one picture; how far a person moves between two pictures: metres, and metres a second on top.
PEOPLE_MAX, JUMP_M, SPEED_M_S = 12, 0.15, 3.0
# A joint counts where its score is at least this share of the joint's median score.
SCORE_SHARE = 0.6
# Joints that a detection, and a pair of detections, must have in common.
JOINTS_MIN = 5
# No lens has normalised coordinates beyond this: 72 degrees off the axis.
COORDINATE_MAX = 3.0
# A body is more than 50 metres away where its size in the picture over its size in metres is below this.
SCALE_MIN = 0.02
# Pictures that are compared with the next one at a time.
FRAMES_PER_BLOCK = 1024


class TrackletSet(NamedTuple):
    """Tracklets of one camera around instants.

    Attributes:
        polynomial: (n_instants, people, K, 3, 2) normalised coordinates as polynomials of the seconds since the
            instant, the constant first; NaN where detections do not determine one.
        scale: (n_instants, people) about one over the distance in metres; NaN where there is no person.
    """

    polynomial: FloatArray
    scale: FloatArray


class LinkedDetections:
    """One camera's detections, padded to arrays and linked from picture to picture.

    Attributes:
        t_s: (n_frames,) ascending, seconds since the start.
        points: (n_frames, people, K, 2) undistorted normalised coordinates, NaN where a joint was not seen well.
        scale: (n_frames, people) about one over the distance in metres, from the size in the picture; NaN where there
            is no person.
        next: (n_frames, people) index of the same person in the next picture, -1 for none.
    """

    def __init__(self, camera: Camera, frames: Sequence[Frame], start_ns: int, layout: Layout) -> None:
        """Undistort and link the detections.

        Args:
            camera: with its intrinsics.
            frames: of this camera, in time order.
            start_ns: the zero of `t_s`.
            layout: of the keypoints.
        """
        self.t_s = np.array([frame.t_ns - start_ns for frame in frames], np.float64) * 1e-9
        self.points = _normalised_points(camera, frames, layout)
        self.scale = _scales(self.points, layout)
        self.points[~(self.scale > SCALE_MIN)] = np.nan
        self.next = self._links()

    def _links(self) -> IntArray:
        """(n_frames, people): mutually nearest detections of neighbouring pictures, -1 for none."""
        n, n_people = self.scale.shape
        out = np.full((n, n_people), -1)
        if n < 2 or not n_people:
            return out
        off_m = np.empty((n - 1, n_people, n_people))
        for first in range(0, n - 1, FRAMES_PER_BLOCK):
            block = slice(first, min(first + FRAMES_PER_BLOCK, n - 1))
            off = np.linalg.norm(self.points[:-1, :, None][block] - self.points[1:, None, :][block], axis=-1)
            off_m[block] = _nanquantile(off, 0.5)
        with np.errstate(all="ignore"):
            off_m /= np.maximum(self.scale[:-1, :, None], self.scale[1:, None, :])
        off_m[~np.isfinite(off_m)] = np.inf
        best, back = off_m.argmin(axis=2), off_m.argmin(axis=1)
        mutual = np.take_along_axis(back, best, axis=1) == np.arange(n_people)
        near = np.take_along_axis(off_m, best[:, :, None], axis=2)[:, :, 0]
        limit_m = JUMP_M + SPEED_M_S * np.diff(self.t_s)
        out[:-1] = np.where(mutual & (near < limit_m[:, None]), best, -1)
        return out

    def tracklets(self, instants_s: FloatArray) -> TrackletSet:
        """Where joints were around instants (n_instants,) of the camera's clock."""
        n, n_people, k = self.points.shape[:3]
        polynomial = np.full((len(instants_s), n_people, k, 3, 2), np.nan)
        scale = np.full((len(instants_s), n_people), np.nan)
        if n < 3 or not n_people:
            return TrackletSet(polynomial, scale)
        period_s = float(np.median(np.diff(self.t_s)))
        half_s = max(TRACKLET_S, 1.2 * period_s)
        middle = np.clip(np.searchsorted(self.t_s, instants_s), 1, n - 1)
        middle -= np.abs(self.t_s[middle - 1] - instants_s) < np.abs(self.t_s[middle] - instants_s)
        frame, person = self._followed(middle, max(1, int(np.ceil(half_s / period_s))))
        t = self.t_s[frame] - instants_s
        points = self.points[frame[:, :, None], np.maximum(person, 0)]
        points[(person < 0) | (np.abs(t) > half_s + 0.5 * period_s)[:, :, None]] = np.nan
        scale = self.scale[middle]
        polynomial = _robust_parabolas(points, t[:, :, None, None], 0.02 * scale[..., None])
        gone = np.abs(t[0]) > 0.6 * period_s + 0.02
        polynomial[gone] = np.nan
        return TrackletSet(polynomial, scale)

    def _followed(self, middle: IntArray, reach: int) -> tuple[IntArray, IntArray]:
        """People followed from middle pictures (n_instants,) for `reach` pictures forwards, then backwards.

        Returns:
            Picture (window, n_instants), and index in it (window, n_instants, people), -1 once a link is missing.
        """
        n, n_people = self.scale.shape
        previous = np.full((n, n_people), -1)
        at, person = np.nonzero(self.next >= 0)
        previous[at + 1, self.next[at, person]] = person
        frames, people = [middle], [np.broadcast_to(np.arange(n_people), (len(middle), n_people))]
        for link, direction in ((self.next, 1), (previous, -1)):
            frame, index = middle, people[0]
            for _ in range(reach):
                index = np.where(index >= 0, link[frame[:, None], np.maximum(index, 0)], -1)
                frame = np.clip(frame + direction, 0, n - 1)
                frames.append(frame)
                people.append(index)
        return np.stack(frames), np.stack(people)


def _normalised_points(camera: Camera, frames: Sequence[Frame], layout: Layout) -> FloatArray:
    """(n_frames, people, K, 2) undistorted normalised coordinates; NaN for joints and detections seen too badly."""
    n_people = min(max((len(frame.keypoints) for frame in frames), default=0), PEOPLE_MAX)
    raw = np.zeros((len(frames), n_people, layout.n_joints, 3))
    for number, frame in enumerate(frames):
        people = frame.keypoints
        if len(people) > n_people:
            people = people[np.argsort(-(people[:, :, 2] > 0).sum(axis=1), kind="stable")[:n_people]]
        raw[number, : len(people)] = people
    score = raw[..., 2]
    usual = np.array([np.median(s[s > 0]) if (s > 0).any() else 1.0 for s in np.moveaxis(score, -1, 0)])
    raw[~(score >= SCORE_SHARE * usual)] = np.nan
    flat = np.ascontiguousarray(raw[..., :2].reshape(1, -1, 2))
    points = Rig.from_cameras([camera]).normalise(flat).reshape(len(frames), n_people, layout.n_joints, 2)
    points[np.abs(points).max(axis=-1) > COORDINATE_MAX] = np.nan
    points[np.isfinite(points[..., 0]).sum(axis=-1) < min(JOINTS_MIN, layout.n_joints)] = np.nan
    return points


def _scales(points: FloatArray, layout: Layout) -> FloatArray:
    """(n_frames, people) size in the picture over size in metres, NaN where there is no person.

    A limb seen at an angle looks shorter, never longer, so the longer ones give the distance.
    """
    if not len(layout.limbs):
        ends = layout.indices("box_top", "box_bottom")
        stature_m = float(layout.heights_m[ends[0], 0])
        return np.asarray(np.linalg.norm(points[:, :, ends[0]] - points[:, :, ends[1]], axis=-1) / stature_m)
    a, b = layout.limbs.T
    length = np.linalg.norm(points[:, :, a] - points[:, :, b], axis=-1) / layout.limb_lengths_m[:, 0]
    long_limbs = layout.limb_lengths_m[:, 0] > 0.15
    with np.errstate(all="ignore"):
        return _nanquantile(length[:, :, long_limbs], 0.75)


def _robust_parabolas(points: FloatArray, t: FloatArray, sd: FloatArray) -> FloatArray:
    """Parabolas through points (window, ..., 2) at times t, by reweighted least squares.

    Returns:
        (..., 3, 2) coefficients, the constant first; NaN where fewer than three points, or none on one side, hold them.
    """
    seen = np.isfinite(points[..., 0])
    filled = np.where(seen[..., None], points, 0.0)
    t = np.broadcast_to(t, seen.shape)
    powers = np.stack([np.ones_like(t), t, t * t], axis=-1)
    weight = seen.astype(float)
    for _ in range(3):
        normal = np.einsum("w...,w...a,w...b->...ab", weight, powers, powers)
        # A tracklet that bends more than a swinging foot is noise. With these ridges two points give a line, and one
        # gives a point.
        normal[..., 1, 1] += 1e-4
        normal[..., 2, 2] += 1e-4
        normal[..., 0, 0] += 1e-9
        right = np.einsum("w...,w...a,w...x->...ax", weight, powers, filled)
        polynomial = np.linalg.solve(normal, right)
        off = np.linalg.norm(np.einsum("w...a,...ax->w...x", powers, polynomial) - filled, axis=-1)
        weight = seen / (1.0 + (off / (2.0 * sd)) ** 2)
    early, late = (seen & (t < 0.01)).any(axis=0), (seen & (t > -0.01)).any(axis=0)
    polynomial[~(early & late & (seen.sum(axis=0) >= 3))] = np.nan
    return np.asarray(polynomial)


def _nanquantile(values: FloatArray, share: float) -> FloatArray:
    """Quantile along the last axis; NaN where all are NaN. NumPy's own walks row by row."""
    count = np.isfinite(values).sum(axis=-1)
    ordered = np.sort(values, axis=-1)
    at = np.floor(share * np.maximum(count - 1, 0)).astype(int)
    return np.where(count > 0, np.take_along_axis(ordered, at[..., None], axis=-1)[..., 0], np.nan)
