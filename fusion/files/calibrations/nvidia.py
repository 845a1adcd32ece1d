"""NVIDIA's camera files, both ways: DeepStream's camInfo (SV3DT, MV3DT) and AutoMagicCalib's.

DeepStream keeps P = K [R | t] as twelve numbers: `projectionMatrix_3x4_w2p` to pixels, `projectionMatrix_3x4` to pixels
from the middle of the picture. It has no lens: pictures are undistorted. A person's height in `modelInfo` shows whether
lengths are metres or centimetres. AutoMagicCalib writes K, R, t and P (rows) for its rectified pictures; the world of
its refined files is the first camera's frame. Neither has the size of the pictures: the principal point is their
middle.

Source: docs.nvidia.com/metropolis/deepstream, Gst-nvtracker, "Single-View 3D Tracking"; NVIDIA-AI-IOT/
deepstream_reference_apps, deepstream-tracker-3d-multi-view; NVIDIA-AI-IOT/auto-magic-calib, README, "Camera parameter
file format".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from fusion.files.calibrations.parts import Part, UnreadableError, Value, shaped
from fusion.store.models import Camera
from fusion.store.rotations import rotation_matrix

TO_PIXELS, TO_MIDDLE = "projectionMatrix_3x4_w2p", "projectionMatrix_3x4"
# The cylinder that stands for a person in the files that we write, metres.
PERSON_HEIGHT_M, PERSON_RADIUS_M = 1.75, 0.3
# A person measured in metres is less than 3 high, one in centimetres more than 30.
_HEIGHT_MAX_M, _HEIGHT_MIN_CM = 3.0, 30.0


def recognises(document: dict[str, Any]) -> bool:
    """Whether a document is of one of these formats."""
    return TO_PIXELS in document or TO_MIDDLE in document


def read(document: dict[str, Any], label: str, faults: list[str]) -> list[Part]:
    """The camera's values in a file of either format."""
    stem = Path(label).stem
    name = re.sub(r"^camInfo[_-]?(hyper[_-]?)?", "", stem, flags=re.IGNORECASE)
    part = Part(f"cam_{name}" if name.isdigit() else name or stem, label)
    try:
        if {"K", "R", "t"} <= set(document):
            _read_matrices(document, part)
        else:
            _read_projection(document, part, label)
    except UnreadableError as error:
        faults.append(f"{label}: {error}")
    return [part]


def _read_matrices(document: dict[str, Any], part: Part) -> None:
    matrix = shaped(document["K"], (3, 3), "K")
    part.values = {role: Value(key, document[key]) for role, key in
                   (("matrix", "K"), ("rotation", "R"), ("translation", "t"))}  # fmt: skip
    _add_undistorted(part, matrix)
    part.notes.append(f"{part.file}: AutoMagicCalib's metres and world hold only after its alignment to the layout")


def _read_projection(document: dict[str, Any], part: Part, label: str) -> None:
    key = TO_PIXELS if TO_PIXELS in document else TO_MIDDLE
    matrix, rotation, translation = decomposed(shaped(document[key], (3, 4), key), key)
    if key == TO_MIDDLE and abs(matrix[:2, 2]).max() < 0.01 * matrix[0, 0]:
        raise UnreadableError(
            f"{key}: want {TO_PIXELS}, which counts pixels from the corner, got pixels from the middle of a picture "
            "whose size is not stated: add half of it times the third row to the first two, and name it so"
        )
    part.values["matrix"] = Value(key, matrix.tolist())
    part.values["rotation"] = Value(key, rotation.tolist())
    part.values["translation"] = Value(key, translation.tolist())
    part.unit = _unit(document.get("modelInfo"), part, label)
    _add_undistorted(part, matrix)


def _unit(model: Any, part: Part, label: str) -> Any:
    """Unit of lengths, from the height of the person in the file."""
    entries = model if isinstance(model, list) else [model]
    heights = [entry.get("height") for entry in entries if isinstance(entry, dict) and "height" in entry]
    if not heights:
        part.notes.append(f"{label}: lengths are taken as metres, since there is no modelInfo height")
        return "m"
    height = max(float(shaped(h, (1,), "modelInfo height")[0]) for h in ([h] for h in heights))
    if 0.0 < height < _HEIGHT_MAX_M:
        return "m"
    if _HEIGHT_MIN_CM < height < 100.0 * _HEIGHT_MAX_M:
        part.notes.append(f"{label}: lengths are centimetres, since the person in modelInfo is {height:g} high")
        return "cm"
    raise UnreadableError(f"modelInfo height: want a person's, in metres or centimetres, got {height:g}")


def _add_undistorted(part: Part, matrix: NDArray[np.float64]) -> None:
    part.values["distortions"] = Value("undistorted pictures", [0.0] * 5)
    part.notes.append(f"{part.file}: its pictures are undistorted: detections must come from such pictures")
    width, height = 2 * matrix[0, 2], 2 * matrix[1, 2]
    whole = abs(width - round(width)) < 0.01 and abs(height - round(height)) < 0.01
    if whole and min(width, height) > 1:
        part.size_hint = (round(width), round(height)), "twice the principal point"


def decomposed(
    projection: NDArray[np.float64], key: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """K, R and t of a projection matrix P = s K [R | t].

    Args:
        projection: (3, 4), of any scale and sign.
        key: its name in messages.

    Returns:
        (3, 3) with K[2, 2] = 1 and positive focal lengths; (3, 3) a rotation; (3,).

    Raises:
        UnreadableError: the left 3 x 3 block has no inverse.

    Source: Hartley and Zisserman, Multiple View Geometry (2004), section 6.2.4.
    """
    left = projection[:, :3]
    size = np.linalg.norm(left[2])
    if not size > 0.0 or abs(np.linalg.det(left / size)) < 1e-9:
        raise UnreadableError(f"{key}: want a camera's projection, got a matrix without inverse")
    # RQ by QR of the rows in reverse order.
    q, r = np.linalg.qr(left[::-1].T)
    matrix, rotation = r.T[::-1, ::-1], q.T[::-1]
    signs = np.diag(np.sign(np.diag(matrix)))
    matrix, rotation = matrix @ signs, signs @ rotation
    translation = np.linalg.solve(matrix, projection[:, 3])
    # A projection is known up to its sign; a rotation is not.
    if np.linalg.det(rotation) < 0.0:
        rotation, translation = -rotation, -translation
    matrix = matrix / matrix[2, 2]
    if abs(matrix[0, 1]) > 1e-3 * matrix[0, 0]:
        got = f"{matrix[0, 1]:.3g} beside a focal length of {matrix[0, 0]:.0f}"
        raise UnreadableError(f"{key}: want pixels without shear, got {got}")
    matrix[0, 1] = 0.0
    return matrix, rotation, translation


# ---- out -------------------------------------------------------------------------------------------------------------


def deepstream_files(cameras: Iterable[Camera]) -> dict[str, str]:
    """DeepStream's camInfo of each camera, by file name: metres, world to pixels of undistorted pictures.

    Raises:
        ConfigError: a camera whose name is no file's; names come out of other people's files.
    """
    cameras = list(cameras)
    faults = [
        f"camera {camera.name!r}: want a name of letters, digits, spaces and . _ - + @ for its file {camera.name}.yml"
        for camera in cameras
        if not re.fullmatch(r"[\w+@-][\w .+@-]{,200}", camera.name)
    ]
    if faults:
        raise ConfigError(faults)
    return {f"{camera.name}.yml": _deepstream_text(camera) for camera in cameras}


def automagiccalib_files(cameras: Iterable[Camera]) -> dict[str, str]:
    """AutoMagicCalib's camInfo_00.yaml, camInfo_01.yaml, ... in the order of the cameras."""
    return {f"camInfo_{number:02d}.yaml": _automagiccalib_text(camera) for number, camera in enumerate(cameras)}


def _matrices(camera: Camera) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    return np.array(camera.matrix), rotation_matrix(camera.rotation), np.array(camera.translation)


def _deepstream_text(camera: Camera) -> str:
    matrix, rotation, translation = _matrices(camera)
    projection = matrix @ np.column_stack([rotation, translation])
    numbers = "".join(f"  - {number!r}\n" for number in projection.ravel().tolist())
    person = f"modelInfo:\n  height: {PERSON_HEIGHT_M}\n  radius: {PERSON_RADIUS_M}\n"
    return f"{TO_PIXELS}:\n{numbers}\n{person}"


def _automagiccalib_text(camera: Camera) -> str:
    matrix, rotation, translation = _matrices(camera)
    projection = matrix @ np.column_stack([rotation, translation])
    values = {"K": matrix, "R": rotation, TO_MIDDLE: projection, "t": translation[:, None]}
    return "".join(f"{key}:\n{_rows_text(rows)}" for key, rows in values.items())


def _rows_text(rows: NDArray[np.float64]) -> str:
    lines = []
    for row in rows.tolist():
        lines += [f"{'- - ' if column == 0 else '  - '}{number!r}\n" for column, number in enumerate(row)]
    return "".join(lines)
