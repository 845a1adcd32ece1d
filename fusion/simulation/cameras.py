"""What detectors report: joints seen through distorted lenses, with noise, misses, occlusion and false detections."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.observations import Frame
from fusion.simulation import body
from fusion.simulation.body import CHANNEL, JOINTS
from fusion.simulation.optics import Bodies, Lens, Obstacles
from fusion.simulation.scenario import Scenario
from fusion.store.models import Camera, Store

# Standard deviation of a detector's keypoint about the joint: metres at the person, and a floor in pixels. Half of the
# variance changes slowly (a detector's errors are correlated in successive images), half is new in every frame.
JOINT_SD_M = 0.012
JOINT_SD_PX = 0.6
# Wrists and elbows blur, hips hide under clothes.
_LOOSE = {"l_wrist": 1.4, "r_wrist": 1.4, "l_elbow": 1.2, "r_elbow": 1.2, "l_hip": 1.5, "r_hip": 1.5, "mid_hip": 1.5}
# How much more often than other joints a detector misses such a joint in plain view.
_ELUSIVE = {"l_wrist": 4.0, "r_wrist": 4.0, "l_elbow": 2.0, "r_elbow": 2.0}
# A detector guesses a hidden joint with this probability, else it leaves it out.
_GUESS_PROBABILITY = 0.4
_FACE_GUESS_PROBABILITY = 0.6  # even of a head from behind
_FACE = ("nose", "l_eye", "r_eye", "l_ear", "r_ear")


@dataclass(frozen=True)
class _InView:
    """A row for each person and frame with enough of the person in the image.

    Attributes:
        frame, person: (n_rows,). points_px: (n_rows, n_joints, 2). depth_m, in_image, hidden: (n_rows, n_joints).
    """

    frame: NDArray[np.int64]
    person: NDArray[np.int64]
    points_px: NDArray[np.float64]
    depth_m: NDArray[np.float64]
    in_image: NDArray[np.bool_]
    hidden: NDArray[np.bool_]


class _Measured(NamedTuple):
    """Keypoints (n_rows, n_joints, 2) as a detector locates them; which are guesses, which are far off."""

    points_px: NDArray[np.float64]
    guessed: NDArray[np.bool_]
    wild: NDArray[np.bool_]


class _Ghosts(NamedTuple):
    """False detections (n, K, 3) and the frames (n,) that they are in."""

    keypoints: NDArray[np.float64]
    frame: NDArray[np.int64]


class Detector:
    """A camera with its detector: turns the states of people at its exposures into frames."""

    def __init__(self, store: Store, camera: Camera, scenario: Scenario, obstacles: Obstacles, out: bool) -> None:
        self.lens = Lens.of(camera)
        self.scenario = scenario
        self.boxes_only = store.keypoints == "box2"
        self._obstacles = obstacles
        self._random = scenario.random("camera", camera.name)
        setting = scenario.random("camera setting", camera.name)
        self.period_s = 1.0 / scenario.frame_rate_hz
        self.phase_s = float(setting.uniform(0.0, self.period_s))
        self.clock_offset_s = float(setting.uniform(-1.0, 1.0)) * scenario.clock_offset_max_s
        edge_s = 0.5 * (1.0 - scenario.outage_share) * scenario.duration_s
        self.outage_s = (edge_s, scenario.duration_s - edge_s) if out else (math.inf, math.inf)
        self._looks = _Looks(store.appearance_dim, setting, self._random, scenario)
        # Shift of a camera that was knocked or hangs loose; it has its own random stream, so that it changes no other
        # draw.
        knock = scenario.random("calibration", camera.name).standard_normal(2)
        self._shift_px = scenario.calibration_error_px * knock
        self._used = np.arange(len(JOINTS)) if self.boxes_only else body.layout_joints(store.layout)
        names = [JOINTS[j] for j in self._used]
        self._row_of = {name: i for i, name in enumerate(names)}
        self._drift = _SlowError(camera.name, (len(names), 2), scenario)
        self._loose = np.array([_LOOSE.get(name, 1.0) for name in names])
        self._elusive = np.array([_ELUSIVE.get(name, 1.0) for name in names])
        self._guess = np.array([_FACE_GUESS_PROBABILITY if name in _FACE else _GUESS_PROBABILITY for name in names])
        self._template = _standing()[self._used]
        self._pairs = [(names.index(f"l_{j}"), names.index(f"r_{j}")) for j in ("elbow", "wrist") if f"l_{j}" in names]

    def exposures(self, start_s: float, end_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """True mid-exposures in [start, end) that deliver a frame, and their times by the camera's clock."""
        first = math.ceil((start_s - self.phase_s) / self.period_s - 1e-9)
        last = math.ceil((end_s - self.phase_s) / self.period_s - 1e-9)
        # Cameras start with the run: no frame lies before it.
        numbers = np.arange(max(first, 1), last)
        # A jitter of more than a third of the period would change the order of frames.
        limit_s = 0.3 * self.period_s
        jitter_s = self._random.standard_normal(len(numbers)) * self.scenario.frame_jitter_s
        jitter_s = np.clip(jitter_s, -limit_s, limit_s)
        times = self.phase_s + numbers * self.period_s + jitter_s
        kept = self._random.random(len(numbers)) >= self.scenario.frame_drop_probability
        kept &= (times < self.outage_s[0]) | (times >= self.outage_s[1])
        return times[kept], times[kept] + self.clock_offset_s

    def frames(
        self,
        times_s: NDArray[np.float64],
        stamps_ns: NDArray[np.int64],
        numbers: NDArray[np.int64],
        joints: NDArray[np.float64],
        present: NDArray[np.bool_],
    ) -> list[Frame]:
        """Detections in each frame.

        Args:
            times_s: (n_frames,) true times.
            stamps_ns: (n_frames,) times by the camera's clock.
            numbers: (n_people,) of the people; used for what stays the same over time, never reported.
            joints: (n_frames, n_people, all JOINTS, 3) world metres.
            present: (n_frames, n_people).
        """
        random = self._random
        view = self._in_view(Bodies(joints, present))
        measured = self._measure(view, self._drift.at(times_s, numbers, view.frame, view.person))
        keypoints, kept = self._report(view, measured)
        looks = self._looks.of(numbers[view.person[kept]])
        ghosts = self._ghosts(len(present))
        reported = np.concatenate([keypoints[kept], ghosts.keypoints]).astype(np.float32)
        frame = np.concatenate([view.frame[kept], ghosts.frame])
        looks = np.concatenate([looks, self._looks.of_strangers(len(ghosts.frame))]) if self._looks.dim else looks
        # Detections come in any order: their order does not reveal people's identities.
        order = np.lexsort((random.random(len(frame)), frame))
        reported = reported[order]
        cuts = np.searchsorted(frame[order], np.arange(len(present) + 1)).tolist()
        name = self.lens.camera.name
        if not self._looks.dim:
            return [Frame(t, name, reported[a:b]) for t, a, b in zip(stamps_ns.tolist(), cuts, cuts[1:])]
        looks = looks[order]
        return [Frame(t, name, reported[a:b], looks[a:b]) for t, a, b in zip(stamps_ns.tolist(), cuts, cuts[1:])]

    def _in_view(self, bodies: Bodies) -> _InView:
        used = bodies.joints_m[:, :, self._used] if not self.boxes_only else bodies.joints_m
        points_px, depth_m = self.lens.project(used)
        points_px = points_px + self._shift_px
        width, height = self.lens.camera.size
        with np.errstate(invalid="ignore"):
            in_image = _within(points_px, -0.5, width - 0.5, height - 0.5)
        in_image &= bodies.present[..., None]
        # Only people with something in the image need the costly part.
        frame, person = np.nonzero(in_image.sum(axis=-1) >= (2 if self.boxes_only else 3))
        if not len(frame):
            n_joints = len(self._used)
            none = np.zeros((0, n_joints), bool)
            return _InView(frame, person, np.zeros((0, n_joints, 2)), np.ones((0, n_joints)), none, none)
        hidden = self._obstacles.hide(self.lens.centre_m, used[frame, person])
        hidden |= bodies.hide(self.lens.centre_m, frame, person, used[frame, person])
        if not self.boxes_only:
            self._hide_far_side(bodies, frame, person, hidden)
        return _InView(frame, person, points_px[frame, person], depth_m[frame, person], in_image[frame, person], hidden)

    def _hide_far_side(
        self, bodies: Bodies, frame: NDArray[np.int64], person: NDArray[np.int64], hidden: NDArray[np.bool_]
    ) -> None:
        """Mark the face of a head from behind, and the ear on its far side."""
        frontal, leftward = bodies.facing(self.lens.centre_m, frame, person)
        for joint in ("nose", "l_eye", "r_eye"):
            hidden[:, self._row_of[joint]] |= frontal < -0.3
        hidden[:, self._row_of["l_ear"]] |= leftward < -0.4
        hidden[:, self._row_of["r_ear"]] |= leftward > 0.4

    def _measure(self, view: _InView, drift: NDArray[np.float64]) -> _Measured:
        """Where a detector locates the joints: noise, guesses of hidden joints, outliers, arms mixed up."""
        random, s = self._random, self.scenario
        shape = view.depth_m.shape
        depth_m = np.maximum(view.depth_m, 0.3)
        focal_px = 0.5 * (self.lens.camera.matrix[0][0] + self.lens.camera.matrix[1][1])
        sd_px = np.hypot(JOINT_SD_PX, JOINT_SD_M * focal_px / depth_m) * self._loose * s.keypoint_noise
        noise = random.standard_normal((*shape, 2))
        points_px = view.points_px + (0.7 * sd_px)[..., None] * (noise + drift)
        guessed = view.hidden & (random.random(shape) < self._guess)
        points_px = points_px + (guessed * 3.0 * sd_px)[..., None] * random.standard_normal((*shape, 2))
        wild = random.random(shape) < s.outlier_probability
        jump_px = (focal_px * 0.25 / depth_m)[..., None] * random.standard_normal((*shape, 2))
        points_px = points_px + wild[..., None] * jump_px
        swapped = random.random(len(view.frame)) < s.swap_probability
        for left, right in self._pairs:
            points_px[swapped, left], points_px[swapped, right] = points_px[swapped, right], points_px[swapped, left]
        return _Measured(points_px, guessed, wild)

    def _report(self, view: _InView, measured: _Measured) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """(n_rows, K, 3) keypoints with scores, and (n_rows,) whether the detector finds the person at all."""
        random, s = self._random, self.scenario
        shape = view.depth_m.shape
        score = np.clip(0.88 + 0.06 * random.standard_normal(shape), 0.3, 1.0)
        poor = np.clip(random.uniform(0.1, 0.5, shape), 0.0, 1.0)
        score = np.where(measured.guessed | measured.wild, poor, score)
        missed = random.random(shape) < np.minimum(s.joint_miss_probability * self._elusive, 0.9)
        seen = view.in_image & ~missed & (~view.hidden | measured.guessed)
        share = (view.in_image & (~view.hidden | measured.guessed)).mean(axis=1)
        # The less of a person is visible, the likelier the detector misses them altogether.
        lost = random.random(len(share)) < s.person_miss_probability + np.clip(0.35 - share, 0.0, 0.35)
        width, height = self.lens.camera.size
        if not self.boxes_only:
            seen &= _within(measured.points_px, 0.0, width - 1, height - 1)
        keypoints = self._keypoints(measured.points_px, seen, score)
        enough = (keypoints[..., 2] > 0).sum(axis=1) >= (2 if self.boxes_only else 4)
        return keypoints, enough & ~lost

    def _keypoints(
        self, points_px: NDArray[np.float64], seen: NDArray[np.bool_], score: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """(n, K, 3) in the store's layout, 0 where a joint is not seen."""
        if self.boxes_only:
            return _boxes(points_px, seen, score, self.lens.camera.size)
        return np.where(seen[..., None], np.concatenate([points_px, score[..., None]], -1), 0.0)

    def _ghosts(self, n_frames: int) -> _Ghosts:
        """Detections of posters, reflections, coats: anywhere in the image, in the shape of a person."""
        random = self._random
        of_frame = np.repeat(np.arange(n_frames), random.poisson(self.scenario.ghosts_per_frame, n_frames))
        n = len(of_frame)
        width, height = self.lens.camera.size
        size_px = random.uniform(0.15, 0.6, n) * height
        corner = random.uniform(0.0, 1.0, (n, 2)) * np.array([width, height])
        shape = self._template[None] * (1 + 0.1 * random.standard_normal((n, len(self._template), 2)))
        points_px = corner[:, None] + size_px[:, None, None] * shape
        inside = _within(points_px, 0.0, width - 1, height - 1)
        seen = inside & (random.random((n, len(self._template))) < 0.6)
        score = random.uniform(0.1, 0.6, (n, len(self._template)))
        keypoints = self._keypoints(points_px, seen, score)
        enough = (keypoints[..., 2] > 0).sum(axis=1) >= 2
        return _Ghosts(keypoints[enough], of_frame[enough])


class _SlowError:
    """A detector's slowly changing error of unit variance: a wave for each person, joint and axis."""

    def __init__(self, camera: str, shape: tuple[int, int], scenario: Scenario) -> None:
        self._camera, self._shape, self._scenario = camera, shape, scenario
        self._rate: dict[int, NDArray[np.float64]] = {}
        self._phase: dict[int, NDArray[np.float64]] = {}

    def at(
        self,
        times_s: NDArray[np.float64],
        numbers: NDArray[np.int64],
        frame: NDArray[np.int64],
        person: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """(n_rows, n_joints, 2) error of each row's person at the time of its frame."""
        for number in numbers.tolist():
            if number not in self._rate:
                random = self._scenario.random("detector", f"{self._camera}/{number}")
                self._rate[number] = random.uniform(0.8, 4.0, self._shape)
                self._phase[number] = random.uniform(0.0, 2 * math.pi, self._shape)
        if not len(frame):
            return np.zeros((0, *self._shape))
        rate = np.stack([self._rate[number] for number in numbers.tolist()])
        phase = np.stack([self._phase[number] for number in numbers.tolist()])
        error: NDArray[np.float64] = math.sqrt(2.0) * np.sin(rate[person] * times_s[frame, None, None] + phase[person])
        return error


class _Looks:
    """Appearance vectors of unit length: a person's look, the camera's own shift of it, and noise."""

    def __init__(self, dim: int, setting: np.random.Generator, random: np.random.Generator, scenario: Scenario) -> None:
        self.dim = dim
        self._shift = setting.standard_normal(dim) * 0.4
        self._random, self._scenario = random, scenario
        self._look: dict[int, NDArray[np.float64]] = {}

    def of(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, dim) of people by their numbers."""
        if not self.dim or not len(numbers):
            return np.zeros((0, self.dim), np.float32)
        for number in set(numbers.tolist()) - self._look.keys():
            self._look[number] = self._scenario.random("appearance", str(number)).standard_normal(self.dim)
        base = np.stack([self._look[number] for number in numbers.tolist()])
        return _unit(base + self._shift + 0.5 * self._random.standard_normal((len(numbers), self.dim)))

    def of_strangers(self, n: int) -> NDArray[np.float32]:
        """(n, dim) of things that are not people."""
        vectors = self._random.standard_normal((n, self.dim))
        return _unit(vectors) if n else vectors.astype(np.float32)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _boxes(
    points_px: NDArray[np.float64], seen: NDArray[np.bool_], score: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.float64]:
    """(n, 2, 3) middles of the upper and the lower edge of the box about what is seen of each person."""
    width, height = size
    some = seen.sum(axis=1) >= 4
    with np.errstate(invalid="ignore"):
        x = np.where(seen, np.clip(points_px[..., 0], 0, width - 1), np.nan)
        y = np.where(seen, np.clip(points_px[..., 1], 0, height - 1), np.nan)
    x[~some] = y[~some] = 0.0
    middle = 0.5 * (np.nanmin(x, axis=1) + np.nanmax(x, axis=1)) if len(x) else np.zeros(0)
    top, bottom = (np.nanmin(y, axis=1), np.nanmax(y, axis=1)) if len(y) else (np.zeros(0), np.zeros(0))
    sure = np.where(some, np.where(seen, score, 0.0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1), 0.0)
    return np.stack([np.stack([middle, top, sure], -1), np.stack([middle, bottom, sure], -1)], 1)


def _within(points_px: NDArray[np.float64], low: float, right: float, bottom: float) -> NDArray[np.bool_]:
    x, y = points_px[..., 0], points_px[..., 1]
    return np.asarray((x >= low) & (y >= low) & (x <= right) & (y <= bottom))


def _standing() -> NDArray[np.float64]:
    """(joints, 2) a standing person's outline in an image, a unit high."""
    state = np.zeros((1, len(CHANNEL)))
    points = body.joints_m(state, np.ones(1))[0]
    return np.stack([points[:, 1], 1.0 - points[:, 2]], -1)
