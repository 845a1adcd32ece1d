"""How often the order of keypoints is found out, asked for, or wrong, by what is seen of how many people.

    FUSION_DATA=path/to/data python -m bench skeletons [--files N]

People are those that four detectors found (three in one real shop, OpenPose in the Shelf recording; left out where
FUSION_DATA is absent) and those of a simulated shop. They are written in every published order; joints that a source
lacks are placed from their neighbours with 3 % of the person's size as noise. A file holds some people in a row, seen
whole or in part; keypoints with a score of 0 are unseen.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fusion.files.anatomy import judge, log_likelihoods
from fusion.files.recordings import Recording
from fusion.files.skeletons import SKELETONS, Skeleton, skeletons_of
from fusion.observations import Frame
from fusion.simulation import Scenario, Simulation, demo_store

# Joints that are placed from others: weights of the others, on the same side where they have one.
_PLACED = {
    "neck": {"l_shoulder": 0.5, "r_shoulder": 0.5},
    "mid_hip": {"l_hip": 0.5, "r_hip": 0.5},
    "upper_neck": {"neck": 0.65, "nose": 0.35},
    "head_top": {"neck": -0.9, "nose": 1.9},
    "head": {"neck": -0.1, "nose": 1.1},
    "spine": {"neck": 0.5, "mid_hip": 0.5},
    "eye_inner": {"eye": 0.6, "nose": 0.4},
    "eye_outer": {"eye": 0.8, "ear": 0.2},
    "mouth": {"nose": 0.7, "neck": 0.3},
    "hand": {"wrist": 1.35, "elbow": -0.35},
    "index": {"wrist": 1.35, "elbow": -0.35},
    "pinky": {"wrist": 1.3, "elbow": -0.3},
    "thumb": {"wrist": 1.2, "elbow": -0.2},
    "heel": {"ankle": 1.15, "knee": -0.15},
    "big_toe": {"ankle": 1.3, "knee": -0.3},
    "small_toe": {"ankle": 1.3, "knee": -0.3},
}
_LEGS = ("knee", "ankle", "heel", "toe")
_HEAD = ("nose", "eye", "ear", "head", "mouth")
PARTS: dict[str, Callable[[str], bool]] = {
    "whole": lambda joint: True,
    "no head": lambda joint: not any(part in joint for part in _HEAD),
    "upper body": lambda joint: not any(part in joint for part in _LEGS),
    "legs": lambda joint: "hip" in joint or any(part in joint for part in _LEGS),
    "left half": lambda joint: not joint.startswith("r_"),
}
SIZES = (1, 3, 10, 100)


def placed(people: np.ndarray, source: tuple[str, ...], order: Skeleton, rng: np.random.Generator) -> np.ndarray:
    """People (n, J, 3) of a source in another order, (n, n_joints, 3); keypoints without a name are unseen."""
    people = people[(people[:, :, 2] > 0.0).any(axis=1)]
    seen = people[:, :, 2] > 0.0
    size = np.sqrt(np.nanvar(np.where(seen[:, :, None], people[:, :, :2], np.nan), axis=1).mean(axis=1))
    known = {joint: people[:, index] for index, joint in enumerate(source)}

    def joint_of(name: str) -> np.ndarray:
        if name in known:
            return known[name]
        side = name[:2] if name[:2] in ("l_", "r_") else ""
        others = []
        for other, weight in _PLACED[name.removeprefix(side)].items():
            own_side = side if f"{side}{other}" in known or other in ("eye", "ear") else ""
            others.append((weight, joint_of(f"{own_side}{other}")))
        place = np.sum([weight * joint[:, :2] for weight, joint in others], axis=0)
        place += rng.normal(0.0, 0.03, (len(people), 2)) * size[:, None]
        score = np.min([joint[:, 2] for _, joint in others], axis=0)
        known[name] = np.where(score[:, None] > 0.0, np.c_[place, score], 0.0)
        return known[name]

    out = np.zeros((len(people), order.n_joints, 3))
    for index, name in enumerate(order.joints):
        if name:
            out[:, index] = joint_of(name)
    return out


def sources() -> dict[str, tuple[np.ndarray, tuple[str, ...]]]:
    """People of every source with the names of their joints, in the order in which they were seen."""
    found = {}
    data = Path(os.environ.get("FUSION_DATA", Path(__file__).parents[3] / "shared" / "data"))
    for name in ("real/multipose", "real/thunder", "real/mediapipe", "shelf"):
        if (data / name).exists():
            recording = Recording(data / name)
            people = np.concatenate([frame.keypoints for frame in recording.frames()]).astype(np.float64)
            found[name] = (people, recording.store.layout.joints)
    store = demo_store(n_cameras=6, n_plates=24)
    observations = Simulation(store, Scenario(seed=11, minutes=1.0, shoppers=4)).observations()
    keypoints = [one.keypoints for one in observations if isinstance(one, Frame)]
    found["simulated"] = (np.concatenate(keypoints).astype(np.float64), store.layout.joints)
    return found


def trials(
    people: dict[tuple[str, str], np.ndarray], part: str, size: int, n_files: int, rng: np.random.Generator
) -> Counter[str]:
    """Verdicts on files of `size` people in a row, seen in part."""
    verdicts: Counter[str] = Counter()
    for (source, order), everybody in people.items():
        skeleton = SKELETONS[order]
        hidden = [not (joint and PARTS[part](joint)) for joint in skeleton.joints]
        for start in rng.integers(0, max(len(everybody) - size, 1), n_files):
            file = everybody[start : start + size].copy()
            file[:, hidden] = 0.0
            verdict = judge(file, skeletons_of(skeleton.n_joints))
            if verdict.skeleton is None:
                verdicts["asked"] += 1
            else:
                same = np.array_equal(_seen_names(file, verdict.skeleton), _seen_names(file, skeleton))
                verdicts["right" if same else "wrong"] += 1
                if not same:
                    print(f"wrong: {source}, {order} from person {start}: {verdict.skeleton.name}", file=sys.stderr)
    return verdicts


def _seen_names(file: np.ndarray, skeleton: Skeleton) -> list[str]:
    """Names of the joints that were seen at all: orders that agree on them give the same people."""
    return [joint for joint, seen in zip(skeleton.joints, (file[:, :, 2] > 0.0).any(axis=0)) if seen]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench skeletons", description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=10, help="files for each order, source, part and size (10)")
    n_files = parser.parse_args().files
    rng = np.random.default_rng(1)
    people = {}
    for name, (found, joints) in sources().items():
        for order in SKELETONS.values():
            people[name, order.name] = placed(found, joints, order, rng)
    print(f"{len(SKELETONS)} orders, {len({source for source, _ in people})} sources, {n_files} files each\n")
    print("| seen | people in a file | files | found out | asked for | wrong |\n|---|---|---|---|---|---|")
    total: Counter[str] = Counter()
    for part in PARTS:
        for size in SIZES:
            verdicts = trials(people, part, size, n_files, rng)
            total += verdicts
            print(_row(f"{part} | {size}", verdicts), flush=True)
    print(_row("all | ", total))
    own, wrong = _fits(people)
    right = f"right orders {min(own):.2f} to {max(own):.2f}"
    print(f"\nmean log likelihood of a keypoint: {right}, wrong ones at most {max(wrong):.2f}")


def _row(start: str, verdicts: Counter[str]) -> str:
    n = verdicts.total()
    return f"| {start} | {n} | {verdicts['right'] / n:.1%} | {verdicts['asked'] / n:.1%} | {verdicts['wrong']} |"


def _fits(people: dict[tuple[str, str], np.ndarray]) -> tuple[list[float], list[float]]:
    """Mean log likelihood of a keypoint of 300 whole people under the right order, and under every other one."""
    own, wrong = [], []
    for (_, order), everybody in people.items():
        seen = everybody[(everybody[:, :, 2] > 0.0).sum(axis=1) >= 6][:300]
        for skeleton in skeletons_of(SKELETONS[order].n_joints):
            named = np.array([bool(joint) for joint in skeleton.joints])
            n_links = np.maximum((seen[:, named, 2] > 0.0).sum(axis=1) - 1, 1)
            fit = float((log_likelihoods(seen, skeleton.joints) / n_links).mean())
            (own if skeleton.name == order else wrong).append(fit)
    return own, wrong


if __name__ == "__main__":
    main()
