"""A payment provider behind HTTP on this machine, as `HttpProvider` speaks to it, as hostile as a test wants it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fusion.money.providers import HttpProvider, InProcessProvider, PaymentError
from fusion.money.providers.exchange import Exchange
from fusion.money.providers.pauses import Pauses

# Between two bytes of an answer that drips.
DRIP_S = 0.004


class LocalServer:
    """An HTTP server in a thread of this process."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


class Handler(BaseHTTPRequestHandler):
    """What both servers of these tests share."""

    protocol_version = "HTTP/1.1"

    def respond(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response_only(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def drip(self, body: bytes) -> None:
        """Answer one byte at a time."""
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with contextlib.suppress(OSError):
            for i, byte in enumerate(head + body):
                self.wfile.write(bytes((byte,)))
                self.wfile.flush()
                if i >= len(head):
                    time.sleep(DRIP_S)
        self.close_connection = True

    def handle(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the client has left
            super().handle()

    def log_message(self, *_: Any) -> None:
        pass


class Server(LocalServer):
    """A provider. Each request takes one of `faults`: "500", "drop before", "drop after", "slow", "drip", ..."""

    def __init__(self, book: InProcessProvider | None = None) -> None:
        self.book = book or InProcessProvider()
        self.faults: list[str] = []
        self.headers: dict[str, str] = {}
        self.seen: list[tuple[str, str, str]] = []
        self.may_answer = threading.Event()
        self.has_look_up = True
        outer = self

        class ProviderHandler(Handler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                step = self.path.rsplit("/", 1)[1]
                if step == "look_up":
                    return self.look_up(body)
                key = json.loads(self.headers["Idempotency-Key"])
                outer.seen.append((self.path, key, self.headers["Authorization"]))
                fault = outer.faults.pop(0) if outer.faults else ""
                if fault == "drop before":
                    return self.drop()
                if fault.isdecimal():
                    return self.respond(int(fault), b"{}", outer.headers)
                try:
                    answer = getattr(outer.book, step)(key, **body)
                except PaymentError as error:
                    return self.respond(422, str(error).encode())
                if fault == "drop after":
                    return self.drop()
                if fault == "slow":
                    outer.may_answer.wait(60)  # longer than the client waits
                fields = {"approved": answer.approved, "reference": answer.reference, "reason": answer.reason}
                if answer.amount is not None:
                    fields["amount"] = answer.amount
                text = json.dumps(fields).encode()
                if fault == "drip":
                    return self.drip(text)
                text = {
                    "nonsense": b"<html>",
                    "half": b'{"approved": true}',
                    "deep": b"[" * 90_000,
                    "list": b"[1]",
                    "large": b" " * 200_000 + text,
                }.get(fault, text)
                return self.respond((201 if fault == "created" else 200) if answer.approved else 402, text)

            def look_up(self, body: dict[str, str]) -> None:
                if not outer.has_look_up:
                    return self.respond(404, b"")
                answer = outer.book.look_up(body["step"], body["key"], body["of"])  # type: ignore[arg-type]
                fields: dict[str, Any] = {"found": answer is not None}
                if answer is not None:
                    fields |= {"approved": answer.approved, "reference": answer.reference, "reason": answer.reason}
                return self.respond(200, json.dumps(fields).encode())

            def drop(self) -> None:
                self.close_connection = True

        super().__init__(ProviderHandler)
        self.url += "/v1"

    def close(self) -> None:
        self.may_answer.set()
        super().close()


class BothSides(HttpProvider):
    """Asks over HTTP without pauses, and shows the server's accounts for comparison."""

    def __init__(self, server: Server, deadline_s: float = 60.0, **options: Any) -> None:
        options.setdefault("pauses", Pauses(0.0))
        super().__init__(Exchange(server.url, deadline_s=deadline_s, **options), "s3cret")
        self._server = server

    total = property(lambda self: self._server.book.total)
    held = property(lambda self: self._server.book.held)
    n_captures = property(lambda self: self._server.book.n_captures)


@contextlib.contextmanager
def running(server: LocalServer) -> Iterator[Any]:
    """A server until the end of a block."""
    try:
        yield server
    finally:
        server.close()
