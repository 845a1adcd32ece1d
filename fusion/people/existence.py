"""Existence: whether a track follows a person or a ghost (a coat, a mirror image, another person's stray detections).

The evidence is which cameras find a track, and which see its place and find no one there, weighed with how often each
camera is known to miss people. A sequential test confirms tentative tracks. Confirmed ones that at most one camera
finds are doubted next to a well-seen person, and held back from the reports once the misses of the others outweigh how
rarely people vanish; what two cameras find is never held back.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import association as kernels
from fusion._kernels import presence
from fusion._kernels.presence import ExistenceModel
from fusion._kernels.records import Matches
from fusion.people.association import FrameSet
from fusion.people.health import CameraHealth
from fusion.people.looks import miss_rates, outlook
from fusion.people.site import Site
from fusion.people.tracks import CAPACITY, Tracks
from fusion.people.walkers import WALKED_M
from fusion.people.workspace import POSITION_SD_MAX_M

# Detections of one person may feed a track within this distance.
REACH_M = 0.7
# A ghost shows in half of the views of its place. What the store does not list (a poster, glare, a bag) hides a person
# from a view with a probability of 0.02. Stray detections find one track in 30 looks where no one is near, one in seven
# beside a person. A track is confirmed at odds of e^5, kept between e^-3.6 and e^8; or once it walks for five sets in a
# row (a passer-by may pull a ghost along for a moment). What hides a person changes within half a metre, about a body's
# width; the track of a coat or a poster wanders by up to 0.3 m, as stray detections are added.
EXISTENCE = ExistenceModel(
    shows=0.45, blocked=0.02, stray=0.03, stray_beside=0.15, explained=0.5, reach_m=REACH_M, person_max=3.5,
    flicker_max=2.6, odds_min=-3.6, odds_max=8.0, confirm_odds=5.0, held_back_odds=0.1, walked_m=WALKED_M,
    walked_sets=5, hidden_within_m=0.5, wander_m=0.3, memory=300.0,
)  # fmt: skip
_MODEL = tuple(EXISTENCE)
# Least probability that a confirmed track follows a person.
_CONFIRMED = 1.0 / (1.0 + math.exp(-EXISTENCE.confirm_odds))
# The same for every track; a view of it is what most sets report.
_ALL_CONFIRMED = np.full(CAPACITY, _CONFIRMED)
_ALL_CONFIRMED.setflags(write=False)
# A ghost that comes by chance (detections of several people that meet) is gone after this time.
STAYS_S = 0.5
# A view that no longer looks at a place forgets in this time what it showed there.
FORGETS_S = 0.5
# Heights above a place that must be in a camera's picture for it to see the place.
SEEN_AT_M = np.array([1.0, 1.5])
# Confirmed tracks are weighed this often.
WEIGH_EVERY_S = 0.1
# Log odds by which a track that is well seen recovers in a second.
RECOVERS_PER_S = 5.0
# Log odds by which a view's showing what it finds rises in a second where the track is well seen.
RISES_PER_S = 7.0
# After a gap one look counts for at most this time.
PASSED_MAX_S = 0.3
# Share of an independent look in WEIGH_EVERY_S before any data, and its weight in looks: misses last for half a second.
SHARE_PRIOR, SHARE_WEIGHT, SHARE_MIN = 0.3, 10.0, 0.03
# Sets that must have seen a tentative track before it is reported: two agreeing views, or one alone.
REPORT_MULTI_VIEW_SETS, REPORT_SINGLE_VIEW_SETS = 1, 3
# Log odds of a track that is reported from its first set with two views on; two views alone may meet by chance.
AT_ONCE_ODDS = 1.3
# Miss rates are brought up to date this often, or in every set before as many looks have been learnt from.
RATES_EVERY_S, LOOKS_KNOWN = 0.25, 100.0


class Existence:
    """Tests, set by set, whether each track follows a person or a ghost.

    Attributes:
        any_hidden: whether a track is held back from the reports because cameras miss it.
    """

    def __init__(self, site: Site, tracks: Tracks, health: CameraHealth) -> None:
        presence.warm_up()
        self._tracks, self._health = tracks, health
        self._n_views = site.rig.n_views
        self._geometry = site.geometry()
        self._outlook = tuple(outlook(site.layout))
        self._checked_ns = self._learnt_ns = 0
        self._lasting = np.zeros(2)
        self._rates, self._share = miss_rates(*health.looks), SHARE_PRIOR
        self.any_hidden = False

    def adopt(self, site: Site) -> None:
        """Continue with the same cameras, moved, or with other furniture."""
        presence.warm_up()
        self._geometry = site.geometry()

    def seeing(self, places_m: NDArray[np.float64], live: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(n, n_views) which of the live cameras, (n_views,) bool, see places (n, 2) past the furniture."""
        out = np.empty((len(places_m), self._n_views), np.bool_)
        kernels.line_of_sight(places_m, SEEN_AT_M, tuple(self._geometry), live, out)
        return out

    def _learn(self, frames: FrameSet, found: NDArray[np.bool_]) -> None:
        """Bring the miss rates, and how long misses last, up to date."""
        looks, misses = self._health.looks
        known = looks.sum() > LOOKS_KNOWN
        if known and frames.t_ns - self._learnt_ns < RATES_EVERY_S * 1e9:
            return
        self._learnt_ns = frames.t_ns
        if not known:
            # The set itself shows how much cameras miss: what misses many people is no sign against one.
            looks, misses = looks.copy(), misses.copy()
            presence.tally(
                tuple(self._tracks.states()), found, tuple(self._geometry), frames.detections.has_frame, self._outlook,
                looks, misses,
            )  # fmt: skip
        self._rates = miss_rates(looks, misses)
        expected, again = self._lasting
        share = (again + SHARE_WEIGHT * SHARE_PRIOR) / (expected + SHARE_WEIGHT)
        self._share = min(max(float(share), SHARE_MIN), 1.0)

    def _weigh(
        self, frames: FrameSet, who: NDArray[np.int64], found: NDArray[np.bool_], step_s: float
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Log odds (n,) of person against ghost for some of the live tracks; views (n,) that find only these."""
        tracks = self._tracks
        self._learn(frames, found)
        share = 1.0 - (1.0 - min(self._share, 0.99)) ** (step_s / WEIGH_EVERY_S)
        pattern, n_own = np.empty(len(who)), np.empty(len(who), np.int64)
        presence.weigh(
            tuple(tracks.states()), who, found, tuple(self._geometry), frames.detections.has_frame, self._outlook,
            _MODEL, self._rates, (share, math.exp(-step_s / FORGETS_S)),
            (tracks.shown, tracks.found_last, tracks.weighed_m, self._lasting), pattern, n_own,
        )  # fmt: skip
        tracks.pattern[tracks.live[who]] = pattern
        return pattern, n_own

    def update(
        self, frames: FrameSet, who: NDArray[np.int64], found: NDArray[np.bool_], places_m: NDArray[np.float64],
        step_s: float,
    ) -> None:  # fmt: skip
        """Update the odds of tentative tracks after a set.

        Args:
            frames: the set.
            who: (n,) indices into the live tracks.
            found: (n_live, n_views) cameras that found each of the live tracks.
            places_m: (n, 2) where these tracks are.
            step_s: time since the former set; 0 for the newborn.
        """
        tracks = self._tracks
        pattern, n_own = self._weigh(frames, who, found, step_s)
        weight = min(step_s / STAYS_S, 1.0) if step_s > 0.0 else 1.0
        presence.confirm(
            tracks.live, who, pattern, n_own, places_m, tracks.born_m, weight, _MODEL, tracks.log_odds,
            tracks.sets_away, tracks.confirmed,
        )  # fmt: skip

    def update_tentative(
        self, frames: FrameSet, matches: Matches, places_m: NDArray[np.float64], step_s: float
    ) -> None:
        """Update the odds of all live tentative tracks that a camera found in this set."""
        found = matches.detection_of >= 0
        who = np.flatnonzero(~self._tracks.confirmed[self._tracks.live] & found.any(axis=1))
        self.update(frames, who, found, places_m[who], step_s)

    def update_doubt(self, frames: FrameSet, matches: Matches, places_m: NDArray[np.float64]) -> None:
        """Clear the doubt about confirmed tracks that may be real although at most one camera finds them.

        A track stays in doubt if a well-seen track is within reach, and the misses of cameras that see its place speak
        against a person there.
        """
        tracks = self._tracks
        n_found = (matches.detection_of >= 0).sum(axis=1)
        doubted = np.flatnonzero(tracks.confirmed[tracks.live] & (n_found <= 1))
        apart = np.hypot(*(places_m[doubted, None] - places_m[n_found >= 2]).transpose(2, 0, 1))
        beside = (apart < REACH_M).any(axis=1)
        missed = tracks.pattern[tracks.live[doubted]] < EXISTENCE.held_back_odds
        tracks.undoubted_ns[tracks.live[doubted[~(beside & missed)]]] = frames.t_ns

    def update_confirmed(self, frames: FrameSet, matches: Matches) -> None:
        """Weigh the confirmed tracks that many cameras miss."""
        passed_s = min((frames.t_ns - self._checked_ns) * 1e-9, PASSED_MAX_S)
        if passed_s < WEIGH_EVERY_S:
            return
        self._checked_ns = frames.t_ns
        tracks = self._tracks
        found, who = matches.detection_of >= 0, np.empty(len(tracks.live), np.int64)
        # What is seen well again is not held back any longer after some time.
        tracks.pattern[tracks.live] = np.minimum(
            tracks.pattern[tracks.live] + RECOVERS_PER_S * passed_s, EXISTENCE.held_back_odds
        )
        n = presence.missed_by_many(
            tuple(tracks.states()), found, frames.detections.has_frame, _MODEL, RISES_PER_S * passed_s, tracks.shown,
            tracks.found_last, who,
        )  # fmt: skip
        if n:
            self._weigh(frames, who[:n], found, passed_s)
        self.any_hidden = bool(self.hidden(tracks.live).any())

    def hidden(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(n,) confirmed tracks that are held back since the cameras' finds and misses make a ghost likelier."""
        return np.asarray(self._tracks.confirmed[rows] & (self._tracks.pattern[rows] < EXISTENCE.held_back_odds))

    def reportable(self, rows: NDArray[np.int64], position_sd_m: NDArray[np.float64], t_ns: int) -> NDArray[np.bool_]:
        """(n,) which tracks are worth a report: well placed, not held back, and confirmed or likely by now."""
        tracks = self._tracks
        at_once = tracks.multi_view_sets[rows] < 2
        likely = (tracks.log_odds[rows] > np.where(at_once, AT_ONCE_ODDS, 0.0)) & (tracks.seen_ns[rows] == t_ns)
        often = tracks.multi_view_sets[rows] >= REPORT_MULTI_VIEW_SETS
        often |= tracks.single_view_sets[rows] >= REPORT_SINGLE_VIEW_SETS
        there = (position_sd_m <= POSITION_SD_MAX_M) & ~self.hidden(rows)
        reportable: NDArray[np.bool_] = there & (tracks.confirmed[rows] | (likely & often))
        return reportable

    def probability(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n,) probability that tracks follow a person rather than a ghost; read-only."""
        confirmed = self._tracks.confirmed[rows]
        # A track that walked is confirmed whatever the odds were.
        if confirmed.all():
            return _ALL_CONFIRMED[: len(rows)]
        return np.where(confirmed, _CONFIRMED, 1.0 / (1.0 + np.exp(-self._tracks.log_odds[rows])))
