"""Connections from browsers: how many there may be, and how long a client may take for its request."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from fusion.errors import extra

with extra("console"):
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

# A request is a form or a decision of at most 64 KiB, which takes a second over a bad line.
REQUEST_MAX_S = 10.0
# A client that takes nothing of what waits for it for this long has gone away, or holds the connection on purpose.
TAKING_MAX_S = 30.0
# Fifty open pages with a few connections each; half of the 1024 files that a process may usually open.
CONNECTIONS_MAX = 512


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, for clients that may mean harm.

    A request that is not whole after REQUEST_MAX_S ends its connection, and so does a client that takes nothing of its
    answer for TAKING_MAX_S. Beyond CONNECTIONS_MAX the oldest connection
    without a whole request is ended, of the address that holds most of them, so that a client which fills the table
    displaces itself.

    Attributes:
        since_s: when the client connected, by the loop's clock.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        """As uvicorn calls it."""
        super().__init__(*args, **options)
        self._late: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self.since_s = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > CONNECTIONS_MAX:
            _end_one({one for one in self.connections if isinstance(one, BoundedProtocol) and one.waits_for_request})

    def data_received(self, data: bytes) -> None:
        """A client has sent something."""
        super().data_received(data)
        self._watch()

    def pause_writing(self) -> None:
        """More waits for the client than it takes: as long as it takes nothing at all, its time is counted."""
        super().pause_writing()
        if self._stuck is None:
            self._stuck = self.loop.call_later(TAKING_MAX_S, self.abort)

    def resume_writing(self) -> None:
        """The client has taken most of what waited."""
        self._stop_counting()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._stop_watching()
        self._stop_counting()
        super().connection_lost(exc)

    @property
    def waits_for_request(self) -> bool:
        """Whether the client has yet to send (the rest of) a request."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    @property
    def address(self) -> str:
        """The address of the client, or of the proxy before it."""
        return self.client[0] if self.client else ""

    def abort(self) -> None:
        """End the connection at once."""
        self._stop_watching()
        self.transport.abort()

    def _stop_counting(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def _watch(self) -> None:
        """Begin to count a client's time with its first byte; stop once its request is whole."""
        if not self.waits_for_request:
            self._stop_watching()
        elif self._late is None:
            self._late = self.loop.call_later(REQUEST_MAX_S, self.abort)

    def _stop_watching(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def _end_one(waiting: set[BoundedProtocol]) -> None:
    """End the oldest of these connections, of the address that has most of them."""
    if not waiting:
        return
    held = Counter(one.address for one in waiting)
    most, _ = held.most_common(1)[0]
    min((one for one in waiting if one.address == most), key=lambda one: one.since_s).abort()


__all__ = ["CONNECTIONS_MAX", "REQUEST_MAX_S", "BoundedProtocol"]
