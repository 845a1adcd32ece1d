"""Receipts by e-mail, to customers who gave an address."""

from __future__ import annotations

import datetime
import email.utils
import hashlib
import smtplib
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import NamedTuple, Self

from pydantic import Field, model_validator

from fusion.files.secrets import secret_of
from fusion.money.ledger import Ledger
from fusion.money.receipts import ReceiptDocument
from fusion.store.models import Store
from fusion.store.values import Identifier, StrictModel, require

MAIL_TIMEOUT_S = 20.0
# How often a customer may have one version of a receipt sent once more.
AGAIN_MAX = 3
LINK_TEXT = "When and where each piece was taken, and what to do if something is wrong"
# Kinds of the ledger's entries about mail, and the field of an answer's request that holds the outcome.
_DUE, _ANSWERED = "mail due", "mail answered"
_OUTCOME = "said"


class MailSettings(StrictModel):
    """`[mail]` of till.toml: the server that takes the receipts.

    Attributes:
        host, port: the server.
        sender: address that the mails come from.
        tls: whether the connection is encrypted by STARTTLS; required with a password, and for a server elsewhere.
        user, password_file, password_env: credentials, for servers that want them.
    """

    host: Identifier
    port: int = Field(default=587, ge=1, le=65535)
    sender: Identifier
    tls: bool = True
    user: Identifier | None = None
    password_file: Identifier | None = None
    password_env: Identifier | None = None

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        require("@" in self.sender, "sender: an address with @", self.sender)
        named = self.password_file is not None or self.password_env is not None
        require(named == (self.user is not None), "user and password_file or password_env together", self.user)
        is_local = self.host in ("localhost", "127.0.0.1", "::1")
        require(self.tls or (is_local and not named), "tls = true for a server elsewhere or with a password", self.host)
        return self

    def mailer(
        self,
        ledger: Ledger,
        store: Store,
        base: Path,
        seller: str | None = None,
        link: Callable[[str, float], str] | None = None,
    ) -> Mailer:
        """What sends the receipts of a store; `base`: what password_file is relative to. Raises ConfigError."""
        password = None
        if self.user is not None:
            file = base / self.password_file if self.password_file is not None else None
            password = secret_of(file=file, env=self.password_env, what="mail.password")
        return Mailer(
            ledger, store, host=self.host, port=self.port, sender=self.sender, seller=seller,
            tls=ssl.create_default_context() if self.tls else None, user=self.user, password=password,
            link=link,
        )  # fmt: skip


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
        link: Callable[[str, float], str] | None = None,
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
            link: makes the link to the page of a visit's receipt, given the visit and the time in seconds since 1970.

        Raises:
            ValueError: a password without `tls` would travel unencrypted.
        """
        if password is not None and tls is None:
            raise ValueError("tls: want an SSL context where a password is sent, got none")
        self._ledger, self._store, self._seller = ledger, store, seller
        self._host, self._port, self._sender, self._tls = host, port, sender, tls
        self._user, self._password, self._link = user, password, link

    def due(self, visit: str, t_ns: int) -> bool:
        """Record that the current receipt of a visit is to be sent. False without a receipt or an address."""
        standing = self._ledger.standing(visit)
        if standing is None or not standing.is_final or self._address(visit) is None:
            return False
        name, revision = f"mail {standing.revision}", {"revision": standing.revision}
        if self._ledger.recorded(visit, name) is None:
            self._ledger.record(visit, name, _DUE, t_ns, revision)
        return True

    def due_again(self, visit: str, t_ns: int) -> bool:
        """Record that the customer asks for their current receipt once more. False without one, or too often."""
        standing = self._ledger.standing(visit)
        if standing is None or not standing.is_final or self._address(visit) is None:
            return False
        for n in range(1, AGAIN_MAX + 1):
            name = f"mail {standing.revision} again {n}"
            recorded = self._ledger.recorded(visit, name)
            if recorded is None:
                return self._ledger.record(visit, name, _DUE, t_ns, {"revision": standing.revision})
            if self._ledger.recorded(visit, f"{name}/answer") is None:
                return True  # It waits to be sent.
        return False

    def write(self, address: str, subject: str, text: str) -> None:
        """Send a message of plain text now, such as a link to sign in. Raises OSError, SMTPException or ValueError."""
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = self._sender, address, " ".join(subject.split())
        mail["Message-ID"] = email.utils.make_msgid(domain=self._sender.rpartition("@")[2])
        mail["Date"] = email.utils.localtime()
        mail.set_content(text)
        self._send(mail)

    def deliver(self, t_ns: int) -> Delivery:
        """Send what is due. A server that cannot be reached is tried once, however many mails wait for it."""
        sent = waiting = 0
        away = False
        for entry in self._ledger.unanswered(_DUE):
            document = ReceiptDocument.of(self._ledger, self._store, entry.visit, self._seller)
            address = self._address(entry.visit)
            if address is None:
                outcome = "no address any more"
            elif document is None or document.revision != entry.request["revision"]:
                outcome = "corrected meanwhile"
            else:
                try:
                    mail = self._mail(document, address, t_ns)
                    if away:
                        waiting += 1
                        continue
                    self._send(mail)
                    outcome = "sent"
                    sent += 1
                except (smtplib.SMTPRecipientsRefused, ValueError):
                    outcome = "address refused"
                except (smtplib.SMTPException, OSError) as error:
                    # A server that answers refuses this mail alone; one that does not would keep the others waiting.
                    away = not isinstance(error, smtplib.SMTPResponseException)
                    waiting += 1
                    continue
            name = entry.key.removeprefix(f"{entry.visit}/")
            self._ledger.record(entry.visit, f"{name}/answer", _ANSWERED, t_ns, {_OUTCOME: outcome})
        return Delivery(sent, waiting)

    def _address(self, visit: str) -> str | None:
        customer = self._ledger.customer(visit)
        return None if customer is None else customer.email

    def _mail(self, document: ReceiptDocument, address: str, t_ns: int) -> EmailMessage:
        mail = EmailMessage()
        mail["From"], mail["To"] = self._sender, address
        mail["Subject"] = f"Your receipt from {' '.join(document.seller.split())}"
        identity = hashlib.sha256(f"{self._store.id}\0{document.visit}\0{document.revision}".encode()).hexdigest()
        mail["Message-ID"] = f"<{identity[:40]}@{self._sender.rpartition('@')[2]}>"
        mail["Date"] = datetime.datetime.fromtimestamp(document.t_ns // 1_000_000_000, datetime.UTC)
        link = "" if self._link is None else self._link(document.visit, t_ns / 1e9)
        mail.set_content(document.text() + (f"\n{LINK_TEXT}:\n{link}\n" if link else ""))
        mail.add_alternative(document.html(link, LINK_TEXT), subtype="html")
        return mail

    def _send(self, mail: EmailMessage) -> None:
        with smtplib.SMTP(self._host, self._port, timeout=MAIL_TIMEOUT_S) as server:
            if self._tls is not None:
                server.starttls(context=self._tls)
            if self._user is not None and self._password is not None:
                server.login(self._user, self._password)
            server.send_message(mail)
