"""Cameras from calibration files as other programs write them, recognised by their content, never by their names.

docs/formats.md lists the formats; `fusion.files.calibrations` has a module for each family. All of them become OpenCV's
camera: x right, y down, z forward, x_cam = R @ x_world + t, pixel (0, 0) at the centre of the top-left pixel, and a
lens of `fusion.store.lenses`. Most files do not state their unit of length or which way is up. So pass `unit` for a
calibration in millimetres, and turn a world whose z is not up before; what is certainly wrong is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from fusion.errors import ConfigError
from fusion.files.atomic import replace_file
from fusion.files.calibrations import read_parts
from fusion.files.calibrations.parts import Part, Unit, UnreadableError, UnrecognisedError, Value, array_of
from fusion.files.private import read_regular
from fusion.store.folder import cameras_toml
from fusion.store.lenses import DISTORTION_COUNTS, FISHEYE_COUNT
from fusion.store.models import Camera
from fusion.store.rotations import rotation_matrix, rotation_vector
from fusion.store.values import validation_faults

_METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}

# A calibration of five hundred cameras (Panoptic) has half a megabyte; a much larger file is something else.
_FILE_BYTES_MAX = 16 << 20
_FILES_MAX = 4096
_SUFFIXES = (".toml", ".yml", ".yaml", ".xml", ".json", ".txt", ".bin")
# In a folder, files with these endings may be anything, and COLMAP's points may be large: what is no calibration, as
# the content shows, is passed over there.
_VAGUE_SUFFIXES = (".txt", ".bin")

# No camera of a store hangs fifty metres above its floor or two hundred metres from another: such figures are
# millimetres or centimetres. Read the other way round, all of Wildtrack's cameras would stand within half a metre.
_HEIGHT_MAX_M, _SPREAD_MAX_M, _SPREAD_MIN_M = 50.0, 200.0, 0.5

_ASK_FOR = {
    "matrix": "a camera matrix (camera_matrix, K or M)",
    "distortions": "distortion coefficients (distortion_coefficients, dist or D; zeros for undistorted pictures)",
    "rotation": "a rotation from world to camera (rvec, R or Rot)",
    "translation": "a translation from world to camera (tvec or T)",
    "size": "the pictures' size (image_width and image_height), or load_calibration(..., size=(width, height))",
}

_POSE = ("rotation", "translation")


@dataclass(frozen=True)
class _Options:
    """What the caller knows that the files do not say."""

    size: tuple[int, int] | None
    unit: Unit | None
    poses: bool


@dataclass(frozen=True)
class _Found:
    """A value of a camera, and the part of the calibration that it came from."""

    part: Part
    value: Value


@dataclass(frozen=True)
class Calibration:
    """Cameras, and where each of their values came from.

    Attributes:
        cameras: in the order of their names: metres, world to camera.
        formats: the formats that were read, as people call them.
        sources: by camera and role, "key in file".
        notes: what was passed over, assumed or must be known about the file's world.
    """

    cameras: tuple[Camera, ...]
    formats: tuple[str, ...] = ()
    sources: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_calibration(
    path: str | Path | Sequence[str | Path],
    *,
    size: tuple[int, int] | None = None,
    unit: Unit | None = None,
    poses: bool = True,
) -> Calibration:
    """Read cameras from any of the formats, with the sources of their values.

    Args:
        path: a file, a folder (searched two levels deep), or several of them that belong together, such as a file with
            intrinsics and one with poses. Parts of one camera are joined by its name: that in the file, else the
            file's own name without `intr_` or `extr_`.
        size: width and height of the images in pixels, for formats that do not give it.
        unit: the unit of the file's lengths, where it is not the usual one of its format.
        poses: False where intrinsics are enough: all cameras are then at the origin, and poses are not looked at.

    Returns:
        The cameras in the order of their names.

    Raises:
        ConfigError: every fault found, each with file, camera and key. Among them: lenses that the engine cannot
            project, a reflection in place of a rotation, two calibrations of one camera that differ, lengths that
            cannot be metres.
    """
    sources = [path] if isinstance(path, (str, Path)) else list(path)
    label = " + ".join(str(source) for source in sources)
    options = _Options(size, unit, poses)
    faults: list[str] = []
    read = [found for source in sources for found in _parts_of_source(Path(source), faults)]
    parts = [part for _, of_file in read for part in of_file]
    by_camera = _joined(parts, faults, poses)
    cameras = [_camera(name, by_camera[name], options, faults) for name in sorted(by_camera)]
    if not parts and not faults:
        faults.append(f"{label}: want at least one camera, got none")
    whole = [camera for camera in cameras if camera is not None]
    if not faults and poses:
        in_centimetres = unit is None and any(part.unit == "cm" for part in parts)
        faults += _length_faults(whole, in_centimetres, label)
    if faults:
        raise ConfigError(faults)
    origins: dict[str, dict[str, str]] = {}
    for name, found in by_camera.items():
        origins[name] = {role: f"{at.value.key} in {at.part.file}" for role, at in found.items()}
        hint = next((at.part.size_hint for at in found.values() if at.part.size_hint), None)
        if "size" not in found:
            origins[name]["size"] = hint[1] if hint and size is None else "given"
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    formats = tuple(dict.fromkeys(name for name, of_file in read if of_file))
    return Calibration(tuple(whole), formats, origins, notes)


def load_calibration(
    path: str | Path | Sequence[str | Path],
    *,
    size: tuple[int, int] | None = None,
    unit: Unit | None = None,
) -> tuple[Camera, ...]:
    """The cameras of `read_calibration`, which has the arguments and errors."""
    return read_calibration(path, size=size, unit=unit).cameras


def save_calibration(path: str | Path, cameras: Iterable[Camera]) -> None:
    """Write cameras as the contract's cameras.toml, in the order of their names."""
    replace_file(path, cameras_toml(cameras))


# ---- files to parts --------------------------------------------------------------------------------------------------


def _parts_of_source(source: Path, faults: list[str]) -> Iterator[tuple[str, list[Part]]]:
    """Format and parts of a file or of each file of a folder."""
    if not source.is_dir():
        n_faults = len(faults)
        form, parts = _parts_of_file(source, source.name, faults)
        if not parts and len(faults) == n_faults:
            faults.append(f"{source.name}: want a camera's calibration, got nothing of the kind")
        yield form, parts
        return
    found = [p for pattern in ("*", "*/*", "*/*/*") for p in source.glob(pattern) if p.suffix in _SUFFIXES]
    if not found:
        faults.append(f"{source}: want a folder with {', '.join(_SUFFIXES)} files, got none")
    if len(found) > _FILES_MAX:
        faults.append(f"{source}: want a calibration's folder, got one with {len(found)} files")
        return
    for file in sorted(found):
        yield _parts_of_file(file, str(file.relative_to(source.parent)), faults, file.suffix in _VAGUE_SUFFIXES)


def _parts_of_file(file: Path, label: str, faults: list[str], vague: bool = False) -> tuple[str, list[Part]]:
    """Format and parts of a file; with `vague` none, and no fault, where it is no calibration."""
    try:
        data = read_regular(file, _FILE_BYTES_MAX, "a calibration")
    except ConfigError as error:
        faults += [] if vague else error.faults
        return "", []
    except FileNotFoundError:
        faults.append(f"{label}: the file does not exist")
        return "", []
    except OSError as error:
        faults.append(f"{label}: the file cannot be read: {error.strerror}")
        return "", []
    try:
        return read_parts(data, label, faults)
    except UnicodeDecodeError as error:
        if not vague:
            at = error.start
            faults.append(f"{label}: want UTF-8, got byte {error.object[at]:#04x} at offset {at}")
    except UnreadableError as error:
        if not (vague and isinstance(error, UnrecognisedError)):
            faults.append(f"{label}: {error}")
    return "", []


# ---- parts to cameras ------------------------------------------------------------------------------------------------


def _joined(parts: Sequence[Part], faults: list[str], poses: bool) -> dict[str, dict[str, _Found]]:
    """Values by camera and role; a value that two files give must be the same in both."""
    by_camera: dict[str, dict[str, _Found]] = {}
    lenses = {part.lens: part for part in parts if part.lens is not None and not part.camera}
    # Files of several cameras may all have the name that their tool gives where none was set.
    files_of: dict[str, set[str]] = {}
    for part in parts:
        if part.alias is not None:
            files_of.setdefault(part.camera, set()).add(part.file)
    pictures = [part for part in parts if part.camera]
    # Lenses without pictures are the cameras themselves.
    for part in pictures or [replace(part, camera=str(part.lens)) for part in parts]:
        shared = part.alias is not None and len(files_of[part.camera]) > 1
        known = by_camera.setdefault(str(part.alias) if shared else part.camera, {})
        values = [(part, role, value) for role, value in part.values.items()]
        if part.lens is not None and part.lens in lenses:
            lens = lenses[part.lens]
            values += [(lens, role, value) for role, value in lens.values.items()]
        for origin, role, value in values:
            if role in _POSE and not poses:
                continue
            if role in known and known[role].value.node != value.node:
                files = f"{known[role].part.file} and in {origin.file}"
                faults.append(f"camera {part.camera!r}: {value.key}: want it once, got it in {files}")
            known.setdefault(role, _Found(origin, value))
    return by_camera


def _camera(name: str, found: dict[str, _Found], options: _Options, faults: list[str]) -> Camera | None:
    n_faults = len(faults)
    files = " + ".join(dict.fromkeys(at.part.file for at in found.values()))
    where = f"{files}: camera {name!r}"
    raw: dict[str, Any] = {"name": name, "rotation": (0.0, 0.0, 0.0), "translation": (0.0, 0.0, 0.0)}
    for role in ("matrix", "distortions", *(_POSE if options.poses else ())):
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
    raw["fisheye"] = found["distortions"].part.fisheye
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
    hint = next((at.part.size_hint for at in found.values() if at.part.size_hint), None)
    if hint is not None and matrix is not None:
        size, reason = hint
        # The principal point of an image is near its middle, which shows where the images are others.
        if max(abs(matrix[axis][2] / size[axis] - 0.5) for axis in (0, 1)) < 0.1:
            return size
        raise ValueError(f"want {_ASK_FOR['size']}, got a centre that is not of {size[0]} x {size[1]}, {reason}")
    raise ValueError(f"want {_ASK_FOR['size']}, got none")


def _converted(role: str, value: NDArray[np.float64], part: Part, options: _Options) -> Any:
    """A value in the contract's form: metres, world to camera, rotation vector. ValueError where that cannot be."""
    match role:
        case "matrix":
            return _matrix(value)
        case "distortions":
            return _distortions(value, part.fisheye)
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


def _distortions(value: NDArray[np.float64], fisheye: bool) -> list[float]:
    flat: list[float] = value.ravel().tolist()
    if fisheye:
        if len(flat) != FISHEYE_COUNT:
            raise ValueError(f"want the 4 coefficients k1, k2, k3, k4 of a fisheye, got {len(flat)}")
        return flat
    if len(flat) not in (4, 5, 8, 12, 14):
        raise ValueError(f"want 5 coefficients k1, k2, p1, p2, k3 (or 4, 8 or 12 as OpenCV has them), got {len(flat)}")
    if any(flat[12:]):
        raise ValueError(f"want a sensor square behind its lens, got tau_x, tau_y = {flat[12]:g}, {flat[13]:g}")
    # As few as say the same: zeros at the end are no rational model and no thin prism.
    padded = [*flat[:12], *[0.0] * 12]
    return padded[: next(n for n in DISTORTION_COUNTS if not any(padded[n:]))]


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
