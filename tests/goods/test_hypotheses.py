"""Joint hypotheses: the kernel against its twin. `test_observing.py` compares loads that undo others."""

from __future__ import annotations

import numpy as np
from goods.shop import STORE
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from reference import attribution as reference
from reference.goods import compared

from fusion._kernels import goods as kernel
from fusion.goods.hypotheses import EVENT, MODEL, normalised
from fusion.goods.planogram import Planogram


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
    event_ns = rng.integers(0, 2 * 10**9, n_events + 1)
    log_candidate, log_not_held = rng.normal(0, 3, n_new), -rng.uniform(0, 9, (n_new, 2))
    held = rng.integers(0, 3, (n_new, 2)).astype(np.int32)
    of_nothing = np.zeros((0, n_new)), np.zeros(n_new), np.zeros(n_new, np.int32)
    new = (log_candidate, log_not_held, held, *of_nothing, 0.5, -2.0)
    return choices, log_weight, owner, cart, product, quantity, first, event_ns, *new


def records(event_ns: np.ndarray) -> np.ndarray:
    """Events on no plates, so that none undoes another."""
    found = np.zeros(len(event_ns), EVENT)
    found["contact_ns"] = event_ns
    return found


@settings(max_examples=150, deadline=None)
@given(cluster=clusters(), limit=st.sampled_from([1, 7, kernel.HYPOTHESES_MAX]))
def test_extend_matches_reference(cluster: tuple, limit: int) -> None:
    expected = reference.extend(*cluster)
    choices, log_weight, *columns, first, event_ns, log_candidate, log_not_held, held = cluster[:11]
    n, n_events = choices.shape
    n_new, table = len(log_candidate), np.stack(columns)
    event_of = np.full(first, -1, np.int32)
    for event, rows in enumerate(choices.T):
        event_of[np.unique(rows)] = event
    # Those that no hypothesis picks belong to any.
    event_of = np.maximum(event_of, 0)
    arrays = (
        records(event_ns[:-1]), event_of, np.ascontiguousarray(table[:, :first]), choices, log_weight,
        np.zeros(first),
    )  # fmt: skip
    out = (
        records(event_ns), np.full(first + n_new, -1, np.int32), np.full_like(table, -9),
        np.full((limit, n_events + 1), -1, np.int32), np.full(limit, np.nan),
        np.full(first + n_new, np.nan),
    )  # fmt: skip
    model = MODEL.copy()
    model[:3] = 0.5, -2.0, 1e9
    kept = kernel.extend(
        Planogram(STORE).arrays, arrays, records(event_ns[-1:]), np.ascontiguousarray(table[:, first:]), n_new,
        log_candidate, np.zeros(n_new), held, log_not_held, [], None, model, np.empty(first * n_new), out,
    )  # fmt: skip
    assert kept == min(limit, expected.size)
    best = np.sort(expected.ravel())[::-1][:kept]
    assert_allclose(out[4][:kept], normalised(best), atol=1e-9)
    assert_array_equal(out[2], table)
    assert_array_equal(out[1][first:], len(event_ns) - 1)
    picked = {tuple(row): at for at, row in enumerate(choices.tolist())}
    log_total = best[0] - out[4][0]
    for (*row, new), weight in zip(out[3][:kept].tolist(), out[4][:kept].tolist()):
        if len(picked) == n:  # Otherwise several hypotheses are equal.
            assert_allclose(expected[picked[tuple(row)], new - first], weight + log_total, rtol=1e-9, atol=1e-9)
    assert_allclose(out[5], reference.marginals(out[3][:kept], out[4][:kept], first + n_new), atol=1e-12)


@settings(deadline=None)
@given(
    a=st.lists(st.floats(-20, 0), min_size=1, max_size=40),
    b=st.lists(st.floats(-20, 0), min_size=1, max_size=40),
)
def test_merge_matches_reference(a: list[float], b: list[float]) -> None:
    log_a, log_b = np.sort(a)[::-1].copy(), np.sort(b)[::-1].copy()
    expected = reference.merge(log_a, log_b)
    capacity = kernel.HYPOTHESES_MAX
    key, pick = np.full(capacity, np.nan), np.full(capacity, -1, np.int32)
    kept = kernel.merge(log_a, log_b, key, pick, 1e9)
    assert kept == min(capacity, expected.size)
    assert_array_equal(pick[:kept], reference.best(compared(expected)))
    assert_allclose(expected.ravel()[pick[:kept]], key[:kept], atol=1e-9)


@settings(deadline=None)
@given(cluster=clusters())
def test_marginals_match_reference(cluster: tuple) -> None:
    choices, log_weight, owner = cluster[:3]
    out = np.full(len(owner), np.nan)
    kernel.marginals(choices, log_weight, out)
    assert_allclose(out, reference.marginals(choices, log_weight, len(owner)), atol=1e-12)
