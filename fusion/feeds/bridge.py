"""Runs the feeds of a feeds.toml: connects them, makes observations of what they send, and hands these on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

from fusion.errors import ShapeError, in_short, terminal_text
from fusion.feeds.deepstream import DeepStreamFeed
from fusion.feeds.destination import Destination
from fusion.feeds.event_stream import EVENT_KEY, EventStreamLine
from fusion.feeds.feed import Began, Feed, Inbox, Message
from fusion.feeds.kafka import KafkaLine
from fusion.feeds.llrp import ReaderFeed, ReaderLine
from fusion.feeds.onvif import OnvifFeed, SceneReader
from fusion.feeds.people import Pictures
from fusion.feeds.rtsp import Camera, RtspLine
from fusion.feeds.scales import ScaleFeed
from fusion.feeds.settings import (
    DeepStreamSettings,
    FeedsFile,
    OnvifSettings,
    ReaderSettings,
    ScaleSettings,
    SparkplugSettings,
)
from fusion.feeds.sparkplug import SparkplugFeed
from fusion.feeds.subscription import BrokerLine, Subscription
from fusion.live.clock import SYSTEM_CLOCK, Clock
from fusion.live.messages import Refused
from fusion.observations import Observation
from fusion.store.card_numbers import without_card_number

# How often feeds are asked what their silence says.
QUIET_EVERY_S = 0.25


class AnyLine(Protocol):
    """A connection that runs in the background."""

    def start(self) -> None:
        """Connect."""
        ...

    def close(self) -> None:
        """End."""
        ...


class Bridge:
    """The feeds of one store and their connections.

    Attributes:
        feeds: in the order of the file.
    """

    def __init__(self, file: FeedsFile, destination: Destination, *, clock: Clock = SYSTEM_CLOCK) -> None:
        """Prepare the connections. Raises ConfigError or FusionError where one cannot be used."""
        self.feeds: list[Feed] = []
        self._file, self._destination, self._clock = file, destination, clock
        self._inbox = Inbox(clock)
        self._lines: list[AnyLine] = []
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._broker_lines: dict[str, BrokerLine] = {}
        # Of each device with an event stream, the feeds by the id of the sensor.
        self._sensors: dict[str, dict[str, Feed]] = {}
        self._pictures = Pictures(file.store)
        for onvif in file.settings.onvif:
            self._add_onvif(onvif)
        for deepstream in file.settings.deepstream:
            self._add_deepstream(deepstream)
        for scale in file.settings.scale:
            self._add_scale(scale)
        for sparkplug in file.settings.sparkplug:
            self._add_sparkplug(sparkplug)
        for reader in file.settings.reader:
            self._add_reader(reader)
        for name, sensors in self._sensors.items():
            device = file.settings.device[name]
            password = device.password(file.base, f"the password of device {name}")
            self._lines.append(
                EventStreamLine(device.url, sensors, self._inbox, clock, user=device.user, password=password)
            )
        for name, subscriptions in self._subscriptions.items():
            line = BrokerLine(file.settings.broker[name].broker(file.base), subscriptions, self._inbox, clock)
            self._broker_lines[name] = line
            self._lines.append(line)

    def run(self, stopped: Callable[[], bool], say: Callable[[str], None]) -> None:
        """Convert until `stopped` says so; say: takes sentences about what was refused."""
        for line in self._lines:
            line.start()
        try:
            quiet_s = self._clock.monotonic_s()
            while not stopped():
                entry = self._inbox.next(QUIET_EVERY_S)
                if entry is not None:
                    self._convert(*entry)
                if self._clock.monotonic_s() - quiet_s >= QUIET_EVERY_S:
                    quiet_s = self._clock.monotonic_s()
                    for feed in self.feeds:
                        now_ns = self._clock.wall_ns()
                        self._hand_on(feed, self._made(feed, feed.quiet, now_ns), now_ns)
                for feed in self.feeds:
                    while feed.health.sentences:
                        say(terminal_text(without_card_number(feed.health.sentences.popleft())))
        finally:
            for line in self._lines:
                line.close()

    def health(self) -> dict[str, Any]:
        """State of all feeds as plain data; well: all are connected."""
        return {
            "well": all(feed.health.state == "online" for feed in self.feeds),
            "destination": self._destination.state,
            "lost": dict(self._destination.lost),
            "feeds": {feed.health.name: feed.health.status() for feed in self.feeds},
        }

    def lines(self) -> Iterator[str]:
        """State of each feed, a line each, for people."""
        for feed in self.feeds:
            yield terminal_text(without_card_number(feed.health.line()))
        lost = ", ".join(f"{reason} {n}" for reason, n in self._destination.lost.items())
        yield f"destination: {self._destination.state}" + (f", lost {lost}" if lost else "")

    # ---- conversion --------------------------------------------------------------------------------------------------

    def _convert(self, feed: Feed, entry: Message | Began) -> None:
        if isinstance(entry, Began):
            found = self._made(feed, feed.began, entry.arrived_ns)
        else:
            found = self._made(feed, feed.observations, entry)
        self._hand_on(feed, found, entry.arrived_ns)

    def _made(self, feed: Feed, make: Callable[[Any], Sequence[Observation]], of: object) -> Sequence[Observation]:
        try:
            return make(of)
        except Refused as refused:
            feed.health.refuse(refused)
        except Exception as error:
            # A mistake of ours, which no stream may turn into an outage of the others.
            feed.health.refuse(Refused("fault in the conversion", in_short(error)))
        return ()

    def _hand_on(self, feed: Feed, observations: Sequence[Observation], arrived_ns: int) -> None:
        for observation in observations:
            try:
                self._destination.take(observation)
            except ShapeError as error:
                feed.health.refuse(Refused("another shape", str(error)))
            else:
                feed.health.accept(observation.t_ns, arrived_ns)

    # ---- feeds -------------------------------------------------------------------------------------------------------

    def _subscribe(self, broker: str, feed: Feed, topics: Sequence[str], retained: Sequence[str] = ()) -> None:
        """Add a feed. retained: those topics of it whose last message counts, however old it is."""
        self.feeds.append(feed)
        self._subscriptions.setdefault(broker, []).append(Subscription(feed, tuple(topics), tuple(retained)))

    def _add_onvif(self, settings: OnvifSettings) -> None:
        reader = SceneReader(settings.camera, self._pictures, settings.module, settings.likelihood_min)
        feed = OnvifFeed(f"onvif {settings.camera}", reader, as_json=settings.url is None)
        if settings.broker is not None and settings.topic is not None:
            self._subscribe(settings.broker, feed, [settings.topic])
        elif settings.url is not None:
            self.feeds.append(feed)
            base = self._file.base
            password = settings.password(base, f"the password of camera {settings.camera}")
            ca = None if settings.ca is None else base / settings.ca
            camera = Camera(settings.url, settings.user, password, ca)
            self._lines.append(RtspLine(feed, camera, self._inbox, self._clock))

    def _add_deepstream(self, settings: DeepStreamSettings) -> None:
        feed = DeepStreamFeed(
            f"deepstream {settings.broker or settings.kafka}/{settings.topic}", self._pictures, settings.cameras,
            form=settings.format, types=settings.types, size=settings.size,
        )  # fmt: skip
        if settings.broker is not None:
            self._subscribe(settings.broker, feed, [settings.topic])
        elif settings.kafka is not None:
            self.feeds.append(feed)
            cluster = self._file.settings.kafka[settings.kafka].consumer(self._file.base)
            self._lines.append(KafkaLine(feed, settings.topic, cluster, self._inbox, self._clock))

    def _add_scale(self, settings: ScaleSettings) -> None:
        feed = ScaleFeed(
            f"scale {settings.plate}", settings.plate, self._file.store,
            unit_g=settings.unit_g, unit_topic=settings.unit_topic,
            key=settings.key if settings.device is None else EVENT_KEY, rate_hz=settings.rate_hz,
        )  # fmt: skip
        if settings.broker is not None and settings.topic is not None:
            units = [settings.unit_topic] if settings.unit_topic is not None else []
            self._subscribe(settings.broker, feed, [settings.topic, *units], retained=units)
        elif settings.device is not None and settings.id is not None:
            self.feeds.append(feed)
            self._sensors.setdefault(settings.device, {})[settings.id] = feed

    def _add_sparkplug(self, settings: SparkplugSettings) -> None:
        node = f"{settings.group}/{settings.node}" + (f"/{settings.device}" if settings.device else "")
        feed = SparkplugFeed(
            f"sparkplug {node}", self._file.store, settings.plates,
            group=settings.group, node=settings.node, device=settings.device or "", unit_g=settings.unit_g or 1.0,
            rate_hz=settings.rate_hz, send=partial(self._send, settings.broker),
        )  # fmt: skip
        self._subscribe(settings.broker, feed, feed.topics)

    def _add_reader(self, settings: ReaderSettings) -> None:
        feed = ReaderFeed(
            settings.name, self._file.store, settings.antennas,
            probability=settings.probability, again_s=settings.again_s, clock=settings.clock,
        )  # fmt: skip
        self.feeds.append(feed)
        antennas = sorted(settings.antennas)
        self._lines.append(ReaderLine(feed, settings.host, settings.port, antennas, self._inbox, self._clock))

    def _send(self, broker: str, topic: str, payload: bytes) -> None:
        self._broker_lines[broker].send(topic, payload)
