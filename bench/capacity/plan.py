"""The measured cost of a store, and the plan for one, a hundred and two thousand stores that follows from it.

    OMP_NUM_THREADS=1 python -m bench capacity                 measures (ten minutes) and prints the plan as tables
    OMP_NUM_THREADS=1 python -m bench capacity --units FILE    plans with the costs in FILE, or measures and writes it

Each store is simulated first, and then served from that recording in real time by a process like those of `serve`:
source, queue, engine, books, snapshots every five seconds, outbox. Its CPU and memory therefore include everything but
the broker's client. The messages that its sensors would send over MQTT are counted by the bytes of their payloads. The
chain's rows and bytes are measured on a book filled with receipts like the store's. Everything else is arithmetic with
the assumptions below; replace them by your own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

# Cameras, plates, people inside at a time: a full shop.
SHAPES = ((12, 160, 8), (28, 320, 16), (100, 520, 20))
MINUTES = 3.0  # of data; some shoppers are still inside at the end
STAY_S, PICKS = 60.0, 8.0  # of a simulated shopper
FLEETS = (1, 100, 2000)

# Assumptions of the plan.
OPEN_H = 16.0  # per day
RUSH = 3.0  # visits in a busy hour over visits in an average hour
CORE_LOAD_MAX = 0.5  # of a core in a busy hour, so that bursts do not wait
VISITS_PER_H_AND_CAMERA = 3.0  # on average over the day
PAID_ROWS = 6.0  # per visit with payment and mailed receipt: four more entries and two more postings
DAYS = 365.0
PICTURES_PER_S = 15.0  # per camera, as simulated
PICTURES_PER_GPU_S = 500.0  # of a pose detector, from its vendor or a trial; not measured here


@dataclass
class Unit:
    """Costs of one store at the simulated occupancy; rates are per second of data."""

    cameras: int
    plates: int
    people: float  # open visits, on average
    process_cpu: float  # seconds of one core
    engine_cpu: float
    step_p50_us: float
    step_p99_us: float
    memory_mb: float  # peak of the process; shared pages count by its share
    snapshot_mb: float
    snapshot_ms: float  # pause of the engine
    messages: float
    mqtt_kb: float
    recording_kb: float
    rows_per_visit: float  # entries and postings
    goods_per_visit: float
    evidence_kb_per_visit: float


@dataclass
class Row:
    """Bytes per row, in books so large that the fixed part of a file is negligible."""

    store: float  # books and outbox, SQLite
    chain: float  # PostgreSQL, with indexes


def simulated(folder: Path, cameras: int, plates: int, people: int) -> None:
    """Write a simulated recording to a folder."""
    from fusion.files.recordings import RecordingWriter
    from fusion.simulation import Scenario, Simulation, demo_store

    store = demo_store(n_cameras=cameras, n_plates=plates)
    shoppers = round(people * MINUTES * 60 / STAY_S)
    scenario = Scenario(seed=5, minutes=MINUTES, shoppers=shoppers, picks_per_person=PICKS)
    with RecordingWriter(folder / "recording", store) as writer:
        for observation in Simulation(store, scenario).observations():
            if observation.t_ns > scenario.start_ns + MINUTES * 60e9:
                break
            writer.write(observation)


def served(folder: Path) -> Unit:
    """Serve the recording in a folder in a separate process, and measure its costs."""
    from bench.endurance.serve import cpu_s, make_chain, supervised, until
    from fusion.files.recordings import Recording
    from fusion.live.outbox import Outbox
    from fusion.money.ledger import Ledger

    recording = Recording(folder / "recording")
    (first_ns, last_ns), name = recording.span_ns() or (0, 0), "store"
    seconds = (last_ns - first_ns) * 1e-9
    path = make_chain(folder, folder / "recording", {name: (f"recording:{folder / 'recording'}", {})})
    largest: dict[str, float] = dict.fromkeys(("memory_bytes", "snapshot_bytes", "snapshot_stall_s"), 0.0)
    with supervised(path) as supervisor:

        def health() -> dict[str, Any]:
            return supervisor.health()["stores"][name]

        # The cost of the start does not count.
        assert until(lambda: health().get("newest_ns", 0) > first_ns + 5e9, 60.0)
        pid = supervisor.pids()[name]
        used_s, wall_s, status = cpu_s(pid), time.monotonic(), health()
        while health()["newest_ns"] < last_ns - 2e9:
            time.sleep(0.5)
            status = health()
            assert status["state"] == "live" and not status["restarts"], status["messages"]
            largest = {key: max(value, status[key]) for key, value in largest.items()}
        used_s, wall_s = cpu_s(pid) - used_s, time.monotonic() - wall_s
        n_dropped = sum(status["dropped"].values())
        assert until(lambda: health()["state"] == "ended", 60.0)
    assert not n_dropped, f"{n_dropped} observations dropped"
    out, store = folder / "serve" / name, recording.store.model_copy(update={"id": name})
    with Ledger.open(out / f"{name}.sqlite", store) as ledger, Outbox(out / "outbox.sqlite", store) as box:
        entries = ledger.entries_between(-(2**62), 2**62)
        n_goods = box.newest("goods")
    opened_ns = {entry.visit: entry.t_ns for entry in entries if entry.kind == "visit opened"}
    left_ns = {entry.visit: entry.t_ns for entry in entries if entry.kind.startswith("receipt")}
    inside_s = sum((t_ns - opened_ns.get(visit, t_ns)) * 1e-9 for visit, t_ns in left_ns.items())
    # Visits that were open when the data ended have an empty receipt.
    billed = {entry.visit for entry in entries if entry.kind.startswith("receipt") and entry.request["lines"]}
    n_rows = sum(1 + len(entry.postings) for entry in entries if entry.visit in billed)
    evidence_bytes = (out / "evidence.jsonl").stat().st_size
    size = sum(file.stat().st_size for file in (folder / "recording").rglob("*") if file.is_file())
    return Unit(
        len(store.cameras), len(store.plates), inside_s / seconds, used_s / wall_s, status["busy_s"] / seconds,
        status["step_us"]["p50"], status["step_us"]["p99"], largest["memory_bytes"] / 1e6,
        largest["snapshot_bytes"] / 1e6, 1e3 * largest["snapshot_stall_s"], *sent(recording, seconds),
        size / 1e3 / seconds, n_rows / len(billed), n_goods / len(billed), evidence_bytes / 1e3 / len(billed),
    )  # fmt: skip


def sent(recording: object, seconds: float) -> tuple[float, float]:
    """Messages and kilobytes per second over MQTT; plates that are sampled together share a message."""
    from fusion.live.messages import Mark, frame_payload, line_payload, weights_payload
    from fusion.observations import Frame, Observation, ShelfReading

    n, n_bytes, mark = 0, 0, Mark(0, 0)

    def message_key(observation: Observation) -> tuple[type, int, int]:
        sampled = isinstance(observation, ShelfReading)
        return type(observation), observation.t_ns, len(observation.samples) if sampled else id(observation)

    for (kind, _, _), observations in groupby(recording.observations(), message_key):  # type: ignore[attr-defined]
        group = list(observations)
        if kind is Frame:
            payload = frame_payload(group[0], mark)
        elif kind is ShelfReading:
            payload = weights_payload(group, mark)
        else:
            payload = line_payload(group[0], mark)
        n, n_bytes = n + 1, n_bytes + len(payload)
    return n / seconds, n_bytes / 1e3 / seconds


def bytes_per_row(n_receipts: int = 5000) -> Row:
    """Measure the bytes per row of a store's and a chain's book. Starts a PostgreSQL server."""
    import psycopg

    from bench.capacity.chain_book import STORE, database, fill, server
    from fusion.chain.book import ChainBook
    from fusion.chain.shipping import Shipper
    from fusion.chain.streams import LedgerSource, OutboxSource
    from fusion.live.outbox import Outbox
    from fusion.money.ledger import Ledger

    size, n = 0, 0
    with (
        server() as url, tempfile.TemporaryDirectory() as folder, database(url) as place,
        Ledger.open(Path(folder) / "ledger.sqlite", STORE) as ledger, Outbox(Path(folder) / "out.sqlite", STORE) as box,
        ChainBook(place) as book,
    ):  # fmt: skip
        fill(ledger, box, n_receipts, 4 * n_receipts)
        in_store = sum(file.stat().st_size for file in Path(folder).glob("*.sqlite"))
        Shipper(STORE, [LedgerSource(ledger, STORE), OutboxSource(box, "goods")], book).ship()
        with psycopg.connect(place, autocommit=True) as connection:
            for table in ("entry", "posting", "goods"):
                size += connection.execute("SELECT pg_total_relation_size(%s)", (f"chain.{table}",)).fetchone()[0]  # type: ignore[index]
                n += connection.execute(f"SELECT count(*) FROM chain.{table}").fetchone()[0]  # type: ignore[index]
    return Row(in_store / n, size / n)


# ---- the plan --------------------------------------------------------------------------------------------------------


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def amount(kilo: float, unit: str = "B") -> str:
    """Thousands of a unit as text, with a suitable prefix."""
    for name in ("k", "M", "G", "T"):
        if kilo < 1000 or name == "T":
            return f"{kilo:.3g} {name}{unit}"
        kilo /= 1000
    raise AssertionError


def plan(units: list[Unit], row: Row) -> str:
    """The tables of the plan: costs of a store of each size, and needs of the fleets."""
    stores = [
        [
            f"{unit.cameras} cameras, {unit.plates} plates, {unit.people:.0f} people inside",
            f"{100 * unit.process_cpu:.0f} % ({100 * unit.engine_cpu:.0f} %)",
            f"{unit.step_p50_us / 1e3:.2f} / {unit.step_p99_us / 1e3:.1f} ms", f"{unit.memory_mb:.0f} MB",
            f"{unit.snapshot_mb:.1f} MB, {unit.snapshot_ms:.0f} ms", f"{unit.messages:.0f}, {amount(unit.mqtt_kb)}",
            amount(3600 * unit.recording_kb), f"{unit.rows_per_visit:.1f} and {unit.goods_per_visit:.1f}",
            amount(unit.evidence_kb_per_visit),
        ]
        for unit in units
    ]  # fmt: skip
    heads = [
        "store", "CPU of one core (engine alone)", "step p50 / p99", "peak memory",
        "largest snapshot, longest pause for it", "sensors' messages and bytes per second", "recording per hour",
        "rows of books and of goods per visit", "evidence per visit",
    ]  # fmt: skip
    fleets = []
    for unit in units:
        visits = VISITS_PER_H_AND_CAMERA * unit.cameras * OPEN_H
        rows = visits * (unit.rows_per_visit + unit.goods_per_visit + PAID_ROWS)
        kept_kb = rows * row.store / 1e3 + visits * unit.evidence_kb_per_visit
        for n in FLEETS:
            fleets.append([
                f"{n} x {unit.cameras}", f"{math.ceil(n * unit.process_cpu / CORE_LOAD_MAX):,}",
                amount(n * unit.memory_mb * 1e3), amount(n * unit.mqtt_kb), f"{n * visits:,.0f}", f"{n * rows:,.0f}",
                f"{RUSH * n * rows / (OPEN_H * 3600):,.1f}", amount(n * kept_kb), amount(n * rows * row.chain / 1e3),
                amount(DAYS * n * rows * row.chain / 1e3),
                f"{n * math.ceil(unit.cameras * PICTURES_PER_S / PICTURES_PER_GPU_S):,}",
            ])  # fmt: skip
    fleet_heads = [
        "stores x cameras", "cores", "memory", "sensors' bytes per second", "visits per day", "rows per day",
        "rows per second in a busy hour", "stores' files per day", "chain's book per day", "per year",
        "detectors' GPUs",
    ]  # fmt: skip
    sizes = f"A row takes {row.store:.0f} bytes in a store and {row.chain:.0f} in the chain's book."
    return f"{table(heads, stores)}\n\n{table(fleet_heads, fleets)}\n\n{sizes}"


def measured() -> tuple[list[Unit], Row]:
    """Measure every shape in new processes, and the bytes per row."""
    units = []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for shape in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            for part in (["--simulate", folder, *map(str, shape)], ["--serve", folder]):
                done = subprocess.run(
                    [sys.executable, "-m", "bench", "capacity", *part], capture_output=True, text=True, env=environment
                )
                if done.returncode:
                    raise SystemExit(done.stderr)
        units.append(Unit(**json.loads(done.stdout.splitlines()[-1])))
        print(f"measured {shape[0]} cameras", file=sys.stderr)
    return units, bytes_per_row()


def main() -> None:
    """Print the plan, from measured or given costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=Path, help="file of measured unit costs; written if it does not exist")
    parser.add_argument("--simulate", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.simulate:
        simulated(Path(args.simulate[0]), *map(int, args.simulate[1:]))
    elif args.serve:
        print(json.dumps(asdict(served(args.serve))))
    elif args.units and args.units.exists():
        costs = json.loads(args.units.read_text(encoding="utf-8"))
        print(plan([Unit(**unit) for unit in costs["units"]], Row(**costs["row"])))
    else:
        units, row = measured()
        if args.units:
            costs = {"units": [asdict(unit) for unit in units], "row": asdict(row)}
            args.units.write_text(json.dumps(costs, indent=1) + "\n", encoding="utf-8")
        print(plan(units, row))
