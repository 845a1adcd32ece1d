"""What every conversion shares: detections beside a set, and a recording of cameras alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from bench.public.task import UnusableError
from fusion.files.detections import read_detections
from fusion.files.recordings import RecordingWriter
from fusion.observations import Frame
from fusion.store.layouts import LAYOUTS
from fusion.store.models import Camera, Store

# Sets rarely say when they were taken; what matters is the time between frames.
START_NS = 1_579_000_000_000_000_000
# People may be tracked this far outside of where they were annotated.
_MARGIN_M = 2.0

# Names the order of keypoints, where the detections name none and make bodies in several.
SKELETON = "skeleton.txt"

Keypoints = Literal["coco17", "body25", "box2"]


def beside(folder: Path) -> bool:
    """Whether detections lie beside a set."""
    return (folder / "detections").is_dir()


def detected(
    folder: Path, cameras: Sequence[Camera], keypoints: Keypoints, instant_ns: Callable[[int], int]
) -> list[Frame]:
    """Frames of `folder/detections/CAMERA` (or CAMERA.json, CAMERA.txt), in any form that `fusion convert` reads.

    `detections/skeleton.txt` gives what `fusion convert` would ask for as `--skeleton`, where it would.

    Args:
        folder: the set.
        cameras: those of the set; the ones without detections are left out.
        keypoints: the layout.
        instant_ns: the time of a frame from its number in the video.

    Raises:
        UnusableError: fewer than two cameras have detections, or pictures without a number.
        ConfigError: a file is in no known form.
    """
    paths = [path for path in sorted((folder / "detections").glob("*")) if path.name != SKELETON]
    by_name = {path.stem if path.is_file() else path.name: path for path in paths}
    order = folder / "detections" / SKELETON
    skeleton = order.read_text(encoding="utf-8", errors="replace").strip() if order.is_file() else None
    named = [camera for camera in cameras if camera.name in by_name]
    if len(named) < min(2, len(cameras)):
        wanted = ", ".join(camera.name for camera in cameras[:4])
        raise UnusableError(
            f"{folder}/detections: want a file or folder for each of at least two cameras ({wanted}, ...) in a form "
            f"that `fusion convert` reads, since the set has none of its own; got {len(named)}"
        )
    sizes: list[tuple[float, float] | None] = [camera.size for camera in named]
    frames = []
    files = [by_name[camera.name] for camera in named]
    found = read_detections(files, LAYOUTS[keypoints], skeleton=skeleton, sizes_px=sizes)
    for camera, detections in zip(named, found, strict=True):
        for picture, people in detections.pictures.items():
            number = detections.frames[picture]
            if number is None:
                raise UnusableError(f"{folder}/detections/{camera.name}: want pictures with a number, got {picture!r}")
            frames.append(Frame(instant_ns(number), camera.name, people))
    return frames


def write_cameras(
    out: Path, name: str, cameras: Iterable[Camera], keypoints: Keypoints, frames: list[Frame], places_m: np.ndarray
) -> Path:
    """Write a recording without shelves and gates.

    Args:
        out: the recording's folder.
        name: the store's.
        cameras: calibrated.
        keypoints: layout of the frames.
        frames: in any order.
        places_m: (n, 2) where people were annotated, which gives the floor.
    """
    known = places_m[np.isfinite(places_m).all(1)]
    if not len(known):
        raise UnusableError(f"{name}: want at least one annotated person, got none")
    (x0, y0), (x1, y1) = (known.min(0) - _MARGIN_M).tolist(), (known.max(0) + _MARGIN_M).tolist()
    store = Store(
        format_version=1,
        id="public",
        name=name,
        currency="EUR",
        timezone="UTC",
        floor=((x0, y0), (x1, y0), (x1, y1), (x0, y1)),
        keypoints=keypoints,
        cameras=tuple(cameras),
    )
    with RecordingWriter(out, store) as writer:
        for frame in sorted(frames, key=lambda frame: (frame.t_ns, frame.camera)):
            writer.write(frame)
    return out
