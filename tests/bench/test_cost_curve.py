"""`python -m bench cost_curve` measures the stated scenes: views of each person, and people who are followed."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from bench.speed import cost_curve


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return cost_curve


def test_sizes(bench):
    room, hall = bench.make_scene(12, 8), bench.make_scene(50, 16)
    assert room.rig.n_views == 12 and len(room.store.obstacle.boxes) == 1
    assert hall.rig.n_views == 50 and hall.n_people == 16
    # Four cameras would see too many of fifty people at once.
    assert bench.make_scene(4, 50) is None


def test_each_person_is_in_eight_views_of_a_hall(bench):
    scene = bench.make_scene(50, 50)
    sets = list(bench.frame_sets(scene, 3))
    present = scene.present(np.float64(0.0)).sum()
    views = np.mean([sum(len(frame.keypoints) for frame in frames) for frames in sets]) / present
    assert 7.0 < views < 9.5
    assert all(len(frames) == 50 for frames in sets)
    times = [frame.t_ns for frames in sets for frame in frames]
    assert times == sorted(times)


def test_a_size_is_measured(bench):
    row = bench.measure(6, 3, n_sets=45, repeats=1)
    assert row["followed"] > 0.95 and 4 < row["views_each"] <= 6.1
    assert 0 < row["tracker_p50_us"] <= row["tracker_p99_us"] <= row["tracker_worst_us"]
    assert bench.markdown([row]).count("\n") == 2


def test_exponent_and_page(bench):
    figures = [f"{stage}_{statistic}_us" for stage in ("tracker", "engine") for statistic in ("p50", "p99", "worst")]
    rows = [
        {"cameras": 12, "people": n, "detections": 8.0 * n, "views_each": 8.0, "birth_us": 1.0}
        | dict.fromkeys(figures, 0.5 * n**1.5)
        for n in (2, 8, 16)
    ]
    assert bench.exponent(rows, "engine_p50_us") == pytest.approx(1.5)
    page = bench.page({"command": "python -m bench cost_curve", "machine": "A processor", "rows": rows})
    assert "exponent 1.50" in page and page.count("\n| 12 |") == 3
