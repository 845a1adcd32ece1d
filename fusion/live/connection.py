"""A broker's address, and connections to it. MQTT 3.1.1 at QoS 1; extra `mqtt`."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import ssl
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from fusion.errors import ConfigError, extra
from fusion.files.secrets import secret_of
from fusion.live.clock import SYSTEM_CLOCK, Clock
from fusion.live.messages import status_payload

# The broker notices a dead peer after one and a half of these.
KEEPALIVE_S = 5
# The broker has this long to answer a connection or a subscription, and this long for a farewell.
ANSWER_MAX_S, FAREWELL_MAX_S = 5.0, 2.0
# Before a socket is closed, the broker has this long between two packets, and may send this many times 64 KiB.
DRAIN_MAX_S, DRAINED_MAX = 0.5, 64


@dataclass(frozen=True, slots=True)
class Timing:
    """Waits around an outage of the broker.

    Attributes:
        backoff_min_s, backoff_max_s: pauses between attempts to connect double from one to the other; each is shortened
            at random by up to half.
        held_s: after a connection that lasted this long, the next pause is short again.
        settle_s: after an outage everybody may need the longest pause to reconnect, and publishers a second to send
            what they kept.
        catch_up_max_s: a publisher that has not caught up by then is not waited for.
        wills_s: a broker that shuts down publishes every last will, some of them before the engine notices; publishers
            lost this shortly before an outage are waited for as well.
    """

    backoff_min_s: float = 0.25
    backoff_max_s: float = 2.0
    held_s: float = 5.0
    settle_s: float = 3.0
    catch_up_max_s: float = 15.0
    wills_s: float = 5.0


TIMING = Timing()


@dataclass(frozen=True, slots=True)
class Broker:
    """Address of a broker and credentials for it.

    Attributes:
        host, port: its address.
        tls: whether the connection is encrypted and the broker's certificate checked.
        username, password: credentials, if it asks for any.
        ca: file of the certificate authorities to trust; None for those of the system.
    """

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: Path | None = None

    @classmethod
    def of(cls, address: str, password: str | None = None, ca: str | Path | None = None) -> Broker:
        """From `HOST`, `HOST:PORT`, `mqtt://[USER@]HOST[:PORT]` or `mqtts://...` (TLS; its default port is 8883).

        Raises:
            ConfigError: the address is none of these, or contains a password, which a list of processes would show.
        """
        wanted = "pass HOST:PORT, mqtt://USER@HOST:PORT or mqtts://USER@HOST:PORT"
        try:
            url = urlsplit(address if "://" in address else f"mqtt://{address}")
            host, port = url.hostname, url.port
        except ValueError:
            raise ConfigError(f"the broker's address cannot be read; {wanted}") from None
        if url.password is not None:
            raise ConfigError("broker: want no password in the address; pass it separately")
        if url.scheme not in ("mqtt", "mqtts") or not host or port == 0 or url.path.strip("/") or url.query:
            raise ConfigError(f"{address!r} is not a broker's address; {wanted}")
        if ca is not None and not Path(ca).is_file():
            raise ConfigError(f"{ca} does not exist; pass a file of certificate authorities in PEM")
        tls = url.scheme == "mqtts"
        username = None if url.username is None else unquote(url.username)
        return cls(host, port or (8883 if tls else 1883), tls, username, password, None if ca is None else Path(ca))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def broker_password(path: Path | None) -> str | None:
    """A broker's password, from a private file or else from FUSION_MQTT_PASSWORD; None without either.

    Raises:
        ConfigError: the file cannot be read, or other users can read it.
    """
    if path is None:
        return os.environ.get("FUSION_MQTT_PASSWORD")
    return secret_of(file=path, what="the broker's password")


class NoConnection(Exception):
    """The broker cannot be reached, or refuses the client.

    Attributes:
        refused: whether it was reached and refuses.
    """

    def __init__(self, reason: str, refused: bool = False) -> None:
        self.refused = refused
        super().__init__(reason)


class Connection:
    """One connection to a broker from its opening to its loss; the next one is another object, so no state lingers.

    Attributes:
        lost: set when the connection is over.
        reason: why it was lost.
        acknowledged: identifiers of messages that the broker has acknowledged.
    """

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        *,
        clean: bool,
        will: tuple[str, bytes],
        on_message: Callable[[str, bytes, bool], bool | None],
        wake: threading.Event,
    ) -> None:
        """Prepare a connection.

        Args:
            broker: where to connect.
            client_id: name of the client's session in the broker.
            clean: whether that session ends with the connection.
            will: topic and payload that the broker publishes if the connection breaks; retained.
            on_message: called with topic, payload and whether it was retained, in the network's thread. If it returns
                False, the message is not acknowledged: the broker sends it again to the session's next connection.
            wake: set when a message is acknowledged and when the connection is lost.

        Raises:
            ConfigError: the certificates cannot be read.
            FusionError: the extra `mqtt` is missing.
        """
        with extra("mqtt"):
            from paho.mqtt.client import Client
            from paho.mqtt.enums import CallbackAPIVersion
        self.broker = broker
        self.lost = threading.Event()
        self.reason = "connection lost"
        # Appended to without a lock: paho holds locks of its own while it calls us, and while we call it.
        self.acknowledged: deque[int] = deque()
        self._wake, self._on_message = wake, on_message
        self._answered, self._subscribed = threading.Event(), threading.Event()
        self._refusal: str | None = None
        self._subscribe_failed = False
        client = Client(
            CallbackAPIVersion.VERSION2, client_id, clean_session=clean, reconnect_on_failure=False, manual_ack=True
        )  # fmt: skip
        client.max_inflight_messages_set(0)  # Publishers have a window of their own.
        client.max_queued_messages_set(0)
        client.will_set(*will, qos=1, retain=True)
        if broker.username is not None:
            client.username_pw_set(broker.username, broker.password)
        if broker.tls:
            try:
                client.tls_set_context(ssl.create_default_context(cafile=broker.ca))
            except OSError as error:
                raise ConfigError(f"{broker.ca}: want certificates as PEM, got: {error}") from None
        client.on_connect, client.on_disconnect = self._connected, self._disconnected
        client.on_subscribe, client.on_publish = self._did_subscribe, self._published
        client.on_message, client.on_socket_close = self._received, self._drain
        self._client = client

    def open(self, topics: Sequence[str]) -> None:
        """Connect and subscribe to topics. Raises NoConnection."""
        broker = self.broker
        try:
            self._client.connect(broker.host, broker.port, KEEPALIVE_S)
        except (OSError, ValueError) as error:
            raise NoConnection(f"{broker}: {error or type(error).__name__}") from None
        self._client.loop_start()
        if not self._answered.wait(ANSWER_MAX_S):
            raise NoConnection(f"{broker}: no answer within {ANSWER_MAX_S:g} s")
        if self._refusal is not None:
            raise NoConnection(f"{broker}: refused: {self._refusal}", refused=True)
        if self.lost.is_set():
            raise NoConnection(f"{broker}: {self.reason}")
        if topics:
            self._client.subscribe([(topic, 1) for topic in topics])
            if not self._subscribed.wait(ANSWER_MAX_S) or self.lost.is_set():
                raise NoConnection(f"{broker}: {self.reason}")
            if self._subscribe_failed:
                raise NoConnection(f"{broker}: may not subscribe to {', '.join(topics)}", refused=True)

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> int | None:
        """Send a message. Returns its identifier, to appear in `acknowledged`; None where nothing is connected."""
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        return info.mid if info.rc == 0 else None

    def part(self, status_topic: str) -> None:
        """Prepare to close: publish `stopped`, and wait until the broker has it.

        A session that does not end with its connection keeps its topics: the broker gathers for the next process.
        """
        if self.lost.is_set():
            return
        with contextlib.suppress(RuntimeError, ValueError):  # Not connected any more.
            message = self._client.publish(status_topic, status_payload("stopped"), qos=1, retain=True)
            message.wait_for_publish(FAREWELL_MAX_S)

    def close(self) -> None:
        """Disconnect; the broker then does not publish the last will."""
        self._client.disconnect()
        self._client.loop_stop()

    # ---- called by paho, in the network's thread ---------------------------------------------------------------------

    def _connected(self, _client: object, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        self._refusal = str(reason) if reason.is_failure else None
        self._answered.set()

    def _disconnected(self, _client: object, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        # In this version of the protocol a broker does not give its reason.
        self.reason = "connection lost" if str(reason) == "Unspecified error" else str(reason)
        self.lost.set()
        self._answered.set()
        self._subscribed.set()
        self._wake.set()

    def _did_subscribe(self, _client: object, _data: object, _mid: int, reasons: Any, _properties: object) -> None:
        self._subscribe_failed = any(reason.is_failure for reason in reasons)
        self._subscribed.set()

    def _drain(self, _client: object, _data: object, sock: Any) -> None:
        """Read what still arrives, unacknowledged, before the socket is closed.

        Closed with unread bytes, it would be reset, the broker might not read the farewell, and would publish the last
        will.
        """
        with contextlib.suppress(OSError):
            sock.settimeout(DRAIN_MAX_S)
            sock.shutdown(socket.SHUT_WR)
            for _ in range(DRAINED_MAX):
                if not sock.recv(1 << 16):
                    break

    def _published(self, _client: object, _data: object, mid: int, _reason: object, _properties: object) -> None:
        self.acknowledged.append(mid)
        self._wake.set()

    def _received(self, client: Any, _data: object, message: Any) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        try:
            if self._on_message(topic, message.payload, message.retain) is False:
                return
        except Exception:
            # A mistake of the caller: reported as in any thread, but the network thread must continue.
            sys.excepthook(*sys.exc_info())
        client.ack(message.mid, message.qos)


def keep_connected(
    connect: Callable[[], Connection],
    topics: Sequence[str],
    serve: Callable[[Connection], None],
    disconnected: Callable[[str, bool], None],
    closing: threading.Event,
    *,
    timing: Timing = TIMING,
    clock: Clock = SYSTEM_CLOCK,
) -> None:
    """Connect, serve until the connection is lost, and connect again after a pause, until closing.

    Args:
        connect: makes a connection.
        topics: to subscribe to.
        serve: called with the open connection; returns when that is lost or `closing` is set.
        disconnected: called with the reason, and whether the broker refused.
        closing: ends this.
        timing: pauses between attempts.
        clock: waits.
    """
    pause_s = timing.backoff_min_s
    while not closing.is_set():
        connection = connect()
        refused = False
        try:
            connection.open(topics)
            opened_s = clock.monotonic_s()
            serve(connection)
            reason = f"{connection.broker}: {connection.reason}"
            if clock.monotonic_s() - opened_s > timing.held_s:
                pause_s = timing.backoff_min_s
        except NoConnection as error:
            reason, refused = str(error), error.refused
        finally:
            connection.close()
        if closing.is_set():
            return
        disconnected(reason, refused)
        clock.wait(closing, pause_s * random.uniform(0.5, 1.0))
        pause_s = min(2 * pause_s, timing.backoff_max_s)
