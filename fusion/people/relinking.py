"""Re-linking: tracks out of sight are lost or end, and a new track may continue a lost one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fusion.people.existence import Existence
from fusion.people.site import Site
from fusion.people.tracks import Tracks
from fusion.people.workspace import COASTING_MAX_S, DOUBT_MAX_S, TENTATIVE_MAX_S, Workspace
from fusion.store.shapes import edge_distance_m, inside_polygon

# A lost track is re-linked within this time; outside the floor and at a gate tracks end at once.
LOST_MAX_S = 30.0
# Spread of the place where a lost person reappears, metres, and its growth with the time out of sight, for up to 5 s.
RELINK_SD_M, RELINK_SPEED_M_S = 0.4, 0.8
RELINK_GROWTH_MAX_S = 5.0
# A live track may be re-linked, too, once it was unseen for this long.
RELINK_MIN_S = 0.2
# Cosine distance of appearance that counts as one unit of cost, twice in the likelihood.
RELINK_APPEARANCE_SCALE = 0.15
# Density of people who were not followed before, per square metre and birth: inside the store, and near its edge or a
# gate, where people come in.
NEWCOMERS_INSIDE_M2, NEWCOMERS_EDGE_M2 = 0.001, 0.5
EDGE_M, GATE_M = 0.5, 1.0


class Relinking:
    """Decides which tracks are lost or have ended, and names new tracks."""

    def __init__(self, site: Site, workspace: Workspace, tracks: Tracks, existence: Existence) -> None:
        self._workspace, self._tracks, self._existence = workspace, tracks, existence
        self._site = site

    def adopt(self, site: Site) -> None:
        """Continue with another floor and other gates."""
        self._site = site

    # ---- names -------------------------------------------------------------------------------------------------------

    def name(self, t_ns: int) -> None:
        """Give a track_id to live tracks that are reported for the first time; until then a track may be a ghost."""
        tracks = self._tracks
        unnamed = tracks.live[tracks.track_id[tracks.live] < 0]
        if not len(unnamed):
            return
        places_m, sd_m = self._workspace.places(unnamed)
        for index in np.flatnonzero(self._existence.reportable(unnamed, sd_m, t_ns)).tolist():
            row = int(unnamed[index])
            tracks.track_id[row] = self._track_id_for(row, places_m[index], float(sd_m[index]), t_ns)

    def _track_id_for(self, row: int, place_m: NDArray[np.float64], sd_m: float, t_ns: int) -> int:
        """The id that a new track continues: that of the lost track that fits best, else a new one.

        Each lost track i and "a newcomer" are weighed against each other, with likelihood

            N(place_i - place; sigma_i^2) exp(-gap_i / LOST_MAX_S)   against the density of newcomers,
            sigma_i^2 = RELINK_SD^2 + sd^2 + (RELINK_SPEED gap_i)^2;

        the winner's posterior probability multiplies the track's `identity`, so that a guess is reported as one.
        """
        tracks = self._tracks
        candidates = self._candidates(t_ns)
        newcomers = NEWCOMERS_EDGE_M2 if self._at_edge(place_m) else NEWCOMERS_INSIDE_M2
        if candidates:
            likelihoods = self._likelihoods(candidates, row, place_m, sd_m, t_ns)
            best = int(np.argmax(likelihoods))
            total = sum(likelihoods) + newcomers
            if likelihoods[best] > 0.5 * total:
                other = candidates[best]
                tracks.identity[row] = tracks.identity[other] * likelihoods[best] / total
                track_id = int(tracks.track_id[other])
                if other in tracks.lost:
                    del tracks.lost[other]
                else:
                    tracks.remove(other)
                tracks.release(other)
                return track_id
            tracks.identity[row] = newcomers / total
        return tracks.new_id()

    def _candidates(self, t_ns: int) -> list[int]:
        """Rows that a new track may continue: lost ones, and named live ones that are unseen or held back."""
        tracks, live = self._tracks, self._tracks.live
        unseen = tracks.seen_ns[live] < t_ns - RELINK_MIN_S * 1e9
        # A track that cameras miss at its place may be the person who is seen here.
        unseen |= self._existence.hidden(live)
        named = tracks.track_id[live] >= 0
        return [*tracks.lost, *live[unseen & named].tolist()]

    def _likelihoods(
        self, candidates: list[int], row: int, place_m: NDArray[np.float64], sd_m: float, t_ns: int
    ) -> list[float]:
        tracks, likelihoods = self._tracks, []
        places_m, _ = self._workspace.places(np.array(candidates))
        for other, other_m in zip(candidates, places_m):
            gap_s = (t_ns - tracks.seen_ns[other]) * 1e-9
            var = RELINK_SD_M**2 + sd_m**2 + (RELINK_SPEED_M_S * min(gap_s, RELINK_GROWTH_MAX_S)) ** 2
            likelihood = np.exp(-0.5 * ((other_m - place_m) ** 2).sum() / var) / (2 * np.pi * var)
            if tracks.track_appearance.shape[1]:
                cosine = float(tracks.track_appearance[other] @ tracks.track_appearance[row])
                likelihood *= np.exp(-2.0 * (1.0 - cosine) / RELINK_APPEARANCE_SCALE)
            likelihoods.append(likelihood * np.exp(-gap_s / LOST_MAX_S))
        return likelihoods

    def _at_edge(self, place_m: NDArray[np.float64]) -> bool:
        """Whether people may come in or go out at a place: near a gate, near the edge of the floor, or outside it."""
        x, y = float(place_m[0]), float(place_m[1])
        gates, floor = self._site.gates, self._site.floor
        for (x0, y0), (x1, y1) in gates:
            if np.hypot((x0 + x1) / 2 - x, (y0 + y1) / 2 - y) < GATE_M:
                return True
        if not inside_polygon(floor, x, y):
            return True
        # In a store with gates, no person walks in through a wall.
        return not gates and edge_distance_m(floor, x, y) < EDGE_M

    # ---- ends --------------------------------------------------------------------------------------------------------

    def retire(self, t_ns: int, overdue: bool) -> None:
        """End ghosts and tracks of people who left; tracks out of sight inside the store are lost, for a while.

        Args:
            t_ns: now.
            overdue: whether a live track may be overdue; lost ones end in any case.
        """
        tracks, live = self._tracks, self._tracks.live
        if overdue and len(live):
            unseen_s = (t_ns - tracks.seen_ns[live]) * 1e-9
            due = unseen_s > np.where(tracks.confirmed[live], COASTING_MAX_S, TENTATIVE_MAX_S)
            due |= t_ns - tracks.undoubted_ns[live] > DOUBT_MAX_S * 1e9
            if due.any():
                for row in live[due].tolist():
                    place_m = self._workspace.places(np.array([row]))[0][0]
                    # A person who vanishes where people go out has gone out.
                    if tracks.confirmed[row] and tracks.track_id[row] >= 0 and not self._at_edge(place_m):
                        tracks.lost[row] = int(tracks.seen_ns[row])
                    else:
                        tracks.end(row)
                tracks.live = live[~due]
        for row in [row for row, seen_ns in tracks.lost.items() if t_ns - seen_ns > LOST_MAX_S * 1e9]:
            del tracks.lost[row]
            tracks.end(row)
