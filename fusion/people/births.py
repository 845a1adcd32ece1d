"""Births: new tracks from detections that belong to no track."""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import association as kernels
from fusion._kernels.records import Matches
from fusion.people.association import Associator, FrameSet, Groups
from fusion.people.existence import Existence
from fusion.people.site import Site
from fusion.people.tracks import Tracks
from fusion.people.workspace import MATCH_GATE, Workspace
from fusion.store.shapes import inside_polygon

# Steps of the search for a newborn's joints, and those at its start in which every view has full weight.
STEPS_AT_BIRTH, PLAIN_AT_BIRTH = 7, 2
# Standard deviation of a joint about the place of a body when nothing else is known, metres.
JOINT_SPREAD_M = 0.35
# A birth this near to a well-placed track, on the floor, is that person seen badly.
CROWDING_M = 0.30
# Joints that one camera must see for a birth from its view alone, or all where the layout has fewer.
JOINTS_ALONE_MIN = 8
# Sum of the two variances of a place up to which one camera's view may start a track, m^2; how far outside the floor.
ALONE_VAR_MAX_M2, OUTSIDE_MAX_M = 2.0, 1.0
# Views of one place, a square of CELL_M on the floor, that are compared to find who is born there; the other views are
# assigned to the newborn. Pairs of detections grow with the square of the views, and a dozen leave no doubt.
VIEWS_AT_BIRTH_MAX, CELL_M = 12, 2.0
# Up to so many detections, comparing all takes less time than choosing among them: 0.3 ms for a thousand pairs.
COMPARED_MAX = 4 * VIEWS_AT_BIRTH_MAX
# A camera that delivered a frame within this time watches its view.
WATCHING_S = 0.5


class _Candidates(NamedTuple):
    """n bodies to be fitted to detections, a claimed row each: about where they stand and what shows them.

    members: (n,) lists of detections; places_m (n, 2); covs_m2 (n, 3), covariance xx, yx, yy of the place.
    """

    rows: list[int]
    members: list[NDArray[np.int64]]
    places_m: NDArray[np.float64]
    covs_m2: NDArray[np.float64]


class _Fitted(NamedTuple):
    """Fitted bodies: detections (n, n_views) or -1, how many of these, places with deviations, and which are bodies."""

    detection_of: NDArray[np.int64]
    n_views: NDArray[np.int64]
    places_m: NDArray[np.float64]
    places_sd_m: NDArray[np.float64]
    plausible: NDArray[np.bool_]


class _Crowd:
    """Places of the live tracks while tracks are born: a birth beside a well-placed track is that person seen badly."""

    def __init__(self, rows: NDArray[np.int64], places_m: NDArray[np.float64], sd_m: NDArray[np.float64]) -> None:
        self._at: dict[int, tuple[float, float]] = {}
        # Rows by square of the floor, as wide as a crowd is near: only nine squares can hold one.
        self._rows_in: dict[tuple[int, int], list[int]] = {}
        for row, place_m, sd in zip(rows.tolist(), places_m, sd_m.tolist()):
            self.add(row, place_m, sd)

    @staticmethod
    def _square(x: float, y: float) -> tuple[int, int]:
        return math.floor(x / CROWDING_M), math.floor(y / CROWDING_M)

    def holds(self, place_m: NDArray[np.float64]) -> bool:
        """Whether a well-placed track stands at a place."""
        at = x, y = float(place_m[0]), float(place_m[1])
        i, j = self._square(x, y)
        squares = [(i + k, j + m) for k in (-1, 0, 1) for m in (-1, 0, 1)]
        near = (row for square in squares for row in self._rows_in.get(square, ()))
        return any(math.dist(self._at[row], at) < CROWDING_M for row in near)

    def add(self, row: int, place_m: NDArray[np.float64], sd_m: float) -> None:
        """A track stands at a place now."""
        if sd_m < CROWDING_M:
            x, y = float(place_m[0]), float(place_m[1])
            self._at[row] = x, y
            self._rows_in.setdefault(self._square(x, y), []).append(row)

    def remove(self, row: int) -> tuple[float, float] | None:
        """Leave a track out; returns its place where it was well-placed."""
        at = self._at.pop(row, None)
        if at is not None:
            self._rows_in[self._square(*at)].remove(row)
        return at


class Births:
    """Starts tracks; `ignored` of the associator counts births that found no free row."""

    def __init__(
        self, site: Site, workspace: Workspace, tracks: Tracks, associator: Associator, existence: Existence
    ) -> None:
        self._workspace, self._tracks, self._existence = workspace, tracks, existence
        self._associator = associator
        self._floor = site.floor
        self._layout = site.layout
        # The state of a person when nothing but the place is known.
        n_padded = workspace.n_padded
        self._mean, self._cov = np.zeros((6, n_padded)), np.zeros((21, n_padded))
        self._mean[2] = associator.heights_m[:, 0]
        self._cov[5] = JOINT_SPREAD_M**2
        self._cov[[9, 14, 20]] = workspace.speed_var
        # The newborn of a set: row, detections by view, place.
        self._born: list[tuple[int, NDArray[np.int64], NDArray[np.float64]]] = []

    def adopt(self, site: Site) -> None:
        """Continue with another floor."""
        self._floor = site.floor

    def start(self, frames: FrameSet, matches: Matches, watching: NDArray[np.bool_]) -> None:
        """Start tracks from the free detections of a set.

        Args:
            frames: the set.
            matches: its assignment to the live tracks.
            watching: (n_views,) cameras that would see a person before them.
        """
        rows = self._tracks.live
        free = np.flatnonzero(matches.track_of == -1)
        # A track that only ever one camera saw may be placed wrongly: its detection may group with others elsewhere.
        alone = self._seen_by_one(matches.detection_of)
        if alone:
            free = np.sort(np.append(free, list(alone)))
        compared = self._in_few_views(frames, free)
        groups = self._associator.group(frames, compared)
        crowd: _Crowd | None = None
        if groups.members:
            crowd = _Crowd(rows, *self._workspace.places(rows))
            self._begin_groups(frames, groups, alone, crowd)
        singles = [detection for detection in groups.single.tolist() if detection not in alone]
        if singles:
            self._begin_alone(frames, np.array(singles), watching, crowd)
        if self._born:
            self._weigh(frames, rows, matches, len(compared) < len(free))

    def _in_few_views(self, frames: FrameSet, free: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of many detections (n,) whose views show a place that fewer than VIEWS_AT_BIRTH_MAX before show."""
        if len(free) <= COMPARED_MAX:
            return free
        view_of = frames.detections.view_of[free]
        views = np.unique(view_of).tolist()
        if len(views) <= VIEWS_AT_BIRTH_MAX:
            return free
        cells: dict[int, set[tuple[float, float]]] = {view: set() for view in views}
        for view, detection in zip(view_of.tolist(), free.tolist()):
            place = self._associator.place_by_height(frames, detection)
            if math.isfinite(place.x_m):
                cells[view].add((place.x_m // CELL_M, place.y_m // CELL_M))
        n_views: Counter[tuple[float, float]] = Counter()
        kept = []
        for view in views:
            # A detection without a place may be anywhere.
            if not cells[view] or any(n_views[cell] < VIEWS_AT_BIRTH_MAX for cell in cells[view]):
                n_views.update(cells[view])
                kept.append(view)
        return free[np.isin(view_of, kept)]

    def _weigh(self, frames: FrameSet, rows: NDArray[np.int64], matches: Matches, further: bool) -> None:
        """Weigh the evidence for the newborn together, since each may stand in front of another.

        further: whether views that were not compared may show them as well.
        """
        tracks = self._tracks
        found = np.zeros((len(tracks.track_id), len(frames.detections.has_frame)), np.bool_)
        found[rows] = matches.detection_of >= 0
        for row, detection_of, _ in self._born:
            found[row] = detection_of >= 0
        # Live tracks stand in the order of their births.
        who = np.flatnonzero(np.isin(tracks.live, [row for row, _, _ in self._born]))
        places_m = np.stack([place_m for _, _, place_m in self._born])
        if further:
            newborn, was_free = np.array([row for row, _, _ in self._born]), matches.track_of == -1
            shown_in = self._associator.match(frames, newborn).detection_of
            found[newborn] |= (shown_in >= 0) & was_free[shown_in]
        self._born = []
        self._existence.update(frames, who, found[tracks.live], places_m, 0.0)

    def _seen_by_one(self, detection_of: NDArray[np.int64]) -> dict[int, int]:
        """Rows of tracks that never more than one camera saw, by their detection in this set."""
        tracks = self._tracks
        only = np.flatnonzero(tracks.multi_view_sets[tracks.live] == 0)
        found = detection_of[only]
        once = (found >= 0).sum(axis=1) == 1
        return dict(zip(found[once].max(axis=1, initial=-1).tolist(), tracks.live[only[once]].tolist()))

    def _claim(self) -> int | None:
        """A free row, None where there is none."""
        if not self._tracks.n_free:
            self._associator.ignored["people: more than can be followed at once"] += 1
            return None
        return self._tracks.claim()

    def _begin_groups(self, frames: FrameSet, groups: Groups, alone: dict[int, int], crowd: _Crowd) -> None:
        """Start a track from each group of detections, or move the one track that one of these belongs to."""
        ws = self._workspace
        state = ws.mean, ws.cov, ws.heights_m, ws.limb_lengths_m
        rows, chosen = [], []
        # What the rows of tracks that may move hold: a body that is fitted to them may be none.
        before: dict[int, list[NDArray[np.float64]]] = {}
        for k, members in enumerate(groups.members):
            known = [alone[detection] for detection in members.tolist() if detection in alone]
            if len(known) > 1:
                continue
            row = known[0] if known else self._claim()
            if row is None:
                continue
            if known:
                before[row] = [array[row].copy() for array in state]
            rows.append(row)
            chosen.append(k)
        if not rows:
            return
        places_m = np.stack([groups.places_m[k][:2] for k in chosen])
        spread = np.tile([JOINT_SPREAD_M**2, 0.0, JOINT_SPREAD_M**2], (len(rows), 1))
        who = _Candidates(rows, [groups.members[k] for k in chosen], places_m, spread)
        fitted = self._fit(frames, who)
        for k, row in enumerate(rows):
            if row not in before:
                self._accept(frames, row, fitted, k, crowd)
            elif not self._move(row, fitted, k, crowd):
                for array, old in zip(state, before[row]):
                    array[row] = old

    def _begin_alone(
        self, frames: FrameSet, singles: NDArray[np.int64], watching: NDArray[np.bool_], crowd: _Crowd | None
    ) -> None:
        """Start tracks from one camera's views, unless other cameras see the places and should see the people too."""
        n_seen = frames.detections.seen[singles].sum(axis=1)
        found, places = [], []
        for detection in singles[n_seen >= min(JOINTS_ALONE_MIN, self._layout.n_joints)].tolist():
            place = self._associator.place_by_height(frames, detection)
            near_floor = math.isfinite(place.x_m) and inside_polygon(self._floor, place.x_m, place.y_m, OUTSIDE_MAX_M)
            if near_floor and place.xx_m2 + place.yy_m2 <= ALONE_VAR_MAX_M2:
                found.append(detection)
                places.append(place)
        if not found:
            return
        at = np.array(places)
        unseen = self._existence.seeing(np.ascontiguousarray(at[:, :2]), watching).sum(axis=1) <= 1
        for k in np.flatnonzero(unseen).tolist():
            row = self._claim()
            if row is None:
                continue
            if crowd is None:
                crowd = _Crowd(self._tracks.live, *self._workspace.places(self._tracks.live))
            who = _Candidates([row], [np.array([found[k]])], at[k : k + 1, :2], at[k : k + 1, 2:] + [0.04, 0.0, 0.04])
            self._accept(frames, row, self._fit(frames, who), 0, crowd)

    def _accept(self, frames: FrameSet, row: int, fitted: _Fitted, k: int, crowd: _Crowd) -> None:
        """Start the track of a fitted body in its claimed row, if it is a body and the place is free."""
        tracks, place_m = self._tracks, fitted.places_m[k]
        if not fitted.plausible[k] or crowd.holds(place_m):
            tracks.release(row)
            return
        detection_of = fitted.detection_of[k]
        tracks.begin(row, frames.t_ns, place_m, int(fitted.n_views[k]))
        if frames.appearance is not None:
            mean = frames.appearance[detection_of[detection_of >= 0]].mean(axis=0)
            tracks.track_appearance[row] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        tracks.add(row)
        crowd.add(row, place_m, float(fitted.places_sd_m[k]))
        self._born.append((row, detection_of, place_m))

    def _move(self, row: int, fitted: _Fitted, k: int, crowd: _Crowd) -> bool:
        """Move a track that one camera placed to where several cameras see the person; returns whether it moved."""
        tracks, place_m = self._tracks, fitted.places_m[k]
        tracks.remove(row)
        before_m = crowd.remove(row)
        moves = bool(fitted.plausible[k]) and not crowd.holds(place_m)
        if moves:
            tracks.multi_view_sets[row] = 1
            crowd.add(row, place_m, float(fitted.places_sd_m[k]))
        elif before_m is not None:
            crowd.add(row, np.array(before_m), 0.0)
        tracks.add(row)
        return moves

    def _fit(self, frames: FrameSet, who: _Candidates) -> _Fitted:
        """Fit bodies to their detections, in their rows."""
        ws, rows, n = self._workspace, np.array(who.rows), len(who.rows)
        ws.heights_m[rows] = self._mean[2]
        ws.limb_lengths_m[rows] = self._layout.limb_lengths_m[:, 0]
        n_views = len(ws.has_frame)
        detection_of = np.full((n, n_views), -1, np.int64)
        for k, members in enumerate(who.members):
            detection_of[k, frames.detections.view_of[members]] = members
        n_members = np.array([len(members) for members in who.members])
        sums, counts = np.empty((2, n, n_views))

        def measure(some: NDArray[np.int64]) -> None:
            which = rows[some]
            ws.mean[which], ws.cov[which] = self._mean, self._cov
            ws.mean[which, :2] = who.places_m[some, :, None]
            ws.cov[which, :3] = who.covs_m2[some, :, None]
            ws.kernels.measure(
                which, detection_of[some], 0.0, 1.0, STEPS_AT_BIRTH, PLAIN_AT_BIRTH, -1, sums[: len(some)],
                counts[: len(some)],
            )  # fmt: skip

        measure(np.arange(n))
        # A view that does not fit what the others agree on shows another person: fit again without it.
        outliers = (detection_of >= 0) & (sums > MATCH_GATE * np.maximum(counts, 1.0)) & (n_members > 1)[:, None]
        detection_of[outliers] = -1
        n_found = (detection_of >= 0).sum(axis=1)
        again = np.flatnonzero(outliers.any(axis=1) & (n_found >= 2))
        if len(again):
            measure(again)
        places_m, sd_m = ws.places(rows)
        plausible = n_found >= np.minimum(2, n_members)
        for k in np.flatnonzero(plausible).tolist():
            plausible[k] = kernels.plausible(ws.mean[rows[k]], ws.cov[rows[k]], ws.n_joints)
        return _Fitted(detection_of, n_found, places_m, sd_m, plausible)
