"""The tracker's step beside a chain of NumPy and SciPy with the same features, on the same frames in the same run.

    OMP_NUM_THREADS=1 python -m bench frame                       12 cameras and 8 people, 28 and 16
    OMP_NUM_THREADS=1 python -m bench frame --cameras 100 --people 100

The chain undistorts, predicts every joint, computes reprojection costs of all detections and people, assigns each
camera's detections by SciPy's linear_sum_assignment, triangulates all joints in one batched SVD, rejects the view with
the largest reprojection error and triangulates again, and updates one Kalman filter per joint. Everything is batched
over people, joints and views as far as NumPy allows. The chain does not start or end tracks and has no limb lengths or
covariances of single views; it starts from the people that the tracker found in the first second. Both must have
followed the same people before a figure is printed. Times are CPU times of the thread: for each set the least of
several passes, which alternate between the two.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from scipy.optimize import linear_sum_assignment

from bench.speed.cost_curve import WARM_UP_SETS, frame_sets, make_scene
from fusion.observations import Frame
from fusion.people.geometry import Rig
from fusion.people.tracker import Tracker
from fusion.results import People

N_SETS, REPEATS = 45, 4
T = TypeVar("T")
GATE_SQ, CAP_SQ, SD_PX = 10.0, 16.0, 4.0
OUTLIER_PX, POINT_VAR_M2, ACCELERATION = 20.0, 0.02**2, 4.0
NEAR_M = 0.10


class Chain:
    """A tracker of NumPy and SciPy; arrays over (people, joints)."""

    def __init__(self, rig: Rig, people: People) -> None:
        self.rig = rig
        self.track_id = people.track_id.copy()
        n, n_joints = people.joints_m.shape[:2]
        place = np.concatenate([people.position_m, np.full((n, 1), 1.0)], axis=1)[:, None]
        self.mean = np.zeros((n, n_joints, 6))
        self.mean[..., :3] = np.where(np.isnan(people.joints_m), place, people.joints_m)
        self.cov = np.broadcast_to(np.diag([0.01] * 3 + [1.0] * 3), (n, n_joints, 6, 6)).copy()
        self.t_ns = people.t_ns
        self.focal_px = np.sqrt(rig.image_from_camera[:, 0, 0] * rig.image_from_camera[:, 1, 1])

    def undistort(self, points_px: np.ndarray, view: np.ndarray) -> np.ndarray:
        """(n, K, 2) normalised coordinates of detections by Newton's method. view: (n,) view of each detection."""
        k = self.rig.image_from_camera[view]
        k1, k2, p1, p2, k3 = self.rig.distortions[view, :5].T[:, :, None]
        xd = (points_px[..., 0] - k[:, 0, 2, None]) / k[:, 0, 0, None]
        yd = (points_px[..., 1] - k[:, 1, 2, None]) / k[:, 1, 1, None]
        x, y = xd, yd
        for _ in range(3):
            r2 = x * x + y * y
            radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
            slope = 2 * (k1 + r2 * (2 * k2 + r2 * 3 * k3))
            fx = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) - xd
            fy = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y - yd
            a, d = radial + x * x * slope + 2 * p1 * y + 6 * p2 * x, radial + y * y * slope + 6 * p1 * y + 2 * p2 * x
            b = x * y * slope + 2 * p1 * x + 2 * p2 * y
            det = a * d - b * b
            x, y = x - (d * fx - b * fy) / det, y - (a * fy - b * fx) / det
        return np.stack([x, y], axis=-1)

    def predict(self, dt_s: float) -> None:
        """Predict means and covariances with a constant-velocity model."""
        step = np.eye(6)
        step[range(3), range(3, 6)] = dt_s
        noise = np.zeros((6, 6))
        noise[range(3), range(3)] = dt_s**3 / 3
        noise[range(3), range(3, 6)] = noise[range(3, 6), range(3)] = dt_s**2 / 2
        noise[range(3, 6), range(3, 6)] = dt_s
        self.mean = self.mean @ step.T
        self.cov = step @ self.cov @ step.T + ACCELERATION * noise

    def step(self, frames: Sequence[Frame]) -> None:
        """Update with one set of frames."""
        by_name = {frame.camera: frame for frame in frames}
        ordered = [by_name[name] for name in self.rig.names if name in by_name]
        views = np.array([self.rig.names.index(frame.camera) for frame in ordered])
        counts = [len(frame.keypoints) for frame in ordered]
        view = np.repeat(views, counts)
        stacked = np.concatenate([frame.keypoints for frame in ordered]).astype(np.float64)
        t_ns = max(frame.t_ns for frame in frames)
        offset_s = np.zeros(self.rig.n_views)
        offset_s[views] = [(frame.t_ns - t_ns) * 1e-9 for frame in ordered]
        self.predict((t_ns - self.t_ns) * 1e-9)
        self.t_ns = t_ns
        seen = stacked[..., 2] > 0.1
        points = self.undistort(stacked[..., :2], view)
        # Joints at the instant of each view: (n_views, people, joints).
        camera = self.rig.camera_from_world
        moved = self.mean[None, ..., :3] + offset_s[:, None, None, None] * self.mean[None, ..., 3:]
        at = np.einsum("vij,vpkj->vpki", camera[:, :, :3], moved) + camera[:, None, None, :, 3]
        depth = np.maximum(at[..., 2], 0.05)
        image = at[..., :2] / depth[..., None]
        joint_var_m2 = self.cov[..., range(3), range(3)].sum(axis=-1) / 3 + 0.04**2
        variance = (SD_PX / self.focal_px[:, None, None]) ** 2 + joint_var_m2[None] / depth**2
        found = np.full((len(self.mean), self.rig.n_views), -1)
        first = 0
        for v, count in zip(views.tolist(), counts):
            if count:
                in_view = slice(first, first + count)
                distance_sq = ((points[None, in_view] - image[v, :, None]) ** 2).sum(axis=-1) / variance[v, :, None]
                cost = (np.minimum(distance_sq, CAP_SQ) * seen[None, in_view]).sum(axis=-1)
                cost = cost / np.maximum(seen[in_view].sum(axis=-1), 1)
                cost[(at[v, ..., 2].mean(axis=-1) < 0.05)] = GATE_SQ
                rows, columns = linear_sum_assignment(np.minimum(cost, GATE_SQ))
                kept = cost[rows, columns] < GATE_SQ
                found[rows[kept], v] = first + columns[kept]
            first += count
        # Normal equations would be faster but less accurate; the SVD of the stacked equations is the usual method.
        matched = points[found]  # (people, views, joints, 2)
        used = seen[found] & (found >= 0)[..., None]
        measured, ok = self.triangulate(matched, used)
        error_px = self.reprojection_px(measured, matched)
        worst = np.where(used, error_px, -1.0).argmax(axis=1)
        reject = np.take_along_axis(np.where(used, error_px, 0.0), worst[:, None], axis=1)[:, 0] > OUTLIER_PX
        if reject.any():
            used = used.copy()
            np.put_along_axis(used, worst[:, None], np.take_along_axis(used, worst[:, None], 1) & ~reject[:, None], 1)
            measured, ok = self.triangulate(matched, used)
        self.correct(measured, ok, used.sum(axis=1))

    def triangulate(self, matched: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(people, joints, 3) points from matched detections, and whether each is usable."""
        camera = self.rig.camera_from_world
        x, y = matched[..., 0, None], matched[..., 1, None]
        equations = np.stack([x * camera[None, :, None, 2] - camera[None, :, None, 0],
                              y * camera[None, :, None, 2] - camera[None, :, None, 1]], axis=3)  # fmt: skip
        equations = (equations * used[..., None, None]).transpose(0, 2, 1, 3, 4)
        n, k = equations.shape[:2]
        vectors = np.linalg.svd(equations.reshape(n, k, -1, 4), full_matrices=False)[2][..., -1, :]
        with np.errstate(all="ignore"):
            measured = vectors[..., :3] / vectors[..., 3:]
        ok = (used.sum(axis=1) >= 2) & np.isfinite(measured).all(axis=-1)
        ok &= np.linalg.norm(measured - self.mean[..., :3], axis=-1) < 0.5
        return np.where(ok[..., None], measured, self.mean[..., :3]), ok

    def reprojection_px(self, measured: np.ndarray, matched: np.ndarray) -> np.ndarray:
        """(people, views, joints) reprojection errors in pixels."""
        camera = self.rig.camera_from_world
        at = np.einsum("vij,pkj->pvki", camera[:, :, :3], measured) + camera[None, :, None, :, 3]
        error = matched - at[..., :2] / np.maximum(at[..., 2:], 0.05)
        return np.linalg.norm(error, axis=-1) * self.focal_px[None, :, None]

    def correct(self, measured: np.ndarray, ok: np.ndarray, n_views: np.ndarray) -> None:
        """Kalman update of every joint with its triangulated point."""
        noise = (POINT_VAR_M2 / np.maximum(n_views, 1))[..., None, None] * np.eye(3) + 1e-5 * np.eye(3)
        gain = self.cov[..., :3] @ np.linalg.inv(self.cov[..., :3, :3] + noise) * ok[..., None, None]
        self.mean = self.mean + (gain @ (measured - self.mean[..., :3])[..., None])[..., 0]
        self.cov = self.cov - gain @ self.cov[..., :3, :]

    def step_positions(self, trunk: np.ndarray, frames: Sequence[Frame]) -> np.ndarray:
        """Update with one set of frames; returns (n, 2) the position of each person after it."""
        self.step(frames)
        return self.positions(trunk)

    def positions(self, trunk: np.ndarray) -> np.ndarray:
        """(n, 2) mean of the trunk joints of each person on the floor."""
        return self.mean[:, trunk, :2].mean(axis=1)


def run(step: Callable[[Sequence[Frame]], T], sets: Sequence[list[Frame]]) -> tuple[np.ndarray, list[T]]:
    """(n_sets,) microseconds of each step, and the answers of the steps."""
    spent_ns, answers = [], []
    for frames in sets:
        started_ns = time.thread_time_ns()
        answer = step(frames)
        spent_ns.append(time.thread_time_ns() - started_ns)
        answers.append(answer)
    return np.array(spent_ns) / 1e3, answers


def measure(n_cameras: int, n_people: int) -> dict[str, float]:
    """Median times of both on one scene. AssertionError if they do not agree about the people."""
    scene = make_scene(n_cameras, n_people)
    assert scene is not None, "choose fewer people or more cameras: a camera would see too many people at once"
    sets = list(frame_sets(scene, WARM_UP_SETS + N_SETS))
    layout = scene.store.layout
    trunk = np.array(layout.indices("l_shoulder", "r_shoulder", "l_hip", "r_hip"))
    ours_us, chain_us = np.full((2, N_SETS), np.inf)
    for _ in range(REPEATS):
        # One after the other: alternating by step would evict each other's data from the caches.
        tracker = Tracker.of_store(scene.store)
        for frames in sets[:WARM_UP_SETS]:
            people = tracker.step(frames)
        chain = Chain(scene.rig, people)
        step_us, answers = run(tracker.step, sets[WARM_UP_SETS:])
        ours_us = np.minimum(ours_us, step_us)
        step_us, chain_answers = run(partial(chain.step_positions, trunk), sets[WARM_UP_SETS:])
        chain_us = np.minimum(chain_us, step_us)
    distances_m = []
    for people, places in zip(answers, chain_answers):
        row_of = {track: row for row, track in enumerate(people.track_id.tolist())}
        middle = np.nanmean(people.joints_m[:, trunk, :2], axis=1)
        distances_m += [
            float(np.linalg.norm(middle[row_of[track]] - place))
            for track, place in zip(chain.track_id.tolist(), places)
            if track in row_of and people.seen_ns[row_of[track]] == people.t_ns
        ]
    distance_m = np.array(distances_m)
    assert len(distance_m) > 0.8 * N_SETS * len(chain.track_id), "the two did not follow the same people"
    assert np.mean(distance_m < NEAR_M) > 0.95, f"the two disagree by {np.percentile(distance_m, [50, 95, 99])} m"
    tracker_median_us, chain_median_us = float(np.median(ours_us)), float(np.median(chain_us))
    return {
        "cameras": n_cameras, "people": len(chain.track_id), "apart_median_m": round(float(np.median(distance_m)), 4),
        "tracker_us": round(tracker_median_us, 1), "chain_us": round(chain_median_us, 1),
        "ratio": round(chain_median_us / tracker_median_us, 1),
    }  # fmt: skip


def main() -> None:
    """Print the figures of one size, or of the two default sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int)
    parser.add_argument("--people", type=int, default=8)
    args = parser.parse_args()
    for n_cameras, n_people in [(args.cameras, args.people)] if args.cameras else [(12, 8), (28, 16)]:
        print(measure(n_cameras, n_people), flush=True)
