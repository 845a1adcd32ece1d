"""Triangulation and the joint filter beside their NumPy twins and OpenCV, on the same data in the same run.

    OMP_NUM_THREADS=1 python -m bench triangulation --benchmark-group-by=group

Answers are asserted equal before anything is timed.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from reference import geometry as reference

from fusion._kernels import triangulation
from fusion.people.geometry import Rig, triangulate, triangulate_linear

cv2 = pytest.importorskip("cv2")

N_POINTS = 16 * 17  # 16 people of 17 joints.


def ring(n_views: int) -> Rig:
    """Cameras in a circle of 5 m radius, all aimed at its middle."""
    world = np.empty((n_views, 3, 4))
    for view in range(n_views):
        angle = 2 * np.pi * view / n_views + 0.1
        eye = np.array([5 * np.cos(angle), 5 * np.sin(angle), 2.5])
        forward = (np.array([0, 0, 1.0]) - eye) / np.linalg.norm(np.array([0, 0, 1.0]) - eye)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        world[view] = np.column_stack([rotation, -rotation @ eye])
    lens = np.tile([[800.0, 0, 640], [0, 800, 360], [0, 0, 1]], (n_views, 1, 1))
    names, size_px = tuple(map(str, range(n_views))), np.tile([1280.0, 720], (n_views, 1))
    return Rig(names, world, lens, np.zeros((n_views, 5)), size_px)


class Scene:
    """Random points in the middle of a ring of cameras, and their noisy projections."""

    def __init__(self, n_views: int) -> None:
        rng = np.random.default_rng(n_views)
        self.rig = ring(n_views)
        self.truth = rng.uniform([-1.5, -1.5, 0], [1.5, 1.5, 2], (N_POINTS, 3))
        self.pixels = self.rig.project(self.truth) + rng.normal(0, 1.0, (n_views, N_POINTS, 2))
        self.points = np.ascontiguousarray(self.rig.normalise(self.pixels).transpose(0, 2, 1))
        self.points_m, self.status = np.empty((N_POINTS, 3)), np.empty(N_POINTS, np.int8)

    def kernel(self) -> np.ndarray:
        """Triangulate with the kernel; (n_points, 3)."""
        rig = self.rig
        triangulation.locate_linear(rig.camera_from_world, rig.lenses, self.pixels, False, self.points_m, self.status)
        return self.points_m


@pytest.fixture(params=[2, 5, 12, 28], ids=lambda n: f"{n} views")
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(request.param)


def test_kernel(scene, benchmark):
    assert_allclose(scene.kernel(), reference.triangulate(scene.rig.camera_from_world, scene.points), atol=1e-6)
    benchmark.group = f"linear, {N_POINTS} points, {scene.rig.n_views} views"
    benchmark(scene.kernel)


def test_triangulate_linear(scene, benchmark):
    assert_allclose(triangulate_linear(scene.rig, scene.pixels).points_m, scene.kernel(), atol=1e-12)
    benchmark.group = f"linear, {N_POINTS} points, {scene.rig.n_views} views"
    benchmark(triangulate_linear, scene.rig, scene.pixels)


def test_numpy_svd(scene, benchmark):
    benchmark.group = f"linear, {N_POINTS} points, {scene.rig.n_views} views"
    benchmark(reference.triangulate, scene.rig.camera_from_world, scene.points)


def test_numpy_normal_equations(scene, benchmark):
    # The same equations with other weights: near the kernel's answer, not equal to it.
    answer = reference.triangulate_normal_equations(scene.rig.camera_from_world, scene.points)
    assert_allclose(scene.kernel(), answer, atol=2e-2)
    benchmark.group = f"linear, {N_POINTS} points, {scene.rig.n_views} views"
    benchmark(reference.triangulate_normal_equations, scene.rig.camera_from_world, scene.points)


def test_opencv_two_views(benchmark):
    scene = Scene(2)
    first, second = scene.rig.camera_from_world

    def opencv() -> np.ndarray:
        return cv2.triangulatePoints(first, second, scene.points[0], scene.points[1])

    answer = opencv()
    assert_allclose(scene.kernel(), (answer[:3] / answer[3]).T, atol=1e-6)
    benchmark.group = f"linear, {N_POINTS} points, 2 views"
    benchmark(opencv)


def robust_twin(scene: Scene, wrong: np.ndarray) -> np.ndarray:
    """The robust refinement in NumPy, batched over points; wrong (n_views, 2, n_points)."""
    world = scene.rig.camera_from_world
    sd = np.full(scene.rig.n_views, 3.0 / 800.0)
    return reference.refine(world, wrong.transpose(0, 2, 1), sd, reference.triangulate(world, wrong))[0]


@pytest.mark.parametrize("n_views", [5, 12])
@pytest.mark.parametrize("implementation", ["triangulate", "numpy twin"])
def test_robust(implementation, n_views, benchmark):
    scene = Scene(n_views)
    pixels = scene.pixels.copy()
    rng = np.random.default_rng(1)
    pixels[rng.integers(n_views, size=N_POINTS), range(N_POINTS)] += 100.0
    wrong = np.ascontiguousarray(scene.rig.normalise(pixels).transpose(0, 2, 1))
    assert_allclose(triangulate(scene.rig, pixels).points_m, robust_twin(scene, wrong), atol=1e-4)
    benchmark.group = f"robust, {N_POINTS} points, {n_views} views, one of them wrong"
    if implementation == "triangulate":
        benchmark(triangulate, scene.rig, pixels)
    else:
        benchmark(robust_twin, scene, wrong)
