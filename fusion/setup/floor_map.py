"""Cameras on one floor: each knows its height and which way is up; where people stand at the same instants is the rest.

Every camera places the feet of people on a floor of its own. Two such floors differ by a similarity in the plane, which
the people at common instants determine, without knowing who is who (RANSAC, Fischler and Bolles 1981). The pairs that
most people agree about connect all cameras.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fusion.setup.reprojection import FloatArray, IntArray

# People of two cameras that are this near to each other on the floor can be the same, metres.
SAME_M = 0.5
# Instants at which two cameras must agree about a person, the share of them, and how many pairs of people are tried.
AGREED_MIN, AGREED_SHARE, _TRIES = 20, 0.3, 1500
# Statures and lenses are known roughly: two floors differ in scale by at most this factor. Two people determine a
# direction from this distance on, metres.
_SCALE_MAX, _APART_MIN_M = 1.35, 1.0
# Pairs of people of two cameras that are used.
_MATCHES_MAX = 1500


class FloorPoints(NamedTuple):
    """People on one camera's floor: their instants (n,) ascending, and places (n, 2) in metres."""

    instant: IntArray
    place_m: FloatArray


class Similarity(NamedTuple):
    """z -> turn z + shift of the plane as complex numbers; the modulus of `turn` is a scale."""

    turn: complex
    shift: complex

    def of(self, z: FloatArray) -> FloatArray:
        """(n,) complex places after it."""
        return np.asarray(self.turn * z + self.shift)

    def after(self, other: Similarity) -> Similarity:
        """This one applied after another."""
        return Similarity(self.turn * other.turn, self.turn * other.shift + self.shift)

    def inverse(self) -> Similarity:
        """The way back."""
        return Similarity(1.0 / self.turn, -self.shift / self.turn)


class FloorPair(NamedTuple):
    """What brings the second camera's floor onto the first one's, and how many people agree."""

    first: int
    second: int
    onto_first: Similarity
    agreed: float


def as_complex(places: FloatArray) -> FloatArray:
    """(n,) complex numbers of places (n, 2)."""
    return np.asarray(places[:, 0] + 1j * places[:, 1])


def find_pair(first: int, second: int, a: FloorPoints, b: FloorPoints, random: np.random.Generator) -> FloorPair | None:
    """The similarity about which most people of two cameras agree; None where too few do."""
    common = np.intersect1d(a.instant, b.instant)
    if len(common) < AGREED_MIN:
        return None
    starts_a, ends_a = np.searchsorted(a.instant, common), np.searchsorted(a.instant, common, "right")
    starts_b, ends_b = np.searchsorted(b.instant, common), np.searchsorted(b.instant, common, "right")
    matches = [
        (i, j)
        for sa, ea, sb, eb in zip(starts_a, ends_a, starts_b, ends_b)
        for i in range(sa, ea)
        for j in range(sb, eb)
    ]
    if len(matches) > _MATCHES_MAX:
        matches = [matches[i] for i in sorted(random.choice(len(matches), _MATCHES_MAX, replace=False).tolist())]
    pick = np.array(matches)
    z, w = as_complex(a.place_m)[pick[:, 0]], as_complex(b.place_m)[pick[:, 1]]
    i, j = random.integers(0, len(pick), (2, _TRIES))
    apart = (np.abs(z[i] - z[j]) > _APART_MIN_M) & (np.abs(w[i] - w[j]) > _APART_MIN_M)
    i, j = i[apart], j[apart]
    turn = (z[i] - z[j]) / (w[i] - w[j])
    likely = (np.abs(turn) < _SCALE_MAX) & (np.abs(turn) > 1.0 / _SCALE_MAX)
    turn, i = turn[likely], i[likely]
    if not len(turn):
        return None
    shift = z[i] - turn * w[i]
    off = np.abs(turn[:, None] * w + shift[:, None] - z)
    score = np.maximum(1.0 - (off / SAME_M) ** 2, 0.0)
    # A person has one true partner, at one of the instants.
    best = int(np.argmax(_best_of_each(score, pick[:, 0]).sum(axis=1)))
    found = Similarity(complex(turn[best]), complex(shift[best]))
    for _ in range(8):
        weight = np.maximum(1.0 - (np.abs(found.of(w) - z) / SAME_M) ** 2, 0.0)
        found = fit_similarity(w, z, weight)
    weight = np.maximum(1.0 - (np.abs(found.of(w) - z) / SAME_M) ** 2, 0.0)
    agreed = float(_best_of_each(weight[None], pick[:, 0]).sum())
    if agreed < max(AGREED_MIN, AGREED_SHARE * len(np.unique(pick[:, 0]))):
        return None
    return FloorPair(first, second, found, agreed)


def _best_of_each(score: FloatArray, label: IntArray) -> FloatArray:
    """(h, n_labels) largest score of the columns with each label, which are in ascending order."""
    starts = np.flatnonzero(np.diff(label, prepend=-1))
    return np.asarray(np.maximum.reduceat(score, starts, axis=1))


def fit_similarity(source: FloatArray, target: FloatArray, weight: FloatArray) -> Similarity:
    """Weighted least squares of complex places (n,); Umeyama (1991) in the plane."""
    total = max(float(weight.sum()), 1e-12)
    a, b = (weight * source).sum() / total, (weight * target).sum() / total
    spread = float((weight * np.abs(source - a) ** 2).sum())
    turn = complex((weight * np.conj(source - a) * (target - b)).sum() / max(spread, 1e-12))
    return Similarity(turn if abs(turn) > 1e-6 else 1e-6 + 0j, complex(b - turn * a))


def join_floors(pairs: Sequence[FloorPair]) -> dict[int, Similarity]:
    """What brings each camera's floor onto a common one: the largest group that pairs connect, the best pairs first."""
    group: dict[int, dict[int, Similarity]] = {}
    for pair in sorted(pairs, key=lambda pair: -pair.agreed):
        identity = Similarity(1.0 + 0j, 0j)
        a = group.setdefault(pair.first, {pair.first: identity})
        b = group.setdefault(pair.second, {pair.second: identity})
        if a is b:
            continue
        onto_a = a[pair.first].after(pair.onto_first).after(b[pair.second].inverse())
        a.update({view: onto_a.after(way) for view, way in b.items()})
        for view in b:
            group[view] = a
    return max(group.values(), key=len, default={})
