"""The cost of the tracker's step by stage and kernel: median CPU time in microseconds over 25 steps.

    OMP_NUM_THREADS=1 python -m bench stages 12 8

The arguments are the numbers of cameras and people.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench.speed.cost_curve import WARM_UP_SETS, frame_sets, make_scene
from fusion.people.tracker import Tracker

CALLS = ("take", "predict", "match", "follow", "describe", "measure")
STAGES = {
    "": ("_align", "_check_cameras", "_drop_duplicates", "_report", "step"),
    "health": ("watch_streams", "update"),
    "_existence": ("update_tentative", "update_doubt", "update_confirmed"),
    "_births": ("start",),
    "_relinking": ("retire", "name"),
}


def main() -> None:
    """Print the table for the numbers of cameras and people on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cameras", type=int)
    parser.add_argument("people", type=int)
    args = parser.parse_args()
    scene = make_scene(args.cameras, args.people)
    assert scene is not None, "choose fewer people or more cameras: a camera would see too many people at once"
    tracker, spent_ns, steps = Tracker.of_store(scene.store), Counter[str](), []

    def watch(owner: Any, name: str, label: str) -> None:
        inner = getattr(owner, name)

        def timed(*args: Any) -> Any:
            started = time.thread_time_ns()
            result = inner(*args)
            spent_ns[label] += time.thread_time_ns() - started
            return result

        setattr(owner, name, timed)

    # The workspace's kernels are native and cannot be replaced individually, so the calls go through a namespace.
    kernels = SimpleNamespace(**{name: getattr(tracker._workspace.kernels, name) for name in CALLS})
    tracker._workspace.kernels = kernels
    for name in CALLS:
        watch(kernels, name, f"kernel {name}")
    for owner, names in STAGES.items():
        for name in names:
            watch(getattr(tracker, owner) if owner else tracker, name, f"{owner} {name}".strip("_ "))
    watch(tracker._associator, "pack", "pack, with take")
    for frames in frame_sets(scene, WARM_UP_SETS + 25):
        spent_ns.clear()
        tracker.step(frames)
        steps.append(dict(spent_ns))
    steps = steps[WARM_UP_SETS:]
    median_us = {label: np.median([step.get(label, 0) for step in steps]) / 1e3 for label in set().union(*steps)}
    for label, us in sorted(median_us.items(), key=lambda item: -item[1]):
        print(f"{label:20s} {us:8.1f}")
