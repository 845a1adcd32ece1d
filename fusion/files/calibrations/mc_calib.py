"""MC-Calib's calibrated_cameras_data.yml: camera_0, camera_1, ... with camera_pose_matrix, world from camera.

The world is the frame of the reference camera; lengths are those of the board's square_size, metres unless `unit` says
otherwise. distortion_type 0 is Brown's model with five coefficients, 1 a fisheye with four.

Source: github.com/rameau-fr/MC-Calib, README, "Output explanation"; python_utils/display_calib_cameras.py, which places
cameras by that matrix.
"""

from __future__ import annotations

from typing import Any

from fusion.files.calibrations.parts import FIRST_CAMERA, Part, UnreadableError, Value, passed_over, shaped

_KEYS = {
    "camera_matrix", "distortion_vector", "distortion_type", "camera_group", "img_width", "img_height",
    "camera_pose_matrix",
}  # fmt: skip


def recognises(document: dict[str, Any]) -> bool:
    """Whether a document is of this format."""
    return any(isinstance(t, dict) and {"camera_matrix", "distortion_vector"} <= set(t) for t in document.values())


def read(document: dict[str, Any], label: str, faults: list[str]) -> list[Part]:
    """The cameras' values in a document of this format."""
    parts: list[Part] = []
    groups = set()
    for name, table in document.items():
        if not isinstance(table, dict) or "camera_matrix" not in table:
            continue
        where = f"{label}: {name}"
        part = Part(str(name), label)
        part.notes += passed_over(set(table) - _KEYS, where)
        part.values["matrix"] = Value("camera_matrix", table["camera_matrix"])
        if "distortion_vector" in table:
            part.values["distortions"] = Value("distortion_vector", table["distortion_vector"])
        if {"img_width", "img_height"} <= set(table):
            part.values["size"] = Value("img_width, img_height", [table["img_width"], table["img_height"]])
        try:
            kind = str(table.get("distortion_type", "0"))
            if kind not in ("0", "1"):
                raise UnreadableError(f"{where}: distortion_type: want 0 (Brown) or 1 (fisheye), got {kind[:20]!r}")
            part.fisheye = kind == "1"
            if "camera_pose_matrix" in table:
                world_from_camera = shaped(table["camera_pose_matrix"], (4, 4), f"{where}: camera_pose_matrix")
                rotation = world_from_camera[:3, :3].T
                part.values["rotation"] = Value("camera_pose_matrix", rotation.tolist())
                translation = -rotation @ world_from_camera[:3, 3]
                part.values["translation"] = Value("camera_pose_matrix", translation.tolist())
                groups.add(str(table.get("camera_group", "0")))
        except UnreadableError as error:
            faults.append(str(error))
        parts.append(part)
    if len(groups) > 1:
        faults.append(f"{label}: camera_group: want one group of cameras, got {len(groups)} that nothing ties together")
    if parts and groups:
        parts[0].notes.append(f"{label}: {FIRST_CAMERA}")
    return parts
