"""Four cameras over RTSP through detection and a real broker: what arrives, and what the engine makes of it."""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from broker import MOSQUITTO, Mosquitto
from coded_video import model_bytes, units_of
from rtsp_cameras import RtspServer, SimulatedCamera

from fusion import Engine
from fusion.detect.frames import Framer
from fusion.detect.health import CameraHealth
from fusion.detect.loop import LiveDetection
from fusion.detect.models import load_model
from fusion.detect.settings import ModelSettings, Source
from fusion.feeds.destination import ToBroker
from fusion.live.clock import SystemClock
from fusion.live.connection import Broker
from fusion.live.mqtt import Live
from fusion.observations import Frame, Observation
from fusion.results import Receipt
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.store.models import Store

pytest.importorskip("av", reason="the extra `detect` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `detect` is not installed")
pytest.importorskip("onnx", reason="the extra `tfjs` is not installed")

RATE_HZ = 6.0
SECOND_NS = 10**9
# Longer than a test takes on the slowest machine.
PATIENCE_S = 120.0


class PacedClock(SystemClock):
    """Data time, by which cameras send and detection runs: it moves once what was sent has been looked at.

    So no test waits for real time, and a busy machine drops no picture.
    """

    def __init__(self, start_ns: int) -> None:
        self.now_ns = start_ns
        self._moved = threading.Condition()

    def wall_ns(self) -> int:
        return self.now_ns

    def monotonic_s(self) -> float:
        return self.now_ns / 1e9

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        until_ns = self.now_ns + round(timeout_s * 1e9)
        while not event.wait(0.01) and self.now_ns < until_ns:
            pass
        return event.is_set()

    def pause(self, _: float) -> None:
        """Wait until it moves."""
        with self._moved:
            self._moved.wait(0.05)

    def run_until(self, end_ns: int, caught_up: Callable[[], bool]) -> None:
        while self.now_ns < end_ns:
            # A picture that is lost must not stop time, nor one that FFmpeg holds back while it opens a stream.
            patience_s = time.monotonic() + 0.1
            while not caught_up() and time.monotonic() < patience_s:
                time.sleep(0.001)
            with self._moved:
                self.now_ns += 40_000_000
                self._moved.notify_all()


@dataclass
class Shop:
    """A simulated shop with its cameras' video."""

    store: Store
    observations: list[Observation]
    by_camera: dict[str, list[Frame]]
    units: dict[str, list[bytes]]
    model: Path

    def cameras(self) -> dict[str, SimulatedCamera]:
        return {
            name: SimulatedCamera([frame.t_ns for frame in frames], self.units[name])
            for name, frames in self.by_camera.items()
        }

    def receipts(self, frames: list[Frame]) -> list[tuple[object, ...]]:
        """The receipts with these frames in place of the recorded ones."""
        others = [observation for observation in self.observations if not isinstance(observation, Frame)]
        engine = Engine(self.store)
        results = []
        for observation in sorted([*others, *frames], key=lambda observation: observation.t_ns):
            results += engine.feed(observation)
        results += engine.close()
        return sorted(
            (receipt.account, receipt.status, tuple(sorted((line.gtin, line.quantity) for line in receipt.lines)))
            for receipt in results
            if isinstance(receipt, Receipt)
        )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    store = demo_store(n_cameras=4, n_plates=12)
    scenario = Scenario(
        seed=5, minutes=0.75, shoppers=1, frame_rate_hz=RATE_HZ, picks_per_person=3, empty_handed_probability=0,
        ghosts_per_frame=0,
    )  # fmt: skip
    observations = list(Simulation(store, scenario).observations())
    by_camera: dict[str, list[Frame]] = defaultdict(list)
    for observation in observations:
        if isinstance(observation, Frame):
            by_camera[observation.camera].append(observation)
    size = store.cameras[0].size
    units = {name: units_of(frames, size, RATE_HZ) for name, frames in by_camera.items()}
    model = tmp_path_factory.mktemp("model") / "coded.onnx"
    model.write_bytes(model_bytes())
    return Shop(store, observations, dict(by_camera), units, model)


@dataclass
class Outcome:
    """What a run over the streams gave."""

    frames: dict[str, list[Frame]] = field(default_factory=lambda: defaultdict(list))
    lines: list[str] = field(default_factory=list)
    health: dict[str, CameraHealth] = field(default_factory=dict)

    @property
    def all_frames(self) -> list[Frame]:
        return [frame for frames in self.frames.values() for frame in frames]


def watch(shop: Shop, cameras: dict[str, SimulatedCamera], folder: Path) -> Outcome:
    """Serve the cameras, detect, publish, and take what arrives from the broker."""
    assert MOSQUITTO is not None
    outcome = Outcome()
    start_ns = min(camera.times_ns[0] for camera in cameras.values()) - SECOND_NS // 2
    clock = PacedClock(start_ns)
    broker = Mosquitto(folder / "broker")
    live = Live(broker.address, shop.store)
    taker = threading.Thread(target=_take, args=(live, outcome), daemon=True)
    taker.start()
    framer = Framer(shop.store, load_model(ModelSettings(path=shop.model, threads=1), None))
    with RtspServer(cameras, clock.wall_ns, clock.pause) as server:
        sources = [Source(camera, "network", server.url(camera.name), server.url(camera.name)) for camera in
                   shop.store.cameras]  # fmt: skip
        destination = ToBroker(Broker.of(broker.address), shop.store, "detect")
        detection = LiveDetection(
            sources, framer, destination, fps_max=30.0, report=outcome.lines.append, clock=clock
        )
        worker = threading.Thread(target=detection.run, daemon=True)
        worker.start()

        def caught_up() -> bool:
            # FFmpeg delivers a picture once it sees the next, so that the last of each connection is always missing.
            return min(server.next_ns.values(), default=clock.now_ns) > clock.now_ns and all(
                server.n_sent[camera.camera] - server.n_played[camera.camera]
                <= camera.n_used + camera.n_dropped + camera.n_undated + camera.n_disordered + camera.n_thinned
                for camera in detection.health()
            )

        while not all(server.n_played.values()):
            time.sleep(0.01)
        clock.run_until(max(camera.times_ns[-1] for camera in cameras.values()) + SECOND_NS, caught_up)
        outcome.health = {camera.camera: camera for camera in detection.health()}
        detection.stop()
        worker.join(PATIENCE_S)
        destination.close()
    until_s = time.monotonic() + PATIENCE_S
    n_used = sum(camera.n_used for camera in outcome.health.values())
    while len(outcome.all_frames) < n_used and time.monotonic() < until_s:
        time.sleep(0.01)
    live.stop()
    taker.join(PATIENCE_S)
    broker.stop()
    return outcome


def _take(live: Live, outcome: Outcome) -> None:
    for observation in live:
        assert isinstance(observation, Frame)
        outcome.frames[observation.camera].append(observation)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    if MOSQUITTO is None:
        pytest.skip("no broker: install mosquitto")
    yield tmp_path


def test_the_streams_give_what_was_recorded(shop: Shop, folder: Path) -> None:
    cameras = shop.cameras()
    outcome = watch(shop, cameras, folder)
    for name, recorded in shop.by_camera.items():
        by_time = {frame.t_ns // 1_000_000: frame for frame in recorded}
        arrived = outcome.frames[name]
        # FFmpeg looks at the first half second before it delivers, and the newest picture alone is used then.
        assert len(arrived) > 0.9 * len(recorded)
        for frame in arrived:
            # RTP counts 90 thousandths of a second, and NTP's fractions are cut to microseconds.
            keys = [frame.t_ns // 1_000_000 + step for step in (0, -1, 1)]
            original = next((by_time[key] for key in keys if key in by_time), None)
            assert original is not None, f"{name}: {frame.t_ns}"
            assert abs(frame.t_ns - original.t_ns) < 100_000
            assert frame.keypoints.shape == original.keypoints.shape
            seen = original.keypoints[:, :, 2] > 0
            np.testing.assert_allclose(frame.keypoints[seen][:, :2], original.keypoints[seen][:, :2], atol=0.05)
            np.testing.assert_allclose(frame.keypoints[:, :, 2], original.keypoints[:, :, 2], atol=0.003)
        health = outcome.health[name]
        assert (health.state, health.clock, health.clock_error_s, health.size) == ("online", "camera", None, (320, 180))
        assert health.n_reconnects == health.n_damaged == health.n_disordered == 0
        assert health.delay_s is not None and 0.0 <= health.delay_s < 1.0
    expected = shop.receipts([frame for frames in shop.by_camera.values() for frame in frames])
    assert len(expected) == 1 and all(lines for _, _, lines in expected)
    assert shop.receipts(outcome.all_frames) == expected


def test_faults_of_cameras_are_reported_and_survived(shop: Shop, folder: Path) -> None:
    cameras = shop.cameras()
    cut, wrong, slow, silent = cameras.values()
    names = list(cameras)
    start_ns = cut.times_ns[0]
    cut.cuts.append((start_ns + 12 * SECOND_NS, start_ns + 22 * SECOND_NS))
    wrong.clock_error_ns = 3600 * SECOND_NS
    slow.halved.append((start_ns + 15 * SECOND_NS, start_ns + 31 * SECOND_NS))
    silent.reports = False
    outcome = watch(shop, cameras, folder)
    lines = "\n".join(outcome.lines)

    assert f"{names[0]}: away: " in lines
    assert outcome.health[names[0]].n_reconnects >= 1
    gaps_s = np.diff([frame.t_ns for frame in outcome.frames[names[0]]]) / 1e9
    # Ten seconds, the pause before the next attempt, and what FFmpeg looks at before it delivers.
    assert 9.0 < gaps_s.max() < 25.0
    # Ahead by an hour, less the delay of the stream.
    assert re.search(rf"{names[1]}: its clock is 3599\.[6-9] s ahead; pictures are dated by their arrival", lines)
    assert outcome.health[names[1]].clock == "arrival"
    assert re.search(rf"{names[2]}: sends 3\.\d pictures a second, usually [56]\.\d", lines)
    assert re.search(rf"{names[2]}: sends \d\.\d pictures a second again, as usual", lines)
    assert outcome.health[names[3]].clock == "arrival" and outcome.health[names[3]].clock_error_s is None
    for name, recorded in shop.by_camera.items():
        health = outcome.health[name]
        assert health.state == "online" and health.error is None
        times = np.array([frame.t_ns for frame in recorded])
        for frame in outcome.frames[name]:
            # A camera without a clock that can be believed is dated by its arrival, less the others' delay.
            assert np.abs(times - frame.t_ns).min() < 60_000_000
    expected = shop.receipts([frame for frames in shop.by_camera.values() for frame in frames])
    assert shop.receipts(outcome.all_frames) == expected
