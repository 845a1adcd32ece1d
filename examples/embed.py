"""The shortest useful program: detections and weights go in, and who took what comes out.

A simulated shop stands in for the sensors, so the program runs as it is; put your own source in its place.
"""

from fusion import Engine, PersonEntered, PersonLeft, Picked, PutBack, Receipt
from fusion.simulation import Scenario, Simulation, demo_store

store = demo_store()  # or yours: Store.load("path/to/store")
sensors = Simulation(store, Scenario(seed=1, minutes=1.0, shoppers=2)).observations()

engine = Engine(store)
for observation in sensors:  # Frame, ShelfReading and GateScan, in any order within two seconds
    for result in engine.feed(observation):
        if isinstance(result, PersonEntered | Picked | PutBack | PersonLeft | Receipt):
            print(result)
for result in engine.close():
    print(result)
