"""ESPHome's event stream, from a web server of the tests' own."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.feeds.event_stream import EventStreamLine, events
from fusion.feeds.feed import Inbox, LineLost, Message
from fusion.feeds.scales import ScaleFeed
from fusion.live.clock import SYSTEM_CLOCK
from fusion.live.connection import Timing
from fusion.simulation import demo_store

STORE = demo_store(n_cameras=1, n_plates=2).model_copy(update={"weight_rate_hz": 10.0})
PLATE = STORE.plates[0].plate
PATIENCE_S = 30.0


def state(name: str, value: float | None) -> bytes:
    data = {"id": name, "value": value, "state": f"{value} g"}
    return f"event: state\ndata: {json.dumps(data)}\n\n".encode()


@pytest.fixture
def device() -> Iterator[Callable[..., str]]:
    servers: list[ThreadingHTTPServer] = []

    def start(body: bytes, status: int = 200, chunked: bool = False, authorization: str | None = None) -> str:
        stopping = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                right = authorization is None or self.headers["Authorization"] == authorization
                self.send_response(status if right and self.path == "/events" else 401)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Connection", "close")))
                self.end_headers()
                for part in body.splitlines(keepends=True):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
                self.wfile.flush()
                stopping.wait(PATIENCE_S)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.stopping = stopping  # type: ignore[attr-defined]
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/events"

    yield start
    for server in servers:
        server.stopping.set()  # type: ignore[attr-defined]
        server.shutdown()
        server.server_close()


def line(url: str, **options: Any) -> tuple[EventStreamLine, Inbox, ScaleFeed]:
    feed = ScaleFeed("scale", PLATE, STORE, unit_g=1.0, unit_topic=None, key="value", rate_hz=None)
    inbox = Inbox(SYSTEM_CLOCK)
    quick = Timing(backoff_min_s=0.01, backoff_max_s=0.05)
    return EventStreamLine(url, {"sensor-tray": feed}, inbox, SYSTEM_CLOCK, timing=quick, **options), inbox, feed


def wait_for(holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < until_s, "it did not happen"
        time.sleep(0.005)


@pytest.mark.parametrize("chunked", [False, True])
def test_the_values_of_a_sensor_arrive(device: Callable[..., str], chunked: bool) -> None:
    body = b'retry: 30000\nid: 1\nevent: ping\ndata: {"title":"shelf"}\n\n' + state("sensor-tray", 1.0)
    body += state("other", 3.0) + state("sensor-tray", 12.5) + b": a comment\n"
    body += state("sensor-tray", None) + state("sensor-tray", 13.0)
    opened, inbox, feed = line(device(body, chunked=chunked))
    opened.start()
    found: list[Message] = []
    while len(found) < 3:
        entry = inbox.next(PATIENCE_S)
        assert entry is not None
        found += [entry[1]] if isinstance(entry[1], Message) else []
    began_s = time.monotonic()
    opened.close()
    assert time.monotonic() - began_s < 5.0, "it does not wait for the next event"
    assert [json.loads(message.payload)["value"] for message in found] == [12.5, None, 13.0]
    assert feed.health.refused == {"state of before the connection": 1}
    assert not feed.observations(found[0])


@pytest.mark.parametrize(
    ("options", "wanted"), [({"status": 404}, "answered 404"), ({"authorization": "Basic eDp5"}, "answered 401")]
)
def test_what_a_device_refuses_is_the_state(device: Callable[..., str], options: dict[str, Any], wanted: str) -> None:
    opened, _, feed = line(device(b"", **options))
    opened.start()
    wait_for(lambda: wanted in feed.health.state)
    opened.close()


def test_a_device_with_a_password(device: Callable[..., str]) -> None:
    opened, _, feed = line(device(b"", authorization="Basic eDp5"), user="x", password="y")
    opened.start()
    wait_for(lambda: feed.health.connections == 1)
    opened.close()


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_events_or_none(data: bytes) -> None:
    assert all(isinstance(kind, str) and text for kind, text in events(io.BytesIO(data)) if text)


@pytest.mark.parametrize(
    "data",
    [b"data: " + b"x" * 100_000, b"data: " + b"\ndata: ".join([b"x" * 1000] * 100), b"data\n" * 20_000],
    ids=["a long line", "long data", "empty data"],
)
def test_events_without_end_are_refused(data: bytes) -> None:
    with pytest.raises(LineLost, match="without end"):
        list(events(io.BytesIO(data)))
