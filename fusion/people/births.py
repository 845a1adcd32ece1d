"""Births: new tracks from detections that belong to no track."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import association as kernels
from fusion._kernels.records import Matches
from fusion.people.association import Associator, FrameSet
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
# A camera that delivered a frame within this time watches its view.
WATCHING_S = 0.5


class _Body(NamedTuple):
    """A plausible newborn: its detections (1, n_views) or -1, the number of views, and its place (2,)."""

    detection_of: NDArray[np.int64]
    n_views: int
    place_m: NDArray[np.float64]


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
        self._born: list[tuple[int, _Body]] = []

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
        groups = self._associator.group(frames, free)
        for members, place_m in zip(groups.members, groups.places_m):
            known = [detection for detection in members.tolist() if detection in alone]
            if not known:
                self._begin(frames, members, place_m[:2], np.array([JOINT_SPREAD_M**2, 0.0, JOINT_SPREAD_M**2]))
            elif len(known) == 1:
                self._place_again(frames, members, place_m[:2], alone[known[0]])
        for detection in groups.single.tolist():
            if detection not in alone:
                self._begin_alone(frames, detection, watching)
        if self._born:
            self._weigh(frames, rows, matches)

    def _weigh(self, frames: FrameSet, rows: NDArray[np.int64], matches: Matches) -> None:
        """Weigh the evidence for the newborn together, since each may stand in front of another."""
        tracks = self._tracks
        found = np.zeros((len(tracks.track_id), len(frames.detections.has_frame)), np.bool_)
        found[rows] = matches.detection_of >= 0
        for row, body in self._born:
            found[row] = body.detection_of[0] >= 0
        # Live tracks stand in the order of their births.
        who = np.flatnonzero(np.isin(tracks.live, [row for row, _ in self._born]))
        places_m = np.stack([body.place_m for _, body in self._born])
        self._born = []
        self._existence.update(frames, who, found[tracks.live], places_m, 0.0)

    def _seen_by_one(self, detection_of: NDArray[np.int64]) -> dict[int, int]:
        """Rows of tracks that never more than one camera saw, by their detection in this set."""
        tracks = self._tracks
        only = (tracks.multi_view_sets[tracks.live] == 0) & ((detection_of >= 0).sum(axis=1) == 1)
        return {int(detection_of[i].max()): int(tracks.live[i]) for i in np.flatnonzero(only)}

    def _begin_alone(self, frames: FrameSet, detection: int, watching: NDArray[np.bool_]) -> None:
        """Start a track from one camera's view, unless other cameras see the place and should see the person too."""
        if frames.detections.seen[detection].sum() < min(JOINTS_ALONE_MIN, self._layout.n_joints):
            return
        x, y, xx, yx, yy = self._associator.place_by_height(frames, detection)
        near_floor = np.isfinite(x) and inside_polygon(self._floor, x, y, OUTSIDE_MAX_M)
        if not near_floor or xx + yy > ALONE_VAR_MAX_M2:
            return
        if self._existence.seeing(np.array([[x, y]]), watching).sum() > 1:
            return
        self._begin(frames, np.array([detection]), np.array([x, y]), np.array([xx + 0.04, yx, yy + 0.04]))

    def _begin(
        self, frames: FrameSet, members: NDArray[np.int64], place_m: NDArray[np.float64], cov_m2: NDArray[np.float64]
    ) -> None:
        """Start a track from detections (n,) of a person at about a place (2,); covariance xx, yx, yy (3,)."""
        tracks = self._tracks
        if not tracks.n_free:
            self._associator.ignored["people: more than can be followed at once"] += 1
            return
        row = tracks.claim()
        body = self._fit(row, frames, members, place_m, cov_m2)
        if body is None:
            tracks.release(row)
            return
        tracks.begin(row, frames.t_ns, body.place_m, body.n_views)
        if frames.appearance is not None:
            mean = frames.appearance[body.detection_of[body.detection_of >= 0]].mean(axis=0)
            tracks.track_appearance[row] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        tracks.add(row)
        self._born.append((row, body))

    def _place_again(
        self, frames: FrameSet, members: NDArray[np.int64], place_m: NDArray[np.float64], row: int
    ) -> None:
        """Move a track that one camera placed to where several cameras see the person."""
        ws, tracks = self._workspace, self._tracks
        state = ws.mean, ws.cov, ws.heights_m, ws.limb_lengths_m
        before = [array[row].copy() for array in state]
        tracks.remove(row)
        spread = np.array([JOINT_SPREAD_M**2, 0.0, JOINT_SPREAD_M**2])
        if self._fit(row, frames, members, place_m, spread) is None:
            for array, old in zip(state, before):
                array[row] = old
        else:
            tracks.multi_view_sets[row] = 1
        tracks.add(row)

    def _fit(
        self, row: int, frames: FrameSet, members: NDArray[np.int64], place_m: NDArray[np.float64],
        cov_m2: NDArray[np.float64],
    ) -> _Body | None:  # fmt: skip
        """Fit a body to detections, in a row; None where there is none, or where a well-placed track stands already."""
        ws = self._workspace
        mean, cov = ws.mean[row], ws.cov[row]
        ws.heights_m[row] = self._mean[2]
        ws.limb_lengths_m[row] = self._layout.limb_lengths_m[:, 0]
        n_views = len(ws.has_frame)
        detection_of = np.full((1, n_views), -1, np.int64)
        detection_of[0, frames.detections.view_of[members]] = members
        rows = np.array([row])
        sums, counts = np.empty((2, 1, n_views))

        def measure() -> None:
            mean[:], cov[:] = self._mean, self._cov
            mean[0], mean[1] = place_m
            cov[0], cov[1], cov[2] = cov_m2
            ws.kernels.measure(rows, detection_of, 0.0, 1.0, STEPS_AT_BIRTH, PLAIN_AT_BIRTH, -1, sums, counts)

        measure()
        n_found = len(members)
        outliers = sums > MATCH_GATE * np.maximum(counts, 1.0)
        if n_found > 1 and (outliers & (detection_of >= 0)).any():
            # A view that does not fit what the others agree on shows another person: fit again without it.
            detection_of[outliers] = -1
            n_found = int((detection_of >= 0).sum())
            if n_found >= 2:
                measure()
        places_m, _ = ws.places(rows)
        enough = n_found >= min(2, len(members))
        if not enough or not kernels.plausible(mean, cov, ws.n_joints) or self._crowded(places_m[0]):
            return None
        return _Body(detection_of, n_found, places_m[0])

    def _crowded(self, place_m: NDArray[np.float64]) -> bool:
        """Whether a well-placed track stands at a place already."""
        if not len(self._tracks.live):
            return False
        places_m, sd_m = self._workspace.places(self._tracks.live)
        return bool(((np.hypot(*(places_m - place_m).T) < CROWDING_M) & (sd_m < CROWDING_M)).any())
