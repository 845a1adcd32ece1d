"""GS1 codes against biip; codes of a store's own; whatever a reader sends is an item or a ValueError."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.store.gs1 import SEPARATOR, Amount, Codes, TradeItem, read_code
from fusion.store.gtin import check_digit
from fusion.store.iso4217 import CURRENCIES, NUMERIC

_GTIN = st.text("0123456789", min_size=12, max_size=12).map(lambda b: "0" + b + check_digit("0" + b))
_WORD = st.text("ABCdefgh0123456789-/.+%", min_size=1, max_size=20)
_DATE = st.dates().map(lambda d: f"{d:%y%m%d}")
# Identifier, value, what ends it: as a printer of labels puts them together.
_PARTS = st.fixed_dictionaries(
    {"01": _GTIN},
    optional={
        "10": _WORD,
        "21": _WORD,
        "22": _WORD,
        "15": _DATE,
        "17": _DATE,
        "11": _DATE,
        "3103": st.integers(0, 999_999).map("{:06d}".format),
        "3922": st.integers(100, 10**9).map(str),  # biip misplaces the point of fewer digits
        "414": st.just("9501101530003"),
        "7003": st.just("2601311200"),
    },
)


def _joined(parts: dict[str, str], order: list[str]) -> str:
    fixed = {"01", "15", "17", "11", "3103", "414"}
    text = "".join(ai + parts[ai] + ("" if ai in fixed else SEPARATOR) for ai in order)
    return text.removesuffix(SEPARATOR)


@settings(max_examples=200, deadline=None)
@given(_PARTS, st.randoms(use_true_random=False))
def test_element_strings_mean_what_biip_reads(parts: dict[str, str], random) -> None:
    biip = pytest.importorskip("biip")
    order = list(parts)
    random.shuffle(order)
    text = _joined(parts, order)
    theirs = {e.ai.ai: e for e in biip.parse("]d2" + text).gs1_message.element_strings}
    ours = read_code("]d2" + text)
    assert ours == read_code(SEPARATOR + text) == read_code("".join(f"({ai}){parts[ai]}" for ai in order))
    assert ours.gtin == theirs["01"].value == parts["01"]
    for ai, value in (("10", ours.batch), ("21", ours.serial), ("22", ours.variant)):
        assert value == (theirs[ai].value if ai in theirs else None)
    assert (ours.best_before, ours.use_by) == (parts.get("15"), parts.get("17"))
    assert ours.weight_g == (theirs["3103"].decimal * 1000 if "3103" in theirs else None)
    assert (ours.price is None) == ("3922" not in theirs)
    if ours.price is not None:
        assert ours.price.minor("EUR") == theirs["3922"].decimal * 100


@settings(deadline=None)
@given(_PARTS)
def test_a_digital_link_means_its_element_string(parts: dict[str, str]) -> None:
    from urllib.parse import quote

    path = "".join(f"/{ai}/{quote(parts[ai], safe='')}" for ai in ("01", "22", "10", "21") if ai in parts)
    query = "&".join(f"{ai}={v}" for ai, v in parts.items() if ai not in ("01", "22", "10", "21"))
    ours = read_code(f"https://shop.example/some/where{path}?{query}&campaign=summer")
    assert ours == read_code("".join(f"({ai}){value}" for ai, value in parts.items()))
    biip = pytest.importorskip("biip")
    theirs = biip.parse(f"https://shop.example{path}?{query}".removesuffix("?"))
    assert theirs.gs1_digital_link_uri is None or theirs.gtin.as_gtin_14() == ours.gtin


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("4006381333931", TradeItem("4006381333931")),
        ("]E04006381333931", TradeItem("4006381333931")),
        ("(01)09506000134352(3202)000123", TradeItem("09506000134352", weight_g=Decimal("557.9186151"))),
        ("(01)09506000134352(3932)978299", TradeItem("09506000134352", price=Amount(299, 2, "978"))),
        ("https://id.gs1.org/01/9506000134352", TradeItem("09506000134352")),
    ],
)
def test_codes_that_are_read(text: str, item: TradeItem) -> None:
    assert read_code(text) == item


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("4006381333932", "want check digit 1"),
        ("(01)09506000134351", "want check digit 2"),
        ("(10)ABCDEF", r"want a trade item, \(01\), got \(10\)"),
        ("(01)0950600013435", "want 14 digits"),
        ("(01)09506000134352(01)04006381333931", r"want \(01\) once"),
        ("0109506000134352" + "10", "want 1 to 90 characters"),
        ("0109506000134352" + "AB12", "want a GS1 application identifier at character 17"),
        ("(01)09506000134352(17)261301", "want a date YYMMDD"),
        ("(01)09506000134352(3922)1(3923)1", "want one price"),
        ("(01)09506000134352(3103)000100(3203)000900", "want one net weight"),
        ("https://id.gs1.org/ABCDEF0123", "want a GS1 Digital Link with /01/"),
        ("https://id.gs1.org/01/09506000134352/99/1", "want identifiers 22, 10 and 21"),
        ("x", "want a code of 8 to"),
    ],
)
def test_codes_that_are_refused(text: str, want: str) -> None:
    with pytest.raises(ValueError, match=want):
        read_code(text)


@given(st.text(max_size=60) | st.text("()01391372 \x1d]dC/https:.", max_size=60))
def test_any_text_is_an_item_or_refused(text: str) -> None:
    try:
        item = Codes(["28IIIIIWWWWWC"]).read(text)
    except ValueError as error:
        assert str(error).startswith("want ")
    else:
        assert check_digit(item.gtin[:-1]) == item.gtin[-1]


def test_prices_are_exact_or_refused() -> None:
    assert Amount(2995, 3, None).minor("TND") == 2995 and Amount(3, 0, "392").minor("JPY") == 3
    assert Amount(2990, 3, "978").minor("EUR") == 299 and Amount(299).minor("JPY") == 299
    for amount, currency in ((Amount(2995, 3, None), "EUR"), (Amount(299, 2, "840"), "EUR"), (Amount(5, 1), "JPY")):
        with pytest.raises(ValueError, match=r"^want "):
            amount.minor(currency)


@given(st.integers(0, 99_999), st.integers(0, 99_999))
def test_a_code_of_the_stores_own_holds_item_and_weight_or_price(item: int, value: int) -> None:
    body = f"28{item:05d}{value:05d}"
    plain = f"28{item:05d}00000"
    gtin = plain + check_digit(plain)
    code = body + check_digit(body)
    assert Codes(["28IIIIIWWWWWC"]).read(code) == TradeItem(gtin, weight_g=Decimal(value))
    assert Codes(["28IIIIIPPPPPC"]).read("0" + code) == TradeItem(gtin, price=Amount(value))
    assert Codes(["29IIIIIPPPPPC"]).read(code) == Codes().read(code) == TradeItem(code)
    labelled = Codes(["02IIIIXPPPPPC"]).read((b := f"02{item % 10_000:04d}7{value:05d}") + check_digit(b))
    assert labelled.price == Amount(value) and labelled.gtin.startswith(f"02{item % 10_000:04d}000000")


def test_every_currency_has_its_number() -> None:
    assert NUMERIC["EUR"] == "978" and NUMERIC["USD"] == "840" and all(len(n) == 3 for n in NUMERIC.values())
    assert len(set(NUMERIC.values())) == len(CURRENCIES) - 1, "two guilders share a number"
