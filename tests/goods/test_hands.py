"""The likelihood of hands: the kernel against its twin."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from goods.shop import LAYOUT, STORE, T0, history_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from reference import attribution as reference

from fusion._kernels import attribution as kernel
from fusion.goods.hands import (
    BYSTANDER_RATIO,
    CORRECTION_MAX,
    DATED_WITHIN_S,
    LEARNT,
    PUTTING,
    SECOND_NS,
    STEPS_APART_S,
    TAKING,
    Actors,
    Hands,
    HandTrees,
)
from fusion.goods.loads import ShelfEvent
from fusion.people.arms import ArmHistory
from fusion.results import People


def model_by_name(model: np.ndarray) -> dict[str, float]:
    """The kernel's constants by their names in its enum."""
    text = (Path(__file__).parents[2] / "native/attribution.pyx").read_text()
    body = text[text.index("cdef enum:") :]
    names = re.findall(r"[A-Z][A-Z_]+", body[: body.index("\n\n")])
    assert len(names) == len(model)
    return dict(zip(map(str.lower, names), model.tolist()))


def random_trees(rng: np.random.Generator) -> HandTrees:
    """Trees that look at all features, trained on most of what the test's people show."""
    n, n_features = 12, kernel.HAND_FEATURES
    trained = np.array([np.full(n_features, -15.0), np.full(n_features, 15.0)])
    trained[1, 4] = rng.uniform(0.05, 0.2)
    on = rng.integers(0, n_features, (n, 7)).astype(np.int32)
    return HandTrees(trained, on, rng.normal(0.0, 1.0, (n, 7)), rng.normal(0.0, 0.5, (n, 8)))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), anytime=st.booleans(), n_people=st.integers(0, 6))
def test_hand_ratios_match_reference(seed: int, anytime: bool, n_people: int) -> None:
    rng = np.random.default_rng(seed)
    n = 12 * n_people
    t_ns = T0 + np.sort(rng.integers(-500, 500, n)) * 10**6
    track = rng.integers(0, max(n_people, 1), n)
    position = rng.uniform(-1.5, 1.5, (n, 2))
    arms = position[:, None, None, :] + rng.normal(0, 0.4, (n, 2, 3, 2))
    arms = np.concatenate([arms, rng.uniform(0.3, 1.5, (n, 2, 3, 1))], axis=3)
    arms[rng.random((n, 2, 3)) < 0.3] = np.nan
    sd, confirmed = rng.uniform(0.01, 0.2, (n, 2)), (rng.random(n) < 0.3).astype(np.int8)
    yaw = rng.uniform(-3, 3)
    where = np.array([0.1, -0.2, 0.9]), math.cos(yaw), math.sin(yaw), 0.2, 0.4, rng.choice([0.2, 1.0])
    seen = t_ns, track, confirmed, position, arms, sd, T0, anytime, *where
    person, log_ratio = np.zeros(8, np.int64), np.full(8, np.nan)
    work = np.full((8, 2, kernel.HAND_COLUMNS), np.nan)
    features = np.full((8, kernel.HAND_FEATURES), np.nan)
    trees = random_trees(rng) if rng.random() < 0.7 else LEARNT
    for model in (TAKING, PUTTING):
        found = kernel.hand_ratios(*seen, model, *trees, person, log_ratio, features, work)
        expected = reference.hand_ratios(*seen, model_by_name(model), trees)
        assert sorted(person[:found].tolist()) == sorted(expected)
        assert_allclose(log_ratio[:found], [expected[track] for track in person[:found].tolist()], rtol=1e-9)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_what_is_learnt_is_bounded_and_turns_with_the_shop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, t_ns = 8, T0 + np.arange(-4, 4) * 50_000_000
    position, arms = rng.uniform(-0.9, 0.9, (n, 2)), rng.normal(np.array([0.0, 0.0, 1.0]), 0.3, (n, 2, 3, 3))
    sd, confirmed = rng.uniform(0.01, 0.05, (n, 2)), np.ones(n, np.int8)
    yaw = rng.uniform(-3.0, 3.0)
    turn = np.array([[math.cos(yaw), -math.sin(yaw), 0.0], [math.sin(yaw), math.cos(yaw), 0.0], [0.0, 0.0, 1.0]])

    def log_ratios(trees: HandTrees, turned: bool) -> np.ndarray:
        by = turn if turned else np.eye(3)
        person, log_ratio = np.zeros(8, np.int64), np.full(8, np.nan)
        found = kernel.hand_ratios(
            t_ns, np.arange(n) % 3, confirmed, position @ by[:2, :2].T, arms @ by.T, sd, T0, False,
            by @ [0.1, -0.2, 0.9], by[0, 0], by[1, 0], 0.2, 0.4, 1.0, TAKING, *trees, person, log_ratio,
            np.zeros((8, kernel.HAND_FEATURES)), np.zeros((8, 2, kernel.HAND_COLUMNS)),
        )  # fmt: skip
        return log_ratio[:found]

    for trees in (LEARNT, random_trees(rng)):
        learnt, physical = log_ratios(trees, False), log_ratios(HandTrees.none(), False)
        assert (np.abs(learnt - physical) <= CORRECTION_MAX + 1e-9).all()
        assert_allclose(log_ratios(trees, True), learnt, atol=1e-6)


AT_PLATE, BESIDE_BODY = (0.8, 1.03, 0.55), (0.8, 0.75, 0.9)


def _reaching(at_s: dict[int, tuple[float, float]]) -> ArmHistory:
    """People before plate 3 whose right hand is at it between two times, and hangs before and after."""
    instants = []
    for t_s in np.arange(0, 4, 0.05):
        n = len(at_s)
        joints, sd = np.full((n, LAYOUT.n_joints, 3), np.nan), np.full((n, LAYOUT.n_joints), np.nan)
        wrist = LAYOUT.index("r_wrist")
        joints[:, wrist] = [AT_PLATE if first <= t_s <= last else BESIDE_BODY for first, last in at_s.values()]
        sd[:, wrist] = 0.02
        place = np.tile([0.8, 0.6], (n, 1))
        instants.append(
            People(
                T0 + int(t_s * 1e9), np.array(list(at_s)), np.ones(n, bool), place, np.full(n, 0.05), joints, sd,
                np.full(n, T0), np.ones(n),
            )
        )  # fmt: skip
    return history_of(instants)


def _load(rise_s: float) -> ShelfEvent:
    """Two pieces that left plate 3 one after the other; the plate moved for a second more."""
    contact_ns = T0 + 2 * SECOND_NS
    return ShelfEvent(
        np.array([3]), contact_ns - SECOND_NS // 2, contact_ns, contact_ns + SECOND_NS, np.array([-490.0]),
        np.eye(1), rise_s=rise_s,
    )  # fmt: skip


def test_a_load_that_came_or_went_slower_than_any_grip_moved_at_an_unknown_instant() -> None:
    """A hand that leans on the plate later makes the load's date its own: whose hand was there before counts too."""
    hands = Hands(STORE)
    history = _reaching({1: (1.9, 2.3), 2: (1.0, 1.6)})
    leaning = replace(_load(DATED_WITHIN_S + 0.5), onset_ns=T0 + SECOND_NS)
    dated = dict(zip(*_known(hands.actors(replace(leaning, rise_s=DATED_WITHIN_S), history))))
    undated = dict(zip(*_known(hands.actors(leaning, history))))
    assert dated[1] > 0.95 and undated[1] == pytest.approx(0.5, abs=0.3) == undated[2]


@pytest.mark.parametrize(("other", "rise_s"), [((1.0, 1.45), 0.7), ((2.6, 3.2), 0.7), ((2.6, 3.2), 0.8)])
def test_a_load_of_two_steps_may_have_moved_at_either(other: tuple[float, float], rise_s: float) -> None:
    """Of two people, one at each of them, neither is sure; with one step, the one who was there is."""
    hands = Hands(STORE)
    history = _reaching({1: (1.9, 2.3), 2: other})
    one_step = dict(zip(*_known(hands.actors(_load(STEPS_APART_S), history))))
    by_steps = dict(zip(*_known(hands.actors(_load(rise_s), history))))
    assert one_step[1] > 0.95
    assert 0.15 < by_steps[2] < 0.85 and by_steps[1] == pytest.approx(1.0 - by_steps[2], abs=0.01)
    # Whose hand was there all the time moved it in any case.
    alone = dict(zip(*_known(hands.actors(_load(rise_s), _reaching({1: (1.0, 3.2), 2: (3.5, 4.0)})))))
    assert alone[1] > 0.95


def _known(actors: Actors) -> tuple[list[int], list[float]]:
    """Who may have moved a load, and how probably."""
    return actors.owner.tolist(), np.exp(actors.log_probability).tolist()


def test_a_second_hand_is_judged_at_its_own_step() -> None:
    hands = Hands(STORE)
    history = _reaching({1: (1.7, 2.1), 2: (2.25, 2.8)})
    at_contact = dict(hands.log_ratios(_load(0.05), history, anytime=False))
    assert at_contact[2] < 0.0 < at_contact[1]
    # Whoever stands near is likelier there than people anywhere; a second hand has to be likelier than that.
    assert dict(hands.second_ratios(_load(0.5), history))[2] > 0.0
    # One grip of two pieces: the hand that comes while the plate still moves has no part in it.
    level = math.log(BYSTANDER_RATIO)
    assert dict(hands.second_ratios(_load(0.05), history)) == {p: at - level for p, at in at_contact.items()}
    anytime = dict(hands.log_ratios(_load(0.05), history, anytime=True))
    assert anytime[2] > 0.0
    # A load on several plates has no rise: its second step is at an unknown instant.
    assert dict(hands.second_ratios(_load(math.nan), history)) == {p: at - level for p, at in anytime.items()}
