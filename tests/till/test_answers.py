"""Questions to shoppers, and what becomes of their answers and disputes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from money.books import BREAD, COLA, DAY_NS, SOUP, STORE, T_NS, balances, receipt

from fusion.errors import LedgerError
from fusion.files.results import evidence_row
from fusion.money.disputes import NONE_OF_THESE, disputed_visits
from fusion.money.ledger import Ledger
from fusion.money.profiles import Answering, Profiles
from fusion.money.vault import Holder
from fusion.results import (
    Alternative,
    Evidence,
    Goods,
    Question,
    QuestionKind,
    Reason,
    ReasonKind,
    ReceiptLine,
    ReceiptStatus,
)
from fusion.store.models import Facing
from fusion.till.answer_settings import AnswerSettings
from fusion.till.answers import Answers, Outcome, question_id
from fusion.till.reliability import Habits

PRICES = {COLA: 249, BREAD: 199, SOUP: 100}
SHOP = STORE.model_copy(
    update={
        "products": tuple(
            product.model_copy(update={"price": PRICES.get(product.gtin, 100), "name": f"name of {product.gtin}"})
            for product in STORE.products
        ),
        "planogram": (Facing(plate="p1", gtin=COLA, stock=5), Facing(plate="p1", gtin=BREAD, stock=5)),
    }
)
UNSURE = Reason(ReasonKind.GOODS_UNCERTAIN, plate="p1", delta_g=-100.0, probability=0.6)


def look_alike(p_dear: float = 0.6, right: float = 0.99) -> Question:
    """Whether the shopper took a cola or a bread, which is cheaper; a soup is on the bill in any case."""
    alternatives = tuple(
        Alternative((Goods(gtin, -1),), p, tuple(Goods(each, 1) for each in sorted((gtin, SOUP))), right)
        for gtin, p in ((COLA, p_dear), (BREAD, 1.0 - p_dear))
    )
    return Question(QuestionKind.PRODUCT, "p1", T_NS + 30, 7, alternatives, 0.9)


class Shop:
    """Books with reviews, and the evidence about them."""

    def __init__(self, ledger: Ledger, **settings: Any) -> None:
        self.ledger = ledger
        self.bundles: dict[str, dict[str, Any]] = {}
        wanted = AnswerSettings.model_validate({"check_share": 0.0, "marked_from": 100.0, **settings})
        self.answers = Answers(SHOP, ledger, self.bundles.get, wanted)

    def asked(self, visit: str) -> str:
        """Id of the one question about a visit."""
        (row,) = self.bundles[visit]["questions"]
        return question_id(row["plate"], row["time"], row["event"])

    def review(self, visit: str, *questions: Question, account: str | None = "alice", reason: Reason = UNSURE) -> None:
        lines = (ReceiptLine(COLA, 1, 249, 0.6), ReceiptLine(SOUP, 1, 100, 0.99))
        posted = replace(receipt(visit, *lines, status="review", account=account), reasons=(reason,))
        self.ledger.post_receipt(posted)
        bundle = Evidence(
            posted.exit_ns, visit, account, ReceiptStatus.REVIEW, (reason,), lines, (), (), 0, (), questions
        )
        self.bundles[visit] = evidence_row(bundle)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Ledger.open(tmp_path / "ledger.sqlite", SHOP) as ledger:
        yield Shop(ledger)


def test_a_question_names_time_place_goods_and_what_each_choice_costs(shop: Shop) -> None:
    shop.review("v1", look_alike())
    (asked,) = shop.answers.questions("v1")
    assert (asked.t_ns, asked.plate, asked.kind) == (T_NS + 30, "p1", QuestionKind.PRODUCT)
    assert asked.nearby == (f"name of {COLA}", f"name of {BREAD}")
    # The cheaper one comes first, and is the default.
    assert [(c.number, c.total, c.dearer, c.moved) for c in asked.choices] == [
        (1, 299, 0, (Goods(BREAD, -1),)), (0, 349, 50, (Goods(COLA, -1),)),
    ]  # fmt: skip
    assert asked.answered is None
    shop.answers.answer("v1", asked.id, NONE_OF_THESE, T_NS + 100)
    (again,) = shop.answers.questions("v1")
    assert (again.id, again.answered) == (asked.id, NONE_OF_THESE)


def test_nothing_is_asked_where_no_answer_can_help_or_the_visit_is_decided(shop: Shop) -> None:
    shop.review("v1", look_alike(), reason=Reason(ReasonKind.RESTARTED))
    shop.review("v2", look_alike())
    shop.ledger.decide("v2", "waive", by="eve", t_ns=T_NS + 100)
    shop.review("v3")
    assert [shop.answers.questions(visit) for visit in ("v1", "v2", "v3", "never")] == [()] * 4
    shop.bundles["v4"] = {"visit": "v4", "questions": [{}]}
    shop.ledger.post_receipt(receipt("v4", ReceiptLine(COLA, 1, 249, 0.6), status="review"))
    assert shop.answers.questions("v4") == ()


def test_a_question_or_choice_that_was_not_put_is_refused(shop: Shop) -> None:
    shop.review("v1", look_alike())
    shop.review("v2", replace(look_alike(), t_ns=T_NS + 31))
    (mine,), (other,) = shop.answers.questions("v1"), shop.answers.questions("v2")
    head = shop.ledger.head()
    for question, choice in ((other.id, 0), (mine.id, 2), (mine.id, -3), ("", 0)):
        with pytest.raises(LedgerError):
            shop.answers.answer("v1", question, choice, T_NS + 100)
    assert shop.ledger.head() == head


# ---- answers ---------------------------------------------------------------------------------------------------------


def answered(shop: Shop, visit: str, number: int, t_ns: int = T_NS + 100) -> Outcome:
    (asked,) = shop.answers.questions(visit)
    return shop.answers.answer(visit, asked.id, number, t_ns)


def hold_of(shop: Shop, visit: str) -> str | None:
    (answer,) = shop.answers.heard(visit).answers
    return answer.worth.get("held")


def test_an_answer_against_ones_own_interest_settles_the_bill_with_both_probabilities(shop: Shop) -> None:
    shop.review("v1", look_alike(p_dear=0.3))
    outcome = answered(shop, "v1", 0)
    assert (outcome.status, outcome.is_new, outcome.standing.total) == ("settled", True, 349)
    (decision,) = [entry for entry in shop.ledger.entries("v1") if entry.kind == "decision correct"]
    assert decision.request["by"] == "shopper's answer"
    assert decision.request["note"] == "probability 0.297 by the sensors, 0.966 with the shopper's answer"
    assert balances(shop.ledger)["receivable"] == 349
    # A phone that repeats its request changes nothing, and hears the same.
    head = shop.ledger.head()
    again = shop.answers.answer("v1", shop.asked("v1"), 0, T_NS + 900)
    assert (again.status, again.is_new, shop.ledger.head()) == ("settled", False, head)


def test_an_answer_that_is_not_enough_leaves_the_bill_to_a_person_who_sees_it(shop: Shop) -> None:
    shop.review("v1", look_alike(p_dear=0.9))
    outcome = answered(shop, "v1", 1)
    assert (outcome.status, hold_of(shop, "v1")) == ("review", "not sure")
    assert [standing.visit for standing in shop.ledger.reviews()] == ["v1"]
    (answer,) = shop.answers.heard("v1").answers
    assert answer.worth["before"] == 99_000 and 99_000 < answer.worth["after"] < 950_000
    assert outcome.standing.total == 349, "no money has moved"


@pytest.mark.parametrize(
    ("settings", "hold"),
    [
        ({"settle": False}, "off"),
        ({"answer_max": 49}, "amount"),
        ({"month_max": 49}, "month"),
        ({"month_count_max": 0}, "month"),
        ({"check_share": 1.0}, "check"),
    ],
)
def test_limits_leave_an_answer_to_a_person(tmp_path: Path, settings: dict[str, Any], hold: str) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite", SHOP) as ledger:
        shop = Shop(ledger, **settings)
        shop.review("v1", look_alike(p_dear=0.2))
        assert (answered(shop, "v1", 1).status, hold_of(shop, "v1")) == ("review", hold)


def test_what_answers_take_off_in_a_month_is_limited_for_a_customer_under_all_their_names(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite", SHOP) as ledger:
        shop = Shop(ledger, month_max=120)
        found = []
        for i in range(4):
            ledger.hold(Holder(f"p{i}", "alice", None, None, T_NS))
            shop.review(f"v{i}", look_alike(p_dear=0.06), account=f"p{i}")
            found.append(answered(shop, f"v{i}", 1, T_NS + i).status)
        assert found == ["settled", "settled", "review", "review"] and hold_of(shop, "v3") == "month"
        shop.review("other", look_alike(p_dear=0.06), account="bob")
        assert answered(shop, "other", 1).status == "settled"
        shop.review("later", look_alike(p_dear=0.06), account="p3")
        assert answered(shop, "later", 1, T_NS + 31 * DAY_NS).status == "settled"


def test_no_answer_settles_a_visit_without_customer_or_one_that_a_person_is_deciding(shop: Shop) -> None:
    shop.review("anonymous", look_alike(), account=None)
    assert (answered(shop, "anonymous", 0).status, hold_of(shop, "anonymous")) == ("review", "no customer")
    shop.review("v1", look_alike(p_dear=0.3))
    shop.ledger.record("v1", "proposal 1", "proposal made", T_NS + 90, {"by": "eve"})
    assert (answered(shop, "v1", 0).status, hold_of(shop, "v1")) == ("review", "person")


def test_a_person_who_decides_at_the_same_moment_comes_first(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.review("v1", look_alike(p_dear=0.3))
    question, judge = shop.asked("v1"), shop.answers._judge_answer

    def meanwhile(*values: Any) -> Any:
        judged = judge(*values)
        if shop.ledger.standing("v1").revision == 0:  # type: ignore[union-attr]
            shop.ledger.decide("v1", "waive", by="eve", t_ns=T_NS + 99)
        return judged

    monkeypatch.setattr(shop.answers, "_judge_answer", meanwhile)
    outcome = shop.answers.answer("v1", question, 0, T_NS + 100)
    assert (outcome.status, outcome.standing.total, hold_of(shop, "v1")) == ("review", 0, "person")
    assert shop.ledger.verify() is None


def test_a_customer_who_lies_to_their_advantage_is_marked_until_a_person_lifts_it(shop: Shop) -> None:
    for i in range(2):
        shop.review(f"v{i}", look_alike(p_dear=0.7))
        assert not shop.answers.heard(f"v{i}").marked
        assert answered(shop, f"v{i}", 1, T_NS + i).status == "review"
        dear = (ReceiptLine(COLA, 1, 249, 1.0), ReceiptLine(SOUP, 1, 100, 1.0))
        shop.ledger.decide(f"v{i}", "correct", by="eve", t_ns=T_NS + 50 + i, lines=dear)
    shop.review("v2", look_alike(p_dear=0.06))
    heard = shop.answers.heard("v2")
    assert heard.marked and heard.ratio > 1000 and shop.answers.questions("v2") == ()
    # What they answer all the same is recorded, and moves nothing.
    name = question_id("p1", T_NS + 30, 7)
    assert shop.answers.answer("v2", name, 1, T_NS + 60).status == "review" and hold_of(shop, "v2") == "marked"
    assert shop.answers.trust("v2", by="eve", t_ns=T_NS + 70, note="confused the shelves")
    shop.review("v3", look_alike(p_dear=0.06))
    assert not shop.answers.heard("v3").marked and answered(shop, "v3", 1).status == "settled"
    # Another customer was never concerned, and a customer who is forgotten has no history.
    assert not shop.answers._history.customer("other", T_NS).marked
    shop.ledger.unlink_account("alice")
    assert not shop.answers.heard("v2").marked and shop.answers.heard("v2").ratio == 1.0


def test_a_mark_outlives_the_links_of_visits_and_ends_when_the_customer_is_forgotten(tmp_path: Path) -> None:
    profiles = Profiles(tmp_path / "profiles.sqlite")
    with Ledger.open(tmp_path / "ledger.sqlite", SHOP) as ledger:
        shop = Shop(ledger)
        shop.answers = Answers(SHOP, ledger, shop.bundles.get, shop.answers._settings, profiles=profiles)
        dear = (ReceiptLine(COLA, 1, 249, 1.0), ReceiptLine(SOUP, 1, 100, 1.0))
        for i in range(2):
            ledger.hold(Holder(f"p{i}", "alice", None, None, T_NS))
            shop.review(f"v{i}", look_alike(p_dear=0.7), account=f"p{i}")
            answered(shop, f"v{i}", 1, T_NS + i)
            ledger.decide(f"v{i}", "correct", by="eve", t_ns=T_NS + 50 + i, lines=dear)
        ratio = shop.answers.heard("v1").ratio
        # Another customer's answer ten days later: by then the first one's are folded into one number.
        shop.review("other", look_alike(p_dear=0.3), account="bob")
        answered(shop, "other", 0, T_NS + 10 * DAY_NS)
        assert profiles.answering("alice").ratio == pytest.approx(ratio)
        assert shop.answers.heard("v1").ratio == pytest.approx(ratio), "nothing counts twice"
        ledger.unlink_before(T_NS + 40 * DAY_NS)
        ledger.hold(Holder("p9", "alice", None, None, T_NS))
        shop.review("v9", look_alike(), account="p9")
        again = Answers(SHOP, ledger, shop.bundles.get, profiles=profiles)
        assert again.heard("v9").marked and again.questions("v9") == ()
        assert again.trust("v9", by="eve", t_ns=T_NS + 41 * DAY_NS) and not again.heard("v9").marked
        profiles.keep_answering("alice", Answering(1e6, 1e6, 10**6, T_NS))
        assert again.heard("v9").marked and profiles.erase("alice") and not again.heard("v9").marked
    profiles.close()


def test_what_was_learnt_survives_a_restart(shop: Shop) -> None:
    for i in range(3):
        shop.review(f"v{i}", look_alike(p_dear=0.7), account=f"a{i}")
        answered(shop, f"v{i}", 1)
        shop.ledger.decide(f"v{i}", "accept", by="eve", t_ns=T_NS + 200)
    again = Answers(SHOP, shop.ledger, shop.bundles.get, shop.answers._settings)
    assert again._history.habits() == shop.answers._history.habits() != Habits(0.02, 0.03)
    assert again.heard("v1") == shop.answers.heard("v1")


# ---- disputes --------------------------------------------------------------------------------------------------------


def settled(shop: Shop, visit: str, confidence: float, account: str | None = "alice") -> None:
    lines = (ReceiptLine(COLA, 2, 249, confidence), ReceiptLine(SOUP, 1, 100, 0.999))
    shop.ledger.post_receipt(receipt(visit, *lines, account=account))


def test_a_plausible_dispute_is_refunded_at_once_under_the_limits(shop: Shop) -> None:
    settled(shop, "v1", 0.95)
    outcome = shop.answers.dispute("v1", COLA, 1, "not taken", T_NS + 100)
    assert (outcome.status, outcome.is_new, outcome.standing.total) == ("refunded", True, 349)
    assert balances(shop.ledger)["receivable"] == 349 and disputed_visits(shop.ledger) == []
    head = shop.ledger.head()
    again = shop.answers.dispute("v1", COLA, 1, "not taken", T_NS + 900)
    assert (again.status, again.is_new, shop.ledger.head()) == ("refunded", False, head)
    # The last line leaves an empty bill.
    settled(shop, "v2", 0.9)
    shop.answers.dispute("v2", COLA, 2, "not taken", T_NS + 100)
    assert shop.answers.heard("v2").disputes[0].worth["off"] == 498
    assert [entry.request["by"] for entry in shop.ledger.entries("v2") if entry.kind == "decision correct"] == [
        "shopper's dispute"
    ]


@pytest.mark.parametrize(
    ("settings", "confidence", "reason", "account", "hold"),
    [
        ({}, 0.9999, "not taken", "alice", "not sure"),
        ({}, 0.95, "other price", "alice", "unknown"),
        ({}, 0.95, "not taken", None, "no customer"),
        ({"refund": False}, 0.95, "not taken", "alice", "off"),
        ({"refund_line_max": 248}, 0.95, "not taken", "alice", "amount"),
        ({"refund_visit_max": 248}, 0.95, "not taken", "alice", "amount"),
        ({"month_max": 248}, 0.95, "not taken", "alice", "month"),
    ],
)
def test_other_disputes_wait_for_a_person(
    tmp_path: Path, settings: dict[str, Any], confidence: float, reason: str, account: str | None, hold: str
) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite", SHOP) as ledger:
        shop = Shop(ledger, **settings)
        settled(shop, "v1", confidence, account)
        assert shop.answers.dispute("v1", COLA, 1, reason, T_NS + 100).status == "review"
        heard = shop.answers.heard("v1")
        assert [each.worth["held"] for each in heard.waiting] == [hold] and disputed_visits(ledger) == ["v1"]
        assert balances(ledger)["receivable"] == 598


def test_a_dispute_about_what_a_person_decided_or_has_not_decided_yet_waits(shop: Shop) -> None:
    settled(shop, "v1", 0.9)
    shop.ledger.decide("v1", "correct", by="eve", t_ns=T_NS + 1, lines=[ReceiptLine(COLA, 2, 249, 1.0)])
    shop.review("v2", look_alike())
    for visit in ("v1", "v2"):
        assert shop.answers.dispute(visit, COLA, 1, "not taken", T_NS + 100).status == "review"
    # A bill with an open dispute is not settled by an answer either.
    assert answered(shop, "v2", 0).status == "review" and hold_of(shop, "v2") == "other reasons"


def test_disputes_that_persons_found_wrong_make_the_next_ones_less_plausible_and_mark(shop: Shop) -> None:
    plausible = []
    for i in range(3):
        settled(shop, f"v{i}", 0.99)
        plausible.append(shop.answers.dispute(f"v{i}", SOUP, 1, "put back", T_NS + i).standing.visit)
        heard = shop.answers.heard(f"v{i}")
        plausible[i] = heard.disputes[0].worth["wrong"]
        shop.ledger.decide(
            f"v{i}", "correct", by="eve", t_ns=T_NS + 50, revision=len(heard.disputes) - len(heard.waiting) + 1,
            lines=[ReceiptLine(COLA, 2, 249, 1.0), ReceiptLine(SOUP, 1, 100, 1.0)],
        )  # fmt: skip
    assert plausible[0] > plausible[1] > plausible[2]
    assert shop.answers.heard("v2").marked


def test_answers_at_once_pass_no_limit_of_the_month_together(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite", SHOP) as ledger:
        shop = Shop(ledger, month_max=60)
        for visit in ("v1", "v2"):
            shop.review(visit, look_alike(p_dear=0.06))
        found: dict[str, str] = {}
        second = threading.Thread(target=lambda: found.update(v2=answered(shop, "v2", 1).status))

        def draw() -> float:
            # The first answer is judged, and not booked yet.
            if not second.ident:
                second.start()
                second.join(0.2)  # a second one that need not wait is through by then
            return 1.0

        shop.answers._draw = draw
        found["v1"] = answered(shop, "v1", 1).status
        second.join()
        assert found == {"v1": "settled", "v2": "review"} and hold_of(shop, "v2") == "month"


def test_what_a_person_asks_for_while_a_shoppers_word_is_judged_is_not_overtaken(shop: Shop) -> None:
    shop.review("v1", look_alike(p_dear=0.3))

    def draw() -> float:
        if not any(entry.kind == "proposal made" for entry in shop.ledger.entries("v1")):
            shop.ledger.record("v1", "proposal 1", "proposal made", T_NS + 90, {"by": "eve"})
        return 1.0

    shop.answers._draw = draw
    assert (answered(shop, "v1", 0).status, hold_of(shop, "v1")) == ("review", "person")
    assert [entry.kind for entry in shop.ledger.entries("v1") if entry.kind.startswith("decision")] == []


@pytest.mark.parametrize("quantity", [0, -1, 10**30])
@pytest.mark.parametrize("gtin", [COLA, BREAD, "\ud800"])
def test_a_dispute_about_no_pieces_is_refused(shop: Shop, gtin: str, quantity: int) -> None:
    settled(shop, "v1", 0.9)
    head = shop.ledger.head()
    with pytest.raises(LedgerError):
        shop.answers.dispute("v1", gtin, quantity, "not taken", T_NS + 100)
    assert shop.ledger.head() == head
