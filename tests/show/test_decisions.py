"""Decisions of reviewers: in the books once, at the right prices, with the evidence at hand."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from show.consoles import T_NS, Served, evidence, review, serving

from fusion.errors import LedgerError
from fusion.money.ledger import Ledger
from fusion.money.payments import Checkout
from fusion.money.providers import InProcessProvider, PaymentError
from fusion.money.sales import Discount
from fusion.money.vault import Holder
from fusion.results import ReceiptLine
from fusion.show.console.evidence_file import EvidenceFile
from fusion.store.models import Store
from fusion.store.prices import Offer, Price, Prices


def test_a_decision_is_in_the_books_with_user_and_time(served: Served, store: Store) -> None:
    _, headers = served.sign_in("ben")
    before_ns = time.time_ns()
    status, answer = served.decide("visit-1", headers, note="seen on the shelf")
    assert status == 200 and answer["status"] == "decided" and answer["revision"] == 1
    (entry,) = [entry for entry in served.ledger.entries("visit-1") if entry.kind == "decision accept"]
    assert entry.request["by"] == "ben" and entry.request["note"] == "seen on the shelf"
    assert before_ns <= entry.t_ns <= time.time_ns()
    assert sum(posting.amount for posting in entry.postings) == 0 and entry.postings
    assert served.ledger.verify() is None
    _, _, shown = served.ask("GET", "/api/reviews/visit-1", headers=headers)
    (decided,) = json.loads(shown)["decided"]
    assert (decided["decision"], decided["by"], decided["ms"]) == ("accept", "ben", entry.t_ns // 10**6)


def test_lines_are_corrected_and_visits_waived(served: Served, store: Store) -> None:
    _, headers = served.sign_in()
    first, _, third = store.products[:3]
    lines = [{"gtin": first.gtin, "quantity": 1}, {"gtin": third.gtin, "quantity": 3}]
    status, answer = served.decide("visit-1", headers, decision="correct", lines=lines)
    assert status == 200 and answer["total"] == first.price + 3 * third.price
    status, answer = served.decide("visit/2 ä", headers, decision="waive")
    assert status == 200 and answer["total"] == 0
    assert served.ledger.reviews() == []
    # A decided visit can be decided again, under the number of the next revision.
    status, answer = served.decide("visit-1", headers, decision="waive", revision=2)
    assert status == 200 and answer["total"] == 0 and served.ledger.balances()[store.currency].get("receivable", 0) == 0


def test_what_is_on_a_bill_keeps_its_price_when_it_is_corrected(tmp_path: Path, store: Store, users_file: Path) -> None:
    first, second, third = store.products[:3]
    offer = Offer(id="club", gtins=(third.gtin,), percent=50, members=True)
    dear = store.model_copy(
        update={"prices": Prices(price=(Price(gtin=third.gtin, price=100, members=True),), offer=(offer,))}
    )
    # Taken when it was cheaper; and a member's bill.
    lines = (
        ReceiptLine(first.gtin, 1, first.price - 9, 0.9), ReceiptLine(first.gtin, 2, first.price, 0.9),
        ReceiptLine(second.gtin, 1, second.price, 0.5),
    )  # fmt: skip
    total = sum(line.quantity * line.unit_price for line in lines)
    clubs = (ReceiptLine(third.gtin, 1, 100, 0.9), ReceiptLine(second.gtin, 1, second.price, 0.5))
    with Ledger.open(tmp_path / "ledger.sqlite", dear) as ledger:
        ledger.post_receipt(dataclasses.replace(review(dear, "visit-1"), lines=lines, total=total))
        bill = dataclasses.replace(review(dear, "visit-2"), lines=clubs, total=50 + second.price)
        ledger.post_receipt(bill, (Discount("club", third.gtin, 50),))
        with serving(dear, ledger, users_file) as served:
            _, headers = served.sign_in()
            kept = [{"gtin": first.gtin, "quantity": 4}, {"gtin": third.gtin, "quantity": 1}]
            _, answer = served.decide("visit-1", headers, decision="correct", lines=kept)
            assert answer["total"] == 4 * first.price - 9 + third.price and answer["discounts"] == 0
            kept = [{"gtin": third.gtin, "quantity": 3}]
            _, answer = served.decide("visit-2", headers, decision="correct", lines=kept)
            assert answer["total"] == 3 * 50 and answer["discounts"] == 3 * 50
        assert ledger.verify() is None


def test_decisions_that_make_no_sense_are_refused(served: Served, store: Store) -> None:
    _, headers = served.sign_in()
    gtin = store.products[0].gtin
    before = served.ledger.head()
    for decision in (
        {"decision": "approve"},
        {"decision": "correct"},
        {"decision": "accept", "lines": [{"gtin": gtin, "quantity": 1}]},
        {"decision": "correct", "lines": [{"gtin": "0000", "quantity": 1}]},
        {"decision": "correct", "lines": [{"gtin": gtin, "quantity": 0}]},
        {"decision": "correct", "lines": [{"gtin": gtin, "quantity": 1.5}]},
        {"decision": "correct", "lines": [{"gtin": gtin, "quantity": 1, "unit_price": 1}]},
        {"revision": 2},
        {"revision": "1; DROP TABLE entry"},
        {"by": "another user"},
    ):
        status, answer = served.decide("visit-1", headers, **decision)
        if decision == {"decision": "correct"}:
            assert status == 200, "no lines at all: nothing was taken"
            before = served.ledger.head()
        else:
            assert status == 400 and answer["error"], decision
    assert served.ask("POST", "/api/reviews/visit-1", "{not json", headers)[0] == 400
    assert served.decide("no-such-visit", headers)[0] == 400
    assert served.ask("GET", "/api/reviews/no-such-visit", headers=headers)[0] == 404
    assert served.ask("GET", "/api/reviews/%00", headers=headers)[0] == 404
    assert served.ask("GET", "/assets/..%2fcli.py", headers=headers)[0] == 404
    assert served.ledger.head() == before


def test_the_second_of_two_decisions_is_refused(served: Served) -> None:
    (_, anna), (_, ben) = served.sign_in("anna"), served.sign_in("ben")
    assert served.decide("visit-1", anna, decision="waive")[0] == 200
    status, answer = served.decide("visit-1", ben)
    assert status == 409 and "anna decided this visit in the meantime" in answer["error"]


def test_another_console_sees_a_decision_at_once(
    served: Served, store: Store, users_file: Path, tmp_path: Path
) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite", store) as ledger, serving(store, ledger, users_file) as second:
        _, headers = second.sign_in("ben")
        with second.stream(headers) as messages:
            waiting = next(row["reviews"] for row in messages if row.get("reviews"))
            assert [row["visit"] for row in waiting] == ["visit-1", "visit/2 ä"]
            assert served.decide("visit-1", served.sign_in()[1])[0] == 200
            left = next(row["reviews"] for row in messages if "reviews" in row)
            assert [row["visit"] for row in left] == ["visit/2 ä"]


def test_a_decision_can_be_undone_and_needs_a_second_person(
    served: Served, store: Store, users_file: Path, tmp_path: Path
) -> None:
    with (
        Ledger.open(tmp_path / "ledger.sqlite", store) as ledger,
        serving(store, ledger, users_file, undo_s=3600.0) as slow,
    ):
        (_, anna), (_, ben) = slow.sign_in("anna"), slow.sign_in("ben")

        def act(verb: str, headers: dict[str, str], number: int = 1) -> tuple[int, Any]:
            body = json.dumps({"number": number})
            status, _, answer = slow.ask("POST", f"/api/reviews/visit-1/{verb}", body, headers)
            return status, json.loads(answer)

        with slow.stream(ben) as messages:
            assert next(row["proposals"] for row in messages if "proposals" in row) == []
            status, answer = slow.decide("visit-1", anna, decision="waive", note="a remark")
            assert status == 200 and answer["status"] == "review", "nothing is final yet"
            made = answer["proposal"]
            assert (made["by"], made["state"], made["after"]) == ("anna", "counting", 0)
            assert made["due_ms"] - made["made_ms"] == 3_600_000 and answer["now_ms"] >= made["made_ms"]
            assert [next(row["proposals"] for row in messages if row.get("proposals"))] == [[made]]
        _, _, text = slow.ask("GET", "/api/reviews/visit-1", headers=ben)
        assert json.loads(text)["proposal"] == made
        assert slow.decide("visit-1", anna, decision="waive", note="a remark")[0] == 200, "Enter twice is once"
        status, answer = slow.decide("visit-1", ben)
        assert status == 409 and "anna has asked" in answer["error"]
        # Another console, which does not wait, finds nothing that is due.
        assert served.ledger.reviews()[0].visit == "visit-1"
        for wrong in (act("withdraw", anna, 2), act("second", ben), act("withdraw", anna, 0)):
            assert wrong[0] == 400 and wrong[1]["error"]
        assert act("withdraw", {**anna, "X-CSRF-Token": "guess"})[0] == 403
        status, answer = act("withdraw", anna)
        assert status == 200 and answer["proposal"] is None and answer["status"] == "review"
        _, _, text = slow.ask("GET", "/api/reviews/visit-1", headers=ben)
        (ended,) = json.loads(text)["proposals"]
        assert (ended["state"], ended["ended_by"]) == ("withdrawn", "anna")
        assert [entry.kind for entry in ledger.entries("visit-1")][1:] == ["proposal made", "proposal withdrawn"]


def test_a_person_lifts_the_mark_from_a_customer_by_name(served: Served) -> None:
    _, anna = served.sign_in("anna")

    def trust(visit: str, headers: dict[str, str], note: str = "two shelves alike") -> tuple[int, Any]:
        status, _, answer = served.ask("POST", f"/api/reviews/{visit}/trust", json.dumps({"note": note}), headers)
        return status, json.loads(answer)

    assert trust("visit-1", {**anna, "X-CSRF-Token": "guess"})[0] == 403
    assert trust("never", anna)[0] == 400 and trust("visit-1", anna, "x" * 501)[0] == 400
    assert trust("visit-1", anna) == (200, {"answers": [], "marked": False})
    (entry,) = [entry for entry in served.ledger.entries("visit-1") if entry.kind == "shopper trusted"]
    assert entry.request == {"by": "anna", "note": "two shelves alike"}


def test_a_bill_changes_for_a_reason_only(served: Served) -> None:
    _, headers = served.sign_in()
    status, answer = served.decide("visit-1", headers, decision="waive", reason="")
    assert status == 400 and "reason: want one" in answer["error"]
    _, _, text = served.ask("GET", "/api/store", headers=headers)
    assert "goodwill" in json.loads(text)["reasons"]
    assert served.decide("visit-1", headers, decision="waive", reason="goodwill")[0] == 200
    _, _, text = served.ask("GET", "/api/reviews/visit-1", headers=headers)
    assert [(row["reason"], row["total"]) for row in json.loads(text)["decided"]] == [("goodwill", 0)]


def test_a_decision_settles_the_payment_where_there_is_a_provider(
    tmp_path: Path, store: Store, users_file: Path
) -> None:
    provider = InProcessProvider()
    with Ledger.open(tmp_path / "books.sqlite", store) as ledger:
        ledger.hold(Holder("acc-1", "customer", "tok_1", None, T_NS))
        ledger.post_receipt(review(store, "visit-1"))
        with serving(store, ledger, users_file, checkout=Checkout(ledger, provider, store)) as served:
            status, answer = served.decide("visit-1", served.sign_in()[1])
        assert status == 200 and provider.total == answer["total"] > 0


def test_a_provider_that_is_away_does_not_undo_a_decision(tmp_path: Path, store: Store, users_file: Path) -> None:
    class Away(Checkout):
        def settle(self, visit: str, t_ns: int) -> Any:
            raise PaymentError("no answer")

    with Ledger.open(tmp_path / "books.sqlite", store) as ledger:
        ledger.post_receipt(review(store, "visit-1"))
        with serving(store, ledger, users_file, checkout=Away(ledger, InProcessProvider(), store)) as served:
            status, answer = served.decide("visit-1", served.sign_in()[1])
    assert status == 200 and answer["status"] == "decided"


@pytest.mark.attack(8)
def test_decisions_do_not_wait_for_a_provider_that_does_not_answer(
    tmp_path: Path, store: Store, users_file: Path
) -> None:
    go = threading.Event()

    class Slow(InProcessProvider):
        def authorise(self, *values: Any) -> Any:
            assert go.wait(60)
            return super().authorise(*values)

    provider = Slow()
    with Ledger.open(tmp_path / "books.sqlite", store) as ledger:
        ledger.hold(Holder("acc-1", "customer", "tok_1", None, T_NS))
        for i in range(8):  # more than the server has threads
            ledger.post_receipt(review(store, f"visit-{i}"))
        with serving(store, ledger, users_file, checkout=Checkout(ledger, provider, store)) as served:
            headers = served.sign_in()[1]
            assert [served.decide(f"visit-{i}", headers)[0] for i in range(8)] == [200] * 8
            assert served.sign_in("ben") and provider.total == 0
            go.set()
        assert provider.total == ledger.balances()[store.currency]["provider"] > 0 and provider.n_captures


def test_books_that_are_away_for_a_while(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    _, headers = served.sign_in()

    def away(*_: object) -> Any:
        raise LedgerError("the ledger cannot be read: database is locked")

    with served.stream(headers) as messages:
        with monkeypatch.context() as broken:
            for method in ("head", "standing", "entries"):
                broken.setattr(served.ledger, method, away)
            assert next(row["trouble"] for row in messages if row.get("trouble"))
            assert served.ask("GET", "/api/reviews/visit-1", headers=headers)[0] == 503
            with served.stream(headers) as late:
                assert next(row["trouble"] for row in late if "trouble" in row)
        # Pages learn when it is over.
        assert next(row["trouble"] for row in messages if "trouble" in row) == ""
    assert served.ask("GET", "/api/reviews/visit-1", headers=headers)[0] == 200
    with monkeypatch.context() as broken:
        broken.setattr(served.ledger, "head", away)
        assert served.decide("visit-1", headers)[0] == 200, "a decision in the books does not look like a failure"


def test_garbled_evidence_does_not_prevent_a_decision(served: Served, tmp_path: Path) -> None:
    _, headers = served.sign_in()
    path = tmp_path / "evidence.jsonl"

    def shown(visit: str = "visit-1") -> Any:
        status, _, answer = served.ask("GET", f"/api/reviews/{quote(visit, safe='')}", headers=headers)
        assert status == 200
        return json.loads(answer, parse_constant=lambda text: pytest.fail(text))["evidence"]

    assert shown() is None
    path.mkdir()
    assert shown() is None, "a folder of that name"
    path.rmdir()
    path.write_text("[" * 100_000 + "\n[]\n7\n\udcff\n" + evidence("visit-1")[:40], "utf-8", "surrogateescape")
    assert shown() is None
    path.write_text(evidence("visit-1", grams=[1.0, float("nan")], name="\ud800"), encoding="utf-8")
    assert shown()["grams"] == [1.0, None] and shown()["name"] == "\ud800"
    # Another run's file, in place of this one's and already longer.
    path.write_text(evidence("visit/2 ä", pad="x" * 30) + evidence("visit-1", run=2), encoding="utf-8")
    assert shown()["run"] == 2 and shown("visit/2 ä")["reasons"] == ["visit/2 ä"]
    path.write_text(evidence("visit-1", grams=[1]).replace("[1]", "[1e999]"), encoding="utf-8")
    assert shown() is None


def test_several_threads_may_ask_for_evidence(tmp_path: Path) -> None:
    path = tmp_path / "evidence.jsonl"
    path.write_text("".join(evidence(f"visit-{n}", pad="x" * (n % 97)) for n in range(5000)), encoding="utf-8")
    file = EvidenceFile(path)
    bundles: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda n=n: bundles.update({n: file.bundle(f"visit-{n}")})) for n in range(4990, 5000)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bundles) == 10 and all(bundle["visit"] == f"visit-{n}" for n, bundle in bundles.items())
