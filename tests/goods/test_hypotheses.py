"""Joint hypotheses: the kernel against its twin."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from reference import attribution as reference

from fusion._kernels import attribution as kernel


@st.composite
def clusters(draw: st.DrawFn) -> tuple:
    """A cluster's table and joint hypotheses, and a new event's candidates at the end of the table."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    n_events, n_new = draw(st.integers(0, 4)), draw(st.integers(1, 12))
    sizes = rng.integers(1, 6, n_events)
    first = int(sizes.sum())
    n = first + n_new
    owner, product = rng.integers(-1, 4, (n, 2)).astype(np.int32), rng.integers(0, 3, (n, 2)).astype(np.int32)
    # People 2 and 3 share a cart.
    cart, quantity = np.minimum(owner, 2), rng.integers(-2, 3, (n, 2)).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
    rows = draw(st.integers(1, 30))
    picks = [rng.integers(starts[e], starts[e + 1], rows) for e in range(n_events)]
    choices = np.ascontiguousarray(np.stack(picks, 1) if picks else np.zeros((1, 0)), np.int32)
    log_weight = np.log(rng.dirichlet(np.ones(len(choices))))
    event_s = rng.uniform(0, 2, n_events + 1)
    log_candidate, log_not_held = rng.normal(0, 3, n_new), -rng.uniform(0, 9, (n_new, 2))
    held = rng.integers(0, 3, (n_new, 2)).astype(np.int32)
    log_pair = rng.choice(
        [np.nan, -1.0, 4.0, np.inf], p=[0.4, 0.25, 0.25, 0.1], size=(first if draw(st.booleans()) else 0, n_new)
    )
    n_settled = rng.integers(0, 3, n_new).astype(np.int32) * draw(st.integers(0, 1))
    settled_ratio = n_settled * rng.uniform(0.1, 9.0, n_new)
    new = (log_candidate, log_not_held, held, log_pair, settled_ratio, n_settled, 0.5, -2.0)
    return choices, log_weight, owner, cart, product, quantity, first, event_s, *new


@settings(max_examples=150, deadline=None)
@given(cluster=clusters(), capacity=st.integers(1, 200))
def test_extend_matches_reference(cluster: tuple, capacity: int) -> None:
    expected = reference.extend(*cluster)
    key, pick = np.full(capacity, np.nan), np.full(capacity, -1, np.int32)
    kept = kernel.extend(*cluster, key, pick, 1e9)
    assert kept == min(capacity, expected.size)
    assert_allclose(key[:kept], np.sort(expected.ravel())[::-1][:kept], rtol=1e-12)
    assert len(set(pick[:kept].tolist())) == kept
    assert_allclose(expected.ravel()[pick[:kept]], key[:kept], rtol=1e-12)


@settings(deadline=None)
@given(
    a=st.lists(st.floats(-20, 0), min_size=1, max_size=40),
    b=st.lists(st.floats(-20, 0), min_size=1, max_size=40),
    capacity=st.integers(1, 60),
)
def test_merge_matches_reference(a: list[float], b: list[float], capacity: int) -> None:
    log_a, log_b = np.sort(a)[::-1].copy(), np.sort(b)[::-1].copy()
    expected = reference.merge(log_a, log_b)
    key, pick = np.full(capacity, np.nan), np.full(capacity, -1, np.int32)
    kept = kernel.merge(log_a, log_b, key, pick, 1e9)
    assert kept == min(capacity, expected.size)
    assert_allclose(key[:kept], np.sort(expected.ravel())[::-1][:kept])
    assert_allclose(expected.ravel()[pick[:kept]], key[:kept])


@settings(deadline=None)
@given(cluster=clusters())
def test_marginals_match_reference(cluster: tuple) -> None:
    choices, log_weight, owner = cluster[:3]
    out = np.full(len(owner), np.nan)
    kernel.marginals(choices, log_weight, out)
    assert_allclose(out, reference.marginals(choices, log_weight, len(owner)), atol=1e-12)
