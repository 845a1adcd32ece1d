"""Durable postings beside raw SQLite and raw PostgreSQL on the same disk, in the same run.

    python -m bench ledger

The raw databases write rows of the same size with the same durability (SQLite: WAL, synchronous FULL) and nothing else.
The difference is the cost of the ledger's chain, keys and checks. A receipt here has five postings. PostgreSQL is that
of FUSION_POSTGRES, or one started for the run where pgserver is installed.
"""

from __future__ import annotations

import itertools
import os
import secrets
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from fusion.money.ledger import Ledger
from fusion.results import Receipt, ReceiptLine, ReceiptStatus
from fusion.store.models import Product, Store

T_NS = 1_772_528_646_000_000_000
BATCH = 1000
GTINS = ("4006381333931", "96385074")
LINES = (ReceiptLine(GTINS[0], 2, 249, 0.99), ReceiptLine(GTINS[1], 1, 199, 0.9))

STORE = Store(
    format_version=1,
    id="shop",
    name="Shop",
    currency="EUR",
    timezone="Europe/Berlin",
    floor=((0.0, 0.0), (4.0, 0.0), (4.0, 3.0), (0.0, 3.0)),
    keypoints="coco17",
    products=tuple(
        Product(gtin=gtin, name=gtin, weight_g=100.0, weight_sd_g=1.0, price=100, vat_rate=rate)
        for gtin, rate in zip(GTINS, (19.0, 7.0))
    ),
)


def receipt(i: int) -> Receipt:
    return Receipt(f"visit {i:08d}", None, T_NS, T_NS + 60, T_NS + i, ReceiptStatus.SETTLED, (), "EUR", 697, LINES)


class RawSqlite:
    """The rows that the ledger writes for a receipt, without chain, keys and checks."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        run = self.connection.execute
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("CREATE TABLE entry (seq INTEGER PRIMARY KEY, t_ns INTEGER, key TEXT UNIQUE, details TEXT, hash BLOB)")
        run("CREATE TABLE posting (entry INTEGER, line INTEGER, account TEXT, currency TEXT, amount INTEGER)")
        self.details = "x" * 250

    def post(self, i: int) -> None:
        run = self.connection
        values = (T_NS + i, f"visit {i:08d}/receipt", self.details, bytes(32))
        seq = run.execute("INSERT INTO entry (t_ns, key, details, hash) VALUES (?, ?, ?, ?)", values).lastrowid
        legs = [(seq, line, "revenue 19%", "EUR", line) for line in range(5)]
        run.executemany("INSERT INTO posting VALUES (?, ?, ?, ?, ?)", legs)

    def post_durably(self, first: int, n: int) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        for i in range(first, first + n):
            self.post(i)
        self.connection.execute("COMMIT")

    def count(self) -> int:
        return self.connection.execute("SELECT count(*) FROM entry").fetchone()[0]


class RawPostgres:
    """The same in PostgreSQL."""

    def __init__(self, path: Path) -> None:
        self.connection = psycopg.connect(new_database(), autocommit=True)
        run = self.connection.execute
        run("CREATE TABLE entry (seq BIGSERIAL PRIMARY KEY, t_ns BIGINT, key TEXT UNIQUE, details TEXT, hash BYTEA)")
        run("CREATE TABLE posting (entry BIGINT, line BIGINT, account TEXT, currency TEXT, amount BIGINT)")
        self.details = "x" * 250

    def post(self, i: int) -> None:
        values = (T_NS + i, f"visit {i:08d}/receipt", self.details, bytes(32))
        (seq,) = self.connection.execute(
            "INSERT INTO entry (t_ns, key, details, hash) VALUES (%s, %s, %s, %s) RETURNING seq", values
        ).fetchone()  # type: ignore[misc]
        legs = [(seq, line, "revenue 19%", "EUR", line) for line in range(5)]
        with self.connection.cursor() as cursor:
            cursor.executemany("INSERT INTO posting VALUES (%s, %s, %s, %s, %s)", legs)

    def post_durably(self, first: int, n: int) -> None:
        with self.connection.transaction():
            for i in range(first, first + n):
                self.post(i)

    def count(self) -> int:
        return self.connection.execute("SELECT count(*) FROM entry").fetchone()[0]  # type: ignore[index]


def new_database() -> str:
    """URL of a new database."""
    url = os.environ.get("FUSION_POSTGRES")
    if url is None:
        pgserver = pytest.importorskip("pgserver", reason="no PostgreSQL: set FUSION_POSTGRES or install pgserver")
        url = pgserver.get_server(Path(tempfile.gettempdir()) / "bench_ledger_postgres").get_uri()
    name = f"bench_{secrets.token_hex(8)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    base, _, options = url.partition("?")
    return base.rsplit("/", 1)[0] + f"/{name}" + (f"?{options}" if options else "")


class Books:
    def __init__(self, path: Path) -> None:
        self.ledger = Ledger.open(path, STORE)

    def post_durably(self, first: int, n: int) -> None:
        if n == 1:
            self.ledger.post_receipt(receipt(first))
            return
        with self.ledger.batch():
            for i in range(first, first + n):
                self.ledger.post_receipt(receipt(i))

    def count(self) -> int:
        assert self.ledger.verify() is None
        assert sum(self.ledger.balances()["EUR"].values()) == 0
        return self.ledger.head().seq


class PostgresBooks(Books):
    def __init__(self, path: Path) -> None:
        self.ledger = Ledger.open(new_database(), STORE, vault=path.with_name("vault.sqlite"))


AnyBooks = Books | RawSqlite | RawPostgres


@pytest.fixture(
    params=[Books, RawSqlite, PostgresBooks, RawPostgres],
    ids=["ledger in SQLite", "raw SQLite", "ledger in PostgreSQL", "raw PostgreSQL"],
)
def books(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyBooks]:
    yield request.param(tmp_path / "ledger.sqlite")


def posting(books: AnyBooks, n: int) -> tuple[Callable[[], None], Iterator[int]]:
    numbers = itertools.count(0, n)
    return lambda: books.post_durably(next(numbers), n), numbers


def report(benchmark, n_receipts: int) -> None:  # type: ignore[no-untyped-def]
    receipts_per_s = n_receipts / benchmark.stats["mean"]
    benchmark.extra_info |= {"receipts_per_s": round(receipts_per_s), "postings_per_s": round(5 * receipts_per_s)}


@pytest.mark.benchmark(group="receipts, durable one by one")
def test_one_by_one(benchmark, books: AnyBooks) -> None:  # type: ignore[no-untyped-def]
    step, numbers = posting(books, 1)
    benchmark.pedantic(step, rounds=2000, warmup_rounds=20)
    report(benchmark, 1)
    assert books.count() == next(numbers)


@pytest.mark.benchmark(group=f"receipts, durable in batches of {BATCH}")
def test_batches(benchmark, books: AnyBooks) -> None:  # type: ignore[no-untyped-def]
    step, numbers = posting(books, BATCH)
    benchmark.pedantic(step, rounds=20, warmup_rounds=1)
    report(benchmark, BATCH)
    assert books.count() == next(numbers)


@pytest.mark.benchmark(group="verify 10000 entries")
def test_verify(benchmark, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    books = Books(tmp_path / "ledger.sqlite")
    books.post_durably(0, 10_000)
    assert benchmark.pedantic(books.ledger.verify, rounds=3) is None
