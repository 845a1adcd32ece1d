"""A store's streams as a bystander hears them: nothing is answered, acknowledged to publishers or held back."""

from __future__ import annotations

import queue
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from urllib.parse import unquote

from fusion.errors import FusionError
from fusion.live.clock import SYSTEM_CLOCK, Clock
from fusion.live.connection import Broker, Connection, NoConnection
from fusion.live.messages import Decoder, Refused, topic_of
from fusion.observations import Observation
from fusion.store.models import Store

# Messages between the network and the iteration; more than a store sends in some seconds.
QUEUE_MAX = 32_768
# Reasons with a name in them that are kept apart.
REASONS_MAX = 64
_KINDS = ("detections", "weights", "gates", "items")


class Watch:
    """The observations of a running store, for some seconds, beside the engine that serves it.

    Attributes:
        refused: messages that could not be used, by reason.
    """

    def __init__(self, broker: Broker, store: Store, seconds: float, *, clock: Clock = SYSTEM_CLOCK) -> None:
        """Watch a store for some seconds of the machine's clock, from the connection on."""
        self.refused: Counter[str] = Counter()
        self._broker, self._store, self._seconds, self._clock = broker, store, seconds, clock
        self._prefix = topic_of(store.id) + "/"
        self._queue: queue.Queue[tuple[str, bytes]] = queue.Queue(QUEUE_MAX)

    def __iter__(self) -> Iterator[Observation]:
        """Observations as they arrive. Raises FusionError where the broker cannot be reached or refuses."""
        decoder = Decoder(self._store)
        # The will is beside the store's topics, so that the engine never hears of a bystander.
        connection = Connection(
            self._broker, f"fusion-watch-{secrets.token_hex(4)}", clean=True,
            will=(f"fusion-watch/{self._store.id}", b""), on_message=self._received, wake=threading.Event(),
        )  # fmt: skip
        try:
            connection.open([f"{self._prefix}{kind}/#" for kind in _KINDS])
        except NoConnection as error:
            raise FusionError(str(error)) from None
        end_s = self._clock.monotonic_s() + self._seconds
        try:
            while (left_s := end_s - self._clock.monotonic_s()) > 0.0 and not connection.lost.is_set():
                try:
                    topic, payload = self._queue.get(timeout=min(left_s, 0.5))
                except queue.Empty:
                    continue
                yield from self._decoded(decoder, topic, payload)
        finally:
            connection.close()

    def _received(self, topic: str, payload: bytes, retained: bool) -> None:
        """In the network's thread."""
        if not retained:
            try:
                self._queue.put_nowait((topic, payload))
            except queue.Full:
                self.refused["queue full"] += 1

    def _decoded(self, decoder: Decoder, topic: str, payload: bytes) -> list[Observation]:
        levels = tuple(unquote(level) for level in topic.removeprefix(self._prefix).split("/"))
        if levels[0] == "gates" and levels[-1] != "scan":
            return []
        try:
            observations = decoder.observations(levels, payload)
        except Refused as refused:
            self.refused[f"{levels[0]}: {refused.reason}"] += 1
            return []
        for plate in decoder.take_unknown_plates():
            named = len(self.refused) < REASONS_MAX
            self.refused[f"weights: unknown plate {plate[:60]}" if named else "weights: further unknown plates"] += 1
        return observations
