"""COLMAP's sparse model: cameras.txt and images.txt, or cameras.bin and images.bin.

An image is a camera of the store: it has a pose (qvec w x y z, world to camera) and names the lens that took it. Its
name is that of its picture, without the suffix; of the only picture in a folder, that of the folder. COLMAP's pixel
(0.5, 0.5) is the centre of the top-left pixel, so half a pixel comes off the principal point. Lengths and axes are
those of the model, which COLMAP leaves free.

Source: colmap.github.io, "Output format"; github.com/colmap/colmap, src/colmap/sensor/models.h.
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from fusion.files.calibrations.parts import Part, UnreadableError, UnrecognisedError, Value, array_of

ALIGNED = "want a model in metres whose floor is z = 0 (colmap model_aligner); COLMAP leaves scale and axes free"


class _Model(NamedTuple):
    """A camera model: where its parameters are among fx, fy, cx, cy and the coefficients; None: not projected."""

    name: str
    n_parameters: int
    n_focal: int = 1
    coefficients: tuple[int, ...] | None = ()
    fisheye: bool = False


# By number, as in the binary file. Coefficients: the place of each further parameter in OpenCV's order.
_MODELS = (
    _Model("SIMPLE_PINHOLE", 3),
    _Model("PINHOLE", 4, 2),
    _Model("SIMPLE_RADIAL", 4, 1, (0,)),
    _Model("RADIAL", 5, 1, (0, 1)),
    _Model("OPENCV", 8, 2, (0, 1, 2, 3)),
    _Model("OPENCV_FISHEYE", 8, 2, (0, 1, 2, 3), True),
    _Model("FULL_OPENCV", 12, 2, (0, 1, 2, 3, 4, 5, 6, 7)),
    _Model("FOV", 5, 2, None),
    _Model("SIMPLE_RADIAL_FISHEYE", 4, 1, (0,), True),
    _Model("RADIAL_FISHEYE", 5, 1, (0, 1), True),
    _Model("THIN_PRISM_FISHEYE", 12, 2, None),
    _Model("RAD_TAN_THIN_PRISM_FISHEYE", 16, 2, None),
)
_BY_NAME = {model.name: model for model in _MODELS}


class _Image(NamedTuple):
    """A row of images: where its picture was taken from and by which lens."""

    name: str
    lens: str
    qvec: list[float]
    tvec: list[float]


def recognises_text(text: str) -> bool:
    """Whether a text file is of this format."""
    first = next(_rows(text), [])
    is_lens = len(first) > 4 and bool(re.fullmatch(r"[A-Z][A-Z_0-9]+", first[1]))
    return is_lens or (len(first) >= 10 and all(map(_is_number, first[:9])))


def read_text(text: str, label: str, faults: list[str]) -> list[Part]:
    """The values in cameras.txt or images.txt."""
    rows = list(_rows(text))
    if not _is_number(rows[0][1]):
        return [part for row in rows if (part := _lens(row[0], "".join(row[1:2]), row[2:], label, faults))]
    images = []
    # Each image has a second line, its points, which may be empty and then is not among the rows.
    for row in rows:
        if len(row) >= 10 and not _is_number(row[9]):
            if not all(map(_is_number, row[:9])):
                got = " ".join(row[:9])[:60]
                faults.append(f"{label}: image {row[9]!r}: want numbers before the name, got {got!r}")
                continue
            images.append(_Image(" ".join(row[9:]), row[8], [*map(float, row[1:5])], [*map(float, row[5:8])]))
    return _image_parts(images, label)


def read_binary(data: bytes, label: str, faults: list[str]) -> list[Part]:
    """The values in cameras.bin or images.bin; UnrecognisedError where the bytes are neither."""
    unfit = (struct.error, IndexError, ValueError, OverflowError)
    with contextlib.suppress(*unfit):
        lenses = list(_lenses_of_bytes(data))
        return [part for lens in lenses if (part := _lens(*lens, label, faults))]
    try:
        images = list(_images_of_bytes(data))
    except unfit:
        raise UnrecognisedError("want COLMAP's cameras.bin or images.bin, got other bytes") from None
    return _image_parts(images, label)


def _rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.split()


def _is_number(text: str) -> bool:
    try:
        return array_of([text]).size == 1
    except ValueError:
        return False


def _lens(number: str, name: str, rest: list[str], label: str, faults: list[str]) -> Part | None:
    where, model = f"{label}: camera {number}", _BY_NAME.get(name)
    if model is None or model.coefficients is None:
        able = ", ".join(m.name for m in _MODELS if m.coefficients is not None)
        faults.append(f"{where}: want one of {able}, got {name}")
        return None
    if len(rest) != 2 + model.n_parameters or not all(map(_is_number, rest)):
        got = " ".join(rest)[:60]
        faults.append(f"{where}: want width, height and {model.n_parameters} numbers of {name}, got {got!r}")
        return None
    width, height, *numbers = map(float, rest)
    fx, fy = numbers[0], numbers[model.n_focal - 1]
    cx, cy, *further = numbers[model.n_focal :]
    distortions = [0.0] * (4 if model.fisheye else 8)
    for place, value in zip(model.coefficients, further):
        distortions[place] = value
    part = Part("", label, fisheye=model.fisheye, lens=number)
    part.values["size"] = Value("WIDTH, HEIGHT", [width, height])
    part.values["matrix"] = Value(f"{name} PARAMS", [[fx, 0.0, cx - 0.5], [0.0, fy, cy - 0.5], [0.0, 0.0, 1.0]])
    part.values["distortions"] = Value(f"{name} PARAMS", distortions)
    return part


def _image_parts(images: list[_Image], label: str) -> list[Part]:
    paths = [PurePosixPath(image.name.replace("\\", "/")) for image in images]
    in_folder = Counter(path.parent for path in paths)
    parts = []
    for image, path in zip(images, paths):
        alone = path.parent.name and in_folder[path.parent] == 1
        name = path.parent.name if alone else "_".join((*path.parent.parts, path.stem))
        part = Part(name, label, lens=image.lens)
        part.values["rotation"] = Value("QW QX QY QZ", _rotation(image.qvec))
        part.values["translation"] = Value("TX TY TZ", image.tvec)
        parts.append(part)
    if parts:
        parts[0].notes.append(f"{label}: {ALIGNED}")
    return parts


def _rotation(qvec: list[float]) -> list[list[float]]:
    length = np.linalg.norm(qvec)
    if not 0.5 < length < 2.0:
        raise UnreadableError(f"QW QX QY QZ: want a unit quaternion, got length {length:.3g}")
    w, x, y, z = np.array(qvec) / length
    return [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]


def _lenses_of_bytes(data: bytes) -> Iterator[tuple[str, str, list[str]]]:
    (n_lenses,) = struct.unpack_from("<Q", data)
    at = 8
    for _ in range(min(n_lenses, len(data) // 24)):
        number, model, width, height = struct.unpack_from("<IiQQ", data, at)
        if not 0 <= model < len(_MODELS):
            raise ValueError("no such model")
        parameters = struct.unpack_from(f"<{_MODELS[model].n_parameters}d", data, at + 24)
        at += 24 + 8 * len(parameters)
        yield str(number), _MODELS[model].name, [*map(repr, (width, height, *parameters))]
    if at != len(data):
        raise ValueError("bytes are left")


def _images_of_bytes(data: bytes) -> Iterator[_Image]:
    (n_images,) = struct.unpack_from("<Q", data)
    at = 8
    for _ in range(min(n_images, len(data) // 64)):
        _, *numbers, lens = struct.unpack_from("<I7dI", data, at)
        end = data.index(b"\0", at + 64)
        (n_points,) = struct.unpack_from("<Q", data, end + 1)
        yield _Image(data[at + 64 : end].decode(), str(lens), numbers[:4], numbers[4:])
        at = end + 9 + 24 * n_points
    if at != len(data):
        raise ValueError("bytes are left")
