"""Projection and occlusion agree with geometry that others have written."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.testing import assert_allclose

from fusion.simulation import demo_store
from fusion.simulation.optics import Lens, Obstacles
from fusion.store.rotations import rotation_matrix


def test_projection_agrees_with_opencv(store):
    points = np.random.default_rng(0).uniform([1, 1, 0], [7, 5, 2], (200, 3))
    for camera in store.cameras:
        expected = cv2.projectPoints(
            points,
            np.array(camera.rotation),
            np.array(camera.translation),
            np.array(camera.matrix),
            np.array(camera.distortions),
        )[0][:, 0]
        got, _ = Lens.of(camera).project(points)
        shown = ~np.isnan(got[:, 0])
        assert shown.mean() > 0.6
        assert_allclose(got[shown], expected[shown], atol=1e-6)
        assert_allclose(
            rotation_matrix(np.array(camera.rotation)), cv2.Rodrigues(np.array(camera.rotation))[0], atol=1e-9
        )


def test_shelves_hide_what_is_behind_them_but_not_the_hand_inside():
    store = demo_store(n_plates=80)
    obstacles = Obstacles(store)
    x0, y0, x1, y1, top = store.obstacle.boxes[0]  # along the back wall, open towards -y
    middle = (x0 + x1) / 2
    camera = np.array([middle, 4.5, 2.5])
    inside, behind, before = [middle, y0 + 0.2, 1.0], [middle, y1 + 0.3, 1.0], [middle, y0 - 0.2, 1.0]
    assert obstacles.hide(camera, np.array([inside, behind, before])).tolist() == [False, True, False]
    assert obstacles.hide(np.array([middle, y1 + 2.0, top + 0.5]), np.array([inside])).tolist() == [True]
