"""Receipts by e-mail, to customers who gave an address."""

from __future__ import annotations

import datetime
import hashlib
import smtplib
import ssl
from email.message import EmailMessage
from typing import NamedTuple

from fusion.money.ledger import Ledger
from fusion.money.receipts import ReceiptDocument
from fusion.store.models import Store

MAIL_TIMEOUT_S = 20.0
# Kinds of the ledger's entries about mail, and the field of an answer's request that holds the outcome.
_DUE, _ANSWERED = "mail due", "mail answered"
_OUTCOME = "said"


class Delivery(NamedTuple):
    """How many mails were sent, and how many have to wait for the server."""

    sent: int
    waiting: int


class Mailer:
    """Sends receipts to customers who gave an address. What could not be sent is tried again, also after a restart.

    The address stays in the vault and is looked up when a mail is sent: a customer who was forgotten by then gets none.
    Each version of a receipt is sent once. After a crash between sending and recording it goes out again under the same
    Message-ID, and mail programs show it once.
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
        """Prepare to send; connects only when mail is delivered.

        Args:
            ledger: the books, which keep what is due and what was sent.
            store: the store whose receipts these are.
            host: the mail server.
            port: its port.
            sender: address that the mails come from.
            seller: brand on the receipt.
            tls: context for STARTTLS; with one, no mail is sent unencrypted. Required with a password.
            user: for servers that want one.
            password: the user's.

        Raises:
            ValueError: a password without `tls` would travel unencrypted.
        """
        if password is not None and tls is None:
            raise ValueError("tls: want an SSL context where a password is sent, got none")
        self._ledger, self._store, self._seller = ledger, store, seller
        self._host, self._port, self._sender, self._tls = host, port, sender, tls
        self._user, self._password = user, password

    def due(self, visit: str, t_ns: int) -> bool:
        """Record that the current receipt of a visit is to be sent. False without a receipt or an address."""
        standing = self._ledger.standing(visit)
        if standing is None or not standing.is_final or self._address(visit) is None:
            return False
        name, revision = f"mail {standing.revision}", {"revision": standing.revision}
        if self._ledger.recorded(visit, name) is None:
            self._ledger.record(visit, name, _DUE, t_ns, revision)
        return True

    def deliver(self, t_ns: int) -> Delivery:
        """Send what is due."""
        sent = waiting = 0
        for entry in self._ledger.unanswered(_DUE):
            document = ReceiptDocument.of(self._ledger, self._store, entry.visit, self._seller)
            address = self._address(entry.visit)
            if address is None:
                outcome = "no address any more"
            elif document is None or document.revision != entry.request["revision"]:
                outcome = "corrected meanwhile"
            else:
                try:
                    self._send(document, address)
                    outcome = "sent"
                    sent += 1
                except (smtplib.SMTPRecipientsRefused, ValueError):
                    outcome = "address refused"
                except (smtplib.SMTPException, OSError):
                    waiting += 1
                    continue
            name = entry.key.removeprefix(f"{entry.visit}/")
            self._ledger.record(entry.visit, f"{name}/answer", _ANSWERED, t_ns, {_OUTCOME: outcome})
        return Delivery(sent, waiting)

    def _address(self, visit: str) -> str | None:
        customer = self._ledger.customer(visit)
        return None if customer is None else customer.email

    def _send(self, document: ReceiptDocument, address: str) -> None:
        mail = EmailMessage()
        mail["From"], mail["To"] = self._sender, address
        mail["Subject"] = f"Your receipt from {' '.join(document.seller.split())}"
        identity = hashlib.sha256(f"{self._store.id}\0{document.visit}\0{document.revision}".encode()).hexdigest()
        mail["Message-ID"] = f"<{identity[:40]}@{self._sender.rpartition('@')[2]}>"
        mail["Date"] = datetime.datetime.fromtimestamp(document.t_ns // 1_000_000_000, datetime.UTC)
        mail.set_content(document.text())
        mail.add_alternative(document.html(), subtype="html")
        with smtplib.SMTP(self._host, self._port, timeout=MAIL_TIMEOUT_S) as server:
            if self._tls is not None:
                server.starttls(context=self._tls)
            if self._user is not None and self._password is not None:
                server.login(self._user, self._password)
            server.send_message(mail)
