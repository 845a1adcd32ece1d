"""What a model found in one picture, and the choice among boxes that show the same person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Boxes that are compared with each other; the weakest beyond are dropped. No view of a shop holds as many people.
CANDIDATES_MAX = 300


@dataclass(frozen=True, slots=True)
class People:
    """People in one picture, in pixels counted from the centre of its first pixel.

    Attributes:
        boxes_px: (n, 4) float64 x0, y0, x1, y1.
        scores: (n,) float64, 0..1.
        keypoints: (n, K, 3) float64 x, y, score; K is 0 for a model that finds boxes only.
    """

    boxes_px: NDArray[np.float64]
    scores: NDArray[np.float64]
    keypoints: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)

    def chosen(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> People:
        """Some of them, by index or mask."""
        return People(self.boxes_px[index], self.scores[index], self.keypoints[index])

    def sound(self, score_min: float) -> People:
        """Those with a score of at least `score_min`, finite boxes and an area, the best first."""
        with np.errstate(invalid="ignore"):
            area = (self.boxes_px[:, 2] > self.boxes_px[:, 0]) & (self.boxes_px[:, 3] > self.boxes_px[:, 1])
            sound = area & np.isfinite(self.boxes_px).all(axis=1) & (self.scores >= score_min)
        kept = np.flatnonzero(sound)
        order = kept[np.argsort(-self.scores[kept], kind="stable")][:CANDIDATES_MAX]
        return self.chosen(order)


def distinct(boxes_px: NDArray[np.float64], overlap_max: float) -> NDArray[np.intp]:
    """Non-maximum suppression: boxes, best first, that overlap no better box by more than `overlap_max`.

    Args:
        boxes_px: (n, 4) x0, y0, x1, y1, in descending order of score.
        overlap_max: intersection over union.

    Returns:
        Indices of the boxes that remain, ascending.
    """
    areas = (boxes_px[:, 2] - boxes_px[:, 0]) * (boxes_px[:, 3] - boxes_px[:, 1])
    remaining = np.ones(len(boxes_px), bool)
    for best in range(len(boxes_px)):
        if not remaining[best]:
            continue
        after = boxes_px[best + 1 :]
        sides = np.minimum(boxes_px[best, 2:], after[:, 2:]) - np.maximum(boxes_px[best, :2], after[:, :2])
        common = sides.clip(0.0).prod(axis=1)
        remaining[best + 1 :] &= common <= overlap_max * (areas[best] + areas[best + 1 :] - common)
    return np.flatnonzero(remaining)
