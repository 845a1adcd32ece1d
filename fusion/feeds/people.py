"""Boxes and keypoints of one picture, as other makers report them, as a frame of a store's camera."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError, ShapeError
from fusion.files.joints import boxes_to_layout, to_layout
from fusion.live.messages import Refused
from fusion.observations import Frame
from fusion.store.models import Store

# More people than stand in one picture: what a broken detector or a stranger may send.
PEOPLE_MAX = 256
# Beyond the picture by more than this share of it there is nothing: boxes of a tracker that coasts, other units.
BEYOND_SHARE = 1.0
# No detector sees a person of fewer pixels; boxes in fractions of the picture are all smaller.
HEIGHT_MIN_PX = 5.0


@dataclass(frozen=True, slots=True)
class Person:
    """A person in one picture; lengths in pixels of the camera's picture.

    Attributes:
        box_px: x0, y0, x1, y1.
        score: of the box, 0 to 1.
        joints: x, y, score by the joint's name; None where there are only boxes.
        appearance: their appearance vector; None where there is none.
    """

    box_px: tuple[float, float, float, float]
    score: float
    joints: Mapping[str, tuple[float, float, float]] | None = None
    appearance: Sequence[float] | None = None


class Pictures:
    """Makes frames of a store's cameras.

    Attributes:
        size: width and height of each camera's picture, pixels, by name.
        appearance_dim: length of the store's appearance vectors, 0 for none.
        takes_boxes: whether boxes are enough for the store's layout; others need keypoints.
    """

    def __init__(self, store: Store) -> None:
        self.size = {camera.name: camera.size for camera in store.cameras}
        self.appearance_dim, self._layout = store.appearance_dim, store.layout
        self.takes_boxes = "box_top" in store.layout.joints

    def person(
        self,
        camera: str,
        box_px: tuple[float, float, float, float],
        score: float,
        joints: Mapping[str, tuple[float, float, float]] | None = None,
        appearance: Sequence[float] | None = None,
    ) -> Person:
        """A person of a camera's picture; see `Person`. Raises Refused where the figures cannot be that."""
        width, height = self.size[camera]
        box = np.asarray(box_px, np.float64)
        if not np.isfinite(box).all() or box[2] < box[0] or box[3] < box[1]:
            raise Refused("malformed box", f"want left <= right and top <= bottom, got {[*box_px]}")
        if box[3] - box[1] < HEIGHT_MIN_PX:
            want = f"want a person of at least {HEIGHT_MIN_PX:g} pixels"
            raise Refused("box too small", f"{want}, got {[*box_px]} (fractions of the picture?)")
        if not 0.0 <= score <= 1.0:
            raise Refused("malformed score", f"want a score from 0 to 1, got {score}")
        beyond = BEYOND_SHARE * np.array([width, height])
        if (box[:2] < -beyond).any() or (box[2:] > np.array([width, height]) + beyond).any():
            got = [round(value) for value in box_px]
            raise Refused("box beyond the picture", f"want it within about {width} x {height} pixels, got {got}")
        if appearance is not None and len(appearance) != self.appearance_dim:
            want = f"want appearance_dim = {self.appearance_dim} of store.toml"
            raise Refused("another appearance", f"{want}, got a vector of {len(appearance)}")
        return Person(box_px, score, joints, appearance)

    def frame(self, camera: str, t_ns: int, people: Sequence[Person]) -> Frame:
        """A frame with these people. Raises Refused where they do not fit the store's layout."""
        if len(people) > PEOPLE_MAX:
            raise Refused("too many people", f"want at most {PEOPLE_MAX} in a picture, got {len(people)}")
        try:
            keypoints = self._boxes(people) if self.takes_boxes else self._joints(people)
        except (ConfigError, ShapeError) as error:
            raise Refused("malformed people", str(error)[:200]) from None
        return Frame(t_ns, camera, keypoints, self._appearance(people) if self.appearance_dim else None)

    def _boxes(self, people: Sequence[Person]) -> NDArray[np.float32]:
        return boxes_to_layout([person.box_px for person in people], [person.score for person in people], self._layout)

    def _joints(self, people: Sequence[Person]) -> NDArray[np.float32]:
        names = list(dict.fromkeys(name for person in people for name in person.joints or ()))
        if people and not names:
            raise Refused("boxes without keypoints", f"want joints of {self._layout.name}, or a store of layout box2")
        unseen = (0.0, 0.0, 0.0)
        rows = [[(person.joints or {}).get(name, unseen) for name in names] for person in people]
        return to_layout(np.array(rows, np.float64).reshape(len(people), len(names), 3), names, self._layout)

    def _appearance(self, people: Sequence[Person]) -> NDArray[np.float32]:
        """(n_people, appearance_dim); zeros stand for a person whose appearance is not known."""
        rows = np.zeros((len(people), self.appearance_dim), np.float32)
        for row, person in zip(rows, people):
            if person.appearance is not None:
                row[:] = person.appearance
        return rows
