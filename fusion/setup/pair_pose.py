"""The relative pose of two cameras, from people's joints, not knowing which detections are of the same person.

A body gives all its joints at once, so three random pairs of detections (more than eight points) determine an essential
matrix. Matrices are scored by the bodies that agree at all other instants; the best few are refined, together with the
difference of the clocks.

Source: Fischler and Bolles, Random Sample Consensus (1981); Takahashi et al., Human Pose as Calibration Pattern (2018)
for joints as correspondences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fusion.setup.epipolar import depths, eight_point, homogeneous, sampson_distance
from fusion.setup.reprojection import FloatArray, IntArray, cross_matrices
from fusion.setup.tracklets import JOINTS_MIN
from fusion.setup.views import Views
from fusion.store.rotations import rotation_matrix

# Clocks are off by at most this against the others'.
OFFSET_MAX_S = 0.25
# Offsets with which the search begins.
_OFFSETS_TRIED_S = (0.0, -0.1, 0.1)
# Two views of one body agree within this at the body, metres, before cameras are adjusted; among several cameras within
# this many times the median distance of joints from epipolar lines, where that is more: detectors differ.
ROUGH_M, ROUGH_OVER_MEDIAN = 0.08, 8.0
# Instants at which two cameras must agree about a person, or a camera with the others.
AGREED_MIN = 20
# Least share of the comparable detections that must agree: some detections of unrelated people agree by chance.
AGREED_SHARE = 0.3
# Least agreement at which two detections can be of one person.
_SAME_MIN = 0.35
# Angle between two views beyond which more does not help, and below which a pair does not determine depth.
ANGLE_GOOD, ANGLE_MIN = np.radians(25.0), np.radians(3.0)
# Most pairs of detections for two cameras: instants with fewer people determine as much at less cost.
MATCHES_MAX = 1000
# Instants on which random essential matrices are tested, and how many of the best are refined.
_TEST_INSTANTS, _REFINED = 60, 4
# The scores of this many essential matrices for all matches fit into a processor's cache.
_MATRICES_PER_BLOCK = 8


class RelativePose(NamedTuple):
    """x_2 = rotation @ x_1 + length * direction, and the second camera's clock minus the first's."""

    rotation: FloatArray
    direction: FloatArray
    offset_s: float


@dataclass(frozen=True)
class Pair:
    """How a second camera lies to the first.

    Attributes:
        first, second: indices of the cameras.
        pose: the relative pose; its length is unknown.
        rows: (n, 2) detections of the same person.
        agreed: summed agreement of the bodies, about their number.
        angle: median angle between the two views.
        off_m: median distance of the joints from their epipolar lines, at the body.
    """

    first: int
    second: int
    pose: RelativePose
    rows: IntArray
    agreed: float
    angle: float
    off_m: float

    @property
    def worth(self) -> float:
        """Bodies that agree, less where the views are nearly parallel."""
        return float(self.agreed * min(self.angle / ANGLE_GOOD, 1.0))


class _Candidate(NamedTuple):
    """An essential matrix with the offset at which it was found, and its score."""

    score: float
    offset_s: float
    essential: FloatArray


def agreement(off_m: FloatArray, limit_m: float) -> FloatArray:
    """How well bodies agree, 0 to 1, from their joints' distances (..., K), NaN for joints that one does not show.

    The mean of 1 - (distance / limit)^2 over the joints, 0 where fewer than JOINTS_MIN are shared.
    """
    seen = np.isfinite(off_m)
    n = seen.sum(axis=-1)
    share = np.where(seen, np.maximum(1.0 - (off_m / limit_m) ** 2, 0.0), 0.0).sum(axis=-1) / np.maximum(n, 1)
    return np.where(n >= JOINTS_MIN, share, 0.0)


class PairSearch:
    """The search for the relative pose of two cameras."""

    def __init__(self, views: Views, first: int, second: int, random: np.random.Generator) -> None:
        """Collect the pairs of detections that might be of the same person."""
        self._views, self._cameras, self._random = views, (first, second), random
        a, b = views.row[first], views.row[second]
        n_matches = (a >= 0).sum(axis=1) * (b >= 0).sum(axis=1)
        both = np.flatnonzero(n_matches)
        both = both[np.argsort(n_matches[both], kind="stable")]
        n_used = int(np.searchsorted(np.cumsum(n_matches[both]), MATCHES_MAX))
        both = np.sort(both[: max(n_used, 2 * AGREED_MIN)])
        matches = [(k, i, j) for k in both.tolist() for i in a[k][a[k] >= 0] for j in b[k][b[k] >= 0]]
        table = np.array(matches, np.int64).reshape(-1, 3)
        self._instant, self._rows = table[:, 0], table[:, 1:]
        self._scale = np.sqrt((views.scale[self._rows] ** 2).mean(axis=1))
        self._n_instants = len(both)
        self._every = np.arange(len(self._rows))

    def search(self) -> Pair | None:
        """The pose about which most bodies agree; None where there is none, or too few agree."""
        if self._n_instants < AGREED_MIN:
            return None
        candidates = [candidate for offset_s in _OFFSETS_TRIED_S for candidate in self._random_matrices(offset_s)]
        candidates.sort(key=lambda candidate: -candidate.score)
        pairs = [
            pair
            for candidate in candidates[:_REFINED]
            if (pair := self._refined(candidate.essential, candidate.offset_s)) is not None
        ]
        return max(pairs, key=lambda pair: pair.agreed, default=None)

    def _points(self, pick: IntArray, offset_s: float) -> tuple[FloatArray, FloatArray]:
        """Homogeneous points (n, K, 3) of the picked matches in the first and in the second picture."""
        first, second = self._rows[pick].T
        return homogeneous(self._views.at(first, 0.0)), homogeneous(self._views.at(second, offset_s))

    def _agreement(self, essential: FloatArray, pick: IntArray, offset_s: float, limit_m: float) -> FloatArray:
        """(h, n) how well each of the matches picked (n,) agrees with each of h essential matrices."""
        first, second = self._points(pick, offset_s)
        scale = self._scale[pick][:, None]
        out = np.empty((len(essential), len(pick)))
        for start in range(0, len(essential), _MATRICES_PER_BLOCK):
            block = slice(start, start + _MATRICES_PER_BLOCK)
            out[block] = agreement(np.abs(sampson_distance(essential[block], first, second)) / scale, limit_m)
        return out

    def _mutually_best(self, agreed: FloatArray) -> IntArray:
        """Matches in which each detection is the best partner of the other."""
        order = np.argsort(-agreed, kind="stable")
        order = order[agreed[order] > _SAME_MIN]
        first = np.unique(self._rows[order, 0], return_index=True)[1]
        second = np.unique(self._rows[order, 1], return_index=True)[1]
        return order[np.intersect1d(first, second)]

    def _random_matrices(self, offset_s: float) -> list[_Candidate]:
        """The best essential matrices of random triples of matches."""
        n = len(self._rows)
        crowd = n / self._n_instants
        n_tries = int(np.clip(12 * crowd**1.5, 60, 600))
        instants = np.unique(self._instant)
        instants = instants[np.linspace(0, len(instants) - 1, min(_TEST_INSTANTS, len(instants))).astype(int)]
        tested = np.flatnonzero(np.isin(self._instant, instants))
        picks = self._random.integers(0, n, (n_tries, 3))
        first, second = self._points(self._every, offset_s)
        essential = eight_point(
            first[picks].reshape(n_tries, -1, 3), second[picks].reshape(n_tries, -1, 3), np.ones((n_tries, 1))
        )
        agreed = self._agreement(essential, tested, offset_s, 1.5 * ROUGH_M)
        # A detection has one true partner: the best one counts.
        order = np.lexsort((self._rows[tested, 0],))
        starts = np.flatnonzero(np.diff(self._rows[tested[order], 0], prepend=-1))
        score = np.maximum.reduceat(agreed[:, order], starts, axis=1).sum(axis=1)
        return [_Candidate(float(score[i]), offset_s, essential[i]) for i in np.argsort(-score)[:_REFINED]]

    def _refined(self, essential: FloatArray, offset_s: float) -> Pair | None:
        """The pose near an essential matrix; None where too little agrees with it, or it is impossible."""
        found = self._rematched(essential, offset_s)
        if found is None:
            return None
        essential, same = found
        pose = self._decomposed(essential, same, offset_s)
        for _ in range(3):
            pose = self._gauss_newton(pose, same)
            essential = cross_matrices(pose.direction) @ pose.rotation
            agreed = self._agreement(essential[None], self._every, pose.offset_s, ROUGH_M)[0]
            same = self._mutually_best(agreed)
            if len(same) < AGREED_MIN or abs(pose.offset_s) > OFFSET_MAX_S:
                return None
        first, second = self._points(same, pose.offset_s)
        z_first, z_second, angle = depths(pose.rotation, pose.direction, first, second)
        ahead = np.nanmean(((z_first > 0) & (z_second > 0))[np.isfinite(z_first)])
        if ahead < 0.9 or not angle > ANGLE_MIN:
            return None
        total = float(agreed[same].sum())
        if total < AGREED_SHARE * self._n_instants:
            return None
        off = np.abs(sampson_distance(essential[None], first, second)[0]) / self._scale[same][:, None]
        return Pair(*self._cameras, pose, self._rows[same], total, angle, float(np.nanmedian(off)))

    def _rematched(self, essential: FloatArray, offset_s: float) -> tuple[FloatArray, IntArray] | None:
        """The essential matrix, matched and estimated in turn, and its matches; None where too few agree."""
        agreed = self._agreement(essential[None], self._every, offset_s, 1.5 * ROUGH_M)[0]
        for _ in range(3):
            same = self._mutually_best(agreed)
            if len(same) < AGREED_MIN:
                return None
            first, second = self._points(same, offset_s)
            first, second = first.reshape(1, -1, 3), second.reshape(1, -1, 3)
            off = sampson_distance(essential[None], first, second)[0, 0]
            off = off / np.repeat(self._scale[same], len(first[0]) // len(same))
            weight = 1.0 / (1.0 + (off / (0.5 * ROUGH_M)) ** 2)
            essential = eight_point(first, second, np.nan_to_num(weight)[None])[0]
            agreed = self._agreement(essential[None], self._every, offset_s, 1.5 * ROUGH_M)[0]
        same = self._mutually_best(agreed)
        return (essential, same) if len(same) >= AGREED_MIN else None

    def _decomposed(self, essential: FloatArray, same: IntArray, offset_s: float) -> RelativePose:
        """Of the four poses of an essential matrix the one that puts people before both cameras.

        Source: Hartley and Zisserman, Multiple View Geometry (2004), result 9.19.
        """
        u, _, vt = np.linalg.svd(essential)
        u, vt = u * np.sign(np.linalg.det(u)), vt * np.sign(np.linalg.det(vt))
        w = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        first, second = self._points(same, offset_s)

        def n_ahead(pose: RelativePose) -> int:
            z_first, z_second, _ = depths(pose.rotation, pose.direction, first, second)
            return int(((z_first > 0) & (z_second > 0)).sum())

        poses = [
            RelativePose(u @ turn @ vt, sign * u[:, 2], offset_s) for turn in (w, w.T) for sign in (1.0, -1.0)
        ]  # fmt: skip
        return max(poses, key=n_ahead)

    def _gauss_newton(self, pose: RelativePose, same: IntArray) -> RelativePose:
        """Four steps on Sampson distances, reweighted: turn (3), direction (2), offset (1)."""
        rotation, direction, offset_s = pose
        first_rows, second_rows = self._rows[same].T
        first = homogeneous(self._views.at(first_rows, 0.0)).reshape(-1, 3)
        scale = np.repeat(self._scale[same], len(first) // len(same))
        tracklet = self._views.tracklet[second_rows].reshape(-1, 3, 2)
        for _ in range(4):
            second = homogeneous(self._views.at(second_rows, offset_s)).reshape(-1, 3)
            speed = tracklet[:, 1] + 2.0 * offset_s * tracklet[:, 2]
            essential = cross_matrices(direction) @ rotation
            turned = first @ rotation.T
            line_second, line_first = first @ essential.T, second @ essential
            norm = np.sqrt((line_second[:, :2] ** 2).sum(1) + (line_first[:, :2] ** 2).sum(1)) * scale
            off = (line_second * second).sum(axis=1) / norm
            tangent = np.linalg.svd(direction[None])[2][1:]
            jacobian = np.empty((len(first), 6))
            # second . (t x (w x R first)) = w . (R first x (second x t))
            jacobian[:, :3] = np.cross(turned, np.cross(second, direction))
            jacobian[:, 3:5] = np.cross(turned, second) @ tangent.T
            jacobian[:, 5] = (line_second[:, :2] * speed).sum(axis=1)
            jacobian /= norm[:, None]
            good = np.isfinite(off) & np.isfinite(jacobian).all(axis=1)
            jacobian, off = jacobian[good], off[good]
            spread = max(1.5 * float(np.median(np.abs(off))), 0.003)
            weight = 1.0 / (1.0 + (off / (2.0 * spread)) ** 2)
            # The offset has a prior of 50 ms, as little movement determines it badly.
            normal = (jacobian * weight[:, None]).T @ jacobian + np.diag([0, 0, 0, 0, 0, (spread / 0.05) ** 2])
            step = np.linalg.solve(normal + 1e-12 * np.eye(6), -(jacobian * weight[:, None]).T @ off)
            rotation = rotation_matrix(step[:3]) @ rotation
            direction = direction + step[3:5] @ tangent
            direction = direction / np.linalg.norm(direction)
            offset_s += float(step[5])
        return RelativePose(rotation, direction, offset_s)
