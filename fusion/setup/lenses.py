"""The lenses of cameras while they are being found: what is known of them, and their corrections.

Bundle adjustment corrects the normalised coordinates that the present lenses give (see `reprojection`). `corrected`
puts such corrections into cameras of OpenCV's model with two focal lengths, a principal point, k1, k2, p1 and p2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from fusion.people.geometry import Rig
from fusion.setup.normal_equations import Prior
from fusion.setup.reprojection import IDEAL_MAX, N_OF_LENS, N_UNKNOWNS, FloatArray, IntArray, Poses, through_lens
from fusion.store.models import Camera

# What is known of a lens that is to be found: standard deviations of the logarithm of its focal length about a rough
# one, of k1 and of k2. Lenses of surveillance cameras have a k1 from -0.4 to 0.1.
FOCAL_SD, RADIAL_SD = 0.2, (0.2, 0.1)
# The principal point about the middle of the picture, over the picture's width. Cameras in a ring that look down alike
# determine it badly together, and people's joints then turn all of them alike.
CENTRE_SD = 0.005
# Cameras with pictures of one size are usually of one make: logarithm of the focal length, k1 and k2 about the median.
ALIKE_SD = (0.03, 0.05, 0.03)
# Pixels are square and lenses centred up to manufacture: logarithm of fy over fx; p1 and p2.
ASPECT_SD, TANGENTIAL_SD = 0.003, 0.001
# Of principal points, and of lenses that are alike, what is this many standard deviations away weighs half (Cauchy):
# data may say otherwise.
_HALF_WEIGHT_AT = 2.0
# Picture points along each side at which a corrected lens is fitted.
_GRID = 24
# Steps of the fit of a lens, and of the way from shown to ideal points.
_FIT_STEPS, _INVERSE_STEPS = 6, 30
# A lens whose focal length is over or under the picture's width by these factors is none of a shop's camera.
FOCAL_RANGE = (0.25, 6.0)


def rough_camera(name: str, size: tuple[int, int], focal_px: float | None = None) -> Camera:
    """A camera of which only the picture's size is known: 64 degrees wide, or of a focal length, without distortion."""
    width, height = size
    focal_px = 0.8 * width if focal_px is None else focal_px
    return Camera(
        name=name,
        size=size,
        matrix=((focal_px, 0.0, 0.5 * (width - 1)), (0.0, focal_px, 0.5 * (height - 1)), (0.0, 0.0, 1.0)),
        distortions=(0.0, 0.0, 0.0, 0.0, 0.0),
        rotation=(0.0, 0.0, 0.0),
        translation=(0.0, 0.0, 0.0),
    )


@dataclass(frozen=True)
class LensPrior:
    """What is known of the corrections of lenses.

    Attributes:
        precision: (n_views, N_OF_LENS) inverse variances, infinite for lenses that are known.
        expected: (n_views, N_OF_LENS) corrections.
    """

    precision: FloatArray
    expected: FloatArray

    def at(self, poses: Poses) -> Prior:
        """The prior of all unknowns of the cameras in a state."""
        precision = np.zeros((len(self.precision), N_UNKNOWNS + N_OF_LENS))
        off = np.zeros_like(precision)
        precision[:, N_UNKNOWNS:] = self.precision
        assert poses.lens is not None
        off[:, N_UNKNOWNS:] = np.where(np.isfinite(self.precision), poses.lens - self.expected, 0.0)
        return Prior(precision, off)


@dataclass(frozen=True)
class Lenses:
    """The lenses of all cameras, as far as they are known.

    Attributes:
        cameras: of which the sizes, matrices and distortions count.
        free: (n_views,) bool, whether a lens is to be found.
        rough_focal_px: (n_views,) expectation of a free focal length.
    """

    cameras: tuple[Camera, ...]
    free: NDArray[np.bool_]
    rough_focal_px: FloatArray

    @classmethod
    def of(cls, cameras: Sequence[Camera], found: Sequence[bool]) -> Lenses:
        """The lenses of cameras, and which of them are to be found, from the focal length that they have."""
        cameras = tuple(cameras)
        wide = [camera.name for camera, free in zip(cameras, found) if free and camera.fisheye]
        if wide:
            names = ", ".join(wide)
            raise ConfigError(f"camera {names}: want lenses to find that are no fisheyes; calibrate those first")
        return cls(cameras, np.array(found, bool), np.array([_focal_px(camera) for camera in cameras]))

    @property
    def focal_px(self) -> FloatArray:
        """(n_views,) mean of both focal lengths."""
        return np.array([_focal_px(camera) for camera in self.cameras])

    def normalised(self, view: int, points_px: FloatArray) -> FloatArray:
        """(..., 2) undistorted normalised coordinates of picture points of one camera."""
        flat = np.ascontiguousarray(points_px.reshape(1, -1, 2), np.float64)
        return Rig.from_cameras([self.cameras[view]]).normalise(flat).reshape(points_px.shape)

    def shown(self, view: int, normalised: FloatArray) -> FloatArray:
        """(..., 2) picture points of undistorted normalised coordinates of one camera."""
        flat = normalised.reshape(1, -1, 2)
        return Rig.from_cameras([self.cameras[view]]).distort(flat).reshape(normalised.shape)

    def prior(self, placed: IntArray, alike: float) -> LensPrior | None:
        """What is known of the corrections of the cameras `placed` (n,); None where their lenses are all known.

        Where `alike` observations count as one, but enter an adjustment singly, what is known enters it as often.
        """
        if not self.free[placed].any():
            return None
        precision = np.full((len(placed), N_OF_LENS), np.inf)
        expected = np.zeros((len(placed), N_OF_LENS))
        state = self._state()
        for at, view in enumerate(placed.tolist()):
            if self.free[view]:
                rough = np.zeros(N_OF_LENS)
                rough[:3] = np.log(self.rough_focal_px[view]), *self._middle_px(view)
                centre_sd = CENTRE_SD * self.cameras[view].size[0]
                sd = np.array([FOCAL_SD, centre_sd, centre_sd, *RADIAL_SD, ASPECT_SD, TANGENTIAL_SD, TANGENTIAL_SD])
                wide = np.isin(np.arange(N_OF_LENS), (1, 2))
                beliefs = [_belief(rough, sd, state[view], wide)]
                same = [v for v in placed.tolist() if self.free[v] and self.cameras[v].size == self.cameras[view].size]
                if len(same) > 2:
                    usual = np.median(state[same], axis=0)
                    sd = np.array([ALIKE_SD[0], np.inf, np.inf, *ALIKE_SD[1:], np.inf, np.inf, np.inf])
                    beliefs.append(_belief(usual, sd, state[view], np.ones(N_OF_LENS, bool)))
                total = sum(weight for weight, _ in beliefs)
                mean = sum(weight * value for weight, value in beliefs) / total
                # The principal point is in pixels; its correction in focal lengths.
                unit = np.ones(N_OF_LENS)
                unit[1:3] = self.focal_px[view]
                precision[at], expected[at] = alike * total * unit**2, (mean - state[view]) / unit
        return LensPrior(precision, expected)

    def _state(self) -> FloatArray:
        """(n_views, N_OF_LENS) as `reprojection.through_lens` takes lenses, in pixels."""
        return np.array([lens_of(camera) for camera in self.cameras])

    def _middle_px(self, view: int) -> tuple[float, float]:
        width, height = self.cameras[view].size
        return 0.5 * (width - 1), 0.5 * (height - 1)

    def corrected(self, placed: IntArray, lens: FloatArray | None) -> Lenses:
        """The lenses after corrections (n, N_OF_LENS) of the cameras `placed` (n,)."""
        if lens is None:
            return self
        cameras = list(self.cameras)
        for at, view in enumerate(placed.tolist()):
            if self.free[view]:
                cameras[view] = _corrected(self, view, lens[at])
        return replace(self, cameras=tuple(cameras))


def _belief(
    expected: FloatArray, sd: FloatArray, state: FloatArray, wide: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Precision and expectation (N_OF_LENS,); where `wide`, the precision has Cauchy's weight at the present state."""
    off = (state - expected) / (_HALF_WEIGHT_AT * sd)
    return sd**-2.0 / np.where(wide, 1.0 + off**2, 1.0), expected


def _focal_px(camera: Camera) -> float:
    return 0.5 * (camera.matrix[0][0] + camera.matrix[1][1])


def lens_of(camera: Camera) -> tuple[float, ...]:
    """A camera's lens as a row for `reprojection.through_lens`, in pixels; coefficients after p2 are not in it."""
    (fx, _, cx), (_, fy, cy), _ = camera.matrix
    k1, k2, p1, p2 = camera.distortions[:4]
    return 0.5 * float(np.log(fx * fy)), cx, cy, k1, k2, float(np.log(fy / fx)), p1, p2


def with_lens(camera: Camera, lens: FloatArray) -> Camera:
    """The camera with another lens (N_OF_LENS,), see `lens_of`; its focal length is kept in FOCAL_RANGE."""
    log_focal, cx, cy, k1, k2, aspect, p1, p2 = lens.tolist()
    low, high = np.log(np.array(FOCAL_RANGE) * camera.size[0])
    fx, fy = np.exp(np.clip(log_focal, low, high) + 0.5 * aspect * np.array([-1.0, 1.0])).tolist()
    update = {"matrix": ((fx, 0.0, cx), (0.0, fy, cy), (0.0, 0.0, 1.0)), "distortions": (k1, k2, p1, p2, 0.0)}
    return Camera.model_validate({**camera.model_dump(), **update})


def _corrected(lenses: Lenses, view: int, lens: FloatArray) -> Camera:
    """The camera whose lens shows the picture's points at the corrected normalised coordinates.

    With y the present normalised coordinates of a point, x such that `through_lens(x, lens)` is y is where a ray
    belongs; the new lens follows by least squares (Gauss and Newton) from the picture's points and x.
    """
    camera = lenses.cameras[view]
    width, height = camera.size
    across, down = np.meshgrid(np.linspace(0, width - 1, _GRID), np.linspace(0, height - 1, _GRID))
    points_px = np.stack([across.ravel(), down.ravel()], axis=1)
    ideal = without_lens(lenses.normalised(view, points_px), np.tile(lens, (_GRID**2, 1)))
    good = np.isfinite(ideal).all(axis=1)
    ideal, points_px = ideal[good], points_px[good]
    new = np.array(lens_of(camera))
    new[0] += lens[0]
    for _ in range(_FIT_STEPS):
        found = through_lens(ideal, np.tile(new, (len(ideal), 1)))
        rows, off = found.by_lens.reshape(-1, N_OF_LENS), (found.shown - points_px).ravel()
        new = new - np.linalg.lstsq(rows, off, rcond=None)[0]
    return with_lens(camera, new)


def without_lens(shown: FloatArray, lens: FloatArray) -> FloatArray:
    """(n, 2) ideal points that lenses (n, N_OF_LENS) show at points (n, 2); about that where one shows none there."""
    enlarged = (shown - lens[:, 1:3]) / np.exp(lens[:, :1] + 0.5 * lens[:, 5:6] * np.array([-1.0, 1.0]))
    ideal = enlarged
    for _ in range(_INVERSE_STEPS):
        near = ideal / np.maximum(np.linalg.norm(ideal, axis=1, keepdims=True) / IDEAL_MAX, 1.0)
        r2, p1, p2 = (near**2).sum(axis=1, keepdims=True), lens[:, 6:7], lens[:, 7:]
        across = near @ np.array([[0.0, 1.0], [1.0, 0.0]])
        bent = np.concatenate([p2, p1], axis=1) * (r2 + 2.0 * near**2)
        bent += np.concatenate([p1, p2], axis=1) * 2.0 * near * across
        ideal = (enlarged - bent) / np.maximum(1.0 + r2 * (lens[:, 3:4] + r2 * lens[:, 4:5]), 0.3)
    return np.asarray(ideal)
