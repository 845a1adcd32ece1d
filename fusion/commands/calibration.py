"""`fusion calibration`: cameras from another tool's files, and back."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fusion.commands.parser import Command, add_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fusion.files.cameras import Calibration
    from fusion.store.models import Camera

_TO = ("fusion", "mv3dt", "automagiccalib")


def _declare(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "calibration", nargs="+", help="a file, a folder, or several that belong together")
    add_path(parser, "--out", required=True, help="cameras.toml to write; a folder with --to mv3dt or automagiccalib")
    parser.add_argument("--to", choices=_TO, default="fusion", help="what to write (fusion: a cameras.toml)")
    parser.add_argument(
        "--size", nargs=2, type=int, metavar=("WIDTH", "HEIGHT"), help="of the pictures, where files do not state it"
    )
    parser.add_argument("--unit", choices=("m", "cm", "mm"), help="of the files' lengths, where not their usual one")
    parser.add_argument("--intrinsics", action="store_true", help="matrix, distortions and size are enough; no poses")


def _calibration(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from fusion.errors import ConfigError
    from fusion.files.atomic import replace_file
    from fusion.files.calibrations.nvidia import automagiccalib_files, deepstream_files
    from fusion.files.cameras import read_calibration, save_calibration

    size = tuple(arguments.size) if arguments.size else None
    if size and min(size) < 1:
        raise ConfigError(f"--size {size[0]} {size[1]} is no picture; pass its width and height in pixels")
    poses = not arguments.intrinsics
    if not poses and arguments.to != "fusion":
        raise ConfigError(f"--to {arguments.to} needs poses; leave --intrinsics out")
    found = read_calibration(arguments.calibration, size=size, unit=arguments.unit, poses=poses)
    out = Path(arguments.out)
    if arguments.to == "fusion":
        if out.is_dir():
            raise ConfigError(f"--out {out} is a folder; pass a file such as {out / 'cameras.toml'}")
        save_calibration(out, found.cameras)
        written = [str(out)]
    else:
        if out.exists() and not out.is_dir():
            raise ConfigError(f"--out {out} is a file; --to {arguments.to} writes a folder")
        files = (deepstream_files if arguments.to == "mv3dt" else automagiccalib_files)(found.cameras)
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            replace_file(out / name, text)
        written = [str(out / name) for name in files]
    for line in _report(found, poses, arguments.to):
        print(line)
    print(f"written: {', '.join(written)}")
    return 0


def _report(found: Calibration, poses: bool, to: str) -> Iterator[str]:
    """What was read, camera by camera, each value with the key and the file that it came from."""
    yield f"read: {', '.join(found.formats)}"
    for camera in found.cameras:
        yield f"{camera.name}: {camera.size[0]} x {camera.size[1]}, {_lens(camera)}{_place(camera) if poses else ''}"
        for role, source in sorted(found.sources[camera.name].items()):
            yield f"  {role:<12}{source}"
        if to != "fusion" and (camera.fisheye or any(camera.distortions)):
            yield f"  note: {to} has no lens, so its pictures of {camera.name} have to be undistorted before"
    for note in found.notes:
        yield f"note: {note}"


def _lens(camera: Camera) -> str:
    (fx, _, cx), (_, fy, cy), _ = camera.matrix
    kinds = {5: "five coefficients", 8: "rational", 12: "rational with thin prism"}
    plain = "no distortion" if not any(camera.distortions) else kinds.get(len(camera.distortions), "")
    return f"focal length {fx:.1f} {fy:.1f} px, centre {cx:.1f} {cy:.1f}, {'fisheye' if camera.fisheye else plain}"


def _place(camera: Camera) -> str:
    from fusion.people.geometry import Rig

    # Zero is added, since a negative zero would be written with its sign.
    x, y, z = (Rig.from_cameras([camera]).centres_m[0].round(2) + 0.0).tolist()
    return f", at {x:.2f} {y:.2f} {z:.2f} m"


CALIBRATION = Command(
    "calibration",
    "Read cameras from the calibration files of another tool, and write them as a cameras.toml or for NVIDIA's tools.",
    ("intri.yml extri.yml --out STORE/cameras.toml", "STORE/cameras.toml --to mv3dt --out camInfo"),
    {0: "every camera was read and written"},
    _declare,
    _calibration,
)
