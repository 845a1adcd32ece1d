"""What answers are worth: honest shoppers, and those who answer to their own advantage."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.money.disputes import NONE_OF_THESE, NOT_KNOWN
from fusion.till.reliability import RATIO_MIN, TAKER_HONEST, Habits, Statement, Tally, truth_weights

HABITS = Habits(mistakes=0.02, takers=0.03)
EVEN = Statement((0.5, 0.5), (199, 249), 0)


@st.composite
def statement(draw: st.DrawFn) -> Statement:
    n = draw(st.integers(2, 4))
    weights = draw(st.lists(st.floats(0.01, 1.0), min_size=n, max_size=n))
    within = draw(st.floats(0.5, 1.0)) / sum(weights)
    totals = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    return Statement(tuple(each * within for each in weights), tuple(totals), draw(st.integers(NONE_OF_THESE, n - 1)))


@given(statement(), st.floats(0.001, 0.4))
def test_answers_are_distributions_over_what_can_be_answered(one: Statement, mistakes: float) -> None:
    habits = Habits(mistakes, 0.03)
    answers = [*range(len(one.total)), NONE_OF_THESE]
    for truth in answers:
        each = [Statement(one.probability, one.total, chosen) for chosen in answers]
        assert math.isclose(sum(habits.honest(statement, truth) for statement in each), 1.0)
        assert math.isclose(sum(habits.taker(statement, truth) for statement in each), 1.0)
        truths = [habits.truths(statement, 0.3) for statement in each]
        assert all(math.isclose(sum(found.values()), 1.0) for found in truths)


def test_an_answer_against_ones_own_interest_is_worth_more_than_one_for_it() -> None:
    dear = HABITS.truths(Statement((0.5, 0.5), (199, 249), 1), 0.03)[1]
    cheap = HABITS.truths(EVEN, 0.03)[0]
    # Odds by hand: 0.98 : 0.01 for the dear one, less a little for takers who forgot themselves.
    assert dear == pytest.approx((0.97 * 0.98 + 0.03 * 0.1 * 0.98) / (0.97 * 0.99 + 0.03 * (0.1 * 0.99)), abs=0.002)
    assert cheap < 0.97 < 0.985 < dear
    # The word of one who was found out moves little.
    assert HABITS.truths(EVEN, 0.9)[0] == pytest.approx(0.5, abs=0.06)
    assert HABITS.truths(Statement((0.5, 0.5), (199, 249), NOT_KNOWN), 0.03) == truth_weights(EVEN)


def test_where_all_bills_cost_the_same_there_is_no_advantage() -> None:
    same = Statement((0.5, 0.5), (199, 199), 0, truth=1)
    assert not same.to_advantage and HABITS.ratio([same]) == pytest.approx(1.0)


def test_lies_raise_the_ratio_until_it_marks_and_honesty_lowers_it_to_a_floor() -> None:
    lie = Statement((0.5, 0.5), (199, 249), 0, truth=1)
    right = Statement((0.5, 0.5), (199, 249), 0, truth=0)
    against = Statement((0.5, 0.5), (199, 249), 1)
    assert HABITS.ratio([right]) == pytest.approx(1.0), "a confirmed answer shows nothing about advantage"
    assert 1.5 < HABITS.ratio([EVEN]) < 2.0
    assert 80 < HABITS.ratio([lie]) < 100 < HABITS.ratio([lie, EVEN])
    assert HABITS.ratio([against] * 50) == pytest.approx(RATIO_MIN)
    # After a year of honesty, two lies in a row are enough.
    assert HABITS.ratio([*[against] * 50, lie, lie]) > 100
    assert HABITS.ratio([], n_rejected=2) > 100


def test_few_honest_customers_ever_pass_the_limit_and_takers_pass_it_soon() -> None:
    draw = random.Random(7)

    def passes(taker: bool, n: int, checked: float) -> bool:
        answers: list[Statement] = []
        for _ in range(n):
            p = draw.uniform(0.2, 0.8)
            truth = 0 if draw.random() < p else 1
            lies = taker and draw.random() >= TAKER_HONEST
            chosen = 0 if lies else truth if draw.random() >= 0.01 else 1 - truth
            # What was answered to one's advantage is looked at more often.
            known = draw.random() < (checked if chosen == 0 else 0.1)
            answers.append(Statement((p, 1.0 - p), (199, 249), chosen, truth if known else None))
            if HABITS.ratio(answers) >= 100.0:
                return True
        return False

    n_honest = sum(passes(False, 20, 0.5) for _ in range(1000))
    n_takers = sum(passes(True, 8, 0.8) for _ in range(200))
    assert n_honest <= 10 and n_takers >= 180


def learnt(statements: list[Statement], prior: Habits, prior_weight: float) -> Habits:
    """What a store learns, counted in two parts."""
    half = len(statements) // 2
    return Tally.of(statements[:half]).plus(Tally.of(statements[half:])).habits(prior, prior_weight)


def test_a_store_learns_how_many_shoppers_take_and_how_often_honest_ones_err() -> None:
    lie = Statement((0.5, 0.5), (199, 249), 0, truth=1)
    dear, dear_right = Statement((0.5, 0.5), (199, 249), 1), Statement((0.5, 0.5), (199, 249), 1, truth=1)
    dear_wrong = Statement((0.5, 0.5), (199, 249), 1, truth=0)
    assert learnt([], HABITS, 100) == HABITS
    many = learnt([*[lie] * 40, *[dear] * 60], HABITS, 100)
    assert many.takers > 0.15 and many.mistakes == HABITS.mistakes
    settled = Statement((0.5, 0.5), (199, 249), 1, sure=True)
    assert learnt([settled] * 900, HABITS, 100).takers < 0.02
    # Lies that would have been believed, found by checks of one in twenty, stand for those that were not checked.
    believed = Statement((0.5, 0.5), (199, 249), 0, sure=True)
    drawn = Statement((0.5, 0.5), (199, 249), 0, truth=1, sure=True, drawn=True)
    right = Statement((0.5, 0.5), (199, 249), 0, truth=0, sure=True, drawn=True)
    found = learnt([*[believed] * 190, *[drawn] * 5, *[right] * 5, *[settled] * 60], HABITS, 10)
    assert 0.2 < found.takers < 0.6
    assert learnt([*[believed] * 190, *[right] * 10, *[settled] * 60], HABITS, 10).takers < 0.03
    clumsy = learnt([dear_right] * 60 + [dear_wrong] * 40, HABITS, 100)
    assert clumsy.mistakes > 0.15 and clumsy.takers < HABITS.takers


def test_the_truth_is_read_off_the_goods_in_which_the_choices_differ() -> None:
    worth = {
        "choices": [
            {"number": 1, "probability": 400_000, "total": 199, "goods": [["A", 0], ["B", 1]]},
            {"number": 0, "probability": 600_000, "total": 249, "goods": [["A", 1], ["B", 0]]},
        ]
    }
    truths = [
        Statement.of(number, worth, decided).truth
        for number, decided in itertools.product((0, 1), ({"A": 1, "C": 9}, {"B": 1}, {"A": 1, "B": 1}))
    ]
    assert truths == [1, 0, NONE_OF_THESE, 1, 0, NONE_OF_THESE]
    assert Statement.of(NOT_KNOWN, worth, {"B": 1}).truth == 0 and Statement.of(0, worth, None).truth is None
    assert [Statement.of(number, worth, None).to_advantage for number in (0, 1)] == [False, True]
