"""Loads once what every store's process needs: imported by the process from which they are forked."""

from fusion.engine import Engine
from fusion.simulation import demo_store

# The first engine loads kernels from the cache, or compiles them.
Engine(demo_store(n_cameras=2, n_plates=2))
