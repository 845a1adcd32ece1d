"""What the shopper of a visit stated about it, as a reviewer reads it: evidence beside that of the sensors."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from fusion.money.disputes import NONE_OF_THESE, ShopperAnswer
from fusion.store.values import StrictModel
from fusion.till.answers import Answers, ShopperQuestion
from fusion.till.reliability import MILLION

_NS_PER_MS = 1_000_000


class Trust(StrictModel):
    """A person lifts the mark from the customer of a visit: why."""

    note: str = Field(default="", max_length=500)


def heard_row(answers: Answers, visit: str) -> dict[str, Any]:
    """A shopper's answers, and whether they are believed.

    Returns:
        "answers": [{"ms", "stated": "choice" | "none" | "unknown", "goods": [[gtin, quantity], ...] (negative: taken),
        "lines": the bill that follows or null, "before" and "after": probabilities that the bill is right without and
        with the answer, null where they are not known}, ...]; "marked": the customer answers to their own advantage.

    Raises:
        LedgerError: the books cannot be read.
    """
    heard = answers.heard(visit)
    if not heard.answers:
        return {"answers": [], "marked": heard.marked}
    asked = {question.id: question for question in answers.questions(visit)}
    return {"answers": [_row(one, asked.get(one.question)) for one in heard.answers], "marked": heard.marked}


def _row(answer: ShopperAnswer, question: ShopperQuestion | None) -> dict[str, Any]:
    choices = () if question is None else question.choices
    chosen = next((choice for choice in choices if choice.number == answer.choice), None)
    stated = "choice" if answer.choice >= 0 else "none" if answer.choice == NONE_OF_THESE else "unknown"
    before, after = (answer.worth.get(name) for name in ("before", "after"))
    return {
        "ms": answer.t_ns // _NS_PER_MS,
        "stated": stated,
        "goods": [] if chosen is None else [[one.gtin, one.quantity] for one in chosen.moved],
        "lines": None if chosen is None else [[line.gtin, line.quantity] for line in chosen.lines],
        "before": None if before is None else before / MILLION,
        "after": None if after is None else after / MILLION,
    }


__all__ = ["heard_row"]
