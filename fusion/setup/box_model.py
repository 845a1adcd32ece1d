"""The measurement model of calibration from boxes: upright people on the floor in the pictures of cameras.

A person is a line from their feet at (x, y, 0) to their head at (x + a, y + b, h), and a camera at c with rotation R,
clock offset u and a lens of OpenCV's model shows both ends. A box has its upper edge at the head and its lower edge at
the foot that is nearest to the camera: a step before (x, y), and as high above the floor as the detector ends boxes.
Its middle is halfway between the head and the point of the line at which the box ends, since furniture cuts many
boxes. A person who looks oblique in the picture thus has a box that is upright. Pictures are not undistorted, since the
edges of boxes are straight in them.

People before a shelf bend towards it, and their toes point to it. Both shift the head over the feet, at every shelf in
a direction of its own.

A camera has the unknowns of `reprojection` and two more, step and sole; a person x, y, h, a and b.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from fusion.setup.reprojection import (
    DEPTH_MIN_M,
    IDEAL_MAX,
    N_OF_LENS,
    N_UNKNOWNS,
    FloatArray,
    IntArray,
    Linearisation,
    cross_matrices,
    through_lens,
)
from fusion.store.rotations import rotation_matrices

# Unknowns of a camera: as in `reprojection`, with a lens in pixels, then the step towards the camera and the
# height of the sole above the floor, metres.
N_OF_BOX_CAMERA = N_UNKNOWNS + N_OF_LENS + 2
# Unknowns of a person: where they stand, stature, and how far the head is beside the feet, metres.
N_OF_PERSON = 5
# A step before the middle of the body, metres, and its standard deviation over detectors.
STEP_M, STEP_SD_M = 0.12, 0.06
# The height at which a box ends above the floor, metres.
SOLE_M, SOLE_SD_M = 0.01, 0.015
# A person's line is shorter than this where they are seen from above, pixels: their box is not cut along it.
_LINE_MIN_PX = 10.0


@dataclass(frozen=True)
class BoxCameras:
    """Cameras as boxes determine them.

    Attributes:
        rotation: (n_views, 3, 3) camera from world. centre_m: (n_views, 3). offset_s: (n_views,).
        lens: (n_views, N_OF_LENS) as `reprojection.through_lens` takes lenses, in pixels.
        step_m: (n_views,) from the middle of the body to the foot that a box ends at.
        sole_m: (n_views,) height at which a box ends.
    """

    rotation: FloatArray
    centre_m: FloatArray
    offset_s: FloatArray
    lens: FloatArray
    step_m: FloatArray
    sole_m: FloatArray

    def moved(self, step: FloatArray) -> BoxCameras:
        """The cameras after a step (n_views, N_OF_BOX_CAMERA)."""
        return BoxCameras(
            rotation_matrices(step[:, :3]) @ self.rotation,
            self.centre_m + step[:, 3:6],
            self.offset_s + step[:, 6],
            self.lens + step[:, N_UNKNOWNS : N_UNKNOWNS + N_OF_LENS],
            self.step_m + step[:, -2],
            self.sole_m + step[:, -1],
        )

    def of(self, views: IntArray) -> BoxCameras:
        """The cameras of these indices, which may repeat."""
        return BoxCameras(*(getattr(self, field.name)[views] for field in fields(self)))


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
    """Expected minus observed boxes of people (n_people, N_OF_PERSON): x, y, h, a, b in metres."""
    return _residuals(observations.tracklet, cameras.of(observations.view), people[observations.point])


def _residuals(tracklet: FloatArray, each: BoxCameras, person: FloatArray) -> BoxResiduals:
    """The same with one camera and one person for each box."""
    ends = _ends(each, person)
    foot, head, near = (_shown(each, end.at_m) for end in ends)
    u = each.offset_s[:, None]
    seen = tracklet[:, 0] + u * (tracklet[:, 1] + u * tracklet[:, 2])
    cut = _cut_at(foot.px, head.px, seen[:, 2])
    middle = 0.5 * ((1.0 - cut) * foot.px[:, 0] + (1.0 + cut) * head.px[:, 0])
    expected = np.stack([middle, head.px[:, 1], near.px[:, 1]], axis=1)
    return BoxResiduals(expected - seen, 0.5 * (foot.depth_m + head.depth_m))


def _cut_at(foot_px: FloatArray, head_px: FloatArray, lower_px: FloatArray) -> FloatArray:
    """(n,) share of the line from foot to head (n, 2) that is below the lower edge (n,) of the box, 0 to 1."""
    length = foot_px[:, 1] - head_px[:, 1]
    cut = (foot_px[:, 1] - lower_px) / np.maximum(length, _LINE_MIN_PX)
    return np.asarray(np.where(length > _LINE_MIN_PX, np.clip(cut, 0.0, 1.0), 0.0))


class _End(NamedTuple):
    """An end of people: places (n, 3); derivatives by person (n, 3, 5), centre (n, 3, 3), step and sole (n, 3, 2)."""

    at_m: FloatArray
    by_person: FloatArray
    by_centre: FloatArray
    by_end: FloatArray


def _ends(each: BoxCameras, person: FloatArray) -> tuple[_End, _End, _End]:
    """Foot and head of each person, and the foot that is near to the camera."""
    n = len(person)
    floor, still, fixed = np.diag([1.0, 1.0, 0.0]), np.zeros((n, 3, 3)), np.zeros((n, 3, 2))
    foot_of, head_of = np.zeros((3, N_OF_PERSON)), np.zeros((3, N_OF_PERSON))
    foot_of[(0, 1), (0, 1)] = head_of[(0, 1, 2), (0, 1, 2)] = head_of[(0, 1), (3, 4)] = 1.0
    foot_m, head_m = person @ foot_of.T, person @ head_of.T
    towards = (each.centre_m - foot_m) @ floor
    distance = np.maximum(np.linalg.norm(towards, axis=1), DEPTH_MIN_M)
    towards = towards / distance[:, None]
    by_end = np.zeros((n, 3, 2))
    by_end[:, :, 0], by_end[:, 2, 1] = towards, 1.0
    near_m = foot_m + np.einsum("nij,nj->ni", by_end, np.stack([each.step_m, each.sole_m], axis=1))
    # The direction turns as the person or the camera moves across it.
    turning = (each.step_m / distance)[:, None, None] * (floor - towards[:, :, None] * towards[:, None, :])
    return (
        _End(foot_m, np.broadcast_to(foot_of, (n, 3, N_OF_PERSON)), still, fixed),
        _End(head_m, np.broadcast_to(head_of, (n, 3, N_OF_PERSON)), still, fixed),
        _End(near_m, foot_of - turning @ foot_of, turning, by_end),
    )


class _Shown(NamedTuple):
    """Points (n, 2) in pictures, their depths (n,), and derivatives by the points and the cameras' unknowns."""

    px: FloatArray
    depth_m: FloatArray
    by_point: FloatArray
    by_view: FloatArray


def _shown(each: BoxCameras, points_m: FloatArray) -> _Shown:
    """One point (n, 3) in the picture of each camera."""
    at = np.einsum("nij,nj->ni", each.rotation, points_m - each.centre_m)
    inverse = 1.0 / np.maximum(at[:, 2], DEPTH_MIN_M)
    ideal = at[:, :2] * inverse[:, None]
    ideal = ideal / np.maximum(np.linalg.norm(ideal, axis=1) / IDEAL_MAX, 1.0)[:, None]
    through = through_lens(ideal, each.lens)
    project = np.zeros((len(at), 2, 3))
    project[:, 0, 0] = project[:, 1, 1] = inverse
    project[:, :, 2] = -ideal * inverse[:, None]
    project = through.by_point @ project
    by_point = project @ each.rotation
    by_view = np.zeros((len(at), 2, N_OF_BOX_CAMERA))
    by_view[:, :, :3] = -project @ cross_matrices(at)
    by_view[:, :, 3:6] = -by_point
    by_view[:, :, N_UNKNOWNS : N_UNKNOWNS + N_OF_LENS] = through.by_lens
    return _Shown(through.shown, at[:, 2], by_point, by_view)


class _Derived(NamedTuple):
    """Points (n, 2) in pictures, and derivatives (n, 2, N_OF_BOX_CAMERA + N_OF_PERSON)."""

    px: FloatArray
    by_all: FloatArray


def _by_unknowns(each: BoxCameras, end: _End) -> _Derived:
    """An end of each person in the picture of a camera."""
    shown = _shown(each, end.at_m)
    by_view = shown.by_view
    by_view[:, :, 3:6] += shown.by_point @ end.by_centre
    by_view[:, :, -2:] += shown.by_point @ end.by_end
    return _Derived(shown.px, np.concatenate([by_view, shown.by_point @ end.by_person], axis=2))


def linearise_boxes(
    observations: BoxObservations, cameras: BoxCameras, people: FloatArray, root_weight: FloatArray
) -> Linearisation:
    """Residuals and exact derivatives around a state.

    Args:
        observations: n boxes.
        cameras: of all views.
        people: (n_people, N_OF_PERSON).
        root_weight: (n, 3) square root of the weight of each residual, over its standard deviation.
    """
    each, person = cameras.of(observations.view), people[observations.point]
    residual = _residuals(observations.tracklet, each, person).px
    u = each.offset_s[:, None]
    tracklet = observations.tracklet
    foot, head, near = (_by_unknowns(each, end) for end in _ends(each, person))
    lower_px = tracklet[:, 0, 2] + u[:, 0] * (tracklet[:, 1, 2] + u[:, 0] * tracklet[:, 2, 2])
    cut = _cut_at(foot.px, head.px, lower_px)
    by_all = np.empty((len(person), 3, N_OF_BOX_CAMERA + N_OF_PERSON))
    # The middle moves with both ends of the line, and as the box ends at another share of it.
    length = np.maximum(foot.px[:, 1] - head.px[:, 1], _LINE_MIN_PX)
    across = np.where((cut > 0.0) & (cut < 1.0), 0.5 * (head.px[:, 0] - foot.px[:, 0]) / length, 0.0)
    shares = [0.5 * (1.0 - cut), 0.5 * (1.0 + cut), across * (1.0 - cut), across * cut]
    parts = [foot.by_all[:, 0], head.by_all[:, 0], foot.by_all[:, 1], head.by_all[:, 1]]
    by_all[:, 0] = sum(share[:, None] * part for share, part in zip(shares, parts))
    by_all[:, 1], by_all[:, 2] = head.by_all[:, 1], near.by_all[:, 1]
    by_view, by_person = by_all[:, :, :N_OF_BOX_CAMERA], by_all[:, :, N_OF_BOX_CAMERA:]
    by_clock = tracklet[:, 1] + 2.0 * u * tracklet[:, 2]
    by_view[:, :, N_UNKNOWNS - 1] = -by_clock
    by_view[:, 0, N_UNKNOWNS - 1] -= across * by_clock[:, 2]
    weight = root_weight[:, :, None]
    return Linearisation(residual * root_weight, by_view * weight, by_person * weight)
