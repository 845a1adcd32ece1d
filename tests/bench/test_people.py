"""The scores of `python -m bench people` on cases counted by hand."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest

from bench.accuracy import people


@pytest.fixture(scope="module")
def accuracy() -> ModuleType:
    return people


def instant(accuracy, people, tracks, identity=1.0, outside=(), stray=()):
    """people, tracks: {number: (x, y)}; outside: people who do not count; stray: tracks that are no false positives."""
    return accuracy.Instant(
        people=np.array(list(people), np.int64),
        people_m=np.array(list(people.values()), float).reshape(-1, 2),
        people_count=np.array([p not in outside for p in people], bool),
        tracks=np.array(list(tracks), np.int64),
        tracks_m=np.array(list(tracks.values()), float).reshape(-1, 2),
        tracks_count=np.array([t not in stray for t in tracks], bool),
        identity=np.full(len(tracks), identity),
    )


def test_two_people_who_swap_tracks(accuracy):
    a, b = (0.0, 0.0), (3.0, 0.0)
    before = [instant(accuracy, {1: a, 2: b}, {7: a, 8: b}) for _ in range(6)]
    after = [instant(accuracy, {1: a, 2: b}, {7: b, 8: a}, identity=0.95) for _ in range(4)]
    score = accuracy.score_identities(before + after)
    assert (score.n_truth, score.n_reported, score.misses, score.false_positives) == (20, 20, 0, 0)
    assert (score.switches, score.swaps, score.silent_swaps) == (2, 2, 2)
    assert score.mota == pytest.approx(1 - 2 / 20)
    # The better of both pairings holds for six of ten instants.
    assert score.true_ids == 12
    assert score.idf1 == pytest.approx(0.6)


def test_a_swap_with_a_reported_doubt_is_not_silent(accuracy):
    a, b = (0.0, 0.0), (3.0, 0.0)
    instants = [instant(accuracy, {1: a, 2: b}, {7: a, 8: b}), instant(accuracy, {1: a, 2: b}, {7: b, 8: a}, 0.5)]
    score = accuracy.score_identities(instants)
    assert (score.swaps, score.silent_swaps) == (2, 0)


def test_a_new_track_after_a_gap_is_a_switch_and_no_swap(accuracy):
    at = (1.0, 1.0)
    instants = [
        instant(accuracy, {1: at}, {7: at}),
        instant(accuracy, {1: at}, {}),
        instant(accuracy, {1: at}, {9: at}),
    ]
    score = accuracy.score_identities(instants)
    assert (score.misses, score.switches, score.swaps, score.true_ids) == (1, 1, 0, 1)
    assert score.mota == pytest.approx(1 - 2 / 3)
    assert score.idf1 == pytest.approx(2 * 1 / (3 + 2))


def test_pairs_stay_while_they_are_within_the_gate(accuracy):
    # At the second instant each is nearer to the wrong track, but both are still within half a metre of their own.
    first = instant(accuracy, {1: (0.0, 0.0), 2: (0.4, 0.0)}, {7: (0.0, 0.0), 8: (0.4, 0.0)})
    crossed = instant(accuracy, {1: (0.0, 0.0), 2: (0.4, 0.0)}, {7: (0.4, 0.0), 8: (0.0, 0.0)})
    assert accuracy.score_identities([first, crossed]).switches == 0


def test_beyond_the_gate_is_a_miss_and_a_false_positive(accuracy):
    score = accuracy.score_identities([instant(accuracy, {1: (0.0, 0.0)}, {7: (0.6, 0.0)})])
    assert (score.misses, score.false_positives, score.idf1) == (1, 1, 0.0)


def test_people_outside_the_floor_do_not_count(accuracy):
    inside, outside = (1.0, 1.0), (1.0, -1.0)
    tracked = instant(accuracy, {1: inside, 2: outside}, {7: inside, 8: outside}, outside={2}, stray={8})
    untracked = instant(accuracy, {1: inside, 2: outside}, {7: inside}, outside={2})
    vanished = instant(accuracy, {1: inside}, {7: inside, 8: outside}, stray={8})
    ghost = instant(accuracy, {1: inside}, {7: inside, 8: (3.0, 3.0)})
    score = accuracy.score_identities([tracked, untracked, vanished])
    assert (score.mota, score.idf1, score.n_reported) == (1.0, 1.0, 3)
    assert accuracy.score_identities([ghost]).false_positives == 1


def test_no_people_and_no_tracks(accuracy):
    score = accuracy.score_identities([instant(accuracy, {}, {})])
    assert (score.n_truth, score.n_reported, score.idf1) == (0, 0, 0.0)


def test_normalised_error_with_the_true_covariance_is_three(accuracy):
    random = np.random.default_rng(0)
    root = random.normal(size=(3, 3))
    cov = root @ root.T + 0.1 * np.eye(3)
    error = random.multivariate_normal(np.zeros(3), cov, 20_000)
    by_hand = [e @ np.linalg.inv(cov) @ e for e in error[:5]]
    covs = np.broadcast_to(cov, (20_000, 3, 3))
    np.testing.assert_allclose(accuracy.normalised_error_sq(error[:5], covs[:5]), by_hand)
    assert accuracy.normalised_error_sq(error, covs).mean() == pytest.approx(3.0, abs=0.08)
    # The deviation along the worst direction instead: three if the error is isotropic, less if it is flat.
    ball = random.normal(0.0, 0.02, (20_000, 3))
    flat = ball * [1.0, 0.1, 0.1]
    wrist_figures = accuracy._wrist_figures
    sd, cov_ball = np.full(20_000, 0.02), np.broadcast_to(0.0004 * np.eye(3), (20_000, 3, 3))
    assert wrist_figures(ball, sd, cov_ball, 40_000)["nees_sd"] == pytest.approx(3.0, abs=0.08)
    assert wrist_figures(ball, sd, cov_ball, 40_000)["nees_sd_over_percent"] == pytest.approx(5.0, abs=0.5)
    assert wrist_figures(ball, sd, cov_ball, 40_000)["wrist_told_percent"] == 50.0
    assert wrist_figures(flat, sd, cov_ball, 40_000)["nees_sd"] == pytest.approx(1.02, abs=0.05)


def test_margin_of_the_mean(accuracy):
    mean, margin = accuracy.mean_and_margin([1.0, 2.0, 3.0, math.nan])
    # Student's t with two degrees: 4.3027; deviation 1 over the root of 3.
    assert (mean, margin) == (2.0, pytest.approx(4.3027 / math.sqrt(3), rel=1e-4))
    assert math.isnan(accuracy.mean_and_margin([1.0])[1])


def test_truth_is_known_at_every_instant(accuracy):
    """The recorded truth, ten rows a second, equals the kept states at those instants."""
    from fusion.simulation import Scenario, Simulation, demo_store

    store = demo_store(n_cameras=1, n_plates=8).model_copy(update={"weight_rate_hz": 1.0})
    scenario = Scenario(seed=3, minutes=0.6, shoppers=1)
    plain, traced = Simulation(store, scenario), accuracy.TracedSimulation(store, scenario)
    for simulation in (plain, traced):
        for _ in simulation.observations():
            pass
    rows = plain.truth.people[5:200:20]
    numbers, present, places, joints = traced.people_at(np.array([row.t_ns for row in rows]))
    assert numbers.tolist() == [0] and present.all()
    np.testing.assert_allclose(places[:, 0], [row.position_m[0] for row in rows], atol=1e-6)
    used = accuracy.body.layout_joints(store.layout)
    np.testing.assert_allclose(joints[:, 0][:, used], [row.joints_m[0] for row in rows], atol=1e-6)


def test_a_calm_shop_is_tracked(accuracy):
    """A small run from end to end: a calm shop, and its table."""
    case = accuracy.Case("calm", accuracy._shop(4, 8), {"shoppers": 2, "minutes": 0.7, "picks_per_person": 2.0}, (0, 4))
    results = {name: [figures] for name, figures in accuracy.run(case, seed=1, share=0.2).items()}
    assert list(results) == ["calm", "calm, 1 of 4 cameras gone"]
    calm = results["calm"][0]
    assert calm["idf1"] > 90 and calm["position_median_m"] < 0.1 and calm["wrist_told_percent"] > 50
    assert results["calm, 1 of 4 cameras gone"][0]["cameras_named_percent"] == 100
    assert len(accuracy.markdown(accuracy.summary(results)).splitlines()) == 4
