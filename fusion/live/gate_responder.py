"""Requests at gates, answered in threads of their own: no person waits behind another gate or a slow provider.

Each gate has one queue for people who want in and one for people who want out. The way out of a shop needs no answer
from anything: it opens while the keeper, the engine, the books or the provider are away, after an outage, for a message
that cannot be decoded and for a gate that the store does not know. A door that opens after payment is decided by the
keeper, as the way in is; only its release opens it without.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import NamedTuple

from fusion.gates.keeper import Decision
from fusion.gates.verifiers import GateRequest
from fusion.live.messages import Command, Decoder, Glimpse, Refused, glimpse
from fusion.observations import GateScan
from fusion.store.models import Store

# Requests that wait for one gate and direction: a person shows a credential again after a few seconds.
REQUESTS_MAX = 64

Decide = Callable[[GateRequest], Decision]


class _Request(NamedTuple):
    """A request as it arrived; `current` unless the broker had kept it during an outage."""

    gate: str
    payload: bytes
    current: bool
    seen: Glimpse


# The requests of one gate and direction, which a thread of their own answers; None ends it.
_Lane = queue.Queue[_Request | None]


class OpenWayOut:
    """The way out that no engine is needed for: it knows the gates' ids, and whether people pay at the door."""

    def __init__(self, store: Store) -> None:
        self._gates = {gate.id: gate for gate in store.gate}
        self._pays_at_door = store.payment.mode == "door"

    def seen(self, gate: str, payload: bytes) -> Glimpse:
        """What a request shows before it is decoded."""
        seen = glimpse(payload)
        known = self._gates.get(gate)
        if seen.asks == "enter" and known is not None and known.direction == "out":
            # This is no way in, so whatever cannot be read asks to get out.
            return seen._replace(asks="leave")
        return seen

    def knows(self, gate: str) -> bool:
        """Whether the store has a gate."""
        return gate in self._gates

    def answer(self, gate: str, seen: Glimpse) -> Command | None:
        """The command that opens, where a request is answered with an open door whatever else is the case."""
        if seen.asks == "release":
            return _command(gate, seen, _RELEASED)
        return _command(gate, seen, _WAY_OUT) if seen.asks == "leave" and not self._pays_at_door else None


class GateResponder:
    """Decodes requests, decides them, and sends the commands.

    Attributes:
        decoder: counts what is missing of the requests.
    """

    def __init__(
        self,
        store: Store,
        decide: Decide | None,
        *,
        send: Callable[[Command], bool],
        admitted: Callable[[GateScan], object],
        refused: Callable[[str, Refused], object],
        unanswered: Callable[[str], object],
    ) -> None:
        """Prepare to answer.

        Args:
            store: whose gates.
            decide: decides a request; without it every way in, and every door that opens after payment, stays closed.
            send: sends a command; False where nothing is connected.
            admitted: called with the scan of a person once the gate has opened for them.
            refused: called with a gate and why its message cannot be used.
            unanswered: called with a gate whose command could not be sent.
        """
        self.decoder = Decoder(store)
        self._decide, self._send, self._admitted = decide, send, admitted
        self._refused, self._unanswered = refused, unanswered
        self._way_out = OpenWayOut(store)
        self._lock = threading.Lock()
        self._lanes: dict[tuple[str, bool], _Lane] = {}
        self._stopped = False

    def put(self, gate: str, payload: bytes, current: bool) -> bool:
        """Queue a request; False where its queue is full. From the network's thread, and never waits."""
        seen = self._way_out.seen(gate, payload)
        request = _Request(gate, payload, current, seen)
        # Gates that the store does not know share a queue, since there is no limit to their names.
        lane = self._lane(gate if self._way_out.knows(gate) else "", seen.asks != "enter")
        if lane is None:
            return False
        try:
            lane.put_nowait(request)
        except queue.Full:
            command = self._way_out.answer(gate, seen)
            if command is None:
                return False
            self._deliver(command)
        return True

    def stop(self) -> None:
        """End all threads after the requests that they answer now; those that wait are not answered."""
        with self._lock:
            self._stopped = True
            lanes = list(self._lanes.values())
        for lane in lanes:
            _drain(lane)
            lane.put(None)

    def _lane(self, gate: str, out: bool) -> _Lane | None:
        with self._lock:
            if self._stopped:
                return None
            lane = self._lanes.get((gate, out))
            if lane is None:
                lane = self._lanes[gate, out] = queue.Queue(REQUESTS_MAX)
                name = f"gate {gate or 'unknown'} {'out' if out else 'in'}"
                threading.Thread(target=self._run, args=(lane,), name=name, daemon=True).start()
            return lane

    def _run(self, lane: _Lane) -> None:
        while (request := lane.get()) is not None:
            self._answer(request)

    # ---- one request -------------------------------------------------------------------------------------------------

    def _answer(self, request: _Request) -> None:
        opens = self._way_out.answer(request.gate, request.seen)
        if opens is not None:
            self._deliver(opens)  # First of all, and before anything that can fail.
        try:
            with self._lock:  # One decoder for all gates.
                asked = self.decoder.request(request.gate, request.payload)
        except Refused as refused:
            self._refused(request.gate, refused)
            if opens is None and refused.reason != "sent again":
                self._deliver(_command(request.gate, request.seen, _UNREADABLE))
            return
        if request.seen.asks == "release":
            # The alarm; a keeper that hangs must not keep the next person at this door.
            threading.Thread(target=self._decision, args=(asked.request,), name="gate released", daemon=True).start()
        if opens is not None:
            return
        decision = self._decision(asked.request) if request.current else _OUTAGE
        seen = Glimpse(asked.request.asks, asked.number, asked.request.t_ns, asked.version)
        if self._deliver(_command(request.gate, seen, decision)) and decision.scan is not None:
            self._admitted(decision.scan)

    def _deliver(self, command: Command) -> bool:
        if self._send(command):
            return True
        self._unanswered(command.gate)
        return False

    def _decision(self, request: GateRequest) -> Decision:
        if self._decide is None:
            return Decision(False, "no keeper decides here", "Please ask the staff")
        try:
            return self._decide(request)
        except Exception as error:
            # The message of an error may repeat the credential, its type does not.
            return Decision(False, f"keeper failed: {type(error).__name__}", "Please ask the staff")


def _command(gate: str, seen: Glimpse, decision: Decision) -> Command:
    """A decision as the answer to a request."""
    return Command(
        v=seen.version, time=seen.t_ns, gate=gate, request=seen.number, open=decision.open, reason=decision.reason,
        display=decision.display, again_s=decision.again_s,
    )  # fmt: skip


_WAY_OUT = Decision(True, "way out", "Goodbye")
_RELEASED = Decision(True, "emergency release", "Door released", released=True)
_UNREADABLE = Decision(False, "request cannot be read", "Please try again")
_OUTAGE = Decision(False, "asked during an outage", "Please try again")


def _drain(lane: _Lane) -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            lane.get_nowait()
