"""The demonstration clips that the Pose2Sim package brings: four cameras of a laboratory with their calibration.

Source: the package `pose2sim` in its registry, folder `Pose2Sim/Demo_SinglePerson`. They have no annotated
joints, so a camera is left out, the person is located by the others, and the error is that of the projection into the
camera that was left out. People are found by `fusion detect` with the model that FUSION_MODEL names (docs/detect.md).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.public.task import Task, UnusableError
from bench.public.writing import write_cameras
from fusion.files.cameras import load_calibration
from fusion.files.recordings import Recording
from fusion.observations import Frame

_START = "2026-01-01T00:00:00Z"
# A laboratory's floor; the clips' people stay within it.
_FLOOR_M = np.array([[-4.0, -4.0], [4.0, 4.0]])


def recognises(folder: Path) -> bool:
    """Whether a folder has videos and a Qualisys calibration."""
    return any((folder / "calibration").glob("*.qca.txt")) and any((folder / "videos").glob("*.mp4"))


def convert(folder: Path, out: Path) -> Task:
    """One recording of what the model finds in the videos."""
    if "single" not in folder.name.lower():
        raise UnusableError(f"{folder.name}: several people, or a batch: which detection is whose is not annotated")
    model = os.environ.get("FUSION_MODEL")
    if not model or not Path(model).exists():
        raise UnusableError(
            "want a pose model, since the clips have no detections: FUSION_MODEL=PATH, a model that `fusion detect` "
            f"runs, got {model or 'none'}"
        )
    calibration = min((folder / "calibration").glob("*.qca.txt"))
    videos = {path.stem: path for path in (folder / "videos").glob("*.mp4")}
    cameras = [camera for camera in load_calibration(calibration) if camera.name in videos]
    if len(cameras) < 3:
        raise UnusableError(f"{folder}: want videos of three calibrated cameras or more, got {len(cameras)}")
    store = write_cameras(out / "store", folder.name, cameras, "coco17", [], _FLOOR_M) / "store"
    settings = [f'fps_max = 240\n[model]\npath = "{Path(model).resolve()}"\n']
    settings += [f'[cameras.{c.name}]\nurl = "{videos[c.name].resolve()}"\nstart = {_START}\n' for c in cameras]
    (out / "detect.toml").write_text("".join(settings), encoding="utf-8")
    command = [sys.executable, "-m", "fusion", "detect", str(store), str(out / "detect.toml")]
    done = subprocess.run([*command, "--record", str(out / "found")], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnusableError(f"fusion detect: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    frames = [frame for frame in Recording(out / "found").observations() if isinstance(frame, Frame)]
    recording = write_cameras(out / "recording", folder.name, cameras, "coco17", frames, _FLOOR_M)
    return Task(f"Pose2Sim {folder.name}", recording, f"fusion detect, {Path(model).stem}", left_out=True)
