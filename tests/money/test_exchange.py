"""One request over a socket: what is written, how long each wait may last, what counts as an answer, and the pauses."""

from __future__ import annotations

import random
import socket
import ssl
from typing import Any

import pytest

from fusion.errors import ConfigError
from fusion.money.providers import UnknownOutcome
from fusion.money.providers.exchange import Exchange, Response
from fusion.money.providers.pauses import Pauses

ADDRESSES = [
    (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 9, 0, 0)),
    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 9)),
]


class Wire:
    """This machine's network: every connection, send and receipt takes a second of its clock.

    Attributes:
        answers: what each connection receives. refusing: addresses that refuse. waits: operation and the seconds that
            it was allowed to take. sent: what was written, by connection.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: bytes) -> None:
        self.now_s, self.answers = 0.0, list(answers)
        self.refusing: set[Any] = set()
        self.waits: list[tuple[str, float | None]] = []
        self.sent: list[bytes] = []
        self.asked: list[tuple[Any, ...]] = []
        self.sockets: list[Socket] = []
        self.addresses: list[Any] = ADDRESSES[1:]

        def resolve(host: str, port: int, **options: Any) -> list[Any]:
            self.asked.append((host, port, options))
            return self.addresses

        monkeypatch.setattr("socket.getaddrinfo", resolve)
        monkeypatch.setattr("fusion.money.providers.exchange.socket.socket", lambda *made: Socket(self, *made))

    def exchange(self, url: str = "http://localhost/v1", **options: Any) -> Exchange:
        options = {"deadline_s": 10.0, "pauses": Pauses(0.0), **options}
        return Exchange(url, clock_s=lambda: self.now_s, **options)


class Socket:
    """A connection of a `Wire`."""

    def __init__(self, wire: Wire, *made: int) -> None:
        self.wire, self.made, self.timeout_s, self.is_open = wire, made, None, True
        self.answer = b""
        wire.sockets.append(self)

    def settimeout(self, seconds: float | None) -> None:
        self.timeout_s = seconds

    def waited(self, what: str) -> None:
        assert self.is_open, what
        self.wire.waits.append((what, self.timeout_s))
        self.wire.now_s += 1.0

    def connect(self, address: Any) -> None:
        self.waited("connect")
        if address in self.wire.refusing:
            raise ConnectionRefusedError
        self.answer = self.wire.answers.pop(0)
        self.wire.sent.append(b"")

    def sendall(self, data: bytes) -> None:
        self.waited("send")
        self.wire.sent[-1] += data

    def recv_into(self, buffer: Any) -> int:
        self.waited("receive")
        piece, self.answer = self.answer[: len(buffer)], self.answer[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self.is_open = False


def answer(status: int = 200, body: bytes = b"{}", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


# ---- the request -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "host", "port", "named", "path"),
    [
        ("http://localhost/v1/", "localhost", 80, "localhost", "/v1/pay"),
        ("http://localhost:8080", "localhost", 8080, "localhost:8080", "/pay"),
        ("http://127.0.0.1:81/a/b", "127.0.0.1", 81, "127.0.0.1:81", "/a/b/pay"),
        ("http://[::1]:81/", "::1", 81, "[::1]:81", "/pay"),
    ],
)
def test_a_request_is_written_once(
    monkeypatch: pytest.MonkeyPatch, url: str, host: str, port: int, named: str, path: str
) -> None:
    wire = Wire(monkeypatch, answer(201, b'{"a": 1}'))
    response = wire.exchange(url).ask("POST", "/pay", {"Key": "k"}, "bödy")
    assert response == Response(201, b'{"a": 1}') and response.json() == {"a": 1}
    head = [f"POST {path} HTTP/1.1", f"Host: {named}", "Accept-Encoding: identity", "Content-Length: 5", "Key: k"]
    assert wire.sent == ["\r\n".join([*head, "Connection: close", "", "bödy"]).encode()]
    assert wire.asked == [(host, port, {"type": socket.SOCK_STREAM})]
    assert [(one.made, one.is_open) for one in wire.sockets] == [((socket.AF_INET, socket.SOCK_STREAM, 6), False)]


def test_a_request_without_a_body_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(monkeypatch, answer())
    wire.exchange().ask("GET", "/x", {})
    assert wire.sent[0].startswith(b"GET /v1/x HTTP/1.1\r\n") and wire.sent[0].endswith(b"\r\n\r\n")


def test_no_wait_is_longer_than_what_is_left_of_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(monkeypatch, answer(body=b"x" * 20_000))
    wire.exchange(deadline_s=30.0).ask("POST", "/pay", {}, "body")
    assert [what for what, _ in wire.waits[:4]] == ["connect", "send", "send", "receive"]
    assert [allowed for _, allowed in wire.waits] == [30.0 - i for i in range(len(wire.waits))]
    assert len(wire.waits) > 4


@pytest.mark.parametrize(("deadline_s", "last"), [(1.0, "connect"), (2.0, "send"), (3.0, "send"), (4.0, "receive")])
def test_a_request_ends_with_its_deadline_wherever_it_is(
    monkeypatch: pytest.MonkeyPatch, deadline_s: float, last: str
) -> None:
    wire = Wire(monkeypatch, b"HTTP/1.1 200 X\r\n")
    with pytest.raises(UnknownOutcome, match=r"^/pay: no answer from the provider: "):
        wire.exchange(deadline_s=deadline_s).ask("POST", "/pay", {}, "body")
    assert (len(wire.waits), wire.waits[-1][0]) == (int(deadline_s), last)
    assert not any(one.is_open for one in wire.sockets)


def test_each_address_is_tried_until_one_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(monkeypatch, answer(), answer())
    wire.addresses = ADDRESSES
    wire.exchange().ask("GET", "/x", {})
    assert len(wire.sockets) == 1
    wire.refusing = {ADDRESSES[0][4]}
    wire.exchange().ask("GET", "/x", {})
    assert [one.made[0] for one in wire.sockets] == [socket.AF_INET6, socket.AF_INET6, socket.AF_INET]
    assert not any(one.is_open for one in wire.sockets)
    wire.refusing = {address for *_, address in ADDRESSES}
    with pytest.raises(UnknownOutcome, match=r"^/x: no answer from the provider: ConnectionRefusedError$"):
        wire.exchange().ask("GET", "/x", {})
    wire.addresses = []
    with pytest.raises(UnknownOutcome, match=r"^/x: no answer from the provider: TimeoutError$"):
        wire.exchange().ask("GET", "/x", {})
    assert not any(one.is_open for one in wire.sockets)


def test_a_name_that_cannot_be_resolved_has_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(monkeypatch)
    for failure in (socket.gaierror("no such name"), UnicodeError("label too long")):

        def fail(*_: Any, failure: Exception = failure, **__: Any) -> list[Any]:
            raise failure

        monkeypatch.setattr("socket.getaddrinfo", fail)
        with pytest.raises(UnknownOutcome, match="TimeoutError"):
            wire.exchange().ask("GET", "/x", {})


def test_tls_checks_the_name_of_the_host_within_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(monkeypatch, answer())
    wrapped: list[tuple[float | None, str]] = []

    class Context:
        def wrap_socket(self, plain: Socket, *, server_hostname: str) -> Socket:
            wrapped.append((plain.timeout_s, server_hostname))
            inner = Socket(wire)
            inner.answer = plain.answer
            return inner

    monkeypatch.setattr(ssl, "create_default_context", Context)
    assert wire.exchange("https://pay.example/v1").ask("GET", "/x", {}).status == 200
    assert wrapped == [(9.0, "pay.example")] and wire.asked[0][:2] == ("pay.example", 443)
    assert [one.is_open for one in wire.sockets] == [False, False], "the connection and its inside"
    assert wire.sent[0].startswith(b"GET /v1/x HTTP/1.1\r\nHost: pay.example:443\r\n")


URL_FAULT = "url: want https://HOST/PATH, or http:// on this machine, without user or password"


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://example.org/pay", URL_FAULT),
        ("ftp://localhost", URL_FAULT),
        ("https:///path", URL_FAULT),
        ("https://u:p@host/", URL_FAULT),
        ("https://@host/", URL_FAULT),
        ("https://host/?a=b", URL_FAULT),
        ("https://host/#a", URL_FAULT),
        ("https://host:99999/", "url: want https://HOST/PATH, got one that cannot be read"),
        ("https://[::1", "url: want https://HOST/PATH, got one that cannot be read"),
    ],
)
def test_a_url_that_is_not_safe_is_refused(url: str, fault: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Exchange(url)
    assert str(raised.value) == fault


# ---- the answer ------------------------------------------------------------------------------------------------------


def test_which_answers_are_final(monkeypatch: pytest.MonkeyPatch) -> None:
    final = set()
    for status in (*range(200, 230), *range(300, 310), *range(399, 431), 451, 498, 499, 500, 502, 503, 599):
        wire = Wire(monkeypatch, answer(status, b""))
        try:
            assert wire.exchange().ask("GET", "/x", {}).status == status
            final.add(status)
        except UnknownOutcome as error:
            assert str(error) == f"/x: no answer from the provider yet: status {status}"
    wanted = {*range(200, 230), *range(400, 431), 451, 498, 499}
    assert final == wanted - {202, 401, 403, 407, 408, 409, 425, 429}


def test_an_answer_is_read_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(monkeypatch, answer(body=b"x" * 100_001), answer(body=b"x" * 100_000))
    exchange = wire.exchange(deadline_s=1000.0)
    assert [len(exchange.ask("GET", "/x", {}).body) for _ in range(2)] == [100_000, 100_000]


def test_what_is_no_http_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (b"SSH-2.0\r\n", b"HTTP/1.1 abc X\r\n\r\n", b"HTTP/1.1 200 X\r\nName: " + b"x" * 70_000, b""):
        wire = Wire(monkeypatch, data)
        with pytest.raises(UnknownOutcome, match=r"^/x: no answer from the provider: "):
            wire.exchange().ask("GET", "/x", {})


def test_a_body_that_is_no_object_is_an_empty_one() -> None:
    for body in (b"[1]", b"5", b"<html>", b"\xff", b"[" * 90_000, b""):
        assert Response(200, body).json() == {}


# ---- pauses ----------------------------------------------------------------------------------------------------------


def asked_again_in(exchange: Exchange) -> str:
    with pytest.raises(UnknownOutcome) as raised:
        exchange.ask("GET", "/x", {})
    text = str(raised.value)
    return text.removeprefix("the provider failed and is asked again in ") if "again in" in text else ""


class Whole(random.Random):
    """Draws the longest pause."""

    def uniform(self, a: float, b: float) -> float:
        assert (a, b) == (0.5, 1.0)
        return b


@pytest.mark.parametrize("failing", [answer(503), b"", answer(429), answer(401)])
def test_after_a_failure_the_provider_is_left_alone(monkeypatch: pytest.MonkeyPatch, failing: bytes) -> None:
    wire = Wire(monkeypatch, failing, failing, answer(), failing)
    exchange = wire.exchange(pauses=Pauses(8.0, source=Whole()))
    assert asked_again_in(exchange) == ""
    failed_s = wire.now_s
    assert asked_again_in(exchange) == "8 s" and len(wire.sent) == 1
    wire.now_s = failed_s + 7.9
    assert asked_again_in(exchange) == "0 s" and len(wire.sent) == 1
    wire.now_s = failed_s + 8.0
    assert asked_again_in(exchange) == "" and asked_again_in(exchange) == "16 s" and len(wire.sent) == 2
    wire.now_s += 16.0
    # An answer ends the row of failures.
    assert exchange.ask("GET", "/x", {}).status == 200
    assert asked_again_in(exchange) == "" and asked_again_in(exchange) == "8 s"


@pytest.mark.parametrize("status", [202, 409, 425])
def test_what_concerns_one_request_does_not_stop_the_next(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    wire = Wire(monkeypatch, answer(status), answer(status, Retry_After="7"))
    exchange = wire.exchange(pauses=Pauses(8.0, source=Whole()))
    assert asked_again_in(exchange) == asked_again_in(exchange) == "" and len(wire.sent) == 2
    assert asked_again_in(exchange) == "8 s", "unless the server asks for a pause"


DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"Retry_After": "30"}, "30 s"),
        ({"Retry_After": "  30  "}, "30 s"),
        ({"Retry_After": "5000"}, "3600 s"),
        ({"Retry_After": "999999999"}, "3600 s"),
        ({"Retry_After": "0"}, ""),
        ({"Retry_After": "1000000000"}, ""),
        ({"Retry_After": "-5"}, ""),
        ({"Retry_After": "\xb2"}, ""),
        ({"Retry_After": "soon"}, ""),
        ({"Retry_After": "Wed, 21 Oct 2015 07:28:40 GMT", "Date": DATE}, "40 s"),
        ({"Retry_After": "Wed, 21 Oct 2015 07:27:40 GMT", "Date": DATE}, ""),
        ({"Retry_After": "Wed, 21 Oct 2015 07:28:40 GMT"}, ""),
        # A time without a zone beside one with a zone.
        ({"Retry_After": "Wed, 21 Oct 2015 07:28:40 -0000", "Date": DATE}, ""),
        ({}, ""),
    ],
)
def test_a_server_may_ask_for_a_pause(monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], pause: str) -> None:
    wire = Wire(monkeypatch, answer(503, **headers).decode().encode("latin-1"), answer())
    exchange = wire.exchange()
    assert asked_again_in(exchange) == ""
    if pause:
        assert asked_again_in(exchange) == pause
    else:
        assert exchange.ask("GET", "/x", {}).status == 200


def drawn(pauses: Pauses, n: int) -> list[float]:
    return [pauses.failed() for _ in range(n)]


def test_pauses_double_up_to_the_longest_and_are_drawn_between_its_half_and_itself() -> None:
    twin = random.Random(5)
    wanted = [min(60.0, 0.5 * 2.0**n) * twin.uniform(0.5, 1.0) for n in range(12)]
    assert drawn(Pauses(source=random.Random(5)), 12) == wanted
    twin = random.Random(5)
    shorter = [min(3.0, 1.0 * 2.0**n) * twin.uniform(0.5, 1.0) for n in range(5)]
    assert drawn(Pauses(1.0, 3.0, random.Random(5)), 5) == shorter


def test_a_long_row_of_failures_does_not_overflow() -> None:
    pauses = Pauses(1e-6, source=Whole())
    assert drawn(pauses, 2000)[-1] == 1e-6 * 2.0**20
    pauses.succeeded()
    assert pauses.failed() == 1e-6


@pytest.mark.parametrize(("asked_s", "pause_s"), [(None, 8.0), (0.0, 8.0), (7.9, 8.0), (9.0, 9.0), (3600.5, 3600.0)])
def test_the_longer_of_both_wishes_counts(asked_s: float | None, pause_s: float) -> None:
    assert Pauses(8.0, source=Whole()).failed(asked_s) == pause_s


def test_without_a_source_two_stores_do_not_draw_the_same() -> None:
    assert drawn(Pauses(1.0), 3) != drawn(Pauses(1.0), 3)


def test_a_deadline_of_ten_seconds_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(monkeypatch, answer())
    Exchange("http://localhost", clock_s=lambda: wire.now_s).ask("GET", "/x", {})
    assert wire.waits[0] == ("connect", 10.0)
