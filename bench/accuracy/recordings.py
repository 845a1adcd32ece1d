"""Accuracy on the public recordings, from detections and weights to receipts, with one set of defaults.

    FUSION_DATA=path/to/data python -m bench recordings

Reads recordings of the file contract that are not part of this project: `shelf` (the Shelf data set, detected by
OpenPose), `cmc1` (boxes with appearance vectors of the Curtin data set), `nanostore_visit` (real weights of a shop) and
`dev/*` (visits of an independent generator). Prints a table; absent recordings are left out.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from fusion import replay
from fusion.results import RunSummary
from fusion.store.gtin import gtin_14
from fusion.store.layouts import LAYOUTS

# Limbs among the Shelf annotation's ten parts. Its two head joints are computed from ears and shoulders.
_BODY = LAYOUTS["body25"]
_LIMBS = [
    ("r_ankle", "r_knee"),
    ("r_knee", "r_hip"),
    ("l_hip", "l_knee"),
    ("l_knee", "l_ankle"),
    ("r_wrist", "r_elbow"),
    ("r_elbow", "r_shoulder"),
    ("l_shoulder", "l_elbow"),
    ("l_elbow", "l_wrist"),
]
_TRUTH = (
    "r_ankle r_knee r_hip l_hip l_knee l_ankle r_wrist r_elbow r_shoulder l_shoulder l_elbow l_wrist chin top".split()
)
_INSTANT_NS = 21_000_000


def _fill(joints: np.ndarray, joint: str, *substitutes: str) -> None:
    """Replace a joint, where it is unknown, by the mean of the known substitutes."""
    place = joints[:, _BODY.index(joint)]
    known = np.stack([joints[:, _BODY.index(substitute)] for substitute in substitutes])
    unknown = np.isnan(place[:, 0])
    n_known = (~np.isnan(known[..., 0])).sum(0)[:, None]
    place[unknown] = np.where(n_known, np.nansum(known, axis=0) / np.maximum(n_known, 1), np.nan)[unknown]


def _annotation_joints(joints_m: np.ndarray) -> dict[str, np.ndarray]:
    """(n, 25, 3) body25 joints as the joints of the Shelf annotation, by name; each (n, 3).

    The annotation's chin lies half-way from the shoulders to the ears, its top of the head 12.5 cm in front and 14.5 cm
    above that: the usual head rule for detectors without these joints.
    """
    joints = joints_m.astype(float).copy()
    _fill(joints, "neck", "l_shoulder", "r_shoulder")
    _fill(joints, "mid_hip", "l_hip", "r_hip")
    _fill(joints, "l_shoulder", "neck")
    _fill(joints, "r_shoulder", "neck")
    _fill(joints, "l_ear", "r_ear")
    _fill(joints, "r_ear", "l_ear")
    _fill(joints, "l_ear", "l_eye", "r_eye", "nose")
    _fill(joints, "r_ear", "l_eye", "r_eye", "nose")
    at = {name: joints[:, i] for i, name in enumerate(_BODY.joints)}
    shoulders, ears = (at["l_shoulder"] + at["r_shoulder"]) / 2, (at["l_ear"] + at["r_ear"]) / 2
    ahead = np.cross(at["neck"] - at["mid_hip"], at["r_shoulder"] - at["l_shoulder"])
    ahead /= np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-9)
    chin = (shoulders + ears) / 2
    return {**{name: at[name] for name in _TRUTH[:12]}, "chin": chin, "top": chin + 0.125 * ahead + [0.0, 0.0, 0.145]}


def parts_right(estimated: dict[str, np.ndarray], true: dict[str, np.ndarray]) -> np.ndarray:
    """(10,) whether each body part is right: mean error of its ends at most half its true length (PCP, alpha 0.5)."""

    def right(a: np.ndarray, b: np.ndarray, true_a: np.ndarray, true_b: np.ndarray) -> bool:
        error = (np.linalg.norm(a - true_a) + np.linalg.norm(b - true_b)) / 2
        return bool(error <= 0.5 * np.linalg.norm(true_a - true_b))

    hips, true_hips = (estimated["r_hip"] + estimated["l_hip"]) / 2, (true["r_hip"] + true["l_hip"]) / 2
    parts = [right(estimated[a], estimated[b], true[a], true[b]) for a, b in [*_LIMBS, ("chin", "top")]]
    return np.array([*parts, right(hips, estimated["chin"], true_hips, true["chin"])])


def shelf_score(recording: Path, results: Path) -> dict[str, float]:
    """Percentage of correct parts of the three scored actors, their average, weighted by frames, and people per frame.

    Source: Belagiannis et al., 3D Pictorial Structures for Multiple Human Pose Estimation (2014).
    """
    truth = np.load(recording / "truth" / "poses.npz")
    table = pq.read_table(results / "tracks.parquet")
    time, track = table["time"].to_numpy(), table["track"].to_numpy()
    joints = np.array(table["keypoints"].to_pylist()).reshape(len(time), -1, 4)[:, :, :3]
    estimated = _annotation_joints(joints)
    right, total, n_people = np.zeros(3), np.zeros(3), []
    for k, now in enumerate(truth["time"]):
        near = np.flatnonzero(np.abs(time - now) <= _INSTANT_NS)
        nearest = {
            number: min(near[track[near] == number], key=lambda i: abs(time[i] - now)) for number in set(track[near])
        }
        rows = np.array(sorted(nearest.values()), int)
        n_people.append(len(rows))
        for actor in range(3):
            if not truth["visible"][k, actor, :14].all():
                continue
            total[actor] += 10
            true = {name: truth["xyz"][k, actor, j].astype(float) for j, name in enumerate(_TRUTH)}
            if len(rows):
                errors = [np.linalg.norm(estimated[name][rows] - true[name], axis=1) for name in _TRUTH]
                error_m = np.stack(errors, axis=1)
                best = rows[np.argmin(np.where(np.isfinite(error_m), error_m, 1.0).mean(axis=1))]
                right[actor] += parts_right({name: estimated[name][best] for name in _TRUTH}, true).sum()
    share = 100 * right / total
    return {
        **{f"A{a + 1}": round(share[a], 2) for a in range(3)},
        "average": round(share.mean(), 2),
        "weighted": round(100 * right.sum() / total.sum(), 2),
        "people_per_frame": round(float(np.mean(n_people)), 2),
    }


def visits_score(recording: Path, results: Path) -> dict[str, int]:
    """Number of true visits, and of receipts settled, settled wrongly, sent to review, and right in any status."""
    with open(recording / "truth" / "visits.jsonl", encoding="utf-8") as file:
        truth = {visit["account"]: _numbers(visit["items"].items()) for visit in map(json.loads, file)}
    with open(results / "receipts.jsonl", encoding="utf-8") as file:
        receipts = [json.loads(line) for line in file]
    counts: Counter[str] = Counter(visits=len(truth), settled=0, settled_wrong=0, review=0, right=0)
    for receipt in receipts:
        billed = _numbers((line["gtin"], line["quantity"]) for line in receipt["lines"])
        right = +billed == +truth.get(receipt["account"], Counter())
        counts[receipt["status"]] += 1
        counts["right"] += right
        counts["settled_wrong"] += receipt["status"] == "settled" and not right
    return dict(counts)


def _numbers(pieces: Iterable[tuple[str, int]]) -> Counter[str]:
    """Pieces by product; a truth may spell a GTIN with more zeros than the store."""
    total: Counter[str] = Counter()
    for gtin, n in pieces:
        total[gtin_14(gtin)] += n
    return total


def events_score(recording: Path, results: Path) -> dict[str, float]:
    """Numbers of true and reported events, the worst time error, and the least probability of the right product."""
    with open(recording / "truth" / "events.csv", newline="", encoding="utf-8") as file:
        truth = sorted(csv.DictReader(file), key=lambda row: int(row["time"]))
    with open(results / "events.jsonl", encoding="utf-8") as file:
        reported = sorted(map(json.loads, file), key=lambda row: row["time"])
    right = [
        max((c["probability"] for c in event["candidates"] if gtin_14(c["gtin"]) == gtin_14(true["gtin"])), default=0.0)
        for event, true in zip(reported, truth)
    ]
    errors_s = [abs(event["time"] - int(true["time"])) / 1e9 for event, true in zip(reported, truth)]
    return {
        "true": len(truth),
        "reported": len(reported),
        "time_error_s": round(max(errors_s, default=0.0), 2),
        "right_product_p": round(min(right, default=0.0), 4),
    }


def identities_score(recording: Path, results: Path) -> dict[str, float]:
    """CLEAR-MOT and identity scores on the floor at 0.5 m, counting every track from its first frame."""
    from bench.accuracy.people import Instant, score_identities

    truth = pq.read_table(recording / "truth" / "people.parquet", columns=["time", "account", "x", "y"])
    tracked = pq.read_table(results / "tracks.parquet", columns=["time", "track", "x", "y"])
    names = truth["account"].to_pylist()
    person = np.array([sorted(set(names)).index(name) for name in names])
    time, place_m = truth["time"].to_numpy(), np.stack([truth["x"].to_numpy(), truth["y"].to_numpy()], axis=1)
    tracked_ns, track = tracked["time"].to_numpy(), tracked["track"].to_numpy()
    tracked_m = np.stack([tracked["x"].to_numpy(), tracked["y"].to_numpy()], axis=1)
    instants = np.unique(time)
    half_ns = int(np.median(np.diff(instants)) // 2)
    scenes = []
    for now in instants:
        true = np.flatnonzero(time == now)
        near = np.flatnonzero(np.abs(tracked_ns - now) < half_ns)
        rows = np.array(
            [min(near[track[near] == t], key=lambda i: abs(tracked_ns[i] - now)) for t in set(track[near])], int
        )
        all_count = np.ones(len(rows), bool)
        scenes.append(
            Instant(
                people=person[true],
                people_m=place_m[true],
                people_count=np.ones(len(true), bool),
                tracks=track[rows],
                tracks_m=tracked_m[rows],
                tracks_count=all_count,
                identity=all_count.astype(float),
            )
        )
    score = score_identities(scenes, gate_m=0.5)
    return {"MOTA": round(100 * score.mota, 2), "IDF1": round(100 * score.idf1, 2), "switches": score.switches}


SCORES = {"shelf": shelf_score, "cmc1": identities_score, "nanostore_visit": events_score}


def main() -> int:
    """Score every recording that is there; returns 2 if the folder does not exist."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    data = Path(os.environ.get("FUSION_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    if not data.is_dir():
        print(f"python -m bench recordings: {data} is not a folder; set FUSION_DATA to the recordings", file=sys.stderr)
        return 2
    names = ["shelf", "cmc1", "nanostore_visit", *sorted(f"dev/{path.name}" for path in (data / "dev").glob("*"))]
    print("| recording | score | frame sets per CPU second | step p50 / p99, us |\n|---|---|---|---|")
    for name in names:
        if not (data / name / "store").is_dir():
            continue
        with tempfile.TemporaryDirectory() as out:
            summary: RunSummary = replay(data / name, out)
            score = SCORES.get(name, visits_score)(data / name, Path(out))
        n_cameras = len(
            set(pq.read_table(data / name / "detections.parquet", columns=["camera"])["camera"].to_pylist())
        )
        rate = summary.frames / max(n_cameras, 1) / summary.engine_cpu_s if summary.frames else 0
        text = ", ".join(f"{key} {value}" for key, value in score.items())
        step = summary.step_us
        print(f"| {name} | {text} | {rate:.0f} | {step['p50']:.0f} / {step['p99']:.0f} |", flush=True)
    return 0
