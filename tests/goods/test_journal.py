"""Goods in double entry: nothing is lost, nothing is counted twice, nothing is overwritten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.errors import IdempotencyConflict, JournalError
from fusion.goods.journal import OUTSIDE, Journal, Transfer, cart, shelf

SHELF, CART = shelf("a1"), cart("v1")


def take(key: str = "e1", quantity: int = 2, gtin: str = "g") -> Transfer:
    return Transfer(key, 5, CART, SHELF, gtin, quantity)


def test_a_take_moves_pieces_from_shelf_to_cart() -> None:
    journal = Journal()
    assert journal.append(take())
    assert journal.balance(CART) == {"g": 2}
    assert journal.balance(SHELF) == {"g": -2}
    assert journal.balance(OUTSIDE) == {}


def test_a_repeated_transfer_counts_once_and_a_different_one_is_refused() -> None:
    journal = Journal()
    assert journal.append(take())
    assert not journal.append(take())
    with pytest.raises(IdempotencyConflict):
        journal.append(take(quantity=3))
    assert len(journal) == 1
    assert journal.balance(CART) == {"g": 2}


def test_a_reversal_restores_the_balances_and_is_idempotent() -> None:
    journal = Journal()
    journal.append(take())
    first = journal.reverse("e1", 9)
    assert journal.reverse("e1", 9) == first
    assert journal.balance(CART) == {} and journal.balance(SHELF) == {}
    assert [transfer.idempotency_key for transfer in journal] == ["e1", first.idempotency_key]
    with pytest.raises(JournalError):
        journal.reverse("e2", 9)
    with pytest.raises(JournalError):
        journal.reverse(first.idempotency_key, 9)


@pytest.mark.parametrize("quantity", [0, -1, True, 1.0])
def test_quantities_are_positive_integers(quantity: object) -> None:
    with pytest.raises(JournalError, match="quantity"):
        Transfer("k", 0, CART, SHELF, "g", quantity)  # type: ignore[arg-type]


def test_accounts_differ() -> None:
    with pytest.raises(JournalError, match="accounts"):
        Transfer("k", 0, CART, CART, "g", 1)


accounts = st.sampled_from([SHELF, CART, OUTSIDE, cart("v2")])
step = st.tuples(st.integers(0, 9), accounts, accounts, st.sampled_from("ab"), st.integers(1, 5), st.booleans())
steps = st.lists(step, max_size=40)


@given(steps)
def test_goods_are_conserved(moves: list) -> None:
    journal = Journal()
    for key, debit, credit, gtin, quantity, reverse in moves:
        if reverse and str(key) in journal:
            journal.reverse(str(key), 1)
        elif debit != credit:
            try:
                journal.append(Transfer(str(key), 0, debit, credit, gtin, quantity))
            except IdempotencyConflict:
                assert str(key) in journal
        assert not any(journal.totals().values())
    again = Journal()
    for transfer in journal:
        assert again.append(transfer)
    assert {a: again.balance(a) for a in again.accounts()} == {a: journal.balance(a) for a in journal.accounts()}


@given(
    moves=st.lists(st.tuples(st.booleans(), st.sampled_from("abc"), st.integers(1, 3)), max_size=12),
    items=st.dictionaries(st.sampled_from("abc"), st.integers(1, 4)),
)
def test_a_correction_brings_a_cart_to_what_it_should_be(moves: list, items: dict[str, int]) -> None:
    journal = Journal()
    for i, (taken, gtin, quantity) in enumerate(moves):
        journal.append(Transfer(f"e{i}", i, *((CART, SHELF) if taken else (SHELF, CART)), gtin, quantity))
    written = list(journal)
    journal.correct(CART, items, 99, "v1/review/99")
    assert journal.balance(CART) == items
    assert set(journal.totals().values()) <= {0}
    assert list(journal)[: len(written)] == written
    assert journal.correct(CART, items, 99, "v1/review/99") == []
    # The reviewer changes their mind.
    journal.correct(CART, {}, 120, "v1/review/120")
    assert journal.balance(CART) == {}


def test_what_was_too_much_is_reversed() -> None:
    journal = Journal()
    journal.append(take())
    journal.append(take("e2", 1))
    (reversal,) = journal.correct(CART, {"g": 2}, 9, "v1/review/9")
    assert reversal == Transfer("e2/reversed", 9, SHELF, CART, "g", 1)


taken = st.tuples(st.integers(0, 3), st.sampled_from("pq"), st.sampled_from("gh"), st.integers(1, 3))


@given(
    st.lists(taken, max_size=30),
    st.integers(0, 40),
    st.integers(0, 40),
    st.sets(st.integers(0, 3)),
)
def test_what_is_forgotten_stays_in_the_balances(
    moves: list[tuple[int, str, str, int]], number: int, before_ns: int, open_visits: set[int]
) -> None:
    journal, whole = Journal(), Journal()
    transfers = [
        Transfer(f"e{i}", i, cart(f"v{visit}"), shelf(plate), gtin, quantity)
        for i, (visit, plate, gtin, quantity) in enumerate(moves)
    ]
    for transfer in transfers:
        journal.append(transfer)
        whole.append(transfer)
    kept = {cart(f"v{visit}") for visit in open_visits}
    n = journal.forget(number, before_ns, kept)
    limit = min(number, before_ns, len(moves))
    assert n == next((i for i, one in enumerate(transfers[:limit]) if one.debit in kept), limit)
    assert list(journal) == transfers[n:] and journal.n_recorded == len(moves)
    assert all(journal.since(i) == tuple(transfers[max(i, n) :]) for i in range(len(moves) + 2))
    assert all(quantity == 0 for quantity in journal.totals().values())
    for account in {account for one in transfers for account in (one.debit, one.credit)}:
        named = [one for one in transfers[n:] if account in (one.debit, one.credit)]
        if account.kind == "shelf" or named:
            assert journal.balance(account) == whole.balance(account)
        else:
            assert journal.balance(account) == {} and account not in journal.accounts()
    # What comes afterwards is counted on.
    assert journal.append(take("later")) and journal.since(len(moves)) == (take("later"),)
