"""Lenses against OpenCV, forwards and back, to the edge of what they show and beyond."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from fusion._kernels import triangulation
from fusion.errors import ConfigError
from fusion.people.geometry import Rig
from fusion.setup.lenses import Lenses
from fusion.store.lenses import TANGENT_MAX, distort, lens_rows, ray_limits
from fusion.store.models import Camera

cv2 = pytest.importorskip("cv2")

K = np.array([[[700.0, 0.0, 645.0], [0.0, 705.0, 350.0], [0.0, 0.0, 1.0]]])
# Coefficients as calibrations of real cameras have them, and some that no camera has. Fisheyes are marked.
LENSES = {
    "none": ([0.0] * 5, False),
    "barrel": ([-0.33, 0.046, -0.004, 0.004, 0.06], False),
    "webcam": ([0.05, -0.2, 0.001, -0.0005, 0.14], False),
    "folds-in-the-picture": ([-0.6, 0.0, 0.0, 0.0, 0.0], False),
    "pincushion-then-fold": ([0.3, -0.25, 0.0, 0.0, 0.0], False),
    "rational": ([7.6, 4.2, 1e-4, -5e-5, 0.21, 8.0, 6.4, 1.2], False),
    "depth-camera": ([0.45, -2.75, 0.0006, -0.0002, 1.6, 0.33, -2.57, 1.53], False),
    "prism": ([-0.28, 0.08, 0.001, -0.002, -0.01, 0.0, 0.0, 0.0, 0.003, -0.001, -0.002, 0.0005], False),
    "equidistant": ([0.0, 0.0, 0.0, 0.0], True),
    "action-camera": ([0.07, -0.012, 0.01, -0.004], True),
    "fisheye-barrel": ([-0.05, 0.002, -0.001, 0.0001], True),
    "fisheye-folds": ([-0.25, 0.0, 0.0, 0.0], True),
}


def rows(coefficients: list[float], fisheye: bool) -> np.ndarray:
    return lens_rows(K, np.array([coefficients]), np.array([fisheye]))


def opencv(coefficients: list[float], fisheye: bool, rays: np.ndarray) -> np.ndarray:
    points = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)[:, None]
    if fisheye:
        return cv2.fisheye.projectPoints(points, np.zeros(3), np.zeros(3), K[0], np.array(coefficients))[0][:, 0]
    return cv2.projectPoints(points, np.zeros(3), np.zeros(3), K[0], np.array(coefficients))[0][:, 0]


def back(lens: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    out = np.empty_like(pixels)
    triangulation.undistort(np.ascontiguousarray(pixels), lens, out)
    return out


@pytest.mark.parametrize("name", LENSES)
def test_projection_agrees_with_opencv_up_to_the_fold(name: str) -> None:
    lens = rows(*LENSES[name])
    limit = min(float(ray_limits(lens)[0]), 4.0)
    rng = np.random.default_rng(0)
    angle, radius = rng.uniform(0, 2 * np.pi, 400), limit * np.sqrt(rng.random(400))
    rays = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    assert_allclose(distort(lens, rays[None])[0], opencv(*LENSES[name], rays), rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("name", LENSES)
def test_a_pixel_and_its_ray_belong_together_or_the_pixel_has_none(name: str) -> None:
    """Every pixel of the picture and far around it: its ray projects onto it, or no ray of the lens does."""
    lens = rows(*LENSES[name])
    u, v = np.meshgrid(np.linspace(-1500, 2800, 87), np.linspace(-1500, 2200, 75))
    pixels = np.stack([u, v], axis=-1).reshape(1, -1, 2)
    rays = back(lens, pixels)
    found = ~np.isnan(rays[0]).any(axis=1)
    assert_allclose(distort(lens, rays)[0, found], pixels[0, found], atol=1e-5)
    limit = min(float(ray_limits(lens)[0]), TANGENT_MAX)
    assert (np.hypot(*rays[0, found].T) <= float(ray_limits(lens)[0])).all()
    # The outline of what the lens shows: pixels clearly inside have a ray, those clearly outside have none.
    around = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    rim = 0.999 * limit * np.stack([np.cos(around), np.sin(around)], axis=-1)
    outline = distort(lens, rim[None])[0].astype(np.float32)
    inside = np.array([cv2.pointPolygonTest(outline, (float(x), float(y)), True) for x, y in pixels[0]])
    assert found[inside > 3.0].all()
    if limit < TANGENT_MAX:
        assert not found[inside < -25.0].any()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.floats(-0.5, 0.5), min_size=12, max_size=12), st.booleans(), st.integers(0, 2**32 - 1), st.booleans()
)
def test_rays_of_any_lens_return(numbers: list[float], fisheye: bool, seed: int, five: bool) -> None:
    scale = [0.6, 0.4, 0.02, 0.02, 0.2, 0.6, 0.4, 0.2, 0.02, 0.02, 0.02, 0.02]
    coefficients = [0.3 * n for n in numbers[:4]] if fisheye else [a * b for a, b in zip(numbers, scale)]
    lens = rows(coefficients[:5] if five else coefficients, fisheye)
    limit = 0.98 * min(float(ray_limits(lens)[0]), 3.0)
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(0, 2 * np.pi, 50), limit * np.sqrt(rng.random(50))
    rays = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[None]
    assert_allclose(back(lens, distort(lens, rays)), rays, atol=2e-6)


def test_opencv_undistorts_to_the_same_rays() -> None:
    rng = np.random.default_rng(1)
    pixels = rng.uniform([100, 50], [1180, 670], (1, 200, 2))
    # OpenCV 4 has the criteria in a function of their own, OpenCV 5 as an argument.
    def iterate(*arguments: object) -> np.ndarray:
        if hasattr(cv2, "undistortPointsIter"):
            return cv2.undistortPointsIter(*arguments[:3], None, None, arguments[6])
        return cv2.undistortPoints(*arguments)

    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-12)
    for name in ("barrel", "rational", "prism"):
        theirs = iterate(pixels[0][:, None], K[0], np.array(LENSES[name][0]), None, None, None, criteria)
        assert_allclose(back(rows(*LENSES[name]), pixels)[0], theirs[:, 0], atol=1e-6)
    for name in ("equidistant", "action-camera", "fisheye-barrel"):
        theirs = cv2.fisheye.undistortPoints(pixels[0][:, None], K[0], np.array(LENSES[name][0]))
        assert_allclose(back(rows(*LENSES[name]), pixels)[0], theirs[:, 0], atol=1e-6)


def test_unknown_and_absurd_pixels_have_no_ray() -> None:
    for coefficients, fisheye in LENSES.values():
        lens = rows(coefficients, fisheye)
        pixels = np.array([[[np.nan, np.nan], [np.nan, 3.0], [645.0, 350.0], [1e300, -1e300], [np.inf, 0.0]]])
        rays = back(lens, pixels)[0]
        assert np.isnan(rays[:2]).all()
        assert_allclose(rays[2], 0.0, atol=1e-12)
        if any(coefficients) or fisheye:
            assert np.isnan(rays[3:]).all()


def test_a_pinhole_stands_for_what_a_wide_lens_shows() -> None:
    """What counts views takes a fisheye for the pinhole that ends where its picture does."""

    def rig(fisheye: bool, distortions: tuple[float, ...], focal: float) -> Rig:
        camera = Camera(
            name="a", size=(1280, 720), matrix=((focal, 0, 640), (0, focal, 360), (0, 0, 1)), distortions=distortions,
            rotation=(0, 0, 0), translation=(0, 0, 0), fisheye=fisheye,
        )  # fmt: skip
        return Rig.from_cameras([camera])

    ordinary = rig(False, (-0.1, 0.02, 0.0, 0.0, 0.0), 700.0)
    assert ordinary.pinholes.tolist() == [[700.0, 700.0, 640.0, 360.0]]
    fx, fy, cx, cy = rig(True, (0.0,) * 4, 500.0).pinholes[0]
    assert_allclose([cx, cy], [640, 360])
    assert_allclose([640 / fx, 360 / fy], np.tan([640 / 500, 360 / 500]))
    # A picture that is wider than the lens: 84 degrees.
    assert_allclose(640 / rig(True, (0.0,) * 4, 300.0).pinholes[0, 0], TANGENT_MAX)


def test_a_fisheye_s_lens_is_not_searched_for_as_an_ordinary_one() -> None:
    fisheye = Camera(
        name="a", size=(1280, 720), matrix=((430, 0, 640), (0, 430, 360), (0, 0, 1)), distortions=(0.0,) * 4,
        rotation=(0, 0, 0), translation=(0, 0, 0), fisheye=True,
    )  # fmt: skip
    assert Lenses.of([fisheye], [False]).cameras == (fisheye,)
    with pytest.raises(ConfigError, match="camera a: want lenses to find that are no fisheyes"):
        Lenses.of([fisheye], [True])
