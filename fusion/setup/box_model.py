"""The measurement model of calibration from boxes: upright people on the floor in the pictures of cameras.

A person is a vertical line from (x, y, 0) to (x, y, h), and a camera at c with rotation R, clock offset u and a lens of
OpenCV's model shows both ends. A box has its upper edge at the head, its lower edge at the foot that is nearest to the
camera, a step of the person before (x, y), and its middle halfway between the two ends: a person who looks oblique in
the picture has a box that is upright. Pictures are not undistorted, since the edges of boxes are straight in them.

A camera has the unknowns of `reprojection` and one more, the step; a person x, y and h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fusion.setup.reprojection import DEPTH_MIN_M, N_OF_LENS, N_UNKNOWNS, FloatArray, IntArray, Linearisation
from fusion.store.rotations import rotation_matrices

# Unknowns of a camera: as in `reprojection`, with a lens of log focal length, principal point in pixels, k1 and k2, and
# the step towards the camera in metres.
N_OF_BOX_CAMERA = N_UNKNOWNS + N_OF_LENS + 1
# A step before the middle of the body, metres, and its standard deviation over detectors.
STEP_M, STEP_SD_M = 0.12, 0.06
# Steps of central differences.
_H_VIEW = np.array([1e-5] * 3 + [1e-5] * 3 + [1e-4] + [1e-5, 1e-2, 1e-2, 1e-4, 1e-4] + [1e-4])
_H_POINT = 1e-5


@dataclass(frozen=True)
class BoxCameras:
    """Cameras as boxes determine them.

    Attributes:
        rotation: (n_views, 3, 3) camera from world. centre_m: (n_views, 3). offset_s: (n_views,).
        lens: (n_views, N_OF_LENS) log of the focal length in pixels, principal point in pixels, k1, k2.
        step_m: (n_views,) from the middle of the body to the foot that a box ends at.
    """

    rotation: FloatArray
    centre_m: FloatArray
    offset_s: FloatArray
    lens: FloatArray
    step_m: FloatArray

    def moved(self, step: FloatArray) -> BoxCameras:
        """The cameras after a step (n_views, N_OF_BOX_CAMERA)."""
        return BoxCameras(
            rotation_matrices(step[:, :3]) @ self.rotation,
            self.centre_m + step[:, 3:6],
            self.offset_s + step[:, 6],
            self.lens + step[:, N_UNKNOWNS : N_UNKNOWNS + N_OF_LENS],
            self.step_m + step[:, -1],
        )

    def of(self, views: IntArray) -> BoxCameras:
        """The cameras of these indices, which may repeat."""
        return BoxCameras(
            self.rotation[views], self.centre_m[views], self.offset_s[views], self.lens[views], self.step_m[views]
        )


@dataclass(frozen=True)
class BoxObservations:
    """Boxes of people, sorted by person; a camera sees a person once.

    Attributes:
        view, point: (n,) camera and person.
        tracklet: (n, 3, 3) middle, upper and lower edge in pixels as polynomials of the camera's time since the
            person's instant: (power, quantity).
    """

    view: IntArray
    point: IntArray
    tracklet: FloatArray


class BoxResiduals(NamedTuple):
    """Residuals (n, 3) in pixels: middle, upper edge, lower edge; and depths (n,) of the people's middles, metres."""

    px: FloatArray
    depth_m: FloatArray


def box_residuals(observations: BoxObservations, cameras: BoxCameras, people: FloatArray) -> BoxResiduals:
    """Expected minus observed boxes of people (n_people, 3): x, y, h in metres."""
    return _residuals(observations.tracklet, cameras.of(observations.view), people[observations.point])


def _residuals(tracklet: FloatArray, each: BoxCameras, person: FloatArray) -> BoxResiduals:
    """The same with one camera and one person for each box."""
    foot_m = np.concatenate([person[:, :2], np.zeros((len(person), 1))], axis=1)
    towards = each.centre_m[:, :2] - foot_m[:, :2]
    near_m = foot_m.copy()
    near_m[:, :2] += (
        each.step_m[:, None] * towards / np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), DEPTH_MIN_M)
    )
    foot, head, near = (_shown(each, point_m) for point_m in (foot_m, person, near_m))
    u = each.offset_s[:, None]
    seen = tracklet[:, 0] + u * (tracklet[:, 1] + u * tracklet[:, 2])
    expected = np.stack([0.5 * (foot.px[:, 0] + head.px[:, 0]), head.px[:, 1], near.px[:, 1]], axis=1)
    return BoxResiduals(expected - seen, 0.5 * (foot.depth_m + head.depth_m))


class _Shown(NamedTuple):
    """Points (n, 2) in pictures, and their depths (n,)."""

    px: FloatArray
    depth_m: FloatArray


def _shown(each: BoxCameras, points_m: FloatArray) -> _Shown:
    """One point (n, 3) in the picture of each camera."""
    at = np.einsum("nij,nj->ni", each.rotation, points_m - each.centre_m)
    ideal = at[:, :2] / np.maximum(at[:, 2:], DEPTH_MIN_M)
    r2 = np.minimum((ideal**2).sum(axis=1, keepdims=True), 4.0)
    radial = 1.0 + r2 * (each.lens[:, 3:4] + r2 * each.lens[:, 4:5])
    return _Shown(np.exp(each.lens[:, :1]) * radial * ideal + each.lens[:, 1:3], at[:, 2])


def linearise_boxes(
    observations: BoxObservations, cameras: BoxCameras, people: FloatArray, root_weight: FloatArray
) -> Linearisation:
    """Residuals and derivatives around a state, by central differences: the model is short, its derivatives are not.

    Args:
        observations: n boxes.
        cameras: of all views.
        people: (n_people, 3).
        root_weight: (n, 3) square root of the weight of each residual, over its standard deviation.
    """
    person = people[observations.point]
    n, n_views = len(person), len(cameras.centre_m)

    def px(change: FloatArray, shift: FloatArray) -> FloatArray:
        each = cameras.moved(np.tile(change, (n_views, 1))).of(observations.view)
        return _residuals(observations.tracklet, each, person + shift).px

    by_view, by_point = np.empty((n, 3, N_OF_BOX_CAMERA)), np.empty((n, 3, 3))
    still, here = np.zeros(N_OF_BOX_CAMERA), np.zeros(3)
    for i, h in enumerate(_H_VIEW):
        change = np.where(np.arange(N_OF_BOX_CAMERA) == i, h, 0.0)
        by_view[:, :, i] = (px(change, here) - px(-change, here)) / (2.0 * h)
    for i in range(3):
        shift = np.where(np.arange(3) == i, _H_POINT, 0.0)
        by_point[:, :, i] = (px(still, shift) - px(still, -shift)) / (2.0 * _H_POINT)
    return Linearisation(
        px(still, here) * root_weight, by_view * root_weight[:, :, None], by_point * root_weight[:, :, None]
    )
