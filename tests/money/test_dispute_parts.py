"""What shoppers say, field by field: entries, refusals in words, and both ends of each range."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from money.books import BREAD, COLA, STORE, T_NS, TWO, receipt

from fusion.errors import EntryError, FusionError, IdempotencyConflict, LedgerError
from fusion.money.disputes import (
    AUTOMATIC,
    KINDS,
    Dispute,
    DisputeReason,
    ShopperAnswer,
    answers_of,
    disputed_visits,
    disputes_of,
    record_answer,
    record_dispute,
    record_trust,
    undecided_disputes,
)
from fusion.money.ledger import Ledger
from fusion.results import NAME_MAX, ReceiptLine

WORTH: dict[str, Any] = {"choices": [{"number": 0}]}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as opened:
        opened.post_receipt(receipt("v1", *TWO, account=None))
        yield opened


@contextlib.contextmanager
def refused(ledger: Ledger, kind: type[FusionError], message: str) -> Iterator[None]:
    before = ledger.head()
    with pytest.raises(kind) as raised:
        yield
    assert type(raised.value) is kind and str(raised.value) == message and ledger.head() == before


def test_who_decided_by_a_shoppers_word_has_a_name() -> None:
    assert AUTOMATIC == ("shopper's answer", "shopper's dispute")
    assert KINDS == ("shopper answered", "shopper disputed", "shopper trusted")


def test_an_answer_is_kept_with_what_it_was_worth(ledger: Ledger) -> None:
    assert record_answer(ledger, "v1", "q", 3, T_NS + 5, WORTH) is True
    entry = ledger.entries("v1")[-1]
    assert (entry.kind, entry.key, entry.t_ns, entry.postings) == ("shopper answered", "v1/answer q", T_NS + 5, ())
    assert entry.request == {"question": "q", "choice": 3, "worth": WORTH}
    assert answers_of(ledger.entries("v1")) == (ShopperAnswer("v1", "q", 3, WORTH, T_NS + 5, entry.seq),)
    assert record_answer(ledger, "v1", "q", 3, T_NS + 9, {}) is False
    with refused(ledger, IdempotencyConflict, "visit 'v1': this question was answered differently before"):
        record_answer(ledger, "v1", "q", 2, T_NS + 5, WORTH)
    assert disputes_of(ledger.entries("v1")) == ()


def test_a_dispute_is_kept_with_what_was_known(ledger: Ledger) -> None:
    assert record_dispute(ledger, "v1", COLA, 2, DisputeReason.PUT_BACK, T_NS + 5, {"p": 1}) is True
    entry = ledger.entries("v1")[-1]
    assert (entry.kind, entry.key, entry.t_ns) == ("shopper disputed", f"v1/dispute {COLA}", T_NS + 5)
    assert entry.request == {"gtin": COLA, "quantity": 2, "reason": "put back", "worth": {"p": 1}}
    wanted = Dispute("v1", COLA, 2, DisputeReason.PUT_BACK, {"p": 1}, T_NS + 5, entry.seq)
    assert disputes_of(ledger.entries("v1")) == (wanted,) == undecided_disputes(ledger.entries("v1"))
    assert record_dispute(ledger, "v1", COLA, 2, "put back", T_NS + 9, {}) is False
    for quantity, reason in ((1, "put back"), (2, "not taken")):
        with refused(ledger, IdempotencyConflict, "visit 'v1': this product was disputed differently before"):
            record_dispute(ledger, "v1", COLA, quantity, reason, T_NS, {})
    assert answers_of(ledger.entries("v1")) == ()


@pytest.mark.parametrize("reason", list(DisputeReason))
def test_every_reason_is_known_by_its_words(ledger: Ledger, reason: DisputeReason) -> None:
    assert record_dispute(ledger, "v1", BREAD, 1, str(reason), T_NS, {})
    assert disputes_of(ledger.entries("v1"))[0].reason is reason


def test_choices_have_a_range(ledger: Ledger) -> None:
    for question, choice in (("a", -2), ("b", 99), ("c" * (NAME_MAX - len("answer ")), 0)):
        assert record_answer(ledger, "v1", question, choice, T_NS, {})
    for choice in (-3, 100):
        with refused(ledger, EntryError, f"choice: want -2 to 99, got {choice}"):
            record_answer(ledger, "v1", "d", choice, T_NS, {})
    with refused(ledger, EntryError, f"question: want 1 to {NAME_MAX} characters, got 0"):
        record_answer(ledger, "v1", "", 0, T_NS, {})


REASONS = "not taken, put back, other goods, other quantity, other price"


@pytest.mark.parametrize(
    ("gtin", "quantity", "reason", "kind", "message"),
    [
        (COLA, 0, "not taken", EntryError, "quantity: want 1 to 10000, got 0"),
        (COLA, 10_001, "not taken", EntryError, "quantity: want 1 to 10000, got 10001"),
        (COLA, 3, "not taken", LedgerError, f"quantity: want at most the 2 of '{COLA}' on the bill, got 3"),
        ("0", 1, "not taken", LedgerError, "quantity: want at most the 0 of '0' on the bill, got 1"),
        (COLA, 1, "too dear", LedgerError, f"reason: want one of {REASONS}, got 'too dear'"),
        (COLA, 1, "x" * 50, LedgerError, f"reason: want one of {REASONS}, got '{'x' * 40}'"),
        ("", 1, "not taken", EntryError, "gtin: want 1 to 255 characters, got 0"),
    ],
)
def test_what_cannot_be_disputed_is_named(
    ledger: Ledger, gtin: str, quantity: int, reason: str, kind: type[FusionError], message: str
) -> None:
    with refused(ledger, kind, message):
        record_dispute(ledger, "v1", gtin, quantity, reason, T_NS, {})


def test_pieces_on_several_lines_of_the_bill_count_together(ledger: Ledger) -> None:
    lines = (ReceiptLine(COLA, 2, 249, 0.9), ReceiptLine(COLA, 1, 199, 0.9), ReceiptLine(BREAD, 5, 1, 0.9))
    ledger.decide("v1", "correct", by="eve", t_ns=T_NS, lines=lines)
    with pytest.raises(LedgerError, match="at most the 3 of"):
        record_dispute(ledger, "v1", COLA, 4, "not taken", T_NS, {})
    assert record_dispute(ledger, "v1", COLA, 3, "not taken", T_NS, {})
    many = (ReceiptLine(COLA, 10_000, 1, 0.9),)
    ledger.decide("v1", "correct", by="eve", t_ns=T_NS, lines=many, revision=2)
    ledger.post_receipt(receipt("v2", *many, account=None))
    assert record_dispute(ledger, "v2", COLA, 10_000, "not taken", T_NS, {})


def test_only_a_visit_with_a_receipt_has_a_bill(ledger: Ledger) -> None:
    ledger.open_visit("v2", None, T_NS)
    for visit in ("v2", "unknown"):
        message = f"visit '{visit}': want a visit with a receipt, got none"
        with refused(ledger, LedgerError, message):
            record_answer(ledger, visit, "q", 0, T_NS, {})
        with refused(ledger, LedgerError, message):
            record_dispute(ledger, visit, COLA, 1, "not taken", T_NS, {})
        with refused(ledger, LedgerError, message):
            record_trust(ledger, visit, by="eve", t_ns=T_NS)


def test_trust_is_given_as_often_as_it_is_needed_and_once_each_time(ledger: Ledger) -> None:
    assert record_trust(ledger, "v1", by="eve", t_ns=T_NS + 5, note="4111 1111 1111 1111 fine") is True
    first = ledger.recorded("v1", "trusted 1")
    assert first is not None and (first.kind, first.t_ns, first.request["by"]) == ("shopper trusted", T_NS + 5, "eve")
    assert "4111" not in first.request["note"] and first.request["note"].endswith(" fine")
    assert record_trust(ledger, "v1", by="eve", t_ns=T_NS + 5, note="4111 1111 1111 1111 fine") is False
    for n, options in enumerate(({"by": "eve", "t_ns": T_NS + 6}, {"by": "adam", "t_ns": T_NS + 6}), 2):
        assert record_trust(ledger, "v1", **options) is True  # type: ignore[arg-type]
        found = ledger.recorded("v1", f"trusted {n}")
        assert found is not None and found.request == {"by": options["by"], "note": ""}
    for values, message in (
        ({"by": ""}, "by: want 1 to 255 characters, got 0"),
        ({"by": "eve", "note": "x" * 2001}, "note: want 0 to 2000 characters, got 2001"),
    ):
        with refused(ledger, EntryError, message):
            record_trust(ledger, "v1", t_ns=T_NS, **values)
    assert record_trust(ledger, "v1", by="eve", t_ns=T_NS, note="x" * 2000)


def test_a_decision_settles_the_disputes_before_it(ledger: Ledger) -> None:
    assert undecided_disputes([]) == () and disputed_visits(ledger) == []
    record_dispute(ledger, "v1", COLA, 1, "not taken", T_NS, {})
    ledger.decide("v1", "correct", by="eve", t_ns=T_NS, lines=TWO)
    assert undecided_disputes(ledger.entries("v1")) == () and disputed_visits(ledger) == []
    record_dispute(ledger, "v1", BREAD, 1, "not taken", T_NS, {})
    assert [one.gtin for one in undecided_disputes(ledger.entries("v1"))] == [BREAD]
    assert disputed_visits(ledger) == ["v1"]
