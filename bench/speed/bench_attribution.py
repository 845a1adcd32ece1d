"""Attribution of a shelf event in a crowd: the joint kernel beside its NumPy twin, and the whole stage.

Run: python -m bench attribution.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from goods import shop as scene
from reference import attribution as reference

from fusion._kernels import attribution as kernel
from fusion.goods.attribution import Attributor
from fusion.goods.loads import ShelfEvent
from fusion.goods.planogram import Planogram
from fusion.people.arms import ArmHistory
from fusion.results import People

STORE = scene.shop(n_plates=12, rows=5)
N_PEOPLE = 14


def problem(seed: int = 0) -> tuple[Any, ...]:
    """128 hypotheses of six events, and a new event with 48 candidates."""
    rng = np.random.default_rng(seed)
    n_events, per_event, n_new, n_rows = 6, 20, 48, 128
    n = n_events * per_event + n_new
    owner, product = rng.integers(-1, 8, (n, 2)).astype(np.int32), rng.integers(0, 6, (n, 2)).astype(np.int32)
    quantity = rng.choice(np.array([-2, -1, -1, 1], np.int32), (n, 2))
    quantity[:, 1] *= rng.random(n) < 0.2  # Few loads have two parts.
    choices = np.stack([rng.integers(e * per_event, (e + 1) * per_event, n_rows) for e in range(n_events)], axis=1)
    log_weight = np.sort(np.log(rng.dirichlet(np.ones(n_rows))))[::-1].copy()
    return (
        np.ascontiguousarray(choices, np.int32), log_weight, owner, owner, product, quantity, n_events * per_event,
        np.sort(rng.uniform(0, 30, n_events + 1)), rng.normal(0, 3, n_new), -rng.uniform(0, 9, (n_new, 2)),
        rng.integers(0, 2, (n_new, 2)).astype(np.int32), np.zeros((0, n_new)), np.zeros(n_new),
        np.zeros(n_new, np.int32), 0.5, -2.3,
    )  # fmt: skip


@pytest.mark.benchmark(group="attribution: 128 hypotheses x 48 candidates")
def bench_extend(benchmark: Any) -> None:
    args = problem()
    key, pick = np.empty(128), np.empty(128, np.int32)
    assert kernel.extend(*args, key, pick, 1e9) == 128
    np.testing.assert_allclose(key, np.sort(reference.extend(*args).ravel())[::-1][:128])
    benchmark(kernel.extend, *args, key, pick, 18.0)


@pytest.mark.benchmark(group="attribution: 128 hypotheses x 48 candidates")
def bench_extend_twin(benchmark: Any) -> None:
    args = problem()
    benchmark.pedantic(lambda: np.sort(reference.extend(*args).ravel())[::-1][:128], rounds=3)


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


@pytest.mark.benchmark(group="attribution: an event among 14 people")
def bench_observe(benchmark: Any) -> None:
    """Sixty takes and put-backs by random people, three takes to one put-back."""
    rng = np.random.default_rng(1)
    events = []
    for i in range(60):
        t_ns = 10**18 + i * 3_000_000_000
        history, at = crowd(t_ns)
        # Every fourth event puts back the goods of the event before it.
        person = int(rng.integers(N_PEOPLE)) if i % 4 != 3 else events[-1][2]
        plate = int(at[person])
        weight_g = STORE.products[plate].weight_g * (1.0 if i % 4 == 3 else -1.0)
        event = ShelfEvent(
            np.array([plate]), t_ns - 10**8, t_ns, t_ns + 5 * 10**8, np.array([weight_g]), np.array([[0.3]])
        )
        events.append((history, at, person, event))

    event_us: list[float] = []

    def run() -> int:
        attributor = Attributor(STORE, Planogram(STORE))
        right = 0
        for history, at, person, event in events:
            started_ns = time.perf_counter_ns()
            belief = attributor.observe(event, history)
            event_us.append((time.perf_counter_ns() - started_ns) * 1e-3)
            same = {p for p in range(N_PEOPLE) if at[p] == at[person]}
            right += bool(belief.candidates) and belief.candidates[0].person in same
        return right

    assert run() >= 45
    event_us.clear()
    benchmark(run)
    benchmark.extra_info["us_per_event"] = benchmark.stats["min"] * 1e6 / len(events)
    benchmark.extra_info["p99_us"] = float(np.percentile(event_us, 99))
    print(f"{benchmark.extra_info}")
