"""Replays a recording through an engine, and keeps what the scores and the plain method need."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.accuracy.followed import Follower, followed, results_of
from fusion.engine import Engine
from fusion.observations import Observation, ShelfReading
from fusion.results import Evidence, People, PersonEntered, Receipt, ShelfEventExplained
from fusion.store.models import Store


@dataclass
class Answers:
    """An engine's answers about a recording. people and readings are kept for the plain method only."""

    receipts: list[Receipt] = field(default_factory=list)
    evidence: dict[str, Evidence] = field(default_factory=dict)  # By visit, of receipts in review.
    events: list[ShelfEventExplained] = field(default_factory=list)
    account_of: dict[int, str | None] = field(default_factory=dict)
    people: list[People] = field(default_factory=list)
    readings: list[ShelfReading] = field(default_factory=list)
    attribution_us: list[float] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def replayed(
    store: Store, observations: Iterable[Observation], keep: bool = False, kept: Path | None = None
) -> Answers:
    """Run an engine.

    Args:
        store: the store.
        observations: what it is fed.
        keep: also keep the people and readings that the plain method needs.
        kept: where people as followed are kept for the next time; see `followed.py`. None: they are not.
    """
    answers = Answers()
    steps = followed(store, observations, kept) if kept is not None else None
    engine = Engine(store) if steps is None else Follower(store)
    observe = engine._attributor.observe

    def timed(*args: Any) -> Any:
        started_ns = time.thread_time_ns()
        belief = observe(*args)
        answers.attribution_us.append((time.thread_time_ns() - started_ns) / 1e3)
        return belief

    engine._attributor.observe = timed  # type: ignore[method-assign]
    results = _fed(engine, observations, answers, keep)
    if isinstance(engine, Follower) and steps is not None:
        results = results_of(engine, steps)
        if keep:
            answers.readings = [reading for step in steps for reading in step.readings]
    for result in results:
        match result:
            case Receipt():
                answers.receipts.append(result)
            case Evidence():
                answers.evidence[result.visit] = result
            case ShelfEventExplained():
                answers.events.append(result)
            case PersonEntered():
                answers.account_of[result.track_id] = result.account
            case People() if keep:
                answers.people.append(result)
    answers.ignored = engine.ignored
    return answers


def _fed(engine: Engine, observations: Iterable[Observation], answers: Answers, keep: bool) -> Iterator[Any]:
    for observation in observations:
        if keep and isinstance(observation, ShelfReading):
            answers.readings.append(observation)
        yield from engine.feed(observation)
    yield from engine.close()
