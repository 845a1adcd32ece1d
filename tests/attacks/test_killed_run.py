"""`fusion run --mqtt`, killed with two inside while the server of its books is away: all are billed once, and right."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from broker import MOSQUITTO, Mosquitto
from live.stepping import Day
from till.shops import S, paying

from bench.endurance import serve as bench
from bench.endurance.kills import serve_provider
from fusion.gates.verifiers import GateRequest
from fusion.live.messages import Command
from fusion.live.publisher import Publisher
from fusion.money.ledger import Ledger
from fusion.money.providers import InProcessProvider
from fusion.observations import GateScan, Observation

ROOT = Path(__file__).resolve().parents[2]
# Generous: a machine may be busy with other work.
LIMIT_S = 120.0
# `fusion run` whose engine drops nothing, however far a busy machine leaves it behind.
RUN = """
import sys
import fusion.live.loop as loop
from fusion.commands.main import main
loop.QUEUE_MAX = 10**6
loop.Intake.__init__.__kwdefaults__.update(frame_wait_s=1e9, weight_wait_s=1e9)
sys.exit(main())
"""


def wait_until(holds: object) -> None:
    assert bench.until(holds, LIMIT_S)  # type: ignore[arg-type]


class Door:
    """A port of this machine that leads to a database's server, until it is closed."""

    def __init__(self, url: str) -> None:
        split = urlsplit(url)
        host = parse_qs(split.query).get("host", [split.hostname or "127.0.0.1"])[0]
        port = split.port or 5432
        self._to = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        name = f"{split.username or 'postgres'}@127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"postgresql://{name}{split.path}?sslmode=disable"
        self.closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """The server is away: what was open breaks, and new connections end at once."""
        self.closed = True
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        self.close()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = self._listener.accept()
                if self.closed:
                    ours.close()
                    continue
                theirs = socket.socket(socket.AF_UNIX if isinstance(self._to, str) else socket.AF_INET)
                theirs.connect(self._to)
                self._open += [ours, theirs]
                threading.Thread(target=_forward, args=(ours, theirs), daemon=True).start()


def _forward(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError), one, other:
        while True:
            for ready in select.select([one, other], [], [])[0]:
                data = ready.recv(1 << 16)
                if not data:
                    return
                (other if ready is one else one).sendall(data)


class Sensors:
    """Everything of the shop that publishes; a person is let in before their way in is published."""

    def __init__(self, broker: Mosquitto, store_id: str) -> None:
        self._answers: dict[int, Command] = {}
        self.publisher = Publisher(broker.address, store_id, "all", on_command=self._take, kept_s=1e5)

    def _take(self, command: Command) -> None:
        self._answers[command.request] = command

    def _lets_in(self, request: GateRequest) -> bool:
        """Whether a gate opens; it asks again for as long as it is asked for patience."""
        number = self.publisher.ask(request)
        wait_until(lambda: number in self._answers)
        answer = self._answers[number]
        assert answer.open or answer.again_s is not None, answer
        return answer.open

    def publish(self, observations: list[Observation]) -> None:
        """Publish as fast as it can be."""
        for one in observations:
            if isinstance(one, GateScan):
                wait_until(partial(self._lets_in, GateRequest(one.t_ns, one.gate, "card", f"tok_{one.account}")))
            else:
                self.publisher.publish(one)
        assert self.publisher.flush(LIMIT_S)


@pytest.fixture
def town(day: Day, postgres: str, tmp_path: Path) -> Iterator[tuple[list[str], Door, Mosquitto, InProcessProvider]]:
    if MOSQUITTO is None:
        pytest.skip("no program mosquitto")
    store = paying(day.store, "leave").model_copy(update={"id": "killed_run"})
    store.save(tmp_path / "store")
    book = InProcessProvider()
    server, door, broker = serve_provider(book), Door(postgres), Mosquitto(tmp_path / "broker")
    key = tmp_path / "provider.key"
    key.touch(0o600)
    key.write_text("secret-of-a-test")
    url = f"http://127.0.0.1:{server.server_address[1]}"
    lines = ["format_version = 1", "[payment]", 'provider = "http"', f'url = "{url}"', 'secret_file = "provider.key"']
    (tmp_path / "till.toml").write_text("\n".join([*lines, "[books]", f'where = "{door.url}"']) + "\n")
    command = [sys.executable, "-c", RUN, "run", "--store", tmp_path / "store", "--mqtt", broker.address]
    command += ["--till", tmp_path / "till.toml", "--out", tmp_path / "out"]
    yield list(map(str, command)), door, broker, book
    server.shutdown()
    server.server_close()
    door.end()
    broker.stop()


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with open(log, "ab") as out:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def halves(day: Day) -> tuple[list[Observation], list[Observation]]:
    """The day until two people are inside, as the store knows, and the rest of it, in which all leave."""
    second_ns = sorted(receipt.enter_ns or 0 for receipt in day.receipts.values())[1]
    kill_ns = second_ns + 3 * S
    assert all(receipt.exit_ns > kill_ns for receipt in day.receipts.values())
    until_ns = max(receipt.issued_ns for receipt in day.receipts.values()) + 2 * S
    before = [one for one in day.observations if one.t_ns <= kill_ns]
    return before, [one for one in day.observations if kill_ns < one.t_ns < until_ns]


@pytest.mark.attack(13)
def test_a_killed_run_continues_its_visits_while_its_database_is_away(
    town: tuple[list[str], Door, Mosquitto, InProcessProvider], day: Day, tmp_path: Path
) -> None:
    command, door, broker, book = town
    first, second = halves(day)
    truth = list(day.receipts.values())
    log, receipts = tmp_path / "log", tmp_path / "out" / "receipts.jsonl"
    sensors = Sensors(broker, "killed_run")
    with running(command, log):
        wait_until(lambda: sensors.publisher.engine is not None)
        sensors.publish(first)
        wait_until(lambda: log.read_text().count("came in") == 2)
        door.close()
    before = sensors.publisher.engine
    with running(command, log) as process:
        wait_until(lambda: sensors.publisher.engine != before)
        sensors.publish(second)
        wait_until(lambda: receipts.exists() and len(receipts.read_text().splitlines()) == len(truth))
        assert process.poll() is None and not book.total, "it runs, and nothing is settled without the books"
        door.closed = False
        wait_until(lambda: book.total == sum(receipt.total for receipt in truth) or process.poll() is not None)
        process.terminate()
        assert process.wait(LIMIT_S) == 0, log.read_text()[-2000:]
    sensors.publisher.close()
    store = paying(day.store, "leave").model_copy(update={"id": "killed_run"})
    with Ledger.open(door.url, store, vault=tmp_path / "out" / "killed_run.vault.sqlite") as ledger:
        assert not ledger.open_visits() and ledger.verify() is None
        entries = ledger.entries_between(0, 2**62)
        billed = sorted(entry.visit for entry in entries if entry.kind.startswith("receipt "))
        # Visits are named by their store, and the day is another store's.
        named = {receipt.visit.replace(day.store.id, store.id): receipt for receipt in truth}
        assert billed == sorted(named)
        for visit, receipt in named.items():
            standing = ledger.standing(visit)
            assert standing is not None and standing.account is not None
            assert (standing.status, standing.total) == (receipt.status, receipt.total)
            holder = ledger.holder(standing.account)
            assert holder is not None and holder.token == f"tok_{receipt.account}"
        assert ledger.balances()[store.currency]["provider"] == book.total == sum(receipt.total for receipt in truth)
    assert all(n == 1 for n in book.n_captures.values())
