"""Questions to shoppers about their own bills, what their answers are worth, and lines that they dispute.

A receipt in review may hold questions: "A or B?". The shopper's answer is evidence beside that of the sensors. What
they say is recorded in the books with what was known then; see `fusion.money.disputes`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from fusion.errors import FusionError, LedgerError
from fusion.files.results import reason_of
from fusion.money.corrections import Corrections
from fusion.money.disputes import DisputeReason, answers_of, record_answer, record_dispute
from fusion.money.entries import Entry
from fusion.money.ledger import Ledger
from fusion.money.sales import Discount, Sale
from fusion.money.visits import Standing
from fusion.results import WEIGHED_REASONS, Goods, QuestionKind, ReceiptLine
from fusion.store.models import Store

MILLION = 1_000_000


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
    """

    id: str
    visit: str
    kind: QuestionKind
    t_ns: int
    plate: str
    nearby: tuple[str, ...]
    choices: tuple[Choice, ...]
    answered: int | None


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


class _Bundle(NamedTuple):
    """What a visit's evidence holds about questions."""

    only_unlikely: bool
    questions: tuple[ShopperQuestion, ...]


class Answers:
    """The questions of a store's visits, and what becomes of shoppers' answers and disputes. From any thread."""

    def __init__(self, store: Store, ledger: Ledger, bundle: Callable[[str], Mapping[str, Any] | None]) -> None:
        """Prepare.

        Args:
            store: whose visits they are.
            ledger: its books.
            bundle: the evidence of a visit as a line of evidence.jsonl holds it; None where there is none.
        """
        self._store, self._ledger, self._bundle = store, ledger, bundle
        self._corrections = Corrections(store, ledger)
        self._nearby: dict[str, tuple[str, ...]] = {}
        names = {product.gtin: product.name for product in store.products}
        for facing in store.facings:
            if facing.gtin in names:
                self._nearby[facing.plate] = (*self._nearby.get(facing.plate, ()), names[facing.gtin])

    def questions(self, visit: str) -> tuple[ShopperQuestion, ...]:
        """What may be asked about a visit's bill while it waits for a decision, the most informative question first.

        Empty where nothing may be asked: the visit is decided, or there are reasons for review that no answer removes.
        """
        entries = self._ledger.entries(visit)
        standing = self._ledger.standing(visit, entries)
        if standing is None or standing.status != "review":
            return ()
        found = self._questions(visit, entries)
        return found.questions if found.only_unlikely else ()

    def answer(self, visit: str, question: str, choice: int, t_ns: int) -> Outcome:
        """Record a shopper's answer to a question about their visit.

        Args:
            visit: the visit.
            question: its id.
            choice: number of the choice, or `NONE_OF_THESE` or `NOT_KNOWN` of `fusion.money.disputes`.
            t_ns: when.

        Raises:
            IdempotencyConflict: the question was answered differently before.
            LedgerError: there is no such question, or it has no such choice.
        """
        entries = self._ledger.entries(visit)
        asked = next((each for each in self._questions(visit, entries).questions if each.id == question), None)
        if asked is None:
            raise LedgerError(f"visit {visit!r}: want a question about this visit, got {question[:40]!r}")
        if choice >= 0 and choice not in [each.number for each in asked.choices]:
            raise LedgerError(f"choice: want one of the question's, got {choice}")
        is_new = record_answer(self._ledger, visit, question, choice, t_ns, _worth(asked))
        return self._outcome(visit, is_new, "settled")

    def dispute(self, visit: str, gtin: str, quantity: int, reason: DisputeReason | str, t_ns: int) -> Outcome:
        """Record that a shopper disputes pieces on their bill.

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
        is_new = record_dispute(self._ledger, visit, gtin, quantity, reason, t_ns)
        return self._outcome(visit, is_new, "refunded")

    def _outcome(self, visit: str, is_new: bool, decided: Literal["settled", "refunded"]) -> Outcome:
        standing = self._ledger.standing(visit)
        assert standing is not None
        return Outcome(decided if standing.status == "decided" else "review", standing, is_new)

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
            for row in bundle["questions"]:
                asked = self._question(visit, row, answered)
                if len(asked.choices) > 1:
                    found.append(asked)
        return _Bundle(only_unlikely, tuple(found))

    def _question(self, visit: str, row: Mapping[str, Any], answered: Mapping[str, int]) -> ShopperQuestion:
        name = question_id(row["plate"], row["time"], row["event"])
        bills = [self._priced(visit, _goods(alternative["lines"])) for alternative in row["alternatives"]]
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
            self._nearby.get(row["plate"], ()), tuple(choices), answered.get(name),
        )  # fmt: skip

    def _priced(self, visit: str, goods: Sequence[Goods]) -> Sale:
        wanted = [ReceiptLine(each.gtin, each.quantity, 0, 1.0) for each in goods if each.quantity > 0]
        return Sale(*self._corrections.priced(visit, wanted))


def question_id(plate: str, t_ns: int, event_id: int | None) -> str:
    """The id of a question about a visit: the same for the same load or reach."""
    return hashlib.sha256(f"{plate}|{t_ns}|{event_id}".encode()).hexdigest()[:16]


def _goods(rows: Sequence[Mapping[str, Any]]) -> tuple[Goods, ...]:
    return tuple(Goods(str(row["gtin"]), int(row["quantity"])) for row in rows)


def _worth(asked: ShopperQuestion) -> dict[str, Any]:
    """What the books keep of a question: its alternatives with probabilities in millionths, totals, goods that differ.

    Evidence has an age limit; whether an answer was right must be found from the books alone.
    """
    held = [{line.gtin: 0 for line in choice.lines} for choice in asked.choices]
    for pieces, choice in zip(held, asked.choices, strict=True):
        for line in choice.lines:
            pieces[line.gtin] += line.quantity
    gtins = sorted({gtin for pieces in held for gtin in pieces})
    differ = [gtin for gtin in gtins if len({pieces.get(gtin, 0) for pieces in held}) > 1]
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
                "goods": [[gtin, pieces.get(gtin, 0)] for gtin in differ],
            }
            for choice, pieces in zip(asked.choices, held, strict=True)
        ],
    }
