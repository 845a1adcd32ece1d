"""Scales on an ESPHome device without a broker: the event stream of its web server, one connection for all of them.

Source: ESPHome, "Web Server API" (/events, events `state` with {"id", "value", "state"}); HTML Living Standard,
section 9.2.6 (how an event stream is parsed).
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import IO
from urllib.parse import urlsplit

from fusion.feeds.feed import Feed, Inbox, Line, LineLost
from fusion.live.clock import Clock
from fusion.live.connection import TIMING, Timing

CONNECT_MAX_S = 5.0
# The device sends a ping every ten seconds or more often.
SILENT_MAX_S = 35.0
# Where the data of a state have its value.
EVENT_KEY = "value"
LINE_MAX_BYTES, EVENT_MAX_BYTES = 8192, 1 << 16


def events(stream: IO[bytes]) -> Iterator[tuple[str, str]]:
    """Type and data of each event of a stream, until it ends. Raises LineLost where a line or an event has no end."""
    kind, data, n_bytes = "", list[str](), 0
    while line := stream.readline(LINE_MAX_BYTES):
        if len(line) >= LINE_MAX_BYTES:
            raise LineLost("the device sends a line without end")
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if not text:
            if data:
                yield kind or "message", "\n".join(data)
            kind, data, n_bytes = "", [], 0
            continue
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
            n_bytes += len(line)  # Also that of an empty value: any number of them may come.
            if n_bytes > EVENT_MAX_BYTES:
                raise LineLost("the device sends an event without end")


class EventStreamLine(Line):
    """The event stream of one device."""

    def __init__(
        self, url: str, feeds: Mapping[str, Feed], inbox: Inbox, clock: Clock,
        *, user: str | None = None, password: str | None = None, timing: Timing = TIMING,
    ) -> None:  # fmt: skip
        """Prepare the connection.

        Args:
            url: http://HOST/events, or https://.
            feeds: by the id of the device's sensor, such as sensor-tray_1.
            inbox: takes the data of their events.
            clock: waits.
            user: name for basic authentication; None where the device asks for none.
            password: of the user.
            timing: pauses between connections.
        """
        super().__init__([*feeds.values()], inbox, clock, timing)
        self._url, self._by_id = urlsplit(url), dict(feeds)
        self._headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if user is not None:
            plain = f"{user}:{password or ''}".encode()
            self._headers["Authorization"] = "Basic " + base64.b64encode(plain).decode()
        self._socket: socket.socket | None = None

    def close(self) -> None:
        """See `Line`."""
        self._closing.set()
        opened = self._socket
        if opened is not None:
            # What waits for the next line wakes up.
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
        super().close()

    def _serve(self) -> None:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=CONNECT_MAX_S, context=ssl.create_default_context()
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=CONNECT_MAX_S)
        try:
            connection.connect()
            self._socket = connection.sock
            connection.sock.settimeout(SILENT_MAX_S)
            connection.request("GET", self._url.path or "/events", headers=self._headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise LineLost(f"{host} answered {answer.status} {answer.reason[:60]}")
            self._deliver(answer)
        except TimeoutError:
            raise LineLost(f"{host} was silent for {SILENT_MAX_S:g} s") from None
        except (http.client.HTTPException, ValueError) as error:
            raise LineLost(f"{host} does not speak HTTP ({type(error).__name__})") from None
        finally:
            self._socket = None
            connection.close()
        raise LineLost(f"{host} ended the stream")

    def _deliver(self, answer: http.client.HTTPResponse) -> None:
        for feed in self._feeds:
            self._inbox.begin(feed)
        heard: set[str] = set()
        for kind, data in events(answer):
            if self._closing.is_set():
                return
            if kind != "state":
                continue
            try:
                found = json.loads(data)
            except (ValueError, RecursionError):
                continue  # Other kinds of entities may send anything.
            name = found.get("id") if isinstance(found, dict) else None
            if not isinstance(name, str) or name not in self._by_id:
                continue
            # A device begins with the last states of all its sensors, of any age.
            if name in heard:
                self._inbox.put(self._by_id[name], data.encode())
            else:
                heard.add(name)
                self._by_id[name].health.count("state of before the connection")
