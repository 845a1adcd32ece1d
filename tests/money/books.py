"""A small store, its receipts and its books; for tests of money."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

from fusion.money.ledger import Ledger
from fusion.results import Reason, ReasonKind, Receipt, ReceiptLine, ReceiptStatus
from fusion.store.models import Product, Store

T_NS = 1_772_528_646_000_000_000
DAY_NS = 86_400 * 10**9
COLA, BREAD, STAMP, SOUP = "4006381333931", "96385074", "12345670", "036000291452"


def make_store(store: str = "shop", currency: str = "EUR") -> Store:
    """A store of four products at four VAT rates."""
    rates = {COLA: 19.0, BREAD: 7.0, STAMP: 0.0, SOUP: 5.5}
    return Store(
        format_version=1,
        id=store,
        name="Shop",
        currency=currency,
        timezone="Europe/Berlin",
        floor=((0.0, 0.0), (4.0, 0.0), (4.0, 3.0), (0.0, 3.0)),
        keypoints="coco17",
        products=tuple(
            Product(gtin=gtin, name=gtin, weight_g=100.0, weight_sd_g=1.0, price=100, vat_rate=rate)
            for gtin, rate in rates.items()
        ),
    )


STORE = make_store()
TWO = (ReceiptLine(COLA, 2, 249, 0.99), ReceiptLine(BREAD, 1, 199, 0.9))
# Text that an attacker may put into ids, names and notes.
INJECTIONS = [
    "'; DROP TABLE entry; --",
    '" OR 1=1 --',
    "Robert'); DELETE FROM posting; --",
    "v/receipt",
    "%_\\",
    "\x00\x01",
    "ünïcödé \U0001f36a",
    "{{title}} </script>",
]


def receipt(visit: str = "v1", *lines: ReceiptLine, status: str = "settled", account: str | None = "alice") -> Receipt:
    """A visit's receipt as the engine emits it."""
    total = sum(line.quantity * line.unit_price for line in lines)
    reasons = (Reason(ReasonKind.NOTE, detail="unsure"),) if status == "review" else ()
    return Receipt(visit, account, T_NS, T_NS + 60, T_NS + 90, ReceiptStatus(status), reasons, "EUR", total, lines)


def balances(ledger: Ledger) -> dict[str, int]:
    """Balances that are not zero, of books that hold."""
    found = ledger.balances()
    assert all(sum(accounts.values()) == 0 for accounts in found.values())
    assert ledger.verify() is None
    return {account: amount for account, amount in found.get("EUR", {}).items() if amount}


def stored_bytes(folder: Path) -> bytes:
    """Everything that the files of a folder hold."""
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def at(text: str) -> int:
    """An instant on the store's clock."""
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()) * 10**9


def sell(ledger: Ledger, visit: str, t_ns: int, *lines: ReceiptLine, status: str = "settled") -> None:
    """Post a receipt that was issued at an instant."""
    issued = receipt(visit, *lines, status=status, account=None)
    assert issued.enter_ns is not None
    moved_ns = t_ns - issued.issued_ns
    ledger.post_receipt(
        replace(issued, enter_ns=issued.enter_ns + moved_ns, exit_ns=issued.exit_ns + moved_ns, issued_ns=t_ns)
    )
