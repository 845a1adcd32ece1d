"""One question of a review: the sentence, weights beside one another, hands, and what each choice charges."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from show.consoles import T_NS, review

from fusion.errors import FusionError
from fusion.files.results import reason_row
from fusion.money.ledger import Ledger
from fusion.money.visits import Standing
from fusion.results import Reason, ReasonKind, ReceiptLine
from fusion.show.console.heard import heard_row
from fusion.show.console.question import Charge, Pieces, question_row
from fusion.show.web.languages import catalogue
from fusion.store.models import Store
from fusion.till.answer_settings import AnswerSettings
from fusion.till.answers import Answers


def bundle(store: Store, **more: Any) -> dict[str, Any]:
    """Put back at the first plate: the first product or the second; a hand of ours, and one of another visit."""
    plate, (first, second) = store.plates[0], store.products[:2]
    place = [plate.x, plate.y, plate.z]
    paths = [
        {
            "track": n, "account": f"acc-{n}", "visit": f"visit-{n}", "times": [T_NS - 10**9, T_NS],
            "left": [None, None], "right": [place, [plate.x, plate.y, plate.z + 0.1 * n]],
        }
        for n in (2, 1)
    ]  # fmt: skip
    alternatives = [
        {"moved": [{"gtin": one.gtin, "quantity": 1}], "probability": p, "lines": lines, "receipt_probability": p}
        for one, p, lines in (
            (first, 0.6, [{"gtin": second.gtin, "quantity": 1}]),
            (second, 0.4, [{"gtin": first.gtin, "quantity": 1}]),
        )
    ]
    event = {
        "event": 7, "contact": T_NS, "plate": plate.plate, "wrists": paths, "weighed_g": 94.7, "sd_g": 2.0,
        "pieces": [
            {"gtin": first.gtin, "weight_g": 95.0, "sd_g": 3.0}, {"gtin": second.gtin, "weight_g": 80.0, "sd_g": 1.0},
        ],
    }  # fmt: skip
    question = {"kind": "product", "plate": plate.plate, "time": T_NS, "event": 7, "alternatives": alternatives}
    return {"visit": "visit-1", "account": "acc-1", "questions": [question], "events": [event], **more}


def standing(store: Store) -> Standing:
    lines = (ReceiptLine(store.products[1].gtin, 1, 200, 0.6),)
    return Standing("visit-1", "acc-1", "review", "in doubt", store.currency, 200, lines, 0)


def charge(pieces: Pieces) -> Charge:
    return Charge(100 * sum(quantity for _, quantity in pieces), 0)


def test_the_question_holds_what_a_person_needs(store: Store) -> None:
    plate, (first, second) = store.plates[0].plate, store.products[:2]
    row = question_row(bundle(store), standing(store), store, charge, catalogue("console", "en"))
    assert row["sentence"] == (
        f"Put back at {plate}: {first.name} (95 ± 3 g, fits) or {second.name} (80 ± 1 g)?"
    )  # fmt: skip
    assert row["weighed"] == [94.7, 2.0] and [one["fits"] for one in row["choices"]] == ["yes", "no"]
    # The bill as it stands is exact; the other is priced by the server.
    assert [(one["decision"], one["total"]) for one in row["choices"]] == [("accept", 200), ("correct", 100)]
    assert [(hand["visit"], hand["mine"], hand["cm"]) for hand in row["hands"]] == [
        ("visit-1", True, 10), ("visit-2", False, 20),
    ]  # fmt: skip
    german = question_row(bundle(store), standing(store), store, charge, catalogue("console", "de"))
    assert german["sentence"].startswith(f"Zurückgelegt bei {plate}: ") and " oder " in german["sentence"]


@pytest.mark.parametrize("garbled", [{"events": 7}, {"questions": [{}]}, {"questions": 3}, {"events": [{"event": 7}]}])
def test_garbled_evidence_leaves_the_bill(store: Store, garbled: dict[str, Any]) -> None:
    for given in (None, {"visit": "visit-1", "events": []}, bundle(store, **garbled)):
        row = question_row(given, standing(store), store, charge, catalogue("console", "en"))
        assert row["kind"] == "bill" and "in doubt" in row["sentence"]
        assert [(one["decision"], one["total"]) for one in row["choices"]] == [("accept", 200)]


def test_goods_that_the_store_does_not_sell_are_no_choice(store: Store) -> None:
    def refuse(pieces: Pieces) -> Charge:
        raise FusionError("want products of this store")

    row = question_row(bundle(store), standing(store), store, refuse, catalogue("console", "en"))
    assert row["kind"] == "bill" and [one["decision"] for one in row["choices"]] == ["accept"]


def test_a_reviewer_reads_what_the_shopper_answered(tmp_path: Path, store: Store) -> None:
    second = store.products[1]
    lines = (ReceiptLine(second.gtin, 1, second.price, 0.6),)
    reasons = (Reason(ReasonKind.GOODS_UNCERTAIN, plate=store.plates[0].plate, delta_g=94.7, probability=0.6),)
    bill = dataclasses.replace(review(store, "visit-1"), lines=lines, total=second.price, reasons=reasons)
    kept = bundle(store, exit=T_NS, lines=[], reason_codes=[reason_row(reason) for reason in reasons])
    with Ledger.open(tmp_path / "l.sqlite", store) as ledger:
        ledger.post_receipt(bill)
        answers = Answers(store, ledger, lambda _: kept, AnswerSettings(settle=False))
        assert heard_row(answers, "visit-1") == {"answers": [], "marked": False}
        (question,) = answers.questions("visit-1")
        other = next(one for one in question.choices if one.moved[0].gtin == second.gtin)
        answers.answer("visit-1", question.id, other.number, T_NS + 10**9)
        (row,) = heard_row(answers, "visit-1")["answers"]
        assert (row["stated"], row["goods"]) == ("choice", [[second.gtin, 1]])
        assert row["lines"] == [[store.products[0].gtin, 1]] and row["before"] < row["after"]
