"""What all feeds share: messages as they arrive, what makes observations of them, and connections that come back."""

from __future__ import annotations

import queue
import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fusion.errors import in_short
from fusion.feeds.health import Health
from fusion.live.clock import Clock
from fusion.live.connection import TIMING, Timing
from fusion.observations import Observation

# Messages and their bytes between the connections and the conversion: some seconds of the largest store. No feed may
# fill more than a share of it, so that one which has gone mad costs the others nothing.
INBOX_MAX, INBOX_BYTES_MAX = 8192, 64 << 20
SHARE_MAX = 0.25


class Message(NamedTuple):
    """A message of a feed.

    Attributes:
        topic: of MQTT; empty for other transports.
        payload: its bytes.
        arrived_ns: when it came, UTC ns of this machine.
        sent_ns: when it was sent, UTC ns by the transport's own reports; None where it makes none.
    """

    topic: str
    payload: bytes
    arrived_ns: int
    sent_ns: int | None = None


class Feed(ABC):
    """One stream of another maker: makes observations of its messages, in one thread.

    Attributes:
        health: its state; connections change it from their threads.
    """

    def __init__(self, name: str) -> None:
        self.health = Health(name)

    @abstractmethod
    def observations(self, message: Message) -> Sequence[Observation]:
        """What a message reports. Raises Refused where it cannot be used, and nothing else."""

    def began(self, arrived_ns: int) -> Sequence[Observation]:
        """A connection was opened: what came before it may be missing something. Returns what was held."""
        return ()

    def quiet(self, now_ns: int) -> Sequence[Observation]:
        """Called some times a second: what the format states by silence, or was held for the rest of a message."""
        return ()


@dataclass(frozen=True, slots=True)
class Began:
    """A feed's connection was opened."""

    arrived_ns: int


class Inbox:
    """What has arrived, of all feeds, in a queue of fixed length."""

    def __init__(self, clock: Clock, length_max: int = INBOX_MAX, bytes_max: int = INBOX_BYTES_MAX) -> None:
        self._clock = clock
        self._queue: queue.SimpleQueue[tuple[Feed, Message | Began]] = queue.SimpleQueue()
        self._length_max, self._bytes_max = round(SHARE_MAX * length_max), round(SHARE_MAX * bytes_max)
        # Of each feed, what waits: messages and bytes.
        self._waiting: dict[Feed, list[int]] = {}
        self._lock = threading.Lock()

    def put(self, feed: Feed, payload: bytes, topic: str = "", sent_ns: int | None = None) -> None:
        """Take a message, in any thread; counted and dropped where the feed's share of the queue is full."""
        with self._lock:
            waiting = self._waiting.setdefault(feed, [0, 0])
            full = waiting[0] >= self._length_max or waiting[1] + len(payload) > self._bytes_max
            if not full:
                waiting[0], waiting[1] = waiting[0] + 1, waiting[1] + len(payload)
        if full:
            feed.health.count("queue full")
            return
        self._queue.put((feed, Message(topic, payload, self._clock.wall_ns(), sent_ns)))

    def begin(self, feed: Feed) -> None:
        """Note that a feed's connection was opened, in any thread."""
        feed.health.opened()
        self._queue.put((feed, Began(self._clock.wall_ns())))

    def next(self, timeout_s: float) -> tuple[Feed, Message | Began] | None:
        """The oldest entry; None where none comes in time."""
        entry = self._clock.next_item(self._queue, timeout_s)
        if entry is not None and isinstance(entry[1], Message):
            with self._lock:
                waiting = self._waiting[entry[0]]
                waiting[0], waiting[1] = waiting[0] - 1, waiting[1] - len(entry[1].payload)
        return entry


class LineLost(Exception):
    """A connection could not be opened or has ended; the text is the reason, without secrets."""


class Line(ABC):
    """A connection in a thread of its own, opened again after each loss with growing pauses, until it is closed."""

    def __init__(self, feeds: Sequence[Feed], inbox: Inbox, clock: Clock, timing: Timing = TIMING) -> None:
        self._feeds, self._inbox, self._clock, self._timing = feeds, inbox, clock, timing
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"feed {feeds[0].health.name}", daemon=True)

    def start(self) -> None:
        """Connect in the background."""
        self._thread.start()

    def close(self) -> None:
        """End the connection."""
        self._closing.set()
        self._thread.join(5.0)

    @abstractmethod
    def _serve(self) -> None:
        """Connect, deliver until the connection is lost or `_closing` is set. Raises LineLost or OSError."""

    def _run(self) -> None:
        pause_s = self._timing.backoff_min_s
        while not self._closing.is_set():
            started_s = self._clock.monotonic_s()
            try:
                self._serve()
                reason = "connection closed"
            except (LineLost, OSError) as error:
                reason = str(error) or type(error).__name__
            except Exception as error:
                # A mistake of ours, not of the stream's: shown, and the other feeds continue.
                reason = in_short(error)
            for feed in self._feeds:
                feed.health.state = reason[:200]
            if self._clock.monotonic_s() - started_s > self._timing.held_s:
                pause_s = self._timing.backoff_min_s
            self._clock.wait(self._closing, pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2.0 * pause_s, self._timing.backoff_max_s)

