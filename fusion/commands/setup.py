"""`fusion init`, `calibrate`, `check` and `doctor`: before a shop opens."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fusion.commands.parser import Command, add_path

if TYPE_CHECKING:
    from fusion.observations import Observation
    from fusion.setup.examination import Line
    from fusion.store.models import Camera, Store


def _declare_init(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "folder", metavar="FOLDER", help="new or empty folder; its name becomes the store's id")
    rough = parser.add_argument_group("your own shop: any of these writes a store of that size, without goods")
    rough.add_argument("--size", nargs=2, type=float, metavar=("WIDTH", "DEPTH"), help="of the floor, metres (6 5)")
    rough.add_argument("--cameras", type=int, metavar="N", help="along the walls (4)")
    rough.add_argument("--shelves", type=int, metavar="N", help="a metre wide each, along three walls (4)")
    rough.add_argument("--boards", type=int, metavar="N", help="of a shelf, one above the other (4)")
    rough.add_argument("--plates", type=int, metavar="N", help="weighing plates on a board (4)")
    rough.add_argument("--currency", metavar="CODE", help="ISO 4217 (EUR)")
    rough.add_argument("--timezone", metavar="ZONE", help="IANA (Europe/Berlin)")


def _init(arguments: argparse.Namespace) -> int:
    from fusion.setup.rough_store import RoughShop
    from fusion.setup.starter_store import write_rough_store, write_starter_store

    size = dict(zip(("width_m", "depth_m"), arguments.size or ()))
    asked = {name: getattr(arguments, name) for name in ("cameras", "shelves", "boards", "plates")}
    given = {name: n for name, n in asked.items() if n is not None}
    folder = arguments.folder
    if size or given or arguments.currency or arguments.timezone:
        shop = RoughShop(**size, **{f"n_{name}": n for name, n in given.items()})
        currency, timezone = arguments.currency or "EUR", arguments.timezone or "Europe/Berlin"
        store = write_rough_store(folder, shop, currency, timezone)
        numbers = f"{len(store.cameras)} cameras, {len(store.plates)} plates"
        print(f"{folder}: {shop.width_m:g} x {shop.depth_m:g} m, {numbers}, and no goods yet")
        print(f"next: fusion import CATALOGUE {folder}; fusion worksheet {folder}; fusion check {folder}")
        return 0
    folder = write_starter_store(folder)
    print(f"{folder}: a store of 5 cameras, 16 plates and 8 products; its README.md describes the files")
    print(f"next: fusion check {folder}; fusion run --store {folder}")
    return 0


def _declare_calibrate(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "recording", help="recording of a few people who walk through the shop for some minutes")
    add_path(parser, "--out", default="calibration", help="folder for cameras.toml and calibration.json")
    add_path(parser, "--intrinsics", help="matrix and distortions of the cameras, in any format that is read")
    parser.add_argument(
        "--find-lenses", action="store_true", help="find focal lengths and distortions too"
    )
    add_path(
        parser, "--marks", metavar="FILE",
        help="points of pictures at known places; with a store folder as RECORDING, no one needs to walk",
    )  # fmt: skip
    parser.add_argument(
        "--refine", action="store_true", help="start from the poses that the cameras have, which most of them still fit"
    )
    parser.add_argument(
        "--size", nargs=2, type=int, metavar=("WIDTH", "HEIGHT"),
        help="of all pictures, where nothing is known of any camera; finds the lenses too",
    )  # fmt: skip
    parser.add_argument(
        "--distance", nargs=3, action="append", default=[], metavar=("CAMERA", "CAMERA", "METRES"),
        help="between the centres of two cameras; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--height", type=float, metavar="METRES", help="stature of the people who walk, the mean of several"
    )
    parser.add_argument(
        "--place", nargs="+", action="append", default=[], metavar="CAMERA X Y [Z]",
        help="where a camera is in the store, in metres; the places of two or more fix all the others",
    )  # fmt: skip


def _calibrate(arguments: argparse.Namespace) -> int:
    from collections import Counter
    from pathlib import Path

    from fusion.errors import ConfigError
    from fusion.setup.calibrate import calibrate
    from fusion.setup.marks import calibrate_by_marks, load_marks, with_marked
    from fusion.setup.self_calibration import Known

    store, observations, cameras = _walked(arguments)
    names = [camera.name for camera in cameras]
    lenses = names if arguments.find_lenses or arguments.size else []
    distances = tuple((a, b, _metres("--distance", metres)) for a, b, metres in arguments.distance)
    repeated = [name for name, n in Counter(place[0] for place in arguments.place).items() if n > 1]
    if repeated:
        raise ConfigError(f"--place names {', '.join(repeated)} more than once; give each camera one place")
    places = {place[0]: tuple(_metres("--place", value) for value in place[1:]) for place in arguments.place}
    known = Known(distances=distances, height_m=arguments.height, places=places, present=arguments.refine)
    if Path(arguments.out).exists() and not Path(arguments.out).is_dir():
        raise ConfigError(f"--out {arguments.out} is a file; pass a folder")
    marks = load_marks(arguments.marks, store, names) if arguments.marks else {}
    marked = calibrate_by_marks(cameras, marks, lenses)
    if observations is None:
        calibration = marked
    else:
        calibration = with_marked(marked, lambda places: calibrate(
            store, observations, replace(known, places={**places, **known.places}), cameras, lenses
        ))  # fmt: skip
    calibration.save(arguments.out)
    print(calibration.text())
    print(f"written: {arguments.out}/cameras.toml and calibration.json")
    return 0 if all(tie.placed for tie in calibration.ties) else 1


def _walked(arguments: argparse.Namespace) -> tuple[Store, Iterable[Observation] | None, Sequence[Camera]]:
    """The store, what was recorded there, None where a store folder is enough, and its cameras."""
    from fusion.errors import ConfigError
    from fusion.files.recordings import Recording
    from fusion.setup.intrinsics import cameras_of_frames, load_intrinsics
    from fusion.store.models import Store

    observations: Iterable[Observation] | None = None
    if arguments.marks and (Path(arguments.recording) / "store.toml").is_file():
        store = Store.load(arguments.recording)
    else:
        recording = Recording(arguments.recording)
        store, observations = recording.store, recording.observations()
    cameras: Sequence[Camera] = load_intrinsics(arguments.intrinsics) if arguments.intrinsics else store.cameras
    if arguments.size:
        width, height = arguments.size
        if arguments.intrinsics:
            raise ConfigError("--size is for cameras of which nothing is known; leave it out with --intrinsics")
        if observations is None:
            raise ConfigError("--size takes cameras from a recording; a store folder has its own")
        if not (0 < width < 100_000 and 0 < height < 100_000):
            raise ConfigError(f"--size {width} {height}: want the width and the height of the pictures in pixels")
        cameras = cameras_of_frames(recording.observations(), (width, height))
    return store, observations, cameras


def _metres(option: str, text: str) -> float:
    from fusion.errors import ConfigError

    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{option}: {text!r} is not a number of metres") from None


def _declare_check(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "path", help="store folder, recording, or name of an example store")
    add_path(parser, "--svg", help="draw how many cameras see each part of the floor into this file")
    add_path(parser, "--till", metavar="TILL.TOML", help="whether this till can honour the store's policy")
    parser.add_argument("--source", help="with --till: where the data will come from, such as mqtt://HOST")
    parser.add_argument("--json", action="store_true", help="findings as JSON")


def _check(arguments: argparse.Namespace) -> int:
    from fusion.example_stores.catalogue import store_folder
    from fusion.setup.check import check, store_of
    from fusion.setup.coverage import Coverage
    from fusion.setup.findings import exit_code, findings_json, findings_text
    from fusion.till.settings import TillFile

    path = store_folder(arguments.path)
    till = TillFile.load(arguments.till) if arguments.till else None
    findings = check(path, till, arguments.source)
    print(findings_json(findings) if arguments.json else findings_text(findings))
    if arguments.svg:
        store = store_of(path)
        if store is None:
            print(f"fusion check: {arguments.svg} was not drawn, since the store cannot be read", file=sys.stderr)
        else:
            Coverage.of(store).write_svg(arguments.svg)
    return exit_code(findings)


def _declare_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="everything that was examined, as JSON")
    add_path(parser, "--live", metavar="STORE", help="examine a running store's sensors instead, or a recording's")
    parser.add_argument("--mqtt", metavar="BROKER", help="where the store of --live publishes, as for `fusion run`")
    add_path(parser, "--mqtt-password-file", type=Path, help="holds the password ($FUSION_MQTT_PASSWORD)")
    add_path(parser, "--mqtt-ca", help="certificate authorities to trust (the system's)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to watch (60)")


def _sensor_lines(arguments: argparse.Namespace) -> Iterator[Line]:
    """A line for every sensor, after having watched them."""
    from collections import Counter

    from fusion.errors import ConfigError
    from fusion.files.recordings import Recording
    from fusion.live.connection import Broker, broker_password
    from fusion.live.watch import Watch
    from fusion.setup.sensor_fitness import SensorFitness
    from fusion.store.models import Store

    if not 0.0 < arguments.seconds < 1e6:
        raise ConfigError(f"--seconds {arguments.seconds:g} is no time to watch; pass 60")
    refused: Counter[str] = Counter()
    if arguments.mqtt:
        password = broker_password(arguments.mqtt_password_file)
        store = Store.load(arguments.live)
        watch = Watch(Broker.of(arguments.mqtt, password, arguments.mqtt_ca), store, arguments.seconds)
        fitness, refused = SensorFitness(store), watch.refused
        for observation in watch:
            fitness.add(observation)
    else:
        recording = Recording(arguments.live)
        fitness, first_ns = SensorFitness(recording.store), None
        for observation in recording.observations():
            first_ns = observation.t_ns if first_ns is None else first_ns
            if observation.t_ns - first_ns > arguments.seconds * 1e9:
                break
            fitness.add(observation)
    yield from fitness.lines(refused)


def _doctor(arguments: argparse.Namespace) -> int:
    from fusion.setup.doctor import examine, line_text, lines_json

    lines = []
    for line in _sensor_lines(arguments) if arguments.live else examine():
        lines.append(line)
        if not arguments.json:
            print(line_text(line), flush=True)
    if arguments.json:
        print(lines_json(lines))
    return 1 if any(line.sign == "fault" for line in lines) else 0


INIT = Command(
    "init",
    "Write a store folder to start from: a small one, or one of your shop's size; it never overwrites a file.",
    ("my-store", "corner --size 6 5 --cameras 4 --shelves 5"),
    {0: "the store was written"},
    _declare_init,
    _init,
)
CALIBRATE = Command(
    "calibrate",
    "Find the places, clocks and, where wanted, lenses of all cameras from people who walk about.",
    (
        "RECORDING --size 1280 720 --distance cam01 cam15 6.42",
        "STORE --marks marks.csv",
        "RECORDING --distance cam01 cam15 6.42",
        "RECORDING --place cam01 0.15 0.20 --place cam15 7.85 5.80 --out calibration",
    ),
    {0: "every camera has a place", 1: "a camera could not be placed; the output says why"},
    _declare_calibrate,
    _calibrate,
)
CHECK = Command(
    "check",
    "Find everything that is wrong with a store folder or a recording.",
    ("STORE --svg coverage.svg", "RECORDING --json"),
    {0: "nothing above a note", 1: "warnings: they cost accuracy", 2: "errors, or neither a store nor a recording"},
    _declare_check,
    _check,
)
DOCTOR = Command(
    "doctor",
    "Find out whether this machine and this installation are fit to run the engine, or a running store's sensors.",
    ("--json", "--live STORE --mqtt localhost:1883"),
    {0: "fit, perhaps with warnings", 1: "a fault; the output says what to do"},
    _declare_doctor,
    _doctor,
)
