"""A simulated year: its auditor finds what is wrong, and a shop of two days passes the audit."""

from __future__ import annotations

import itertools
import json
import random
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bench.endurance.year.auditor import Auditor, Customer, S
from bench.endurance.year.bank import Move
from bench.endurance.year.browsers import Browser, attack, served
from bench.endurance.year.run import missing, tables
from bench.endurance.year.shop import Life, lived

DAY_NS = 86_400 * S


class Books:
    """Books of a shop, written by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._seq = folder, 0
        self._db = sqlite3.connect(folder / "shop.sqlite")
        self._db.executescript(
            "CREATE TABLE entry (seq, t_ns, kind, visit, key, details); CREATE TABLE posting (entry, line, account, "
            "currency, amount); CREATE TABLE link (visit, account, enter_ns); CREATE TABLE holder (pseudonym, account)"
        )

    def add(self, kind: str, visit: str, request: dict[str, Any], *postings: tuple[str, int]) -> None:
        self._seq += 1
        details = json.dumps({"request": request})
        row = (self._seq, 0, kind, visit, f"{visit}/{kind}", details)
        self._db.execute("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)", row)
        for line, (account, amount) in enumerate(postings):
            self._db.execute("INSERT INTO posting VALUES (?, ?, ?, 'EUR', ?)", (self._seq, line, account, amount))
        self._db.commit()

    def visit(self, visit: str, token: str, lines: list[list[Any]] | None = None, status: str = "settled") -> None:
        """A visit of a customer; without lines it is open."""
        self._db.execute("INSERT INTO link VALUES (?, ?, ?)", (visit, f"name of {token}", 5 * S))
        self._db.execute("INSERT INTO holder VALUES (?, ?)", (f"name of {token}", token))
        self.add("visit opened", visit, {"enter": 5 * S})
        if lines is not None:
            total = sum(quantity * price for _, quantity, price in lines)
            request = {"lines": lines, "total": total, "status": status}
            self.add(f"receipt {status}", visit, request, ("receivable", total), ("revenue", -total))

    def run(self, statement: str) -> None:
        self._db.execute(statement)
        self._db.commit()


@pytest.fixture
def books(tmp_path: Path) -> Books:
    return Books(tmp_path)


@pytest.fixture
def auditor(tmp_path: Path) -> Auditor:
    return Auditor(tmp_path, "shop", 3)


def customer(token: str, **items: int) -> Customer:
    return Customer(token, True, 5 * S, 60 * S, items)


def capture(visit: str, amount: int) -> Move:
    return Move(0, "capture", f"shop/{visit}/2", amount, "c", "a")


def test_a_right_bill_breaks_no_rule(books: Books, auditor: Auditor) -> None:
    books.visit("v1", "alice", [["apple", 2, 50]])
    books.add("captured", "v1", {}, ("provider", 100), ("receivable", -100))
    auditor.look(books.folder)
    auditor.audit_day([customer("alice", apple=2)], 0)
    auditor.audit_money([capture("v1", 100)], at_rest=True)
    auditor.audit_privacy(DAY_NS, ["bob"], ["4111"])
    auditor.audit_end()
    assert auditor.findings.verdict() == []
    assert auditor.findings.counts["settled right"] == 1


@pytest.mark.parametrize(
    ("moves", "broken"),
    [
        ([capture("v1", 100), capture("v1", 100)], "200 taken in 2 captures, 100 owed"),
        ([capture("v1", 101)], "101 taken in 1 captures, 100 owed"),
        ([capture("v2", 1)], "1 taken in 1 captures, 0 owed"),
        ([], "the books hold 100 at the provider, which holds 0"),
    ],
)
def test_money_that_no_bill_accounts_for_is_found(
    books: Books, auditor: Auditor, moves: list[Move], broken: str
) -> None:
    books.visit("v1", "alice", [["apple", 2, 50]])
    books.add("captured", "v1", {}, ("provider", 100), ("receivable", -100))
    auditor.audit_money(moves, at_rest=True)
    assert any(broken in line for line in auditor.findings.broken)


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ("UPDATE entry SET details = '{}' WHERE seq = 2", "entry 2 of the books has changed or is gone"),
        ("DELETE FROM entry WHERE seq = 1", "entry 1 of the books has changed or is gone"),
        ("UPDATE posting SET amount = amount + 1 WHERE line = 0", "does not sum to zero"),
        ("UPDATE holder SET account = 'bob'", "was alice's and is bob's"),
    ],
)
def test_books_that_were_rewritten_are_found(books: Books, auditor: Auditor, change: str, broken: str) -> None:
    books.visit("v1", "alice", [["apple", 2, 50]])
    auditor.look(books.folder)
    books.run(change)
    auditor.look(books.folder)
    assert any(broken in line for line in auditor.findings.broken)


def test_a_bill_whose_lines_cost_something_else_is_found(books: Books, auditor: Auditor) -> None:
    books.add("receipt settled", "v1", {"lines": [["apple", 2, 50]], "total": 99})
    auditor.audit_end()
    assert "visit v1: lines of 100 under a total of 99" in auditor.findings.broken


def test_bills_under_each_others_names_are_found(books: Books, auditor: Auditor) -> None:
    books.visit("v1", "alice", [["pear", 1, 70]])
    books.visit("v2", "bob", [["apple", 2, 50]])
    auditor.look(books.folder)
    auditor.audit_day([customer("alice", apple=2), customer("bob", pear=1)], 0)
    assert len(auditor.findings.broken) == 2 and "which is what bob kept" in auditor.findings.broken[0]


def test_wrong_bills_are_judged_by_their_number(books: Books, auditor: Auditor) -> None:
    for n in range(40):
        books.visit(f"v{n}", f"customer {n}", [["apple", 1 + (n < 7), 50]])
    auditor.look(books.folder)
    auditor.audit_day([customer(f"customer {n}", apple=1) for n in range(40)], 0)
    assert auditor.findings.broken == [] and len(auditor.findings.wrong) == 7
    assert auditor.findings.verdict() == ["7 of 40 settled bills are wrong; want at most 5"]


def test_a_visit_without_a_bill_is_found_a_day_later(books: Books, auditor: Auditor) -> None:
    books.visit("v1", "alice")
    auditor.look(books.folder)
    auditor.audit_day([customer("alice")], 0)
    assert auditor.findings.broken == [] and auditor.findings.counts["open at closing"] == 1
    auditor.audit_day([], DAY_NS)
    auditor.audit_end()
    assert auditor.findings.broken == ["visit v1 had no bill for a whole day", "visit v1 was never billed"]


def test_names_that_should_be_gone_are_found(books: Books, auditor: Auditor) -> None:
    books.visit("v1", "alice", [["apple", 2, 50]])
    books.add("captured", "v1", {}, ("provider", 100), ("receivable", -100))
    (books.folder / "notes").mkdir()
    (books.folder / "notes" / "log.txt").write_text("card 4111 of alice")
    auditor.audit_privacy(3 * DAY_NS, ["alice"], ["4111"])
    assert {line.partition(",")[0] for line in auditor.findings.broken} == {
        "notes/log.txt holds alice", "notes/log.txt holds 4111", "shop.sqlite holds alice",
    }  # fmt: skip
    auditor.audit_privacy(5 * DAY_NS, [], [])
    assert "visit v1 is linked to a customer 5.0 days after it" in auditor.findings.broken


def test_gates_answer_and_turn_away_only_who_owes(auditor: Auditor) -> None:
    auditor.gate_refused("alice", "owes from earlier visits")
    assert auditor.findings.broken == []
    auditor.gate_refused("alice", "busy")
    auditor.gate_silent("bob", "one moment")
    assert auditor.findings.broken == [
        "the gate turned alice away: busy", "the gate had no final answer for bob: one moment",
    ]  # fmt: skip


def test_a_bill_unlike_what_went_into_its_cart_is_found(books: Books, auditor: Auditor) -> None:
    books.visit("v1", "alice", [["apple", 2, 50]])
    books.visit("v2", "bob", [["apple", 1, 50]])
    with closing(sqlite3.connect(books.folder / "outbox.sqlite")) as outbox, outbox:
        outbox.execute("CREATE TABLE goods (debit, credit, gtin, quantity)")
        moves = [("cart v1", "shelf p1", 3), ("shelf p1", "cart v1", 1), ("cart v2", "shelf p1", 2)]
        outbox.executemany("INSERT INTO goods VALUES (?, ?, 'apple', ?)", moves)
    auditor.audit_goods(5 * S)  # both entered then, so that their goods may still be on their way
    assert auditor.findings.broken == []
    auditor.audit_goods(DAY_NS)
    assert auditor.findings.broken == ["visit v2 is settled for {'apple': 1}, and its cart got {'apple': 2}"]


def decided(by: str, revision: int, lines: list[list[Any]]) -> dict[str, Any]:
    return {"by": by, "revision": revision, "lines": lines, "amount": 500}


def test_decisions_beyond_a_reviewers_limit_and_refunds_beyond_a_customers_are_found(
    books: Books, auditor: Auditor
) -> None:
    for visit in ("alone", "seconded", "unasked"):
        books.visit(visit, visit, [["apple", 10, 50]], "review")
        if visit != "unasked":
            books.add("proposal made", visit, decided("eve", 1, []))
    books.add("proposal seconded", "seconded", {"by": "adam"})
    # The key of consent is the proposal's with a word more.
    books.run("UPDATE entry SET key = 'seconded/proposal made/second' WHERE kind = 'proposal seconded'")
    for visit in ("alone", "seconded", "unasked"):
        books.add("decision waive", visit, decided("eve", 1, []))
    books.add("decision waive", "alone", decided("adam", 1, []))
    books.visit("v1", "alice", [["wine", 10, 310]])
    books.add("decision correct", "v1", decided("shopper's dispute", 1, [["wine", 1, 90]]))
    auditor.look(books.folder)
    auditor.audit_words({"eve": 400})
    assert auditor.findings.broken == [
        "visit alone: eve decided 500 alone, with a limit of 400",
        "visit unasked was decided by eve, who had asked for nothing",
        "visit alone was decided twice in revision 1",
        "disputes took 3010 off visit v1 by themselves; want 2000 at most",
        "disputes of alice took off 3010 by themselves; want 3000 at most",
    ]


def test_bills_that_honest_answers_settle_are_compared_with_the_truth(books: Books, auditor: Auditor) -> None:
    for visit, n in (("v1", 2), ("v2", 1), ("v3", 1)):
        books.visit(visit, f"customer of {visit}", [["apple", 3, 50]], "review")
        books.add("decision correct", visit, decided("shopper's answer", 1, [["apple", n, 50]]))
        auditor.word(visit, honest=visit != "v3")
    auditor.look(books.folder)
    auditor.audit_day([customer(f"customer of {visit}", apple=2) for visit in ("v1", "v2", "v3")], 0)
    auditor.audit_words({})
    assert auditor.findings.counts["settled by honest answers, right"] == 1
    assert auditor.findings.counts["settled by honest answers, wrong"] == 1


def test_a_bill_of_another_customer_or_amount_on_a_phone_is_found(books: Books, auditor: Auditor) -> None:
    books.visit("v1", "alice", [["apple", 2, 50]])
    auditor.look(books.folder)
    auditor.page_showed("alice", "v1", 100)
    assert auditor.findings.broken == [] and auditor.visits_of_others("bob") == ["v1"]
    auditor.page_showed("bob", "v1", 100)
    auditor.page_showed("alice", "v1", 99)
    assert auditor.findings.broken == [
        "bob was shown visit v1 of alice", "alice was shown 99 for visit v1, which costs 100 by the books",
    ]  # fmt: skip


def test_a_chains_book_that_differs_or_names_a_customer_is_found(books: Books, auditor: Auditor) -> None:
    books.visit("v1", "alice", [["apple", 2, 50]])
    auditor.look(books.folder)
    with closing(sqlite3.connect(books.folder / "shop.sqlite")) as connection:
        entries = connection.execute("SELECT * FROM entry").fetchall()
        postings = connection.execute("SELECT entry, account, currency, amount FROM posting").fetchall()
    auditor.audit_chain(entries, postings, [])
    assert auditor.findings.broken == []
    auditor.audit_chain(entries[:1], postings[::-1], [("cart/alice", 1)])
    assert auditor.findings.broken == [
        "1 entries differ between the shop's books and the chain's",
        "2 postings differ between the shop's books and the chain's", "the chain's book names the customer alice",
    ]  # fmt: skip


def test_pages_that_take_what_no_page_sends_or_fail_are_found() -> None:
    async def careless(request: Request) -> Response:
        if request.headers.get("origin") == "http://evil.example":
            raise ZeroDivisionError("by zero")
        return JSONResponse({}, 403 if request.headers.get("host") == "evil.example" else 200)

    app = Starlette(routes=[Route("/api/pay", careless, methods=["POST", "PUT", "DELETE", "TRACE"])])
    failures, seen = list[str](), Counter[str]()
    with served(app) as runner:
        browser = Browser(app, runner, failures.append)
        taken = attack(browser, random.Random(1), ("/api/pay",), lambda state: seen.update([state]), lambda: 7)
        growing = itertools.count()
        changed = attack(browser, random.Random(1), ("/api/pay",), lambda state: None, lambda: next(growing))
    assert {text.partition(": ")[2].partition(" was")[0] for text in taken} == {
        "another token", "no token", "another origin", "no origin", "a hostile body", "another method",
    }  # fmt: skip
    assert changed == [*taken, "requests that no page sends changed the books"]
    assert len(failures) == 2 and all("ZeroDivisionError: by zero" in text for text in failures)
    assert seen["pages: another host was refused"] == 1


def test_two_days_of_a_shop_pass_and_are_the_same_again(tmp_path: Path) -> None:
    first, second = (lived(Life(4, 2, 0.8, tmp_path / name)) for name in ("first", "second"))
    assert first.findings.verdict() == []
    assert first.findings.counts["let in"] == first.findings.counts["customers"] > 0
    assert (first.reached, first.findings.counts) == (second.reached, second.findings.counts)
    text = tables(first.findings, first.reached, first.days, "Made by a test.")
    assert "Every rule of the auditor holds." in text
    assert "Made by a test." in text and "2 shop-days. Every rule" in text
    assert all(f"not reached: {state}" in text for state in missing(first.reached))


def test_a_deliberate_bug_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.endurance.year.bugs.EVERY", 1)
    found = lived(Life(1, 1, 1.3, tmp_path / "shop", "one piece too many")).findings
    assert found.wrong and all("settled" in text for text in found.wrong)
