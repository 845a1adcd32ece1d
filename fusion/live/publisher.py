"""What a sensor's program in Python uses to publish its observations over MQTT."""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from pydantic import ValidationError

from fusion.errors import ShapeError
from fusion.gates.verifiers import GateRequest
from fusion.live.clock import SYSTEM_CLOCK, Clock
from fusion.live.connection import TIMING, Broker, Connection, Timing, keep_connected
from fusion.live.messages import (
    COMMAND,
    MESSAGE_MAX_BYTES,
    STATUS,
    Command,
    Mark,
    frame_payload,
    line_payload,
    request_payload,
    status_payload,
    topic_of,
    weights_payload,
)
from fusion.observations import DoorState, Frame, GateScan, ItemSighting, Observation, ShelfReading

# Messages in a publisher's queue, as many as in the engine's; seconds that acknowledged ones stay in it.
KEPT_MAX, KEPT_S = 32_768, 10.0
# Messages on their way to the broker that it has not acknowledged.
WINDOW = 256
# After this long the person who asked at a gate has gone, or asks again.
REQUEST_MAX_S = 5.0


@dataclass(slots=True)
class _Message:
    """A message in the queue; `once` forbids sending it again after it was acknowledged."""

    topic: str
    payload: bytes
    since_s: float
    once: bool
    acknowledged: bool = False


class _Queue:
    """Messages in the order of publishing: sent ones that may have to be sent again, then those still to be sent.

    Places count from the first message on; `_first` to `_end` are in the queue, those before `_next` were sent.
    """

    def __init__(self, kept_max: int, kept_s: float, clock: Clock) -> None:
        self._kept_max, self._kept_s, self._clock = kept_max, kept_s, clock
        self._messages: dict[int, _Message] = {}
        self._first = self._next = self._end = 0
        self._lock = threading.Lock()
        self.idle = threading.Event()  # set while everything is acknowledged
        self.idle.set()
        self.n_dropped = 0

    def add(self, message: _Message) -> None:
        with self._lock:
            self._messages[self._end] = message
            self._end += 1
            if len(self._messages) > self._kept_max:
                self.n_dropped += not self._messages.pop(self._first).acknowledged
                self._first += 1
                self._next = max(self._next, self._first)
            self.idle.clear()

    def rewind(self) -> int:
        """Send everything in the queue again. Returns the place where that ends."""
        with self._lock:
            self._next = self._first
            return self._end

    def sent_until(self, place: int) -> bool:
        """Whether everything before a place was sent."""
        return self._next >= place

    def next_due(self) -> tuple[int, _Message] | None:
        """The next message to send, and its place."""
        with self._lock:
            while self._next < self._end:
                place, message = self._next, self._messages[self._next]
                self._next += 1
                late = self._clock.monotonic_s() - message.since_s > REQUEST_MAX_S
                if not message.once or not (message.acknowledged or late):
                    return place, message
                message.acknowledged = True
        return None

    def acknowledge(self, connection: Connection, in_flight: dict[int, int]) -> None:
        """Mark what the broker has acknowledged, and drop what was acknowledged and is old enough."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            while connection.acknowledged:
                message = self._messages.get(in_flight.pop(connection.acknowledged.popleft(), -1))
                if message is not None:
                    message.acknowledged = True
            while self._first < self._next:
                message = self._messages[self._first]
                if not message.acknowledged or now_s - message.since_s < self._kept_s:
                    break
                del self._messages[self._first]
                self._first += 1
            if self._next == self._end and not in_flight:
                self.idle.set()


class Publisher:
    """Publishes the observations of some of a store's sensors. Never waits for the network; safe in several threads.

    Messages wait in a queue of fixed length while there is no broker; when it is full, the oldest is dropped and
    counted. Messages that the broker has acknowledged are kept for some seconds and sent again after an outage, since
    the broker may have lost them; a receiver that has them already drops them by their number.

        with Publisher("broker:1883", store.id, "cameras") as publisher:
            publisher.publish(frame)

    Attributes:
        name: of this publisher.
        state: "connecting", "resending", "online", or why there is no connection.
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
        timing: Timing = TIMING,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Start to publish; connects in the background as soon as there is a broker.

        Args:
            broker: the broker, or its address, see `Broker.of`.
            store_id: id of the store in store.toml.
            name: of this publisher, unique in the store; its status is published under it.
            on_command: called with the engine's commands to gates, in another thread.
            kept_max: messages in the queue.
            kept_s: seconds that acknowledged messages stay in it.
            timing: pauses between attempts to connect.
            clock: measures ages and waits.

        Raises:
            ConfigError: the address or the certificates cannot be used.
            FusionError: the extra `mqtt` is missing.
        """
        self.name, self.state = name, "connecting"
        self._broker = Broker.of(broker) if isinstance(broker, str) else broker
        self._store_id, self._on_command, self._clock = store_id, on_command, clock
        self._status_topic, self._engine_topic = topic_of(store_id, "status", name), topic_of(store_id, "engine")
        self._queue = _Queue(kept_max, kept_s, clock)
        self._run = secrets.randbits(32)
        self._numbers: Counter[str] = Counter()
        self._numbers_lock = threading.Lock()
        self._engine: str | None = None
        self._closing, self._wake = threading.Event(), threading.Event()
        self._topics = [self._engine_topic]
        if on_command is not None:
            self._topics.append("/".join([topic_of(store_id, "gates"), "+", "command"]))
        self._connection()  # A missing package or a wrong file is reported here, not in the thread.
        self._thread = threading.Thread(
            target=keep_connected,
            args=(self._connection, self._topics, self._serve, self._disconnected, self._closing),
            kwargs={"timing": timing, "clock": clock},
            name=f"mqtt {name}",
            daemon=True,
        )
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Messages that never reached the broker because the queue was full."""
        return self._queue.n_dropped

    @property
    def engine(self) -> str | None:
        """Session of the engine that reads this store; None until one was heard of."""
        return self._engine

    def publish(self, *observations: Observation) -> None:
        """Publish observations in the order given.

        Neighbouring readings that were sampled together, with the same time and number of samples, form one message.

        Raises:
            ShapeError: arrays that cannot be encoded.
        """
        for _, alike in groupby(observations, _message_key):
            group = list(alike)
            readings = [reading for reading in group if isinstance(reading, ShelfReading)]
            if readings:
                self._send(("weights", self.name), partial(weights_payload, readings))
                continue
            for observation in group:
                match observation:
                    case Frame():
                        self._send(("detections", observation.camera), partial(frame_payload, observation))
                    case GateScan():
                        self._send(("gates", observation.gate, "scan"), partial(line_payload, observation))
                    case DoorState():
                        self._send(("gates", observation.gate, "door"), partial(line_payload, observation))
                    case ItemSighting():
                        self._send(("items", observation.source), partial(line_payload, observation))

    def ask(self, request: GateRequest) -> int:
        """Ask whether a person may pass a gate. Returns the number that the answering `Command` carries."""
        return self._send(("gates", request.gate, "request"), partial(request_payload, request), once=True)

    def _send(self, levels: tuple[str, ...], payload: Callable[[Mark], bytes], once: bool = False) -> int:
        topic = topic_of(self._store_id, *levels)
        with self._numbers_lock:
            number = self._numbers[topic] & 0xFFFFFFFF
            content = payload(Mark(self._run, number))
            if len(content) > MESSAGE_MAX_BYTES:
                # The broker would drop it, and no engine reads it.
                raise ShapeError(f"{topic}: want at most {MESSAGE_MAX_BYTES} bytes, got {len(content)}")
            message = _Message(topic, content, self._clock.monotonic_s(), once)
            self._numbers[topic] += 1
            self._queue.add(message)
        self._wake.set()
        return number

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until the broker has acknowledged everything; False if it has not within this time."""
        return self._clock.wait(self._queue.idle, timeout_s)

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

    def _connection(self) -> Connection:
        return Connection(
            self._broker,
            f"fusion-{self._store_id}-{self.name}",
            clean=True,  # The queue here is the session.
            will=(self._status_topic, status_payload("lost")),
            on_message=self._received,
            wake=self._wake,
        )

    def _received(self, topic: str, payload: bytes, _retained: bool) -> None:
        try:
            if topic == self._engine_topic:
                status = STATUS.validate_json(payload, strict=True)
                if status.state == "online":
                    self._engine = status.engine
                    self._wake.set()
            elif self._on_command is not None:
                self._on_command(COMMAND.validate_json(payload, strict=True))
        except ValidationError:
            return  # Not from an engine of this version.

    def _disconnected(self, reason: str, _refused: bool) -> None:
        self.state = reason

    def _serve(self, connection: Connection) -> None:
        """Send everything in the queue again on a new connection and for a new engine, then whatever is published."""
        in_flight: dict[int, int] = {}  # place in the queue by the message's identifier
        engine, resend_until = self._engine, self._start_resending(connection)
        while not connection.lost.is_set():
            if engine != self._engine:
                in_flight.clear()
                engine, resend_until = self._engine, self._start_resending(connection)
            self._queue.acknowledge(connection, in_flight)
            while len(in_flight) < WINDOW and (due := self._queue.next_due()) is not None:
                place, message = due
                mid = connection.publish(message.topic, message.payload)
                if mid is None:
                    break
                in_flight[mid] = place
            if self.state == "resending" and self._queue.sent_until(resend_until):
                connection.publish(self._status_topic, status_payload("online", engine, self.dropped), retain=True)
                self.state = "online"
            if self._closing.is_set():
                connection.part(self._status_topic)
                return
            self._clock.wait(self._wake, 0.5)
            self._wake.clear()

    def _start_resending(self, connection: Connection) -> int:
        """Rewind the queue and announce it. Returns the place in the queue where resending ends."""
        until = self._queue.rewind()
        connection.publish(self._status_topic, status_payload("resending", None, self.dropped), retain=True)
        self.state = "resending"
        return until


def _message_key(observation: Observation) -> tuple[object, ...]:
    if isinstance(observation, ShelfReading):
        return ShelfReading, observation.t_ns, len(observation.samples)
    return (type(observation),)
