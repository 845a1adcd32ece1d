"""CMU Panoptic's JSON: `cameras`, each with name, resolution, K, distCoef, R and t, in centimetres.

Source: github.com/CMU-Perceptual-Computing-Lab/panoptic-toolbox, README, "Camera calibration".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fusion.files.calibrations.parts import Part, Value

_KEYS = {
    "size": "resolution",
    "matrix": "K",
    "distortions": "distCoef",
    "rotation": "R",
    "translation": "t",
}
# Panoptic's floor is its x-z plane and y points down: (x, y, z) becomes (x, z, -y), as VoxelPose and others do.
_UPRIGHT_FROM_WORLD = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


def recognises(document: dict[str, Any]) -> bool:
    """Whether a document is of this format."""
    return isinstance(document.get("cameras"), list)


def read(document: dict[str, Any], label: str, faults: list[str]) -> list[Part]:
    """The cameras' values in a document of this format."""
    parts = []
    for row, table in enumerate(document["cameras"]):
        if not isinstance(table, dict) or not isinstance(table.get("name"), str):
            faults.append(f"{label}: cameras[{row}]: want a camera with a name, got {str(table)[:60]!r}")
            continue
        values = {role: Value(key, table[key]) for role, key in _KEYS.items() if key in table}
        parts.append(Part(table["name"], label, "cm", values, _UPRIGHT_FROM_WORLD))
    return parts
