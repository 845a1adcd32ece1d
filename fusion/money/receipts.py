"""What the customer gets: a digital receipt as JSON, text and HTML.

A receipt is made from the books alone, so it shows what was posted. It names no customer and can be kept and shown
after they are forgotten.
"""

from __future__ import annotations

import hashlib
import html
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from fusion.files.atomic import replace_file
from fusion.files.private import private_folder
from fusion.money.ledger import Ledger
from fusion.money.sales import sales_by_rate
from fusion.store.models import Store


class GoodsLine(NamedTuple):
    """Pieces of one product at one price; amounts in minor units."""

    name: str
    quantity: int
    unit_price: int
    amount: int


class DiscountLine(NamedTuple):
    """What an offer takes off one product: name of the offer and the product, amount in minor units."""

    name: str
    amount: int


@dataclass(frozen=True, slots=True)
class TaxLine:
    """One VAT rate's share of a receipt, in minor units; net and VAT add up to gross."""

    rate: str
    net: int
    vat: int

    @property
    def gross(self) -> int:
        """Net and VAT."""
        return self.net + self.vat


@dataclass(frozen=True, slots=True)
class ReceiptDocument:
    """A receipt as people keep it.

    Attributes:
        seller: brand under which the store sells.
        store: name of the store.
        visit: id of the visit, which is the receipt's number.
        revision: version of the visit's receipt: 0 before any decision by a person.
        t_ns: when it was posted.
        time: the same on the store's clock, as text.
        currency: of the amounts, which are minor units.
        lines: the goods.
        discounts: what offers took off.
        taxes: VAT by rate.
        total: what was charged.
        price_text: writes an amount as people read it.
    """

    seller: str
    store: str
    visit: str
    revision: int
    t_ns: int
    time: str
    currency: str
    lines: tuple[GoodsLine, ...]
    discounts: tuple[DiscountLine, ...]
    taxes: tuple[TaxLine, ...]
    total: int
    price_text: Callable[[int], str]

    @classmethod
    def of(cls, ledger: Ledger, store: Store, visit: str, seller: str | None = None) -> Self | None:
        """The receipt of a visit as it stands in the books; None if the visit has none yet, or one in review.

        `seller` is the brand, if it differs from the store's name.
        """
        standing = ledger.standing(visit)
        if standing is None or not standing.is_final:
            return None
        names = {product.gtin: product.name for product in store.products}
        entries = [entry for entry in ledger.entries(visit) if entry.kind.startswith(("receipt ", "decision "))]
        sales = sales_by_rate(leg for entry in entries for leg in entry.postings)
        t_ns = entries[-1].t_ns
        return cls(
            seller=seller or store.name,
            store=store.name,
            visit=visit,
            revision=standing.revision,
            t_ns=t_ns,
            time=f"{store.local_time(t_ns):%Y-%m-%d %H:%M %Z}",
            currency=store.currency,
            lines=tuple(
                GoodsLine(
                    names.get(line.gtin, line.gtin), line.quantity, line.unit_price, line.quantity * line.unit_price
                )
                for line in standing.lines
            ),
            discounts=tuple(
                DiscountLine(f"{each.offer}: {names.get(each.gtin, each.gtin)}", each.amount)
                for each in standing.discounts
            ),
            taxes=tuple(TaxLine(rate, net, vat) for rate, (net, vat) in sales.items() if net or vat),
            total=standing.total,
            price_text=store.price_text,
        )

    def json(self) -> str:
        """One JSON object; amounts in minor units."""
        document = {
            "seller": self.seller,
            "store": self.store,
            "receipt": self.visit,
            "revision": self.revision,
            "time": self.t_ns,
            "currency": self.currency,
            "lines": [line._asdict() for line in self.lines],
            "discounts": [discount._asdict() for discount in self.discounts],
            "vat": [{"rate": tax.rate, "net": tax.net, "vat": tax.vat, "gross": tax.gross} for tax in self.taxes],
            "total": self.total,
        }
        return json.dumps(document, ensure_ascii=False, indent=1) + "\n"

    def text(self) -> str:
        """Plain text of 48 columns."""
        price = self.price_text
        rows = [self.seller, self.store if self.store != self.seller else "", self.time, f"Receipt {self.visit}"]
        rows += [f"Corrected, version {self.revision}"] if self.revision else []
        rows = [row for row in rows if row] + ["-" * 48]
        rows += [_columns(f"{line.quantity} x {line.name}", price(line.amount)) for line in self.lines]
        rows += [_columns(discount.name, price(-discount.amount)) for discount in self.discounts]
        rows += ["-" * 48, _columns("Total", price(self.total))]
        rows += [_columns(f"incl. {tax.rate} VAT on {price(tax.net)}", price(tax.vat)) for tax in self.taxes]
        return "\n".join(rows) + "\n"

    def html(self, link: str = "", link_text: str = "") -> str:
        """One page that loads nothing from elsewhere, with a link below the receipt where one is given."""

        def safe(text: str) -> str:
            return html.escape(text)

        def safe_price(amount: int) -> str:
            return html.escape(self.price_text(amount))

        rows = "".join(
            f"<tr><td>{line.quantity} × {safe(line.name)}</td><td>{safe_price(line.amount)}</td></tr>"
            for line in self.lines
        )
        rows += "".join(
            f"<tr><td>{safe(discount.name)}</td><td>{safe_price(-discount.amount)}</td></tr>"
            for discount in self.discounts
        )
        taxes = "".join(
            f"<tr><td>incl. {safe(tax.rate)} VAT on {safe_price(tax.net)}</td><td>{safe_price(tax.vat)}</td></tr>"
            for tax in self.taxes
        )
        more = f'<p><a href="{safe(link)}">{safe(link_text)}</a></p>' if link else ""
        corrected = f"<p>Corrected, version {self.revision}</p>" if self.revision else ""
        return (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width"><title>'
            f"Receipt, {safe(self.seller)}</title><style>body{{font:16px/1.5 system-ui,sans-serif;max-width:26rem;"
            "margin:2rem auto;padding:0 1rem;color:#111;background:#fff}table{width:100%;border-collapse:collapse}"
            "td{padding:.2rem 0;vertical-align:top}td+td{text-align:right;white-space:nowrap;padding-left:1rem}"
            ".total td{border-top:2px solid #111;font-weight:600}.tax td{color:#555;font-size:.85rem}"
            "p{color:#555;margin:.2rem 0}h1{font-size:1.3rem;margin:0}</style>"
            f"<h1>{safe(self.seller)}</h1><p>{safe(self.store)}</p><p>{safe(self.time)}</p>"
            f"<p>Receipt {safe(self.visit)}</p>{corrected}<table>{rows}"
            f'<tr class="total"><td>Total</td><td>{safe_price(self.total)}</td></tr>'
            f'<tbody class="tax">{taxes}</tbody></table>{more}</html>\n'
        )


def _columns(left: str, right: str, width: int = 48) -> str:
    room = width - len(right) - 1
    left = left if len(left) <= room else left[: room - 1] + "…"
    return f"{left:<{room}} {right}"


class ReceiptStore:
    """Receipts in a folder, three files a visit. Names are hashes, so that no visit id can lead out of the folder."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = private_folder(folder)

    def path(self, visit: str, kind: str) -> Path:
        """File of a visit's receipt; kind is json, txt or html."""
        return self._folder / f"{hashlib.sha256(visit.encode()).hexdigest()[:32]}.{kind}"

    def write(self, document: ReceiptDocument) -> None:
        """Keep a receipt; a corrected one replaces the previous version."""
        for kind, text in (("json", document.json()), ("txt", document.text()), ("html", document.html())):
            # Not flushed to disk: a file that is lost with the power can be made again from the ledger.
            replace_file(self.path(document.visit, kind), text, private=True, durable=False)
