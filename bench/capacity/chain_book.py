"""Rows a second into the chain's book, beside a raw COPY of the same rows into the same server in the same run.

    OMP_NUM_THREADS=1 python -m bench chain_book                      20000 receipts and 100000 transfers
    OMP_NUM_THREADS=1 python -m bench chain_book --receipts 100000

The raw copy takes the rows, read from the store's files beforehand, into bare tables in the same batches: no key, no
mark, no comparison, no hash checked. The chain's book reads the store's files, checks every hash, and keeps every
promise of `fusion ship`. Both commit each batch to disk. They take turns, each time into a new database; before a
figure is printed, both must hold the same rows and `reconcile` must agree. A ledger row is an entry or a posting. The
server is that of FUSION_POSTGRES, or one started for the run where pgserver is installed.
"""

from __future__ import annotations

import argparse
import os
import resource
import secrets
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from fusion.chain.book import ChainBook
from fusion.chain.reconciling import reconcile
from fusion.chain.shipping import Shipper
from fusion.chain.streams import BATCH, LedgerSource, OutboxSource, Record, Source
from fusion.goods.journal import Transfer, cart, shelf
from fusion.live.outbox import COLUMNS, Outbox
from fusion.money.ledger import Ledger
from fusion.results import Receipt, ReceiptLine, ReceiptStatus
from fusion.store.models import Product, Store

T_NS = 1_772_528_646_000_000_000
GTINS = ("4006381333931", "96385074")
LINES = (ReceiptLine(GTINS[0], 2, 249, 0.99), ReceiptLine(GTINS[1], 1, 199, 0.9))
STORE = Store(
    format_version=1, id="shop", name="Shop", currency="EUR", timezone="Europe/Berlin",
    floor=((0.0, 0.0), (4.0, 0.0), (4.0, 3.0), (0.0, 3.0)), keypoints="coco17",
    products=tuple(
        Product(gtin=gtin, name=gtin, weight_g=100.0, weight_sd_g=1.0, price=100, vat_rate=rate)
        for gtin, rate in zip(GTINS, (19.0, 7.0))
    ),
)  # fmt: skip
RAW = {
    "entry": "seq BIGINT, t_ns BIGINT, kind TEXT, visit TEXT, key TEXT, details TEXT, hash BYTEA",
    "posting": "entry BIGINT, line BIGINT, account TEXT, currency TEXT, amount BIGINT",
    "goods": "seq BIGINT, t_ns BIGINT, key TEXT, debit TEXT, credit TEXT, gtin TEXT, quantity BIGINT, hash BYTEA",
}


@contextmanager
def server() -> Iterator[str]:
    url = os.environ.get("FUSION_POSTGRES")
    if url is not None:
        yield url
        return
    import pgserver

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        running = pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            yield running.get_uri()
        finally:
            running.cleanup()


@contextmanager
def database(url: str) -> Iterator[str]:
    """URL of a new database, which is dropped afterwards."""
    name = f"bench_{secrets.token_hex(8)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        # Pending writes of an earlier pass belong to that pass.
        connection.execute("CHECKPOINT")
    base, _, options = url.partition("?")
    try:
        yield base.rsplit("/", 1)[0] + f"/{name}" + (f"?{options}" if options else "")
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def fill(ledger: Ledger, outbox: Outbox, n_receipts: int, n_transfers: int) -> None:
    for first in range(0, n_receipts, 1000):
        with ledger.batch():
            for i in range(first, min(first + 1000, n_receipts)):
                visit = f"visit {i:08d}"
                times = T_NS, T_NS + 60, T_NS + i
                ledger.post_receipt(Receipt(visit, None, *times, ReceiptStatus.SETTLED, (), "EUR", 697, LINES))
    for first in range(0, n_transfers, 1000):
        outbox.keep(
            Transfer(f"shop/a1/{T_NS + i}/{i}", T_NS + i, cart(f"visit {i:08d}"), shelf("a1"), GTINS[0], 1)
            for i in range(first, min(first + 1000, n_transfers))
        )


def batches(source: Source) -> list[list[Record]]:
    rows, seq = [], 0
    while records := source.after(seq, BATCH):
        rows.append(records)
        seq = records[-1].seq
    return rows


def raw(url: str, source: Source, rows: list[list[Record]]) -> tuple[float, int, int]:
    """Seconds, number of rows, and a checksum of them."""
    table = "entry" if source.stream == "ledger" else source.stream
    with psycopg.connect(url, autocommit=True) as connection:
        for name, columns in RAW.items():
            connection.execute(f"CREATE TABLE {name} ({columns})")
        begin = time.perf_counter()
        for batch in rows:
            with connection.transaction(), connection.cursor() as cursor:
                with cursor.copy(f"COPY {table} FROM STDIN") as copy:
                    for record in batch:
                        copy.write_row(record.row)
                if source.stream == "ledger":
                    with cursor.copy("COPY posting FROM STDIN") as copy:
                        for record in batch:
                            for line, posting in enumerate(record.postings):
                                copy.write_row((record.seq, line, *posting))
        took_s = time.perf_counter() - begin
        return took_s, *counted(connection, table)


def shipped(url: str, source: Source) -> tuple[float, int, int]:
    with ChainBook(url) as book:
        shipper = Shipper(STORE, [source], book)
        book.register(STORE)  # creates the tables
        begin = time.perf_counter()
        shipper.ship()
        took_s = time.perf_counter() - begin
        (agreement,) = reconcile(STORE, [source], book)
        assert agreement.agrees, agreement.text()
    table = "entry" if source.stream == "ledger" else source.stream
    with psycopg.connect(url, autocommit=True, options="-c search_path=chain") as connection:
        return took_s, *counted(connection, table)


def counted(connection: psycopg.Connection, table: str) -> tuple[int, int]:
    """Number of rows, and a checksum of their contents."""
    columns = COLUMNS.get(table, "seq, t_ns, kind, visit, key, details, hash")
    tables = [(table, columns)]
    if table == "entry":
        tables.append(("posting", "entry, line, account, currency, amount"))
    n_rows, mixed = 0, 0
    for name, listed in tables:
        n, more = connection.execute(
            f"SELECT count(*), coalesce(sum(hashtextextended(ROW({listed})::TEXT, 0)), 0) FROM {name}"
        ).fetchone()  # type: ignore[misc]
        n_rows, mixed = n_rows + n, mixed + int(more)
    return n_rows, mixed


def compare(url: str, source: Source, n_rounds: int) -> None:
    rows = batches(source)
    rates: dict[str, list[float]] = {"raw COPY": [], "chain's book": []}
    for _ in range(n_rounds):
        stored = {}
        for name, run in (
            ("raw COPY", lambda place: raw(place, source, rows)),
            ("chain's book", lambda place: shipped(place, source)),
        ):
            with database(url) as place:
                took_s, n_rows, mixed = run(place)
            stored[name] = (n_rows, mixed)
            rates[name].append(n_rows / took_s)
        assert stored["raw COPY"] == stored["chain's book"], stored
    medians = {name: statistics.median(rate) for name, rate in rates.items()}
    for name, rate in rates.items():
        print(f"{source.stream:<7} {name:<13} {medians[name]:9.0f} rows/s, median of {n_rounds} "
              f"({min(rate):.0f} to {max(rate):.0f})")  # fmt: skip
    ratio = medians["chain's book"] / medians["raw COPY"]
    print(f"{source.stream:<7} {stored['raw COPY'][0]} rows, equal on both sides; ratio {ratio:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--receipts", type=int, default=20_000)
    parser.add_argument("--transfers", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with (
        server() as url, tempfile.TemporaryDirectory() as folder,
        Ledger.open(Path(folder) / "ledger.sqlite", STORE) as ledger, Outbox(Path(folder) / "out.sqlite", STORE) as box,
    ):  # fmt: skip
        fill(ledger, box, args.receipts, args.transfers)
        for source in (LedgerSource(ledger, STORE), OutboxSource(box, "goods")):
            compare(url, source, args.rounds)
        views(url, LedgerSource(ledger, STORE))
    print(f"peak memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def views(url: str, source: Source) -> None:
    with database(url) as place, ChainBook(place) as book:
        Shipper(STORE, [source], book).ship()
        for view in ("sales", "reviews", "shrink"):
            begin = time.perf_counter()
            book.query(f"SELECT * FROM {view}")
            print(f"view {view:<8} {time.perf_counter() - begin:.2f} s")
