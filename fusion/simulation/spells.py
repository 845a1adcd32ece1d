"""Mistakes that last: whether a detector is in one of its bad stretches with a person."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fusion.simulation.scenario import Scenario


class Spells:
    """Stretches of equal length for each person (or thing) of a camera, each with a number drawn once for all of it.

    A mistake of probability p that lasts is made wherever that number is below p: neighbouring stretches are
    independent, so a mistake lasts `length_s / (1 - p)` on average, and a larger p only adds mistakes.
    """

    def __init__(self, scenario: Scenario, purpose: str, camera: str, length_s: float) -> None:
        self._scenario, self._purpose, self._camera, self._length_s = scenario, purpose, camera, length_s
        self._streams: dict[int, np.random.Generator] = {}
        self._phase: dict[int, float] = {}
        self._drawn: dict[int, NDArray[np.float64]] = {}

    def at(
        self, times_s: NDArray[np.float64], numbers: NDArray[np.int64], frame: NDArray[np.int64], row: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """(n_rows,) uniform numbers of the stretches that hold the frames' times.

        Args:
            times_s: (n_frames,) true times.
            numbers: (n_people,) of the people.
            frame: (n_rows,) each row's frame.
            row: (n_rows,) each row's place in `numbers`.
        """
        out = np.empty(len(frame))
        for i in np.unique(row).tolist():
            mine = np.flatnonzero(row == i)
            out[mine] = self._of(int(numbers[i]), times_s[frame[mine]])
        return out

    def _of(self, number: int, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        if number not in self._streams:
            random = self._scenario.random(self._purpose, f"{self._camera}/{number}")
            self._streams[number] = random
            self._phase[number] = float(random.random())
            self._drawn[number] = np.zeros(0)
        stretch = np.floor(times_s / self._length_s + self._phase[number]).astype(np.int64)
        missing = int(stretch.max()) + 1 - len(self._drawn[number])
        if missing > 0:
            # Drawn in order of time, so that what is asked first does not matter.
            more = self._streams[number].random(missing + math.ceil(60.0 / self._length_s))
            self._drawn[number] = np.concatenate([self._drawn[number], more])
        drawn: NDArray[np.float64] = self._drawn[number][stretch]
        return drawn
