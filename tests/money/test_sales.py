"""VAT and the postings of a sale, exact to the cent."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from money.books import BREAD, COLA, SOUP, STAMP

from fusion.errors import EntryError
from fusion.money.entries import AMOUNT_MAX, Posting
from fusion.money.sales import Discount, Sale, charge_postings, sales_by_rate, vat_included, vat_rate_units
from fusion.results import ReceiptLine


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


# ---- goods, discounts, and the postings that charge for them ---------------------------------------------------------


def line(gtin: str = COLA, quantity: int = 2, price: int = 249, confidence: float = 0.5) -> ReceiptLine:
    return ReceiptLine(gtin, quantity, price, confidence)


def test_a_sale_is_kept_as_integers_and_comes_back() -> None:
    sale = Sale((line(), line(BREAD, 1, 199, 1.0)), (Discount("offer", COLA, 98),))
    rows = {
        "lines": [[COLA, 2, 249, 500_000], [BREAD, 1, 199, 1_000_000]],
        "discounts": [["offer", COLA, 98]],
    }
    assert sale.request() == rows and Sale.stored(rows) == sale and sale.total == 599
    assert Sale((line(),)).request() == {"lines": [[COLA, 2, 249, 500_000]]}
    assert Sale.stored({"lines": None}) == Sale() == Sale.stored({"lines": []}) and Sale().total == 0
    # Confidences are rounded to millionths.
    assert Sale((line(confidence=0.1234567),)).request()["lines"][0][3] == 123_457


def test_a_sale_is_checked_at_both_ends_of_each_range() -> None:
    least, most = line(quantity=1, price=0, confidence=0.0), line(quantity=1, price=AMOUNT_MAX, confidence=1.0)
    assert Sale.checked([least], []) == Sale((least,)) and Sale.checked([most], []).total == AMOUNT_MAX
    many = line(quantity=AMOUNT_MAX, price=1)
    assert Sale.checked([many], []).total == AMOUNT_MAX and Sale.checked([], []) == Sale()


@pytest.mark.parametrize(
    ("lines", "discounts", "fault"),
    [
        ([line(gtin="")], [], "gtin: want 1 to 255 characters, got 0"),
        ([line(quantity=0)], [], f"quantity: want 1 to {AMOUNT_MAX}, got 0"),
        ([line(quantity=AMOUNT_MAX + 1)], [], f"quantity: want 1 to {AMOUNT_MAX}, got {AMOUNT_MAX + 1}"),
        ([line(price=-1)], [], f"unit_price: want 0 to {AMOUNT_MAX}, got -1"),
        ([line(price=AMOUNT_MAX + 1)], [], f"unit_price: want 0 to {AMOUNT_MAX}, got {AMOUNT_MAX + 1}"),
        ([line(confidence=-1e-9)], [], "confidence: want 0 to 1, got -1e-09"),
        ([line(confidence=1.5)], [], "confidence: want 0 to 1, got 1.5"),
        ([line(confidence=float("nan"))], [], "confidence: want 0 to 1, got nan"),
        ([line(quantity=1, price=AMOUNT_MAX), line(price=1, quantity=1)], [],
         f"total: want at most {AMOUNT_MAX}, got {AMOUNT_MAX + 1}"),
        ([line()], [Discount("", COLA, 1)], "offer: want 1 to 255 characters, got 0"),
        ([line()], [Discount("o", "", 1)], "gtin: want 1 to 255 characters, got 0"),
        ([line()], [Discount("o", COLA, 0)], "discount: want 1 to 498, got 0"),
        ([line()], [Discount("o", COLA, 499)], "discount: want 1 to 498, got 499"),
        ([line()], [Discount("o", BREAD, 1)], "discount: want 1 to 0, got 1"),
        ([line()], [Discount("o", COLA, 400), Discount("p", COLA, 99)], "discount: want 1 to 98, got 99"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_sale_is_named(lines: list[ReceiptLine], discounts: list[Discount], fault: str) -> None:
    with pytest.raises(EntryError) as raised:
        Sale.checked(lines, discounts)
    assert str(raised.value) == fault


def test_discounts_of_one_product_add_up_to_what_it_costs() -> None:
    discounts = (Discount("o", COLA, 400), Discount("p", COLA, 98))
    sale = Sale.checked([line(quantity=1), line(quantity=1)], discounts)
    assert sale.discounts == discounts and sale.total == 0


def legs(*rows: tuple[str, int]) -> tuple[Posting, ...]:
    return tuple(Posting(account, "EUR", amount) for account, amount in rows)


def test_a_charge_is_posted_by_rate() -> None:
    rates = {COLA: 190_000, BREAD: 190_000, SOUP: 55_000, STAMP: 0}
    goods = (line(COLA, 1, 70), line(SOUP, 1, 211), line(BREAD, 1, 99), line(STAMP, 1, 80))
    assert Sale(goods, (Discount("o", BREAD, 50),)).charge(rates, "EUR") == legs(
        ("receivable", 410), ("revenue 0%", -80), ("revenue 5.5%", -200), ("vat 5.5%", -11),
        ("revenue 19%", -100), ("vat 19%", -19),
    )  # fmt: skip
    assert Sale((line(price=0),)).charge(rates, "EUR") == () == Sale().charge({}, "EUR")
    # All of it is VAT where so little is charged that no net is left.
    assert charge_postings({100_000_000: 1}, "EUR") == legs(("receivable", 1), ("vat 10000%", -1))


@pytest.mark.parametrize(
    ("percent", "units", "text"),
    [(0.0, 0, "0%"), (19.0, 190_000, "19%"), (5.5, 55_000, "5.5%"), (10.0, 100_000, "10%"), (0.0001, 1, "0.0001%"),
     (7.0375, 70_375, "7.0375%"), (100.0, 1_000_000, "100%"), (2.1, 21_000, "2.1%")],
)  # fmt: skip
def test_rates_are_exact_and_written_without_idle_zeros(percent: float, units: int, text: str) -> None:
    assert vat_rate_units(percent) == units
    assert charge_postings({units: 10**9}, "EUR")[1].account == f"revenue {text}"


def test_sales_by_rate_are_what_was_charged_less_what_was_reversed() -> None:
    charged = charge_postings({190_000: 119, 70_000: 107}, "EUR")
    back = legs(("receivable", -119), ("revenue 19%", 60), ("vat 19%", 11), ("provider", 5), ("revenues 1%", -9))
    assert sales_by_rate(charged) == {"19%": (100, 19), "7%": (100, 7)}
    assert sales_by_rate([*charged, *back]) == {"19%": (40, 8), "7%": (100, 7)}
    assert list(sales_by_rate(legs(("vat 7%", -1), ("revenue 19%", -2)))) == ["19%", "7%"] and sales_by_rate([]) == {}
