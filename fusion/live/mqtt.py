"""Live streams over MQTT: what a store's sensors publish, as observations for the engine, and the gates' answers.

`Live` is a source of observations like a recording, `publisher.Publisher` is what a sensor's program uses, and
docs/mqtt.md gives the topics and bytes for programs in other languages. MQTT 3.1.1, everything at QoS 1. Extra `mqtt`.

Whatever was published reaches the engine although connections break, programs restart in any order, or the broker
dies, for three reasons. A publisher keeps what it sent for some seconds after the broker has acknowledged it, and sends
it again to every new connection and every new engine. Every message carries a number, so that duplicates are dropped
and losses are seen. And after an outage a live source holds what arrives until every publisher has caught up
(`catch_up`), then continues in time order.

Time is the data's. This module uses a clock only to wait.
"""

from __future__ import annotations

import queue
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import unquote

from pydantic import ValidationError

from fusion.errors import FusionError
from fusion.live.catch_up import CatchUp
from fusion.live.clock import SYSTEM_CLOCK, Clock
from fusion.live.connection import TIMING, Broker, Connection, Timing, keep_connected
from fusion.live.gate_responder import Decide, GateResponder
from fusion.live.messages import (
    MESSAGE_MAX_BYTES,
    NAMES_MAX,
    STATUS,
    Command,
    Decoder,
    Refused,
    faults_of,
    status_payload,
    topic_of,
)
from fusion.live.zone_terminal import Confirm, ZoneTerminals
from fusion.observations import GateScan, Observation
from fusion.results import Warning, WarningKind
from fusion.store.card_numbers import without_card_number
from fusion.store.models import Store

# Messages between the network and the engine: a minute of a large store. The last places are for gates and readers.
QUEUE_MAX, QUEUE_RESERVED = 32_768, 1024
# While it is held, the engine leaves the broker, which keeps its session, with this share of the queue full, and
# returns with that one.
LEAVE_SHARE, RETURN_SHARE = 0.75, 0.25
_KINDS = ("detections", "weights", "gates", "items", "zones", "status", "engine")

Levels = tuple[str, ...]


class _Message(NamedTuple):
    """A message, by the levels of its topic below the store's."""

    levels: Levels
    payload: bytes
    retained: bool


@dataclass(frozen=True, slots=True)
class _Scan:
    """A scan of a person who was admitted at a gate."""

    scan: GateScan


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A message that is counted and reported unread, or a gate's request that cannot be used."""

    levels: Levels
    refused: Refused


@dataclass(frozen=True, slots=True)
class _Unanswered:
    """A gate whose command could not be sent."""

    gate: str


@dataclass(frozen=True, slots=True)
class _Connected:
    """A connection was established; `session` is its own."""

    session: str


@dataclass(frozen=True, slots=True)
class _Disconnected:
    """A connection was lost or could not be made; `refused` where the broker refuses the engine."""

    reason: str
    refused: bool


_Entry = _Message | _Scan | _Refusal | _Unanswered | _Connected | _Disconnected


def _refused_unread(levels: Levels, payload: bytes, retained: bool) -> Refused | None:
    """Why a message is not even put into the queue; None where it is.

    A broker gives retained messages to each new engine: a retained scan would let its person in at every start, and
    when it was sent is not known. Only states are meant to be retained.
    """
    if retained and payload and levels[0] not in ("status", "engine"):
        return Refused("retained", "want data without the retain flag; delete the topic's retained message")
    if len(payload) > MESSAGE_MAX_BYTES:
        return Refused("too long", f"want at most {MESSAGE_MAX_BYTES} bytes, got {len(payload)}")
    return None


class _Tally:
    """Counts by key; a count is to be reported the first time and at every tenfold."""

    def __init__(self) -> None:
        self.counts: Counter[object] = Counter()

    def reach(self, key: object, n: int) -> bool:
        """Set a count to at least `n`. Returns whether it passed 1, 10, 100, ..."""
        before = self.counts[key]
        if n <= before:
            return False
        self.counts[key] = n
        return before == 0 or len(str(n)) > len(str(before))


class Live:
    """What a store's sensors publish, as it arrives: iterate it like a recording's `observations()`.

    The iteration waits for messages and ends after `stop()`. Nothing that others publish raises an error: messages that
    cannot be used are counted and reported as warnings.
    """

    def __init__(
        self,
        broker: Broker | str,
        store: Store,
        *,
        decide: Decide | None = None,
        confirm: Confirm | None = None,
        warn: Callable[[Warning], object] = lambda warning: None,
        client_id: str | None = None,
        queue_max: int = QUEUE_MAX,
        timing: Timing = TIMING,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Make a source; it connects when the iteration begins, as soon as there is a broker.

        Args:
            broker: the broker, or its address, see `Broker.of`.
            store: whose sensors.
            decide: `GateKeeper.scan`: decides requests at gates, in threads of their own. Without it the ways in stay
                closed, and so do doors that open after payment.
            confirm: `Till.confirm`: answers the terminals of payment zones from memory; without it none is confirmed.
            warn: called when a publisher or the broker is lost or back, and for what is refused or missing: each reason
                the first time and at every tenfold. In the thread that iterates, at once, even if nothing else arrives.
            client_id: under which the broker keeps messages while this program is away; one engine for each.
            queue_max: messages between the network and the iteration; those that do not fit are dropped and counted.
            timing: waits around an outage.
            clock: waits.

        Raises:
            ConfigError: the address or the certificates cannot be used.
            FusionError: the extra `mqtt` is missing.
        """
        self._broker = Broker.of(broker) if isinstance(broker, str) else broker
        self._store, self._warn_caller, self._timing, self._clock = store, warn, timing, clock
        self._client_id = client_id or f"fusion-{store.id}-engine"
        self._prefix = topic_of(store.id) + "/"
        self._engine_topic = topic_of(store.id, "engine")
        self._queue_max = queue_max
        self._queue: queue.SimpleQueue[_Entry] = queue.SimpleQueue()
        self._catch_up = CatchUp(self._warn, queue_max, timing=timing, clock=clock)
        self._decoder = Decoder(store)
        self._responder = GateResponder(
            store, decide, send=self.command, admitted=lambda scan: self._queue.put(_Scan(scan)),
            refused=self._refuse_request, unanswered=lambda gate: self._queue.put(_Unanswered(gate)),
        )  # fmt: skip
        self._terminals = ZoneTerminals(store, confirm)
        self._newest_ns = 0
        self._counts: Counter[str] = Counter()  # what could not be used, by reason
        self._n_dropped: Counter[str] = Counter()  # by kind of topic, in the network's thread
        self._reported = _Tally()
        # In the network's thread: the session of the connection, and whether the broker has returned it.
        self._session, self._echoed = "", False
        self._connection: Connection | None = None
        self._held = self._left = self._refuses = False
        self._closing, self._wake = threading.Event(), threading.Event()
        self._connect()  # A missing package or a wrong file is reported here, not in the thread.

    @property
    def ignored(self) -> Counter[str]:
        """What could not be used, never arrived, or was dropped, by reason."""
        missing: Counter[str] = Counter()
        for decoder in (self._decoder, self._responder.decoder):
            for levels in decoder.topics():
                if n := decoder.missing(levels):
                    missing[f"mqtt: {levels[0]}: never arrived"] += n
        dropped = Counter({f"mqtt: {kind}: queue full": n for kind, n in list(self._n_dropped.items())})
        # A copy, since the thread that iterates keeps counting.
        return Counter(dict(self._counts)) + missing + dropped

    @property
    def n_dropped(self) -> int:
        """Messages that found the queue full."""
        return sum(list(self._n_dropped.values()))

    @property
    def publishers(self) -> dict[str, str]:
        """State of each publisher by name.

        `online`, `resending` (it is back and catches up), `lost` (its connection broke, as the broker noticed),
        `stopped`, or `silent` (it did not return after an outage).
        """
        return self._catch_up.states

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the broker."""
        return self._catch_up.connected

    @property
    def caught_up(self) -> bool:
        """Whether observations are passed on at once: not without a broker, nor until all are back after an outage."""
        return self._catch_up.caught_up

    @property
    def session(self) -> str:
        """Session of the current connection, which publishers report once they have sent again."""
        return self._session

    def stop(self) -> None:
        """End the iteration after what has arrived so far. Safe in a signal's handler and from any thread."""
        self._closing.set()
        self._wake.set()

    def hold(self, held: bool) -> None:
        """What arrives is taken late, and nothing may be lost: where the queue fills up, the broker keeps the rest.

        From any thread; `held` is False once what arrives is taken at once, and the queue drops what does not fit.
        """
        self._held = held

    def command(self, command: Command) -> bool:
        """Send a gate its command; False where there is no broker, so that the gate stays as it is."""
        return self._publish(command.payload(), "gates", command.gate, "command")

    def show(self, zone: str, payload: bytes) -> bool:
        """Send a payment zone's terminal what it is to show; False where there is no broker. From any thread."""
        return self._publish(payload, "zones", zone, "baskets")

    def _publish(self, payload: bytes, *levels: str) -> bool:
        connection = self._connection
        return connection is not None and connection.publish(topic_of(self._store.id, *levels), payload) is not None

    # ---- in the network's thread -------------------------------------------------------------------------------------

    def _is_full(self) -> bool:
        return self._held and (self._refuses or self._queue.qsize() > LEAVE_SHARE * self._queue_max)

    def _connect(self) -> Connection:
        while self._left and self._queue.qsize() > RETURN_SHARE * self._queue_max:
            if self._clock.wait(self._closing, 0.1):
                break
        self._left = self._refuses = False
        self._session, self._echoed = secrets.token_hex(8), False
        return Connection(
            self._broker,
            self._client_id,
            clean=False,
            will=(self._engine_topic, status_payload("lost")),
            on_message=self._received,
            wake=self._wake,
        )

    def _serve(self, connection: Connection) -> None:
        self._connection = connection
        self._queue.put(_Connected(self._session))
        # By the time the broker returns this message, it has sent everything that it had gathered and retained.
        connection.publish(self._engine_topic, status_payload("online", self._session), retain=True)
        while not connection.lost.is_set() and not self._closing.is_set() and not self._is_full():
            self._clock.wait(self._wake, 1.0)
            self._wake.clear()
            connection.acknowledged.clear()
        self._connection = None
        if not connection.lost.is_set() and not self._closing.is_set():
            connection.reason = "left, since the engine waits; the broker keeps what arrives"
            self._left = True
            return
        connection.part(self._engine_topic)

    def _disconnected(self, reason: str, refused: bool) -> None:
        self._queue.put(_Disconnected(reason, refused))

    def _received(self, topic: str, payload: bytes, retained: bool) -> bool:
        """Take a message. Returns False where the broker has to keep it."""
        levels = tuple(unquote(level) for level in topic.removeprefix(self._prefix).split("/"))
        if refused := _refused_unread(levels, payload, retained):
            # Counted and reported; nothing of it is kept, and no gate is asked for it.
            if self._has_room("refused", QUEUE_RESERVED):
                self._queue.put(_Refusal(levels, refused))
            return True
        match levels:
            case ("gates", gate, "request"):
                if not self._responder.put(gate, payload, self._echoed):
                    self._n_dropped["requests"] += 1
                return True
            case ("zones", zone, "confirm"):
                self._answer_terminal(zone, payload)
                return True
            case ("gates", _, "command") | ("zones", _, "baskets" | "answer"):
                return True  # The engine's own.
            case ("engine",):
                if not retained and payload == status_payload("online", self._session):
                    self._echoed = True
        kind = levels[0] if levels[0] in _KINDS else "unknown topic"
        common = kind in ("detections", "weights", "unknown topic")
        n_reserved = min(QUEUE_RESERVED, self._queue_max // 8) if common else 0
        if self._held and (self._refuses or self._queue.qsize() >= self._queue_max - n_reserved):
            self._refuses = True  # Whatever follows, too, so that it comes in order.
            self._wake.set()
            return False
        if self._has_room(kind, n_reserved):
            self._queue.put(_Message(levels, payload, retained))
        if self._is_full():
            self._wake.set()
        return True

    def _has_room(self, kind: str, n_reserved: int) -> bool:
        """Whether a message fits into the queue and leaves some places free; it is counted as dropped otherwise."""
        if self._queue.qsize() < self._queue_max - n_reserved:
            return True
        self._n_dropped[kind] += 1
        return False

    def _answer_terminal(self, zone: str, payload: bytes) -> None:
        try:
            answer = self._terminals.answer(zone, payload)
        except Refused as refused:
            if self._has_room("zones", 0):
                self._queue.put(_Refusal(("zones", zone, "confirm"), refused))
            return
        self._publish(answer.payload, "zones", answer.zone, "answer")

    def _refuse_request(self, gate: str, refused: Refused) -> None:
        """In the responder's thread."""
        if self._has_room("requests", 0):
            self._queue.put(_Refusal(("gates", gate, "request"), refused))

    # ---- in the thread that iterates ---------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Observation]:
        """Observations as they arrive.

        Raises:
            FusionError: the broker refuses the engine at the first attempt: a wrong name, password or right to read.
        """
        network = threading.Thread(
            target=keep_connected,
            args=(self._connect, [self._prefix + "#"], self._serve, self._disconnected, self._closing),
            kwargs={"timing": self._timing, "clock": self._clock},
            name="mqtt live",
            daemon=True,
        )
        network.start()
        try:
            while True:
                entry = self._clock.next_item(self._queue, 0.1)
                if entry is not None:
                    yield from self._passed(self._work_off(entry))
                elif not network.is_alive():
                    if self._closing.is_set():
                        break
                    raise FusionError("mqtt: the network's thread has ended, see the error above")
                if self._catch_up.complete():
                    yield from self._release()
            yield from self._release()
        finally:
            self._closing.set()
            self._wake.set()
            self._responder.stop()
            network.join(10.0)

    def _passed(self, observations: list[Observation]) -> Iterator[Observation]:
        for observation in observations:
            self._newest_ns = max(self._newest_ns, observation.t_ns)
            yield observation

    def _release(self) -> Iterator[Observation]:
        """Pass on what was held during an outage, in time order."""
        held = self._catch_up.release()
        for levels in self._decoder.topics():
            self._report_losses(levels)
        yield from self._passed(held)

    def _work_off(self, entry: _Entry) -> list[Observation]:
        """Handle an entry of the queue. Returns what to pass on now."""
        match entry:
            case _Message():
                return self._catch_up.hold(self._decode(entry))
            case _Scan(scan):
                return self._catch_up.hold([scan])
            case _Refusal(levels, refused):
                self._refuse(levels, refused)
            case _Unanswered(gate):
                self._count("mqtt: requests: no broker for the answer", gate, "a gate's request could not be answered")
            case _Connected(session):
                if self._catch_up.outage and self._catch_up.ever_connected:
                    self._warn(WarningKind.BROKER_BACK, self._broker.host)
                self._catch_up.connect(session)
            case _Disconnected(reason, refused_by_broker):
                if refused_by_broker and not self._catch_up.ever_connected:
                    raise FusionError(reason)
                if self._catch_up.connected or not self._catch_up.outage:
                    self._warn(WarningKind.BROKER_LOST, self._broker.host, detail=reason)
                self._catch_up.disconnect()
        return []

    def _decode(self, message: _Message) -> list[Observation]:
        levels, payload, retained = message
        match levels:
            case ("status", publisher):
                self._take_status(publisher, payload, retained)
                return []
            case ("engine",):
                self._take_engine_status(payload, retained)
                return []
        try:
            observations = self._decoder.observations(levels, payload)
        except Refused as refused:
            self._refuse(levels, refused)
            return []
        self._report_losses(levels)
        for plate in self._decoder.take_unknown_plates():
            self._count("mqtt: weights: unknown plate", plate, f"plate {plate!r} is not in plates.csv")
        return observations

    # ---- statuses ----------------------------------------------------------------------------------------------------

    def _take_engine_status(self, payload: bytes, retained: bool) -> None:
        if payload == status_payload("online", self._catch_up.session):
            self._catch_up.gathered = True
            return
        try:
            status = STATUS.validate_json(payload, strict=True)
        except ValidationError as error:
            self._refuse(("engine",), Refused("malformed", faults_of(error)))
            return
        if not retained and status.state == "online" and self._catch_up.gathered:
            self._count("mqtt: another engine", self._store.id, "another engine reads this store's streams")

    def _take_status(self, publisher: str, payload: bytes, retained: bool) -> None:
        if not payload:  # The retained status was deleted.
            self._catch_up.forget(publisher)
            return
        levels = ("status", publisher)
        try:
            status = STATUS.validate_json(payload, strict=True)
        except ValidationError as error:
            self._refuse(levels, Refused("malformed", faults_of(error)))
            return
        if not self._catch_up.knows(publisher) and self._catch_up.n_publishers >= NAMES_MAX:
            self._refuse(levels, Refused("too many sources", f"want at most {NAMES_MAX} publishers"))
            return
        self._catch_up.update(publisher, status, retained=retained)

    # ---- reports -----------------------------------------------------------------------------------------------------

    def _report_losses(self, levels: Levels) -> None:
        """Report missing numbers of a topic and drops, the first time and at every tenfold."""
        n = self._decoder.missing(levels)
        # Messages that are being sent again are not missing.
        if self._catch_up.caught_up and self._reported.reach(levels, n):
            self._warn(WarningKind.MESSAGES_MISSING, "/".join(levels), total=n)
        for kind, n_dropped in list(self._n_dropped.items()):
            if self._reported.reach(kind, n_dropped):
                self._warn(WarningKind.MESSAGES_DROPPED, kind, total=n_dropped)

    def _refuse(self, levels: Levels, refused: Refused) -> None:
        if refused.reason == "sent again":
            self._counts["mqtt: sent again"] += 1  # This is the normal course after an outage.
            return
        reason = f"mqtt: {levels[0]}: {refused.reason}" if levels[0] in _KINDS else "mqtt: unknown topic"
        self._count(reason, "/".join(levels)[:100], str(refused)[:300])

    def _count(self, reason: str, subject: str, message: str) -> None:
        self._counts[reason] += 1
        n = self._counts[reason]
        if self._reported.reach(("refused", reason), n):
            detail = f"{reason.removeprefix('mqtt: ')}: {message}"
            self._warn(WarningKind.MESSAGE_REFUSED, subject, total=n, detail=detail)

    def _warn(self, kind: WarningKind, subject: str, **fields: Any) -> None:
        # Topics, names and reasons come from outside.
        if "detail" in fields:
            fields["detail"] = without_card_number(fields["detail"])
        self._warn_caller(Warning(self._newest_ns, kind, without_card_number(subject), **fields))
