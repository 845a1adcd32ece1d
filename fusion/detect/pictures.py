"""A decoded picture as a model wants it, and the way back to the camera's pixels. Needs the extra `detect`.

Models count pixels from a pixel's corner (a coordinate is a fraction of the picture's size) or from its centre (0 is
the middle of the first pixel). The store's convention is the centre, so that coordinates of the first kind move by half
a pixel (`Fit.to_picture`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av import VideoFrame

# What models of the YOLO and RTM families were trained with beside the picture.
PAD_VALUE = 114
# Width and height of a macroblock, and how far shapes of the same kind differ: 1920 x 1080 and 704 x 396.
_BLOCK, _SHAPE_TOLERANCE = 16, 0.01


@dataclass(frozen=True, slots=True)
class Fit:
    """How a picture lies in a model's input: scaled by a factor for each axis, its first pixel at the first pixel.

    Attributes:
        width, height: of the scaled picture, pixels; what is right of it and below it is padding.
        scale: (2,) pixels of the picture for each pixel of the input, for x and for y.
    """

    width: int
    height: int
    scale: tuple[float, float]

    def to_picture(self, points: NDArray[Any], *, corner: bool) -> NDArray[np.float64]:
        """Pixels (..., 2) of the input as pixels of the picture, counted from the centre of its first pixel.

        Args:
            points: x, y in pixels of the input.
            corner: whether they count from the corner of the first pixel, else from its centre.
        """
        from_corner = np.asarray(points, np.float64) + (0.0 if corner else 0.5)
        return np.asarray(from_corner * np.array(self.scale) - 0.5)


def scale_to_calibration(picture: tuple[int, int], calibrated: tuple[int, int]) -> tuple[float, float] | None:
    """Pixels of the calibrated picture for each pixel of another size (width, height), for x and for y.

    None where the shapes differ by more than a percent: then it is not known what was cut off. Codecs pad pictures to
    multiples of 16 at the right and at the bottom (1080 lines are 1088), and some tools calibrate what they decode with
    the padding: a difference below 16 moves no pixel.
    """
    if all(abs(got - wanted) < _BLOCK for got, wanted in zip(picture, calibrated)):
        return 1.0, 1.0
    scale = calibrated[0] / picture[0], calibrated[1] / picture[1]
    return scale if abs(scale[0] / scale[1] - 1.0) <= _SHAPE_TOLERANCE else None


def fit(size: tuple[int, int], into: tuple[int, int]) -> Fit:
    """The largest scaling of a picture that keeps its shape and fits: both sizes are width, height in pixels."""
    (width, height), (room_x, room_y) = size, into
    factor = min(room_x / width, room_y / height)
    scaled_x, scaled_y = max(1, round(width * factor)), max(1, round(height * factor))
    return Fit(scaled_x, scaled_y, (width / scaled_x, height / scaled_y))


class Picture:
    """One decoded picture, in memory only."""

    def __init__(self, frame: VideoFrame) -> None:
        """A picture of a video. Raises ValueError where it has no pixels."""
        if frame.width < 1 or frame.height < 1:
            raise ValueError(f"picture: want pixels, got {frame.width} x {frame.height}")
        self._frame = frame

    @classmethod
    def of_array(cls, rgb: NDArray[np.uint8]) -> Picture:
        """From (height, width, 3) uint8 RGB."""
        from av import VideoFrame

        return cls(VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24"))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, pixels."""
        return self._frame.width, self._frame.height

    @cached_property
    def rgb(self) -> NDArray[np.uint8]:
        """(height, width, 3) uint8, at full resolution."""
        return np.asarray(self._frame.to_ndarray(format="rgb24"), np.uint8)

    def letterboxed(self, into: tuple[int, int], pad: int = PAD_VALUE) -> tuple[NDArray[np.uint8], Fit]:
        """The picture scaled into a size (width, height), (height, width, 3) RGB, and how it lies there."""
        placed = fit(self.size, into)
        reformatted = self._frame.reformat(placed.width, placed.height, "rgb24", interpolation="BILINEAR")
        scaled = np.asarray(reformatted.to_ndarray(), np.uint8)
        if (placed.width, placed.height) == into:
            return scaled, placed
        canvas = np.full((into[1], into[0], 3), pad, np.uint8)
        canvas[: placed.height, : placed.width] = scaled
        return canvas, placed

    def crop(self, box: tuple[float, float, float, float], into: tuple[int, int]) -> NDArray[np.float32]:
        """A part of the picture, sampled bilinearly; black outside the picture.

        Args:
            box: x0, y0, x1, y1 in pixels of the picture, counted from the corner of its first pixel.
            into: width and height of the result.

        Returns:
            (height, width, 3) float32 RGB, 0..255.
        """
        width, height = self.size
        columns = _samples(box[0], box[2], into[0], width)
        rows = _samples(box[1], box[3], into[1], height)
        # Rows first: the fewer bytes are gathered, the better, and people are higher than they are wide.
        lower, upper, weight = rows
        lines = np.zeros((into[1], width, 3), np.float32)
        for index, share in ((lower, 1.0 - weight), (upper, weight)):
            inside = (index >= 0) & (index < height)
            lines[inside] += self.rgb[index[inside]] * share[inside, None, None].astype(np.float32)
        left, right, weight = columns
        out = np.zeros((into[1], into[0], 3), np.float32)
        for index, share in ((left, 1.0 - weight), (right, weight)):
            inside = (index >= 0) & (index < width)
            out[:, inside] += lines[:, index[inside]] * share[None, inside, None].astype(np.float32)
        return out


def _samples(
    start: float, stop: float, n: int, limit: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The two pixels between which each of n samples lies, and the weight of the second."""
    centres = start + (np.arange(n) + 0.5) * (stop - start) / n - 0.5
    centres = np.clip(centres, -2.0, limit + 1.0)  # Anything outside is black, however far away.
    below = np.floor(centres).astype(np.int64)
    return below, below + 1, centres - below
