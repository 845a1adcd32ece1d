"""Questions to shoppers about their own bills, what their answers are worth, and lines that they dispute.

A receipt in review may hold questions: "A or B?". The shopper's answer is evidence beside that of the sensors. With the
sensors' probabilities p, and what is learnt about the shopper (`fusion.till.reliability`), the bill under answer c is
right with probability

    sum of p(a) P(c | a) right(a) over the choices a with that bill / sum of p(a) P(c | a) over all a

where right(a) is the probability of the rest of the bill. Where that meets the store's own limit for settling, and the
limits of `[answers]` are kept, the answer settles the bill by a decision of its own; otherwise a person sees it. An
answer is recorded in the books with what was known then; see `fusion.money.disputes`.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from random import SystemRandom
from typing import Any, Literal, NamedTuple

from fusion.errors import FusionError, IdempotencyConflict, LedgerError
from fusion.files.results import reason_of
from fusion.money.corrections import Correction, Corrections
from fusion.money.disputes import (
    BY_ANSWER,
    BY_DISPUTE,
    NONE_OF_THESE,
    NOT_KNOWN,
    QUANTITY_MAX,
    Dispute,
    DisputeReason,
    ShopperAnswer,
    answers_of,
    disputes_of,
    record_answer,
    record_dispute,
    record_trust,
    undecided_disputes,
)
from fusion.money.entries import Entry, checked_integer
from fusion.money.ledger import Ledger
from fusion.money.profiles import Profiles
from fusion.money.sales import Discount, Sale
from fusion.money.visits import DECISIONS, Standing
from fusion.results import WEIGHED_REASONS, Goods, QuestionKind, ReceiptLine
from fusion.store.models import Store
from fusion.till.answer_history import AnswerHistory, CustomerHistory
from fusion.till.answer_settings import AnswerSettings
from fusion.till.reliability import DRAWN, MILLION, Statement, truth_weights

# What an answer takes off a bill is measured against the dearest choice that is at least this likely.
LIKELY_MIN = 0.05
# A disputed line is refunded at once where it is more probable than this that it is wrong.
WRONG_MIN = 0.5
# Reasons of a dispute by which pieces come off the bill; for others a person has to look.
_OFF_THE_BILL = (DisputeReason.NOT_TAKEN, DisputeReason.PUT_BACK, DisputeReason.OTHER_QUANTITY)


class Hold(StrEnum):
    """Why what a shopper stated does not take effect by itself; the books keep the value."""

    OFF = "off"  # by the settings
    UNKNOWN = "unknown"  # no choice, or the shopper does not know
    NO_CUSTOMER = "no customer"  # without a credential, or unlinked
    MARKED = "marked"  # the customer answers to their own advantage
    OTHER_REASONS = "other reasons"  # the receipt is in review for reasons that no answer removes
    NOT_SURE = "not sure"  # the bill is not probable enough
    AMOUNT = "amount"  # above the limit of an answer, line or visit
    MONTH = "month"  # above the customer's limits of a month
    CHECK = DRAWN  # drawn for a person to look at
    PERSON = "person"  # a person has decided, or is about to


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer that a shopper may give.

    Attributes:
        number: what `Answers.answer` takes.
        moved: what they moved there, negative where taken; empty: nothing.
        lines, discounts, total: the bill under this answer, minor units.
        dearer: how much more it costs than the cheapest choice.
        probability: of this answer, by the sensors alone.
        right: probability that the bill is right if the answer is.
    """

    number: int
    moved: tuple[Goods, ...]
    lines: tuple[ReceiptLine, ...]
    discounts: tuple[Discount, ...]
    total: int
    dearer: int
    probability: float
    right: float

    def pieces(self, gtin: str) -> int:
        """Pieces of a product on the bill under this answer."""
        return sum(line.quantity for line in self.lines if line.gtin == gtin)


@dataclass(frozen=True, slots=True)
class ShopperQuestion:
    """A question that a shopper's page may put.

    Attributes:
        id: what `Answers.answer` takes.
        visit: whose bill.
        kind: what is in doubt.
        t_ns: when it happened.
        plate: where, by its name.
        nearby: names of the products that belong there: the place in words that a shopper understands.
        choices: cheapest first; of equal totals the more probable first. The first one is the default.
        answered: number of the choice that was recorded, NONE_OF_THESE or NOT_KNOWN; None while there is no answer.
        differs: products of which the bills of the choices hold different pieces.
        shared: whether another question about this visit is about some of these products too.
    """

    id: str
    visit: str
    kind: QuestionKind
    t_ns: int
    plate: str
    nearby: tuple[str, ...]
    choices: tuple[Choice, ...]
    answered: int | None
    differs: tuple[str, ...]
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an answer or a dispute.

    Attributes:
        status: "settled" (the answer settled the bill), "refunded" (the disputed pieces were taken off it), or "review"
            (a person decides).
        standing: the visit as it stands now.
        is_new: False where exactly this was recorded before.
    """

    status: Literal["settled", "refunded", "review"]
    standing: Standing
    is_new: bool


@dataclass(frozen=True, slots=True)
class Heard:
    """What the shopper of a visit stated, as staff see it.

    Attributes:
        answers, disputes: oldest first. `worth` holds what was known then: "before" and "after", the probability in
            millionths that the bill is right without and with the answer; "wrong", that a disputed line is; "held", a
            `Hold`, where it took no effect by itself; "off", what it took off the bill, where it did.
        waiting: disputes that wait for a person.
        marked: whether the customer is marked for answering to their own advantage.
        ratio: how many times more probable their answers are from such a shopper than from an honest one.
    """

    answers: tuple[ShopperAnswer, ...]
    disputes: tuple[Dispute, ...]
    waiting: tuple[Dispute, ...]
    marked: bool
    ratio: float


class _Judged(NamedTuple):
    """Whether an answer or a dispute takes effect by itself (`hold` is None), and what the books keep about that."""

    hold: Hold | None
    worth: dict[str, Any]


class _Bundle(NamedTuple):
    """What a visit's evidence holds about questions."""

    only_unlikely: bool
    questions: tuple[ShopperQuestion, ...]


class Answers:
    """The questions of a store's visits, and what becomes of shoppers' answers and disputes. From any thread."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        bundle: Callable[[str], Mapping[str, Any] | None],
        settings: AnswerSettings | None = None,
        *,
        profiles: Profiles | None = None,
        draw: Callable[[], float] | None = None,
    ) -> None:
        """Prepare.

        Args:
            store: whose visits they are.
            ledger: its books.
            bundle: the evidence of a visit as a line of evidence.jsonl holds it; None where there is none.
            settings: how far a shopper's word goes.
            profiles: keeps how customers answered once the links to their visits end; None: that ends with the links.
            draw: uniform on [0, 1): which answers a person checks. No shopper may foresee it; by default the
                machine's own randomness.
        """
        self._store, self._ledger, self._bundle = store, ledger, bundle
        self._draw = draw or SystemRandom().random
        # What is judged is in the books before the next is judged: of many at once, none passes a limit of the month
        # that another has used up.
        self._one_at_once = threading.Lock()
        self._settings = settings or AnswerSettings()
        self._history = AnswerHistory(ledger, self._settings, profiles)
        self._corrections = Corrections(store, ledger)
        self._nearby: dict[str, tuple[str, ...]] = {}
        names = {product.gtin: product.name for product in store.products}
        for facing in store.planogram:
            if facing.gtin in names:
                self._nearby[facing.plate] = (*self._nearby.get(facing.plate, ()), names[facing.gtin])

    def questions(self, visit: str) -> tuple[ShopperQuestion, ...]:
        """What is asked about a visit's bill while it waits for a decision, the most informative question first.

        Those that are answered stay among them. Empty where nothing is asked: the visit is decided, its customer is
        marked, or there are reasons for review that no answer removes.
        """
        entries = self._ledger.entries(visit)
        standing = self._ledger.standing(visit, entries)
        if standing is None or standing.status != "review":
            return ()
        found = self._questions(visit, entries)
        if not found.only_unlikely or not found.questions or self._history.customer(visit, 0).marked:
            return ()
        return found.questions[: self._settings.questions_max]

    def answer(self, visit: str, question: str, choice: int, t_ns: int) -> Outcome:
        """Record a shopper's answer to a question about their visit, and settle the bill where that is enough.

        Args:
            visit: the visit.
            question: its id.
            choice: number of the choice, or `NONE_OF_THESE` or `NOT_KNOWN` of `fusion.money.disputes`.
            t_ns: when.

        Raises:
            IdempotencyConflict: the question was answered differently before.
            LedgerError: there is no such question, or it has no such choice.
        """
        with self._one_at_once:
            return self._answer(visit, question, choice, t_ns)

    def _answer(self, visit: str, question: str, choice: int, t_ns: int) -> Outcome:
        entries = self._ledger.entries(visit)
        found = self._questions(visit, entries)
        asked = next((each for each in found.questions if each.id == question), None)
        if asked is None:
            raise LedgerError(f"visit {visit!r}: want a question about this visit, got {question[:40]!r}")
        chosen = next((each for each in asked.choices if each.number == choice), None)
        if chosen is None and choice not in (NONE_OF_THESE, NOT_KNOWN):
            raise LedgerError(f"choice: want one of the question's, got {choice}")
        judged = self._judge_answer(asked, choice, entries, found.only_unlikely, t_ns)
        if asked.answered is None and chosen is not None and judged.hold is None:
            before, after = (judged.worth[key] / MILLION for key in ("before", "after"))
            note = f"probability {before:.3f} by the sensors, {after:.3f} with the shopper's answer"
            with suppress(IdempotencyConflict), self._ledger.batch():
                self._check_not_proposed(visit)
                is_new = record_answer(self._ledger, visit, question, choice, t_ns, judged.worth)
                if is_new:
                    self._ledger.decide(
                        visit, "correct", by=BY_ANSWER, t_ns=t_ns, lines=chosen.lines, discounts=chosen.discounts,
                        note=note,
                    )  # fmt: skip
                return self._outcome(visit, is_new, BY_ANSWER)
            # A person has decided meanwhile.
            judged = self._judge_answer(asked, choice, self._ledger.entries(visit), found.only_unlikely, t_ns)
        is_new = record_answer(self._ledger, visit, question, choice, t_ns, judged.worth)
        return self._outcome(visit, is_new, BY_ANSWER)

    def dispute(self, visit: str, gtin: str, quantity: int, reason: DisputeReason | str, t_ns: int) -> Outcome:
        """Record that a shopper disputes pieces on their bill, and refund them where they are probably right.

        Args:
            visit: the visit, which has a receipt.
            gtin: the product.
            quantity: pieces that are wrong.
            reason: a `DisputeReason`.
            t_ns: when.

        Raises:
            IdempotencyConflict: this product was disputed differently before.
            LedgerError: the visit has no receipt, or its bill no such pieces.
        """
        checked_integer("quantity", quantity, 1, QUANTITY_MAX)
        with self._one_at_once:
            return self._dispute(visit, gtin, quantity, reason, t_ns)

    def _dispute(self, visit: str, gtin: str, quantity: int, reason: DisputeReason | str, t_ns: int) -> Outcome:
        entries = self._ledger.entries(visit)
        standing = self._ledger.standing(visit, entries)
        rest = _without(() if standing is None else standing.lines, gtin, quantity)
        judged = _Judged(Hold.OTHER_REASONS, {})
        if standing is not None and standing.status != "open" and rest is not None:
            sale = self._corrections.of(visit).priced(rest)
            judged = self._judge_dispute(standing, entries, gtin, str(reason), sale, t_ns)
            if judged.hold is None:
                note = f"the line is wrong with probability {judged.worth['wrong'] / MILLION:.3f}"
                with suppress(IdempotencyConflict), self._ledger.batch():
                    self._check_not_proposed(visit)
                    is_new = record_dispute(self._ledger, visit, gtin, quantity, reason, t_ns, judged.worth)
                    if is_new:
                        self._ledger.decide(
                            visit, "correct", by=BY_DISPUTE, t_ns=t_ns, revision=standing.revision + 1,
                            lines=sale.lines, discounts=sale.discounts, note=note,
                        )  # fmt: skip
                    return self._outcome(visit, is_new, BY_DISPUTE)
                judged = _Judged(Hold.PERSON, {**judged.worth, "held": str(Hold.PERSON), "off": None})
        is_new = record_dispute(self._ledger, visit, gtin, quantity, reason, t_ns, judged.worth)
        return self._outcome(visit, is_new, BY_DISPUTE)

    def heard(self, visit: str) -> Heard:
        """What the shopper of a visit stated, for staff."""
        entries = self._ledger.entries(visit)
        customer = self._history.customer(visit, 0)
        return Heard(
            answers_of(entries), disputes_of(entries), undecided_disputes(entries), customer.marked, customer.ratio
        )

    def trust(self, visit: str, *, by: str, t_ns: int, note: str = "") -> bool:
        """Lift the mark from the customer of a visit, by a person: their answers count again from now on.

        Returns False if exactly this was recorded before.
        """
        is_new = record_trust(self._ledger, visit, by=by, t_ns=t_ns, note=note)
        if is_new:
            self._history.trust(visit, t_ns)
        return is_new

    def _check_not_proposed(self, visit: str) -> None:
        """Raise IdempotencyConflict where a person has asked for a decision, under the lock of the books."""
        if _is_proposed(self._ledger.entries(visit)):
            raise IdempotencyConflict(f"visit {visit!r}: a person is about to decide")

    def _outcome(self, visit: str, is_new: bool, by: str) -> Outcome:
        entries = self._ledger.entries(visit)
        standing = self._ledger.standing(visit, entries)
        assert standing is not None
        if _decided_by(entries)[-1:] != [by]:
            return Outcome("review", standing, is_new)
        return Outcome("settled" if by == BY_ANSWER else "refunded", standing, is_new)

    # ---- what a shopper's word is worth ------------------------------------------------------------------------------

    def _judge_answer(
        self, asked: ShopperQuestion, choice: int, entries: Sequence[Entry], only_unlikely: bool, t_ns: int
    ) -> _Judged:
        settings, habits = self._settings, self._history.habits()
        customer = self._history.customer(asked.visit, t_ns)
        worth = _worth(asked)
        statement = Statement.of(choice, worth, None)
        taker = habits.is_taker(customer.ratio)
        before = self._right(asked, statement.chosen, truth_weights(statement))
        after = self._right(asked, statement.chosen, habits.truths(statement, taker))
        dearest = max(each.total for each in asked.choices if each.probability >= LIKELY_MIN or each.number == choice)
        off = dearest - asked.choices[statement.chosen].total if statement.chosen >= 0 else 0
        standing = self._ledger.standing(asked.visit, entries)
        holds = {
            Hold.OFF: not settings.settle,
            Hold.UNKNOWN: statement.chosen < 0,
            Hold.NO_CUSTOMER: not customer.known,
            Hold.PERSON: standing is None or standing.status != "review" or _is_proposed(entries),
            Hold.OTHER_REASONS: not only_unlikely or bool(undecided_disputes(entries)),
            Hold.MARKED: customer.marked,
            Hold.NOT_SURE: after < 1.0 - self._store.review.receipt_error_max,
            Hold.AMOUNT: off > settings.answer_max,
            Hold.MONTH: self._is_past_month(customer, off),
        }
        hold = next((hold for hold, holds_here in holds.items() if holds_here), None)
        if hold is None and self._draw() < settings.check_share:
            hold = Hold.CHECK
        worth |= {"before": round(before * MILLION), "after": round(after * MILLION), "taker": round(taker * MILLION)}
        return _Judged(hold, {**worth, "off": off} if hold is None else {**worth, "held": str(hold)})

    def _right(self, asked: ShopperQuestion, chosen: int, truths: Mapping[int, float]) -> float:
        """Probability that the bill of a choice is right: of the most probable one where none was chosen."""
        choices = asked.choices
        if chosen < 0:
            chosen = max(range(len(choices)), key=lambda i: truths[i])
        by_price = self._store.review.equal_price == "settle"

        def same(choice: Choice) -> bool:
            return choice.lines == choices[chosen].lines or (by_price and choice.total == choices[chosen].total)

        return sum(truths[i] * choice.right for i, choice in enumerate(choices) if same(choice))

    def _judge_dispute(
        self, standing: Standing, entries: Sequence[Entry], gtin: str, reason: str, rest: Sale, t_ns: int
    ) -> _Judged:
        settings = self._settings
        customer = self._history.customer(standing.visit, t_ns)
        lines = [line for line in standing.lines if line.gtin == gtin]
        wrong = 1.0 - min(line.confidence for line in lines)
        # A right line is disputed by mistake, or to the own advantage, as often as this customer does so.
        at_random = customer.disputes / max(len(standing.lines), 1)
        wrong = wrong / max(wrong + (1.0 - wrong) * at_random, 1.0 / MILLION)
        off = standing.total - rest.total
        before = sum(each.worth.get("off") or 0 for each in disputes_of(entries))
        holds = {
            Hold.OFF: not settings.refund,
            Hold.UNKNOWN: reason not in _OFF_THE_BILL,
            Hold.NO_CUSTOMER: not customer.known,
            Hold.PERSON: any(by != BY_DISPUTE for by in _decided_by(entries)) or _is_proposed(entries),
            Hold.OTHER_REASONS: standing.status == "review",
            Hold.MARKED: customer.marked,
            Hold.NOT_SURE: wrong < WRONG_MIN or off < 0,
            Hold.AMOUNT: off > settings.refund_line_max or before + off > settings.refund_visit_max,
            Hold.MONTH: self._is_past_month(customer, off),
        }
        hold = next((hold for hold, holds_here in holds.items() if holds_here), None)
        worth: dict[str, Any] = {
            "wrong": round(wrong * MILLION), "billed": sum(line.quantity for line in lines),
        }  # fmt: skip
        return _Judged(hold, {**worth, "off": off} if hold is None else {**worth, "held": str(hold)})

    def _is_past_month(self, customer: CustomerHistory, off: int) -> bool:
        settings = self._settings
        return customer.taken_off + off > settings.month_max or customer.n_month >= settings.month_count_max

    # ---- questions ---------------------------------------------------------------------------------------------------

    def _questions(self, visit: str, entries: Sequence[Entry]) -> _Bundle:
        bundle = self._bundle(visit)
        if bundle is None:
            return _Bundle(False, ())
        answered = {each.question: each.choice for each in answers_of(entries)}
        found: list[ShopperQuestion] = []
        only_unlikely = False
        # A bundle of another version asks nothing.
        with suppress(KeyError, TypeError, ValueError, FusionError):
            reasons = [reason_of(row) for row in bundle["reason_codes"]]
            only_unlikely = all(reason.kind in WEIGHED_REASONS for reason in reasons)
            correction = self._corrections.of(visit)
            for row in bundle["questions"]:
                asked = self._question(visit, row, answered, correction)
                if len(asked.choices) > 1:
                    found.append(asked)
            products = Counter(gtin for each in found for gtin in each.differs)
            found = [replace(each, shared=any(products[gtin] > 1 for gtin in each.differs)) for each in found]
        return _Bundle(only_unlikely, tuple(found))

    def _question(
        self, visit: str, row: Mapping[str, Any], answered: Mapping[str, int], correction: Correction
    ) -> ShopperQuestion:
        name = question_id(row["plate"], row["time"], row["event"])
        bills = [correction.priced(_lines(_goods(each["lines"]))) for each in row["alternatives"]]
        cheapest = min(bill.total for bill in bills)
        choices = [
            Choice(
                number, _goods(each["moved"]), bill.lines, bill.discounts, bill.total, bill.total - cheapest,
                float(each["probability"]), float(each["receipt_probability"]),
            )
            for number, (each, bill) in enumerate(zip(row["alternatives"], bills, strict=True))
        ]  # fmt: skip
        choices.sort(key=lambda choice: (choice.total, -choice.probability))
        return ShopperQuestion(
            name, visit, QuestionKind(row["kind"]), int(row["time"]), row["plate"],
            self._nearby.get(row["plate"], ()), tuple(choices), answered.get(name), _differing(choices),
        )  # fmt: skip


def question_id(plate: str, t_ns: int, event_id: int | None) -> str:
    """The id of a question about a visit: the same for the same load or reach."""
    return hashlib.sha256(f"{plate}|{t_ns}|{event_id}".encode()).hexdigest()[:16]


def _without(lines: Sequence[ReceiptLine], gtin: str, quantity: int) -> tuple[ReceiptLine, ...] | None:
    """The lines without some pieces of a product; None where they do not hold as many."""
    rest, left = [], quantity
    for line in lines:
        taken = min(left, line.quantity) if line.gtin == gtin else 0
        left -= taken
        if line.quantity > taken:
            rest.append(replace(line, quantity=line.quantity - taken))
    return tuple(rest) if left == 0 else None


def _decided_by(entries: Sequence[Entry]) -> list[str]:
    """Who decided a visit, oldest decision first."""
    return [entry.request["by"] for entry in entries if entry.kind in DECISIONS]


def _is_proposed(entries: Sequence[Entry]) -> bool:
    """Whether a person has asked for a decision that has not taken effect yet."""
    keys = {entry.key for entry in entries}
    return any(entry.kind == "proposal made" and f"{entry.key}/answer" not in keys for entry in entries)


def _goods(rows: Sequence[Mapping[str, Any]]) -> tuple[Goods, ...]:
    return tuple(Goods(str(row["gtin"]), int(row["quantity"])) for row in rows)


def _lines(goods: Sequence[Goods]) -> list[ReceiptLine]:
    return [ReceiptLine(each.gtin, each.quantity, 0, 1.0) for each in goods if each.quantity > 0]


def _worth(asked: ShopperQuestion) -> dict[str, Any]:
    """What the books keep of a question: its alternatives with probabilities in millionths, totals, goods that differ.

    Evidence has an age limit; whether an answer was right must be found from the books alone.
    """
    return {
        "kind": str(asked.kind),
        "plate": asked.plate,
        "time": asked.t_ns,
        "choices": [
            {
                "number": choice.number,
                "probability": round(choice.probability * MILLION),
                "right": round(choice.right * MILLION),
                "total": choice.total,
                "goods": [[gtin, choice.pieces(gtin)] for gtin in asked.differs],
            }
            for choice in asked.choices
        ],
        **({"shared": 1} if asked.shared else {}),
    }


def _differing(choices: Sequence[Choice]) -> tuple[str, ...]:
    """Products of which the bills of the choices hold different pieces."""
    gtins = sorted({line.gtin for choice in choices for line in choice.lines})
    return tuple(gtin for gtin in gtins if len({choice.pieces(gtin) for choice in choices}) > 1)
