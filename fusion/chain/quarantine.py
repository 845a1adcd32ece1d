"""Rows that do not belong into the chain's book: its owner sets them aside, and the shipper sends the store's again.

A row that another party wrote under a store's name stops that store's shipper, since nothing in the book is ever
overwritten. Set aside, it stays readable in `chain.quarantined`, with who did so, when and why.
"""

from __future__ import annotations

from typing import Any

from fusion.chain.schema import TABLE_OF_STREAM
from fusion.errors import LedgerError
from fusion.live import outbox
from fusion.money.entries import genesis_hash

_TABLE = (
    """CREATE TABLE IF NOT EXISTS quarantined (at TIMESTAMPTZ NOT NULL, by_role TEXT NOT NULL, why TEXT NOT NULL,
       store TEXT NOT NULL, stream TEXT NOT NULL, from_table TEXT NOT NULL, seq BIGINT NOT NULL,
       content JSONB NOT NULL)""",
    *(
        f"CREATE OR REPLACE TRIGGER quarantined_{event} BEFORE {event.upper()} ON quarantined "
        f"FOR EACH {'STATEMENT' if event == 'truncate' else 'ROW'} EXECUTE FUNCTION only_added()"
        for event in ("update", "delete", "truncate")
    ),
)


def quarantine(connection: Any, store: str, stream: str, first: int, why: str) -> int:
    """Set aside the rows of a store's stream from a number on, and move its mark back before them.

    Args:
        connection: of psycopg, inside a transaction; its role owns the tables.
        store: id of the store.
        stream: ledger, goods or health.
        first: number of the first row to set aside. All after it follow from it by their hashes, so they go too.
        why: kept beside the rows.

    Returns:
        The number of rows set aside; of the ledger, its postings count as well.

    Raises:
        LedgerError: there are no such rows, or the row before them is missing.
    """
    if stream not in TABLE_OF_STREAM:
        raise LedgerError(f"stream: want {', '.join(TABLE_OF_STREAM)}, got {stream!r}")
    if not why.strip():
        raise LedgerError("why: want the reason for which rows are set aside, got none")
    run = connection.execute
    for statement in _TABLE:
        run(statement)
    tables = {TABLE_OF_STREAM[stream]: "seq"} | ({"posting": "entry"} if stream == "ledger" else {})
    for table in ("mark", *tables):  # In a shipper's order; none writes until this is done.
        run(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
    n = 0
    for table, number in tables.items():
        n += run(
            f"INSERT INTO quarantined SELECT now(), session_user, %s, t.store, %s, %s, t.{number}, to_jsonb(t) "
            f"FROM {table} t WHERE store = %s AND {number} >= %s",
            (why, stream, table, store, first),
        ).rowcount
    if not n:
        raise LedgerError(f"{store}: {stream}: want rows from {first} on in the chain's book, got none")
    for table, number in tables.items():
        statement = f"DELETE FROM {table} WHERE store = %s AND {number} >= %s"
        _unguarded(connection, table, "delete", statement, store, first)
    mark = run("SELECT seq FROM mark WHERE store = %s AND stream = %s", (store, stream)).fetchone()
    if mark is not None and mark[0] >= first:
        before = _hash_before(connection, store, stream, first)
        statement = "UPDATE mark SET seq = %s, hash = %s WHERE store = %s AND stream = %s"
        _unguarded(connection, "mark", "update", statement, first - 1, before, store, stream)
    return n


def _unguarded(connection: Any, table: str, event: str, statement: str, *values: object) -> None:
    """Run a statement that a table's trigger refuses; only the owner of the table can."""
    connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER {table}_{event}")
    connection.execute(statement, values)
    connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER {table}_{event}")


def _hash_before(connection: Any, store: str, stream: str, first: int) -> bytes:
    """The hash that row `first` follows from."""
    if first > 1:
        row = connection.execute(
            f"SELECT hash FROM {TABLE_OF_STREAM[stream]} WHERE store = %s AND seq = %s", (store, first - 1)
        ).fetchone()
        if row is None:
            raise LedgerError(f"{store}: {stream} {first - 1}: want this row in the book, got none; begin there")
        return bytes(row[0])
    if stream != "ledger":
        return outbox.genesis(store, stream)
    (currency,) = connection.execute("SELECT currency FROM store WHERE id = %s", (store,)).fetchone()
    return genesis_hash(store, currency)


__all__ = ["quarantine"]
