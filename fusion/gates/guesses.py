"""Limits on guessing: after some unknown credentials, a gate's reader pauses before it looks at the next one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# One unknown credential is forgiven in this time: people show a wrong badge now and then.
FORGIVEN_S = 60.0


class _Tries:
    """Unknown credentials of one kind at one gate: how many count now, and how many there were."""

    def __init__(self, now_s: float) -> None:
        self.level, self.since_s, self.paused_until_s, self.total = 0.0, now_s, now_s, 0


class Guesses:
    """Counts unknown credentials by gate and kind. May be used from several threads.

    Each one beyond a number doubles the pause, up to a limit. A good credential forgives nothing: who has one could
    guess another between its uses.
    """

    def __init__(
        self, free: int, pause_s: float, pause_max_s: float, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Limit guesses.

        Args:
            free: unknown credentials that cost nothing.
            pause_s: the first pause.
            pause_max_s: the longest.
            monotonic_s: seconds since an arbitrary instant.
        """
        self._free, self._pause_s, self._pause_max_s, self._monotonic_s = free, pause_s, pause_max_s, monotonic_s
        self._lock = threading.Lock()
        self._tries: dict[tuple[str, str], _Tries] = {}

    def pause_s(self, gate: str, kind: str) -> float:
        """How long credentials of a kind are not looked at yet; 0 where they are."""
        with self._lock:
            tries = self._tries.get((gate, kind))
            return 0.0 if tries is None else max(tries.paused_until_s - self._monotonic_s(), 0.0)

    def missed(self, gate: str, kind: str) -> int:
        """Count an unknown credential. Returns how many there were so far if a pause follows, otherwise 0."""
        now_s = self._monotonic_s()
        with self._lock:
            tries = self._tries.setdefault((gate, kind), _Tries(now_s))
            tries.level = max(tries.level - (now_s - tries.since_s) / FORGIVEN_S, 0.0) + 1.0
            tries.since_s = now_s
            tries.total += 1
            excess = tries.level - self._free
            if excess <= 0.0:
                return 0
            # 2 to a power that cannot overflow.
            tries.paused_until_s = now_s + min(self._pause_s * 2.0 ** min(excess - 1.0, 60.0), self._pause_max_s)
            return tries.total
