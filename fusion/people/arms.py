"""Arm history: where every body, wrist, elbow and shoulder was during the last seconds."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion._kernels import arms as kernel
from fusion.results import People
from fusion.store.layouts import Layout

# Fingers reach this far beyond the wrist, along the forearm.
HAND_BEYOND_WRIST_M = 0.09
# A load may begin to move this much after the person who moved it turned away.
NEAR_BEFORE_NS = 1_000_000_000
# Arms are smoothed over what was seen this long before and after: a whole second is no better than half a one.
SMOOTHED_OVER_NS = 500_000_000
# The motion that the tracker assumes: spectral density of the acceleration of wrists and elbows, m^2/s^3, and the time
# constant with which velocities decay. A velocity is known to 0.7 m/s before anything was seen of it.
WRIST_ACCELERATION, ELBOW_ACCELERATION, DECAY_S, SPEED_VAR_M2_S2 = 2.5, 1.0, 1.0, 0.5
# The smoothed variance takes the errors of successive images as independent, and the detector to be as good as the
# tracker believes. So it is scaled by how far smoothing moved the places against how far it should have, and a share of
# the variance of one set of images is added, since a detector's errors last; that share counts for at most LASTING_MAX
# smoothed variances where nothing is seen. One set of constants for all detectors: the squared error of wrists over
# three times the variance is 0.7 with good keypoints, 0.5 to 0.8 with poor ones and cameras out (python -m bench arms),
# and 1.8 to 2.4 with keypoints as bad as the worst real ones, whose errors outlast what is smoothed over.
CORRECTED_SHARE, CORRECTED_MIN = 0.8, 0.4
LASTING_SHARE, LASTING_MAX = 0.35, 6.0
# A joint less certain than this is unknown, as in what the tracker reports.
SD_MAX_M = 0.3

_MODEL = np.array([
    WRIST_ACCELERATION, ELBOW_ACCELERATION, DECAY_S, SPEED_VAR_M2_S2, LASTING_SHARE, LASTING_MAX, CORRECTED_SHARE,
    CORRECTED_MIN, SD_MAX_M,
])  # fmt: skip


_COLUMNS = ("t_ns", "track", "confirmed", "position_m", "arms_m", "sd_m")


class Arms(NamedTuple):
    """Arms at some rows of the history.

    Attributes:
        arms_m: (n, 2, 3, 3) wrist, elbow and shoulder of the left and the right arm, NaN where unknown.
        sd_m: (n, 2, 3) standard deviations, root mean square over the three directions.
    """

    arms_m: NDArray[np.float64]
    sd_m: NDArray[np.float64]


class ArmHistory:
    """A struct of arrays in time order, one row per person and instant. Capacity is fixed; the oldest rows go first.

    Attributes:
        t_ns, track (n,) int64; confirmed (n,) int8.
        position_m: (n, 2) place on the floor.
        arms_m: (n, 2, 3, 3) wrist, elbow and shoulder of the left and the right arm, NaN where unknown.
        sd_m: (n, 2, 3) standard deviation of each, NaN where unknown.
    """

    def __init__(self, layout: Layout, span_s: float = 30.0, capacity: int = 32768) -> None:
        sides = [layout.indices(f"{side}_wrist", f"{side}_elbow", f"{side}_shoulder") for side in ("l", "r")]
        # A layout without arms (boxes) leaves only the body.
        self._arms = np.array([side for side in sides if len(side) == 3], np.int64).reshape(-1, 3)
        self._span_ns, self._capacity = round(span_s * 1e9), capacity
        self.t_ns: NDArray[np.int64] = np.zeros(capacity, np.int64)
        self.track: NDArray[np.int64] = np.zeros(capacity, np.int64)
        self.confirmed: NDArray[np.int8] = np.zeros(capacity, np.int8)
        self.position_m: NDArray[np.float64] = np.zeros((capacity, 2))
        self.arms_m: NDArray[np.float64] = np.full((capacity, 2, 3, 3), np.nan)
        self.sd_m: NDArray[np.float64] = np.full((capacity, 2, 3), np.nan)
        self._n = 0

    def append(self, people: People) -> None:
        """Record one instant, not older than the last. Beyond span and capacity the oldest rows are dropped."""
        n = len(people.track_id)
        if len(self.t_ns) < self._capacity:
            self._make_room()
        if self._n + n > len(self.t_ns):
            self._forget(people.t_ns - self._span_ns)
        n = min(n, len(self.t_ns) - self._n)
        kernel.record(
            people.track_id, people.confirmed, people.position_m, people.joints_m, people.joints_sd_m, self._arms, n,
            self._n, people.t_ns, self.t_ns, self.track, self.confirmed, self.position_m, self.arms_m, self.sd_m,
        )  # fmt: skip
        self._n += n

    def between(self, t0_ns: int, t1_ns: int) -> slice:
        """Rows with t0_ns <= t_ns <= t1_ns."""
        t_ns = self.t_ns[: self._n]
        return slice(int(t_ns.searchsorted(t0_ns)), int(t_ns.searchsorted(t1_ns, "right")))

    def smoothed(self, rows: slice, place_m: NDArray[np.float64], within_m: float) -> Arms:
        """Arms at some rows, with what was seen half a second before and after, or up to the newest row.

        Wrists and elbows of people who come within a distance of a place on the floor (2,) are smoothed: their places
        err by a third less than the recorded ones, by half where they were badly seen, and gaps are filled. Their
        deviations include the errors that last. The rest is as recorded.
        """
        arms = Arms(self.arms_m[rows].copy(), self.sd_m[rows].copy())
        if not len(arms.sd_m) or not len(self._arms):
            return arms
        kernel.smooth(
            self.t_ns, self.track, self.position_m, self.arms_m, self.sd_m, self._n, rows.start, rows.stop,
            SMOOTHED_OVER_NS, float(place_m[0]), float(place_m[1]), within_m, _MODEL, arms.arms_m, arms.sd_m,
        )  # fmt: skip
        return arms

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

    def __getstate__(self) -> dict[str, Any]:
        # Rows that are not in use are most of a small store's snapshot.
        return {**vars(self), **{name: getattr(self, name)[: self._n] for name in _COLUMNS}}

    def _make_room(self) -> None:
        """Rows up to the capacity again, after a snapshot or a copy left them out."""
        for name in _COLUMNS:
            used = getattr(self, name)
            column = np.zeros((self._capacity, *used.shape[1:]), used.dtype)
            column[: len(used)] = used
            setattr(self, name, column)

    def _forget(self, before_ns: int) -> None:
        # Moving rows costs time, so at least half of the table becomes free at once.
        first = max(int(np.searchsorted(self.t_ns[: self._n], before_ns)), self._n - len(self.t_ns) // 2)
        kept = self._n - first
        for column in (getattr(self, name) for name in _COLUMNS):
            column[:kept] = column[first : self._n]
        self._n = kept
