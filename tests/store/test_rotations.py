"""Rotation vectors and matrices: against OpenCV, and one as the inverse of the other."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from fusion.store.rotations import rotation_matrices, rotation_matrix, rotation_vector

VECTORS = st.tuples(*[st.floats(-3.0, 3.0)] * 3)


@given(VECTORS)
@settings(max_examples=60, deadline=None)
def test_matrix_agrees_with_opencv(vector):
    assert_allclose(rotation_matrix(vector), cv2.Rodrigues(np.array(vector))[0], atol=1e-9)


@given(VECTORS)
@settings(max_examples=60, deadline=None)
def test_vector_inverts_matrix(vector):
    matrix = rotation_matrix(vector)
    assert_allclose(rotation_matrix(rotation_vector(matrix)), matrix, atol=1e-9)


@pytest.mark.parametrize("axis", [(1.0, 0.0, 0.0), (0.0, 0.6, 0.8), (-0.6, 0.0, 0.8)])
def test_half_a_turn_keeps_its_axis(axis):
    vector = rotation_vector(rotation_matrix(np.pi * np.array(axis)))
    assert_allclose(np.linalg.norm(vector), np.pi, atol=1e-7)
    assert_allclose(np.abs(vector @ axis), np.pi, atol=1e-6)


def test_quarter_turn_about_the_vertical():
    assert_allclose(rotation_matrix([0, 0, np.pi / 2]) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    assert_allclose(rotation_matrix([0, 0, 0]), np.eye(3))


def test_several_at_once():
    vectors = np.array([[0.1, -0.4, 0.2], [0.0, 0.0, 0.0]])
    assert_allclose(rotation_matrices(vectors), [rotation_matrix(vectors[0]), np.eye(3)])
    assert rotation_matrices(np.empty((0, 3))).shape == (0, 3, 3)
