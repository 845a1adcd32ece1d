"""Detections in the JSON of OpenPose, AlphaPose, COCO, MMPose and MediaPipe, one function per format.

What is read here is what the file says: keypoints in the file's own order, with names where it gives them. Which order
it is where it gives none, which unit, and how all that becomes a store's layout, `fusion.files.detections` decides over
all pictures together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.files.skeletons import SKELETONS

# What categories of people are called, in small letters.
PEOPLE = frozenset(("person", "people", "persons", "pedestrian", "pedestrians", "human", "humans"))
# What an image's people are called in the documents of AlphaPose that hold all images.
_POSES = frozenset(("people", "bodies"))
# COCO's number for people; the results of a detector name no categories.
_COCO_PERSON = 1


class Person(NamedTuple):
    """One detection: the names of its joints, None where the file has none, and keypoints (n_joints, 3) x, y, score."""

    joints: tuple[str, ...] | None
    keypoints: NDArray[np.float64]


@dataclass
class Picture:
    """What was detected in one image.

    Attributes:
        name: as `load_detections` describes. frame: its number in the video, None where nothing states one.
        complete: whether the file lists images without people, too.
        people: in the order of the file. boxes: x0, y0, x1, y1, score each, where boxes are wanted.
        size_px: width and height, where the file states them.
    """

    name: str
    frame: int | None = None
    people: list[Person] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    size_px: tuple[float, float] | None = None
    complete: bool = True


@dataclass(frozen=True)
class DetectionFile:
    """A file that is being read.

    Attributes:
        name: the file's name, for messages. stem: the same without its ending, for the names of images.
        boxes_only: whether boxes are wanted instead of keypoints.
        person: name or number of the category of people, where the user says so.
        faults: takes what is wrong with the file, one line each.
        passed_over: takes what was left out, counted by the reason.
    """

    name: str
    stem: str
    boxes_only: bool
    person: str | None
    faults: list[str]
    passed_over: Counter[str]

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
        if isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value):
            return float(value)
        self.fault(where, f"want a number, got {str(value)[:60]!r}")
        return None

    def triples(self, where: str, flat: Any) -> NDArray[np.float64] | None:
        """Keypoints that are written x, y, score, x, y, score, ...; None, with a fault, where they are not."""
        if isinstance(flat, list) and flat and len(flat) % 3 == 0:
            return self.numbers(where, flat, len(flat) // 3)
        got = f"{len(flat)} numbers" if isinstance(flat, list) else "none"
        self.fault(where, f"want x, y, score for each keypoint, got {got}")
        return None


def frame_number(name: Any) -> int | None:
    """The number of a frame in a file's name or an image's id: the last number in it. None where it has none."""
    if isinstance(name, int):
        return name
    # Folders and the ending say nothing; a number of more than 18 digits is a time or a key.
    stem = re.sub(r"\.[A-Za-z]\w{1,4}$", "", str(name).replace("\\", "/").rsplit("/", 1)[-1])
    numbers = re.findall(r"\d+", stem.removesuffix("_keypoints"))
    return int(numbers[-1]) if numbers and len(numbers[-1]) <= 18 else None


def pictures(document: Any, file: DetectionFile) -> Iterator[Picture]:
    """The detections of a JSON document by image; the format follows from the document's keys."""
    match document:
        case {"people": list(people)}:
            yield _openpose(people, file, file.stem.removesuffix("_keypoints"))
        case {"bodies": list(people)}:
            yield _alphapose_cmu(people, file, file.stem)
        case {"annotations": list(rows)}:
            yield from _coco(rows, file, document)
        case {"instance_info": list(rows)}:
            yield from _mmpose(rows, file, document.get("meta_info"))
        case {"predictions": list(rows)}:
            # What the inferencer returns nests the instances of an image in a list of one image.
            yield from _mmpose(rows[0] if len(rows) == 1 and isinstance(rows[0], list) else rows, file, None)
        case {"landmarks": list()} | [{"landmarks": list()}, *_]:
            yield from _mediapipe(document if isinstance(document, list) else [document], file)
        case [{"image_id": _}, *_]:
            yield from _coco(document, file, {})
        case [{"instances": _}, *_] | [{"keypoint_scores": _}, *_]:
            yield from _mmpose(document, file, None)
        case []:
            return
        case dict() if document and all(isinstance(v, dict) and _POSES & v.keys() for v in document.values()):
            yield from _alphapose_by_image(document, file)
        case _:
            keys = ", ".join(map(str, document))[:60] if isinstance(document, dict) else type(document).__name__
            file.fault(
                "", f"want detections of OpenPose, AlphaPose, COCO, MMPose or MediaPipe, got {keys or 'nothing'}"
            )


# ---- OpenPose, and AlphaPose in two forms of OpenPose ----------------------------------------------------------------


def _openpose(people: list[Any], file: DetectionFile, name: str) -> Picture:
    """`people[].pose_keypoints_2d` of an image, without names. A person without a body is a hand or a face."""
    picture = Picture(name, frame_number(name))
    if file.boxes_only:
        file.fault("people", "want boxes for the layout box2, got keypoints")
        return picture
    for number, person in enumerate(people):
        where = f"people[{number}].pose_keypoints_2d"
        if not isinstance(person, dict):
            file.fault(f"people[{number}]", f"want an object, got {str(person)[:60]!r}")
        elif person.get("pose_keypoints_2d") == []:
            file.passed_over["people with a hand or a face and no body"] += 1
        else:
            keypoints = file.triples(where, person.get("pose_keypoints_2d"))
            if keypoints is not None:
                picture.people.append(Person(None, keypoints))
    if len({len(person.keypoints) for person in picture.people}) > 1:
        lengths = sorted({len(person.keypoints) for person in picture.people})
        file.fault("people", f"want one skeleton throughout a file, got people of {lengths[0]} and {lengths[1]} joints")
        picture.people.clear()
    return picture


def _alphapose_cmu(bodies: list[Any], file: DetectionFile, name: str) -> Picture:
    """`bodies[].joints`, what AlphaPose writes as `--format cmu`."""
    people = [{"pose_keypoints_2d": body.get("joints")} if isinstance(body, dict) else body for body in bodies]
    return _openpose(people, file, name)


def _alphapose_by_image(document: dict[str, Any], file: DetectionFile) -> Iterator[Picture]:
    """One document for all images, what AlphaPose writes as `--format open` and `--format cmu`."""
    for name, image in document.items():
        people = image.get("people", image.get("bodies"))
        if not isinstance(people, list):
            file.fault(f"{name}", f"want a list of people, got {str(people)[:60]!r}")
            continue
        picture = (_openpose if "people" in image else _alphapose_cmu)(people, file, name)
        picture.complete = False
        yield picture


# ---- COCO, and AlphaPose and trackers in its form --------------------------------------------------------------------


def _coco(rows: list[Any], file: DetectionFile, document: Mapping[str, Any]) -> Iterator[Picture]:
    """Annotations (with a document that has categories and images) or results (rows alone)."""
    categories = {_id(category, "id"): category for category in _dicts(document.get("categories"))}
    annotated = bool(document)
    # Images without people count, too.
    images = {_id(image, "id"): _coco_picture(image) for image in _dicts(document.get("images"))}
    listed = bool(images)
    chosen = _coco_people(rows, categories, file)
    for number, row in enumerate(rows):
        where = f"annotations[{number}]" if annotated else f"[{number}]"
        if not isinstance(row, dict) or _id(row, "image_id") is None:
            file.fault(where, f"want an object with image_id, got {str(row)[:60]!r}")
            continue
        image_id = row["image_id"]
        if listed and image_id not in images:
            file.fault(f"{where}.image_id", f"want one of images, got {image_id!r}")
            continue
        picture = images.setdefault(image_id, Picture(str(image_id), frame_number(image_id), complete=False))
        if row.get("iscrowd"):
            file.passed_over["regions of many people (iscrowd)"] += 1
        elif chosen is not None and _id(row, "category_id") not in chosen:
            name = categories.get(_id(row, "category_id"), {}).get("name", f"category {row.get('category_id')!r}")
            file.passed_over[f"not people: {str(name)[:40]}"] += 1
        elif file.boxes_only:
            box = _coco_box(row, where, file)
            if box is not None:
                picture.boxes.append(box)
        else:
            _coco_person(row, categories, where, file, annotated, picture)
    yield from images.values()


def _coco_picture(image: dict[str, Any]) -> Picture:
    """An image without its people; in a video its number is stated, else it is in the name."""
    name = str(image.get("file_name") or _id(image, "id"))
    stated = next((image[key] for key in ("frame_id", "frame_index") if isinstance(image.get(key), int)), None)
    size = (image.get("width"), image.get("height"))
    known = all(isinstance(length, (int, float)) and length > 0 for length in size)
    return Picture(name, frame_number(name) if stated is None else stated, size_px=size if known else None)  # type: ignore[arg-type]


def _coco_people(
    rows: list[Any], categories: Mapping[Any, dict[str, Any]], file: DetectionFile
) -> frozenset[Any] | None:
    """The ids of categories that are people; None where the file knows no categories and every row is a person."""
    used = {_id(row, "category_id") for row in _dicts(rows)}
    if file.person is not None:
        names = {str(category.get("name")): key for key, category in categories.items()}
        chosen = {key for key in used | set(categories) if str(key) == file.person}
        chosen |= {key for name, key in names.items() if name.lower() == file.person.lower()}
        if not chosen:
            file.fault("categories", f"want {file.person!r} among them, got {_listed(names or used)}")
        return frozenset(chosen)
    if categories:
        chosen = {key for key, row in categories.items() if str(row.get("name", "")).strip().lower() in PEOPLE}
        if not chosen and used:
            names = {str(category.get("name")): None for category in categories.values()}
            file.fault("categories", f"want one named person, or the name of people's category, got {_listed(names)}")
        return frozenset(chosen)
    if used <= {None}:
        return None
    if _COCO_PERSON not in used:
        got = f"only categories {_listed(used)}"
        file.fault("category_id", f"want {_COCO_PERSON}, COCO's person, or the number of people's category, got {got}")
    return frozenset((_COCO_PERSON,))


def _listed(values: Any) -> str:
    shown = [str(value) for value in values]
    return ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "") or "none"


def _coco_box(row: dict[str, Any], where: str, file: DetectionFile) -> list[float] | None:
    """x0, y0, x1, y1, score from COCO's x, y, width, height; AlphaPose calls them `box`."""
    key = "box" if "bbox" not in row and "box" in row else "bbox"
    box = file.numbers(f"{where}.{key}", row.get(key), 4, 1)
    if box is None:
        return None
    score = file.score(f"{where}.score", row.get("score", 1.0))
    if score is None:
        return None
    x, y, width, height = box[:, 0].tolist()
    if width < 0.0 or height < 0.0:
        file.fault(f"{where}.{key}", f"want left, top, width, height, got a size of {width:g} x {height:g}")
        return None
    return [x, y, x + width, y + height, score]


def _coco_person(
    row: dict[str, Any],
    categories: Mapping[Any, dict[str, Any]],
    where: str,
    file: DetectionFile,
    annotated: bool,
    picture: Picture,
) -> None:
    """Add a row's keypoints, named as its category names them."""
    if annotated and ("keypoints" not in row or row.get("num_keypoints") == 0):
        file.passed_over["people without keypoints"] += 1
        return
    names = categories.get(_id(row, "category_id"), {}).get("keypoints")
    joints = tuple(map(str, names)) if isinstance(names, (list, tuple)) and names else None
    if joints is None:
        keypoints = file.triples(f"{where}.keypoints", row.get("keypoints"))
    else:
        keypoints = file.numbers(f"{where}.keypoints", row.get("keypoints"), len(joints))
    if keypoints is None:
        return
    if annotated and np.isin(keypoints[:, 2], (0.0, 1.0, 2.0)).all():
        keypoints[:, 2] *= 0.5  # Visibility of an annotation: 0 not labelled, 1 hidden, 2 visible.
    picture.people.append(Person(joints, keypoints))


# ---- MMPose ----------------------------------------------------------------------------------------------------------


def _mmpose(rows: list[Any], file: DetectionFile, meta: Any) -> Iterator[Picture]:
    """Instances of an image, or frames of a video that each hold instances."""
    joints = _mmpose_joints(meta, file)
    if not (rows and isinstance(rows[0], dict) and "instances" in rows[0]):
        yield _mmpose_instances(rows, joints, "instance_info", file, Picture(file.stem, frame_number(file.stem)))
        return
    for number, frame in enumerate(rows):
        where = f"[{number}]"
        if not isinstance(frame, dict) or not isinstance(frame.get("instances"), list):
            file.fault(where, f"want a frame with instances, got {str(frame)[:60]!r}")
            continue
        name = frame.get("frame_id", number)
        picture = Picture(str(name), frame_number(name))
        yield _mmpose_instances(frame["instances"], joints, f"{where}.instances", file, picture)


def _mmpose_joints(meta: Any, file: DetectionFile) -> tuple[str, ...] | None:
    """The joints' names in the file's `meta_info`; None where it has none."""
    names = meta.get("keypoint_id2name") if isinstance(meta, dict) else None
    if not isinstance(names, dict) or not names:
        return None
    try:
        return tuple(str(name) for _, name in sorted(names.items(), key=lambda item: int(item[0])))
    except ValueError:
        file.fault("meta_info.keypoint_id2name", "want joints by their number, got other keys")
        return None


def _mmpose_instances(
    instances: list[Any], joints: tuple[str, ...] | None, where: str, file: DetectionFile, picture: Picture
) -> Picture:
    for number, instance in enumerate(instances):
        place = f"{where}[{number}]"
        if not isinstance(instance, dict):
            file.fault(place, f"want an object, got {str(instance)[:60]!r}")
        elif file.boxes_only:
            box = _mmpose_box(instance, place, file)
            if box is not None:
                picture.boxes.append(box)
        else:
            points, scores = instance.get("keypoints"), instance.get("keypoint_scores")
            n_joints = len(joints or (points if isinstance(points, list) else ()))
            xy = file.numbers(f"{place}.keypoints", points, n_joints, 2)
            score_column = file.numbers(f"{place}.keypoint_scores", scores, n_joints, 1)
            if xy is not None and score_column is not None and n_joints:
                picture.people.append(Person(joints, np.concatenate([xy, score_column], axis=1)))
    return picture


def _mmpose_box(instance: dict[str, Any], where: str, file: DetectionFile) -> list[float] | None:
    """x0, y0, x1, y1, score; MMPose may put each of the two in a list of one."""
    corners = file.numbers(f"{where}.bbox", _unwrapped(instance.get("bbox")), 4, 1)
    if corners is None:
        return None
    score = file.score(f"{where}.bbox_score", _unwrapped(instance.get("bbox_score", 1.0)))
    return None if score is None else [*corners[:, 0].tolist(), score]


def _unwrapped(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


# ---- MediaPipe -------------------------------------------------------------------------------------------------------


def _mediapipe(frames: list[Any], file: DetectionFile) -> Iterator[Picture]:
    """`landmarks[person][joint]` of the Pose Landmarker's result as JSON, an image or a list of frames.

    Their x and y are fractions of the image; `width` and `height` beside them are used where they are given.
    """
    joints = SKELETONS["mediapipe33"].joints
    for number, frame in enumerate(frames):
        where = f"[{number}].landmarks" if len(frames) > 1 else "landmarks"
        landmarks = frame.get("landmarks") if isinstance(frame, dict) else None
        if not isinstance(landmarks, list) or file.boxes_only:
            wanted = "boxes for the layout box2" if file.boxes_only else "a list of people"
            file.fault(where, f"want {wanted}, got {str(landmarks)[:60]!r}")
            continue
        name = frame.get("frame_id", number if len(frames) > 1 else file.stem)
        size = (frame.get("width"), frame.get("height"))
        known = all(isinstance(length, (int, float)) and length > 0 for length in size)
        picture = Picture(str(name), frame_number(name), size_px=size if known else None)
        for index, person in enumerate(landmarks):
            if not isinstance(person, list) or len(person) != len(joints):
                got = len(person) if isinstance(person, list) else "none"
                file.fault(f"{where}[{index}]", f"want {len(joints)} landmarks, got {got}")
                continue
            rows = [[_coordinate(point, key) for key in ("x", "y", "visibility")] for point in person]
            keypoints = file.numbers(f"{where}[{index}]", rows, len(joints))
            if keypoints is not None:
                picture.people.append(Person(joints, keypoints))
        yield picture


def _coordinate(point: Any, key: str) -> Any:
    """One figure of a landmark; a landmark without visibility counts as seen."""
    value = point.get(key, 1.0 if key == "visibility" else None) if isinstance(point, dict) else None
    return value if isinstance(value, (int, float)) else str(value)


def _id(row: dict[str, Any], key: str) -> int | str | None:
    """An id of the document; None where it is missing or neither a number nor a text."""
    value = row.get(key)
    return value if isinstance(value, (int, str)) else None


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
