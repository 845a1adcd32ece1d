"""How a visit stands in the books, read from its entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from fusion.files.results import reason_of
from fusion.money.sales import Discount, Sale
from fusion.results import Reason, ReceiptLine

# Reasons of one receipt that are kept by kind and fields; the text holds all of them.
REASONS_MAX = 32

VisitStatus = Literal["open", "settled", "review", "decided"]
DecisionKind = Literal["accept", "correct", "waive"]
# Kinds of the entries by which a visit begins and is charged. A decision reverses what these charged and no others:
# payments stay where they are.
OPENED = "visit opened"
DECISIONS = ("decision accept", "decision correct", "decision waive")
CHARGING = ("receipt settled", "receipt review", *DECISIONS)


@dataclass(frozen=True, slots=True)
class OpenVisit:
    """A visit that began and has no receipt yet. `account` is None without a credential or once unlinked."""

    visit: str
    account: str | None
    enter_ns: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How a visit stands in the books.

    Attributes:
        visit: its id.
        account: whose visit it is; None without a credential or once unlinked.
        status: "open" (no receipt yet), "settled", "review" (waits for a decision), or "decided".
        reason: why the receipt went to review, as text; None if it did not.
        currency: of the amounts.
        total: what the lines below cost. It has been charged unless the status is "open" or "review".
        lines: the goods at their prices.
        revision: number of decisions taken so far; the next one is revision + 1.
        discounts: what offers took off the lines' prices.
        reasons: the reasons by kind and fields, without notes, at most REASONS_MAX of them.
    """

    visit: str
    account: str | None
    status: VisitStatus
    reason: str | None
    currency: str
    total: int
    lines: tuple[ReceiptLine, ...]
    revision: int
    discounts: tuple[Discount, ...] = ()
    reasons: tuple[Reason, ...] = ()

    @property
    def is_final(self) -> bool:
        """Whether the visit has been charged: it is neither open nor in review."""
        return self.status not in ("open", "review")

    @classmethod
    def of(
        cls, visit: str, account: str | None, currency: str, events: Iterable[tuple[str, Mapping[str, Any]]]
    ) -> Self | None:
        """How a visit stands after its events, (kind, request) of each entry; None if none opens or charges it."""
        status: VisitStatus | None = None
        reason: str | None = None
        reasons: tuple[Reason, ...] = ()
        sale, revision = Sale(), 0
        for kind, request in events:
            if kind == OPENED:
                status = "open"
            elif kind.startswith("receipt ") and kind in CHARGING:
                status, reason, sale = request["status"], request["reason"], Sale.stored(request)
                reasons = tuple(map(reason_of, request.get("reasons", ())))
            elif kind in CHARGING:
                status, revision = "decided", request["revision"]
                if kind != "decision accept":
                    sale = Sale.stored(request)
        if status is None:
            return None
        return cls(visit, account, status, reason, currency, sale.total, sale.lines, revision, sale.discounts, reasons)
