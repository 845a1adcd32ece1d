"""What shoppers say about their own bills: answers to questions, and lines that they dispute. Evidence, not decisions.

    shopper answered     key VISIT/answer QUESTION     one answer to each question, kept with what it was worth
    shopper disputed     key VISIT/dispute GTIN        one dispute of each product on a bill
    shopper trusted      key VISIT/trusted N           a person has lifted a mark from the customer of this visit

The entries name no customer: whose visit it was stands in the vault, and once that link is erased, what a customer
answered is no longer theirs. A decision that follows from an answer or a dispute is posted beside it as any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fusion.errors import IdempotencyConflict, LedgerError
from fusion.money.entries import NOTE_MAX, Entry, checked_integer, checked_text
from fusion.money.ledger import Ledger
from fusion.money.visits import DECISIONS, Standing
from fusion.results import NAME_MAX
from fusion.store.card_numbers import without_card_number

ANSWERED, DISPUTED, TRUSTED = "shopper answered", "shopper disputed", "shopper trusted"
KINDS = (ANSWERED, DISPUTED, TRUSTED)
# Who decided, where a decision follows from the word of a shopper.
BY_ANSWER, BY_DISPUTE = "shopper's answer", "shopper's dispute"
AUTOMATIC = (BY_ANSWER, BY_DISPUTE)
# A choice that is none of the alternatives, and one of a shopper who does not know.
NONE_OF_THESE, NOT_KNOWN = -1, -2
# Alternatives of a question are few; see `fusion.goods.questions.ANSWERS_MAX`.
CHOICE_MAX = 99
QUANTITY_MAX = 10_000


class DisputeReason(StrEnum):
    """Why a shopper disputes a line."""

    NOT_TAKEN = "not taken"
    PUT_BACK = "put back"
    OTHER_GOODS = "other goods"
    OTHER_QUANTITY = "other quantity"
    OTHER_PRICE = "other price"


@dataclass(frozen=True, slots=True)
class Dispute:
    """A shopper disputes pieces on their bill.

    Attributes:
        visit: whose bill.
        gtin: the product.
        quantity: pieces that are wrong.
        reason: why.
        worth: what was known when it was raised; see `fusion.till.answers`.
        t_ns: when.
        seq: number of the entry.
    """

    visit: str
    gtin: str
    quantity: int
    reason: DisputeReason
    worth: Mapping[str, Any]
    t_ns: int
    seq: int

    @classmethod
    def of(cls, entry: Entry) -> Dispute:
        """The dispute that an entry holds."""
        request = entry.request
        reason = DisputeReason(request["reason"])
        return cls(
            entry.visit, request["gtin"], request["quantity"], reason, request["worth"], entry.t_ns, entry.seq
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ShopperAnswer:
    """A shopper's answer to a question about their bill.

    Attributes:
        visit: whose bill.
        question: id of the question.
        choice: number of the alternative, NONE_OF_THESE or NOT_KNOWN.
        worth: what was known when it was given; see `fusion.till.answers`.
        t_ns: when.
        seq: number of the entry.
    """

    visit: str
    question: str
    choice: int
    worth: Mapping[str, Any]
    t_ns: int
    seq: int

    @classmethod
    def of(cls, entry: Entry) -> ShopperAnswer:
        """The answer that an entry holds."""
        request = entry.request
        return cls(entry.visit, request["question"], request["choice"], request["worth"], entry.t_ns, entry.seq)


def record_answer(
    ledger: Ledger, visit: str, question: str, choice: int, t_ns: int, worth: Mapping[str, Any]
) -> bool:
    """Record an answer once. False if the same choice was recorded before, whenever that was.

    Args:
        ledger: the books.
        visit: has a receipt.
        question: its id.
        choice: number of the alternative, NONE_OF_THESE or NOT_KNOWN.
        t_ns: when.
        worth: what is known about the alternatives now; integers and text only.

    Raises:
        IdempotencyConflict: the question was answered differently.
        LedgerError: the visit has no receipt, or a value does not fit into the books.
    """
    name = f"answer {checked_text('question', question, NAME_MAX)}"
    choice = checked_integer("choice", choice, NOT_KNOWN, CHOICE_MAX)
    _want_receipt(ledger, visit)
    recorded = ledger.recorded(visit, name)
    if recorded is not None:
        if recorded.request["choice"] != choice:
            raise IdempotencyConflict(f"visit {visit!r}: this question was answered differently before")
        return False
    return ledger.record(visit, name, ANSWERED, t_ns, {"question": question, "choice": choice, "worth": dict(worth)})


def record_dispute(
    ledger: Ledger,
    visit: str,
    gtin: str,
    quantity: int,
    reason: DisputeReason | str,
    t_ns: int,
    worth: Mapping[str, Any],
) -> bool:
    """Record that a shopper disputes pieces of a product once. False if the same was recorded before.

    Args:
        ledger: the books.
        visit: has a receipt.
        gtin: a product on the bill as it stands.
        quantity: pieces that are wrong, at most those on the bill.
        reason: a `DisputeReason`.
        t_ns: when.
        worth: what is known about the line now; integers and text only.

    Raises:
        IdempotencyConflict: this product was disputed differently before.
        LedgerError: the visit has no receipt, or its bill no such pieces.
    """
    name = f"dispute {checked_text('gtin', gtin)}"
    try:
        reason = DisputeReason(reason)
    except ValueError:
        raise LedgerError(f"reason: want one of {', '.join(DisputeReason)}, got {str(reason)[:40]!r}") from None
    quantity = checked_integer("quantity", quantity, 1, QUANTITY_MAX)
    standing = _want_receipt(ledger, visit)
    recorded = ledger.recorded(visit, name)
    if recorded is not None:
        if (recorded.request["quantity"], recorded.request["reason"]) != (quantity, reason):
            raise IdempotencyConflict(f"visit {visit!r}: this product was disputed differently before")
        return False
    billed = sum(line.quantity for line in standing.lines if line.gtin == gtin)
    if quantity > billed:
        raise LedgerError(f"quantity: want at most the {billed} of {gtin!r} on the bill, got {quantity}")
    request = {"gtin": gtin, "quantity": quantity, "reason": str(reason), "worth": dict(worth)}
    return ledger.record(visit, name, DISPUTED, t_ns, request)


def record_trust(ledger: Ledger, visit: str, *, by: str, t_ns: int, note: str = "") -> bool:
    """Record that a person lifts the mark from the customer of a visit: what they answer counts again from now on.

    Returns False if exactly this was recorded before.

    Raises:
        LedgerError: the visit has no receipt, or a value does not fit into the books.
    """
    _want_receipt(ledger, visit)
    n = sum(entry.kind == TRUSTED for entry in ledger.entries(visit))
    request = {"by": checked_text("by", by), "note": without_card_number(checked_text("note", note, NOTE_MAX, 0))}
    before = ledger.recorded(visit, f"trusted {n}") if n else None
    if before is not None and (before.t_ns, dict(before.request)) == (t_ns, request):
        return False
    return ledger.record(visit, f"trusted {n + 1}", TRUSTED, t_ns, request)


def answers_of(entries: Iterable[Entry]) -> tuple[ShopperAnswer, ...]:
    """The answers among a visit's entries, oldest first."""
    return tuple(ShopperAnswer.of(entry) for entry in entries if entry.kind == ANSWERED)


def disputes_of(entries: Iterable[Entry]) -> tuple[Dispute, ...]:
    """The disputes among a visit's entries, oldest first."""
    return tuple(Dispute.of(entry) for entry in entries if entry.kind == DISPUTED)


def undecided_disputes(entries: Sequence[Entry]) -> tuple[Dispute, ...]:
    """The disputes of a visit that no decision has followed yet, oldest first.

    A person who finds the bill right decides so by correcting it to the lines that it has.
    """
    decided = max((entry.seq for entry in entries if entry.kind in DECISIONS), default=0)
    return tuple(dispute for dispute in disputes_of(entries) if dispute.seq > decided)


def disputed_visits(ledger: Ledger) -> list[str]:
    """Visits with disputes that no decision has followed yet, the oldest dispute first."""
    return ledger.not_followed(DISPUTED, DECISIONS)


def _want_receipt(ledger: Ledger, visit: str) -> Standing:
    standing = ledger.standing(visit)
    if standing is None or standing.status == "open":
        raise LedgerError(f"visit {visit!r}: want a visit with a receipt, got none")
    return standing
