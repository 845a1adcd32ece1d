"""OpenCV's FileStorage as YAML, XML or JSON, and what uses it: EasyMocap, EasyVolcap, Wildtrack, MultiviewX, OpenPose.

`rvec` or `R`, `tvec` or `T`, world to camera, metres; one file for all cameras (`K_name` or `M1`) or one for each.
EasyMocap's `intri.yml` and `extri.yml` are joined by name, `R_name` is the vector, `Rot_name` the matrix; EasyVolcap
adds `t_name` (a time), `n_`, `f_`, `bounds_` and `ccm_name`. Wildtrack writes its vectors as plain text in centimetres.
OpenPose's SERIAL.xml has CameraMatrix [R | t] (metres), Intrinsics and Distortion (eight coefficients).

Source: docs.opencv.org, FileStorage and calib3d; github.com/zju3dv/EasyMocap, doc/quickstart;
github.com/zju3dv/EasyVolcap, docs of the data set format; Chavdarova et al., WILDTRACK (CVPR 2018); OpenPose,
doc/advanced/calibration_module.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fusion.files.calibrations.parts import (
    FIRST_CAMERA,
    Part,
    UnreadableError,
    Value,
    array_of,
    is_fisheye,
    passed_over,
    shaped,
)
from fusion.store.rotations import rotation_matrix

# Spellings of the same values among users of OpenCV's FileStorage; compared without case and underscores.
_SPELLINGS = {
    "matrix": "cameramatrix k m mtx intrinsicmatrix intrinsics",
    "distortions": "distortioncoefficients distcoeffs distcoeff distortion distortions dist d",
    "rotation": "rvec r rot rotation rotationmatrix rotationvector",
    "translation": "tvec t translation translationvector",
    "width": "imagewidth width w",
    "height": "imageheight height h",
    "size": "imagesize size resolution",
}
_ROLES = {spelling: role for role, spellings in _SPELLINGS.items() for spelling in spellings.split()}
# Wildtrack's XML files do not give the size of its images (Chavdarova et al., CVPR 2018).
_WILDTRACK_SIZE = (1920, 1080)
_OPENPOSE_KEYS = {"CameraMatrix", "Intrinsics", "Distortion"}
# Keys of these tools that say nothing of how a camera projects, beside those of one camera each (t_NAME, bounds_NAME).
_SILENT = re.compile(
    r"names|version|(avg|mean|rms)_?reproj.*|.*error.*|calibration_time|nframes|nr_?of_?frames|flags|board_.*|square_size|"
    r"(n|f|t|bounds|ccm|rot|avg)_.*|camera_name|name|extrinsic_parameters|image_points|grid_points|per_view.*|aspectratio",
    re.IGNORECASE,
)

# The nodes of one camera by role; several spellings of one role may be there.
_Nodes = dict[str, list[Value]]


def recognises_openpose(document: dict[str, Any]) -> bool:
    """Whether a document is one of OpenPose's 3D module."""
    return set(document) >= _OPENPOSE_KEYS


def read_openpose(document: dict[str, Any], label: str, faults: list[str]) -> list[Part]:
    """The camera's values in OpenPose's SERIAL.xml; the file's name is the camera's, as there."""
    part = Part(Path(label).stem, label)
    part.values = {"matrix": Value("Intrinsics", document["Intrinsics"])}
    part.values["distortions"] = Value("Distortion", document["Distortion"])
    part.notes = [f"{label}: {FIRST_CAMERA}", *passed_over(set(document) - _OPENPOSE_KEYS, label)]
    try:
        camera_from_world = shaped(document["CameraMatrix"], (3, 4), f"{label}: CameraMatrix")
        part.values["rotation"] = Value("CameraMatrix", camera_from_world[:, :3].tolist())
        part.values["translation"] = Value("CameraMatrix", camera_from_world[:, 3].tolist())
    except UnreadableError as error:
        faults.append(str(error))
    return [part]


def read(document: dict[str, Any], label: str, faults: list[str]) -> list[Part]:
    """The cameras' values in a FileStorage document."""
    cameras = _nodes_by_camera(document)
    if _is_stereo(document, cameras):
        got = "a stereo pair's (from camera 1 to camera 2)"
        faults.append(f"{label}: R, T: want each camera's pose in the world, got {got}")
        return []
    fisheye = _fisheye(document, label, faults)
    faults += _add_board_pose(document, cameras.get("", {}), label)
    parts = []
    for name, nodes in cameras.items():
        # A stray key such as T_error does not make a camera: that takes an intrinsic matrix or a whole pose.
        if "matrix" not in nodes and not {"rotation", "translation"} <= set(nodes):
            continue
        in_file = document.get("camera_name", document.get("name"))
        camera = name or (in_file if isinstance(in_file, str) and in_file else _stem(label))
        # Wildtrack writes its vectors as plain text and in centimetres. MultiviewX has the same files with matrix
        # nodes, and those are in metres.
        pose = [value.node for role in ("rotation", "translation") for value in nodes.get(role, [])]
        wildtrack = len(pose) == 2 and all(isinstance(node, str) for node in pose)
        part = Part(camera, label, unit="cm" if wildtrack else "m", fisheye=fisheye)
        if wildtrack:
            part.size_hint = _WILDTRACK_SIZE, "the size of Wildtrack's images"
        for role, spelled in nodes.items():
            part.values[role] = spelled[0]
            faults += _spelling_faults(role, spelled, f"{label}: camera {camera!r}")
        if {"width", "height"} <= set(part.values):
            width, height = part.values.pop("width"), part.values.pop("height")
            part.values.setdefault("size", Value(f"{width.key}, {height.key}", [width.node, height.node]))
        parts.append(part)
    if parts:
        used = {value.key for nodes in cameras.values() for values in nodes.values() for value in values}
        unknown = {key for key in document if key not in used and not _SILENT.fullmatch(key) and not _is_lens(key)}
        parts[0].notes += passed_over(unknown, label)
    return parts


def _nodes_by_camera(document: dict[str, Any]) -> dict[str, _Nodes]:
    """Nodes by the camera's name in their keys, "" for keys without one, and by role."""
    names = document.get("names")
    wanted = {str(name) for name in names} if isinstance(names, list) else None
    cameras: dict[str, _Nodes] = {}
    for key, node in document.items():
        role, name = _role_of(str(key))
        # EasyVolcap's t_00 is a time, not a translation: a matrix or vector is never one number.
        if role not in ("width", "height") and _is_one_number(node):
            continue
        if role is not None and (wanted is None or name in wanted):
            cameras.setdefault(name, {}).setdefault(role, []).append(Value(str(key), node))
    return cameras


def _spelling_faults(role: str, spelled: list[Value], where: str) -> list[str]:
    """Several spellings of one value in a file must mean the same."""
    faults = []
    for value in spelled[1:]:
        if not _mean_the_same(role, spelled[0].node, value.node):
            faults.append(f"{where}: {spelled[0].key} and {value.key}: want one {role}, got two that differ")
    return faults


def _mean_the_same(role: str, node: Any, other_node: Any) -> bool:
    try:
        first, second = array_of(node), array_of(other_node)
        if role == "rotation":
            first, second = (rotation_matrix(a.ravel()) if a.size == 3 else a for a in (first, second))
        # EasyMocap writes six decimals.
        return first.shape == second.shape and bool(np.abs(first - second).max() < 1e-4)
    except (ValueError, TypeError, OverflowError):
        return False


def _is_stereo(document: dict[str, Any], cameras: dict[str, _Nodes]) -> bool:
    """Whether the pose is that of a stereo calibration: of the second camera from the first, not in any world."""
    numbered = any("matrix" in nodes and name for name, nodes in cameras.items())
    unnamed = set(cameras.get("", {}))
    has_pose = bool(unnamed & {"rotation", "translation"})
    return bool({"P1", "Q"} & set(document)) or (numbered and has_pose and "matrix" not in unnamed)


def _add_board_pose(document: dict[str, Any], nodes: _Nodes, label: str) -> list[str]:
    """Take the pose from OpenCV's calibration sample, which keeps a row (rvec, tvec) for every image of its board."""
    if "extrinsic_parameters" not in document or "rotation" in nodes:
        return []
    try:
        rows = array_of(document["extrinsic_parameters"]).reshape(-1, 6)
    except (ValueError, TypeError, OverflowError):
        return []
    if len(rows) != 1:
        return [f"{label}: extrinsic_parameters: want one pose, got {len(rows)}, one for each picture"]
    if "matrix" in nodes:
        nodes["rotation"] = [Value("extrinsic_parameters", rows[0, :3].tolist())]
        nodes["translation"] = [Value("extrinsic_parameters", rows[0, 3:].tolist())]
    return []


def _fisheye(document: Mapping[str, Any], label: str, faults: list[str]) -> bool:
    """Whether the file's lenses are fisheyes: a flag with that name, or the name of a model."""
    found = False
    for key, value in document.items():
        if isinstance(value, (Mapping, list)) or not _is_lens(key):
            continue
        if "fisheye" in key.lower():
            found |= str(value).strip().lower() not in ("0", "false", "", "none")
            continue
        try:
            found |= is_fisheye(str(value), f"{label}: {key}")
        except UnreadableError as error:
            faults.append(str(error))
    return found


def _is_lens(key: Any) -> bool:
    return "fisheye" in str(key).lower() or str(key).lower().endswith("model")


def _is_one_number(node: Any) -> bool:
    try:
        return isinstance(node, (str, int, float)) and array_of(str(node)).size == 1
    except ValueError:
        return False


def _role_of(key: str) -> tuple[str | None, str]:
    """Role and camera's name of a FileStorage key: K_cam1, M1, camera_matrix, image_width, ..."""
    whole = key.lower().replace("_", "")
    if whole in _ROLES:
        return _ROLES[whole], ""
    # The longest spelling first, so that camera_matrix_left is the matrix of the left camera.
    for match in (re.fullmatch(r"(.*[A-Za-z])(\d+)", key), *_splits(key)):
        if match and (role := _ROLES.get(match[1].lower().replace("_", ""))) is not None:
            return role, match[2]
    return None, ""


def _splits(key: str) -> list[re.Match[str] | None]:
    """A key cut at each of its underscores, the last first."""
    return [re.fullmatch(f"(.{{{cut}}})_(.+)", key) for cut in range(len(key) - 2, 0, -1) if key[cut] == "_"]


def _stem(label: str) -> str:
    """A camera's name from that of its file: intr_CVLab1.xml and extr_CVLab1.xml are both CVLab1."""
    stem = Path(label).stem
    kind = r"(intri?|intrinsics?|extri?|extrinsics?|calib|calibration|camera_params)"
    bare = re.sub(rf"^{kind}[_-]|[_-]{kind}$|^{kind}$", "", stem, flags=re.IGNORECASE)
    return bare or Path(label).parent.name or stem
