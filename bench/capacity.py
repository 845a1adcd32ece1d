"""What a store costs, measured, and what that makes of one, a hundred and two thousand of them.

python bench/capacity.py                      measures (some minutes) and prints the plan as tables
python bench/capacity.py --json units.json    keeps the measured unit costs as well

Each store is measured in a process of its own, so that memory is that of one store. Everything else is arithmetic with
the assumptions that stand beside it, which whoever plans should replace by their own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

# Cameras, plates, shoppers in MINUTES.
SHAPES = ((12, 160, 12), (28, 320, 24), (100, 800, 60))
MINUTES = 3.0
FLEETS = (1, 100, 2000)

# Assumptions of the plan.
OPEN_H = 16.0  # a day
CORE_LOAD_MAX = 0.5  # of a core: what comes in bursts must not wait
VISITS_PER_H_AND_CAMERA = 3.0  # on average over the day; a full shop is what is measured
PICTURES_PER_GPU_S = 500.0  # of a pose detector, as its maker or a trial tells; not measured here


@dataclass
class Unit:
    """What one store costs, per second of data where a rate is meant, with the shop as full as it was simulated."""

    cameras: int
    plates: int
    people: float  # inside, on average
    engine_cpu: float  # seconds of one core
    step_p99_us: float
    memory_mb: float
    snapshot_mb: float
    snapshot_ms: float
    messages: float
    recording_kb: float
    results_kb: float
    rows_per_visit: float
    book_kb_per_visit: float


def measured(cameras: int, plates: int, shoppers: int) -> Unit:
    from fusion.adapters.ledger import Ledger
    from fusion.observations import Frame, RecordingWriter
    from fusion.results import People, PersonEntered, Receipt, ResultsWriter
    from fusion.run import Run
    from fusion.simulation import Scenario, Simulation, demo_store
    from fusion.snapshot import snapshot

    store = demo_store(n_cameras=cameras, n_plates=plates)
    simulation = Simulation(store, Scenario(seed=5, minutes=MINUTES, shoppers=shoppers))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n_messages = n_frames = n_people = n_states = n_visits = 0
        snapshot_s: list[float] = []
        snapshot_bytes = 0
        books = folder / "l.sqlite"
        with RecordingWriter(folder / "recording", store) as recorder, Ledger.open(books, store) as ledger:

            def counted():
                nonlocal n_messages, n_frames
                for observation in simulation.observations():
                    n_messages += 1
                    n_frames += isinstance(observation, Frame)
                    recorder.write(observation)
                    yield observation

            run = Run(store, counted())
            writer = ResultsWriter(folder / "results", store)

            def keep(result: object) -> None:
                nonlocal n_people, n_states, n_visits, snapshot_bytes
                writer.write(result, run.engine.account_of)  # type: ignore[arg-type]
                if isinstance(result, People):
                    n_states += 1
                    n_people += int(result.confirmed.sum())
                    if n_states % 200 == 0:
                        before_s = time.perf_counter()
                        snapshot_bytes = max(snapshot_bytes, len(snapshot(run.engine)))
                        snapshot_s.append(time.perf_counter() - before_s)
                elif isinstance(result, PersonEntered) and result.visit is not None:
                    ledger.open_visit(result.visit, result.account, result.t_ns)
                elif isinstance(result, Receipt):
                    n_visits += 1
                    ledger.post_receipt(result)

            for result in run.results():
                keep(result)
            for result in run.finish():
                keep(result)
            summary = run.summary()
            writer.close(summary, run.engine.shelf_state())
            n_rows = ledger.head().seq
        seconds = MINUTES * 60
        size = {
            part: sum(file.stat().st_size for file in (folder / part).rglob("*") if file.is_file())
            for part in ("recording", "results")
        }
        book = sum(f.stat().st_size for f in folder.glob("l.sqlite*"))
    return Unit(
        cameras, plates, n_people / max(n_states, 1), summary.engine_cpu_s / seconds, summary.step_us["p99"],
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, snapshot_bytes / 1e6,
        1e3 * sum(snapshot_s) / max(len(snapshot_s), 1), n_messages / seconds, size["recording"] / 1e3 / seconds,
        size["results"] / 1e3 / seconds, n_rows / max(n_visits, 1), book / 1e3 / max(n_visits, 1),
    )  # fmt: skip


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def amount(value: float, unit: str) -> str:
    """Bytes with a fitting prefix; value in kB."""
    for name in ("k", "M", "G", "T"):
        if value < 1000 or name == "T":
            return f"{value:.3g} {name}{unit}"
        value /= 1000
    raise AssertionError


def plan(units: list[Unit]) -> str:
    rows, fleet = [], []
    for unit in units:
        rows.append(
            [
                f"{unit.cameras} cameras, {unit.plates} plates, {unit.people:.0f} people inside",
                f"{100 * unit.engine_cpu:.1f} %", f"{unit.step_p99_us / 1e3:.1f} ms", f"{unit.memory_mb:.0f} MB",
                f"{unit.snapshot_mb:.1f} MB, {unit.snapshot_ms:.0f} ms", f"{unit.messages:.0f}",
                amount(3600 * unit.recording_kb, "B"), amount(3600 * unit.results_kb, "B"),
                f"{unit.rows_per_visit:.1f} rows, {unit.book_kb_per_visit:.1f} kB",
            ]
        )  # fmt: skip
        visits = VISITS_PER_H_AND_CAMERA * unit.cameras * OPEN_H
        for n in FLEETS:
            cores = n * unit.engine_cpu / CORE_LOAD_MAX
            gpus = n * unit.cameras * 25.0 / PICTURES_PER_GPU_S
            fleet.append(
                [
                    f"{n} x {unit.cameras}", f"{max(cores, 1):.0f}", f"{n * unit.memory_mb / 1e3:.1f} GB",
                    amount(n * unit.recording_kb * 3600 * OPEN_H, "B"), f"{n * visits * unit.rows_per_visit:,.0f}",
                    amount(n * visits * unit.book_kb_per_visit, "B"),
                    f"{n * visits * unit.rows_per_visit / (OPEN_H * 3600):.1f}", f"{gpus:,.1f}",
                ]
            )  # fmt: skip
    unit_heads = ["a store", "engine, of a core", "step p99", "memory of its process", "snapshot", "messages a second"]
    fleet_heads = ["stores x cameras", "cores", "memory", "recordings a day", "book rows a day", "books a day"]
    tables = (
        table([*unit_heads, "recording an hour", "results an hour", "books a visit"], rows),
        table([*fleet_heads, "rows a second", "detectors' GPUs"], fleet),
    )
    return "\n\n".join(tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the measured unit costs")
    parser.add_argument("--one", nargs=3, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(asdict(measured(*args.one))))
        return
    units = []
    for shape in SHAPES:
        command = [sys.executable, __file__, "--one", *map(str, shape)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        if done.returncode:
            raise SystemExit(done.stderr)
        units.append(Unit(**json.loads(done.stdout.splitlines()[-1])))
        print(f"measured {shape[0]} cameras", file=sys.stderr)
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(unit) for unit in units], indent=1) + "\n", encoding="utf-8")
    print(plan(units))


if __name__ == "__main__":
    main()
