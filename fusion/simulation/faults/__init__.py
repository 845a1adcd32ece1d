"""What goes wrong with the sensors of a shop? Seeded faults that turn reports into what broken sensors report.

    run = Run.of(demo_store(), Scenario(seed=1, minutes=1.5, shoppers=3))
    broken = FAULTS["plate at an ADC's rail around picks"].apply(run, seed=4)
    for observation in broken.observations: ...        # in the order of arrival
    broken.sensors                                     # names of plates, cameras, gates that a warning may name

Faults are independent of any engine, so they test other pipelines as well. They strike around events: a run's truth
says when something was taken, and on which plates it rested.
"""

from fusion.simulation.faults.cameras import CAMERA_FAULTS
from fusion.simulation.faults.clocks import CLOCK_FAULTS
from fusion.simulation.faults.fault import Broken, Fault, Part, Run
from fusion.simulation.faults.gates import GATE_FAULTS
from fusion.simulation.faults.scales import SCALE_FAULTS

FAULTS = {fault.name: fault for fault in (*SCALE_FAULTS, *CAMERA_FAULTS, *CLOCK_FAULTS, *GATE_FAULTS)}

__all__ = ["FAULTS", "Broken", "Fault", "Part", "Run"]
