"""An engine has one planogram: attribution writes it, the scales read it, and a snapshot does not split it."""

from __future__ import annotations

import gc
import types
from pathlib import Path

import numpy as np

from fusion import Engine
from fusion.files.recordings import Recording
from fusion.goods.planogram import Planogram
from fusion.snapshots import resume, snapshot


def planograms(engine: Engine) -> list[Planogram]:
    """Every planogram that an engine can reach, by identity."""
    found: dict[int, Planogram] = {}
    seen: set[int] = set()
    waiting: list[object] = [engine]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, type | types.ModuleType | types.FunctionType):
            continue
        seen.add(id(thing))
        if isinstance(thing, Planogram):
            found[id(thing)] = thing
        waiting += gc.get_referents(thing)
    return list(found.values())


def test_an_engine_has_one_planogram(small_recording: Path) -> None:
    recording = Recording(small_recording)
    engine = Engine(recording.store)
    observations = list(recording.observations())
    first = engine.planogram
    assert planograms(engine) == [first]
    for observation in observations:
        engine.feed(observation)
    assert planograms(engine) == [first] and engine.planogram is first
    # Attribution has written it: gains were learnt, and goods have left the shelves.
    assert (first.gain_var < Planogram(recording.store).gain_var).any() and first.away.sum() > 0.5


def test_it_stays_one_through_a_snapshot_and_a_changed_store(small_recording: Path) -> None:
    recording = Recording(small_recording)
    engine = Engine(recording.store)
    for observation in recording.observations():
        engine.feed(observation)
    fuller = tuple(one.model_copy(update={"stock": one.stock + 2}) for one in recording.store.planogram)
    for store in (recording.store, recording.store.model_copy(update={"planogram": fuller})):
        resumed = resume(snapshot(engine), store)
        assert planograms(resumed) == [resumed.planogram]
        added = 2.0 * (store is not recording.store)
        planned = engine.planogram.planned
        np.testing.assert_allclose(resumed.planogram.stock[planned], engine.planogram.stock[planned] + added)
        assert resumed.planogram.gain.tobytes() == engine.planogram.gain.tobytes()
