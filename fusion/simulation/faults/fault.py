"""A fault, the run that it strikes, and the scene in which it looks for its occasions."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fusion.observations import DoorState, Frame, GateScan, Observation, ShelfReading
from fusion.simulation.goods import ShelfMap
from fusion.simulation.run import Simulation
from fusion.simulation.scenario import Scenario
from fusion.simulation.truth import EventTruth, Truth, VisitTruth
from fusion.store.models import Store

# A plate bears part of a load where its level changes by at least this share of the piece's weight.
_BEARS_SHARE = 0.15
# The level before and after an event is the median over this long, this far from it: a load settles within 0.75 s.
_LEVEL_S, _SETTLED_S = 1.0, 0.9

Windows = dict[str, list[tuple[int, int]]]
Changed = TypeVar("Changed", Frame, ShelfReading)


class Part(StrEnum):
    """The part of a store that a fault strikes, which a warning names where it names no single sensor."""

    SCALES = "scales"
    CAMERAS = "cameras"
    CLOCKS = "clocks"
    GATES = "gates"


@dataclass(frozen=True)
class Run:
    """A run of a store: what its sensors reported, in the order of arrival, and what really happened."""

    store: Store
    observations: tuple[Observation, ...]
    truth: Truth

    @classmethod
    def of(cls, store: Store, scenario: Scenario) -> Run:
        """Simulate a run."""
        simulation = Simulation(store, scenario)
        return cls(store, tuple(simulation.observations()), simulation.truth)


@dataclass(frozen=True)
class Broken:
    """What arrives from broken sensors.

    Attributes:
        observations: in the order of arrival; their times may be in any order.
        sensors: names of the plates, cameras and gates whose data were changed.
    """

    observations: list[Observation]
    sensors: frozenset[str]


class Scene:
    """A run as a fault looks at it.

    Attributes:
        store, observations, truth: of the run.
        random: seeded; the fault's only source of chance.
        sensors: filled by the fault with the names of those that it changed.
    """

    def __init__(self, run: Run, random: np.random.Generator) -> None:
        self.store, self.observations, self.truth = run.store, run.observations, run.truth
        self.random = random
        self.sensors: set[str] = set()

    @cached_property
    def start_ns(self) -> int:
        """The first time."""
        return min(observation.t_ns for observation in self.observations)

    @cached_property
    def end_ns(self) -> int:
        """The last time."""
        return max(observation.t_ns for observation in self.observations)

    @property
    def middle_ns(self) -> int:
        """Half-way through the run."""
        return (self.start_ns + self.end_ns) // 2

    @cached_property
    def cameras(self) -> list[str]:
        """Names of all cameras, in the order of the store."""
        return [camera.name for camera in self.store.cameras]

    @cached_property
    def plates(self) -> list[str]:
        """Names of all plates, in the order of the store."""
        return [plate.plate for plate in self.store.plates]

    @cached_property
    def capacity_g(self) -> dict[str, float]:
        """Capacity of every plate, by name."""
        return {plate.plate: plate.capacity_g for plate in self.store.plates}

    @cached_property
    def picks(self) -> list[EventTruth]:
        """Some of the pieces that shoppers took: a seeded half of them, in order of time."""
        return self._some([event for event in self.truth.events if event.quantity < 0 and event.account])

    @cached_property
    def put_backs(self) -> list[EventTruth]:
        """Some of the pieces that shoppers put back; where nothing was, picks."""
        returned = [event for event in self.truth.events if event.quantity > 0 and event.account]
        return self._some(returned) if returned else self.picks

    def _some(self, events: Sequence[EventTruth]) -> list[EventTruth]:
        count = (len(events) + 1) // 2
        chosen = self.random.permutation(len(events))[:count]
        return [events[i] for i in sorted(chosen.tolist())]

    def visit(self) -> VisitTruth | None:
        """The visit that took most, or None in an empty shop."""
        return max(self.truth.visits, key=lambda visit: sum(visit.items.values()), default=None)

    @cached_property
    def busy_plate(self) -> str:
        """The plate of the first of the chosen picks; in a shop where nothing is taken, any."""
        return self.picks[0].plate if self.picks else self.plates[0]

    @cached_property
    def busy_camera(self) -> str:
        """The camera that finds most people."""
        found: dict[str, int] = defaultdict(int)
        for observation in self.observations:
            if isinstance(observation, Frame):
                found[observation.camera] += len(observation.keypoints)
        return max(self.cameras, key=lambda name: found[name])

    @cached_property
    def busy_gondola(self) -> frozenset[str]:
        """The plates that hang beside and above the busy plate."""
        gondola = ShelfMap(self.store).gondola
        mine = gondola[self.plates.index(self.busy_plate)]
        return frozenset(name for name, of in zip(self.plates, gondola.tolist()) if of == mine)

    @cached_property
    def _readings(self) -> dict[str, list[ShelfReading]]:
        readings: dict[str, list[ShelfReading]] = defaultdict(list)
        for observation in self.observations:
            if isinstance(observation, ShelfReading):
                readings[observation.plate].append(observation)
        return readings

    def level_g(self, plate: str, from_ns: int, until_ns: int) -> float:
        """Median weight on a plate in a stretch of time; 0 where it sent nothing then."""
        samples = [r.samples for r in self._readings[plate] if from_ns <= r.t_ns < until_ns]
        return float(np.median(np.concatenate(samples))) if samples else 0.0

    def steps_g(self, event: EventTruth) -> dict[str, float]:
        """By how much each plate changes that bears the piece of an event; the greatest first."""
        settled_ns, level_ns = round(_SETTLED_S * 1e9), round(_LEVEL_S * 1e9)
        before, after = event.t_ns - settled_ns, event.t_ns + settled_ns
        shelf = ShelfMap(self.store)
        own = self.plates.index(event.plate)
        near = [own, *shelf.beside[own]]
        steps = {
            self.plates[i]: self.level_g(self.plates[i], after, after + level_ns)
            - self.level_g(self.plates[i], before - level_ns, before)
            for i in near
        }
        weight_g = next(product.weight_g for product in self.store.products if product.gtin == event.gtin)
        bearing = {plate: step for plate, step in steps.items() if abs(step) > _BEARS_SHARE * weight_g}
        return dict(sorted(bearing.items(), key=lambda item: -abs(item[1]))) or {event.plate: steps[event.plate]}

    def windows(self, events: Iterable[EventTruth], before_s: float, after_s: float, share: int = 99) -> Windows:
        """Around each event, on the first `share` of the plates that bear its piece: stretches of time by plate."""
        windows: Windows = defaultdict(list)
        for event in events:
            stretch = event.t_ns - round(before_s * 1e9), event.t_ns + round(after_s * 1e9)
            for plate in list(self.steps_g(event))[:share]:
                windows[plate].append(stretch)
        return dict(windows)

    def noise(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Standard normal numbers."""
        return self.random.standard_normal(shape)


Breaker = Callable[[Scene], Iterable[Observation]]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with a store's sensors.

    Attributes:
        name, what: a few words, and a sentence.
        part: what a warning must name where it names none of the changed sensors.
        breaker: turns a scene into what arrives.
        warned: whether the engine must warn, since it lasts and differs from what sound sensors report. Otherwise a
            receipt that is in doubt for a stated reason is enough.
    """

    name: str
    part: Part
    breaker: Breaker = field(repr=False)
    what: str
    warned: bool = False

    def apply(self, run: Run, seed: int = 0) -> Broken:
        """Break a run. With one seed, the same run is broken in the same way."""
        random = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        scene = Scene(run, random)
        observations = list(self.breaker(scene))
        return Broken(observations, frozenset(scene.sensors))


def sensor_of(observation: Observation) -> str:
    """The name of the camera, plate, gate or reader that made an observation."""
    match observation:
        case Frame():
            return observation.camera
        case ShelfReading():
            return observation.plate
        case GateScan() | DoorState():
            return observation.gate
    return observation.source


def changed(
    scene: Scene, kind: type[Changed], sensors: Collection[str], change: Callable[[Changed], Changed | None]
) -> Iterator[Observation]:
    """The run with the observations of some sensors of a kind changed, or dropped where the change is None."""
    chosen = frozenset(sensors)
    scene.sensors |= chosen
    for observation in scene.observations:
        if isinstance(observation, kind) and sensor_of(observation) in chosen:
            new = change(observation)
            if new is not None:
                yield new
        else:
            yield observation


def inside(windows: Windows, sensor: str, t_ns: int) -> bool:
    """Whether an instant lies in one of a sensor's stretches of time."""
    return any(start <= t_ns < end for start, end in windows.get(sensor, ()))


def by_arrival(observations: Iterable[tuple[int, Observation]]) -> Iterator[Observation]:
    """Observations in the order of their arrival times; equal ones stay in order."""
    for _, observation in sorted(observations, key=lambda pair: pair[0]):
        yield observation
