"""Questions to shoppers, and what becomes of their answers and disputes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from money.books import BREAD, COLA, SOUP, STORE, T_NS, receipt

from fusion.errors import LedgerError
from fusion.files.results import evidence_row
from fusion.money.disputes import NONE_OF_THESE
from fusion.money.ledger import Ledger
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
from fusion.till.answers import Answers

PRICES = {COLA: 249, BREAD: 199, SOUP: 100}
SHOP = STORE.model_copy(
    update={
        "products": tuple(
            product.model_copy(update={"price": PRICES.get(product.gtin, 100), "name": f"name of {product.gtin}"})
            for product in STORE.products
        ),
        "facings": (Facing(plate="p1", gtin=COLA, stock=5), Facing(plate="p1", gtin=BREAD, stock=5)),
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

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.bundles: dict[str, dict[str, Any]] = {}
        self.answers = Answers(SHOP, ledger, self.bundles.get)

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
