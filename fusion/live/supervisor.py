"""Many live stores: processes that serve them, restarted from their snapshots, watched, and told of changes.

The supervisor holds no store's state and stands in no store's way: what a process does not say within some seconds it
is asked for by a restart. Its own end ends the processes, each after a last snapshot; those of a supervisor that was
killed see their pipe break and do the same. Extra `serve`.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from fusion.errors import ConfigError, FusionError, extra
from fusion.live.worker import AGAIN, Post, work
from fusion.money.retailers import Chain, Serving
from fusion.store.models import Store

# A process that says nothing for so long hangs; so does a store whose thread does not go on.
HANG_S = 15.0
# A process has this long to load its kernels and to open its books.
START_MAX_S = 120.0
# Pauses before a restart: none the first time, then doubled; none again after a store ran this long.
PAUSE_MIN_S, STEADY_S = 0.5, 60.0
# Store folders are looked at so often, memory as well.
LOOK_S = 2.0
STOP_MAX_S = 30.0
SAID_KEPT = 20
_FILES = ("store.toml", "cameras.toml", "plates.csv", "products.csv", "planogram.csv", "prices.toml")


@dataclass
class _Served:
    """What the supervisor knows of a store.

    Attributes:
        state: "starting", "live", "waiting" (for its restart), "parked", "ended" (its source did), "stopped".
        why: of "waiting" and "parked".
        refused: what is wrong with its folder as it is now, while it goes on as before; "" where nothing is.
    """

    post: Post
    state: str = "starting"
    why: str = ""
    refused: str = ""
    restarts: int = 0
    deaths_s: deque[float] = field(default_factory=deque)
    status: dict[str, Any] = field(default_factory=dict)
    said: deque[str] = field(default_factory=lambda: deque(maxlen=SAID_KEPT))
    files: tuple[object, ...] = ()
    memory_bytes: int = 0
    alone: bool = False


@dataclass
class _Process:
    stores: list[str]
    process: Any
    pipe: Any
    began_s: float
    heard_s: float
    beats: dict[str, tuple[int, float]] = field(default_factory=dict)
    killed: str = ""


class Supervisor:
    """Serves the stores of a chain.toml until it is stopped.

        with Supervisor("chain.toml") as supervisor:
            supervisor.run()

    Attributes:
        port: of /metrics and /healthz on this machine.
    """

    def __init__(self, path: str | Path, tell: Callable[[str], object] = print) -> None:
        """Read the file and every store's folder, strictly.

        Raises:
            ConfigError: with every fault; nothing was started.
            FusionError: the port is taken, or the extra is missing.
        """
        with extra("serve"):
            import prometheus_client  # noqa: F401 told before anything is started
        self._path, self._tell = Path(path), tell
        self._chain = Chain.load(path)
        serving = self._chain.serving
        if serving is None:
            raise ConfigError(f"{self._path.name}: want a section [serve], got none")
        self._serving: Serving = serving
        self._stores = {store_id: _Served(post) for store_id, post in self._posts()}
        self._lock = threading.RLock()
        for served in self._stores.values():
            served.files = _files(self._folder(served))
        self._processes: list[_Process] = []
        self._due: list[tuple[float, list[str]]] = []
        self._stopping, self._reload = threading.Event(), threading.Event()
        # Children are copies of one process that has loaded the engine: they start at once and share what it holds.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["fusion.live.worker", "fusion.live.warm"])
        try:
            self._http = _listen(self, serving.port)
        except OSError as error:
            raise FusionError(f"port {serving.port}: {error}") from None
        self.port = self._http.server_address[1]
        self._chain_file = _stamp(self._path)
        threading.Thread(target=self._http.serve_forever, name="metrics", daemon=True).start()

    def _posts(self) -> Iterator[tuple[str, Post]]:
        serving, base = self._serving, self._path.resolve().parent
        listed = {(base / one.store).resolve(): one for one in serving.store}
        anchor_s = time.monotonic()
        n = 0
        faults: list[str] = []
        for stores in self._chain.stores.values():
            for store in stores:
                one = listed.get(self._chain.folders[store.id].resolve())
                source, options = (one.source, one.options) if one else (serving.source, serving.options)
                if source is None:
                    continue
                if not store.id.replace("_", "").replace("-", "").isalnum():
                    faults.append(f"store {store.id!r}: want an id of letters, digits, - and _ to name files by")
                    continue
                post = Post(
                    store, base / serving.out / store.id, base, source, dict(options), anchor_s,
                    serving.snapshot_every_s, serving.layout_wait_s,
                )  # fmt: skip
                try:
                    yield store.id, post.checked()
                except ConfigError as error:
                    faults += error.faults
                n += 1
        if not n and not faults:
            faults.append(f"{self._path.name}: serve: want a source, or stores with theirs, got neither")
        if faults:
            raise ConfigError(faults)

    def _folder(self, served: _Served) -> Path:
        return self._chain.folders[served.post.store.id]

    # ---- running -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop`, or until every store's source has ended or is parked."""
        names, size = list(self._stores), self._serving.stores_per_process
        for first in range(0, len(names), size):
            self._start(names[first : first + size])
        self._say("", f"{len(names)} stores; http://127.0.0.1:{self.port}/healthz and /metrics")
        look_s = time.monotonic() + LOOK_S
        while not self._stopping.is_set() and (self._processes or self._due):
            self._listen(0.1)
            now_s = time.monotonic()
            due = [names for at_s, names in self._due if at_s <= now_s]
            self._due = [one for one in self._due if one[0] > now_s]
            for names in due:
                self._start(names)
            if now_s >= look_s or self._reload.is_set():
                asked = self._reload.is_set()
                self._reload.clear()
                look_s = now_s + LOOK_S
                self._look(asked)
            self._watch(now_s)
        self._end()

    def stop(self) -> None:
        """End all stores, each after a snapshot. Safe in a signal's handler and from any thread."""
        self._stopping.set()

    def reload(self) -> None:
        """Read the store folders now, and try parked stores again. Safe in a signal's handler and from any thread."""
        self._reload.set()

    def pids(self) -> dict[str, int]:
        """Process of every store that has one."""
        with self._lock:
            return {name: one.process.pid for one in self._processes for name in one.stores}

    def _start(self, names: list[str]) -> None:
        ours, theirs = self._context.Pipe()
        posts = [self._stores[name].post for name in names]
        limit = self._serving.memory_max_mb * len(names) << 20
        process = self._context.Process(target=work, args=(posts, theirs, limit), name="fusion store", daemon=False)
        process.start()
        theirs.close()
        now_s = time.monotonic()
        with self._lock:
            self._processes.append(_Process(names, process, ours, now_s, now_s))
            for name in names:
                self._stores[name].state, self._stores[name].why = "starting", ""

    def _listen(self, timeout_s: float) -> None:
        by_handle: dict[Any, _Process] = {}
        for one in self._processes:
            by_handle[one.pipe] = one
            by_handle[one.process.sentinel] = one
        ready: list[Any] = wait(list(by_handle), timeout_s) if by_handle else []
        if not by_handle:
            self._stopping.wait(timeout_s)
        ended = []
        for handle in ready:
            one = by_handle[handle]
            self._hear(one)
            if handle is one.process.sentinel and one not in ended:
                ended.append(one)
        for one in ended:
            self._ended(one)

    def _hear(self, one: _Process) -> None:
        with suppress(EOFError, OSError):
            while one.pipe.poll():
                statuses, one.heard_s = one.pipe.recv(), time.monotonic()
                with self._lock:
                    for name, status in statuses.items():
                        self._heard(one, name, status)

    def _heard(self, one: _Process, name: str, status: dict[str, Any]) -> None:
        served = self._stores[name]
        served.status = status
        for said in status["said"]:
            self._say(name, said)
        before = one.beats.get(name)
        if before is None or before[0] != status["beat"]:
            one.beats[name] = status["beat"], one.heard_s
        if status["ready"] and served.state == "starting":
            served.state = "live"

    def _ended(self, one: _Process) -> None:
        """A process is gone: what becomes of its stores."""
        one.process.join()
        one.pipe.close()
        code, now_s = one.process.exitcode, time.monotonic()
        with self._lock:
            self._processes.remove(one)
            # Whatever became of the process, a store whose source has ended is done.
            over = [name for name in one.stores if self._stores[name].status.get("over")]
            for name in over:
                self._stores[name].state = "ended"
            one.stores = [name for name in one.stores if name not in over]
            if not one.stores:
                return
            sick = [name for name in one.stores if self._stores[name].status.get("failure")]
            if code == 0 and not one.killed:
                for name in one.stores:
                    self._stores[name].state = "stopped"
                if not self._stopping.is_set():
                    self._due.append((now_s, one.stores))
                return
            if code == AGAIN:
                self._due.append((now_s, one.stores))
                return
            how = one.killed or (f"signal {-code}" if code < 0 else f"exit code {code}")
            if sick:
                # Those beside it ended properly and go on at once.
                well = [name for name in one.stores if name not in sick]
                if well:
                    self._due.append((now_s, well))
            else:
                sick = one.stores
            if len(sick) > 1:
                # Nobody knows which of them it was: from now on each dies alone.
                self._say("", f"{', '.join(sick)}: {how}; each gets a process of its own")
            for name in sick:
                self._died(name, self._stores[name].status.get("failure") or how, now_s, now_s - one.began_s)

    def _died(self, name: str, why: str, now_s: float, ran_s: float) -> None:
        served, serving = self._stores[name], self._serving
        served.status = {**served.status, "failure": ""}
        served.deaths_s.append(now_s)
        while served.deaths_s and served.deaths_s[0] < now_s - serving.deaths_within_s:
            served.deaths_s.popleft()
        n = len(served.deaths_s)
        if n >= serving.deaths_max:
            served.state, served.why = "parked", f"{n} deaths in {serving.deaths_within_s:g} s, the last by {why}"
            self._say(name, f"parked: {served.why}")
            return
        pause_s = 0.0 if n == 1 or ran_s > STEADY_S else min(PAUSE_MIN_S * 2 ** min(n - 2, 20), serving.pause_max_s)
        served.state, served.why = "waiting", why
        served.restarts += 1
        self._due.append((now_s + pause_s, [name]))
        self._say(name, f"died: {why}; starts again" + (f" in {pause_s:g} s" if pause_s else ""))

    def _watch(self, now_s: float) -> None:
        for one in list(self._processes):
            if one.killed:
                continue
            starting = any(self._stores[name].state == "starting" for name in one.stores)
            limit_s = START_MAX_S if starting else HANG_S
            # A store whose source has ended stands still beside those that go on.
            going = {name for name in one.stores if not self._stores[name].status.get("over")}
            stuck = [name for name in going & one.beats.keys() if one.heard_s - one.beats[name][1] > limit_s]
            if now_s - one.heard_s > limit_s:
                self._kill(one, f"said nothing for {limit_s:g} s")
            elif stuck:
                self._kill(one, f"{', '.join(stuck)} did not go on for {limit_s:g} s")

    def _kill(self, one: _Process, why: str) -> None:
        one.killed = why
        one.process.kill()

    # ---- configuration and memory ------------------------------------------------------------------------------------

    def _look(self, asked: bool) -> None:
        """At memory, and at whether a store's folder has changed."""
        for one in self._processes:
            used = _memory_bytes(one.process.pid)
            for name in one.stores:
                self._stores[name].memory_bytes = used // len(one.stores)
            limit = self._serving.memory_max_mb * len(one.stores)
            if used > limit << 20 and not one.killed:
                self._kill(one, f"{used >> 20} MiB of memory, want at most {limit}")
        for name, served in self._stores.items():
            files = _files(self._folder(served))
            if files == served.files and not (asked and served.state == "parked"):
                continue
            served.files = files
            self._changed(name, served)
        stamp = _stamp(self._path)
        if stamp != self._chain_file:
            self._chain_file = stamp
            self._say("", f"{self._path.name} has changed: what it says holds from the next start")

    def _changed(self, name: str, served: _Served) -> None:
        try:
            store = Store.load(self._folder(served))
            if store.id != name:
                raise ConfigError(f"store.toml: id: want {name!r} as before, got {store.id!r}")
            if store.currency != served.post.store.currency:
                was = served.post.store.currency
                raise ConfigError(f"store.toml: currency: want {was!r} as in the books, got {store.currency!r}")
        except ConfigError as error:
            served.refused = str(error)
            self._say(name, f"changed configuration refused, the old one goes on: {error}")
            return
        served.refused = ""
        with self._lock:
            served.post = replace(served.post, store=store)
            if served.state == "parked":
                served.deaths_s.clear()
                self._due.append((time.monotonic(), [name]))
                self._say(name, "is tried again")
                return
            for one in self._processes:
                if name in one.stores:
                    with suppress(OSError):
                        one.pipe.send(("store", store))

    # ---- the end -----------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        for one in self._processes:
            with suppress(OSError):
                one.pipe.send(("stop",))
        deadline_s = time.monotonic() + STOP_MAX_S
        self._due = []
        while self._processes and time.monotonic() < deadline_s:
            self._listen(0.1)
            self._due = []
        for one in list(self._processes):
            self._kill(one, "did not end")
            self._ended(one)
        self._due = []
        with self._lock:
            for served in self._stores.values():
                if served.state not in ("parked", "ended"):
                    served.state = "stopped"
        self._say("", "ended")

    def close(self) -> None:
        """Give the port back; ends what still runs."""
        if self._processes:
            self._end()
        self._http.shutdown()
        self._http.server_close()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- what is shown -----------------------------------------------------------------------------------------------

    def _say(self, name: str, said: str) -> None:
        if name:
            self._stores[name].said.append(said)
        self._tell(f"{name}: {said}" if name else said)

    def health(self) -> dict[str, Any]:
        """State of every store as plain data: what /healthz gives."""
        with self._lock:
            stores = {
                name: {
                    "state": one.state, "why": one.why, "configuration_refused": one.refused,
                    "restarts": one.restarts, "memory_bytes": one.memory_bytes, "said": list(one.said),
                    **{key: value for key, value in one.status.items() if key not in ("said", "beat")},
                }
                for name, one in self._stores.items()
            }  # fmt: skip
        well = all(one["state"] in ("live", "ended") and not one["configuration_refused"] for one in stores.values())
        return {"well": well, "stores": stores}

    def metrics(self) -> bytes:
        """The same for Prometheus."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(_Collector(self.health()["stores"]))
        return generate_latest(registry)


class _Collector:
    def __init__(self, stores: dict[str, dict[str, Any]]) -> None:
        self._stores = stores

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        def gauge(name: str, what: str, value: Callable[[dict[str, Any]], float | None]) -> Any:
            family = GaugeMetricFamily(f"fusion_store_{name}", what, labels=["store"])
            for store, one in self._stores.items():
                found = value(one)
                if found is not None:
                    family.add_metric([store], found)
            return family

        def counter(name: str, what: str, label: str, values: Callable[[dict[str, Any]], dict[str, float]]) -> Any:
            family = CounterMetricFamily(f"fusion_store_{name}", what, labels=["store", label])
            for store, one in self._stores.items():
                for key, n in values(one).items():
                    family.add_metric([store, key], n)
            return family

        yield gauge("up", "1 while the store is served", lambda one: float(one["state"] == "live"))
        yield gauge("parked", "1 where it died too often", lambda one: float(one["state"] == "parked"))
        yield gauge("configuration_refused", "1 while its folder is faulty",
                    lambda one: float(bool(one["configuration_refused"])))  # fmt: skip
        yield gauge("memory_bytes", "proportional share of resident memory", lambda one: one["memory_bytes"])
        yield gauge("queue", "observations that wait for the engine", lambda one: one.get("queue"))
        yield gauge("lag_seconds", "how long what the engine took last had waited", lambda one: one.get("lag_s"))
        yield gauge("lost_seconds", "sensors' data lost at the last restart", lambda one: one.get("lost_s"))
        yield gauge("newest_seconds", "newest data time, since 1970",
                    lambda one: one["newest_ns"] * 1e-9 if one.get("newest_ns") else None)  # fmt: skip
        yield gauge("snapshot_seconds", "until the newest snapshot was on disk", lambda one: one.get("snapshot_s"))
        yield gauge("snapshot_stall_seconds", "how long the engine stood still for it",
                    lambda one: one.get("snapshot_stall_s"))  # fmt: skip
        yield gauge("snapshot_age_seconds", "data time since the newest snapshot",
                    lambda one: (one["newest_ns"] - one["snapshot_ns"]) * 1e-9
                    if one.get("snapshot_ns") else None)  # fmt: skip
        steps = GaugeMetricFamily("fusion_store_step_seconds", "time of an engine's step", labels=["store", "quantile"])
        for store, one in self._stores.items():
            for key, quantile in (("p50", "0.5"), ("p99", "0.99"), ("max", "1")):
                if "step_us" in one:
                    steps.add_metric([store, quantile], one["step_us"][key] * 1e-6)
        yield steps
        yield counter("busy_seconds", "time in the engine's steps, also of before its snapshot", "kind",
                      lambda one: {"step": one["busy_s"]} if "busy_s" in one else {})  # fmt: skip
        yield counter("restarts", "times that its process was started again", "cause",
                      lambda one: {"death": one["restarts"]})  # fmt: skip
        yield counter("dropped", "observations dropped under overload", "stream", lambda one: one.get("dropped", {}))
        yield counter("not_used", "what came in and could not be used", "reason", lambda one: one.get("not_used", {}))
        yield counter("receipts", "receipts posted by this process", "status", lambda one: one.get("receipts", {}))
        yield counter("observations", "what the engine was given, and more", "kind", lambda one: one.get("counts", {}))


def _listen(supervisor: Supervisor, port: int) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10.0

        def do_GET(self) -> None:
            if self.path == "/metrics":
                status, kind, text = 200, "text/plain; version=0.0.4; charset=utf-8", supervisor.metrics()
            elif self.path == "/healthz":
                health = supervisor.health()
                status, kind = 200 if health["well"] else 503, "application/json"
                text = json.dumps(health).encode()
            else:
                status, kind, text = 404, "text/plain", b"want /metrics or /healthz\n"
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass  # Somebody who asked and went away.

    return Server(("127.0.0.1", port), Handler)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _files(folder: Path) -> tuple[object, ...]:
    return tuple(_stamp(folder / name) for name in _FILES)


def _memory_bytes(pid: int) -> int:
    """Proportional share of what a process holds: what several share counts once in their sum."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return 0


def serve(path: str | Path) -> int:
    """The command: serve until SIGTERM or SIGINT; SIGHUP reads the store folders at once."""

    def tell(said: str) -> None:
        print(said, file=sys.stderr, flush=True)

    with Supervisor(path, tell) as supervisor:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: supervisor.stop())
        signal.signal(signal.SIGHUP, lambda *_: supervisor.reload())
        supervisor.run()
        states = Counter(one["state"] for one in supervisor.health()["stores"].values())
    return 1 if states["parked"] else 0


__all__ = ["Supervisor", "serve"]
