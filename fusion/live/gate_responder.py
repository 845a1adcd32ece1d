"""Requests at gates, answered in a thread of their own so that a slow provider delays no sensor's data."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable
from typing import NamedTuple

from fusion.gates.keeper import Decision
from fusion.gates.verifiers import GateRequest
from fusion.live.messages import Command, Decoder, Refused
from fusion.observations import GateScan
from fusion.store.models import Store

REQUESTS_MAX = 64

Decide = Callable[[GateRequest], Decision]


class _Request(NamedTuple):
    """A request as it arrived; `current` unless the broker had kept it during an outage."""

    gate: str
    payload: bytes
    current: bool


class GateResponder:
    """Decodes requests, decides them, and sends the commands."""

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
            decide: decides a request; without it every gate stays closed.
            send: sends a command; False where nothing is connected.
            admitted: called with the scan of a person once the gate has opened for them.
            refused: called with a gate and why its message cannot be used.
            unanswered: called with a gate whose command could not be sent.
        """
        self.decoder = Decoder(store)
        self._decide, self._send, self._admitted = decide, send, admitted
        self._refused, self._unanswered = refused, unanswered
        self._requests: queue.Queue[_Request | None] = queue.Queue(REQUESTS_MAX)

    def put(self, gate: str, payload: bytes, current: bool) -> bool:
        """Queue a request; False where the queue is full. From the network's thread."""
        try:
            self._requests.put_nowait(_Request(gate, payload, current))
        except queue.Full:
            return False
        return True

    def stop(self) -> None:
        """End `run` after the requests that wait."""
        with contextlib.suppress(queue.Full):
            self._requests.put_nowait(None)

    def run(self) -> None:
        """Answer requests until `stop`."""
        while (request := self._requests.get()) is not None:
            self._answer(request)

    def _answer(self, request: _Request) -> None:
        try:
            asked, number = self.decoder.request(request.gate, request.payload)
        except Refused as refused:
            self._refused(request.gate, refused)
            return
        decision = Decision(False, "asked during an outage", "Please try again")
        if request.current:
            decision = self._decision(asked)
        command = Command(
            v=1, time=asked.t_ns, gate=request.gate, request=number, open=decision.open, reason=decision.reason,
            display=decision.display,
        )  # fmt: skip
        if not self._send(command):
            self._unanswered(request.gate)
        elif decision.scan is not None:
            self._admitted(decision.scan)

    def _decision(self, request: GateRequest) -> Decision:
        if self._decide is None:
            return Decision(False, "no keeper decides here", "Please ask the staff")
        try:
            return self._decide(request)
        except Exception as error:
            # The message of an error may repeat the credential, its type does not.
            return Decision(False, f"keeper failed: {type(error).__name__}", "Please ask the staff")
