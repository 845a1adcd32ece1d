"""`fusion feed`: streams that cameras, boxes, scales and readers of other makers send, for a store."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from fusion.commands.parser import Command, add_path

if TYPE_CHECKING:
    from fusion.feeds.bridge import Bridge


def _declare(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "feeds", metavar="FEEDS.TOML", type=Path, help="which streams there are, and whose each is")
    add_path(parser, "--record", type=Path, metavar="DIR", help="write a recording instead of publishing to [to]")
    parser.add_argument("--check", action="store_true", help="check the file against its store, and connect nothing")
    parser.add_argument("--seconds", type=float, help="end after this long (never)")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between reports of all feeds (60)")
    parser.add_argument("--port", type=int, help="serve /healthz and /metrics on this port of 127.0.0.1")


def _feed(arguments: argparse.Namespace) -> int:
    from fusion.commands.signals import stop_signals
    from fusion.errors import ConfigError
    from fusion.feeds.bridge import Bridge
    from fusion.feeds.destination import Destination, ToBroker, ToRecording
    from fusion.feeds.health import metrics_text
    from fusion.feeds.settings import FeedsFile
    from fusion.live.metrics import HealthServer

    file = FeedsFile.load(arguments.feeds)
    if not arguments.every > 0.0 or (arguments.seconds is not None and not arguments.seconds > 0.0):
        raise ConfigError("--every and --seconds: want seconds above 0")
    if arguments.port is not None and not 0 <= arguments.port < 65_536:
        raise ConfigError(f"--port {arguments.port}: want a port from 0 to 65535")
    if arguments.check:
        print(f"{arguments.feeds}: fits the store {file.store.id}")
        return 0
    with ExitStack() as stack:
        destination: Destination
        if arguments.record is not None:
            destination = ToRecording(arguments.record, file.store)
        elif file.settings.to is not None:
            destination = ToBroker(file.settings.to.broker(file.base), file.store, file.settings.name)
        else:
            raise ConfigError(f"{arguments.feeds}: want a table [to] with the store's broker, or --record DIR")
        stack.callback(destination.close)
        bridge = Bridge(file, destination)
        if arguments.port is not None:
            try:
                server = HealthServer(bridge.health, arguments.port, metrics_text)
            except OSError as error:
                raise ConfigError(f"--port {arguments.port} cannot be used: {error.strerror}") from None
            stack.callback(server.close)
            threading.Thread(target=server.run, name="health", daemon=True).start()
        stop = stack.enter_context(stop_signals())
        watch = _Watch(bridge, arguments.every, arguments.seconds)
        bridge.run(lambda: stop.is_set() or watch.over(), _say)
        for line in bridge.lines():
            print(line)
    return 0


class _Watch:
    """Reports the feeds now and then, and knows when the time is over."""

    def __init__(self, bridge: Bridge, every_s: float, seconds: float | None) -> None:
        self._bridge, self._every_s = bridge, every_s
        self._due_s = time.monotonic() + every_s
        self._end_s = None if seconds is None else time.monotonic() + seconds

    def over(self) -> bool:
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + self._every_s
            for line in self._bridge.lines():
                print(line, flush=True)
        return self._end_s is not None and now_s >= self._end_s


def _say(sentence: str) -> None:
    print(f"fusion feed: {sentence}", file=sys.stderr, flush=True)


FEED = Command(
    "feed",
    "Take streams that cameras, boxes, scales and tag readers already send, and publish or record them for a store.",
    ("feeds.toml", "feeds.toml --record recording --seconds 600"),
    {0: "ended by Ctrl-C, SIGTERM or --seconds"},
    _declare,
    _feed,
)
