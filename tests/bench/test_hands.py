"""The bench of hands: trees are learnt from what tells who acted, and the table in the package is the one it writes."""

from __future__ import annotations

import numpy as np
import pytest
from reference.attribution import correction

from bench.accuracy import hands
from bench.accuracy.boosting import corrected, fit
from bench.accuracy.contacts import Looks
from bench.accuracy.motions import MOTIONS, moving
from fusion._kernels import attribution as kernel
from fusion.goods.hands import CORRECTION_MAX, LEARNT, HandTrees
from fusion.simulation import shopping, staff

N_CONTACTS = 400
ELBOW = 5


def _looks(seed: int) -> Looks:
    """Two people at every contact, alike to the physical model; elbows of those who act are nearer."""
    random = np.random.default_rng(seed)
    n = 2 * N_CONTACTS
    acts = np.zeros(n, bool)
    acts[2 * np.arange(N_CONTACTS) + random.integers(0, 2, N_CONTACTS)] = True
    features = random.uniform(0.0, 1.0, (n, kernel.HAND_FEATURES))
    features[:, 0] = 3.0
    features[:, ELBOW] = np.where(acts, 0.4, 0.6) + random.normal(0.0, 0.08, n)
    return Looks(
        np.arange(n) // 2, acts, np.full(n, 3.0), features, np.full(n, 0.6), np.tile([1, 3, 5, 7], N_CONTACTS // 4)
    )


def test_trees_learn_what_tells_people_apart() -> None:
    trees, other = fit(_looks(1)), _looks(2)
    before, after = hands.score(other, other.log_ratio), hands.score(other, corrected(other, trees))
    assert before.log_loss == pytest.approx(np.log(2.0), abs=1e-3)
    assert after.right > 0.9 and after.log_loss < 0.5 * before.log_loss
    unknown = other._replace(features=np.full_like(other.features, np.nan))
    np.testing.assert_array_equal(corrected(unknown, trees), other.log_ratio)
    text = hands.page([("shop", other)], trees)
    assert "| shop | 0 or 1 | 100 |" in text and "| shop | any | 400 |" in text


def test_the_bench_corrects_as_the_kernel_does() -> None:
    random = np.random.default_rng(3)
    looks = _looks(3)
    features = random.uniform(LEARNT.trained[0] - 0.01, LEARNT.trained[1] + 0.01, looks.features.shape)
    expected = [np.clip(correction(row, LEARNT), -CORRECTION_MAX, CORRECTION_MAX) for row in features]
    found = corrected(looks._replace(features=features), LEARNT) - looks.log_ratio
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_table_in_the_package_is_what_the_bench_writes() -> None:
    assert hands.module(LEARNT) == hands.TREES.read_text(encoding="utf-8")
    assert hands.module(HandTrees.none()).endswith("TREES = (\n)\n")


@pytest.mark.parametrize("name", MOTIONS)
def test_people_reach_otherwise_only_inside_the_block(name: str) -> None:
    before = shopping.take_hold, staff.take_hold
    with moving(name):
        assert shopping.take_hold is staff.take_hold is not before[0]
    assert (shopping.take_hold, staff.take_hold) == before
