"""Structure from people: where cameras are to one another, and their clocks, from people's joints in their pictures.

1. Every camera's detections are followed from picture to picture for a moment, so that each says where its joints were
   at any time near some common instants.
2. Pairs of cameras: which relative pose makes most people agree, whoever is who (robust essential matrices; a body
   gives all its joints at once).
3. From the best pair on, one camera after another is placed by what it sees of people already located, and all of it
   is adjusted together (`adjustment.adjust`).

Source: Hartley and Zisserman, Multiple View Geometry (2004), chapters 9 to 12; Takahashi et al., Human Pose as
Calibration Pattern (2018) for joints as correspondences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from fusion.errors import FusionError
from fusion.people.geometry import Rig, Status, triangulate
from fusion.setup.adjustment import Adjusted, Poses, Sights, adjust, crosses, locate
from fusion.setup.tracklets import JOINTS_MIN, PEOPLE_MAX, Film
from fusion.store.rotations import rotation_matrix

# Common instants: enough for a few millimetres; no nearer to each other than detectors need to err anew.
INSTANTS_MAX, INSTANT_STEP_S = 600, 0.1
# Instants for placing one camera after another.
ROUGH_INSTANTS = 150
# Clocks are off by at most this against the others'.
OFFSET_MAX_S = 0.25
# Two views of one body agree within this at the body, metres: at first, and once cameras are adjusted.
ROUGH_M, FINE_M = 0.08, 0.05
# Instants at which two cameras must agree about somebody, or a camera with the others.
AGREED_MIN = 20
# And of the sightings that could agree, so large a share: of strangers some agree by chance.
AGREED_SHARE = 0.3
# Angle between two views beyond which more does not help, and below which a pair tells nothing of depth.
ANGLE_GOOD, ANGLE_MIN = np.radians(25.0), np.radians(3.0)
# Where many people are, the emptier instants tell as much at less cost: so many pairs of detections for two cameras.
MATCHES_MAX = 1000
# Other cameras that each is compared to, of those that share this share of the most that it shares with any.
PARTNERS, PARTNER_SHARE = 8, 0.5
# Groups of cameras that may be tried before the largest is taken.
STARTS_MAX = 3
# What so many epipolar geometries say of all matches fits into a processor's cache.
_GEOMETRIES_AT_A_TIME = 8
# Fixed, so that a calibration can be repeated.
_SEED = 20180622


@dataclass(frozen=True)
class _Views:
    """What all cameras saw around the instants; a row is one detection of one person.

    Attributes:
        view, instant: (n_rows,) indices. row: (n_views, n_instants, PEOPLE) row numbers, -1 for none.
        path: (n_rows, K, 3, 2) normalised coordinates as polynomials of the camera's time since the instant, NaN.
        scale: (n_rows,) about one over the distance in metres, from the size in the picture.
    """

    view: np.ndarray
    instant: np.ndarray
    row: np.ndarray
    path: np.ndarray
    scale: np.ndarray

    def at(self, rows: np.ndarray, offset_s: np.ndarray | float) -> np.ndarray:
        """(n, K, 2) where the joints of rows were, seen by clocks that are off by offset_s (n,)."""
        u = np.broadcast_to(np.asarray(offset_s, float), rows.shape)[:, None, None]
        path = self.path[rows]
        return path[:, :, 0] + u * (path[:, :, 1] + u * path[:, :, 2])


# ---- two cameras -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pair:
    """How a second camera lies to the first: x_2 = rotation @ x_1 + length * direction."""

    first: int
    second: int
    rotation: np.ndarray
    direction: np.ndarray
    offset_s: float
    rows: np.ndarray  # (n, 2) detections of the same person
    agreed: float
    angle: float  # between the views, median

    @property
    def worth(self) -> float:
        return self.agreed * min(self.angle / ANGLE_GOOD, 1.0)


def _sampson(essential: np.ndarray, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """(h, n, K) distance of homogeneous correspondences (n, K, 3) from h epipolar geometries."""
    # Coordinates first: a reduction over three numbers costs more than all the rest.
    x, y, _ = np.moveaxis(two, -1, 0)
    h, rest = len(essential), one.shape[:-1]
    a, b, c = (essential @ one.reshape(-1, 3).T).reshape(h, 3, *rest).swapaxes(0, 1)
    d, e = (essential.transpose(0, 2, 1)[:, :2] @ two.reshape(-1, 3).T).reshape(h, 2, *rest).swapaxes(0, 1)
    return (a * x + b * y + c) / np.sqrt(a * a + b * b + d * d + e * e)


def _agreement(off_m: np.ndarray, limit_m: float) -> np.ndarray:
    """How well bodies agree, 0 to 1, from distances (..., K), NaN for what one of them does not show."""
    seen = np.isfinite(off_m)
    n = seen.sum(axis=-1)
    share = np.where(seen, np.maximum(1.0 - (off_m / limit_m) ** 2, 0.0), 0.0).sum(axis=-1) / np.maximum(n, 1)
    return np.where(n >= JOINTS_MIN, share, 0.0)


def _homogeneous(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1)


def _eight_point(one: np.ndarray, two: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(h, 3, 3) essential matrices of h weighted sets of correspondences (h, n, 3), NaN ones excepted."""
    good = np.isfinite(one[..., 0] + two[..., 0])
    one, two = np.where(good[..., None], one, 0.0), np.where(good[..., None], two, 0.0)
    weight = np.where(good, weight, 0.0)
    into = []
    for points in (one, two):
        total = np.maximum(weight.sum(axis=1), 1e-12)[:, None]
        middle = (weight[..., None] * points[..., :2]).sum(axis=1) / total
        spread = np.sqrt((weight[..., None] * (points[..., :2] - middle[:, None]) ** 2).sum(axis=(1, 2)) / total[:, 0])
        t = np.zeros((len(points), 3, 3))
        t[:, 0, 0] = t[:, 1, 1] = 1.0 / np.maximum(spread, 1e-9)
        t[:, :2, 2] = -middle * t[:, :1, 0]
        t[:, 2, 2] = 1.0
        into.append(t)
    a, b = one @ into[0].transpose(0, 2, 1), two @ into[1].transpose(0, 2, 1)
    rows = (b[..., :, None] * a[..., None, :]).reshape(*a.shape[:2], 9) * weight[..., None]
    _, vectors = np.linalg.eigh(rows.transpose(0, 2, 1) @ rows)
    f = into[1].transpose(0, 2, 1) @ vectors[:, :, 0].reshape(-1, 3, 3) @ into[0]
    u, _, vt = np.linalg.svd(f)
    return u * np.array([1.0, 1.0, 0.0]) @ vt


class _PairSearch:
    """Looks for the relative pose of two cameras, not knowing which detections are of the same person."""

    def __init__(self, views: _Views, first: int, second: int, random: np.random.Generator) -> None:
        self.views, self.ends, self.random = views, (first, second), random
        a, b = views.row[first], views.row[second]
        n_matches = (a >= 0).sum(axis=1) * (b >= 0).sum(axis=1)
        both = np.flatnonzero(n_matches)
        both = both[np.argsort(n_matches[both], kind="stable")]
        n_used = int(np.searchsorted(np.cumsum(n_matches[both]), MATCHES_MAX))
        both = np.sort(both[: max(n_used, 2 * AGREED_MIN)])
        pairs = [(k, i, j) for k in both.tolist() for i in a[k][a[k] >= 0] for j in b[k][b[k] >= 0]]
        table = np.array(pairs, np.int64).reshape(-1, 3)
        self.instant, self.rows = table[:, 0], table[:, 1:]
        self.scale = np.sqrt((views.scale[self.rows] ** 2).mean(axis=1))
        self.n_instants = len(both)

    def _points(self, pick: np.ndarray, offset_s: float) -> tuple[np.ndarray, np.ndarray]:
        one, two = self.rows[pick].T
        return _homogeneous(self.views.at(one, 0.0)), _homogeneous(self.views.at(two, offset_s))

    def _score(self, essential: np.ndarray, pick: np.ndarray, offset_s: float, limit_m: float) -> np.ndarray:
        """(h, n) how well each of the matches picked (n,) agrees with each of h essential matrices."""
        one, two = self._points(pick, offset_s)
        scale = self.scale[pick][:, None]
        out = np.empty((len(essential), len(pick)))
        for first in range(0, len(essential), _GEOMETRIES_AT_A_TIME):
            some = slice(first, first + _GEOMETRIES_AT_A_TIME)
            out[some] = _agreement(np.abs(_sampson(essential[some], one, two)) / scale, limit_m)
        return out

    def _best(self, agreement: np.ndarray, pick: np.ndarray) -> np.ndarray:
        """Of each detection's partners those that agree best with it and it with them; indices into pick."""
        order = np.argsort(-agreement, kind="stable")
        order = order[agreement[order] > 0.35]
        first = np.unique(self.rows[pick[order], 0], return_index=True)[1]
        second = np.unique(self.rows[pick[order], 1], return_index=True)[1]
        return order[np.intersect1d(first, second)]

    def search(self) -> _Pair | None:
        """The pose about which most bodies agree; None where there is none, or too few agree.

        Random triples of matches give poses (three bodies are far more than eight points), of which the best few are
        polished: matched anew and refined in turn.
        """
        if self.n_instants < AGREED_MIN:
            return None
        random, n = self.random, len(self.rows)
        every = np.arange(n)
        crowd = n / self.n_instants
        n_tries = int(np.clip(12 * crowd**1.5, 60, 600))
        some = np.unique(self.instant)
        some = some[np.linspace(0, len(some) - 1, min(60, len(some))).astype(int)]
        tested = np.flatnonzero(np.isin(self.instant, some))
        ranked = []
        for offset_s in (0.0, -0.1, 0.1):
            picks = random.integers(0, n, (n_tries, 3))
            one, two = self._points(every, offset_s)
            essential = _eight_point(
                one[picks].reshape(n_tries, -1, 3), two[picks].reshape(n_tries, -1, 3), np.ones((n_tries, 1))
            )
            agreement = self._score(essential, tested, offset_s, 1.5 * ROUGH_M)
            # A detection has one true partner: the best one counts.
            order = np.lexsort((self.rows[tested, 0],))
            starts = np.flatnonzero(np.diff(self.rows[tested[order], 0], prepend=-1))
            total = np.maximum.reduceat(agreement[:, order], starts, axis=1).sum(axis=1)
            ranked += [(float(total[i]), offset_s, essential[i]) for i in np.argsort(-total)[:4]]
        ranked.sort(key=lambda entry: -entry[0])
        found = [pair for _, offset_s, e in ranked[:4] if (pair := self._polish(e, offset_s)) is not None]
        return max(found, key=lambda pair: pair.agreed, default=None)

    def _polish(self, essential: np.ndarray, offset_s: float) -> _Pair | None:
        """The pose near an essential matrix; None where what agrees with it is too little or impossible."""
        every = np.arange(len(self.rows))
        agreement = self._score(essential[None], every, offset_s, 1.5 * ROUGH_M)[0]
        for _ in range(3):
            same = self._best(agreement, every)
            if len(same) < AGREED_MIN:
                return None
            one, two = self._points(same, offset_s)
            one, two = one.reshape(1, -1, 3), two.reshape(1, -1, 3)
            off = _sampson(essential[None], one, two)[0, 0] / np.repeat(self.scale[same], len(one[0]) // len(same))
            weight = 1.0 / (1.0 + (off / (0.5 * ROUGH_M)) ** 2)
            essential = _eight_point(one, two, np.nan_to_num(weight)[None])[0]
            agreement = self._score(essential[None], every, offset_s, 1.5 * ROUGH_M)[0]
        same = self._best(agreement, every)
        if len(same) < AGREED_MIN:
            return None
        rotation, direction = self._pose(essential, same, offset_s)
        for _ in range(3):
            rotation, direction, offset_s = self._refine(rotation, direction, offset_s, same)
            essential = crosses(direction) @ rotation
            agreement = self._score(essential[None], every, offset_s, ROUGH_M)[0]
            same = self._best(agreement, every)
            if len(same) < AGREED_MIN or abs(offset_s) > OFFSET_MAX_S:
                return None
        one, two = self._points(same, offset_s)
        z_one, z_two, angle = _depths(rotation, direction, one, two)
        ahead = np.nanmean(((z_one > 0) & (z_two > 0))[np.isfinite(z_one)])
        if ahead < 0.9 or not angle > ANGLE_MIN:
            return None
        total = float(agreement[same].sum())
        if total < AGREED_SHARE * self.n_instants:
            return None
        return _Pair(*self.ends, rotation, direction, offset_s, self.rows[same], total, angle)

    def _pose(self, essential: np.ndarray, same: np.ndarray, offset_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Of the four poses of an essential matrix the one that has people before both cameras."""
        u, _, vt = np.linalg.svd(essential)
        u, vt = u * np.sign(np.linalg.det(u)), vt * np.sign(np.linalg.det(vt))
        w = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        one, two = self._points(same, offset_s)

        def ahead(pose: tuple[np.ndarray, np.ndarray]) -> int:
            z_one, z_two, _ = _depths(*pose, one, two)
            return int(((z_one > 0) & (z_two > 0)).sum())

        return max(((u @ turn @ vt, sign * u[:, 2]) for turn in (w, w.T) for sign in (1.0, -1.0)), key=ahead)

    def _refine(
        self, rotation: np.ndarray, direction: np.ndarray, offset_s: float, same: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Gauss-Newton steps on Sampson distances: turn (3), direction (2), offset (1)."""
        first, second = self.rows[same].T
        one = _homogeneous(self.views.at(first, 0.0)).reshape(-1, 3)
        k = len(one) // len(same)
        scale = np.repeat(self.scale[same], k)
        for _ in range(4):
            two = _homogeneous(self.views.at(second, offset_s)).reshape(-1, 3)
            path = self.views.path[second].reshape(-1, 3, 2)
            speed = path[:, 1] + 2.0 * offset_s * path[:, 2]
            essential = crosses(direction) @ rotation
            turned = one @ rotation.T
            line_two, line_one = one @ essential.T, two @ essential
            norm = np.sqrt((line_two[:, :2] ** 2).sum(1) + (line_one[:, :2] ** 2).sum(1)) * scale
            off = (line_two * two).sum(axis=1) / norm
            tangent = np.linalg.svd(direction[None])[2][1:]
            jacobian = np.empty((len(one), 6))
            # two . (t x (w x R one)) = w . (R one x (two x t))
            jacobian[:, :3] = np.cross(turned, np.cross(two, direction))
            jacobian[:, 3:5] = np.cross(turned, two) @ tangent.T
            jacobian[:, 5] = (line_two[:, :2] * speed).sum(axis=1)
            jacobian /= norm[:, None]
            good = np.isfinite(off) & np.isfinite(jacobian).all(axis=1)
            jacobian, off = jacobian[good], off[good]
            spread = max(1.5 * float(np.median(np.abs(off))), 0.003)
            weight = 1.0 / (1.0 + (off / (2.0 * spread)) ** 2)
            normal = (jacobian * weight[:, None]).T @ jacobian + np.diag([0, 0, 0, 0, 0, (spread / 0.05) ** 2])
            step = np.linalg.solve(normal + 1e-12 * np.eye(6), -(jacobian * weight[:, None]).T @ off)
            rotation = rotation_matrix(step[:3]) @ rotation
            direction = direction + step[3:5] @ tangent
            direction = direction / np.linalg.norm(direction)
            offset_s += float(step[5])
        return rotation, direction, offset_s


def _depths(
    rotation: np.ndarray, direction: np.ndarray, one: np.ndarray, two: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Depths before both cameras in lengths of the direction, and the median angle between the rays."""
    turned = one @ rotation.T
    # z_two * two = z_one * turned + direction
    aa, bb, ab = (turned**2).sum(-1), (two**2).sum(-1), (turned * two).sum(-1)
    at, bt = turned @ direction, two @ direction
    det = np.maximum(aa * bb - ab * ab, 1e-12)
    z_one, z_two = (ab * bt - bb * at) / det, (aa * bt - ab * at) / det
    angle = np.arccos(np.clip(ab / np.sqrt(aa * bb), -1.0, 1.0))
    return z_one, z_two, float(np.nanmedian(angle))


# ---- all cameras -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _People:
    """Bodies located at instants; person n at one instant and at another are two of them.

    Attributes:
        of_row: (n_rows,) whose detection each row of _Views is, -1 for nobody's.
        instant: (n_people,) index.
        points_m: (n_people, K, 3) joints in the cameras' own frame, NaN where they were not located.
        sights: which detections located them; sights.point counts through points.
        points: (n_points,) flat index person * K + joint of each located joint.
    """

    of_row: np.ndarray
    instant: np.ndarray
    points_m: np.ndarray
    sights: Sights
    points: np.ndarray


def _same_people(views: _Views, poses: Poses, placed: np.ndarray, limit_m: float) -> np.ndarray:
    """(n_rows,) number of the person of each detection at its instant, -1 for none: rays that meet, view by view."""
    out = np.full(len(views.view), -1)
    n_people = 0
    rotation, centre = poses.rotation, poses.centre_m
    for rows in views.row[placed].transpose(1, 0, 2):
        rows = rows[rows >= 0]
        if len(rows) < 2:
            continue
        view = views.view[rows]
        ray = _homogeneous(views.at(rows, poses.offset_s[view])) @ rotation[view]  # (n, K, 3)
        a, b = np.triu_indices(len(rows), 1)
        base = centre[view[b]] - centre[view[a]]
        d_a, d_b = ray[a], ray[b]
        aa, bb, ab = (d_a**2).sum(-1), (d_b**2).sum(-1), (d_a * d_b).sum(-1)
        at, bt = (d_a * base[:, None]).sum(-1), (d_b * base[:, None]).sum(-1)
        det = np.maximum(aa * bb - ab * ab, 1e-9)
        z_a, z_b = (bb * at - ab * bt) / det, (ab * at - aa * bt) / det
        off = np.linalg.norm(base[:, None] + z_b[..., None] * d_b - z_a[..., None] * d_a, axis=-1)
        # Rays that meet where a body would look twice as large, or half, are of two people.
        size_a, size_b = z_a * views.scale[rows[a], None], z_b * views.scale[rows[b], None]
        fits = (np.minimum(size_a, size_b) > 0.5) & (np.maximum(size_a, size_b) < 2.0)
        off = np.where(np.isfinite(off), np.where(fits, np.minimum(off, 4 * limit_m), 4 * limit_m), np.nan)
        n_shared = np.isfinite(off).sum(axis=1)
        apart = np.where(n_shared >= JOINTS_MIN, np.nansum(off, axis=1) / np.maximum(n_shared, 1), 1.5 * limit_m)
        apart[view[a] == view[b]] = 1e3
        label = fcluster(linkage(apart, "average"), limit_m, "distance") - 1
        number = np.full(label.max() + 1, -1)
        several = np.flatnonzero(np.bincount(label) > 1)
        number[several] = n_people + np.arange(len(several))
        n_people += len(several)
        out[rows] = number[label]
    return out


def _locate_people(
    views: _Views, poses: Poses, placed: np.ndarray, focal_px: np.ndarray, limit_m: float
) -> _People:
    """Who is who at every instant, and where their joints are."""
    of_row = _same_people(views, poses, placed, limit_m)
    rows = np.flatnonzero(of_row >= 0)
    k = views.path.shape[1]
    n_people = int(of_row.max()) + 1 if len(rows) else 0
    instant = np.zeros(n_people, np.int64)
    instant[of_row[rows]] = views.instant[rows]
    seen = np.full((len(placed), n_people, k, 2), np.nan)
    place = np.searchsorted(placed, views.view[rows])
    seen[place, of_row[rows]] = views.at(rows, poses.offset_s[views.view[rows]])
    # A lens of 1000 pixels for all: what is wanted is a deviation of some centimetres at some metres.
    lens = np.repeat(np.diag([1000.0, 1000.0, 1.0])[None], len(placed), axis=0)
    rig = Rig(
        tuple(map(str, placed)), poses.camera_from_world()[placed], lens, np.zeros((len(placed), 5)), lens[:, :2, 2]
    )
    found = triangulate(rig, np.ascontiguousarray(1000.0 * seen.reshape(len(placed), -1, 2)), sd_px=6.0)
    use = found.agreeing & (found.status == Status.OK)
    point, at_place = np.nonzero(use.T)
    row_of = np.full((len(placed), n_people), -1)
    row_of[place, of_row[rows]] = rows
    person, joint = np.divmod(point, k)
    row = row_of[at_place, person]
    numbers, index = np.unique(point, return_inverse=True)
    sights = Sights(views.view[row], index, joint, views.path[row, joint], focal_px[views.view[row]])
    return _People(of_row, instant, found.points_m.reshape(n_people, k, 3), sights, numbers)


def _adjusted(
    views: _Views, poses: Poses, placed: np.ndarray, focal_px: np.ndarray, limit_m: float, steps: int
) -> tuple[Adjusted, _People]:
    """Locate the people, then adjust cameras and people together; poses of all views, of which the placed are moved."""
    people = _locate_people(views, poses, placed, focal_px, limit_m)
    k = views.path.shape[1]
    sights = people.sights
    inner = Sights(np.searchsorted(placed, sights.view), *(v for key, v in vars(sights).items() if key != "view"))
    start = Poses(poses.rotation[placed], poses.centre_m[placed], poses.offset_s[placed])
    adjusted = adjust(inner, start, people.points_m.reshape(-1, 3)[people.points], k, steps)
    points_m = np.full_like(people.points_m, np.nan)
    points_m.reshape(-1, 3)[people.points] = adjusted.points_m
    return adjusted, _People(people.of_row, people.instant, points_m, inner, people.points)


def _with(poses: Poses, placed: np.ndarray, found: Poses) -> Poses:
    """Poses of all views, of which those placed (n,) are as found, n of them."""
    rotation, centre, offset = poses.rotation.copy(), poses.centre_m.copy(), poses.offset_s.copy()
    rotation[placed], centre[placed], offset[placed] = found.rotation, found.centre_m, found.offset_s
    return Poses(rotation, centre, offset)


class _Growth:
    """Places one camera after another."""

    def __init__(self, views: _Views, pairs: Sequence[_Pair], focal_px: np.ndarray) -> None:
        self.views, self.pairs, self.focal_px = views, pairs, focal_px
        n = len(focal_px)
        self.poses = Poses(np.repeat(np.eye(3)[None], n, axis=0), np.zeros((n, 3)), np.zeros(n))
        self.placed: list[int] = []

    def run(self) -> tuple[Poses, np.ndarray]:
        """Poses of all views, and which are placed, in ascending order."""
        self._begin(max(self.pairs, key=lambda pair: pair.worth))
        people, adjusted_at = self._adjust(12), 2
        while True:
            refused: set[int] = set()
            while (view := self._next(refused)) is not None and not self._add(view, people):
                refused.add(view)
            if view is None:
                break
            if len(self.placed) >= 1.35 * adjusted_at or len(self.placed) < 6:
                people, adjusted_at = self._adjust(8), len(self.placed)
            else:
                placed = np.array(sorted(self.placed))
                people = _locate_people(self.views, self.poses, placed, self.focal_px, ROUGH_M)
        self._adjust(8)
        return self.poses, np.array(sorted(self.placed))

    def _begin(self, pair: _Pair) -> None:
        """Place the cameras of a pair, as far apart as makes bodies about as large as they are."""
        one, two = (_homogeneous(self.views.at(rows, u)) for rows, u in zip(pair.rows.T, (0.0, pair.offset_s)))
        z_one, _, _ = _depths(pair.rotation, pair.direction, one, two)
        length_m = float(np.nanmedian(1.0 / (z_one * self.views.scale[pair.rows[:, 0], None])))
        found = Poses(
            np.stack([np.eye(3), pair.rotation]),
            np.stack([np.zeros(3), -pair.rotation.T @ pair.direction * length_m]),
            np.array([0.0, pair.offset_s]),
        )
        self.placed = [pair.first, pair.second]
        self.poses = _with(self.poses, np.array(self.placed), found)

    def _adjust(self, steps: int) -> _People:
        """Adjust all placed cameras and the people together; the people."""
        placed = np.array(sorted(self.placed))
        adjusted, people = _adjusted(self.views, self.poses, placed, self.focal_px, ROUGH_M, steps)
        self.poses = _with(self.poses, placed, adjusted.poses)
        return people

    def _edges(self, view: int) -> list[tuple[int, _Pair]]:
        """Pairs of a camera with placed ones, and which those are."""
        ends = [(a, p) for p in self.pairs for a, b in ((p.first, p.second), (p.second, p.first)) if b == view]
        return [(known, pair) for known, pair in ends if known in self.placed]

    def _next(self, refused: set[int]) -> int | None:
        """The camera that the placed ones tell most about."""
        worth = {
            view: sum(pair.worth for _, pair in edges)
            for view in range(len(self.focal_px))
            if view not in refused and view not in self.placed and (edges := self._edges(view))
        }
        return max(worth, key=lambda view: worth[view], default=None)

    def _add(self, view: int, people: _People) -> bool:
        """Place a camera; False where what it sees does not fit the people that the others located."""
        best, most = None, 0.0
        for known, pair in sorted(self._edges(view), key=lambda edge: -edge[1].worth)[:6]:
            start = self._guess(known, view, pair, people)
            if start is None:
                continue
            pose, agreed = self._settle(view, start, people)
            if agreed > most:
                best, most = pose, agreed
        seen = (self.views.row[view] >= 0).sum(axis=1)
        possible = np.minimum(seen, np.bincount(people.instant, minlength=len(seen))).sum()
        if best is None or most < max(AGREED_MIN, AGREED_SHARE * possible):
            return False
        self.placed.append(view)
        self.poses = _with(self.poses, np.array([view]), best)
        return True

    def _guess(self, known: int, view: int, pair: _Pair, people: _People) -> Poses | None:
        """From a pair, and a length from where the people of the pair are known to be."""
        ahead = pair.first == known
        rotation = pair.rotation if ahead else pair.rotation.T
        direction = pair.direction if ahead else -pair.rotation.T @ pair.direction
        offset = self.poses.offset_s[known] + (pair.offset_s if ahead else -pair.offset_s)
        mine, theirs = pair.rows[:, 1 if ahead else 0], pair.rows[:, 0 if ahead else 1]
        person = people.of_row[theirs]
        mine, person = mine[person >= 0], person[person >= 0]
        if not len(mine):
            return None
        world = people.points_m[person] - self.poses.centre_m[known]
        turned = world @ (rotation @ self.poses.rotation[known]).T
        seen = _homogeneous(self.views.at(mine, offset))
        # seen x (turned + length * direction) = 0
        a, b = np.cross(seen, direction), np.cross(seen, turned)
        size, length = (a**2).sum(-1).ravel(), (-(a * b).sum(-1) / (a**2).sum(-1)).ravel()
        good = np.isfinite(length)
        if good.sum() < AGREED_MIN:
            return None
        order = np.argsort(length[good])
        total = np.cumsum(size[good][order])
        length_m = float(length[good][order][np.searchsorted(total, 0.5 * total[-1])])
        if length_m <= 0.0:
            return None
        r = rotation @ self.poses.rotation[known]
        centre = self.poses.centre_m[known] - r.T @ direction * length_m
        return Poses(r[None], centre[None], np.array([offset]))

    def _settle(self, view: int, pose: Poses, people: _People) -> tuple[Poses, float]:
        """Adjust one camera to the people who are there, whoever of them it shows."""
        rows = np.flatnonzero(self.views.view == view)
        by_instant = [np.flatnonzero(people.instant == k) for k in range(self.views.row.shape[1])]
        row = np.concatenate([np.repeat(r, len(by_instant[self.views.instant[r]])) for r in rows])
        person = np.concatenate([by_instant[self.views.instant[r]] for r in rows])
        if not len(row):
            return pose, 0.0
        agreed = 0.0
        for limit_m in (3.0 * ROUGH_M, 1.5 * ROUGH_M, ROUGH_M):
            at = (people.points_m[person] - pose.centre_m[0]) @ pose.rotation[0].T
            seen = self.views.at(row, pose.offset_s[0])
            z = np.where(at[..., 2] > 0.1, at[..., 2], np.nan)
            off_m = np.linalg.norm(at[..., :2] / z[..., None] - seen, axis=-1) * z
            agreement = _agreement(off_m, limit_m)
            order = np.argsort(-agreement, kind="stable")
            order = order[agreement[order] > 0.3]
            same = order[np.intersect1d(
                np.unique(row[order], return_index=True)[1], np.unique(person[order], return_index=True)[1]
            )]
            agreed = float(agreement[same].sum())
            if len(same) < AGREED_MIN:
                return pose, 0.0
            path = self.views.path[row[same]]
            point, joint = np.nonzero(np.isfinite(path[:, :, 0, 0]) & np.isfinite(people.points_m[person[same], :, 0]))
            n = len(point)
            sights = Sights(np.zeros(n, int), np.arange(n), joint, path[point, joint], np.full(n, self.focal_px[view]))
            pose = locate(sights, pose, people.points_m[person[same]][point, joint])
        return pose, agreed


# ---- the whole -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """Where cameras are in a frame of their own, about in metres.

    Attributes:
        placed: (n,) indices of the cameras that have a place, ascending; poses and sights are of these.
        poses, adjusted, people: the estimate.
        instants_s: (n_instants,) seconds since the first frame.
        faults: by name, why a camera has no place.
    """

    placed: np.ndarray
    poses: Poses
    adjusted: Adjusted
    people: _People
    instants_s: np.ndarray
    faults: dict[str, str]


def _views(films: Sequence[Film], instants_s: np.ndarray, shift_s: np.ndarray) -> _Views:
    """Every camera's detections about the instants on its clock, which is off by shift_s."""
    row = np.full((len(films), len(instants_s), PEOPLE_MAX), -1)
    parts: list[tuple[np.ndarray, ...]] = []
    n = 0
    for view, film in enumerate(films):
        path, scale = film.paths(instants_s + shift_s[view])
        instant, person = np.nonzero(np.isfinite(path[..., 0, 0]).sum(axis=-1) >= JOINTS_MIN)
        row[view, instant, person] = n + np.arange(len(instant))
        n += len(instant)
        parts.append((np.full(len(instant), view), instant, path[instant, person], scale[instant, person]))
    views, instants, paths, scales = (np.concatenate(part) for part in zip(*parts))
    return _Views(views, instants, row, paths, scales)


def _instants(span_s: float, most: int, random: np.random.Generator) -> np.ndarray:
    """Evenly over the span, each at random in its share: none in step with a camera."""
    n = max(min(most, int(span_s / INSTANT_STEP_S)), 1)
    return (np.arange(n) + random.random(n)) * span_s / n


def solve(films: Sequence[Film], names: Sequence[str], focal_px: np.ndarray, span_s: float) -> Found:
    """Place the cameras of films, none of which is known to be anywhere.

    Args:
        films, names, focal_px: one for each camera.
        span_s: seconds of the recording that are used, from the films' start.

    Raises:
        FusionError: no two cameras can be placed.
    """
    random = np.random.default_rng(_SEED)
    n = len(films)
    rough = _views(films, _instants(span_s, ROUGH_INSTANTS, random), np.zeros(n))
    occupied = np.asarray((rough.row >= 0).any(axis=2))
    shared = (occupied[:, None] & occupied[None]).sum(axis=2)
    np.fill_diagonal(shared, 0)
    wanted: set[tuple[int, int]] = set()
    for view in range(n):
        partners = np.flatnonzero((shared[view] >= PARTNER_SHARE * shared[view].max()) & (shared[view] >= AGREED_MIN))
        wanted |= {(min(view, int(o)), max(view, int(o))) for o in random.permutation(partners)[:PARTNERS]}
    pairs = [pair for a, b in sorted(wanted) if (pair := _PairSearch(rough, a, b, random).search()) is not None]
    if not pairs:
        raise FusionError(_too_little(names, films, occupied, shared))
    poses, placed = _grown(rough, pairs, focal_px)
    instants_s = _instants(span_s, INSTANTS_MAX, random)
    offset_s = poses.offset_s
    views = _views(films, instants_s, offset_s)
    poses = Poses(poses.rotation, poses.centre_m, np.zeros(n))
    for steps in (8, 20):
        adjusted, people = _adjusted(views, poses, placed, focal_px, FINE_M, steps)
        poses = _with(poses, placed, adjusted.poses)
    total_s = offset_s[placed] + adjusted.poses.offset_s
    found = Poses(adjusted.poses.rotation, adjusted.poses.centre_m, total_s)
    left_out = sorted(set(range(n)) - set(placed.tolist()))
    faults = {names[view]: _why_not(view, names, films, occupied, shared, pairs) for view in left_out}
    return Found(placed, found, adjusted, people, instants_s, faults)


def _grown(rough: _Views, pairs: Sequence[_Pair], focal_px: np.ndarray) -> tuple[Poses, np.ndarray]:
    """Poses of all views and which are placed: of the groups that hang together the largest."""
    poses, placed = _Growth(rough, pairs, focal_px).run()
    left = list(pairs)
    for _ in range(STARTS_MAX - 1):
        # A pair of cameras that found no place may belong to another room, or this start was a wrong one.
        left = [pair for pair in left if not {pair.first, pair.second} & set(placed.tolist())]
        rest = {view for pair in left for view in (pair.first, pair.second)}
        if len(rest) <= len(placed):
            break
        other = _Growth(rough, left, focal_px).run()
        if len(other[1]) > len(placed):
            left, (poses, placed) = list(pairs), other
    return poses, placed


def _why_not(
    view: int, names: Sequence[str], films: Sequence[Film], occupied: np.ndarray, shared: np.ndarray,
    pairs: Sequence[_Pair],
) -> str:  # fmt: skip
    """Why a camera has no place."""
    if not len(films[view].t_s):
        return "no frames"
    n_instants = occupied.shape[1]
    if occupied[view].sum() < AGREED_MIN:
        return f"want people at {AGREED_MIN} of {n_instants} instants, got {occupied[view].sum()}"
    if shared[view].max() < AGREED_MIN:
        other = names[int(shared[view].argmax())]
        got = f"got {shared[view].max()} with {other!r}"
        return f"want people at {AGREED_MIN} instants together with another camera, {got}"
    tied = sorted({names[p.first if p.second == view else p.second] for p in pairs if view in (p.first, p.second)})
    if tied:
        return f"what it sees fits {', '.join(tied)} and not the other cameras"
    return "what it sees fits no other camera: wrong intrinsics, a clock far off, or too little movement?"


def _too_little(names: Sequence[str], films: Sequence[Film], occupied: np.ndarray, shared: np.ndarray) -> str:
    silent = [name for name, film in zip(names, films) if not len(film.t_s)]
    """Why no two cameras can be placed."""
    said = f"cameras: want two that see the same people at {AGREED_MIN} instants and agree about them, got none; "
    a, b = divmod(int(np.triu(shared + 1, 1).argmax()), len(shared))
    said += f"most are shared by {names[a]!r} and {names[b]!r}: {shared[a, b]} of {occupied.shape[1]}"
    return said + (f"; without frames: {', '.join(silent)}" if silent else "")
