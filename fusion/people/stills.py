"""Cameras whose picture does not change: a detector that is fed the last picture of a lost stream again and again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fusion.observations import Frame
from fusion.results import Warning as StoreWarning
from fusion.results import WarningKind

# Pictures are compared this often. Noise alone changes the last bits of every keypoint and score from image to image.
LOOK_NS = 500_000_000
# People who are found at the same bits for this long are a picture. Shorter than a person takes to be missed as lost.
STILL_NS = 2_000_000_000


class Stills:
    """Leaves out the frames that repeat one picture: they say nothing about where people are now.

    Attributes:
        ignored: frames that were left out, by reason.
    """

    def __init__(self) -> None:
        self.ignored: Counter[str] = Counter()
        self._shown: dict[str, Frame] = {}  # The first frame with the picture that a camera shows.
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
        still = self._still
        return [frame for frame in frames if not (look or frame.camera in still) or self._moves(frame)]

    def _moves(self, frame: Frame) -> bool:
        """Whether a camera's picture has changed, or not yet been the same for long."""
        name = frame.camera
        first = self._shown.get(name)
        if first is None or not _same(first.keypoints, frame.keypoints):
            self._shown[name] = frame
            self._still.discard(name)
            return True
        since_ns = frame.t_ns - first.t_ns
        if name not in self._still and since_ns >= STILL_NS:
            self._still.add(name)
            seconds = round(since_ns * 1e-9, 1)
            self._warnings.append(StoreWarning(frame.t_ns, WarningKind.CAMERA_STILL, name, seconds=seconds))
        if name in self._still:
            self.ignored["detections: repeated picture"] += 1
            return False
        return True

    def warnings(self) -> list[StoreWarning]:
        """Cameras that turned out to stand still since the last call."""
        warnings, self._warnings = self._warnings, []
        return warnings


def _same(first: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Whether two frames' keypoints are the same people at the same bits; two empty pictures are no evidence."""
    # Most pictures differ in their first numbers, and looking there takes a tenth of the time.
    if len(first) != len(other) or not len(first) or first.item(0) != other.item(0):
        return False
    return np.array_equal(first, other)
