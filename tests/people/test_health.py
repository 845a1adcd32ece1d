"""Camera health: kernels against their twins; clocks, moved cameras, misses and silence in rooms and in shops."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from people.rooms import T0, Room, sets_of, store
from reference import health as reference

from fusion._kernels import health as kernels
from fusion._kernels.records import CameraGeometry, Detections, Matches, States
from fusion.files.recordings import Recording
from fusion.observations import Frame
from fusion.people.geometry import Rig
from fusion.people.health import FITS_M, MOVED_M
from fusion.people.tracker import Tracker
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.simulation.cameras import Detector
from fusion.simulation.optics import Obstacles
from fusion.store.models import Store
from fusion.store.rotations import rotation_matrix, rotation_vector

REPORTED_S = 10.0  # Seconds of people in view within which a fault has to be reported.
SET_NS = 100_000_000  # The longest set of frames of a shop.


def moved(shop: Store, name: str, turn_deg: float = 0.0, axis=(0.0, 1.0, 0.0), shift_m=(0.0, 0.0, 0.0)) -> Store:
    """The same shop with a wrong calibration of one camera, as if the camera had been moved."""
    cameras = []
    for camera in shop.cameras:
        if camera.name == name:
            rotation = rotation_matrix(camera.rotation)
            eye = -rotation.T @ np.array(camera.translation) + shift_m
            rotation = rotation_matrix(np.radians(turn_deg) * np.array(axis)) @ rotation
            turned = tuple(rotation_vector(rotation).tolist())
            change = {"rotation": turned, "translation": tuple((-rotation @ eye).tolist())}
            camera = camera.model_copy(update=change)
        cameras.append(camera)
    return shop.model_copy(update={"cameras": tuple(cameras)})


def circling(phase: float, radius_m: float = 1.8, speed_m_s: float = 1.0):
    def path(t_s: float) -> tuple[float, float, float]:
        angle = phase + speed_m_s / radius_m * t_s
        return radius_m * np.cos(angle), radius_m * np.sin(angle), angle + np.pi / 2

    return path


WALKERS = [circling(0.0), circling(2.0, 1.2, -0.8), circling(4.0, 2.4)]


def warnings_of(tracker: Tracker, sets) -> list[tuple[float, str, str]]:
    """Warnings from sets of frames: seconds since the first set, kind, camera."""
    warnings, first_ns = [], None
    for frames in sets:
        first_ns = first_ns or frames[0].t_ns
        tracker.step(frames)
        warnings += [((w.t_ns - first_ns) * 1e-9, w.kind, w.subject) for w in tracker.warnings()]
    return warnings


# ---- kernels ---------------------------------------------------------------------------------------------------------


def model(**settings: object) -> np.ndarray:
    """Settings of the kernels, an array of one record."""
    record = np.zeros(1, kernels.MODEL)
    for name, value in {"degrees_of_freedom": 4.0, "judged_per_set": 4, **settings}.items():
        record[name] = value
    return record


def test_each_view_is_compared_to_the_other_views():
    rng = np.random.default_rng(4)
    rig = Rig.from_cameras(store(n_views=5).cameras)
    p, n_views = 24, 5
    mean = np.zeros((1, 6, p))
    mean[0, :3] = rng.normal([[0.3], [-0.4], [1.0]], 0.3, (3, p))
    mean[0, 3:] = np.array([[0.9], [0.5], [0.0]])
    cov = np.zeros((1, 21, p))
    cov[0, [0, 2, 5]] = 0.002
    dt_s = rng.uniform(-0.06, 0, n_views)
    body_var, velocity_scale = np.full(p, 0.0016), 1.05
    q = np.einsum("vij,jp->vip", rig.camera_from_world[:, :, :3], mean[0, :3]) + rig.camera_from_world[:, :, 3:]
    x, y = (q[:, i] / q[:, 2] + rng.normal(0, 0.02) + rng.normal(0, 0.005, (n_views, p)) for i in (0, 1))
    var, seen = np.full((n_views, p), 2.5e-5), (rng.random((n_views, p)) < 0.9).astype(float)
    settings = model(
        body_var=0.0016, view_var=0.0004, predicted_precision=11.0, joints_min=4.0, loose_m=0.7, alike_m=0.1,
        others_var_max=1.0,
    )  # fmt: skip
    cameras = np.zeros(n_views, kernels.CAMERA)
    cameras["trust"] = rng.uniform(0.02, 0.5, n_views)
    evidence = np.zeros((1, n_views), kernels.EVIDENCE)
    views = np.arange(n_views)
    count = kernels.leave_one_out(
        CameraGeometry(rig.camera_from_world, rig.pinholes, rig.size_px, np.zeros((0, 5))),
        Detections(dt_s, np.ones(n_views, bool), np.arange(n_views + 1), views, x, y, var, seen),
        States(mean, cov, np.zeros(1, np.int64), np.ones(1, bool), p),
        Matches(np.zeros(n_views, np.int64), views[None]), settings[0], 0, velocity_scale, cameras,
        np.zeros(1, np.int64), evidence,
    )  # fmt: skip
    assert count == 1 and evidence["known"].all()
    compared = {
        v: reference.compare(
            rig.camera_from_world[v], dt_s[v], velocity_scale, x[v], y[v], var[v], seen[v], mean[0], cov[0], body_var
        )
        for v in range(n_views)
    }
    expected = reference.leave_one_out(rig.camera_from_world, compared, cameras["trust"], 0.0004, 4.0, 11.0)
    for v, e in enumerate(evidence[0]):
        residual, variance = expected[v]
        assert_allclose([e["off_x"], e["off_y"]], residual, rtol=1e-8, atol=1e-12)
        assert_allclose(e["var"], variance, rtol=1e-8)
        assert_allclose([e["rate_x"], e["rate_y"]], compared[v].rate, rtol=1e-9, atol=1e-12)
        assert_allclose([e["image_x"], e["image_y"]], compared[v].image, rtol=1e-9, atol=1e-12)
        assert_allclose(e["depth_m"], compared[v].depth_m, rtol=1e-9, atol=1e-12)


def test_faults_are_the_least_squares_solution():
    rng = np.random.default_rng(5)
    n, step_s = 40, 0.07
    evidence = np.zeros((n, 1, 1), kernels.EVIDENCE)
    evidence["known"] = True
    for names, mean, sd in (("off_x off_y", 0.03, 0.01), ("rate_x rate_y", 0.0, 0.8)):
        for name in names.split():
            evidence[name] = rng.normal(mean, sd, (n, 1, 1))
    for name in ("image_x", "image_y"):
        evidence[name] = rng.uniform(-0.6, 0.6, (n, 1, 1))
    evidence["depth_m"] = rng.uniform(2, 6, (n, 1, 1))
    evidence["var"] = 0.001
    prior = np.array([0.2, 0.2, 0.2, 0.02, 0.02, 0.02, 0.06])
    settings = model(
        fault_prior=prior, memory_s=1e9, outlier_m=9.0, speed_min_m_s=0.2, correlation_s=0.5, doubt_m=0.02,
        data_min_s=1.0, moved_m=0.01, fits_m=0.01, usual_prior_m=0.05, usual_prior_s=1.0,
    )  # fmt: skip
    cameras = np.zeros(1, kernels.CAMERA)
    cameras["offset_var"] = 0.0036
    for each in evidence:
        kernels.learn(each, 1, step_s, step_s, settings[0], cameras)
    due, doubted = kernels.explain(0, settings[0], cameras)
    expected, expected_m = reference.faults_of(evidence[:, 0, 0], np.full(n, step_s), prior)
    assert_allclose(cameras["fault"][0], expected, rtol=1e-5, atol=1e-7)
    assert_allclose(cameras["residual_m"][0], expected_m, rtol=1e-6)
    # A camera that is not trusted and does not fit keeps its verdict.
    assert not due and doubted and cameras["offset_s"][0] == 0


def test_what_is_usual_is_the_median_cameras_difference():
    rng = np.random.default_rng(6)
    for n in (1, 2, 5, 8):
        cameras = np.zeros(n, kernels.CAMERA)
        cameras["trust"] = rng.random(n) < 0.8
        cameras["weight_s"] = rng.uniform(1, 5, n) * (rng.random(n) < 0.7)
        cameras["squares_m2_s"] = cameras["weight_s"] * rng.uniform(0.01, 0.2, n) ** 2
        settings = model(fault_prior=1.0, doubt_m=0.02, usual_prior_m=0.05, usual_prior_s=1.0)
        kernels.explain(0, settings[0], cameras)
        expected = reference.usual_m(cameras["squares_m2_s"], cameras["weight_s"], cameras["trust"] > 0, 0.05, 1.0)
        assert_allclose(cameras["usual_m"], expected, rtol=1e-12)


# ---- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_clock_offsets_are_found_within_a_minute(seed):
    shop = demo_store(n_cameras=8, n_plates=20)
    scenario = Scenario(seed=seed, minutes=1.2, shoppers=6, clock_offset_max_s=0.1)
    detectors = [Detector(shop, camera, scenario, Obstacles(shop), out=False) for camera in shop.cameras]
    true_s = np.array([detector.clock_offset_s for detector in detectors])
    tracker = Tracker.of_store(shop)
    assert warnings_of(tracker, sets_of(Simulation(shop, scenario).observations(), SET_NS)) == []
    states = tracker.health.report()
    error_s = np.array([state.offset_s for state in states]) - true_s
    # An offset common to all cameras is not observable.
    assert np.abs(error_s - error_s.mean()).max() < 0.010
    assert max(state.offset_sd_s for state in states) < 0.010
    assert np.ptp(true_s) > 0.08


def test_offsets_keep_a_mean_of_zero_and_are_corrected():
    tracker = Tracker.of_store(store())
    room = Room(tracker, "coco17", WALKERS)
    for k in range(450):
        late = [Frame(f.t_ns + 60_000_000 * (f.camera == "c1"), f.camera, f.keypoints) for f in room.frames(k)]
        tracker.step(late)
    offsets_s = np.array([state.offset_s for state in tracker.health.report()])
    assert abs(offsets_s[1] - offsets_s[[0, 2, 3, 4]].mean() - 0.060) < 0.005
    assert abs(offsets_s.mean()) < 0.010


@pytest.mark.parametrize("n_views, n_moved, many", [(6, 1, False), (6, 2, True), (8, 2, True), (12, 2, False)])
def test_many_moved_cameras_are_a_share_of_all(n_views, n_moved, many):
    tracker = Tracker.of_store(store(n_views=n_views))
    tracker.health.moved[:n_moved] = True
    assert tracker.disagreeing is many


# ---- moved cameras ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"turn_deg": 1.0}, {"turn_deg": 2.0, "axis": (1.0, 0.0, 0.0)}, {"turn_deg": 5.0},
     {"turn_deg": 2.0, "axis": (0.0, 0.0, 1.0)}, {"shift_m": (0.05, 0.05, 0.0)}, {"shift_m": (0.0, 0.0, 0.1)}],
)  # fmt: skip
@pytest.mark.parametrize("name", ["c0", "c2"])
def test_a_moved_camera_is_named_and_no_other(change, name):
    truth = store()
    tracker = Tracker.of_store(moved(truth, name, **change))
    room = Room(Tracker.of_store(truth), "coco17", WALKERS)
    warnings = warnings_of(tracker, (room.frames(k) for k in range(300)))
    assert {subject for _, _, subject in warnings} == {name}
    assert [kind for _, kind, _ in warnings if kind.startswith("camera moved")] == ["camera moved"]
    assert warnings[0][0] < REPORTED_S
    state = tracker.health.report()[tracker.rig.names.index(name)]
    assert state.moved and state.residual_m > MOVED_M
    assert tracker.ignored["detections: camera was moved"] > 100


def test_a_moved_camera_drags_no_track_and_is_used_again_once_it_fits():
    truth = store()
    tracker = Tracker.of_store(moved(truth, "c2", turn_deg=2.0))
    room = Room(Tracker.of_store(truth), "coco17", WALKERS)
    warnings = warnings_of(tracker, (room.frames(k) for k in range(200)))
    assert [(kind, subject) for _, kind, subject in warnings] == [("camera moved", "c2")]
    people = tracker.step(room.frames(200))
    t_s = (people.t_ns - T0) * 1e-9
    places = np.array([path(t_s)[:2] for path in WALKERS])
    distance = np.linalg.norm(people.position_m[:, None] - places, axis=2).min(axis=1)
    assert len(people.track_id) == 3 and distance.max() < 0.05
    # The camera is put back to where its calibration has it.
    wrong = Room(tracker, "coco17", WALKERS)
    warnings = warnings_of(tracker, (wrong.frames(k) for k in range(201, 500)))
    assert [(kind, subject) for _, kind, subject in warnings] == [("camera fits again", "c2")]
    assert not tracker.health.moved.any() and tracker.health.report()[2].residual_m < FITS_M


def test_a_knocked_camera_is_named_among_noisy_ones():
    truth = store()
    tracker = Tracker.of_store(moved(truth, "c2", turn_deg=3.0))
    room = Room(Tracker.of_store(truth), "coco17", WALKERS, sd_px=8.0)
    warnings = warnings_of(tracker, (room.frames(k) for k in range(300)))
    assert {subject for _, _, subject in warnings} == {"c2"}
    assert [t_s < REPORTED_S for t_s, kind, _ in warnings if kind == "camera moved"] == [True]


def test_a_slightly_moved_camera_counts_less_and_counts_again():
    truth = store()
    tracker = Tracker.of_store(moved(truth, "c2", shift_m=(0.025, 0.025, 0.0)))
    room = Room(Tracker.of_store(truth), "coco17", WALKERS)
    assert warnings_of(tracker, (room.frames(k) for k in range(200))) == []
    doubt_sd_m = np.sqrt(tracker.health.doubt_var)
    assert 0.01 < doubt_sd_m[2] < 0.05 and (np.delete(doubt_sd_m, 2) == 0.0).all()
    # The camera is put back to where its calibration has it.
    right = Room(tracker, "coco17", WALKERS)
    assert warnings_of(tracker, (right.frames(k) for k in range(200, 400))) == []
    assert (tracker.health.doubt_var == 0.0).all()


def test_most_cameras_stay_trusted_whatever_they_show():
    truth = store()
    shop = truth
    for name in ("c0", "c2", "c3", "c4"):
        shop = moved(shop, name, turn_deg=3.0, axis=(1.0, 0.0, 0.0))
    tracker = Tracker.of_store(shop)
    room = Room(Tracker.of_store(truth), "coco17", WALKERS)
    warnings_of(tracker, (room.frames(k) for k in range(300)))
    assert tracker.health.moved.sum() <= 2


# ---- misses and silence ----------------------------------------------------------------------------------------------


def test_a_camera_that_misses_people_is_named():
    tracker = Tracker.of_store(store())
    rng = np.random.default_rng(1)
    room = Room(tracker, "coco17", WALKERS, hidden=lambda camera, person, t: camera == 3 and rng.random() < 0.6)
    warnings = warnings_of(tracker, (room.frames(k) for k in range(300)))
    assert [(kind, subject) for _, kind, subject in warnings] == [("camera misses people", "c3")]
    assert warnings[0][0] < REPORTED_S
    rates = [state.miss_rate for state in tracker.health.report()]
    assert 0.45 < rates[3] < 0.75 and max(rates[:3] + rates[4:]) < 0.1
    room.hidden = lambda camera, person, t: False
    warnings = warnings_of(tracker, (room.frames(k) for k in range(300, 500)))
    assert [(kind, subject) for _, kind, subject in warnings] == [("camera finds people again", "c3")]


def test_a_silent_camera_is_reported():
    tracker = Tracker.of_store(store())
    room = Room(tracker, "coco17", WALKERS)
    warnings_of(tracker, ([f for f in room.frames(k) if f.camera != "c4"] for k in range(100)))
    assert [state.down for state in tracker.health.report()] == [False, False, False, False, True]


# ---- healthy cameras -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "keypoints"), [(3, "coco17"), (4, "body25"), (5, "box2")])
def test_healthy_cameras_raise_no_warning(seed, keypoints):
    shop = demo_store(n_cameras=8, n_plates=20, keypoints=keypoints)
    tracker = Tracker.of_store(shop)
    simulation = Simulation(shop, Scenario(seed=seed, minutes=1.5, shoppers=8))
    assert warnings_of(tracker, sets_of(simulation.observations(), SET_NS)) == []
    assert len(tracker.health.report()) == 8 and not tracker.health.moved.any()


@pytest.mark.parametrize("seed", [6, 7])
def test_joints_as_noisy_as_real_detectors_make_no_camera_look_moved(seed):
    shop = demo_store(n_cameras=8, n_plates=20)
    tracker = Tracker.of_store(shop)
    rough = {"keypoint_noise": 3.0, "outlier_probability": 0.12, "swap_probability": 0.05}
    simulation = Simulation(shop, Scenario(seed=seed, minutes=1.5, shoppers=8, **rough))
    assert warnings_of(tracker, sets_of(simulation.observations(), SET_NS)) == []
    assert not tracker.health.moved.any() and not tracker.health.doubt_var.any()


@pytest.mark.parametrize("name", ["thunder", "multipose", "mediapipe"])
def test_no_camera_of_a_real_visit_is_lost(data, name):
    recording = Recording(data / "real" / name)
    tracker = Tracker.of_store(recording.store)
    kinds = {kind for _, kind, _ in warnings_of(tracker, sets_of(recording.frames(), SET_NS))}
    assert "camera moved" not in kinds and not tracker.health.moved.any()


def test_two_runs_are_equal_to_the_bit():
    first, second = Tracker.of_store(store()), Tracker.of_store(store())
    room = Room(first, "coco17", WALKERS)
    for k in range(120):
        frames = room.frames(k)
        first.step(frames)
        second.step(frames[::-1])
    # Equal residuals to the last bit come from equal normal equations.
    assert first.health.report() == second.health.report()
    assert np.abs(first.health.offsets_s).max() > 0
    assert max(state.residual_m for state in first.health.report()) > 0


def test_a_rig_without_cameras_or_with_one():
    for n_views in (0, 1):
        tracker = Tracker.of_store(store(n_views=n_views))
        tracker.step([Frame(T0, "c0", np.zeros((0, 17, 3), np.float32))])
        assert len(tracker.health.report()) == n_views and tracker.warnings() == []
