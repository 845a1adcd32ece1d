"""A Kafka topic as a feed, against the mock cluster that librdkafka brings and a consumer of the tests' own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from fusion.feeds.feed import Feed, Inbox, Message
from fusion.feeds.kafka import KafkaLine, consumer_settings
from fusion.live.clock import SYSTEM_CLOCK
from fusion.live.connection import Timing
from fusion.live.messages import MESSAGE_MAX_BYTES
from fusion.observations import Observation

PATIENCE_S = 60.0
QUICK = Timing(backoff_min_s=0.01, backoff_max_s=0.05)


class Quiet(Feed):
    """A feed of which the messages count."""

    def observations(self, message: Message) -> Sequence[Observation]:
        return ()


class Error:
    """An error as confluent-kafka gives one."""

    def __init__(self, text: str, *, fatal: bool) -> None:
        self._text, self._fatal = text, fatal

    def str(self) -> str:
        return self._text

    def fatal(self) -> bool:
        return self._fatal

    def retriable(self) -> bool:
        return False


class Record:
    """A message as confluent-kafka gives one."""

    def __init__(self, value: bytes | None = None, error: Error | None = None) -> None:
        self.value, self.error = lambda: value, lambda: error


class Consumer:
    """Gives what was prepared, and then nothing more."""

    def __init__(self, records: list[Record]) -> None:
        self._records = records
        self.closed = False

    def subscribe(self, topics: list[str], on_assign: Callable[..., None]) -> None:
        assert topics == ["people"]
        on_assign(self, [])

    def poll(self, _timeout_s: float) -> Record | None:
        if not self._records:
            time.sleep(0.001)
            return None
        return self._records.pop(0)

    def close(self) -> None:
        self.closed = True


def payloads(inbox: Inbox, n: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < n:
        entry = inbox.next(PATIENCE_S)
        assert entry is not None, "nothing came"
        if isinstance(entry[1], Message):
            found.append(entry[1].payload)
    return found


def wait_for(holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < until_s, "it did not happen"
        time.sleep(0.005)


def test_messages_and_what_is_none() -> None:
    feed, inbox = Quiet("people"), Inbox(SYSTEM_CLOCK)
    records = [
        Record(b"a"), Record(error=Error("all brokers are down", fatal=False)), Record(),
        Record(bytes(MESSAGE_MAX_BYTES + 1)), Record(b"b"),
    ]  # fmt: skip
    line = KafkaLine(feed, "people", {}, inbox, SYSTEM_CLOCK, QUICK, consumer=lambda _: Consumer(records))
    line.start()
    assert payloads(inbox, 2) == [b"a", b"b"]
    line.close()
    assert feed.health.refused == {"empty message": 1, "too long": 1}


def test_a_broker_that_is_down_is_the_state_until_messages_come() -> None:
    feed, inbox = Quiet("people"), Inbox(SYSTEM_CLOCK)
    records = [Record(error=Error("all brokers are down", fatal=False))]
    line = KafkaLine(feed, "people", {}, inbox, SYSTEM_CLOCK, QUICK, consumer=lambda _: Consumer(records))
    line.start()
    wait_for(lambda: feed.health.state == "all brokers are down")
    records.append(Record(b"a"))
    assert payloads(inbox, 1) == [b"a"] and feed.health.state == "online"
    line.close()


def test_a_fatal_error_makes_another_consumer() -> None:
    feed, inbox, made = Quiet("people"), Inbox(SYSTEM_CLOCK), list[Consumer]()

    def consumer(_: dict[str, Any]) -> Consumer:
        made.append(Consumer([Record(error=Error("fenced", fatal=True))] if not made else [Record(b"a")]))
        return made[-1]

    line = KafkaLine(feed, "people", {}, inbox, SYSTEM_CLOCK, QUICK, consumer=consumer)
    line.start()
    assert payloads(inbox, 1) == [b"a"]
    line.close()
    assert len(made) >= 2 and made[0].closed


def test_credentials_need_a_protocol() -> None:
    assert consumer_settings("h:1")["security.protocol"] == "PLAINTEXT"
    settings = consumer_settings("h:1", "user", "secret", tls=True, ca="/ca.pem")
    assert settings["security.protocol"] == "SASL_SSL" and settings["sasl.password"] == "secret"
    assert settings["enable.auto.commit"] is False, "no other consumer is disturbed"


def test_a_cluster_of_librdkafka() -> None:
    kafka = pytest.importorskip("confluent_kafka", reason="pip install 'storefusion[kafka]'")
    producer = kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock", "log_level": 0})
    (broker,) = producer.list_topics(timeout=PATIENCE_S).brokers.values()
    producer.produce("people", b"of before")
    producer.flush(PATIENCE_S)
    feed, inbox = Quiet("people"), Inbox(SYSTEM_CLOCK)
    settings = {**consumer_settings(f"{broker.host}:{broker.port}"), "fetch.wait.max.ms": 20}
    line = KafkaLine(feed, "people", settings, inbox, SYSTEM_CLOCK, QUICK)
    line.start()
    wait_for(lambda: feed.health.connections == 1)
    found: list[bytes] = []
    until_s = time.monotonic() + PATIENCE_S
    while not found and time.monotonic() < until_s:  # The consumer begins at the end that it finds.
        producer.produce("people", b"now")
        producer.flush(PATIENCE_S)
        entry = inbox.next(0.1)
        found += [entry[1].payload] if entry is not None and isinstance(entry[1], Message) else []
    line.close()
    assert found == [b"now"]
