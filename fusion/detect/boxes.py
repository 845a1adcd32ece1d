"""Detectors that give boxes of people, for pose models that look at one person at a time and for stores with boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fusion.detect.people import People, distinct
from fusion.detect.pictures import Picture
from fusion.detect.sessions import Session
from fusion.errors import ConfigError

# Two boxes of one person overlap by more, two people rarely: the value with which YOLO and RTM models are published.
OVERLAP_MAX = 0.65
# Long side of the input where a model leaves it open, and the multiple that strides of 32 need.
SIDE, STRIDE = 640, 32
YOLOX_STRIDES = (8, 16, 32)
# COCO's first class.
PERSON = 0

# Outputs of one picture in pixels of the input, and the input's size, to people.
Decode = Callable[[list[NDArray[Any]], tuple[int, int]], People]
# How a family of detectors was trained, where its outputs do not show it.
Trained = Literal["rtmdet", "yolox"]


@dataclass(frozen=True, slots=True)
class Colours:
    """How a model wants the colours of a picture (height, width, 3) RGB, 0..255.

    Attributes:
        mean, sd: subtracted from each channel, and divided by; in the order of RGB.
        bgr: whether blue comes first.
    """

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    sd: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bgr: bool = False

    def of(self, rgb: NDArray[Any]) -> NDArray[np.float32]:
        """The picture as float32 in these colours."""
        mean, sd = np.array(self.mean, np.float32), np.array(self.sd, np.float32)
        scaled: NDArray[np.float32] = (rgb.astype(np.float32) - mean) / sd
        return scaled[:, :, ::-1] if self.bgr else scaled


AS_BYTES, FRACTIONS, BGR_BYTES = Colours(), Colours(sd=(255.0, 255.0, 255.0)), Colours(bgr=True)
# Mean and deviation over ImageNet; RTMDet takes blue first, RTMPose red.
IMAGENET = Colours((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
IMAGENET_BGR = Colours(IMAGENET.mean, IMAGENET.sd, bgr=True)


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of model: how its pictures are prepared and its outputs read.

    Attributes:
        name: as published.
        colours: of its input.
        decode: reads the outputs of one picture.
        corner: whether its pixels count from the corner of the first one.
        side: long side of its input where the model leaves that open.
        n_joints: joints of each person, 0 for boxes.
    """

    name: str
    colours: Colours
    decode: Decode
    corner: bool
    side: int = SIDE
    n_joints: int = 0


class WholePicture:
    """Runs a model that looks at the whole picture and finds everybody in it."""

    def __init__(self, session: Session, family: Family, side: int | None, score_min: float) -> None:
        """Wrap a loaded model. side: long side of the input, where the model leaves that open."""
        self.session, self.family = session, family
        self._side, self._score_min = side or family.side, score_min

    def people(self, pictures: Sequence[Picture]) -> list[People]:
        """People in each picture, in its pixels, the best first; none overlaps another too much."""
        sizes = [input_size(self.session, picture.size, self._side) for picture in pictures]
        found: list[People | None] = [None] * len(pictures)
        for size in dict.fromkeys(sizes):  # Pictures of one size share a run.
            rows = [row for row, other in enumerate(sizes) if other == size]
            prepared = [pictures[row].letterboxed(size) for row in rows]
            outputs = self.session.outputs([self.family.colours.of(rgb) for rgb, _ in prepared])
            for row, (_, placed), output in zip(rows, prepared, outputs):
                people = self.family.decode(output, size)
                corners = placed.to_picture(people.boxes_px.reshape(-1, 2, 2), corner=self.family.corner)
                points = placed.to_picture(people.keypoints[:, :, :2], corner=self.family.corner)
                keypoints = np.concatenate([points, people.keypoints[:, :, 2:]], axis=2)
                sound = People(corners.reshape(-1, 4), people.scores, keypoints).sound(self._score_min)
                found[row] = sound.chosen(distinct(sound.boxes_px, OVERLAP_MAX))
        return [people for people in found if people is not None]


def input_size(session: Session, size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height of the input for a picture: the model's own, else with its long side at most `side`."""
    width, height = session.input.size
    if width is not None and height is not None:
        return width, height
    factor = side / max(size)
    scaled = [STRIDE * max(1, -(-round(length * factor) // STRIDE)) for length in size]
    return width or scaled[0], height or scaled[1]


def probe(session: Session, side: int) -> list[NDArray[Any]]:
    """Outputs for a grey picture, so that shapes are known whatever the file states; it also warms the model up."""
    width, height = input_size(session, (side, side), side)
    try:
        return session.outputs([np.full((height, width, 3), 0.5, np.float32)])[0]
    except ConfigError:
        raise
    except Exception as error:  # As in Session.
        raise ConfigError(f"{session.path}: the model fails at {width} x {height} pixels: {str(error)[:200]}") from None


def shapes_text(outputs: Sequence[NDArray[Any]]) -> str:
    """The outputs' shapes, for messages."""
    return ", ".join(str(tuple(output.shape)) for output in outputs)


def detector_of(session: Session, trained: Trained | None, side: int | None, score_min: float) -> WholePicture:
    """A detector of people by the shape of its outputs.

    Raises:
        ConfigError: the shapes are of no known family, or the family has to be named.
    """
    outputs = probe(session, side or SIDE)
    shapes = [output.shape for output in outputs]
    family: Family | None = None
    if len(shapes) == 1 and len(shapes[0]) == 3 and not session.input.channels_last:
        rows, columns = shapes[0][1:]
        if columns == 85:
            family = Family("YOLOX", BGR_BYTES, _raw_yolox, corner=True)
        elif rows == 84:
            family = Family("YOLO", FRACTIONS, _raw_yolo, corner=True)
        elif columns == 6:
            family = Family("YOLO end-to-end", FRACTIONS, _end_to_end, corner=True)
    if family is None and shapes and len(shapes[0]) == 3 and shapes[0][2] == 5 and len(shapes) <= 2:
        if trained is None:
            raise ConfigError(
                f"{session.path}: outputs {shapes_text(outputs)} may be RTMDet's or YOLOX's, whose colours differ;"
                ' add trained = "rtmdet" or "yolox" to [detector]'
            )
        colours = IMAGENET_BGR if trained == "rtmdet" else BGR_BYTES
        family = Family(trained, colours, _boxes_and_labels, corner=True)
    if family is None:
        raise ConfigError(
            f"{session.path}: want a detector's outputs: (1, n, 5) with or without labels (1, n), (1, n, 85),"
            f" (1, 84, n) or (1, n, 6), got {shapes_text(outputs)}"
        )
    return WholePicture(session, family, side, score_min)


def _boxes(boxes: NDArray[Any], scores: NDArray[Any]) -> People:
    return People(boxes.astype(np.float64), scores.astype(np.float64), np.zeros((len(scores), 0, 3)))


def _boxes_and_labels(outputs: list[NDArray[Any]], _size: tuple[int, int]) -> People:
    """x0, y0, x1, y1, score (1, n, 5), and the class (1, n) where there are several."""
    rows = outputs[0][0]
    if len(outputs) == 2:
        rows = rows[outputs[1][0] == PERSON]
    return _boxes(rows[:, :4], rows[:, 4])


def _end_to_end(outputs: list[NDArray[Any]], _size: tuple[int, int]) -> People:
    """x0, y0, x1, y1, score, class (1, n, 6)."""
    rows = outputs[0][0]
    rows = rows[rows[:, 5] == PERSON]
    return _boxes(rows[:, :4], rows[:, 4])


def _raw_yolo(outputs: list[NDArray[Any]], _size: tuple[int, int]) -> People:
    """Centre, width, height, scores of 80 classes (1, 84, n); a box counts as its best class."""
    columns = outputs[0][0]
    is_person = columns[4:].argmax(axis=0) == PERSON
    rows = columns[:, is_person].T
    return _boxes(corners_of(rows[:, :4]), rows[:, 4 + PERSON])


def _raw_yolox(outputs: list[NDArray[Any]], size: tuple[int, int]) -> People:
    """Centre in cells, logarithm of the size, objectness, scores of 80 classes (1, n, 85).

    Source: Ge et al., YOLOX (2021), section 2.
    """
    rows = outputs[0][0]
    cells, strides = [], []
    for stride in YOLOX_STRIDES:
        y, x = np.mgrid[: size[1] // stride, : size[0] // stride]
        cells.append(np.stack([x.ravel(), y.ravel()], axis=1))
        strides.append(np.full((x.size, 1), stride))
    cell, stride_px = np.concatenate(cells), np.concatenate(strides)
    if len(cell) != len(rows):
        raise ConfigError(f"YOLOX: want {len(cell)} cells for {size[0]} x {size[1]} pixels, got {len(rows)}")
    is_person = rows[:, 5:].argmax(axis=1) == PERSON
    rows, cell, stride_px = rows[is_person], cell[is_person], stride_px[is_person]
    with np.errstate(over="ignore"):
        boxes = np.concatenate([(rows[:, :2] + cell) * stride_px, np.exp(rows[:, 2:4]) * stride_px], axis=1)
    return _boxes(corners_of(boxes), rows[:, 4] * rows[:, 5 + PERSON])


def corners_of(boxes: NDArray[Any]) -> NDArray[Any]:
    """Centre x, y, width, height (n, 4) as x0, y0, x1, y1."""
    half = 0.5 * boxes[:, 2:4]
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
