"""A tick of 400 plates: the kernel, its NumPy twin, and rolling medians and variances as users chain them.

Run: pytest bench/bench_shelves.py. The kernel is fed 12 samples of every plate at a time, as messages come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from reference import shelves as reference

from fusion._kernels import shelves as kernel
from fusion.observations import ShelfReading
from fusion.shelves import ShelfMonitor

STORE = reference.shop(n_plates=20, rows=20)
N_PLATES, SAMPLES, PERIOD_NS = len(STORE.plates), 12, 1e9 / 60
LIMITS = (0.1e9, 300.0, 3.0, 4.0)


def scales() -> reference.Scales:
    """Ten seconds of 400 plates, where somebody takes something twice a second."""
    made = reference.Scales(STORE, 10.0, seed=1)
    for i in range(14):
        plate = STORE.plates[(37 * i) % N_PLATES]
        made.step(2.0 + 0.5 * i, {plate.plate: -300.0})
    return made


def messages(grams: np.ndarray) -> list[tuple[Any, ...]]:
    """Per tick what the kernel takes: plates, times, starts, samples."""
    starts = np.arange(0, SAMPLES * N_PLATES + 1, SAMPLES, dtype=np.uint32)
    plates = np.arange(N_PLATES, dtype=np.uint32)
    return [
        (plates, np.full(N_PLATES, 10**18 + int(first * PERIOD_NS)), starts,
         np.ascontiguousarray(grams[:, first : first + SAMPLES], np.float32).ravel())
        for first in range(0, grams.shape[1] - SAMPLES + 1, SAMPLES)
    ]  # fmt: skip


def flat(ticks: list[tuple[Any, ...]]) -> list[tuple[int, int, np.ndarray]]:
    """The same messages one by one, as the twin takes them."""
    return [
        (plate, int(t_ns), samples[starts[i] : starts[i + 1]])
        for plates, times, starts, samples in ticks
        for i, (plate, t_ns) in enumerate(zip(plates, times))
    ]


class Kernel:
    """The kernel's state, from scratch."""

    def __init__(self) -> None:
        self.state = np.zeros(N_PLATES, np.int8)
        self.times, self.reals = np.zeros((N_PLATES, 8), np.int64), np.zeros((N_PLATES, 4))
        self.reals[:, kernel.NOISE_G2] = 1.0
        self.ring = np.zeros((N_PLATES, kernel.RING_ROW), np.float32)
        self.changes, self.changes_g = np.zeros((2 * N_PLATES, 7), np.int64), np.zeros((2 * N_PLATES, 3))
        self.ignored, self.limits = np.zeros(3, np.int64), np.array(LIMITS)

    def feed(self, tick: tuple[Any, ...]) -> int:
        return kernel.follow(
            *tick, PERIOD_NS, self.limits, self.state, self.times, self.reals, self.ring, self.changes, self.changes_g,
            self.ignored,
        )  # fmt: skip


def replay(ticks: list[tuple[Any, ...]]) -> Callable[[], int]:
    def run() -> int:
        one = Kernel()
        return sum(one.feed(tick) for tick in ticks)

    return run


@pytest.mark.benchmark(group="shelves: ten seconds of 400 plates")
def bench_kernel(benchmark: Any) -> None:
    ticks = messages(scales().grams)
    expected, _, _ = reference.follow(
        flat(ticks),
        N_PLATES, PERIOD_NS, LIMITS,
    )  # fmt: skip
    assert replay(ticks)() == len(expected) >= 14
    benchmark(replay(ticks))
    benchmark.extra_info["ns_per_sample"] = benchmark.stats["min"] * 1e9 / (len(ticks) * SAMPLES * N_PLATES)
    benchmark.extra_info["us_per_tick_of_400"] = benchmark.stats["min"] * 1e6 / (len(ticks) * SAMPLES)


@pytest.mark.benchmark(group="shelves: ten seconds of 400 plates")
def bench_twin(benchmark: Any) -> None:
    ticks = messages(scales().grams[:, :120])
    one_by_one = flat(ticks)
    benchmark.extra_info["seconds"] = 2.0
    benchmark.pedantic(lambda: reference.follow(one_by_one, N_PLATES, PERIOD_NS, LIMITS), rounds=1)


@pytest.mark.benchmark(group="shelves: ten seconds of 400 plates")
def bench_bottleneck(benchmark: Any) -> None:
    """Moving median and variance over half a second, from which a step detector still has to be made."""
    bottleneck = pytest.importorskip("bottleneck")
    grams = np.ascontiguousarray(scales().grams)

    def run() -> np.ndarray:
        return bottleneck.move_median(grams, 30, axis=1) / bottleneck.move_var(grams, 30, axis=1)

    # The same steps show in both: the medians of the two ends differ where the kernel found a change.
    median = bottleneck.move_median(grams, 30, axis=1)
    changed = np.flatnonzero(np.abs(median[:, -1] - median[:, 59]) > 50.0)
    one = Kernel()
    found: Counter[int] = Counter()
    for tick in messages(grams):
        n = one.feed(tick)
        found.update(one.changes[:n, 0].tolist())
    assert set(changed.tolist()) == set(found)
    benchmark(run)
    benchmark.extra_info["us_per_tick_of_400"] = benchmark.stats["min"] * 1e6 / grams.shape[1]


@pytest.mark.benchmark(group="shelves: ten seconds of 400 plates")
def bench_numpy_rolling(benchmark: Any) -> None:
    """Rolling mean and variance by sliding windows, the shortest NumPy form."""
    grams = np.ascontiguousarray(scales().grams)

    def run() -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(grams, 30, axis=1)
        return windows.mean(axis=2) / windows.var(axis=2)

    benchmark.pedantic(run, rounds=2)


@pytest.mark.benchmark(group="shelves: a monitor's step, 0.2 s of 400 plates")
def bench_monitor(benchmark: Any) -> None:
    """The whole stage, with Python objects for messages and events made from changes."""
    readings = scales().readings()
    by_tick: dict[int, list[ShelfReading]] = {}
    for reading in readings:
        by_tick.setdefault((reading.t_ns - readings[0].t_ns) // 200_000_000, []).append(reading)
    assert len(reference.events(ShelfMonitor(STORE), readings)) == 14

    def run() -> None:
        monitor = ShelfMonitor(STORE)
        for tick, batch in by_tick.items():
            monitor.step(batch, readings[0].t_ns + (tick + 1) * 200_000_000)

    benchmark(run)
    benchmark.extra_info["us_per_step"] = benchmark.stats["min"] * 1e6 / len(by_tick)
