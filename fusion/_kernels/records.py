"""Records that Numba kernels take: named tuples of arrays that belong together, views of what the stages own.

Numba passes a named tuple field by field, so a record costs what its arrays cost and reads as a struct inside a kernel.
Arrays are C-contiguous; `n_padded` is the number of joints rounded up to whole lanes, see fusion/people/workspace.py.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class CameraGeometry(NamedTuple):
    """Where cameras are, what their lenses show, and the furniture that blocks their view."""

    camera_from_world: NDArray[np.float64]  # (n_views, 3, 4)
    pinholes: NDArray[np.float64]  # (n_views, 4) fx, fy, cx, cy of about the same view without distortion
    size_px: NDArray[np.float64]  # (n_views, 2) width and height
    boxes: NDArray[np.float64]  # (n_boxes, 5) x0, y0, x1, y1, height in metres


class Detections(NamedTuple):
    """The detections of one set of frames, sorted by view: those of view v are start[v] .. start[v + 1] - 1.

    Image coordinates are normalised and undistorted.
    """

    dt_s: NDArray[np.float64]  # (n_views,) time of each frame minus that of the set
    has_frame: NDArray[np.bool_]  # (n_views,)
    start: NDArray[np.int64]  # (n_views + 1,)
    view_of: NDArray[np.int64]  # (n,)
    x: NDArray[np.float32]  # (n, n_padded)
    y: NDArray[np.float32]  # (n, n_padded)
    var: NDArray[np.float32]  # (n, n_padded) variance of either coordinate
    seen: NDArray[np.float32]  # (n, n_padded) 1.0 or 0.0


class States(NamedTuple):
    """States of tracks: `rows` are those that are followed."""

    mean: NDArray[np.float64]  # (capacity, 6, n_padded) position and velocity of every joint
    cov: NDArray[np.float64]  # (capacity, 21, n_padded) lower triangles of their covariance
    rows: NDArray[np.int64]  # (n,)
    confirmed: NDArray[np.bool_]  # (capacity,) certainly a person, not a ghost
    n_joints: int


class Matches(NamedTuple):
    """The assignment of detections to tracks, by index into `States.rows`."""

    track_of: NDArray[np.int64]  # (n_detections,) -1 free, -2 a second detection of a track
    detection_of: NDArray[np.int64]  # (n, n_views) -1 none
