"""ROS camera_info: the YAML of camera_calibration and camera_info_manager, or a message as `ros2 topic echo` prints it.

It has intrinsics alone. R rectifies a stereo pair and P projects its rectified pictures: neither is a pose, both are
passed over. plumb_bob has five coefficients, rational_polynomial eight, equidistant the four of OpenCV's fisheye.

Source: docs.ros.org, sensor_msgs/CameraInfo; REP 104; camera_calibration_parsers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fusion.files.calibrations.parts import Part, UnreadableError, Value, is_fisheye, passed_over

_SPELLINGS = {
    "matrix": ("camera_matrix", "K", "k"),
    "distortions": ("distortion_coefficients", "D", "d"),
    "width": ("image_width", "width"),
    "height": ("image_height", "height"),
}
_SILENT = {
    "camera_name", "distortion_model", "rectification_matrix", "projection_matrix", "R", "r", "P", "p", "header",
    "binning_x", "binning_y", "roi",
}  # fmt: skip


def recognises(document: dict[str, Any]) -> bool:
    """Whether a document is of this format."""
    has_pose = {"rvec", "tvec", "T", "t"} & set(document)
    return "distortion_model" in document and bool({"projection_matrix", "P", "p"} & set(document)) and not has_pose


def read(document: dict[str, Any], label: str, faults: list[str]) -> list[Part]:
    """The camera's values in a document of this format."""
    stem = Path(label).stem
    name = document.get("camera_name")
    part = Part(name if isinstance(name, str) and name else stem, label, alias=stem)
    try:
        part.fisheye = is_fisheye(str(document["distortion_model"]), f"{label}: distortion_model")
    except UnreadableError as error:
        faults.append(str(error))
    found = {role: next((key for key in keys if key in document), None) for role, keys in _SPELLINGS.items()}
    for role in ("matrix", "distortions"):
        if (key := found[role]) is not None:
            part.values[role] = Value(key, document[key])
    width, height = found["width"], found["height"]
    if width and height:
        part.values["size"] = Value(f"{width}, {height}", [document[width], document[height]])
    part.notes += passed_over(set(document) - _SILENT - {key for keys in _SPELLINGS.values() for key in keys}, label)
    return [part]
