"""Pauses between tries: they grow while tries fail, and are drawn at random so that many stores do not ask at once."""

from __future__ import annotations

import random

# As long as a customer at a gate would wait before they try again.
FIRST_S = 0.5
LONGEST_S = 60.0
# A server may ask for a longer pause (Retry-After), up to this: an hour without payments is noticed and mended.
ASKED_MAX_S = 3600.0
# 2 ** 20 half seconds are a week; larger powers are never needed.
_DOUBLINGS_MAX = 20


class Pauses:
    """Exponential pauses with jitter: the n-th failure in a row waits first_s * 2 ** n, less up to a half of it."""

    def __init__(
        self, first_s: float = FIRST_S, longest_s: float = LONGEST_S, source: random.Random | None = None
    ) -> None:
        """Begin without failures.

        Args:
            first_s: longest pause after the first failure.
            longest_s: longest pause of all.
            source: of random numbers; the operating system's without it.
        """
        self._first_s, self._longest_s = first_s, longest_s
        self._random = source or random.SystemRandom()
        self._n_failures = 0

    def failed(self, asked_s: float | None = None) -> float:
        """Count a failure; returns the seconds to wait before the next try. `asked_s` is the server's own wish."""
        whole_s = min(self._longest_s, self._first_s * 2.0 ** min(self._n_failures, _DOUBLINGS_MAX))
        self._n_failures += 1
        return max(whole_s * self._random.uniform(0.5, 1.0), min(asked_s or 0.0, ASKED_MAX_S))

    def succeeded(self) -> None:
        """Begin again with the shortest pause."""
        self._n_failures = 0
