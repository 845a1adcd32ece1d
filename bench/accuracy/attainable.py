"""What self-calibration can attain at best: the Cramér-Rao bound of poses and lenses for what cameras detected.

The inverse of the Fisher information at the truth is the smallest covariance that an unbiased estimate can have. Joints
are nuisance unknowns and eliminated. Place, direction and scale of the whole are aligned, as the errors of a
calibration are. Clocks count as known, and joints as located by no more than the pictures of one instant.

How many pictures a detector errs in independently decides. The table has both ends: in every picture, as in the
simulation; or alike for some seconds and over a part of the body, as `fusion.setup.views` presumes of real detectors.

Source: Kay, Fundamentals of Statistical Signal Processing: Estimation Theory (1993), chapter 3; for what is known
beforehand: Van Trees, Detection, Estimation, and Modulation Theory, Part I (1968), section 2.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bench.accuracy.calibration import shopping, similarity
from fusion.files.recordings import Recording
from fusion.observations import Frame
from fusion.people.geometry import Rig
from fusion.setup.adjustment import free_directions
from fusion.setup.bodies import locate_bodies
from fusion.setup.box_model import (
    N_OF_BOX_CAMERA,
    SOLE_M,
    SOLE_SD_M,
    STEP_M,
    STEP_SD_M,
    BoxCameras,
    BoxObservations,
    box_residuals,
    linearise_boxes,
)
from fusion.setup.box_structure import LEAN_SD_M, STATURE_SD_M
from fusion.setup.lenses import Lenses, lens_of, without_lens
from fusion.setup.normal_equations import NormalEquations, Prior
from fusion.setup.reprojection import (
    N_OF_LENS,
    N_UNKNOWNS,
    FloatArray,
    IntArray,
    PointObservations,
    Poses,
    joint_sd_m,
    linearise,
    observation_sd,
    residuals,
)
from fusion.setup.tracklets import TRACKLET_S, LinkedDetections
from fusion.setup.views import CORRELATED_S, PARTS, Views
from fusion.simulation import Simulation
from fusion.simulation.cameras import JOINT_SD_M, JOINT_SD_PX
from fusion.simulation.optics import Lens
from fusion.store.models import Store

# Seconds between the pictures whose information is computed, and draws of errors from the bound.
STEP_S, N_DRAWS = 3.0, 200
# A detection is of the person whose projection is within this, pixels, and reports joints from this score on.
_NEAR_PX, _SCORE_MIN = 60.0, 0.3
# A box's edge that is further from where a whole body's would be was cut by furniture, metres at the person.
_WHOLE_M = 0.15
# Joints of the bodies that Shelf's cameras locate meet within this, metres.
_SHELF_LIMIT_M = 0.1
# A lens is not determined where its focal length is off by more, percent.
_DETERMINED_MAX = 20.0


class Information(NamedTuple):
    """What detections say about cameras.

    Attributes:
        matrix: (u n_views, u n_views) Fisher information of the cameras' unknowns, points eliminated, of pictures
            every `step_s` seconds.
        poses: the truth; lenses as `middle` is meant.
        middle: (n_views, 2) the middle of the pictures, as lenses show it.
        prior: (n_views, u) precisions of what a calibration presumes of lenses.
        pictures, alike: how many such sets of pictures are independent, for each, if errors are so in every picture,
            and if they are alike for seconds.
    """

    matrix: FloatArray
    poses: Poses
    middle: FloatArray
    prior: FloatArray
    pictures: float
    alike: float


class Errors(NamedTuple):
    """The worst camera's error: focal length in percent, centre in metres, direction and ray in degrees."""

    focal: float
    centre_m: float
    direction: float
    ray: float


class _Seen(NamedTuple):
    """Who is seen in pictures of one instant.

    Attributes:
        view, person: (n,) of each detection. keypoints: (n, K, 3) as reported.
        joints_m: (n_people, K, 3) everyone's joints, world frame.
    """

    view: IntArray
    person: IntArray
    keypoints: FloatArray
    joints_m: FloatArray


def expected_errors(information: Information, times: float, has_prior: bool) -> Errors:
    """Median over draws from the bound of the worst camera's errors, where `times` such sets are independent."""
    n_views = len(information.poses.centre_m)
    u = len(information.matrix) // n_views
    matrix = information.matrix * times
    if has_prior:
        matrix = matrix + np.diag(information.prior.ravel())
    # Clocks, and what is no unknown here, have no information: they count as known.
    used = np.tile(np.arange(u) != N_UNKNOWNS - 1, n_views)
    gauge = np.zeros((n_views, u, 7))
    gauge[:, : N_UNKNOWNS + N_OF_LENS] = free_directions(information.poses)[:, :7].reshape(n_views, -1, 7)
    kept = np.linalg.svd(gauge.reshape(-1, 7)[used])[0][:, 7:]
    values, vectors = np.linalg.eigh(kept.T @ matrix[np.ix_(used, used)] @ kept)
    half = kept @ (vectors / np.sqrt(np.maximum(values, 1e-12 * values[-1])))
    random = np.random.default_rng(0)
    worst = np.empty((N_DRAWS, 4))
    for row in worst:
        step = np.zeros(n_views * u)
        step[used] = half @ random.standard_normal(half.shape[1])
        row[:] = _worst(information, step.reshape(n_views, u)[:, : N_UNKNOWNS + N_OF_LENS])
    return Errors(*np.median(worst, axis=0).tolist())


def _worst(information: Information, step: FloatArray) -> Errors:
    """Errors of cameras that are off by a step (n_views, N_UNKNOWNS + N_OF_LENS), once aligned with the truth."""
    true = information.poses
    found = true.moved(step)
    assert found.lens is not None and true.lens is not None
    scale, rotation, shift_m = similarity(found.centre_m, true.centre_m)
    centre_m = scale * found.centre_m @ rotation.T + shift_m
    turned = found.rotation @ rotation.T
    cosine = (np.einsum("nij,nij->n", turned, true.rotation) - 1.0) / 2.0
    rays = []
    for axes, lens in ((turned, found.lens), (true.rotation, true.lens)):
        ideal = without_lens(information.middle, lens)
        ray = np.concatenate([ideal, np.ones((len(ideal), 1))], axis=1)
        rays.append(np.einsum("nji,nj->ni", axes, ray / np.linalg.norm(ray, axis=1, keepdims=True)))
    return Errors(
        100.0 * float(np.abs(np.expm1(step[:, N_UNKNOWNS])).max()),
        float(np.linalg.norm(centre_m - true.centre_m, axis=1).max()),
        float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))).max()),
        float(np.degrees(np.arccos(np.clip((rays[0] * rays[1]).sum(axis=1), -1.0, 1.0))).max()),
    )


def joint_information(store: Store, simulation: Simulation) -> Information:
    """What the joints say that were reported in a simulated run."""
    poses, middle = _true_poses(store)
    views, points, joints, places = [], [], [], []
    n_points = 0
    for seen in _instants(store, simulation):
        shown = np.zeros((*seen.joints_m.shape[:2], len(store.cameras)), bool)
        shown[seen.person, :, seen.view] = seen.keypoints[:, :, 2] > _SCORE_MIN
        shown &= (shown.sum(axis=2) >= 2)[:, :, None]
        person, joint, view = np.nonzero(shown)
        number = np.unique(person * shown.shape[1] + joint, return_inverse=True)[1]
        views.append(view)
        points.append(n_points + number)
        joints.append(joint)
        located = shown.any(axis=2)
        places.append(seen.joints_m[located])
        n_points += int(located.sum())
    points_m, view = np.concatenate(places), np.concatenate(views)
    assert poses.lens is not None
    focal_px = np.exp(poses.lens[view, 0])
    nowhere = np.zeros((len(view), 3, 2))
    observations = PointObservations(view, np.concatenate(points), np.concatenate(joints), nowhere, focal_px)
    found = residuals(observations, poses, points_m)
    observations.tracklet[:, 0] = found.normalised
    sd_px = simulation.scenario.keypoint_noise * np.hypot(JOINT_SD_PX, JOINT_SD_M * focal_px / found.depth_m())
    linear = linearise(observations, poses, points_m, 1.0 / sd_px)
    normal = NormalEquations(observations, linear, len(store.cameras), n_points, 0.0)
    alike = STEP_S / CORRELATED_S * PARTS / store.layout.n_joints
    each = STEP_S * simulation.scenario.frame_rate_hz
    return Information(normal.matrix, poses, middle, _presumed(store, poses), each, alike)


def box_information(store: Store, simulation: Simulation) -> Information:
    """What the boxes say that were reported in a simulated run, by those of their edges that furniture did not cut.

    The standard deviation of an edge is that about the edge of the person's true box in the calibration's model.
    """
    poses, middle = _true_poses(store)
    assert poses.lens is not None
    n_views = len(store.cameras)
    own = np.full(n_views, STEP_M), np.full(n_views, SOLE_M)
    cameras = BoxCameras(poses.rotation, poses.centre_m, poses.offset_s, poses.lens, *own)
    views, points, edges, heads_m = [], [], [], []
    n_people = 0
    for seen in _instants(store, simulation):
        order = np.argsort(seen.person, kind="stable")
        upper, lower = seen.keypoints[order, 0, :2], seen.keypoints[order, 1, :2]
        views.append(seen.view[order])
        points.append(n_people + seen.person[order])
        edges.append(np.stack([upper[:, 0], upper[:, 1], lower[:, 1]], axis=1))
        heads_m.append(seen.joints_m[:, 0])
        n_people += len(seen.joints_m)
    shown, index = np.unique(np.concatenate(points), return_inverse=True)
    people = np.concatenate([np.concatenate(heads_m)[shown], np.zeros((len(shown), 2))], axis=1)
    tracklet = np.zeros((len(index), 3, 3))
    tracklet[:, 0] = np.concatenate(edges)
    observations = BoxObservations(np.concatenate(views), index, tracklet)
    found = box_residuals(observations, cameras, people)
    px_per_m = np.exp(poses.lens[observations.view, :1]) / found.depth_m[:, None]
    off_m = np.abs(found.px) / px_per_m
    whole = off_m < _WHOLE_M
    sd_m = 1.25 * np.array([np.median(off_m[whole[:, i], i]) for i in range(3)])
    linear = linearise_boxes(observations, cameras, people, whole / (sd_m * px_per_m))
    precision = np.array([0.0, 0.0, STATURE_SD_M**-2.0, LEAN_SD_M**-2.0, LEAN_SD_M**-2.0])
    usual = Prior(np.tile(precision, (len(people), 1)), np.zeros_like(people))
    normal = NormalEquations(observations, linear, n_views, len(people), 0.0, None, usual)
    presumed = np.zeros((n_views, N_OF_BOX_CAMERA))
    presumed[:, : N_UNKNOWNS + N_OF_LENS] = _presumed(store, poses)
    presumed[:, -2:] = STEP_SD_M**-2.0, SOLE_SD_M**-2.0
    each = STEP_S * simulation.scenario.frame_rate_hz
    return Information(normal.matrix, poses, middle, presumed, each, STEP_S / CORRELATED_S)


def recorded_information(recording: Recording) -> Information:
    """What a recording's joints say, about its cameras and the bodies that these locate."""
    store = recording.store
    frames: dict[str, list[Frame]] = {camera.name: [] for camera in store.cameras}
    for observation in recording.observations():
        if isinstance(observation, Frame):
            frames[observation.camera].append(observation)
    first_ns = min(of_camera[0].t_ns for of_camera in frames.values())
    span_s = 1e-9 * (max(of_camera[-1].t_ns for of_camera in frames.values()) - first_ns)
    detections = [LinkedDetections(camera, frames[camera.name], first_ns, store.layout) for camera in store.cameras]
    n_views, all_views = len(store.cameras), np.arange(len(store.cameras))
    lenses = Lenses.of(store.cameras, [True] * n_views)
    apart_s = 2.0 * TRACKLET_S
    views = Views.of(detections, np.arange(apart_s, span_s, apart_s), np.zeros(n_views), lenses)
    rig = Rig.from_cameras(store.cameras)
    corrections = np.zeros((n_views, N_OF_LENS))
    poses = Poses(rig.camera_from_world[:, :, :3], rig.centres_m, np.zeros(n_views), corrections)
    bodies = locate_bodies(views, poses, all_views, _SHELF_LIMIT_M)
    observations, points_m = bodies.observations, bodies.points_m.reshape(-1, 3)[bodies.points]
    found = residuals(observations, poses, points_m)
    sd = observation_sd(observations, found, joint_sd_m(observations, found, store.layout.n_joints))
    linear = linearise(observations, poses, points_m, 1.0 / sd)
    normal = NormalEquations(observations, linear, n_views, len(points_m), 0.0)
    prior = lenses.prior(all_views, 1.0)
    assert prior is not None
    middle = np.concatenate([lenses.normalised(view, middle[None]) for view, middle in enumerate(_middles_px(store))])
    alike = apart_s / CORRELATED_S * PARTS / store.layout.n_joints
    return Information(normal.matrix, poses, middle, prior.at(poses).precision, 1.0, alike)


def _true_poses(store: Store) -> tuple[Poses, FloatArray]:
    """A store's cameras with their lenses in pixels, and the middle of their pictures."""
    rig = Rig.from_cameras(store.cameras)
    lens = np.array([lens_of(camera) for camera in store.cameras])
    return Poses(rig.camera_from_world[:, :, :3], rig.centres_m, np.zeros(rig.n_views), lens), _middles_px(store)


def _middles_px(store: Store) -> FloatArray:
    return 0.5 * (np.array([camera.size for camera in store.cameras], float) - 1.0)


def _presumed(store: Store, poses: Poses) -> FloatArray:
    """(n_views, N_UNKNOWNS + N_OF_LENS) precisions of what a calibration presumes of lenses in pixels."""
    n_views = len(store.cameras)
    lenses = Lenses.of(store.cameras, [True] * n_views)
    prior = lenses.prior(np.arange(n_views), 1.0)
    assert prior is not None
    precision = prior.at(poses).precision
    precision[:, N_UNKNOWNS + 1 : N_UNKNOWNS + 3] /= lenses.focal_px[:, None] ** 2
    return precision


def _instants(store: Store, simulation: Simulation) -> list[_Seen]:
    """The people of a run every STEP_S with the detections of them in each camera's nearest picture."""
    frames: dict[str, list[Frame]] = {camera.name: [] for camera in store.cameras}
    for observation in simulation.observations():
        if isinstance(observation, Frame):
            frames[observation.camera].append(observation)
    t_ns = {name: np.array([frame.t_ns for frame in of_camera]) for name, of_camera in frames.items()}
    optics = [Lens.of(camera) for camera in store.cameras]
    out = []
    due_ns = 0
    for people in simulation.truth.people:
        if people.t_ns < due_ns:
            continue
        due_ns = people.t_ns + round(1e9 * STEP_S)
        rows = []
        for view, (name, lens) in enumerate(zip(frames, optics)):
            keypoints = frames[name][int(np.abs(t_ns[name] - people.t_ns).argmin())].keypoints
            owner = _owners(keypoints, lens.project(people.joints_m)[0])
            rows += [(view, person, keypoints[row]) for person, row in owner.items()]
        if rows:
            view, person, shown = zip(*rows)
            out.append(_Seen(np.array(view), np.array(person), np.array(shown, float), people.joints_m))
    return out


def _owners(keypoints: FloatArray, expected_px: FloatArray) -> dict[int, int]:
    """The detection (n, K, 3) nearest to each person's projection (n_people, K, 2), where one is near."""
    off = np.linalg.norm(keypoints[:, None, :, :2] - expected_px[None], axis=3)
    off = np.where((keypoints[:, None, :, 2] > 0.0) & np.isfinite(off), off, np.nan)
    owner = {}
    for person in range(off.shape[1]):
        # A box of which furniture cuts the lower part still has its upper edge at the head.
        near = [(float(np.nanmedian(row)), i) for i, row in enumerate(off[:, person]) if np.isfinite(row).any()]
        if near and min(near)[0] < _NEAR_PX:
            owner[person] = min(near)[1]
    return owner


def table(recording: Recording | None, seeds: Sequence[int]) -> None:
    """Print the bound of the data of `python -m bench calibration lenses`."""
    print("Cramér-Rao bound where lenses are to be found: median of the worst camera's error\n")
    print("| detections | errors | lenses are | focal length, % | centre, cm | direction, degrees | rays, degrees |")
    print("|---|---|---|---|---|---|---|")
    if recording is not None:
        _rows("Shelf, joints", recorded_information(recording))
    for keypoints, word, of in (("coco17", "joints", joint_information), ("box2", "boxes", box_information)):
        for is_real in (False, True):
            for seed in seeds:
                information = of(*shopping(keypoints, is_real, seed))
                _rows(f"{word}, {'real' if is_real else 'good'} detector, seed {seed}", information)
    print()


def _rows(name: str, information: Information) -> None:
    for times, errors in ((information.pictures, "independent"), (information.alike, f"alike for {CORRELATED_S:g} s")):
        for has_prior, known in ((False, "unknown"), (True, "usual ones")):
            found = expected_errors(information, times, has_prior)
            cells = f"{found.focal:.2f} | {100 * found.centre_m:.1f} | {found.direction:.2f} | {found.ray:.2f}"
            # Beyond this the errors are not small, and mean only that nothing is determined.
            cells = cells if found.focal < _DETERMINED_MAX else "not determined | | | "
            print(f"| {name} | {errors} | {known} | {cells} |", flush=True)
