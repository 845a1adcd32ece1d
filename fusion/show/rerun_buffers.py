"""Arrays that are filled and emptied again and again, between a run and the Rerun recording of it.

What would slow an engine in the same process most is a call for each observation, then competition for memory. So
observations come here by the thousand, and what is kept is reused and fits into the processor's caches.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

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


@dataclass
class Weights:
    """First samples of one plate's messages, in the store's weight unit.

    Attributes:
        zero: the first sample of all, relative to which the plate's weights are drawn.
    """

    zero: float
    _t_ns: array[int] = field(default_factory=lambda: array("q"))
    _samples: array[float] = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self._t_ns)

    def extend(self, readings: Sequence[ShelfReading]) -> None:
        """Take in messages of the plate, each with at least one sample."""
        self._t_ns.extend([reading.t_ns for reading in readings])
        self._samples.extend([reading.samples.item(0) for reading in readings])

    def take(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Times, and weights since `zero`; the buffer is empty afterwards."""
        t_ns, weights = np.array(self._t_ns), np.array(self._samples) - self.zero
        del self._t_ns[:], self._samples[:]
        return t_ns, weights
