"""Live streams over MQTT: what sensors publish, as observations for the engine, and the gate's answers back.

`Live` is a source of observations like a recording, `Publisher` is what a sensor's program uses; docs/mqtt.md gives
the topics and the bytes for programs in other languages. MQTT 3.1.1, everything at QoS 1. Extra `mqtt`.

What was published reaches the engine although connections break, programs restart in any order or the broker dies.
Three things see to that. A publisher keeps what it sent for some seconds after the broker has acknowledged it, and
sends it again whenever a connection, or an engine, is new to it. Every message carries a number, so that what comes
twice is dropped, and what is missing is seen. And a live source that comes back after an outage holds what arrives
until every publisher that it knows has caught up, and goes on in order of time: publishers that come back one after
the other would else make each other late.

Time is the data's. This module reads clocks only to wait, and for how long something is kept.
"""

from __future__ import annotations

import contextlib
import queue
import random
import secrets
import ssl
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from fusion.errors import ConfigError, FusionError, extra
from fusion.gates.keeper import Decision
from fusion.gates.verifiers import GateRequest
from fusion.live.messages import (
    COMMAND,
    NAMES_MAX,
    STATUS,
    Command,
    Decoder,
    Mark,
    Refused,
    frame_payload,
    line_payload,
    request_payload,
    status_payload,
    topic_of,
    weights_payload,
    what,
)
from fusion.observations import Frame, GateScan, ItemSighting, Observation, ShelfReading
from fusion.results import Warning, WarningKind
from fusion.store.models import Store

if TYPE_CHECKING:
    from paho.mqtt.client import Client

# A dead peer is noticed after one and a half of these.
KEEPALIVE_S = 5
# Pauses between attempts to connect grow from one to the other, and are spread by half.
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.25, 2.0
# A connection that held for so long was a good one: the next pause is short again.
HELD_S = 5.0
# After an outage everybody needs a pause of the longest kind to be back, publishers some time to send what they kept.
SETTLE_S, CATCH_UP_MAX_S = BACKOFF_MAX_S + 1.0, 15.0
# A broker that ends tells everybody's last will, some even after the engine has noticed its end.
WILLS_S = 5.0
# Messages between the network and the engine: a minute of a large store; the last of them are kept for gates and items.
QUEUE_MAX, QUEUE_RESERVED = 32_768, 1024
# A publisher's messages that are not acknowledged yet, or might have to be sent again: as long as the queue.
KEPT_MAX, KEPT_S = 32_768, 10.0
# Messages on their way to the broker without its acknowledgement.
WINDOW = 256
# Whoever asked to come in has gone by then, or asks again.
REQUEST_MAX_S = 5.0
REQUESTS_MAX = 64


# ---- the broker's address --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Broker:
    """Where a broker is and how one signs in.

    Attributes:
        ca: file of the certificate authorities that are trusted; None for those of the system.
    """

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: Path | None = None

    @classmethod
    def of(cls, address: str, password: str | None = None, ca: str | Path | None = None) -> Broker:
        """From `HOST`, `HOST:PORT`, `mqtt://[USER@]HOST[:PORT]` or `mqtts://...` (TLS; port 8883 unless it is given).

        Raises:
            ConfigError: it is none of these, or holds a password: those who may list programs would see it.
        """
        wanted = "want HOST:PORT, mqtt://USER@HOST:PORT or mqtts://..."
        try:
            url = urlsplit(address if "://" in address else f"mqtt://{address}")
            host, port = url.hostname, url.port
        except ValueError:
            raise ConfigError(f"broker: {wanted}") from None
        if url.password is not None:
            raise ConfigError("broker: want no password in the address; it is given beside it")
        if url.scheme not in ("mqtt", "mqtts") or not host or port == 0 or url.path.strip("/") or url.query:
            raise ConfigError(f"broker: {wanted}, got {address!r}")
        if ca is not None and not Path(ca).is_file():
            raise ConfigError(f"{ca}: want a file of certificates, got nothing")
        tls = url.scheme == "mqtts"
        username = None if url.username is None else unquote(url.username)
        return cls(host, port or (8883 if tls else 1883), tls, username, password, None if ca is None else Path(ca))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


# ---- connections -----------------------------------------------------------------------------------------------------


class _NoConnection(Exception):
    """The broker cannot be reached, or refuses who asks."""

    def __init__(self, reason: str, refused: bool = False) -> None:
        self.refused = refused
        super().__init__(reason)


class _Connection:
    """One connection to a broker, from its beginning to its end; the next one is another object, so nothing lingers.

    Attributes:
        lost: set when it is over; `reason` says why.
    """

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        *,
        clean: bool,
        will: tuple[str, bytes],
        on_message: Callable[[str, bytes, bool], None],
        wake: threading.Event,
    ) -> None:
        with extra("mqtt"):
            import paho.mqtt.client as paho
        self._broker, self._wake = broker, wake
        self.lost = threading.Event()
        self.reason = "connection lost"
        # Identifiers of acknowledged messages. Nothing here waits for a lock that is held while paho is called, since
        # paho holds its own meanwhile.
        self.acknowledged: deque[int] = deque()
        self._answered = threading.Event()
        self._answer: str | None = None
        self._subscribed = threading.Event()
        self._subscribe_failed = False
        client: Client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id, clean_session=clean, reconnect_on_failure=False
        )
        self._client = client
        client.max_inflight_messages_set(0)  # We have a window of our own.
        client.max_queued_messages_set(0)
        client.will_set(*will, qos=1, retain=True)
        if broker.username is not None:
            client.username_pw_set(broker.username, broker.password)
        if broker.tls:
            try:
                client.tls_set_context(ssl.create_default_context(cafile=broker.ca))
            except OSError as error:
                raise ConfigError(f"{broker.ca}: want certificates as PEM, got: {error}") from None

        def connected(_c: object, _u: object, _f: object, reason: Any, _p: object) -> None:
            self._answer = str(reason) if reason.is_failure else None
            self._answered.set()

        def disconnected(_c: object, _u: object, _f: object, reason: Any, _p: object) -> None:
            # In this version of the protocol a broker does not say why.
            self.reason = "connection lost" if str(reason) == "Unspecified error" else str(reason)
            self.lost.set()
            self._answered.set()
            self._subscribed.set()
            wake.set()

        def subscribed(_c: object, _u: object, _m: int, reasons: Any, _p: object) -> None:
            self._subscribe_failed = any(reason.is_failure for reason in reasons)
            self._subscribed.set()

        def unsubscribed(*_: object) -> None:
            self._subscribed.set()

        def acknowledged(_c: object, _u: object, mid: int, _r: object, _p: object) -> None:
            self.acknowledged.append(mid)
            wake.set()

        def came(_c: object, _u: object, message: Any) -> None:
            try:
                topic = message.topic
            except UnicodeDecodeError:
                topic = ""
            try:
                on_message(topic, message.payload, message.retain)
            except Exception:
                # A caller's mistake: told as any thread's, but the network goes on.
                sys.excepthook(*sys.exc_info())

        client.on_connect, client.on_disconnect, client.on_publish = connected, disconnected, acknowledged
        client.on_subscribe, client.on_unsubscribe, client.on_message = subscribed, unsubscribed, came

    def open(self, topics: Sequence[str]) -> None:
        """Connect, and subscribe to topics. Raises _NoConnection."""
        try:
            self._client.connect(self._broker.host, self._broker.port, KEEPALIVE_S)
        except (OSError, ValueError) as error:
            raise _NoConnection(f"{self._broker}: {error or type(error).__name__}") from None
        self._client.loop_start()
        if not self._answered.wait(5.0):
            raise _NoConnection(f"{self._broker}: no answer within 5 s")
        if self._answer is not None:
            raise _NoConnection(f"{self._broker}: refused: {self._answer}", refused=True)
        if self.lost.is_set():
            raise _NoConnection(f"{self._broker}: {self.reason}")
        if topics:
            self._client.subscribe([(topic, 1) for topic in topics])
            if not self._subscribed.wait(5.0) or self.lost.is_set():
                raise _NoConnection(f"{self._broker}: {self.reason}")
            if self._subscribe_failed:
                raise _NoConnection(f"{self._broker}: may not subscribe to {', '.join(topics)}", refused=True)

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> int | None:
        """Send a message; its identifier, which is among `acknowledged` later, or None where nothing is connected."""
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        return info.mid if info.rc == 0 else None

    def part(self, topics: Sequence[str], status_topic: str) -> None:
        """Before closing: end subscriptions, so that a session that stays in the broker gathers nothing, and say so.

        Both are waited for: a socket that is closed while something comes in takes back what went out, and the broker
        would tell the last will.
        """
        if self.lost.is_set():
            return
        self._subscribed.clear()
        self._client.unsubscribe(list(topics))
        self._subscribed.wait(2.0)
        with contextlib.suppress(RuntimeError, ValueError):  # Not connected any more.
            self._client.publish(status_topic, status_payload("stopped"), qos=1, retain=True).wait_for_publish(2.0)

    def close(self) -> None:
        """Part from the broker properly where one is connected: the last will is not told then."""
        self._client.disconnect()
        self._client.loop_stop()


def _keep_connected(
    connect: Callable[[], _Connection],
    topics: Sequence[str],
    serve: Callable[[_Connection], None],
    down: Callable[[str, bool], None],
    closing: threading.Event,
) -> None:
    """Connect, serve until the connection is lost, and connect again after a pause, until closing."""
    pause_s = BACKOFF_MIN_S
    while not closing.is_set():
        connection = connect()
        refused = False
        try:
            connection.open(topics)
            began_s = time.monotonic()
            serve(connection)
            reason = f"{connection._broker}: {connection.reason}"
            if time.monotonic() - began_s > HELD_S:
                pause_s = BACKOFF_MIN_S
        except _NoConnection as error:
            reason, refused = str(error), error.refused
        finally:
            connection.close()
        if closing.is_set():
            return
        down(reason, refused)
        closing.wait(pause_s * random.uniform(0.5, 1.0))
        pause_s = min(2 * pause_s, BACKOFF_MAX_S)


# ---- publishing ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Kept:
    topic: str
    payload: bytes
    since_s: float
    once: bool  # not to be sent again after it was acknowledged
    acknowledged: bool = False


class Publisher:
    """Publishes what some sensors of a store tell. Never waits for the network; may be used from several threads.

    Messages wait in a queue of fixed length while there is no broker; when it is full, the oldest is dropped and
    counted. What the broker has acknowledged is kept some seconds more and sent again after an outage: the broker
    may have lost it, and whoever has it drops it by its number.

        with Publisher("broker:1883", store.id, "cameras") as publisher:
            publisher.publish(frame)

    Attributes:
        dropped: messages that never reached the broker since the queue was full.
    """

    def __init__(
        self,
        broker: Broker | str,
        store_id: str,
        name: str,
        *,
        on_command: Callable[[Command], None] | None = None,
        kept_max: int = KEPT_MAX,
        kept_s: float = KEPT_S,
    ) -> None:
        """Begin to publish; connects in the background, now or whenever there is a broker.

        Args:
            broker: or its address, see `Broker.of`.
            store_id: id of the store in store.toml.
            name: of this publisher, unlike every other's in the store; how its health is told.
            on_command: told what gates are to do, in another thread.
            kept_max, kept_s: messages in the queue, and seconds that acknowledged ones stay in it.
        """
        self._broker = Broker.of(broker) if isinstance(broker, str) else broker
        self._store_id, self.name, self._on_command = store_id, name, on_command
        self._status_topic, self._engine_topic = topic_of(store_id, "status", name), topic_of(store_id, "engine")
        self._kept_max, self._kept_s = kept_max, kept_s
        self._lock = threading.Lock()
        # By place in the order of publishing; places from _first to _end are kept, those before _next were sent.
        self._kept: dict[int, _Kept] = {}
        self._first = self._next = self._end = 0
        self._run = secrets.randbits(32)
        self._numbers: Counter[str] = Counter()
        self._engine: str | None = None
        self.dropped = 0
        self.state = "connecting"
        self._closing, self._wake, self._idle = threading.Event(), threading.Event(), threading.Event()
        self._idle.set()
        self._topics = [self._engine_topic]
        if on_command is not None:
            self._topics.append("/".join([topic_of(store_id, "gates"), "+", "command"]))
        self._connection()  # A missing package or a wrong file is told here, not in the thread.
        self._thread = threading.Thread(
            target=_keep_connected,
            args=(self._connection, self._topics, self._serve, self._down, self._closing),
            name=f"mqtt {name}",
            daemon=True,
        )
        self._thread.start()

    def publish(self, *observations: Observation) -> None:
        """Publish observations in the order given. Readings beside each other that were sampled together, at the same
        time and with as many samples, go in one message.

        Raises:
            ShapeError: arrays that make no message.
        """
        for _, alike in groupby(observations, _message_key):
            group = list(alike)
            first = group[0]
            if isinstance(first, ShelfReading):
                readings = [one for one in group if isinstance(one, ShelfReading)]
                self._send(("weights", self.name), partial(weights_payload, readings))
                continue
            for one in group:
                match one:
                    case Frame():
                        self._send(("detections", one.camera), partial(frame_payload, one))
                    case GateScan():
                        self._send(("gates", one.gate, "scan"), partial(line_payload, one))
                    case ItemSighting():
                        self._send(("items", one.source), partial(line_payload, one))

    def ask(self, request: GateRequest) -> int:
        """Ask whether somebody may pass a gate; the answer is a `Command` with the number that this returns."""
        return self._send(("gates", request.gate, "request"), partial(request_payload, request), once=True)

    def _send(self, levels: tuple[str, ...], payload: Callable[[Mark], bytes], once: bool = False) -> int:
        topic = topic_of(self._store_id, *levels)
        with self._lock:
            number = self._numbers[topic] & 0xFFFFFFFF
            kept = _Kept(topic, payload(Mark(self._run, number)), time.monotonic(), once)
            self._numbers[topic] += 1
            self._kept[self._end] = kept
            self._end += 1
            if len(self._kept) > self._kept_max:
                self.dropped += not self._kept.pop(self._first).acknowledged
                self._first += 1
                self._next = max(self._next, self._first)
            self._idle.clear()
        self._wake.set()
        return number

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until the broker has acknowledged everything; False where it has not in this time."""
        return self._idle.wait(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop, once the broker has everything or the time is over."""
        self.flush(timeout_s)
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- in the thread -----------------------------------------------------------------------------------------------

    def _connection(self) -> _Connection:
        return _Connection(
            self._broker,
            f"fusion-{self._store_id}-{self.name}",
            clean=True,  # The queue here is the session.
            will=(self._status_topic, status_payload("lost")),
            on_message=self._came,
            wake=self._wake,
        )

    def _came(self, topic: str, payload: bytes, _retained: bool) -> None:
        try:
            if topic == self._engine_topic:
                status = STATUS.validate_json(payload, strict=True)
                if status.state == "online":
                    self._engine = status.engine
                    self._wake.set()
            elif self._on_command is not None:
                self._on_command(COMMAND.validate_json(payload, strict=True))
        except ValidationError:
            return  # Not from an engine that we know.

    def _down(self, reason: str, _refused: bool) -> None:
        self.state = reason

    def _serve(self, connection: _Connection) -> None:
        on_way: dict[int, int] = {}
        engine: str | None = None
        until = -1  # Sending again up to here.
        begun = False
        while not connection.lost.is_set():
            if not begun or engine != self._engine:
                begun, engine = True, self._engine
                with self._lock:
                    self._next, until = self._first, self._end
                on_way.clear()
                connection.publish(self._status_topic, status_payload("resending", None, self.dropped), retain=True)
                self.state = "resending"
            self._acknowledge(connection, on_way)
            while len(on_way) < WINDOW and (due := self._due()) is not None:
                place, kept = due
                mid = connection.publish(kept.topic, kept.payload)
                if mid is None:
                    break
                on_way[mid] = place
            if self.state == "resending" and self._next >= until:
                connection.publish(self._status_topic, status_payload("online", engine, self.dropped), retain=True)
                self.state = "online"
            if self._closing.is_set():
                connection.part(self._topics, self._status_topic)
                return
            self._wake.wait(0.5)
            self._wake.clear()

    def _acknowledge(self, connection: _Connection, on_way: dict[int, int]) -> None:
        now_s = time.monotonic()
        with self._lock:
            while connection.acknowledged:
                kept = self._kept.get(on_way.pop(connection.acknowledged.popleft(), -1))
                if kept is not None:
                    kept.acknowledged = True
            while self._first < self._next:
                kept = self._kept[self._first]
                if not kept.acknowledged or now_s - kept.since_s < self._kept_s:
                    break
                del self._kept[self._first]
                self._first += 1
            if self._next == self._end and not on_way:
                self._idle.set()

    def _due(self) -> tuple[int, _Kept] | None:
        """The next message to be sent, and its place."""
        with self._lock:
            while self._next < self._end:
                place, kept = self._next, self._kept[self._next]
                self._next += 1
                late = time.monotonic() - kept.since_s > REQUEST_MAX_S
                if not kept.once or not (kept.acknowledged or late):
                    return place, kept
                kept.acknowledged = True
        return None


def _message_key(observation: Observation) -> tuple[object, ...]:
    if isinstance(observation, ShelfReading):
        return ShelfReading, observation.t_ns, len(observation.samples)
    return (type(observation),)


# ---- receiving -------------------------------------------------------------------------------------------------------


class Live:
    """What a store's sensors publish, as they come: iterate it as a recording's `observations()`.

    The iteration waits for messages and ends after `stop()`. Nothing is raised over what others publish: what cannot be
    used is counted and told.

    Attributes:
        ignored: what could not be used, by reason; what never arrived; what was dropped.
        publishers: by name what each is: online, resending (has come back, and catches up), lost (its connection broke,
            as the broker noticed), stopped, silent (did not come back after an outage).
        connected: whether there is a broker.
    """

    def __init__(
        self,
        broker: Broker | str,
        store: Store,
        *,
        decide: Callable[[GateRequest], Decision] | None = None,
        tell: Callable[[Warning], object] = lambda warning: None,
        client_id: str | None = None,
        queue_max: int = QUEUE_MAX,
    ) -> None:
        """Make a source; it connects when the iteration begins, now or whenever there is a broker.

        Args:
            broker: or its address, see `Broker.of`.
            store: whose sensors.
            decide: `GateKeeper.scan`: answers requests at gates, in a thread of its own. Without it gates stay shut.
            tell: told when a publisher or the broker is lost or back, and what is refused or missing: each reason the
                first time and at every tenfold. In the thread that iterates, at once, even when nothing else comes.
            client_id: under which the broker keeps what comes while this program is away; one engine for each.
            queue_max: messages between the network and the iteration; what does not fit is dropped and counted.
        """
        self._broker = Broker.of(broker) if isinstance(broker, str) else broker
        self._store, self._decide, self._tell = store, decide, tell
        self._client_id = client_id or f"fusion-{store.id}-engine"
        self._prefix = topic_of(store.id) + "/"
        self._engine_topic = topic_of(store.id, "engine")
        self._queue_max = queue_max
        self._decoder, self._gate_decoder = Decoder(store), Decoder(store)
        self._queue: queue.SimpleQueue[tuple[str, Any, Any, Any]] = queue.SimpleQueue()
        self._requests: queue.Queue[tuple[str, bytes, bool] | None] = queue.Queue(REQUESTS_MAX)
        self._n_dropped: Counter[str] = Counter()  # by kind of topic, in the network's thread
        self._n_dropped_told: Counter[str] = Counter()
        self._missing_told: Counter[tuple[str, ...]] = Counter()
        self._counts: Counter[str] = Counter()
        self.publishers: dict[str, str] = {}
        self.connected = False
        self._newest_ns = 0
        # The session is what publishers answer to after they have sent again; another one for each connection.
        self._session = self._expected = ""
        self._echoed = False  # Whether what the broker had gathered for us has come, in the network's thread.
        # From the loss of a connection until all have caught up: what has come, since when there is a connection, who
        # has yet to answer, whether what the broker had gathered is over.
        self._held: list[Observation] | None = []
        self._held_since_s = 0.0
        self._hold_min_s = 0.0
        self._awaited: set[str] = set()
        self._answering: set[str] = set()  # Publishers that tell when they have sent again; the others are not awaited.
        self._gathered = False
        self._lost_s: dict[str, float] = {}  # When publishers were lost.
        self._outage = False
        self._ever_connected = False
        self._connection: _Connection | None = None
        self._closing, self._wake = threading.Event(), threading.Event()
        self._connect()  # A missing package or a wrong file is told here, not in the thread.

    @property
    def ignored(self) -> Counter[str]:
        missing: Counter[str] = Counter()
        for decoder in (self._decoder, self._gate_decoder):
            for levels in decoder.topics():
                if n := decoder.missing(levels):
                    missing[f"mqtt: {levels[0]}: never arrived"] += n
        dropped = Counter({f"mqtt: {kind}: queue full": n for kind, n in list(self._n_dropped.items())})
        # A copy: the thread that iterates counts meanwhile.
        return Counter(dict(self._counts)) + missing + dropped

    @property
    def n_dropped(self) -> int:
        """Messages that found the queue full."""
        return sum(list(self._n_dropped.values()))

    @property
    def caught_up(self) -> bool:
        """Whether what comes is passed on at once; not while the broker is lost, nor until all are back after that."""
        return self._held is None

    def stop(self) -> None:
        """End the iteration after what has come so far. Safe in a signal's handler and from any thread."""
        self._closing.set()
        self._wake.set()

    def command(self, gate: str, request: int, t_ns: int, decision: Decision) -> bool:
        """Tell a gate what to do; False where there is no broker, so that it stays as it is."""
        answer = Command(
            v=1, time=t_ns, gate=gate, request=request, open=decision.open, reason=decision.reason,
            display=decision.display,
        )  # fmt: skip
        connection = self._connection
        topic = topic_of(self._store.id, "gates", gate, "command")
        return connection is not None and connection.publish(topic, answer.model_dump_json().encode()) is not None

    # ---- in the network's thread -------------------------------------------------------------------------------------

    def _connect(self) -> _Connection:
        self._session, self._echoed = secrets.token_hex(8), False
        return _Connection(
            self._broker,
            self._client_id,
            clean=False,
            will=(self._engine_topic, status_payload("lost")),
            on_message=self._came,
            wake=self._wake,
        )

    def _serve(self, connection: _Connection) -> None:
        self._connection = connection
        # Before the broker sends this back, it has sent all that it had gathered and all that is retained.
        self._queue.put(("up", self._session, None, None))
        connection.publish(self._engine_topic, status_payload("online", self._session), retain=True)
        while not connection.lost.is_set() and not self._closing.is_set():
            self._wake.wait(1.0)
            self._wake.clear()
            connection.acknowledged.clear()
        self._connection = None
        connection.part([self._prefix + "#"], self._engine_topic)

    def _down(self, reason: str, refused: bool) -> None:
        self._queue.put(("down", reason, refused, None))

    def _came(self, topic: str, payload: bytes, retained: bool) -> None:
        levels = tuple(unquote(level) for level in topic.removeprefix(self._prefix).split("/"))
        match levels:
            case ("gates", gate, "request"):
                try:
                    self._requests.put_nowait((gate, payload, self._echoed))
                except queue.Full:
                    self._n_dropped["requests"] += 1
                return
            case ("gates", _, "command"):
                return  # Our own.
            case ("engine",):
                if not retained and payload == status_payload("online", self._session):
                    self._echoed = True
        kind = levels[0] if levels[0] in _KINDS else "unknown topic"
        common = kind in ("detections", "weights", "unknown topic")
        if self._has_room(kind, -min(QUEUE_RESERVED, self._queue_max // 8) if common else 0):
            self._queue.put(("message", levels, payload, retained))

    def _has_room(self, kind: str, more: int) -> bool:
        """Whether one more fits between the network and the iteration; else it is counted."""
        if self._queue.qsize() < self._queue_max + more:
            return True
        self._n_dropped[kind] += 1
        return False

    # ---- in the gates' thread ----------------------------------------------------------------------------------------

    def _answer_requests(self) -> None:
        while (one := self._requests.get()) is not None:
            gate, payload, current = one
            try:
                request, number = self._gate_decoder.request(gate, payload)
            except Refused as refused:
                if self._has_room("requests", 0):
                    self._queue.put(("refused", ("gates", gate, "request"), refused, None))
                continue
            if not current:
                decision = Decision(False, "asked during an outage", "Please try again")
            elif self._decide is None:
                decision = Decision(False, "nobody decides here", "Please ask the staff")
            else:
                try:
                    decision = self._decide(request)
                except Exception as error:
                    # Its message may repeat the credential, its type does not.
                    decision = Decision(False, f"keeper failed: {type(error).__name__}", "Please ask the staff")
            if not self.command(gate, number, request.t_ns, decision):
                self._queue.put(("unanswered", gate, None, None))
            elif decision.scan is not None:
                self._queue.put(("scan", decision.scan, None, None))

    # ---- in the thread that iterates ---------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Observation]:
        """Observations as they come.

        Raises:
            FusionError: the broker refuses us, at the first attempt: a wrong name, password or right to read.
        """
        topics = [self._prefix + "#"]
        network = threading.Thread(
            target=_keep_connected,
            args=(self._connect, topics, self._serve, self._down, self._closing),
            name="mqtt live",
            daemon=True,
        )
        gates = threading.Thread(target=self._answer_requests, name="mqtt gates", daemon=True)
        network.start()
        gates.start()
        try:
            while True:
                try:
                    entry = self._queue.get(timeout=0.1)
                except queue.Empty:
                    if not network.is_alive():
                        if not self._closing.is_set():
                            raise FusionError("mqtt: the network's thread has ended, see the error above") from None
                        break
                    entry = None
                if entry is not None:
                    for observation in self._worked_off(*entry):
                        yield self._passed(observation)
                if self._held is not None and self._all_back():
                    yield from self._release()
            yield from self._release()
        finally:
            self._closing.set()
            self._wake.set()
            with contextlib.suppress(queue.Full):
                self._requests.put_nowait(None)
            network.join(10.0)

    def _passed(self, observation: Observation) -> Observation:
        self._newest_ns = max(self._newest_ns, observation.t_ns)
        return observation

    def _worked_off(self, what: str, a: Any, b: Any, c: Any) -> list[Observation]:
        """What there is to pass on after an entry of the queue."""
        match what:
            case "message":
                return self._hold(self._message(a, b, c))
            case "scan":
                return self._hold([a])
            case "refused":
                self._refuse(a, b)
            case "unanswered":
                self._count("mqtt: requests: no broker for the answer", a, "a gate's request could not be answered")
            case "up":
                self._up(a)
            case "down":
                if b and not self._ever_connected:
                    raise FusionError(a)
                if self.connected or not self._outage:
                    self._warn(WarningKind.BROKER_LOST, self._broker.host, detail=a)
                self.connected, self._gathered, self._outage = False, False, True
                # From now on: the next connection brings what was gathered before it says that it is there.
                self._held = [] if self._held is None else self._held
                self._await_those_there()
        return []

    def _message(self, levels: tuple[str, ...], payload: bytes, retained: bool) -> list[Observation]:
        match levels:
            case ("status", publisher):
                self._status_of(publisher, payload, retained)
            case ("engine",):
                self._engine_said(payload, retained)
            case _:
                try:
                    observations = self._decoder.observations(levels, payload)
                except Refused as refused:
                    self._refuse(levels, refused)
                    return []
                self._tell_missing(levels)
                if self._decoder.unknown_plates:
                    for plate in self._decoder.unknown_plates:
                        self._count("mqtt: weights: unknown plate", plate, f"plate {plate!r} is not in plates.csv")
                    self._decoder.unknown_plates.clear()
                return observations
        return []

    def _hold(self, observations: list[Observation]) -> list[Observation]:
        if self._held is None:
            return observations
        self._held += observations
        return []

    # ---- health ------------------------------------------------------------------------------------------------------

    def _up(self, session: str) -> None:
        if self._outage and self._ever_connected:
            self._warn(WarningKind.BROKER_BACK, self._broker.host)
        self._hold_min_s = SETTLE_S if self._outage else 0.0
        self._held_since_s = time.monotonic()
        self._gathered, self.connected, self._outage, self._ever_connected = False, True, False, True
        self._expected = session

    def _await_those_there(self) -> None:
        """Wait after an outage for those who were there before it; a broker that ends tells last wills first."""
        since_s = time.monotonic() - WILLS_S
        there = {name for name, state in self.publishers.items() if state in ("online", "resending")}
        there |= {name for name, lost_s in self._lost_s.items() if lost_s > since_s}
        self._awaited |= there & self._answering

    def _engine_said(self, payload: bytes, retained: bool) -> None:
        if payload == status_payload("online", self._expected):
            self._gathered = True
            return
        try:
            status = STATUS.validate_json(payload, strict=True)
        except ValidationError as error:
            self._refuse(("engine",), Refused("malformed", what(error)))
            return
        if not retained and status.state == "online" and self._gathered:
            self._count("mqtt: another engine", self._store.id, "another engine reads this store's streams")

    def _status_of(self, publisher: str, payload: bytes, retained: bool) -> None:
        if not payload:  # Somebody has cleared what was retained.
            self.publishers.pop(publisher, None)
            self._awaited.discard(publisher)
            self._lost_s.pop(publisher, None)
            return
        try:
            status = STATUS.validate_json(payload, strict=True)
        except ValidationError as error:
            self._refuse(("status", publisher), Refused("malformed", what(error)))
            return
        before = self.publishers.get(publisher)
        if before is None and len(self.publishers) >= NAMES_MAX:
            self._refuse(("status", publisher), Refused("too many sources", f"want at most {NAMES_MAX} publishers"))
            return
        if status.state in ("online", "resending") and "engine" in status.model_fields_set:
            self._answering.add(publisher)
        if publisher in self._awaited and (retained or not self._gathered) and status.engine != self._expected:
            return  # From before the outage.
        self.publishers[publisher] = status.state
        if status.state == "lost":
            self._lost_s[publisher] = time.monotonic()
        else:
            self._lost_s.pop(publisher, None)
        if status.state in ("lost", "stopped") or status.engine == self._expected:
            self._awaited.discard(publisher)
        elif retained and self._held is not None and publisher in self._answering:
            # It was there before we were, and answers to us once it has sent again what it keeps.
            self._awaited.add(publisher)
        if status.state == "lost" and before != "lost":
            self._warn(WarningKind.PUBLISHER_LOST, publisher)
        elif before in ("lost", "silent") and status.state in ("online", "resending"):
            self._warn(WarningKind.PUBLISHER_BACK, publisher)
        elif status.state == "stopped" and before not in (None, "stopped"):
            self._warn(WarningKind.PUBLISHER_STOPPED, publisher)
        if status.dropped and status.state == "online":
            self._warn(WarningKind.PUBLISHER_DROPPED, publisher, total=status.dropped)

    def _all_back(self) -> bool:
        if self._held is not None and len(self._held) >= self._queue_max:
            return True
        if not self.connected:
            return False
        held_s = time.monotonic() - self._held_since_s
        if held_s > CATCH_UP_MAX_S:
            for publisher in sorted(self._awaited):
                self.publishers[publisher] = "silent"
                self._warn(WarningKind.PUBLISHER_SILENT, publisher, seconds=CATCH_UP_MAX_S)
            return True
        return self._gathered and not self._awaited and held_s >= self._hold_min_s

    def _release(self) -> Iterator[Observation]:
        """Go on with what was held, in order of time."""
        held, self._held = self._held or [], None
        self._awaited = set()
        for levels in self._decoder.topics():
            self._tell_missing(levels)
        held.sort(key=lambda observation: observation.t_ns)
        for observation in held:
            yield self._passed(observation)

    def _tell_missing(self, levels: tuple[str, ...]) -> None:
        n = self._decoder.missing(levels)
        if n > self._missing_told[levels] and self._held is None:  # What is being sent again is not missing.
            if _tenfold(self._missing_told[levels], n):
                self._warn(WarningKind.MESSAGES_MISSING, "/".join(levels), total=n)
            self._missing_told[levels] = n
        for kind, dropped in list(self._n_dropped.items()):
            if dropped > self._n_dropped_told[kind]:
                if _tenfold(self._n_dropped_told[kind], dropped):
                    self._warn(WarningKind.MESSAGES_DROPPED, kind, total=dropped)
                self._n_dropped_told[kind] = dropped

    def _refuse(self, levels: tuple[str, ...], refused: Refused) -> None:
        kind = levels[0] if levels[0] in _KINDS else None
        if refused.reason == "sent again":
            self._counts["mqtt: sent again"] += 1  # As it should after an outage: nothing to tell.
            return
        reason = f"mqtt: {kind}: {refused.reason}" if kind else "mqtt: unknown topic"
        self._count(reason, "/".join(levels)[:100], str(refused)[:300])

    def _count(self, reason: str, subject: str, message: str) -> None:
        before = self._counts[reason]
        self._counts[reason] += 1
        if _tenfold(before, before + 1):
            detail = f"{reason.removeprefix('mqtt: ')}: {message}"
            self._warn(WarningKind.MESSAGE_REFUSED, subject, total=before + 1, detail=detail)

    def _warn(
        self,
        kind: WarningKind,
        subject: str,
        *,
        seconds: float | None = None,
        total: int | None = None,
        detail: str | None = None,
    ) -> None:
        self._tell(Warning(self._newest_ns, kind, subject, seconds=seconds, total=total, detail=detail))


_KINDS = ("detections", "weights", "gates", "items", "status", "engine")


def _tenfold(before: int, now: int) -> bool:
    """Whether a count has passed 1, 10, 100, ..."""
    return len(str(now)) > len(str(before)) or before == 0 < now
