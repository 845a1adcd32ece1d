"""What every format of calibration becomes: raw values per camera and role, not yet converted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Unit = Literal["m", "cm", "mm"]

# Where the first camera is the world: read as it stands, and stated.
FIRST_CAMERA = "its world is the frame of one camera, not of the floor: turn and shift it into the store before use"

_NUMBER_MAX = 1e100
_FISHEYE = re.compile(r"fisheye|equi|kannala|kb4", re.IGNORECASE)
_OTHER_LENSES = re.compile(
    r"omni|unified|mei\b|scaramuzza|ocam|f-?theta|double.?sphere|\bds\b|eucm|\bfov\b|division|stereographic|62",
    re.IGNORECASE,
)


class Value(NamedTuple):
    """A raw value of a calibration and the key under which it stands in its file."""

    key: str
    node: Any


@dataclass
class Part:
    """The values of one camera in one file.

    Attributes:
        camera: the camera's name; empty for values that all cameras with this `lens` share.
        file: the file's label in messages.
        unit: of the translation.
        values: by role: matrix, distortions, rotation, translation, size.
        upright_from_world: (3, 3) rotation from the file's world to one with z up, where the format's z is not up.
        size_hint: size of the pictures where the format does not state it, and the reason; None: unknown.
        fisheye: whether the distortions are those of a fisheye.
        alias: another name, for formats in which many files state the same one.
        lens: number of the lens, for formats that keep lenses apart from cameras.
        notes: what a reader has to know, or what was passed over.
    """

    camera: str
    file: str
    unit: Unit = "m"
    values: dict[str, Value] = field(default_factory=dict)
    upright_from_world: NDArray[np.float64] | None = None
    size_hint: tuple[tuple[int, int], str] | None = None
    fisheye: bool = False
    alias: str | None = None
    lens: str | None = None
    notes: list[str] = field(default_factory=list)


class UnreadableError(ValueError):
    """A file that is not in the format that it seems to be in; the message says what was wanted and what came."""


class UnrecognisedError(UnreadableError):
    """A file that is in none of the formats."""


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
    # The squares of larger ones would overflow, and no camera has them.
    if not (np.abs(array) < _NUMBER_MAX).all():
        raise ValueError("want finite numbers")
    return array


def shaped(node: Any, shape: tuple[int, ...], key: str) -> NDArray[np.float64]:
    """The same with a known number of values; UnreadableError, with the key, where it is something else."""
    try:
        return array_of(node).reshape(shape)
    except (ValueError, TypeError, OverflowError):
        wanted = " x ".join(map(str, shape))
        raise UnreadableError(f"{key}: want {wanted} numbers, got {str(node)[:60]!r}") from None


def is_fisheye(model: str, key: str) -> bool:
    """Whether a lens model that a file names is a fisheye; UnreadableError where the engine cannot project it."""
    if _OTHER_LENSES.search(model):
        want = "want a lens of OpenCV's models (radtan or plumb_bob, rational_polynomial, equidistant or fisheye)"
        raise UnreadableError(f"{key}: {want}, got {model[:60]!r}; calibrate again with one of them")
    return bool(_FISHEYE.search(model))


def passed_over(keys: Any, where: str) -> list[str]:
    """A note about keys of a recognised tool that say nothing of how a camera projects."""
    names = ", ".join(sorted(map(str, keys))[:12])
    return [f"{where}: passed over: {names}"] if names else []
