"""Attribution of whole sequences of events: the kernels against the twin, event by event, on the same state."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from goods.shop import STORE, at_shelf, event, plate_hand
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from recordings import make
from reference import observing as reference

from fusion.engine import Engine
from fusion.files.recordings import Recording
from fusion.goods.attribution import Attributor
from fusion.goods.beliefs import EventBelief, EventCandidate
from fusion.goods.hypotheses import Cluster
from fusion.goods.planogram import Planogram


def chances(candidates: tuple[EventCandidate, ...]) -> dict[tuple[Any, ...], float]:
    return {(one.person, one.gtin, one.quantity): one.probability for one in candidates}


def assert_same_belief(found: EventBelief, expected: EventBelief) -> None:
    assert (found.event_id, found.t_ns, found.plate) == (expected.event_id, expected.t_ns, expected.plate)
    for got, wanted in ((found.candidates, expected.candidates), (found.parts, expected.parts)):
        got_, wanted_ = chances(got), chances(wanted)
        # Candidates about as improbable as the least that are reported may be missing from one of them.
        for key in got_.keys() | wanted_.keys():
            assert abs(got_.get(key, 1e-6) - wanted_.get(key, 1e-6)) < 1e-9, key


def marginals(cluster: Cluster) -> dict[tuple[int, ...], float]:
    """Probability of every candidate, by its event, people, carts, products and pieces."""
    parts = cluster.table.columns.transpose(1, 0, 2).reshape(-1, 8).tolist()
    return {(event, *part): p for event, part, p in zip(cluster.event_of.tolist(), parts, cluster.probability.tolist())}


def assert_same_state(found: Attributor, expected: Attributor) -> None:
    assert [d.event.event_id for d in found._decided.events] == [d.event.event_id for d in expected._decided.events]
    assert [d.parts for d in found._decided.events] == [d.parts for d in expected._decided.events]
    assert [[e.event_id for e in c.events] for c in found.clusters] == [
        [e.event_id for e in c.events] for c in expected.clusters
    ]
    for one, other in zip(found.clusters, expected.clusters):
        got, wanted = marginals(one), marginals(other)
        assert got.keys() == wanted.keys()
        assert_allclose([got[key] for key in wanted], list(wanted.values()), atol=1e-9)
    assert_allclose(found.planogram.stock, expected.planogram.stock, atol=1e-9)
    assert_allclose(found.planogram.gain, expected.planogram.gain, atol=1e-9)
    assert_allclose(found.planogram.factors._of_loads, expected.planogram.factors._of_loads, atol=1e-8)


@pytest.mark.parametrize("scene", sorted(make.SCENES))
def test_events_of_recordings_match_reference(scene: str, monkeypatch: pytest.MonkeyPatch) -> None:
    observe, n_compared = Attributor.observe, 0

    def both(self: Attributor, *event_and_history: Any) -> EventBelief:
        nonlocal n_compared
        twin = copy.deepcopy(self)
        belief = observe(self, *event_and_history)
        assert_same_belief(belief, reference.observe(twin, *event_and_history))
        assert_same_state(self, twin)
        n_compared += 1
        return belief

    monkeypatch.setattr(Attributor, "observe", both)
    recording = Recording(make.HERE / scene)
    engine = Engine(recording.store)
    for observation in recording.observations():
        engine.feed(observation)
    engine.close()
    assert n_compared


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), decided=st.sampled_from([0.9, 0.99, 0.9999]))
def test_sequences_of_events_match_reference(seed: int, decided: float) -> None:
    """Takes, put-backs and leans of four people who stand close together, one of them staff, two on one visit."""
    rng = np.random.default_rng(seed)
    attributor = Attributor(STORE, Planogram(STORE), decided)
    if seed % 3 == 0:
        attributor.set_staff(3)
    attributor.join(1, "visit")
    at_s, moved = 5.0, []
    for step in range(10):
        at_s += float(rng.choice([0.2, 0.5, 3.0, 20.0]))
        plate = int(rng.integers(0, len(STORE.plates)))
        grams = -float(STORE.products[rng.integers(0, len(STORE.products)) if rng.random() < 0.2 else plate].weight_g)
        if moved and rng.random() < 0.4:
            plate, grams = moved[int(rng.integers(len(moved)))]
            grams = -grams
        elif rng.random() < 0.15:
            grams = float(rng.uniform(-900, 900))
        elif rng.random() < 0.2:
            grams *= 2
        grams += float(rng.normal(0, 1))
        moved.append((plate, grams))
        at = [plate_hand(plate if rng.random() < 0.5 else int(rng.integers(8))) for _ in range(4)]
        places = np.array(at) + rng.normal(0, 0.02, (4, 3))
        history = at_shelf(dict(enumerate(tuple(place) for place in places.tolist())), 3.0)
        history.t_ns += round((at_s - 1.5) * 1e9)
        if step == 5:
            attributor.join(2, "visit")
        twin = copy.deepcopy(attributor)
        load = event(at_s, {plate: grams})
        belief = attributor.observe(load, history)
        expected = reference.observe(twin, load, history)
        assert_same_belief(belief, expected)
        assert_same_state(attributor, twin)
