"""detect.toml: which cameras are watched, and with which model. Paths in it are relative to it.

It holds no secret: the password of a camera is in a file that only its owner may read, or in the environment.
"""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import AwareDatetime, BeforeValidator, Field, model_validator

from fusion.detect.boxes import Trained
from fusion.detect.sessions import Device
from fusion.errors import ConfigError
from fusion.files.secrets import secret_of
from fusion.store.models import Camera, Store
from fusion.store.toml_files import read_toml_model
from fusion.store.values import Finite, Identifier, StrictModel, require

# From an exposure to its arrival over a shop's network, where neither the settings nor another camera's clock state it:
# a frame of 25 a second, an encoder without look-ahead, a switch.
DELAY_S = 0.15
NETWORK_SCHEMES = ("rtsp", "rtsps", "http", "https")
Kind = Literal["network", "usb", "file"]
Side = Annotated[int, Field(ge=64, le=4096)]


class ModelSettings(StrictModel):
    """The pose model.

    Attributes:
        path: an ONNX file, or a TensorFlow.js graph model's JSON; None where a detector's boxes are enough.
        skeleton: order of its joints, by name; None for the one with which its family is published.
        side: long side of its input in pixels, where the model leaves that open.
        score_min: people with a lower score are left out.
        device: where it runs; auto takes the fastest there is.
        threads: of the CPU; 0 for all cores.
    """

    path: Path | None = None
    skeleton: Identifier | None = None
    side: Side | None = None
    score_min: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    device: Device = "auto"
    threads: Annotated[int, Field(ge=0, le=1024)] = 0


class DetectorSettings(StrictModel):
    """The detector of people before a model that looks at one person at a time.

    Attributes:
        path: an ONNX file.
        side: as for the pose model.
        trained: its family, where its outputs do not show it.
    """

    path: Path
    side: Side | None = None
    trained: Trained | None = None


def _address(value: object) -> object:
    """Checked here, since other checks would repeat the value, which may hold a password."""
    if not isinstance(value, str) or not 0 < len(value) <= 2000 or not value.isprintable():
        raise ValueError("want a URL, a device or a file in 1 to 2000 printable characters, got something else")
    return value


class CameraSettings(StrictModel):
    """Where one camera's video comes from.

    Attributes:
        url: rtsp://HOST/PATH or another URL, a device such as /dev/video0, or a video file.
        user: of the camera's account.
        password_file, password_env: where its password is; one of them at most.
        delay_s: from an exposure to its arrival, for a stream without the time of the camera's clock.
        start: when the first picture of a file was taken.
    """

    url: Annotated[str, BeforeValidator(_address)]
    user: Identifier | None = None
    password_file: Path | None = None
    password_env: Identifier | None = None
    delay_s: Annotated[Finite, Field(ge=0.0, le=2.0)] | None = None
    start: AwareDatetime | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        # Nothing of the URL is repeated in a message: it may hold a password.
        try:
            url = urlsplit(self.url)
            password, host, _ = url.password, url.hostname, url.port
        except ValueError:
            raise ValueError("want a URL with a host and a port, got one that cannot be read") from None
        if "://" in self.url:
            require(url.scheme in NETWORK_SCHEMES, "a URL of " + ", ".join(NETWORK_SCHEMES), url.scheme)
            require(bool(host), "a URL with a host", "none")
        if password is not None or url.username is not None:
            raise ValueError("want no user or password in the URL; use user and password_file or password_env")
        require(self.password_file is None or self.password_env is None, "one source of the password", "two")
        has_password = self.password_file is not None or self.password_env is not None
        require((self.user is None) == (not has_password), "user together with a password", "one of them")
        require(self.user is None or self.kind == "network", "user and password of a URL alone", self.kind)
        require(self.start is None or self.kind == "file", "start of a video file alone", self.kind)
        return self

    @property
    def kind(self) -> Kind:
        """Where the pictures come from."""
        if "://" in self.url:
            return "network"
        return "usb" if self.url.startswith("/dev/") else "file"

    @property
    def start_ns(self) -> int | None:
        """UTC nanoseconds of `start`."""
        if self.start is None:
            return None
        since = self.start - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        return (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000


class DetectSettings(StrictModel):
    """A detect.toml.

    Attributes:
        model, detector: what finds people.
        appearance: a model of a person's looks in ONNX, for a store with `appearance_dim`.
        cameras: by the names of cameras.toml.
        fps_max: pictures a second that are looked at, of each camera; fewer where the machine cannot keep up.
    """

    model: ModelSettings = ModelSettings()
    detector: DetectorSettings | None = None
    appearance: Path | None = None
    cameras: Annotated[dict[Identifier, CameraSettings], Field(min_length=1)]
    fps_max: Annotated[Finite, Field(ge=0.1, le=240.0)] = 10.0


@dataclass(frozen=True, slots=True)
class Source:
    """One camera's video, with what is needed to open it.

    Attributes:
        camera: its calibration in the store.
        kind: where the pictures come from.
        address: as FFmpeg opens it; may hold a password and is never shown.
        shown: the same without anything secret.
        delay_s, start_ns: as in CameraSettings; None where not stated.
    """

    camera: Camera
    kind: Kind
    address: str
    shown: str
    delay_s: float | None = None
    start_ns: int | None = None

    def __repr__(self) -> str:
        return f"Source({self.camera.name}, {self.shown})"


@dataclass(frozen=True, slots=True)
class DetectFile:
    """A detect.toml that was read.

    Attributes:
        settings: its contents, paths made absolute.
        base: its folder.
        name: of the file, for messages.
    """

    settings: DetectSettings
    base: Path
    name: str

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a detect.toml. Raises ConfigError with every fault."""
        path = Path(path)
        settings = read_toml_model(path, "a detect.toml, as docs/detect.md describes it", DetectSettings)
        base = path.resolve().parent
        model, detector, appearance = settings.model, settings.detector, settings.appearance
        if model.path is not None:
            model = model.model_copy(update={"path": base / model.path})
        if detector is not None:
            detector = detector.model_copy(update={"path": base / detector.path})
        absolute = {
            "model": model,
            "detector": detector,
            "appearance": None if appearance is None else base / appearance,
        }
        return cls(settings.model_copy(update=absolute), base, path.name)

    def sources(self, store: Store) -> list[Source]:
        """The cameras with their calibration and their passwords.

        Raises:
            ConfigError: with every camera that the store does not have, and every secret that is missing; or files and
                streams together, which have no common time.
        """
        faults: list[str] = []
        found: list[Source] = []
        known = {camera.name: camera for camera in store.cameras}
        for name, camera in self.settings.cameras.items():
            if name not in known:
                faults.append(f"{self.name}: cameras.{name}: want a camera of cameras.toml ({', '.join(known)})")
                continue
            try:
                found.append(_source(known[name], camera, self.base))
            except ConfigError as error:
                faults += [f"{self.name}: cameras.{name}: {fault}" for fault in error.faults]
        kinds = {source.kind == "file" for source in found}
        if len(kinds) == 2:
            faults.append(f"{self.name}: cameras: want either files or live cameras, got both")
        if faults:
            raise ConfigError(faults)
        return found


def _source(camera: Camera, settings: CameraSettings, base: Path) -> Source:
    if settings.kind == "file":
        path = base / settings.url
        if not path.is_file():
            raise ConfigError(f"{path} does not exist; pass a video file, a device or a URL")
        return Source(camera, "file", str(path), settings.url, settings.delay_s, settings.start_ns)
    if settings.kind == "usb":
        return Source(camera, "usb", settings.url, settings.url, settings.delay_s)
    url = urlsplit(settings.url)
    # A token may stand in the query.
    shown = urlunsplit((url.scheme, url.netloc, url.path, "...", "")) if url.query else settings.url
    address = settings.url
    if settings.user is not None:
        file = None if settings.password_file is None else base / settings.password_file
        password = secret_of(file=file, env=settings.password_env, what="the camera's password")
        netloc = f"{quote(settings.user, safe='')}:{quote(password, safe='')}@{url.netloc}"
        address = urlunsplit((url.scheme, netloc, url.path, url.query, ""))
    return Source(camera, "network", address, shown, settings.delay_s)
