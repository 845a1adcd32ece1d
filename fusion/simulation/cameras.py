"""What detectors would report: joints seen through distorted lenses, with noise, misses, occlusion and ghosts.

The projection is written out here and not taken from the engine, so that a mistake in one does not cancel in the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fusion.observations import Frame
from fusion.simulation import body
from fusion.simulation.body import CHANNEL, JOINT, JOINTS
from fusion.simulation.scenario import Scenario
from fusion.store.models import Camera, Store
from fusion.store.rotations import rotation_matrix

# Spread of a detector's keypoint about the joint, metres at the person, and the floor in pixels; half of the variance
# changes slowly (a detector errs alike in pictures that follow one another), half is new in every frame.
JOINT_SD_M = 0.012
JOINT_SD_PX = 0.6
# Wrists and elbows blur, hips hide under clothes.
_LOOSE = {"l_wrist": 1.4, "r_wrist": 1.4, "l_elbow": 1.2, "r_elbow": 1.2, "l_hip": 1.5, "r_hip": 1.5, "mid_hip": 1.5}
# How often a detector misses such a joint in plain view, over the others.
_ELUSIVE = {"l_wrist": 4.0, "r_wrist": 4.0, "l_elbow": 2.0, "r_elbow": 2.0}
# What a detector does with a joint that is hidden: it leaves it out, or guesses.
_GUESS_PROBABILITY = 0.4
_FACE_GUESS_PROBABILITY = 0.6  # even of a head from behind
_FACE = ("nose", "l_eye", "r_eye", "l_ear", "r_ear")


@dataclass(frozen=True)
class Lens:
    """One camera's geometry as arrays."""

    camera: Camera
    rotation: np.ndarray
    translation: np.ndarray
    centre_m: np.ndarray
    radius_sq_max: float  # beyond this the distortion polynomial folds back and means nothing

    @classmethod
    def of(cls, camera: Camera) -> Lens:
        rotation = rotation_matrix(np.array(camera.rotation))
        translation = np.array(camera.translation)
        k1, k2, _, _, k3 = camera.distortions
        r = np.linspace(0.0, 4.0, 4001)
        bent = r * (1 + k1 * r**2 + k2 * r**4 + k3 * r**6)
        folds = np.flatnonzero(np.diff(bent) <= 0)
        limit = r[folds[0]] if len(folds) else r[-1]
        return cls(camera, rotation, translation, -rotation.T @ translation, float(limit) ** 2)

    def project(self, points_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(..., 3) world -> (..., 2) raw pixels, NaN where there is no image, and (...) depth in metres."""
        x, y, z = np.moveaxis(points_m @ self.rotation.T + self.translation, -1, 0)
        front = z > 0.1
        safe = np.where(front, z, 1.0)
        u, v = x / safe, y / safe
        r2 = u * u + v * v
        k1, k2, p1, p2, k3 = self.camera.distortions
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        (fx, _, cx), (_, fy, cy), _ = self.camera.matrix
        px = fx * (u * radial + 2 * p1 * u * v + p2 * (r2 + 2 * u * u)) + cx
        py = fy * (v * radial + p1 * (r2 + 2 * v * v) + 2 * p2 * u * v) + cy
        points_px = np.stack([px, py], -1)
        points_px[~front | (r2 > self.radius_sq_max)] = np.nan
        return points_px, z


class Obstacles:
    """Boxes that hide what is behind them; a shelf is open towards those who reach into it."""

    def __init__(self, store: Store) -> None:
        boxes = np.array(store.obstacle.boxes).reshape(-1, 5)
        self.low = np.column_stack([boxes[:, :2], np.zeros(len(boxes))])
        self.high = boxes[:, [2, 3, 4]]
        # Sides -x, +x, -y, +y, bottom, top; open where a plate in the box is reached from that side.
        self.open = np.zeros((len(boxes), 6), bool)
        for plate in store.plates:
            front = np.array([math.sin(plate.yaw), -math.cos(plate.yaw)])
            axis = int(np.argmax(np.abs(front)))
            side = 2 * axis + int(front[axis] > 0)
            at = np.array([plate.x, plate.y])
            inside = ((at > self.low[:, :2] - 0.02) & (at < self.high[:, :2] + 0.02)).all(axis=1)
            self.open[inside, side] = True

    def hide(self, centre_m: np.ndarray, points_m: np.ndarray) -> np.ndarray:
        """(...) whether a box stands between the camera's centre and each of the points (..., 3)."""
        hidden = np.zeros(points_m[..., 0].size, bool)
        # One row per axis: a reduction over the three numbers of a point would cost more than all the rest.
        way = np.ascontiguousarray((points_m.reshape(-1, 3) - centre_m).T)
        with np.errstate(divide="ignore"):
            inverse = 1.0 / way
        for low, high, is_open in zip(self.low, self.high, self.open):
            a, b = (low - centre_m)[:, None] * inverse, (high - centre_m)[:, None] * inverse
            entry, leave = np.minimum(a, b), np.maximum(a, b)
            first = np.maximum(np.maximum(entry[0], entry[1]), entry[2])
            last = np.minimum(np.minimum(leave[0], leave[1]), leave[2])
            met = np.flatnonzero((first < last) & (first < 0.999) & (last > 0.0))
            if not len(met):
                continue
            inside = last[met] > 0.999
            axis = np.argmax(entry[:, met], axis=0)
            through_front = is_open[2 * axis + (way[axis, met] < 0)]
            hidden[met] |= ~(inside & through_front)
        return hidden.reshape(points_m.shape[:-1])


class Detector:
    """One camera with its detector: turns the states of people at its exposures into frames."""

    def __init__(self, store: Store, camera: Camera, scenario: Scenario, obstacles: Obstacles, out: bool) -> None:
        self.lens = Lens.of(camera)
        self.scenario = scenario
        self.layout = store.layout
        self.boxes_only = store.keypoints == "box2"
        self.appearance_dim = store.appearance_dim
        self._obstacles = obstacles
        self._random = scenario.random("camera", camera.name)
        setting = scenario.random("camera setting", camera.name)
        self.period_s = 1.0 / scenario.frame_rate_hz
        self.phase_s = float(setting.uniform(0.0, self.period_s))
        self.clock_offset_s = float(setting.uniform(-1.0, 1.0)) * scenario.clock_offset_max_s
        edge_s = 0.5 * (1.0 - scenario.outage_share) * scenario.duration_s
        self.outage_s = (edge_s, scenario.duration_s - edge_s) if out else (math.inf, math.inf)
        self._view_shift = setting.standard_normal(self.appearance_dim) * 0.4
        # Of a camera that was knocked, or hangs by a screw: its own stream, so that it moves nothing else.
        knock = scenario.random("calibration", camera.name).standard_normal(2)
        self._shift_px = scenario.calibration_error_px * knock
        self._looks: dict[int, np.ndarray] = {}
        self._waves: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._used = np.arange(len(JOINTS)) if self.boxes_only else body.layout_joints(store.layout)
        names = [JOINTS[j] for j in self._used]
        self._loose = np.array([_LOOSE.get(name, 1.0) for name in names])
        self._elusive = np.array([_ELUSIVE.get(name, 1.0) for name in names])
        self._guess = np.array([_FACE_GUESS_PROBABILITY if name in _FACE else _GUESS_PROBABILITY for name in names])
        self._template = _standing()[self._used]
        self._pairs = [(names.index(f"l_{j}"), names.index(f"r_{j}")) for j in ("elbow", "wrist") if f"l_{j}" in names]

    def exposures(self, start_s: float, end_s: float) -> tuple[np.ndarray, np.ndarray]:
        """True mid-exposures in [start, end) that deliver a frame, and the times that the camera gives them."""
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
        self, times_s: np.ndarray, stamps_ns: np.ndarray, numbers: np.ndarray, joints: np.ndarray, present: np.ndarray
    ) -> list[Frame]:
        """Detections in each frame.

        Args:
            times_s, stamps_ns: (n_frames,) true times and the camera's own.
            numbers: (n_people,) who is meant; used for what stays alike over time, never reported.
            joints: (n_frames, n_people, all JOINTS, 3) world metres; present (n_frames, n_people).
        """
        random, s = self._random, self.scenario
        n_frames = len(present)
        used = joints[:, :, self._used] if not self.boxes_only else joints
        points_px, depth_m = self.lens.project(used)
        points_px = points_px + self._shift_px
        width, height = self.lens.camera.size
        with np.errstate(invalid="ignore"):
            in_image = _within(points_px, -0.5, width - 0.5, height - 0.5)
        in_image &= present[..., None]
        # Only people of whom something is in the picture need the costly part.
        frame, person = np.nonzero(in_image.sum(axis=-1) >= (2 if self.boxes_only else 3))
        rows = len(frame)
        n_joints = len(self._used)
        if rows:
            points_px, depth_m = points_px[frame, person], depth_m[frame, person]
            in_image, at = in_image[frame, person], used[frame, person]
            hidden = self._hidden(joints, present, frame, person, at)
        else:
            points_px, depth_m = np.zeros((0, n_joints, 2)), np.ones((0, n_joints))
            in_image = hidden = np.zeros((0, n_joints), bool)
        focal_px = 0.5 * (self.lens.camera.matrix[0][0] + self.lens.camera.matrix[1][1])
        sd_px = np.hypot(JOINT_SD_PX, JOINT_SD_M * focal_px / np.maximum(depth_m, 0.3)) * self._loose * s.keypoint_noise
        noise = random.standard_normal((rows, n_joints, 2))
        points_px = points_px + (0.7 * sd_px)[..., None] * (noise + self._slow(times_s, numbers, frame, person))
        guessed = hidden & (random.random((rows, n_joints)) < self._guess)
        points_px = points_px + (guessed * 3.0 * sd_px)[..., None] * random.standard_normal((rows, n_joints, 2))
        wild = random.random((rows, n_joints)) < s.outlier_probability
        jump_px = (focal_px * 0.25 / np.maximum(depth_m, 0.3))[..., None] * random.standard_normal((rows, n_joints, 2))
        points_px = points_px + wild[..., None] * jump_px
        swapped = random.random(rows) < s.swap_probability
        for left, right in self._pairs:
            points_px[swapped, left], points_px[swapped, right] = points_px[swapped, right], points_px[swapped, left]
        score = np.clip(0.88 + 0.06 * random.standard_normal((rows, n_joints)), 0.3, 1.0)
        poor = np.clip(random.uniform(0.1, 0.5, (rows, n_joints)), 0.0, 1.0)
        score = np.where(guessed | wild, poor, score)
        missed = random.random((rows, n_joints)) < np.minimum(s.joint_miss_probability * self._elusive, 0.9)
        seen = in_image & ~missed & (~hidden | guessed)
        share = (in_image & (~hidden | guessed)).mean(axis=1)
        # The less there is to see of somebody, the likelier the detector passes over them altogether.
        lost = random.random(rows) < s.person_miss_probability + np.clip(0.35 - share, 0.0, 0.35)
        if self.boxes_only:
            keypoints = self._boxes(points_px, seen, score, width, height)
        else:
            seen &= _within(points_px, 0.0, width - 1, height - 1)
            keypoints = np.where(seen[..., None], np.concatenate([points_px, score[..., None]], -1), 0.0)
        enough = (keypoints[..., 2] > 0).sum(axis=1) >= (2 if self.boxes_only else 4)
        kept = enough & ~lost
        looks = self._appearance(numbers[person[kept]])
        ghosts, of_frame = self._ghosts(n_frames)
        keypoints = np.concatenate([keypoints[kept], ghosts]).astype(np.float32)
        frame = np.concatenate([frame[kept], of_frame])
        looks = np.concatenate([looks, self._normal(len(ghosts))]) if self.appearance_dim else looks
        # Detections come in any order: nothing tells who is who.
        order = np.lexsort((random.random(len(frame)), frame))
        keypoints = keypoints[order]
        cuts = np.searchsorted(frame[order], np.arange(n_frames + 1)).tolist()
        name = self.lens.camera.name
        if not self.appearance_dim:
            return [Frame(t, name, keypoints[a:b]) for t, a, b in zip(stamps_ns.tolist(), cuts, cuts[1:])]
        looks = looks[order]
        return [Frame(t, name, keypoints[a:b], looks[a:b]) for t, a, b in zip(stamps_ns.tolist(), cuts, cuts[1:])]

    def _slow(self, times_s: np.ndarray, numbers: np.ndarray, frame: np.ndarray, person: np.ndarray) -> np.ndarray:
        """(n_rows, n_joints, 2) slowly changing error of unit variance: one wave for each person, joint and axis."""
        shape = (len(self._used), 2)
        for number in numbers.tolist():
            if number not in self._waves:
                random = self.scenario.random("detector", f"{self.lens.camera.name}/{number}")
                self._waves[number] = random.uniform(0.8, 4.0, shape), random.uniform(0.0, 2 * math.pi, shape)
        if not len(frame):
            return np.zeros((0, *shape))
        rate = np.stack([self._waves[number][0] for number in numbers.tolist()])
        phase = np.stack([self._waves[number][1] for number in numbers.tolist()])
        return math.sqrt(2.0) * np.sin(rate[person] * times_s[frame, None, None] + phase[person])

    def _hidden(
        self, joints: np.ndarray, present: np.ndarray, frame: np.ndarray, person: np.ndarray, points_m: np.ndarray
    ) -> np.ndarray:
        """(n_rows, n_joints) whether a shelf, another person or the own body is in the way."""
        centre = self.lens.centre_m
        hidden = self._obstacles.hide(centre, points_m)
        # Everybody is an upright body about the axis from hips to neck: legs, trunk, head.
        axis = 0.5 * (joints[:, :, JOINT["mid_hip"], :2] + joints[:, :, JOINT["neck"], :2]) - centre[:2]
        top = np.where(present, joints[:, :, JOINT["head_top"], 2], 0.0)[frame]
        shoulder = joints[:, :, JOINT["neck"], 2][frame]
        hip = joints[:, :, JOINT["mid_hip"], 2][frame]
        axis = axis[frame]
        way = points_m[..., :2] - centre[:2]
        way_x, way_y, rise = way[..., 0], way[..., 1], points_m[..., 2] - centre[2]
        length_sq = np.maximum(way_x * way_x + way_y * way_y, 1e-6)
        length = np.sqrt(length_sq)
        rows = np.arange(len(frame))
        for other in range(present.shape[1]):
            o = axis[:, other]
            along = (way_x * o[:, None, 0] + way_y * o[:, None, 1]) / length_sq
            off = np.abs(way_x * o[:, None, 1] - way_y * o[:, None, 0]) / length
            z = centre[2] + along * rise
            own = (person == other)[:, None]
            head, legs = z > shoulder[:, other, None] + 0.02, z <= hip[:, other, None]
            radius = np.where(legs, 0.12, np.where(head, 0.09, 0.17))
            # One's own trunk hides a hand behind it, not the joints that sit on it.
            radius = np.where(own, np.where(head, 0.0, 0.6 * radius), radius)
            margin = np.where(own, 0.13, 0.25) / length
            before = (along > 0.0) & (along < 1.0 - margin)
            hidden |= before & (off < radius) & (z < top[:, other, None]) & (z > 0.0)
        if not self.boxes_only:
            names = {int(j): i for i, j in enumerate(self._used)}
            nose, l_ear, r_ear = JOINT["nose"], JOINT["l_ear"], JOINT["r_ear"]
            middle = 0.5 * (joints[:, :, l_ear] + joints[:, :, r_ear])[frame, person]
            face = joints[frame, person, nose] - middle
            view = centre - middle
            scale = np.linalg.norm(view, axis=-1)
            frontal = (face * view).sum(-1) / np.maximum(np.linalg.norm(face, axis=-1) * scale, 1e-9)
            side = joints[frame, person, l_ear] - middle
            leftward = (side * view).sum(-1) / np.maximum(np.linalg.norm(side, axis=-1) * scale, 1e-9)
            for joint in ("nose", "l_eye", "r_eye"):
                hidden[rows, names[JOINT[joint]]] |= frontal < -0.3
            hidden[rows, names[l_ear]] |= leftward < -0.4
            hidden[rows, names[r_ear]] |= leftward > 0.4
        return hidden

    def _boxes(self, points_px: np.ndarray, seen: np.ndarray, score: np.ndarray, width: int, height: int) -> np.ndarray:
        """(n, 2, 3) middle of the upper and of the lower edge of the box about what is seen of each person."""
        some = seen.sum(axis=1) >= 4
        with np.errstate(invalid="ignore"):
            x = np.where(seen, np.clip(points_px[..., 0], 0, width - 1), np.nan)
            y = np.where(seen, np.clip(points_px[..., 1], 0, height - 1), np.nan)
        x[~some] = y[~some] = 0.0
        middle = 0.5 * (np.nanmin(x, axis=1) + np.nanmax(x, axis=1)) if len(x) else np.zeros(0)
        top, bottom = (np.nanmin(y, axis=1), np.nanmax(y, axis=1)) if len(y) else (np.zeros(0), np.zeros(0))
        sure = np.where(some, np.where(seen, score, 0.0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1), 0.0)
        return np.stack([np.stack([middle, top, sure], -1), np.stack([middle, bottom, sure], -1)], 1)

    def _normal(self, n: int) -> np.ndarray:
        vectors = self._random.standard_normal((n, self.appearance_dim))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32) if n else vectors

    def _appearance(self, numbers: np.ndarray) -> np.ndarray:
        """(n, dim) unit vectors: somebody's look, what this camera makes of it, and noise."""
        dim = self.appearance_dim
        if not dim or not len(numbers):
            return np.zeros((0, dim), np.float32)
        for number in set(numbers.tolist()) - self._looks.keys():
            self._looks[number] = self.scenario.random("appearance", str(number)).standard_normal(dim)
        base = np.stack([self._looks[number] for number in numbers.tolist()])
        vectors = base + self._view_shift + 0.5 * self._random.standard_normal((len(numbers), dim))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def _ghosts(self, n_frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Detections of nobody: posters, reflections, a coat. Somewhere in the picture, of a person's shape."""
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
        if self.boxes_only:
            keypoints = self._boxes(points_px, seen, score, width, height)
        else:
            keypoints = np.where(seen[..., None], np.concatenate([points_px, score[..., None]], -1), 0.0)
        enough = (keypoints[..., 2] > 0).sum(axis=1) >= 2
        return keypoints[enough], of_frame[enough]


def _within(points_px: np.ndarray, low: float, right: float, bottom: float) -> np.ndarray:
    x, y = points_px[..., 0], points_px[..., 1]
    return (x >= low) & (y >= low) & (x <= right) & (y <= bottom)


def _standing() -> np.ndarray:
    """(joints, 2) a standing person's outline in a picture, a unit high."""
    state = np.zeros((1, len(CHANNEL)))
    points = body.joints_m(state, np.ones(1))[0]
    return np.stack([points[:, 1], 1.0 - points[:, 2]], -1)
