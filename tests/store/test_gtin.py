"""GTINs: one number, whatever the number of digits that spell it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fusion.store.gtin import OwnGtins, check_digit, gtin_14, gtin_fault

_BODIES = st.sampled_from([7, 11, 12, 13]).flatmap(lambda n: st.text("0123456789", min_size=n, max_size=n))


@given(_BODIES)
def test_zeros_in_front_change_neither_the_number_nor_its_check_digit(body: str) -> None:
    gtin = body + check_digit(body)
    assert gtin_fault(gtin) == ""
    for length in (8, 12, 13, 14):
        if length >= len(gtin):
            longer = gtin.zfill(length)
            assert gtin_fault(longer) == "" and gtin_14(longer) == gtin.zfill(14)
            assert OwnGtins([gtin]).of(longer) == gtin and longer in OwnGtins([gtin])


@given(_BODIES, st.data())
def test_a_wrong_digit_is_found(body: str, data: st.DataObject) -> None:
    gtin = body + check_digit(body)
    place = data.draw(st.integers(0, len(gtin) - 1))
    wrong = gtin[:place] + str((int(gtin[place]) + data.draw(st.integers(1, 9))) % 10) + gtin[place + 1 :]
    assert gtin_fault(wrong).startswith("want check digit") and gtin_14(wrong) != gtin_14(gtin)


@given(st.text(max_size=15))
def test_any_text_is_a_gtin_or_has_a_fault(text: str) -> None:
    assert gtin_fault(text) == "" or gtin_fault(text).startswith("want ")
    assert gtin_fault("٤٠٠٦٣٨١٣٣٣٩٣١") != "" and OwnGtins(["96385074"]).of(text) in (None, "96385074")


def test_of_two_spellings_the_first_is_the_stores() -> None:
    own = OwnGtins(["096385074".zfill(13), "96385074"])
    assert own.of("96385074") == "0000096385074" and own.of("4006381333931") is None and 96385074 not in own
