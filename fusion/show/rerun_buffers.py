"""Arrays that are filled and emptied again and again, between a run and the Rerun recording of it.

What would slow an engine in the same process most is a call for each observation, then competition for memory. So
observations come here by the thousand, and what is kept is reused and fits into the processor's caches.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.observations import Frame, ShelfReading


@dataclass(frozen=True)
class Instants:
    """Instants with any number of bodies each; `bodies` is a view that the next `extend` overwrites.

    Attributes:
        t_ns: (n_instants,) int64.
        n_bodies: (n_instants,) int64.
        bodies: (n, K, 3) float32, n the sum of n_bodies.
    """

    t_ns: NDArray[np.int64]
    n_bodies: NDArray[np.int64]
    bodies: NDArray[np.float32]

    @property
    def instant(self) -> NDArray[np.int64]:
        """(n,) index of each body's instant."""
        return np.repeat(np.arange(len(self.t_ns)), self.n_bodies)


class Bodies:
    """The bodies that one camera saw at several instants, in one array.

    Attributes:
        n: bodies so far.
    """

    def __init__(self, n_joints: int, capacity: int) -> None:
        self.n = 0
        self._bodies = np.empty((capacity, n_joints, 3), np.float32)
        self._t_ns = array("q")
        self._n_bodies = array("q")

    @property
    def n_instants(self) -> int:
        """Instants so far."""
        return len(self._t_ns)

    def extend(self, frames: Sequence[Frame]) -> None:
        """Take in frames of the camera; the buffer grows where they do not fit."""
        counts = [len(frame.keypoints) for frame in frames]
        end = self.n + sum(counts)
        if end > len(self._bodies):
            grown = np.empty((2 * end, *self._bodies.shape[1:]), np.float32)
            grown[: self.n] = self._bodies[: self.n]
            self._bodies = grown
        np.concatenate([frame.keypoints for frame in frames], out=self._bodies[self.n : end])
        self.n = end
        self._t_ns.extend([frame.t_ns for frame in frames])
        self._n_bodies.extend(counts)

    def take(self) -> Instants:
        """Everything so far; the buffer is empty afterwards."""
        taken = Instants(np.array(self._t_ns), np.array(self._n_bodies), self._bodies[: self.n])
        del self._t_ns[:], self._n_bodies[:]
        self.n = 0
        return taken


class Weights:
    """First samples of the messages of all plates, in the store's weight unit, as columns of one table."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}
        self._zero: dict[str, float] = {}
        self._t_ns = array("q")
        self._plate = array("l")
        self._samples = array("d")

    def __len__(self) -> int:
        return len(self._t_ns)

    def extend(self, readings: Sequence[ShelfReading]) -> None:
        """Take in messages, each with at least one sample."""
        number = self._number
        try:
            plates = [number[reading.plate] for reading in readings]
        except KeyError:
            plates = [number.setdefault(reading.plate, len(number)) for reading in readings]
        self._t_ns.extend([reading.t_ns for reading in readings])
        self._plate.extend(plates)
        self._samples.extend([reading.samples.item(0) for reading in readings])

    def take(self) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.float64]]]:
        """Plates with their times, and weights since the first sample of all; empties the table."""
        plate = np.array(self._plate)
        order = np.argsort(plate, kind="stable")
        t_ns, samples = np.array(self._t_ns)[order], np.array(self._samples)[order]
        del self._t_ns[:], self._plate[:], self._samples[:]
        ends = np.cumsum(np.bincount(plate, minlength=len(self._number))).tolist()
        for name, begin, end in zip(self._number, [0, *ends], ends):
            if end > begin:
                zero = self._zero.setdefault(name, float(samples[begin]))
                yield name, t_ns[begin:end], samples[begin:end] - zero
