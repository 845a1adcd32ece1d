"""Gates' lines: signed distances, reach, and the instants at which a line is crossed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.people.gate_lines import GATE_REACH_M, LINE_MARGIN_M, LINE_OVERHANG_M, GateLines, Passage
from fusion.store.models import Gate, Store

ENTRY = Gate(id="entry", direction="in", line=((1.0, 0.0), (2.0, 0.0)), credentials=("qr",))
EXIT = Gate(id="exit", direction="out", line=((6.0, 0.0), (7.0, 0.0)), credentials=("open",))


def store(*gates: Gate) -> Store:
    return Store(
        format_version=1, id="shop", name="shop", currency="EUR", timezone="UTC", keypoints="coco17",
        floor=((0.0, 0.0), (8.0, 0.0), (8.0, 6.0), (0.0, 6.0)), gate=gates,
    )  # fmt: skip


LINES = GateLines(store(ENTRY, EXIT))


def test_distances_are_positive_inside_and_places_beside_the_line_are_marked():
    position = LINES.position((1.5, 0.3))
    assert position.distance_m[0] == pytest.approx(0.3) and position.beside == [True, False]
    assert position.in_reach and LINES.in_reach(position, 0) and not LINES.in_reach(position, 1)
    assert LINES.position((1.5, -0.3)).distance_m[0] == pytest.approx(-0.3)


@given(st.floats(-3, 10), st.floats(-4, 4))
def test_whatever_is_in_reach_is_near(x, y):
    if LINES.position((x, y)).in_reach:
        assert LINES.near(np.array([[x, y]])) == [True]


def test_who_is_near_matches_its_twin():
    places_m = np.random.default_rng(1).uniform((-3.0, -4.0), (10.0, 4.0), (200, 2))
    middles_m, reach_m = np.array([[1.5, 0.0], [6.5, 0.0]]), np.hypot(0.5 + LINE_OVERHANG_M, GATE_REACH_M)
    near = (np.linalg.norm(places_m[:, None] - middles_m, axis=2) < reach_m).any(axis=1)
    assert LINES.near(places_m) == near.tolist() and 20 < near.sum() < 180
    assert LINES.near(places_m[:0]) == [] and GateLines(store()).near(places_m[:2]) == [False, False]


@given(st.floats(-3, 10), st.floats(-4, 4))
def test_reach_is_a_box_about_each_line(x, y):
    in_box = [abs(y) < GATE_REACH_M and x0 - LINE_OVERHANG_M < x < x0 + 1 + LINE_OVERHANG_M for x0 in (1.0, 6.0)]
    position = LINES.position((x, y))
    assert position.in_reach == any(in_box)
    assert [LINES.in_reach(position, gate) for gate in range(2)] == in_box


def test_only_exits_let_people_out():
    assert LINES.exit_near((6.5, 0.4), within_m=1.0) == 1
    assert LINES.exit_near((1.5, 0.4), within_m=1.0) is None
    assert LINES.exit_near((6.5, 1.2), within_m=1.0) is None


def test_entries_behind_a_place():
    assert LINES.entries_behind(LINES.position((1.5, 0.5))) == [0]
    assert LINES.entries_behind(LINES.position((1.5, -0.5))) == []
    assert LINES.entries_behind(LINES.position((6.5, 0.5))) == []


def test_a_line_that_moved_is_found():
    nudged = ENTRY.model_copy(update={"line": ((1.0, 0.1), (2.0, 0.1))})
    assert GateLines(store(nudged, EXIT)).moved(LINES) == [0]
    assert LINES.centre_m(0) == (1.5, 0.0)


def test_a_passage_interpolates_the_instant_of_crossing():
    passage = Passage(t_ns=0, distance_m=-0.3)
    assert passage.change_of_side() == 0 and passage.side == -1
    passage.move(100, 0.1)
    assert passage.crossed_ns == 75
    assert passage.change_of_side() == 0, "within the margin no side is certain"
    passage.move(200, LINE_MARGIN_M)
    assert passage.change_of_side() == 1 and passage.crossed_ns == 75
    passage.move(300, 0.5)
    assert passage.change_of_side() == 0


def test_a_store_without_gates():
    lines = GateLines(store())
    assert len(lines) == 0 and lines.near(np.zeros((2, 2))) == [False, False]
    assert not lines.position((0.0, 0.0)).in_reach and lines.exit_near((0.0, 0.0), 1.0) is None
