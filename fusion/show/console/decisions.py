"""Decisions of reviewers: what they may send, at which prices it is billed, and the visit as it stands afterwards.

What a page sends and is sent (JSON; amounts in minor units, `_ms` milliseconds since 1970 by the server's clock):

    POST /api/reviews/VISIT            {"decision": "accept" | "correct" | "waive", "revision": revision + 1,
                                        "lines": [{"gtin", "quantity"}, ...] with "correct" and only then,
                                        "reason": one of /api/store's "reasons" where the bill changes, "note": text}
    POST /api/reviews/VISIT/withdraw   {"number": of the proposal}    undo, or the refusal of a second person
    POST /api/reviews/VISIT/second     {"number": of the proposal}    consent of a second person

Each answers with the visit (`standing_row`), whose "proposal" is the one that is open, or null. Status 409: another
person acted first; 403: the user may not; 400: it makes no sense; "error" says what.

    proposal   {"visit", "number", "state": "counting" | "waiting" (for a second person) | "applied" | "withdrawn" |
                "void", "decision", "revision", "by", "made_ms", "due_ms" (when it takes effect), "needs_second",
                "seconded_by" ("" if none), "reason", "note", "before", "after", "amount", "discounts": their sum,
                "lines": [[gtin, quantity, unit_price, confidence], ...], "ended_by", "why"}

GET /api/reviews/VISIT has "proposal", "proposals" (all, oldest first) and "decided" (decisions that took effect: "by",
"ms", "decision", "note", and with a proposal "seconded_by", "reason", "total"). All answers have "now_ms", by which a
page counts down whatever its own clock shows. The stream sends {"now_ms", "proposals": [what is open in the store,
settled visits included]} at its beginning and when that changes; rows of "reviews" have "proposal" too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import Field

from fusion.errors import FusionError, terminal_text
from fusion.files.results import reason_row
from fusion.money.corrections import ENTERED, Corrections
from fusion.money.ledger import Ledger
from fusion.money.payments import Checkout
from fusion.money.proposals import APPLIED, UNDO_S, Authority, Proposal, Proposals, Wish, proposals_of
from fusion.money.sales import Discount, Sale
from fusion.money.visits import Standing
from fusion.results import ReceiptLine
from fusion.store.models import Store
from fusion.store.values import StrictModel

PIECES_MAX = 1000

_log = logging.getLogger(__name__)


class Line(StrictModel):
    """Pieces of a product on a corrected bill."""

    gtin: str
    quantity: int = Field(ge=1, le=PIECES_MAX)


class Decision(StrictModel):
    """A reviewer's decision, as a page sends it; `lines` are given with "correct" and only then."""

    decision: str
    revision: int = Field(ge=1, le=1000)
    lines: tuple[Line, ...] | None = Field(default=None, max_length=500)
    reason: str = Field(default="", max_length=40)
    note: str = Field(default="", max_length=500)


class Numbered(StrictModel):
    """Which proposal about a visit a page means."""

    number: int = Field(ge=1, le=10**6)


class Decisions:
    """The visits of a store's ledger, as reviewers read and decide them.

    Attributes:
        proposals: what was asked for in the store's books.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        checkout: Checkout | None,
        clock_ns: Callable[[], int] = time.time_ns,
        undo_s: float = UNDO_S,
    ) -> None:
        """Prepare.

        Args:
            store: whose visits they are.
            ledger: its books.
            checkout: settles decisions with the payment provider; None leaves that to the store's own.
            clock_ns: when a decision is made.
            undo_s: how long it can be withdrawn.
        """
        self.proposals = Proposals(ledger, store, undo_s=undo_s)
        self._ledger, self._checkout, self._clock_ns = ledger, checkout, clock_ns
        # One thread asks the provider, however long it takes; no user of the console waits for that.
        self._settling = ThreadPoolExecutor(max_workers=1, thread_name_prefix="settling")
        self._corrections = Corrections(store, ledger)

    def standing(self, visit: str) -> Standing | None:
        """How a visit stands; None where the books have none of this name.

        Raises:
            LedgerError: the books cannot be read.
        """
        try:
            return self._ledger.standing(visit)
        except FusionError:
            self._ledger.head()  # raises where the books themselves cannot be read
            return None  # otherwise the text is no possible name of a visit

    def history(self, visit: str) -> dict[str, Any]:
        """What was asked for and decided about a visit so far: "proposal", "proposals" and "decided"."""
        entries = self._ledger.entries(visit)
        proposals = proposals_of(entries)
        by_revision = {each.revision: each for each in proposals if each.ended == APPLIED}
        decided = []
        for entry in entries:
            if entry.kind.startswith("decision "):
                row = {"decision": entry.kind.removeprefix("decision "), "by": entry.request["by"]}
                row |= {"ms": entry.t_ns // 1_000_000, "note": entry.request["note"]}
                if (of := by_revision.get(entry.request["revision"])) is not None:
                    row |= {"seconded_by": of.seconded_by, "reason": of.reason, "total": of.after}
                decided.append(row)
        open_one = [each for each in proposals[-1:] if each.state in ("counting", "waiting")]
        rows = [proposal_row(each) for each in proposals]
        return {
            "decided": decided, "proposals": rows, "proposal": rows[-1] if open_one else None, "now_ms": self.now_ms,
        }  # fmt: skip

    def ask(self, visit: str, asked: Decision, authority: Authority) -> dict[str, Any]:
        """Enter what a reviewer wants decided. Returns the visit as pages read it.

        Raises:
            IdempotencyConflict: another person acted in the meantime.
            NotPermitted: the reviewer may not decide this visit.
            FusionError: the decision makes no sense for this visit, or cannot be entered.
        """
        lines: tuple[ReceiptLine, ...] | None = None
        discounts: tuple[Discount, ...] = ()
        if asked.decision == "correct":
            wanted = tuple(ReceiptLine(line.gtin, line.quantity, 0, ENTERED) for line in asked.lines or ())
            lines, discounts = self._corrections.priced(visit, wanted)
        elif asked.lines is not None:
            raise FusionError(f"lines: want lines with the decision correct and no other, got {asked.decision}")
        wish = Wish(visit, asked.decision, asked.revision, lines, discounts, asked.reason, asked.note)  # type: ignore[arg-type]
        self.proposals.ask(wish, authority, self._clock_ns())
        return self.shown(visit)

    def priced(self, visit: str, lines: Sequence[Line]) -> dict[str, Any]:
        """What a bill of these goods would charge: "total", "discounts" and "lines", which decide nothing.

        Raises:
            FusionError: goods that the store does not sell, or a visit without receipt.
        """
        wanted = tuple(ReceiptLine(line.gtin, line.quantity, 0, ENTERED) for line in lines)
        bill, discounts = self._corrections.priced(visit, wanted)
        return {
            "total": Sale(bill, discounts).total,
            "discounts": sum(discount.amount for discount in discounts),
            "lines": [[line.gtin, line.quantity, line.unit_price, line.confidence] for line in bill],
        }

    def withdraw(self, visit: str, which: Numbered, authority: Authority) -> dict[str, Any]:
        """Take a proposal back, or refuse it as a second person; see `Proposals.withdraw`."""
        self.proposals.withdraw(visit, which.number, authority.name, self._clock_ns())
        return self.shown(visit)

    def second(self, visit: str, which: Numbered, authority: Authority) -> dict[str, Any]:
        """Agree to a proposal; see `Proposals.second`."""
        self.proposals.second(visit, which.number, authority, self._clock_ns())
        return self.shown(visit)

    def shown(self, visit: str) -> dict[str, Any]:
        """A visit as pages read it, after what is due has taken effect."""
        self.apply_due()
        standing = self._ledger.standing(visit)
        assert standing is not None
        return {**standing_row(standing), "proposal": self.history(visit)["proposal"], "now_ms": self.now_ms}

    def apply_due(self) -> None:
        """Let what is due take effect; its payment is settled in the background where a provider is at hand.

        Raises:
            LedgerError: the books cannot be used.
        """
        now_ns = self._clock_ns()
        for visit in self.proposals.apply_due(now_ns):
            if self._checkout is not None:
                self._settling.submit(self._settle, self._checkout, visit, now_ns)

    @property
    def now_ms(self) -> int:
        """The present, milliseconds since 1970."""
        return self._clock_ns() // 1_000_000

    def open_rows(self) -> list[dict[str, Any]]:
        """What is open in the store as pages read it, oldest first. Raises LedgerError."""
        return [proposal_row(each) for each in self.proposals.open()]

    def _settle(self, checkout: Checkout, visit: str, t_ns: int) -> None:
        try:
            checkout.settle(visit, t_ns)
        except FusionError as error:
            # The decision is in the books: `Checkout.recover` settles later.
            _log.warning("visit %s is decided, its payment not settled: %s", visit, terminal_text(str(error)))

    def close(self) -> None:
        """Wait until the payments of all decisions have been tried; those without an answer are settled later."""
        self._settling.shutdown()


def _bill_row(bill: Standing | Sale) -> dict[str, Any]:
    """The lines of a bill and what offers take off it."""
    return {
        "lines": [[line.gtin, line.quantity, line.unit_price, line.confidence] for line in bill.lines],
        "discounts": sum(discount.amount for discount in bill.discounts),
    }


def standing_row(standing: Standing) -> dict[str, Any]:
    """A visit as pages read it."""
    return {
        "visit": standing.visit,
        "account": standing.account,
        "status": standing.status,
        "reason": standing.reason,
        "reasons": [reason_row(reason) for reason in standing.reasons],
        "total": standing.total,
        "revision": standing.revision,
        **_bill_row(standing),
    }


def review_row(standing: Standing, proposal: dict[str, Any] | None = None) -> dict[str, Any]:
    """A visit as the queue shows it: without lines, with the number of pieces, and with the proposal that is open."""
    pieces = sum(line.quantity for line in standing.lines)
    return {**standing_row(standing), "lines": None, "pieces": pieces, "proposal": proposal}


def proposal_row(proposal: Proposal) -> dict[str, Any]:
    """A proposal as pages read it."""
    return {
        "visit": proposal.visit,
        "number": proposal.number,
        "state": proposal.state,
        "decision": proposal.decision,
        "revision": proposal.revision,
        "by": proposal.by,
        "made_ms": proposal.made_ns // 1_000_000,
        "due_ms": proposal.due_ns // 1_000_000,
        "needs_second": proposal.needs_second,
        "seconded_by": proposal.seconded_by,
        "reason": proposal.reason,
        "note": proposal.note,
        "before": proposal.before,
        "after": proposal.after,
        "amount": proposal.amount,
        **_bill_row(proposal.sale),
        "ended_by": proposal.ended_by,
        "why": proposal.why,
    }
