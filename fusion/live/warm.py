"""Loads once what every store's process needs: imported by the process from which they are forked."""

import gc

from fusion.engine import Engine
from fusion.simulation import demo_store

# The first engine loads kernels from the cache, or compiles them.
Engine(demo_store(n_cameras=2, n_plates=2))
# A collection of garbage writes into every object that it looks at, and so would copy what the processes share: 35 MiB
# in each of them (python -m bench memory). What is loaded here is never garbage.
gc.collect()
gc.freeze()
