"""The chain's book of a simulated shop, on a real PostgreSQL that loses connections, its power and its newest rows.

A shop keeps its own books in files and ships its rows each evening, as `fusion ship` does. Connections are cut before
and after any statement, a commit among them, so that the shipper cannot know what became of it; the server stops as in
a power failure; and a copy that lags behind takes its place, which holds fewer rows than were acknowledged.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from chain.shops import Line  # the tests' own

from bench.endurance.year.auditor import Auditor
from fusion.chain.book import ChainBook
from fusion.chain.shipping import Shipper
from fusion.chain.streams import sources_of
from fusion.live.outbox import Outbox
from fusion.money.ledger import Ledger
from fusion.store.models import Store

# Of an evening: connections that are cut, power failures, and copies that are made or take the server's place.
CUTS, POWER_FAILURES, COPIES, FAILOVERS = 0.7, 0.25, 0.5, 0.3
# A cut comes at one of so many statements; those of an evening are about as many.
STATEMENTS = 25
ENTRIES = "SELECT seq, t_ns, kind, visit, key, details FROM chain.entry ORDER BY seq"
POSTINGS = "SELECT entry, account, currency, amount FROM chain.posting ORDER BY entry, line"


class Chain:
    """The chain's book for one shop."""

    def __init__(self, server: Any, store: Store, reached: Callable[..., object]) -> None:
        self._server, self._store, self._reached = server, store, reached
        self._line, self._n_shipped, self._has_copy = Line(), 0, False
        self._run("postgres", "CREATE DATABASE book")
        self._book = ChainBook(self._url("book"), wrap=self._line.wrap)

    def evening(self, rng: random.Random, folder: Path, auditor: Auditor) -> None:
        """Ship what the shop has, under faults; then, without them, until everything is there, and compare."""
        if self._has_copy and rng.random() < FAILOVERS:
            self._fail_over()
        if rng.random() < POWER_FAILURES:
            self._lose_power()
        with ExitStack() as stack:
            ledger = stack.enter_context(Ledger.open(folder / f"{self._store.id}.sqlite", self._store))
            outbox = stack.enter_context(Outbox(folder / "outbox.sqlite", self._store))
            stack.callback(self._book.close)  # each evening is a process of its own
            sources = sources_of(self._store, ledger, outbox)
            shipper = Shipper(self._store, sources, self._book, batch=rng.choice([3, 50]))

            def wait(seconds: float) -> None:
                self._reached("chain: a connection was lost")
                if rng.random() < POWER_FAILURES:
                    self._lose_power()

            if rng.random() < CUTS:
                self._line.cut(rng.randrange(1, STATEMENTS), rng.random() < 0.5)
            shipper.run(wait=wait)
            self._line.mend()
            self._reached("chain: shipped")
        with self._connected("book") as connection:
            rows, postings = connection.execute(ENTRIES).fetchall(), connection.execute(POSTINGS).fetchall()
            goods = connection.execute("SELECT * FROM chain.goods").fetchall()
        auditor.audit_chain(rows, postings, goods)
        if rng.random() < COPIES:
            if self._has_copy:
                self._run("postgres", "DROP DATABASE copy")
            self._run("postgres", "CREATE DATABASE copy TEMPLATE book")
            self._has_copy = True

    def _fail_over(self) -> None:
        """The copy, which was made some evenings ago, takes the place of the book."""
        for statement in ("DROP DATABASE book", "ALTER DATABASE copy RENAME TO book"):
            self._run("postgres", statement)
        self._has_copy = False
        self._reached("chain: a copy that lagged took over")

    def _lose_power(self) -> None:
        from pgserver._commands import pg_ctl

        pg_ctl(["-w", "-m", "immediate", "stop"], pgdata=self._server.pgdata, user=self._server.system_user)
        self._server.ensure_postgres_running()
        self._reached("chain: the server lost its power")

    def _url(self, database: str) -> str:
        return str(self._server.get_uri(database))

    @contextmanager
    def _connected(self, database: str) -> Iterator[Any]:
        import psycopg

        with psycopg.connect(self._url(database), autocommit=True) as connection:
            yield connection

    def _run(self, database: str, statement: str) -> None:
        with self._connected(database) as connection:
            connection.execute(statement)


@contextmanager
def opened_chain(store: Store, reached: Callable[..., object]) -> Iterator[Chain | None]:
    """A chain's book on a server of its own; None where no PostgreSQL is installed."""
    try:
        import pgserver
    except ImportError:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="year-chain-") as folder:
        Path(folder).chmod(0o755)  # where we are root, the server is another user
        server = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield Chain(server, store, reached)
        finally:
            server.ensure_postgres_running()
            server.cleanup()
