"""Many live stores on this machine: kills, sick neighbours, overload. Each part prints its findings.

    python -m bench serve kills --kills 200      a live store killed again and again: is every visit accounted for?
    python -m bench serve gaps                   data lost in a restart: is any receipt that this changes settled?
    python -m bench serve many --stores 50       many stores at true pace, one fed garbage, one killed all the time
    python -m bench serve overload               2 and 5 times what a core can process
    python -m bench serve cost                   cost of snapshots in stores of several sizes

Stores replay recordings at true pace, or at a multiple of it, and send again the last seconds as a broker does.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fusion.engine import Engine
from fusion.files.recordings import Recording
from fusion.live.config import ServeConfig
from fusion.live.gaps import Gaps
from fusion.live.intake import Intake, stream_of
from fusion.live.sources import Source, paced_source
from fusion.live.supervisor import LIMITS, Limits, Supervisor
from fusion.money.ledger import Ledger
from fusion.observations import Frame, GateScan, Observation, ShelfReading
from fusion.results import Reason, Receipt, Result
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.store.models import Store

ROOT = Path(__file__).resolve().parents[2]


# ---- a chain to serve ------------------------------------------------------------------------------------------------


def make_chain(folder: Path, recording: Path, stores: dict[str, tuple[str, dict[str, Any]]], **settings: Any) -> Path:
    """Write chain.toml and the folders of some stores, given by id as their source and its options."""
    base = Recording(recording).store
    for store_id in stores:
        Store.model_validate(base.model_copy(update={"id": store_id}).model_dump()).save(folder / store_id)
    lines = ["format_version = 1", "[[retailer]]", 'id = "r"', 'name = "R"', 'brand = "B"']
    lines += [f"stores = {json.dumps(list(stores))}", "[serve]", "port = 0"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    for store_id, (source, options) in stores.items():
        lines += ["[[serve.store]]", f"store = {json.dumps(store_id)}", f"source = {json.dumps(source)}"]
        lines += ["[serve.store.options]", *(f"{key} = {json.dumps(value)}" for key, value in options.items())]
    path = folder / "chain.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@contextlib.contextmanager
def supervised(
    path: Path, report: Callable[[str], object] = lambda message: None, limits: Limits = LIMITS
) -> Iterator[Supervisor]:
    """Run a supervisor in a thread of its own until the block ends."""
    with Supervisor(path, report, limits=limits) as supervisor:
        thread = threading.Thread(target=supervisor.run)
        thread.start()
        try:
            yield supervisor
        finally:
            supervisor.stop()
            thread.join()


def until(holds: Callable[[], object], limit_s: float) -> bool:
    """Wait until a condition holds. Returns whether it did in time."""
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        if holds():
            return True
        time.sleep(0.05)
    return False


def garbage(config: ServeConfig, since_ns: int) -> Garbage:
    """A source for `python:bench.endurance.serve:garbage`: a store's recording with nonsense among it."""
    return Garbage(config, since_ns)


def hungry(config: ServeConfig, since_ns: int) -> Hungry:
    """A source for `python:bench.endurance.serve:hungry` that never stops taking memory."""
    return Hungry(config)


class Hungry(Source):
    """Takes some MiB at a time until there is no more memory; with the option `at_once` all of it in one step."""

    def __init__(self, config: ServeConfig) -> None:
        self._step_bytes = 1 << 40 if config.options.get("at_once") else 1 << 24
        self._stopped = threading.Event()

    def __iter__(self) -> Iterator[Observation]:
        held = []
        while not self._stopped.wait(0.02):
            held.append(b"x" * self._step_bytes)
        yield from ()

    def stop(self) -> None:
        self._stopped.set()


class Garbage(Source):
    """A recording with wrong shapes, wrong types, unknown sensors and absurd times, up to `most` a true observation."""

    def __init__(self, config: ServeConfig, since_ns: int) -> None:
        self._rng = np.random.default_rng(since_ns % 2**32)
        self._most = int(config.options.get("most", 19))
        options = {name: value for name, value in config.options.items() if name not in ("recording", "most")}
        source = f"recording:{config.options['recording']}"
        self._true = paced_source(dataclasses.replace(config, source=source, options=options), since_ns)

    def __iter__(self) -> Iterator[Any]:
        for observation in self._true:
            yield observation
            for _ in range(int(self._rng.integers(0, self._most + 1))):
                yield self._nonsense(observation.t_ns)

    def _nonsense(self, t_ns: int) -> Any:
        rng = self._rng
        t_ns += int(rng.choice([0, -(10**9), 10**10, -(10**15), 10**17]))
        shape = tuple(rng.integers(0, 4, size=int(rng.integers(1, 4))))
        match int(rng.integers(0, 6)):
            case 0:
                return Frame(t_ns, "no such camera", rng.random(shape).astype(np.float32))
            case 1:
                return Frame(t_ns, "cam01", np.full((2, 17, 3), np.nan, np.float32))
            case 2:
                return ShelfReading(t_ns, "none", rng.random(3).astype(np.float32) * 1e30)
            case 3:
                return GateScan(t_ns, "no such gate", "open", "x" * 300)
            case 4:
                return ShelfReading(t_ns, "p001", rng.integers(0, 9, 5))  # type: ignore[arg-type]
            case _:
                return b"\xff\x00 not an observation"

    def stop(self) -> None:
        self._true.stop()


# ---- kills -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BookedVisit:
    """How a visit stands in the books: `items` are GTINs with quantities."""

    status: str
    total: int
    account: str | None
    items: list[tuple[str, int]]
    reason: str | None


@dataclass(frozen=True)
class Booked:
    """The content of a store's books.

    Attributes:
        visits: by id.
        n_receipts: by visit.
        fault: what `Ledger.verify` found.
        balance: sum of all accounts, which is 0 in double entry.
    """

    visits: dict[str, BookedVisit]
    n_receipts: Counter[str]
    fault: str | None
    balance: int


def booked(folder: Path, store: Store) -> Booked:
    """Read the books in a store's folder."""
    with Ledger.open(folder / f"{store.id}.sqlite", store) as ledger:
        visits: dict[str, BookedVisit] = {}
        n_receipts: Counter[str] = Counter()
        for visit in dict.fromkeys(entry.visit for entry in ledger.entries_between(-(2**62), 2**62)):
            found = ledger.standing(visit)
            if found is not None:
                items = sorted((line.gtin, line.quantity) for line in found.lines)
                visits[visit] = BookedVisit(found.status, found.total, found.account, items, found.reason)
            kinds = Counter(entry.kind for entry in ledger.entries(visit))
            n_receipts[visit] = kinds["receipt settled"] + kinds["receipt review"]
        balance = sum(ledger.balances().get(store.currency, {}).values())
        return Booked(visits, n_receipts, ledger.verify(), balance)


def uninterrupted(recording: Path, store: Store) -> dict[str, Receipt]:
    """Receipts by visit of a run without interruption."""
    engine = Engine(store)
    results = [result for observation in Recording(recording).observations() for result in engine.feed(observation)]
    return {result.visit: result for result in (*results, *engine.close()) if isinstance(result, Receipt)}


def kills(
    folder: Path, recording: Path, n_kills: int, *, speed: float, kept_s: float, seed: int = 1,
    snapshot_every_s: float = 5.0, pause_s: float = 1.0, limit_s: float = 900.0, n_stores: int = 1, source: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Kill live stores at random instants, each n times or until its recording ends; then compare their books.

    `source`, in place of the recording itself, is given its path as the option `recording`.
    """
    options: dict[str, Any] = {"speed": speed, "kept_s": kept_s}
    if source:
        options["recording"] = str(recording)
    names = [f"killed{i}" for i in range(n_stores)]
    path = make_chain(
        folder, recording, {name: (source or f"recording:{recording}", options) for name in names},
        deaths_max=10**6, pause_max_s=0.1, snapshot_every_s=snapshot_every_s,
    )  # fmt: skip
    done: Counter[str] = Counter()
    messages: list[str] = []

    def kill_again(name: str) -> None:
        rng = random.Random(f"{seed} {name}")
        state = lambda: supervisor.health()["stores"][name]["state"]  # noqa: E731
        until(lambda: state() == "live", 60)
        while done[name] < n_kills and time.monotonic() < end_s and state() != "ended":
            # At any instant: while it works, while it writes, sometimes while it starts.
            time.sleep(rng.uniform(0.0, pause_s) if rng.random() < 0.9 else rng.uniform(0.0, 0.1))
            pid = supervisor.pids().get(name)
            if pid is not None and state() != "ended":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    done[name] += 1
            until(lambda before=pid: supervisor.pids().get(name) not in (None, before), 10)  # type: ignore[misc]

    with supervised(path, messages.append) as supervisor:
        end_s = time.monotonic() + limit_s
        killers = [threading.Thread(target=kill_again, args=(name,)) for name in names]
        for killer in killers:
            killer.start()
        for killer in killers:
            killer.join()
        states = lambda: {status["state"] for status in supervisor.health()["stores"].values()}  # noqa: E731
        until(lambda: states() == {"ended"}, max(end_s - time.monotonic(), 1.0))
        ended = states() == {"ended"}
    found: Counter[str] = Counter()
    truth = uninterrupted(recording, Store.load(folder / names[0]))
    for name in names:
        found += compared(booked(folder / "serve" / name, Store.load(folder / name)), truth)
    gaps = [float(match[1]) for line in messages if (match := re.search(r"([0-9.]+) s of .* were lost", line))]
    return {
        "kills": done.total(), "ended": ended, **{key: found[key] for key in COMPARED}, "gaps": len(gaps),
        "longest gap_s": max(gaps, default=0.0),
        "billed differently the second time": sum("billed before" in line for line in messages),
        "warnings of overload": sum(": overload: " in line for line in messages), "messages": messages,
    }  # fmt: skip


COMPARED = (
    "visits", "customers", "as without kills", "review", "settled differently", "without a visit", "open", "twice",
    "books that do not add up",
)  # fmt: skip


def compared(books: Booked, truth: dict[str, Receipt]) -> Counter[str]:
    """Compare a store's books with the receipts of a run without interruption.

    By account, since each customer of the simulation comes once: a visit's id may differ after a gap.
    """
    visits = books.visits.values()
    counts = Counter({
        "visits": len(visits), "review": sum(visit.status == "review" for visit in visits),
        "open": sum(visit.status == "open" for visit in visits), "twice": sum(n > 1 for n in books.n_receipts.values()),
        "books that do not add up": int(books.fault is not None or books.balance != 0),
    })  # fmt: skip
    by_account = {visit.account: visit for visit in visits if visit.account is not None}
    for receipt in truth.values():
        if receipt.account is None:
            continue
        counts["customers"] += 1
        visit = by_account.get(receipt.account)
        if visit is None:
            counts["without a visit"] += 1  # Their scan itself fell into a gap.
            continue
        same = visit.items == sorted((line.gtin, line.quantity) for line in receipt.lines)
        counts["as without kills"] += same and visit.status == receipt.status
        counts["settled differently"] += visit.status == "settled" and not same
    return counts


def main_kills(args: argparse.Namespace, scratch: Path) -> None:
    recording = scratch / "recording"
    scenario = Scenario(seed=5, minutes=args.minutes, shoppers=int(args.minutes * 5))
    Simulation(demo_store(n_cameras=6, n_plates=40), scenario).write(recording)
    for kept_s in args.kept_s:
        folder = scratch / f"kept{kept_s:g}"
        folder.mkdir()
        started_s = time.monotonic()
        found = kills(
            folder, recording, -(-args.kills // 8), speed=1.0, kept_s=kept_s, pause_s=args.pause_s, n_stores=8
        )
        took_s = time.monotonic() - started_s
        print(f"eight stores; sensors send again what is up to {kept_s:g} s old ({took_s:.0f} s):")
        print("  " + ", ".join(f"{key}: {value}" for key, value in found.items() if key != "messages"), flush=True)
        if args.verbose:
            print("\n".join(found["messages"]))


# ---- gaps ------------------------------------------------------------------------------------------------------------


def doubted(results: list[Result], gaps: Gaps) -> list[tuple[Receipt, tuple[Reason, ...]]]:
    """The receipts among results, with the reasons why a gap sends them to review."""
    return [(result, gaps.reasons_to_review(result)) for result in results if isinstance(result, Receipt)]


def main_gaps(args: argparse.Namespace, scratch: Path) -> None:
    """At every second of busy minutes an engine resumes from a snapshot, after a while of all streams is lost."""
    from fusion.snapshots import resume, snapshot

    store = demo_store(n_cameras=4, n_plates=16)
    goods = lambda receipt: (receipt.account, tuple((line.gtin, line.quantity) for line in receipt.lines))  # noqa: E731
    found: dict[float, Counter[str]] = {lost_s: Counter() for lost_s in args.lost_s}
    for seed in args.seeds:
        observations = list(Simulation(store, Scenario(seed=seed, minutes=1.0, shoppers=6)).observations())
        engine, gaps, results = Engine(store), Gaps(scratch / "doubts.json"), []
        snapshots, due_ns = [], observations[0].t_ns + 4 * 10**9
        for i, observation in enumerate(observations):
            if observation.t_ns >= due_ns:
                snapshots.append((i, snapshot(engine), gaps.positions()))
                due_ns += 10**9
            results += engine.feed(observation)
            if isinstance(observation, Frame | ShelfReading):
                gaps.observe(stream_of(observation), observation.t_ns, 0)
        truth = {goods(result) for result in (*results, *engine.close()) if isinstance(result, Receipt)}
        for lost_s, n in found.items():
            for i, data, positions in snapshots:
                n["gaps"] += 1
                engine, gaps, advanced_ns = resume(data, store), Gaps(scratch / "doubts.json"), 0
                gaps.resume(positions, engine.newest_ns)
                receipts: list[tuple[Receipt, tuple[Reason, ...]]] = []
                for observation in observations[i:]:
                    sensed = isinstance(observation, Frame | ShelfReading)
                    if sensed and observation.t_ns < observations[i].t_ns + lost_s * 1e9:
                        continue
                    results = engine.feed(observation)
                    if sensed and observation.t_ns <= engine.newest_ns:
                        gaps.observe(stream_of(observation), observation.t_ns, 0)
                    if observation.t_ns > advanced_ns + 50_000_000:
                        advanced_ns = observation.t_ns
                        gaps.advance(engine.newest_ns, engine.scans_waiting > 0)
                    receipts += doubted(results, gaps)
                receipts += doubted(engine.close(), gaps)
                for receipt, reasons in receipts:
                    different = receipt.status == "settled" and goods(receipt) not in truth
                    n["receipts"] += 1
                    n["doubted"] += bool(reasons)
                    n["settled differently"] += different and not reasons
                    n["would be without the doubt"] += different
    for lost_s, n in found.items():
        print(f"{lost_s:g} s lost: " + ", ".join(f"{key}: {value}" for key, value in n.items()), flush=True)


# ---- many ------------------------------------------------------------------------------------------------------------


def cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main_many(args: argparse.Namespace, scratch: Path) -> None:
    recording = scratch / "recording"
    scenario = Scenario(seed=5, minutes=args.seconds / 60 + 3.0, shoppers=args.shoppers)
    Simulation(demo_store(n_cameras=args.cameras, n_plates=args.plates), scenario).write(recording)
    stores: dict[str, tuple[str, dict[str, Any]]] = {
        f"s{i:03d}": (f"recording:{recording}", {}) for i in range(args.stores)
    }
    stores["garbage"] = ("python:bench.endurance.serve:garbage", {"recording": str(recording)})
    stores["killed"] = (f"recording:{recording}", {})
    settings = {"deaths_max": 10**6, "pause_max_s": 0.1, "stores_per_process": args.per_process}
    path = make_chain(scratch, recording, stores, **settings)
    os.environ["PYTHONPATH"] = str(ROOT)
    started_s = time.monotonic()
    with supervised(path) as supervisor:
        look = lambda: supervisor.health()["stores"]  # noqa: E731
        until(lambda: all(status["state"] == "live" for status in look().values()), 300)
        up_s = time.monotonic() - started_s
        time.sleep(10.0)
        first, wall_s, kills = look(), time.monotonic(), 0
        pids = supervisor.pids()
        before = {name: cpu_s(pid) for name, pid in pids.items()}
        worst_queue: Counter[str] = Counter()
        while time.monotonic() - wall_s < args.seconds:
            time.sleep(2.0)
            pid = supervisor.pids().get("killed")
            if pid and look()["killed"]["state"] == "live":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                kills += 1
            for name, status in look().items():
                worst_queue[name] = max(worst_queue[name], status.get("queue") or 0)
        last = look()
        wall_s = time.monotonic() - wall_s
        used = {name: cpu_s(pid) - before[name] for name, pid in pids.items() if name in before}
    good = [name for name in stores if name.startswith("s")]
    paces = [(last[name]["newest_ns"] - first[name]["newest_ns"]) * 1e-9 / wall_s for name in good]
    p99 = sorted(last[name]["step_us"]["p99"] for name in good)
    dropped = sum(sum(last[name]["dropped"].values()) for name in good)
    memory = sorted(status["memory_bytes"] / 2**20 for name, status in last.items() if name in good)
    print(f"{len(good)} stores of {args.cameras} cameras and {args.plates} plates, all up after {up_s:.1f} s; "
          f"{wall_s:.0f} s watched")  # fmt: skip
    print(f"pace of data: {min(paces):.3f} to {max(paces):.3f} of true time; observations dropped: {dropped}; "
          f"longest queue {max(worst_queue[name] for name in good)}")  # fmt: skip
    print(f"step p99: median {p99[len(p99) // 2]:.0f} us, worst store {p99[-1]:.0f} us; memory per store (PSS): median "
          f"{memory[len(memory) // 2]:.0f} MiB, worst {memory[-1]:.0f} MiB; CPU per store "
          f"{100 * sum(used.get(name, 0.0) for name in good) / wall_s / len(good):.1f} % of a core")  # fmt: skip
    print(f"one store killed {kills} times: {last['killed']['restarts']} restarts, state {last['killed']['state']}; "
          f"deaths among the others: {sum(last[name]['restarts'] for name in good)}")  # fmt: skip
    refused = Counter(last["garbage"]["not_used"])
    print(f"one fed garbage: state {last['garbage']['state']}, restarts {last['garbage']['restarts']}, "
          f"refused {sum(refused.values())}, receipts {last['garbage']['receipts']}")  # fmt: skip


# ---- overload --------------------------------------------------------------------------------------------------------


def rss_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main_overload(args: argparse.Namespace, scratch: Path) -> None:
    recording = scratch / "recording"
    Simulation(demo_store(n_cameras=28, n_plates=300), Scenario(seed=5, minutes=1.5, shoppers=12)).write(recording)
    opened = Recording(recording)
    observations = list(opened.observations())
    span_s = (observations[-1].t_ns - observations[0].t_ns) * 1e-9
    capacity = span_s / time_to_process(opened.store, observations)
    print(f"28 cameras, 300 plates, {len(observations) / span_s:.0f} observations a second: a core can process "
          f"{capacity:.1f} times that")  # fmt: skip
    for factor in (2.0, 5.0):
        found = overload(opened.store, observations, 0.3 * capacity, factor * capacity, args.load_s)
        memory = " ".join(f"{mib:.0f}" for mib in found.memory_mib)
        after = ", ".join(f"{wait_s * 1e3:.0f}" for wait_s in found.wait_after_s)
        print(f"{factor:g} times that for {found.loaded_s:.1f} s: {found.dropped.total()} of {found.n_put} dropped "
              f"({dict(found.dropped)}), none of {found.n_scans} scans; longest queue {found.longest}; memory in MiB "
              f"over time {memory}")  # fmt: skip
        before_ms, load_ms = 1e3 * found.wait_before_s, 1e3 * found.wait_under_load_s
        print(f"  longest wait: {before_ms:.0f} ms before the load, {load_ms:.0f} ms under it, in each quarter of a "
              f"second after it {after} ms")  # fmt: skip


def shifted(observations: list[Observation]) -> Iterator[Observation]:
    """The observations again and again, each time later."""
    span_ns = observations[-1].t_ns - observations[0].t_ns + 20_000_000
    yield from observations
    for loop in range(1, 10**6):
        for observation in observations:
            t_ns = observation.t_ns + loop * span_ns
            if isinstance(observation, ShelfReading):
                yield ShelfReading(t_ns, observation.plate, observation.samples)
            elif isinstance(observation, Frame):
                yield Frame(t_ns, observation.camera, observation.keypoints, observation.appearance)
            else:
                yield dataclasses.replace(observation, t_ns=t_ns)


def time_to_process(store: Store, observations: list[Observation]) -> float:
    """Seconds that one core needs for all observations, with the thread that puts them into the queue beside it."""
    intake, engine = Intake(), Engine(store)

    def put() -> None:
        for observation in observations:
            intake.put(observation, wait=True)
        intake.end()

    started_s = time.monotonic()
    threading.Thread(target=put).start()
    while (batch := intake.take(0.2)) or not intake.ended:
        for observation in batch:
            engine.feed(observation)
    return time.monotonic() - started_s


@dataclass
class Overload:
    """What a queue and an engine did before, under and after a load that they cannot process.

    Attributes:
        n_put, n_scans: observations that were put into the queue, and scans among them.
        dropped: by kind of stream.
        longest: most observations that waited.
        loaded_s: how long the load lasted.
        memory_mib: resident memory over time.
        wait_before_s, wait_under_load_s: longest waits.
        wait_after_s: longest wait in each quarter of a second after the load.
    """

    n_put: int = 0
    n_scans: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    longest: int = 0
    loaded_s: float = 0.0
    memory_mib: list[float] = field(default_factory=list)
    wait_before_s: float = 0.0
    wait_under_load_s: float = 0.0
    wait_after_s: list[float] = field(default_factory=lambda: [0.0] * 12)


class Arrival(NamedTuple):
    """An observation's data time, and when it was put into the queue."""

    t_ns: int
    at_s: float


class Load:
    """Puts observations into a queue: two seconds calmly, some seconds too fast, three seconds calmly again.

    Attributes:
        started_s, ended_s: when the load began and ended; None until then.
        n_put, n_scans: observations so far, and scans among them.
    """

    def __init__(
        self, intake: Intake, observations: list[Observation], calm: float, fast: float, load_s: float
    ) -> None:
        self.started_s: float | None = None
        self.ended_s: float | None = None
        self.n_put = self.n_scans = 0
        self._intake, self._observations = intake, observations
        self._calm, self._fast, self._load_s = calm, fast, load_s
        self._arrivals: deque[Arrival] = deque()  # a few hundred a second

    def run(self) -> None:
        pace, from_ns = self._calm, self._observations[0].t_ns
        begun_s = from_s = time.monotonic()
        noted_s = 0.0
        for observation in shifted(self._observations):
            ahead_s = from_s + (observation.t_ns - from_ns) * 1e-9 / pace - time.monotonic()
            if ahead_s > 0.001:
                time.sleep(ahead_s)
            now_s = time.monotonic()
            wanted = self._pace_at(now_s, begun_s)
            if wanted is None:
                break
            if wanted != pace:
                pace, from_ns, from_s = wanted, observation.t_ns, now_s
            if now_s - noted_s > 0.002:
                noted_s = now_s
                self._arrivals.append(Arrival(observation.t_ns, now_s))
            self.n_put += 1
            self.n_scans += isinstance(observation, GateScan)
            self._intake.put(observation)
        self._intake.end()

    def _pace_at(self, now_s: float, begun_s: float) -> float | None:
        """Seconds of data a second; None at the end."""
        if now_s < begun_s + 2.0:
            return self._calm
        self.started_s = self.started_s or now_s
        if now_s < self.started_s + self._load_s:
            return self._fast
        self.ended_s = self.ended_s or now_s
        return self._calm if now_s < self.ended_s + 3.0 else None

    def waited_s(self, taken_ns: int, now_s: float) -> float:
        """How long the oldest observation has waited that was neither taken nor dropped."""
        arrivals = self._arrivals
        while len(arrivals) > 1 and arrivals[0].t_ns <= taken_ns:
            arrivals.popleft()
        return now_s - arrivals[0].at_s if arrivals and arrivals[0].t_ns > taken_ns else 0.0


def overload(store: Store, observations: list[Observation], calm: float, fast: float, load_s: float) -> Overload:
    """Give a queue and an engine more than they can process for some seconds."""
    intake, engine, found = Intake(), Engine(store), Overload(memory_mib=[rss_mib()])
    load = Load(intake, observations, calm, fast, load_s)
    started_s, taken_ns = time.monotonic(), 0
    thread = threading.Thread(target=load.run)
    thread.start()
    while (batch := intake.take(0.2)) or not intake.ended:
        for observation in batch:
            engine.feed(observation)
        taken_ns = max([taken_ns, *(observation.t_ns for observation in batch)])
        now_s = time.monotonic()
        waited_s = load.waited_s(taken_ns, now_s)
        if load.started_s is None:
            found.wait_before_s = max(found.wait_before_s, waited_s)
        elif load.ended_s is None:
            found.wait_under_load_s = max(found.wait_under_load_s, waited_s)
        else:
            quarter = min(int((now_s - load.ended_s) / 0.25), 11)
            found.wait_after_s[quarter] = max(found.wait_after_s[quarter], waited_s)
        if now_s - started_s > load_s / 5 * len(found.memory_mib):
            found.memory_mib.append(rss_mib())
    thread.join()
    for stream, n in intake.dropped.items():
        found.dropped[stream.partition(":")[0]] += n
    assert not found.dropped["gate"] and not found.dropped["items"]
    found.n_put, found.n_scans, found.longest = load.n_put, load.n_scans, intake.longest
    found.loaded_s = (load.ended_s or 0.0) - (load.started_s or 0.0)
    found.dropped = +found.dropped
    return found


# ---- cost ------------------------------------------------------------------------------------------------------------


def main_cost(args: argparse.Namespace, scratch: Path) -> None:
    from fusion.snapshots import save

    for n_cameras, n_plates, shoppers in ((4, 24, 4), (12, 80, 10), (28, 300, 20)):
        store = demo_store(n_cameras=n_cameras, n_plates=n_plates)
        engine, took_s, cpu_used_s = Engine(store), [], []
        next_ns = 0
        for observation in Simulation(store, Scenario(seed=5, minutes=2.0, shoppers=shoppers)).observations():
            engine.feed(observation)
            if engine.newest_ns > next_ns:
                next_ns = engine.newest_ns + 5 * 10**9
                started_s, cpu_started_s = time.perf_counter(), time.process_time()
                save(engine, scratch / "snapshot")
                took_s.append(time.perf_counter() - started_s)
                cpu_used_s.append(time.process_time() - cpu_started_s)
        size = (scratch / "snapshot").stat().st_size
        print(f"{n_cameras} cameras, {n_plates} plates: a snapshot on disk takes {1e3 * np.median(took_s):.0f} ms "
              f"(at most {1e3 * max(took_s):.0f} ms), {size / 1e3:.0f} kB; every 5 s: "
              f"{20 * np.mean(cpu_used_s):.1f} % of a core")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["kills", "gaps", "many", "overload", "cost"])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--kept-s", type=float, nargs="+", default=[10.0, 0.0])
    parser.add_argument("--lost-s", type=float, nargs="+", default=[0.2, 0.5, 1.0, 3.0, 10.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 4, 7])
    parser.add_argument("--pause-s", type=float, default=6.0)
    parser.add_argument("--verbose", action="store_true", help="kills: every message")
    parser.add_argument("--stores", type=int, default=50)
    parser.add_argument("--per-process", type=int, default=1)
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--plates", type=int, default=24)
    parser.add_argument("--shoppers", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--load-s", type=float, default=8.0)
    args = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="serve"))
    try:
        part = {"kills": main_kills, "gaps": main_gaps, "many": main_many, "overload": main_overload, "cost": main_cost}
        part[args.part](args, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0
