"""feeds.toml: which streams of other makers a store has, and which of its cameras, plates and readers each of them is.

Paths in the file are relative to it. It names where secrets are, and holds none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from fusion.errors import ConfigError
from fusion.example_stores.catalogue import store_folder
from fusion.feeds.kafka import consumer_settings
from fusion.feeds.llrp import PORT
from fusion.feeds.scales import decimation
from fusion.files.secrets import secret_of
from fusion.live.connection import Broker
from fusion.store.models import WEIGHT_UNITS_G, Store
from fusion.store.toml_files import read_toml_model
from fusion.store.values import Identifier, StrictModel, require

Topic = Annotated[str, Field(min_length=1, max_length=1024)]
# Tables that say where something is; the others are feeds.
PLACES = ("store", "name", "to", "broker", "kafka", "device")
Antenna = Annotated[int, Field(ge=1, le=65_535)]
TopicLevel = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^/+#]+$")]


class Secret(StrictModel):
    """Where a password is: in a file that only its owner can read, or in the environment; neither where none is asked.

    Attributes:
        password_file: the file; password_env: name of the environment variable.
    """

    password_file: Identifier | None = None
    password_env: Identifier | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        both = self.password_file is not None and self.password_env is not None
        require(not both, "password_file or password_env", "both")
        return self

    def password(self, base: Path, what: str) -> str | None:
        """The password; None where none is named. Raises ConfigError."""
        if self.password_file is not None:
            return secret_of(file=base / self.password_file, what=what)
        return None if self.password_env is None else secret_of(env=self.password_env, what=what)


class BrokerSettings(Secret):
    """`[broker.NAME]`: an MQTT broker to which other makers' devices publish.

    Attributes:
        address: HOST:PORT, mqtt://USER@HOST:PORT or mqtts://USER@HOST:PORT.
        ca: file of the certificate authorities to trust.
    """

    address: Identifier
    ca: Identifier | None = None

    def broker(self, base: Path) -> Broker:
        """The broker with its password. Raises ConfigError."""
        return Broker.of(
            self.address, self.password(base, "the broker's password"), None if self.ca is None else base / self.ca
        )


class KafkaSettings(Secret):
    """`[kafka.NAME]`: a Kafka cluster to which other makers' programs publish; extra `kafka`.

    Attributes:
        servers: HOST:PORT, several with commas.
        user: name for SASL (SCRAM-SHA-512), where the brokers ask for one.
        tls: whether connections are encrypted; ca: file of the certificate authorities to trust.
    """

    servers: Identifier
    user: Identifier | None = None
    tls: bool = False
    ca: Identifier | None = None

    def consumer(self, base: Path) -> dict[str, Any]:
        """Settings of a consumer, see `consumer_settings`. Raises ConfigError."""
        ca = None if self.ca is None else str(base / self.ca)
        password = self.password(base, "the password for Kafka")
        return consumer_settings(self.servers, self.user, password, tls=self.tls, ca=ca)


class DeviceSettings(Secret):
    """`[device.NAME]`: an ESPHome device whose web server has an event stream.

    Attributes:
        url: http://HOST/events.
        user: name for basic authentication, where the device asks for one.
    """

    url: Identifier
    user: Identifier | None = None

    @model_validator(mode="after")
    def _web(self) -> Self:
        parts = urlsplit(self.url)
        require(parts.scheme in ("http", "https") and bool(parts.hostname), "http://HOST/events", self.url)
        require(parts.username is None, "no user in the url; write user = and password_file =", "one")
        return self


class OnvifSettings(Secret):
    """`[[onvif]]`: people that an ONVIF camera reports, over RTSP (`url`) or over MQTT (`broker` and `topic`).

    Attributes:
        camera: name in cameras.toml.
        url: rtsp://HOST/PATH of a media profile with metadata; user and password for it, ca for rtsps.
        broker: a table `[broker.NAME]`; topic: such as PREFIX/onvif-mj/VideoAnalytics/PROFILE/MODULE.
        module: the analytics module whose frames count; None for the first that is heard.
        likelihood_min: of the class Human.
    """

    camera: Identifier
    url: Identifier | None = None
    user: Identifier | None = None
    ca: Identifier | None = None
    broker: Identifier | None = None
    topic: Topic | None = None
    module: Identifier | None = None
    likelihood_min: float = Field(default=0.0, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        over_mqtt = self.broker is not None and self.topic is not None
        require((self.url is not None) != over_mqtt, "url, or broker and topic", self.model_fields_set)
        if self.url is not None:
            require(self.broker is None and self.topic is None, "url, or broker and topic", "both")
            parts = urlsplit(self.url)
            require(parts.scheme in ("rtsp", "rtsps") and bool(parts.hostname), "rtsp://HOST/PATH", self.url)
            require(parts.username is None, "no user in the url; write user = and password_file =", "one")
        return self


class DeepStreamSettings(StrictModel):
    """`[[deepstream]]`: people that an NVIDIA DeepStream application reports.

    Attributes:
        broker: a table `[broker.NAME]`; kafka: in its place, a table `[kafka.NAME]`.
        topic: where the messages are.
        format: of the messages: json (minimal, full or nv.Frame) or protobuf (nv.Frame).
        cameras: name in cameras.toml by sensor id.
        types: labels that mean a person.
        size: width and height of the pictures that its boxes are in (the stream muxer's), where cameras.toml differs.
    """

    broker: Identifier | None = None
    kafka: Identifier | None = None
    topic: Topic
    format: Literal["json", "protobuf"] = "json"
    cameras: dict[str, Identifier] = Field(min_length=1)
    types: tuple[Identifier, ...] = Field(default=("person",), min_length=1)
    size: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        require((self.broker is None) != (self.kafka is None), "broker or kafka", self.model_fields_set)
        require(self.kafka is None or not self.topic.startswith("^"), "the name of a topic", self.topic)
        return self


class ScaleUnit(StrictModel):
    """In which unit a scale reports, and how often.

    Attributes:
        unit: g, kg, lb or oz; grams_per_unit: grams of any other unit, such as the converter's counts.
        rate_hz: values a second: `weight_rate_hz` of store.toml or a whole multiple of it; None for the first.
    """

    unit: Literal["g", "kg", "lb", "oz"] | None = None
    grams_per_unit: float | None = Field(default=None, allow_inf_nan=False)
    rate_hz: float | None = Field(default=None, gt=0.0, le=10_000.0)

    @model_validator(mode="after")
    def _scaled(self) -> Self:
        require(self.unit is None or self.grams_per_unit is None, "unit or grams_per_unit", "both")
        require(self.grams_per_unit != 0.0, "grams_per_unit other than 0", self.grams_per_unit)
        return self

    @property
    def unit_g(self) -> float | None:
        """Grams of the unit; None where neither is written."""
        return self.grams_per_unit if self.unit is None else WEIGHT_UNITS_G[self.unit]


class ScaleSettings(ScaleUnit):
    """`[[scale]]`: a plate whose scale publishes single values, such as those of ESPHome or Home Assistant.

    Attributes:
        plate: name in plates.csv.
        broker, topic: where the values are, such as NAME/sensor/ID/state.
        device, id: in their place, a table `[device.NAME]` and the id of its sensor, such as sensor-tray_1.
        key: where a JSON object has the value, with dots between levels; None for a bare number.
        unit_topic: in place of unit: topic of the MQTT discovery message, or of a statestream's unit_of_measurement.
    """

    plate: Identifier
    broker: Identifier | None = None
    topic: Topic | None = None
    device: Identifier | None = None
    id: Identifier | None = None
    key: Identifier | None = None
    unit_topic: Topic | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        written = {"broker", "topic", "device", "id"} & self.model_fields_set
        one = written in ({"broker", "topic"}, {"device", "id"})
        require(one, "broker and topic, or device and id", sorted(written))
        n = (self.unit_g is not None) + (self.unit_topic is not None)
        require(n == 1, "one of unit, grams_per_unit and unit_topic", n)
        if self.device is not None:
            require(self.key is None and self.unit_topic is None, "no key and no unit_topic with a device", "one")
        require(not set("+#") & set(f"{self.topic}{self.unit_topic}"), "a topic without wildcards", self.topic)
        return self


class SparkplugSettings(ScaleUnit):
    """`[[sparkplug]]`: the scales of a Sparkplug B edge node.

    Attributes:
        broker: where it publishes.
        group, node: its ids; device: that of the device with the scales; None for metrics of the node itself.
        plates: name in plates.csv by the metric's name.
    """

    broker: Identifier
    group: TopicLevel
    node: TopicLevel
    device: TopicLevel | None = None
    plates: dict[str, Identifier] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        require(self.unit_g is not None, "unit or grams_per_unit", "neither")
        return self


class ReaderSettings(StrictModel):
    """`[[reader]]`: the tags of an RFID reader that speaks LLRP.

    Attributes:
        name: of the source in sightings.
        host, port: its address.
        antennas: id of the zone or gate that each antenna looks at, by its number.
        probability: that a read is right.
        again_s: a tag that was out of the field for as long counts again.
        clock: whose time reads have: the reader's, or arrival for a reader whose clock is not set.
    """

    name: Identifier
    host: Identifier
    port: int = Field(default=PORT, gt=0, lt=65_536)
    antennas: dict[Antenna, Identifier] = Field(min_length=1)
    probability: float = Field(default=0.99, ge=0.0, le=1.0)
    again_s: float = Field(default=10.0, ge=2.0, le=86_400.0)
    clock: Literal["reader", "arrival"] = "reader"


class FeedsSettings(StrictModel):
    """feeds.toml as written.

    Attributes:
        store: the store folder, or the name of an example store.
        name: under which they are published: of each `fusion feed` of a store another.
        to: the store's own broker, to which observations are published; None where they are recorded.
    """

    store: Identifier
    name: Identifier = "feeds"
    to: BrokerSettings | None = None
    broker: dict[Identifier, BrokerSettings] = Field(default_factory=dict)
    kafka: dict[Identifier, KafkaSettings] = Field(default_factory=dict)
    device: dict[Identifier, DeviceSettings] = Field(default_factory=dict)
    onvif: tuple[OnvifSettings, ...] = ()
    deepstream: tuple[DeepStreamSettings, ...] = ()
    scale: tuple[ScaleSettings, ...] = ()
    sparkplug: tuple[SparkplugSettings, ...] = ()
    reader: tuple[ReaderSettings, ...] = ()


@dataclass(frozen=True)
class FeedsFile:
    """feeds.toml with the store that it is for.

    Attributes:
        settings: as written; base: the folder to which its paths are relative; store: as loaded.
    """

    settings: FeedsSettings
    base: Path
    store: Store

    @classmethod
    def load(cls, path: str | Path) -> FeedsFile:
        """Read the file and its store. Raises ConfigError with every fault, each with table and key."""
        path = Path(path)
        settings = read_toml_model(path, "a feeds.toml", FeedsSettings)
        folder = path.parent / settings.store
        example = store_folder(settings.store)
        store = Store.load(example if example.exists() and not folder.exists() else folder)
        faults = [f"{path.name}: {fault}" for fault in _faults(settings, store)]
        if faults:
            raise ConfigError(faults)
        return cls(settings, path.parent, store)


def _faults(settings: FeedsSettings, store: Store) -> Iterator[str]:
    """What does not fit the store, or names a table that is not there."""
    tables: list[tuple[str, StrictModel]] = [
        (f"{kind}[{i}]", table)
        for kind in FeedsSettings.model_fields
        if kind not in PLACES
        for i, table in enumerate(getattr(settings, kind))
    ]
    if not tables:
        yield "want at least one feed, such as [[onvif]]"
    for place, table in tables:
        known_tables = {
            "broker": settings.broker.keys(), "kafka": settings.kafka.keys(), "device": settings.device.keys(),
        }  # fmt: skip
        for kind, known in known_tables.items():
            # An edge node's device is an id of its own.
            name = getattr(table, kind, None) if not isinstance(table, SparkplugSettings) or kind == "broker" else None
            if name is not None and name not in known:
                yield f"{place}.{kind}: want a table [{kind}.{name}] with its address"
        if isinstance(table, ScaleUnit):
            yield from _rate_faults(place, table, store)
    cameras = [(f"onvif[{i}].camera", feed.camera) for i, feed in enumerate(settings.onvif)]
    for i, feed in enumerate(settings.deepstream):
        cameras += [(f"deepstream[{i}].cameras.{sensor}", camera) for sensor, camera in feed.cameras.items()]
    yield from _name_faults("camera", "cameras.toml", cameras, [camera.name for camera in store.cameras])
    plates = [(f"scale[{i}].plate", feed.plate) for i, feed in enumerate(settings.scale)]
    for i, node in enumerate(settings.sparkplug):
        plates += [(f"sparkplug[{i}].plates.{metric}", plate) for metric, plate in node.plates.items()]
    yield from _name_faults("plate", "plates.csv", plates, [plate.plate for plate in store.plates])
    places = [zone.id for zone in store.zone] + [gate.id for gate in store.gate]
    for i, reader in enumerate(settings.reader):
        for antenna, zone in reader.antennas.items():
            if zone not in places:
                want = f"want a zone or gate of store.toml ({_some(places)})"
                yield f"reader[{i}].antennas.{antenna}: {want}, got {zone!r}"
    for name, n in Counter(reader.name for reader in settings.reader).items():
        if n > 1:
            yield f"reader {name!r}: want a name for each reader, got {n} of this one"
    if settings.onvif and store.keypoints != "box2":
        yield f'onvif: want keypoints = "box2" in store.toml, since these cameras report boxes; got {store.keypoints!r}'


def _name_faults(what: str, file: str, named: list[tuple[str, str]], known: list[str]) -> Iterator[str]:
    for place, name in named:
        if name not in known:
            yield f"{place}: want a {what} of {file} ({_some(known)}), got {name!r}"
    for name, n in Counter(name for _, name in named).items():
        if n > 1:
            yield f"{what} {name!r}: want one feed for it, got {n}"


def _rate_faults(place: str, table: ScaleUnit, store: Store) -> Iterator[str]:
    rate_hz, store_hz = table.rate_hz or store.weight_rate_hz, store.weight_rate_hz
    if decimation(rate_hz, store_hz) is None:
        yield (
            f"{place}.rate_hz: want weight_rate_hz of store.toml ({store_hz:g}) or a whole multiple of it, got "
            f"{rate_hz:g}; samples are never made up, so set weight_rate_hz to the rate of the slowest scale"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "it has none"
