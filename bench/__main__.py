"""Run a benchmark by name: python -m bench NAME [OPTIONS]; without a name, list them.

Accuracy and endurance are programs with options of their own (`python -m bench NAME --help`). Most of speed runs on
pytest-benchmark, whose options apply (`python -m bench triangulation --benchmark-group-by=group`).
"""

from __future__ import annotations

import difflib
import importlib
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.machine import machine


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: its module, its question in one line, and whether pytest runs its functions."""

    module: str
    question: str
    pytest: bool = False


BENCHMARKS = {
    "accuracy": Benchmark("accuracy.receipts", "receipts of simulated shops, their probabilities, a plain method"),
    "parts": Benchmark("accuracy.parts", "receipts without each part of how goods are attributed"),
    "cabinet": Benchmark("accuracy.cabinet", "receipts of openings of a cabinet without cameras"),
    "people": Benchmark("accuracy.people", "identities, places and hands in simulated crowds, with their deviations"),
    "arms": Benchmark("accuracy.arms", "wrists and elbows at contact, recorded and smoothed, with their deviations"),
    "hands": Benchmark("accuracy.hands", "whose hand moved a load: reliability by cameras on the wrist, training"),
    "presence": Benchmark("accuracy.presence", "whom the engine reports when cameras miss people, and its ghosts"),
    "faults": Benchmark("accuracy.faults", "receipts under every fault of the library, and whether it is named"),
    "early": Benchmark("accuracy.early", "receipts within a second: how late they come, how many are corrected"),
    "twenty": Benchmark("accuracy.twenty", "doubtful visits decided by a script that reads only the review page"),
    "learning": Benchmark("accuracy.learning", "two weeks of a store that drifts, with and without what it teaches"),
    "answers": Benchmark("accuracy.answers", "shoppers' answers: bills settled, takers found, honest ones marked"),
    "public": Benchmark("public.run", "published sets in their authors' form, run and scored beside other packages"),
    "calibration": Benchmark("accuracy.calibration", "cameras found from people walking, against known cameras"),
    "nudges": Benchmark("accuracy.nudges", "cameras nudged while a shop is open: put right, and receipts meanwhile"),
    "skeletons": Benchmark("accuracy.skeletons", "orders of keypoints: found out, asked for, or wrong"),
    "detect": Benchmark("accuracy.detect", "people in video: joints on real clips, cameras that a core can watch"),
    "triangulation": Benchmark("speed.bench_triangulation", "triangulation beside its NumPy twin and OpenCV", True),
    "association": Benchmark("speed.bench_association", "association beside its NumPy twin and SciPy", True),
    "attribution": Benchmark(
        "speed.bench_attribution", "attribution of a shelf event beside its NumPy twin, with p50 and p99 of an event",
        True,
    ),
    "scales": Benchmark("speed.bench_scales", "a tick of 400 plates beside NumPy and bottleneck", True),
    "gate": Benchmark("speed.bench_gate", "a gate's decision while an engine runs at full load", True),
    "ledger": Benchmark("speed.bench_ledger", "durable postings beside raw SQLite and raw PostgreSQL", True),
    "frame": Benchmark("speed.bench_frame", "a whole set of frames beside a chain of NumPy and SciPy"),
    "peers": Benchmark("speed.bench_peers", "beside aniposelib, ByteTrack, SORT and norfair, as a table"),
    "replay": Benchmark("speed.bench_replay", "a whole recording through the engine's public interface", True),
    "engine": Benchmark("speed.engine", "the engine step on simulated stores: median, p99 and worst"),
    "cost_curve": Benchmark("speed.cost_curve", "the engine step over cameras and people"),
    "stages": Benchmark("speed.stages", "the tracker's step by stage and kernel"),
    "standstill": Benchmark("speed.standstill", "how long an engine waits for its snapshot, and for a copy of it"),
    "memory": Benchmark("speed.memory", "resident memory and start of a store's process, by part"),
    "pages": Benchmark("speed.pages", "reports: writing, opening, scrubbing; the cost of consoles and phones"),
    "view": Benchmark("speed.view", "what a Rerun recording adds to a replay"),
    "soak": Benchmark("endurance.soak", "24 hours of data in one engine: memory and step time"),
    "kills": Benchmark("endurance.kills", "a till killed while it charges: nothing lost, nothing charged twice"),
    "serve": Benchmark("endurance.serve", "live stores: kills, gaps in the data, many at once, overload"),
    "live": Benchmark("endurance.live", "a shop over a real broker that is killed half-way"),
    "rtsp": Benchmark("endurance.rtsp", "four RTSP cameras through detection and broker to receipts, with faults"),
    "shops": Benchmark("endurance.shops", "example stores, all of them and their surroundings killed"),
    "year": Benchmark("endurance.year.run", "a year of shops in a night: all of it breaks, an auditor knows the truth"),
    "snapshots": Benchmark("endurance.snapshots", "snapshots at random instants, resumed in another process"),
    "capacity": Benchmark("capacity.plan", "what 1, 100 and 2000 stores need, from measured costs"),
    "batch": Benchmark("capacity.batch", "many recordings on processes and on Ray"),
    "chain_book": Benchmark("capacity.chain_book", "rows a second into the chain's book beside bare PostgreSQL"),
    "commits": Benchmark("commits", "two commits in one run: what became faster, what slower"),
    "coverage": Benchmark("coverage", "lines and branches that the tests run, by wing"),
    "mutation": Benchmark("mutation.run", "deliberate faults in the code: the share that a test notices"),
    "pictures": Benchmark("pictures", "the pictures of the README and the documents, taken again"),
    "figures": Benchmark("figures", "the tables and plots of docs/figures"),
}


def main() -> int:
    """Run the benchmark that the command line names; returns its exit code."""
    name, options = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    if name in ("-h", "--help"):
        print(f"{__doc__}\n" + "\n".join(f"  {key:14} {benchmark.question}" for key, benchmark in BENCHMARKS.items()))
        return 0
    if name not in BENCHMARKS:
        similar = difflib.get_close_matches(name, BENCHMARKS, n=1)
        hint = f", did you mean {similar[0]!r}?" if similar else ""
        print(f"python -m bench: no benchmark is named {name!r}{hint}; `python -m bench` lists them", file=sys.stderr)
        return 2
    benchmark = BENCHMARKS[name]
    if benchmark.module.startswith("speed."):
        print(f"machine: {machine()}", file=sys.stderr, flush=True)
    if benchmark.pytest:
        import pytest

        path = Path(__file__).resolve().parent.joinpath(*benchmark.module.split(".")).with_suffix(".py")
        return int(pytest.main([str(path), *options]))
    sys.argv = [f"python -m bench {name}", *options]
    return int(importlib.import_module(f"bench.{benchmark.module}").main() or 0)


if __name__ == "__main__":
    sys.exit(main())
