"""The way out of a store, answered apart from its engine: it opens while the store's process is dead or restarting.

It has a connection of its own, knows nothing but the gates' ids, and answers only what is answered with an open door in
any case. The store's process answers too; a gate takes whichever command comes first. Extra `mqtt`.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from urllib.parse import unquote

from fusion.live.clock import SYSTEM_CLOCK, Clock
from fusion.live.connection import TIMING, Broker, Connection, Timing, keep_connected
from fusion.live.gate_responder import OpenWayOut
from fusion.live.messages import VERSION, Command, topic_of
from fusion.store.models import Store

# Name under which its state is published, like that of any publisher; the engine reports it when it is lost.
NAME = "way out"
# Commands that wait for the network; more would answer people who have gone.
WAITING_MAX = 1024


class WayOut:
    """Answers requests to leave one store, in two threads of its own, until it is closed."""

    def __init__(self, broker: Broker, store: Store, *, timing: Timing = TIMING, clock: Clock = SYSTEM_CLOCK) -> None:
        """Connect in the background, and again whenever the connection is lost.

        Raises:
            ConfigError: the certificates cannot be used.
            FusionError: the extra `mqtt` is missing.
        """
        self._broker, self._store_id, self._clock = broker, store.id, clock
        self._way_out = OpenWayOut(store)
        self._prefix = topic_of(store.id, "gates") + "/"
        self._topics = [f"{self._prefix}+/request"]
        self._status_topic = topic_of(store.id, "status", NAME)
        self._commands: queue.Queue[Command] = queue.Queue(WAITING_MAX)
        self._closing, self._wake = threading.Event(), threading.Event()
        self._connection()  # A missing package or a wrong file is reported here, not in the thread.
        self._thread = threading.Thread(
            target=keep_connected,
            args=(self._connection, self._topics, self._serve, lambda reason, refused: None, self._closing),
            kwargs={"timing": timing, "clock": clock},
            name=f"way out {store.id}",
            daemon=True,
        )
        self._thread.start()

    def adopt(self, store: Store) -> None:
        """Use the gates of a changed store from now on."""
        self._way_out = OpenWayOut(store)

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)

    def _connection(self) -> Connection:
        return Connection(
            self._broker,
            f"fusion-{self._store_id}-way-out",
            clean=True,  # Who asked during an outage was let out by the gate itself.
            will=(self._status_topic, _status("lost")),
            on_message=self._received,
            wake=self._wake,
        )

    def _received(self, topic: str, payload: bytes, retained: bool) -> None:
        """In the network's thread."""
        if retained:
            return
        gate = unquote(topic.removeprefix(self._prefix).removesuffix("/request"))
        command = self._way_out.answer(gate, self._way_out.seen(gate, payload))
        if command is not None:
            with contextlib.suppress(queue.Empty):
                if self._commands.full():
                    self._commands.get_nowait()  # The newest request is that of a person who still stands there.
            self._commands.put_nowait(command)
            self._wake.set()

    def _serve(self, connection: Connection) -> None:
        connection.publish(self._status_topic, _status("online"), retain=True)
        while not connection.lost.is_set() and not self._closing.is_set():
            while not self._commands.empty():
                command = self._commands.get_nowait()
                connection.publish(topic_of(self._store_id, "gates", command.gate, "command"), command.payload())
            self._clock.wait(self._wake, 1.0)
            self._wake.clear()
            connection.acknowledged.clear()
        connection.part(self._status_topic)


def _status(state: str) -> bytes:
    """Its state as that of a publisher that keeps nothing: an engine that starts must not wait for it."""
    return json.dumps({"v": VERSION, "state": state}).encode()
