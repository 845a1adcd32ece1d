"""Where a run's observations come from: a recording or a simulation."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from fusion.errors import FusionError
from fusion.files.recordings import Recording
from fusion.observations import Observation
from fusion.runner.example import EXAMPLE_FILE, Example
from fusion.runner.settings import RunSettings
from fusion.runner.truth import TrueVisit, recorded_visits, simulated_visits
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.simulation.kinds import simulation_of
from fusion.store.models import Store


class Span(NamedTuple):
    """The data time of a run, UTC nanoseconds."""

    start_ns: int
    end_ns: int


@dataclass
class Source:
    """A store, its observations, and what is known of them before they come.

    Attributes:
        store: the store.
        observations: of its sensors.
        origin: where they come from, in words.
        span: their data time; None for a recording without any.
        recording, simulation, example: what they come from, as far as it applies.
    """

    store: Store
    observations: Iterable[Observation]
    origin: str
    span: Span | None = None
    recording: Recording | None = None
    simulation: Simulation | None = None
    example: Example | None = None

    def true_visits(self) -> list[TrueVisit] | None:
        """What really happened; None where that is not known."""
        if self.simulation is not None:
            return simulated_visits(self.simulation.truth)
        if self.recording is None:
            return None
        return recorded_visits(self.recording.folder, self.recording.store.own_gtins)


def open_source(settings: RunSettings) -> Source:
    """Open the source that a run's settings name. Raises FusionError where it cannot be used."""
    if settings.recording is not None:
        recording = Recording(settings.recording)
        times = recording.span_ns()
        span = Span(*times) if times is not None else None
        origin = f"{_minutes(span) if span is not None else 0.0:.1f} minutes recorded"
        return Source(recording.store, recording.observations(), origin, span, recording=recording)
    return _simulated(settings)


def paced(observations: Iterable[Observation], speed: float = 1.0, lead_s: float = 0.0) -> Iterator[Observation]:
    """Hold each observation back until as much time has passed as in the data, times `speed`.

    The first `lead_s` of the data pass at once, and their pace is kept from there on.
    """
    begin_ns, paced_from_ns, started_s = None, 0, 0.0
    for observation in observations:
        if begin_ns is None:
            begin_ns = observation.t_ns + round(lead_s * 1e9)
        if observation.t_ns >= begin_ns:
            if not paced_from_ns:
                paced_from_ns, started_s = observation.t_ns, time.monotonic()
            ahead_s = (observation.t_ns - paced_from_ns) / 1e9 / speed - (time.monotonic() - started_s)
            if ahead_s > 0:
                time.sleep(ahead_s)
        yield observation


def _simulated(settings: RunSettings) -> Source:
    """The demonstration shop, or the store of a folder; with an example.toml also its customers' credentials."""
    store = Store.load(settings.store) if settings.store else demo_store()
    example = None
    if settings.store and (settings.store / EXAMPLE_FILE).exists():
        example = Example.load(settings.store)
    asked = {"minutes": settings.minutes, "shoppers": settings.shoppers}
    changes: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    try:
        if example is not None:
            scenario = example.scenario_for(store, settings.seed, **changes)
        else:
            scenario = Scenario(seed=settings.seed, **changes)
    except ValueError as error:
        raise FusionError(str(error)) from None
    span = Span(scenario.start_ns, scenario.start_ns + round(scenario.minutes * 60e9))
    try:
        simulation = simulation_of(store, scenario)
    except ValueError as error:
        raise FusionError(str(error)) from None
    origin = f"{_minutes(span):.1f} minutes simulated (seed {settings.seed})"
    return Source(store, simulation.observations(), origin, span, simulation=simulation, example=example)


def _minutes(span: Span) -> float:
    return (span.end_ns - span.start_ns) / 60e9
