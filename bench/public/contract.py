"""Public sets that somewhere became recordings of the file contract: Shelf, CMC, NanoStore, and simulated visits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from bench.public.task import HEAD_JOINTS, LIMB_JOINTS, Places, Poses, Task, UnusableError

# 25 frames a second, half a frame and a millisecond.
_POSES_WITHIN_NS = 21_000_000


def recognises(folder: Path) -> bool:
    """Whether a folder is a recording with a truth beside it."""
    return (folder / "store" / "store.toml").is_file() and (folder / "truth").is_dir()


def convert(folder: Path, _: Path) -> Task:
    """The recording as it is, with every truth that it has."""
    truth = folder / "truth"
    has_poses, has_visits = (truth / "poses.npz").is_file(), (truth / "visits.jsonl").is_file()
    has_people = (truth / "people.parquet").is_file()
    try:
        true_poses = poses(truth / "poses.npz") if has_poses else None
        # Simulated visits may be seen outside the floor, where tracking is optional: receipts are their score.
        true_places = places(truth / "people.parquet") if has_people and not has_visits else None
    except Exception as error:  # NumPy, its archives and Arrow each have exceptions of their own for a broken file.
        raise UnusableError(f"{truth}: want the truth as docs/format.md has it, got {error!r}") from None
    return Task(
        name=folder.name,
        recording=folder,
        detections="in the recording",
        poses=true_poses,
        places=true_places,
        visits=has_visits,
        events=(truth / "events.csv").is_file() and not has_visits,
    )


def poses(path: Path) -> Poses:
    """True joints as the Shelf recording has them, in the annotation's names."""
    with np.load(path) as truth:
        names = [{"bottom_head": "chin", "top_head": "top"}.get(name, name) for name in truth["joint_names"].tolist()]
        rows = [names.index(name) for name in (*LIMB_JOINTS, *HEAD_JOINTS)]
        joints = np.where(truth["visible"][..., None], truth["xyz"], np.nan)[:, :, rows].astype(float)
        persons = tuple(truth["scored_actors"].tolist())
        return Poses(truth["time"], (*LIMB_JOINTS, *HEAD_JOINTS), joints, persons, _POSES_WITHIN_NS)


def places(path: Path) -> Places:
    """True places as `truth/people.parquet` has them."""
    table = pq.read_table(path)
    names = table["account"].to_pylist() if "person" not in table.column_names else table["person"].to_pylist()
    number = np.array([sorted(set(names)).index(name) for name in names])
    time, place_m = table["time"].to_numpy(), np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
    instants = np.unique(time)
    rows = [np.flatnonzero(time == now) for now in instants]
    return Places(instants, [number[row] for row in rows], [place_m[row] for row in rows])
