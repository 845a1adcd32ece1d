"""Messages of a foreign MQTT broker, for the feeds that named their topics."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from typing import NamedTuple

from fusion.feeds.feed import Feed, Inbox
from fusion.live.clock import Clock
from fusion.live.connection import TIMING, Broker, Connection, Timing, keep_connected
from fusion.live.messages import MESSAGE_MAX_BYTES, Refused


class Subscription(NamedTuple):
    """Topics of a feed, with the wildcards + and #.

    Attributes:
        retained: those of them whose retained message counts: the last one of before the connection, of any age.
    """

    feed: Feed
    topics: tuple[str, ...]
    retained: tuple[str, ...] = ()


def topic_matches(topic: str, wanted: str) -> bool:
    """Whether a topic is one of those that a filter names. Source: MQTT 3.1.1, section 4.7."""
    levels, patterns = topic.split("/"), wanted.split("/")
    if levels[0].startswith("$") and patterns[0] in ("+", "#"):
        return False
    for place, pattern in enumerate(patterns):
        if pattern == "#":
            return True
        if place >= len(levels) or pattern not in ("+", levels[place]):
            return False
    return len(levels) == len(patterns)


class BrokerLine:
    """One connection to a foreign broker, opened again after each loss."""

    def __init__(
        self, broker: Broker, subscriptions: Sequence[Subscription], inbox: Inbox, clock: Clock, timing: Timing = TIMING
    ) -> None:
        """Prepare the connection. Raises ConfigError, or FusionError without the extra `mqtt`."""
        self._broker, self._subscriptions, self._inbox = broker, tuple(subscriptions), inbox
        self._client_id = f"fusion-feed-{secrets.token_hex(6)}"
        self._closing, self._wake, self._clock = threading.Event(), threading.Event(), clock
        self._open: Connection | None = None
        self._connect()  # A missing package or a wrong file is reported here, not in the thread.
        topics = sorted({topic for subscription in subscriptions for topic in subscription.topics})
        self._thread = threading.Thread(
            target=keep_connected,
            args=(self._connect, topics, self._serve, self._lost, self._closing),
            kwargs={"timing": timing, "clock": clock},
            name=f"feeds of {broker}",
            daemon=True,
        )

    def start(self) -> None:
        """Connect in the background."""
        self._thread.start()

    def close(self) -> None:
        """End the connection."""
        self._closing.set()
        self._wake.set()
        self._thread.join(5.0)

    def send(self, topic: str, payload: bytes) -> None:
        """Publish, in any thread; dropped while there is no connection, since whoever asks will ask again."""
        connection = self._open
        if connection is not None:
            connection.publish(topic, payload)

    def _connect(self) -> Connection:
        return Connection(
            self._broker, self._client_id, clean=True, will=(f"fusion-feed/{self._client_id}", b""),
            on_message=self._received, wake=self._wake,
        )  # fmt: skip

    def _serve(self, connection: Connection) -> None:
        self._open = connection
        for subscription in self._subscriptions:
            self._inbox.begin(subscription.feed)
        while not connection.lost.is_set() and not self._closing.is_set():
            self._clock.wait(self._wake, 1.0)
            self._wake.clear()
            connection.acknowledged.clear()
        self._open = None

    def _lost(self, reason: str, _refused: bool) -> None:
        for subscription in self._subscriptions:
            subscription.feed.health.state = reason[:200]

    def _received(self, topic: str, payload: bytes, retained: bool) -> None:
        """In the network's thread."""
        for subscription in self._subscriptions:
            if not any(topic_matches(topic, wanted) for wanted in subscription.topics):
                continue
            if len(payload) > MESSAGE_MAX_BYTES:
                refused = Refused("too long", f"want at most {MESSAGE_MAX_BYTES} bytes, got {len(payload)}")
                subscription.feed.health.refuse(refused)
            elif retained and topic not in subscription.retained:
                subscription.feed.health.count("retained")
            else:
                self._inbox.put(subscription.feed, payload, topic)
