"""Things that detectors take for people at one place for seconds: a coat on a hook, a chair behind glass, a poster."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fusion.simulation import body
from fusion.simulation.body import CHANNEL
from fusion.simulation.scenario import Scenario
from fusion.simulation.spells import Spells
from fusion.store.models import Store

# Share of the time in which a camera that takes the thing for a person does so.
ON_SHARE = 0.5
# Each further camera falls for the same thing with this probability; one always does.
SHARED_PROBABILITY = 0.4
# Coats hang as high as people stand, chairs are lower.
STATURE_M = (1.1, 1.8)
# Where things stand: from inside the shop's walls to behind its glass.
OUTSIDE_M = 0.8


class FalsePeople:
    """The false people that one camera sees: places that do not move, on for a stretch of time and off for another."""

    def __init__(self, store: Store, camera: str, scenario: Scenario) -> None:
        random = scenario.random("false people")
        names = [other.name for other in store.cameras]
        corners = np.array(store.floor)
        low, high = corners.min(axis=0) - OUTSIDE_M, corners.max(axis=0) + OUTSIDE_M
        mine: list[NDArray[np.float64]] = []
        numbers: list[int] = []
        for number in range(scenario.false_people):
            state = np.zeros((1, len(CHANNEL)))
            # Things that are taken for people stand at the walls and behind them, where they last; not in the aisles.
            side, along = int(random.integers(4)), float(random.random())
            depth_m = float(random.uniform(-OUTSIDE_M, 0.3))
            at = low + along * (high - low)
            at[side % 2] = (low + OUTSIDE_M + depth_m)[side % 2] if side < 2 else (high - OUTSIDE_M - depth_m)[side % 2]
            state[0, CHANNEL["x"]], state[0, CHANNEL["y"]] = at
            state[0, CHANNEL["yaw"]] = random.uniform(-math.pi, math.pi)
            stature_m = np.array([random.uniform(*STATURE_M)])
            fooled = random.random(len(names)) < SHARED_PROBABILITY
            fooled[int(random.integers(max(len(names), 1)))] = True
            if fooled[names.index(camera)]:
                numbers.append(number)
                mine.append(body.joints_m(state, stature_m)[0])
        self.numbers = np.array(numbers, np.int64)
        self._joints_m = np.array(mine).reshape(-1, len(body.JOINTS), 3)
        # All cameras that fall for a thing do so in the same stretches: it depends on the light.
        self._spells = Spells(scenario, "false people", "", max(scenario.false_person_s, 1e-3))

    def joints_m(self) -> NDArray[np.float64]:
        """(n, joints, 3) world metres of all `body.JOINTS`."""
        return self._joints_m

    def on(self, times_s: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n_frames, n) whether each is taken for a person."""
        n = len(self.numbers)
        frame, row = np.indices((len(times_s), n)).reshape(2, -1)
        return (self._spells.at(times_s, self.numbers, frame, row) < ON_SHARE).reshape(len(times_s), n)
