"""Many live stores: their processes are started, watched, restarted from their checkpoints, and given changed stores.

The supervisor holds no store's state and delays no store: a process that does not report within some seconds is
restarted. A store that dies again and again and comes no further is parked and tried again with long pauses; one that a
full disk, a database or a server that is away ended waits for that. The supervisor itself ends by `stop` alone, or once
every store's source has ended. When the supervisor stops, every process ends after a last snapshot; if the supervisor
is killed, processes see their pipe break and do the same. Extra `serve`.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

from fusion.errors import ConfigError, FusionError, extra, terminal_text
from fusion.live.broker_source import way_out_of
from fusion.live.causes import common_cause, disk_is_full
from fusion.live.clock import SYSTEM_CLOCK, Clock
from fusion.live.config import ServeConfig
from fusion.live.metrics import HealthServer
from fusion.live.sources import check_source
from fusion.live.time_watch import TimeState
from fusion.live.way_out import WayOut
from fusion.live.worker import RESTART, work
from fusion.money.retailers import Chain, Serving
from fusion.store.models import Store
from fusion.till.honoured import require_honoured
from fusion.till.settings import TillFile

MESSAGES_MAX = 20
_FILES = ("store.toml", "cameras.toml", "plates.csv", "products.csv", "planogram.csv", "prices.toml")

# Without the GIL this many stores share a process by default. They share its memory, and its end where one takes it
# down; after that each has a process of its own.
STORES_WITHOUT_GIL = 8


@dataclass(frozen=True, slots=True)
class Limits:
    """Times after which the supervisor acts, in seconds.

    Attributes:
        hang_s: a process that does not report for this long hangs, and so does a store whose thread makes no step.
        start_max_s: the same while a process loads its kernels and opens its books.
        pause_min_s: pause before the second restart after deaths in a row; there is none before the first, and each
            further one doubles.
        steady_s: a store that ran this long starts without a pause again, and so does one that came further in its
            data than any earlier process.
        common_min_s: first pause where a full disk, a database or a broker ended the process; each further one doubles.
        parked_min_s, parked_max_s: a parked store is tried again after these pauses; each doubles, up to the last.
        look_s: time between looks at store folders and memory.
        stop_max_s: processes have this long to end.
    """

    hang_s: float = 15.0
    start_max_s: float = 120.0
    pause_min_s: float = 0.5
    steady_s: float = 60.0
    common_min_s: float = 1.0
    parked_min_s: float = 60.0
    parked_max_s: float = 1800.0
    look_s: float = 2.0
    stop_max_s: float = 30.0


LIMITS = Limits()


@dataclass
class _Store:
    """What the supervisor knows of a store.

    Attributes:
        config: what its process is given.
        state: "starting", "live", "waiting" (for its restart), "parked", "ended" (its source did), "stopped".
        why: reason of "waiting" and "parked".
        refused: what is wrong with its folder now, while it continues with the previous content; "" if nothing is.
        restarts: restarts after deaths.
        deaths_s: when it recently died without having come further.
        n_common: deaths in a row for which its surroundings are to blame.
        n_parked: how often in a row it was parked.
        reached_ns: the newest data time that any of its processes reported.
        status: what its process reported last.
        messages: the newest messages of its process and about it.
        files: stamps of its folder's files when they were read.
        memory_bytes: its share of its process's memory.
    """

    config: ServeConfig
    state: str = "starting"
    why: str = ""
    refused: str = ""
    restarts: int = 0
    deaths_s: deque[float] = field(default_factory=deque)
    n_common: int = 0
    n_parked: int = 0
    reached_ns: int = 0
    status: dict[str, Any] = field(default_factory=dict)
    messages: deque[str] = field(default_factory=lambda: deque(maxlen=MESSAGES_MAX))
    files: tuple[object, ...] = ()
    memory_bytes: int = 0

    def health(self) -> dict[str, Any]:
        """As /healthz shows it."""
        return {
            "state": self.state, "why": self.why, "configuration_refused": self.refused, "restarts": self.restarts,
            "memory_bytes": self.memory_bytes, "messages": list(self.messages),
            **{key: value for key, value in self.status.items() if key not in ("messages", "beat", "common")},
        }  # fmt: skip


class _Beat(NamedTuple):
    """How many steps a store has made, and when that last changed."""

    n_steps: int
    since_s: float


@dataclass
class _Process:
    """A process and the stores that it serves.

    Attributes:
        stores: ids of the stores.
        process, pipe: the process, and the connection to it.
        started_s, heard_s: when it was started, and when it last reported.
        beats: by store.
        killed: why the supervisor killed it; "" unless it did.
    """

    stores: list[str]
    process: Any
    pipe: Any
    started_s: float
    heard_s: float
    beats: dict[str, _Beat] = field(default_factory=dict)
    killed: str = ""


class _Due(NamedTuple):
    """Stores to be started together, and when."""

    at_s: float
    stores: list[str]


class Supervisor:
    """Serves the stores of a chain.toml until it is stopped.

        with Supervisor("chain.toml") as supervisor:
            supervisor.run()

    Attributes:
        port: of /metrics and /healthz on this machine.
    """

    def __init__(
        self,
        path: str | Path,
        report: Callable[[str], object] = print,
        *,
        limits: Limits = LIMITS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Read the file and every store's folder, strictly.

        Args:
            path: of chain.toml.
            report: called with each message for the operator.
            limits: times after which the supervisor acts.
            clock: measures them.

        Raises:
            ConfigError: with every fault; nothing was started.
            FusionError: the port is taken, or the extra is missing.
        """
        with extra("serve"):
            import prometheus_client  # noqa: F401 reported before anything is started
        self._path, self._report, self._limits, self._clock = Path(path), report, limits, clock
        self._chain = Chain.load(path)
        serving = self._chain.serving
        if serving is None:
            raise ConfigError(f"{self._path} has no section [serve]; add one, as docs/chain.md describes it")
        self._serving: Serving = serving
        self._stores = {config.store.id: _Store(config) for config in self._configs()}
        self._lock = threading.RLock()
        for store in self._stores.values():
            store.files = _stamps(self._folder(store))
        self._ways_out: dict[str, WayOut] = {}
        self._processes: list[_Process] = []
        self._due: list[_Due] = []
        self._stopping, self._reload = threading.Event(), threading.Event()
        # Processes are forked from one that has loaded the engine: they start at once and share its memory.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["fusion.live.worker", "fusion.live.warm"])
        try:
            self._http = HealthServer(self.health, serving.port)
        except OSError as error:
            raise FusionError(f"port {serving.port}: {error}") from None
        self.port = self._http.port
        self._chain_file = _stamp(self._path)
        threading.Thread(target=self._http.run, name="metrics", daemon=True).start()

    def _configs(self) -> Iterator[ServeConfig]:
        """Configurations of the stores to serve. Raises ConfigError with every fault."""
        serving, base = self._serving, self._path.resolve().parent
        listed = {(base / entry.store).resolve(): entry for entry in serving.store}
        anchor_s = self._clock.monotonic_s()
        configs, faults = [], []
        tills: dict[str | None, TillFile] = {None: TillFile()}
        for store in (store for stores in self._chain.stores.values() for store in stores):
            entry = listed.get(self._chain.folders[store.id].resolve())
            source = entry.source if entry else serving.source
            options = entry.options if entry else serving.options
            if source is None:
                continue
            named = (entry.till if entry else None) or serving.till
            try:
                till = tills[named] if named in tills else tills.setdefault(named, TillFile.load(base / str(named)))
            except ConfigError as error:
                faults += [fault for fault in error.faults if fault not in faults]
                continue
            if not store.id.replace("_", "").replace("-", "").isalnum():
                faults.append(f"store {store.id!r}: want an id of letters, digits, - and _, since it names files")
                continue
            config = ServeConfig(
                store, base / serving.out / store.id, base, source, dict(options), anchor_s,
                snapshot_every_s=serving.snapshot_every_s, layout_wait_s=serving.layout_wait_s,
                early=serving.early, till=till, retailer=self._chain.retailer_of(store),
            )  # fmt: skip
            configs.append(config)
            try:
                check_source(config)
                require_honoured(store, till, source)
            except ConfigError as error:
                faults += error.faults
        if not configs and not faults:
            faults.append(f"{self._path.name}: serve: want a source, or stores with theirs, got neither")
        if faults:
            raise ConfigError(faults)
        yield from configs

    def _folder(self, store: _Store) -> Path:
        return self._chain.folders[store.config.store.id]

    # ---- running -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop`, or until every store's source has ended."""
        self._open_ways_out()
        names, size = list(self._stores), stores_per_process(self._serving)
        for first in range(0, len(names), size):
            self._start(names[first : first + size])
        self._say("", f"{len(names)} stores; http://127.0.0.1:{self.port}/healthz and /metrics")
        look_s = self._clock.monotonic_s() + self._limits.look_s
        while not self._stopping.is_set() and any(store.state != "ended" for store in self._stores.values()):
            self._hear_all(0.1)
            now_s = self._clock.monotonic_s()
            due = [entry for entry in self._due if entry.at_s <= now_s]
            self._due = [entry for entry in self._due if entry.at_s > now_s]
            for entry in due:
                self._start(entry.stores)
            if now_s >= look_s or self._reload.is_set():
                asked = self._reload.is_set()
                self._reload.clear()
                look_s = now_s + self._limits.look_s
                self._look(asked)
            self._end_hanging(now_s)
        self._end()

    def _open_ways_out(self) -> None:
        """Let people out of every store from here: their own processes may be dead or starting."""
        for name, store in self._stores.items():
            way_out = way_out_of(store.config)
            if way_out is not None:
                self._ways_out[name] = way_out

    def stop(self) -> None:
        """End all stores, each after a snapshot. Safe in a signal's handler and from any thread."""
        self._stopping.set()

    def reload(self) -> None:
        """Read the store folders now, and try parked stores again. Safe in a signal's handler and from any thread."""
        self._reload.set()

    def pids(self) -> dict[str, int]:
        """Process of every store that has one."""
        with self._lock:
            return {name: process.process.pid for process in self._processes for name in process.stores}

    def _start(self, names: list[str]) -> None:
        ours, theirs = self._context.Pipe()
        configs = [self._stores[name].config for name in names]
        limit = self._serving.memory_max_mb * len(names) << 20
        process = self._context.Process(target=work, args=(configs, theirs, limit), name="fusion store", daemon=False)
        try:
            process.start()
        except OSError as error:
            # No process, no memory or no room for one: as passing as a full disk.
            ours.close()
            with self._lock:
                for name in names:
                    self._wait_for(name, common_cause(error) or "no process can be started", str(error))
            return
        finally:
            theirs.close()
        now_s = self._clock.monotonic_s()
        with self._lock:
            self._processes.append(_Process(names, process, ours, now_s, now_s))
            for name in names:
                self._stores[name].state, self._stores[name].why = "starting", ""

    def _hear_all(self, timeout_s: float) -> None:
        """Take what processes report, and deal with those that have ended."""
        by_handle: dict[Any, _Process] = {}
        for process in self._processes:
            by_handle[process.pipe] = process
            by_handle[process.process.sentinel] = process
        ready: list[Any] = wait(list(by_handle), timeout_s) if by_handle else []
        if not by_handle:
            self._stopping.wait(timeout_s)
        ended = []
        for handle in ready:
            process = by_handle[handle]
            self._hear(process)
            if handle is process.process.sentinel:
                ended.append(process)
        for process in ended:
            self._after_end(process)

    def _hear(self, process: _Process) -> None:
        with suppress(EOFError, OSError):
            while process.pipe.poll():
                statuses, process.heard_s = process.pipe.recv(), self._clock.monotonic_s()
                with self._lock:
                    for name, status in statuses.items():
                        self._take_status(process, name, status)

    def _take_status(self, process: _Process, name: str, status: dict[str, Any]) -> None:
        store = self._stores[name]
        store.status = status
        for message in status["messages"]:
            self._say(name, message)
        before = process.beats.get(name)
        if before is None or before.n_steps != status["beat"]:
            process.beats[name] = _Beat(status["beat"], process.heard_s)
        if status["ready"] and store.state == "starting":
            store.state = "live"

    def _after_end(self, process: _Process) -> None:
        """A process has ended: decide what becomes of its stores."""
        process.process.join()
        process.pipe.close()
        code, now_s = process.process.exitcode, self._clock.monotonic_s()
        with self._lock:
            self._processes.remove(process)
            # However the process ended, a store whose source has ended is done.
            over = [name for name in process.stores if self._stores[name].status.get("over")]
            for name in over:
                self._stores[name].state = "ended"
            names = [name for name in process.stores if name not in over]
            if not names:
                return
            if code == 0 and not process.killed:
                for name in names:
                    self._stores[name].state = "stopped"
                if not self._stopping.is_set():
                    self._due.append(_Due(now_s, names))
                return
            if code == RESTART:
                self._due.append(_Due(now_s, names))
                return
            how = process.killed or (f"signal {-code}" if code < 0 else f"exit code {code}")
            sick = [name for name in names if self._stores[name].status.get("failure")]
            if sick:
                # Its neighbours ended normally and start again at once.
                well = [name for name in names if name not in sick]
                if well:
                    self._due.append(_Due(now_s, well))
            else:
                sick = names
            if len(sick) > 1:
                # It is unknown which of them caused it: from now on a death concerns one store.
                self._say("", f"{', '.join(sick)}: {how}; each gets a process of its own")
            for name in sick:
                self._after_death(name, self._stores[name].status.get("failure") or how, now_s - process.started_s)

    def _after_death(self, name: str, why: str, ran_s: float) -> None:
        """Start a store again after a pause; park it where it dies again and again and comes no further."""
        store, serving, limits = self._stores[name], self._serving, self._limits
        common = store.status.get("common") or ("the disk is full" if disk_is_full(store.config.folder) else "")
        newest_ns = store.status.get("newest_ns", 0)
        if newest_ns > store.reached_ns:
            store.reached_ns = newest_ns
            store.deaths_s.clear()
            store.n_common = store.n_parked = 0
        store.status = {**store.status, "failure": "", "common": ""}
        if common:
            self._wait_for(name, common, why)
            return
        now_s = self._clock.monotonic_s()
        store.deaths_s.append(now_s)
        while store.deaths_s and store.deaths_s[0] < now_s - serving.deaths_within_s:
            store.deaths_s.popleft()
        n = len(store.deaths_s)
        if n >= serving.deaths_max or store.n_parked:
            pause_s = min(limits.parked_min_s * 2 ** min(store.n_parked, 20), limits.parked_max_s)
            store.n_parked += 1
            store.state = "parked"
            store.why = f"{n} deaths in {serving.deaths_within_s:g} s, the last by {why}"
            self._plan(name, pause_s)
            self._say(name, f"parked: {store.why}; is tried again in {pause_s:g} s")
            return
        pause_s = min(limits.pause_min_s * 2 ** min(n - 2, 20), serving.pause_max_s)
        if n == 1 or ran_s > limits.steady_s:
            pause_s = 0.0
        store.state, store.why = "waiting", why
        store.restarts += 1
        self._plan(name, pause_s)
        self._say(name, f"died: {why}; starts again" + (f" in {pause_s:g} s" if pause_s else ""))

    def _wait_for(self, name: str, common: str, why: str) -> None:
        """Start a store again once its surroundings may be well; this counts as no death, however long it takes."""
        store = self._stores[name]
        pause_s = min(self._limits.common_min_s * 2 ** min(store.n_common, 20), self._serving.pause_max_s)
        store.n_common += 1
        store.restarts += 1
        store.state, store.why = "waiting", f"{common}: {why}"
        self._plan(name, pause_s)
        self._say(name, f"waits: {store.why}; starts again in {pause_s:g} s")

    def _plan(self, name: str, pause_s: float) -> None:
        """Start a store by itself after a pause, instead of whenever it was to be started."""
        self._due = [_Due(due.at_s, [one for one in due.stores if one != name]) for due in self._due]
        self._due = [due for due in self._due if due.stores]
        self._due.append(_Due(self._clock.monotonic_s() + pause_s, [name]))

    def _end_hanging(self, now_s: float) -> None:
        for process in list(self._processes):
            if process.killed:
                continue
            starting = any(self._stores[name].state == "starting" for name in process.stores)
            limit_s = self._limits.start_max_s if starting else self._limits.hang_s
            # A store whose source has ended makes no more steps, while others in its process still do.
            active = {name for name in process.stores if not self._stores[name].status.get("over")}
            beats = {name: beat for name, beat in process.beats.items() if name in active}
            stuck = [name for name, beat in beats.items() if process.heard_s - beat.since_s > limit_s]
            if now_s - process.heard_s > limit_s:
                self._kill(process, f"did not report for {limit_s:g} s")
            elif stuck:
                self._kill(process, f"{', '.join(stuck)} made no step for {limit_s:g} s")

    def _kill(self, process: _Process, why: str) -> None:
        process.killed = why
        process.process.kill()

    # ---- configuration and memory ------------------------------------------------------------------------------------

    def _look(self, asked: bool) -> None:
        """Check memory, and whether a store's folder has changed; `asked` by `reload`."""
        for process in self._processes:
            used = _memory_bytes(process.process.pid)
            for name in process.stores:
                self._stores[name].memory_bytes = used // len(process.stores)
            limit = self._serving.memory_max_mb * len(process.stores)
            if used > limit << 20 and not process.killed:
                self._kill(process, f"{used >> 20} MiB of memory, want at most {limit}")
        for process in self._processes if asked else ():
            with suppress(OSError):
                process.pipe.send(("reread",))
        for name, store in self._stores.items():
            files = _stamps(self._folder(store))
            if files == store.files and not (asked and store.state == "parked"):
                continue
            store.files = files
            self._apply_change(name, store)
        stamp = _stamp(self._path)
        if stamp != self._chain_file:
            self._chain_file = stamp
            self._say("", f"{self._path.name} has changed, which takes effect at the next start")

    def _apply_change(self, name: str, served: _Store) -> None:
        try:
            store = Store.load(self._folder(served))
            if store.id != name:
                raise ConfigError(f"store.toml: id: want {name!r} as before, got {store.id!r}")
            if store.currency != served.config.store.currency:
                was = served.config.store.currency
                raise ConfigError(f"store.toml: currency: want {was!r} as in the books, got {store.currency!r}")
            require_honoured(store, served.config.till, served.config.source)
        except (FusionError, OSError) as error:
            served.refused = str(error)
            self._say(name, f"changed configuration refused, continues with the previous one: {error}")
            return
        served.refused = ""
        with self._lock:
            served.config = replace(served.config, store=store)
            if name in self._ways_out:
                self._ways_out[name].adopt(store)
            if served.state == "parked":
                served.deaths_s.clear()
                served.n_parked = 0
                self._plan(name, 0.0)
                self._say(name, "is tried again")
                return
            for process in self._processes:
                if name in process.stores:
                    with suppress(OSError):
                        process.pipe.send(("store", store))

    # ---- the end -----------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        for process in self._processes:
            with suppress(OSError):
                process.pipe.send(("stop",))
        deadline_s = self._clock.monotonic_s() + self._limits.stop_max_s
        while self._processes and self._clock.monotonic_s() < deadline_s:
            self._hear_all(0.1)
        for process in list(self._processes):
            self._kill(process, "did not end")
            self._after_end(process)
        self._due = []
        with self._lock:
            for store in self._stores.values():
                if store.state not in ("parked", "ended"):
                    store.state = "stopped"
        self._say("", "ended")

    def close(self) -> None:
        """Free the port; ends what still runs."""
        if self._processes:
            self._end()
        for way_out in self._ways_out.values():
            way_out.close()
        self._http.close()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- reports -----------------------------------------------------------------------------------------------------

    def _say(self, name: str, message: str) -> None:
        """Report a message about a store, or about all of them where the name is ""."""
        message = terminal_text(message)
        if name:
            self._stores[name].messages.append(message)
        self._report(f"{name}: {message}" if name else message)

    def health(self) -> dict[str, Any]:
        """State of every store as plain data, as /healthz gives it."""
        with self._lock:
            stores = {name: store.health() for name, store in self._stores.items()}
        return {"well": all(map(is_well, stores.values())), "stores": stores}


def is_well(store: Mapping[str, Any]) -> bool:
    """Whether a store runs as it should, by its health as plain data."""
    if store["configuration_refused"]:
        return False
    in_order = store.get("time_state") != TimeState.OFF and not store.get("waits")
    return store["state"] == "ended" or (store["state"] == "live" and in_order)


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written; None without the file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _stamps(folder: Path) -> tuple[object, ...]:
    return tuple(_stamp(folder / name) for name in _FILES)


def stores_per_process(serving: Serving) -> int:
    """How many stores share a process, each in threads of its own.

    With the GIL one, unless the configuration says otherwise: their steps would wait for each other.
    """
    if serving.stores_per_process is not None:
        return serving.stores_per_process
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()  # Since Python 3.13.
    return 1 if has_gil else STORES_WITHOUT_GIL


def _memory_bytes(pid: int) -> int:
    """Proportional share of a process's memory: pages that several processes share count once in their sum."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return 0


def serve(path: str | Path) -> int:
    """Run the command: serve until SIGTERM or SIGINT; SIGHUP reads the store folders at once. Returns its exit code."""

    def report(message: str) -> None:
        # A log on a full disk, or a reader that is gone, must not end the supervisor.
        with suppress(OSError):
            print(message, file=sys.stderr, flush=True)

    with Supervisor(path, report) as supervisor:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: supervisor.stop())
        signal.signal(signal.SIGHUP, lambda *_: supervisor.reload())
        supervisor.run()
        states = Counter(store["state"] for store in supervisor.health()["stores"].values())
    return 1 if states["parked"] else 0


__all__ = ["Limits", "Supervisor", "serve"]
