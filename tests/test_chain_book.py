"""The chain's book: rows of every store once and unchanged, whatever happens to the line between."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fusion.adapters.ledger import Ledger
from fusion.chain.book import ChainBook, LedgerSource, Shipper, reconcile, sources_of
from fusion.chain.outbox import Outbox
from fusion.config import Product, Store
from fusion.journal import Transfer
from fusion.results import Receipt, ReceiptLine, Warning

psycopg = pytest.importorskip("psycopg")

T_NS = 1_772_528_646_000_000_000  # 2026-03-03 10:04:06 in Berlin
GTINS = ("4006381333931", "96385074")
HOUR_NS = 3600 * 10**9


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
    reason = "unsure" if status == "review" else None
    total = 119 * quantity + 107
    return Receipt(f"v{i}", "someone", t_ns, t_ns + 60, t_ns + i, status, reason, "EUR", total, lines)


def fill(ledger: Ledger, first: int, n: int, t_ns: int = T_NS) -> None:
    with ledger.batch():
        for i in range(first, first + n):
            ledger.open_visit(f"v{i}", "someone", t_ns + i - 5)
            ledger.post_receipt(a_receipt(i, "review" if i % 7 == 3 else "settled", t_ns))


def a_transfer(i: int, **changes: Any) -> Transfer:
    return replace(Transfer(f"shop/a1/{i}", T_NS + i, ("cart", f"v{i}"), ("shelf", "a1"), GTINS[0], 1 + i % 3), **changes)


@pytest.fixture
def new_url(postgres: str) -> Iterator[Callable[[], str]]:
    made: list[str] = []

    def make() -> str:
        name = f"chain_{secrets.token_hex(8)}"
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        made.append(name)
        base, _, options = postgres.partition("?")
        return base.rsplit("/", 1)[0] + f"/{name}" + (f"?{options}" if options else "")

    yield make
    with psycopg.connect(postgres, autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def url(new_url: Callable[[], str]) -> str:
    return new_url()


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
    shop.outbox.add(map(a_transfer, range(20)), [Warning(T_NS, "camera outage", "cam01", "no frames")])
    assert shop.shipper().ship() == {"ledger": 60, "goods": 20, "health": 1}
    assert shop.shipper().ship() == {"ledger": 0, "goods": 0, "health": 0}
    assert shop.faults() == []
    fill(shop.ledger, 30, 4)
    assert shop.shipper().ship()["ledger"] == 8
    assert shop.faults() == []
    assert shop.book.after("shop", "ledger", 0, 100) == LedgerSource(shop.ledger, shop.store).after(0, 100)
