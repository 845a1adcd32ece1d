"""SGTINs against another implementation, and the example of the standard."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.feeds.sgtin import gtin14_of
from fusion.live.messages import Refused
from fusion.store.gtin import check_digit


def test_the_standards_example() -> None:
    # EPC Tag Data Standard, section E.3: GTIN 80614141123458, serial 6789.
    assert gtin14_of(bytes.fromhex("3074257bf7194e4000001a85")) == "80614141123458"


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_every_gtin_is_decoded_as_another_implementation_encoded_it(data: st.DataObject) -> None:
    scheme = pytest.importorskip("epcpy.epc_schemes.sgtin", reason="pip install epcpy")
    body = data.draw(st.text("0123456789", min_size=13, max_size=13))
    gtin = body + check_digit(body)
    n_prefix = data.draw(st.integers(6, 12))
    form = data.draw(st.sampled_from(["SGTIN_96", "SGTIN_198"]))
    serials = st.integers(0, 2**38 - 1) if form == "SGTIN_96" else st.text("AZaz09", min_size=1, max_size=20)
    serial = data.draw(serials)
    tag = scheme.SGTIN(f"urn:epc:id:sgtin:{gtin[1 : 1 + n_prefix]}.{gtin[0]}{gtin[1 + n_prefix : 13]}.{serial}")
    filter_value = data.draw(st.sampled_from(list(scheme.SGTINFilterValue)))
    binary = tag.binary(getattr(scheme.SGTIN.BinaryCodingScheme, form), filter_value)
    n_bytes = (len(binary) + 7) // 8 + data.draw(st.integers(0, 2))  # Readers pad.
    assert gtin14_of(int(binary.ljust(8 * n_bytes, "0"), 2).to_bytes(n_bytes, "big")) == gtin


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=30))
def test_any_bytes_are_a_gtin_or_refused(data: bytes) -> None:
    for epc in (data, b"\x30" + data, b"\x36" + data):
        try:
            gtin = gtin14_of(epc)
        except Refused as refused:
            assert refused.reason in ("tag without SGTIN", "malformed tag")
        else:
            assert len(gtin) == 14 and check_digit(gtin[:-1]) == gtin[-1]
