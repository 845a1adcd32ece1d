"""`fusion convert`: a recording from the keypoints, weights and gate events that people have."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fusion.commands.parser import Command, add_path

if TYPE_CHECKING:
    from fusion.files.conversion import Clock, Conversion


def _declare_convert(parser: argparse.ArgumentParser) -> None:
    add_path(
        parser, "keypoints", nargs="?", type=Path, metavar="KEYPOINTS",
        help="folder with a file or a folder of detections for each camera, under the camera's name",
    )  # fmt: skip
    add_path(parser, "--store", required=True, help="store folder with the cameras and plates")
    add_path(parser, "--out", required=True, metavar="RECORDING", help="new folder for the recording")
    add_path(
        parser, "--camera", action="append", default=[], metavar="NAME=PATH",
        help="detections of one camera; may be repeated",
    )  # fmt: skip
    parser.add_argument("--start", metavar="TIME", help="of the first frame: 2026-11-30T09:00:00Z, or nanoseconds")
    parser.add_argument("--rate", type=float, metavar="HZ", help="frames a second")
    parser.add_argument("--first-frame", type=int, default=0, metavar="N", help="number of the frame at --start (0)")
    add_path(
        parser, "--times", action="append", default=[], metavar="NAME=FILE",
        help="CSV of a camera's frames and their times, instead of --start and --rate; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--skeleton", metavar="NAME", help="order of the keypoints, where files do not name them: coco17, body25b, ..."
    )
    parser.add_argument("--person", metavar="NAME", help="category of people, where it is not called person")
    add_path(parser, "--weights", metavar="FILE", help="CSV with time, plate, grams, or with a column for each plate")
    add_path(parser, "--gate", metavar="FILE", help="gate events, lines as in gate.jsonl")
    add_path(parser, "--items", metavar="FILE", help="items that readers or cameras saw, lines as in items.jsonl")


def _convert(arguments: argparse.Namespace) -> int:
    from fusion.errors import ConfigError
    from fusion.example_stores.catalogue import store_folder
    from fusion.files import conversion as files
    from fusion.store.models import Store

    conversion = files.Conversion(Store.load(store_folder(arguments.store)))
    if arguments.keypoints is not None or arguments.camera:
        named = {name: Path(path) for name, path in _pairs("--camera", arguments.camera).items()}
        paths = files.camera_paths(arguments.keypoints, named, conversion)
        clocks = _clocks(arguments, list(paths))
        files.convert_cameras(conversion, paths, clocks, skeleton=arguments.skeleton, person=arguments.person)
    for path, add in (
        (arguments.weights, files.convert_weights),
        (arguments.gate, files.convert_gate),
        (arguments.items, files.convert_items),
    ):
        if path is not None:
            add(conversion, path)
    if not (conversion.frames or conversion.readings or conversion.scans or conversion.sightings):
        raise ConfigError("there is nothing to convert; pass KEYPOINTS, --camera, --weights, --gate or --items")
    conversion.write(arguments.out)
    _print(conversion)
    warnings = conversion.warnings()
    for warning in warnings:
        print(f"warning: {warning}; check --start, --rate and the clocks")
    print(f"written: {arguments.out}; next: fusion check {arguments.out}; fusion run {arguments.out}")
    return 1 if warnings else 0


def _clocks(arguments: argparse.Namespace, cameras: Sequence[str]) -> dict[str, Clock]:
    """Each camera's clock, from its list of times or from start and rate."""
    from fusion.errors import ConfigError
    from fusion.files.conversion import Clock, load_times, parse_instant

    lists = _pairs("--times", arguments.times)
    for name in lists:
        if name not in cameras:
            raise ConfigError(f"--times {name}: want a camera with detections, got {name!r}")
    without = [name for name in cameras if name not in lists]
    if without and (arguments.start is None or arguments.rate is None):
        name = without[0]
        raise ConfigError(f"{name}: want times of its frames; pass --start and --rate, or --times {name}=FILE")
    rate_hz = 1.0 if arguments.rate is None else arguments.rate
    if not 0.01 <= rate_hz <= 1000.0:
        raise ConfigError(f"--rate {rate_hz:g} is no rate of a camera; pass frames a second, such as 10")
    start_ns = parse_instant(arguments.start) if without else 0
    first = arguments.first_frame
    return {
        name: Clock(start_ns, rate_hz, first, load_times(lists[name], first) if name in lists else None)
        for name in cameras
    }


def _pairs(option: str, values: Sequence[str]) -> dict[str, str]:
    """NAME=PATH options by name."""
    from fusion.errors import ConfigError

    pairs: dict[str, str] = {}
    for value in values:
        name, equals, path = value.partition("=")
        if not (name and equals and path):
            raise ConfigError(f"{option} {value}: want NAME=PATH")
        if name in pairs:
            raise ConfigError(f"{option} names {name} more than once; pass it once")
        pairs[name] = path
    return pairs


def _print(conversion: Conversion) -> None:
    """What the recording holds, what was decided and what was passed over."""
    from fusion.errors import terminal_text
    from fusion.files.conversion import instant

    for camera in dict.fromkeys(frame.camera for frame in conversion.frames):
        frames = [frame for frame in conversion.frames if frame.camera == camera]
        people = sum(len(frame.keypoints) for frame in frames)
        span = f"{instant(frames[0].t_ns)} to {instant(frames[-1].t_ns)}"
        added = f" ({conversion.added[camera]} of them added)" if conversion.added[camera] else ""
        print(f"{camera}: {len(frames)} frames{added} with {people} people, {span}")
    if conversion.readings:
        plates = len({reading.plate for reading in conversion.readings})
        samples = sum(len(reading.samples) for reading in conversion.readings)
        span = f"{instant(conversion.readings[0].t_ns)} to {instant(conversion.readings[-1].t_ns)}"
        print(f"weights: {samples} samples of {plates} plates in {len(conversion.readings)} messages, {span}")
    for name, lines in (("gate", conversion.scans), ("items", conversion.sightings)):
        if lines:
            amount = "1 line" if len(lines) == 1 else f"{len(lines)} lines"
            print(f"{name}: {amount}, {instant(lines[0].t_ns)} to {instant(lines[-1].t_ns)}")
    for decision, cameras in conversion.decisions.items():
        print(terminal_text(f"decided: {', '.join(cameras)}: {decision}"))
    for reason, n in sorted(conversion.passed_over.items()):
        if n:
            print(terminal_text(f"passed over: {n} x {reason}"))


CONVERT = Command(
    "convert",
    "Make a recording of keypoints or boxes of each camera, weights and gate events.",
    (
        "KEYPOINTS --store STORE --out RECORDING --start 2026-11-30T09:00:00Z --rate 10 --weights scales.csv",
        "--camera cam01=cam01.json --times cam01=times.csv --store STORE --out RECORDING --skeleton coco17",
    ),
    {0: "the recording was written", 1: "it was written, but its parts are of different times"},
    _declare_convert,
    _convert,
)
