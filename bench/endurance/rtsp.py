"""A shop whose four cameras are RTSP streams: `fusion detect`, a broker and `fusion serve`, in real time.

    python -m bench rtsp                      three customers in a minute and a half; nothing breaks
    python -m bench rtsp --faults             a stream cut for ten seconds, a clock an hour ahead, a frame rate halved

The cameras are simulated and served by this program as H.264 over RTSP with sender reports; scales and gates publish
from here. `fusion detect` decodes and publishes, `fusion serve` keeps the books, each in its own process. The pictures
show the simulated detections as black and white cells, and the model reads these back (`tests/coded_video.py`):
encoding, streams, decoding, times, the loop and messages are real, content and model are made for the purpose. The
receipts in the books are compared with those of the same observations replayed. Exit code 1 where one differs.

Needs Mosquitto, the extras `detect`, `mqtt` and `serve`, and the package onnx.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from pathlib import Path

from broker import MOSQUITTO, Mosquitto  # the tests' own
from coded_video import model_bytes, units_of
from rtsp_cameras import RtspServer, SimulatedCamera

from bench.endurance.serve import booked, compared
from fusion import Engine
from fusion.files.recordings import RecordingWriter
from fusion.live.publisher import Publisher
from fusion.observations import Frame, GateScan, Observation, ShelfReading
from fusion.results import Receipt
from fusion.runner.shoppers import EMPTY_S, from_now
from fusion.simulation import Scenario, demo_store
from fusion.store.models import Store

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
S = 10**9
# What `fusion detect` needs to start on a busy machine, and messages after the last customer to become receipts.
LEAD_S, TAIL_S = 10.0, 12.0
# Kernels are compiled once on a new machine.
READY_MAX_S = 300.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.5, help="of customers (1.5)")
    parser.add_argument("--shoppers", type=int, default=3, help="who come and go (3)")
    parser.add_argument("--rate", type=float, default=8.0, help="pictures a second of each camera (8)")
    parser.add_argument("--seed", type=int, default=3, help="of the simulation (3)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="new folder for logs, books and recording")
    parser.add_argument("--faults", action="store_true", help="break three of the four cameras")
    return parser.parse_args()


def break_cameras(cameras: dict[str, SimulatedCamera], start_ns: int) -> None:
    """One cut for ten seconds while customers are there, one with a clock an hour ahead, one at half its rate."""
    cut, wrong, slow, _ = cameras.values()
    customers_ns = start_ns + round(EMPTY_S * S)
    cut.cuts.append((customers_ns + 20 * S, customers_ns + 30 * S))
    wrong.clock_error_ns = 3600 * S
    slow.halved.append((customers_ns + 15 * S, customers_ns + 45 * S))


def publish_others(observations: list[Observation], store: Store, broker: str) -> None:
    """Publish scales and gates in real time: samples arrive when they are taken, a message is a fifth of a second."""
    others = [observation for observation in observations if not isinstance(observation, Frame)]
    with Publisher(broker, store.id, "scales") as scales, Publisher(broker, store.id, "gates") as gates:
        for (kind, t_ns), alike in itertools.groupby(others, lambda observation: (type(observation), observation.t_ns)):
            late_ns = 250_000_000 if kind is ShelfReading else 50_000_000
            time.sleep(max(0.0, (t_ns + late_ns - time.time_ns()) / 1e9))
            (gates if kind is GateScan else scales).publish(*alike)
        time.sleep(TAIL_S)


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with open(log, "wb") as file:
        return subprocess.Popen([sys.executable, "-m", "fusion", *command], stdout=file, stderr=file, env=ENVIRONMENT)


def wait_until_live(log: Path, store_id: str) -> None:
    """Until `fusion serve` has the store open, as its health page states."""
    until_s = time.monotonic() + READY_MAX_S
    while time.monotonic() < until_s:
        time.sleep(0.5)
        page = re.search(r"http://\S+/healthz", log.read_text())
        if page is not None:
            with contextlib.suppress(urllib.error.URLError):
                health = json.loads(urllib.request.urlopen(page[0]).read())
                if health["stores"][store_id]["state"] == "live":
                    return
    raise RuntimeError(log.read_text())


def run(args: argparse.Namespace, folder: Path) -> int:
    store = demo_store(n_cameras=4, n_plates=12)
    scenario = Scenario(
        seed=args.seed, minutes=args.minutes, shoppers=args.shoppers, frame_rate_hz=args.rate, picks_per_person=3,
        empty_handed_probability=0, ghosts_per_frame=0,
    )  # fmt: skip
    observations = list(from_now(store, scenario, 0))
    by_camera: dict[str, list[Frame]] = defaultdict(list)
    for observation in observations:
        if isinstance(observation, Frame):
            by_camera[observation.camera].append(observation)
    size = store.cameras[0].size
    units = {name: units_of(frames, size, args.rate) for name, frames in by_camera.items()}
    store.save(folder / store.id)
    (folder / "model.onnx").write_bytes(model_bytes())
    broker = Mosquitto(folder / "broker")
    retailer = f'[[retailer]]\nid = "r"\nname = "R"\nbrand = "B"\nstores = ["{store.id}"]\n'
    settings = f'[serve]\nport = 0\nsource = "mqtt://{broker.address}"\n'
    (folder / "chain.toml").write_text(f"format_version = 1\n{retailer}{settings}")
    serve = start(["serve", str(folder / "chain.toml")], folder / "serve.log")
    wait_until_live(folder / "serve.log", store.id)
    start_ns = time.time_ns() + round(LEAD_S * S)
    observations = list(from_now(store, scenario, start_ns))
    cameras = {
        name: SimulatedCamera([start_ns + frame.t_ns for frame in frames], units[name])
        for name, frames in sorted(by_camera.items())
    }
    if args.faults:
        break_cameras(cameras, start_ns)
    with RecordingWriter(folder / "recording", store) as writer:
        for observation in observations:
            writer.write(observation)
    with RtspServer(cameras) as server:
        tables = [f'[cameras.{name}]\nurl = "{server.url(name)}"\n' for name in cameras]
        head = 'fps_max = 30\n[model]\npath = "model.onnx"\nthreads = 1\n'
        (folder / "detect.toml").write_text(head + "".join(tables))
        to = ["--mqtt", broker.address, "--health", str(folder / "health.json")]
        detect = start(["detect", str(folder / store.id), str(folder / "detect.toml"), *to], folder / "detect.log")
        try:
            publish_others(observations, store, broker.address)
        finally:
            health = json.loads((folder / "health.json").read_text())
            for process in (detect, serve):
                process.send_signal(signal.SIGTERM)
                process.wait(60.0)
            broker.stop()
    return report(args, folder, store, observations, health)


def report(
    args: argparse.Namespace, folder: Path, store: Store, observations: list[Observation], health: dict
) -> int:
    print((folder / "detect.log").read_text())
    engine = Engine(store)
    results = [result for observation in observations for result in engine.feed(observation)] + engine.close()
    truth = {result.visit: result for result in results if isinstance(result, Receipt)}
    books = booked(folder / "serve" / store.id, store)
    counts = compared(books, truth)
    for receipt in truth.values():
        lines = ", ".join(f"{line.quantity} x {line.gtin}" for line in receipt.lines)
        print(f"recording: {receipt.account} {receipt.status.value}: {lines or 'nothing'}")
    for visit in books.visits.values():
        lines = ", ".join(f"{quantity} x {gtin}" for gtin, quantity in visit.items)
        print(f"books:     {visit.account} {visit.status}: {lines or 'nothing'}")
    n_frames = sum(isinstance(observation, Frame) for observation in observations)
    n_used = sum(camera["n_used"] for camera in health["cameras"].values())
    print(f"\npictures taken / looked at: {n_frames} / {n_used}; lost on the way: {health['lost'] or 0}")
    for name, camera in health["cameras"].items():
        keys = ("clock", "clock_error_s", "fps_usual", "delay_s", "n_dropped", "n_reconnects")
        print(f"{name}: " + ", ".join(f"{key} {camera[key]}" for key in keys))
    print(dict(counts))
    right = counts["customers"] == args.shoppers and counts["as without kills"] == counts["customers"]
    print("receipts equal those of the recording" if right else "RECEIPTS DIFFER")
    return 0 if right else 1


def main() -> int:
    args = arguments()
    if MOSQUITTO is None:
        print("rtsp.py: want the program mosquitto, found none", file=sys.stderr)
        return 2
    if args.keep:
        args.keep.mkdir()
        return run(args, args.keep.resolve())
    with tempfile.TemporaryDirectory() as folder:
        return run(args, Path(folder))
