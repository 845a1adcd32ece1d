"""Payment card numbers, recognised in any spelling so that they are refused wherever text comes in.

Card numbers have no place in this system: terminals send payment tokens. Every text that comes from outside is examined
before anything keeps or repeats it.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import accumulate
from urllib.parse import unquote

# Payment card numbers have 12 to 19 digits. Source: ISO/IEC 7812-1.
_LENGTHS = range(12, 20)
# First digits that issuers of payment cards have, and the lengths of their numbers. Source: ISO/IEC 7812-1 (IIN), and
# the ranges that Visa, Mastercard, American Express, Discover, Diners Club, JCB, UnionPay, Maestro, Mir, RuPay, Troy
# and UATP publish.
_ISSUERS: tuple[tuple[range, int, frozenset[int]], ...] = (
    (range(4, 5), 1, frozenset({13, 16, 19})),
    (range(51, 56), 2, frozenset({16})),
    (range(2221, 2721), 4, frozenset({16})),
    (range(34, 35), 2, frozenset({15})),
    (range(37, 38), 2, frozenset({15})),
    (range(30, 31), 2, frozenset(range(14, 20))),
    (range(36, 37), 2, frozenset(range(14, 20))),
    (range(38, 40), 2, frozenset(range(14, 20))),
    (range(35, 36), 2, frozenset(range(16, 20))),
    (range(50, 51), 2, frozenset(_LENGTHS)),
    (range(56, 59), 2, frozenset(_LENGTHS)),
    (range(6, 7), 1, frozenset(_LENGTHS)),
    (range(81, 83), 2, frozenset(range(16, 20))),
    (range(2200, 2205), 4, frozenset(range(16, 20))),
    (range(9792, 9793), 4, frozenset({16})),
    (range(1, 2), 1, frozenset({15})),
)
# Digits with anything but letters between them.
_RUN = re.compile(r"\d(?:[\W_]*\d){11,}")
# With letters between them only as people and programs group a card's digits: one by one behind the same text, or in
# the groups that are printed on cards. Codes and keys in base64 hold digits and letters in any order.
_SPELT = re.compile(r"\d(?P<between>\D{1,8})\d(?:(?P=between)\d){10,}")
_GROUPED = re.compile(
    r"(?<!\d)(?:\d{4}(?:\D{1,8}\d{4}){2}(?:\D{1,8}\d{1,4}){1,2}|\d{4}\D{1,8}\d{6}\D{1,8}\d{4,5})(?!\d)"
)
# Groups of more digits than a number has may begin with a number and continue with something else; shorter ones only
# with the month and year of an expiry, since accounts of 17 to 19 digits are common.
_JOINED_MIN, _CUT = 17, range(14, 17)
_EXPIRY = re.compile(r"(?:0[1-9]|1[0-2])\d\d|\d\d(?:0[1-9]|1[0-2])")
_REPLACEMENT = "(digits that look like a card number)"


def looks_like_card_number(text: str) -> bool:
    """Whether a text contains a payment card number, in any script, with or without separators.

    Always True for the number of a known issuer with a valid check digit; also True for some other numbers, one in
    thirty of 13 digits, one in ten of 19.
    """
    spellings = (text, unquote(text)) if "%" in text else (text,)
    return any(map(_holds_number, spellings))


def without_card_number(text: str) -> str:
    """The text with a remark in place of the digits of a card number; for messages that repeat what came in."""
    if not looks_like_card_number(text):
        return text
    shown = _plain(text)
    for form in (_RUN, _SPELT, _GROUPED):
        shown = form.sub(_REPLACEMENT, shown)
    return _REPLACEMENT if looks_like_card_number(shown) else shown


def _plain(text: str) -> str:
    if text.isascii():
        return text
    # Characters without width hide nothing from a person who reads the number back.
    return "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")


def _holds_number(text: str) -> bool:
    plain = _plain(text)
    for run in _RUN.finditer(plain):
        if _neighbours_are_number(re.findall(r"\d+", run[0])):
            return True
    return any(_is_number(_ascii(match[0])) for form in (_SPELT, _GROUPED) for match in form.finditer(plain))


def _ascii(text: str) -> str:
    """The digits of a text, in whatever script."""
    return "".join(str(unicodedata.digit(c)) for c in text if c.isdecimal())


def _is_number(digits: str) -> bool:
    """Whether some digits from the first on are a card number; more may follow."""
    return any(_neighbours_are_number([digits[:n]]) for n in _LENGTHS if n <= len(digits))


def _neighbours_are_number(groups: list[str]) -> bool:
    """Whether neighbouring groups of digits, joined, are a card number; it may stand between other numbers."""
    joined = "".join(groups)
    digits = joined if joined.isascii() else _ascii(joined)
    values = list(map(int, digits))
    # Luhn's check (ISO/IEC 7812-1, annex B) of any part of the digits is a difference of two sums: every second digit
    # counts double, from the last but one backwards, so one sum doubles the digits at even places, one those at odd.
    doubled = [2 * value - 9 if value > 4 else 2 * value for value in values]
    even = list(accumulate((d if i % 2 == 0 else v for i, (v, d) in enumerate(zip(values, doubled))), initial=0))
    odd = list(accumulate((d if i % 2 else v for i, (v, d) in enumerate(zip(values, doubled))), initial=0))
    starts, ends = set(), set()
    cut: dict[int, int] = {}  # where a long group begins, and where it ends
    place = 0
    for group in groups:
        starts.add(place)
        if len(group) >= _JOINED_MIN:
            # Zeros may fill it up from the left.
            first = place + len(group) - len(group.lstrip("0"))
            starts.add(first)
            cut[first] = place + len(group)
        place += len(group)
        ends.add(place)
    for start in sorted(starts):
        for end in range(start + _LENGTHS.start, min(start + _LENGTHS.stop, len(digits) + 1)):
            if end not in ends and not (start in cut and _may_be_cut(digits[start : cut[start]], end - start)):
                continue
            sums = even if end % 2 == 0 else odd
            if (sums[end] - sums[start]) % 10 == 0 and _has_issuer(digits[start:end]):
                return True
    return False


def _may_be_cut(group: str, n_digits: int) -> bool:
    """Whether the first of a long group of digits may be a number by themselves."""
    rest = group[n_digits:]
    return n_digits in _CUT and (len(group) not in _LENGTHS or _EXPIRY.fullmatch(rest) is not None)


def _has_issuer(digits: str) -> bool:
    n_digits, first = len(digits), int(digits[:4])
    return any(first // 10 ** (4 - n) in prefixes and n_digits in lengths for prefixes, n, lengths in _ISSUERS)
