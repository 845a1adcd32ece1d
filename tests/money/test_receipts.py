"""Receipts: what was posted, as JSON, text and HTML."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from money.books import BREAD, COLA, INJECTIONS, STORE, T_NS, TWO, receipt

from fusion.errors import EntryError
from fusion.money.ledger import Ledger
from fusion.money.receipts import ReceiptDocument, ReceiptStore
from fusion.money.sales import Discount
from fusion.results import ReceiptLine


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as opened:
        yield opened


def test_a_receipt_shows_what_was_posted(ledger: Ledger) -> None:
    less = (Discount("two for one", COLA, 249),)
    ledger.post_receipt(replace(receipt("v1", *TWO), total=448), less)
    document = ReceiptDocument.of(ledger, STORE, "v1", seller="Brand & Sons")
    assert document is not None
    fields = json.loads(document.json())
    assert fields["total"] == 448 == sum(tax["gross"] for tax in fields["vat"])
    assert fields["vat"] == [
        {"rate": "19%", "net": 209, "vat": 40, "gross": 249}, {"rate": "7%", "net": 186, "vat": 13, "gross": 199}
    ]  # fmt: skip
    assert sum(line["amount"] for line in fields["lines"]) - fields["discounts"][0]["amount"] == 448
    assert document.text().splitlines() == [
        "Brand & Sons",
        "Shop",
        "2026-03-03 10:04 CET",
        "Receipt v1",
        "-" * 48,
        "2 x 4006381333931                       4.98 EUR",
        "1 x 96385074                            1.99 EUR",
        "two for one: 4006381333931             -2.49 EUR",
        "-" * 48,
        "Total                                   4.48 EUR",
        "incl. 19% VAT on 2.09 EUR               0.40 EUR",
        "incl. 7% VAT on 1.86 EUR                0.13 EUR",
    ]
    assert "Brand &amp; Sons" in document.html() and "alice" not in document.html() + document.text() + document.json()
    ledger.decide("v1", "correct", by="eve", t_ns=T_NS + 3600 * 10**9, lines=[ReceiptLine(BREAD, 1, 199, 1.0)])
    corrected = ReceiptDocument.of(ledger, STORE, "v1")
    assert corrected is not None and (corrected.total, corrected.revision) == (199, 1)
    assert [(tax.rate, tax.gross) for tax in corrected.taxes] == [("7%", 199)] and "version 1" in corrected.text()


def test_no_receipt_before_it_is_certain(ledger: Ledger) -> None:
    ledger.open_visit("v1", "alice", T_NS)
    assert ReceiptDocument.of(ledger, STORE, "v1") is None and ReceiptDocument.of(ledger, STORE, "unknown") is None
    ledger.post_receipt(receipt("v1", *TWO, status="review"))
    assert ReceiptDocument.of(ledger, STORE, "v1") is None


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_strange_names_stay_text(ledger: Ledger, tmp_path: Path) -> None:
    kept = ReceiptStore(tmp_path / "receipts")
    for text in [*INJECTIONS, "../../x", "<script>alert(1)</script>", "a" * 250]:
        ledger.post_receipt(receipt(text, *TWO, account=None))
        document = ReceiptDocument.of(ledger, STORE, text, seller=text)
        assert document is not None
        page = Page(document.html())
        assert "script" not in page.tags and (text in page.text or "\x00" in text)
        assert json.loads(document.json())["receipt"] == text
        kept.write(document)
        assert json.loads(kept.path(text, "json").read_text(encoding="utf-8"))["seller"] == text
    assert {path.parent for path in (tmp_path / "receipts").rglob("*")} == {tmp_path / "receipts"}


def test_kept_receipts_are_for_the_shops_own_account_only(ledger: Ledger, tmp_path: Path) -> None:
    ledger.post_receipt(receipt("v1", *TWO))
    document = ReceiptDocument.of(ledger, STORE, "v1")
    assert document is not None
    kept = ReceiptStore(tmp_path / "receipts")
    kept.write(document)
    files = [kept.path("v1", kind) for kind in ("json", "txt", "html")]
    assert [path.stat().st_mode & 0o777 for path in files] == [0o600] * 3
    assert all("v1" not in path.name for path in files)


def test_a_discount_needs_something_that_was_bought(ledger: Ledger) -> None:
    other = next(product.gtin for product in STORE.products if product.gtin not in (COLA, BREAD))
    for gtin, amount in ((other, 1), (COLA, 499), (COLA, 0)):
        with pytest.raises(EntryError, match="discount"):
            ledger.post_receipt(replace(receipt("v1", *TWO), total=697 - amount), (Discount("offer", gtin, amount),))
    ledger.post_receipt(replace(receipt("v1", *TWO), total=697 - 498), (Discount("offer", COLA, 498),))


def test_what_a_receipt_lacks_is_named(ledger: Ledger) -> None:
    for change, fault in (({"status": "paid"}, "status: want settled or review, got 'paid'"),
                          ({"currency": "USD"}, "currency: want EUR, got 'USD'")):  # fmt: skip
        with pytest.raises(EntryError, match=fault):
            ledger.post_receipt(replace(receipt("v1", *TWO), **change))  # type: ignore[arg-type]
