"""Cameras whose picture does not change: a detector that is fed the last picture of a lost stream again and again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from fusion.observations import Frame
from fusion.results import Warning as StoreWarning
from fusion.results import WarningKind

# Pictures are compared this often. Noise alone changes the last bits of every keypoint and score from image to image.
LOOK_NS = 500_000_000
# People who are found at the same bits for this long are a picture. Shorter than a person takes to be missed as lost.
STILL_NS = 2_000_000_000


class _Look(NamedTuple):
    """The picture that a camera shows, and since when."""

    since_ns: int
    frame: Frame


class Stills:
    """Leaves out the frames that repeat one picture: they say nothing about where people are now.

    Attributes:
        ignored: frames that were left out, by reason.
    """

    def __init__(self) -> None:
        self.ignored: Counter[str] = Counter()
        self._looks: dict[str, _Look] = {}
        self._still: set[str] = set()
        self._due_ns = 0
        self._warnings: list[StoreWarning] = []

    def without(self, frames: Iterable[Frame], t_ns: int) -> list[Frame]:
        """The frames of cameras whose picture changes.

        Args:
            frames: of one set; each camera at most once.
            t_ns: the set's instant.
        """
        if t_ns < self._due_ns and not self._still:
            return list(frames)
        look = t_ns >= self._due_ns
        if look:
            self._due_ns = t_ns + LOOK_NS
        return [frame for frame in frames if self._moves(frame, look)]

    def _moves(self, frame: Frame, look: bool) -> bool:
        name = frame.camera
        if not look and name not in self._still:
            return True
        last = self._looks.get(name)
        if last is None or not _same(last.frame, frame):
            self._looks[name] = _Look(frame.t_ns, frame)
            self._still.discard(name)
            return True
        seconds = (frame.t_ns - last.since_ns) * 1e-9
        if name not in self._still and frame.t_ns - last.since_ns >= STILL_NS:
            self._still.add(name)
            self._warnings.append(StoreWarning(frame.t_ns, WarningKind.CAMERA_STILL, name, seconds=round(seconds, 1)))
        if name in self._still:
            self.ignored["detections: repeated picture"] += 1
            return False
        return True

    def warnings(self) -> list[StoreWarning]:
        """Cameras that turned out to stand still since the last call."""
        warnings, self._warnings = self._warnings, []
        return warnings


def _same(one: Frame, other: Frame) -> bool:
    """Whether two frames hold the same people at the same bits; two empty pictures are no evidence."""
    first, second = one.keypoints, other.keypoints
    # Most pictures differ in their first numbers, and looking there takes a tenth of the time.
    if len(first) != len(second) or not len(first) or first.item(0) != second.item(0):
        return False
    return np.array_equal(first, second)
