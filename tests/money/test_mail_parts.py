"""Mails word by word, and what becomes of each when the server is busy, away, or refuses an address; no server runs."""

from __future__ import annotations

import email.policy
import hashlib
import smtplib
import ssl
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from money.books import BREAD, STORE, T_NS, TWO, receipt

from fusion.money.ledger import Ledger
from fusion.money.mail import Delivery, Mailer, MailSettings
from fusion.money.receipts import ReceiptDocument
from fusion.money.vault import Holder
from fusion.results import ReceiptLine


class Post:
    """Stands for smtplib.SMTP: notes what is done, and fails as it is asked to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[tuple[Any, ...]] = []
        self.mails: list[EmailMessage] = []
        self.failures: list[Exception | None] = []
        outer = self

        class Connection:
            def __init__(self, host: str, port: int, timeout: float) -> None:
                outer.done.append(("connect", host, port, timeout))

            def __enter__(self) -> Connection:
                return self

            def __exit__(self, *_: object) -> None:
                outer.done.append(("quit",))

            def starttls(self, context: object) -> None:
                outer.done.append(("starttls", context))

            def login(self, user: str, password: str) -> None:
                outer.done.append(("login", user, password))

            def send_message(self, mail: EmailMessage) -> None:
                failure = outer.failures.pop(0) if outer.failures else None
                if failure is not None:
                    raise failure
                outer.done.append(("send", mail["To"]))
                outer.mails.append(mail)

        monkeypatch.setattr(smtplib, "SMTP", Connection)


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Post:
    return Post(monkeypatch)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Books of three visits whose customers gave an address."""
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as opened:
        for i in (1, 2, 3):
            opened.hold(Holder(f"p{i}", f"customer {i}", None, f"c{i}@example.org", T_NS))
            opened.post_receipt(receipt(f"v{i}", *TWO, account=f"p{i}"))
        yield opened


def mailer(ledger: Ledger, **options: Any) -> Mailer:
    return Mailer(ledger, STORE, **{"host": "mail", "port": 25, "sender": "till@shop.example", **options})


def outcomes(ledger: Ledger) -> list[str]:
    return [entry.request["said"] for entry in ledger.entries_of("mail answered")]


def test_a_receipt_by_mail_word_by_word(ledger: Ledger, post: Post) -> None:
    sender = mailer(ledger, seller="Brand\nand Sons")
    assert sender.due("v1", T_NS) and sender.deliver(T_NS) == Delivery(1, 0)
    (mail,) = post.mails
    identity = hashlib.sha256(b"shop\0v1\0000").hexdigest()[:40]
    assert {name: str(mail[name]) for name in ("From", "To", "Subject", "Message-ID", "Date")} == {
        "From": "till@shop.example", "To": "c1@example.org", "Subject": "Your receipt from Brand and Sons",
        "Message-ID": f"<{identity}@shop.example>", "Date": "Tue, 03 Mar 2026 09:04:06 +0000",
    }  # fmt: skip
    document = ReceiptDocument.of(ledger, STORE, "v1", "Brand\nand Sons")
    assert document is not None
    plain, page = (part.get_content() for part in mail.iter_parts())
    assert plain == document.text() and page == document.html()
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    assert post.done == [("connect", "mail", 25, 20.0), ("send", "c1@example.org"), ("quit",)]


def test_a_link_stands_below_the_receipt(ledger: Ledger, post: Post) -> None:
    sender = mailer(ledger, link=lambda visit, now_s: f"https://my/{visit}/{now_s}")
    sender.due("v1", T_NS)
    sender.deliver(T_NS + 5 * 10**9)
    plain, page = (part.get_content() for part in post.mails[0].iter_parts())
    link = f"https://my/v1/{T_NS / 1e9 + 5}"
    words = "When and where each piece was taken, and what to do if something is wrong"
    assert plain.endswith(f"\n{words}:\n{link}\n") and f'<a href="{link}">{words}</a>' in page


def test_each_version_of_a_receipt_is_due_once(ledger: Ledger, post: Post) -> None:
    sender = mailer(ledger)
    assert sender.due("v1", T_NS) and sender.due("v1", T_NS + 1)
    due = ledger.recorded("v1", "mail 0")
    assert due is not None and (due.kind, due.t_ns, due.request) == ("mail due", T_NS, {"revision": 0})
    assert sender.deliver(T_NS + 7) == (1, 0) and sender.deliver(T_NS + 8) == (0, 0)
    answer = ledger.recorded("v1", "mail 0/answer")
    assert answer is not None and (answer.kind, answer.t_ns) == ("mail answered", T_NS + 7)
    assert answer.request == {"said": "sent"}
    ledger.decide("v1", "correct", by="eve", t_ns=T_NS, lines=[ReceiptLine(BREAD, 1, 199, 1.0)])
    assert sender.due("v1", T_NS) and ledger.recorded("v1", "mail 1") is not None
    ledger.decide("v1", "waive", by="eve", t_ns=T_NS, revision=2)
    # What was due is out of date by now, and the newest version is not due yet.
    assert sender.deliver(T_NS) == (0, 0) and outcomes(ledger) == ["sent", "corrected meanwhile"]
    assert len(post.mails) == 1


def test_what_has_no_receipt_or_no_address_is_never_due(ledger: Ledger, post: Post) -> None:
    sender = mailer(ledger)
    ledger.hold(Holder("p4", "customer 4", None, None, T_NS))
    ledger.post_receipt(receipt("v4", *TWO, account="p4"))
    ledger.post_receipt(receipt("v5", *TWO, account=None))
    ledger.post_receipt(receipt("v6", *TWO, account="p1", status="review"))
    ledger.open_visit("v7", "p1", T_NS)
    for visit in ("v4", "v5", "v6", "v7", "unknown"):
        assert sender.due(visit, T_NS) is False and sender.due_again(visit, T_NS) is False
    assert sender.deliver(T_NS) == (0, 0) and post.done == []
    # Forgotten in the meantime.
    sender.due("v1", T_NS)
    ledger.unlink_account("customer 1")
    assert sender.deliver(T_NS) == (0, 0) and outcomes(ledger) == ["no address any more"] and post.done == []


def test_a_customer_may_have_it_three_times_more(ledger: Ledger, post: Post) -> None:
    sender = mailer(ledger)
    for n in (1, 2, 3):
        assert sender.due_again("v1", T_NS + n) is True
        entry = ledger.recorded("v1", f"mail 0 again {n}")
        assert entry is not None and (entry.kind, entry.request) == ("mail due", {"revision": 0})
        assert sender.due_again("v1", T_NS + 9) is True, "it waits already"
        assert sender.deliver(T_NS + n) == (1, 0)
    assert sender.due_again("v1", T_NS + 4) is False and sender.deliver(T_NS) == (0, 0) and len(post.mails) == 3
    assert len({mail["Message-ID"] for mail in post.mails}) == 1, "mail programs show one version once"


@pytest.mark.parametrize(
    ("failure", "sent", "waiting", "connections"),
    [
        # This mail alone: the next ones are tried.
        (smtplib.SMTPDataError(451, b"later"), 2, 1, 3),
        (smtplib.SMTPSenderRefused(451, b"later", "x"), 2, 1, 3),
        # The server is away: the others wait without being tried.
        (ConnectionResetError(), 0, 3, 1),
        (smtplib.SMTPServerDisconnected("gone"), 0, 3, 1),
        (TimeoutError(), 0, 3, 1),
        # Nothing to try again.
        (smtplib.SMTPRecipientsRefused({}), 2, 0, 3),
        (ValueError("no such address"), 2, 0, 3),
    ],
)
def test_what_could_not_be_sent_waits_or_is_given_up(
    ledger: Ledger, post: Post, failure: Exception, sent: int, waiting: int, connections: int
) -> None:
    sender = mailer(ledger)
    for visit in ("v1", "v2", "v3"):
        sender.due(visit, T_NS)
    post.failures = [failure]
    assert sender.deliver(T_NS) == Delivery(sent, waiting)
    assert sum(step[0] == "connect" for step in post.done) == connections
    assert outcomes(ledger) == ["sent"] * sent if waiting else ["address refused", "sent", "sent"]
    # All that waited is sent once the server is back.
    assert sender.deliver(T_NS + 1) == Delivery(waiting, 0) and sender.deliver(T_NS + 2) == Delivery(0, 0)


def test_while_the_server_is_away_an_address_that_is_none_is_given_up(ledger: Ledger, post: Post) -> None:
    ledger.hold(Holder("p0", "customer 0", None, "x@example.org\nBcc: all@example.org", T_NS))
    ledger.post_receipt(receipt("v0", *TWO, account="p0"))
    sender = mailer(ledger)
    for visit in ("v1", "v0", "v2"):
        sender.due(visit, T_NS)
    post.failures = [OSError()]
    assert sender.deliver(T_NS) == Delivery(0, 2) and outcomes(ledger) == ["address refused"]


def test_a_message_of_plain_text_is_sent_now(ledger: Ledger, post: Post) -> None:
    context = ssl.create_default_context()
    sender = mailer(ledger, tls=context, user="till", password="secret", port=587)
    sender.write("bob@example.org", "Your  link\nBcc: all", "text\n")
    (mail,) = post.mails
    assert (mail["From"], mail["To"], mail["Subject"]) == ("till@shop.example", "bob@example.org", "Your link Bcc: all")
    assert mail["Message-ID"].endswith("@shop.example>") and mail["Date"] is not None
    assert mail.get_content() == "text\n" and mail.get_content_type() == "text/plain"
    assert post.done == [
        ("connect", "mail", 587, 20.0), ("starttls", context), ("login", "till", "secret"),
        ("send", "bob@example.org"), ("quit",),
    ]  # fmt: skip
    assert email.message_from_bytes(bytes(mail), policy=email.policy.default)["Date"] == mail["Date"]
    with pytest.raises(ValueError, match=r"^tls: want an SSL context where a password is sent, got none$"):
        mailer(ledger, user="till", password="secret")


def test_a_login_needs_both_a_user_and_a_password(ledger: Ledger, post: Post) -> None:
    context = ssl.create_default_context()
    for user, password in (("till", None), (None, "secret"), (None, None)):
        mailer(ledger, tls=context, user=user, password=password).write("b@example.org", "s", "t")
    assert not [step for step in post.done if step[0] == "login"]


def test_settings_make_a_mailer(ledger: Ledger, post: Post, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mail.key").write_text("from a file\n")
    (tmp_path / "mail.key").chmod(0o600)
    monkeypatch.setenv("MAIL", "from outside")
    made: list[ssl.SSLContext] = []
    real = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda: made.append(real()) or made[-1])  # type: ignore[func-returns-value]
    remote = {"host": "mail.example", "sender": "till@shop.example", "user": "till"}
    for fields, login in (
        ({**remote, "password_file": "mail.key"}, ("login", "till", "from a file")),
        ({**remote, "password_env": "MAIL"}, ("login", "till", "from outside")),
        ({"host": "mail.example", "sender": "till@shop.example"}, None),
        ({"host": "localhost", "sender": "till@shop.example", "tls": False, "port": 25}, None),
    ):
        post.done.clear()
        settings = MailSettings.model_validate(fields)
        sender = settings.mailer(ledger, STORE, tmp_path, "Brand", lambda visit, now_s: "https://my/")
        assert sender.due_again("v2" if login is None else "v1", T_NS)
        sender.deliver(T_NS)
        assert post.done[0] == ("connect", settings.host, settings.port, 20.0)
        assert (("starttls", made[-1]) in post.done) == settings.tls
        assert ([step for step in post.done if step[0] == "login"] or [None])[0] == login
        assert post.mails[-1]["Subject"] == "Your receipt from Brand" and "https://my/" in str(post.mails[-1])
