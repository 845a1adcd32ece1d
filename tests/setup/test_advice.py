"""Where to walk once more: parts of a floor that lack people, by the names of what stands there."""

from __future__ import annotations

import numpy as np
import pytest

from fusion.setup.advice import place_name, shelves, walk_advice
from fusion.setup.coverage import Sight, standable
from fusion.setup.self_calibration import CameraTie
from fusion.simulation import demo_store

STORE = demo_store(n_cameras=6, n_plates=40)
FLOOR_M, CELL_M = standable(STORE)


def before(shelf) -> np.ndarray:
    """(n, 2) floor along the fronts of a shelf."""
    fronts = np.array([
        (p.x + np.sin(p.yaw) * (p.depth / 2 + 0.4), p.y - np.cos(p.yaw) * (p.depth / 2 + 0.4)) for p in shelf
    ])  # fmt: skip
    near = np.linalg.norm(FLOOR_M[:, None] - fronts[None], axis=2).min(axis=1) < 1.0
    return FLOOR_M[near]


def test_shelves_are_plates_side_by_side():
    found = shelves(STORE.plates)
    assert sorted(plate.plate for shelf in found for plate in shelf) == sorted(plate.plate for plate in STORE.plates)
    assert 1 < len(found) < len(STORE.plates)
    assert all(len({plate.yaw for plate in shelf}) == 1 for shelf in found)
    assert shelves(()) == [] and len(shelves(STORE.plates[:1])) == 1
    # The order of the file does not matter to which plates are one shelf.
    back = {frozenset(plate.plate for plate in shelf) for shelf in shelves(STORE.plates[::-1])}
    assert back == {frozenset(plate.plate for plate in shelf) for shelf in found}


@pytest.mark.parametrize("n", range(len(shelves(STORE.plates))))
def test_the_shelf_that_lacks_people_is_named(n):
    shelf = shelves(STORE.plates)[n]
    part_m = before(shelf)
    name = place_name(STORE, part_m)
    assert name == f"along the shelf of plates {shelf[0].plate} to {shelf[-1].plate}"
    # People walked everywhere but there.
    left = np.linalg.norm(FLOOR_M[:, None] - part_m[None], axis=2).min(axis=1) > 0.05
    seen = Sight(STORE).sees(np.column_stack([part_m, np.full(len(part_m), 1.2)]))
    view = int(seen.sum(axis=1).argmax())
    camera = STORE.cameras[view].name
    tie = CameraTie(camera, True, fault="badly tied: its centre is known to 9 cm")
    [advice] = walk_advice(STORE, STORE.cameras, (tie,), FLOOR_M[left])
    assert advice == f"camera {camera}: walk once {name}, slowly and there and back"
    assert walk_advice(STORE, STORE.cameras, (tie,), FLOOR_M) == ()


def test_a_camera_without_a_place_is_sought_where_the_others_see_least():
    few = STORE.cameras[:2]
    tie = CameraTie(STORE.cameras[5].name, False, fault="not placed: no frames")
    [advice] = walk_advice(STORE, few, (tie,), np.zeros((0, 2)))
    assert advice.startswith(f"camera {tie.name}: walk once ")
    assert walk_advice(STORE, few, (CameraTie(tie.name, True),), np.zeros((0, 2))) == ()
    assert walk_advice(STORE, (), (tie,), np.zeros((0, 2))) == ()


def test_floor_beside_nothing_is_named_by_its_middle():
    bare = STORE.model_copy(update={"plates": (), "gate": (), "zone": (), "planogram": ()})
    assert place_name(bare, np.array([[1.0, 2.0], [1.2, 2.2]])) == "around x = 1.1, y = 2.1"
    people = np.array([[np.nan, np.nan], [1e9, -1e9]])
    tie = CameraTie(STORE.cameras[0].name, True, fault="badly tied")
    assert len(walk_advice(bare, STORE.cameras, (tie,), people)) == 1
