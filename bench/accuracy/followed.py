"""People as they were followed through a recording, kept, so that a changed engine of goods is measured in a tenth.

Following people takes nine tenths of a replay's time, and changes of how goods are attributed leave it as it is. The
first replay of a recording keeps everything that the stages after the tracker receive; later ones begin there. They
give the same results to the last bit; `tests/bench/test_followed.py` compares them.
"""

from __future__ import annotations

import hashlib
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import fusion
from fusion.engine import Engine
from fusion.errors import FusionError
from fusion.observations import Frame, GateScan, ItemSighting, Observation, ShelfReading
from fusion.results import People, Result, Warning
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
                now_ns, self._complete_ns, self._closing, roll.contradicted or self._tracker.disagreeing, roll.unproved,
                people, unvouched, *received
            )
        )  # fmt: skip


class _People:
    """Stands in for the tracker and for what precedes it: a step's people are those that were kept."""

    def __init__(self, step: Step) -> None:
        self._step, self.site, self.disagreeing = step, None, False
        self.ignored: Counter[str] = Counter()

    def without(self, _frames: Iterable[Frame], _t_ns: int) -> list[Step]:
        """Something to follow people by, where a frame came."""
        return [] if self._step.people is None else [self._step]

    def step(self, _frames: object) -> People | None:
        """The people."""
        return self._step.people

    def vouched(self, track_id: int) -> bool:
        """Whether cameras agreed on a track."""
        return track_id not in self._step.unvouched

    def warnings(self) -> list[Warning]:
        """None about cameras."""
        return []


class _RollCall(NamedTuple):
    """Stands in for the roll call of sensors."""

    contradicted: bool = False
    unproved: bool = False

    def step(self, *_: object) -> list[Warning]:
        """No warnings."""
        return []

    def follow(self, _site: object) -> None:
        """Nothing follows from where cameras are."""

    def finish(self, _now_ns: int) -> list[Warning]:
        """No warnings."""
        return []


class Follower(Engine):
    """An engine that is given steps instead of observations; its results are without warnings about cameras."""

    def take(self, step: Step) -> list[Result]:
        """The results of one step."""
        results: list[Result] = []
        self._now_ns, self._complete_ns, self._closing = step.now_ns, step.complete_ns, step.closing
        self._tracker = self._stills = _People(step)  # type: ignore[assignment]
        self._roll_call = _RollCall(step.contradicted, step.unproved)  # type: ignore[assignment]
        self._readings, self._scans, self._sightings = list(step.readings), list(step.scans), list(step.sightings)
        self._work(results, step.now_ns)
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
    yield from engine.close()
