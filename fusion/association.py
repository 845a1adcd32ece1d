"""Who is who in a set of frames: detections packed for the kernels, matched to predicted people, the rest grouped.

A set holds at most one frame of each camera. Every frame keeps its own time; people are predicted for the newest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fusion._kernels import association as kernels
from fusion._kernels import triangulation
from fusion.errors import ShapeError
from fusion.geometry import Rig

if TYPE_CHECKING:
    from fusion.layouts import Layout
    from fusion.observations import Frame

# Joints are padded to whole lanes of the kernels.
LANES = 8
# Detections of one frame beyond these are counted and left out: no store's camera sees so many people at once.
DETECTIONS_PER_FRAME_MAX = 48
# Deviation in pixels of a keypoint with score 1, from the reprojection residuals of common detectors at this image
# size (0.5 % of a 720-line image); it grows with the inverse of the score.
KEYPOINT_SD_PX = 3.0
# Keypoints below this score lie anywhere.
SCORE_MIN = 0.1

# How far a detector's joint lies from one and the same point of the body when seen from different sides, metres.
_BODY_SD_M = {
    "nose": 0.02, "eye": 0.02, "ear": 0.025, "neck": 0.04, "shoulder": 0.04, "elbow": 0.03, "wrist": 0.03,
    "hip": 0.06, "mid_hip": 0.06, "knee": 0.04, "ankle": 0.035, "big_toe": 0.04, "small_toe": 0.04, "heel": 0.04,
    # A box's edge is where the outermost limb ends, not on the body's axis.
    "box_top": 0.08, "box_bottom": 0.12,
}  # fmt: skip

# Squared distance in standard deviations beyond which a joint is simply wrong: 4 deviations.
JOINT_COST_CAP = 16.0
# Mean cost at which a detection and a person are strangers. 2 is expected of the right one; one of a box's two points
# may be wrong (hidden feet), which costs (2 + 16) / 2.
MATCH_GATE = 10.0
# A prediction vaguer than this is not stretched further, metres: matching reaches three times as far.
PREDICTION_SD_MAX_M = 0.25
# A leftover detection as near as this to a person seen better in the same view is the same person detected twice.
DOUBLE_GATE = 6.0
# Mean cost of two rays up to which two detections may be one person: 1 is expected, and half for usual heights.
PAIR_GATE = 4.0
PAIR_COST_CAP = 16.0
# Joints that must be comparable, out of how many the layout has at most.
JOINTS_MIN = 4
# Speed that cameras' different instants allow for between views, m/s: a brisk walk.
PAIR_SPEED_M_S = 1.0
# Cosine distance of appearance that counts as one unit of cost. Same and different people overlap widely (same: median
# 0.18, 95 % below 0.5), so it tips a scale that geometry leaves level and no more.
APPEARANCE_SCALE = 0.15
# A stature's spread over people who may walk in, children included, as a share of the usual.
STATURE_SD = 0.08


def by_joint(layout: Layout, table: dict[str, float], n_padded: int, rest: float) -> np.ndarray:
    """(n_padded,) a table's values for the layout's joints; sides share a name; `rest` fills the padding."""
    values = [table[j] if j in table else table[j.split("_", 1)[1]] for j in layout.joints]
    return np.array(values + [rest] * (n_padded - len(values)))


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

    def __init__(self, rig: Rig, layout: Layout, appearance_dim: int = 0) -> None:
        self.rig = rig
        self.layout = layout
        self.ignored: Counter[str] = Counter()
        self.n_padded = -(-layout.n_joints // LANES) * LANES
        self.body_var = by_joint(layout, _BODY_SD_M, self.n_padded, 1.0) ** 2
        self.heights_m = np.ones((self.n_padded, 2))
        self.heights_m[: layout.n_joints] = layout.heights_m
        self.joints_min = float(min(JOINTS_MIN, layout.n_joints))
        self.appearance_dim = appearance_dim
        self._view = {name: view for view, name in enumerate(rig.names)}
        self._lenses = rig.lenses
        capacity = max(1, DETECTIONS_PER_FRAME_MAX * rig.n_views)
        self._packed = [np.empty((capacity, self.n_padded)) for _ in range(4)]
        self._shape = (layout.n_joints, 3)

    # ---- packing -----------------------------------------------------------------------------------------------------

    def pack(self, frames: Sequence[Frame]) -> FrameSet | None:
        """Bring frames into the kernels' shape; None when no frame of a known camera is among them.

        Raises:
            ShapeError: keypoints are not (n, K, 3), or appearance is not (n, appearance_dim).
        """
        known: dict[int, Frame] = {}
        for frame in frames:
            view = self._view.get(frame.camera)
            if view is None:
                self.ignored["detections: camera without calibration"] += 1
                continue
            shape = frame.keypoints.shape
            if len(shape) != 3 or shape[1:] != self._shape:
                raise ShapeError(f"keypoints of {frame.camera}: want (n, {self._shape[0]}, 3), got {shape}")
            if view in known:
                # The newer picture says all that the older one did, and a view counts once in a set.
                self.ignored["detections: second frame of a camera in one set"] += 1
                if known[view].t_ns >= frame.t_ns:
                    continue
            known[view] = frame
        if not known:
            return None
        # Plain lists here: a frame is a few numbers, and a NumPy call on a few numbers costs more than all of them.
        n_views = self.rig.n_views
        t_ns = max([frame.t_ns for frame in known.values()])
        late_s, has, starts, views = [0.0] * n_views, [False] * n_views, [0] * (n_views + 1), []
        keypoints, vectors = [], []
        n = 0
        for view in range(n_views):
            if view in known:
                frame = known[view]
                people = frame.keypoints
                n_people = len(people)
                if n_people > DETECTIONS_PER_FRAME_MAX:
                    excess = n_people - DETECTIONS_PER_FRAME_MAX
                    self.ignored["detections: more people than a frame may hold"] += excess
                    n_people, people = DETECTIONS_PER_FRAME_MAX, people[:DETECTIONS_PER_FRAME_MAX]
                late_s[view] = (frame.t_ns - t_ns) * 1e-9
                has[view] = True
                if n_people:
                    n += n_people
                    views += [view] * n_people
                    keypoints.append(people)
                    if self.appearance_dim:
                        vectors.append(self._vectors(frame, n_people))
            starts[view + 1] = n
        dt_s, has_frame = np.array(late_s), np.array(has)
        start, view_of = np.array(starts), np.array(views, np.int64)
        x, y, var, seen = [buffer[:n] for buffer in self._packed]
        if n:
            stacked = np.concatenate(keypoints, dtype=np.float32, casting="unsafe")
            broken = triangulation.prepare(
                stacked, start, self._lenses, KEYPOINT_SD_PX, SCORE_MIN, x, y, var, seen
            )
            if broken:
                self.ignored["keypoints: not finite or far outside the picture"] += broken
        appearance = None
        if vectors:
            appearance = np.concatenate(vectors).astype(np.float64)
            norm = np.linalg.norm(appearance, axis=1, keepdims=True)
            appearance = np.where(np.isfinite(norm) & (norm > 0), appearance / np.where(norm > 0, norm, 1.0), 0.0)
        return FrameSet(t_ns, dt_s, has_frame, start, view_of, x, y, var, seen, appearance)

    def _vectors(self, frame: Frame, n: int) -> np.ndarray:
        if frame.appearance is None:
            return np.zeros((n, self.appearance_dim), np.float32)
        if frame.appearance.ndim != 2 or frame.appearance.shape[1] != self.appearance_dim or len(frame.appearance) < n:
            want = f"({n}, {self.appearance_dim})"
            raise ShapeError(f"appearance of {frame.camera}: want {want}, got {frame.appearance.shape}")
        return frame.appearance[:n]

    # ---- matching ----------------------------------------------------------------------------------------------------

    def match(
        self, frames: FrameSet, mean: np.ndarray, cov: np.ndarray, rows: np.ndarray, appearance: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Give detections to predicted people.

        Args:
            mean, cov, rows: people's states at frames.t_ns, as the kernels keep them.
            appearance: (n, D) unit vectors of the people, zero where unknown.

        Returns:
            track_of (n_detections,): index into rows, -1 free, -2 a second detection of somebody;
            detection_of (n, n_views): detection or -1.
        """
        n = len(frames.view_of)
        cost = np.empty((len(rows), n))
        triangulation.costs(
            self.rig.camera_from_world, frames.dt_s, frames.start, frames.x, frames.y, frames.var, frames.seen,
            mean, cov, rows, self.body_var, JOINT_COST_CAP, self.joints_min, PREDICTION_SD_MAX_M**2,
            kernels.NEVER, cost,
        )  # fmt: skip
        if appearance is not None and frames.appearance is not None:
            cost += appearance_cost(appearance, frames.appearance)
        track_of = np.empty(n, np.int64)
        detection_of = np.empty((len(rows), self.rig.n_views), np.int64)
        kernels.assign(frames.start, cost, MATCH_GATE, DOUBLE_GATE, track_of, detection_of)
        return track_of, detection_of

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
            self.body_var, self.heights_m, PAIR_COST_CAP, self.joints_min, PAIR_SPEED_M_S, cost, centre,
        )  # fmt: skip
        if frames.appearance is not None:
            vectors = frames.appearance[free]
            cost += appearance_cost(vectors, vectors)
        group_of = np.empty(n, np.int64)
        n_groups = kernels.group(free, frames.view_of, cost, PAIR_GATE, group_of)
        members, places = [], []
        for k in range(n_groups):
            inside = np.flatnonzero(group_of == k)
            comparable = cost[np.ix_(inside, inside)] < kernels.NEVER
            places.append(np.median(centre[np.ix_(inside, inside)][comparable], axis=0))
            members.append(free[inside])
        return members, places, free[group_of < 0]

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
