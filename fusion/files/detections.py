"""Detections from the files and arrays that pose estimators write, brought into a store's layout by joint name.

`fusion.files.joints` describes the result: (n_people, K, 3) float32, x and y in pixels, then the score.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError, ShapeError
from fusion.files.anatomy import judge
from fusion.files.detection_formats import DetectionFile, Picture, pictures
from fusion.files.detection_tables import tables
from fusion.files.joints import COCO17, are_fractions, boxes_to_layout, float_array, to_layout
from fusion.files.private import read_regular
from fusion.files.skeletons import SKELETONS, Skeleton, skeleton_named, skeletons_of
from fusion.files.streams import FAULTS_MAX
from fusion.store.layouts import Layout

__all__ = ["Detections", "boxes_to_layout", "from_ultralytics", "load_detections", "read_detections", "to_layout"]

# A day of one camera in COCO's form; JSON takes some ten times its size in memory.
_FILE_BYTES_MAX = 512 << 20


def from_ultralytics(
    keypoints: Any,
    layout: Layout,
    *,
    conf: Any = None,
    boxes: Any = None,
    joints: Sequence[str] = COCO17,
    person: int | None = 0,
) -> NDArray[np.float32]:
    """Convert what an Ultralytics pose or detection model returns for one image; arrays or tensors on any device.

    Args:
        keypoints: `result.keypoints.data` (n_people, 17, 3); or `result.keypoints.xy` (n_people, 17, 2) together with
            `conf`; or None for boxes only.
        layout: the store's.
        conf: `result.keypoints.conf` (n_people, 17), if keypoints have no scores.
        boxes: `result.boxes.data` (n_people, 6 or more: x0, y0, x1, y1, [track id,] score, class), for the layout box2;
            beside keypoints it says which of them are people.
        joints: names of the model's joints, if they are not COCO's.
        person: the number of people in the model's `names`, 0 in COCO's; boxes of other classes are left out. None
            takes all.

    Returns:
        (n_people, K, 3) float32 of people only.

    Raises:
        ShapeError, ConfigError: as to_layout and boxes_to_layout.
    """
    rows = float_array([] if boxes is None else boxes)
    if (boxes is None and "box_top" in layout.joints) or (rows.size and rows.shape[1:] not in ((6,), (7,))):
        got = None if boxes is None else rows.shape
        raise ShapeError(f"boxes: want result.boxes.data (n_people, 6 or 7), got {got}")
    rows = rows.reshape(-1, rows.shape[-1] if rows.size else 6)
    are_people = np.ones(len(rows), np.bool_) if person is None else rows[:, -1] == person
    if "box_top" in layout.joints:
        return boxes_to_layout(rows[are_people, :4], rows[are_people, -2], layout)
    points = float_array([] if keypoints is None else keypoints)
    if points.size and points.ndim == 3 and points.shape[2] == 2:
        if conf is None:
            raise ShapeError("conf: want (n_people, n_joints) scores, since the keypoints have none, got None")
        scores = float_array(conf)
        if scores.shape != points.shape[:2]:
            raise ShapeError(f"conf: want {points.shape[:2]}, got {scores.shape}")
        points = np.concatenate([points, scores[:, :, None]], axis=2)
    if boxes is not None and points.size:
        if len(rows) != len(points):
            raise ShapeError(f"boxes: want one for each of {len(points)} people, got {len(rows)}")
        points = points[are_people]
    return to_layout(points, joints, layout)


@dataclass(frozen=True)
class Detections:
    """What a file or folder holds, in a store's layout, with everything that was decided on the way.

    Attributes:
        pictures: keypoints (n_people, K, 3) float32 by the name of the image, in the order of the file.
        frames: number in the video of each picture, None where nothing states one; MOTChallenge's first is 0 here.
        complete: whether images without people are listed, too.
        decisions: what the files do not state and how it was found out, a sentence each.
        passed_over: what was left out, counted by the reason.
    """

    pictures: dict[str, NDArray[np.float32]]
    frames: dict[str, int | None]
    complete: bool
    decisions: tuple[str, ...]
    passed_over: Counter[str]


def load_detections(
    path: str | Path,
    layout: Layout,
    *,
    skeleton: str | None = None,
    person: str | None = None,
    size_px: tuple[float, float] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Read the detections of a pose estimator, recognised by the file's content.

    OpenPose, AlphaPose, COCO, MMPose (RTMPose, ViTPose, Sapiens), MediaPipe, MOTChallenge and Ultralytics;
    docs/formats.md describes each. A file that names its joints is read by them. Where it does not, the order is the
    one that makes bodies (`fusion.files.anatomy`), or has to be named. Only people are read.

    Args:
        path: a file, or a folder of files for one image each, which are taken in the order of their numbers.
        layout: the store's.
        skeleton: name of the order of keypoints in `fusion.files.skeletons`, for files that name no joints.
        person: name or number of people's category, where it is none of the usual.
        size_px: width and height of the images, for files whose coordinates are fractions of the picture.

    Returns:
        keypoints (n_people, K, 3) float32 by image: OpenPose's file name without its ending, COCO's file name or image
        id, MMPose's frame id (the file's name for a single image), MOTChallenge's frame, in the order of the file.

    Raises:
        ConfigError: with every fault found, each with file, place, what was wanted and what came; or that several
            orders make bodies, with their names.
    """
    return read_detections([path], layout, skeleton=skeleton, person=person, sizes_px=[size_px])[0].pictures


def read_detections(
    paths: Sequence[str | Path],
    layout: Layout,
    *,
    skeleton: str | None = None,
    person: str | None = None,
    sizes_px: Sequence[tuple[float, float] | None] | None = None,
) -> list[Detections]:
    """Read several files or folders of one origin, such as those of the cameras of a shop.

    As `load_detections`; the order of keypoints is found out from the people of all of them together.

    Args:
        paths: each a file or a folder.
        layout: the store's.
        skeleton: as `load_detections`.
        person: as `load_detections`.
        sizes_px: width and height of the images of each path, None where they are not known.

    Raises:
        ConfigError: as `load_detections`.
    """
    named = None if skeleton is None else skeleton_named(skeleton)
    faults: list[str] = []
    read = [_read(Path(path), layout, person, faults) for path in paths]
    if faults:
        raise ConfigError(faults[:FAULTS_MAX])
    people = [one for pictures_of, _ in read for picture in pictures_of for one in picture.people]
    where = Path(paths[0]).name if len(paths) == 1 else f"{len(paths)} files and folders"
    orders = _orders(where, [one.keypoints for one in people if one.joints is None], named)
    sizes = [None] * len(paths) if sizes_px is None else sizes_px
    found = [
        _detections(Path(path).name, *content, layout, orders, size, faults)
        for path, content, size in zip(paths, read, sizes, strict=True)
    ]
    if faults:
        raise ConfigError(faults[:FAULTS_MAX])
    return found


# ---- what the files say ----------------------------------------------------------------------------------------------


def _read(
    path: Path, layout: Layout, person: str | None, faults: list[str]
) -> tuple[list[Picture], Counter[str]]:
    """The pictures of a file or of a folder's files, and what was passed over in them."""
    passed_over: Counter[str] = Counter()
    files = _files(path, passed_over) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"{path}: want a folder with JSON files, or with a text file for each image, got none")
    boxes_only = "box_top" in layout.joints
    found: dict[str, Picture] = {}
    for each in files:
        file = DetectionFile(each.name, each.stem, boxes_only, person, faults, passed_over)
        for picture in _pictures_of(each, file):
            if picture.name in found:
                faults.append(f"{file.name}: want each picture once, got {picture.name!r} again")
            found[picture.name] = picture
        if len(faults) >= FAULTS_MAX:
            break
    return list(found.values()), passed_over


def _files(folder: Path, passed_over: Counter[str]) -> list[Path]:
    """The folder's files of detections in the order of their numbers; hidden files are no one's detections."""
    visible = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    for ending in (".json", ".txt"):
        files = [path for path in visible if path.suffix.lower() == ending]
        if files:
            passed_over["files with another ending"] += len(visible) - len(files)
            return sorted(files, key=lambda path: _by_number(path.name))
    return []


def _by_number(name: str) -> list[tuple[int, str]]:
    """A key that sorts vid_2 before vid_10."""
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,18})", name)]


def _pictures_of(path: Path, file: DetectionFile) -> list[Picture]:
    try:
        data = read_regular(path, _FILE_BYTES_MAX, "detections")
    except ConfigError as error:
        file.faults.extend(error.faults)
        return []
    except FileNotFoundError:
        file.fault("", "the file does not exist")
        return []
    except OSError as error:
        file.fault("", f"the file cannot be read: {error.strerror}")
        return []
    if path.suffix.lower() in (".txt", ".csv"):
        return list(tables(data.decode("utf-8-sig", "replace"), file))
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        file.fault("", f"want JSON, got: {' '.join(str(error).split())[:120] or 'an empty file'}")
        return []
    return list(pictures(document, file))


# ---- what they do not say --------------------------------------------------------------------------------------------


class _Order(NamedTuple):
    """The order of keypoints that have no names, and why it is that one."""

    skeleton: Skeleton
    reason: str


def _orders(where: str, people: list[NDArray[np.float64]], named: Skeleton | None) -> dict[int, _Order]:
    """The order of unnamed keypoints for each number of them.

    Raises:
        ConfigError: no order is known, several make bodies, or none does.
    """
    by_length: dict[int, list[NDArray[np.float64]]] = {}
    for keypoints in people:
        by_length.setdefault(len(keypoints), []).append(keypoints)
    orders: dict[int, _Order] = {}
    faults: list[str] = []
    for n_joints, group in sorted(by_length.items()):
        if named is not None:
            if named.n_joints != n_joints:
                faults.append(f"keypoints: want {named.n_joints} ({named.name}, {named.title}), got {n_joints}")
            orders[n_joints] = _Order(named, f"keypoints are in the order {named.name}, as was asked for")
            continue
        order = _order_found(np.array(group), faults)
        if order is not None:
            orders[n_joints] = order
    if faults:
        raise ConfigError([f"{where}: {fault}" for fault in faults])
    return orders


def _order_found(keypoints: NDArray[np.float64], faults: list[str]) -> _Order | None:
    """The order that makes bodies of these people; None, with a fault, where that is not clear."""
    n_joints = keypoints.shape[1]
    candidates = skeletons_of(n_joints)
    if not candidates:
        known = ", ".join(map(str, sorted({skeleton.n_joints for skeleton in SKELETONS.values()})))
        faults.append(f"keypoints: want joints named in the file, or one of {known} keypoints, got {n_joints}")
        return None
    seen = np.isfinite(keypoints).all(axis=2) & (keypoints[:, :, 2] > 0.0) & (keypoints[:, :, :2] != 0.0).any(axis=2)
    if not seen.any():
        return _Order(candidates[0], f"no keypoint was seen by which the order of {n_joints} could be found out")
    verdict = judge(np.where(seen[:, :, None], keypoints, 0.0), candidates)
    if verdict.skeleton is not None:
        chosen = verdict.skeleton
        what = f"{chosen.name} ({chosen.title})"
        return _Order(chosen, f"keypoints are in the order {what}: it makes bodies of {verdict.n_people} people")
    names = " or ".join(skeleton.name for skeleton in verdict.candidates or candidates)
    say = "give the order with skeleton=NAME (--skeleton NAME)"
    if verdict.n_people == 0:
        faults.append(f"keypoints: too few are seen in one person to find out their order; {say}: {names}")
    elif verdict.candidates:
        faults.append(f"keypoints: they may be in the order {names}; {say}")
    else:
        faults.append(f"keypoints: no known order of {n_joints} makes bodies of them; name the joints or {say}")
    return None


# ---- into the layout -------------------------------------------------------------------------------------------------


def _detections(
    name: str,
    found: list[Picture],
    passed_over: Counter[str],
    layout: Layout,
    orders: Mapping[int, _Order],
    size_px: tuple[float, float] | None,
    faults: list[str],
) -> Detections:
    """The pictures of a file or folder in the store's layout."""
    decisions = sorted({orders[len(one.keypoints)].reason for p in found for one in p.people if one.joints is None})
    points = [one.keypoints for picture in found for one in picture.people]
    points += [_corners(picture.boxes) for picture in found]
    fractions = are_fractions(np.concatenate(points)) if points else False
    if fractions:
        unknown = [picture.name for picture in found if (picture.size_px or size_px) is None]
        if unknown:
            faults.append(
                f"{name}: coordinates are fractions of the picture, whose size is not known (picture {unknown[0]!r}); "
                "pass size_px, or convert with a store that has the camera"
            )
            return Detections({}, {}, True, (), passed_over)
        decisions.append("coordinates are fractions of the picture, which were multiplied by its size")
    mapped = {}
    for picture in found:
        size = (picture.size_px or size_px) if fractions else None
        where = f"{name}: picture {picture.name!r}"
        try:
            mapped[picture.name] = _in_layout(picture, layout, orders, size)
        except (ConfigError, ShapeError) as error:
            faults.append(f"{where}: {error}")
        if size_px is not None and not fractions:
            faults.extend(f"{where}: {fault}" for fault in _beyond(picture.boxes, size_px))
        if len(faults) >= FAULTS_MAX:
            break
    frames = {picture.name: picture.frame for picture in found}
    complete = all(picture.complete for picture in found)
    return Detections(mapped, frames, complete, tuple(decisions), +passed_over)


def _in_layout(
    picture: Picture, layout: Layout, orders: Mapping[int, _Order], size_px: tuple[float, float] | None
) -> NDArray[np.float32]:
    """(n_people, K, 3) of one picture; fractions are multiplied by its size."""
    # A fraction counts from the picture's edge, a pixel's coordinate from the centre of the first pixel.
    factor, shift = (np.array([1.0, 1.0]), 0.0) if size_px is None else (np.array(size_px), 0.5)
    if "box_top" in layout.joints:
        rows = np.array(picture.boxes, np.float64).reshape(-1, 5)
        return boxes_to_layout(rows[:, :4] * np.tile(factor, 2) - shift, rows[:, 4], layout)
    out = np.zeros((len(picture.people), layout.n_joints, 3), np.float32)
    joints_of = [one.joints or orders[len(one.keypoints)].skeleton.joints for one in picture.people]
    for joints in dict.fromkeys(joints_of):
        same = [index for index, other in enumerate(joints_of) if other == joints]
        keypoints = np.array([picture.people[index].keypoints for index in same])
        unseen = (keypoints[:, :, :2] == 0.0).all(axis=2)
        keypoints[:, :, :2] = keypoints[:, :, :2] * factor - shift
        keypoints[unseen] = 0.0
        out[same] = to_layout(keypoints, joints, layout)
    return out


def _corners(boxes: list[list[float]]) -> NDArray[np.float64]:
    """(2 * n_boxes, 3) x, y and a score of 1 of two corners of each box."""
    corners = np.array(boxes, np.float64).reshape(-1, 5)[:, :4].reshape(-1, 2)
    return np.concatenate([corners, np.ones((len(corners), 1))], axis=1)


def _beyond(boxes: list[list[float]], size_px: tuple[float, float]) -> list[str]:
    """Complaint about boxes that were written as two corners where the format has a corner and a size."""
    rows = np.array(boxes, np.float64).reshape(-1, 5)[:, :4]
    size = np.array(size_px)
    # People may be cut by the picture's edge, so a detector may put a box half its size beyond it, no further.
    far = (rows[:, 2:] > 1.5 * size).any(axis=1) & (rows[:, :2] > 0.0).all(axis=1)
    as_corners = (rows[:, 2:] - rows[:, :2] <= 1.02 * size).all(axis=1)
    if not (far & as_corners).any():
        return []
    x, y, x1, y1 = rows[far & as_corners][0]
    got = f"[{x:g}, {y:g}, {x1 - x:g}, {y1 - y:g}] in {size_px[0]:g} x {size_px[1]:g} pixels"
    return [f"boxes: want left, top, width, height, got {got} (two corners?)"]
