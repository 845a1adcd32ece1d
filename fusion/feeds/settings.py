"""feeds.toml: which streams of other makers a store has, and which of its cameras, plates and readers each of them is.

Paths in the file are relative to it. It names where secrets are, and holds none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, model_validator

from fusion.errors import ConfigError
from fusion.example_stores.catalogue import store_folder
from fusion.files.secrets import secret_of
from fusion.live.connection import Broker
from fusion.store.models import Store
from fusion.store.toml_files import read_toml
from fusion.store.values import Identifier, StrictModel, require, validation_faults

Topic = Annotated[str, Field(min_length=1, max_length=1024)]


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


class FeedsSettings(StrictModel):
    """feeds.toml as written.

    Attributes:
        store: the store folder, or the name of an example store.
        to: the store's own broker, to which observations are published; None where they are recorded.
    """

    store: Identifier
    to: BrokerSettings | None = None
    broker: dict[Identifier, BrokerSettings] = Field(default_factory=dict)
    onvif: tuple[OnvifSettings, ...] = ()


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
        try:
            settings = FeedsSettings.model_validate(read_toml(path, "a feeds.toml"))
        except ValidationError as error:
            raise ConfigError(list(validation_faults(error, f"{path.name}: "))) from None
        folder = path.parent / settings.store
        store = Store.load(folder if folder.exists() else store_folder(settings.store))
        faults = [f"{path.name}: {fault}" for fault in _faults(settings, store)]
        if faults:
            raise ConfigError(faults)
        return cls(settings, path.parent, store)


def _faults(settings: FeedsSettings, store: Store) -> Iterator[str]:
    """What does not fit the store, or names a table that is not there."""
    cameras = [camera.name for camera in store.cameras]
    named = [(f"onvif[{i}]", feed.camera) for i, feed in enumerate(settings.onvif)]
    for place, camera in named:
        if camera not in cameras:
            yield f"{place}.camera: want a camera of cameras.toml ({_some(cameras)}), got {camera!r}"
    for camera, n in Counter(camera for _, camera in named).items():
        if n > 1:
            yield f"camera {camera!r}: want one feed for it, got {n}"
    if settings.onvif and store.keypoints != "box2":
        yield (
            f"onvif: want keypoints = \"box2\" in store.toml, since ONVIF cameras report boxes; got {store.keypoints!r}"
        )
    for place, broker in [(f"onvif[{i}]", feed.broker) for i, feed in enumerate(settings.onvif)]:
        if broker is not None and broker not in settings.broker:
            yield f"{place}.broker: want a table [broker.{broker}] with its address"
    if not named:
        yield "want at least one feed, such as [[onvif]]"


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "it has none"
