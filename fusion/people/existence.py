"""Existence: whether a track follows a person or a ghost (a coat, a mirror image, another person's stray detections).

The evidence is which cameras find a track, and which see its place and find no one there. A sequential test confirms
tentative tracks; confirmed ones are doubted where at most one camera finds them next to a well-seen person, and held
back from the reports where most cameras contradict them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import association as kernels
from fusion._kernels.association import BodyShape, ExistenceModel
from fusion._kernels.records import Matches
from fusion.people.association import FrameSet
from fusion.people.site import Site
from fusion.people.tracks import Tracks
from fusion.people.workspace import POSITION_SD_MAX_M

# Log-likelihood ratio, person : ghost, of a camera that sees a place and finds a person there, or finds none.
# Detectors find 85 % of the people in unobstructed view (others stand in between, too), and a ghost (a coat on its
# hook, a mirror) turns up in half of the views of its place. A track is confirmed at odds of e^3, kept within e^+-5;
# or once the track walks for five sets in a row (a passer-by may pull a ghost along for a moment).
EXISTENCE = ExistenceModel(
    log_found=math.log(0.85 / 0.5), log_missed=math.log(0.15 / 0.5), odds_max=5.0, confirm_odds=3.0, walked_m=1.0,
    walked_sets=5,
)  # fmt: skip
# A body that hides another; the crown is some 12 cm above the nose.
BODY = BodyShape(half_width_m=0.3, height_m=1.7, crown_m=0.12)
# Heights above a place that must be in a camera's picture for it to see the place.
SEEN_AT_M = np.array([1.0, 1.5])
# A track whose detections may be another person's, see DOUBT_MAX_S, stands within this distance of that person.
REACH_M = 0.7
# A track is not reported once cameras have contradicted its place for this long in total, until as much uncontradicted
# time has passed: the person is seen through glass or in a mirror, or has left. Detectors miss people for a few frames,
# hardly all of them at once for longer.
CONTRADICTED_MAX_S = 0.5
# Contradiction is checked this often; after a gap one check counts for at most half of that time, since a single miss
# is chance.
CONTRADICTED_EVERY_S = 0.1
# Sets that must have seen a tentative track before it is reported: two agreeing views, or one alone.
REPORT_MULTI_VIEW_SETS, REPORT_SINGLE_VIEW_SETS = 1, 3


class Existence:
    """Tests, set by set, whether each track follows a person or a ghost.

    Attributes:
        any_hidden: whether a track is held back from the reports because cameras contradict it.
    """

    def __init__(self, site: Site, tracks: Tracks) -> None:
        self._tracks = tracks
        self._n_views = site.rig.n_views
        self._geometry = site.geometry()
        self._checked_ns = 0
        self.any_hidden = False

    def adopt(self, site: Site) -> None:
        """Continue with the same cameras, moved, or with other furniture."""
        self._geometry = site.geometry()

    def seeing(self, places_m: NDArray[np.float64], live: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(n, n_views) which of the live cameras, (n_views,) bool, see places (n, 2) past the furniture."""
        out = np.empty((len(places_m), self._n_views), np.bool_)
        kernels.line_of_sight(places_m, SEEN_AT_M, tuple(self._geometry), live, out)
        return out

    def update(
        self, rows: NDArray[np.int64], found: NDArray[np.bool_], places_m: NDArray[np.float64],
        has_frame: NDArray[np.bool_],
    ) -> None:  # fmt: skip
        """Update the odds of tracks, (n,), that the cameras in `found`, (n, n_views), found at places (n, 2)."""
        tracks = self._tracks
        missed = self.seeing(places_m, has_frame)
        kernels.update_odds(
            rows, found, missed, places_m, tracks.born_m, tuple(EXISTENCE), tracks.log_odds, tracks.sets_away,
            tracks.confirmed,
        )  # fmt: skip

    def update_tentative(self, frames: FrameSet, matches: Matches, places_m: NDArray[np.float64]) -> None:
        """Update the odds of all live tentative tracks that a camera found in this set."""
        found = matches.detection_of >= 0
        tentative = ~self._tracks.confirmed[self._tracks.live] & found.any(axis=1)
        rows = self._tracks.live[tentative]
        self.update(rows, found[tentative], places_m[tentative], frames.detections.has_frame)

    def update_doubt(self, frames: FrameSet, matches: Matches, places_m: NDArray[np.float64]) -> None:
        """Clear the doubt about confirmed tracks that may be real although at most one camera finds them.

        A track stays in doubt if a well-seen track is within reach, and at least two cameras see its place but not the
        person.
        """
        tracks = self._tracks
        found = matches.detection_of >= 0
        n_found = found.sum(axis=1)
        doubted = np.flatnonzero(tracks.confirmed[tracks.live] & (n_found <= 1))
        apart = np.hypot(*(places_m[doubted, None] - places_m[n_found >= 2]).transpose(2, 0, 1))
        beside = (apart < REACH_M).any(axis=1)
        tracks.undoubted_ns[tracks.live[doubted[~beside]]] = frames.t_ns
        doubted = doubted[beside]
        if len(doubted):
            missed = self.seeing(places_m[doubted], frames.detections.has_frame) & ~found[doubted]
            tracks.undoubted_ns[tracks.live[doubted[missed.sum(axis=1) < 2]]] = frames.t_ns

    def update_contradiction(
        self, frames: FrameSet, matches: Matches, places_m: NDArray[np.float64], unreliable: NDArray[np.bool_]
    ) -> None:
        """Count for how long cameras, without unreliable ones (n_views,), contradicted the place of each live track."""
        passed_s = (frames.t_ns - self._checked_ns) * 1e-9
        if passed_s < CONTRADICTED_EVERY_S:
            return
        self._checked_ns = frames.t_ns
        passed_s = min(passed_s, 0.5 * CONTRADICTED_MAX_S)
        tracks, rows = self._tracks, self._tracks.live
        live = frames.detections.has_frame & ~unreliable
        n_found = (matches.detection_of >= 0).sum(axis=1)
        contradicted = tracks.confirmed[rows] & (live.sum() - n_found >= np.maximum(n_found, 2))
        if contradicted.any():
            out = np.empty(len(rows), np.bool_)
            kernels.contradicted(
                tuple(tracks.states()), places_m, matches.detection_of, tuple(self._geometry), live, tuple(BODY), out
            )
            contradicted &= out
        total_s = tracks.contradicted_s[rows] + np.where(contradicted, passed_s, -passed_s)
        tracks.contradicted_s[rows] = total_s = np.clip(total_s, 0.0, 2.0 * CONTRADICTED_MAX_S)
        self.any_hidden = bool((total_s >= CONTRADICTED_MAX_S).any())

    def reportable(self, rows: NDArray[np.int64], position_sd_m: NDArray[np.float64], t_ns: int) -> NDArray[np.bool_]:
        """(n,) which tracks are worth a report: well placed, not contradicted, and confirmed or likely by now."""
        tracks = self._tracks
        likely = (tracks.log_odds[rows] > 0) & (tracks.seen_ns[rows] == t_ns)
        often = tracks.multi_view_sets[rows] >= REPORT_MULTI_VIEW_SETS
        often |= tracks.single_view_sets[rows] >= REPORT_SINGLE_VIEW_SETS
        there = (position_sd_m <= POSITION_SD_MAX_M) & (tracks.contradicted_s[rows] < CONTRADICTED_MAX_S)
        reportable: NDArray[np.bool_] = there & (tracks.confirmed[rows] | (likely & often))
        return reportable
