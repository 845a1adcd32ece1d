"""Native kernels of geometry and tracking: C-contiguous arrays in, preallocated arrays out.

Shapes are the caller's duty.

Image coordinates are normalised (undistorted, one unit in front of the camera) unless named _px. `n_padded` is the
number of joints rounded up to a multiple of LANES = 8.
"""

import numpy as np

instruction_set: str  # "avx512", "avx2" or "baseline": what the kernels were chosen for at load

def prepare(
    keypoints: np.ndarray,  # (n, K, 3) float32: x, y in raw pixels, score
    start: np.ndarray,  # (n_views + 1,) int64, first detection of each view
    lenses: np.ndarray,  # (n_views, 9): fx, fy, cx, cy, k1, k2, p1, p2, k3
    sd_px: float,
    score_min: float,
    x: np.ndarray,  # (>= n, n_padded) out; so are y, var, seen
    y: np.ndarray,
    var: np.ndarray,
    seen: np.ndarray,
) -> int:
    """Undistort detections; returns how many keypoints claimed to be seen but were not finite."""

def undistort(points_px: np.ndarray, lenses: np.ndarray, out: np.ndarray) -> None:
    """(n_views, n_points, 2) raw pixels to normalised coordinates."""

def costs(
    camera_from_world: np.ndarray,
    dt_s: np.ndarray,  # (n_views,) frame time minus state time
    start: np.ndarray,  # (n_views + 1,) int64, first detection of each view
    x: np.ndarray,  # (n_detections, n_padded); so are y, var, seen
    y: np.ndarray,
    var: np.ndarray,
    seen: np.ndarray,
    mean: np.ndarray,
    cov: np.ndarray,
    rows: np.ndarray,  # (n,) int64
    body_var: np.ndarray,  # (n_padded,) m^2
    cap: float,  # on a joint's squared distance
    joints_min: float,
    var_max: float,  # m^2, of a prediction
    never: float,  # what a pair costs that cannot be
    out: np.ndarray,  # (n, n_detections) out
) -> None:
    """Mean capped squared distance, in standard deviations, from every predicted person to every detection."""

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

def predict(
    mean: np.ndarray,  # (capacity, 6, n_padded) in and out
    cov: np.ndarray,  # (capacity, 21, n_padded) in and out, lower triangle row by row
    rows: np.ndarray,  # (n,) int64
    dt_s: float,
    fade_s: float,
    acceleration: np.ndarray,  # (n_padded,) m^2/s^3
) -> None:
    """Carry joints on in time."""

def update(
    camera_from_world: np.ndarray,
    dt_s: np.ndarray,  # (n_views,) frame time minus state time
    x: np.ndarray,  # (n_detections, n_padded); so are y, var, seen
    y: np.ndarray,
    var: np.ndarray,
    seen: np.ndarray,
    rows: np.ndarray,  # (n,) int64
    detection_of: np.ndarray,  # (n, n_views) int64, -1 for none
    body_var: np.ndarray,  # (n_padded,) m^2
    acceleration: np.ndarray,  # (n_padded,) m^2/s^3
    floor_precision: np.ndarray,  # (n_padded,) 1/m^2
    axis_precision: np.ndarray,  # (n_padded,) 1/m^2 about the body's axis, 0 for padding
    height_precision: np.ndarray,  # (n_padded,) 1/m^2 about the usual height
    heights_m: np.ndarray,  # (capacity, n_padded) usual heights, in and out
    share: float,  # of the two precisions that this set brings
    learning: float,  # share of this set's height in the usual height
    freedom: float,
    n_steps: int,
    n_plain: int,
    mean: np.ndarray,
    cov: np.ndarray,
    residual_sum: np.ndarray,  # (n, n_views) out: capped squared normalised residuals; and their count
    residual_count: np.ndarray,
    support: np.ndarray,  # (n, n_padded) out: sum of robust weights of the views
) -> None:
    """Most probable joint states given the predictions and everything that was matched."""

def hold_limbs(
    mean: np.ndarray,
    cov: np.ndarray,
    rows: np.ndarray,
    limbs: np.ndarray,  # (n_limbs, 2) int64
    lengths_m: np.ndarray,  # (capacity, n_limbs) in and out
    support: np.ndarray,  # (n, n_padded) of update
    sd_m: float,
    own_var: float,  # m^2 by which two joints that are both vague differ nevertheless
    learning: float,  # share of this set's lengths in the learnt ones
) -> None:
    """Pull joints to the learnt lengths of the limbs between them."""

def describe(
    mean: np.ndarray,
    cov: np.ndarray,
    rows: np.ndarray,
    share: np.ndarray,  # (n_joints,)
    sd_max_m: float,
    joints_m: np.ndarray,  # (n, n_joints, 3) out
    joints_sd_m: np.ndarray,  # (n, n_joints) out
    position_m: np.ndarray,  # (n, 2) out
    position_sd_m: np.ndarray,  # (n,) out
) -> None:
    """Joints with deviations and the place on the floor."""
