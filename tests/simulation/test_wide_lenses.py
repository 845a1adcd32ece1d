"""A store whose cameras have wide lenses is followed and billed like one with ordinary cameras."""

from __future__ import annotations

import numpy as np
import pytest

from fusion import Engine
from fusion.results import People, Receipt
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.store.models import Camera, Store

# Focal length in pixels, coefficients, fisheye: pictures 112 and 98 degrees wide where the store's own have 91.
WIDE = {
    "fisheye": (430.0, (0.02, -0.005, 0.001, 0.0), True),
    "rational": (560.0, (1.2, 0.3, 1e-4, -5e-5, 0.01, 1.5, 0.6, 0.05), False),
}


def widened(camera: Camera, kind: str) -> Camera:
    focal_px, distortions, fisheye = WIDE[kind]
    (_, _, cx), (_, _, cy), _ = camera.matrix
    matrix = ((focal_px, 0.0, cx), (0.0, focal_px, cy), (0.0, 0.0, 1.0))
    return camera.model_copy(update={"matrix": matrix, "distortions": distortions, "fisheye": fisheye})


@pytest.mark.parametrize("kind", WIDE)
def test_a_store_of_wide_lenses_follows_and_bills(kind: str) -> None:
    plain = demo_store(n_cameras=6, n_plates=24)
    store: Store = plain.model_copy(update={"cameras": tuple(widened(camera, kind) for camera in plain.cameras)})
    simulation = Simulation(store, Scenario(seed=11, minutes=1.0, shoppers=2))
    engine = Engine(store)
    results = [result for observation in simulation.observations() for result in engine.feed(observation)]
    results += engine.close()
    truth = simulation.truth
    bought = {visit.account: {g: n for g, n in visit.items.items() if n} for visit in truth.visits}
    billed = {r.account: {line.gtin: line.quantity for line in r.lines} for r in results if isinstance(r, Receipt)}
    assert billed == bought and len(bought) == 2
    times_ns = np.array([instant.t_ns for instant in truth.people])
    off_m = []
    for people in (r for r in results if isinstance(r, People)):
        nearest = truth.people[int(np.argmin(np.abs(times_ns - people.t_ns)))]
        for place_m in people.position_m[people.confirmed] if abs(nearest.t_ns - people.t_ns) < 60e6 else ():
            off_m.append(np.linalg.norm(nearest.position_m - place_m, axis=1).min())
    # The median of ordinary cameras on this seed is 0.029 m.
    assert len(off_m) > 500 and np.median(off_m) < 0.05
