"""Loads what every store's process needs, once: imported by the process that they are copied from."""

from fusion.engine import Engine
from fusion.simulation import demo_store

# Kernels are loaded from the cache, or compiled, at the first engine.
Engine(demo_store(n_cameras=2, n_plates=2))
