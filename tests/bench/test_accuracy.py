"""The scores of `python -m bench accuracy` on cases counted by hand, and one small run from end to end."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from bench import intervals
from bench.accuracy import ablations, causes, plain, receipts, replays, risk, scenarios, scores, shelves, tables, truth
from fusion.goods import hypotheses, learnt, planogram
from fusion.observations import ShelfReading
from fusion.results import Candidate, Reason, ReasonKind, Receipt, ReceiptLine, ReceiptStatus, ShelfEventExplained
from fusion.simulation import Scenario, demo_store

SECOND = 1_000_000_000
PRICE = {"a": 100, "b": 250}


def receipt(account, items, status="settled", exit_s=50.0, issued_s=53.0, confidence=0.99):
    lines = tuple(ReceiptLine(gtin, n, PRICE[gtin], confidence) for gtin, n in items.items())
    total = sum(PRICE[gtin] * n for gtin, n in items.items())
    reasons = () if status == "settled" else (Reason(ReasonKind.CART_UNCERTAIN, probability=0.9),)
    times = round(exit_s * SECOND), round(issued_s * SECOND)
    return Receipt("v", account, 0, *times, ReceiptStatus(status), reasons, "EUR", total, lines)


def visit(account, items, exit_s=50.0):
    return truth.TrueVisit(account, 0, round(exit_s * SECOND), items)


def test_receipts_right_wrong_reviewed_and_missing():
    visits = [visit(name, {"a": 2}) for name in ("right", "wrong", "review", "missing")]
    receipts = [
        receipt("right", {"a": 2}),
        receipt("wrong", {"a": 1, "b": 1}, confidence=0.8),
        receipt("review", {"a": 2}, "review", confidence=0.6),
    ]
    score = scores.score_receipts(visits, receipts, PRICE)
    assert (score.visits, score.settled, score.settled_right) == (4, 2, 1)
    assert (score.review, score.missing, score.any_right) == (1, 1, 2)
    # One b too many and one a too few, in two settled baskets of 200 each.
    assert (score.value, score.over, score.under) == (400, 250, 100)
    assert sorted(score.lines) == [(0.6, True), (0.8, False), (0.8, False), (0.99, True)]
    assert not score.violations


def test_several_receipts_of_a_visit_count_as_one():
    visits = [visit("x", {"a": 1, "b": 1})]
    settled = scores.score_receipts(visits, [receipt("x", {"a": 1}), receipt("x", {"b": 1})], PRICE)
    assert (settled.settled, settled.settled_right) == (1, 1)
    reviewed = scores.score_receipts(visits, [receipt("x", {"a": 1}), receipt("x", {"b": 1}, "review")], PRICE)
    assert (reviewed.settled, reviewed.review) == (0, 1)


def test_an_empty_basket_needs_an_empty_receipt():
    score = scores.score_receipts([visit("x", {})], [receipt("x", {})], PRICE)
    assert (score.settled_right, score.value, score.over) == (1, 0, 0)


def test_delays_count_from_the_exit_and_from_the_last_evidence():
    visits = [visit("x", {"a": 1}, exit_s=50.0)]
    at = {"x": 50 * SECOND}
    score = scores.score_receipts(visits, [receipt("x", {"a": 1}, issued_s=53.0)], PRICE, at)
    # The load settles at 50.75 s and may arrive two seconds later.
    assert score.delay_s == [3.0] and score.late_s == pytest.approx([0.25])


def test_unscanned_people_are_never_settled_nor_charged():
    visits = [visit(None, {"a": 1}), visit("x", {})]
    good = scores.score_receipts(visits, [receipt(None, {"a": 1}, "review"), receipt("x", {})], PRICE)
    assert not good.violations and good.lines == [(0.99, True)] and good.visits == 1
    bad = scores.score_receipts(visits, [receipt(None, {"a": 1}), receipt("x", {}), receipt("y", {"b": 1})], PRICE)
    assert bad.violations == {"settled without a credential": 1, "settled for an account that was not there": 1}
    assert bad.over == 250
    lost = scores.score_receipts(visits, [receipt("x", {})], PRICE)
    assert lost.violations == {"unscanned people without any receipt": 1}


def event(t_s, plate, gtin, quantity, account):
    return truth.TrueEvent(round(t_s * SECOND), plate, gtin, quantity, account)


def reported(t_s, plate, delta_g, *candidates):
    return ShelfEventExplained(round(t_s * SECOND), plate, delta_g, tuple(Candidate(*c) for c in candidates))


def test_an_unscanned_persons_goods_on_anothers_bill():
    taken = event(10, "p", "a", -1, None)
    pairs = [(taken, reported(10, "p", -50.0, ("x", "a", -1, 0.97)))]
    visits = [visit(None, {"a": 1}), visit("x", {})]
    assert scores.wrongly_billed(pairs, visits, [receipt("x", {"a": 1})]) == 1
    assert scores.wrongly_billed(pairs, visits, [receipt("x", {"a": 1}, "review")]) == 0
    # The event was attributed to the wrong account, but other evidence corrected the bill.
    assert scores.wrongly_billed(pairs, visits, [receipt("x", {})]) == 0


def test_events_match_in_time_place_and_direction():
    store = demo_store(n_cameras=1, n_plates=8, n_products=2)
    first, beside, far = store.plates[0].plate, store.plates[1].plate, store.plates[-1].plate
    true = [
        event(10.0, first, "a", -1, "x"),
        event(10.3, beside, "a", -1, "y"),
        event(20.0, first, "a", +1, "x"),
        event(30.0, first, "a", -1, "x"),
    ]
    answers = [
        reported(10.2, beside, -50.0),
        reported(10.1, first, -50.0),
        reported(20.0, first, -50.0),
        reported(30.1, far, -50.0),
    ]
    pairs = scores.matched_events(store, true, answers)
    assert (true[0], answers[1]) in pairs and (true[1], answers[0]) in pairs
    assert sum(a is None for a, _ in pairs) == 2 and sum(b is None for _, b in pairs) == 2
    assert scores.matched_events(store, true[:1], []) == [(true[0], None)]


def test_calibration_error_by_hand():
    # Nine of ten right at 0.95, and at 0.55 all right: 0.05 for ten lines, 0.45 for two.
    lines = [(0.95, i > 0) for i in range(10)] + [(0.55, True)] * 2
    assert scores.calibration_error(lines) == pytest.approx((10 * 0.05 + 2 * 0.45) / 12)
    assert scores.calibration_error([(1.0, True)] * 3) == 0.0
    assert math.isnan(scores.calibration_error([]))
    runs = [scores.Score(lines=lines), scores.Score(lines=[(0.95, True)] * 5)]
    low, high = scores.calibration_interval(runs)
    assert low <= scores.calibration_error([*lines, *runs[1].lines]) <= high


def test_exact_intervals_of_shares():
    # With 0 of n, the upper bound p solves (1 - p)^n = 0.025.
    low, high = intervals.share_interval(0, 200)
    assert low == 0.0 and (1 - high) ** 200 == pytest.approx(0.025)
    assert intervals.share_interval(200, 200) == pytest.approx((1 - high, 1.0))
    assert intervals.share_interval(5, 10) == pytest.approx((0.1871, 0.8129), abs=1e-4)


def test_scores_add_up():
    a = scores.Score(visits=2, violations=Counter(x=1), lines=[(0.5, True)])
    b = scores.Score(visits=3, violations=Counter(x=2), lines=[(0.6, False)])
    total = scores.sum_of([a, b])
    assert (total.visits, total.violations["x"], len(total.lines)) == (5, 3, 2)


def messages(grams, plate, start_ns=SECOND):
    return [
        ShelfReading(start_ns + round(i / 60 * SECOND), plate, block)
        for i, block in ((i, grams[i : i + 12].astype(np.float32)) for i in range(0, len(grams), 12))
    ]


def test_plain_method_detects_a_step_and_not_a_shock():
    store = demo_store(n_cameras=1, n_plates=8, n_products=2)
    plate, shaken = store.plates[0].plate, store.plates[-1].plate
    n = 1200
    step = np.where(np.arange(n) < 600, 3000.0, 2650.0)
    shock = 100.0 + np.where(abs(np.arange(n) - 600) < 40, 60.0 * np.sin(np.arange(n)), 0.0)
    readings = messages(step, plate) + messages(shock, shaken)
    found = plain.plain_events(store, sorted(readings, key=lambda reading: reading.t_ns))
    assert len(found) == 1
    t_ns, plates, total_g = found[0]
    assert plates == [plate] and total_g == pytest.approx(-350.0, abs=1.0)
    assert t_ns / SECOND == pytest.approx(11.0, abs=0.6)
    # The last sample bridges a lost message.
    assert len(plain.plain_events(store, [r for i, r in enumerate(messages(step, plate)) if i != 30])) == 1


def test_a_recordings_name_depends_on_seed_scenario_and_shop():
    case = scenarios.CASES[0]
    run = scenarios.run_of(case, 1)
    assert run.key() == scenarios.run_of(case, 1).key()
    changed = [
        scenarios.run_of(case, 2),
        scenarios.run_of(case, 1, quick=True),
        replace(run, scenario=replace(run.scenario, plate_noise=2.0)),
        replace(run, shop={**run.shop, "n_cameras": 11}),
    ]
    assert len({run.key(), *(variant.key() for variant in changed)}) == 5


def test_an_ablation_replaces_the_constants_that_the_engine_reads():
    shelves = planogram.Planogram(demo_store(n_cameras=1, n_plates=8, n_products=2))
    with ablations.constants(hypotheses, HYPOTHESES_MAX=1):
        assert len(hypotheses.HypothesisKernel(shelves)._key) == 1
    assert len(hypotheses.HypothesisKernel(shelves)._key) == hypotheses.HYPOTHESES_MAX == 128
    with ablations.constants(learnt, GAIN_VAR=1e-6):
        gain_var = planogram.Planogram(demo_store(n_cameras=1, n_plates=8, n_products=2)).gain_var
    np.testing.assert_array_equal(gain_var, 1e-6)
    with (
        pytest.raises(AttributeError, match="HYPOTHESES_MAXIMUM"),
        ablations.constants(hypotheses, HYPOTHESES_MAXIMUM=1),
    ):
        pass


def test_every_case_has_two_hundred_visits():
    assert len(scenarios.CASES) == 9
    for case in scenarios.CASES:
        assert case.n_seeds >= 5
        assert case.n_seeds * scenarios.run_of(case, 1).scenario.shoppers >= 200
        assert isinstance(scenarios.run_of(case, 3, quick=True).scenario, Scenario)


def test_causes_name_how_the_two_best_candidates_differ():
    store = demo_store(n_cameras=1, n_plates=8, n_products=2)
    plate, gtin = store.plates[0].plate, store.products[0].gtin
    weight_g = store.products[0].weight_g
    true = [event(10, plate, gtin, -1, "x"), event(20, plate, gtin, -1, "x")]
    answers = replays.Answers(
        receipts=[replace(receipt("x", {}, "review"), lines=(ReceiptLine(gtin, 1, 100, 0.6),))],
        events=[reported(10, plate, -weight_g, ("x", gtin, -1, 0.6), ("y", gtin, -1, 0.4))],
    )
    pairs = scores.matched_events(store, true, answers.events)
    visits = [truth.TrueVisit("x", 0, 50 * SECOND, {gtin: 2})]
    found = causes.causes_of("calm", 1, store, visits, true, answers, pairs)
    doubts = [row for row in found if isinstance(row, causes.Doubt)]
    assert [(doubt.kind, doubt.right) for doubt in doubts] == [
        ("take: which of two people (hands: unseen / unseen)", True),
        ("missed: take, alone", False),
    ]
    (cause,) = [row for row in found if isinstance(row, causes.Cause)]
    assert cause.status == "review, wrong"
    assert cause.cause == "take: which of two people (hands: unseen / unseen) / missed: take, alone"
    assert "review, wrong" in causes.causes_page(found)


def test_a_quick_run_end_to_end(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib", reason="no Matplotlib: pip install 'storefusion[bench]'")
    small = replace(scenarios.CASES[0], scenario={"shoppers": 4, "minutes": 2.4})
    for module in (receipts, tables):
        monkeypatch.setattr(module, "CASES", (small,))
    monkeypatch.setattr(receipts, "ABLATED", ("calm",))
    cache, out = tmp_path / "cache", tmp_path / "out"
    options = ["--quick", "--case", "calm", "--cache", str(cache), "--out", str(out)]
    receipts.main([*options, "--explain", str(tmp_path / "why"), "--ablations"])
    (recording,) = (path for path in cache.iterdir() if path.is_dir())
    written_ns = recording.stat().st_mtime_ns
    printed = capsys.readouterr().out
    assert "| calm, 1-3 people |" in printed and "plain method" in printed and "without a planogram" in printed
    page = (out / "accuracy.md").read_text(encoding="utf-8")
    assert "accuracy.svg" in page and "Figures are sums" in page
    assert (out / "accuracy.svg").read_text(encoding="utf-8").rstrip().endswith("</svg>")
    (row,) = json.loads((out / "accuracy.json").read_text(encoding="utf-8"))["cases"]
    assert row["ours"]["visits"] == row["ours"]["settled"] + row["ours"]["review"] > 0 < len(row["reliability"])
    assert "Why receipts" in (tmp_path / "why").read_text(encoding="utf-8")
    # The cached recording is used again, with the same answers.
    receipts.main(["--quick", "--case", "calm", "--cache", str(cache)])
    assert recording.stat().st_mtime_ns == written_ns
    assert [path for path in cache.iterdir() if path.is_dir()] == [recording]
    assert capsys.readouterr().out.splitlines()[2] == printed.splitlines()[2]


def test_risk_over_coverage_by_hand():
    receipts = [
        risk.Weighed(0.99, True, True),
        risk.Weighed(0.99, True, True),
        risk.Weighed(0.9, False, True),
        risk.Weighed(0.6, True, True),
        risk.Weighed(1.0, True, False),  # Lost from sight: settled at no threshold.
    ]
    # Of six visits, one has no receipt.
    assert risk.risk_curve(receipts, 6) == [
        [pytest.approx(2 / 6, abs=1e-5), 0.0, 0.99],
        [0.5, pytest.approx(1 / 3, abs=1e-5), 0.9],
        [pytest.approx(4 / 6, abs=1e-5), 0.25, 0.6],
    ]
    rows = {row[0]: row[1:] for row in risk.risk_table(receipts, 6)}
    assert rows[0.95] == [2, 0, 0.99] and rows[0.8] == [3, 1, 0.96] and rows[0.999] == [0, 0, 0.0]


def test_answers_about_an_event_are_of_a_person_a_product_or_nothing():
    sure = reported(10, "p", -50.0, ("x", "a", -1, 0.7), ("x", "b", -1, 0.2), ("y", "a", -1, 0.05))
    assert risk.answered([(event(10, "p", "a", -1, "x"), sure)]) == [
        risk.Answered((pytest.approx(0.9), True), (pytest.approx(0.75), True))
    ]
    assert [a.person[1] for a in risk.answered([(event(10, "p", "a", -1, "y"), sure), (None, sure)])] == [False] * 2
    ghost = reported(10, "p", -50.0, ("x", "a", -1, 0.1))
    assert risk.answered([(None, ghost), (event(10, "p", "a", -1, "x"), None)]) == [
        risk.Answered((pytest.approx(0.9), True), (pytest.approx(0.9), True))
    ]


def test_honest_probabilities_differ_from_dishonest_ones():
    random = np.random.default_rng(1)
    p = random.uniform(0.5, 1.0, 5000)
    honest = risk.honesty([(one, random.random() < one) for one in p])
    assert honest.error < 0.02 and abs(honest.bias) < 0.02
    modest = risk.honesty([(one - 0.1, random.random() < one) for one in p])
    assert modest.error > modest.chance and modest.bias == pytest.approx(-0.1, abs=0.02)
    assert "✗ too unsure by" in risk.honesty_cell(modest)
    assert risk.honesty([]) is None and risk.honesty_cell(None) == "-"
    few = risk.honesty([(0.9, True)] * 5)
    assert "chance" in risk.honesty_cell(few)


def test_loads_beside_another_persons_are_counted_apart():
    store = demo_store(n_cameras=1, n_plates=8, n_products=2)
    first, beside, far = store.plates[0].plate, store.plates[1].plate, store.plates[-1].plate
    true = [
        event(10.0, first, "a", -1, "x"),
        event(10.6, beside, "a", -1, "y"),
        event(10.3, far, "a", -1, "z"),
        event(20.0, first, "a", -1, "x"),
        event(20.4, first, "a", +1, "x"),
    ]
    pairs = [(true[0], reported(10.0, first, -50.0)), *((one, None) for one in true[1:])]
    counts = shelves.score_shelves(store, pairs, [], []).figures()
    assert (counts["takes_loads"], counts["takes_missed"], counts["puts_loads"], counts["puts_missed"]) == (4, 3, 1, 1)
    assert (counts["beside_loads"], counts["beside_missed"]) == (2, 1)
