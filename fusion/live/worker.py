"""One process of `serve`: for each of its stores a source, a bounded queue, an engine, and the store's books.

    source --(thread)--> Intake --(thread)--> Engine --> Ledger, evidence.jsonl, live.sock, Outbox (warnings)
                                                 |
                                                 every few seconds of data time: snapshot, and which scans came since;
                                                 then the goods that moved before it --> Outbox

What a store's folder holds is enough to go on after the process was killed at any instant: the snapshot, the scans
that came since (sensors send frames and weights again, a gate does not ask twice), and the books. Results reach the
books before the snapshot that follows them, so going on from it says again what was said, which the books take in
silence. Goods reach the chain's outbox after it: what a snapshot holds is never explained otherwise any more.

What is lost on the way to the engine, after a restart or under overload, is told by the data: each stream's times show
how much of it is missing. Up to GAP_INTACT_S more than its usual pace is as if somebody had been hidden for a moment.
After more, every visit that it may touch goes to review: of whoever was inside, and of those who came in afterwards, as
long as a scan of then might be taken for theirs. The engine goes on in any case. What a sensor itself does not tell is
no gap in this sense: the engine knows by itself what that makes doubtful.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import json
import os
import resource
import signal
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fusion.engine import LATENESS_MAX_S, Engine
from fusion.errors import ConfigError, FusionError, IdempotencyConflict, ShapeError, SnapshotError
from fusion.files.atomic import replace_file
from fusion.files.lines import line_of, parse_gate_line, parse_item_line
from fusion.files.recordings import Recording
from fusion.files.results import evidence_row
from fusion.goods.journal import cart
from fusion.live.gaps import Gaps, Streams
from fusion.live.outbox import Outbox
from fusion.money.entries import NAME_MAX
from fusion.money.ledger import Ledger
from fusion.money.prices import PriceBook
from fusion.observations import EARLIEST_NS, LATEST_NS, Frame, GateScan, ItemSighting, Observation, ShelfReading
from fusion.results import PersonEntered, Reason, ReasonKind, Receipt, ReceiptStatus, Result, Warning, WarningKind
from fusion.sentences import sentence
from fusion.show.console.feed import LiveFeed
from fusion.snapshots import freeze, layout_digest, newest_ns, resume, snapshot
from fusion.store.models import Store

if TYPE_CHECKING:
    from fusion.gates.keeper import Decision
    from fusion.gates.verifiers import GateRequest

# Observations between a source and its engine: at least so many, and of large stores so many for each camera and plate.
# That is some seconds, so that writing a snapshot never drops any.
QUEUE_MAX, PER_CAMERA_MAX, PER_PLATE_MAX = 4096, 64, 16
SCANS_MAX = 4096
# What has waited for so long under overload is not worth its step any more: the engine is kept near to now.
FRAME_WAIT_S, WEIGHT_WAIT_S = 0.6, 0.9
BATCH_MAX = 64
# After a start a source may be behind for so long, and waits for the engine instead of dropping.
CATCH_UP_S, BEHIND_S = 15.0, 0.25
# Who scanned at most so long before data came again is let in late; who scanned earlier crossed while nobody saw it.
SCAN_LOST_S = 1.0
# A visit that the books know and the engine does not has this long to be found again in what is sent again.
ORPHAN_S = 5.0
# A process writes its first snapshot after so much data, the next ones after twice as much each time up to what is
# asked for: one that is killed again and again gets on all the same.
FIRST_SNAPSHOT_S = 0.5
# Goods of visits that were billed are remembered for so long: shelf events are explained seconds after them.
GOODS_KEPT_S = 3600.0
# So many streams that tell nonsense are counted each by itself.
REFUSED_MAX = 1000
# Items are known again for as long as sensors may send them again.
KNOWN_S = 15.0
# A scan whose gate was opened reaches the engine within so long.
PROMISED_S = 60.0
STATUS_S = 0.5
# The process before may need so long for its last snapshot.
LOCK_WAIT_S = 30.0
# Exit codes of a process: a store has failed; a store is to be started again with another layout.
FAILED, AGAIN = 3, 4


# ---- between source and engine ---------------------------------------------------------------------------------------


class Intake:
    """A queue of fixed length between a source's thread and an engine's.

    Nothing waits for the engine but who says so. What does not fit pushes out the oldest frame; where there is none,
    the oldest weight; never a scan or a sighting, of which few come. What has waited too long is dropped as well, so
    that after an overload the engine is at the present at once.

    Attributes:
        dropped: observations dropped so far, by stream: `detections: CAMERA`, `weights: PLATE`, `gate: GATE`.
        scans_dropped: scans and sightings among them.
        longest: most observations that waited at a time.
        lag_s: how long what was taken last had waited; of what is sent again nobody knows.
    """

    def __init__(
        self,
        limit: int = QUEUE_MAX,
        *,
        frame_wait_s: float = FRAME_WAIT_S,
        weight_wait_s: float = WEIGHT_WAIT_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit, self._clock_s = limit, clock_s
        self._waits_s = frame_wait_s, weight_wait_s
        # By kind, frames first: (place in the order of arrival, since when it waits, observation).
        self._queues: tuple[deque[tuple[int, float, Observation]], ...] = (deque(), deque(), deque())
        self._n_arrived = self.scans_dropped = 0
        self._condition = threading.Condition()
        self.dropped: Counter[str] = Counter()
        self.longest = 0
        self.lag_s = 0.0
        self.ended = False
        self._told: Counter[str] = Counter()
        self._last_drop_s = self._last_told_s = -1e9
        self._overloaded = False

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    def put(self, observation: Observation, *, wait: bool = False) -> None:
        """Let an observation in. `wait`: for room, and it is never too old: what is sent again after a restart."""
        kind = _kind(observation)
        frames, weights, scans = self._queues
        with self._condition:
            if kind == 2:
                if len(scans) >= SCANS_MAX:
                    self.scans_dropped += 1
                    return self._drop(observation)
            elif wait:
                while len(frames) + len(weights) >= self.limit and not self.ended:
                    self._condition.wait(0.1)
            if kind < 2 and len(frames) + len(weights) >= self.limit:
                if frames:
                    self._drop(frames.popleft()[2])
                elif kind == 0:
                    return self._drop(observation)
                else:
                    self._drop(weights.popleft()[2])
            self._n_arrived += 1
            since_s = float("inf") if wait else self._clock_s()
            self._queues[kind].append((self._n_arrived, since_s, observation))
            n = len(frames) + len(weights) + len(scans)
            self.longest = max(self.longest, n)
            if n == 1:
                self._condition.notify_all()

    def take(self, timeout_s: float) -> list[Observation]:
        """What came, oldest first, at most BATCH_MAX; nothing where nothing came in time, or ever will."""
        with self._condition:
            if not len(self) and not self.ended:
                self._condition.wait(timeout_s)
            now_s = self._clock_s()
            self.lag_s = 0.0
            oldest_s = [now_s - wait_s for wait_s in (*self._waits_s, float("inf"))]
            taken: list[Observation] = []
            while len(taken) < BATCH_MAX:
                heads = [(queue[0][0], kind) for kind, queue in enumerate(self._queues) if queue]
                if not heads:
                    break
                kind = min(heads)[1]
                _, since_s, observation = self._queues[kind].popleft()
                if since_s < oldest_s[kind]:
                    self._drop(observation)
                else:
                    self.lag_s = max(now_s - since_s, 0.0)
                    taken.append(observation)
            self._condition.notify_all()
            return taken

    def end(self) -> None:
        """Nothing more will come."""
        with self._condition:
            self.ended = True
            self._condition.notify_all()

    def warnings(self, t_ns: int) -> list[Warning]:
        """What was dropped since this was asked last, by stream: when it begins, every ten seconds, when it is over."""
        with self._condition:
            now_s = self._clock_s()
            new = self.dropped - self._told
            over = self._overloaded and now_s - self._last_drop_s > 1.0
            if not (over or (new and (not self._overloaded or now_s - self._last_told_s > 10.0))):
                return []
            self._overloaded, self._last_told_s = not over, now_s
            self._told = self.dropped.copy()
            kind = WarningKind.OVERLOAD_OVER if over else WarningKind.OVERLOAD
            warnings = [
                Warning(t_ns, kind, stream, count=n, total=self.dropped[stream]) for stream, n in sorted(new.items())
            ]
            return warnings or [Warning(t_ns, kind, "all", count=0, total=self.dropped.total())]

    def _drop(self, observation: Observation) -> None:
        self.dropped[_stream(observation)] += 1
        self._last_drop_s = self._clock_s()


def _kind(observation: Observation) -> int:
    return 0 if isinstance(observation, Frame) else 1 if isinstance(observation, ShelfReading) else 2


def _fault(observation: Any) -> str:
    """What is wrong with something that a source gave, as far as the engine relies on it; "" where nothing is."""
    if not isinstance(observation, Frame | ShelfReading | GateScan | ItemSighting):
        return f"want a Frame, ShelfReading, GateScan or ItemSighting, got {type(observation).__name__}"
    t_ns = observation.t_ns
    if not isinstance(t_ns, int) or not EARLIEST_NS <= t_ns <= LATEST_NS:
        return f"want UTC nanoseconds, got {str(t_ns)[:40]}"
    match observation:
        case Frame(camera=str()) | ShelfReading(plate=str()):
            return ""
        case GateScan(account=account) if isinstance(account, str) and not 1 <= len(account) <= NAME_MAX:
            return f"want an account of 1 to {NAME_MAX} characters, got {len(account)}"
        case GateScan() | ItemSighting():
            try:
                same = _parsed(isinstance(observation, GateScan), json.dumps(line_of(observation))) == observation
            except (ValueError, TypeError) as error:
                return f"want what stands in gate.jsonl or items.jsonl, got: {' '.join(str(error).split())[:200]}"
            return "" if same else "want what can be kept in gate.jsonl or items.jsonl"
    return "want names of sensors as text"


def _parsed(gate: bool, line: str) -> GateScan | ItemSighting:
    return parse_gate_line(line) if gate else parse_item_line(line)


def _stream(observation: Observation) -> str:
    match observation:
        case Frame():
            return f"detections: {observation.camera}"
        case ShelfReading():
            return f"weights: {observation.plate}"
        case GateScan():
            return f"gate: {observation.gate}"
        case _:
            return f"items: {observation.source}"


# ---- sources ---------------------------------------------------------------------------------------------------------


class Source(Protocol):
    """Where observations come from: iterated in a thread of its own.

    Attributes:
        ignored: what of it could not be used, by reason.
        behind: whether what it gives now has waited for this process to start.
    """

    @property
    def ignored(self) -> Counter[str]: ...

    @property
    def behind(self) -> bool: ...

    def __iter__(self) -> Iterator[Observation]: ...

    def stop(self) -> None: ...


class Paced:
    """Observations at the pace of their own times, as sensors send them: whether anybody listens or not.

    What was due before this process began is given at once, from `since_ns` on, as far as `kept_s` back: as a broker
    that keeps what was sent while nobody was there.
    """

    def __init__(
        self, observations: Callable[[], Iterable[Observation]], ignored: Counter[str], first_ns: int, since_ns: int,
        anchor_s: float, speed: float, kept_s: float,
    ) -> None:  # fmt: skip
        self._observations, self.ignored, self._first_ns = observations, ignored, first_ns
        self._since_ns, self._anchor_s, self._speed, self._kept_s = since_ns, anchor_s, speed, kept_s
        self._stopped = threading.Event()
        self.behind = True

    def __iter__(self) -> Iterator[Observation]:
        began_s, first_ns, speed = time.monotonic(), self._first_ns, self._speed
        for observation in self._observations():
            if observation.t_ns < self._since_ns:
                continue
            due_s = self._anchor_s + (observation.t_ns - first_ns) * 1e-9 / speed
            if (began_s - due_s) * speed > self._kept_s:
                continue
            ahead_s = due_s - time.monotonic()
            # Sleeps of a few milliseconds: one for each of some hundred messages a second would cost more than a step.
            if ahead_s > 0.004:
                self.behind = False
                self._stopped.wait(ahead_s)
            elif ahead_s > -BEHIND_S / 4:
                self.behind = False
            if self._stopped.is_set():
                return
            yield observation

    def stop(self) -> None:
        self._stopped.set()


class _Broker:
    """A store's streams over MQTT, with the gates' requests answered.

    keep: given each scan before its gate opens.
    """

    def __init__(
        self, post: Post, ledger: Ledger, tell: Callable[[Warning], object], keep: Callable[[GateScan], object]
    ) -> None:
        from fusion.gates.cards import CardTerminal
        from fusion.gates.codes import CodeVerifier, UsedCodes, public_key
        from fusion.gates.keeper import GateKeeper
        from fusion.gates.pseudonyms import Pseudonyms
        from fusion.gates.verifiers import OpenDoor, StaffList, Verifier
        from fusion.live.mqtt import Broker, Live

        def text(name: str) -> str | None:
            if name not in post.options:
                return None
            path = post.base / str(post.options[name])
            try:
                return path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{path}: want {name}, got: {type(error).__name__}") from None

        names = Pseudonyms(ledger)
        self._verifiers: dict[str, Verifier] = {"open": OpenDoor(), "card": names.behind(CardTerminal())}
        if "code_key" in post.options:
            key = public_key(post.base / str(post.options["code_key"]))
            used = UsedCodes(post.folder / "used.sqlite")
            self._verifiers["qr"] = names.behind(CodeVerifier(key, post.store.id, used))
        staff = text("staff_list")
        if staff is not None:
            self._verifiers["staff"] = StaffList(staff.split())
        password = text("password_file")
        ca = post.base / str(post.options["ca"]) if "ca" in post.options else None
        broker = Broker.of(post.source, password.rstrip("\r\n") if password else None, ca)
        self.names = names
        self._keeper = GateKeeper(post.store, self._verifiers)
        self._keep = keep
        self._live = Live(broker, post.store, decide=self._decide, tell=tell)
        self._began_s = time.monotonic()

    def _decide(self, request: GateRequest) -> Decision:
        decision = self._keeper.scan(request)
        if decision.scan is not None:
            self._keep(decision.scan)
        return decision

    @property
    def n_dropped(self) -> int:
        """Messages that came and were not read."""
        return self._live.n_dropped

    @property
    def ignored(self) -> Counter[str]:
        return self._live.ignored

    @property
    def behind(self) -> bool:
        # `Live` gives what it held as fast as it is taken.
        return not self._live.caught_up or time.monotonic() - self._began_s < 5.0

    def __iter__(self) -> Iterator[Observation]:
        return iter(self._live)

    def follow(self, store: Store) -> None:
        """The gates decide by a changed store folder from now on."""
        from fusion.gates.keeper import GateKeeper

        self._keeper = GateKeeper(store, self._verifiers)

    def stop(self) -> None:
        self._live.stop()


_OPTIONS = {
    "recording": {"speed", "kept_s"},
    "mqtt": {"password_file", "ca", "code_key", "staff_list"},
}  # fmt: skip


@dataclass(frozen=True)
class Post:
    """What a process is told of a store that it serves.

    Attributes:
        folder: for its snapshot, books and what else it keeps.
        base: what relative paths of the source are relative to.
        anchor_s: of the machine's monotonic clock, when serving began: paced sources count from there.
    """

    store: Store
    folder: Path
    base: Path
    source: str
    options: dict[str, Any]
    anchor_s: float
    snapshot_every_s: float = 5.0
    layout_wait_s: float = 600.0

    def checked(self) -> Post:
        """Itself, if its source can be. Raises ConfigError."""
        where = f"store {self.store.id!r}: source"
        kind = self.source.partition(":")[0]
        match kind:
            case "mqtt" | "mqtts":
                from fusion.live.mqtt import Broker

                Broker.of(self.source)
                known = _OPTIONS["mqtt"]
            case "recording":
                known = _OPTIONS["recording"]
            case "simulation":
                self._scenario()
                return self
            case "python" if self.source.count(":") == 2:
                return self
            case _:
                wanted = "want mqtt://HOST, mqtts://HOST, recording:FOLDER, simulation or python:MODULE:FUNCTION"
                raise ConfigError(f"{where}: {wanted}, got {self.source!r}")
        faults = [f"{where}: options: {name}: unknown key" for name in sorted(self.options.keys() - known)]
        if faults:
            raise ConfigError(faults)
        self._pace()
        return self

    def _pace(self) -> tuple[float, float]:
        pace = []
        for name, default in (("speed", 1.0), ("kept_s", 10.0)):
            value = self.options.get(name, default)
            if isinstance(value, bool | str) or not 0.0 <= value < 1e6 or (name == "speed" and not value):
                raise ConfigError(f"store {self.store.id!r}: options: {name}: want a number above 0, got {value!r}")
            pace.append(float(value))
        return pace[0], pace[1]

    def _scenario(self) -> Any:
        from fusion.simulation import Scenario

        self._pace()
        try:
            knobs: dict[str, Any] = {k: v for k, v in self.options.items() if k not in ("speed", "kept_s")}
            return Scenario(**knobs)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"store {self.store.id!r}: options: {error}") from None

    def open(
        self, since_ns: int, ledger: Ledger, tell: Callable[[Warning], object], keep: Callable[[GateScan], object]
    ) -> Source:
        """The source, from an instant on as far as it can give that again.

        keep: given scans that it answers by itself, before they are answered.

        Raises:
            FusionError: it cannot be opened.
        """
        kind, _, rest = self.source.partition(":")
        if kind in ("mqtt", "mqtts"):
            return _Broker(self, ledger, tell, keep)
        if kind == "python":
            module, _, function = rest.partition(":")
            try:
                make = getattr(importlib.import_module(module), function)
            except (ImportError, AttributeError) as error:
                raise ConfigError(f"store {self.store.id!r}: source {self.source!r}: {error}") from None
            return make(self, since_ns)
        speed, kept_s = self._pace()
        if kind == "recording":
            recording = Recording(self.base / rest)
            first_ns = (recording.span_ns() or (0, 0))[0]
            begin = partial(recording.observations, since_ns or None)
            return Paced(begin, recording.ignored, first_ns, since_ns, self.anchor_s, speed, kept_s)
        from fusion.simulation import Simulation

        scenario = self._scenario()
        run = Simulation(self.store, scenario).observations
        return Paced(run, Counter(), scenario.start_ns, since_ns, self.anchor_s, speed, kept_s)


# ---- what came since the snapshot ------------------------------------------------------------------------------------


class _Scans:
    """Scans and sightings since the newest snapshot, in a file: they are asked for once and sent once.

    The file names the snapshot that it follows, so that a process killed between the two neither loses nor doubles
    any. It also tells how far each stream had come. Sightings are remembered for some seconds more, since a sensor may
    send them again.

    Attributes:
        waiting: those that the engine has not been given yet, oldest first.
        unreadable: lines that were left out.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "scans.jsonl"
        self._file: Any = None
        # While a snapshot is on its way to the disk: what its file will hold, and the file once it has been begun.
        self._next_lines: list[bytes] | None = None
        self._next_file: Any = None
        self._lock = threading.Lock()
        self._known: deque[GateScan | ItemSighting] = deque(maxlen=SCANS_MAX)
        self.waiting: deque[GateScan | ItemSighting] = deque()
        self._promised: list[GateScan] = []
        self.unreadable = 0

    def read(self, data: bytes) -> Streams | None:
        """Take up what came since a snapshot; returns how far each stream had come by then, None where nothing fits."""
        wanted = hashlib.sha256(data).hexdigest()
        for path in (self._path.with_suffix(".new"), self._path):
            lines = path.read_bytes().splitlines() if path.exists() else []
            try:
                head = json.loads(lines[0])
                if head["after"] != wanted:
                    continue
                streams = {str(name): (int(t), int(step), bool(to)) for name, (t, step, to) in head["streams"].items()}
            except (IndexError, ValueError, KeyError, TypeError, AttributeError):
                continue
            for line in lines[1:]:
                try:
                    said = json.loads(line)
                    one = _parsed(said["gate"], json.dumps(said["line"]))
                    since = bool(said["since"])
                except (ValueError, KeyError, TypeError):
                    self.unreadable += 1  # Torn where the machine lost its power.
                    continue
                (self.waiting if since else self._known).append(one)
            self.waiting = deque(sorted(self.waiting, key=lambda one: one.t_ns))
            if path != self._path:
                os.replace(path, self._path)
            return streams
        return None

    def seen_before(self, one: Observation) -> bool:
        return isinstance(one, ItemSighting) and (one in self._known or one in self.waiting)

    def promise(self, one: GateScan) -> None:
        """A gate is about to open for one that the engine will be given later. In the thread that answers gates."""
        with self._lock:
            self._promised.append(one)
            self._write(self._line(one, True))

    def add(self, one: GateScan | ItemSighting) -> None:
        """One that came now, and that the engine is given next."""
        self._known.append(one)
        with self._lock:
            if one in self._promised:
                self._promised.remove(one)
            else:
                self._write(self._line(one, True))

    def _write(self, line: bytes) -> None:
        if self._next_lines is not None:
            self._next_lines.append(line)
        for file in (self._file, self._next_file):
            if file is not None:
                file.write(line)
                file.flush()

    def next(self) -> GateScan | ItemSighting:
        """The oldest of those that wait, to be given to the engine; it stands in the file."""
        one = self.waiting.popleft()
        self._known.append(one)
        return one

    def begin(self, newest_ns: int) -> None:
        """A snapshot has been frozen. What waits is still to be given to its engine; what comes from now on as well."""
        while self._known and self._known[0].t_ns < newest_ns - KNOWN_S * 1e9:
            self._known.popleft()
        with self._lock:
            # A promise that was not kept, since the gate could not be told, is none any more.
            self._promised = [one for one in self._promised if one.t_ns > newest_ns - PROMISED_S * 1e9]
            self._next_lines = [self._line(one, False) for one in self._known]
            self._next_lines += [self._line(one, True) for one in (*self.waiting, *self._promised)]

    def follow(self, data: bytes, path: Path, streams: Streams) -> None:
        """Write that snapshot, and what belongs to it. May be called in another thread than the rest."""
        new = self._path.with_suffix(".new")
        head = {"after": hashlib.sha256(data).hexdigest(), "streams": streams}
        with self._lock:
            assert self._next_lines is not None
            lines, self._next_lines = self._next_lines, []
        # Whole before it can be taken for the one that fits.
        replace_file(new, json.dumps(head).encode() + b"\n" + b"".join(lines))
        with self._lock:
            file = open(new, "ab")  # noqa: SIM115 stays open for what comes
            file.writelines(self._next_lines)
            file.flush()
            # Until the snapshot is there, what comes belongs to both.
            self._next_lines, self._next_file = None, file
        replace_file(path, data)
        with self._lock:
            os.replace(new, self._path)
            if self._file is not None:
                self._file.close()
            self._file, self._next_file = file, None

    @staticmethod
    def _line(one: GateScan | ItemSighting, since: bool) -> bytes:
        told = {"gate": isinstance(one, GateScan), "since": since, "line": line_of(one)}
        return json.dumps(told).encode() + b"\n"

    def close(self) -> None:
        for file in (self._file, self._next_file):
            if file is not None:
                file.close()


# ---- one store -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Keeping:
    """A snapshot on its way to the disk: of when it is, how many transfers it holds, since when that goes on."""

    future: Future[int]
    newest_ns: int
    n_transfers: int
    began_s: float


@contextlib.contextmanager
def _locked(path: Path, stop: threading.Event) -> Iterator[bool]:
    """Alone in a store's folder: a process of before may still write its last snapshot. False where told to stop.

    Raises:
        FusionError: another process serves the store.
    """
    with open(path, "a") as file:
        deadline_s = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if stop.wait(0.05):
                    yield False
                    return
                if time.monotonic() > deadline_s:
                    raise FusionError(f"{path}: another process serves this store") from None
        yield True


class Served:
    """One store, served by a thread of its own from the source to the books.

    Attributes:
        failure: why it has ended before its time; "" while all is well.
        over: the source has ended and all is worked off.
        again: it has ended in order to be started anew with another layout.
        beat: grows as long as the engine's thread is alive.
    """

    def __init__(self, post: Post) -> None:
        self.post, self.store = post, post.store
        self.failure, self.over, self.again, self.beat = "", False, False, 0
        n = PER_CAMERA_MAX * len(self.store.cameras) + PER_PLATE_MAX * len(self.store.plates)
        self._intake = Intake(max(QUEUE_MAX, n))
        self._stop = threading.Event()
        self._change: Store | None = None
        self._change_since_ns = 0
        self._said: deque[str] = deque(maxlen=200)
        self._receipts: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._snapshot_s = self._snapshot_stall_s = 0.0
        self._keeping: _Keeping | None = None
        self._keeper = ThreadPoolExecutor(1, f"snapshot {self.store.id}")
        self._snapshot_bytes = 0
        self._snapshot_ns = 0
        self._n_told = 0  # of the engine's journal, to the outbox
        self._gaps = Gaps(post.folder / "doubts.json")
        self._ready = self._anew = self._drained = False
        self._streams = {f"detections: {camera.name}" for camera in self.store.cameras}
        self._streams |= {f"weights: {plate.plate}" for plate in self.store.plates}
        self._orphans: dict[str, tuple[str | None, int]] = {}
        self._told: list[Warning] = []
        self._told_lock = threading.Lock()
        self._engine: Engine | None = None
        self._source: Source | None = None
        self._thread = threading.Thread(target=self._run, name=f"store {self.store.id}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after a last snapshot."""
        self._stop.set()
        self._intake.end()
        if self._source is not None:
            self._source.stop()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def change(self, store: Store) -> None:
        """The store's folder has changed: go on with that."""
        self._change_since_ns = self._newest_ns
        self._change = store

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    @property
    def _newest_ns(self) -> int:
        return self._engine.newest_ns if self._engine is not None else 0

    def status(self) -> dict[str, Any]:
        """What the supervisor shows; plain data."""
        said, engine, source = [], self._engine, self._source
        while self._said:
            said.append(self._said.popleft())
        told: dict[str, Any] = {
            "beat": self.beat, "failure": self.failure, "over": self.over, "said": said, "ready": self._ready,
            "newest_ns": self._newest_ns, "queue": len(self._intake), "queue_longest": self._intake.longest,
            "dropped": dict(self._intake.dropped), "lag_s": self._intake.lag_s, "lost_s": self._gaps.lost_s,
            "receipts": dict(self._receipts), "counts": dict(self._counts), "change_waits": self._change is not None,
            "snapshot_ns": self._snapshot_ns, "snapshot_s": self._snapshot_s, "snapshot_bytes": self._snapshot_bytes,
            "snapshot_stall_s": self._snapshot_stall_s,
        }  # fmt: skip
        if engine is not None:
            told["step_us"], told["busy_s"] = engine.step_times.summary_us(), engine.step_times.total_ns * 1e-9
        if source is not None:
            # Copies first: other threads count meanwhile.
            told["not_used"] = dict(Counter(dict(source.ignored)) + Counter(dict(self._refused)))
        return told

    # ---- in its thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._serve()
        except FusionError as error:
            self.failure = str(error)[:500]
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            self.failure = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"[:500]
        finally:
            self._intake.end()

    def _serve(self) -> None:
        folder = self.post.folder
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / "lock", self._stop) as alone:
            if alone:
                self._serve_alone(folder)

    def _serve_alone(self, folder: Path) -> None:
        self._scans = _Scans(folder)
        self._ledger = Ledger.open(folder / f"{self.store.id}.sqlite", self.store)
        self._prices = PriceBook(self.store)
        self._outbox = Outbox(folder / "outbox.sqlite", self.store)
        engine, since_ns = self._begin()
        self._engine = engine
        self._tell_goods()
        # A new engine is not told again what another one has worked off.
        self._floor_ns = 0 if engine.newest_ns else since_ns
        self._source = source = self.post.open(since_ns, self._ledger, self._tell, self._scans.promise)
        pump = threading.Thread(target=self._pump, args=(source,), name=f"source {self.store.id}", daemon=True)
        try:
            with open(folder / "evidence.jsonl", "a", encoding="utf-8") as self._evidence:
                self._end_torn_line()
                self._feed_to_consoles = LiveFeed(self.store, engine, folder / "live.sock")
                with self._feed_to_consoles:
                    self._snapshot_ns = since_ns
                    if not since_ns:
                        self._keep(wait=True)
                    pump.start()
                    self._ready = True
                    self._follow()
                    if self._drained:
                        self._say(self._gaps.ended(self._newest_ns, dict(self._intake.dropped)))
                        self._take_all(self._engine.close())
                        self._review(list(self._orphans))
                        self._said.append("its source has ended; what was open is in review")
                        self._ledger.review_open_visits(self._newest_ns, Reason(ReasonKind.DATA_ENDED))
                        self._tell_goods()
                        self._kept(wait=True)
                        (folder / "snapshot").unlink(missing_ok=True)
                        self.over = True
                    else:
                        self._keep(wait=True)
        finally:
            source.stop()
            self._keeper.shutdown()
            self._scans.close()
            self._ledger.close()
            self._outbox.close()
        if self._pump_failure:
            raise FusionError(self._pump_failure)

    _pump_failure = ""

    def _pump(self, source: Source) -> None:
        began_s = time.monotonic()
        patient = True
        try:
            for observation in source:
                fault = _fault(observation)
                if fault:
                    self._refuse("source", fault)
                    continue
                # Until the engine, too, has worked off what had waited for it.
                caught_up = not source.behind and len(self._intake) < 2 * BATCH_MAX
                patient = patient and not caught_up and time.monotonic() - began_s < CATCH_UP_S
                self._intake.put(observation, wait=patient)
                if self._stop.is_set():
                    break
        except FusionError as error:
            self._pump_failure = str(error)[:500]
        except Exception as error:
            self._pump_failure = f"its source: {type(error).__name__}: {error}"[:500]
        finally:
            self._intake.end()

    def _tell(self, warning: Warning) -> None:
        """From the source's thread."""
        with self._told_lock:
            if len(self._told) < SCANS_MAX:
                self._told.append(warning)

    def _refuse(self, stream: str, fault: str) -> None:
        if len(self._refused) >= REFUSED_MAX and stream not in self._refused:
            stream = "further streams"
        self._refused[stream] += 1
        n = self._refused[stream]
        if str(n).strip("0") == "1":
            self._tell(Warning(self._newest_ns, WarningKind.REFUSED, stream, total=n, detail=fault))

    def _begin(self) -> tuple[Engine, int]:
        """The engine of the newest snapshot and its time; or a new one, and the time that another one had come to."""
        path = self.post.folder / "snapshot"
        try:
            self._gaps.read()
        except ValueError:
            self._said.append("doubts.json: want JSON as it was written, got another; visits that are open are doubted")
            for one in self._ledger.open_visits():
                self._gaps.doubt(one.visit, ReasonKind.DOUBTS_UNREADABLE)
        if not path.exists():
            self._review_all(ReasonKind.STATE_LOST)
            self._anew = True
            return Engine(self.store, time.perf_counter_ns), 0
        data = path.read_bytes()
        try:
            engine = resume(data, self.store, time.perf_counter_ns)
        except SnapshotError as error:
            self._said.append(f"begins anew, visits that were open are in review: {error}")
            changed = "layout" in str(error)
            self._review_all(ReasonKind.LAYOUT_CHANGED if changed else ReasonKind.SNAPSHOT_UNUSABLE)
            self._anew = True
            self._scans.read(data)
            self._scans.begin(0)
            self._scans.follow(data, path, {})
            try:
                since_ns = newest_ns(data)
            except SnapshotError:
                since_ns = 0
            return Engine(self.store, time.perf_counter_ns), since_ns
        followed = set(engine.open_visits)
        self._orphans = {
            one.visit: (one.account, one.enter_ns) for one in self._ledger.open_visits() if one.visit not in followed
        }
        streams = self._scans.read(data)
        if streams is None:
            self._said.append("scans.jsonl: nothing fits the snapshot; scans since then are lost")
        # Nobody knows what was missed before the first snapshot, nor where the streams stood.
        self._anew = streams is None or not engine.newest_ns
        self._gaps.go_on(streams or {}, engine.newest_ns)
        n_waiting = len(self._scans.waiting)
        if self._scans.unreadable:
            self._said.append(f"scans.jsonl: {self._scans.unreadable} lines cannot be read and are left out")
        # Until the next snapshot what comes is written behind the same one.
        self._scans.begin(engine.newest_ns)
        self._scans.follow(data, path, self._gaps.streams())
        self._said.append(
            f"goes on from a snapshot with {len(followed)} open visits and {n_waiting} scans and sightings since"
        )
        return engine, engine.newest_ns

    def _follow(self) -> None:
        """The work itself, until the source ends or somebody says stop."""
        every_ns, intake = round(self.post.snapshot_every_s * 1e9), self._intake
        due_ns = min(round(FIRST_SNAPSHOT_S * 1e9), every_ns)
        n_scans_dropped = n_messages_dropped = 0
        while not self._stop.is_set():
            batch = intake.take(0.2)
            self.beat += 1
            with self._told_lock:
                told, self._told = self._told, []
            for warning in (*told, *intake.warnings(self._newest_ns)):
                self._take(warning)
            if not batch and intake.ended:
                # A source that failed will be back: what is open stays so.
                self._drained = not self._stop.is_set() and not self._pump_failure
                while self._drained and self._scans.waiting:
                    self._take_all(self._feed(self._scans.next()))
                return
            for observation in batch:
                if observation.t_ns >= self._floor_ns:
                    self._give(observation)
            if intake.scans_dropped > n_scans_dropped:
                n_scans_dropped = intake.scans_dropped
                self._doubt_span(self._newest_ns, self._newest_ns, ReasonKind.SCANS_DROPPED)
            if isinstance(self._source, _Broker) and self._source.n_dropped > n_messages_dropped:
                n_messages_dropped = self._source.n_dropped
                self._doubt_span(self._newest_ns, self._newest_ns, ReasonKind.MESSAGES_DROPPED)
            if self._orphans:
                self._look_for_orphans()
            assert self._engine is not None
            self._gaps.look(self._newest_ns, self._engine.scans_waiting > 0)
            if self._change is not None:
                self._take_change()
            self._kept()
            if self._keeping is None and self._newest_ns - self._snapshot_ns >= due_ns:
                self._keep()
                due_ns = min(2 * due_ns, every_ns)

    def _give(self, observation: Observation) -> None:
        """An observation of the source to the engine; then the scans of before the start that wait for its time."""
        if isinstance(observation, GateScan | ItemSighting):
            if not self._scans.seen_before(observation):
                self._scans.add(observation)
                self._take_all(self._feed(observation))
            return
        before_ns = self._newest_ns
        results = self._feed(observation)
        newest_ns = self._newest_ns
        # What is missing is known before what follows from it is billed. What the engine drops tells nothing of that: a
        # clock that has gone mad, which it does not believe, and what comes too late.
        stream = _stream(observation)
        if before_ns - LATENESS_MAX_S * 1e9 <= observation.t_ns <= newest_ns and stream in self._streams:
            self._say(self._gaps.heard(stream, observation.t_ns, self._intake.dropped[stream]))
        if self._anew and newest_ns:
            # Whoever is inside is unknown to this engine, and so is who has scanned.
            self._anew = False
            self._doubt_span(newest_ns, newest_ns, ReasonKind.STATE_LOST)
        self._take_all(results)
        waiting = self._scans.waiting
        while waiting and waiting[0].t_ns <= newest_ns:
            one = self._scans.next()
            if isinstance(one, GateScan) and one.t_ns < newest_ns - SCAN_LOST_S * 1e9 and newest_ns - before_ns > 1e9:
                # Whose frames are lost is not found at the gate any more: the next to come would get that scan.
                self._counts["scans left out after a gap"] += 1
                self._say(f"a scan at {one.gate} is left out: its frames are lost")
                continue
            self._take_all(self._feed(one))

    def _feed(self, observation: Observation) -> list[Result]:
        self._counts["frames" if isinstance(observation, Frame) else "messages"] += 1
        assert self._engine is not None
        try:
            return self._engine.feed(observation)
        except (ShapeError, TypeError) as error:
            # A sensor's fault is that sensor's: it is counted and told, and the others go on.
            self._refuse(_stream(observation), str(error)[:300])
            return []

    def _take_all(self, results: Iterable[Result]) -> None:
        for result in results:
            self._take(result)

    def _say(self, said: str) -> None:
        if said:
            self._said.append(said)

    def _doubt_span(self, start_ns: int, end_ns: int, kind: ReasonKind) -> None:
        self._say(self._gaps.add(start_ns, end_ns, kind))

    def _take(self, result: Result) -> None:
        """What the engine answers, into the books first."""
        match result:
            case PersonEntered(visit=str(visit)):
                self._counts["entered"] += 1
                self._orphans.pop(visit, None)
                self._enter(visit, result)
                if isinstance(self._source, _Broker):
                    self._source.names.entered(result.account)
            case Receipt():
                result = self._bill(result)
                if isinstance(self._source, _Broker):
                    self._source.names.left(result.account)
            case Warning():
                self._counts["warnings"] += 1
                self._outbox.add(results=[result])
                if result.kind in (WarningKind.OVERLOAD, WarningKind.OVERLOAD_OVER, WarningKind.REFUSED):
                    self._said.append(f"{result.kind}: {result.subject}: {sentence(result)}")
        self._feed_to_consoles.add(result)

    def _end_torn_line(self) -> None:
        """A process that was killed may have written half a line: it spoils itself, but not the next."""
        with open(self._evidence.name, "rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
            if file.read() not in (b"", b"\n"):
                self._evidence.write("\n")

    def _enter(self, visit: str, entered: PersonEntered) -> None:
        try:
            if self._ledger.open_visit(visit, entered.account, entered.t_ns):
                return
            known = self._ledger.standing(visit)
            same = known is None or known.status != "open" or known.account == entered.account
        except IdempotencyConflict:
            same = False
        if not same:
            self._gaps.doubt(visit, ReasonKind.ACCOUNT_CHANGED)
            self._said.append(f"visit {visit}: was another account's before the restart; goes to review")

    def _bill(self, receipt: Receipt) -> Receipt:
        """A receipt into the books, to review where a gap touches it. Returns it as it stands there."""
        doubts = self._gaps.why(receipt)
        if doubts:
            receipt = replace(receipt, status=ReceiptStatus.REVIEW, reasons=(*receipt.reasons, *doubts))
        new = self._post(receipt)
        self._gaps.billed(receipt.visit)
        if new:
            self._receipts[receipt.status] += 1
        evidence = self._engine.evidence(receipt.visit) if self._engine is not None else None
        if new and receipt.status == ReceiptStatus.REVIEW and evidence is not None:
            # Also where a gap is the only doubt, of which the engine knows nothing.
            told = replace(evidence, status=receipt.status, reasons=(*evidence.reasons, *doubts))
            self._evidence.write(json.dumps(evidence_row(told), separators=(",", ":")) + "\n")
            self._evidence.flush()
        return receipt

    def _post(self, receipt: Receipt) -> bool:
        """Into the books; what stands there from before a restart stays."""
        priced = self._prices.priced(receipt)
        try:
            return self._ledger.post_receipt(priced.receipt, priced.discounts)
        except IdempotencyConflict:
            pass
        known = self._ledger.standing(receipt.visit)
        if known is not None and known.status == "open":
            # The books know it as another account's, and nobody else bills it.
            reasons = (Reason(ReasonKind.ACCOUNT_CHANGED),)
            return self._post(replace(receipt, account=known.account, status=ReceiptStatus.REVIEW, reasons=reasons))
        # Somebody else may now hold on the bill what this visit was billed for then.
        self._said.append(f"visit {receipt.visit}: billed before the restart; that receipt stands")
        self._counts["billed before"] += 1
        end_ns = max(receipt.exit_ns, self._newest_ns)
        self._doubt_span(receipt.enter_ns or receipt.exit_ns, end_ns, ReasonKind.NEIGHBOUR_REBILLED)
        return False

    # ---- visits that cannot be followed ------------------------------------------------------------------------------

    def _review_all(self, kind: ReasonKind) -> None:
        visits = self._ledger.open_visits()
        if visits:
            self._ledger.review_open_visits(max(self._newest_ns, *(one.enter_ns for one in visits)), Reason(kind))
            self._receipts["review"] += len(visits)
        self._orphans = {}

    def _look_for_orphans(self) -> None:
        past_ns = self._newest_ns - round(ORPHAN_S * 1e9)
        self._review([visit for visit, (_, enter_ns) in self._orphans.items() if enter_ns < past_ns])

    def _review(self, visits: list[str]) -> None:
        """Visits that began after the snapshot, and whose beginning nobody can tell again."""
        for visit in visits:
            account, enter_ns = self._orphans.pop(visit)
            if self._engine is not None and visit in self._engine.open_visits:
                continue
            now_ns = max(self._newest_ns, enter_ns)
            receipt = Receipt(
                visit, account, enter_ns, now_ns, now_ns, ReceiptStatus.REVIEW, (Reason(ReasonKind.RESTARTED),),
                self.store.currency, 0, (),
            )  # fmt: skip
            try:
                self._ledger.post_receipt(receipt)
            except IdempotencyConflict:
                continue
            self._receipts["review"] += 1
            self._said.append(f"visit {visit}: not found again after the restart, in review")

    # ---- snapshots and changes ---------------------------------------------------------------------------------------

    def _keep(self, *, wait: bool = False) -> None:
        """Take a snapshot. Only what the engine has to stand still for is done here; `_kept` tells when it is on disk.

        wait: until it is.
        """
        self._kept(wait=True)  # One at a time.
        assert self._engine is not None
        began_s = time.perf_counter()
        self._gaps.forget(min((one.enter_ns for one in self._ledger.open_visits()), default=self._newest_ns))
        frozen, streams = freeze(self._engine), self._gaps.streams()
        self._scans.begin(self._newest_ns)
        self._snapshot_stall_s = time.perf_counter() - began_s

        def on_disk() -> int:
            data = frozen.packed()
            self._scans.follow(data, self.post.folder / "snapshot", streams)
            return len(data)

        n_transfers = self._engine.journal.n_recorded
        self._keeping = _Keeping(self._keeper.submit(on_disk), self._newest_ns, n_transfers, began_s)
        if wait:
            self._kept(wait=True)

    def _kept(self, *, wait: bool = False) -> None:
        """Look whether the snapshot that is under way is on disk. Raises what went wrong with it, such as OSError."""
        keeping = self._keeping
        if keeping is None or not (wait or keeping.future.done()):
            return
        self._snapshot_bytes = keeping.future.result()
        self._keeping = None
        self._snapshot_s = time.perf_counter() - keeping.began_s
        self._snapshot_ns = keeping.newest_ns
        self._tell_goods(keeping.n_transfers)
        # The outbox has them; what was billed long ago would only make snapshots slower, week by week.
        assert self._engine is not None
        inside = {cart(visit) for visit in self._engine.open_visits}
        self._engine.journal.forget(self._n_told, self._newest_ns - round(GOODS_KEPT_S * 1e9), inside)

    def _tell_goods(self, n_transfers: int | None = None) -> None:
        """To the chain: the transfers that came since they were told last, of the first so many."""
        assert self._engine is not None
        new = self._engine.journal.since(self._n_told)
        if n_transfers is not None:
            new = new[: max(n_transfers - self._n_told, 0)]
        try:
            self._outbox.add(new)
        except IdempotencyConflict:
            for transfer in new:
                try:
                    self._outbox.add([transfer])
                except IdempotencyConflict as error:
                    self._said.append(f"outbox: {error}; what was told before stands")
        self._n_told += len(new)

    def _take_change(self) -> None:
        """Go on with a changed store folder: at once where the layout is the same, else when the store is empty."""
        store, self._change = self._change, None
        engine = self._engine
        assert store is not None and engine is not None
        if layout_digest(store) != layout_digest(self.store):
            waited_s = (self._newest_ns - self._change_since_ns) * 1e-9
            if engine.open_visits and waited_s < self.post.layout_wait_s:
                self._change = self._change or store  # unless it has changed again meanwhile
                return
            # The source has to know the new sensors as well: the process is started anew, and finds the old snapshot.
            self._said.append(f"is started anew with another layout, {len(engine.open_visits)} open visits")
            self.again = True
            self._stop.set()
            return
        self.store = store
        self._ledger.adopt(store)
        self._prices = PriceBook(store)
        if isinstance(self._source, _Broker):
            self._source.follow(store)
        # By way of a snapshot: what the engine holds then points to the parts of the new store.
        self._engine = resume(snapshot(engine), store, time.perf_counter_ns)
        self._feed_to_consoles.follow(self._engine)
        self._keep(wait=True)
        self._said.append("goes on with the changed configuration")


# ---- the process -----------------------------------------------------------------------------------------------------


def work(posts: list[Post], pipe: Connection, memory_max_bytes: int) -> None:
    """Serve stores until told to stop, until their sources end, or until whoever started this is gone.

    The supervisor ends a process that holds more than memory_max_bytes; twice as much it does not get at all, so that
    one that takes memory faster than anybody looks fails alone.
    """
    with contextlib.suppress(OSError, ValueError):
        status = Path("/proc/self/status").read_text().split("VmData:", 1)[1]
        wanted = (int(status.split()[0]) << 10) + 2 * memory_max_bytes
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to everybody; the supervisor says when.
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    served = {post.store.id: Served(post) for post in posts}
    for one in served.values():
        one.start()
    try:
        while not stopping.is_set():
            pipe.send({name: one.status() for name, one in served.items()})
            if all(one.ended for one in served.values()) or any(one.failure or one.again for one in served.values()):
                break
            if pipe.poll(STATUS_S):
                command, *rest = pipe.recv()
                if command == "stop":
                    break
                if command == "store":
                    served[rest[0].id].change(rest[0])
    except (EOFError, OSError):
        pass
    for one in served.values():
        one.stop()
    for one in served.values():
        one.join(20.0)
    failed, again = (any(getattr(one, name) for one in served.values()) for name in ("failure", "again"))
    try:
        pipe.send({name: one.status() for name, one in served.items()})
        pipe.close()
    except OSError:
        pass
    # Threads that hang are not waited for.
    os._exit(FAILED if failed else AGAIN if again else 0)
