"""The benchmark of parts: every part is really taken out, and back in afterwards."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from bench.accuracy import parts
from bench.accuracy.scenarios import CASES, run_of
from bench.intervals import percent
from fusion.goods import billing, missed, weighings
from fusion.goods.hands import Hands
from fusion.people.arms import ArmHistory


def state() -> tuple[object, ...]:
    return (
        Hands.trees, Hands.second_ratios, ArmHistory.smoothed, missed.MISSED_ALONE, missed.MISSED_BESIDE,
        billing.SILENT_MAX_S, weighings.Weighings.add,
    )  # fmt: skip


@pytest.mark.parametrize("name", parts.PARTS)
def test_a_part_is_taken_out_for_a_while(name):
    before = state()
    with parts.PARTS[name]():
        assert sum(now is not then for now, then in zip(state(), before, strict=True)) >= 1
    assert all(now is then for now, then in zip(state(), before, strict=True))


def test_all_parts_go_together():
    before = state()
    with ExitStack() as removed:
        for part in parts.PARTS.values():
            removed.enter_context(part())
        assert all(now is not then for now, then in zip(state(), before, strict=True))
    assert all(now is then for now, then in zip(state(), before, strict=True))


def test_the_table_counts_the_receipts_of_every_row(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "ROWS", {"complete": (), "all of these": tuple(parts.PARTS)})
    scores = parts._work(parts.Job(run_of(CASES[0], 1, quick=True), tmp_path))
    assert list(scores) == ["complete", "all of these"]
    assert scores["complete"]["visits"] == scores["all of these"]["visits"] > 0
    assert all(n["settled"] + n["review"] <= n["visits"] for n in scores.values())
    n = scores["complete"]
    assert f"| complete | {n['visits']} | {percent(n['right'], n['settled'])} |" in parts.table(scores)
