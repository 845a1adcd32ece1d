"""The tracker: people in 3D from sets of frames, and `reconstruct` from one instant's frames alone.

Tracking by detection: tracks are predicted, detections assigned to them, joints updated by Kalman filters, leftover
detections start new tracks, and tracks without evidence end. State is a struct of arrays with one row per track.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import association as kernels
from fusion._kernels import triangulation
from fusion._kernels.records import Matches
from fusion.errors import ConfigError, ShapeError
from fusion.people.association import Associator, FrameSet
from fusion.people.births import WATCHING_S, Births
from fusion.people.existence import Existence
from fusion.people.geometry import Rig
from fusion.people.health import CameraHealth
from fusion.people.relinking import Relinking
from fusion.people.repositioning import Repositioning
from fusion.people.site import Site
from fusion.people.tracks import CAPACITY, Tracks
from fusion.people.walkers import WALKED_M
from fusion.people.workspace import NOISE_EVERY, POSITION_SD_MAX_M, Description, Workspace, velocity_kept
from fusion.results import People
from fusion.results import Warning as StoreWarning

if TYPE_CHECKING:
    from fusion.observations import Frame
    from fusion.store.layouts import Layout
    from fusion.store.models import Store

# What is known of a body weighs as much as one measurement in this time.
ANCHOR_S = 0.3
# Time over which the usual height of a person's joints is learnt.
LEARNING_S = 3.0
# Steps of the search for a track's joints.
STEPS = 2
# Share of the sets that find a track in which two cameras must do so, for cameras to agree on it: a sixth to a quarter
# where another person's stray detections feed it, a half or more of people who are missed as often as found.
AGREED_MIN = 0.4
# Two tracks whose known joints lie on average this near follow one person.
DUPLICATE_M = 0.15


class Tracker:
    """Follows people through sets of frames.

    Attributes:
        rig: the cameras.
        ignored: detections and keypoints that were not used, by reason.
        health: of the cameras.
        tracks: the table of tracks.
        repositioning: examines cameras that were nudged, and holds where they are believed to be.
    """

    def __init__(self, site: Site) -> None:
        kernels.warm_up()
        self.rig, self.layout = site.rig, site.layout
        self._workspace = Workspace(site.rig, site.layout, site.appearance_dim, CAPACITY)
        self._associator = Associator(site.rig, site.layout, self._workspace)
        self.health = CameraHealth(site, self._workspace.body_var, self._workspace.doubt_var)
        self.tracks = Tracks(self._workspace)
        self._existence = Existence(site, self.tracks, self.health)
        self._births = Births(site, self._workspace, self.tracks, self._associator, self._existence)
        self._relinking = Relinking(site, self._workspace, self.tracks, self._existence)
        self.repositioning = Repositioning(site, self.health)
        self.ignored: Counter[str] = self._associator.ignored
        self._noise_turn = 0
        self._step_s = 0.0
        self._t_ns: int | None = None

    @classmethod
    def of_store(cls, store: Store) -> Tracker:
        """A tracker of a store's people."""
        return cls(Site.of_store(store))

    @property
    def site(self) -> Site:
        """The place, with its cameras where they are believed to be."""
        return self.repositioning.site

    @property
    def disagreeing(self) -> bool:
        """Whether too many cameras contradict the others for people to be placed and named for certain."""
        return self.health.many_moved

    def adopt(self, store: Store) -> None:
        """Continue with a store of the same layout; see `Engine.adopt`."""
        kernels.warm_up()
        held = self.repositioning.adopt(Site.of_store(store), self._t_ns or 0)
        site = self.repositioning.site
        self.health.adopt(site, held)
        self._births.adopt(site)
        self._relinking.adopt(site)
        self._place_cameras()

    def _place_cameras(self) -> None:
        """Continue with cameras where they are believed to be now."""
        site = self.repositioning.site
        self.rig = site.rig
        self._workspace.adopt(site.rig)
        self._associator.rig = site.rig
        self._existence.adopt(site)

    def step(self, frames: Sequence[Frame]) -> People:
        """Track everybody through one set of frames.

        Args:
            frames: each camera at most once, own times, any order.

        Returns:
            Everybody whose place is known, at the newest time of the set.

        Raises:
            ShapeError: a frame's arrays do not fit the store's layout.
        """
        tracks = self.tracks
        packed = self._associator.pack(list(frames))
        if packed is None:
            t_ns = self._t_ns if self._t_ns is not None else max((f.t_ns for f in frames), default=0)
            return self._report(t_ns, self._workspace.describe(tracks.live), False)
        self._align(packed)
        self._predict(packed.t_ns)
        rows = tracks.live
        matches = self._associator.match(packed, rows)
        self._check_cameras(packed, matches)
        described, found = self._update(packed)
        self.repositioning.observe(packed.t_ns, packed.detections, self.tracks, matches)
        # Usually all tracks are named, confirmed and seen, and there is nothing more to do.
        places_m = described.position_m
        if found & triangulation.TENTATIVE_SEEN:
            self._existence.update_tentative(packed, matches, places_m, self._step_s)
        self._existence.update_confirmed(packed, matches)
        if found & triangulation.DOUBTED:
            self._existence.update_doubt(packed, matches, places_m)
        if found & triangulation.FREE:
            self._births.start(packed, matches, self._watching(packed.t_ns))
        changed = tracks.live is not rows
        if changed or found & triangulation.DUPLICATES:
            self._drop_duplicates()
        if tracks.lost or found & triangulation.OVERDUE:
            self._relinking.retire(packed.t_ns, bool(found & triangulation.OVERDUE))
        if changed or found & triangulation.UNNAMED:
            self._relinking.name(packed.t_ns)
        if tracks.live is not rows:
            described = self._workspace.describe(tracks.live)
        hidden = self._existence.any_hidden or found & triangulation.UNSURE
        return self._report(packed.t_ns, described, tracks.live is rows and not hidden)

    # ---- stages of a step --------------------------------------------------------------------------------------------

    def _align(self, frames: FrameSet) -> None:
        """Correct the frames' times: for a set older than the state, and for the cameras' clocks."""
        dt_s = frames.detections.dt_s
        if self._t_ns is not None and frames.t_ns < self._t_ns:
            dt_s += (frames.t_ns - self._t_ns) * 1e-9
            frames.t_ns = self._t_ns
        dt_s -= self.health.offsets_s

    def _predict(self, t_ns: int) -> None:
        self._step_s = 0.0 if self._t_ns is None else (t_ns - self._t_ns) * 1e-9
        if self._step_s > 0.0 and len(self.tracks.live):
            self._workspace.kernels.predict(self.tracks.live, self._step_s)
        self._t_ns = t_ns

    def _check_cameras(self, frames: FrameSet, matches: Matches) -> None:
        """Let the cameras be compared, and drop the detections of those that are not to be trusted."""
        health = self.health
        health.watch_streams(frames.t_ns, frames.detections.has_frame)
        health.update(frames.t_ns, 1.0 / velocity_kept(self._step_s), frames.detections, self.tracks, matches)
        if self.repositioning.step(frames.t_ns):
            health.reposition(self.repositioning.site)
            self._place_cameras()
        if health.moved.any():
            dropped = health.moved[frames.detections.view_of]
            self.ignored["detections: camera was moved"] += int(dropped.sum())
            matches.track_of[dropped] = -2
            matches.detection_of[:, health.moved] = -1
            frames.detections.has_frame[health.moved] = False

    def _update(self, frames: FrameSet) -> tuple[Description, int]:
        """Update all live tracks by their detections; returns their description, and what else needs attention."""
        rows = self.tracks.live
        described = Description.empty(len(rows), self.layout.n_joints)
        self._noise_turn = (self._noise_turn + 1) % NOISE_EVERY
        share, learning = min(self._step_s / ANCHOR_S, 1.0), min(self._step_s / LEARNING_S, 1.0)
        found = self._workspace.kernels.follow(
            rows, frames.t_ns, self._step_s, share, learning, STEPS, self._noise_turn, *described
        )
        return described, found

    def _watching(self, t_ns: int) -> NDArray[np.bool_]:
        """(n_views,) cameras that deliver and are trusted."""
        watching: NDArray[np.bool_] = (self.health.last_frame_ns >= t_ns - int(WATCHING_S * 1e9)) & ~self.health.moved
        return watching

    def _drop_duplicates(self) -> None:
        """End tracks that follow the same person as another.

        The one ends that is tentative, has not walked, was seen in fewer sets, or is younger.
        """
        tracks, live = self.tracks, self.tracks.live
        n = len(live)
        if n < 2:
            return
        same = np.empty((n, n), np.bool_)
        kernels.overlaps(tuple(tracks.states()), DUPLICATE_M, same)
        if not same.any():
            return
        places_m = dict(zip(live.tolist(), self._workspace.places(live)[0].tolist()))

        def seniority(row: int) -> tuple[bool, bool, int, int]:
            # A person who stops beside a coat that was there before is no part of the coat.
            walked = math.dist(tracks.born_m[row], places_m[row]) > WALKED_M
            sets = int(tracks.multi_view_sets[row])
            return bool(tracks.confirmed[row]), walked, sets, -int(tracks.born_ns[row])

        dropped = {b if seniority(live[a]) >= seniority(live[b]) else a for a, b in np.argwhere(same).tolist()}
        for index in dropped:
            tracks.end(int(live[index]))
        tracks.live = np.delete(live, list(dropped))

    def _report(self, t_ns: int, described: Description, all_reportable: bool) -> People:
        """The tracks whose place is known; all_reportable where that was checked already."""
        tracks, rows = self.tracks, self.tracks.live
        if not all_reportable:
            reported = self._existence.reportable(rows, described.position_sd_m, t_ns) & (tracks.track_id[rows] >= 0)
            rows = rows[reported]
            described = Description(*(array[reported] for array in described))
        return self._people(t_ns, rows, described)

    def _people(self, t_ns: int, rows: NDArray[np.int64], described: Description) -> People:
        tracks = self.tracks
        arrays = (
            tracks.track_id[rows], tracks.confirmed[rows], described.position_m, described.position_sd_m,
            described.joints_m, described.joints_sd_m, tracks.seen_ns[rows], tracks.identity[rows],
            self._existence.probability(rows),
        )  # fmt: skip
        for array in arrays:
            array.setflags(write=False)
        return People(t_ns, *arrays)

    def at_once(self, frames: Sequence[Frame], existence_min: float) -> People:
        """Everyone that two cameras agree on in a first set of frames, tentative or not.

        Args:
            frames: as in `step`.
            existence_min: least probability that there is a person.
        """
        t_ns = self.step(frames).t_ns
        tracks = self.tracks
        rows = tracks.live[tracks.multi_view_sets[tracks.live] > 0]
        described = self._workspace.describe(rows)
        kept = (self._existence.probability(rows) >= existence_min) & (described.position_sd_m <= POSITION_SD_MAX_M)
        rows, described = rows[kept], Description(*(array[kept] for array in described))
        for row in rows[tracks.track_id[rows] < 0].tolist():
            tracks.track_id[row] = tracks.new_id()
        return self._people(t_ns, rows, described)

    # ---- for the engine ----------------------------------------------------------------------------------------------

    def vouched(self, track_id: int) -> bool:
        """Whether cameras agree on a reported track: two found it often enough, or no two see its place."""
        tracks = self.tracks
        rows = tracks.live[tracks.track_id[tracks.live] == track_id]
        if not len(rows):
            return False
        together, alone = int(tracks.multi_view_sets[rows[0]]), int(tracks.single_view_sets[rows[0]])
        if together >= AGREED_MIN * (together + alone):
            return True
        places_m, _ = self._workspace.places(rows)
        return bool(self._existence.seeing(places_m, self._watching(self._t_ns or 0)).sum() < 2)

    def ended(self) -> list[int]:
        """Track ids that will never come again, since the last call; the newest of them where calls are far apart."""
        return self.tracks.ended()

    def warnings(self) -> list[StoreWarning]:
        """Faults of cameras that turned out since the last call."""
        return self.health.warnings()


def reconstruct(rig: Rig, layout: Layout, frames: Sequence[Frame], existence_min: float = 0.0) -> People:
    """Locate people in 3D from one instant's frames alone, without history.

    Args:
        rig: the cameras, whose names frames refer to.
        layout: of the frames' keypoints.
        frames: each camera at most once.
        existence_min: least probability, 0 to 1, that there is a person. Cameras that have a view of a place and find
            no one there lower the probability; they never remove a person at 0.

    Returns:
        Every person that at least two cameras agree on, with the probability `existence`. Their ids mean nothing beyond
        this call.

    Raises:
        ConfigError: a frame's camera is not in the rig, or has two frames; existence_min is no probability.
        ShapeError: a frame's keypoints do not fit the layout, or appearance vectors differ in length.

    Warns:
        UserWarning: detections or keypoints were not used: their number and the reason.
    """
    if not 0.0 <= existence_min <= 1.0:
        raise ConfigError(f"reconstruct: existence_min is {existence_min}; pass a probability, 0 to 1")
    cameras = Counter(frame.camera for frame in frames)
    for camera, count in cameras.items():
        if camera not in rig.names:
            known = ", ".join(map(repr, rig.names))
            raise ConfigError(f"reconstruct: camera {camera!r} is not in the rig, which has {known}; name frames alike")
        if count > 1:
            raise ConfigError(f"reconstruct: camera {camera!r} has {count} frames; pass one frame per camera")
    dims = {frame.appearance.shape[1] for frame in frames if frame.appearance is not None}
    if len(dims) > 1:
        raise ShapeError(f"reconstruct: appearance vectors have lengths {sorted(dims)}; pass vectors of one length")
    tracker = Tracker(Site.of_rig(rig, layout, dims.pop() if dims else 0))
    people = tracker.at_once(frames, existence_min)
    for reason, count in tracker.ignored.items():
        warnings.warn(f"reconstruct ignored {count} {reason}", stacklevel=2)
    return people
