"""A payment provider over HTTP: whatever happens to requests and answers, no visit is charged twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import Place
from money.books import STORE, T_NS, TWO
from money.checkouts import LATER_NS, Shop, priced

from fusion.money.providers import Answer, HttpProvider, InProcessProvider, PaymentError, UnknownOutcome


class Server:
    """A payment provider on this machine. Each request takes one of `faults`: "500", "drop before", "slow", ..."""

    def __init__(self) -> None:
        self.book = InProcessProvider()
        self.faults: list[str] = []
        self.seen: list[tuple[str, str, str]] = []
        self.may_answer = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                key = json.loads(self.headers["Idempotency-Key"])
                outer.seen.append((self.path, key, self.headers["Authorization"]))
                fault = outer.faults.pop(0) if outer.faults else ""
                if fault == "drop before":
                    return self.drop()
                if fault.isdecimal():
                    return self.respond(int(fault), b"{}")
                try:
                    answer = getattr(outer.book, self.path.rsplit("/", 1)[1])(key, **body)
                except PaymentError as error:
                    return self.respond(422, str(error).encode())
                if fault == "drop after":
                    return self.drop()
                if fault == "slow":
                    outer.may_answer.wait(60)  # longer than the client waits
                fields = {"approved": answer.approved, "reference": answer.reference, "reason": answer.reason}
                text = {"nonsense": b"<html>", "half": b'{"approved": true}'}.get(fault, json.dumps(fields).encode())
                return self.respond(200 if answer.approved else 402, text)

            def drop(self) -> None:
                self.close_connection = True

            def respond(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.may_answer.set()
    running.http.shutdown()
    running.http.server_close()


class BothSides(HttpProvider):
    """Asks over HTTP, and shows the server's accounts for comparison."""

    def __init__(self, server: Server, **options: Any) -> None:
        super().__init__(server.url, "s3cret", **options)
        self._server = server

    total = property(lambda self: self._server.book.total)
    held = property(lambda self: self._server.book.held)
    n_captures = property(lambda self: self._server.book.n_captures)


@pytest.mark.parametrize(
    "faults",
    [
        [], ["500"], ["drop before"], ["drop after", "drop after"], ["503", "drop after"], ["slow"], ["nonsense"],
        ["half"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("tries", [1, 3])
def test_http_provider_never_charges_twice(tmp_path: Path, server: Server, faults: list[str], tries: int) -> None:
    # Only the server that does not answer costs the timeout; a busy machine has time for all other answers.
    shop = Shop(Place(tmp_path), STORE, BothSides(server, tries=tries, timeout_s=0.5 if "slow" in faults else 60.0))
    shop.hold()
    shop.ledger.post_receipt(priced(*TWO))
    for at in range(3):  # the faults hit the authorisation, the capture, the refund
        server.faults = ["", "", ""][:at] + list(faults)
        for _ in range(4):
            shop.checkout.settle("v1", T_NS)
        server.faults.clear()
        if at == 1:
            shop.checkout.decide("v1", "correct", by="eve", t_ns=T_NS, lines=TWO[:1])
    shop.checkout.recover(LATER_NS)
    assert shop.checkout.state("v1").status == "paid" and shop.agrees()["provider"] == 498
    assert list(shop.provider.n_captures.values()) == [1]
    assert {secret for _, _, secret in server.seen} == {"Bearer s3cret"}
    assert {path for path, _, _ in server.seen} == {"/v1/authorise", "/v1/capture", "/v1/refund"}
    assert len({key for _, key, _ in server.seen}) == 3


def test_http_answers_and_refusals(server: Server) -> None:
    provider = BothSides(server, tries=1)
    authorised = provider.authorise('ä " key', "tok", 100, "EUR")
    assert authorised.approved and provider.capture("k2", authorised.reference, 60).approved
    assert provider.capture("k3", authorised.reference, 60) == Answer(False, "", "more than was authorised")
    assert provider.release("k4", authorised.reference).approved
    with pytest.raises(PaymentError, match="422"):
        provider.authorise('ä " key', "tok", 101, "EUR")
    for status in ("401", "404", "301"):
        server.faults = [status]
        with pytest.raises(PaymentError, match=status):
            provider.authorise("k5", "tok", 100, "EUR")
    for status in ("409", "429", "502"):
        server.faults = [status]
        with pytest.raises(UnknownOutcome, match=status):
            provider.authorise("k6", "tok", 100, "EUR")
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(UnknownOutcome, match="ConnectionRefusedError"):
        provider.authorise("k7", "tok", 100, "EUR")
    for url in ("http://example.org/pay", "ftp://localhost", "localhost:80"):
        with pytest.raises(ValueError, match="want https"):
            HttpProvider(url, "s3cret")
    assert "s3cret" not in repr(provider)
