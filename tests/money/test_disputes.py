"""What shoppers say about their bills: recorded once, only added to, and passed by in whatever else reads the books."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Place
from money.books import BREAD, COLA, STORE, T_NS, TWO, balances, receipt

from fusion.errors import IdempotencyConflict, LedgerError
from fusion.money.disputes import (
    NONE_OF_THESE,
    DisputeReason,
    answers_of,
    disputed_visits,
    disputes_of,
    record_answer,
    record_dispute,
    record_trust,
    undecided_disputes,
)
from fusion.money.history import History
from fusion.money.ledger import Ledger
from fusion.money.retailers import Retailer
from fusion.money.statements import statement
from fusion.till.forwarding import Forwarding

WORTH = {"choices": [{"number": 0, "probability": 600_000}]}


def test_a_shoppers_word_is_kept_once_and_a_second_one_is_a_conflict(place: Place) -> None:
    with place.open(STORE) as ledger:
        ledger.post_receipt(receipt("v1", *TWO))
        ledger.post_receipt(receipt("v2", *TWO, status="review"))
        head = ledger.head().seq
        assert record_dispute(ledger, "v1", COLA, 1, "not taken", T_NS + 100, {})
        # A phone that repeats its request does so at a later time.
        assert not record_dispute(ledger, "v1", COLA, 1, "not taken", T_NS + 200, {})
        assert record_answer(ledger, "v2", "q", 0, T_NS + 100, WORTH)
        assert not record_answer(ledger, "v2", "q", 0, T_NS + 300, {})
        assert ledger.head().seq == head + 2
        for other in (2, "put back"), (1, "other price"):
            with pytest.raises(IdempotencyConflict, match="disputed differently"):
                record_dispute(ledger, "v1", COLA, *other, T_NS + 400, {})
        with pytest.raises(IdempotencyConflict, match="answered differently"):
            record_answer(ledger, "v2", "q", NONE_OF_THESE, T_NS + 400, WORTH)
        (dispute,) = disputes_of(ledger.entries("v1"))
        assert (dispute.gtin, dispute.quantity, dispute.reason) == (COLA, 1, DisputeReason.NOT_TAKEN)
        (answer,) = answers_of(ledger.entries("v2"))
        assert (answer.question, answer.choice, answer.worth) == ("q", 0, WORTH)


def test_what_cannot_be_disputed_or_answered_is_refused_and_leaves_nothing(place: Place) -> None:
    with place.open(STORE) as ledger:
        ledger.open_visit("inside", "alice", T_NS)
        ledger.post_receipt(receipt("v1", *TWO))
        head = ledger.head()
        for visit, gtin, quantity, reason in (
            ("v1", COLA, 3, "not taken"), ("v1", "036000291452", 1, "not taken"), ("v1", COLA, 0, "not taken"),
            ("v1", COLA, 1, "too dear"), ("inside", COLA, 1, "not taken"), ("never", COLA, 1, "not taken"),
        ):  # fmt: skip
            with pytest.raises(LedgerError):
                record_dispute(ledger, visit, gtin, quantity, reason, T_NS, {})
        with pytest.raises(LedgerError, match="want a visit with a receipt"):
            record_answer(ledger, "inside", "q", 0, T_NS, WORTH)
        assert ledger.head() == head


def test_a_dispute_waits_until_a_decision_follows_it(place: Place) -> None:
    with place.open(STORE) as ledger:
        for visit in ("v1", "v2"):
            ledger.post_receipt(receipt(visit, *TWO))
        record_dispute(ledger, "v2", COLA, 1, "not taken", T_NS + 1, {})
        record_dispute(ledger, "v1", COLA, 1, "not taken", T_NS + 2, {})
        assert disputed_visits(ledger) == ["v2", "v1"]
        # A person finds the bill right: the same lines again move no money.
        before = balances(ledger)
        ledger.decide("v2", "correct", by="eve", t_ns=T_NS + 3, lines=TWO)
        assert disputed_visits(ledger) == ["v1"] and balances(ledger) == before
        record_dispute(ledger, "v2", BREAD, 1, "put back", T_NS + 4, {})
        assert disputed_visits(ledger) == ["v1", "v2"]
        assert [dispute.gtin for dispute in undecided_disputes(ledger.entries("v2"))] == [BREAD]


def test_standings_payments_statements_and_verification_pass_a_shoppers_word_by(place: Place) -> None:
    with place.open(STORE) as ledger:
        ledger.post_receipt(receipt("v1", *TWO, status="review"))
        ledger.post_receipt(receipt("v2", *TWO))
        retailer = Retailer(id="r", name="R", brand="R", fee_share=1.0, stores=("shop",))

        def read() -> tuple[object, ...]:
            standings = [ledger.standing(visit) for visit in ("v1", "v2")]
            payments = [History.of(ledger.entries(visit)) for visit in ("v1", "v2")]
            month = statement(ledger, STORE, retailer, "2026-03")
            return standings, payments, ledger.reviews(), month, balances(ledger)

        before = read()
        record_answer(ledger, "v1", "q", 0, T_NS + 1, WORTH)
        record_dispute(ledger, "v2", COLA, 1, "not taken", T_NS + 1, {})
        assert record_trust(ledger, "v1", by="eve", t_ns=T_NS + 2)
        assert not record_trust(ledger, "v1", by="eve", t_ns=T_NS + 2)
        assert read() == before and ledger.verify() is None
        assert ledger.decisions_after(0) == []


def test_a_shoppers_word_reaches_the_books_on_a_server_once(place: Place, tmp_path: Path) -> None:
    front = Ledger.open(tmp_path / "front.sqlite", STORE)
    reported: list[str] = []
    forwarding = Forwarding(front, lambda: place.open(STORE), tmp_path, reported.append)
    front.post_receipt(receipt("v1", *TWO))
    record_dispute(front, "v1", COLA, 1, "not taken", T_NS + 1, {})
    record_answer(front, "v1", "q", NONE_OF_THESE, T_NS + 2, WORTH)
    assert forwarding.work(lambda: None, T_NS) == ""
    wanted = [entry for entry in front.entries("v1") if entry.kind.startswith("shopper ")]
    found = [entry for entry in forwarding.books.entries("v1") if entry.kind.startswith("shopper ")]
    assert [(e.kind, e.key, e.request) for e in found] == [(e.kind, e.key, e.request) for e in wanted]
    assert len(found) == 2 and reported == []
    forwarding.close()
    front.close()
