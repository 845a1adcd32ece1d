"""Sensors and customers of a simulated shop over MQTT, to try a live store out: `python -m fusion.runner.shoppers`.

The store is simulated in real time, from now on. Cameras, scales and readers publish as in a shop; whoever comes in
shows a payment token at the gate, which asks the store and polls for as long as the store asks it to.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from fusion.errors import FusionError, terminal_text
from fusion.gates.verifiers import GateRequest
from fusion.live.connection import Broker, broker_password
from fusion.live.messages import Command
from fusion.live.publisher import Publisher
from fusion.observations import DoorState, Frame, GateScan, ItemSighting, Observation, ShelfReading
from fusion.simulation import Scenario
from fusion.simulation.kinds import simulation_of
from fusion.store.models import Store

# How long a person waits at a gate.
PATIENCE_S = 30.0
# The shop is empty at first: visits in the first seconds of a new store go to review.
EMPTY_S = 20.0
# Of a scenario in which no person comes.
_EMPTY: dict[str, Any] = {"shoppers": 0, "companions": 0, "children": 0, "tailgaters": 0, "staff": 0}
_NAMES = {Frame: "cameras", ShelfReading: "scales", DoorState: "doors", ItemSighting: "readers"}


class Gates:
    """The gates of the shop: ask for each person, and wait for the answer in a thread of its own.

    Attributes:
        answers: how often each reason was given.
    """

    def __init__(self, broker: Broker, store: Store, report: Callable[[str], object]) -> None:
        """Connect in the background. report: takes a line for each person at a gate."""
        self.answers: Counter[str] = Counter()
        self._report, self._commands = report, dict[tuple[str, int], Command]()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._publisher = Publisher(broker, store.id, "gates", on_command=self._take)

    def enter(self, scan: GateScan) -> None:
        """A person shows the token that a payment terminal made of their card."""
        kind = "staff" if scan.credential_type == "staff" else "card"
        token = scan.account or "" if kind == "staff" else f"tok_{scan.account}"
        thread = threading.Thread(target=self._ask, args=(GateRequest(scan.t_ns, scan.gate, kind, token),), daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Wait for everybody at the gates, and disconnect."""
        for thread in self._threads:
            thread.join(2 * PATIENCE_S)
        self._publisher.close()

    def _ask(self, request: GateRequest) -> None:
        until_s = time.monotonic() + PATIENCE_S
        while (command := self._answer(request, until_s)) is not None and command.again_s is not None:
            time.sleep(command.again_s)
        reason = "no answer" if command is None else command.reason
        shown = "" if command is None else f"; the gate shows: {command.display}"
        opens = "opens" if command is not None and command.open else "stays closed"
        self.answers[reason] += 1
        self._report(f"gate {request.gate} {opens}: {reason}{shown}")

    def _answer(self, request: GateRequest, until_s: float) -> Command | None:
        key = (request.gate, self._publisher.ask(request))
        with self._changed:
            self._changed.wait_for(lambda: key in self._commands, max(until_s - time.monotonic(), 0.0))
            return self._commands.pop(key, None)

    def _take(self, command: Command) -> None:
        with self._changed:
            self._commands[command.gate, command.request] = command
            self._changed.notify_all()


def from_now(store: Store, scenario: Scenario, now_ns: int) -> Iterator[Observation]:
    """What the sensors of a simulated shop report, as if it began now, with EMPTY_S before the first person."""
    empty = replace(scenario, minutes=EMPTY_S / 60.0, **_EMPTY)
    for part, begins_ns in ((empty, now_ns), (scenario, now_ns + round(EMPTY_S * 1e9))):
        for observation in simulation_of(store, part).observations():
            yield replace(observation, t_ns=observation.t_ns - part.start_ns + begins_ns)


def publish(store: Store, broker: Broker, scenario: Scenario, report: Callable[[str], object]) -> Counter[str]:
    """Publish a simulated shop in real time. Returns how often the gates gave each answer."""
    publishers = {kind: Publisher(broker, store.id, name) for kind, name in _NAMES.items()}
    gates = Gates(broker, store, report)
    observations = from_now(store, scenario, time.time_ns() + 10**9)
    for t_ns, together in itertools.groupby(observations, lambda observation: observation.t_ns):
        ahead_s = (t_ns - time.time_ns()) / 1e9
        if ahead_s > 0:
            time.sleep(ahead_s)
        for kind, same_kind in itertools.groupby(together, type):
            group = list(same_kind)
            for scan in group:
                if isinstance(scan, GateScan):
                    gates.enter(scan)
            if kind in publishers:
                publishers[kind].publish(*group)
    gates.close()
    for publisher in publishers.values():
        publisher.close(timeout_s=30.0)
    return gates.answers


def main(argv: list[str] | None = None) -> int:
    """Run until the last shopper has left."""
    parser = argparse.ArgumentParser(prog="python -m fusion.runner.shoppers", description=__doc__)
    parser.add_argument("store", help="folder of the store")
    parser.add_argument("--mqtt", required=True, metavar="BROKER", help="HOST:PORT, mqtt://USER@HOST, mqtts://...")
    parser.add_argument("--mqtt-password-file", type=Path, help="holds the password ($FUSION_MQTT_PASSWORD)")
    parser.add_argument("--mqtt-ca", type=Path, help="certificate authorities to trust (the system's)")
    parser.add_argument("--shoppers", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    try:
        store = Store.load(arguments.store)
        broker = Broker.of(arguments.mqtt, broker_password(arguments.mqtt_password_file), arguments.mqtt_ca)
        scenario = Scenario(seed=arguments.seed, minutes=arguments.minutes, shoppers=arguments.shoppers)
        answers = publish(store, broker, scenario, lambda line: print(terminal_text(line), flush=True))
    except (FusionError, ValueError) as error:
        print(f"shoppers: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0 if sum(answers.values()) == answers["welcome"] else 1


if __name__ == "__main__":
    sys.exit(main())
