"""A short soak: the tables of an engine grow with the people in the shop, not with time."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest

from bench.endurance import soak


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return soak


def test_tables_do_not_grow(bench):
    store = bench.shop()
    block = bench.make_block(store, seed=1, minutes=0.9, shoppers=3)
    # Ten rounds, in each of which four people come and go.
    hours = 10 * block.length_ns / 3.6e12
    stretches = bench.soak([block], store, hours, hours / 9.5)
    last = stretches[-1]
    assert last.results["PersonEntered"] == last.results["PersonLeft"] == 40
    receipts = sum(n for name, n in last.results.items() if name.startswith("Receipt"))
    assert receipts == 10 * block.n_visits
    allowed = bench.HISTORY + bench.BOUNDED
    assert [name for name in bench.growing(stretches[:-1]) if not name.startswith(allowed)] == []
    # The walk reaches the journal.
    assert last.tables["_billing.journal._transfers"] > 10


def test_growth_is_named(bench):
    flat = bench.Stretch(0.0, 200.0, 100.0, 200.0, 100.0, 1.0, 1000, {}, {"_a": 50, "_b": 5})
    leaking = [
        replace(flat, end_h=float(h), resident_mb=200.0 + 2.0 * h, step_p50_us=100.0 + 5.0 * h, tables={"_a": 50 * h})
        for h in range(1, 25)
    ]
    faults = bench.judge(leaking)
    assert len(faults) == 3
    assert "2.00 MB an hour" in faults[0] and "a step costs" in faults[1] and "_a grows" in faults[2]
    assert bench.judge([replace(flat, end_h=float(h)) for h in range(1, 25)]) == []
