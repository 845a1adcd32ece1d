"""The published orders of keypoints: which joint has which number in the output of which pose estimator.

A file that names its joints needs none of this. Where it does not, several orders have the same length (25 keypoints
are BODY_25, BODY_25B or the upper body of BlazePose), and a wrong one gives bodies that look plausible and are not.
`fusion.files.anatomy` finds out which order makes bodies; these names are also what a user gives to say so.
"""

from __future__ import annotations

from dataclasses import dataclass

from fusion.errors import ConfigError
from fusion.store.layouts import LAYOUTS

_MMPOSE = "https://github.com/open-mmlab/mmpose/blob/main/configs/_base_/datasets"
_OPENPOSE = "https://github.com/CMU-Perceptual-Computing-Lab/openpose"
_MEDIAPIPE = "https://ai.google.dev/edge/mediapipe/solutions/vision/pose_landmarker"
_HALPE = "https://github.com/Fang-Haoshu/Halpe-FullBody"


@dataclass(frozen=True)
class Skeleton:
    """One published order of keypoints.

    Attributes:
        name: as a user gives it.
        joints: (n_joints,) names as our layouts spell them, "" for a keypoint of face or hand that no layout has.
        title: what the field calls it.
        source: where the order is published.
    """

    name: str
    joints: tuple[str, ...]
    title: str
    source: str

    @property
    def n_joints(self) -> int:
        """Number of keypoints, those without a name included."""
        return len(self.joints)


_COCO17 = LAYOUTS["coco17"].joints
_BODY25 = LAYOUTS["body25"].joints
_LEGS = "r_hip r_knee r_ankle l_hip l_knee l_ankle"
_ARMS = "r_shoulder r_elbow r_wrist l_shoulder l_elbow l_wrist"
_FEET = "l_big_toe l_small_toe l_heel r_big_toe r_small_toe r_heel"
_NECK_HEAD = "upper_neck head_top"
_HALPE_EXTRA = "head_top neck mid_hip l_big_toe r_big_toe l_small_toe r_small_toe l_heel r_heel"
_BLAZEPOSE = (
    "nose l_eye_inner l_eye l_eye_outer r_eye_inner r_eye r_eye_outer l_ear r_ear l_mouth r_mouth l_shoulder "
    "r_shoulder l_elbow r_elbow l_wrist r_wrist l_pinky r_pinky l_index r_index l_thumb r_thumb l_hip r_hip l_knee "
    "r_knee l_ankle r_ankle l_heel r_heel l_big_toe r_big_toe"
)


def _order(*parts: str | tuple[str, ...], unnamed: int = 0) -> tuple[str, ...]:
    joints = [joint for part in parts for joint in (part.split() if isinstance(part, str) else part)]
    return (*joints, *[""] * unnamed)


_GOLIATH70 = _order(
    _COCO17[:9], "l_hip r_hip l_knee r_knee l_ankle r_ankle", _FEET, ("",) * 20, "r_wrist", ("",) * 20, "l_wrist",
    ("",) * 6, "neck",
)  # fmt: skip

_PARAMETERS = f"{_OPENPOSE}/blob/master/src/openpose/pose/poseParameters.cpp"
_EXPERIMENTAL = f"{_OPENPOSE}_train/tree/master/experimental_models"
_H36M_TRUNK = "spine neck upper_neck head_top"
_LSP_LEGS = "r_ankle r_knee r_hip l_hip l_knee l_ankle"
_LSP_ARMS = "r_wrist r_elbow r_shoulder l_shoulder l_elbow l_wrist"

_PUBLISHED = (
    Skeleton("coco17", _COCO17, "COCO, 17", "https://cocodataset.org/#format-data"),
    Skeleton(
        "h36m17",
        _order(f"mid_hip {_LEGS} {_H36M_TRUNK} l_shoulder l_elbow l_wrist r_shoulder r_elbow r_wrist"),
        "Human3.6M, 17",
        "https://github.com/facebookresearch/VideoPose3D/blob/main/common/h36m_dataset.py",
    ),
    Skeleton(
        "h36m17_left_first",
        _order("mid_hip l_hip l_knee l_ankle r_hip r_knee r_ankle", _H36M_TRUNK)
        + _order("l_shoulder l_elbow l_wrist r_shoulder r_elbow r_wrist"),
        "Human3.6M, 17, as some releases of MMPose have it",
        f"{_MMPOSE}/h36m.py",
    ),
    Skeleton(
        "mpi_inf_3dhp17",
        _order(f"head_top neck {_ARMS} {_LEGS} mid_hip spine head"),
        "MPI-INF-3DHP, 17",
        f"{_MMPOSE}/mpi_inf_3dhp.py",
    ),
    Skeleton(
        "posetrack17",
        _order("nose upper_neck head_top", _COCO17[3:]),
        "PoseTrack 2018, 17",
        f"{_MMPOSE}/posetrack18.py",
    ),
    Skeleton(
        "coco18", _order(f"nose neck {_ARMS} {_LEGS} r_eye l_eye r_ear l_ear"), "OpenPose COCO, 18", _PARAMETERS
    ),
    Skeleton("body19", _BODY25[:19], "OpenPose BODY_19", _PARAMETERS),
    Skeleton("mpi15", _order(f"head_top neck {_ARMS} {_LEGS} spine"), "OpenPose MPI, 15", _PARAMETERS),
    Skeleton("body25", _BODY25, "OpenPose BODY_25", _PARAMETERS),
    Skeleton("body25b", _order(_COCO17, _NECK_HEAD, _FEET), "OpenPose BODY_25B", _EXPERIMENTAL),
    Skeleton("body135", _order(_COCO17, _NECK_HEAD, _FEET, unnamed=110), "OpenPose BODY_135", _EXPERIMENTAL),
    Skeleton("halpe26", _order(_COCO17, _HALPE_EXTRA), "Halpe, 26", _HALPE),
    Skeleton("halpe68", _order(_COCO17, _HALPE_EXTRA, unnamed=42), "Halpe without faces, 68", _HALPE),
    Skeleton("halpe136", _order(_COCO17, _HALPE_EXTRA, unnamed=110), "Halpe, 136", _HALPE),
    Skeleton(
        "wholebody133",
        _order(_COCO17, _FEET, unnamed=110),
        "COCO-WholeBody, 133",
        "https://github.com/jin-s13/COCO-WholeBody",
    ),
    Skeleton("mpii16", _order(_LSP_LEGS, "mid_hip neck", _NECK_HEAD, _LSP_ARMS), "MPII, 16", f"{_MMPOSE}/mpii.py"),
    Skeleton("aic14", _order(f"{_ARMS} {_LEGS} head_top neck"), "AI Challenger, 14", f"{_MMPOSE}/aic.py"),
    Skeleton("crowdpose14", _order(_COCO17[5:], "head_top neck"), "CrowdPose, 14", f"{_MMPOSE}/crowdpose.py"),
    Skeleton(
        "lsp14",
        _order(_LSP_LEGS, _LSP_ARMS, "neck head_top"),
        "Leeds Sports Pose, 14",
        "https://github.com/axelcarlier/lsp",
    ),
    Skeleton(
        "humanart21",
        _order(_COCO17, "l_hand r_hand l_big_toe r_big_toe"),
        "Human-Art, 21",
        f"{_MMPOSE}/humanart21.py",
    ),
    Skeleton("mediapipe33", _order(_BLAZEPOSE), "MediaPipe BlazePose, 33", _MEDIAPIPE),
    Skeleton("mediapipe25", _order(_BLAZEPOSE)[:25], "MediaPipe BlazePose, upper body, 25", _MEDIAPIPE),
    Skeleton("mhr70", _GOLIATH70, "SAM 3D Body, 70", "https://github.com/facebookresearch/sam-3d-body"),
    Skeleton(
        "goliath308",
        _order(_GOLIATH70, unnamed=238),
        "Sapiens Goliath, 308",
        "https://github.com/facebookresearch/sapiens",
    ),
)
SKELETONS: dict[str, Skeleton] = {skeleton.name: skeleton for skeleton in _PUBLISHED}


def skeletons_of(n_joints: int) -> tuple[Skeleton, ...]:
    """The orders with this number of keypoints."""
    return tuple(skeleton for skeleton in SKELETONS.values() if skeleton.n_joints == n_joints)


def skeleton_named(name: str) -> Skeleton:
    """The order of this name; ConfigError, with the names there are, where it is none."""
    if name not in SKELETONS:
        raise ConfigError(f"skeleton: want one of {', '.join(SKELETONS)}, got {name!r}")
    return SKELETONS[name]
