"""Attacks from the network: brokers' clients that forge, flood and write over each other; consoles' guests."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from broker import MOSQUITTO, Mosquitto
from live.streams import STORE, T_NS
from live.test_mqtt import LIMIT_S, Listening, publisher_of
from show.consoles import PASSWORD, Served, serving

from fusion.commands.main import main
from fusion.errors import ConfigError, ShapeError, terminal_text
from fusion.live import publisher as publishing
from fusion.live.connection import broker_password
from fusion.live.messages import MESSAGE_MAX_BYTES, Mark, line_payload, topic_of
from fusion.money.ledger import Ledger
from fusion.observations import GateScan
from fusion.results import WarningKind
from fusion.runner.output import Output
from fusion.show.console import users as users_module
from fusion.show.console.access import CHECKED_AT_ONCE, CHECKING_MAX
from fusion.show.console.sessions import SHARED_TRIES, Sessions
from fusion.show.console.users import Users
from fusion.show.web import connections
from fusion.simulation import demo_store

SHOP = demo_store(n_cameras=2, n_plates=4)
needs_broker = pytest.mark.skipif(MOSQUITTO is None, reason="no mosquitto on this machine")
ROOT = Path(__file__).resolve().parents[2]


def wait_for(condition: Callable[[], object]) -> None:
    until_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < until_s, "did not happen in time"
        time.sleep(0.01)


class Client:
    """A client of a broker that does as it likes.

    Attributes:
        got: topics and payloads that it received.
    """

    def __init__(self, broker: Mosquitto, user: str | None, client_id: str = "") -> None:
        from paho.mqtt.client import Client as Paho
        from paho.mqtt.enums import CallbackAPIVersion

        self.got: list[tuple[str, bytes]] = []
        self._ready = threading.Event()
        self._client = Paho(CallbackAPIVersion.VERSION2, client_id)
        if user is not None:
            self._client.username_pw_set(user)
        self._client.on_connect = lambda client, *_: client.subscribe("#", 1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _client, _data, message: self.got.append((message.topic, message.payload))
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        assert self._ready.wait(LIMIT_S)

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(LIMIT_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def clients(broker: Mosquitto, *users: str | None) -> Iterator[list[Client]]:
    opened = [Client(broker, user) for user in users]
    try:
        yield opened
    finally:
        for client in opened:
            client.close()


def documented(head: str) -> str:
    """The block of docs/mqtt.md that begins with a line."""
    text = (ROOT / "docs" / "mqtt.md").read_text(encoding="utf-8")
    return text.split(f"```conf\n{head}\n", 1)[1].split("```", 1)[0]


# ---- the broker ------------------------------------------------------------------------------------------------------


@needs_broker
@pytest.mark.attack(24)
def test_retained_scans_let_nobody_in_again(broker: Mosquitto) -> None:
    """And a live one is taken, although another is retained on its topic."""
    topic = topic_of(STORE.id, "gates", "entry", "scan")
    old, new = (GateScan(T_NS + n, "entry", "account", f"acc-{n}") for n in (0, 1))
    with clients(broker, None) as [guest]:
        guest.publish(topic, line_payload(old, Mark(7, 0)), retain=True)
        for _ in range(2):
            with Listening(broker) as listening, publisher_of(broker, "entry") as gate:
                wait_for(lambda: listening.live.ignored["mqtt: gates: retained"] == 1)
                gate.publish(new)
                wait_for(lambda: listening.observations)
            assert listening.observations == [new]
            (warning,) = [one for one in listening.warnings if one.kind is WarningKind.MESSAGE_REFUSED]
            assert warning.subject == "gates/entry/scan" and "retain" in str(warning.detail)


@needs_broker
@pytest.mark.attack(24)
def test_long_messages_reach_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker does not forward them; where it does, the engine keeps none, and publishers make none."""
    topic = topic_of(STORE.id, "detections", STORE.cameras[0].name)
    long = bytes(2 * MESSAGE_MAX_BYTES)
    (line,) = [line for line in documented("# mosquitto.conf").splitlines() if "message_size_limit" in line]
    assert int(line.split()[1]) == MESSAGE_MAX_BYTES
    for n, extra in enumerate((f"allow_anonymous true\n{line}\n", "allow_anonymous true\n")):
        broker = Mosquitto(tmp_path / str(n), extra)
        try:
            with Listening(broker) as listening, clients(broker, None) as [guest]:
                wait_for(lambda: listening.live.connected)
                guest.publish(topic, long)
                guest.publish(topic, b"short")
                wait_for(lambda: listening.live.ignored["mqtt: detections: another version"])
                assert listening.live.ignored["mqtt: detections: too long"] == n
                wait_for(lambda: [at for at, _ in guest.got].count(topic) == 1 + n)  # noqa: B023
        finally:
            broker.stop()
    monkeypatch.setattr(publishing, "line_payload", lambda observation, mark: long)
    with publishing.Publisher("127.0.0.1:1", STORE.id, "gates") as gate, pytest.raises(ShapeError, match="at most"):
        gate.publish(GateScan(T_NS, "entry", "account", "acc"))


# What each role may do below fusion/v1/nanostore/, as the documented file has it.
TOPICS = (
    "detections/cam0", "weights/shelf", "items/belt", "gates/entry/request", "gates/entry/scan", "gates/entry/command",
    "gates/exit/request", "gates/exit/command", "status/cameras", "status/scales", "status/readers", "status/entry",
    "status/exit", "status/way%20out", "status/terminal", "zones/pay/baskets", "zones/pay/confirm", "zones/pay/answer",
    "engine",
)  # fmt: skip
WRITES = {
    "engine": {
        "gates/entry/command", "gates/exit/command", "zones/pay/baskets", "zones/pay/answer", "status/way%20out",
        "engine",
    },
    "cameras": {"detections/cam0", "status/cameras"},
    "scales": {"weights/shelf", "status/scales"},
    "readers": {"items/belt", "status/readers"},
    "entry": {"gates/entry/request", "status/entry"},
    "exit": {"gates/exit/request", "status/exit"},
    "terminal": {"zones/pay/confirm", "status/terminal"},
    "display": set(),
    "console": set(),
    "stranger": set(),
}
READS = {
    "engine": set(TOPICS),
    "entry": {"engine", "gates/entry/command"},
    "exit": {"engine", "gates/exit/command"},
    "terminal": {"engine", "zones/pay/baskets", "zones/pay/answer"},
    "display": {"engine", "gates/entry/command"},
    "console": {"engine", *(topic for topic in TOPICS if topic.startswith("status/"))},
    "stranger": set(),
}


@pytest.mark.attack(16)
def test_a_password_of_the_broker_that_other_users_can_read_is_refused(tmp_path: Path) -> None:
    """Whoever has the engine's password opens gates."""
    path = tmp_path / "broker.txt"
    path.write_text("s3cret\n")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="other users can read the broker's password") as refused:
        broker_password(path)
    assert "s3cret" not in str(refused.value)
    path.chmod(0o600)
    assert broker_password(path) == "s3cret"


@needs_broker
@pytest.mark.attack(24)
def test_each_role_may_do_what_it_is_for_and_nothing_else(tmp_path: Path) -> None:
    """The documented access list, before a real broker: every role writes to every topic and listens to all."""
    acl = tmp_path / "acl"
    acl.write_text(documented("# acl"))
    acl.chmod(0o600)
    broker, prefix = Mosquitto(tmp_path / "broker", f"allow_anonymous true\nacl_file {acl}\n"), "fusion/v1/nanostore/"
    try:
        with clients(broker, *WRITES) as opened:
            by_role: dict[str, Client] = dict(zip(WRITES, opened))
            for role, client in by_role.items():
                for topic in TOPICS:
                    client.publish(prefix + topic, role.encode())
                client.publish("fusion/v1/another/engine", role.encode())
            by_role["engine"].publish(prefix + "engine", b"end")
            sent = {(prefix + topic, role.encode()) for role, topics in WRITES.items() for topic in topics}
            for role, client in by_role.items():
                may_read = {prefix + topic for topic in READS.get(role, {"engine"})}
                # A broker forwards to each client in order, so the last message says that all others have come.
                wait_for(lambda: not may_read or (prefix + "engine", b"end") in client.got)  # noqa: B023
                wanted = {(topic, payload) for topic, payload in sent if topic in may_read}
                assert set(client.got) - {(prefix + "engine", b"end")} == wanted, role
    finally:
        broker.stop()


@pytest.mark.attack(24)
def test_control_characters_reach_no_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    forged = "gates/\x1b[2J\x1b]0;owned\x07/scan\nshop: parked\r\x9b31m\u202e\u2028\ud800"
    shown = terminal_text(forged)
    assert shown.isprintable() and "\n" not in shown and "\u202e" not in shown and "shop: parked" in shown
    assert terminal_text("Käse für 2,50 €; नमस्ते\u200d") == "Käse für 2,50 €; नमस्ते\u200d"
    output = Output(10)
    output.line(forged)
    output.error(forged)
    output.close()
    assert main(["check", str(tmp_path / "\x1b[2Jno\nfolder")]) == 2
    assert main(["verify", "demo", str(tmp_path / "\x1b[2Jno\nbooks")]) == 2
    printed: Any = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err and "\x9b" not in printed.out + printed.err
    assert len(printed.out.splitlines()) == 1


# ---- the console -----------------------------------------------------------------------------------------------------


@pytest.fixture
def users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(users_module, "SCRYPT", {"n": 16, "r": 8, "p": 1})  # Many guesses, and nothing to protect.
    path = tmp_path / "users.json"
    users = Users(path)
    for name in ("anna", "bert"):
        users.add(name, PASSWORD, SHOP.id)
    return path


@pytest.fixture
def console(tmp_path: Path, users_file: Path) -> Iterator[Served]:
    with Ledger.open(tmp_path / "ledger.sqlite", SHOP) as ledger, serving(SHOP, ledger, users_file) as served:
        yield served


@pytest.mark.attack(22)
def test_who_guesses_cannot_pretend_to_be_many(tmp_path: Path, users_file: Path) -> None:
    """A header of the client names no address, unless a proxy was named that is believed."""
    with Ledger.open(tmp_path / "ledger.sqlite", SHOP) as ledger:
        with serving(SHOP, ledger, users_file) as served:
            tries = [served.sign_in("anna", "wrong", **{"X-Forwarded-For": f"10.0.0.{n}"})[0] for n in range(7)]
            assert tries == [403] * 5 + [429] * 2
        with serving(SHOP, ledger, users_file, proxy="127.0.0.1") as served:
            for n in range(7):
                assert served.sign_in("anna", "wrong", **{"X-Forwarded-For": "10.0.0.1"})[0] == (403 if n < 5 else 429)
            assert served.sign_in("anna", PASSWORD, **{"X-Forwarded-For": "10.0.0.2"})[0] == 303
        with serving(SHOP, ledger, users_file, proxy="10.9.9.9") as served:
            tries = [served.sign_in("anna", "wrong", **{"X-Forwarded-For": f"10.0.0.{n}"})[0] for n in range(6)]
            assert tries == [403] * 5 + [429]


@pytest.mark.attack(22)
def test_wrong_tries_lock_out_no_other_people(console: Served) -> None:
    form = urlencode({"name": "anna", "password": PASSWORD})
    _, headers, _ = console.ask("POST", "/sign-in", form, {"Origin": console.origin})
    known = "; ".join(re.findall(r"fusion-console-[^=]*-device=[^;]+", headers["set-cookie"]))
    assert known
    for _ in range(6):
        console.sign_in("anna", "wrong")
    assert console.sign_in("anna", PASSWORD)[0] == 429
    assert console.sign_in("bert", PASSWORD)[0] == 303, "behind the same address"
    assert console.sign_in("anna", PASSWORD, Cookie=known)[0] == 303, "in the browser where anna signed in before"
    # Many names from one address wait as well, and the browsers that are known still do not.
    for n in range(SHARED_TRIES):
        console.sign_in(f"name {n}", "wrong")
    assert console.sign_in("bert", PASSWORD)[0] == 429
    assert console.sign_in("anna", PASSWORD, Cookie=known)[0] == 303
    for forged in (known[:-1] + "x", known.replace("=", "=0"), known.partition("=")[0] + "="):
        assert console.sign_in("anna", PASSWORD, Cookie=forged)[0] == 429
    assert console.sign_in("bert", PASSWORD, Cookie=known)[0] == 429, "another person in that browser"


@pytest.mark.attack(22)
def test_pauses_grow_with_each_wrong_try() -> None:
    sessions, key, now_s, waits = Sessions(), {"anna": 5}, 0.0, []
    for _ in range(14):
        wait_s = sessions.must_wait(key, now_s)
        waits.append(wait_s)
        now_s += wait_s
        assert sessions.must_wait(key, now_s) == 0.0
        sessions.failed(key, now_s)
    assert waits == [0.0] * 5 + [60.0 * 2**n for n in range(6)] + [3600.0] * 3
    sessions.succeeded(key)
    assert sessions.must_wait(key, now_s) == 0.0


@pytest.mark.attack(22)
def test_half_sent_requests_shut_nobody_out(console: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """They displace each other, and what is not whole in time ends."""
    monkeypatch.setattr(connections, "CONNECTIONS_MAX", 20)
    sockets = []
    try:
        for n in range(60):
            sockets.append(socket.create_connection(("127.0.0.1", console.port), timeout=LIMIT_S))
            sockets[-1].sendall(b"POST /sign-in HTTP/1.1\r\nHost: x\r\n" if n % 2 else b"")
        assert console.sign_in("anna", PASSWORD)[0] == 303
        assert sockets[0].recv(1) == b"", "the oldest has ended"
        monkeypatch.setattr(connections, "REQUEST_MAX_S", 0.05)
        post = f"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1:{console.port}\r\nOrigin: {console.origin}\r\n"
        for half in (b"", b"GET / HTTP/1.1\r\n", post.encode() + b"Content-Length: 9\r\n\r\nna"):
            with socket.create_connection(("127.0.0.1", console.port), timeout=LIMIT_S) as slow:
                slow.sendall(half)
                assert slow.recv(1) == b""
        assert console.sign_in("anna", PASSWORD)[0] == 303
    finally:
        for one in sockets:
            one.close()


@pytest.mark.attack(22)
def test_guesses_delay_neither_pages_nor_books(console: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """While passwords of many are checked, a page and a review answer; too many at once are sent away."""
    _, headers = console.sign_in("anna", PASSWORD)
    free, checking = threading.Event(), threading.Semaphore(0)

    def check(*_: object) -> bool:
        checking.release()
        return not free.wait(LIMIT_S)

    monkeypatch.setattr(Users, "check", check)
    statuses: list[int] = []
    guesses = [
        threading.Thread(target=lambda n=n: statuses.append(console.sign_in(f"name {n}", "wrong")[0]))
        for n in range(CHECKING_MAX // 2)
    ]
    try:
        for guess in guesses:
            guess.start()
        for _ in range(CHECKED_AT_ONCE):
            assert checking.acquire(timeout=LIMIT_S)
        assert console.ask("GET", "/api/store", headers=headers)[0] == 200
        assert console.ask("GET", "/api/reviews/none", headers=headers)[0] == 404
    finally:
        free.set()
        for guess in guesses:
            guess.join()
    assert set(statuses) == {403}
