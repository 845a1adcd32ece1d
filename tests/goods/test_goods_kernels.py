"""What a load may be, its candidates, and the factors of scales: the kernels against their NumPy twins."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
from goods.shop import T0, shop
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from reference import goods as reference

from fusion.goods.candidates import CandidateFinder
from fusion.goods.hands import Actors, HandRatio
from fusion.goods.loads import ShelfEvent
from fusion.goods.planogram import Planogram

STORE = shop(n_plates=6, rows=3)


@dataclass
class Scene:
    """A planogram in some state, a load, the hands that were near and what a classifier saw."""

    planogram: Planogram
    event: ShelfEvent
    actors: Actors
    seconds: list[HandRatio]
    held: np.ndarray | None
    sightings: list[tuple[int, int, int, float]]
    staff: frozenset[int] = frozenset()
    door: bool = False

    def is_behind_door(self, plate: int) -> bool:
        """In the place of `Hands`."""
        return self.door

    def second_ratios(self, event: ShelfEvent, history: object) -> list[HandRatio]:
        """In the place of `Hands`."""
        return self.seconds


def planogram_of(rng: np.random.Generator) -> Planogram:
    """Plates with odd goods on them, gains that were learnt, and look-alikes."""
    planogram = Planogram(STORE)
    n_plates, n_products = planogram.stock.shape
    planogram.stock[:] = np.where(rng.random(planogram.stock.shape) < 0.15, rng.uniform(0, 2, planogram.stock.shape), 0)
    planogram.planned[:] |= rng.random(planogram.planned.shape) < 0.05
    planogram.away[:] = rng.uniform(0, 1.5, n_products) * (rng.random(n_products) < 0.3)
    planogram.gain[:], planogram.gain_var[:] = rng.normal(1, 0.03, n_plates), rng.uniform(0, 8e-4, n_plates)
    planogram.weight_g[1:3] = planogram.weight_g[0] + rng.integers(0, 2)
    return planogram


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Loads that goods explain, on one plate or two, and others."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    planogram = planogram_of(rng)
    first = int(rng.integers(0, 17))
    n = 2 if rng.random() < 0.4 and planogram.rows.row[first] == planogram.rows.row[first + 1] else 1
    plates = np.arange(first, first + n)
    goods = rng.integers(0, len(planogram.gtins), rng.integers(1, 3))
    held = rng.uniform(0, 2.2, len(planogram.gtins)) * (rng.random(len(planogram.gtins)) < 0.2)
    if rng.random() < 0.3 and held.any() and planogram.planned[first].any():
        # One is put back while another is taken.
        put, taken = (int(rng.choice(np.flatnonzero(kind))) for kind in (held, planogram.planned[first]))
        grams = float(planogram.weight_g[put] - planogram.weight_g[taken])
    else:
        grams = float(planogram.weight_g[goods].sum()) if rng.random() < 0.8 else float(rng.uniform(5, 3000))
    share = rng.dirichlet(np.ones(n))
    delta_g = draw(st.sampled_from([-1.0, -1.0, 1.0])) * share * (grams + rng.normal(0, 2))
    rise_s = draw(st.sampled_from([math.nan, 0.0, 0.05, 0.3]))
    cov_g2 = np.diag(rng.uniform(0.05, 2.0, n))
    event = ShelfEvent(plates, T0 - 10**8, T0, T0 + 5 * 10**8, delta_g, cov_g2, False, rise_s)
    n_near = draw(st.integers(0, 5))
    log_ratio = np.append(np.sort(rng.normal(0, 3, n_near))[::-1], math.log(0.002))
    actors = Actors(np.append(np.arange(n_near), -1), log_ratio, float(np.logaddexp.reduce(log_ratio)))
    seconds = [HandRatio(int(track), float(rng.normal(0, 2))) for track in rng.permutation(6)[: rng.integers(0, 5)]]
    staff = frozenset({0}) if rng.random() < 0.3 else frozenset[int]()
    seen = [(T0 + 10**8, int(plates[0]), int(goods[0]), 0.8)] if rng.random() < 0.2 else []
    held_ = held if rng.random() < 0.8 else None
    return Scene(planogram, event, actors, seconds, held_, seen, staff, bool(rng.random() < 0.5))


@settings(max_examples=150, deadline=None)
@given(scene=scenes(), limit=st.sampled_from([1, 6, 12]))
def test_identifications_match_reference(scene: Scene, limit: int) -> None:
    event, planogram = scene.event, scene.planogram
    load = event.plates, event.delta_g, event.noise_g2
    assert_allclose(planogram.log_place(*load[:2]), reference.log_prior_of_place(planogram, *load[:2]), rtol=1e-11)
    for prior in (None, np.linspace(-3.0, 0.0, len(planogram.gtins))):
        found, expected = planogram.identify(*load, limit, prior), reference.identify(planogram, *load, limit, prior)
        assert_array_equal(found.product, expected.product)
        assert_array_equal(found.quantity, expected.quantity)
        for got, wanted in zip(found[2:], expected[2:]):
            assert_allclose(got, wanted, rtol=1e-11)


@settings(max_examples=200, deadline=None)
@given(scene=scenes())
def test_candidates_match_reference(scene: Scene) -> None:
    def cart_of(person: int) -> int:
        return 1 if person == 2 else person

    finder = CandidateFinder(scene.planogram, scene)  # type: ignore[arg-type]
    for sighting in scene.sightings:
        finder.sight(*sighting)
    twin = reference.CandidateFinder(scene.planogram, scene, list(finder._sightings))
    given_ = scene.event, scene.actors, None, scene.held, cart_of, scene.staff
    found, expected = finder.propose(*given_), twin.propose(*given_)  # type: ignore[arg-type]
    for name in ("owner", "cart", "product", "quantity"):
        assert_array_equal(getattr(found.table, name), getattr(expected.table, name))
    assert_allclose(found.log_candidate[: found.n], expected.log_candidate, rtol=1e-11, atol=2.0**-31)
    assert_allclose(found.log_weight[: found.n], expected.log_weight, rtol=1e-11)


@settings(max_examples=100, deadline=None)
@given(scene=scenes(), excluded=st.booleans())
def test_factors_match_reference(scene: Scene, excluded: bool) -> None:
    event, planogram = scene.event, scene.planogram
    if excluded:
        planogram.factors._of_loads[:, ::2] = -5.0
    twin = copy.deepcopy(planogram)
    load = event.plates, event.delta_g, event.noise_g2
    added = planogram.factors.observe(planogram, *load, scene.held)
    assert_allclose(added, reference.weigh_factors(twin.factors, twin, *load, scene.held), atol=1e-9)
    assert_allclose(planogram.factors._of_loads, twin.factors._of_loads, atol=1e-9)
    assert planogram.factors.suspect == twin.factors.suspect


@settings(max_examples=100, deadline=None)
@given(scene=scenes(), data=st.data())
def test_gains_match_reference(scene: Scene, data: st.DataObject) -> None:
    """Of loads of some goods, some of which refuse the gains, half an hour to three days after those before."""
    learnt = scene.planogram.learnt
    twin = copy.deepcopy(learnt)
    t_ns = T0
    for _ in range(data.draw(st.integers(1, 4))):
        t_ns += data.draw(st.integers(1, 100)) * 1800 * 10**9
        goods = data.draw(st.integers(0, len(learnt.weight_g) - 1)), data.draw(st.sampled_from([-2, -1, 1]))
        grams = goods[1] * learnt.weight_g[goods[0]] * data.draw(st.sampled_from([1.0, 1.02, 1.1, 1.5]))
        load = scene.event.plates, scene.event.share * grams, scene.event.noise_g2
        learnt.follow_gain(*load, *goods, t_ns)
        reference.follow_gain(twin, *load, *goods, t_ns)
    assert_allclose(learnt.gain, twin.gain, rtol=1e-11)
    assert_allclose(learnt.gain_var, twin.gain_var, rtol=1e-11)
    assert_array_equal(learnt._gain_ns, twin._gain_ns)
    assert {plate: known.n for plate, known in learnt._refused.items()} == {
        plate: known.n for plate, known in twin._refused.items()
    }
