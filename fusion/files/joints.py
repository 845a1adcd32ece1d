"""Keypoints and boxes of any source in a store's layout, matched by the names of their joints.

The result is a `Frame`'s keypoints: (n_people, K, 3) float32, x and y in pixels of the image, then the score.
- A joint that the source does not have gets score 0, and so does one that it gives as (0, 0) or as NaN, which is how
  OpenPose, Ultralytics and others write joints that they did not see.
- `neck` and `mid_hip` are put half-way between both shoulders or hips, with the lower score of the two, if the layout
  has them, the source does not, and both sides were seen.
- Scores are clipped to 0..1.
- The layout box2 takes boxes and no keypoints: the middles of a box's upper and lower edge, with the box's score.
- Coordinates are taken as they are. Whether a detector counts from a pixel's centre or its corner is half a pixel that
  few of them document.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError, ShapeError
from fusion.store.layouts import LAYOUTS, Layout

# Coordinates of two or more seen points that are all as small as this are fractions of the picture: joints and boxes
# may reach beyond it, but no person is two pixels tall.
_FRACTION_MAX = 2.0
_FRACTION_POINTS_MIN = 2
# What is larger is no place in a picture.
_COORDINATE_MAX = 1e9

COCO17 = LAYOUTS["coco17"].joints
BODY25 = LAYOUTS["body25"].joints

_ALIASES = {
    **dict.fromkeys(("hip", "hips", "pelvis", "midhip", "root"), "mid_hip"),
    # MPII's and Human3.6M's joint between the shoulders, which is where OpenPose has its neck.
    "thorax": "neck",
    "l_foot_index": "l_big_toe",
    "r_foot_index": "r_big_toe",
}
_SIDES = {"left": "l", "right": "r"}
_PARTS = {joint.split("_", 1)[1].replace("_", "") for joint in BODY25 if joint[:2] in ("l_", "r_")}
_HALFWAY = {"neck": ("l_shoulder", "r_shoulder"), "mid_hip": ("l_hip", "r_hip")}


def to_layout(keypoints: Any, joints: Sequence[str], layout: Layout) -> NDArray[np.float32]:
    """Put keypoints into a layout's order by the names of their joints.

    Args:
        keypoints: (n_people, n_joints, 3) x, y in pixels and score; an array or a tensor on any device.
        joints: (n_joints,) their names in any of the usual spellings: left_hip, LHip, l_hip, "left hip". Names that
            the layout does not have are passed over.
        layout: the store's.

    Returns:
        (n_people, K, 3) float32, as described for the module.

    Raises:
        ShapeError: keypoints are not three numbers for each named joint.
        ConfigError: no joint of the layout is among the names, or coordinates are fractions of the image.
    """
    keypoints = float_array(keypoints)
    if keypoints.size == 0:
        return np.zeros((0, layout.n_joints, 3), np.float32)
    if keypoints.ndim != 3 or keypoints.shape[1:] != (len(joints), 3):
        raise ShapeError(f"keypoints: want (n_people, {len(joints)}, 3), got {keypoints.shape}")
    named = [_joint_name(joint) for joint in joints]
    if not set(named) & set(layout.joints):
        wanted, got = ", ".join(layout.joints[:4]), ", ".join(map(str, joints[:4]))
        raise ConfigError(f"keypoints: want joints of {layout.name} ({wanted}, ...), got {got}, ...")
    source = _cleaned(keypoints)
    out = np.zeros((len(source), layout.n_joints, 3), np.float32)
    for index, joint in enumerate(layout.joints):
        if joint in named:
            out[:, index] = source[:, named.index(joint)]
        elif joint in _HALFWAY and set(_HALFWAY[joint]) <= set(named):
            left, right = (source[:, named.index(side)] for side in _HALFWAY[joint])
            seen = (left[:, 2] > 0.0) & (right[:, 2] > 0.0)
            out[seen, index, :2] = 0.5 * (left[seen, :2] + right[seen, :2])
            out[seen, index, 2] = np.minimum(left[seen, 2], right[seen, 2])
    return out


def boxes_to_layout(boxes_px: Any, scores: Any, layout: Layout) -> NDArray[np.float32]:
    """Put boxes into the layout box2, for detectors that give boxes only.

    Args:
        boxes_px: (n_people, 4) x0, y0, x1, y1 in pixels.
        scores: (n_people,) the boxes' scores.
        layout: box2.

    Returns:
        (n_people, 2, 3) float32: the middle of each box's upper edge and of its lower edge.

    Raises:
        ShapeError: the arrays do not fit each other.
        ConfigError: the layout is not box2, or a box is upside down.
    """
    if "box_top" not in layout.joints:
        raise ConfigError(f"boxes: want the layout box2, got {layout.name}, which needs keypoints")
    boxes, scores = float_array(boxes_px), float_array(scores).reshape(-1)
    if boxes.size == 0:
        return np.zeros((0, 2, 3), np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(scores) != len(boxes):
        raise ShapeError(f"boxes: want (n_people, 4) and (n_people,) scores, got {boxes.shape} and {scores.shape}")
    upside_down = (boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])
    if upside_down.any():
        got = f"{boxes[upside_down][0].tolist()} (x, y, width, height?)"
        raise ConfigError(f"boxes: want x0 <= x1 and y0 <= y1, got {got}")
    middle = 0.5 * (boxes[:, 0] + boxes[:, 2])
    edges = [np.stack([middle, boxes[:, row], scores], axis=1) for row in (1, 3)]
    return _cleaned(np.stack(edges, axis=1)).astype(np.float32)


def are_fractions(keypoints: NDArray[np.float64]) -> bool:
    """Whether coordinates are fractions of the picture rather than pixels.

    Args:
        keypoints: (..., 3) x, y and score of any number of points; score 0: not seen.
    """
    seen = keypoints[keypoints[..., 2] > 0.0][:, :2]
    seen = seen[np.isfinite(seen).all(axis=1) & (seen != 0.0).any(axis=1)]
    return len(seen) >= _FRACTION_POINTS_MIN and bool(np.abs(seen).max() <= _FRACTION_MAX)


def float_array(values: Any) -> NDArray[np.float64]:
    """Numbers of any source as float64; ShapeError where they are none, or rows differ in length."""
    # A tensor on a GPU must be fetched first; this works for torch's without importing it.
    for method in ("detach", "cpu", "numpy"):
        values = getattr(values, method)() if hasattr(values, method) else values
    try:
        return np.asarray(values, np.float64)
    except (ValueError, TypeError, OverflowError):
        raise ShapeError(f"want numbers in a regular array, got {str(values)[:60]!r}") from None


def _joint_name(name: str) -> str:
    """A joint's name as our layouts spell it: left_shoulder, LShoulder and l-shoulder are all l_shoulder."""
    words = str(name).strip().replace("-", "_").replace(" ", "_")
    if len(words) > 2 and words[0] in "LR" and words[1:].lower() in _PARTS:
        words = f"{words[0]}_{words[1:]}"
    words = words.lower()
    head, _, rest = words.partition("_")
    words = f"{_SIDES[head]}_{rest}" if head in _SIDES and rest else words
    words = words.replace("_bigtoe", "_big_toe").replace("_smalltoe", "_small_toe")
    return _ALIASES.get(words, words)


def _cleaned(keypoints: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, J, 3) with unseen joints as 0, 0, 0 and scores in 0..1. ConfigError where the figures cannot be pixels."""
    keypoints = keypoints.copy()
    unseen = (
        ~(np.abs(keypoints) < _COORDINATE_MAX).all(axis=2)
        | (keypoints[:, :, :2] == 0.0).all(axis=2)
        | ~(keypoints[:, :, 2] > 0.0)
    )
    keypoints[unseen] = 0.0
    keypoints[:, :, 2] = np.minimum(keypoints[:, :, 2], 1.0)
    if are_fractions(keypoints):
        example = keypoints[~unseen][0, :2].tolist()
        raise ConfigError(f"keypoints: want pixels, got fractions of the picture, such as {example}")
    return keypoints
