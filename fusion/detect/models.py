"""Pose models by the shape of their outputs, given as a file.

| family | outputs for one picture |
|---|---|
| MoveNet multipose | (1, 6, 56): y, x, score of 17 joints, then ymin, xmin, ymax, xmax, score; fractions of the input |
| MoveNet single pose | (1, 1, 17, 3): y, x, score; fractions of the input |
| YOLO pose (v8, 11) | (1, 56, n): centre, width, height, score, then x, y, score of 17 joints |
| YOLO pose, end-to-end | (1, n, 57): x0, y0, x1, y1, score, class, then the joints |
| RTMO | (1, n, 5) boxes with score and (1, n, K, 3) joints |
| RTMPose (SimCC) | (1, K, 2 width) and (1, K, 2 height): a joint's place along x and along y; needs a detector |

The joints are those with which the families are published: COCO's 17, Halpe's 26 or COCO-WholeBody's 133, unless the
settings name another skeleton. Any other shape is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.detect.boxes import (
    AS_BYTES,
    BGR_BYTES,
    FRACTIONS,
    IMAGENET,
    PERSON,
    Family,
    WholePicture,
    corners_of,
    detector_of,
    probe,
    shapes_text,
)
from fusion.detect.people import People
from fusion.detect.pictures import Picture
from fusion.detect.sessions import Session
from fusion.detect.settings import DetectorSettings, ModelSettings
from fusion.errors import ConfigError
from fusion.files.skeletons import SKELETONS, skeleton_named

# Sides of MoveNet multipose as published, and of the other families.
_MOVENET_SIDE = 256
# RTMPose sees a person's box with this margin, and splits each pixel into two bins.
_MARGIN, _BINS_PER_PIXEL = 1.25, 2
# People of one picture whose poses are estimated, the best boxes first.
_CROPS_MAX = 50
# What the families are published with, by the number of joints.
_PUBLISHED = {17: "coco17", 26: "halpe26", 133: "wholebody133"}


class PoseModel:
    """Finds people and their joints in pictures.

    Attributes:
        family: name of the model's family.
        joints: (K,) names of the joints; empty for a model that gives boxes only.
        provider: what runs it.
        batch: pictures that one run takes; None for any number.
    """

    def __init__(self, stage: WholePicture | TopDown, joints: tuple[str, ...]) -> None:
        """Wrap a model that was recognised; `load_model` makes one from a file."""
        self._stage, self.joints = stage, joints
        self.family, self.provider = stage.family.name, stage.session.provider
        self.batch = stage.session.input.batch

    def people(self, pictures: Sequence[Picture]) -> list[People]:
        """People in each picture, in its pixels, the best first."""
        return self._stage.people(pictures)


def load_model(settings: ModelSettings, detector: DetectorSettings | None) -> PoseModel:
    """Load a pose model, and the detector that it needs; a detector alone gives boxes.

    Raises:
        ConfigError: a file is no model of a known family, or a detector is missing or not wanted.
        FusionError: a package is missing.
    """
    threads, device, score_min = settings.threads, settings.device, settings.score_min
    finder = None
    if detector is not None:
        session = Session(detector.path, device, threads)
        finder = detector_of(session, detector.trained, detector.side, score_min)
    if settings.path is None:
        if finder is None:
            raise ConfigError("[model] names no path and there is no [detector]; name a pose model or a detector")
        return PoseModel(finder, ())
    session = Session(settings.path, device, threads)
    outputs = probe(session, settings.side or _MOVENET_SIDE)
    family = _family(session, outputs)
    if family is None:
        wanted = "MoveNet, YOLO pose, RTMO or RTMPose with SimCC (docs/detect.md lists their shapes)"
        raise ConfigError(f"{session.path}: want outputs of {wanted}, got {shapes_text(outputs)}")
    joints = _joints(session, family.n_joints, settings.skeleton)
    if family.name != "RTMPose":
        if finder is not None:
            raise ConfigError(f"[detector]: {family.name} finds people itself; leave the detector out")
        return PoseModel(WholePicture(session, family, settings.side, score_min), joints)
    if finder is None:
        raise ConfigError(f"{session.path} is RTMPose, which looks at one person at a time; add a [detector]")
    return PoseModel(TopDown(session, family, finder), joints)


def _joints(session: Session, n_joints: int, name: str | None) -> tuple[str, ...]:
    if name is None and n_joints not in _PUBLISHED:
        published = ", ".join(map(str, _PUBLISHED))
        raise ConfigError(f"{session.path}: want {published} joints, or [model] skeleton = ..., got {n_joints}")
    skeleton = SKELETONS[_PUBLISHED[n_joints]] if name is None else skeleton_named(name)
    if skeleton.n_joints != n_joints:
        raise ConfigError(f"{session.path}: want {skeleton.n_joints} joints of {skeleton.name}, got {n_joints}")
    return skeleton.joints


def _family(session: Session, outputs: Sequence[NDArray[Any]]) -> Family | None:
    """The family that has outputs of these shapes; None where there is none."""
    shapes = [output.shape for output in outputs]
    if len(shapes) == 1:
        return _family_of_one(shapes[0], channels_last=session.input.channels_last)
    if len(shapes) != 2 or session.input.channels_last:
        return None
    first, second = shapes
    if len(first) == 3 and first[2] == 5 and len(second) == 4 and second[3] == 3:
        return Family("RTMO", BGR_BYTES, _rtmo, False, n_joints=second[2])
    width, height = session.input.size
    bins = first[-1] / _BINS_PER_PIXEL, second[-1] / _BINS_PER_PIXEL
    if len(first) == len(second) == 3 and first[1] == second[1] and bins == (width, height):
        return Family("RTMPose", IMAGENET, _simcc, False, n_joints=first[1])
    return None


def _family_of_one(shape: tuple[int, ...], *, channels_last: bool) -> Family | None:
    """The family that has one output of this shape."""
    if channels_last:
        decoders = {(1, 6, 56): ("MoveNet multipose", _movenet_multipose), (1, 1, 17, 3): ("MoveNet", _movenet)}
        if shape not in decoders:
            return None
        name, decode = decoders[shape]
        return Family(name, AS_BYTES, decode, True, _MOVENET_SIDE, 17)
    if len(shape) == 3 and shape[1] == 56:
        return Family("YOLO pose", FRACTIONS, _yolo, True, n_joints=17)
    if len(shape) == 3 and shape[2] == 57:
        return Family("YOLO pose, end-to-end", FRACTIONS, _yolo_end_to_end, True, n_joints=17)
    return None


# ---- outputs of one picture, in pixels of the input ------------------------------------------------------------------


def _movenet_multipose(outputs: list[NDArray[Any]], size: tuple[int, int]) -> People:
    rows = outputs[0][0].astype(np.float64)
    joints = rows[:, :51].reshape(-1, 17, 3)
    boxes = rows[:, [52, 51, 54, 53]] * np.array([*size, *size])
    return People(boxes, rows[:, 55], _yx_fractions(joints, size))


def _movenet(outputs: list[NDArray[Any]], size: tuple[int, int]) -> People:
    """One person always, however unlikely: its score is the mean of the joints', its box holds them."""
    keypoints = _yx_fractions(outputs[0][0].astype(np.float64), size)
    points = keypoints[:, :, :2]
    boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    return People(boxes, keypoints[:, :, 2].mean(axis=1), keypoints)


def _yx_fractions(joints: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    placed: NDArray[np.float64] = joints[:, :, [1, 0, 2]] * np.array([*size, 1.0])
    return placed


def _yolo(outputs: list[NDArray[Any]], _size: tuple[int, int]) -> People:
    rows = outputs[0][0].T.astype(np.float64)
    return People(corners_of(rows[:, :4]), rows[:, 4], rows[:, 5:].reshape(-1, 17, 3))


def _yolo_end_to_end(outputs: list[NDArray[Any]], _size: tuple[int, int]) -> People:
    rows = outputs[0][0].astype(np.float64)
    rows = rows[rows[:, 5] == PERSON]
    return People(rows[:, :4], rows[:, 4], rows[:, 6:].reshape(-1, 17, 3))


def _rtmo(outputs: list[NDArray[Any]], _size: tuple[int, int]) -> People:
    boxes, joints = (output[0].astype(np.float64) for output in outputs)
    return People(boxes[:, :4], boxes[:, 4], joints)


def _simcc(outputs: list[NDArray[Any]], _size: tuple[int, int]) -> People:
    """Each axis has its own classification; a joint is as certain as the less certain of both.

    Source: Li et al., SimCC (2022); Jiang et al., RTMPose (2023).
    """
    along_x, along_y = (output[0].astype(np.float64) for output in outputs)
    x, y = along_x.argmax(axis=1), along_y.argmax(axis=1)
    score = np.minimum(along_x.max(axis=1), along_y.max(axis=1))
    keypoints = np.stack([x / _BINS_PER_PIXEL, y / _BINS_PER_PIXEL, score], axis=1)
    return People(np.zeros((1, 4)), np.ones(1), keypoints[None])


class TopDown:
    """A detector finds people, and a second model looks at each of them."""

    def __init__(self, session: Session, family: Family, finder: WholePicture) -> None:
        """Join both models."""
        self.session, self.family, self._finder = session, family, finder
        width, height = session.input.size
        assert width is not None and height is not None, "recognised by its size"
        self._size = width, height

    def people(self, pictures: Sequence[Picture]) -> list[People]:
        """People in each picture, in its pixels, the best first."""
        found = [people.chosen(np.arange(min(len(people), _CROPS_MAX))) for people in self._finder.people(pictures)]
        crops, prepared = [], []
        for picture, people in zip(pictures, found):
            for box in people.boxes_px:
                crops.append(_with_margin(box, self._size))
                prepared.append(self.family.colours.of(picture.crop(crops[-1], self._size)))
        outputs = iter(zip(crops, self.session.outputs(prepared)))
        results = []
        for people in found:
            keypoints = np.zeros((len(people), self.family.n_joints, 3))
            for row in range(len(people)):
                crop, output = next(outputs)
                local = self.family.decode(output, self._size).keypoints[0]
                scale = np.array([crop[2] - crop[0], crop[3] - crop[1]]) / self._size
                # The crop counts from pixels' corners; joints and the store count from their centres.
                keypoints[row, :, :2] = np.array(crop[:2]) + (local[:, :2] + 0.5) * scale - 0.5
                keypoints[row, :, 2] = local[:, 2]
            results.append(People(people.boxes_px, people.scores, keypoints))
        return results


def _with_margin(box: NDArray[np.float64], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """A box around a person in the shape of the input, counted from pixels' corners."""
    x, y = 0.5 * (box[:2] + box[2:]) + 0.5
    width, height = box[2:] - box[:2]
    aspect = size[0] / size[1]
    half_x = 0.5 * _MARGIN * max(width, height * aspect)
    half_y = half_x / aspect
    return float(x - half_x), float(y - half_y), float(x + half_x), float(y + half_y)
