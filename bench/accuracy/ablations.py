"""Engines without a part, and with added knowledge, on the same recordings."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

import numpy as np

from bench.accuracy.replays import Answers, replayed
from bench.accuracy.scenarios import Take
from bench.accuracy.truth import TrueEvent
from fusion.goods import held, hypotheses, loads
from fusion.goods.planogram import PLACE_GAIN_SD
from fusion.observations import Frame, ItemSighting, Observation, ShelfReading
from fusion.simulation import Scenario
from fusion.simulation.goods import ShelfMap, Stock
from fusion.simulation.scales import Scales
from fusion.store.models import Facing, Store


def _without_arms(store: Store, observations: Iterable[Observation]) -> Iterator[Observation]:
    arms = list(store.layout.indices("l_wrist", "r_wrist", "l_elbow", "r_elbow"))
    for observation in observations:
        if isinstance(observation, Frame):
            keypoints = observation.keypoints.copy()
            keypoints[:, arms] = 0.0
            observation = Frame(observation.t_ns, observation.camera, keypoints, observation.appearance)
        yield observation


def _anything_anywhere(store: Store) -> Store:
    """The store of somebody who does not know what lies where."""
    everywhere = [Facing(plate=p.plate, gtin=product.gtin, stock=5) for p in store.plates for product in store.products]
    return store.model_copy(update={"planogram": tuple(everywhere)})


@contextmanager
def _constants(module: ModuleType, **values: float) -> Iterator[None]:
    before = {name: getattr(module, name) for name in values}
    try:
        for name, value in values.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


# A camera at the shelf with a product classifier: how often it sees the hand's product at all, and is right then.
CLASSIFIER_SEES, CLASSIFIER_RIGHT = 0.8, 0.9


def _classified(
    store: Store, observations: Iterable[Observation], events: Sequence[TrueEvent]
) -> Iterator[Observation]:
    """With what such a classifier would say of every hand at a plate, as `items.jsonl` has it."""
    random = np.random.default_rng(len(events))
    gtins = [product.gtin for product in store.products]
    said = []
    for event in events:
        if random.random() < CLASSIFIER_SEES:
            gtin = event.gtin if random.random() < CLASSIFIER_RIGHT else gtins[int(random.integers(len(gtins)))]
            said.append(ItemSighting(event.t_ns, "shelf camera", "seen", gtin, 1, CLASSIFIER_RIGHT, plate=event.plate))
    yield from heapq.merge(observations, said, key=lambda one: one.t_ns)


def _with_one(store: Store, observations: Iterable[Observation]) -> Answers:
    with _constants(hypotheses, HYPOTHESES_MAX=1):
        return replayed(store, observations)


def _weights_known(store: Store, observations: Iterable[Observation], scenario: Scenario) -> Answers:
    """As if every plate had been calibrated and every delivery weighed: what is left of a load's doubt is the piece,
    its place on the plate, and noise."""
    shelf_map = ShelfMap(store)
    gain = dict(zip((plate.plate for plate in store.plates), Scales(store, shelf_map, scenario).gain))
    batch = Stock(store, shelf_map, scenario)._batch  # What no engine could know.
    products = [p.model_copy(update={"weight_g": p.weight_g * batch[p.gtin]}) for p in store.products]

    def calibrated() -> Iterator[Observation]:
        for observation in observations:
            if isinstance(observation, ShelfReading):
                samples = observation.samples / np.float32(gain[observation.plate])
                observation = ShelfReading(observation.t_ns, observation.plate, samples)
            yield observation

    known = PLACE_GAIN_SD * 1.01
    with _constants(held, GAIN_SD=known), _constants(loads, GAIN_SD=known):
        return replayed(store.model_copy(update={"products": tuple(products)}), calibrated())


ABLATIONS: dict[str, Callable[[Take, Store, Iterable[Observation], Sequence[TrueEvent]], Answers]] = {
    "without wrists and elbows": lambda _, store, seen, events: replayed(store, _without_arms(store, seen)),
    "without a planogram": lambda _, store, seen, events: replayed(_anything_anywhere(store), seen),
    "one joint hypothesis kept, not 128": lambda _, store, seen, events: _with_one(store, seen),
    "plates calibrated, deliveries weighed": lambda one, store, seen, _: _weights_known(store, seen, one.scenario),
    "with a classifier at the shelf": lambda _, store, seen, events: replayed(store, _classified(store, seen, events)),
}
ABLATED = ("busy", "putback", "look-alike")
