"""Calibration files as other programs write them: text to a document, a document to raw values per camera and role.

The format follows from the content, never from the file's name. What the values mean is the business of
`fusion.files.cameras`; here nothing is converted.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from fusion.store.rotations import rotation_matrix

Unit = Literal["m", "cm", "mm"]

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
_FISHEYE = re.compile(r"fisheye|equidistant|kannala|omni|ftheta", re.IGNORECASE)
_TOML_KEYS = {"name", "size", "matrix", "distortions", "rotation", "translation"}
# Further keys of Anipose, caliscope and Pose2Sim; they do not change how a camera projects.
_TOML_IGNORED = {"port", "cam_id", "rotation_count", "error", "exposure", "grid_count", "ignore", "fps"}
_PANOPTIC_KEYS = {
    "size": "resolution",
    "matrix": "K",
    "distortions": "distCoef",
    "rotation": "R",
    "translation": "t",
}
# Panoptic's floor is its x-z plane and y points down: (x, y, z) becomes (x, z, -y), as VoxelPose and others do.
_PANOPTIC_FROM_WORLD = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])

# Levels of a YAML document; calibrations have four: cameras, camera, matrix, rows.
_DEPTH_MAX = 16


class Value(NamedTuple):
    """A raw value of a calibration and the key under which it stands in its file."""

    key: str
    node: Any


@dataclass
class Part:
    """The values of one camera in one file.

    Attributes:
        camera: the camera's name. file: the file's label in messages.
        unit: of the translation.
        values: by role: matrix, distortions, rotation, translation, size.
        upright_from_world: (3, 3) rotation from the file's world to one with z up, where the format's z is not up.
        wildtrack: whether the file is in Wildtrack's form, which does not give the size of the images.
    """

    camera: str
    file: str
    unit: Unit = "m"
    values: dict[str, Value] = field(default_factory=dict)
    upright_from_world: NDArray[np.float64] | None = None
    wildtrack: bool = False


class UnreadableError(ValueError):
    """A file that is not in the format that it seems to be in; the message says what was wanted and what came."""


def read_parts(text: str, label: str, faults: list[str]) -> list[Part]:
    """The cameras' values in a calibration file; empty where the file is something else.

    Args:
        text: the file's content.
        label: the file's name in messages.
        faults: takes what is wrong with the values.

    Raises:
        UnreadableError: the text is in none of the formats.
    """
    read, document = _parse(text)
    if not isinstance(document, dict):
        raise UnreadableError(f"want keys and values, got {type(document).__name__}")
    return read(document, label, faults)


def array_of(node: Any) -> NDArray[np.float64]:
    """A matrix or vector in any of the formats' notations; ValueError, TypeError or OverflowError if it is neither."""
    if isinstance(node, Mapping):
        if "data" not in node:
            raise ValueError("want a matrix")
        values = array_of(node["data"])
        rows, columns = int(node.get("rows", values.size)), int(node.get("cols", 1))
        if min(rows, columns) < 0 or rows * columns != values.size:
            raise ValueError(f"want {rows} x {columns} numbers, got {values.size}")
        return values.reshape(rows, columns)
    array = np.array(node.split() if isinstance(node, str) else node, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError("want finite numbers")
    return array


# ---- text to documents -----------------------------------------------------------------------------------------------

_Reader = Callable[[dict[str, Any], str, list[str]], list[Part]]


def _parse(text: str) -> tuple[_Reader, Any]:
    """The document, and the function that reads its kind."""
    head = text.lstrip()
    if not head:
        raise UnreadableError("want a calibration, got an empty file")
    if head.startswith("<"):
        return _opencv_parts, _parse_xml(text)
    if head.startswith("{"):
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UnreadableError(f"want JSON, got: {error}") from None
        return (_panoptic_parts if isinstance(document.get("cameras"), list) else _opencv_parts), document
    # A TOML key is followed by an equals sign; the first line of YAML that is not a comment has a colon.
    first = next((line for line in head.splitlines() if line.strip() and not line.lstrip().startswith("#")), "")
    if first.startswith(("%YAML", "---")) or re.match(r"[\w.\"' -]+:(\s|$)", first):
        return _opencv_parts, _parse_yaml(text)
    try:
        return _toml_parts, tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UnreadableError(f"want TOML, YAML, XML or JSON, got: {error}") from None


def _parse_yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise UnreadableError("want PyYAML to read YAML, got none: pip install 'storefusion[formats]'") from None

    # OpenCV's first line, %YAML:1.0, is not valid YAML.
    text = re.sub(r"\A\s*%YAML[^\n]*\n", "", text)
    try:
        # Aliases can expand a hundred bytes into a gigabyte; the scanner's time grows with the square of the depth.
        depth = 0
        for event in yaml.parse(text, yaml.BaseLoader):
            line = event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent):
                raise UnreadableError(f"want YAML without aliases, got one in line {line}")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEPTH_MAX:
                raise UnreadableError(f"want YAML of at most {_DEPTH_MAX} levels, got more in line {line}")
        # Everything is read as text: we convert the numbers ourselves, and no tag can create an object.
        return yaml.load(text, yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise UnreadableError(f"want YAML, got: {' '.join(str(error).split())[:200]}") from None


def _parse_xml(text: str) -> Any:
    # Entities are declared in a DTD, so without one nothing can expand or be fetched.
    if re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise UnreadableError("want XML without a DTD, got one")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise UnreadableError(f"want XML, got: {error}") from None
    if root.tag != "opencv_storage":
        raise UnreadableError(f"want <opencv_storage>, got <{root.tag[:60]}>")
    return {child.tag: _xml_node(child) for child in root}


def _xml_node(element: ElementTree.Element) -> Any:
    if not len(element):
        return (element.text or "").strip().strip('"')
    if all(child.tag == "_" for child in element):
        return [_xml_node(child) for child in element]
    return {child.tag: (child.text or "").strip() for child in element}


# ---- TOML of Anipose, aniposelib, Pose2Sim and caliscope -------------------------------------------------------------


def _toml_parts(document: dict[str, Any], label: str, faults: list[str]) -> list[Part]:
    if isinstance(document.get("cameras"), dict):
        tables, prefix = document["cameras"], "cameras."
    else:
        tables, prefix = {key: table for key, table in document.items() if key != "metadata"}, ""
    parts = []
    for key, table in tables.items():
        # A folder may hold other TOML files, so a table without any value of a camera is passed over.
        if not isinstance(table, dict) or not _TOML_KEYS & set(table) - {"name", "size"}:
            continue
        if table.get("ignore") is True:
            continue
        where = f"{label}: [{prefix}{key}]"
        faults += _fisheye_faults(table, where)
        unknown = set(table) - _TOML_KEYS - _TOML_IGNORED - {"fisheye"}
        faults += [f"{where} {name}: unknown key" for name in sorted(unknown)]
        roles = [role for role in _TOML_KEYS - {"name"} if table.get(role, "null") != "null"]
        values = {role: Value(role, table[role]) for role in roles}
        parts.append(Part(str(table.get("name", key)), label, values=values))
    return parts


# ---- OpenCV's FileStorage, with EasyMocap and Wildtrack --------------------------------------------------------------

# The nodes of one camera by role; several spellings of one role may be there.
_Nodes = dict[str, list[Value]]


def _opencv_parts(document: dict[str, Any], label: str, faults: list[str]) -> list[Part]:
    cameras = _nodes_by_camera(document)
    if _is_stereo(document, cameras):
        got = "a stereo pair's (from camera 1 to camera 2)"
        faults.append(f"{label}: R, T: want each camera's pose in the world, got {got}")
        return []
    faults += _fisheye_faults(document, label)
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
        part = Part(camera, label, unit="cm" if wildtrack else "m", wildtrack=wildtrack)
        for role, spelled in nodes.items():
            part.values[role] = spelled[0]
            faults += _spelling_faults(role, spelled, f"{label}: camera {camera!r}")
        if {"width", "height"} <= set(part.values):
            width, height = part.values.pop("width"), part.values.pop("height")
            part.values.setdefault("size", Value(f"{width.key}, {height.key}", [width.node, height.node]))
        parts.append(part)
    return parts


def _nodes_by_camera(document: dict[str, Any]) -> dict[str, _Nodes]:
    """Nodes by the camera's name in their keys, "" for keys without one, and by role."""
    names = document.get("names")
    wanted = {str(name) for name in names} if isinstance(names, list) else None
    cameras: dict[str, _Nodes] = {}
    for key, node in document.items():
        role, name = _role_of(str(key))
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


def _fisheye_faults(document: Mapping[str, Any], where: str) -> list[str]:
    faults = []
    for key, value in document.items():
        want = f"{where}: {key}: want a pinhole lens with k1, k2, p1, p2, k3"
        if _FISHEYE.search(str(key)) and not isinstance(value, (Mapping, list)):
            if str(value).strip().lower() not in ("0", "false", "", "none"):
                faults.append(f"{want}, got fisheye")
        elif str(key).lower().endswith("model") and isinstance(value, str) and _FISHEYE.search(value):
            faults.append(f"{want}, got {value!r}")
    return faults


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


# ---- CMU Panoptic ----------------------------------------------------------------------------------------------------


def _panoptic_parts(document: dict[str, Any], label: str, faults: list[str]) -> list[Part]:
    parts = []
    for row, table in enumerate(document["cameras"]):
        if not isinstance(table, dict) or not isinstance(table.get("name"), str):
            faults.append(f"{label}: cameras[{row}]: want a camera with a name, got {str(table)[:60]!r}")
            continue
        values = {role: Value(key, table[key]) for role, key in _PANOPTIC_KEYS.items() if key in table}
        parts.append(Part(table["name"], label, "cm", values, _PANOPTIC_FROM_WORLD))
    return parts
