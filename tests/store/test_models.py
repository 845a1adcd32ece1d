"""Values of a store: GTINs with their check digits, amounts as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store.shops import bare_shop

from fusion.store.gtin import check_digit
from fusion.store.models import Product

# Published examples: from GS1, from a book, from bottles and boxes.
KNOWN_GTINS = [
    "96385074",
    "012345678905",
    "4006381333931",
    "9780306406157",
    "00012345600012",
    "5449000000996",
    "73513537",
]


@pytest.mark.parametrize("gtin", KNOWN_GTINS)
def test_check_digit_of_known_gtins(gtin: str) -> None:
    assert check_digit(gtin[:-1]) == gtin[-1]
    assert product(gtin).gtin == gtin


def product(gtin: str, **values: object) -> Product:
    row = {"name": "Water", "weight_g": 500.0, "weight_sd_g": 2.0, "price": 99, "vat_rate": 19.0}
    return Product.model_validate({"gtin": gtin, **row, **values})


@given(st.sampled_from([7, 11, 12, 13]).flatmap(lambda n: st.text("0123456789", min_size=n, max_size=n)), st.data())
def test_check_digit_finds_every_wrong_digit(body: str, data: st.DataObject) -> None:
    gtin = body + check_digit(body)
    assert product(gtin).gtin == gtin
    place = data.draw(st.integers(0, len(gtin) - 1))
    other = data.draw(st.sampled_from("0123456789".replace(gtin[place], "")))
    wrong = gtin[:place] + other + gtin[place + 1 :]
    with pytest.raises(ValueError, match="want check digit"):
        product(wrong)


@given(st.text("0123456789", min_size=7, max_size=13))
def test_leading_zeros_do_not_change_the_check_digit(body: str) -> None:
    assert check_digit(body) == check_digit("0" + body) == check_digit(body.zfill(13))


@pytest.mark.parametrize(
    ("currency", "minor", "text"),
    [
        ("EUR", 249, "2.49 EUR"),
        ("EUR", 5, "0.05 EUR"),
        ("EUR", -5, "-0.05 EUR"),
        ("EUR", 0, "0.00 EUR"),
        ("EUR", -12345, "-123.45 EUR"),
        ("JPY", 249, "249 JPY"),
        ("JPY", -1, "-1 JPY"),
        ("KWD", 1234, "1.234 KWD"),
        ("KWD", -7, "-0.007 KWD"),
    ],
)
def test_price_text(currency: str, minor: int, text: str) -> None:
    assert bare_shop(currency=currency).price_text(minor) == text


@given(st.sampled_from(["EUR", "JPY", "KWD", "USD"]), st.integers(-(10**15), 10**15))
def test_price_text_returns_to_the_same_minor_units(currency: str, minor: int) -> None:
    shop = bare_shop(currency=currency)
    figure, code = shop.price_text(minor).split()
    assert code == currency
    assert int(figure.replace(".", "")) == minor
    assert len(figure.partition(".")[2]) == shop.currency_exponent
