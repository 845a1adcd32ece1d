"""What upright people say about the one camera that shows them: its focal length, which way is up, and its height.

People of about one stature stand upright on a floor. Where a person's feet are in the picture then determines where the
top of their body is, given the focal length, the direction of up and the camera's height. These are found by robust
least squares over many people. Most boxes of people behind furniture end above their feet, and people bend, so the
loss has a bound (Welsch), and no part of the picture counts more than others because people stand there for long.

Source: Lv, Zhao and Nevatia, Camera Calibration from Video of a Walking Human (2006), for the geometry; Dennis and
Welsch, Techniques for Nonlinear Least Squares and Robust Regression (1978), for the loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

from fusion.observations import Frame
from fusion.setup.box_model import STEP_M
from fusion.setup.reprojection import FloatArray
from fusion.store.layouts import Layout

# Least number of upright people in a camera's pictures.
PEOPLE_MIN = 60
# People in all parts of the picture together, at the start and at the end of the search; cells of the picture.
_PEOPLE_ROUGH, _PEOPLE_FINE, _CELLS = 250, 1200, (12, 8)
# The upper end of a person is within this share of their height in the picture of where it is expected: statures.
_WITHIN_ROUGH, _WITHIN = 0.15, 0.07
# Beforehand: focal length over the picture's width and k1; roll of the picture, tilt and height above the floor. Shops'
# cameras hang upright under a ceiling. The weight of all this is that of a share of the people.
_FOCAL, _FOCAL_SD, _RADIAL_SD, _ROLL_SD = 0.75, 0.4, 0.1, 0.15
_HEIGHT_M, _HEIGHT_SD, _PRIOR_SHARE = 2.6, 0.3, 0.05
_FOCALS_TRIED, _TILTS_TRIED = (0.5, 0.75, 1.2), (0.15, 0.6)
# Focal lengths over the picture's width at which cameras are compared. Cameras of one size have them alike up to this
# share; a camera's people say no more against a focal length than this, in the units of the cost.
_FOCAL_RANGE, _FOCALS_COMPARED, _ALIKE_SD, _CURVE_MAX = (0.3, 1.6), 10, 0.1, 4.0
# A box that ends this near to the picture's edge is cut, pixels; a joint counts from this score.
_EDGE_PX, _SCORE_MIN = 3.0, 0.3


class UprightView(NamedTuple):
    """One camera as upright people show it.

    Attributes:
        focal_px: focal length.
        radial: k1.
        up: (3,) unit vector in the camera's frame.
        height_m: of the camera above the floor, for people of usual stature.
    """

    focal_px: float
    radial: float
    up: FloatArray
    height_m: float


def upright_people(frames: Sequence[Frame], layout: Layout, size: tuple[int, int]) -> FloatArray:
    """(n, 2, 2) picture points of the lower and the upper end of people's bodies.

    For joints the middles of both ankles and of both shoulders; for boxes those of their lower and upper edge, where
    the picture's edge does not cut them.
    """
    if layout.name == "box2":
        ends = [frame.keypoints[:, ::-1] for frame in frames if len(frame.keypoints)]
        if not ends:
            return np.zeros((0, 2, 2))
        box = np.concatenate(ends).astype(float)
        whole = (box[:, :, 2] >= _SCORE_MIN).all(axis=1)
        whole &= (box[:, 1, 1] > _EDGE_PX) & (box[:, 0, 1] < size[1] - 1 - _EDGE_PX)
        return np.asarray(box[whole, :, :2])
    joints = [list(layout.indices(f"l_{joint}", f"r_{joint}")) for joint in ("ankle", "shoulder")]
    found = []
    for frame in frames:
        if len(frame.keypoints):
            points = frame.keypoints[:, joints].astype(float)  # (n, end, side, 3)
            usual = points[..., 2].min(axis=(1, 2)) >= _SCORE_MIN
            found.append(points[usual, :, :, :2].mean(axis=2))
    return np.concatenate(found) if found else np.zeros((0, 2, 2))


def usual_height_m(layout: Layout) -> float:
    """Metres between the two ends of `upright_people`, of a usual person."""
    if layout.name == "box2":
        return float(layout.heights_m[layout.index("box_top"), 0])
    return float(layout.heights_m[layout.index("l_shoulder"), 0] - layout.heights_m[layout.index("l_ankle"), 0])


def find_upright_view(
    people: FloatArray,
    layout: Layout,
    size: tuple[int, int],
    focal_px: float | None = None,
    is_straight: bool = False,
) -> UprightView | None:
    """The camera that shows people (n, 2, 2) as upright; None where there are too few.

    With a known focal length only up, the height and k1 are found; k1 is 0 where the lens is straight.
    """
    radial_sd = 1e-4 if is_straight else _RADIAL_SD
    rough = _upright_fit(people, layout, size, focal_px, radial_sd, _PEOPLE_ROUGH)
    fine = _upright_fit(people, layout, size, focal_px, radial_sd, _PEOPLE_FINE)
    if rough is None or fine is None:
        return None
    focals = [math.log(focal / _FOCAL) for focal in _FOCALS_TRIED] if focal_px is None else [0.0]
    starts = [(focal, tilt) for focal in focals for tilt in _TILTS_TRIED]
    best = min((rough.solved(*start) for start in starts), key=lambda fit: fit[0])
    return fine.view(fine.improved(best[1], _WITHIN, 30)[1])


def find_alike_focal_lengths(
    people: Sequence[FloatArray], layout: Layout, size: tuple[int, int]
) -> list[float | None]:
    """Focal lengths in pixels of cameras with pictures of one size, which are usually of one make.

    A camera's own boxes may fit focal lengths from half to twice the true one equally well. So each camera gets the one
    at which its people look upright, with the one that most cameras agree on as what is expected, to some 10 %.

    Args:
        people: of each camera (n, 2, 2), see `upright_people`.
        layout: of the detections.
        size: of the pictures.

    Returns:
        One for each camera; None where it shows too few people.
    """
    focals = np.geomspace(*_FOCAL_RANGE, _FOCALS_COMPARED)
    fine = np.geomspace(*_FOCAL_RANGE, 20 * _FOCALS_COMPARED)
    curves = []
    for own in people:
        costs = _least_costs(own, layout, size, focals)
        curves.append(None if costs is None else np.interp(np.log(fine), np.log(focals), costs))
    known = [curve - curve.min() for curve in curves if curve is not None]
    if not known:
        return [None] * len(people)
    expected = 0.5 * (np.log(fine / _FOCAL) / _FOCAL_SD) ** 2
    common = fine[(expected + np.sum([np.minimum(curve, _CURVE_MAX) for curve in known], axis=0)).argmin()]
    # Cauchy's: a camera of another make says so.
    belief = np.log1p(0.5 * (np.log(fine / common) / _ALIKE_SD) ** 2)
    return [None if curve is None else float(size[0] * fine[(curve + belief).argmin()]) for curve in curves]


def _least_costs(people: FloatArray, layout: Layout, size: tuple[int, int], focals: FloatArray) -> FloatArray | None:
    """(n,) least cost of one camera's people at focal lengths (n,) over the width; None where there are too few."""
    rough = _upright_fit(people, layout, size, None, _RADIAL_SD, _PEOPLE_ROUGH)
    fine = _upright_fit(people, layout, size, None, _RADIAL_SD, _PEOPLE_FINE)
    if rough is None or fine is None:
        return None
    starts = [np.array([0.0, 0.0, tilt, math.log(_HEIGHT_M)]) for tilt in _TILTS_TRIED]
    costs = []
    for log_focal in np.log(focals / _FOCAL).tolist():
        start = rough.best_at(log_focal, starts, _WITHIN_ROUGH)[1]
        costs.append(fine.best_at(log_focal, [start], _WITHIN)[0])
    return np.array(costs)


def _upright_fit(
    people: FloatArray, layout: Layout, size: tuple[int, int], focal_px: float | None, radial_sd: float, n: int
) -> _UprightFit | None:
    """The fit to about n of the people (n, 2, 2), None where there are too few."""
    length = np.linalg.norm(people[:, 1] - people[:, 0], axis=1)
    people = people[length > 0.02 * size[1]]
    if len(people) < PEOPLE_MIN:
        return None
    return _UprightFit(_spread_out(people, size, n), layout, size, focal_px, radial_sd)


def _spread_out(people: FloatArray, size: tuple[int, int], n: int) -> FloatArray:
    """About n of the people, from all parts of the picture alike."""
    people = people[np.random.default_rng(len(people)).permutation(len(people))]
    at = np.clip(people[:, 0] * _CELLS / np.array(size, float), 0, np.array(_CELLS) - 1).astype(int)
    cell = at[:, 0] * _CELLS[1] + at[:, 1]
    order = np.argsort(cell, kind="stable")
    rank = np.arange(len(cell)) - np.searchsorted(cell[order], cell[order])
    counts = np.bincount(cell)
    # The largest number of people for each cell that makes no more than n.
    each = 1
    while np.minimum(counts, each + 1).sum() <= n and each < counts.max():
        each += 1
    return np.asarray(people[order[rank < each]])


class _UprightFit:
    """Robust least squares over (log focal, k1, roll, tilt, log height)."""

    def __init__(
        self, people: FloatArray, layout: Layout, size: tuple[int, int], focal_px: float | None, radial_sd: float
    ) -> None:
        self._lower, self._upper = people[:, 0], people[:, 1]
        self._is_box = layout.name == "box2"
        self._length_m = usual_height_m(layout)
        self._focal_px = _FOCAL * size[0] if focal_px is None else focal_px
        self._lens_sd = (_FOCAL_SD if focal_px is None else 1e-4, radial_sd)
        self._middle = 0.5 * (np.array(size, float) - 1.0)
        self._length = np.linalg.norm(self._upper - self._lower, axis=1)
        across, down = (self._upper - self._lower).mean(axis=0)
        # Most people stand across the middle of the picture: a picture that is turned shows it by their direction.
        quarter = 0.5 * math.pi
        self._turn = 0.0 if self._is_box else quarter * round(math.atan2(across, -down) / quarter)

    def solved(self, log_focal: float, tilt: float) -> tuple[float, FloatArray]:
        """Cost and unknowns of a rough search from a start."""
        start = np.array([log_focal, 0.0, 0.0, tilt, math.log(_HEIGHT_M)])
        return self.improved(start, _WITHIN_ROUGH, 12)

    def improved(self, unknowns: FloatArray, within: float, n_steps: int) -> tuple[float, FloatArray]:
        """Cost and unknowns after a search; `within` is the loss's scale."""
        found = least_squares(self._losses, unknowns, args=(within,), max_nfev=n_steps)
        return float(found.cost), found.x

    def best_at(self, log_focal: float, starts: Sequence[FloatArray], within: float) -> tuple[float, FloatArray]:
        """Least cost at a focal length, free of what is expected of it, and the other unknowns; from several starts."""

        def losses(others: FloatArray) -> FloatArray:
            return np.delete(self._losses(np.concatenate([[log_focal], others]), within), len(self._length))

        tried = [least_squares(losses, start, max_nfev=12) for start in starts]
        best = min(tried, key=lambda found: found.cost)
        return float(best.cost), best.x

    def view(self, unknowns: FloatArray) -> UprightView:
        """The camera of a solution."""
        focal_px = self._focal_px * math.exp(unknowns[0])
        return UprightView(focal_px, float(unknowns[1]), self._up(unknowns), math.exp(unknowns[4]))

    def _up(self, unknowns: FloatArray) -> FloatArray:
        roll, tilt = self._turn + unknowns[2], unknowns[3]
        return np.array([math.sin(roll) * math.cos(tilt), -math.cos(roll) * math.cos(tilt), -math.sin(tilt)])

    def _losses(self, unknowns: FloatArray, within: float) -> FloatArray:
        off = self._off(unknowns) / self._length[:, None] / within
        welsch = np.sqrt(1.0 - np.exp(-np.minimum((off**2).sum(axis=1), 50.0)))
        prior = unknowns / [*self._lens_sd, _ROLL_SD, 1.0, 1.0]
        prior[3], prior[4] = 0.0, (unknowns[4] - math.log(_HEIGHT_M)) / _HEIGHT_SD
        return np.concatenate([welsch, prior * _PRIOR_SHARE * math.sqrt(len(off))])

    def _off(self, unknowns: FloatArray) -> FloatArray:
        """(n, 1 or 2) pixels from the upper ends to where they are expected."""
        if not self._is_box:
            return self._expected(unknowns, self._lower) - self._upper
        # A box has its middle between the person's lower and upper end, which need not be above each other.
        lower = self._lower.copy()
        for _ in range(2):
            upper, beside = self._expected(unknowns, lower), self._expected(unknowns, lower + np.array([1.0, 0.0]))
            slope = np.maximum(1.0 + beside[:, 0] - upper[:, 0], 0.5)
            lower[:, 0] -= (lower[:, 0] + upper[:, 0] - 2.0 * self._lower[:, 0]) / slope
        return (self._expected(unknowns, lower) - self._upper)[:, 1:]

    def _expected(self, unknowns: FloatArray, lower: FloatArray) -> FloatArray:
        """(n, 2) picture points of the upper ends of people with these lower ends."""
        focal_px, up = self._focal_px * math.exp(unknowns[0]), self._up(unknowns)
        shown = (lower - self._middle) / focal_px
        ideal = shown
        for _ in range(4):
            ideal = shown / np.maximum(1.0 + unknowns[1] * np.minimum((ideal**2).sum(axis=1), 2.0), 0.3)[:, None]
        ray = np.concatenate([ideal, np.ones((len(ideal), 1))], axis=1)
        # The camera is in the origin, the floor at -height along up; feet are below the horizon.
        foot_m = ray * (math.exp(unknowns[4]) / np.maximum(-(ray @ up), 1e-2))[:, None]
        top_m = foot_m + self._length_m * up
        if self._is_box:
            # A box ends at the foot that is nearest to the camera: the body is a step further away.
            away = foot_m - (foot_m @ up)[:, None] * up
            top_m += STEP_M * away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6)
        ideal = top_m[:, :2] / np.maximum(top_m[:, 2:], 0.05)
        radial = 1.0 + unknowns[1] * np.minimum((ideal**2).sum(axis=1), 2.0)
        return np.asarray(ideal * radial[:, None] * focal_px + self._middle)
