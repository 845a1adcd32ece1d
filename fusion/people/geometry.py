"""Cameras as arrays: a Rig, projection, undistortion, and robust triangulation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import triangulation
from fusion.errors import ShapeError
from fusion.store.lenses import KIND, N_COEFFICIENTS, TANGENT_MAX, LensKind, distort, lens_rows, ray_limits
from fusion.store.rotations import rotation_matrix

if TYPE_CHECKING:
    from fusion.store.models import Camera

# Standard deviation of a detected point, pixels, where the caller gives none.
POINT_SD_PX = 3.0
# Steps of the robust refinement, in which its scale shrinks from 64 standard deviations to one.
REFINE_STEPS = 10


class Status(IntEnum):
    """Outcome of a triangulated point."""

    OK = 0
    UNDERCONSTRAINED = 1
    BEHIND_CAMERA = 2


@dataclass(frozen=True)
class Rig:
    """n_views calibrated cameras.

    Attributes:
        names: in the order of every array here.
        camera_from_world: (n_views, 3, 4) extrinsics.
        image_from_camera: (n_views, 3, 3) intrinsics K.
        distortions: (n_views, at most 12) coefficients as in `fusion.store.lenses`; those that are missing are zero.
        size_px: (n_views, 2) width and height.
        fisheye: (n_views,) which lenses are fisheyes; None: none is.
    """

    names: tuple[str, ...]
    camera_from_world: NDArray[np.float64]
    image_from_camera: NDArray[np.float64]
    distortions: NDArray[np.float64]
    size_px: NDArray[np.float64]
    fisheye: NDArray[np.bool_] | None = None

    @classmethod
    def from_cameras(cls, cameras: Iterable[Camera]) -> Rig:
        """The rig of a store's cameras, in their order."""
        cameras = tuple(cameras)
        n = len(cameras)
        extrinsics, distortions = np.empty((n, 3, 4)), np.zeros((n, N_COEFFICIENTS))
        for view, camera in enumerate(cameras):
            extrinsics[view, :, :3] = rotation_matrix(camera.rotation)
            extrinsics[view, :, 3] = camera.translation
            distortions[view, : len(camera.distortions)] = camera.distortions
        return cls(
            tuple(camera.name for camera in cameras),
            extrinsics,
            np.array([camera.matrix for camera in cameras], np.float64).reshape(n, 3, 3),
            distortions,
            np.array([camera.size for camera in cameras], np.float64).reshape(n, 2),
            np.array([camera.fisheye for camera in cameras], np.bool_),
        )

    @property
    def n_views(self) -> int:
        """Number of cameras."""
        return len(self.names)

    @property
    def centres_m(self) -> NDArray[np.float64]:
        """(n_views, 3) centres of the cameras, -R^T t, world frame, metres."""
        rotation, translation = self.camera_from_world[:, :, :3], self.camera_from_world[:, :, 3]
        centres: NDArray[np.float64] = -np.einsum("vji,vj->vi", rotation, translation)
        return centres

    @cached_property
    def lenses(self) -> NDArray[np.float64]:
        """(n_views, N_INTRINSICS) as the kernels read them, see `fusion.store.lenses.lens_rows`."""
        fisheye = np.zeros(self.n_views, np.bool_) if self.fisheye is None else self.fisheye
        return lens_rows(self.image_from_camera, self.distortions, fisheye)

    @cached_property
    def pinholes(self) -> NDArray[np.float64]:
        """(n_views, 4) fx, fy, cx, cy of a camera without distortion that shows about what each camera shows.

        An ordinary lens is left as it is. A wide one becomes the pinhole whose picture ends, in the middle of each
        side, where the lens's picture does: what counts views then needs no lens.
        """
        pinholes = self.lenses[:, :4].copy()
        for view in np.flatnonzero(self.lenses[:, KIND] >= LensKind.FULL):
            (width, height), centre_px = self.size_px[view], self.lenses[view, 2:4]
            limit = float(min(ray_limits(self.lenses[view : view + 1])[0], TANGENT_MAX))
            sides_px = np.tile(centre_px, (1, 4, 1))
            sides_px[0, :, 0][:2], sides_px[0, :, 1][2:] = (0.0, width), (0.0, height)
            rays = np.empty((1, 4, 2))
            triangulation.undistort(sides_px, self.lenses[view : view + 1], rays)
            sides = rays[0, range(4), [0, 0, 1, 1]]
            # A picture wider than what the lens shows ends where the lens does.
            sides = np.where(np.isnan(sides), [-limit, limit, -limit, limit], sides)
            left, right, top, bottom = np.clip(sides, -TANGENT_MAX, TANGENT_MAX)
            focal = width / (right - left), height / (bottom - top)
            pinholes[view] = *focal, -left * focal[0], -top * focal[1]
        return pinholes

    def project(self, points_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """Project world points into every camera: u = K d(R x + t) with the lens's distortion d.

        Args:
            points_m: (n_points, 3) world frame, metres.

        Returns:
            (n_views, n_points, 2) pixels of the raw (distorted) image, NaN behind the camera and where a lens shows
            nothing.

        Raises:
            ShapeError: points_m is not (n_points, 3).
        """
        points_m = np.asarray(points_m, np.float64)
        if points_m.ndim != 2 or points_m.shape[1] != 3:
            raise ShapeError(f"points_m: want (n_points, 3), got {points_m.shape}")
        camera_m = np.einsum("vij,nj->vni", self.camera_from_world[:, :, :3], points_m)
        camera_m = camera_m + self.camera_from_world[:, None, :, 3]
        depth = camera_m[..., 2]
        normalised = camera_m[..., :2] / np.where(depth > 0, depth, np.nan)[..., None]
        return self.distort(normalised)

    def distort(self, normalised: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n_views, n_points, 2) normalised coordinates to raw pixels; NaN where a lens shows no such ray."""
        return distort(self.lenses, normalised)

    def normalise(self, points_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n_views, n_points, 2) raw pixels to normalised coordinates; NaN where a pixel is unknown or has no ray."""
        points_px = self._checked(points_px)
        out = np.empty_like(points_px)
        triangulation.undistort(points_px, self.lenses, out)
        return out

    def undistort(self, points_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n_views, n_points, 2) raw pixels to the pixels of a camera without distortion; NaN stays NaN."""
        normalised = self.normalise(points_px)
        k = self.image_from_camera
        focal = np.stack([k[:, 0, 0], k[:, 1, 1]], axis=-1)[:, None]
        return normalised * focal + k[:, None, :2, 2]

    def _checked(self, points_px: NDArray[np.float64]) -> NDArray[np.float64]:
        is_float_3d = isinstance(points_px, np.ndarray) and points_px.dtype == np.float64 and points_px.ndim == 3
        if not is_float_3d or points_px.shape[::2] != (self.n_views, 2):
            got = f"{getattr(points_px, 'dtype', type(points_px).__name__)} {np.shape(points_px)}"
            raise ShapeError(f"points_px: want float64 ({self.n_views}, n_points, 2), got {got}")
        return np.ascontiguousarray(points_px)


@dataclass(frozen=True)
class Triangulation:
    """World points with their uncertainty.

    Attributes:
        points_m: (n_points, 3) world frame, NaN unless status is OK.
        cov_m2: (n_points, 3, 3) covariance, NaN unless status is OK.
        agreeing: (n_views, n_points) bool: the view saw the point and agrees with the result.
        status: (n_points,) int8, see Status.
    """

    points_m: NDArray[np.float64]
    cov_m2: NDArray[np.float64]
    agreeing: NDArray[np.bool_]
    status: NDArray[np.int8]


@dataclass(frozen=True)
class LinearTriangulation:
    """World points without uncertainty.

    Attributes:
        points_m: (n_points, 3) world frame, NaN unless status is OK.
        status: (n_points,) int8, see Status.
    """

    points_m: NDArray[np.float64]
    status: NDArray[np.int8]


def triangulate_linear(
    rig: Rig, points_px: NDArray[np.float64], *, distorted: bool = False
) -> LinearTriangulation:
    """Locate in the world the points that several calibrated cameras saw, each view trusted alike.

    Linear triangulation (DLT), ten times faster than `triangulate`; one wrong view moves a point.

    Args:
        rig: n_views cameras with fixed intrinsics and extrinsics.
        points_px: (n_views, n_points, 2) float64; NaN where a camera saw nothing.
        distorted: whether points_px are of the raw image; else they are undistorted (`rig.undistort`).

    Returns:
        Points; a point needs two views.

    Raises:
        ShapeError: points_px is not one float64 pixel pair per camera and point.

    Source: Hartley and Zisserman, Multiple View Geometry (2004), section 12.2.
    """
    points_px = rig._checked(points_px)
    n_points = points_px.shape[1]
    points_m, status = np.empty((n_points, 3)), np.empty(n_points, np.int8)
    triangulation.locate_linear(rig.camera_from_world, rig.lenses, points_px, distorted, points_m, status)
    return LinearTriangulation(points_m, status)


def triangulate(
    rig: Rig, points_px: NDArray[np.float64], sd_px: float = POINT_SD_PX, *, distorted: bool = False
) -> Triangulation:
    """Locate in the world the points that several calibrated cameras saw, even if some views are wrong.

    Linear triangulation (DLT) starts a robust least-squares refinement of the reprojection error.

    Args:
        rig: n_views cameras with fixed intrinsics and extrinsics.
        points_px: (n_views, n_points, 2) float64; NaN where a camera saw nothing.
        sd_px: standard deviation of a detected point, pixels.
        distorted: whether points_px are of the raw image; else they are undistorted (`rig.undistort`).

    Returns:
        Points with covariance; a point needs two agreeing views.

    Raises:
        ShapeError: points_px is not one float64 pixel pair per camera and point.

    Source: Hartley and Zisserman, Multiple View Geometry (2004), section 12.2; Yang, Antonante, Tzoumas, Carlone,
    Graduated Non-Convexity for Robust Spatial Perception (2020), for the refinement.
    """
    points_px = rig._checked(points_px)
    n_points = points_px.shape[1]
    points_m, status = np.empty((n_points, 3)), np.empty(n_points, np.int8)
    cov_m2, agreeing = np.empty((n_points, 3, 3)), np.empty((rig.n_views, n_points), np.bool_)
    triangulation.locate(
        rig.camera_from_world, rig.lenses, points_px, distorted, sd_px, REFINE_STEPS, points_m, cov_m2, agreeing, status
    )  # fmt: skip
    return Triangulation(points_m, cov_m2, agreeing, status)
