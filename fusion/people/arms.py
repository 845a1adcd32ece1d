"""Arm history: where every body, wrist, elbow and shoulder was during the last seconds."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from fusion.results import People
from fusion.store.layouts import Layout

# Fingers reach this far beyond the wrist, along the forearm.
HAND_BEYOND_WRIST_M = 0.09
# A load may begin to move this much after the person who moved it turned away.
NEAR_BEFORE_NS = 1_000_000_000


class ArmHistory:
    """A struct of arrays in time order, one row per person and instant. Capacity is fixed; the oldest rows go first.

    Attributes:
        t_ns, track (n,) int64; confirmed (n,) int8.
        position_m: (n, 2) place on the floor.
        arms_m: (n, 2, 3, 3) wrist, elbow and shoulder of the left and the right arm, NaN where unknown.
        wrist_sd_m: (n, 2) standard deviation of each wrist, NaN where unknown.
    """

    def __init__(self, layout: Layout, span_s: float = 30.0, capacity: int = 32768) -> None:
        sides = [layout.indices(f"{side}_wrist", f"{side}_elbow", f"{side}_shoulder") for side in ("l", "r")]
        # A layout without arms (boxes) leaves only the body.
        self._arms = np.array([side for side in sides if len(side) == 3], np.int64).reshape(-1, 3)
        self._span_ns = round(span_s * 1e9)
        self.t_ns: NDArray[np.int64] = np.zeros(capacity, np.int64)
        self.track: NDArray[np.int64] = np.zeros(capacity, np.int64)
        self.confirmed: NDArray[np.int8] = np.zeros(capacity, np.int8)
        self.position_m: NDArray[np.float64] = np.zeros((capacity, 2))
        self.arms_m: NDArray[np.float64] = np.full((capacity, 2, 3, 3), np.nan)
        self.wrist_sd_m: NDArray[np.float64] = np.full((capacity, 2), np.nan)
        self._n = 0

    def append(self, people: People) -> None:
        """Record one instant, not older than the last. Beyond span and capacity the oldest rows are dropped."""
        n = len(people.track_id)
        if self._n + n > len(self.t_ns):
            self._forget(people.t_ns - self._span_ns)
        n = min(n, len(self.t_ns) - self._n)
        rows = slice(self._n, self._n + n)
        self.t_ns[rows] = people.t_ns
        self.track[rows] = people.track_id[:n]
        self.confirmed[rows] = people.confirmed[:n]
        self.position_m[rows] = people.position_m[:n]
        if len(self._arms):
            self.arms_m[rows] = people.joints_m[:n, self._arms]
            self.wrist_sd_m[rows] = people.joints_sd_m[:n, self._arms[:, 0]]
        self._n += n

    def between(self, t0_ns: int, t1_ns: int) -> slice:
        """Rows with t0_ns <= t_ns <= t1_ns."""
        first, after = np.searchsorted(self.t_ns[: self._n], (t0_ns, t1_ns + 1))
        return slice(int(first), int(after))

    def was_near(
        self, people: Collection[int], place_m: NDArray[np.float64], within_m: float, since_ns: int
    ) -> bool:
        """Whether one of these tracks stood within a distance of a place on the floor (2,), shortly before or after."""
        rows = slice(int(np.searchsorted(self.t_ns[: self._n], since_ns - NEAR_BEFORE_NS)), self._n)
        near = ((self.position_m[rows] - place_m) ** 2).sum(axis=1) < within_m**2
        return bool(np.isin(self.track[rows][near], list(people)).any())

    def hands_m(self, rows: slice) -> NDArray[np.float64]:
        """(n, 2, 3) places of the hands, beyond the wrists along the forearms; NaN where a wrist is unknown."""
        wrist, forearm = self.arms_m[rows, :, 0], self.arms_m[rows, :, 0] - self.arms_m[rows, :, 1]
        length = np.sqrt((forearm**2).sum(axis=2, keepdims=True))
        hands: NDArray[np.float64] = wrist + np.nan_to_num(forearm * (HAND_BEYOND_WRIST_M / np.maximum(length, 0.05)))
        return hands

    def _forget(self, before_ns: int) -> None:
        # Moving rows costs time, so at least half of the table becomes free at once.
        first = max(int(np.searchsorted(self.t_ns[: self._n], before_ns)), self._n - len(self.t_ns) // 2)
        kept = self._n - first
        for column in (self.t_ns, self.track, self.confirmed, self.position_m, self.arms_m, self.wrist_sd_m):
            column[:kept] = column[first : self._n]
        self._n = kept
