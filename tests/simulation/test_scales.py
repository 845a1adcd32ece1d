"""Weight messages show the pieces that move, in the form of the contract."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
from numpy.testing import assert_allclose
from simulation.runs import SHORT, run, trace

from fusion.observations import ShelfReading
from fusion.simulation.events import Load
from fusion.simulation.goods import ShelfMap
from fusion.simulation.scales import Scales


def test_a_plate_steps_by_the_weight_of_the_piece(store):
    bare = store.model_copy(update={"cameras": ()})
    simulation, observations = run(
        bare,
        minutes=2.0,
        plate_noise=0.0,
        shocks_per_minute=0.0,
        straddle_probability=0.0,
        touch_probability=0.0,
        second_grip_probability=0.0,
    )
    weight_g = {product.gtin: product.weight_g for product in store.products}
    events = simulation.truth.events
    ratios = []
    for event in events:
        t_s = (event.t_ns - SHORT.start_ns) / 1e9
        if any(other is not event and abs(other.t_ns - event.t_ns) < 3.5e9 for other in events):
            continue
        times, grams = trace(observations, event.plate, store.weight_rate_hz)
        before = grams[(times > t_s - 3.0) & (times < t_s - 2.5)].mean()
        after = grams[(times > t_s + 2.6) & (times < t_s + 3.1)].mean()
        ratios.append((after - before) / (event.quantity * weight_g[event.gtin]))
    assert len(ratios) >= 3
    assert_allclose(ratios, 1.0, atol=0.13)  # gain within 9 %, a piece within 3 sd
    assert np.ptp(ratios) > 0.001, "every plate and every piece is a little different"


def test_a_quiet_plate_is_quiet_and_quantised(store):
    _, observations = run(store.model_copy(update={"cameras": ()}), shoppers=0, shocks_per_minute=0.0)
    spreads = []
    for plate in store.plates:
        _, grams = trace(observations, plate.plate, store.weight_rate_hz)
        steps = np.diff(np.unique(grams.astype(float)))
        assert steps.min() > 0.2, "readings are multiples of the quantum"
        spreads.append(grams[:600].std())
    assert 0.3 < np.median(spreads) < 1.5


def test_messages_are_as_the_contract_says(store, short):
    readings = defaultdict(list)
    for o in short[1]:
        if isinstance(o, ShelfReading):
            assert o.samples.shape == (12,) and o.samples.dtype == np.float32
            readings[o.plate].append(o.t_ns)
    assert set(readings) == {plate.plate for plate in store.plates}
    gaps_s = np.concatenate([np.diff(times) for times in readings.values()]) / 1e9
    assert_allclose(gaps_s.mean(), 0.2, atol=1e-3)
    assert 0.001 < gaps_s.std() < 0.008


def test_loads_creep_and_their_gain_depends_on_the_place(store):
    def steps(**knobs):
        """Grams on one plate just after each of some loads of 1000 g, and its creep after the last."""
        quiet = replace(SHORT, plate_noise=0.0, shocks_per_minute=0.0, drift_g_per_min=0.0, **knobs)
        scales = Scales(store, ShelfMap(store), quiet)
        scales.add([Load(10.0 * k + 10.0, ((0, 1000.0),)) for k in range(8)], [])
        found = defaultdict(list)
        for reading in scales.readings(200.0, 0):
            found[reading.plate].append((reading.t_ns / 1e9, float(reading.samples[-1])))
        times, grams = np.array(found[store.plates[0].plate]).T
        after = [grams[np.searchsorted(times, 10.0 * k + 14.0)] for k in range(9)]
        return np.diff(after)[:7], grams[-1] - after[7]

    plain, still = steps()
    assert np.ptp(plain) < 0.5 and abs(still) < 0.5
    odd, _ = steps(place_gain_sd=0.02)
    assert 10.0 < np.std(odd) < 40.0
    assert abs(steps(creep_share=0.02)[1]) > 1.0
