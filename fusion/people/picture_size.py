"""Picture sizes: whether keypoints are in pixels of the calibrated pictures, or of pictures of another size.

A detector that runs on scaled pictures reports people at scaled coordinates, and later stages place them wrongly. The
positive evidence for a camera is that the rays of its people's joints meet those of another camera, at the heights that
joints have: with the right size they do for most people, with a wrong one for next to none. Where they do not meet, the
sizes that pictures commonly have are tried.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import association as kernels
from fusion._kernels import looks, triangulation
from fusion._kernels.records import Detections
from fusion.people.association import PAIR, compared
from fusion.people.site import Site
from fusion.people.workspace import JOINTS_MIN, KEYPOINT_SD_PX, LANES, SCORE_MIN, body_variance
from fusion.store.shapes import points_inside

if TYPE_CHECKING:
    from fusion.observations import Frame

# A look compares this many people of one camera with this many of each of a few cameras that share its view: some
# hundred pairs, a few tenths of a millisecond.
PEOPLE_LOOKED_AT, PEOPLE_BESIDE, PARTNERS = 6, 8, 4
# Mean cost of two detections' rays up to which they meet: 1 is expected, and half for usual heights.
MEETS_MAX = 4.0
# Time to the next look while too little is known of a camera (of a large store: until enough are known to agree), while
# one does not agree, while all do, and once they did in LOOKS_AGREED looks.
LOOK_NS, LOOK_AGAIN_NS, LOOK_RARELY_NS, LOOK_SELDOM_NS = 150_000_000, 500_000_000, 2_000_000_000, 10_000_000_000
LOOKS_AGREED, CAMERAS_KNOWN = 6, 12
# Share of a camera's people that must meet another camera's. With the right size 0.6 to 1 do, of a real detector's 0.1
# to 0.9 with a median over cameras of 0.5 and more; with a wrong size by chance 0 to 0.2, above that for few cameras.
AGREES_MIN, CONTRADICTED_MAX = 0.35, 0.2
# People of a camera that must have been compared before its share counts; what is older than the second number of them
# counts half, and half again. People of all cameras that must have been compared before all can be contradicted.
COMPARED_MIN, MEMORY, COMPARED_IN_ALL_MIN = 8, 48, 40
# Sizes are tried on this many of the last looks of cameras that do not agree. Another size must make this many people
# meet, and this share of those compared. Sizes are tried again after a while.
LOOKS_TRIED, MET_MIN, FITS_MIN, TRY_AGAIN_NS = 24, 5, 0.35, 5_000_000_000
# Widths of pictures that video and detectors commonly have, ratios to the calibrated picture, and square detectors'
# inputs to which pictures are stretched.
WIDTHS_PX = (320, 416, 480, 512, 640, 704, 720, 800, 960, 1024, 1280, 1600, 1920, 2304, 2560, 3840)
RATIOS = (0.25, 1 / 3, 0.5, 2 / 3, 0.75, 4 / 3, 1.5, 2.0, 3.0, 4.0)
SQUARES_PX = (320, 416, 512, 640, 960, 1280)
# A size this near to the calibrated one, as a share, is no other.
ALIKE = 0.03
# Places on the floor by which cameras are found that share a view; those that share fewer are not compared.
GRID_PLACES, SHARED_MIN = 400, 4
# Belly and face of people who stand there.
_SEEN_AT_M = np.array([1.0, 1.5])


class Size(NamedTuple):
    """Width and height of a picture, pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"


@dataclass(frozen=True, slots=True)
class _Look:
    """People of one camera and of those beside it at about one instant.

    Attributes:
        view: the camera that is looked at; its people come first.
        views: (n,) of each detection; keypoints: (n, K, 3).
        dt_s: (n_views,) each frame's time minus that of the camera's.
    """

    view: int
    views: NDArray[np.int64]
    keypoints: NDArray[np.float64]
    dt_s: NDArray[np.float64]


@dataclass(slots=True)
class _Trial:
    """Sizes that are tried on the looks of some cameras, one at each step.

    Attributes:
        views: the cameras; looks: theirs.
        left: sizes that are still to be tried, (n_views, 2) each.
        best: the sizes that fit best so far, by view; score: how well.
    """

    views: NDArray[np.int64]
    looks: tuple[_Look, ...]
    left: list[NDArray[np.float64]]
    best: dict[int, Size]
    score: float = 0.0


class PictureSizes:
    """Looks at a few people now and then; what it finds is evidence about cameras, never about people.

    Attributes:
        found: size of the pictures that a camera's keypoints fit, by view, where it is not the calibrated one.
        unproved: people were compared, and nothing shows that most cameras are right.
        contradicted: enough people were compared to show that most cameras are wrong.
    """

    def __init__(self, site: Site) -> None:
        self._derive(site)
        n = site.rig.n_views
        self.found: dict[int, Size] = {}
        self.unproved = self.contradicted = False
        self._met, self._compared = np.zeros(n), np.zeros(n)
        self._looks: deque[_Look] = deque(maxlen=LOOKS_TRIED)
        self._turn = self._agreed = 0  # Looks in all, and in a row at which all cameras agreed.
        self._next_ns = self._try_ns = 0
        self._trial: _Trial | None = None

    def _derive(self, site: Site) -> None:
        self._rig, self._lenses = site.rig, site.rig.lenses
        self._focal_px = self._lenses[:, :2].min(axis=1)
        self._view = {name: view for view, name in enumerate(site.rig.names)}
        self._partners = _sharing(site)
        layout = site.layout
        self._n_joints, self._n_padded = layout.n_joints, -(-layout.n_joints // LANES) * LANES
        self._body_var = body_variance(layout, self._n_padded)
        self._heights_m = np.ones((self._n_padded, 2))
        self._heights_m[: layout.n_joints] = layout.heights_m
        self._joints_min = float(min(JOINTS_MIN, layout.n_joints))

    def adopt(self, site: Site) -> None:
        """Continue with the same cameras, in other places or with other pictures: they are looked at again."""
        before = self._rig
        self._derive(site)
        names = ("camera_from_world", "lenses", "size_px")
        if any((getattr(before, name) != getattr(site.rig, name)).any() for name in names):
            self._forget()

    def _forget(self) -> None:
        self._met[:] = self._compared[:] = 0.0
        self._looks.clear()
        self._trial = None
        self.found.clear()
        self._agreed = 0
        self.unproved = self.contradicted = False

    # ---- what is known -----------------------------------------------------------------------------------------------

    def _shares(self) -> list[float]:
        """Share of each camera's people that met another's; NaN where too few were compared."""
        return [
            met / compared if compared >= COMPARED_MIN else math.nan
            for met, compared in zip(self._met.tolist(), self._compared.tolist())
        ]

    def _judge(self, shares: list[float]) -> None:
        """Whether most cameras agree with the others, after a look."""
        known = sorted(share for share in shares if not math.isnan(share))
        usual = 0.5 * (known[(len(known) - 1) // 2] + known[len(known) // 2]) if known else 1.0
        self.unproved = usual < AGREES_MIN
        self.contradicted = usual <= CONTRADICTED_MAX and self._compared.sum() >= COMPARED_IN_ALL_MIN

    # ---- looking -----------------------------------------------------------------------------------------------------

    def step(self, frames: Mapping[str, Frame], now_ns: int) -> list[int]:
        """Look at a set of frames if it is time to; returns cameras whose other size has become known."""
        if now_ns < self._next_ns:
            return []
        if self._trial is not None:
            return self._try_next(self._trial, now_ns)
        self._next_ns = now_ns + LOOK_NS
        seeing = (self._view[name] for name, frame in frames.items() if len(frame.keypoints))
        ready = [view for view in seeing if len(self._partners[view])]
        if not ready:
            return []
        shares, self._turn = self._shares(), self._turn + 1
        unknown = [view for view in ready if math.isnan(shares[view])]
        doubtful = [view for view in ready if shares[view] < AGREES_MIN]
        if unknown:
            if not doubtful and len(shares) - sum(map(math.isnan, shares)) >= CAMERAS_KNOWN:
                self._next_ns = now_ns + LOOK_AGAIN_NS
        else:
            self._agreed = 0 if doubtful else self._agreed + 1
            rarely_ns = LOOK_RARELY_NS if self._agreed < LOOKS_AGREED else LOOK_SELDOM_NS
            self._next_ns = now_ns + (LOOK_AGAIN_NS if doubtful else rarely_ns)
        # In turns, those first of which least is known; a camera that does not agree must not hide one that ceases to.
        views = unknown or (doubtful if doubtful and self._turn % 2 else ready)
        look = self._look(views[self._turn // 2 % len(views)], frames)
        if look is not None:
            shares = self._take(look)
            is_clear = not unknown or self.contradicted
            if is_clear and now_ns >= self._try_ns and any(share <= CONTRADICTED_MAX for share in shares):
                self._begin_trial()
        return []

    def _take(self, look: _Look) -> list[float]:
        """Learn from a look; returns the shares of all cameras."""
        view = look.view
        least, n_compared = self._costs(look, self._rig.size_px)
        if self._compared[view] > MEMORY:
            self._met[view] *= 0.5
            self._compared[view] *= 0.5
        self._met[view] += np.count_nonzero(least < MEETS_MAX)
        self._compared[view] += n_compared
        shares = self._shares()
        if shares[view] >= AGREES_MIN:
            self.found.pop(view, None)
        else:
            self._looks.append(look)
        self._judge(shares)
        return shares

    def _look(self, view: int, frames: Mapping[str, Frame]) -> _Look | None:
        """People of one camera and of its partners; None where no partner sees a person."""
        names = self._rig.names
        frame = frames[names[view]]
        chosen, views, limits = [frame], [view], [PEOPLE_LOOKED_AT]
        dt_s = np.zeros(self._rig.n_views)
        for other in self._partners[view].tolist():
            beside = frames.get(names[other])
            if beside is not None and len(beside.keypoints):
                chosen.append(beside)
                views.append(other)
                limits.append(PEOPLE_BESIDE)
                dt_s[other] = (beside.t_ns - frame.t_ns) * 1e-9
                if len(views) > PARTNERS:
                    break
        if len(views) == 1:
            return None
        people, counts = looks.gather([one.keypoints for one in chosen], limits, self._turn)
        return _Look(view, np.array(views).repeat(counts), people, dt_s)

    def _costs(self, look: _Look, size_px: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
        """How well the people that are looked at meet other cameras', if pictures have sizes (n_views, 2).

        Returns the least cost of each of them, and how many could be compared.
        """
        n, n_views, views, people = len(look.views), self._rig.n_views, look.views, look.keypoints
        factors = self._rig.size_px / size_px
        n_own = int(np.count_nonzero(views == look.view))
        # Each person counts as a view of their own, so that one call undistorts all.
        lens, points_px = np.empty((n, self._lenses.shape[1])), np.empty((n, self._n_joints, 2))
        looks.scale(people, views, factors, self._lenses, points_px, lens)
        normalised = np.empty_like(points_px)
        triangulation.undistort(points_px, lens, normalised)
        x, y, var, seen = np.empty((4, n, self._n_padded), np.float32)
        var_of = KEYPOINT_SD_PX**2 * (factors.max(axis=1) / self._focal_px) ** 2
        n_compared = looks.spread(
            normalised, people, views, var_of, SCORE_MIN, self._joints_min, n_own, x, y, var, seen
        )
        index = np.arange(n)
        # The kernel reads neither which views have a frame nor where their detections start.
        detections = Detections(look.dt_s, np.zeros(n_views, np.bool_), index, views, x, y, var, seen)
        cost = np.empty((n_own, n))
        triangulation.pair_costs(
            index, *compared(detections), self._rig.camera_from_world, self._body_var, self._heights_m, PAIR,
            self._joints_min, cost,
        )  # fmt: skip
        return cost[:, n_own:].min(axis=1), n_compared

    # ---- other sizes -------------------------------------------------------------------------------------------------

    def _begin_trial(self) -> None:
        """Begin to try sizes for the cameras that do not agree, once there are enough looks."""
        views = np.array([view for view, share in enumerate(self._shares()) if not share >= AGREES_MIN])
        looks = tuple(look for look in self._looks if look.view in views)
        if len(looks) >= LOOKS_TRIED // 3:
            self._trial = _Trial(views, looks, _sizes(self._rig.size_px), {})

    def _try_next(self, trial: _Trial, now_ns: int) -> list[int]:
        """Try one size; after the last, returns the cameras for which one has become known."""
        if trial.left:
            self._try(trial, trial.left.pop())
            return []
        self._trial, self._try_ns = None, now_ns + TRY_AGAIN_NS
        new = [view for view, size in trial.best.items() if self.found.get(view) != size]
        self.found.update(trial.best)
        return new

    def _try(self, trial: _Trial, size_px: NDArray[np.float64]) -> None:
        """Let the cameras of a trial have pictures of other sizes, (n_views, 2), and note those that fit."""
        sizes = self._rig.size_px.copy()
        sizes[trial.views] = size_px[trial.views]
        met, compared, scores = np.zeros((3, len(sizes)))
        for look in trial.looks:
            least, n_compared = self._costs(look, sizes)
            close = least[least < MEETS_MAX]
            met[look.view] += len(close)
            compared[look.view] += n_compared
            scores[look.view] += (1.0 - close / MEETS_MAX).sum()
        fits = (met > 0) & (met >= FITS_MIN * compared)
        score = float(scores[fits].sum())
        if met[fits].sum() >= MET_MIN and score > trial.score:
            trial.score = score
            trial.best = {int(v): Size(*np.rint(sizes[v]).astype(int).tolist()) for v in np.flatnonzero(fits)}


def _sizes(size_px: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Sizes that pictures may have, (n_views, 2) each, none of them the calibrated ones (n_views, 2)."""
    width, height = size_px[:, :1], size_px[:, 1:]
    uniform = [size_px * ratio for ratio in RATIOS] + [size_px * (px / width) for px in WIDTHS_PX]
    square = [np.full_like(size_px, px) for px in SQUARES_PX if (width != height).any()]
    found: list[NDArray[np.float64]] = []
    for sizes in uniform + square:
        if all((np.abs(sizes / other - 1.0) > ALIKE).any() for other in (size_px, *found)):
            found.append(sizes)
    return found


def _sharing(site: Site) -> list[NDArray[np.int64]]:
    """For each camera those that see some of its places on the floor, most first."""
    n = site.rig.n_views
    corners = np.array(site.floor, np.float64)
    low, high = corners.min(axis=0), corners.max(axis=0)
    step_m = float(np.sqrt((high - low).prod() / GRID_PLACES))
    axes = [np.arange(a + 0.5 * step_m, b, step_m) for a, b in zip(low, high)]
    x, y = (axis.ravel() for axis in np.meshgrid(*axes))
    inside = points_inside(site.floor, x, y)
    places_m = np.ascontiguousarray(np.stack([x[inside], y[inside]], axis=1))
    sees = np.empty((len(places_m), n), np.bool_)
    kernels.line_of_sight(places_m, _SEEN_AT_M, tuple(site.geometry()), np.ones(n, np.bool_), sees)
    shared = sees.T.astype(np.int64) @ sees.astype(np.int64)
    np.fill_diagonal(shared, 0)
    return [np.array([w for w in np.argsort(-row, kind="stable") if row[w] >= SHARED_MIN], np.int64) for row in shared]
