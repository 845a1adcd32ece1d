"""Replay of many recordings by one and by two workers, on processes and on Ray; and the effect of cutting recordings.

    python -m bench batch                      processes and Ray
    python -m bench batch --rounds 3           the best of three, on a shared machine
    python -m bench batch --cuts               the results of pieces that a new engine replays

Forty simulated recordings are made once and kept in `--cache`. Before anything is timed, all results are compared with
those of one process that replays one recording after the other: every file, and of run.json everything but the times;
then once more while a worker is killed half-way. The time is that of `replay_many` from the first call to the last
outcome. It includes starting processes; the start of Ray is reported separately, since a cluster usually runs before
there is work. `engine` is the sum of CPU time of all engines: where two workers need more of it, they compete for
shared parts of the cores. The load average shows other work on the machine.

`--cuts` cuts the recordings where the store was empty for `QUIET_S`: no person seen and every visit billed. It compares
the results after the cut with those of a new engine that starts there. It counts the rows that are identical and those
that are equivalent: a receipt with the same account, goods and status; an event with the same most likely candidate; a
person within a centimetre.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import statistics
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fusion
from fusion import replay
from fusion.chain.batch import Outcome, map_tasks
from fusion.chain.executors import connect
from fusion.chain.replays import replay_many
from fusion.engine import Engine
from fusion.files.recordings import Recording
from fusion.files.results import ResultsWriter
from fusion.results import People, PersonEntered, Receipt, RunEnd, RunSummary
from fusion.simulation import Scenario, Simulation, demo_store

N_RECORDINGS = 40
SHOP = {"n_cameras": 8, "n_plates": 60}
SCENARIO = {"minutes": 4.0, "shoppers": 12}
# A store is empty for the cut once it has been so for this long.
QUIET_S = 5.0
TIMED = ("wall_s", "engine_cpu_s", "step_us")


@dataclass(frozen=True)
class ToMake:
    seed: int
    folder: Path
    sparse: bool = False


def make(one: ToMake) -> None:
    """A recording that appears whole or not at all."""
    knobs: dict[str, Any] = {"minutes": 6.0, "shoppers": 4} if one.sparse else SCENARIO
    one.folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=one.folder.parent) as unfinished:
        made = Path(unfinished) / "recording"
        Simulation(demo_store(**SHOP), Scenario(seed=one.seed, **knobs)).write(made)
        made.rename(one.folder)


def recordings(cache: Path, n: int, sparse: bool = False) -> list[Path]:
    """Made where they are not there yet; named by what they are made of."""
    digest = hashlib.sha256(json.dumps([SHOP, SCENARIO, sparse, fusion.__version__]).encode())
    for source in sorted((Path(fusion.__file__).parent / "simulation").glob("*.py")):
        digest.update(source.read_bytes())
    paths = [cache / digest.hexdigest()[:12] / f"{seed:02d}" for seed in range(n)]
    missing = [ToMake(seed, path, sparse) for seed, path in enumerate(paths) if not path.exists()]
    for outcome in map_tasks(make, missing):
        if outcome.fault:
            raise SystemExit(f"cluster.py: {outcome.item.folder}: {outcome.fault}")
    return paths


def results(folder: Path) -> dict[str, bytes]:
    """Every file by its path; of run.json all but what was timed."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if path.name == "run.json":
                run = json.loads(data)
                data = json.dumps({key: value for key, value in run.items() if key not in TIMED}).encode()
            found[str(path.relative_to(folder))] = data
    return found


def run(paths: list[Path], out: Path, workers: int, where: str | None, kill: bool = False) -> list[Outcome[Any, Any]]:
    """Into an empty folder. kill: the worker that brings the half-way outcome, once it is in its next task."""
    shutil.rmtree(out, ignore_errors=True)
    outcomes = []
    with closing(replay_many(paths, out, workers=workers, cluster=where)) as many:
        for outcome in many:
            outcomes.append(outcome)
            if outcome.fault:
                raise SystemExit(f"{outcome.item.recording}: {outcome.fault}")
            if kill and len(outcomes) == len(paths) // 2:
                time.sleep(0.3)
                os.kill(int(outcome.worker.rpartition(":")[2]), signal.SIGKILL)
    return outcomes


def compare(paths: list[Path], scratch: Path, places: dict[str, str | None]) -> None:
    alone = scratch / "alone"
    for path in paths:
        replay(path, alone / path.name)
    wanted = results(alone)
    for name, where in places.items():
        for workers, kill in ((1, False), (2, False), (2, True)):
            outcomes = run(paths, scratch / "out", workers, where, kill)
            again = sum(outcome.tries > 1 for outcome in outcomes)
            if results(scratch / "out") != wanted:
                raise SystemExit(f"{name}, {workers} workers: the bytes differ from those of one process")
            if kill and not again:
                raise SystemExit(f"{name}: want a task that was begun again, got none")
            note = f", a worker killed half-way, {again} task begun again" if kill else ""
            print(f"{name}, {workers} workers{note}: the bytes of one process, {len(wanted)} files", flush=True)


def measure(paths: list[Path], scratch: Path, places: dict[str, str | None], rounds: int) -> None:
    print("\n| where | 1 worker, s | 2 workers, s | ratio | engine CPU s, 1 / 2 | load average before |")
    print(6 * "|---" + "|")
    for name, where in places.items():
        walls: dict[int, list[float]] = {1: [], 2: []}
        engines: dict[int, list[float]] = {1: [], 2: []}
        load = os.getloadavg()[0]
        for _ in range(rounds):
            for workers in walls:
                started_s = time.perf_counter()
                outcomes = run(paths, scratch / "out", workers, where)
                walls[workers].append(time.perf_counter() - started_s)
                engines[workers].append(sum(outcome.value.summary.engine_cpu_s for outcome in outcomes))
        one_s, two_s = min(walls[1]), min(walls[2])
        each = ", ".join(f"{a / b:.2f}" for a, b in zip(walls[1], walls[2]))
        print(
            f"| {name} | {one_s:.1f} | {two_s:.1f} | {one_s / two_s:.2f} (rounds: {each}) "
            f"| {min(engines[1]):.1f} / {min(engines[2]):.1f} | {load:.2f} |",
            flush=True,
        )


# ---- cuts ------------------------------------------------------------------------------------------------------------


def quiet_ns(recording: Recording) -> list[int]:
    """Instants at which the store had been empty for QUIET_S: no person seen since, and every visit billed."""
    engine = Engine(recording.store)
    seen_ns, inside, instants, noted = 0, set(), [], False
    for observation in recording.observations():
        for result in engine.feed(observation):
            match result:
                case People() if len(result.track_id):
                    seen_ns, noted = result.t_ns, False
                case PersonEntered():
                    inside.add(str(result.visit))
                case Receipt():
                    inside.discard(result.visit)
        if seen_ns and not noted and not inside and observation.t_ns - seen_ns > QUIET_S * 1e9:
            instants.append(observation.t_ns)
            noted = True
    return instants


def lines_after(recording: Recording, out: Path, start_ns: int) -> None:
    """Replay a recording from an instant on."""
    engine = Engine(recording.store)
    writer = ResultsWriter(out, recording.store, engine.account_of)
    for observation in recording.observations():
        if observation.t_ns >= start_ns:
            for result in engine.feed(observation):
                writer.add(result)
    for result in engine.close():
        writer.add(result)
    writer.add(RunEnd(RunSummary("", ""), tuple(engine.shelf_state())))
    writer.close()


@dataclass
class Cut:
    """By kind: rows of the whole replay after a cut; how many are identical in the piece; how many are equivalent."""

    rows: dict[str, tuple[int, int, int]]


def cut(path: Path) -> Cut | None:
    """Compare one recording; None where the store is never empty before another person enters."""
    recording = Recording(path)
    rows: dict[str, tuple[int, int, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        whole, piece = Path(folder) / "whole", Path(folder) / "piece"
        replay(path, whole)
        entered = [row["enter"] or 0 for row in _rows(whole, "receipts")]
        instants = [at for at in quiet_ns(recording) if max(entered, default=0) > at]
        if not instants:
            return None
        lines_after(Recording(path), piece, instants[0])
        for name, when, meaning in (("receipts", "enter", _bill), ("events", "time", _candidate)):
            wanted = [row for row in _rows(whole, name) if (row[when] or 0) >= instants[0]]
            got = _rows(piece, name)
            meanings = [meaning(row) for row in got]
            equivalent = sum(meaning(row) in meanings for row in wanted)
            rows[name] = len(wanted), sum(row in got for row in wanted), equivalent
        rows["tracks"] = _tracks(whole, piece, instants[0])
    return Cut(rows)


def _rows(folder: Path, name: str) -> list[dict[str, Any]]:
    with open(folder / f"{name}.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _bill(receipt: dict[str, Any]) -> object:
    return receipt["account"], receipt["status"], [(line["gtin"], line["quantity"]) for line in receipt["lines"]]


def _candidate(event: dict[str, Any]) -> object:
    first = [(likely["account"], likely["gtin"], likely["quantity"]) for likely in event["candidates"][:1]]
    return event["plate"], first, event["time"] // 10**8


def _tracks(whole: Path, piece: Path, start_ns: int) -> tuple[int, int, int]:
    """A row of a track is equivalent where the piece has a person within a centimetre at that instant."""
    import numpy as np
    import pyarrow.parquet as pq

    tables = [pq.read_table(folder / "tracks.parquet").to_pylist() for folder in (whole, piece)]
    wanted = [row for row in tables[0] if row["time"] >= start_ns]
    at: dict[int, list[dict[str, Any]]] = {}
    for row in tables[1]:
        at.setdefault(row["time"], []).append(row)
    same = near = 0
    for row in wanted:
        there = at.get(row["time"], [])
        near += any(np.hypot(row["x"] - other["x"], row["y"] - other["y"]) < 0.01 for other in there)
        # As text, since unknown numbers are NaN, which does not equal itself.
        same += any(str(row) == str(other) for other in there)
    return len(wanted), same, near


def cuts(cache: Path) -> None:
    outcomes = list(map_tasks(cut, recordings(cache, 12, sparse=True)))
    faults = [outcome.fault for outcome in outcomes if outcome.fault]
    if faults:
        raise SystemExit(faults[0])
    made = [outcome.value for outcome in outcomes if outcome.value is not None]
    print(f"{len(made)} of {len(outcomes)} recordings are empty at some time before another person enters\n")
    print("| after the cut | rows | identical | equivalent |\n|---|---|---|---|")
    for name in ("receipts", "events", "tracks"):
        total, same, alike = (sum(cut.rows[name][i] for cut in made) for i in range(3))
        print(f"| {name} | {total} | {same} | {alike} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "fusion-bench-cluster")
    parser.add_argument("--rounds", type=int, default=1, help="of each measurement; the best counts")
    parser.add_argument("--without-ray", action="store_true", help="processes only")
    parser.add_argument("--times", action="store_true", help="leave the comparison out")
    parser.add_argument("--cuts", action="store_true", help="only the effect of cutting")
    args = parser.parse_args()
    cache = args.cache.absolute()
    if args.cuts:
        cuts(cache)
        return 0
    paths = recordings(cache, N_RECORDINGS)
    sizes = [sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) for path in paths]
    print(f"{len(paths)} recordings of {SCENARIO['minutes']:g} minutes, {SHOP['n_cameras']} cameras, "
          f"{SHOP['n_plates']} plates, {SCENARIO['shoppers']} shoppers; "
          f"{statistics.mean(sizes) / 2**20:.1f} MiB each", flush=True)  # fmt: skip
    places: dict[str, str | None] = {"processes": None}
    ray = None
    if not args.without_ray:
        started_s = time.perf_counter()
        ray = connect(2, "local")
        print(f"Ray {ray.__version__} started in {time.perf_counter() - started_s:.1f} s")
        places["Ray"] = "local"
    try:
        with tempfile.TemporaryDirectory() as scratch:
            if not args.times:
                compare(paths, Path(scratch), places)
            measure(paths, Path(scratch), places, args.rounds)
    finally:
        if ray is not None:
            ray.shutdown()
    return 0
