"""`fusion detect`: from cameras and video files to a store's stream of keypoints."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fusion.commands.parser import Command, add_path

if TYPE_CHECKING:
    from fusion.commands.signals import StopSignals
    from fusion.detect.frames import Framer
    from fusion.detect.settings import Source
    from fusion.feeds.destination import Destination
    from fusion.store.models import Store


def _declare(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "store", metavar="STORE", help="store folder, or name of an example store")
    add_path(parser, "settings", metavar="DETECT.TOML", help="its cameras and the model, as docs/detect.md describes")
    to = parser.add_mutually_exclusive_group(required=True)
    to.add_argument("--mqtt", metavar="BROKER", help="publish to HOST:PORT, mqtt://USER@HOST:PORT, or mqtts://...")
    add_path(to, "--record", type=Path, metavar="DIR", help="write a recording into a new folder")
    add_path(parser, "--mqtt-password-file", type=Path, help="holds the password ($FUSION_MQTT_PASSWORD)")
    add_path(parser, "--mqtt-ca", type=Path, help="certificate authorities to trust (the system's)")
    parser.add_argument("--name", default="detect", help="of this publisher, unique in the store (detect)")
    add_path(parser, "--model", type=Path, help="pose model to use in place of the settings'")
    add_path(parser, "--appearance", type=Path, metavar="MODEL", help="model of people's looks, as in the settings")
    add_path(parser, "--health", type=Path, metavar="FILE", help="JSON with every camera's state, replaced each second")
    parser.add_argument("--seconds", type=float, help="stop live cameras after this long (never)")


def _run(arguments: argparse.Namespace) -> int:
    from fusion.commands.signals import stop_signals
    from fusion.detect.service import open_framer
    from fusion.detect.settings import DetectFile
    from fusion.errors import ConfigError
    from fusion.example_stores.catalogue import store_folder
    from fusion.store.models import Store

    if arguments.seconds is not None and not 0.0 < arguments.seconds < 1e9:
        raise ConfigError(f"--seconds {arguments.seconds:g}: want more than 0")
    store = Store.load(store_folder(arguments.store))
    file = DetectFile.load(arguments.settings)
    sources = file.sources(store)
    settings = file.settings
    if arguments.model is not None:
        settings = settings.model_copy(update={"model": settings.model.model_copy(update={"path": arguments.model})})
    if arguments.appearance is not None:
        settings = settings.model_copy(update={"appearance": arguments.appearance})
    framer = open_framer(settings, store)
    print(f"{framer.model.family} on {framer.model.provider}", file=sys.stderr)
    with stop_signals() as stop:
        destination = _destination(arguments, store)
        if sources[0].kind == "file":
            return _files(sources, framer, destination, settings.fps_max, stop)
        return _live(arguments, sources, framer, destination, settings.fps_max, stop)


def _destination(arguments: argparse.Namespace, store: Store) -> Destination:
    from fusion.feeds.destination import ToBroker, ToRecording
    from fusion.live.connection import Broker, broker_password

    if arguments.record is not None:
        return ToRecording(arguments.record, store)
    broker = Broker.of(arguments.mqtt, broker_password(arguments.mqtt_password_file), arguments.mqtt_ca)
    return ToBroker(broker, store, arguments.name)


def _files(sources: list[Source], framer: Framer, destination: Destination, fps_max: float, stop: StopSignals) -> int:
    from tqdm import tqdm

    from fusion.detect.service import run_files

    with tqdm(unit="picture", disable=None) as bar:
        totals = run_files(sources, framer, destination, fps_max=fps_max, stop=stop, progress=bar.update)
    print(f"{totals.n_pictures} pictures, {totals.n_people} people")
    _report_lost(destination, framer)
    return 0


def _live(
    arguments: argparse.Namespace,
    sources: list[Source],
    framer: Framer,
    destination: Destination,
    fps_max: float,
    stop: StopSignals,
) -> int:
    from fusion.detect.service import Deadline, Service

    service = Service(
        sources,
        framer,
        destination,
        fps_max=fps_max,
        show=lambda line: print(line, file=sys.stderr, flush=True),
        health_file=arguments.health,
    )
    totals = service.run(stop if arguments.seconds is None else Deadline(stop, arguments.seconds))
    print(f"{totals.n_pictures} pictures, {totals.n_people} people")
    _report_lost(destination, framer)
    return 0


def _report_lost(destination: Destination, framer: Framer) -> None:
    for reason, n in destination.lost.items():
        print(f"{n} lost: {reason}")
    for reason, n in framer.rejected.items():
        print(f"{n} rejected: {reason}")


DETECT = Command(
    "detect",
    "Find people in the video of a store's cameras, or of files, and publish or record their keypoints.",
    (
        "STORE detect.toml --mqtt localhost:1883",
        "STORE files.toml --record recording",
    ),
    {0: "the files are over; live cameras: ended by Ctrl-C, SIGTERM or --seconds"},
    _declare,
    _run,
)
