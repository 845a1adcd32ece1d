"""Counts of the shelves: by the planogram, the journal and open events, and how certain they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from goods.shop import GTINS, STORE, T0

from fusion.goods.beliefs import EventBelief, EventCandidate
from fusion.goods.counts import ShelfCounts, moved
from fusion.goods.journal import Journal, Transfer, cart, shelf


def test_goods_that_do_not_belong_somewhere_are_misplaced() -> None:
    journal = Journal()
    journal.append(Transfer("put", T0, debit=shelf("r0p1"), credit=cart("ann"), gtin=GTINS[6], quantity=2))
    candidates = (EventCandidate(7, GTINS[6], 2, 0.8), EventCandidate(7, GTINS[5], 2, 0.1))
    counts = ShelfCounts(STORE)
    counts.settle(EventBelief(0, T0, "r0p1", 1400.0, candidates))
    rows = {(row.plate, row.gtin): row for row in counts.counts(journal, [])}
    there = rows["r0p1", GTINS[6]]
    assert (there.pieces, there.planned, there.status) == (2, False, "misplaced")
    assert there.confidence == pytest.approx(0.8)
    assert ("r0p1", GTINS[5]) not in rows, "only where something is believed to lie or belongs"


def test_an_event_moves_nothing_one_product_or_two_that_share_the_load() -> None:
    parts = EventCandidate(7, GTINS[3], -1, 0.6), EventCandidate(8, GTINS[4], -1, 0.6)
    halves = tuple(part._replace(probability=0.3) for part in parts)
    belief = EventBelief(0, T0, "r0p3", -616.0, (*halves, EventCandidate(7, GTINS[5], -1, 0.2)), parts)
    assert moved(belief) == parts
    assert moved(replace(belief, parts=())) == halves[:1]
    assert moved(replace(belief, candidates=(EventCandidate(7, GTINS[5], -1, 0.1),), parts=())) == ()
    rows = {row.gtin: row for row in ShelfCounts(STORE).counts(Journal(), [belief]) if row.plate == "r0p3"}
    assert rows[GTINS[3]].pieces == 5 and rows[GTINS[3]].confidence == pytest.approx(0.6)
    assert rows[GTINS[4]].overdrawn == 1
