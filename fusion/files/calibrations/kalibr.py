"""Kalibr's camchain.yaml: cam0, cam1, ... with intrinsics [fu, fv, cu, cv] and T_cn_cnm1, from the camera before.

The world is the frame of the first camera. T_cam_imu, timeshift_cam_imu, rostopic and cam_overlaps are passed over.

Source: github.com/ethz-asl/kalibr, wiki, "YAML formats" and "Supported models".
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from fusion.files.calibrations.parts import (
    FIRST_CAMERA,
    Part,
    UnreadableError,
    Value,
    is_fisheye,
    passed_over,
    shaped,
)

_KEYS = {"camera_model", "intrinsics", "distortion_model", "distortion_coeffs", "resolution", "T_cn_cnm1"}


def recognises(document: dict[str, Any]) -> bool:
    """Whether a document is of this format."""
    return any(isinstance(t, dict) and {"camera_model", "intrinsics"} <= set(t) for t in document.values())


def read(document: dict[str, Any], label: str, faults: list[str]) -> list[Part]:
    """The cameras' values in a document of this format."""
    names = [name for name, table in document.items() if isinstance(table, dict) and "intrinsics" in table]
    names.sort(key=lambda name: (len(name), name) if re.fullmatch(r"cam\d+", name) else (99, name))
    parts: list[Part] = []
    camera_from_world: np.ndarray | None = np.eye(4)
    for number, name in enumerate(names):
        table, where = document[name], f"{label}: {name}"
        part = Part(name, label)
        part.notes += passed_over(set(table) - _KEYS, where)
        try:
            _read_lens(table, part, where)
            if number and "T_cn_cnm1" not in table:
                # Calibrated alone: nothing ties it, nor what follows it, to the first camera.
                camera_from_world = None
            elif number and camera_from_world is not None:
                step = shaped(table["T_cn_cnm1"], (4, 4), f"{where}: T_cn_cnm1")
                camera_from_world = step @ camera_from_world
        except UnreadableError as error:
            faults.append(str(error))
            camera_from_world = None
        if len(names) > 1 and camera_from_world is not None:
            part.values["rotation"] = Value("T_cn_cnm1", camera_from_world[:3, :3].tolist())
            part.values["translation"] = Value("T_cn_cnm1", camera_from_world[:3, 3].tolist())
            part.notes += [] if number else [f"{label}: {FIRST_CAMERA}"]
        parts.append(part)
    return parts


def _read_lens(table: dict[str, Any], part: Part, where: str) -> None:
    model = str(table.get("camera_model", ""))
    if model != "pinhole":
        raise UnreadableError(f"{where}: camera_model: want pinhole, got {model[:60]!r}")
    fu, fv, cu, cv = shaped(table["intrinsics"], (4,), f"{where}: intrinsics").tolist()
    part.values["matrix"] = Value("intrinsics", [[fu, 0.0, cu], [0.0, fv, cv], [0.0, 0.0, 1.0]])
    lens = str(table.get("distortion_model", "none"))
    part.fisheye = is_fisheye(lens, f"{where}: distortion_model")
    if lens == "none":
        part.values["distortions"] = Value("distortion_model", [0.0] * 4)
    elif "distortion_coeffs" in table:
        part.values["distortions"] = Value("distortion_coeffs", table["distortion_coeffs"])
    if "resolution" in table:
        part.values["size"] = Value("resolution", table["resolution"])
