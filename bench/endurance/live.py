"""A shop over a real MQTT broker in real time: is anything lost, does its recording give the same, what does it cost?

    OMP_NUM_THREADS=1 python -m bench live                          two minutes, the broker killed half-way
    OMP_NUM_THREADS=1 python -m bench live --how term --outage 8    stopped normally, away for eight seconds
    OMP_NUM_THREADS=1 python -m bench live --flood                  messages a second, as fast as possible

A simulated shop of 12 cameras at 25 Hz and 80 plates is published in real time by four publishers (cameras, scales,
gates, readers) with the delays of a shop's network, through Mosquitto, to `examples/run_store.py --mqtt --record`, a
process of its own. Half-way the broker is killed and, after some seconds, started again; it has only what it had
written by then. The report says whether receipts and events of the live run are, byte for byte, those of its recording
replayed and those of the sensors' own data replayed (then nothing was lost and nothing used too late), what was not
used, CPU time by process, and how late messages are. Exit code 1 where a byte differs.

`--flood` publishes a minute of the same data as fast as the publishers can, and takes it from the broker without an
engine: the most that one source and one publisher in Python can do, each in its own process.

Needs Mosquitto and the extra `mqtt`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[2]

from broker import MOSQUITTO, Mosquitto  # noqa: E402 (the tests' own)

from fusion.files.recordings import Recording, RecordingWriter  # noqa: E402
from fusion.live.connection import TIMING  # noqa: E402
from fusion.live.mqtt import Live  # noqa: E402
from fusion.live.publisher import Publisher  # noqa: E402
from fusion.observations import DoorState, Frame, GateScan, ItemSighting, Observation, ShelfReading  # noqa: E402
from fusion.run import replay  # noqa: E402
from fusion.simulation import Scenario, Simulation, demo_store  # noqa: E402
from fusion.store.models import Store  # noqa: E402

NAMES = {Frame: "cameras", ShelfReading: "scales", GateScan: "gates", DoorState: "gates", ItemSighting: "readers"}


class Message(NamedTuple):
    """What one sensor controller publishes at one instant, and when it arrives."""

    arrival_ns: int
    observations: list[Observation]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0, help="of the shop's time (2)")
    parser.add_argument("--shoppers", type=int, default=8, help="who come and go (8)")
    parser.add_argument("--cameras", type=int, default=12, help="cameras (12)")
    parser.add_argument("--plates", type=int, default=80, help="plates (80)")
    parser.add_argument("--seed", type=int, default=1, help="of the simulation (1)")
    parser.add_argument("--how", choices=["kill", "term", "none"], default="kill", help="the broker's end (kill)")
    parser.add_argument("--outage", type=float, default=3.0, help="seconds without a broker (3)")
    parser.add_argument("--flood", action="store_true", help="as fast as possible, without an engine")
    parser.add_argument("--markdown", type=Path, help="write the figures to a file, too")
    return parser.parse_args()


def shop(args: argparse.Namespace, minutes: float, shoppers: int) -> Scenario:
    return Scenario(seed=args.seed, minutes=minutes, shoppers=shoppers, frame_rate_hz=25.0)


def messages(observations: list[Observation], seed: int) -> list[Message]:
    """Observations in messages, in order of arrival.

    Frames take a detector's 60 to 150 ms; weights take the time of their samples and a median of 3 ms, every twentieth
    more than 100.
    """
    random = np.random.default_rng([seed, 7])
    stream: list[Message] = []
    for (kind, t_ns), alike in itertools.groupby(
        observations, lambda observation: (type(observation), observation.t_ns)
    ):
        group = list(alike)
        if kind is ShelfReading:
            late_s = 0.2 + min(0.003 * float(random.lognormal(0.0, 2.3)), 0.37)
            stream.append(Message(t_ns + round(late_s * 1e9), group))
        else:
            for observation in group:
                late_s = float(random.uniform(0.06, 0.15)) if kind is Frame else 0.05
                stream.append(Message(t_ns + round(late_s * 1e9), [observation]))
    return sorted(stream, key=lambda message: message.arrival_ns)


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Spent:
    """What a run cost: CPU seconds in a second of real time, and how late this program was at worst."""

    broker: float
    publishers: float
    engine: float
    behind_s: float


def published(
    args: argparse.Namespace, stream: list[Message], store: Store, broker: Mosquitto, engine: subprocess.Popen
) -> Spent:
    """Publish everything in real time, with the broker broken half-way."""
    publishers = {kind: Publisher(broker.address, store.id, name) for kind, name in NAMES.items()}
    first_ns = stream[0].arrival_ns
    breaks_ns = None if args.how == "none" else (first_ns + stream[-1].arrival_ns) // 2
    back: threading.Timer | None = None
    back_s = started_s = time.monotonic()
    engine_s, own_s, broker_s, behind_s = cpu_of(engine.pid), time.process_time(), 0.0, 0.0
    for arrival_ns, group in stream:
        ahead_s = (arrival_ns - first_ns) / 1e9 - (time.monotonic() - started_s)
        if ahead_s > 0:
            time.sleep(ahead_s)
        behind_s = max(behind_s, -ahead_s)
        if breaks_ns is not None and arrival_ns >= breaks_ns:
            breaks_ns = None
            broker_s += broker.cpu_s()
            broker.stop(signal.SIGKILL if args.how == "kill" else signal.SIGTERM)
            back = threading.Timer(args.outage, broker.start)
            back.start()
            back_s = time.monotonic() + args.outage
        publishers[type(group[0])].publish(*group)
    for publisher in publishers.values():
        if not publisher.flush(60.0):
            print(f"publisher {publisher.name}: {publisher.state}, not everything is acknowledged")
    wall_s = time.monotonic() - started_s
    if back is not None:
        back.join()
    # The last messages are on their way; after an outage the engine waits for every publisher.
    time.sleep(max(4.0, back_s + TIMING.catch_up_max_s + 4.0 - time.monotonic()) if args.how != "none" else 4.0)
    spent = [broker_s + broker.cpu_s(), time.process_time() - own_s, cpu_of(engine.pid) - engine_s]
    for publisher in publishers.values():
        publisher.close()
    return Spent(*(cpu_s / wall_s for cpu_s in spent), behind_s)


def live(args: argparse.Namespace, folder: Path) -> int:
    store = demo_store(n_cameras=args.cameras, n_plates=args.plates)
    simulation = Simulation(store, shop(args, args.minutes, args.shoppers))
    observations = list(simulation.observations())
    source = folder / "source"
    with RecordingWriter(source, store) as writer:
        for observation in observations:
            writer.write(observation)
    stream = messages(observations, args.seed)
    span_s = (stream[-1].arrival_ns - stream[0].arrival_ns) / 1e9
    broker = Mosquitto(folder / "broker")
    log, errors = folder / "engine.log", folder / "engine.err"
    with open(log, "w") as out, open(errors, "w") as err:
        program = [sys.executable, ROOT / "examples" / "run_store.py", "--store", source / "store"]
        options = ["--mqtt", broker.address, "--record", folder / "recorded", "--out", folder / "live"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        engine = subprocess.Popen([*program, *options], stdout=out, stderr=err, env=environment)
    try:
        while "live from" not in log.read_text() and engine.poll() is None:
            time.sleep(0.1)
        time.sleep(3.0)  # It loads its kernels.
        spent = published(args, stream, store, broker, engine)
    finally:
        engine.send_signal(signal.SIGTERM)
        code = engine.wait(120.0)
        broker.stop()
    replay(folder / "recorded", folder / "replayed")
    replay(source, folder / "direct")
    run = json.loads((folder / "live" / "run.json").read_text())
    receipts = [json.loads(line) for line in (folder / "live" / "receipts.jsonl").read_text().splitlines()]
    rows = [
        ("cameras, plates, minutes of data", f"{args.cameras}, {args.plates}, {span_s / 60:.1f}"),
        ("broker", {"kill": "killed half-way", "term": "stopped half-way", "none": "left alone"}[args.how]),
        ("without a broker", f"{args.outage if args.how != 'none' else 0:.1f} s"),
        ("observations / messages published", f"{len(observations)} / {len(stream)}"),
        ("messages a second", f"{len(stream) / span_s:.0f}"),
        ("this program behind real time, at most", f"{spent.behind_s * 1e3:.0f} ms"),
        ("observations used by the live engine", f"{run['frames']} frames, {run['messages']} of plates"),
        ("receipts, settled", f"{len(receipts)}, {sum(receipt['status'] == 'settled' for receipt in receipts)}"),
        ("CPU of a second: broker", f"{spent.broker:.1%}"),
        ("CPU of a second: publishers, all four", f"{spent.publishers:.1%}"),
        ("CPU of a second: run_store with engine, recording and report", f"{spent.engine:.1%}"),
        *((f"not used: {reason}", str(n)) for reason, n in run["ignored"].items()),
    ]  # fmt: skip
    right = code == 0
    for name in ("receipts.jsonl", "events.jsonl"):
        answers = {where: (folder / where / name).read_bytes() for where in ("live", "replayed", "direct")}
        for other in ("replayed", "direct"):
            equal = answers["live"] == answers[other]
            right &= equal
            what = "the recording of the run" if other == "replayed" else "the sensors' own data"
            rows.append((f"{name} against {what}, replayed", "same bytes" if equal else "DIFFERENT"))
    report(args, rows)
    for line in log.read_text().splitlines():
        if any(f"warning: {kind}" in line for kind in ("broker", "publisher", "message")):
            print("  ", line.strip())
    if not right:
        print(errors.read_text()[-500:])
    return 0 if right else 1


def flood(args: argparse.Namespace, folder: Path) -> int:
    store = demo_store(n_cameras=args.cameras, n_plates=args.plates)
    simulation = Simulation(store, shop(args, 1.0, 4))
    source = folder / "source"
    with RecordingWriter(source, store) as writer:
        for observation in simulation.observations():
            writer.write(observation)
    stream = messages(list(Recording(source).observations()), args.seed)
    broker = Mosquitto(folder / "broker")
    got: Counter[str] = Counter()
    source_live = Live(broker.address, store, queue_max=1_000_000)
    child = os.fork()
    if child == 0:
        with Publisher(broker.address, store.id, "all", kept_max=1_000_000, kept_s=0.0) as publisher:
            while publisher.state != "online":
                time.sleep(0.01)
            time.sleep(3.0)
            for _, group in stream:
                publisher.publish(*group)
            publisher.flush(120.0)
        os._exit(0)
    first_s = last_s = used_s = 0.0
    n_observations = sum(len(group) for _, group in stream)
    for observation in source_live:
        last_s = time.monotonic()
        if not got:
            first_s, used_s = last_s, time.process_time()
        got[type(observation).__name__] += 1
        if got.total() >= n_observations:
            break
    used_s = time.process_time() - used_s
    broker_s = broker.cpu_s()
    os.waitpid(child, 0)
    sent_s = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall_s = last_s - first_s
    n_bytes = sum(
        24 + (observation.keypoints.nbytes if isinstance(observation, Frame) else 0)
        for message in stream
        for observation in message.observations
    )
    rows = [
        ("messages / observations", f"{len(stream)} / {got.total()}, {n_bytes / 1e6:.0f} MB of frames"),
        ("wall time", f"{wall_s:.2f} s"),
        ("messages a second, from publisher to iteration", f"{len(stream) / wall_s:.0f}"),
        ("observations a second", f"{got.total() / wall_s:.0f}"),
        ("CPU a message: source", f"{used_s / len(stream) * 1e6:.0f} us"),
        ("CPU a message: broker", f"{broker_s / len(stream) * 1e6:.0f} us"),
        ("CPU a message: publisher", f"{(sent_s.ru_utime + sent_s.ru_stime) / len(stream) * 1e6:.0f} us"),
        ("not used", str(dict(source_live.ignored)) if source_live.ignored else "0"),
    ]
    source_live.stop()
    report(args, rows)
    broker.stop()
    return 0 if got.total() == n_observations else 1


def report(args: argparse.Namespace, rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    if args.markdown:
        lines = ["| what | figure |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
        args.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> int:
    args = arguments()
    if MOSQUITTO is None:
        print("live.py: want the program mosquitto, found none", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        return (flood if args.flood else live)(args, Path(folder))
