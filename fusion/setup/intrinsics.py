"""Cameras with known lenses and unknown poses."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from fusion.errors import ConfigError
from fusion.files.cameras import load_calibration
from fusion.observations import Frame, Observation
from fusion.setup.lenses import rough_camera
from fusion.store.models import Camera
from fusion.store.toml_files import read_toml
from fusion.store.values import validation_faults


def cameras_of_frames(observations: Iterable[Observation], size: tuple[int, int]) -> tuple[Camera, ...]:
    """Cameras of which only names and one size of picture are known, for `calibrate` to find their lenses.

    Args:
        observations: the cameras of their frames.
        size: width and height of all pictures, pixels.

    Returns:
        The cameras, in the order of their names.
    """
    names = {observation.camera for observation in observations if isinstance(observation, Frame)}
    return tuple(rough_camera(name, size) for name in sorted(names))


def load_intrinsics(path: str | Path) -> tuple[Camera, ...]:
    """Read the intrinsics of cameras: name, size, matrix and distortions; poses are ignored.

    Args:
        path: a cameras.toml, which may lack `rotation` and `translation`, or any format that `load_calibration` reads.

    Returns:
        The cameras, in the order of their names.

    Raises:
        ConfigError: with every fault.
    """
    path = Path(path)
    if path.suffix != ".toml":
        return load_calibration(path)
    tables = read_toml(path, "a cameras.toml or another file of calibrated cameras")
    cameras: list[Camera] = []
    faults: list[str] = []
    for key, table in tables.items():
        if key == "metadata":
            continue
        at_origin = {"rotation": (0.0, 0.0, 0.0), "translation": (0.0, 0.0, 0.0)}
        try:
            cameras.append(Camera.model_validate({**at_origin, **table} if isinstance(table, dict) else table))
        except ValidationError as error:
            faults += validation_faults(error, f"{path}: [{key}] ")
    names = [camera.name for camera in cameras]
    faults += [f"{path}: name: want each once, got {name!r} twice" for name in set(names) if names.count(name) > 1]
    if faults:
        raise ConfigError(faults)
    return tuple(sorted(cameras, key=lambda camera: camera.name))
