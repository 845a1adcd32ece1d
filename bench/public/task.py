"""What is run and scored: a recording, where its detections come from, and what is known about the people in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from bench.public.metrics import PoseScore, Scene, score_poses
from fusion.files.recordings import Recording
from fusion.store.layouts import Layout

# Twelve joints that every layout of keypoints has, and the middle joints that follow from them.
LIMB_JOINTS = (
    "r_ankle r_knee r_hip l_hip l_knee l_ankle r_wrist r_elbow r_shoulder l_shoulder l_elbow l_wrist".split()
)
HEAD_JOINTS = ("chin", "top")


class UnusableError(Exception):
    """A set that was found and cannot be run, with the reason and what would be needed."""


@dataclass(frozen=True)
class Poses:
    """True joints.

    Attributes:
        t_ns: (n,) instants.
        names: (n_joints,) joints; with chin and top of the head, parts are scored.
        joints_m: (n, n_people, n_joints, 3) world frame, NaN where a person is not annotated.
        persons: the people that the protocol scores; None: all.
        within_ns: how far from an instant a track's row may be.
    """

    t_ns: np.ndarray
    names: tuple[str, ...]
    joints_m: np.ndarray
    persons: tuple[int, ...] | None
    within_ns: int

    def score(self, tracks: Tracks, layout: Layout) -> PoseScore:
        """Score what was tracked."""
        joints = named_joints(tracks.joints_m, layout, self.names)
        rows = [tracks.at(int(now), self.within_ns) for now in self.t_ns]
        return score_poses(self.joints_m, self.names, [joints[row] for row in rows], self.persons)


@dataclass(frozen=True)
class Places:
    """True places on the floor: of each instant t_ns (n,) the people's numbers (n_people,) and places (n_people, 2)."""

    t_ns: np.ndarray
    people: list[np.ndarray]
    people_m: list[np.ndarray]

    @property
    def within_ns(self) -> int:
        """Half the usual time between two instants."""
        return int(np.median(np.diff(self.t_ns)) // 2) if len(self.t_ns) > 1 else 50_000_000

    def scenes(self, tracks: Tracks) -> Iterator[Scene]:
        """Each instant with what was tracked then."""
        for now, people, places in zip(self.t_ns.tolist(), self.people, self.people_m, strict=True):
            rows = tracks.at(now, self.within_ns)
            yield Scene(people, places, tracks.track[rows], tracks.places_m[rows])


@dataclass(frozen=True)
class Task:
    """One recording with its truth.

    Attributes:
        name: in tables.
        recording: folder of the file contract.
        detections: where its detections come from, for the table: what a score with annotated boxes is worth differs.
        poses, places: the truth about people, where there is one.
        visits, events: whether the recording has truth/visits.jsonl, truth/events.csv.
        left_out: whether one person without truth is located by all cameras but one, and judged by that.
    """

    name: str
    recording: Path
    detections: str
    poses: Poses | None = None
    places: Places | None = None
    visits: bool = False
    events: bool = False
    left_out: bool = False


@dataclass(frozen=True)
class Tracks:
    """Rows of a tracker: times (n,), numbers (n,), places (n, 2), joints (n, K, 3) in the recording's layout."""

    t_ns: np.ndarray
    track: np.ndarray
    places_m: np.ndarray
    joints_m: np.ndarray

    @classmethod
    def of_results(cls, results: Path) -> Tracks:
        """Read `tracks.parquet` of a replay."""
        table = pq.read_table(results / "tracks.parquet", columns=["time", "track", "x", "y", "keypoints"])
        time = table["time"].to_numpy()
        order = np.argsort(time, kind="stable")
        size = table.schema.field("keypoints").type.list_size
        joints = table["keypoints"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, size // 4, 4)
        places = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
        return cls(time[order], table["track"].to_numpy()[order], places[order], joints[order, :, :3].astype(float))

    def at(self, now_ns: int, within_ns: int) -> np.ndarray:
        """The row of each track that is nearest to an instant, among those less than `within_ns` away."""
        first, last = np.searchsorted(self.t_ns, [now_ns - within_ns + 1, now_ns + within_ns])
        rows = np.arange(first, last)
        rows = rows[np.argsort(np.abs(self.t_ns[rows] - now_ns), kind="stable")]
        return rows[np.unique(self.track[rows], return_index=True)[1]]


def named_joints(joints_m: np.ndarray, layout: Layout, names: Sequence[str]) -> np.ndarray:
    """(n, n_names, 3) joints by name of joints (n, K, 3) in a layout, NaN where unknown.

    A missing neck, shoulder or ear is filled from its neighbours. The annotation's chin lies half-way from the
    shoulders to the ears, its top of the head 12.5 cm in front and 14.5 cm above that: the usual head rule for
    detectors without these joints.
    """
    at = {name: joints_m[:, i].astype(float) for i, name in enumerate(layout.joints)}
    unknown = np.full((len(joints_m), 3), np.nan)

    def fill(joint: str, *substitutes: str) -> None:
        known = np.stack([at.get(substitute, unknown) for substitute in substitutes])
        n_known = (~np.isnan(known[..., 0])).sum(0)[:, None]
        mean = np.where(n_known, np.nansum(known, axis=0) / np.maximum(n_known, 1), np.nan)
        own = at.get(joint, unknown)
        at[joint] = np.where(np.isnan(own[:, :1]), mean, own)

    fill("neck", "l_shoulder", "r_shoulder")
    fill("mid_hip", "l_hip", "r_hip")
    if not set(HEAD_JOINTS) & set(names):
        return np.stack([at.get(name, unknown) for name in names], axis=1)
    fill("l_shoulder", "neck")
    fill("r_shoulder", "neck")
    fill("l_ear", "r_ear")
    fill("r_ear", "l_ear")
    fill("l_ear", "l_eye", "r_eye", "nose")
    fill("r_ear", "l_eye", "r_eye", "nose")
    shoulders, ears = (at["l_shoulder"] + at["r_shoulder"]) / 2, (at["l_ear"] + at["r_ear"]) / 2
    ahead = np.cross(at["neck"] - at["mid_hip"], at["r_shoulder"] - at["l_shoulder"])
    ahead /= np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-9)
    at["chin"] = (shoulders + ears) / 2
    at["top"] = at["chin"] + 0.125 * ahead + [0.0, 0.0, 0.145]
    return np.stack([at.get(name, unknown) for name in names], axis=1)


def layout_of(recording: Path) -> Layout:
    """The layout of a recording's keypoints."""
    return Recording(recording).store.layout
