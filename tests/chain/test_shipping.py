"""Shipping: rows of every store once and unchanged, whatever happens to the line between."""

from __future__ import annotations

import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusion.chain.book import ChainBook
from fusion.chain.reconciling import reconcile
from fusion.chain.shipping import ASK_AGAIN_S, BACKOFF_S, Shipper
from fusion.chain.streams import ConnectionLost
from fusion.commands.main import main
from fusion.commands.signals import stop_signals
from fusion.errors import IdempotencyConflict, LedgerError

psycopg = pytest.importorskip("psycopg")
from chain.shops import (  # noqa: E402
    HOUR_NS,
    SHIPPERS,
    T_NS,
    Shop,
    fill,
    make_receipt,
    make_store,
    make_transfer,
    unguarded,
)


def forked(shop: Shop, tmp_path: Path) -> Shop:
    """The same store with a ledger that differs, such as after a restored backup."""
    folder = tmp_path / "fork"
    folder.mkdir()
    return Shop(folder, shop.url)


def test_another_row_under_the_same_number_is_named_and_not_taken(shop: Shop, tmp_path: Path) -> None:
    fill(shop.ledger, 0, 5)
    shop.shipper().ship()
    held = shop.book.after("shop", "ledger", 0, 100)
    fork = forked(shop, tmp_path)
    fill(fork.ledger, 0, 4)
    fork.ledger.post_receipt(make_receipt(4, quantity=3))
    fill(fork.ledger, 5, 3)
    with pytest.raises(IdempotencyConflict, match="shop: ledger 10: the chain's book holds"):
        fork.shipper().ship()
    rows = fork.sources[0].after(0, 100)
    with pytest.raises(IdempotencyConflict, match=r"shop: ledger 9: .* kind: have 'visit opened', got 'receipt"):
        fork.book.add("shop", fork.sources[0], rows)
    with pytest.raises(IdempotencyConflict, match="shop: ledger 11: its hash does not follow"):
        fork.book.add("shop", fork.sources[0], rows[10:])
    assert shop.book.after("shop", "ledger", 0, 100) == held
    (text,) = fork.faults()
    assert "different: 2 (9 to 10)" in text and "not shipped yet: 5 (11 to 15)" in text
    fork.close()


def test_a_store_that_lost_its_end_is_named(shop: Shop, tmp_path: Path) -> None:
    fill(shop.ledger, 0, 5)
    shop.shipper().ship()
    fork = forked(shop, tmp_path)
    fill(fork.ledger, 0, 4)
    with pytest.raises(LedgerError, match="ledger 10: want the row that the chain's book holds, got an earlier end"):
        fork.shipper().ship()
    (text,) = fork.faults()
    assert "extra: 2 (9 to 10)" in text
    fork.close()


def test_a_row_that_was_changed_in_the_store_does_not_leave_it(shop: Shop) -> None:
    fill(shop.ledger, 0, 5)
    shop.tamper("UPDATE posting SET amount = 0 WHERE entry = 4")
    with pytest.raises(IdempotencyConflict, match="shop: ledger 4: its hash does not follow"):
        shop.shipper(batch=2).ship()
    assert shop.book.mark("shop", shop.sources[0]).seq == 2


def test_never_more_than_a_batch_at_once(shop: Shop) -> None:
    fill(shop.ledger, 0, 60)
    source, asked = shop.sources[0], list[int]()

    class Counted:
        stream, genesis, newest = source.stream, source.genesis, source.newest

        def after(self, seq: int, limit: int) -> Any:
            asked.append(limit)
            return source.after(seq, limit)

    Shipper(shop.store, [Counted()], shop.book, batch=10).ship()
    assert reconcile(shop.store, [Counted()], shop.book, batch=10)[0].agrees
    assert max(asked) <= 11 and len(asked) > 20


@pytest.mark.parametrize("after", [False, True])
def test_a_connection_cut_at_any_statement(shop: Shop, after: bool) -> None:
    n_filled, lines = 0, list[str]()
    for n in range(1, 27):
        fill(shop.ledger, n_filled, 3)
        n_filled += 3
        shop.book.mark("shop", shop.sources[0])
        shop.line.cut(n, after)
        shop.shipper(batch=4, report=lines.append).run(wait=lambda seconds: None)
        shop.book.close()
        assert shop.book.mark("shop", shop.sources[0]).seq == 2 * n_filled
    assert shop.faults() == []
    assert sum("cut; again in" in line for line in lines) == 26


def test_a_backend_killed_inside_a_batch(shop: Shop, stranger: Any) -> None:
    fill(shop.ledger, 0, 40)
    killed: list[int] = []

    def kill(connection: Any, statement: str) -> None:
        # The entries of the batch are in, their postings are not.
        if "staged_posting" in statement and len(killed) < 3:
            killed.append(connection.info.backend_pid)
            stranger.execute("SELECT pg_terminate_backend(%s, 5000)", (killed[-1],))

    shop.line.before = kill
    lines: list[str] = []
    assert shop.shipper(report=lines.append).run(wait=lambda seconds: None)["ledger"] == 80
    assert len(killed) == 3 and sum("the server does not answer" in line for line in lines) == 3
    assert shop.faults() == []


def test_two_shippers_at_once(shop: Shop) -> None:
    fill(shop.ledger, 0, 400)
    failures: list[BaseException] = []

    def ship() -> None:
        try:
            with ChainBook(shop.url) as book:
                Shipper(shop.store, shop.sources[:1], book, batch=5).run()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ship, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert shop.faults() == []


def test_the_store_does_not_wait_for_the_chain(shop: Shop, stranger: Any) -> None:
    fill(shop.ledger, 0, 5)
    shop.shipper().ship()
    fill(shop.ledger, 5, 5)
    with stranger.transaction():
        stranger.execute("SELECT * FROM mark FOR UPDATE")
        shipping = threading.Thread(target=shop.shipper().ship, daemon=True)
        shipping.start()
        while not stranger.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()[0]:
            time.sleep(0.01)
        fill(shop.ledger, 10, 5)
        shop.outbox.keep([make_transfer(1)])
        assert shop.ledger.head().seq == 30
        assert shipping.is_alive()
    shipping.join()
    shop.shipper().ship()
    assert shop.faults() == []


def test_back_off_is_bounded_and_patience_ends(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "postgresql://localhost:1/none")
    waits: list[float] = []
    with pytest.raises(ConnectionLost, match="the server does not answer"):
        shop.shipper().run(patience_s=300, wait=waits.append, clock_s=lambda: sum(waits))
    assert 300 <= sum(waits) < 300 + BACKOFF_S[1]
    assert waits[0] <= BACKOFF_S[0] and BACKOFF_S[1] / 2 <= max(waits) <= BACKOFF_S[1]
    shop.close()


def test_an_idle_shipper_leaves_the_chain_alone(shop: Shop) -> None:
    fill(shop.ledger, 0, 5)
    shop.outbox.keep([make_transfer(1)])
    asked, waits, sessions, stop = list[float](), list[float](), list[Any](), threading.Event()

    def wait(seconds: float) -> None:
        waits.append(seconds)
        sessions.append(shop.book.session)
        if len(waits) == 40:
            fill(shop.ledger, 5, 1)
        if len(waits) == 9000:
            stop.set()

    shop.line.before = lambda connection, statement: asked.append(sum(waits))
    sent = shop.shipper().run(follow=True, every_s=0.5, stop=stop, wait=wait, clock_s=lambda: sum(waits))
    assert sent == {"ledger": 12, "goods": 1, "health": 0}
    assert set(waits) == {0.5}
    # At the beginning, for the new rows, and an hour after these.
    assert sorted(set(asked)) == [0.0, 20.0, 20.0 + ASK_AGAIN_S + 0.5]
    assert sessions[40:160] == [1] * 120 and sessions[161] is None
    assert sessions[-1] is None and set(sessions) == {1, 2, None}
    assert shop.faults() == []


def test_new_rows_after_the_connection_was_closed(shop: Shop) -> None:
    fill(shop.ledger, 0, 5)
    shipper = shop.shipper()
    shipper.ship()
    shipper.disconnect()
    assert shipper.ship() == {"ledger": 0, "goods": 0, "health": 0} and shop.book.session is None
    fill(shop.ledger, 5, 5)
    assert shipper.ship() == {"ledger": 10, "goods": 0, "health": 0} and shop.book.session == 2
    assert shop.faults() == []


def test_a_book_restored_from_a_backup_without_the_store(shop: Shop, stranger: Any) -> None:
    fill(shop.ledger, 0, 5)
    shop.outbox.keep([make_transfer(1)])
    shipper = shop.shipper()
    shipper.run()
    with unguarded(stranger):
        for table in ("entry", "posting", "goods", "mark", "store"):
            stranger.execute(f"DELETE FROM {table}")
    stranger.execute(f"SELECT pg_terminate_backend(pid) {SHIPPERS}")
    fill(shop.ledger, 5, 1)
    assert shipper.run(wait=lambda seconds: None) == {"ledger": 12, "goods": 1, "health": 0}
    assert shop.faults() == []


@pytest.mark.parametrize("stream", ["ledger", "goods"])
@pytest.mark.parametrize(
    ("code", "passes"),
    [
        (sqlite3.SQLITE_BUSY, True), (sqlite3.SQLITE_BUSY_SNAPSHOT, True), (sqlite3.SQLITE_LOCKED, True),
        (sqlite3.SQLITE_IOERR_READ, False), (sqlite3.SQLITE_CORRUPT, False), (sqlite3.SQLITE_CANTOPEN, False),
    ],
)  # fmt: skip
def test_a_file_error_ends_shipping_unless_it_passes(shop: Shop, stream: str, code: int, passes: bool) -> None:
    fill(shop.ledger, 0, 5)
    shop.outbox.keep([make_transfer(1)])
    holder: Any = shop.ledger.database if stream == "ledger" else shop.outbox
    name = "connection" if stream == "ledger" else "_connection"
    whole = getattr(holder, name)

    class Broken:
        in_transaction = False

        def execute(self, *args: Any) -> Any:
            error = sqlite3.OperationalError("a disk error")
            error.sqlite_errorcode = code
            raise error

    def mend(seconds: float) -> None:
        setattr(holder, name, whole)

    setattr(holder, name, Broken())
    lines: list[str] = []
    if passes:
        assert shop.shipper(report=lines.append).run(wait=mend)["goods"] == 1
        (line,) = (line for line in lines if "again in" in line)
        assert line.startswith(f"shop: {stream}: ") and "a disk error; again in" in line
        assert shop.faults() == []
    else:
        with pytest.raises(LedgerError, match=f"{stream}: .*a disk error") as caught:
            shop.shipper().run(follow=True, wait=mend)
        assert not isinstance(caught.value, ConnectionLost)
    mend(0)


def test_a_refused_login_does_not_wait(shop: Shop, stranger: Any) -> None:
    base, _, options = shop.url.partition("?")
    role = f"r{secrets.token_hex(4)}"
    urls = {
        'database "none" does not exist': f"{base.rsplit('/', 1)[0]}/none?{options}",
        f'role "{role}" does not exist': f"{shop.url}{'&' if options else '?'}user={role}",
    }
    for refusal, url in urls.items():
        other = ChainBook(url)
        # A server that asks for passwords does not say whether the role is there.
        with pytest.raises(LedgerError, match=f"{refusal}|password authentication failed") as caught:
            Shipper(shop.store, shop.sources, other).run(follow=True, wait=lambda seconds: pytest.fail("waited"))
        assert not isinstance(caught.value, ConnectionLost)
    password = psycopg.conninfo.conninfo_to_dict(shop.url).get("password", "x")
    role_sql = psycopg.sql.SQL("CREATE ROLE {} LOGIN CONNECTION LIMIT 0 PASSWORD {}")
    stranger.execute(role_sql.format(psycopg.sql.Identifier(role), psycopg.sql.Literal(password)))
    try:
        with pytest.raises(ConnectionLost, match="too many connections"):
            Shipper(shop.store, shop.sources, ChainBook(urls[f'role "{role}" does not exist'])).run(patience_s=0)
    finally:
        stranger.execute(f"DROP ROLE {role}")


def test_a_wrong_password_does_not_wait(shop: Shop) -> None:
    refusal = 'connection to server at "x", port 5432 failed: FATAL:  password authentication failed for user "anna"'

    def refuse(connection: Any) -> Any:
        connection.close()
        raise psycopg.OperationalError(f"connection failed:\n- {refusal}")

    book = ChainBook(shop.url, wrap=refuse)
    with pytest.raises(LedgerError, match=r"the server refuses the login: .* password authentication failed"):
        Shipper(shop.store, shop.sources, book).run(follow=True, wait=lambda seconds: pytest.fail("waited"))


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server that a test may stop and start; it has no other users."""
    pgserver = pytest.importorskip("pgserver", reason="no PostgreSQL to restart: install pgserver")
    server = pgserver.get_server(tmp_path_factory.mktemp("restarted"), cleanup_mode="delete")
    yield server
    server.ensure_postgres_running()
    server.cleanup()


def stop_at_once(server: Any) -> None:
    """As in a power failure: what is not on disk is lost."""
    from pgserver._commands import pg_ctl

    pg_ctl(["-w", "-m", "immediate", "stop"], pgdata=server.pgdata, user=server.system_user)


def test_an_hour_without_a_server_that_restarts_twice(tmp_path: Path, own_server: Any) -> None:
    shop = Shop(tmp_path, own_server.get_uri())
    stop, lines = threading.Event(), list[str]()
    shipper = shop.shipper(batch=50, report=lines.append)

    def follow() -> None:
        shipper.run(follow=True, every_s=0.01, stop=stop, wait=waiting)

    def waiting(seconds: float) -> None:
        stop.wait(min(seconds, 0.02))

    def minutes(first: int, n: int) -> None:
        for minute in range(first, first + n):
            fill(shop.ledger, 20 * minute, 20, T_NS + minute * HOUR_NS // 60)
            shop.outbox.keep([make_transfer(i) for i in range(20 * minute, 20 * minute + 20)])

    def until(condition: Callable[[], bool]) -> None:
        since = time.monotonic()
        while not condition():
            assert time.monotonic() - since < 120 and following.is_alive()
            time.sleep(0.01)

    following = threading.Thread(target=follow, daemon=True)
    minutes(0, 5)
    following.start()
    with ChainBook(shop.url) as watcher:
        def shipped() -> int:
            try:
                return watcher.mark("shop", shop.sources[0]).seq
            except ConnectionLost:
                return -1

        until(lambda: shipped() >= 40)
        for first in (5, 35):
            n_lines = len(lines)
            stop_at_once(own_server)
            minutes(first, 30)  # half an hour of data
            until(lambda n=n_lines: any("again in" in line for line in lines[n:]))  # type: ignore[misc]
            own_server.ensure_postgres_running()
            until(lambda before=40 * first: shipped() > before)  # type: ignore[misc]
        minutes(65, 2)
        until(lambda: shipped() == 40 * 67)
        until(lambda: watcher.mark("shop", shop.sources[1]).seq == 20 * 67)
    stop.set()
    following.join()
    assert any("connected again" in line for line in lines)
    assert shop.faults() == []
    shop.close()


def test_a_server_that_does_not_answer_is_lost(tmp_path: Path, own_server: Any) -> None:
    shop = Shop(tmp_path, own_server.get_uri())
    fill(shop.ledger, 0, 5)
    shop.shipper().ship()
    fill(shop.ledger, 5, 5)
    with psycopg.connect(shop.url, autocommit=True) as admin:
        # Every commit waits for a standby that never comes.
        admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'gone'")
        admin.execute("SELECT pg_reload_conf()")
        while admin.execute("SHOW synchronous_standby_names").fetchone() != ("gone",):
            time.sleep(0.01)
        # A new connection: a backend that is running learns of the change later.
        book = ChainBook(shop.url, silent_max_s=0.2)
        with pytest.raises(ConnectionLost, match="the server does not answer: OperationalError: no answer for"):
            Shipper(shop.store, shop.sources, book).run(patience_s=0)
        assert book.session is None
        admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
        admin.execute("SELECT pg_reload_conf()")
    shop.shipper().run()
    assert shop.faults() == []
    shop.close()


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_order_of_faults_ends_in_agreement(
    data: st.DataObject, url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shop = Shop(tmp_path_factory.mktemp("shop"), url, make_store(f"s{secrets.token_hex(6)}"))
    shop.book.register(shop.store)
    n = 0
    for _ in range(data.draw(st.integers(1, 6))):
        match data.draw(st.sampled_from(["write", "ship", "cut", "repeat", "restart"])):
            case "write":
                more = data.draw(st.integers(1, 12))
                fill(shop.ledger, n, more)
                shop.outbox.keep([make_transfer(i) for i in range(n, n + more)])
                n += more
            case "ship":
                shop.shipper(batch=data.draw(st.integers(1, 20))).ship()
            case "cut":
                shop.book.mark(shop.store.id, shop.sources[0])
                where = data.draw(st.integers(1, 30)), data.draw(st.booleans())
                shop.line.cut(*where)
                shop.shipper(batch=data.draw(st.integers(1, 20))).run(wait=lambda seconds: None)
                shop.line.mend()
                shop.book.close()
            case "repeat":
                mark = shop.book.mark(shop.store.id, shop.sources[0]).seq
                begin = data.draw(st.integers(0, mark))
                records = shop.sources[0].after(begin, data.draw(st.integers(1, 30)))
                shop.book.add(shop.store.id, shop.sources[0], records)
            case "restart":
                shop.book.close()
    shop.shipper().ship()
    assert shop.faults() == []
    assert shop.book.mark(shop.store.id, shop.sources[0]).seq == 2 * n
    shop.close()


def test_the_command_names_what_it_cannot_do(shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop.store.save(tmp_path / "store")
    begin = ["ship", str(tmp_path / "store"), "--ledger", str(tmp_path / "shop.sqlite"), "--patience", "0", "--chain"]
    for url, message in (
        ("sqlite:///x", "pass postgresql://server/database"),
        ("postgresql://anna:secret@localhost:1/none", "the server does not answer"),
        ("postgresql://anna:secret@localhost:port/none", "postgresql://localhost"),
    ):
        assert main([*begin, url]) == 2
        err = capsys.readouterr().err
        assert message in err and "secret" not in err
    assert main([*begin, shop.url, "--outbox", str(tmp_path / "none")]) == 2
    assert "none: the outbox does not exist" in capsys.readouterr().err


def test_ship_ends_on_a_signal(shop: Shop, tmp_path: Path) -> None:
    shop.store.save(tmp_path / "store")
    fill(shop.ledger, 0, 5)
    command = [
        sys.executable, "-m", "fusion", "ship", str(tmp_path / "store"), "--ledger", str(tmp_path / "shop.sqlite"),
        "--chain", shop.url, "--follow", "--every", "600",
    ]  # fmt: skip
    for number, n_rows in ((signal.SIGTERM, 10), (signal.SIGINT, 0)):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                if n_rows:
                    assert process.stdout.readline() == "shop: ledger 1 to 10\n"
                else:
                    while not shop.book.query(f"SELECT pid {SHIPPERS} AND pid <> pg_backend_pid()"):
                        time.sleep(0.01)
                process.send_signal(number)
                assert process.stdout.read() == f"shop: {n_rows} rows of ledger\n"
                assert process.wait() == 0
            finally:
                process.kill()


def test_a_signal_ends_a_wait() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_signals() as signals:
        assert not signals.is_set()
        signals.wait(0.001)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        signals.wait(600)
        assert signals.is_set()
        signals.wait(600)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize("every", ["0", "-1", "nan", "inf"])
def test_every_is_a_time(shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str], every: str) -> None:
    shop.store.save(tmp_path / "store")
    begin = ["ship", str(tmp_path / "store"), "--ledger", str(tmp_path / "shop.sqlite"), "--chain", shop.url]
    assert main([*begin, "--every", every]) == 2
    assert "every_s: want more than 0 seconds, got" in capsys.readouterr().err
