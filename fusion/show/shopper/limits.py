"""How often one caller may try something: counts within a window of time, in memory, bounded."""

from __future__ import annotations

from collections import OrderedDict

KEYS_MAX = 20_000


class Limits:
    """Counts events by key, each within a window that begins with its first event."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        # By key: when the window began, and the events in it.
        self._counted: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def reached(self, key: str, most: int, now_s: float) -> bool:
        """Whether a key has had its events for now."""
        return self._count(key, now_s)[1] >= most

    def add(self, key: str, now_s: float) -> None:
        """Count an event."""
        began_s, n = self._count(key, now_s)
        self._counted.pop(key, None)
        self._counted[key] = (began_s, n + 1)
        while len(self._counted) > KEYS_MAX:
            self._counted.popitem(last=False)

    def take(self, key: str, most: int, now_s: float) -> bool:
        """Count an event, unless the key has had its events. Returns whether it may happen."""
        if self.reached(key, most, now_s):
            return False
        self.add(key, now_s)
        return True

    def _count(self, key: str, now_s: float) -> tuple[float, int]:
        began_s, n = self._counted.get(key, (now_s, 0))
        return (now_s, 0) if now_s - began_s >= self._window_s else (began_s, n)
