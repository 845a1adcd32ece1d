"""The likelihood of hands: the kernel against its twin."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from goods.shop import T0
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from reference import attribution as reference

from fusion._kernels import attribution as kernel
from fusion.goods.hands import PUTTING, TAKING


def model_by_name(model: np.ndarray) -> dict[str, float]:
    """The kernel's constants by their names in its enum."""
    text = (Path(__file__).parents[2] / "native/attribution.pyx").read_text()
    body = text[text.index("cdef enum:") :]
    names = re.findall(r"[A-Z][A-Z_]+", body[: body.index("\n\n")])
    assert len(names) == len(model)
    return dict(zip(map(str.lower, names), model.tolist()))


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
    for model in (TAKING, PUTTING):
        found = kernel.hand_ratios(*seen, model, person, log_ratio, work)
        expected = reference.hand_ratios(*seen, model_by_name(model))
        assert sorted(person[:found].tolist()) == sorted(expected)
        assert_allclose(log_ratio[:found], [expected[track] for track in person[:found].tolist()], rtol=1e-9)
