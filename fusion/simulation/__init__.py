"""A seeded synthetic shop with truth: people, cameras, scales and gates, with the faults that real ones have.

    store = demo_store(n_cameras=8, n_plates=80)
    simulation = Simulation(store, Scenario(seed=1, minutes=5, shoppers=8))
    for observation in simulation.observations(): ...
    simulation.truth.visits

Any valid store can be simulated, not only the demonstration shop. Observations hold what sensors would tell and nothing
else; what really happened is in `truth`. The people do not depend on the sensors: with one seed, another number of
cameras or other faults shows the same visits.
"""

from fusion.simulation.demo import demo_store
from fusion.simulation.run import Simulation, Truth
from fusion.simulation.scenario import Scenario

__all__ = ["Scenario", "Simulation", "Truth", "demo_store"]
