"""From pictures to frames of the file contract: people found, in the store's layout and the camera's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusion.detect.appearance import AppearanceModel
from fusion.detect.models import PoseModel
from fusion.detect.people import People
from fusion.detect.pictures import Picture, scale_to_calibration
from fusion.detect.sources import Shot
from fusion.errors import ConfigError
from fusion.files.joints import boxes_to_layout, to_layout
from fusion.observations import Frame
from fusion.store.models import Camera, Store


@dataclass(frozen=True, slots=True)
class Framer:
    """Makes frames of pictures.

    Attributes:
        store: whose layout and appearance_dim the frames have.
        model: finds people.
        appearance: what they look like; None where the store wants no vectors.
    """

    store: Store
    model: PoseModel
    appearance: AppearanceModel | None = None

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
        people = self.model.people(pictures)
        vectors = [None] * len(shots) if self.appearance is None else self.appearance.vectors(pictures, people)
        return [
            self._frame(camera, shot.t_ns, picture, found, looks)
            for (camera, shot), picture, found, looks in zip(shots, pictures, people, vectors)
        ]

    def _frame(self, camera: Camera, t_ns: int, picture: Picture, people: People, looks: object) -> Frame:
        # A camera's second stream has fewer pixels than its calibration, in the same shape.
        found = scale_to_calibration(picture.size, camera.size)
        if found is None:
            wanted, got = ("{} x {}".format(*size) for size in (camera.size, picture.size))
            raise ConfigError(f"{camera.name}: want pictures in the shape of {wanted}, as in cameras.toml, got {got}")
        scale = np.array(found)
        layout = self.store.layout
        if "box_top" in layout.joints:
            corners = (people.boxes_px.reshape(-1, 2, 2) + 0.5) * scale - 0.5
            keypoints = boxes_to_layout(corners.reshape(-1, 4), people.scores, layout)
        else:
            placed = people.keypoints.copy()
            placed[:, :, :2] = (placed[:, :, :2] + 0.5) * scale - 0.5
            keypoints = to_layout(placed, self.model.joints, layout)
        return Frame(t_ns, camera.name, keypoints, looks if isinstance(looks, np.ndarray) else None)
