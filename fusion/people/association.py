"""Who is who in a set of frames: detections packed for the kernels, matched to predicted people, the rest grouped.

A set holds at most one frame of each camera. Every frame keeps its own time; people are predicted for the newest.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fusion._kernels import association as kernels
from fusion.errors import ShapeError
from fusion.people.geometry import Rig
from fusion.people.workspace import APPEARANCE_SCALE, JOINTS_MIN, Workspace

if TYPE_CHECKING:
    from fusion.observations import Frame
    from fusion.store.layouts import Layout

# Mean cost of two rays up to which two detections may be one person: 1 is expected, and half for usual heights.
PAIR_GATE = 4.0
PAIR_COST_CAP = 16.0
# Speed that cameras' different instants allow for between views, m/s: a brisk walk.
PAIR_SPEED_M_S = 1.0
# A stature's spread over people who may walk in, children included, as a share of the usual.
STATURE_SD = 0.08


@dataclass
class FrameSet:
    """A set of frames as the kernels read it. Arrays are views of workspaces and change with the next set.

    Attributes:
        t_ns: newest instant.
        dt_s: (n_views,) frame time minus t_ns, 0 where the camera has no frame.
        has_frame: (n_views,) bool.
        start: (n_views + 1,) first detection of each view.
        view_of: (n,) view of each detection.
        x, y, var, seen: (n, n_padded) normalised coordinates, their variance, and 1 or 0.
        appearance: (n, D) unit vectors, or None.
    """

    t_ns: int
    dt_s: np.ndarray
    has_frame: np.ndarray
    start: np.ndarray
    view_of: np.ndarray
    x: np.ndarray
    y: np.ndarray
    var: np.ndarray
    seen: np.ndarray
    appearance: np.ndarray | None


class Associator:
    """Packs sets of frames, matches them to predicted people and groups what is left.

    Attributes:
        ignored: what was not used, by reason.
    """

    def __init__(self, rig: Rig, layout: Layout, workspace: Workspace) -> None:
        self.rig = rig
        self.layout = layout
        self.ignored: Counter[str] = Counter()
        self._workspace = workspace
        self.heights_m = np.ones((workspace.n_padded, 2))
        self.heights_m[: layout.n_joints] = layout.heights_m
        self._usual_m = np.ascontiguousarray(self.heights_m.T)
        self._joints_min = float(min(JOINTS_MIN, layout.n_joints))
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
            assert taken is not None, "what was checked is of the right kind"
        t_ns, n_known, n, n_broken, n_excess, n_unknown, n_second = taken
        if n_broken or n_excess or n_unknown or n_second:
            self._count(n_broken, n_excess, n_unknown, n_second)
        if not n_known:
            return None
        appearance = None
        if ws.track_appearance.shape[1]:
            newest: dict[int, Frame] = {}
            for frame in sorted(frames, key=lambda frame: frame.t_ns, reverse=True):
                if frame.camera in self._view:
                    newest.setdefault(self._view[frame.camera], frame)
            for view, frame in newest.items():
                self._take_looks(frame, slice(int(ws.start[view]), int(ws.start[view + 1])))
            appearance = ws.appearance[:n]
        return FrameSet(
            t_ns, ws.dt_s, ws.has_frame, ws.start, ws.view_of[:n], ws.x[:n], ws.y[:n], ws.var[:n], ws.seen[:n],
            appearance,
        )  # fmt: skip

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
        """The frame with keypoints as the kernels want them. Raises ShapeError."""
        people = frame.keypoints
        if frame.camera not in self._view:
            return frame
        if people.ndim != 3 or people.shape[1:] != self._shape:
            raise ShapeError(f"keypoints of {frame.camera}: want (n, {self._shape[0]}, 3), got {people.shape}")
        return replace(frame, keypoints=np.ascontiguousarray(people, np.float32))

    def _take_looks(self, frame: Frame, where: slice) -> None:
        """Unit vectors of a frame's detections; zero where there is none, or none that can be used."""
        to, n = self._workspace.appearance[where], where.stop - where.start
        if frame.appearance is None:
            to[:] = 0.0
            return
        if frame.appearance.ndim != 2 or frame.appearance.shape[1] != to.shape[1] or len(frame.appearance) < n:
            want = f"({n}, {to.shape[1]})"
            raise ShapeError(f"appearance of {frame.camera}: want {want}, got {frame.appearance.shape}")
        vectors = frame.appearance[:n].astype(np.float64)
        norm = np.linalg.norm(vectors, axis=1, keepdims=True)
        to[:] = np.where(np.isfinite(norm) & (norm > 0), vectors / np.where(norm > 0, norm, 1.0), 0.0)

    # ---- matching ----------------------------------------------------------------------------------------------------

    def match(self, frames: FrameSet, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give detections to predicted people.

        Args:
            rows: people's rows, whose states are those at frames.t_ns.

        Returns:
            track_of (n_detections,): index into rows, -1 free, -2 a second detection of somebody;
            detection_of (n, n_views): detection or -1. Both are views of the workspace.
        """
        ws = self._workspace
        ws.kernels.match(rows)
        return ws.track_of[: len(frames.view_of)], ws.detection_of[: len(rows)]

    # ---- grouping ----------------------------------------------------------------------------------------------------

    def group(self, frames: FrameSet, free: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
        """Put free detections of different cameras together, one group a person.

        Returns:
            members: per group its detections; places: per group the (3,) mean meeting point of its joints;
            single: detections that stayed alone.
        """
        n = len(free)
        if n < 2:
            return [], [], free
        cost = np.empty((n, n))
        centre = np.empty((n, n, 3))
        kernels.pair_costs(
            free, frames.view_of, self.rig.camera_from_world, frames.dt_s, frames.x, frames.y, frames.var, frames.seen,
            self._workspace.body_var, self._usual_m, PAIR_COST_CAP, self._joints_min, PAIR_SPEED_M_S, cost, centre,
        )  # fmt: skip
        if frames.appearance is not None:
            vectors = frames.appearance[free]
            cost += appearance_cost(vectors, vectors)
        group_of, places = np.empty(n, np.int64), np.empty((n, 3))
        n_groups = kernels.group(free, frames.view_of, cost, centre, PAIR_GATE, group_of, places)
        members = [free[group_of == k] for k in range(n_groups)]
        return members, list(places[:n_groups]), free[group_of < 0]

    def stand(self, frames: FrameSet, detection: int) -> np.ndarray:
        """(5,) place on the floor of somebody whom one camera sees: x, y, covariance xx, yx, yy; NaN where unclear."""
        out = np.empty(5)
        camera = self.rig.camera_from_world[frames.view_of[detection]]
        kernels.stand(
            camera, frames.x[detection], frames.y[detection], frames.seen[detection], self.heights_m, STATURE_SD, out
        )
        return out


def appearance_cost(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(n, m) cost of the cosine distance between unit vectors; zero where a vector is missing (all zero)."""
    known = np.logical_and.outer(one.any(axis=1), other.any(axis=1))
    return np.where(known, (1.0 - one @ other.T) / APPEARANCE_SCALE, 0.0)
