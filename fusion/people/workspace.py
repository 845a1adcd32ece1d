"""The arrays of tracking, bound once to the native kernels, and the settings of its models.

One row per track, joints padded to whole lanes. Tracking a set of frames then costs two calls that pass a few numbers.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import triangulation
from fusion._kernels.records import Detections, Matches
from fusion.people.geometry import Rig
from fusion.store.layouts import Layout

# Joints are padded to whole lanes of the kernels.
LANES = 8
# Detections of one frame beyond this limit are counted and left out: no store camera sees that many people at once.
DETECTIONS_PER_FRAME_MAX = 48

# ---- measurements ----------------------------------------------------------------------------------------------------

# Standard deviation in pixels of a keypoint with score 1, from the reprojection residuals of common detectors at this
# image size (0.5 % of a 720-line image); it grows with the inverse of the score.
KEYPOINT_SD_PX = 3.0
# Keypoints below this score may be anywhere and are ignored.
SCORE_MIN = 0.1
# How far a detector's joint lies from one fixed point of the body when seen from different sides, metres.
_BODY_SD_M = {
    "nose": 0.02, "eye": 0.02, "ear": 0.025, "neck": 0.04, "shoulder": 0.04, "elbow": 0.03, "wrist": 0.03,
    "hip": 0.06, "mid_hip": 0.06, "knee": 0.04, "ankle": 0.035, "big_toe": 0.04, "small_toe": 0.04, "heel": 0.04,
    # A box's edge is where the outermost limb ends, not on the body's axis.
    "box_top": 0.08, "box_bottom": 0.12,
}  # fmt: skip
# Degrees of freedom of the measurement noise (Student-t): detectors' tails are heavy, and 4 is the usual choice
# (Lange, Little, Taylor 1989). The errors between views, from which the health of cameras follows, are as heavy-tailed.
DEGREES_OF_FREEDOM = 4.0
# How noisy the detector's joints are, against what is assumed, is learnt from the disagreement of views, from every
# NOISE_EVERY-th track in turn. The assumption weighs as much as NOISE_PRIOR coordinates; what was learnt fades within
# NOISE_FADE_S.
NOISE_EVERY, NOISE_PRIOR, NOISE_FADE_S = 4, 50.0, 20.0
# Share of that estimate which is used. The estimate takes a joint's own uncertainty as independent of the views that
# placed it, and so counts some of it twice; with this share, reported deviations are right on simulated crowds.
NOISE_SHARE = 0.85
NOISE_MIN, NOISE_MAX = 0.05, 20.0

# ---- motion ----------------------------------------------------------------------------------------------------------

# Spectral density of joints' acceleration, m^2/s^3: typical acceleration squared times its duration. A trunk changes by
# 2 m/s^2 for a quarter of a second; a hand by 5 m/s^2 for a tenth.
_ACCELERATION = {
    "nose": 1.5, "eye": 1.5, "ear": 1.5, "neck": 1.0, "shoulder": 1.25, "elbow": 1.0, "wrist": 2.5, "hip": 1.0,
    "mid_hip": 1.0, "knee": 0.8, "ankle": 1.5, "big_toe": 1.8, "small_toe": 1.8, "heel": 1.5,
    "box_top": 1.0, "box_bottom": 1.0,
}  # fmt: skip
# Standard deviation of a joint's velocity when nothing is known, m/s.
_SPEED_SD_M_S = {
    "nose": 1.0, "eye": 1.0, "ear": 1.0, "neck": 1.0, "shoulder": 1.0, "elbow": 1.3, "wrist": 1.6, "hip": 1.0,
    "mid_hip": 1.0, "knee": 1.2, "ankle": 1.4, "big_toe": 1.4, "small_toe": 1.4, "heel": 1.4,
    "box_top": 1.0, "box_bottom": 1.0,
}  # fmt: skip
# Time constant with which the velocity of an unseen joint decays: people keep walking for about this long.
VELOCITY_DECAY_S = 1.0

# ---- bodies ----------------------------------------------------------------------------------------------------------

# Standard deviation of a joint's distance from the body's axis, metres, and of its height about the usual one beyond
# what heights vary by between people (people crouch and lift their hands). These priors are the same information in
# every set, so their weight is that of one measurement in ANCHOR_S. Where two cameras see a joint they count for
# nothing; where one does, they hold its depth.
_STRAY_M = {
    "nose": 0.2, "eye": 0.2, "ear": 0.2, "neck": 0.15, "shoulder": 0.2, "elbow": 0.3, "wrist": 0.45, "hip": 0.15,
    "mid_hip": 0.12, "knee": 0.3, "ankle": 0.4, "big_toe": 0.4, "small_toe": 0.4, "heel": 0.4,
    "box_top": 0.3, "box_bottom": 0.3,
}  # fmt: skip
HEIGHT_SLACK_M = 0.05
# Weight of joints in the place where a person stands.
_TRUNK = {"shoulder": 1.0, "hip": 1.0, "neck": 1.0, "mid_hip": 1.0, "knee": 0.2, "ankle": 0.2, "nose": 0.2, "ear": 0.2}
# Standard deviation of a bone's length between a detector's joints, metres, in one set.
LIMB_SD_M = 0.04
# Standard deviation of neighbouring joints relative to each other where all of a body is vague, metres.
OWN_SD_M = 0.05
# A joint less certain than this is not reported.
JOINT_SD_MAX_M = 0.30

# ---- matching --------------------------------------------------------------------------------------------------------

# Matching compares sixteen joints, one vector of the machine. Joints that a layout has beyond those are left out in
# this order: they lie within a hand's breadth of the ones that stay and do not help to distinguish people.
_SPARED = ("eye", "small_toe", "big_toe", "heel", "mid_hip", "neck", "ear")
KEYS = 16
# Squared Mahalanobis distance beyond which a joint is simply wrong: 4 standard deviations.
JOINT_COST_CAP = 16.0
# Mean cost at which a detection and a track do not belong together. 2 is expected of the right pair; one of a box's two
# points may be wrong (hidden feet), which costs (2 + 16) / 2.
MATCH_GATE = 10.0
# The standard deviation of a prediction is bounded by this in matching, metres: it reaches three times as far.
PREDICTION_SD_MAX_M = 0.25
# A leftover detection whose cost is below this, of a track with a better detection in the same view, is the same person
# detected twice.
DUPLICATE_GATE = 6.0
# Joints that must be comparable, out of how many the layout has at most.
JOINTS_MIN = 4
# Cosine distance of appearance that counts as one unit of cost. The distances of same and different people overlap
# widely (same: median 0.18, 95 % below 0.5), so appearance decides only where geometry is undecided.
APPEARANCE_SCALE = 0.15

# ---- life of a track -------------------------------------------------------------------------------------------------

# A track whose place is less certain than this is not reported.
POSITION_SD_MAX_M = 0.8
# A track unseen for this long is still matched and reported while its place is known; afterwards it is only re-linked.
COASTING_MAX_S = 1.5
# A tentative track unseen for this long was a ghost.
TENTATIVE_MAX_S = 0.35
# A confirmed track that at most one camera finds for this long, while two or more see its place but no person there and
# a well-seen track is within reach, is fed by that person's stray detections. It waits to be re-linked.
DOUBT_MAX_S = 1.0


def by_joint(layout: Layout, table: dict[str, float], n_padded: int, padding: float) -> NDArray[np.float64]:
    """(n_padded,) a table's values for the layout's joints; left and right share a name."""
    values = [table[j] if j in table else table[j.split("_", 1)[1]] for j in layout.joints]
    return np.array(values + [padding] * (n_padded - len(values)))


def body_variance(layout: Layout, n_padded: int) -> NDArray[np.float64]:
    """(n_padded,) variance of a joint about one fixed point of the body when it is seen from different sides, m^2."""
    return by_joint(layout, _BODY_SD_M, n_padded, 1.0) ** 2


def key_joints(layout: Layout) -> NDArray[np.int64]:
    """(16,) joints that matching compares, -1 where the layout has fewer."""
    kept = list(layout.joints)
    for spared in _SPARED:
        if len(kept) > KEYS:
            kept = [joint for joint in kept if joint not in (spared, f"l_{spared}", f"r_{spared}")]
    assert len(kept) <= KEYS, f"layout {layout.name} has {len(kept)} joints that cannot be spared"
    return np.array([layout.index(joint) for joint in kept] + [-1] * (KEYS - len(kept)), np.int64)


class Description(NamedTuple):
    """Reported states of n tracks; see `People` for the arrays."""

    joints_m: NDArray[np.float64]
    joints_sd_m: NDArray[np.float64]
    position_m: NDArray[np.float64]
    position_sd_m: NDArray[np.float64]

    @classmethod
    def empty(cls, n: int, n_joints: int) -> Description:
        """Room for n tracks."""
        return cls(np.empty((n, n_joints, 3)), np.empty((n, n_joints)), np.empty((n, 2)), np.empty(n))


class Workspace:
    """The arrays of one Tracker. Detections of view v are start[v] .. start[v + 1] - 1.

    Attributes:
        mean (capacity, 6, n_padded), cov (capacity, 21, n_padded): positions and velocities of joints; lower triangles.
        heights_m (capacity, n_padded), limb_lengths_m (capacity, n_limbs): what is usual of each person.
        track_appearance: (capacity, appearance_dim) unit vectors, zero where unknown.
        track_id, seen_ns, undoubted_ns, multi_view_sets, single_view_sets, confirmed: (capacity,); see Tracks.
        doubt_var (n_views,): variance that the camera's own error adds to its measurements, m^2.
        dt_s (n_views,) each frame's time minus the set's; has_frame (n_views,); start (n_views + 1,).
        view_of (n,); x, y, var, seen (n, n_padded) float32: normalised coordinates, their variance, and 1 or 0.
        appearance: (n, appearance_dim) unit vectors, zero where unknown.
        track_of (n,): index of a row, -1 free, -2 a second detection of a track; detection_of (n_rows, n_views) or -1.
    """

    def __init__(self, rig: Rig, layout: Layout, appearance_dim: int, capacity: int) -> None:
        k = layout.n_joints
        n_padded, n_views = -(-k // LANES) * LANES, rig.n_views
        n = DETECTIONS_PER_FRAME_MAX * n_views
        self.n_padded, self.n_joints = n_padded, k
        self.camera_from_world, self.lenses = np.ascontiguousarray(rig.camera_from_world), rig.lenses
        self.keys, self.limbs = key_joints(layout), layout.limbs
        self.body_var = body_variance(layout, n_padded)
        self.acceleration = by_joint(layout, _ACCELERATION, n_padded, 0.0)
        self.speed_var = by_joint(layout, _SPEED_SD_M_S, n_padded, 1.0) ** 2
        # The bottom of a box stands on the floor.
        self.floor_precision = np.zeros(n_padded)
        for j in layout.indices("box_bottom"):
            self.floor_precision[j] = 1.0 / layout.heights_m[j, 1] ** 2
        self.axis_precision, self.height_precision = np.zeros((2, n_padded))
        self.axis_precision[:k] = by_joint(layout, _STRAY_M, k, 0.0) ** -2
        self.height_precision[:k] = 1.0 / (layout.heights_m[:, 1] ** 2 + HEIGHT_SLACK_M**2)
        self.trunk_weight = np.array([_TRUNK.get(j, _TRUNK.get(j.split("_", 1)[-1], 0.02)) for j in layout.joints])
        self.doubt_var = np.zeros(n_views)
        self.dt_s, self.has_frame = np.zeros(n_views), np.zeros(n_views, np.bool_)
        self.start, self.view_of = np.zeros(n_views + 1, np.int64), np.zeros(n, np.int64)
        self.x, self.y, self.var, self.seen = (np.zeros((n, n_padded), np.float32) for _ in range(4))
        self.appearance = np.zeros((n if appearance_dim else 0, appearance_dim))
        self.mean, self.cov = np.zeros((capacity, 6, n_padded)), np.zeros((capacity, 21, n_padded))
        self.cov[:, [0, 2, 5, 9, 14, 20]] = 1.0
        self.heights_m = np.zeros((capacity, n_padded))
        self.limb_lengths_m = np.zeros((capacity, len(self.limbs)))
        self.track_appearance = np.zeros((capacity, appearance_dim))
        self.track_id = np.full(capacity, -1, np.int64)
        self.seen_ns, self.undoubted_ns = np.zeros(capacity, np.int64), np.zeros(capacity, np.int64)
        self.multi_view_sets, self.single_view_sets = np.zeros(capacity, np.int64), np.zeros(capacity, np.int64)
        self.confirmed = np.zeros(capacity, np.bool_)
        self.noise, self.noise_total, self.noise_count = np.ones(n_padded), np.zeros(n_padded), np.zeros(n_padded)
        self.track_of, self.detection_of = np.zeros(n, np.int64), np.zeros((capacity, n_views), np.int64)

    def adopt(self, rig: Rig) -> None:
        """Continue with the same cameras in other places; binds `kernels` again."""
        self.camera_from_world, self.lenses = np.ascontiguousarray(rig.camera_from_world), rig.lenses
        self.kernels = self.bound()

    def __getstate__(self) -> dict[str, Any]:
        # The kernels are bound to these very arrays.
        return {name: value for name, value in vars(self).items() if name != "kernels"}

    @cached_property
    def kernels(self) -> triangulation.Workspace:
        """The native calls, see fusion/_kernels/triangulation.pyi; bound at their first use in a new or copied one."""
        return self.bound()

    def bound(self) -> triangulation.Workspace:
        """The kernels' calls over the arrays as they are. Raises ValueError where an array is of another kind."""
        settings = {
            "keypoint_sd_px": KEYPOINT_SD_PX, "score_min": SCORE_MIN, "joint_cost_cap": JOINT_COST_CAP,
            "joints_min": float(min(JOINTS_MIN, len(self.trunk_weight))),
            "prediction_var_max": PREDICTION_SD_MAX_M**2, "match_gate": MATCH_GATE, "duplicate_gate": DUPLICATE_GATE,
            "appearance_scale": APPEARANCE_SCALE, "degrees_of_freedom": DEGREES_OF_FREEDOM,
            "velocity_decay_s": VELOCITY_DECAY_S, "limb_sd_m": LIMB_SD_M, "limb_own_var": OWN_SD_M**2,
            "joint_sd_max_m": JOINT_SD_MAX_M, "noise_prior": NOISE_PRIOR, "noise_fade_s": NOISE_FADE_S,
            "noise_share": NOISE_SHARE, "noise_min": NOISE_MIN, "noise_max": NOISE_MAX,
            "position_sd_max_m": POSITION_SD_MAX_M, "coasting_max_s": COASTING_MAX_S,
            "tentative_max_s": TENTATIVE_MAX_S, "doubt_max_s": DOUBT_MAX_S, "noise_every": NOISE_EVERY,
            "detections_per_frame_max": DETECTIONS_PER_FRAME_MAX,
        }  # fmt: skip
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return triangulation.Workspace(arrays, settings)

    def detections(self, n: int) -> Detections:
        """The first n detections as the kernels' record; views, which change with the next set."""
        return Detections(
            self.dt_s, self.has_frame, self.start, self.view_of[:n], self.x[:n], self.y[:n], self.var[:n], self.seen[:n]
        )

    def matches(self, n_detections: int, n_rows: int) -> Matches:
        """The assignment of a set as the kernels' record; views, which change with the next set."""
        return Matches(self.track_of[:n_detections], self.detection_of[:n_rows])

    def describe(self, rows: NDArray[np.int64]) -> Description:
        """Joints and places of tracks, with standard deviations."""
        described = Description.empty(len(rows), self.n_joints)
        self.kernels.describe(rows, *described)
        return described

    def places(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Places of tracks on the floor (n, 2), and their standard deviations (n,)."""
        described = self.describe(rows)
        return described.position_m, described.position_sd_m


def velocity_kept(step_s: float) -> float:
    """Share of a velocity that is left after step_s without a measurement."""
    # Bounded far below any velocity that matters: data may continue after hours of silence, and this divides.
    return math.exp(-min(step_s / VELOCITY_DECAY_S, 40.0))
