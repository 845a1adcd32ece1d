"""Keypoint layouts: the joints of a detection, the limbs between them, their usual heights and lengths.

Joints are always looked up by name, never by position: COCO-17 and BODY_25 share most names and no order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

# Usual height above the floor of a standing adult's joint and its standard deviation over people, in metres: stature
# 1.70 +- 0.10 m (both sexes pooled) times the segment ratios of Drillis & Contini (1966). The deviation is widened for
# wrists and elbows, which move freely. For children and people who crouch the height is only a weak prior.
_HEIGHTS_M = {
    "nose": (1.56, 0.15),
    "eye": (1.59, 0.15),
    "ear": (1.58, 0.15),
    "neck": (1.42, 0.14),
    "shoulder": (1.39, 0.14),
    "elbow": (1.08, 0.25),
    "wrist": (0.90, 0.40),
    "hip": (0.90, 0.12),
    "mid_hip": (0.92, 0.12),
    "knee": (0.48, 0.10),
    "ankle": (0.09, 0.06),
    "big_toe": (0.02, 0.04),
    "small_toe": (0.02, 0.04),
    "heel": (0.03, 0.04),
    "box_top": (1.70, 0.12),
    "box_bottom": (0.0, 0.04),
}

# Usual distance between joined joints and its standard deviation over people, in metres; the same source.
_LIMBS_M = (
    ("nose", "l_eye", 0.04, 0.01),
    ("nose", "r_eye", 0.04, 0.01),
    ("l_eye", "l_ear", 0.09, 0.02),
    ("r_eye", "r_ear", 0.09, 0.02),
    ("nose", "neck", 0.23, 0.04),
    ("nose", "l_shoulder", 0.28, 0.04),
    ("nose", "r_shoulder", 0.28, 0.04),
    ("neck", "l_shoulder", 0.18, 0.03),
    ("neck", "r_shoulder", 0.18, 0.03),
    ("l_shoulder", "r_shoulder", 0.35, 0.05),
    ("l_shoulder", "l_elbow", 0.29, 0.04),
    ("r_shoulder", "r_elbow", 0.29, 0.04),
    ("l_elbow", "l_wrist", 0.25, 0.04),
    ("r_elbow", "r_wrist", 0.25, 0.04),
    ("neck", "mid_hip", 0.50, 0.06),
    ("l_shoulder", "l_hip", 0.49, 0.06),
    ("r_shoulder", "r_hip", 0.49, 0.06),
    ("mid_hip", "l_hip", 0.11, 0.03),
    ("mid_hip", "r_hip", 0.11, 0.03),
    ("l_hip", "r_hip", 0.22, 0.05),
    ("l_hip", "l_knee", 0.42, 0.05),
    ("r_hip", "r_knee", 0.42, 0.05),
    ("l_knee", "l_ankle", 0.41, 0.05),
    ("r_knee", "r_ankle", 0.41, 0.05),
    ("l_ankle", "l_heel", 0.07, 0.03),
    ("r_ankle", "r_heel", 0.07, 0.03),
    ("l_ankle", "l_big_toe", 0.19, 0.04),
    ("r_ankle", "r_big_toe", 0.19, 0.04),
    ("l_big_toe", "l_small_toe", 0.08, 0.02),
    ("r_big_toe", "r_small_toe", 0.08, 0.02),
)


@dataclass(frozen=True)
class Layout:
    """One keypoint layout.

    Attributes:
        name: as in store.toml.
        joints: (K,) joint names in the order of the detections' keypoints.
    """

    name: str
    joints: tuple[str, ...]

    @property
    def n_joints(self) -> int:
        """Number of joints, K."""
        return len(self.joints)

    def index(self, joint: str) -> int:
        """Position of a joint; ValueError if the layout has no such joint."""
        return self.joints.index(joint)

    def indices(self, *joints: str) -> tuple[int, ...]:
        """Positions of the given joints, leaving out those that the layout does not have."""
        return tuple(self.joints.index(joint) for joint in joints if joint in self.joints)

    @cached_property
    def heights_m(self) -> NDArray[np.float64]:
        """(K, 2) usual height above the floor of a standing person's joint and its standard deviation, metres."""
        return np.array([_HEIGHTS_M.get(j) or _HEIGHTS_M[j.split("_", 1)[1]] for j in self.joints])

    @cached_property
    def limbs(self) -> NDArray[np.int64]:
        """(n_limbs, 2) joint indices of the limbs that this layout has, nearer to the trunk first."""
        pairs = [(self.index(a), self.index(b)) for a, b, _, _ in _LIMBS_M if a in self.joints and b in self.joints]
        return np.array(pairs, np.int64).reshape(-1, 2)

    @cached_property
    def limb_lengths_m(self) -> NDArray[np.float64]:
        """(n_limbs, 2) usual length of each limb and its standard deviation over people, metres."""
        rows = [(length, sd) for a, b, length, sd in _LIMBS_M if a in self.joints and b in self.joints]
        return np.array(rows).reshape(-1, 2)


_COCO17 = (
    "nose l_eye r_eye l_ear r_ear l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist "
    "l_hip r_hip l_knee r_knee l_ankle r_ankle"
)
_BODY25 = (
    "nose neck r_shoulder r_elbow r_wrist l_shoulder l_elbow l_wrist mid_hip r_hip r_knee r_ankle l_hip l_knee l_ankle "
    "r_eye l_eye r_ear l_ear l_big_toe l_small_toe l_heel r_big_toe r_small_toe r_heel"
)

LAYOUTS: dict[str, Layout] = {
    "coco17": Layout("coco17", tuple(_COCO17.split())),
    "body25": Layout("body25", tuple(_BODY25.split())),
    # For detectors that give boxes only: the middle of the box's upper edge, then of its lower edge.
    "box2": Layout("box2", ("box_top", "box_bottom")),
}
