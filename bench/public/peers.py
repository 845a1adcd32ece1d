"""What people use for the same work, on the same detections in the same run; what is not installed is left out.

- Triangulation: every package gets the same undistorted keypoints, already sorted by person (each camera's detection
  that is nearest to the projected truth), so that it is judged by its points alone.
- Tracking: every package gets the same places on the floor, fused from all cameras by a chain of NumPy and SciPy (feet
  meet the floor; complete linkage within a metre, one detection of a camera in a cluster, at least two cameras where
  there are two). Our engine gets the raw detections and does all of that itself.

Heavy packages belong in an environment of their own, such as

    python -m venv PEERS; PEERS/bin/python -m pip install -e '.[bench]' aniposelib trackers norfair
    PEERS/bin/python -m pip install --no-deps pose2sim; PEERS/bin/python -m pip install rtoml c3d anytree pandas
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment

from bench.accuracy.people import sets_of
from bench.public.metrics import score_floor, score_poses
from bench.public.task import Places, Poses, Task, Tracks, named_joints
from fusion.files.recordings import Recording
from fusion.observations import Frame
from fusion.people.geometry import Rig, triangulate, triangulate_linear
from fusion.store.layouts import Layout

# Joints below this score are guesses of the detector; Pose2Sim's default.
SCORE_MIN = 0.3
# A detection belongs to a person where its joints are within this share of the body's height in the picture.
_SAME_BODY = 0.25
# Detections farther apart on the floor are of two people; the ankles' usual height, so that they meet the floor below.
_CLUSTER_M, _ANKLE_M = 1.0, 0.09
_FLOOR_MAX_M = 100.0
# A person as a box on the floor, for trackers of boxes; pixels a metre, and a shift to positive coordinates.
_BOX_M, _PX_PER_M, _SHIFT_M = 1.0, 100.0, 200.0


class AbsentError(Exception):
    """A package is not installed."""


def package(distribution: str) -> str:
    """Its name with its version; AbsentError if it is not installed."""
    try:
        return f"{distribution} {importlib.metadata.version(distribution)}"
    except importlib.metadata.PackageNotFoundError:
        raise AbsentError(distribution) from None


# ---- triangulation ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sorted:
    """Keypoints sorted by person.

    Attributes:
        points_px: (n_views, n_people, K, 2) undistorted, NaN where a camera saw nothing.
        scores: (n_views, n_people, K).
        instant: (n_people,) instant of each row of people.
    """

    rig: Rig
    points_px: np.ndarray
    scores: np.ndarray
    instant: np.ndarray


def sorted_by_person(task: Task, poses: Poses) -> Sorted:
    """Each camera's detection of each true person, at every instant."""
    recording = Recording(task.recording)
    layout, rig = recording.store.layout, Rig.from_cameras(recording.store.cameras)
    frames: dict[str, list[Frame]] = {name: [] for name in rig.names}
    for observation in recording.observations():
        if isinstance(observation, Frame):
            frames[observation.camera].append(observation)
    common = [(j, layout.index(name)) for j, name in enumerate(poses.names) if name in layout.joints]
    there = [np.flatnonzero(np.isfinite(people).all((1, 2))) for people in poses.joints_m]
    instant = np.repeat(np.arange(len(there)), [len(people) for people in there])
    points = np.full((rig.n_views, len(instant), layout.n_joints, 2), np.nan)
    scores = np.zeros(points.shape[:3])
    for view, name in enumerate(rig.names):
        times = np.array([frame.t_ns for frame in frames[name]])
        row = 0
        for k, people in enumerate(there):
            rows, row = np.arange(row, row + len(people)), row + len(people)
            near = int(np.argmin(np.abs(times - poses.t_ns[k]))) if len(times) else 0
            if not len(times) or not len(people) or abs(times[near] - poses.t_ns[k]) > poses.within_ns:
                continue
            found = np.asarray(frames[name][near].keypoints, float)
            if not len(found):
                continue
            true_px = rig.project(poses.joints_m[k, people].reshape(-1, 3))[view].reshape(len(people), -1, 2)
            height_px = np.nanmax(true_px[..., 1], axis=1) - np.nanmin(true_px[..., 1], axis=1)
            seen = np.where(found[:, :, 2:] > 0, found[:, :, :2], np.nan)
            off = seen[None][:, :, [j for _, j in common]] - true_px[:, None][:, :, [j for j, _ in common]]
            off_px = np.nan_to_num(np.nanmean(np.linalg.norm(off, axis=3), axis=2), nan=1e9)
            for i, j in zip(*linear_sum_assignment(off_px)):
                if off_px[i, j] <= _SAME_BODY * height_px[i]:
                    points[view, rows[i]], scores[view, rows[i]] = seen[j], np.maximum(found[j, :, 2], 0.0)
    flat = rig.undistort(points.reshape(rig.n_views, -1, 2))
    return Sorted(rig, flat.reshape(points.shape), scores, instant)


def _projections(rig: Rig) -> np.ndarray:
    return rig.image_from_camera @ rig.camera_from_world


def numpy_dlt(rig: Rig, points_px: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Linear triangulation of all points in one batched SVD, each view weighted by its score."""
    projection = _projections(rig)
    rows = projection[:, None, :2] - points_px[..., None] * projection[:, None, 2:]
    weight = np.where(np.isfinite(points_px[..., 0]), scores, 0.0)
    rows = np.nan_to_num(rows) * weight[..., None, None]
    system = rows.transpose(1, 0, 2, 3).reshape(points_px.shape[1], -1, 4)
    solution = np.linalg.svd(system)[2][:, -1]
    points = solution[:, :3] / solution[:, 3:]
    points[(weight > 0).sum(0) < 2] = np.nan
    return points


def _aniposelib(fast: bool) -> Callable[[Rig, np.ndarray, np.ndarray], np.ndarray]:
    def run(rig: Rig, points_px: np.ndarray, _: np.ndarray) -> np.ndarray:
        import aniposelib.cameras as anipose
        import cv2

        cameras = [
            anipose.Camera(
                matrix=rig.image_from_camera[view],
                dist=np.zeros(5),
                size=tuple(rig.size_px[view].astype(int).tolist()),
                rvec=cv2.Rodrigues(rig.camera_from_world[view, :, :3])[0].ravel(),
                tvec=rig.camera_from_world[view, :, 3],
                name=str(view),
            )
            for view in range(rig.n_views)
        ]
        # It normalises pixels itself unless they are; our own normalisation gives it exactly what the others get.
        k = rig.image_from_camera
        normalised = (points_px - k[:, None, :2, 2]) / np.stack([k[:, 0, 0], k[:, 1, 1]], axis=-1)[:, None]
        group = anipose.CameraGroup(cameras)
        found = np.array(group.triangulate(normalised, undistort=False, progress=False, fast=fast))
        found[np.isfinite(points_px[..., 0]).sum(0) < 2] = np.nan
        return found

    return run


def _pose2sim(rig: Rig, points_px: np.ndarray, scores: np.ndarray) -> np.ndarray:
    from Pose2Sim.triangulation import triangulation_from_best_cameras

    settings = {"triangulation": {"reproj_error_threshold_triangulation": 15, "min_cameras_for_triangulation": 2}}
    projection = list(_projections(rig))
    out = np.full((points_px.shape[1], 3), np.nan)
    for i in range(points_px.shape[1]):
        likelihood = np.where(np.isfinite(points_px[:, i, 0]), scores[:, i], np.nan)
        if np.isfinite(likelihood).sum() < 2:
            continue
        coordinates = [points_px[:, i, 0], points_px[:, i, 1], likelihood]
        out[i] = triangulation_from_best_cameras(settings, coordinates, coordinates, projection, {})[0]
    return out


# Name, the package it comes from (None: this one, or NumPy), and the function.
TRIANGULATIONS: tuple[tuple[str, str | None, Callable[[Rig, np.ndarray, np.ndarray], np.ndarray]], ...] = (
    ("fusion, robust", None, lambda rig, points, _: triangulate(rig, points).points_m),
    ("fusion, linear", None, lambda rig, points, _: triangulate_linear(rig, points).points_m),
    ("weighted DLT in one SVD", "numpy", numpy_dlt),
    ("all views", "aniposelib", _aniposelib(False)),
    ("median of pairs", "aniposelib", _aniposelib(True)),
    ("best cameras", "pose2sim", _pose2sim),
)


def triangulations(task: Task, poses: Poses, layout: Layout) -> Iterator[dict[str, Any]]:
    """A row for each package: scores of its joints, and the CPU time of a point."""
    data = sorted_by_person(task, poses)
    n_views, n_people, n_joints = data.scores.shape
    points = np.ascontiguousarray(data.points_px.reshape(n_views, -1, 2))
    scores = data.scores.reshape(n_views, -1)
    for name, distribution, run in TRIANGULATIONS:
        try:
            label = f"{package(distribution)}: {name}" if distribution else name
        except AbsentError:
            continue
        run(data.rig, points[:, :n_joints], scores[:, :n_joints])
        started_s = time.process_time()
        found = run(data.rig, points, scores)
        each_us = 1e6 * (time.process_time() - started_s) / max(points.shape[1], 1)
        joints = named_joints(found.reshape(n_people, n_joints, 3), layout, poses.names)
        estimates = [joints[data.instant == k] for k in range(len(poses.t_ns))]
        score = score_poses(poses.joints_m, poses.names, estimates, poses.persons)
        yield {"task": task.name, "implementation": label, "pose": score, "each_us": each_us}


def left_out(task: Task) -> Iterator[dict[str, Any]]:
    """A row for each package: distance between a camera's joints and those located by all others, in its picture."""
    recording = Recording(task.recording)
    rig = Rig.from_cameras(recording.store.cameras)
    sets = list(sets_of(frame for frame in recording.observations() if isinstance(frame, Frame)))
    points = np.full((rig.n_views, len(sets), recording.store.layout.n_joints, 2), np.nan)
    scores = np.zeros(points.shape[:3])
    for k, frames in enumerate(sets):
        for frame in frames:
            if len(frame.keypoints):
                # One person is there; what else a detector finds is less certain.
                best = np.asarray(frame.keypoints, float)[int(np.argmax(frame.keypoints[..., 2].sum(1)))]
                view = rig.names.index(frame.camera)
                scores[view, k] = np.where(best[:, 2] >= SCORE_MIN, best[:, 2], 0.0)
                points[view, k] = np.where(scores[view, k, :, None] > 0, best[:, :2], np.nan)
    flat = rig.undistort(points.reshape(rig.n_views, -1, 2))
    scores = scores.reshape(rig.n_views, -1)
    for name, distribution, run in TRIANGULATIONS:
        try:
            label = f"{package(distribution)}: {name}" if distribution else name
        except AbsentError:
            continue
        errors, n_seen = [], 0
        for view in range(rig.n_views):
            others = flat.copy()
            others[view] = np.nan
            found = run(rig, others, scores)
            apart = np.linalg.norm(rig.undistort(rig.project(found))[view] - flat[view], axis=1)
            # Where fewer than two others see a joint, nothing can be asked.
            asked = np.isfinite(flat[view, :, 0]) & (np.isfinite(others[..., 0]).sum(0) >= 2)
            n_seen += int(asked.sum())
            errors.append(apart[asked & np.isfinite(apart)])
        error_px = np.concatenate(errors)
        median, p90 = np.percentile(error_px, [50, 90]).tolist() if len(error_px) else (float("nan"),) * 2
        share = 100.0 * len(error_px) / max(n_seen, 1)
        yield {"task": task.name, "implementation": label, "median_px": median, "p90_px": p90, "located": share}


# ---- tracking --------------------------------------------------------------------------------------------------------


def floor_places(rig: Rig, layout: Layout, frames: list[Frame]) -> np.ndarray:
    """(n, 2) places on the floor of the people that a set of frames shows, by NumPy and SciPy alone."""
    feet = layout.indices("box_bottom") or layout.indices("l_ankle", "r_ankle")
    height_m = 0.0 if "box_bottom" in layout.joints else _ANKLE_M
    places, views = [], []
    for frame in frames:
        view = rig.names.index(frame.camera)
        keypoints = np.asarray(frame.keypoints, float)[:, list(feet)]
        seen = np.where(keypoints[..., 2:] > 0, keypoints[..., :2], np.nan)
        known = np.isfinite(seen[..., 0]).any(1)
        if not known.any():
            continue
        pixels = np.full((rig.n_views, int(known.sum()), 2), np.nan)
        pixels[view] = np.nanmean(seen[known], axis=1)
        rotation = rig.camera_from_world[view, :, :3]
        ray = np.concatenate([rig.normalise(pixels)[view], np.ones((pixels.shape[1], 1))], axis=1) @ rotation
        centre = rig.centres_m[view]
        reach = (height_m - centre[2]) / np.where(ray[:, 2] * (height_m - centre[2]) > 0, ray[:, 2], np.nan)
        found = centre[:2] + reach[:, None] * ray[:, :2]
        kept = np.abs(found).max(1) < _FLOOR_MAX_M  # NaN is not.
        places += found[kept].tolist()
        views += [view] * int(kept.sum())
    if len(places) < 2:
        return np.array(places).reshape(-1, 2) if rig.n_views == 1 else np.zeros((0, 2))
    at, view_of = np.array(places), np.array(views)
    first, second = np.triu_indices(len(at), 1)
    apart = np.linalg.norm(at[first] - at[second], axis=1)
    apart[view_of[first] == view_of[second]] = 1e6
    cluster = fcluster(linkage(apart, "complete"), _CLUSTER_M, "distance")
    members = [np.flatnonzero(cluster == number) for number in np.unique(cluster)]
    return np.array([at[rows].mean(0) for rows in members if len(rows) >= min(2, rig.n_views)]).reshape(-1, 2)


class SciPyTracker:
    """Nearest assignment to places predicted at constant velocity: what is written in an afternoon."""

    def __init__(self, rate_hz: float) -> None:
        """Tracks live on for a second without a place, and are reported from their third."""
        self._patience, self._next = max(round(rate_hz), 2), 0
        self._tracks: dict[int, tuple[np.ndarray, np.ndarray, int, int]] = {}

    def step(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and places of the tracks that have a place at this instant."""
        numbers = list(self._tracks)
        predicted = np.array([self._tracks[n][0] + self._tracks[n][1] for n in numbers]).reshape(-1, 2)
        apart = np.linalg.norm(predicted[:, None] - places[None], axis=2)
        matched = {j: numbers[i] for i, j in zip(*linear_sum_assignment(apart)) if apart[i, j] < _CLUSTER_M}
        held = {n: (at + v, v, hits, missed + 1) for n, (at, v, hits, missed) in self._tracks.items()}
        self._tracks = {n: track for n, track in held.items() if track[3] <= self._patience}
        shown = []
        for j, place in enumerate(places):
            number = matched.get(j)
            if number is None:
                number, self._next = self._next, self._next + 1
                self._tracks[number] = (place, np.zeros(2), 1, 0)
            else:
                at, velocity, hits, missed = held[number]
                moved = (place - (at - velocity * missed)) / missed
                self._tracks[number] = (place, 0.5 * velocity + 0.5 * moved, hits + 1, 0)
            if self._tracks[number][2] >= 3:
                shown.append((number, place))
        return np.array([n for n, _ in shown], int), np.array([p for _, p in shown]).reshape(-1, 2)


Step = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def _boxes_tracker(name: str) -> Callable[[float], Step]:
    def make(rate_hz: float) -> Step:
        import supervision as sv
        import trackers

        tracker = getattr(trackers, name)(frame_rate=rate_hz)

        def step(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            corner = (places + _SHIFT_M - _BOX_M / 2) * _PX_PER_M
            boxes = np.concatenate([corner, corner + _BOX_M * _PX_PER_M], axis=1)
            ones = np.ones(len(boxes))
            found = tracker.update(sv.Detections(xyxy=boxes, confidence=0.9 * ones, class_id=(0 * ones).astype(int)))
            centre = 0.5 * (found.xyxy[:, :2] + found.xyxy[:, 2:]) / _PX_PER_M - _SHIFT_M
            known = found.tracker_id >= 0
            return found.tracker_id[known], centre[known]

        return step

    return make


def _norfair(_: float) -> Step:
    import norfair

    tracker = norfair.Tracker(distance_function="mean_euclidean", distance_threshold=_CLUSTER_M, initialization_delay=2)

    def step(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        objects = tracker.update([norfair.Detection(place[None]) for place in places])
        ids = np.array([tracked.id for tracked in objects], np.int64)
        return ids, np.array([tracked.estimate[0] for tracked in objects]).reshape(-1, 2)

    return step


TRACKERS: tuple[tuple[str, str, Callable[[float], Step]], ...] = (
    ("assignment, constant velocity", "scipy", lambda rate_hz: SciPyTracker(rate_hz).step),
    ("ByteTrack", "trackers", _boxes_tracker("ByteTrackTracker")),
    ("SORT", "trackers", _boxes_tracker("SORTTracker")),
    ("mean Euclidean", "norfair", _norfair),
)


def tracked(task: Task, places: Places) -> Iterator[dict[str, Any]]:
    """A row for each package: scores of its tracks, and the CPU time of an instant after the floor's places."""
    recording = Recording(task.recording)
    layout, rig = recording.store.layout, Rig.from_cameras(recording.store.cameras)
    frames = (observation for observation in recording.observations() if isinstance(observation, Frame))
    times, fused = [], []
    for frame_set in sets_of(frames):
        times.append(max(frame.t_ns for frame in frame_set))
        fused.append(floor_places(rig, layout, frame_set))
    rate_hz = 1e9 / float(np.median(np.diff(times))) if len(times) > 1 else 10.0
    for name, distribution, make in TRACKERS:
        try:
            label = f"{package(distribution)}: {name}"
        except AbsentError:
            continue
        step = make(rate_hz)
        started_s = time.process_time()
        answers = [step(at) for at in fused]
        each_us = 1e6 * (time.process_time() - started_s) / max(len(fused), 1)
        sizes = [len(ids) for ids, _ in answers]
        rows = Tracks(
            np.repeat(np.array(times, np.int64), sizes),
            np.concatenate([ids for ids, _ in answers]),
            np.concatenate([at for _, at in answers]),
            np.zeros((sum(sizes), 0, 3)),
        )
        score = score_floor(list(places.scenes(rows)))
        yield {"task": task.name, "implementation": label, "floor": score, "each_us": each_us}
