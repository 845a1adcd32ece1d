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
from fusion.simulation.false_people import FalsePeople
from fusion.simulation.optics import Bodies, Lens, Obstacles
from fusion.simulation.scenario import Scenario
from fusion.simulation.spells import Spells
from fusion.store.models import Camera, Store

# Standard deviation of a detector's keypoint about the joint: metres at the person, and a floor in pixels. Half of the
# variance changes slowly (a detector's errors are correlated in successive images), half is new in every frame.
JOINT_SD_M = 0.012
JOINT_SD_PX = 0.6
# Wrists and elbows blur, hips hide under clothes.
_LOOSE = {"l_wrist": 1.4, "r_wrist": 1.4, "l_elbow": 1.2, "r_elbow": 1.2, "l_hip": 1.5, "r_hip": 1.5, "mid_hip": 1.5}
# How much more often than other joints a detector misses such a joint in plain view.
_ELUSIVE = {"l_wrist": 4.0, "r_wrist": 4.0, "l_elbow": 2.0, "r_elbow": 2.0}
# A detector guesses a hidden joint of the face at least with this probability, even of a head from behind.
_FACE_GUESS_PROBABILITY = 0.6
_FACE = ("nose", "l_eye", "r_eye", "l_ear", "r_ear")
# A detector that takes a person's left for their right does so for about this long.
_MIRROR_SPELL_S = 0.5
# The distance at which a camera misses people as often as `person_miss_probability` says, and how often at most.
_MISS_DISTANCE_M = 4.0
_MISS_MAX = 0.95
# Noise differs between cameras by this share of the spread of their misses.
_NOISE_SPREAD = 0.25
# How much lower the scores of wrists, and of guesses and outliers, are: logits. Measured on three detectors.
_WRIST_LOGITS = 1.0
_WRONG_LOGITS = 1.0
# A thing that is taken for a person is so in most images, with poor scores.
_FALSE_PERSON_FOUND = 0.9


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
        guess = scenario.guess_probability
        self._guess = np.array([max(_FACE_GUESS_PROBABILITY, guess) if name in _FACE else guess for name in names])
        self._habits = _Habits(store, camera.name, names, scenario)
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
        lasting = self._habits.at(times_s, numbers, view)
        keypoints, kept = self._report(view, measured, lasting)
        if not self.boxes_only:
            keypoints[lasting.mirrored] = keypoints[lasting.mirrored][:, self._habits.opposite]
        looks = self._looks.of(numbers[view.person[kept]])
        ghosts = self._ghosts(len(present))
        looks = np.concatenate([looks, self._looks.of_strangers(len(ghosts.frame), random)])
        key = random.random(len(looks))
        # What stands still has its own random stream, so that it changes no other draw.
        still = self._false_people(times_s)
        own = self._habits.random
        reported = np.concatenate([keypoints[kept], ghosts.keypoints, still.keypoints]).astype(np.float32)
        frame = np.concatenate([view.frame[kept], ghosts.frame, still.frame])
        looks = np.concatenate([looks, self._looks.of_strangers(len(still.frame), own)])
        # Detections come in any order: their order does not reveal people's identities.
        order = np.lexsort((np.concatenate([key, own.random(len(still.frame))]), frame))
        reported, looks = reported[order], looks[order]
        cuts = np.searchsorted(frame[order], np.arange(len(present) + 1)).tolist()
        name = self.lens.camera.name
        if not self._looks.dim:
            return [Frame(t, name, reported[a:b]) for t, a, b in zip(stamps_ns.tolist(), cuts, cuts[1:])]
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
        sd_px *= self._habits.noise
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

    def _report(
        self, view: _InView, measured: _Measured, lasting: _Lasting
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """(n_rows, K, 3) keypoints with scores, and (n_rows,) whether the detector finds the person at all."""
        random, s = self._random, self.scenario
        shape = view.depth_m.shape
        ordinary = random.standard_normal(shape)
        score = np.clip(0.88 + 0.06 * ordinary, 0.3, 1.0)
        poor = np.clip(random.uniform(0.1, 0.5, shape), 0.0, 1.0)
        wrong = measured.guessed | measured.wild
        score = np.where(wrong, poor, score)
        if s.score_spread:
            logits = math.log(s.score_median / (1.0 - s.score_median)) + s.score_spread * ordinary
            score = 1.0 / (1.0 + np.exp(_WRONG_LOGITS * wrong + self._habits.wrist_logits - logits))
        missed = random.random(shape) < np.minimum(s.joint_miss_probability * self._elusive, 0.9)
        seen = view.in_image & ~missed & (~view.hidden | measured.guessed)
        share = (view.in_image & (~view.hidden | measured.guessed)).mean(axis=1)
        # The less of a person is visible, the likelier the detector misses them altogether.
        overlooked = random.random(len(share))
        if s.miss_spell_s:
            lost = (overlooked < np.clip(0.35 - share, 0.0, 0.35)) | (lasting.miss < lasting.miss_probability)
        else:
            lost = overlooked < lasting.miss_probability + np.clip(0.35 - share, 0.0, 0.35)
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

    def _false_people(self, times_s: NDArray[np.float64]) -> _Ghosts:
        """Detections of things that stand still."""
        habits, random = self._habits, self._habits.random
        things = habits.false_people
        used = things.joints_m() if self.boxes_only else things.joints_m()[:, self._used]
        points_px, depth_m = self.lens.project(used)
        frame, thing = np.nonzero(things.on(times_s))
        found = random.random(len(frame)) < _FALSE_PERSON_FOUND
        frame, thing = frame[found], thing[found]
        shape = (len(frame), points_px.shape[1])
        focal_px = 0.5 * (self.lens.camera.matrix[0][0] + self.lens.camera.matrix[1][1])
        sd_px = JOINT_SD_M * self.scenario.keypoint_noise * focal_px / np.maximum(depth_m[thing], 0.3)
        measured = points_px[thing] + sd_px[..., None] * random.standard_normal((*shape, 2))
        width, height = self.lens.camera.size
        with np.errstate(invalid="ignore"):
            seen = _within(measured, 0.0, width - 1, height - 1) & (random.random(shape) < 0.8)
        keypoints = self._keypoints(np.nan_to_num(measured), seen, random.uniform(0.2, 0.6, shape))
        enough = (keypoints[..., 2] > 0).sum(axis=1) >= (2 if self.boxes_only else 4)
        return _Ghosts(keypoints[enough], frame[enough])


class _Lasting(NamedTuple):
    """Mistakes that last, for each row: (n_rows,) all.

    `miss` is a uniform number of the stretch that the row lies in, `miss_probability` that of missing the person there.
    """

    miss: NDArray[np.float64]
    miss_probability: NDArray[np.float64]
    mirrored: NDArray[np.bool_]


class _Habits:
    """What sets one camera's detector apart from others: how often and how long it errs, and what fools it.

    Attributes:
        noise: (n_joints,) factor on the noise. wrist_logits: (n_joints,) by which scores are lower.
        opposite: (n_joints,) index of the same joint on the other side.
        random: for what stands still; its own stream.
    """

    def __init__(self, store: Store, camera: str, names: list[str], scenario: Scenario) -> None:
        own = scenario.random("detector habits", camera).standard_normal(2)
        spread = scenario.camera_spread
        # The mean over cameras stays as asked for: that of a log-normal is exp(sd^2 / 2) above its median.
        self._miss = scenario.person_miss_probability * math.exp(spread * own[0] - 0.5 * spread**2)
        wrist = np.array([name in ("l_wrist", "r_wrist") for name in names])
        self.noise = np.where(wrist, scenario.wrist_noise, 1.0) * math.exp(_NOISE_SPREAD * spread * own[1])
        self.wrist_logits = _WRIST_LOGITS * wrist
        swapped = [{"l": "r", "r": "l"}.get(name[0], "") + name[1:] if name[1:2] == "_" else name for name in names]
        self.opposite = np.array([names.index(name) for name in swapped])
        self.random = scenario.random("false people", camera)
        self.false_people = FalsePeople(store, camera, scenario)
        self._scenario = scenario
        self._misses = Spells(scenario, "misses", camera, max(scenario.miss_spell_s, 1e-3))
        self._mirrors = Spells(scenario, "mirrors", camera, _MIRROR_SPELL_S)

    def at(self, times_s: NDArray[np.float64], numbers: NDArray[np.int64], view: _InView) -> _Lasting:
        """The mistakes in each row of a view."""
        s, n_rows = self._scenario, len(view.frame)
        probability = np.full(n_rows, self._miss)
        if s.miss_by_distance:
            with np.errstate(invalid="ignore"):
                depth_m = np.maximum(np.median(view.depth_m, axis=1) if n_rows else np.zeros(0), 0.3)
            probability *= (depth_m / _MISS_DISTANCE_M) ** s.miss_by_distance
        if s.miss_by_distance or s.camera_spread:
            probability = np.minimum(probability, _MISS_MAX)
        miss = np.ones(n_rows)
        if s.miss_spell_s:
            miss = self._misses.at(times_s, numbers, view.frame, view.person)
        mirrored = np.zeros(n_rows, bool)
        if s.mirror_probability:
            mirrored = self._mirrors.at(times_s, numbers, view.frame, view.person) < s.mirror_probability
        return _Lasting(miss, probability, mirrored)


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
            return np.zeros((len(numbers), self.dim), np.float32)
        for number in set(numbers.tolist()) - self._look.keys():
            self._look[number] = self._scenario.random("appearance", str(number)).standard_normal(self.dim)
        base = np.stack([self._look[number] for number in numbers.tolist()])
        return _unit(base + self._shift + 0.5 * self._random.standard_normal((len(numbers), self.dim)))

    def of_strangers(self, n: int, random: np.random.Generator) -> NDArray[np.float32]:
        """(n, dim) of things that are not people."""
        vectors = random.standard_normal((n, self.dim))
        return _unit(vectors) if vectors.size else vectors.astype(np.float32)


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
