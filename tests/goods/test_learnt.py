"""What a store teaches: bounded, versioned, reversible to the last bit, and never by one customer alone."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from goods.shop import GTINS, STORE, T0
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fusion.goods.learnt import GAIN_OFF_MAX, HANDS, WEIGHT_OFF_MAX, WEIGHT_STEP_MAX, Learnt
from fusion.goods.trust import FACTOR_MAX, FACTOR_MIN, Trust
from fusion.goods.weighings import GAIN_VAR, PLACE_GAIN_SD, KnownLoad, Weighings
from fusion.results import Lesson, LessonCause, LessonKind
from fusion.store.models import Facing

MINUTE_NS, DAY_NS = 60 * 10**9, 86_400 * 10**9
LABEL_G = [product.weight_g for product in STORE.products]
# Product 4 lies on three plates, so that its weight can be told from their gains.
WIDE = STORE.model_copy(
    update={"planogram": (*STORE.planogram, *(Facing(plate=f"r0p{plate}", gtin=GTINS[4], stock=3) for plate in (5, 6)))}
)


def load(
    k: int, *, ratio: float = 1.0, product: int = 4, plate: int = 4, source: str | None = None, visit: str = "",
    t_ns: int | None = None,
) -> KnownLoad:  # fmt: skip
    """The k-th load: one piece that weighs `ratio` times its label, taken by a customer of its own."""
    at_ns = T0 + k * MINUTE_NS if t_ns is None else t_ns
    who = f"customer {k}" if source is None else source
    return KnownLoad(at_ns, f"event {k}", (plate,), (1.0,), ratio * LABEL_G[product], 0.1, product, 1, who, visit)


def numbers(learnt: Learnt) -> list[bytes]:
    return [array.tobytes() for array in (learnt.weight_g, learnt.gain, learnt.gain_var, learnt.factor)]


def taught(ratios: list[float], seed: int = 0, learnt: Learnt | None = None) -> Learnt:
    """Loads of product 4 by many customers, on its three plates in turn, after their gains are known."""
    random = np.random.default_rng(seed)
    learnt = learnt or Learnt(WIDE)
    for k, ratio in enumerate(ratios):
        error = PLACE_GAIN_SD * float(random.standard_normal())
        learnt.add_load(load(k, ratio=ratio * (1.0 + error), plate=4 + k % 3))
    return learnt


# ---- weights ---------------------------------------------------------------------------------------------------------


def test_a_delivery_that_weighs_more_is_learnt() -> None:
    """Gain and weight show as one product: what changes with a delivery, on all plates at once, is the weight."""
    learnt = taught([1.0] * 24)
    for k in range(24, 48):
        if k == 24:
            learnt.note_delivery(4, T0 + k * MINUTE_NS - 1)
        learnt.add_load(load(k, ratio=1.012, plate=4 + k % 3))
    # The two deliveries differ by 1.2 %, so one lies as far above what the product usually weighs as the other below.
    assert learnt.weight_g[4] / LABEL_G[4] == pytest.approx(1.006, abs=0.003)
    # Whatever the parts, their product is what the plates show; the gains' own filter, which has no part here, follows.
    np.testing.assert_allclose(learnt.weight_g[4] * learnt.gain[4:7] / LABEL_G[4], 1.012, atol=0.005)
    lesson = learnt.latest[LessonKind.WEIGHT, GTINS[4]]
    assert lesson.after == learnt.weight_g[4] and lesson.n_customers >= 3 and 0.0 < lesson.sd < 0.01 * LABEL_G[4]
    assert [known.lesson.version for known in learnt.versions] == list(range(1, learnt.version + 1))
    others = np.delete(np.arange(len(LABEL_G)), 4)
    assert (learnt.weight_g[others] == np.array(LABEL_G)[others]).all()


def test_one_plate_that_reads_wrong_is_a_gain_and_no_weight() -> None:
    learnt = Learnt(WIDE)
    for k in range(45):
        learnt.add_load(load(k, ratio=1.04 if k % 3 == 0 else 1.0, plate=4 + k % 3))
    assert abs(learnt.weight_g[4] / LABEL_G[4] - 1.0) < 0.005


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0.7, 1.4), min_size=8, max_size=60), st.integers(0, 5))
@example([1.0, 1.25, 1.0, 1.0, 1.125, 1.0, 1.0, 1.125], 1)  # A load beyond what a gain may be, then two within.
def test_weights_and_gains_are_bounded(ratios: list[float], every: int) -> None:
    # As the documents promise.
    assert (WEIGHT_OFF_MAX, WEIGHT_STEP_MAX, GAIN_OFF_MAX) == (0.05, 0.015, 0.15)
    learnt = Learnt(WIDE)
    before_g = learnt.weight_g.copy()
    for k, ratio in enumerate(ratios):
        if every and k % (every + 2) == 0:
            learnt.note_delivery(4, T0 + k * DAY_NS)
        learnt.add_load(load(k, ratio=ratio, plate=4 + k % 3, t_ns=T0 + k * DAY_NS + 1))
        plates, delta = np.array([4 + k % 3]), np.array([-ratio * LABEL_G[4]])
        learnt.follow_gain(plates, delta, 0.1, 4, -1, T0 + k * DAY_NS)
        step = np.abs(np.log(learnt.weight_g / before_g)).max()
        assert step <= WEIGHT_STEP_MAX + 1e-12
        before_g = learnt.weight_g.copy()
        assert np.abs(np.log(learnt.weight_g / LABEL_G)).max() <= WEIGHT_OFF_MAX + 1e-12
        assert np.abs(learnt.gain - 1.0).max() <= GAIN_OFF_MAX + 1e-12
        assert (learnt.gain_var > 0.0).all() and (learnt.gain_var <= GAIN_VAR + 1e-15).all()


@given(st.permutations(range(20)))
def test_the_order_of_loads_does_not_matter(order: list[int]) -> None:
    loads = [load(k, ratio=1.0 + 0.001 * k, plate=4 + k % 3) for k in range(20)]
    windows = Weighings(len(LABEL_G)), Weighings(len(LABEL_G))
    for window, ordered in zip(windows, (range(20), order)):
        for k in ordered:
            window.add(loads[k], LABEL_G[4], 1.0, 0)
        window.deliver(4, loads[9].t_ns + 1)
    first, second = (window.estimate(4, np.array([4, 5, 6]), np.zeros(len(LABEL_G))) for window in windows)
    assert first is not None and second is not None
    assert first.log_ratio == second.log_ratio and (first.log_gain == second.log_gain).all()


def test_an_estimate_knows_what_it_cannot_know() -> None:
    """One plate shows only the product of its gain and the weight, however many loads come."""
    window = Weighings(len(LABEL_G))
    for k in range(40):
        window.add(load(k, ratio=1.02), LABEL_G[4], 1.0, 0)
    found = window.estimate(4, np.array([], np.int64), np.zeros(len(LABEL_G)))
    assert found is not None
    assert found.sd > 0.007, "the weight is as open as before"
    assert float(found.log_gain[0]) + found.log_ratio == pytest.approx(math.log(1.02), abs=0.002)
    assert float(found.log_gain_var[0]) < 0.003**2, "the sum is known"


# ---- attacks ---------------------------------------------------------------------------------------------------------


def test_one_customer_alone_moves_nothing() -> None:
    learnt = Learnt(WIDE)
    before = numbers(learnt)
    for k in range(300):
        learnt.add_load(load(k, ratio=1.04, plate=4 + k % 3, source="mallory", visit=f"visit {k}"))
        learnt.add_truth(HANDS, 3.0, False, "mallory", f"visit {k}", T0)
    assert numbers(learnt) == before and learnt.version == 0


def test_a_customer_who_always_answers_wrongly_moves_little() -> None:
    """One in four loads is answered wrongly by the same customer: all of these count as one."""
    honest, attacked = taught([1.0] * 36), Learnt(WIDE)
    for k in range(36):
        attacked.add_load(load(k, plate=4 + k % 3))
        for j in range(3):
            at_ns = T0 + k * MINUTE_NS + j + 1
            wrong = load(1000 + 3 * k + j, ratio=1.03, plate=4 + j, source="mallory", visit=f"v{k}", t_ns=at_ns)
            attacked.add_load(wrong)
    assert np.abs(attacked.weight_g / honest.weight_g - 1.0).max() < 0.004
    assert np.abs(np.log(attacked.weight_g / LABEL_G)).max() < 0.004


# ---- going back ------------------------------------------------------------------------------------------------------


def two_deliveries() -> Learnt:
    learnt = taught([1.0] * 20)
    learnt.note_delivery(4, T0 + 20 * MINUTE_NS)
    for k in range(21, 40):
        learnt.add_load(load(k, ratio=1.015, plate=4 + k % 3))
    return learnt


def test_an_earlier_version_is_restored_to_the_last_bit() -> None:
    learnt = taught([1.0] * 20)
    before, version = numbers(learnt), learnt.version
    learnt.note_delivery(4, T0 + 20 * MINUTE_NS)
    for k in range(21, 40):
        learnt.add_load(load(k, ratio=1.015, plate=4 + k % 3))
    after, newest = numbers(learnt), learnt.version
    assert after != before
    learnt.back_to(version, T0 + DAY_NS)
    assert numbers(learnt) == before
    assert learnt.version > newest, "history is only added to"
    assert learnt.versions[-1].lesson.cause is LessonCause.RESTORED
    learnt.back_to(newest, T0 + DAY_NS)
    assert numbers(learnt) == after, "going back can be undone as well"
    with pytest.raises(ValueError, match="version: want"):
        learnt.back_to(learnt.version + 1, T0)


def test_gains_keep_what_loads_have_taught_since() -> None:
    learnt = two_deliveries()
    weight_g, gain = learnt.weight_g[4], float(learnt.gain[4])
    learnt.follow_gain(np.array([4]), np.array([-1.02 * gain * weight_g]), 0.1, 4, -1, T0 + DAY_NS)
    moved = float(learnt.gain[4]) / gain
    assert moved > 1.0
    learnt.back_to(0, T0 + DAY_NS)
    assert learnt.weight_g[4] == LABEL_G[4]
    assert learnt.gain[4] == pytest.approx(moved, rel=1e-12)


def test_a_decision_that_is_reversed_is_taken_back() -> None:
    """As if it had never been made: the earlier numbers, to the last bit."""
    learnt = taught([1.0] * 16)
    learnt.note_delivery(4, T0 + 16 * MINUTE_NS)
    before, version = numbers(learnt), learnt.version
    for k in range(17, 25):
        learnt.add_load(load(k, ratio=1.015, plate=4 + k % 3, visit=f"visit {k}"))
    assert learnt.version > version
    assert learnt.latest[LessonKind.WEIGHT, GTINS[4]].cause is LessonCause.ANSWERS
    for k in range(17, 25):
        learnt.take_back(f"visit {k}", T0 + DAY_NS)
    assert learnt.latest[LessonKind.WEIGHT, GTINS[4]].cause is LessonCause.TAKEN_BACK
    assert numbers(learnt) == before


def test_a_customer_can_be_forgotten() -> None:
    learnt = taught([1.0] * 16)
    before = numbers(learnt)
    for k in range(17, 40):
        learnt.add_load(load(k, ratio=1.01, plate=4 + k % 3, source=f"ring {k % 4}", visit=f"v{k}"))
    for k in range(4):
        learnt.forget_customer(f"ring {k}", T0 + DAY_NS)
    assert numbers(learnt) == before


# ---- gains -----------------------------------------------------------------------------------------------------------


def test_a_gain_follows_a_plate_that_drifts() -> None:
    """Two weeks of a plate that gains 0.3 % a day: a filter without a random walk would stop following."""
    learnt, random = Learnt(STORE), np.random.default_rng(1)
    for k in range(14 * 6):
        true = 1.02 + 0.003 * k / 6
        shown_g = -true * LABEL_G[1] * (1.0 + PLACE_GAIN_SD * float(random.standard_normal()))
        learnt.follow_gain(np.array([1]), np.array([shown_g]), 0.1, 1, -1, T0 + k * DAY_NS // 6)
    assert abs(float(learnt.gain[1]) - true) < 0.01


def test_an_exchanged_plate_is_open_again() -> None:
    learnt = Learnt(STORE)

    def shows(gain: float, k: int) -> None:
        learnt.follow_gain(np.array([1]), np.array([-gain * LABEL_G[1]]), 0.1, 1, -1, T0 + k * MINUTE_NS)

    for k in range(40):
        shows(1.03, k)
    assert abs(float(learnt.gain[1]) - 1.03) < 0.002
    shows(0.9, 41)
    shows(1.03, 42)
    assert learnt.version == 0, "one odd load is something else"
    for k in range(50, 54):
        shows(0.97, k)
    assert abs(float(learnt.gain[1]) - 0.97) < 0.002
    assert learnt.latest[LessonKind.GAIN, "r0p1"].cause is LessonCause.EXCHANGED


# ---- calibration -----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.floats(-20, 20), st.booleans()), max_size=60), st.permutations(range(60))
)
def test_a_factor_is_bounded_in_any_order(labels: list[tuple[float, bool]], order: list[int]) -> None:
    one, other = Trust(), Trust()
    for k, (log_odds, true) in enumerate(labels):
        one.add(log_odds, true, f"c{k}", "v")
    for k in order:
        if k < len(labels):
            other.add(*labels[k], f"c{k}", "v")
    assert one.fit() == other.fit()
    assert FACTOR_MIN <= one.fit().factor <= FACTOR_MAX


def test_log_odds_that_claim_too_much_are_flattened() -> None:
    """Stated 0.95, right in 0.8: the true log odds are less than half of the stated ones."""
    learnt = Learnt(STORE)
    for k in range(200):
        learnt.add_truth(HANDS, math.log(19.0), k % 5 != 0, f"c{k}", f"v{k}", T0 + k)
    assert learnt.factor[HANDS] < 0.8 and learnt.factor[1] == 1.0
    learnt.back_to(0, T0)
    assert learnt.factor[HANDS] == 1.0


# ---- files -----------------------------------------------------------------------------------------------------------


def test_a_new_engine_starts_with_what_was_learnt() -> None:
    learnt = two_deliveries()
    row = json.loads(json.dumps(learnt.row()))
    again = Learnt(WIDE)
    again.restore(row)
    assert numbers(again) == numbers(learnt)
    assert again.version == learnt.version and again.latest == learnt.latest
    assert len(json.dumps(row)) < 20_000


def test_another_label_starts_anew() -> None:
    learnt = two_deliveries()
    products = list(WIDE.products)
    products[4] = products[4].model_copy(update={"weight_g": 380.0})
    changed = Learnt(WIDE.model_copy(update={"products": tuple(products)}))
    changed.restore(learnt.row())
    assert changed.weight_g[4] == 380.0


@pytest.mark.parametrize(
    "row",
    [
        {}, [], {"format": 2, "store": "shop"}, {"format": 1, "store": "other"},
        {"format": 1, "store": "shop", "version": 1, "factors": [1], "weights_g": {}, "gains": {}, "lessons": [[1]]},
    ],
)  # fmt: skip
def test_a_file_that_is_no_such_row_is_refused(row: object) -> None:
    with pytest.raises(ValueError, match=r"want|unpack"):
        Learnt(STORE).restore(row)  # type: ignore[arg-type]


def test_a_lesson_survives_its_row() -> None:
    lesson = Lesson(3, T0, LessonKind.WEIGHT, GTINS[0], 350.0, 352.1, 0.8, 350.0, LessonCause.ANSWERS, 14, 2, 9)
    assert Lesson.of_row(json.loads(json.dumps(lesson.row()))) == lesson
    assert "352.1" in str(lesson)
