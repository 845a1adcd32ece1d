"""Arrays that are filled and emptied again and again, between a run and the Rerun recording of it.

What would slow an engine in the same process most is competition for memory, so nothing here is allocated twice, and
what is kept fits into the processor's caches.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fusion.results import People


@dataclass(frozen=True)
class Instants:
    """Instants with any number of bodies each; `bodies` is a view that the next `add` overwrites.

    Attributes:
        t_ns: (n_instants,) int64.
        n_bodies: (n_instants,) int64.
        bodies: (n, K, width) float32, n the sum of n_bodies.
    """

    t_ns: NDArray[np.int64]
    n_bodies: NDArray[np.int64]
    bodies: NDArray[np.float32]

    @property
    def instant(self) -> NDArray[np.int64]:
        """(n,) index of each body's instant."""
        return np.repeat(np.arange(len(self.t_ns)), self.n_bodies)


class Bodies:
    """The bodies of one camera, or of all people, at several instants, in one array.

    Attributes:
        n: bodies so far.
    """

    def __init__(self, n_joints: int, width: int, bodies_max: int, instants_max: int) -> None:
        self.n = 0
        self._instants_max = instants_max
        self._bodies = np.empty((bodies_max, n_joints, width), np.float32)
        self._t_ns = array("q")
        self._n_bodies = array("q")

    def add(self, t_ns: int, bodies: NDArray[np.float32]) -> bool:
        """Take in an instant; False where there is no room until `take` is called."""
        n, count = self.n, len(bodies)
        if n + count > len(self._bodies) or len(self._t_ns) >= self._instants_max:
            if self._t_ns:
                return False
            self._bodies = np.empty((2 * count, *self._bodies.shape[1:]), np.float32)
        if count:
            self._bodies[n : n + count] = bodies
        self.n = n + count
        self._t_ns.append(t_ns)
        self._n_bodies.append(count)
        return True

    def take(self) -> Instants:
        """Everything so far; the buffer is empty afterwards."""
        taken = Instants(np.array(self._t_ns), np.array(self._n_bodies), self._bodies[: self.n])
        del self._t_ns[:], self._n_bodies[:]
        self.n = 0
        return taken


class Places:
    """Tracks and their places on the floor, one row for each body of a `Bodies` of people.

    Attributes:
        track_id: (capacity,) int64.
        position_m: (capacity, 2) float64.
        position_sd_m: (capacity,) float64.
        confirmed: (capacity,) bool.
    """

    def __init__(self, capacity: int) -> None:
        self._allocate(capacity)

    def _allocate(self, capacity: int) -> None:
        self.track_id = np.empty(capacity, np.int64)
        self.position_m = np.empty((capacity, 2))
        self.position_sd_m = np.empty(capacity)
        self.confirmed = np.empty(capacity, np.bool_)

    def put(self, end: int, people: People) -> None:
        """Write the last rows of an instant that ends before row `end`."""
        if end > len(self.track_id):
            # Only the first instant after `Bodies.take` can be larger than the buffer: no earlier row is lost.
            self._allocate(2 * end)
        rows = slice(end - len(people.track_id), end)
        self.track_id[rows] = people.track_id
        self.position_m[rows] = people.position_m
        self.position_sd_m[rows] = people.position_sd_m
        self.confirmed[rows] = people.confirmed


@dataclass
class Weights:
    """First samples of one plate's messages.

    Attributes:
        zero_g: the first sample of all, relative to which the plate's weights are drawn.
    """

    zero_g: float
    t_ns: array[int] = field(default_factory=lambda: array("q"))
    grams: array[float] = field(default_factory=lambda: array("d"))

    def take(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Times, and grams since `zero_g`; the buffer is empty afterwards."""
        t_ns, grams = np.array(self.t_ns), np.array(self.grams) - self.zero_g
        del self.t_ns[:], self.grams[:]
        return t_ns, grams
