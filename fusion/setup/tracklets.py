"""One camera's detections as short paths in time: where a body's joints were at any time near an instant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusion.observations import Frame
from fusion.people.geometry import Rig
from fusion.store.layouts import Layout
from fusion.store.models import Camera

# A path is what was seen within this time, or the neighbouring pictures of slow cameras.
PATH_S = 0.14
# People in one picture; a person between two pictures, metres and metres a second.
PEOPLE_MAX, JUMP_M, SPEED_M_S = 12, 0.15, 3.0
# A joint counts where its score is this share of what is usual for the joint.
SCORE_SHARE = 0.6
# Joints that a detection and a pair of detections must share.
JOINTS_MIN = 5
# Beyond this a normalised coordinate is of no lens: 72 degrees off the axis.
COORDINATE_MAX = 3.0
# A body whose size in the picture is less than this, over its size in metres, is 50 metres off.
SCALE_MIN = 0.02
# Pictures that are compared with the next at a time.
_FRAMES_AT_A_TIME = 1024


class Film:
    """One camera's detections, padded to arrays, linked from picture to picture.

    Attributes:
        t_s: (n_frames,) ascending, seconds since the start.
        points: (n_frames, people, K, 2) undistorted normalised coordinates, NaN where a joint was not seen well.
        scale: (n_frames, people) about one over the distance in metres, from the size in the picture; NaN for nobody.
        next: (n_frames, people) the same person's place in the next picture, -1 for none.
    """

    def __init__(self, camera: Camera, frames: Sequence[Frame], start_ns: int, layout: Layout) -> None:
        self.t_s = np.array([frame.t_ns - start_ns for frame in frames], np.float64) * 1e-9
        most = min(max((len(frame.keypoints) for frame in frames), default=0), PEOPLE_MAX)
        k = layout.n_joints
        raw = np.zeros((len(frames), most, k, 3))
        for at, frame in enumerate(frames):
            people = frame.keypoints
            if len(people) > most:
                people = people[np.argsort(-(people[:, :, 2] > 0).sum(axis=1), kind="stable")[:most]]
            raw[at, : len(people)] = people
        score = raw[..., 2]
        usual = np.array([np.median(s[s > 0]) if (s > 0).any() else 1.0 for s in np.moveaxis(score, -1, 0)])
        raw[~(score >= SCORE_SHARE * usual)] = np.nan
        flat = np.ascontiguousarray(raw[..., :2].reshape(1, -1, 2))
        self.points = Rig.from_cameras([camera]).normalise(flat).reshape(len(frames), most, k, 2)
        self.points[np.abs(self.points).max(axis=-1) > COORDINATE_MAX] = np.nan
        few = np.isfinite(self.points[..., 0]).sum(axis=-1) < JOINTS_MIN
        self.points[few] = np.nan
        # Seen from the side limbs look shorter, never longer: the longer ones tell the distance.
        a, b = layout.limbs.T
        length = np.linalg.norm(self.points[:, :, a] - self.points[:, :, b], axis=-1) / layout.limb_lengths_m[:, 0]
        known = layout.limb_lengths_m[:, 0] > 0.15
        with np.errstate(all="ignore"):
            self.scale = _nanquantile(length[:, :, known], 0.75)
        self.points[~(self.scale > SCALE_MIN)] = np.nan
        self.next = self._links()

    def _links(self) -> np.ndarray:
        """(n_frames, people): the same person's place in the next picture, -1 for none."""
        p, scale = self.points, self.scale
        n, most = scale.shape
        out = np.full((n, most), -1)
        if n < 2 or not most:
            return out
        off_m = np.empty((n - 1, most, most))
        for first in range(0, n - 1, _FRAMES_AT_A_TIME):
            some = slice(first, min(first + _FRAMES_AT_A_TIME, n - 1))
            off = np.linalg.norm(p[:-1, :, None][some] - p[1:, None, :][some], axis=-1)
            off_m[some] = _nanquantile(off, 0.5)
        with np.errstate(all="ignore"):
            off_m /= np.maximum(scale[:-1, :, None], scale[1:, None, :])
        off_m[~np.isfinite(off_m)] = np.inf
        best, back = off_m.argmin(axis=2), off_m.argmin(axis=1)
        mutual = np.take_along_axis(back, best, axis=1) == np.arange(most)
        near = np.take_along_axis(off_m, best[:, :, None], axis=2)[:, :, 0]
        limit = JUMP_M + SPEED_M_S * np.diff(self.t_s)
        out[:-1] = np.where(mutual & (near < limit[:, None]), best, -1)
        return out

    def paths(self, instants_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where joints were around instants (n_instants,) of the camera's clock.

        Returns:
            (n_instants, people, K, 3, 2) normalised coordinates as polynomials of the seconds since the instant, the
            constant first, NaN where none is held by what was seen; (n_instants, people) scale.
        """
        n, most, k = self.points.shape[:3]
        path = np.full((len(instants_s), most, k, 3, 2), np.nan)
        scale = np.full((len(instants_s), most), np.nan)
        if n < 3 or not most:
            return path, scale
        period_s = float(np.median(np.diff(self.t_s)))
        half_s = max(PATH_S, 1.2 * period_s)
        middle = np.clip(np.searchsorted(self.t_s, instants_s), 1, n - 1)
        middle -= np.abs(self.t_s[middle - 1] - instants_s) < np.abs(self.t_s[middle] - instants_s)
        reach = max(1, int(np.ceil(half_s / period_s)))
        frames, places = [middle], [np.broadcast_to(np.arange(most), (len(middle), most))]
        previous = np.full((n, most), -1)
        at, person = np.nonzero(self.next >= 0)
        previous[at + 1, self.next[at, person]] = person
        for link, way in ((self.next, 1), (previous, -1)):
            frame, place = middle, places[0]
            for _ in range(reach):
                place = np.where(place >= 0, link[frame[:, None], np.maximum(place, 0)], -1)
                frame = np.clip(frame + way, 0, n - 1)
                frames.append(frame)
                places.append(place)
        f, d = np.stack(frames), np.stack(places)  # (window, n_instants), (window, n_instants, people)
        t = self.t_s[f] - instants_s
        points = self.points[f[:, :, None], np.maximum(d, 0)]
        points[(d < 0) | (np.abs(t) > half_s + 0.5 * period_s)[:, :, None]] = np.nan
        scale = self.scale[middle]
        path = _fitted(points, t[:, :, None, None], 0.02 * scale[..., None])
        gone = np.abs(t[0]) > 0.6 * period_s + 0.02
        path[gone] = np.nan
        return path, scale


def _fitted(points: np.ndarray, t: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Robust parabolas through points (window, ..., 2) at times t; (..., 3, 2), NaN where they are not held."""
    seen = np.isfinite(points[..., 0])
    filled = np.where(seen[..., None], points, 0.0)
    t = np.broadcast_to(t, seen.shape)
    powers = np.stack([np.ones_like(t), t, t * t], axis=-1)
    weight = seen.astype(float)
    for _ in range(3):
        normal = np.einsum("w...,w...a,w...b->...ab", weight, powers, powers)
        # A path that bends more than a swinging foot is noise; this keeps two points a line and one a point.
        normal[..., 1, 1] += 1e-4
        normal[..., 2, 2] += 1e-4
        normal[..., 0, 0] += 1e-9
        right = np.einsum("w...,w...a,w...x->...ax", weight, powers, filled)
        path = np.linalg.solve(normal, right)
        off = np.linalg.norm(np.einsum("w...a,...ax->w...x", powers, path) - filled, axis=-1)
        weight = seen / (1.0 + (off / (2.0 * sd)) ** 2)
    early, late = (seen & (t < 0.01)).any(axis=0), (seen & (t > -0.01)).any(axis=0)
    path[~(early & late & (seen.sum(axis=0) >= 3))] = np.nan
    return path


def _nanquantile(values: np.ndarray, share: float) -> np.ndarray:
    """Along the last axis; NaN where nothing is. NumPy's own walks row by row."""
    count = np.isfinite(values).sum(axis=-1)
    ordered = np.sort(values, axis=-1)
    at = np.floor(share * np.maximum(count - 1, 0)).astype(int)
    return np.where(count > 0, np.take_along_axis(ordered, at[..., None], axis=-1)[..., 0], np.nan)
