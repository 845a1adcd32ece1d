"""Where people were, and which plates had hands over them, at a few instants a second."""

from __future__ import annotations

import base64
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.results import People
from fusion.show.plan import CM_PER_M, Box
from fusion.store.models import Store

# How often people are kept, until there are too many samples; then every second sample goes and the period doubles.
PERIOD_NS = 200_000_000
# A wrist beside a plate by at most this, and no higher above it than the next shelf, reaches into it.
REACH_BESIDE_M, REACH_BELOW_M, REACH_ABOVE_M = 0.05, 0.05, 0.4
# Two samples further apart than this belong to two stretches of a path: what lies between is unknown.
GAP_MAX_S = 1.0
# Positions further away than this are clipped; int32 centimetres hold them.
FAR_M = 1e4


@dataclass
class Path:
    """Where one track was: tick numbers and centimetres, in time order."""

    ticks: array[int] = field(default_factory=lambda: array("q"))
    x_cm: array[int] = field(default_factory=lambda: array("i"))
    y_cm: array[int] = field(default_factory=lambda: array("i"))

    def every_second(self) -> Path:
        """The samples at even ticks, in ticks of twice the period."""
        kept = [i for i, tick in enumerate(self.ticks) if tick % 2 == 0]
        return Path(
            array("q", [self.ticks[i] // 2 for i in kept]),
            array("i", [self.x_cm[i] for i in kept]),
            array("i", [self.y_cm[i] for i in kept]),
        )


@dataclass(frozen=True)
class Stretch:
    """An unbroken part of a path.

    Attributes:
        tick: the first tick.
        points_cm: (n, 2) int64, one place for every tick from there on.
    """

    tick: int
    points_cm: NDArray[np.int64]


class Presence:
    """Paths of all tracks in centimetres, and for how long hands were over each plate.

    Memory is bounded: with more than `samples_max` samples the period doubles and every second sample is dropped.

    Attributes:
        period_ns: length of a tick.
        n_samples: positions that are kept.
        paths: by track.
    """

    def __init__(self, store: Store, samples_max: int) -> None:
        self.period_ns = PERIOD_NS
        self.n_samples = 0
        self.paths: dict[int, Path] = {}
        self._samples_max = samples_max
        self._last_tick = -1
        self._wrists = list(store.layout.indices("l_wrist", "r_wrist"))
        self._reached_ticks = np.zeros(len(store.plates), np.int64)
        self._centres_m = np.array([(p.x, p.y, p.z) for p in store.plates]).reshape(-1, 3)
        self._half_m = np.array([(p.width / 2, p.depth / 2) for p in store.plates]).reshape(-1, 2)
        yaws = np.array([plate.yaw for plate in store.plates])
        self._cos_yaw, self._sin_yaw = np.cos(yaws), np.sin(yaws)

    def add(self, people: People, start_ns: int) -> bool:
        """Keep one instant of a run that began at `start_ns`; False where its tick is kept already."""
        tick = (people.t_ns - start_ns) // self.period_ns
        if tick <= self._last_tick:
            return False
        self._last_tick = tick
        known = people.confirmed & np.isfinite(people.position_m).all(axis=1)
        if not known.any():
            return True
        places_cm = np.rint(np.clip(people.position_m[known], -FAR_M, FAR_M) * CM_PER_M).astype(np.int64)
        for track, (x_cm, y_cm) in zip(people.track_id[known].tolist(), places_cm.tolist()):
            path = self.paths.setdefault(track, Path())
            path.ticks.append(tick)
            path.x_cm.append(x_cm)
            path.y_cm.append(y_cm)
        self._add_reaches(people.joints_m[known])
        self.n_samples += int(known.sum())
        if self.n_samples > self._samples_max:
            self._coarsen()
        return True

    def _add_reaches(self, joints_m: NDArray[np.float64]) -> None:
        """Count the plates that have a hand over them; joints_m (n, K, 3)."""
        if not self._wrists or not len(self._centres_m):
            return
        from_plate_m = joints_m[:, self._wrists].reshape(-1, 1, 3) - self._centres_m
        dx, dy, dz = from_plate_m[..., 0], from_plate_m[..., 1], from_plate_m[..., 2]
        beside_m = np.abs(self._cos_yaw * dx + self._sin_yaw * dy) - self._half_m[:, 0]
        before_m = np.abs(self._cos_yaw * dy - self._sin_yaw * dx) - self._half_m[:, 1]
        with np.errstate(invalid="ignore"):  # comparisons with NaN are False: an unknown wrist reaches nothing
            over = (beside_m < REACH_BESIDE_M) & (before_m < REACH_BESIDE_M)
            over &= (dz > -REACH_BELOW_M) & (dz < REACH_ABOVE_M)
        self._reached_ticks += over.sum(axis=0)

    def _coarsen(self) -> None:
        """Keep every second tick from now on, and of what is kept already."""
        self.period_ns *= 2
        self._last_tick //= 2
        self._reached_ticks //= 2
        halved = {track: path.every_second() for track, path in self.paths.items()}
        self.paths = {track: path for track, path in halved.items() if path.ticks}
        self.n_samples = sum(len(path.ticks) for path in self.paths.values())

    def reached_s(self) -> list[float]:
        """For how long hands were over each plate, in the store's order of plates."""
        seconds: list[float] = np.round(self._reached_ticks * (self.period_ns / 1e9), 1).tolist()
        return seconds

    def extent_m(self) -> Box | None:
        """Box around nearly all positions; the outermost percent does not count, so that a stray track does not."""
        if not self.n_samples:
            return None
        xs = np.concatenate([np.frombuffer(path.x_cm, np.int32) for path in self.paths.values()]) / CM_PER_M
        ys = np.concatenate([np.frombuffer(path.y_cm, np.int32) for path in self.paths.values()]) / CM_PER_M
        (x0, x1), (y0, y1) = np.percentile(xs, [1, 99]), np.percentile(ys, [1, 99])
        return Box(float(x0), float(y0), float(x1), float(y1))

    def stretches(self, path: Path) -> Iterator[Stretch]:
        """Unbroken parts of a path, interpolated linearly where the engine's instants come less often than ticks."""
        ticks = np.frombuffer(path.ticks, np.int64)
        points = np.column_stack([np.frombuffer(path.x_cm, np.int32), np.frombuffer(path.y_cm, np.int32)])
        gap_max = max(1, math.floor(GAP_MAX_S * 1e9 / self.period_ns))
        for rows in np.split(np.arange(len(ticks)), np.nonzero(np.diff(ticks) > gap_max)[0] + 1):
            every = np.arange(ticks[rows[0]], ticks[rows[-1]] + 1)
            filled = np.column_stack([np.interp(every, ticks[rows], points[rows, axis]) for axis in (0, 1)])
            yield Stretch(int(every[0]), np.rint(filled).astype(np.int64))

    def encoded(self, path: Path) -> list[list[Any]]:
        """Stretches in the form of the page: first tick, first x, first y, then steps in int8 as base64.

        A step that does not fit, faster than a sprint, begins a new stretch at the same tick rate.
        """
        rows: list[list[Any]] = []
        for stretch in self.stretches(path):
            points = stretch.points_cm
            too_long = (abs(np.diff(points, axis=0)) > 127).any(axis=1)
            for part in np.split(np.arange(len(points)), np.nonzero(too_long)[0] + 1):
                steps = np.diff(points[part], axis=0).astype(np.int8)
                x_cm, y_cm = points[part[0]].tolist()
                text = base64.b64encode(steps.tobytes()).decode("ascii")
                rows.append([stretch.tick + int(part[0]), x_cm, y_cm, text])
        return rows
