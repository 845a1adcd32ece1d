"""Health of cameras: kernels against their twins; clocks, moved cameras, misses and silence in rooms and in shops."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from people.test_tracks import T0, Room, store
from reference import health as reference

from fusion._kernels import health as kernels
from fusion.observations import Frame
from fusion.people.geometry import Rig
from fusion.people.health import FITS_M, MOVED_M
from fusion.people.tracks import Tracker
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.simulation.cameras import Detector
from fusion.simulation.optics import Obstacles
from fusion.store.models import Store
from fusion.store.rotations import rotation_matrix, rotation_vector

TOLD = 10.0  # Seconds of people in view within which a fault has to be told.


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


def told(tracker: Tracker, sets) -> list[tuple[float, str, str]]:
    """Warnings of sets of frames with their seconds since the first."""
    said, first_ns = [], None
    for frames in sets:
        first_ns = first_ns or frames[0].t_ns
        tracker.step(frames)
        said += [((w.t_ns - first_ns) * 1e-9, w.kind, w.subject) for w in tracker.warnings()]
    return said


def sets_of(simulation: Simulation) -> list[list[Frame]]:
    sets: list[list[Frame]] = []
    current: dict[str, Frame] = {}
    for frame in simulation.observations():
        if not isinstance(frame, Frame):
            continue
        if frame.camera in current or (current and frame.t_ns - next(iter(current.values())).t_ns > 100_000_000):
            sets.append(list(current.values()))
            current = {}
        current[frame.camera] = frame
    return sets


# ---- kernels ---------------------------------------------------------------------------------------------------------


def test_each_view_is_compared_to_what_the_others_say():
    rng = np.random.default_rng(4)
    rig = Rig.from_cameras(store(n_views=5).cameras)
    p, n_views = 24, 5
    mean = np.zeros((1, 6, p))
    mean[0, :3] = rng.normal([[0.3], [-0.4], [1.0]], 0.3, (3, p))
    mean[0, 3:] = np.array([[0.9], [0.5], [0.0]])
    cov = np.zeros((1, 21, p))
    cov[0, [0, 2, 5]] = 0.002
    dt_s = rng.uniform(-0.06, 0, n_views)
    body_var, haste = np.full(p, 0.0016), 1.05
    q = np.einsum("vij,jp->vip", rig.camera_from_world[:, :, :3], mean[0, :3]) + rig.camera_from_world[:, :, 3:]
    x, y = (q[:, i] / q[:, 2] + rng.normal(0, 0.02) + rng.normal(0, 0.005, (n_views, p)) for i in (0, 1))
    var, seen = np.full((n_views, p), 2.5e-5), (rng.random((n_views, p)) < 0.9).astype(float)
    who, evidence = np.zeros(1, np.int64), np.full((1, n_views, kernels.N_EVIDENCE), np.nan)
    one = np.zeros(1, np.int64)
    count = kernels.leave_one_out(
        rig.camera_from_world, dt_s, np.ones(n_views, bool), np.arange(n_views + 1), x, y, var, seen, mean, cov, one,
        np.ones(1, bool), np.zeros(n_views, np.int64), np.arange(n_views)[None], body_var, np.ones(n_views), 0, haste,
        0.0004, 4.0, 11.0, 4.0, 0.7, 0.1, 1.0, who, evidence,
    )  # fmt: skip
    assert count == 1 and (evidence[0, :, 0] == 1).all()
    compared = {
        v: reference.compare(
            rig.camera_from_world[v], dt_s[v], haste, x[v], y[v], var[v], seen[v], mean[0], cov[0], body_var
        )
        for v in range(n_views)
    }
    expected = reference.leave_one_out(rig.camera_from_world, compared, 0.0004, 4.0, 11.0)
    for v in range(n_views):
        off, variance = expected[v]
        assert_allclose(evidence[0, v, 1:3], off, rtol=1e-8, atol=1e-12)
        assert_allclose(evidence[0, v, 8], variance, rtol=1e-8)
        assert_allclose(evidence[0, v, 3:8], [*compared[v][2], *compared[v][3], compared[v][4]], rtol=1e-9, atol=1e-12)


def test_faults_are_the_least_squares_answer():
    rng = np.random.default_rng(5)
    n, step_s = 40, 0.07
    evidence = np.zeros((n, 1, 1, kernels.N_EVIDENCE))
    evidence[..., 0] = 1
    evidence[..., 1:3] = rng.normal(0.03, 0.01, (n, 1, 1, 2))
    evidence[..., 3:5] = rng.normal(0, 0.8, (n, 1, 1, 2))
    evidence[..., 5:7] = rng.uniform(-0.6, 0.6, (n, 1, 1, 2))
    evidence[..., 7] = rng.uniform(2, 6, (n, 1, 1))
    evidence[..., 8] = 0.001
    information, rhs, total = np.zeros((1, 7, 7)), np.zeros((1, 7)), np.zeros((1, 2))
    fault, misfit_m, trust = np.zeros((1, 7)), np.zeros(1), np.zeros(1)
    offset_s, offset_var = np.zeros(1), np.full(1, 0.0036)
    for one in evidence:
        kernels.learn(
            one, 1, step_s, step_s, trust, 0.2, 0.5, 4.0, 1e9, 9.0, fault, offset_s, offset_var, information, rhs, total
        )
    prior = np.array([0.2, 0.2, 0.2, 0.02, 0.02, 0.02, 0.06])
    due = kernels.explain(information, rhs, total, prior, 0, 1, 0.02, 1.0, 0.01, 0.01, trust, fault, misfit_m)
    expected, expected_m = reference.faults_of(evidence[:, 0, 0], np.full(n, step_s), prior)
    assert_allclose(fault[0], expected, rtol=1e-5, atol=1e-7)
    assert_allclose(misfit_m[0], expected_m, rtol=1e-6)
    assert not due and offset_s[0] == 0  # A camera that is not trusted and does not fit keeps its verdict.


# ---- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_clock_offsets_are_found_within_a_minute(seed):
    shop = demo_store(n_cameras=8, n_plates=20)
    scenario = Scenario(seed=seed, minutes=1.2, shoppers=6, clock_offset_max_s=0.1)
    detectors = [Detector(shop, camera, scenario, Obstacles(shop), out=False) for camera in shop.cameras]
    true_s = np.array([detector.clock_offset_s for detector in detectors])
    tracker = Tracker(shop)
    assert told(tracker, sets_of(Simulation(shop, scenario))) == []
    states = tracker.health.report()
    error_s = np.array([state.offset_s for state in states]) - true_s
    # An offset common to all cameras is time itself: nothing in the pictures tells of it.
    assert np.abs(error_s - error_s.mean()).max() < 0.010
    assert max(state.offset_sd_s for state in states) < 0.010
    assert np.ptp(true_s) > 0.08


def test_offsets_keep_their_mean_at_none_and_are_undone():
    tracker = Tracker(store())
    room = Room(tracker, "coco17", WALKERS)
    for k in range(450):
        late = [Frame(f.t_ns + 60_000_000 * (f.camera == "c1"), f.camera, f.keypoints) for f in room.frames(k)]
        tracker.step(late)
    offsets_s = np.array([state.offset_s for state in tracker.health.report()])
    assert abs(offsets_s[1] - offsets_s[[0, 2, 3, 4]].mean() - 0.060) < 0.005
    assert abs(offsets_s.mean()) < 0.010


# ---- moved cameras ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"turn_deg": 1.0}, {"turn_deg": 2.0, "axis": (1.0, 0.0, 0.0)}, {"turn_deg": 5.0},
     {"turn_deg": 2.0, "axis": (0.0, 0.0, 1.0)}, {"shift_m": (0.05, 0.05, 0.0)}, {"shift_m": (0.0, 0.0, 0.1)}],
)  # fmt: skip
@pytest.mark.parametrize("name", ["c0", "c2"])
def test_a_moved_camera_is_named_and_no_other(change, name):
    truth = store()
    tracker = Tracker(moved(truth, name, **change))
    room = Room(Tracker(truth), "coco17", WALKERS)
    said = told(tracker, (room.frames(k) for k in range(300)))
    assert {subject for _, _, subject in said} == {name}
    assert [kind for _, kind, _ in said if kind.startswith("camera moved")] == ["camera moved"]
    assert said[0][0] < TOLD
    state = tracker.health.report()[tracker.rig.names.index(name)]
    assert state.moved and state.misfit_m > MOVED_M
    assert tracker.ignored["detections: camera was moved"] > 100


def test_a_moved_camera_does_not_drag_anybody_and_is_used_again_once_it_fits():
    truth = store()
    tracker = Tracker(moved(truth, "c2", turn_deg=2.0))
    room = Room(Tracker(truth), "coco17", WALKERS)
    said = told(tracker, (room.frames(k) for k in range(200)))
    assert [(kind, subject) for _, kind, subject in said] == [("camera moved", "c2")]
    people = tracker.step(room.frames(200))
    t_s = (people.t_ns - T0) * 1e-9
    places = np.array([path(t_s)[:2] for path in WALKERS])
    distance = np.linalg.norm(people.position_m[:, None] - places, axis=2).min(axis=1)
    assert len(people.track_id) == 3 and distance.max() < 0.05
    # Somebody puts the camera back to where its calibration says it is.
    wrong = Room(tracker, "coco17", WALKERS)
    said = told(tracker, (wrong.frames(k) for k in range(201, 500)))
    assert [(kind, subject) for _, kind, subject in said] == [("camera fits again", "c2")]
    assert not tracker.health.moved.any() and tracker.health.report()[2].misfit_m < FITS_M


def test_most_cameras_stay_trusted_whatever_they_say():
    truth = store()
    shop = truth
    for name in ("c0", "c2", "c3", "c4"):
        shop = moved(shop, name, turn_deg=3.0, axis=(1.0, 0.0, 0.0))
    tracker = Tracker(shop)
    room = Room(Tracker(truth), "coco17", WALKERS)
    told(tracker, (room.frames(k) for k in range(300)))
    assert tracker.health.moved.sum() <= 2


# ---- misses and silence ----------------------------------------------------------------------------------------------


def test_a_camera_that_misses_people_is_named():
    tracker = Tracker(store())
    rng = np.random.default_rng(1)
    room = Room(tracker, "coco17", WALKERS, hidden=lambda camera, person, t: camera == 3 and rng.random() < 0.6)
    said = told(tracker, (room.frames(k) for k in range(300)))
    assert [(kind, subject) for _, kind, subject in said] == [("camera misses people", "c3")]
    assert said[0][0] < TOLD
    rates = [state.miss_rate for state in tracker.health.report()]
    assert 0.45 < rates[3] < 0.75 and max(rates[:3] + rates[4:]) < 0.1
    room.hidden = lambda camera, person, t: False
    said = told(tracker, (room.frames(k) for k in range(300, 500)))
    assert [(kind, subject) for _, kind, subject in said] == [("camera finds people again", "c3")]


def test_a_silent_camera_is_reported():
    tracker = Tracker(store())
    room = Room(tracker, "coco17", WALKERS)
    told(tracker, ([f for f in room.frames(k) if f.camera != "c4"] for k in range(100)))
    assert [state.down for state in tracker.health.report()] == [False, False, False, False, True]


# ---- all is well -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "keypoints"), [(3, "coco17"), (4, "body25"), (5, "box2")])
def test_nothing_is_said_of_cameras_that_are_well(seed, keypoints):
    shop = demo_store(n_cameras=8, n_plates=20, keypoints=keypoints)
    tracker = Tracker(shop)
    assert told(tracker, sets_of(Simulation(shop, Scenario(seed=seed, minutes=1.5, shoppers=8)))) == []
    assert len(tracker.health.report()) == 8 and not tracker.health.moved.any()


def test_two_runs_are_equal_to_the_bit():
    one, other = Tracker(store()), Tracker(store())
    room = Room(one, "coco17", WALKERS)
    for k in range(120):
        frames = room.frames(k)
        one.step(frames)
        other.step(frames[::-1])
    assert one.health.report() == other.health.report()
    assert_array_equal(one.health._information, other.health._information)
    assert np.abs(one.health.offsets_s).max() > 0


def test_a_rig_without_cameras_or_with_one():
    for n_views in (0, 1):
        tracker = Tracker(store(n_views=n_views))
        tracker.step([Frame(T0, "c0", np.zeros((0, 17, 3), np.float32))])
        assert len(tracker.health.report()) == n_views and tracker.warnings() == []
