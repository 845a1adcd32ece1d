"""How every feed is doing: what was taken and what was refused, why, and how far its clock is off."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fusion.live.messages import Refused

# Reasons are from small sets; where one holds a name from outside, no more than these are kept apart.
REASONS_MAX = 64
# Sentences that wait to be shown, and characters of what a stream has sent in one.
SENTENCES_MAX, DETAIL_MAX = 16, 200


@dataclass
class Health:
    """State of one feed.

    Attributes:
        name: of the feed, for people.
        state: "connecting", "online", or why there is no connection.
        taken: observations that were made of its messages.
        refused: messages and parts of them that were not used, by reason.
        connections: how often a connection was opened.
        newest_ns: newest time of an observation; 0 before the first.
        sentences: about what was refused, to be shown and removed.
        behind_s: how long after its own time the newest observation came; negative where its clock is ahead.
    """

    name: str
    state: str = "connecting"
    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    newest_ns: int = 0
    behind_s: float = 0.0
    sentences: deque[str] = field(default_factory=lambda: deque(maxlen=SENTENCES_MAX))
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def opened(self) -> None:
        """Note a connection."""
        self.state, self.connections = "online", self.connections + 1

    def accept(self, t_ns: int, arrived_ns: int) -> None:
        """Note an observation and when it came."""
        self.taken += 1
        self.newest_ns = max(self.newest_ns, t_ns)
        self.behind_s = (arrived_ns - t_ns) * 1e-9

    def refuse(self, refused: Refused) -> None:
        """Count what was not used, with a sentence the first time and at every tenfold, so that logs stay short."""
        n = self.count(refused.reason)
        if n == 10 ** (len(str(n)) - 1):
            detail = "" if str(refused) == refused.reason else f": {str(refused)[:DETAIL_MAX]}"
            self.sentences.append(f"{self.name}: {refused.reason}{detail} ({n} so far)")

    def count(self, reason: str, n: int = 1) -> int:
        """Count what was not used, or needs attention, without a sentence, in any thread. Returns how many so far."""
        with self._lock:
            if reason not in self.refused and len(self.refused) >= REASONS_MAX:
                reason = "further reasons"
            self.refused[reason] += n
            return self.refused[reason]

    def line(self) -> str:
        """The state in one line, for people."""
        text = f"{self.name}: {self.state}, {self.taken} taken"
        if self.taken:
            text += f", {self.behind_s:.2f} s behind" if self.behind_s >= 0.0 else f", {-self.behind_s:.2f} s ahead"
        if self.connections > 1:
            text += f", connected {self.connections} times"
        with self._lock:
            most = self.refused.most_common(4)
        return text + (", refused " + ", ".join(f"{reason} {n}" for reason, n in most) if most else "")

    def status(self) -> dict[str, Any]:
        """The state as plain data."""
        with self._lock:
            refused = dict(self.refused)
        return {
            "state": self.state, "taken": self.taken, "refused": refused, "connections": self.connections,
            "newest_ns": self.newest_ns, "behind_s": round(self.behind_s, 3),
        }  # fmt: skip


def metrics_text(health: Mapping[str, Any]) -> bytes:
    """Health of all feeds in the format of Prometheus; extra `serve`."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(_Collector(health["feeds"], health["lost"]))
    return generate_latest(registry)


class _Collector:
    def __init__(self, feeds: Mapping[str, Mapping[str, Any]], lost: Mapping[str, int]) -> None:
        self._feeds, self._lost = feeds, lost

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        up = GaugeMetricFamily("fusion_feed_up", "1 while the feed is connected", labels=["feed"])
        behind = GaugeMetricFamily(
            "fusion_feed_behind_seconds", "age of the newest observation when it came", labels=["feed"]
        )
        taken = CounterMetricFamily("fusion_feed_taken", "observations made of a feed's messages", labels=["feed"])
        opened = CounterMetricFamily("fusion_feed_connections", "connections that were opened", labels=["feed"])
        refused = CounterMetricFamily("fusion_feed_refused", "messages not used", labels=["feed", "reason"])
        for name, feed in self._feeds.items():
            up.add_metric([name], float(feed["state"] == "online"))
            behind.add_metric([name], feed["behind_s"])
            taken.add_metric([name], feed["taken"])
            opened.add_metric([name], feed["connections"])
            for reason, n in feed["refused"].items():
                refused.add_metric([name, reason], n)
        lost = CounterMetricFamily("fusion_feed_lost", "observations that reached no destination", labels=["reason"])
        for reason, n in self._lost.items():
            lost.add_metric([reason], n)
        yield from (up, behind, taken, opened, refused, lost)
