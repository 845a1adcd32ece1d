"""Stores whose rows the tests ship to a chain's book, and a connection to it that a test can cut."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fusion.chain.book import ChainBook
from fusion.chain.reconciling import reconcile
from fusion.chain.shipping import Shipper
from fusion.chain.streams import sources_of
from fusion.goods.journal import Transfer, cart, shelf
from fusion.live.outbox import Outbox
from fusion.money.ledger import Ledger
from fusion.results import Reason, ReasonKind, Receipt, ReceiptLine, ReceiptStatus
from fusion.store.models import Product, Store

T_NS = 1_772_528_646_000_000_000  # 2026-03-03 10:04:06 in Berlin
HOUR_NS = 3600 * 10**9
GTINS = ("4006381333931", "96385074")
# The connections of shippers, from the database's own list.
SHIPPERS = "FROM pg_stat_activity WHERE application_name = 'fusion ship' AND datname = current_database()"


def make_store(name: str = "shop", timezone: str = "Europe/Berlin") -> Store:
    return Store(
        format_version=1, id=name, name=name.title(), currency="EUR", timezone=timezone,
        floor=((0.0, 0.0), (4.0, 0.0), (4.0, 3.0), (0.0, 3.0)), keypoints="coco17",
        products=tuple(
            Product(gtin=gtin, name=gtin, weight_g=100.0, weight_sd_g=1.0, price=100, vat_rate=rate)
            for gtin, rate in zip(GTINS, (19.0, 7.0))
        ),
    )  # fmt: skip


def make_receipt(i: int, status: str = "settled", t_ns: int = T_NS, quantity: int = 1) -> Receipt:
    lines = (ReceiptLine(GTINS[0], quantity, 119, 0.99), ReceiptLine(GTINS[1], 1, 107, 0.9))
    reasons = (Reason(ReasonKind.NOTE, detail="unsure"),) if status == "review" else ()
    total = 119 * quantity + 107
    return Receipt(f"v{i}", "someone", t_ns, t_ns + 60, t_ns + i, ReceiptStatus(status), reasons, "EUR", total, lines)


def fill(ledger: Ledger, first: int, n: int, t_ns: int = T_NS) -> None:
    """Two entries for each of n visits."""
    with ledger.batch():
        for i in range(first, first + n):
            ledger.open_visit(f"v{i}", "someone", t_ns + i - 5)
            ledger.post_receipt(make_receipt(i, "review" if i % 7 == 3 else "settled", t_ns))


def make_transfer(i: int, **changes: Any) -> Transfer:
    transfer = Transfer(f"shop/a1/{i}", T_NS + i, cart(f"v{i}"), shelf("a1"), GTINS[0], 1 + i % 3)
    return replace(transfer, **changes)


class Line:
    """The connections of a chain's book, one after another, which a test can watch and cut.

    Attributes:
        before: called with the connection and the text of every statement before it is executed.
    """

    def __init__(self) -> None:
        self.before: Callable[[Any, str], None] = lambda connection, statement: None
        self._left: int | None = None
        self._after = False

    def wrap(self, connection: Any) -> Any:
        return _Cuttable(connection, self)

    def cut(self, n: int, after: bool) -> None:
        """Lose the connection once, just before or just after the nth statement from now on."""
        self._left, self._after = n, after

    def mend(self) -> None:
        """Forget a cut that has not happened yet."""
        self._left = None

    def execute(self, connection: Any, *args: Any) -> Any:
        self.before(connection, args[0])
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._left = None
                if self._after:
                    connection.execute(*args)
                connection.close()
                import psycopg

                raise psycopg.OperationalError("cut")
        return connection.execute(*args)


class _Cuttable:
    """A connection of psycopg that executes by way of a `Line`."""

    def __init__(self, connection: Any, line: Line) -> None:
        self._connection, self._line = connection, line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, *args: Any) -> Any:
        return self._line.execute(self._connection, *args)


class Shop:
    """A store with its ledger and outbox, and its line to the chain's book."""

    def __init__(self, folder: Path, url: str, store: Store | None = None) -> None:
        self.store = store or make_store()
        self.folder, self.url = folder, url
        self.ledger = Ledger.open(folder / f"{self.store.id}.sqlite", self.store)
        self.outbox = Outbox(folder / f"{self.store.id}.outbox.sqlite", self.store)
        self.line = Line()
        self.book = ChainBook(url, wrap=self.line.wrap)
        self.sources = sources_of(self.store, self.ledger, self.outbox)

    def shipper(self, **options: Any) -> Shipper:
        return Shipper(self.store, self.sources, self.book, **{"batch": 7, **options})

    def faults(self) -> list[str]:
        """Texts of the streams that do not agree with the chain's book."""
        agreements = reconcile(self.store, self.sources, self.book, batch=11)
        return [agreement.text() for agreement in agreements if not agreement.agrees]

    def tamper(self, *statements: str) -> None:
        """Change the ledger's file in a way that the ledger refuses: with its triggers removed meanwhile."""
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
        for closable in (self.book, self.outbox, self.ledger):
            closable.close()


@contextmanager
def unguarded(stranger: Any) -> Iterator[None]:
    """Disable the chain's triggers, as a hostile superuser could."""
    stranger.execute("SET session_replication_role = replica")
    yield
    stranger.execute("SET session_replication_role = DEFAULT")
