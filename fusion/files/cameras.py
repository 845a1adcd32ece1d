"""Cameras from the calibration files that people already have, told apart by what is in them, never by their names.

- The contract's TOML, as Anipose, aniposelib and Pose2Sim write it: rotation vector, world to camera, metres.
- caliscope's TOML (`[cameras.1]`): the same; the table's name is the camera's.
- OpenCV's FileStorage as YAML, XML or JSON: `rvec` or `R`, `tvec` or `T`, world to camera, metres; one file for all
  cameras (`K_name` or `M1`) or one for each.
- EasyMocap's `intri.yml` and `extri.yml`: `R_name` is the vector, `Rot_name` the matrix; metres; joined by name.
- Wildtrack's `intr_*.xml` and `extr_*.xml`: `rvec` and `tvec` as plain text in centimetres, which become metres; the
  pictures are 1920 x 1080.
- CMU Panoptic's JSON: `R` and `t` in centimetres, which become metres; its y points down and becomes our z up.

All of them mean OpenCV's camera: x right, y down, z forward, x_cam = R @ x_world + t, pixel (0, 0) at the centre of the
top-left pixel, distortion k1, k2, p1, p2, k3. A file cannot say what its lengths are measured in or whether its world
stands upright, so a world where z is not up, or a calibration in millimetres, has to be told (`unit`) or turned
before; what is certainly wrong is refused.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from pydantic import ValidationError

from fusion.errors import ConfigError
from fusion.files.atomic import replace_file
from fusion.store.folder import cameras_toml
from fusion.store.models import Camera
from fusion.store.rotations import rotation_matrix, rotation_vector
from fusion.store.values import validation_faults

Unit = Literal["m", "cm", "mm"]
_METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}

# A calibration of five hundred cameras (Panoptic) has half a megabyte. What is much larger is something else.
_FILE_BYTES_MAX = 16 << 20
_FILES_MAX = 4096
_SUFFIXES = (".toml", ".yml", ".yaml", ".xml", ".json")

# No camera of a store hangs fifty metres above its floor or two hundred metres from another one: such figures are
# millimetres or centimetres. Read the other way round, all of Wildtrack's cameras would stand within half a metre.
_HEIGHT_MAX_M, _SPREAD_MAX_M, _SPREAD_MIN_M = 50.0, 200.0, 0.5

# Wildtrack's pictures, of which its XML files do not tell the size (Chavdarova et al., CVPR 2018).
_WILDTRACK_SIZE = (1920, 1080)

# Panoptic's floor is its x-z plane and y points down: (x, y, z) becomes (x, z, -y), as VoxelPose and others do.
_PANOPTIC_FROM_WORLD = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])

# How the same things are spelled by people who write with OpenCV's FileStorage; compared without case and underscores.
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
_ASK_FOR = {
    "matrix": "a camera matrix (camera_matrix, K or M)",
    "distortions": "distortion coefficients (distortion_coefficients, dist or D; zeros for undistorted pictures)",
    "rotation": "a rotation from world to camera (rvec, R or Rot)",
    "translation": "a translation from world to camera (tvec or T)",
    "size": "the pictures' size (image_width and image_height), or load_calibration(..., size=(width, height))",
}

# Names of OpenCV's distortion coefficients after the first five.
_MORE_COEFFICIENTS = ("k4", "k5", "k6", "s1", "s2", "s3", "s4", "tau_x", "tau_y")
_FISHEYE = re.compile(r"fisheye|equidistant|kannala|omni|ftheta", re.IGNORECASE)
_TOML_KEYS = {"name", "size", "matrix", "distortions", "rotation", "translation"}
# What Anipose, caliscope and Pose2Sim write beside them, of no meaning for where a camera looks.
_TOML_IGNORED = {"port", "cam_id", "rotation_count", "error", "exposure", "grid_count", "ignore", "fps"}


def load_calibration(
    path: str | Path | Sequence[str | Path],
    *,
    size: tuple[int, int] | None = None,
    unit: Unit | None = None,
) -> tuple[Camera, ...]:
    """Read cameras from any of the formats in the module's table.

    Args:
        path: a file, a folder (searched two levels deep), or several of them that belong together, such as a file with
            intrinsics and one with poses. Parts of one camera are joined by its name: that in the file, else the
            file's own name without `intr_` or `extr_`.
        size: width and height of the pictures in pixels, for formats that do not tell.
        unit: what the file's lengths are measured in, where it is not what its format usually means.

    Returns:
        Cameras in the order of their names: metres, world to camera.

    Raises:
        ConfigError: every fault found, each with file, camera and key. Among them: fisheye lenses, distortion
            coefficients beyond k3 that are not zero, a reflection in place of a rotation, two calibrations of one
            camera that differ, lengths that cannot be metres.
    """
    sources = [path] if isinstance(path, (str, Path)) else list(path)
    reader = _Reader(size, unit)
    for source in sources:
        reader.read(Path(source))
    return reader.cameras(" + ".join(str(source) for source in sources))


def save_calibration(path: str | Path, cameras: Iterable[Camera]) -> None:
    """Write cameras as the contract's cameras.toml, in the order of their names."""
    replace_file(path, cameras_toml(cameras))


# ---- files to documents ----------------------------------------------------------------------------------------------


class _Unreadable(ValueError):
    """A file that is not what it looks like; the message says what was wanted and what came."""


def _parse_yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise _Unreadable("want PyYAML to read YAML, got none: pip install 'storefusion[formats]'") from None

    # Everything is read as text: the numbers are ours to convert, and no tag can make an object.
    class Loader(yaml.BaseLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            # An alias is the way to write a gigabyte in a hundred bytes; calibrations have none.
            if self.check_event(yaml.AliasEvent):
                raise _Unreadable(f"want YAML without aliases, got one in line {self.peek_event().start_mark.line + 1}")
            return super().compose_node(parent, index)

    # OpenCV's first line, %YAML:1.0, is no YAML.
    text = re.sub(r"\A\s*%YAML[^\n]*\n", "", text)
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise _Unreadable(f"want YAML, got: {' '.join(str(error).split())[:200]}") from None


def _parse_xml(text: str) -> Any:
    # Entities are declared in a DTD, so without one nothing can expand or be fetched.
    if re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise _Unreadable("want XML without a DTD, got one")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise _Unreadable(f"want XML, got: {error}") from None
    if root.tag != "opencv_storage":
        raise _Unreadable(f"want <opencv_storage>, got <{root.tag[:60]}>")
    return {child.tag: _xml_node(child) for child in root}


def _xml_node(element: ElementTree.Element) -> Any:
    if not len(element):
        return (element.text or "").strip().strip('"')
    if all(child.tag == "_" for child in element):
        return [_xml_node(child) for child in element]
    return {child.tag: (child.text or "").strip() for child in element}


def _parse(text: str) -> tuple[str, Any]:
    """What kind of document a text is, and the document."""
    head = text.lstrip()
    if not head:
        raise _Unreadable("want a calibration, got an empty file")
    if head.startswith("<"):
        return "opencv", _parse_xml(text)
    if head.startswith("{"):
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _Unreadable(f"want JSON, got: {error}") from None
        return ("panoptic" if isinstance(document.get("cameras"), list) else "opencv"), document
    # A TOML key has an equals sign; a YAML file has a colon in its first line that says anything.
    first = next((line for line in head.splitlines() if line.strip() and not line.lstrip().startswith("#")), "")
    if first.startswith(("%YAML", "---")) or re.match(r"[\w.\"' -]+:(\s|$)", first):
        return "opencv", _parse_yaml(text)
    try:
        return "toml", tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _Unreadable(f"want TOML, YAML, XML or JSON, got: {error}") from None


def _array(node: Any) -> np.ndarray:
    """A matrix or vector as any of the formats write one. ValueError where it is none."""
    if isinstance(node, Mapping):
        if "data" not in node:
            raise ValueError("want a matrix")
        values = _array(node["data"])
        rows, columns = int(node.get("rows", values.size)), int(node.get("cols", 1))
        if min(rows, columns) < 0 or rows * columns != values.size:
            raise ValueError(f"want {rows} x {columns} numbers, got {values.size}")
        return values.reshape(rows, columns)
    array = np.array(node.split() if isinstance(node, str) else node, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError("want finite numbers")
    return array


# ---- documents to cameras --------------------------------------------------------------------------------------------


@dataclass
class _Part:
    """What one file says of one camera: raw values by role, each with the key it stood under."""

    camera: str
    file: str
    unit: Unit = "m"
    values: dict[str, tuple[str, Any]] = field(default_factory=dict)
    upright_from_world: np.ndarray | None = None
    wildtrack: bool = False


class _Reader:
    def __init__(self, size: tuple[int, int] | None, unit: Unit | None) -> None:
        self.size = size
        self.unit = unit
        self.faults: list[str] = []
        self.parts: list[_Part] = []

    def read(self, source: Path) -> None:
        if not source.is_dir():
            n_parts, n_faults = len(self.parts), len(self.faults)
            self._file(source, source.name)
            if (n_parts, n_faults) == (len(self.parts), len(self.faults)):
                self.faults.append(f"{source.name}: want a camera's calibration, got nothing of the kind")
            return
        found = [p for pattern in ("*", "*/*", "*/*/*") for p in source.glob(pattern) if p.suffix in _SUFFIXES]
        if len(found) > _FILES_MAX:
            self.faults.append(f"{source}: want a calibration's folder, got one with {len(found)} files")
            return
        for file in sorted(found):
            self._file(file, str(file.relative_to(source.parent)))
        if not found:
            self.faults.append(f"{source}: want a folder with {', '.join(_SUFFIXES)} files, got none")

    def _file(self, file: Path, label: str) -> None:
        try:
            with open(file, "rb") as opened:
                data = opened.read(_FILE_BYTES_MAX + 1)
            if len(data) > _FILE_BYTES_MAX:
                raise _Unreadable(f"want a calibration, got more than {_FILE_BYTES_MAX >> 20} MiB")
            kind, document = _parse(data.decode("utf-8-sig"))
            if not isinstance(document, dict):
                raise _Unreadable(f"want keys and values, got {type(document).__name__}")
        except OSError as error:
            self.faults.append(f"{label}: want a readable file, got {error.strerror}")
        except UnicodeDecodeError as error:
            got = f"byte {error.object[error.start]:#04x} at offset {error.start}"
            self.faults.append(f"{label}: want UTF-8, got {got}")
        except _Unreadable as error:
            self.faults.append(f"{label}: {error}")
        else:
            getattr(self, f"_{kind}")(document, label)

    # -- TOML

    def _toml(self, document: dict[str, Any], label: str) -> None:
        if isinstance(document.get("cameras"), dict):
            tables, prefix = document["cameras"], "cameras."
        else:
            tables, prefix = {k: v for k, v in document.items() if k != "metadata"}, ""
        for key, table in tables.items():
            # A folder may hold other TOML files; a table that has nothing of a camera is not ours to judge.
            if not isinstance(table, dict) or not _TOML_KEYS & set(table) - {"name", "size"}:
                continue
            if table.get("ignore") is True:
                continue
            where = f"{label}: [{prefix}{key}]"
            self._refuse_fisheye(where, table)
            unknown = set(table) - _TOML_KEYS - _TOML_IGNORED - {"fisheye"}
            self.faults += [f"{where} {name}: unknown key" for name in sorted(unknown)]
            values = {role: (role, table[role]) for role in _TOML_KEYS - {"name"} if table.get(role, "null") != "null"}
            self.parts.append(_Part(str(table.get("name", key)), label, values=values))

    # -- OpenCV's FileStorage, EasyMocap and Wildtrack

    def _opencv(self, document: dict[str, Any], label: str) -> None:
        names = document.get("names")
        wanted = {str(name) for name in names} if isinstance(names, list) else None
        groups: dict[str, dict[str, list[tuple[str, Any]]]] = {}
        for key, node in document.items():
            role, name = _role_of(str(key))
            if role is not None and (wanted is None or name in wanted):
                groups.setdefault(name, {}).setdefault(role, []).append((str(key), node))
        pose, lens = groups.get("", {}), {name for name, roles in groups.items() if "matrix" in roles}
        if self._refuse_stereo(document, label, groups):
            return
        self._refuse_fisheye(label, document)
        self._board_pose(document, label, pose)
        for name, roles in groups.items():
            # A stray key such as T_error makes no camera: that takes a lens or a whole pose.
            if name not in lens and not {"rotation", "translation"} <= set(roles):
                continue
            own = document.get("camera_name", document.get("name"))
            camera = name or (own if isinstance(own, str) and own else _stem(label))
            part = _Part(camera, label)
            # Wildtrack writes its vectors as plain text, and in centimetres; a matrix node is in metres, as in
            # MultiviewX, which has the same files.
            pose_nodes = [node for role in ("rotation", "translation") for _, node in roles.get(role, [])]
            part.wildtrack = len(pose_nodes) == 2 and all(isinstance(node, str) for node in pose_nodes)
            part.unit = "cm" if part.wildtrack else "m"
            for role, nodes in roles.items():
                part.values[role] = self._agreed(f"{label}: camera {camera!r}", role, nodes)
            if {"width", "height"} <= set(part.values):
                (width_key, width), (height_key, height) = part.values.pop("width"), part.values.pop("height")
                part.values.setdefault("size", (f"{width_key}, {height_key}", [width, height]))
            self.parts.append(part)

    def _agreed(self, where: str, role: str, nodes: list[tuple[str, Any]]) -> tuple[str, Any]:
        """The first of several spellings of one thing, which have to mean the same."""
        for key, node in nodes[1:]:
            try:
                first, other = _array(nodes[0][1]), _array(node)
                if role == "rotation":
                    first, other = (rotation_matrix(a.ravel()) if a.size == 3 else a for a in (first, other))
                # EasyMocap writes six decimals.
                if first.shape == other.shape and np.abs(first - other).max() < 1e-4:
                    continue
            except (ValueError, TypeError, OverflowError):
                pass
            self.faults.append(f"{where}: {nodes[0][0]} and {key}: want one {role}, got two that differ")
        return nodes[0]

    def _refuse_stereo(self, document: dict[str, Any], label: str, groups: dict[str, Any]) -> bool:
        """Stereo calibrations tell where the second camera is from the first, and nothing of a floor."""
        numbered = any("matrix" in roles and name for name, roles in groups.items())
        pose, has_lens = set(groups.get("", {})) & {"rotation", "translation"}, "matrix" in groups.get("", {})
        if {"P1", "Q"} & set(document) or (numbered and pose and not has_lens):
            self.faults.append(
                f"{label}: R, T: want each camera's pose in the world, got a stereo pair's (from camera 1 to camera 2)"
            )
            return True
        return False

    def _board_pose(self, document: dict[str, Any], label: str, roles: dict[str, list[tuple[str, Any]]]) -> None:
        """OpenCV's calibration sample keeps a row (rvec, tvec) for every picture of its board."""
        if "extrinsic_parameters" not in document or "rotation" in roles:
            return
        try:
            rows = _array(document["extrinsic_parameters"]).reshape(-1, 6)
        except (ValueError, TypeError, OverflowError):
            return
        if len(rows) != 1:
            self.faults.append(f"{label}: extrinsic_parameters: want one pose, got {len(rows)}, one for each picture")
        elif "matrix" in roles:
            roles["rotation"] = [("extrinsic_parameters", rows[0, :3].tolist())]
            roles["translation"] = [("extrinsic_parameters", rows[0, 3:].tolist())]

    def _refuse_fisheye(self, where: str, document: Mapping[str, Any]) -> None:
        for key, value in document.items():
            if _FISHEYE.search(str(key)) and not isinstance(value, (Mapping, list)):
                if str(value).strip().lower() not in ("0", "false", "", "none"):
                    self.faults.append(f"{where}: {key}: want a pinhole lens with k1, k2, p1, p2, k3, got fisheye")
            elif str(key).lower().endswith("model") and isinstance(value, str) and _FISHEYE.search(value):
                self.faults.append(f"{where}: {key}: want a pinhole lens with k1, k2, p1, p2, k3, got {value!r}")

    # -- CMU Panoptic

    def _panoptic(self, document: dict[str, Any], label: str) -> None:
        keys = {"size": "resolution", "matrix": "K", "distortions": "distCoef", "rotation": "R", "translation": "t"}
        for row, table in enumerate(document["cameras"]):
            if not isinstance(table, dict) or not isinstance(table.get("name"), str):
                self.faults.append(f"{label}: cameras[{row}]: want a camera with a name, got {str(table)[:60]!r}")
                continue
            values = {role: (key, table[key]) for role, key in keys.items() if key in table}
            self.parts.append(_Part(table["name"], label, "cm", values, _PANOPTIC_FROM_WORLD))

    # -- parts to cameras

    def cameras(self, label: str) -> tuple[Camera, ...]:
        merged: dict[str, dict[str, tuple[_Part, str, Any]]] = {}
        for part in self.parts:
            known = merged.setdefault(part.camera, {})
            for role, (key, value) in part.values.items():
                if role in known and known[role][2] != value:
                    files = f"{known[role][0].file} and in {part.file}"
                    self.faults.append(f"camera {part.camera!r}: {key}: want it once, got it in {files}")
                known.setdefault(role, (part, key, value))
        built = [camera for name in sorted(merged) if (camera := self._camera(name, merged[name])) is not None]
        if not self.parts and not self.faults:
            self.faults.append(f"{label}: want at least one camera, got none")
        if not self.faults:
            self._check_lengths(built, label)
        if self.faults:
            raise ConfigError(self.faults)
        return tuple(built)

    def _camera(self, name: str, found: dict[str, tuple[_Part, str, Any]]) -> Camera | None:
        n_faults = len(self.faults)
        files = " + ".join(dict.fromkeys(part.file for part, _, _ in found.values()))
        where = f"{files}: camera {name!r}"
        raw: dict[str, Any] = {"name": name}
        for role in ("matrix", "distortions", "rotation", "translation"):
            if role not in found:
                self.faults.append(f"{where}: want {_ASK_FOR[role]}, got none")
                continue
            part, key, value = found[role]
            try:
                raw[role] = getattr(self, f"_read_{role}")(part, _array(value))
            except (ValueError, TypeError, OverflowError) as error:
                said = str(error) if str(error).startswith("want") else f"want numbers, got {str(value)[:60]!r}"
                self.faults.append(f"{part.file}: camera {name!r}: {key}: {said}")
        self._size(where, raw, found)
        if len(self.faults) > n_faults:
            return None
        try:
            return Camera.model_validate(raw)
        except ValidationError as error:
            self.faults.extend(validation_faults(error, f"{where}: "))
            return None

    def _size(self, where: str, raw: dict[str, Any], found: dict[str, tuple[_Part, str, Any]]) -> None:
        if "size" in found:
            part, key, value = found["size"]
            try:
                width, height = (float(v) for v in _array(value).ravel())
                raw["size"] = (int(width), int(height))
                if (width, height) != raw["size"] or min(raw["size"]) < 1:
                    raise ValueError
            except (ValueError, TypeError, OverflowError):
                self.faults.append(f"{part.file}: {key}: want width and height in pixels, got {str(value)[:60]!r}")
        elif self.size is not None:
            raw["size"] = self.size
        elif "rotation" in found and found["rotation"][0].wildtrack and "matrix" in raw:
            # The principal point of an undistorted picture is near its middle, so other pictures show.
            off = [abs(raw["matrix"][axis][2] / _WILDTRACK_SIZE[axis] - 0.5) for axis in (0, 1)]
            if max(off) < 0.1:
                raw["size"] = _WILDTRACK_SIZE
                return
            self.faults.append(f"{where}: want {_ASK_FOR['size']}, got a centre that is not of Wildtrack's 1920 x 1080")
        else:
            self.faults.append(f"{where}: want {_ASK_FOR['size']}, got none")

    def _read_matrix(self, part: _Part, value: np.ndarray) -> list[list[float]]:
        if value.size != 9:
            raise ValueError(f"want a 3 x 3 matrix, got {value.size} numbers")
        return value.reshape(3, 3).tolist()

    def _read_distortions(self, part: _Part, value: np.ndarray) -> list[float]:
        flat = value.ravel().tolist()
        if len(flat) not in (4, 5, 8, 12, 14):
            raise ValueError(f"want 5 coefficients k1, k2, p1, p2, k3 (or 4 without k3), got {len(flat)}")
        for name, coefficient in zip(_MORE_COEFFICIENTS, flat[5:]):
            if coefficient != 0.0:
                raise ValueError(f"want k1, k2, p1, p2, k3 alone, got {name} = {coefficient:g}")
        return [*flat, 0.0][:5]

    def _read_rotation(self, part: _Part, value: np.ndarray) -> list[float]:
        if value.size == 3:
            vector = value.ravel()
            if part.upright_from_world is None:
                return vector.tolist()
            matrix = rotation_matrix(vector)
        elif value.size == 9:
            matrix = value.reshape(3, 3)
        else:
            raise ValueError(f"want a rotation vector or a 3 x 3 matrix, got {value.size} numbers")
        off = float(np.abs(matrix @ matrix.T - np.eye(3)).max())
        if off > 1e-3:
            raise ValueError(f"want a rotation, got a matrix whose rows are {off:.2g} from orthonormal")
        if np.linalg.det(matrix) < 0.0:
            raise ValueError("want a rotation, got a reflection (determinant -1)")
        if part.upright_from_world is not None:
            matrix = matrix @ part.upright_from_world
        return rotation_vector(matrix).tolist()

    def _read_translation(self, part: _Part, value: np.ndarray) -> list[float]:
        if value.size != 3:
            raise ValueError(f"want 3 numbers, got {value.size}")
        return (value.ravel() * _METRES[self.unit or part.unit]).tolist()

    def _check_lengths(self, cameras: list[Camera], label: str) -> None:
        centres = np.array([-rotation_matrix(np.array(c.rotation)).T @ c.translation for c in cameras])
        spread = float(np.ptp(centres, axis=0).max())
        height = float(np.abs(centres[:, 2]).max())
        if height > _HEIGHT_MAX_M or spread > _SPREAD_MAX_M:
            got = f"a camera {height:.0f} m high" if height > _HEIGHT_MAX_M else f"cameras {spread:.0f} m apart"
            self.faults.append(f"{label}: translation: want metres, got {got} (unit='mm' or unit='cm'?)")
        reach = float(np.linalg.norm(centres, axis=1).max())
        if self.unit is None and any(part.unit == "cm" for part in self.parts) and reach < _SPREAD_MIN_M:
            self.faults.append(
                f"{label}: translation: want centimetres, got cameras within {reach:.2f} m of the origin (unit='m'?)"
            )


def _role_of(key: str) -> tuple[str | None, str]:
    """What a key of a FileStorage means and of which camera: K_cam1, M1, camera_matrix, image_width, ..."""
    whole = key.lower().replace("_", "")
    if whole in _ROLES:
        return _ROLES[whole], ""
    # The longest spelling first, so that camera_matrix_left is the matrix of the left camera.
    for match in (re.fullmatch(r"(.*[A-Za-z])(\d+)", key), *_splits(key)):
        if match and (role := _ROLES.get(match[1].lower().replace("_", ""))) is not None:
            return role, match[2]
    return None, ""


def _splits(key: str) -> list[re.Match[str] | None]:
    return [re.fullmatch(f"(.{{{cut}}})_(.+)", key) for cut in range(len(key) - 2, 0, -1) if key[cut] == "_"]


def _stem(label: str) -> str:
    """A camera's name after its file: intr_CVLab1.xml and extr_CVLab1.xml are both CVLab1."""
    stem = Path(label).stem
    kind = r"(intri?|intrinsics?|extri?|extrinsics?|calib|calibration|camera_params)"
    bare = re.sub(rf"^{kind}[_-]|[_-]{kind}$|^{kind}$", "", stem, flags=re.IGNORECASE)
    return bare or Path(label).parent.name or stem
