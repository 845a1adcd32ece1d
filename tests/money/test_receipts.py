"""Receipts: what was posted, as JSON, text and HTML."""

from __future__ import annotations

import hashlib
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
from fusion.money.receipts import DiscountLine, GoodsLine, ReceiptDocument, ReceiptStore, TaxLine
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


# ---- every field -----------------------------------------------------------------------------------------------------


def document(**change: Any) -> ReceiptDocument:
    fields: dict[str, Any] = {
        "seller": "Brand & Sons", "store": "Shop", "visit": "v<1>", "revision": 0, "t_ns": T_NS,
        "time": "2026-03-03 10:04 CET", "currency": "EUR", "lines": (GoodsLine("Cöla <1>", 2, 249, 498),),
        "discounts": (DiscountLine("two & one: Cola", 249),), "taxes": (TaxLine("19%", 209, 40),), "total": 249,
        "price_text": lambda amount: f"{amount} &c",
    }  # fmt: skip
    return ReceiptDocument(**{**fields, **change})


def test_a_receipt_as_json() -> None:
    fields = {
        "seller": "Brand & Sons", "store": "Shop", "receipt": "v<1>", "revision": 2, "time": T_NS, "currency": "EUR",
        "lines": [{"name": "Cöla <1>", "quantity": 2, "unit_price": 249, "amount": 498}],
        "discounts": [{"name": "two & one: Cola", "amount": 249}],
        "vat": [{"rate": "19%", "net": 209, "vat": 40, "gross": 249}], "total": 249,
    }  # fmt: skip
    text = document(revision=2).json()
    assert text == json.dumps(fields, ensure_ascii=False, indent=1) + "\n"
    assert '"receipt": "v<1>"' in text and "Cöla" in text


def test_a_receipt_as_text() -> None:
    rows = document(revision=2, store="Brand & Sons").text().split("\n")
    assert rows[:4] == ["Brand & Sons", "2026-03-03 10:04 CET", "Receipt v<1>", "Corrected, version 2"]
    assert rows[4] == rows[7] == "-" * 48 and rows[-1] == "" and len(rows) == 11
    assert rows[5] == f"{'2 x Cöla <1>':<41} 498 &c" and rows[6] == f"{'two & one: Cola':<40} -249 &c"
    assert rows[8] == f"{'Total':<41} 249 &c" and rows[9] == f"{'incl. 19% VAT on 209 &c':<42} 40 &c"
    # A name that is too long for its line is cut.
    for n, shown in ((39, "x" * 39), (40, "x" * 38 + "…"), (400, "x" * 38 + "…")):
        (row,) = [row for row in document(lines=(GoodsLine("x" * n, 1, 9, 9),)).text().split("\n") if "xx" in row]
        assert row == f"1 x {shown} 9 &c" and len(row) == 48


def test_a_receipt_as_a_page() -> None:
    page = document(revision=2).html("https://my/?a&b", "More & more")
    head, _, body = page.partition("</style>")
    assert head == (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<title>Receipt, Brand &amp; Sons</title><style>body{font:16px/1.5 system-ui,sans-serif;max-width:26rem;"
        "margin:2rem auto;padding:0 1rem;color:#111;background:#fff}table{width:100%;border-collapse:collapse}"
        "td{padding:.2rem 0;vertical-align:top}td+td{text-align:right;white-space:nowrap;padding-left:1rem}"
        ".total td{border-top:2px solid #111;font-weight:600}.tax td{color:#555;font-size:.85rem}"
        "p{color:#555;margin:.2rem 0}h1{font-size:1.3rem;margin:0}"
    )
    assert body == (
        "<h1>Brand &amp; Sons</h1><p>Shop</p><p>2026-03-03 10:04 CET</p><p>Receipt v&lt;1&gt;</p>"
        "<p>Corrected, version 2</p><table><tr><td>2 × Cöla &lt;1&gt;</td><td>498 &amp;c</td></tr>"
        "<tr><td>two &amp; one: Cola</td><td>-249 &amp;c</td></tr>"
        '<tr class="total"><td>Total</td><td>249 &amp;c</td></tr>'
        '<tbody class="tax"><tr><td>incl. 19% VAT on 209 &amp;c</td><td>40 &amp;c</td></tr></tbody></table>'
        '<p><a href="https://my/?a&amp;b">More &amp; more</a></p></html>\n'
    )
    plain = document().html()
    assert "Corrected" not in plain and "<a " not in plain and plain.endswith("</tbody></table></html>\n")


def test_a_document_is_made_from_the_books(ledger: Ledger) -> None:
    less = (Discount("two for one", COLA, 249),)
    ledger.post_receipt(replace(receipt("v1", *TWO, account=None), total=448), less)
    made = ReceiptDocument.of(ledger, STORE, "v1")
    assert made is not None
    assert (made.seller, made.store, made.visit, made.revision, made.t_ns) == ("Shop", "Shop", "v1", 0, T_NS + 90)
    assert (made.time, made.currency, made.total) == ("2026-03-03 10:04 CET", "EUR", 448)
    assert made.lines == (GoodsLine(COLA, 2, 249, 498), GoodsLine(BREAD, 1, 199, 199))
    assert made.discounts == (DiscountLine(f"two for one: {COLA}", 249),)
    assert made.taxes == (TaxLine("19%", 209, 40), TaxLine("7%", 186, 13)) and made.price_text(5) == "0.05 EUR"
    # Goods that have left the store go by their number; payments are no part of a receipt.
    renamed = STORE.model_copy(
        update={"products": tuple(one.model_copy(update={"name": "Cola"}) for one in STORE.products[:1])}
    )
    ledger.record("v1", "payment 1", "payment asked", T_NS + 10**12, {})
    named = ReceiptDocument.of(ledger, renamed, "v1", "Brand")
    assert named is not None and [line.name for line in named.lines] == ["Cola", BREAD] and named.t_ns == T_NS + 90
    assert (named.seller, named.discounts[0].name) == ("Brand", "two for one: Cola")
    ledger.decide("v1", "waive", by="eve", t_ns=T_NS + 10**13)
    waived = ReceiptDocument.of(ledger, STORE, "v1")
    assert waived is not None and (waived.taxes, waived.total, waived.revision) == ((), 0, 1)
    assert waived.t_ns == T_NS + 10**13


def test_receipts_are_kept_by_a_hash_of_the_visit_and_replaced(tmp_path: Path) -> None:
    kept = ReceiptStore(tmp_path / "receipts")
    kept.write(document(revision=0))
    kept.write(document(revision=1))
    name = hashlib.sha256(b"v<1>").hexdigest()[:32]
    files = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "receipts").iterdir()}
    one = document(revision=1)
    assert files == {f"{name}.json": one.json(), f"{name}.txt": one.text(), f"{name}.html": one.html()}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "receipts").iterdir()} == {0o600}
    assert (tmp_path / "receipts").stat().st_mode & 0o777 == 0o700
