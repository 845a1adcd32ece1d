"""Whose hand it was: the likelihood of hands at contact, how it is trained, and how reliable it is.

    OMP_NUM_THREADS=1 python -m bench hands --cache build/hands --out docs/figures   by cameras on the wrist
    OMP_NUM_THREADS=1 python -m bench hands --cache build/hands --fit    trains again, writes hand_trees.py
    OMP_NUM_THREADS=1 python -m bench hands --cache build/hands --transfer    also from one generator to the other

Half of the training recordings are simulated as the receipts' are, the others with detectors between good and real
(`REAL_DETECTOR`) and with people who reach in ways that the simulator's own do not (`motions.py`): quickly, slowly,
hovering over what they do not take. Each contact is used as it was and twice more as other people and cameras might
have shown it (`contacts.varied`). Recordings of other seeds test the result, and with FUSION_DATA the visits of an
independent generator (`dev/*`), from which nothing is learnt.

Counted are contacts with at least two people whose bodies are within 1.2 m of the load; a load that was not reported,
or whose two hands' loads were reported as one, is not one. Right: the actor is the most probable; sure: at more than
0.99. Log-loss: mean of -log p(actor), with an unseen actor in the sum.
"""

from __future__ import annotations

import argparse
import math
import os
import pickle
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.accuracy.boosting import corrected, fit
from bench.accuracy.contacts import Contact, Looks, PhysicalHands, contacts_of, looks_of, varied
from bench.accuracy.motions import moving
from bench.accuracy.scenarios import _POOR, CASES, recorded, run_of
from fusion.files.recordings import Recording
from fusion.goods.hands import LEARNT, HandTrees
from fusion.simulation.scenario import REAL_DETECTOR

REACH_M, SURE = 1.2, 0.99
# Halfway between the simulator's detectors and real ones.
_HALF: dict[str, float] = {
    **REAL_DETECTOR, "keypoint_noise": 1.8, "person_miss_probability": 0.05, "outlier_probability": 0.025,
    "guess_probability": 0.45, "joint_miss_probability": 0.03, "miss_by_distance": 0.5, "camera_spread": 0.5,
    "score_median": 0.75, "score_spread": 1.0,
}  # fmt: skip
DETECTORS: dict[str, dict[str, float]] = {"case": {}, "poor": _POOR, "half": _HALF, "real": dict(REAL_DETECTOR)}
_BUSY_CASES = "busy", "crowd", "companions", "occluded", "restocking", "putback"
# Case, seed, detectors, motion.
TRAINING = (
    *((case, seed, "case", "simulator") for seed in (1, 2) for case in _BUSY_CASES),
    *((case, 7, "case", "simulator") for case in _BUSY_CASES if case != "crowd"),
    ("busy", 101, "real", "simulator"), ("crowd", 102, "case", "quick"), ("busy", 103, "half", "hovering"),
    ("companions", 104, "poor", "slow"), ("crowd", 105, "real", "hovering"), ("busy", 106, "case", "slow"),
    ("crowd", 107, "half", "simulator"), ("restocking", 108, "real", "quick"), ("occluded", 109, "case", "hovering"),
    ("busy", 110, "case", "simulator"), ("crowd", 111, "poor", "hovering"), ("companions", 112, "real", "simulator"),
    ("busy", 113, "real", "quick"), ("putback", 114, "half", "slow"), ("crowd", 115, "case", "simulator"),
)  # fmt: skip
N_VARIED = 2
# That many of them are as the receipts' are.
N_OWN = 17
TESTED = tuple((case, seed, "case", "simulator") for seed in (3, 4, 5, 6) for case in _BUSY_CASES)
INDEPENDENT = "independent generator"
HEAD = f"""# Whose hand it was

Made by `python -m bench hands --transfer --out docs/figures`. Contacts of hands with shelves where at least two
people's bodies are within {REACH_M:g} m of the load. Right: the actor is the most probable person, by hands, arms and
place alone; stated: mean probability of the most probable; sure: more than {SURE:g}. Cameras on the wrist: those that
reported the actor's at its true place. Corrected: share of people in reach that the learnt trees look at; the others,
whose arms are unknown or out of the range of training, are weighed by the physical model alone. Nothing was learnt from
the independent generator.
"""
TREES = Path(__file__).resolve().parents[2] / "fusion" / "goods" / "hand_trees.py"


class Score(NamedTuple):
    """Shares and counts over contacts with two people in reach; stated: mean probability of the best answer."""

    n: int
    right: float
    stated: float
    sure_right: float
    sure_wrong: int
    log_loss: float


def score(looks: Looks, log_ratio: NDArray[np.float64], chosen: NDArray[np.bool_] | None = None) -> Score:
    """Score log ratios; chosen: (n_contacts,) which contacts count, of those with two people in reach."""
    n_contacts = len(looks.n_cameras)
    log_p, log_unseen = looks.log_probability(log_ratio)
    actor, best = log_unseen.copy(), log_unseen.copy()
    actor[looks.contact[looks.acts]] = log_p[looks.acts]
    np.maximum.at(best, looks.contact, log_p)
    counts = np.bincount(looks.contact, looks.body_m < REACH_M, n_contacts) >= 2
    if chosen is not None:
        counts &= chosen
    right, sure = actor >= best, best > math.log(SURE)
    if not counts.any():
        return Score(0, math.nan, math.nan, math.nan, 0, math.nan)
    return Score(
        int(counts.sum()), float(right[counts].mean()), float(np.exp(best[counts]).mean()),
        float((right & sure)[counts].mean()), int((~right & sure)[counts].sum()), float(-actor[counts].mean()),
    )  # fmt: skip


def recording(cache: Path, case: str, seed: int, detector: str, motion: str) -> Path:
    """A recording, which is simulated where it is not there yet."""
    run = run_of(next(c for c in CASES if c.name == case), seed)
    run = replace(run, scenario=replace(run.scenario, **DETECTORS[detector]))  # type: ignore[arg-type]
    with moving(motion):
        return recorded(run, cache if motion == "simulator" else cache / motion)


def with_variations(recordings: Iterable[tuple[Path, Path]]) -> Looks:
    """The looks of recordings to learn from. recordings: each with where its people as followed are kept."""
    parts = []
    for number, (path, kept) in enumerate(recordings):
        contacts, hands = _contacts(path, kept), PhysicalHands(Recording(path).store)
        random = np.random.default_rng(number)
        parts.append(looks_of(contacts, hands))
        parts += [looks_of([varied(contact, random) for contact in contacts], hands) for _ in range(N_VARIED)]
        print(f"{path.name}: {len(contacts)} contacts", file=sys.stderr, flush=True)
    return Looks.joined(parts)


def _contacts(recording: Path, kept: Path) -> list[Contact]:
    """Contacts of a recording, kept beside its people as followed."""
    path = kept.with_name(f"{kept.name}.contacts.pickle")
    if not path.exists():
        path.write_bytes(pickle.dumps(contacts_of(recording, kept)))
    contacts: list[Contact] = pickle.loads(path.read_bytes())
    return contacts


def _tested(recordings: Iterable[tuple[Path, Path]]) -> Looks | None:
    parts = [looks_of(_contacts(path, kept), PhysicalHands(Recording(path).store)) for path, kept in recordings]
    return Looks.joined(parts) if parts else None


def module(trees: HandTrees) -> str:
    """Text of `hand_trees.py`."""
    def row(values: Iterable[float]) -> str:
        return "(" + ", ".join("INF" if math.isinf(value) else f"{value + 0.0:.5g}" for value in values) + ")"

    lines = [
        '"""The learnt correction of the hands\' log ratios: written by `python -m bench hands --fit`, not by hand.',
        "",
        "TRAINED: least and greatest of each feature in training. TREES: for each tree seven pairs of the feature that",
        "a node looks at and the threshold from which it goes right, breadth first, then the eight leaves.",
        '"""',
        "",
        "# fmt: off",
        'INF = float("inf")',
        "TRAINED = (", *(f"    {row(bound)}," for bound in trees.trained), ")",
        "TREES = (",
    ]  # fmt: skip
    for on, threshold, leaf in zip(trees.split_on.tolist(), trees.threshold.tolist(), trees.leaf.tolist()):
        pairs = [f"({feature}, {'INF' if math.isinf(at) else f'{at:.5g}'})" for feature, at in zip(on, threshold)]
        lines += ["    (" + ", ".join(pairs) + ",", f"     {row(leaf)}),"]
    return "\n".join([*lines, ")", ""])


def page(rows: Sequence[tuple[str, Looks]], trees: HandTrees) -> str:
    """The report: with and without the trees, by set and by the number of cameras that saw the actor's wrist."""
    own = "right %", "stated %", "sure and right %", "sure and wrong", "log-loss"
    head = ["contacts", "cameras on the wrist", "n", *own, *(f"without trees: {name}" for name in own), "corrected %"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, looks in rows:
        log_ratio = corrected(looks, trees)
        inside = ((looks.features >= trees.trained[0]) & (looks.features <= trees.trained[1])).all(axis=1)
        for label, low, high in (("any", 0, 99), ("0 or 1", 0, 1), ("2 or 3", 2, 3), ("4 or more", 4, 99)):
            chosen = (looks.n_cameras >= low) & (looks.n_cameras <= high)
            ours, before = score(looks, log_ratio, chosen), score(looks, looks.log_ratio, chosen)
            if ours.n:
                near = chosen[looks.contact] & (looks.body_m < REACH_M)
                cells = [name, label, str(ours.n), *_cells(ours), *_cells(before), f"{100 * inside[near].mean():.0f}"]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_reliability(rows, trees)])


def _cells(one: Score) -> list[str]:
    shares = (f"{100 * share:.1f}" for share in (one.right, one.stated, one.sure_right))
    return [*shares, str(one.sure_wrong), f"{one.log_loss:.4f}"]


def _reliability(rows: Sequence[tuple[str, Looks]], trees: HandTrees) -> list[str]:
    """Stated and true share of acting, of people in reach, by bins of the stated probability."""
    edges = (0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0001)
    lines = ["| people in reach of | stated p | n | mean p % | acted % |", "|---|---|---|---|---|"]
    for name, looks in rows:
        p = np.exp(looks.log_probability(corrected(looks, trees))[0])
        n_near = np.bincount(looks.contact, looks.body_m < REACH_M, len(looks.n_cameras))[looks.contact]
        for low, high in zip(edges, edges[1:]):
            inside = (p >= low) & (p < high) & (n_near >= 2)
            if inside.any():
                cells = [name, f"{low:g} to {min(high, 1.0):g}", str(inside.sum()), f"{100 * p[inside].mean():.1f}"]
                lines.append("| " + " | ".join([*cells, f"{100 * looks.acts[inside].mean():.1f}"]) + " |")
    return lines


def transfer(training: dict[str, Looks], tested: Sequence[tuple[str, Looks]]) -> str:
    """What trees that were fitted to one generator do in another."""
    head = "fitted to", "tested on", "n", "right %", "stated %", "sure and right %", "sure and wrong", "log-loss"
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for source, looks in training.items():
        trees = fit(looks)
        for name, other in tested:
            if not (source == INDEPENDENT and name.startswith(source)):
                each = score(other, corrected(other, trees))
                lines.append("| " + " | ".join([source, name, str(each.n), *_cells(each)]) + " |")
    return "\n".join(lines)


def main() -> int:
    """Train if asked, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder of the recordings")
    parser.add_argument("--fit", action="store_true", help="train again and write fusion/goods/hand_trees.py")
    parser.add_argument("--transfer", action="store_true", help="fit to each generator alone, test on the other")
    parser.add_argument("--out", type=Path, help="folder for hands.md")
    options = parser.parse_args()
    cache: Path = options.cache
    cache.mkdir(parents=True, exist_ok=True)
    data = Path(os.environ.get("FUSION_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "dev"
    dev = [(path, cache / f"dev-{path.name}") for path in sorted(data.glob("*")) if (path / "store").is_dir()]
    training, looks = [], None
    if options.fit or options.transfer:
        training = [(path, path) for path in (recording(cache, *one) for one in TRAINING)]
        looks = with_variations(training)
    trees = LEARNT
    if options.fit and looks is not None:
        trees = fit(looks)
        TREES.write_text(module(trees), encoding="utf-8")
    tested = [("simulator, other seeds", _tested((path, path) for path in (recording(cache, *one) for one in TESTED)))]
    for name, rough in ((INDEPENDENT, False), (f"{INDEPENDENT}, keypoints as bad as real ones", True)):
        tested.append((name, _tested(pair for pair in dev if pair[0].name.startswith("rough") == rough)))
    rows = [(name, each) for name, each in tested if each is not None]
    text = page(rows, trees)
    if options.transfer and looks is not None:
        sources = {"simulator, as the receipts'": with_variations(training[:N_OWN]), "simulator, all": looks}
        if dev:
            sources[INDEPENDENT] = with_variations(dev)
        text += "\n\nFitted to one generator, tested on another:\n\n" + transfer(sources, rows)
    print(text)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "hands.md").write_text(f"{HEAD}\n{text}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
