"""Association in a set of frames: detections packed for the kernels, assigned to predicted tracks, the rest grouped.

A set holds at most one frame of each camera. Every frame keeps its own time; tracks are predicted for the newest.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import association as kernels
from fusion._kernels import triangulation
from fusion._kernels.records import Detections, Matches
from fusion.errors import ShapeError
from fusion.people.geometry import Rig
from fusion.people.workspace import APPEARANCE_SCALE, Workspace

if TYPE_CHECKING:
    from fusion.observations import Frame
    from fusion.store.layouts import Layout

# Standard deviation of stature over people who may walk in, children included, as a share of the usual.
STATURE_SD = 0.08
# Two detections as one person against two, in natural logarithms. Rays of two people mostly pass each other within 14
# standard deviations on either side, so a pair that meets gains log(28 / sqrt(2 pi)). The distances of one person's
# rays follow a Student-t distribution with three degrees of freedom on real detectors, whose loss is about
# 6.4 z^2 / (z^2 + 10) up to eight deviations. Places of two people are spread evenly over some 30 m^2.
PAIR = kernels.PairModel(
    joint_gain=2.4, joint_loss=6.4, joint_scale=10.0, place_gain=math.log(30.0 / (2.0 * math.pi)), place_loss=8.0,
    place_scale=12.0, stature_sd=STATURE_SD, speed_m_s=1.0,
)  # fmt: skip
# Log odds from which two detections alone are one person: each has several strangers that it may meet by chance.
PAIR_MIN = 2.0


@dataclass
class FrameSet:
    """A set of frames as the kernels read it; its arrays are views of the workspace and change with the next set.

    Attributes:
        t_ns: newest instant.
        detections: of all cameras; dt_s are frame times minus t_ns.
        appearance: (n, appearance_dim) unit vectors, zero where unknown; None where the store has none.
    """

    t_ns: int
    detections: Detections
    appearance: NDArray[np.float64] | None


class Groups(NamedTuple):
    """Detections grouped across views: the members of each group, its place (3,), and detections that stayed alone."""

    members: list[NDArray[np.int64]]
    places_m: list[NDArray[np.float64]]
    single: NDArray[np.int64]


_Rows = NDArray[np.float32]
_Compared = tuple[NDArray[np.int64], NDArray[np.float64], _Rows, _Rows, _Rows, _Rows]


class FloorPlace(NamedTuple):
    """A place on the floor with its covariance; NaN where nothing can be derived."""

    x_m: float
    y_m: float
    xx_m2: float
    yx_m2: float
    yy_m2: float


class Associator:
    """Packs sets of frames, assigns their detections to predicted tracks and groups what is left.

    Attributes:
        rig: the cameras.
        heights_m: (n_padded, 2) usual height of each joint and its standard deviation.
        ignored: what was not used, by reason.
    """

    def __init__(self, rig: Rig, layout: Layout, workspace: Workspace) -> None:
        self.rig = rig
        self.ignored: Counter[str] = Counter()
        self._workspace = workspace
        self.heights_m = np.ones((workspace.n_padded, 2))
        self.heights_m[: layout.n_joints] = layout.heights_m
        self._view = {name: view for view, name in enumerate(rig.names)}
        self._shape = (layout.n_joints, 3)

    # ---- packing -----------------------------------------------------------------------------------------------------

    def pack(self, frames: list[Frame]) -> FrameSet | None:
        """Bring frames into the kernels' shape; None when no frame of a known camera is among them.

        Raises:
            ShapeError: keypoints are not (n, K, 3), or appearance is not (n, appearance_dim).
        """
        ws = self._workspace
        taken = ws.kernels.take(frames, self._view)
        if taken is None:
            frames = [self._checked(frame) for frame in frames]
            taken = ws.kernels.take(frames, self._view)
            assert taken is not None, "checked frames are of the right kind"
        t_ns, n_known, n, n_broken, n_excess, n_unknown, n_second = taken
        if n_broken or n_excess or n_unknown or n_second:
            self._count(n_broken, n_excess, n_unknown, n_second)
        if not n_known:
            return None
        appearance = None
        if ws.appearance.shape[1]:
            self._pack_appearance(frames)
            appearance = ws.appearance[:n]
        return FrameSet(t_ns, ws.detections(n), appearance)

    def _count(self, n_broken: int, n_excess: int, n_unknown: int, n_second: int) -> None:
        for n, reason in (
            (n_broken, "keypoints: not finite or far outside the picture"),
            (n_excess, "detections: more people than a frame may hold"),
            (n_unknown, "detections: camera without calibration"),
            (n_second, "detections: second frame of a camera in one set"),
        ):
            if n:
                self.ignored[reason] += n

    def _checked(self, frame: Frame) -> Frame:
        """The frame with keypoints of the kernels' type. Raises ShapeError."""
        keypoints = frame.keypoints
        if frame.camera not in self._view:
            return frame
        if keypoints.ndim != 3 or keypoints.shape[1:] != self._shape:
            raise ShapeError(f"keypoints of {frame.camera}: want (n, {self._shape[0]}, 3), got {keypoints.shape}")
        return replace(frame, keypoints=np.ascontiguousarray(keypoints, np.float32))

    def _pack_appearance(self, frames: list[Frame]) -> None:
        ws = self._workspace
        newest: dict[int, Frame] = {}
        for frame in sorted(frames, key=lambda frame: frame.t_ns, reverse=True):
            if frame.camera in self._view:
                newest.setdefault(self._view[frame.camera], frame)
        for view, frame in newest.items():
            self._pack_vectors(frame, ws.appearance[int(ws.start[view]) : int(ws.start[view + 1])])

    def _pack_vectors(self, frame: Frame, out: NDArray[np.float64]) -> None:
        """Unit vectors of a frame's detections, zero where there is none or it has no direction. Raises ShapeError."""
        n, vectors = len(out), frame.appearance
        if vectors is None:
            out[:] = 0.0
            return
        if vectors.ndim != 2 or vectors.shape[1] != out.shape[1] or len(vectors) < n:
            want = f"({n}, {out.shape[1]})"
            raise ShapeError(f"appearance of {frame.camera}: want {want}, got {vectors.shape}")
        values = vectors[:n].astype(np.float64)
        norm = np.linalg.norm(values, axis=1, keepdims=True)
        out[:] = np.where(np.isfinite(norm) & (norm > 0), values / np.where(norm > 0, norm, 1.0), 0.0)

    # ---- matching ----------------------------------------------------------------------------------------------------

    def match(self, frames: FrameSet, rows: NDArray[np.int64]) -> Matches:
        """Assign detections to predicted tracks, view by view, at least total cost.

        Args:
            frames: the set.
            rows: (n,) of the tracks, whose states are predicted for frames.t_ns.

        Returns:
            track_of (n_detections,): index into rows, -1 free, -2 a second detection of a track;
            detection_of (n, n_views): detection or -1. Both are views of the workspace.
        """
        ws = self._workspace
        ws.kernels.match(rows)
        return ws.matches(len(frames.detections.view_of), len(rows))

    # ---- grouping ----------------------------------------------------------------------------------------------------

    def group(self, frames: FrameSet, free: NDArray[np.int64]) -> Groups:
        """Group free detections of different cameras, one group per person."""
        n = len(free)
        if n < 2:
            return Groups([], [], free)
        score, centre = np.zeros((n, n)), np.empty((n * (n - 1) // 2, 3), np.float32)
        triangulation.pair_scores(
            free, *compared(frames.detections), self.rig.camera_from_world, self._workspace.body_var, self.heights_m,
            PAIR, score, centre,
        )  # fmt: skip
        if frames.appearance is not None:
            vectors = frames.appearance[free]
            score -= appearance_cost(vectors, vectors)
        group_of, places_m = np.empty(n, np.int64), np.empty((n, 3))
        n_groups = kernels.group(score, centre, PAIR_MIN, group_of, places_m)
        members = [free[group_of == k] for k in range(n_groups)]
        return Groups(members, list(places_m[:n_groups]), free[group_of < 0])

    def place_by_height(self, frames: FrameSet, detection: int) -> FloorPlace:
        """Place on the floor of a person seen by one camera, from the usual heights of joints."""
        out, seen_by = np.empty(5), frames.detections
        triangulation.place_by_height(
            self.rig.camera_from_world[seen_by.view_of[detection]], seen_by.x[detection], seen_by.y[detection],
            seen_by.seen[detection], self.heights_m, STATURE_SD, out,
        )  # fmt: skip
        return FloorPlace(*out)


def compared(detections: Detections) -> _Compared:
    """What the kernels that compare pairs of detections read of them."""
    return detections.view_of, detections.dt_s, detections.x, detections.y, detections.var, detections.seen


def appearance_cost(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, m) cosine distance of unit vectors in units of cost; zero where a vector is missing (all zero)."""
    known = np.logical_and.outer(first.any(axis=1), second.any(axis=1))
    return np.where(known, (1.0 - first @ second.T) / APPEARANCE_SCALE, 0.0)
