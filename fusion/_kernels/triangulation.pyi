"""Native kernels of geometry and tracking: C-contiguous arrays in, preallocated arrays out.

Shapes are the caller's duty. Nothing is kept and nothing raised, but for what Workspace says. The GIL is released.

Image coordinates are normalised (undistorted, one unit in front of the camera) unless named _px. `n_padded` is the
number of joints rounded up to a multiple of LANES = 8. Sources and equations stand in native/.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion._kernels.association import PairModel

instruction_set: str  # "avx512", "avx2" or "baseline": the kernels chosen at load

def undistort(points_px: NDArray[np.float64], lenses: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """(n_views, n_points, 2) raw pixels to normalised coordinates; lenses (n_views, 19), see lens_rows. NaN: no ray."""

def locate_linear(
    camera_from_world: NDArray[np.float64],  # (n_views, 3, 4)
    lenses: NDArray[np.float64],  # (n_views, 19)
    points_px: NDArray[np.float64],  # (n_views, n_points, 2), NaN where unseen
    distorted: bool,
    points_m: NDArray[np.float64],  # (n_points, 3) out
    status: NDArray[np.int8],  # (n_points,) out
) -> None:
    """Linear triangulation (DLT): the least eigenvector of the homogeneous normal equations."""

def locate(
    camera_from_world: NDArray[np.float64],
    lenses: NDArray[np.float64],
    points_px: NDArray[np.float64],
    distorted: bool,
    sd_px: float,
    n_steps: int,
    points_m: NDArray[np.float64],  # (n_points, 3) out
    cov_m2: NDArray[np.float64],  # (n_points, 3, 3) out
    agreeing: NDArray[np.bool_],  # (n_views, n_points) out
    status: NDArray[np.int8],  # (n_points,) out
) -> None:
    """The same, refined by robust Gauss-Newton steps on the reprojection error (graduated non-convexity)."""

def place_by_height(
    camera: NDArray[np.float64],  # (3, 4) from world
    x: NDArray[np.float32],  # (n_padded,)
    y: NDArray[np.float32],
    seen: NDArray[np.float32],
    heights_m: NDArray[np.float64],  # (n_padded, 2) mean and standard deviation
    stature_sd: float,  # a share
    out: NDArray[np.float64],  # (5,) x, y, and the place's covariance xx, yx, yy; NaN where nothing can be derived
) -> None:
    """Place on the floor of a person seen by one camera, from the usual heights of the joints."""

def pair_scores(
    free: NDArray[np.int64],  # (n,) indices of detections
    view_of: NDArray[np.int64],  # (n_detections,)
    dt_s: NDArray[np.float64],  # (n_views,)
    x: NDArray[np.float32],  # (n_detections, n_padded)
    y: NDArray[np.float32],
    var: NDArray[np.float32],
    seen: NDArray[np.float32],
    camera_from_world: NDArray[np.float64],
    body_var: NDArray[np.float64],  # (n_padded,)
    heights_m: NDArray[np.float64],  # (n_padded, 2)
    model: PairModel,
    out: NDArray[np.float64],  # (n, n) out, lower triangle, far below zero for two detections of one camera
    centre: NDArray[np.float32],  # (n (n - 1) / 2, 3) out, that triangle row by row; NaN where there is none
) -> None:
    """Evidence that two detections of different cameras are of one person, as a log likelihood ratio, and where."""

def pair_costs(
    free: NDArray[np.int64],
    view_of: NDArray[np.int64],
    dt_s: NDArray[np.float64],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    var: NDArray[np.float32],
    seen: NDArray[np.float32],
    camera_from_world: NDArray[np.float64],
    body_var: NDArray[np.float64],
    heights_m: NDArray[np.float64],
    model: PairModel,
    joints_min: float,
    out: NDArray[np.float64],  # (n_first, n) out: the first detections against all
) -> None:
    """How far the rays of two detections are from meeting, about 1 for one person; NEVER where nothing compares."""

NEVER: float  # no match: higher than any cost
IMPOSSIBLE: float  # two detections of one camera are never one person: lower than any sum of scores

# Findings of `Workspace.follow`, one bit each.
UNSURE: int  # a track is tentative, unnamed or vaguely placed
UNNAMED: int  # a track has no id
TENTATIVE_SEEN: int  # a camera found a tentative track
DOUBTED: int  # at most one camera found a confirmed track
OVERDUE: int  # a track was not seen, or was doubted, for too long
DUPLICATES: int  # two tracks are so near that they may be one person
FREE: int  # a detection belongs to no track

class Workspace:
    """Tracking through sets of frames, over arrays that are bound once; see fusion/people/workspace.py for them.

    In every call `rows` (n,) int64 are rows of tracks. Nothing is allocated; the arrays must stay where they are.
    """

    def __init__(self, arrays: dict[str, NDArray[Any]], settings: dict[str, float]) -> None:
        """Bind the arrays. Raises ValueError where one or a setting is missing, or an array is of another kind."""

    def take(self, frames: list[Any], view_of: dict[str, int]) -> tuple[int, int, int, int, int, int, int] | None:
        """Bring a set's detections into the arrays.

        Args:
            frames: objects with t_ns, camera and keypoints (n, K, 3) float32, C-contiguous.
            view_of: the view of each camera name.

        Returns:
            The newest time, and the numbers of cameras with a frame, of detections, of keypoints that claim to be seen
            but are not finite or lie where no lens looks, of detections beyond the limit, of frames of unknown cameras,
            and of second frames of a camera; None where keypoints are of another kind.
        """

    def predict(self, rows: NDArray[np.int64], dt_s: float) -> None:
        """Predict joints dt_s ahead (Kalman filter, decaying velocity)."""

    def costs(self, rows: NDArray[np.int64], gate: float, out: NDArray[np.float64]) -> None:
        """Matching costs without appearance; out (n, n_detections), written where a cost is below the gate."""

    def match(self, rows: NDArray[np.int64]) -> None:
        """Assign every camera's detections to tracks at least cost: writes track_of and detection_of."""

    def measure(
        self,
        rows: NDArray[np.int64],
        detection_of: NDArray[np.int64],  # (n, n_views), -1 for none
        share: float,  # weight of the body's priors in this set
        learning: float,  # share of this set's heights and limb lengths in the usual ones
        n_steps: int,  # two or more
        n_plain: int,  # steps in which every view still has full weight
        tally: int,  # every fourth track from here on teaches how noisy the detector is; negative: none
        sums: NDArray[np.float64],  # (n, n_views) out: capped squared residuals; or of size 0
        counts: NDArray[np.float64],  # (n, n_views) out: how many
    ) -> None:
        """Update joints by their detections (iteratively reweighted Kalman update); then limbs keep their lengths."""

    def follow(
        self,
        rows: NDArray[np.int64],
        t_ns: int,
        step_s: float,  # since the last set
        share: float,
        learning: float,
        n_steps: int,
        tally: int,
        joints_m: NDArray[np.float64],  # out, as those of describe
        joints_sd_m: NDArray[np.float64],
        position_m: NDArray[np.float64],
        position_sd_m: NDArray[np.float64],
    ) -> int:
        """Update all tracks by the detections that `match` assigned, learn, describe; returns findings, see above."""

    def describe(
        self,
        rows: NDArray[np.int64],
        joints_m: NDArray[np.float64],  # (n, K, 3) out
        joints_sd_m: NDArray[np.float64],  # (n, K) out
        position_m: NDArray[np.float64],  # (n, 2) out
        position_sd_m: NDArray[np.float64],  # (n,) out
    ) -> None:
        """Joints and places on the floor, with standard deviations."""
