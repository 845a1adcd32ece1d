"""Mail: each version of a receipt is sent once to a customer who gave an address."""

from __future__ import annotations

import datetime
import email
import email.policy
import ipaddress
import smtplib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from conftest import Place
from money.books import STORE, T_NS, TWO, receipt
from money.mailboxes import Inbox, serving

from fusion.money.ledger import Ledger
from fusion.money.mail import Mailer
from fusion.money.vault import Holder


@pytest.fixture
def server() -> Iterator[tuple[Inbox, Controller]]:
    with serving() as running:
        yield running


def mailer(ledger: Ledger, controller: Controller | None) -> Mailer:
    """A mailer to a running server, or to a port where none listens."""
    port = 1 if controller is None else controller.port
    return Mailer(ledger, STORE, host="127.0.0.1", port=port, sender="shop@example.org", seller="Brand")


def test_a_receipt_is_mailed_once_to_a_customer_with_an_address(place: Place, server: tuple[Inbox, Controller]) -> None:
    inbox, controller = server
    with place.open(STORE) as ledger:
        ledger.hold(Holder("p1", "alice", "tok", "alice@example.org", T_NS))
        ledger.hold(Holder("p2", "bob", "tok", None, T_NS))
        ledger.hold(Holder("p3", "carol", "tok", "refused@example.org", T_NS))
        ledger.hold(Holder("p4", "dave", "tok", "x@example.org\nBcc: all@example.org", T_NS))
        for i in range(1, 5):
            ledger.post_receipt(receipt(f"v{i}", *TWO, account=f"p{i}"))
        assert [mailer(ledger, controller).due(f"v{i}", T_NS) for i in range(1, 5)] == [True, False, True, True]
        # The server is away, then busy; nothing is lost over a restart.
        assert mailer(ledger, None).deliver(T_NS) == (0, 2)
    with place.open(STORE) as ledger:
        inbox.answers = ["451 try again later"]
        assert mailer(ledger, controller).deliver(T_NS) == (0, 1)
        assert mailer(ledger, controller).due("v1", T_NS + 5)
        assert mailer(ledger, controller).deliver(T_NS) == (1, 0)
        assert mailer(ledger, controller).deliver(T_NS) == (0, 0)
        ((to, mail),) = inbox.mails
        assert to == ["alice@example.org"] and "Total" in mail and "6.97 EUR" in mail and "text/html" in mail
        # A correction is another version; a customer who has been forgotten since gets none.
        ledger.decide("v1", "waive", by="eve", t_ns=T_NS + 9)
        assert mailer(ledger, controller).due("v1", T_NS + 9)
        ledger.unlink_account("alice")
        assert mailer(ledger, controller).deliver(T_NS + 10) == (0, 0) and len(inbox.mails) == 1
        answers = [entry for entry in ledger.entries_between(0, 2**62) if entry.kind == "mail answered"]
        assert sorted(entry.request["said"] for entry in answers) == [
            "address refused",
            "address refused",
            "no address any more",
            "sent",
        ]
        assert ledger.verify() is None and "example.org" not in str(ledger.entries_between(0, 2**62))


def test_a_mail_holds_the_link_and_a_customer_may_have_it_again(place: Place, server: tuple[Inbox, Controller]) -> None:
    inbox, controller = server
    with place.open(STORE) as ledger:
        ledger.hold(Holder("p1", "alice", "tok", "alice@example.org", T_NS))
        ledger.post_receipt(receipt("v1", *TWO, account="p1"))
        sender = Mailer(
            ledger, STORE, host="127.0.0.1", port=controller.port, sender="shop@example.org",
            link=lambda visit, now_s: f"https://my.example/in#L1{visit}-{now_s:.0f}",
        )  # fmt: skip
        assert sender.due("v1", T_NS) and not sender.due_again("v2", T_NS)
        assert sender.deliver(T_NS) == (1, 0)
        link = f"https://my.example/in#L1v1-{T_NS / 1e9:.0f}"
        ((_, mail),) = inbox.mails
        parts = email.message_from_string(mail, policy=email.policy.default).walk()
        plain, page = (part.get_content() for part in parts if not part.is_multipart())
        assert link in plain.split() and f'<a href="{link}">' in page
        # Each request is sent once; one that waits is not asked for twice; three of one version are enough.
        for n in range(1, 5):
            assert [sender.due_again("v1", T_NS + n) for _ in range(2)] == [n < 4] * 2
            sender.deliver(T_NS + n)
        assert len(inbox.mails) == 4
        sender.write("bob@example.org", "Your link\nBcc: all@example.org", "text")
        assert inbox.mails[-1][0] == ["bob@example.org"] and ledger.verify() is None


def test_a_password_is_not_sent_in_the_clear(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as ledger, pytest.raises(ValueError, match="tls"):
        Mailer(ledger, STORE, host="x", port=25, sender="a@b", user="u", password="p")


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's TLS on this machine, and a client's that trusts its certificate."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(days=1)).add_extension(address, critical=False)
        .not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "mail.pem").write_bytes(key.private_bytes(*private) + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "mail.pem")
    return server, ssl.create_default_context(cadata=pem.decode())


def test_a_server_that_wants_a_password_gets_it_over_tls(
    tmp_path: Path, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    logins = []

    def known(server: object, session: object, envelope: object, mechanism: str, data: LoginPassword) -> AuthResult:
        logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"secret")

    wanted = {"authenticator": known, "auth_required": True, "require_starttls": True, "tls_context": tls[0]}
    with serving(**wanted) as (inbox, controller), Ledger.open(tmp_path / "ledger.sqlite", STORE) as ledger:
        there = {"host": "127.0.0.1", "port": controller.port, "sender": "shop@example.org"}
        login = {"user": "till", "password": "secret"}
        Mailer(ledger, STORE, **there, tls=tls[1], **login).write("bob@example.org", "Hello", "text")
        assert logins == [(b"till", b"secret")] and len(inbox.mails) == 1
        for wrong in ({"user": "till", "password": "guessed"}, {}):
            with pytest.raises(smtplib.SMTPException):
                Mailer(ledger, STORE, **there, tls=tls[1], **wrong).write("bob@example.org", "Hello", "text")
        # A server whose certificate is not trusted never sees the password.
        with pytest.raises(ssl.SSLCertVerificationError):
            Mailer(ledger, STORE, **there, tls=ssl.create_default_context(), **login).write("b@example.org", "H", "t")
        assert len(logins) == 2 and len(inbox.mails) == 1
