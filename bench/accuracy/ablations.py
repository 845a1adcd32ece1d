"""Ablations: the engine without one of its parts, or with added knowledge, on the same recordings."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

import numpy as np

from bench.accuracy.replays import Answers, replayed
from bench.accuracy.scenarios import Run
from bench.accuracy.truth import TrueEvent
from fusion.goods import hypotheses, learnt, ledger, loads, weighings
from fusion.observations import Frame, ItemSighting, Observation, ShelfReading
from fusion.simulation import Scenario
from fusion.simulation.goods import ShelfMap, Stock
from fusion.simulation.scales import Scales
from fusion.store.models import Facing, Store


def _without_arms(store: Store, observations: Iterable[Observation]) -> Iterator[Observation]:
    """The observations with every wrist and elbow undetected."""
    arms = list(store.layout.indices("l_wrist", "r_wrist", "l_elbow", "r_elbow"))
    for observation in observations:
        if isinstance(observation, Frame):
            keypoints = observation.keypoints.copy()
            keypoints[:, arms] = 0.0
            observation = Frame(observation.t_ns, observation.camera, keypoints, observation.appearance)
        yield observation


def _without_planogram(store: Store) -> Store:
    """The store with every product planned on every plate."""
    everywhere = [Facing(plate=p.plate, gtin=product.gtin, stock=5) for p in store.plates for product in store.products]
    return store.model_copy(update={"planogram": tuple(everywhere)})


@contextmanager
def constants(module: ModuleType | type, **values: object) -> Iterator[None]:
    """Replace constants of a module or a class for a while.

    AttributeError if a name is not there, so that no ablation is void.

    A constant has to be replaced in every module that reads it: `from x import NAME` copies it at import.
    """
    before = {name: getattr(module, name) for name in values}
    try:
        for name, value in values.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


# A camera at the shelf with a product classifier: share of hands for which it reports a product, and share right.
CLASSIFIER_SEES, CLASSIFIER_RIGHT = 0.8, 0.9


def _classified(
    store: Store, observations: Iterable[Observation], events: Sequence[TrueEvent]
) -> Iterator[Observation]:
    """The observations and such a classifier's report on every hand at a plate, in the form of `items.jsonl`."""
    random = np.random.default_rng(len(events))
    gtins = [product.gtin for product in store.products]
    sightings = []
    for event in events:
        if random.random() < CLASSIFIER_SEES:
            gtin = event.gtin if random.random() < CLASSIFIER_RIGHT else gtins[int(random.integers(len(gtins)))]
            sightings.append(
                ItemSighting(event.t_ns, "shelf camera", "seen", gtin, 1, CLASSIFIER_RIGHT, plate=event.plate)
            )
    yield from heapq.merge(observations, sightings, key=lambda observation: observation.t_ns)


def _single_hypothesis(store: Store, observations: Iterable[Observation]) -> Answers:
    with constants(hypotheses, HYPOTHESES_MAX=1):
        return replayed(store, observations)


def _weights_known(store: Store, observations: Iterable[Observation], scenario: Scenario) -> Answers:
    """The answers with every plate calibrated and every delivery weighed.

    What remains uncertain about a load is the piece, its place on the plate, and noise.
    """
    shelf_map = ShelfMap(store)
    gain = dict(zip((plate.plate for plate in store.plates), Scales(store, shelf_map, scenario).gain))
    batch = Stock(store, shelf_map, scenario)._batch  # The simulator's secret, which no engine could know.
    products = [p.model_copy(update={"weight_g": p.weight_g * batch[p.gtin]}) for p in store.products]

    def calibrated() -> Iterator[Observation]:
        for observation in observations:
            if isinstance(observation, ShelfReading):
                samples = observation.samples / np.float32(gain[observation.plate])
                observation = ShelfReading(observation.t_ns, observation.plate, samples)
            yield observation

    # A hundredth more than the place's share, so that the variance of a plate's own gain stays positive.
    gain_sd = weighings.PLACE_GAIN_SD * 1.01
    gain_var = gain_sd**2 - weighings.PLACE_GAIN_SD**2
    with (
        constants(ledger, GAIN_SD=gain_sd), constants(loads, GAIN_SD=gain_sd), constants(learnt, GAIN_VAR=gain_var),
    ):  # fmt: skip
        return replayed(store.model_copy(update={"products": tuple(products)}), calibrated())


ABLATIONS: dict[str, Callable[[Run, Store, Iterable[Observation], Sequence[TrueEvent]], Answers]] = {
    "without wrists and elbows": lambda _, store, seen, events: replayed(store, _without_arms(store, seen)),
    "without a planogram": lambda _, store, seen, events: replayed(_without_planogram(store), seen),
    "one joint hypothesis kept, not 128": lambda _, store, seen, events: _single_hypothesis(store, seen),
    "plates calibrated, deliveries weighed": lambda run, store, seen, _: _weights_known(store, seen, run.scenario),
    "with a classifier at the shelf": lambda _, store, seen, events: replayed(store, _classified(store, seen, events)),
}
# Cases of the accuracy table on which the ablations run.
ABLATED = ("busy", "putback", "look-alike")
