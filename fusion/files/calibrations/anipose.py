"""TOML of Anipose and aniposelib, and of what follows them: FreeMoCap, Pose2Sim, caliscope, and our own cameras.toml.

A table per camera with name, size, matrix, distortions, rotation (vector; caliscope also 3 x 3) and translation, world
to camera, metres; caliscope has them under [cameras.N] and names a camera by its table. `fisheye = true` has the four
coefficients of OpenCV's fisheye model.

Source: github.com/lambdaloop/aniposelib, aniposelib/cameras.py (dump, load); github.com/freemocap/freemocap, capture
volume calibration; github.com/mprib/caliscope, docs of camera_array.toml.
"""

from __future__ import annotations

from typing import Any

from fusion.files.calibrations.parts import Part, UnreadableError, Value, is_fisheye, passed_over

_KEYS = {"name", "size", "matrix", "distortions", "rotation", "translation", "fisheye"}
# How a camera was calibrated, not how it projects: known, so not worth a word.
_SILENT = {"port", "cam_id", "rotation_count", "error", "exposure", "grid_count", "ignore", "fps"}


def read(document: dict[str, Any], label: str, faults: list[str]) -> list[Part]:
    """The cameras' values in a document of this family."""
    if isinstance(document.get("cameras"), dict):
        tables, prefix = document["cameras"], "cameras."
    else:
        tables, prefix = {key: table for key, table in document.items() if key != "metadata"}, ""
    parts = []
    for key, table in tables.items():
        # A folder may hold other TOML files, so a table without any value of a camera is passed over.
        if not isinstance(table, dict) or not _KEYS & set(table) - {"name", "size", "fisheye"}:
            continue
        if table.get("ignore") is True:
            continue
        where = f"{label}: [{prefix}{key}]"
        roles = [role for role in ("size", "matrix", "distortions", "rotation", "translation") if role in table]
        values = {role: Value(role, table[role]) for role in roles if table[role] != "null"}
        part = Part(str(table.get("name", key)), label, values=values)
        part.notes += passed_over(set(table) - _KEYS - _SILENT, where)
        try:
            # Other spellings, such as fisheye_model, mean the same.
            for name in table:
                if "fisheye" in name.lower():
                    part.fisheye |= _truth(table[name], f"{where} {name}")
                elif name.lower().endswith("model") and isinstance(table[name], str):
                    part.fisheye |= is_fisheye(table[name], f"{where} {name}")
        except UnreadableError as error:
            faults.append(str(error))
        parts.append(part)
    return parts


def _truth(value: Any, key: str) -> bool:
    if isinstance(value, (bool, int)) and value in (0, 1):
        return bool(value)
    raise UnreadableError(f"{key}: want true or false, got {str(value)[:60]!r}")
