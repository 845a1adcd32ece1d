"""The table of tracks: one row per track; rows are recycled, track ids are not."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from fusion._kernels.records import States
from fusion.people.workspace import Workspace

# Tracks at once; beyond, births are counted and refused.
CAPACITY = 256
# Log odds of person against ghost at birth, before the first set is weighed: detections may meet by chance.
BORN_ODDS = -1.0


class Tracks:
    """Struct of arrays over `capacity` rows, shared with the native kernels where the Workspace holds them.

    A track is tentative until it is confirmed as a person, and unnamed (track_id -1) until it is first reported: until
    then it may be a ghost. A named track that is out of sight too long is lost: it waits to be re-linked.

    Attributes:
        track_id, confirmed: see above.
        seen_ns: when a camera last found it; undoubted_ns: when there was last no sign of its being a ghost.
        multi_view_sets, single_view_sets: numbers of sets in which two views or more found it, or one.
        born_ns, born_m (capacity, 2): when and where it was born.
        shown (capacity, n_views, 2) float32, found_last (capacity, n_views) int8, weighed_m (capacity, 2): see
        `_kernels.presence.Evidence`.
        pattern: log odds of person against ghost that follow from these; log_odds: the same summed over sets, which
        matter until it is confirmed.
        sets_away: sets in a row that saw it away from its place of birth.
        identity: probability that it followed one person throughout.
        track_appearance: (capacity, appearance_dim) unit vectors, zero where unknown.
        live: (n,) rows that are predicted, matched and reported; replaced, never changed.
        lost: rows that wait to be re-linked, with the instant when each was last seen.
    """

    def __init__(self, workspace: Workspace) -> None:
        capacity, n_views = len(workspace.mean), len(workspace.has_frame)
        self._workspace = workspace
        self.track_id, self.confirmed = workspace.track_id, workspace.confirmed
        self.seen_ns, self.undoubted_ns = workspace.seen_ns, workspace.undoubted_ns
        self.multi_view_sets, self.single_view_sets = workspace.multi_view_sets, workspace.single_view_sets
        self.track_appearance = workspace.track_appearance
        self.born_ns = np.zeros(capacity, np.int64)
        self.born_m = np.zeros((capacity, 2))
        self.weighed_m = np.zeros((capacity, 2))
        self.shown = np.full((capacity, n_views, 2), np.nan, np.float32)
        self.log_odds = np.zeros(capacity)
        self.sets_away = np.zeros(capacity, np.int64)
        self.found_last = np.full((capacity, n_views), -1, np.int8)
        self.pattern = np.zeros(capacity)
        self.identity = np.ones(capacity)
        self.live: NDArray[np.int64] = np.empty(0, np.int64)
        self.lost: dict[int, int] = {}
        self._free = list(range(capacity - 1, -1, -1))
        self._next_id = 1
        self._ended: deque[int] = deque(maxlen=4 * capacity)

    @property
    def n_free(self) -> int:
        """Rows that no track uses."""
        return len(self._free)

    def states(self) -> States:
        """States of the live tracks as the kernels' record."""
        ws = self._workspace
        return States(ws.mean, ws.cov, self.live, self.confirmed, ws.n_joints)

    def position_cov_m2(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n, K, 3, 3) covariances of joints' positions."""
        ws = self._workspace
        cov: NDArray[np.float64] = ws.cov[rows][:, [0, 1, 3, 1, 2, 4, 3, 4, 5], : ws.n_joints].transpose(0, 2, 1)
        return cov.reshape(len(rows), ws.n_joints, 3, 3)

    # ---- rows --------------------------------------------------------------------------------------------------------

    def claim(self) -> int:
        """A free row."""
        return self._free.pop()

    def release(self, row: int) -> None:
        """Free the row of a track that was never reported, or whose track_id another row took over."""
        self.track_id[row] = -1
        self._free.append(row)

    def begin(self, row: int, t_ns: int, place_m: NDArray[np.float64], n_views: int) -> None:
        """Start a track in a claimed row: tentative and unnamed. The caller adds it to `live`."""
        self.seen_ns[row] = self.born_ns[row] = self.undoubted_ns[row] = t_ns
        self.multi_view_sets[row] = n_views >= 2
        self.single_view_sets[row] = n_views == 1
        self.confirmed[row] = False
        self.shown[row] = np.nan
        self.weighed_m[row] = place_m
        self.found_last[row] = -1
        self.log_odds[row], self.pattern[row] = BORN_ODDS, math.inf
        self.born_m[row] = place_m
        self.sets_away[row] = 0
        self.identity[row] = 1.0
        self.track_appearance[row] = 0.0
        self.track_id[row] = -1

    def add(self, row: int) -> None:
        """Follow a row."""
        self.live = np.append(self.live, row)

    def remove(self, row: int) -> None:
        """Follow a row no longer."""
        self.live = self.live[self.live != row]

    def end(self, row: int) -> None:
        """End a track; its row is free, its id never comes again."""
        if self.track_id[row] >= 0:
            self._ended.append(int(self.track_id[row]))
        self.release(row)

    def new_id(self) -> int:
        """A track id that was never used."""
        self._next_id += 1
        return self._next_id - 1

    def ended(self) -> list[int]:
        """Ids that ended since the last call; the newest 4 * capacity where the calls are far apart."""
        ended = list(self._ended)
        self._ended.clear()
        return ended
