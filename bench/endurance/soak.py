"""A day in a shop, compressed: does memory stay flat, and does a step still cost what it cost in the morning?

    OMP_NUM_THREADS=1 python -m bench soak                    24 hours of data: about eight minutes
    OMP_NUM_THREADS=1 python -m bench soak --hours 1          half a minute
    OMP_NUM_THREADS=1 python -m bench soak --markdown docs/figures/soak.md

A few minutes of a simulated shop (people come, take, put back, leave; four cameras at 5 Hz, twelve plates) are made
once and fed to one engine repeatedly, with shifted times and new accounts. At the end of each round the shelves are
full again; the engine sees that as loads from an unidentified visitor. Results are counted and dropped, as a caller
that writes them away would do.

Each stretch reports resident memory, CPU time of a step (median, p99), and the number of entries in the engine's
tables, found by walking through all objects that the engine owns. Other programs slow the machine down, so a new
engine runs one round at the end of each stretch, and the ratio of the two engines' times is judged. After warm-up (a
sixth of the run) resident memory may grow by less than 1 MB an hour, and the ratio by less than a fifth from the
first third to the last; tables that grow are named. The journal grows by design, since it is the history of goods;
its memory is reported.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fusion.engine import Engine
from fusion.observations import Frame, GateScan, Observation, ShelfReading
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.store.models import Store

# These grow by design, with the movements of goods.
HISTORY = tuple(f"_billing.journal.{name}" for name in ("_transfers", "_balances", "_of", "_reversed"))
# These fill up to a bound that a day may not reach: the owners and visits of the last 4096 people, the last 1024 ended
# tracks, the evidence of the last 64 receipts, the names of the last 4096 visits, and the loads of the last 256, which
# a decision may name.
BOUNDED = (
    "_visits._open.of_track", "_tracker.tracks._ended", "_billing._bundles", "_billing._billed",
    "_billing.labels._visits",
)  # fmt: skip
# Pause between rounds; shorter than a jump that would make the engine distrust a clock.
PAUSE_NS = 200_000_000
GROWTH_MAX_MB_PER_H = 1.0
SLOWER_MAX = 0.2
WARM_UP_SHARE = 1 / 6


@dataclass(frozen=True)
class Block:
    """Observations of a few minutes in order of time, starting at t_ns = 0."""

    observations: list[Observation]
    length_ns: int
    n_visits: int


def shop() -> Store:
    """The small store of the soak."""
    return demo_store(n_cameras=4, n_plates=12, n_products=6)


def make_block(store: Store, seed: int, minutes: float, shoppers: int) -> Block:
    """Simulate one block."""
    scenario = Scenario(
        seed=seed, minutes=minutes, shoppers=shoppers, picks_per_person=3.0, frame_rate_hz=5.0, companions=1, staff=0
    )
    simulation = Simulation(store, scenario)
    start_ns = scenario.start_ns
    shifted = [replace(observation, t_ns=observation.t_ns - start_ns) for observation in simulation.observations()]
    return Block(shifted, shifted[-1].t_ns + PAUSE_NS, len(simulation.truth.visits))


def rounds(blocks: Sequence[Block], until_ns: int, start_ns: int) -> Iterator[tuple[int, Observation]]:
    """(time since the start, observation) of the blocks in turn, until a block would begin after until_ns."""
    offset_ns, n = 0, 0
    while offset_ns < until_ns:
        block = blocks[n % len(blocks)]
        for recorded in block.observations:
            t_ns = start_ns + offset_ns + recorded.t_ns
            match recorded:
                case Frame():
                    shifted: Observation = Frame(t_ns, recorded.camera, recorded.keypoints)
                case ShelfReading():
                    shifted = ShelfReading(t_ns, recorded.plate, recorded.samples)
                case GateScan():
                    shifted = GateScan(t_ns, recorded.gate, recorded.credential_type, f"{recorded.account}-{n}")
                case _:
                    raise TypeError(f"want a frame, a shelf reading or a gate scan, got {recorded}")
            yield offset_ns + recorded.t_ns, shifted
        offset_ns += block.length_ns
        n += 1


def tables(owner: object) -> dict[str, int]:
    """Number of entries of every container that an engine owns, by attribute path; nested containers are summed."""
    sizes: Counter[str] = Counter()
    seen: set[int] = set()

    def walk(value: object, path: str) -> None:
        if id(value) in seen or isinstance(value, (str, bytes, int, float, type, np.ndarray, Store)) or value is None:
            return
        seen.add(id(value))
        if isinstance(value, (Mapping, list, set, frozenset, deque, tuple)):
            if not isinstance(value, (tuple, frozenset)):
                sizes[path] += len(value)
            inside = list(value.values()) if isinstance(value, Mapping) else list(value)
            for item in inside:
                walk(item, path + "[]")
        elif type(value).__module__.startswith("fusion."):
            names = list(getattr(value, "__dict__", ()))
            for kind in type(value).__mro__:
                slots = getattr(kind, "__slots__", ())
                names += [slots] if isinstance(slots, str) else list(slots)
            for name in names:
                walk(getattr(value, name, None), f"{path}.{name}" if path else name)

    walk(owner, "")
    return dict(sizes)


def resident_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True)
class Stretch:
    """Figures of one stretch of data."""

    end_h: float
    resident_mb: float
    step_p50_us: float
    step_p99_us: float
    fresh_p50_us: float
    journal_mb: float
    n_steps: int
    results: dict[str, int]
    tables: dict[str, int]

    @property
    def slower(self) -> float:
        """Ratio of the old engine's median step time to that of a new engine at the same time."""
        return self.step_p50_us / self.fresh_p50_us


class Stopwatch:
    """A clock of the thread's CPU time that keeps the times of the steps measured with it."""

    def __init__(self) -> None:
        self._ticks = array("q")

    def __call__(self) -> int:
        now_ns = time.thread_time_ns()
        self._ticks.append(now_ns)
        return now_ns

    def steps_us(self) -> np.ndarray:
        """(n_steps,) microseconds of the steps since the last call."""
        step_us = np.diff(np.array(self._ticks).reshape(-1, 2), axis=1)[:, 0] * 1e-3
        del self._ticks[:]
        return step_us


def soak(blocks: Sequence[Block], store: Store, hours: float, stretch_h: float, report: bool = False) -> list[Stretch]:
    """Run an engine on hours of data; returns the figures of every stretch. Asserts conservation of goods.

    report: print each stretch on stderr when it ends.
    """
    stopwatch = Stopwatch()
    engine = Engine(store, stopwatch_ns=stopwatch)
    results: Counter[str] = Counter()
    stretches: list[Stretch] = []
    start_ns = 1_767_258_000_000_000_000

    def finish_stretch(t_ns: int) -> None:
        step_us = stopwatch.steps_us()
        p50, p99 = np.percentile(step_us, [50, 99])
        fresh_us = float(np.median(fresh(blocks[0], store, start_ns)))
        gc.collect()
        stretch = Stretch(
            end_h=t_ns / 3.6e12,
            resident_mb=resident_mb(),
            step_p50_us=float(p50),
            step_p99_us=float(p99),
            fresh_p50_us=fresh_us,
            journal_mb=size_mb(engine.journal),
            n_steps=len(step_us),
            results=dict(results),
            tables=tables(engine),
        )
        stretches.append(stretch)
        if report:
            print(_line(stretch), file=sys.stderr, flush=True)

    due_ns = stretch_ns = round(stretch_h * 3.6e12)
    for t_ns, observation in rounds(blocks, round(hours * 3.6e12), start_ns):
        if t_ns >= due_ns:
            finish_stretch(t_ns)
            due_ns += stretch_ns
        for result in engine.feed(observation):
            results[_kind(result)] += 1
    for result in engine.close():
        results[_kind(result)] += 1
    finish_stretch(t_ns)
    assert not any(engine.journal.totals().values()), "the journal does not balance: goods were created or lost"
    return stretches


def fresh(block: Block, store: Store, start_ns: int) -> np.ndarray:
    """(n_steps,) microseconds of a new engine's steps in one round."""
    stopwatch = Stopwatch()
    engine = Engine(store, stopwatch_ns=stopwatch)
    for _, observation in rounds([block], 1, start_ns):
        engine.feed(observation)
    return stopwatch.steps_us()


def size_mb(owner: object) -> float:
    """Memory of an object with everything that it owns, by sys.getsizeof."""
    seen: set[int] = set()

    def walk(value: object) -> int:
        if id(value) in seen:
            return 0
        seen.add(id(value))
        inside: list[object] = []
        if isinstance(value, Mapping):
            inside = [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple, set)):
            inside = list(value)
        elif type(value).__module__.startswith("fusion."):
            inside = [*getattr(value, "__dict__", {}).values()]
            inside += [getattr(value, name) for name in getattr(type(value), "__slots__", ())]
        return sys.getsizeof(value) + sum(walk(item) for item in inside)

    return walk(owner) / 2**20


def _kind(result: object) -> str:
    status = getattr(result, "status", "")
    return f"{type(result).__name__}{' ' if status else ''}{status}"


def _line(stretch: Stretch) -> str:
    counts = {name: n for name, n in stretch.results.items() if name != "People"}
    return (
        f"{stretch.end_h:6.2f} h  {stretch.resident_mb:7.1f} MB"
        f"  step {stretch.step_p50_us:6.0f} / {stretch.step_p99_us:6.0f} us ({stretch.slower:.2f} of new)"
        f"  {stretch.n_steps} steps  {counts}"
    )


def slope_per_h(stretches: Sequence[Stretch], figure: str) -> float:
    """Growth of a figure per hour, by least squares."""
    hours = np.array([stretch.end_h for stretch in stretches])
    return float(np.polyfit(hours, [getattr(stretch, figure) for stretch in stretches], 1)[0])


def after_warm_up(stretches: Sequence[Stretch]) -> list[Stretch]:
    """The stretches after the warm-up, without the last, which is cut short and includes the work of close()."""
    return [stretch for stretch in stretches[:-1] if stretch.end_h > WARM_UP_SHARE * stretches[-1].end_h]


def growing(stretches: Sequence[Stretch]) -> dict[str, tuple[int, int]]:
    """Entries (middle, end) of the tables that grew by at least a tenth and ten entries in both halves of the run."""
    first, middle, last = (stretches[i].tables for i in (0, len(stretches) // 2, -1))
    grown = {}
    for name, n in last.items():
        early, half = first.get(name, 0), middle.get(name, 0)
        if min(half - early, n - half) >= max(10, 0.1 * half):
            grown[name] = (half, n)
    return grown


def judge(stretches: Sequence[Stretch]) -> list[str]:
    """Faults of a run; empty if memory and step time are flat."""
    warm = after_warm_up(stretches)
    faults = []
    if len(warm) >= 3:
        growth_mb = slope_per_h(warm, "resident_mb")
        if growth_mb >= GROWTH_MAX_MB_PER_H:
            faults.append(f"memory grows by {growth_mb:.2f} MB an hour")
        third = max(1, len(warm) // 3)
        early, late = (float(np.median([stretch.slower for stretch in part])) for part in (warm[:third], warm[-third:]))
        if late > (1 + SLOWER_MAX) * early:
            faults.append(f"a step costs {late:.2f} times a new engine's at the end, {early:.2f} at the start")
    for name, (half, n) in growing(stretches[:-1]).items():
        if not name.startswith(HISTORY + BOUNDED):
            faults.append(f"{name} grows: {half} entries in the middle, {n} at the end")
    return faults


def markdown(stretches: Sequence[Stretch]) -> str:
    """One row per stretch."""
    kinds = ("PersonEntered", "PersonLeft", "ShelfEventExplained", "Receipt settled", "Receipt review", "Warning")
    lines = [
        "| hours | resident MB | step median µs | p99 | median over a new engine's | steps | "
        + " | ".join(kinds)
        + " | transfers in the journal | MB | other tables' entries |",
        "|---" * (9 + len(kinds)) + "|",
    ]
    for stretch in stretches:
        n_transfers = stretch.tables.get("_billing.journal._transfers", 0)
        n_entries = sum(n for name, n in stretch.tables.items() if not name.startswith(HISTORY))
        counts = " | ".join(str(stretch.results.get(kind, 0)) for kind in kinds)
        lines.append(
            f"| {stretch.end_h:.1f} | {stretch.resident_mb:.1f} | {stretch.step_p50_us:.0f}"
            f" | {stretch.step_p99_us:.0f} | {stretch.slower:.2f} | {stretch.n_steps} | {counts} | {n_transfers}"
            f" | {stretch.journal_mb:.2f} | {n_entries} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the soak; exits with 1 if memory, step time or a table grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--blocks", type=int, default=4, help="number of different rounds, used in turn")
    parser.add_argument("--minutes", type=float, default=4.0, help="of data in each round")
    parser.add_argument("--shoppers", type=int, default=6, help="in each round")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    args = parser.parse_args()
    started_s = time.perf_counter()
    store = shop()
    blocks = [make_block(store, seed, args.minutes, args.shoppers) for seed in range(1, args.blocks + 1)]
    stretches = soak(blocks, store, args.hours, min(1.0, args.hours / 12), report=True)
    table, faults = markdown(stretches), judge(stretches)
    warm = after_warm_up(stretches)
    growth = (
        f"Memory changes by {slope_per_h(warm, 'resident_mb'):+.3f} MB an hour after warm-up, the journal by"
        f" {slope_per_h(warm, 'journal_mb'):+.3f}. The step's median is {warm[0].step_p50_us:.0f} µs then and"
        f" {warm[-1].step_p50_us:.0f} µs at the end ({warm[0].slower:.2f} and {warm[-1].slower:.2f} times a new"
        f" engine's), its p99 {warm[0].step_p99_us:.0f} and {warm[-1].step_p99_us:.0f} µs."
    )
    verdict = "; ".join(faults) if faults else "Memory and step time are flat; only the journal's tables grow."
    print(f"{table}\n\n{growth}\n{verdict}")
    print(json.dumps({"largest tables": sorted(stretches[-2].tables.items(), key=lambda item: -item[1])[:12]}))
    print(f"in {time.perf_counter() - started_s:.0f} s")
    if args.markdown:
        explanation = (__doc__ or "").partition("\n\n")[2].partition("\n\n")[2]
        head = f"# A day, compressed\n\nMade by `python -m bench soak {' '.join(sys.argv[1:])}`.\n\n"
        args.markdown.write_text(f"{head}{growth} {verdict}\n\n{table}\n\n{explanation}", encoding="utf-8")
    if faults:
        raise SystemExit(1)
