"""Small observations of a small store, for tests of the live streams."""

from __future__ import annotations

import numpy as np

from fusion.observations import Frame, Observation
from fusion.simulation import demo_store

T_NS = 1_767_258_000_000_000_000
STORE = demo_store(n_cameras=2, n_plates=4)
CAMERA, PLATE = STORE.cameras[0].name, STORE.plates[0].plate


def frame(t_ns: int, n_people: int = 1, camera: str = CAMERA) -> Frame:
    return Frame(t_ns, camera, np.full((n_people, 17, 3), 0.5, np.float32))


def same(first: Observation, second: Observation) -> bool:
    """Whether two observations are equal to the bit."""
    for name in first.__slots__:
        a, b = getattr(first, name), getattr(second, name)
        if isinstance(a, np.ndarray):
            if not isinstance(b, np.ndarray) or a.shape != b.shape or a.tobytes() != b.tobytes():
                return False
        elif a != b:
            return False
    return True
