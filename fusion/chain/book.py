"""The chain's book: every store's rows in one PostgreSQL database, each exactly once by (store, stream, number).

Three streams come from a store: `ledger` (entries with their postings), `goods` and `health` (see `outbox.py`). The
database itself says how far each has come: a mark that moves in the same transaction as the rows. Who ships asks for
the mark, sends what follows, and asks again when a connection was lost; what came before is compared, never written
over. Every row keeps the hash by which the store chained it, so the chain side proves the same chain. The vault, which
knows whose visit was whose, stays in the store. Extra `postgres`.
"""

from __future__ import annotations

import datetime
import math
import random
import re
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from fusion.errors import FusionError, IdempotencyConflict, LedgerError, extra
from fusion.live import outbox
from fusion.live.outbox import Outbox
from fusion.money.entries import Posting, canonical_bytes, chained_hash, genesis_hash
from fusion.money.ledger import Ledger
from fusion.money.postgres import escaped, first_line, unescaped
from fusion.money.retailers import Retailer
from fusion.money.schema import Row
from fusion.store.models import Store

FORMAT_VERSION = 1
# Rows of a batch: some 2 MB of entries, a tenth of a second.
BATCH = 5000
# How long to wait for another shipper of the same store, and for a server that does not answer.
BUSY_MAX_S = 10.0
SILENT_MAX_S = 30.0
# Wait after a lost connection: doubles from the first to the second.
BACKOFF_S = (0.5, 30.0)
# A shipper gives its connection back when it was not used for the first, and asks for the marks again after the second:
# a chain that came back from a backup holds less than it said.
IDLE_MAX_S, ASK_AGAIN_S = 60.0, 3600.0
# So many differences are named by number, the others counted.
NAMED_MAX = 20
# A server that will not let us in, now or later. It gives its reasons as text only; one that speaks another language
# than English is asked again and again.
_REFUSED = re.compile(
    'password authentication failed|no password supplied|no pg_hba.conf entry|is not permitted to log in|'
    '(database|role|user) "[^"]*" does not exist|permission denied for database|no such (database|user)'
)
_UNSHIPPED = "not shipped yet"
# Below every number that a row can have. Books of before the tables refused them may hold numbers below 1, which no
# store ships and the views count.
_BELOW_ALL = -(2**63) - 1

_COLUMNS = {
    "entry": "seq, t_ns, kind, visit, key, details, hash",
    "posting": "entry, line, account, currency, amount",
    **outbox.COLUMNS,
}
_STORE = "name, currency, timezone, retailer, brand"
_TABLE = {"ledger": "entry", "goods": "goods", "health": "health"}
_KEY = {"entry": "store, seq", "posting": "store, entry, line", "goods": "store, seq", "health": "store, seq"}
_TYPES = {
    **dict.fromkeys("seq t_ns quantity entry line amount".split(), "BIGINT"),
    "hash": "BYTEA",
}  # the others are text


def _table(table: str) -> str:
    columns = [f"{name} {_TYPES.get(name, 'TEXT')} NOT NULL" for name in _COLUMNS[table].split(", ")]
    # The first column is the row's number, or that of a posting's entry.
    columns[0] += f" CHECK ({columns[0].split()[0]} > 0)"
    return f"CREATE TABLE {table} (store TEXT NOT NULL, {', '.join(columns)}, PRIMARY KEY ({_KEY[table]}))"


_SCHEMA = (
    "CREATE SCHEMA chain",
    "CREATE TABLE book (id BIGINT PRIMARY KEY CHECK (id = 1), format_version BIGINT NOT NULL)",
    f"INSERT INTO book VALUES (1, {FORMAT_VERSION})",
    """CREATE TABLE store (id TEXT PRIMARY KEY, name TEXT NOT NULL, currency TEXT NOT NULL, timezone TEXT NOT NULL,
       retailer TEXT, brand TEXT)""",
    """CREATE TABLE mark (store TEXT NOT NULL REFERENCES store (id), stream TEXT NOT NULL, seq BIGINT NOT NULL,
       hash BYTEA NOT NULL, PRIMARY KEY (store, stream))""",
    *map(_table, _KEY),
    # Rows come nearly in order of time, so that a range of time needs no more than this of an index.
    "CREATE INDEX entry_by_time ON entry USING brin (t_ns)",
    """CREATE FUNCTION only_added() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN RAISE EXCEPTION 'the chain''s book is only added to'; END $$""",
    """CREATE FUNCTION only_forward() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN
         IF (NEW.store, NEW.stream) <> (OLD.store, OLD.stream) OR NEW.seq < OLD.seq THEN
           RAISE EXCEPTION 'a mark only moves forward';
         END IF;
         RETURN NEW;
       END $$""",
    *(
        f"CREATE TRIGGER {table}_{event} BEFORE {event.upper()} ON {table} "
        f"FOR EACH {'STATEMENT' if event == 'truncate' else 'ROW'} "
        f"EXECUTE FUNCTION {'only_forward' if (table, event) == ('mark', 'update') else 'only_added'}()"
        for table in ("book", "mark", *_KEY)
        for event in ("update", "delete", "truncate")
    ),
)

# What people ask for. Amounts are minor units, days and hours those of the store's own clock.
_VIEWS = (
    """CREATE FUNCTION local_time(t_ns BIGINT, zone TEXT) RETURNS TIMESTAMP LANGUAGE sql IMMUTABLE AS
       $$ SELECT to_timestamp((t_ns / 1000000000)::DOUBLE PRECISION) AT TIME ZONE zone $$""",
    # An entry's sales; what it reverses counts against it.
    """CREATE VIEW sale AS
       SELECT e.store, s.retailer, s.brand, e.seq, e.t_ns, local_time(e.t_ns, s.timezone) AS at, e.visit, e.kind,
              p.currency, -coalesce(sum(p.amount) FILTER (WHERE p.account LIKE 'revenue %'), 0) AS net,
              -coalesce(sum(p.amount) FILTER (WHERE p.account LIKE 'vat %'), 0) AS vat, -sum(p.amount) AS gross
       FROM entry e JOIN store s ON s.id = e.store JOIN posting p ON p.store = e.store AND p.entry = e.seq
       WHERE p.account LIKE 'revenue %' OR p.account LIKE 'vat %'
       GROUP BY e.store, s.retailer, s.brand, e.seq, s.timezone, p.currency""",
    """CREATE VIEW sales AS
       SELECT store, retailer, brand, date_trunc('hour', at) AS hour, currency, count(*) FILTER (WHERE gross > 0)
              AS charges, count(*) FILTER (WHERE gross < 0) AS reversals, sum(net) AS net, sum(vat) AS vat,
              sum(gross) AS gross
       FROM sale GROUP BY store, retailer, brand, hour, currency""",
    """CREATE VIEW reviews AS
       SELECT e.store, s.retailer, s.brand, local_time(e.t_ns, s.timezone)::DATE AS day,
              count(*) FILTER (WHERE e.kind LIKE 'receipt %') AS receipts,
              count(*) FILTER (WHERE e.kind = 'receipt review') AS reviews,
              round(count(*) FILTER (WHERE e.kind = 'receipt review')::NUMERIC
                    / nullif(count(*) FILTER (WHERE e.kind LIKE 'receipt %'), 0), 4) AS review_rate,
              count(*) FILTER (WHERE e.kind = 'decision accept') AS accepted,
              count(*) FILTER (WHERE e.kind = 'decision correct') AS corrected,
              count(*) FILTER (WHERE e.kind = 'decision waive') AS waived
       FROM entry e JOIN store s ON s.id = e.store
       WHERE e.kind IN ('receipt settled', 'receipt review', 'decision accept', 'decision correct', 'decision waive')
       GROUP BY e.store, s.retailer, s.brand, day""",
    # A receipt's details are canonical JSON, in which no text can hold an unescaped quote: the total is what stands
    # there. (Reading it as JSON would fail on text with a zero character, which PostgreSQL cannot hold.)
    """CREATE VIEW shrink AS
       WITH last_word AS (
         SELECT DISTINCT ON (store, visit) store, visit, kind FROM entry
         WHERE kind IN ('decision accept', 'decision correct', 'decision waive') ORDER BY store, visit, seq DESC
       ), owing AS (
         SELECT e.store, e.visit, sum(p.amount) AS amount
         FROM posting p JOIN entry e ON e.store = p.store AND e.seq = p.entry
         WHERE p.account = 'receivable' GROUP BY e.store, e.visit HAVING sum(p.amount) > 0
       )
       SELECT r.store, s.retailer, s.brand, local_time(r.t_ns, s.timezone)::DATE AS day, s.currency,
              count(*) FILTER (WHERE d.kind = 'decision waive') AS waived_visits,
              coalesce(sum(substring(r.details FROM '"total":([0-9]+)\\},"vat"')::BIGINT)
                FILTER (WHERE d.kind = 'decision waive'), 0) AS waived,
              count(o.visit) AS owing_visits, coalesce(sum(o.amount), 0) AS owing
       FROM entry r JOIN store s ON s.id = r.store
         LEFT JOIN last_word d ON d.store = r.store AND d.visit = r.visit
         LEFT JOIN owing o ON o.store = r.store AND o.visit = r.visit
       WHERE r.kind IN ('receipt settled', 'receipt review') AND (d.kind = 'decision waive' OR o.visit IS NOT NULL)
       GROUP BY r.store, s.retailer, s.brand, day, s.currency""",
    """CREATE VIEW lost_goods AS
       SELECT g.store, s.retailer, s.brand, local_time(g.t_ns, s.timezone)::DATE AS day, g.gtin,
              sum(CASE WHEN g.debit = 'unknown' THEN g.quantity ELSE -g.quantity END) AS pieces
       FROM goods g JOIN store s ON s.id = g.store WHERE g.debit = 'unknown' OR g.credit = 'unknown'
       GROUP BY g.store, s.retailer, s.brand, day, g.gtin""",
    """CREATE VIEW sensor_health AS
       SELECT h.store, s.retailer, s.brand, local_time(h.t_ns, s.timezone)::DATE AS day, h.kind, h.subject,
              count(*) AS warnings, local_time(min(h.t_ns), s.timezone) AS first,
              local_time(max(h.t_ns), s.timezone) AS last
       FROM health h JOIN store s ON s.id = h.store
       GROUP BY h.store, s.retailer, s.brand, s.timezone, day, h.kind, h.subject""",
    """CREATE VIEW sensor_now AS
       SELECT DISTINCT ON (h.store, h.subject) h.store, s.retailer, s.brand, h.subject, h.kind, h.message,
              local_time(h.t_ns, s.timezone) AS since
       FROM health h JOIN store s ON s.id = h.store ORDER BY h.store, h.subject, h.t_ns DESC, h.seq DESC""",
)


def _registered(store: Store, retailer: Retailer | None, held: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the chain's book should say about a store; of retailer and brand, what it held where nothing is known."""
    held = held or {}
    return {
        "name": store.name, "currency": store.currency, "timezone": store.timezone,
        "retailer": held.get("retailer") if retailer is None else retailer.id,
        "brand": held.get("brand") if retailer is None else retailer.brand,
    }  # fmt: skip


def _statements(*kinds: str) -> list[str]:
    return [one for one in (*_SCHEMA, *_VIEWS) if one.split()[:2] in [["CREATE", kind] for kind in kinds]]


def _function(statement: str) -> tuple[str, list[str]]:
    """Name, language and text of a function."""
    head, text, _ = statement.split("$$")
    words = head.split()
    return words[2].partition("(")[0], [words[words.index("LANGUAGE") + 1], text]


def _definition_faults(wanted: Mapping[tuple[str, str], str], held: Mapping[tuple[str, str], str]) -> list[str]:
    missing = sorted(name for kind, name in wanted.keys() - held.keys() if kind == "trigger")
    faults = [f"want the triggers {missing}, got none"] if missing else []
    for (kind, name), definition in wanted.items():
        got = held.get((kind, name))
        if got == definition or (got is None and kind == "trigger"):
            continue
        if kind == "view":
            faults.append(f"view {name}: want its own text, got {'none' if got is None else 'another'}")
        else:
            faults.append(f"{kind} {name}: want {definition}, got {'none' if got is None else got}")
    return faults


class ConnectionLost(LedgerError):
    """The server cannot be reached, or went away half-way, or the store's file is another's for a while.

    What was asked for may have been done: ask for the mark.
    """


class _Silent(Exception):
    """The server has not answered for too long."""


@dataclass(frozen=True, slots=True)
class Record:
    """A row of a stream as the store holds it: first its number, last its hash; an entry's postings beside it."""

    row: Row
    postings: tuple[Posting, ...] = ()

    @property
    def seq(self) -> int:
        return int(self.row[0])

    @property
    def hash(self) -> bytes:
        return bytes(self.row[-1])


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a stream has come: number and hash of its newest row, 0 and the genesis where there is none."""

    seq: int
    hash: bytes


class Source(Protocol):
    """One stream of a store, to be read from any number on."""

    stream: str
    genesis: bytes

    def newest(self) -> int:
        """Number of the newest row, 0 where there is none."""
        ...

    def after(self, seq: int, limit: int) -> list[Record]:
        """At most `limit` rows after a number, in their order."""
        ...


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Books on a server of the store's own may be out of reach too, and a file may be another's for a while."""
    try:
        yield
    except LedgerError as error:
        passes = _passes(error.__cause__)
        raise (ConnectionLost if passes else LedgerError)(f"{what}: {error}") from error


def _passes(cause: BaseException | None) -> bool:
    """Whether what went wrong may be right again by itself."""
    if isinstance(cause, sqlite3.Error):
        # The low byte is the kind of error, the others say more of it.
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    with extra("postgres"):
        import psycopg

    return isinstance(cause, (psycopg.OperationalError, psycopg.InterfaceError)) and not _REFUSED.search(str(cause))


class LedgerSource:
    """The store's books."""

    stream = "ledger"

    def __init__(self, ledger: Ledger, store: Store) -> None:
        self._ledger = ledger
        self.genesis = genesis_hash(store.id, store.currency)

    def newest(self) -> int:
        with _reading(self.stream):
            return self._ledger.head().seq

    def after(self, seq: int, limit: int) -> list[Record]:
        with _reading(self.stream):
            return _records(*self._ledger.rows_after(seq, limit))


class OutboxSource:
    """One of the two streams of a store's outbox."""

    def __init__(self, box: Outbox, stream: str) -> None:
        self._box, self.stream = box, stream
        self.genesis = outbox.genesis(box.store, stream)

    def newest(self) -> int:
        with _reading(self.stream):
            return self._box.newest(self.stream)

    def after(self, seq: int, limit: int) -> list[Record]:
        with _reading(self.stream):
            return [Record(row) for row in self._box.rows_after(self.stream, seq, limit)]


def sources_of(store: Store, ledger: Ledger, box: Outbox | None = None) -> tuple[Source, ...]:
    """Everything that a store ships."""
    books: tuple[Source, ...] = (LedgerSource(ledger, store),)
    return books if box is None else (*books, *(OutboxSource(box, stream) for stream in outbox.STREAMS))


def digest(stream: str, previous: bytes, record: Record) -> bytes:
    """What a row's hash should be after its predecessor's."""
    row = record.row
    if stream == "ledger":
        seq, t_ns, kind, visit, key, details, _ = row
        return chained_hash(previous, canonical_bytes(seq, t_ns, kind, visit, key, details, record.postings))
    return outbox.chained(previous, row[:-1])


def _records(entries: Sequence[Row], postings: Iterable[Row]) -> list[Record]:
    legs = {entry: tuple(Posting(*leg[2:]) for leg in rows) for entry, rows in groupby(postings, lambda row: row[0])}
    return [Record(row, legs.get(row[0], ())) for row in entries]


class ChainBook:
    """The chain's database, schema `chain`; any number of shippers and readers use it at the same time.

    Used by one thread at a time. Connects when first needed, and anew after a connection was lost.
    """

    def __init__(self, url: str, *, begin: bool = True) -> None:
        """
        Args:
            begin: make the tables where there are none; otherwise that is an error.

        Raises:
            LedgerError: this is no postgresql:// URL.
        """
        if not url.startswith(("postgresql://", "postgres://")):
            raise LedgerError("--chain: want postgresql://server/database, got something else")
        with extra("postgres"):
            import psycopg

        self._psycopg = psycopg
        # The last two: the server gave up on a silent client, or has become a copy of another one.
        self._lost = (
            psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.IdleInTransactionSessionTimeout,
            psycopg.errors.ReadOnlySqlTransaction,
        )  # fmt: skip
        parts = urlsplit(url)
        self.where = f"postgresql://{parts.hostname or ''}{parts.path}"  # never a password
        try:
            settings = psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            raise LedgerError(f"{self.where}: want a URL, got: {first_line(error)}") from None
        # A line that fell silent is noticed within this time, unless the URL says otherwise.
        patience: dict[str, Any] = {
            "connect_timeout": round(BUSY_MAX_S), "keepalives_idle": 10, "keepalives_interval": 5,
            "keepalives_count": 4, "tcp_user_timeout": round(SILENT_MAX_S * 1000), "application_name": "fusion ship",
        }  # fmt: skip
        self._settings = {**patience, **settings}
        self._begins = begin
        self._connection: Any = None
        self._n_connections = 0
        self._silent_max_s: float | None = None
        book = self

        class Watched(psycopg.Connection[Any]):
            """Waits for the server no longer than the book does."""

            def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
                try:
                    return super().wait(book._answered(gen), *args, **options)
                except _Silent as silent:
                    # Before anybody waits again, to end a COPY or roll back.
                    self.close()
                    raise psycopg.OperationalError(str(silent)) from None

        self._connection_type = Watched

    # ---- writing -----------------------------------------------------------------------------------------------------

    def register(self, store: Store, retailer: Retailer | None = None) -> None:
        """Note whose rows will come: name, currency, time zone; retailer and brand stay as they were where None.

        Writes only where something is new. For every new connection, for what the server knew before it may be gone.

        Raises:
            LedgerError: the store was known with another currency, or the server reads its time zone otherwise.
            ConnectionLost: the server cannot be reached.
        """
        with self._transaction() as connection:
            self._same_clock(connection, store)
            held = self._held(connection, store.id)
            if held is not None and held == _registered(store, retailer, held):
                return
            (currency,) = connection.execute(
                f"""INSERT INTO store (id, {_STORE}) VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO UPDATE SET
                   name = excluded.name, timezone = excluded.timezone,
                   retailer = coalesce(excluded.retailer, store.retailer), brand = coalesce(excluded.brand, store.brand)
                   RETURNING currency""",
                (store.id, *_registered(store, retailer).values()),
            ).fetchone()
            if currency != store.currency:
                raise LedgerError(f"{self.where}: want {store.id!r} in {currency} as before, got {store.currency}")

    def _same_clock(self, connection: Any, store: Store) -> None:
        """The views show the store's own clock: a name such as CET is an abbreviation to PostgreSQL, without summer."""
        now_s = int(time.time())
        instants = [now_s + month * 30 * 86400 for month in range(-12, 13)]
        try:
            rows = connection.execute(
                "SELECT s, extract(epoch FROM to_timestamp(s) AT TIME ZONE %s)::BIGINT - s FROM unnest(%s::BIGINT[]) s",
                (store.timezone, instants),
            ).fetchall()
        except self._psycopg.DataError as error:
            raise LedgerError(f"{self.where}: want a time zone that the server knows, got: {error}") from None
        zone = ZoneInfo(store.timezone)
        for s, offset_s in rows:
            at = datetime.datetime.fromtimestamp(s, zone)
            if at.utcoffset() != datetime.timedelta(seconds=offset_s):
                there = datetime.datetime.fromtimestamp(s + offset_s, datetime.UTC)
                raise LedgerError(
                    f"{self.where}: {store.id}: timezone: want a name that the server reads as the store does, such as "
                    f"Europe/Brussels, got {store.timezone!r}: {at:%Y-%m-%d %H:%M} in the store is {there:%H:%M} there"
                )

    def _held(self, connection: Any, store: str) -> dict[str, Any] | None:
        row = connection.execute(f"SELECT {_STORE} FROM store WHERE id = %s", (store,)).fetchone()
        return None if row is None else dict(zip(_STORE.split(", "), row))

    def add(self, store: str, source: Source, records: Sequence[Record]) -> Mark:
        """Add the next rows of a stream, all or none; the mark moves with them. Rows that are there are compared.

        Args:
            records: rows without a gap between them, beginning at the mark's next or before.

        Raises:
            IdempotencyConflict: another row stands there under the same number, or what comes does not follow from what
                is there by its hash.
            LedgerError: rows are missing between the mark and the first one.
            ConnectionLost: the server went away; whether the rows are there says the mark.
        """
        stream = source.stream
        with self._transaction() as connection:
            mark = self._mark(connection, store, source, lock=True)
            if not records:
                return mark
            first, last = records[0].seq, records[-1].seq
            gap = next((seq for seq, one in enumerate(records, first) if one.seq != seq), None)
            if first > mark.seq + 1 or gap is not None:
                got = f"{first} to {last}" + ("" if gap is None else f" without {gap}")
                raise LedgerError(f"{store}: {stream}: want rows from {mark.seq + 1} on, got {got}")
            n_known = max(mark.seq + 1 - first, 0)
            self._compare(connection, store, stream, records[:n_known])
            fresh = records[n_known:]
            if not fresh:
                return mark
            previous = mark.hash
            for one in fresh:
                if digest(stream, previous, one) != one.hash:
                    raise IdempotencyConflict(f"{store}: {stream} {one.seq}: does not follow from what is before it")
                previous = one.hash
            legs = [(one.seq, i, *leg) for one in fresh for i, leg in enumerate(one.postings)]
            n_added = self._insert(connection, store, _TABLE[stream], [one.row for one in fresh])
            n_legs = self._insert(connection, store, "posting", legs) if legs else 0
            if (n_added, n_legs) != (len(fresh), len(legs)):
                # Rows beyond the mark, such as from a backup of some tables only: harmless where they are the same.
                self._compare(connection, store, stream, fresh)
            mark = Mark(last, previous)
            connection.execute(
                "UPDATE mark SET seq = %s, hash = %s WHERE store = %s AND stream = %s",
                (mark.seq, mark.hash, store, stream),
            )
        return mark

    def _mark(self, connection: Any, store: str, source: Source, lock: bool = False) -> Mark:
        if lock:
            connection.execute(
                "INSERT INTO mark VALUES (%s, %s, 0, %s) ON CONFLICT DO NOTHING", (store, source.stream, source.genesis)
            )
        found = connection.execute(
            f"SELECT seq, hash FROM mark WHERE store = %s AND stream = %s {'FOR UPDATE' if lock else ''}",
            (store, source.stream),
        ).fetchone()
        return Mark(0, source.genesis) if found is None else Mark(*found)

    def _insert(self, connection: Any, store: str, table: str, rows: Sequence[Row]) -> int:
        """Rows by way of a table of the connection's own, so that those that are there already are left alone."""
        columns = _COLUMNS[table]
        connection.execute(
            f"CREATE TEMP TABLE IF NOT EXISTS staged_{table} ON COMMIT DELETE ROWS AS "
            f"SELECT {columns} FROM chain.{table} WITH NO DATA"
        )
        with connection.cursor() as cursor:
            with cursor.copy(f"COPY staged_{table} ({columns}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row([escaped(value) for value in row])
            cursor.execute(
                f"INSERT INTO {table} (store, {columns}) SELECT %s, {columns} FROM staged_{table} "
                "ON CONFLICT DO NOTHING",
                (store,),
            )
            return int(cursor.rowcount)

    def _compare(self, connection: Any, store: str, stream: str, records: Sequence[Record]) -> None:
        if not records:
            return
        held = {one.seq: one for one in self._after(connection, store, stream, records[0].seq - 1, len(records))}
        for one in records:
            other = held.get(one.seq)
            if other is None:
                raise IdempotencyConflict(f"{store}: {stream} {one.seq}: was taken out of the chain's book")
            if other != one:
                raise IdempotencyConflict(f"{store}: {stream} {one.seq}: {difference(stream, other, one)}")

    # ---- reading -----------------------------------------------------------------------------------------------------

    def mark(self, store: str, source: Source) -> Mark:
        """How far a stream has come."""
        with self._transaction(write=False) as connection:
            return self._mark(connection, store, source)

    def after(self, store: str, stream: str, seq: int, limit: int) -> list[Record]:
        """At most `limit` rows of a store's stream after a number, in their order."""
        with self._transaction(write=False) as connection:
            return self._after(connection, store, stream, seq, limit)

    def _after(self, connection: Any, store: str, stream: str, seq: int, limit: int) -> list[Record]:
        table = _TABLE[stream]
        found = connection.execute(
            f"SELECT {_COLUMNS[table]} FROM {table} WHERE store = %s AND seq > %s ORDER BY seq LIMIT %s",
            (store, seq, limit),
        )
        rows = [tuple(map(unescaped, row)) for row in found]
        if stream != "ledger" or not rows:
            return [Record(row) for row in rows]
        legs = connection.execute(
            f"SELECT {_COLUMNS['posting']} FROM posting WHERE store = %s AND entry BETWEEN %s AND %s "
            "ORDER BY entry, line",
            (store, rows[0][0], rows[-1][0]),
        )
        return _records(rows, (tuple(map(unescaped, leg)) for leg in legs))

    def end(self, store: str, source: Source) -> tuple[Mark, Mark]:
        """The mark of a stream, and its newest row whatever the mark says."""
        table = _TABLE[source.stream]
        with self._transaction(write=False) as connection:
            mark = self._mark(connection, store, source)
            row = connection.execute(
                f"SELECT seq, hash FROM {table} WHERE store = %s ORDER BY seq DESC LIMIT 1", (store,)
            ).fetchone()
        return mark, Mark(0, source.genesis) if row is None else Mark(*row)

    def schema_faults(self) -> list[str]:
        """What is wrong with the functions, views, triggers and keys, compared with those of tables made anew.

        Makes them as temporary tables, in a transaction that is rolled back; wants a server that can be written to.
        """
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT p.proname, l.lanname, p.prosrc FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang "
                "WHERE p.pronamespace = 'chain'::regnamespace"
            ).fetchall()
            functions = dict(map(_function, _statements("FUNCTION")))
            held: dict[str, list[list[str]]] = {}  # a second one under the same name has no business there
            for name, *text in rows:
                held.setdefault(name, []).append(text)
            faults = [
                f"function {name}: want its own text, got {'another' if name in held else 'none'}"
                for name, text in functions.items() if held.get(name) != [text]
            ]  # fmt: skip
            if not faults:  # otherwise there is nothing for tables made anew to use
                with connection.transaction(force_rollback=True):
                    connection.execute("SET LOCAL search_path = pg_temp, chain")
                    for statement in _statements("TABLE", "TRIGGER", "VIEW"):
                        connection.execute(statement)
                    wanted = self._definitions(connection, "pg_my_temp_schema()")
                    # Names are written as they are found.
                    connection.execute("SET LOCAL search_path = chain, pg_temp")
                    faults = _definition_faults(wanted, self._definitions(connection, "'chain'::regnamespace"))
        return [f"{self.where}: {fault}" for fault in faults]

    def _definitions(self, connection: Any, schema: str) -> dict[tuple[str, str], str]:
        """Views, triggers that are on, and keys of the tables, by kind and name."""
        rows = connection.execute(
            f"""SELECT 'view', relname, pg_get_viewdef(oid) FROM pg_class
               WHERE relnamespace = {schema} AND relkind = 'v'
               UNION ALL
               SELECT 'trigger', tgname, pg_get_triggerdef(t.oid, true)
               FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
               WHERE relnamespace = {schema} AND NOT tgisinternal AND tgenabled IN ('O', 'A')
               UNION ALL
               SELECT 'key of', relname, pg_get_constraintdef(k.oid)
               FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
               WHERE relnamespace = {schema} AND contype = 'p'"""
        )
        return {(kind, name): definition for kind, name, definition in rows}

    def store_faults(self, store: Store, retailer: Retailer | None = None) -> list[str]:
        """In what the chain's book says otherwise about a store itself."""
        with self._transaction(write=False) as connection:
            held = self._held(connection, store.id)
        if held is None:
            return [f"store: want {store.id!r} in the chain's book, got none"]
        wanted = _registered(store, retailer, held)
        return [
            f"store: {name}: want {wanted[name]!r}, got {held[name]!r}" for name in held if held[name] != wanted[name]
        ]

    def count(self, store: str, stream: str) -> int:
        """How many rows of a stream there are."""
        with self._transaction(write=False, long=True) as connection:
            row = connection.execute(f"SELECT count(*) FROM {_TABLE[stream]} WHERE store = %s", (store,)).fetchone()
        return int(row[0])

    def orphans(self, store: str) -> list[int]:
        """Numbers of entries that have postings and are not there, at most `NAMED_MAX`."""
        with self._transaction(write=False, long=True) as connection:
            rows = connection.execute(
                "SELECT DISTINCT p.entry FROM posting p WHERE p.store = %s AND NOT EXISTS "
                "(SELECT 1 FROM entry e WHERE e.store = p.store AND e.seq = p.entry) ORDER BY 1 LIMIT %s",
                (store, NAMED_MAX),
            ).fetchall()
        return [row[0] for row in rows]

    def query(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Rows of a question, such as `SELECT * FROM sales WHERE store = %s`; changes nothing."""
        with self._transaction(write=False, long=True) as connection:
            return [tuple(row) for row in connection.execute(statement, values)]

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _answered(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """The steps of one wait, which ends where nothing comes for too long: a server may hold the line for ever.

        Such as one that waits for a standby which is gone; its own statement_timeout does not end that.
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
            elif self._silent_max_s is not None and now - since > self._silent_max_s:
                raise _Silent(f"no answer for {now - since:.0f} s")

    @contextmanager
    def _transaction(self, write: bool = True, long: bool = False) -> Iterator[Any]:
        """
        Args:
            long: one statement may take as long as it likes.
        """
        error = self._psycopg.Error
        self._silent_max_s = None if long else SILENT_MAX_S
        try:
            if self._connection is None or self._connection.closed:
                self._connect()
            connection = self._connection
            connection.execute("BEGIN" if write else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                self._give_up()
                raise
        except self._lost as lost:
            self.close()
            raise ConnectionLost(f"{self.where}: want a server that answers, got: {first_line(lost)}") from lost
        except error as refused:
            raise LedgerError(f"{self.where}: want the chain's book, got: {first_line(refused)}") from refused

    def _give_up(self) -> None:
        try:
            self._connection.execute("ROLLBACK")
        except self._psycopg.Error:
            self.close()

    def _connect(self) -> None:
        try:
            self._connection = self._connection_type.connect(**self._settings, autocommit=True)
        except self._psycopg.OperationalError as error:
            # Several addresses of one name are several lines.
            told = " ".join(str(error).split())
            if _REFUSED.search(told):
                raise LedgerError(f"{self.where}: want a server that lets us in, got: {told}") from error
            raise self._psycopg.OperationalError(told) from error
        self._n_connections += 1
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        run = self._connection.execute
        run("SET client_min_messages = warning")
        run("SET search_path = chain, pg_temp")
        run("SET synchronous_commit = on")
        run(f"SET lock_timeout = '{BUSY_MAX_S:.0f}s'")
        # A shipper that died half-way without its line being cut does not hold up the next one.
        run(f"SET idle_in_transaction_session_timeout = '{SILENT_MAX_S:.0f}s'")
        run("SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 4")
        # Asked of the tables themselves: what to_regclass did not find once, it does not look for again.
        present = (
            "SELECT count(*) > 0 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE (n.nspname, c.relname) = ('chain', 'book')"
        )
        if not run(present).fetchone()[0]:
            if not self._begins:
                raise LedgerError(f"{self.where}: want a chain's book, got a database without one")
            with self._connection.transaction():
                run("SELECT pg_advisory_xact_lock(hashtext('fusion chain'))")
                if not run(present).fetchone()[0]:
                    for statement in (*_SCHEMA, *_VIEWS):
                        run(statement)
        found = run("SELECT format_version FROM book").fetchone()
        if found != (FORMAT_VERSION,):
            raise LedgerError(f"{self.where}: want a chain's book of format {FORMAT_VERSION}, got {found}")

    @property
    def session(self) -> int | None:
        """Which connection this is, counted from 1; None where there is none."""
        return None if self._connection is None or self._connection.closed else self._n_connections

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> ChainBook:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def difference(stream: str, have: Record, got: Record) -> str:
    """In what two rows under the same number differ."""
    names = (*_COLUMNS[_TABLE[stream]].split(", "), "postings")
    pairs = zip(names, (*have.row, have.postings), (*got.row, got.postings))
    return "; ".join(f"{name}: have {_brief(a)}, got {_brief(b)}" for name, a, b in pairs if a != b)


def _brief(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()[:16]
    if isinstance(value, tuple):
        value = [tuple(one) for one in value]
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


# ---- shipping --------------------------------------------------------------------------------------------------------


class Stop(Protocol):
    """Says when to end, such as a `threading.Event`."""

    def is_set(self) -> bool: ...

    def wait(self, timeout: float) -> object: ...


class Shipper:
    """Brings a store's rows to the chain's book, and keeps on doing so whatever happens to the line.

    Holds one batch in memory. The store's own process neither knows of it nor waits for it.
    """

    def __init__(
        self,
        store: Store,
        sources: Sequence[Source],
        book: ChainBook,
        *,
        retailer: Retailer | None = None,
        batch: int = BATCH,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        if batch < 1:
            raise FusionError(f"batch: want at least one row, got {batch}")
        self._store, self._sources, self._book, self._retailer = store, tuple(sources), book, retailer
        self._batch, self._tell = batch, tell
        # Of the connection in which the store was registered and the marks were asked for.
        self._session: int | None = None
        self._marks: dict[str, int] = {}
        self._asked = False
        # Two thousand shippers should not all come back in the same instant.
        self._jitter = random.Random(store.id)

    def ship(self) -> dict[str, int]:
        """Bring everything that is there now. Returns how many rows were sent, by stream.

        Raises:
            IdempotencyConflict: the store's row under a number is not the one that the chain's book holds.
            LedgerError: the store holds less than the chain's book.
            ConnectionLost: what was sent so far stays; call again.
        """
        self._asked = False
        if self._book.session != self._session:
            self._marks.clear()  # the connection was lost, and maybe what the server knew
        return {source.stream: self._ship(source) for source in self._sources}

    def _ship(self, source: Source) -> int:
        # The chain is asked only where the store has something new: most of thousands of shippers are idle.
        held = self._marks.pop(source.stream, None)
        if held is not None and held == source.newest():
            self._marks[source.stream] = held
            return 0
        self._asked = True
        if self._book.session is None or self._book.session != self._session:
            self._book.register(self._store, self._retailer)
            self._marks.clear()
            self._session = self._book.session
        store, n_sent = self._store.id, 0
        mark = self._book.mark(store, source)
        begin = mark
        while True:
            # The mark's own row comes first again at the beginning, to see that it is still the same.
            known = n_sent == 0 and mark.seq > 0
            records = source.after(mark.seq - known, self._batch + known)
            if known:
                self._same(source, mark, records)
                records = records[1:]
            if not records:
                break
            mark = self._book.add(store, source, records)
            n_sent += len(records)
        self._marks[source.stream] = mark.seq
        if n_sent:
            self._tell(f"{store}: {source.stream} {begin.seq + 1} to {mark.seq}")
        return n_sent

    def _give_back(self) -> None:
        """Leave the connection to others; the marks stay known until the next one."""
        self._book.close()
        self._session = None

    def _same(self, source: Source, mark: Mark, records: Sequence[Record]) -> None:
        where = f"{self._store.id}: {source.stream} {mark.seq}"
        if not records or records[0].seq != mark.seq:
            got = f"{records[0].seq}" if records else "an earlier end"
            raise LedgerError(f"{where}: want the row that the chain's book holds, got {got}")
        if records[0].hash != mark.hash:
            got = records[0].hash.hex()[:16]
            raise IdempotencyConflict(f"{where}: the chain's book holds {mark.hash.hex()[:16]}, the store {got}")

    def run(
        self,
        *,
        follow: bool = False,
        every_s: float = 1.0,
        patience_s: float | None = None,
        stop: Stop | None = None,
        wait: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> dict[str, int]:
        """Ship until everything is there, or for good; a lost connection is waited for.

        Args:
            follow: go on for new rows until `stop` is set.
            every_s: how often to look for new rows in the store. The chain is asked where there are some, and once in
                `ASK_AGAIN_S`; a connection that was not used for `IDLE_MAX_S` is given back.
            patience_s: how long a connection may stay away before `ConnectionLost` is raised; None: for ever.
            wait: how to wait for some seconds; by default for `stop`.

        Returns the number of rows sent in all, by stream; raises as `ship` does, but for lost connections.
        """
        if not 0 < every_s < math.inf:
            raise FusionError(f"every_s: want more than 0 seconds, got {every_s}")
        stop = stop or threading.Event()
        wait = wait or stop.wait
        total = Counter[str]()
        backoff_s, since, used = BACKOFF_S[0], None, clock()
        while not stop.is_set():
            try:
                total.update(self.ship())
            except ConnectionLost as error:
                now = clock()
                since = now if since is None else since
                if patience_s is not None and now - since >= patience_s:
                    raise
                pause_s = backoff_s * self._jitter.uniform(0.5, 1.0)
                self._tell(f"{self._store.id}: {error}; again in {pause_s:.1f} s")
                wait(pause_s)
                backoff_s = min(2 * backoff_s, BACKOFF_S[1])
                continue
            if since is not None:
                self._tell(f"{self._store.id}: connected again")
            backoff_s, since = BACKOFF_S[0], None
            if not follow:
                break
            now = clock()
            if self._asked:
                used = now
            elif now - used >= ASK_AGAIN_S:
                self._marks.clear()
            elif now - used >= IDLE_MAX_S:
                self._give_back()
            wait(every_s)
        return dict(total)


# ---- reconciling -----------------------------------------------------------------------------------------------------


@dataclass
class Agreement:
    """One stream of a store, compared row by row.

    Attributes:
        compared: whether the store's rows were at hand.
        all_shipped: whether rows that are not shipped yet are a disagreement too.
        n_store, n_chain: rows on each side.
        store_head, chain_head: the newest row of each side, of those that are shipped.
        counts, ranges: how many rows do not agree, and their first and last numbers, by what is wrong: `missing` and
            `not shipped yet` in the chain's book, `different`, `extra` in the chain's book.
        faults: the first of them in words, and everything else that is wrong.
        store_sums, chain_sums: ledger only: balance of each (currency, account), by the rows that are shipped.
    """

    stream: str
    compared: bool = True
    all_shipped: bool = False
    n_store: int = 0
    n_chain: int = 0
    store_head: Mark = Mark(0, b"")
    chain_head: Mark = Mark(0, b"")
    counts: Counter[str] = field(default_factory=Counter)
    ranges: dict[str, list[list[int]]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    store_sums: Counter[tuple[str, str]] = field(default_factory=Counter)
    chain_sums: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def agrees(self) -> bool:
        wrong = self.counts.keys() - (set() if self.all_shipped else {_UNSHIPPED})
        alike = self.store_head == self.chain_head and _some(self.store_sums) == _some(self.chain_sums)
        return self.compared and alike and not wrong and not self.faults

    def note(self, what: str, seq: int) -> None:
        """Something is wrong with one row; neighbours are noted as one range, and only so many ranges kept."""
        self.counts[what] += 1
        ranges = self.ranges.setdefault(what, [])
        if ranges and ranges[-1][1] == seq - 1:
            ranges[-1][1] = seq
        elif len(ranges) <= NAMED_MAX:
            ranges.append([seq, seq])

    def fault(self, text: str) -> None:
        if len(self.faults) < NAMED_MAX:
            self.faults.append(text)

    def text(self) -> str:
        """What was found, as people read it."""
        if not self.compared:
            why = " (no --outbox)" if self.stream in outbox.STREAMS else ""
            return f"{self.stream}: {self.n_chain} rows in the chain's book, not compared{why}"
        head = f"{self.stream}: {self.n_store} rows in the store, {self.n_chain} in the chain's book"
        if self.agrees:
            sums = f", {len(_some(self.store_sums))} accounts agree" if self.stream == "ledger" else ""
            late = f"; {self.counts[_UNSHIPPED]} rows not shipped yet" if self.counts[_UNSHIPPED] else ""
            return f"{head}, head {self.store_head.hash.hex()[:16]}{sums}{late}"
        lines = [head]
        for what, count in self.counts.items():
            named = [f"{a}" if a == b else f"{a} to {b}" for a, b in self.ranges[what][:NAMED_MAX]]
            more = ", ..." if len(self.ranges[what]) > NAMED_MAX else ""
            lines.append(f"  {what}: {count} ({', '.join(named)}{more})")
        lines += [f"  {fault}" for fault in self.faults]
        for currency, account in sorted(self.store_sums.keys() | self.chain_sums.keys()):
            a, b = self.store_sums[currency, account], self.chain_sums[currency, account]
            if a != b:
                lines.append(f"  {account}: {a} {currency} in the store, {b} in the chain's book")
        return "\n".join(lines)


def reconcile(
    store: Store,
    sources: Sequence[Source],
    book: ChainBook,
    batch: int = BATCH,
    *,
    retailer: Retailer | None = None,
    all_shipped: bool = False,
) -> list[Agreement]:
    """Compare every row of a store with the chain's book, both ways, and check every hash.

    Rows that the store adds meanwhile are left out. Holds two batches in memory.

    Args:
        retailer: whose store the chain's book should say it is; None: whatever it says.
        all_shipped: rows beyond the mark, which are not shipped yet, are a disagreement too.

    Returns what was found of each source, and of each other stream of which the chain's book holds rows.

    Raises:
        ConnectionLost, LedgerError: one of the two cannot be read.
    """
    found = [_compared(store.id, source, book, batch, all_shipped) for source in sources]
    if found:
        faults = book.schema_faults() + book.store_faults(store, retailer)
        faults += [f"ledger {entry}: postings in the chain's book, and no entry" for entry in book.orphans(store.id)]
        found[0].faults[:0] = faults
    for stream in sorted(_TABLE.keys() - {source.stream for source in sources}):
        n_chain = book.count(store.id, stream)
        if n_chain:
            found.append(Agreement(stream, compared=False, n_chain=n_chain))
    return found


def _compared(store: str, source: Source, book: ChainBook, batch: int, all_shipped: bool) -> Agreement:
    stream, genesis = source.stream, source.genesis
    result = Agreement(stream, all_shipped=all_shipped)
    # What the chain's book holds when its end is read, the store holds a moment later. Rows that came to the store in
    # between are left out on both sides; beyond them, the chain's book can only hold what the store does not.
    store_end = source.newest()
    mark, end = book.end(store, source)
    later = source.newest()
    chain = (
        one for one in _read(lambda seq: book.after(store, stream, seq, batch), _BELOW_ALL, end.seq)
        if one.seq <= store_end or one.seq > later
    )  # fmt: skip
    ours = _read(lambda seq: source.after(seq, batch), -1, store_end)
    if mark != end:
        result.fault(f"{stream}: the mark is at row {mark.seq}, the newest row in the chain's book is {end.seq}")
    result.store_head = result.chain_head = Mark(0, genesis)
    side = {"store": Mark(0, genesis), "chain's book": Mark(0, genesis)}
    a, b = next(ours, None), next(chain, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a.seq < b.seq):
            assert a is not None
            shipped = a.seq <= mark.seq
            result.note("missing" if shipped else _UNSHIPPED, a.seq)
            _follow(result, side, "store", a, shipped)
            a = next(ours, None)
        elif a is None or b.seq < a.seq:
            result.note("extra", b.seq)
            _follow(result, side, "chain's book", b)
            b = next(chain, None)
        else:
            if a != b:
                result.note("different", a.seq)
                result.fault(f"{stream} {a.seq}: {difference(stream, b, a)}")
            _follow(result, side, "store", a)
            _follow(result, side, "chain's book", b)
            a, b = next(ours, None), next(chain, None)
    return result


def _read(after: Callable[[int], list[Record]], seq: int, end: int) -> Iterator[Record]:
    while records := after(seq):
        for one in records:
            if one.seq > end:
                return
            yield one
        seq = records[-1].seq


def _follow(result: Agreement, side: dict[str, Mark], whose: str, record: Record, shipped: bool = True) -> None:
    """Count a row on its side, and check that its hash follows from the one before."""
    before = side[whose]
    if record.seq != before.seq + 1 or digest(result.stream, before.hash, record) != record.hash:
        result.fault(f"{result.stream} {record.seq}: its hash does not follow from row {before.seq} in the {whose}")
    side[whose] = Mark(record.seq, record.hash)
    if whose == "store":
        result.n_store += 1
    else:
        result.n_chain += 1
    if not shipped:
        return
    if whose == "store":
        result.store_head, sums = side[whose], result.store_sums
    else:
        result.chain_head, sums = side[whose], result.chain_sums
    for leg in record.postings:
        sums[leg.currency, leg.account] += leg.amount


def _some(sums: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    return {name: amount for name, amount in sums.items() if amount}
