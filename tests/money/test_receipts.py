"""Receipts: what was posted, said three ways; mailed once to whom asked for it; nobody profiled without asking."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from conftest import Place
from money.test_ledger import BREAD, COLA, INJECTIONS, STORE, T_NS, TWO, receipt

from fusion.money.ledger import Ledger
from fusion.money.mail import Mailer
from fusion.money.profiles import Profiles
from fusion.money.receipts import ReceiptDocument, ReceiptStore
from fusion.money.sales import Discount
from fusion.money.vault import Holder
from fusion.results import ReceiptLine


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as opened:
        yield opened


def test_a_receipt_says_what_was_posted(ledger: Ledger) -> None:
    less = (Discount("two for one", COLA, 249),)
    ledger.post_receipt(replace(receipt("v1", *TWO), total=448), less)
    document = ReceiptDocument.of(ledger, STORE, "v1", seller="Brand & Sons")
    assert document is not None
    said = json.loads(document.json())
    assert said["total"] == 448 == sum(tax["gross"] for tax in said["vat"])
    assert said["vat"] == [
        {"rate": "19%", "net": 209, "vat": 40, "gross": 249}, {"rate": "7%", "net": 186, "vat": 13, "gross": 199}
    ]  # fmt: skip
    assert sum(line["amount"] for line in said["lines"]) - said["discounts"][0]["amount"] == 448
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
    assert ReceiptDocument.of(ledger, STORE, "v1") is None and ReceiptDocument.of(ledger, STORE, "nobody") is None
    ledger.post_receipt(receipt("v1", *TWO, status="review"))
    assert ReceiptDocument.of(ledger, STORE, "v1") is None


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.said += data


def test_strange_names_stay_text(ledger: Ledger, tmp_path: Path) -> None:
    kept = ReceiptStore(tmp_path / "receipts")
    for text in [*INJECTIONS, "../../x", "<script>alert(1)</script>", "a" * 250]:
        ledger.post_receipt(receipt(text, *TWO, account=None))
        document = ReceiptDocument.of(ledger, STORE, text, seller=text)
        assert document is not None
        page = Page(document.html())
        assert "script" not in page.tags and (text in page.said or "\x00" in text)
        assert json.loads(document.json())["receipt"] == text
        kept.write(document)
        assert json.loads(kept.path(text, "json").read_text(encoding="utf-8"))["seller"] == text
    assert {path.parent for path in (tmp_path / "receipts").rglob("*")} == {tmp_path / "receipts"}


# ---- mail ------------------------------------------------------------------------------------------------------------


class Inbox:
    def __init__(self) -> None:
        self.mails: list[Any] = []
        self.answers: list[str] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if "refused" in address:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.answers:
            return self.answers.pop(0)
        self.mails.append((envelope.rcpt_tos, envelope.content.decode()))
        return "250 OK"


@pytest.fixture
def inbox() -> Iterator[tuple[Inbox, Controller]]:
    handler = Inbox()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(handler, hostname="127.0.0.1", port=port)
    controller.start()
    yield handler, controller
    controller.stop()


def mailer(ledger: Ledger, controller: Controller | None) -> Mailer:
    port = 1 if controller is None else controller.port
    return Mailer(ledger, STORE, host="127.0.0.1", port=port, sender="shop@example.org", seller="Brand")


def test_a_receipt_is_mailed_once_to_who_gave_an_address(place: Place, inbox: tuple[Inbox, Controller]) -> None:
    handler, controller = inbox
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
        handler.answers = ["451 try again later"]
        assert mailer(ledger, controller).deliver(T_NS) == (0, 1)
        assert mailer(ledger, controller).due("v1", T_NS + 5)
        assert mailer(ledger, controller).deliver(T_NS) == (1, 0)
        assert mailer(ledger, controller).deliver(T_NS) == (0, 0)
        ((to, mail),) = handler.mails
        assert to == ["alice@example.org"] and "Total" in mail and "6.97 EUR" in mail and "text/html" in mail
        # A correction is another version; whoever is forgotten meanwhile gets none.
        ledger.decide("v1", "waive", by="eve", t_ns=T_NS + 9)
        assert mailer(ledger, controller).due("v1", T_NS + 9)
        ledger.unlink_account("alice")
        assert mailer(ledger, controller).deliver(T_NS + 10) == (0, 0) and len(handler.mails) == 1
        said = [entry.request["said"] for entry in ledger.entries_between(0, 2**62) if entry.kind == "mail answered"]
        assert sorted(said) == ["address refused", "address refused", "no address any more", "sent"]
        assert ledger.verify() is None and "example.org" not in str(ledger.entries_between(0, 2**62))


def test_a_password_is_not_sent_in_the_clear(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="tls"):
        Mailer(ledger, STORE, host="x", port=25, sender="a@b", user="u", password="p")


# ---- profiles --------------------------------------------------------------------------------------------------------


def test_a_profile_is_kept_only_of_those_who_asked_and_erased_at_once(tmp_path: Path) -> None:
    path = tmp_path / "profiles.sqlite"
    profiles = Profiles(path)
    assert not profiles.add("alice-long-name", TWO) and b"alice" not in path.read_bytes()
    profiles.consent("alice-long-name")
    profiles.consent("bob-long-name")
    assert profiles.add("alice-long-name", TWO) and profiles.add("alice-long-name", TWO[1:])
    assert profiles.add("alice-long-name", [ReceiptLine(BREAD, 5, 1, 1.0)])
    assert profiles.suggest("alice-long-name") == [BREAD, COLA] and profiles.suggest("bob-long-name") == []
    assert profiles.erase("alice-long-name") and not profiles.erase("alice-long-name")
    assert "alice-long-name" not in profiles and "bob-long-name" in profiles
    assert b"alice" not in b"".join(one.read_bytes() for one in tmp_path.glob("profiles*"))
    assert not profiles.add("alice-long-name", TWO)
