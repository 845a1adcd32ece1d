"""Qualisys Track Manager's calibration (.qca.txt, XML): `camera` with `transform` and `intrinsic`, millimetres.

Focal lengths and centres are in 64ths of a pixel of the sensor, of which `fov_video` is the part that was recorded. The
rows of `transform` lead from the world to a camera whose y points up and z backwards, x y z is the camera's place. The
distortion coefficients have no unit: boards that the public demonstration of Pose2Sim shows give k1 = -0.053, k2 = 0.15
by OpenCV, its file -0.046 and 0.140.

Source: Qualisys Track Manager, RT protocol, "Calibration XML"; github.com/perfanalytics/pose2sim,
Pose2Sim/calibration.py (read_qca).
"""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np

from fusion.files.calibrations.parts import Part, UnreadableError, Value, array_of

_SUBPIXELS = 64.0
# From axes x right, y up, z backwards to OpenCV's.
_OPENCV_FROM_QUALISYS = np.diag([1.0, -1.0, -1.0])


def recognises(root: ElementTree.Element) -> bool:
    """Whether an XML document is of this format."""
    return root.tag == "calibration" and root.find("cameras/camera") is not None


def read(root: ElementTree.Element, label: str, faults: list[str]) -> list[Part]:
    """The cameras' values in a document of this format; cameras that were not active are left out."""
    parts = []
    for row, element in enumerate(root.findall("cameras/camera")):
        if element.get("active") == "0":
            continue
        name = element.get("serial", str(row))
        try:
            parts.append(_camera(element, name, label))
        except UnreadableError as error:
            faults.append(f"{label}: camera {name!r}: {error}")
    return parts


def _camera(element: ElementTree.Element, name: str, label: str) -> Part:
    turned = element.get("viewrotation", "0")
    if turned not in ("0", "0.0", "0.000000"):
        raise UnreadableError(f"viewrotation: want 0, the picture as the sensor sees it, got {turned[:20]!r}")
    left, top, right, bottom = _numbers(element, "fov_video", ("left", "top", "right", "bottom"))
    focal = ("focalLengthU", "focalLengthV", "centerPointU", "centerPointV", "skew")
    fu, fv, cu, cv, skew = (number / _SUBPIXELS for number in _numbers(element, "intrinsic", focal))
    if abs(skew) > 1e-6:
        raise UnreadableError(f"intrinsic skew: want 0, got {skew * _SUBPIXELS:g}")
    # Qualisys spells it tangental.
    names = ("radialDistortion1", "radialDistortion2", "tangentalDistortion1", "tangentalDistortion2")
    distortions = _numbers(element, "intrinsic", (*names, "radialDistortion3"))
    entries = tuple(f"r{row}{column}" for row in (1, 2, 3) for column in (1, 2, 3))
    rotation = _OPENCV_FROM_QUALISYS @ np.reshape(_numbers(element, "transform", entries), (3, 3))
    translation = -rotation @ _numbers(element, "transform", ("x", "y", "z"))
    part = Part(name, label, "mm")
    part.values = {
        "size": Value("fov_video", [right - left + 1, bottom - top + 1]),
        "matrix": Value("intrinsic", [[fu, 0.0, cu - left], [0.0, fv, cv - top], [0.0, 0.0, 1.0]]),
        "distortions": Value("intrinsic", distortions),
        "rotation": Value("transform", rotation.tolist()),
        "translation": Value("transform", translation.tolist()),
    }
    return part


def _numbers(camera: ElementTree.Element, tag: str, names: tuple[str, ...]) -> list[float]:
    element = camera.find(tag)
    if element is None:
        raise UnreadableError(f"want <{tag}>, got none")
    values: list[float] = []
    for name in names:
        text = element.get(name)
        # Older files have two radial coefficients.
        if text is None and name in ("radialDistortion3", "skew"):
            text = "0"
        try:
            values += array_of([text]).tolist()
        except (TypeError, ValueError):
            got = "nothing" if text is None else repr(text[:40])
            raise UnreadableError(f"{tag} {name}: want a finite number, got {got}") from None
    return values
