"""Where the time of a step of the tracker goes: microseconds of CPU time by stage and kernel, medians over 25 steps.

    OMP_NUM_THREADS=1 python bench/where_time_goes.py 12 8
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import Any

import numpy as np
from cost_curve import WARM_UP_SETS, frame_sets, make_scene

from fusion._kernels import association, triangulation
from fusion.tracks import Tracker


def main(n_cameras: int, n_people: int) -> None:
    scene = make_scene(n_cameras, n_people)
    assert scene is not None, "no such size: a camera would see too many people at once"
    tracker, spent_ns, steps = Tracker(scene.store), Counter[str](), []

    def watch(owner: Any, name: str, label: str) -> None:
        inner = getattr(owner, name)

        def timed(*args: Any) -> Any:
            started = time.thread_time_ns()
            answer = inner(*args)
            spent_ns[label] += time.thread_time_ns() - started
            return answer

        setattr(owner, name, timed)

    for name in ("prepare", "predict", "costs", "update", "hold_limbs", "describe"):
        watch(triangulation, name, f"kernel {name}")
    for name in ("assign", "overlaps", "noise"):
        watch(association, name, f"kernel {name}")
    for name in ("_update", "_measure", "_tell", "_drop_duplicates", "_let_go", "_name", "_watch_cameras", "step"):
        watch(tracker, name, name)
    for name in ("pack", "match"):
        watch(tracker._associator, name, name)
    for frames in frame_sets(scene, WARM_UP_SETS + 25):
        spent_ns.clear()
        tracker.step(frames)
        steps.append(dict(spent_ns))
    steps = steps[WARM_UP_SETS:]
    middle = {label: np.median([step.get(label, 0) for step in steps]) / 1e3 for label in set().union(*steps)}
    for label, us in sorted(middle.items(), key=lambda item: -item[1]):
        print(f"{label:20s} {us:8.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
