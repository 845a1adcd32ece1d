"""The chain's book: rows of every store once and unchanged, whatever happens to the line between."""

from __future__ import annotations

import datetime
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusion.chain.book import (
    ASK_AGAIN_S,
    BACKOFF_S,
    ChainBook,
    ConnectionLost,
    LedgerSource,
    Shipper,
    reconcile,
    sources_of,
)
from fusion.commands.main import main
from fusion.commands.signals import stop_signals
from fusion.errors import IdempotencyConflict, LedgerError
from fusion.goods.journal import OUTSIDE, UNKNOWN, Transfer
from fusion.live.outbox import Outbox
from fusion.money.ledger import Ledger
from fusion.money.retailers import Retailer
from fusion.money.sales import Discount
from fusion.results import Reason, ReasonKind, Receipt, ReceiptLine, ReceiptStatus, Warning, WarningKind
from fusion.store.models import Product, Store

psycopg = pytest.importorskip("psycopg")

T_NS = 1_772_528_646_000_000_000  # 2026-03-03 10:04:06 in Berlin
GTINS = ("4006381333931", "96385074")
HOUR_NS = 3600 * 10**9
SHIPPERS = "FROM pg_stat_activity WHERE application_name = 'fusion ship' AND datname = current_database()"


def a_store(name: str = "shop", timezone: str = "Europe/Berlin") -> Store:
    return Store(
        format_version=1, id=name, name=name.title(), currency="EUR", timezone=timezone,
        floor=((0.0, 0.0), (4.0, 0.0), (4.0, 3.0), (0.0, 3.0)), keypoints="coco17",
        products=tuple(
            Product(gtin=gtin, name=gtin, weight_g=100.0, weight_sd_g=1.0, price=100, vat_rate=rate)
            for gtin, rate in zip(GTINS, (19.0, 7.0))
        ),
    )  # fmt: skip


def a_receipt(i: int, status: str = "settled", t_ns: int = T_NS, quantity: int = 1) -> Receipt:
    lines = (ReceiptLine(GTINS[0], quantity, 119, 0.99), ReceiptLine(GTINS[1], 1, 107, 0.9))
    reasons = (Reason(ReasonKind.NOTE, detail="unsure"),) if status == "review" else ()
    total = 119 * quantity + 107
    return Receipt(f"v{i}", "someone", t_ns, t_ns + 60, t_ns + i, ReceiptStatus(status), reasons, "EUR", total, lines)


def fill(ledger: Ledger, first: int, n: int, t_ns: int = T_NS) -> None:
    with ledger.batch():
        for i in range(first, first + n):
            ledger.open_visit(f"v{i}", "someone", t_ns + i - 5)
            ledger.post_receipt(a_receipt(i, "review" if i % 7 == 3 else "settled", t_ns))


def a_transfer(i: int, **changes: Any) -> Transfer:
    taken = Transfer(f"shop/a1/{i}", T_NS + i, ("cart", f"v{i}"), ("shelf", "a1"), GTINS[0], 1 + i % 3)
    return replace(taken, **changes)


@pytest.fixture(scope="module")
def database(postgres: str) -> Iterator[str]:
    """URL of a database for these tests alone."""
    name = f"chain_{secrets.token_hex(8)}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    base, _, options = postgres.partition("?")
    yield base.rsplit("/", 1)[0] + f"/{name}" + (f"?{options}" if options else "")
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def url(database: str) -> str:
    """URL of a database without a chain's book."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute("DROP SCHEMA IF EXISTS chain CASCADE")
    return database


@pytest.fixture
def stranger(url: str) -> Iterator[Any]:
    """A connection that goes round the book; what it executes is committed at once."""
    with psycopg.connect(url, autocommit=True, options="-c search_path=chain") as connection:
        yield connection


class Shop:
    """A store with its books and outbox, and its way to the chain."""

    def __init__(self, folder: Path, url: str, store: Store | None = None) -> None:
        self.store = store or a_store()
        self.folder, self.url = folder, url
        self.ledger = Ledger.open(folder / f"{self.store.id}.sqlite", self.store)
        self.outbox = Outbox(folder / f"{self.store.id}.outbox.sqlite", self.store)
        self.book = ChainBook(url)
        self.sources = sources_of(self.store, self.ledger, self.outbox)

    def shipper(self, **options: Any) -> Shipper:
        return Shipper(self.store, self.sources, self.book, **{"batch": 7, **options})

    def faults(self) -> list[str]:
        return [one.text() for one in reconcile(self.store, self.sources, self.book, batch=11) if not one.agrees]

    def round_the_ledger(self, *statements: str) -> None:
        """Change the store's books as no ledger would: triggers off, and on again."""
        connection = sqlite3.connect(self.folder / f"{self.store.id}.sqlite", isolation_level=None)
        triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        for _, sql in triggers:
            connection.execute(sql)
        connection.close()

    def close(self) -> None:
        for one in (self.book, self.outbox, self.ledger):
            one.close()


@pytest.fixture
def shop(tmp_path: Path, url: str) -> Iterator[Shop]:
    shop = Shop(tmp_path, url)
    yield shop
    shop.close()


def test_rows_come_once_and_whole(shop: Shop) -> None:
    fill(shop.ledger, 0, 30)
    shop.outbox.add(map(a_transfer, range(20)), [Warning(T_NS, WarningKind.CAMERA_OUTAGE, "cam01", seconds=2.0)])
    assert shop.shipper().ship() == {"ledger": 60, "goods": 20, "health": 1}
    assert shop.shipper().ship() == {"ledger": 0, "goods": 0, "health": 0}
    assert shop.faults() == []
    fill(shop.ledger, 30, 4)
    assert shop.shipper().ship()["ledger"] == 8
    assert shop.faults() == []
    assert shop.book.after("shop", "ledger", 0, 100) == LedgerSource(shop.ledger, shop.store).after(0, 100)


def test_what_came_before_is_harmless_and_a_gap_is_not(shop: Shop) -> None:
    fill(shop.ledger, 0, 15)
    source = shop.sources[0]
    rows = source.after(0, 100)
    shop.book.register(shop.store)
    assert shop.book.add("shop", source, rows[:10]).seq == 10
    assert shop.book.add("shop", source, rows[:10]).seq == 10
    assert shop.book.add("shop", source, rows[4:20]).seq == 20
    with pytest.raises(LedgerError, match="want rows from 21 on, got 25 to 30"):
        shop.book.add("shop", source, rows[24:])
    with pytest.raises(LedgerError, match="want rows from 21 on, got 21 to 30 without 24"):
        shop.book.add("shop", source, [*rows[20:23], *rows[24:]])
    assert shop.book.add("shop", source, rows).seq == 30
    assert shop.faults() == []


def forked(shop: Shop, tmp_path: Path) -> Shop:
    """The same store with other books, such as after a restored backup."""
    folder = tmp_path / "fork"
    folder.mkdir()
    return Shop(folder, shop.url)


def test_another_row_under_the_same_number_is_named_and_not_taken(shop: Shop, tmp_path: Path) -> None:
    fill(shop.ledger, 0, 5)
    shop.shipper().ship()
    held = shop.book.after("shop", "ledger", 0, 100)
    fork = forked(shop, tmp_path)
    fill(fork.ledger, 0, 4)
    fork.ledger.post_receipt(a_receipt(4, quantity=3))
    fill(fork.ledger, 5, 3)
    with pytest.raises(IdempotencyConflict, match="shop: ledger 10: the chain's book holds"):
        fork.shipper().ship()
    rows = fork.sources[0].after(0, 100)
    with pytest.raises(IdempotencyConflict, match=r"shop: ledger 9: .* kind: have 'visit opened', got 'receipt"):
        fork.book.add("shop", fork.sources[0], rows)
    with pytest.raises(IdempotencyConflict, match="shop: ledger 11: does not follow"):
        fork.book.add("shop", fork.sources[0], rows[10:])
    assert shop.book.after("shop", "ledger", 0, 100) == held
    (told,) = fork.faults()
    assert "different: 2 (9 to 10)" in told and "not shipped yet: 5 (11 to 15)" in told
    fork.close()


def test_a_store_that_lost_its_end_is_named(shop: Shop, tmp_path: Path) -> None:
    fill(shop.ledger, 0, 5)
    shop.shipper().ship()
    fork = forked(shop, tmp_path)
    fill(fork.ledger, 0, 4)
    with pytest.raises(LedgerError, match="ledger 10: want the row that the chain's book holds, got an earlier end"):
        fork.shipper().ship()
    (told,) = fork.faults()
    assert "extra: 2 (9 to 10)" in told
    fork.close()


def test_a_row_that_was_changed_in_the_store_does_not_leave_it(shop: Shop) -> None:
    fill(shop.ledger, 0, 5)
    shop.round_the_ledger("UPDATE posting SET amount = 0 WHERE entry = 4")
    with pytest.raises(IdempotencyConflict, match="shop: ledger 4: does not follow"):
        shop.shipper(batch=2).ship()
    assert shop.book.mark("shop", shop.sources[0]).seq == 2


# ---- lost connections ------------------------------------------------------------------------------------------------


class Scissors:
    """A connection that is lost just before or after its nth statement."""

    def __init__(self, connection: Any, n: int, after: bool) -> None:
        self._connection, self._n, self._after = connection, n, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, *args: Any) -> Any:
        self._n -= 1
        if self._n == 0:
            if self._after:
                self._connection.execute(*args)
            self._connection.close()
            raise psycopg.OperationalError("cut")
        return self._connection.execute(*args)


@pytest.mark.parametrize("after", [False, True])
def test_a_connection_cut_at_any_statement(shop: Shop, after: bool) -> None:
    n_filled, told = 0, list[str]()
    for n in range(1, 27):
        fill(shop.ledger, n_filled, 3)
        n_filled += 3
        shop.book.mark("shop", shop.sources[0])
        shop.book._connection = Scissors(shop.book._connection, n, after)
        shop.shipper(batch=4, tell=told.append).run(wait=lambda seconds: None)
        shop.book.close()
        assert shop.book.mark("shop", shop.sources[0]).seq == 2 * n_filled
    assert shop.faults() == []
    assert sum("cut; again in" in line for line in told) == 26


def test_a_backend_killed_inside_a_batch(shop: Shop, stranger: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(shop.ledger, 0, 40)
    insert, killed = ChainBook._insert, []

    def killing(self: ChainBook, connection: Any, store: str, table: str, rows: Any) -> int:
        n = insert(self, connection, store, table, rows)
        if table == "entry" and len(killed) < 3:
            killed.append(connection.info.backend_pid)
            stranger.execute("SELECT pg_terminate_backend(%s, 5000)", (killed[-1],))
        return n

    monkeypatch.setattr(ChainBook, "_insert", killing)
    told: list[str] = []
    assert shop.shipper(tell=told.append).run(wait=lambda seconds: None)["ledger"] == 80
    assert len(killed) == 3 and sum("want a server that answers" in line for line in told) == 3
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
        shop.outbox.add([a_transfer(1)])
        assert shop.ledger.head().seq == 30
        assert shipping.is_alive()
    shipping.join()
    shop.shipper().ship()
    assert shop.faults() == []


def test_back_off_is_bounded_and_patience_ends(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "postgresql://localhost:1/none")
    waits: list[float] = []
    with pytest.raises(ConnectionLost, match="want a server that answers"):
        shop.shipper().run(patience_s=300, wait=waits.append, clock=lambda: sum(waits))
    assert 300 <= sum(waits) < 300 + BACKOFF_S[1]
    assert waits[0] <= BACKOFF_S[0] and BACKOFF_S[1] / 2 <= max(waits) <= BACKOFF_S[1]
    shop.close()


def test_an_idle_shipper_leaves_the_chain_alone(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(shop.ledger, 0, 5)
    shop.outbox.add([a_transfer(1)])
    transaction, asked, waits, sessions = ChainBook._transaction, list[float](), list[float](), list[Any]()

    def counted(self: ChainBook, *args: Any, **options: Any) -> Any:
        asked.append(sum(waits))
        return transaction(self, *args, **options)

    def wait(seconds: float) -> None:
        waits.append(seconds)
        sessions.append(shop.book.session)
        if len(waits) == 40:
            fill(shop.ledger, 5, 1)
        if len(waits) == 9000:
            stop.set()

    stop = threading.Event()
    monkeypatch.setattr(ChainBook, "_transaction", counted)
    sent = shop.shipper().run(follow=True, every_s=0.5, stop=stop, wait=wait, clock=lambda: sum(waits))
    assert sent == {"ledger": 12, "goods": 1, "health": 0}
    assert set(waits) == {0.5}
    # At the beginning, for the new rows, and an hour after these.
    assert sorted(set(asked)) == [0.0, 20.0, 20.0 + ASK_AGAIN_S + 0.5]
    assert sessions[40:160] == [1] * 120 and sessions[161] is None
    assert sessions[-1] is None and set(sessions) == {1, 2, None}
    assert shop.faults() == []


def test_new_rows_after_the_connection_was_given_back(shop: Shop) -> None:
    fill(shop.ledger, 0, 5)
    shipper = shop.shipper()
    shipper.ship()
    shipper._give_back()
    assert shipper.ship() == {"ledger": 0, "goods": 0, "health": 0} and shop.book.session is None
    fill(shop.ledger, 5, 5)
    assert shipper.ship() == {"ledger": 10, "goods": 0, "health": 0} and shop.book.session == 2
    assert shop.faults() == []


def test_a_chain_from_a_backup_of_before_the_store_came(shop: Shop, stranger: Any) -> None:
    fill(shop.ledger, 0, 5)
    shop.outbox.add([a_transfer(1)])
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
def test_what_is_wrong_with_a_file_ends_unless_it_passes(shop: Shop, stream: str, code: int, passes: bool) -> None:
    fill(shop.ledger, 0, 5)
    shop.outbox.add([a_transfer(1)])
    holder: Any = shop.ledger.database if stream == "ledger" else shop.outbox
    name = "connection" if stream == "ledger" else "_connection"
    whole = getattr(holder, name)

    class Broken:
        in_transaction = False

        def execute(self, *args: Any) -> Any:
            error = sqlite3.OperationalError("so it is")
            error.sqlite_errorcode = code
            raise error

    def mend(seconds: float) -> None:
        setattr(holder, name, whole)

    setattr(holder, name, Broken())
    told: list[str] = []
    if passes:
        assert shop.shipper(tell=told.append).run(wait=mend)["goods"] == 1
        (line,) = (one for one in told if "again in" in one)
        assert line.startswith(f"shop: {stream}: ") and "so it is; again in" in line
        assert shop.faults() == []
    else:
        with pytest.raises(LedgerError, match=f"{stream}: .*so it is") as caught:
            shop.shipper().run(follow=True, wait=mend)
        assert not isinstance(caught.value, ConnectionLost)
    mend(0)


def test_who_is_not_let_in_does_not_wait(shop: Shop, stranger: Any) -> None:
    base, _, options = shop.url.partition("?")
    role = f"r{secrets.token_hex(4)}"
    urls = {
        'database "none" does not exist': f"{base.rsplit('/', 1)[0]}/none?{options}",
        f'role "{role}" does not exist': f"{shop.url}{'&' if options else '?'}user={role}",
    }
    for said, url in urls.items():
        other = ChainBook(url)
        # A server that asks for passwords does not say whether the role is there.
        with pytest.raises(LedgerError, match=f"{said}|password authentication failed") as caught:
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


def test_a_wrong_password_does_not_wait(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    said = 'connection failed: server at "x", port 5432 failed: FATAL:  password authentication failed for user "anna"'

    def connect(**settings: Any) -> Any:
        raise psycopg.OperationalError(f"connection failed:\n- {said}")

    monkeypatch.setattr(shop.book._connection_type, "connect", connect)
    with pytest.raises(LedgerError, match=r"want a server that lets us in, got: .* password authentication failed"):
        shop.shipper().run(follow=True, wait=lambda seconds: pytest.fail("waited"))


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server that a test may stop and start; it has no other users."""
    pgserver = pytest.importorskip("pgserver", reason="no PostgreSQL to restart: install pgserver")
    server = pgserver.get_server(tmp_path_factory.mktemp("restarted"), cleanup_mode="delete")
    yield server
    server.ensure_postgres_running()
    server.cleanup()


def stop_at_once(server: Any) -> None:
    """As if the power had gone: what is not on disk is lost."""
    from pgserver._commands import pg_ctl

    pg_ctl(["-w", "-m", "immediate", "stop"], pgdata=server.pgdata, user=server.system_user)


def test_an_hour_without_a_server_that_restarts_twice(tmp_path: Path, own_server: Any) -> None:
    shop = Shop(tmp_path, own_server.get_uri())
    stop, told = threading.Event(), list[str]()
    shipper = shop.shipper(batch=50, tell=told.append)

    def follow() -> None:
        shipper.run(follow=True, every_s=0.01, stop=stop, wait=waiting)

    def waiting(seconds: float) -> None:
        stop.wait(min(seconds, 0.02))

    def minutes(first: int, n: int) -> None:
        for minute in range(first, first + n):
            fill(shop.ledger, 20 * minute, 20, T_NS + minute * HOUR_NS // 60)
            shop.outbox.add([a_transfer(i) for i in range(20 * minute, 20 * minute + 20)])

    def until(condition: Callable[[], bool]) -> None:
        since = time.monotonic()
        while not condition():
            assert time.monotonic() - since < 20 and following.is_alive()
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
            n_told = len(told)
            stop_at_once(own_server)
            minutes(first, 30)  # half an hour of data
            until(lambda n=n_told: any("again in" in line for line in told[n:]))  # type: ignore[misc]
            own_server.ensure_postgres_running()
            until(lambda before=40 * first: shipped() > before)  # type: ignore[misc]
        minutes(65, 2)
        until(lambda: shipped() == 40 * 67)
        until(lambda: watcher.mark("shop", shop.sources[1]).seq == 20 * 67)
    stop.set()
    following.join()
    assert any("connected again" in line for line in told)
    assert shop.faults() == []
    shop.close()


def test_a_server_that_holds_the_line_is_a_lost_one(
    tmp_path: Path, own_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        monkeypatch.setattr("fusion.chain.book.SILENT_MAX_S", 0.2)
        # A server that reloads is not the first to know it.
        shop.book.close()
        with pytest.raises(ConnectionLost, match="want a server that answers, got: OperationalError: no answer for"):
            shop.shipper().run(patience_s=0)
        monkeypatch.undo()
        assert shop.book.session is None
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
    shop = Shop(tmp_path_factory.mktemp("shop"), url, a_store(f"s{secrets.token_hex(6)}"))
    shop.book.register(shop.store)
    n = 0
    for _ in range(data.draw(st.integers(1, 6))):
        match data.draw(st.sampled_from(["write", "ship", "cut", "repeat", "restart"])):
            case "write":
                more = data.draw(st.integers(1, 12))
                fill(shop.ledger, n, more)
                shop.outbox.add([a_transfer(i) for i in range(n, n + more)])
                n += more
            case "ship":
                shop.shipper(batch=data.draw(st.integers(1, 20))).ship()
            case "cut":
                shop.book.mark(shop.store.id, shop.sources[0])
                where = data.draw(st.integers(1, 30)), data.draw(st.booleans())
                shop.book._connection = Scissors(shop.book._connection, *where)
                shop.shipper(batch=data.draw(st.integers(1, 20))).run(wait=lambda seconds: None)
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


# ---- reconciling -----------------------------------------------------------------------------------------------------


@contextmanager
def unguarded(stranger: Any) -> Iterator[None]:
    """Triggers sleep, as for a superuser who means harm."""
    stranger.execute("SET session_replication_role = replica")
    yield
    stranger.execute("SET session_replication_role = DEFAULT")


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("DELETE FROM entry WHERE seq IN (4, 5, 9)", ["missing: 3 (4 to 5, 9)", "ledger 6: its hash does not follow"]),
        ("UPDATE entry SET kind = 'x' WHERE seq = 4", ["different: 1 (4)", "kind: have 'x', got 'receipt settled'",
                                                       "ledger 4: its hash does not follow from row 3 in the chain's"]),
        ("UPDATE posting SET amount = amount + 1 WHERE entry = 4 AND line = 0",
         ["different: 1 (4)", "receivable: 2034 EUR in the store, 2035 in the chain's book"]),
        ("DELETE FROM posting WHERE entry = 4 AND line = 0", ["different: 1 (4)"]),
        ("INSERT INTO posting VALUES ('shop', 4, 9, 'till', 'EUR', 5)", ["different: 1 (4)", "till: 0 EUR in the"]),
        ("INSERT INTO posting VALUES ('shop', 99, 0, 'till', 'EUR', 5)", ["ledger 99: postings in the chain's book"]),
        ("INSERT INTO entry SELECT store, 21, t_ns, kind, visit, key, details, hash FROM entry WHERE seq = 20",
         ["extra: 1 (21)", "the mark is at row 20, the newest row in the chain's book is 21"]),
        ("DELETE FROM entry WHERE seq = 20", ["missing: 1 (20)", "the mark is at row 20"]),
        ("UPDATE mark SET seq = 18 WHERE stream = 'ledger'", ["the mark is at row 18"]),
        ("UPDATE goods SET quantity = 9 WHERE seq = 2", ["different: 1 (2)", "quantity: have 9, got 2"]),
        ("DROP TRIGGER entry_delete ON entry", ["want the triggers ['entry_delete'], got none"]),
        ("ALTER TABLE entry DISABLE TRIGGER entry_delete", ["want the triggers ['entry_delete'], got none"]),
        ("CREATE OR REPLACE TRIGGER entry_delete BEFORE DELETE ON entry FOR EACH ROW WHEN (OLD.seq > 9) "
         "EXECUTE FUNCTION only_added()", ["trigger entry_delete: want CREATE TRIGGER", "WHEN (old.seq > 9)"]),
        ("CREATE OR REPLACE TRIGGER mark_update BEFORE UPDATE OF stream ON mark FOR EACH ROW "
         "EXECUTE FUNCTION only_forward()", ["trigger mark_update: want CREATE TRIGGER"]),
        ("CREATE OR REPLACE FUNCTION only_added() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$",
         ["function only_added: want its own text, got another"]),
        ("CREATE OR REPLACE FUNCTION local_time(t_ns BIGINT, zone TEXT) RETURNS TIMESTAMP LANGUAGE sql IMMUTABLE AS "
         "$$ SELECT now()::TIMESTAMP $$", ["function local_time: want its own text, got another"]),
        ("CREATE OR REPLACE VIEW lost_goods AS SELECT g.store, s.retailer, s.brand, current_date AS day, g.gtin, "
         "g.quantity::NUMERIC AS pieces FROM goods g JOIN store s ON s.id = g.store",
         ["view lost_goods: want its own text, got another"]),
        ("DROP VIEW sales", ["view sales: want its own text, got none"]),
        ("DROP VIEW sale CASCADE", ["view sale: want its own text, got none"]),
        ("ALTER TABLE posting DROP CONSTRAINT posting_pkey",
         ["key of posting: want PRIMARY KEY (store, entry, line), got none"]),
        ("UPDATE store SET currency = 'SEK', name = 'x'",
         ["store: currency: want 'EUR', got 'SEK'", "store: name: want 'Shop', got 'x'"]),
        ("UPDATE store SET timezone = 'Europe/Lisbon'", ["timezone: want 'Europe/Berlin', got 'Europe/Lisbon'"]),
        ("ALTER TABLE mark DROP CONSTRAINT mark_store_fkey; DELETE FROM store",
         ["store: want 'shop' in the chain's book, got none"]),
    ],
)  # fmt: skip
def test_reconcile_names_what_does_not_agree(shop: Shop, stranger: Any, statement: str, told: list[str]) -> None:
    fill(shop.ledger, 0, 10)
    shop.outbox.add(map(a_transfer, range(5)))
    shop.shipper().ship()
    assert shop.faults() == []
    with unguarded(stranger):
        assert stranger.execute(statement).rowcount
    (text,) = shop.faults()
    for words in told:
        assert words in text


def test_numbers_below_one_are_refused_and_found(shop: Shop, stranger: Any) -> None:
    fill(shop.ledger, 0, 10)
    shop.outbox.add([a_transfer(1)], [Warning(T_NS, WarningKind.CAMERA_BACK, "cam01")])
    shop.shipper().ship()
    for table in ("entry", "goods", "health", "posting"):
        column = "entry" if table == "posting" else "seq"
        columns = stranger.execute(f"SELECT * FROM {table} LIMIT 0").description
        names = [one.name for one in columns]
        for number in (0, -7, -(2**63)):
            copied = ", ".join(f"{number} AS seq" if name == column else name for name in names)
            insert = f"INSERT INTO {table} SELECT {copied} FROM {table} ORDER BY {column} LIMIT 1"
            with pytest.raises(psycopg.errors.CheckViolation):
                stranger.execute(insert)
            # Books of before the tables refused them.
            stranger.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_{column}_check")
            stranger.execute(insert)
            (text,) = shop.faults()
            words = "postings in the chain's book, and no entry" if table == "posting" else "extra: 1"
            assert words in text and f"{number}" in text
            with unguarded(stranger):
                stranger.execute(f"DELETE FROM {table} WHERE {column} < 1")
            stranger.execute(f"ALTER TABLE {table} ADD CONSTRAINT {table}_{column}_check CHECK ({column} > 0)")
    assert shop.faults() == []


def test_reconcile_of_a_store_that_was_changed(shop: Shop) -> None:
    fill(shop.ledger, 0, 10)
    shop.shipper().ship()
    shop.round_the_ledger("DELETE FROM posting WHERE entry = 6", "DELETE FROM entry WHERE seq = 6",
                          "UPDATE entry SET visit = 'other' WHERE seq = 12")  # fmt: skip
    (text,) = shop.faults()
    assert "extra: 1 (6)" in text and "different: 1 (12)" in text
    assert "ledger 7: its hash does not follow from row 5 in the store" in text
    assert "ledger 12: its hash does not follow from row 11 in the store" in text


def test_rows_that_are_not_shipped_yet_are_a_note(shop: Shop) -> None:
    fill(shop.ledger, 0, 10)
    shop.shipper().ship()
    fill(shop.ledger, 10, 3)
    ledger, goods, health = reconcile(shop.store, shop.sources, shop.book, batch=11)
    assert ledger.agrees and ledger.text().endswith("accounts agree; 6 rows not shipped yet")
    assert (ledger.n_store, ledger.n_chain, ledger.store_head.seq, ledger.chain_head.seq) == (26, 20, 20, 20)
    assert goods.agrees and health.agrees
    ledger = reconcile(shop.store, shop.sources, shop.book, all_shipped=True)[0]
    assert not ledger.agrees and "not shipped yet: 6 (21 to 26)" in ledger.text()
    # What will not be taken is wrong in any case.
    shop.round_the_ledger("UPDATE entry SET visit = 'other' WHERE seq = 25")
    (text,) = shop.faults()
    assert "ledger 25: its hash does not follow from row 24 in the store" in text


def test_reconcile_leaves_no_trace(shop: Shop, stranger: Any) -> None:
    fill(shop.ledger, 0, 3)
    shop.shipper().ship()
    count = "SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'v') AND relname NOT LIKE 'staged%'"
    before = stranger.execute(count).fetchone()
    assert shop.faults() == []
    assert stranger.execute(count).fetchone() == before
    assert shop.book.query("SELECT count(*) FROM entry") == [(6,)]


def test_many_differences_are_counted_and_some_named(shop: Shop, stranger: Any) -> None:
    fill(shop.ledger, 0, 100)
    shop.shipper(batch=1000).ship()
    with unguarded(stranger):
        stranger.execute("DELETE FROM entry WHERE seq % 2 = 0")
    (text,) = shop.faults()
    assert "missing: 100 (2, 4, 6" in text and "40, ...)" in text
    assert len(text.splitlines()) < 50


def test_the_book_is_only_added_to(shop: Shop, stranger: Any) -> None:
    fill(shop.ledger, 0, 3)
    shop.outbox.add([a_transfer(1)], [Warning(T_NS, WarningKind.CAMERA_BACK, "cam01")])
    shop.shipper().ship()
    for table in ("entry", "posting", "goods", "health", "book"):
        column = "id" if table == "book" else "store"
        for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}", f"TRUNCATE {table}"):
            with pytest.raises(psycopg.Error, match="only added to"):
                stranger.execute(statement)
    with pytest.raises(psycopg.Error, match="only moves forward"):
        stranger.execute("UPDATE mark SET seq = seq - 1")
    with pytest.raises(psycopg.Error, match="only added to"):
        stranger.execute("DELETE FROM mark")


def test_rows_beyond_the_mark_are_compared(shop: Shop, stranger: Any) -> None:
    fill(shop.ledger, 0, 10)
    shop.shipper().ship()
    with unguarded(stranger):
        # As a backup of some tables only would leave it.
        old = shop.sources[0].after(11, 1)[0]
        stranger.execute("UPDATE mark SET seq = 12, hash = %s WHERE stream = 'ledger'", (old.hash,))
    shop.shipper().ship()
    assert shop.faults() == []
    with unguarded(stranger):
        stranger.execute("UPDATE mark SET seq = 12, hash = %s WHERE stream = 'ledger'", (old.hash,))
        stranger.execute("UPDATE posting SET account = 'x' WHERE entry = 20 AND line = 0")
    with pytest.raises(IdempotencyConflict, match="ledger 20: postings: have"):
        shop.shipper().ship()


# ---- what is held and asked ------------------------------------------------------------------------------------------


def test_no_account_and_any_text(shop: Shop, stranger: Any) -> None:
    shop.ledger.open_visit("v\x00\x01\\.\t", "someone", T_NS)
    hostile = Reason(ReasonKind.NOTE, detail='"total":9},"vat"\x00')
    shop.ledger.post_receipt(replace(a_receipt(1, "review"), visit="v\x00\x01\\.\t", reasons=(hostile,)))
    shop.ledger.decide("v\x00\x01\\.\t", "waive", by="anna", t_ns=T_NS + 99, note="\x00é€")
    shop.shipper().ship()
    assert shop.faults() == []
    (row,) = shop.book.query("SELECT waived_visits, waived FROM shrink")
    assert row == (1, 226)
    for table in ("entry", "posting", "goods", "health", "store", "mark"):
        assert "someone" not in str(stranger.execute(f"SELECT * FROM {table}").fetchall())


def test_views(tmp_path: Path, url: str) -> None:
    berlin, lisbon = Shop(tmp_path, url), Shop(tmp_path, url, a_store("kiosk", "Europe/Lisbon"))
    ledger = berlin.ledger
    ledger.post_receipt(a_receipt(0))  # 10:04 in Berlin, 226
    ledger.post_receipt(a_receipt(1, t_ns=T_NS + HOUR_NS))  # 11:04
    ledger.post_receipt(a_receipt(2, "review", t_ns=T_NS + HOUR_NS))
    ledger.post_receipt(a_receipt(3, "review", t_ns=T_NS + 15 * HOUR_NS))  # 01:04 of the next day
    ledger.decide("v1", "correct", by="anna", t_ns=T_NS + 2 * HOUR_NS, lines=[ReceiptLine(GTINS[0], 1, 119, 1.0)])
    ledger.decide("v2", "accept", by="anna", t_ns=T_NS + 2 * HOUR_NS)
    ledger.decide("v3", "waive", by="anna", t_ns=T_NS + 16 * HOUR_NS)
    lisbon.ledger.post_receipt(replace(a_receipt(0), total=216), [Discount("ten", GTINS[0], 10)])
    berlin.outbox.add(
        [
            a_transfer(0), a_transfer(1, debit=UNKNOWN, quantity=5), a_transfer(2, debit=OUTSIDE),
            a_transfer(3, credit=UNKNOWN, quantity=2), a_transfer(4, debit=UNKNOWN, gtin=GTINS[1], quantity=1),
        ],
        [
            Warning(T_NS, WarningKind.CAMERA_OUTAGE, "cam01", seconds=2.0),
            Warning(T_NS + 9, WarningKind.CAMERA_BACK, "cam01"),
            Warning(T_NS + 5, WarningKind.PLATE_STUCK, "a1", seconds=10.0),
            Warning(T_NS + 99, WarningKind.CAMERA_OUTAGE, "cam01", seconds=2.0),
        ],
    )  # fmt: skip
    berlin.shipper(retailer=Retailer(id="r", name="R", brand="Fresh", stores=("shop",))).ship()
    berlin.shipper().ship()  # knows of no retailer: what is known stays
    lisbon.shipper().ship()
    query = berlin.book.query
    at = datetime.datetime
    assert query(
        "SELECT store, brand, hour, charges, reversals, net, vat, gross FROM sales ORDER BY store DESC, hour"
    ) == [
        ("shop", "Fresh", at(2026, 3, 3, 10), 1, 0, 200, 26, 226),
        ("shop", "Fresh", at(2026, 3, 3, 11), 1, 0, 200, 26, 226),
        ("shop", "Fresh", at(2026, 3, 3, 12), 1, 1, 100, 19, 119),
        ("kiosk", None, at(2026, 3, 3, 9), 1, 0, 192, 24, 216),
    ]
    # What a large chain asks instead, as in docs/chain.md.
    assert query(
        "SELECT brand, date_trunc('hour', at) AS hour, sum(gross) FROM sale WHERE t_ns >= extract(epoch FROM "
        "timestamptz '2026-03-03 11:00 Europe/Berlin')::BIGINT * 1000000000 GROUP BY brand, hour ORDER BY hour"
    ) == [("Fresh", at(2026, 3, 3, 11), 226), ("Fresh", at(2026, 3, 3, 12), 119)]
    day, next_day = datetime.date(2026, 3, 3), datetime.date(2026, 3, 4)
    assert query("SELECT day, receipts, reviews, review_rate, accepted, corrected, waived FROM reviews "
                 "WHERE store = %s ORDER BY day", ("shop",)) == [
        (day, 3, 1, Decimal("0.3333"), 1, 1, 0), (next_day, 1, 1, Decimal("1.0000"), 0, 0, 1)
    ]  # fmt: skip
    assert query("SELECT store, brand, day, waived_visits, waived, owing_visits, owing FROM shrink ORDER BY 1, 3") == [
        ("kiosk", None, day, 0, 0, 1, 216), ("shop", "Fresh", day, 0, 0, 3, 226 + 119 + 226),
        ("shop", "Fresh", next_day, 1, 226, 0, 0),
    ]  # fmt: skip
    assert query("SELECT day, gtin, pieces FROM lost_goods ORDER BY gtin") == [(day, GTINS[0], 3), (day, GTINS[1], 1)]
    assert query("SELECT subject, kind, warnings FROM sensor_health ORDER BY 1, 2") == [
        ("a1", "plate stuck", 1), ("cam01", "camera back", 1), ("cam01", "camera outage", 2)
    ]  # fmt: skip
    assert query("SELECT subject, kind FROM sensor_now ORDER BY 1") == [
        ("a1", "plate stuck"), ("cam01", "camera outage")
    ]  # fmt: skip
    with pytest.raises(LedgerError, match="read-only"):
        query("DELETE FROM mark")
    for shop in (berlin, lisbon):
        shop.close()


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


def test_books_in_postgresql_are_shipped_too(tmp_path: Path, url: str) -> None:
    store = a_store()
    with Ledger.open(url, store, vault=tmp_path / "vault.sqlite") as ledger, ChainBook(url) as book:
        fill(ledger, 0, 20)
        sources = sources_of(store, ledger)
        assert Shipper(store, sources, book, batch=9).run() == {"ledger": 40}
        assert [one.agrees for one in reconcile(store, sources, book)] == [True]


def test_another_currency_or_time_zone_is_refused(shop: Shop) -> None:
    shop.book.register(shop.store)
    with pytest.raises(LedgerError, match="want 'shop' in EUR as before, got SEK"):
        shop.book.register(shop.store.model_copy(update={"currency": "SEK"}))
    with pytest.raises(LedgerError, match="want a time zone that the server knows"):
        shop.book.register(shop.store.model_copy(update={"timezone": "Mars/Olympus"}))
    assert shop.book.query("SELECT currency, timezone FROM store") == [("EUR", "Europe/Berlin")]


@pytest.mark.parametrize("timezone", ["CET", "EET", "MET", "WET"])
def test_a_time_zone_that_the_server_reads_as_an_abbreviation_is_refused(shop: Shop, timezone: str) -> None:
    with pytest.raises(LedgerError, match=f"shop: timezone: want a name .* Europe/Brussels, got '{timezone}': "):
        shop.book.register(shop.store.model_copy(update={"timezone": timezone}))
    for good in ("Europe/Brussels", "UTC", "America/St_Johns", "Asia/Kathmandu", "Pacific/Apia"):
        shop.book.register(shop.store.model_copy(update={"timezone": good}))


# ---- the outbox ------------------------------------------------------------------------------------------------------


def test_an_outbox_keeps_once_and_refuses_change(tmp_path: Path) -> None:
    warning = Warning(T_NS, WarningKind.BROKER_LOST, "cam01", detail="x" * 5000)
    with Outbox(tmp_path / "out.sqlite", a_store()) as box:
        assert box.add(map(a_transfer, range(5)), [warning, a_receipt(1)]) == 6
        # As after a restart from a snapshot.
        assert box.add(map(a_transfer, range(3, 8)), [warning]) == 3
        with pytest.raises(IdempotencyConflict, match="shop/a1/4"):
            box.add([a_transfer(9), a_transfer(4, quantity=9)])
        assert [row[0] for row in box.rows_after("goods", 0, 100)] == list(range(1, 9))
        assert len(box.rows_after("health", 0, 9)[0][4]) == 2000
    with pytest.raises(LedgerError, match="want the outbox of 'kiosk'"):
        Outbox(tmp_path / "out.sqlite", a_store("kiosk"))
    connection = sqlite3.connect(tmp_path / "out.sqlite")
    for statement in ("DELETE FROM goods", "UPDATE health SET kind = ''", "UPDATE outbox SET store = 'kiosk'"):
        with pytest.raises(sqlite3.IntegrityError, match="only added to"):
            connection.execute(statement)
    connection.close()


# ---- commands --------------------------------------------------------------------------------------------------------


def test_commands(shop: Shop, stranger: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop.store.save(tmp_path / "store")
    (tmp_path / "chain.toml").write_text(
        'format_version = 1\n[[retailer]]\nid = "r"\nname = "R"\nbrand = "Fresh"\nstores = ["store"]\n'
    )
    fill(shop.ledger, 0, 10)
    shop.outbox.add([a_transfer(1)])
    where = [
        str(tmp_path / "store"), "--ledger", str(tmp_path / "shop.sqlite"), "--chain", shop.url,
        "--outbox", str(tmp_path / "shop.outbox.sqlite"),
    ]  # fmt: skip
    assert main(["reconcile", *where]) == 2
    assert "want a chain's book, got a database without one" in capsys.readouterr().err
    assert stranger.execute("SELECT to_regnamespace('chain') IS NULL").fetchone() == (True,)
    shop.book.register(shop.store)
    assert main(["reconcile", *where, "--all"]) == 1
    assert "not shipped yet: 20 (1 to 20)" in capsys.readouterr().out
    assert main(["reconcile", *where]) == 0
    assert "ledger: 20 rows in the store, 0 in the chain's book" in (said := capsys.readouterr().out)
    assert "; 20 rows not shipped yet\n" in said and "; 1 rows not shipped yet\n" in said
    assert main(["ship", *where, "--retailers", str(tmp_path / "chain.toml")]) == 0
    assert "shop: 20 rows of ledger, 1 rows of goods, 0 rows of health" in capsys.readouterr().out
    assert shop.book.query("SELECT brand FROM store") == [("Fresh",)]
    assert main(["reconcile", *where]) == 0
    assert "ledger: 20 rows in the store, 20 in the chain's book, head " in capsys.readouterr().out
    (tmp_path / "other.toml").write_text((tmp_path / "chain.toml").read_text().replace("Fresh", "Cheap"))
    for name, code in (("chain.toml", 0), ("other.toml", 1)):
        assert main(["reconcile", *where, "--retailers", str(tmp_path / name)]) == code
    assert "store: brand: want 'Cheap', got 'Fresh'" in capsys.readouterr().out
    assert main(["reconcile", *where[:-2]]) == 1
    assert "shop: goods: 1 rows in the chain's book, not compared (no --outbox)\n" in capsys.readouterr().out
    with unguarded(stranger):
        stranger.execute("DELETE FROM entry WHERE seq = 7")
    assert main(["reconcile", *where]) == 1
    assert "missing: 1 (7)" in capsys.readouterr().out


def test_a_command_says_what_it_cannot_do(shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop.store.save(tmp_path / "store")
    begin = ["ship", str(tmp_path / "store"), "--ledger", str(tmp_path / "shop.sqlite"), "--patience", "0", "--chain"]
    for url, said in (
        ("sqlite:///x", "want postgresql://server/database"),
        ("postgresql://anna:secret@localhost:1/none", "want a server that answers"),
        ("postgresql://anna:secret@localhost:port/none", "postgresql://localhost"),
    ):
        assert main([*begin, url]) == 2
        err = capsys.readouterr().err
        assert said in err and "secret" not in err
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
