"""Native kernels of geometry and tracking: C-contiguous arrays in, preallocated arrays out.

Shapes are the caller's duty.

Image coordinates are normalised (undistorted, one unit in front of the camera) unless named _px. `n_padded` is the
number of joints rounded up to a multiple of LANES = 8.
"""

from typing import Any

import numpy as np

instruction_set: str  # "avx512", "avx2" or "baseline": what the kernels were chosen for at load

def undistort(points_px: np.ndarray, lenses: np.ndarray, out: np.ndarray) -> None:
    """(n_views, n_points, 2) raw pixels to normalised coordinates."""

def triangulate(
    camera_from_world: np.ndarray,  # (n_views, 3, 4)
    points: np.ndarray,  # (n_views, 2, n_points), NaN where unseen
    points_m: np.ndarray,  # (n_points, 3) out
    status: np.ndarray,  # (n_points,) int8 out
) -> None:
    """Linear triangulation: the least eigenvector of the homogeneous normal equations."""

def refine(
    camera_from_world: np.ndarray,
    points: np.ndarray,  # (n_views, 2, n_points), NaN where unseen
    sd: np.ndarray,  # (n_views,) normalised
    n_steps: int,
    points_m: np.ndarray,  # (n_points, 3) in and out
    cov_m2: np.ndarray,  # (n_points, 6) out: xx, yx, yy, zx, zy, zz
    weights: np.ndarray,  # (n_views, n_points) out
) -> None:
    """Robust Gauss-Newton refinement of points."""

# What `Workspace.follow` found, one bit each.
UNSURE: int  # somebody is tentative, unnamed or vaguely placed
UNNAMED: int
TENTATIVE_SEEN: int
DOUBTED: int  # somebody confirmed was found by one camera at most
OVERDUE: int  # somebody was not seen, or doubted, for too long
DUPLICATES: int  # two stand so near that they may be one
FREE: int  # a detection is nobody's

class Workspace:
    """Following people through sets of frames, over arrays that are bound once; see fusion/workspace.py for them.

    In every call `rows` (n,) int64 are people's rows. Nothing is allocated; the arrays must stay where they are.
    """

    def __init__(self, arrays: dict[str, np.ndarray], settings: dict[str, float]) -> None:
        """Raises ValueError where an array or a setting is missing, or an array is of another kind."""

    def take(
        self, frames: list[Any], view_of: dict[str, int]
    ) -> tuple[int, int, int, int, int, int, int] | None:
        """Make a set's detections ready: frames with t_ns, camera and keypoints (n, K, 3) float32, C-contiguous.

        Returns the newest time, and how many cameras have a frame, detections there are, keypoints claimed to be seen
        but are not finite or where no lens looks, detections did not fit, frames were of unknown cameras, and frames
        were second ones of their camera; None where keypoints are of another kind.
        """

    def predict(self, rows: np.ndarray, dt_s: float) -> None:
        """Carry joints on in time."""

    def costs(self, rows: np.ndarray, gate: float, out: np.ndarray) -> None:
        """Mean capped squared distance, in standard deviations, from people to detections, without their looks.

        out (n, n_detections): written where it is below the gate.
        """

    def match(self, rows: np.ndarray) -> None:
        """Give every camera's detections to people at least cost: track_of and detection_of."""

    def measure(
        self,
        rows: np.ndarray,
        detection_of: np.ndarray,  # (n, n_views) int64, -1 for none
        share: float,  # of what is known of bodies that this set brings
        learning: float,  # share of this set's heights and limb lengths in the usual ones
        n_steps: int,
        n_plain: int,  # steps in which every view still has its full say
        tally: int,  # every fourth person from here teaches how noisy the detector is; negative: nobody
        sums: np.ndarray,  # (n, n_views) out: capped squared residuals; and their count; or of size 0
        counts: np.ndarray,
    ) -> None:
        """Most probable joint states given the predictions and what was matched; then limbs are held."""

    def follow(
        self,
        rows: np.ndarray,
        t_ns: int,
        step_s: float,  # since the last set
        share: float,
        learning: float,
        n_steps: int,
        tally: int,
        joints_m: np.ndarray,  # out, as those of describe
        joints_sd_m: np.ndarray,
        position_m: np.ndarray,
        position_sd_m: np.ndarray,
    ) -> int:
        """Measure everybody with what `match` gave him, learn, describe; returns what was found, see above."""

    def describe(
        self,
        rows: np.ndarray,
        joints_m: np.ndarray,  # (n, K, 3) out
        joints_sd_m: np.ndarray,  # (n, K) out
        position_m: np.ndarray,  # (n, 2) out
        position_sd_m: np.ndarray,  # (n,) out
    ) -> None:
        """Joints with deviations and the place on the floor."""
