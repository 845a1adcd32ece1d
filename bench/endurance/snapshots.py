"""A busy run's snapshots at random instants, each resumed in another process: is the rest the same, byte for byte?

    python -m bench snapshots --instants 100

Every process has another seed for Python's hashes than the one that took the snapshots, so that no order of a set or a
dictionary can pass unseen.
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


def as_bytes(thing: Any) -> bytes:
    """A result as bytes: every field, arrays to the last bit, dictionaries in their order."""
    if isinstance(thing, np.ndarray):
        return repr((thing.dtype.str, thing.shape)).encode() + thing.tobytes()
    if dataclasses.is_dataclass(thing):
        fields = (as_bytes(getattr(thing, field.name)) for field in dataclasses.fields(thing))
        return type(thing).__name__.encode() + b"(" + b"|".join(fields) + b")"
    if isinstance(thing, tuple | list):
        return b"[" + b"|".join(map(as_bytes, thing)) + b"]"
    return repr(thing).encode()


def rest(engine: Engine, observations: Iterable[Observation]) -> str:
    """What an engine answers from here on, its journal and its shelves included, as a hash."""
    digest = hashlib.sha256()

    def add(results: list[Result]) -> None:
        for result in results:
            digest.update(as_bytes(result))

    for observation in observations:
        add(engine.feed(observation))
    add(engine.close())
    # What a receipt rests on can be asked for afterwards, as can what moved and what was not used.
    digest.update(as_bytes([*engine.journal, engine.shelf_state(), engine.health(), sorted(engine.ignored.items())]))
    return digest.hexdigest()


def snapshots(folder: Path, n: int, out: Path, seed: int = 1) -> dict[str, Any]:
    """Run a recording, take n snapshots at random instants, and say what the uninterrupted run gives after each.

    Results of an uninterrupted run from an instant on are hashed by an engine of its own that ran up to there: one
    run for each instant, none of which was ever saved.
    """
    recording = Recording(folder)
    observations = list(recording.observations())
    rng = random.Random(seed)
    instants = sorted(rng.sample(range(1, len(observations)), n))
    engine, done, cost_s, sizes = Engine(recording.store), 0, [], []
    # One pass: every instant's own hash takes in all that is answered after it.
    digests = [hashlib.sha256() for _ in instants]
    for place, observation in enumerate(observations):
        if done < n and place == instants[done]:
            began_s = time.perf_counter()
            data = snapshot(engine)
            cost_s.append(time.perf_counter() - began_s)
            sizes.append(len(data))
            (out / f"{place}.snapshot").write_bytes(data)
            done += 1
        for result in engine.feed(observation):
            told = as_bytes(result)
            for digest in digests[:done]:
                digest.update(told)
    last = b"".join(map(as_bytes, engine.close()))
    last += as_bytes([*engine.journal, engine.shelf_state(), engine.health(), sorted(engine.ignored.items())])
    for digest in digests:
        digest.update(last)
    wanted = {str(place): digest.hexdigest() for place, digest in zip(instants, digests)}
    return {"wanted": wanted, "cost_s": cost_s, "bytes": sizes, "observations": len(observations)}


def resumed(folder: Path, out: Path, places: list[int]) -> dict[str, str]:
    """The same from the snapshots, for use in a process that knows nothing else."""
    recording = Recording(folder)
    observations = list(recording.observations())
    found = {}
    for place in places:
        engine = resume((out / f"{place}.snapshot").read_bytes(), recording.store)
        found[str(place)] = rest(engine, observations[place:])
    return found


def elsewhere(folder: Path, out: Path, places: list[str], hash_seed: int) -> dict[str, str]:
    """`resumed` in another process, with another order of sets."""
    command = [sys.executable, "-m", "bench", "snapshots", "--resume", str(folder), str(out), *places]
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(ROOT)}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if said.returncode:
        raise RuntimeError(said.stderr)
    return json.loads(said.stdout)


def main() -> int:
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
        wanted, same = taken["wanted"], 0
        for part in range(0, args.instants, 10):
            places = list(wanted)[part : part + 10]
            found = elsewhere(folder, out, places, hash_seed=1000 + part)
            same += sum(found[place] == wanted[place] for place in places)
    cost_ms = np.array(taken["cost_s"]) * 1e3
    print(f"{same} of {args.instants} snapshots resumed in another process gave the rest byte for byte")
    print(
        f"a snapshot takes {np.median(cost_ms):.1f} ms (at most {cost_ms.max():.1f} ms) and "
        f"{np.median(taken['bytes']) / 1e3:.0f} kB (at most {max(taken['bytes']) / 1e3:.0f} kB)"
    )
    return 0 if same == args.instants else 1
