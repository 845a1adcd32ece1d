"""The shopper's pages: who comes in, what they see, and that they see nothing else."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from urllib.parse import quote

import pytest
from show.phones import ACCOUNTS, KEY, T_NS, ServedPages, opened_books, serving_pages

from fusion.commands.main import main
from fusion.errors import LedgerError
from fusion.files.secrets import store_key
from fusion.gates.codes import CodeVerifier, UsedCodes
from fusion.gates.erasures import Erasures
from fusion.gates.shopper_sessions import ShopperSession, ShopperSessions
from fusion.gates.verifiers import GateRequest, Verified
from fusion.money.ledger import Ledger
from fusion.money.links import LIFETIME_S, store_links
from fusion.money.receipts import GoodsLine, ReceiptDocument
from fusion.show.shopper import access
from fusion.show.shopper.limits import Limits
from fusion.show.shopper.live import ShopperPages
from fusion.show.shopper.pdf import receipt_pdf
from fusion.store.models import Store

VISITS = ("ann-1", "ann-2", "bob-1", "guest-1")
# What is read or changed about one visit.
ABOUT_A_VISIT = (
    ("GET", "/api/visit?visit={visit}", None),
    ("GET", "/api/receipt.pdf?visit={visit}", None),
    ("POST", "/api/mail", {"visit": "{visit}"}),
    ("POST", "/api/dispute", {"visit": "{visit}", "gtin": "GTIN", "quantity": 1, "reason": "not taken"}),
    ("POST", "/api/answer", {"visit": "{visit}", "question": "0" * 16, "choice": 0}),
)
OF_AN_ACCOUNT = (
    ("POST", "/api/code", {}), ("GET", "/api/profile", None), ("POST", "/api/profile", {"consent": True}),
    ("POST", "/api/erase", {}),
)  # fmt: skip
OF_A_SESSION = (
    ("GET", "/api/visits", None), ("GET", "/api/data.json", None), ("GET", "/api/live", None),
    ("POST", "/api/sign-out", {}), *OF_AN_ACCOUNT,
)  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Iterator[ServedPages]:
    with serving_pages(tmp_path_factory.mktemp("shop"), store) as served:
        yield served


@pytest.fixture
def own(tmp_path: Path, store: Store) -> Iterator[ServedPages]:
    """Pages that a test may change."""
    with serving_pages(tmp_path, store) as served:
        yield served


def about(served: ServedPages, path: str, content: Any, visit: str) -> tuple[str, Any]:
    gtin = served.store.products[0].gtin
    text = json.dumps(content).replace("{visit}", visit).replace("GTIN", gtin)
    return path.replace("{visit}", quote(visit, safe="")), None if content is None else json.loads(text)


# ---- who comes in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("purpose", ["account", "app", "visit", "door"])
def test_a_link_signs_in_once_and_for_its_purpose_alone(served: ServedPages, purpose: str) -> None:
    subject = "ann" if purpose in ("account", "app") else "guest-1"
    token = served.token(purpose, subject)
    status, headers = served.sign_in(token=token)
    assert status == 200
    _, me = served.get("/api/me", headers)
    assert me["signed"] == ("account" if subject == "ann" else "visit")
    status, answer = served.sign_in(token=token)
    assert status == 410 and answer["error"].startswith("link_used")


def test_links_that_are_old_forged_or_of_another_store_sign_no_one_in(served: ServedPages, store: Store) -> None:
    old = served.token("account", "ann", ago_s=LIFETIME_S["account"] + 10)
    assert served.sign_in(token=old) == (410, {"error": "link_old"})
    now_s = time.time()
    elsewhere = store_links(KEY, "another-store", "").token("account", "ann", now_s)
    other_key = store_links(b"x" * 32, store.id, "", b"y" * 32)
    good = served.token("account", "ann")
    forged = [elsewhere, other_key.token("account", "ann", now_s), other_key.token("app", "ann", now_s)]
    forged += [good[:-2] + ("A" if good[-2] != "A" else "B") + good[-1], good + "=", good + "A"]
    forged += ["L1", "", "L1" + "A" * 900]
    # A link of one purpose under the key of another: the app's secret signs no receipt's link.
    forged.append(store_links(b"x" * 32, store.id, "", KEY).token("app", "ann", now_s))
    # One that claims a later expiry than its purpose may have.
    forged.append(served.links.token("app", "ann", now_s + 3600))
    assert {served.sign_in(token=token)[0] for token in forged} == {403}


def test_guesses_have_an_end_and_do_not_keep_others_out(own: ServedPages) -> None:
    statuses = [own.sign_in(code="BCDF 2345")[0] for _ in range(31)]
    assert statuses == [403] * 30 + [429]
    # Whoever guesses in the shop's Wi-Fi keeps no one out who has a link.
    assert {own.sign_in(token="L1" + "A" * 100)[0] for _ in range(31)} == {403}
    own.as_account("bob")
    # A try of another site's page is none at all.
    link = {"token": own.token("account", "ann")}
    assert own.ask("POST", "/api/sign-in", link, {"Origin": "https://evil.example"})[0] == 403


def test_sessions_outlive_a_restart_and_end_everywhere(own: ServedPages, tmp_path: Path) -> None:
    first, second, bob = own.as_account("ann"), own.as_account("ann"), own.as_account("bob")
    again = ShopperSessions(tmp_path / "shopper.sqlite")
    token = first["Cookie"].partition("=")[2]
    found = again.get(token, time.time())
    assert found is not None and (found.kind, found.subject) == ("account", "ann")
    assert again.get(token, time.time() + 91 * 86400) is None  # not used for a season
    again.close()
    assert b"ann-" not in (tmp_path / "shopper.sqlite").read_bytes() and token.encode() not in (
        tmp_path / "shopper.sqlite"
    ).read_bytes()
    with own.stream(second) as messages:
        next(messages)
        assert own.post("/api/sign-out", {"everywhere": True}, own.as_account("ann"))[0] == 200
        own.runner.carts(("ann-3", []))  # whatever comes next finds the session gone
        assert any(message.get("signed_out") for message in messages)
    assert [own.get("/api/visits", headers)[0] for headers in (first, second, bob)] == [401, 401, 200]


def test_a_link_by_mail_goes_to_known_addresses_and_the_answer_is_the_same(own: ServedPages) -> None:
    origin = {"Origin": own.origin, "Accept-Language": "de"}
    asked = ("ANN@mail.example ", "x@y.z", "ann")
    answers = {own.ask("POST", "/api/sign-in/mail", {"email": each}, origin)[::2] for each in asked}
    assert answers == {(202, "{}")}
    assert own.outbox.came.wait(60)
    (mail,) = own.outbox.sent
    assert mail[0] == "ann@mail.example" and "Ihr Link" in mail[1]
    token = mail[2].split()[[word.startswith("L1") for word in mail[2].split()].index(True)]
    assert own.sign_in(token=token)[0] == 200
    # Three an hour to one address, whoever asks.
    own.outbox.came.clear()
    for _ in range(5):
        own.ask("POST", "/api/sign-in/mail", {"email": "ann@mail.example"}, origin)
    own.app.access._sending.shutdown(wait=True)
    assert len(own.outbox.sent) == 3


def test_a_link_goes_to_the_customers_address_not_to_one_that_looks_like_it(own: ServedPages) -> None:
    rows = "account,token,email,member,adult\nkai,tok,kai.strasse@mail.example,no,no\n"
    own.parts.customers.file.path.write_text(rows)  # type: ignore[attr-defined]
    # The same without regard to letters' cases, and mailboxes of other people.
    for address in ("kai.stra\u00dfe@mail.example", "\u212aai.strasse@mail.example"):
        own.ask("POST", "/api/sign-in/mail", {"email": address}, {"Origin": own.origin})
    own.app.access._sending.shutdown(wait=True)
    assert {address for address, _, _ in own.outbox.sent} <= {"kai.strasse@mail.example"}
    assert len(own.outbox.sent) == 2


def test_asking_for_unknown_addresses_uses_up_no_ones_mails(own: ServedPages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "OF_ALL_MAX", 2)
    for address in ("x@a.example", "y@a.example", "z@a.example", *3 * ["ann@mail.example"]):
        own.ask("POST", "/api/sign-in/mail", {"email": address}, {"Origin": own.origin})
    own.app.access._sending.shutdown(wait=True)
    assert len(own.outbox.sent) == 2, "as many as may be sent to all"


def test_a_used_receipt_link_brings_a_new_one_to_the_address_of_the_receipt_alone(own: ServedPages) -> None:
    token = own.token("visit", "ann-1")
    own.sign_in(token=token)
    assert own.sign_in(token=token) == (410, {"error": "link_used_again"})
    own.ask("POST", "/api/sign-in/mail", {"token": token, "email": "thief@x.example"}, {"Origin": own.origin})
    own.ask("POST", "/api/sign-in/mail", {"token": own.token("account", "bob")}, {"Origin": own.origin})
    own.app.access._sending.shutdown(wait=True)
    assert [address for address, _, _ in own.outbox.sent] == ["ann@mail.example"]


def test_a_guest_is_shown_a_code_at_the_door_that_is_good_once(own: ServedPages) -> None:
    gate = own.store.gate[0].id
    screen, other = own.pair(f"gate/{gate}"), own.as_account("ann")
    with own.stream(screen, "/screen/api/live") as messages, own.stream(other) as phone:
        own.runner.send("left", [1, gate, "bob-1"])  # a customer needs no code
        own.runner.send("left", [1, gate, "guest-1"])
        door = next(message["door"] for message in messages if "door" in message)
        own.runner.carts(("ann-3", []))
        seen = [next(phone), next(phone)]
        assert "basket" in seen[-1] and not any("door" in message for message in seen)
    visits = own.app._visits
    assert [visits.is_guest(visit) for visit in ("ann-1", "bob-1", "guest-1", "never")] == [False, False, True, True]
    status, headers = own.sign_in(code=door["code"].lower())
    assert status == 200 and own.get("/api/me", headers)[1]["visit"] == "guest-1"
    assert own.sign_in(code=door["code"])[0] == 410


# ---- what they see ---------------------------------------------------------------------------------------------------


def test_a_receipt_shows_when_and_where_each_piece_was_taken(served: ServedPages, store: Store) -> None:
    headers = served.as_account("ann")
    _, listed = served.get("/api/visits", headers)
    assert {row["visit"]: row["status"] for row in listed["visits"]} == {
        "ann-1": "settled", "ann-2": "review", "ann-3": "open"
    }  # fmt: skip
    _, found = served.get("/api/visit?visit=ann-1", headers)
    first, second = store.products[:2]
    ms = T_NS // 10**6
    assert [(row["name"], row["quantity"], row["amount"], row["taken"]) for row in found["lines"]] == [
        (first.name, 2, 2 * first.price, [[ms + 10_000, store.plates[0].plate], [ms + 30_000, store.plates[1].plate]]),
        (second.name, 1, second.price, [[ms + 50_000, store.plates[2].plate]]),
    ]
    assert found["total"] == 2 * first.price + second.price and found["questions"] == [] and found["mail"]
    assert sum(net + vat for _, net, vat in found["taxes"]) == found["total"]


def test_a_phone_is_sent_its_own_basket_and_no_other(served: ServedPages, store: Store) -> None:
    ann, bob = served.as_account("ann"), served.as_account("bob")
    first, second = store.products[:2]
    with served.stream(ann) as on_ann, served.stream(bob) as on_bob:
        next(on_ann), next(on_bob)
        served.runner.carts(("ann-3", [(first.gtin, 2)]), ("guest-1", [(second.gtin, 1)]))
        served.runner.carts(("ann-3", [(first.gtin, 2)]), ("bob-1", [(second.gtin, 1)]))
        basket = next(message["basket"] for message in on_ann if "basket" in message)
        assert basket["visit"] == "ann-3" and basket["total"] == 2 * first.price
        seen = next(message["basket"] for message in on_bob if "basket" in message)
        assert seen["visit"] == "bob-1"
        served.runner.carts(("bob-1", [(second.gtin, 1)]))
        assert next(m["basket"] for m in on_ann if "basket" in m) == {"visit": "ann-3", "over": True}


def test_the_receipt_comes_to_the_phone_the_moment_it_is_final(own: ServedPages, store: Store) -> None:
    from show.phones import bill

    ann, bob = own.as_account("ann"), own.as_account("bob")
    with own.stream(ann) as messages, own.stream(bob) as others:
        next(messages), next(others)
        own.ledger.post_receipt(bill(store, "ann-3"))
        assert next(message["visit"] for message in messages if "visit" in message) == "ann-3"
        own.ledger.decide("bob-1", "waive", by="eve", t_ns=T_NS + 10**12)
        assert next(message["visit"] for message in others if "visit" in message) == "bob-1"
    assert own.get("/api/visit?visit=ann-3", ann)[1]["status"] == "settled"


def test_two_consoles_a_phone_and_a_door_see_what_the_others_do(own: ServedPages, users_file: Path) -> None:
    from show.consoles import serving

    with (
        serving(own.store, own.ledger, users_file) as first,
        serving(own.store, own.ledger, users_file) as second,
        second.stream(second.sign_in("ben")[1]) as on_second,
        own.stream(own.as_account("ann")) as on_phone,
        own.stream(own.pair(f"gate/{own.store.gate[0].id}"), "/screen/api/live") as on_door,
    ):
        next(on_second), next(on_phone), next(on_door)
        status, _ = first.decide("ann-2", first.sign_in()[1])
        assert status == 200
        # The second console and the phone of its customer learn of it from the books; the door's screen does not.
        assert next(message for message in on_second if "ann-2" in json.dumps(message))
        assert next(message["visit"] for message in on_phone if "visit" in message) == "ann-2"
        own.runner.send("gate", [1, own.store.gate[0].id, "in", "open", "Welcome", "welcome"])
        message = next(on_door)
        while "gate" not in message:
            assert "visit" not in message and "basket" not in message
            message = next(on_door)


def test_a_code_rotates_is_good_at_the_gate_and_is_not_handed_out_at_will(own: ServedPages, tmp_path: Path) -> None:
    headers = own.as_account("ann")
    _, first = own.post("/api/code", {}, headers)
    assert own.post("/api/code", {}, headers)[1]["picture"] == first["picture"]
    assert own.post("/api/code", {"another": True}, headers)[1]["picture"] == first["picture"]  # within three seconds
    assert first["until_ms"] - first["now_ms"] == pytest.approx(60_000, abs=1000)
    code = own.app._codes["ann"].code
    signer = own.parts.signer
    assert signer is not None
    used = UsedCodes(tmp_path / "used.sqlite")
    verifier = CodeVerifier({"k1": signer._key.public_key()}, own.store.id, used)
    request = GateRequest(time.time_ns(), "entry", "qr", code)
    answer = verifier.verify(request)
    assert isinstance(answer, Verified) and answer.account == "ann"
    assert not isinstance(verifier.verify(request), Verified)
    used.close()


def test_a_line_that_is_wrong_goes_into_the_books_once(own: ServedPages, store: Store) -> None:
    headers, gtin = own.as_account("ann"), store.products[0].gtin
    wrong = {"visit": "ann-1", "gtin": gtin, "quantity": 1, "reason": "not taken"}
    status, answer = own.post("/api/dispute", wrong, headers)
    assert status == 200 and answer["status"] in ("refunded", "review")
    assert answer["receipt"]["disputed"][gtin]["quantity"] == 1
    assert own.post("/api/dispute", wrong, headers)[0] == 200
    assert own.post("/api/dispute", {**wrong, "quantity": 2}, headers)[0] in (400, 409)
    for bad in ({"gtin": "4006381333931"}, {"quantity": 0}, {"quantity": 99}, {"quantity": True}, {"reason": "x"}):
        assert own.post("/api/dispute", {**wrong, "gtin": store.products[1].gtin, **bad}, headers)[0] == 400
    assert sum(entry.kind == "shopper disputed" for entry in own.ledger.entries("ann-1")) == 1
    assert own.ledger.verify() is None


def test_a_question_has_the_cheaper_answer_first_and_is_answered_once(own: ServedPages, store: Store) -> None:
    headers = own.as_guest("ann-2")
    _, found = own.get("/api/visit?visit=ann-2", headers)
    (asked,) = found["questions"]
    totals = [choice["total"] for choice in asked["choices"]]
    assert totals == sorted(totals) and asked["answered"] is None and asked["plate"] == store.plates[0].plate
    # The bills differ in these products: with what is in their bag a customer can tell them apart.
    held = [dict(choice["holds"]) for choice in asked["choices"]]
    assert held[0] != held[1] and held[0].keys() == held[1].keys()
    answer = {"visit": "ann-2", "question": asked["id"], "choice": asked["choices"][0]["number"]}
    status, became = own.post("/api/answer", answer, headers)
    assert status == 200 and became["status"] in ("settled", "review")
    assert own.post("/api/answer", {**answer, "choice": -1}, headers)[0] in (400, 409)
    assert own.post("/api/answer", {**answer, "question": "nothing"}, headers)[0] == 400


def test_consent_profile_data_and_erasure(own: ServedPages, store: Store) -> None:
    ann, phone = own.as_account("ann"), own.as_account("ann")
    assert own.get("/api/profile", ann)[1] == {"consent": False, "bought": []}
    bought = [[store.products[0].name, 2], [store.products[1].name, 1]]
    for _ in range(2):  # counted once
        assert own.post("/api/profile", {"consent": True}, ann)[1] == {"consent": True, "bought": bought}
    data = own.get("/api/data.json", ann)[1]
    assert [row["visit"] for row in data["receipts"]] and data["profile"]["consent"]
    assert "bob" not in json.dumps(data) and "card-7" not in json.dumps(data)
    assert own.post("/api/profile", {"consent": False}, ann)[1] == {"consent": False, "bought": []}
    guest, bob = own.as_guest("ann-1"), own.as_account("bob")
    assert own.post("/api/erase", {}, ann)[0] == 202
    assert own.forgotten == ["ann"]
    assert [own.get("/api/visits", each)[0] for each in (ann, phone, guest, bob)] == [401, 401, 401, 200]


def test_one_account_fills_no_table_of_pages_however_fast_it_opens_them(own: ServedPages) -> None:
    pages = ShopperPages(own.ledger, own.app._visits, None, lambda visit: {})
    session = ShopperSession("account", "ann", "", b"")

    async def open_many() -> tuple[int, int]:
        streams = [pages.stream(session, lambda: True) for _ in range(40)]
        await asyncio.gather(*(anext(stream) for stream in streams))
        kept = [page for page in pages._pages if not page.lost]
        ends = await asyncio.gather(*(anext(stream, None) for stream in streams[:32]))
        for stream in streams:
            await stream.aclose()
        return len(kept), sum(line is None for line in ends)

    assert asyncio.run(open_many()) == (8, 32), "the newest stay"
    assert not pages._pages


def test_books_that_are_away_for_a_moment_cost_no_page_its_news(
    own: ServedPages, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = ShopperPages(own.ledger, own.app._visits, None, lambda visit: {})
    assert pages._new_entries() == []
    own.ledger.decide("ann-2", "waive", by="eve", t_ns=T_NS + 10**12)
    with monkeypatch.context() as away:
        away.setattr(own.app._visits, "account", Mock(side_effect=LedgerError("away")))
        with pytest.raises(LedgerError):
            pages._new_entries()
    assert pages._new_entries() == [("ann-2", "ann")]


@pytest.mark.parametrize("name", ["Cola", "W" * 200, "long name " * 30])
def test_everything_of_a_receipt_is_on_its_paper(name: str) -> None:
    document = ReceiptDocument(
        seller="Seller", store="Shop", visit="v", revision=1, t_ns=T_NS, time="2026-03-03 10:00", currency="EUR",
        lines=(GoodsLine(name, 1, 100, 100),) * 3, discounts=(), taxes=(), total=300, price_text=str,
    )  # fmt: skip
    found = re.findall(rb"stream\n(.*?)\nendstream", receipt_pdf(document), re.DOTALL)
    rows = re.findall(rb"BT [\d.]+ (-?[\d.]+) Td", zlib.decompress(found[0]))
    assert len(rows) >= 13 and min(map(float, rows)) > 0.0


def test_a_receipt_as_pdf_and_once_more_by_mail(own: ServedPages) -> None:
    headers = own.as_account("ann")
    status, answer, body = own.ask("GET", "/api/receipt.pdf?visit=ann-1", None, headers)
    assert status == 200 and answer["content-type"] == "application/pdf" and body.startswith("%PDF-")
    assert own.ask("GET", "/api/receipt.pdf?visit=ann-2", None, headers)[0] == 404  # still in review
    statuses = [own.post("/api/mail", {"visit": "ann-1"}, headers)[0] for _ in range(4)]
    assert statuses == [202, 202, 202, 409] and own.outbox.again == ["ann-1"] * 4


# ---- and nothing else ------------------------------------------------------------------------------------------------


def test_without_a_session_every_route_gives_nothing(served: ServedPages) -> None:
    before = served.ledger.head()
    stale = served.as_account("ann")
    assert served.post("/api/sign-out", {}, stale)[0] == 200
    screen = served.pair(f"gate/{served.store.gate[0].id}")
    stolen = [{}, stale, {**stale, "Cookie": stale["Cookie"][:-1] + "x"}, screen]
    for headers in stolen:
        for method, path, content in (*ABOUT_A_VISIT, *OF_A_SESSION):
            at, sent = about(served, path, content, "ann-1")
            status, _, body = served.ask(method, at, sent, {"Origin": served.origin, **headers})
            assert status == 401 and "ann" not in body, (method, path)
    confirm = {"visit": "ann-3", "total": 1}
    for method, path, content in (("GET", "/screen/api/live", None), ("POST", "/screen/api/confirm", confirm)):
        assert served.ask(method, path, content, {"Origin": served.origin, **served.as_account("ann")})[0] == 401
    assert served.ledger.head() == before


GUESSES = ("bob-1", "guest-1", "never", "p-ccc", "", "x" * 300, "ann-1\x00", "../ann-1", "\ud800")


@pytest.mark.parametrize("visit", GUESSES)
def test_another_accounts_visit_and_a_guessed_one_are_answered_alike(served: ServedPages, visit: str) -> None:
    before = served.ledger.head()
    for headers in (served.as_account("ann"), served.as_guest("ann-1")):
        for method, path, content in ABOUT_A_VISIT:
            if "\ud800" in visit and method == "GET":
                continue
            at, sent = about(served, path, content, "{visit}") if "\ud800" in visit else (None, None)
            if sent is not None:
                sent["visit"] = visit
            else:
                at, sent = about(served, path, content, json.dumps(visit)[1:-1] if content else visit)
            assert at is not None
            status, _, body = served.ask(method, at, sent, headers)
            assert (status, json.loads(body)) == (404, {"error": "no_visit"}), (method, path)
    assert served.ledger.head() == before


def test_a_guest_sees_one_visit_and_nothing_of_an_account(served: ServedPages) -> None:
    headers = served.as_guest("ann-1")
    assert [row["visit"] for row in served.get("/api/visits", headers)[1]["visits"]] == ["ann-1"]
    assert served.get("/api/data.json", headers)[1]["profile"] is None
    for method, path, content in OF_AN_ACCOUNT:
        assert served.ask(method, path, content, headers)[0] == 403, path


def test_what_changes_something_needs_the_pages_own_token_and_origin(served: ServedPages) -> None:
    good = served.as_account("ann")
    changes = [row for row in (*ABOUT_A_VISIT, *OF_A_SESSION) if row[0] == "POST"]
    of_bob = {"X-CSRF-Token": served.as_account("bob")["X-CSRF-Token"]}
    for bad in ({"X-CSRF-Token": "x"}, of_bob, {"Origin": "https://evil.example"}):
        for method, path, content in changes:
            at, sent = about(served, path, content, "ann-1")
            assert served.ask(method, at, sent, {**good, **bad})[0] == 403, path
    for junk in (b"[]", b"{", b"\xff"):
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
        connection.request("POST", "/api/code", junk, good)
        assert connection.getresponse().status == 400
        connection.close()


def test_a_session_of_another_store_is_worth_nothing_here(served: ServedPages, store: Store, tmp_path: Path) -> None:
    other = store.model_copy(update={"id": "other-store"})
    with serving_pages(tmp_path, other) as elsewhere:
        theirs, ours = elsewhere.as_account("ann"), served.as_account("ann")
        value = theirs["Cookie"].partition("=")[2]
        assert served.get("/api/visits", theirs)[0] == 401
        assert served.get("/api/visits", {**ours, "Cookie": f"{ours['Cookie'].partition('=')[0]}={value}"})[0] == 401
        assert elsewhere.sign_in(token=served.token("account", "ann"))[0] == 403


def test_headers_isolate_the_pages(served: ServedPages) -> None:
    for path in ("/", "/in", "/sw.js", "/assets/shopper.js", "/api/me", "/screen"):
        status, headers, body = served.ask("GET", path)
        assert status == 200 and "default-src 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] == "nosniff"
        assert not any(account in body for account in ACCOUNTS.values() if account != "ann"), path
    assert served.ask("GET", "/assets/server.py")[0] == 404
    assert served.ask("GET", "/", None, {"Host": "evil.example"})[0] == 400


# ---- screens ---------------------------------------------------------------------------------------------------------


def test_a_screen_is_paired_once_and_shows_its_own_gate(own: ServedPages) -> None:
    gates = [gate.id for gate in own.store.gate]
    code = own.parts.sessions.pair(f"gate/{gates[0]}", time.time())
    paired = {own.ask("POST", "/screen/api/pair", {"code": code}, {"Origin": own.origin})[0] for _ in range(2)}
    assert paired == {200, 403}
    old = own.parts.sessions.pair(f"gate/{gates[0]}", time.time() - 601)
    unknown = own.parts.sessions.pair("gate/none", time.time())
    for bad in (old, unknown, "", 7):
        assert own.ask("POST", "/screen/api/pair", {"code": bad}, {"Origin": own.origin})[0] == 403
    screen = own.pair(f"gate/{gates[0]}")
    with own.stream(screen, "/screen/api/live") as messages:
        own.runner.send("gate", [1, "another", "in", "open", "Welcome", "welcome"])
        own.runner.send("gate", [2, gates[0], "in", "shut", "Please ask the staff", "unknown"])
        own.runner.carts(("ann-3", [(own.store.products[0].gtin, 1)]))
        found = next(message for message in messages if "gate" in message)
        assert found["gate"][1:5] == [gates[0], "in", "shut", "Please ask the staff"]
        assert "basket" not in found


def test_at_a_paying_door_the_guest_gets_the_code_while_they_stand_there(own: ServedPages) -> None:
    gate = own.store.gate[0].id
    with own.stream(own.pair(f"gate/{gate}"), "/screen/api/live") as messages:
        own.runner.send("baskets", [1, f"gate/{gate}", [["guest-1", 100, []], ["bob-1", 100, []]]])
        assert len(next(m["baskets"] for m in messages if "baskets" in m)[2]) == 2
        own.runner.send("gate", [2, gate, "out", "open", "Paid. Goodbye", "way out"])
        own.runner.send("gate", [3, gate, "out", "open", "Paid. Goodbye", "the last of two"])
        # Of two at the door it would not be clear who reads the code.
        seen = [next(messages)]
        while "gate" not in seen[-1] or seen[-1]["gate"][0] != 3:
            seen.append(next(messages))
        assert not any("door" in message for message in seen)
        own.runner.send("baskets", [4, f"gate/{gate}", [["guest-1", 100, []]]])
        own.runner.send("gate", [5, gate, "out", "open", "Paid. Goodbye", "way out"])
        door = next(message["door"] for message in messages if "door" in message)
    assert own.get("/api/me", own.sign_in(code=door["code"])[1])[1]["visit"] == "guest-1"


def test_a_basket_is_confirmed_on_a_zones_screen_as_over_mqtt(tmp_path: Path, store: Store) -> None:
    from fusion.store.models import Zone

    class Asked:
        """Authorises what is asked for at the second time of asking."""

        n = 0

        def ask(self, visit: str, amount: int, t_ns: int) -> str:
            self.n += 1
            return "covered" if self.n > 1 else "asked"

    zone = Zone(id="pay", kind="payment", polygon=((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)))
    with serving_pages(tmp_path, store.model_copy(update={"zone": (zone,)}), authorisations=Asked()) as served:
        screen, product = served.pair("zone/pay"), store.products[0]
        rows = [["ann-3", product.price, [[product.gtin, 1, product.price]]]]
        with served.stream(screen, "/screen/api/live") as messages:
            served.runner.send("baskets", [1, "zone/pay", rows])
            assert next(m["baskets"] for m in messages if "baskets" in m) == [1, "zone/pay", rows]
        wanted = {"visit": "ann-3", "total": product.price}
        assert served.post("/screen/api/confirm", wanted, screen)[1]["again_s"] is not None
        assert served.post("/screen/api/confirm", wanted, screen)[1]["confirmed"]
        for changed in ({"total": 1}, {"visit": "bob-1"}):
            assert not served.post("/screen/api/confirm", {**wanted, **changed}, screen)[1]["confirmed"]
        assert served.ask("POST", "/screen/api/confirm", wanted, {**screen, "X-CSRF-Token": "x"})[0] == 403


def test_a_new_session_replaces_the_oldest_and_is_never_the_one_that_goes(tmp_path: Path) -> None:
    sessions = ShopperSessions(tmp_path / "shopper.sqlite")
    first = sessions.begin("account", "ann", 1000.0)
    for _ in range(40):  # all in one second
        newest = sessions.begin("account", "ann", 1001.0)
        assert sessions.get(newest, 1001.0) is not None
    assert sessions.get(first, 1001.0) is None
    assert sessions.end_all({"ann"}) == 10
    sessions.close()


# ---- parts -----------------------------------------------------------------------------------------------------------


def test_limits_count_within_their_window() -> None:
    limits = Limits(10.0)
    assert [limits.take("a", 2, t) for t in (0.0, 1.0, 2.0, 9.9, 10.0)] == [True, True, False, False, True]
    assert limits.take("b", 2, 2.0)


def test_the_command_serves_the_pages_and_asks_the_store_to_erase(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.save(tmp_path / "store")
    opened_books(tmp_path, store).close()
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = 'format_version = 1\n[gates]\ncode_keys = "keys.toml"\n[customers]\nfile = "customers.csv"\n'
    settings += f'[shopper]\nurl = "http://127.0.0.1:{port}"\n'
    (tmp_path / "till.toml").write_text(settings + 'code_key = "app.pem"\ncode_key_id = "k"\n')
    command = [sys.executable, "-m", "fusion", "shopper", str(tmp_path / "store"), "--port", str(port)]
    command += ["--ledger", str(tmp_path / "shop.sqlite"), "--till", str(tmp_path / "till.toml")]
    # A key that the gates do not know would sign codes that no gate accepts: the message names what they need.
    assert main([*command[3:], "--link", "ann"]) == 2
    assert "app.pub.pem" in capsys.readouterr().err
    (tmp_path / "keys.toml").write_text(f'[keys]\nk = """\n{(tmp_path / "app.pub.pem").read_text()}"""\n')
    assert main([*command[3:], "--link", "ann"]) == 0
    link = capsys.readouterr().out
    origin = {"Origin": f"http://127.0.0.1:{port}"}

    def ask(method: str, path: str, content: Any, headers: dict[str, str]) -> tuple[int, Any, str | None]:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request(method, path, None if content is None else json.dumps(content), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read()), answer.getheader("set-cookie")

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and "http://" in process.stdout.readline()
            deadline_s = time.monotonic() + 120
            while True:
                try:
                    status, _, cookie = ask("POST", "/api/sign-in", {"token": link.strip().split("#")[1]}, origin)
                    break
                except ConnectionRefusedError:
                    assert time.monotonic() < deadline_s and process.poll() is None
                    time.sleep(0.05)
            assert status == 200 and cookie is not None
            headers = {**origin, "Cookie": cookie.split(";")[0]}
            headers["X-CSRF-Token"] = ask("GET", "/api/me", None, headers)[1]["csrf"]
            assert ask("POST", "/api/code", {}, headers)[0] == 200 and (tmp_path / "app.pem").exists()
            assert len(ask("GET", "/api/visits", None, headers)[1]["visits"]) == 3
            assert ask("POST", "/api/erase", {}, headers)[0] == 202
            assert ask("GET", "/api/visits", None, headers)[0] == 401
        finally:
            process.terminate()
    erasures = Erasures(tmp_path, store_key(tmp_path))
    (asked,) = erasures.undone()
    assert "ann" in erasures.names(asked.names) and "bob" not in erasures.names(asked.names)
    erasures.close()


def test_the_command_prints_codes_and_links(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.save(tmp_path / "store")
    Ledger.open(tmp_path / "shop.sqlite", store).close()
    (tmp_path / "till.toml").write_text('format_version = 1\n[shopper]\nurl = "https://my.shop.example"\n')
    common = ["shopper", str(tmp_path / "store"), "--ledger", str(tmp_path / "shop.sqlite")]
    assert main([*common, "--pair", f"gate/{store.gate[0].id}"]) == 0 and "/screen" in capsys.readouterr().out
    assert main([*common, "--pair", "gate/none"]) == 2 and "gate/" in capsys.readouterr().err
    assert main([*common, "--till", str(tmp_path / "till.toml"), "--link", "ann"]) == 0
    assert capsys.readouterr().out.startswith("https://my.shop.example/in#L1")
    assert main([*common, "--host", "0.0.0.0"]) == 2 and "--certificate" in capsys.readouterr().err
