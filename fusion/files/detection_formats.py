"""Detections in the JSON of OpenPose, COCO and MMPose, one function per format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError, ShapeError
from fusion.files.joints import BODY25, COCO17, COCO_ORDERS, OPENPOSE_ORDERS, boxes_to_layout, to_layout
from fusion.store.layouts import Layout


class Picture(NamedTuple):
    """The detections in one image: keypoints (n_people, K, 3) float32 in the store's layout."""

    name: str
    keypoints: NDArray[np.float32]


@dataclass(frozen=True)
class DetectionFile:
    """A file that is being read.

    Attributes:
        name: the file's name, for messages. stem: the same without its ending, for the names of images.
        layout: the store's.
        faults: takes what is wrong with the file, one line each.
    """

    name: str
    stem: str
    layout: Layout
    faults: list[str]

    @property
    def boxes_only(self) -> bool:
        """Whether the layout takes boxes instead of keypoints."""
        return "box_top" in self.layout.joints

    def fault(self, where: str, message: str) -> None:
        """Keep a fault at a place in the document, which may be empty."""
        self.faults.append(f"{self.name}: {where}: {message}" if where else f"{self.name}: {message}")

    def numbers(self, where: str, values: Any, rows: int, columns: int = 3) -> NDArray[np.float64] | None:
        """Numbers of the document as (rows, columns); None, with a fault, where they are none."""
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

    def score(self, where: str, value: Any) -> float | None:
        """A score of the document; None, with a fault, where it is no number."""
        if isinstance(value, (int, float)) and np.isfinite(value):
            return float(value)
        self.fault(where, f"want a number, got {str(value)[:60]!r}")
        return None

    def mapped(self, where: str, people: list[NDArray[np.float64]], joints: Sequence[str]) -> NDArray[np.float32]:
        """Keypoints of people with the same joints in the store's layout."""
        try:
            return to_layout(np.array(people), joints, self.layout)
        except (ConfigError, ShapeError) as error:
            self.fault(where, str(error))
            return np.zeros((0, self.layout.n_joints, 3), np.float32)

    def boxes(self, where: str, rows: list[list[float]]) -> NDArray[np.float32]:
        """Boxes (x0, y0, x1, y1, score) in the layout box2."""
        array = np.array(rows).reshape(-1, 5)
        try:
            return boxes_to_layout(array[:, :4], array[:, 4], self.layout)
        except ConfigError as error:
            self.fault(where, str(error))
            return np.zeros((0, 2, 3), np.float32)


def pictures(document: Any, file: DetectionFile) -> Iterator[Picture]:
    """The detections of a JSON document by image; the format follows from the document's keys."""
    match document:
        case {"people": list(people)}:
            yield from _openpose(people, file)
        case {"annotations": list(rows)}:
            yield from _coco(rows, file, document)
        case {"instance_info": list(rows)}:
            yield from _mmpose(rows, file, document.get("meta_info"))
        case {"predictions": list(rows)}:
            # What the inferencer returns nests the instances of an image in a list of one image.
            yield from _mmpose(rows[0] if len(rows) == 1 and isinstance(rows[0], list) else rows, file, None)
        case [{"image_id": _}, *_]:
            yield from _coco(document, file, {})
        case [{"instances": _}, *_] | [{"keypoint_scores": _}, *_]:
            yield from _mmpose(document, file, None)
        case []:
            return
        case _:
            keys = ", ".join(map(str, document))[:60] if isinstance(document, dict) else type(document).__name__
            file.fault("", f"want detections of OpenPose, COCO or MMPose, got {keys or 'nothing'}")


# ---- OpenPose --------------------------------------------------------------------------------------------------------


def _openpose(people: list[Any], file: DetectionFile) -> Iterator[Picture]:
    """`people[].pose_keypoints_2d` of an image; the skeleton follows from the number of joints."""
    if file.boxes_only:
        file.fault("people", "want boxes for the layout box2, got keypoints")
        return
    rows: list[NDArray[np.float64]] = []
    joints: tuple[str, ...] | None = None
    for number, person in enumerate(people):
        flat = person.get("pose_keypoints_2d") if isinstance(person, dict) else None
        where = f"people[{number}].pose_keypoints_2d"
        order = OPENPOSE_ORDERS.get(len(flat) // 3) if isinstance(flat, list) and len(flat) % 3 == 0 else None
        if order is None:
            got = f"{len(flat)} numbers" if isinstance(flat, list) else "none"
            file.fault(where, f"want 75 numbers (BODY_25) or 54 (COCO-18), got {got}")
            continue
        keypoints = file.numbers(where, flat, len(order))
        if keypoints is None:
            continue
        joints = joints or order
        if order is joints:
            rows.append(keypoints)
        else:
            file.fault(where, "want one skeleton throughout a file, got two")
    yield Picture(file.stem.removesuffix("_keypoints"), file.mapped("people", rows, joints or BODY25))


# ---- COCO ------------------------------------------------------------------------------------------------------------


@dataclass
class _CocoImage:
    """The people of an image; those with the same joints together."""

    by_joints: dict[tuple[str, ...], list[NDArray[np.float64]]] = field(default_factory=dict)
    boxes: list[list[float]] = field(default_factory=list)


def _coco(rows: list[Any], file: DetectionFile, document: Mapping[str, Any]) -> Iterator[Picture]:
    """Annotations (with a document that has categories and images) or results (rows alone)."""
    categories = {_id(category, "id"): category for category in _dicts(document.get("categories"))}
    names = {_id(image, "id"): image.get("file_name") for image in _dicts(document.get("images"))}
    annotated = bool(document)
    # Images without people count, too.
    images: dict[Any, _CocoImage] = {image_id: _CocoImage() for image_id in names}
    for number, row in enumerate(rows):
        where = f"annotations[{number}]" if annotated else f"[{number}]"
        if not isinstance(row, dict) or not isinstance(row.get("image_id"), (int, str)):
            file.fault(where, f"want an object with image_id, got {str(row)[:60]!r}")
        elif names and row["image_id"] not in names:
            file.fault(f"{where}.image_id", f"want one of images, got {row['image_id']!r}")
        elif row.get("iscrowd"):
            continue  # A region of many people, not a person.
        elif file.boxes_only:
            box = _coco_box(row, where, file)
            if box is not None:
                images.setdefault(row["image_id"], _CocoImage()).boxes.append(box)
        else:
            joints = _coco_joints(row, categories)
            keypoints = _coco_keypoints(row, joints, where, file, annotated)
            if keypoints is not None:
                image = images.setdefault(row["image_id"], _CocoImage())
                image.by_joints.setdefault(tuple(map(str, joints or ())), []).append(keypoints)
    for image_id, image in images.items():
        where = f"image {image_id!r}"
        if file.boxes_only:
            keypoints_of_all = file.boxes(where, image.boxes)
        else:
            parts = [file.mapped(where, people, joints) for joints, people in image.by_joints.items()]
            keypoints_of_all = np.concatenate([file.mapped("", [], COCO17), *parts])
        yield Picture(str(names.get(image_id) or image_id), keypoints_of_all)


def _coco_box(row: dict[str, Any], where: str, file: DetectionFile) -> list[float] | None:
    """x0, y0, x1, y1, score from COCO's x, y, width, height."""
    box = file.numbers(f"{where}.bbox", row.get("bbox"), 4, 1)
    if box is None:
        return None
    score = file.score(f"{where}.score", row.get("score", 1.0))
    if score is None:
        return None
    x, y, width, height = box[:, 0].tolist()
    return [x, y, x + width, y + height, score]


def _coco_joints(row: dict[str, Any], categories: Mapping[Any, dict[str, Any]]) -> Sequence[Any] | None:
    """The joints' names by the row's category, else by their number."""
    joints = categories.get(_id(row, "category_id"), {}).get("keypoints")
    flat = row.get("keypoints")
    if joints is None and isinstance(flat, list):
        return COCO_ORDERS.get(len(flat) // 3)
    return joints if isinstance(joints, (list, tuple)) else None


def _coco_keypoints(
    row: dict[str, Any], joints: Sequence[Any] | None, where: str, file: DetectionFile, annotated: bool
) -> NDArray[np.float64] | None:
    flat = row.get("keypoints")
    if joints is None or not isinstance(flat, list):
        got = f"{len(flat)} numbers" if isinstance(flat, list) else "none"
        file.fault(f"{where}.keypoints", f"want 51 numbers (COCO-17), or joints named in categories, got {got}")
        return None
    keypoints = file.numbers(f"{where}.keypoints", flat, len(joints))
    if keypoints is not None and annotated and np.isin(keypoints[:, 2], (0.0, 1.0, 2.0)).all():
        keypoints[:, 2] *= 0.5  # Visibility of an annotation: 0 not labelled, 1 hidden, 2 visible.
    return keypoints


# ---- MMPose ----------------------------------------------------------------------------------------------------------


def _mmpose(rows: list[Any], file: DetectionFile, meta: Any) -> Iterator[Picture]:
    """Instances of an image, or frames of a video that each hold instances."""
    joints = _mmpose_joints(meta, file)
    if not (rows and isinstance(rows[0], dict) and "instances" in rows[0]):
        yield Picture(file.stem, _mmpose_instances(rows, joints, "instance_info", file))
        return
    for number, frame in enumerate(rows):
        where = f"[{number}]"
        if not isinstance(frame, dict) or not isinstance(frame.get("instances"), list):
            file.fault(where, f"want a frame with instances, got {str(frame)[:60]!r}")
            continue
        keypoints = _mmpose_instances(frame["instances"], joints, f"{where}.instances", file)
        yield Picture(str(frame.get("frame_id", number)), keypoints)


def _mmpose_joints(meta: Any, file: DetectionFile) -> tuple[str, ...] | None:
    """The joints' names in the file's `meta_info`; None where it has none."""
    names = meta.get("keypoint_id2name") if isinstance(meta, dict) else None
    if not isinstance(names, dict):
        return None
    try:
        return tuple(str(name) for _, name in sorted(names.items(), key=lambda item: int(item[0])))
    except ValueError:
        file.fault("meta_info.keypoint_id2name", "want joints by their number, got other keys")
        return None


def _mmpose_instances(
    instances: list[Any], named: tuple[str, ...] | None, where: str, file: DetectionFile
) -> NDArray[np.float32]:
    people: list[NDArray[np.float64]] = []
    boxes: list[list[float]] = []
    joints = named
    for number, instance in enumerate(instances):
        place = f"{where}[{number}]"
        if not isinstance(instance, dict):
            file.fault(place, f"want an object, got {str(instance)[:60]!r}")
        elif file.boxes_only:
            box = _mmpose_box(instance, place, file)
            if box is not None:
                boxes.append(box)
        else:
            points, scores = instance.get("keypoints"), instance.get("keypoint_scores")
            n = len(points) if isinstance(points, list) else 0
            joints = joints or COCO_ORDERS.get(n)
            if joints is None:
                file.fault(f"{place}.keypoints", f"want 17, 26 or 133 joints, or names in meta_info, got {n}")
                continue
            xy = file.numbers(f"{place}.keypoints", points, len(joints), 2)
            score_column = file.numbers(f"{place}.keypoint_scores", scores, len(joints), 1)
            if xy is not None and score_column is not None:
                people.append(np.concatenate([xy, score_column], axis=1))
    return file.boxes(where, boxes) if file.boxes_only else file.mapped(where, people, joints or COCO17)


def _mmpose_box(instance: dict[str, Any], where: str, file: DetectionFile) -> list[float] | None:
    """x0, y0, x1, y1, score; MMPose may put each of the two in a list of one."""
    corners = file.numbers(f"{where}.bbox", _unwrapped(instance.get("bbox")), 4, 1)
    if corners is None:
        return None
    score = file.score(f"{where}.bbox_score", _unwrapped(instance.get("bbox_score", 1.0)))
    return None if score is None else [*corners[:, 0].tolist(), score]


def _unwrapped(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _id(row: dict[str, Any], key: str) -> int | str | None:
    """An id of the document; None where it is missing or neither a number nor a text."""
    value = row.get(key)
    return value if isinstance(value, (int, str)) else None


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
