"""VAT and the postings of a sale, exact to the cent."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.money.entries import AMOUNT_MAX
from fusion.money.sales import charge_postings, vat_included


@pytest.mark.parametrize(
    ("gross", "percent", "vat"),
    [(119, 19, 19), (100, 19, 16), (1, 19, 0), (0, 19, 0), (107, 7, 7), (100, 0, 0), (211, 5.5, 11), (3, 100, 2)],
)
def test_vat_by_hand(gross: int, percent: float, vat: int) -> None:
    assert vat_included(gross, percent) == vat


@given(st.integers(0, AMOUNT_MAX), st.integers(0, 1_000_000))
def test_vat_is_the_nearest_cent_halves_up(gross: int, rate: int) -> None:
    share = Fraction(gross * rate, 1_000_000 + rate)
    exact = vat_included(gross, rate / 10_000)
    assert -Fraction(1, 2) < exact - share <= Fraction(1, 2)


@given(gross=st.dictionaries(st.integers(0, 1_000_000), st.integers(0, AMOUNT_MAX), max_size=5))
@settings(max_examples=300)
def test_a_charge_balances_to_the_cent(gross: dict[int, int]) -> None:
    postings = charge_postings(gross, "EUR")
    assert sum(posting.amount for posting in postings) == 0
    assert sum(posting.amount for posting in postings if posting.account == "receivable") == sum(gross.values())
    assert all(posting.amount for posting in postings)
