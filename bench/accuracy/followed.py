"""People as they were followed through a recording, kept, so that a changed engine of goods is measured in a tenth.

Following people takes nine tenths of a replay's time, and changes of how goods are attributed leave it as it is. The
first replay of a recording keeps everything that the stages after the tracker receive; later ones begin there. They
give the same results to the last bit; `tests/bench/test_followed.py` compares them.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import fusion
from fusion.engine import _ALWAYS_NS, SETTLE_NS, Engine
from fusion.errors import FusionError
from fusion.observations import GateScan, ItemSighting, Observation, ShelfReading
from fusion.results import People, Reason, ReasonKind, Result
from fusion.store.models import Store

# What the places of people depend on.
_SOURCES = (
    "fusion/people/*.py", "fusion/order.py", "fusion/_kernels/association.py", "fusion/_kernels/health.py",
    "fusion/_kernels/presence.py", "fusion/_kernels/records.py", "native/*.hpp", "native/*.cpp",
)  # fmt: skip
# People's own modules that read the tracker's results only, and run again.
_AFTERWARDS = {"visits.py", "gate_lines.py", "scans.py", "recent.py", "arms.py", "walkers.py"}


class Step(NamedTuple):
    """What the stages after the tracker receive in one step of the engine; people is None where no frame came."""

    now_ns: int
    complete_ns: int
    closing: bool
    contradicted: bool
    unproved: bool
    people: People | None
    unvouched: frozenset[int]
    readings: tuple[ShelfReading, ...]
    scans: tuple[GateScan, ...]
    sightings: tuple[ItemSighting, ...]


class _Recorder(Engine):
    """An engine that keeps its steps."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.steps: list[Step] = []

    def _work(self, results: list[Result], now_ns: int) -> None:
        received = tuple(self._readings), tuple(self._scans), tuple(self._sightings)
        first = len(results)
        super()._work(results, now_ns)
        people = next((result for result in results[first:] if isinstance(result, People)), None)
        unvouched = frozenset(
            track for track in (people.track_id.tolist() if people else ()) if not self._tracker.vouched(track)
        )
        roll = self._roll_call
        self.steps.append(
            Step(
                now_ns, self._complete_ns, self._closing, roll.contradicted, roll.unproved, people, unvouched, *received
            )
        )  # fmt: skip


class Follower(Engine):
    """An engine that is given steps instead of observations."""

    def take(self, step: Step) -> list[Result]:
        """The results of one step, without warnings about cameras."""
        results: list[Result] = []
        self._now_ns, self._complete_ns, self._closing = step.now_ns, step.complete_ns, step.closing
        self._roll_call = step  # type: ignore[assignment]
        if step.contradicted:
            self._visits.doubt(Reason(ReasonKind.CAMERAS_DISAGREE), step.now_ns)
        for scan in step.scans:
            results += self._visits.scan(scan)
        if step.people is not None:
            self._history.append(step.people)
            self._pass(self._visits.step(step.people, lambda track: track not in step.unvouched), results)
            results.append(step.people)
        else:
            self._pass(self._visits.idle(step.now_ns), results)
        for sighting in step.sightings:
            self._billing.sight(sighting)
        for event in self._monitor.step(step.readings, step.now_ns):
            results += self._billing.observe(event)
        results += self._monitor.warnings()
        self._attributor.watch(self._monitor.blind, self._history, step.now_ns)
        self._finish_visits(step.now_ns - SETTLE_NS, results)
        return results

    def end(self) -> list[Result]:
        """The results after the last step, as of `Engine.close`."""
        results: list[Result] = []
        for event in self._monitor.finish():
            results += self._billing.observe(event)
        results += self._visits.end(self._now_ns)
        self._finish_visits(_ALWAYS_NS, results)
        results += self._billing.finish()
        return results


def _digest() -> str:
    root = Path(fusion.__file__).parents[1]
    digest = hashlib.sha256()
    for pattern in _SOURCES:
        for path in sorted(root.glob(pattern)):
            if path.name not in _AFTERWARDS:
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def followed(store: Store, observations: Iterable[Observation], kept: Path) -> list[Step]:
    """The steps of a recording; `kept` holds them for the next time, under a hash of what they depend on.

    Raises:
        FusionError: the clocks of all sensors were set back; what happened then is not kept.
    """
    path = kept.with_name(f"{kept.name}.{_digest()}.pickle")
    if path.exists():
        steps: list[Step] = pickle.loads(path.read_bytes())
        return steps
    engine = _Recorder(store)
    for observation in observations:
        engine.feed(observation)
    engine.close()
    if engine.set_back_ns:
        raise FusionError(f"{kept.name}: clocks were set back, which has to be replayed whole")
    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(pickle.dumps(engine.steps, protocol=pickle.HIGHEST_PROTOCOL))
    unfinished.rename(path)
    return engine.steps


def results_of(engine: Follower, steps: Iterable[Step]) -> Iterator[Any]:
    """All results of an engine that is given these steps."""
    for step in steps:
        yield from engine.take(step)
    yield from engine.end()
