"""WILDTRACK: seven cameras on a square, people annotated twice a second on a grid of 2.5 cm.

Source: Chavdarova et al., WILDTRACK: A Multi-camera HD Dataset for Dense Unscripted Pedestrian Detection (2018), and
the README in its archive. `calibrations/intrinsic_zero` belongs to the undistorted pictures in `Image_subsets`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bench.public.task import Places, Task, UnusableError
from bench.public.writing import START_NS, beside, detected, write_cameras
from fusion.files.cameras import load_calibration
from fusion.observations import Frame

# The grid's origin, spacing and width; pictures were taken from a video of ten frames a second.
_ORIGIN_M, _SPACING_M, _COLUMNS = (-3.0, -9.0), 0.025, 480
_PERIOD_NS = 100_000_000
_N_CELLS = 480 * 1440


def recognises(folder: Path) -> bool:
    """Whether a folder has WILDTRACK's annotations and calibrations."""
    return (folder / "annotations_positions").is_dir() and (folder / "calibrations" / "extrinsic").is_dir()


def convert(folder: Path, out: Path) -> Task:
    """One recording: of `detections/` beside the set where there are any, else of the annotated boxes."""
    calibrations = folder / "calibrations"
    cameras = load_calibration([calibrations / "intrinsic_zero", calibrations / "extrinsic"])
    paths = sorted((folder / "annotations_positions").glob("*.json"), key=lambda path: path.name)
    if not paths:
        raise UnusableError(f"{folder}/annotations_positions: want 00000000.json and so on, got none")
    instants, people, places, frames = [], [], [], []
    for path in paths:
        now = START_NS + _number(path) * _PERIOD_NS
        rows = _rows(path)
        instants.append(now)
        try:
            people.append(np.array([row["personID"] for row in rows], int))
            places.append(np.array([_place(path, row["positionID"]) for row in rows]).reshape(-1, 2))
            boxes = _boxes(path, rows, len(cameras))
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise UnusableError(f"{path}: want whole numbers for every person and view, got {error!r}") from None
        # View 0 is the first camera; names sort as views are numbered (CVLab1 to CVLab4, IDIAP1 to IDIAP3).
        frames += [Frame(now, camera.name, boxes[view]) for view, camera in enumerate(cameras)]
    source = "annotated boxes"
    if beside(folder):
        frames = detected(folder, cameras, "box2", lambda number: START_NS + number * _PERIOD_NS)
        source = "detections beside the set"
    recording = write_cameras(out, "WILDTRACK", cameras, "box2", frames, np.concatenate(places))
    return Task("WILDTRACK", recording, source, places=Places(np.array(instants), people, places))


def _number(path: Path) -> int:
    if not path.stem.isdecimal():
        raise UnusableError(f"{path}: want the number of a frame as its name, such as 00000005.json")
    return int(path.stem)


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        whole = all({"personID", "positionID", "views"} <= row.keys() for row in rows)
    except (ValueError, TypeError, AttributeError) as error:
        raise UnusableError(f"{path}: want a list of people, got {error}") from None
    if not whole:
        raise UnusableError(f"{path}: want personID, positionID and views of every person")
    return list(rows)


def _place(path: Path, cell: int) -> tuple[float, float]:
    if not 0 <= cell < _N_CELLS:
        raise UnusableError(f"{path}: positionID: want 0 to {_N_CELLS - 1}, got {cell}")
    return _ORIGIN_M[0] + _SPACING_M * (cell % _COLUMNS), _ORIGIN_M[1] + _SPACING_M * (cell // _COLUMNS)


def _boxes(path: Path, rows: list[dict[str, Any]], n_views: int) -> list[np.ndarray]:
    """Of each view (n, 2, 3) the middle of the upper and of the lower edge of its boxes; -1 means not in view."""
    boxes: list[list[list[list[float]]]] = [[] for _ in range(n_views)]
    for row in rows:
        for view in row["views"]:
            number, x0, y0, x1, y1 = (int(view[key]) for key in ("viewNum", "xmin", "ymin", "xmax", "ymax"))
            if not 0 <= number < n_views:
                raise UnusableError(f"{path}: viewNum: want 0 to {n_views - 1}, got {number}")
            if x0 < x1 and y0 < y1:
                middle = (x0 + x1) / 2
                boxes[number].append([[middle, y0, 1.0], [middle, y1, 1.0]])
    return [np.array(found, np.float32).reshape(-1, 2, 3) for found in boxes]
