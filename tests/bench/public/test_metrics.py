"""HOTA against TrackEval, MOTA, MODA and IDF1 against motmetrics, PCP and MPJPE against what follows by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from bench.public.metrics import ALPHAS, HOTA_RANGE_M, LIMBS, Scene, hota, parts_right, score_floor, score_poses

EMPTY = np.zeros(0, int), np.zeros((0, 2))


def scenes(seed: int, n_instants: int = 30, crowded: bool = False) -> list[Scene]:
    """People on random walks, and tracks that follow them with noise, misses, ghosts, exchanges and new numbers."""
    random = np.random.default_rng(seed)
    n = int(random.integers(1, 6))
    places = random.uniform(0, 2 if crowded else 8, (n, 2))
    number = np.arange(n) + 10
    made = []
    for k in range(n_instants):
        places = places + random.normal(0, 0.2, (n, 2))
        there = random.random(n) < 0.9
        seen = random.random(n) < 0.8
        if random.random() < 0.15 and n > 1:
            i, j = random.choice(n, 2, replace=False)
            number[[i, j]] = number[[j, i]]
        if random.random() < 0.1:
            number[random.integers(n)] = 100 + k
        ghosts = int(random.integers(0, 2))
        tracks = np.concatenate([number[seen], 1000 + np.arange(ghosts)])
        tracks_m = np.concatenate([places[seen] + random.normal(0, 0.25, (seen.sum(), 2)),
                                   random.uniform(0, 8, (ghosts, 2))])
        made.append(Scene(np.flatnonzero(there), places[there], tracks, tracks_m))
    return made


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_hota_is_that_of_trackeval(seed, crowded):
    metrics = pytest.importorskip("trackeval.metrics.hota")
    data = scenes(seed, crowded=crowded)
    people = sorted({p for scene in data for p in scene.people.tolist()})
    tracks = sorted({t for scene in data for t in scene.tracks.tolist()})
    theirs = metrics.HOTA().eval_sequence(
        {
            "num_gt_dets": sum(len(scene.people) for scene in data),
            "num_tracker_dets": sum(len(scene.tracks) for scene in data),
            "num_gt_ids": len(people),
            "num_tracker_ids": len(tracks),
            "gt_ids": [np.array([people.index(p) for p in scene.people], int) for scene in data],
            "tracker_ids": [np.array([tracks.index(t) for t in scene.tracks], int) for scene in data],
            "similarity_scores": [
                np.maximum(0, 1 - np.linalg.norm(s.people_m[:, None] - s.tracks_m[None], axis=2) / HOTA_RANGE_M)
                for s in data
            ],
        }
    )
    ours = hota(data)
    assert_allclose(ours.hota, theirs["HOTA"], atol=1e-12)
    assert_allclose(ours.deta, theirs["DetA"], atol=1e-12)
    assert_allclose(ours.assa, theirs["AssA"], atol=1e-12)
    assert 0.1 < ours.hota.mean() < 0.95, "a case in which something is right and something wrong"


@pytest.mark.parametrize("seed", range(8))
def test_mota_and_idf1_are_those_of_motmetrics(seed):
    motmetrics = pytest.importorskip("motmetrics")
    data = scenes(seed)
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for scene in data:
        distance = np.linalg.norm(scene.people_m[:, None] - scene.tracks_m[None], axis=2)
        accumulator.update(scene.people, scene.tracks, np.where(distance < 0.5, distance, np.nan))
    wanted = ["mota", "idf1", "num_misses", "num_false_positives", "num_switches", "num_objects"]
    theirs = motmetrics.metrics.create().compute(accumulator, metrics=wanted, name="x").iloc[0]
    ours = score_floor(data)
    assert (ours.misses, ours.false_positives) == (theirs["num_misses"], theirs["num_false_positives"])
    assert_allclose(ours.idf1, theirs["idf1"], atol=1e-12)
    assert (ours.switches, ours.mota) == (theirs["num_switches"], pytest.approx(theirs["mota"]))


@pytest.mark.parametrize("seed", range(8))
def test_moda_counts_the_most_pairs_of_each_instant(seed):
    data = scenes(seed)
    n_people = n_wrong = 0
    for scene in data:
        near = np.linalg.norm(scene.people_m[:, None] - scene.tracks_m[None], axis=2) < 0.5
        matched = (maximum_bipartite_matching(csr_array(near), perm_type="column") >= 0).sum() if near.size else 0
        n_people += len(scene.people)
        n_wrong += len(scene.people) + len(scene.tracks) - 2 * matched
    assert score_floor(data).moda == pytest.approx(1 - n_wrong / n_people)


def test_hota_by_hand():
    """One person for four instants, at first under one number, then under another: AssA is a half, HOTA its root."""
    place = np.zeros((1, 2))
    data = [Scene(np.array([0]), place, np.array([k // 2]), place) for k in range(4)]
    found = hota(data)
    assert_allclose(found.deta, 1.0)
    assert_allclose(found.assa, 0.5)
    assert_allclose(found.hota, np.sqrt(0.5))
    # Half a metre off, similarity is 0.75: right up to alpha 0.75.
    off = [Scene(np.array([0]), place, np.array([0]), place + np.array([0.5, 0.0])) for _ in range(4)]
    assert_allclose(hota(off).deta, (ALPHAS < 0.76).astype(float))


@pytest.mark.parametrize("there, seen", [(False, False), (True, False), (False, True)])
def test_an_empty_floor_has_a_score(there, seen):
    one = np.array([1]), np.zeros((1, 2))
    score = score_floor([Scene(*(one if there else EMPTY), *(one if seen else EMPTY))] * 3)
    assert score.hota == 0.0 and score.idf1 == 0.0 and score.misses == 3 * there and score.false_positives == 3 * seen
    assert score_floor([]).hota == 0.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(-5, 5), st.floats(0, 6.3))
def test_scores_do_not_depend_on_the_frame_or_on_numbers(seed, shift_m, angle):
    data = scenes(seed, n_instants=12)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = [
        Scene(5000 - s.people, s.people_m @ turn + shift_m, 9000 - s.tracks, s.tracks_m @ turn + shift_m) for s in data
    ]
    a, b = score_floor(data), score_floor(moved)
    assert (a.misses, a.false_positives, a.switches) == (b.misses, b.false_positives, b.switches)
    assert_allclose([a.hota, a.idf1, a.mota], [b.hota, b.idf1, b.mota], atol=1e-9)


NAMES = ["r_ankle", "r_knee", "r_hip", "l_hip", "l_knee", "l_ankle", "r_wrist", "r_elbow", "r_shoulder",
         "l_shoulder", "l_elbow", "l_wrist", "chin", "top"]  # fmt: skip


def body(random: np.random.Generator) -> np.ndarray:
    return random.uniform(-1, 1, (len(NAMES), 3))


def test_a_part_is_right_up_to_half_its_length():
    true = dict(zip(NAMES, body(np.random.default_rng(1))))
    assert parts_right(true, true).all()
    a, b = LIMBS[4]
    length = np.linalg.norm(true[a] - true[b])
    for factor, right in ((0.49, True), (0.51, False)):
        moved = {**true, a: true[a] + [2 * factor * length * 0.5, 0, 0], b: true[b] + [0, 2 * factor * length * 0.5, 0]}
        assert parts_right(moved, true)[4] == right
    assert not parts_right({**true, "chin": np.full(3, np.nan)}, true)[[8, 9]].any()


def test_poses_by_hand():
    random = np.random.default_rng(2)
    truth = np.stack([np.stack([body(random), body(random) + 5.0]) for _ in range(4)])
    truth[0, 1] = np.nan
    estimates = [truth[k][np.isfinite(truth[k]).all((1, 2))] + [0.0, 0.03, 0.04] for k in range(4)]
    score = score_poses(truth, NAMES, estimates, persons=[0, 1])
    assert score.pcp == (100.0, 100.0) and score.known == 1.0 and score.found == 1.0
    assert score.mpjpe_mm == pytest.approx(50.0)
    assert score.people_per_instant == pytest.approx(7 / 4)
    # One person is missed at one instant of three: PCP 2/3; without heads there is no PCP.
    estimates[3] = estimates[3][:1]
    score = score_poses(truth, NAMES, estimates, persons=[0, 1])
    assert score.pcp == (100.0, pytest.approx(200 / 3)) and score.found == pytest.approx(6 / 7)
    bare = score_poses(truth[:, :, :12], NAMES[:12], [e[:, :12] for e in estimates], persons=None)
    assert bare.pcp == () and np.isnan(bare.weighted) and bare.mpjpe_mm == pytest.approx(50.0)
    assert np.isnan(score_poses(truth, NAMES, [np.zeros((0, 14, 3))] * 4, None).mpjpe_mm)
