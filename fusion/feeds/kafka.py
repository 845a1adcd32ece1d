"""Messages of a Kafka topic; extra `kafka`.

Only what comes from the connection on is read: what lay in the topic before is too old for an engine, and nothing is
committed, so that no other consumer is disturbed. librdkafka connects again by itself; while it has no broker, the feed
shows the reason.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from fusion.errors import extra, in_short
from fusion.feeds.feed import Feed, Inbox, Line, LineLost
from fusion.live.clock import Clock
from fusion.live.connection import TIMING, Timing
from fusion.live.messages import MESSAGE_MAX_BYTES

POLL_S = 0.5
# Messages that librdkafka holds for us, besides those in the inbox.
HELD_MAX_KIB = 16_384


def consumer_settings(
    servers: str, user: str | None = None, password: str | None = None, *, tls: bool = False, ca: str | None = None
) -> dict[str, Any]:
    """Settings of a consumer in librdkafka's names.

    Args:
        servers: HOST:PORT, several with commas.
        user: name for SASL; None where the brokers ask for none.
        password: of the user.
        tls: whether connections are encrypted.
        ca: file of the certificate authorities to trust; None for those of the system.
    """
    protocol = ("SASL_" if user is not None else "") + ("SSL" if tls else "PLAINTEXT")
    settings: dict[str, Any] = {
        "bootstrap.servers": servers, "group.id": f"fusion-feed-{secrets.token_hex(6)}", "auto.offset.reset": "latest",
        "enable.auto.commit": False, "security.protocol": protocol, "fetch.message.max.bytes": MESSAGE_MAX_BYTES,
        "queued.max.messages.kbytes": HELD_MAX_KIB, "log_level": 0,
    }  # fmt: skip
    if user is not None:
        settings |= {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": user, "sasl.password": password or ""}
    return settings | ({"ssl.ca.location": ca} if ca is not None else {})


class KafkaLine(Line):
    """One topic of a Kafka cluster."""

    def __init__(
        self, feed: Feed, topic: str, settings: Mapping[str, Any], inbox: Inbox, clock: Clock,
        timing: Timing = TIMING, consumer: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:  # fmt: skip
        """Prepare the connection.

        Args:
            feed: of the topic.
            topic: its name.
            settings: see `consumer_settings`.
            inbox: takes the messages.
            clock: waits.
            timing: pauses between consumers.
            consumer: makes one; that of confluent-kafka by default.

        Raises:
            FusionError: the extra `kafka` is missing.
        """
        super().__init__([feed], inbox, clock, timing)
        if consumer is None:
            with extra("kafka"):
                from confluent_kafka import Consumer
            consumer = Consumer
        self._feed, self._topic, self._settings, self._consumer = feed, topic, dict(settings), consumer

    def _serve(self) -> None:
        consumer = self._consumer(self._settings)
        try:
            # The name of a topic that begins with ^ would be a pattern.
            consumer.subscribe([self._topic], on_assign=self._assigned)
            while not self._closing.is_set():
                message = consumer.poll(POLL_S)
                if message is None:
                    continue
                error = message.error()
                if error is None:
                    self._take(message.value())
                elif error.fatal() or not error.retriable():
                    self._feed.health.state = str(error.str())[:200]
                    if error.fatal():
                        raise LineLost(error.str())
        finally:
            try:
                consumer.close()
            except RuntimeError as error:
                # It was closed by a fatal error.
                self._feed.health.state = in_short(error)

    def _assigned(self, _consumer: object, _partitions: object) -> None:
        self._inbox.begin(self._feed)

    def _take(self, value: bytes | None) -> None:
        if value is None:
            self._feed.health.count("empty message")
        elif len(value) > MESSAGE_MAX_BYTES:
            self._feed.health.count("too long")
        else:
            if self._feed.health.state != "online":
                self._feed.health.state = "online"  # A broker is back, and so are its messages.
            self._inbox.put(self._feed, value)
