"""From pictures to frames of the file contract: people found, in the store's layout and the camera's pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fusion.detect.appearance import AppearanceModel
from fusion.detect.models import PoseModel
from fusion.detect.people import People
from fusion.detect.pictures import Picture, scale_to_calibration
from fusion.detect.sources import Shot
from fusion.errors import ConfigError
from fusion.files.joints import are_fractions, boxes_to_layout, to_layout
from fusion.observations import Frame
from fusion.store.models import Camera, Store


@dataclass(frozen=True, slots=True)
class Framer:
    """Makes frames of pictures.

    Attributes:
        store: whose layout and appearance_dim the frames have.
        model: finds people.
        appearance: what they look like; None where the store wants no vectors.
        rejected: what a model found and what is no person, by reason: a point in the corner of a picture has
            coordinates like those of fractions, which no later stage could know from pixels.
    """

    store: Store
    model: PoseModel
    appearance: AppearanceModel | None = None
    rejected: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Raises ConfigError where model and store do not fit."""
        boxes_only = "box_top" in self.store.layout.joints
        if not boxes_only and not self.model.joints:
            raise ConfigError(f"the store wants {self.store.layout.name}; name a pose model in [model], path = ...")
        if self.appearance is None and self.store.appearance_dim:
            dim = self.store.appearance_dim
            raise ConfigError(f"store.toml has appearance_dim = {dim}; name a model of that length in appearance = ...")

    def frames(self, shots: Sequence[tuple[Camera, Shot]]) -> list[Frame]:
        """A frame for each picture, in the same order."""
        pictures = [Picture(shot.frame) for _, shot in shots]
        people = [
            self._apart(camera, picture, found)
            for (camera, _), picture, found in zip(shots, pictures, self.model.people(pictures))
        ]
        vectors = [None] * len(shots) if self.appearance is None else self.appearance.vectors(pictures, people)
        return [
            self._frame(camera, shot.t_ns, picture, found, looks)
            for (camera, shot), picture, found, looks in zip(shots, pictures, people, vectors)
        ]

    def _apart(self, camera: Camera, picture: Picture, people: People) -> People:
        """People whose coordinates cannot be fractions of a picture; the others are counted."""
        points = self._corners(camera, picture, people) if self._takes_boxes else self._joints(camera, picture, people)
        tiny = np.array([are_fractions(each) for each in points], np.bool_)
        if not tiny.any():
            return people
        self.rejected[f"{camera.name}: detections within two pixels of the corner"] += int(tiny.sum())
        return people.chosen(~tiny)

    @property
    def _takes_boxes(self) -> bool:
        return "box_top" in self.store.layout.joints

    def _frame(self, camera: Camera, t_ns: int, picture: Picture, people: People, looks: object) -> Frame:
        layout = self.store.layout
        if self._takes_boxes:
            corners = self._corners(camera, picture, people)[:, :, :2]
            keypoints = boxes_to_layout(corners.reshape(-1, 4), people.scores, layout)
        else:
            keypoints = to_layout(self._joints(camera, picture, people), self.model.joints, layout)
        return Frame(t_ns, camera.name, keypoints, looks if isinstance(looks, np.ndarray) else None)

    def _corners(self, camera: Camera, picture: Picture, people: People) -> NDArray[np.float64]:
        """(n, 2, 3) corners of boxes in the pixels of the calibration, with their scores."""
        corners = (people.boxes_px.reshape(-1, 2, 2) + 0.5) * _scale(camera, picture) - 0.5
        return np.concatenate([corners, np.broadcast_to(people.scores[:, None, None], (len(corners), 2, 1))], axis=2)

    def _joints(self, camera: Camera, picture: Picture, people: People) -> NDArray[np.float64]:
        """(n, K, 3) joints in the pixels of the calibration."""
        placed = people.keypoints.copy()
        placed[:, :, :2] = (placed[:, :, :2] + 0.5) * _scale(camera, picture) - 0.5
        return placed


def _scale(camera: Camera, picture: Picture) -> NDArray[np.float64]:
    """(2,) from a picture's pixels to those of the calibration: a camera's second stream has fewer, in the same shape.

    Raises:
        ConfigError: the shapes differ.
    """
    found = scale_to_calibration(picture.size, camera.size)
    if found is None:
        wanted, got = ("{} x {}".format(*size) for size in (camera.size, picture.size))
        raise ConfigError(f"{camera.name}: want pictures in the shape of {wanted}, as in cameras.toml, got {got}")
    return np.array(found)
