"""The measurement model of calibration: moving points in the pictures of cameras whose clocks are off.

A camera at c with rotation R and clock offset u sees the point X at p = R (X - c), in normalised coordinates
p_xy / p_z. It reports each point as a tracklet, a polynomial q(u) = q0 + q1 u + q2 u^2 of its own clock around the
point's instant, so the residual is p_xy / p_z - q(u), and the clock's offset is a parameter like any other.

Source: Triggs et al., Bundle Adjustment - A Modern Synthesis (2000), sections 2 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.store.rotations import rotation_matrices

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Unknowns of a camera: rotation vector, centre in metres, clock offset in seconds.
N_UNKNOWNS = 7
# Residuals of this many standard deviations lose half of their weight (Cauchy).
_HALF_WEIGHT_AT = 2.0
# Standard deviation of a keypoint in the picture, in addition to that at the body, pixels.
_SD_PX = 0.7
# A keypoint's standard deviation at the body lies within this, metres.
SD_MIN_M, _SD_MAX_M = 0.002, 0.08
# Least number of observations for a joint to have a standard deviation of its own.
_OF_JOINT_MIN = 30
# A body is never nearer to a camera than this, metres.
DEPTH_MIN_M = 0.1


@dataclass(frozen=True)
class Poses:
    """The places, directions and clocks of cameras.

    Attributes:
        rotation: (n_views, 3, 3) camera from world.
        centre_m: (n_views, 3) world.
        offset_s: (n_views,) a camera's clock minus the common one.
    """

    rotation: FloatArray
    centre_m: FloatArray
    offset_s: FloatArray

    def camera_from_world(self) -> FloatArray:
        """(n_views, 3, 4) extrinsics."""
        return np.concatenate([self.rotation, -self.rotation @ self.centre_m[:, :, None]], axis=2)

    def moved(self, step: FloatArray) -> Poses:
        """The poses after a step (n_views, 7): R <- exp([w]x) R, c <- c + dc, u <- u + du."""
        rotation = rotation_matrices(step[:, :3]) @ self.rotation
        return Poses(rotation, self.centre_m + step[:, 3:6], self.offset_s + step[:, 6])


@dataclass(frozen=True)
class PointObservations:
    """Observations of points in pictures, sorted by point; a camera sees a point once.

    Attributes:
        view, point, joint: (n,) indices.
        tracklet: (n, 3, 2) normalised image coordinates as a polynomial of the camera's time since the point's instant.
        focal_px: (n,) focal length of the camera.
    """

    view: IntArray
    point: IntArray
    joint: IntArray
    tracklet: FloatArray
    focal_px: FloatArray

    def of_views(self, placed: IntArray) -> PointObservations:
        """The same observations with `view` as an index into `placed`, which is ascending and has all their views."""
        return PointObservations(
            np.searchsorted(placed, self.view), self.point, self.joint, self.tracklet, self.focal_px
        )  # fmt: skip


class Residuals(NamedTuple):
    """Normalised residuals (n, 2), and the points (n, 3) in the frames of their cameras."""

    normalised: FloatArray
    point_camera_m: FloatArray

    def depth_m(self) -> FloatArray:
        """(n,) depth before the camera, at least DEPTH_MIN_M."""
        return np.maximum(self.point_camera_m[:, 2], DEPTH_MIN_M)


class Linearisation(NamedTuple):
    """Weighted residuals in standard deviations (n, 2), with derivatives by camera (n, 2, 7) and by point (n, 2, 3)."""

    residual: FloatArray
    by_view: FloatArray
    by_point: FloatArray


class RobustCost(NamedTuple):
    """A robust cost, and the weight (n,) of each observation in the quadratic that touches it."""

    total: float
    weight: FloatArray


def cross_matrices(vectors: FloatArray) -> FloatArray:
    """(..., 3, 3) matrices of the cross products with vectors (..., 3)."""
    out = np.zeros((*vectors.shape, 3))
    x, y, z = np.moveaxis(vectors, -1, 0)
    out[..., 0, 1], out[..., 0, 2], out[..., 1, 2] = -z, y, -x
    out[..., 1, 0], out[..., 2, 0], out[..., 2, 1] = z, -y, x
    return out


def residuals(observations: PointObservations, poses: Poses, points_m: FloatArray) -> Residuals:
    """Projection minus observation of points (n_points, 3), world frame."""
    view = observations.view
    at = np.einsum("nij,nj->ni", poses.rotation[view], points_m[observations.point] - poses.centre_m[view])
    u = poses.offset_s[view][:, None]
    tracklet = observations.tracklet
    seen = tracklet[:, 0] + u * (tracklet[:, 1] + u * tracklet[:, 2])
    depth = np.maximum(at[:, 2:], DEPTH_MIN_M)
    return Residuals(at[:, :2] / depth - seen, at)


def linearise(
    observations: PointObservations, poses: Poses, points_m: FloatArray, root_weight: FloatArray
) -> Linearisation:
    """Residuals and exact derivatives around a state.

    Args:
        observations: n observations.
        poses: of all cameras.
        points_m: (n_points, 3) world frame.
        root_weight: (n,) square root of each observation's weight, over its standard deviation.
    """
    residual, at = residuals(observations, poses, points_m)
    inverse = 1.0 / np.maximum(at[:, 2], DEPTH_MIN_M)
    project = np.zeros((len(at), 2, 3))
    project[:, 0, 0] = project[:, 1, 1] = inverse
    project[:, :, 2] = -at[:, :2] * inverse[:, None] ** 2
    project *= root_weight[:, None, None]
    by_view = np.empty((len(at), 2, N_UNKNOWNS))
    by_view[:, :, :3] = -project @ cross_matrices(at)
    by_point = project @ poses.rotation[observations.view]
    by_view[:, :, 3:6] = -by_point
    u = poses.offset_s[observations.view][:, None]
    tracklet = observations.tracklet
    by_view[:, :, 6] = -(tracklet[:, 1] + 2.0 * u * tracklet[:, 2]) * root_weight[:, None]
    return Linearisation(residual * root_weight[:, None], by_view, by_point)


def joint_sd_m(observations: PointObservations, found: Residuals, n_joints: int) -> FloatArray:
    """(n_joints,) standard deviation of detected joints at the body, from medians of residuals.

    1.25 times the median of |x| averaged over both coordinates is the standard deviation of a normal distribution. A
    joint with few observations has that of all joints.
    """
    off_m = np.abs(found.normalised).mean(axis=1) * found.depth_m()
    sd = np.full(n_joints, 1.25 * float(np.median(off_m)))
    for joint in range(n_joints):
        of_joint = off_m[observations.joint == joint]
        if len(of_joint) > _OF_JOINT_MIN:
            sd[joint] = 1.25 * float(np.median(of_joint))
    return np.asarray(np.clip(sd, SD_MIN_M, _SD_MAX_M))


def observation_sd(observations: PointObservations, found: Residuals, sd_m: FloatArray) -> FloatArray:
    """(n,) standard deviation of each observation, normalised coordinates; sd_m (n_joints,) is that at the body."""
    sd: FloatArray = np.hypot(sd_m[observations.joint] / found.depth_m(), _SD_PX / observations.focal_px)
    return sd


def cauchy_cost(found: Residuals, sd: FloatArray) -> RobustCost:
    """Cauchy's cost a^2 sum log(1 + (r / a s)^2), and the weights 1 / (1 + (r / a s)^2) of reweighted least squares.

    An observation behind its camera counts as far off, and has no weight.
    """
    squared = (found.normalised**2).sum(axis=1) / (sd * _HALF_WEIGHT_AT) ** 2
    behind = found.point_camera_m[:, 2] < DEPTH_MIN_M
    squared = np.where(behind, 1e4, squared)
    weight = np.where(behind, 0.0, 1.0 / (1.0 + squared))
    return RobustCost(float(np.log1p(squared).sum() * _HALF_WEIGHT_AT**2), weight)
