"""Where a camera is, from the people that it shows and that other cameras place: search, refinement, verdict.

A camera that was nudged shows people beside where its calibration has them. Which of its detections is which person is
not known, so the search is a vote over hypotheses: a nudge turns a camera about its mount, so each pair of a person and
a detection gives a rotation about the known centre (Wahba's problem, by singular values). The rotation that explains
most people at most instants is refined together with the centre by iteratively reweighted least squares. The lens is
known and stays.

A verdict is strict, since a wrong pose does more harm than a camera that is left out: see `Refusal`.

Source: Wahba (1965), Markley (1988) for rotations from directions; Fischler and Bolles (1981) for hypotheses from least
sets; White (1980), by clusters, for the deviation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import poses as kernels
from fusion.store.rotations import rotation_matrix

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# A nudge turns a camera by less than this from where its calibration has it, radians, and shifts it by less, metres.
# What is further away hangs somewhere else, and a person looks at it.
TURN_MAX, SHIFT_MAX_M = math.radians(30.0), 0.35
# Standard deviation of the centre's shift before any data, metres: mounts turn, they do not travel.
_SHIFT_SD_M = 0.15
# Standard deviation of what was learnt of the camera's clock while it was thought to be in its place, seconds.
_LATE_SD_S = 0.06
# Hypotheses that are put to the vote; a pair of one person that fits worse than this, metres at the body, gives none.
_HYPOTHESES_MAX, _ALIKE_M = 60, 0.3
# Pairs that vote, at most.
_VOTERS_MAX = 500
# A person votes for a hypothesis that places them within this; the gate narrows from there while the pose is refined.
_VOTE_M = 0.4
_GATES_M = (0.5, 0.35, 0.25, 0.2, 0.2)
_STEPS_PER_GATE, _FOCAL_STEPS = 3, 6
# Largest step of an unknown at once: radians, metres, seconds.
_STEP_MAX = 0.3
# Least standard deviation of a joint at the body, metres; residuals of this many deviations lose half of their weight.
_JOINT_SD_MIN_M, _HALF_WEIGHT_AT = 0.01, 2.0
# Joints of a person that have to be known and shown; of a box, both ends.
_JOINTS_MIN = 6
# Ample evidence: people placed, one-metre cells of the floor in which they stood, seconds over which they were seen,
# and the share of the picture's width or height over which their middles spread (root mean square).
PEOPLE_MIN, CELLS_MIN, SPAN_MIN_S, SPREAD_MIN = 80, 6, 60.0, 0.08
# Share of the camera's people that are where others have them, and of the others' people in its picture that it shows.
_SHOWN_MIN, _FOUND_MIN = 0.6, 0.4
# The pose is known to these standard deviations, and both halves of the evidence agree on it within three of them.
_TURN_SD_MAX, _CENTRE_SD_MAX_M = math.radians(0.25), 0.05
# What is left, root mean square at the body: at most this many times what is usual among the store's cameras, or this,
# and at most this share of what it was.
_LEFT_OVER_USUAL, _LEFT_MIN_M, _LEFT_SHARE_MAX = 1.5, 0.03, 0.6
# Residuals beyond this are clipped in statistics, metres.
_CLIPPED_M = 1.0
# A camera that is less than this away from where it is thought to be is there: radians and metres.
_SAME_TURN, _SAME_SHIFT_M = math.radians(0.3), 0.03
# A lens whose focal length differs by more than this, and by this many deviations, was zoomed or exchanged.
_FOCAL_MAX, _FOCAL_SIGMAS = 0.02, 4.0
# Errors of pictures within this time are alike; the evidence is halved by turns of blocks of it.
_BLOCK_NS = 5_000_000_000


class Refusal(StrEnum):
    """Why a camera's pose is not corrected."""

    FEW = "too few people in its picture yet"
    FITS = "it is where its pose has it"
    NO_POSE = "no pose near its calibration explains what it shows: it may be covered, mirrored, or elsewhere"
    MIRRORED = "its picture is mirrored"
    OTHER_CAMERA = "it shows what another camera should show"
    ZOOMED = "its focal length has changed"
    FAR = "it hangs too far from where it was"
    UNCERTAIN = "its new pose is not certain enough"
    UNCONFIRMED = "its new pose did not hold for the people who came after"
    FEW_OTHERS = "fewer than two cameras would be left where a person placed them"


@dataclass(frozen=True)
class Pose:
    """Where a camera is.

    Attributes:
        rotation: (3, 3) camera from world.
        centre_m: (3,) world, metres.
        late_s: by how much later than its corrected clock has it the camera sees what it shows, seconds.
    """

    rotation: FloatArray
    centre_m: FloatArray
    late_s: float = 0.0

    @classmethod
    def of(cls, camera_from_world: FloatArray) -> Pose:
        """From extrinsics (3, 4)."""
        rotation = np.ascontiguousarray(camera_from_world[:, :3])
        return cls(rotation, -rotation.T @ camera_from_world[:, 3])

    @property
    def camera_from_world(self) -> FloatArray:
        """(3, 4) extrinsics."""
        return np.concatenate([self.rotation, -(self.rotation @ self.centre_m)[:, None]], axis=1)

    def turn_from(self, other: Pose) -> float:
        """Angle between two directions of a camera, radians."""
        cosine = 0.5 * (float(np.einsum("ij,ij->", self.rotation, other.rotation)) - 1.0)
        return math.acos(min(max(cosine, -1.0), 1.0))

    def shift_from_m(self, other: Pose) -> float:
        """Distance between two centres."""
        return float(np.linalg.norm(self.centre_m - other.centre_m))


class Pairs(NamedTuple):
    """Every person with every detection of the same instant, of one camera.

    Attributes:
        t_ns: (n,) instant.
        person, shown: (n,) index of the person, and of the detection; equal at no two instants.
        joints_m: (n, K, 3) joints as other cameras place them, world, metres; NaN where unknown.
        velocities_m_s: (n, 3) of the person.
        rays: (n, K, 2) the detection, normalised image coordinates; NaN where unseen.
    """

    t_ns: IntArray
    person: IntArray
    shown: IntArray
    joints_m: FloatArray
    velocities_m_s: FloatArray
    rays: FloatArray

    def of(self, chosen: NDArray[np.bool_] | IntArray) -> Pairs:
        """Some of them."""
        return Pairs(
            self.t_ns[chosen], self.person[chosen], self.shown[chosen], self.joints_m[chosen],
            self.velocities_m_s[chosen], self.rays[chosen],
        )  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What the evidence says of a camera's pose.

    Attributes:
        refusal: why the pose is not to be used; None where it is.
        pose: the best one; None where none was found.
        turn, shift_m: from the pose of the calibration, radians and metres.
        turn_sd, centre_sd_m: standard deviations, radians and metres.
        before_m, after_m: root mean square disagreement of bodies, metres, with the camera's present pose and with the
            new one, in the half of the evidence that the pose was not found from.
        n_people: people placed.
        other: the camera whose view this one shows.
    """

    refusal: Refusal | None
    pose: Pose | None = None
    turn: float = math.nan
    shift_m: float = math.nan
    turn_sd: float = math.nan
    centre_sd_m: float = math.nan
    before_m: float = math.nan
    after_m: float = math.nan
    n_people: int = 0
    other: str | None = None


@dataclass(frozen=True)
class Lens:
    """What of a camera stays when it is nudged: low and high (2,), ends of its picture in normalised coordinates."""

    low: FloatArray
    high: FloatArray


# ---- residuals -------------------------------------------------------------------------------------------------------


class _Offsets(NamedTuple):
    """Differences of pairs, metres at the body: mean over joints (n, 2); root mean square (n,), infinite if unknown."""

    body_m: FloatArray
    rms_m: FloatArray


def _offsets(pairs: Pairs, pose: Pose, focal: float = 1.0) -> _Offsets:
    n = len(pairs.t_ns)
    out = _Offsets(np.empty((n, 2)), np.empty(n))
    joints_min = min(_JOINTS_MIN, pairs.rays.shape[1])
    kernels.compare(
        pairs.joints_m, pairs.velocities_m_s, pairs.rays, pose.rotation, pose.centre_m, pose.late_s, focal, joints_min,
        *out,
    )  # fmt: skip
    return out


def _matched(pairs: Pairs, rms_m: FloatArray, gate_m: float) -> IntArray:
    """Pairs in which person and detection are each other's nearest, within a gate."""
    best_person = np.full(int(pairs.person.max(initial=-1)) + 1, np.inf)
    best_shown = np.full(int(pairs.shown.max(initial=-1)) + 1, np.inf)
    np.minimum.at(best_person, pairs.person, rms_m)
    np.minimum.at(best_shown, pairs.shown, rms_m)
    mutual = (rms_m <= best_person[pairs.person]) & (rms_m <= best_shown[pairs.shown]) & (rms_m < gate_m)
    return np.flatnonzero(mutual)


# ---- search ----------------------------------------------------------------------------------------------------------


def _rotations(pairs: Pairs, centre_m: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """(n, 3, 3) rotations about a centre that map each person onto the detection, and whether they do.

    Wahba's problem by Markley's singular value decomposition: the rotation nearest to sum_k b_k g_k^T over directions
    b_k in the camera and g_k in the world.
    """
    to_joint = pairs.joints_m - centre_m
    distance = np.linalg.norm(to_joint, axis=2, keepdims=True)
    world = to_joint / np.maximum(distance, 1e-9)
    camera = np.concatenate([pairs.rays, np.ones((*pairs.rays.shape[:2], 1))], axis=2)
    camera /= np.linalg.norm(camera, axis=2, keepdims=True)
    known = np.isfinite(world[..., 0]) & np.isfinite(camera[..., 0])
    world, camera = (np.where(known[..., None], array, 0.0) for array in (world, camera))
    u, _, vt = np.linalg.svd(np.einsum("nki,nkj->nij", camera, world))
    u[:, :, 2] *= np.sign(np.linalg.det(u) * np.linalg.det(vt))[:, None]
    rotations = u @ vt
    off = np.where(known[..., None], (camera - np.einsum("nij,nkj->nki", rotations, world)) * distance, 0.0)
    n = known.sum(axis=1)
    rms = np.sqrt((np.nan_to_num(off) ** 2).sum(axis=(1, 2)) / np.maximum(n, 1))
    return rotations, (n >= min(_JOINTS_MIN, known.shape[1])) & (rms < _ALIKE_M)


def _thinned(pairs: Pairs) -> Pairs:
    """About _VOTERS_MAX pairs at most, of whole instants."""
    return pairs.of(np.isin(pairs.t_ns, np.unique(pairs.t_ns)[:: -(-len(pairs.t_ns) // _VOTERS_MAX)]))


def _votes(pairs: Pairs, pose: Pose) -> float:
    rms_m = _offsets(pairs, pose).rms_m
    near = _matched(pairs, rms_m, _VOTE_M)
    return float((1.0 - (rms_m[near] / _VOTE_M) ** 2).sum())


def _elected(pairs: Pairs, start: Pose, given: Sequence[Pose], turn_max: float) -> Pose:
    """The hypothesis with most votes: a given pose, or one that a pair suggests within `turn_max` of the start."""
    rotations, fits = _rotations(pairs, start.centre_m)
    turn = np.arccos(np.clip(0.5 * (np.einsum("nij,ij->n", rotations, start.rotation) - 1.0), -1.0, 1.0))
    chosen = np.flatnonzero(fits & (turn <= turn_max))
    if len(chosen) > _HYPOTHESES_MAX:
        chosen = chosen[np.linspace(0, len(chosen) - 1, _HYPOTHESES_MAX).astype(np.int64)]
    hypotheses = [*given, *(Pose(rotations[index], start.centre_m) for index in chosen.tolist())]
    voters = _thinned(pairs)
    votes = [_votes(voters, hypothesis) for hypothesis in hypotheses]
    return hypotheses[int(np.argmax(votes))]


# ---- refinement ------------------------------------------------------------------------------------------------------


class _System(NamedTuple):
    """Weighted least squares about a pose, in standard deviations: normal (8, 8), right (8,), scores (n_pairs, 8)."""

    normal: FloatArray
    right: FloatArray
    scores: FloatArray


def _linearised(near: Pairs, pose: Pose, about: Pose, focal: float = 1.0) -> _System:
    """Normal equations of matched pairs; priors keep the centre near and the clock right."""
    n = len(near.t_ns)
    rms_m = _offsets(near, pose, focal).rms_m
    # Of the two coordinates of a joint; a person's root mean square is over both.
    sd = max(float(np.median(rms_m[np.isfinite(rms_m)])) / math.sqrt(2.0), _JOINT_SD_MIN_M) if n else _JOINT_SD_MIN_M
    normal, scores = np.empty((kernels.N_UNKNOWNS, kernels.N_UNKNOWNS)), np.empty((n, kernels.N_UNKNOWNS))
    kernels.linearise(
        near.joints_m, near.velocities_m_s, near.rays, pose.rotation, pose.centre_m, pose.late_s, focal,
        _HALF_WEIGHT_AT * sd, normal, scores,
    )  # fmt: skip
    prior = np.zeros(kernels.N_UNKNOWNS)
    prior[3:6], prior[kernels.LATE] = _SHIFT_SD_M**-2, _LATE_SD_S**-2
    normal, scores = normal / sd**2 + np.diag(prior), scores / sd**2
    right = scores.sum(axis=0)
    right[3:6] += (pose.centre_m - about.centre_m) * prior[3:6]
    right[kernels.LATE] += pose.late_s * prior[kernels.LATE]
    return _System(normal, right, scores)


def _stepped(pose: Pose, system: _System, n: int) -> tuple[Pose, float]:
    """The pose after a step in the first n unknowns, and the step of the focal length's logarithm."""
    step = np.zeros(kernels.N_UNKNOWNS)
    step[:n] = np.linalg.solve(system.normal[:n, :n] + 1e-9 * np.eye(n), -system.right[:n])
    step *= min(1.0, _STEP_MAX / max(float(np.abs(step).max()), 1e-12))
    turned = rotation_matrix(step[:3]) @ pose.rotation
    return Pose(turned, pose.centre_m + step[3:6], pose.late_s + float(step[kernels.LATE])), float(step[kernels.FOCAL])


def _refined(pairs: Pairs, pose: Pose, about: Pose) -> Pose:
    """The pose that fits the people who are matched to it, matched again while the gate narrows."""
    for gate_m in _GATES_M:
        near = pairs.of(_matched(pairs, _offsets(pairs, pose).rms_m, gate_m))
        if len(near.t_ns) < 3:
            return pose
        for _ in range(_STEPS_PER_GATE):
            pose, _ = _stepped(pose, _linearised(near, pose, about), kernels.FOCAL)
    return pose


def _blocks(t_ns: IntArray) -> IntArray:
    """Numbers of the blocks of time in which pairs lie."""
    return (t_ns - t_ns.min(initial=0)) // _BLOCK_NS if len(t_ns) else t_ns


def _deviations(near: Pairs, system: _System, n: int) -> FloatArray:
    """(n,) standard deviations of the first n unknowns, with the errors of a block of time taken as correlated."""
    inverse = np.linalg.inv(system.normal[:n, :n] + 1e-9 * np.eye(n))
    clusters = np.unique(_blocks(near.t_ns), return_inverse=True)[1]
    scores = np.zeros((int(clusters.max(initial=0)) + 1, n))
    np.add.at(scores, clusters, system.scores[:, :n])
    spread = np.einsum("ij,cj->ci", inverse, scores)
    scattered = (spread**2).sum(axis=0) * len(scores) / max(len(scores) - 1, 1)
    return np.asarray(np.sqrt(np.maximum(scattered, np.diag(inverse))))


def _focal(near: Pairs, pose: Pose, about: Pose) -> tuple[float, float]:
    """Logarithm of the focal length's factor with which a pose fits best, and its standard deviation."""
    log = 0.0
    for _ in range(_FOCAL_STEPS):
        pose, step = _stepped(pose, _linearised(near, pose, about, math.exp(log)), kernels.N_UNKNOWNS)
        log += step
    system = _linearised(near, pose, about, math.exp(log))
    return log, float(_deviations(near, system, kernels.N_UNKNOWNS)[kernels.FOCAL])


# ---- verdict ---------------------------------------------------------------------------------------------------------


def find_pose(
    pairs: Pairs, given: Pose, present: Pose, others: Mapping[str, Pose], lens: Lens, usual_m: float
) -> Verdict:
    """Find a camera's pose from people that other cameras place, and judge whether it may be used.

    Args:
        pairs: people and detections of some minutes.
        given: the pose of the camera's calibration.
        present: the pose with which it is compared now.
        others: poses of the store's other cameras, by name.
        lens: of the camera.
        usual_m: root mean square disagreement that is usual among the store's cameras, metres at the body.
    """
    if len(pairs.t_ns) < PEOPLE_MIN or int(pairs.t_ns.max() - pairs.t_ns.min()) < SPAN_MIN_S * 1e9:
        return Verdict(Refusal.FEW)
    elected = _elected(pairs, given, (given, present), TURN_MAX)
    pose = _refined(pairs, elected, given)
    verdict = _judged(pairs, pose, given, present, lens, usual_m)
    if verdict.refusal in (None, Refusal.FEW, Refusal.FITS, Refusal.ZOOMED):
        return verdict
    return _explained(pairs, verdict, given, others)


def _judged(pairs: Pairs, pose: Pose, given: Pose, present: Pose, lens: Lens, usual_m: float) -> Verdict:
    """The verdict on the best pose that was found."""
    near = pairs.of(_matched(pairs, _offsets(pairs, pose).rms_m, _GATES_M[-1]))
    n_people = len(near.t_ns)
    shown, found = _shares(pairs, near, pose, lens)
    if n_people < PEOPLE_MIN // 2 or shown < _SHOWN_MIN or found < _FOUND_MIN:
        return Verdict(Refusal.NO_POSE, n_people=n_people)
    turn, shift_m = pose.turn_from(given), pose.shift_from_m(given)
    sd = _deviations(near, _linearised(near, pose, given), kernels.FOCAL)
    turn_sd, centre_sd_m = float(np.sqrt((sd[:3] ** 2).sum())), float(np.sqrt((sd[3:6] ** 2).sum()))
    held_out = _held_out(pairs, pose, given, present)
    before_m, after_m, apart_turn, apart_m = held_out
    figures = Verdict(None, pose, turn, shift_m, turn_sd, centre_sd_m, before_m, after_m, n_people)

    def refused(reason: Refusal) -> Verdict:
        return Verdict(reason, *list(vars(figures).values())[1:])

    left_max_m = max(_LEFT_MIN_M, _LEFT_OVER_USUAL * usual_m)
    log_focal, focal_sd = _focal(near, pose, given)
    if abs(log_focal) > max(_FOCAL_MAX, _FOCAL_SIGMAS * focal_sd):
        return refused(Refusal.ZOOMED)
    if turn > TURN_MAX or shift_m > SHIFT_MAX_M:
        return refused(Refusal.FAR)
    if not _is_ample(near, lens):
        return refused(Refusal.FEW)
    if pose.turn_from(present) < _SAME_TURN and pose.shift_from_m(present) < _SAME_SHIFT_M:
        return refused(Refusal.FITS)
    certain = turn_sd <= _TURN_SD_MAX and centre_sd_m <= _CENTRE_SD_MAX_M
    # Each half has twice the variance, so their difference has four times it; three deviations of that.
    agree = apart_turn <= 6.0 * _TURN_SD_MAX and apart_m <= 6.0 * _CENTRE_SD_MAX_M
    if after_m > left_max_m:
        return refused(Refusal.NO_POSE)
    if not certain or not agree or after_m > _LEFT_SHARE_MAX * before_m:
        return refused(Refusal.UNCERTAIN)
    return figures


def _shares(pairs: Pairs, near: Pairs, pose: Pose, lens: Lens) -> tuple[float, float]:
    """Shares of the shown detections that are people, and of the people in the picture that are shown."""
    shown = len(near.shown) / max(len(np.unique(pairs.shown)), 1)
    people, first = np.unique(pairs.person, return_index=True)
    at = np.einsum("ij,nkj->nki", pose.rotation, pairs.joints_m[first] - pose.centre_m)
    depth = np.where(at[..., 2] > kernels.DEPTH_MIN_M, at[..., 2], np.nan)
    uv = at[..., :2] / depth[..., None]
    inside = (uv >= lens.low) & (uv <= lens.high)
    known = np.isfinite(pairs.joints_m[first, :, 0])
    in_view = (inside.all(axis=2) & known).sum(axis=1) >= 0.8 * np.maximum(known.sum(axis=1), 1)
    n_in_view = int(in_view.sum())
    n_found = int(np.isin(people[in_view], near.person).sum())
    return shown, n_found / n_in_view if n_in_view else 0.0


def _is_ample(near: Pairs, lens: Lens) -> bool:
    """Whether the people are many, over some time, all over the floor and the picture."""
    places_m = np.nanmean(near.joints_m[..., :2], axis=1)
    cells = len(np.unique(np.floor(places_m).astype(np.int64), axis=0))
    middles = np.nanmean(near.rays, axis=1) / (lens.high - lens.low)
    spread = float(np.sqrt(((middles - middles.mean(axis=0)) ** 2).sum(axis=1).mean()))
    span_ns = int(near.t_ns.max() - near.t_ns.min())
    enough = len(near.t_ns) >= PEOPLE_MIN and cells >= CELLS_MIN and span_ns >= SPAN_MIN_S * 1e9
    return enough and spread >= SPREAD_MIN


def _held_out(pairs: Pairs, pose: Pose, given: Pose, present: Pose) -> tuple[float, float, float, float]:
    """Residuals before and after in the halves that a pose was not found from; how far apart the halves' poses are."""
    odd = _blocks(pairs.t_ns) % 2 == 1
    halves = [pairs.of(odd), pairs.of(~odd)]
    poses = [_refined(half, pose, given) for half in halves]
    squares_before, squares_after, n = 0.0, 0.0, 0
    for half, found in zip(halves, reversed(poses)):
        offsets = _offsets(half, found)
        near = _matched(half, offsets.rms_m, _GATES_M[0])
        before = np.minimum(np.linalg.norm(_offsets(half.of(near), present).body_m, axis=1), _CLIPPED_M)
        after = np.linalg.norm(offsets.body_m[near], axis=1)
        squares_before += float((before**2).sum())
        squares_after += float((after**2).sum())
        n += len(near)
    root_before, root_after = (math.sqrt(squares / max(n, 1)) for squares in (squares_before, squares_after))
    return root_before, root_after, poses[0].turn_from(poses[1]), poses[0].shift_from_m(poses[1])


def _explained(pairs: Pairs, verdict: Verdict, given: Pose, others: Mapping[str, Pose]) -> Verdict:
    """A refusal with its most probable cause: another camera's view, or a mirrored picture."""
    pairs = _thinned(pairs)
    votes = _votes(pairs, verdict.pose or given)
    name, best = None, max(1.5 * votes, 0.3 * len(np.unique(pairs.shown)))
    for other, pose in others.items():
        if (theirs := _votes(pairs, pose)) > best:
            name, best = other, theirs
    if name is not None:
        return Verdict(Refusal.OTHER_CAMERA, n_people=verdict.n_people, other=name)
    mirrored = pairs._replace(rays=pairs.rays * [-1.0, 1.0])
    if _votes(mirrored, _elected(mirrored, given, (given,), TURN_MAX)) > max(1.5 * votes, best):
        return Verdict(Refusal.MIRRORED, n_people=verdict.n_people)
    return verdict
