"""What would the sensors of a shop report? A seeded synthetic shop with truth, and with the faults that real ones have.

    store = demo_store(n_cameras=8, n_plates=80)
    simulation = Simulation(store, Scenario(seed=1, minutes=5, shoppers=8))
    for observation in simulation.observations(): ...
    simulation.truth.visits

Any valid store can be simulated, not only the demonstration shop. Observations hold what sensors would report and
nothing else; what really happened is in `truth`. The people do not depend on the sensors: with one seed, the visits
stay the same whatever the number of cameras or the faults.
"""

from fusion.simulation.demo import demo_store
from fusion.simulation.run import Simulation
from fusion.simulation.scenario import REAL_DETECTOR, Scenario
from fusion.simulation.truth import Truth

__all__ = ["REAL_DETECTOR", "Scenario", "Simulation", "Truth", "demo_store"]
