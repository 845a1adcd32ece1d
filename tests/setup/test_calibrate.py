"""Cameras that find their own places: derivatives, accuracy, refusals, and reported standard deviations."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from fusion.commands.main import main
from fusion.errors import ConfigError, FusionError, ShapeError
from fusion.files.recordings import Recording
from fusion.observations import Frame
from fusion.people.geometry import Rig
from fusion.setup import calibrate as calibrate_module
from fusion.setup import structure, tracklets
from fusion.setup.adjustment import adjust, covariance, free_directions, locate_camera
from fusion.setup.box_model import STEP_M
from fusion.setup.calibrate import calibrate
from fusion.setup.intrinsics import cameras_of_frames, load_intrinsics
from fusion.setup.lenses import Lenses, LensPrior, lens_of, with_lens, without_lens
from fusion.setup.normal_equations import NormalEquations
from fusion.setup.outline import CELLS_MAX, FloorGrid, FloorPose, place_by_outline
from fusion.setup.reprojection import (
    N_OF_LENS,
    N_UNKNOWNS,
    PointObservations,
    Poses,
    linearise,
    residuals,
    through_lens,
)
from fusion.setup.self_calibration import Known, SelfCalibration
from fusion.setup.store_frame import find_floor, find_scale, warn_off_floor
from fusion.setup.tracklets import LinkedDetections
from fusion.setup.upright import find_alike_focal_lengths, find_upright_view, usual_height_m
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.simulation.cameras import Detector
from fusion.simulation.optics import Obstacles
from fusion.store.layouts import LAYOUTS
from fusion.store.lenses import distort, lens_rows
from fusion.store.models import Camera, Obstacle, Store
from fusion.store.shapes import inside_polygon

SCENARIO = Scenario(seed=3, minutes=1.0, shoppers=2, picks_per_person=6, clock_offset_max_s=0.1)


@pytest.fixture(scope="module", autouse=True)
def fewer_instants():
    """A third of the instants is enough for centimetres."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structure, "INSTANTS_MAX", 200)
        yield


def scene(
    seed: int, n_views: int = 5, n_points: int = 60, noise: float = 0.0
) -> tuple[PointObservations, Poses, np.ndarray]:
    """Observations of moving points by a ring of cameras whose clocks are off, and the true poses and points."""
    random = np.random.default_rng(seed)
    angle = np.linspace(0, 2 * math.pi, n_views, endpoint=False)
    centre = np.stack([5 * np.cos(angle), 5 * np.sin(angle), np.full(n_views, 2.5)], axis=1)
    forward = np.array([0.0, 0.0, 1.0]) - centre
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    poses = Poses(np.stack([right, np.cross(forward, right), forward], axis=1), centre, random.normal(0, 0.05, n_views))
    points = random.uniform([-2, -2, 0], [2, 2, 1.8], (n_points, 3))
    speed = random.normal(0, 1, (n_points, 3)) * [1, 1, 0.1]
    tracklet = np.empty((n_points, n_views, 3, 2))
    times = np.array([-0.1, 0.0, 0.1])
    for view in range(n_views):
        # At its own time t the camera shows the scene of t - offset.
        seen = [points + speed * (t - poses.offset_s[view]) for t in times]
        at = np.stack([(p - centre[view]) @ poses.rotation[view].T for p in seen])
        image = at[..., :2] / at[..., 2:]
        tracklet[:, view] = np.linalg.solve(np.vander(times, 3, increasing=True), image.transpose(1, 0, 2))
    tracklet[:, :, 0] += noise * random.standard_normal((n_points, n_views, 2))
    point, view = np.divmod(np.arange(n_points * n_views), n_views)
    focal_px = np.full(len(view), 800.0)
    return PointObservations(view, point, point % 7, tracklet.reshape(-1, 3, 2), focal_px), poses, points


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), with_lenses=st.booleans())
def test_derivatives_are_those_of_the_residuals(seed, with_lenses):
    observations, poses, points = scene(seed, n_points=6)
    random = np.random.default_rng(seed)
    if with_lenses:
        poses = replace(poses, lens=random.normal(0, 0.1, (5, N_OF_LENS)))
    step, point_step = random.normal(0, 1, (5, poses.n_unknowns)), random.normal(0, 1, points.shape)
    linear = linearise(observations, poses, points, np.ones(len(observations.view)))
    expected = np.einsum("nia,na->ni", linear.by_view, step[observations.view])
    expected += np.einsum("nia,na->ni", linear.by_point, point_step[observations.point])
    h = 1e-6
    ahead, _ = residuals(observations, poses.moved(h * step), points + h * point_step)
    behind, _ = residuals(observations, poses.moved(-h * step), points - h * point_step)
    assert_allclose((ahead - behind) / (2 * h), expected, atol=1e-6)


def test_frame_scale_and_common_clock_are_free():
    observations, poses, points = scene(1)
    linear = linearise(observations, poses, points, np.ones(len(observations.view)))
    normal = NormalEquations(observations, linear, 5, len(points), 0.0)
    free = free_directions(poses)
    stiff = np.linalg.eigvalsh(normal.matrix)
    # The common clock is free only as far as points move evenly; here they do.
    moved = np.abs(normal.matrix @ free).max(axis=0)
    assert moved[:7].max() < 1e-4 * stiff.max()
    assert (stiff > 1e-6 * stiff.max()).sum() == 5 * N_UNKNOWNS - 8


def test_adjusting_recovers_a_disturbed_scene_in_spite_of_wrong_observations():
    observations, true, points = scene(2, n_points=200, noise=0.001)
    random = np.random.default_rng(0)
    wild = random.random(len(observations.view)) < 0.05
    observations.tracklet[wild, 0] += random.normal(0, 0.2, (wild.sum(), 2))
    start = true.moved(random.normal(0, [0.03] * 3 + [0.1] * 3 + [0.02], (5, N_UNKNOWNS)))
    found = adjust(observations, start, points + random.normal(0, 0.05, points.shape), 7, 30)
    assert gap_m(found.poses, true) < 0.01
    assert np.median(found.weight[wild]) < 0.05 < 0.5 < np.median(found.weight[~wild])
    off_s = found.poses.offset_s - true.offset_s
    assert np.abs(off_s - off_s.mean()).max() < 0.005


def gap_m(found: Poses, true: Poses) -> float:
    """Largest distance of centres after the best similarity."""
    a, b = found.centre_m - found.centre_m.mean(axis=0), true.centre_m - true.centre_m.mean(axis=0)
    u, values, vt = np.linalg.svd(b.T @ a)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    scale = (values * sign).sum() / (a**2).sum()
    return float(np.linalg.norm(scale * a @ ((u * sign) @ vt).T - b, axis=1).max())


def test_the_reported_standard_deviation_is_the_scatter_over_repeats():
    reported, found = [], []
    for seed in range(40):
        observations, true, points = scene(7)
        observations.tracklet[:, 0] += 0.003 * np.random.default_rng(seed).standard_normal((len(observations.view), 2))
        adjusted = adjust(observations, true, points, 7, 10)
        cov = covariance(observations, adjusted, (np.arange(len(points)) % 12,))
        reported.append(np.sqrt(np.diagonal(cov, axis1=1, axis2=2)))
        found.append(adjusted.poses.offset_s - adjusted.poses.offset_s.mean())
    ratio = np.std(found, axis=0).mean() / np.median(reported, axis=0)[:, 6].mean()
    assert 0.6 < ratio < 1.4


def test_adjusting_finds_lenses_with_their_distortions_and_leaves_known_ones_alone():
    """Pictures taken with other lenses than the nominal ones; the first camera's is known to be nominal."""
    observations, true, points = scene(5, n_points=400, noise=0.0005)
    random = np.random.default_rng(1)
    lens = random.normal(0, [0.05, 0.004, 0.004, 0.08, 0.02, 0.01, 0.005, 0.005], (5, N_OF_LENS))
    lens[0] = 0.0
    for i, view in enumerate(observations.view.tolist()):
        x = observations.tracklet[i, 0]
        row = lens[view]
        bent = distort(lens_rows(np.eye(3)[None], np.array([[*row[3:5], *row[6:]]]), np.array([False])), x[None, None])
        shown = np.exp(row[0] + 0.5 * row[5] * np.array([-1, 1])) * bent[0, 0] + row[1:3]
        # Time scales alike to first order; the clocks are not at issue here.
        observations.tracklet[i] *= np.linalg.norm(shown - lens[view, 1:3]) / max(np.linalg.norm(x), 1e-9)
        observations.tracklet[i, 0] = shown
    precision = np.repeat([np.array([0.2, 0.02, 0.02, 0.2, 0.1, 0.01, 0.003, 0.003]) ** -2.0], 5, axis=0)
    precision[0] = np.inf
    prior = LensPrior(precision, np.zeros((5, N_OF_LENS)))
    step = np.zeros((5, N_UNKNOWNS + N_OF_LENS))
    step[:, :6] = random.normal(0, [0.02] * 3 + [0.05] * 3, (5, 6))
    start = replace(true, lens=np.zeros((5, N_OF_LENS))).moved(step)
    found = adjust(observations, start, points + random.normal(0, 0.03, points.shape), 7, 40, prior)
    assert_allclose(found.poses.lens[0], 0.0)
    assert_allclose(found.poses.lens[:, 0], lens[:, 0], atol=0.005)
    assert_allclose(found.poses.lens[:, 3], lens[:, 3], atol=0.02)
    assert_allclose(found.poses.lens[:, 5:], lens[:, 5:], atol=0.002)
    cov = covariance(observations, found, (np.arange(len(points)) % 12,), prior)
    assert cov.shape == (5, 15, 15) and (cov[0, 7:] == 0.0).all()
    off = (found.poses.lens - lens)[1:, 0] / np.sqrt(cov[1:, 7, 7])
    assert 0.2 < np.sqrt((off**2).mean()) < 3.0


def test_locating_one_camera_among_known_points():
    observations, true, points = scene(4, noise=0.001)
    own = observations.view == 2
    of_camera = PointObservations(
        np.zeros(own.sum(), int), np.arange(own.sum()), observations.joint[own], observations.tracklet[own],
        observations.focal_px[own],
    )  # fmt: skip
    pose = Poses(true.rotation[2:3], true.centre_m[2:3], true.offset_s[2:3])
    start = pose.moved(np.array([[0.1, -0.1, 0.05, 0.3, -0.2, 0.3, 0.05]]))
    found = locate_camera(of_camera, start, points[observations.point[own]])
    assert np.linalg.norm(found.centre_m - pose.centre_m) < 0.02
    assert abs(found.offset_s[0] - pose.offset_s[0]) < 0.01


# ---- a store ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store() -> Store:
    return demo_store(6, n_plates=40).model_copy(update={"weight_rate_hz": 1.0})


@pytest.fixture(scope="module")
def frames(store: Store) -> list[Frame]:
    return [o for o in Simulation(store, SCENARIO).observations() if isinstance(o, Frame)]


def nowhere(store: Store) -> Store:
    nothing = {"rotation": (0.0, 0.0, 0.0), "translation": (0.0, 0.0, 0.0)}
    return store.model_copy(update={"cameras": tuple(c.model_copy(update=nothing) for c in store.cameras)})


def known(store: Store) -> Known:
    rig = Rig.from_cameras(store.cameras)
    at = {name: tuple(map(float, centre)) for name, centre in zip(rig.names, rig.centres_m)}
    return Known(places={name: at[name][:2] for name in ("cam01", "cam04")})


@pytest.fixture(scope="module")
def found(store: Store, frames: list[Frame]) -> SelfCalibration:
    return calibrate(nowhere(store), frames, known(store))


def errors(found: SelfCalibration, store: Store) -> tuple[np.ndarray, np.ndarray]:
    true = {camera.name: camera for camera in store.cameras}
    a, b = Rig.from_cameras(found.cameras), Rig.from_cameras([true[camera.name] for camera in found.cameras])
    between = a.camera_from_world[:, :, :3] @ b.camera_from_world[:, :, :3].transpose(0, 2, 1)
    cosine = np.clip((np.trace(between, axis1=1, axis2=2) - 1) / 2, -1, 1)
    return np.linalg.norm(a.centres_m - b.centres_m, axis=1), np.degrees(np.arccos(cosine))


def test_cameras_and_clocks_are_found_again(store, found):
    metres, degrees = errors(found, store)
    assert len(metres) == 6 and metres.max() < 0.03 and degrees.max() < 0.3
    obstacles = Obstacles(store)
    true = np.array([Detector(store, c, SCENARIO, obstacles, out=False).clock_offset_s for c in store.cameras])
    offsets = np.array([found.offsets_s[camera.name] for camera in store.cameras])
    assert np.abs(true).max() > 0.05, "clocks that are right prove nothing"
    assert_allclose(offsets - offsets.mean(), true - true.mean(), atol=0.005)
    assert not found.warnings
    assert all(tie.partners == 5 and 0 < tie.centre_sd_m < 0.02 for tie in found.ties)


def test_lenses_are_found_with_nothing_known_but_the_pictures_size(store, frames, monkeypatch):
    """Four cameras, a minute of two people; more data make it better (see the benchmark)."""
    monkeypatch.setattr(structure, "INSTANTS_MAX", 120)
    names = ["cam01", "cam02", "cam04", "cam05"]
    cameras = cameras_of_frames([frame for frame in frames if frame.camera in names], (1280, 720))
    assert [camera.name for camera in cameras] == names
    found = calibrate(store.model_copy(update={"cameras": ()}), frames, known(store), cameras, names)
    assert len(found.cameras) == 4
    ties = {tie.name: tie for tie in found.ties}
    for camera, true in zip(found.cameras, [camera for camera in store.cameras if camera.name in names]):
        assert camera.matrix[0][0] == pytest.approx(true.matrix[0][0], rel=0.015)
        assert camera.distortions[0] == pytest.approx(true.distortions[0], abs=0.03)
        tie = ties[camera.name]
        assert tie.focal_px == pytest.approx(0.5 * (camera.matrix[0][0] + camera.matrix[1][1]))
        # A minute determines no lens well: the stated deviation is honest about it and covers the error.
        true_px = 0.5 * (true.matrix[0][0] + true.matrix[1][1])
        assert abs(tie.focal_px - true_px) / 3.0 < tie.focal_sd_px < 0.02 * tie.focal_px
    metres, _ = errors(found, store)
    assert metres.max() < 0.1


def test_corrections_of_a_lens_go_into_the_camera(store):
    """The corrected camera shows points where the present one shows the corrected points."""
    lenses = Lenses.of(store.cameras[:2], (True, False))
    lens = np.array([[0.03, 0.004, -0.006, -0.02, 0.01, 0.004, 0.001, -0.001], [0.5] * N_OF_LENS])
    corrected = lenses.corrected(np.array([0, 1]), lens)
    assert corrected.cameras[1] == store.cameras[1]
    ideal = np.random.default_rng(0).uniform(-0.8, 0.8, (100, 2)) * [1.0, 0.6]
    present = through_lens(ideal, np.tile(lens[0], (100, 1))).shown
    assert np.abs(corrected.shown(0, ideal) - lenses.shown(0, present)).max() < 1.0


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_a_lens_is_that_of_the_cameras_and_its_inverse_and_derivatives_are_right(seed):
    random = np.random.default_rng(seed)
    camera = demo_store(1, seed=seed).cameras[0]
    ideal = random.uniform(-0.8, 0.8, (40, 2)) * [1.0, 0.6]
    own = np.tile(lens_of(camera), (40, 1))
    (fx, _, cx), (_, fy, cy), _ = camera.matrix
    shown = bent_by_the_store(camera, ideal) * [fx, fy] + [cx, cy]
    assert_allclose(through_lens(ideal, own).shown, shown, atol=1e-9)
    assert_allclose(without_lens(shown, own), ideal, atol=1e-9)
    assert lens_of(with_lens(camera, own[0])) == pytest.approx(lens_of(camera))
    lens = random.normal(0, [0.1, 0.01, 0.01, 0.1, 0.05, 0.01, 0.01, 0.01], (40, N_OF_LENS))
    found, h = through_lens(ideal, lens), 1e-6
    point_step, lens_step = random.normal(0, 1, ideal.shape), random.normal(0, 1, lens.shape)
    ahead = through_lens(ideal + h * point_step, lens + h * lens_step).shown
    behind = through_lens(ideal - h * point_step, lens - h * lens_step).shown
    expected = np.einsum("nij,nj->ni", found.by_point, point_step)
    expected += np.einsum("nij,nj->ni", found.by_lens, lens_step)
    assert_allclose((ahead - behind) / (2 * h), expected, atol=1e-7)


def bent_by_the_store(camera: Camera, ideal: np.ndarray) -> np.ndarray:
    """(n, 2) normalised coordinates in the picture, by the store's own lens."""
    coefficients = np.array([camera.distortions])
    return distort(lens_rows(np.eye(3)[None], coefficients, np.array([False])), ideal[None])[0]


UPRIGHT_TILT = math.radians(30.0)
UPRIGHT_UP = np.array([0.0, -math.cos(UPRIGHT_TILT), -math.sin(UPRIGHT_TILT)])


def upright(layout: str, focal_px: float, near_m: float, far_m: float, cut_share: float) -> np.ndarray:
    """(n, 2, 2) people of 1.6 to 1.8 m before a camera at 2.7 m, a share of the boxes cut by furniture."""
    random, n = np.random.default_rng(4), 3000
    ahead = np.cross(UPRIGHT_UP, [1.0, 0.0, 0.0])
    at = random.uniform([-3.0, near_m], [3.0, far_m], (n, 2))
    place = at[:, :1] * np.array([1.0, 0, 0]) + at[:, 1:] * ahead
    foot = place - 2.7 * UPRIGHT_UP
    top = foot + random.normal(usual_height_m(LAYOUTS[layout]), 0.06, (n, 1)) * UPRIGHT_UP
    if layout == "box2":
        # A box ends at the foot that is nearer to the camera.
        foot = foot - STEP_M * place / np.linalg.norm(place, axis=1, keepdims=True)
    people = np.stack([p[:, :2] / p[:, 2:] * focal_px + [639.5, 359.5] for p in (foot, top)], axis=1)
    if layout == "box2":
        people[:, :, 0] = people[:, :, 0].mean(axis=1, keepdims=True)
        cut = random.random(n) < cut_share
        people[cut, 0, 1] -= random.uniform(0.2, 0.6, cut.sum()) * (people[cut, 0, 1] - people[cut, 1, 1])
    return people[(people > 0).all(axis=(1, 2)) & (people < [1280, 720]).all(axis=(1, 2))]


@pytest.mark.parametrize("layout", ["coco17", "box2"])
def test_upright_people_show_the_focal_length_and_which_way_is_up(layout):
    """And too few of them show nothing."""
    shape, people = LAYOUTS[layout], upright(layout, 700.0, 1.5, 7.0, 0.33)
    view = find_upright_view(people, shape, (1280, 720))
    assert view.focal_px == pytest.approx(700.0, rel=0.12)
    assert math.degrees(math.acos(min(view.up @ UPRIGHT_UP, 1.0))) < 4.0
    assert view.height_m == pytest.approx(2.7, rel=0.1)
    assert find_upright_view(people[:20], shape, (1280, 720)) is None
    known = find_upright_view(people, shape, (1280, 720), 700.0, is_straight=True)
    assert known.focal_px == pytest.approx(700.0, rel=1e-3) and abs(known.radial) < 1e-3


def test_cameras_of_one_size_have_the_focal_length_that_most_of_them_show():
    """One shows people at one distance, who fit any focal length; another shows too few."""
    shape, size = LAYOUTS["box2"], (1280, 720)
    clear, unclear = upright("box2", 700.0, 1.5, 7.0, 0.1), upright("box2", 700.0, 3.4, 3.6, 0.1)
    found = find_alike_focal_lengths([clear, unclear, unclear[:10]], shape, size)
    assert found[:2] == pytest.approx([700.0] * 2, rel=0.12)
    assert found[2] is None
    assert find_alike_focal_lengths([unclear[:10]], shape, size) == [None]


def test_extrinsics_are_ignored_and_a_repeat_is_equal(store, frames):
    names = ["cam01", "cam02", "cam04"]
    few = [frame for frame in frames[: len(frames) // 3] if frame.camera in names]
    once, repeated = (
        calibrate(kind, few, known(store), [camera for camera in kind.cameras if camera.name in names])
        for kind in (store, nowhere(store))
    )
    assert once == repeated and [tie.name for tie in once.ties if tie.placed] == names


def test_written_files_load_and_carry_the_calibration(store, found, tmp_path):
    found.save(tmp_path)
    store.save(tmp_path / "store")
    (tmp_path / "store" / "cameras.toml").write_bytes((tmp_path / "cameras.toml").read_bytes())
    assert Store.load(tmp_path / "store").cameras == found.cameras
    report = json.loads((tmp_path / "calibration.json").read_text())
    assert {tie["name"]: tie["offset_s"] for tie in report["ties"]} == pytest.approx(found.offsets_s)


def test_a_camera_that_sees_something_else_is_left_out_and_named(store, frames, monkeypatch):
    """cam03 shows the scene of ten seconds earlier."""
    shifted = sorted(
        (replace(f, t_ns=f.t_ns + 10_000_000_000) if f.camera == "cam03" else f for f in frames), key=lambda f: f.t_ns
    )
    solved = []
    solve = structure.solve_structure
    monkeypatch.setattr(
        calibrate_module, "solve_structure", lambda *args: solved.append(solve(*args)) or solved[-1]
    )
    found = calibrate(nowhere(store), shifted, known(store))
    tie = next(tie for tie in found.ties if tie.name == "cam03")
    assert not tie.placed and "its detections fit" in tie.fault
    assert any("cam03" in warning for warning in found.warnings)
    metres, _ = errors(found, store)
    assert len(metres) == 5 and metres.max() < 0.03
    # The same pictures have the same structure.
    monkeypatch.setattr(calibrate_module, "solve_structure", lambda *args: solved[0])
    with pytest.raises(FusionError, match="cam03"):
        calibrate(nowhere(store), shifted, Known(distances=(("cam03", "cam01", 5.0),)))
    # In a shop that is fitted already, cam05 was moved by 20 cm since, and cam03 cannot be placed.
    moved = store.cameras[4]
    shift = (Rig.from_cameras([moved]).camera_from_world[0, :, :3] @ [0.2, 0.0, 0.0]).tolist()
    stale = moved.model_copy(update={"translation": tuple(a + b for a, b in zip(moved.translation, shift))})
    cameras = tuple(stale if camera is moved else camera for camera in store.cameras)
    refined = calibrate(store.model_copy(update={"cameras": cameras}), shifted, Known(present=True))
    assert [camera.name for camera in refined.cameras] == [camera.name for camera in store.cameras]
    assert refined.cameras[2] == store.cameras[2]
    metres, degrees = errors(refined, store)
    assert metres.max() < 0.04 and degrees.max() < 0.4
    with pytest.raises(ConfigError, match="present poses: want cameras at places of their own"):
        calibrate(nowhere(store), shifted, Known(present=True))


def test_two_rooms_are_not_joined_by_guessing(store, frames):
    """Cameras 5 and 6 see the other half of the time, so no person is seen by both groups at once."""
    start = frames[0].t_ns
    apart = [f for f in frames if (f.camera in ("cam05", "cam06")) == ((f.t_ns - start) // 4_000_000_000 % 2 == 1)]
    found = calibrate(nowhere(store), apart, Known(height_m=1.7, outline=False))
    assert [tie.name for tie in found.ties if tie.placed] == ["cam01", "cam02", "cam03", "cam04"]
    assert all("not placed" in tie.fault for tie in found.ties if not tie.placed)


def test_lengths_that_contradict_each_other_are_reported(store):
    at = {"a": np.zeros(3), "b": np.array([2.0, 0.0, 0.0]), "c": np.array([0.0, 4.0, 0.0])}
    warnings: list[str] = []
    given = Known(distances=(("a", "b", 1.0), ("a", "c", 2.0)))
    scale, _, sd = find_scale(store.layout, given, at, np.zeros((0, 17, 3)), 0.0, warnings)
    assert scale == pytest.approx(0.5) and sd < 0.02 and not warnings
    given = Known(distances=(("a", "b", 1.3), ("a", "c", 2.0)))
    _, _, sd = find_scale(store.layout, given, at, np.zeros((0, 17, 3)), 0.0, warnings)
    assert sd > 0.02 and any("a and b" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (Known(outline=False), "scale: want a distance"),
        (Known(height_m=170.0), "height: want a stature in metres"),
        (Known(distances=(("cam01", "cam99", 5.0),)), "cam99"),
        (Known(distances=(("cam01", "cam01", 5.0),)), "between two cameras"),
        (Known(distances=(("cam01", "cam02", math.nan),)), "distance: want metres"),
        (Known(places={"cam01": (0.0, math.inf)}), "place of 'cam01'"),
        (Known(places={"cam01": (0.0,)}), "place of 'cam01'"),
    ],
)
def test_what_is_known_is_checked(store, known, message):
    with pytest.raises(ConfigError, match=message):
        calibrate(store, [], known)


def test_too_few_cameras_are_refused(store):
    with pytest.raises(ConfigError, match="at least 2"):
        calibrate(store, [], Known(), store.cameras[:1])
    with pytest.raises(ConfigError, match="want each once, got cam01, cam01"):
        calibrate(store, [], Known(), (store.cameras[0], store.cameras[0]))


def test_keypoints_of_another_layout_are_refused(store, frames):
    other = replace(frames[0], keypoints=np.zeros((1, 25, 3), np.float32))
    with pytest.raises(ShapeError, match=r"want \(n_people, \*\(17, 3\)\), got \(1, 25, 3\)"):
        calibrate(store, [other], Known())


def test_too_little_data_is_refused_with_what_is_missing(store, frames):
    with pytest.raises(FusionError, match="got none of the store's cameras"):
        calibrate(store, [], Known())
    with pytest.raises(FusionError, match="want two that see the same people at 20 instants"):
        calibrate(store, frames[:60], Known())
    empty = [replace(frame, keypoints=frame.keypoints[:0]) for frame in frames[:3000]]
    with pytest.raises(FusionError, match=r"most are shared by 'cam01' and 'cam02': 0 of"):
        calibrate(store, empty, Known())
    alone = [frame for frame in frames if frame.camera == "cam01"]
    with pytest.raises(FusionError, match="without frames: cam02"):
        calibrate(store, alone, Known())


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, -5.0])
def test_bad_keypoints_spoil_nothing(store, frames, value):
    random = np.random.default_rng(0)
    bad = []
    for frame in frames[:1500]:
        keypoints = frame.keypoints.copy()
        keypoints[random.random(keypoints.shape[:2]) < 0.02, :2] = value
        bad.append(replace(frame, keypoints=keypoints))
    own = [frame for frame in bad if frame.camera == "cam01"]
    linked = LinkedDetections(store.cameras[0], own, bad[0].t_ns, store.layout)
    polynomial, scale = linked.tracklets(np.linspace(0.0, 10.0, 50))
    assert np.isfinite(polynomial).any() and np.nanmax(np.abs(polynomial[:, :, :, 0])) < 5.0
    assert np.nanmax(scale) < 5.0


# ---- the store's frame -----------------------------------------------------------------------------------------------


def test_an_outline_without_symmetry_gives_direction_and_place():
    floor = ((0.0, 0.0), (9.0, 0.0), (9.0, 3.0), (3.5, 3.0), (3.5, 7.0), (0.0, 7.0))
    store = demo_store(2, n_plates=1).model_copy(update={"floor": floor, "plates": ()})
    store = store.model_copy(update={"obstacle": store.obstacle.model_copy(update={"boxes": ()})})
    random = np.random.default_rng(0)
    walked = np.array([p for p in random.uniform(0, 9, (2000, 2)) if inside_polygon(floor, *p)])
    turn, shift = 2.2, np.array([3.0, -8.0])
    r = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    centre = np.array([[0.2, 0.2, 2.5], [8.8, 0.2, 2.5], [0.2, 6.8, 2.5]])
    centre[:, :2] = (centre[:, :2] - shift) @ r
    warnings: list[str] = []
    found_turn, found_shift = place_by_outline(store, (walked - shift) @ r, centre, warnings)
    assert abs(math.remainder(found_turn - turn, 2 * math.pi)) < math.radians(5.0)
    assert np.linalg.norm(found_shift - shift) < 0.5
    assert not any("fits as well" in warning for warning in warnings)
    square = store.model_copy(update={"floor": ((0.0, 0.0), (6.0, 0.0), (6.0, 6.0), (0.0, 6.0))})
    walked = random.uniform(0, 6, (800, 2))
    place_by_outline(square, walked, np.array([[3.0, 3.0, 2.5]]), warnings)
    assert any("fits as well" in warning for warning in warnings)


def test_bodies_without_legs_give_no_floor(store):
    points = np.random.default_rng(0).uniform(0, 1, (200, 17, 3)) + np.array([0.0, 0.0, 1.0])
    points[:, store.layout.indices("l_ankle", "r_ankle"), 2] = 0.0
    points[:, store.layout.indices("l_hip", "r_hip")] = np.nan
    with pytest.raises(FusionError, match="want legs from hip to ankle, 50 times, got 0"):
        find_floor(points, store.layout)


def test_a_limb_that_is_never_seen_gives_no_scale(store):
    points = np.random.default_rng(0).uniform(0, 1, (50, 17, 3))
    whole = find_scale(store.layout, Known(), {}, points, 0.0, [])[0]
    points[:, store.layout.indices("l_wrist", "r_wrist")] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_scale(store.layout, Known(), {}, points, 0.0, [])[0] == pytest.approx(whole, rel=0.3)


def test_a_large_floor_has_larger_cells_and_a_full_one_is_refused(store):
    large = store.model_copy(update={"floor": ((0.0, 0.0), (400.0, 0.0), (400.0, 300.0), (0.0, 300.0))})
    walked = np.random.default_rng(0).uniform(0, 300, (50, 2))
    assert FloorGrid(large).n_cells < 1.1 * CELLS_MAX
    place_by_outline(large, walked, np.array([[3.0, 3.0, 2.5]]), [])
    full = store.model_copy(update={"obstacle": Obstacle(boxes=((-1.0, -1.0, 500.0, 400.0, 1.0),))})
    with pytest.raises(ConfigError, match="want a place where no obstacle stands"):
        place_by_outline(full, walked, np.array([[3.0, 3.0, 2.5]]), [])


def test_places_of_another_frame_are_reported(store):
    walked = np.array([[1.0, 1.0], [2.0, 3.0], [3.0, 2.0]])
    found: list[str] = []
    warn_off_floor(store, walked, FloorPose(0.0, np.zeros(2)), found)
    assert not found
    warn_off_floor(store, walked, FloorPose(1.0, np.array([500.0, 500.0])), found)
    assert found == ["place: the known places have 100 % of the people walk beside the store's floor"]


def test_detections_are_linked_alike_however_many_pictures_are_compared_at_a_time(store, frames, monkeypatch):
    own = [frame for frame in frames if frame.camera == "cam01"]
    whole = LinkedDetections(store.cameras[0], own, own[0].t_ns, store.layout)
    assert (whole.next >= 0).any()
    monkeypatch.setattr(tracklets, "FRAMES_PER_BLOCK", 7)
    assert np.array_equal(LinkedDetections(store.cameras[0], own, own[0].t_ns, store.layout).next, whole.next)


# ---- files and the command -------------------------------------------------------------------------------------------


def test_intrinsics_need_no_poses(store, tmp_path):
    camera = store.cameras[0]
    table = f'[a]\nname = "a"\nsize = [1280, 720]\nmatrix = {[list(r) for r in camera.matrix]}\n'
    path = tmp_path / "lenses.toml"
    path.write_text(table + f"distortions = {list(camera.distortions)}\n")
    assert load_intrinsics(path)[0].matrix == camera.matrix
    path.write_text(table)
    with pytest.raises(ConfigError, match="camera 'a': want distortion coefficients"):
        load_intrinsics(path)
    path.write_text("[a\n")
    with pytest.raises(ConfigError, match="want TOML, YAML, XML or JSON"):
        load_intrinsics(path)


def test_the_command_writes_cameras(small_recording, tmp_path, capsys):
    rig = Rig.from_cameras(Recording(small_recording).store.cameras)
    metres = float(np.linalg.norm(rig.centres_m[0] - rig.centres_m[3]))
    out = tmp_path / "out"
    command = ["calibrate", str(small_recording), "--out", str(out)]
    assert main([*command, "--distance", "cam01", "cam04", "five"]) == 2
    assert "--distance: 'five' is not a number of metres" in capsys.readouterr().err
    assert main([*command, "--distance", "cam01", "cam99", "5"]) == 2
    assert "got 'cam99'" in capsys.readouterr().err
    assert main([*command, "--place", "cam01", "1", "2", "--place", "cam01", "3", "4"]) == 2
    assert "--place names cam01 more than once" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main([*command, "--out", str(tmp_path / "file")]) == 2
    assert "is a file; pass a folder" in capsys.readouterr().err
    assert main([*command, "--distance", "cam01", "cam04", str(metres)]) == 0
    assert "cam06" in capsys.readouterr().out
    assert (out / "cameras.toml").exists() and (out / "calibration.json").exists()


def test_shelf_cameras_are_found_again(data: Path):
    recording = Recording(data / "shelf")
    true = recording.store.cameras[:4]
    found = calibrate(recording.store, recording.observations(), Known(), nowhere(recording.store).cameras[:4])
    a, b = Rig.from_cameras(found.cameras), Rig.from_cameras(true)
    as_poses = [Poses(r.camera_from_world[:, :, :3], r.centres_m, np.zeros(4)) for r in (a, b)]
    assert gap_m(*as_poses) < 0.05
    assert max(abs(offset) for offset in found.offsets_s.values()) < 0.005, "its cameras are synchronous"


