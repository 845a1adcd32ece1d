"""Readers of bytes from elsewhere: samples are read, damaged ones are read or refused by a documented error."""

from __future__ import annotations

import random

import pytest
from fuzz.readers import READERS, Reader

# Inputs to each reader; a search that lasts longer is `bash .ci/fuzz`.
N_DAMAGED = 40
PIECES = (
    b"\x00", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r\n", b'"', b"'", b",", b";", b"{", b"}", b"[", b"]" * 50,
    b"[" * 500, b"-1", b"0", b"1e999", b"-Infinity", b"NaN", b"null", b"true", b"9" * 400, b"1" * 19, b"\x80" * 12,
    b"\\ud800", b"\\u0000", b"=", b'"""', b"\xc3", b"%s", b"../", b"\x1b[2J",
)  # fmt: skip


def damaged(rng: random.Random, seeds: list[bytes]) -> bytes:
    """A sample with some of its bytes changed, cut, repeated, or mixed with those of another."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at, length = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 4, 16, 64))
        match rng.randrange(6):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = rng.choice(PIECES)
            case 3:
                data[at : at + length] = rng.choice(PIECES)
            case 4:
                data[at:at] = data[at : at + length] * rng.choice((1, 2, 30))
            case _:
                other = rng.choice(seeds)
                start = rng.randrange(len(other) + 1)
                data[at:] = other[start : start + 2000]
    return bytes(data)


@pytest.mark.parametrize("reader", READERS.values(), ids=lambda reader: reader.name)
def test_damaged_samples_are_read_or_refused(reader: Reader) -> None:
    seeds = reader.seeds()
    assert any([reader.try_on(seed) for seed in seeds]), "want a sample that is read: damage to others shows nothing"
    rng, outcomes = random.Random(reader.name), list[bool]()
    for data in (b"", *(damaged(rng, seeds) for _ in range(N_DAMAGED))):
        try:
            outcomes.append(reader.try_on(data))
        except Exception as error:
            raise AssertionError(f"{reader.name} fails on {data[:2000]!r}") from error
    # Gaps between words, a row more: some damage does no harm; what refuses everything, or nothing, reads nothing.
    assert reader.name in LENIENT or False in outcomes


# What searches have found, by reader: bytes that once raised an error that is not documented.
FOUND = [
    ("customers_csv", b'account,token,email,member,adult\n"a\rb"c,tok,,no,no\n'),
    ("customers_csv", b"account,token,email,member,adult\r" + b"a" * 200_000 + b",tok,,no,no\r"),
    ("weights_csv", b"\x80time,plate,grams\n1700000000000000000,p1,104\n"),
    ("import_store_toml", b'currency = "EUR"\nin_store_codes = ["20PPPPPVVVVVC"]\n'),
    ("import_store_toml", b'currency = ["EUR"]\n'),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_was_found_is_refused(name: str, data: bytes) -> None:
    assert not READERS[name].try_on(data)


def test_a_damaged_name_of_a_column_in_books_is_refused() -> None:
    (whole,) = READERS["books_sqlite"].seeds()
    end = b"s INTEGER NOT NULL,\n  seal BLOB"
    damaged_name = whole.replace(b"since_n" + end, b"since_\x9a" + end)
    assert damaged_name != whole and not READERS["books_sqlite"].try_on(damaged_name)


# Where nothing is refused: what cannot be used is left out, counted, or answered with no.
LENIENT = {"customers_csv", "engine", "event_stream", "evidence", "gate_code", "link", "scan_log"}
