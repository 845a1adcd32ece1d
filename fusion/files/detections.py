"""Detections from the files and arrays that pose estimators write, brought into a store's layout by joint name.

`fusion.files.joints` describes the result: (n_people, K, 3) float32, x and y in pixels, then the score.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError, ShapeError
from fusion.files.detection_formats import DetectionFile, Picture, pictures
from fusion.files.joints import COCO17, boxes_to_layout, float_array, to_layout
from fusion.files.streams import FAULTS_MAX
from fusion.store.layouts import Layout

__all__ = ["boxes_to_layout", "from_ultralytics", "load_detections", "to_layout"]

# A day of one camera in COCO's form; JSON takes some ten times its size in memory.
_FILE_BYTES_MAX = 512 << 20


def from_ultralytics(
    keypoints: Any, layout: Layout, *, conf: Any = None, boxes: Any = None, joints: Sequence[str] = COCO17
) -> NDArray[np.float32]:
    """Convert what an Ultralytics pose or detection model returns for one image; arrays or tensors on any device.

    Args:
        keypoints: `result.keypoints.data` (n_people, 17, 3); or `result.keypoints.xy` (n_people, 17, 2) together with
            `conf`; or None for boxes only.
        layout: the store's.
        conf: `result.keypoints.conf` (n_people, 17), if keypoints have no scores.
        boxes: `result.boxes.data` (n_people, 6 or more: x0, y0, x1, y1, [track id,] score, class), for the layout box2.
        joints: names of the model's joints, if they are not COCO's.

    Returns:
        (n_people, K, 3) float32.

    Raises:
        ShapeError, ConfigError: as to_layout and boxes_to_layout.
    """
    if "box_top" in layout.joints:
        rows = float_array([] if boxes is None else boxes)
        if boxes is None or (rows.size and (rows.ndim != 2 or rows.shape[1] not in (6, 7))):
            got = None if boxes is None else rows.shape
            raise ShapeError(f"boxes: want result.boxes.data (n_people, 6 or 7), got {got}")
        rows = rows.reshape(-1, rows.shape[-1] if rows.size else 6)
        return boxes_to_layout(rows[:, :4], rows[:, -2], layout)
    points = float_array([] if keypoints is None else keypoints)
    if points.size and points.ndim == 3 and points.shape[2] == 2:
        if conf is None:
            raise ShapeError("conf: want (n_people, n_joints) scores, since the keypoints have none, got None")
        scores = float_array(conf)
        if scores.shape != points.shape[:2]:
            raise ShapeError(f"conf: want {points.shape[:2]}, got {scores.shape}")
        points = np.concatenate([points, scores[:, :, None]], axis=2)
    return to_layout(points, joints, layout)


def load_detections(path: str | Path, layout: Layout) -> dict[str, NDArray[np.float32]]:
    """Read the detections of OpenPose, COCO, or MMPose and RTMPose, recognised by the file's content.

    - OpenPose: `people[].pose_keypoints_2d` of BODY_25 or COCO-18, recognised by length; one file per image, or their
      folder.
    - COCO: annotations or results with `keypoints` (or `bbox` for box2), joints as the category names them. Visibility
      2, 1, 0 of annotations becomes score 1, 0.5, 0.
    - MMPose: `instance_info`, or the bare list that its inferencer saves, of an image or a video; joints as `meta_info`
      names them, else in COCO's order (17), Halpe's (26) or COCO-WholeBody's (133).

    Args:
        path: a file, or a folder of OpenPose's files.
        layout: the store's.

    Returns:
        keypoints (n_people, K, 3) float32 by image: OpenPose's file name without its ending, COCO's file name or image
        id, MMPose's frame id (the file's name for a single image), in the order of the file.

    Raises:
        ConfigError: with every fault found, each with file, place, what was wanted and what came.
    """
    path = Path(path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"{path}: want a folder with JSON files, got none")
    faults: list[str] = []
    found: dict[str, NDArray[np.float32]] = {}
    for file in files:
        for picture in _pictures_of(file, layout, faults):
            if picture.name in found:
                faults.append(f"{file.name}: want each picture once, got {picture.name!r} again")
            found[picture.name] = picture.keypoints
        if len(faults) >= FAULTS_MAX:
            break
    if faults:
        raise ConfigError(faults[:FAULTS_MAX])
    return found


def _pictures_of(path: Path, layout: Layout, faults: list[str]) -> Iterator[Picture]:
    file = DetectionFile(path.name, path.stem, layout, faults)
    try:
        with open(path, "rb") as opened:
            data = opened.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        file.fault("", "the file does not exist")
        return
    except OSError as error:
        file.fault("", f"the file cannot be read: {error.strerror}")
        return
    if len(data) > _FILE_BYTES_MAX:
        file.fault("", f"want at most {_FILE_BYTES_MAX >> 20} MiB of detections, got more")
        return
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        file.fault("", f"want JSON, got: {' '.join(str(error).split())[:120] or 'an empty file'}")
        return
    yield from pictures(document, file)
