"""A tick of 400 plates: the kernel, its NumPy twin, and rolling medians and variances as users chain them.

    python -m pip install -e ".[bench]"
    OMP_NUM_THREADS=1 python -m bench scales

A tick is one sample of every plate, 1/60 s. The kernel gets 12 samples of every plate at a time, as in messages, and
does all its work on them: levels, onsets, settled changes. Bottleneck's moving median and variance get the same samples
as one array per plate, its fastest layout, over the 24 samples of the kernel's plateaus and over the 192 that its
levels remember; a step detector would still have to be built on them. `times_bottleneck` is the ratio of their time to
the kernel's, each the least of many rounds in the same process. The kernel's time includes the cost of its calls (one
for 12 ticks) and a take every half second.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from goods import shop
from reference import scales as reference

from fusion._kernels import scales as kernel
from fusion.goods.planogram import Planogram
from fusion.goods.scales import ShelfMonitor
from fusion.observations import ShelfReading

STORE = shop.shop(n_plates=20, rows=20)
N_PLATES, SAMPLES, PERIOD_NS = len(STORE.plates), 12, 1e9 / 60
LIMITS = (0.1e9, 30.0, 300.0, 600.0, 3.0, 4.0, 6)


def scales() -> shop.Scales:
    """Ten seconds of 400 plates, with a take of 300 g twice a second."""
    signals = shop.Scales(STORE, 10.0, seed=1)
    for i in range(14):
        plate = STORE.plates[(37 * i) % N_PLATES]
        signals.step(2.0 + 0.5 * i, {plate.plate: -300.0})
    return signals


def messages(grams: np.ndarray) -> list[tuple[Any, ...]]:
    """The kernel's arguments for every 12 ticks: plates, times, starts, samples."""
    starts = np.arange(0, SAMPLES * N_PLATES + 1, SAMPLES, dtype=np.uint32)
    plates = np.arange(N_PLATES, dtype=np.uint32)
    return [
        (plates, np.full(N_PLATES, 10**18 + int(first * PERIOD_NS)), starts,
         np.ascontiguousarray(grams[:, first : first + SAMPLES], np.float32).ravel())
        for first in range(0, grams.shape[1] - SAMPLES + 1, SAMPLES)
    ]  # fmt: skip


def flat(ticks: list[tuple[Any, ...]]) -> list[tuple[int, int, np.ndarray]]:
    """The same messages in sequence, as the twin takes them."""
    return [
        (plate, int(t_ns), samples[starts[i] : starts[i + 1]])
        for plates, times, starts, samples in ticks
        for i, (plate, t_ns) in enumerate(zip(plates, times))
    ]


class Kernel:
    """The kernel with new state."""

    def __init__(self) -> None:
        self.found = kernel.Findings.empty(2 * N_PLATES)
        # Bound once, as the stage does; otherwise the measurement would include the lookups.
        self.bound = (
            np.array([PERIOD_NS, *LIMITS, *[np.inf] * N_PLATES]),
            *kernel.PlateTables.empty(N_PLATES), *self.found,
        )  # fmt: skip

    def feed(self, tick: tuple[Any, ...]) -> int:
        """Process one message per plate; returns the number of changes."""
        return kernel.follow(*tick, *self.bound)


SETTLING = 5  # Messages after which the levels are known and all memory has been touched.


def settled(ticks: list[tuple[Any, ...]]) -> tuple[tuple[Kernel, list[tuple[Any, ...]]], dict[str, Any]]:
    """A kernel that knows the levels of its plates, and the later ticks."""
    monitor = Kernel()
    for tick in ticks[:SETTLING]:
        assert monitor.feed(tick) == 0
    return (monitor, ticks[SETTLING:]), {}


def feed(monitor: Kernel, ticks: list[tuple[Any, ...]]) -> int:
    """Process ticks; returns the number of changes."""
    n_changes = 0
    follow, bound = kernel.follow, monitor.bound
    for tick in ticks:
        n_changes += follow(*tick, *bound)
    return n_changes


def us_per_tick(
    run: Callable[..., object], arguments: Callable[[], tuple[Any, ...]], n_ticks: int, rounds: int
) -> float:
    """Least time per tick over several rounds; `arguments` makes new arguments for each."""
    least_s = np.inf
    for _ in range(rounds):
        prepared = arguments()
        began_s = time.perf_counter()
        run(*prepared)
        least_s = min(least_s, time.perf_counter() - began_s)
    return float(least_s) * 1e6 / n_ticks


@pytest.mark.benchmark(group="shelves: ten seconds of 400 plates")
def bench_kernel(benchmark: Any) -> None:
    ticks = messages(scales().grams)
    expected, _, _ = reference.follow(flat(ticks), N_PLATES, PERIOD_NS, LIMITS)
    assert feed(*settled(ticks)[0]) == len(expected) >= 14
    benchmark.pedantic(feed, setup=lambda: settled(ticks), rounds=100)
    n_ticks = (len(ticks) - SETTLING) * SAMPLES
    benchmark.extra_info["ns_per_sample"] = benchmark.stats["min"] * 1e9 / (n_ticks * N_PLATES)
    benchmark.extra_info["us_per_tick_of_400"] = benchmark.stats["min"] * 1e6 / n_ticks


@pytest.mark.benchmark(group="shelves: ten seconds of 400 plates")
def bench_twin(benchmark: Any) -> None:
    ticks = messages(scales().grams[:, :120])
    sequence = flat(ticks)
    benchmark.extra_info["seconds"] = 2.0
    benchmark.pedantic(lambda: reference.follow(sequence, N_PLATES, PERIOD_NS, LIMITS), rounds=1)


@pytest.mark.parametrize("window", [24, 192])
@pytest.mark.benchmark(group="shelves: ten seconds of 400 plates")
def bench_bottleneck(benchmark: Any, window: int) -> None:
    """Moving median and variance, without the step detector that would have to be built on them."""
    bottleneck = pytest.importorskip("bottleneck")
    grams = np.ascontiguousarray(scales().grams)

    def run(grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return bottleneck.move_median(grams, window, axis=1), bottleneck.move_var(grams, window, axis=1)

    # Both find the same steps: the medians at start and end differ on plates where the kernel found a change.
    median, _ = run(grams)
    changed = np.flatnonzero(np.abs(np.nanmedian(grams[:, -24:], axis=1) - median[:, max(window, 60) - 1]) > 50.0)
    ticks = messages(grams)
    monitor = Kernel()
    found: Counter[int] = Counter()
    for tick in ticks:
        n = monitor.feed(tick)
        found.update(monitor.found.changes[:n, 0].tolist())
    assert set(changed.tolist()) <= set(found)
    assert len(changed) >= 10
    # The faster precision counts, so that bottleneck is not slowed down by a conversion.
    per_type = {dtype: grams.astype(dtype) for dtype in (np.float64, np.float32)}
    bottleneck_us = min(us_per_tick(run, lambda g=g: (g,), grams.shape[1], 3) for g in per_type.values())
    kernel_us = us_per_tick(feed, lambda: settled(ticks)[0], (len(ticks) - SETTLING) * SAMPLES, 50)
    benchmark(run, grams)
    benchmark.extra_info["us_per_tick_of_400"] = bottleneck_us
    benchmark.extra_info["times_bottleneck"] = bottleneck_us / kernel_us


@pytest.mark.benchmark(group="shelves: ten seconds of 400 plates")
def bench_numpy_rolling(benchmark: Any) -> None:
    """Rolling mean and variance over sliding windows, in the shortest NumPy form."""
    grams = np.ascontiguousarray(scales().grams)

    def run() -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(grams, 30, axis=1)
        return windows.mean(axis=2) / windows.var(axis=2)

    benchmark.pedantic(run, rounds=2)


@pytest.mark.benchmark(group="shelves: a monitor's step, 0.2 s of 400 plates")
def bench_monitor(benchmark: Any) -> None:
    """The whole stage, including Python objects for messages and the events made from changes."""
    readings = scales().readings()
    by_tick: dict[int, list[ShelfReading]] = {}
    for reading in readings:
        by_tick.setdefault((reading.t_ns - readings[0].t_ns) // 200_000_000, []).append(reading)
    assert len(shop.events(ShelfMonitor(STORE, Planogram(STORE)), readings)) == 14

    def run(monitor: ShelfMonitor) -> None:
        for tick, batch in by_tick.items():
            monitor.step(batch, readings[0].t_ns + (tick + 1) * 200_000_000)

    benchmark.pedantic(run, setup=lambda: ((ShelfMonitor(STORE, Planogram(STORE)),), {}), rounds=20)
    benchmark.extra_info["us_per_step"] = benchmark.stats["min"] * 1e6 / len(by_tick)
