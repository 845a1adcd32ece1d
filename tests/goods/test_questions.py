"""Questions that would make an uncertain cart clearer, and what the receipt would be under each answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.goods.beliefs import CartBelief
from fusion.goods.hypotheses import Cluster, OpenEvent
from fusion.goods.loads import ShelfEvent
from fusion.goods.planogram import Planogram
from fusion.goods.questions import SilentDoubt, about_loads, about_silence
from fusion.results import Goods, QuestionKind
from fusion.simulation import demo_store

GTINS = ("a", "b", "c")
MINE, OTHER = 7, 8


def load(event_id, contact_s, total_g=-100.0):
    t_ns = round(contact_s * 1e9)
    event = ShelfEvent(np.array([0]), t_ns, t_ns, t_ns, np.array([total_g]), np.eye(1))
    return OpenEvent(event_id, event, "p")


def cluster(rows, hypotheses):
    """rows: (event, owner, product, quantity), quantity 0: nothing; hypotheses: (rows chosen, probability)."""
    event_of = np.array([event for event, *_ in rows], np.int32)
    columns = []
    for column in (1, 1, 2, 3):
        values = np.array([[row[column], -1 if column == 1 else 0] for row in rows], np.int32)
        columns.append(values)
    events = [load(10 + i, float(i)) for i in range(event_of.max() + 1)]
    choices = np.array([chosen for chosen, _ in hypotheses], np.int32)
    return Cluster.of(events, event_of, np.stack(columns), choices, np.log([p for _, p in hypotheses]))


def test_which_goods_and_the_receipt_under_each_answer():
    made = cluster([(0, MINE, 0, -1), (0, MINE, 1, -1)], [([0], 0.7), ([1], 0.3)])
    (question,) = about_loads(made, {MINE})
    assert question.kind is QuestionKind.PRODUCT and (question.plate, question.event_id) == ("p", 10)
    assert question.gain_bits == pytest.approx(-0.7 * math.log2(0.7) - 0.3 * math.log2(0.3))
    belief = CartBelief({"a": 1, "c": 2}, {}, 0.7 * 0.98, ())
    asked = question.asked(belief, 0.7 * 0.98, GTINS)
    first, second = asked.alternatives
    assert (first.moved, first.lines) == ((Goods("a", -1),), (Goods("a", 1), Goods("c", 2)))
    assert (second.moved, second.lines) == ((Goods("b", -1),), (Goods("b", 1), Goods("c", 2)))
    assert [one.probability for one in asked.alternatives] == pytest.approx([0.7, 0.3])
    # What else is in doubt stays.
    assert [one.receipt_probability for one in asked.alternatives] == pytest.approx([0.98, 0.98])


def test_kinds_of_doubt():
    def kind(*rows):
        made = cluster([(0, *row) for row in rows], [([i], 1.0 / len(rows)) for i in range(len(rows))])
        return [question.kind for question in about_loads(made, {MINE})]

    assert kind((MINE, 0, -1), (MINE, 0, -2)) == [QuestionKind.QUANTITY]
    assert kind((MINE, 0, -1), (OTHER, 0, -1)) == [QuestionKind.PERSON]
    assert kind((MINE, 0, -1), (-1, 0, 0)) == [QuestionKind.MOVED]
    assert kind((OTHER, 0, -1), (OTHER, 1, -1)) == []  # Not this cart's.
    assert kind((MINE, 0, -1)) == []  # Nothing to ask.


def test_an_answer_about_one_load_decides_the_other():
    # What was taken first came back: both are a, or both are b.
    rows = [(0, MINE, 0, -1), (0, MINE, 1, -1), (1, MINE, 0, 1), (1, MINE, 1, 1)]
    made = cluster(rows, [([0, 2], 0.5), ([1, 3], 0.4), ([0, 3], 0.1)])
    for question in about_loads(made, {MINE}):
        certain = [answer for answer in question.answers if answer.right == pytest.approx(1.0)]
        assert len(certain) == 1 and certain[0].added == ()
    # Nothing is left of a cart to which both hypotheses add nothing: the answer tells only about the third.
    assert all(0.0 < question.gain_bits < 0.5 for question in about_loads(made, {MINE}))


def test_goods_that_were_returned_and_never_taken_make_each_answer_uncertain():
    made = cluster([(0, MINE, 0, 1), (0, -1, 0, 0)], [([0], 0.6), ([1], 0.4)])
    (question,) = about_loads(made, {MINE})
    belief = CartBelief({}, {}, 0.3, (), {"a": 1})
    returned, nothing = question.asked(belief, 0.3, GTINS).alternatives
    assert returned.receipt_probability == pytest.approx(0.5) and nothing.receipt_probability == pytest.approx(1.0)
    assert returned.lines == nothing.lines == ()


def test_a_silent_plate_asks_for_its_goods():
    store = demo_store(n_cameras=1, n_plates=8, n_products=2)
    planogram = Planogram(store)
    question = about_silence(SilentDoubt(0, store.plates[0].plate, 5, 0.5), planogram)
    assert question.kind is QuestionKind.MOVED and question.event_id is None and question.gain_bits == 1.0
    nothing, *goods = question.answers
    assert nothing.moved == () and goods and all(n == -1 for answer in goods for _, n in answer.moved)
    assert sum(answer.probability for answer in question.answers) < 1.0
    asked = question.asked(CartBelief({}, {}, 0.49, ()), 0.49, planogram.gtins)
    assert asked.alternatives[0].lines == () and asked.alternatives[0].receipt_probability == pytest.approx(0.98)
    assert asked.alternatives[1].lines == (Goods(planogram.gtins[goods[0].moved[0][0]], 1),)


def test_a_load_that_no_goods_explain_asks_for_the_nearest():
    store = demo_store(n_cameras=1, n_plates=8, n_products=2)
    planogram = Planogram(store)
    product = int(np.flatnonzero(planogram.planned[0])[0])
    put_g = 2.0 * float(planogram.weight_g[product]) + 9.0
    question = about_silence(SilentDoubt(0, "p", 5, 0.6, 3, put_g), planogram)
    assert question.answers[1].moved == ((product, 2),) and question.answers[1].added == ((product, -2),)
    # None of them weighs the load, so that the bill stays as doubtful as it is, whatever is answered.
    asked = question.asked(CartBelief({planogram.gtins[product]: 2}, {}, 0.59, ()), 0.59, planogram.gtins)
    assert [one.receipt_probability for one in asked.alternatives] == pytest.approx([0.59] * len(question.answers))


def test_who_moved_nothing_leaves_a_load_unexplained():
    made = cluster([(0, MINE, 0, -1), (0, -1, 0, 0)], [([0], 0.3), ([1], 0.7)])
    (question,) = about_loads(made, {MINE})
    cleared = question.clears([SilentDoubt(0, "p", 0, 0.5, question.event_id, -100.0)])
    nothing, took = cleared.asked(CartBelief({}, {}, 0.7 * 0.5, ()), 0.7 * 0.5, GTINS).alternatives
    assert (nothing.moved, nothing.receipt_probability) == ((), pytest.approx(0.5))
    assert (took.lines, took.receipt_probability) == ((Goods("a", 1),), pytest.approx(1.0))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0.01, 1.0)), min_size=1, max_size=12))
def test_answers_are_as_probable_as_their_hypotheses_and_never_tell_less_than_nothing(chosen):
    rows = [(0, MINE, 0, -1), (0, MINE, 1, -1), (0, OTHER, 0, -1), (0, -1, 0, 0)]
    rows += [(1, MINE, 0, 1), (1, MINE, 1, 1), (1, OTHER, 1, 1), (1, -1, 0, 0)]
    total = sum(p for *_, p in chosen)
    made = cluster(rows, [([first, 4 + second], p / total) for first, second, p in chosen])
    for question in about_loads(made, {MINE}):
        assert question.gain_bits >= 0.0
        assert 0.99 < sum(answer.probability for answer in question.answers) < 1.0 + 1e-9
        # Asking does not make the best guess worse, on average.
        expected = sum(answer.probability * answer.right for answer in question.answers)
        assert expected > question.right - 0.01


def test_a_load_and_the_hand_that_moved_it_are_one_question():
    made = cluster([(0, MINE, 0, -1), (0, MINE, 1, -1)], [([0], 0.7), ([1], 0.3)])
    (question,) = about_loads(made, {MINE})
    places = ("p", 10**8), ("p", 10**10), ("q", 0)
    reach, later, elsewhere = (SilentDoubt(0, name, t_ns, 0.5) for name, t_ns in places)
    unexplained = SilentDoubt(0, "p", 0, 0.8, question.event_id, -100.0)
    cleared = question.clears([reach, later, elsewhere, unexplained])
    assert cleared.right == pytest.approx(0.7 * 0.5 * 0.8) and cleared.gain_bits > question.gain_bits + 1.0
    asked = cleared.asked(CartBelief({"a": 1}, {}, 0.7 * 0.5 * 0.8 * 0.9, ()), 0.7 * 0.5 * 0.8 * 0.9, GTINS)
    assert [one.receipt_probability for one in asked.alternatives] == pytest.approx([0.9, 0.9])
    # A question about a doubt holds that doubt once.
    store = demo_store(n_cameras=1, n_plates=8, n_products=2)
    alone = about_silence(unexplained, Planogram(store))
    assert alone.clears([unexplained]) == alone and alone.clears([reach]).right == pytest.approx(0.8 * 0.5)
