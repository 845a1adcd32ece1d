"""Cameras from calibration files as other programs write them, recognised by their content, never by their names.

- The contract's TOML, as Anipose, aniposelib and Pose2Sim write it: rotation vector, world to camera, metres.
- caliscope's TOML (`[cameras.1]`): the same; the table's name is the camera's.
- OpenCV's FileStorage as YAML, XML or JSON: `rvec` or `R`, `tvec` or `T`, world to camera, metres; one file for all
  cameras (`K_name` or `M1`) or one for each.
- EasyMocap's `intri.yml` and `extri.yml`: `R_name` is the vector, `Rot_name` the matrix; metres; joined by name.
- Wildtrack's `intr_*.xml` and `extr_*.xml`: `rvec` and `tvec` as plain text in centimetres, which become metres; its
  images are 1920 x 1080.
- CMU Panoptic's JSON: `R` and `t` in centimetres, which become metres; its y points down and becomes our z up.

All of them use OpenCV's camera: x right, y down, z forward, x_cam = R @ x_world + t, pixel (0, 0) at the centre of the
top-left pixel, distortion k1, k2, p1, p2, k3. A file does not state its unit of length or which way is up. So pass
`unit` for a calibration in millimetres, and turn a world whose z is not up before; what is certainly wrong is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from fusion.errors import ConfigError
from fusion.files.atomic import replace_file
from fusion.files.camera_formats import Part, Unit, UnreadableError, Value, array_of, read_parts
from fusion.store.folder import cameras_toml
from fusion.store.models import Camera
from fusion.store.rotations import rotation_matrix, rotation_vector
from fusion.store.values import validation_faults

_METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}

# A calibration of five hundred cameras (Panoptic) has half a megabyte; a much larger file is something else.
_FILE_BYTES_MAX = 16 << 20
_FILES_MAX = 4096
_SUFFIXES = (".toml", ".yml", ".yaml", ".xml", ".json")

# No camera of a store hangs fifty metres above its floor or two hundred metres from another: such figures are
# millimetres or centimetres. Read the other way round, all of Wildtrack's cameras would stand within half a metre.
_HEIGHT_MAX_M, _SPREAD_MAX_M, _SPREAD_MIN_M = 50.0, 200.0, 0.5

# Wildtrack's XML files do not give the size of its images (Chavdarova et al., CVPR 2018).
_WILDTRACK_SIZE = (1920, 1080)

_ASK_FOR = {
    "matrix": "a camera matrix (camera_matrix, K or M)",
    "distortions": "distortion coefficients (distortion_coefficients, dist or D; zeros for undistorted pictures)",
    "rotation": "a rotation from world to camera (rvec, R or Rot)",
    "translation": "a translation from world to camera (tvec or T)",
    "size": "the pictures' size (image_width and image_height), or load_calibration(..., size=(width, height))",
}

# Names of OpenCV's distortion coefficients after the first five.
_MORE_COEFFICIENTS = ("k4", "k5", "k6", "s1", "s2", "s3", "s4", "tau_x", "tau_y")


@dataclass(frozen=True)
class _Options:
    """What the caller knows that the files do not say."""

    size: tuple[int, int] | None
    unit: Unit | None


@dataclass(frozen=True)
class _Found:
    """A value of a camera, and the part of the calibration that it came from."""

    part: Part
    value: Value


def load_calibration(
    path: str | Path | Sequence[str | Path],
    *,
    size: tuple[int, int] | None = None,
    unit: Unit | None = None,
) -> tuple[Camera, ...]:
    """Read cameras from any of the formats in the module's list.

    Args:
        path: a file, a folder (searched two levels deep), or several of them that belong together, such as a file with
            intrinsics and one with poses. Parts of one camera are joined by its name: that in the file, else the
            file's own name without `intr_` or `extr_`.
        size: width and height of the images in pixels, for formats that do not give it.
        unit: the unit of the file's lengths, where it is not the usual one of its format.

    Returns:
        Cameras in the order of their names: metres, world to camera.

    Raises:
        ConfigError: every fault found, each with file, camera and key. Among them: fisheye lenses, distortion
            coefficients beyond k3 that are not zero, a reflection in place of a rotation, two calibrations of one
            camera that differ, lengths that cannot be metres.
    """
    sources = [path] if isinstance(path, (str, Path)) else list(path)
    label = " + ".join(str(source) for source in sources)
    options = _Options(size, unit)
    faults: list[str] = []
    parts = [part for source in sources for part in _parts_of_source(Path(source), faults)]
    by_camera = _joined(parts, faults)
    cameras = [_camera(name, by_camera[name], options, faults) for name in sorted(by_camera)]
    if not parts and not faults:
        faults.append(f"{label}: want at least one camera, got none")
    whole = [camera for camera in cameras if camera is not None]
    if not faults:
        in_centimetres = unit is None and any(part.unit == "cm" for part in parts)
        faults += _length_faults(whole, in_centimetres, label)
    if faults:
        raise ConfigError(faults)
    return tuple(whole)


def save_calibration(path: str | Path, cameras: Iterable[Camera]) -> None:
    """Write cameras as the contract's cameras.toml, in the order of their names."""
    replace_file(path, cameras_toml(cameras))


# ---- files to parts --------------------------------------------------------------------------------------------------


def _parts_of_source(source: Path, faults: list[str]) -> Iterator[Part]:
    """Parts of a file or of all files of a folder."""
    if not source.is_dir():
        n_faults = len(faults)
        parts = _parts_of_file(source, source.name, faults)
        if not parts and len(faults) == n_faults:
            faults.append(f"{source.name}: want a camera's calibration, got nothing of the kind")
        yield from parts
        return
    found = [p for pattern in ("*", "*/*", "*/*/*") for p in source.glob(pattern) if p.suffix in _SUFFIXES]
    if not found:
        faults.append(f"{source}: want a folder with {', '.join(_SUFFIXES)} files, got none")
    if len(found) > _FILES_MAX:
        faults.append(f"{source}: want a calibration's folder, got one with {len(found)} files")
        return
    for file in sorted(found):
        yield from _parts_of_file(file, str(file.relative_to(source.parent)), faults)


def _parts_of_file(file: Path, label: str, faults: list[str]) -> list[Part]:
    try:
        with open(file, "rb") as opened:
            data = opened.read(_FILE_BYTES_MAX + 1)
        if len(data) > _FILE_BYTES_MAX:
            raise UnreadableError(f"want a calibration, got more than {_FILE_BYTES_MAX >> 20} MiB")
        return read_parts(data.decode("utf-8-sig"), label, faults)
    except FileNotFoundError:
        faults.append(f"{label}: the file does not exist")
    except OSError as error:
        faults.append(f"{label}: the file cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        faults.append(f"{label}: want UTF-8, got byte {error.object[error.start]:#04x} at offset {error.start}")
    except UnreadableError as error:
        faults.append(f"{label}: {error}")
    return []


# ---- parts to cameras ------------------------------------------------------------------------------------------------


def _joined(parts: Iterable[Part], faults: list[str]) -> dict[str, dict[str, _Found]]:
    """Values by camera and role; a value that two files give must be the same in both."""
    by_camera: dict[str, dict[str, _Found]] = {}
    for part in parts:
        known = by_camera.setdefault(part.camera, {})
        for role, value in part.values.items():
            if role in known and known[role].value.node != value.node:
                files = f"{known[role].part.file} and in {part.file}"
                faults.append(f"camera {part.camera!r}: {value.key}: want it once, got it in {files}")
            known.setdefault(role, _Found(part, value))
    return by_camera


def _camera(name: str, found: dict[str, _Found], options: _Options, faults: list[str]) -> Camera | None:
    n_faults = len(faults)
    files = " + ".join(dict.fromkeys(at.part.file for at in found.values()))
    where = f"{files}: camera {name!r}"
    raw: dict[str, Any] = {"name": name}
    for role in ("matrix", "distortions", "rotation", "translation"):
        if role not in found:
            faults.append(f"{where}: want {_ASK_FOR[role]}, got none")
            continue
        part, value = found[role].part, found[role].value
        try:
            raw[role] = _converted(role, array_of(value.node), part, options)
        except (ValueError, TypeError, OverflowError) as error:
            message = str(error) if str(error).startswith("want") else f"want numbers, got {str(value.node)[:60]!r}"
            faults.append(f"{part.file}: camera {name!r}: {value.key}: {message}")
    try:
        raw["size"] = _size(found, raw.get("matrix"), options)
    except ValueError as error:
        place = f"{found['size'].part.file}: {found['size'].value.key}" if "size" in found else where
        faults.append(f"{place}: {error}")
    if len(faults) > n_faults:
        return None
    try:
        return Camera.model_validate(raw)
    except ValidationError as error:
        faults.extend(validation_faults(error, f"{where}: "))
        return None


def _size(found: dict[str, _Found], matrix: list[list[float]] | None, options: _Options) -> tuple[int, int]:
    """Width and height of the images; ValueError where they are not known."""
    if "size" in found:
        node = found["size"].value.node
        try:
            width, height = (float(v) for v in array_of(node).ravel())
            if (width, height) == (int(width), int(height)) and min(width, height) >= 1:
                return int(width), int(height)
        except (ValueError, TypeError, OverflowError):
            pass
        raise ValueError(f"want width and height in pixels, got {str(node)[:60]!r}")
    if options.size is not None:
        return options.size
    if matrix is not None and "rotation" in found and found["rotation"].part.wildtrack:
        # The principal point of an undistorted image is near its middle, which shows where the images are others.
        off = [abs(matrix[axis][2] / _WILDTRACK_SIZE[axis] - 0.5) for axis in (0, 1)]
        if max(off) < 0.1:
            return _WILDTRACK_SIZE
        raise ValueError(f"want {_ASK_FOR['size']}, got a centre that is not of Wildtrack's 1920 x 1080")
    raise ValueError(f"want {_ASK_FOR['size']}, got none")


def _converted(role: str, value: NDArray[np.float64], part: Part, options: _Options) -> Any:
    """A value in the contract's form: metres, world to camera, rotation vector. ValueError where that cannot be."""
    match role:
        case "matrix":
            return _matrix(value)
        case "distortions":
            return _distortions(value)
        case "rotation":
            return _rotation(value, part.upright_from_world)
        case _:
            if value.size != 3:
                raise ValueError(f"want 3 numbers, got {value.size}")
            return (value.ravel() * _METRES[options.unit or part.unit]).tolist()


def _matrix(value: NDArray[np.float64]) -> Any:
    if value.size != 9:
        raise ValueError(f"want a 3 x 3 matrix, got {value.size} numbers")
    return value.reshape(3, 3).tolist()


def _distortions(value: NDArray[np.float64]) -> list[float]:
    flat: list[float] = value.ravel().tolist()
    if len(flat) not in (4, 5, 8, 12, 14):
        raise ValueError(f"want 5 coefficients k1, k2, p1, p2, k3 (or 4 without k3), got {len(flat)}")
    for name, coefficient in zip(_MORE_COEFFICIENTS, flat[5:]):
        if coefficient != 0.0:
            raise ValueError(f"want k1, k2, p1, p2, k3 alone, got {name} = {coefficient:g}")
    return [*flat, 0.0][:5]


def _rotation(value: NDArray[np.float64], upright_from_world: NDArray[np.float64] | None) -> Any:
    if value.size == 3:
        vector = value.ravel()
        if upright_from_world is None:
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
    if upright_from_world is not None:
        matrix = matrix @ upright_from_world
    return rotation_vector(matrix).tolist()


def _length_faults(cameras: Sequence[Camera], in_centimetres: bool, label: str) -> list[str]:
    """Camera centres that cannot be metres, or that cannot be the centimetres of their format."""
    faults = []
    centres_m = np.array([-rotation_matrix(np.array(c.rotation)).T @ c.translation for c in cameras])
    spread_m = float(np.ptp(centres_m, axis=0).max())
    height_m = float(np.abs(centres_m[:, 2]).max())
    if height_m > _HEIGHT_MAX_M or spread_m > _SPREAD_MAX_M:
        got = f"a camera {height_m:.0f} m high" if height_m > _HEIGHT_MAX_M else f"cameras {spread_m:.0f} m apart"
        faults.append(f"{label}: translation: want metres, got {got} (unit='mm' or unit='cm'?)")
    reach_m = float(np.linalg.norm(centres_m, axis=1).max())
    if in_centimetres and reach_m < _SPREAD_MIN_M:
        got = f"cameras within {reach_m:.2f} m of the origin (unit='m'?)"
        faults.append(f"{label}: translation: want centimetres, got {got}")
    return faults
