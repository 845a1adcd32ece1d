"""Payment cards at the gate: numbers are recognised and refused, a terminal's tokens are accepted.

Card numbers have no place in this system: terminals send payment tokens. Every text that comes from outside is examined
with `looks_like_card_number` before anything else sees it.
"""

from __future__ import annotations

import re
import unicodedata

from fusion.gates.verifiers import GateRequest, Refused, Verified, Verifier

# Payment card numbers have 12 to 19 digits. Source: ISO/IEC 7812-1.
_CARD_DIGITS = range(12, 20)
# Digits with at most a few blanks or dashes between them, as people write card numbers.
_DIGIT_RUN = re.compile(r"\d(?:[\s\-]{0,3}\d){11,}")
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-")


def looks_like_card_number(text: str) -> bool:
    """Whether a text contains 12 to 19 digits with a valid check digit, in any script, with or without separators.

    Always True for a payment card number; also True for one in ten other numbers of this length.
    """
    plain = unicodedata.normalize("NFKC", text).translate(_DASHES)
    # Characters without width hide nothing from a person who reads the number back.
    plain = "".join(c for c in plain if unicodedata.category(c) != "Cf")
    for run in _DIGIT_RUN.finditer(plain):
        groups = ["".join(str(unicodedata.digit(d)) for d in part) for part in re.findall(r"\d+", run[0])]
        if _any_neighbours_are_card(groups):
            return True
    return False


def _any_neighbours_are_card(groups: list[str]) -> bool:
    # The number may stand between others, such as an expiry date, so any neighbouring groups are joined.
    for first in range(len(groups)):
        digits = ""
        for group in groups[first:]:
            digits += group
            if len(digits) > _CARD_DIGITS.stop:
                break
            if len(digits) in _CARD_DIGITS and _has_check_digit(digits):
                return True
    return False


def _has_check_digit(digits: str) -> bool:
    """Luhn's check. Source: ISO/IEC 7812-1, annex B."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


class CardTerminal(Verifier):
    """Admits payment cards: the terminal sends a token for the card, never its number.

    The token is the account, since nothing else is known about the customer; `Pseudonyms` authorises before the gate
    opens.
    """

    def __init__(self, prefix: str = "tok_") -> None:
        """Accept tokens that begin with `prefix`, as the terminal's do, so that nothing else passes for one."""
        self._prefix = prefix

    def verify(self, request: GateRequest) -> Verified | Refused:
        """Whether the request holds a token of the terminal."""
        if not request.token.startswith(self._prefix) or not 8 <= len(request.token) <= 255:
            return Refused("not a payment token", "Please try again")
        return Verified(request.token, token=request.token)
