"""Durations of engine steps, in a histogram of fixed size."""

from __future__ import annotations

import math

import numpy as np


class StepTimes:
    """Durations in a histogram: bins 1 % wide from 100 ns to about 70 s, and the maximum.

    Attributes:
        max_ns: longest duration.
        total_ns: sum of all durations.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(2048, np.int64)
        self.max_ns = 0
        self.total_ns = 0

    def add(self, duration_ns: int) -> None:
        """Count one duration."""
        place = int(math.log(max(duration_ns, 100) / 100.0) * 100.0)
        self._counts[min(place, 2047)] += 1
        self.max_ns = max(self.max_ns, duration_ns)
        self.total_ns += duration_ns

    def copy(self) -> StepTimes:
        """The durations up to now, to compare with later."""
        return self.since(StepTimes())

    def since(self, earlier: StepTimes) -> StepTimes:
        """What was added after an earlier copy.

        Its maximum is the maximum of all durations, or the upper end of its own highest bin if that is smaller.
        """
        times = StepTimes()
        times._counts = self._counts - earlier._counts
        times.total_ns = self.total_ns - earlier.total_ns
        used = np.flatnonzero(times._counts)
        if len(used):
            times.max_ns = min(self.max_ns, round(100.0 * math.exp((used[-1] + 1) / 100.0)))
        return times

    def percentile_us(self, percent: float) -> float:
        """Middle of the bin that holds a percentile, microseconds; 0 where nothing was added."""
        n = int(self._counts.sum())
        if n == 0:
            return 0.0
        place = int(np.searchsorted(np.cumsum(self._counts), math.ceil(n * percent / 100.0)))
        return min(0.1 * math.exp((place + 0.5) / 100.0), self.max_ns / 1e3)

    def summary_us(self) -> dict[str, float]:
        """Median, 99th percentile and maximum, as in run.json."""
        p50, p99 = self.percentile_us(50), self.percentile_us(99)
        return {"p50": round(p50, 1), "p99": round(p99, 1), "max": round(self.max_ns / 1e3, 1)}
