"""The state of everyone present, recorded every tenth of a second and interpolated in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.simulation.body import CHANNEL

TICK_S = 0.1


@dataclass(frozen=True, slots=True)
class Tick:
    """Everyone present at one instant: their numbers (n,), their states (n, channels) as in `body.CHANNELS`."""

    t_s: float
    numbers: NDArray[np.int64]
    states: NDArray[np.float64]


class States(NamedTuple):
    """Everyone who is present at one of several instants.

    Attributes:
        numbers: (n,) the people's numbers.
        states: (n_times, n, channels) their states, NaN where they are not present.
        present: (n_times, n) whether they are.
    """

    numbers: NDArray[np.int64]
    states: NDArray[np.float64]
    present: NDArray[np.bool_]


def states_at(ticks: Sequence[Tick], times_s: NDArray[np.float64]) -> States:
    """Interpolate between ticks that follow one another; times_s (n_times,) lie within them."""
    numbers = np.unique(np.concatenate([tick.numbers for tick in ticks])) if ticks else np.zeros(0, np.int64)
    dense = np.full((len(ticks), len(numbers), len(CHANNEL)), np.nan)
    for row, tick in zip(dense, ticks):
        row[np.searchsorted(numbers, tick.numbers)] = tick.states
    if not len(times_s) or not len(numbers):
        return States(numbers[:0], np.zeros((len(times_s), 0, len(CHANNEL))), np.zeros((len(times_s), 0), bool))
    at = (times_s - ticks[0].t_s) / TICK_S
    before = np.clip(np.floor(at).astype(int), 0, max(len(ticks) - 2, 0))
    share = np.clip(at - before, 0.0, 1.0)[:, None, None]
    a, b = dense[before], dense[np.minimum(before + 1, len(ticks) - 1)]
    states = a + share * (b - a)
    # Paths have no corners: cubic Hermite interpolation with the recorded velocities.
    xy, v = slice(CHANNEL["x"], CHANNEL["y"] + 1), slice(CHANNEL["vx"], CHANNEL["vy"] + 1)
    s2, s3 = share**2, share**3
    states[..., xy] = (
        (2 * s3 - 3 * s2 + 1) * a[..., xy]
        + (s3 - 2 * s2 + share) * TICK_S * a[..., v]
        + (3 * s2 - 2 * s3) * b[..., xy]
        + (s3 - s2) * TICK_S * b[..., v]
    )
    present = ~np.isnan(states[..., 0])
    seen = present.any(axis=0)
    return States(numbers[seen], states[:, seen], present[:, seen])
