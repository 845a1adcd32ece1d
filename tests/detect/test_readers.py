"""One camera's reader: its password, what it refuses, how it waits, and what it says about it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from rtsp_cameras import RtspServer, SimulatedCamera, encode

from fusion.detect.health import CameraHealth, Delays
from fusion.detect.pictures import scale_to_calibration
from fusion.detect.readers import CameraReader
from fusion.detect.settings import DetectFile, Source
from fusion.live.clock import SystemClock
from fusion.simulation import demo_store
from fusion.store.models import Store

pytest.importorskip("av", reason="the extra `detect` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `detect` is not installed")

STORE = demo_store(n_cameras=1, n_plates=2)
NAME = STORE.cameras[0].name
PATIENCE_S = 60.0


class HastyClock(SystemClock):
    """Waits a hundredth of what is asked for, so that pauses between attempts take no time."""

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        return event.wait(timeout_s / 100)


class Watched:
    """A reader that runs, with what it reports."""

    def __init__(self, source: Source) -> None:
        self.lines: list[str] = []
        ready = threading.Event()
        self.reader = CameraReader(source, 30.0, Delays(0.15), ready, self.lines.append, HastyClock())
        self.reader.start()

    def until(self, holds: Callable[[CameraHealth], bool]) -> CameraHealth:
        until_s = time.monotonic() + PATIENCE_S
        while not holds(health := self.reader.health()):
            assert time.monotonic() < until_s, (health, self.lines)
            time.sleep(0.01)
        return health

    def stop(self) -> None:
        self.reader.stop()
        self.reader.join(PATIENCE_S)


def camera(size: tuple[int, int] = (320, 180), seconds: float = 30.0, **settings: object) -> SimulatedCamera:
    pictures = np.full((1, size[1], size[0], 3), 128, np.uint8)
    unit = encode(pictures, 20.0)[0]
    times_ns = [time.time_ns() + number * 50_000_000 for number in range(round(20 * seconds))]
    return SimulatedCamera(times_ns, [unit] * len(times_ns), **settings)  # type: ignore[arg-type]


def source_of(folder: Path, url: str, store: Store = STORE, more: str = "") -> Source:
    (folder / "detect.toml").write_text(f'[cameras.{NAME}]\nurl = "{url}"\n{more}')
    return DetectFile.load(folder / "detect.toml").sources(store)[0]


def with_password(folder: Path, password: str) -> str:
    (folder / "password").touch(mode=0o600)
    (folder / "password").write_text(password)
    return 'user = "shop"\npassword_file = "password"\n'


def test_a_camera_with_a_password_is_read(tmp_path: Path) -> None:
    with RtspServer({NAME: camera(user="shop", password="hush / 1")}) as server:
        watched = Watched(source_of(tmp_path, server.url(NAME), more=with_password(tmp_path, "hush / 1")))
        health = watched.until(lambda health: health.size is not None)
        watched.stop()
    assert (health.state, health.size, health.source) == ("online", (320, 180), server.url(NAME))
    assert watched.reader.take() is not None and watched.reader.take() is None


def test_a_wrong_password_is_reported_and_not_repeated(tmp_path: Path) -> None:
    with RtspServer({NAME: camera(user="shop", password="right")}) as server:
        watched = Watched(source_of(tmp_path, server.url(NAME), more=with_password(tmp_path, "hush")))
        health = watched.until(lambda health: len(watched.lines) >= 3)
        watched.stop()
    assert health.state == "away" and health.error is not None
    assert "401" in health.error and server.url(NAME) in health.error
    assert "hush" not in "\n".join([*watched.lines, repr(health), health.line()])


class JpegCamera:
    """Motion JPEG over HTTP, some ten pictures a second, without any times."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/video"
        self.closing = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        picture = cv2.imencode(".jpg", np.full((180, 320, 3), 90, np.uint8))[1].tobytes()
        part = b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(picture), picture)
        with self._listener, contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=next\r\n\r\n")
                while not self.closing.wait(0.1):
                    connection.sendall(part)


def test_motion_jpeg_is_dated_by_its_arrival(tmp_path: Path) -> None:
    camera = JpegCamera()
    watched = Watched(source_of(tmp_path, camera.url))
    watched.until(lambda health: health.n_received > 40)
    before_ns = time.time_ns()
    watched.reader.take()
    watched.until(lambda health: watched.reader.waiting_since_s() is not None)
    shot = watched.reader.take()
    camera.closing.set()
    watched.stop()
    assert shot is not None
    # With the 25 pictures a second that FFmpeg makes up it would be dated 2.4 s earlier by now.
    assert before_ns - 1e9 < shot.t_ns < time.time_ns()
    assert watched.reader.health().clock == "arrival"


@pytest.mark.parametrize("where", ["closed port", "no RTSP", "unknown camera"])
def test_what_is_no_camera_is_tried_again(where: str, tmp_path: Path) -> None:
    with RtspServer({"other": camera()}) as server:
        url = {"closed port": "rtsp://127.0.0.1:9/a", "no RTSP": server.url("other").replace("rtsp", "http")}
        watched = Watched(source_of(tmp_path, url.get(where, server.url(NAME))))
        watched.until(lambda health: len(watched.lines) >= 3)
        watched.stop()
    assert all(line.startswith(f"{NAME}: away: ") and line.endswith("; tries again") for line in watched.lines)


def test_pictures_of_another_shape_are_refused(tmp_path: Path) -> None:
    with RtspServer({NAME: camera((320, 240))}) as server:
        watched = Watched(source_of(tmp_path, server.url(NAME)))
        health = watched.until(lambda health: health.state == "away")
        watched.stop()
    wanted = "want pictures in the shape of 1280 x 720, as in cameras.toml, got 320 x 240"
    assert health.error is not None and wanted in health.error


def test_a_camera_that_is_set_to_another_shape_is_refused_from_then_on(tmp_path: Path) -> None:
    changes = camera()
    changes.units = [*changes.units[:60], *camera((320, 240)).units]
    with RtspServer({NAME: changes}) as server:
        watched = Watched(source_of(tmp_path, server.url(NAME)))
        watched.until(lambda health: health.state == "online")
        health = watched.until(lambda health: health.state == "away")
        watched.stop()
    assert health.error is not None and "got 320 x 240" in health.error


def test_damaged_pictures_are_counted_and_survived(tmp_path: Path) -> None:
    damaged = camera()
    dice = np.random.default_rng(3)
    for place in range(40, 80):
        unit = bytearray(damaged.units[place])
        for at in dice.integers(40, len(unit), 20):
            unit[at] = dice.integers(1, 256)
        damaged.units[place] = bytes(unit)  # type: ignore[index]
    with RtspServer({NAME: damaged}) as server:
        watched = Watched(source_of(tmp_path, server.url(NAME)))
        health = watched.until(lambda health: health.n_received > 90)
        watched.stop()
    assert health.state == "online" and health.n_reconnects == 0


def test_the_line_names_what_was_lost() -> None:
    health = CameraHealth("cam01", "rtsp://192.0.2.1/a", state="online", n_dropped=3, n_reconnects=2, delay_s=0.25)
    line = health.line()
    assert "3 dropped" in line and "connected again 2 times" in line and "0.25 s late" in line


@pytest.mark.parametrize(
    ("picture", "calibrated", "scale"),
    [
        ((1280, 720), (1280, 720), (1.0, 1.0)),
        ((640, 360), (1280, 720), (2.0, 2.0)),
        ((704, 396), (1920, 1080), (1920 / 704, 1080 / 396)),
        ((1080, 1920), (1088, 1920), (1.0, 1.0)),
        ((1920, 1088), (1920, 1080), (1.0, 1.0)),
        ((640, 480), (1280, 720), None),
        ((720, 1280), (1280, 720), None),
    ],
)
def test_scales_to_the_calibrated_picture(
    picture: tuple[int, int], calibrated: tuple[int, int], scale: tuple[float, float] | None
) -> None:
    assert scale_to_calibration(picture, calibrated) == scale
