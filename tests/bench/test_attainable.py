"""Tests of the bound on what calibration attains: right errors for known information, and information of short runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from bench.accuracy.attainable import Information, box_information, expected_errors, joint_information
from fusion.people.geometry import Rig
from fusion.setup.adjustment import free_directions
from fusion.setup.lenses import lens_of
from fusion.setup.reprojection import N_OF_LENS, N_UNKNOWNS, Poses
from fusion.simulation import Scenario, Simulation, demo_store

FOCAL, ACROSS = N_UNKNOWNS, N_UNKNOWNS + 1


def certain(n_views: int) -> Information:
    """Cameras of which everything is known almost exactly, with a presumed focal length that is known to 1 %."""
    store = demo_store(n_views, seed=1)
    rig = Rig.from_cameras(store.cameras)
    lens = np.array([lens_of(camera) for camera in store.cameras])
    u = N_UNKNOWNS + N_OF_LENS
    prior = np.zeros((n_views, u))
    prior[:, FOCAL] = 0.01**-2.0
    poses = Poses(rig.camera_from_world[:, :, :3], rig.centres_m, np.zeros(n_views), lens)
    return Information(np.eye(n_views * u) * 1e10, poses, lens[:, 1:3], prior, 1.0, 1.0)


def with_sd(information: Information, view: int, unknown: int, sd: float) -> Information:
    """The same with one unknown that is known badly, and nothing known of place, direction and scale of the whole."""
    u = N_UNKNOWNS + N_OF_LENS
    matrix = information.matrix.copy()
    matrix[view * u + unknown, view * u + unknown] = sd**-2.0
    gauge = free_directions(information.poses)[:, :7]
    weighted = matrix @ gauge
    return information._replace(matrix=matrix - weighted @ np.linalg.solve(gauge.T @ weighted, weighted.T))


def test_an_unknown_focal_length_is_off_by_its_deviation_and_nothing_else_is():
    information = with_sd(certain(4), 2, FOCAL, 0.01)
    # Half of the draws of a normal distribution are within 0.674 standard deviations.
    found = expected_errors(information, 1.0, has_prior=False)
    assert found.focal == pytest.approx(0.674, rel=0.1)
    assert max(found.centre_m, found.direction, found.ray) < 0.01
    # Four times the pictures halve it; a belief that is as strong as the data counts as twice the pictures.
    assert expected_errors(information, 4.0, has_prior=False).focal == pytest.approx(found.focal / 2.0, rel=0.02)
    both = expected_errors(information, 1.0, has_prior=True)
    assert both.focal == pytest.approx(found.focal / math.sqrt(2.0), rel=0.02)


def test_an_unknown_principal_point_moves_the_ray_alone_and_a_turn_moves_both():
    shifted = expected_errors(with_sd(certain(4), 1, ACROSS, 5.0), 1.0, has_prior=False)
    focal_px = math.exp(certain(4).poses.lens[1, 0])
    assert shifted.ray == pytest.approx(math.degrees(0.674 * 5.0 / focal_px), rel=0.1)
    assert shifted.direction < 0.01
    # A camera of four that turns about its optical axis keeps its ray.
    rolled = expected_errors(with_sd(certain(4), 1, 2, math.radians(1.0)), 1.0, has_prior=False)
    assert rolled.direction == pytest.approx(0.674, rel=0.1)
    assert rolled.ray < 0.01
    turned = expected_errors(with_sd(certain(4), 1, 0, math.radians(1.0)), 1.0, has_prior=False)
    assert turned.direction == pytest.approx(0.674, rel=0.1)
    assert turned.ray == pytest.approx(turned.direction, rel=0.05)


@pytest.mark.parametrize(
    ("keypoints", "of", "part"), [("coco17", joint_information, 5 / 17), ("box2", box_information, 1.0)]
)
def test_information_of_a_short_run(keypoints, of, part):
    store = demo_store(3, seed=2, keypoints=keypoints).model_copy(update={"weight_rate_hz": 1.0})
    scenario = Scenario(seed=2, minutes=0.8, shoppers=2, picks_per_person=2.0, frame_rate_hz=10.0)
    information = of(store, Simulation(store, scenario))
    assert information.pictures == pytest.approx(30.0)
    assert information.alike == pytest.approx(0.75 * part)
    matrix, n_views = information.matrix, len(store.cameras)
    u = len(matrix) // n_views
    assert_allclose(matrix, matrix.T, atol=1e-6 * np.abs(matrix).max())
    assert np.linalg.eigvalsh(matrix).min() > -1e-8 * np.trace(matrix)
    # Pictures say how far a camera is from the others, and nothing of where all are.
    shift = np.zeros((n_views, u))
    shift[:, 3] = 1.0
    assert shift.ravel() @ matrix @ shift.ravel() < 1e-6 * matrix[3, 3]
    assert matrix[3, 3] > 0.0 and matrix[FOCAL, FOCAL] > 0.0
    # The presumed principal point is known to some pixels: precisions are in the units of the unknowns.
    assert 0.002 < information.prior[0, ACROSS] ** -0.5 / 1280 < 0.02
