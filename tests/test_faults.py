"""The simulated store under seeded faults: no settled receipt is wrong because of one, goods are conserved.

Faults of the library break what five shops reported: those of scales here, those of cameras, clocks and gates in
test_faults_elsewhere.py, so that two processes share the work. Those of the scenario are simulated.
"""

from __future__ import annotations

from collections import Counter

import pytest
from faulty import OPEN, SHOPS, cells, check

from fusion.engine import Engine
from fusion.results import Receipt, ShelfEventExplained
from fusion.simulation import REAL_DETECTOR, Scenario, Simulation, demo_store
from fusion.simulation.faults import FAULTS, Part

SCENARIOS = {
    "clean": {},
    "cameras out": {"cameras_out": 2},
    "clocks apart": {"clock_offset_max_s": 0.1},
    "frames lost": {"frame_drop_probability": 0.3},
    "messages lost": {"gap_probability": 0.05},
    "plates drift": {"drifting_plates": 5},
    "plates dead": {"dead_plates": 3},
    "shocks": {"shocks_per_minute": 6.0},
    "noise": {"plate_noise": 3.0, "keypoint_noise": 2.0},
    "ghosts": {"ghosts_per_frame": 0.3},
    "put back anywhere": {"put_back_probability": 0.4, "wrong_place_probability": 0.4},
    "side by side": {"neighbour_probability": 0.5},
    "family": {"companions": 1, "children": 1},
    "tailgater": {"tailgaters": 1},
    "staff": {"staff": 1},
    "real detectors": dict(REAL_DETECTOR),
}


@pytest.mark.parametrize("fault, shop", cells([Part.SCALES]))
def test_no_settled_receipt_is_wrong_because_of_the_fault(fault, shop):
    check(fault, shop)


def test_open_cells_exist_and_are_few():
    assert all(fault in FAULTS and shop in SHOPS and reason for (fault, shop), reason in OPEN.items())
    assert len(OPEN) < 0.05 * len(FAULTS) * len(SHOPS)


@pytest.mark.parametrize("fault", SCENARIOS)
def test_no_settled_receipt_is_wrong(fault):
    store = demo_store(n_cameras=6, n_plates=40)
    simulation = Simulation(store, Scenario(seed=1, minutes=1.5, shoppers=3, **SCENARIOS[fault]))
    engine = Engine(store)
    results = [result for observation in simulation.observations() for result in engine.feed(observation)]
    results += engine.close()
    truth = {visit.account: +Counter(visit.items) for visit in simulation.truth.visits}
    receipts = [result for result in results if isinstance(result, Receipt)]
    charged = Counter(receipt.account for receipt in receipts if receipt.account is not None)
    assert set(charged.values()) <= {1}, "an account was charged twice"
    assert charged.keys() <= truth.keys(), "an account was charged that was not there"
    for receipt in receipts:
        if receipt.account is None:
            assert receipt.status == "review", "a visit without a credential goes to review"
        elif receipt.status == "settled":
            assert Counter({line.gtin: line.quantity for line in receipt.lines}) == truth[receipt.account]
    assert set(engine.journal.totals().values()) <= {0}
    for event in results:
        if isinstance(event, ShelfEventExplained):
            assert sum(candidate.probability for candidate in event.candidates) <= 1.0 + 1e-9
