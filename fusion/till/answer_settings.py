"""How far a shopper's word goes: the [answers] table of till.toml."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fusion.store.values import StrictModel

Amount = Annotated[int, Field(ge=0, le=10**12)]
Share = Annotated[float, Field(gt=0.0, lt=0.5)]


class AnswerSettings(StrictModel):
    """What answers and disputes may do by themselves; amounts in minor units, months of 30 days.

    Attributes:
        settle: whether an answer may settle a bill; otherwise a person reads it and decides.
        refund: whether a dispute may be refunded at once; otherwise a person decides.
        answer_max: most that one answer may take off a bill, against the dearest bill that is at all likely.
        refund_line_max, refund_visit_max: most that disputes of a line, and of a visit, may take off.
        month_max: most that the answers and disputes of one customer may take off in a month.
        month_count_max: answers and disputes of one customer in a month that may take effect by themselves.
        questions_max: questions that are put about one visit.
        check_share: share of the answers that would settle a bill and are put to a person nevertheless. Learning needs
            them, and so does finding those who answer to their own advantage.
        takers: expected share of customers who do so, before anything is learnt.
        mistakes: expected share of honest answers that are wrong, before anything is learnt.
        learnt_from: as many answers make what is learnt count as much as these two expectations.
        marked_from: a customer is marked, and their word moves nothing any more, once their answers are this many times
            more probable from a shopper who answers to their advantage than from an honest one. At most one honest
            customer in this many is ever marked.
    """

    settle: bool = True
    refund: bool = True
    answer_max: Amount = 1000
    refund_line_max: Amount = 1000
    refund_visit_max: Amount = 2000
    month_max: Amount = 3000
    month_count_max: Annotated[int, Field(ge=0, le=1000)] = 12
    questions_max: Annotated[int, Field(ge=0, le=8)] = 2
    check_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    takers: Share = 0.03
    mistakes: Share = 0.02
    learnt_from: Annotated[int, Field(ge=1, le=10**6)] = 100
    marked_from: Annotated[float, Field(ge=10.0, le=10**6)] = 60.0
