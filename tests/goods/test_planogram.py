"""The planogram: where plates stand, what a load may be, and that an engine has exactly one.

Attribution writes it, the scales read it, and a snapshot does not split it.
"""

from __future__ import annotations

import gc
import types
from pathlib import Path

import numpy as np
from goods.shop import STORE, shop
from reference.goods import move

from fusion import Engine
from fusion.files.recordings import Recording
from fusion.goods.planogram import Planogram, Rows
from fusion.snapshots import resume, snapshot


def test_rows_are_found_by_geometry() -> None:
    rows = Rows(shop(n_plates=5, rows=3))
    assert [[int(rows.place[p]) for p in members] for members in rows.members] == [[0, 1, 2, 3, 4]] * 3
    turned = shop(n_plates=5)
    places = [{"yaw": -np.pi / 2, "x": 1.0, "y": 2.0 - 0.1 * i} for i in range(5)]
    plates = [plate.model_copy(update=place) for plate, place in zip(turned.plates, places)]
    rows = Rows(turned.model_copy(update={"plates": tuple(plates)}))
    assert rows.members == [[0, 1, 2, 3, 4]]


def test_identifications_prefer_what_lies_there() -> None:
    planogram = Planogram(STORE)
    best = planogram.identify(np.array([3]), np.array([-250.0]), 1.0)
    assert (best.product[0], best.quantity[0]) == (3, -1)
    best = planogram.identify(np.array([2, 3]), np.array([-62.0, -62.0]), 1.0)
    assert (best.product[0], best.quantity[0]) == (2, -2)


def test_an_empty_count_does_not_hide_what_is_planned_there() -> None:
    """Shelves are filled unseen: a load that leaves a plate counted empty is still what is planned there."""
    planogram = Planogram(STORE)
    facing = STORE.planogram[0]
    plate = [plate.plate for plate in STORE.plates].index(facing.plate)
    product = planogram.gtins.index(facing.gtin)
    plates, delta_g = np.array([plate]), np.array([-planogram.weight_g[product]])
    counted = planogram.log_place(plates, delta_g)[product]
    move(planogram, plate, product, -1000.0)
    empty = planogram.log_place(plates, delta_g)
    assert empty[product] < counted, "the count is evidence"
    assert empty[product] == empty.max(), "and no more than that"


def test_a_misplaced_piece_can_be_taken_again() -> None:
    planogram = Planogram(STORE)
    before = planogram.identify(np.array([0]), np.array([-371.0]), 1.0)
    at = before.product.tolist().index(4)
    move(planogram, 0, 4, 1.0)
    after = planogram.identify(np.array([0]), np.array([-371.0]), 1.0)
    assert after.product[0] == 4
    assert after.log_place[0] > before.log_place[at] + 3.0


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
    fuller = tuple(row.model_copy(update={"stock": row.stock + 2}) for row in recording.store.planogram)
    for store in (recording.store, recording.store.model_copy(update={"planogram": fuller})):
        resumed = resume(snapshot(engine), store)
        assert planograms(resumed) == [resumed.planogram]
        added = 2.0 * (store is not recording.store)
        planned = engine.planogram.planned
        np.testing.assert_allclose(resumed.planogram.stock[planned], engine.planogram.stock[planned] + added)
        assert resumed.planogram.gain.tobytes() == engine.planogram.gain.tobytes()
