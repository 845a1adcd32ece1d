"""Cameras that were nudged: the search for their pose against known poses and attacks, and corrections that run."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from people.rooms import T0, Room, body, store
from people.test_health import circling, moved

from fusion._kernels import poses as kernels
from fusion.people.geometry import Rig
from fusion.people.pose_search import Lens, Pairs, Pose, Refusal, Verdict, find_pose
from fusion.people.tracker import Tracker
from fusion.results import CorrectionStatus
from fusion.store.models import CalibrationPolicy, Store
from fusion.store.rotations import rotation_matrix

USUAL_M = 0.045
ROOM = store(n_views=6)
RIG = Rig.from_cameras(ROOM.cameras)
GIVEN = Pose.of(RIG.camera_from_world[2])
OTHERS = {name: Pose.of(RIG.camera_from_world[view]) for view, name in enumerate(RIG.names) if view != 2}
LENS = Lens(np.array([-640 / 600, -360 / 600]), np.array([640 / 600, 360 / 600]))
MIRRORED = np.array([-1.0, 1.0])


def nudged(axis=(0.0, 1.0, 0.0), turn_deg: float = 0.0, shift_m=(0.0, 0.0, 0.0)) -> Pose:
    """Where camera c2 hangs after a nudge about an axis of its own."""
    turn = rotation_matrix(math.radians(turn_deg) * np.array(axis))
    return Pose(turn @ GIVEN.rotation, GIVEN.centre_m + shift_m)


def evidence(
    pose: Pose, seed: int = 0, *, instants: int = 150, people: int = 2, layout: str = "coco17", late_s: float = 0.0,
    focal: float = 1.0, sd_m: float = 0.015, places=None, shows=None,
) -> Pairs:  # fmt: skip
    """What camera c2 shows from a pose, at instants a second apart, beside people whom others place.

    places(rng, person): where they stand; `shows` other people than those, by the same function.
    """
    rng = np.random.default_rng(seed)
    places = places or (lambda rng, person: rng.uniform(-2.2, 2.2, 2))
    rows = []
    for k in range(instants):
        real = [body(layout, *places(rng, person), rng.uniform(0, 6.28)) for person in range(people)]
        velocities = np.column_stack([rng.normal(0, 0.7, (people, 2)), np.zeros(people)])
        shown = []
        for person in range(people):
            seen = real[person] if shows is None else body(layout, *shows(rng, person), rng.uniform(0, 6.28))
            at = (seen + late_s * velocities[person] - pose.centre_m) @ pose.rotation.T
            at[:, :2] += rng.normal(0, 0.03) + rng.normal(0, sd_m, (len(at), 2))
            shown.append(focal * at[:, :2] / at[:, 2:] if (at[:, 2] > 0.3).all() else np.full((len(at), 2), np.nan))
        for i in range(people):
            for j in range(people):
                if np.isfinite(shown[j]).all() and (np.abs(shown[j]) < [1.1, 0.7]).all():
                    t_ns = T0 + k * 1_000_000_000
                    joints = real[i] + rng.normal(0, 0.01, real[i].shape)
                    rows.append((t_ns, k * people + i, k * people + j, joints, velocities[i], shown[j]))
    columns = [np.array(column) for column in zip(*rows)]
    return Pairs(*columns)


def found(pairs: Pairs) -> Verdict:
    return find_pose(pairs, GIVEN, GIVEN, OTHERS, LENS, USUAL_M)


# ---- kernels ---------------------------------------------------------------------------------------------------------


def test_the_normal_equations_are_those_of_numerical_derivatives():
    pairs = evidence(nudged(turn_deg=3.0), instants=6)
    pose, focal, late_s, n = nudged(turn_deg=2.0, shift_m=(0.02, 0.01, -0.03)), 1.02, 0.03, len(pairs.t_ns)

    def shown(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the picture shows joints (n, K, 2), and their depths (n, K, 1)."""
        places = pairs.joints_m + ((late_s + step[6]) * pairs.velocities_m_s)[:, None] - pose.centre_m - step[3:6]
        at = places @ (rotation_matrix(step[:3]) @ pose.rotation).T
        return focal * math.exp(step[7]) * at[..., :2] / at[..., 2:], at[..., 2:]

    at, depth_m = shown(np.zeros(8))
    off = (at - pairs.rays) * depth_m / focal
    h = 1e-6
    rows = np.stack(
        [(shown(h * unit)[0] - shown(-h * unit)[0]) / (2 * h) * depth_m / focal for unit in np.eye(8)], axis=-1
    )
    scale_m = 0.1
    weight = 1.0 / (1.0 + (off**2).sum(axis=2) / scale_m**2)
    normal, scores = np.full((8, 8), np.nan), np.full((n, 8), np.nan)
    kernels.linearise(
        pairs.joints_m, pairs.velocities_m_s, pairs.rays, pose.rotation, pose.centre_m, late_s, focal, scale_m, normal,
        scores,
    )  # fmt: skip
    assert_allclose(scores, np.einsum("nk,nkci,nkc->ni", weight, rows, off), rtol=1e-6, atol=1e-7)
    assert_allclose(normal, np.einsum("nk,nkci,nkcj->ij", weight, rows, rows), rtol=1e-6, atol=1e-6)
    body_m, rms_m = np.full((n, 2), np.nan), np.full(n, np.nan)
    kernels.compare(
        pairs.joints_m, pairs.velocities_m_s, pairs.rays, pose.rotation, pose.centre_m, late_s, focal, 6, body_m, rms_m
    )
    assert_allclose(body_m, -off.mean(axis=1), rtol=1e-9, atol=1e-12)
    assert_allclose(rms_m, np.sqrt((off**2).sum(axis=2).mean(axis=1)), rtol=1e-9)


# ---- nudges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["coco17", "box2"])
@pytest.mark.parametrize(
    "pose",
    [nudged(turn_deg=2.0), nudged(turn_deg=5.0, axis=(1.0, 0.0, 0.0)), nudged(turn_deg=5.0, axis=(0.0, 0.0, 1.0)),
     nudged(turn_deg=15.0), nudged(turn_deg=4.0, shift_m=(0.1, -0.1, 0.05))],
)  # fmt: skip
def test_a_nudge_is_found(pose, layout):
    verdict = found(evidence(pose, layout=layout, instants=240, late_s=0.05))
    assert verdict.refusal is None and verdict.pose is not None
    assert math.degrees(verdict.pose.turn_from(pose)) < 0.3 and verdict.pose.shift_from_m(pose) < 0.03
    assert abs(verdict.pose.late_s - 0.05) < 0.015
    assert abs(verdict.turn - pose.turn_from(GIVEN)) < math.radians(0.3)
    assert verdict.after_m < 0.06 < verdict.before_m


def test_the_stated_deviation_is_honest():
    errors = []
    for seed in range(12):
        pose = nudged(turn_deg=3.0)
        verdict = found(evidence(pose, seed))
        assert verdict.refusal is None and verdict.pose is not None
        errors.append((verdict.pose.turn_from(pose) / verdict.turn_sd) ** 2)
    # The mean of a squared error over its variance, of twelve, is within these bounds but once in ten thousand times.
    assert 0.15 < np.mean(errors) < 3.2


# ---- what is no nudge ------------------------------------------------------------------------------------------------


def _somewhere(rng, person):
    return rng.uniform(-2.2, 2.2, 2)


@pytest.mark.parametrize("seed", range(3))
def test_another_room_is_no_pose(seed):
    assert found(evidence(GIVEN, seed, shows=_somewhere)).refusal is Refusal.NO_POSE
    assert found(evidence(GIVEN, seed, shows=_somewhere, layout="box2")).refusal is Refusal.NO_POSE


@pytest.mark.parametrize("layout", ["coco17", "box2"])
def test_a_mirrored_picture_is_named(layout):
    pairs = evidence(GIVEN, layout=layout)
    assert found(pairs._replace(rays=pairs.rays * MIRRORED)).refusal is Refusal.MIRRORED


@pytest.mark.parametrize("focal", [0.8, 1.06, 1.3])
@pytest.mark.parametrize("turn_deg", [0.0, 5.0])
def test_a_zoomed_camera_is_not_moved(focal, turn_deg):
    verdict = found(evidence(nudged(turn_deg=turn_deg), focal=focal))
    assert verdict.refusal in (Refusal.ZOOMED, Refusal.NO_POSE, Refusal.FAR)
    assert verdict.refusal is Refusal.ZOOMED or abs(focal - 1.0) > 0.1


def test_a_camera_that_shows_the_view_of_another_is_named():
    verdict = found(evidence(OTHERS["c3"]))
    assert (verdict.refusal, verdict.other) == (Refusal.OTHER_CAMERA, "c3")


def test_a_camera_that_hangs_elsewhere_is_reported():
    assert found(evidence(nudged(shift_m=(0.5, 0.4, 0.0)))).refusal is Refusal.FAR


def test_too_little_is_not_enough():
    pose = nudged(turn_deg=5.0)
    assert found(evidence(pose, instants=20)).refusal is Refusal.FEW
    standing = evidence(pose, people=1, instants=240, places=lambda rng, person: rng.normal([0.4, 0.3], 0.1))
    assert found(standing).refusal in (Refusal.FEW, Refusal.UNCERTAIN)
    nothing = Pairs(*(array[:0] for array in evidence(pose, instants=20)))
    assert found(nothing).refusal is Refusal.FEW


def test_a_camera_in_its_place_is_left_there():
    assert found(evidence(GIVEN)).refusal is Refusal.FITS


def test_numbers_that_are_none_are_passed_over():
    pairs = evidence(nudged(turn_deg=5.0), instants=240)
    rng = np.random.default_rng(3)
    rays = np.where(rng.random((*pairs.rays.shape[:2], 1)) < 0.2, np.nan, pairs.rays)
    joints_m = np.where(rng.random((*pairs.rays.shape[:2], 1)) < 0.2, np.nan, pairs.joints_m)
    verdict = found(pairs._replace(rays=rays, joints_m=joints_m))
    assert verdict.pose is not None and math.degrees(verdict.pose.turn_from(nudged(turn_deg=5.0))) < 0.3


# ---- while it runs ---------------------------------------------------------------------------------------------------


def _running(turn_deg: float, policy: CalibrationPolicy | None = None, n_views: int = 5) -> tuple[Store, Tracker, Room]:
    truth = store(n_views=n_views)
    wrong = moved(truth, "c2", turn_deg=turn_deg)
    if policy is not None:
        wrong = wrong.model_copy(update={"calibration": policy})
    paths = [circling(0.0, 0.9, 0.8), circling(2.0, 1.7, -1.0), circling(4.0, 2.4, 0.9)]
    return wrong, Tracker.of_store(wrong), Room(Tracker.of_store(truth), "coco17", paths)


def _steps(tracker: Tracker, room: Room, seconds: float, first: int = 0) -> list[tuple[str, str]]:
    """Warnings of a while at almost four sets a second: kind and camera."""
    warnings = []
    for k in range(first, first + int(seconds * 15), 4):
        tracker.step(room.frames(k))
        warnings += [(str(w.kind), w.subject) for w in tracker.warnings()]
    return warnings


def test_a_nudged_camera_is_put_right_and_a_person_can_take_it_back():
    wrong, tracker, room = _running(4.0)
    warnings = _steps(tracker, room, 80.0)
    assert warnings == [
        ("camera moved", "c2"), ("camera fits again", "c2"), ("camera corrected", "c2"),
    ]  # fmt: skip
    [correction] = tracker.repositioning.corrections
    right = Pose.of(room.rig.camera_from_world[2])
    pose = Pose.of(tracker.rig.camera_from_world[2])
    assert math.degrees(pose.turn_from(right)) < 0.3 and pose.shift_from_m(right) < 0.02
    assert correction.status is CorrectionStatus.CORRECTED and correction.camera == "c2"
    assert correction.turn_deg == pytest.approx(4.0, abs=0.3) and correction.off_after_m < 0.05
    assert correction.rotation_before == pytest.approx(wrong.cameras[2].rotation)
    assert correction.noticed_ns < correction.t_ns
    state = tracker.health.report()[2]
    assert state.corrected and not state.moved and sum(s.corrected for s in tracker.health.report()) == 1
    # A store whose prices change keeps the correction; one that fixes the camera does not, and does not trust it.
    corrected = tracker.rig.camera_from_world.copy()
    tracker.adopt(wrong)
    assert tracker.health.report()[2].corrected and (tracker.rig.camera_from_world == corrected).all()
    tracker.adopt(wrong.model_copy(update={"calibration": CalibrationPolicy(fixed=("c2",))}))
    assert (tracker.rig.camera_from_world[2] == Rig.from_cameras(wrong.cameras).camera_from_world[2]).all()
    assert tracker.repositioning.corrections[-1].status is CorrectionStatus.TAKEN_BACK
    assert tracker.health.report()[2].moved and not tracker.health.report()[2].corrected
    # A person's calibration is used at once.
    tracker.adopt(store())
    assert not tracker.health.moved.any() and tracker.health.report()[2].corrected is False


def test_a_store_that_wants_reports_alone_is_not_corrected():
    wrong, tracker, room = _running(4.0, CalibrationPolicy(moved="report"))
    assert _steps(tracker, room, 80.0) == [("camera moved", "c2")]
    assert tracker.rig.camera_from_world.tobytes() == Rig.from_cameras(wrong.cameras).camera_from_world.tobytes()
    assert tracker.health.moved[2] and not tracker.repositioning.corrections


def test_a_pose_that_does_not_hold_is_withdrawn(monkeypatch):
    wrong, tracker, room = _running(4.0)

    def wrong_pose(pairs, given, present, others, lens, usual_m):
        verdict = find_pose(pairs, given, present, others, lens, usual_m)
        pose = None if verdict.pose is None else Pose(
            rotation_matrix([0.0, -0.1, 0.0]) @ verdict.pose.rotation, verdict.pose.centre_m
        )  # fmt: skip
        return replace(verdict, pose=pose)

    monkeypatch.setattr("fusion.people.repositioning.find_pose", wrong_pose)
    monkeypatch.setattr("fusion.people.repositioning.PROBATION_INSTANTS", 20)
    warnings = _steps(tracker, room, 95.0)
    assert warnings == [("camera moved", "c2"), ("camera not corrected", "c2")]
    [refused] = tracker.repositioning.corrections
    assert refused.status is CorrectionStatus.REFUSED and refused.reason == Refusal.UNCONFIRMED
    assert tracker.health.moved[2] and (
        tracker.rig.camera_from_world == Rig.from_cameras(wrong.cameras).camera_from_world
    ).all()  # fmt: skip


def test_of_three_cameras_none_is_corrected_by_one_other():
    _, tracker, room = _running(4.0, n_views=3)
    room.hidden = lambda camera, person, t_s: camera == 1
    assert "camera corrected" not in dict(_steps(tracker, room, 60.0))
    assert not tracker.repositioning.corrections
