"""detect.toml: strict, complete in its faults, and silent about secrets."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from fusion.detect.settings import DetectFile
from fusion.errors import ConfigError
from fusion.simulation import demo_store

STORE = demo_store(n_cameras=3, n_plates=2)
NAMES = [camera.name for camera in STORE.cameras]


def load(folder: Path, text: str) -> DetectFile:
    (folder / "detect.toml").write_text(text, encoding="utf-8")
    return DetectFile.load(folder / "detect.toml")


def test_a_network_camera_gets_its_password_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("p w/@:#\n")
    (tmp_path / "secret").chmod(0o600)
    file = load(
        tmp_path,
        f"""
        fps_max = 12
        [model]
        path = "model.onnx"
        [cameras.{NAMES[0]}]
        url = "rtsp://192.0.2.1:554/stream?token=hush"
        user = "shop"
        password_file = "secret"
        delay_s = 0.2
        """,
    )
    assert file.settings.model.path == tmp_path / "model.onnx"
    (source,) = file.sources(STORE)
    assert source.address == "rtsp://shop:p%20w%2F%40%3A%23@192.0.2.1:554/stream?token=hush"
    assert source.shown == "rtsp://192.0.2.1:554/stream?..."
    assert (source.kind, source.delay_s, source.camera) == ("network", 0.2, STORE.cameras[0])
    for shown in (repr(source), str(file)):
        assert "p w" not in shown and "p%20w" not in shown
    assert "hush" not in repr(source)


def test_a_password_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f'[cameras.{NAMES[0]}]\nurl = "rtsp://192.0.2.1/a"\nuser = "shop"\npassword_env = "CAMERA_PASSWORD"\n'
    file = load(tmp_path, text)
    with pytest.raises(ConfigError, match=f"cameras.{NAMES[0]}: the camera's password: .*CAMERA_PASSWORD is not set"):
        file.sources(STORE)
    monkeypatch.setenv("CAMERA_PASSWORD", "hush")
    assert file.sources(STORE)[0].address == "rtsp://shop:hush@192.0.2.1/a"


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        ('url = "rtsp://shop:hush@192.0.2.1/a"', "want no user or password in the URL"),
        ('url = "rtsp://shop:hush@[192.0.2.1/a"', "cannot be read"),
        ('url = ["rtsp://shop:hush@192.0.2.1/a"]', "want a URL, a device or a file"),
        ('url = "ftp://192.0.2.1/hush"', "want a URL of rtsp, rtsps, http, https, got 'ftp'"),
        ('url = "rtsp:///hush"', "want a URL with a host"),
        ('url = "rtsp://192.0.2.1/a"\nuser = "shop"', "want user together with a password"),
        ('url = "rtsp://192.0.2.1/a"\npassword = "hush"', "password: unknown key"),
        ('url = "rtsp://192.0.2.1/a"\nstart = 2026-01-01T00:00:00Z', "want start of a video file alone"),
        ('url = "a.mp4"\nstart = 2026-01-01T00:00:00', "should have timezone info"),
        ('url = "a.mp4"\nuser = "shop"\npassword_env = "X"', "want user and password of a URL alone"),
        ('url = "rtsp://192.0.2.1/a"\ndelay_s = 200', "less than or equal to 2"),
        ('url = ""', "want a URL"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_without_repeating_secrets(camera: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, f"[cameras.{NAMES[0]}]\n{camera}\n")
    assert "hush" not in str(caught.value)


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    file = load(
        tmp_path,
        f'[cameras.{NAMES[0]}]\nurl = "missing.mp4"\n[cameras.{NAMES[1]}]\nurl = "a.mp4"\n'
        f'[cameras.{NAMES[2]}]\nurl = "/dev/video0"\n[cameras.other]\nurl = "/dev/video1"\n',
    )
    with pytest.raises(ConfigError) as caught:
        file.sources(STORE)
    assert [fault.split(": ")[1:3] for fault in caught.value.faults] == [
        [f"cameras.{NAMES[0]}", f"{tmp_path / 'missing.mp4'} does not exist; pass a video file, a device or a URL"],
        ["cameras.other", f"want a camera of cameras.toml ({', '.join(NAMES)})"],
        ["cameras", "want either files or live cameras, got both"],
    ]


def test_nothing_to_watch_and_unknown_keys_are_faults(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 faults") as caught:
        load(tmp_path, "speed = 1\n")
    assert "speed: unknown key" in str(caught.value) and "cameras: missing" in str(caught.value)
    with pytest.raises(ConfigError, match="at least 1 item"):
        load(tmp_path, "[cameras]\n")
    with pytest.raises(ConfigError, match="does not exist; pass a"):
        DetectFile.load(tmp_path / "none.toml")


def test_a_files_start_is_exact(tmp_path: Path) -> None:
    file = load(tmp_path, f'[cameras.{NAMES[0]}]\nurl = "a.mp4"\nstart = 2026-01-01T10:00:00.123456+02:00\n')
    at = datetime.datetime(2026, 1, 1, 8, 0, 0, tzinfo=datetime.UTC)
    assert file.settings.cameras[NAMES[0]].start_ns == round(at.timestamp()) * 10**9 + 123_456_000
