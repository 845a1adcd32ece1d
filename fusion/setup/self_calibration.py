"""What a calibration starts from, and what it results in."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fusion.files.atomic import replace_file
from fusion.store.folder import cameras_toml
from fusion.store.models import Camera


@dataclass(frozen=True)
class Known:
    """What is known beforehand; at least one of them determines the scale.

    Attributes:
        distances: (camera, camera, metres between their centres).
        height_m: stature of the people who walk, their mean where they are several.
        places: where cameras are, in the store's frame, by name: x, y and, where it is known, z, metres. Two or more
            determine scale, direction and place.
        outline: use the store's floor polygon and obstacles for direction and place (decimetres), and, where nothing
            else determines it, the size of usual people for the scale (some percent).
        present: the cameras' present poses are right for most of them: these determine scale, direction and place, and
            a camera that cannot be placed keeps its pose.
    """

    distances: tuple[tuple[str, str, float], ...] = ()
    height_m: float | None = None
    places: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    outline: bool = True
    present: bool = False

    def names(self) -> list[str]:
        """The cameras about which something is known; some may come twice."""
        return [name for a, b, _ in self.distances for name in (a, b)] + list(self.places)


@dataclass(frozen=True)
class CameraTie:
    """How well one camera is tied to the others.

    Attributes:
        name: as in the store.
        placed: whether it has a place; else `fault` is the reason.
        centre_sd_m, rotation_sd_rad: standard deviations of its centre and direction against all cameras together.
        offset_s, offset_sd_s: its clock minus the cameras' mean, and the standard deviation of that, seconds.
        people: observations of people that it shares with others.
        partners: cameras that share many of them.
        residual_m: median residual of its joints, metres at the body.
        focal_px, focal_sd_px: the focal length and its standard deviation, where the lens was found; else None.
        fault: why it is badly tied, None where it is well tied.
    """

    name: str
    placed: bool
    centre_sd_m: float = math.nan
    rotation_sd_rad: float = math.nan
    offset_s: float = math.nan
    offset_sd_s: float = math.nan
    people: int = 0
    partners: int = 0
    residual_m: float = math.nan
    focal_px: float | None = None
    focal_sd_px: float | None = None
    fault: str | None = None


@dataclass(frozen=True)
class SelfCalibration:
    """The result of a calibration.

    Attributes:
        cameras: the placed ones, in the order of their names, in the store's frame as far as it is known.
        ties: of all cameras.
        scale_from, scale_sd: what determined the scale, and its relative standard deviation.
        frame_from: what determined direction and place on the floor.
        floor_sd_m: standard deviation of the floor's height.
        warnings: what to look at; empty where all is well.
    """

    cameras: tuple[Camera, ...]
    ties: tuple[CameraTie, ...]
    scale_from: str
    scale_sd: float
    frame_from: str
    floor_sd_m: float
    warnings: tuple[str, ...]

    @property
    def offsets_s(self) -> dict[str, float]:
        """By name, each placed camera's clock minus the mean of them, seconds."""
        return {tie.name: tie.offset_s for tie in self.ties if tie.placed}

    def save(self, folder: str | Path) -> None:
        """Write cameras.toml of the file contract, and calibration.json with everything else."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"Scale from {self.scale_from}; place from {self.frame_from}."]
        for tie in self.ties:
            accuracy = f"centre +- {100 * tie.centre_sd_m:.1f} cm, {math.degrees(tie.rotation_sd_rad):.2f} degrees, "
            accuracy += f"clock {_clock(tie)}"
            if tie.focal_px is not None:
                accuracy += f", focal length {tie.focal_px:.1f} +- {tie.focal_sd_px:.1f} px"
            lines.append(f"{json.dumps(tie.name)}: {accuracy if tie.placed else 'not placed'}")
        lines += self.warnings
        comment = "".join("# " + line.replace("\n", " ") + "\n" for line in lines)
        replace_file(folder / "cameras.toml", comment + "\n" + cameras_toml(self.cameras))
        report = {key: value for key, value in asdict(self).items() if key != "cameras"}
        replace_file(folder / "calibration.json", json.dumps(_plain(report), indent=1) + "\n")

    def text(self) -> str:
        """A table to print."""
        rows = ["camera     centre sd  rotation sd  clock offset       seen with  residual  focal length"]
        for tie in self.ties:
            if not tie.placed:
                rows.append(f"{tie.name:10} not placed")
                continue
            rows.append(
                f"{tie.name:10} {100 * tie.centre_sd_m:6.2f} cm {math.degrees(tie.rotation_sd_rad):8.3f} deg "
                f"{_clock(tie):>18} "
                f"{tie.partners:8d} {100 * tie.residual_m:6.1f} cm"
                + (f" {tie.focal_px:8.1f} +- {tie.focal_sd_px:.1f} px" if tie.focal_px is not None else "  as given")
            )
        rows.append(f"scale from {self.scale_from} (+- {100 * self.scale_sd:.1f} %), place from {self.frame_from}")
        return "\n".join([*rows, *(f"! {warning}" for warning in self.warnings)])


def _clock(tie: CameraTie) -> str:
    """A clock's offset; marks do not show it."""
    if not math.isfinite(tie.offset_s):
        return "not known"
    return f"{1e3 * tie.offset_s:+.1f} +- {1e3 * tie.offset_sd_s:.1f} ms"


def _plain(value: Any) -> Any:
    """For JSON: numbers that are not known become null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
