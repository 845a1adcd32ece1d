"""The example stores as they would run: broker, provider, `fusion serve`, customers; and everything of it is killed.

    python -m bench shops --stores just_walk_out --kills 10      one store, a minute and a half of customers
    python -m bench shops --minutes 20 --kills 500               all eight, one after another
    python -m bench shops --stores biu welife --at-once 2        two at once, on a machine with cores to spare
    python -m bench shops --postgres                             books on a PostgreSQL server, which is killed as well

Sensors and customers of each store are simulated in real time and speak to the store over MQTT alone; customers show
signed codes, payment tokens or faces, confirm their baskets in payment zones, and ask to leave. The payment provider is
slow, loses answers, repeats references and forgets its keys (`hostile_provider`). Processes are killed (SIGKILL) at
random and started again at once. After a quiet time the store is stopped; a person enters what the provider's account
shows about every step in question; then every receipt is compared with the simulation's truth, and every account with
the provider's. The exit code is 1 where a rule is broken.

A simulated customer walks in, whether or not the gate has opened yet, and through a paying door, whether or not it has
opened: what a store does about that is seen in receipts that wait.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from broker import MOSQUITTO, Mosquitto, free_port  # the tests' own

from bench.endurance import hostile_provider
from bench.endurance.hostile_provider import CALM, TERMS, Accounts
from bench.endurance.kills import LAST_NS, differences, look_at_account
from fusion.files.secrets import derived, store_key
from fusion.gates.codes import private_key
from fusion.gates.faces import FaceGallery
from fusion.gates.marks import Marks
from fusion.gates.verifiers import GateRequest
from fusion.live.connection import Broker
from fusion.live.messages import Command, topic_of
from fusion.live.publisher import Publisher
from fusion.money.ledger import Ledger
from fusion.money.payments import Checkout
from fusion.money.prices import PriceBook
from fusion.money.visits import Standing
from fusion.observations import Frame, GateScan, ItemSighting, Observation, ShelfReading
from fusion.runner.customers import FACE_DIM, SimulatedCustomers, _face
from fusion.runner.example import Example
from fusion.runner.shoppers import EMPTY_S, PATIENCE_S, from_now
from fusion.runner.truth import TrueVisit, simulated_visits
from fusion.simulation import Scenario, Simulation
from fusion.store.models import Store
from fusion.till.settings import TillFile

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
EXAMPLES = ROOT / "examples" / "stores"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/example.toml"))
# Where Debian and its like keep the server's programs.
POSTGRES_BIN = "/usr/lib/postgresql/*/bin"
# The shop stays empty after the last customer while receipts become final, and errands have time after that: a
# provider's slowest answer, and the longest pause of an errand, which is a minute.
TAIL_S, QUIET_MAX_S = 20.0, 150.0
# An exit opens by itself without an answer in this time (docs/mqtt.md); it asks this often while nobody stands at it.
EXIT_S, PROBE_EVERY_S = 2.0, 3.0
# After a broker or a supervisor is back, clients need this long to notice: pauses grow to 2 s.
NOTICE_S = 5.0
# A killed store resumes within seconds; on a busy machine, after several kills in a row, in half a minute.
RESUMED_S = 30.0
# Kernels are compiled once on a new machine.
START_MAX_S = 300.0
# A program that ended by itself is started again after this pause.
RESTART_S = 0.5
VICTIMS = ("store", "supervisor", "provider", "broker", "console", "postgres")


# ---- processes -------------------------------------------------------------------------------------------------------


class Program:
    """A process that is killed and started again, with the times when it was away."""

    def __init__(self, command: list[str], log: Path, ready: Callable[[], object], user: str | None = None) -> None:
        self._command, self._log, self._ready, self._user = command, log, ready, user
        self.away_s: list[tuple[float, float]] = []
        self.start()

    def start(self, again_s: float = 0.0) -> None:
        """Start it, and wait until it is ready; for so many seconds again where it ends, as a service manager does."""
        end_s = time.monotonic() + again_s
        while True:
            with open(self._log, "ab") as log:
                self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=ENVIRONMENT, user=self._user)
            until(lambda: self._ready() or self.process.poll() is not None, START_MAX_S)
            if self.process.poll() is None and self._ready():
                return
            if self.process.poll() is None or time.monotonic() > end_s:
                raise RuntimeError(f"{self._command} is not ready:\n{self._log.read_text()[-2000:]}")
            time.sleep(RESTART_S)

    def kill(self) -> None:
        """SIGKILL, and start again at once."""
        since_s = time.monotonic()
        self.process.kill()
        self.process.wait()
        self.start(START_MAX_S)  # A console that finds its books away, too, ends.
        self.away_s.append((since_s, time.monotonic() + NOTICE_S))

    def stop(self) -> int:
        """SIGTERM. Returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(START_MAX_S)


class Postgres(Program):
    """A PostgreSQL server, which the shell around it starts again."""

    def __init__(self, data: Path, *arguments: Any) -> None:
        self._data = data
        super().__init__(*arguments)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        until(self._ready, START_MAX_S)

    def stop(self) -> int:
        self._signal(signal.SIGINT)
        return self.process.wait(START_MAX_S)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(OSError):
            os.kill(int((self._data / "postmaster.pid").read_text().split()[0]), number)


class KilledBroker(Mosquitto):
    """The tests' broker, with the times when it was away."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.away_s: list[tuple[float, float]] = []

    def kill(self) -> None:
        """SIGKILL, and start again at once."""
        since_s = time.monotonic()
        self.stop(signal.SIGKILL)
        self.start()
        self.away_s.append((since_s, time.monotonic() + NOTICE_S))


def until(holds: Callable[[], object], limit_s: float) -> bool:
    """Wait until a condition holds. Returns whether it did in time."""
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        if holds():
            return True
        time.sleep(0.1)
    return False


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def health(port: int) -> dict[str, Any]:
    """/healthz of `fusion serve`; empty while nobody answers."""
    with contextlib.suppress(OSError, ValueError):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5.0) as response:
                return dict(json.load(response))
        except urllib.error.HTTPError as error:  # 503 while a store is not well
            return dict(json.load(error))
    return {}


def children(pid: int) -> list[int]:
    """Processes that any thread of a process has started, as Linux lists them."""
    found = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += [int(one) for one in (thread / "children").read_text().split()]
    return sorted(found)


# ---- a store and its customers ---------------------------------------------------------------------------------------


@dataclass
class Left:
    """A request to leave, and its answer.

    Attributes:
        asked_s, answered_s: on the monotonic clock; None: no answer in EXIT_S.
        open: whether it was answered `open`.
        account: of the person who stands at the door; None for one who only tries.
        answered_ns: when it was answered, UTC nanoseconds; 0: no answer.
    """

    asked_s: float
    answered_s: float | None
    open: bool
    account: str | None = None
    answered_ns: int = 0


class Gates:
    """The gates of a shop: who comes in asks until the answer is final, who leaves asks in a thread of their own."""

    def __init__(self, shop: Shop, broker: Broker) -> None:
        self._shop, self._commands = shop, dict[tuple[str, int], Command]()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._publisher = Publisher(broker, shop.store.id, "gates", on_command=self._take)

    def enter(self, scan: GateScan) -> None:
        self._begin(self._enter, scan)

    def leave(self, gate: str, until_s: float | None, account: str | None = None) -> None:
        """Ask to leave; until_s: ask a paying door until then; account: of the person who stands at it."""
        self._begin(self._leave, gate, until_s, account)

    def close(self) -> None:
        for thread in self._threads:
            thread.join(2 * PATIENCE_S)
        self._publisher.close()

    def _begin(self, run: Callable[..., None], *arguments: object) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _enter(self, scan: GateScan) -> None:
        shop, account = self._shop, scan.account or ""
        until_s, command = time.monotonic() + PATIENCE_S, None
        kind = "staff" if scan.credential_type == "staff" else shop.example.credential
        while time.monotonic() < until_s and (command is None or command.again_s is not None):
            if command is None:
                # Nothing came back: the customer shows a new code. A question that is not answered yet is asked again.
                token = account if kind == "staff" else shop.customers.shown(account, time.time_ns())
            command = self._answer(GateRequest(time.time_ns(), scan.gate, kind, token), 5.0)
            if command is not None and command.again_s is not None:
                time.sleep(command.again_s)
        reason = "no answer" if command is None else command.reason
        shop.answers[reason] += 1
        if command is not None and command.open and kind != "staff":
            shop.welcome.add(account)

    def _leave(self, gate: str, until_s: float | None, account: str | None) -> None:
        while True:
            asked_s = time.monotonic()
            command = self._answer(GateRequest(time.time_ns(), gate, "open", asks="leave"), EXIT_S)
            answered_s = None if command is None else time.monotonic()
            opened = command is not None and command.open
            if until_s is None or opened or time.monotonic() > until_s:
                answered_ns = 0 if command is None else time.time_ns()
                self._shop.left.append(Left(asked_s, answered_s, opened, account, answered_ns))
                return
            time.sleep(0.5 if command is None else command.again_s or 0.5)

    def _answer(self, request: GateRequest, limit_s: float) -> Command | None:
        key = (request.gate, self._publisher.ask(request))
        with self._changed:
            self._changed.wait_for(lambda: key in self._commands, limit_s)
            return self._commands.pop(key, None)

    def _take(self, command: Command) -> None:
        with self._changed:
            self._commands[command.gate, command.request] = command
            self._changed.notify_all()


class Terminal:
    """A payment zone's terminal: customers confirm what it shows."""

    def __init__(self, address: str, store: Store) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self._store, self._number, self._run = store, itertools.count(), random.getrandbits(32)
        host, _, port = address.rpartition(":")
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(1, 2)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{topic_of(store.id, 'zones')}/+/+", 1)
        self._client.on_message = self._take
        self._client.connect(host, int(port))
        self._client.loop_start()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _take(self, _client: object, _data: object, message: Any) -> None:
        *_, zone, what = message.topic.split("/")
        for basket in json.loads(message.payload)["baskets"] if what == "baskets" else ():
            # Shown each second; the same confirmation twice asks for nothing new.
            fields = {"v": 1, "run": self._run, "seq": next(self._number), "time": time.time_ns(),
                      "visit": basket["visit"], "total": basket["total"]}  # fmt: skip
            self._client.publish(topic_of(self._store.id, "zones", zone, "confirm"), json.dumps(fields), 1)


@dataclass
class Shop:
    """An example store in the run.

    Attributes:
        answers: how often each reason was given at the entry.
        welcome: accounts that were let in.
        left: requests to leave.
        truth: what its customers really did.
    """

    store: Store
    example: Example
    scenario: Scenario
    customers: SimulatedCustomers
    folder: Path
    answers: Counter[str] = field(default_factory=Counter)
    welcome: set[str] = field(default_factory=set)
    left: list[Left] = field(default_factory=list)
    truth: list[TrueVisit] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.store.id

    def play(self, address: str) -> None:
        """Publish everything in real time, to the end."""
        broker, store = Broker.of(address), self.store
        kinds = {Frame: "cameras", ShelfReading: "scales", ItemSighting: "readers"}
        publishers = {kind: Publisher(broker, store.id, name) for kind, name in kinds.items()}
        gates = Gates(self, broker)
        terminal = Terminal(address, store) if store.payment.mode == "zone" else None
        # Simulated ahead of time, so that the machine has its cores for the store.
        rehearsed = Simulation(store, self.scenario)
        for _ in rehearsed.observations():
            pass
        truth = simulated_visits(rehearsed.truth)
        observations = list(from_now(store, self.scenario, 0))
        begin_ns = time.time_ns() + 10**9
        shift_ns = begin_ns + round(EMPTY_S * 1e9) - self.scenario.start_ns
        prices = PriceBook(store)
        self.truth = [
            visit.moved(shift_ns).priced(prices, member=self.customers.is_member(visit.account)) for visit in truth
        ]
        out = next(gate.id for gate in store.gate if gate.direction != "in")
        door = store.payment.mode == "door"
        due = sorted((visit.exit_ns - 10**9, visit.account or "") for visit in self.truth)
        next_probe_ns = begin_ns
        for t_ns, together in itertools.groupby(emptied(observations), lambda observation: observation.t_ns):
            t_ns += begin_ns
            time.sleep(max((t_ns - time.time_ns()) / 1e9, 0.0))
            while due and due[0][0] <= t_ns:
                account = due.pop(0)[1]
                gates.leave(out, time.monotonic() + PATIENCE_S if door else None, account)
            if not door and t_ns >= next_probe_ns:
                next_probe_ns = t_ns + round(PROBE_EVERY_S * 1e9)
                gates.leave(out, None)
            for kind, same_kind in itertools.groupby(together, type):
                group = [replace(one, t_ns=one.t_ns + begin_ns) for one in same_kind]
                for scan in group:
                    if isinstance(scan, GateScan):
                        gates.enter(scan)
                if kind in publishers:
                    publishers[kind].publish(*group)
        gates.close()
        if terminal is not None:
            terminal.close()
        for publisher in publishers.values():
            publisher.close(timeout_s=30.0)


def emptied(observations: list[Observation]) -> Iterator[Observation]:
    """The observations, then an empty shop for TAIL_S whose shelves stay as they were left."""
    yield from observations
    last_ns, span_ns = observations[-1].t_ns, 2 * 10**9
    last = [one for one in observations if one.t_ns > last_ns - span_ns and isinstance(one, Frame | ShelfReading)]
    for turn in range(1, round(TAIL_S * 1e9 / span_ns) + 1):
        for one in last:
            moved = replace(one, t_ns=one.t_ns + turn * span_ns)
            if isinstance(moved, Frame):
                appearance = None if moved.appearance is None else moved.appearance[:0]
                moved = replace(moved, keypoints=moved.keypoints[:0], appearance=appearance)
            yield moved


def open_shop(name: str, folder: Path, args: argparse.Namespace) -> Shop:
    """Copy an example store, and give its customers their credentials; writes NAME.toml, its till."""
    shutil.copytree(EXAMPLES / name, folder / name)
    store, example = Store.load(folder / name), Example.load(folder / name)
    share = args.minutes / example.scenario.get("minutes", 5.0)
    changes = {"minutes": args.minutes, "shoppers": max(round(example.scenario.get("shoppers", 8) * share), 1)}
    scenario = example.scenario_for(store, args.seed, **changes)
    private = folder / f"{name}.private"
    private.mkdir(mode=0o700)
    customers = SimulatedCustomers(store, example, scenario, random.Random(args.seed), private)
    gates = []
    if example.credential == "qr":
        from cryptography.hazmat.primitives import serialization

        customers.verifier()  # makes the app server's key
        public = private_key(private / "app_server.pem").public_key()
        form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        (folder / f"{name}.pem").write_bytes(public.public_bytes(*form))
        gates.append(f'code_key = "{name}.pem"')
    accounts = sorted({person.account for person in customers.people if person.account})
    if example.credential == "face":
        state = folder / "serve" / name
        state.mkdir(parents=True, mode=0o700)
        key = derived(store_key(state), "faces")
        like = {"dim": FACE_DIM, "effective_dim": FACE_DIM, "false_accept_rate": 1e-6}
        faces = FaceGallery(state / "faces", key, marks=Marks(state / "used.sqlite"), **like)
        for account in accounts:
            faces.enrol(account, account, _face(account))
        gates += ["[gates.faces]", *(f"{name} = {value:.6f}" if name[0] == "f" else f"{name} = {value}"
                                     for name, value in like.items())]  # fmt: skip
    write_private(folder / f"{name}.staff", "\n".join(sorted(customers.employees())) or "nobody-works-here")
    gates.insert(0, f'staff_list = "{name}.staff"')
    found = [customers.of(account) for account in accounts]
    rows = [f"{one.account},{one.token},,{'yes' if one.member else 'no'},yes" for one in found if one is not None]
    write_private(folder / f"{name}.csv", "\n".join(["account,token,email,member,adult", *rows]) + "\n")
    lines = ["format_version = 1", "[payment]", 'provider = "http"', f'url = "http://127.0.0.1:{args.pay_port}/{name}"']
    lines += ['secret_file = "provider.key"', f"keys_kept_h = {TERMS.keys_kept_s / 3600.0:.9f}"]
    lines += ["[customers]", f'file = "{name}.csv"', "[books]", *args.books, "[gates]", *gates]
    (folder / f"{name}.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Shop(store, example, scenario, customers, folder)


def write_private(path: Path, text: str) -> None:
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


# ---- kills -----------------------------------------------------------------------------------------------------------


class Town:
    """Broker, provider, books' server, `fusion serve` and console of some shops."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kills = folder, Counter[str]()
        self.store_killed_s: list[float] = []
        self.programs: dict[str, Any] = {}
        self.shops: list[Shop] = []

    def open(self, names: list[str], args: argparse.Namespace) -> None:
        """Start everything, until every store is live."""
        folder = self.folder
        self.broker = KilledBroker(folder / "broker")
        args.pay_port, self.port, console_port = free_port(), free_port(), free_port()
        python, journal = sys.executable, folder / "provider"
        journal.mkdir(mode=0o700)
        self.journal = journal
        self.programs["broker"] = self.broker
        if args.postgres:
            self.programs["postgres"], url = postgres(folder)
            args.books = [f'where = "{url}"']
        write_private(folder / "provider.key", "secret-of-a-bench")
        pay = [python, "-m", hostile_provider.__name__, str(journal), str(args.pay_port), str(args.seed)]
        self.programs["provider"] = Program(pay, folder / "provider.log", lambda: listens(args.pay_port))
        self.shops = [open_shop(name, folder, args) for name in names]
        lines = ["format_version = 1", "[[retailer]]", 'id = "r"', 'name = "R"', 'brand = "B"', "fee_share = 0.0"]
        lines += [f"stores = {json.dumps(names)}", "[serve]", f"port = {self.port}"]
        for name in names:
            lines += ["[[serve.store]]", f'store = "{name}"', f'source = "mqtt://{self.broker.address}"']
            lines += [f'till = "{name}.toml"']
        (folder / "chain.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        fusion = [python, "-m", "fusion"]
        serve = [*fusion, "serve", str(folder / "chain.toml")]
        self.programs["supervisor"] = Program(serve, folder / "serve.log", lambda: health(self.port))
        if not until(self._live, START_MAX_S):
            raise RuntimeError(f"no store is live:\n{(folder / 'serve.log').read_text()[-3000:]}")
        shop = self.shops[0]
        where, vault = self.till(shop).books_at(shop.name, folder / "serve" / shop.name)
        look = [*fusion, "console", str(folder / shop.name), "--ledger", where, "--port", str(console_port)]
        look += ["--live", str(folder / "serve" / shop.name / "live.sock"), "--users", str(folder / "users.json")]
        look += ["--evidence", str(folder / "serve" / shop.name / "evidence.jsonl")]
        look += [] if vault is None else ["--vault", vault]
        added = [*fusion, "users", "add", "eve", "--users", str(folder / "users.json"), "--store", shop.name]
        password = f"{random.SystemRandom().getrandbits(64):x}\n"
        subprocess.run(added, input=password, text=True, check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
        self.programs["console"] = Program(look, folder / "console.log", lambda: listens(console_port))

    def till(self, shop: Shop) -> TillFile:
        return TillFile.load(self.folder / f"{shop.name}.toml")

    def _live(self) -> bool:
        stores = health(self.port).get("stores", {})
        return bool(stores) and all(store["state"] == "live" for store in stores.values())

    def kill(self, victim: str, rng: random.Random) -> None:
        """Kill a process at once; what starts it again is what starts it in a shop."""
        if victim == "store":
            supervisor = self.programs["supervisor"].process.pid
            workers = [one for server in children(supervisor) for one in children(server)]
            if not workers:
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
                self.store_killed_s.append(time.monotonic())
        else:
            self.programs[victim].kill()
        self.kills[victim] += 1

    def run(self, n_kills: int, minutes: float, seed: int) -> None:
        """Play all shops, and kill at random meanwhile."""
        threads = [threading.Thread(target=shop.play, args=(self.broker.address,)) for shop in self.shops]
        for thread in threads:
            thread.start()
        rng = random.Random(f"kills {seed}")
        victims = [victim for victim in VICTIMS if victim == "store" or victim in self.programs]
        span_s = EMPTY_S + minutes * 60.0
        began_s = time.monotonic()
        for moment_s in sorted(rng.uniform(5.0, span_s) for _ in range(n_kills)):
            time.sleep(max(began_s + moment_s - time.monotonic(), 0.0))
            if any(thread.is_alive() for thread in threads):
                self.kill(rng.choice(victims), rng)
        for thread in threads:
            thread.join()

    def rest(self) -> None:
        """No more faults; wait until nothing is left to do, then stop the stores."""
        (self.journal / CALM).touch()
        until(self._at_rest, QUIET_MAX_S)
        self.state = health(self.port)
        self.programs["supervisor"].stop()
        for name in ("console", "provider"):
            if name in self.programs:
                self.programs[name].stop()

    def _at_rest(self) -> bool:
        stores = health(self.port).get("stores", {}).values()
        return bool(stores) and all(
            one["state"] == "live" and not (one.get("till") or {}).get("waits_for") for one in stores
        )

    def close(self) -> None:
        """Stop whatever still runs."""
        for program in self.programs.values():
            if not isinstance(program, Program) or program.process.poll() is None:
                program.stop()

    def answering(self, since_s: float, until_s: float, *, door: bool) -> bool:
        """Whether all that answers a request to leave was there all the time.

        A way out is answered beside the stores, by the supervisor's own process; a paying door by its store, since only
        that knows what is paid. While the store restarts, such a door has its release.
        """
        away = [*self.broker.away_s, *self.programs["supervisor"].away_s]
        if door:
            away += [(killed_s, killed_s + RESUMED_S) for killed_s in self.store_killed_s]
        return all(until_s < begin_s or since_s > end_s for begin_s, end_s in away)


def postgres(folder: Path) -> tuple[Program, str]:
    """A server of our own and its URL. PostgreSQL refuses to run as root, so it is another user's then."""
    (binary,) = sorted(Path("/").glob(POSTGRES_BIN[1:]))[-1:]
    user = "postgres" if os.geteuid() == 0 else None
    data, port = Path(tempfile.mkdtemp(prefix="fusion-shops-pg")), free_port()
    if user is not None:
        shutil.chown(data, user)
    subprocess.run([str(binary / "initdb"), "-D", str(data / "d"), "-U", "postgres", "-A", "trust"], user=user,
                   cwd=data, check=True, stdout=subprocess.DEVNULL)  # fmt: skip
    command = [str(binary / "postgres"), "-D", str(data / "d"), "-p", str(port), "-k", str(data)]
    # A killed server leaves its lock and its children for a moment; it is started again until it ends by itself.
    shell = ["sh", "-c", 'until "$@"; do sleep 0.3; done', "postgres", *command]
    program = Postgres(data / "d", shell, folder / "postgres.log", lambda: listens(port), user)
    return program, f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable"


# ---- the comparison --------------------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """What became of a store: counts for the table, and the rules that were broken."""

    counts: Counter[str]
    broken: list[str]


def judged(truth: list[TrueVisit], welcome: set[str], visits: dict[str, list[tuple[Standing, int]]]) -> Verdict:
    """Compare customers with their visits.

    Args:
        truth: what each customer really took.
        welcome: accounts that a gate let in.
        visits: by account, each visit in the books and what was paid for it, minor units.
    """
    verdict = Verdict(Counter(), [])
    for true in truth:
        account = true.account
        if account is None:
            continue
        verdict.counts["customers"] += 1
        own = visits.get(account, [])
        settled = [one for one, _ in own if one.status in ("settled", "decided") and (one.lines or len(own) == 1)]
        wanted = Counter({gtin: n for gtin, n in true.items.items() if n})
        if not own:
            verdict.counts["not let in"] += account not in welcome
            if account in welcome:
                verdict.broken.append(f"{account}: was let in, and no visit of theirs is in the books")
        for one in settled:
            goods = Counter[str]()
            for line in one.lines:
                goods[line.gtin] += line.quantity
            if goods != wanted:
                verdict.counts["WRONG"] += 1
                verdict.broken.append(f"{one.visit} of {account}: settled {dict(goods)}, took {dict(wanted)}")
            elif one.status == "settled" and true.total not in (None, one.total):
                verdict.counts["WRONG"] += 1
                costs = f"{one.total}, they cost {true.total}"
                verdict.broken.append(f"{one.visit} of {account}: the right goods for {costs}")
            else:
                verdict.counts["right"] += 1
        verdict.counts["waits"] += any(one.status == "review" for one, _ in own)
        verdict.broken += [f"{one.visit} of {account}: still open" for one, _ in own if one.status == "open"]
        if sum(paid > 0 for _, paid in own) > 1:
            verdict.broken.append(f"{account}: paid for {sum(paid > 0 for _, paid in own)} visits, and came once")
    return verdict


def compared(town: Town, shop: Shop, accounts: Accounts) -> Verdict:
    """A store's books against its customers and its provider."""
    book, store = accounts.by_store[shop.name], shop.store
    where, vault = town.till(shop).books_at(shop.name, town.folder / "serve" / shop.name)
    with Ledger.open(where, store, vault=vault) as ledger:
        checkout = Checkout(ledger, book, store)
        before = ledger.balances().get(store.currency, {}).get("provider", 0), book.total
        n_asked = sum(one.status in ("person", "pending") for one in checkout.outstanding())
        # Later than any request of a dead process could arrive.
        now_ns = time.time_ns() + LAST_NS
        accounts.now_ns = now_ns
        checkout.recover(now_ns, restarted=True)
        n_by_person = look_at_account(ledger, checkout, book, now_ns, store.id)
        visits: dict[str, list[tuple[Standing, int]]] = {}
        broken = []
        for visit in dict.fromkeys(entry.visit for entry in ledger.entries_between(-(2**62), 2**62)):
            standing = ledger.standing(visit)
            if standing is None:
                continue
            payment = checkout.state(visit)
            holder = ledger.holder(standing.account) if standing.account is not None else None
            if holder is not None:
                visits.setdefault(holder.account.removeprefix("tok_"), []).append((standing, payment.paid))
            elif payment.paid:
                broken.append(f"{visit}: paid {payment.paid}, and nobody is known for it")
            if standing.status in ("open", "review") and payment.paid:
                broken.append(f"{visit}: {standing.status}, and charged {payment.paid}")
            elif payment.due is not None and payment.paid > payment.due:
                broken.append(f"{visit}: due {payment.due}, paid {payment.paid}")
        verdict = judged(shop.truth, shop.welcome, visits)
        broken += differences(ledger, store.currency, book)
    if before[0] != before[1] and not n_asked:
        broken.append(f"{before[0]} in our books, {before[1]} in the provider's, and nothing waited for a person")
    verdict.counts.update({"paid": book.total, "by person": n_by_person, "visits": sum(map(len, visits.values()))})
    verdict.broken += broken
    exits(town, shop, verdict)
    if store.payment.mode == "door":
        named = {account: [one.visit for one, _ in found] for account, found in visits.items()}
        verdict.broken += unpaid_doors(shop, named, town.journal / "journal")
    return verdict


def unpaid_doors(shop: Shop, visits: dict[str, list[str]], journal: Path) -> Iterator[str]:
    """Paying doors that opened for a person who had taken goods and had neither paid nor authorised anything.

    Doors that opened once the person had left are those of the next one. visits: by account.
    """
    truth = {visit.account: visit for visit in shop.truth}
    for left in shop.left:
        true = truth.get(left.account)
        if true is None or not left.open or left.answered_ns > true.exit_ns or not true.total:
            continue
        accounts = Accounts(journal, left.answered_ns).by_store[shop.name]
        names = visits.get(left.account or "", [])
        covered = sum(accounts.covered(f"{shop.name}/{visit}/") for visit in names)
        if not covered:
            yield f"{left.account}: the door opened with goods for {true.total}, and nothing was authorised or paid"


def exits(town: Town, shop: Shop, verdict: Verdict) -> None:
    """Requests to leave: answered `open` in time, wherever somebody was there to answer."""
    door = shop.store.payment.mode == "door"
    for left in shop.left:
        verdict.counts["asked to leave"] += 1
        verdict.counts["opened"] += left.open
        if left.answered_s is not None and not left.open and not door:
            verdict.broken.append("a request to leave a shop was refused")
        if left.answered_s is None:
            verdict.counts["unanswered"] += 1
            if town.answering(left.asked_s, left.asked_s + EXIT_S, door=door):
                verdict.broken.append(f"a request to leave had no answer in {EXIT_S:g} s while all that answers ran")


COLUMNS = ("customers", "right", "waits", "WRONG", "not let in", "visits", "paid", "by person", "asked to leave",
           "opened", "unanswered")  # fmt: skip


def run(names: list[str], n_kills: int, args: argparse.Namespace) -> tuple[dict[str, Verdict], Counter[str]]:
    """Some stores at once, from opening to comparison."""
    folder = Path(tempfile.mkdtemp(prefix="shops"))
    args.books = []
    town = Town(folder)
    try:
        town.open(names, args)
        town.run(n_kills, args.minutes, args.seed)
        town.rest()
        accounts = Accounts(town.journal / "journal")
        verdicts = {shop.name: compared(town, shop, accounts) for shop in town.shops}
    finally:
        town.close()
    for shop in town.shops:
        print(f"{shop.name}: at the entry {dict(shop.answers)}", file=sys.stderr)
    if args.keep or any(verdict.broken for verdict in verdicts.values()):
        print(f"everything is kept in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return verdicts, town.kills


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--minutes", type=float, default=1.5, help="of customers, in each store")
    parser.add_argument("--kills", type=int, default=80, help="in all stores together")
    parser.add_argument("--at-once", type=int, default=1, help="stores that run at once; the others follow")
    parser.add_argument("--postgres", action="store_true", help="books on a PostgreSQL server of this program's own")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep the folder of each run")
    args = parser.parse_args()
    if MOSQUITTO is None:
        print("shops: want the program mosquitto, found none", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))  # so that whatever runs is stopped
    turns = [args.stores[i : i + args.at_once] for i in range(0, len(args.stores), args.at_once)]
    verdicts: dict[str, Verdict] = {}
    kills = Counter[str]()
    for i, names in enumerate(turns):
        found, killed = run(names, args.kills * (i + 1) // len(turns) - args.kills * i // len(turns), args)
        verdicts |= found
        kills += killed
    print("| store | " + " | ".join(COLUMNS) + " |\n|---|" + "---|" * len(COLUMNS))
    for name, verdict in verdicts.items():
        print(f"| {name} | " + " | ".join(str(verdict.counts[column]) for column in COLUMNS) + " |")
    print(f"{kills.total()} kills: {', '.join(f'{n} {victim}' for victim, n in sorted(kills.items()))}")
    broken = [f"{name}: {line}" for name, verdict in verdicts.items() for line in verdict.broken]
    good = "every receipt is right or waits; both books agree to the cent; nothing was charged twice"
    print("\n".join(broken) or good)
    return bool(broken)
