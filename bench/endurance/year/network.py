"""What lies between the sensors of a simulated shop and its store: it loses, delays, doubles, cuts and damages."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from fusion.live.messages import Decoder, Mark, Refused, frame_payload, weights_payload
from fusion.observations import Frame, GateScan, Observation, ShelfReading
from fusion.store.models import Store

S = 10**9
KINDS = ("cut", "slow", "doubled", "damaged", "clock", "hostile")
# A message may come two seconds late and counts; a slow network comes close to that and beyond it.
SLOW_MAX_S = 2.5
CLOCK_MAX_S = 0.4


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong between sensors and store.

    Attributes:
        kind: one of KINDS. since_ns, until_ns: data time.
        subject: a camera or a plate; "" for all sensors.
        size: seconds, where the kind has an amount.
    """

    kind: str
    since_ns: int
    until_ns: int
    subject: str = ""
    size: float = 0.0


def drawn_faults(rng: random.Random, store: Store, begin_ns: int, end_ns: int, n: int) -> list[Fault]:
    """Faults of a day, each of a random kind, sensor and time."""
    subjects = [*(camera.name for camera in store.cameras), *(plate.plate for plate in store.plates)]
    faults = []
    for _ in range(n):
        kind = rng.choice(KINDS)
        since_ns = rng.randrange(begin_ns, end_ns)
        until_ns = since_ns + round(rng.expovariate(1 / 4.0) * S)
        subject = "" if rng.random() < 0.15 else rng.choice(subjects)
        size = rng.uniform(-CLOCK_MAX_S, CLOCK_MAX_S) if kind == "clock" else rng.uniform(0.2, SLOW_MAX_S)
        faults.append(Fault(kind, since_ns, until_ns, subject, size))
    return faults


def arriving(
    observations: Iterable[Observation], faults: list[Fault], store: Store, rng: random.Random,
    reached: Callable[[str], object],
) -> Iterator[tuple[int, Observation]]:  # fmt: skip
    """Observations as they arrive: data time of the arrival, and what arrives; scans go their own way, undisturbed.

    A message that is damaged is what the store's decoder makes of its bytes, which is nothing where it refuses them.
    """
    waiting: list[tuple[int, int, Observation]] = []
    damage, number = _Damage(store, rng, reached), itertools.count()
    for observation in observations:
        while waiting and waiting[0][0] <= observation.t_ns:
            arrival_ns, _, late = heapq.heappop(waiting)
            yield arrival_ns, late
        arrival_ns, copies = observation.t_ns, [observation]
        if not isinstance(observation, GateScan):
            source = observation.camera if isinstance(observation, Frame) else getattr(observation, "plate", "")
            for fault in faults:
                if fault.since_ns <= observation.t_ns < fault.until_ns and fault.subject in ("", source):
                    copies, delay_ns = _suffered(fault, copies, damage, rng)
                    arrival_ns += delay_ns
                    reached(f"network: {fault.kind}")
        for copy in copies:
            heapq.heappush(waiting, (arrival_ns, next(number), copy))
    while waiting:
        arrival_ns, _, late = heapq.heappop(waiting)
        yield arrival_ns, late


def _suffered(
    fault: Fault, copies: list[Observation], damage: _Damage, rng: random.Random
) -> tuple[list[Observation], int]:
    """What a fault makes of an observation, and by how many nanoseconds it delays it."""
    match fault.kind:
        case "cut":
            return [], 0
        case "slow":
            return copies, round(rng.random() * fault.size * S)
        case "doubled":
            return [*copies, *copies], 0
        case "damaged":
            return [hurt for copy in copies for hurt in damage.of(copy)], 0
        case "clock":
            return [replace(copy, t_ns=copy.t_ns + round(fault.size * S)) for copy in copies], 0
        case _:
            return [*copies, *(damage.hostile(copy) for copy in copies)], 0


class _Damage:
    """Messages whose bytes were changed under way, and messages of whoever can publish."""

    def __init__(self, store: Store, rng: random.Random, reached: Callable[[str], object]) -> None:
        self._store, self._rng, self._reached = store, rng, reached
        self._decoder, self._sequence = Decoder(store), 0

    def of(self, observation: Observation) -> list[Observation]:
        """What the decoder makes of an observation whose message lost or changed some bytes."""
        self._sequence += 1
        mark = Mark(1, self._sequence)
        if isinstance(observation, Frame):
            levels, payload = ("detections", observation.camera), bytearray(frame_payload(observation, mark))
        elif isinstance(observation, ShelfReading):
            levels, payload = ("weights", "damaged"), bytearray(weights_payload([observation], mark))
        else:
            return [observation]
        for _ in range(self._rng.randrange(1, 4)):
            payload[self._rng.randrange(len(payload))] = self._rng.randrange(256)
        if self._rng.random() < 0.3:
            del payload[self._rng.randrange(len(payload)) :]
        try:
            return self._decoder.observations(levels, bytes(payload))
        except Refused:
            self._reached("a damaged message was refused")
            return []

    def hostile(self, observation: Observation) -> Observation:
        """What no sensor sends: another time, nonsense in place of figures."""
        match observation, self._rng.randrange(4):
            case Frame(), 0:
                wild = np.full_like(observation.keypoints, self._rng.choice([np.nan, np.inf, 1e30, -1e30]))
                return replace(observation, keypoints=wild)
            case ShelfReading(), 0:
                wild = np.full_like(observation.samples, self._rng.choice([np.nan, np.inf, 1e30, -1e30]))
                return replace(observation, samples=wild)
            case _, 1:
                return replace(observation, t_ns=observation.t_ns + self._rng.randrange(10**6) * S)
            case _, 2:
                return replace(observation, t_ns=self._rng.randrange(observation.t_ns))
            case _:
                return observation
