"""Detections in text files: MOTChallenge's tables of a sequence, and Ultralytics' labels, a file for each image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fusion.files.detection_formats import DetectionFile, Person, Picture, frame_number

# MOTChallenge's numbers for what a row of ground truth is (Milan et al. 2016, MOT16, table 3).
_MOT_PEDESTRIAN = 1
_MOT_CLASSES = {
    2: "person on vehicle", 3: "car", 4: "bicycle", 5: "motorbike", 6: "other vehicle", 7: "static person",
    8: "distractor", 9: "occluder", 10: "occluder on the ground", 11: "occluder, full", 12: "reflection", 13: "crowd",
}  # fmt: skip
# Ultralytics counts COCO's 80 classes from 0.
_ULTRALYTICS_PERSON = 0
_BOX_COLUMNS = 5


def tables(text: str, file: DetectionFile) -> Iterator[Picture]:
    """The detections of a text file by image: commas make it MOTChallenge's, spaces Ultralytics'."""
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if any("," in line for _, line in lines):
        yield from _mot(lines, file)
    else:
        yield _ultralytics(lines, file)


def _numbers(cells: list[str], row: int, file: DetectionFile) -> list[float] | None:
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        values = [np.nan]
    if np.isfinite(values).all():
        return values
    file.fault(f"row {row}", f"want numbers, got {' '.join(cells)[:60]!r}")
    return None


def _mot(lines: list[tuple[int, str]], file: DetectionFile) -> Iterator[Picture]:
    """`frame, id, left, top, width, height, score[, x, y, z]` of detections and results, frames counted from 1.

    Ground truth has nine columns: after the box whether the row counts, its class, and the visible share.
    """
    if not file.boxes_only:
        file.fault("", "want keypoints, got boxes of MOTChallenge, which the layout box2 takes")
        return
    pictures: dict[int, Picture] = {}
    for row, line in lines:
        cells = [cell.strip() for cell in line.split(",")]
        values = _numbers(cells, row, file)
        if values is None:
            continue
        if len(values) not in (6, 7, 9, 10) or values[0] != int(values[0]) or values[0] < 0:
            file.fault(f"row {row}", f"want frame, id, left, top, width, height, score, ..., got {line[:60]!r}")
            continue
        frame = int(values[0])
        picture = pictures.setdefault(frame, Picture(str(frame), frame, complete=False))
        left, top, width, height = values[2:6]
        if width <= 0.0 or height <= 0.0:
            file.fault(f"row {row}", f"want a width and a height above 0, got {width:g} and {height:g}")
            continue
        score = _mot_score(values, file)
        if score is not None:
            picture.boxes.append([left, top, left + width, top + height, score])
    for frame in sorted(pictures):
        # The format counts frames from 1; a file that has a frame 0 was written by a tool that does not.
        pictures[frame].frame = frame if 0 in pictures else frame - 1
        yield pictures[frame]


def _mot_score(values: list[float], file: DetectionFile) -> float | None:
    """A row's score; None, counted, where it is no person or does not count."""
    if len(values) == 9:
        wanted = str(_MOT_PEDESTRIAN) if file.person is None else file.person
        if f"{values[7]:g}" != wanted:
            name = _MOT_CLASSES.get(int(values[7])) if file.person is None else None
            file.passed_over[f"not people: {name or f'class {values[7]:g}'}"] += 1
            return None
        if values[6] == 0.0:
            file.passed_over["rows marked as not to be considered"] += 1
            return None
        return 1.0
    score = values[6] if len(values) > 6 else -1.0
    if score == -1.0:  # The format's mark for a figure that is not given.
        return 1.0
    if score <= 0.0:
        file.passed_over["detections with a score of 0 or less"] += 1
        return None
    return score


def _ultralytics(lines: list[tuple[int, str]], file: DetectionFile) -> Picture:
    """`class x y width height [keypoints] [score] [track]` for each object of an image, in fractions of the picture.

    x and y are the middle of the box; keypoints are x, y, score each, without names.
    """
    picture = Picture(file.stem, frame_number(file.stem), complete=False)
    wanted = str(_ULTRALYTICS_PERSON) if file.person is None else file.person
    for row, line in lines:
        cells = line.split()
        values = _numbers(cells, row, file)
        if values is None:
            continue
        extra = (len(values) - _BOX_COLUMNS) % 3
        n_joints = (len(values) - _BOX_COLUMNS) // 3
        if len(values) < _BOX_COLUMNS or values[0] != int(values[0]):
            file.fault(f"row {row}", f"want class, x, y, width, height, ..., got {line[:60]!r}")
        elif f"{values[0]:g}" != wanted:
            file.passed_over[f"not people: class {values[0]:g}"] += 1
        elif file.boxes_only:
            x, y, width, height = values[1:5]
            # With two more figures the last is the track; a single one is the score, unless it is no fraction.
            stated = values[-extra] if extra else 1.0
            score = stated if 0.0 < stated <= 1.0 else 1.0
            picture.boxes.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2, score])
        elif n_joints == 0:
            file.fault(f"row {row}", "want keypoints, got a box, which the layout box2 takes")
        else:
            end = _BOX_COLUMNS + 3 * n_joints
            picture.people.append(Person(None, np.array(values[_BOX_COLUMNS:end]).reshape(n_joints, 3)))
    return picture
