"""Detections from the files and arrays that pose estimators write, brought into a store's layout by joint name.

What comes out is a `Frame`'s keypoints: (n_people, K, 3) float32, x and y in pixels of the picture, then the score.
- A joint that the source does not have gets score 0, and so does one that it gives as (0, 0) or as NaN, which is how
  OpenPose, Ultralytics and others write what they did not see.
- `neck` and `mid_hip` are put half-way between both shoulders or hips, with the lower score of the two, where the
  layout has them, the source does not, and both sides were seen.
- Scores are cut to 0..1. In COCO's annotations visibility 2, 1, 0 becomes score 1, 0.5, 0.
- The layout box2 takes boxes and no keypoints: the middles of a box's upper and lower edge, with the box's score.
- Coordinates are taken as they come. Whether a detector counts from a pixel's centre or its corner is half a pixel that
  few of them document.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusion.errors import ConfigError, ShapeError
from fusion.store.layouts import LAYOUTS, Layout

# A day of one camera in COCO's form; JSON takes some ten times its size in memory.
_FILE_BYTES_MAX = 512 << 20
_FAULTS_MAX = 20
# Coordinates all of which lie in a unit square are fractions of the picture; a body is larger than that many pixels.
_FRACTION_POINTS_MIN = 4

_COCO17 = LAYOUTS["coco17"].joints
_BODY25 = LAYOUTS["body25"].joints
_COCO18 = (
    "nose neck r_shoulder r_elbow r_wrist l_shoulder l_elbow l_wrist r_hip r_knee r_ankle l_hip l_knee l_ankle "
    "r_eye l_eye r_ear l_ear"
)
_HALPE26 = (
    *_COCO17,
    "head",
    "neck",
    "mid_hip",
    "l_big_toe",
    "r_big_toe",
    "l_small_toe",
    "r_small_toe",
    "l_heel",
    "r_heel",
)
_WHOLEBODY_FEET = ("l_big_toe", "l_small_toe", "l_heel", "r_big_toe", "r_small_toe", "r_heel")

# The published order of joints of a format whose files do not name them, by their number.
_OPENPOSE_ORDER = {25: _BODY25, 18: tuple(_COCO18.split())}
_COCO_ORDER = {17: _COCO17, 26: _HALPE26, 133: (*_COCO17, *_WHOLEBODY_FEET, *("",) * 110)}

_ALIASES = {"hip": "mid_hip", "pelvis": "mid_hip", "midhip": "mid_hip", "hips": "mid_hip"}
_SIDES = {"left": "l", "right": "r"}
_PARTS = {joint.split("_", 1)[1].replace("_", "") for joint in _BODY25 if joint[:2] in ("l_", "r_")}
_HALFWAY = {"neck": ("l_shoulder", "r_shoulder"), "mid_hip": ("l_hip", "r_hip")}


def to_layout(keypoints: Any, joints: Sequence[str], layout: Layout) -> np.ndarray:
    """Put keypoints into a layout's order by the names of their joints.

    Args:
        keypoints: (n_people, n_joints, 3) x, y in pixels and score.
        joints: (n_joints,) their names, as any of the usual sources spells them: left_hip, LHip, l_hip, "left hip".
            A name that the layout does not have is passed over.
        layout: the store's.

    Returns:
        (n_people, K, 3) float32, as the module says.

    Raises:
        ShapeError: keypoints are not three numbers for each named joint.
        ConfigError: no joint of the layout is among the names.
    """
    keypoints = _float_array(keypoints)
    if keypoints.size == 0:
        return np.zeros((0, layout.n_joints, 3), np.float32)
    if keypoints.ndim != 3 or keypoints.shape[1:] != (len(joints), 3):
        raise ShapeError(f"keypoints: want (n_people, {len(joints)}, 3), got {keypoints.shape}")
    named = [_joint_name(joint) for joint in joints]
    if not set(named) & set(layout.joints):
        wanted, got = ", ".join(layout.joints[:4]), ", ".join(map(str, joints[:4]))
        raise ConfigError(f"keypoints: want joints of {layout.name} ({wanted}, ...), got {got}, ...")
    source = _cleaned(keypoints)
    out = np.zeros((len(source), layout.n_joints, 3), np.float32)
    for index, joint in enumerate(layout.joints):
        if joint in named:
            out[:, index] = source[:, named.index(joint)]
        elif joint in _HALFWAY and set(_HALFWAY[joint]) <= set(named):
            left, right = (source[:, named.index(side)] for side in _HALFWAY[joint])
            seen = (left[:, 2] > 0.0) & (right[:, 2] > 0.0)
            out[seen, index, :2] = 0.5 * (left[seen, :2] + right[seen, :2])
            out[seen, index, 2] = np.minimum(left[seen, 2], right[seen, 2])
    return out


def boxes_to_layout(boxes_px: Any, scores: Any, layout: Layout) -> np.ndarray:
    """Detections of a detector that gives boxes only, for the layout box2.

    Args:
        boxes_px: (n_people, 4) x0, y0, x1, y1 in pixels.
        scores: (n_people,) the boxes' scores.
        layout: box2.

    Returns:
        (n_people, 2, 3) float32: the middle of each box's upper edge and of its lower edge.

    Raises:
        ShapeError: the arrays do not fit each other. ConfigError: the layout is another one, or a box is upside down.
    """
    if "box_top" not in layout.joints:
        raise ConfigError(f"boxes: want the layout box2, got {layout.name}, which needs keypoints")
    boxes, scores = _float_array(boxes_px), _float_array(scores).reshape(-1)
    if boxes.size == 0:
        return np.zeros((0, 2, 3), np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(scores) != len(boxes):
        raise ShapeError(f"boxes: want (n_people, 4) and (n_people,) scores, got {boxes.shape} and {scores.shape}")
    upside_down = (boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])
    if upside_down.any():
        raise ConfigError(
            f"boxes: want x0 <= x1 and y0 <= y1, got {boxes[upside_down][0].tolist()} (x, y, width, height?)"
        )
    middle = 0.5 * (boxes[:, 0] + boxes[:, 2])
    ends = [np.stack([middle, boxes[:, row], scores], axis=1) for row in (1, 3)]
    return _cleaned(np.stack(ends, axis=1)).astype(np.float32)


def from_ultralytics(
    keypoints: Any, layout: Layout, *, conf: Any = None, boxes: Any = None, joints: Sequence[str] = _COCO17
) -> np.ndarray:
    """What an Ultralytics pose or detection model gives for one picture, as arrays or tensors on any device.

    Args:
        keypoints: `result.keypoints.data` (n_people, 17, 3); or `result.keypoints.xy` (n_people, 17, 2) together with
            `conf`; or None where only boxes are wanted.
        layout: the store's.
        conf: `result.keypoints.conf` (n_people, 17), where keypoints has no scores.
        boxes: `result.boxes.data` (n_people, 6 or more: x0, y0, x1, y1, [track id,] score, class), for the layout box2.
        joints: names of the model's joints, where they are not COCO's.

    Returns:
        (n_people, K, 3) float32.

    Raises:
        ShapeError, ConfigError: as to_layout and boxes_to_layout.
    """
    if "box_top" in layout.joints:
        rows = _float_array([] if boxes is None else boxes)
        if boxes is None or (rows.size and (rows.ndim != 2 or rows.shape[1] not in (6, 7))):
            raise ShapeError(
                f"boxes: want result.boxes.data (n_people, 6 or 7), got {None if boxes is None else rows.shape}"
            )
        rows = rows.reshape(-1, rows.shape[-1] if rows.size else 6)
        return boxes_to_layout(rows[:, :4], rows[:, -2], layout)
    points = _float_array([] if keypoints is None else keypoints)
    if points.size and points.ndim == 3 and points.shape[2] == 2:
        if conf is None:
            raise ShapeError("conf: want (n_people, n_joints) scores beside keypoints without them, got None")
        scores = _float_array(conf)
        if scores.shape != points.shape[:2]:
            raise ShapeError(f"conf: want {points.shape[:2]}, got {scores.shape}")
        points = np.concatenate([points, scores[:, :, None]], axis=2)
    return to_layout(points, joints, layout)


def load_detections(path: str | Path, layout: Layout) -> dict[str, np.ndarray]:
    """Read the detections of OpenPose, COCO or MMPose and RTMPose, told apart by what is in the file.

    - OpenPose: `people[].pose_keypoints_2d` of BODY_25 or COCO-18, told apart by length; one file per picture, or their
      folder.
    - COCO: annotations or results with `keypoints` (or `bbox` for box2), joints as the category names them.
    - MMPose: `instance_info`, or the bare list that its inferencer saves, of a picture or a film; joints as `meta_info`
      names them, else in COCO's order (17), Halpe's (26) or COCO-WholeBody's (133).

    Args:
        path: a file, or a folder of OpenPose's files.
        layout: the store's.

    Returns:
        keypoints (n_people, K, 3) float32 by picture: OpenPose's file name without its end, COCO's file name or image
        id, MMPose's frame id (the file's name for a single picture), in the order of the file.

    Raises:
        ConfigError: with every fault found, each with file, place, what was wanted and what came.
    """
    path = Path(path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"{path}: want a folder with JSON files, got none")
    faults: list[str] = []
    found: dict[str, np.ndarray] = {}
    for file in files:
        reader = _Reader(file, layout, faults)
        for picture, keypoints in reader.read():
            if picture in found:
                faults.append(f"{file.name}: want each picture once, got {picture!r} again")
            found[picture] = keypoints
        if len(faults) >= _FAULTS_MAX:
            break
    if faults:
        raise ConfigError(faults[:_FAULTS_MAX])
    return found


# ---- arrays ----------------------------------------------------------------------------------------------------------


def _float_array(values: Any) -> np.ndarray:
    # A tensor on a GPU has to be fetched first; torch itself is none of our business.
    for method in ("detach", "cpu", "numpy"):
        values = getattr(values, method)() if hasattr(values, method) else values
    try:
        return np.asarray(values, np.float64)
    except (ValueError, TypeError, OverflowError):
        raise ShapeError(f"want numbers in a regular array, got {str(values)[:60]!r}") from None


def _joint_name(name: str) -> str:
    """A joint's name as our layouts spell it: left_shoulder, LShoulder and l-shoulder are all l_shoulder."""
    words = str(name).strip().replace("-", "_").replace(" ", "_")
    if len(words) > 2 and words[0] in "LR" and words[1:].lower() in _PARTS:
        words = f"{words[0]}_{words[1:]}"
    words = words.lower()
    head, _, rest = words.partition("_")
    words = f"{_SIDES[head]}_{rest}" if head in _SIDES and rest else words
    words = words.replace("_bigtoe", "_big_toe").replace("_smalltoe", "_small_toe")
    return _ALIASES.get(words, words)


def _cleaned(keypoints: np.ndarray) -> np.ndarray:
    """(n, J, 3): what was not seen is 0, 0, 0; scores lie in 0..1. ConfigError where the figures cannot be pixels."""
    keypoints = keypoints.copy()
    unseen = (
        ~np.isfinite(keypoints).all(axis=2) | (keypoints[:, :, :2] == 0.0).all(axis=2) | ~(keypoints[:, :, 2] > 0.0)
    )
    keypoints[unseen] = 0.0
    keypoints[:, :, 2] = np.minimum(keypoints[:, :, 2], 1.0)
    seen = keypoints[~unseen]
    if len(seen) >= _FRACTION_POINTS_MIN and np.abs(seen[:, :2]).max() <= 1.0:
        raise ConfigError(f"keypoints: want pixels, got fractions of the picture, such as {seen[0, :2].tolist()}")
    return keypoints


# ---- files -----------------------------------------------------------------------------------------------------------


class _Reader:
    """Reads one file; what is wrong goes to `faults`, what is right comes out."""

    def __init__(self, file: Path, layout: Layout, faults: list[str]) -> None:
        self.file = file
        self.layout = layout
        self.faults = faults
        self.boxes_only = "box_top" in layout.joints

    def fault(self, where: str, said: str) -> None:
        self.faults.append(f"{self.file.name}: {where}: {said}" if where else f"{self.file.name}: {said}")

    def read(self) -> Iterator[tuple[str, np.ndarray]]:
        try:
            with open(self.file, "rb") as opened:
                data = opened.read(_FILE_BYTES_MAX + 1)
        except OSError as error:
            self.fault("", f"want a readable file, got {error.strerror}")
            return
        if len(data) > _FILE_BYTES_MAX:
            self.fault("", f"want at most {_FILE_BYTES_MAX >> 20} MiB of detections, got more")
            return
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            self.fault("", f"want JSON, got: {' '.join(str(error).split())[:120] or 'an empty file'}")
            return
        match document:
            case {"people": list(people)}:
                yield from self._openpose(people)
            case {"annotations": list(rows)}:
                yield from self._coco(rows, document)
            case {"instance_info": list(rows)}:
                yield from self._mmpose(rows, document.get("meta_info"))
            case {"predictions": list(rows)}:
                # The inferencer's own answer nests the instances of a picture in a list of one picture.
                yield from self._mmpose(rows[0] if len(rows) == 1 and isinstance(rows[0], list) else rows, None)
            case [{"image_id": _}, *_]:
                yield from self._coco(document, {})
            case [{"instances": _}, *_] | [{"keypoint_scores": _}, *_]:
                yield from self._mmpose(document, None)
            case []:
                return
            case _:
                keys = ", ".join(map(str, document))[:60] if isinstance(document, dict) else type(document).__name__
                self.fault("", f"want detections of OpenPose, COCO or MMPose, got {keys or 'nothing'}")

    def _openpose(self, people: list[Any]) -> Iterator[tuple[str, np.ndarray]]:
        if self.boxes_only:
            self.fault("people", "want boxes for the layout box2, got keypoints")
            return
        rows, joints = [], None
        for person, one in enumerate(people):
            flat = one.get("pose_keypoints_2d") if isinstance(one, dict) else None
            where = f"people[{person}].pose_keypoints_2d"
            order = _OPENPOSE_ORDER.get(len(flat) // 3) if isinstance(flat, list) and len(flat) % 3 == 0 else None
            if order is None:
                got = f"{len(flat)} numbers" if isinstance(flat, list) else "none"
                self.fault(where, f"want 75 numbers (BODY_25) or 54 (COCO-18), got {got}")
            elif (keypoints := self._points(where, flat, len(order))) is not None:
                if joints not in (None, order):
                    self.fault(where, "want one skeleton throughout a file, got two")
                joints = joints or order
                rows.append(keypoints)
        stem = self.file.stem.removesuffix("_keypoints")
        rows = [row for row in rows if joints is not None and len(row) == len(joints)]
        yield stem, self._mapped("people", rows, joints or _BODY25)

    def _coco(self, rows: list[Any], document: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
        categories = {c.get("id"): c for c in _dicts(document.get("categories"))}
        names = {image.get("id"): image.get("file_name") for image in _dicts(document.get("images"))}
        annotated = bool(document)
        # Pictures without anybody are pictures, too.
        pictures: dict[Any, dict[tuple[str, ...], list[np.ndarray]]] = {image: {} for image in names}
        boxes: dict[Any, list[list[float]]] = {image: [] for image in names}
        for row, one in enumerate(rows):
            where = f"annotations[{row}]" if annotated else f"[{row}]"
            if not isinstance(one, dict) or not isinstance(one.get("image_id"), (int, str)):
                self.fault(where, f"want an object with image_id, got {str(one)[:60]!r}")
                continue
            image = one["image_id"]
            if names and image not in names:
                self.fault(f"{where}.image_id", f"want one of images, got {image!r}")
                continue
            if one.get("iscrowd"):
                continue  # A region of many, not a person.
            if self.boxes_only:
                box = self._points(f"{where}.bbox", one.get("bbox"), 4, 1)
                score = one.get("score", 1.0)
                if box is not None and self._is_score(f"{where}.score", score):
                    x, y, width, height = box[:, 0].tolist()
                    boxes.setdefault(image, []).append([x, y, x + width, y + height, float(score)])
                continue
            joints = categories.get(one.get("category_id"), {}).get("keypoints")
            flat = one.get("keypoints")
            if joints is None and isinstance(flat, list):
                joints = _COCO_ORDER.get(len(flat) // 3)
            if not isinstance(joints, (list, tuple)) or not isinstance(flat, list):
                got = f"{len(flat)} numbers" if isinstance(flat, list) else "none"
                self.fault(f"{where}.keypoints", f"want 51 numbers (COCO-17), or joints named in categories, got {got}")
                continue
            keypoints = self._points(f"{where}.keypoints", flat, len(joints))
            if keypoints is not None:
                if annotated and np.isin(keypoints[:, 2], (0.0, 1.0, 2.0)).all():
                    keypoints[:, 2] *= 0.5
                joints = tuple(map(str, joints))
                pictures.setdefault(image, {}).setdefault(joints, []).append(keypoints)
        if self.boxes_only:
            for image, people in boxes.items():
                yield str(names.get(image) or image), self._boxes(f"image {image!r}", people)
            return
        for image, by_joints in pictures.items():
            parts = [self._mapped(f"image {image!r}", people, joints) for joints, people in by_joints.items()]
            yield str(names.get(image) or image), np.concatenate([self._mapped("", [], _COCO17), *parts])

    def _mmpose(self, rows: list[Any], meta: Any) -> Iterator[tuple[str, np.ndarray]]:
        joints = self._meta_joints(meta)
        film = bool(rows) and isinstance(rows[0], dict) and "instances" in rows[0]
        if not film:
            yield self.file.stem, self._instances("instance_info", rows, joints)
            return
        for row, frame in enumerate(rows):
            where = f"[{row}]"
            if not isinstance(frame, dict) or not isinstance(frame.get("instances"), list):
                self.fault(where, f"want a frame with instances, got {str(frame)[:60]!r}")
                continue
            yield str(frame.get("frame_id", row)), self._instances(f"{where}.instances", frame["instances"], joints)

    def _meta_joints(self, meta: Any) -> tuple[str, ...] | None:
        names = meta.get("keypoint_id2name") if isinstance(meta, dict) else None
        if not isinstance(names, dict):
            return None
        try:
            return tuple(str(name) for _, name in sorted(names.items(), key=lambda item: int(item[0])))
        except ValueError:
            self.fault("meta_info.keypoint_id2name", "want joints by their number, got other keys")
            return None

    def _instances(self, where: str, instances: list[Any], named: tuple[str, ...] | None) -> np.ndarray:
        rows: list[np.ndarray] = []
        boxes: list[list[float]] = []
        joints = named
        for person, one in enumerate(instances):
            place = f"{where}[{person}]"
            if not isinstance(one, dict):
                self.fault(place, f"want an object, got {str(one)[:60]!r}")
                continue
            if self.boxes_only:
                box = one.get("bbox")
                box = box[0] if isinstance(box, list) and len(box) == 1 else box
                corners = self._points(f"{place}.bbox", box, 4, 1)
                score = one.get("bbox_score", 1.0)
                score = score[0] if isinstance(score, list) and len(score) == 1 else score
                if corners is not None and self._is_score(f"{place}.bbox_score", score):
                    boxes.append([*corners[:, 0].tolist(), float(score)])
                continue
            points, scores = one.get("keypoints"), one.get("keypoint_scores")
            n = len(points) if isinstance(points, list) else 0
            joints = joints or _COCO_ORDER.get(n)
            if joints is None:
                self.fault(f"{place}.keypoints", f"want 17, 26 or 133 joints, or names in meta_info, got {n}")
                continue
            xy = self._points(f"{place}.keypoints", points, len(joints), 2)
            score_column = self._points(f"{place}.keypoint_scores", scores, len(joints), 1)
            if xy is not None and score_column is not None:
                rows.append(np.concatenate([xy, score_column], axis=1))
        return self._boxes(where, boxes) if self.boxes_only else self._mapped(where, rows, joints or _COCO17)

    # -- values

    def _points(self, where: str, values: Any, rows: int, columns: int = 3) -> np.ndarray | None:
        """Numbers as (rows, columns), or a fault."""
        try:
            array = np.array(values, np.float64) if isinstance(values, list) else None
        except (ValueError, TypeError, OverflowError):
            array = None
        if array is None:
            self.fault(where, f"want {rows * columns} numbers, got {str(values)[:60]!r}")
        elif array.size != rows * columns or array.shape[0] not in (rows, rows * columns):
            self.fault(where, f"want {rows} x {columns} numbers, got {' x '.join(map(str, array.shape))}")
        else:
            return array.reshape(rows, columns)
        return None

    def _is_score(self, where: str, value: Any) -> bool:
        good = isinstance(value, (int, float)) and np.isfinite(value)
        if not good:
            self.fault(where, f"want a number, got {str(value)[:60]!r}")
        return bool(good)

    def _mapped(self, where: str, rows: list[np.ndarray], joints: Sequence[str]) -> np.ndarray:
        try:
            return to_layout(np.array(rows), joints, self.layout)
        except (ConfigError, ShapeError) as error:
            self.fault(where, str(error))
            return np.zeros((0, self.layout.n_joints, 3), np.float32)

    def _boxes(self, where: str, rows: list[list[float]]) -> np.ndarray:
        array = np.array(rows).reshape(-1, 5)
        try:
            return boxes_to_layout(array[:, :4], array[:, 4], self.layout)
        except ConfigError as error:
            self.fault(where, str(error))
            return np.zeros((0, 2, 3), np.float32)


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []
