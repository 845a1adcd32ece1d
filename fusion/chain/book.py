"""The chain's book: every store's rows in one PostgreSQL database, each exactly once by (store, stream, number).

A store ships three streams: `ledger` (entries with their postings), `goods` and `health` (see `live/outbox.py`). The
database itself holds how far each has come: a mark that moves in the same transaction as the rows. A shipper asks for
the mark, sends the rows after it, and asks again after a lost connection; rows that are there already are compared,
never overwritten. Every row keeps the hash by which the store chained it, so the chain's book proves the same chain.
The vault, which links visits to accounts, stays in the store. Needs the extra `postgres`.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any
from zoneinfo import ZoneInfo

from fusion.chain.connection import SILENT_MAX_S, Server
from fusion.chain.quarantine import quarantine
from fusion.chain.roles import UNBOUNDED, roles_sql
from fusion.chain.schema import COLUMNS, STORE_COLUMNS, TABLE_OF_STREAM, schema_faults
from fusion.chain.streams import Mark, Record, Source, difference, digest, records
from fusion.errors import IdempotencyConflict, LedgerError
from fusion.money.postgres import escaped, unescaped
from fusion.money.retailers import Retailer
from fusion.money.schema import Row
from fusion.store.models import Store

# At most this many differences are named by number; the others are counted.
NAMED_MAX = 20


class ChainBook:
    """The chain's database, schema `chain`; any number of shippers and readers use it at the same time.

    Used by one thread at a time. Connects when first needed, and again after a connection was lost.
    """

    def __init__(
        self,
        url: str,
        *,
        create: bool = True,
        silent_max_s: float = SILENT_MAX_S,
        wrap: Callable[[Any], Any] = lambda connection: connection,
    ) -> None:
        """Prepare to use a database; see `Server` for the arguments.

        Raises:
            LedgerError: this is no postgresql:// URL.
        """
        self._server = Server(url, create=create, silent_max_s=silent_max_s, wrap=wrap)

    # ---- writing -----------------------------------------------------------------------------------------------------

    def register(self, store: Store, retailer: Retailer | None = None) -> None:
        """Note the store whose rows will come: name, currency, time zone, and retailer and brand where given.

        Writes only where something is new. Needed on every new connection: the server may have lost what it knew.

        Raises:
            LedgerError: the store was registered with another currency, or the server reads its time zone differently.
            ConnectionLost: the server cannot be reached.
        """
        with self._transaction() as connection:
            self._check_timezone(connection, store)
            held = _held(connection, store.id)
            if held is not None and held == _registered(store, retailer, held):
                return
            (currency,) = connection.execute(
                f"""INSERT INTO store (id, {STORE_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s)
                   ON CONFLICT (id) DO UPDATE SET name = excluded.name, timezone = excluded.timezone,
                   retailer = coalesce(excluded.retailer, store.retailer), brand = coalesce(excluded.brand, store.brand)
                   RETURNING currency""",
                (store.id, *_registered(store, retailer).values()),
            ).fetchone()
            if currency != store.currency:
                fixed = f"the currency of {store.id!r} is {currency} and cannot change to {store.currency}"
                raise LedgerError(f"{self._server.where}: {fixed}")

    def _check_timezone(self, connection: Any, store: Store) -> None:
        """Refuse a time zone that the server reads differently over two years around now.

        The views show the store's own clock, and PostgreSQL takes names such as CET for abbreviations without summer
        time.
        """
        now_s = int(time.time())
        instants = [now_s + month * 30 * 86400 for month in range(-12, 13)]
        try:
            rows = connection.execute(
                "SELECT s, extract(epoch FROM to_timestamp(s) AT TIME ZONE %s)::BIGINT - s FROM unnest(%s::BIGINT[]) s",
                (store.timezone, instants),
            ).fetchall()
        except self._server.driver.DataError as error:
            raise LedgerError(f"{self._server.where}: the server does not know the time zone: {error}") from None
        zone = ZoneInfo(store.timezone)
        for s, offset_s in rows:
            at = datetime.datetime.fromtimestamp(s, zone)
            if at.utcoffset() != datetime.timedelta(seconds=offset_s):
                there = datetime.datetime.fromtimestamp(s + offset_s, datetime.UTC)
                raise LedgerError(
                    f"{self._server.where}: {store.id}: timezone: want a name that the server reads as the store does, "
                    f"such as Europe/Brussels, got {store.timezone!r}: {at:%Y-%m-%d %H:%M} in the store is "
                    f"{there:%H:%M} there"
                )

    def add(self, store: str, source: Source, rows: Sequence[Record]) -> Mark:
        """Add the next rows of a stream, all or none, and move its mark; rows that are there already are compared.

        Args:
            store: id of the store.
            source: the stream.
            rows: rows without a gap between them, the first at most one past the mark.

        Returns:
            The mark after these rows.

        Raises:
            IdempotencyConflict: the book holds another row under the same number, or the hash of a row does not follow
                from the row before it.
            LedgerError: rows are missing between the mark and the first one.
            ConnectionLost: the server went away; the mark shows whether the rows were added.
        """
        stream = source.stream
        with self._transaction() as connection:
            mark = _locked_mark(connection, store, source)
            if not rows:
                return mark
            first, last = rows[0].seq, rows[-1].seq
            gap = next((seq for seq, row in enumerate(rows, first) if row.seq != seq), None)
            if first > mark.seq + 1 or gap is not None:
                got = f"{first} to {last}" + ("" if gap is None else f" without {gap}")
                raise LedgerError(f"{store}: {stream}: want rows from {mark.seq + 1} on, got {got}")
            n_known = max(mark.seq + 1 - first, 0)
            _compare(connection, store, stream, rows[:n_known])
            fresh = rows[n_known:]
            if not fresh:
                return mark
            previous = mark.hash
            for row in fresh:
                if digest(stream, previous, row) != row.hash:
                    where = f"{store}: {stream} {row.seq}"
                    raise IdempotencyConflict(f"{where}: its hash does not follow from row {row.seq - 1}")
                previous = row.hash
            postings = [(row.seq, i, *posting) for row in fresh for i, posting in enumerate(row.postings)]
            n_added = _insert(connection, store, TABLE_OF_STREAM[stream], [row.row for row in fresh])
            n_postings = _insert(connection, store, "posting", postings) if postings else 0
            if (n_added, n_postings) != (len(fresh), len(postings)):
                # Rows beyond the mark, such as from a backup of some tables only: harmless where they are the same.
                _compare(connection, store, stream, fresh)
            connection.execute(
                "UPDATE mark SET seq = %s, hash = %s WHERE store = %s AND stream = %s", (last, previous, store, stream)
            )
        return Mark(last, previous)

    # ---- the owner ---------------------------------------------------------------------------------------------------

    def set_up_roles(self, stores: Iterable[tuple[Store, Retailer | None]]) -> None:
        """Run the script of `roles_sql`; the tables are created where there are none.

        Raises:
            LedgerError: the server's role may not.
            ConnectionLost: the server cannot be reached.
        """
        script = roles_sql(stores).removeprefix("BEGIN;").removesuffix("COMMIT;\n")
        with self._transaction() as connection:
            connection.execute(script)

    def quarantine(self, store: str, stream: str, first: int, why: str) -> int:
        """Set aside the rows of a stream from a number on, see `quarantine.quarantine`; returns how many."""
        with self._transaction() as connection:
            return quarantine(connection, store, stream, first, why)

    def unbounded_role(self) -> str:
        """The role of this connection where it may write rows of every store; "" where row security bounds it."""
        with self._transaction(write=False) as connection:
            role, unbounded = connection.execute(UNBOUNDED).fetchone()
        return str(role) if unbounded else ""

    # ---- reading -----------------------------------------------------------------------------------------------------

    def mark(self, store: str, source: Source) -> Mark:
        """How far a stream has come."""
        with self._transaction(write=False) as connection:
            return _mark(connection, store, source)

    def after(self, store: str, stream: str, seq: int, limit: int) -> list[Record]:
        """At most `limit` rows of a store's stream after a number, in order."""
        with self._transaction(write=False) as connection:
            return _after(connection, store, stream, seq, limit)

    def end(self, store: str, source: Source) -> tuple[Mark, Mark]:
        """The mark of a stream, and its newest row whatever the mark is."""
        table = TABLE_OF_STREAM[source.stream]
        with self._transaction(write=False) as connection:
            mark = _mark(connection, store, source)
            row = connection.execute(
                f"SELECT seq, hash FROM {table} WHERE store = %s ORDER BY seq DESC LIMIT 1", (store,)
            ).fetchone()
        return mark, Mark(0, source.genesis) if row is None else Mark(*row)

    def schema_faults(self) -> list[str]:
        """How the functions, views, triggers and keys differ from those of newly created tables."""
        with self._transaction() as connection:
            return [f"{self._server.where}: {fault}" for fault in schema_faults(connection)]

    def store_faults(self, store: Store, retailer: Retailer | None = None) -> list[str]:
        """How the registration of a store differs from the store."""
        with self._transaction(write=False) as connection:
            held = _held(connection, store.id)
        if held is None:
            return [f"store: want {store.id!r} in the chain's book, got none"]
        wanted = _registered(store, retailer, held)
        return [
            f"store: {name}: want {wanted[name]!r}, got {held[name]!r}" for name in held if held[name] != wanted[name]
        ]

    def count(self, store: str, stream: str) -> int:
        """Number of rows of a stream."""
        with self._transaction(write=False, long=True) as connection:
            query = f"SELECT count(*) FROM {TABLE_OF_STREAM[stream]} WHERE store = %s"
            return int(connection.execute(query, (store,)).fetchone()[0])

    def orphans(self, store: str) -> list[int]:
        """Numbers of missing entries that have postings, at most `NAMED_MAX`."""
        with self._transaction(write=False, long=True) as connection:
            rows = connection.execute(
                "SELECT DISTINCT p.entry FROM posting p WHERE p.store = %s AND NOT EXISTS "
                "(SELECT 1 FROM entry e WHERE e.store = p.store AND e.seq = p.entry) ORDER BY 1 LIMIT %s",
                (store, NAMED_MAX),
            ).fetchall()
        return [row[0] for row in rows]

    def query(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Rows of a query, such as `SELECT * FROM sales WHERE store = %s`; changes nothing."""
        with self._transaction(write=False, long=True) as connection:
            return [tuple(row) for row in connection.execute(statement, values)]

    # ---- the connection ----------------------------------------------------------------------------------------------

    def _transaction(self, write: bool = True, long: bool = False) -> AbstractContextManager[Any]:
        return self._server.transaction(write, long)

    @property
    def session(self) -> int | None:
        """Number of the current connection, counted from 1; None while not connected."""
        return self._server.session

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        self._server.close()

    def __enter__(self) -> ChainBook:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _registered(store: Store, retailer: Retailer | None, held: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the chain's book should hold about a store; without a retailer, the one that it holds now."""
    held = held or {}
    return {
        "name": store.name,
        "currency": store.currency,
        "timezone": store.timezone,
        "retailer": held.get("retailer") if retailer is None else retailer.id,
        "brand": held.get("brand") if retailer is None else retailer.brand,
    }


def _held(connection: Any, store: str) -> dict[str, Any] | None:
    row = connection.execute(f"SELECT {STORE_COLUMNS} FROM store WHERE id = %s", (store,)).fetchone()
    return None if row is None else dict(zip(STORE_COLUMNS.split(", "), row))


def _mark(connection: Any, store: str, source: Source, lock: str = "") -> Mark:
    row = connection.execute(
        f"SELECT seq, hash FROM mark WHERE store = %s AND stream = %s {lock}", (store, source.stream)
    ).fetchone()
    return Mark(0, source.genesis) if row is None else Mark(*row)


def _locked_mark(connection: Any, store: str, source: Source) -> Mark:
    """The mark, created where it is missing, and locked until the transaction ends."""
    connection.execute(
        "INSERT INTO mark VALUES (%s, %s, 0, %s) ON CONFLICT DO NOTHING", (store, source.stream, source.genesis)
    )
    return _mark(connection, store, source, "FOR UPDATE")


def _insert(connection: Any, store: str, table: str, rows: Sequence[Row]) -> int:
    """Add rows by way of a temporary table, so that existing ones stay as they are. Returns the number of new rows."""
    columns = COLUMNS[table]
    connection.execute(
        f"CREATE TEMP TABLE IF NOT EXISTS staged_{table} ON COMMIT DELETE ROWS AS "
        f"SELECT {columns} FROM chain.{table} WITH NO DATA"
    )
    with connection.cursor() as cursor:
        with cursor.copy(f"COPY staged_{table} ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row([escaped(value) for value in row])
        cursor.execute(
            f"INSERT INTO {table} (store, {columns}) SELECT %s, {columns} FROM staged_{table} ON CONFLICT DO NOTHING",
            (store,),
        )
        return int(cursor.rowcount)


def _compare(connection: Any, store: str, stream: str, rows: Sequence[Record]) -> None:
    """Raise IdempotencyConflict where the book does not hold these rows unchanged."""
    if not rows:
        return
    held = {row.seq: row for row in _after(connection, store, stream, rows[0].seq - 1, len(rows))}
    for row in rows:
        other = held.get(row.seq)
        if other is None:
            raise IdempotencyConflict(f"{store}: {stream} {row.seq}: the row was deleted from the chain's book")
        if other != row:
            raise IdempotencyConflict(f"{store}: {stream} {row.seq}: {difference(stream, other, row)}")


def _after(connection: Any, store: str, stream: str, seq: int, limit: int) -> list[Record]:
    table = TABLE_OF_STREAM[stream]
    found = connection.execute(
        f"SELECT {COLUMNS[table]} FROM {table} WHERE store = %s AND seq > %s ORDER BY seq LIMIT %s", (store, seq, limit)
    )
    rows = [tuple(map(unescaped, row)) for row in found]
    if stream != "ledger" or not rows:
        return [Record(row) for row in rows]
    postings = connection.execute(
        f"SELECT {COLUMNS['posting']} FROM posting WHERE store = %s AND entry BETWEEN %s AND %s ORDER BY entry, line",
        (store, rows[0][0], rows[-1][0]),
    )
    return records(rows, (tuple(map(unescaped, posting)) for posting in postings))
