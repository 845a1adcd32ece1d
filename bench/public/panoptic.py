"""CMU Panoptic: HD cameras in a dome, people's joints from hundreds of views.

Source: Joo et al., Panoptic Studio (2015), and the data's documentation of `joints19` (COCO19) at
http://domedb.perception.cs.cmu.edu. The set has videos and no detections: lay those of your detector beside it, as
`detections/00_03` and so on.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from bench.public.task import Poses, Task, UnusableError
from bench.public.writing import START_NS, detected, write_cameras
from fusion.files.cameras import load_calibration

# COCO19's order, by our names; its eyes and ears are not scored, as in the papers that report 15 joints.
_JOINTS = (
    "neck nose mid_hip l_shoulder l_elbow l_wrist l_hip l_knee l_ankle "
    "r_shoulder r_elbow r_wrist r_hip r_knee r_ankle"
).split()
_N_JOINTS = 19
_RATE_HZ = 29.97
# A joint with less is unknown (-1), or hardly seen by any camera; VoxelPose and others take the same.
_CONFIDENCE_MIN = 0.1
# The world's x, z and -y of a calibration whose y points down, see `fusion.files.cameras`; centimetres.
_TO_WORLD = 0.01 * np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
_SCENES = ("hdPose3d_stage1_coco19", "hdPose3d_stage1_coco19/hd")


def recognises(folder: Path) -> bool:
    """Whether a folder is a sequence with its calibration and joints."""
    return any(folder.glob("calibration_*.json")) and any((folder / name).is_dir() for name in _SCENES)


def convert(folder: Path, out: Path) -> Task:
    """One recording of the HD cameras that have detections beside the sequence."""
    calibration = min(folder.glob("calibration_*.json"))
    cameras = [camera for camera in load_calibration(calibration) if re.fullmatch(r"00_\d\d", camera.name)]
    frames = detected(folder, cameras, "coco17", _instant_ns)
    seen = {frame.t_ns for frame in frames}
    paths = [path for name in _SCENES for path in sorted((folder / name).glob("body3DScene_" + 8 * "[0-9]" + ".json"))]
    instants, bodies = [], []
    for path in paths:
        now = _instant_ns(int(path.stem.rpartition("_")[2]))
        if now in seen:
            instants.append(now)
            bodies.append(_bodies(path))
    if not instants:
        raise UnusableError(f"{folder}: want joints (body3DScene_*.json) of the detections' frames, got none")
    ids = sorted({number for scene in bodies for number in scene})
    joints = np.full((len(instants), len(ids), len(_JOINTS), 3), np.nan)
    for k, scene in enumerate(bodies):
        for number, body in scene.items():
            joints[k, ids.index(number)] = body
    hips = joints[:, :, _JOINTS.index("mid_hip"), :2].reshape(-1, 2)
    used = {frame.camera for frame in frames}
    recording = write_cameras(
        out, folder.name, [camera for camera in cameras if camera.name in used], "coco17", frames, hips
    )
    poses = Poses(np.array(instants), tuple(_JOINTS), joints, None, round(0.5e9 / _RATE_HZ))
    return Task(f"Panoptic {folder.name}", recording, "detections beside the set", poses=poses)


def _instant_ns(number: int) -> int:
    return START_NS + round(number * 1e9 / _RATE_HZ)


def _bodies(path: Path) -> dict[int, np.ndarray]:
    """(15, 3) joints of each person, metres, NaN where unknown."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        rows = {int(body["id"]): np.array(body["joints19"], float).reshape(_N_JOINTS, 4) for body in document["bodies"]}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise UnusableError(f"{path}: want bodies with id and joints19 of 76 numbers, got {error!r}") from None
    scored = {number: row[: len(_JOINTS)] for number, row in rows.items()}
    return {
        number: np.where(row[:, 3:] > _CONFIDENCE_MIN, row[:, :3] @ _TO_WORLD.T, np.nan)
        for number, row in scored.items()
    }
