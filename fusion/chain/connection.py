"""A connection to the chain's PostgreSQL that notices when the server falls silent, and that creates the tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from fusion.chain.schema import FORMAT_VERSION, SCHEMA
from fusion.chain.streams import REFUSED, ConnectionLost
from fusion.errors import LedgerError, extra
from fusion.money.postgres import first_line
from fusion.money.server_urls import checked_server

# How long to wait for another shipper of the same store, and for a server that does not answer.
BUSY_MAX_S = 10.0
SILENT_MAX_S = 30.0


class _Silent(Exception):
    """The server has not answered for too long."""


class Server:
    """The server of the chain's book: connects when first needed, and again after a connection was lost.

    Used by one thread at a time.

    Attributes:
        where: the server and database for messages, without user and password.
        driver: the package psycopg.
    """

    def __init__(
        self,
        url: str,
        *,
        create: bool = True,
        silent_max_s: float = SILENT_MAX_S,
        wrap: Callable[[Any], Any] = lambda connection: connection,
    ) -> None:
        """Prepare to connect.

        Args:
            url: postgresql://server/database?sslmode=verify-full; without the mode only on this machine.
            create: create the tables where there are none; otherwise their absence is an error.
            silent_max_s: a server that does not answer for this long counts as lost.
            wrap: called with every new connection; returns the one to use, such as one that a test can cut.

        Raises:
            LedgerError: the URL is not one of PostgreSQL, or names another machine without a check of its certificate.
        """
        if not url.startswith(("postgresql://", "postgres://")):
            raise LedgerError("the chain's database is not a PostgreSQL URL; pass postgresql://server/database?sslmode=verify-full")
        with extra("postgres"):
            import psycopg

        self.driver = psycopg
        # The last two: the server gave up on a silent client, or has become a copy of another server.
        self._lost = (
            psycopg.OperationalError,
            psycopg.InterfaceError,
            psycopg.errors.IdleInTransactionSessionTimeout,
            psycopg.errors.ReadOnlySqlTransaction,
        )
        self.where = checked_server(url)
        settings = psycopg.conninfo.conninfo_to_dict(url)
        # A dead connection is noticed within this time, unless the URL sets other limits.
        patience: dict[str, Any] = {
            "connect_timeout": round(BUSY_MAX_S),
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 4,
            "tcp_user_timeout": round(SILENT_MAX_S * 1000),
            "application_name": "fusion ship",
        }
        self._settings = {**patience, **settings}
        self._create, self._silent_max_s, self._wrap = create, silent_max_s, wrap
        self._connection_type = self._watched_type()
        self._connection: Any = None
        self._n_connections = 0
        self._waits_max_s: float | None = None

    def _watched_type(self) -> Any:
        """A connection type that waits for the server no longer than this object allows."""
        server = self
        operational_error = self.driver.OperationalError

        class Watched(self.driver.Connection[Any]):  # type: ignore[misc, name-defined]
            def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
                try:
                    return super().wait(server._limited(gen), *args, **options)
                except _Silent as silent:
                    # Closed at once: ending a COPY or a rollback would wait for the server again.
                    self.close()
                    raise operational_error(str(silent)) from None

        return Watched

    def _limited(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """The steps of one wait, which ends where nothing arrives for too long.

        A server may keep a line open without answering, such as one that waits for a standby that is gone; its own
        statement_timeout does not end that.
        """
        since, ready = time.monotonic(), None
        while True:
            try:
                wanted = gen.send(ready)
            except StopIteration as done:
                return done.value
            ready = yield wanted
            now = time.monotonic()
            if ready:
                since = now
            elif self._waits_max_s is not None and now - since > self._waits_max_s:
                raise _Silent(f"no answer for {now - since:.0f} s")

    @property
    def session(self) -> int | None:
        """Number of the current connection, counted from 1; None while not connected."""
        return None if self._connection is None or self._connection.closed else self._n_connections

    @contextmanager
    def transaction(self, write: bool = True, long: bool = False) -> Iterator[Any]:
        """A transaction on a connection of psycopg; committed at the end, rolled back after an error.

        Args:
            write: whether it may change rows; otherwise it reads one consistent state.
            long: whether a statement may take as long as it needs.

        Raises:
            ConnectionLost: the server cannot be reached, or went away.
            LedgerError: the server refuses a statement.
        """
        self._waits_max_s = None if long else self._silent_max_s
        try:
            if self._connection is None or self._connection.closed:
                self._connect()
            connection = self._connection
            connection.execute("BEGIN" if write else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        except self._lost as lost:
            self.close()
            raise ConnectionLost(f"{self.where}: the server does not answer: {first_line(lost)}") from lost
        except self.driver.Error as refused:
            raise LedgerError(f"{self.where}: the chain's book cannot be used: {first_line(refused)}") from refused

    def _roll_back(self) -> None:
        try:
            self._connection.execute("ROLLBACK")
        except self.driver.Error:
            self.close()

    def _connect(self) -> None:
        try:
            self._connection = self._wrap(self._connection_type.connect(**self._settings, autocommit=True))
        except self.driver.OperationalError as error:
            # The message has a line for each address of the host.
            reason = " ".join(str(error).split())
            if REFUSED.search(reason):
                raise LedgerError(f"{self.where}: the server refuses the login: {reason}") from error
            raise self.driver.OperationalError(reason) from error
        self._n_connections += 1
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        """Settings of a new connection; the tables where they are missing; the format."""
        run = self._connection.execute
        run("SET client_min_messages = warning")
        run("SET search_path = chain, pg_temp")
        run("SET synchronous_commit = on")
        run(f"SET lock_timeout = '{BUSY_MAX_S:.0f}s'")
        # A shipper that died without closing its connection must not hold up the next shipper.
        run(f"SET idle_in_transaction_session_timeout = '{SILENT_MAX_S:.0f}s'")
        run("SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 4")
        # The catalogue is queried directly because to_regclass caches a miss.
        present = (
            "SELECT count(*) > 0 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE (n.nspname, c.relname) = ('chain', 'book')"
        )
        if not run(present).fetchone()[0]:
            if not self._create:
                raise LedgerError(f"{self.where}: the database has no chain's book; `fusion ship` creates it")
            with self._connection.transaction():
                run("SELECT pg_advisory_xact_lock(hashtext('fusion chain'))")
                if not run(present).fetchone()[0]:
                    for statement in SCHEMA:
                        run(statement)
        version = run("SELECT format_version FROM book").fetchone()
        if version != (FORMAT_VERSION,):
            raise LedgerError(f"{self.where}: want a chain's book of format {FORMAT_VERSION}, got {version}")

    def close(self) -> None:
        """Close the connection; the next transaction opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
