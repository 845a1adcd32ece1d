"""Scores that papers report: HOTA, MOTA, MODA and IDF1 of people on the floor, PCP and MPJPE of their joints.

tests/bench/public/test_metrics.py compares HOTA with TrackEval, and MOTA, MODA and IDF1 with motmetrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from bench.accuracy.people import Instant, score_identities

# A person is found where a track is within half a metre on the floor, as WILDTRACK's authors score it.
GATE_M = 0.5
# Distance on the floor at which two places have nothing in common any more: TrackEval's default for points in metres.
HOTA_RANGE_M = 2.0
ALPHAS = np.arange(1, 20) * 0.05

# The ten parts of a person that PCP counts: eight limbs, the head, the trunk (from the middle of the hips to the chin).
LIMBS = (
    ("r_ankle", "r_knee"),
    ("r_knee", "r_hip"),
    ("l_hip", "l_knee"),
    ("l_knee", "l_ankle"),
    ("r_wrist", "r_elbow"),
    ("r_elbow", "r_shoulder"),
    ("l_shoulder", "l_elbow"),
    ("l_elbow", "l_wrist"),
)
N_PARTS = len(LIMBS) + 2


# ---- people on the floor ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """Who is where at one instant: numbers (n,) and places (n, 2) on the floor of people and of tracks, metres."""

    people: np.ndarray
    people_m: np.ndarray
    tracks: np.ndarray
    tracks_m: np.ndarray


@dataclass(frozen=True)
class FloorScore:
    """Shares in 0..1 (MOTA and MODA may be below), and what MOTA counts."""

    mota: float
    moda: float
    idf1: float
    hota: float
    deta: float
    assa: float
    switches: int
    misses: int
    false_positives: int
    n_people: int


def score_floor(scenes: Sequence[Scene], gate_m: float = GATE_M) -> FloorScore:
    """Score tracks on the floor.

    Sources: MOTA, MODA: Bernardin and Stiefelhagen, Evaluating Multiple Object Tracking Performance (2008), and
    Kasturi et al. (2009); IDF1: Ristani et al. (2016); HOTA: see `hota`.
    """
    found = score_identities(
        (
            Instant(
                people=scene.people,
                people_m=scene.people_m,
                people_count=np.ones(len(scene.people), bool),
                tracks=scene.tracks,
                tracks_m=scene.tracks_m,
                tracks_count=np.ones(len(scene.tracks), bool),
                identity=np.ones(len(scene.tracks)),
            )
            for scene in scenes
        ),
        gate_m,
    )
    higher = hota(scenes)
    n_matched = sum(_n_matched(scene, gate_m) for scene in scenes)
    return FloorScore(
        mota=found.mota,
        moda=1.0 - (found.n_truth + found.n_reported - 2 * n_matched) / max(found.n_truth, 1),
        idf1=found.idf1,
        hota=float(higher.hota.mean()),
        deta=float(higher.deta.mean()),
        assa=float(higher.assa.mean()),
        switches=found.switches,
        misses=found.misses,
        false_positives=found.false_positives,
        n_people=found.n_truth,
    )


def _n_matched(scene: Scene, gate_m: float) -> int:
    """The most pairs of a person and a track within the gate: MODA knows no identities, so none has to be kept."""
    near = np.linalg.norm(scene.people_m[:, None] - scene.tracks_m[None], axis=2) < gate_m
    return int(near[linear_sum_assignment(near, maximize=True)].sum())


@dataclass(frozen=True)
class Hota:
    """HOTA and its two parts at each of `ALPHAS`: detection and association accuracy, (19,) each, 0..1."""

    hota: np.ndarray
    deta: np.ndarray
    assa: np.ndarray


def hota(scenes: Sequence[Scene], range_m: float = HOTA_RANGE_M) -> Hota:
    """Higher order tracking accuracy of points on the floor.

    Similarity falls linearly from 1 at the same place to 0 at `range_m`. At each instant people and tracks are
    matched once, at the largest sum of similarity times how well the two go together over the whole run; a pair counts
    at a threshold alpha where its similarity reaches alpha. With TP(alpha) pairs, DetA = TP / (people + tracks - TP),
    AssA = the mean over these pairs of n_pt / (n_p + n_t - n_pt), HOTA = sqrt(DetA AssA).

    Source: Luiten et al., HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking (2021).
    """
    people = {number: i for i, number in enumerate(sorted({n for scene in scenes for n in scene.people.tolist()}))}
    tracks = {number: i for i, number in enumerate(sorted({n for scene in scenes for n in scene.tracks.tolist()}))}
    n_person, n_track = np.zeros(len(people)), np.zeros(len(tracks))
    together = np.zeros((len(people), len(tracks)))
    pairs = []
    for scene in scenes:
        rows = np.array([people[n] for n in scene.people.tolist()], int)
        columns = np.array([tracks[n] for n in scene.tracks.tolist()], int)
        distance_m = np.linalg.norm(scene.people_m[:, None] - scene.tracks_m[None], axis=2)
        similarity = np.maximum(0.0, 1.0 - distance_m / range_m)
        n_person[rows] += 1
        n_track[columns] += 1
        # A person beside several tracks counts for each by its share, so that a crowd is no agreement.
        either = similarity.sum(0)[None] + similarity.sum(1)[:, None] - similarity
        together[np.ix_(rows, columns)] += np.divide(similarity, either, out=np.zeros_like(either), where=either > 0)
        pairs.append((rows, columns, similarity))
    alignment = together / np.maximum(n_person[:, None] + n_track[None] - together, 1.0)
    counts = np.zeros((len(ALPHAS), len(people), len(tracks)))
    for rows, columns, similarity in pairs:
        matched = linear_sum_assignment(-alignment[np.ix_(rows, columns)] * similarity)
        for i, j in zip(*matched):
            # A hair below alpha, since 1 - d / range is rounded.
            counts[similarity[i, j] >= ALPHAS - np.finfo(float).eps, rows[i], columns[j]] += 1
    true = counts.sum((1, 2))
    agreement = counts / np.maximum(n_person[:, None] + n_track[None] - counts, 1.0)
    assa = (counts * agreement).sum((1, 2)) / np.maximum(true, 1.0)
    deta = true / np.maximum(n_person.sum() + n_track.sum() - true, 1.0)
    return Hota(np.sqrt(deta * assa), deta, assa)


# ---- joints ----------------------------------------------------------------------------------------------------------


def parts_right(estimated: Mapping[str, np.ndarray], true: Mapping[str, np.ndarray]) -> np.ndarray:
    """(10,) whether each part of a body is right: the mean error of its ends is at most half its true length.

    Args:
        estimated: joints (3,) by name, metres; NaN where unknown, which is wrong. With `chin` and `top` of the head.
        true: the same joints, all known.

    Source: Ferrari et al. (2008); in space Belagiannis et al., 3D Pictorial Structures for Multiple Human Pose
    Estimation (2014), with alpha 0.5.
    """

    def right(a: np.ndarray, b: np.ndarray, true_a: np.ndarray, true_b: np.ndarray) -> bool:
        error = (np.linalg.norm(a - true_a) + np.linalg.norm(b - true_b)) / 2
        return bool(error <= 0.5 * np.linalg.norm(true_a - true_b))

    hips, true_hips = (estimated["r_hip"] + estimated["l_hip"]) / 2, (true["r_hip"] + true["l_hip"]) / 2
    parts = [right(estimated[a], estimated[b], true[a], true[b]) for a, b in [*LIMBS, ("chin", "top")]]
    return np.array([*parts, right(hips, estimated["chin"], true_hips, true["chin"])])


@dataclass(frozen=True)
class PoseScore:
    """Joints of people whose truth is known.

    Attributes:
        pcp: percentage of correct parts of each scored person, or of all as one; empty where the truth has no head.
        weighted: percentage of correct parts of all together.
        mpjpe_mm: mean error of the joints that are known, of people who were found.
        known: share of the true joints that those are, 0..1.
        found: share of the true people with an estimate of their own place, 0..1.
        people_per_instant: estimates at an instant, since PCP does not punish people who are not there.
    """

    pcp: tuple[float, ...]
    weighted: float
    mpjpe_mm: float
    known: float
    found: float
    people_per_instant: float

    @property
    def average(self) -> float:
        """Mean of the persons' percentages, as papers report it."""
        return float(np.mean(self.pcp)) if self.pcp else float("nan")


# An estimate farther than this from a person, as the mean over joints, is of somewhere else (Panoptic's protocol).
PERSON_MAX_M = 0.5


def score_poses(
    truth_m: np.ndarray, names: Sequence[str], estimates_m: Sequence[np.ndarray], persons: Sequence[int] | None
) -> PoseScore:
    """Score estimated joints against true ones, instant by instant; each person is scored by the nearest estimate.

    Args:
        truth_m: (n_instants, n_people, n_joints, 3); a person is scored where all their joints are known.
        names: (n_joints,) with chin and top for PCP; without them only the joints' errors are scored.
        estimates_m: of each instant (n_estimates, n_joints, 3), NaN where unknown.
        persons: the people who are scored, each by themselves; None: all, as one.
    """
    with_head = {"chin", "top"} <= set(names)
    rows = range(truth_m.shape[1]) if persons is None else persons
    group_of = {person: (0 if persons is None else i) for i, person in enumerate(rows)}
    n_groups = len(set(group_of.values()))
    right, total = np.zeros(n_groups), np.zeros(n_groups)
    errors_m, n_true, n_found, n_scored = [], 0, 0, 0
    for true_all, estimates in zip(truth_m, estimates_m, strict=True):
        for person, group in group_of.items():
            true = true_all[person]
            if not np.isfinite(true).all():
                continue
            n_scored += 1
            n_true += len(true)
            total[group] += N_PARTS
            if not len(estimates):
                continue
            error_m = np.linalg.norm(estimates - true, axis=2)
            # An unknown joint counts a metre, so that one lucky joint makes no estimate the nearest.
            mean_m = np.where(np.isfinite(error_m), error_m, 1.0).mean(1)
            best = int(np.argmin(mean_m))
            if with_head:
                right[group] += parts_right(dict(zip(names, estimates[best])), dict(zip(names, true))).sum()
            known_m = error_m[best][np.isfinite(error_m[best])]
            if len(known_m) and known_m.mean() <= PERSON_MAX_M:
                n_found += 1
                errors_m.append(known_m)
    all_m = np.concatenate(errors_m) if errors_m else np.zeros(0)
    share = 100.0 * right / np.maximum(total, 1)
    return PoseScore(
        pcp=tuple(share.tolist()) if with_head else (),
        weighted=100.0 * right.sum() / max(total.sum(), 1) if with_head else float("nan"),
        mpjpe_mm=1000.0 * float(all_m.mean()) if len(all_m) else float("nan"),
        known=len(all_m) / max(n_true, 1),
        found=n_found / max(n_scored, 1),
        people_per_instant=float(np.mean([len(estimates) for estimates in estimates_m])) if len(estimates_m) else 0.0,
    )
