"""What the customer gets: a digital receipt as JSON, text and HTML, by e-mail where they gave an address.

A receipt is made from the books alone, so it says what was posted, and it names nobody: it can be kept and shown after
the customer is forgotten. Whoever wants suggestions may opt in to a purchase profile; nothing else is done with what
people buy.
"""

from __future__ import annotations

import datetime
import hashlib
import html
import json
import os
import smtplib
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

from fusion.errors import FusionError
from fusion.files.atomic import replace_file
from fusion.money.databases import opened_sqlite
from fusion.money.ledger import Ledger, sales_by_rate
from fusion.results import ReceiptLine
from fusion.store.models import Store

MAIL_TIMEOUT_S = 20.0
_PROFILES_SCHEMA = """
CREATE TABLE IF NOT EXISTS purchase (
  account TEXT, gtin TEXT, n INTEGER NOT NULL, PRIMARY KEY (account, gtin)
) STRICT, WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class TaxLine:
    """What a receipt contains of one VAT rate, in minor units; net and VAT add up to gross."""

    rate: str
    net: int
    vat: int

    @property
    def gross(self) -> int:
        return self.net + self.vat


@dataclass(frozen=True, slots=True)
class ReceiptDocument:
    """A receipt as people keep it.

    Attributes:
        seller: brand under which the store sells.
        revision: which version of the visit's receipt this is: 0 before any decision by a person.
        t_ns, time: when it was posted, and the same on the store's clock.
        lines: name, quantity, unit price, amount.
        discounts: name of the offer and the product, amount taken off.
    """

    seller: str
    store: str
    visit: str
    revision: int
    t_ns: int
    time: str
    currency: str
    lines: tuple[tuple[str, int, int, int], ...]
    discounts: tuple[tuple[str, int], ...]
    taxes: tuple[TaxLine, ...]
    total: int
    _price_text: Callable[[int], str]

    @classmethod
    def of(cls, ledger: Ledger, store: Store, visit: str, seller: str | None = None) -> ReceiptDocument | None:
        """The receipt of a visit as it stands in the books; None where it has none, or one that waits for review."""
        standing = ledger.standing(visit)
        if standing is None or standing.status in ("open", "review"):
            return None
        names = {product.gtin: product.name for product in store.products}
        entries = [entry for entry in ledger.entries(visit) if entry.kind.startswith(("receipt ", "decision "))]
        sales = sales_by_rate(leg for entry in entries for leg in entry.postings)
        taxes = tuple(TaxLine(rate, net, vat) for rate, (net, vat) in sales.items() if net or vat)
        return cls(
            seller=seller or store.name,
            store=store.name,
            visit=visit,
            revision=standing.revision,
            t_ns=entries[-1].t_ns,
            time=f"{store.local_time(entries[-1].t_ns):%Y-%m-%d %H:%M %Z}",
            currency=store.currency,
            lines=tuple(
                (names.get(line.gtin, line.gtin), line.quantity, line.unit_price, line.quantity * line.unit_price)
                for line in standing.lines
            ),
            discounts=tuple(
                (f"{one.offer}: {names.get(one.gtin, one.gtin)}", one.amount) for one in standing.discounts
            ),
            taxes=taxes,
            total=standing.total,
            _price_text=store.price_text,
        )

    def json(self) -> str:
        """One JSON object; amounts in minor units."""
        said = {
            "seller": self.seller,
            "store": self.store,
            "receipt": self.visit,
            "revision": self.revision,
            "time": self.t_ns,
            "currency": self.currency,
            "lines": [dict(zip(("name", "quantity", "unit_price", "amount"), line)) for line in self.lines],
            "discounts": [{"name": name, "amount": amount} for name, amount in self.discounts],
            "vat": [{"rate": tax.rate, "net": tax.net, "vat": tax.vat, "gross": tax.gross} for tax in self.taxes],
            "total": self.total,
        }
        return json.dumps(said, ensure_ascii=False, indent=1) + "\n"

    def text(self) -> str:
        """Plain text of 48 columns."""
        price = self._price_text
        rows = [self.seller, self.store if self.store != self.seller else "", self.time, f"Receipt {self.visit}"]
        rows += [f"Corrected, version {self.revision}"] if self.revision else []
        rows = [row for row in rows if row] + ["-" * 48]
        rows += [_columns(f"{n} x {name}", price(amount)) for name, n, _, amount in self.lines]
        rows += [_columns(name, price(-amount)) for name, amount in self.discounts]
        rows += ["-" * 48, _columns("Total", price(self.total))]
        rows += [_columns(f"incl. {tax.rate} VAT on {price(tax.net)}", price(tax.vat)) for tax in self.taxes]
        return "\n".join(rows) + "\n"

    def html(self) -> str:
        """One page without anything from elsewhere."""
        price, say = self._price_text, html.escape
        rows = "".join(
            f"<tr><td>{n} × {say(name)}</td><td>{say(price(amount))}</td></tr>" for name, n, _, amount in self.lines
        )
        rows += "".join(f"<tr><td>{say(name)}</td><td>{say(price(-off))}</td></tr>" for name, off in self.discounts)
        taxes = "".join(
            f"<tr><td>incl. {say(tax.rate)} VAT on {say(price(tax.net))}</td><td>{say(price(tax.vat))}</td></tr>"
            for tax in self.taxes
        )
        corrected = f"<p>Corrected, version {self.revision}</p>" if self.revision else ""
        return (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width"><title>'
            f"Receipt, {say(self.seller)}</title><style>body{{font:16px/1.5 system-ui,sans-serif;max-width:26rem;"
            "margin:2rem auto;padding:0 1rem;color:#111;background:#fff}table{width:100%;border-collapse:collapse}"
            "td{padding:.2rem 0;vertical-align:top}td+td{text-align:right;white-space:nowrap;padding-left:1rem}"
            ".total td{border-top:2px solid #111;font-weight:600}.tax td{color:#555;font-size:.85rem}"
            "p{color:#555;margin:.2rem 0}h1{font-size:1.3rem;margin:0}</style>"
            f"<h1>{say(self.seller)}</h1><p>{say(self.store)}</p><p>{say(self.time)}</p>"
            f"<p>Receipt {say(self.visit)}</p>{corrected}<table>{rows}"
            f'<tr class="total"><td>Total</td><td>{say(price(self.total))}</td></tr>'
            f'<tbody class="tax">{taxes}</tbody></table></html>\n'
        )


def _columns(left: str, right: str, width: int = 48) -> str:
    room = width - len(right) - 1
    left = left if len(left) <= room else left[: room - 1] + "…"
    return f"{left:<{room}} {right}"


class ReceiptStore:
    """Receipts in a folder, three files a visit, under names that strange visit ids cannot escape from."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)

    def path(self, visit: str, kind: str) -> Path:
        """Where a visit's receipt lies; kind is json, txt or html."""
        return self._folder / f"{hashlib.sha256(visit.encode()).hexdigest()[:32]}.{kind}"

    def write(self, document: ReceiptDocument) -> None:
        """Keep a receipt; a corrected one replaces the one before."""
        for kind, text in (("json", document.json()), ("txt", document.text()), ("html", document.html())):
            # The ledger holds the receipt: what a loss of power takes can be made again.
            replace_file(self.path(document.visit, kind), text, durable=False)


class Mailer:
    """Sends receipts to those who gave an address. What could not be sent is tried again, also after a restart.

    The address stays in the vault and is looked up when a mail is sent: whoever was forgotten by then gets none. Each
    version of a receipt is sent once; after a crash between sending and noting it, it goes out again under the same
    Message-ID, which mail programs show once.
    """

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        *,
        host: str,
        port: int,
        sender: str,
        seller: str | None = None,
        tls: ssl.SSLContext | None = None,
        user: str | None = None,
        password: str | None = None,
    ) -> None:
        """Make a mailer.

        Args:
            host, port: the mail server.
            sender: address that the mails come from.
            seller: brand on the receipt.
            tls: for STARTTLS, without which nothing is sent then; passwords travel no other way.
            user, password: for servers that want them.
        """
        if password is not None and tls is None:
            raise ValueError("tls: want it where a password is sent")
        self._ledger, self._store, self._seller = ledger, store, seller
        self._host, self._port, self._sender, self._tls = host, port, sender, tls
        self._user, self._password = user, password

    def due(self, visit: str, t_ns: int) -> bool:
        """Note that the receipt of a visit, as it stands now, is to be sent; False where nobody wants it."""
        standing = self._ledger.standing(visit)
        if standing is None or standing.status in ("open", "review") or self._address(visit) is None:
            return False
        name, revision = f"mail {standing.revision}", {"revision": standing.revision}
        if self._ledger.recorded(visit, name) is None:
            self._ledger.record(visit, name, "mail due", t_ns, revision)
        return True

    def deliver(self, t_ns: int) -> tuple[int, int]:
        """Send what is due. Returns how many were sent and how many have to wait."""
        sent = waiting = 0
        for entry in self._ledger.unanswered("mail due"):
            document = ReceiptDocument.of(self._ledger, self._store, entry.visit, self._seller)
            address = self._address(entry.visit)
            if address is None or document is None or document.revision != entry.request["revision"]:
                said = "no address any more" if address is None else "corrected meanwhile"
            else:
                try:
                    self._send(document, address)
                    said = "sent"
                    sent += 1
                except (smtplib.SMTPRecipientsRefused, ValueError):
                    said = "address refused"
                except (smtplib.SMTPException, OSError):
                    waiting += 1
                    continue
            name = entry.key.removeprefix(f"{entry.visit}/")
            self._ledger.record(entry.visit, f"{name}/answer", "mail answered", t_ns, {"said": said})
        return sent, waiting

    def _address(self, visit: str) -> str | None:
        standing = self._ledger.standing(visit)
        holder = None if standing is None or standing.account is None else self._ledger.holder(standing.account)
        return None if holder is None else holder.email

    def _send(self, document: ReceiptDocument, address: str) -> None:
        mail = EmailMessage()
        mail["From"], mail["To"] = self._sender, address
        mail["Subject"] = f"Your receipt from {' '.join(document.seller.split())}"
        identity = hashlib.sha256(f"{self._store.id}\0{document.visit}\0{document.revision}".encode()).hexdigest()
        mail["Message-ID"] = f"<{identity[:40]}@{self._sender.rpartition('@')[2]}>"
        moment = datetime.datetime.fromtimestamp(document.t_ns // 1_000_000_000, datetime.UTC)
        mail["Date"] = moment
        mail.set_content(document.text())
        mail.add_alternative(document.html(), subtype="html")
        with smtplib.SMTP(self._host, self._port, timeout=MAIL_TIMEOUT_S) as server:
            if self._tls is not None:
                server.starttls(context=self._tls)
            if self._user is not None and self._password is not None:
                server.login(self._user, self._password)
            server.send_message(mail)


class Profiles:
    """What those who asked for suggestions bought. Nothing is kept of anybody else."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._connection = opened_sqlite(Path(path), "purchase profiles", _PROFILES_SCHEMA)

    def consent(self, account: str) -> None:
        """Begin a profile, because its owner said so."""
        self._connection.execute("INSERT OR IGNORE INTO purchase VALUES (?, '', 0)", (account,))

    def __contains__(self, account: str) -> bool:
        found = self._connection.execute("SELECT 1 FROM purchase WHERE account = ? AND gtin = ''", (account,))
        return found.fetchone() is not None

    def add(self, account: str, lines: Sequence[ReceiptLine]) -> bool:
        """Count what was bought; False, and nothing kept, without consent."""
        if account not in self:
            return False
        self._connection.executemany(
            "INSERT INTO purchase VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
            [(account, line.gtin, line.quantity) for line in lines],
        )
        return True

    def suggest(self, account: str, n: int = 3) -> list[str]:
        """GTINs that they buy most, most often first."""
        rows = self._connection.execute(
            "SELECT gtin FROM purchase WHERE account = ? AND gtin <> '' ORDER BY n DESC, gtin LIMIT ?", (account, n)
        )
        return [gtin for (gtin,) in rows]

    def erase(self, account: str) -> bool:
        """Forget a profile, also on disk. False where there was none.

        Raises:
            FusionError: somebody reads an old state and keeps the log alive.
        """
        run = self._connection.execute
        found = account in self
        run("DELETE FROM purchase WHERE account = ?", (account,))
        run("VACUUM")
        if run("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise FusionError("want the log emptied after erasing, got a reader that holds it; call again")
        return found

    def close(self) -> None:
        self._connection.close()
