"""Attribution of a shelf event in a crowd, beside its NumPy twin, with CPU time p50 and p99 of an event.

Run: python -m bench attribution.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from goods import shop as scene
from reference import observing as reference

from bench.machine import machine
from fusion.goods.attribution import Attributor
from fusion.goods.beliefs import EventBelief
from fusion.goods.loads import ShelfEvent
from fusion.goods.planogram import Planogram
from fusion.people.arms import ArmHistory
from fusion.results import People

STORE = scene.shop(n_plates=12, rows=5)
N_PEOPLE = 14


def crowd(t0_ns: int, seed: int = 0) -> tuple[ArmHistory, np.ndarray]:
    """Arm history of 14 people in front of the shelves around an instant, each with a hand at a plate; those plates."""
    rng = np.random.default_rng(seed)
    layout = STORE.layout
    history = ArmHistory(layout)
    at = rng.integers(0, len(STORE.plates), N_PEOPLE)
    for i in range(45):
        joints = np.full((N_PEOPLE, layout.n_joints, 3), np.nan)
        position = np.zeros((N_PEOPLE, 2))
        for person, index in enumerate(at):
            plate = STORE.plates[index]
            position[person] = plate.x, plate.y - 0.6
            joints[person, layout.index("r_wrist")] = plate.x, plate.y - 0.18, plate.z + 0.1
            joints[person, layout.index("r_elbow")] = plate.x, plate.y - 0.45, plate.z + 0.1
        joints += rng.normal(0, 0.02, joints.shape)
        t_ns = t0_ns + (i - 30) * 66_000_000
        confirmed = np.ones(N_PEOPLE, bool)
        sd = np.where(np.isnan(joints[:, :, 0]), np.nan, 0.03)
        history.append(
            People(t_ns, np.arange(N_PEOPLE), confirmed, position, np.full(N_PEOPLE, 0.03), joints, sd,
                   np.full(N_PEOPLE, t_ns), np.ones(N_PEOPLE))
        )  # fmt: skip
    return history, at


def takes_and_put_backs() -> list[tuple[ArmHistory, ShelfEvent]]:
    """Sixty takes and put-backs by random people, three takes to one put-back of the goods of the event before it."""
    rng = np.random.default_rng(1)
    events: list[tuple[ArmHistory, ShelfEvent]] = []
    person = 0
    for i in range(60):
        t_ns = 10**18 + i * 3_000_000_000
        history, at = crowd(t_ns)
        person = int(rng.integers(N_PEOPLE)) if i % 4 != 3 else person
        plate = int(at[person])
        weight_g = STORE.products[plate].weight_g * (1.0 if i % 4 == 3 else -1.0)
        event = ShelfEvent(
            np.array([plate]), t_ns - 10**8, t_ns, t_ns + 5 * 10**8, np.array([weight_g]), np.array([[0.3]])
        )
        events.append((history, event))
    return events


Observe = Callable[[Attributor, ShelfEvent, ArmHistory], EventBelief]


def run(observe: Observe, events: list[tuple[ArmHistory, ShelfEvent]], event_us: list[float]) -> list[EventBelief]:
    """All events through a new attributor; the CPU time of each is appended."""
    attributor, beliefs = Attributor(STORE, Planogram(STORE)), []
    for history, event in events:
        started_ns = time.thread_time_ns()
        beliefs.append(observe(attributor, event, history))
        event_us.append((time.thread_time_ns() - started_ns) * 1e-3)
    return beliefs


def time_events(benchmark: Any, observe: Observe, rounds: int, capsys: pytest.CaptureFixture[str]) -> list[EventBelief]:
    """Time one way to attribute; returns what it answers."""
    events = takes_and_put_backs()
    beliefs = run(observe, events, [])
    event_us: list[float] = []
    benchmark.pedantic(run, (observe, events, event_us), rounds=rounds)
    for name, percentile in (("p50_us", 50), ("p99_us", 99)):
        benchmark.extra_info[name] = float(np.percentile(event_us, percentile))
    with capsys.disabled():
        print(f"\n{benchmark.name}: an event p50 {benchmark.extra_info['p50_us']:.0f} us, "
              f"p99 {benchmark.extra_info['p99_us']:.0f} us of CPU time ({machine()})")  # fmt: skip
    return beliefs


@pytest.mark.benchmark(group="attribution: sixty events among 14 people")
def bench_observe(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The engine's."""
    time_events(benchmark, Attributor.observe, 20, capsys)


@pytest.mark.benchmark(group="attribution: sixty events among 14 people")
def bench_observe_twin(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """In NumPy, as it was before; the answers are compared first."""
    for found, expected in zip(run(Attributor.observe, takes_and_put_backs(), []),
                               time_events(benchmark, reference.observe, 3, capsys)):
        chances = [{(c.person, c.gtin, c.quantity): c.probability for c in one.candidates} for one in (found, expected)]
        for key in chances[0].keys() | chances[1].keys():
            assert abs(chances[0].get(key, 1e-6) - chances[1].get(key, 1e-6)) < 1e-9, key
