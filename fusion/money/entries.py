"""An entry of the books: its fields, its postings, its canonical bytes, and the hash that chains it.

Amounts are int64 minor units. Debits are positive, credits negative, and the postings of an entry sum to zero in every
currency. The bytes and hashes here are the format of the books: golden vectors in the tests hold them.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fusion.errors import EntryError
from fusion.results import NAME_MAX

FORMAT_VERSION = 1
# Largest amount of one line or receipt, in minor units. SQLite's sums are int64: nine million entries of this size fit.
AMOUNT_MAX = 10**12
# Characters of the longest reason or note; NAME_MAX is that of the longest visit id, account or name.
NOTE_MAX = 2000


class Posting(NamedTuple):
    """One leg of an entry: an amount on an account, debits positive, credits negative."""

    account: str
    currency: str
    amount: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One event in the books. `request` holds the details that the caller passed, under the caller's own names."""

    seq: int
    t_ns: int
    kind: str
    visit: str
    key: str
    request: Mapping[str, Any]
    postings: tuple[Posting, ...]

    def moved(self, account: str) -> int:
        """What the entry posts on an account, minor units of the store's currency."""
        return sum(leg.amount for leg in self.postings if leg.account == account)


class EntryRow(NamedTuple):
    """An entry as the database keeps it; `details` is canonical JSON, `hash` 32 bytes."""

    seq: int
    t_ns: int
    kind: str
    visit: str
    key: str
    details: str
    hash: bytes


class PostingRow(NamedTuple):
    """A posting as the database keeps it: `line` counts the postings of the entry numbered `entry`."""

    entry: int
    line: int
    account: str
    currency: str
    amount: int


# One encoder for all entries, since json.dumps would make one for each.
_ENCODER = json.JSONEncoder(ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, ASCII only.

    Raises:
        TypeError, ValueError: the value has no such text, as NaN has none.
    """
    return _ENCODER.encode(value)


def canonical_bytes(
    seq: int, t_ns: int, kind: str, visit: str, key: str, details: str, postings: Sequence[Posting]
) -> bytes:
    """The bytes of an entry that its hash covers: canonical JSON of integers and text only."""
    return canonical_json([seq, t_ns, kind, visit, key, details, postings]).encode("ascii")


def chained_hash(previous: bytes, entry: bytes) -> bytes:
    """SHA-256 over the predecessor's hash (32 bytes) and an entry's canonical bytes."""
    return hashlib.sha256(previous + entry).digest()


def genesis_hash(store: str, currency: str) -> bytes:
    """The hash that the first entry is chained to: it identifies the books."""
    return hashlib.sha256(canonical_json(["fusion ledger", FORMAT_VERSION, store, currency]).encode("ascii")).digest()


def unbalanced(postings: Iterable[Posting]) -> dict[str, int]:
    """Sum of postings in each currency, where it is not zero."""
    sums: dict[str, int] = {}
    for posting in postings:
        sums[posting.currency] = sums.get(posting.currency, 0) + posting.amount
    return {currency: amount for currency, amount in sums.items() if amount}


# ---- what fits into the books ----------------------------------------------------------------------------------------


def checked_text(name: str, value: object, longest: int = NAME_MAX, shortest: int = 1) -> str:
    """The value if it is text of a permitted length. Raises EntryError with the field's name."""
    if not isinstance(value, str) or not shortest <= len(value) <= longest:
        got = len(value) if isinstance(value, str) else type(value).__name__
        raise EntryError(f"{name}: want {shortest} to {longest} characters, got {got}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise EntryError(f"{name}: want Unicode text, got half a surrogate pair") from None
    return value


def checked_integer(name: str, value: object, low: int, high: int) -> int:
    """The value if it is an integer from low to high. Raises EntryError with the field's name."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise EntryError(f"{name}: want an integer, got {type(value).__name__}") from None
    if not low <= number <= high:
        raise EntryError(f"{name}: want {low} to {high}, got {number}")
    return number


def checked_instant(name: str, value: object) -> int:
    """The value if it is an instant: int64 nanoseconds. Raises EntryError with the field's name."""
    return checked_integer(name, value, -(2**63), 2**63 - 1)
