"""Cameras that find their own places and lenses from boxes of people alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from fusion.errors import FusionError
from fusion.observations import Frame
from fusion.people.geometry import Rig
from fusion.setup import box_structure
from fusion.setup.box_model import (
    N_OF_BOX_CAMERA,
    N_OF_PERSON,
    BoxCameras,
    BoxObservations,
    box_residuals,
    linearise_boxes,
)
from fusion.setup.calibrate import calibrate
from fusion.setup.floor_map import (
    FloorPair,
    FloorPoints,
    Similarity,
    as_complex,
    find_pair,
    fit_similarity,
    join_floors,
)
from fusion.setup.intrinsics import cameras_of_frames
from fusion.setup.lenses import lens_of
from fusion.setup.reprojection import N_OF_LENS
from fusion.setup.self_calibration import Known
from fusion.simulation import demo_store
from fusion.store.models import Camera, Store

WALK_S, RATE_HZ = 60.0, 5.0


def cameras_of(store: Store) -> BoxCameras:
    rig = Rig.from_cameras(store.cameras)
    lens = np.array([lens_of(camera) for camera in store.cameras])
    n = rig.n_views
    step_m, sole_m = np.full(n, 0.12), np.full(n, 0.01)
    return BoxCameras(rig.camera_from_world[:, :, :3], rig.centres_m, np.zeros(n), lens, step_m, sole_m)


@pytest.fixture(scope="module")
def store() -> Store:
    """Three cameras with square pixels, in corners."""
    plain = demo_store(4, n_plates=4, keypoints="box2")
    cameras = []
    for camera in plain.cameras[:3]:
        focal = camera.matrix[0][0]
        matrix = ((focal, 0.0, 639.5), (0.0, focal, 359.5), (0.0, 0.0, 1.0))
        update = {"matrix": matrix, "distortions": (*camera.distortions[:2], 0.0, 0.0, 0.0)}
        cameras.append(Camera.model_validate({**camera.model_dump(), **update}))
    return plain.model_copy(update={"cameras": tuple(cameras)})


def walk(store: Store, noise_px: float, cut: float = 0.0) -> list[Frame]:
    """Boxes of two upright people who walk curves through the shop, a share of the boxes cut by furniture."""
    random = np.random.default_rng(3)
    cameras = cameras_of(store)
    frames = []
    for number in range(int(WALK_S * RATE_HZ)):
        t = number / RATE_HZ
        x = 4.0 + 3.2 * np.sin(np.array([0.31, 0.23]) * t + [0.0, 1.0])
        y = 3.0 + 2.2 * np.sin(np.array([0.19, 0.37]) * t + [2.0, 0.5])
        people = np.stack([x, y, [1.66, 1.76], [0.0, 0.0], [0.0, 0.0]], axis=1)
        for view, camera in enumerate(store.cameras):
            own, pair, seen = np.full(2, view), np.arange(2), np.zeros((2, 3, 3))
            seen[:, 0, 2] = 1e4
            whole_px = box_residuals(BoxObservations(own, pair, seen), cameras, people).px + seen[:, 0]
            # The middle of a box that is cut is that of what it shows.
            hidden_px = np.where(random.random(2) < cut, 0.4, 0.0) * (whole_px[:, 2] - whole_px[:, 1])
            seen[:, 0, 2] = whole_px[:, 2] - hidden_px
            px, depth_m = box_residuals(BoxObservations(own, pair, seen), cameras, people)
            px = px + seen[:, 0] + random.normal(0.0, noise_px, px.shape)
            px[:, 2] -= hidden_px
            inside = (depth_m > 0.5) & (px[:, 0] > 0) & (px[:, 0] < 1279) & (px[:, 1] > 5) & (px[:, 2] < 714)
            keypoints = np.ones((2, 2, 3), np.float32)
            keypoints[:, :, 0], keypoints[:, 0, 1], keypoints[:, 1, 1] = px[:, :1], px[:, 1], px[:, 2]
            frames.append(Frame(int(t * 1e9), camera.name, keypoints[inside]))
    return frames


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_derivatives_are_those_of_the_residuals(seed):
    random = np.random.default_rng(seed)
    cameras = cameras_of(demo_store(3, n_plates=1))
    people = random.uniform([2, 2, 1.5, -0.2, -0.2], [6, 4, 1.9, 0.2, 0.2], (5, N_OF_PERSON))
    point, view = np.divmod(np.arange(15), 3)
    tracklet = random.normal(0, 20, (15, 3, 3))
    # Boxes of which the lower half is cut, and whole ones.
    seen = box_residuals(BoxObservations(view, point, np.zeros((15, 3, 3))), cameras, people).px
    tracklet[:, 0, 2] = seen[:, 2] - np.where(point % 2, 0.5, -0.1) * (seen[:, 2] - seen[:, 1])
    boxes = BoxObservations(view, point, tracklet)
    step, shift = random.normal(0, 1, (3, N_OF_BOX_CAMERA)), random.normal(0, 1, people.shape)
    step[:, 8:10] *= 100.0
    linear = linearise_boxes(boxes, cameras, people, np.ones((15, 3)))
    expected = np.einsum("nia,na->ni", linear.by_view, step[view]) + np.einsum(
        "nia,na->ni", linear.by_point, shift[point]
    )
    h = 1e-6
    ahead = box_residuals(boxes, cameras.moved(h * step), people + h * shift).px
    behind = box_residuals(boxes, cameras.moved(-h * step), people - h * shift).px
    visible = (box_residuals(boxes, cameras, people).depth_m > 0.5)[:, None]
    assert_allclose(
        np.where(visible, (ahead - behind) / (2 * h), 0), np.where(visible, expected, 0), rtol=1e-5, atol=1e-2
    )


def test_a_box_stands_on_the_near_foot_and_its_middle_is_between_both_ends():
    """A camera 3 m high looks down by 45 degrees at a person 3 m ahead, of 1.7 m."""
    s = math.sqrt(0.5)
    rotation = np.array([[[1.0, 0.0, 0.0], [0.0, -s, -s], [0.0, s, -s]]])
    lens = np.array([[math.log(1000.0), 640.0, 360.0, *[0.0] * (N_OF_LENS - 3)]])
    camera = BoxCameras(rotation, np.array([[0.0, 0.0, 3.0]]), np.zeros(1), lens, np.array([0.2]), np.zeros(1))
    boxes = BoxObservations(np.zeros(1, int), np.zeros(1, int), np.zeros((1, 3, 3)))
    px, depth_m = box_residuals(boxes, camera, np.array([[0.0, 3.0, 1.7, 0.0, 0.0]]))
    # The feet are on the axis; the near one is at 2.8 m, 45 degrees and more below it.
    near = 1000.0 * math.tan(math.atan2(3.0, 2.8) - math.pi / 4) + 360.0
    head = 1000.0 * math.tan(math.atan2(1.3, 3.0) - math.pi / 4) + 360.0
    assert_allclose(px[0], [640.0, head, near], atol=1e-6)
    assert depth_m[0] == pytest.approx(0.5 * (3.0 / s + (3.0 + 1.3) * s))


def test_the_middle_of_a_cut_box_is_that_of_what_it_shows():
    """Furniture hides a person of 1.7 m, beside the camera's axis, up to 0.9 m; they stand oblique in the picture."""
    s = math.sqrt(0.5)
    rotation = np.array([[[1.0, 0.0, 0.0], [0.0, -s, -s], [0.0, s, -s]]])
    lens = np.array([[math.log(1000.0), 640.0, 360.0, *[0.0] * (N_OF_LENS - 3)]])
    camera = BoxCameras(rotation, np.array([[0.0, 0.0, 3.0]]), np.zeros(1), lens, np.array([0.2]), np.zeros(1))

    def shown(z: float) -> np.ndarray:
        at = rotation[0] @ (np.array([1.5, 3.0, z]) - [0.0, 0.0, 3.0])
        return 1000.0 * at[:2] / at[2] + [640.0, 360.0]

    person = np.array([[1.5, 3.0, 1.7, 0.0, 0.0]])
    for z in (0.0, 0.9):
        tracklet = np.zeros((1, 3, 3))
        tracklet[0, 0, 2] = shown(z)[1]
        px, _ = box_residuals(BoxObservations(np.zeros(1, int), np.zeros(1, int), tracklet), camera, person)
        assert px[0, 0] == pytest.approx(0.5 * (shown(z)[0] + shown(1.7)[0]))
    assert shown(0.9)[0] - shown(0.0)[0] > 50.0, "an upright line proves nothing"


@settings(deadline=None, max_examples=20)
@given(turn=st.floats(-3.1, 3.1), x=st.floats(-9, 9), y=st.floats(-9, 9), scale=st.floats(0.8, 1.25))
def test_floors_are_joined_by_people_of_whom_a_third_are_strangers(turn, x, y, scale):
    random = np.random.default_rng(1)
    places = random.uniform(0, 7, (120, 2))
    strange = random.random(120) < 0.33
    way = Similarity(scale * complex(math.cos(turn), math.sin(turn)), complex(x, y))
    other = way.inverse().of(as_complex(places) + np.where(strange, 3.0 + 2.0j, 0.02j))
    b = np.stack([other.real, other.imag], axis=1)
    instant = np.arange(120)
    pair = find_pair(0, 1, FloorPoints(instant, places), FloorPoints(instant, b), np.random.default_rng(0))
    assert pair is not None and abs(pair.onto_first.turn - way.turn) < 0.02
    assert np.abs(pair.onto_first.of(other) - as_complex(places))[~strange].max() < 0.1
    few = FloorPoints(instant[:15], places[:15])
    assert find_pair(0, 1, few, few, np.random.default_rng(0)) is None


def test_the_largest_group_of_floors_is_joined_through_others():
    ways = [Similarity(1j**k * (1 + 0.1 * k), complex(k, -k)) for k in range(4)]
    pairs = [
        FloorPair(a, b, ways[a].inverse().after(ways[b]), worth) for a, b, worth in ((0, 1, 30), (1, 2, 50), (3, 2, 40))
    ]
    pairs.append(FloorPair(5, 6, ways[1], 99))
    joined = join_floors(pairs)
    assert sorted(joined) == [0, 1, 2, 3]
    for a in range(4):
        for b in range(4):
            between, true = joined[a].inverse().after(joined[b]), ways[a].inverse().after(ways[b])
            assert abs(between.turn - true.turn) < 1e-9 and abs(between.shift - true.shift) < 1e-9


def test_a_similarity_is_fitted_by_least_squares():
    z = np.random.default_rng(2).normal(size=50) + 1j * np.random.default_rng(3).normal(size=50)
    way = Similarity(0.9 - 0.3j, 2.0 + 1.0j)
    found = fit_similarity(z, way.of(z), np.ones(50))
    assert abs(found.turn - way.turn) < 1e-12 and abs(found.shift - way.shift) < 1e-12


def test_cameras_and_lenses_are_found_from_boxes_of_which_many_are_cut(store, monkeypatch):
    """A minute of two people and three cameras of which nothing is known but the pictures' size."""
    monkeypatch.setattr(box_structure, "INSTANTS_MAX", 150)
    frames = walk(store, noise_px=1.0, cut=0.25)
    names = [camera.name for camera in store.cameras]
    cameras = cameras_of_frames(frames, (1280, 720))
    found = calibrate(store, frames, Known(height_m=1.71, outline=False), cameras, names)
    assert [camera.name for camera in found.cameras] == names
    a, b = Rig.from_cameras(found.cameras), Rig.from_cameras(store.cameras)
    for camera, true in zip(found.cameras, store.cameras):
        tie = next(tie for tie in found.ties if tie.name == camera.name)
        assert camera.matrix[0][0] == pytest.approx(true.matrix[0][0], rel=0.1)
        # A minute of boxes leaves much open, and the stated deviation covers it.
        assert abs(camera.matrix[0][0] - true.matrix[0][0]) < 3.0 * tie.focal_sd_px
    # Distances and heights need no frame of the store.
    for i, j in ((0, 1), (0, 2), (1, 2)):
        apart = [np.linalg.norm(rig.centres_m[i] - rig.centres_m[j]) for rig in (a, b)]
        assert apart[0] == pytest.approx(apart[1], rel=0.04)
    assert_allclose(a.centres_m[:, 2], b.centres_m[:, 2], atol=0.12)
    assert_allclose(a.camera_from_world[:, 2, 2], b.camera_from_world[:, 2, 2], atol=0.03)  # the tilt


def test_boxes_without_common_people_are_refused_with_what_is_missing(store):
    frames = [frame for frame in walk(store, 1.0) if frame.camera == "cam01"]
    with pytest.raises(FusionError, match=r"want two that see the same people whole at 20 instants.*cam02 0"):
        calibrate(store, frames, Known(height_m=1.7, outline=False))
