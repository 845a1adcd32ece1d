"""Reading the books: by visit, kind, time and account, at both ends of each interval; batches, heads and the chain."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from money.books import BREAD, COLA, STORE, T_NS, TWO, make_store, receipt

from fusion.errors import EntryError, IdempotencyConflict, LedgerError
from fusion.money.checkpoint import Head
from fusion.money.entries import (
    Posting,
    canonical_bytes,
    canonical_json,
    chained_hash,
    checked_instant,
    checked_integer,
    checked_text,
    genesis_hash,
    unbalanced,
)
from fusion.money.ledger import Ledger
from fusion.results import ReceiptLine


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.sqlite", STORE) as opened:
        yield opened


def noted(
    ledger: Ledger, visit: str, name: str, kind: str = "note", t_ns: int = T_NS, *legs: tuple[str, str, int]
) -> None:
    assert ledger.record(visit, name, kind, t_ns, {}, [Posting(*leg) for leg in legs])


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_entries_by_visit_and_time(ledger: Ledger) -> None:
    for i, (visit, t_ns) in enumerate([("v1", T_NS + 5), ("v2", T_NS + 7), ("v1", T_NS + 3), ("v10", T_NS + 4)]):
        noted(ledger, visit, f"n{i}", "note", t_ns, ("a", "EUR", i + 1), ("b", "EUR", -i - 1))
    assert [(entry.seq, entry.key) for entry in ledger.entries("v1")] == [(1, "v1/n0"), (3, "v1/n2")]
    assert ledger.entries("v1")[1].postings == (Posting("a", "EUR", 3), Posting("b", "EUR", -3))
    assert ledger.entries("v9") == []
    keys = [entry.key for entry in ledger.entries_between(T_NS + 3, T_NS + 7)]
    assert keys == ["v1/n0", "v1/n2", "v10/n3"], "in the order in which they were made"
    assert [entry.key for entry in ledger.entries_between(T_NS + 7, T_NS + 8)] == ["v2/n1"]
    assert ledger.entries_between(T_NS + 8, 2**62) == [] and ledger.entries_between(T_NS + 5, T_NS + 5) == []
    assert ledger.postings("v1") == [
        Posting("a", "EUR", 1), Posting("b", "EUR", -1), Posting("a", "EUR", 3), Posting("b", "EUR", -3),
    ]  # fmt: skip
    found = ledger.recorded("v1", "n2")
    assert found is not None and (found.seq, found.visit) == (3, "v1")
    assert ledger.recorded("v1", "n1") is None and ledger.recorded("v", "1/n0") is None


def test_visits_with_entries_of_some_kinds_in_the_order_of_time(ledger: Ledger) -> None:
    rows = [("v1", "a", 5), ("v2", "b", 3), ("v3", "c", 4), ("v1", "a", 3), ("v4", "a", 9)]
    for i, (visit, kind, t) in enumerate(rows):
        noted(ledger, visit, f"n{i}", kind, T_NS + t)
    assert ledger.visits_between(["a", "b"], T_NS + 3, T_NS + 9) == ["v2", "v1", "v1"]
    assert ledger.visits_between(["a"], T_NS + 4, T_NS + 10) == ["v1", "v4"]
    assert ledger.visits_between(["c"], T_NS + 5, T_NS + 10) == []


def test_entries_of_kinds_after_a_number_and_since_an_instant(ledger: Ledger) -> None:
    for i, (kind, t) in enumerate([("a", 5), ("b", 3), ("a", 4), ("c", 9), ("a", 3)]):
        noted(ledger, "v", f"n{i}", kind, T_NS + t)

    def found(*kinds: str, **options: int) -> list[int]:
        return [entry.seq for entry in ledger.entries_of(*kinds, **options)]

    assert found("a") == [1, 3, 5] and found("a", "b") == [1, 2, 3, 5] and found("d") == []
    assert found("a", after=1) == [3, 5] and found("a", after=0) == [1, 3, 5] and found("a", after=5) == []
    assert found("a", since_ns=T_NS + 4) == [1, 3] and found("a", since_ns=T_NS + 5, after=1) == []
    noted(ledger, "w", "old", "a", -(2**63))
    assert found("a")[-1] == 6, "by default from the first instant of all"
    for options, message in (
        ({"after": -1}, f"after: want 0 to {2**63 - 1}, got -1"),
        ({"after": 2**63}, f"after: want 0 to {2**63 - 1}, got {2**63}"),
        ({"since_ns": 2**63}, f"since_ns: want {-(2**63)} to {2**63 - 1}, got {2**63}"),
    ):
        with pytest.raises(EntryError) as raised:
            ledger.entries_of("a", **options)
        assert str(raised.value) == message
    assert found("a", after=2**63 - 1) == []


def test_visits_that_wait_for_something_to_follow(ledger: Ledger) -> None:
    for i, (visit, kind) in enumerate(
        [("v2", "b"), ("v2", "a"), ("v1", "a"), ("v3", "a"), ("v3", "b"), ("v1", "a"), ("v4", "a"), ("v4", "c")]
    ):
        noted(ledger, visit, f"n{i}", kind)
    assert ledger.not_followed("a", ["b"]) == ["v2", "v1", "v4"], "what came before does not count"
    assert ledger.not_followed("a", ["b", "c"]) == ["v2", "v1"]
    assert ledger.not_followed("d", ["b"]) == []
    assert ledger.has_kind("c") and not ledger.has_kind("d")


def test_entries_without_an_answer(ledger: Ledger) -> None:
    for visit, name, kind in (
        ("v1", "p 1", "asked"), ("v1", "p 1/answer", "done"), ("v1", "p 2", "asked"), ("v2", "p 1", "asked"),
        ("v2", "p 2/answer", "done"), ("v2", "p 3", "other"),
    ):  # fmt: skip
        noted(ledger, visit, name, kind)
    assert [entry.key for entry in ledger.unanswered("asked")] == ["v1/p 2", "v2/p 1"]


def test_rows_for_a_copy_that_is_kept_elsewhere(ledger: Ledger) -> None:
    assert ledger.rows_after(-1, 5) == ([], [])
    for i in range(4):
        noted(ledger, "v", f"n{i}", "note", T_NS, ("a", "EUR", i), ("b", "EUR", -i))
    entries, postings = ledger.rows_after(1, 2)
    assert [row.seq for row in entries] == [2, 3] and len(entries[0].hash) == 32
    assert [(row.entry, row.line, row.account, row.amount) for row in postings] == [
        (2, 0, "a", 1), (2, 1, "b", -1), (3, 0, "a", 2), (3, 1, "b", -2),
    ]  # fmt: skip
    assert entries[0].details == '{"request":{}}' and entries[0].key == "v/n1"
    assert [row.seq for row in ledger.rows_after(0, 10**6)[0]] == [1, 2, 3, 4] and ledger.rows_after(4, 9) == ([], [])
    for values, message in (
        ((-2, 1), f"seq: want -1 to {2**63 - 1}, got -2"),
        ((0, 0), "limit: want 1 to 1000000, got 0"),
        ((0, 10**6 + 1), "limit: want 1 to 1000000, got 1000001"),
    ):
        with pytest.raises(EntryError) as raised:
            ledger.rows_after(*values)
        assert str(raised.value) == message


def test_balances_by_account_currency_and_visit(ledger: Ledger) -> None:
    assert ledger.balances() == {} == ledger.balances(0) and ledger.balances_of("a") == {}
    noted(ledger, "v2", "1", "n", T_NS, ("b", "USD", 5), ("a", "USD", -5))
    noted(ledger, "v1", "1", "n", T_NS + 1, ("a", "EUR", 3), ("b", "EUR", -3))
    noted(ledger, "v1", "2", "n", T_NS + 2, ("a", "EUR", -3), ("c", "EUR", 3))
    noted(ledger, "v3", "1", "n", T_NS + 3, ("c", "EUR", 4), ("b", "EUR", -4))
    noted(ledger, "v2", "2", "n", T_NS + 4, ("c", "EUR", 7), ("b", "EUR", -7))
    assert ledger.balances() == {"EUR": {"a": 0, "b": -14, "c": 14}, "USD": {"a": -5, "b": 5}}
    assert ledger.balances(T_NS + 2) == {"EUR": {"a": 3, "b": -3}, "USD": {"a": -5, "b": 5}}
    assert ledger.balances(T_NS) == {}
    assert list(ledger.balances_of("c").items()) == [("v1", 3), ("v3", 4), ("v2", 7)]
    assert ledger.balances_of("a") == {"v2": -5} and ledger.balances_of("d") == {}


def test_what_cannot_be_asked_for_is_named(ledger: Ledger) -> None:
    texts: list[tuple[str, Callable[[str], object]]] = [
        ("visit", ledger.entries), ("kind", ledger.unanswered), ("kind", ledger.has_kind), ("visit", ledger.postings),
        ("account", ledger.balances_of), ("kind", ledger.entries_of),
        ("visit", lambda text: ledger.recorded(text, "x")), ("name", lambda text: ledger.recorded("v", text)),
        ("kind", lambda text: ledger.not_followed(text, ["b"])),
    ]  # fmt: skip
    for field, ask in texts:
        with pytest.raises(EntryError, match=rf"^{field}: want 1 to 255 characters, got 0$"):
            ask("")
    instants: list[tuple[str, Callable[[int], object]]] = [
        ("t0_ns", lambda t: ledger.entries_between(t, 0)), ("t1_ns", lambda t: ledger.entries_between(0, t)),
        ("t0_ns", lambda t: ledger.visits_between(["a"], t, 0)),
        ("t1_ns", lambda t: ledger.visits_between(["a"], 0, t)), ("before_ns", ledger.balances),
    ]  # fmt: skip
    for field, since in instants:
        with pytest.raises(EntryError, match=rf"^{field}: want -\d+ to \d+, got {2**63}$"):
            since(2**63)


# ---- batches ---------------------------------------------------------------------------------------------------------


def test_a_batch_reads_what_it_has_written(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    real = ledger.database.add

    def add(entries: Any, legs: Any) -> None:
        written.append(len(entries))
        real(entries, legs)

    monkeypatch.setattr(ledger.database, "add", add)
    monkeypatch.setattr("fusion.money.books.FLUSHED_FROM", 3)
    with ledger.batch():
        ledger.post_receipt(receipt("v1", *TWO, account=None))
        assert not ledger.post_receipt(receipt("v1", *TWO, account=None)) and written == []
        assert ledger.head().seq == 1 and written == [1], "what reads the database finds it there"
        with ledger.batch():
            noted(ledger, "v2", "a")
            noted(ledger, "v2", "b")
        assert written == [1, 2]
        for i in range(3):
            noted(ledger, "v3", f"{i}")
        assert written == [1, 2, 3], "at once, as soon as there are three"
        noted(ledger, "v4", "a")
        assert [entry.seq for entry in ledger.entries("v4")] == [7]
        noted(ledger, "v4", "b")
    assert written == [1, 2, 3, 1, 1] and ledger.head().seq == 8 and ledger.verify() is None
    with ledger.batch():
        pass
    noted(ledger, "v5", "a")
    assert written[5:] == [1], "after the batch each is written by itself"


def test_an_entry_of_a_batch_is_found_by_its_key_with_its_time(ledger: Ledger) -> None:
    with ledger.batch():
        ledger.open_visit("v1", None, T_NS + 5)
        assert ledger.open_visit("v1", None, T_NS + 6) is False
        with pytest.raises(IdempotencyConflict, match="opened before"):
            ledger.open_visit("v1", None, T_NS + 4)
        ledger.post_receipt(receipt("v1", *TWO, account=None))
        ledger.decide("v1", "correct", by="eve", t_ns=T_NS, lines=[ReceiptLine(BREAD, 1, 199, 1.0)])
        ledger.decide("v1", "waive", by="eve", t_ns=T_NS, revision=2)
    assert all(amount == 0 for amount in ledger.balances()["EUR"].values()) and ledger.verify() is None


# ---- the chain -------------------------------------------------------------------------------------------------------


def test_a_head_names_the_newest_entry(ledger: Ledger) -> None:
    genesis = hashlib.sha256(b'["fusion ledger",1,"shop","EUR"]').digest()
    assert ledger.head() == Head(0, genesis.hex()) and genesis_hash("shop", "EUR") == genesis
    assert ledger.holds(Head(0, genesis.hex())) and not ledger.holds(Head(0, "00" * 32))
    noted(ledger, "v", "n", "note", T_NS, ("a", "EUR", 1), ("b", "EUR", -1))
    text = canonical_json([1, T_NS, "note", "v", "v/n", '{"request":{}}', [["a", "EUR", 1], ["b", "EUR", -1]]])
    digest = hashlib.sha256(genesis + text.encode()).hexdigest()
    first = ledger.head()
    assert first == Head(1, digest)
    noted(ledger, "v", "m")
    assert ledger.holds(first) and ledger.holds(ledger.head())
    for other in (Head(2, digest), Head(1, "00" * 32), Head(3, digest)):
        assert not ledger.holds(other)


def test_a_kept_head_shows_a_changed_or_removed_end(ledger: Ledger) -> None:
    for i in range(3):
        noted(ledger, "v", f"{i}")
    head = ledger.head()
    assert ledger.verify() is None and ledger.verify(head) is None
    assert ledger.verify(Head(2, "00" * 32)) == "entry 2: differs from the head that was kept"
    assert ledger.verify(Head(4, head.sha256)) == "entry 4: missing, the head that was kept is 4"
    assert ledger.verify(Head(7, head.sha256)) == "entry 4: missing, the head that was kept is 7"
    assert ledger.verify(Head(0, "any")) is None


FAULTS: list[tuple[str, str | None]] = [
    ("UPDATE entry SET t_ns = t_ns + 1 WHERE seq = 2", "entry 2: its contents or its place in the chain were changed"),
    ("UPDATE entry SET details = '{}' WHERE seq = 3", "entry 3: its contents or its place in the chain were changed"),
    ("DELETE FROM entry WHERE seq = 2", "entry 2: missing, the next one is 3"),
    ("DELETE FROM entry WHERE seq = 1", "entry 1: missing, the next one is 2"),
    ("UPDATE posting SET amount = 5 WHERE entry = 2 AND line = 0",
     "entry 2: its contents or its place in the chain were changed"),
    ("INSERT INTO posting VALUES (0, 0, 'a', 'EUR', 0)", "posting of entry 0: there is no such entry"),
    ("INSERT INTO posting VALUES (9, 0, 'a', 'EUR', 0)", "posting of entry 9: there is no such entry"),
    ("UPDATE book SET currency = 'USD'", "book: identity of the books was changed"),
    ("UPDATE book SET store = 'kiosk'", "book: identity of the books was changed"),
    ("SELECT 1", None),
]  # fmt: skip


@pytest.mark.parametrize(("change", "fault"), FAULTS)
def test_the_first_bad_row_is_named(tmp_path: Path, change: str, fault: str | None) -> None:
    import sqlite3

    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path, STORE) as ledger:
        for i in range(3):
            noted(ledger, "v", f"{i}", "note", T_NS, ("a", "EUR", i), ("b", "EUR", -i))
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as stranger:
            triggers = stranger.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
            for name, _ in triggers:
                stranger.execute(f"DROP TRIGGER {name}")
            stranger.execute(change)
            for _, text in triggers:
                stranger.execute(text)
        assert ledger.verify() == fault


def test_books_have_an_identity(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with pytest.raises(LedgerError) as raised:
        Ledger.open(path, STORE, create=False)
    assert str(raised.value) == f"{path}: the books do not exist; `fusion run` and `fusion serve` create them"
    path.touch()
    with pytest.raises(LedgerError) as raised:
        Ledger.open(path, STORE, create=False)
    assert str(raised.value) == f"{path}: holds no books; `fusion run` and `fusion serve` begin them"
    Ledger.open(path, STORE).close()
    for other, wanted in ((make_store("kiosk"), "'kiosk' in EUR"), (make_store("shop", "USD"), "'shop' in USD")):
        with pytest.raises(LedgerError) as raised:
            Ledger.open(path, other)
        assert str(raised.value) == f"{path}: want the books of {wanted}, got 'shop' in EUR"
    with Ledger.open(path, STORE, read_only=True) as reading, pytest.raises(LedgerError):
        reading.open_visit("v", None, T_NS)


def test_books_of_a_later_format_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.sqlite"
    with monkeypatch.context() as later:
        later.setattr("fusion.money.books.FORMAT_VERSION", 2)
        Ledger.open(path, STORE).close()
    with pytest.raises(LedgerError) as raised:
        Ledger.open(path, STORE)
    assert str(raised.value) == f"{path}: want a ledger of format 1, got 2"


# ---- what fits into the books ----------------------------------------------------------------------------------------


def test_texts_have_a_length(ledger: Ledger) -> None:
    assert checked_text("x", "a") == "a" and checked_text("x", "a" * 255) == "a" * 255
    assert checked_text("x", "", 5, 0) == "" and checked_text("x", "abc", 3, 3) == "abc"
    for values, message in (
        (("",), "x: want 1 to 255 characters, got 0"),
        (("a" * 256,), "x: want 1 to 255 characters, got 256"),
        (("ab", 3, 3), "x: want 3 to 3 characters, got 2"),
        ((5,), "x: want 1 to 255 characters, got int"),
        ((None,), "x: want 1 to 255 characters, got NoneType"),
        (("a\ud800",), "x: want Unicode text, got half a surrogate pair"),
    ):
        with pytest.raises(EntryError) as raised:
            checked_text("x", *values)  # type: ignore[arg-type]
        assert str(raised.value) == message


def test_numbers_have_a_range() -> None:
    import numpy as np

    assert [checked_integer("x", value, -1, 3) for value in (-1, 3, np.int64(2), True)] == [-1, 3, 2, 1]
    for value, message in (
        (-2, "x: want -1 to 3, got -2"), (4, "x: want -1 to 3, got 4"), (1.0, "x: want an integer, got float"),
        ("1", "x: want an integer, got str"),
    ):  # fmt: skip
        with pytest.raises(EntryError) as raised:
            checked_integer("x", value, -1, 3)
        assert str(raised.value) == message
    assert checked_instant("t", -(2**63)) == -(2**63) and checked_instant("t", 2**63 - 1) == 2**63 - 1
    for value in (-(2**63) - 1, 2**63):
        with pytest.raises(EntryError, match=rf"^t: want {-(2**63)} to {2**63 - 1}, got {value}$"):
            checked_instant("t", value)


def test_canonical_text_has_one_spelling() -> None:
    value: dict[str, Any] = {"b": [1, "ä"], "a": None}
    assert canonical_json(value) == '{"a":null,"b":[1,"\\u00e4"]}'
    assert canonical_json(value) == json.dumps(value, sort_keys=True, separators=(",", ":"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))
    row = canonical_bytes(1, 2, "k", "v", "v/n", "{}", [Posting("ä", "EUR", 3)])
    assert row == b'[1,2,"k","v","v/n","{}",[["\\u00e4","EUR",3]]]'
    assert chained_hash(b"a", b"bc") == hashlib.sha256(b"abc").digest()


def test_postings_balance_in_each_currency() -> None:
    legs = [Posting("a", "EUR", 5), Posting("b", "USD", 3), Posting("c", "EUR", -5), Posting("d", "USD", -1)]
    assert unbalanced(legs) == {"USD": 2} and unbalanced([]) == {} and unbalanced(legs[:1]) == {"EUR": 5}


def test_an_entry_knows_what_it_moved(ledger: Ledger) -> None:
    noted(ledger, "v", "n", "note", T_NS, ("a", "EUR", 5), ("b", "EUR", -8), ("a", "EUR", 3))
    (entry,) = ledger.entries("v")
    assert (entry.moved("a"), entry.moved("b"), entry.moved("c")) == (8, -8, 0)
    assert replace(entry, postings=()).moved("a") == 0 and COLA not in str(entry)
