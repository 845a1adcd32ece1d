"""Cameras with known lenses and unknown poses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from fusion.files.cameras import read_calibration
from fusion.observations import Frame, Observation
from fusion.setup.lenses import rough_camera
from fusion.store.models import Camera


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


def load_intrinsics(
    path: str | Path | Sequence[str | Path], *, size: tuple[int, int] | None = None
) -> tuple[Camera, ...]:
    """Read the intrinsics of cameras: name, size, matrix and distortions; poses are not looked at.

    Args:
        path: a file, a folder or several of them, in any format that `fusion.files.cameras` reads.
        size: width and height of the images in pixels, for formats that do not give it.

    Returns:
        The cameras, in the order of their names, all at the origin.

    Raises:
        ConfigError: with every fault.
    """
    return read_calibration(path, size=size, poses=False).cameras
