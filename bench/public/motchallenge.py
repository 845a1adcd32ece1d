"""MOTChallenge: one camera, boxes of a public detector, people by their boxes and, in 3D MOT 2015, on the ground.

Source: Leal-Taixe et al., MOTChallenge 2015: Towards a Benchmark for Multi-Target Tracking (2015), section 3. We follow
people on the floor, so a sequence is scored where its truth has places on it, and needs the camera's calibration, which
the challenge publishes apart from the sequences: lay it beside `seqinfo.ini`, in any form that `fusion` reads.
"""

from __future__ import annotations

import configparser
import math
from pathlib import Path

import numpy as np

from bench.public.task import Places, Task, UnusableError
from bench.public.writing import START_NS, write_cameras
from fusion.files.cameras import load_calibration
from fusion.files.detections import read_detections
from fusion.observations import Frame
from fusion.store.layouts import LAYOUTS

_COLUMNS, _FRAME_MAX = 10, 10**9
_CALIBRATIONS = ("*.toml", "*.yml", "*.yaml", "*.xml", "*.json")


def recognises(folder: Path) -> bool:
    """Whether a folder is a sequence."""
    return (folder / "seqinfo.ini").is_file() and (folder / "gt" / "gt.txt").is_file()


def convert(folder: Path, out: Path) -> Task:
    """One recording of the public detections."""
    info = configparser.ConfigParser(interpolation=None)
    try:
        info.read(folder / "seqinfo.ini", encoding="utf-8")
        rate_hz = info.getfloat("Sequence", "frameRate")
        size = info.getint("Sequence", "imWidth"), info.getint("Sequence", "imHeight")
    except (configparser.Error, ValueError, KeyError) as error:
        raise UnusableError(f"{folder}/seqinfo.ini: want frameRate, imWidth and imHeight, got {error}") from None
    if not 0 < rate_hz <= 1000 or min(size) <= 0:
        raise UnusableError(f"{folder}/seqinfo.ini: want frameRate, imWidth, imHeight > 0, got {rate_hz:g}, {size}")
    instants, people, places = _truth(folder / "gt" / "gt.txt", rate_hz)
    files = sorted(path for pattern in _CALIBRATIONS for path in folder.glob(pattern))
    if len(files) != 1:
        raise UnusableError(
            f"{folder}: want the camera's calibration in one file beside seqinfo.ini, got {len(files)}: one camera "
            "without its place shows people in a picture, not on a floor"
        )
    cameras = load_calibration(files[0], size=size)
    if len(cameras) != 1:
        raise UnusableError(f"{files[0]}: want one camera, got {len(cameras)}")
    detections = folder / "det" / "det.txt"
    if not detections.is_file():
        raise UnusableError(f"{detections} does not exist: want the public detections")
    (found,) = read_detections([detections], LAYOUTS["box2"], sizes_px=[cameras[0].size])
    frames = [
        Frame(_instant_ns(number, rate_hz), cameras[0].name, found.pictures[picture])
        for picture, number in found.frames.items()
        if number is not None
    ]
    recording = write_cameras(out, folder.name, cameras, "box2", frames, np.concatenate(places))
    return Task(f"MOT {folder.name}", recording, "public detections", places=Places(instants, people, places))


def _instant_ns(frame: int, rate_hz: float) -> int:
    """The time of a frame; the first is 0."""
    return START_NS + round(frame * 1e9 / rate_hz)


def _truth(path: Path, rate_hz: float) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Instants, and of each the people's numbers and places on the ground, metres."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = [float(cell) for cell in line.split(",")]
        except ValueError:
            row = [math.nan]
        if not all(map(math.isfinite, row)) or abs(row[0]) > _FRAME_MAX:
            raise UnusableError(f"{path}:{number}: want numbers between commas, got {line[:60]!r}")
        if len(row) < _COLUMNS or row[7:9] == [-1.0, -1.0]:
            raise UnusableError(
                f"{path}:{number}: want ten columns with a place on the ground in the eighth and ninth, got "
                f"{len(row)} columns: 2D sequences have boxes in a picture alone"
            )
        # A confidence of 0 marks what is not to be considered.
        if row[6] != 0.0:
            rows.append(row)
    if not rows:
        raise UnusableError(f"{path}: want at least one person, got none")
    truth = np.array([row[:_COLUMNS] for row in rows])
    frames = np.unique(truth[:, 0].astype(int))
    at = [truth[truth[:, 0] == frame] for frame in frames]
    instants = np.array([_instant_ns(frame - 1, rate_hz) for frame in frames.tolist()])
    return instants, [rows[:, 1].astype(int) for rows in at], [rows[:, 7:9] for rows in at]
