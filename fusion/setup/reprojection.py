"""The measurement model of calibration: moving points in the pictures of cameras whose clocks are off.

A camera at c with rotation R and clock offset u sees the point X at p = R (X - c), in normalised coordinates
x = p_xy / p_z. It reports each point as a tracklet, a polynomial q(u) = q0 + q1 u + q2 u^2 of its own clock around the
point's instant, so the residual is x - q(u), and the clock's offset is a parameter like any other.

Where lenses are estimated, the tracklets were normalised with a lens that may be wrong. The residual is then
s D(x) + e - q(u), where s are the corrections of both focal lengths, e that of the principal point and D are the radial
and the tangential distortion (Brown 1971); see `through_lens`. `lenses` puts corrections into the cameras.

Source: Triggs et al., Bundle Adjustment - A Modern Synthesis (2000), sections 2 and 4; Brown, Close-Range Camera
Calibration (1971).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.store.rotations import rotation_matrices

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Unknowns of a camera: rotation vector, centre in metres, clock offset in seconds; where lenses are estimated, after
# them the correction of a lens: logarithm of the focal length, principal point over focal length, k1, k2, logarithm of
# the pixels' aspect (fy over fx), p1 and p2. A lens without the last three puts their pixel or two into the principal
# points, which cameras in a ring then have too high or too low alike, by some pixels.
N_UNKNOWNS, N_OF_LENS = 7, 8
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
# The polynomials of a lens are not taken farther off its axis than this, normalised: 63 degrees, where they grow
# without end.
IDEAL_MAX = 2.0


@dataclass(frozen=True)
class Poses:
    """The places, directions and clocks of cameras.

    Attributes:
        rotation: (n_views, 3, 3) camera from world.
        centre_m: (n_views, 3) world.
        offset_s: (n_views,) a camera's clock minus the common one.
        lens: (n_views, N_OF_LENS) corrections of the lenses; None where lenses are not estimated.
    """

    rotation: FloatArray
    centre_m: FloatArray
    offset_s: FloatArray
    lens: FloatArray | None = None

    @property
    def n_unknowns(self) -> int:
        """Of each camera."""
        return N_UNKNOWNS if self.lens is None else N_UNKNOWNS + N_OF_LENS

    def camera_from_world(self) -> FloatArray:
        """(n_views, 3, 4) extrinsics."""
        return np.concatenate([self.rotation, -self.rotation @ self.centre_m[:, :, None]], axis=2)

    def moved(self, step: FloatArray) -> Poses:
        """The poses after a step (n_views, n_unknowns): R <- exp([w]x) R, the others <- their sum with the step."""
        rotation = rotation_matrices(step[:, :3]) @ self.rotation
        lens = None if self.lens is None else self.lens + step[:, N_UNKNOWNS:]
        return Poses(rotation, self.centre_m + step[:, 3:6], self.offset_s + step[:, 6], lens)


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
    """Weighted residuals in standard deviations (n, 2); derivatives by camera (n, 2, n_unknowns), point (n, 2, 3).

    Boxes have three residuals, and people in place of points five unknowns; see `box_model`.
    """

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
    ideal = at[:, :2] / np.maximum(at[:, 2:], DEPTH_MIN_M)
    shown = ideal if poses.lens is None else through_lens(ideal, poses.lens[view]).shown
    return Residuals(shown - seen, at)


class ThroughLens(NamedTuple):
    """Points (n, 2) as a lens shows them; derivatives by the ideal point (n, 2, 2) and the lens (n, 2, N_OF_LENS)."""

    shown: FloatArray
    by_point: FloatArray
    by_lens: FloatArray


def through_lens(ideal: FloatArray, lens: FloatArray) -> ThroughLens:
    """Where lenses show points, with derivatives.

    With (l, e, k1, k2, a, p1, p2) a row of `lens` and r = |(x, y)|, the point (x, y) appears at

        exp(l - a / 2) (x (1 + k1 r^2 + k2 r^4) + 2 p1 x y + p2 (r^2 + 2 x^2)) + e_x
        exp(l + a / 2) (y (1 + k1 r^2 + k2 r^4) + p1 (r^2 + 2 y^2) + 2 p2 x y) + e_y

    Args:
        ideal: (n, 2) undistorted normalised coordinates.
        lens: (n, N_OF_LENS), one for each point; in pixels where l is the logarithm of a focal length in pixels.
    """
    x, y = ideal[:, 0], ideal[:, 1]
    _, _, _, k1, k2, aspect, p1, p2 = lens.T
    r2, xy = x * x + y * y, x * y
    radial, slope = 1.0 + r2 * (k1 + r2 * k2), 2.0 * k1 + 4.0 * k2 * r2
    scale = np.exp(lens[:, :1] + 0.5 * aspect[:, None] * np.array([-1.0, 1.0]))
    tangential = np.stack([np.stack([2.0 * xy, r2 + 2.0 * y * y]), np.stack([r2 + 2.0 * x * x, 2.0 * xy])]).T
    enlarged = scale * (radial[:, None] * ideal + np.einsum("nip,pn->ni", tangential, np.stack([p1, p2])))
    across = xy * slope + 2.0 * (p1 * x + p2 * y)
    by_point = np.empty((len(ideal), 2, 2))
    by_point[:, 0, 0] = radial + x * x * slope + 2.0 * p1 * y + 6.0 * p2 * x
    by_point[:, 0, 1] = by_point[:, 1, 0] = across
    by_point[:, 1, 1] = radial + y * y * slope + 6.0 * p1 * y + 2.0 * p2 * x
    by_lens = np.zeros((len(ideal), 2, N_OF_LENS))
    by_lens[:, :, 0] = enlarged
    by_lens[:, 0, 1] = by_lens[:, 1, 2] = 1.0
    by_lens[:, :, 3] = scale * r2[:, None] * ideal
    by_lens[:, :, 4] = r2[:, None] * by_lens[:, :, 3]
    by_lens[:, :, 5] = 0.5 * enlarged * np.array([-1.0, 1.0])
    by_lens[:, :, 6:] = scale[:, :, None] * tangential
    return ThroughLens(enlarged + lens[:, 1:3], by_point * scale[:, :, None], by_lens)


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
    by_view = np.empty((len(at), 2, poses.n_unknowns))
    if poses.lens is not None:
        through = through_lens(at[:, :2] * inverse[:, None], poses.lens[observations.view])
        project = through.by_point @ project
        by_view[:, :, N_UNKNOWNS:] = through.by_lens * root_weight[:, None, None]
    project *= root_weight[:, None, None]
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
