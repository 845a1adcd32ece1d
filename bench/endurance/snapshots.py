"""Snapshots of a busy run at random instants, resumed in another process: are the later results the same, to the byte?

    python -m bench snapshots --instants 100

Every process has a different seed for Python's hashes than the one that took the snapshots, so that a dependence on the
order of a set is detected.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fusion.engine import Engine
from fusion.files.recordings import Recording
from fusion.observations import Observation
from fusion.results import Result
from fusion.snapshots import resume, snapshot

ROOT = Path(__file__).resolve().parents[2]


def as_bytes(value: Any) -> bytes:
    """A result as bytes: every field, arrays bit for bit, dictionaries in their order."""
    if isinstance(value, np.ndarray):
        return repr((value.dtype.str, value.shape)).encode() + value.tobytes()
    if dataclasses.is_dataclass(value):
        fields = (as_bytes(getattr(value, field.name)) for field in dataclasses.fields(value))
        return type(value).__name__.encode() + b"(" + b"|".join(fields) + b")"
    if isinstance(value, tuple | list):
        return b"[" + b"|".join(map(as_bytes, value)) + b"]"
    return repr(value).encode()


def final_state(engine: Engine) -> bytes:
    """The journal, shelves, health and ignored counts of an engine that was closed."""
    return as_bytes([*engine.journal, engine.shelf_state(), engine.health(), sorted(engine.ignored.items())])


def digest_of_rest(engine: Engine, observations: Iterable[Observation]) -> str:
    """Hash of an engine's results from now on, and of its final state."""
    digest = hashlib.sha256()

    def add(results: list[Result]) -> None:
        for result in results:
            digest.update(as_bytes(result))

    for observation in observations:
        add(engine.feed(observation))
    add(engine.close())
    digest.update(final_state(engine))
    return digest.hexdigest()


def snapshots(folder: Path, n: int, out: Path, seed: int = 1) -> dict[str, Any]:
    """Run a recording, take n snapshots at random instants, and hash the uninterrupted run's results after each."""
    recording = Recording(folder)
    observations = list(recording.observations())
    rng = random.Random(seed)
    instants = sorted(rng.sample(range(1, len(observations)), n))
    engine, n_taken, cost_s, sizes = Engine(recording.store), 0, [], []
    # One pass: the hash of every instant includes all results after it.
    digests = [hashlib.sha256() for _ in instants]
    for place, observation in enumerate(observations):
        if n_taken < n and place == instants[n_taken]:
            began_s = time.perf_counter()
            data = snapshot(engine)
            cost_s.append(time.perf_counter() - began_s)
            sizes.append(len(data))
            (out / f"{place}.snapshot").write_bytes(data)
            n_taken += 1
        for result in engine.feed(observation):
            data = as_bytes(result)
            for digest in digests[:n_taken]:
                digest.update(data)
    last = b"".join(map(as_bytes, engine.close())) + final_state(engine)
    for digest in digests:
        digest.update(last)
    expected = {str(place): digest.hexdigest() for place, digest in zip(instants, digests)}
    return {"expected": expected, "cost_s": cost_s, "bytes": sizes, "observations": len(observations)}


def resumed(folder: Path, out: Path, places: list[int]) -> dict[str, str]:
    """Hashes of the results after resuming each snapshot; runs in a new process."""
    recording = Recording(folder)
    observations = list(recording.observations())
    digests = {}
    for place in places:
        engine = resume((out / f"{place}.snapshot").read_bytes(), recording.store)
        digests[str(place)] = digest_of_rest(engine, observations[place:])
    return digests


def resumed_in_another_process(folder: Path, out: Path, places: list[str], hash_seed: int) -> dict[str, str]:
    """`resumed` in another process with another order of sets."""
    command = [sys.executable, "-m", "bench", "snapshots", "--resume", str(folder), str(out), *places]
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def main() -> int:
    """Take and resume snapshots of a simulated run; returns 1 if one gave other results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instants", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.resume:
        folder, out, *places = args.resume
        print(json.dumps(resumed(Path(folder), Path(out), [int(place) for place in places])))
        return 0
    from fusion.simulation import Scenario, Simulation, demo_store

    with tempfile.TemporaryDirectory() as scratch:
        folder, out = Path(scratch) / "recording", Path(scratch)
        scenario = Scenario(seed=args.seed, minutes=args.minutes, shoppers=10, companions=2, tailgaters=1, staff=1)
        Simulation(demo_store(n_cameras=12, n_plates=80), scenario).write(folder)
        taken = snapshots(folder, args.instants, out, args.seed)
        expected, n_same = taken["expected"], 0
        for first in range(0, args.instants, 10):
            places = list(expected)[first : first + 10]
            digests = resumed_in_another_process(folder, out, places, hash_seed=1000 + first)
            n_same += sum(digests[place] == expected[place] for place in places)
    cost_ms = np.array(taken["cost_s"]) * 1e3
    print(f"{n_same} of {args.instants} snapshots, resumed in another process, gave the same later results to the byte")
    print(
        f"a snapshot takes {np.median(cost_ms):.1f} ms (at most {cost_ms.max():.1f} ms) and "
        f"{np.median(taken['bytes']) / 1e3:.0f} kB (at most {max(taken['bytes']) / 1e3:.0f} kB)"
    )
    return 0 if n_same == args.instants else 1
