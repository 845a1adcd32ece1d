"""Signed links: one purpose, one store, one spelling, a limited life; anything else signs no one in."""

from __future__ import annotations

import base64
import hmac
import struct
from typing import get_args

import pytest

from fusion.money.links import LIFETIME_S, TOKEN_MAX, Link, LinkPurpose, Links, store_links
from fusion.results import NAME_MAX

KEY, APP_KEY, NOW_S = b"k" * 32, b"a" * 32, 1_772_528_646
NONCE = bytes(range(16))


def links(store: str = "shop", url: str = "", key: bytes = KEY) -> Links:
    return Links({"account": key, "visit": key}, store, url, lambda: NONCE)


def signed(payload: bytes, key: bytes = KEY) -> str:
    """A token around any payload, as the module's docstring describes it."""
    mac = hmac.digest(key, b"fusion link 1\n" + payload, "sha256")
    return "L1" + base64.urlsafe_b64encode(payload + mac).decode().rstrip("=")


def payload(until_s: int, purpose: bytes = b"account", store: bytes = b"shop", subject: bytes = b"ann") -> bytes:
    return struct.pack(">q16sBB", until_s, NONCE, len(purpose), len(store)) + purpose + store + subject


def test_a_token_is_what_its_description_says_and_comes_back() -> None:
    token = links().token("account", "ann", NOW_S)
    assert token == signed(payload(NOW_S + 15 * 60))
    assert links().read(token, NOW_S) == Link("account", "ann", NOW_S + 900, NONCE, expired=False)
    assert links(url="https://my.shop.example/").link("account", "ann", NOW_S) == f"https://my.shop.example/in#{token}"
    assert links().link("account", "ann", NOW_S) == token


def test_each_purpose_has_its_life() -> None:
    assert LIFETIME_S == {"account": 900, "app": 600, "visit": 2_592_000, "door": 300}
    assert set(LIFETIME_S) == set(get_args(LinkPurpose))
    of_store = store_links(KEY, "shop", "", APP_KEY)
    for purpose in get_args(LinkPurpose):
        found = of_store.read(of_store.token(purpose, "ann", NOW_S), NOW_S)
        assert found is not None and (found.purpose, found.until_s) == (purpose, NOW_S + LIFETIME_S[purpose])


def test_a_link_expires_after_its_last_second() -> None:
    token = links().token("visit", "v1", NOW_S)
    until_s = NOW_S + LIFETIME_S["visit"]
    states = [links().read(token, now_s) for now_s in (until_s, until_s + 0.5)]
    assert [state is not None and state.expired for state in states] == [False, True]


def test_a_link_that_lives_longer_than_its_purpose_may_is_none() -> None:
    """A signer whose clock is ahead by at most five seconds is believed."""
    longest = NOW_S + LIFETIME_S["account"] + 5
    assert links().read(signed(payload(longest)), NOW_S) is not None
    assert links().read(signed(payload(longest + 1)), NOW_S) is None


def test_the_app_signs_with_its_own_key_and_only_where_there_is_one() -> None:
    with_app, without = store_links(KEY, "shop", "", APP_KEY), store_links(KEY, "shop", "")
    token = with_app.token("app", "ann", NOW_S)
    assert token == signed(with_app_payload(with_app, token), APP_KEY)
    assert with_app.read(token, NOW_S) is not None and without.read(token, NOW_S) is None
    forged = signed(with_app_payload(with_app, token), KEY)
    assert with_app.read(forged, NOW_S) is None
    with pytest.raises(ValueError, match="purpose: want one of account, visit, door, got app"):
        without.token("app", "ann", NOW_S)


def with_app_payload(made: Links, token: str) -> bytes:
    return base64.urlsafe_b64decode(token[2:] + "=" * (-len(token[2:]) % 4))[:-32]


@pytest.mark.parametrize(
    "token",
    [
        "",
        "L1",
        "L1AAAA",
        "L1ä" + "A" * 100,
        "L1" + "A" * 75,  # as short as a head and a signature without anything between
        signed(payload(NOW_S + 900), b"x" * 32),
        signed(payload(NOW_S + 900, store=b"another")),
        signed(payload(NOW_S + 900, purpose=b"door")),
        signed(payload(NOW_S + 900, purpose=b"acc\xffunt")),
        signed(payload(NOW_S + 900, subject=b"\xff")),
        signed(payload(NOW_S + 900)) + "=",
        signed(payload(NOW_S + 900)).replace("L1", "L2"),
        signed(payload(NOW_S + 900))[2:],
        signed(payload(NOW_S + 900)) + "\n",
    ],
)
def test_what_was_not_signed_for_this_store_is_none(token: str) -> None:
    assert links().read(token, NOW_S) is None


def test_each_bit_counts() -> None:
    token = links().token("account", "ann", NOW_S)
    raw = base64.urlsafe_b64decode(token[2:] + "=" * (-len(token[2:]) % 4))
    for bit in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        assert links().read("L1" + base64.urlsafe_b64encode(changed).decode().rstrip("="), NOW_S) is None


def test_subjects_have_a_length_and_tokens_too() -> None:
    for subject in ("", "x" * (NAME_MAX + 1)):
        with pytest.raises(ValueError, match=f"subject: want 1 to {NAME_MAX} characters, got {len(subject)}"):
            links().token("account", subject, NOW_S)
    longest = links().token("account", "x" * NAME_MAX, NOW_S)
    found = links().read(longest, NOW_S)
    assert found is not None and found.subject == "x" * NAME_MAX
    fits = signed(payload(NOW_S + 900, subject=b"s" * 679))
    assert len(fits) == TOKEN_MAX and links().read(fits, NOW_S) is not None
    assert links().read(signed(payload(NOW_S + 900, subject=b"s" * 680)), NOW_S) is None
