"""The process around the loop: reports, the health file, and every way in which it ends."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from detect.graphs import constant_model
from rtsp_cameras import RtspServer, SimulatedCamera, encode

from fusion.detect.frames import Framer
from fusion.detect.models import load_model
from fusion.detect.service import Deadline, Service
from fusion.detect.settings import ModelSettings, Source
from fusion.errors import FusionError
from fusion.observations import Observation
from fusion.simulation import demo_store

pytest.importorskip("av", reason="the extra `detect` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `detect` is not installed")
pytest.importorskip("onnx", reason="the extra `tfjs` is not installed")

STORE = demo_store(n_cameras=1, n_plates=2)
CAMERA = STORE.cameras[0]
PATIENCE_S = 60.0


class Kept:
    """A destination that keeps frames, loses the first, and may fail."""

    state = "online"

    def __init__(self, stop: threading.Event, n_wanted: int) -> None:
        self.frames: list[Observation] = []
        self.closed = False
        self._stop, self._n_wanted = stop, n_wanted

    @property
    def lost(self) -> Counter[str]:
        return Counter({"queue full": 1})

    def take(self, observation: Observation) -> None:
        self.frames.append(observation)
        if len(self.frames) >= self._n_wanted:
            self._stop.set()

    def close(self) -> None:
        self.closed = True


def framer(folder: Path) -> Framer:
    rows = np.zeros((1, 2, 57), np.float32)
    rows[0, 0] = [10, 10, 40, 90, 0.9, 0.0, *np.tile([20, 30, 0.8], 17)]
    model = load_model(ModelSettings(path=constant_model(folder / "m.onnx", ("n", 3, 96, 96), [rows]), threads=1), None)
    return Framer(STORE, model)


def camera() -> SimulatedCamera:
    unit = encode(np.full((1, 180, 320, 3), 128, np.uint8), 20.0)[0]
    return SimulatedCamera([time.time_ns() + number * 50_000_000 for number in range(1200)], [unit] * 1200)


def test_a_run_reports_and_ends_in_order(tmp_path: Path) -> None:
    stop, lines = threading.Event(), []
    kept = Kept(stop, 5)
    with RtspServer({CAMERA.name: camera()}) as server:
        # What is opened holds a password; what is shown does not.
        address = server.url(CAMERA.name).replace("rtsp://", "rtsp://shop:hush@")
        source = Source(CAMERA, "network", address, server.url(CAMERA.name))
        service = Service(
            [source], framer(tmp_path), kept, fps_max=20.0, show=lines.append, health_file=tmp_path / "health.json"
        )
        totals = service.run(Deadline(stop, PATIENCE_S))
    assert kept.closed and totals.n_pictures == len(kept.frames) >= 5
    assert totals.n_people == totals.n_pictures
    health = json.loads((tmp_path / "health.json").read_text())
    assert health["lost"] == {"queue full": 1} and health["destination"] == "online"
    assert health["cameras"][CAMERA.name]["n_used"] == totals.n_pictures
    assert f"{CAMERA.name}: online: {server.url(CAMERA.name)}, 320 x 180" in lines
    assert lines.count("destination: 1 lost: queue full") == 1
    assert "hush" not in (tmp_path / "health.json").read_text() + "".join(lines)


def test_no_camera_and_a_full_disk_end_nothing(tmp_path: Path) -> None:
    stop, lines = threading.Event(), []
    source = Source(CAMERA, "network", "rtsp://127.0.0.1:9/a", "rtsp://127.0.0.1:9/a")
    service = Service(
        [source], framer(tmp_path), Kept(stop, 1), fps_max=20.0, show=lines.append,
        health_file=tmp_path / "none" / "health.json",
    )  # fmt: skip
    assert service.run(Deadline(stop, 0.2)).n_pictures == 0
    assert sum("cannot write" in line for line in lines) == 1
    assert any("away: rtsp://127.0.0.1:9/a: connection refused; tries again" in line for line in lines)


def test_a_model_that_fails_for_good_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, lines = threading.Event(), []
    fails = framer(tmp_path)

    def broken(_: object) -> list[object]:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(fails.model, "people", broken)
    with RtspServer({CAMERA.name: camera()}) as server:
        source = Source(CAMERA, "network", server.url(CAMERA.name), server.url(CAMERA.name))
        service = Service([source], fails, Kept(stop, 1), fps_max=20.0, show=lines.append)
        with pytest.raises(FusionError, match="the model failed 20 times in turn: RuntimeError: out of memory"):
            service.run(Deadline(stop, PATIENCE_S))
    assert sum(line.startswith("the model fails: ") for line in lines) == 20


def test_a_deadline_ends_at_its_time_or_when_it_is_stopped() -> None:
    stop = threading.Event()
    assert Deadline(stop, 0.0).is_set() and not Deadline(stop, 1000.0).is_set()
    stop.set()
    assert Deadline(stop, 1000.0).is_set()
